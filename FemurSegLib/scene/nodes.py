"""What a run shows in the scene, and how to take it away again.

    run = show_result(folder, volume_node)
    run.segmentation, run.rois["left_femur"], run.radiographs["coronal"], run.table, run.warnings
    run.undo()

Every node of a run carries its number and its part as attributes, so a scene that was saved and opened again
still knows its runs: `latest_run(scene)`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import slicer.util
import vtk

from FemurSegLib.errors import InputError
from FemurSegLib.result import Result, read_result
from FemurSegLib.scene.geometry import flip, frame, right_handed
from FemurSegLib.sides import COLORS, DISPLAY_NAMES, LABELS, SIDES, TERMINOLOGY

RUN, PART, SIDE, VIEW, HIDDEN_BY = (f"FemurSeg.{name}" for name in ("Run", "Part", "Side", "View", "HiddenBy"))
VIEWS = ("coronal", "axial")
TABLE_COLUMNS = ("Femur", "Volume (ml)", "Length (mm)", "Confidence", "In the scan")


@dataclass(frozen=True)
class Run:
    """One run in a scene. Its nodes are looked up each time: what the user has deleted is not there."""

    scene: object
    number: int

    @property
    def nodes(self) -> list:
        return [node for node in _all_nodes(self.scene) if node.GetAttribute(RUN) == str(self.number)]

    def parts(self, part: str) -> list:
        return [node for node in self.nodes if node.GetAttribute(PART) == part]

    @property
    def segmentation(self):
        """The segmentation node with a segment a femur, ids as in `sides.SIDES`; None if deleted."""
        return next(iter(self.parts("segmentation")), None)

    @property
    def volume(self):
        """The CT the run was made from; None if deleted."""
        segmentation = self.segmentation
        if segmentation is None:
            return None
        return segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())

    @property
    def rois(self) -> dict:
        """{side: markups ROI}, the 3D box of each femur."""
        return {node.GetAttribute(SIDE): node for node in self.parts("roi")}

    @property
    def radiographs(self) -> dict:
        """{view: vector volume}, placed in the middle of the CT."""
        return {node.GetAttribute(VIEW): node for node in self.parts("radiograph")}

    @property
    def boxes(self) -> dict:
        """{(view, side): closed curve}, what the detector found on the radiographs."""
        return {(node.GetAttribute(VIEW), node.GetAttribute(SIDE)): node for node in self.parts("box")}

    @property
    def table(self):
        return next(iter(self.parts("table")), None)

    @property
    def report(self) -> dict:
        """The whole result.json of the run; {} if its node was deleted."""
        node = next(iter(self.parts("report")), None)
        return json.loads(node.GetText()) if node is not None else {}

    @property
    def warnings(self) -> list[dict]:
        """[{"code", "message", "side"}], for the user to read first."""
        return self.report.get("warnings", [])

    def regions(self) -> dict:
        """The ROIs as they are now, as the engine's `--region` takes them: LPS millimetres, axes as rows."""
        return {side: _region_of(roi) for side, roi in self.rois.items()}

    def edit_boxes(self, on: bool) -> None:
        """Show or hide the handles to drag the ROIs by."""
        for roi in self.rois.values():
            roi.GetDisplayNode().SetHandlesInteractive(on)

    def undo(self) -> None:
        """Take away what the run added, nothing else, and show again what it had hidden."""
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        items = vtk.vtkIdList()
        hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
        folders = [items.GetId(n) for n in range(items.GetNumberOfIds())]
        folders = [item for item in folders if hierarchy.GetItemAttribute(item, RUN) == str(self.number)]
        for node in self.nodes:
            item = hierarchy.GetItemByDataNode(node)
            if item:
                hierarchy.RemoveItem(item, False, False)
            if (
                node.IsA("vtkMRMLStorableNode") and node.GetStorageNode() is not None
            ):  # made when the scene was saved
                self.scene.RemoveNode(node.GetStorageNode())
            self.scene.RemoveNode(node)
        for item in folders:
            hierarchy.RemoveItem(item, False, False)
        for node in _all_nodes(self.scene):
            if node.GetAttribute(HIDDEN_BY) == str(self.number):
                node.RemoveAttribute(HIDDEN_BY)
                node.SetVisibility(True)

    def hide(self, by: int) -> None:
        """Hide what is visible, until run number `by` is undone."""
        for node in self.nodes:
            if node.IsA("vtkMRMLDisplayNode") and node.GetVisibility():
                node.SetVisibility(False)
                node.SetAttribute(HIDDEN_BY, str(by))


