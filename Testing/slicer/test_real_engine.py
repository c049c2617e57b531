"""The panel with the real engine behind it, in its own process as in the application."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path

import pytest
import slicer
import vtk
from leg_ct import add_ct

from FemurSegLib.progress import STAGES
from FemurSegLib.scene.export import open_edges
from FemurSegLib.scene.nodes import latest_run
from FemurSegLib.scene.process import _tree
from FemurSegLib.sides import SIDES

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "Resources" / "SampleData" / "sample_ct.nii.gz"
MODELS = ROOT / "Resources" / "Models" / "models.json"
TOLD = tuple(stage for stage in STAGES if stage != "clean")
"""The engine cleans a mask within `segment`, in hundredths of a second, and tells of no stage of its own."""
STOPPED_IN = TOLD if os.environ.get("FEMURSEG_EVERY_STAGE") else ("read", "segment", "write")
"""Every stage takes minutes; Testing/slicer/test_panel.py stops in each with an engine that is quick."""


def contents():
    nodes = [slicer.mrmlScene.GetNthNode(n) for n in range(slicer.mrmlScene.GetNumberOfNodes())]
    return {node.GetID(): node.GetName() for node in nodes}


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_the_real_engine_without_weights_says_so_in_the_panel(application, tmp_path, monkeypatch):
    """Command line, events and errors of the real engine; only the weights are hidden from it."""
    monkeypatch.setenv("FEMURSEG_MODELS", str(tmp_path / "nothing"))
    add_ct()
    panel = application.open("FemurSeg", ROOT / "FemurSeg" / "FemurSeg.py")
    events = []
    monkeypatch.setattr(panel, "onEvent", events.append)
    application.click(panel.ui.segmentButton)
    application.until(lambda: not panel.running, 120)
    assert not [event for event in events if event["event"] == "progress"], "it is told before any work"
    assert [event["code"] for event in events if event["event"] == "error"] == ["model"]
    assert panel.ui.messageLabel.text.startswith(events[-1]["message"])
    assert panel.ui.segmentButton.isEnabled()


def skip_without_sample_and_weights():
    if not SAMPLE.exists():
        pytest.skip(f"{SAMPLE} is not there")
    if not MODELS.exists() or not json.loads(MODELS.read_text()):
        pytest.skip("there are no trained weights in Resources/Models")


@pytest.mark.parametrize("stage", STOPPED_IN)
def test_stop_in_a_stage_of_the_real_engine_leaves_nothing(application, tmp_path, monkeypatch, stage):
    skip_without_sample_and_weights()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    application.load_volume(SAMPLE)
    panel = application.open("FemurSeg", ROOT / "FemurSeg" / "FemurSeg.py")
    before, seen = contents(), []
    listen = panel.onEvent
    monkeypatch.setattr(panel, "onEvent", lambda event: (seen.append(event.get("stage")), listen(event)))
    application.click(panel.ui.segmentButton)
    root = panel._segmenting._job.pid
    application.until(lambda: stage in seen or not panel.running, 600)
    assert panel.running, panel.ui.messageLabel.text
    pids = _tree(root)
    application.click(panel.ui.stopButton)
    application.until(lambda: not panel.running, 60)
    assert panel.ui.messageLabel.text == "The run was stopped."
    assert all(map(gone, pids))
    assert list(Path(slicer.app.temporaryPath).iterdir()) == [] and list(temporary.iterdir()) == []
    assert contents() == before
    assert panel.ui.segmentButton.isEnabled() and not panel.ui.progressArea.isVisible()


@pytest.fixture(scope="module")
def application_with_result(tmp_path_factory):
    """A started application in which "Segment femur" was clicked on the sample CT; and its panel."""
    skip_without_sample_and_weights()
    from harness.application import Application

    with Application(tmp_path_factory.mktemp("slicer")) as application:
        application.load_volume(SAMPLE)
        panel = application.open("FemurSeg", ROOT / "FemurSeg" / "FemurSeg.py")
        application.click(panel.ui.segmentButton)
        application.until(lambda: not panel.running, 1800)
        assert latest_run() is not None, panel.ui.messageLabel.text
        yield application, panel


def test_one_click_on_the_sample_gives_everything(application_with_result, pictures):
    application, panel = application_with_result
    run = latest_run()
    application.picture(pictures / "panel-sample.png")
    assert run.segmentation.GetSegmentation().GetSegmentIDs() == SIDES
    assert len(run.rois) == 2 and len(run.radiographs) == 2 and run.table.GetNumberOfRows() == 2
    with tempfile.TemporaryDirectory() as folder:
        panel.ui.folderButton.directory = folder
        application.click(panel.ui.exportButton)
        for side in SIDES:
            reader, mass = vtk.vtkSTLReader(), vtk.vtkMassProperties()
            (path,) = Path(folder).glob(f"*_{side}.stl")
            reader.SetFileName(str(path))
            mass.SetInputConnection(reader.GetOutputPort())
            mass.Update()
            voxels = slicer.util.arrayFromSegmentBinaryLabelmap(run.segmentation, side, run.volume)
            volume_mm3 = (voxels > 0).sum() * math.prod(run.volume.GetSpacing())
            assert open_edges(reader.GetOutput()) == 0
            assert mass.GetVolume() == pytest.approx(volume_mm3, rel=0.02)


def test_the_box_of_the_sample_is_segmented_again_and_undone(application_with_result):
    application, panel = application_with_result
    first = latest_run()
    application.click(panel.ui.refineButton)
    application.until(lambda: not panel.running, 1800)
    second = latest_run()
    assert second != first, panel.ui.messageLabel.text
    for side in SIDES:
        volumes = [run.report["femurs"][side]["volume_ml"] for run in (first, second)]
        assert volumes[1] == pytest.approx(volumes[0], rel=0.05)
    application.click(panel.ui.undoButton)
    assert latest_run() == first
    application.click(panel.ui.undoButton)
    assert latest_run() is None
