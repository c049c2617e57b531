"""The engine in its own process: events come in, Stop ends all of it.

    job = EngineJob(engine_command(["segment", "ct.nrrd", "--out", "result"]), log=path, on_event=print)
    while job.poll():        # from a timer in a window, or in a loop
        time.sleep(0.1)
    folder = job.result()    # or raises what went wrong

Nothing here blocks: a thread reads the output, `poll` hands it on in the thread of the caller.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from FemurSegLib import errors

GRACE_S = 5.0
"""How long the engine may take to clean up after Stop before it is killed."""

ERRORS = {kind.code: kind for kind in errors.kinds()}


class EngineCrashedError(errors.FemurSegError):
    """The engine ended without a word."""

    code = "crashed"


def engine_command(arguments) -> list[str]:
    """The command line that runs FemurSegLib with `arguments`, in Slicer's Python if this is Slicer."""
    return [
        shutil.which("PythonSlicer") or sys.executable,
        "-m",
        "FemurSegLib",
        *map(str, arguments),
        "--progress",
        "json",
    ]


class EngineJob:
    """A running engine. `on_event(dict)` is called from `poll`; every line of output goes to `log`.

    `temporary`: folder for all that the engine and its libraries think temporary, so that whoever removes it
    removes everything, even if the engine is killed.
    """

    def __init__(self, command, log, on_event=lambda event: None, temporary=None):
        self.log = Path(log)
        self._on_event = on_event
        self._lines = queue.Queue()
        self._folder = self._error = self._stopped_at = None
        self._finished, self._heard_at, self._tree = False, time.monotonic(), []
        self._log = self.log.open("a", encoding="utf-8", buffering=1)
        self._note(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(map(str, command))}\n")
        try:
            self._process = _launch([str(part) for part in command], temporary)
        except OSError as error:
            self._log.close()
            raise EngineCrashedError(
                f"The engine could not be started: {error}.", "Install FemurSeg again."
            ) from error
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def finished(self) -> bool:
        return self._finished

    def poll(self) -> bool:
        """Hand on what the engine has said since the last call; True as long as it runs."""
        while not self._finished:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                line = self._on_silence()
                if line is not None:
                    return True
            if line is None:
                self._finished = True
                self._process.wait()
                self._note(f"ended with {self._process.returncode}\n")
                with contextlib.suppress(OSError):
                    self._log.close()
            else:
                self._heard_at = time.monotonic()
                self._take(line)
        return False

    def _on_silence(self):
        """None if the engine is gone, though a process it left behind keeps its output open; "" otherwise."""
        now = time.monotonic()
        if self._stopped_at and now - self._stopped_at > GRACE_S:
            _end(self._tree, at_once=True)
        if self._process.poll() is not None and now - max(self._heard_at, self._stopped_at or 0) > 2 * GRACE_S:
            return None
        return ""

    def stop(self, error: errors.FemurSegError | None = None) -> None:
        """Ask the engine to end; if it does not, it is killed with its children. `error`: for `result`."""
        if self._finished or self._stopped_at:
            return
        self._stopped_at = time.monotonic()
        self._error = error or errors.CancelledError("The run was stopped.")
        self._tree = _tree(self._process.pid)
        _end(self._tree, at_once=False)

    def kill(self) -> None:
        """End the engine now and wait until it is gone."""
        self.stop()
        _end(self._tree, at_once=True)
        while self.poll():
            time.sleep(0.01)

    def result(self) -> Path:
        """The result folder of a finished run. Raises the FemurSegError that ended it."""
        if not self._finished:
            raise RuntimeError("The engine is still running.")
        if self._error is not None:
            raise self._error
        code = self._process.returncode
        if self._folder is None or code:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            hint = "It may have run out of memory: close other programs. " if code in (-signal.SIGTERM, -9) else ""
            raise EngineCrashedError(f"The engine ended unexpectedly ({how}).", f"{hint}The log tells more.")
        return self._folder

    def _read(self) -> None:
        self._process.stdout.reconfigure(encoding="utf-8", errors="replace")
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _note(self, text: str) -> None:
        """Write to the log; that the disk is full is for the engine to tell."""
        with contextlib.suppress(OSError):
            self._log.write(text)

    def _take(self, line: str) -> None:
        self._note(line)
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, TypeError, KeyError):
            return
        if kind == "result":
            self._folder = Path(event["folder"])
        elif kind == "error" and self._error is None:
            self._error = ERRORS.get(event["code"], errors.FemurSegError)(event["message"], event.get("hint", ""))
        if not self._stopped_at:
            self._on_event(event)


def _launch(command, temporary=None) -> subprocess.Popen:
    """Start a process whose output and errors can be read line by line; on Windows without a window."""
    library = str(Path(__file__).parents[2])
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, [library, os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8:replace",
        **({} if temporary is None else dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))),
    }
    try:
        from slicer.util import launchConsoleProcess
    except ImportError:  # a script without Slicer
        return subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    return launchConsoleProcess(command, useStartupEnvironment=False, updateEnvironment=environment)


def _end(tree: list[int], at_once: bool) -> None:
    """End processes, the root first: politely (SIGTERM) or `at_once`. Windows knows only the second."""
    if os.name == "nt":
        subprocess.run(["taskkill", "/PID", str(tree[0]), "/T", "/F"], capture_output=True, check=False)
        return
    for pid in tree:
        try:
            os.kill(pid, signal.SIGKILL if at_once else signal.SIGTERM)
        except ProcessLookupError:
            pass


def _tree(root: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for child, parent in [] if os.name == "nt" else _processes():
        children.setdefault(parent, []).append(child)
    tree = [root]
    for pid in tree:  # grows as it goes
        tree += children.get(pid, [])
    return tree


def _processes() -> list[tuple[int, int]]:
    """(process, its parent) of all processes; from /proc on Linux, from `ps` on macOS."""
    if not Path("/proc/self/stat").exists():
        output = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        return [tuple(map(int, line.split())) for line in output.splitlines()]
    pairs = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        pairs.append((int(stat.parent.name), int(fields[1])))
    return pairs
