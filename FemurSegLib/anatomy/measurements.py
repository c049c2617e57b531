"""Distances and angles of a femur from its landmarks. What a truncated bone cannot give is None, with a reason.

All angles are in degrees and do not depend on the patient's pose; right and left femora have the same signs.
Importing and using this page needs numpy only, so that a front end may compute anew where landmarks are moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from FemurSegLib.sides import LEFT

from .bone import MIRROR
from .fitting import across, unit
from .landmarks import Landmarks, landmark_points


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
    "neck_shaft_angle_by_sections_deg": "Neck-shaft angle, neck axis across its sections",
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

SHORTLY = {
    "head_diameter_mm": "sphere fitted to the head",
    "neck_shaft_angle_deg": "neck and proximal shaft axis, in space",
    "neck_shaft_angle_by_sections_deg": "second method",
    "anteversion_deg": "neck axis and posterior condylar line",
    "anteversion_of_head_deg": "second method",
    "offset_mm": "head centre to proximal shaft axis",
    "neck_area_mm2": "of all planes across it",
    "mldfa_deg": "and distal condylar line",
    "anatomical_mechanical_angle_deg": "in the frontal plane",
    "condylar_twist_deg": "+ outward",
    "condylar_axes_deg": "agreement of two methods",
    "condylar_width_mm": "along the posterior condylar line",
    "length_mm": "two points farthest apart",
    "mechanical_length_mm": "head centre to intercondylar notch",
    "bow_radius_mm": "middle half of the shaft, from the side",
}
"""How each is measured, in a few words for tables; `measure` and `numbers_from_landmarks` define them."""

NEEDS = {
    "head_diameter_mm": ("hip",),
    "neck_shaft_angle_deg": ("hip", "shaft"),
    "neck_shaft_angle_by_sections_deg": ("hip", "shaft"),
    "anteversion_deg": ("hip", "knee", "side"),
    "anteversion_of_head_deg": ("hip", "knee", "side"),
    "offset_mm": ("hip", "shaft"),
    "neck_area_mm2": ("hip",),
    "mldfa_deg": ("hip", "knee", "side"),
    "anatomical_mechanical_angle_deg": ("hip", "knee", "side"),
    "condylar_twist_deg": ("knee", "side"),
    "condylar_axes_deg": ("knee",),
    "condylar_width_mm": ("knee",),
    "length_mm": ("hip", "knee", "top"),
    "mechanical_length_mm": ("hip", "knee"),
    "bow_radius_mm": ("hip", "knee"),
}
"""Which parts of the bone each needs; what is said of a part that is missing becomes the reason."""

WITHOUT = {
    "bow_radius_mm": "the shaft is not bowed forward",
    "neck_shaft_angle_by_sections_deg": "the neck's sections have no clear smallest one",
}
"""Why a measurement is missing though the parts that it needs are there."""


def measure(landmarks: Landmarks) -> dict[str, Measurement]:
    """All measurements by key (`NAMES`); those that follow from points are defined at `numbers_from_landmarks`.

    head_diameter_mm: of the sphere fitted to the head (`hip.find_head`).
    neck_shaft_angle_by_sections_deg: as neck_shaft_angle_deg, with the direction in which the neck's sections are
      smallest instead of the line to the head's centre: the second method (`hip.Hip.neck_by_sections`).
    neck_area_mm2: smallest section of the neck.
    condylar_width_mm: of both condyles along the posterior condylar line (Martin 1928, no. 21, is the epicondylar
      breadth, which is a few millimetres more or less).
    bow_radius_mm: of the circle, in the plane of the mechanical axis and straight posterior, through the centroids
      of the diaphysis' sections (the radius of curvature of Maratt et al. 2014, J Orthop Trauma 28:6).
    """
    hip, knee = landmarks.hip, landmarks.knee
    numbers = numbers_from_landmarks(landmark_points(landmarks), landmarks.side)
    if hip is not None:
        numbers |= {"head_diameter_mm": 2 * hip.head.radius_mm, "neck_area_mm2": hip.neck_area_mm2}
        if hip.shaft is not None and hip.neck_by_sections is not None:
            angle = _angle(-hip.neck_by_sections.direction, hip.shaft.direction)
            numbers["neck_shaft_angle_by_sections_deg"] = angle
    if knee is not None:
        numbers["condylar_width_mm"] = knee.width_mm
        if hip is not None and (radius := _bow(landmarks)) is not None:
            numbers["bow_radius_mm"] = radius
    out = {}
    for key, name in NAMES.items():
        needs = NEEDS[key]
        why = next((_missing(landmarks, need) for need in needs if _missing(landmarks, need)), "")
        value = None if why else numbers.get(key)
        if value is None and not why:
            why = WITHOUT.get(key, "its points lie too close together")
        out[key] = Measurement(name, value, key.rsplit("_", 1)[1], why)
    return out


def numbers_from_landmarks(points_mm: Mapping[str, Sequence[float]], side: str) -> dict[str, float]:
    """What follows from points alone, however they were found or moved: {key of `NAMES`: value}.

    points_mm: by key of `landmarks.LANDMARK_NAMES`, LPS mm; side: RIGHT or LEFT. What needs a point that is not
    given, or points that coincide, is left out. Needs numpy only.

        numbers_from_landmarks({"top": (0, 0, 450), "bottom": (0, 0, 0)}, RIGHT) == {"length_mm": 450.0}

    neck_shaft_angle_deg: true angle in space of the neck axis (neck_center to head_center) and the proximal shaft
      axis, measured below; about 125 (Hoaglund & Low 1980, CORR 152:10).
    anteversion_deg: angle of the neck axis and the posterior condylar line, both projected along the mechanical
      axis; positive when the head points forward of the condyles (Murphy et al. 1987, JBJS 69-A:1169, with the
      neck's centre for the base of the neck).
    anteversion_of_head_deg: the same for the perpendicular from the proximal shaft axis to the head's centre: the
      second method; 15 degrees more on average over 39 femora.
    offset_mm: distance of the head's centre from the proximal shaft axis (Noble et al. 1988, CORR 235:148).
    mldfa_deg: lateral angle of the mechanical axis (notch to head_center) and the line touching both condyles from
      below, in the plane of the mechanical axis and the posterior condylar line; about 88 (Paley, Principles of
      Deformity Correction, 2002, ch. 1).
    anatomical_mechanical_angle_deg: of the two axes in the same plane; positive when the anatomical axis leans
      outward going up; about 6 (Moreland et al. 1987, JBJS 69-A:745).
    condylar_twist_deg: transepicondylar to posterior condylar line, projected along the mechanical axis; positive
      when the epicondyles are turned outward, the lateral one behind (Yoshino et al. 2001, J Arthroplasty 16:493).
      Without a hip the axis of the distal shaft (notch to knee_axis_top) is looked along.
    condylar_axes_deg: unsigned angle in space of the condylar axis by one cylinder and by two spheres.
    length_mm: greatest distance of two points (Martin 1928, no. 1). mechanical_length_mm: notch to head centre.
    """
    sign = MIRROR if side == LEFT else np.ones(3)
    p = {key: np.asarray(point, float) * sign for key, point in points_mm.items()}
    out: dict[str, float] = {}
    for key, (needs, formula) in _FORMULAS.items():
        if all(any(point in p for point in _either(need)) for need in needs):
            with np.errstate(invalid="ignore", divide="ignore"):
                value = float(formula(p, _Frame(p)))
            if np.isfinite(value):
                out[key] = value
    return out


class _Frame:
    """Directions of a right knee: `up` the mechanical axis, or without a hip that of the distal shaft; `medial`
    along the posterior condylar line, across `up`; `posterior` square to both."""

    def __init__(self, points):
        self.p = points

    @property
    def up(self) -> np.ndarray:
        return unit(next(self.p[key] for key in _UP if key in self.p) - self.p["notch"])

    @property
    def medial(self) -> np.ndarray:
        return across(self.p["posterior_medial"] - self.p["posterior_lateral"], self.up)

    @property
    def posterior(self) -> np.ndarray:
        return np.cross(self.up, self.medial)

    def forward(self, direction: np.ndarray) -> float:
        """How far a direction is turned forward from the posterior condylar line, seen along `up`; degrees."""
        direction = unit(direction)
        return np.degrees(np.arctan2(-(direction @ self.posterior), direction @ self.medial))


def _neck(p):
    return p["head_center"] - p["neck_center"]


def _shaft(p):
    return unit(p["shaft_top"] - p["shaft_bottom"])


def _mldfa(p, knee):
    line = unit(p["distal_medial"] - p["distal_lateral"])
    return 90 + np.degrees(np.arctan2(line @ knee.up, line @ knee.medial))


def _lean(p, knee):
    axis = unit(p["anatomical_top"] - p["anatomical_bottom"])
    return np.degrees(np.arctan2(-(axis @ knee.medial), axis @ knee.up))


def _twist(p, knee):
    return knee.forward(p["epicondyle_medial"] - p["epicondyle_lateral"])


_NECK, _SHAFT = ("head_center", "neck_center"), ("head_center", "shaft_top", "shaft_bottom")
_KNEE = ("notch", "posterior_medial", "posterior_lateral")
_UP = ("head_center", "knee_axis_top")
"""Where the axis from the notch ends: at the first of them that is there."""
_AXES = ("condylar_axis_medial", "condylar_axis_lateral", "condyle_center_medial", "condyle_center_lateral")
_FORMULAS = {
    "neck_shaft_angle_deg": ((*_NECK, *_SHAFT), lambda p, _: _angle(-_neck(p), _shaft(p))),
    "anteversion_deg": ((*_NECK, *_KNEE), lambda p, knee: knee.forward(_neck(p))),
    "anteversion_of_head_deg": (
        (*_SHAFT, *_KNEE),
        lambda p, knee: knee.forward(across(p["head_center"] - p["shaft_top"], _shaft(p))),
    ),
    "offset_mm": (_SHAFT, lambda p, _: np.linalg.norm(np.cross(p["head_center"] - p["shaft_top"], _shaft(p)))),
    "mldfa_deg": (("head_center", *_KNEE, "distal_medial", "distal_lateral"), _mldfa),
    "anatomical_mechanical_angle_deg": (("head_center", *_KNEE, "anatomical_top", "anatomical_bottom"), _lean),
    "condylar_twist_deg": ((*_KNEE, "epicondyle_medial", "epicondyle_lateral", _UP), _twist),
    "condylar_axes_deg": (_AXES, lambda p, _: _angle(p[_AXES[0]] - p[_AXES[1]], p[_AXES[2]] - p[_AXES[3]])),
    "length_mm": (("top", "bottom"), lambda p, _: np.linalg.norm(p["top"] - p["bottom"])),
    "mechanical_length_mm": (("head_center", "notch"), lambda p, _: np.linalg.norm(p["head_center"] - p["notch"])),
}
"""Points that each number follows from (of several in brackets any one), and how: of points (LPS mm) of a right
femur and its `_Frame`."""


def points_of(key: str) -> tuple[str, ...]:
    """The landmarks (`LANDMARK_NAMES`) that a measurement follows from; none where it is read from the surface.

    condylar_twist_deg follows from head_center, and from knee_axis_top where there is no hip; both are named.
    """
    needs = _FORMULAS[key][0] if key in _FORMULAS else ()
    return tuple(dict.fromkeys(point for need in needs for point in _either(need)))


def _either(need: str | tuple[str, ...]) -> tuple[str, ...]:
    return (need,) if isinstance(need, str) else need


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


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    a, b = unit(a), unit(b)  # NaN for points that coincide
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def _bow(landmarks: Landmarks) -> float | None:
    knee, points = landmarks.knee, landmarks.diaphysis_mm
    offset = points - points.mean(axis=0)
    height, back = offset @ knee.up, offset @ knee.posterior
    curvature, slope, _ = np.polyfit(height, back, 2)
    if curvature < 1e-5:  # a radius over 50 m
        return None
    return float((1 + slope**2) ** 1.5 / (2 * curvature))
