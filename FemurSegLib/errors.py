"""Errors that a user can do something about. Each says what is wrong, and in `hint` what to do."""

from __future__ import annotations


class FemurSegError(Exception):
    """Base class.

    `code` names the kind in JSON events and `exit_code` is what the command line returns.
    `str(error)` is one sentence; `error.hint` is the next step for the user (may be empty).
    """

    code = "internal"
    exit_code = 70

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.hint = hint


class InputError(FemurSegError):
    """The file or folder given is not a CT that can be used."""

    code, exit_code = "bad_input", 3


class NoFemurError(FemurSegError):
    """The CT was read, and no femur is in it."""

    code, exit_code = "no_femur", 4


class OutputError(FemurSegError):
    """The result could not be written; nothing was left behind."""

    code, exit_code = "output", 5


class ModelError(FemurSegError):
    """Weights are missing, damaged or not the ones expected."""

    code, exit_code = "model", 6


class MemoryExhaustedError(FemurSegError):
    """Neither the GPU nor the main memory suffices."""

    code, exit_code = "out_of_memory", 7


class CancelledError(FemurSegError):
    """The user stopped the run."""

    code, exit_code = "cancelled", 130


def kinds() -> list[type[FemurSegError]]:
    """The errors of the engine, those of this page; front ends have more of their own."""
    return [kind for kind in FemurSegError.__subclasses__() if kind.__module__ == __name__]
