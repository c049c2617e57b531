"""The unmodified FemurSeg.py and FemurSeg.ui, clicked through as a user would."""

from __future__ import annotations

import sys
import time
import types
import unittest
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from leg_ct import add_ct

from FemurSegLib import models
from FemurSegLib.progress import STAGES
from FemurSegLib.scene import packages
from FemurSegLib.scene.export import open_edges
from FemurSegLib.scene.nodes import latest_run, runs
from FemurSegLib.scene.volume_file import write_ct
from FemurSegLib.sides import SIDES

ROOT = Path(__file__).parents[2]


def contents(scene):
    nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    return {node.GetID(): node.GetName() for node in nodes}


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Panel:
    """The opened panel with the fake engine behind it."""

    def __init__(self, application, monkeypatch):
        self.application, self._monkeypatch = application, monkeypatch
        self.widget = application.open("FemurSeg", ROOT / "FemurSeg" / "FemurSeg.py")
        self.ui = self.widget.ui
        self.events = []
        listen = self.widget.onEvent
        self.widget.onEvent = lambda event: (self.events.append(event), listen(event))
        self.widget.logic.command = lambda arguments: [
            sys.executable,
            str(ROOT / "Testing/slicer/fake_engine.py"),
            *map(str, arguments),
            "--progress",
            "json",
        ]
        monkeypatch.setattr(packages, "missing", lambda: [])

    def trouble(self, name):
        self._monkeypatch.setenv("FAKE_ENGINE", name)

    def click(self, button):
        self.application.click(getattr(self.ui, button + "Button"))

    def segment(self):
        self.click("segment")
        self.application.until(lambda: self.idle)

    def start_until_child(self, trouble):
        """Start an engine that stays in a stage; returns the ids of its processes."""
        self.trouble(trouble)
        self.click("segment")
        self.application.until(lambda: any(event["event"] == "child" for event in self.events))
        return [self.widget._segmenting._job.pid, *(e["pid"] for e in self.events if e["event"] == "child")]

    @property
    def idle(self):
        return self.widget._segmenting is None

    @property
    def message(self):
        return self.ui.messageLabel.text if self.ui.messageLabel.isVisible() else ""

    def assert_usable(self):
        assert self.ui.segmentButton.isEnabled() and not self.ui.progressArea.isVisible()
        assert list(Path(slicer.app.temporaryPath).iterdir()) == []


@pytest.fixture
def panel(application, monkeypatch):
    monkeypatch.delenv("FAKE_ENGINE", raising=False)
    add_ct()
    return Panel(application, monkeypatch)


def test_two_clicks_from_the_first_opening_to_the_result(panel, application, monkeypatch, pictures):
    asked, installed = [], []
    monkeypatch.setattr(packages, "missing", lambda: [] if installed else list(packages.TORCH))
    monkeypatch.setattr(packages, "install", installed.extend)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title: asked.append(text) or True)
    application.picture(pictures / "panel-before.png")
    panel.segment()  # the first click; the second is OK in the question
    assert "torch" in asked[0] and "760 MB" in asked[0]
    assert latest_run() is not None, panel.message
    assert len(latest_run().rois) == 2
    application.picture(pictures / "panel-after.png")


def test_the_result_is_all_there(panel):
    panel.segment()
    run = latest_run()
    assert [run.segmentation.GetSegmentation().GetSegment(side).GetName() for side in SIDES] == [
        "Right femur",
        "Left femur",
    ]
    assert len(run.rois) == 2 and len(run.radiographs) == 2 and len(run.boxes) == 4
    assert panel.ui.tableView.mrmlTableNode() is run.table
    assert panel.ui.warningsLabel.isVisible() and "left femur is cut" in panel.ui.warningsLabel.text
    assert not panel.ui.coronalPicture.pixmap.isNull()
    assert panel.message.startswith("Done in")
    composite = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    assert composite.GetBackgroundVolumeID() == run.volume.GetID()


def test_progress_is_told_in_words(panel, application, pictures):
    panel.start_until_child("slow-segment")
    assert panel.ui.stageLabel.text == "Segmenting the femora"
    assert 10 < panel.ui.progressBar.value < 90
    assert panel.ui.stopButton.isEnabled() and not panel.ui.segmentButton.isEnabled()
    application.picture(pictures / "panel-during.png")


def test_the_window_answers_while_the_engine_runs(panel, application):
    panel.start_until_child("slow-segment")
    longest, last = 0.0, time.monotonic()
    end = last + 1.0
    while time.monotonic() < end:
        application.qapplication.processEvents()
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    assert longest < 0.3


