"""Distances and angles of a femur from its landmarks. What a truncated bone cannot give is None, with a reason.

All angles are in degrees and do not depend on the patient's pose; right and left femora have the same signs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fitting import unit
from .landmarks import Landmarks


@dataclass(frozen=True)
class Measurement:
    """`value` in `unit` ("mm" or "deg"), or None and the `reason` in words."""

    name: str
    value: float | None
    unit: str
    reason: str = ""


NAMES = {
    "head_diameter_mm": "Head diameter",
    "neck_shaft_angle_deg": "Neck-shaft angle",
    "neck_shaft_angle_by_sections_deg": "Neck-shaft angle, neck axis through its sections",
    "anteversion_deg": "Anteversion",
    "anteversion_of_head_deg": "Anteversion of the head about the shaft",
    "offset_mm": "Femoral offset",
    "neck_area_mm2": "Smallest section of the neck",
    "mldfa_deg": "Mechanical lateral distal femoral angle (mLDFA)",
    "anatomical_mechanical_angle_deg": "Angle of anatomical and mechanical axis",
    "condylar_twist_deg": "Transepicondylar to posterior condylar line",
    "condylar_axes_deg": "Condylar axis by cylinder and by spheres",
    "condylar_width_mm": "Condylar width",
    "length_mm": "Greatest length",
    "mechanical_length_mm": "Mechanical length",
    "bow_radius_mm": "Radius of the anterior bow",
}
"""Every measurement and its name for people, in the order of tables."""


def measure(landmarks: Landmarks) -> dict[str, Measurement]:
    """All measurements by key (`NAMES`).

    head_diameter_mm: of the fitted sphere.
    neck_shaft_angle_deg: true angle in space of the neck axis (neck centre to head centre) and the proximal
      shaft axis, measured below; about 125. ..._by_sections: the same with the line through the neck's sections.
    anteversion_deg: angle of the neck axis and the posterior condylar line, both projected along the mechanical
      axis; positive when the head points forward of the condyles.
    anteversion_of_head_deg: the same for the perpendicular from the proximal shaft axis to the head's centre
      instead of the neck axis: the second method, close to that of Murphy et al. 1987 (CORR 216:245), which
      draws from the base of the neck; it gave 15 degrees more on average over 39 femora.
    offset_mm: distance of the head's centre from the proximal shaft axis.
    mldfa_deg: lateral angle of the mechanical axis and the line touching both condyles from below, in the plane
      of the mechanical axis and the posterior condylar line (Paley 2002); about 88.
    anatomical_mechanical_angle_deg: of the two axes in the same plane; positive when the anatomical axis leans
      outward going up; about 6.
    condylar_twist_deg: transepicondylar to posterior condylar line along the mechanical axis; positive when the
      epicondyles are turned outward (lateral one behind). condylar_axes_deg: unsigned angle in space.
    length_mm: greatest distance of two points (Martin 1928, no. 1). mechanical_length_mm: notch to head centre.
    bow_radius_mm: of the circle through the centroids of the diaphysis' sections seen from the side.
    """
    hip, knee = landmarks.hip, landmarks.knee
    out: dict[str, Measurement] = {}

    def give(key: str, compute, *needs: str) -> None:
        unit_ = key.rsplit("_", 1)[1]
        why = next((_missing(landmarks, need) for need in needs if _missing(landmarks, need)), "")
        value = None if why else compute()
        if value is None and not why:
            why = "the shaft is not bowed forward"
        out[key] = Measurement(NAMES[key], None if value is None else float(value), unit_, why)

    give("head_diameter_mm", lambda: 2 * hip.head.radius_mm, "hip")
    give("neck_shaft_angle_deg", lambda: _angle(-hip.neck.direction, hip.shaft.direction), "hip", "shaft")
    give(
        "neck_shaft_angle_by_sections_deg",
        lambda: _angle(-hip.neck_by_sections.direction, hip.shaft.direction),
        "hip",
        "shaft",
    )
    give("anteversion_deg", lambda: _forward(hip.neck.direction, knee), "hip", "knee", "side")
    give("anteversion_of_head_deg", lambda: _forward(hip.medial, knee), "hip", "knee", "side")
    give("offset_mm", lambda: hip.shaft.distance_mm(hip.head.center_mm), "hip", "shaft")
    give("neck_area_mm2", lambda: hip.neck_area_mm2, "hip")
    give("mldfa_deg", lambda: _mldfa(knee), "hip", "knee", "side")
    give("anatomical_mechanical_angle_deg", lambda: _lean(landmarks), "hip", "knee", "side")
    give("condylar_twist_deg", lambda: _forward(_span(knee.epicondyles_mm), knee), "knee", "side")
    give("condylar_axes_deg", lambda: _angle(knee.axis.direction, knee.axis_by_spheres.direction), "knee")
    give("condylar_width_mm", lambda: knee.width_mm, "knee")
    give("length_mm", lambda: np.linalg.norm(landmarks.ends_mm[0] - landmarks.ends_mm[1]), "hip", "knee", "top")
    give("mechanical_length_mm", lambda: np.linalg.norm(hip.head.center_mm - knee.center_mm), "hip", "knee")
    give("bow_radius_mm", lambda: _bow(landmarks), "hip", "knee")
    return out


def as_dict(measurements: dict[str, Measurement]) -> dict[str, dict]:
    """For JSON: {key: {name, value, unit, reason}}; values rounded to 0.001."""
    return {
        key: {
            "name": m.name,
            "value": None if m.value is None else round(m.value, 3),
            "unit": m.unit,
            "reason": m.reason or None,
        }
        for key, m in measurements.items()
    }


def _missing(landmarks: Landmarks, need: str) -> str:
    if need == "top":
        return "the head is cut by the edge of the scan" if landmarks.head_is_cut else ""
    if need in ("side", "shaft"):
        return landmarks.reasons.get(need, "")
    return "" if getattr(landmarks, need) is not None else landmarks.reasons.get(need, f"no {need}")


def _span(pair_mm: np.ndarray) -> np.ndarray:
    return unit(pair_mm[0] - pair_mm[1])


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def _forward(direction: np.ndarray, knee) -> float:
    """How far a direction is turned forward from the posterior condylar line, seen along the mechanical axis."""
    return float(np.degrees(np.arctan2(-(direction @ knee.posterior), direction @ knee.medial)))


def _mldfa(knee) -> float:
    line = _span(knee.distal_mm)
    return float(90 + np.degrees(np.arctan2(line @ knee.up, line @ knee.medial)))


def _lean(landmarks: Landmarks) -> float:
    axis, knee = landmarks.anatomical.direction, landmarks.knee
    return float(np.degrees(np.arctan2(-(axis @ knee.medial), axis @ knee.up)))


def _bow(landmarks: Landmarks) -> float | None:
    knee, points = landmarks.knee, landmarks.diaphysis_mm
    offset = points - points.mean(axis=0)
    height, back = offset @ knee.up, offset @ knee.posterior
    curvature, slope, _ = np.polyfit(height, back, 2)
    if curvature < 1e-5:  # a radius over 50 m
        return None
    return float((1 + slope**2) ** 1.5 / (2 * curvature))
