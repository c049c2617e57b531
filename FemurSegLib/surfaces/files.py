"""Surfaces in files for planning and for finite elements: STL, OBJ, PLY and VTP, in LPS millimetres.

write_surface("right_femur.ply", surface, "Right femur")

Each says its space where 3D Slicer looks for it: `SPACE=LPS` in the header of an STL and in the comments of OBJ and
PLY, a field `SPACE` in VTP.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from vtkmodules.vtkCommonCore import vtkStringArray
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkIOGeometry import vtkOBJReader, vtkSTLReader
from vtkmodules.vtkIOPLY import vtkPLYReader, vtkPLYWriter
from vtkmodules.vtkIOXML import vtkXMLPolyDataReader, vtkXMLPolyDataWriter

from FemurSegLib.errors import InputError, OutputError
from FemurSegLib.surface import points_of, triangles_of, write_stl

UNITS = "UNITS=mm"


def write_surface(path: Path | str, surface: vtkPolyData, name: str = "", space: str = "LPS") -> Path:
    """Write a closed surface of triangles (mm) in the format that the name ends in, and return its path.

    name: of the bone, for the header. space: LPS or RAS, what the points are in already; the file says so. VTP
    keeps the arrays of the points (distances, thickness) too. Appears whole or not at all. Raises OutputError.
    """
    path = Path(path)
    write = WRITERS.get(path.suffix.lower())
    if write is None:
        raise OutputError(f"{path.name} does not end in a known format.", f"Use one of {', '.join(WRITERS)}.")
    if not surface.GetNumberOfPolys():
        raise OutputError(f"There is no surface to write to {path.name}.", "Check the mask it is made from.")
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        write(partial, surface, name, space)
        if not _is_whole(partial, surface):
            raise OSError("not all of it was written")
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"{path} could not be written.", "Check the folder and the free space.") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def read_surface(path: Path | str) -> vtkPolyData:
    """A surface as it is in a file; points of an STL that lie in one place are one. Raises InputError."""
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path.name} is not a surface that is read here.", f"Give one of {', '.join(READERS)}.")
    reader = reader()
    reader.SetFileName(str(path))
    reader.Update()
    surface = reader.GetOutput()
    if not path.is_file() or not surface.GetNumberOfPolys():
        raise InputError(f"{path.name} holds no surface, or is damaged.", "Write it again.")
    return surface


def _is_whole(path: Path, surface: vtkPolyData) -> bool:
    """Whether a file just written has its end: VTK does not tell of a full disk, and may fall over what it left."""
    points, triangles = surface.GetNumberOfPoints(), surface.GetNumberOfPolys()
    kind, data = path.suffix.lower(), path.read_bytes()
    if kind == ".stl":
        return len(data) == 84 + 50 * triangles
    if kind == ".ply":
        return len(data) >= data.find(b"end_header") + 11 + 12 * points + 13 * triangles
    if kind == ".obj":
        return data.count(b"\nf ") == triangles and data.endswith(b"\n")
    return data.rstrip().endswith(b"</VTKFile>")


def _stl(path: Path, surface: vtkPolyData, name: str, space: str) -> None:
    write_stl(path, surface, name, space)


def _obj(path: Path, surface: vtkPolyData, name: str, space: str) -> None:
    with open(path, "w", encoding="ascii", errors="replace") as file:
        file.write(f"# FemurSeg {name}\n# SPACE={space}\n# {UNITS}\n")
        np.savetxt(file, points_of(surface), "v %.5f %.5f %.5f")
        np.savetxt(file, triangles_of(surface) + 1, "f %d %d %d")


def _ply(path: Path, surface: vtkPolyData, name: str, space: str) -> None:
    writer = vtkPLYWriter()
    for comment in (f"FemurSeg {name}".strip(), f"SPACE={space}", UNITS):
        writer.AddComment(comment)
    _by_vtk(writer, path, surface)


def _vtp(path: Path, surface: vtkPolyData, name: str, space: str) -> None:
    copy = vtkPolyData()
    copy.ShallowCopy(surface)
    for key, value in (("SPACE", space), ("UNITS", "mm"), ("NAME", name)):
        array = vtkStringArray()
        array.SetName(key)
        array.InsertNextValue(value)
        copy.GetFieldData().AddArray(array)
    writer = vtkXMLPolyDataWriter()
    writer.SetDataModeToAppended()
    writer.EncodeAppendedDataOff()
    _by_vtk(writer, path, copy)


def _by_vtk(writer, path: Path, surface: vtkPolyData) -> None:
    with open(path, "wb"):  # an OSError that tells what is wrong; VTK prints to stderr instead
        pass
    writer.SetFileName(str(path))
    writer.SetInputData(surface)
    if not writer.Write():
        raise OSError("it could not be written")


WRITERS = {".stl": _stl, ".obj": _obj, ".ply": _ply, ".vtp": _vtp}
READERS = {".stl": vtkSTLReader, ".obj": vtkOBJReader, ".ply": vtkPLYReader, ".vtp": vtkXMLPolyDataReader}
FORMATS = tuple(suffix[1:] for suffix in WRITERS)
