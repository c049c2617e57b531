"""The phantoms of a comparison: painted once, kept on disk, the same for every entrant."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from FemurSegLib.evaluation.comparison.entrants import FULL, SLICE_MM, Comparison, Entrant
from FemurSegLib.grid import Grid
from FemurSegLib.sides import LABELS, SIDES
from FemurSegLib.surface import bounds
from FemurSegLib.training.cases import Case, find_cases, read_case
from FemurSegLib.volume import Volume, write_volume

TRAIN_SEED = 100_000
"""Added to the seed for the training phantoms."""
WIDTH_MM = 154.0
"""Of a crop: 192 pixels of 0.8 mm (Zhao, sections 2.2 and 2.3)."""
ABOVE_MM, BELOW_MM = 20.0, 130.0
"""A crop goes from so much above the top of a femur to so much below: 50 slices of 3 mm (Zhao: 37 to 95)."""
REGION_MM = 12.0
"""Around a femur, for the training of the second stage; pipeline.MARGIN_MM."""


def training_cases(comparison: Comparison, entrant: Entrant) -> list[Case]:
    """Labelled CTs to learn from: whole ones, those cut to each femur's region for two stages, or crops.

    Crops are kept as voxels of 1 mm, whatever they are: that is how networks that work on slices see them.
    """
    folder = _made(comparison, entrant.cases) / "train"
    if entrant.mode == "two-stage":
        folder = _once(comparison.out / "cases" / "regions", lambda to: _cut_regions(find_cases(folder), to))
    return find_cases(folder)


def held_out_cases(comparison: Comparison, kind: str) -> Iterator[tuple[str, Volume, Volume]]:
    """Yields (name, CT, labels) of the people who are left out."""
    for case in find_cases(_made(comparison, kind) / "test"):
        yield case.name, *read_case(case)


def write_case(folder: Path, name: str, ct: Volume, labels: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(folder / f"{name}_CT.nii.gz", ct)
    write_volume(folder / f"{name}_femurs.nii.gz", Volume(labels.astype(np.uint8), ct.grid))


def proximal_crop(ct: Volume, labels: Volume, side: str) -> tuple[Volume, np.ndarray] | None:
    """(CT, mask) around the upper end of one femur of an oriented CT; None where that femur is not shown."""
    mask = labels.voxels == LABELS[side]
    box = bounds(labels.voxels, LABELS[side])
    if box is None:
        return None
    spacing = np.array(ct.grid.spacing_mm[::-1])
    up, down = np.round(np.array([ABOVE_MM, BELOW_MM]) / spacing[0]).astype(int)
    first, last = max(0, box[0].stop - down), min(len(mask), box[0].stop + up)
    lower, upper = [first], [last]
    for axis in (1, 2):
        at = np.flatnonzero(mask[first:last].any(axis=(0, 3 - axis)))
        half = round(WIDTH_MM / spacing[axis]) // 2
        middle = (at[0] + at[-1]) // 2
        lower.append(max(0, middle - half))
        upper.append(min(mask.shape[axis], middle + half))
    window = tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))
    return ct.crop(lower, upper), mask[window]


def _made(comparison: Comparison, kind: str) -> Path:
    return _once(comparison.out / "cases" / kind, lambda to: _paint(comparison, kind, to))


def _once(folder: Path, make) -> Path:
    """The folder, filled by `make` unless it is there; whole or not at all."""
    if not folder.exists():
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        make(partial)
        partial.rename(folder)
    return folder


def _paint(comparison: Comparison, kind: str, folder: Path) -> None:
    from FemurSegLib.phantom.command import phantoms

    c = comparison
    fields = list(c.fields) if kind == FULL else ["hips"]
    spacing = c.spacing_mm if kind == FULL else (*c.spacing_mm[:2], SLICE_MM[kind])
    for part, people, count, seed in (
        ("train", c.train_people, c.train_phantoms, c.seed + TRAIN_SEED),
        ("test", c.test_people, c.test_phantoms, c.seed),
    ):
        device = "cpu" if c.device == "mps" else c.device
        for name, phantom in phantoms(
            c.shapes, list(people), count, seed, fields, spacing, device=device, cache=c.cache
        ):
            if kind == FULL:
                write_case(folder / part, name, phantom.ct, phantom.labels.voxels)
                continue
            for side in SIDES:
                if crop := proximal_crop(phantom.ct, phantom.labels, side):
                    ct, mask = crop
                    ct = as_voxels(ct) if part == "train" else ct
                    write_case(folder / part, f"{name}_{side}", ct, mask)


def as_voxels(volume: Volume) -> Volume:
    """The same voxels, called cubes of 1 mm."""
    return Volume(volume.voxels, Grid(volume.grid.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3)))


def _cut_regions(cases: list[Case], folder: Path) -> None:
    for case in cases:
        ct, labels = (volume.oriented() for volume in read_case(case))
        margin = np.ceil(REGION_MM / np.array(ct.grid.spacing_mm[::-1])).astype(int)
        for side in SIDES:
            if box := bounds(labels.voxels, LABELS[side]):
                lower = np.maximum([s.start for s in box] - margin, 0)
                upper = np.minimum([s.stop for s in box] + margin, ct.grid.shape)
                write_case(folder, f"{case.name}_{side}", ct.crop(lower, upper), labels.crop(lower, upper).voxels)
