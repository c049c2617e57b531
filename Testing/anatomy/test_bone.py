from __future__ import annotations

import numpy as np
import pytest
from anatomy.toy_femur import toy_femur

from FemurSegLib.anatomy.bone import Bone
from FemurSegLib.errors import InputError
from FemurSegLib.grid import Grid
from FemurSegLib.sides import LEFT, RIGHT


def block(size=(20, 30, 60), turn=((1, 0, 0), (0, 1, 0), (0, 0, 1))) -> Bone:
    """A brick of that size along x, y and z, then turned."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * size
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    return Bone(corners @ np.transpose(turn), triangles, RIGHT)


def test_volume_centre_and_longest_axis_of_a_brick_are_exact_in_any_pose():
    c, s = np.cos(0.5), np.sin(0.5)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    bone = block(turn=turn)
    assert bone.volume_mm3 == pytest.approx(36000)
    assert np.allclose(bone.center_mm, turn @ [10, 15, 30])
    assert abs(bone.principal_axes[0] @ turn[:, 2]) == pytest.approx(1)


def test_a_section_gives_area_and_centroid():
    (loop,) = block().section(np.array([0, 0, 40.0]), np.array([0, 0, 1.0]))
    assert loop.area_mm2 == pytest.approx(600)
    assert np.allclose(loop.centroid_mm, [10, 15, 40])
    assert block().section(np.array([0, 0, 99.0]), np.array([0, 0, 1.0])) == []


def test_the_parts_of_a_sphere_in_a_bone_have_the_areas_that_they_show_along_it():
    labels = np.zeros((64, 34, 24), np.uint8)
    labels[2:62, 2:32, 2:22] = 1
    bone = Bone.of_mask(labels, Grid(labels.shape, (1.0, 1.0, 1.0), (0, 0, 0), np.eye(3)), RIGHT, smoothing=0.0)
    up, down = sorted(bone.on_sphere(np.array([11.5, 16.5, 31.5]), 25.0), key=lambda part: -part[2])
    assert np.allclose(up, [0, 0, 600], atol=15)  # a brick of 20 x 30 mm
    assert np.allclose(down, [0, 0, -600], atol=15)
    assert bone.on_sphere(np.array([11.5, 16.5, 31.5]), 60.0) == []


def test_a_mirrored_bone_still_faces_outward_and_is_of_the_other_side():
    mirrored = block().mirrored()
    assert mirrored.side == LEFT and mirrored.volume_mm3 == pytest.approx(36000)
    assert mirrored.as_right().side == RIGHT


@pytest.mark.parametrize("handed", [1.0, -1.0])
def test_a_mask_on_an_oblique_grid_faces_outward_and_only_its_largest_piece_counts(handed):
    direction = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -handed]])
    labels = np.zeros((40, 30, 30), np.uint8)
    labels[5:35, 5:25, 5:25] = 2
    labels[0, 0, 0] = 2
    bone = Bone.of_mask(labels, Grid(labels.shape, (1.0, 1.5, 2.0), (7, 8, 9), direction), LEFT)
    assert bone.volume_mm3 == pytest.approx(30 * 20 * 20 * 3, rel=0.03)
    assert len(bone.caps) == 6


def test_a_mask_without_the_femur_is_an_input_error():
    labels, grid, _ = toy_femur(spacing_mm=(4.0, 4.0, 4.0))
    with pytest.raises(InputError, match="no left femur"):
        Bone.of_mask(labels, grid, LEFT)
