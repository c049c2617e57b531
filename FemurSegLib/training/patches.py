"""Training patches for the segmenter: from phantoms painted on the spot and from labelled CTs.

A patch follows from its number alone, so a training that goes on, or that several processes share, sees the same
patches as one that runs through. They are painted and resampled on any torch device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from FemurSegLib.phantom.anatomy import Anatomy, sample_anatomy
from FemurSegLib.phantom.paint import Painter
from FemurSegLib.phantom.scanner import blur, resize, sample_scanner, scan
from FemurSegLib.phantom.shapes import Person, feet_for, load_person
from FemurSegLib.phantom.tissue import IMPLANTS, Tissue, sample_tissue
from FemurSegLib.segmentation.network import SPACING_MM, normalize
from FemurSegLib.sides import UNDECIDED_LABEL
from FemurSegLib.training.cases import Case, read_case
from FemurSegLib.volume import Grid

IGNORE = 255
"""Label of patch voxels that take no part in the loss."""
OUTSIDE_HU = -1000.0
POOL = 12
"""People kept ready, for 2 * POOL patients."""
FEMUR_SHARE = 0.65
"""Part of the real patches that lie around a voxel of femur; the others lie anywhere in the CT."""
METAL_SHARE = 0.6
"""Part of the painted patients with an implant: far more than there are, since streaks are hard to see through."""
COARSE_SHARE = 0.12
"""Part of the painted patches that are as of a CT with large voxels in all directions, as those that were made
smaller to be shared."""
COARSE_MM = (1.2, 3.0)


@dataclass(frozen=True)
class PhantomSource:
    """Patches from phantoms of the given people: `source[n]` for any n from 0, the same at every call.

    shapes: folder of bone shapes; people: their names; cache: folder of distance fields; patch: (k, j, i) voxels
    of 1 mm; device: where they are painted, and stay; feet: who lends feet, `feet_for` by default; per_patient:
    patches in a row that are painted from one patient; pool: people kept ready, for 2 * pool patients.
    """

    shapes: Path
    people: tuple[str, ...]
    cache: Path | None
    patch: tuple[int, int, int]
    seed: int = 0
    device: str = "cpu"
    feet: str = ""
    per_patient: int = 4
    pool: int = POOL

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (float32 in 0..2) and label (uint8), both of shape (k, j, i)."""
        anatomy, tissue = _patient(self, number // self.per_patient)
        rng = np.random.default_rng([self.seed, 3, number])
        return self._patch(Painter(anatomy, self.device, tissue), rng)

    def draw_anatomy(self, number: int) -> tuple[Anatomy, np.random.Generator]:
        """The bones of patient `number`, and a generator for what else is to be drawn of that patient."""
        group = np.random.default_rng([self.seed, 1, number // (2 * self.pool)])
        chosen = group.choice(self.people, size=min(self.pool, len(self.people)), replace=False)
        people = [_person(self.shapes, str(name), self.cache) for name in chosen]
        feet = _person(self.shapes, self.feet or feet_for(self.people), self.cache)
        rng = np.random.default_rng([self.seed, 2, number])
        return sample_anatomy(people, feet, int(rng.integers(2**31))), rng

    def _patch(self, painter: Painter, rng: np.random.Generator):
        center = _interesting_point(painter.anatomy, painter.tissue, rng)
        hu, label = painter.paint(grid_around(center, self.patch, SPACING_MM))
        generator = torch.Generator(hu.device).manual_seed(int(rng.integers(2**31)))
        hu = scan(hu, sample_scanner(rng), SPACING_MM, generator)
        label = (label > 0).to(torch.uint8)
        if rng.random() < COARSE_SHARE:
            hu = coarse(hu, rng.uniform(*COARSE_MM))
        if rng.random() < 0.35:
            cut_away(hu, label, rng, faces=rng.integers(1, 3))
        return normalize(hu), label


@lru_cache(maxsize=16)
def _patient(source: PhantomSource, number: int) -> tuple[Anatomy, Tissue]:
    """Kept for the patches of one patient; so many, because several threads may paint."""
    anatomy, rng = source.draw_anatomy(number)
    return anatomy, _with_metal(sample_tissue(anatomy.seed), rng)


@lru_cache(maxsize=2 * POOL + 2)
def _person(shapes: Path, name: str, cache: Path | None) -> Person:
    """20 MB each."""
    return load_person(shapes, name, cache)


def grid_around(center_mm: np.ndarray, shape: tuple[int, int, int], spacing_mm) -> Grid:
    """The grid of a patch of `shape` (k, j, i) whose middle is `center_mm` (LPS)."""
    origin = center_mm - (np.array(shape[::-1]) - 1) / 2 * np.array(spacing_mm)
    return Grid(shape, tuple(spacing_mm), tuple(origin), np.eye(3))


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
    if where < 0.5:
        along = rng.uniform(0.82, 1.05)
    elif where < 0.72:
        along = rng.uniform(-0.08, 0.18)
    elif where < 0.82:
        along = rng.uniform(0.15, 0.85)
    elif where < 0.95:
        return leg.knee_mm + (leg.ankle_mm - leg.knee_mm) * rng.uniform(0.05, 0.8) + rng.normal(0, 14, 3)
    else:
        bones = list(anatomy.bones.values())
        low, high = bones[rng.integers(len(bones))].bounds_mm()
        return rng.uniform(low, high)
    return leg.knee_mm + (leg.hip_mm - leg.knee_mm) * along + rng.normal(0, 14, 3)


def coarse(hu: torch.Tensor, voxel_mm: float) -> torch.Tensor:
    """HU (k, j, i) on 1 mm as a CT with voxels of about `voxel_mm` shows them, back on 1 mm."""
    small = resize(blur(hu, 0.29 * voxel_mm, axes=(0, 1, 2)), [max(2, round(n / voxel_mm)) for n in hu.shape])
    return resize(small, hu.shape)


def cut_away(hu: torch.Tensor, label: torch.Tensor, rng: np.random.Generator, faces: int = 1) -> None:
    """The volume ends inside the patch: beyond so many faces there is nothing. Changes both in place."""
    for _ in range(faces):
        axis = rng.integers(3)
        depth = int(rng.integers(4, max(5, hu.shape[axis] // 2)))
        at = slice(0, depth) if rng.random() < 0.5 else slice(hu.shape[axis] - depth, None)
        index = tuple(at if a == axis else slice(None) for a in range(3))
        hu[index] = OUTSIDE_HU
        label[index] = 0


class RealSource:
    """Patches from labelled CTs: `source[n]` for any n from 0, the same at every call.

    cases: labelled CTs, kept on `device` at their own spacing; one given twice is taken twice as often. patch:
    (k, j, i) voxels of 1 mm. augment: turn, scale, mirror and scan again at random.
    """

    def __init__(self, cases: list[Case], patch: tuple[int, int, int], seed: int = 0, device="cpu", augment=True):
        self.cases, self.patch, self.seed, self.augment = list(cases), patch, seed, augment
        self._volumes = {}
        for case in dict.fromkeys(cases):
            ct, labels = (volume.oriented() for volume in read_case(case))
            inside = np.argwhere((labels.voxels > 0) & (labels.voxels != UNDECIDED_LABEL))
            voxels, label = (torch.from_numpy(np.ascontiguousarray(v.voxels)).to(device) for v in (ct, labels))
            self._volumes[case] = voxels, label, np.array(ct.grid.spacing_mm), inside

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (float32 in 0..2) and label (uint8 with `IGNORE`), both of shape (k, j, i)."""
        rng = np.random.default_rng([self.seed, number])
        voxels, labels, spacing, inside = self._volumes[self.cases[rng.integers(len(self.cases))]]
        if len(inside) and rng.random() < FEMUR_SHARE:
            center = inside[rng.integers(len(inside))][::-1].astype(float)
        else:
            center = rng.uniform(0, np.array(voxels.shape[::-1]) - 1)
        center = center + rng.normal(0, 16, 3) / spacing
        turn = _random_turn(rng) if self.augment else np.eye(3)
        block, matrix = self._place(voxels.shape, center, spacing, turn)
        voxels, labels = voxels[block], labels[block]
        image = self._resample(voxels.float() - OUTSIDE_HU, matrix) + OUTSIDE_HU
        undecided = labels == UNDECIDED_LABEL
        label = self._resample(((labels > 0) & ~undecided).float(), matrix) > 0.5
        ignore = self._resample(undecided.float(), matrix) > 0.3
        if self.augment:
            image = _rescan(image, rng)
        return normalize(image), label.to(torch.uint8).masked_fill(ignore, IGNORE)

    def _place(self, shape, center, spacing, turn):
        """The block of a volume (slices k, j, i) that a turned patch around voxel `center` (i, j, k) sees, and the
        (3, 4) matrix from the patch's -1..1 (x, y, z) to the block's."""
        to_voxels = np.diag(1 / spacing) @ turn @ np.diag(np.array(self.patch[::-1], float) / 2)
        reach, last = np.abs(to_voxels).sum(1) + 1, np.array(shape[::-1]) - 1
        low = np.clip(np.floor(center - reach), 0, last).astype(int)
        high = np.clip(np.ceil(center + reach), low, last).astype(int) + 1
        scale = 2 / (high - low)
        matrix = np.c_[to_voxels * scale[:, None], (center + 0.5 - low) * scale - 1]
        return tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True)), matrix

    def _resample(self, block, matrix):
        """Trilinear sample of the block on the patch; 0 beyond."""
        theta = torch.from_numpy(matrix[None]).to(block)
        grid = F.affine_grid(theta, (1, 1, *self.patch), align_corners=False)
        return F.grid_sample(block[None, None], grid, align_corners=False)[0, 0]


def _random_turn(rng) -> np.ndarray:
    """(3, 3): a small rotation, another size, and every second time a mirror."""
    turn = _small_rotation(rng, degrees=12) @ np.diag(rng.uniform(0.85, 1.18, 3))
    return turn @ np.diag([-1.0, 1.0, 1.0]) if rng.random() < 0.5 else turn


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
        generator = torch.Generator(hu.device).manual_seed(int(rng.integers(2**31)))
        noise = torch.randn(hu.shape, generator=generator, device=hu.device)
        hu = hu + inside * F.avg_pool3d(noise[None, None], 3, 1, 1)[0, 0] * rng.uniform(10, 150)
    return hu
