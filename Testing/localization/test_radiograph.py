"""Radiographs against bodies whose line integrals are known, and their coordinates against bright voxels."""

from __future__ import annotations

import tracemalloc
from itertools import permutations, product

import numpy as np
import pytest

from FemurSegLib.localization import radiograph
from FemurSegLib.localization.radiograph import (
    BONE_HU,
    MU_WATER,
    axial_radiograph,
    coronal_radiograph,
    line_integrals,
    make_radiographs,
)
from FemurSegLib.volume import Grid, Volume

LAYOUTS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


def volume_of(voxels, spacing_mm=(1.0, 1.0, 1.0)) -> Volume:
    return Volume(voxels, Grid(voxels.shape, spacing_mm, (0, 0, 0), np.eye(3)))


def air(shape) -> np.ndarray:
    return np.full(shape, -1000, np.int16)


def test_the_paper_s_threshold_of_0_3_is_80_hu():
    assert radiograph.BONE_THRESHOLD == 0.3
    assert BONE_HU == 80


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_box_attenuates_by_its_length_times_mu(axis):
    voxels = air((17, 21, 33))
    voxels[3:14, 5:18, 4:29] = 500
    length_mm = (11, 13, 25)[axis] * 0.7
    integrals = line_integrals(voxels, axis, 0.7)
    middle = integrals.attenuation.shape[0] // 2, integrals.attenuation.shape[1] // 2
    assert integrals.attenuation[middle] == pytest.approx(length_mm * MU_WATER * 1.5, rel=1e-6)
    assert integrals.bone[middle] == pytest.approx(length_mm * MU_WATER * (500 - BONE_HU) / 1000, rel=1e-6)
    assert integrals.peak_hu[middle] == 500
    assert integrals.attenuation[0, 0] == integrals.bone[0, 0] == 0
    assert integrals.depth_mm == pytest.approx(voxels.shape[axis] * 0.7)


@pytest.mark.parametrize("spacing_mm", [(0.5, 0.5, 0.5), (0.4, 0.6, 1.1)])
def test_rays_through_an_ellipsoid_of_water_meet_its_chord(spacing_mm):
    half = np.array((24.0, 30.0, 36.0))  # mm along i, j, k
    size = np.ceil((2 * half + 6) / spacing_mm).astype(int)
    i, j, k = ((np.arange(n) - (n - 1) / 2) * s / h for n, s, h in zip(size, spacing_mm, half, strict=True))
    inside = i**2 + j[:, None] ** 2 + k[:, None, None] ** 2 <= 1
    voxels = np.where(inside, 0, -1000).astype(np.int16)

    attenuation = line_integrals(voxels, 1, spacing_mm[1]).attenuation
    chord = 2 * half[1] * np.sqrt(np.maximum(0, 1 - i**2 - k[:, None] ** 2))
    assert np.abs(attenuation / MU_WATER - chord).max() <= spacing_mm[1]  # half a voxel at each end
    volume_mm3 = attenuation.sum() / MU_WATER * spacing_mm[0] * spacing_mm[2]
    assert volume_mm3 == pytest.approx(4 / 3 * np.pi * half.prod(), rel=2e-3)


@pytest.mark.parametrize(("order", "flips"), LAYOUTS)
def test_any_memory_layout_gives_the_plain_sums(order, flips):
    stored = np.random.default_rng(3).integers(-3024, 6000, (11, 18, 21)).astype(np.int16)
    view = stored.transpose(order)[tuple(slice(None, None, step) for step in flips)][1:, :, 2:]
    held = np.clip(view.astype(float), -1000, 3071)
    for axis in range(3):
        integrals = line_integrals(view, axis, 0.8)
        expected = ((held + 1000) * MU_WATER / 1000 * 0.8).sum(axis)
        np.testing.assert_allclose(integrals.attenuation, expected, rtol=1e-6)
        expected = (np.clip(held - 80, 0, 1420) * MU_WATER / 1000 * 0.8).sum(axis)
        np.testing.assert_allclose(integrals.bone, expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(integrals.peak_hu, held.max(axis))


def test_long_rays_of_metal_are_added_without_overflow():
    integrals = line_integrals(np.full((1800, 2, 3), 32767, np.int16), 0, 1.0)
    np.testing.assert_allclose(integrals.attenuation, 1800 * MU_WATER * 4.071, rtol=1e-6)


def test_padding_outside_the_field_of_view_is_air():
    for padding in (-1024, -2000, -3024, -32768):
        assert not line_integrals(np.full((4, 5, 6), padding, np.int16), 1, 1.0).attenuation.any()


@pytest.mark.parametrize("voxels", [np.zeros((4, 5, 6), np.float32), np.zeros((0, 5, 6), np.int16)])
def test_only_int16_volumes_with_voxels_are_taken(voxels):
    with pytest.raises(ValueError, match="int16"):
        line_integrals(voxels, 0, 1.0)


def test_a_radiograph_is_read_with_the_patient_s_right_at_the_left_edge_and_the_head_or_the_front_up():
    voxels = air((40, 30, 50))
    voxels[30:38, 3:8, 5:12] = 900  # superior, anterior, right
    coronal, axial = make_radiographs(volume_of(voxels))
    for picture in (coronal, axial):
        rows, columns = np.nonzero(picture.image[..., 1] > 50)
        assert rows.max() < picture.image.shape[0] / 2
        assert columns.max() < picture.image.shape[1] / 2


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (0.8, 0.8, 3.27), (0.5, 0.7, 0.75), (3, 2, 6), (1, 1, 22)])
def test_the_box_of_a_bright_block_leads_back_to_its_voxels(spacing_mm):
    voxels = air((60, 50, 70))
    block = {"k": (20, 41), "j": (11, 30), "i": (15, 37)}  # first and last voxel
    voxels[20:42, 11:31, 15:38] = 1000
    edges = {axis: (first - 0.5, last + 0.5) for axis, (first, last) in block.items()}
    for picture in make_radiographs(volume_of(voxels, spacing_mm)):
        x0, y0, x1, y1 = box = picture.voxels_to_box(edges)
        rows, columns = np.nonzero(picture.image[..., 2] > picture.image[..., 2].max() / 2)
        assert (columns.min(), rows.min()) == pytest.approx((x0, y0), abs=0.6 * spacing_ratio(picture, spacing_mm))
        assert (columns.max() + 1, rows.max() + 1) == pytest.approx(
            (x1, y1), abs=0.6 * spacing_ratio(picture, spacing_mm)
        )
        back = picture.box_to_voxels(box)
        assert set(back) == {"i", "k" if picture.view == "coronal" else "j"}
        for axis, pair in back.items():
            assert pair == pytest.approx(edges[axis], abs=1e-9)


