"""The command line: what it prints, what it returns, and that it can be stopped."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
from examples import segmented, two_femora

import FemurSegLib
from FemurSegLib import command, errors, progress, result, sides
from FemurSegLib.findings import Finding
from FemurSegLib.volume import write_volume

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    path = tmp_path_factory.mktemp("ct") / "leg.nii.gz"
    write_volume(path, two_femora()[0])
    return path


@pytest.fixture
def pipeline(monkeypatch):
    """A pipeline that knows the answer, in the place of the real one; records how it was called."""
    fake = types.ModuleType("FemurSegLib.pipeline")
    fake.calls = []

    def segment_femurs(volume, *, device, sides, network, progress):
        fake.calls.append({"device": device, "sides": sides, "network": network})
        for stage in ("radiographs", "detect", "segment", "clean", "surfaces", "anatomy"):
            progress({"event": "progress", "stage": stage, "fraction": 0.5, "message": f"now {stage}"})
        progress({"event": "warning", "code": "example", "message": "This is an example.", "side": None})
        return segmented(volume, two_femora()[1])

    fake.segment_femurs = segment_femurs
    monkeypatch.setitem(sys.modules, "FemurSegLib.pipeline", fake)
    monkeypatch.setattr(FemurSegLib, "pipeline", fake, raising=False)
    monkeypatch.setattr(command.models, "of_run", lambda *needed: {})
    return fake


def run(*arguments) -> int:
    return command.main([str(argument) for argument in arguments])


def test_the_spread_that_is_asked_for_reaches_the_pipeline(pipeline, ct, tmp_path, monkeypatch):
    def segment_femurs(volume, *, perturbations=0, **others):
        pipeline.calls.append(perturbations)
        return segmented(volume, two_femora()[1])

    monkeypatch.setattr(pipeline, "segment_femurs", segment_femurs)
    assert run("segment", ct, "--out", tmp_path / "out", "--spread", 3) == 0
    assert run("segment", ct, "--out", tmp_path / "out") == 0
    assert pipeline.calls == [3, 0]


# Help


def test_help_answers_at_once_and_loads_nothing_heavy():
    code = (
        "import sys; from FemurSegLib.command import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'torch', 'vtkmodules', 'SimpleITK'}\n"
        "print(heavy & set(sys.modules) or 'none', file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr.strip() == "none"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3  # s, of the processor


def test_help_and_readme_list_every_exit_code(capsys):
    with pytest.raises(SystemExit):
        command.main(["segment", "--help"])
    shown = capsys.readouterr().out
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(errors.kinds()) == 6
    for line in command.exit_codes().splitlines():
        number, words = line.split(maxsplit=1)
        assert line in shown
        assert f"| {number} | {words} |" in readme


@pytest.mark.parametrize(
    "arguments", [[], ["segment", "ct.nii"], ["segment", "a", "--out", "b", "--side", "upper"]]
)
def test_a_command_that_is_not_understood_leaves_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_every_room_adds_its_commands():
    parser = command._parser()
    for room in command.ROOMS:
        if (REPOSITORY / "FemurSegLib" / room / "command.py").exists():
            page = sys.modules[f"FemurSegLib.{room}.command"]
            assert callable(page.add_parser)
    assert "segment" in parser.format_help()


def test_a_reader_that_has_seen_enough_is_no_fault(tmp_path):
    """What `femurseg evaluate ... | head -1` does: more is printed than a pipe holds, and nobody reads it."""
    program = (
        "import sys\nfrom FemurSegLib import command\n"
        "command._in_room = lambda args, stdout: [print('a line', file=stdout) for _ in range(100_000)]\n"
        "sys.exit(command.main(['phantom', '--out', 'x', '--shapes', 'y']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout.readline() == "a line\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 0


# A run


def test_a_run_leaves_a_whole_result_and_prints_its_folder(ct, pipeline, tmp_path, capfd):
    assert run("segment", ct, "--out", tmp_path / "out", "--progress", "none") == 0
    printed = capfd.readouterr()
    assert printed.out.strip() == str(tmp_path / "out")
    assert printed.err == ""
    document = result.read_result(tmp_path / "out").document
    result.validate(document)
    assert document["input"]["path"] == str(ct)
    stages = [stage for stage in document["seconds"] if stage != "total"]
    assert stages == ["read", "load", "radiographs", "detect", "segment", "clean", "surfaces", "write"]
    assert 0 < document["seconds"]["read"] < document["seconds"]["total"]


@pytest.mark.parametrize(
    "side, expected", [("both", sides.SIDES), ("right", (sides.RIGHT,)), ("left", (sides.LEFT,))]
)
def test_options_reach_the_pipeline(ct, pipeline, tmp_path, side, expected):
    run("segment", ct, "--out", tmp_path / "out", "--side", side, "--device", "cpu", "--network", "unet")
    assert pipeline.calls == [{"device": "cpu", "sides": expected, "network": "unet"}]


def test_the_set_of_weights_reaches_the_pipeline_and_an_unknown_one_is_not_understood(
    ct, pipeline, tmp_path, monkeypatch
):
    def segment_femurs(volume, *, data_set=None, **others):
        pipeline.calls.append(data_set)
        return segmented(volume, two_femora()[1])

    monkeypatch.setattr(pipeline, "segment_femurs", segment_femurs)
    for words in ([], ["--weights", "open"]):
        assert run("segment", ct, "--out", tmp_path / "out", *words) == 0
    assert pipeline.calls == [None, "open"]
    with pytest.raises(SystemExit):
        run("segment", ct, "--out", tmp_path / "out", "--weights", "free")


def test_json_progress_is_one_event_a_line_whatever_libraries_print(ct, pipeline, tmp_path, capfd):
    quiet = pipeline.segment_femurs

    def chatty(*args, **options):
        print("a library says hello")
        os.system("echo and so does a program it starts")
        return quiet(*args, **options)

    pipeline.segment_femurs = chatty
    assert run("segment", ct, "--out", tmp_path / "out", "--progress", "json") == 0
    printed = capfd.readouterr()
    events = [json.loads(line) for line in printed.out.splitlines()]
    assert {event["event"] for event in events} == {"progress", "warning", "result"}
    stages = [event["stage"] for event in events if event["event"] == "progress"]
    assert [stage for at, stage in enumerate(stages) if stage not in stages[:at]] == list(progress.STAGES)
    assert all(event["message"] and 0 <= event["fraction"] <= 1 for event in events if event["event"] == "progress")
    assert events[-1] == {"event": "result", "folder": str(tmp_path / "out")}
    assert "a library says hello" in printed.err and "so does a program" in printed.err


def test_without_a_terminal_the_bar_is_plain_lines(ct, pipeline, tmp_path, capfd):
    assert run("segment", ct, "--out", tmp_path / "out") == 0
    printed = capfd.readouterr()
    assert "\r" not in printed.err
    assert "50%  now segment" in printed.err
    assert "Note: This is an example." in printed.err
    assert printed.out.strip() == str(tmp_path / "out")


def test_on_a_terminal_the_bar_is_one_line():
    master, slave = pty.openpty()
    code = (
        "import sys\n"
        "from FemurSegLib import command, progress\n"
        "bar = command._Bar(sys.stdout)\n"
        "for part in (0, 0.5, 1): bar(progress.progress('segment', part))\n"
        "bar(progress.finished('out'))\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], stderr=slave, stdout=subprocess.DEVNULL, check=True, cwd=REPOSITORY
    )
    os.close(slave)
    shown = os.read(master, 10000).decode()
    os.close(master)
    assert shown.count("\n") == 1 and shown.endswith("\n")
    assert shown.count("\r[") == 4
    assert "Segmenting the femora" in shown and "100%  Done" in shown


# Errors


def test_no_ct_is_one_line_on_stderr_and_exit_code_3(pipeline, tmp_path, capfd):
    assert run("segment", tmp_path / "nowhere.nii", "--out", tmp_path / "out", "--progress", "none") == 3
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("femurseg: ") and printed.err.count("\n") == 1 and "nowhere.nii" in printed.err
    assert os.listdir(tmp_path) == []


def test_weights_that_are_missing_are_told_before_the_ct_is_read(tmp_path, monkeypatch, capfd):
    (tmp_path / "models.json").write_text("{}")
    monkeypatch.setenv("FEMURSEG_MODELS", str(tmp_path))
    assert run("segment", tmp_path / "nowhere.nii", "--out", tmp_path / "out", "--progress", "none") == 6
    assert "weights are not complete" in capfd.readouterr().err


@pytest.mark.parametrize("kind", errors.kinds())
def test_each_error_has_its_code_and_event(ct, pipeline, tmp_path, capfd, kind):
    def fail(*args, **options):
        raise kind("It did not work.", "Try this.")

    pipeline.segment_femurs = fail
    assert run("segment", ct, "--out", tmp_path / "out", "--progress", "json") == kind.exit_code
    last = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert last == {
        "event": "error",
        "code": kind.code,
        "message": "It did not work.",
        "hint": "Try this.",
        "exit_code": kind.exit_code,
    }
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "error, code, exit_code", [(MemoryError(), "out_of_memory", 7), (ZeroDivisionError("x"), "internal", 70)]
)
def test_errors_of_python_are_told_in_words(ct, pipeline, tmp_path, capfd, error, code, exit_code):
    def fail(*args, **options):
        raise error

    pipeline.segment_femurs = fail
    assert run("segment", ct, "--out", tmp_path / "out", "--progress", "json") == exit_code
    printed = capfd.readouterr()
    assert json.loads(printed.out.splitlines()[-1])["code"] == code
    assert ("Traceback" in printed.err) == (code == "internal")


def test_a_folder_that_cannot_be_used_is_refused_before_the_work(ct, pipeline, tmp_path, capfd):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert run("segment", ct, "--out", tmp_path, "--progress", "none") == 5
    assert "thesis.tex" in capfd.readouterr().err
    assert pipeline.calls == []


# Stopping

SLOW = """
import sys, time, types
import FemurSegLib
slow = types.ModuleType("FemurSegLib.pipeline")
def segment_femurs(volume, *, progress, **options):
    from examples import segmented, two_femora
    from FemurSegLib import pictures
    if WHERE == "pipeline":
        progress({"event": "progress", "stage": "segment", "fraction": 0.2, "message": "waiting"})
        time.sleep(60)
    def wait(*args):
        progress({"event": "progress", "stage": "write", "fraction": 0.9, "message": "waiting"})
        time.sleep(60)
    pictures.draw_overview = wait
    return segmented(volume, two_femora()[1])
