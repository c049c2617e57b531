"""Metal beside the bone is taken off, metal inside stays, and a CT without metal is not touched."""

from __future__ import annotations

import numpy as np
import pytest

from FemurSegLib.grid import Grid
from FemurSegLib.segmentation.cleanup import one_body
from FemurSegLib.segmentation.metal import metal_in, slices_with_metal, without_metal_beside
from FemurSegLib.volume import Volume

SHAPE = (60, 70, 70)
SLICE, ROW, COLUMN = np.indices(SHAPE)


def rod(j, i, radius, first=0, last=SHAPE[0]):
    """A round rod along the bone."""
    return ((ROW - j) ** 2 + (COLUMN - i) ** 2 <= radius**2) & (SLICE >= first) & (SLICE < last)


SHAFT = rod(30, 30, 14)
CANAL = rod(30, 30, 8)


def after(bone, metal):
    """The mask of a network that calls bone and metal alike femur."""
    return one_body(without_metal_beside((bone | metal).astype(np.float32), metal)).mask


def test_a_nail_in_its_canal_stays_and_is_part_of_the_solid_bone():
    nail = rod(32, 31, 5, 5, 50)
    assert np.array_equal(after(SHAFT, nail), SHAFT)
    assert np.array_equal(after(SHAFT & ~CANAL, nail), SHAFT), "also where the network leaves the marrow out"


def test_a_plate_beside_the_shaft_goes_and_the_bone_keeps_its_volume():
    plate = rod(30, 48, 3, 5, 50)  # 18 mm from the axis of a shaft of 14 mm: it touches the periosteum
    left = after(SHAFT, plate)
    assert (SHAFT | plate).sum() - SHAFT.sum() > 1000 and not (left & plate & ~SHAFT).any()
    assert (SHAFT & ~left).sum() < 0.01 * SHAFT.sum()


def test_the_head_of_a_prosthesis_goes_and_its_stem_stays():
    bone = SHAFT & (SLICE < 35)
    stem, neck = rod(30, 30, 5, 5), rod(30, 30, 5, 35, 45)
    head = (SLICE - 48) ** 2 + (ROW - 30) ** 2 + (COLUMN - 30) ** 2 <= 11**2
    left = after(bone, stem | neck | head)
    assert not (left & head)[40:].any() and not left[40:].any()
    assert (bone & ~left).sum() < 0.03 * bone.sum() and left[5:30, 30, 30].all()


def test_a_nail_is_kept_as_far_as_it_is_inside():
    tip = SLICE >= 30  # above, the nail has left the bone
    nail = rod(30, 30, 5)
    left = after(SHAFT & ~tip, nail)
    assert left[:25, 30, 30].all() and not left[36:].any()


def test_a_bone_that_the_scan_cuts_goes_on_beyond_its_end():
    screw = rod(30, 30, 4, 0, 4)
    assert np.array_equal(after(SHAFT, screw), SHAFT)
    assert np.array_equal(after(SHAFT, rod(30, 30, 4, 56, 60)), SHAFT)


def ct(hu, spacing=(1.0, 1.0, 1.0)):
    return Volume(hu.astype(np.int16), Grid(hu.shape, spacing, (0.0, 0.0, 50.0), np.eye(3)))


def test_metal_is_seen_and_nothing_else():
    hu = np.where(SHAFT & ~CANAL, 1800, 40)
    assert metal_in(ct(hu)) is None
    found = metal_in(ct(np.where(rod(30, 30, 4), 3000, hu)))
    assert found[rod(30, 30, 3)].all() and not found[~rod(30, 30, 6)].any()


def test_dense_cortex_under_noise_is_no_metal():
    noise = np.random.default_rng(0).normal(0, 300, SHAPE)
    hu = np.where(SHAFT & ~CANAL, 2000 + noise, 40)
    assert (hu > 2500).sum() > 500
    assert metal_in(ct(np.clip(hu, -1000, 3071))) is None


def test_a_clip_is_left_alone():
    hu = np.where(SHAFT, 1200, 40)
    hu[20:24, 30:33, 30:33] = 3000
    assert metal_in(ct(hu)) is None


def test_the_slices_with_metal_are_told_in_mm_of_the_patient():
    metal = rod(30, 30, 5, 20, 41)
    low, high = slices_with_metal(SHAFT, metal, ct(np.zeros(SHAPE)).grid)
    assert (low, high) == pytest.approx((70.0, 90.0))
    coarse = Grid((20, 35, 35), (2.0, 2.0, 3.0), (0.0, 0.0, 50.0), np.eye(3))  # edges at 48.5 mm
    assert slices_with_metal(SHAFT, metal, coarse) == pytest.approx((48.5 + 20.5, 48.5 + 40.5))


def test_metal_in_the_other_leg_is_not_told():
    assert slices_with_metal(rod(30, 15, 10), rod(30, 60, 4), ct(np.zeros(SHAPE)).grid) is None