def spacing_ratio(picture, spacing_mm) -> float:
    """Pixels in the largest voxel, at least one: an edge is as sharp as the coarser of the two."""
    return max(1.0, max(spacing_mm) / min(picture.pixel_mm))


def test_the_whole_picture_is_the_whole_volume():
    for picture in make_radiographs(volume_of(air((7, 33, 41)), (0.9, 0.8, 5.0))):
        rows, columns = picture.image.shape[:2]
        edges = picture.box_to_voxels((0, 0, columns, rows))
        size = {"i": 41, "j": 33, "k": 7}
        for axis, (low, high) in edges.items():
            assert (low, high) == pytest.approx((-0.5, size[axis] - 0.5))


def test_the_centre_of_a_pixel_lies_in_the_middle_of_the_depth():
    coronal, axial = make_radiographs(volume_of(air((8, 6, 4)), (1.0, 1.0, 1.0)))
    assert coronal.pixel_to_ijk(0.5, 0.5) == pytest.approx((0, 2.5, 7))
    assert axial.pixel_to_ijk(0.5, 0.5) == pytest.approx((0, 0, 3.5))


def test_pixels_are_square_and_the_picture_is_at_most_640_long():
    coronal = coronal_radiograph(volume_of(air((300, 4, 100)), (4.0, 1.0, 6.0)))
    assert coronal.image.shape == (640, 142, 3)
    assert coronal.pixel_mm == pytest.approx((2.8125, 2.8125), rel=0.01)
    small = axial_radiograph(volume_of(air((3, 80, 100)), (0.5, 0.5, 3.0)))
    assert small.image.shape == (40, 50, 3)
    assert small.pixel_mm == (1.0, 1.0)


def test_axial_rays_can_be_limited_to_some_slices():
    voxels = air((40, 30, 30))
    voxels[2:6, 10:20, 10:20] = 1000  # a foot, far below
    voxels[30:36, 12:18, 12:18] = 700
    volume = volume_of(voxels)
    part = axial_radiograph(volume, (25, 99))
    assert part.ray == (25, 40)
    assert part.grid is volume.grid
    alone = axial_radiograph(volume_of(voxels[25:].copy()))
    np.testing.assert_array_equal(part.image, alone.image)
    assert not np.array_equal(part.image, axial_radiograph(volume).image)
    with pytest.raises(ValueError, match="no slice"):
        axial_radiograph(volume, (60, 70))


def test_noise_in_muscle_is_dark_beside_bone():
    rng = np.random.default_rng(5)
    voxels = (60 + 25 * rng.standard_normal((60, 120, 60))).astype(np.int16)
    voxels[20:40, 45:75, 20:40] = 350
    coronal, axial = make_radiographs(volume_of(voxels))
    assert coronal.image[30, 30, 1] > 4 * coronal.image[:15, :, 1].mean()
    assert axial.image[60, 30, 1] > 4 * axial.image[:40, :, 1].mean()


def test_the_same_body_looks_the_same_beside_metal():
    voxels = air((50, 40, 80))
    voxels[10:40, 10:30, 10:30] = 200
    plain = coronal_radiograph(volume_of(voxels)).image
    voxels[10:40, 10:30, 60:70] = 30000
    np.testing.assert_array_equal(coronal_radiograph(volume_of(voxels)).image[:, :40], plain[:, :40])


def test_the_volume_is_neither_changed_nor_copied():
    voxels = np.random.default_rng(1).integers(-1000, 1500, (64, 96, 96)).astype(np.int16)
    before = voxels.copy()
    voxels.flags.writeable = False
    tracemalloc.start()
    make_radiographs(volume_of(voxels))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(voxels, before)
    assert peak < voxels.nbytes
