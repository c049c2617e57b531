"""How far a femur goes on beyond the box it was looked for in: followed outwards, in small boxes, by the network.

    lower, upper, endless = beyond(ct, mask, lower, upper, probability, margin_mm=12)

A whole box is segmented again once, when it is known how wide it has to be, and not wider and wider. A mask that
goes on and on has most likely gone over into another bone: there the box stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from FemurSegLib.segmentation.cleanup import THRESHOLD

if TYPE_CHECKING:
    from FemurSegLib.volume import Volume

STEP_MM = (40.0, 60.0, 60.0)
"""How far beyond the face of a box one look goes, by axis (k, j, i). Up and down a box is seldom as short as
that, and the next bone begins there."""
STEPS = (1, 2, 1)
"""Looks beyond a face, by axis. More front to back: one view alone sees that extent."""
INSIDE_MM, BESIDE_MM = 40.0, 30.0
"""What a look shows of the box itself, and around the part of its face that the mask touches."""

Corners = tuple[np.ndarray, np.ndarray]
"""Whole voxels [lower, upper) as (k, j, i)."""


def beyond(
    ct: Volume, mask: np.ndarray, lower, upper, probability: Callable[[Volume], np.ndarray], margin_mm: float
) -> tuple[np.ndarray, np.ndarray, bool]:
    """The box that holds the femur, and whether it did not end within reach somewhere.

    ct: oriented. mask: bool (k, j, i) over the box [lower, upper) of it, any spacing. probability: of a crop, as
    `inference.Runner.probability`. Only faces that the mask touches and beyond which the scan goes on are moved;
    margin_mm is kept around what is found there.
    """
    lower, upper = np.array(lower), np.array(upper)
    margin = np.ceil(margin_mm / np.array(ct.grid.spacing_mm[::-1])).astype(int)
    low, high, endless = lower.copy(), upper.copy(), False
    for axis, end in product(range(3), (0, 1)):
        touched = mask.take(-end, axis)
        if not touched.any() or (upper[axis] == ct.grid.shape[axis] if end else lower[axis] == 0):
            continue
        found = _follow(ct, _spread(touched, axis, end, lower, upper), axis, end, probability)
        if found is None:
            endless = True
        elif (found[0] < found[1]).all():
            low, high = np.minimum(low, found[0] - margin), np.maximum(high, found[1] + margin)
    return np.maximum(low, 0), np.minimum(high, ct.grid.shape), endless


def _spread(touched: np.ndarray, axis: int, end: int, lower, upper) -> Corners:
    """The box, flat along `axis`, around what of a face of the box [lower, upper) is touched."""
    shape = np.insert(touched.shape, axis, 1)
    at = np.argwhere(np.expand_dims(touched, axis))
    first, last = at.min(0), at.max(0) + 1
    low = lower + np.floor(first / shape * (upper - lower)).astype(int)
    high = lower + np.ceil(last / shape * (upper - lower)).astype(int)
    low[axis] = high[axis] = (lower, upper)[end][axis]
    return low, high


def _follow(ct: Volume, face: Corners, axis: int, end: int, probability) -> Corners | None:
    """What the bone that passes through `face` fills on the other side, flat if nothing; None if it does not end
    within reach."""
    spacing, size = np.array(ct.grid.spacing_mm[::-1]), np.array(ct.grid.shape)
    low, high = (corner.copy() for corner in face)
    for _ in range(STEPS[axis]):
        before, after = np.full(3, BESIDE_MM), np.full(3, BESIDE_MM)
        before[axis], after[axis] = (INSIDE_MM, STEP_MM[axis]) if end else (STEP_MM[axis], INSIDE_MM)
        start = np.maximum(face[0] - np.ceil(before / spacing).astype(int), 0)
        stop = np.minimum(face[1] + np.ceil(after / spacing).astype(int), size)
        shown = probability(ct.crop(tuple(start), tuple(stop))) > THRESHOLD
        voxels = np.array(shown.shape) / (stop - start)
        first, last = (np.round((corner - start) * voxels).astype(int) for corner in face)
        there = slice(first[axis], None) if end else slice(0, first[axis])  # beyond the face
        pieces, _ = ndimage.label(shown[_along(axis, there)])
        across = [slice(a, max(b, a + 1)) for a, b in zip(first, last, strict=True)]
        across[axis] = slice(0, 1) if end else slice(-1, None)
        bone = np.isin(pieces, np.setdiff1d(pieces[tuple(across)], 0))
        if not bone.any():
            return low, high
        at = np.argwhere(bone)
        shift = np.where(np.arange(3) == axis, there.start or 0, 0)
        seen = start + np.floor((at.min(0) + shift) / voxels), start + np.ceil((at.max(0) + 1 + shift) / voxels)
        low, high = np.minimum(low, seen[0].astype(int)), np.maximum(high, seen[1].astype(int))
        touched = bone.take(-end, axis)
        if not touched.any() or (stop[axis] == size[axis] if end else start[axis] == 0):
            return low, high
        face = _spread(touched, axis, end, *_beyond_face(start, stop, axis, face[0][axis], end))
    return None


def _beyond_face(start, stop, axis: int, at: int, end: int) -> Corners:
    start, stop = start.copy(), stop.copy()
    (start if end else stop)[axis] = at
    return start, stop


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if a == axis else slice(None) for a in range(3))
