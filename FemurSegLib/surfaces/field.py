"""From the slices of a mask to a smooth field in space whose zero is the bone's surface.

field = signed_distance(mask, spacing_mm, reach_mm)
fine = resample(field, spacing_mm, 1.0, smoothing=0.8)

Between slices the signed distance is interpolated, not the mask: shape-based interpolation (Raya & Udupa, IEEE
TMI 9, 1990), with cubic splines (Herman, Zheng & Bucholtz, IEEE CG&A 12, 1992; Sultana 2024, Eq. 8). So
a contour moves from slice to slice instead of jumping there, which is what leaves steps of 3 or 5 mm.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage
from scipy.interpolate import make_interp_spline

ORDERS = {"spline": 3, "linear": 1, "none": 0}
"""Ways between two slices, and the degree of the polynomial; `none` takes the nearest slice, steps and all."""
SQUARE = 0.02
"""Pixels whose sides differ by less than this part are square."""


def signed_distance(mask: np.ndarray, spacing_mm, reach_mm: float) -> np.ndarray:
    """Distance in mm to the edge of a bool mask (a, b, c), positive inside, float32, cut off at +-`reach_mm`.

    spacing_mm: along (a, b, c); `a` runs across the slices. The edge lies half a pixel of a slice from the centres
    of its voxels on either side.
    """
    field = depth(mask, spacing_mm, reach_mm) - depth(~mask, spacing_mm, reach_mm)
    field -= np.sign(field) * np.float32(min(spacing_mm[1:]) / 2)
    return np.clip(field, -reach_mm, reach_mm, out=field)


def depth(mask: np.ndarray, spacing_mm, reach_mm: float) -> np.ndarray:
    """Distance (mm, float32) from the centre of each voxel that is set to the nearest that is not; 0 for others.

    As `signed_distance`, but positive everywhere, and right up to `reach_mm` and a pixel more.
    """
    far = float(reach_mm + max(spacing_mm[1:]))
    a, b, c = spacing_mm
    if abs(b - c) > SQUARE * b:
        if mask.all():
            return np.full(mask.shape, far, np.float32)
        return np.minimum(ndimage.distance_transform_edt(mask, sampling=spacing_mm), far).astype(np.float32)
    squared = np.empty(mask.shape, np.float32)
    for section, out in zip(np.ascontiguousarray(mask).view(np.uint8), squared, strict=True):
        if section.all():
            out[:] = far
        else:
            flat = cv2.distanceTransform(section, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            np.minimum(flat * np.float32(b), far, out=out)
    squared *= squared
    nearest = squared.copy()
    for step in range(1, min(int(far / a) + 1, len(mask))):  # Pythagoras, over the slices within reach
        there = squared + np.float32((step * a) ** 2)
        np.minimum(nearest[step:], there[:-step], out=nearest[step:])
        np.minimum(nearest[:-step], there[step:], out=nearest[:-step])
    return np.sqrt(nearest, out=nearest)


def resample(
    field: np.ndarray, spacing_mm, step_mm: float, smoothing: float = 0.8, between_slices: str = "spline"
) -> np.ndarray:
    """The field (a, b, c) at points `step_mm` apart along each axis, from the first voxel's centre to at least the
    last one's; float32.

    smoothing: standard deviation of a Gaussian, in pixels of a slice (across slices the same millimetres).
    between_slices: one of ORDERS; within a slice cubic splines.
    """
    sigma_mm = smoothing * min(spacing_mm[1:])
    counts = [int(np.ceil((n - 1) * s / step_mm)) + 1 for n, s in zip(field.shape, spacing_mm, strict=True)]
    growth = [m / n for m, n in zip(counts, field.shape, strict=True)]
    for axis in np.argsort(growth):  # the axis that becomes shorter first: less to do for the others
        n = field.shape[axis]
        at = np.minimum(np.arange(counts[axis]) * step_mm / spacing_mm[axis], n - 1)
        order = ORDERS[between_slices] if axis == 0 else 3
        weights = _interpolation(n, at, order) @ _gaussian(n, sigma_mm / spacing_mm[axis])
        field = _apply(weights.astype(np.float32), field, int(axis))
    return field


def _interpolation(n: int, at: np.ndarray, order: int) -> np.ndarray:
    """(len(at), n): values at continuous indices from those at 0 to n - 1, by an interpolating spline."""
    if order == 0:
        return np.eye(n)[np.rint(at).astype(int)]
    return make_interp_spline(np.arange(n), np.eye(n), k=min(order, n - 1))(at)


def _gaussian(n: int, sigma: float) -> np.ndarray:
    if sigma < 0.2:
        return np.eye(n)
    weights = np.exp(-0.5 * ((np.arange(n)[:, None] - np.arange(n)) / sigma) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def _apply(weights: np.ndarray, field: np.ndarray, axis: int) -> np.ndarray:
    """Weights (m, n) times the field along one axis of length n."""
    if axis == 0:
        return (weights @ field.reshape(len(field), -1)).reshape(-1, *field.shape[1:])
    if axis == 1:
        return np.matmul(weights[None], field)
    return (field.reshape(-1, field.shape[2]) @ weights.T).reshape(*field.shape[:2], -1)
