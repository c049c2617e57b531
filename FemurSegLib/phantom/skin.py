"""The outline of a body around its bones: two legs of capsules and a pelvis, blended into each other."""

from __future__ import annotations

import numpy as np
import torch

from FemurSegLib.phantom.anatomy import Anatomy
from FemurSegLib.phantom.fields import capsule
from FemurSegLib.phantom.tissue import Tissue

BLEND_MM = 10.0


def skin_distance(points: torch.Tensor, anatomy: Anatomy, tissue: Tissue) -> torch.Tensor:
    """Distance (mm, roughly) to the skin at LPS points (..., 3); negative inside the body."""
    parts = [part for side in anatomy.legs for part in _leg(points, anatomy, side, tissue)]
    stack = torch.stack([*parts, _pelvis(points, anatomy, tissue)])
    return -BLEND_MM * torch.logsumexp(-stack / BLEND_MM, 0)


def pelvis_depth_mm(tissue: Tissue) -> float:
    """From the middle of the pelvis to the skin of the back."""
    return 95 * tissue.girth + 0.8 * tissue.subcutaneous_mm


def _leg(points, anatomy: Anatomy, side: str, tissue: Tissue) -> list[torch.Tensor]:
    """Thigh, upper and lower half of the calf, foot."""
    leg, g, fat = anatomy.legs[side], tissue.girth, tissue.subcutaneous_mm
    size = np.linalg.norm(leg.hip_mm - leg.knee_mm) / 400.0
    thigh_mm = (74 * g + 0.95 * fat) * size
    knee_mm = (48 + 0.12 * fat) * g**0.5 * size
    calf_mm = (46 * g + 0.3 * fat) * size
    medial = np.array([np.sign(anatomy.mid_hips_mm[0] - leg.hip_mm[0]), 0, 0])
    hip, knee, ankle, toe, posterior, up, medial = (
        points.new_tensor(v) for v in (leg.hip_mm, leg.knee_mm, leg.ankle_mm, leg.toe_mm, *leg.axes[1:], medial)
    )
    top = hip + medial * 12 + posterior * 14 + up * 20
    calf = knee + (ankle - knee) * 0.3 + posterior * 12
    return [
        capsule(points, knee - up * 5, top, knee_mm, thigh_mm),
        capsule(points, knee, calf, knee_mm, calf_mm),
        capsule(points, calf, ankle, calf_mm, 31 * size),
        capsule(points, ankle - up * 15, toe, 33 * size, 26 * size),
    ]


def _pelvis(points, anatomy: Anatomy, tissue: Tissue) -> torch.Tensor:
    """An elliptic cylinder with a round lower edge."""
    q = points - points.new_tensor(anatomy.mid_hips_mm + np.array([0, 18, 25]))
    wide = anatomy.half_hip_width_mm + 82 * tissue.girth + 0.9 * tissue.subcutaneous_mm
    deep = pelvis_depth_mm(tissue)
    around = (((q[..., 0] / wide) ** 2 + (q[..., 1] / deep) ** 2).sqrt() - 1) * min(wide, deep)
    below = (-q[..., 2] - 15).clamp(min=0)
    return torch.where(below > 0, torch.hypot(around.clamp(min=0), below) + around.clamp(max=0), around)
