"""Everything read from the femora of a mask, as plain numbers for JSON, tables and markups.

anatomy = read_femurs(labels, grid, ct)
anatomy.femurs["left_femur"]["measurements"]["anteversion_deg"]["value"]
anatomy.findings                        # what could not be read, in words
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from FemurSegLib import models
from FemurSegLib.errors import CancelledError, FemurSegError, InputError
from FemurSegLib.findings import Finding
from FemurSegLib.grid import Grid
from FemurSegLib.models import Model
from FemurSegLib.sides import DISPLAY_NAMES, LABELS, SIDES

from .bone import Bone, largest_surface
from .fitting import Line
from .joints import SOCKET, TIBIA
from .landmarks import LANDMARK_NAMES, Landmarks, find_landmarks, landmark_points
from .measurements import as_dict, measure
from .regions import REGION_NAMES, label_regions, region_volumes, regions_at, whole_volume
from .stability import spread
from .thickness import paint_thickness

if TYPE_CHECKING:
    from vtkmodules.vtkCommonDataModel import vtkPolyData

NOT_ASKED = "it was not asked for (option --compartments)"
BESIDE = {SOCKET: "head", TIBIA: "condyles"}
"""Where each lies whose pieces may be left out (joints.py)."""
HEADS_DIFFER_MM = 3.0
"""Diameters of the two heads of a person, from which one mask is doubted. Of the 13 pairs of VSDFullBodyBoneModels
they differ by 0.9 mm (root mean square), at most by 1.7; a film of the socket on a head widens it by 2 to 4 mm."""
AROUND_MM = 15.0
"""What is cut out around a femur before it is read: the network for its compartments looks at so much."""


@dataclass
class Anatomy:
    """`femurs`: a record (`femur_record`) by side, of those that could be read; `findings`: what could not be;
    `painted`: by side, surfaces with the thickness of the cortex (thickness.THICKNESS_ARRAY), with compartments."""

    femurs: dict[str, dict] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    painted: dict[str, vtkPolyData] = field(default_factory=dict, repr=False)


def read_femurs(
    labels: np.ndarray,
    grid: Grid,
    ct: np.ndarray | None = None,
    *,
    sides: Iterable[str] = SIDES,
    surfaces: Mapping | None = None,
    perturbations: int = 0,
    compartments: str | None = None,
    calibration=None,
    device: str = "auto",
    data_set: str | None = None,
) -> Anatomy:
    """The records of all femora in a mask. Never fails for what a mask looks like: that becomes a finding.

    labels: (k, j, i) uint8 on `grid`; ct: int16 Hounsfield units on it. surfaces: by side, those of the mask that
    are made already (vtkPolyData, LPS mm, one piece). perturbations: see `femur_record`. compartments: how to tell
    cortex from inside (compartments.METHODS), None not to; needs `ct`. calibration: a density.Calibration, for
    mineral densities. data_set: of the network's weights (models.chosen_set). Raises InputError where the CT has
    another size.
    """
    if ct is not None and ct.shape != labels.shape:
        raise InputError("The CT and the mask have different sizes.", "Give the CT that the mask was made from.")
    out = Anatomy()
    for side in sides:
        part = _around(labels, grid, side)
        if part is None:
            continue
        window, place = part
        name = DISPLAY_NAMES[side].lower()
        of_side = np.where(labels[window] == LABELS[side], LABELS[side], 0).astype(np.uint8)
        hu = None if ct is None else ct[window]
        cortex, why = None, NOT_ASKED if compartments is None else "no CT was given"
        if compartments is not None and hu is not None:
            how = {"calibration": calibration, "device": device, "method": compartments, "data_set": data_set}
            cortex, why = _compartments(hu, of_side, place, how, out.findings, side)
        try:
            surface = _copy_of((surfaces or {}).get(side)) or largest_surface(of_side, place, side)
            record = femur_record(of_side, place, side, hu, perturbations, cortex, calibration, surface)
        except (CancelledError, MemoryError):
            raise
        except Exception as error:  # the segmentation is worth more than what is read from it
            words = f"The {name} was segmented, but its landmarks and angles could not be read ({_told(error)})."
            out.findings.append(Finding("anatomy_unread", words, side))
            continue
        if cortex is None:
            record["compartments"] = {"reason": why}
        else:
            out.painted[side] = surface
        out.femurs[side] = record
        if "side" in record["missing"]:
            words = f"{record['missing']['side'].capitalize()}; check the sides."
            out.findings.append(Finding("side_doubtful", words, side))
        for what in record["left_out"]:
            words = f"A piece beside the {BESIDE[what]} of the {name} was left out of the measurements"
            out.findings.append(Finding("piece_left_out", f"{words}; look at the mask there.", side))
    out.findings += _unlike_heads(out.femurs)
    return out


def _unlike_heads(records: Mapping[str, dict]) -> list[Finding]:
    """A finding where one head is too large beside the other."""
    read = {side: record["measurements"]["head_diameter_mm"]["value"] for side, record in records.items()}
    diameters = {side: mm for side, mm in read.items() if mm is not None}
    if len(diameters) < 2 or (apart_mm := np.ptp(list(diameters.values()))) < HEADS_DIFFER_MM:
        return []
    larger = max(diameters, key=diameters.get)
    words = (
        f"The head of the {DISPLAY_NAMES[larger].lower()} is {apart_mm:.1f} mm wider than the other: "
        "its mask may hold part of the socket. Look at the joint space there."
    )
    return [Finding("heads_differ", words, larger)]


def models_of(records: Iterable[dict], data_set: str | None = None) -> list[Model]:
    """The weights of a set that records were made with, beside those of the masks."""
    by_network = any(record["compartments"].get("method") == "network" for record in records)
    return [models.find("compartments", data_set=data_set)] if by_network else []


def femur_record(
    labels: np.ndarray,
    grid: Grid,
    side: str,
    ct: np.ndarray | None = None,
    perturbations: int = 0,
    compartments=None,
    calibration=None,
    surface=None,
) -> dict:
    """Landmarks (points and lines, LPS mm), measurements, regions, compartments, reasons for what is missing, and
    the bones of which a piece was left out.

    labels: (k, j, i) uint8 on `grid`; ct: Hounsfield units on the same grid, for the mean of each region;
    perturbations: how many times everything is read again from a turned, mirrored or roughened mask (a second or
    two each), to give each measurement and landmark its `sd` and `largest_change`.
    compartments: of the same labels (compartments.find_compartments), for the cortical part of each region, and
    the thickness of the cortex there; calibration: a density.Calibration, for densities. surface: vtkPolyData of
    the same femur, if there is one; with compartments it is painted (thickness.paint_thickness).
    Raises InputError where the mask holds no femur of that side, or the CT has another size.
    """
    if ct is not None and ct.shape != labels.shape:
        raise InputError("The CT and the mask have different sizes.", "Give the CT that the mask was made from.")
    surface = largest_surface(labels, grid, side) if surface is None else surface
    bone = Bone.of_surface(surface, side)
    landmarks = find_landmarks(bone)
    measurements = as_dict(measure(landmarks))
    points = {
        key: {"name": LANDMARK_NAMES[key], "position_lps_mm": _rounded(p)}
        for key, p in landmark_points(landmarks).items()
    }
    if perturbations:
        for key, each in spread(bone, grid.spacing_mm, perturbations, exact=landmarks).items():
            target = measurements.get(key) or points.get(key)
            target |= {"sd": round(each.sd, 3), "largest_change": round(each.largest, 3)}
    regions = _regions(labels, grid, landmarks, ct, compartments, calibration)
    record = {
        "landmarks": points,
        "lines": {name: {"ends_lps_mm": [_rounded(e) for e in ends]} for name, ends in lines(landmarks).items()},
        "measurements": measurements,
        "regions": regions,
        "missing": landmarks.reasons,
        "left_out": list(landmarks.left_out),
        "perturbations": perturbations,
    }
    if compartments is not None:
        thickness = paint_thickness(surface, compartments.femurs[side])
        for key, where in regions_at(bone.points_mm, landmarks).items():
            if regions[key]["reason"] is None:
                regions[key]["cortical_thickness_mm"] = thickness.part(where).as_dict()["mean_mm"]
        record["compartments"] = compartments.femurs[side].as_dict() | {"thickness": thickness.as_dict()}
    return record


def _regions(labels, grid, landmarks: Landmarks, ct, compartments, calibration) -> dict[str, dict]:
    """{key: {name, volume_ml, mean_hu, density_mg_cm3, cortical_ml, cortical_thickness_mm, reason}}; None where not
    known, as the thickness at first is."""
    regions = label_regions(labels, grid, landmarks)
    window = grid.window(regions.grid)
    hu = None if ct is None else ct[window]
    bone = labels[window] == LABELS[landmarks.side]
    volumes = region_volumes(regions, landmarks, ct=hu) | {"whole": whole_volume(bone, grid, hu)}
    cortical = {}
    if compartments is not None:
        from .compartments import COMPARTMENT_LABELS

        cortex = compartments.labels[window] == COMPARTMENT_LABELS[landmarks.side, "cortical"]
        cortical = region_volumes(regions, landmarks, within=cortex) | {"whole": whole_volume(cortex, grid)}
    return {
        key: {
            "name": REGION_NAMES[key],
            "volume_ml": _number(v.volume_ml, 3),
            "mean_hu": _number(v.mean_hu, 1),
            "density_mg_cm3": None
            if calibration is None or v.mean_hu is None
            else _number(calibration.density(v.mean_hu), 1),
            "cortical_ml": _number(cortical[key].volume_ml, 3) if cortical else None,
            "cortical_thickness_mm": None,
            "reason": v.reason or None,
        }
        for key, v in volumes.items()
    }


def _around(labels, grid: Grid, side: str):
    """(window (k, j, i), its grid) around a femur, wider by `AROUND_MM` where the volume allows; or None."""
    from FemurSegLib.surface import bounds

    box = bounds(labels, LABELS[side])
    if box is None:
        return None
    wider = np.ceil(AROUND_MM / np.array(grid.spacing_mm[::-1])).astype(int)
    lower = np.maximum(0, [s.start for s in box] - wider)
    upper = np.minimum(labels.shape, [s.stop for s in box] + wider)
    return tuple(slice(a, b) for a, b in zip(lower, upper, strict=True)), grid.crop(lower, upper)


def _copy_of(surface: vtkPolyData | None) -> vtkPolyData | None:
    """The same points and triangles, to be painted without changing the one that was given."""
    if surface is None:
        return None
    copy = surface.NewInstance()
    copy.ShallowCopy(surface)
    return copy


def _compartments(ct, labels, grid, how: dict, findings, side):
    """(compartments, "") or (None, why there are none); what is doubtful about them is added to `findings`. how:
    options of `find_compartments`."""
    name = DISPLAY_NAMES[side].lower()
    try:
        from .compartments import find_compartments

        found = find_compartments(ct, labels, grid, **how)
    except (CancelledError, MemoryError):
        raise
    except Exception as error:
        words = f"Cortex and marrow of the {name} could not be told apart ({_told(error)})."
        findings.append(Finding("compartments_unread", words, side))
        return None, _told(error)
    findings.extend(found.findings)
    return found, ""


def _told(error: Exception) -> str:
    text = str(error).rstrip(".") if isinstance(error, FemurSegError) else f"{type(error).__name__}: {error}"
    return text[:1].lower() + text[1:] if isinstance(error, FemurSegError) else text


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


def _number(value, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)
