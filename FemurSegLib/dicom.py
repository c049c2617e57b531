"""A CT series in a DICOM folder: which one, in which order, and whether it is whole.

Position and orientation come from Image Position and Image Orientation (Patient) alone (DICOM PS3.3 C.7.6.2),
so it does not matter how the patient was laid down or in which order the files are named.
"""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from .dicom_pixels import functional_group, read_frames
from .errors import InputError
from .grid import Grid
from .volume import ORTHOGONAL, Volume

SMALLEST_SERIES = 4
"""Fewest slices of a volume; shorter series are scouts."""
GAP = 1.5
"""A distance of neighbours above this many times the usual one is a missing slice."""
UNEVEN = 0.25
"""How far (of the slice distance) a slice may lie from where even spacing puts it."""
SIDEWAYS = 0.5
"""How far (of the pixel spacing) a slice may lie beside the line through the first one along the normal."""
NOT_A_SLICE = {"LOCALIZER", "SCREEN SAVE", "DOSE", "DOSE_INFO", "MIP", "MINIP", "3D", "VRT"}
"""Values of Image Type of pictures that are no slices."""
CT_CLASSES = {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
HOUNSFIELD = {"HU", "HU_MOD", "US"}  # US: unspecified, as many older scanners write for HU
TAGS = [
    "SOPInstanceUID", "SOPClassUID", "ImageType", "Modality", "SeriesInstanceUID", "SeriesDescription",
    "SeriesNumber", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns",
    "SamplesPerPixel", "NumberOfFrames", "RescaleType", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """One image of a series, or one frame of an enhanced CT; lengths in mm, LPS."""

    path: Path
    frame: int
    instance: str
    position: tuple[float, ...]
    orientation: tuple[float, ...]  # of a row, then of a column
    spacing: tuple[float, float]  # between rows, between columns
    size: tuple[int, int]  # rows, columns


@dataclass(frozen=True)
class Series:
    """The slices of one CT series, in the order of the files."""

    uid: str
    description: str
    number: int
    slices: tuple[Slice, ...]

    @property
    def is_axial(self) -> bool:
        """Whether most slices lie across the body (within 45 degrees), not along it."""
        normals = np.abs([_normal(item) for item in self.slices])
        return bool(np.mean(normals.argmax(axis=1) == 2) > 0.5)


def read_series(path) -> Volume:
    """The CT of a DICOM folder, searched with its subfolders, or of the series that one file belongs to.

    Of several series the axial one with most slices is taken. Its i axis runs along a row of pixels, j along
    a column, k along their cross product. Raises InputError if there is no CT, or if the slices do not make
    up a whole, even, upright volume.
    """
    path = Path(path)
    series = choose_series(find_series(path), path)
    ordered, grid = arrange(series)
    voxels = np.empty(grid.shape, np.int16)
    places = defaultdict(list)
    for place, item in enumerate(ordered):
        places[item.path].append((place, item.frame))
    for file, members in places.items():
        frames = read_frames(file)
        for place, frame in members:
            voxels[place] = frames[frame]
    return Volume(voxels, grid)


def find_series(path) -> list[Series]:
    """All CT series below a folder, or the one of a file in its own folder.

    Raises InputError if there is none, saying what is there.
    """
    path = Path(path)
    wanted, files = None, _files(path)
    if path.is_file():
        wanted, path = _header(path), path.parent
        files = (file for file in _files(path) if file.parent == path)
    found, names, others = defaultdict(list), {}, set()
    for file in files:
        header = _header(file)
        if header is None or (wanted and header.get("SeriesInstanceUID") != wanted.get("SeriesInstanceUID")):
            continue
        reason = _why_not_a_slice(header, file)
        if reason:
            others.add(reason)
            continue
        uid = str(header.get("SeriesInstanceUID", ""))
        names[uid] = (str(header.get("SeriesDescription") or ""), _series_number(header))
        found[uid] += _slices(header, file)
    if not found:
        reasons = f": only {', '.join(sorted(others))}" if others else ": no DICOM files"
        raise InputError(f"There is no CT series in {path}{reasons}.", "Choose the folder of a CT series.")
    return [Series(uid, *names[uid], tuple(slices)) for uid, slices in found.items()]


def choose_series(candidates: list[Series], path: Path) -> Series:
    """The axial series with most slices; of equals the one with the lowest number. Raises InputError."""
    best = min(candidates, key=lambda one: (not one.is_axial, -len(one.slices), one.number, one.uid))
    if len(best.slices) < SMALLEST_SERIES:
        raise InputError(
            f"The longest CT series in {path} has only {len(best.slices)} slices.",
            "Choose the folder with the CT volume itself, not a scout or a single slice.",
        )
    return best


def arrange(series: Series) -> tuple[list[Slice], Grid]:
    """The slices in ascending order along their normal, and their grid. Raises InputError if faulty."""
    slices = list({item.instance: item for item in series.slices}.values())  # copies of one image count once
    first = slices[0]
    for name, values, tolerance in (
        ("sizes", [item.size for item in slices], 0),
        ("pixel spacings", [item.spacing for item in slices], 1e-3),
        ("orientations", [item.orientation for item in slices], 1e-3),
    ):
        if np.abs(np.subtract(values, values[0])).max() > tolerance:
            raise _fault(series, f"mixes slices of different {name}", "Export each CT series to its own folder.")
    row, column = np.reshape(first.orientation, (2, 3))
    products = [row @ row, column @ column, row @ column]
    if not np.allclose(products, [1, 1, 0], atol=ORTHOGONAL) or min(first.spacing) <= 0:
        raise _fault(series, "has an orientation or a pixel spacing that makes no sense", "Export it again.")
    normal = _normal(first)
    slices.sort(key=lambda item: float(normal @ item.position))
    positions = np.array([item.position for item in slices])
    step = _even_step(series, positions @ normal)
    _check_upright(series, positions, normal, min(first.spacing))
    spacing = (first.spacing[1], first.spacing[0], step)
    shape = (len(slices), *first.size)
    return slices, Grid(shape, spacing, positions[0], np.stack([row, column, normal], axis=1))


def _even_step(series: Series, along: np.ndarray) -> float:
    """Distance in mm of sorted places along the normal. Raises InputError for doubled or missing slices."""
    steps = np.diff(along)
    doubled = np.flatnonzero(steps < 1e-3)
    if len(doubled):
        place = along[doubled[0]]
        raise _fault(
            series,
            f"has {len(doubled)} slices at the same place as another (at {place:.1f} mm)",
            "It may hold two acquisitions or phases: export them to separate folders.",
        )
    usual = float(np.median(steps))
    gaps = np.flatnonzero(steps > GAP * usual)
    if len(gaps):
        places = ", ".join(
            f"{steps[at]:.1f} mm between {along[at]:.1f} and {along[at + 1]:.1f} mm" for at in gaps[:3]
        )
        more = f" and {len(gaps) - 3} more" if len(gaps) > 3 else ""
        raise _fault(
            series,
            f"lacks slices: gaps of {places}{more}, where slices are {usual:.2f} mm apart",
            "Export the whole series again.",
        )
    even = np.linspace(along[0], along[-1], len(along))
    if np.abs(along - even).max() > UNEVEN * usual:
        raise _fault(
            series,
            f"has unevenly spaced slices ({steps.min():.2f} to {steps.max():.2f} mm apart)",
            "Ask for a reconstruction with one slice distance.",
        )
    return float((along[-1] - along[0]) / (len(along) - 1))


def _check_upright(series: Series, positions: np.ndarray, normal: np.ndarray, pixel_mm: float) -> None:
    offsets = positions - positions[0]
    sideways = offsets - np.outer(offsets @ normal, normal)
    drift = np.linalg.norm(sideways, axis=1)
    if drift.max() <= SIDEWAYS * pixel_mm:
        return
    straight = np.outer(np.linspace(0, 1, len(positions)), sideways[-1])
    if np.linalg.norm(sideways - straight, axis=1).max() <= SIDEWAYS * pixel_mm:
        angle = np.degrees(np.arctan2(drift[-1], offsets[-1] @ normal))
        raise _fault(
            series,
            f"was scanned with the gantry tilted by {angle:.1f} degrees",
            "Resample it to an upright grid first, for example when 3D Slicer offers to on import.",
        )
    raise _fault(
        series,
        f"has slices that are shifted sideways by up to {drift.max():.1f} mm",
        "It may hold two scans with the table moved: export them to separate folders.",
    )


def _normal(item: Slice) -> np.ndarray:
    normal = np.cross(item.orientation[:3], item.orientation[3:])
    return normal / max(np.linalg.norm(normal), 1e-9)


def _fault(series: Series, what: str, hint: str) -> InputError:
    name = f'"{series.description}"' if series.description else f"number {series.number}"
    return InputError(f"The CT series {name} {what}.", hint)


def _files(folder: Path):
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _header(path: Path) -> pydicom.Dataset | None:
    """The tags named above, or None for a file that is not DICOM. Raises InputError for a damaged one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
    except InvalidDicomError:
        if path.suffix.lower() != ".dcm":
            return None
        raise InputError(f"{path} is empty or not DICOM.", "Copy or export the CT series again.") from None
    except (EOFError, OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}.", "Copy or export the CT series again.") from error


def _series_number(header: pydicom.Dataset) -> int:
    """0 where there is none, or none that is a number, as some archives write: it only breaks ties."""
    try:
        return int(header.get("SeriesNumber") or 0)
    except ValueError:
        return 0


def _why_not_a_slice(header: pydicom.Dataset, path: Path) -> str:
    """Empty for a slice of a CT in HU; else what the file is, in words for a message."""
    if header.file_meta.get("MediaStorageSOPClassUID") in CT_CLASSES and "Rows" not in header:
        raise InputError(f"{path} is truncated: it ends in its header.", "Copy the CT series again.")
    modality = str(header.get("Modality") or "files without a modality")
    if modality != "CT":
        return modality
    image_type = {str(value).upper() for value in header.get("ImageType") or ()}
    if image_type & NOT_A_SLICE:
        return "scouts, projections or screens"
    if int(header.get("SamplesPerPixel") or 1) != 1:
        return "colour pictures"
    if str(header.get("RescaleType") or "HU").upper() not in HOUNSFIELD:
        return f"CT maps in {header.RescaleType} instead of HU"
    position = functional_group(header, 0, "PlanePositionSequence").get("ImagePositionPatient")
    orientation = functional_group(header, 0, "PlaneOrientationSequence").get("ImageOrientationPatient")
    spacing = functional_group(header, 0, "PixelMeasuresSequence").get("PixelSpacing")
    if not (position and orientation and spacing and header.get("Rows") and header.get("Columns")):
        return "CT images without a position"
    return ""


def _slices(header: pydicom.Dataset, path: Path) -> list[Slice]:
    """The one slice of a plain image, or those of each frame of an enhanced one (PS3.3 C.7.6.16)."""

    def numbers(frame, sequence, name):
        return tuple(float(value) for value in functional_group(header, frame, sequence)[name].value)

    size = (int(header.Rows), int(header.Columns))
    uid = str(header.get("SOPInstanceUID") or path)
    try:
        return [
            Slice(
                path,
                frame,
                f"{uid} {frame}",
                numbers(frame, "PlanePositionSequence", "ImagePositionPatient"),
                numbers(frame, "PlaneOrientationSequence", "ImageOrientationPatient"),
                numbers(frame, "PixelMeasuresSequence", "PixelSpacing"),
                size,
            )
            for frame in range(int(header.get("NumberOfFrames") or 1))
        ]
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} has a frame without a position.", "Export it as single-frame CT.") from error
