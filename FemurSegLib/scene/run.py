"""From a volume node to the nodes of a run, without blocking: check, write, run the engine, show, clean up.

segmenting = Segmenting(volume_node, Options(sides=("left_femur",)))
while segmenting.poll():
    time.sleep(0.1)
run = segmenting.finish()
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import slicer

from FemurSegLib.errors import CancelledError, InputError
from FemurSegLib.scene.nodes import Run
from FemurSegLib.scene.process import EngineJob, engine_command
from FemurSegLib.scene.show import show_result
from FemurSegLib.scene.volume_file import check_ct, write_ct
from FemurSegLib.sides import SIDES

KEPT_LOGS = 20


@dataclass(frozen=True)
class Options:
    """What the engine can be told; the names are those of its command line. Raises InputError."""

    device: str = "auto"
    sides: tuple[str, ...] = SIDES
    network: str = "segresnet"
    weights: str | None = None
    """Set of weights (models.SETS); None: what the engine takes by default."""
    margin_mm: float | None = None
    """Room around a box; None: what the engine thinks right."""
    compartments: str = "none"
    """How to tell cortex from inside: `none`, `threshold` or `network`."""
    spread: int = 0
    """Perturbed copies of each femur to measure too, for the spread of the numbers."""
    smoothing: float = 0.5
    """Smoothing factor of the surfaces shown in 3D, 0 to 1."""

    def __post_init__(self):
        if not self.sides or not set(self.sides) <= set(SIDES):
            raise InputError("No side is chosen.", "Choose at least one femur.")

    def arguments(self) -> list[str]:
        side = [] if set(self.sides) == set(SIDES) else ["--side", self.sides[0].partition("_")[0]]
        weights = [] if self.weights is None else ["--weights", self.weights]
        margin = [] if self.margin_mm is None else ["--margin-mm", f"{self.margin_mm:g}"]
        cortex = [] if self.compartments == "none" else ["--compartments", self.compartments]
        spread = ["--spread", str(self.spread)] if self.spread else []
        return ["--device", self.device, "--network", self.network, *side, *weights, *margin, *cortex, *spread]


class Segmenting:
    """One run of the engine on a volume node. Constructing it starts the engine; raises FemurSegError.

    `regions`: boxes by side, as `Run.regions` gives them, for the second stage alone.
    `command`: takes the arguments of the engine, gives its command line.
    """

    def __init__(
        self,
        volume,
        options=None,
        *,
        regions=None,
        on_event=lambda event: None,
        command=engine_command,
        folder=None,
        log_folder=None,
        scene=None,
    ):
        self.scene = scene or slicer.mrmlScene
        self.volume, self.options = volume, options or Options()
        check_ct(volume)
        if regions is not None and not regions:
            raise InputError("There is no box left to segment in.", "Segment the CT again to get new boxes.")
        self._folder = Path(tempfile.mkdtemp(prefix="FemurSeg-", dir=folder))
        try:
            arguments = [
                "segment",
                write_ct(volume, self._folder / "ct.nrrd"),
                "--out",
                self._folder / "result",
                *self.options.arguments(),
            ]
            if regions is not None:
                (self._folder / "region.json").write_text(json.dumps(regions), encoding="utf-8")
                arguments += ["--region", self._folder / "region.json"]
            self._job = EngineJob(command(arguments), new_log(log_folder), on_event, temporary=self._folder)
        except Exception:
            self._clean_up()
            raise

    @property
    def log(self) -> Path:
        return self._job.log

    def poll(self) -> bool:
        """Hand on events; True as long as the engine runs. Ends the run if its volume has left the scene."""
        if not self.scene.IsNodePresent(self.volume):
            self.stop("The CT was removed from the scene, so the run was stopped.")
        return self._job.poll()

    def stop(self, why: str = "The run was stopped.") -> None:
        """End the engine with all its processes; `poll` tells when it is gone."""
        self._job.stop(CancelledError(why))

    def kill(self) -> None:
        """End the engine at once and clean up; for when the application closes."""
        self._job.kill()
        self._clean_up()

    def finish(self) -> Run:
        """Show the result and clean up. Raises what ended the run; then the scene is as before."""
        try:
            folder = self._job.result()
            if not self.scene.IsNodePresent(self.volume):
                raise CancelledError("The CT was removed from the scene, so its result is not shown.")
            return show_result(folder, self.volume, self.scene, smoothing=self.options.smoothing)
        finally:
            self._clean_up()

    def wait(self, between=lambda: None) -> Run:
        """Block until the run is finished and show it; `between` is called while waiting."""
        while self.poll():
            between()
            time.sleep(0.05)
        return self.finish()

    def _clean_up(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def new_log(folder=None) -> Path:
    """A new file for the output of a run; the oldest beyond KEPT_LOGS are removed."""
    folder = Path(folder or Path(tempfile.gettempdir()) / "FemurSeg-logs")
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("*.log"))[: -KEPT_LOGS + 1]:
        old.unlink(missing_ok=True)
    number = 0
    while True:
        path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}{f'-{number}' if number else ''}.log"
        if not path.exists():
            return path
        number += 1
