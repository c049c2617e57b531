"""The endosteal surface of painted femora, against what the tissue says of their cortex."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy_person import toy_person

from FemurSegLib.grid import Grid
from FemurSegLib.phantom.anatomy import sample_anatomy
from FemurSegLib.phantom.case import make_phantom
from FemurSegLib.phantom.paint import Painter
from FemurSegLib.phantom.scanner import Scanner
from FemurSegLib.phantom.tissue import sample_tissue
from FemurSegLib.sides import LABELS

QUIET = Scanner(0.0, 0.0, 0.0, 2.0, 0.0, 0.5, 0.0, 1.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def anatomy():
    person = toy_person()
    return sample_anatomy([person], person, 1)


@pytest.fixture(scope="module")
def tissue():
    """A cortex that stands out from what is around it and within."""
    return replace(
        sample_tissue(1),
        warp_mm=0.0,
        roughness_mm=0.0,
        osteophyte_mm=0.0,
        metal="",
        cortex_shaft=1400.0,
        cortex_joint=1400.0,
        cortex_shaft_mm=5.0,
        cortex_joint_mm=3.0,
        trabecular=100.0,
        trabecular_texture=0.0,
        marrow=100.0,
        loaded=0.0,
    )


def grid_of(anatomy, spacing=(1.5, 1.5, 1.5)) -> Grid:
    low, high = anatomy.bones["left_femur"].bounds_mm()
    size = np.ceil((high - low) / spacing).astype(int)
    return Grid(tuple(size[::-1]), spacing, tuple(low), np.eye(3))


@pytest.fixture(scope="module")
def painted(anatomy, tissue):
    return Painter(anatomy, tissue=tissue).paint_surfaces(grid_of(anatomy))


def test_surfaces_are_painted_along_with_the_same_voxels(anatomy, tissue, painted):
    hu, labels = Painter(anatomy, tissue=tissue).paint(grid_of(anatomy))
    assert np.array_equal(hu, painted.hu) and np.array_equal(labels, painted.labels)
    assert np.array_equal(painted.labels > 0, painted.periosteal_mm < 0)


def test_the_cortex_lies_between_the_surfaces_and_is_as_thick_as_the_tissue_says(anatomy, painted):
    inside = painted.labels.numpy() == LABELS["left_femur"]
    thickness = (painted.endosteal_mm - painted.periosteal_mm).numpy()[inside]
    assert (thickness > 0).all()
    k = np.argwhere(inside)[:, 0]
    height = (k - k.min()) / (k.max() - k.min())
    shaft = (height > 0.45) & (height < 0.6)
    joint = (height < 0.1) | (height > 0.9)
    assert np.median(thickness[shaft]) == pytest.approx(5.0, rel=0.08)
    assert np.median(thickness[joint]) == pytest.approx(3.0, rel=0.08)


def test_hounsfield_units_are_halfway_between_cortex_and_content_on_the_endosteal_surface(painted):
    femur = painted.labels.numpy() == LABELS["left_femur"]
    hu, depth = painted.hu.numpy(), painted.endosteal_mm.numpy()
    periosteal = painted.periosteal_mm.numpy()
    assert np.median(hu[femur & (depth > 1) & (periosteal < -1)]) == pytest.approx(1400, abs=5)
    assert np.median(hu[femur & (depth < -6)]) == pytest.approx(100, abs=60)
    on = femur & (np.abs(depth) < 0.1) & (periosteal < -2)
    assert on.sum() > 50
    assert np.median(hu[on]) == pytest.approx(750, abs=60)


def test_there_is_no_endosteal_surface_far_from_femora(painted):
    outside = painted.labels.numpy() == 0
    assert (painted.endosteal_mm.numpy()[outside] > 0).all()


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (4.0, 4.0, 3.5)])
def test_a_phantom_tells_its_endosteal_surface_only_if_asked_and_is_the_same_otherwise(anatomy, tissue, spacing):
    grid = grid_of(anatomy, spacing)
    plain = make_phantom(anatomy, grid, scanner=QUIET, tissue=tissue)
    told = make_phantom(anatomy, grid, scanner=QUIET, tissue=tissue, surfaces=True)
    assert plain.endosteal_mm is None
    assert np.array_equal(plain.ct.voxels, told.ct.voxels) and np.array_equal(
        plain.labels.voxels, told.labels.voxels
    )
    inside = told.endosteal_mm < 0
    assert inside.any() and not (inside & (told.labels.voxels == 0)).any()
