"""Cortex and canal as two closed surfaces that do not cross."""

from __future__ import annotations

import numpy as np
import pytest
from examples import ellipsoid
from vtkmodules.vtkCommonMath import vtkMatrix4x4
from vtkmodules.vtkFiltersModeling import vtkCollisionDetectionFilter

from FemurSegLib.errors import InputError
from FemurSegLib.grid import Grid
from FemurSegLib.surfaces.nested import clearance_mm, nested_surfaces
from FemurSegLib.surfaces.quality import quality

GRID = Grid((40, 60, 60), (1.0, 1.0, 3.0), (0, 0, 0), np.eye(3))
MIDDLE = GRID.lps(np.array(GRID.shape[::-1]) / 2 - 0.5)
OUTER_MM, INNER_MM = (20, 22, 50), (17, 18, 45)


def crossings(a, b) -> int:
    """Triangles of one surface that meet triangles of the other."""
    filter_ = vtkCollisionDetectionFilter()
    for port, surface in enumerate((a, b)):
        filter_.SetInputData(port, surface)
        filter_.SetMatrix(port, vtkMatrix4x4())
    filter_.SetCollisionModeToAllContacts()
    filter_.Update()
    return filter_.GetNumberOfContacts()


def test_both_surfaces_are_closed_have_their_volumes_and_do_not_meet():
    whole, inside = (ellipsoid(GRID, MIDDLE, radii) for radii in (OUTER_MM, INNER_MM))
    outer, inner = nested_surfaces(whole, inside, GRID)
    for surface, radii, rel in ((outer, OUTER_MM, 0.005), (inner, INNER_MM, 0.01)):
        worth = quality(surface)
        assert worth.closed and worth.pieces == 1 and worth.handles == 0
        assert worth.volume_mm3 == pytest.approx(4 / 3 * np.pi * np.prod(radii), rel=rel)
    assert clearance_mm(inner, outer).min() > 2.0
    assert crossings(outer, inner) == 0


def test_where_there_is_no_cortex_the_inner_surface_gives_way():
    whole = ellipsoid(GRID, MIDDLE, OUTER_MM)
    inside = whole & (np.indices(GRID.shape)[2] > 20)  # open to one side
    outer, inner = nested_surfaces(whole, inside, GRID, gap_mm=0.8)
    assert clearance_mm(inner, outer).min() > 0.79
    assert crossings(outer, inner) == 0
    assert quality(inner).closed and quality(inner).volume_mm3 > 0.9 * np.count_nonzero(inside) * 3 * 0.9


def test_at_a_cut_end_the_canal_is_closed_inside_the_bone():
    whole, inside = (np.ascontiguousarray(ellipsoid(GRID, MIDDLE, r)[12:28]) for r in (OUTER_MM, INNER_MM))
    outer, inner = nested_surfaces(whole, inside, GRID.crop((12, 0, 0), (28, 60, 60)))
    assert clearance_mm(inner, outer).min() > 0.49
    assert quality(inner).closed and crossings(outer, inner) == 0


def test_a_bone_with_nothing_inside_is_an_input_error():
    whole = ellipsoid(GRID, MIDDLE, OUTER_MM)
    with pytest.raises(InputError, match="Nothing lies inside"):
        nested_surfaces(whole, np.zeros_like(whole), GRID)
