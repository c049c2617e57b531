from __future__ import annotations

import csv
import json
import math

import cv2
import numpy as np
import pytest
from examples import CENTERS_LPS, ellipsoid, segmented, two_femora

from FemurSegLib.errors import NoFemurError
from FemurSegLib.evaluation.pictures import draw_case
from FemurSegLib.evaluation.score import failed, reference_boxes, score
from FemurSegLib.evaluation.tables import (
    boxes_table,
    case_ap,
    masks_table,
    of_case,
    summary,
    write_tables,
)
from FemurSegLib.sides import LABELS, LEFT, RIGHT
from FemurSegLib.volume import Volume


@pytest.fixture(scope="module")
def legs():
    """CT, true labels, and labels with a thicker right femur, on an oblique grid."""
    ct, labels = two_femora()
    thick = labels.copy()
    thick[ellipsoid(ct.grid, CENTERS_LPS[RIGHT], (16.0, 18.0, 47.0)) & (labels == 0)] = LABELS[RIGHT]
    return ct, labels, thick


def scored(ct, result, reference, name="case"):
    return score(name, segmented(ct, result), Volume(reference, ct.grid))


def test_a_perfect_result_has_perfect_figures(legs):
    ct, labels, _ = legs
    s = scored(ct, labels, labels)
    assert s.verdict == "ok"
    for femur in s.femurs:
        assert femur.dice == femur.sensitivity == femur.specificity == femur.pixel_accuracy == 1
        assert femur.mean_surface_mm == femur.hd95_mm == 0
        assert femur.region_iou == pytest.approx(1) and femur.coronal_iou == pytest.approx(1)
        assert femur.reference_ml == femur.result_ml > 10
    assert case_ap(s) == 1


def test_figures_are_those_of_each_side(legs):
    ct, labels, thick = legs
    right, left = scored(ct, thick, labels).femurs
    a, b = thick == 1, labels == 1
    assert (right.side, left.side) == (RIGHT, LEFT)
    assert right.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert right.sensitivity == 1 and right.specificity < 1 and left.dice == 1
    assert 1 < right.mean_surface_mm < 3 and 0.5 < right.region_iou < 0.9 and left.region_iou == pytest.approx(1)


def test_undecided_voxels_are_left_out_but_belong_to_the_box(legs):
    ct, labels, _ = legs
    marked = labels.copy()
    edge = np.argwhere(labels == 2)[-40:]
    marked[tuple(edge.T)] = 255
    right, left = scored(ct, labels, marked).femurs
    assert left.dice == right.dice == 1 and left.hd95_mm == 0
    assert left.region_iou == pytest.approx(1)
    for one, two in zip(
        *(reference_boxes(Volume(v, ct.grid).oriented())[LEFT] for v in (labels, marked)), strict=True
    ):
        assert np.allclose(one, two)


def test_exchanged_sides_are_called_swapped(legs):
    ct, labels, _ = legs
    s = scored(ct, np.array([0, 2, 1], np.uint8)[labels], labels)
    assert s.verdict == "swapped" and all(f.swapped and f.dice == 0 for f in s.femurs)


def test_a_missed_and_an_extra_femur_are_told(legs):
    ct, labels, _ = legs
    only_right, only_left = (np.where(labels == n, n, 0).astype(np.uint8) for n in (1, 2))
    s = scored(ct, only_right, labels)
    assert s.verdict == "missed left" and s.femurs[1].dice == 0 and s.femurs[1].hd95_mm == math.inf
    assert of_case(s, "dice") == 0.5
    s = scored(ct, labels, only_left)
    assert s.verdict == "extra right" and s.femurs[0].dice == 0 and math.isnan(s.femurs[0].sensitivity)


def test_an_error_counts_every_femur_as_missed(legs):
    ct, labels, _ = legs
    s = failed("x", NoFemurError("No femur was found."), Volume(labels, ct.grid))
    assert s.verdict == "missed" and [f.dice for f in s.femurs] == [0, 0] and case_ap(s) == 0
    s = failed("x", NoFemurError("No femur was found."), Volume(np.zeros_like(labels), ct.grid))
    assert s.verdict == "none, right" and math.isnan(case_ap(s))
    assert failed("x", NoFemurError("No femur was found."), None).verdict == "no femur"
    assert failed("x", RuntimeError("broken"), None).verdict == "error: RuntimeError"


def test_a_case_without_reference_is_described(legs):
    ct, labels, _ = legs
    s = score("x", segmented(ct, labels), None)
    assert s.verdict == "found right and left" and math.isnan(of_case(s, "dice"))


def test_another_grid_is_refused(legs):
    ct, labels, _ = legs
    with pytest.raises(ValueError, match="grid"):
        score("x", segmented(ct, labels), Volume(labels[1:], ct.grid.crop((1, 0, 0), ct.grid.shape)))


@pytest.fixture(scope="module")
def scores(legs):
    ct, labels, thick = legs
    return [
        scored(ct, labels, labels, "perfect"),
        scored(ct, thick, labels, "thick"),
        failed("missed", NoFemurError("No femur was found."), Volume(labels, ct.grid)),
        score("unlabelled", segmented(ct, labels), None),
        failed("broken", RuntimeError("It broke."), None),
    ]


def test_tables_have_a_line_a_case_and_the_means(scores):
    boxes, masks = boxes_table(scores), masks_table(scores)
    assert [line.split()[0] for line in boxes.splitlines()[4:7]] == ["perfect", "thick", "missed"]
    assert "AP (IoU>=0.3)" in boxes and "mAP (mean of the cases' AP)  0.6667" in boxes
    assert all(word in masks for word in ("Mean", "95 % interval", "Worst", "broken: It broke.", "missed 2"))
    mean = next(line for line in masks.splitlines() if line.startswith("Mean")).split()
    dice = [of_case(s, "dice") for s in scores[:3]]
    assert float(mean[1]) == pytest.approx(np.mean(dice), abs=1e-4)
    widths = {len(line.rstrip()) for line in boxes.splitlines()[2:4]}
    assert len(widths) == 1
    assert boxes_table(scores[3:]) == ""


def test_files_can_be_read_by_other_programs(scores, tmp_path):
    write_tables(tmp_path, scores, {"seed": 1, "out": tmp_path})
    document = json.loads((tmp_path / "cases.json").read_text(), parse_constant=pytest.fail)
    assert document["summary"]["femora"] == 6 and document["summary"]["missed"] == 2
    assert document["summary"]["errors"] == 1 and document["cases"][2]["femurs"][0]["hd95_mm"] == "infinite"
    rows = list(csv.DictReader((tmp_path / "femora.csv").open()))
    assert rows[0]["case"] == "perfect" and float(rows[0]["dice"]) == 1
    assert "Table 5" in (tmp_path / "tables.txt").read_text()
    low, high = summary(scores)["dice"]["ci95"]
    assert low <= summary(scores)["dice"]["mean"] <= high


def test_a_picture_shows_reference_and_result(legs, tmp_path):
    ct, labels, thick = legs
    draw_case(tmp_path / "a.png", ct, Volume(thick, ct.grid), Volume(labels, ct.grid), "a case")
    picture = cv2.imread(str(tmp_path / "a.png")).astype(int)
    blue, green, red = picture.transpose(2, 0, 1)
    assert ((green > 150) & (red < 120) & (blue < 120)).sum() > 100
    assert ((red > 200) & (green < 100)).sum() > 100
    draw_case(tmp_path / "none.png", ct, None, None, "nothing")
    assert (tmp_path / "none.png").stat().st_size > 500
