"""All that is not bone: skin, fat, muscle, bowel, vessels, a tumour; and around the body air and a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from FemurSegLib.phantom.anatomy import Anatomy
from FemurSegLib.phantom.fields import Noise, enlarge, mix, smoothstep
from FemurSegLib.phantom.skin import pelvis_depth_mm, skin_distance
from FemurSegLib.phantom.tissue import Tissue
from FemurSegLib.phantom.vessels import paint_vessel, sample_vessels

SKIN_MM, SKIN_HU = 1.8, 20.0
AIR_HU, BOWEL_GAS_HU, WATER_HU = -1000.0, -850.0, 12.0
MATTRESS_HU, BOARD_CORE_HU = -930.0, -900.0
MATTRESS_MM, BOARD_MM, BOARD_HALF_WIDTH_MM = 14, 40, 210


@dataclass(frozen=True)
class Tumour:
    """A ball of soft tissue beside a femur or its knee."""

    center_mm: np.ndarray
    radius_mm: float
    hu: float


def sample_tumour(anatomy: Anatomy, tissue: Tissue, rng: np.random.Generator) -> Tumour | None:
    """Anywhere along a thigh, its edge 10 mm from the line between the joints; None where there is none."""
    if not tissue.tumour_mm:
        return None
    leg = anatomy.legs[str(rng.choice(["left", "right"]))]
    on_axis = leg.knee_mm + (leg.hip_mm - leg.knee_mm) * rng.uniform(-0.3, 0.9)
    away = rng.normal(0, 1, 3)
    center = on_axis + away / np.linalg.norm(away) * (tissue.tumour_mm + 10)
    return Tumour(center, float(tissue.tumour_mm), float(rng.uniform(10, 60)))


class SoftTissue:
    """The soft tissue of one patient, to be painted on any grid before the bones."""

    def __init__(self, anatomy: Anatomy, tissue: Tissue, noise: Noise):
        self.anatomy, self.tissue, self.noise = anatomy, tissue, noise
        rng = np.random.default_rng([anatomy.seed, 2])
        self.vessels = sample_vessels(anatomy, rng)
        self.tumour = sample_tumour(anatomy, tissue, rng)

    def paint(self, points: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """HU (k, j, i) at the points (k, j, i, 3) of a grid, of which `coarse` are the coarse ones."""
        shape = points.shape[:-1]
        coarse_skin = skin_distance(coarse, self.anatomy, self.tissue)
        skin = enlarge(coarse_skin, shape)
        hu = self._muscle_and_fat(coarse, coarse_skin, shape)
        hu = self._bowel(hu, coarse)
        for vessel in self.vessels:
            hu = paint_vessel(hu, vessel, coarse, self.tissue, self.noise)
        if self.tumour is not None:
            hu = self._tumour(hu, points, skin)
        hu = hu.masked_fill((skin > -SKIN_MM) & (skin < 0), SKIN_HU)
        outside = (0.5 + skin).clamp(0, 1)
        return hu * (1 - outside) + self._surroundings(points) * outside

    def _muscle_and_fat(self, coarse, skin, shape) -> torch.Tensor:
        """Fat under the skin, and inside it muscles that septa of fat part. skin: distance at `coarse`."""
        t, noise = self.tissue, self.noise
        fat_mm = t.subcutaneous_mm * (1 + 0.5 * noise.smooth(coarse, 90, 5)) * self._fat_share(coarse)
        into_muscle = enlarge(skin + fat_mm.clamp(min=2.0), shape)
        septa = (noise.smooth(coarse, (28, 28, 160), 6).abs(), noise.smooth(coarse, (40, 40, 220), 7).abs())
        septa = enlarge(torch.minimum(*septa), shape)
        width = 0.05 + 0.45 * t.muscle_fat_fraction
        lean = ((septa - width) / 0.06).clamp(0, 1) * (0.5 - into_muscle / 3).clamp(0, 1)
        mottle = noise.texture(shape, 4.0, 1.0) * 8
        return t.fat + (t.muscle - t.fat) * lean * (1 - 0.3 * t.muscle_fat_fraction) + mottle

    def _fat_share(self, points) -> torch.Tensor:
        """Thick over the pelvis and thigh, thin below the knee: the factor on the fat under the skin."""
        knee_z, hip_z = self.anatomy.mid_knees_mm[2], self.anatomy.mid_hips_mm[2]
        return 0.25 + 0.85 * smoothstep(knee_z - 30, hip_z, points[..., 2])

    def _bowel(self, hu, coarse) -> torch.Tensor:
        """Loops of bowel, gas and fluid in the pelvis and the belly."""
        t = self.tissue
        q = coarse - coarse.new_tensor(self.anatomy.mid_hips_mm + np.array([0, 5, 0]))
        level = q[..., 2]
        wide = self.anatomy.half_hip_width_mm * (0.62 + 0.004 * level.clamp(0, 90))
        ring = ((q[..., 0] / wide) ** 2 + (q[..., 1] / 75) ** 2).sqrt()
        inside = ((1 - ring) * 40).clamp(max=level + 5)
        if float(inside.max()) < -5:
            return hu
        loops, gas = self.noise.smooth(coarse, 30, 4), self.noise.smooth(coarse, 40, 0)
        content = torch.full_like(loops, t.fat).masked_fill(loops > 0.1, t.bowel)
        content = content.masked_fill(loops < -0.9, WATER_HU)
        content = content.masked_fill((gas > 1.1) & (loops > 0.1), BOWEL_GAS_HU)
        share = enlarge(inside, hu.shape).clamp(0, 4) / 4
        return hu * (1 - share) + enlarge(content, hu.shape) * share

    def _tumour(self, hu, points, skin) -> torch.Tensor:
        center, radius = points.new_tensor(self.tumour.center_mm), self.tumour.radius_mm
        distance = (((points - center) / radius).norm(dim=-1) - 1) * radius
        return mix(hu, self.tumour.hu, (0.5 - distance / 2).clamp(0, 1) * (skin < -3))

    def _surroundings(self, points) -> torch.Tensor:
        """Air, and under the patient a table: a mattress on a bent board of two skins around a light core."""
        t = self.tissue
        hu = torch.full(points.shape[:-1], AIR_HU, device=points.device)
        if not t.table:
            return hu
        hips = self.anatomy.mid_hips_mm
        x = points[..., 0] - hips[0]
        depth = points[..., 1] - (hips[1] + 18 + pelvis_depth_mm(t) + 4 - t.table_bend * x**2)
        wide = x.abs() < BOARD_HALF_WIDTH_MM
        hu = hu.masked_fill(wide & (depth > -MATTRESS_MM) & (depth < 0), MATTRESS_HU)
        hu = hu.masked_fill(wide & (depth > 0) & (depth < BOARD_MM), BOARD_CORE_HU)
        skins = wide & ((depth.abs() < 1.2) | ((depth - BOARD_MM).abs() < 1.2))
        return hu.masked_fill(skins, t.table_hu)