@pytest.mark.parametrize("stage", STAGES)
def test_stop_in_each_stage_leaves_nothing(panel, application, stage):
    before = contents(slicer.mrmlScene)
    pids = panel.start_until_child(f"slow-{stage}")
    panel.click("stop")
    application.until(lambda: panel.idle, 10)
    assert panel.message == "The run was stopped."
    assert not any(map(alive, pids))
    assert contents(slicer.mrmlScene) == before
    panel.assert_usable()


@pytest.mark.parametrize(
    "trouble,words",
    [
        ("crash", "The engine ended unexpectedly (signal 9)."),
        ("out_of_memory", "Neither the GPU nor the main memory suffices."),
        ("output", "no space is left on the disk"),
        ("no_femur", "No femur was found"),
    ],
)
def test_a_failure_is_one_sentence_and_the_panel_can_be_used_again(panel, application, pictures, trouble, words):
    panel.trouble(trouble)
    panel.segment()
    assert words in panel.message
    assert panel.ui.logButton.isVisible()
    panel.assert_usable()
    application.picture(pictures / f"panel-{trouble}.png")
    panel.trouble("")
    panel.segment()
    assert latest_run() is not None


def test_a_scene_closed_during_the_run_stays_empty(panel, application):
    pids = panel.start_until_child("slow-segment")
    slicer.mrmlScene.Clear(False)
    application.until(lambda: panel.idle, 10)
    assert "removed" in panel.message
    assert not any(map(alive, pids)) and not runs()
    panel.assert_usable()
    add_ct("another")
    panel.trouble("")
    panel.segment()
    assert latest_run().volume.GetName() == "another"


def test_a_ct_deleted_during_the_run_stops_it(panel, application):
    panel.start_until_child("slow-detect")
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("CT"))
    application.until(lambda: panel.idle, 10)
    assert panel.message == "The CT was removed from the scene, so the run was stopped."
    panel.assert_usable()


def test_a_second_click_starts_no_second_run(panel):
    panel.start_until_child("slow-read")
    first = panel.widget._segmenting
    panel.widget.onSegment()
    assert panel.widget._segmenting is first


def test_a_volume_that_is_no_ct_is_refused(panel):
    voxels = slicer.util.arrayFromVolume(slicer.util.getNode("CT"))
    slicer.util.updateVolumeFromArray(slicer.util.getNode("CT"), (voxels > 0).astype(np.uint8))
    panel.click("segment")
    assert "does not look like a CT" in panel.message
    panel.assert_usable()


def test_a_transform_that_bends_is_refused(panel):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    node.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
    slicer.util.getNode("CT").SetAndObserveTransformNodeID(node.GetID())
    panel.click("segment")
    assert "bends" in panel.message
    panel.assert_usable()


def test_a_label_map_is_not_taken_for_the_ct(application, monkeypatch):
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    ct = add_ct()
    assert Panel(application, monkeypatch).widget._parameterNode.ctVolume is ct


def test_without_a_ct_the_user_is_told_to_choose_one(panel):
    slicer.mrmlScene.Clear(False)
    panel.click("segment")
    assert "No CT volume is chosen" in panel.message
    panel.assert_usable()


def test_no_to_the_packages_shows_how_to_install_them_offline(panel, monkeypatch, application, pictures):
    monkeypatch.setattr(packages, "missing", lambda: list(packages.PACKAGES))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title: False)
    panel.click("segment")
    assert "pip download" in panel.message and "--no-index" in panel.message
    panel.assert_usable()
    application.picture(pictures / "panel-offline.png")


def test_a_failed_installation_shows_how_to_do_it_offline(panel, monkeypatch):
    def fail(*requirements):
        raise RuntimeError("no network")

    monkeypatch.setattr(packages, "missing", lambda: [packages.PACKAGES[2]])
    monkeypatch.setattr(packages, "_pip_install", fail)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title: True)
    panel.click("segment")
    assert "no network" in panel.message and "--no-index" in panel.message
    panel.assert_usable()


def test_a_dragged_box_is_segmented_again(panel, application):
    panel.segment()
    first = latest_run()
    assert not first.rois["left_femur"].GetDisplayNode().GetHandlesInteractive()
    panel.click("boxes")
    assert first.rois["left_femur"].GetDisplayNode().GetHandlesInteractive()
    roi = first.rois["left_femur"]
    roi.SetSize(*(np.array(roi.GetSize()) * (1, 1, 0.5)))
    panel.click("refine")
    application.until(lambda: panel.idle)
    second = latest_run()
    assert second != first and not first.segmentation.GetDisplayNode().GetVisibility()
    lengths = [run.report["femurs"]["left_femur"]["length_mm"] for run in (first, second)]
    assert lengths[1] == pytest.approx(lengths[0] / 2, rel=0.1)


