from __future__ import annotations

import numpy as np
import pytest
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from FemurSegLib.phantom.distance import PADDING_MM, distance_field


def sphere_mesh(center, radius, resolution=80):
    source = vtk.vtkSphereSource()
    source.SetCenter(center)
    source.SetRadius(radius)
    source.SetThetaResolution(resolution)
    source.SetPhiResolution(resolution)
    source.Update()
    mesh = source.GetOutput()
    faces = vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    return vtk_to_numpy(mesh.GetPoints().GetData()).astype(float), faces


@pytest.mark.parametrize("spacing_mm", [1.0, 1.5])
def test_distance_to_a_sphere_is_exact_to_a_tenth_of_a_millimetre(spacing_mm):
    center, radius = np.array([3.0, -20.0, 140.0]), 22.0
    field = distance_field(*sphere_mesh(center, radius), spacing_mm)
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(4000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for away in (-2.0, -0.5, 0.0, 0.5, 2.0):
        got = field.at(center + directions * (radius + away))
        assert np.abs(got - away).max() < 0.2
        assert np.abs(got - away).mean() < 0.06
    at = np.argwhere(np.abs(field.distance) < 30)
    true = np.linalg.norm(field.origin_mm + at[:, ::-1] * spacing_mm - center, axis=1) - radius
    assert np.abs(field.distance[tuple(at.T)] * 0.1 - true).max() <= 0.1


def test_inside_is_negative_and_far_is_far():
    field = distance_field(*sphere_mesh((0, 0, 0), 20.0), 1.0)
    assert field.at(np.zeros((1, 3)))[0] == pytest.approx(-12.7, abs=0.01)
    assert field.at(np.array([[500.0, 0, 0]]))[0] == pytest.approx(12.7, abs=0.01)
    assert np.allclose(field.corners_mm[0], -20 - PADDING_MM, atol=0.1)
