"""Events of a run: dictionaries that a front end shows, the same in Python and as one JSON line each.

{"event": "progress", "stage": "segment", "fraction": 0.4, "message": "Segmenting the right femur"}
{"event": "warning", "code": "femur_cut", "message": "...", "side": "right_femur"}
{"event": "result", "folder": "..."}
{"event": "error", "code": "bad_input", "message": "...", "hint": "...", "exit_code": 3}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import FemurSegError
    from .findings import Finding

Event = dict
Listener = Callable[[Event], None]

STAGES = {
    "read": (0.00, "Reading the CT"),
    "radiographs": (0.10, "Making the radiographs"),
    "detect": (0.13, "Looking for the femora"),
    "segment": (0.18, "Segmenting the femora"),
    "clean": (0.80, "Cleaning the masks"),
    "surfaces": (0.81, "Making the surfaces"),
    "anatomy": (0.86, "Reading the bones"),
    "write": (0.95, "Writing the result"),
}
"""Stages of a run in order: the part of the whole run that lies before each, and what it is called."""


def ignore(event: Event) -> None:
    """The listener of a run that nobody watches."""


def progress(stage: str, part: float = 0.0, message: str = "") -> Event:
    """The event that `part` (0..1) of a stage is done; `message` says more than the stage's own name."""
    starts = [start for start, _ in STAGES.values()] + [1.0]
    at = list(STAGES).index(stage)
    fraction = starts[at] + min(max(part, 0.0), 1.0) * (starts[at + 1] - starts[at])
    return {
        "event": "progress",
        "stage": stage,
        "fraction": round(fraction, 4),
        "message": message or STAGES[stage][1],
    }


def warning(finding: Finding) -> Event:
    return {"event": "warning", "code": finding.code, "message": finding.message, "side": finding.side}


def finished(folder) -> Event:
    return {"event": "result", "folder": str(folder)}


def failed(error: FemurSegError) -> Event:
    return {
        "event": "error",
        "code": error.code,
        "message": str(error),
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
