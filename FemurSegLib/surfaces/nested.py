"""The outer and the inner surface of the cortex: two closed surfaces, one inside the other, for finite elements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkFiltersCore import vtkImplicitPolyDataDistance

from FemurSegLib.errors import InputError
from FemurSegLib.segmentation.cleanup import largest
from FemurSegLib.surface import bounds, points_of, surface_of
from FemurSegLib.surfaces.field import signed_distance

if TYPE_CHECKING:
    from FemurSegLib.grid import Grid

GAP_MM = 0.5
"""The least distance of the two surfaces: a mesher needs room, and no cortex of a femur is thinner for long."""
PUSHES = 4


def nested_surfaces(
    whole: np.ndarray, inside: np.ndarray, grid: Grid, *, gap_mm: float = GAP_MM, **options
) -> tuple[vtkPolyData, vtkPolyData]:
    """(periosteal, endosteal) surface of one femur, LPS mm, the second nowhere nearer than `gap_mm` to the first.

    whole: bool (k, j, i), the solid bone; inside: bool, what lies within the cortex, of which the largest piece
    counts. options: those of surface_of. Where the mask leaves less cortex than the gap, or none, as at a cut end,
    the inner surface gives way. Raises InputError where nothing is inside.
    """
    outer = surface_of(whole.view(np.uint8), grid, 1, **options)
    box = bounds(whole.view(np.uint8), 1)
    if box is None:
        raise InputError("There is no bone in this mask.")
    spacing = np.array(grid.spacing_mm[::-1])
    bone = np.pad(whole[box], 2)
    depth = signed_distance(bone, spacing, gap_mm + float(spacing.max()))[2:-2, 2:-2, 2:-2]
    core = np.zeros_like(whole)
    core[box] = inside[box] & (depth >= gap_mm)
    if not core.any():
        raise InputError("Nothing lies inside the cortex of this mask.", "Give the mask of the inside of the bone.")
    core[box] = largest(core[box])
    inner = surface_of(core.view(np.uint8), grid, 1, **options)
    _keep_inside(inner, outer, gap_mm)
    return outer, inner


def clearance_mm(inner: vtkPolyData, outer: vtkPolyData) -> np.ndarray:
    """(n,): how deep each point of `inner` lies below the surface `outer`; negative outside of it."""
    return -_distance(outer)[0](points_of(inner).astype(float))


def _distance(surface: vtkPolyData):
    """Functions of points (n, 3): signed distance to a surface, positive outside, and its gradient."""
    implicit = vtkImplicitPolyDataDistance()
    implicit.SetInput(surface)

    def value(points):
        out = numpy_to_vtk(np.zeros(len(points)), deep=True)
        implicit.FunctionValue(numpy_to_vtk(np.ascontiguousarray(points), deep=True), out)
        return vtk_to_numpy(out).copy()

    def gradient(points):
        out = np.zeros((len(points), 3))
        for at, point in enumerate(points):
            implicit.FunctionGradient(point, out[at])
        return out

    return value, gradient


def _keep_inside(inner: vtkPolyData, outer: vtkPolyData, gap_mm: float) -> None:
    """Moves the points of `inner` that come too near to `outer` away from it."""
    value, gradient = _distance(outer)
    points = points_of(inner).astype(float)
    for _ in range(PUSHES):
        distance = value(points)
        near = np.flatnonzero(distance > -gap_mm)
        if not len(near):
            break
        points[near] -= gradient(points[near]) * (distance[near] + 1.02 * gap_mm)[:, None]
    inner.GetPoints().SetData(numpy_to_vtk(points.astype(np.float32), deep=True))
