from __future__ import annotations

import numpy as np
import pytest

from FemurSegLib.evaluation.metrics import (
    bootstrap_mean,
    box_iou,
    overlap,
    precision_recall,
    surface_distance,
)


def ball(shape, spacing_mm, radius_mm, shift_mm=(0.0, 0.0, 0.0)):
    """Boolean (k, j, i), centred; spacing and shift along (i, j, k)."""
    axes = [
        (np.arange(n) - (n - 1) / 2) * s - d
        for n, s, d in zip(shape, spacing_mm[::-1], shift_mm[::-1], strict=True)
    ]
    k, j, i = np.meshgrid(*axes, indexing="ij")
    return k**2 + j**2 + i**2 <= radius_mm**2


def test_counts_follow_the_definitions():
    reference = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], bool).reshape(1, 1, 10)
    result = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0, 0], bool).reshape(1, 1, 10)
    o = overlap(result, reference)
    assert (o.true_positives, o.false_positives, o.false_negatives, o.true_negatives) == (3, 1, 1, 5)
    assert o.dice == 6 / 8
    assert o.sensitivity == 3 / 4
    assert o.specificity == 5 / 6
    assert o.pixel_accuracy == 8 / 10


def test_undecided_voxels_do_not_count():
    reference = np.array([1, 1, 0, 0], bool).reshape(1, 1, 4)
    result = np.array([1, 0, 1, 0], bool).reshape(1, 1, 4)
    o = overlap(result, reference, known=np.array([1, 0, 0, 1], bool).reshape(1, 1, 4))
    assert o.dice == 1 and o.pixel_accuracy == 1


def test_a_box_limits_true_negatives_only():
    reference, result = np.zeros((2, 1, 1, 9), bool)
    reference[..., 0] = result[..., [0, 8]] = True
    o = overlap(result, reference, box=(slice(None), slice(None), slice(0, 3)))
    assert (o.true_negatives, o.false_positives) == (2, 1)


def test_empty_masks_have_a_defined_outcome():
    nothing, something = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    assert overlap(nothing, nothing).dice == 1
    assert np.isnan(overlap(nothing, nothing).sensitivity)
    assert overlap(something, nothing).dice == 0
    assert overlap(nothing, something).sensitivity == 0
    assert np.isnan(surface_distance(nothing, nothing, (1, 1, 1)).mean_mm)
    assert surface_distance(nothing, something, (1, 1, 1)).hd95_mm == np.inf


def test_equal_masks_are_at_no_distance():
    mask = ball((30, 40, 40), (1, 1, 2), 15)
    d = surface_distance(mask, mask, (1, 1, 2))
    assert d.mean_mm == 0 and d.hd95_mm == 0


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 0.9, 2.0), (0.8, 0.8, 3.3)])
def test_concentric_balls_are_as_far_apart_as_their_radii(spacing):
    shape = tuple(int(70 / s) for s in spacing[::-1])
    d = surface_distance(ball(shape, spacing, 30), ball(shape, spacing, 25), spacing)
    assert d.mean_mm == pytest.approx(5, abs=0.35 * max(spacing))
    assert d.hd95_mm == pytest.approx(5, abs=max(spacing))


def test_a_shift_is_measured_in_millimetres_along_each_axis():
    """Two equal balls shifted by s are s * |cos| apart on average, which is s / 2 over a sphere."""
    spacing, shape = (0.6, 0.8, 2.0), (30, 75, 100)
    for shift in ((4, 0, 0), (0, 4, 0), (0, 0, 4)):
        d = surface_distance(ball(shape, spacing, 20, shift), ball(shape, spacing, 20), spacing)
        assert d.mean_mm == pytest.approx(2.0, abs=0.5)
        assert d.hd95_mm == pytest.approx(3.8, abs=0.9)


def test_a_cut_is_not_a_surface():
    result, reference = np.zeros((2, 20, 20, 20), bool)
    result[:, 5:15, 5:15] = reference[:, 5:15, 5:15] = True
    result[:, 14] = False
    assert surface_distance(result, reference, (1, 1, 1)).hd95_mm == 1


def test_undecided_surface_is_not_measured_from():
    reference = np.zeros((20, 20, 20), bool)
    reference[5:15, 5:15, 5:15] = True
    result = reference.copy()
    result[15:18, 5:15, 5:15] = True
    known = np.ones_like(reference)
    known[14:19] = False
    assert surface_distance(result, reference, (1, 1, 1)).hd95_mm > 1
    assert surface_distance(result, reference, (1, 1, 1), known).hd95_mm == 0


def test_iou_of_boxes_in_two_and_three_dimensions():
    assert box_iou(((0, 0), (2, 2)), ((1, 0), (3, 2))) == pytest.approx(1 / 3)
    assert box_iou(((0, 0, 0), (2, 2, 2)), ((0, 0, 0), (2, 2, 1))) == pytest.approx(1 / 2)
    assert box_iou(((0, 0), (1, 1)), ((2, 2), (3, 3))) == 0
    assert box_iou(None, ((2, 2), (3, 3))) == 0


def test_average_precision_of_a_worked_example():
    """Hit, miss, hit over two references: precision 1, 1/2, 2/3; area 1/2 * 1 + 1/2 * 2/3."""
    box, far = ((0, 0), (2, 2)), ((10, 10), (12, 12))
    references = [("a", box), ("b", box)]
    detections = [("a", 0.9, box), ("a", 0.8, far), ("b", 0.7, box)]
    curve = precision_recall(detections, references)
    assert curve.precision.tolist() == [1, 0.5, pytest.approx(2 / 3)]
    assert curve.ap == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_a_second_box_on_the_same_femur_is_false():
    box = ((0, 0), (2, 2))
    curve = precision_recall([("a", 0.9, box), ("a", 0.8, box)], [("a", box)])
    assert curve.precision.tolist() == [1, 0.5] and curve.ap == 1


def test_average_precision_without_detections_or_references():
    box = ((0, 0), (2, 2))
    assert precision_recall([], [("a", box)]).ap == 0
    assert np.isnan(precision_recall([("a", 0.9, box)], []).ap)


def test_bootstrap_leaves_out_what_is_not_finite_and_is_reproducible():
    mean, low, high = bootstrap_mean([0.9, 0.92, 0.94, np.nan, np.inf])
    assert mean == pytest.approx(0.92) and low < mean < high
    assert bootstrap_mean([0.9, 0.92, 0.94]) == (mean, low, high)
    assert np.isnan(bootstrap_mean([])).all()
