"""One random patient: which bones, in which pose, in which body. Pure geometry, reproducible by seed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from FemurSegLib.phantom.distance import DistanceField
from FemurSegLib.phantom.shapes import FemurFrame, Person

MIRROR = np.diag([-1.0, 1.0, 1.0])
NEUTRAL_ADDUCTION_DEG = 3.0
"""Of the mechanical axis of the femur in a person who lies straight."""


@dataclass(frozen=True)
class PlacedBone:
    """A distance field in the patient: field point = to_field (4, 4) @ patient point; `scale` turns field mm into
    patient mm (geometric mean of an affine)."""

    name: str
    field: DistanceField
    to_field: np.ndarray
    scale: float

    def bounds_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """Axis-aligned LPS box of the field in the patient."""
        corners = np.c_[self.field.corners_mm, np.ones(8)] @ np.linalg.inv(self.to_field).T
        return corners[:, :3].min(0), corners[:, :3].max(0)

    def distance_mm(self, points_mm: np.ndarray) -> np.ndarray:
        at = np.c_[points_mm, np.ones(len(points_mm))] @ self.to_field.T
        return self.field.at(at[:, :3]) * self.scale


@dataclass(frozen=True)
class Leg:
    """Joint centres of a leg (LPS mm) and the axes (3, 3) of its femur: rows left, posterior, up."""

    hip_mm: np.ndarray
    knee_mm: np.ndarray
    ankle_mm: np.ndarray
    toe_mm: np.ndarray
    axes: np.ndarray
    head_radius_mm: float


@dataclass(frozen=True)
class Anatomy:
    """bones: placed, by name; legs: by side ("left", "right"); tissue: numbers for the painter; seed."""

    bones: dict[str, PlacedBone]
    legs: dict[str, Leg]
    tissue: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    people: tuple[str, ...] = ()

    def bounds_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """LPS box around all bones."""
        boxes = [bone.bounds_mm() for bone in self.bones.values()]
        return np.min([b[0] for b in boxes], 0), np.max([b[1] for b in boxes], 0)

    @property
    def mid_hips_mm(self) -> np.ndarray:
        """LPS point between the centres of the hip joints."""
        return np.mean([leg.hip_mm for leg in self.legs.values()], 0)

    @property
    def mid_knees_mm(self) -> np.ndarray:
        """LPS point between the knees."""
        return np.mean([leg.knee_mm for leg in self.legs.values()], 0)

    @property
    def half_hip_width_mm(self) -> float:
        """Half the distance between the centres of the hip joints."""
        one, two = (leg.hip_mm for leg in self.legs.values())
        return np.linalg.norm(one - two) / 2

    def lateral(self, side: str) -> np.ndarray:
        """Unit vector (LPS) across the femur of that side, away from the other leg."""
        left = self.legs[side].axes[0]
        return left if side == "left" else -left


@dataclass(frozen=True)
class Variation:
    """How far a patient may lie from a person as scanned: standard deviations or (low, high) ranges."""

    hip_flexion_deg: tuple[float, float] = (-8.0, 22.0)
    hip_abduction_deg: tuple[float, float] = (-8.0, 14.0)
    hip_rotation_deg: tuple[float, float] = (-30.0, 40.0)
    knee_flexion_deg: tuple[float, float] = (0.0, 35.0)
    body_turn_deg: tuple[float, float, float] = (5.0, 4.0, 5.0)
    size: tuple[float, float] = (0.9, 1.1)
    stretch: float = 0.04
    joint_gap_mm: tuple[float, float] = (0.3, 3.5)


def sample_anatomy(
    people: list[Person], feet: Person | None, seed: int, variation: Variation | None = None
) -> Anatomy:
    """A patient made of the pelvis and femora of one of `people`, and of lower legs of one that has them.

    people: candidates. feet: person whose feet and, where none of `people` has them, lower legs are used (`z013`);
    None leaves the feet away, and then one of `people` needs lower legs. seed: everything random follows from it.
    """
    v = variation or Variation()
    rng = np.random.default_rng(seed)
    person = people[rng.integers(len(people))]
    donors = [p for p in people if any(p.has_lower_leg(s) for s in ("left", "right"))] or [feet]
    donor = donors[rng.integers(len(donors))]

    whole = _rotation(rng.normal(0, v.body_turn_deg)) @ np.diag(
        rng.uniform(*v.size) * np.exp(rng.normal(0, v.stretch, 3))
    )
    center = np.mean(list(person.hip_centers_mm.values()), axis=0)
    body = _about(whole, center, -center)
    mirrored = rng.random() < 0.5
    if mirrored:
        body = _about(MIRROR, np.zeros(3), np.zeros(3)) @ body
    bones: dict[str, PlacedBone] = {}
    for name in ("left_hip", "right_hip", "sacrum"):
        if name in person.fields:
            bones[_other(name) if mirrored else name] = _place(name, person.fields[name], body)

    hips = {(_other(s) if mirrored else s): _apply(body, c) for s, c in person.hip_centers_mm.items()}
    scale = abs(np.linalg.det(whole)) ** (1 / 3)
    if len(hips) == 1:
        [(side, hip)] = hips.items()
        [frame] = person.frames.values()
        hips[_other(side)] = _other_hip(bones, side, hip, frame.head_radius_mm * scale)
    gap_mm = rng.uniform(*v.joint_gap_mm)
    legs = {}
    middle_x = np.mean([hip[0] for hip in hips.values()])
    pose = [rng.uniform(*r) for r in (v.hip_flexion_deg, v.hip_abduction_deg, v.hip_rotation_deg)]
    for side in ("right", "left"):
        own = _other(side) if mirrored else side
        source = own if own in person.frames else _other(own)
        flip = source != side
        jitter = pose + rng.normal(0, (4, 3, 8))
        leg_mm = 1.9 * person.frames[source].length_mm * scale
        room_mm = 48 * scale - abs(hips[side][0] - middle_x)  # knees and ankles must not run into each other
        jitter[1] = max(jitter[1], NEUTRAL_ADDUCTION_DEG + np.degrees(np.arcsin(room_mm / leg_mm)))
        turn = _hip_rotation(side, *jitter)
        legs[side] = _add_leg(
            bones,
            side,
            flip,
            person.fields[f"{source}_femur"],
            person.frames[source],
            hips[side],
            turn @ np.diag(np.exp(rng.normal(0, v.stretch, 3))) * scale,
            donor,
            feet,
            float(rng.uniform(*v.knee_flexion_deg)),
            gap_mm + rng.uniform(1.0, 3.0),
            rng,
        )
    tissue = {"hip_gap_mm": gap_mm, "knee_gap_mm": float(rng.uniform(0.5, 4.0))}
    return Anatomy(bones, legs, tissue, seed, (person.name, donor.name))


def _add_leg(bones, side, flip, femur, frame: FemurFrame, hip_mm, shape, donor, feet, knee_deg, gap_mm, rng) -> Leg:
    """Puts femur, patella, tibia, fibula and foot of one side into `bones`."""
    axes = frame.axes @ MIRROR if flip else frame.axes
    if flip:  # rows keep their meaning (left, posterior, up); the mirror turned left to right
        axes = np.diag([-1.0, 1.0, 1.0]) @ axes
    inward = NEUTRAL_ADDUCTION_DEG if side == "left" else -NEUTRAL_ADDUCTION_DEG
    neutral = _rotation((0.0, inward, 0.0)) @ axes  # the pose of `shape` comes on top
    linear = shape @ neutral @ (MIRROR if flip else np.eye(3))
    to_patient = _about(linear, frame.head_mm, hip_mm - frame.head_mm)
    bones[f"{side}_femur"] = _place(f"{side}_femur", femur, to_patient)
    knee = _apply(to_patient, frame.knee_mm)

    side_of = side if donor.has_lower_leg(side) else _other(side)
    side_of = side_of if donor.has_lower_leg(side_of) else None
    lower, low_side = (donor, side_of) if side_of else (feet, side)
    other = lower.frames[low_side]
    flip_low = low_side != side
    stretch = np.linalg.norm(linear @ (frame.head_mm - frame.knee_mm)) / other.length_mm
    turn = linear / np.cbrt(abs(np.linalg.det(linear))) @ (frame.axes.T @ np.diag([-1.0 if flip else 1.0, 1, 1]))
    donor_axes = np.diag([-1.0 if flip_low else 1.0, 1, 1]) @ other.axes
    up = _unit(hip_mm - knee)
    straight = turn @ donor_axes * stretch
    bend = _turn_about(_unit(turn @ np.array([1.0, 0, 0])), knee_deg)
    axis_mm = knee + 12.0 * up
    tibia = _chain(_about(straight, other.knee_mm, knee - other.knee_mm), _about(bend, axis_mm, np.zeros(3)))
    plateau = lower.plateaus_mm[low_side]
    thigh = bones[f"{side}_femur"]
    for _ in range(4):
        clearance = np.quantile(thigh.distance_mm(_apply(tibia, plateau)), 0.002)
        tibia = _chain(tibia, _about(np.eye(3), np.zeros(3), -(gap_mm - clearance) * (bend @ up)))
    for bone in ("tibia", "fibula"):
        bones[f"{side}_{bone}"] = _place(bone, lower.fields[f"{low_side}_{bone}"], tibia)
    patella = lower.fields[f"{low_side}_patella"]
    half = _turn_about(_unit(turn @ np.array([1.0, 0, 0])), knee_deg / 2)
    cap = _chain(_about(straight, other.knee_mm, knee - other.knee_mm), _about(half, axis_mm, np.zeros(3)))
    anterior = _unit(half @ turn @ np.array([0, -1.0, 0]))
    surface = _surface_points(patella)
    for _ in range(4):
        clearance = np.quantile(thigh.distance_mm(_apply(cap, surface)), 0.002)
        cap = _chain(cap, _about(np.eye(3), np.zeros(3), np.clip(gap_mm - clearance, -4, 12) * anterior))
    bones[f"{side}_patella"] = _place("patella", patella, cap)

    tibia_points = _surface_points(lower.fields[f"{low_side}_tibia"])
    ankle = _apply(tibia, tibia_points[tibia_points[:, 2] < tibia_points[:, 2].min() + 15].mean(0))
    toe = ankle + 150.0 * stretch * (bend @ turn @ np.array([0, -1.0, -0.3]))
    if feet is not None:
        toe = _add_foot(bones, side, feet, ankle, bend @ turn, stretch)
    leg_axes = np.stack([_unit(turn @ e) for e in np.eye(3)])
    return Leg(hip_mm, knee, ankle, toe, leg_axes, frame.head_radius_mm * np.cbrt(abs(np.linalg.det(linear))))


def _add_foot(bones, side, feet: Person, ankle_mm, turn, scale) -> np.ndarray:
    foot = feet.fields[f"{side}_foot"]
    shin = _surface_points(feet.fields[f"{side}_tibia"])
    joint = shin[shin[:, 2] < shin[:, 2].min() + 15].mean(0)
    place = _about(turn @ feet.frames[side].axes * scale, joint, ankle_mm - joint)
    bones[f"{side}_foot"] = _place("foot", foot, place)
    points = _surface_points(foot)
    return _apply(place, points[points[:, 1] < np.quantile(points[:, 1], 0.02)].mean(0))


def _place(name: str, bone: DistanceField, to_patient: np.ndarray) -> PlacedBone:
    scale = abs(np.linalg.det(to_patient[:3, :3])) ** (1 / 3)
    return PlacedBone(name, bone, np.linalg.inv(to_patient), float(scale))


def _surface_points(bone: DistanceField) -> np.ndarray:
    """Some LPS points of the field within half an element of the surface."""
    near = np.argwhere(np.abs(bone.distance) * 0.1 < 0.5 * bone.spacing_mm)
    near = near[:: max(1, len(near) // 2000)]
    return bone.origin_mm + near[:, ::-1] * bone.spacing_mm


def _other_hip(bones, side: str, hip_mm: np.ndarray, head_radius_mm: float) -> np.ndarray:
    """The hip joint's centre of a femur that was never scanned: the other one's, seen across the plane between the
    hip bones, and moved to where the socket is as far around the head as on the other side."""
    from scipy.optimize import least_squares

    own, other = bones[f"{side}_hip"], bones[f"{_other(side)}_hip"]
    a, b = (_apply(np.linalg.inv(x.to_field), _surface_points(x.field)).mean(0) for x in (own, other))
    across, middle = _unit(b - a), (a + b) / 2
    n = np.arange(400) + 0.5  # points spread evenly over a sphere (Fibonacci)
    height, angle = 1 - n / 200, np.pi * (1 + 5**0.5) * n
    ring = np.sqrt(1 - height**2)
    head = hip_mm + (head_radius_mm + 1) * np.c_[ring * np.cos(angle), ring * np.sin(angle), height]
    mirrored = head - 2 * np.outer((head - middle) @ across, across)
    wanted = own.distance_mm(head)
    moved = least_squares(lambda by: other.distance_mm(mirrored + by) - wanted, np.zeros(3), diff_step=0.5).x
    return mirrored.mean(0) + moved


def _other(name: str) -> str:
    if "left" in name:
        return name.replace("left", "right")
    return name.replace("right", "left")


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _hip_rotation(side: str, flexion: float, abduction: float, external: float) -> np.ndarray:
    """Flexion lifts the knee forward, abduction takes it outward, external rotation turns the toes outward."""
    outward = 1.0 if side == "left" else -1.0
    return (
        _rotation((-flexion, 0, 0))
        @ _rotation((0, -outward * abduction, 0))
        @ _rotation((0, 0, outward * external))
    )


def _rotation(degrees) -> np.ndarray:
    """Rotations about x, then y, then z (LPS), right-handed."""
    x, y, z = (_turn_about(axis, angle) for axis, angle in zip(np.eye(3), degrees, strict=True))
    return z @ y @ x


def _turn_about(axis: np.ndarray, degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(a) * cross + (1 - np.cos(a)) * cross @ cross


def _about(linear: np.ndarray, center: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(4, 4): x -> linear (x - center) + center + shift."""
    out = np.eye(4)
    out[:3, :3] = linear
    out[:3, 3] = center + shift - linear @ center
    return out


def _chain(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    return then @ first


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]
