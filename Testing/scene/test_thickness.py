"""The bones painted with the thickness of their cortex, as models in the scene."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from toy_anatomy import THICKNESS

from FemurSegLib.anatomy.thickness import THICKEST_MM, THICKNESS_ARRAY
from FemurSegLib.errors import InputError
from FemurSegLib.scene.landmarks import rows
from FemurSegLib.scene.nodes import latest_run
from FemurSegLib.scene.show import show_result
from FemurSegLib.scene.thickness import LEGEND_PART
from FemurSegLib.sides import LEFT, RIGHT, SIDES


@pytest.fixture
def folder(ct, result_of):
    return result_of(ct, None, "--compartments", "network")


def test_a_hidden_model_a_femur_lies_on_the_bone_and_is_coloured_by_its_thickness(ct, folder):
    run = show_result(folder, ct)
    assert set(run.thickness) == set(SIDES)
    for side, node in run.thickness.items():
        points = slicer.util.arrayFromModelPoints(node)
        box = np.zeros(6)
        run.rois[side].GetRASBounds(box)
        low, high = box.reshape(3, 2).T
        assert (points.min(axis=0) > low - 2).all() and (points.max(axis=0) < high + 2).all()
        display = node.GetDisplayNode()
        assert display.GetActiveScalarName() == THICKNESS_ARRAY and display.GetScalarVisibility()
        assert display.GetScalarRange() == (0, THICKEST_MM) and not display.GetVisibility()
        color = np.zeros(4)
        display.GetColorNode().GetColor(255, color)
        assert color[:3] == pytest.approx((0.993, 0.906, 0.144), abs=0.01)  # the yellow end of viridis


def test_shown_they_take_the_place_of_the_segments(ct, folder):
    run = show_result(folder, ct)
    run.show_thickness(True)
    (legend,) = run.parts(LEGEND_PART)
    shown = [*(node.GetDisplayNode() for node in run.thickness.values()), legend]
    segments = run.segmentation.GetDisplayNode()
    assert all(node.GetVisibility() for node in shown) and not segments.GetVisibility3D()
    run.show_thickness(False)
    assert not any(node.GetVisibility() for node in shown) and segments.GetVisibility3D()


def test_undo_takes_them_away_with_their_colours_and_their_legend(scene, ct, folder):
    before = scene.GetNumberOfNodes()
    show_result(folder, ct).undo()
    assert scene.GetNumberOfNodes() == before


def test_the_table_tells_the_thickness(ct, folder):
    table = {name: cells for name, *cells in rows(show_result(folder, ct).report["femurs"], {})}
    assert table["Cortex, cortical thickness"] == table["Head, cortical thickness"] == ["3.0 mm", "3.0 mm"]
    told = f"{THICKNESS['p05_mm']:.1f} to {THICKNESS['p95_mm']:.1f} mm"
    assert table["Cortex, nine tenths of the surface"] == [told, told]


def test_the_table_tells_the_spread_where_there_is_one_and_not_of_what_was_moved(ct, folder):
    run = show_result(folder, ct)
    femurs = run.report["femurs"]
    angle = femurs[RIGHT]["anatomy"]["measurements"]["neck_shaft_angle_deg"]
    angle |= {"sd": 0.42, "largest_change": 0.9}
    told = next(cells for name, *cells in rows(femurs, {}) if name == angle["name"])
    assert told == [f"{angle['value']:.1f} ± 0.4°", f"{angle['value']:.1f}°"]
    moved = {key: list(each["position_lps_mm"]) for key, each in femurs[RIGHT]["anatomy"]["landmarks"].items()}
    moved["head_center"][2] += 5
    told = next(cells for name, *cells in rows(femurs, {RIGHT: moved}) if name == angle["name"])
    assert "±" not in told[0] and told[0].endswith("*")


def test_a_result_without_painted_surfaces_has_no_models(ct, result_of):
    run = show_result(result_of(ct), ct)
    assert not run.thickness and not run.parts(LEGEND_PART)


def test_a_damaged_surface_is_told_and_leaves_the_scene_as_it_was(scene, ct, folder):
    before = scene.GetNumberOfNodes()
    (folder / f"{LEFT}_thickness.vtp").write_text("no surface")
    with pytest.raises(InputError, match="damaged"):
        show_result(folder, ct)
    assert latest_run() is None and scene.GetNumberOfNodes() == before
