"""A picture a case, to look at: slices with the outline of the reference and of the result."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from FemurSegLib.sides import LABELS, SIDES, UNDECIDED_LABEL
from FemurSegLib.surface import bounds, box_around
from FemurSegLib.volume import Volume

WINDOW_HU = (-250, 1100)
HEIGHT_PIXELS = 620
MARGIN_MM = 25.0
AXIAL_PARTS = (0.06, 0.5, 0.9)
"""Heights along a femur at which an axial slice is shown, 0 its lower end."""
REFERENCE_BGR, UNDECIDED_BGR = (90, 220, 60), (60, 200, 230)
RESULT_BGR = {"right_femur": (60, 60, 255), "left_femur": (255, 130, 50)}
"""The reference is green, what it leaves open yellow; the result red (right) and blue (left)."""


def draw_case(path: Path, ct: Volume, result: Volume | None, reference: Volume | None, title: str = "") -> None:
    """Writes a PNG: for each femur in either labelmap, a row of a coronal, a sagittal and three axial slices.

    All volumes on one grid, any orientation. Without any femur, the middle of the volume.
    """
    volumes = [v.oriented() if v is not None else None for v in (ct, result, reference)]
    rows = []
    for side in SIDES:
        if box := _box(volumes[1:], LABELS[side]):
            rows.append(_row(*volumes, box, side.replace("_", " ")))
    rows = rows or [_row(*volumes, tuple(slice(0, n) for n in ct.oriented().grid.shape), "no femur")]
    _write_sheet(path, title, rows)


def _write_sheet(path: Path, title: str, rows: list[np.ndarray]) -> None:
    width = max(row.shape[1] for row in rows)
    rows = [cv2.copyMakeBorder(r, 0, 6, 0, width - r.shape[1], cv2.BORDER_CONSTANT) for r in rows]
    head = np.zeros((34, width, 3), np.uint8)
    _write(head, title, (8, 23), (235, 235, 235))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.vstack([head, *rows]))


def _box(labelmaps, label: int) -> tuple[slice, ...] | None:
    boxes = [b for v in labelmaps if v is not None and (b := bounds(v.voxels, label))]
    return box_around(boxes) if boxes else None


def _row(ct: Volume, result, reference, box, words: str) -> np.ndarray:
    k, j, i = box
    at = [(1, _heaviest(result, reference, box, 1)), (2, _heaviest(result, reference, box, 2))]
    at += [(0, round(k.start + part * (k.stop - 1 - k.start))) for part in sorted(AXIAL_PARTS, reverse=True)]
    panels = [_panel(ct, result, reference, box, axis, index) for axis, index in at]
    row = _beside(panels)
    _write(row, words, (8, 20), (235, 235, 235))
    return row


def _heaviest(result, reference, box, axis: int) -> int:
    """The slice across `axis` that shows most of the femur, so that shaft and joints are in the picture."""
    for volume in (reference, result):
        if volume is not None:
            inside = (volume.voxels[box] > 0) & (volume.voxels[box] != UNDECIDED_LABEL)
            area = inside.sum(axis=tuple(a for a in range(3) if a != axis))
            if area.any():
                return box[axis].start + int(area.argmax())
    return (box[axis].start + box[axis].stop) // 2


def _panel(ct: Volume, result, reference, box, axis: int, index: int) -> np.ndarray:
    """One slice around the box, isotropic, anterior or head up and the patient's right at the left edge."""
    spacing = ct.grid.spacing_mm[::-1]
    plane = [a for a in range(3) if a != axis]
    window = [slice(None)] * 3
    window[axis] = index
    for a in plane:
        margin = int(MARGIN_MM / spacing[a])
        window[a] = slice(max(0, box[a].start - margin), box[a].stop + margin)
    window = tuple(window)
    size_mm = [ct.voxels[window].shape[n] * spacing[a] for n, a in enumerate(plane)]
    scale = min(HEIGHT_PIXELS / size_mm[0], 4.0) if axis else min(0.5 * HEIGHT_PIXELS / max(size_mm), 4.0)
    shape = tuple(max(8, round(s * scale)) for s in size_mm[::-1])
    low, high = WINDOW_HU
    grey = (np.clip(ct.voxels[window].astype(np.float32), low, high) - low) / (high - low) * 255
    grey = cv2.resize(np.ascontiguousarray(grey).astype(np.uint8), shape, interpolation=cv2.INTER_LINEAR)
    picture = cv2.cvtColor(grey[::-1] if axis else grey, cv2.COLOR_GRAY2BGR)
    outlines = [(reference, UNDECIDED_LABEL, UNDECIDED_BGR)]
    outlines += [(reference, LABELS[side], REFERENCE_BGR) for side in SIDES]
    outlines += [(result, LABELS[side], RESULT_BGR[side]) for side in SIDES]
    for volume, label, color in outlines:
        if volume is None:
            continue
        mask = np.ascontiguousarray(volume.voxels[window] == label).astype(np.uint8)
        mask = cv2.resize(mask, shape, interpolation=cv2.INTER_NEAREST)
        mask = np.ascontiguousarray(mask[::-1]) if axis else mask
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, color, 1)
    return picture


def _write(picture, words: str, at, color) -> None:
    cv2.putText(picture, words, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(picture, words, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, 1, cv2.LINE_AA)


def draw_slices(path: Path, ct: Volume, labels: Volume, title: str = "", count: int = 15) -> None:
    """Writes a PNG to look a labelmap over: a coronal, a sagittal and `count` axial slices from foot to head.

    Both volumes on one grid, any orientation; undecided voxels are outlined too. Axial slices span the labels,
    or the whole CT where there is none.
    """
    ct, labels = ct.oriented(), labels.oriented()
    box = bounds((labels.voxels > 0).astype(np.uint8), 1)
    box = box or tuple(slice(0, n) for n in ct.grid.shape)
    long = [(1, _heaviest(labels, None, box, 1)), (2, _heaviest(labels, None, box, 2))]
    heights = np.unique(np.linspace(box[0].start, box[0].stop - 1, count).round().astype(int))
    rows = [_beside([_panel(ct, labels, labels, box, axis, at) for axis, at in long])]
    axial = []
    for k in heights:
        axial.append(_panel(ct, labels, labels, box, 0, int(k)))
        _write(axial[-1], f"slice {k}", (4, 16), (235, 235, 235))
    rows += [_beside(axial[n : n + 5]) for n in range(0, len(axial), 5)]
    _write_sheet(path, title, rows)


def _beside(panels) -> np.ndarray:
    height = max(p.shape[0] for p in panels)
    return np.hstack([cv2.copyMakeBorder(p, 0, height - p.shape[0], 0, 6, cv2.BORDER_CONSTANT) for p in panels])
