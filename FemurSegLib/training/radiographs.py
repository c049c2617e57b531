"""Radiographs with boxes for the detector: from phantoms and from labelled CTs, on disk in YOLO's format.

    make_radiographs_of(RadiographSet(out=Path("runs/detector/set"), shapes=shapes, people=("z009", ...)))

One phantom is painted once from pelvis to feet, and many scans are cut out of it: legs, hips, knees, one
thigh, a lower leg without a femur, off-centre, cut on one side, with wide air. Boxes come from the exact
labels of what is left. Nothing is mirrored in the picture: a mirrored *patient* has the sides exchanged in
the labels too.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np

from FemurSegLib.errors import OutputError
from FemurSegLib.localization.radiograph import VIEWS, Radiograph, axial_radiograph, coronal_radiograph
from FemurSegLib.localization.region import SLICES_MARGIN_MM
from FemurSegLib.sides import LABELS, LEFT, RIGHT, SIDES, UNDECIDED_LABEL
from FemurSegLib.training.cases import read_case
from FemurSegLib.volume import Grid, Volume

CLASSES = SIDES
"""The class number of a side in the label files and in the network is its place in this tuple."""

SMALLEST_BOX_MM = 5.0
"""A femur that shows less than this in either direction has no box."""
AIR_HU = -1000
BODY_SPACING_MM = 2.8
ONE_LEG = 4
"""Scans of a piece of one leg, from each phantom."""
SHARE_WHOLE = 0.25
"""Of the axial radiographs: along the whole volume, not only the slices that the femora lie in."""


@dataclass(frozen=True)
class RadiographSet:
    """What to make. A set that is partly there is completed, so making can be interrupted.

    out: folder; split: `train` or `val`, its part of the folder. shapes, people, cache: see PhantomSource;
    feet: who lends feet, `feet_for` by default. patients: phantoms to paint, fourteen radiographs of each view from
    each; without whole_bodies, seven of their parts. cases: labelled CTs; per_case: radiographs of each view from
    each of them. Everything random follows from `seed`.
    """

    out: Path
    split: str = "train"
    shapes: Path | None = None
    people: tuple[str, ...] = ()
    cache: Path | None = None
    feet: str = ""
    patients: int = 90
    whole_bodies: bool = True
    cases: tuple = ()
    per_case: int = 24
    seed: int = 0
    workers: int = 1


def make_radiographs_of(what: RadiographSet) -> Path:
    """Makes what is not there yet and returns the folder: <view>/images/<split>/*.png,
    <view>/labels/<split>/*.txt. Pictures of anybody whom `what` does not name, as one who is held out by now, are
    taken away."""
    for view in VIEWS:
        for kind in ("images", "labels"):
            (what.out / view / kind / what.split).mkdir(parents=True, exist_ok=True)
    (what.out / "done").mkdir(exist_ok=True)
    _take_away_others(what)
    jobs = [partial(_from_case, what, number) for number in range(len(what.cases))]
    if what.shapes:
        jobs += [partial(_from_phantom, what, number) for number in range(what.patients)]
    if what.workers > 1:
        with multiprocessing.get_context("spawn").Pool(what.workers) as pool:
            pool.map(_run, jobs, chunksize=1)
    else:
        for job in jobs:
            job()
    return what.out


def boxes(labels: Volume, radiograph: Radiograph) -> list[tuple[int, tuple[float, float, float, float]]]:
    """(class, box in pixels) of each femur in a radiograph made from the same oriented grid.

    Only the slices that the rays ran through count. Undecided voxels go with the nearer femur, from side to
    side: bone nobody could outline is still there to be found.
    """
    voxels, start = labels.voxels, 0
    if radiograph.view == "axial":
        voxels, start = voxels[slice(*radiograph.ray)], radiograph.ray[0]
    found = {side: np.argwhere(voxels == LABELS[side]) for side in SIDES}
    found = {side: at for side, at in found.items() if len(at)}
    undecided = np.argwhere(voxels == UNDECIDED_LABEL)
    if len(undecided) and found:
        middles = np.array([at[:, 2].mean() for at in found.values()])
        nearest = np.abs(undecided[:, 2:] - middles).argmin(1)
        for number, side in enumerate(list(found)):
            found[side] = np.r_[found[side], undecided[nearest == number]]
    out = []
    for side, at in found.items():
        low, high = at.min(0) - 0.5 + [start, 0, 0], at.max(0) + 0.5 + [start, 0, 0]
        edges = {axis: (low[n], high[n]) for n, axis in enumerate("kji")}
        box = radiograph.voxels_to_box(edges)
        height_mm, width_mm = radiograph.pixel_mm
        if min((box[2] - box[0]) * width_mm, (box[3] - box[1]) * height_mm) >= SMALLEST_BOX_MM:
            out.append((CLASSES.index(side), box))
    return out


def slices_to_project(labels: Volume, rng: np.random.Generator) -> tuple[int, int] | None:
    """The slices of the femora with a margin, as the coronal view would give them; sometimes the whole
    volume."""
    slices = np.flatnonzero((labels.voxels > 0).any(axis=(1, 2)))
    if not len(slices) or rng.random() < SHARE_WHOLE:
        return None
    k_mm = labels.grid.spacing_mm[2]
    low, high = (np.array([slices[0], slices[-1] + 1]) + rng.normal(0, 8, 2) / k_mm).tolist()
    margin = SLICES_MARGIN_MM / k_mm
    first, last = int(max(0, low - margin)), int(min(labels.grid.shape[0], high + margin))
    return (first, last) if last - first >= 2 else None


def mirrored(volume: Volume) -> Volume:
    """The patient as seen in a mirror; a labelmap (uint8) has its sides exchanged."""
    voxels = volume.voxels[:, :, ::-1]
    if voxels.dtype == np.uint8:
        exchange = np.arange(256, dtype=np.uint8)
        exchange[[LABELS[RIGHT], LABELS[LEFT]]] = LABELS[LEFT], LABELS[RIGHT]
        voxels = exchange[voxels]
    return Volume(voxels, volume.grid)


# --- phantoms -------------------------------------------------------------------------------------


def _from_phantom(what: RadiographSet, number: int) -> None:
    name = f"phantom{what.seed:02d}-{number:04d}"
    if _is_done(what, name):
        return
    from FemurSegLib.phantom.anatomy import sample_anatomy
    from FemurSegLib.phantom.case import grid_for, make_phantom
    from FemurSegLib.phantom.shapes import feet_for

    rng = np.random.default_rng([what.seed, number, what.split == "val"])
    chosen = rng.choice(what.people, size=min(5, len(what.people)), replace=False)
    people = [_person(what.shapes, str(person), what.cache) for person in chosen]
    feet = _person(what.shapes, what.feet or feet_for(what.people), what.cache)
    anatomy = sample_anatomy(people, feet, int(rng.integers(2**31)))

    def paint(grid):
        phantom = make_phantom(anatomy, grid, thick_slices=False)
        return phantom.ct, phantom.labels

    scans = [paint(_one_leg(anatomy, rng)) for _ in range(ONE_LEG)]
    if what.whole_bodies:
        whole = paint(_whole_body(anatomy, rng))
        for field in ("legs", "legs", "femora", "femora", "hips", "knees", "lower_leg"):
            part = grid_for(anatomy, field, (BODY_SPACING_MM,) * 3, int(rng.integers(2**31)))
            scans.append(reframed(*_within(*whole, part), rng))
    near = ("thigh", "hips", "knees", "thigh")[number % 4]
    spacing = (*(rng.uniform(0.9, 1.5),) * 2, rng.uniform(1.2, 4.0))
    fine = paint(_held(grid_for(anatomy, near, spacing, int(rng.integers(2**31))), rng))
    scans += [fine, reframed(*fine, rng), reframed(*_some_slices(*fine, rng), rng)]
    _save(what, name, scans, rng, anatomy.people)


def _whole_body(anatomy, rng: np.random.Generator) -> Grid:
    low, high = (corner.copy() for corner in anatomy.bounds_mm())
    low, high = low - [60, 70, 10], high + [60, 110, 10]
    high[2] = max(leg.hip_mm[2] for leg in anatomy.legs.values()) + 240
    size = np.ceil((high - low) / BODY_SPACING_MM).astype(int)
    return Grid(tuple(int(n) for n in size[::-1]), (BODY_SPACING_MM,) * 3, tuple(low), np.eye(3))


def _one_leg(anatomy, rng: np.random.Generator) -> Grid:
    """A small scan of a piece of one leg, as is cut out around a tumour: thigh, hip, knee, or below the
    femur."""
    leg = anatomy.legs[str(rng.choice(["left", "right"]))]
    half = np.array([*rng.uniform(60, 125, 2), rng.uniform(40, 135)])
    if rng.random() < 0.3:
        at = leg.knee_mm - [0, 0, half[2] + rng.uniform(-10, 70)]
    else:
        at = leg.knee_mm + (leg.hip_mm - leg.knee_mm) * rng.uniform(-0.1, 1.05)
    low, high = at - half, at + half
    shift = np.array([*rng.normal(0, 22, 2), 0])
    spacing = np.array([*(rng.uniform(1.0, 1.6),) * 2, rng.uniform(1.5, 4.0)])
    size = np.maximum(np.round((high - low) / spacing).astype(int), 8)
    return Grid(tuple(int(n) for n in size[::-1]), tuple(spacing), tuple(low + shift), np.eye(3))


def _held(grid: Grid, rng: np.random.Generator, most: float = 9e6) -> Grid:
    """The grid with its width and depth cut to keep painting short."""
    size = np.array(grid.shape)
    while np.prod(size.astype(float)) > most:
        axis = 1 + int(np.argmax(size[1:]))
        size[axis] = int(size[axis] * 0.85)
    room = np.array(grid.shape) - size
    lower = np.array([int(rng.integers(n + 1)) for n in room])
    return grid.crop(tuple(lower), tuple(lower + size))


def _within(ct: Volume, labels: Volume, part: Grid) -> tuple[Volume, Volume]:
    """What `part` shows of a volume on a grid along the same axes."""
    spacing = np.array(ct.grid.spacing_mm)
    low = (np.array(part.origin_mm) - np.array(ct.grid.origin_mm)) / spacing
    high = low + np.array(part.shape[::-1]) * part.spacing_mm / spacing
    size = np.array(ct.grid.shape[::-1])
    low = np.clip(np.round(low), 0, size - 8).astype(int)
    high = np.clip(np.round(high), low + 8, size).astype(int)
    return _crop(ct, labels, low[::-1], high[::-1])


@lru_cache(maxsize=100)
def _person(shapes, name, cache):
    from FemurSegLib.phantom.shapes import load_person

    return load_person(shapes, name, cache)


# --- labelled CTs ---------------------------------------------------------------------------------


def _from_case(what: RadiographSet, number: int) -> None:
    case = what.cases[number]
    name = f"real-{case.name}"
    if _is_done(what, name):
        return
    rng = np.random.default_rng([what.seed, number, 77])
    ct, labels = (volume.oriented() for volume in read_case(case))
    scans = [(ct, labels), (mirrored(ct), mirrored(labels))]
    while len(scans) < what.per_case:
        scan = rescanned(ct, rng), labels
        scan = scan if len(scans) % 2 else tuple(mirrored(volume) for volume in scan)
        scan = _some_slices(*scan, rng) if rng.random() < 0.6 else scan
        scans.append(reframed(*scan, rng))
    _save(what, name, scans[: what.per_case], rng, (case.name,))


def rescanned(ct: Volume, rng: np.random.Generator) -> Volume:
    """Another scanner and a bone of another density: gain, offset, contrast of bone, noise."""
    hu = ct.voxels.astype(np.float32)
    body = hu > -400
    hu += np.maximum(hu - 90, 0) * rng.uniform(-0.5, 0.25)
    hu = hu * rng.uniform(0.94, 1.07) + body * rng.normal(0, 10)
    if rng.random() < 0.5:
        hu += body * rng.normal(0, rng.uniform(5, 45), hu.shape).astype(np.float32)
    return Volume(np.clip(hu, -1024, 3071).astype(np.int16), ct.grid)


# --- other fields of view -------------------------------------------------------------------------


def _some_slices(ct: Volume, labels: Volume, rng: np.random.Generator) -> tuple[Volume, Volume]:
    size, k_mm = ct.grid.shape[0], ct.grid.spacing_mm[2]
    keep = min(size, max(8, round(rng.uniform(0.25, 1.0) * size), round(40 / k_mm)))
    first = int(rng.integers(size - keep + 1))
    return _crop(ct, labels, (first, 0, 0), (first + keep, *ct.grid.shape[1:]))


def reframed(ct: Volume, labels: Volume, rng: np.random.Generator) -> tuple[Volume, Volume]:
    """The same slices in another field of view: one leg alone, cut at the sides, in wide air."""
    lower, upper = np.zeros(3, int), np.array(ct.grid.shape)
    spacing = np.array(ct.grid.spacing_mm)[::-1]
    width_mm = ct.grid.shape[2] * spacing[2]
    kind = rng.random()
    if kind < 0.2 and width_mm > 300:
        middle = int(rng.normal(ct.grid.shape[2] / 2, 25 / spacing[2]))
        if rng.random() < 0.5:
            upper[2] = middle
        else:
            lower[2] = middle
    elif kind < 0.45:
        keep = max(100, rng.uniform(0.5, 0.95) * width_mm) / spacing[2]
        lower[2] = int(rng.uniform(0, max(1, ct.grid.shape[2] - keep)))
        upper[2] = int(min(ct.grid.shape[2], lower[2] + keep))
    if rng.random() < 0.25:
        depth_mm = ct.grid.shape[1] * spacing[1]
        keep = max(100, rng.uniform(0.6, 0.95) * depth_mm) / spacing[1]
        lower[1] = int(rng.uniform(0, max(1, ct.grid.shape[1] - keep)))
        upper[1] = int(min(ct.grid.shape[1], lower[1] + keep))
    upper = np.minimum(np.maximum(upper, lower + 8), ct.grid.shape)
    ct, labels = _crop(ct, labels, lower, upper)
    if rng.random() < 0.3:
        before, after = (rng.uniform(0, 120, (2, 3)) * (rng.random((2, 3)) < 0.5) / spacing).astype(int)
        before[0] = after[0] = 0
        ct, labels = _padded(ct, before, after, AIR_HU), _padded(labels, before, after, 0)
    return ct, labels


def _crop(ct: Volume, labels: Volume, lower, upper) -> tuple[Volume, Volume]:
    lower, upper = (tuple(int(n) for n in corner) for corner in (lower, upper))
    return ct.crop(lower, upper), labels.crop(lower, upper)


def _padded(volume: Volume, before, after, value: int) -> Volume:
    voxels = np.pad(volume.voxels, list(zip(before, after, strict=True)), constant_values=value)
    origin = volume.grid.lps(-np.asarray(before, float)[::-1])
    return Volume(voxels, replace(volume.grid, shape=voxels.shape, origin_mm=tuple(float(x) for x in origin)))


# --- on disk --------------------------------------------------------------------------------------


def save_example(folder: Path, split: str, name: str, radiograph: Radiograph, found) -> None:
    """One picture and its label file. The PNG's red, green, blue are the radiograph's channels 0, 1, 2."""
    rows, columns = radiograph.image.shape[:2]
    lines = [
        f"{number} {(x0 + x1) / 2 / columns:.6f} {(y0 + y1) / 2 / rows:.6f} "
        f"{(x1 - x0) / columns:.6f} {(y1 - y0) / rows:.6f}\n"
        for number, (x0, y0, x1, y1) in found
    ]
    (folder / "labels" / split / f"{name}.txt").write_text("".join(lines))
    picture = folder / "images" / split / f"{name}.png"
    if not cv2.imwrite(str(picture), radiograph.image[..., ::-1]):
        raise OutputError(f"{picture} could not be written.", "Check the folder and the free space.")


def _save(what: RadiographSet, name: str, scans, rng, people) -> None:
    for number, (ct, labels) in enumerate(scans):
        pictures = coronal_radiograph(ct), axial_radiograph(ct, slices_to_project(labels, rng))
        for radiograph in pictures:
            found = boxes(labels, radiograph)
            save_example(what.out / radiograph.view, what.split, f"{name}-{number:02d}", radiograph, found)
    _mark(what, name).write_text(json.dumps({"people": list(people), "scans": len(scans)}))


def _take_away_others(what: RadiographSet) -> None:
    """Deletes the pictures that are not of the people and cases of this set, and those without a mark."""
    from FemurSegLib.phantom.shapes import feet_for

    known = {*what.people, *(case.name for case in what.cases)}
    known_shins = known | {what.feet or feet_for(what.people)}
    kept = set()
    for mark in (what.out / "done").glob(f"{what.split}-*.json"):
        whose, *shins = json.loads(mark.read_text())["people"]
        if whose in known and known_shins.issuperset(shins):
            kept.add(mark.stem.removeprefix(f"{what.split}-"))
        else:
            mark.unlink()
    for path in what.out.glob(f"*/*/{what.split}/*"):  # VIEW/images or labels/SPLIT/NAME-NN.*
        if path.stem.rpartition("-")[0] not in kept:
            path.unlink()


def _mark(what: RadiographSet, name: str) -> Path:
    return what.out / "done" / f"{what.split}-{name}.json"


def _is_done(what: RadiographSet, name: str) -> bool:
    return _mark(what, name).is_file()


def _run(job) -> None:
    import torch

    torch.set_num_threads(1)
    os.nice(0)
    job()
