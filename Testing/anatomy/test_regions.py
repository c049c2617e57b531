from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from anatomy.toy_femur import HEAD_RADIUS, toy_femur

from FemurSegLib.anatomy.bone import Bone
from FemurSegLib.anatomy.landmarks import find_landmarks
from FemurSegLib.anatomy.regions import COMBINATION, NECK_BOX_MM, REGIONS, label_regions, region_volumes
from FemurSegLib.sides import RIGHT

SPACING = (1.2, 1.2, 1.5)


@lru_cache
def toy(**shape):
    labels, grid, _ = toy_femur(spacing_mm=SPACING, **shape)
    landmarks = find_landmarks(Bone.of_mask(labels, grid, RIGHT))
    regions = label_regions(labels, grid, landmarks)
    return labels, grid, landmarks, regions


def test_every_voxel_of_a_whole_femur_has_one_region_and_no_other_voxel_has():
    labels, grid, landmarks, regions = toy()
    assert np.count_nonzero(regions.voxels) == np.count_nonzero(labels)
    assert set(np.unique(regions.voxels)) == {0, *REGIONS.values()}
    volumes = region_volumes(regions, landmarks)
    whole = np.count_nonzero(labels) * np.prod(SPACING) / 1000
    assert sum(volumes[name].volume_ml for name in REGIONS) == pytest.approx(whole)
    assert volumes["combination"].volume_ml == pytest.approx(sum(volumes[n].volume_ml for n in COMBINATION))


def test_head_and_neck_have_the_volumes_of_their_solids():
    _, _, landmarks, regions = toy()
    volumes = region_volumes(regions, landmarks)
    area = landmarks.hip.neck_area_mm2
    depth = HEAD_RADIUS - np.sqrt(HEAD_RADIUS**2 - area / np.pi)
    cut_off = np.pi * depth**2 * (3 * HEAD_RADIUS - depth) / 3
    assert volumes["head"].volume_ml == pytest.approx((4 / 3 * np.pi * HEAD_RADIUS**3 - cut_off) / 1000, rel=0.01)
    assert volumes["neck"].volume_ml == pytest.approx(area * NECK_BOX_MM / 1000, rel=0.03)


def test_the_distal_region_is_as_high_as_the_condyles_are_wide():
    _, _, landmarks, regions = toy()
    k = np.nonzero((regions.voxels == REGIONS["distal"]).any(axis=(1, 2)))[0]
    assert np.ptp(k) * SPACING[2] == pytest.approx(landmarks.knee.width_mm, abs=6.0)


def test_volumes_can_be_restricted_and_averaged_over_a_ct():
    labels, _, landmarks, regions = toy()
    within = np.zeros(regions.grid.shape, bool)
    within[: regions.grid.shape[0] // 2] = True
    ct = np.full(regions.grid.shape, 250, np.int16)
    volumes = region_volumes(regions, landmarks, within=within, ct=ct)
    assert volumes["head"].volume_ml == 0 and volumes["head"].mean_hu is None
    assert volumes["distal"].volume_ml > 100 and volumes["distal"].mean_hu == 250


def test_a_femur_without_a_knee_has_no_shaft_or_distal_volume_and_says_why():
    _, _, landmarks, regions = toy(lower_mm=215.0)
    volumes = region_volumes(regions, landmarks)
    for name in ("shaft", "distal"):
        assert volumes[name].volume_ml is None and volumes[name].reason
    whole = region_volumes(toy()[3], toy()[2])
    for name in ("head", "neck", "trochanteric", "intertrochanteric"):
        assert volumes[name].volume_ml == pytest.approx(whole[name].volume_ml, rel=0.02), name
    assert not np.isin(regions.voxels, [REGIONS["shaft"], REGIONS["distal"]]).any()


def test_a_femur_without_a_hip_has_its_distal_volume_alone():
    _, _, landmarks, regions = toy(upper_mm=230.0)
    volumes = region_volumes(regions, landmarks)
    whole = region_volumes(toy()[3], toy()[2])
    assert volumes["distal"].volume_ml == pytest.approx(whole["distal"].volume_ml, rel=0.02)
    assert all(v.volume_ml is None and v.reason for name, v in volumes.items() if name != "distal")
