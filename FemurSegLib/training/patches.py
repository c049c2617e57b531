"""Training patches for the segmenter: from phantoms painted on the spot and from labelled CTs, mixed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from FemurSegLib.phantom.anatomy import Anatomy, sample_anatomy
from FemurSegLib.phantom.paint import Painter
from FemurSegLib.phantom.scanner import sample_scanner, scan
from FemurSegLib.phantom.shapes import load_person
from FemurSegLib.phantom.tissue import IMPLANTS, Tissue, sample_tissue
from FemurSegLib.segmentation.network import SPACING_MM, normalize
from FemurSegLib.sides import UNDECIDED_LABEL
from FemurSegLib.training.cases import Case, read_case
from FemurSegLib.volume import Grid

IGNORE = 255
"""Label of patch voxels that take no part in the loss."""
OUTSIDE_HU = -1000.0
FEMUR_SHARE = 0.65
"""Part of the real patches that lie around a voxel of femur; the others lie anywhere in the CT."""
METAL_SHARE = 0.3
"""Part of the painted patients with an implant: more than there are, since streaks are hard to see through."""


@dataclass(frozen=True)
class PhantomSource:
    """Endless patches from phantoms of the given people.

    shapes: folder of bone shapes; people: their names; cache: folder of distance fields; feet: the person who
    lends feet; patch: (k, j, i) voxels of 1 mm; per_patient: patches painted from one patient.
    """

    shapes: Path
    people: tuple[str, ...]
    cache: Path | None
    patch: tuple[int, int, int]
    feet: str = "z013"
    per_patient: int = 4
    pool: int = 12

    def stream(self, seed: int, device="cpu"):
        """Yields (image float32 in 0..1, label uint8) tensors of shape (k, j, i), forever."""
        rng = np.random.default_rng(seed)
        feet = load_person(self.shapes, self.feet, self.cache)
        while True:
            chosen = rng.choice(self.people, size=min(self.pool, len(self.people)), replace=False)
            people = [load_person(self.shapes, str(name), self.cache) for name in chosen]
            for _ in range(2 * len(people)):
                anatomy = sample_anatomy(people, feet, int(rng.integers(2**31)))
                painter = Painter(anatomy, device, _with_metal(sample_tissue(anatomy.seed), rng))
                for _ in range(self.per_patient):
                    yield self._patch(painter, rng)

    def _patch(self, painter: Painter, rng: np.random.Generator):
        center = _interesting_point(painter.anatomy, painter.tissue, rng)
        size = np.array(self.patch[::-1])
        origin = center - (size - 1) / 2 * np.array(SPACING_MM)
        hu, label = painter.paint(Grid(self.patch, SPACING_MM, tuple(origin), np.eye(3)))
        generator = torch.Generator(hu.device).manual_seed(int(rng.integers(2**31)))
        hu = scan(hu, sample_scanner(rng), SPACING_MM, generator)
        label = (label > 0).to(torch.uint8)
        if rng.random() < 0.35:
            _cut_away(hu, label, rng)
        return normalize(hu), label


def _with_metal(tissue: Tissue, rng: np.random.Generator) -> Tissue:
    """The tissue, with an implant in `METAL_SHARE` of the patients."""
    wanted = rng.random() < METAL_SHARE
    return replace(tissue, metal=str(rng.choice(IMPLANTS)) if wanted else "")


def _interesting_point(anatomy: Anatomy, tissue: Tissue, rng: np.random.Generator) -> np.ndarray:
    """Around the hip and the knee most often, along the shaft and the tibia, and now and then anywhere."""
    side = str(rng.choice(["left", "right"]))
    if tissue.metal and rng.random() < 0.7:
        side = tissue.metal_side
    leg = anatomy.legs[side]
    where = rng.random()
    if where < 0.4:
        along = rng.uniform(0.82, 1.05)
    elif where < 0.66:
        along = rng.uniform(-0.08, 0.18)
    elif where < 0.78:
        along = rng.uniform(0.15, 0.85)
    elif where < 0.95:
        return leg.knee_mm + (leg.ankle_mm - leg.knee_mm) * rng.uniform(0.05, 0.8) + rng.normal(0, 14, 3)
    else:
        bones = list(anatomy.bones.values())
        low, high = bones[rng.integers(len(bones))].bounds_mm()
        return rng.uniform(low, high)
    return leg.knee_mm + (leg.hip_mm - leg.knee_mm) * along + rng.normal(0, 14, 3)


def _cut_away(hu, label, rng: np.random.Generator) -> None:
    """The volume ends inside the patch: beyond one or two faces there is nothing."""
    for _ in range(rng.integers(1, 3)):
        axis = rng.integers(3)
        depth = int(rng.integers(4, max(5, hu.shape[axis] // 2)))
        at = slice(0, depth) if rng.random() < 0.5 else slice(hu.shape[axis] - depth, None)
        index = tuple(at if a == axis else slice(None) for a in range(3))
        hu[index] = OUTSIDE_HU
        label[index] = 0


class RealSource:
    """Endless patches from labelled CTs, turned, scaled, mirrored and re-scanned at random.

    cases: labelled CTs, kept in memory at their own spacing. patch: (k, j, i) voxels of 1 mm.
    """

    def __init__(self, cases: list[Case], patch: tuple[int, int, int]):
        self.patch = patch
        self._volumes = []
        for case in cases:
            ct, labels = (volume.oriented() for volume in read_case(case))
            voxels = torch.from_numpy(np.ascontiguousarray(ct.voxels)).float()
            label = torch.from_numpy(np.ascontiguousarray(labels.voxels)).long()
            femur = ((label > 0) & (label != UNDECIDED_LABEL)).float()
            open_ = (label == UNDECIDED_LABEL).float()
            inside = np.argwhere(femur.numpy() > 0)
            self._volumes.append((voxels, femur, open_, np.array(ct.grid.spacing_mm), inside))

    def stream(self, seed: int):
        """Yields (image float32 in 0..1, label uint8 with `IGNORE`) tensors of shape (k, j, i), forever."""
        rng = np.random.default_rng(seed)
        while True:
            yield self._patch(*self._volumes[rng.integers(len(self._volumes))], rng)

    def _patch(self, voxels, femur, open_, spacing, inside, rng):
        if len(inside) and rng.random() < FEMUR_SHARE:
            center = inside[rng.integers(len(inside))][::-1].astype(float)
        else:
            center = rng.uniform(0, np.array(voxels.shape[::-1]) - 1)
        center = center + rng.normal(0, 16, 3) / spacing
        turn = _small_rotation(rng, degrees=12) @ np.diag(rng.uniform(0.85, 1.18, 3))
        if rng.random() < 0.5:
            turn = turn @ np.diag([-1.0, 1.0, 1.0])
        image = self._resample(voxels - OUTSIDE_HU, center, spacing, turn) + OUTSIDE_HU
        label = self._resample(femur, center, spacing, turn) > 0.5
        ignore = self._resample(open_, center, spacing, turn) > 0.3
        image = _rescan(image, rng)
        label = label.to(torch.uint8).masked_fill(ignore, IGNORE)
        return normalize(image), label

    def _resample(self, volume, center, spacing, turn):
        """Trilinear sample of `volume` on a turned 1 mm patch around voxel `center` (i, j, k); 0 beyond."""
        size = np.array(volume.shape[::-1], float)
        half = np.array(self.patch[::-1], float) / 2
        to_voxels = np.diag(1 / spacing) @ turn @ np.diag(half)  # from the patch's -1..1 (x, y, z)
        matrix = np.c_[np.diag(2 / size) @ to_voxels, 2 * (center + 0.5) / size - 1]
        grid = F.affine_grid(torch.from_numpy(matrix[None]).float(), (1, 1, *self.patch), align_corners=False)
        return F.grid_sample(volume[None, None], grid, align_corners=False)[0, 0]


def _small_rotation(rng, degrees: float) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(np.radians(rng.normal(0, degrees / 2, 3))).as_matrix()


def _rescan(hu, rng: np.random.Generator):
    """Other calibration, contrast of bone, noise and sharpness of a real patch."""
    inside = (hu > -990).float()
    bone = (hu - 90).clamp(min=0)
    hu = hu + bone * rng.uniform(-0.45, 0.25) + inside * rng.normal(0, 12)
    if rng.random() < 0.3:
        coarse = rng.random() < 0.3
        pool = ((2, 2, 2), 2) if coarse else ((1, 3, 3), 1, (0, 1, 1))
        hu = F.avg_pool3d(hu[None, None], *pool)[0, 0]
        if hu.shape != inside.shape:
            hu = F.interpolate(hu[None, None], size=tuple(inside.shape), mode="trilinear")[0, 0]
    if rng.random() < 0.5:
        noise = torch.from_numpy(rng.standard_normal(hu.shape, dtype=np.float32))
        hu = hu + inside * F.avg_pool3d(noise[None, None], 3, 1, 1)[0, 0] * rng.uniform(10, 150)
    return hu
