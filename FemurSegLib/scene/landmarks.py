"""Landmarks and axes of a run as markups that can be dragged, and the table whose numbers follow them.

    following = Following(run)     # held as long as the table shall follow; `stop` ends it
    run.show_landmarks(True)
    following.reset()              # back to where they were found

The landmarks of a femur are one list of points, each axis is a line between two of them; moving either moves the
other. What is read from the surface (the head's diameter, the volumes) does not follow. Every control point
carries the key of its landmark as its description.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import slicer
import vtk

from FemurSegLib.anatomy.landmarks import LANDMARK_NAMES
from FemurSegLib.anatomy.measurements import NAMES, numbers_from_landmarks
from FemurSegLib.scene.geometry import flip
from FemurSegLib.scene.table import add_table, fill
from FemurSegLib.sides import COLORS, DISPLAY_NAMES, SIDES

SIDE, AXIS = "FemurSeg.Side", "FemurSeg.Axis"
LANDMARKS, AXES_PART, TABLE = "landmarks", "axis", "anatomy table"

AXES = {
    "mechanical_axis": ("mechanical axis", "notch", "head_center"),
    "anatomical_axis": ("anatomical axis", "anatomical_bottom", "anatomical_top"),
    "proximal_shaft_axis": ("proximal shaft axis", "shaft_bottom", "shaft_top"),
    "neck_axis": ("neck axis", "neck_center", "head_center"),
    "condylar_axis": ("condylar axis", "condylar_axis_medial", "condylar_axis_lateral"),
    "posterior_condylar_line": ("posterior condylar line", "posterior_medial", "posterior_lateral"),
    "distal_condylar_line": ("distal condylar line", "distal_medial", "distal_lateral"),
    "transepicondylar_line": ("transepicondylar line", "epicondyle_medial", "epicondyle_lateral"),
}
"""Each axis: its name and the landmarks at its ends."""

FIRST = (
    "length_mm",
    "head_diameter_mm",
    "neck_shaft_angle_deg",
    "anteversion_deg",
    "mldfa_deg",
    "offset_mm",
    "bow_radius_mm",
)
"""Measurements that a surgeon looks for first, in the order of the table; the others follow."""

COMPARTMENTS = {"cortical": "Cortical bone", "inside": "Trabecular bone and marrow"}
UNITS = {"mm": " mm", "mm2": " mm²", "deg": "°"}
SHADE = 0.45
"""The markups are darker than the bone they lie on."""
MOVED_MM = 0.01
"""A landmark farther than this from where it was found has been moved."""


def add_landmarks(add: Callable, anatomy: dict, side: str) -> None:
    """Add the markups of one femur, hidden. `add(class name, part, name, **attributes)` makes a node of the run."""
    points = {key: each["position_lps_mm"] for key, each in anatomy["landmarks"].items() if key in LANDMARK_NAMES}
    node = add("vtkMRMLMarkupsFiducialNode", LANDMARKS, f"{DISPLAY_NAMES[side]} landmarks", **{SIDE: side})
    for key, position in points.items():
        _add_point(node, key, position)
    _finish(node, side)
    for axis, (name, *ends) in AXES.items():
        if all(end in points for end in ends):
            attributes = {SIDE: side, AXIS: axis}
            node = add("vtkMRMLMarkupsLineNode", AXES_PART, f"{DISPLAY_NAMES[side]} {name}", **attributes)
            for end in ends:
                _add_point(node, end, points[end])
            _finish(node, side)


def add_measurements(add: Callable, femurs: dict) -> None:
    """Add the table of all measurements, a row each."""
    columns = ("Measurement", *(DISPLAY_NAMES[side] for side in SIDES))
    add_table(add, TABLE, "Femur anatomy", columns, rows(femurs, {}))


def rows(femurs: dict, points: dict) -> list[tuple[str, str, str]]:
    """The table: name, right, left. `femurs`: as in result.json; `points`: {side: {landmark: LPS mm}} as they are.

    Numbers that follow from a landmark that was moved are computed anew and carry a star.
    """
    records = {side: femurs[side].get("anatomy") or {} for side in SIDES}
    table = []
    numbers = {side: _numbers(records[side], points.get(side, {}), side) for side in SIDES}
    for key in (*FIRST, *(key for key in NAMES if key not in FIRST)):
        if any(key in numbers[side] for side in SIDES):
            table.append((NAMES[key], *(numbers[side].get(key, "-") for side in SIDES)))
    volumes = {side: _volumes(records[side]) for side in SIDES}
    for name in dict.fromkeys(name for side in SIDES for name in volumes[side]):
        table.append((name, *(volumes[side].get(name, "-") for side in SIDES)))
    return table


def reasons(femurs: dict) -> list[str]:
    """What could not be measured and why, a sentence each."""
    found = []
    for side in SIDES:
        for why in dict.fromkeys((femurs[side].get("anatomy") or {}).get("missing", {}).values()):
            found.append(f"{DISPLAY_NAMES[side]}: {why}.")
    return found


class Following:
    """Keeps the landmarks, the axes and the table of a run alike while the user moves them."""

    def __init__(self, run):
        self.run = run
        self._femurs = run.report.get("femurs", {})
        self._table = next(iter(run.parts(TABLE)), None)
        self._markups = {side: _markups(run, side) for side in SIDES}
        self._busy = False
        event = slicer.vtkMRMLMarkupsNode.PointModifiedEvent
        nodes = [node for nodes in self._markups.values() for node in nodes]
        self._tags = [(node, node.AddObserver(event, self._on_moved)) for node in nodes]
        self._show_numbers()

    def stop(self) -> None:
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        self._tags = []

    def reset(self) -> None:
        """Put every landmark back to where it was found."""
        for side in SIDES:
            self._put(side, _found(self._femurs, side), self._markups[side])
        self._show_numbers()

    @property
    def moved(self) -> bool:
        return any(_moved(_found(self._femurs, side), self._points(side)) for side in SIDES)

    def _points(self, side: str) -> dict:
        nodes = [node for node in self._markups[side] if self.run.scene.IsNodePresent(node)]
        return {key: position for node in nodes for key, (_, position) in _control_points(node).items()}

    def _on_moved(self, node, event) -> None:
        if self._busy or not self.run.scene.IsNodePresent(node):
            return
        side = node.GetAttribute(SIDE)
        positions = {key: position for key, (_, position) in _control_points(node).items()}
        self._put(side, positions, [other for other in self._markups[side] if other is not node])
        self._show_numbers()

    def _put(self, side: str, positions: dict, nodes: list) -> None:
        self._busy = True
        try:
            for node in nodes:
                for key, (index, position) in _control_points(node).items():
                    if key in positions and _moved({key: positions[key]}, {key: position}):
                        node.SetNthControlPointPositionWorld(index, *flip(positions[key]))
        finally:
            self._busy = False

    def _show_numbers(self) -> None:
        if self._table is not None and self.run.scene.IsNodePresent(self._table):
            fill(self._table, rows(self._femurs, {side: self._points(side) for side in SIDES}))


def _numbers(record: dict, points: dict, side: str) -> dict[str, str]:
    """{measurement: text}, of those that are known."""
    found = {key: each["position_lps_mm"] for key, each in record.get("landmarks", {}).items()}
    at_first, now = {}, {}
    if _moved(found, points):
        at_first, now = (numbers_from_landmarks(positions, side) for positions in (found, points))
    texts = {}
    for key, each in record.get("measurements", {}).items():
        follows = key in now and abs(now[key] - at_first.get(key, np.inf)) > 1e-6
        value = now[key] if follows else each["value"]
        if value is not None:
            spread = f" ± {each['sd']:.1f}" if "sd" in each and not follows else ""
            texts[key] = f"{value:.1f}{spread}{UNITS[each['unit']]}{' *' if follows else ''}"
    return texts


def _volumes(record: dict) -> dict[str, str]:
    """{name: text} of the regions and compartments that are known."""
    found = {}
    compartments = (record.get("compartments") or {}).get("compartments") or {}
    for key, each in (*(record.get("regions") or {}).items(), *compartments.items()):
        if key == "whole":  # in the table of results
            continue
        for amount, what in (("volume_ml", "volume"), ("cortical_ml", "cortical volume")):
            if each.get(amount) is not None:
                found[f"{COMPARTMENTS.get(key) or each['name']}, {what}"] = f"{each[amount]:.1f} ml"
    for key, each in (record.get("regions") or {}).items():
        if each.get("cortical_thickness_mm") is not None:
            name = "Cortex" if key == "whole" else each["name"]
            found[f"{name}, cortical thickness"] = f"{each['cortical_thickness_mm']:.1f} mm"
    told = (record.get("compartments") or {}).get("thickness") or {}
    if told.get("p05_mm") is not None:
        found["Cortex, nine tenths of the surface"] = f"{told['p05_mm']:.1f} to {told['p95_mm']:.1f} mm"
    return found


def _found(femurs: dict, side: str) -> dict:
    landmarks = (femurs.get(side, {}).get("anatomy") or {}).get("landmarks", {})
    return {key: each["position_lps_mm"] for key, each in landmarks.items()}


def _moved(found: dict, points: dict) -> set[str]:
    return {key for key in found if key in points and np.abs(np.subtract(found[key], points[key])).max() > MOVED_MM}


def _markups(run, side: str) -> list:
    nodes = [*run.parts(LANDMARKS), *run.parts(AXES_PART)]
    return [node for node in nodes if node.GetAttribute(SIDE) == side]


def _control_points(node) -> dict:
    """{landmark: (index, position in LPS mm)}."""
    found = {}
    for index in range(node.GetNumberOfControlPoints()):
        if node.GetNthControlPointPositionStatus(index) == node.PositionDefined:
            position = flip(node.GetNthControlPointPositionWorld(index))
            found[node.GetNthControlPointDescription(index)] = (index, position)
    return found


def _add_point(node, key: str, position) -> None:
    index = node.AddControlPoint(vtk.vtkVector3d(*flip(position)), LANDMARK_NAMES[key])
    node.SetNthControlPointDescription(index, key)


def _finish(node, side: str) -> None:
    node.SetFixedNumberOfControlPoints(True)
    display = node.GetDisplayNode()
    colour = [SHADE * channel for channel in COLORS[side]]
    display.SetColor(*colour)
    display.SetSelectedColor(*colour)
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(False)
    display.SetGlyphScale(1.6)
    display.SetLineThickness(0.4)  # of a glyph
    display.SetVisibility(False)
