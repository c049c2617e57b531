"""From a result folder to the nodes of a run.

run = show_result(folder, volume_node)
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import slicer
import slicer.util
import vtk

from FemurSegLib.errors import InputError
from FemurSegLib.result import Result, read_result
from FemurSegLib.scene import landmarks, thickness
from FemurSegLib.scene.geometry import flip, frame, right_handed
from FemurSegLib.scene.nodes import PART, RUN, SIDE, VIEW, VIEWS, Run, runs
from FemurSegLib.scene.table import add_table
from FemurSegLib.sides import COLORS, DISPLAY_NAMES, LABELS, SIDES, TERMINOLOGY

TABLE_COLUMNS = ("Femur", "Volume (ml)", "Length (mm)", "Confidence", "In the scan")


def show_result(folder, volume, scene=None, smoothing=0.5) -> Run:
    """Add the nodes of a result folder, made from the CT `volume`, to the scene. Raises InputError.

    `smoothing`: factor for the surfaces in 3D, 0 to 1, as in Slicer's Segmentations module. Earlier runs stay
    and are hidden. If anything fails, the scene is left as it was.
    """
    scene = scene or slicer.mrmlScene
    result = read_result(folder)
    earlier = runs(scene)
    run = Run(scene, earlier[-1].number + 1 if earlier else 1)
    try:
        _Builder(run, result, volume, smoothing).build()
    except Exception:
        run.undo()
        raise
    for other in earlier:
        other.hide(run.number)
    return run


class _Builder:
    """Adds the nodes of one result, one kind after the other."""

    def __init__(self, run: Run, result: Result, volume, smoothing: float):
        self.run, self.result, self.volume, self.smoothing = run, result, volume, smoothing
        self.report, self.scene = result.document, run.scene
        self.hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        item = self.hierarchy.GetItemByDataNode(volume)
        beside = self.hierarchy.GetItemParent(item) if item else self.hierarchy.GetSceneItemID()
        self.shelf = self.hierarchy.CreateFolderItem(beside, f"FemurSeg {run.number}: {volume.GetName()}")
        self.hierarchy.SetItemAttribute(self.shelf, RUN, str(run.number))
        self.place = self.shelf

    def build(self) -> None:
        self.add_segmentation([side for side in SIDES if self.report["femurs"][side]["found"]])
        for view in VIEWS:
            self.add_radiograph(view, self.report["radiographs"][view])
        for side in SIDES:
            femur = self.report["femurs"][side]
            if femur["region"]:
                self.add_roi(side, femur["region"])
            for view in VIEWS:
                if femur["boxes"][view]:
                    self.add_box(view, side, femur["boxes"][view]["box_pixels"])
        rows = [_table_row(side, self.report["femurs"][side]) for side in SIDES]
        add_table(self.add, "table", "Femur measurements", TABLE_COLUMNS, rows)
        self.add_anatomy()
        paths = {side: path for side in SIDES if (path := self.result.file(f"{side}_thickness"))}
        thickness.add_thickness(self.add, paths, SIDE)
        report = self.add("vtkMRMLTextNode", "report", "FemurSeg report")
        report.SetText(json.dumps(self.report, indent=1))

    def add(self, class_name: str, part: str, name: str, **attributes):
        """A new node of this run, with its default display, in the folder `place`."""
        node = self.scene.CreateNodeByClass(class_name)
        node.UnRegister(None)
        for attribute, value in {RUN: str(self.run.number), PART: part, **attributes}.items():
            node.SetAttribute(attribute, value)
        node.SetName(self.scene.GenerateUniqueName(name))
        self.scene.AddNode(node)
        if node.IsA("vtkMRMLDisplayableNode"):
            node.CreateDefaultDisplayNodes()
            for index in range(node.GetNumberOfDisplayNodes()):
                node.GetNthDisplayNode(index).SetAttribute(RUN, str(self.run.number))
        item = self.hierarchy.GetItemByDataNode(node)
        if item:
            self.hierarchy.SetItemParent(item, self.place)
        else:
            self.hierarchy.CreateItem(self.place, node)
        return node

    def add_segmentation(self, found) -> None:
        node = self.add("vtkMRMLSegmentationNode", "segmentation", "Femurs")
        node.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        labels = _read_labelmap(self.result.file("labelmap"))
        shared = slicer.vtkSlicerSegmentationsModuleLogic.CreateOrientedImageDataFromVolumeNode(labels)
        shared.UnRegister(None)
        segmentation = node.GetSegmentation()
        for side in found:
            segment = slicer.vtkSegment()
            segment.SetName(DISPLAY_NAMES[side])
            segment.SetColor(*COLORS[side])
            segment.SetLabelValue(LABELS[side])
            segment.SetTag(segment.GetTerminologyEntryTagName(), _terminology(side))
            segment.AddRepresentation("Binary labelmap", shared)
            segmentation.AddSegment(segment, side)
        segmentation.SetConversionParameter("Smoothing factor", str(self.smoothing))
        node.CreateClosedSurfaceRepresentation()
        display = node.GetDisplayNode()
        display.SetPreferredDisplayRepresentationName3D("Closed surface")
        display.SetVisibility3D(True)

    def add_radiograph(self, view: str, place: dict) -> None:
        reader = vtk.vtkPNGReader()
        reader.SetFileName(str(self.result.folder / place["file"]))
        upright = vtk.vtkImageFlip()  # VTK counts rows from the bottom, the report from the top
        upright.SetFilteredAxis(1)
        upright.SetInputConnection(reader.GetOutputPort())
        upright.Update()
        if not upright.GetOutput().GetNumberOfPoints():
            raise InputError(f"The {view} radiograph of the result is missing.", "Run the segmentation again.")
        image = vtk.vtkImageData()
        image.DeepCopy(upright.GetOutput())
        image.SetOrigin(0, 0, 0)
        image.SetSpacing(1, 1, 1)
        column, row = np.array(place["column_direction_lps"]), np.array(place["row_direction_lps"])
        axes = flip([column, row, np.cross(column, row)])
        spacing = (*place["pixel_mm"], max(place["pixel_mm"]))
        node = self.add("vtkMRMLVectorVolumeNode", "radiograph", f"{view.capitalize()} radiograph", **{VIEW: view})
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(frame(axes, flip(place["origin_lps_mm"]), spacing)))
        node.SetAndObserveImageData(image)
        node.CreateDefaultDisplayNodes()
        for index in range(node.GetNumberOfDisplayNodes()):
            node.GetNthDisplayNode(index).SetAttribute(RUN, str(self.run.number))

    def add_box(self, view: str, side: str, box) -> None:
        """A rectangle on the radiograph; pixel positions count from the outer corner of the first pixel."""
        place = self.report["radiographs"][view]
        column, row = np.array(place["column_direction_lps"]), np.array(place["row_direction_lps"])
        x0, y0, x1, y1 = box
        node = self.add(
            "vtkMRMLMarkupsClosedCurveNode",
            "box",
            f"{DISPLAY_NAMES[side]} box ({view})",
            **{VIEW: view, SIDE: side},
        )
        node.SetCurveTypeToLinear()
        for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1)):
            lps = (
                np.array(place["origin_lps_mm"])
                + column * (x - 0.5) * place["pixel_mm"][0]
                + row * (y - 0.5) * place["pixel_mm"][1]
            )
            node.AddControlPoint(vtk.vtkVector3d(*flip(lps)))
        node.SetLocked(True)
        display = node.GetDisplayNode()
        _colour(display, side)
        display.SetPointLabelsVisibility(False)
        display.SetPropertiesLabelVisibility(False)
        display.SetGlyphScale(0.5)
        display.SetLineThickness(1.0)  # of a glyph

    def add_roi(self, side: str, region: dict) -> None:
        node = self.add("vtkMRMLMarkupsROINode", "roi", f"{DISPLAY_NAMES[side]} box", **{SIDE: side})
        axes = right_handed(flip(region["axes_lps"]))
        node.SetAndObserveObjectToNodeMatrix(
            slicer.util.vtkMatrixFromArray(frame(axes, flip(region["center_lps_mm"])))
        )
        node.SetSize(*region["size_mm"])
        display = node.GetDisplayNode()
        _colour(display, side)
        display.SetFillVisibility(False)
        display.SetGlyphScale(0.7)  # the dot in the middle
        display.SetPropertiesLabelVisibility(False)
        display.SetHandlesInteractive(False)
        display.SetRotationHandleVisibility(False)

    def add_anatomy(self) -> None:
        """Landmarks and axes in a folder of their own, and the table of what follows from them."""
        femurs = self.report["femurs"]
        read = [side for side in SIDES if femurs[side].get("anatomy")]
        if not read:
            return
        landmarks.add_measurements(self.add, femurs)
        self.place = self.hierarchy.CreateFolderItem(self.shelf, "Landmarks and axes")
        self.hierarchy.SetItemAttribute(self.place, RUN, str(self.run.number))
        for side in read:
            landmarks.add_landmarks(self.add, femurs[side]["anatomy"], side)
        self.hierarchy.SetItemExpanded(self.place, False)
        self.place = self.shelf


def _table_row(side: str, femur: dict) -> tuple[str, ...]:
    if not femur["found"]:
        return DISPLAY_NAMES[side], "-", "-", "-", "not found"

    def number(value, form):
        return "-" if value is None else format(value, form)

    length = (femur.get("anatomy") or {}).get("measurements", {}).get("length_mm", {}).get("value")
    return (
        DISPLAY_NAMES[side],
        number(femur["volume_ml"], ".1f"),
        number(femur["length_mm"] if length is None else length, ".1f"),  # of a cut bone, what is there
        number(femur["confidence"], ".0%"),
        f"cut ({', '.join(femur['cut'])})" if femur["cut"] else "whole",
    )


def _terminology(side: str) -> str:
    """Slicer's serialised terminology entry: context, category, type, modifier, an empty anatomic region."""
    codes = [TERMINOLOGY["category"], TERMINOLOGY["type"], TERMINOLOGY[side]]
    return "~".join(
        [
            "Segmentation category and type - DICOM master list",
            *("^".join(code) for code in codes),
            "Anatomic codes - DICOM master list",
            "^^",
            "^^",
        ]
    )


def _read_labelmap(path: Path):
    """A label volume node that is not in any scene."""
    node = slicer.vtkMRMLLabelMapVolumeNode()
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    if not storage.ReadData(node):
        raise InputError(f"The labelmap {path.name} of the result cannot be read.", "Run the segmentation again.")
    return node


def _colour(display, side: str) -> None:
    display.SetColor(*COLORS[side])
    display.SetSelectedColor(*COLORS[side])
