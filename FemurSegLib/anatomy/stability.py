"""How far landmarks and measurements move when the mask does: their spread over perturbations.

A bone's surface is turned by up to 30 degrees, cut into voxels again, its boundary roughened by half a voxel, or
mirrored to the other side; each time everything is read anew and, for landmarks, turned back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from FemurSegLib.grid import Grid
from FemurSegLib.sides import LABELS, OTHER
from FemurSegLib.surface import EDGE_LENGTH_MM

from .bone import Bone
from .landmarks import Landmarks, find_landmarks, landmark_points
from .measurements import measure

LARGEST_TURN_DEG = 30.0
ROUGHNESS_VOXELS = 0.5
BLUR_VOXELS = 1.0
COPY_EDGE_MM = 1.8
"""Mean edge of the triangles of the copies that `spread` reads. With 1.2 mm they take nearly twice as long to read.
The standard deviations then differ by at most 0.11 mm or degrees, but for the second neck-shaft angle (0.17), the
radius of the bow (0.4 mm) and single landmarks (0.16 mm); two femora, four copies each."""


@dataclass(frozen=True)
class Pose:
    """A perturbation: points go to (points - center) @ turn.T, mirrored first if `mirror`; `rough` adds noise."""

    name: str
    turn: np.ndarray
    mirror: bool = False
    rough: bool = False

    def back(self, points_mm: np.ndarray, center_mm: np.ndarray) -> np.ndarray:
        points = np.asarray(points_mm) @ self.turn
        return (points * [-1.0, 1.0, 1.0] if self.mirror else points) + center_mm


@dataclass(frozen=True)
class Spread:
    """Of one quantity over the perturbations: standard deviation about the unperturbed one, largest difference from
    it (for a landmark, root mean square and largest distance), and in how many of them it was found."""

    sd: float
    largest: float
    found: int


def poses(count: int, seed: int = 0) -> list[Pose]:
    """`count` turns by 10 to 30 degrees about random axes; every second is mirrored, every third rough."""
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        axis = rng.normal(size=3)
        angle = np.radians(rng.uniform(10.0, LARGEST_TURN_DEG))
        turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix()
        mirror, rough = number % 2 == 1, number % 3 == 2
        name = f"turn {np.degrees(angle):.0f}" + ", mirror" * mirror + ", rough" * rough
        out.append(Pose(name, turn, mirror, rough))
    return out


def spread(
    bone: Bone, spacing_mm=(1.0, 1.0, 1.0), count: int = 6, seed: int = 0, exact: Landmarks | None = None
) -> dict[str, Spread]:
    """Spread of every measurement and landmark (`landmark_points`) of a bone over `count` perturbations. exact: the
    landmarks of the unperturbed bone, if they are found already."""
    exact = exact or find_landmarks(bone)
    values, points = {k: m.value for k, m in measure(exact).items()}, landmark_points(exact)
    off: dict[str, list[float]] = {key: [] for key in [*values, *points]}
    for moved, back in perturbed(bone, spacing_mm, poses(count, seed), seed, COPY_EDGE_MM):
        again = find_landmarks(moved)
        for key, m in measure(again).items():
            if m.value is not None and values[key] is not None:
                off[key].append(m.value - values[key])
        for key, point in landmark_points(again).items():
            if key in points:
                off[key].append(float(np.linalg.norm(back(point) - points[key])))
    return {key: _spread(np.array(each)) for key, each in off.items() if each}


def perturbed(
    bone: Bone, spacing_mm, which: list[Pose], seed: int = 0, edge_length_mm: float = EDGE_LENGTH_MM
) -> Iterator:
    """Yields (bone, function that takes its points back) for every pose, each by way of a mask."""
    center = bone.points_mm.mean(axis=0)
    for number, pose in enumerate(which):
        side, triangles, points = bone.side, bone.triangles, bone.points_mm - center
        if pose.mirror:
            side, triangles = OTHER[side], triangles[:, ::-1]
            points = points * [-1.0, 1.0, 1.0]
        moved = Bone(points @ pose.turn.T, triangles, side)
        labels, grid = voxelize(moved, spacing_mm)
        if pose.rough:
            labels = roughen(labels, np.random.default_rng(seed + number))
        again = Bone.of_mask(labels, grid, side, pieces=pose.rough, edge_length_mm=edge_length_mm)
        yield again, lambda p, pose=pose: pose.back(p, center)


def voxelize(bone: Bone, spacing_mm, grid: Grid | None = None) -> tuple[np.ndarray, Grid]:
    """Labelmap (k, j, i) of a bone on an axis-parallel grid around it, or on the one given: voxels whose centre
    lies inside."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData
    from vtkmodules.vtkImagingStencil import vtkImageStencilToImage, vtkPolyDataToImageStencil

    spacing = np.asarray(spacing_mm, float)
    if grid is None:
        origin = bone.points_mm.min(axis=0) - 3 * spacing
        size = np.ceil((bone.points_mm.max(axis=0) - origin) / spacing).astype(int) + 4
        grid = Grid(tuple(size[::-1]), spacing, origin, np.eye(3))
    origin, size = grid.origin_mm, np.array(grid.shape[::-1])
    surface, points, cells = vtkPolyData(), vtkPoints(), vtkCellArray()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(bone.points_mm), deep=True))
    rows = np.c_[np.full(len(bone.triangles), 3), bone.triangles].astype(np.int64)
    cells.ImportLegacyFormat(numpy_to_vtkIdTypeArray(rows.ravel(), deep=True))
    surface.SetPoints(points)
    surface.SetPolys(cells)
    stencil = vtkPolyDataToImageStencil()
    stencil.SetInputData(surface)
    stencil.SetTolerance(0.0)
    stencil.SetOutputOrigin(origin)
    stencil.SetOutputSpacing(spacing)
    stencil.SetOutputWholeExtent(0, size[0] - 1, 0, size[1] - 1, 0, size[2] - 1)
    image = vtkImageStencilToImage()
    image.SetInputConnection(stencil.GetOutputPort())
    image.SetOutputScalarTypeToUnsignedChar()
    image.SetInsideValue(LABELS[bone.side])
    image.Update()
    labels = vtk_to_numpy(image.GetOutput().GetPointData().GetScalars()).reshape(size[::-1]).copy()
    return labels, grid


def roughen(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mask with its boundary moved in and out by a random field, half a voxel (one standard deviation)."""
    from scipy.ndimage import gaussian_filter
    from scipy.special import ndtri

    soft = gaussian_filter((labels > 0).astype(np.float32), BLUR_VOXELS)
    depth = BLUR_VOXELS * ndtri(np.clip(soft, 1e-4, 1 - 1e-4))  # voxels below the surface, where it is flat
    noise = gaussian_filter(rng.standard_normal(labels.shape, np.float32), 1.0)
    rough = depth + ROUGHNESS_VOXELS * noise / noise.std() > 0
    return np.where(soft < 0.01, False, rough | (soft > 0.99)).astype(np.uint8) * labels.max()


def _spread(off: np.ndarray) -> Spread:
    return Spread(float(np.sqrt((off**2).mean())), float(np.abs(off).max()), len(off))
