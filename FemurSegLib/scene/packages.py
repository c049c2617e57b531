"""The Python packages that the engine needs and Slicer does not bring: which are missing, how large, how to get them.

Nothing is installed without being asked, and nothing is imported here: only the metadata of packages is read.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

from FemurSegLib.errors import FemurSegError


@dataclass(frozen=True)
class Package:
    """`name` and `versions` as pip takes them; `size_mb` on disk, with what it brings along."""

    name: str
    versions: str
    size_mb: int

    @property
    def requirement(self) -> str:
        return f"{self.name}{self.versions}"


TORCH = Package("torch", ">=2.4,<3", 900)
"""Without the libraries for a GPU, which take about 4000 MB more; the PyTorch extension knows which fit."""

PACKAGES = (
    TORCH,
    Package("monai", ">=1.4,<2", 20),
    Package("safetensors", ">=0.4,<1", 2),
    Package("opencv-python-headless", ">=4.9,<6", 150),
)


class InstallError(FemurSegError):
    """The packages are not there, and were not installed."""


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
    gpu = " PyTorch for a GPU takes up to 4000 MB more." if TORCH in packages else ""
    return (
        f"FemurSeg needs these Python packages, which are not installed yet:\n\n{lines}\n\n"
        f"Together about {total} MB are downloaded and installed into this Slicer.{gpu} Install them now?"
    )


def offline_instructions(packages) -> str:
    """How to bring the packages to a machine without a network."""
    names = " ".join(f'"{package.requirement}"' for package in packages)
    return (
        "Without a network: on a computer with the same system and the same Slicer, run\n"
        f"    PythonSlicer -m pip download -d femurseg-packages {names}\n"
        "copy the folder femurseg-packages to this computer, and run here\n"
        f"    PythonSlicer -m pip install --no-index --find-links femurseg-packages {names}\n"
        "PythonSlicer is in the folder bin of Slicer."
    )


def install(packages) -> None:
    """Install `packages`, torch by the PyTorch extension where there. Blocks. Raises InstallError.

    For use in Slicer, after the user has said yes to `question`.
    """
    packages = list(packages)
    try:
        if TORCH in packages and _install_torch():
            packages.remove(TORCH)
        if packages:
            _pip_install([package.requirement for package in packages])
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
    if logic.installTorch(askConfirmation=False, torchVersionRequirement=TORCH.versions) is None:
        raise RuntimeError("the PyTorch extension could not install PyTorch")
    return True


def _pip_install(requirements: list[str]) -> None:
    try:
        from slicer.packaging import pip_install  # 5.12 and later
    except ImportError:
        from slicer.util import pip_install
    pip_install(requirements)
