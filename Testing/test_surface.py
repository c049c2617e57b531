"""Surfaces against bodies whose volume and place are known."""

from __future__ import annotations

import numpy as np
import pytest
from examples import RADII_MM, ellipsoid, mesh_of, oblique_grid, rasterized
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkFiltersCore import vtkFeatureEdges, vtkImplicitPolyDataDistance
from vtkmodules.vtkIOGeometry import vtkSTLReader

from FemurSegLib import surface
from FemurSegLib.errors import InputError
from FemurSegLib.grid import Grid
from FemurSegLib.surfaces.quality import quality

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


def tilted(spacing_mm, degrees: float = 25.0) -> Grid:
    """A grid around CENTER whose slices lie across an axis turned away from the patient's."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    direction = np.array(((1, 0, 0), (0, c, -s), (0, s, c))) @ np.array(((c, 0, s), (0, 1, 0), (-s, 0, c)))
    shape = tuple(int(np.ceil(120 / mm)) for mm in spacing_mm[::-1])
    half = direction @ (np.array(spacing_mm) * (np.array(shape[::-1]) - 1) / 2)
    return Grid(shape, spacing_mm, np.array(CENTER) - half + (0.2, 0.3, 0.1), direction)


def off_by_degrees(shape) -> np.ndarray:
    """Angle between the triangles and the ellipsoid's own surface there, repeated by area in hundredths of mm2."""
    corners = surface.points_of(shape).astype(float)[surface.triangles_of(shape)]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(across, axis=1)
    exact = (corners.mean(axis=1) - CENTER) / np.square(RADII_MM)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    angle = np.degrees(np.arccos(np.clip(np.einsum("ni,ni->n", across / area[:, None], exact), -1, 1)))
    return np.repeat(angle, np.ceil(50 * area).astype(int))


def test_an_ellipsoid_has_its_volume_place_and_outward_closed_surface_on_any_grid(grid):
    labels = ellipsoid(grid, CENTER, RADII_MM).astype(np.uint8)
    shape = surface.surface_of(labels, grid, 1)
    worth = quality(shape)
    assert worth.closed and worth.pieces == 1 and worth.handles == 0
    assert signed_volume(shape) == pytest.approx(labels.sum() * np.prod(grid.spacing_mm), rel=0.0005)
    assert signed_volume(shape) == pytest.approx(worth.volume_mm3, rel=1e-6)
    points = surface.points_of(shape)
    np.testing.assert_allclose((points.min(axis=0) + points.max(axis=0)) / 2, CENTER, atol=0.3)
    radius = np.linalg.norm((points - CENTER) / RADII_MM, axis=1)
    assert abs(radius - 1).max() < 0.03
    assert np.quantile(off_by_degrees(shape), 0.95) < 7


@pytest.mark.parametrize("slice_mm", [3.0, 5.0])
def test_thick_slices_leave_no_steps(slice_mm):
    grid = tilted((1.0, 1.0, slice_mm))
    labels = ellipsoid(grid, CENTER, RADII_MM).astype(np.uint8)
    angle, error_mm = {}, {}
    for between in ("spline", "linear", "none"):
        shape = surface.surface_of(labels, grid, 1, between_slices=between)
        assert signed_volume(shape) == pytest.approx(labels.sum() * slice_mm, rel=0.0005)
        assert loose_edges(shape) == 0
        angle[between] = np.quantile(off_by_degrees(shape), 0.95)
        radius = np.linalg.norm((surface.points_of(shape) - CENTER) / RADII_MM, axis=1)
        error_mm[between] = abs(radius - 1).mean() * RADII_MM[0]
    assert error_mm["spline"] < 0.6 * error_mm["none"]
    assert error_mm["spline"] < 1.03 * error_mm["linear"], "they are equally good on a body so smooth"
    assert angle["spline"] < 8 < 10 < angle["none"], "steps turn the surface from its true direction"


def test_between_slices_of_5_mm_a_spline_is_nearer_to_a_femur_than_lines_or_nothing(shared_data):
    with np.load(shared_data / "shapes" / "vsd" / "z035.npz") as shapes:
        points, faces = shapes["right_femur_vertices"] * (-1, -1, 1), shapes["right_femur_faces"]
    labels, grid = rasterized(points, faces, (1.0, 1.0, 5.0))
    truth = vtkImplicitPolyDataDistance()
    truth.SetInput(mesh_of(points, faces))
    error_mm = {}
    for between in ("spline", "linear", "none"):
        at = surface.points_of(surface.surface_of(labels, grid, 1, between_slices=between)).astype(float)
        out = numpy_to_vtk(np.zeros(len(at[::5])), deep=True)
        truth.FunctionValue(numpy_to_vtk(np.ascontiguousarray(at[::5]), deep=True), out)
        error_mm[between] = np.abs(vtk_to_numpy(out)).mean()
    assert error_mm["spline"] < 0.96 * error_mm["linear"] and error_mm["linear"] < 0.8 * error_mm["none"]
    assert error_mm["spline"] < 0.15


@pytest.mark.parametrize("edge_mm", [0.8, 1.5, 3.0])
def test_edges_are_as_long_as_asked(edge_mm):
    grid = oblique_grid()
    labels = ellipsoid(grid, CENTER, RADII_MM).astype(np.uint8)
    worth = quality(surface.surface_of(labels, grid, 1, edge_length_mm=edge_mm))
    assert worth.edge_mm == pytest.approx(edge_mm, rel=0.05)
    assert worth.edge_p05_mm > 0.55 * edge_mm and worth.edge_p95_mm < 1.5 * edge_mm
    assert worth.shape_p05 > 0.6
    assert worth.closed and worth.volume_mm3 == pytest.approx(labels.sum() * np.prod(grid.spacing_mm), rel=0.0005)


def test_edges_that_would_not_fit_into_memory_are_refused():
    grid = Grid((400, 400, 400), (1, 1, 1), (0, 0, 0), np.eye(3))
    with pytest.raises(InputError, match="too short"):
        surface.surface_of(np.ones(grid.shape, np.uint8), grid, 1, edge_length_mm=0.2)


def test_without_smoothing_the_steps_of_the_voxels_stay():
    grid = tilted((1.0, 1.0, 1.0))
    labels = ellipsoid(grid, CENTER, RADII_MM).astype(np.uint8)
    rough, smooth = (
        np.mean(off_by_degrees(surface.surface_of(labels, grid, 1, smoothing=amount))) for amount in (0.0, 1.0)
    )
    assert rough > 3 * smooth


def test_even_one_voxel_has_a_closed_surface_of_its_volume():
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[2, 2, 2] = 1
    shape = surface.surface_of(labels, Grid(labels.shape, (1, 1, 2), (0, 0, 0), np.eye(3)), 1)
    assert loose_edges(shape) == 0 and signed_volume(shape) == pytest.approx(2, rel=0.02)


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
    assert signed_volume(shape) == pytest.approx(labels.sum(), rel=0.0005)
    ends = surface.points_of(shape)[:, 2]
    assert (ends.min(), ends.max()) == pytest.approx((-0.5, 19.5), abs=1e-3)
    corners = surface.points_of(shape)[surface.triangles_of(shape)]
    flat = (np.ptp(corners[..., 2], axis=1) < 1e-3) & (abs(corners[:, 0, 2] + 0.5) < 1e-3)
    area = np.linalg.norm(np.cross(*(corners[flat][:, n] - corners[flat][:, 0] for n in (1, 2))), axis=1).sum() / 2
    assert area > (14 - 2 * 1.5) ** 2, "all but the rim, an edge wide, is flat"


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
