"""Phantoms against bones whose shape is known, and the people of the shapes folder where it is there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy_person import CONDYLE_RADIUS_MM, HEAD_RADIUS_MM, HIP, femur, toy_person

from FemurSegLib.grid import Grid
from FemurSegLib.phantom.anatomy import PlacedBone, _other_hip, sample_anatomy
from FemurSegLib.phantom.case import grid_for, make_phantom, of_size, sample_phantom
from FemurSegLib.phantom.fields import COARSE
from FemurSegLib.phantom.paint import Painter
from FemurSegLib.phantom.scanner import Scanner
from FemurSegLib.phantom.shapes import load_person, people_in
from FemurSegLib.phantom.tissue import sample_tissue
from FemurSegLib.sides import LABELS, LEFT, RIGHT

SEEDS = (0, 1, 2)
QUIET = Scanner(0.0, 0.0, 0.0, 2.0, 0.0, 0.5, 0.0, 1.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def person():
    return toy_person()


@pytest.fixture(scope="module")
def shapes(shared_data):
    return shared_data / "shapes"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("shapes")


def around(anatomy, spacing_mm, names=("right_femur", "left_femur"), margin_mm=8.0) -> Grid:
    """The upright grid that holds these bones."""
    boxes = [anatomy.bones[name].bounds_mm() for name in names]
    low = np.min([b[0] for b in boxes], 0) - margin_mm
    high = np.max([b[1] for b in boxes], 0) + margin_mm
    size = np.ceil((high - low) / spacing_mm).astype(int)
    return Grid(tuple(size[::-1]), spacing_mm, low, np.eye(3))


def oblique(grid: Grid) -> Grid:
    """Turned by 0.3 rad about a slanting axis, j backwards, about the same centre."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_rotvec(0.3 * np.array([0.5, -0.4, 0.77])).as_matrix() @ np.diag([1.0, -1.0, 1.0])
    middle = (np.array(grid.shape[::-1]) - 1) / 2
    origin = grid.lps(middle) - turn @ (middle * grid.spacing_mm)
    return replace(grid, origin_mm=tuple(origin), direction=turn)


def centers(grid: Grid) -> np.ndarray:
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    return grid.lps(np.stack([i, j, k], -1)).reshape(-1, 3)


def plain(seed: int):
    """Tissue that changes no shape."""
    return replace(sample_tissue(seed), warp_mm=0.0, roughness_mm=0.0, osteophyte_mm=0.0, metal="")


def test_the_toy_femur_is_what_its_formula_says(person):
    field = person.fields["left_femur"]
    rng = np.random.default_rng(0)
    points = rng.uniform(field.corners_mm.min(0), field.corners_mm.max(0), (20000, 3))
    true = femur("left")(points)
    near = np.abs(true) < 5
    assert np.abs(field.at(points[near]) - true[near]).mean() < 0.1
    assert HEAD_RADIUS_MM > CONDYLE_RADIUS_MM > 0 and HIP[0] > 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("spacing", [(2.5, 2.5, 2.5), (1.8, 2.2, 4.0)])
def test_a_label_is_the_sign_of_the_distance_of_the_voxel_centre(person, seed, turned, spacing):
    anatomy = sample_anatomy([person], person, seed)
    grid = around(anatomy, spacing)
    grid = oblique(grid) if turned else grid
    _, labels = Painter(anatomy, tissue=plain(seed)).paint(grid)
    labels = labels.numpy().ravel()
    points = centers(grid)
    for side, label in LABELS.items():
        distance = anatomy.bones[side].distance_mm(points)
        sure = np.abs(distance) > 0.02
        assert ((labels == label) == (distance < 0))[sure].all()


@pytest.mark.parametrize("seed", SEEDS)
def test_right_and_left_are_the_patients(person, seed):
    anatomy = sample_anatomy([person], person, seed)
    grid = around(anatomy, (3.0, 3.0, 3.0))
    _, labels = Painter(anatomy).paint(grid)
    x = {side: np.argwhere(labels.numpy() == LABELS[side])[:, 2].mean() for side in (RIGHT, LEFT)}
    assert x[RIGHT] < x[LEFT]
    for leg in anatomy.legs.values():
        assert leg.hip_mm[2] > leg.knee_mm[2] > leg.ankle_mm[2]
        assert leg.toe_mm[1] < leg.ankle_mm[1]


