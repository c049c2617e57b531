"""Six tiny trainings on toy people and ellipsoids, judged by a segmenter that is right."""

from __future__ import annotations

import json

import pytest
from examples import segmented, two_femora
from tiny_network import tiny_network
from toy_person import keep

from FemurSegLib import command, models
from FemurSegLib.errors import NoFemurError
from FemurSegLib.training import compare_sets, segmenter
from FemurSegLib.training.cases import Case, find_cases
from FemurSegLib.training.compare_sets import compare, contestants, table
from FemurSegLib.training.segmenter import SegmenterTraining
from FemurSegLib.volume import Volume, write_volume


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cases").mkdir()
    ct, labels = two_femora()
    for name in ("A", "B", "z019_hips_9000"):
        write_volume(tmp_path / "cases" / f"{name}_CT.nii.gz", ct)
        write_volume(tmp_path / "cases" / f"{name}_femurs.nii.gz", Volume(labels, ct.grid))
    return tmp_path


def test_six_sets_are_compared():
    six = contestants(["z009", "z013"], ["llp26-0"], [Case("a", "b", "A")])
    assert [(len(one.people), len(one.cases)) for one in six] == [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert six[3].name == "2 people, with CT" and len({one.folder for one in six}) == 6
    with pytest.raises(ValueError):
        contestants(["z009"], [], [Case("a", "b", "A")])


def test_each_set_is_trained_once_and_judged_once_and_goes_on_where_it_stopped(folder, monkeypatch):
    monkeypatch.setattr(segmenter, "build_network", tiny_network)
    for name in ("llp26-0", "z009", "z013", "vhf"):
        keep(folder / "shapes", name)
    a, b, painted = sorted(find_cases(folder / "cases"), key=lambda case: case.name)
    six = contestants(["z009"], ["llp26-0"], [a])
    base = SegmenterTraining(
        out=folder / "out",
        shapes=folder,
        cache=folder / "shapes",
        patch=(16, 16, 16),
        batch=1,
        steps=2,
        workers=0,
        precision="fp32",
    )
    (folder / "out").mkdir()
    seen, learned = [], []
    _, labels = two_femora()

    def right(ct, device, network, models_folder):
        assert models.load_tensors(f"segmenter_{network}", models_folder)
        seen.append(models_folder.parent.name)
        if len(seen) == 2:
            raise NoFemurError("none")
        return segmented(ct, labels)

    train = compare_sets.train_segmenter
    monkeypatch.setattr(
        compare_sets, "train_segmenter", lambda s, report: learned.append(s.out.name) or train(s, report)
    )
    nothing = compare(six, base, [b, painted], right, minutes=0, report=lambda line: None)
    assert not learned and not seen and table(nothing).count("not judged yet") == 6
    lines = compare(six, base, [b, painted], right, report=lambda line: None)
    assert learned == [one.folder for one in six] and len(seen) == 12
    assert [line["steps"] for line in lines] == [2] * 6
    first, second = lines[0]["scores"]
    assert (first["kind"], second["kind"]) == ("real", "phantom")
    assert [f["dice"] for f in first["femurs"]] == [1.0, 1.0] and not second["femurs"][0]["found"]
    again = compare(six, base, [b, painted], right, report=lambda line: None)
    assert json.dumps(again) == json.dumps(lines) and len(seen) == 12 and len(learned) == 6
    assert json.loads((folder / "out" / "comparison.json").read_text())["sets"] == json.loads(json.dumps(lines))


def test_nobody_is_learned_from_and_judged(tmp_path):
    base = SegmenterTraining(out=tmp_path)
    case, painted = Case("a", "b", "A"), Case("a", "b", "z009_hips_9000")
    for judged in (case, painted):
        with pytest.raises(ValueError, match="learned from and judged"):
            compare(contestants(["z009"], ["llp26-0"], [case]), base, [judged])


def test_the_table_shows_means_worst_and_missed_by_kind():
    def femur(dice, found=True):
        return {"present": True, "found": found, "dice": dice, "mean_surface_mm": 0.5}

    scores = [
        {"kind": "real", "femurs": [femur(0.9), femur(0.8)]},
        {"kind": "phantom", "femurs": [femur(0.7), femur(0.0, found=False)]},
    ]
    head, row = table([{"set": "LLP26, no CT", "steps": 7, "scores": scores}]).splitlines()
    assert row.split() == "LLP26, no CT 7 0.850 0.800 0.50 0.350 0.000 0.50 1 of 4".split()
    assert len(head) == len(row)


def test_the_command_compares_what_it_is_given(folder, monkeypatch, capfd):
    given = []
    monkeypatch.setattr(
        compare_sets, "compare", lambda six, base, judged, **o: given.append((six, base, judged)) or []
    )
    monkeypatch.setattr("FemurSegLib.phantom.shapes.people_in", lambda shapes: ["z009", "z019"])
    base = ["train", "compare-sets", "--out", str(folder / "out"), "--device", "cpu", "--phantoms", "0"]
    data = ["--cases", str(folder / "cases"), "--shapes", "none", "--steps", "7", "--samples", "2"]
    assert command.main([*base, *data, "--hold-out", "z019,B,z019_hips_9000"]) == 0
    [(six, settings, judged)] = given
    assert settings.steps == 7 and six[-1].people == ("z009", "llp26-0", "llp26-1")
    assert {case.name for case in six[-1].cases} == {"A"} and len(judged) == 2
    assert "Real CT: Dice" in capfd.readouterr().out
    for wrong in ([], [*data, "--set", "open"], [*data, "--people", "z009"], data[:2], [*data, "--samples", "0"]):
        assert command.main([*base, *wrong]) == 3
    assert len(given) == 1
