"""How far each point of a segmented bone lies from its reference: what Figure 6 of Deng 2022 paints.

mesh, distances = surface_error(result, reference, "right_femur")
painted_distance(mesh, distances, "distance.png", "Right femur")
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkFiltersGeneral import vtkDistancePolyDataFilter

from FemurSegLib.sides import LABELS, UNDECIDED_LABEL
from FemurSegLib.surface import bounds, coarse_surface, points_of, surface_of
from FemurSegLib.volume import Volume

POINT_MM = 2.0
"""Points of the painted surface are merged in cubes of this edge: as fine as a picture of a whole femur shows."""


def surface_error(result: Volume, reference: Volume, side: str) -> tuple[vtkPolyData, np.ndarray] | None:
    """The result's surface (LPS mm) and, for each of its points, the signed distance in mm to the reference's.

    Both labelmaps on one grid. Positive: outside the reference; nan: the reference leaves open where its surface is
    (255 beside the point). None where either lacks that femur.
    """
    meshes = [surface_of(v.voxels, v.grid, LABELS[side]) for v in (result, reference)]
    if not all(mesh.GetNumberOfPoints() for mesh in meshes):
        return None
    distance = vtkDistancePolyDataFilter()
    distance.SetInputData(0, coarse_surface(meshes[0], POINT_MM))
    distance.SetInputData(1, meshes[1])
    distance.SignedDistanceOn()
    distance.ComputeSecondDistanceOff()
    distance.Update()
    painted = distance.GetOutput()
    values = vtk_to_numpy(painted.GetPointData().GetScalars()).astype(float)
    values[_undecided(points_of(painted), reference)] = np.nan
    return painted, values


def _undecided(points_lps: np.ndarray, reference: Volume) -> np.ndarray:
    """Which points (n, 3) lie within a voxel of one that the reference leaves open."""
    box = bounds(reference.voxels, UNDECIDED_LABEL)
    if box is None:
        return np.zeros(len(points_lps), bool)
    box = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
    open_ = ndimage.binary_dilation(reference.voxels[box] == UNDECIDED_LABEL, np.ones((3, 3, 3)))
    at = np.rint(reference.grid.ijk(points_lps))[:, ::-1].astype(int) - [s.start for s in box]
    inside = ((at >= 0) & (at < open_.shape)).all(axis=1)
    out = np.zeros(len(points_lps), bool)
    out[inside] = open_[tuple(at[inside].T)]
    return out
