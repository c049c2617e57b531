"""The command on real input with the weights of the repository, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from FemurSegLib import models  # noqa: E402
from FemurSegLib.errors import ModelError  # noqa: E402
from FemurSegLib.evaluation import metrics  # noqa: E402
from FemurSegLib.sides import LABELS, LEFT, RIGHT, SIDES, UNDECIDED_LABEL  # noqa: E402
from FemurSegLib.volume import Volume, read_ct, read_labelmap, write_volume  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "Resources" / "SampleData"


def _weights() -> bool:
    try:
        return {model.kind for model in models.table().values()} >= set(models.KINDS)
    except ModelError:
        return False


pytestmark = pytest.mark.skipif(not _weights(), reason="Resources/Models lacks weights")


def run(ct: Path, out: Path, *options: str):
    command = [sys.executable, "-m", "FemurSegLib", "segment", ct, "--out", out, "--device", "cpu", *options]
    return subprocess.run([*map(str, command), "--progress", "none"], cwd=ROOT, capture_output=True, text=True)


def segment(ct: Path, out: Path, *options: str, code: int = 0):
    """Runs the command; the result document (None where it ends with another code) and what it said on stderr."""
    done = run(ct, out, *options)
    assert done.returncode == code, done.stderr
    return json.loads((out / "result.json").read_text()) if code == 0 else None, done.stderr


def dice(out: Path, reference: Path, side: str) -> float:
    found, wanted = read_labelmap(out / "femurs.nii.gz"), read_labelmap(reference)
    assert found.grid.matches(wanted.grid)
    known = wanted.voxels != UNDECIDED_LABEL
    return metrics.overlap(found.voxels == LABELS[side], wanted.voxels == LABELS[side], known).dice


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    out = tmp_path_factory.mktemp("sample") / "out"
    return out, segment(SAMPLE / "sample_ct.nii.gz", out)[0]


@pytest.mark.parametrize("side", SIDES)
def test_the_sample_is_segmented_on_both_sides(sample, side):
    out, document = sample
    assert document["femurs"][side]["found"]
    assert dice(out, SAMPLE / "sample_femurs.nii.gz", side) > 0.93


def test_a_mirrored_patient_has_right_and_left_exchanged(sample, tmp_path):
    ct = read_ct(SAMPLE / "sample_ct.nii.gz")
    write_volume(tmp_path / "mirrored.nii.gz", Volume(np.ascontiguousarray(ct.voxels[:, :, ::-1]), ct.grid))
    segment(tmp_path / "mirrored.nii.gz", tmp_path / "out")
    found = read_labelmap(tmp_path / "out" / "femurs.nii.gz").voxels[:, :, ::-1]
    wanted = read_labelmap(SAMPLE / "sample_femurs.nii.gz").voxels
    assert metrics.overlap(found == LABELS[LEFT], wanted == LABELS[RIGHT]).dice > 0.9
    assert metrics.overlap(found == LABELS[RIGHT], wanted == LABELS[LEFT]).dice > 0.9


@pytest.mark.parametrize(("name", "side"), [("STS_046", RIGHT), ("STS_017", LEFT), ("STS_029", LEFT)])
def test_a_single_thigh_never_trained_on(shared_data, tmp_path, name, side):
    folder = shared_data / "ct" / "sts_thighs" / "labelled"
    document, _ = segment(folder / f"{name}_CT.nii.gz", tmp_path / "out")
    assert [s for s in SIDES if document["femurs"][s]["found"]] == [side]
    assert "superior" in document["femurs"][side]["cut"]
    assert dice(tmp_path / "out", folder / f"{name}_femurs.nii.gz", side) > 0.85


@pytest.mark.parametrize("name", ["STS_046", "STS_017"])
def test_a_dicom_series_gives_what_its_nifti_gives(shared_data, tmp_path, name):
    thighs = shared_data / "ct" / "sts_thighs"
    segment(thighs / "labelled" / f"{name}_CT.nii.gz", tmp_path / "nifti")
    segment(thighs / "dicom" / name, tmp_path / "dicom")
    a, b = (read_labelmap(tmp_path / kind / "femurs.nii.gz") for kind in ("nifti", "dicom"))
    assert a.grid.matches(b.grid, tolerance_mm=0.01)
    assert np.mean(a.voxels != b.voxels) < 1e-4  # the NIfTI was clipped at -1000 HU


def test_a_knee_with_little_femur_says_that_it_is_cut(shared_data, tmp_path):
    folder = shared_data / "ct" / "sts_thighs" / "labelled"
    document, _ = segment(folder / "STS_028_CT.nii.gz", tmp_path / "out")
    assert "superior" in document["femurs"][LEFT]["cut"]
    assert any(w["code"] == "femur_cut" for w in document["warnings"])


def test_a_lower_leg_has_no_femur_or_next_to_none(shared_data, tmp_path):
    """STS_035 ends in the tips of the condyles, in its last slice."""
    ct = shared_data / "ct" / "sts_thighs" / "unlabelled" / "STS_035_CT.nii.gz"
    done = run(ct, tmp_path / "out")
    assert done.returncode in (0, 4), done.stderr
    if done.returncode == 4:
        assert "No femur" in done.stderr and not (tmp_path / "out").exists()
    else:
        labels = read_labelmap(tmp_path / "out" / "femurs.nii.gz").voxels
        assert not labels[:-5].any()


def test_two_hips_are_told_apart(shared_data, tmp_path):
    folder = shared_data / "ct" / "cmb_crc_hips"
    segment(folder / "ct.nii.gz", tmp_path / "out")
    for side in SIDES:
        assert dice(tmp_path / "out", folder / "femurs.nii.gz", side) > 0.85
