import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

try:
    import PySide6  # noqa: F401
    import slicer  # noqa: F401
except ImportError as error:
    WITHOUT = f"{error}; pip install -r requirements/slicer.txt"
else:
    WITHOUT = ""


class _LeftOut(pytest.Module):
    def collect(self):
        pytest.skip(WITHOUT, allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    """Without Slicer's core and Qt the panel cannot run; test_extension.py needs neither."""
    if WITHOUT and module_path.parent == HERE and module_path.name != "test_extension.py":
        return _LeftOut.from_parent(parent, path=module_path)
    return None


@pytest.fixture(scope="session", autouse=True)
def _results_made_once(tmp_path_factory):
    """What the fake engine has made it need not make again."""
    os.environ.setdefault("FAKE_ENGINE_CACHE", str(tmp_path_factory.mktemp("results")))


@pytest.fixture
def application(tmp_path):
    from harness.application import Application

    with Application(tmp_path / "slicer") as started:
        yield started


@pytest.fixture
def pictures(tmp_path):
    """Folder for pictures of the panel: FEMURSEG_PICTURES, or one that pytest clears away."""
    return Path(os.environ.get("FEMURSEG_PICTURES", tmp_path / "pictures"))
