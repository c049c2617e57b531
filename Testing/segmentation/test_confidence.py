from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from FemurSegLib.errors import ModelError
from FemurSegLib.evaluation.calibration import read_judged
from FemurSegLib.grid import Grid
from FemurSegLib.localization.region import Region
from FemurSegLib.segmentation.confidence import (
    DOUBTS,
    FILE,
    WHOLE_MM,
    Calibration,
    Evidence,
    gather,
    load_calibration,
)
from FemurSegLib.sides import RIGHT
from FemurSegLib.volume import Volume

CLEAN = Evidence(0.0, 0.0, 0.0, 0.0)
CALIBRATION = Calibration(3.0, (1.0, 0.5, 0.7, 0.2), {"seg": "a"})


def seen(hu=None, cut=(), certainty=0.995, score=1.0, agreement=1.0, keep=slice(10, 50)):
    """Evidence on a box of bone of 40 x 8 x 8 voxels of 2 x 2 x 5 mm."""
    grid = Grid((60, 30, 30), (2.0, 2.0, 5.0), (0, 0, 0), np.eye(3))
    voxels = np.zeros(grid.shape, np.int16) if hu is None else hu
    mask = np.zeros((60, 20, 20), bool)
    mask[keep, 6:14, 6:14] = True
    region = Region(RIGHT, (0, 0, 0), (1, 1, 1), score, agreement, ("coronal", "axial"))
    place = ((0, 60), (5, 25), (5, 25))
    return gather(mask, place, certainty, region, cut, Volume(voxels, grid))


def test_nothing_speaks_against_a_clear_whole_mask_that_both_views_show():
    assert seen() == CLEAN


def test_each_doubt_has_its_own_number():
    assert seen(certainty=0.9).blur == pytest.approx(math.log(10))
    assert seen(score=0.8, agreement=0.7).unlocated == pytest.approx(0.5)
    assert seen(cut=("superior",)).missing == pytest.approx(math.log(WHOLE_MM / 200))
    assert seen(keep=slice(10, 14), cut=("superior",)).missing == pytest.approx(math.log(WHOLE_MM / 20))
    assert seen(keep=slice(10, 14)).missing == 0, "a small femur that is whole lacks nothing"


def test_metal_counts_in_and_near_the_bone_alone():
    hu = np.zeros((60, 30, 30), np.int16)
    hu[20:30, 14:16, 14:16] = 2500
    assert seen(hu).metal == pytest.approx(math.log1p(40 * 20 / 1000))
    near, far = np.zeros_like(hu), np.zeros_like(hu)
    near[20, 20, 15], far[20, 29, 15] = 2500, 2500  # 2 and 10 voxels beyond the bone
    assert seen(near).metal > 0 == seen(far).metal
    hu[:] = 1900
    assert seen(hu).metal == 0, "cortex is no metal"


@pytest.mark.parametrize("name", DOUBTS)
def test_every_doubt_lowers_the_confidence_and_is_told(name):
    values = [CALIBRATION.confidence(Evidence(**{**dict.fromkeys(DOUBTS, 0.0), name: x})) for x in (0, 0.5, 1, 5)]
    assert values == sorted(values, reverse=True) and values[0] > values[-1] and 0 < values[-1] < values[0] < 1
    assert values[0] == pytest.approx(1 / (1 + math.exp(-3)))
    assert len(CALIBRATION.reasons(Evidence(**{**dict.fromkeys(DOUBTS, 0.0), name: 1.0}))) == 1


def test_no_number_is_too_large():
    assert 0 <= CALIBRATION.confidence(Evidence(1e9, 1e9, 0, 0)) < 1e-9


def test_a_calibration_belongs_to_weights():
    one, other = SimpleNamespace(name="seg", sha256="a"), SimpleNamespace(name="seg", sha256="b")
    assert CALIBRATION.fits([one]) and CALIBRATION.fits([])
    assert not CALIBRATION.fits([other]) and not CALIBRATION.fits([one, SimpleNamespace(name="x", sha256="a")])


def test_reading_gives_what_was_written_by_weights(tmp_path):
    entry = {
        "intercept": 3.0,
        "weights": dict(zip(DOUBTS, CALIBRATION.weights, strict=True)),
        "models": {"seg": "a"},
    }
    (tmp_path / FILE).write_text(json.dumps({"seg": entry}))
    assert load_calibration("seg", tmp_path) == CALIBRATION
    assert load_calibration("vnet", tmp_path) is None
    assert load_calibration("seg", tmp_path / "elsewhere") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"seg": {}}', '{"seg": {"intercept": "x"}}'])
def test_a_damaged_file_is_an_error(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ModelError, match="damaged"):
        load_calibration("seg", tmp_path)


def test_the_shipped_calibration_doubts_what_it_should():
    """Metal and a blurred mask (as of what is no bone) lower it visibly, each alone; so were femora of which 30 mm
    are left, when they were judged by a fit to other people."""
    folder = Path(__file__).resolve().parents[2] / "Resources" / "Models"
    calibration = load_calibration("segmenter_segresnet", folder)
    assert all(weight >= 0 for weight in calibration.weights)
    plain = calibration.confidence(Evidence(0.7, 0.0, 0.0, 0.05))
    assert plain > 0.75
    assert calibration.confidence(Evidence(0.7, math.log1p(30), 0.0, 0.05)) < plain - 0.15
    assert calibration.confidence(Evidence(3.0, 0.0, 0.0, 0.05)) < plain - 0.15
    judged = read_judged("segmenter_segresnet", folder)
    short = [j.confidence for j in judged if j.case.endswith("30")]
    whole = [j.confidence for j in judged if "~" not in j.case]
    assert len(short) > 5 and len(whole) > 5 and np.mean(short) < np.mean(whole) - 0.15
