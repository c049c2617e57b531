"""Painted femora whose answers are known exactly, for the studies of what is read from a bone.

Femora of people that no weights were trained on are painted and scanned by scanners drawn at random (see phantom/).
Their surfaces are known as distances at every voxel, so that they lie between voxels and owe nothing to a mask.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from FemurSegLib.grid import Grid
from FemurSegLib.phantom.command import HELD_OUT, add_shape_options
from FemurSegLib.sides import LABELS, SIDES
from FemurSegLib.surface import bounds, zero_surface
from FemurSegLib.volume import Volume

from .bone import Bone

PARTS = ("proximal", "whole")
PROXIMAL_MM = 170.0
"""From the top of the femur: head, neck, trochanters and a little of the shaft, as in Deng et al. 2022."""
BESIDE_MM = 7.0
"""Beyond the bone's distance field, which itself reaches 9 mm out."""
SPACING_MM = (0.8, 0.8, 1.0)
SLAB, AROUND = 48, 8
"""Slices that are painted together, and voxels around the bone in them: multiples of phantom.fields.COARSE, so that
the surfaces are those of the whole painting."""


@dataclass(frozen=True, eq=False)
class PaintedFemur:
    """A painted femur. ct: int16 HU; labels: uint8 with this femur alone; endosteal_mm: float32 (k, j, i), distance
    outside the endosteal surface, negative inside, exact. anatomy, tissue: what was painted."""

    name: str
    side: str
    ct: Volume
    labels: np.ndarray
    endosteal_mm: np.ndarray
    anatomy: object
    tissue: object

    @property
    def inside(self) -> np.ndarray:
        """Voxels within the endosteal surface."""
        return (self.labels > 0) & (self.endosteal_mm < 0)

    @cached_property
    def periosteal_mm(self) -> np.ndarray:
        """float32 (k, j, i): distance of voxel centres outside the periosteal surface as it was painted, bent and
        roughened; negative exactly where `labels` has this femur, and far away wherever else."""
        from FemurSegLib.phantom.bones import FAR_MM
        from FemurSegLib.phantom.paint import Painter

        painter, grid, label = Painter(self.anatomy, tissue=self.tissue), self.ct.grid, LABELS[self.side]
        out = np.full(grid.shape, FAR_MM, np.float32)
        for first in range(0, grid.shape[0], SLAB):
            last = min(first + SLAB, grid.shape[0])
            box = bounds(self.labels[max(0, first - 2) : last + 2], label)
            if box is None:
                continue
            low = [max(0, s.start - AROUND) // AROUND * AROUND for s in box[1:]]
            high = [min(n, s.stop + AROUND) for s, n in zip(box[1:], grid.shape[1:], strict=True)]
            painted = painter.paint_surfaces(grid.crop((first, *low), (last, *high))).periosteal_mm
            out[first:last, low[0] : high[0], low[1] : high[1]] = painted.cpu().numpy()
        return np.where(self.labels > 0, out, np.maximum(out, 0))  # the other femur is none of its business

    def exact_bone(self) -> Bone:
        """The largest piece of the periosteal surface: the zero of the exact distance, by marching cubes."""
        from FemurSegLib.segmentation.cleanup import largest

        depth = -self.periosteal_mm
        depth[(depth > 0) & ~largest(depth > 0)] = depth.min()
        spacing = np.array(self.ct.grid.spacing_mm)
        bone = Bone.of_surface(zero_surface(depth, spacing[::-1], (0, 0, 0)), self.side)
        return replace(bone, points_mm=self.ct.grid.lps(bone.points_mm / spacing))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which femora: --shapes, --people, --cache, --femora, --seed and --spacing."""
    add_shape_options(parser, required=True, people=HELD_OUT)
    parser.add_argument("--femora", type=int, default=8, metavar="N", help="default: 8")
    parser.add_argument("--seed", type=int, default=None, help="of the first; default: drawn, and printed")
    parser.add_argument("--spacing", nargs=3, type=float, default=SPACING_MM, help="mm; default: 0.8 0.8 1")


def announce(args) -> int:
    """The seed, drawn where none was given; printed with the voxels."""
    seed = int(np.random.default_rng().integers(10**6)) if args.seed is None else args.seed
    print(f"seed {seed}, voxels {' x '.join(map(str, args.spacing))} mm", flush=True)
    return seed


def painted_femora(
    args, seed: int, parts=("whole",), metal: bool = False, beside_mm: float = BESIDE_MM
) -> Iterator[PaintedFemur]:
    """Yields `args.femora` of them; people, sides and parts (of `PARTS`) are taken in turn.

    args: as `add_options` reads them. metal: leave the implants that some patients have. beside_mm: see
    `grid_around`.
    """
    from FemurSegLib.phantom.anatomy import sample_anatomy
    from FemurSegLib.phantom.case import make_phantom
    from FemurSegLib.phantom.shapes import feet_for, load_person
    from FemurSegLib.phantom.tissue import sample_tissue

    feet = load_person(args.shapes, feet_for(args.people), args.cache)
    for number in range(args.femora):
        name = args.people[number % len(args.people)]
        anatomy = sample_anatomy([load_person(args.shapes, name, args.cache)], feet, seed + number)
        part = parts[(number + number // len(args.people)) % len(parts)]
        sides = [side for side in SIDES if side in anatomy.bones]
        side = sides[number // len(args.people) % len(sides)]
        grid = grid_around(anatomy.bones[side], args.spacing, part, beside_mm)
        tissue = sample_tissue(anatomy.seed)
        tissue = tissue if metal else replace(tissue, metal="")
        phantom = make_phantom(anatomy, grid, tissue=tissue, surfaces=True)
        labels = np.where(phantom.labels.voxels == LABELS[side], LABELS[side], 0).astype(np.uint8)
        title = f"{name} {side.split('_')[0]:5s} {part:8s}"
        yield PaintedFemur(
            title, side, phantom.ct, labels, phantom.endosteal_mm.astype(np.float32), anatomy, tissue
        )


def grid_around(bone, spacing_mm, part: str, beside_mm: float = BESIDE_MM) -> Grid:
    """The grid of a placed bone and `beside_mm` around its field; `proximal`: its upper `PROXIMAL_MM` alone."""
    low, high = bone.bounds_mm()
    low, high = low - beside_mm, high + beside_mm
    if part == "proximal":
        low[2] = max(low[2], high[2] - PROXIMAL_MM - 2 * beside_mm)
    size = np.maximum(np.ceil((high - low) / np.array(spacing_mm)).astype(int), 8)
    return Grid(tuple(size[::-1]), tuple(spacing_mm), tuple(low), np.eye(3))
