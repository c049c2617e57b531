"""Regions of a femur as labelled voxels, and their volumes.

Head, neck, trochanteric and intertrochanteric are those of Deng et al. 2022, Figure 7, who took them from QCT Pro
(Mindways) and measured head, neck and the combination of neck, trochanter and intertrochanter. Their text gives
names only; where it is silent the rules of hip densitometry, which that program follows, are taken in space:

- head: up to the plane square to the neck axis where a cylinder of the neck's smallest section leaves the
  sphere of the head, at sqrt(R^2 - A / pi) from its centre.
- neck: the next 15 mm along the axis (the neck box of Hologic densitometers is 15 pixels wide, about 15 mm).
- trochanteric and intertrochanteric: parted by a plane that sees the frontal plane of the hip edge on. It runs
  from the neck axis at the end of the neck box (where Ward's triangle is sought) to the base of the greater
  trochanter (Radiology 228:620, Fig. 4), here the outer surface at mid height between the trochanters' tips.
- the intertrochanteric region ends 10 mm below the tip of the lesser trochanter, square to the shaft (the
  lower edge of the total hip box of Hologic densitometers).
- distal: a square as high as the condyles are wide (AO/OTA 2018, after Heim). shaft: what lies between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from FemurSegLib.sides import LABELS
from FemurSegLib.volume import Volume

from .fitting import unit
from .landmarks import Landmarks

REGIONS = {"head": 1, "neck": 2, "trochanteric": 3, "intertrochanteric": 4, "shaft": 5, "distal": 6}
"""Value of each region in the labelmap of `label_regions`; 0 is background, or bone that has no region."""
REGION_NAMES = {
    "head": "Head",
    "neck": "Neck",
    "trochanteric": "Trochanteric",
    "intertrochanteric": "Intertrochanteric",
    "shaft": "Shaft",
    "distal": "Distal",
    "combination": "Neck, trochanteric and intertrochanteric",
    "whole": "Whole femur",
}
"""Every region, Deng's combination, and the whole as far as it is in the scan, by the name for people."""
COMBINATION = ("neck", "trochanteric", "intertrochanteric")
NECK_BOX_MM = 15.0
BELOW_LESSER_TROCHANTER_MM = 10.0


@dataclass(frozen=True)
class RegionVolume:
    """`volume_ml`, or None and the `reason`; `mean_hu` where a CT was given."""

    volume_ml: float | None
    reason: str = ""
    mean_hu: float | None = None


def label_regions(labels: np.ndarray, grid, landmarks: Landmarks) -> Volume:
    """Regions (uint8, `REGIONS`) of one femur of a labelmap (k, j, i), on the smallest box around it.

    Where the landmarks that bound a region are missing its voxels stay 0.
    """
    from FemurSegLib.surface import bounds

    box = bounds(labels, LABELS[landmarks.side])
    lower, upper = [s.start for s in box], [s.stop for s in box]
    mask = labels[box] == LABELS[landmarks.side]
    cropped = grid.crop(lower, upper)
    out = np.zeros(mask.shape, np.uint8)
    classify = _Classifier(landmarks)
    for k, plane in enumerate(mask):
        j, i = np.nonzero(plane)
        if len(j):
            points = cropped.lps(np.c_[i, j, np.full(len(i), k)])
            out[k, j, i] = classify(points)
    return Volume(out, cropped)


def regions_at(points_mm: np.ndarray, landmarks: Landmarks) -> dict[str, np.ndarray]:
    """{name: (n,) bool}: which of the points (n, 3), LPS mm, lie in a region, by the names of `REGION_NAMES`."""
    value = _Classifier(landmarks)(np.asarray(points_mm, float))
    found = {name: value == number for name, number in REGIONS.items()}
    found["combination"] = np.logical_or.reduce([found[name] for name in COMBINATION])
    return found | {"whole": np.ones(len(value), bool)}


def region_volumes(
    regions: Volume, landmarks: Landmarks, within: np.ndarray | None = None, ct: np.ndarray | None = None
) -> dict[str, RegionVolume]:
    """Volumes by name, `combination` among them. within: mask on the same grid (the cortex, say) to which
    they are restricted; ct: Hounsfield units on the same grid."""
    voxel_ml = float(np.prod(regions.grid.spacing_mm)) / 1000
    chosen = regions.voxels if within is None else regions.voxels * (np.asarray(within) > 0)
    inside = chosen > 0
    counts = np.bincount(chosen[inside], minlength=7)
    sums = None if ct is None else np.bincount(chosen[inside], weights=ct[inside], minlength=7)
    why = missing_regions(landmarks)
    out = {}
    groups = {name: [value] for name, value in REGIONS.items()}
    groups["combination"] = [REGIONS[name] for name in COMBINATION]
    for name, values in groups.items():
        if why.get(name):
            out[name] = RegionVolume(None, why[name])
            continue
        count = int(counts[values].sum())
        hu = float(sums[values].sum() / count) if sums is not None and count else None
        out[name] = RegionVolume(count * voxel_ml, "", hu)
    return out


