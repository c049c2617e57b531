"""Bones that go on beyond their box; the network is stood in for by a threshold on the CT's own voxels."""

from __future__ import annotations

import numpy as np
import pytest

from FemurSegLib.grid import Grid
from FemurSegLib.segmentation.reach import beyond
from FemurSegLib.volume import Volume

SHAPE = (100, 80, 60)
SPACING_MM = (2.0, 2.0, 3.0)
"""Along i, j, k."""


def ct_with(*bones) -> Volume:
    """Bone in each of some boxes, ((first, last) along k, j, i)."""
    hu = np.full(SHAPE, -1000, np.int16)
    for bone in bones:
        hu[tuple(slice(*ends) for ends in bone)] = 1000
    return Volume(hu, Grid(SHAPE, SPACING_MM, (0.0, 0.0, 0.0), np.eye(3)))


class Network:
    """Counts what it is given."""

    def __init__(self):
        self.voxels = 0

    def __call__(self, crop: Volume) -> np.ndarray:
        self.voxels += crop.voxels.size
        coarse = crop.voxels[:, :, ::2] > 200  # another grid than that of the CT
        return coarse.astype(np.float32)


def widened(ct, lower, upper, margin_mm=6.0):
    network = Network()
    mask = ct.crop(lower, upper).voxels > 200
    low, high, endless = beyond(ct, mask, lower, upper, network, margin_mm)
    return low.tolist(), high.tolist(), endless, network.voxels


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("end", (0, 1))
def test_a_box_is_moved_to_where_the_bone_ends(axis, end):
    bone = [(40, 52), (30, 46), (20, 36)]
    lower, upper = [36, 26, 16], [56, 50, 40]
    (upper if end == 0 else lower)[axis] = bone[axis][1 - end] + (4 if end == 0 else -4)
    cut = 8
    (lower if end == 0 else upper)[axis] = bone[axis][end] + (cut if end == 0 else -cut)
    low, high, endless, _ = widened(ct_with(bone), tuple(lower), tuple(upper))
    margin = round(6.0 / SPACING_MM[2 - axis])
    wanted_low, wanted_high = list(lower), list(upper)
    (wanted_low if end == 0 else wanted_high)[axis] = bone[axis][end] + (-margin if end == 0 else margin)
    assert not endless
    assert low[axis] == pytest.approx(wanted_low[axis], abs=1) and high[axis] == pytest.approx(
        wanted_high[axis], abs=1
    )
    assert low[axis] <= wanted_low[axis] and high[axis] >= wanted_high[axis], "nothing of the margin is lost"


def test_a_box_grows_beside_its_face_too_where_the_bone_beyond_it_is_wider():
    shaft, condyles = ((14, 60), (30, 40), (24, 32)), ((60, 66), (22, 48), (16, 40))
    low, high, endless, _ = widened(ct_with(shaft, condyles), (20, 28, 22), (58, 42, 34))
    assert not endless
    assert high[0] == 68 and low[1] <= 19 and high[1] >= 51 and low[2] <= 14 and high[2] >= 42
    assert low[0] == 14 - 2


def test_the_bent_end_of_a_long_bone_is_followed_forwards_without_looking_at_all_of_it_again():
    bones = ((8, 92), (56, 70), (22, 34)), ((8, 20), (6, 58), (18, 38))
    lower, upper = (5, 50, 14), (95, 76, 42)
    low, high, endless, looked_at = widened(ct_with(*bones), lower, upper)
    assert not endless and low[1] == 6 - 3 and high == list(upper)
    assert looked_at < np.prod(np.subtract(high, low))


def test_a_bone_that_goes_on_out_of_reach_leaves_the_box_where_it_is_and_is_told():
    low, high, endless, _ = widened(ct_with(((5, 95), (30, 40), (24, 32))), (40, 26, 20), (60, 44, 36))
    assert endless and (low, high) == ([40, 26, 20], [60, 44, 36])


def test_what_ends_with_the_scan_or_with_the_box_is_not_followed():
    ends_here = widened(ct_with(((0, 60), (30, 40), (24, 32))), (0, 26, 20), (60, 44, 36))
    assert ends_here[:3] == ([0, 26, 20], [60, 44, 36], False)
    low, high, endless, looked_at = widened(ct_with(((0, 70), (30, 40), (24, 32))), (10, 26, 20), (75, 44, 36))
    assert (low, high, endless) == ([0, 26, 20], [75, 44, 36], False) and looked_at > 0


def test_another_bone_near_by_does_not_widen_the_box():
    femur, tibia = ((30, 60), (30, 40), (24, 32)), ((64, 90), (30, 40), (24, 32))
    low, high, endless, _ = widened(ct_with(femur, tibia), (28, 26, 20), (50, 44, 36))
    assert (low, high, endless) == ([28, 26, 20], [62, 44, 36], False)
