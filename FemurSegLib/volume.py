"""Volumes: voxels and where they lie in the patient, and the files they are read from and written to.

    volume = read_ct("leg.nii.gz").oriented()
    volume.voxels[k, j, i]                  # HU, int16
    volume.grid.lps((i, j, k))              # mm towards the patient's left, back and head
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError, OutputError

FORMATS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
SMALLEST_SIZE = 4
"""Fewest voxels along any axis of a CT; less is a picture or a scout, not a volume."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels lie in the patient. Left-handed, oblique and permuted axes are all allowed.

    Two grids are compared with `matches`, never with `==`.
    """

    shape: tuple[int, int, int]
    """Number of voxels (k, j, i)."""
    spacing_mm: tuple[float, float, float]
    """Distance of neighbours along (i, j, k)."""
    origin_mm: tuple[float, float, float]
    """LPS position of the centre of voxel [0, 0, 0]."""
    direction: np.ndarray
    """(3, 3); its columns are the LPS unit vectors of the i, j and k axes."""

    def __post_init__(self):
        direction = np.array(self.direction, dtype=float).reshape(3, 3)
        direction.setflags(write=False)
        object.__setattr__(self, "direction", direction)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "spacing_mm", tuple(float(s) for s in self.spacing_mm))
        object.__setattr__(self, "origin_mm", tuple(float(x) for x in self.origin_mm))

    def ijk_to_lps(self) -> np.ndarray:
        """(4, 4) matrix from homogeneous (i, j, k) to LPS millimetres."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.direction * self.spacing_mm
        matrix[:3, 3] = self.origin_mm
        return matrix

    def lps(self, ijk) -> np.ndarray:
        """LPS millimetres of continuous voxel coordinates; both (..., 3)."""
        return np.asarray(ijk, dtype=float) @ (self.direction * self.spacing_mm).T + self.origin_mm

    def ijk(self, lps) -> np.ndarray:
        """Continuous voxel coordinates of LPS points; both (..., 3)."""
        offset = np.asarray(lps, dtype=float) - self.origin_mm
        return offset @ np.linalg.inv(self.direction * self.spacing_mm).T

    def crop(self, lower_kji, upper_kji) -> Grid:
        """The grid of voxels[lower_kji[0]:upper_kji[0], ...]; half open, inside the grid."""
        lower, upper = _box(lower_kji, upper_kji, self.shape)
        return Grid(tuple(upper - lower), self.spacing_mm, self.lps(lower[::-1]), self.direction)

    def oriented(self) -> Grid:
        """The same voxels, with axes taken in the order and sense nearest to Left, Posterior, Superior."""
        axes, flipped = self._nearest_lps()
        sign = np.where(flipped, -1.0, 1.0)
        size = np.array(self.shape[::-1])
        corner = np.zeros(3)
        for axis, flip in zip(axes, flipped, strict=True):
            corner[axis] = size[axis] - 1 if flip else 0
        return Grid(
            tuple(size[axes][::-1]),
            np.array(self.spacing_mm)[axes],
            self.lps(corner),
            self.direction[:, axes] * sign,
        )

    def matches(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same shape and no voxel differs in place by more than `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape[::-1]])).reshape(3, -1).T
        return bool(np.linalg.norm(self.lps(corners) - other.lps(corners), axis=1).max() <= tolerance_mm)

    def _nearest_lps(self) -> tuple[list[int], list[bool]]:
        """For each of L, P, S: which of (i, j, k) runs along it, and whether it runs backwards."""
        closeness = np.abs(self.direction).round(6)
        axes = max(permutations(range(3)), key=lambda order: sum(closeness[row, order[row]] for row in range(3)))
        return list(axes), [bool(self.direction[row, axis] < 0) for row, axis in enumerate(axes)]


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels (k, j, i) and their grid: int16 HU for a CT, uint8 for a labelmap."""

    voxels: np.ndarray
    grid: Grid

    def __post_init__(self):
        if self.voxels.shape != self.grid.shape:
            raise ValueError(f"voxels {self.voxels.shape} do not fit the grid {self.grid.shape}")

    def crop(self, lower_kji, upper_kji) -> Volume:
        """A view of the voxels from `lower_kji` up to, not including, `upper_kji`."""
        lower, upper = _box(lower_kji, upper_kji, self.grid.shape)
        window = tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))
        return Volume(self.voxels[window], self.grid.crop(lower, upper))

    def oriented(self) -> Volume:
        """A view of the same voxels with axes nearest to i -> Left, j -> Posterior, k -> Superior."""
        axes, flipped = self.grid._nearest_lps()
        view = self.voxels.transpose([2 - axis for axis in reversed(axes)])
        return Volume(view[_steps(flipped)], self.grid.oriented())


def restore(labels: np.ndarray, grid: Grid) -> np.ndarray:
    """Take an array that lies on `grid.oriented()` back to the axes of `grid`; a view, the inverse of `oriented`."""
    axes, flipped = grid._nearest_lps()
    order = [2 - axis for axis in reversed(axes)]
    return labels[_steps(flipped)].transpose(np.argsort(order))


def read_ct(path) -> Volume:
    """Read a CT in Hounsfield units (int16) from a NIfTI, NRRD or MetaImage file or a DICOM folder.

    One file of a DICOM series stands for its series. Raises InputError for all that is not a usable CT.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no file or folder {path}.", "Check the path.")
    if path.is_dir() or _is_dicom(path):
        from . import dicom  # reading its headers needs pydicom, which the other formats do not

        return dicom.read_series(path)
    volume = from_sitk(_read_image(path))
    if min(volume.grid.shape) < SMALLEST_SIZE:
        size = " x ".join(str(n) for n in volume.grid.shape[::-1])
        raise InputError(f"{path.name} has {size} voxels, which is too few for a CT volume.",
                         "Choose the CT volume itself, not a scout or a single slice.")
    return Volume(_as_hounsfield(volume.voxels, path), volume.grid)


def read_labelmap(path) -> Volume:
    """Read a labelmap (uint8) from a NIfTI, NRRD or MetaImage file. Raises InputError."""
    path = Path(path)
    volume = from_sitk(_read_image(path))
    labels = volume.voxels
    if labels.dtype != np.uint8:
        small = labels.astype(np.uint8)
        if not np.array_equal(small, labels):
            raise InputError(f"{path.name} is not a labelmap: it holds values other than whole numbers from 0 to 255.")
        labels = small
    return Volume(labels, volume.grid)


def write_volume(path, volume: Volume) -> None:
    """Write a volume, compressed, in the format named by the end of `path`. Raises OutputError."""
    path = Path(path)
    if not path.name.lower().endswith(FORMATS):
        raise OutputError(f"{path.name} does not end in a known format.", f"Use one of {', '.join(FORMATS)}.")
    try:
        sitk.WriteImage(to_sitk(volume), str(path), useCompression=True)
    except RuntimeError as error:
        raise OutputError(f"{path} could not be written.", "Check the folder and the free space.") from error


def to_sitk(volume: Volume) -> sitk.Image:
    """The volume as a SimpleITK image (a copy)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.voxels))
    image.SetSpacing(volume.grid.spacing_mm)
    image.SetOrigin(volume.grid.origin_mm)
    image.SetDirection(volume.grid.direction.ravel())
    return image


def from_sitk(image: sitk.Image) -> Volume:
    """A 3D scalar SimpleITK image as a volume that shares its memory (do not change the image afterwards)."""
    grid = Grid(image.GetSize()[::-1], image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return Volume(np.asarray(_Buffer(image)), grid)


class _Buffer:
    """Lets numpy share an image's memory and keep the image alive as long as the array."""

    def __init__(self, image: sitk.Image):
        self.image = image
        self.__array_interface__ = dict(sitk.GetArrayViewFromImage(image).__array_interface__)
        address, _read_only = self.__array_interface__["data"]
        self.__array_interface__["data"] = (address, False)


def _box(lower_kji, upper_kji, shape) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = np.array(lower_kji, dtype=int), np.array(upper_kji, dtype=int)
    if (lower < 0).any() or (upper > shape).any() or (lower >= upper).any():
        raise ValueError(f"the box {lower}..{upper} is empty or leaves the grid {shape}")
    return lower, upper


def _steps(flipped) -> tuple[slice, ...]:
    """Slices of a (k, j, i) array that reverse the axes flagged in (i, j, k)."""
    return tuple(slice(None, None, -1 if flip else 1) for flip in reversed(flipped))


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _read_image(path: Path) -> sitk.Image:
    try:
        return sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path.name} could not be read.", "The file is damaged or not an image.") from error


def _as_hounsfield(voxels: np.ndarray, path: Path) -> np.ndarray:
    """Any numbers as int16, slice by slice; rounded, and clipped to what int16 holds."""
    if voxels.dtype == np.int16:
        return voxels
    result = np.empty(voxels.shape, np.int16)
    for source, target in zip(voxels, result, strict=True):
        if source.dtype.kind == "f":
            if np.isnan(source).any():
                raise InputError(f"{path.name} has voxels that are not numbers (NaN).",
                                 "Export the CT again, as 16-bit integers.")
            source = np.rint(source)
        np.clip(source, -32768, 32767, out=target, casting="unsafe")
    return result
