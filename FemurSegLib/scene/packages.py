"""The Python packages that the engine needs and Slicer does not bring: what is missing, and how to get it.

Nothing is installed without being asked, and nothing is imported here: only the metadata of packages is read.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

from FemurSegLib.errors import FemurSegError


@dataclass(frozen=True)
class Package:
    """`name` and `versions` as pip takes them. `alone`: to be installed without what it asks for."""

    name: str
    versions: str
    size_mb: int
    alone: bool = False

    @property
    def requirement(self) -> str:
        return f"{self.name}{self.versions}"


TORCH = (
    Package("torch", ">=2.8,<3", 760),
    Package("torchvision", ">=0.23,<1", 20),
)
"""Without the libraries for a GPU, which take about 4000 MB more; the PyTorch extension knows which fit. The lower
limits are those of today's MONAI: with less, pip would put another torch in place of the extension's."""

PACKAGES = (
    *TORCH,
    Package("monai", ">=1.4,<2", 20),
    Package("safetensors", ">=0.4,<1", 2),
    Package("opencv-python-headless", ">=4.9,<6", 75),
    Package("psutil", ">=5.9,<8", 1),
    Package("PyYAML", ">=6,<7", 3),
    Package("matplotlib", ">=3.8,<4", 35),
    Package("polars", ">=1,<3", 180),
    # ultralytics would bring a second OpenCV, with a Qt of its own, which does not go with Slicer's.
    Package("ultralytics", ">=8.3,<8.5", 11, alone=True),
    Package("ultralytics-thop", ">=2,<3", 1, alone=True),
)
"""What a Slicer lacks, and the only place where its versions are ranges. `requirements/` and pyproject.toml
pin the set that is tested; Testing/scene/test_packages.py sees that each pin lies in its range."""

SLICER_BRINGS = ("numpy", "scipy", "pillow", "requests", "pydicom", "SimpleITK", "vtk")
"""What the engine needs and every Slicer has."""


class InstallError(FemurSegError):
    """The packages are not there, and were not installed."""

    code = "install"


def missing(packages=PACKAGES) -> list[Package]:
    """Those of `packages` that are not installed in a version that fits."""
    from packaging.specifiers import SpecifierSet

    importlib.invalidate_caches()
    wanted = []
    for package in packages:
        try:
            version = importlib.metadata.version(package.name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        if not version or not SpecifierSet(package.versions).contains(version, prereleases=True):
            wanted.append(package)
    return wanted


def question(packages) -> str:
    """What to ask the user before anything is installed."""
    lines = "\n".join(f"    {package.name}  (about {package.size_mb} MB)" for package in packages)
    total = sum(package.size_mb for package in packages)
    gpu = " PyTorch for a GPU takes up to 4000 MB more." if TORCH[0] in packages else ""
    return (
        f"FemurSeg needs these Python packages, which are not installed yet:\n\n{lines}\n\n"
        f"Together about {total} MB, downloaded and installed into this Slicer.{gpu} Install them now?"
    )


def offline_instructions(packages) -> str:
    """How to bring the packages to a machine without a network."""

    def lines(command):
        text = ""
        for alone, flag in ((False, ""), (True, "--no-deps ")):
            names = " ".join(f'"{package.requirement}"' for package in packages if package.alone == alone)
            text += f"PythonSlicer -m pip {command} {flag}{names}\n" if names else ""
        return text

    return (
        "Without a network: on a computer with the same system and the same Slicer, run\n"
        f"{lines('download -d femurseg-packages')}"
        "Copy the folder femurseg-packages to this computer, and run here\n"
        f"{lines('install --no-index --find-links femurseg-packages')}"
        "PythonSlicer is in the folder bin of Slicer."
    )


def install(packages) -> None:
    """Install `packages`, torch by the PyTorch extension where there. Blocks. Raises InstallError.

    For use in Slicer, after the user has said yes to `question`.
    """
    packages = list(packages)
    try:
        if any(package in TORCH for package in packages) and _install_torch():
            packages = [package for package in packages if package not in TORCH]
        if packages:
            _pip_install(*([p.requirement for p in packages if p.alone == alone] for alone in (False, True)))
    except Exception as error:
        raise InstallError(
            f"The Python packages could not be installed ({error}).", offline_instructions(packages)
        ) from error
    left = missing(packages)
    if left:
        names = ", ".join(package.name for package in left)
        raise InstallError(f"These Python packages are still missing: {names}.", offline_instructions(left))


def _install_torch() -> bool:
    """Let the PyTorch extension choose and install torch; False if there is no such extension."""
    try:
        import PyTorchUtils
    except ImportError:
        return False
    logic = PyTorchUtils.PyTorchUtilsLogic()
    versions = {
        "torchVersionRequirement": TORCH[0].versions,
        "torchvisionVersionRequirement": TORCH[1].versions,
    }
    if logic.installTorch(askConfirmation=False, **versions) is None:
        raise RuntimeError("the PyTorch extension could not install PyTorch")
    return True


def _pip_install(requirements: list[str], alone: list[str]) -> None:
    """Install `requirements`, and `alone` without what they ask for; raises what pip does not like."""
    try:
        from slicer.packaging import pip_install  # Slicer 5.12: a window with what pip says
    except ImportError:
        from slicer.util import pip_install

        options = {}
    else:
        options = {"requester": "FemurSeg"}
    if requirements:
        pip_install(requirements, **options)
    if alone:
        pip_install(["--no-deps", *alone], **options)
