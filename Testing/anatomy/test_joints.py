"""Pieces of socket and tibia in a mask, on a toy femur whose joints are known."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from anatomy.toy_femur import CONDYLE_RADIUS, HALF_GAP, HEAD_RADIUS, KNEE, toy_femur

from FemurSegLib.anatomy import hip, landmarks
from FemurSegLib.anatomy.bone import Bone
from FemurSegLib.anatomy.joints import STANDS_OUT_MM, evened_condyles, without_socket, without_tibia
from FemurSegLib.anatomy.landmarks import find_landmarks
from FemurSegLib.anatomy.measurements import measure
from FemurSegLib.anatomy.mistakes import SLIVER_RADIUS_MM, enlarged, with_sliver
from FemurSegLib.sides import RIGHT

SPACING = (1.2, 1.2, 1.5)
GAP_MM = 3.0
SPUR_MM = 5.0


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


def values(found) -> dict:
    return {key: m.value for key, m in measure(found).items()}


def read_with(other, seed) -> tuple:
    """(Bone, landmarks) of the toy's mask with a piece of the other bone."""
    mask, grid, *_ = toy()
    wrong = with_sliver(mask, other, grid, np.random.default_rng(seed))
    assert wrong[mask].all() and 500 < (wrong & ~mask).sum() * np.prod(SPACING) < 4 * SLIVER_RADIUS_MM**3
    bone = Bone.of_mask(wrong.astype(np.uint8), grid, RIGHT)
    return bone, find_landmarks(bone)


def test_nothing_is_left_out_of_a_mask_of_the_femur_alone():
    *_, bone, found = toy()
    assert found.left_out == ()
    assert without_socket(bone, found.hip) is bone


def test_spurs_of_the_femur_itself_stay():
    mask, grid, truth, *_ = toy()
    top = truth["head"] + HEAD_RADIUS * np.array([0.6, 0.0, 0.8])
    bottom = KNEE + [HALF_GAP, 10.0, -CONDYLE_RADIUS]
    spurs = [np.linalg.norm(voxel_centers(grid) - place, axis=-1) < SPUR_MM for place in (top, bottom)]
    bone = Bone.of_mask((mask | spurs[0] | spurs[1]).astype(np.uint8), grid, RIGHT)
    found = find_landmarks(bone)
    assert found.left_out == ()
    assert without_socket(bone, found.hip) is bone and without_tibia(bone, found.knee) is bone


def test_a_head_too_rough_for_votes_is_known_by_its_fit(monkeypatch):
    _, _, truth, bone, _ = toy()
    monkeypatch.setattr(hip, "HEAD_VOTES", 1.0)
    head, _ = hip.find_head(bone)
    assert np.linalg.norm(head.center_mm - truth["head"]) < 0.3
    monkeypatch.setattr(hip, "SPURRED_COVERAGE", 1.0)
    assert hip.find_head(bone) is None


@pytest.mark.parametrize("seed", [0, 1])
def test_a_piece_of_the_tibia_leaves_mldfa_and_length_as_they_were(seed):
    *_, bone, right = toy()
    piece, found = read_with(plateau(), seed)
    assert piece.points_mm[:, 2].min() < bone.points_mm[:, 2].min() - STANDS_OUT_MM
    assert found.left_out == ("tibia",)
    before, after = values(right), values(found)
    for key, most in (("mldfa_deg", 0.7), ("length_mm", 0.7), ("anteversion_deg", 0.3)):
        assert after[key] == pytest.approx(before[key], abs=most), key


def test_a_knee_that_cannot_be_read_without_the_piece_is_not_read_with_it(monkeypatch):
    *_, bone, right = toy()
    cleared, why = replace(bone), "no notch lies between the condyles"
    monkeypatch.setattr(
        landmarks, "find_knee", lambda bone, *_, **__: (None, why) if bone is cleared else (right.knee, "")
    )
    monkeypatch.setattr(landmarks, "without_tibia", lambda *_: cleared)
    found = find_landmarks(bone)
    assert found.knee is None and found.reasons["knee"] == why and found.left_out == ("tibia",)


def test_even_condyles_stay_where_they_are():
    *_, bone, right = toy()
    moved = np.linalg.norm(evened_condyles(bone, right.knee).points_mm - bone.points_mm, axis=1)
    low = bone.points_mm[:, 2] < -0.5 * CONDYLE_RADIUS
    assert np.mean(moved[low]) < 0.1 and not moved[bone.points_mm[:, 2] > 60].any()


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
