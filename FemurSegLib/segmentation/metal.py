"""Metal beside the bone is no bone: what a network that was shown implants still takes for femur.

    metal = metal_in(crop)                                  # None for a CT without metal: then nothing is touched
    if metal is not None:
        probability = without_metal_beside(probability, metal)

The head and the neck of a hip prosthesis, a plate, a nail where it leaves the bone: the network calls them femur,
as it does a nail in its canal. The mask is the solid envelope of the bone: metal belongs to it where bone is all
around. What streaks do to the mask is not undone here.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from FemurSegLib.segmentation.confidence import METAL_HU, METAL_MM
from FemurSegLib.segmentation.inference import to_working_grid
from FemurSegLib.segmentation.network import SPACING_MM, normalize
from FemurSegLib.surfaces.field import depth

if TYPE_CHECKING:
    from FemurSegLib.volume import Grid, Volume

SOLID_HU = 2500
"""What is above in a block of at least a voxel and its six neighbours is metal beyond doubt, and no dense cortex
that a sharp kernel or noise lifts here and there."""
RIM_VOXELS = 2
"""So far around such blocks all above METAL_HU is metal too."""
SMALLEST_ML = 0.1
"""Less metal than this is left alone; a clip or a drill tip hides nothing."""
REACH_MM = 25.0
"""How far to look for bone: across the widest canal, and from the middle of a condyle to its surface."""
PERHAPS = 0.2
"""What has this probability counts as bone here: dark streaks beside metal hide the bone around it."""
BESIDE = 10
"""Metal that sees bone in no more of the 26 directions lies beside it: on a flat face it sees bone in 9, on the
round of a shaft or above the cut of a neck in fewer, in a canal in 24 or more."""

_DIRECTIONS = [d for d in product((-1, 0, 1), repeat=3) if any(d)]


def metal_in(crop: Volume) -> np.ndarray | None:
    """Where an oriented CT (int16 HU) shows metal: bool (k, j, i) on the network's grid; None where it does not.

    The blur of its edge, half a voxel of the CT, belongs to it.
    """
    if np.count_nonzero(crop.voxels > SOLID_HU) * np.prod(crop.grid.spacing_mm) < 1000 * SMALLEST_ML:
        return None
    bright = to_working_grid(crop)[0, 0].numpy()
    solid = ndimage.binary_opening(bright > _seen_as(SOLID_HU))
    if solid.sum() * np.prod(SPACING_MM) < 1000 * SMALLEST_ML:
        return None
    metal = ndimage.binary_dilation(solid, iterations=RIM_VOXELS) & (bright > _seen_as(METAL_HU))
    return ndimage.binary_dilation(metal, iterations=max(1, round(max(crop.grid.spacing_mm) / 2)))


def _seen_as(hu: float) -> float:
    """HU as the network sees it."""
    return float(normalize(torch.tensor(float(hu))))


def without_metal_beside(probability: np.ndarray, metal: np.ndarray) -> np.ndarray:
    """The probability of femur (float32, (k, j, i), 1 mm), 0 for metal beside the bone.

    metal: bool, same shape, not empty. Where the array ends the bone is taken to go on.
    """
    reach = int(REACH_MM)
    place = ndimage.find_objects(metal.astype(np.uint8))[0]
    box = tuple(slice(max(0, at.start - reach), at.stop + reach) for at in place)
    seen = _directions_to((probability[box] > PERHAPS) & ~metal[box], reach)
    out = probability.copy()
    out[box][metal[box] & (seen <= BESIDE)] = 0.0
    return out


def _directions_to(bone: np.ndarray, reach: int) -> np.ndarray:
    """In how many of the 26 directions bone (bool) lies within so many voxels; uint8."""
    wide = np.pad(bone, reach, mode="edge")
    count = np.zeros(bone.shape, np.uint8)
    inner = tuple(slice(reach, reach + n) for n in bone.shape)
    for direction in _DIRECTIONS:
        steps, covered = round(reach / np.linalg.norm(direction)), 0
        seen = wide
        while covered < steps:  # twice as far each time; what rolls over the edge does not come back to the middle
            step = min(max(covered, 1), steps - covered)
            seen = seen | np.roll(seen, [-step * d for d in direction], axis=(0, 1, 2))
            covered += step
        count += seen[inner]
    return count


def slices_with_metal(mask: np.ndarray, metal: np.ndarray, grid: Grid) -> tuple[float, float] | None:
    """The LPS z (mm, S in RAS) of the lowest and the highest slice with metal in or within METAL_MM of a mask.

    mask, metal: bool (k, j, i) on the network's grid over the extent of `grid` (oriented). None without any.
    """
    near = depth(~mask, SPACING_MM, METAL_MM) <= METAL_MM
    slices = np.nonzero((metal & near).any(axis=(1, 2)))[0]
    if not len(slices):
        return None
    at = (slices[[0, -1]] + 0.5) / len(mask) * grid.shape[0] - 0.5
    middle = (np.array(grid.shape[:0:-1]) - 1) / 2
    return tuple(float(grid.lps((*middle, k))[2]) for k in at)
