from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from FemurSegLib import command
from FemurSegLib.evaluation import radiographs
from FemurSegLib.evaluation.radiographs import Picture, average_precision, figures
from FemurSegLib.localization.detection import Detection
from FemurSegLib.sides import LEFT, RIGHT
from FemurSegLib.training.radiographs import CLASSES, save_example

BOX, AWAY = (0, 0, 10, 20), (50, 0, 60, 20)


def test_figures_count_what_was_missed_swapped_and_imagined():
    pictures = [
        Picture("good", {RIGHT: BOX}, [Detection(RIGHT, 0.9, BOX)]),
        Picture("missed", {RIGHT: BOX}, [Detection(RIGHT, 0.8, AWAY)]),
        Picture("swapped", {LEFT: BOX}, [Detection(RIGHT, 0.7, BOX)]),
        Picture("empty", {}, [Detection(LEFT, 0.6, BOX)]),
    ]
    numbers = figures(pictures)
    assert (numbers["missed"], numbers["swapped"], numbers["false_alarms"]) == (2, 1, 1)
    assert numbers["mean_iou"] == pytest.approx(1 / 3)
    assert average_precision(pictures, RIGHT, 0.5) == pytest.approx(0.5)
    assert average_precision(pictures, LEFT, 0.5) == 0
    faults = [len(picture.faults()) for picture in pictures]
    assert faults == [0, 1, 1, 1] and "taken for the other" in pictures[2].faults()[0]


def test_the_command_prints_the_figures_of_both_views_and_the_pictures_that_went_wrong(
    tmp_path, monkeypatch, capfd
):
    image = np.zeros((40, 80, 3), np.uint8)
    for view in ("coronal", "axial"):
        for kind in ("images", "labels"):
            (tmp_path / view / kind / "val").mkdir(parents=True)
        for name, box in (("one", (10.0, 5.0, 30.0, 35.0)), ("two", (40.0, 5.0, 60.0, 35.0))):
            picture = SimpleNamespace(image=image)
            save_example(tmp_path / view, "val", name, picture, [(CLASSES.index(LEFT), box)])
    found = [Detection(LEFT, 0.9, (10.0, 5.0, 30.0, 35.0))]
    monkeypatch.setattr(radiographs, "load_network", lambda model, device: None)
    monkeypatch.setattr(radiographs, "find_boxes", lambda network, image, size: found)
    assert command.main(["evaluate", "--radiographs", str(tmp_path), "--device", "cpu"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if ": left_femur missed" in line] == [
        "coronal two: left_femur missed",
        "axial two: left_femur missed",
    ]
    assert "coronal: pictures 2, femora 2, mean_iou 0.500, mean_iou_found 1.000, missed 1" in "\n".join(lines)
    assert command.main(["evaluate", "--radiographs", str(tmp_path / "nowhere"), "--device", "cpu"]) == 3
