"""Numbers that say how near a result comes to its reference: overlap, distance of surfaces, boxes, detection.

Xie 2025 (Tables 4 and 5) names Dice, sensitivity, specificity and pixel accuracy for masks, IoU, AP and
mAP for boxes. It does not say over which voxels specificity and accuracy run. From its figures a share of
femur of about 4 % follows (accuracy = sensitivity * share + specificity * (1 - share)), which is that of
the box around both femora, not that of a scan (below 0.5 %). So they are counted here in that box; see
`Overlap`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AP_IOU = 0.3
"""Overlap from which a box counts as found (Xie 2025, Table 4)."""
COCO_IOUS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of a result against a reference, undecided voxels left out.

    `negatives`: voxels that true negatives are counted among, those of the box in question; false
    positives count wherever they lie. What has no voxels to be judged by is nan; two empty masks agree
    (Dice 1).
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def dice(self) -> float:
        both = 2 * self.true_positives + self.false_positives + self.false_negatives
        return 2 * self.true_positives / both if both else 1.0

    @property
    def sensitivity(self) -> float:
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float:
        return _ratio(self.true_negatives, self.true_negatives + self.false_positives)

    @property
    def pixel_accuracy(self) -> float:
        right = self.true_positives + self.true_negatives
        return _ratio(right, right + self.false_positives + self.false_negatives)


def overlap(result: np.ndarray, reference: np.ndarray, known: np.ndarray | None = None, box=None) -> Overlap:
    """Counts of two boolean arrays of one shape.

    known: voxels that count; all where not given. box: slices in which true negatives are counted; everywhere
    where not given. ValueError for different shapes.
    """
    if result.shape != reference.shape:
        raise ValueError(f"The result {result.shape} and the reference {reference.shape} differ in shape.")
    if known is not None:
        result, reference = result & known, reference & known
    positive, wanted = int(np.count_nonzero(result)), int(np.count_nonzero(reference))
    hit = int(np.count_nonzero(result & reference))
    box = box or (slice(None),) * result.ndim
    inside = ~(result[box] | reference[box])
    if known is not None:
        inside &= known[box]
    return Overlap(hit, positive - hit, wanted - hit, int(np.count_nonzero(inside)))


@dataclass(frozen=True)
class SurfaceDistance:
    """`mean_mm`: mean symmetric distance; `hd95_mm`: the greater of the two 95th percentiles; `max_mm`: the
    greatest distance of all (Hausdorff)."""

    mean_mm: float
    hd95_mm: float
    max_mm: float


def surface_distance(
    result: np.ndarray, reference: np.ndarray, spacing_mm, known: np.ndarray | None = None
) -> SurfaceDistance:
    """Distances between the surfaces of two boolean (k, j, i) masks; spacing_mm along (i, j, k).

    A surface is the set of faces between voxels inside and outside, each counted by its area, so that
    thick slices weigh what they should. Where the volume ends there is no face: a femur that is cut has
    no surface there. Faces that touch an undecided voxel are measured to, never from. Both empty: nan;
    one empty: infinite.
    """
    if not result.any() or not reference.any():
        value = np.nan if not (result.any() or reference.any()) else np.inf
        return SurfaceDistance(value, value, value)
    crop = _around(result | reference)
    result, reference = result[crop], reference[crop]
    known = None if known is None else known[crop]
    from scipy.spatial import cKDTree

    a, a_area, a_known = _faces(result, spacing_mm, known)
    b, b_area, b_known = _faces(reference, spacing_mm, known)
    if not (len(a) and len(b)):  # masks that fill the whole volume
        value = 0.0 if len(a) == len(b) else np.inf
        return SurfaceDistance(value, value, value)
    forth = cKDTree(b).query(a[a_known], workers=1)[0]
    back = cKDTree(a).query(b[b_known], workers=1)[0]
    areas = np.r_[a_area[a_known], b_area[b_known]]
    if not len(areas):
        return SurfaceDistance(np.nan, np.nan, np.nan)
    mean = float(np.average(np.r_[forth, back], weights=areas))
    tails = [_quantile(d, w, 0.95) for d, w in ((forth, a_area[a_known]), (back, b_area[b_known])) if len(d)]
    return SurfaceDistance(mean, max(tails), float(max(forth.max(initial=0), back.max(initial=0))))


def box_iou(a, b) -> float:
    """Intersection over union of two boxes, each (lower, upper) of any dimension; 0 where one is None."""
    if a is None or b is None:
        return 0.0
    (a0, a1), (b0, b1) = (np.asarray(box, float) for box in (a, b))
    shared = np.prod(np.clip(np.minimum(a1, b1) - np.maximum(a0, b0), 0, None))
    union = np.prod(a1 - a0) + np.prod(b1 - b0) - shared
    return float(shared / union) if union > 0 else 0.0


@dataclass(frozen=True)
class Curve:
    """Precision and recall as the score falls; `ap` is the area below the envelope. nan without any
    reference."""

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    ap: float


def precision_recall(detections, references, iou: float = AP_IOU) -> Curve:
    """Curve of one class: detections (picture, score, box), references (picture, box), boxes (lower, upper).

    By falling score each detection takes the best free reference of its picture that it overlaps by
    `iou`; others are false. AP is the area under the envelope of the curve at all points (Pascal VOC 2010
    and later).
    """
    ordered = sorted(detections, key=lambda d: -d[1])
    free = {n: box for n, (_, box) in enumerate(references)}
    hits = np.zeros(len(ordered))
    for n, (picture, _, box) in enumerate(ordered):
        fits = [(box_iou(box, free[r]), r) for r in free if references[r][0] == picture]
        best, which = max(fits, default=(0.0, -1))
        if best >= iou:
            hits[n] = 1
            del free[which]
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(ordered) + 1)
    scores = np.array([d[1] for d in ordered])
    if not references:
        return Curve(precision, np.full(len(ordered), np.nan), scores, np.nan)
    recall = found / len(references)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    ap = float(np.sum(np.diff(np.r_[0.0, recall]) * envelope))
    return Curve(precision, recall, scores, ap)


def bootstrap_mean(values, samples: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of the finite values and its 95 % confidence interval (percentile bootstrap); nan without any."""
    values = np.asarray(list(values), float)
    values = values[np.isfinite(values)]
    if not len(values):
        return (np.nan,) * 3
    drawn = np.random.default_rng(seed).choice(values, (samples, len(values))).mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _around(mask: np.ndarray) -> tuple[slice, ...]:
    """Slices of the voxels that are set and one more on each side."""
    out = []
    for axis in range(mask.ndim):
        at = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        out.append(slice(max(0, at[0] - 1), at[-1] + 2))
    return tuple(out)


def _faces(mask: np.ndarray, spacing_mm, known) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres (n, 3) in mm of the faces of a mask, their areas in mm2, and whether both neighbours are
    known."""
    spacing = np.asarray(spacing_mm, float)[::-1]  # (k, j, i)
    centers, areas, sure = [], [], []
    for axis in range(3):
        low = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        at = np.argwhere(mask[low] != mask[high])
        centers.append((at + 0.5 * (np.arange(3) == axis)) * spacing)
        areas.append(np.full(len(at), np.prod(spacing) / spacing[axis]))
        both = np.ones(len(at), bool) if known is None else (known[low] & known[high])[tuple(at.T)]
        sure.append(both)
    return np.concatenate(centers), np.concatenate(areas), np.concatenate(sure)


def _quantile(values: np.ndarray, weights: np.ndarray, q: float) -> float:
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][min(np.searchsorted(below, q * below[-1]), len(values) - 1)])
