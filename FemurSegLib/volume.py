"""Volumes: voxels and where they lie in the patient, and the files they are read from and written to.

volume = read_ct("leg.nii.gz").oriented()
volume.voxels[k, j, i]                  # HU, int16
volume.grid.lps((i, j, k))              # mm towards the patient's left, back and head
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from . import nifti
from .errors import InputError, MemoryExhaustedError, OutputError
from .grid import Grid, box

FORMATS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
NRRD_SPACES = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior")
ORTHOGONAL = 2e-3
"""How far the products of two axes may be from 0 and 1; headers in text are rounded."""
SMALLEST_SIZE = 4
"""Fewest voxels along any axis of a CT; less is a picture or a scout, not a volume."""
LONGEST_SIDE_MM = (10.0, 5000.0)
"""Between these lies the longest side of a CT; else its spacing is not in millimetres."""


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
        lower, upper = box(lower_kji, upper_kji, self.grid.shape)
        window = tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))
        return Volume(self.voxels[window], self.grid.crop(lower, upper))

    def oriented(self) -> Volume:
        """A view of the same voxels with axes nearest to i -> Left, j -> Posterior, k -> Superior."""
        axes, flipped = self.grid.nearest_lps()
        view = self.voxels.transpose([2 - axis for axis in reversed(axes)])
        return Volume(view[_steps(flipped)], self.grid.oriented())


def restore(labels: np.ndarray, grid: Grid) -> np.ndarray:
    """Take an array on `grid.oriented()` back to the axes of `grid`: a view, the inverse of `oriented`.

    Raises ValueError for an array of another shape.
    """
    if labels.shape != grid.oriented().shape:
        raise ValueError(f"labels {labels.shape} do not fit the oriented grid {grid.oriented().shape}")
    axes, flipped = grid.nearest_lps()
    order = [2 - axis for axis in reversed(axes)]
    return labels[_steps(flipped)].transpose(np.argsort(order))


def read_ct(path) -> Volume:
    """Read a CT in Hounsfield units (int16) from a NIfTI, NRRD or MetaImage file or a DICOM folder.

    One file of a DICOM series stands for its series. Other numbers than int16 are rounded and clipped.
    Raises InputError for all that is not a usable CT.
    """
    path = Path(path)
    if path.is_dir() or _is_dicom(path):
        from . import dicom  # its headers need pydicom, which the other formats do not

        volume = dicom.read_series(path)
    else:
        volume = _read(path, np.int16, to_hounsfield)
    if min(volume.grid.shape) < SMALLEST_SIZE:
        raise InputError(
            f"{path.name} has {volume.grid.describe_size()} voxels: too few for a CT volume.",
            "Choose the CT volume itself, not a scout or a single slice.",
        )
    longest_mm = float(np.max(np.multiply(volume.grid.shape[::-1], volume.grid.spacing_mm)))
    if not LONGEST_SIDE_MM[0] <= longest_mm <= LONGEST_SIDE_MM[1]:
        raise InputError(
            f"{path.name} would be {longest_mm:.3g} mm long: its spacing is not in millimetres.",
            "Export the CT again; its header is wrong.",
        )
    if all(plane.min() >= 0 for plane in volume.voxels):
        raise InputError(
            f"{path.name} is not in Hounsfield units: no value is below 0 (air is -1000).",
            "Export the CT again with its rescale intercept (often -1024) applied.",
        )
    return volume


def read_labelmap(path) -> Volume:
    """Read a labelmap (uint8) from a NIfTI, NRRD or MetaImage file. Raises InputError."""
    return _read(Path(path), np.uint8, _to_labels)


def write_volume(path, volume: Volume) -> None:
    """Write a volume, compressed, in the format named by the end of `path`.

    Raises OutputError, leaving no file, when it cannot be written whole.
    """
    path = Path(path)
    if not path.name.lower().endswith(FORMATS):
        raise OutputError(f"{path.name} does not end in a known format.", f"Use one of {', '.join(FORMATS)}.")
    if sibling := nifti.rival(path):
        raise OutputError(
            f"{path.name} would lie beside {sibling.name}, and would not be read.", "Choose another name or folder."
        )
    try:
        sitk.WriteImage(to_sitk(volume), str(path), useCompression=True)
        if nifti.is_nifti(path):
            whole = nifti.is_whole(path)
        else:  # SimpleITK notices by itself, but for the last kilobytes of a NRRD file
            whole = path.suffix.lower() != ".nrrd" or nifti.holds(path, volume.voxels.nbytes)
        if not whole:
            raise InputError("the file is not whole")
    except (RuntimeError, OSError, InputError) as error:
        path.unlink(missing_ok=True)
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
    return Volume(np.asarray(_Buffer(image)), _grid_of(image))


class _Buffer:
    """Lets numpy share an image's memory and keep the image alive as long as the array."""

    def __init__(self, image: sitk.Image):
        self.image = image
        self.__array_interface__ = dict(sitk.GetArrayViewFromImage(image).__array_interface__)
        address, _read_only = self.__array_interface__["data"]
        self.__array_interface__["data"] = (address, False)


