import hashlib
import json
import shutil
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


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Results of the fake engine by what it was given, for tests to copy."""
    return tmp_path_factory.mktemp("results"), {}


@pytest.fixture
def result_of(tmp_path, results):
    """A function: volume node -> result folder of the fake engine, run in its own process once for each input."""
    from FemurSegLib.scene.volume_file import write_ct

    def run(volume, regions=None):
        folder, known = results
        ct = write_ct(volume, tmp_path / "ct.nrrd")
        key = hashlib.sha256(ct.read_bytes() + json.dumps(regions).encode()).hexdigest()
        if key not in known:
            known[key] = folder / key
            command = [sys.executable, TESTING / "slicer/fake_engine.py", "segment", ct, "--out", known[key]]
            if regions is not None:
                (tmp_path / "region.json").write_text(json.dumps(regions))
                command += ["--region", tmp_path / "region.json"]
            subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        return shutil.copytree(known[key], tmp_path / f"result{len(list(tmp_path.glob('result*')))}")

    return run
