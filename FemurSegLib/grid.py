"""Where voxels lie in the patient: the one place where voxel coordinates become millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels lie in the patient. Left-handed, oblique and permuted axes are all allowed.

    Two grids are compared with `matches`, never with `==`.
    """

    shape: tuple[int, int, int]
    """Number of voxels (k, j, i)."""
    spacing_mm: tuple[float, float, float]
    """Distance of neighbours along (i, j, k)."""
    origin_mm: tuple[float, float, float]
    """LPS position of the centre of voxel [0, 0, 0]."""
    direction: np.ndarray
    """(3, 3); its columns are the LPS unit vectors of the i, j and k axes."""

    def __post_init__(self):
        direction = np.array(self.direction, dtype=float).reshape(3, 3)
        direction.setflags(write=False)
        object.__setattr__(self, "direction", direction)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "spacing_mm", tuple(float(s) for s in self.spacing_mm))
        object.__setattr__(self, "origin_mm", tuple(float(x) for x in self.origin_mm))

    def ijk_to_lps(self) -> np.ndarray:
        """(4, 4) matrix from homogeneous (i, j, k) to LPS millimetres."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.direction * self.spacing_mm
        matrix[:3, 3] = self.origin_mm
        return matrix

    def lps(self, ijk) -> np.ndarray:
        """LPS millimetres of continuous voxel coordinates; both (..., 3)."""
        return np.asarray(ijk, dtype=float) @ (self.direction * self.spacing_mm).T + self.origin_mm

    def ijk(self, lps) -> np.ndarray:
        """Continuous voxel coordinates of LPS points; both (..., 3)."""
        offset = np.asarray(lps, dtype=float) - self.origin_mm
        return offset @ np.linalg.inv(self.direction * self.spacing_mm).T

    def crop(self, lower_kji, upper_kji) -> Grid:
        """The grid of voxels[lower_kji[0]:upper_kji[0], ...]; half open, inside the grid."""
        lower, upper = box(lower_kji, upper_kji, self.shape)
        return Grid(tuple(upper - lower), self.spacing_mm, self.lps(lower[::-1]), self.direction)

    def window(self, crop: Grid) -> tuple[slice, ...]:
        """Slices (k, j, i) of this grid's voxels that a `crop` of it has."""
        lower = np.rint(self.ijk(crop.origin_mm)).astype(int)[::-1]
        return tuple(slice(a, a + n) for a, n in zip(lower, crop.shape, strict=True))

    def oriented(self) -> Grid:
        """The same voxels, with axes taken in the order and sense nearest to Left, Posterior, Superior."""
        axes, flipped = self.nearest_lps()
        sign = np.where(flipped, -1.0, 1.0)
        size = np.array(self.shape[::-1])
        corner = np.zeros(3)
        for axis, flip in zip(axes, flipped, strict=True):
            corner[axis] = size[axis] - 1 if flip else 0
        return Grid(
            tuple(size[axes][::-1]),
            np.array(self.spacing_mm)[axes],
            self.lps(corner),
            self.direction[:, axes] * sign,
        )

    def describe_size(self) -> str:
        """The size in words, along (i, j, k): "512 x 512 x 1400"."""
        return " x ".join(str(n) for n in self.shape[::-1])

    def matches(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether both have the same shape and no voxel differs in place by more than `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape[::-1]])).reshape(3, -1).T
        return bool(np.linalg.norm(self.lps(corners) - other.lps(corners), axis=1).max() <= tolerance_mm)

    def nearest_lps(self) -> tuple[list[int], list[bool]]:
        """For each of L, P, S: which of (i, j, k) runs along it, and whether it runs backwards."""
        closeness = np.abs(self.direction).round(6)
        axes = max(permutations(range(3)), key=lambda order: closeness[range(3), order].sum())
        return list(axes), [bool(self.direction[row, axis] < 0) for row, axis in enumerate(axes)]


def box(lower_kji, upper_kji, shape) -> tuple[np.ndarray, np.ndarray]:
    """Both corners as integer arrays. Raises ValueError unless they bound at least one voxel, all inside."""
    lower, upper = np.array(lower_kji, dtype=int), np.array(upper_kji, dtype=int)
    if (lower < 0).any() or (upper > shape).any() or (lower >= upper).any():
        raise ValueError(f"the box {lower}..{upper} is empty or leaves the grid {shape}")
    return lower, upper
