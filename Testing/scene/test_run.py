"""A run from volume node to nodes, with an engine that fails in every way a test can arrange."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from FemurSegLib import command, result
from FemurSegLib.command import SIDE_CHOICES
from FemurSegLib.errors import (
    CancelledError,
    FemurSegError,
    InputError,
    MemoryExhaustedError,
    ModelError,
    NoFemurError,
    OutputError,
)
from FemurSegLib.progress import STAGES
from FemurSegLib.scene import process
from FemurSegLib.scene import run as run_page
from FemurSegLib.scene.nodes import runs
from FemurSegLib.scene.process import EngineCrashedError, EngineJob, engine_command
from FemurSegLib.scene.run import KEPT_LOGS, Options, Segmenting, new_log

FAKE = Path(__file__).parents[1] / "slicer" / "fake_engine.py"


def fake_engine(arguments):
    return [sys.executable, str(FAKE), *map(str, arguments), "--progress", "json"]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def segment(scene, ct, tmp_path, monkeypatch):
    """A function that starts a run with trouble; what it leaves behind is in `segment.folder`."""
    folder, elsewhere = tmp_path / "temporary", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))  # the fake engine leaves a folder in what it thinks is temporary

    def start(trouble="", **options):
        monkeypatch.setenv("FAKE_ENGINE", trouble)
        start.events = []
        return Segmenting(
            ct,
            command=fake_engine,
            folder=folder,
            log_folder=tmp_path / "logs",
            on_event=start.events.append,
            **options,
        )

    start.folder = folder
    yield start
    assert list(folder.iterdir()) == list(elsewhere.iterdir()) == []


def until(condition, segmenting, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        segmenting.poll()
        time.sleep(0.02)


def test_a_run_ends_with_its_nodes(segment, scene, ct):
    run = segment().wait()
    assert run.volume is ct
    assert len(run.rois) == 2
    progress = [event for event in segment.events if event["event"] == "progress"]
    assert [event["stage"] for event in progress] == list(STAGES)
    assert segment.events[-1]["event"] == "result"


def test_the_fake_engine_keeps_to_the_schema(result_of, ct):
    result.validate(result.read_result(result_of(ct)).document)


def test_the_log_holds_command_output_and_end(segment):
    segmenting = segment()
    segmenting.wait()
    log = segmenting.log.read_text()
    assert str(FAKE) in log and "a line that is no event" in log and "ended with 0" in log


@pytest.mark.parametrize("stage", STAGES)
def test_stop_in_each_stage_leaves_no_process_no_file_and_the_scene_as_before(segment, scene, stage):
    nodes = scene.GetNumberOfNodes()
    segmenting = segment(f"slow-{stage}")
    until(lambda: any(event["event"] == "child" for event in segment.events), segmenting)
    pids = [segmenting._job.pid, *(event["pid"] for event in segment.events if event["event"] == "child")]
    assert all(map(alive, pids))
    segmenting.stop()
    until(lambda: not segmenting.poll(), segmenting, process.GRACE_S)
    with pytest.raises(CancelledError):
        segmenting.finish()
    assert not any(map(alive, pids))
    assert scene.GetNumberOfNodes() == nodes


def test_an_engine_that_does_not_listen_is_killed(segment, monkeypatch):
    monkeypatch.setattr(process, "GRACE_S", 0.5)
    segmenting = segment("deaf")
    until(lambda: any(event["event"] == "child" for event in segment.events), segmenting)
    pids = [segmenting._job.pid, *(event["pid"] for event in segment.events if event["event"] == "child")]
    segmenting.stop()
    until(lambda: not segmenting.poll(), segmenting, 5)
    with pytest.raises(CancelledError):
        segmenting.finish()
    assert not any(map(alive, pids))


def test_closing_the_application_ends_it_at_once(segment):
    segmenting = segment("deaf")
    until(lambda: any(event["event"] == "child" for event in segment.events), segmenting)
    pids = [segmenting._job.pid, *(event["pid"] for event in segment.events if event["event"] == "child")]
    segmenting.kill()
    assert not any(map(alive, pids))


@pytest.mark.parametrize(
    "trouble,kind,words",
    [
        ("crash", EngineCrashedError, "signal 9"),
        ("traceback", EngineCrashedError, "exit code 1"),
        ("out_of_memory", MemoryExhaustedError, "memory"),
        ("no_femur", NoFemurError, "No femur"),
        ("output", OutputError, "disk"),
    ],
)
def test_each_failure_is_one_sentence_with_a_hint(segment, scene, trouble, kind, words):
    nodes = scene.GetNumberOfNodes()
    with pytest.raises(kind, match=words) as caught:
        segment(trouble).wait()
    assert caught.value.hint
    assert scene.GetNumberOfNodes() == nodes


def test_a_ct_that_is_deleted_during_the_run_stops_it(segment, scene, ct):
    segmenting = segment("slow-segment")
    until(lambda: any(event["event"] == "child" for event in segment.events), segmenting)
    scene.RemoveNode(ct)
    with pytest.raises(CancelledError, match="removed"):
        segmenting.wait()


def test_a_scene_that_is_closed_during_the_run_stops_it_and_stays_empty(segment, scene, ct):
    segmenting = segment("slow-segment")
    until(lambda: any(event["event"] == "child" for event in segment.events), segmenting)
    scene.Clear(False)
    nodes = scene.GetNumberOfNodes()
    with pytest.raises(CancelledError, match="removed"):
        segmenting.wait()
    assert scene.GetNumberOfNodes() == nodes and not runs(scene)


def test_boxes_go_to_the_second_stage(segment, scene):
    run = segment().wait()
    regions = run.regions()
    del regions["right_femur"]
    again = segment(regions=regions).wait()
    assert again.segmentation.GetSegmentation().GetSegmentIDs() == ("left_femur",)


def test_a_full_disk_before_the_engine_starts_leaves_nothing(segment, monkeypatch):
    def full(volume, path):
        path.write_text("the first bytes")
        raise OutputError("The CT could not be written.")

    monkeypatch.setattr(run_page, "write_ct", full)
    with pytest.raises(OutputError):
        segment()


def test_an_engine_that_cannot_be_started_is_said_to_be_so(ct, tmp_path):
    with pytest.raises(EngineCrashedError, match="could not be started"):
        Segmenting(ct, command=lambda arguments: ["/no/such/python"], folder=tmp_path, log_folder=tmp_path / "logs")
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_options_become_arguments():
    assert Options().arguments() == ["--device", "auto", "--network", "segresnet"]
    assert Options(sides=("left_femur",), margin_mm=12.5).arguments()[-4:] == [
        "--side",
        "left",
        "--margin-mm",
        "12.5",
    ]
    assert Options(compartments="network", spread=3).arguments()[-4:] == [
        "--compartments",
        "network",
        "--spread",
        "3",
    ]
    with pytest.raises(InputError):
        Options(sides=())


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(device="cpu", sides=("right_femur",)),
        Options(device="cuda"),
        Options(device="mps"),
        Options(margin_mm=5),
        Options(weights="open"),
        Options(compartments="threshold", spread=2),
    ],
)
def test_the_real_command_takes_every_option(options):
    arguments = ["segment", "ct.nrrd", "--out", "out", *options.arguments(), "--region", "r.json"]
    parsed = command._parser().parse_args([*arguments, "--progress", "json"])
    assert SIDE_CHOICES[parsed.side] == options.sides and parsed.device == options.device


def test_errors_of_the_engine_keep_their_kind():
    for kind in (InputError, NoFemurError, OutputError, ModelError, MemoryExhaustedError, CancelledError):
        assert process.ERRORS[kind.code] is kind
    assert FemurSegError.code not in process.ERRORS


def test_only_the_last_logs_are_kept(tmp_path):
    for number in range(KEPT_LOGS + 5):
        (tmp_path / f"2020{number:02}.log").write_text("")
    new_log(tmp_path).write_text("")
    assert len(list(tmp_path.iterdir())) == KEPT_LOGS


def test_output_that_is_not_utf8_does_not_stop_the_reading(tmp_path):
    code = r"""
import sys
sys.stdout.buffer.write(b'\xff\xfe broken\n')
print('{"event": "result", "folder": "x"}')
"""
    job = EngineJob([sys.executable, "-c", code], tmp_path / "log")
    while job.poll():
        time.sleep(0.01)
    assert job.result() == Path("x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is a Linux device")
def test_a_log_on_a_full_disk_does_not_end_the_run(tmp_path):
    (tmp_path / "log").symlink_to("/dev/full")
    job = EngineJob([sys.executable, "-c", 'print(\'{"event": "result", "folder": "x"}\')'], tmp_path / "log")
    while job.poll():
        time.sleep(0.01)
    assert job.result() == Path("x")


def test_the_command_runs_this_library():
    command = engine_command(["segment", Path("a b.nrrd")])
    assert command[1:] == ["-m", "FemurSegLib", "segment", "a b.nrrd", "--progress", "json"]
    assert os.path.isabs(command[0])
    json.dumps(command)
