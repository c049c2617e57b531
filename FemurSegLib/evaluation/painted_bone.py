"""A bone from four sides, its surface painted with a distance (Deng 2022, Figure 6) or another value.

path = painted_distance(reference_mesh, distances_mm, "distance.png", "Right femur: B against A")
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from vtkmodules.vtkCommonDataModel import vtkPolyData

from FemurSegLib.surface import points_of, sums_at_points, triangles_of

VIEWS = {
    "from the front": ((1, 0, 0), (0, -1, 0)),
    "from the back": ((-1, 0, 0), (0, 1, 0)),
    "from the\npatient's right": ((0, -1, 0), (-1, 0, 0)),
    "from the\npatient's left": ((0, 1, 0), (1, 0, 0)),
}
"""By name: the LPS directions that point to the right of the picture and towards its reader. Up is the head."""
NICE_LIMITS_MM = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)
LIMIT_QUANTILE = 0.95
"""The scale ends at the first of `NICE_LIMITS_MM` that covers this part of the surface's points."""
UNKNOWN = (0.62, 0.62, 0.60)
_LIGHT = np.array((-0.35, 0.45, 0.82)) / np.linalg.norm((-0.35, 0.45, 0.82))
_AMBIENT = 0.45
_INCHES, _DPI = 7.5, 120
_SUPERSAMPLING, _SUBPIXEL_BITS = 2, 4


def painted_distance(
    reference_mesh: vtkPolyData,
    distances_mm: np.ndarray,
    path: Path | str,
    title: str,
    *,
    limit_mm: float | None = None,
    meaning: tuple[str, str] = ("inside the reference", "outside it"),
) -> Path:
    """Write a PNG of a bone, seen from the front, the back and both sides, and return its path.

    reference_mesh: triangles in LPS mm, outward. distances_mm: (n points,), signed: positive is painted red,
    negative blue, 0 white, nan grey. limit_mm: end of the scale; by default the nice number that holds 95 % of the
    points. meaning: of negative and positive distances, for the legend. Raises ValueError where the mesh is empty
    or the distances are not one a point, and OSError.
    """
    limit = limit_mm or nice_limit_mm(np.asarray(distances_mm, float))
    label = f"mm   (blue: {meaning[0]}; red: {meaning[1]})"
    return painted_values(reference_mesh, distances_mm, path, title, (-limit, limit), label)


def painted_values(
    mesh: vtkPolyData, values: np.ndarray, path: Path | str, title: str, ends, label: str, colors: str = "RdBu_r"
) -> Path:
    """As `painted_distance`, for values of any kind: `ends` of the scale, its `label`, a matplotlib colour map."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = np.asarray(values, float)
    if not mesh.GetNumberOfPoints() or values.shape != (mesh.GetNumberOfPoints(),):
        raise ValueError(f"{values.shape} values for {mesh.GetNumberOfPoints()} points.")
    scale = scale_of(ends, colors)
    points, triangles = points_of(mesh).astype(float), triangles_of(mesh)
    painted = _colors(values, triangles, scale)

    low, high = points.min(axis=0), points.max(axis=0)
    widths = [float((high - low) @ np.abs(right)) for right, _ in VIEWS.values()]
    height = max(float(high[2] - low[2]), 1e-3)
    mm_per_inch = max(height / _INCHES, sum(widths) / (1.6 * _INCHES))
    size = np.array((max(7.0, sum(widths) / mm_per_inch + 3.5), max(4.5, height / mm_per_inch + 1.3)))
    figure = Figure(size, dpi=_DPI)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        1,
        len(VIEWS) + 1,
        width_ratios=[*widths, 0.05 * sum(widths)],
        left=0.2 / size[0],
        right=1 - 1.0 / size[0],
        bottom=0.2 / size[1],
        top=1 - 0.95 / size[1],
    )
    for n, (name, (right, near)) in enumerate(VIEWS.items()):
        axes = figure.add_subplot(grid[n])
        _draw(axes, points, triangles, painted, np.array((right, (0, 0, 1), near), float), mm_per_inch)
        axes.set_title(name, fontsize=9)
    bar = figure.colorbar(scale, cax=figure.add_subplot(grid[len(VIEWS)]), extend="both")
    bar.set_label(label, fontsize=9)
    figure.suptitle(title, fontsize=11, y=1 - 0.15 / size[1])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def scale_of(ends, colors: str = "RdBu_r"):
    """The scale that paints values: ScalarMappable of a matplotlib colour map between two `ends`."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(*ends), colors)


def picture(mesh: vtkPolyData, values: np.ndarray, view: str, scale, pixel_mm: float) -> np.ndarray:
    """uint8 RGB (rows, columns, 3) of a bone seen as in `VIEWS`, on white, 2 mm of it around; values: (n points,)
    painted by `scale` (see `scale_of`), nan grey."""
    triangles = triangles_of(mesh)
    right, near = VIEWS[view]
    frame = np.array((right, (0, 0, 1), near), float)
    painted = _colors(np.asarray(values, float), triangles, scale)
    return _picture(points_of(mesh).astype(float), triangles, painted, frame, pixel_mm)[0]


def nice_limit_mm(distances_mm: np.ndarray) -> float:
    """Where the scale ends, so that few points lie beyond it."""
    known = np.abs(distances_mm[np.isfinite(distances_mm)])
    wanted = np.quantile(known, LIMIT_QUANTILE) if len(known) else 0.0
    return next((limit for limit in NICE_LIMITS_MM if limit >= wanted), NICE_LIMITS_MM[-1])


def _colors(values, triangles, scale) -> np.ndarray:
    """(n triangles, 3), 0..1, before the light falls on them."""
    middle = values[triangles].mean(axis=1)
    colors = scale.to_rgba(np.nan_to_num(middle))[:, :3]
    colors[~np.isfinite(middle)] = UNKNOWN
    return colors


def _draw(axes, points, triangles, colors, frame, mm_per_inch: float) -> None:
    shown, extent = _picture(points, triangles, colors, frame, mm_per_inch / _DPI / _SUPERSAMPLING)
    axes.imshow(shown, extent=extent, interpolation="antialiased")
    axes.set_axis_off()


def _picture(points, triangles, colors, frame, pixel_mm: float):
    """Triangles that face the reader, the farthest first, as orthographic projection on frame[:2]: the RGB picture,
    and its left, right, lower and upper end in mm."""
    import cv2

    seen = points @ frame.T
    (left, bottom), (right, top) = seen[:, :2].min(axis=0) - 2, seen[:, :2].max(axis=0) + 2
    corners = seen[triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = sums_at_points(across, triangles, len(points))[triangles].sum(axis=1)  # so that the light is smooth
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    shown = np.flatnonzero(across[:, 2] > 0)
    shown = shown[np.argsort(corners[shown, :, 2].mean(axis=1))]
    light = _AMBIENT + (1 - _AMBIENT) * np.clip(normals[shown] @ _LIGHT, 0, 1)
    painted = (255 * colors[shown] * light[:, None]).round().tolist()
    pixels = (corners[shown, :, :2] - (left, top)) / (pixel_mm, -pixel_mm)
    pixels = np.rint(pixels * 2**_SUBPIXEL_BITS).astype(np.int32)
    size = np.ceil(np.array((top - bottom, right - left)) / pixel_mm).astype(int)
    out = np.full((*size, 3), 255, np.uint8)
    for triangle, color in zip(pixels, painted, strict=True):
        cv2.fillConvexPoly(out, triangle, color, cv2.LINE_8, _SUBPIXEL_BITS)
    return out, (left, right, bottom, top)
