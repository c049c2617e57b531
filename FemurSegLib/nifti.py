"""Voxels of a NIfTI file, read strictly and straight into int16.

SimpleITK reads the geometry (so that it is what Slicer shows), but not the voxels: it takes a truncated or
damaged file without a word, turns a CT with an intercept into 32-bit floats, and decompresses more slowly.
Header fields: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h (SimpleITK does not read NIfTI-2).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InputError

DAMAGED = "Copy or export the file again."
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8"}
HEADER_BYTES = 348
FIELDS = {  # name: (offset, struct format)
    "dim": (40, "8h"), "type": (70, "h"), "pixdim": (76, "8f"), "start": (108, "f"), "slope": (112, "f"),
    "intercept": (116, "f"), "qform": (252, "h"), "sform": (254, "h"), "magic": (344, "4s"),
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What is needed to read the voxels."""

    shape: tuple[int, int, int]  # (k, j, i)
    dtype: np.dtype
    start: int  # bytes before the first voxel
    slope: float
    intercept: float


def is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_header(path: Path) -> Header:
    """The header. Raises InputError for a file that is damaged, not one 3D image, or placed nowhere."""
    if sibling := rival(path):
        raise InputError(
            f"{path.name} lies beside {sibling.name}, and other programs read that one instead.",
            "Move one of them to another folder.",
        )
    try:
        raw = next(_chunks(path), b"")
    except (OSError, zlib.error) as error:
        raise InputError(f"{path.name} is damaged.", DAMAGED) from error
    order = {HEADER_BYTES.to_bytes(4, "little"): "<", HEADER_BYTES.to_bytes(4, "big"): ">"}.get(raw[:4])
    if order is None or len(raw) < HEADER_BYTES:
        raise InputError(f"{path.name} is empty or not a NIfTI-1 file.", DAMAGED)
    fields = {name: struct.unpack_from(order + code, raw, at) for name, (at, code) in FIELDS.items()}
    if not fields["magic"][0].startswith(b"n+1"):
        raise InputError(
            f"{path.name} is an Analyze file or a header without its voxels.", "Export the CT as one NIfTI file."
        )
    count, *dims = fields["dim"]
    dims = list(dims[: max(count, 0)]) + [1] * (3 - count)
    if min(dims) < 1 or max(dims[3:], default=1) > 1:
        sizes = " x ".join(str(n) for n in dims)
        raise InputError(
            f"{path.name} is not one 3D image: its size is {sizes}.",
            "Export a single volume with one value a voxel.",
        )
    if fields["type"][0] not in TYPES:
        raise InputError(
            f"{path.name} holds colours or another type of voxel that is not a CT.",
            "Export the CT with one number a voxel.",
        )
    spacing = fields["pixdim"][1:4]
    if not (np.isfinite(spacing).all() and min(spacing) > 0):
        raise InputError(
            f"{path.name} gives a voxel spacing of {' x '.join(f'{s:g}' for s in spacing)} mm.",
            "Export the CT again; its header is wrong.",
        )
    if fields["qform"][0] <= 0 and fields["sform"][0] <= 0:
        raise InputError(
            f"{path.name} does not say how the patient lies (its qform and sform codes are 0).",
            "Right and left cannot be told. Export the CT again from its DICOM series.",
        )
    slope, intercept = fields["slope"][0], fields["intercept"][0]
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        slope, intercept = 1.0, 0.0  # the standard: no scaling
    dtype = np.dtype(TYPES[fields["type"][0]]).newbyteorder(order)
    start = max(int(fields["start"][0]), HEADER_BYTES)
    return Header(tuple(dims[2::-1]), dtype, start, float(slope), float(intercept))


def read_voxels(path: Path, header: Header, dtype, convert) -> np.ndarray:
    """(k, j, i) voxels of `dtype`. Unless stored as that, each slice passes through `convert(values)` first.

    Raises InputError when the file ends early or its checksum is wrong.
    """
    result = np.empty(header.shape, dtype)
    plain = header.slope == 1 and header.intercept == 0 and header.dtype == result.dtype
    buffer = (
        result.reshape(-1).view(np.uint8)
        if plain
        else np.empty(header.shape[1] * header.shape[2] * header.dtype.itemsize, np.uint8)
    )
    skip, filled, done = header.start, 0, 0
    try:
        for chunk in _chunks(path):
            piece = np.frombuffer(chunk, np.uint8)[skip:]
            skip = max(0, skip - len(chunk))
            while len(piece) and done < len(result):
                taken = piece[: len(buffer) - filled]
                buffer[filled : filled + len(taken)] = taken
                filled, piece = filled + len(taken), piece[len(taken) :]
                if filled == len(buffer):
                    if plain:
                        done = len(result)
                    else:
                        values = buffer.view(header.dtype).reshape(header.shape[1:])
                        result[done] = convert(_scaled(values, header))
                        done, filled = done + 1, 0
    except (OSError, zlib.error) as error:
        raise InputError(f"{path.name} is damaged: {error}.", DAMAGED) from error
    if done < len(result):
        raise InputError(f"{path.name} is truncated: it ends before its last voxel.", DAMAGED)
    return result


def _scaled(values: np.ndarray, header: Header) -> np.ndarray:
    if header.slope == 1 and header.intercept == 0:
        return values
    return values * np.float64(header.slope) + header.intercept


def _chunks(path: Path):
    """The file's bytes, decompressed, a few megabytes at a time. Raises OSError or zlib.error."""
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            while chunk := file.read(4 << 20):
                yield chunk
            return
        file.seek(0)
        stream, data = zlib.decompressobj(wbits=31), b""  # gzip, with its checksum
        while data or (data := file.read(1 << 20)):
            yield stream.decompress(data, 4 << 20)
            data = stream.unconsumed_tail
            if stream.eof:
                data = stream.unused_data or file.read(1 << 20)
                if not data.startswith(b"\x1f\x8b"):
                    return  # the end, or padding behind it
                stream = zlib.decompressobj(wbits=31)
        while piece := stream.decompress(b"", 4 << 20):
            yield piece
        if not stream.eof:
            raise OSError("the compressed data end too early")


def rival(path: Path) -> Path | None:
    """The v.nii beside v.nii.gz, if there is one: SimpleITK reads it when asked for v.nii.gz."""
    sibling = path.with_suffix("")
    return sibling if path.name.lower().endswith(".nii.gz") and sibling.exists() else None


def is_whole(path: Path) -> bool:
    """Whether a file just written has its full length (SimpleITK does not notice a full disk)."""
    header = read_header(path)
    expected = header.start + int(np.prod(header.shape)) * header.dtype.itemsize
    if not path.name.lower().endswith(".gz"):
        return path.stat().st_size == expected
    return holds(path, expected)


def holds(path: Path, count: int) -> bool:
    """Whether a file that ends in gzip says that it holds `count` bytes (modulo 2**32, as RFC 1952 has it)."""
    with path.open("rb") as file:
        file.seek(-4, 2)
        return int.from_bytes(file.read(), "little") == count % 2**32
