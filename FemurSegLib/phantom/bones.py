"""Bones on a grid: the distance of every voxel to their surfaces, and what lies under the surface."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

from FemurSegLib.grid import Grid
from FemurSegLib.phantom.anatomy import Anatomy, PlacedBone
from FemurSegLib.phantom.distance import STEP_MM
from FemurSegLib.phantom.fields import Noise, capsule, smoothstep
from FemurSegLib.phantom.tissue import Tissue
from FemurSegLib.sides import LABELS

FAR_MM = 12.7
"""The distance of all that lies outside a bone's field."""
MARGIN_MM = 6
LONG_BONES = ("femur", "tibia", "fibula")


@dataclass
class BoneOnGrid:
    """A bone in the block of voxels around it."""

    block: tuple[slice, slice, slice]
    """The (k, j, i) part of the grid that the fields are given for."""
    distance_mm: torch.Tensor
    """To the periosteal surface, negative inside."""
    height: torch.Tensor
    """Along the bone, from 0 at its lower end to 1."""


class Bones:
    """Finds the bones of one patient on any grid; their distance fields stay on `device`."""

    def __init__(self, anatomy: Anatomy, device: torch.device):
        self.anatomy, self.device = anatomy, device
        self._fields: dict[str, torch.Tensor] = {}

    def on_grid(self, grid: Grid, points: torch.Tensor) -> dict[str, BoneOnGrid]:
        """Every bone near the grid, by name. points: of its voxels, (k, j, i, 3), perhaps bent a little."""
        low, high = _bounds(grid.lps(_corners([-0.5] * 3, np.array(grid.shape[::-1]) - 0.5)))
        out = {}
        for name, bone in self.anatomy.bones.items():
            bone_low, bone_high = bone.bounds_mm()
            if (bone_low <= high + MARGIN_MM).all() and (bone_high >= low - MARGIN_MM).all():
                block = _block(grid, bone_low - MARGIN_MM, bone_high + MARGIN_MM)
                out[name] = BoneOnGrid(block, *self._sample(name, bone, points[block]))
        return out

    def _sample(self, name: str, bone: PlacedBone, points) -> tuple[torch.Tensor, torch.Tensor]:
        """Distance (mm) and height of the bone at the points."""
        if name not in self._fields:
            field = torch.from_numpy(bone.field.distance).to(self.device, torch.float32)[None, None] * STEP_MM
            self._fields[name] = field
        size = np.array(bone.field.distance.shape[::-1])
        to_unit = np.eye(4)
        to_unit[:3, :3] = np.diag(2.0 / (bone.field.spacing_mm * (size - 1)))
        to_unit[:3, 3] = -1 - to_unit[:3, :3] @ bone.field.origin_mm
        matrix = torch.from_numpy((to_unit @ bone.to_field)[:3]).to(points)
        at = points @ matrix[:, :3].T + matrix[:, 3]
        distance = F.grid_sample(self._fields[name], at[None], align_corners=True, padding_mode="border")[0, 0]
        outside = (at.abs() - 1).clamp(min=0).amax(-1) > 0
        distance = (distance * bone.scale).masked_fill(outside, FAR_MM)
        return distance, ((at[..., 2] + 1) / 2).clamp(0, 1)


def loaded_bone(points, anatomy: Anatomy, name: str) -> torch.Tensor | None:
    """0..1 at points (..., 3): how much of the body's weight a place in a femur or hip bone carries; else None.

    In the femur a band from the top of the head to the medial cortex below the neck, the principal compressive
    trabeculae; in the hip bone the roof of the socket.
    """
    side, _, bone = name.partition("_")
    if bone not in ("femur", "hip") or side not in anatomy.legs:
        return None
    leg = anatomy.legs[side]
    up, lateral, radius_mm = leg.axes[2], anatomy.lateral(side), leg.head_radius_mm

    def place(x):
        return torch.as_tensor(np.asarray(x), dtype=points.dtype, device=points.device)

    top = leg.hip_mm + 0.75 * radius_mm * (0.8 * up - 0.35 * lateral)
    if bone == "femur":
        calcar = leg.hip_mm - 1.9 * radius_mm * up + 0.75 * radius_mm * lateral
        return torch.exp(-((capsule(points, place(top), place(calcar), 0.0, 0.0) / (0.42 * radius_mm)) ** 2))
    away = points - place(leg.hip_mm)
    distance = away.norm(dim=-1)
    above = (away @ place(up) / distance.clamp(min=1)).clamp(0, 1)
    return above**2 * torch.exp(-(((distance - 1.15 * radius_mm) / 7.0) ** 2))


