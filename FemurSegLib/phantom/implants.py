"""Metal in and on a femur: a nail, a plate with screws, three screws in the neck, or the stem of a hip joint."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from FemurSegLib.phantom.anatomy import Anatomy
from FemurSegLib.phantom.fields import capsule
from FemurSegLib.phantom.tissue import Tissue

IMPLANT_HU = 3000.0


def implant_distances(points: torch.Tensor, anatomy: Anatomy, tissue: Tissue) -> Iterator[torch.Tensor]:
    """Distance (mm, negative inside) of each piece of metal at LPS points (..., 3)."""
    side = tissue.metal_side
    if not tissue.metal or f"{side}_femur" not in anatomy.bones:
        return
    for start, end, radius_mm in _rods(anatomy, side, tissue.metal):
        yield capsule(points, points.new_tensor(start), points.new_tensor(end), radius_mm, radius_mm)
    if tissue.metal == "stem":
        yield from _ball_and_cup(points, anatomy, side)


def _rods(anatomy: Anatomy, side: str, metal: str) -> list[tuple]:
    """Start and end (LPS mm) and radius (mm) of the round rods that the implant is made of."""
    leg, lateral = anatomy.legs[side], anatomy.lateral(side)
    _, posterior, up = leg.axes
    hip, knee, r = leg.hip_mm, leg.knee_mm, leg.head_radius_mm
    top = hip + lateral * 1.9 * r - up * 1.2 * r  # of the shaft
    if metal == "nail":
        return [(top + up * 25, knee * 0.75 + top * 0.25, 5.5), (top - up * 10, hip + up * 4, 4.5)]
    if metal == "plate":
        beside = lateral * 20
        plate = (knee + beside * 2 + up * 20, knee * 0.45 + top * 0.55 + beside, 3.0)
        return [plate] + [(knee + beside * 2 + up * h, knee - beside * 1.6 + up * h, 2.2) for h in (12, 26, 40)]
    if metal == "screws":
        return [(top - up * 20 + posterior * s, hip + posterior * s, 3.5) for s in (-8, 0, 8)]
    return [(top + up * 5, top * 0.68 + knee * 0.32, 6.5), (top + up * 5, hip, 6.0)]


def _ball_and_cup(points, anatomy: Anatomy, side: str) -> Iterator[torch.Tensor]:
    """The head of the stem and the shell in the socket, open downward and to the side."""
    leg = anatomy.legs[side]
    from_center = points - points.new_tensor(leg.hip_mm)
    radius = from_center.norm(dim=-1)
    yield radius - 0.75 * leg.head_radius_mm
    shell = (radius - 1.12 * leg.head_radius_mm).abs() - 2.0
    opening = from_center @ points.new_tensor(anatomy.lateral(side) * 0.6 - leg.axes[2] * 0.8)
    yield torch.maximum(shell, opening)


def beyond_neck_cut(points: torch.Tensor, anatomy: Anatomy, side: str) -> torch.Tensor:
    """How far (mm, roughly) points lie on the head's side of the cut that a stem needs; negative on the other."""
    leg = anatomy.legs[side]
    along_neck = -anatomy.lateral(side) * 0.7 + leg.axes[2] * 0.7
    from_center = points - points.new_tensor(leg.hip_mm)
    return from_center @ points.new_tensor(along_neck) + 1.1 * leg.head_radius_mm
