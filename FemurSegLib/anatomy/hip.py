"""The proximal femur: head, proximal shaft, neck, trochanters. Needs no knee: a femur cut at mid-shaft gives
the same numbers as the whole one.

Everything here works on a right femur (`Bone.as_right`), where medial = posterior x superior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bone import Bone
from .fitting import Line, Sphere, across, fit_line, fit_sphere, unit, vote_sphere

HEAD_RADII_MM = np.arange(16.0, 33.0)
HEAD_END_MM = 75.0
"""The head lies within this of one end of the bone."""
HEAD_VOTES, HEAD_COVERAGE = 0.38, 0.45
"""Share of a sphere's area that a head has at least. On 39 exact meshes heads had 0.46 to 0.86 of the votes and
0.65 to 0.86 fitted; the other end of the bone 0.20 to 0.34 and 0.30 to 0.50. So the votes tell a head from a
condyle; the fit alone would not, its limit being low for heads that the scan cuts."""
SPURRED_COVERAGE = 0.62
"""A head with spurs, or with flecks of the socket in its mask, has fewer votes (0.34 to 0.37), but as much of it
fits one sphere as of others (0.68 to 0.75; of the other end at most 0.56 in eight bones)."""
HEAD_TOLERANCES_MM = (5.0, 3.0)
"""Cut-off of the fit, first to find the sphere, then to narrow it. With 3 mm alone a head with spurs of 5 mm has
two spheres, 2.4 mm apart, and a turn tells which is found."""
SHAFT_WINDOW = (1.75, 3.75)
"""Heights below the head's centre, in head diameters, of the sections that give the proximal shaft axis: from
below the lesser trochanter to about the isthmus of the canal."""
SHORTEST_WINDOW = 0.75
SECTIONS = 25
NECK_WINDOW = np.linspace(0.9, 1.2, 7)
"""Distances from the head's centre, in head radii, of the sections that give the neck axis: the narrowest part
of the neck (smallest section at 0.9 to 1.2 radii in 33 bones); from 1.3 on, some sections run into the greater
trochanter."""
CAP_MM = 1.0
"""A tip is the centroid of the surface within this of the most prominent point: less noisy than one vertex."""
TROCHANTER_CAP_MM = 2.5
"""The greater trochanter ends in a ridge, whose highest point is anywhere along it: its middle is taken."""


@dataclass(frozen=True)
class Hip:
    """Landmarks of the proximal femur (mm; LPS).

    head: sphere fitted to the articular surface of the head (Kai et al. 2014, J Biomech 47:1229; Renault et al.
      2018, J Biomech 80:171).
    shaft: proximal anatomical axis, pointing up: line fitted to the centroids of sections (`SHAFT_WINDOW`), as Kai
      et al. 2014 find the axis of a shaft.
    neck: neck axis, from the neck's centre (`neck.point_mm`, the mean centroid of the sections across the
      narrowest part, `NECK_WINDOW`, perpendicular to the axis itself) to the head's centre.
    neck_by_sections: the same by the other method, the line through those centroids, which need not meet the
      head's centre.
    neck_area_mm2: of the smallest section. medial, posterior: unit vectors across the shaft, towards the head
      and at a right angle to it. Where too little of the shaft is there, all that needs it is None.
    greater_trochanter_mm: middle of the ridge that is highest along the shaft axis, lateral to the narrow part
      of the neck.
    lesser_trochanter_mm: tip; None where the bone is cut above it or nothing stands out.
    trochanter_base_mm: outermost point at mid height between both tips, about the vastus ridge.
    """

    head: Sphere
    shaft: Line | None
    neck: Line
    neck_by_sections: Line
    neck_area_mm2: float
    medial: np.ndarray | None
    posterior: np.ndarray | None
    greater_trochanter_mm: np.ndarray | None
    lesser_trochanter_mm: np.ndarray | None
    trochanter_base_mm: np.ndarray | None


def find_head(bone: Bone) -> tuple[Sphere, np.ndarray] | None:
    """The femoral head and the unit vector, along the longest principal axis, that points up to it; or None.

    Of the spheres voted for at either end the one that more of its own surface supports. Fitted
    with Tukey's weights, which leave out fovea and neck.
    """
    found = []
    axis = bone.principal_axes[0]
    for up in (axis, -axis):
        height = bone.centers_mm @ up
        end = height > height.max() - HEAD_END_MM
        points, normals, areas = bone.centers_mm[end], bone.smooth_normals[end], bone.areas_mm2[end]
        head = start = vote_sphere(points, normals, areas, HEAD_RADII_MM)
        for tolerance in HEAD_TOLERANCES_MM:
            head = fit_sphere(points, normals, areas, head, tolerance)
        round_enough = start.coverage > HEAD_VOTES and head.coverage > HEAD_COVERAGE
        if round_enough or head.coverage > SPURRED_COVERAGE:
            found.append((start.coverage, head, up))
    return max(found, key=lambda each: each[0])[1:] if found else None


def find_hip(bone: Bone, head: Sphere, up: np.ndarray) -> tuple[Hip | None, str]:
    """Landmarks of the hip, or None, and the reason for what is missing. `bone` is a right femur."""
    neck = _neck(bone, head)
    if neck is None:
        return None, "the neck is not narrower than the head (is it cut, broken or fused?)"
    shaft = _proximal_shaft(bone, head, up)
    if shaft is None:
        none = dict.fromkeys(
            ("medial", "posterior", "greater_trochanter_mm", "lesser_trochanter_mm", "trochanter_base_mm")
        )
        return Hip(head, None, *neck, **none), "too little of the shaft is there to give its axis"
    up = shaft.direction
    medial = across(head.center_mm - shaft.point_mm, up)
    posterior = np.cross(up, medial)
    trochanter = _greater_trochanter(bone, head, shaft, neck[0])
    lesser = _lesser_trochanter(bone, head, shaft, medial, posterior)
    base = None
    if trochanter is not None and lesser is not None:
        loop = _largest(bone, 0.5 * (trochanter + lesser), up)
        if loop is not None:
            points = loop.segments_mm[:, 0]
            outward = -(points @ medial)
            base = points[outward > outward.max() - 0.5 * CAP_MM].mean(axis=0)
    return Hip(head, shaft, *neck, medial, posterior, trochanter, lesser, base), ""


def tip(
    bone: Bone, elements: np.ndarray, direction: np.ndarray, depth_mm: float = CAP_MM, reach_mm: float = 12.0
) -> np.ndarray | None:
    """Centroid of the cap, `depth_mm` deep, of the chosen surface elements along `direction`, and within
    `reach_mm` of the most prominent one."""
    if not elements.any():
        return None
    height = np.where(elements, bone.centers_mm @ direction, -np.inf)
    cap = height > height.max() - depth_mm
    top = bone.centers_mm[np.argmax(height)]
    cap &= np.linalg.norm(bone.centers_mm - top, axis=1) < reach_mm
    return np.average(bone.centers_mm[cap], axis=0, weights=bone.areas_mm2[cap])


def _proximal_shaft(bone: Bone, head: Sphere, up: np.ndarray) -> Line | None:
    diameter = 2 * head.radius_mm
    line = None
    for _ in range(4):
        top = head.center_mm @ up
        lowest = (bone.hull_mm @ up).min() + _margin(bone, up)
        low, high = max(top - SHAFT_WINDOW[1] * diameter, lowest), top - SHAFT_WINDOW[0] * diameter
        if high - low < SHORTEST_WINDOW * diameter:
            return None
        middles = [_largest(bone, up * height, up) for height in np.linspace(low, high, SECTIONS)]
        line = fit_line(np.array([m.centroid_mm for m in middles if m is not None]), up)
        if line.direction @ up > 1 - 1e-9:
            break
        up = line.direction
    return line


def _margin(bone: Bone, up: np.ndarray) -> float:
    """How far an oblique cut at the lower end reaches up, so that no section runs into it."""
    tilts = [cap.normal @ -up for cap in bone.caps if cap.normal @ -up > 0.3]
    return 2.0 + 40.0 * max((np.sqrt(1 - min(t, 1.0) ** 2) / t for t in tilts), default=0.0)


def _largest(bone: Bone, point, normal):
    loops = bone.section(point, normal)
    return loops[0] if loops else None


def _neck(bone: Bone, head: Sphere):
    """(axis, axis by sections, smallest area), or None."""
    radius = head.radius_mm
    distance = np.linalg.norm(bone.centers_mm - head.center_mm, axis=1)
    around = bone.part(distance < 4 * radius)
    # What lies just outside the head's sphere is neck, wherever the shaft goes.
    beside = (distance > 1.05 * radius) & (distance < 1.4 * radius)
    if not beside.any():
        return None
    away = unit(np.average(bone.centers_mm[beside], axis=0, weights=bone.areas_mm2[beside]) - head.center_mm)
    for _ in range(20):
        loops = [_nearest(around, head.center_mm + d * radius * away, away) for d in NECK_WINDOW]
        if any(loop is None for loop in loops):
            return None
        middles = np.array([loop.centroid_mm for loop in loops])
        before, away = away, unit(middles.mean(axis=0) - head.center_mm)
        if before @ away > 1 - 1e-9:
            break
    areas = np.array([loop.area_mm2 for loop in loops])
    if areas.max() > 0.85 * np.pi * radius**2:
        return None
    return Line(middles.mean(axis=0), -away), fit_line(middles, -away), float(areas.min())


def _nearest(bone: Bone, point, normal):
    """The loop around the point, or nearest to it."""
    loops = [loop for loop in bone.section(point, normal) if loop.area_mm2 > 100.0]
    return min(loops, key=lambda loop: np.linalg.norm(loop.centroid_mm - point)) if loops else None


def _greater_trochanter(bone, head, shaft, neck) -> np.ndarray | None:
    beyond = (bone.centers_mm - head.center_mm) @ -neck.direction > NECK_WINDOW.max() * head.radius_mm
    outside = np.linalg.norm(bone.centers_mm - head.center_mm, axis=1) > 1.1 * head.radius_mm
    return tip(bone, beyond & outside, shaft.direction, TROCHANTER_CAP_MM, reach_mm=30.0)


def _lesser_trochanter(bone, head, shaft, medial, posterior) -> np.ndarray | None:
    """Where the surface stands out most, behind and medially, from the shaft axis.

    For each height the largest distance from the axis within 0 to 75 degrees from straight posterior towards
    medial; from the shaft upwards the first maximum of it, or, where it passes into the neck without one,
    where it stands out most over the straight line from the shaft to the calcar.
    """
    diameter = 2 * head.radius_mm
    offset = bone.centers_mm - shaft.point_mm
    depth = (head.center_mm - bone.centers_mm) @ shaft.direction
    back, inward = offset @ posterior, offset @ medial
    angle = np.degrees(np.arctan2(inward, back))
    reach = np.hypot(back, inward)
    sector = (angle > 0) & (angle < 75) & (depth > 0.8 * diameter) & (depth < 2.0 * diameter)
    if depth.max() < 2.0 * diameter:
        return None
    levels = np.arange(2.0, 0.8, -1.0 / diameter) * diameter  # from below, 1 mm apart
    profile = np.array([reach[sector & (np.abs(depth - d) < 2.0)].max(initial=0.0) for d in levels])
    profile = np.convolve(profile, np.ones(3) / 3, mode="valid")
    levels = levels[1:-1]
    rise = (profile - profile.min()) / max(np.ptp(profile), 1e-9)
    if np.ptp(profile) < 4.0:
        return None
    peaks = [n for n in range(5, len(profile) - 5) if profile[n] == profile[n - 5 : n + 6].max() and rise[n] > 0.6]
    chord = np.interp(levels, levels[[-1, 0]], profile[[-1, 0]])
    at = levels[peaks[0] if peaks else int(np.argmax(profile - chord))]
    near = sector & (np.abs(depth - at) < 4.0)
    highest = np.argmax(np.where(near, reach, -np.inf))
    direction = unit(back[highest] * posterior + inward[highest] * medial)
    return tip(bone, near & (np.linalg.norm(bone.centers_mm - bone.centers_mm[highest], axis=1) < 10), direction)
