import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

try:
    import PySide6  # noqa: F401
    import slicer
except ImportError as error:
    slicer, MISSING = None, str(error)


def pytest_ignore_collect(collection_path):
    """Without Slicer's core and Qt the panel cannot run; test_extension.py needs neither."""
    return True if slicer is None and collection_path.name == "test_panel.py" else None


def pytest_report_header():
    if slicer is None:
        return f"Testing/slicer/test_panel.py is left out: {MISSING} (pip install slicer-core PySide6-Essentials)"
    return None


@pytest.fixture
def application(tmp_path):
    from harness.application import Application

    with Application(tmp_path / "slicer") as started:
        yield started


@pytest.fixture
def pictures(tmp_path):
    """Folder for pictures of the panel: FEMURSEG_PICTURES, to look at them, or one that pytest clears away."""
    return Path(os.environ.get("FEMURSEG_PICTURES", tmp_path / "pictures"))
