"""One femur as a closed surface, and the plane sections of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from FemurSegLib.errors import InputError
from FemurSegLib.sides import LABELS, OTHER, RIGHT

from .fitting import unit

if TYPE_CHECKING:
    from FemurSegLib.grid import Grid

MIRROR = np.array([-1.0, 1.0, 1.0])
FLAT_DEPTH_MM = 0.25
FLAT_AREA_MM2 = 250.0
"""A bone cut by the edge of the volume ends in a plane. No femur has so much surface so close to one plane: a
cap of a sphere this deep covers 2 pi r depth, 60 mm2 under each condyle; a shaft's section has 450."""
FLAT_SHARE, ROUND_DEPTH_MM = 0.5, 2.0
"""Of the surface within 2 mm of the plane and facing its way, at least half is flat; of a round end, an eighth."""
NORMALS_MM = 2.5
"""Standard deviation, along the surface, of the average that `smooth_normals` takes."""


@dataclass(frozen=True)
class Cap:
    """A flat end where a bone was cut: its middle and its outward normal (LPS, mm)."""

    center_mm: np.ndarray
    normal: np.ndarray


@dataclass(frozen=True)
class Loop:
    """One closed curve of a plane section: area, centroid, and the ends of its segments (n, 2, 3), LPS mm."""

    area_mm2: float
    centroid_mm: np.ndarray
    segments_mm: np.ndarray


def largest_surface(labels: np.ndarray, grid: Grid, side: str, pieces: bool = True, **options):
    """vtkPolyData (LPS mm) of a femur in a labelmap (k, j, i) on `grid`; of several pieces the largest.

    pieces: whether there may be several; to look takes as long as the surface. options: those of
    surface.surface_of. Raises InputError if there is no femur.
    """
    from FemurSegLib.segmentation.cleanup import largest
    from FemurSegLib.surface import bounds, surface_of

    box = bounds(labels, LABELS[side])
    if box is None:
        raise InputError(
            f"The mask holds no {side.replace('_', ' ')} (label {LABELS[side]}).",
            "Labels are 1 for the right femur and 2 for the left one.",
        )
    lower = [max(0, s.start - 1) for s in box]  # a voxel to spare, unless the scan ends there
    upper = [min(n, s.stop + 1) for s, n in zip(box, labels.shape, strict=True)]
    mask = labels[tuple(map(slice, lower, upper))] == LABELS[side]
    if pieces:
        mask = largest(mask)
    return surface_of(mask.astype(np.uint8), grid.crop(lower, upper), 1, **options)


