"""FemurSeg in 3D Slicer: a click on "Segment femur" gives both femora of a CT as segments, boxes and STL.

In a script of your own:

    from FemurSeg import FemurSegLogic
    run = FemurSegLogic().segment(slicer.util.getNode("CT"))
    print(run.segmentation.GetName(), run.report["femurs"]["left_femur"]["volume_ml"])

This page is the shell: windows, buttons and words. The work is done in FemurSegLib.
"""

import contextlib
import enum
import logging
import os
import pathlib
import sys
import tempfile
import time
from typing import Annotated

import qt
import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if not pathlib.Path(__file__).with_name("FemurSegLib").is_dir():  # a checkout, not an installed extension
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import FemurSegLib
from FemurSegLib.errors import CancelledError, FemurSegError, InputError
from FemurSegLib.scene import packages
from FemurSegLib.scene.export import StlOptions, export_stl, save_training_case
from FemurSegLib.scene.nodes import VIEWS, latest_run, save_picture
from FemurSegLib.scene.process import engine_command
from FemurSegLib.scene.run import Options, Segmenting
from FemurSegLib.sides import LEFT, RIGHT

HERE = pathlib.Path(__file__).resolve().parent
RESOURCES = pathlib.Path(FemurSegLib.__file__).resolve().parents[1] / "Resources"
SAMPLE_CT = RESOURCES / "SampleData" / "sample_ct.nii.gz"
POLL_MS = 100
PICTURE_SIZE = (190, 230)


