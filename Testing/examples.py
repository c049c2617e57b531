"""Small volumes with a known answer, shared by tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkPoints
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData
from vtkmodules.vtkImagingStencil import vtkImageStencilToImage, vtkPolyDataToImageStencil

from FemurSegLib import sides
from FemurSegLib.findings import Finding
from FemurSegLib.grid import Grid
from FemurSegLib.localization.detection import Detection
from FemurSegLib.localization.radiograph import make_radiographs
from FemurSegLib.localization.region import fuse
from FemurSegLib.models import Model
from FemurSegLib.result import Segmentation
from FemurSegLib.surface import bounds
from FemurSegLib.volume import Volume

CENTERS_LPS = {sides.RIGHT: (-45.0, -120.0, 310.0), sides.LEFT: (45.0, -118.0, 314.0)}
RADII_MM = (14.0, 16.0, 45.0)


def oblique_grid(left_handed: bool = True) -> Grid:
    """Anisotropic, turned by 0.2 rad about the body, j forwards; k upwards, or downwards if right-handed."""
    c, s = np.cos(0.2), np.sin(0.2)
    direction = np.array(((c, s, 0), (s, -c, 0), (0, 0, 1.0 if left_handed else -1.0)))
    grid = Grid((60, 70, 140), (1.1, 1.3, 2.0), (0, 0, 0), direction)
    middle = grid.lps((np.array(grid.shape[::-1]) - 1) / 2)
    return Grid(grid.shape, grid.spacing_mm, np.array((0, -119, 312)) - middle, direction)


def ellipsoid(grid: Grid, center_lps, radii_mm) -> np.ndarray:
    """Boolean (k, j, i): voxels whose centre lies in an ellipsoid with axes along L, P and S."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    points = grid.lps(np.stack((i, j, k), axis=-1))
    return (((points - center_lps) / radii_mm) ** 2).sum(axis=-1) <= 1


def two_femora(present=sides.SIDES, grid: Grid | None = None) -> tuple[Volume, np.ndarray]:
    """A CT of one ellipsoid of bone for each femur, in air, and its labels."""
    grid = grid or oblique_grid()
    labels = np.zeros(grid.shape, np.uint8)
    for side in present:
        labels[ellipsoid(grid, CENTERS_LPS[side], RADII_MM)] = sides.LABELS[side]
    return Volume(np.where(labels > 0, 700, -1000).astype(np.int16), grid), labels


def segmented(volume: Volume, labels: np.ndarray) -> Segmentation:
    """What the pipeline would return if its networks were right: real radiographs, boxes and regions."""
    oriented = Volume(labels, volume.grid).oriented().voxels
    radiographs = make_radiographs(volume.oriented())
    detections = {"coronal": [], "axial": []}
    for side, label in sides.LABELS.items():
        box = bounds(oriented, label)
        if box is None:
            continue
        edges = {axis: (part.start - 0.5, part.stop - 0.5) for axis, part in zip("kji", box, strict=True)}
        for radiograph in radiographs:
            detections[radiograph.view].append(Detection(side, 0.9, radiograph.voxels_to_box(edges)))
    localization = fuse(*radiographs, detections)
    return Segmentation(
        labels=labels,
        grid=volume.grid,
        radiographs=radiographs,
        localization=localization,
        confidence={side: 0.95 for side in localization.regions},
        findings=[*localization.warnings, Finding("example", "This is an example.", sides.RIGHT)],
        seconds={"radiographs": 0.01, "detect": 0.02, "segment": 0.5, "clean": 0.03},
        device="cpu",
        models=[Model("example", "segmenter", "segresnet", Path("example.safetensors"), "0" * 64)],
    )


def mesh_of(points, triangles) -> vtkPolyData:
    """A surface of points (n, 3) and triangles (m, 3)."""
    mesh, corners, cells = vtkPolyData(), vtkPoints(), vtkCellArray()
    corners.SetData(numpy_to_vtk(np.ascontiguousarray(points, float), deep=True))
    cells.SetData(3, numpy_to_vtk(np.ascontiguousarray(triangles, np.int64).ravel(), deep=True))
    mesh.SetPoints(corners)
    mesh.SetPolys(cells)
    return mesh


def rasterized(
    points, triangles, spacing_mm, direction=((1, 0, 0), (0, 1, 0), (0, 0, 1))
) -> tuple[np.ndarray, Grid]:
    """Voxels (uint8, (k, j, i)) whose centres lie in a closed surface (LPS mm), and a grid that holds it whole."""
    along = np.asarray(points, float) @ np.asarray(direction, float)
    lower = along.min(axis=0) - 3.3 * np.array(spacing_mm)
    size = np.ceil((along.max(axis=0) - lower) / spacing_mm).astype(int) + 4
    grid = Grid(size[::-1], spacing_mm, np.asarray(direction, float) @ lower, direction)
    stencil, image = vtkPolyDataToImageStencil(), vtkImageStencilToImage()
    stencil.SetInputData(mesh_of(grid.ijk(points), triangles))
    stencil.SetOutputWholeExtent(*np.ravel([(0, n - 1) for n in size]).tolist())
    stencil.SetTolerance(0)
    image.SetInputConnection(stencil.GetOutputPort())
    image.SetInsideValue(1)
    image.SetOutsideValue(0)
    image.SetOutputScalarTypeToUnsignedChar()
    image.Update()
    return vtk_to_numpy(image.GetOutput().GetPointData().GetScalars()).reshape(grid.shape).copy(), grid
