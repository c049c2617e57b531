"""`femurseg evaluate --compare` from bones to the table, with networks of one weight that know bone by its HU."""

from __future__ import annotations

import csv
import json
import math
import shutil

import numpy as np
import pytest
import torch
from examples import segmented
from toy_person import keep

from FemurSegLib import command
from FemurSegLib.evaluation.comparison.entrants import ENTRANTS, FULL, THICK, Comparison
from FemurSegLib.evaluation.comparison.footprint import largest_patch, parameters, training_bytes
from FemurSegLib.evaluation.comparison.material import BELOW_MM, WIDTH_MM, proximal_crop
from FemurSegLib.evaluation.comparison.run import errors
from FemurSegLib.evaluation.comparison.table import COLUMNS, CSV_COLUMNS
from FemurSegLib.evaluation.papers import PAPERS
from FemurSegLib.grid import Grid
from FemurSegLib.segmentation.network import build_network
from FemurSegLib.training.cases import find_cases, read_case
from FemurSegLib.volume import Volume


class Bright(torch.nn.Module):
    """Bone above about 200 HU; one weight that a few steps hardly move."""

    def __init__(self, patch):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([20.0]))

    def forward(self, image):
        bright = (image - 0.5) * self.weight
        return torch.cat([torch.zeros_like(bright), bright], 1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Four people who are one."""
    folder = tmp_path_factory.mktemp("cache")
    keep(folder, "z013")
    file = next(folder.iterdir())
    for name in ("vhf", "toy-a", "toy-b"):
        shutil.copy(file, file.with_name(file.name.replace("z013", name)))
    return folder


@pytest.fixture
def arguments(tmp_path, cache, monkeypatch):
    """All options but the entrants; the second stage finds all bone in the CT."""
    from FemurSegLib import pipeline
    from FemurSegLib.segmentation import inference, network

    monkeypatch.setattr(inference, "SPACING_MM", (6.0, 6.0, 6.0))  # whole CTs in a moment
    for name in network.NETWORKS:
        monkeypatch.setitem(network._BUILDERS, name, Bright)
    monkeypatch.setattr(
        pipeline,
        "segment_femurs",
        lambda ct, **settings: segmented(ct, (ct.voxels > 200).astype(np.uint8)),
    )
    options = "--train-people toy-a --people toy-b --train-phantoms 1 --phantoms 2 --spacing 6 6 8 --device cpu "
    options += "--field-of-view femora --steps 2 --batch 1 --largest-patch 16 --slice-step 8 --memory-gb 1"
    options += " --look-minutes 1e-6"
    places = ["--shapes", str(tmp_path), "--cache", str(cache), "--out", str(tmp_path / "out")]
    return ["evaluate", *places, *options.split(), "--compare"]


def test_entrants_are_measured_side_by_side_and_beside_the_papers(arguments, tmp_path, capfd, monkeypatch):
    names = ["two-stage", "single-stage", "vnet-ce-3mm", "unet3d-42-1mm"]
    assert command.main([*arguments, *names]) == 0
    out, printed = tmp_path / "out", capfd.readouterr().out
    rows = json.loads((out / "comparison.json").read_text())["measured"]
    assert [row["entrant"] for row in rows] == names
    assert {row["steps"] for row in rows} == {2}  # the same budget, in one round or in two
    for row in rows:
        assert row["train_seconds"] > 0 and row["inference_seconds"] > 0
        assert row["parameters"] == 1 and row["count"] == len(row["cases"]) >= 2
        assert row["dice"] == pytest.approx(np.mean([case["dice"] for case in row["cases"]]))
        assert row["looks"][-1] == [row["train_seconds"], row["dice"]]
        assert 0.1 < row["dice"] < 1 and row["volume_rmse"] >= row["volume_mae"] > 0
        line = next(line for line in printed.splitlines() if line.split()[:1] == [row["entrant"]] and "^3" in line)
        assert f"{row['dice']:.4f}" in line and f"{row['volume_mae']:.2f}" in line
    assert [len(row["looks"]) for row in rows] == [2, 2, 2, 1]  # after each step; of two rounds, in the second
    assert "Training until Dice" in printed and "(full): two-stage " in printed
    assert all(math.isfinite(row["area_re"]) for row in rows[2:]) and "area_re" not in rows[0]
    for words in (*(paper["entrant"] for paper in PAPERS), *COLUMNS.values()):
        assert words in printed
    with open(out / "comparison.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(rows) + len(PAPERS)
    assert float(lines[0]["dice"]) == rows[0]["dice"] and lines[-1]["entrant"].startswith("Sultana")

    # Who was tested did not train.
    for part, person in (("train", "toy-a"), ("test", "toy-b")):
        assert {case.name.split("_")[0] for case in find_cases(out / "cases" / FULL / part)} == {person}

    # What is there is not made again; another budget in the same folder is refused.
    monkeypatch.setattr("FemurSegLib.evaluation.comparison.training.train", None)
    assert command.main([*arguments, *names]) == 0
    assert json.loads((out / "comparison.json").read_text())["measured"] == rows
    assert command.main([*arguments, "two-stage", "--steps", "3"]) == 3
    assert "steps 2" in capfd.readouterr().err


def test_two_rounds_learn_from_the_upper_slices_then_from_all(arguments, tmp_path):
    assert command.main([*arguments, "unet3d-42-1mm"]) == 0
    folder = tmp_path / "out" / "unet3d-42-1mm"
    whole = find_cases(tmp_path / "out" / "cases" / "proximal-1mm" / "train")
    for case, first, second in zip(
        whole, find_cases(folder / "annotated_cases"), find_cases(folder / "labelled_cases"), strict=True
    ):
        truth, annotated, labelled = (read_case(c)[1].voxels for c in (case, first, second))
        undecided = (annotated == 255).all(axis=(1, 2))
        assert (~undecided).mean() == pytest.approx(0.42, abs=0.02)
        assert undecided[0] and not undecided[-1]  # the upper ones are annotated
        assert np.array_equal(annotated[~undecided], truth[~undecided])
        assert np.array_equal(labelled[~undecided], truth[~undecided])
        assert (labelled[undecided] != 255).mean() > 0.5 and (labelled[undecided] == 1).any()
    for part in ("training_annotated", "training"):
        assert json.loads((folder / part / "settings.json").read_text())["steps"] == 1


def test_what_cannot_be_compared_is_said(arguments, capfd):
    assert command.main([*arguments, "nnunet"]) == 3
    assert "two-stage" in capfd.readouterr().err
    assert command.main([*arguments, "two-stage", "--train-people", "toy-b"]) == 3
    assert "toy-b" in capfd.readouterr().err
    assert command.main(["evaluate", "--compare"]) == 3


def test_a_crop_holds_one_upper_femur_and_no_more_than_the_papers():
    shape = (100, 80, 100)
    labels = np.zeros(shape, np.uint8)
    labels[10:90, 30:40, 60:80] = 2
    labels[10:60, 30:40, 10:30] = 1
    grid = Grid(shape, (3.0, 3.0, 3.0), (0, 0, 0), np.eye(3))
    ct = Volume((labels * 100).astype(np.int16), grid)
    crop, mask = proximal_crop(ct, Volume(labels, grid), "left_femur")
    assert np.array_equal(mask, crop.voxels == 200)
    assert mask.shape[0] == round(BELOW_MM / 3) + 7 and not mask[-7:].any() and mask[-8].any()  # 20 mm above
    assert mask.shape[2] * 3 <= WIDTH_MM and mask.any(axis=(0, 1)).sum() == 20
    none = Volume(np.where(labels == 2, labels, 0).astype(np.uint8), grid)
    assert proximal_crop(ct, none, "right_femur") is None


def test_errors_are_those_of_the_papers():
    off = errors([11.0, 18.0, 33.0], [10.0, 20.0, 30.0])
    assert off["mae"] == pytest.approx(2) and off["rmse"] == pytest.approx(math.sqrt(14 / 3))
    assert off["r2"] == pytest.approx(1 - 14 / 200) and off["re"] == pytest.approx(10)
    assert (off["re_low"], off["re_high"]) == pytest.approx((-10, 10))
    assert math.isnan(errors([1.0, 2.0], [3.0, 3.0])["r2"])
    assert errors([1.0, 11.0], [0.0, 10.0])["re"] == pytest.approx(10)  # a CT without femur has no relative error


def test_patches_are_the_papers_unless_they_are_to_be_smaller():
    whole = Comparison(None, None, ("a",), ("b",))
    assert whole.patch(ENTRANTS["two-stage"]) == (160, 160, 160)  # Xie, Table 3
    assert whole.patch(ENTRANTS["vnet-dice-l2-3mm"]) == (32, 192, 192)  # Zhao, section 2.3
    assert whole.patch(ENTRANTS["vnet-ce-1mm"]) == (64, 192, 192)  # Deng, section 2.3
    small = Comparison(None, None, ("a",), ("b",), largest_patch=40)
    assert small.patch(ENTRANTS["vnet-ce-3mm"]) == (32, 32, 32) and ENTRANTS["vnet-ce-3mm"].cases == THICK
    assert small.patch(ENTRANTS["segresnet-3mm"]) == (32, 40, 40)


def test_memory_is_counted_and_grows_with_the_patch():
    weights = parameters(build_network("segresnet"))
    small, large = training_bytes("segresnet", (32, 32, 32)), training_bytes("segresnet", (64, 64, 64))
    kept = [count - 20 * weights for count in (small, large)]
    assert kept[1] == pytest.approx(8 * kept[0], rel=0.02)
    assert 16 * 64**3 * 4 < kept[1] < 100 * 16 * 64**3 * 4  # more than one map of features, less than a hundred
    assert largest_patch("segresnet", large / 1e9, step=32, most=96) == 64
    assert largest_patch("segresnet", 0.01) == 0


def test_every_column_of_the_papers_is_written():
    assert {key for paper in PAPERS for key in paper} <= set(CSV_COLUMNS)
