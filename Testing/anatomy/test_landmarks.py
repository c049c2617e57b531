"""Landmarks and measurements against a toy femur of known angles, and against real bones."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytest
from anatomy.toy_femur import CONDYLE_RADIUS, HALF_GAP, HEAD_RADIUS, KNEE, toy_femur
from scipy.ndimage import distance_transform_edt
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from FemurSegLib.anatomy.bone import Bone
from FemurSegLib.anatomy.knee import _not_run_away
from FemurSegLib.anatomy.landmarks import find_landmarks, landmark_points
from FemurSegLib.anatomy.measurements import NAMES, measure, numbers_from_landmarks, points_of
from FemurSegLib.anatomy.stability import perturbed, poses, roughen, voxelize
from FemurSegLib.grid import Grid
from FemurSegLib.sides import LABELS, LEFT, RIGHT

SPACING = (1.2, 1.2, 1.5)
NEEDS_BOTH = ("anteversion_deg", "mldfa_deg", "anatomical_mechanical_angle_deg", "length_mm", "bow_radius_mm")


@lru_cache
def toy(**shape):
    labels, grid, truth = toy_femur(spacing_mm=SPACING, **shape)
    bone = Bone.of_mask(labels, grid, RIGHT)
    return bone, find_landmarks(bone), truth


def values(landmarks) -> dict:
    return {key: m.value for key, m in measure(landmarks).items()}


@pytest.mark.parametrize(("anteversion", "neck_shaft"), [(15.0, 125.0), (-10.0, 130.0), (40.0, 118.0)])
def test_angles_of_the_toy_femur_are_read_within_half_a_degree(anteversion, neck_shaft):
    _, landmarks, truth = toy(anteversion_deg=anteversion, neck_shaft_deg=neck_shaft)
    read = values(landmarks)
    assert not landmarks.reasons
    assert np.linalg.norm(landmarks.hip.head.center_mm - truth["head"]) < 0.2
    assert read["head_diameter_mm"] == pytest.approx(2 * HEAD_RADIUS, rel=0.01)
    assert read["neck_shaft_angle_deg"] == pytest.approx(neck_shaft, abs=0.5)
    assert read["neck_shaft_angle_by_sections_deg"] == pytest.approx(neck_shaft, abs=1.0)
    assert read["offset_mm"] == pytest.approx(np.linalg.norm(truth["head"][:2]), abs=0.3)
    knee, up = landmarks.knee, landmarks.mechanical.direction
    flat = truth["neck"] - (truth["neck"] @ up) * up
    across = np.array([1.0, 0, 0]) - up[0] * up
    expected = np.degrees(np.arccos(flat @ across / np.linalg.norm(flat) / np.linalg.norm(across)))
    assert read["anteversion_deg"] == pytest.approx(np.sign(anteversion) * expected, abs=0.5)
    assert read["mldfa_deg"] == pytest.approx(90 + np.degrees(np.arctan2(up[0], up[2])), abs=0.3)
    assert [s.radius_mm for s in knee.spheres] == pytest.approx([CONDYLE_RADIUS] * 2, abs=0.2)
    assert read["condylar_axes_deg"] < 0.5


def test_every_measurement_has_a_name_and_a_unit():
    measured = measure(toy()[1])
    assert list(measured) == list(NAMES)
    assert {m.unit for m in measured.values()} == {"mm", "deg", "mm2"}


def test_a_straight_shaft_has_no_bow_and_says_so():
    bow = measure(toy()[1])["bow_radius_mm"]
    assert bow.value is None and "not bowed" in bow.reason


def test_a_left_femur_is_read_as_the_mirror_image_of_a_right_one():
    bone, landmarks, _ = toy()
    other = find_landmarks(bone.mirrored())
    assert other.side == LEFT
    assert values(other) == pytest.approx(values(landmarks), nan_ok=True)
    for name, point in landmark_points(other).items():
        assert np.allclose(point, landmark_points(landmarks)[name] * [-1, 1, 1], atol=1e-6), name


def test_a_rough_mask_is_as_long_as_a_smooth_one():
    labels, grid, _ = toy_femur(spacing_mm=SPACING)
    rough = Bone.of_mask(roughen(labels, np.random.default_rng(3)), grid, RIGHT)
    smooth, _, _ = toy()
    lengthened = pdist(rough.hull_mm).max() - pdist(smooth.hull_mm).max()
    assert lengthened > 0.8  # by the farthest two points
    long, exact = (measure(find_landmarks(bone))["length_mm"].value for bone in (rough, smooth))
    assert abs(long - exact) < 0.6


def knee_with(added) -> tuple:
    """Labels and grid of the toy's lower half, with what `added` (x, y, z from the condyles' middle, mm) says."""
    labels, grid, _ = toy_femur(spacing_mm=SPACING, upper_mm=230.0)
    k, j, i = np.indices(grid.shape)
    x, y, z = np.moveaxis(grid.lps(np.stack([i, j, k], axis=-1)) - KNEE, -1, 0)
    return np.where(added(x, y, z), 1, labels).astype(np.uint8), grid


def test_a_knee_that_stands_out_far_in_front_is_not_read_from_front_to_back():
    def more(x, y, z):
        front = (y < 0) & ((x / 40) ** 2 + (y / 50) ** 2 + ((z - 6) / 16) ** 2 < 1)
        beside = (np.abs(x) > 20) & ((x / 56) ** 2 + ((y - 8) / 24) ** 2 + ((z - 4) / 18) ** 2 < 1)
        return front | beside

    bone = Bone.of_mask(*knee_with(more), RIGHT)
    assert -bone.points_mm[:, 1].min() > bone.points_mm[:, 1].max()
    knee = find_landmarks(bone).knee
    assert knee is not None and knee.posterior[1] > 0.95


def test_an_epicondyle_lies_at_most_12_mm_from_the_most_prominent_place():
    start, way = np.array([40.0, -5.0, 7.0]), np.array([0.0, 0.6, -0.8])
    for far_mm, kept_mm in ((0.0, 0.0), (6.0, 6.0), (12.0, 12.0), (12.1, 12.0), (19.0, 12.0)):
        assert np.allclose(_not_run_away(start + far_mm * way, start), start + kept_mm * way)


@pytest.mark.parametrize("seed", [0, 1])
def test_noise_does_not_turn_the_line_through_blunt_epicondyles(seed):
    wide = HALF_GAP + 27
    labels, grid = knee_with(lambda x, y, z: (x / wide) ** 2 + ((y - 14) / 24) ** 2 + ((z - 4) / 18) ** 2 < 1)
    rough = Bone.of_mask(roughen(labels, np.random.default_rng(seed)), grid, RIGHT)
    assert values(find_landmarks(rough))["condylar_twist_deg"] == pytest.approx(0.0, abs=0.6)


def test_the_pose_of_the_surface_plays_no_part():
    bone, landmarks, _ = toy()
    turn = Rotation.from_rotvec([0.9, -1.8, 0.7]).as_matrix()
    turned = find_landmarks(Bone(bone.points_mm @ turn.T + [10, 20, 30], bone.triangles, RIGHT))
    before, after = values(landmarks), values(turned)
    assert {k: v for k, v in after.items() if v} == pytest.approx({k: v for k, v in before.items() if v}, abs=0.1)


def test_a_femur_cut_at_mid_shaft_gives_its_hip_alone():
    _, whole, _ = toy()
    bone, landmarks, _ = toy(lower_mm=215.0)
    read, measured = values(landmarks), measure(landmarks)
    assert landmarks.knee is None and "knee" in landmarks.reasons
    for key in ("head_diameter_mm", "neck_shaft_angle_deg", "offset_mm"):
        assert read[key] == pytest.approx(values(whole)[key], rel=0.01), key
    for key in NEEDS_BOTH:
        assert read[key] is None and measured[key].reason, key


def test_a_femur_cut_above_the_knee_gives_its_knee_alone():
    _, whole, _ = toy()
    _, landmarks, _ = toy(upper_mm=230.0)
    read = values(landmarks)
    assert landmarks.hip is None and landmarks.reasons["hip"]
    assert read["condylar_width_mm"] == pytest.approx(values(whole)["condylar_width_mm"], abs=1.0)
    assert np.linalg.norm(landmarks.knee.center_mm - whole.knee.center_mm) < 3.0
    assert all(read[key] is None for key in (*NEEDS_BOTH, "neck_shaft_angle_deg", "head_diameter_mm"))


def test_condyles_cut_by_the_scan_are_not_guessed():
    _, landmarks, _ = toy(lower_mm=0.0)
    assert landmarks.knee is None and "cut" in landmarks.reasons["knee"]
    assert landmarks.hip is not None


def test_a_head_cut_by_the_scan_gives_no_length():
    _, landmarks, truth = toy(upper_mm=421.0)
    assert landmarks.head_is_cut
    length = measure(landmarks)["length_mm"]
    assert length.value is None and "head is cut" in length.reason
    assert np.linalg.norm(landmarks.hip.head.center_mm - truth["head"]) < 0.3


def test_a_pelvic_scan_that_ends_below_the_trochanters_still_gives_the_head():
    _, landmarks, truth = toy(lower_mm=320.0)
    read, measured = values(landmarks), measure(landmarks)
    assert read["head_diameter_mm"] == pytest.approx(2 * HEAD_RADIUS, rel=0.01)
    assert np.linalg.norm(landmarks.hip.neck.direction - truth["neck"]) < 0.02
    assert read["neck_shaft_angle_deg"] is None and "too little of the shaft" in measured["offset_mm"].reason


def test_a_piece_of_shaft_gives_nothing_and_does_not_raise():
    _, landmarks, _ = toy(lower_mm=130.0, upper_mm=300.0)
    assert landmarks.hip is None and landmarks.knee is None
    assert all(m.value is None and m.reason for m in measure(landmarks).values())


def test_a_femur_of_the_wrong_side_is_noticed():
    bone, _, _ = toy()
    landmarks = find_landmarks(Bone(bone.points_mm, bone.triangles, LEFT))
    assert "wrong side" in landmarks.reasons["side"]
    measured = measure(landmarks)
    assert measured["anteversion_deg"].value is None and measured["head_diameter_mm"].value is not None


# Real bones


def real_femora(shared_data, name):
    from FemurSegLib.anatomy.study import femora

    found = [f for f in femora(shared_data / "shapes", 1) if f[0] == name]
    assert found
    return found


@pytest.fixture
def shapes(shared_data):
    if not (shared_data / "shapes" / "manifest.json").exists():
        pytest.skip(f"bone shapes not found in {shared_data}")
    return shared_data


@pytest.mark.parametrize("name", ["z013", "llp26-0"])
def test_a_mask_of_a_turned_real_femur_gives_what_its_exact_mesh_gives(shapes, name):
    for _, bone, truth in real_femora(shapes, name):
        head_mm, head_radius = truth["head"]
        exact = find_landmarks(bone)
        assert not exact.reasons
        assert np.linalg.norm(exact.hip.head.center_mm - head_mm) < 1.0
        assert exact.hip.head.radius_mm == pytest.approx(head_radius, rel=0.02)
        truth = values(exact)
        assert 110 < truth["neck_shaft_angle_deg"] < 145 and 80 < truth["mldfa_deg"] < 95
        assert 500 < truth["bow_radius_mm"] < 2500
        for moved, back in perturbed(bone, (0.9, 0.9, 1.2), poses(2, seed=1)):
            found = find_landmarks(moved)
            read = values(found)
            assert np.linalg.norm(back(found.hip.head.center_mm) - exact.hip.head.center_mm) < 0.3
            assert read["head_diameter_mm"] == pytest.approx(truth["head_diameter_mm"], rel=0.01)
            assert read["length_mm"] == pytest.approx(truth["length_mm"], abs=1.0)
            for key in ("neck_shaft_angle_deg", "anteversion_deg", "anatomical_mechanical_angle_deg", "mldfa_deg"):
                assert read[key] == pytest.approx(truth[key], abs=0.8), key


def test_a_film_in_a_narrow_joint_space_does_not_turn_the_line_below_the_condyles(shapes):
    (_, bone, _), *_ = real_femora(shapes, "llp26-0")
    labels, grid = voxelize(bone, (1.0, 1.0, 1.0))
    right = find_landmarks(Bone.of_mask(labels, grid, bone.side))
    index = np.rint(grid.ijk(right.knee.distal_mm[0])).astype(int)[::-1]
    box = tuple(slice(max(0, n - 12), n + 13) for n in index)
    near = np.linalg.norm(np.indices(labels[box].shape).T - (index - [s.start for s in box]), axis=-1).T < 8
    film = near & (distance_transform_edt(labels[box] == 0) < 2.5)
    labels[box][film] = LABELS[bone.side]
    found = find_landmarks(Bone.of_mask(labels, grid, bone.side))
    assert found.left_out == ()
    assert values(found)["mldfa_deg"] == pytest.approx(values(right)["mldfa_deg"], abs=1.0)


def test_tangent_points_lie_on_the_shape_model_s_own_articular_surface(shapes):
    (_, bone, _), *_ = real_femora(shapes, "llp26-0")
    with np.load(shapes / "shapes" / "llp26_left_limb.npz") as model:
        articular = bone.points_mm[model["idx_left_femur_knee"]]
        head = bone.points_mm[model["idx_left_femur_head"]]
    landmarks = find_landmarks(bone)
    for point in np.vstack([landmarks.knee.posterior_mm, landmarks.knee.distal_mm]):
        assert np.linalg.norm(articular - point, axis=1).min() < 3.0
    off = np.linalg.norm(head - landmarks.hip.head.center_mm, axis=1) - landmarks.hip.head.radius_mm
    assert np.median(np.abs(off)) < 0.6


# Numbers from points alone


def test_numbers_follow_from_the_points_alone_on_both_sides():
    bone, landmarks, _ = toy()
    for each in (landmarks, find_landmarks(bone.mirrored())):
        measured = {k: m.value for k, m in measure(each).items() if m.value is not None}
        numbers = numbers_from_landmarks({k: list(p) for k, p in landmark_points(each).items()}, each.side)
        assert set(numbers) == {k for k in NAMES if points_of(k)}
        assert numbers == pytest.approx({k: measured[k] for k in numbers})


def test_points_that_are_moved_change_what_follows_from_them_and_nothing_else():
    _, landmarks, _ = toy()
    points = landmark_points(landmarks)
    before = numbers_from_landmarks(points, RIGHT)
    moved = points | {"top": points["top"] + 10 * landmarks.mechanical.direction}
    after = numbers_from_landmarks(moved, RIGHT)
    assert {k for k in before if abs(after[k] - before[k]) > 1e-9} == {"length_mm"}
    turned = points | {"neck_center": points["neck_center"] + 5 * landmarks.hip.posterior}
    after = numbers_from_landmarks(turned, RIGHT)
    changed = {k for k in before if abs(after[k] - before[k]) > 1e-9}
    assert changed == {k for k in NAMES if "neck_center" in points_of(k)}
    assert after["anteversion_deg"] > before["anteversion_deg"] + 5


def test_the_twist_of_the_condyles_follows_from_the_head_or_without_a_hip_from_the_knees_axis():
    points = landmark_points(toy()[1])
    twist = numbers_from_landmarks(points, RIGHT)["condylar_twist_deg"]
    moved = points | {"head_center": points["head_center"] + (20, 30, 0)}
    after = numbers_from_landmarks(moved, RIGHT)
    changed = {k for k in after if abs(after[k] - numbers_from_landmarks(points, RIGHT)[k]) > 1e-9}
    assert changed == {k for k in NAMES if "head_center" in points_of(k)} and "condylar_twist_deg" in changed
    del moved["head_center"]
    assert "condylar_twist_deg" not in numbers_from_landmarks(moved, RIGHT)
    moved["knee_axis_top"] = points["head_center"]
    assert numbers_from_landmarks(moved, RIGHT)["condylar_twist_deg"] == pytest.approx(twist)
    assert "knee_axis_top" in points_of("condylar_twist_deg")


def test_a_number_whose_points_are_missing_or_coincide_is_left_out():
    points = landmark_points(toy()[1])
    del points["notch"]
    points["neck_center"] = points["head_center"]
    numbers = numbers_from_landmarks(points, RIGHT)
    assert not set(numbers) & {"mldfa_deg", "anteversion_deg", "mechanical_length_mm"}
    assert "offset_mm" in numbers and "neck_shaft_angle_deg" not in numbers
    assert numbers_from_landmarks({}, RIGHT) == {}
    assert numbers_from_landmarks({"top": (0, 0, 450), "bottom": (0, 0, 0)}, LEFT) == {"length_mm": 450.0}


def test_the_numbers_need_nothing_but_numpy():
    code = (
        "import sys\nfrom FemurSegLib.anatomy.measurements import numbers_from_landmarks as f\n"
        "f({'top': (0, 0, 3), 'bottom': (0, 1, 0), 'head_center': (1, 1, 1)}, 'left_femur')\n"
        "print([m for m in ('torch', 'vtkmodules', 'SimpleITK', 'scipy', 'PIL') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_tip_that_hangs_below_the_knee_leaves_no_knee_and_is_no_fault():
    labels, grid, _ = toy_femur(spacing_mm=(2.0, 2.0, 2.0))
    below = 30
    labels = np.pad(labels, ((below, 0), (0, 0), (0, 0)))
    grid = Grid(labels.shape, grid.spacing_mm, tuple(grid.lps((0, 0, -below))), grid.direction)
    lowest = np.flatnonzero(labels.any(axis=(1, 2)))[0]
    j, i = np.argwhere(labels[lowest + 3])[0]
    labels[lowest - 18 : lowest + 6, j - 3 : j + 4, i - 3 : i + 4] = labels.max()
    found = find_landmarks(Bone.of_mask(labels, grid, RIGHT))
    assert found.knee is None and found.reasons["knee"]
    assert found.hip is not None