class FemurSeg(ScriptedLoadableModule):
    """What the application shows of the module before it is opened."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = _("FemurSeg")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "SegmentEditor", "Markups", "Tables"]
        parent.contributors = ["The FemurSeg contributors"]
        parent.helpText = _(
            "Segments both femora in a lower-limb CT: choose the CT and click <b>Segment femur</b>. "
            "The femora are found in two radiographs made from the CT, then segmented inside a 3D box each. "
            "Drag a box and segment inside it again, correct the segments in the Segment Editor, and export "
            "STL files for planning. For research; not a medical device."
        )
        parent.acknowledgementText = _(
            "After the two-stage femur network of Xie et al. (2025). Built on MONAI, PyTorch and SimpleITK. "
            "How the weights were made is told in the model cards."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer the sample CT, which comes with the extension, in the Sample Data module."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="FemurSeg",
        sampleName="FemurSegSample",
        thumbnailFileName=str(HERE / "Resources" / "Icons" / "FemurSeg.png"),
        uris=SAMPLE_CT.as_uri(),
        fileNames="FemurSegSample.nii.gz",
        nodeNames="FemurSegSample",
    )


class Device(enum.Enum):
    AUTO = "auto"
    CUDA = "cuda"
    MPS = "mps"
    CPU = "cpu"

    def label(self):
        return {"auto": _("Automatic"), "cuda": _("NVIDIA GPU"), "mps": _("Apple GPU"), "cpu": _("CPU")}[self.value]


class Sides(enum.Enum):
    BOTH = (RIGHT, LEFT)
    RIGHT = (RIGHT,)
    LEFT = (LEFT,)

    def label(self):
        return {"BOTH": _("Both"), "RIGHT": _("Right"), "LEFT": _("Left")}[self.name]


class Network(enum.Enum):
    SEGRESNET = "segresnet"

    def label(self):
        return {"segresnet": _("SegResNet")}[self.value]


class Space(enum.Enum):
    LPS = "LPS"
    RAS = "RAS"

    def label(self):
        return self.value


@parameterNodeWrapper
class FemurSegParameterNode:
    """What the user has chosen; saved with the scene. `marginMm` 0: what the network was trained with."""

    ctVolume: vtkMRMLScalarVolumeNode
    device: Device = Device.AUTO
    sides: Sides = Sides.BOTH
    network: Network = Network.SEGRESNET
    marginMm: Annotated[float, WithinRange(0, 50)] = 0.0
    smoothing: Annotated[float, WithinRange(0, 1)] = 0.5
    folder: pathlib.Path = pathlib.Path.home()
    caseName: str = ""
    space: Space = Space.LPS
    decimation: Annotated[float, WithinRange(0, 0.9)] = 0.0


class FemurSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel. Nothing here computes, and nothing blocks while the engine runs."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self._parameterNode = self._guiTag = None
        self._segmenting = self._log = None
        self._timer = qt.QTimer()

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.onTimer)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/FemurSeg.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = FemurSegLogic()
        for name in ("segment", "stop", "log", "boxes", "refine", "correct", "undo", "export", "training"):
            getattr(self.ui, f"{name}Button").connect("clicked(bool)", getattr(self, f"on{name.capitalize()}"))
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.initializeParameterNode()
        self.showMessage("")
        self.showRunning(False)
        self.showRun()

    def cleanup(self):
        self._timer.stop()
        if self._segmenting:
            self._segmenting.kill()
            self._segmenting = None
        self.removeObservers()
        self.setParameterNode(None)

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
        self._parameterNode = parameterNode
        if parameterNode:
            self._guiTag = parameterNode.connectGui(self.ui)

    def onSceneStartClose(self, caller, event):
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        self.initializeParameterNode()
        self.showMessage("")
        self.showRun()

    def onSceneEndImport(self, caller, event):
        self.initializeParameterNode()
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
            smoothing=p.smoothing,
            margin_mm=p.marginMm or None,
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
            self.showInViews(run.volume)
            self.showMessage(_("Done in {seconds} s.").format(seconds=round(time.monotonic() - self._started)))
        self.showRunning(False)
        self.showRun()

    def onStop(self, checked=False):
        if self._segmenting:
            self._segmenting.stop()
            self.ui.stageLabel.text = _("Stopping")
            self.ui.stopButton.enabled = False

    # What to do next

    def currentRun(self):
        """The newest run of the scene. Raises InputError if its segmentation or its CT was deleted."""
        run = latest_run()
        if run is None or run.segmentation is None or run.volume is None:
            self.showRun()
            raise InputError(_("The segmentation or its CT is no longer in the scene."), _("Segment the CT again."))
        return run

    def onBoxes(self, checked=False):
        run = latest_run()
        if run:
            run.edit_boxes(checked)

    def onCorrect(self, checked=False):
        with self.errorsShown():
            run = self.currentRun()
            slicer.util.selectModule("SegmentEditor")
            editor = slicer.util.getModuleWidget("SegmentEditor").editor
            editor.setSegmentationNode(run.segmentation)
            editor.setSourceVolumeNode(run.volume)

    def onUndo(self, checked=False):
        run = latest_run()
        if run:
            run.undo()
        self.showMessage("")
        self.showRun()

    def onExport(self, checked=False):
        p = self._parameterNode
        with self.errorsShown():
            options = StlOptions(smoothing=p.smoothing, decimation=p.decimation, space=p.space.value)
            self.showSaved(export_stl(self.currentRun(), p.folder, p.caseName, options))

    def onTraining(self, checked=False):
        p = self._parameterNode
        with self.errorsShown():
            self.showSaved(save_training_case(self.currentRun(), p.folder, p.caseName))

    def onLog(self, checked=False):
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._log)))

    # What is shown

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

    def showRun(self):
        """Show the newest run of the scene in the panel, or that there is none."""
        run = latest_run()
        there = run is not None and run.segmentation is not None
        self.ui.resultsCollapsibleButton.visible = self.ui.saveCollapsibleButton.visible = there
        self.ui.boxesButton.checked = there and any(
            r.GetDisplayNode().GetHandlesInteractive() for r in run.rois.values()
        )
        self.ui.tableView.setMRMLTableNode(run.table if there else None)
        warnings = [warning["message"] for warning in run.warnings] if there else []
        self.ui.warningsLabel.text = "\n".join(f"⚠ {message}" for message in warnings)
        self.ui.warningsLabel.visible = bool(warnings)
        self.ui.warningsLabel.styleSheet = "background: #fff3cd; color: #5c4400; padding: 6px; font-weight: bold;"
        for view in VIEWS:
            self.showPicture(getattr(self.ui, f"{view}Picture"), run.radiographs.get(view) if there else None)

    def showInViews(self, volumeNode):
        if not slicer.app.layoutManager():  # a Slicer without a main window
            return
        views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        if volumeNode.GetID() not in [view.GetBackgroundVolumeID() for view in views]:
            slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
        slicer.util.resetThreeDViews()

    def showPicture(self, label, radiograph):
        label.visible = radiograph is not None
        if radiograph is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = save_picture(radiograph, os.path.join(folder, "radiograph.png"))
                picture = qt.QPixmap(str(path))
                label.setPixmap(picture.scaled(*PICTURE_SIZE, qt.Qt.KeepAspectRatio, qt.Qt.SmoothTransformation))


class FemurSegLogic(ScriptedLoadableModuleLogic):
    """Segment a volume node: `segment` waits for the result, `start` does not."""

    command = staticmethod(engine_command)
    """Takes the engine's arguments, gives its command line."""

    def getParameterNode(self):
        return FemurSegParameterNode(super().getParameterNode())

    def segment(self, volumeNode, **options):
        """Segment, and return the `Run` with its nodes. `options`: see `Options`. Raises FemurSegError."""
        return self.start(volumeNode, Options(**options)).wait(slicer.app.processEvents)

    def start(self, volumeNode, options=None, regions=None, onEvent=lambda event: None):
        """Start the engine in its own process and return the `Segmenting`, to be polled."""
        settings = os.path.dirname(slicer.app.slicerUserSettingsFilePath)
        return Segmenting(
            volumeNode,
            options,
            regions=regions,
            on_event=onEvent,
            command=self.command,
            folder=slicer.app.temporaryPath,
            log_folder=os.path.join(settings, "FemurSeg-logs"),
        )