def test_without_boxes_the_user_is_told_to_segment_again(panel):
    panel.segment()
    for roi in latest_run().rois.values():
        slicer.mrmlScene.RemoveNode(roi)
    panel.click("refine")
    assert "no box left" in panel.message
    panel.assert_usable()


def test_undo_takes_the_run_away(panel):
    before = contents(slicer.mrmlScene)
    panel.segment()
    panel.click("undo")
    assert contents(slicer.mrmlScene) == before
    assert not panel.ui.resultsCollapsibleButton.isVisible()


def test_correct_opens_the_segment_editor_on_the_result(panel, application):
    panel.segment()
    panel.click("correct")
    assert application.main_window.selected == "SegmentEditor"
    assert application.editor.segmentation is latest_run().segmentation
    assert application.editor.volume is latest_run().volume


def test_stl_files_are_closed_and_hold_the_volume_of_the_segments(panel, tmp_path):
    panel.segment()
    panel.ui.folderButton.directory = str(tmp_path / "stl")
    panel.ui.caseEdit.text = "Patient 1"
    panel.click("export")
    assert "Patient_1_right_femur.stl, Patient_1_left_femur.stl" in panel.message
    for side in SIDES:
        reader = vtk.vtkSTLReader()
        reader.SetFileName(str(tmp_path / "stl" / f"Patient_1_{side}.stl"))
        reader.Update()
        assert open_edges(reader.GetOutput()) == 0
        mass = vtk.vtkMassProperties()
        mass.SetInputData(reader.GetOutput())
        expected = latest_run().report["femurs"][side]["volume_ml"]
        assert mass.GetVolume() / 1000 == pytest.approx(expected, rel=0.02)


def test_another_format_is_a_choice_and_on_the_button(panel, tmp_path):
    panel.segment()
    assert panel.ui.exportButton.text == "Export STL"
    panel.ui.folderButton.directory = str(tmp_path / "files")
    panel.ui.formatBox.currentIndex = 2
    assert panel.ui.exportButton.text == "Export PLY"
    panel.click("export")
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == [
        "CT_left_femur.ply",
        "CT_right_femur.ply",
    ]


def test_a_training_case_is_saved(panel, tmp_path):
    panel.segment()
    panel.ui.folderButton.directory = str(tmp_path / "cases")
    panel.click("training")
    assert sorted(path.name for path in (tmp_path / "cases").iterdir()) == [
        "CT_CT.nii.gz",
        "CT_femurs.nii.gz",
    ]


def test_a_deleted_segmentation_is_noticed(panel):
    panel.segment()
    slicer.mrmlScene.RemoveNode(latest_run().segmentation)
    panel.widget.onExport()  # a click that was on its way already
    assert "no longer in the scene" in panel.message
    assert not panel.ui.resultsCollapsibleButton.isVisible()


def test_results_that_the_user_deletes_leave_the_panel_too(panel, application):
    panel.segment()
    slicer.mrmlScene.RemoveNode(latest_run().segmentation)
    application.qapplication.processEvents()
    assert not panel.ui.resultsCollapsibleButton.isVisible()
    panel.segment()
    assert panel.ui.resultsCollapsibleButton.isVisible()


def test_the_panel_shows_the_run_of_the_chosen_ct(panel):
    panel.segment()
    first = latest_run()
    other = add_ct("another")
    panel.ui.inputSelector.setCurrentNode(other)
    assert not panel.ui.resultsCollapsibleButton.isVisible() and panel.message == ""
    panel.segment()
    second = latest_run()
    assert second.volume is other and panel.ui.tableView.mrmlTableNode() is second.table
    panel.ui.inputSelector.setCurrentNode(first.volume)
    assert panel.ui.tableView.mrmlTableNode() is first.table
    panel.click("undo")
    assert runs() == [second] and not panel.ui.resultsCollapsibleButton.isVisible()
    panel.ui.inputSelector.setCurrentNode(other)
    assert panel.ui.tableView.mrmlTableNode() is second.table


