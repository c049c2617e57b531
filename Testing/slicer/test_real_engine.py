"""The panel with the real engine behind it, in its own process as in the application."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import pytest
import slicer
import vtk
from leg_ct import add_ct

from FemurSegLib.scene.export import open_edges
from FemurSegLib.scene.nodes import latest_run
from FemurSegLib.sides import SIDES

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "Resources" / "SampleData" / "sample_ct.nii.gz"
MODELS = ROOT / "Resources" / "Models" / "models.json"


def test_the_real_engine_without_weights_says_so_in_the_panel(application, tmp_path, monkeypatch):
    """Command line, events and errors of the real engine; only the weights are hidden from it."""
    monkeypatch.setenv("FEMURSEG_MODELS", str(tmp_path / "nothing"))
    add_ct()
    panel = application.open("FemurSeg", ROOT / "FemurSeg" / "FemurSeg.py")
    events = []
    monkeypatch.setattr(panel, "onEvent", events.append)
    application.click(panel.ui.segmentButton)
    application.until(lambda: not panel.running, 120)
    assert [event["stage"] for event in events if event["event"] == "progress"][0] == "read"
    assert [event["code"] for event in events if event["event"] == "error"] == ["model"]
    assert panel.ui.messageLabel.text.startswith(events[-1]["message"])
    assert panel.ui.segmentButton.isEnabled()


def test_stop_ends_the_real_engine_and_leaves_nothing(application, tmp_path, monkeypatch):
    monkeypatch.setenv("FEMURSEG_MODELS", str(tmp_path / "nothing"))
    add_ct()
    panel = application.open("FemurSeg", ROOT / "FemurSeg" / "FemurSeg.py")
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    events = []
    monkeypatch.setattr(panel, "onEvent", events.append)
    application.click(panel.ui.segmentButton)
    process = panel._segmenting._job._process
    application.until(lambda: events, 60)
    application.click(panel.ui.stopButton)
    application.until(lambda: not panel.running, 30)
    assert process.poll() is not None
    assert panel.ui.messageLabel.text == "The run was stopped."
    assert list(Path(slicer.app.temporaryPath).iterdir()) == []
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes


@pytest.fixture
def segmented(application):
    if not SAMPLE.exists():
        pytest.skip(f"{SAMPLE} is not there")
    if not MODELS.exists() or not json.loads(MODELS.read_text()):
        pytest.skip("there are no trained weights in Resources/Models")
    application.load_volume(SAMPLE)
    panel = application.open("FemurSeg", ROOT / "FemurSeg" / "FemurSeg.py")
    application.click(panel.ui.segmentButton)
    application.until(lambda: not panel.running, 1800)
    assert latest_run() is not None, panel.ui.messageLabel.text
    return panel


def test_one_click_on_the_sample_gives_everything(segmented, application, pictures):
    run = latest_run()
    application.picture(pictures / "panel-sample.png")
    assert run.segmentation.GetSegmentation().GetSegmentIDs() == SIDES
    assert len(run.rois) == 2 and len(run.radiographs) == 2 and run.table.GetNumberOfRows() == 2
    with tempfile.TemporaryDirectory() as folder:
        segmented.ui.folderButton.directory = folder
        application.click(segmented.ui.exportButton)
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
    application.click(segmented.ui.undoButton)
    assert latest_run() is None


def test_the_box_of_the_sample_is_segmented_again(segmented, application):
    first = latest_run()
    application.click(segmented.ui.refineButton)
    application.until(lambda: not segmented.running, 1800)
    second = latest_run()
    assert second != first, segmented.ui.messageLabel.text
    for side in SIDES:
        volumes = [run.report["femurs"][side]["volume_ml"] for run in (first, second)]
        assert volumes[1] == pytest.approx(volumes[0], rel=0.05)
