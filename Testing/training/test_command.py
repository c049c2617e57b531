from __future__ import annotations

import json
import os
import signal
from multiprocessing import active_children

import cv2
import pytest
from examples import two_femora
from tiny_network import tiny_network
from toy_person import toy_person

from FemurSegLib import command, models
from FemurSegLib.errors import MemoryExhaustedError
from FemurSegLib.segmentation import network
from FemurSegLib.training import loop, segmenter
from FemurSegLib.training.checkpoint import read_checkpoint
from FemurSegLib.training.curves import draw_detector_curve, draw_segmenter_curve
from FemurSegLib.volume import Volume, write_volume

TINY = "--patch 16 --batch 1 --steps 20 --workers 0 --device cpu --precision fp32 --save-every 10".split()


@pytest.fixture
def cases(tmp_path):
    folder = tmp_path / "cases"
    folder.mkdir()
    ct, labels = two_femora()
    for name in "AB":
        write_volume(folder / f"{name}_CT.nii.gz", ct)
        write_volume(folder / f"{name}_femurs.nii.gz", Volume(labels, ct.grid))
    return str(folder)


def test_a_segmenter_is_trained_and_entered_into_a_models_folder(cases, tmp_path, capfd, monkeypatch):
    for place in (segmenter, network):
        monkeypatch.setattr(place, "build_network", tiny_network)
    out, folder = tmp_path / "run", tmp_path / "models"
    arguments = ["train", "segmenter", "--out", str(out), "--cases", cases, "--hold-out", "B", *TINY]
    assert command.main([*arguments, "--export", str(folder)]) == 0
    printed = capfd.readouterr().out
    assert "step 20  loss" in printed and "step 20  validation Dice: real" in printed
    assert (out / "best.safetensors").is_file()
    assert json.loads((out / "material.json").read_text()) == {
        "people": [],
        "cases": ["A"],
        "held_out": ["B"],
        "set": "research",
        "licence": "LicenseRef-unknown",
        "origins": ["unknown"],
    }
    settings = json.loads((out / "settings.json").read_text())
    assert settings["patch"] == [16, 16, 16] and settings["network"] == "segresnet" and settings["loss"] == "dice"
    assert cv2.imread(str(out / "curve.png")) is not None
    assert models.load_tensors("segmenter_segresnet", folder)
    assert command.main(arguments) == 0 and "step" not in capfd.readouterr().out  # there is nothing left to do


def stop_a_worker(number):
    for worker in active_children():
        os.kill(worker.pid, number)


@pytest.mark.parametrize(
    ("stop", "number"),
    [(signal.raise_signal, signal.SIGINT), (signal.raise_signal, signal.SIGTERM), (stop_a_worker, signal.SIGTERM)],
)
def test_a_training_that_is_stopped_says_so_and_is_kept_whole(cases, tmp_path, capfd, monkeypatch, stop, number):
    monkeypatch.setattr(segmenter, "build_network", tiny_network)
    average, steps = loop.average, []

    def stopped(*arguments):  # in the middle of the third step
        steps.append(len(steps) + 1)
        if len(steps) == 3:
            stop(number)
        average(*arguments)

    monkeypatch.setattr(loop, "average", stopped)
    arguments = ["train", "segmenter", "--out", str(tmp_path / "run"), "--cases", cases, "--hold-out", "B", *TINY]
    assert command.main([*arguments, "--workers", "1"]) == 130
    step = read_checkpoint(tmp_path / "run")["step"]
    assert step == 3 or (stop is stop_a_worker and 3 < step < 20)  # it had prepared some more
    [told] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("femurseg: ")]
    assert told == f"femurseg: Stopped after step {step}. The same command goes on from there."
    assert command.main(arguments) == 0 and read_checkpoint(tmp_path / "run")["step"] == 20