def test_measurements_are_folded_away_and_follow_a_landmark(panel, application, pictures):
    panel.segment()
    run, view = latest_run(), panel.ui.anatomyView
    assert panel.ui.anatomyCollapsibleButton.isVisible() and panel.ui.anatomyCollapsibleButton.collapsed
    assert not any(node.GetDisplayNode().GetVisibility() for node in run.landmarks.values())
    panel.ui.anatomyCollapsibleButton.collapsed = False
    panel.click("landmarks")
    assert all(node.GetDisplayNode().GetVisibility() for node in (*run.landmarks.values(), *run.axes.values()))
    before = [view.item(row, 2).text() for row in range(view.rowCount)]
    node = run.landmarks["left_femur"]
    node.SetNthControlPointPositionWorld(0, *(np.array(node.GetNthControlPointPositionWorld(0)) + (6, 0, 0)))
    application.picture(pictures / "panel-measurements.png")
    after = [view.item(row, 2).text() for row in range(view.rowCount)]
    assert any(text.endswith("*") for text in after)
    panel.click("reset")
    assert [view.item(row, 2).text() for row in range(view.rowCount)] == before
    panel.click("landmarks")
    assert not any(node.GetDisplayNode().GetVisibility() for node in run.landmarks.values())


def test_the_cortex_is_shown_where_it_was_asked_for(panel, application, pictures):
    panel.segment()
    panel.ui.anatomyCollapsibleButton.collapsed = False
    assert not panel.ui.thicknessButton.enabled
    panel.ui.cortexBox.currentIndex = 2
    panel.segment()
    run, view = latest_run(), panel.ui.anatomyView
    told = {view.item(row, 0).text(): view.item(row, 1).text() for row in range(view.rowCount)}
    assert told["Cortex, cortical thickness"] == "3.0 mm"
    assert panel.ui.thicknessButton.enabled and not panel.ui.thicknessButton.checked
    panel.click("thickness")
    assert all(node.GetDisplayNode().GetVisibility() for node in run.thickness.values())
    application.picture(pictures / "panel-cortex.png")
    panel.click("thickness")
    assert run.segmentation.GetDisplayNode().GetVisibility3D()


def test_choices_reach_the_engine_and_are_saved_with_the_scene(panel, application, pictures):
    panel.ui.advancedCollapsibleButton.collapsed = False
    panel.ui.sidesBox.currentIndex = 2
    panel.ui.deviceBox.currentIndex = 3
    panel.ui.marginSlider.value = 12
    panel.ui.cortexBox.currentIndex = 1
    panel.ui.spreadSlider.value = 3
    application.picture(pictures / "panel-advanced.png")
    assert panel.widget.options().arguments() == [
        "--device",
        "cpu",
        "--network",
        "segresnet",
        "--side",
        "left",
        "--weights",
        "research",
        "--margin-mm",
        "12",
        "--compartments",
        "threshold",
        "--spread",
        "3",
    ]
    node = slicer.mrmlScene.GetSingletonNode("FemurSeg", "vtkMRMLScriptedModuleNode")
    assert node.GetParameter("sides") == "LEFT" and node.GetParameter("marginMm") == "12.0"


def test_the_weights_are_a_choice_where_there_are_two_sets_or_another_was_saved(panel, monkeypatch):
    sets, box, read = ["research"], panel.ui.weightsBox, []
    monkeypatch.setattr(models, "complete_sets", lambda: read.append(1) or sets)
    panel.ui.advancedCollapsibleButton.collapsed = False
    panel.widget.enter()
    assert not box.isVisible() and not panel.ui.weightsLabel.isVisible()
    sets.insert(0, "open")
    panel.widget.enter()
    assert box.isVisible() and panel.ui.weightsLabel.isVisible() and "Open" in box.itemText(0)
    box.currentIndex = 0
    assert panel.widget.options().weights == "open"
    assert len(read) == 2, "read again for a change of an option"
    del sets[0]
    panel.widget.enter()
    assert box.isVisible(), "nothing falls back to the other set unseen"


def test_the_log_is_one_click_away(panel, monkeypatch):
    import qt

    opened = []
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    panel.trouble("crash")
    panel.segment()
    panel.click("log")
    assert "a line that is no event" in Path(opened[0]).read_text()


def test_closing_the_application_ends_the_engine(panel):
    pids = panel.start_until_child("deaf")
    panel.widget.cleanup()
    assert not any(map(alive, pids))
    assert list(Path(slicer.app.temporaryPath).iterdir()) == []


