"""Pictures of a result: radiographs with the boxes drawn in, and the bones in three dimensions.

The bones are drawn by a small depth buffer in numpy. VTK's renderer needs OpenGL, and ends the whole process
on a machine that has no driver for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import sides
from .surface import coarse_surface, points_of, sums_at_points, triangles_of

if TYPE_CHECKING:
    from vtkmodules.vtkCommonDataModel import vtkPolyData

    from .localization.detection import Detection
    from .localization.radiograph import Radiograph

RADIOGRAPH_PIXELS = 900
"""A radiograph is enlarged by a whole number until its longer side has at least so many pixels."""

OVERVIEW_HEIGHT = 860
FINEST_OVERVIEW_MM = 0.2
"""Distance of pixels below which a small piece of bone is not enlarged further."""
_SUPERSAMPLING = 2
_SAMPLES_AT_ONCE = 200_000
_COARSE_PIXELS = 2.0
_MARGIN = 36
_BACKGROUND, _INK, _FAINT = (250, 250, 248), (40, 44, 52), (120, 124, 132)
_AMBIENT = 0.30
_LIGHT = np.array((-0.35, 0.45, 0.82)) / np.linalg.norm((-0.35, 0.45, 0.82))

_FRONT = np.array(((1, 0, 0), (0, 0, 1), (0, -1, 0)), float)
_OUTER = {
    sides.RIGHT: np.array(((0, -1, 0), (0, 0, 1), (-1, 0, 0)), float),
    sides.LEFT: np.array(((0, 1, 0), (0, 0, 1), (1, 0, 0)), float),
}
"""Rows: the LPS directions that point right, up, and towards the reader of the picture."""


def zoom_of(radiograph: Radiograph) -> int:
    """How many pixels of the drawn picture a pixel of the radiograph becomes."""
    return -(-RADIOGRAPH_PIXELS // max(radiograph.image.shape[:2]))


def draw_radiograph(radiograph: Radiograph, detections: dict[str, Detection]) -> Image.Image:
    """The radiograph, enlarged by `zoom_of`, with a box, the side and the score of each detection."""
    zoom = zoom_of(radiograph)
    tissue, bone = (radiograph.image[..., channel].astype(np.float32) for channel in (0, 1))
    grey = Image.fromarray(np.rint(0.45 * tissue + 0.55 * bone).astype(np.uint8))
    size = (grey.width * zoom, grey.height * zoom)
    picture = grey.resize(size, Image.Resampling.BICUBIC).convert("RGB")
    draw = ImageDraw.Draw(picture)
    font = _font(max(13, min(22, picture.width // 16)))
    _mark_sides(draw, picture.size, font)
    for side, detection in detections.items():
        color = _rgb(side)
        x0, y0, x1, y1 = (round(zoom * edge) for edge in detection.box)
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=color, width=3)
        text = f"{sides.DISPLAY_NAMES[side].split()[0]} {detection.score:.2f}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        width, height = right - left + 8, bottom - top + 8
        at_x = x0 if side == sides.RIGHT else x1 - width
        at_x = min(max(0, at_x), picture.width - width)
        at_y = y0 - height if y0 >= height else y0
        draw.rectangle((at_x, at_y, at_x + width, at_y + height), fill=color)
        draw.text((at_x + 4 - left, at_y + 4 - top), text, fill=(0, 0, 0), font=font)
    return picture


def draw_overview(surfaces: dict[str, vtkPolyData]) -> Image.Image:
    """The bones (none empty) from the front, and each from its outer side, at one scale and height."""
    panels = [("From the front", surfaces, _FRONT)]
    panels += [
        (f"{sides.DISPLAY_NAMES[side]} from its outer side", {side: shape}, _OUTER[side])
        for side, shape in surfaces.items()
    ]
    extents = [_extent(shown.values(), axes) for _, shown, axes in panels]
    bottom, top = extents[0][0][1], extents[0][1][1]
    for lower, upper in extents:
        lower[1], upper[1] = bottom, top
    tallest = top - bottom
    widest = max(upper[0] - lower[0] for lower, upper in extents)
    mm_per_pixel = max(tallest / OVERVIEW_HEIGHT, widest / OVERVIEW_HEIGHT, FINEST_OVERVIEW_MM)

    coarse = {side: coarse_surface(shape, _COARSE_PIXELS * mm_per_pixel) for side, shape in surfaces.items()}
    font, small = _font(22), _font(17)
    drawn = []
    for (title, shown, axes), (lower, upper) in zip(panels, extents, strict=True):
        drawn.append((title, _render({side: coarse[side] for side in shown}, axes, lower, upper, mm_per_pixel)))
    widths = [max(picture.width, round(small.getlength(title))) + 2 * _MARGIN for title, picture in drawn]
    height = max(picture.height for _, picture in drawn)
    sheet = Image.new("RGB", (sum(widths), height + 4 * _MARGIN), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    left = 0
    for width, (title, picture) in zip(widths, drawn, strict=True):
        draw.text((left + width // 2, _MARGIN // 2), title, fill=_INK, font=small, anchor="mt")
        sheet.paste(picture, (left + (width - picture.width) // 2, 2 * _MARGIN))
        left += width
    for text, x, anchor in (("R", _MARGIN // 3, "lm"), ("L", widths[0] - _MARGIN // 3, "rm")):
        draw.text((x, 2 * _MARGIN + height // 2), text, fill=_INK, font=font, anchor=anchor)
    _scale_bar(draw, (_MARGIN, sheet.height - _MARGIN), tallest, mm_per_pixel, small)
    return sheet


def _render(surfaces: dict[str, vtkPolyData], axes, lower, upper, mm_per_pixel: float) -> Image.Image:
    """Shaded orthographic picture of surfaces, each in its side's colour, seen along -axes[2]."""
    fine_mm = mm_per_pixel / _SUPERSAMPLING
    columns, rows = (
        int(np.ceil((b - a) / mm_per_pixel)) * _SUPERSAMPLING for a, b in zip(lower, upper, strict=True)
    )
    columns, rows = max(columns, _SUPERSAMPLING), max(rows, _SUPERSAMPLING)
    nearest = np.full(rows * columns, -1, np.int64)
    for number, surface in enumerate(surfaces.values()):
        for position, normal in _samples(surface, axes, fine_mm):
            column = np.clip((position[:, 0] - lower[0]) / fine_mm, 0, columns - 1).astype(np.int64)
            row = np.clip((upper[1] - position[:, 1]) / fine_mm, 0, rows - 1).astype(np.int64)
            depth = ((position[:, 2] + 1e4) * 1e3).astype(np.int64)  # micrometres from far behind
            light = _AMBIENT + (1 - _AMBIENT) * np.clip(normal @ _LIGHT, 0, 1)
            shade = (light * 255).astype(np.int64)
            np.maximum.at(nearest, row * columns + column, depth << 16 | number << 8 | shade)
    hit = (nearest >= 0).reshape(rows, columns)
    shade = ((nearest & 255) / 255).reshape(rows, columns)
    number = (nearest >> 8 & 255).reshape(rows, columns)
    picture = np.empty((rows, columns, 3))
    picture[:] = _BACKGROUND
    for at, side in enumerate(surfaces):
        here = hit & (number == at)
        picture[here] = shade[here][:, None] * np.array(_rgb(side))
    blocks = picture.reshape(rows // _SUPERSAMPLING, _SUPERSAMPLING, columns // _SUPERSAMPLING, _SUPERSAMPLING, 3)
    return Image.fromarray(np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8))


