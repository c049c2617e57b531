"""What a scanner makes of painted Hounsfield units: kernel, thick slices, noise, streaks, clipping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

HU_RANGE = (-1024.0, 3071.0)
METAL_HU = 2500.0
STREAK_LENGTH_MM = 6.0
"""Along the slices: at this distance the streaks of metal are alike to 1/e."""


@dataclass(frozen=True)
class Scanner:
    """blur_mm: standard deviation of the in-plane point spread; sharpen: overshoot of a bone kernel (0
    none); slice_mm: slice thickness; spacing_mm: distance of slices; noise_hu: standard deviation of fine
    noise, `grain_mm` its correlation length; streak_hu: of the left-to-right streaks of a low dose; gain
    and offset_hu: calibration; cupping_hu: slow shading."""

    blur_mm: float
    sharpen: float
    slice_mm: float
    spacing_mm: float
    noise_hu: float
    grain_mm: float
    streak_hu: float
    gain: float
    offset_hu: float
    cupping_hu: float


def sample_scanner(rng: np.random.Generator) -> Scanner:
    """From a thin-slice bone kernel to a thick-slice low-dose PET/CT."""
    spacing = float(np.exp(rng.uniform(np.log(0.5), np.log(5.0))))
    low_dose = rng.random() < 0.4
    return Scanner(
        blur_mm=rng.uniform(0.2, 0.9),
        sharpen=rng.uniform(0.2, 1.2) if rng.random() < 0.3 else 0.0,
        slice_mm=spacing * rng.uniform(0.9, 1.5),
        spacing_mm=spacing,
        noise_hu=rng.gamma(2.0, 10.0) + (20.0 if low_dose else 0.0),
        grain_mm=rng.uniform(0.3, 1.2),
        streak_hu=rng.uniform(10, 45) if low_dose else rng.uniform(0, 8),
        gain=rng.uniform(0.95, 1.06),
        offset_hu=rng.normal(0, 8),
        cupping_hu=rng.uniform(0, 15),
    )


def scan(hu: torch.Tensor, scanner: Scanner, spacing_mm, generator: torch.Generator) -> torch.Tensor:
    """Painted HU (k, j, i), sampled finely, to what that scanner shows on the same voxels.

    spacing_mm: of the voxels, (i, j, k). Thick slices are averaged, then interpolated linearly back.
    """
    shape, device = hu.shape, hu.device
    hu = hu.clamp(*HU_RANGE)
    metal = hu > METAL_HU
    hu = blur(hu, scanner.blur_mm / spacing_mm[0], axes=(1, 2))
    if scanner.sharpen:
        hu = hu + scanner.sharpen * (hu - blur(hu, 1.2 / spacing_mm[0], axes=(1, 2)))
    hu = blur(hu, 0.29 * scanner.slice_mm / spacing_mm[2], axes=(0,))
    step = max(1.0, scanner.spacing_mm / spacing_mm[2])
    slices = max(2, round((shape[0] - 1) / step) + 1)
    hu = resize(hu, (slices, *shape[1:])) if slices < shape[0] else hu

    def white(n):
        return torch.randn(n, generator=generator, device=device)

    noise = blur(white(hu.shape), scanner.grain_mm / spacing_mm[0], axes=(1, 2))
    hu = hu + noise / noise.std().clamp(min=1e-3) * scanner.noise_hu
    if scanner.streak_hu > 1:
        streak = blur(blur(white(hu.shape), 7.0 / spacing_mm[0], axes=(2,)), 0.5 / spacing_mm[1], axes=(1,))
        hu = hu + streak / streak.std().clamp(min=1e-3) * scanner.streak_hu * (hu > -400)
    hu = resize(hu, shape) if hu.shape != shape else hu
    if scanner.cupping_hu:
        hu = hu + resize(white((3, 3, 3)), shape) * scanner.cupping_hu * (hu > -400)
    if metal.any():
        hu = hu + _metal_streaks(metal, spacing_mm, generator)
    return (hu * scanner.gain + scanner.offset_hu * (hu > -400)).clamp(*HU_RANGE)


def _metal_streaks(metal, spacing_mm, generator) -> torch.Tensor:
    """Bright and dark rays (HU) that leave the metal of each slice; an impression, not a physical model."""
    device, (slices, rows, columns) = metal.device, metal.shape
    amount = metal.float().mean((1, 2))
    j = torch.arange(rows, device=device, dtype=torch.float32)[None, :, None]
    i = torch.arange(columns, device=device, dtype=torch.float32)[None, None, :]
    total = metal.float().sum((1, 2)).clamp(min=1)[:, None, None]
    center_j = (metal * j).sum((1, 2), keepdim=True) / total
    center_i = (metal * i).sum((1, 2), keepdim=True) / total
    y, x = (j - center_j) * spacing_mm[1], (i - center_i) * spacing_mm[0]
    angle = torch.atan2(y, x) / (2 * np.pi) + 0.5
    rays = torch.randn((slices, 1, 49), generator=generator, device=device)
    rays = blur(rays, STREAK_LENGTH_MM / 2 / spacing_mm[2], axes=(0,))
    rays = rays / rays.std().clamp(min=1e-3)
    rays[..., -1] = rays[..., 0]
    at = torch.stack(
        [angle * 2 - 1, torch.linspace(-1, 1, slices, device=device)[:, None, None].expand_as(angle)], -1
    )
    pattern = F.grid_sample(rays[None].transpose(1, 2), at.reshape(1, slices, -1, 2), align_corners=True)
    pattern = pattern.reshape(metal.shape)
    radius = torch.hypot(x, y)
    return 420 * pattern * torch.exp(-radius / 45) * (amount > 0)[:, None, None] * (~metal)


def blur(volume, sigma: float, axes) -> torch.Tensor:
    """Gaussian along the given axes of (k, j, i), `sigma` in voxels."""
    if sigma < 0.15:
        return volume
    radius = int(np.ceil(2.5 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).tolist()
    for axis in axes:
        size = volume.shape[axis]
        ends = [volume.narrow(axis, at, 1) for at in (0, size - 1)]
        first, last = (end.expand(*(radius if a == axis else -1 for a in range(3))) for end in ends)
        padded = torch.cat([first, volume, last], axis)
        volume = padded.narrow(axis, 0, size) * taps[0]
        for shift, tap in enumerate(taps[1:], 1):  # faster than a convolution of so few taps
            volume.add_(padded.narrow(axis, shift, size), alpha=tap)
    return volume


def resize(volume, shape) -> torch.Tensor:
    """Trilinear, (k, j, i) to `shape`; the centres of the outermost voxels stay where they are."""
    return F.interpolate(volume[None, None], size=tuple(shape), mode="trilinear", align_corners=True)[0, 0]
