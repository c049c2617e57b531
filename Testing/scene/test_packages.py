"""Which Python packages the engine needs in a Slicer, and how they get there."""

from __future__ import annotations

import sys
import types

import pytest

from FemurSegLib.scene import packages
from FemurSegLib.scene.packages import PACKAGES, TORCH, InstallError, Package, install, missing, question


@pytest.fixture
def pip(monkeypatch):
    """The calls of pip; nothing is installed."""
    calls = []
    monkeypatch.setattr(packages, "_pip_install", calls.append)
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


def test_without_the_pytorch_extension_pip_installs_all_those_alone_last(pip):
    install(PACKAGES)
    assert pip[0][0] == "torch>=2.4,<3" and "ultralytics>=8.3,<8.5" not in pip[0]
    assert pip[1] == ["--no-deps", "ultralytics>=8.3,<8.5", "ultralytics-thop>=2,<3"]


def test_the_pytorch_extension_installs_torch(pip, monkeypatch):
    asked = {}

    class PyTorchUtilsLogic:
        def installTorch(self, askConfirmation, torchVersionRequirement, torchvisionVersionRequirement):
            asked.update(locals())
            return object()

    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=PyTorchUtilsLogic))
    install(PACKAGES)
    assert asked["torchVersionRequirement"] == TORCH[0].versions and not asked["askConfirmation"]
    assert not any(requirement.startswith("torch") for call in pip for requirement in call)


def test_no_network_is_one_sentence_with_instructions(pip, monkeypatch):
    def fail(arguments):
        raise OSError("no route to host")

    monkeypatch.setattr(packages, "_pip_install", fail)
    with pytest.raises(InstallError, match="no route to host") as caught:
        install(PACKAGES)
    assert "--no-index" in caught.value.hint


def test_packages_that_are_still_missing_are_named(pip, monkeypatch):
    monkeypatch.setattr(packages, "missing", lambda wanted=PACKAGES: list(wanted)[:1])
    with pytest.raises(InstallError, match="monai"):
        install(PACKAGES[2:])
