"""The thickness of the cortex in the report: each femur painted with it, from four sides, over a scale in mm."""

from __future__ import annotations

import numpy as np

from FemurSegLib.anatomy.thickness import COLORS, THICKEST_MM, THICKNESS_ARRAY, read_painted
from FemurSegLib.html_page import inline_png
from FemurSegLib.result import Result
from FemurSegLib.sides import DISPLAY_NAMES, SIDES

WIDTH_MM = 44.0
"""Of the column with the pictures."""
PIXELS_PER_MM = 12.0
"""Of the page: 300 an inch."""
TICKS_MM = (0, 2, 4, 6, 8)

STYLE = f"""
.cortex {{ width: {WIDTH_MM:g}mm; display: flex; flex-direction: column; gap: 1mm; color: #4a5462;
  font-size: 7pt; line-height: 1.25; }}
.cortex h3 {{ margin: 0; font-size: 8.5pt; color: #1c2128; }}
.cortex figure {{ display: flex; flex-direction: column; min-height: 0; }}
.cortex figure img {{ flex: 1 1 0; min-height: 0; width: 100%; object-fit: contain;
  object-position: top; }}
.cortex figcaption {{ font-size: 7pt; line-height: 1.25; margin: 0 0 .5mm; }}
.cortex .scale {{ height: 2mm; width: 100%; display: block; image-rendering: pixelated; }}
.cortex .ticks {{ display: flex; justify-content: space-between; }}
"""


def thickness(result: Result, anatomy: dict) -> str:
    """A column of the page; "" where the result has no painted surfaces. Raises InputError where one is damaged."""
    painted = {side: surface for side in SIDES if (surface := painted_surface(result, side)) is not None}
    if not painted:
        return ""
    from FemurSegLib.evaluation.painted_bone import scale_of

    scale = scale_of((0, THICKEST_MM), COLORS)
    figures = []
    for side, surface in painted.items():
        width, height = _size_mm(surface)
        views = _views(surface, scale, width / (WIDTH_MM * PIXELS_PER_MM))
        figures.append(
            f'<figure style="flex:{height / width + 0.2:.2f} 1 0">'
            f"<figcaption>{_words(side, anatomy[side])}</figcaption>"
            f'<img src="{inline_png(views)}" alt="Painted by its cortex"></figure>'
        )
    colors = (255 * scale.to_rgba(np.linspace(0, THICKEST_MM, 256))[None, :, :3]).round().astype(np.uint8)
    ticks = "".join(f"<span>{mm}{' mm' if mm == TICKS_MM[-1] else ''}</span>" for mm in TICKS_MM)
    return (
        '<div class="cortex"><h3>Thickness of the cortex</h3>' + "".join(figures) + "<div>"
        f'<img class="scale" src="{inline_png(colors)}" alt="Scale of the colours"><div class="ticks">{ticks}</div>'
        "From the front, back, right and left. Grey: not measured.</div></div>"
    )


def painted_surface(result: Result, side: str):
    """The vtkPolyData of a result that carries the thickness, or None. Raises InputError where it is damaged."""
    path = result.file(f"{side}_thickness")
    return None if path is None else read_painted(path)


def _size_mm(surface) -> tuple[float, float]:
    """Width and height of all views of a bone beside each other."""
    from FemurSegLib.evaluation.painted_bone import VIEWS

    low, high = np.array(surface.GetBounds()).reshape(3, 2).T
    return sum((high - low) @ np.abs(right) + 4.0 for right, _ in VIEWS.values()), high[2] - low[2] + 4.0


def _views(surface, scale, pixel_mm: float) -> np.ndarray:
    """All views of a bone beside each other."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    from FemurSegLib.evaluation.painted_bone import VIEWS, picture

    values = vtk_to_numpy(surface.GetPointData().GetArray(THICKNESS_ARRAY))
    return np.concatenate([picture(surface, values, view, scale, pixel_mm) for view in VIEWS], axis=1)


def _words(side: str, record: dict | None) -> str:
    told = ((record or {}).get("compartments") or {}).get("thickness") or {}
    if told.get("mean_mm") is None:
        return DISPLAY_NAMES[side]
    words = (
        "{name}: mean {mean_mm:.1f} mm, median {median_mm:.1f} mm, nine tenths {p05_mm:.1f} to {p95_mm:.1f} mm; "
        "measured on {covered:.0%} of the surface"
    )
    return words.format(name=DISPLAY_NAMES[side], **told)