def test_a_saved_scene_brings_its_result_and_its_choices_back(panel, application, tmp_path):
    panel.segment()
    panel.ui.sidesBox.currentIndex = 2
    slicer.mrmlScene.WriteToMRB(str(tmp_path / "case.mrb"))
    slicer.mrmlScene.Clear(False)
    assert not panel.ui.resultsCollapsibleButton.isVisible()
    panel.ui.sidesBox.currentIndex = 0
    slicer.mrmlScene.ReadFromMRB(str(tmp_path / "case.mrb"), True)
    application.qapplication.processEvents()
    run = latest_run()
    assert panel.ui.tableView.mrmlTableNode() is run.table and panel.ui.tableView.isVisible()
    assert panel.ui.inputSelector.currentNode() is slicer.util.getNode("CT") is run.volume
    assert panel.ui.sidesBox.currentIndex == 2
    panel.ui.sidesBox.currentIndex = 1
    node = slicer.mrmlScene.GetSingletonNode("FemurSeg", "vtkMRMLScriptedModuleNode")
    assert node.GetParameter("sides") == "RIGHT" and node.GetNodeReference("ctVolume") is run.volume
    panel.ui.folderButton.directory = str(tmp_path / "stl")
    panel.click("export")
    assert len(list((tmp_path / "stl").iterdir())) == 2
    panel.segment()
    assert latest_run().number == run.number + 1 and latest_run().volume is run.volume


def test_three_lines_of_a_users_script(application, monkeypatch):
    monkeypatch.delenv("FAKE_ENGINE", raising=False)
    module = application.load("FemurSeg", ROOT / "FemurSeg" / "FemurSeg.py")
    add_ct()
    monkeypatch.setattr(
        module.FemurSegLogic,
        "command",
        staticmethod(
            lambda arguments: [
                sys.executable,
                str(ROOT / "Testing/slicer/fake_engine.py"),
                *map(str, arguments),
            ]
        ),
    )

    from FemurSeg import FemurSegLogic

    run = FemurSegLogic().segment(slicer.util.getNode("CT"))
    assert run.report["femurs"]["left_femur"]["volume_ml"] == pytest.approx(12, rel=0.1)


@pytest.fixture
def sample(panel, tmp_path, monkeypatch):
    """Rods in the place of the sample CT."""
    path = write_ct(slicer.util.getNode("CT"), tmp_path / "sample_ct.nii.gz")
    monkeypatch.setattr(sys.modules["FemurSegPanel.selftest"], "SAMPLE_CT", path)


def test_the_modules_own_test_passes(panel, sample):
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(sys.modules["FemurSeg"].FemurSegTest).run(result)
    assert result.testsRun == 3 and result.wasSuccessful() and not result.skipped, result.failures
    sys.modules["FemurSeg"].FemurSegTest().runTest()


@pytest.mark.parametrize("trouble", ["crash", "no_femur"])
def test_the_modules_own_test_fails_when_the_engine_does(panel, sample, trouble):
    panel.trouble(trouble)
    with pytest.raises(AssertionError):
        sys.modules["FemurSeg"].FemurSegTest().runTest()


def test_the_sample_ct_is_offered_in_the_sample_data_module(panel, monkeypatch):
    offered = {}

    class SampleDataLogic:
        @staticmethod
        def registerCustomSampleDataSource(**source):
            offered.update(source)

    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=SampleDataLogic))
    for function in slicer.app.at_startup:
        function()
    assert offered["uris"].startswith("file://") and Path(offered["thumbnailFileName"]).is_file()


def test_every_widget_has_its_words(panel):
    for name, widget in vars(panel.ui).items():
        folding = name.endswith("CollapsibleButton")
        if name.endswith(("Button", "Box", "Slider", "Selector", "Edit", "View")) and not folding:
            assert widget.toolTip, f"{name} has no tooltip"
    assert "not a medical device" in panel.application.parent.helpText
    assert panel.application.parent.acknowledgementText


@pytest.mark.parametrize("bad", ["noSuchProperty", "txet"])
def test_the_stand_ins_fail_on_what_they_do_not_know(panel, bad):
    import ctk
    import qt

    with pytest.raises(AttributeError):
        setattr(panel.ui.segmentButton, bad, 1)
    with pytest.raises(ValueError):
        panel.ui.segmentButton.connect("noSuchSignal()", print)
    with pytest.raises(AttributeError):
        qt.QNoSuchThing  # noqa: B018
    with pytest.raises(AttributeError):
        ctk.ctkNoSuchThing  # noqa: B018
    with pytest.raises(AttributeError):
        slicer.app.noSuchThing  # noqa: B018
