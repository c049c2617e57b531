"""The panel."""

import contextlib
import logging
import time

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from FemurSegLib import models
from FemurSegLib.errors import CancelledError, FemurSegError, InputError
from FemurSegLib.scene import packages
from FemurSegLib.scene.export import SurfaceOptions, export_surfaces, save_training_case
from FemurSegLib.scene.nodes import run_of
from FemurSegLib.scene.run import Options

from .logic import FemurSegLogic
from .results import Results, show_in_views

POLL_MS = 100
BUTTONS = (
    *("segment", "stop", "log", "boxes", "refine", "correct", "undo"),
    *("landmarks", "reset", "thickness", "export", "training"),
)


class FemurSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel. Nothing here computes, and nothing blocks while the engine runs."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self._parameterNode = self._guiTag = None
        self._segmenting = self._log = self._run = None
        self._timer = qt.QTimer()
        self._refresh = qt.QTimer()

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.onTimer)
        self._refresh.setInterval(0)  # once, when all nodes that go together are gone
        self._refresh.setSingleShot(True)
        self._refresh.connect("timeout()", self.showRun)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/FemurSeg.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = FemurSegLogic()
        self.results = Results(self.ui)
        for name in BUTTONS:
            getattr(self.ui, f"{name}Button").connect("clicked(bool)", getattr(self, f"on{name.capitalize()}"))
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(scene, scene.NodeRemovedEvent, self.onNodeRemoved)
        self.initializeParameterNode()
        self.showMessage("")
        self.showRunning(False)
        self.showRun()

    def cleanup(self):
        self._timer.stop()
        self._refresh.stop()
        if self._segmenting:
            self._segmenting.kill()
            self._segmenting = None
        self.results.stop()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()
        self.showRun()

    def exit(self):
        if not self._segmenting:
            self.setParameterNode(None)

    # The scene

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.ctVolume:
            for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
                if node.GetClassName() == "vtkMRMLScalarVolumeNode":  # not a label map, not a colour picture
                    self._parameterNode.ctVolume = node
                    break

    def setParameterNode(self, parameterNode):
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(
                self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified
            )
        self._parameterNode = parameterNode
        if parameterNode:
            self._guiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
            self.showFormat()
            self.readWeights()
            self.showWeights()

    def onSceneStartClose(self, caller, event):
        self.results.stop()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        self.initializeParameterNode()
        self.showMessage("")
        self.showRun()

    def onSceneEndImport(self, caller, event):
        self.initializeParameterNode()
        self.showRun()

    def onNodeRemoved(self, caller, event):
        if self._run is not None and not slicer.mrmlScene.IsClosing():
            self._refresh.start()

    def onParametersModified(self, caller, event):
        self.showFormat()
        self.showWeights()
        if self.runToShow() != self._run:  # another CT was chosen
            self.showMessage("")
            self.showRun()

    # A run

    def onSegment(self, checked=False):
        self.start(self._parameterNode.ctVolume)

    def onRefine(self, checked=False):
        with self.errorsShown():
            run = self.currentRun()
            self.start(run.volume, run.regions())

    @property
    def running(self):
        return self._segmenting is not None

    def start(self, volumeNode, regions=None):
        if self.running:
            return
        with self.errorsShown():
            if not self.packagesInstalled():
                return
            self.showMessage("")
            self.showRunning(True)
            self._started = time.monotonic()
            slicer.app.processEvents()  # the file for the engine takes a second for a large CT
            self._segmenting = self.logic.start(volumeNode, self.options(), regions, self.onEvent)
            self._log = self._segmenting.log
            self._timer.start()
        self.showRunning(self.running)

    def options(self):
        p = self._parameterNode
        return Options(
            device=p.device.value,
            sides=p.sides.value,
            network=p.network.value,
            weights=p.weights.value,
            smoothing=p.smoothing,
            margin_mm=p.marginMm or None,
            compartments=p.cortex.value,
            spread=round(p.spread),
        )

    def packagesInstalled(self):
        """Whether the engine can run; asks before anything is installed."""
        missing = packages.missing()
        if not missing:
            return True
        if not slicer.util.confirmOkCancelDisplay(packages.question(missing), _("FemurSeg: Python packages")):
            self.showMessage(
                _("The Python packages were not installed.") + "\n" + packages.offline_instructions(missing)
            )
            return False
        self.showMessage(_("Installing Python packages. This takes some minutes."))
        slicer.app.processEvents()
        packages.install(missing)
        return True

    def onEvent(self, event):
        if event["event"] == "progress":
            self.ui.stageLabel.text = event["message"]
            self.ui.progressBar.value = max(self.ui.progressBar.value, round(100 * event["fraction"]))

    def onTimer(self):
        if self._segmenting is None or self._segmenting.poll():
            return
        self._timer.stop()
        segmenting, self._segmenting = self._segmenting, None
        self.ui.stageLabel.text = _("Showing the result")
        with self.errorsShown():
            run = segmenting.finish()
            self._parameterNode.ctVolume = run.volume  # another may have been chosen in a script meanwhile
            show_in_views(run.volume)
            self.showMessage(_("Done in {seconds} s.").format(seconds=round(time.monotonic() - self._started)))
        self.showRunning(False)
        self.showRun()

    def onStop(self, checked=False):
        if self._segmenting:
            self._segmenting.stop()
            self.ui.stageLabel.text = _("Stopping")
            self.ui.stopButton.enabled = False

    # What to do next

    def runToShow(self):
        """The newest run of the chosen CT, or None; without a CT the newest of all that still has segments."""
        run = run_of(self._parameterNode.ctVolume if self._parameterNode else None)
        return run if run is not None and run.segmentation is not None else None

    def currentRun(self):
        """The run to go on with. Raises InputError if its segmentation or its CT was deleted."""
        run = self.runToShow()
        if run is None or run.volume is None:
            self.showRun()
            raise InputError(_("The segmentation or its CT is no longer in the scene."), _("Segment the CT again."))
        return run

    def onBoxes(self, checked=False):
        run = self.runToShow()
        if run:
            run.edit_boxes(checked)

    def onLandmarks(self, checked=False):
        run = self.runToShow()
        if run:
            run.show_landmarks(checked)

    def onReset(self, checked=False):
        if self.results.following:
            self.results.following.reset()

    def onThickness(self, checked=False):
        run = self.runToShow()
        if run:
            run.show_thickness(checked)

    def onCorrect(self, checked=False):
        with self.errorsShown():
            run = self.currentRun()
            slicer.util.selectModule("SegmentEditor")
            editor = slicer.util.getModuleWidget("SegmentEditor").editor
            editor.setSegmentationNode(run.segmentation)
            editor.setSourceVolumeNode(run.volume)

    def onUndo(self, checked=False):
        run = self.runToShow()
        if run:
            run.undo()
        self.showMessage("")
        self.showRun()

    def onExport(self, checked=False):
        p = self._parameterNode
        with self.errorsShown():
            options = SurfaceOptions(p.smoothing, p.decimation, p.space.value, p.format.value)
            self.showSaved(export_surfaces(self.currentRun(), p.folder, p.caseName, options))

    def onTraining(self, checked=False):
        p = self._parameterNode
        with self.errorsShown():
            self.showSaved(save_training_case(self.currentRun(), p.folder, p.caseName))

    def onLog(self, checked=False):
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._log)))

    # What is shown

    def showRun(self):
        self._run = self.runToShow()
        self.results.show(self._run)

    def showFormat(self):
        self.ui.exportButton.text = _("Export {format}").format(format=self._parameterNode.format.name)

    def readWeights(self):
        """Which sets there are: a file, read when the module is entered and not at every change of an option."""
        sets = []
        with contextlib.suppress(FemurSegError):  # without weights: the engine says so
            sets = models.complete_sets()
        self._sets = set(sets or [models.DEFAULT_SET])

    def showWeights(self):
        """A choice, unless all there is was chosen already."""
        for widget in (self.ui.weightsLabel, self.ui.weightsBox):
            widget.visible = {self._parameterNode.weights.value} != self._sets

    def showSaved(self, paths):
        names = ", ".join(path.name for path in paths)
        self.showMessage(_("Saved {names} in {folder}.").format(names=names, folder=paths[0].parent))

    def showMessage(self, text, error=False):
        self.ui.messageLabel.text = text
        self.ui.messageLabel.styleSheet = "color: #b00020;" if error else ""
        self.ui.messageArea.visible = bool(text)
        self.ui.logButton.visible = self._log is not None

    @contextlib.contextmanager
    def errorsShown(self):
        """Turn what goes wrong into one sentence in the panel."""
        try:
            yield
        except CancelledError as error:
            self.showMessage(str(error))
        except FemurSegError as error:
            self.showMessage(f"{error}\n{error.hint}".strip(), error=True)
        except Exception as error:
            logging.exception("FemurSeg")
            self.showMessage(_("Something unexpected went wrong: {error}.").format(error=error), error=True)

    def showRunning(self, running):
        self.ui.progressArea.visible = running
        self.ui.stopButton.enabled = running
        self.ui.progressBar.value = 0
        self.ui.stageLabel.text = _("Preparing the CT") if running else ""
        for widget in (
            self.ui.inputArea,
            self.ui.segmentButton,
            self.ui.actionArea,
            self.ui.advancedCollapsibleButton,
        ):
            widget.enabled = not running