def test_a_worker_that_is_killed_is_told_as_a_lack_of_memory(cases, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(segmenter, "build_network", tiny_network)
    average = loop.average
    monkeypatch.setattr(loop, "average", lambda *a: (stop_a_worker(signal.SIGKILL), average(*a)))
    arguments = ["train", "segmenter", "--out", str(tmp_path / "run"), "--cases", cases, "--hold-out", "B", *TINY]
    assert command.main([*arguments, "--workers", "1", "--steps", "1000"]) == MemoryExhaustedError.exit_code
    assert "--workers" in capfd.readouterr().err and read_checkpoint(tmp_path / "run")["step"] > 0


def test_people_held_out_are_not_learned_from(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(segmenter, "train_segmenter", lambda settings, report: given.append(settings) or tmp_path)
    monkeypatch.setattr("FemurSegLib.phantom.shapes.people_in", lambda shapes: ["z009", "z019", "z023"])
    base = ["train", "segmenter", "--shapes", "none", "--device", "cpu", "--out"]
    assert command.main([*base, str(tmp_path / "first")]) == 0
    assert given[-1].people == ("z009", "z023") and given[-1].patch == (160, 160, 160) and given[-1].steps == 6375
    other = ["--hold-out", "z009", "--people", "z009,z019,llp26-0:2"]
    assert command.main([*base, str(tmp_path / "second"), *other]) == 0
    assert given[-1].people == ("z019", "llp26-0", "llp26-1")
    assert json.loads((tmp_path / "second" / "material.json").read_text())["held_out"] == ["z009"]
    assert command.main([*base, str(tmp_path / "first"), *other]) == 3  # its weights know z009


def test_a_case_of_a_person_who_is_held_out_by_default_is_held_out_too(cases, monkeypatch, tmp_path):
    monkeypatch.setattr(segmenter, "train_segmenter", lambda settings, report: tmp_path)
    rows = [
        {"ct": f"{cases}/{name}_CT.nii.gz", "labels": f"{cases}/{name}_femurs.nii.gz", "person": person}
        for name, person in (("A", "z019"), ("B", "Mary"))
    ]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    arguments = ["train", "segmenter", "--out", str(tmp_path), "--cases", str(tmp_path / "list.json")]
    assert command.main([*arguments, "--device", "cpu"]) == 0
    material = json.loads((tmp_path / "material.json").read_text())
    assert (material["cases"], material["held_out"]) == (["B"], ["A"])


def test_a_wrong_name_and_nothing_to_learn_from_are_input_errors(cases, tmp_path):
    base = ["train", "segmenter", "--out", str(tmp_path / "run")]
    assert command.main([*base, "--cases", cases, "--hold-out", "X"]) == 3
    assert command.main(base) == 3
    assert command.main([*base, "--cases", str(tmp_path / "nowhere")]) == 3
    assert command.main(["train", "detector", "--out", str(tmp_path / "run"), "--cases", cases]) == 3
    assert not (tmp_path / "run").exists()


def test_radiographs_of_learned_and_held_out_cases_go_to_both_views_of_the_detector(cases, monkeypatch, tmp_path):
    from FemurSegLib.training import detector, radiographs

    made, trained = [], []
    monkeypatch.setattr(radiographs, "make_radiographs_of", lambda what: made.append(what) or what.out)
    monkeypatch.setattr(detector, "train_detector", lambda what, report: trained.append(what) or what.out)
    out = tmp_path / "run"
    options = ["--cases", cases, "--hold-out", "B", "--minutes", "10", "--device", "cpu", "--epochs", "2"]
    assert command.main(["train", "detector", "--out", str(out), *options]) == 0
    assert [(m.split, [c.name for c in m.cases]) for m in made] == [("train", ["A"]), ("val", ["B"])]
    assert [(t.view, t.minutes, t.epochs, t.batch) for t in trained] == [
        ("coronal", 5, 2, 32),
        ("axial", 5, 2, 32),
    ]


def test_a_curve_with_a_line_cut_off_and_steps_done_twice_is_drawn(monkeypatch, tmp_path):
    lines = [{"step": step, "loss": loss} for step, loss in ((20, 0.9), (40, 0.8), (20, 0.7))]
    lines.append({"step": 20, "validation": {"real": 0.6}})
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "curve.jsonl").write_text(text + '\n{"step": 60, "lo')
    drawn = []
    monkeypatch.setattr("FemurSegLib.training.curves._draw", lambda path, along, lines: drawn.append(lines))
    draw_segmenter_curve(tmp_path)
    assert drawn[0]["loss"] == ([20, 40], [0.7, 0.8])
    assert drawn[0]["validation Dice, real"] == ([20], [0.6])


def test_the_curve_of_a_detector_is_drawn(tmp_path):
    head = "epoch,train/box_loss,train/cls_loss,metrics/mAP50(B),metrics/mAP50-95(B),val/box_loss,val/cls_loss"
    (tmp_path / "results.csv").write_text(f"{head}\n1,1.5,2,0.1,0.05,1.6,2.1\n2,1.2,1,0.5,0.3,1.3,1.2\n")
    assert cv2.imread(str(draw_detector_curve(tmp_path))) is not None
    assert draw_detector_curve(tmp_path / "none") is None


def test_a_phantom_of_the_toy_person_is_a_training_case(monkeypatch, tmp_path):
    """What `femurseg phantom` writes, `femurseg train` reads."""
    monkeypatch.setattr(segmenter, "build_network", tiny_network)
    person = toy_person()
    monkeypatch.setattr("FemurSegLib.phantom.shapes.load_person", lambda shapes, name, cache=None: person)
    options = "--shapes none --people toy --field-of-view knees --spacing 4 4 4 --device cpu"
    assert command.main(["phantom", "--out", str(tmp_path / "cases"), *options.split()]) == 0
    arguments = [
        "train",
        "segmenter",
        "--out",
        str(tmp_path / "run"),
        "--cases",
        str(tmp_path / "cases"),
        *TINY,
    ]
    assert command.main([*arguments, "--steps", "2"]) == 0
    assert (tmp_path / "run" / "weights.safetensors").is_file()
