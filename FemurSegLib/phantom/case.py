"""A phantom CT with exact labels of both femora, at any spacing and field of view, from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from FemurSegLib.grid import Grid
from FemurSegLib.phantom.anatomy import Anatomy, sample_anatomy
from FemurSegLib.phantom.paint import Painter
from FemurSegLib.phantom.scanner import Scanner, sample_scanner, scan
from FemurSegLib.phantom.shapes import Person
from FemurSegLib.phantom.tissue import Tissue
from FemurSegLib.volume import Volume

SLAB = 48
FINE_MM = 1.6
"""Slices farther apart than this are painted several times and averaged, as a thick slice is."""

BESIDE_MM = 130.0
"""What a scan shows beside the joints."""

FIELDS_OF_VIEW = ("legs", "femora", "hips", "knees", "thigh", "lower_leg")


@dataclass(frozen=True)
class Phantom:
    """A CT (int16 HU) and its labelmap (uint8; 1 right femur, 2 left femur) on the same grid.

    endosteal_mm: float16 (k, j, i), distance of voxel centres outside the endosteal surface of the nearest femur
    (`bones.paint_bone`), negative inside; None where it was not asked for.
    """

    ct: Volume
    labels: Volume
    endosteal_mm: np.ndarray | None = None


def grid_for(anatomy: Anatomy, field_of_view: str, spacing_mm, seed: int = 0) -> Grid:
    """A scan of that part of the patient, the ends and the centre varied by `seed`.

    field_of_view: `legs` (pelvis to feet), `femora` (crest to below the knee), `hips`, `knees`, `thigh`
    (one side, cut somewhere), `lower_leg` (no femur). spacing_mm: (i, j, k). Raises ValueError for
    another name.
    """
    rng = np.random.default_rng([seed, 3])
    hips = np.array([leg.hip_mm for leg in anatomy.legs.values()])
    knees = np.array([leg.knee_mm for leg in anatomy.legs.values()])
    ankles = np.array([leg.ankle_mm for leg in anatomy.legs.values()])
    hip_z, knee_z, ankle_z = hips[:, 2].max(), knees[:, 2].min(), ankles[:, 2].min()
    joints = np.vstack([hips, knees, ankles] if field_of_view in ("legs", "lower_leg") else [hips, knees])
    low, high = joints.min(0) - BESIDE_MM, joints.max(0) + BESIDE_MM
    low[2] = anatomy.bounds_mm()[0][2] - 10
    if field_of_view == "legs":
        low[2] = rng.choice([low[2], rng.uniform(ankle_z - 40, ankle_z + 120)])
        high[2] = hip_z + rng.uniform(35, 240)
    elif field_of_view == "femora":
        low[2], high[2] = knee_z - rng.uniform(45, 170), hip_z + rng.uniform(35, 200)
    elif field_of_view == "hips":
        low[2], high[2] = hip_z - rng.uniform(40, 220), hip_z + rng.uniform(25, 220)
    elif field_of_view == "knees":
        low[2], high[2] = knee_z - rng.uniform(20, 200), knee_z + rng.uniform(10, 180)
    elif field_of_view == "thigh":
        leg = anatomy.legs[str(rng.choice(["left", "right"]))]
        at = leg.knee_mm + (leg.hip_mm - leg.knee_mm) * rng.uniform(-0.1, 1.0) + np.r_[rng.normal(0, 25, 2), 0]
        half = np.r_[rng.uniform(70, 130, 2), rng.uniform(70, 150)]
        low, high = at - half, at + half
        low[2] = min(low[2], leg.hip_mm[2] - 20)
        high[2] = max(high[2], leg.knee_mm[2] + 20)
    elif field_of_view == "lower_leg":
        high[2] = min(leg.knee_mm[2] for leg in anatomy.legs.values()) - rng.uniform(55, 120)
        low[2] = high[2] - rng.uniform(120, 350)
    else:
        raise ValueError(f"field_of_view is '{field_of_view}', not one of {FIELDS_OF_VIEW}")
    spacing = np.asarray(spacing_mm, float)
    size = np.maximum(np.round((high - low) / spacing).astype(int), 8)
    return Grid(tuple(int(n) for n in size[::-1]), tuple(spacing), tuple(low), np.eye(3))


def of_size(grid: Grid, columns: int | None = None, slices: int | None = None) -> Grid:
    """The grid with that many columns and rows, and slices, about the same centre; None keeps what there
    is."""
    size = np.array(grid.shape[::-1])
    wanted = np.array([columns or size[0], columns or size[1], slices or size[2]])
    return replace(grid, shape=tuple(wanted[::-1]), origin_mm=tuple(grid.lps((size - wanted) / 2)))


def sample_phantom(
    people: list[Person],
    feet: Person,
    seed: int,
    field_of_view: str = "legs",
    spacing_mm=(0.8, 0.8, 0.8),
    columns: int | None = None,
    slices: int | None = None,
    device="cpu",
) -> Phantom:
    """A scan of a random patient made of the bones of one of `people`; everything follows from `seed`.

    columns, slices: the size of the scan, about the centre of the field of view (512 columns are 512 x 512).
    """
    anatomy = sample_anatomy(people, feet, seed)
    grid = of_size(grid_for(anatomy, field_of_view, spacing_mm, seed), columns, slices)
    return make_phantom(anatomy, grid, device)


def make_phantom(
    anatomy: Anatomy, grid: Grid, device="cpu", scanner: Scanner | None = None, thick_slices: bool = True,
    tissue: Tissue | None = None, surfaces: bool = False,
) -> Phantom:  # fmt: skip
    """Paints and scans `anatomy` on `grid`, slab by slab; the same anatomy and grid give the same voxels.

    scanner, tissue: sampled from the anatomy's seed where not given; the scanner's slices are those of the grid.
    thick_slices: average over the depth of a slice (a single painting is faster and does for
    radiographs). surfaces: give `endosteal_mm` too, the mean over the depth of a slice. Memory: the int16
    volume, its labels and one slab.
    """
    painter = Painter(anatomy, device, tissue)
    rng = np.random.default_rng([anatomy.seed, 4])
    spacing = np.asarray(grid.spacing_mm, float)
    scanner = replace(scanner or sample_scanner(rng), slice_mm=0.0, spacing_mm=float(spacing[2]))
    generator = torch.Generator(painter.device).manual_seed(anatomy.seed)
    ct = np.empty(grid.shape, np.int16)
    labels = np.zeros(grid.shape, np.uint8)
    endosteal_mm = np.empty(grid.shape, np.float16) if surfaces else None
    # An odd number, so that one painting lies in the middle of the slice: there the labels are exact.
    fine = 2 * int(np.ceil((spacing[2] / FINE_MM - 1) / 2)) + 1 if thick_slices and spacing[2] > FINE_MM else 1
    for first in range(0, grid.shape[0], SLAB):
        last = min(first + SLAB, grid.shape[0])
        slab = grid.crop((first, 0, 0), (last, *grid.shape[1:]))
        hu = endosteal = 0
        for part in range(fine):
            shift = ((part + 0.5) / fine - 0.5) * spacing[2] * slab.direction[:, 2]
            painted = painter.paint_surfaces(replace(slab, origin_mm=tuple(np.asarray(slab.origin_mm) + shift)))
            hu = hu + painted.hu / fine
            endosteal = endosteal + painted.endosteal_mm / fine
            if part == fine // 2:
                labels[first:last] = painted.labels.cpu().numpy()
        if surfaces:
            endosteal_mm[first:last] = endosteal.cpu().numpy()
        hu = scan(hu, scanner, tuple(spacing), generator)
        ct[first:last] = hu.round().to(torch.int16).cpu().numpy()
    return Phantom(Volume(ct, grid), Volume(labels, grid), endosteal_mm)
