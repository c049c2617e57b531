"""Landmarks and axes as markups, and the numbers that follow them."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import slicer
from toy_anatomy import anatomy

from FemurSegLib.anatomy.measurements import NAMES, numbers_from_landmarks
from FemurSegLib.anatomy.regions import REGION_NAMES
from FemurSegLib.scene.geometry import flip
from FemurSegLib.scene.landmarks import AXES, FIRST, Following, reasons, rows
from FemurSegLib.scene.nodes import latest_run
from FemurSegLib.scene.show import show_result
from FemurSegLib.sides import LEFT, RIGHT, SIDES


@pytest.fixture
def folder(ct, result_of):
    """A result whose femora have the landmarks of toy_anatomy.py."""
    return result_of(ct)


@pytest.fixture
def run(ct, folder):
    return show_result(folder, ct)


def found(run, side):
    """{landmark: LPS mm}, as in the result."""
    landmarks = run.report["femurs"][side]["anatomy"]["landmarks"]
    return {key: each["position_lps_mm"] for key, each in landmarks.items()}


def index_of(node, key):
    keys = [node.GetNthControlPointDescription(n) for n in range(node.GetNumberOfControlPoints())]
    return keys.index(key)


def position(node, key):
    return flip(node.GetNthControlPointPositionWorld(index_of(node, key)))


def move(node, key, lps_mm):
    node.SetNthControlPointPositionWorld(index_of(node, key), *flip(lps_mm))


def cells(run):
    table = run.anatomy_table
    return {
        table.GetCellText(row, 0): (table.GetCellText(row, 1), table.GetCellText(row, 2))
        for row in range(table.GetNumberOfRows())
    }


def test_each_landmark_lies_where_it_was_found_and_has_its_name(run):
    for side in SIDES:
        for key, lps in found(run, side).items():
            assert np.allclose(position(run.landmarks[side], key), lps)
    node = run.landmarks[RIGHT]
    assert node.GetNthControlPointLabel(index_of(node, "head_center")) == "Centre of the femoral head"
    assert set(run.axes) == {(side, axis) for side in SIDES for axis in AXES}


def test_they_are_hidden_at_first_and_lie_in_a_folder_of_the_run(scene, run):
    nodes = [*run.landmarks.values(), *run.axes.values()]
    assert not any(node.GetDisplayNode().GetVisibility() for node in nodes)
    run.show_landmarks(True)
    assert all(node.GetDisplayNode().GetVisibility() for node in nodes)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folders = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in nodes}
    (folder,) = folders
    shelf = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(run.segmentation))
    assert hierarchy.GetItemName(folder) == "Landmarks and axes" and hierarchy.GetItemParent(folder) == shelf


def test_the_table_begins_with_what_a_surgeon_looks_for(run):
    table = cells(run)
    known = [key for key in FIRST if key != "bow_radius_mm"]  # these bones are straight
    assert list(table)[: len(known)] == [NAMES[key] for key in known]
    assert table["Head diameter"] == ("12.0 mm", "12.0 mm")
    assert table["Head, volume"] == ("4.0 ml",) * 2 and table["Head, cortical volume"] == ("1.5 ml",) * 2
    assert table[f"{REGION_NAMES['distal']}, volume"] == ("6.0 ml",) * 2
    assert table["Neck-shaft angle"][0] == table["Neck-shaft angle"][1]  # mirror images


def test_the_numbers_follow_a_landmark_that_is_moved(run):
    following = Following(run)
    before = cells(run)
    moved = found(run, LEFT)
    moved["head_center"] = [moved["head_center"][0] - 5, moved["head_center"][1], moved["head_center"][2] + 3]
    move(run.landmarks[LEFT], "head_center", moved["head_center"])
    after = cells(run)
    for key, value in numbers_from_landmarks(moved, LEFT).items():
        text = after[NAMES[key]][1]
        if text != before[NAMES[key]][1]:
            assert text == f"{value:.1f}{'°' if key.endswith('deg') else ' mm'} *"
    changed = {name for name in before if before[name] != after[name]}
    assert {NAMES["neck_shaft_angle_deg"], NAMES["offset_mm"], NAMES["mldfa_deg"]} <= changed
    assert NAMES["condylar_twist_deg"] in changed  # it is looked at along the mechanical axis
    assert not changed & {NAMES["length_mm"], NAMES["head_diameter_mm"], "Head, volume"}
    assert all(before[name][0] == after[name][0] for name in before)  # the right femur stays
    assert following.moved


def test_axes_follow_landmarks_and_landmarks_follow_axes(run):
    following = Following(run)
    head = [-25.0, 4.0, 33.0]
    move(run.landmarks[RIGHT], "head_center", head)
    for axis in ("mechanical_axis", "neck_axis"):
        assert np.allclose(position(run.axes[RIGHT, axis], "head_center"), head)
    notch = [-41.0, 0.0, -30.0]
    move(run.axes[RIGHT, "mechanical_axis"], "notch", notch)
    assert np.allclose(position(run.landmarks[RIGHT], "notch"), notch)
    assert cells(run)[NAMES["mechanical_length_mm"]][0] == f"{np.linalg.norm(np.subtract(head, notch)):.1f} mm *"
    following.stop()


def test_reset_brings_everything_back(run):
    following = Following(run)
    before = cells(run)
    move(run.landmarks[LEFT], "notch", (0, 0, 0))
    move(run.axes[RIGHT, "neck_axis"], "neck_center", (0, 0, 0))
    assert cells(run) != before
    following.reset()
    assert cells(run) == before and not following.moved
    assert np.allclose(position(run.axes[LEFT, "mechanical_axis"], "notch"), found(run, LEFT)["notch"])


def test_dragging_is_fluent(run):
    following = Following(run)
    began = time.process_time()
    for step in range(50):
        move(run.landmarks[LEFT], "head_center", (20 + 0.1 * step, 0, 25))
    assert following.moved and (time.process_time() - began) / 50 < 0.05


def test_landmarks_cannot_be_lost_by_a_click(run):
    assert all(node.GetFixedNumberOfControlPoints() for node in (*run.landmarks.values(), *run.axes.values()))


def test_a_list_that_was_deleted_stops_nothing(scene, run):
    following = Following(run)
    scene.RemoveNode(run.landmarks[LEFT])
    move(run.axes[LEFT, "mechanical_axis"], "notch", (41, 0, -30))
    assert cells(run)[NAMES["mechanical_length_mm"]][1].endswith("*")
    scene.RemoveNode(run.anatomy_table)
    move(run.axes[LEFT, "mechanical_axis"], "notch", (42, 0, -30))
    following.reset()


def test_a_saved_scene_knows_what_was_moved(scene, run, tmp_path):
    following = Following(run)
    move(run.landmarks[LEFT], "head_center", (10, 0, 25))
    following.stop()
    expected = cells(run)
    assert scene.WriteToMRB(str(tmp_path / "case.mrb"))
    scene.Clear(False)
    assert scene.ReadFromMRB(str(tmp_path / "case.mrb"), True)
    run = latest_run(scene)
    following = Following(run)
    assert cells(run) == expected and following.moved
    move(run.axes[LEFT, "neck_axis"], "neck_center", (30, 0, 20))
    assert np.allclose(position(run.landmarks[LEFT], "neck_center"), (30, 0, 20))
    following.reset()
    assert not any("*" in text for row in cells(run).values() for text in row)


def test_undo_takes_the_landmarks_and_their_folder_along(scene, ct, folder):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    before = scene.GetNumberOfNodes(), hierarchy.GetNumberOfItems()
    run = show_result(folder, ct)
    assert run.landmarks
    run.undo()
    assert (scene.GetNumberOfNodes(), hierarchy.GetNumberOfItems()) == before


def test_a_femur_that_is_not_there_has_dashes_and_a_reason():
    record = anatomy(RIGHT, (-40.0, 0.0, 0.0))
    record["missing"] = {"knee": "the condyles are cut by the edge of the scan"}
    femurs = {RIGHT: {"anatomy": record}, LEFT: {"anatomy": None}}
    assert all(right != "-" and left == "-" for _, right, left in rows(femurs, {}))
    assert reasons(femurs) == ["Right femur: the condyles are cut by the edge of the scan."]


def test_a_result_of_an_earlier_version_has_no_measurements(ct, folder):
    document = json.loads((folder / "result.json").read_text())
    for side in SIDES:
        del document["femurs"][side]["anatomy"]
    (folder / "result.json").write_text(json.dumps(document))
    run = show_result(folder, ct)
    assert run.anatomy_table is None and not run.landmarks and run.segmentation is not None
