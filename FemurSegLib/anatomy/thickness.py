"""Local thickness of the cortex, as numbers at the points of the periosteal surface.

The thickness at a point is the length of the straight line from it, along the inward normal, to the endosteal
surface. Treece et al. (Med Image Anal 14:276-290, 2010) measure clinical CT along the normal too. Normals are
averaged over a few millimetres of surface, against its staircase.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from FemurSegLib.errors import InputError
from FemurSegLib.grid import Grid
from FemurSegLib.surface import sums_at_points

from .bone import Bone

if TYPE_CHECKING:
    from pathlib import Path

    from vtkmodules.vtkCommonDataModel import vtkPolyData

    from .compartments import FemurCompartments

THICKNESS_ARRAY = "cortical_thickness_mm"
DEEPEST_MM = 16.0
"""Where the line meets no endosteal surface so far, as in a solid ridge, there is no thickness."""
STEP_MM = 0.25
THICKEST_MM, COLORS = 8.0, "viridis"
"""End of the scale wherever the thickness is painted, which begins at 0, and matplotlib's name of its colours."""


@dataclass(frozen=True)
class Thickness:
    """values_mm: (n,) float32 at the points of the surface; nan where there is none: where the line meets no
    endosteal surface within `DEEPEST_MM`, and at the flat ends of a bone that the scan cuts off."""

    values_mm: np.ndarray

    @property
    def covered(self) -> float:
        """Part of the points that have a value."""
        return float(np.isfinite(self.values_mm).mean()) if len(self.values_mm) else 0.0

    @property
    def mean_mm(self) -> float:
        return self._of(np.mean)

    @property
    def median_mm(self) -> float:
        return self._of(np.median)

    @property
    def p05_mm(self) -> float:
        return self._of(np.percentile, 5)

    @property
    def p95_mm(self) -> float:
        return self._of(np.percentile, 95)

    def part(self, which: np.ndarray) -> Thickness:
        """Of some of the points: `which` is bool (n,)."""
        return Thickness(self.values_mm[which])

    def as_dict(self) -> dict:
        """JSON-ready; numbers are None where nothing could be measured."""
        numbers = {n: getattr(self, n) for n in ("mean_mm", "median_mm", "p05_mm", "p95_mm")}
        rounded = {n: None if np.isnan(x) else round(x, 3) for n, x in numbers.items()}
        return rounded | {"covered": round(self.covered, 4)}

    def _of(self, function, *args) -> float:
        there = self.values_mm[np.isfinite(self.values_mm)]
        return float(function(there, *args)) if len(there) else float("nan")


def paint_thickness(surface: vtkPolyData, femur: FemurCompartments) -> Thickness:
    """Measures the cortex at every point of the periosteal surface (triangles, LPS mm), and adds the values to the
    surface as the point array `THICKNESS_ARRAY` (float32, nan where there are none)."""
    from vtkmodules.util.numpy_support import numpy_to_vtk

    bone = Bone.of_surface(surface, femur.side)
    values = along_normals(bone, femur.probability - np.float32(femur.level), femur.grid)
    values[_at_the_edge(bone.points_mm, femur.scan)] = np.nan
    array = numpy_to_vtk(values, deep=True)
    array.SetName(THICKNESS_ARRAY)
    surface.GetPointData().AddArray(array)
    return Thickness(values)


def read_painted(path: Path) -> vtkPolyData:
    """A surface as `paint_thickness` leaves it, from its file. Raises InputError where it is missing or damaged."""
    from FemurSegLib.surfaces.files import read_surface

    surface = read_surface(path)
    if not surface.GetPointData().HasArray(THICKNESS_ARRAY):
        words = f"{path.name} does not hold the thickness of the cortex, or is damaged."
        raise InputError(words, "Run the segmentation again.")
    return surface


def along_normals(bone: Bone, inside: np.ndarray, grid: Grid) -> np.ndarray:
    """(n,) float32: from each point of the bone inwards to where `inside`, (k, j, i) on `grid`, becomes positive.

    0 where it already is at the surface; nan where it is nowhere as far as `DEEPEST_MM`.
    """
    from scipy.ndimage import map_coordinates

    inward = -point_normals(bone)
    out = np.full(len(bone.points_mm), np.nan, np.float32)
    active, before = np.arange(len(out)), None
    for depth in np.arange(0, DEEPEST_MM + STEP_MM / 2, STEP_MM):
        points = bone.points_mm[active] + depth * inward[active]
        now = map_coordinates(inside, grid.ijk(points)[:, ::-1].T, order=1, mode="nearest")
        met = now > 0
        if before is None:
            out[active[met]] = 0.0
        else:
            back = now[met] / np.maximum(now[met] - before[met], 1e-6)
            out[active[met]] = depth - STEP_MM * back
        active, before = active[~met], now[~met]
        if not len(active):
            break
    return out


def point_normals(bone: Bone) -> np.ndarray:
    """(n, 3) outward unit normals at the points of a bone, averaged as `Bone.smooth_normals`."""
    total = sums_at_points(bone.smooth_normals, bone.triangles, len(bone.points_mm))
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def _at_the_edge(points_mm: np.ndarray, scan: Grid) -> np.ndarray:
    """Which points lie on the flat faces that a surface has where the scan ends: past its outermost voxels."""
    ijk = scan.ijk(points_mm)
    last = np.array(scan.shape[::-1]) - 1
    return ((ijk < 0.0) | (ijk > last)).any(axis=1)
