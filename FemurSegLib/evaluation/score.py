"""One result against its reference: the numbers of a case."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np

from FemurSegLib.evaluation.metrics import box_iou, overlap, surface_distance
from FemurSegLib.localization.radiograph import VIEWS
from FemurSegLib.result import Segmentation
from FemurSegLib.sides import LABELS, SIDES, UNDECIDED_LABEL
from FemurSegLib.surface import bounds
from FemurSegLib.volume import Volume

MARGIN_MM = 10.0
"""Around the box of both reference femora, in which true negatives are counted."""
SWAPPED = 0.5
"""A side is swapped if more than this part of its mask lies in the other femur."""
DOUBTFUL_MM = 30.0
"""Undecided voxels belong to the box of a femur that is no farther than this."""

NAN = float("nan")
Box = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class FemurScore:
    """One femur; nan where there is nothing to compare. `present`: in the reference; `found`: in the result.

    Masks: Dice and its kin as in metrics.Overlap, distances in mm, volumes in ml. Boxes: intersection
    over union of the 3D region (before its margin) and of the box in each view. Confidence and what it was made of
    (segmentation/confidence.py) as the result has them.
    """

    side: str
    present: bool
    found: bool
    dice: float = NAN
    sensitivity: float = NAN
    specificity: float = NAN
    pixel_accuracy: float = NAN
    mean_surface_mm: float = NAN
    hd95_mm: float = NAN
    region_iou: float = NAN
    coronal_iou: float = NAN
    axial_iou: float = NAN
    reference_ml: float = 0.0
    result_ml: float = 0.0
    swapped: bool = False
    confidence: float = NAN
    evidence: dict[str, float] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class CaseScore:
    """A case: how it ended, its femora, and the boxes for the precision-recall curves.

    `outcome`: `ok`, or the code of an error with its `message`. `labelled`: whether there is a reference.
    detections: (view, side, score, box); references: (view, side, box); boxes in pixels ((x0, y0), (x1, y1)).
    """

    name: str
    outcome: str
    message: str = ""
    labelled: bool = True
    femurs: tuple[FemurScore, ...] = ()
    seconds: float = NAN
    findings: tuple[str, ...] = ()
    detections: tuple[tuple[str, str, float, Box], ...] = field(default=(), repr=False)
    references: tuple[tuple[str, str, Box], ...] = field(default=(), repr=False)

    @property
    def verdict(self) -> str:
        """What happened, in a word or two: what a table shows."""
        present = {f.side for f in self.femurs if f.present}
        found = {f.side for f in self.femurs if f.found}
        if self.outcome == "no_femur" and self.labelled:
            return "missed" if present else "none, right"
        if self.outcome != "ok":
            return "no femur" if self.outcome == "no_femur" else f"error: {self.outcome}"
        if not self.labelled:
            return "found " + " and ".join(side.split("_")[0] for side in SIDES if side in found)
        told = ["swapped"] if any(f.swapped for f in self.femurs) else []
        told += [f"missed {side.split('_')[0]}" for side in SIDES if side in present - found]
        told += [f"extra {side.split('_')[0]}" for side in SIDES if side in found - present]
        return ", ".join(told) or "ok"


def score(name: str, segmentation: Segmentation, reference: Volume | None) -> CaseScore:
    """Compares a result with a labelmap on the same grid (1 right, 2 left, 255 undecided), or just
    describes it.

    ValueError for another grid.
    """
    result = Volume(segmentation.labels, segmentation.grid).oriented()
    seconds = float(sum(segmentation.seconds.values()))
    codes = tuple(f.code for f in segmentation.findings)
    if reference is None:
        femurs = tuple(
            FemurScore(side, False, bool(ml), result_ml=ml, **_confidence(segmentation, side))
            for side in SIDES
            for ml in [_ml(result, result.voxels == LABELS[side])]
        )
        return CaseScore(name, "ok", "", False, femurs, seconds, codes)
    if not reference.grid.matches(segmentation.grid, tolerance_mm=0.01):
        raise ValueError("The result and the reference are not on the same grid.")
    reference = reference.oriented()
    boxes = reference_boxes(reference)
    shown = [_in_view(radiograph, boxes) for radiograph in segmentation.radiographs]
    references = tuple(one for view in shown for one in view)
    detections = tuple(
        (view, d.side, d.score, (d.box[:2], d.box[2:]))
        for view in VIEWS
        for d in segmentation.localization.detections.get(view, [])
    )
    femurs = _femurs(result, reference, boxes, segmentation, references)
    return CaseScore(name, "ok", "", True, femurs, seconds, codes, detections, references)


def failed(name: str, error: Exception, reference: Volume | None, seconds: float = NAN) -> CaseScore:
    """A case that ended with an error; every femur in its reference is missed."""
    code = getattr(error, "code", type(error).__name__)
    if reference is None:
        return CaseScore(name, code, str(error), False, seconds=seconds)
    oriented = reference.oriented()
    femurs, references = [], []
    boxes = reference_boxes(oriented)
    for side in SIDES:
        present = side in boxes
        if present:
            ml = _ml(oriented, oriented.voxels == LABELS[side])
            femurs.append(_missed(side, ml))
            low, high = boxes[side]
            references.append(("coronal", side, (low[[0, 2]], high[[0, 2]])))
            references.append(("axial", side, (low[:2], high[:2])))
        else:
            femurs.append(FemurScore(side, False, False))
    references = tuple((v, s, tuple(tuple(map(float, c)) for c in box)) for v, s, box in references)
    return CaseScore(name, code, str(error), True, tuple(femurs), seconds, (), (), references)


def _missed(side: str, reference_ml: float) -> FemurScore:
    return FemurScore(
        side,
        present=True,
        found=False,
        dice=0.0,
        sensitivity=0.0,
        mean_surface_mm=np.inf,
        hd95_mm=np.inf,
        region_iou=0.0,
        coronal_iou=0.0,
        axial_iou=0.0,
        reference_ml=reference_ml,
    )


def reference_boxes(labels: Volume) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Edges (lower, upper) of each femur in oriented continuous (i, j, k), undecided bone next to it
    included."""
    spacing = np.array(labels.grid.spacing_mm)
    boxes = {}
    for side in SIDES:
        if box := bounds(labels.voxels, LABELS[side]):
            boxes[side] = _corners(box)
    undecided = bounds(labels.voxels, UNDECIDED_LABEL)
    if not undecided or not boxes:
        return boxes
    first = np.array([s.start for s in undecided])
    at = (np.argwhere(labels.voxels[undecided] == UNDECIDED_LABEL) + first)[:, ::-1]
    away = np.stack([np.linalg.norm(np.maximum(np.maximum(low - at, at - high), 0) * spacing, axis=1)
                     for low, high in boxes.values()])  # fmt: skip
    for number, (side, (low, high)) in enumerate(list(boxes.items())):
        mine = at[(away.argmin(0) == number) & (away[number] < DOUBTFUL_MM)]
        if len(mine):
            boxes[side] = np.minimum(low, mine.min(0) - 0.5), np.maximum(high, mine.max(0) + 0.5)
    return boxes


