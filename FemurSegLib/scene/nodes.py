"""The nodes of a run in the scene, and how to take them away again.

    run = latest_run()
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

from FemurSegLib.scene import landmarks, thickness
from FemurSegLib.scene.geometry import flip

RUN, PART, VIEW, HIDDEN_BY = (f"FemurSeg.{name}" for name in ("Run", "Part", "View", "HiddenBy"))
SIDE = landmarks.SIDE
VIEWS = ("coronal", "axial")


@dataclass(frozen=True)
class Run:
    """One run in a scene. Its nodes are looked up each time: what the user has deleted is not there."""

    scene: object
    number: int

    @property
    def nodes(self) -> list:
        return [node for node in all_nodes(self.scene) if node.GetAttribute(RUN) == str(self.number)]

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
    def landmarks(self) -> dict:
        """{side: fiducials}, the landmarks of each femur that could be read."""
        return {node.GetAttribute(SIDE): node for node in self.parts(landmarks.LANDMARKS)}

    @property
    def axes(self) -> dict:
        """{(side, axis): line}, by the names in `landmarks.AXES`."""
        nodes = self.parts(landmarks.AXES_PART)
        return {(node.GetAttribute(SIDE), node.GetAttribute(landmarks.AXIS)): node for node in nodes}

    @property
    def anatomy_table(self):
        """The table of angles, lengths and volumes; `landmarks.Following` keeps it up to date."""
        return next(iter(self.parts(landmarks.TABLE)), None)

    @property
    def thickness(self) -> dict:
        """{side: model}, painted with the thickness of the cortex; {} where it was not asked for."""
        return {node.GetAttribute(SIDE): node for node in self.parts(thickness.PART)}

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

    def show_landmarks(self, on: bool) -> None:
        """Show or hide the landmarks and axes."""
        for node in (*self.landmarks.values(), *self.axes.values()):
            node.GetDisplayNode().SetVisibility(on)

    def show_thickness(self, on: bool) -> None:
        """Show the bones painted with the thickness of their cortex, or the segments again."""
        thickness.show(self, on)

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
        for node in all_nodes(self.scene):
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
    numbers = {int(node.GetAttribute(RUN)) for node in all_nodes(scene) if node.GetAttribute(RUN)}
    return [Run(scene, number) for number in sorted(numbers)]


def latest_run(scene=None) -> Run | None:
    return next(reversed(runs(scene)), None)


def run_of(volume, scene=None) -> Run | None:
    """The newest run made from the CT `volume`; with None the newest of all that still has its segmentation."""
    for run in reversed(runs(scene)):
        if run.segmentation is not None and volume in (None, run.volume):
            return run
    return None


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


def all_nodes(scene) -> list:
    return list(scene.GetNodes())
