"""A CT node with two known rods: thick on the patient's right, thin on the left."""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util
import vtk

RADIUS_MM = {"right_femur": 12.0, "left_femur": 8.0}
CENTRE_X_RAS = {"right_femur": 40.0, "left_femur": -40.0}
"""RAS: right is plus."""
HALF_LENGTH_MM = 30.0
SIZE_IJK, SPACING_MM = (100, 48, 60), (1.5, 1.0, 1.25)


def add_ct(name="CT", tilt_degrees=0.0, stored="LPS"):
    """Rods tilted in the coronal plane, in a grid tilted with them; `stored` orders and turns its axes.

    With tilt 0 the rods run along S. "LPS" is how DICOM comes, "LPI" is left-handed.
    """
    turn = vtk.vtkTransform()
    turn.RotateY(tilt_degrees)
    matrix = vtk.vtkMatrix4x4()
    turn.GetMatrix(matrix)
    rotation = slicer.util.arrayFromVTKMatrix(matrix)[:3, :3]
    # axes of the body: (left, posterior, superior) in RAS
    body = {"L": (-1, 0, 0), "R": (1, 0, 0), "P": (0, -1, 0), "A": (0, 1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    order = [{"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}[letter] for letter in stored]
    size, spacing = np.array(SIZE_IJK)[order], np.array(SPACING_MM)[order]
    axes = np.array([body[letter] for letter in stored], float)  # rows: RAS directions of i, j, k before the tilt
    ijk_to_body = np.eye(4)
    ijk_to_body[:3, :3] = axes.T * spacing
    ijk_to_body[:3, 3] = -ijk_to_body[:3, :3] @ ((size - 1) / 2)
    k, j, i = np.indices(size[::-1])
    x, y, z = np.moveaxis(np.stack([i, j, k], -1) @ ijk_to_body[:3, :3].T + ijk_to_body[:3, 3], -1, 0)
    voxels = np.full(size[::-1], -1000, np.int16)
    voxels[x**2 / 75**2 + y**2 / 22**2 < 1] = 40
    for side, radius in RADIUS_MM.items():
        voxels[((x - CENTRE_X_RAS[side]) ** 2 + y**2 < radius**2) & (np.abs(z) <= HALF_LENGTH_MM)] = 1000
    ijk_to_ras = np.eye(4)
    ijk_to_ras[:3, :3] = rotation @ ijk_to_body[:3, :3]
    ijk_to_ras[:3, 3] = rotation @ ijk_to_body[:3, 3]
    node = slicer.util.addVolumeFromArray(voxels, slicer.util.vtkMatrixFromArray(ijk_to_ras), name)
    node.CreateDefaultDisplayNodes()
    return node
