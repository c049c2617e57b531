"""Ways from a mask to a surface, side by side, on femora whose surface is known; and what the default costs.

python Testing/benchmarks/surfaces.py [SHAPES]      the folder of bone shapes (vsd/*.npz)

Each femur is turned, set into voxels, and made a surface again. Printed: volume against the mask's, distance to the
true surface (mean, 95 %), angle to it (mean, 95 %: steps turn the surface from its true direction), edges, open
edges, and seconds of one core.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from examples import mesh_of, rasterized  # noqa: E402
from scipy.spatial import cKDTree  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402
from vtkmodules.util.numpy_support import numpy_to_vtk  # noqa: E402
from vtkmodules.vtkCommonDataModel import vtkImageData  # noqa: E402
from vtkmodules.vtkFiltersCore import (  # noqa: E402
    vtkFlyingEdges3D,
    vtkReverseSense,
    vtkSurfaceNets3D,
    vtkTriangleFilter,
    vtkWindowedSincPolyDataFilter,
)

from FemurSegLib.surface import points_of, surface_of, triangles_of  # noqa: E402
from FemurSegLib.surfaces.quality import quality  # noqa: E402

SHAPES = Path(__file__).parents[3] / "shared" / "data" / "shapes"
BONES = (("z013", "right_femur"), ("z061", "left_femur"))
TURN_DEGREES = (12, -8, 20)
SPACINGS_MM = ((0.8, 0.8, 0.8), (1.0, 1.0, 3.0), (1.0, 1.0, 5.0))
SAMPLES = 200_000


def main(shapes: Path) -> None:
    if not (shapes / "vsd").is_dir():
        print(f"There are no bone shapes at {shapes}; name their folder.")
        return
    ways = {
        "contour of the mask": lambda labels, grid: plain(labels, grid, vtkFlyingEdges3D(), 0),
        "  and windowed sinc": lambda labels, grid: plain(labels, grid, vtkFlyingEdges3D(), 30),
        "surface nets": lambda labels, grid: plain(labels, grid, vtkSurfaceNets3D(), 0),
        "ours, nearest slice": lambda labels, grid: surface_of(labels, grid, 1, between_slices="none"),
        "ours, lines between slices": lambda labels, grid: surface_of(labels, grid, 1, between_slices="linear"),
        "ours, splines (default)": lambda labels, grid: surface_of(labels, grid, 1),
        "ours, edges of 2.5 mm": lambda labels, grid: surface_of(labels, grid, 1, edge_length_mm=2.5),
    }
    direction = Rotation.from_euler("xyz", TURN_DEGREES, degrees=True).as_matrix()
    for spacing in SPACINGS_MM:
        rows = {name: [] for name in ways}
        for person, bone in BONES:
            with np.load(shapes / "vsd" / f"{person}.npz") as stored:
                points, faces = stored[f"{bone}_vertices"] * (-1.0, -1, 1), stored[f"{bone}_faces"]
            labels, grid = rasterized(points, faces, spacing, direction)
            truth = Truth(points, faces)
            mask_mm3 = labels.sum() * np.prod(spacing)
            for name, way in ways.items():
                began = time.process_time()
                surface = way(labels, grid)
                seconds = time.process_time() - began
                rows[name].append((*truth.measure(surface, mask_mm3), seconds))
        print(f"\nVoxels of {' x '.join(f'{mm:g}' for mm in spacing)} mm, mean of {len(BONES)} femora")
        print(
            f"{'':28s}{'volume':>9s}{'mm':>8s}{'95 %':>8s}{'deg':>7s}{'95 %':>7s}{'edge':>9s}{'open':>6s}{'s':>7s}"
        )
        for name, values in rows.items():
            percent, mean, p95, deg, deg95, edge, loose, seconds = np.mean(values, axis=0)
            print(
                f"{name:28s}{percent:+8.2f}%{mean:8.3f}{p95:8.2f}{deg:7.1f}{deg95:7.1f}{edge:9.2f}{loose:6.0f}{seconds:7.2f}",
                flush=True,
            )


class Truth:
    """A surface, as points with normals."""

    def __init__(self, points, triangles):
        corners = points[triangles]
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = np.stack(
            [np.bincount(triangles.ravel(), np.repeat(part, 3), len(points)) for part in across.T], axis=-1
        )
        area = np.linalg.norm(across, axis=1)
        random = np.random.default_rng(0)
        chosen = random.choice(len(triangles), SAMPLES, p=area / area.sum())
        weights = random.dirichlet((1, 1, 1), SAMPLES)[..., None]
        self.points = (weights * corners[chosen]).sum(axis=1)
        self.normals = (weights * _unit(normals)[triangles[chosen]]).sum(axis=1)
        self.normals = _unit(self.normals)
        self.tree = cKDTree(self.points)

    def measure(self, surface, mask_mm3: float) -> tuple[float, ...]:
        corners = points_of(surface).astype(float)[triangles_of(surface)]
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        weight = np.linalg.norm(across, axis=1)
        middle = corners.mean(axis=1)
        nearest = self.tree.query(middle)[1]
        away = np.abs(np.einsum("ni,ni->n", middle - self.points[nearest], self.normals[nearest]))
        cosine = np.einsum("ni,ni->n", _unit(across), self.normals[nearest])
        angle = np.degrees(np.arccos(cosine.clip(-1, 1)))
        worth = quality(surface)
        return (
            100 * (worth.volume_mm3 / mask_mm3 - 1),
            np.average(away, weights=weight),
            _p95(away, weight),
            np.average(angle, weights=weight),
            _p95(angle, weight),
            worth.edge_mm,
            worth.open_edges,
        )


def plain(labels, grid, contour, smoothing: int):
    """What VTK alone makes of a mask: a contour, and so many steps of the windowed sinc filter (pass band 0.01)."""
    image = vtkImageData()
    image.SetDimensions(labels.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(labels).ravel()))
    contour.SetInputData(image)
    contour.SetValue(0, 1.0 if isinstance(contour, vtkSurfaceNets3D) else 0.5)
    last = vtkTriangleFilter()
    last.SetInputConnection(contour.GetOutputPort())
    if smoothing:
        sinc = vtkWindowedSincPolyDataFilter()
        sinc.SetInputConnection(last.GetOutputPort())
        sinc.SetNumberOfIterations(smoothing)
        sinc.SetPassBand(0.01)
        sinc.NormalizeCoordinatesOn()
        last = sinc
    last.Update()
    surface = mesh_of(grid.lps(points_of(last.GetOutput())), triangles_of(last.GetOutput()))
    if quality(surface).volume_mm3 > 0:
        return surface
    turned = vtkReverseSense()
    turned.SetInputData(surface)
    turned.Update()
    return turned.GetOutput()


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _p95(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, 0.95 * below[-1])])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SHAPES)
