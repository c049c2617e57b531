"""Robust fits of spheres, cylinders and lines to triangles of a surface. All lengths in mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TUKEY = 4.685
"""Of the biweight of Tukey: 95 % efficient for normal noise (Huber & Ronchetti, Robust Statistics, 2009)."""
SMALLEST_SPREAD_MM = 0.15
"""Residuals below this are noise of the mesh; the biweight is never made narrower."""


@dataclass(frozen=True)
class Sphere:
    """`residual_mm` is the weighted root mean square of the fit, `coverage` the fitted part of the whole
    sphere's area (0..1)."""

    center_mm: np.ndarray
    radius_mm: float
    residual_mm: float = 0.0
    coverage: float = 1.0


@dataclass(frozen=True)
class Line:
    """Through `point_mm` along the unit vector `direction`."""

    point_mm: np.ndarray
    direction: np.ndarray

    def at(self, direction: np.ndarray, height_mm: float) -> np.ndarray:
        """The point of this line whose coordinate along `direction` is `height_mm`."""
        step = (height_mm - self.point_mm @ direction) / (self.direction @ direction)
        return self.point_mm + step * self.direction

    def distance_mm(self, points_mm: np.ndarray) -> np.ndarray:
        """Distance of points (..., 3)."""
        return np.linalg.norm(np.cross(np.asarray(points_mm) - self.point_mm, self.direction), axis=-1)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def across(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Unit vector of the part of `vector` perpendicular to the unit vector `axis`."""
    return unit(vector - (vector @ axis) * axis)


def perpendiculars(axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors that make a right-handed frame with the unit vector `axis`."""
    first = across(np.eye(3)[np.argmin(np.abs(axis))], axis)
    return first, np.cross(axis, first)


def fit_line(points_mm: np.ndarray, along: np.ndarray) -> Line:
    """Total least squares through points (n, 3), pointing as `along` does."""
    center = points_mm.mean(axis=0)
    direction = np.linalg.svd(points_mm - center, full_matrices=False)[2][0]
    return Line(center, direction * np.sign(direction @ along))


def fit_sphere(
    points,
    normals,
    areas,
    start: Sphere,
    tolerance_mm: float,
    angle_deg: float = 25.0,
    *,
    fade_deg: float = 0.0,
    narrowest_mm: float = 0.0,
) -> Sphere:
    """Sphere through the surface elements that lie near it and face away from its centre.

    Iterated geometric least squares, weighted by area and Tukey's biweight, so that a fovea, a rim of
    osteophytes or the beginning of a neck do not pull. points, normals (n, 3), areas (n,); `tolerance_mm`
    is where elements are cut off at first; later at Tukey's multiple of their spread, but never below
    `narrowest_mm`. The facing may be off by `angle_deg`, and over `fade_deg` more its weight fades.
    Returns a sphere of coverage 0 where nothing fits.
    """
    center, radius, limit = np.array(start.center_mm, float), float(start.radius_mm), float(tolerance_mm)
    facing = np.cos(np.radians(angle_deg + fade_deg))
    spread = limit / TUKEY
    for step in range(40):
        arm = points - center
        distance = np.linalg.norm(arm, axis=1)
        outward = arm / np.maximum(distance, 1e-9)[:, None]
        off = distance - radius
        toward = np.einsum("ij,ij->i", outward, normals)
        used = (np.abs(off) < limit) & (toward > facing)
        if used.sum() < 12:
            return Sphere(center, radius, np.inf, 0.0)
        weight = areas[used] * (1 - (off[used] / limit) ** 2) ** 2
        if fade_deg:
            away = np.degrees(np.arccos(np.minimum(toward[used], 1.0)))
            weight *= np.clip((angle_deg + fade_deg - away) / fade_deg, 0, 1)
        jacobian = np.c_[-outward[used], -np.ones(used.sum())]
        change = _solve(jacobian, -off[used], weight)
        center, radius = center + change[:3], radius + change[3]
        spread = max(1.4826 * _weighted_median(np.abs(off[used]), areas[used]), SMALLEST_SPREAD_MM)
        limit = max(min(limit, TUKEY * spread), 0.7 * limit, narrowest_mm)
        if step > 8 and np.abs(change).max() < 1e-4:
            break
    residual = float(np.sqrt((weight * off[used] ** 2).sum() / weight.sum()))
    return Sphere(center, float(radius), residual, float(areas[used].sum() / (4 * np.pi * radius**2)))


def fit_cylinder(points, normals, areas, start: Line, radius_mm: float, tolerance_mm: float):
    """One cylinder through surface elements, as `fit_sphere` fits a sphere. Returns (Line, radius, residual)."""
    point, axis, radius, limit = start.point_mm, start.direction, float(radius_mm), float(tolerance_mm)
    for step in range(40):
        arm = points - point
        along = arm @ axis
        arm = arm - along[:, None] * axis
        distance = np.linalg.norm(arm, axis=1)
        outward = arm / np.maximum(distance, 1e-9)[:, None]
        off = distance - radius
        used = (np.abs(off) < limit) & (np.einsum("ij,ij->i", outward, normals) > 0.8)
        if used.sum() < 20:
            return start, radius, np.inf
        weight = areas[used] * (1 - (off[used] / limit) ** 2) ** 2
        first, second = perpendiculars(axis)
        lean = outward[used] @ np.c_[first, second]
        jacobian = np.c_[-lean, -lean * along[used, None], -np.ones(used.sum())]
        change = _solve(jacobian, -off[used], weight)
        point = point + change[0] * first + change[1] * second
        axis = unit(axis + change[2] * first + change[3] * second)
        radius += change[4]
        spread = max(1.4826 * _weighted_median(np.abs(off[used]), areas[used]), SMALLEST_SPREAD_MM)
        limit = max(min(limit, TUKEY * spread), 0.7 * limit)
        if step > 8 and np.abs(change).max() < 1e-5:
            break
    residual = float(np.sqrt((weight * off[used] ** 2).sum() / weight.sum()))
    return Line(point, axis), float(radius), residual


def vote_sphere(points, normals, areas, radii_mm) -> Sphere:
    """The sphere that the most of its own surface supports: each element votes for the centre at a radius'
    depth below it (Hough 1962), in cells of 4 mm. A start for `fit_sphere`."""
    best = Sphere(points.mean(axis=0), float(np.mean(radii_mm)), np.inf, 0.0)
    for radius in radii_mm:
        centers = points - radius * normals
        cells = np.round(centers / 4.0).astype(np.int64)
        cells -= cells.min(axis=0)
        size = cells.max(axis=0) + 1
        key = (cells[:, 0] * size[1] + cells[:, 1]) * size[2] + cells[:, 2]
        votes = np.bincount(key, weights=areas)
        middle = centers[key == votes.argmax()].mean(axis=0)
        near = np.linalg.norm(centers - middle, axis=1) < 4.0  # no edges of cells in the count
        share = areas[near].sum() / (4 * np.pi * radius**2)
        if share > best.coverage:
            center = np.average(centers[near], axis=0, weights=areas[near])
            best = Sphere(center, float(radius), np.inf, float(share))
    return best


def _solve(jacobian, target, weight):
    root = np.sqrt(weight)
    return np.linalg.lstsq(jacobian * root[:, None], target * root, rcond=None)[0]


def _weighted_median(values, weights) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])
