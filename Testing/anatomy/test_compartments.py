"""Compartments of tubes whose walls are known, with a network that tells marrow from cortex by its HU alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from FemurSegLib.anatomy.compartment_pictures import draw_compartments
from FemurSegLib.anatomy.compartments import COMPARTMENT_LABELS, find_compartments, load_network, otsu
from FemurSegLib.anatomy.density import Calibration
from FemurSegLib.anatomy.thickness import paint_thickness
from FemurSegLib.errors import InputError, ModelError, NoFemurError
from FemurSegLib.grid import Grid
from FemurSegLib.segmentation.compartment_network import WINDOW_HU
from FemurSegLib.sides import LABELS, LEFT, RIGHT
from FemurSegLib.surface import surface_of
from FemurSegLib.volume import Volume

CORTEX_HU, MARROW_HU, MUSCLE_HU = 1200, -60, 50
OUTER_MM, INNER_MM, LENGTH_MM = 14.0, 8.0, 48.0


class ByBrightness(torch.nn.Module):
    """Stands in for the trained network: a logit that is 0 halfway between marrow and cortex."""

    def forward(self, x):
        low, high = WINDOW_HU
        hu = x[:, :1] * (high - low) + low
        return ((CORTEX_HU + MARROW_HU) / 2 - hu) / 100


def tubes(spacing=(1.0, 1.0, 1.0), direction=None, sides=(RIGHT, LEFT)):
    """CT (HU with partial volume), labels and grid of upright tubes 60 mm apart."""
    direction = np.eye(3) if direction is None else direction
    center = np.array([5.0, -20.0, 40.0])
    extent = np.abs(direction.T) @ [110.0, 50.0, LENGTH_MM + 20]
    size = np.ceil(extent / spacing).astype(int)
    grid = Grid(tuple(size[::-1]), spacing, (0, 0, 0), direction)
    origin = center - grid.lps((size - 1) / 2)
    grid = Grid(grid.shape, spacing, tuple(origin), direction)
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    points = grid.lps(np.stack([i, j, k], -1)) - center
    hu, labels = np.full(grid.shape, float(MUSCLE_HU)), np.zeros(grid.shape, np.uint8)
    for side in sides:
        x = points[..., 0] - (30 if side == LEFT else -30)
        radius = np.hypot(x, points[..., 1])
        ends = np.abs(points[..., 2]) - LENGTH_MM / 2
        outside, inside = np.maximum(radius - OUTER_MM, ends), np.maximum(radius - INNER_MM, ends + 4)
        voxel = max(spacing)
        bone, core = ((0.5 - d / voxel).clip(0, 1) for d in (outside, inside))
        hu = hu * (1 - bone) + CORTEX_HU * (bone - core) + MARROW_HU * core
        labels[outside < 0] = LABELS[side]
    return np.rint(hu).astype(np.int16), labels, grid


INSIDE_ML = np.pi * INNER_MM**2 * (LENGTH_MM - 8) / 1000
WHOLE_ML = np.pi * OUTER_MM**2 * LENGTH_MM / 1000


def find(ct, labels, grid, **options):
    return find_compartments(ct, labels, grid, device="cpu", network=ByBrightness(), **options)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 1.25), (1.2, 1.2, 2.4)])
def test_volumes_are_those_of_the_tubes(spacing):
    found = find(*tubes(spacing))
    assert set(found.femurs) == {RIGHT, LEFT}
    for femur in found.femurs.values():
        assert femur.contents["inside"].volume_ml == pytest.approx(INSIDE_ML, rel=0.06)
        assert femur.contents["cortical"].volume_ml == pytest.approx(WHOLE_ML - INSIDE_ML, rel=0.06)
        assert femur.contents["whole"].volume_ml == pytest.approx(WHOLE_ML, rel=0.03)


def test_the_labelmap_is_the_mask_parted_in_two():
    ct, labels, grid = tubes()
    found = find(ct, labels, grid)
    for side in (RIGHT, LEFT):
        own = np.isin(found.labels, [COMPARTMENT_LABELS[side, part] for part in ("cortical", "inside")])
        assert np.array_equal(own, labels == LABELS[side])
    assert np.array_equal(found.labels > 0, labels > 0)
    assert ct[found.labels == COMPARTMENT_LABELS[LEFT, "inside"]].max() < ct[labels == 2].max()


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
def test_the_axes_of_the_scan_do_not_matter(order, signs):
    direction = np.eye(3)[:, list(order)] * signs
    ct, labels, grid = tubes(direction=direction)
    found = find(ct, labels, grid)
    assert found.labels.shape == ct.shape
    for side in (RIGHT, LEFT):
        inside = found.labels == COMPARTMENT_LABELS[side, "inside"]
        assert ct[inside].mean() < 100 and labels[inside].min() == labels[inside].max() == LABELS[side]
        assert found.femurs[side].contents["inside"].volume_ml == pytest.approx(INSIDE_ML, rel=0.04)


def test_hounsfield_units_and_densities_are_means_over_each_compartment():
    ct, labels, grid = tubes(sides=(LEFT,))
    found = find(ct, labels, grid, calibration=Calibration(0.8, 10.0))
    assert list(found.femurs) == [LEFT]
    contents = found.femurs[LEFT].contents
    for part in ("cortical", "inside"):
        mean = ct[found.labels == COMPARTMENT_LABELS[LEFT, part]].mean()
        assert contents[part].mean_hu == pytest.approx(mean)
        assert contents[part].density_mg_cm3 == pytest.approx(0.8 * mean + 10)
    told = found.femurs[LEFT].as_dict()
    assert told["compartments"]["cortical"]["density_mg_cm3"] == round(contents["cortical"].density_mg_cm3, 1)
    assert told["calibration"]["slope_mg_cm3_per_hu"] == 0.8
    assert find(ct, labels, grid).femurs[LEFT].contents["cortical"].density_mg_cm3 is None


def test_the_endosteal_surface_lies_at_one_half_or_where_otsu_parts_the_probability():
    half, otsus = (find(*tubes(sides=(LEFT,)), **how).femurs[LEFT] for how in ({}, {"at": "otsu"}))
    assert half.level == 0.5
    assert otsus.level == otsu(otsus.probability[otsus.probability > 0]) != 0.5


def test_the_classical_threshold_finds_clean_tubes_without_any_weights():
    found = find_compartments(*tubes(), method="threshold")
    for femur in found.femurs.values():
        assert femur.method == "threshold"
        assert femur.contents["inside"].volume_ml == pytest.approx(INSIDE_ML, rel=0.1)


def test_dense_islands_in_the_canal_are_inside():
    ct, labels, grid = tubes(sides=(LEFT,))
    i, j, k = np.rint(grid.ijk(np.array([35.0, -20.0, 40.0]))).astype(int)
    ct[k - 2 : k + 3, j - 2 : j + 3, i - 2 : i + 3] = CORTEX_HU
    for options in ({"network": ByBrightness()}, {"method": "threshold"}):
        found = find_compartments(ct, labels, grid, device="cpu", **options)
        assert found.labels[k, j, i] == COMPARTMENT_LABELS[LEFT, "inside"]


def test_a_pore_in_the_cortex_belongs_to_the_cortex_and_does_not_thin_it():
    ct, labels, grid = tubes(sides=(LEFT,))
    i, j, k = np.rint(grid.ijk(np.array([35.0 - 11.0, -20.0, 40.0]))).astype(int)
    assert labels[k, j, i] == LABELS[LEFT]
    ct[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2] = MARROW_HU  # 27 mm3
    found = find(ct, labels, grid)
    assert found.labels[k, j, i] == COMPARTMENT_LABELS[LEFT, "cortical"]
    thickness = paint_thickness(surface_of(labels, grid, LABELS[LEFT]), found.femurs[LEFT])
    ct[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2] = CORTEX_HU
    whole = find(ct, labels, grid).femurs[LEFT]
    solid = paint_thickness(surface_of(labels, grid, LABELS[LEFT]), whole)
    assert np.nanmax(np.abs(thickness.values_mm - solid.values_mm)) < 0.5
    assert solid.median_mm == pytest.approx(OUTER_MM - INNER_MM, abs=0.3)


def test_progress_rises_to_the_end():
    told = []
    find(*tubes(), on_progress=told.append)
    assert told == sorted(told) and told[-1] == 1.0 and len(told) > 2


def test_thick_slices_and_metal_are_told():
    ct, labels, grid = tubes((1.0, 1.0, 4.0))
    assert {f.code for f in find(ct, labels, grid).findings} == {"compartments_coarse"}
    ct, labels, grid = tubes()
    assert not find(ct, labels, grid).findings
    ct[30:40][labels[30:40] == LABELS[LEFT]] = 3000
    found = find(ct, labels, grid).findings
    assert [(f.code, f.side) for f in found] == [("compartments_metal", LEFT)]


def test_what_does_not_fit_is_refused():
    ct, labels, grid = tubes(sides=(LEFT,))
    with pytest.raises(InputError):
        find(ct[1:], labels, grid)
    with pytest.raises(InputError):
        find(ct, labels, grid, method="magic")
    with pytest.raises(NoFemurError):
        find(ct, np.zeros_like(labels), grid)


def test_otsu_parts_two_heaps_between_them():
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(0.1, 0.03, 3000), rng.normal(0.9, 0.03, 1000)]
    assert otsu(values) == pytest.approx(0.5, abs=0.06)
    assert otsu(np.full((3, 4), 7.0)) == pytest.approx(7.0, abs=0.01)
    near = np.r_[rng.normal(0, 1, 20000), rng.normal(3, 1, 20000)]  # equal heaps: the threshold is halfway
    assert otsu(near) == pytest.approx(1.5, abs=0.05)


@pytest.fixture(scope="module")
def shipped():
    try:
        return load_network()
    except ModelError:
        pytest.skip("Resources/Models lacks the weights of the compartments")


def test_the_weights_that_are_shipped_find_the_wall_of_a_tube(shipped):
    ct, labels, grid = tubes(sides=(LEFT,))
    femur = find_compartments(ct, labels, grid, device="cpu", network=shipped).femurs[LEFT]
    middle = np.abs(grid.lps(np.c_[np.zeros((len(ct), 2)), np.arange(len(ct))])[:, 2] - 40.0) < 14
    surface = surface_of(labels * middle[:, None, None], grid, LABELS[LEFT])
    assert paint_thickness(surface, femur).median_mm == pytest.approx(OUTER_MM - INNER_MM, abs=0.4)


def test_pictures_of_every_femur_are_drawn(shipped, tmp_path):
    ct, labels, grid = tubes((1.5, 1.5, 2.0))
    paths = list(draw_compartments(Volume(ct, grid), Volume(labels, grid), tmp_path))
    assert len(paths) == 4
    for path in paths:
        assert Image.open(path).convert("L").getextrema()[1] > 200