def test_pieces_of_a_grid_fit_together(person):
    anatomy = sample_anatomy([person], person, 1)
    tissue = replace(sample_tissue(1), warp_mm=4.0, roughness_mm=0.5)
    grid = around(anatomy, (3.0, 3.0, 3.0))
    _, whole = Painter(anatomy, tissue=tissue).paint(grid)
    lower = np.array([5, 2, 3]) * COARSE
    upper = np.array(grid.shape) - (3, 7, 6)
    _, piece = Painter(anatomy, tissue=tissue).paint(grid.crop(lower, upper))
    window = tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))
    assert (piece.numpy() > 0).sum() > 500
    assert (piece.numpy() != whole.numpy()[window]).sum() <= 2  # rounding, at the very surface


def test_slabs_show_no_seam(person):
    """Smooth tissue over a boundary between slabs changes no more than between other slices."""
    anatomy = sample_anatomy([person], person, 1)
    grid = around(anatomy, (4.0, 4.0, 2.0))
    grid = of_size(grid, 40, 120)
    hu = make_phantom(anatomy, grid, scanner=QUIET).ct.voxels.astype(float)
    steps = np.median(np.abs(np.diff(hu, axis=0)), axis=(1, 2))
    others = np.r_[steps[40:47], steps[48:56]]
    assert steps[47] <= others.max() * 1.2 + 1


def test_a_mirrored_patient_has_mirrored_labels_with_the_sides_exchanged(person):
    anatomy = sample_anatomy([person], person, 2)
    mirror = np.diag([-1.0, 1, 1, 1])
    other = {"right": "left", "left": "right"}
    bones = {}
    for name, bone in anatomy.bones.items():
        side = name.split("_")[0]
        called = name.replace(side, other[side]) if side in other else name
        bones[called] = PlacedBone(called, bone.field, bone.to_field @ mirror, bone.scale)
    legs = {}
    for side, leg in anatomy.legs.items():
        points = {n: getattr(leg, n) * (-1, 1, 1) for n in ("hip_mm", "knee_mm", "ankle_mm", "toe_mm")}
        axes = np.diag([-1.0, 1, 1]) @ leg.axes @ np.diag([-1.0, 1, 1])
        legs[other[side]] = replace(leg, axes=axes, **points)
    twin = replace(anatomy, bones=bones, legs=legs)
    low = -np.array([130.0, 60, 230])
    grid = Grid((100, 40, 87), (3.0, 3.0, 3.0), (-129.0, *low[1:]), np.eye(3))  # symmetric about x = 0
    _, one = Painter(anatomy, tissue=plain(2)).paint(grid)
    _, two = Painter(twin, tissue=plain(2)).paint(grid)
    exchanged = np.array([0, 2, 1], np.uint8)[two.numpy()[:, :, ::-1]]
    assert (one.numpy() > 0).any()
    assert (one.numpy() != exchanged).sum() <= 2


def test_the_same_seed_gives_the_same_voxels(person):
    first, again, other = (sample_phantom([person], person, s, "hips", (5, 5, 5)) for s in (3, 3, 4))
    assert np.array_equal(first.ct.voxels, again.ct.voxels)
    assert np.array_equal(first.labels.voxels, again.labels.voxels)
    assert first.ct.grid.matches(again.ct.grid)
    assert not first.ct.grid.matches(other.ct.grid)
    assert first.ct.voxels.dtype == np.int16 and first.labels.voxels.dtype == np.uint8
    assert set(np.unique(first.labels.voxels)) <= {0, 1, 2}


@pytest.mark.parametrize("seed", SEEDS)
def test_each_field_of_view_shows_what_it_is_called(person, seed):
    anatomy = sample_anatomy([person], person, seed)

    def shown(field):
        grid = grid_for(anatomy, field, (5.0, 5.0, 5.0), seed)
        labels = make_phantom(anatomy, grid, scanner=QUIET, thick_slices=False).labels.voxels
        return grid, labels

    for field in ("legs", "femora"):
        grid, labels = shown(field)
        for label in LABELS.values():
            at = np.argwhere(labels == label)
            assert len(at) and (at.min(0) > 0).all() and (at.max(0) < np.array(grid.shape) - 1).all()
    _, labels = shown("lower_leg")
    assert not labels.any()
    for field in ("hips", "knees", "thigh"):
        assert shown(field)[1].any()


