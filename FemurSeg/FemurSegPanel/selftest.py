"""The module's own test, in a real Slicer: "Reload and Test" in developer mode, and ctest."""

import tempfile
import time

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

from FemurSegLib.errors import FemurSegError
from FemurSegLib.scene import packages
from FemurSegLib.scene.export import export_stl
from FemurSegLib.scene.nodes import VIEWS, latest_run

from .sample import SAMPLE_CT


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