def whole_volume(mask: np.ndarray, grid, ct: np.ndarray | None = None) -> RegionVolume:
    """Of a mask (k, j, i) on `grid`, whatever was found of it; `ct` as in `region_volumes`."""
    mask = np.asarray(mask, bool)
    count = int(np.count_nonzero(mask))
    hu = float(ct[mask].mean()) if ct is not None and count else None
    return RegionVolume(count * float(np.prod(grid.spacing_mm)) / 1000, "", hu)


def missing_regions(landmarks: Landmarks) -> dict[str, str]:
    """Why a region cannot be measured, by its name; those that can are not in it."""
    hip, knee, reasons = landmarks.hip, landmarks.knee, landmarks.reasons
    why: dict[str, str] = {}
    if hip is None:
        why |= dict.fromkeys(("head", "neck", *COMBINATION, "shaft", "combination"), reasons["hip"])
    else:
        if landmarks.head_is_cut:
            why["head"] = "the head is cut by the edge of the scan"
        if hip.trochanter_base_mm is None:
            text = reasons.get("shaft", "the trochanters' tips were not found")
            why |= dict.fromkeys(("trochanteric", "intertrochanteric", "combination", "shaft"), text)
        elif landmarks.trochanter_is_cut:
            why |= dict.fromkeys(("trochanteric", "combination"), "the trochanter is cut by the edge of the scan")
    if knee is None:
        why |= dict.fromkeys(("shaft", "distal"), reasons["knee"])
    return why


class _Classifier:
    """Region of each point (n, 3), LPS mm."""

    def __init__(self, landmarks: Landmarks):
        self.hip, self.knee = landmarks.hip, landmarks.knee
        hip, knee = self.hip, self.knee
        self.bottom = None
        if hip is not None:
            radius = hip.head.radius_mm
            self.head_mm = float(np.sqrt(radius**2 - hip.neck_area_mm2 / np.pi))
            if hip.trochanter_base_mm is not None:
                self.bottom = hip.lesser_trochanter_mm @ hip.shaft.direction - BELOW_LESSER_TROCHANTER_MM
                self.divide_at, self.divide = self._divide(hip)
        if knee is not None:
            self.distal_mm = knee.distal_mm.mean(axis=0) @ knee.up + knee.width_mm

    def __call__(self, points: np.ndarray) -> np.ndarray:
        out = np.zeros(len(points), np.uint8)
        hip, knee = self.hip, self.knee
        above = np.zeros(len(points), bool)
        if hip is not None:
            above = np.ones(len(points), bool)
            if self.bottom is not None:
                above = points @ hip.shaft.direction > self.bottom
            offset = points - hip.head.center_mm
            along = offset @ -hip.neck.direction
            aside = np.linalg.norm(offset - np.outer(along, -hip.neck.direction), axis=1)
            head = above & (along < self.head_mm) & (np.linalg.norm(offset, axis=1) < 1.6 * hip.head.radius_mm)
            neck = above & ~head & (along < self.head_mm + NECK_BOX_MM) & (aside < hip.head.radius_mm)
            if hip.trochanter_base_mm is not None:
                upper = (points - self.divide_at) @ self.divide > 0
                out[above & upper] = REGIONS["trochanteric"]
                out[above & ~upper] = REGIONS["intertrochanteric"]
            out[head], out[neck] = REGIONS["head"], REGIONS["neck"]
        if knee is not None:
            distal = points @ knee.up < self.distal_mm
            if hip is not None and hip.trochanter_base_mm is not None:
                out[~above] = REGIONS["shaft"]
            out[distal & ~above] = REGIONS["distal"]
        return out

    def _divide(self, hip) -> tuple[np.ndarray, np.ndarray]:
        """A point of the plane between trochanteric and intertrochanteric, and its normal, pointing up."""
        up = hip.shaft.direction
        inner = hip.head.center_mm - (self.head_mm + NECK_BOX_MM) * hip.neck.direction
        edge_on = unit(np.cross(hip.neck.direction, up))
        normal = unit(np.cross(hip.trochanter_base_mm - inner, edge_on))
        return inner, normal * np.sign(normal @ up)
