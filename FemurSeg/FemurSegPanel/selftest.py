"""The module's own test, in a real Slicer: "Reload and Test" in developer mode, and ctest."""

import tempfile
import time

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

from FemurSegLib.errors import FemurSegError
from FemurSegLib.scene import packages
from FemurSegLib.scene.export import export_surfaces
from FemurSegLib.scene.nodes import VIEWS, latest_run

from .sample import SAMPLE_CT


class FemurSegTest(ScriptedLoadableModuleTest):
    """The panel, clicked."""

    RUN_S = 1800

    def setUp(self):
        slicer.mrmlScene.Clear()
        self.panel = slicer.util.getModuleWidget("FemurSeg")
        self.panel.enter()

    def runTest(self):
        for test in (
            self.test_whatIsNoCtIsRefused,
            self.test_stopLeavesTheSceneAsItWas,
            self.test_sampleIsSegmentedAndUndone,
        ):
            self.setUp()
            test()
        self.delayDisplay("Test passed")

    def test_whatIsNoCtIsRefused(self):
        with self.assertRaises(FemurSegError):
            self.panel.logic.start(None)
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
        with self.assertRaises(FemurSegError):
            self.panel.logic.start(empty)

    def test_stopLeavesTheSceneAsItWas(self):
        self.loadSample()
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        self.panel.ui.segmentButton.click()
        self.assertTrue(self.panel.running, self.panel.ui.messageLabel.text)
        self.panel.ui.stopButton.click()
        self.waitUntilDone()
        self.assertIsNone(latest_run())
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)

    def test_sampleIsSegmentedAndUndone(self):
        ct = self.loadSample()
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        self.panel.ui.segmentButton.click()
        self.waitUntilDone()
        run = latest_run()
        self.assertIsNotNone(run, self.panel.ui.messageLabel.text)
        self.assertIs(run.volume, ct)
        femurs = [femur for femur in run.report["femurs"].values() if femur["found"]]
        self.assertTrue(femurs)
        self.assertEqual(run.segmentation.GetSegmentation().GetNumberOfSegments(), len(femurs))
        self.assertEqual(run.table.GetNumberOfRows(), 2)
        self.assertEqual(set(run.radiographs), set(VIEWS))
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(len(export_surfaces(run, folder)), len(femurs))
        self.panel.ui.undoButton.click()
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)

    def loadSample(self):
        if packages.missing():
            self.delayDisplay("FemurSeg's Python packages are not installed, so nothing was segmented.")
            self.skipTest("FemurSeg's Python packages are not installed.")
        ct = slicer.util.loadVolume(str(SAMPLE_CT))
        self.panel.initializeParameterNode()
        return ct

    def waitUntilDone(self):
        end = time.monotonic() + self.RUN_S
        while self.panel.running and time.monotonic() < end:
            slicer.app.processEvents()
        self.assertFalse(self.panel.running)