class FemurSegTest(ScriptedLoadableModuleTest):
    """For Slicer's "Reload and Test" and for ctest: the panel, clicked."""

    RUN_S = 1800

    def setUp(self):
        slicer.mrmlScene.Clear()
        self.panel = slicer.util.getModuleWidget("FemurSeg")
        self.panel.enter()

    def runTest(self):
        for test in (self.test_whatIsNoCtIsRefused, self.test_sampleIsSegmentedAndUndone):
            self.setUp()
            test()
        self.delayDisplay("Test passed")

    def test_whatIsNoCtIsRefused(self):
        with self.assertRaises(FemurSegError):
            self.panel.logic.start(None)
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
        with self.assertRaises(FemurSegError):
            self.panel.logic.start(empty)

    def test_sampleIsSegmentedAndUndone(self):
        if packages.missing():
            self.delayDisplay("FemurSeg's Python packages are not installed, so nothing was segmented.")
            self.skipTest("FemurSeg's Python packages are not installed.")
        ct = slicer.util.loadVolume(str(SAMPLE_CT))
        self.panel.initializeParameterNode()
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        self.panel.ui.segmentButton.click()
        end = time.monotonic() + self.RUN_S
        while self.panel.running and time.monotonic() < end:
            slicer.app.processEvents()
        run = latest_run()
        self.assertIsNotNone(run, self.panel.ui.messageLabel.text)
        self.assertIs(run.volume, ct)
        femurs = [femur for femur in run.report["femurs"].values() if femur["found"]]
        self.assertTrue(femurs)
        self.assertEqual(run.segmentation.GetSegmentation().GetNumberOfSegments(), len(femurs))
        self.assertEqual(run.table.GetNumberOfRows(), 2)
        self.assertEqual(set(run.radiographs), set(VIEWS))
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(len(export_stl(run, folder)), len(femurs))
        self.panel.ui.undoButton.click()
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)
