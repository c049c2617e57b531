"""Text files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

from .errors import OutputError


def write_text(path: Path | str, text: str) -> Path:
    """Write UTF-8 text beside `path` first, then in its place; what was there stays until then, and for good if
    anything goes wrong. Returns the absolute path. Raises OutputError."""
    path = Path(path).expanduser().absolute()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        hint = "Free some space or choose another disk." if full else "Choose a place where you may write."
        raise OutputError(f"{path} could not be written ({error.strerror or error}).", hint) from error
    finally:
        if partial.is_file():
            partial.unlink()
    return path


def write_json(path: Path | str, document) -> Path:
    """As `write_text`. JSON knows no numbers that are not finite: they become null."""
    return write_text(path, json.dumps(finite(document), indent=1, allow_nan=False) + "\n")


def finite(document):
    """Dicts, lists and tuples (as lists) of anything, with None for floats that are not finite."""
    if isinstance(document, dict):
        return {key: finite(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document
