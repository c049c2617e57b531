"""Thickness between shapes whose distance is known."""

from __future__ import annotations

import numpy as np
import pytest
from vtkmodules.util.numpy_support import vtk_to_numpy

from FemurSegLib.anatomy.compartments import FemurCompartments
from FemurSegLib.anatomy.thickness import DEEPEST_MM, THICKNESS_ARRAY, paint_thickness
from FemurSegLib.grid import Grid
from FemurSegLib.sides import LABELS, LEFT
from FemurSegLib.surface import surface_of

CENTER = np.array([3.0, -5.0, 11.0])


def shell(outer_mm: float, inner_mm: float, spacing=(1.0, 1.0, 1.0), half_mm=30.0, low_mm=-30.0, shift=0.0):
    """A ball with a ball-shaped canal as (surface, FemurCompartments); the field is a share of each voxel."""
    size = np.ceil([2 * half_mm / spacing[0], 2 * half_mm / spacing[1], (half_mm - low_mm) / spacing[2]]).astype(
        int
    )
    grid = Grid(tuple(size[::-1]), spacing, tuple(CENTER + (-half_mm, -half_mm, low_mm)), np.eye(3))
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    points = grid.lps(np.stack([i, j, k], -1)) - CENTER
    labels = np.where(np.linalg.norm(points, axis=-1) < outer_mm, LABELS[LEFT], 0).astype(np.uint8)
    depth = np.linalg.norm(points - (0, 0, shift), axis=-1) - inner_mm
    share = (0.5 - depth).clip(0, 1).astype(np.float32)
    return surface_of(labels, grid, LABELS[LEFT]), FemurCompartments(LEFT, "network", {}, share, grid, 0.5, grid)


@pytest.mark.parametrize("inner_mm", [20.0, 15.0, 23.2])
def test_the_shell_of_a_ball_is_as_thick_as_its_radii_differ(inner_mm):
    surface, femur = shell(24.0, inner_mm)
    found = paint_thickness(surface, femur)
    assert found.covered == 1.0
    assert found.mean_mm == pytest.approx(24.0 - inner_mm, abs=0.1)
    assert np.abs(found.values_mm - (24.0 - inner_mm)).max() < 0.75  # the surface's own staircase
    assert found.p05_mm <= found.median_mm <= found.p95_mm


def test_voxels_may_be_of_any_shape():
    surface, femur = shell(24.0, 20.0, spacing=(0.7, 0.9, 1.6))
    assert paint_thickness(surface, femur).mean_mm == pytest.approx(4.0, abs=0.12)


def test_a_canal_that_lies_higher_has_a_thin_roof_and_a_thick_floor():
    surface, femur = shell(24.0, 18.0, shift=4.0)
    values = paint_thickness(surface, femur).values_mm
    z = np.array([surface.GetPoint(n)[2] for n in range(surface.GetNumberOfPoints())]) - CENTER[2]
    assert np.nanmean(values[z > 23]) == pytest.approx(2.0, abs=0.4)
    assert np.nanmean(values[z < -23]) == pytest.approx(10.0, abs=0.4)


def test_the_numbers_are_painted_on_the_surface():
    surface, femur = shell(24.0, 20.0)
    found = paint_thickness(surface, femur)
    array = surface.GetPointData().GetArray(THICKNESS_ARRAY)
    assert np.array_equal(vtk_to_numpy(array), found.values_mm)
    assert found.as_dict()["mean_mm"] == round(found.mean_mm, 3)


def test_bone_without_a_canal_near_has_no_thickness():
    surface, femur = shell(24.0, 24.0 - DEEPEST_MM - 2)
    found = paint_thickness(surface, femur)
    assert found.covered == 0.0 and found.as_dict()["mean_mm"] is None


def test_the_flat_end_of_a_bone_that_the_scan_cuts_has_none():
    surface, femur = shell(24.0, 20.0, low_mm=-8.0)
    found = paint_thickness(surface, femur)
    z = np.array([surface.GetPoint(n)[2] for n in range(surface.GetNumberOfPoints())]) - CENTER[2]
    end = z < -8.2
    assert end.sum() > 100
    assert np.isnan(found.values_mm[end]).all()
    assert found.mean_mm == pytest.approx(4.0, abs=0.15)
