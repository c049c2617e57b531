"""Everything read from one femur of a mask, as plain numbers for JSON, tables and markups."""

from __future__ import annotations

import numpy as np

from FemurSegLib.errors import InputError
from FemurSegLib.grid import Grid

from .bone import Bone
from .fitting import Line
from .landmarks import LANDMARK_NAMES, Landmarks, find_landmarks, landmark_points
from .measurements import as_dict, measure
from .regions import label_regions, region_volumes
from .stability import spread


def femur_record(
    labels: np.ndarray, grid: Grid, side: str, ct: np.ndarray | None = None, perturbations: int = 0
) -> dict:
    """Landmarks (points and lines, LPS mm), measurements, regions, and reasons for what is missing.

    labels: (k, j, i) uint8 on `grid`; ct: Hounsfield units on the same grid, for the mean of each region;
    perturbations: how many times everything is read again from a turned, mirrored or roughened mask (some
    seconds each), to give each measurement and landmark its `sd` and `largest` change.
    Raises InputError where the mask holds no femur of that side, or the CT has another size.
    """
    if ct is not None and ct.shape != labels.shape:
        raise InputError("The CT and the mask have different sizes.", "Give the CT that the mask was made from.")
    bone = Bone.of_mask(labels, grid, side)
    landmarks = find_landmarks(bone)
    measurements = as_dict(measure(landmarks))
    points = {
        key: {"name": LANDMARK_NAMES[key], "position_lps_mm": _rounded(p)}
        for key, p in landmark_points(landmarks).items()
    }
    regions = label_regions(labels, grid, landmarks)
    within = None
    if ct is not None:
        lower = np.rint(grid.ijk(regions.grid.origin_mm)).astype(int)[::-1]
        within = ct[tuple(slice(a, a + n) for a, n in zip(lower, regions.grid.shape, strict=True))]
    volumes = region_volumes(regions, landmarks, ct=within)
    if perturbations:
        for key, each in spread(bone, grid.spacing_mm, perturbations).items():
            target = measurements.get(key) or points.get(key)
            target |= {"sd": round(each.sd, 3), "largest_change": round(each.largest, 3)}
    return {
        "landmarks": points,
        "lines": {name: {"ends_lps_mm": [_rounded(e) for e in ends]} for name, ends in lines(landmarks).items()},
        "measurements": measurements,
        "regions": {
            name: {
                "volume_ml": None if v.volume_ml is None else round(v.volume_ml, 3),
                "mean_hu": None if v.mean_hu is None else round(v.mean_hu, 1),
                "reason": v.reason or None,
            }
            for name, v in volumes.items()
        },
        "missing": landmarks.reasons,
    }


def lines(landmarks: Landmarks) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every axis and line as two ends (LPS mm) that look right when drawn."""
    hip, knee, out = landmarks.hip, landmarks.knee, {}
    if hip is not None:
        diameter = 2 * hip.head.radius_mm
        out["neck_axis"] = _along(hip.neck, -1.2 * diameter, 1.5 * diameter)
        if hip.shaft is not None:
            out["proximal_shaft_axis"] = _along(hip.shaft, -diameter, 3.5 * diameter)
    if knee is not None:
        out["condylar_axis"] = _along(knee.axis, -0.6 * knee.width_mm, 0.6 * knee.width_mm)
        out["posterior_condylar_line"] = tuple(knee.posterior_mm)
        out["distal_condylar_line"] = tuple(knee.distal_mm)
        out["transepicondylar_line"] = tuple(knee.epicondyles_mm)
    if landmarks.mechanical is not None:
        out["mechanical_axis"] = knee.center_mm, hip.head.center_mm
        length = float(np.linalg.norm(hip.head.center_mm - knee.center_mm))
        out["anatomical_axis"] = _along(landmarks.anatomical, -0.5 * length, 0.5 * length)
    return out


def _along(line: Line, first: float, last: float) -> tuple[np.ndarray, np.ndarray]:
    return line.point_mm + first * line.direction, line.point_mm + last * line.direction


def _rounded(point: np.ndarray) -> list[float]:
    return [round(float(x), 3) for x in point]