def paint_bone(
    hu, name: str, bone: BoneOnGrid, clouds, loaded, voxel_mm: float, t: Tissue, noise: Noise
) -> torch.Tensor:
    """Cortex, trabecular bone and marrow over `hu`, in place, with partial volume at both surfaces.

    hu: (k, j, i) in the bone's block; clouds: slow variation of the trabecular bone there, about unit variance;
    loaded: 0..1 there (see `loaded_bone`) or None; voxel_mm: mean edge of a voxel; t: what the patient is made of.

    Returns, in mm, how far each voxel of the block lies outside the endosteal surface, negative inside it. That
    surface lies as deep below the periosteal one as the cortex is thick there: where the depth, measured to the
    nearest periosteal point, equals the thickness. The painted HU are halfway between cortex and content on it.
    """
    endosteal_mm = torch.full_like(bone.distance_mm, FAR_MM)
    near = bone.distance_mm < voxel_mm
    if not near.any():
        return endosteal_mm
    d, u = bone.distance_mm[near], bone.height[near]
    shaft = torch.zeros_like(u)
    if name.endswith(LONG_BONES):
        shaft = smoothstep(0.12, 0.33, u) * (1 - smoothstep(0.70, 0.86, u))
    thin = 1.0 if name in LABELS else 0.75
    thickness = (t.cortex_joint_mm + (t.cortex_shaft_mm - t.cortex_joint_mm) * shaft) * thin
    jitter = noise.texture(hu.shape, 3.0, voxel_mm)[near]
    thickness = thickness * torch.exp(0.2 * jitter)
    cortex = t.cortex_joint + (t.cortex_shaft - t.cortex_joint) * shaft
    inner = t.trabecular * (1 - shaft) + t.marrow * shaft
    grain = noise.texture(hu.shape, 1.2, voxel_mm)[near] * t.trabecular_texture * (1 - 0.8 * shaft)
    inner = inner + grain + jitter * 0.5 * t.trabecular_texture * (1 - shaft)
    # denser towards the cortex
    inner = inner + 0.5 * abs(t.trabecular) * torch.exp((d + thickness).clamp(max=0) / 5.0) * (1 - shaft)
    inner = inner + clouds[near] * 0.45 * (abs(t.trabecular) + 30) * (1 - shaft)
    if loaded is not None:
        inner = inner + t.loaded * loaded[near] * (1 + 0.3 * clouds[near])
    whole = (0.5 - d / voxel_mm).clamp(0, 1)
    core = torch.minimum((0.5 - (d + thickness) / (voxel_mm + 0.8)).clamp(0, 1), whole)
    hu[near] = hu[near] * (1 - whole) + cortex * (whole - core) + inner * core
    endosteal_mm[near] = d + thickness
    return endosteal_mm


def _corners(low, high) -> np.ndarray:
    """(8, 3) corners of a box."""
    return np.array(list(product(*zip(low, high, strict=True))))


def _bounds(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return points.min(0), points.max(0)


def _block(grid: Grid, low_mm: np.ndarray, high_mm: np.ndarray) -> tuple[slice, slice, slice]:
    """The (k, j, i) voxels that an LPS box touches, at least one along each axis."""
    low, high = _bounds(grid.ijk(_corners(low_mm, high_mm)))
    size = np.array(grid.shape[::-1])
    first = np.clip(np.floor(low), 0, size - 1).astype(int)
    last = np.clip(np.ceil(high) + 1, 1, size).astype(int)
    return tuple(slice(a, max(b, a + 1)) for a, b in zip(first[::-1], last[::-1], strict=True))
