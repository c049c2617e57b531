"""The vessels of the legs: an artery, a vein and a deep artery from the groin to the ankle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from FemurSegLib.phantom.anatomy import Anatomy
from FemurSegLib.phantom.fields import Noise, distance_to_line, enlarge, mix
from FemurSegLib.phantom.tissue import Tissue

FAR_MM = 40
"""A vessel that is nowhere nearer to the grid than this is not painted."""


@dataclass(frozen=True)
class Vessel:
    """line_mm: (n, 3) LPS points along it; artery: its wall may be calcified."""

    line_mm: np.ndarray
    radius_mm: float
    artery: bool


def sample_vessels(anatomy: Anatomy, rng: np.random.Generator) -> list[Vessel]:
    """Three vessels of each leg, a few millimetres beside where they are expected."""
    vessels = []
    for side, leg in anatomy.legs.items():
        _, posterior, up = leg.axes
        medial = -anatomy.lateral(side)
        hip, knee, ankle = leg.hip_mm, leg.knee_mm, leg.ankle_mm
        offset = rng.normal(0, 4, 3)
        trunk = [
            hip + up * 110 + medial * 40 + posterior * 20,
            hip + up * 5 - posterior * 32 + medial * 5,
            hip * 0.5 + knee * 0.5 + medial * 30 - posterior * 8,
            knee + up * 60 + medial * 18 + posterior * 18,
            knee + posterior * 38,
            knee * 0.7 + ankle * 0.3 + posterior * 20,
            ankle + posterior * 15,
        ]
        for shift, radius, artery in (
            ((0, 0, 0), 3.6, True),
            ((7, 5, 0), 4.6, False),
            ((-12, 12, 0), 2.0, True),
        ):
            line = np.array(trunk) + np.array(shift) + offset
            vessels.append(Vessel(line, radius * rng.uniform(0.8, 1.25), artery))
    return vessels


def paint_vessel(hu, vessel: Vessel, coarse, tissue: Tissue, noise: Noise) -> torch.Tensor:
    """`hu` (k, j, i) with the vessel in it. coarse: the coarse points (..., 3) of that grid."""
    distance = distance_to_line(coarse, coarse.new_tensor(vessel.line_mm))
    if float(distance.min()) > FAR_MM:
        return hu
    distance = enlarge(distance, hu.shape) - vessel.radius_mm
    hu = mix(hu, tissue.vessel, (0.5 - distance).clamp(0, 1))
    if tissue.calcified and vessel.artery:
        plaque = (distance.abs() < 1.2) & (noise.texture(hu.shape, 3.0, 1.0) > 0.8)
        hu = hu.masked_fill(plaque, tissue.calcified)
    return hu
