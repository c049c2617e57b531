"""What a run found, shown in the panel and in the views."""

import os
import tempfile

import qt
import slicer

from FemurSegLib.scene.landmarks import Following, reasons
from FemurSegLib.scene.nodes import VIEWS, save_picture

PICTURE_SIZE = (190, 230)
WARNING_STYLE = "background: #fff3cd; color: #5c4400; padding: 6px; font-weight: bold;"


class Results:
    """The part of the panel that shows a run, or hides itself where there is none."""

    def __init__(self, ui):
        self.ui = ui
        self.following = None
        for view in (ui.tableView, ui.anatomyView):
            view.verticalHeader().hide()
            view.verticalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        ui.tableView.horizontalHeader().setSectionResizeMode(qt.QHeaderView.Stretch)
        ui.anatomyView.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)

    def stop(self):
        """Let go of the run's nodes."""
        if self.following:
            self.following.stop()
        self.following = None

    def show(self, run):
        """`run`: a `Run` whose segmentation is in the scene, or None."""
        self.stop()
        there = run is not None
        self.ui.resultsCollapsibleButton.visible = self.ui.saveCollapsibleButton.visible = there
        self.ui.boxesButton.checked = there and any(
            roi.GetDisplayNode().GetHandlesInteractive() for roi in run.rois.values()
        )
        self.ui.tableView.setMRMLTableNode(run.table if there else None)
        warnings = [warning["message"] for warning in run.warnings] if there else []
        self.ui.warningsLabel.text = "\n".join(f"⚠ {message}" for message in warnings)
        self.ui.warningsLabel.visible = bool(warnings)
        self.ui.warningsLabel.styleSheet = WARNING_STYLE
        for view in VIEWS:
            self._show_picture(getattr(self.ui, f"{view}Picture"), run.radiographs.get(view) if there else None)

        self._show_anatomy(run if there and run.anatomy_table is not None else None)

    def _show_anatomy(self, run):
        there = run is not None
        self.ui.anatomyCollapsibleButton.visible = there
        self.ui.anatomyView.setMRMLTableNode(run.anatomy_table if there else None)
        if there:
            self.ui.anatomyView.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
            self.following = Following(run)
            self.ui.anatomyLabel.text = "\n".join(reasons(run.report["femurs"]))
            self.ui.landmarksButton.checked = any(
                node.GetDisplayNode().GetVisibility() for node in run.landmarks.values()
            )
            painted = list(run.thickness.values())
            self.ui.thicknessButton.enabled = bool(painted)
            self.ui.thicknessButton.checked = any(node.GetDisplayNode().GetVisibility() for node in painted)

    def _show_picture(self, label, radiograph):
        label.visible = radiograph is not None
        if radiograph is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = save_picture(radiograph, os.path.join(folder, "radiograph.png"))
                picture = qt.QPixmap(str(path))
                label.setPixmap(picture.scaled(*PICTURE_SIZE, qt.Qt.KeepAspectRatio, qt.Qt.SmoothTransformation))


def show_in_views(volume):
    """Put the CT behind the segments, unless a view shows it already, and fit the 3D views."""
    if not slicer.app.layoutManager():  # a Slicer without a main window
        return
    views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    if volume.GetID() not in [view.GetBackgroundVolumeID() for view in views]:
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
    slicer.util.resetThreeDViews()