def _steps(flipped) -> tuple[slice, ...]:
    """Slices of a (k, j, i) array that reverse the axes flagged in (i, j, k)."""
    return tuple(slice(None, None, -1 if flip else 1) for flip in reversed(flipped))


def to_hounsfield(values: np.ndarray) -> np.ndarray:
    """Numbers of any type as int16: rounded, and clipped to what int16 holds. Raises InputError for NaN."""
    if values.dtype.kind == "f":
        if np.isnan(values).any():
            raise InputError(
                "The CT has voxels that are not numbers (NaN).", "Export the CT again, as 16-bit integers."
            )
        values = np.rint(values)
    return np.clip(values, -32768, 32767).astype(np.int16)


def _to_labels(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        labels = values.astype(np.uint8)
    if not np.array_equal(labels, values):
        raise InputError(
            "This is not a labelmap: it holds other values than whole numbers from 0 to 255.",
            "Choose the labelmap, not the CT.",
        )
    return labels


def _read(path: Path, dtype, convert) -> Volume:
    """Voxels as `dtype`; `convert` takes slices of another type to it, one at a time."""
    if not path.is_file():
        raise InputError(f"There is no file {path}.", "Check the path.")
    if not path.name.lower().endswith(FORMATS):
        raise InputError(
            f"{path.name} is not in a format that is read here.",
            f"Give a DICOM folder or a file that ends in {', '.join(FORMATS)}.",
        )
    try:
        header = nifti.read_header(path) if nifti.is_nifti(path) else None
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        if header:
            reader.SetImageIO("NiftiImageIO")
        reader.ReadImageInformation()
        grid = _grid_of(reader, path.name)
        if reader.GetNumberOfComponents() > 1:
            raise InputError(f"{path.name} holds colours or vectors.", "Export the CT with one number a voxel.")
        if _is_nrrd(path) and (
            not reader.HasMetaDataKey("NRRD_space") or reader.GetMetaData("NRRD_space") not in NRRD_SPACES
        ):
            raise InputError(
                f"{path.name} does not say how the patient lies (its space is not anatomical).",
                "Right and left cannot be told. Export the CT again from its DICOM series.",
            )
        if header:
            return Volume(nifti.read_voxels(path, header, dtype, convert), grid)
        voxels = np.asarray(_Buffer(reader.Execute())).reshape(grid.shape)
        if voxels.dtype != dtype:
            voxels, source = np.empty(grid.shape, dtype), voxels
            for target, plane in zip(voxels, source, strict=True):
                target[:] = convert(plane)
        return Volume(voxels, grid)
    except MemoryError as error:
        raise MemoryExhaustedError(
            f"{path.name} does not fit into memory.", "Close other programs, or check that its header is right."
        ) from error
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise _not_at_right_angles(path.name) from error
        raise InputError(
            f"{path.name} could not be read: it is empty, truncated or damaged.", "Copy or export the file again."
        ) from error


def _grid_of(image: sitk.Image | sitk.ImageFileReader, name: str = "The image") -> Grid:
    """The grid of an image, or of a reader that has read the header. Raises InputError."""
    size, dimension = image.GetSize(), len(image.GetSize())
    if dimension < 3 or max(size[3:], default=1) > 1:
        raise InputError(
            f"{name} is not one 3D volume: its size is {' x '.join(str(n) for n in size)}.",
            "Choose a file that holds a single CT volume.",
        )
    spacing, origin = np.array(image.GetSpacing()[:3]), np.array(image.GetOrigin()[:3])
    direction = np.reshape(image.GetDirection(), (dimension, dimension))[:3, :3]
    if not (np.isfinite([*spacing, *origin]).all() and spacing.min() > 0):
        raise InputError(f"{name} has a spacing or an origin that makes no sense.", "Its header is wrong.")
    if not np.allclose(direction.T @ direction, np.eye(3), atol=ORTHOGONAL):
        raise _not_at_right_angles(name)
    return Grid(size[2::-1], spacing, origin, direction)


def _not_at_right_angles(name: str) -> InputError:
    return InputError(
        f"{name} has axes that are not at right angles.",
        "If the gantry was tilted, resample the CT to an upright grid first.",
    )


def _is_nrrd(path: Path) -> bool:
    return path.name.lower().endswith((".nrrd", ".nhdr"))


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