def test_an_unknown_field_of_view_is_refused(person):
    with pytest.raises(ValueError, match="shoulder"):
        grid_for(sample_anatomy([person], person, 0), "shoulder", (1, 1, 1))


def test_a_grid_of_a_given_size_keeps_its_centre(person):
    grid = grid_for(sample_anatomy([person], person, 0), "legs", (2.0, 2.0, 3.0))
    sized = of_size(grid, 512, 900)
    assert sized.shape == (900, 512, 512)
    middles = [g.lps((np.array(g.shape[::-1]) - 1) / 2) for g in (grid, sized)]
    assert np.allclose(*middles)
    assert of_size(grid).matches(grid)


def overlap_mm(one: PlacedBone, two: PlacedBone) -> float:
    """How deep the surface of one bone lies in the other; negative where they are apart."""
    at = np.argwhere(np.abs(one.field.distance) < 6)
    points = one.field.origin_mm + at[::3, ::-1] * one.field.spacing_mm
    placed = np.c_[points, np.ones(len(points))] @ np.linalg.inv(one.to_field).T
    return float(-two.distance_mm(placed[:, :3]).min())


@pytest.mark.parametrize("seed", range(6))
def test_the_legs_never_run_into_each_other(person, seed):
    anatomy = sample_anatomy([person], person, seed)
    assert overlap_mm(anatomy.bones[RIGHT], anatomy.bones[LEFT]) < 0


# The people of the shapes folder


def test_real_people_lie_as_the_convention_says(shapes, cache):
    names = people_in(shapes)
    assert len(names) == 16
    for name in ("z013", "llp26-1"):
        person = load_person(shapes, name, cache)
        frame = person.frames["left"]
        assert frame.head_mm[2] > frame.knee_mm[2] + 300
        assert (
            frame.axes[0, 0] > 0.8 and frame.axes[2, 2] > 0.9 and np.allclose(frame.axes @ frame.axes.T, np.eye(3))
        )
        assert 18 < frame.head_radius_mm < 30
        middle = {bone: field.corners_mm.mean(0) for bone, field in person.fields.items()}
        assert middle["right_hip"][0] < middle["left_hip"][0]
        assert middle["left_patella"][1] < frame.knee_mm[1]
        if "right_femur" in person.fields:
            assert middle["right_femur"][0] < middle["left_femur"][0]
        kept = load_person(shapes, name, cache)
        assert kept.frames["left"].length_mm == pytest.approx(frame.length_mm)
        assert all(np.array_equal(kept.fields[b].distance, person.fields[b].distance) for b in person.fields)


def test_legs_of_real_people_never_run_into_each_other(shapes, cache):
    feet = load_person(shapes, "z013", cache)
    for seed in range(12):
        anatomy = sample_anatomy([feet], feet, seed)
        assert overlap_mm(anatomy.bones[RIGHT], anatomy.bones[LEFT]) < 0, seed
        for side in ("right", "left"):
            assert overlap_mm(anatomy.bones[f"{side}_femur"], anatomy.bones[f"{side}_tibia"]) < 2.0, (
                seed,
                side,
            )


def test_the_hip_of_a_femur_that_was_never_scanned_lies_in_its_socket(shapes, cache):
    """Estimated from the other side, where both are known."""
    person = load_person(shapes, "z013", cache)
    bones = {
        f"{side}_hip": PlacedBone("", person.fields[f"{side}_hip"], np.eye(4), 1.0) for side in ("left", "right")
    }
    for side, other in (("left", "right"), ("right", "left")):
        radius = person.frames[side].head_radius_mm
        estimate = _other_hip(bones, side, person.hip_centers_mm[side], radius)
        assert np.linalg.norm(estimate - person.hip_centers_mm[other]) < 2.0
