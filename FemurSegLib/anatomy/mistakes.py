"""Masks with the mistakes that a segmentation makes, of a femur and the bones next to it whose surfaces are known.

Used by `study` to say how far each measurement moves with them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from FemurSegLib.grid import Grid
from FemurSegLib.sides import LABELS
from FemurSegLib.surface import sums_at_points

from .bone import Bone
from .stability import voxelize

SLIVER_RADIUS_MM, SLIVER_DEPTH_MM = 12.0, 3.0
"""Part of the neighbour that is taken in: so far around a point of the joint, so deep below its surface."""
JOINT_SPACE_MM = 6.0
"""Voxels this close to both bones, in sum, lie in the joint space between them; a sliver fills it."""
LARGER = 1.04
"""Volume of a mask that is too large all around."""
THICK_SLICES_MM = 3.27


def mistaken(
    bone: Bone, neighbours: dict[str, Bone], spacing_mm, seed: int = 0, slivers: int = 2
) -> Iterator[tuple[str, Bone]]:
    """Yields (kind, the bone as its wrong mask shows it): `slivers` of each of the neighbours ("hip", "tibia") at
    random places of the joint, one mask that is 4 % too large, and one of slices of 3.27 mm."""
    rng = np.random.default_rng(seed)
    labels, grid = voxelize(bone, spacing_mm)
    mask = labels > 0
    for name, neighbour in neighbours.items():
        other = voxelize(neighbour, spacing_mm, grid)[0] > 0
        for _ in range(slivers):
            wrong = with_sliver(mask, other, grid, rng)
            if wrong is not None:
                yield f"sliver of the {name}", _bone(wrong, grid, bone.side)
    yield f"{LARGER - 1:.0%} too large", Bone.of_mask(*voxelize(enlarged(bone, LARGER), spacing_mm), bone.side)
    thick = (*spacing_mm[:2], THICK_SLICES_MM)
    yield f"slices of {THICK_SLICES_MM} mm", Bone.of_mask(*voxelize(bone, thick), bone.side)


def with_sliver(mask: np.ndarray, other: np.ndarray, grid: Grid, rng: np.random.Generator) -> np.ndarray | None:
    """The mask (k, j, i) with a piece of the other bone's and the joint space between them, about a random point of
    the joint. None where they are nowhere close."""
    from scipy.ndimage import distance_transform_edt

    spacing = np.array(grid.spacing_mm[::-1])
    margin = np.ceil((SLIVER_RADIUS_MM + JOINT_SPACE_MM) / spacing).astype(int)
    where = np.argwhere(other)
    if not len(where):
        return None
    low, high = np.maximum(where.min(axis=0) - margin, 0), where.max(axis=0) + margin + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    one, two = mask[box], other[box] & ~mask[box]
    if not one.any() or not two.any():
        return None
    to_one, to_two = (distance_transform_edt(~each, sampling=spacing) for each in (one, two))
    joint = np.argwhere(two & (to_one < JOINT_SPACE_MM))
    if not len(joint):
        return None
    place = joint[rng.integers(len(joint))]
    offset = [(np.arange(n) - p) * s for n, p, s in zip(one.shape, place, spacing, strict=True)]
    ball = sum(each**2 for each in np.meshgrid(*offset, indexing="ij", sparse=True)) < SLIVER_RADIUS_MM**2
    shallow = two & (distance_transform_edt(two, sampling=spacing) < SLIVER_DEPTH_MM)
    space = to_one + to_two < JOINT_SPACE_MM + spacing.max()
    wrong = mask.copy()
    wrong[box] |= ball & (shallow | space)
    return wrong


def enlarged(bone: Bone, factor: float) -> Bone:
    """The bone with a layer of even thickness on it, to `factor` times its volume."""
    normals = sums_at_points(bone.normals * bone.areas_mm2[:, None], bone.triangles, len(bone.points_mm))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    layer_mm = (factor - 1) * bone.volume_mm3 / bone.areas_mm2.sum()
    return Bone(bone.points_mm + layer_mm * normals, bone.triangles, bone.side)


def _bone(mask: np.ndarray, grid: Grid, side: str) -> Bone:
    return Bone.of_mask(mask.astype(np.uint8) * LABELS[side], grid, side)
