"""From the slices of a segmentation to a solid bone, as Sultana 2024 (section 4): splines, islands, median."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from FemurSegLib.grid import Grid
from FemurSegLib.segmentation.cleanup import largest

SLICE_MM = 1.0
"""Slices are brought to this distance, where they lie farther apart."""
MEDIAN = 3
"""Voxels along each axis of the median that closes gaps (section 4.4 gives no size)."""


def reconstruct(field: np.ndarray, spacing_mm, threshold: float = 0.5) -> tuple[np.ndarray, tuple[float, ...]]:
    """(mask, its spacing (i, j, k) in mm) of the bone in a probability or a mask (k, j, i).

    Cubic splines between the slices (section 4.1, Eq. 8), the largest piece of what passes the threshold (4.4,
    islands removal), and a median (4.4). Left out: the thresholds that the paper tunes by hand for each patient,
    and its smoothing of the mesh in 200 steps (surface.py smooths). Empty where nothing passes.
    """
    times = max(1, round(spacing_mm[2] / SLICE_MM))
    depth = field.shape[0]
    if times > 1:
        # As voxels, not as points: the new slices fill the extent of the old ones.
        at = (np.arange(depth * times) + 0.5) / times - 0.5
        where = np.meshgrid(at, *(np.arange(n) for n in field.shape[1:]), indexing="ij", sparse=True)
        field = ndimage.map_coordinates(
            field.astype(np.float32), np.broadcast_arrays(*where), order=3, mode="nearest"
        )
    mask = largest(field > threshold)
    if mask.any():
        mask = ndimage.median_filter(mask.astype(np.uint8), size=MEDIAN) > 0
    return mask, (*spacing_mm[:2], spacing_mm[2] / times)


def area_and_volume(mask: np.ndarray, spacing_mm) -> tuple[float, float]:
    """Surface area in cm2 and volume in cm3 of the closed surface around a mask (k, j, i); 0 for an empty one."""
    from vtkmodules.vtkFiltersCore import vtkMassProperties

    from FemurSegLib.surface import surface_of

    if not mask.any():
        return 0.0, 0.0
    properties = vtkMassProperties()
    grid = Grid(mask.shape, tuple(spacing_mm), (0.0, 0.0, 0.0), np.eye(3))
    properties.SetInputData(surface_of(mask.astype(np.uint8), grid, 1))
    return properties.GetSurfaceArea() / 100, properties.GetVolume() / 1000
