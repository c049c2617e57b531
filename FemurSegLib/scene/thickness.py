"""The thickness of the cortex as a painted model of each femur, with a legend in mm; hidden until asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer
import vtk

from FemurSegLib.anatomy.thickness import COLORS, THICKEST_MM, THICKNESS_ARRAY, read_painted
from FemurSegLib.evaluation.painted_bone import UNKNOWN
from FemurSegLib.scene.geometry import half_turn
from FemurSegLib.sides import DISPLAY_NAMES

PART, COLORS_PART, LEGEND_PART = "thickness", "thickness colors", "thickness legend"


def add_thickness(add: Callable, paths: dict[str, Path], side_attribute: str) -> None:
    """Add a hidden model a femur. `paths`: painted surfaces (LPS mm) by side; `add(class name, part, name,
    **attributes)` makes a node of the run. Raises InputError where a file is missing or damaged."""
    surfaces = {side: _in_ras(path) for side, path in paths.items()}
    if not surfaces:
        return
    colors = _add_colors(add)
    for number, (side, surface) in enumerate(surfaces.items()):
        name = f"{DISPLAY_NAMES[side]} cortical thickness"
        node = add("vtkMRMLModelNode", PART, name, **{side_attribute: side})
        node.SetAndObservePolyData(surface)
        display = node.GetDisplayNode()
        display.SetActiveScalar(THICKNESS_ARRAY, vtk.vtkAssignAttribute.POINT_DATA)
        display.SetAndObserveColorNodeID(colors.GetID())
        display.SetScalarRangeFlag(display.UseManualScalarRange)
        display.SetScalarRange(0.0, THICKEST_MM)
        display.SetScalarVisibility(True)
        display.SetVisibility(False)
        if number == 0:
            _add_legend(add, node)


def show(run, on: bool) -> None:
    """Show the painted models in the place of the segments in 3D, or those again."""
    for node in (*run.thickness.values(), *run.parts(LEGEND_PART)):
        display = node if node.IsA("vtkMRMLDisplayNode") else node.GetDisplayNode()
        display.SetVisibility(on)
    if run.segmentation is not None:
        run.segmentation.GetDisplayNode().SetVisibility3D(not on)


def _in_ras(path: Path) -> vtk.vtkPolyData:
    turned = vtk.vtkTransformPolyDataFilter()
    turned.SetTransform(half_turn())
    turned.SetInputData(read_painted(path))
    turned.Update()
    return turned.GetOutput()


def _add_colors(add: Callable):
    """The colours of the report as a table of this run: Slicer's own are not the same in all of its versions."""
    import matplotlib  # comes with the engine's packages

    node = add("vtkMRMLColorTableNode", COLORS_PART, "Cortical thickness colors")
    node.SetTypeToUser()
    node.SetNumberOfColors(256)
    for number, color in enumerate(matplotlib.colormaps[COLORS](np.linspace(0, 1, 256))):
        node.SetColor(number, f"{number / 255 * THICKEST_MM:.2f} mm", *color)
    node.GetLookupTable().SetNanColor(*UNKNOWN, 1.0)
    return node


def _add_legend(add: Callable, node) -> None:
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
    for attribute in node.GetAttributeNames():
        if attribute.startswith("FemurSeg."):
            legend.SetAttribute(attribute, node.GetAttribute(attribute))
    legend.SetAttribute("FemurSeg.Part", LEGEND_PART)
    legend.SetTitleText("Cortex (mm)")
    legend.SetLabelFormat("%.0f")
    legend.SetVisibility(False)