def _corners(box: tuple[slice, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Edges (lower, upper) in continuous (i, j, k) of (k, j, i) slices."""
    return tuple(np.array([[s.start, s.stop] for s in box[::-1]]).T - 0.5)


def _in_view(radiograph, boxes):
    out = []
    for side, (low, high) in boxes.items():
        x0, y0, x1, y1 = radiograph.voxels_to_box({axis: (low[n], high[n]) for n, axis in enumerate("ijk")})
        out.append((radiograph.view, side, ((float(x0), float(y0)), (float(x1), float(y1)))))
    return out


def _femurs(result, reference, boxes, segmentation, references) -> tuple[FemurScore, ...]:
    grid, spacing = reference.grid, np.array(reference.grid.spacing_mm)
    size = np.array(grid.shape[::-1])
    found = {s: box for s in SIDES if (box := bounds(result.voxels, LABELS[s]))}
    edges = [*boxes.values(), *(_corners(box) for box in found.values())]
    if not edges:
        return tuple(FemurScore(side, False, False) for side in SIDES)
    margin = MARGIN_MM / spacing
    judged = list(boxes.values()) or [(np.zeros(3) - 0.5, size - 0.5)]
    inner = _slices(judged, margin, size)
    outer = _slices([*edges, *judged], margin, size)
    inside = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True))
    mine, theirs = result.voxels[outer], reference.voxels[outer]
    known = theirs != UNDECIDED_LABEL
    known = None if known.all() else known
    return tuple(
        _femur(side, mine, theirs, known, inside, spacing, boxes, found, segmentation, references) for side in SIDES
    )


def _femur(side, mine, theirs, known, inside, spacing, boxes, found, segmentation, references) -> FemurScore:
    present, is_found = side in boxes, side in found
    if not (present or is_found):
        return FemurScore(side, False, False)
    label, other = LABELS[side], next(LABELS[s] for s in SIDES if s != side)
    a, b = mine == label, theirs == label
    counts = overlap(a, b, known, inside)
    distance = surface_distance(a, b, spacing, known)
    volume = float(np.prod(spacing)) / 1000
    region = segmentation.localization.regions.get(side)
    ious = {}
    for view in VIEWS:
        wanted = next((box for v, s, box in references if (v, s) == (view, side)), None)
        all_boxes = segmentation.localization.detections.get(view, [])
        best = max(((d.score, d.box) for d in all_boxes if d.side == side), default=None)
        ious[view] = box_iou(best and (best[1][:2], best[1][2:]), wanted) if present else NAN
    return FemurScore(
        side=side,
        present=present,
        found=is_found,
        dice=counts.dice,
        sensitivity=counts.sensitivity,
        specificity=counts.specificity,
        pixel_accuracy=counts.pixel_accuracy,
        mean_surface_mm=distance.mean_mm,
        hd95_mm=distance.hd95_mm,
        region_iou=box_iou(region and (region.lower_ijk, region.upper_ijk), boxes[side]) if present else NAN,
        coronal_iou=ious["coronal"],
        axial_iou=ious["axial"],
        reference_ml=round(np.count_nonzero(b) * volume, 2),
        result_ml=round(np.count_nonzero(a) * volume, 2),
        **_confidence(segmentation, side),
        swapped=bool(np.count_nonzero(a & (theirs == other)) > SWAPPED * max(1, np.count_nonzero(a))),
    )


def _confidence(segmentation: Segmentation, side: str) -> dict:
    evidence = segmentation.evidence.get(side)
    return {"confidence": segmentation.confidence.get(side, NAN), "evidence": asdict(evidence) if evidence else {}}


def _slices(edges, margin, size) -> tuple[slice, ...]:
    """(k, j, i) slices of the whole voxels in the box around `edges` (i, j, k) and a margin."""
    low = np.clip(np.floor(np.min([e[0] for e in edges], 0) + 0.5 - margin), 0, size - 1).astype(int)
    high = np.clip(np.ceil(np.max([e[1] for e in edges], 0) + 0.5 + margin), low + 1, size).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))


def _ml(volume: Volume, mask: np.ndarray) -> float:
    return round(float(np.count_nonzero(mask) * np.prod(volume.grid.spacing_mm) / 1000), 2)
