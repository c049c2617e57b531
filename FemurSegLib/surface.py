"""Surfaces of the femora: closed, smooth, outward, in LPS millimetres; and the STL files they are saved in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData, vtkPolyData
from vtkmodules.vtkFiltersCore import vtkBinnedDecimation, vtkFlyingEdges3D, vtkWindowedSincPolyDataFilter

from .errors import InputError

if TYPE_CHECKING:
    from .volume import Grid

EDGE_LENGTH_MM = 1.2
"""Mean edge of the triangles, unless another is asked for: 100,000 triangles a femur."""
EDGES_PER_STEP = 0.92
"""Mean edge of a smoothed contour, as a part of the step of its field (Testing/benchmarks/surfaces.py)."""
FIELD_SIGMA = 0.8
"""Pixels of a slice that the signed distance is blurred by, against the steps of the pixels."""
PASS_BAND, ITERATIONS = 0.01, 30
"""Of the windowed sinc filter (Taubin, Zhang & Golub 1996), which takes the steps of the voxels away without the
shrinkage of Laplacian smoothing. Smaller is smoother. For edges as long as a voxel; for others it follows."""
PASS_BANDS = (0.002, 0.5)
"""In these bounds: so few iterations cannot do better, and the filter takes no more."""
LARGEST_FIELD = 400_000_000
"""Points of the field, at most: more than 1.6 GB of them are not worth it."""

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


def box_around(boxes: Iterable[tuple[slice, ...]], margin=(0, 0, 0)) -> tuple[slice, ...]:
    """The smallest box (k, j, i) that holds several (see `bounds`), and `margin` voxels more along each axis: from
    0 on, but it may end beyond the volume, as slices may."""
    return tuple(
        slice(max(0, min(s.start for s in axis) - more), max(s.stop for s in axis) + more)
        for axis, more in zip(zip(*boxes, strict=True), margin, strict=True)
    )


def surface_of(
    labels: np.ndarray,
    grid: Grid,
    label: int,
    *,
    edge_length_mm: float = EDGE_LENGTH_MM,
    smoothing: float = 1.0,
    between_slices: str = "spline",
) -> vtkPolyData:
    """Closed triangle surface of one label, normals outward, points in LPS mm; empty if the label is absent.

    labels: (k, j, i) uint8 on `grid`, which may be oblique, left-handed and anisotropic. It encloses the volume of
    the label's voxels. A bone that reaches the edge of `labels` is cut there, and closed with a flat face: give the
    whole volume, or a part of it with a voxel to spare on each side.
    edge_length_mm: mean edge of the triangles. smoothing: 0 none, 1 against the steps of the voxels, 2 more.
    between_slices: `spline`, `linear` or `none` (surfaces/field.py). Pieces of a voxel or two are smoothed away.
    Raises InputError where so short edges would take too much memory.
    """
    box = bounds(labels, label)
    if box is None:
        return vtkPolyData()
    spacing = np.array(grid.spacing_mm[::-1])  # (k, j, i)
    mask = labels[box] == label
    volume_mm3 = np.count_nonzero(mask) * float(np.prod(spacing))
    ends = _ends(box, labels.shape, spacing)
    surface = _contour(mask, spacing, ends, edge_length_mm / EDGES_PER_STEP, smoothing, between_slices)
    if not surface.GetNumberOfPoints():  # so few voxels that nothing is left of them: then as they are
        surface = _contour(mask, spacing, ends, 0.9 * spacing.min(), 0.0, "none")
    points, triangles = points_of(surface).astype(float), triangles_of(surface)
    points = _with_volume(points, triangles, volume_mm3, ends)
    first = np.array([part.start for part in box])
    points = grid.lps(points / spacing[::-1] + first[::-1])
    surface.GetPoints().SetData(numpy_to_vtk(points.astype(np.float32), deep=True))
    if np.linalg.det(grid.direction) < 0:
        triangles[:] = triangles[:, ::-1].copy()
    return surface


def _ends(box, shape, spacing) -> np.ndarray:
    """(3, 2): where the volume ends, in mm from the first voxel of the box along each axis (i, j, k), if the box
    reaches that far; else infinite."""
    return np.array(
        [
            (
                -0.5 * mm if part.start == 0 else -np.inf,
                (part.stop - part.start - 0.5) * mm if part.stop == n else np.inf,
            )
            for part, n, mm in zip(box, shape, spacing, strict=True)
        ]
    )[::-1]


def _across_slices(spacing) -> int:
    """The axis whose removal leaves square pixels, which is quick; the coarsest of several or of none."""
    from .surfaces.field import SQUARE

    def rank(axis):
        one, other = np.delete(spacing, axis)
        return abs(one - other) <= SQUARE * min(one, other), spacing[axis]

    return max(range(3), key=rank)


def _contour(mask, spacing, ends, step_mm: float, smoothing: float, between_slices: str) -> vtkPolyData:
    """Surface of a bool mask that fills its array, cut at `ends`, in mm (i, j, k) from the first voxel's centre."""
    from .surfaces.field import resample, signed_distance

    pad = np.where(spacing == spacing.max(), 2, 3) + np.ceil(step_mm / spacing).astype(int)
    padded = np.pad(mask, [(n, n) for n in pad])
    cuts = np.isfinite(ends)[::-1]
    for axis, n in enumerate(pad):  # beyond a cut the bone goes on
        walked = padded.swapaxes(0, axis)
        if cuts[axis, 0]:
            walked[:n] = walked[n]
        if cuts[axis, 1]:
            walked[-n:] = walked[-n - 1]
    order = [_across_slices(spacing)]
    order += [axis for axis in range(3) if axis != order[0]]
    size = [int(n * s / step_mm) + 2 for n, s in zip(padded.shape, spacing, strict=True)]
    if np.prod(size, dtype=float) > LARGEST_FIELD:
        raise InputError(
            f"Edges of {step_mm * EDGES_PER_STEP:.2g} mm are too short for a surface of this size.",
            "Choose a longer edge.",
        )
    field = signed_distance(padded.transpose(order), spacing[order], max(spacing.max(), 1.5 * step_mm))
    field = resample(field, spacing[order], step_mm, FIELD_SIGMA * smoothing, between_slices)
    field = np.ascontiguousarray(field.transpose(np.argsort(order)))
    for axis, n in enumerate(field.shape):
        at = (np.arange(n) * step_mm - pad[axis] * spacing[axis]).reshape(
            [-1 if a == axis else 1 for a in range(3)]
        )
        low, high = ends[2 - axis]
        if cuts[axis, 0]:
            np.minimum(field, (at - low).astype(np.float32), out=field)
        if cuts[axis, 1]:
            np.minimum(field, (high - at).astype(np.float32), out=field)

    surface = zero_surface(field, (step_mm,) * 3, -(pad * spacing))
    if smoothing and surface.GetNumberOfPoints():
        voxel_mm = float(np.prod(spacing)) ** (1 / 3)
        points = _smoothed(surface, PASS_BAND * (step_mm / voxel_mm / smoothing) ** 2)
        held = _held(points_of(surface), ends)
        points[held] = points_of(surface)[held]
        surface.GetPoints().SetData(numpy_to_vtk(points, deep=True))
    return surface