slow.segment_femurs = segment_femurs
sys.modules["FemurSegLib.pipeline"] = FemurSegLib.pipeline = slow
from FemurSegLib.command import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("where", ["pipeline", "writing"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_a_stopped_run_leaves_nothing_and_says_so(ct, tmp_path, where, how):
    code = f"WHERE = {where!r}\n" + SLOW
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'Testing'}"}
    arguments = [sys.executable, "-c", code, "segment", ct, "--out", tmp_path / "out", "--progress", "json"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)
    for line in process.stdout:
        if json.loads(line)["message"] == "waiting":
            break
    process.send_signal(how)
    rest = process.stdout.read().splitlines()
    assert process.wait(timeout=20) == 130
    assert json.loads(rest[-1])["code"] == "cancelled"
    assert os.listdir(tmp_path) == []


def test_a_run_whose_reader_is_gone_stops(ct, tmp_path):
    code = "WHERE = 'none'\n" + SLOW.replace("time.sleep(60)", "time.sleep(1)")
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'Testing'}"}
    arguments = [sys.executable, "-c", code, "segment", ct, "--out", tmp_path / "out", "--progress", "json"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=20) == 130
    assert os.listdir(tmp_path) == []


def test_a_command_that_keeps_what_is_whole_does_not_say_that_nothing_was_written(monkeypatch, tmp_path, capfd):
    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("FemurSegLib.phantom.command.phantoms", stopped)
    assert run("phantom", "--out", tmp_path, "--shapes", tmp_path) == 130
    assert capfd.readouterr().err == "femurseg: Stopped.\n"


