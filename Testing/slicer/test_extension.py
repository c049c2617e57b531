"""The extension as it is built, packed and listed: CMake, the install tree, the ExtensionsIndex."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = "lib/Slicer-5.12/qt-scripted-modules"

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")


def cmake(*arguments, **options):
    done = subprocess.run(arguments, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """The build tree; what Slicer brings is stood in for by Testing/slicer/cmake."""
    folder = tmp_path_factory.mktemp("build")
    cmake("cmake", "-S", ROOT, "-B", folder, f"-DSlicer_DIR={ROOT / 'Testing/slicer/cmake'}")
    cmake("cmake", "--build", folder)
    return folder


@pytest.fixture(scope="module")
def modules(build, tmp_path_factory):
    """The folder of scripted modules in the install tree."""
    folder = tmp_path_factory.mktemp("install")
    cmake("cmake", "--install", build, "--prefix", folder)
    return folder / MODULES


def test_module_library_resources_and_weights_are_installed(modules):
    for path in (
        "FemurSeg.py",
        "Resources/UI/FemurSeg.ui",
        "Resources/Icons/FemurSeg.png",
        "FemurSegLib/pipeline.py",
        "FemurSegLib/scene/nodes.py",
        "FemurSegLib/result.schema.json",
        "Resources/Models/models.json",
        "Resources/SampleData/sample_ct.nii.gz",
    ):
        assert (modules / path).is_file(), path
    installed = {path.relative_to(modules) for path in modules.rglob("*.py")}
    expected = {path.relative_to(ROOT) for path in (ROOT / "FemurSegLib").rglob("*.py")} | {Path("FemurSeg.py")}
    assert installed == expected


def test_the_build_tree_is_laid_out_as_the_install_tree(build, modules):
    def files(folder):
        return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}

    assert files(build / MODULES) == files(modules)


def test_the_engine_runs_from_the_install_tree(modules, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "FemurSegLib", "--version"],
        cwd=tmp_path,
        text=True,
        env={"PYTHONPATH": str(modules), "PATH": ""},
        capture_output=True,
    )
    assert done.stdout.startswith("femurseg "), done.stderr


def test_the_panel_opens_from_the_install_tree(modules, tmp_path):
    pytest.importorskip("slicer", exc_type=ImportError, reason="slicer-core is not installed")
    pytest.importorskip("PySide6", exc_type=ImportError, reason="PySide6 is not installed")
    script = f"""
import sys
sys.path.append({str(ROOT / "Testing" / "slicer")!r})
sys.path.insert(0, {str(modules)!r})  # before a FemurSegLib that pip installed
from harness.application import Application
with Application({str(tmp_path / "slicer")!r}) as application:
    panel = application.open("FemurSeg", {str(modules / "FemurSeg.py")!r})
    import FemurSegLib
    print(FemurSegLib.__file__, panel.ui.segmentButton.isVisible())
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, text=True, capture_output=True)
    assert done.stdout.split()[-2:] == [str(modules / "FemurSegLib" / "__init__.py"), "True"], done.stderr


def test_the_unit_test_is_registered(build):
    assert "py_FemurSeg" in cmake("ctest", "-N", cwd=build)


def test_make_package_makes_the_archive_for_install_from_file(build):
    cmake("cmake", "--build", build, "--target", "package")
    (archive,) = build.glob("*FemurSeg*.tar.gz")
    with tarfile.open(archive) as packed:
        names = packed.getnames()
    assert any(name.endswith(f"{MODULES}/FemurSeg.py") for name in names)
    assert any(name.endswith(f"{MODULES}/FemurSegLib/scene/nodes.py") for name in names)


def test_the_entry_of_the_extensions_index_keeps_to_its_schema():
    entry = json.loads((ROOT / "FemurSeg.json").read_text())
    assert re.search(r"slicer-extension-catalog-entry-schema-v1\.0\.\d\.json#$", entry["$schema"])
    kinds = {
        "$schema": str,
        "build_dependencies": list,
        "build_subdirectory": str,
        "category": str,
        "scm_revision": str,
        "scm_url": str,
        "tier": int,
    }
    assert {key: type(value) for key, value in entry.items()} == kinds


def test_entry_and_cmake_tell_the_same(build):
    told = dict(line.split("=", 1) for line in (build / "description.txt").read_text().splitlines())
    entry = json.loads((ROOT / "FemurSeg.json").read_text())
    assert told["CATEGORY"] == entry["category"] == "Segmentation"
    assert told["DEPENDS"].split(";") == entry["build_dependencies"]
    assert told["HOMEPAGE"] == entry["scm_url"]


def test_pictures_that_the_description_names_are_there(build):
    from PIL import Image

    told = dict(line.split("=", 1) for line in (build / "description.txt").read_text().splitlines())
    for url in [told["ICONURL"], *told["SCREENSHOTURLS"].split()]:
        path = ROOT / url.partition("/main/")[2]
        if path.parent.name == "Screenshots" and not path.parent.is_dir():
            pytest.skip("no screenshots yet: Testing/slicer/make_screenshots.py makes them, with trained weights")
        assert path.is_file(), path
    assert Image.open(ROOT / "FemurSeg/Resources/Icons/FemurSeg.png").size == (128, 128)


def test_the_module_file_imports_nothing_that_slicer_does_not_bring():
    source = (ROOT / "FemurSeg" / "FemurSeg.py").read_text()
    imported = set(re.findall(r"^(?:from|import) ([\w]+)", source, re.MULTILINE))
    assert imported - set(sys.stdlib_module_names) == {"qt", "slicer", "FemurSegLib"}


def test_scene_imports_neither_qt_nor_torch():
    for path in (ROOT / "FemurSegLib" / "scene").glob("*.py"):
        assert not re.search(r"^\s*(from|import) (qt|ctk|PySide6|torch|monai)\b", path.read_text(), re.MULTILINE), (
            path
        )