def zero_surface(field: np.ndarray, spacing_mm, first_mm) -> vtkPolyData:
    """Where a float field (k, j, i), positive inside, is zero: triangles, normals outward, mm along (i, j, k).

    spacing_mm: of its points along (k, j, i); first_mm: where the first lies, (k, j, i).
    """
    image = vtkImageData()
    image.SetDimensions(field.shape[::-1])
    image.SetSpacing(*spacing_mm[::-1])
    image.SetOrigin(first_mm[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(field.ravel()))
    contour = vtkFlyingEdges3D()
    contour.SetInputData(image)
    contour.SetValue(0, 0.0)
    contour.ComputeNormalsOff()
    contour.ComputeGradientsOff()
    contour.ComputeScalarsOff()
    contour.Update()
    return contour.GetOutput()


def _smoothed(surface: vtkPolyData, pass_band: float) -> np.ndarray:
    smooth = vtkWindowedSincPolyDataFilter()
    smooth.SetInputData(surface)
    smooth.SetNumberOfIterations(ITERATIONS)
    smooth.SetPassBand(float(np.clip(pass_band, *PASS_BANDS)))
    smooth.NormalizeCoordinatesOn()
    smooth.BoundarySmoothingOff()
    smooth.FeatureEdgeSmoothingOff()
    smooth.Update()
    return points_of(smooth.GetOutput()).copy()


def _held(points: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(n, 3) bool: coordinates of points that lie in the plane of a cut, and stay there."""
    return (np.abs(points[..., None] - ends) < 1e-3).any(axis=-1)


def _with_volume(points: np.ndarray, triangles: np.ndarray, volume_mm3: float, ends) -> np.ndarray:
    """The points moved along their normals, all by the same length, so that they enclose a volume; those in the
    plane of a cut move within it."""
    held = _held(points, ends)
    for _ in range(3):
        corners = points[triangles]
        corners -= points[0]
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        missing = volume_mm3 - np.einsum("ni,ni->", corners[:, 0], across) / 6
        area = np.linalg.norm(across, axis=1).sum() / 2
        normals = sums_at_points(across, triangles, len(points))
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        points = points + np.where(held, 0, normals) * (missing / max(area, 1e-9))
        points = points.clip(*ends.T)
    return points


def coarse_surface(surface: vtkPolyData, size_mm: float) -> vtkPolyData:
    """The surface with all points in a cube of `size_mm` made one: their mean."""
    low, high = np.reshape(surface.GetBounds(), (3, 2)).T
    decimate = vtkBinnedDecimation()
    decimate.SetInputData(surface)
    decimate.AutoAdjustNumberOfDivisionsOff()
    decimate.SetNumberOfDivisions([max(1, int(n)) for n in (high - low) / size_mm])
    decimate.SetPointGenerationModeToBinAverages()
    decimate.Update()
    return decimate.GetOutput()


def points_of(surface: vtkPolyData) -> np.ndarray:
    """(n, 3) positions of a surface, LPS mm."""
    return vtk_to_numpy(surface.GetPoints().GetData())


def triangles_of(surface: vtkPolyData) -> np.ndarray:
    """(n, 3) indices into `points_of`, counter-clockwise seen from outside."""
    return vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3)


def sums_at_points(values: np.ndarray, triangles: np.ndarray, count: int) -> np.ndarray:
    """(count, 3): at each point the sum of the values (n, 3) of the triangles (n, 3) that meet there. Of the cross
    products of their edges: the normals of the points, each triangle weighted by its area."""
    return np.stack([np.bincount(triangles.ravel(), np.repeat(part, 3), count) for part in values.T], axis=-1)


def length_mm(surface: vtkPolyData) -> float:
    """Extent of a surface along its longest principal axis, which is the bone's own axis when it is whole."""
    points = points_of(surface).astype(float)
    centred = points - points.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return float(np.ptp(centred @ axes[:, -1]))


def write_stl(path: Path | str, surface: vtkPolyData, name: str = "", space: str = "LPS") -> None:
    """Write a binary STL in mm; its header says the space in the way 3D Slicer does. Raises OSError."""
    corners = points_of(surface)[triangles_of(surface)]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    records = np.zeros(len(corners), _TRIANGLE)
    records["normal"], records["corners"] = normals, corners
    header = f"FemurSeg {name} mm SPACE={space}".encode("ascii", "replace")[:80].ljust(80)
    with open(path, "wb") as file:
        file.write(header + np.uint32(len(records)).tobytes())
        file.write(memoryview(records.view(np.uint8)))
