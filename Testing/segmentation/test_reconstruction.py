"""Slices become a solid: its place, its volume and its area are those of what was cut."""

import numpy as np
import pytest

from FemurSegLib.segmentation.reconstruction import area_and_volume, reconstruct

RADIUS_MM = 24.0


def ball(spacing, radius=RADIUS_MM, size_mm=60.0):
    """A probability (k, j, i) that falls from 1 to 0 over 4 mm at the surface of a ball in the middle."""
    axes = [(np.arange(round(size_mm / s)) + 0.5) * s - size_mm / 2 for s in spacing[::-1]]
    distance = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    return np.clip(0.5 + (radius - distance) / 4, 0, 1).astype(np.float32)


@pytest.mark.parametrize("slice_mm", [1.0, 3.0, 5.0])
def test_a_ball_of_thick_slices_gets_its_volume_and_area_back(slice_mm):
    mask, spacing = reconstruct(ball((1.0, 1.0, slice_mm)), (1.0, 1.0, slice_mm))
    assert spacing == (1.0, 1.0, 1.0) and mask.shape == (60, 60, 60)
    at = np.argwhere(mask) - 29.5
    assert np.abs(at.mean(0)).max() < 0.1
    area, volume = area_and_volume(mask, spacing)
    assert volume == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3 / 1000, rel=0.03)
    assert area == pytest.approx(4 * np.pi * RADIUS_MM**2 / 100, rel=0.03)


def test_splines_are_nearer_the_truth_than_the_slices_themselves():
    truth = ball((1.0, 1.0, 1.0)) > 0.5
    field = ball((1.0, 1.0, 5.0))
    smooth, _ = reconstruct(field, (1.0, 1.0, 5.0))
    steps = np.repeat(field > 0.5, 5, axis=0)
    assert (smooth != truth).sum() < 0.5 * (steps != truth).sum()


def test_islands_go_and_gaps_close():
    field = ball((1.0, 1.0, 1.0))
    field[:4, :4, :4] = 1
    field[30, 30, 30] = 0
    mask, _ = reconstruct(field, (1.0, 1.0, 1.0))
    assert not mask[:6, :6, :6].any() and mask[30, 30, 30]


def test_nothing_has_no_area():
    mask, spacing = reconstruct(np.zeros((4, 8, 8), np.float32), (1.0, 1.0, 3.0))
    assert not mask.any() and area_and_volume(mask, spacing) == (0.0, 0.0)
