"""Slices through hip and knee: the CT in a bone window with the contour of the masks, as inline SVG."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np

from FemurSegLib.html_page import css_color, inline_png
from FemurSegLib.sides import COLORS, LABELS
from FemurSegLib.volume import Volume

PIXEL_MM = 0.4
WINDOW_HU = (-150, 800)
"""Bone, with enough of the soft tissue to see where one is."""
VIEWS = {"coronal": ((1, 0, 0), (0, 0, -1)), "axial": ((1, 0, 0), (0, 1, 0))}
"""LPS directions that point right and down in the picture: the patient's right is on the left."""


@dataclass(frozen=True)
class Plane:
    """A square cut-out: its middle (LPS mm), the name of the view, and its side's length."""

    center_mm: np.ndarray
    view: str
    size_mm: float

    @property
    def axes(self) -> np.ndarray:
        """(2, 3): LPS directions to the right and downwards."""
        return np.array(VIEWS[self.view], float)

    def points(self, pixel_mm: float) -> np.ndarray:
        """(n, n, 3) LPS mm of the middles of its pixels."""
        count = round(self.size_mm / pixel_mm)
        steps = (np.arange(count) + 0.5) * pixel_mm - self.size_mm / 2
        right, down = self.axes
        return self.center_mm + steps[None, :, None] * right + steps[:, None, None] * down

    def place(self, point_mm) -> np.ndarray:
        """Where a point falls in the picture: mm from its upper left corner."""
        return self.axes @ (np.asarray(point_mm, float) - self.center_mm) + self.size_mm / 2


def draw(plane: Plane, ct: Volume, labels: Volume, marks: str = "", alt: str = "") -> str:
    """An SVG element, `plane.size_mm` units wide: grey CT, the contour of every femur in its colour, `marks` (SVG
    in the same units), R and L, and a bar of 20 mm."""
    points = plane.points(PIXEL_MM)
    hu = sample(ct.voxels, ct.grid, points, outside=-1024)
    low, high = WINDOW_HU
    grey = np.rint(np.clip((hu - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    size = plane.size_mm
    parts = [f'<image width="{size:g}" height="{size:g}" href="{inline_png(grey)}"/>']
    for side, label in LABELS.items():
        path = contour(sample(labels.voxels, labels.grid, points, of=label), PIXEL_MM)
        if path:
            parts.append(f'<path d="{path}" fill="none" stroke="{css_color(COLORS[side])}" stroke-width=".7"/>')
    text = 'fill="#fff" font-size="5" font-family="Arial, sans-serif"'
    parts += [
        marks,
        f'<text x="2" y="6.5" {text}>R</text><text x="{size - 2:g}" y="6.5" text-anchor="end" {text}>L</text>',
        f'<path d="M{size - 23:g} {size - 3:g}h20" stroke="#fff" stroke-width=".8"/>'
        f'<text x="{size - 13:g}" y="{size - 5:g}" text-anchor="middle" {text}>20 mm</text>',
    ]
    box = f'viewBox="0 0 {size:g} {size:g}"'
    return f'<svg {box} role="img" aria-label="{escape(alt)}">{"".join(parts)}</svg>'


def sample(voxels: np.ndarray, grid, points_mm: np.ndarray, outside: float = 0.0, of: int | None = None):
    """Trilinear float32 values of voxels (k, j, i) at LPS points (..., 3); only the box around them is touched.
    of: a label, of which the values are then the part, 0 to 1; outside: value where there are no voxels."""
    from scipy.ndimage import map_coordinates

    kji = grid.ijk(points_mm)[..., ::-1]
    flat = kji.reshape(-1, 3)
    lower = np.clip(np.floor(flat.min(axis=0)).astype(int), 0, np.array(grid.shape) - 1)
    upper = np.clip(np.ceil(flat.max(axis=0)).astype(int) + 1, lower + 1, grid.shape)
    part = voxels[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))]
    part = (part if of is None else part == of).astype(np.float32)
    inside = ((flat > -0.5) & (flat < np.array(grid.shape) - 0.5)).all(axis=1).reshape(kji.shape[:-1])
    values = map_coordinates(part, np.moveaxis(kji - lower, -1, 0), order=1, mode="nearest")
    return np.where(inside, values, np.float32(outside))


def contour(values: np.ndarray, pixel_mm: float) -> str:
    """The line at 0.5 around a mask sampled on pixels, as the `d` of an SVG path in mm; "" where there is none."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
    from vtkmodules.vtkCommonDataModel import vtkImageData
    from vtkmodules.vtkFiltersCore import vtkFlyingEdges2D, vtkStripper

    if not (values > 0.5).any():
        return ""
    padded = np.pad(values.astype(np.float32), 1)
    image = vtkImageData()
    image.SetDimensions(padded.shape[1], padded.shape[0], 1)
    image.GetPointData().SetScalars(numpy_to_vtk(padded.ravel()))
    edges = vtkFlyingEdges2D()
    edges.SetInputData(image)
    edges.SetValue(0, 0.5)
    strips = vtkStripper()
    strips.SetInputConnection(edges.GetOutputPort())
    strips.JoinContiguousSegmentsOn()
    strips.Update()
    found = strips.GetOutput()
    if not found.GetNumberOfPoints():
        return ""
    points = (vtk_to_numpy(found.GetPoints().GetData())[:, :2] - 0.5) * pixel_mm
    lines, out = found.GetLines(), []
    ids, starts = vtk_to_numpy(lines.GetConnectivityArray()), vtk_to_numpy(lines.GetOffsetsArray())
    for first, last in zip(starts[:-1], starts[1:], strict=True):
        out.append("M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points[ids[first:last]]))
    return "".join(out)
