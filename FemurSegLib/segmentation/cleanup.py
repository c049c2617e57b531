"""From a probability to one solid body of bone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from FemurSegLib.surfaces.field import depth

THRESHOLD = 0.5
JOINED = 0.25
"""A piece with more than this part of what is its own in negative weight is two femora in one, and is parted."""
SPUR_RADIUS = 2.0
"""Voxels (of about 1 mm). Where a ball of this radius, rolling inside the bone, does not reach, there may be a
fleck of the socket or of the tibia that hangs on by a thread (Testing/benchmarks/spurs.py: with and without)."""
SPUR_REACH, SPUR_LENGTH = 1.0, 3.0
"""Such a part is cut off `SPUR_REACH` above where the ball was, if it goes on beyond `SPUR_LENGTH`; ridges and the
tips of thin true bone do not."""
SPUR_VOXELS = 1000
"""More than about 1 ml is no fleck but may be bone beyond a fracture, metal or a gap of the mask, and stays."""
BRIDGE_RADIUS, BONE_VOXELS = 4, 2000
"""Voxels (of about 1 mm). What a ball of this radius cannot reach from inside the femur is another bone, if 2 ml of
its middle or more are left: no femur is as thin as 8 mm anywhere, but tibia and femur touch over less."""


@dataclass(frozen=True)
class Body:
    """mask: bool (k, j, i), one solid body. field: float32, the probability with holes filled and other pieces
    taken away, to be resampled. certainty: 0..1, how little the mask changes with the threshold: Dice of the masks
    at 0.25 and at 0.75, the body only. second: volume of the next piece that is not the other side's, as a part of
    the body's. parted: whether the body was joined to what belongs to the other side, and was cut off there.
    severed: whether another bone hung on it by a narrow bridge, and was cut off."""

    mask: np.ndarray
    field: np.ndarray
    certainty: float
    second: float
    parted: bool = False
    severed: bool = False


def one_body(probability: np.ndarray, weight: np.ndarray | None = None) -> Body | None:
    """The femur in a probability (float32, (k, j, i)), or None where nothing passes the threshold.

    Pieces are 6-connected. The one with the largest sum of `weight` (float, same shape; 1 everywhere if not given)
    stays: negative weights keep what belongs to the other side away, and part what is joined to it. Holes are
    filled, in space and slice by slice: the mask is the solid periosteal envelope. Spurs are taken away.
    """
    pieces, count = ndimage.label(probability > THRESHOLD)
    if count == 0:
        return None
    sizes = np.bincount(pieces.ravel())[1:]
    weights = sizes if weight is None else np.bincount(pieces.ravel(), weights=weight.ravel())[1:]
    if weight is not None:
        own = np.bincount(pieces.ravel(), weights=np.maximum(weight, 0).ravel())[1:]
        foreign = np.bincount(pieces.ravel(), weights=(weight < 0).ravel())[1:]
        most = int(np.argmax(own))
        if JOINED * own[most] < foreign[most] <= own[most]:
            body = one_body(np.where(weight < 0, 0, probability).astype(np.float32), weight)
            return body and replace(body, parted=True)
    best = int(np.argmax(weights))
    if weights[best] <= 0:
        return None
    mask = pieces == best + 1
    others = np.delete(np.where(weights > 0, sizes, 0), best)
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    box = tuple(slice(max(0, s.start - 3), s.stop + 3) for s in box)
    certainty = _certainty(probability[box], mask[box])
    solid = _solid(mask[box])
    alone = without_other_bone(solid, None if weight is None else weight[box])
    kept = without_spurs(alone)
    field = np.zeros_like(probability)
    near = ndimage.binary_dilation(kept) & (kept | ~solid)
    field[box] = np.where(kept & ~mask[box], 1.0, np.where(near, probability[box], 0.0))
    mask[box] = kept
    second = float(others.max() / sizes[best]) if len(others) else 0.0
    return Body(mask, field, certainty, second, severed=alone is not solid)


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest 6-connected piece of a bool mask (k, j, i)."""
    pieces, count = ndimage.label(mask)
    return mask if count < 2 else pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1


def without_other_bone(mask: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """A solid bool mask (k, j, i) of about 1 mm voxels without other bones that hang on it by a narrow bridge; the
    same array where there are none.

    Its middles are what a ball of `BRIDGE_RADIUS` fills, at half the resolution. The one with the most `weight` (1
    everywhere if not given) is the femur, and what lies nearer to another is not. Where the array ends the bone is
    taken to go on.
    """
    half = (slice(None, None, 2),) * 3
    radius = BRIDGE_RADIUS / 2
    wide = np.pad(mask[half], int(radius) + 1, mode="edge")
    inner = (slice(int(radius) + 1, -int(radius) - 1),) * 3
    middles, count = ndimage.label((depth(wide, (1.0, 1.0, 1.0), radius) > radius)[inner])
    sizes = 8 * np.bincount(middles.ravel())[1:]
    if np.count_nonzero(sizes >= BONE_VOXELS) < 2:
        return mask
    own = np.bincount(middles.ravel(), weights=None if weight is None else weight[half].ravel())[1:]
    femur = 1 + int(np.argmax(np.where(sizes >= BONE_VOXELS, own, -np.inf)))
    middles[np.isin(middles, 1 + np.flatnonzero(sizes < BONE_VOXELS))] = 0
    nearest = ndimage.distance_transform_edt(middles == 0, return_distances=False, return_indices=True)
    of_femur = (middles[tuple(nearest)] == femur).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    return largest(mask & of_femur[tuple(slice(n) for n in mask.shape)])


def without_spurs(mask: np.ndarray) -> np.ndarray:
    """A solid bool mask (k, j, i) of about 1 mm voxels without what hangs on it by a thread.

    An opening by a ball, of which the largest piece stays. Where the array ends the bone is taken to go on.
    """
    voxel = (1.0, 1.0, 1.0)
    wide = np.pad(mask, 1, mode="edge")
    core = largest((depth(wide, voxel, SPUR_RADIUS) > SPUR_RADIUS)[1:-1, 1:-1, 1:-1])
    if not core.any():
        return mask
    above = depth(~core, voxel, SPUR_RADIUS + SPUR_LENGTH) - SPUR_RADIUS
    parts, count = ndimage.label(mask & (above > SPUR_REACH))
    if not count:
        return mask
    spurs = np.zeros(count + 1, bool)
    spurs[parts[mask & (above > SPUR_LENGTH)]] = True
    spurs &= np.bincount(parts.ravel()) <= SPUR_VOXELS
    return largest(mask & ~spurs[parts])


def _solid(mask: np.ndarray) -> np.ndarray:
    filled = ndimage.binary_fill_holes(mask)
    for section in filled:
        if section.any():
            section[:] = ndimage.binary_fill_holes(section)
    return filled


def _certainty(probability: np.ndarray, mask: np.ndarray) -> float:
    near = ndimage.binary_dilation(mask, iterations=2)
    wide, narrow = (probability > 0.25) & near, (probability > 0.75) & near
    return float(2 * narrow.sum() / max(1, wide.sum() + narrow.sum()))
