"""`femurseg evaluate` from files to tables; only the networks are replaced, by ones that know the answer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from examples import segmented, two_femora
from toy_person import toy_person

from FemurSegLib import command
from FemurSegLib.errors import NoFemurError
from FemurSegLib.volume import Volume, write_volume


@pytest.fixture
def cases(tmp_path):
    """A labelled case, one without labels, one without a femur, and one that is no CT."""
    folder = tmp_path / "cases"
    folder.mkdir()
    ct, labels = two_femora()
    write_volume(folder / "A_CT.nii.gz", ct)
    write_volume(folder / "A_femurs.nii.gz", Volume(labels, ct.grid))
    write_volume(folder / "B_CT.mha", ct)
    empty = Volume(np.full_like(ct.voxels, -1000), ct.grid)
    write_volume(folder / "C_CT.nrrd", empty)
    (folder / "D_CT.nii.gz").write_bytes(b"not a CT")
    return folder


@pytest.fixture
def pipeline(monkeypatch):
    """Bone brighter than 500 HU is femur; its side is where it lies."""
    from FemurSegLib import pipeline

    def answer(volume, **settings):
        bone = volume.voxels > 500
        if not bone.any():
            raise NoFemurError("No femur was found in this CT.")
        k, j, i = np.meshgrid(*(np.arange(n) for n in bone.shape), indexing="ij")
        left = volume.grid.lps(np.stack([i, j, k], -1))[..., 0] > 0
        return segmented(volume, np.where(bone, 1 + left, 0).astype(np.uint8))

    monkeypatch.setattr(pipeline, "segment_femurs", answer)


def test_every_case_is_a_line_whatever_comes_of_it(cases, pipeline, tmp_path, capfd):
    out = tmp_path / "out"
    assert command.main(["evaluate", "--cases", str(cases), "--out", str(out)]) == 0
    printed = capfd.readouterr().out
    lines = dict(line.split(": ", 1) for line in printed.splitlines()[:4])
    assert lines["A"].startswith("ok") and lines["B"].startswith("found right and left")
    assert lines["C"].startswith("no femur") and lines["D"].startswith("error: bad_input")
    summary = json.loads((out / "cases.json").read_text())["summary"]
    assert summary["dice"]["mean"] == 1 and summary["map"] == 1 and summary["errors"] == 1
    assert sorted(p.stem for p in (out / "pictures").iterdir()) == ["A", "B", "C"]
    assert (out / "precision_recall.png").is_file()


def test_some_cases_can_be_chosen(cases, pipeline, capfd):
    assert command.main(["evaluate", "--cases", str(cases), "--only", "A"]) == 0
    assert "B:" not in capfd.readouterr().out
    assert command.main(["evaluate", "--cases", str(cases), "--only", "Z"]) == 3


def test_phantoms_are_painted_and_measured(pipeline, monkeypatch, capfd):
    person = toy_person()
    monkeypatch.setattr("FemurSegLib.phantom.shapes.load_person", lambda shapes, name, cache=None: person)
    options = "--phantoms 2 --shapes none --field-of-view hips lower_leg --spacing 6 6 6 --device cpu"
    assert command.main(["evaluate", *options.split()]) == 0
    printed = capfd.readouterr().out
    assert "z019_hips_1000: " in printed and "z035_lower_leg_1001: " in printed and "Table 5" in printed


def test_nothing_to_evaluate_is_an_input_error():
    assert command.main(["evaluate"]) == 3
    assert command.main(["evaluate", "--phantoms", "1"]) == 3


def test_the_report_is_one_page_with_every_case(cases, pipeline, tmp_path, capfd):
    out = tmp_path / "report"
    assert command.main(["evaluate", "--cases", str(cases), "--report", str(out)]) == 0
    text = (out / "report.html").read_text(encoding="utf-8")
    assert all(f'id="case-{name}"' in text for name in "ABCD") and [p.name for p in out.iterdir()] == [
        "report.html"
    ]
    assert str(out / "report.html") in capfd.readouterr().out


def test_a_training_run_that_is_none_is_told_before_anything_is_run(cases, tmp_path, capfd):
    options = ["--cases", str(cases), "--report", str(tmp_path / "report"), "--runs", str(tmp_path)]
    assert command.main(["evaluate", *options]) == 3
    assert "A:" not in capfd.readouterr().out


def test_the_confidence_is_calibrated_on_cases_and_their_pieces(tmp_path, monkeypatch, capfd):
    """Four people, two of them with masks that are too thick and known to be blurred."""
    from scipy import ndimage

    from FemurSegLib import pipeline
    from FemurSegLib.models import Model
    from FemurSegLib.segmentation.confidence import Evidence, load_calibration

    ct, labels = two_femora()
    for n in range(4):
        marked = Volume(ct.voxels.copy(), ct.grid)
        marked.voxels[labels == 0] = -1000 + n  # tells the pipeline below whose it is
        write_volume(tmp_path / f"P{n}_CT.nii.gz", marked)
        write_volume(tmp_path / f"P{n}_femurs.nii.gz", Volume(labels, ct.grid))

    def answer(volume, **settings):
        person, bone = int(volume.voxels.min()) + 1000, volume.voxels > 500
        k, j, i = np.meshgrid(*(np.arange(n) for n in bone.shape), indexing="ij")
        left = volume.grid.lps(np.stack([i, j, k], -1))[..., 0] > 0
        bone = ndimage.binary_dilation(bone) if person > 1 else bone
        result = segmented(volume, np.where(bone, 1 + left, 0).astype(np.uint8))
        result.evidence = {side: Evidence(2.0 * (person > 1), 0.0, 0.0, 0.1) for side in result.confidence}
        return result

    monkeypatch.setattr(pipeline, "segment_femurs", answer)
    model = Model("seg", "segmenter", "segresnet", tmp_path, "a" * 64)
    monkeypatch.setattr("FemurSegLib.models.find", lambda *a, **k: model)
    assert command.main(["evaluate", "--cases", str(tmp_path), "--calibrate", str(tmp_path)]) == 0
    printed = capfd.readouterr().out
    assert all(f"P{n}{piece}: " in printed for n in range(4) for piece in ("", "~lower30", "~upper30"))
    assert "femora 24, people 4, good 12" in printed
    calibration = load_calibration("seg", tmp_path)
    clear, blurred = (calibration.confidence(Evidence(x, 0.0, 0.0, 0.1)) for x in (0.0, 2.0))
    assert clear > 0.8 and blurred < 0.2


def test_the_weights_that_are_evaluated_can_be_chosen(cases, tmp_path, monkeypatch, capfd):
    from FemurSegLib import pipeline

    asked = []

    def answer(volume, *, data_set, **settings):
        asked.append(data_set)
        return segmented(volume, np.zeros(volume.voxels.shape, np.uint8))

    monkeypatch.setattr(pipeline, "segment_femurs", answer)
    for words in ([], ["--weights", "open"]):
        assert command.main(["evaluate", "--cases", str(cases), "--only", "B", *words]) == 0
    assert asked == [None, "open"]


def test_too_few_cases_to_calibrate_with_are_an_input_error(cases, pipeline, tmp_path):
    out = tmp_path / "confidence.json"
    assert command.main(["evaluate", "--cases", str(cases), "--only", "A", "--calibrate", str(out)]) == 3
    assert not out.exists()
