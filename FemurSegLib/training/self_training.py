"""Self-training: labels for CTs that nobody labelled, from the segmenter's own agreement with itself.

    rule = AcceptanceRule()
    told = make_pseudo_labels(find_cases("unlabelled", unlabelled=True), out, Pipeline(), rule)

The segmenter looks at each CT under several perturbations (consistency under perturbation: Xie Q. et al.,
Unsupervised Data Augmentation, NeurIPS 2020; a mean over perturbed runs against uncertain voxels: Yu L. et al.,
UA-MT, MICCAI 2019). Where the runs agree and are sure, their mean becomes a label; where not, the voxel stays
undecided and takes no part in the loss, as the slices without annotation in Sultana 2024. A CT enters the training
only where `AcceptanceRule` finds nothing against it.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage

from FemurSegLib.errors import InputError, NoFemurError
from FemurSegLib.grid import Grid
from FemurSegLib.segmentation.cleanup import largest
from FemurSegLib.sides import LABELS, LEFT, RIGHT, SIDES, UNDECIDED_LABEL
from FemurSegLib.training import sets
from FemurSegLib.training.cases import COLUMNS, Case, read_case
from FemurSegLib.volume import Volume, read_ct, restore, write_volume

Probabilities = dict[str, np.ndarray]
"""By side: float32 (k, j, i) on the grid of the CT, 0 outside the one body that is this femur."""

SURE = (0.3, 0.7)
"""A mean probability between these leaves a voxel undecided."""
BONE_HU = 150
"""More than muscle, tumour and vessels without contrast medium."""
END_MM = 10.0
"""This near the first and the last slice, bone that the runs leave out is not surely background: it may be where a
femur begins, or the part of one that they missed in a slice with nothing beyond it."""


@dataclass(frozen=True)
class Perturbation:
    """One way to show a CT again: mirrored left to right, larger or smaller by `scale`, bone denser by `density`
    (of what exceeds 0 HU), brighter by `offset_hu`, noisier by `noise_hu` (standard deviation)."""

    name: str
    mirrored: bool = False
    scale: float = 1.0
    density: float = 1.0
    offset_hu: float = 0.0
    noise_hu: float = 0.0

    def show(self, ct: Volume) -> Volume:
        """The perturbed CT (oriented); the voxel grid has the same shape."""
        voxels, grid = ct.voxels, ct.grid
        if self.mirrored:
            voxels = voxels[:, :, ::-1]
        if self.scale != 1:
            spacing = tuple(self.scale * s for s in grid.spacing_mm)
            grid = Grid(grid.shape, spacing, grid.origin_mm, grid.direction)
        if self.density != 1 or self.offset_hu or self.noise_hu:
            hu = voxels.astype(np.float32)
            body = hu > -900
            hu = np.where(hu > 0, hu * self.density, hu) + self.offset_hu * body
            if self.noise_hu:
                rng = np.random.default_rng(0)
                hu += self.noise_hu * rng.standard_normal(hu.shape, dtype=np.float32) * body
            voxels = np.clip(np.rint(hu), -1024, 32767).astype(np.int16)
        return Volume(np.ascontiguousarray(voxels), grid)

    def bring_back(self, found: Probabilities) -> Probabilities:
        """What was found in the perturbed CT, on the voxels of the CT itself; mirrored, the sides change places."""
        if not self.mirrored:
            return found
        other = {RIGHT: LEFT, LEFT: RIGHT}
        return {other[side]: p[:, :, ::-1] for side, p in found.items()}


PERTURBATIONS = (
    Perturbation("as it is"),
    Perturbation("mirrored, noisy", mirrored=True, noise_hu=30.0),
    Perturbation("larger, thinner bone", scale=1.06, density=0.85, offset_hu=-10.0),
)
"""Three, so that one run alone against the others leaves a voxel undecided."""


class Pipeline:
    """The shipped way from CT to femora, as a function from an oriented CT to `Probabilities`.

    models_folder: other weights than the shipped ones. `identity` changes with the weights; `origins`: the data
    that they learned from (keys of `training.sets.ORIGINS`), `unknown` where the table of models does not say.
    A program's licence does not reach what it writes, so ultralytics' is not among them.
    """

    def __init__(self, device: str = "auto", network: str = "segresnet", models_folder=None):
        from FemurSegLib import models

        self._options = {"device": device, "network": network, "models_folder": models_folder}
        used = [models.find(kind, folder=models_folder) for kind in ("detector_coronal", "detector_axial")]
        used.append(models.find("segmenter", network, models_folder))
        self.identity = " ".join(model.sha256 for model in used)
        told = [set(model.origins) or {sets.UNKNOWN} for model in used]
        self.origins = sorted(set().union(*told) - {"ultralytics"})

    def __call__(self, ct: Volume) -> Probabilities:
        from FemurSegLib.pipeline import segment_femurs

        try:
            segmentation = segment_femurs(ct, keep_probability=True, **self._options)
        except NoFemurError:
            return {}
        found = {}
        for side, (place, probability) in segmentation.probability.items():
            found[side] = np.zeros(ct.grid.shape, np.float32)
            found[side][tuple(slice(a, b) for a, b in place)] = probability
            found[side][(segmentation.labels > 0) & (segmentation.labels != LABELS[side])] = 0
        return found


@dataclass(frozen=True)
class PseudoLabel:
    """What the perturbed runs say together about one CT, on its oriented voxels.

    labels: uint8 (k, j, i), 1 right, 2 left, 255 undecided. sides: those that any run found, with the part of the
    runs that did. agreement: by side, the smallest Dice of any run's mask with the mean's. undecided: by side,
    undecided voxels near it as a part of all its voxels (sure or not). ml: volume of what is sure. bone: part of
    the sure surface voxels' slices in which the densest decile reaches `BONE_HU`. pieces: how many bodies hold more
    than a twentieth of the volume. faces: of the scan that it touches.
    """

    labels: np.ndarray
    sides: dict[str, float]
    agreement: dict[str, float] = field(default_factory=dict)
    undecided: dict[str, float] = field(default_factory=dict)
    ml: dict[str, float] = field(default_factory=dict)
    bone: dict[str, float] = field(default_factory=dict)
    pieces: dict[str, int] = field(default_factory=dict)
    faces: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def numbers(self) -> dict:
        """All but the voxels, rounded, for the list."""
        out = {k: v for k, v in self.__dict__.items() if k != "labels"}
        return {
            name: {s: round(x, 3) if isinstance(x, float) else x for s, x in by_side.items()}
            for name, by_side in out.items()
        }


CONTACT_MM = 8.0
"""Where a femur and another bone are both nearer than this, the border between them is left open: the rim of the
socket that the network took along on real hips was up to 6 mm thick."""
SHELL_MM = 2.0
"""Around a femur, half-filled voxels as dense as bone are its own cortex, and no bone of theirs."""
OTHER_BONE_MM = 8.0
"""Bone that the runs leave out is another bone if it reaches farther than this from the femur, else a crumb."""


def agree(ct: Volume, runs: list[Probabilities]) -> PseudoLabel:
    """The PseudoLabel of an oriented CT from what each run found in it.

    Undecided are also: the border to another bone (`CONTACT_MM`), holes, crumbs of bone that the runs leave out and
    pieces apart from the largest; near both ends of the scan (`END_MM`) bone that is joined to a femur within its
    slice and left out; where no run finds a femur, all bone there. Raises ValueError without runs.
    """
    if not runs:
        raise ValueError("There are no runs to agree on.")
    labels = np.zeros(ct.grid.shape, np.uint8)
    sides = {s: share for s in SIDES if (share := float(np.mean([s in run for run in runs])))}
    if not sides:
        for k in _ends(ct.grid):
            labels[k][ndimage.binary_dilation(_bone(ct.voxels[k]), iterations=2)] = UNDECIDED_LABEL
        return PseudoLabel(labels, {})
    out = PseudoLabel(labels, sides)
    nothing = np.zeros(ct.grid.shape, np.float32)
    for side in sides:
        fields = [run.get(side, nothing) for run in runs]
        mean = np.mean(fields, axis=0)
        doubtful, sure, whole = (mean > SURE[0]) & (mean < SURE[1]), mean >= SURE[1], mean > 0.5
        labels[doubtful & (labels == 0)] = UNDECIDED_LABEL
        clash = sure & ((labels == LABELS[RIGHT]) | (labels == LABELS[LEFT]))
        labels[sure] = LABELS[side]
        labels[clash] = UNDECIDED_LABEL
        out.agreement[side] = min(_dice(f > 0.5, whole) for f in fields)
        out.undecided[side] = float(doubtful.sum() / max(1, (doubtful | sure).sum()))
        out.ml[side] = float(sure.sum() * np.prod(ct.grid.spacing_mm) / 1000)
        out.bone[side] = _bony_slices(ct.voxels, sure)
        pieces, count = ndimage.label(sure | doubtful, np.ones((3, 3, 3)))
        sizes = np.bincount(pieces[sure], minlength=count + 1)[1:]
        out.pieces[side] = int((sizes > 0.05 * sizes.sum()).sum())
        out.faces[side] = _faces(sure)
    _leave_borders_open(labels, ct)
    for k in _ends(ct.grid):
        bone, _ = ndimage.label(_bone(ct.voxels[k]))
        joined = np.isin(bone, np.unique(bone[labels[k] > 0])) & (bone > 0)
        labels[k][joined & (labels[k] == 0)] = UNDECIDED_LABEL
    for section in labels:
        section[ndimage.binary_fill_holes(section > 0) & (section == 0)] = UNDECIDED_LABEL
    return out


def _leave_borders_open(labels: np.ndarray, ct: Volume) -> None:
    """Marks as undecided, in place, what `agree` says of crumbs, other bones and small pieces."""
    spacing = ct.grid.spacing_mm[::-1]
    away = ndimage.distance_transform_edt(labels == 0, sampling=spacing)
    bone = (ct.voxels > BONE_HU) & (labels == 0)
    rest = ndimage.binary_opening(bone & (away > SHELL_MM), np.ones((1, 2, 2)))
    parts, count = ndimage.label(rest, np.ones((3, 3, 3)))
    reach = np.r_[0, ndimage.maximum(away, parts, range(1, count + 1))] if count else np.zeros(1)
    other = rest & (reach[parts] > OTHER_BONE_MM)
    crumbs = ndimage.binary_dilation(rest & ~other, np.ones((1, 5, 5)))  # and the shell below them
    labels[crumbs & bone] = UNDECIDED_LABEL
    if other.any():
        between = (away <= CONTACT_MM) & (ndimage.distance_transform_edt(~other, sampling=spacing) <= CONTACT_MM)
        labels[between] = UNDECIDED_LABEL
    for label in LABELS.values():
        mine = labels == label
        labels[mine & ~largest(mine)] = UNDECIDED_LABEL


@dataclass(frozen=True)
class AcceptanceRule:
    """When a PseudoLabel may be trained on; the first reason against it is told by `against`.

    agreement: least Dice of any run with the mean. undecided: largest undecided part of a femur. ml: volume
    between these (a few slices of condyle to a whole large femur; the thighs labelled by hand hold 54 to 337 ml).
    bone: least part of its slices that show cortex.
    """

    agreement: float = 0.93
    undecided: float = 0.12
    ml: tuple[float, float] = (15.0, 700.0)
    bone: float = 0.98

    def against(self, label: PseudoLabel) -> str:
        """The reason not to train on it, "" where there is none."""
        if not label.sides:
            return "no run found a femur, and no reader said that there is none"
        for side, share in label.sides.items():
            name = side.replace("_", " ")
            if share < 1:
                return f"the {name} was found in {share:.0%} of the runs only"
            if label.agreement[side] < self.agreement:
                return f"the runs agree on the {name} to a Dice of {label.agreement[side]:.3f} only"
            if label.undecided[side] > self.undecided:
                return f"{label.undecided[side]:.0%} of the {name} is undecided"
            if not self.ml[0] <= label.ml[side] <= self.ml[1]:
                return f"the {name} would have {label.ml[side]:.0f} ml"
            if label.bone[side] < self.bone:
                return f"the {name} shows no cortex in {1 - label.bone[side]:.0%} of its slices"
            if label.pieces[side] != 1:
                return f"the {name} comes in {label.pieces[side]} pieces"
        return ""


def make_pseudo_labels(
    cases: Iterable[Case],
    out: Path,
    segment: Pipeline,
    rule: AcceptanceRule | None = None,
    perturbations: tuple[Perturbation, ...] = PERTURBATIONS,
    leave_out: dict[str, str] | None = None,
    no_femur: Iterable[str] = (),
    report: Callable[[str], None] = print,
) -> list[dict]:
    """Labels every case that has none, decides which to train on, and writes it all to `out`.

    segment: a `Pipeline`, or any function from an oriented CT to `Probabilities`. Files: NAME_femurs.nii.gz on the
    grid of the CT, pictures/NAME.png, cases.csv (accepted ones, as `training.cases` reads them) and
    pseudo_labels.json (all, with numbers and reasons); runs/ keeps what the runs found, so that an interrupted or a
    changed command goes on from there.
    leave_out: reason by name of a case that a reader refused; no_femur: names of cases in which a reader saw no
    femur but, at most, within `END_MM` of an end. They become background, whatever the runs found: a lower leg
    whose tibia a run takes for a femur teaches most. A case with labels is compared with them (Dice of what both
    decide) and never entered in the list: its own labels are better. Raises InputError for an unknown name.
    """
    from FemurSegLib.evaluation.pictures import draw_slices

    cases, rule = list(cases), rule or AcceptanceRule()
    leave_out, no_femur = dict(leave_out or {}), set(no_femur)
    if unknown := sorted((set(leave_out) | no_femur) - {case.name for case in cases}):
        raise InputError(f"There is no case {unknown[0]}.", f"There are: {', '.join(case.name for case in cases)}.")
    out.mkdir(parents=True, exist_ok=True)
    told = []
    for case in cases:
        ct, reference = read_case(case) if case.labels else (read_ct(case.ct), None)
        upright = ct.oriented()
        runs = [
            _kept_run(out / "runs" / f"{case.name}_{re.sub('[^a-z]+', '_', p.name)}.npz", upright, segment, p)
            for p in perturbations
        ]
        seen_empty = case.name in no_femur
        label = agree(upright, [{}] if seen_empty else runs)
        reason = leave_out.get(case.name) or ("" if seen_empty else rule.against(label))
        line = {"name": case.name, "person": case.person, "accepted": not reason, "reason": reason}
        line |= {"runs": [sorted(run) for run in runs], **label.numbers()}
        if reference is not None:
            line["dice_to_reference"] = _compared(label.labels, reference.oriented().voxels)
        found = Volume(restore(label.labels, ct.grid), ct.grid)
        path = out / f"{case.name}_femurs.nii.gz"
        _write_whole(path, found)
        words = f"{case.name}: {'accepted' if not reason else 'rejected: ' + reason}"
        draw_slices(out / "pictures" / f"{case.name}.png", ct, found, words)
        told.append(line)
        report(words)
        if reference is None and not reason:
            line["entry"] = [os.path.relpath(case.ct.resolve(), out.resolve()), path.name]
    rows = [
        dict(zip(COLUMNS, (*line.pop("entry"), line["name"], line["person"]), strict=True))
        for line in told
        if "entry" in line
    ]
    _write_text(out / "cases.csv", rows)
    (out / sets.PSEUDO_LABELS).write_text(
        json.dumps(
            {
                "rule": asdict(rule),
                "sure": SURE,
                "origins": getattr(segment, "origins", [sets.UNKNOWN]),
                "perturbations": [asdict(p) for p in perturbations],
                "left_out_by_a_reader": leave_out,
                "no_femur_by_a_reader": sorted(no_femur),
                "cases": told,
            },
            indent=1,
        )
    )
    return told


def _kept_run(path: Path, ct: Volume, segment, perturbation: Perturbation) -> Probabilities:
    """What a run finds in an oriented CT, from `path` where the same weights and perturbation left it there."""
    asked = json.dumps([getattr(segment, "identity", ""), asdict(perturbation), ct.grid.shape])
    if path.exists():
        with np.load(path) as kept:
            if str(kept["asked"]) == asked:
                return {s: kept[s].astype(np.float32) / 255 for s in SIDES if s in kept.files}
    found = perturbation.bring_back(segment(perturbation.show(ct)))
    packed = {side: np.rint(255 * p).astype(np.uint8) for side, p in found.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.savez_compressed(file, asked=asked, **packed)
    partial.replace(path)
    return found


def _dice(a, b) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def _ends(grid: Grid) -> list[int]:
    """The first and the last slices."""
    count = max(1, round(END_MM / grid.spacing_mm[2]))
    return sorted({k for n in range(count) for k in (n, grid.shape[0] - 1 - n)})


def _bone(hu) -> np.ndarray:
    """Bone with its marrow in a slice: bool (j, i)."""
    return ndimage.binary_fill_holes(ndimage.binary_opening(hu > BONE_HU, np.ones((2, 2))))


def _bony_slices(hu, mask) -> float:
    """Part of the mask's slices in which at least a tenth of it is denser than `BONE_HU`."""
    slices = [hu[k][mask[k]] for k in range(len(mask)) if mask[k].any()]
    return float(np.mean([np.quantile(v, 0.9) > BONE_HU for v in slices])) if slices else 0.0


def _faces(mask) -> tuple[str, ...]:
    from FemurSegLib.localization.region import FACES

    return tuple(
        face
        for axis, faces in zip((2, 1, 0), FACES.values(), strict=True)
        for end, face in zip((0, -1), faces, strict=True)
        if mask.take(end, axis).any()
    )


def _compared(labels, reference) -> dict[str, float]:
    decided = (labels != UNDECIDED_LABEL) & (reference != UNDECIDED_LABEL)
    present = [s for s in SIDES if (reference == LABELS[s]).any() or (labels == LABELS[s]).any()]
    return {
        s: round(_dice((labels == LABELS[s]) & decided, (reference == LABELS[s]) & decided), 4) for s in present
    }


def _write_whole(path: Path, volume: Volume) -> None:
    partial = path.with_name(f".{path.name.removesuffix('.nii.gz')}.partial.nii.gz")
    write_volume(partial, volume)
    os.replace(partial, path)


def _write_text(path: Path, rows: list[dict]) -> None:
    with open(path.with_suffix(".partial"), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    path.with_suffix(".partial").replace(path)