def runs(scene=None) -> list[Run]:
    """The runs in a scene, oldest first."""
    scene = scene or slicer.mrmlScene
    numbers = {int(node.GetAttribute(RUN)) for node in _all_nodes(scene) if node.GetAttribute(RUN)}
    return [Run(scene, number) for number in sorted(numbers)]


def latest_run(scene=None) -> Run | None:
    return next(reversed(runs(scene)), None)


def run_of(volume, scene=None) -> Run | None:
    """The newest run made from the CT `volume`; with None the newest of all that still has its segmentation."""
    for run in reversed(runs(scene)):
        if run.segmentation is not None and volume in (None, run.volume):
            return run
    return None


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


def save_picture(radiograph, path) -> Path:
    """Write a radiograph node as PNG, upright as in the result folder."""
    upright = vtk.vtkImageFlip()
    upright.SetFilteredAxis(1)
    upright.SetInputData(radiograph.GetImageData())
    writer = vtk.vtkPNGWriter()
    writer.SetInputConnection(upright.GetOutputPort())
    writer.SetFileName(str(path))
    writer.Write()
    return Path(path)


class _Builder:
    def __init__(self, run: Run, result: Result, volume, smoothing: float):
        self.run, self.result, self.volume, self.smoothing = run, result, volume, smoothing
        self.report, self.scene = result.document, run.scene
        self.hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        item = self.hierarchy.GetItemByDataNode(volume)
        beside = self.hierarchy.GetItemParent(item) if item else self.hierarchy.GetSceneItemID()
        self.shelf = self.hierarchy.CreateFolderItem(beside, f"FemurSeg {run.number}: {volume.GetName()}")
        self.hierarchy.SetItemAttribute(self.shelf, RUN, str(run.number))

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
        self.add_table()
        report = self.add("vtkMRMLTextNode", "report", "FemurSeg report")
        report.SetText(json.dumps(self.report, indent=1))

    def add(self, class_name: str, part: str, name: str, **attributes):
        """A new node of this run, with its default display, under the run's folder."""
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
            self.hierarchy.SetItemParent(item, self.shelf)
        else:
            self.hierarchy.CreateItem(self.shelf, node)
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

    def add_table(self) -> None:
        node = self.add("vtkMRMLTableNode", "table", "Femur measurements")
        for name in TABLE_COLUMNS:
            column = vtk.vtkStringArray()
            column.SetName(name)
            node.AddColumn(column)
        for side in SIDES:
            row = node.AddEmptyRow()
            for column, text in enumerate(_table_row(side, self.report["femurs"][side])):
                node.SetCellText(row, column, text)
        node.SetUseColumnTitleAsColumnHeader(True)
        node.SetLocked(True)


def _table_row(side: str, femur: dict) -> tuple[str, ...]:
    if not femur["found"]:
        return DISPLAY_NAMES[side], "-", "-", "-", "not found"

    def number(value, form):
        return "-" if value is None else format(value, form)

    return (
        DISPLAY_NAMES[side],
        number(femur["volume_ml"], ".1f"),
        number(femur["length_mm"], ".1f"),
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


def _region_of(roi) -> dict:
    center, size = [0.0] * 3, [0.0] * 3
    roi.GetCenterWorld(center)
    roi.GetSizeWorld(size)
    axes = np.zeros((3, 3))
    for row, axis in enumerate((roi.GetXAxisWorld, roi.GetYAxisWorld, roi.GetZAxisWorld)):
        vector = [0.0] * 3
        axis(vector)
        axes[row] = vector
    return {"center_lps_mm": flip(center).tolist(), "size_mm": list(size), "axes_lps": flip(axes).tolist()}


def _colour(display, side: str) -> None:
    display.SetColor(*COLORS[side])
    display.SetSelectedColor(*COLORS[side])


def _all_nodes(scene) -> list:
    return list(scene.GetNodes())
