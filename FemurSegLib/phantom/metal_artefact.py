"""What metal does to a CT: beam hardening and starved rays, from the projections of the metal alone.

Each slice is projected in parallel beams; what a ray through metal reads wrongly is projected back through the
filter of a scanner. So bands run from each piece of metal and between them, and fade with the distance. Simulated
like this to train the reduction of metal artefacts by Zhang and Yu, IEEE Trans Med Imaging 37:1370 (2018),
doi:10.1109/TMI.2018.2823083.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

ANGLES = 90
STEP_MM = 1.5
"""Width of the rays, and of the pixels that they cross, where the voxels are smaller."""
WATER_PER_MM = 0.0193
"""Attenuation of water at 70 keV (Hubbell & Seltzer, NIST)."""
PIXELS_AT_ONCE = 16384


@dataclass(frozen=True)
class Beam:
    """How X-rays meet metal in a body.

    soft_per_mm, hard_per_mm: attenuation of the metal in the soft and in the hard half of the beam, 1/mm; wide_mm,
    deep_mm: the body from side to side and from front to back; scatter: what reaches the detector without a path
    through the metal, as part of the beam behind a body of the mean width; noise: standard deviation of the
    logarithm of a ray through such a body; smoothing: the largest deviation, as scanners smooth starved rays.
    """

    soft_per_mm: float = 0.55
    hard_per_mm: float = 0.15
    wide_mm: float = 350.0
    deep_mm: float = 220.0
    scatter: float = 0.05
    noise: float = 0.01
    smoothing: float = 0.3


def sample_beam(rng: np.random.Generator) -> Beam:
    """From a titanium nail in a thin thigh to a cobalt-chrome stem in a heavy pelvis.

    Attenuation at 50 and 90 keV (Hubbell & Seltzer, NIST): titanium 0.55 and 0.15 / mm, cobalt 1.7 and 0.4 / mm.
    """
    soft, deep = float(np.exp(rng.uniform(np.log(0.4), np.log(1.7)))), rng.uniform(130, 280)
    return Beam(
        soft_per_mm=soft,
        hard_per_mm=soft * rng.uniform(0.22, 0.35),
        wide_mm=deep * rng.uniform(1.0, 1.6),
        deep_mm=deep,
        scatter=float(np.exp(rng.uniform(np.log(0.005), np.log(0.12)))),
        noise=float(np.exp(rng.uniform(np.log(0.003), np.log(0.03)))),
        smoothing=rng.uniform(0.1, 0.6),
    )


def metal_artefact(metal: torch.Tensor, spacing_mm, beam: Beam, generator: torch.Generator) -> torch.Tensor:
    """What is added to a CT of the metal: float32 HU (k, j, i), each slice by itself.

    metal: float (k, j, i), the part of each voxel that is metal; spacing_mm: of the voxels (i, j, k).
    """
    added = torch.zeros_like(metal)
    slices = metal.amax((1, 2)) > 0.05
    if not slices.any():
        return added
    size = [max(2, round(n * mm / max(mm, STEP_MM))) for n, mm in zip(metal.shape[:0:-1], spacing_mm, strict=False)]
    small = F.interpolate(metal[slices][:, None], size=size[::-1], mode="area")[:, 0]
    pixel_mm = tuple(n * mm / m for n, mm, m in zip(metal.shape[:0:-1], spacing_mm, size, strict=False))
    rays = Rays(small.shape[1:], pixel_mm, metal.device)
    error = _wrong_readings(rays.project(small), beam, generator)
    hu = rays.project_back(error) * (1000 / WATER_PER_MM)
    added[slices] = F.interpolate(hu[:, None], size=metal.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return added


def _wrong_readings(path_mm, beam: Beam, generator):
    """By how much the logarithms of rays are off, from the length of metal in them (both (angle, bin, slice))."""
    angle = torch.arange(ANGLES, device=path_mm.device) * (np.pi / ANGLES)
    body_mm = torch.hypot(beam.deep_mm * angle.cos(), beam.wide_mm * angle.sin())  # the ray runs across its angle
    darker = (WATER_PER_MM * (body_mm - body_mm.mean()))[:, None, None]
    scatter = beam.scatter * torch.exp(darker)
    behind = 0.5 * (torch.exp(-beam.soft_per_mm * path_mm) + torch.exp(-beam.hard_per_mm * path_mm))
    read = torch.log1p(scatter) - torch.log(behind + scatter)
    # A straight part of the reading only makes the metal itself brighter.
    straight = (read * path_mm).sum((0, 1)) / (path_mm**2).sum((0, 1)).clamp(min=1e-6)
    starved = (beam.noise * torch.exp(0.5 * (read + darker))).clamp(max=beam.smoothing) * (path_mm > 0)
    noise = torch.randn(read.shape, generator=generator, device=read.device)
    return read - straight * path_mm + starved * noise


class Rays:
    """Parallel rays over a half turn, as wide as the pixels. shape: (j, i); pixel_mm: (i, j)."""

    def __init__(self, shape, pixel_mm, device):
        j, i = (torch.arange(n, device=device) - (n - 1) / 2 for n in shape)
        y, x = torch.meshgrid(j * pixel_mm[1], i * pixel_mm[0], indexing="ij")
        self._x, self._y = x.reshape(-1), y.reshape(-1)
        self._shape, self._width, self._area = shape, min(pixel_mm), pixel_mm[0] * pixel_mm[1]
        reach = np.hypot(*((n - 1) / 2 * mm for n, mm in zip(shape, pixel_mm[::-1], strict=True)))
        self._half = int(np.ceil(reach / self._width)) + 2
        self._bins = 2 * self._half + 1
        angle = torch.arange(ANGLES, device=device) * (np.pi / ANGLES)
        self._cos, self._sin = angle.cos(), angle.sin()

    def _hits(self, pixels):
        """The two rays of each angle between which pixels lie, and their shares, both (pixel, 2 * ANGLES)."""
        at = self._x[pixels, None] * self._cos + self._y[pixels, None] * self._sin
        at = at / self._width + self._half + torch.arange(ANGLES, device=at.device) * self._bins
        below = at.floor()
        share = at - below
        return torch.cat([below, below + 1], 1).long(), torch.cat([1 - share, share], 1)

    def project(self, metal):
        """Slices (k, j, i) to lengths of metal in mm, (angle, bin, k)."""
        flat = metal.reshape(len(metal), -1).T
        rays = flat.new_zeros((ANGLES * self._bins, len(metal)))
        for pixels in torch.nonzero(flat.amax(1) > 0)[:, 0].split(PIXELS_AT_ONCE // 16):
            index, share = self._hits(pixels)
            for ray, part in zip(index.T, share.T, strict=True):
                rays.index_add_(0, ray, flat[pixels] * part[:, None])
        return rays.reshape(ANGLES, self._bins, -1) * (self._area / self._width)

    def project_back(self, rays):
        """Rays (angle, bin, k) through the ramp filter, and back to slices (k, j, i)."""
        _, bins, slices = rays.shape
        n = 1 << (2 * bins - 1).bit_length()
        offset = torch.fft.fftfreq(n, 1 / n, device=rays.device)
        odd = offset.remainder(2) == 1
        ramp = torch.where(odd, -1 / (np.pi * offset).square().clamp(min=1e-9), torch.zeros_like(offset))
        ramp[0] = 0.25  # Kak and Slaney, Principles of Computerized Tomographic Imaging (1988), equation 3.61
        ramp = torch.fft.rfft(ramp).real / self._width
        ramp = ramp * (0.5 + 0.5 * torch.cos(torch.linspace(0, np.pi, len(ramp), device=rays.device)))  # Hann
        spectrum = torch.fft.rfft(rays, n=n, dim=1)
        filtered = torch.fft.irfft(spectrum * ramp[None, :, None], n=n, dim=1)[:, :bins].reshape(-1, slices)
        pixels = torch.arange(len(self._x), device=rays.device).split(PIXELS_AT_ONCE)
        back = [
            F.embedding_bag(index, filtered, per_sample_weights=share, mode="sum")
            for index, share in map(self._hits, pixels)
        ]
        return (torch.cat(back) * (np.pi / ANGLES)).T.reshape(slices, *self._shape)
