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
        "FemurSegPanel/widget.py",
        "Resources/UI/FemurSeg.ui",
        "Resources/Icons/FemurSeg.png",
        "FemurSegLib/pipeline.py",
        "FemurSegLib/scene/nodes.py",
        "FemurSegLib/result.schema.json",
        "Resources/Models/models.json",
        "Resources/SampleData/sample_ct.nii.gz",
    ):
        assert (modules / path).is_file(), path
    library = {path for path in sources(ROOT / "FemurSegLib") if path.name != "CMakeLists.txt"}
    module = {ROOT / "FemurSeg/FemurSeg.py", *sources(ROOT / "FemurSeg/FemurSegPanel")}
    expected = {path.relative_to(ROOT) for path in library} | {
        path.relative_to(ROOT / "FemurSeg") for path in module
    }
    assert {path for path in files(modules) if path.parts[0] != "Resources"} == expected


def sources(folder):
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def files(folder):
    return {path.relative_to(folder) for path in sources(folder)}


def test_the_build_tree_is_laid_out_as_the_install_tree(build, modules):
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


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder of the extension after "Install extension from file" with what `make package` made.

    As qSlicerExtensionsManagerModel does it: the name is that of the first .s4ext in the archive, all files lie in
    one folder, which gets that name.
    """
    folder = tmp_path_factory.mktemp("package")
    told = cmake("make", "package", f"DIST={folder / 'dist'}", f"BUILD={folder / 'build'}", "SLICER=5.12", cwd=ROOT)
    (archive,) = (folder / "dist").glob("*.tar.gz")
    assert told.split() == [str(archive)]
    with tarfile.open(archive) as packed:
        names = packed.getnames()
        packed.extractall(folder / "Extensions", filter="data")
    (description,) = [Path(name) for name in names if name.endswith(".s4ext")]
    (top,) = {Path(name).parts[0] for name in names}
    return (folder / "Extensions" / top).rename(folder / "Extensions" / description.stem)


def test_make_package_makes_the_archive_for_install_from_file(installed, modules):
    assert installed.name == "FemurSeg"
    lines = (installed / "share/Slicer-5.12/FemurSeg.s4ext").read_text().splitlines()
    told = dict(line.partition(" ")[::2] for line in lines if not line.startswith("#"))
    assert told["category"] == "Segmentation" and told["depends"] == "PyTorch" and told["description"]
    assert told["homepage"] == told["scmurl"] and told["screenshoturls"].endswith(".png")
    assert files(installed / MODULES) == files(modules)


def test_slicer_takes_every_python_file_in_the_folder_of_modules_for_a_module(installed):
    assert [path.name for path in (installed / MODULES).glob("*.py")] == ["FemurSeg.py"]


def test_the_panel_opens_from_the_installed_archive(installed, tmp_path):
    pytest.importorskip("slicer", exc_type=ImportError, reason="slicer-core is not installed")
    pytest.importorskip("PySide6", exc_type=ImportError, reason="PySide6 is not installed")
    modules = installed / MODULES
    script = f"""
import sys
sys.path.append({str(ROOT / "Testing" / "slicer")!r})
sys.path.insert(0, {str(modules)!r})  # before a FemurSegLib that pip installed
from harness.application import Application
with Application({str(tmp_path / "slicer")!r}) as application:
    panel = application.open("FemurSeg", {str(modules / "FemurSeg.py")!r})
    import FemurSegLib, FemurSegPanel
    heavy = {{"torch", "monai", "ultralytics", "scipy", "SimpleITK", "pydicom", "PIL", "matplotlib"}}
    visible = panel.ui.segmentButton.isVisible()
    print(FemurSegLib.__file__, FemurSegPanel.__file__, visible, heavy & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, text=True, capture_output=True)
    found = [str(modules / name / "__init__.py") for name in ("FemurSegLib", "FemurSegPanel")]
    assert done.stdout.split()[-4:] == [*found, "True", "set()"], done.stderr


def test_the_unit_test_is_registered(build):
    assert "py_FemurSeg" in cmake("ctest", "-N", cwd=build)


def test_the_entry_of_the_extensions_index_keeps_to_its_schema():
    """As slicer-extension-catalog-entry-schema-v1.0.1.json in Slicer/Schemas has it."""
    entry = json.loads((ROOT / "FemurSeg.json").read_text())
    assert re.search(r"slicer-extension-catalog-entry-schema-v1\.0\.1\.json#$", entry["$schema"])
    kinds = {
        "$schema": str,
        "build_dependencies": list,
        "build_subdirectory": str,
        "category": str,
        "enabled": bool,
        "scm_revision": str,
        "scm_type": str,
        "scm_url": str,
        "tier": int,
    }
    assert {"$schema", "category", "scm_url"} <= set(entry) <= set(kinds)
    assert all(isinstance(value, kinds[key]) for key, value in entry.items())
    assert entry["tier"] in (1, 3, 5) and entry["scm_url"].startswith("https://")


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


def imports_of(path):
    """Names of packages that a file imports when it is imported itself."""
    found = re.findall(r"^(?:from|import) ([\w.]+)", path.read_text(), re.MULTILINE)
    return {name.partition(".")[0] for name in found if not name.startswith(".")}


def test_the_modules_files_import_nothing_that_slicer_does_not_bring():
    files = [ROOT / "FemurSeg/FemurSeg.py", *(ROOT / "FemurSeg/FemurSegPanel").glob("*.py")]
    for path in files:
        allowed = {"qt", "vtk", "slicer", "FemurSegLib", "FemurSegPanel"} | set(sys.stdlib_module_names)
        assert imports_of(path) <= allowed, path
    assert len(files[0].read_text().splitlines()) < 100  # a shell


def test_every_text_of_the_panel_can_be_translated():
    """Strings shown to the user are given to `_`; what is not is a name of the program's own."""
    for path in (ROOT / "FemurSeg").rglob("*.py"):
        source = path.read_text()
        shown = re.findall(r"(?:showMessage|InputError|\.text = |title = |Text = )\(?\s*f?\"[A-Za-z]", source)
        assert not shown, (path, shown)
    ui = (ROOT / "FemurSeg/Resources/UI/FemurSeg.ui").read_text()
    untranslated = set(re.findall(r'<string notr="true">([^<]*)</string>', ui))
    assert all(re.fullmatch(r"\w+", text) for text in untranslated)  # names of parameters and node classes


def test_scene_imports_neither_qt_nor_torch():
    for path in (ROOT / "FemurSegLib" / "scene").glob("*.py"):
        assert not re.search(r"^\s*(from|import) (qt|ctk|PySide6|torch|monai)\b", path.read_text(), re.MULTILINE), (
            path
        )
