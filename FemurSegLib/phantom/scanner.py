"""What a scanner makes of painted Hounsfield units: kernel, thick slices, noise, streaks, clipping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from FemurSegLib.phantom.metal_artefact import Beam, metal_artefact, sample_beam

HU_RANGE = (-1024.0, 3071.0)
METAL_HU = 2500.0


@dataclass(frozen=True)
class Scanner:
    """blur_mm: standard deviation of the in-plane point spread; sharpen: overshoot of a bone kernel (0
    none); slice_mm: slice thickness; spacing_mm: distance of slices; noise_hu: standard deviation of fine
    noise, `grain_mm` its correlation length; streak_hu: of the left-to-right streaks of a low dose; gain
    and offset_hu: calibration; cupping_hu: slow shading; beam: how it meets metal."""

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
    beam: Beam = Beam()


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
        beam=sample_beam(rng),
    )


def scan(hu: torch.Tensor, scanner: Scanner, spacing_mm, generator: torch.Generator) -> torch.Tensor:
    """Painted HU (k, j, i), sampled finely, to what that scanner shows on the same voxels.

    spacing_mm: of the voxels, (i, j, k). Thick slices are averaged, then interpolated linearly back.
    """
    shape, device = hu.shape, hu.device
    hu = hu.clamp(*HU_RANGE)
    metal = (hu > METAL_HU).float()
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
    if metal.any():
        metal = blur(metal, 0.29 * scanner.slice_mm / spacing_mm[2], axes=(0,))
        metal = resize(metal, hu.shape) if metal.shape != hu.shape else metal
        hu = hu + metal_artefact(metal, spacing_mm, scanner.beam, generator) * (metal < 0.5)
    hu = resize(hu, shape) if hu.shape != shape else hu
    if scanner.cupping_hu:
        hu = hu + resize(white((3, 3, 3)), shape) * scanner.cupping_hu * (hu > -400)
    return (hu * scanner.gain + scanner.offset_hu * (hu > -400)).clamp(*HU_RANGE)


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
