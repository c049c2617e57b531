"""Landmarks of a femur as small as the rods of leg_ct.py, and the record of them as in result.json."""

from __future__ import annotations

from FemurSegLib.anatomy.landmarks import LANDMARK_NAMES
from FemurSegLib.anatomy.measurements import NAMES, numbers_from_landmarks
from FemurSegLib.anatomy.regions import REGION_NAMES
from FemurSegLib.sides import LEFT

POINTS = {
    "head_center": (-20, -3, 25),
    "neck_center": (-8, 0, 20),
    "shaft_top": (0, 0, 10),
    "shaft_bottom": (0, 0, -10),
    "greater_trochanter": (6, 2, 24),
    "lesser_trochanter": (-6, 4, 12),
    "trochanter_base": (7, 1, 16),
    "notch": (-2, 2, -28),
    "posterior_medial": (-6, 8, -26),
    "posterior_lateral": (6, 8, -26),
    "distal_medial": (-6, 0, -30),
    "distal_lateral": (6, 0, -30),
    "epicondyle_medial": (-8, 3, -25),
    "epicondyle_lateral": (8, 4, -25),
    "condyle_center_medial": (-6, 4, -26),
    "condyle_center_lateral": (6, 4, -26),
    "condylar_axis_medial": (-8, 4, -26),
    "condylar_axis_lateral": (8, 4.5, -26),
    "anatomical_top": (0, 0, 15),
    "anatomical_bottom": (-1, 0, -15),
    "top": (-15, -2, 30),
    "bottom": (5, 0, -30),
}
"""Millimetres from the middle of a bone: lateral, posterior, superior."""

VOLUMES_ML = {
    "head": (4.0, 1.5),
    "neck": (2.0, 1.0),
    "trochanteric": (3.0, 1.0),
    "intertrochanteric": (3.0, 1.25),
    "distal": (6.0, None),
    "combination": (8.0, 3.25),
}
"""Of each region, and of the cortex in it."""


def points(side: str, center_lps_mm) -> dict:
    lateral = 1 if side == LEFT else -1
    x, y, z = center_lps_mm
    return {key: [x + lateral * a, y + b, z + c] for key, (a, b, c) in POINTS.items()}


THICKNESS = {"mean_mm": 3.0, "median_mm": 2.9, "p05_mm": 1.0, "p95_mm": 5.0, "covered": 0.98}


def with_cortex(record: dict) -> dict:
    """The same entry with a cortex as thick as THICKNESS everywhere."""
    contents = {"volume_ml": 5.0, "mean_hu": 600.0, "density_mg_cm3": None}
    parts = {key: contents for key in ("cortical", "inside", "whole")}
    regions = {key: each | {"cortical_thickness_mm": 3.0} for key, each in record["regions"].items()}
    cortex = {"method": "network", "compartments": parts, "calibration": None, "thickness": THICKNESS}
    return record | {"regions": regions, "compartments": cortex}


def anatomy(side: str, center_lps_mm) -> dict:
    """The entry "anatomy" of a femur in result.json."""
    found = points(side, center_lps_mm)
    numbers = numbers_from_landmarks(found, side) | {"head_diameter_mm": 12.0}
    return {
        "landmarks": {
            key: {"name": LANDMARK_NAMES[key], "position_lps_mm": position} for key, position in found.items()
        },
        "lines": {},
        "measurements": {
            key: {
                "name": name,
                "value": round(numbers[key], 3) if key in numbers else None,
                "unit": key.rpartition("_")[2],
                "reason": None if key in numbers else "the shaft is not bowed forward",
            }
            for key, name in NAMES.items()
        },
        "regions": {
            key: {
                "name": REGION_NAMES[key],
                "volume_ml": volume_ml,
                "mean_hu": 300.0,
                "density_mg_cm3": None,
                "cortical_ml": cortical_ml,
                "cortical_thickness_mm": None,
                "reason": None if volume_ml else "the shaft is too short",
            }
            for key in REGION_NAMES
            for volume_ml, cortical_ml in [VOLUMES_ML.get(key, (None, None))]
        },
        "compartments": {"reason": "not asked for"},
        "missing": {},
        "perturbations": 0,
    }
