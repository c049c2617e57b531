import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTING = Path(__file__).parents[1]
sys.path[:0] = [str(TESTING.parent), str(TESTING / "slicer")]

try:
    import slicer
    import slicer.util
except ImportError as error:
    WITHOUT = f"{error}; pip install -r requirements/slicer.txt"
else:
    WITHOUT = ""


class _LeftOut(pytest.Module):
    def collect(self):
        pytest.skip(WITHOUT, allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    """Without Slicer's core there is no scene."""
    if WITHOUT and module_path.parent == Path(__file__).parent:
        return _LeftOut.from_parent(parent, path=module_path)
    return None


@pytest.fixture
def scene():
    """A fresh scene in `slicer.mrmlScene`, empty but for what the application itself puts in."""
    from harness.scene import start_scene

    parts = start_scene()
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(parts.scene)
    yield parts.scene
    parts.scene.Clear(True)


@pytest.fixture
def ct(scene):
    """Two rods in air and water, 12 x 12 x 30 mm apart, as an ordinary CT."""
    from leg_ct import add_ct

    return add_ct()


@pytest.fixture(scope="session", autouse=True)
def _results_made_once(tmp_path_factory):
    """What the fake engine has made it need not make again."""
    os.environ.setdefault("FAKE_ENGINE_CACHE", str(tmp_path_factory.mktemp("results")))


@pytest.fixture
def result_of(tmp_path):
    """A function: volume node -> result folder of the fake engine, run in its own process."""
    from FemurSegLib.scene.volume_file import write_ct

    def run(volume, regions=None, *words):
        number = len(list(tmp_path.glob("result*")))
        out = tmp_path / f"result{number}"
        command = [
            sys.executable,
            str(TESTING / "slicer/fake_engine.py"),
            "segment",
            str(write_ct(volume, tmp_path / "ct.nrrd")),
            "--out",
            str(out),
        ]
        if regions is not None:
            (tmp_path / "region.json").write_text(json.dumps(regions))
            command += ["--region", str(tmp_path / "region.json")]
        command += words
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        return out

    return run
