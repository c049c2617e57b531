"""The proximal femur: head, proximal shaft, neck, trochanters. Needs no knee: a femur cut at mid-shaft gives
the same numbers as the whole one.

Everything here works on a right femur (`Bone.as_right`), where medial = posterior x superior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bone import Bone
from .fitting import Line, Sphere, across, fit_line, fit_sphere, perpendiculars, unit, vote_sphere

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
"""Cut-off of the fits that tell a head from what is none, first to find the sphere, then to narrow it."""
HEAD_CUTOFF_MM, HEAD_FACING_DEG, HEAD_FADE_DEG = 6.0, 25.0, 20.0
"""Of the fit that places the head, kept so wide to its end. A head is no sphere: of painted ones a fifth of the
surface lay more than 2 mm off. A cut-off that follows the spread then takes such a part in or leaves it out as
the mask has it: centres of the same mask turned were up to 0.7 mm apart, and 0.1 mm with this one."""
SHAFT_WINDOW = (1.75, 3.75)
"""Heights below the head's centre, in head diameters, of the sections that give the proximal shaft axis: from
below the lesser trochanter to about the isthmus of the canal."""
SHORTEST_WINDOW = 0.75
SECTIONS = 25
NECK_SPHERES = np.linspace(1.15, 1.4, 6)
"""Radii, in those of the head, of spheres about its centre; the one with the least bone on it gives the way to the
neck. They pass below the greater trochanter where a plane across the neck runs into it."""
NECK_OFFSETS, NECK_TILT = (0.7, 1.45), np.tan(np.radians(35.0))
"""Where the neck's smallest section is looked for: distance from the head's centre, in its radii, and slope against
that way."""
NECK_MIDDLE, NECK_PREFERENCE = 1.0, 0.1
"""Of sections nearly alike one about so many radii from the head's centre is taken: half a radius farther counts as
2.5 % larger. Else the place of it along an even neck would be a matter of noise."""
NECK_ASIDE = 0.6
"""The centroid of a neck's section is at most so many radii from the way to the neck."""
NECK_BREADTHS = (0.12, 0.85)
"""Area of the smallest section, as a part of the head's great circle: a smaller one is none of the neck's, with a
larger one there is no neck."""
FALL_DEG, FALL_STEP = 15.0, 0.1
"""Slope of the sections, and distance between them in head radii, from which the direction is found across which
the neck's sections are smallest."""
TROCHANTER_JUMP = 1.12
"""A section so much larger than a cylinder's of this slope has run into the trochanter."""
FALL_COUNT, FALL_RESIDUAL, FALL_CURVATURE = 18, 0.02, 0.4
"""The second neck axis is not said where fewer of the 27 sections are the neck's, where their areas (as a share)
are farther from a quadratic (root mean square; a cylinder's grow by 0.035), or hardly grow (a cylinder's: 1)."""
TROCHANTER_BEYOND = 1.2
"""The greater trochanter lies beyond so many radii of the head along the neck axis."""
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
    neck: neck axis, from the neck's centre (`neck.point_mm`, the centroid of its smallest section) to the head's
      centre. Of all planes across the neck that one is taken whose section is smallest, as Fischer et al. 2020 (Sci
      Rep 10:20859) take that of the least perimeter: it turns away from the greater trochanter, and a start or a
      pose plays no part in it.
    neck_by_sections: the same by the other method, across the sections: the direction in which they are smallest,
      by a quadratic fitted to the areas of sections of many slopes (`FALL_DEG`); it need not meet the head's
      centre. None where they have no clear minimum, as beside a trochanter that reaches over the neck.
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
    neck_by_sections: Line | None
    neck_area_mm2: float
    medial: np.ndarray | None
    posterior: np.ndarray | None
    greater_trochanter_mm: np.ndarray | None
    lesser_trochanter_mm: np.ndarray | None
    trochanter_base_mm: np.ndarray | None


