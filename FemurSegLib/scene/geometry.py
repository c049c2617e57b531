"""LPS of the engine to RAS of the scene and back, and the matrices between voxels and the scene."""

from __future__ import annotations

import numpy as np
import vtk


def flip(points) -> np.ndarray:
    """LPS millimetres as RAS, or RAS as LPS; (..., 3). Directions too."""
    return np.asarray(points, dtype=float) * (-1.0, -1.0, 1.0)


def half_turn() -> vtk.vtkTransform:
    """The same for surfaces, whose triangles keep their sense: a half turn about the head's axis."""
    turn = vtk.vtkTransform()
    turn.Scale(-1, -1, 1)
    return turn


def frame(axes, origin, spacing=(1.0, 1.0, 1.0)) -> np.ndarray:
    """(4, 4) matrix with the unit vectors `axes` (3 rows) times `spacing` as columns, placed at `origin`."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(axes, dtype=float).T * spacing
    matrix[:3, 3] = origin
    return matrix


def right_handed(axes) -> np.ndarray:
    """The same three axes (rows) with the last one turned round if need be, so that they form a rotation."""
    axes = np.array(axes, dtype=float)
    if np.linalg.det(axes) < 0:
        axes[2] *= -1
    return axes
