"""Paints a patient on any grid: Hounsfield units and exact labels, in torch, on the CPU or a GPU.

Values follow the real CTs of the project (fat -82 to -102 HU, muscle 38 to 56, cortex 1400 to 1550,
measured as modes) and are spread far beyond them. The label of a voxel is the sign of the distance of its
centre to the periosteal surface of a femur: cortex, trabecular bone and canal alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from FemurSegLib.phantom.anatomy import Anatomy, PlacedBone
from FemurSegLib.phantom.distance import STEP_MM
from FemurSegLib.sides import LABELS
from FemurSegLib.volume import Grid

COARSE = 4
"""Smooth fields (skin, septa, warps) are computed on every fourth voxel and interpolated. Pieces of a grid
that start at a multiple of it have the same smooth fields as the whole."""
FAR_MM = 12.7


@dataclass(frozen=True)
class Tissue:
    """What a patient is made of. HU unless the name says otherwise."""

    fat: float
    muscle: float
    muscle_fat_fraction: float
    cortex_shaft: float
    cortex_joint: float
    cortex_shaft_mm: float
    cortex_joint_mm: float
    trabecular: float
    trabecular_texture: float
    marrow: float
    subcutaneous_mm: float
    girth: float
    vessel: float
    bowel: float
    warp_mm: float
    roughness_mm: float
    osteophyte_mm: float
    calcified: float
    metal: str
    metal_side: str
    tumour_mm: float
    table: bool
    table_hu: float
    table_bend: float


def sample_tissue(seed: int) -> Tissue:
    """Age and build at random: from a dense young skeleton to an osteoporotic one, thin to obese."""
    rng = np.random.default_rng([seed, 1])
    density = rng.beta(1.6, 1.6)  # 0 osteoporotic, 1 young and dense
    contrast = rng.random() < 0.3
    return Tissue(
        fat=rng.uniform(-120, -75),
        muscle=rng.uniform(30, 70),
        muscle_fat_fraction=rng.beta(1, 5),
        cortex_shaft=rng.uniform(1000, 1450) + 350 * density,
        cortex_joint=rng.uniform(250, 600) + 500 * density,
        cortex_shaft_mm=rng.uniform(2.0, 4.5) + 3.5 * density,
        cortex_joint_mm=rng.uniform(0.3, 0.9) + 0.8 * density,
        trabecular=rng.uniform(-60, 60) + 330 * density,
        trabecular_texture=rng.uniform(15, 110),
        marrow=rng.uniform(-100, 60),
        subcutaneous_mm=rng.gamma(2.2, 8.0) + 3,
        girth=rng.uniform(0.75, 1.3),
        vessel=rng.uniform(130, 450) if contrast else rng.uniform(25, 60),
        bowel=rng.uniform(100, 700) if rng.random() < 0.2 else rng.uniform(10, 60),
        warp_mm=rng.uniform(0, 4),
        roughness_mm=rng.uniform(0, 0.5),
        osteophyte_mm=rng.uniform(1, 4) if rng.random() < 0.35 else 0.0,
        calcified=rng.uniform(200, 1000) if rng.random() < 0.3 else 0.0,
        metal=str(rng.choice(["", "nail", "plate", "stem", "screws"], p=[0.84, 0.05, 0.04, 0.04, 0.03])),
        metal_side=str(rng.choice(["left", "right"])),
        tumour_mm=rng.uniform(20, 60) if rng.random() < 0.15 else 0.0,
        table=bool(rng.random() < 0.8),
        table_hu=rng.uniform(-500, 500),
        table_bend=rng.choice([0.0, rng.uniform(2e-4, 1.2e-3)]),
    )


class Painter:
    """Paints one patient; `paint` may be called for as many grids as wanted, pieces of one grid fit together.

    anatomy: where the bones are. device: torch device. tissue: what they are made of (from the seed by
    default).
    """

    def __init__(self, anatomy: Anatomy, device: str | torch.device = "cpu", tissue: Tissue | None = None):
        self.anatomy, self.device = anatomy, torch.device(device)
        self.tissue = tissue or sample_tissue(anatomy.seed)
        generator = torch.Generator().manual_seed(anatomy.seed)
        self._tile = torch.randn((1, 8, 48, 48, 48), generator=generator)
        self._tile = F.pad(self._tile, (0, 1) * 3, mode="circular").to(self.device)
        self._fields: dict[str, torch.Tensor] = {}
        self._rng = np.random.default_rng([anatomy.seed, 2])
        self._vessels = self._sample_vessels()
        self._tumour = self._sample_tumour()

    def paint(self, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
        """HU float32 (k, j, i) before any scanner effect, and labels uint8 of the same shape."""
        t = self.tissue
        shape, voxel_mm = grid.shape, float(np.mean(grid.spacing_mm))
        points = self._points(grid)
        coarse = self._coarse_points(grid)
        shift = torch.stack([self._noise(coarse, 70, c) for c in (0, 1, 2)], -1) * t.warp_mm
        points = points + _enlarge(shift, shape)
        coarse = coarse + shift

        bones = self._bone_distances(points, grid)
        rough = _enlarge(self._noise(coarse, 14, 3) * t.roughness_mm, shape)
        nearest_femur = torch.full(shape, FAR_MM, device=self.device)
        for side in ("right", "left"):
            if (name := f"{side}_femur") in bones:
                block, distance, height = bones[name]
                distance = self._vary_femur(
                    distance + rough[block], height, points[block], coarse, block, shape, side
                )
                bones[name] = block, distance, height
                nearest_femur[block] = torch.minimum(nearest_femur[block], distance)

        hu = self._soft_tissue(coarse, points, shape)
        clouds = _enlarge(self._noise(coarse, 22, 2) + 0.6 * self._noise(coarse, 9, 1), shape)
        gaps = self.anatomy.tissue
        labels = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        for name, (block, distance, height) in sorted(
            bones.items(), key=lambda item: item[0].endswith("femur")
        ):
            if name in LABELS:
                labels[block][distance < 0] = LABELS[name]
            else:
                gap = gaps["hip_gap_mm"] if name.endswith("hip") else gaps["knee_gap_mm"]
                distance = torch.maximum(distance + rough[block], gap - nearest_femur[block])
            self._paint_bone(hu[block], distance, height, clouds[block], voxel_mm, name)
        for distance, value in self._metal(points):
            fraction = (0.5 - distance / voxel_mm).clamp(0, 1)
            hu = hu + (value - hu) * fraction
        return hu, labels

    # --- bones --------------------------------------------------------------------------------------------

    def _bone_distances(self, points, grid: Grid) -> dict[str, tuple]:
        """For every bone near the grid: the block of voxels around it, and in the block its distance (mm)
        and the height along it (0 at its lower end to 1)."""
        corners = grid.lps(
            np.array(
                [
                    [i, j, k]
                    for i in (-0.5, grid.shape[2] - 0.5)
                    for j in (-0.5, grid.shape[1] - 0.5)
                    for k in (-0.5, grid.shape[0] - 0.5)
                ]
            )
        )
        low, high = corners.min(0) - 6, corners.max(0) + 6
        out = {}
        for name, bone in self.anatomy.bones.items():
            b_low, b_high = bone.bounds_mm()
            if (b_low > high).any() or (b_high < low).any():
                continue
            block = self._block(grid, b_low - 6, b_high + 6)
            out[name] = (block, *self._sample(bone, points[block]))
        return out

    def _block(self, grid: Grid, low, high) -> tuple[slice, slice, slice]:
        corners = np.array(
            [[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
        )
        ijk = grid.ijk(corners)
        first = np.clip(np.floor(ijk.min(0)), 0, np.array(grid.shape[::-1]) - 1).astype(int)
        last = np.clip(np.ceil(ijk.max(0)) + 1, 1, np.array(grid.shape[::-1])).astype(int)
        return tuple(slice(first[a], max(last[a], first[a] + 1)) for a in (2, 1, 0))

    def _sample(self, bone: PlacedBone, points) -> tuple[torch.Tensor, torch.Tensor]:
        field = self._fields.get(bone.name + str(id(bone)))
        if field is None:
            field = torch.from_numpy(bone.field.distance).to(self.device, torch.float32)[None, None] * STEP_MM
            self._fields[bone.name + str(id(bone))] = field
        size = np.array(bone.field.distance.shape[::-1])
        to_unit = np.eye(4)
        to_unit[:3, :3] = np.diag(2.0 / (bone.field.spacing_mm * (size - 1)))
        to_unit[:3, 3] = -1 - to_unit[:3, :3] @ bone.field.origin_mm
        matrix = torch.from_numpy((to_unit @ bone.to_field)[:3]).to(points)
        at = points @ matrix[:, :3].T + matrix[:, 3]
        distance = F.grid_sample(field, at[None], align_corners=True, padding_mode="border")[0, 0]
        outside = (at.abs() - 1).clamp(min=0).amax(-1) > 0
        distance = torch.where(outside, torch.full_like(distance, FAR_MM), distance * bone.scale)
        return distance, ((at[..., 2] + 1) / 2).clamp(0, 1)

    def _vary_femur(self, distance, height, points, coarse, block, shape, side: str):
        """Osteophytes around the joints, and the cut of a neck that a stem replaces."""
        t = self.tissue
        if t.osteophyte_mm:
            near_joint = ((height < 0.12) | (height > 0.85)).float()
            bump = _enlarge(self._noise(coarse, 18, 4), shape)[block].clamp(0.4, 2.0) - 0.4
            distance = distance - near_joint * bump * t.osteophyte_mm
        if t.metal == "stem" and side == t.metal_side:
            distance = torch.maximum(distance, self._beyond_neck_cut(points, side))
        return distance

    def _paint_bone(self, hu, distance, height, clouds, voxel_mm, name: str) -> None:
        """Cortex, trabecular bone and marrow over `hu`, in place, with partial volume at both surfaces."""
        t = self.tissue
        long, thin = name.endswith(("femur", "tibia", "fibula")), 1.0 if name in LABELS else 0.75
        near = distance < voxel_mm
        if not near.any():
            return
        d, u = distance[near], height[near]
        shaft = _smoothstep(0.12, 0.33, u) * (1 - _smoothstep(0.70, 0.86, u)) if long else torch.zeros_like(u)
        thickness = (t.cortex_joint_mm + (t.cortex_shaft_mm - t.cortex_joint_mm) * shaft) * thin
        jitter = self._texture(hu.shape, 3.0, voxel_mm)[near]
        thickness = thickness * torch.exp(0.2 * jitter)
        cortex = t.cortex_joint + (t.cortex_shaft - t.cortex_joint) * shaft
        inner = t.trabecular * (1 - shaft) + t.marrow * shaft
        grain = self._texture(hu.shape, 1.2, voxel_mm)[near] * t.trabecular_texture * (1 - 0.8 * shaft)
        inner = inner + grain + jitter * 0.5 * t.trabecular_texture * (1 - shaft)
        inner = inner + 0.5 * abs(t.trabecular) * torch.exp((d + thickness).clamp(max=0) / 5.0) * (1 - shaft)
        inner = inner + clouds[near] * 0.45 * (abs(t.trabecular) + 30) * (1 - shaft)
        whole = (0.5 - d / voxel_mm).clamp(0, 1)
        core = torch.minimum((0.5 - (d + thickness) / (voxel_mm + 0.8)).clamp(0, 1), whole)
        hu[near] = hu[near] * (1 - whole) + cortex * (whole - core) + inner * core

    # --- soft tissue --------------------------------------------------------------------------------------

    def _soft_tissue(self, coarse, points, shape):
        t = self.tissue
        skin = self.skin_distance(coarse)
        fat_mm = t.subcutaneous_mm * (1 + 0.5 * self._noise(coarse, 90, 5)) * self._fat_share(coarse)
        into_muscle = _enlarge(skin + fat_mm.clamp(min=2.0), shape)
        skin = _enlarge(skin, shape)
        septa = torch.minimum(
            self._noise(coarse, (28, 28, 160), 6).abs(), self._noise(coarse, (40, 40, 220), 7).abs()
        )
        septa = _enlarge(septa, shape)
        width = 0.05 + 0.45 * t.muscle_fat_fraction
        lean = ((septa - width) / 0.06).clamp(0, 1) * (0.5 - into_muscle / 3).clamp(0, 1)
        mottle = self._texture(shape, 4.0, 1.0) * 8
        hu = t.fat + (t.muscle - t.fat) * lean * (1 - 0.3 * t.muscle_fat_fraction) + mottle
        hu = self._viscera(hu, coarse, shape)
        for line, radius, wall in self._vessels:
            distance = _distance_to_line(coarse, line)
            if float(distance.min()) > 40:
                continue
            distance = _enlarge(distance, shape) - radius
            hu = hu + (t.vessel - hu) * (0.5 - distance).clamp(0, 1)
            if t.calcified and wall:
                plaque = (distance.abs() < 1.2) & (self._texture(shape, 3.0, 1.0) > 0.8)
                hu = torch.where(plaque, torch.full_like(hu, t.calcified), hu)
        if self._tumour is not None:
            center, radii, value = self._tumour
            q = (points - torch.as_tensor(center, device=self.device, dtype=torch.float32)) / radii
            distance = (q.norm(dim=-1) - 1) * radii
            hu = hu + (value - hu) * (0.5 - distance / 2).clamp(0, 1) * (skin < -3)
        hu = torch.where((skin > -1.8) & (skin < 0), torch.full_like(hu, 20.0), hu)
        outside = (0.5 + skin).clamp(0, 1)
        return hu * (1 - outside) + self._surroundings(coarse, points, shape) * outside

    def _surroundings(self, coarse, points, shape):
        """Air, and under the patient a table: a bent board of two skins around a light core, with a
        mattress."""
        t = self.tissue
        air = torch.full(shape, -1000.0, device=self.device)
        if not t.table:
            return air
        hips = np.mean([leg.hip_mm for leg in self.anatomy.legs.values()], 0)
        x = points[..., 0] - hips[0]
        board = points[..., 1] - (hips[1] + 18 + self._pelvis_depth_mm + 4 - t.table_bend * x**2)
        wide = x.abs() < 210
        air = torch.where(wide & (board > -14) & (board < 0), torch.full_like(air, -930.0), air)
        air = torch.where(wide & (board > 0) & (board < 40), torch.full_like(air, -900.0), air)
        skins = wide & ((board.abs() < 1.2) | ((board - 40).abs() < 1.2))
        return torch.where(skins, torch.full_like(air, t.table_hu), air)

    @property
    def _pelvis_depth_mm(self) -> float:
        return 95 * self.tissue.girth + 0.8 * self.tissue.subcutaneous_mm

    def _fat_share(self, p):
        """Thick over the pelvis and thigh, thin below the knee."""
        knee_z = np.mean([leg.knee_mm[2] for leg in self.anatomy.legs.values()])
        hip_z = np.mean([leg.hip_mm[2] for leg in self.anatomy.legs.values()])
        return 0.25 + 0.85 * _smoothstep(knee_z - 30, hip_z, p[..., 2])

    def skin_distance(self, p):
        """Distance (mm, roughly) to the skin at points (..., 3); negative inside the body."""
        g, fat = self.tissue.girth, self.tissue.subcutaneous_mm
        parts = []
        for leg in self.anatomy.legs.values():
            size = np.linalg.norm(leg.hip_mm - leg.knee_mm) / 400.0
            hip, knee, ankle, toe = (
                self._vector(x) for x in (leg.hip_mm, leg.knee_mm, leg.ankle_mm, leg.toe_mm)
            )
            left, posterior, up = (self._vector(a) for a in leg.axes)
            medial = torch.sign(
                self._vector([np.mean([x.hip_mm[0] for x in self.anatomy.legs.values()])])[0] - hip[0]
            )
            inner = torch.tensor([1.0, 0, 0], device=self.device) * medial
            top = hip + inner * 12 + posterior * 14 + up * 20
            parts.append(
                _capsule(
                    p, knee - up * 5, top, (48 + 0.12 * fat) * g**0.5 * size, (74 * g + 0.95 * fat) * size
                )
            )
            calf = knee + (ankle - knee) * 0.3 + posterior * 12
            parts.append(
                _capsule(p, knee, calf, (48 + 0.12 * fat) * g**0.5 * size, (46 * g + 0.3 * fat) * size)
            )
            parts.append(_capsule(p, calf, ankle, (46 * g + 0.3 * fat) * size, 31 * size))
            parts.append(_capsule(p, ankle - up * 15, toe, 33 * size, 26 * size))
        hips = [leg.hip_mm for leg in self.anatomy.legs.values()]
        middle, half = np.mean(hips, 0), np.linalg.norm(hips[0] - hips[1]) / 2
        base = self._vector(middle + np.array([0, 18, 25]))
        q = p - base
        wide, deep = half + 82 * g + 0.9 * fat, self._pelvis_depth_mm
        ring = ((q[..., 0] / wide) ** 2 + (q[..., 1] / deep) ** 2).sqrt()
        pelvis = (ring - 1) * min(wide, deep)
        below = (-q[..., 2] - 15).clamp(min=0)
        parts.append(
            torch.where(below > 0, torch.hypot(pelvis.clamp(min=0), below) + pelvis.clamp(max=0), pelvis)
        )
        stack = torch.stack(parts)
        return -10.0 * torch.logsumexp(-stack / 10.0, 0)

    def _viscera(self, hu, coarse, shape):
        hips = [leg.hip_mm for leg in self.anatomy.legs.values()]
        middle, half = np.mean(hips, 0), np.linalg.norm(hips[0] - hips[1]) / 2
        q = coarse - self._vector(middle + np.array([0, 5, 0]))
        level = q[..., 2]
        ring = (
            (q[..., 0] / (half * (0.62 + 0.004 * level.clamp(0, 90)))) ** 2 + (q[..., 1] / 75) ** 2
        ).sqrt()
        inside = ((1 - ring) * 40).clamp(max=level + 5)
        if float(inside.max()) < -5:
            return hu
        t = self.tissue
        loops = self._noise(coarse, 30, 4)
        gas = self._noise(coarse, 40, 0)
        content = torch.where(loops > 0.1, torch.full_like(loops, t.bowel), torch.full_like(loops, t.fat))
        content = torch.where(loops < -0.9, torch.full_like(loops, 12.0), content)
        content = torch.where((gas > 1.1) & (loops > 0.1), torch.full_like(loops, -850.0), content)
        share = _enlarge(inside, shape).clamp(0, 4) / 4
        return hu * (1 - share) + _enlarge(content, shape) * share

    def _sample_vessels(self) -> list[tuple[torch.Tensor, float, bool]]:
        lines = []
        for side, leg in self.anatomy.legs.items():
            left, posterior, up = leg.axes
            medial = -left if side == "left" else left
            hip, knee, ankle = leg.hip_mm, leg.knee_mm, leg.ankle_mm
            offset = self._rng.normal(0, 4, 3)
            trunk = [
                hip + up * 110 + medial * 40 + posterior * 20,
                hip + up * 5 - posterior * 32 + medial * 5,
                hip * 0.5 + knee * 0.5 + medial * 30 - posterior * 8,
                knee + up * 60 + medial * 18 + posterior * 18,
                knee + posterior * 38,
                knee * 0.7 + ankle * 0.3 + posterior * 20,
                ankle + posterior * 15,
            ]
            for kind, (shift, radius) in enumerate([((0, 0, 0), 3.6), ((7, 5, 0), 4.6), ((-12, 12, 0), 2.0)]):
                points = np.array(trunk) + np.array(shift) + offset
                lines.append((self._vector(points), radius * self._rng.uniform(0.8, 1.25), kind != 1))
        return lines

    def _sample_tumour(self):
        if not self.tissue.tumour_mm:
            return None
        leg = self.anatomy.legs[str(self._rng.choice(["left", "right"]))]
        on_axis = leg.knee_mm + (leg.hip_mm - leg.knee_mm) * self._rng.uniform(-0.3, 0.9)
        away = self._rng.normal(0, 1, 3)
        center = on_axis + away / np.linalg.norm(away) * (self.tissue.tumour_mm + 10)
        return center, float(self.tissue.tumour_mm), float(self._rng.uniform(10, 60))

    # --- metal --------------------------------------------------------------------------------------------

    def _metal(self, points):
        """Distances and HU of implants in and on one femur."""
        t = self.tissue
        if not t.metal or f"{t.metal_side}_femur" not in self.anatomy.bones:
            return []
        leg = self.anatomy.legs[t.metal_side]
        left, posterior, up = leg.axes
        lateral = left if t.metal_side == "left" else -left
        hip, knee, r = leg.hip_mm, leg.knee_mm, leg.head_radius_mm
        shaft_top = hip + lateral * 1.9 * r - up * 1.2 * r
        head = self._vector(hip)
        if t.metal == "nail":
            rods = [
                (shaft_top + up * 25, knee * 0.75 + shaft_top * 0.25, 5.5),
                (shaft_top - up * 10, hip + up * 4, 4.5),
            ]
        elif t.metal == "plate":
            side = lateral * 20
            rods = [(knee + side * 2 + up * 20, knee * 0.45 + shaft_top * 0.55 + side, 3.0)]
            rods += [(knee + side * 2 + up * h, knee - side * 1.6 + up * h, 2.2) for h in (12, 26, 40)]
        elif t.metal == "screws":
            rods = [(shaft_top - up * 20 + posterior * s, hip + posterior * s, 3.5) for s in (-8, 0, 8)]
        else:
            rods = [(shaft_top + up * 5, shaft_top * 0.68 + knee * 0.32, 6.5), (shaft_top + up * 5, hip, 6.0)]
        out = [
            (_capsule(points, self._vector(a), self._vector(b), radius, radius), 3000.0)
            for a, b, radius in rods
        ]
        if t.metal == "stem":
            out.append(((points - head).norm(dim=-1) - 0.75 * r, 3000.0))
            cup = ((points - head).norm(dim=-1) - 1.12 * r).abs() - 2.0
            above = (points - head) @ self._vector(lateral * 0.6 - up * 0.8)
            out.append((torch.maximum(cup, above), 3000.0))
        return out

    def _beyond_neck_cut(self, points, side: str):
        """Positive on the head's side of the cut that a stem needs."""
        leg = self.anatomy.legs[side]
        left, _, up = leg.axes
        medial_up = (-left if side == "left" else left) * 0.7 + up * 0.7
        return (points - self._vector(leg.hip_mm)) @ self._vector(medial_up) + 1.1 * leg.head_radius_mm

    # --- helpers ------------------------------------------------------------------------------------------

    def _vector(self, values) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=self.device)

    def _points(self, grid: Grid):
        return self._lattice(
            grid, [torch.arange(n, device=self.device, dtype=torch.float32) for n in grid.shape]
        )

    def _coarse_points(self, grid: Grid):
        axes = [
            COARSE * torch.arange(-(-(n - 1) // COARSE) + 1, device=self.device, dtype=torch.float32)
            for n in grid.shape
        ]
        return self._lattice(grid, axes)

    def _lattice(self, grid: Grid, axes):
        matrix = self._vector(grid.ijk_to_lps())
        k, j, i = axes
        return (
            matrix[:3, 3]
            + i[None, None, :, None] * matrix[:3, 0]
            + j[None, :, None, None] * matrix[:3, 1]
            + k[:, None, None, None] * matrix[:3, 2]
        )

    def _noise(self, points, wavelength_mm, channel: int):
        """Smooth noise of about unit variance at points (..., 3), fixed in the patient."""
        scaled = points / torch.as_tensor(wavelength_mm, device=self.device, dtype=torch.float32)
        unit = torch.remainder(scaled + 7.3 * channel, 48.0) / 24.0 - 1
        tile = self._tile[:, channel : channel + 1]
        return F.grid_sample(tile, unit[None], align_corners=True)[0, 0] * 1.6

    def _texture(self, shape, grain_mm: float, voxel_mm: float):
        """Random texture of unit variance with the given grain; new at each call."""
        step = max(1, round(grain_mm / voxel_mm))
        small = torch.randn(
            [1, 1] + [-(-n // step) + 1 for n in shape], generator=self._generator(shape), device=self.device
        )
        if step == 1:
            return small[0, 0, : shape[0], : shape[1], : shape[2]]
        large = F.interpolate(small, size=shape, mode="trilinear", align_corners=True)[0, 0]
        return large * 1.5

    def _generator(self, shape):
        self._calls = getattr(self, "_calls", 0) + 1
        return torch.Generator(self.device).manual_seed(self.anatomy.seed * 7919 + self._calls)


def _enlarge(coarse, shape):
    """Trilinear interpolation of a field (k, j, i) or (k, j, i, 3) on every `COARSE`th voxel to all of
    `shape`."""
    if coarse.ndim == 4:
        return torch.stack([_enlarge(part, shape) for part in coarse.unbind(-1)], -1)
    size = [COARSE * (n - 1) + 1 for n in coarse.shape]
    large = F.interpolate(coarse[None, None], size=size, mode="trilinear", align_corners=True)[0, 0]
    return large[: shape[0], : shape[1], : shape[2]]


def _smoothstep(low, high, x):
    y = ((x - low) / (high - low)).clamp(0, 1)
    return y * y * (3 - 2 * y)


def _capsule(p, a, b, radius_a, radius_b):
    """Distance to a cone with round ends from a (radius_a) to b (radius_b)."""
    axis = b - a
    along = ((p - a) @ axis / (axis @ axis)).clamp(0, 1)
    return (p - a - along[..., None] * axis).norm(dim=-1) - (radius_a + (radius_b - radius_a) * along)


def _distance_to_line(p, line):
    distance = torch.full(p.shape[:-1], math.inf, device=p.device)
    for a, b in zip(line[:-1], line[1:], strict=True):
        distance = torch.minimum(distance, _capsule(p, a, b, 0.0, 0.0))
    return distance