def find_head(bone: Bone) -> tuple[Sphere, np.ndarray] | None:
    """The femoral head and the unit vector, along the longest principal axis, that points up to it; or None.

    Of the spheres voted for at either end the one that more of its own surface supports, fitted as `fit_head` does.
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
    if not found:
        return None
    _, head, up = max(found, key=lambda each: each[0])
    return fit_head(bone, head), up


def fit_head(bone: Bone, head: Sphere) -> Sphere:
    """The sphere of the head near one that is about right, fitted with Tukey's weights of one width
    (`HEAD_CUTOFF_MM`): fovea and spurs count less, the neck not at all."""
    near = np.linalg.norm(bone.centers_mm - head.center_mm, axis=1) < head.radius_mm + 2 * HEAD_CUTOFF_MM
    for cap in bone.caps:  # the edge of the scan is no part of a head that it cuts
        near &= (bone.centers_mm - cap.center_mm) @ cap.normal < -2 * CAP_MM
    return fit_sphere(
        bone.centers_mm[near],
        bone.smooth_normals[near],
        bone.areas_mm2[near],
        head,
        HEAD_CUTOFF_MM,
        HEAD_FACING_DEG,
        fade_deg=HEAD_FADE_DEG,
        narrowest_mm=HEAD_CUTOFF_MM,
    )


def find_hip(bone: Bone, head: Sphere, up: np.ndarray) -> tuple[Hip | None, str]:
    """Landmarks of the hip, or None, and the reason for what is missing. `bone` is a right femur."""
    neck = _neck(bone, head, up)
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


def _neck(bone: Bone, head: Sphere, up: np.ndarray):
    """(axis, axis by sections or None, smallest area), or None. up: about along the shaft."""
    from scipy.optimize import minimize

    center, radius = head.center_mm, head.radius_mm
    great = np.pi * radius**2
    around = bone.part(np.linalg.norm(bone.centers_mm - center, axis=1) < 4 * radius)
    parts = [found[0] for r in NECK_SPHERES if (found := around.on_sphere(center, r * radius))]
    if not parts:
        return None
    way = unit(min(parts, key=np.linalg.norm))
    first = across(up, way) if abs(up @ way) < 0.99 else perpendiculars(way)[0]
    second = np.cross(way, first)

    def section(at):
        """The neck's loop in a plane of two slopes, `at` radii from the head's centre; None where it has none."""
        inside = NECK_OFFSETS[0] <= at[2] <= NECK_OFFSETS[1] and max(abs(at[0]), abs(at[1])) <= NECK_TILT
        point = center + at[2] * radius * way
        loop = _nearest(around, point, unit(way + at[0] * first + at[1] * second)) if inside else None
        if loop is None or np.linalg.norm(loop.centroid_mm - point) > NECK_ASIDE * radius:
            return None
        cut = any((np.abs((loop.segments_mm - c.center_mm) @ c.normal) < CAP_MM).any() for c in bone.caps)
        return None if cut or loop.area_mm2 < NECK_BREADTHS[0] * great else loop

    def area(at):
        loop = section(at)
        return 10 * great if loop is None else loop.area_mm2 * (1 + NECK_PREFERENCE * (at[2] - NECK_MIDDLE) ** 2)

    starts = [np.array([0.0, 0.0, offset]) for offset in (0.9, 1.05, 1.2)]
    start = min(starts, key=area)
    corners = start + np.array([[0, 0, 0], [0.2, 0, 0], [0, 0.2, 0], [0, 0, 0.15]])
    options = {"initial_simplex": corners, "xatol": 2e-3, "fatol": 1e-4 * great, "maxfev": 150}
    best = minimize(area, start, method="Nelder-Mead", options=options).x
    loop = section(best)
    if loop is None or loop.area_mm2 > NECK_BREADTHS[1] * great:
        return None
    normal = unit(way + best[0] * first + best[1] * second)
    axis = Line(loop.centroid_mm, unit(center - loop.centroid_mm))
    return axis, _by_sections(around, loop, normal, first, radius), loop.area_mm2


def _by_sections(around: Bone, loop, normal: np.ndarray, aside: np.ndarray, radius: float) -> Line | None:
    """The line through the smallest section's centroid, pointing to the head, in whose direction the neck's
    sections are smallest; None where there is no such direction. normal: of that section, pointing away from the
    head; aside: any direction of the bone across it."""
    slope = np.tan(np.radians(FALL_DEG))
    slopes = slope * np.array([(0, 0), *((np.cos(a), np.sin(a)) for a in np.arange(8) * np.pi / 4)])
    u, v = np.tile(slopes, (3, 1)).T
    steps = np.repeat([0.0, -1.0, 1.0], len(slopes))
    terms = np.stack([np.ones(len(u)), u, v, steps, u * u, u * v, v * v, steps**2, u * steps, v * steps], axis=1)
    middle, smallest = loop.centroid_mm, loop.area_mm2
    for _ in range(4):
        first = across(aside, normal)
        second = np.cross(normal, first)
        loops = [
            _nearest(around, middle + s * FALL_STEP * radius * normal, unit(normal + a * first + b * second))
            for a, b, s in zip(u, v, steps, strict=True)
        ]
        areas = np.array([np.inf if each is None else each.area_mm2 for each in loops])
        use = areas < smallest * np.sqrt(1 + u**2 + v**2) * TROCHANTER_JUMP
        if use.sum() < FALL_COUNT:
            return None
        logs = np.log(areas[use])
        found = np.linalg.lstsq(terms[use], logs, rcond=None)[0]
        residual = np.sqrt(np.mean((terms[use] @ found - logs) ** 2))
        bend = np.array([[2 * found[4], found[5]], [found[5], 2 * found[6]]])
        if residual > FALL_RESIDUAL or np.linalg.eigvalsh(bend)[0] < FALL_CURVATURE:
            return None
        change = np.clip(-np.linalg.solve(bend, found[1:3]), -slope, slope)
        normal = unit(normal + change[0] * first + change[1] * second)
        if np.abs(change).max() < 1e-3:
            break
    return Line(middle, -normal)


def _nearest(bone: Bone, point, normal):
    """The loop around the point, or nearest to it."""
    loops = [loop for loop in bone.section(point, normal) if loop.area_mm2 > 100.0]
    return min(loops, key=lambda loop: np.linalg.norm(loop.centroid_mm - point)) if loops else None


def _greater_trochanter(bone, head, shaft, neck) -> np.ndarray | None:
    beyond = (bone.centers_mm - head.center_mm) @ -neck.direction > TROCHANTER_BEYOND * head.radius_mm
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
