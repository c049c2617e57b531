"""Head and neck of toy hips whose masks and neighbours make them hard to read."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from anatomy.toy_femur import HEAD_RADIUS, toy_femur
from scipy.spatial.transform import Rotation

from FemurSegLib.anatomy.bone import Bone
from FemurSegLib.anatomy.fitting import unit
from FemurSegLib.anatomy.hip import find_head, find_hip
from FemurSegLib.anatomy.landmarks import find_landmarks
from FemurSegLib.anatomy.measurements import WITHOUT, measure
from FemurSegLib.grid import Grid
from FemurSegLib.sides import LABELS, RIGHT

SPACING = (1.5, 1.5, 1.5)
NECK_SHAFT = 128.0


def hip_with(*extras) -> tuple[Bone, dict]:
    """A toy hip and what is true of it. extras: functions (points (..., 3), truth) -> bool (...), added to it."""
    labels, grid, truth = toy_femur(neck_shaft_deg=NECK_SHAFT, spacing_mm=SPACING, lower_mm=230.0, upper_mm=470.0)
    k, j, i = np.indices(labels.shape, sparse=True)
    points = np.stack(
        np.broadcast_arrays(*(grid.origin_mm[n] + SPACING[n] * a for n, a in enumerate((i, j, k)))), -1
    )
    for extra in extras:
        labels[extra(points, truth)] = LABELS[RIGHT]
    return Bone.of_mask(labels, grid, RIGHT), truth


@lru_cache
def hooked() -> tuple[Bone, dict]:
    return hip_with(hook)


def hook(points, truth):
    """A greater trochanter that leans over the neck, towards the head."""
    neck, root = truth["neck"], truth["head"] - 62.0 * truth["neck"]
    above = unit(np.array([0, 0, 1.0]) - neck[2] * neck)
    return near_bar(points, root + 22 * neck + 10 * above, root + 38 * neck + 34 * above, 9.0)


def near_bar(points, a, b, radius):
    d = b - a
    t = np.clip((points - a) @ d / (d @ d), 0, 1)
    return ((points - a - t[..., None] * d) ** 2).sum(-1) < radius**2


def read(bone: Bone):
    head, up = find_head(bone)
    found, why = find_hip(bone, head, up)
    assert found is not None, why
    return found


def neck_shaft_deg(axis, shaft) -> float:
    return float(np.degrees(np.arccos(-axis.direction @ shaft.direction)))


def test_a_trochanter_that_reaches_over_the_neck_does_not_turn_its_axis():
    bone, truth = hooked()
    found = read(bone)
    planes = [
        bone.section(found.head.center_mm - d * HEAD_RADIUS * truth["neck"], -truth["neck"]) for d in (1.1, 1.2)
    ]
    assert all(loops[0].area_mm2 > 1.4 * np.pi * 16**2 for loops in planes)  # planes across the neck run into it
    assert neck_shaft_deg(found.neck, found.shaft) == pytest.approx(NECK_SHAFT, abs=0.7)
    assert found.neck_area_mm2 == pytest.approx(np.pi * 16**2, rel=0.03)


def test_the_pose_of_such_a_hip_plays_no_part():
    bone, _ = hooked()
    first = read(bone)
    turn = Rotation.from_rotvec([0.3, -0.4, 0.2]).as_matrix()
    again = read(Bone(bone.points_mm @ turn.T, bone.triangles, RIGHT))
    assert neck_shaft_deg(again.neck, again.shaft) == pytest.approx(
        neck_shaft_deg(first.neck, first.shaft), abs=0.1
    )


def test_the_second_neck_axis_is_that_of_the_neck_or_is_not_said():
    plain, _ = hip_with()
    found = read(plain)
    assert neck_shaft_deg(found.neck_by_sections, found.shaft) == pytest.approx(NECK_SHAFT, abs=1.0)
    landmarks = find_landmarks(hooked()[0])  # most slopes of a plane across this neck run into the trochanter
    assert landmarks.hip.neck_by_sections is None
    measured = measure(landmarks)
    second = measured["neck_shaft_angle_by_sections_deg"]
    assert second.value is None and second.reason == WITHOUT["neck_shaft_angle_by_sections_deg"]
    assert measured["neck_shaft_angle_deg"].value == pytest.approx(NECK_SHAFT, abs=0.7)


def test_a_fleck_beside_the_head_does_not_move_it():
    def fleck(points, truth):
        place = truth["head"] + HEAD_RADIUS * unit(np.array([0.5, 0.3, 0.8]))
        return ((points - place) ** 2).sum(-1) < 6.0**2

    plain, truth = hip_with()
    spotted, _ = hip_with(fleck)
    before, after = (read(bone).head for bone in (plain, spotted))
    assert np.linalg.norm(before.center_mm - truth["head"]) < 0.2
    assert np.linalg.norm(after.center_mm - before.center_mm) < 0.2
    assert after.radius_mm == pytest.approx(before.radius_mm, abs=0.2)


def test_a_bump_on_the_neck_turns_its_axis_little():
    def bump(points, truth):
        place = truth["head"] - 38.0 * truth["neck"] + 16.0 * unit(np.cross(truth["neck"], [0, 0, 1.0]))
        return ((points - place) ** 2).sum(-1) < 7.0**2

    bone, _ = hip_with(bump)
    found = read(bone)
    assert neck_shaft_deg(found.neck, found.shaft) == pytest.approx(NECK_SHAFT, abs=0.5)
    assert found.neck_area_mm2 == pytest.approx(np.pi * 16**2, rel=0.03)


def test_a_head_without_a_neck_is_not_given_one():
    grid = Grid((60, 60, 60), SPACING, np.zeros(3), np.eye(3))
    k, j, i = np.indices(grid.shape, sparse=True)
    ball = ((k - 30) ** 2 + (j - 30) ** 2 + (i - 30) ** 2) * SPACING[0] ** 2 < HEAD_RADIUS**2
    bone = Bone.of_mask(ball.astype(np.uint8) * LABELS[RIGHT], grid, RIGHT)
    head, up = find_head(bone)
    found, why = find_hip(bone, head, up)
    assert found is None and "neck" in why
