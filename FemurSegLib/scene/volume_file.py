"""A CT volume node as a file for the engine, placed where the scene shows it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import slicer
import slicer.util
import vtk

from FemurSegLib.errors import InputError, OutputError

LOWEST_HU, BONE_HU = -100, 300
"""A CT of a leg has air or fat below the first and bone above the second."""

NIFTI_HEADER_BYTES = 352

SHEAR_TOLERANCE = 1e-3
"""Largest cosine between two voxel axes; beyond it the volume has no place in a NIfTI, NRRD or DICOM grid."""


def check_ct(volume) -> None:
    """Raise InputError, in words for the user, if the volume node cannot be a CT for the engine."""
    if volume is None:
        raise InputError("No CT volume is chosen.", "Choose a CT volume first.")
    image = volume.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise InputError(f"{volume.GetName()} holds no voxels.", "Load the CT again.")
    if image.GetNumberOfScalarComponents() != 1 or volume.IsA("vtkMRMLLabelMapVolumeNode"):
        raise InputError(
            f"{volume.GetName()} is not a CT: it is a label map or a colour image.",
            "Choose the CT volume itself.",
        )
    low, high = image.GetScalarRange()
    if not (low < LOWEST_HU and high > BONE_HU):
        raise InputError(
            f"{volume.GetName()} does not look like a CT in Hounsfield units: "
            f"its values run from {low:g} to {high:g}.",
            "Choose a CT. If it is one, load it from DICOM, so that its values become Hounsfield units.",
        )
    ijk_to_world_ras(volume)


def ijk_to_world_ras(volume) -> np.ndarray:
    """(4, 4) from voxel (i, j, k) to RAS in the world, all linear transforms above the node included.

    Raises InputError under a non-linear transform, and if the axes are no longer at right angles.
    """
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    result = slicer.util.arrayFromVTKMatrix(matrix)
    transform = volume.GetParentTransformNode()
    if transform is not None:
        if not transform.IsTransformToWorldLinear():
            raise InputError(
                f"{volume.GetName()} is under a transform that bends it.",
                "Harden the transform on the volume first (Data module, right click on the transform).",
            )
        to_world = vtk.vtkMatrix4x4()
        transform.GetMatrixTransformToWorld(to_world)
        result = slicer.util.arrayFromVTKMatrix(to_world) @ result
    axes = result[:3, :3] / np.linalg.norm(result[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR_TOLERANCE:
        raise InputError(
            f"{volume.GetName()} is sheared: its axes are not at right angles.",
            "Resample the volume first (Resample Scalar/Vector/DWI Volume module).",
        )
    return result


def write_ct(volume, path) -> Path:
    """Write the voxels as they are with their place in the world, NRRD (not compressed) or NIfTI.

    The scene is not touched. Raises InputError, OutputError.
    """
    return write_image(volume.GetImageData(), volume, path)


def write_image(image, volume, path) -> Path:
    """Write vtkImageData that lies on the voxels of the node `volume`, with their place in the world."""
    copy = slicer.vtkMRMLScalarVolumeNode()
    copy.SetAndObserveImageData(image)
    copy.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijk_to_world_ras(volume)))
    nrrd = str(path).endswith(".nrrd")
    storage = slicer.vtkMRMLNRRDStorageNode() if nrrd else slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetUseCompression(not nrrd)
    if not storage.WriteData(copy):
        raise OutputError(
            f"{Path(path).name} could not be written to {Path(path).parent}.",
            "Check the folder and the free space on this disk.",
        )
    if not nrrd:
        check_complete(Path(path), image)
    return Path(path)


def check_complete(path: Path, image) -> None:
    """Raise OutputError, and remove the file, if a .nii.gz was cut off by a full disk: ITK does not notice.

    The last four bytes of gzip are the length of what was packed: the NIfTI header and the voxels.
    """
    scalars = image.GetPointData().GetScalars()
    length = NIFTI_HEADER_BYTES + scalars.GetNumberOfValues() * scalars.GetDataTypeSize()
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        complete = int.from_bytes(file.read(), "little") == length % 2**32
    if not complete:
        path.unlink()
        raise OutputError(
            f"{path.name} could not be written to {path.parent}.", "Check the free space on this disk."
        )
