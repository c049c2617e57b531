"""Surfaces of the femora: closed, outward, in LPS millimetres; and the STL files they are saved in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData, vtkPolyData
from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D, vtkReverseSense, vtkWindowedSincPolyDataFilter

if TYPE_CHECKING:
    from .volume import Grid

SMOOTHING_ITERATIONS = 30
SMOOTHING_PASS_BAND = 0.01
"""Of the windowed sinc filter (Taubin, Zhang & Golub 1996), which takes the steps of the voxels away without
the shrinkage of Laplacian smoothing. Smaller is smoother."""

_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def bounds(labels: np.ndarray, label: int) -> tuple[slice, slice, slice] | None:
    """The smallest box (k, j, i) that holds all voxels of `label`, or None. Needs no copy of the volume."""
    order = sorted(range(3), key=lambda axis: -abs(labels.strides[axis]))  # as it lies in memory
    walked = labels.transpose(order)
    present = [np.zeros(size, bool) for size in walked.shape]
    for at, section in enumerate(walked):
        here = section == label
        rows = here.any(axis=1)
        if rows.any():
            present[0][at] = True
            present[1] |= rows
            present[2] |= here.any(axis=0)
    if not present[0].any():
        return None
    edges = [np.flatnonzero(present[order.index(axis)])[[0, -1]] for axis in range(3)]
    return tuple(slice(int(first), int(last) + 1) for first, last in edges)


def surface_of(labels: np.ndarray, grid: Grid, label: int) -> vtkPolyData:
    """Closed triangle surface of one label, normals outward, points in LPS mm; empty if the label is absent.

    `labels` is (k, j, i) uint8 on `grid`, which may be oblique, left-handed and anisotropic. A bone cut by
    the edge of the volume is closed there with a flat face.
    """
    box = bounds(labels, label)
    if box is None:
        return vtkPolyData()
    mask = np.pad((labels[box] == label).astype(np.uint8), 1)
    image = vtkImageData()
    image.SetDimensions(mask.shape[::-1])
    image.SetOrigin([axis.start - 1 for axis in reversed(box)])
    image.GetPointData().SetScalars(numpy_to_vtk(mask.ravel()))

    contour = vtkFlyingEdges3D()
    contour.SetInputData(image)
    contour.SetValue(0, 0.5)
    contour.ComputeNormalsOff()
    contour.ComputeGradientsOff()
    contour.ComputeScalarsOff()
    smooth = vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(contour.GetOutputPort())
    smooth.SetNumberOfIterations(SMOOTHING_ITERATIONS)
    smooth.SetPassBand(SMOOTHING_PASS_BAND)
    smooth.NormalizeCoordinatesOn()
    smooth.BoundarySmoothingOff()
    smooth.FeatureEdgeSmoothingOff()
    last = smooth
    if np.linalg.det(grid.direction) < 0:
        last = vtkReverseSense()
        last.SetInputConnection(smooth.GetOutputPort())
        last.ReverseCellsOn()
    last.Update()
    surface = last.GetOutput()
    points = vtk_to_numpy(surface.GetPoints().GetData())
    surface.GetPoints().SetData(numpy_to_vtk(grid.lps(points).astype(np.float32), deep=True))
    return surface


def points_of(surface: vtkPolyData) -> np.ndarray:
    """(n, 3) positions of a surface, LPS mm."""
    return vtk_to_numpy(surface.GetPoints().GetData())


def triangles_of(surface: vtkPolyData) -> np.ndarray:
    """(n, 3) indices into `points_of`, counter-clockwise seen from outside."""
    return vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3)


def length_mm(surface: vtkPolyData) -> float:
    """Extent of a surface along its longest principal axis, which is the bone's own axis when it is whole."""
    points = points_of(surface).astype(float)
    centred = points - points.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return float(np.ptp(centred @ axes[:, -1]))


def write_stl(path: Path | str, surface: vtkPolyData, name: str = "") -> None:
    """Write a binary STL in LPS mm, as its header says in the way 3D Slicer does. Raises OSError."""
    corners = points_of(surface)[triangles_of(surface)]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    records = np.zeros(len(corners), _TRIANGLE)
    records["normal"], records["corners"] = normals, corners
    header = f"FemurSeg {name} mm SPACE=LPS".encode("ascii", "replace")[:80].ljust(80)
    with open(path, "wb") as file:
        file.write(header + np.uint32(len(records)).tobytes())
        file.write(memoryview(records.view(np.uint8)))
