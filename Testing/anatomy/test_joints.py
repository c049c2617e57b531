"""Pieces of socket and tibia in a mask, on a toy femur whose joints are known."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from anatomy.toy_femur import CONDYLE_RADIUS, HALF_GAP, HEAD_RADIUS, KNEE, toy_femur

from FemurSegLib.anatomy.bone import Bone
from FemurSegLib.anatomy.joints import STANDS_OUT_MM, without_socket
from FemurSegLib.anatomy.landmarks import find_landmarks
from FemurSegLib.anatomy.measurements import measure
from FemurSegLib.anatomy.mistakes import SLIVER_RADIUS_MM, enlarged, with_sliver
from FemurSegLib.sides import RIGHT

SPACING = (1.2, 1.2, 1.5)
GAP_MM = 3.0


@lru_cache
def toy():
    labels, grid, truth = toy_femur(spacing_mm=SPACING)
    bone = Bone.of_mask(labels, grid, RIGHT)
    return labels > 0, grid, truth, bone, find_landmarks(bone)


def voxel_centers(grid):
    k, j, i = np.indices(grid.shape)
    return grid.lps(np.stack([i, j, k], axis=-1))


def socket():
    """A shell over the upper inner part of the head, a joint space away from it."""
    _, grid, truth, *_ = toy()
    arm = voxel_centers(grid) - truth["head"]
    far = np.linalg.norm(arm, axis=-1)
    along = arm @ truth["neck"] / np.maximum(far, 1e-9)
    return (far > HEAD_RADIUS + GAP_MM) & (far < HEAD_RADIUS + 12) & (along > 0.3) & (arm[..., 2] > 0)


def plateau():
    """A slab under the medial condyle, a joint space away from it."""
    _, grid, *_ = toy()
    x, y, z = np.moveaxis(voxel_centers(grid) - KNEE - [HALF_GAP, 0, 0], -1, 0)
    return (z < -CONDYLE_RADIUS - GAP_MM) & (z > -CONDYLE_RADIUS - 12) & (np.abs(x) < 15) & (np.abs(y - 22) < 12)


def values(landmarks) -> dict:
    return {key: m.value for key, m in measure(landmarks).items()}


def read_with(other, seed) -> tuple:
    """(Bone, landmarks) of the toy's mask with a piece of the other bone."""
    mask, grid, *_ = toy()
    wrong = with_sliver(mask, other, grid, np.random.default_rng(seed))
    assert wrong[mask].all() and 500 < (wrong & ~mask).sum() * np.prod(SPACING) < 4 * SLIVER_RADIUS_MM**3
    bone = Bone.of_mask(wrong.astype(np.uint8), grid, RIGHT)
    return bone, find_landmarks(bone)


def test_nothing_is_left_out_of_a_mask_of_the_femur_alone():
    *_, bone, landmarks = toy()
    assert landmarks.left_out == ()
    assert without_socket(bone, landmarks.hip) is bone


@pytest.mark.parametrize("seed", [0, 1])
def test_a_piece_of_the_tibia_leaves_mldfa_and_length_as_they_were(seed):
    *_, bone, right = toy()
    piece, found = read_with(plateau(), seed)
    assert piece.points_mm[:, 2].min() < bone.points_mm[:, 2].min() - STANDS_OUT_MM
    assert found.left_out == ("tibia",)
    before, after = values(right), values(found)
    for key, most in (("mldfa_deg", 0.7), ("length_mm", 0.7), ("anteversion_deg", 0.3)):
        assert after[key] == pytest.approx(before[key], abs=most), key


def test_a_piece_of_the_socket_leaves_head_and_length_as_they_were():
    *_, right = toy()
    _, found = read_with(socket(), 0)
    assert found.left_out == ("socket",)
    assert np.linalg.norm(found.hip.head.center_mm - right.hip.head.center_mm) < 0.3
    before, after = values(right), values(found)
    for key, most in (("head_diameter_mm", 0.5), ("length_mm", 1.0), ("neck_shaft_angle_deg", 0.5)):
        assert after[key] == pytest.approx(before[key], abs=most), key


def test_a_left_mask_is_cleared_as_its_mirror_image():
    bone, found = read_with(plateau(), 0)
    other = find_landmarks(bone.mirrored())
    assert other.left_out == ("tibia",)
    assert values(other) == pytest.approx(values(found), nan_ok=True)


def test_an_even_layer_enlarges_the_volume_as_told():
    *_, bone, _ = toy()
    assert enlarged(bone, 1.04).volume_mm3 / bone.volume_mm3 == pytest.approx(1.04, abs=0.003)


def test_bones_far_apart_share_no_sliver():
    mask, grid, *_ = toy()
    far = np.zeros_like(mask)
    far[:3, :3, :3] = True
    assert with_sliver(mask, far, grid, np.random.default_rng(0)) is None
