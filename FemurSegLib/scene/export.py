"""Files from the segments as they are now, corrected: surfaces for planning, NIfTI pairs for training."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import slicer.util
import vtk

from FemurSegLib.errors import InputError, OutputError
from FemurSegLib.scene.geometry import half_turn
from FemurSegLib.scene.volume_file import write_ct, write_image
from FemurSegLib.sides import DISPLAY_NAMES, LABELS, SIDES
from FemurSegLib.surfaces.files import FORMATS, write_surface

SPACES = ("LPS", "RAS")


@dataclass(frozen=True)
class SurfaceOptions:
    """How a surface is made and written. Raises InputError.

    `smoothing`: 0 (the steps of the voxels) to 1. `decimation`: part of the triangles to take away, 0 to 0.9.
    `space`: axes of the coordinates, millimetres; LPS is what DICOM and most planning programs use. `format`: one
    of `surfaces.files.FORMATS`.
    """

    smoothing: float = 0.5
    decimation: float = 0.0
    space: str = "LPS"
    format: str = "stl"

    def __post_init__(self):
        known = self.space in SPACES and self.format in FORMATS
        if not (0 <= self.smoothing <= 1 and 0 <= self.decimation <= 0.9 and known):
            raise InputError(f"These settings of the surface cannot be used: {self}.", "Use the default values.")


def export_surfaces(run, folder, case="", options=None) -> list[Path]:
    """Write CASE_right_femur.stl and CASE_left_femur.stl; `case` is the CT's name if not given.

    All surfaces are made and checked to be closed before the first file is written. Raises InputError and
    OutputError.
    """
    options = options or SurfaceOptions()
    case = case_name(case or (run.volume.GetName() if run.volume else "femurs"))
    surfaces = {
        side: closed_surface(run.segmentation, segment, options) for side, segment in _segments(run).items()
    }
    _make(folder)
    return [
        write_surface(
            Path(folder) / f"{case}_{side}.{options.format}", surface, f"{case} {side}", space=options.space
        )
        for side, surface in surfaces.items()
    ]


def save_training_case(run, folder, case="") -> tuple[Path, Path]:
    """Write CASE_CT.nii.gz and CASE_femurs.nii.gz (1 right, 2 left) on the same grid.

    Raises InputError and OutputError.
    """
    volume, segments = run.volume, _segments(run)
    if volume is None:
        raise InputError("The CT of this segmentation is no longer in the scene.", "Load it again and segment it.")
    case = case_name(case or volume.GetName())
    labels = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    for side, segment in segments.items():
        labels[slicer.util.arrayFromSegmentBinaryLabelmap(run.segmentation, segment, volume) > 0] = LABELS[side]
    ct, femurs = (Path(folder) / f"{case}_{name}.nii.gz" for name in ("CT", "femurs"))
    _make(folder)
    write_ct(volume, ct)
    image = vtk.vtkImageData()
    image.SetDimensions(labels.shape[::-1])
    from vtk.util.numpy_support import numpy_to_vtk

    image.GetPointData().SetScalars(numpy_to_vtk(labels.ravel(), deep=True))
    write_image(image, volume, femurs)
    return ct, femurs


def closed_surface(segmentation, segment: str, options: SurfaceOptions) -> vtk.vtkPolyData:
    """The surface of one segment in world millimetres (RAS or LPS), closed and with its normals outward.

    Raises InputError if there is none that is closed.
    """
    name = segmentation.GetSegmentation().GetSegment(segment).GetName()
    copy = slicer.vtkSegmentation()
    copy.SetSourceRepresentationName("Binary labelmap")
    copy.CopySegmentFromSegmentation(segmentation.GetSegmentation(), segment)
    copy.GetSegment(segment).RemoveRepresentation("Closed surface")
    copy.SetConversionParameter("Smoothing factor", str(options.smoothing))
    copy.SetConversionParameter("Decimation factor", "0")  # Slicer's own shrinks the bone by several per cent
    copy.SetConversionParameter("Compute surface normals", "0")
    copy.CreateRepresentation("Closed surface", True)
    surface = copy.GetSegment(segment).GetRepresentation("Closed surface")
    if surface is None or not surface.GetNumberOfPolys():
        raise InputError(f"The segment {name} is empty.", "Segment or paint it first.")
    to_world = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(segmentation.GetParentTransformNode(), None, to_world)
    if options.space == "LPS":
        to_world.PostMultiply()
        to_world.Concatenate(half_turn())
    moved, triangles = vtk.vtkTransformPolyDataFilter(), vtk.vtkTriangleFilter()
    moved.SetTransform(to_world)
    moved.SetInputData(surface)
    triangles.SetInputConnection(moved.GetOutputPort())
    last = triangles
    if options.decimation:
        last = vtk.vtkQuadricDecimation()
        last.VolumePreservationOn()
        last.SetTargetReduction(options.decimation)
        last.SetInputConnection(triangles.GetOutputPort())
    last.Update()
    surface = last.GetOutput()
    edges = open_edges(surface)
    if edges:
        raise InputError(
            f"The surface of {name} is not closed ({edges} open edges).",
            "Use less decimation, and remove loose voxels from the segment.",
        )
    return surface


def open_edges(surface) -> int:
    """Number of edges that do not lie between exactly two triangles."""
    edges = vtk.vtkFeatureEdges()
    edges.SetInputData(surface)
    edges.BoundaryEdgesOn()
    edges.NonManifoldEdgesOn()
    edges.FeatureEdgesOff()
    edges.ManifoldEdgesOff()
    edges.Update()
    return edges.GetOutput().GetNumberOfCells()


def case_name(name: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "case"


def _segments(run) -> dict[str, str]:
    """{side: segment id} of the femora that are there, by id, or by name where the user has made one anew."""
    if run.segmentation is None:
        raise InputError("The segmentation is no longer in the scene.", "Run the segmentation again.")
    segmentation = run.segmentation.GetSegmentation()
    found = {}
    for side in SIDES:
        segment = side if side in segmentation.GetSegmentIDs() else None
        segment = segment or segmentation.GetSegmentIdBySegmentName(DISPLAY_NAMES[side])
        if segment:
            found[side] = segment
    if not found:
        raise InputError("There is no segmented femur.", "Run the segmentation first.")
    return found


def _make(folder) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be made.", "Choose another folder.") from error
