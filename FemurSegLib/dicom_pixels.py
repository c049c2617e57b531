"""Pixels of one DICOM file in Hounsfield units.

Uncompressed files are read directly, which is the fast way for the usual thousand slices. Compressed ones
(RLE, JPEG, JPEG-LS, JPEG 2000; lossless and lossy) go through SimpleITK, then through what pydicom finds.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from .errors import InputError
from .volume import to_hounsfield

TAGS = [
    "PixelData", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns", "NumberOfFrames", "RescaleSlope",
    "RescaleIntercept", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip


def read_frames(path: Path) -> np.ndarray:
    """(frames, rows, columns) int16 HU. Raises InputError for damaged or unreadable pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, specific_tags=TAGS)
            if not dataset.get("PixelData"):
                raise InputError(f"{path.name} has no pixels.", "Export the CT series again.")
            compressed = dataset.file_meta.TransferSyntaxUID.is_encapsulated
            if compressed and _frame_count(dataset) == 1:
                hounsfield = _read_with_itk(path)
                if hounsfield is not None:
                    return hounsfield
            stored = _decode(path, dataset) if compressed else _stored_values(path, dataset)
            return np.stack([_rescaled(plane, *_rescale(dataset, at)) for at, plane in enumerate(stored)])
    except (OSError, EOFError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path.name} is damaged: {error}.", "Export the CT series again.") from error


def functional_group(dataset: pydicom.Dataset, frame: int, sequence: str) -> pydicom.Dataset:
    """Where a frame's attributes are: an item of `sequence`, its own or shared; or the data set itself."""
    for groups, at in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        if groups in dataset and len(dataset[groups].value) > at:
            items = dataset[groups].value[at].get(sequence)
            if items:
                return items[0]
    return dataset


def _frame_count(dataset: pydicom.Dataset) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def _stored_values(path: Path, dataset: pydicom.Dataset) -> np.ndarray:
    """(frames, rows, columns) as stored, without unused bits (PS3.5 8.1.1)."""
    bits, stored = dataset.BitsAllocated, dataset.BitsStored
    if bits not in (8, 16, 32):
        raise InputError(
            f"{path.name} stores {bits} bits a pixel, which is not read here.",
            "Export the CT series with 16 bits a pixel.",
        )
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    dtype = np.dtype(f"{order}{'i' if dataset.PixelRepresentation else 'u'}{bits // 8}")
    shape = (_frame_count(dataset), dataset.Rows, dataset.Columns)
    count = int(np.prod(shape))
    if len(dataset.PixelData) < count * dtype.itemsize:
        raise InputError(
            f"{path.name} is truncated: it ends before its last pixel.", "Copy or export the CT series again."
        )
    values = np.frombuffer(dataset.PixelData, dtype, count).reshape(shape)
    if stored < bits:
        high = int(dataset.get("HighBit", stored - 1))
        values = (values.astype(dtype.newbyteorder("=")) << (bits - 1 - high)) >> (bits - stored)
    return values


def _rescale(dataset: pydicom.Dataset, frame: int) -> tuple[float, float]:
    """Slope and intercept (1 and 0 if there are none: read_ct refuses a CT that is then not in HU)."""
    group = functional_group(dataset, frame, "PixelValueTransformationSequence")
    slope, intercept = group.get("RescaleSlope"), group.get("RescaleIntercept")
    return float(1 if slope is None else slope), float(0 if intercept is None else intercept)


def _rescaled(values: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    if slope.is_integer() and intercept.is_integer():
        if (slope, intercept) != (1, 0):
            wide = np.int64 if values.itemsize > 2 else np.int32
            values = values.astype(wide) * int(slope) + int(intercept)
    else:
        values = values * slope + intercept
    return to_hounsfield(values)


def _read_with_itk(path: Path) -> np.ndarray | None:
    """HU by SimpleITK's own decoders (it applies the rescale itself), or None if it cannot decode."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        values = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError:
        return None
    return to_hounsfield(values.reshape(-1, *values.shape[-2:]))


def _decode(path: Path, dataset: pydicom.Dataset) -> np.ndarray:
    try:
        values = dataset.pixel_array
    except Exception as error:  # each decoder has its own kind
        syntax = dataset.file_meta.TransferSyntaxUID
        raise InputError(
            f"{path.name} is compressed as {syntax.name} ({syntax}), and no installed decoder reads it.",
            "Install pylibjpeg, pylibjpeg-libjpeg and pylibjpeg-openjpeg with pip, or export uncompressed.",
        ) from error
    return values.reshape(-1, dataset.Rows, dataset.Columns)
