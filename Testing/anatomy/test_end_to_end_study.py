"""The study's arithmetic, sides and units. The networks are stood in for; phantoms and reading are real."""

from __future__ import annotations

import argparse
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anatomy.toy_femur import HEAD_RADIUS, toy_femur
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from toy_person import HEAD_RADIUS_MM, keep

from FemurSegLib import pipeline
from FemurSegLib.anatomy import compartments, end_to_end_study, painted_femora
from FemurSegLib.anatomy.bars import BARS, QUANTITIES
from FemurSegLib.anatomy.end_to_end_study import EXACT, PREDICTED, compare, femur_errors, table
from FemurSegLib.anatomy.painted_femora import PaintedFemur
from FemurSegLib.errors import NoFemurError
from FemurSegLib.sides import LABELS, LEFT, RIGHT
from FemurSegLib.volume import Volume


class Truth(torch.nn.Module):
    """Dark is inside, bright is cortex."""

    def forward(self, x):
        return torch.where(x[:, :1] > 0.4, -9.0, 9.0)  # 520 HU


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    keep(cache, "z013")
    return ["--shapes", str(cache), "--people", keep(cache), "--cache", str(cache), "--spacing", "1.6", "2", "2.4"]


@pytest.fixture(scope="module")
def femora(arguments):
    """A right and a left femur, really painted, their CTs replaced by ones that show the truth."""
    parser = argparse.ArgumentParser()
    painted_femora.add_options(parser)
    made = list(painted_femora.painted_femora(parser.parse_args([*arguments, "--femora", "2"]), 7))
    for femur in made:
        femur.ct.voxels[:] = np.where(femur.inside, -50, np.where(femur.labels > 0, 1200, 40))
    return made


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    monkeypatch.setattr(compartments, "load_network", lambda *_: Truth())
    monkeypatch.setattr(end_to_end_study, "POSES", 0)


def known(side) -> PaintedFemur:
    """The femur of simple solids with a cortex of 4 mm, as if it had been painted."""
    labels, grid, _ = toy_femur(spacing_mm=(1.6, 2.0, 2.4))
    if side == LEFT:
        labels = labels[..., ::-1].copy()
    spacing = grid.spacing_mm[::-1]
    distance = distance_transform_edt(labels == 0, spacing) - distance_transform_edt(labels > 0, spacing)
    distance = gaussian_filter(distance, 1.0).astype(np.float32)
    labels = np.where(distance < 0, LABELS[side], 0).astype(np.uint8)
    ct = np.where(distance < -4, -50, np.where(distance < 0, 1200, 40)).astype(np.int16)
    femur = PaintedFemur("toy", side, Volume(ct, grid), labels, distance + 4, None, None)
    vars(femur)["periosteal_mm"] = distance
    return femur


def engine(labels):
    """Stands in for segment_femurs: finds `labels`, whatever it is asked for."""
    return lambda ct, sides, **_: SimpleNamespace(labels=labels, surfaces={}, findings=[])


def test_the_exact_surface_is_the_zero_of_the_distance_and_the_labels_are_its_inside(femora):
    assert [femur.side for femur in femora] == [RIGHT, LEFT]
    for femur in femora:
        assert np.array_equal(femur.periosteal_mm < 0, femur.labels > 0)
        bone, grid = femur.exact_bone(), femur.ct.grid
        assert bone.side == femur.side
        assert bone.volume_mm3 == pytest.approx((femur.labels > 0).sum() * np.prod(grid.spacing_mm), rel=0.02)
        at = map_coordinates(femur.periosteal_mm, grid.ijk(bone.points_mm)[:, ::-1].T, order=1)
        assert np.abs(at).max() < 0.01
        leg = femur.anatomy.legs[femur.side.split("_")[0]]
        apart = np.linalg.norm(bone.points_mm - leg.hip_mm, axis=1).min()  # of a head bent by some millimetres
        assert 0.6 * HEAD_RADIUS_MM < apart < 1.3 * HEAD_RADIUS_MM


def test_a_shifted_mask_is_wrong_by_the_shift_in_millimetres_on_either_side(monkeypatch):
    for side, axis, mm in ((RIGHT, 0, 2.4), (LEFT, 2, 1.6)):
        femur = known(side)
        answers = end_to_end_study.exact_answers(femur)
        assert answers["head_diameter_mm"] == pytest.approx(2 * HEAD_RADIUS, abs=0.6)
        assert answers["anteversion_deg"] == pytest.approx(15.0, abs=1.0)
        monkeypatch.setattr(pipeline, "segment_femurs", engine(np.roll(femur.labels, 1, axis)))
        errors, _ = femur_errors(femur, answers, PREDICTED, "cpu")
        assert errors["head_center_mm"] == pytest.approx(mm, abs=0.4)
        assert 0.8 < errors["periosteal_dice"] < 0.98 and 0.2 < errors["periosteal_mm"] < mm
        assert 0.5 < errors["endosteal_dice"] < 0.98
        for key in ("volume whole", "volume head", "head_diameter_mm", "anteversion_deg", "length_mm"):
            assert abs(errors[key]) < 1.5
    right, _ = femur_errors(femur, answers, EXACT, "cpu")
    assert right["periosteal_dice"] == 1.0 and right["periosteal_mm"] == 0.0 and right["head_center_mm"] < 0.4
    assert right["endosteal_dice"] > errors["endosteal_dice"]
    assert abs(right["cortical whole"]) < 8 and abs(right["volume whole"]) < 0.01


