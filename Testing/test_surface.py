"""Surfaces against bodies whose volume and place are known."""

from __future__ import annotations

import numpy as np
import pytest
from examples import RADII_MM, ellipsoid, oblique_grid
from vtkmodules.vtkFiltersCore import vtkFeatureEdges
from vtkmodules.vtkIOGeometry import vtkSTLReader

from FemurSegLib import surface
from FemurSegLib.grid import Grid

CENTER = (-20.0, -110.0, 305.0)


def signed_volume(shape) -> float:
    """mm^3 by the divergence theorem; positive if the triangles face outward."""
    corners = surface.points_of(shape).astype(float)[surface.triangles_of(shape)]
    corners -= corners.mean(axis=(0, 1))
    return float(np.einsum("ni,ni->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)


def loose_edges(shape) -> int:
    """Edges that belong to one triangle, or to more than two."""
    edges = vtkFeatureEdges()
    edges.SetInputData(shape)
    edges.FeatureEdgesOff()
    edges.ManifoldEdgesOff()
    edges.BoundaryEdgesOn()
    edges.NonManifoldEdgesOn()
    edges.Update()
    return edges.GetOutput().GetNumberOfCells()


@pytest.fixture(params=[True, False], ids=["left-handed", "right-handed"])
def grid(request) -> Grid:
    return oblique_grid(left_handed=request.param)


def test_an_ellipsoid_has_its_volume_place_and_outward_closed_surface_on_any_grid(grid):
    labels = ellipsoid(grid, CENTER, RADII_MM).astype(np.uint8)
    shape = surface.surface_of(labels, grid, 1)
    assert loose_edges(shape) == 0
    assert signed_volume(shape) == pytest.approx(labels.sum() * np.prod(grid.spacing_mm), rel=0.02)
    assert signed_volume(shape) == pytest.approx(4 / 3 * np.pi * np.prod(RADII_MM), rel=0.02)
    points = surface.points_of(shape)
    np.testing.assert_allclose((points.min(axis=0) + points.max(axis=0)) / 2, CENTER, atol=0.7)
    radius = np.linalg.norm((points - CENTER) / RADII_MM, axis=1)
    assert abs(radius - 1).max() < 0.12


def test_a_view_with_steps_gives_the_same_surface_as_its_copy(grid):
    labels = ellipsoid(grid, CENTER, RADII_MM).astype(np.uint8)
    view = labels[::-1].transpose(0, 2, 1)
    other = Grid(view.shape, grid.spacing_mm, grid.origin_mm, grid.direction)
    of_view, of_copy = (surface.surface_of(array, other, 1) for array in (view, view.copy()))
    np.testing.assert_array_equal(surface.points_of(of_view), surface.points_of(of_copy))


def test_a_bone_cut_by_the_edge_of_the_volume_is_closed_there():
    grid = Grid((20, 30, 30), (1, 1, 1), (0, 0, 0), np.eye(3))
    labels = np.zeros(grid.shape, np.uint8)
    labels[:, 8:22, 8:22] = 1
    shape = surface.surface_of(labels, grid, 1)
    assert loose_edges(shape) == 0
    assert signed_volume(shape) == pytest.approx(labels.sum(), rel=0.02)
    ends = surface.points_of(shape)[:, 2]
    assert (ends.min(), ends.max()) == pytest.approx((-0.5, 19.5), abs=0.3)


def test_one_label_takes_nothing_of_the_other():
    grid = Grid((20, 20, 40), (1, 1, 1), (0, 0, 0), np.eye(3))
    labels = np.zeros(grid.shape, np.uint8)
    labels[5:15, 5:15, 5:20] = 1
    labels[5:15, 5:15, 20:35] = 2
    assert surface.points_of(surface.surface_of(labels, grid, 2))[:, 0].min() > 18.5


def test_an_absent_label_has_no_bounds_and_an_empty_surface():
    labels = np.zeros((5, 6, 7), np.uint8)
    assert surface.bounds(labels, 1) is None
    grid = Grid(labels.shape, (1, 1, 1), (0, 0, 0), np.eye(3))
    assert surface.surface_of(labels, grid, 1).GetNumberOfPoints() == 0


def test_bounds_hold_just_the_label():
    labels = np.zeros((9, 8, 7), np.uint8)
    labels[2:5, 3:8, 0] = 2
    labels[8, 0, 6] = 1
    assert surface.bounds(labels, 2) == (slice(2, 5), slice(3, 8), slice(0, 1))
    assert surface.bounds(labels.transpose(1, 2, 0)[:, ::-1], 2) == (slice(3, 8), slice(6, 7), slice(2, 5))


def test_length_is_that_along_the_long_axis_however_the_bone_lies(grid):
    labels = ellipsoid(grid, CENTER, RADII_MM).astype(np.uint8)
    assert surface.length_mm(surface.surface_of(labels, grid, 1)) == pytest.approx(2 * RADII_MM[2], abs=2)


def test_an_stl_read_by_vtk_is_the_same_surface_and_says_its_space(tmp_path, grid):
    shape = surface.surface_of(ellipsoid(grid, CENTER, RADII_MM).astype(np.uint8), grid, 1)
    path = tmp_path / "right_femur.stl"
    surface.write_stl(path, shape, "Right femur")
    reader = vtkSTLReader()
    reader.SetFileName(str(path))
    reader.Update()
    again = reader.GetOutput()
    assert again.GetNumberOfCells() == shape.GetNumberOfCells()
    assert loose_edges(again) == 0
    assert signed_volume(again) == pytest.approx(signed_volume(shape), rel=1e-5)
    assert again.GetBounds() == pytest.approx(shape.GetBounds(), abs=1e-4)
    header = path.read_bytes()[:80]
    assert b"SPACE=LPS" in header and not header.startswith(b"solid")
    assert path.stat().st_size == 84 + 50 * shape.GetNumberOfCells()


def test_normals_in_an_stl_agree_with_the_triangles(tmp_path):
    grid = Grid((12, 12, 12), (1, 1, 1), (0, 0, 0), np.eye(3))
    labels = ellipsoid(grid, (5.5, 5.5, 5.5), (4, 4, 4)).astype(np.uint8)
    surface.write_stl(tmp_path / "ball.stl", surface.surface_of(labels, grid, 1))
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    triangles = np.frombuffer((tmp_path / "ball.stl").read_bytes(), record, offset=84)
    outward = triangles["corners"].mean(axis=1) - 5.5
    assert (np.einsum("ni,ni->n", triangles["normal"], outward) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(triangles["normal"], axis=1), 1, atol=1e-4)
