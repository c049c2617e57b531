"""Which Python packages the engine needs in a Slicer, and how they get there."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from FemurSegLib.scene import packages
from FemurSegLib.scene.packages import (
    PACKAGES,
    SLICER_BRINGS,
    TORCH,
    InstallError,
    Package,
    install,
    missing,
    offline_instructions,
    question,
)

ROOT = Path(__file__).parents[2]
BUILD = {"hatchling", "editables"}
"""Only for installing the checkout itself."""
CONVENIENCE = {"tqdm"}
"""Bars of training runs."""


@pytest.fixture
def pip(monkeypatch):
    """The calls of pip; nothing is installed."""
    calls = []
    monkeypatch.setattr(packages, "_pip_install", lambda *given: calls.append(given))
    monkeypatch.setattr(packages, "missing", lambda wanted=PACKAGES: [])
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    return calls


def test_the_versions_that_are_tested_are_versions_that_fit():
    assert missing() == []


def test_what_is_missing_or_too_old_is_found():
    absent, old = Package("no-such-package", ">=1", 5), Package("numpy", ">=99", 5)
    assert missing([absent, old, Package("numpy", ">=1", 5)]) == [absent, old]


def test_the_question_tells_names_and_sizes():
    text = question(PACKAGES)
    assert all(package.name in text and f"about {package.size_mb} MB" in text for package in PACKAGES)
    assert f"about {sum(package.size_mb for package in PACKAGES)} MB" in text and "GPU" in text
    assert "GPU" not in question(PACKAGES[2:])


def test_every_package_has_an_upper_bound():
    assert all("<" in package.versions for package in PACKAGES)


def pins() -> dict[str, set[str]]:
    """{package: versions} that `make install` installs."""
    lines = [line for name in ("base", "no-deps") for line in (ROOT / f"requirements/{name}.txt").open()]
    lines += re.findall(r"^TORCH\w* := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    found = {}
    for line in lines:
        text = line.partition("#")[0].strip()
        if text:
            wanted = Requirement(text)
            found.setdefault(canonicalize_name(wanted.name), set()).update(s.version for s in wanted.specifier)
    return found


def test_what_is_tested_lies_in_the_ranges_that_slicer_gets():
    tested = pins()
    for package in PACKAGES:
        versions = tested[canonicalize_name(package.name)]
        assert versions and all(version in SpecifierSet(package.versions) for version in versions), package
    known = {canonicalize_name(name) for name in (*(p.name for p in PACKAGES), *SLICER_BRINGS)}
    assert set(tested) - known == BUILD | CONVENIENCE


def test_pyproject_asks_for_what_is_tested():
    text = (ROOT / "pyproject.toml").read_text()
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL).group(1)
    asked = [Requirement(line) for line in re.findall(r'"([^"]+)"', block)]
    tested = pins()
    known = {canonicalize_name(name) for name in (*(p.name for p in PACKAGES), *SLICER_BRINGS)}
    for wanted in asked:
        name = canonicalize_name(wanted.name)
        assert name in known and all(version in wanted.specifier for version in tested[name]), wanted


def test_the_window_of_slicer_5_12_is_used_where_there(monkeypatch):
    calls = []
    new = types.ModuleType("slicer.packaging")
    new.pip_install = lambda requirements, requester=None: calls.append((requester, requirements))
    monkeypatch.setitem(sys.modules, "slicer.packaging", new)
    packages._pip_install(["a>=1,<2"], ["b<3"])
    assert calls == [("FemurSeg", ["a>=1,<2"]), ("FemurSeg", ["--no-deps", "b<3"])]


def test_slicer_5_10_installs_by_its_older_way(monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.setattr("slicer.util.pip_install", calls.append)
    packages._pip_install([], ["b<3"])
    assert calls == [["--no-deps", "b<3"]]


def test_the_offline_instructions_name_every_package_with_its_versions():
    text = offline_instructions(PACKAGES)
    assert all(text.count(f'"{package.requirement}"') == 2 for package in PACKAGES)
    alone = [line for line in text.splitlines() if "ultralytics" in line]
    assert len(alone) == 2 and all("--no-deps" in line for line in alone)
    assert "pip download" in text and "--no-index" in text


def test_without_the_pytorch_extension_pip_installs_all_those_alone_last(pip):
    install(PACKAGES)
    ((requirements, alone),) = pip
    assert requirements[0].startswith("torch>=") and len(requirements) == len(PACKAGES) - 2
    assert [each.partition(">")[0] for each in alone] == ["ultralytics", "ultralytics-thop"]


def test_the_pytorch_extension_installs_torch(pip, monkeypatch):
    asked = {}

    class PyTorchUtilsLogic:
        def installTorch(self, askConfirmation, torchVersionRequirement, torchvisionVersionRequirement):
            asked.update(locals())
            return object()

    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=PyTorchUtilsLogic))
    install(PACKAGES)
    assert asked["torchVersionRequirement"] == TORCH[0].versions and not asked["askConfirmation"]
    assert not any(requirement.startswith("torch") for requirement in pip[0][0])


def test_no_network_is_one_sentence_with_instructions(pip, monkeypatch):
    def fail(*given):
        raise OSError("no route to host")

    monkeypatch.setattr(packages, "_pip_install", fail)
    with pytest.raises(InstallError, match="no route to host") as caught:
        install(PACKAGES)
    assert "--no-index" in caught.value.hint


def test_packages_that_are_still_missing_are_named(pip, monkeypatch):
    monkeypatch.setattr(packages, "missing", lambda wanted=PACKAGES: list(wanted)[:1])
    with pytest.raises(InstallError, match="monai"):
        install(PACKAGES[2:])