def test_a_femur_that_is_not_found_or_has_the_wrong_side_reaches_nothing(femora, monkeypatch):
    femur = femora[0]

    def finds_none(*_, **__):
        raise NoFemurError("No femur was found in this CT.")

    other_side = np.where(femur.labels == LABELS[RIGHT], LABELS[LEFT], 0).astype(np.uint8)
    for stand_in in (finds_none, engine(other_side)):
        monkeypatch.setattr(pipeline, "segment_femurs", stand_in)
        errors, words = femur_errors(femur, {}, PREDICTED, "cpu")
        assert errors["periosteal_dice"] == errors["endosteal_dice"] == 0.0 and "no femur" in words.lower()
        for quantity in QUANTITIES:
            if quantity.bar is not None:
                assert quantity.verdict([errors[quantity.key]]).startswith("NO")


def test_errors_are_percent_of_volumes_and_millimetres_and_degrees_of_others():
    exact = dict.fromkeys(BARS, 10.0) | {"head_center": np.array([1.0, 2, 3]), "cortical neck": None}
    found = exact | {"head_center": np.array([1.0, 5, 7]), "volume head": 11.0, "cortical whole": 8.0}
    found |= {"head_diameter_mm": 10.1, "anteversion_deg": 8.5, "length_mm": 10.4, "mldfa_deg": None}
    errors = compare(found, exact)
    wanted = {"head_center_mm": 5.0, "volume head": 10.0, "cortical whole": -20.0, "head_diameter_mm": 1.0}
    wanted |= {"anteversion_deg": -1.5, "length_mm": 0.4, "neck_shaft_angle_deg": 0.0}
    assert {key: errors[key] for key in wanted} == pytest.approx(wanted)
    assert np.isnan(errors["mldfa_deg"]) and np.isnan(errors["cortical neck"])


def test_a_bar_is_reached_by_all_on_average_or_not():
    dice, volume = BARS["periosteal_dice"], BARS["volume head"]
    assert dice.verdict([0.98, 0.99]) == "yes, by every femur"
    assert dice.verdict([0.97, 0.999]) == "yes on average, not by every femur"
    assert dice.verdict([0.97, 0.98]) == "NO"
    assert volume.verdict([-2.9, 3.0]) == "yes, by every femur"
    assert volume.verdict([-4.0, 1.0]) == "yes on average, not by every femur"
    assert volume.verdict([-4.0, 4.0]) == "NO"  # not their mean of 0
    assert volume.verdict([0.1, np.nan]) == "NO (missing in 1 of 2)"
    assert BARS["periosteal_hd95_mm"].verdict([1.0]) == ""


def test_the_table_shows_the_size_of_errors_the_worst_and_their_bias():
    rows = [dict.fromkeys(BARS, 1.0) | {"cortical whole": error} for error in (-8.0, 2.0)]
    (told,) = (row for row in table(rows).splitlines() if row.startswith("Cortex: whole"))
    bar, words = ["at", "most", "5"], ["yes", "on", "average,", "not", "by", "every", "femur"]
    assert told.split("%")[1].split() == ["5.00", "-8.00", "-3.00", *bar, *words]
    nothing = [dict.fromkeys(BARS, np.nan)]
    assert "missing in 1 of 1" in table(nothing)


def test_the_command_prints_a_line_a_femur_and_a_table_a_mask(arguments, femora, monkeypatch, capsys):
    monkeypatch.setattr(end_to_end_study, "painted_femora", lambda *_, **__: iter(femora[:1]))
    monkeypatch.setattr(pipeline, "segment_femurs", engine(femora[0].labels))
    end_to_end_study.main([*arguments, "--both", "--seed", "7", "--device", "cpu"])
    printed = capsys.readouterr().out
    assert printed.startswith("seed 7, voxels 1.6 x 2.0 x 2.4 mm\n") and printed.count("toy right") == 2
    for mask, quantity in itertools.product((PREDICTED, EXACT), QUANTITIES):
        block = printed.split(f"\nIn {mask}, 1 femora:\n")[1].split("\n\n")[0]
        assert f"\n{quantity.name}" in block
