from __future__ import annotations

import numpy as np
import pytest
from anatomy.toy_femur import toy_femur

from FemurSegLib.anatomy.bone import Bone
from FemurSegLib.anatomy.stability import poses, roughen, spread, voxelize
from FemurSegLib.sides import LABELS, LEFT, RIGHT


@pytest.fixture(scope="module")
def bone():
    labels, grid, _ = toy_femur(spacing_mm=(1.5, 1.5, 1.5))
    return Bone.of_mask(labels, grid, RIGHT)


def test_poses_turn_by_at_most_thirty_degrees_and_come_back():
    point, center = np.array([1.0, 2.0, 3.0]), np.array([5.0, 5.0, 5.0])
    for pose in poses(6):
        angle = np.degrees(np.arccos((np.trace(pose.turn) - 1) / 2))
        assert 10 <= angle <= 30.001
        there = ((point - center) * ([-1, 1, 1] if pose.mirror else 1)) @ pose.turn.T
        assert np.allclose(pose.back(there, center), point)
    assert {(p.mirror, p.rough) for p in poses(6)} == {(m, r) for m in (False, True) for r in (False, True)}


def test_a_voxelized_bone_has_its_volume_and_its_label(bone):
    labels, grid = voxelize(bone.mirrored(), (1.0, 1.2, 1.5))
    assert np.unique(labels).tolist() == [0, LABELS[LEFT]]
    assert np.count_nonzero(labels) * np.prod(grid.spacing_mm) == pytest.approx(bone.volume_mm3, rel=0.005)


def test_roughness_moves_the_surface_by_about_half_a_voxel_and_leaves_the_inside_whole():
    k, j, i = np.mgrid[:60, :60, :60]
    depth = 20.0 - np.sqrt((k - 30) ** 2 + (j - 30) ** 2 + (i - 30) ** 2)
    rough = roughen((depth > 0).astype(np.uint8) * 2, np.random.default_rng(0))
    assert rough[depth > 3].all() and not rough[depth < -3].any()
    changed = (rough > 0) != (depth > 0)
    assert 0.05 < changed[np.abs(depth) < 1].mean() < 0.4
    assert np.unique(rough).tolist() == [0, 2]


def test_the_spread_of_a_smooth_bone_is_small(bone):
    found = spread(bone, (1.2, 1.2, 1.2), count=2)
    assert found["head_diameter_mm"].largest < 0.3 and found["head_diameter_mm"].found == 2
    assert found["neck_shaft_angle_deg"].largest < 0.5
    assert found["head_center"].largest < 0.3
