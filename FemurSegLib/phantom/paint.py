"""Paints a patient on any grid: Hounsfield units and exact labels, in torch, on the CPU or a GPU.

Soft tissue comes first, the other bones over it, then the femora, then metal. The label of a voxel is the sign of
the distance of its centre to the periosteal surface of a femur: cortex, trabecular bone and canal alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from FemurSegLib.grid import Grid
from FemurSegLib.phantom.anatomy import Anatomy
from FemurSegLib.phantom.bones import FAR_MM, BoneOnGrid, Bones, loaded_bone, paint_bone
from FemurSegLib.phantom.fields import Noise, coarse_points, enlarge, mix, voxel_points
from FemurSegLib.phantom.implants import IMPLANT_HU, beyond_neck_cut, implant_distances
from FemurSegLib.phantom.soft_tissue import SoftTissue
from FemurSegLib.phantom.tissue import Tissue, sample_tissue
from FemurSegLib.sides import LABELS


@dataclass(frozen=True)
class Painting:
    """A painted grid, all (k, j, i). hu: float32, before any scanner effect; labels: uint8, 1 right femur, 2 left;
    periosteal_mm, endosteal_mm: float32, distance of voxel centres outside these surfaces of the nearest femur,
    negative inside, about `FAR_MM` far outside."""

    hu: torch.Tensor
    labels: torch.Tensor
    periosteal_mm: torch.Tensor
    endosteal_mm: torch.Tensor


class Painter:
    """Paints one patient; `paint` may be called for as many grids as wanted, pieces of one grid fit together.

    anatomy: where the bones are. device: torch device. tissue: what they are made of (from the seed by
    default).
    """

    def __init__(self, anatomy: Anatomy, device: str | torch.device = "cpu", tissue: Tissue | None = None):
        self.anatomy, self.device = anatomy, torch.device(device)
        self.tissue = tissue or sample_tissue(anatomy.seed)
        self._noise = Noise(anatomy.seed, self.device)
        self._bones = Bones(anatomy, self.device)
        self._soft_tissue = SoftTissue(anatomy, self.tissue, self._noise)

    def paint(self, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
        """HU float32 (k, j, i) before any scanner effect, and labels uint8 of the same shape."""
        painting = self.paint_surfaces(grid)
        return painting.hu, painting.labels

    def paint_surfaces(self, grid: Grid) -> Painting:
        """As `paint`, and where the surfaces of the femora are."""
        t, noise, shape = self.tissue, self._noise, grid.shape
        voxel_mm = float(np.mean(grid.spacing_mm))
        points, coarse = voxel_points(grid, self.device), coarse_points(grid, self.device)
        bend = torch.stack([noise.smooth(coarse, 70, c) for c in (0, 1, 2)], -1) * t.warp_mm
        points, coarse = points + enlarge(bend, shape), coarse + bend

        bones = self._bones.on_grid(grid, points)
        femora = {name: bones.pop(name) for name in list(bones) if name in LABELS}
        rough = enlarge(noise.smooth(coarse, 14, 3) * t.roughness_mm, shape)
        nearest_femur = torch.full(shape, FAR_MM, device=self.device)
        for name, femur in femora.items():
            femur.distance_mm = self._vary_femur(name, femur, rough, points, coarse)
            nearest_femur[femur.block] = torch.minimum(nearest_femur[femur.block], femur.distance_mm)
        for name, bone in bones.items():
            gap_mm = self.anatomy.tissue["hip_gap_mm" if name.endswith("hip") else "knee_gap_mm"]
            bone.distance_mm = torch.maximum(
                bone.distance_mm + rough[bone.block], gap_mm - nearest_femur[bone.block]
            )

        hu = self._soft_tissue.paint(points, coarse)
        labels = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        endosteal = torch.full(shape, FAR_MM, device=self.device)
        clouds = enlarge(noise.smooth(coarse, 22, 2) + 0.6 * noise.smooth(coarse, 9, 1), shape)
        for name, bone in (bones | femora).items():
            loaded = loaded_bone(points[bone.block], self.anatomy, name)
            depth = paint_bone(hu[bone.block], name, bone, clouds[bone.block], loaded, voxel_mm, t, noise)
            if name in femora:
                endosteal[bone.block] = torch.minimum(endosteal[bone.block], depth)
        for name, femur in femora.items():
            labels[femur.block][femur.distance_mm < 0] = LABELS[name]
        for distance in implant_distances(points, self.anatomy, t):
            hu = mix(hu, IMPLANT_HU, (0.5 - distance / voxel_mm).clamp(0, 1))
        return Painting(hu, labels, nearest_femur, endosteal)

    def _vary_femur(self, name: str, femur: BoneOnGrid, rough, points, coarse) -> torch.Tensor:
        """Its distance with bumps, osteophytes around the joints, and the cut of a neck that a stem replaces."""
        t, side = self.tissue, name.removesuffix("_femur")
        distance = femur.distance_mm + rough[femur.block]
        if t.osteophyte_mm:
            near_joint = ((femur.height < 0.12) | (femur.height > 0.85)).float()
            spurs = enlarge(self._noise.smooth(coarse, 18, 4), rough.shape)[femur.block].clamp(0.4, 2.0) - 0.4
            distance = distance - near_joint * spurs * t.osteophyte_mm
        if t.metal == "stem" and side == t.metal_side:
            distance = torch.maximum(distance, beyond_neck_cut(points[femur.block], self.anatomy, side))
        return distance