def _samples(surface: vtkPolyData, axes, step_mm: float):
    """Positions and unit normals (n, 3), in picture axes, dense enough to meet every pixel."""
    points = points_of(surface).astype(np.float32) @ axes.T.astype(np.float32)
    triangles = triangles_of(surface)
    corners = points[triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = sums_at_points(across, triangles, len(points)).astype(np.float32)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    front = across[:, 2] > 0
    triangles, corners = triangles[front], corners[front, :, :2]
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1, initial=0)
    parts = np.maximum(1, np.ceil(longest / step_mm)).astype(int)
    for count in np.unique(parts):
        a, b = np.meshgrid(np.arange(count + 1), np.arange(count + 1))
        inside = a + b <= count
        weights = (
            np.stack([a[inside], b[inside], count - a[inside] - b[inside]], axis=-1).astype(np.float32) / count
        )
        chosen = triangles[parts == count]
        together = max(1, _SAMPLES_AT_ONCE // len(weights))
        for start in range(0, len(chosen), together):
            some = chosen[start : start + together]
            yield tuple(np.matmul(weights, values[some]).reshape(-1, 3) for values in (points, normals))


def _extent(surfaces, axes) -> tuple[np.ndarray, np.ndarray]:
    """Lower left and upper right of surfaces seen along one of the patient's axes."""
    corners = np.concatenate([np.reshape(surface.GetBounds(), (3, 2)).T for surface in surfaces]) @ axes[:2].T
    return corners.min(axis=0), corners.max(axis=0)


def _mark_sides(draw: ImageDraw.ImageDraw, size: tuple[int, int], font) -> None:
    for text, x, anchor in (("R", 8, "lb"), ("L", size[0] - 8, "rb")):
        draw.text((x, size[1] - 8), text, fill=(235, 235, 235), font=font, anchor=anchor)


def _scale_bar(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], tallest_mm: float, mm_per_pixel: float, font
) -> None:
    length_mm = 50 if tallest_mm > 150 else 10
    end = at[0] + length_mm / mm_per_pixel
    draw.line((*at, end, at[1]), fill=_FAINT, width=3)
    draw.text((end + 8, at[1]), f"{length_mm} mm", fill=_FAINT, font=font, anchor="lm")


def _rgb(side: str) -> tuple[int, int, int]:
    return tuple(round(255 * channel) for channel in sides.COLORS[side])


def _font(size: int):
    return ImageFont.load_default(size)
