"""Numbers all over a grid: where its voxels lie, noise, and distances to simple solids; in torch, on any device.

Points are tensors (..., 3) of LPS millimetres, fields are tensors (k, j, i), both float32.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from FemurSegLib.grid import Grid

COARSE = 4
"""Smooth fields (skin, septa, warps) are computed on every fourth voxel and interpolated. Pieces of a grid that
start at a multiple of it have the same smooth fields as the whole."""


# --- where the voxels lie ---------------------------------------------------------------------------------


def voxel_points(grid: Grid, device: torch.device) -> torch.Tensor:
    """The centres of all voxels, (k, j, i, 3)."""
    return _lattice(grid, [torch.arange(n, device=device, dtype=torch.float32) for n in grid.shape])


def coarse_points(grid: Grid, device: torch.device) -> torch.Tensor:
    """The centres of every `COARSE`th voxel, (k, j, i, 3); the last lie on or beyond the end of the grid."""
    counts = [-(-(n - 1) // COARSE) + 1 for n in grid.shape]
    return _lattice(grid, [COARSE * torch.arange(n, device=device, dtype=torch.float32) for n in counts])


def _lattice(grid: Grid, axes) -> torch.Tensor:
    k, j, i = axes
    matrix = i.new_tensor(grid.ijk_to_lps())
    return (
        matrix[:3, 3]
        + i[None, None, :, None] * matrix[:3, 0]
        + j[None, :, None, None] * matrix[:3, 1]
        + k[:, None, None, None] * matrix[:3, 2]
    )


def enlarge(coarse: torch.Tensor, shape) -> torch.Tensor:
    """A field (k, j, i) or (k, j, i, 3) at the coarse points, interpolated trilinearly to all of `shape`."""
    if coarse.ndim == 4:
        return torch.stack([enlarge(part, shape) for part in coarse.unbind(-1)], -1)
    size = [COARSE * (n - 1) + 1 for n in coarse.shape]
    large = F.interpolate(coarse[None, None], size=size, mode="trilinear", align_corners=True)[0, 0]
    return large[: shape[0], : shape[1], : shape[2]]


# --- noise ------------------------------------------------------------------------------------------------


class Noise:
    """The randomness of one patient's tissue. seed: the patient's; the same seed gives the same noise."""

    CHANNELS, TILE = 8, 48

    def __init__(self, seed: int, device: torch.device):
        self.seed, self.device = seed, device
        generator = torch.Generator().manual_seed(seed)
        tile = torch.randn((1, self.CHANNELS, *(self.TILE,) * 3), generator=generator)
        self._tile = F.pad(tile, (0, 1) * 3, mode="circular").to(device)
        self._textures = 0

    def smooth(self, points: torch.Tensor, wavelength_mm, channel: int) -> torch.Tensor:
        """Noise of about unit variance at the points, fixed in the patient.

        wavelength_mm: of its finest waves, one number or one for each of (x, y, z). channel: which of the
        `CHANNELS` independent fields.
        """
        scaled = points / torch.as_tensor(wavelength_mm, device=self.device, dtype=torch.float32)
        unit = torch.remainder(scaled + 7.3 * channel, float(self.TILE)) / (self.TILE / 2) - 1
        tile = self._tile[:, channel : channel + 1]
        return F.grid_sample(tile, unit[None], align_corners=True)[0, 0] * 1.6

    def texture(self, shape, grain_mm: float, voxel_mm: float) -> torch.Tensor:
        """Noise of about unit variance with the given grain on a grid of `shape`; new at each call."""
        self._textures += 1
        generator = torch.Generator(self.device).manual_seed(self.seed * 7919 + self._textures)
        step = max(1, round(grain_mm / voxel_mm))
        size = [1, 1] + [-(-n // step) + 1 for n in shape]
        small = torch.randn(size, generator=generator, device=self.device)
        if step == 1:
            return small[0, 0, : shape[0], : shape[1], : shape[2]]
        large = F.interpolate(small, size=shape, mode="trilinear", align_corners=True)[0, 0]
        return large * 1.5


# --- solids and mixtures ----------------------------------------------------------------------------------


def capsule(points, start, end, start_radius_mm: float, end_radius_mm: float) -> torch.Tensor:
    """Distance (mm, negative inside) to a cone with round ends from `start` to `end`, both (3,) in LPS mm."""
    axis = end - start
    along = ((points - start) @ axis / (axis @ axis)).clamp(0, 1)
    to_axis = (points - start - along[..., None] * axis).norm(dim=-1)
    return to_axis - (start_radius_mm + (end_radius_mm - start_radius_mm) * along)


def distance_to_line(points, line) -> torch.Tensor:
    """Distance (mm) to the polyline through `line`, (n, 3) in LPS mm."""
    distance = torch.full(points.shape[:-1], math.inf, device=points.device)
    for start, end in zip(line[:-1], line[1:], strict=True):
        distance = torch.minimum(distance, capsule(points, start, end, 0.0, 0.0))
    return distance


def smoothstep(low: float, high: float, x: torch.Tensor) -> torch.Tensor:
    """0 below `low`, 1 above `high`, and a smooth rise between."""
    y = ((x - low) / (high - low)).clamp(0, 1)
    return y * y * (3 - 2 * y)


def mix(hu: torch.Tensor, value, share: torch.Tensor) -> torch.Tensor:
    """`hu` where `share` is 0, `value` (HU, a number or a field) where it is 1, in proportion between."""
    return hu + (value - hu) * share