@dataclass(frozen=True, eq=False)
class Bone:
    """A closed, outward triangle surface of one femur.

    points_mm: (n, 3) LPS; triangles: (m, 3), counter-clockwise seen from outside; side: RIGHT or LEFT, the
    patient's.
    """

    points_mm: np.ndarray
    triangles: np.ndarray
    side: str

    @classmethod
    def of_surface(cls, surface, side: str) -> Bone:
        """From a vtkPolyData of triangles in LPS mm."""
        from FemurSegLib.surface import points_of, triangles_of

        return cls(points_of(surface).astype(float), triangles_of(surface).astype(np.int64), side)

    @classmethod
    def of_mask(cls, labels: np.ndarray, grid: Grid, side: str, **options) -> Bone:
        """From a labelmap: of its `largest_surface`, which takes the options."""
        return cls.of_surface(largest_surface(labels, grid, side, **options), side)

    def mirrored(self) -> Bone:
        """The same bone as one of the other side."""
        return Bone(self.points_mm * MIRROR, self.triangles[:, ::-1], OTHER[self.side])

    def as_right(self) -> Bone:
        """Itself, or its mirror image: a right femur in any case."""
        return self if self.side == RIGHT else self.mirrored()

    def part(self, elements: np.ndarray) -> Bone:
        """Only the chosen triangles (m,), an open surface: quicker to cut where loops lie wholly in it."""
        used, triangles = np.unique(self.triangles[elements], return_inverse=True)
        return Bone(self.points_mm[used], triangles.reshape(-1, 3), self.side)

    @cached_property
    def corners_mm(self) -> np.ndarray:
        return self.points_mm[self.triangles]

    @cached_property
    def _corner_ids(self) -> np.ndarray:
        return np.ascontiguousarray(self.triangles.T)

    @cached_property
    def centers_mm(self) -> np.ndarray:
        return self.corners_mm.mean(axis=1)

    @cached_property
    def _vectors(self) -> np.ndarray:
        edges = self.corners_mm - self.corners_mm[:, :1]
        return 0.5 * np.cross(edges[:, 1], edges[:, 2])

    @cached_property
    def areas_mm2(self) -> np.ndarray:
        return np.linalg.norm(self._vectors, axis=1)

    @cached_property
    def normals(self) -> np.ndarray:
        """Outward, of the triangles."""
        return self._vectors / np.maximum(self.areas_mm2, 1e-12)[:, None]

    @cached_property
    def smooth_normals(self) -> np.ndarray:
        """Outward normals of the triangles, averaged over their surroundings (`NORMALS_MM`), against noise."""
        from scipy.sparse import coo_matrix, diags

        a, b, c = self.triangles.T
        rows, columns = np.concatenate([a, b, c, b, c, a]), np.concatenate([b, c, a, a, b, c])
        size = len(self.points_mm)
        mesh = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(size, size)).tocsr()
        mesh = diags(1 / np.maximum(np.asarray(mesh.sum(axis=1)).ravel(), 1)) @ mesh
        edge = np.sqrt(self.areas_mm2.sum() / len(self.triangles) * 4 / np.sqrt(3))
        steps = int(np.clip(np.rint(2 * (NORMALS_MM / edge) ** 2), 1, 60))
        vectors = np.stack(
            [sum(np.bincount(ids, weights=v, minlength=size) for ids in (a, b, c)) for v in self._vectors.T], axis=1
        )
        for _ in range(steps):
            vectors = mesh @ vectors
        normals = vectors[a] + vectors[b] + vectors[c]
        return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)

    @cached_property
    def volume_mm3(self) -> float:
        return float(np.einsum("ij,ij->", self.centers_mm - self.points_mm[0], self._vectors) / 3)

    @cached_property
    def center_mm(self) -> np.ndarray:
        """Centroid of the solid."""
        return self._moments[0]

    @cached_property
    def principal_axes(self) -> np.ndarray:
        """(3, 3): rows are the principal axes of the solid, the longest first (sign and order of points in
        the mesh play no part)."""
        return np.linalg.eigh(self._moments[1])[1].T[::-1]

    @cached_property
    def _moments(self):
        origin = self.points_mm.mean(axis=0)
        a, b, c = np.moveaxis(self.corners_mm - origin, 1, 0)
        volumes = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6  # of tetrahedra to the origin
        total = a + b + c
        first = (volumes[:, None] * total).sum(axis=0) / 4
        second = sum((volumes[:, None] * v).T @ v for v in (a, b, c, total)) / 20
        volume = volumes.sum()
        return origin + first / volume, second / volume - np.outer(first, first) / volume**2

    @cached_property
    def hull_mm(self) -> np.ndarray:
        """(n, 3) corners of the convex hull."""
        return self.points_mm[self._hull.vertices]

    @cached_property
    def _hull(self):
        from scipy.spatial import ConvexHull

        return ConvexHull(self.points_mm)

    @cached_property
    def caps(self) -> list[Cap]:
        """Flat ends where the bone was cut, found on the surface itself: planes with all of the bone on one
        side, much surface in them, and little that curves away from them."""
        offset = np.einsum("ij,ij->i", self.centers_mm - self.center_mm, self.normals)
        cells = np.c_[np.rint(self.normals * 8), np.rint(offset)].astype(np.int64)
        _, group = np.unique(cells @ [1, 100, 10_000, 1_000_000], return_inverse=True)
        areas = np.bincount(group, weights=self.areas_mm2)
        found: list[Cap] = []
        for index in np.argsort(areas)[::-1][:40]:
            members = group == index
            normal = unit(self._vectors[members].sum(axis=0))
            middle = np.average(self.centers_mm[members], axis=0, weights=self.areas_mm2[members])
            outside = ((self.hull_mm - middle) @ normal).max() > 2 * FLAT_DEPTH_MM
            if outside or any(normal @ cap.normal > 0.98 for cap in found):
                continue
            below, facing = np.abs((self.centers_mm - middle) @ normal), self.normals @ normal
            flat = (below < FLAT_DEPTH_MM) & (facing > 0.98)
            area = self.areas_mm2[flat].sum()
            near = (below < ROUND_DEPTH_MM) & (facing > 0.5)
            if area > max(FLAT_AREA_MM2, FLAT_SHARE * self.areas_mm2[near].sum()):
                center = np.average(self.centers_mm[flat], axis=0, weights=self.areas_mm2[flat])
                found.append(Cap(center, normal))
        return found

    def section(self, point_mm: np.ndarray, normal: np.ndarray) -> list[Loop]:
        """Closed curves where a plane cuts the surface, the largest first. Holes have a negative area."""
        loops = [_loop(segments, normal) for segments in self._cut((self.points_mm - point_mm) @ normal)]
        return sorted(loops, key=lambda loop: -loop.area_mm2)

    def on_sphere(self, center_mm: np.ndarray, radius_mm: float) -> list[np.ndarray]:
        """Vector areas (3,), mm2, of the parts of a sphere that lie in the bone, the largest first: each points
        from the sphere's centre to the middle of its part. It is half the integral of r x dr along the part's edge,
        as for every surface with that edge (Stokes' theorem)."""
        height = np.linalg.norm(self.points_mm - center_mm, axis=1) - radius_mm
        cuts = [segments - center_mm for segments in self._cut(height)]
        parts = [0.5 * np.cross(s[:, 0], s[:, 1]).sum(axis=0) for s in cuts]
        return sorted(parts, key=lambda part: -np.linalg.norm(part))

    def _cut(self, height: np.ndarray) -> list[np.ndarray]:
        """Segments (n, 2, 3) of each closed curve where a function of the points (n,) is zero, all walked in one
        sense: seen from where it is positive the bone lies on their left."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        above = height > 0
        first, second, third = (above[corner] for corner in self._corner_ids)
        cutting = self.triangles[(first != second) | (second != third)]
        if not len(cutting):
            return []
        signs = above[cutting]
        lone = np.where(signs.sum(axis=1) == 1, signs.argmax(axis=1), (~signs).argmax(axis=1))
        rows = np.arange(len(cutting))
        apex = cutting[rows, lone]
        after, before = cutting[rows, (lone + 1) % 3], cutting[rows, (lone + 2) % 3]
        ends = np.stack([np.c_[apex, after], np.c_[apex, before]], axis=1)  # the two edges that are cut
        flip = ~above[apex]
        ends[flip] = ends[flip][:, ::-1]  # one sense of walking for all
        share = height[ends[..., 0]] / (height[ends[..., 0]] - height[ends[..., 1]])
        first, second = self.points_mm[ends[..., 0]], self.points_mm[ends[..., 1]]
        segments = first + share[..., None] * (second - first)
        keys = np.sort(ends, axis=2)
        _, nodes = np.unique(keys[..., 0] * len(self.points_mm) + keys[..., 1], return_inverse=True)
        nodes = nodes.reshape(-1, 2)
        size = nodes.max() + 1
        graph = coo_matrix((np.ones(len(nodes)), nodes.T), shape=(size, size))
        number, labels = connected_components(graph, directed=False)
        of_segment = labels[nodes[:, 0]]
        return [segments[of_segment == each] for each in range(number)]


def _loop(segments: np.ndarray, normal: np.ndarray) -> Loop:
    """Area and centroid of the polygon whose oriented segments are given (Green's theorem)."""
    origin = segments.mean(axis=(0, 1))
    a, b = segments[:, 0] - origin, segments[:, 1] - origin
    twice = np.cross(a, b) @ unit(normal)
    area = 0.5 * twice.sum()
    centroid = origin + ((a + b) * twice[:, None]).sum(axis=0) / (6 * area) if abs(area) > 1e-9 else origin
    return Loop(float(area), centroid, segments)