# The process


def test_the_true_stdout_is_back_after_a_command(ct, pipeline, tmp_path, capfd):
    run("segment", ct, "--out", tmp_path / "out", "--progress", "none")
    capfd.readouterr()
    os.system("echo hello")
    assert capfd.readouterr().out == "hello\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_a_heavy_command_starts_with_huge_pages_and_the_same_arguments(monkeypatch):
    started = []
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "FemurSegLib", "segment", "a b.nii"])
    monkeypatch.setattr(sys, "argv", ["__main__.py", "segment", "a b.nii"])
    command._prefer_huge_pages()
    ((program, arguments, environment),) = started
    assert program == sys.executable
    assert arguments == [sys.executable, "-m", "FemurSegLib", "segment", "a b.nii"]
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    command._prefer_huge_pages()
    assert len(started) == 1


# Events


def test_fractions_grow_from_stage_to_stage_up_to_the_whole():
    fractions = [progress.progress(stage, part)["fraction"] for stage in progress.STAGES for part in (0, 0.5, 1)]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0, 1)


def test_a_finding_becomes_a_warning_event():
    event = progress.warning(Finding("femur_cut", "The right femur is cut.", sides.RIGHT))
    assert event == {
        "event": "warning",
        "code": "femur_cut",
        "message": "The right femur is cut.",
        "side": "right_femur",
    }
