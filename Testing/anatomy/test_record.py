"""The record of both femora: what is in it, and that nothing in a mask makes it fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from anatomy.toy_femur import HEAD_RADIUS, toy_femur
from vtkmodules.util.numpy_support import vtk_to_numpy

from FemurSegLib.anatomy import record
from FemurSegLib.anatomy.bone import Bone
from FemurSegLib.anatomy.hip import find_head
from FemurSegLib.anatomy.landmarks import LANDMARK_NAMES
from FemurSegLib.anatomy.measurements import NAMES
from FemurSegLib.anatomy.record import read_femurs
from FemurSegLib.anatomy.regions import REGION_NAMES
from FemurSegLib.anatomy.thickness import THICKNESS_ARRAY
from FemurSegLib.errors import InputError
from FemurSegLib.grid import Grid
from FemurSegLib.sides import LEFT, RIGHT
from FemurSegLib.surface import surface_of

PARTS = [name for name in REGION_NAMES if name not in ("combination", "whole")]


@pytest.fixture(scope="module")
def femur():
    """(labels, grid, CT): a right femur, a shell of 1000 HU about 3 mm thick, 100 HU inside."""
    from scipy.ndimage import binary_erosion

    labels, grid, _ = toy_femur(spacing_mm=(1.5, 1.5, 1.5))
    ct = np.where(labels > 0, 1000, -100).astype(np.int16)
    ct[binary_erosion(labels > 0, iterations=2)] = 100
    return labels, grid, ct


def test_a_record_holds_landmarks_lines_measurements_and_regions_by_known_names(femur):
    labels, grid, ct = femur
    read = read_femurs(labels, grid, ct)
    assert set(read.femurs) == {RIGHT} and read.findings == []
    right = read.femurs[RIGHT]
    assert set(right["landmarks"]) <= set(LANDMARK_NAMES)
    assert list(right["measurements"]) == list(NAMES)
    assert set(right["regions"]) == set(REGION_NAMES)
    assert right["compartments"] == {"reason": record.NOT_ASKED}
    volumes = {name: region["volume_ml"] for name, region in right["regions"].items()}
    whole = np.count_nonzero(labels) * 1.5**3 / 1000
    assert volumes["whole"] == pytest.approx(whole)
    assert sum(volumes[name] for name in PARTS) == pytest.approx(whole, rel=0.001)
    assert 100 < right["regions"]["head"]["mean_hu"] < 1000


def test_cortex_gives_its_part_of_every_region_and_a_calibration_the_densities(femur):
    from FemurSegLib.anatomy.density import Calibration

    labels, grid, ct = femur
    calibration = Calibration(0.8, -5.0)
    right = read_femurs(labels, grid, ct, compartments="threshold", calibration=calibration).femurs[RIGHT]
    told = right["compartments"]["compartments"]
    assert sum(right["regions"][name]["cortical_ml"] for name in PARTS) == pytest.approx(
        told["cortical"]["volume_ml"], rel=0.002
    )
    assert 0 < right["regions"]["neck"]["cortical_ml"] < right["regions"]["neck"]["volume_ml"]
    assert told["cortical"]["mean_hu"] > told["inside"]["mean_hu"]
    for part in (*told.values(), *right["regions"].values()):
        assert part["density_mg_cm3"] == pytest.approx(0.8 * part["mean_hu"] - 5.0, abs=0.2)


def test_the_thickness_of_the_cortex_is_told_and_painted_without_touching_the_surface_that_was_given(femur):
    labels, grid, ct = femur
    given = surface_of(labels, grid, 1)
    read = read_femurs(labels, grid, ct, surfaces={RIGHT: given}, compartments="threshold")
    right, painted = read.femurs[RIGHT], read.painted[RIGHT]
    thickness = right["compartments"]["thickness"]
    values = vtk_to_numpy(painted.GetPointData().GetArray(THICKNESS_ARRAY))
    assert thickness["mean_mm"] == pytest.approx(np.nanmean(values), abs=0.001) == pytest.approx(3.0, abs=0.8)
    assert thickness["covered"] > 0.9 and thickness["p05_mm"] < thickness["p95_mm"]
    of_regions = {name: right["regions"][name]["cortical_thickness_mm"] for name in PARTS}
    assert all(1 < mm < 6 for mm in of_regions.values())
    assert right["regions"]["whole"]["cortical_thickness_mm"] == thickness["mean_mm"]
    assert painted.GetNumberOfPoints() == given.GetNumberOfPoints()
    assert not given.GetPointData().HasArray(THICKNESS_ARRAY)


def test_without_compartments_there_is_no_thickness(femur):
    labels, grid, ct = femur
    read = read_femurs(labels, grid, ct)
    assert not read.painted
    assert {region["cortical_thickness_mm"] for region in read.femurs[RIGHT]["regions"].values()} == {None}


def test_a_fault_in_reading_one_femur_becomes_a_finding_and_loses_nothing_else(femur, monkeypatch):
    labels, grid, _ = femur
    both = np.concatenate([labels, 2 * labels[:, :, ::-1]], axis=2)
    wide = Grid(both.shape, grid.spacing_mm, grid.origin_mm, grid.direction)
    honest = record.find_landmarks

    def fails(bone):
        if bone.side == LEFT:
            raise np.linalg.LinAlgError("SVD did not converge")
        return honest(bone)

    monkeypatch.setattr(record, "find_landmarks", fails)
    read = read_femurs(both, wide)
    assert set(read.femurs) == {RIGHT}
    (finding,) = read.findings
    assert (finding.code, finding.side) == ("anatomy_unread", LEFT) and "left femur" in finding.message


def test_a_femur_labelled_with_the_wrong_side_becomes_a_warning(femur):
    labels, grid, _ = femur
    read = read_femurs(2 * labels, grid)
    (finding,) = read.findings
    assert (finding.code, finding.side) == ("side_doubtful", LEFT) and "wrong side" in finding.message
    assert read.femurs[LEFT]["measurements"]["anteversion_deg"]["value"] is None


def test_a_piece_that_was_left_out_is_told_with_its_side_and_joint(femur, monkeypatch):
    labels, grid, _ = femur
    honest = record.find_landmarks
    assert read_femurs(labels, grid).femurs[RIGHT]["left_out"] == []
    monkeypatch.setattr(record, "find_landmarks", lambda bone: replace(honest(bone), left_out=("socket", "tibia")))
    read = read_femurs(labels, grid)
    assert read.femurs[RIGHT]["left_out"] == ["socket", "tibia"]
    assert {(finding.code, finding.side) for finding in read.findings} == {("piece_left_out", RIGHT)}
    told = "A piece beside the {} of the right femur was left out of the measurements; look at the mask there."
    assert [finding.message for finding in read.findings] == [told.format("head"), told.format("condyles")]


@pytest.mark.parametrize("voxels", [1, 30, 3000])
def test_crumbs_and_blocks_are_read_without_a_fault(voxels):
    labels = np.zeros((40, 40, 40), np.uint8)
    labels.reshape(-1)[:voxels] = 1
    read = read_femurs(labels, Grid(labels.shape, (1, 1, 1), (0, 0, 0), np.eye(3)))
    assert set(read.femurs) | {finding.side for finding in read.findings} == {RIGHT}
    if read.femurs:
        assert all(m["value"] is None and m["reason"] for m in read.femurs[RIGHT]["measurements"].values())


def test_a_ct_of_another_size_is_refused(femur):
    labels, grid, ct = femur
    with pytest.raises(InputError, match="different sizes"):
        read_femurs(labels, grid, ct[1:])


def both_sides(right: np.ndarray, left: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """Labels of a right femur and of one to be mirrored to the left, side by side."""
    both = np.concatenate([right, 2 * (left[:, :, ::-1] > 0).astype(np.uint8)], axis=2)
    return both, Grid(both.shape, grid.spacing_mm, grid.origin_mm, grid.direction)


@pytest.mark.parametrize("film_mm, doubted", [(1.0, []), (2.2, [("heads_differ", LEFT)])])
def test_a_film_of_the_socket_around_one_head_is_told_beside_the_other_head(femur, film_mm, doubted):
    labels, grid, _ = femur
    _, _, truth = toy_femur(spacing_mm=grid.spacing_mm)
    k, j, i = np.indices(labels.shape)
    points = grid.lps(np.stack([i, j, k], -1))
    filmed = (labels > 0) | (np.linalg.norm(points - truth["head"], axis=-1) < HEAD_RADIUS + film_mm)
    read = read_femurs(*both_sides(labels, filmed.astype(np.uint8), grid))
    assert set(read.femurs) == {RIGHT, LEFT}
    assert [(finding.code, finding.side) for finding in read.findings] == doubted
    assert all("left femur" in finding.message and "4." in finding.message for finding in read.findings)


@pytest.mark.parametrize("person", ["z036", "z049"])
def test_the_heads_of_real_pairs_are_not_doubted(shared_data, person):
    """The two of the 13 pairs of VSD that differ most, but one."""
    with np.load(shared_data / "shapes" / "vsd" / f"{person}.npz") as bones:
        diameters = [
            2
            * find_head(
                Bone(bones[f"{side}_vertices"] * [-1.0, -1.0, 1.0], bones[f"{side}_faces"], side).as_right()
            )[0].radius_mm
            for side in (RIGHT, LEFT)
        ]
    assert 0.5 < abs(diameters[0] - diameters[1]) < 0.7 * record.HEADS_DIFFER_MM
