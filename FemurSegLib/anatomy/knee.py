"""The distal femur: condyles, notch, epicondyles. Needs no hip, which only makes its up direction better.

Everything here works on a right femur (`Bone.as_right`), where medial = posterior x superior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bone import Bone
from .fitting import Line, Sphere, across, fit_cylinder, fit_line, fit_sphere, perpendiculars, unit

BLOCK_MM = 45.0
"""Height of the part above the lowest point from which the width of the condyles is taken."""
NARROWER = 0.72
"""A shaft is narrower than this part of the condyles' width, at 1.2 widths above the joint."""
SUMMIT_MM, FLATTEST_PER_MM = 15.0, 1 / 150
"""Where a line touches a condyle is the summit of a quadratic surface fitted within this distance of it: far less
noise than in one vertex. Surfaces flatter than a radius of 150 mm are taken for as flat as that."""
OVERSHOOT_MM = 0.5
"""A summit is not higher than this above all the surface that it was fitted to."""
EPICONDYLE_MM, CAP_MM, BLUNT_MM, HOLD_PER_MM = 15.0, 3.0, 12.0, 1 / 50
"""Both epicondyles are sought this close to the middle of the condyles. One is the summit (`summit`) of the surface
within 12 mm of it, uphill from the middle of what lies within 3 mm of the most prominent point: both are so blunt
that the most prominent point itself, and the twist that follows, depended on noise and pose by up to 3 degrees. On
one that is as good as flat the summit is held near that middle, and never goes farther from it than 12 mm: of 29
real femora none did, of a painted one it ran 19 mm, and the twist went from -9 to -13 degrees as it was turned."""
FLEXION_DEG = (15.0, 120.0)
"""Part of the condyles that the sphere and cylinder are fitted to, as the angle of the normal from straight
down towards the back: the arc on which the tibia turns (Eckhoff 2007 takes 10 to 120)."""

MOST_UNEQUAL, ROUGHEST_MM, ASKEW_DEG, LARGEST = 2.0, 2.0, 20.0, 0.5
"""Two knobs with other radii, residuals, a more oblique axis or a larger radius, in widths of the knee, are no
condyles. 39 exact meshes have at most 1.32, 0.67 mm and 7.4 degrees; three with painted spurs of 3 to 4 mm up to
1.80 and 0.77 mm, and what does not need the axis is read well from them."""
GROOVE_MM = 1.0
"""The lowest point of a section from front to back is the mean of what lies about this close to it."""


@dataclass(frozen=True)
class Knee:
    """Landmarks of the distal femur (mm; LPS).

    up: along which it was read: the mechanical axis, or without a hip the axis of the distal shaft.
    width_mm: of the condyles, along the posterior condylar line.
    medial, posterior: unit vectors; medial along the posterior condylar line, posterior square to it and `up`.
    center_mm: centre of the intercondylar notch, the end of the mechanical axis: highest point of the lower
      outline between the condyles seen from the front (Moreland et al. 1987, "top of the intercondylar notch").
    posterior_mm, distal_mm: (2, 3), medial then lateral: where the plane along `up` touches both condyles from
      behind, and the line across `posterior` touches both from below.
    epicondyles_mm: (2, 3), medial then lateral: most prominent points, along `medial`, beside the middle of the
      condyles (the clinical transepicondylar line, Yoshino et al. 2001).
    spheres: medial, lateral: fitted to the posterior condyles. axis_by_spheres joins their centres, pointing
      medially; axis (with axis_radius_mm) is the axis of one cylinder fitted to both. (Both: Renault et al.
      2018, J Biomech 80:171; cylinder: Eckhoff et al. 2007, CORR 461:238.)
    """

    up: np.ndarray
    width_mm: float
    medial: np.ndarray
    posterior: np.ndarray
    center_mm: np.ndarray
    posterior_mm: np.ndarray
    distal_mm: np.ndarray
    epicondyles_mm: np.ndarray
    spheres: tuple[Sphere, Sphere]
    axis_by_spheres: Line
    axis: Line
    axis_radius_mm: float


LOW = 0.35
"""Part of the knee, in its widths from below, whose hollow behind is the fossa between the condyles."""
SPHERE_STARTS = (0.2, 0.25, 0.3)
"""Radii, in widths of the knee, that a condyle's sphere is fitted from; that with the most of its surface is taken.
From 0.25 alone a bone with spurs had a sphere that fitted a tenth of it."""

CUT = "the condyles are cut by the edge of the scan"


def find_knee(
    bone: Bone, up: np.ndarray, head_mm: np.ndarray | None, even_cut: bool = False
) -> tuple[Knee | None, str]:
    """Landmarks of the knee, or None and the reason. `bone` is a right femur, `up` points roughly proximal;
    with `head_mm`, the centre of the head, the knee is read along the mechanical axis. even_cut: though a flat end
    runs through it, which may also be that of a piece of tibia."""
    frame = _first_frame(bone, up)
    if frame is None:
        return None, "there are no condyles at its lower end"
    up, medial, posterior, width = frame
    lowest = (bone.hull_mm @ up).min()
    if not even_cut and any(c.center_mm @ up < lowest + 0.6 * width and c.normal @ up < 0.6 for c in bone.caps):
        return None, CUT
    center = None
    lower = bone.part(bone.centers_mm @ up < lowest + 1.2 * width)
    for _ in range(8):
        block = bone.centers_mm @ up < (bone.hull_mm @ up).min() + 0.75 * width
        before = medial
        tangent = _tangent(bone, block, posterior, medial, width)
        if tangent is None:
            return None, "two condyles cannot be told apart"
        back = tangent
        medial = across(back[0] - back[1], up)
        posterior = np.cross(up, medial)
        low = _tangent(bone, block, -up, medial, width)
        if low is None:
            return None, "two condyles cannot be told apart"
        center = _notch(lower, up, medial, low)
        if center is None:
            return None, "no notch lies between the condyles"
        if head_mm is not None:
            up = unit(head_mm - center)
            medial = across(medial, up)
            posterior = np.cross(up, medial)
        if before @ medial > 1 - 1e-9:
            break
    block = bone.centers_mm @ up < (bone.hull_mm @ up).min() + 0.75 * width
    across_mm = bone.centers_mm[block] @ medial
    width = float(np.ptp(across_mm))
    fitted = condylar_axes(bone, block, up, medial, posterior, back, width)
    if fitted is None:
        return None, "the condyles are not round enough for a condylar axis"
    spheres, by_spheres, axis, radius = fitted
    epicondyles = _epicondyles(bone, block, by_spheres.point_mm, medial)
    return (
        Knee(up, width, medial, posterior, center, back, low, epicondyles, spheres, by_spheres, axis, radius),
        "",
    )


def _first_frame(bone: Bone, up: np.ndarray):
    """(up along the distal shaft, medial, posterior, width), or None without condyles."""
    shaft = None
    for _ in range(3):
        height = bone.centers_mm @ up
        lowest = height.min()
        block = height < lowest + BLOCK_MM
        flat = bone.centers_mm[block] - np.outer(bone.centers_mm[block] @ up, up)
        weights = bone.areas_mm2[block]
        offset = flat - np.average(flat, axis=0, weights=weights)
        wide = np.linalg.eigh((weights[:, None] * offset).T @ offset)[1][:, -1]
        width = float(np.ptp(flat @ wide))
        heights = lowest + width * np.linspace(1.2, 2.2, 11)
        top = (bone.hull_mm @ up).max() - 3.0
        loops = [bone.section(up * h, up) for h in heights if h < top]
        loops = [found[0] for found in loops if found]
        if len(loops) < 5:
            return None
        across_shaft = np.ptp(loops[0].segments_mm.reshape(-1, 3) @ wide)
        if not (45.0 < width < 130.0 and across_shaft < NARROWER * width):
            return None
        shaft = fit_line(np.array([loop.centroid_mm for loop in loops]), up)
        up = shaft.direction
    side = across(wide, up)
    back = np.cross(up, side)
    if _groove(bone, up, side, -back, width) > _groove(bone, up, side, back, width):
        back = -back
    return up, np.cross(back, up), back, width


def _groove(bone: Bone, up, side, outward, width) -> float:
    """How deep (mm) the lower end is hollow between both sides, seen along `outward`.

    The fossa between the condyles is 14 to 22 mm deep in ten painted femora, the groove of the kneecap in front at
    most 6. (How far front and back stand out from the shaft says less where the femur is bent.) 0 where what is
    lowest is no knee but a tip.
    """
    height = bone.centers_mm @ up
    low = bone.centers_mm[height < height.min() + LOW * width]
    place, reach = low @ side, low @ outward
    aside = np.abs(place - 0.5 * (place.min() + place.max())) / width
    beside, between = reach[(aside > 0.15) & (aside < 0.4)], reach[aside < 0.08]
    return float(beside.max() - between.max()) if len(beside) and len(between) else 0.0


def _tangent(bone: Bone, block, outward, medial, width) -> np.ndarray | None:
    """(2, 3): medial and lateral points where the line, seen along the third direction, touches both condyles."""
    from scipy.spatial import ConvexHull

    ids = np.flatnonzero(block)
    plane = np.c_[bone.centers_mm[ids] @ medial, bone.centers_mm[ids] @ outward]
    hull = ConvexHull(plane)
    ends = plane[hull.simplices]
    length = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1) * (hull.equations[:, 1] > 0.85)
    edge = int(np.argmax(length))
    if length[edge] < 0.3 * width:
        return None
    normal = hull.equations[edge, 0] * medial + hull.equations[edge, 1] * outward
    middle = ends[edge].mean(axis=0)[0]
    points, normals, areas = bone.centers_mm[ids], bone.smooth_normals[ids], bone.areas_mm2[ids]
    inner = points @ medial > middle
    touch = [points[part][np.argmax(points[part] @ normal)] for part in (inner, ~inner)]
    for _ in range(8):
        facing = normals @ normal > 0.7
        touch = [
            summit(points[part & facing], areas[part & facing], normal, start)
            for part, start in zip((inner, ~inner), touch, strict=True)
        ]
        span = touch[0] - touch[1]
        run, lift = span @ medial, span @ outward
        before, normal = normal, unit(run * outward - lift * medial)
        if before @ normal > 1 - 1e-10:
            break
    return np.array(touch)


def summit(points, areas, normal, start, reach_mm: float = SUMMIT_MM, hold_per_mm: float = 0.0) -> np.ndarray:
    """Highest point along `normal` of the quadratic surface fitted to the elements within `reach_mm` of it, found
    uphill from `start`: unlike the highest vertex it is not lifted by noise. hold_per_mm: curvature added about
    `start`, so that on a plateau the point stays there."""
    first, second = perpendiculars(normal)
    middle = start
    for _ in range(12):
        offset = points - middle
        u, v, height = offset @ first, offset @ second, offset @ normal
        distance = np.sqrt(u**2 + v**2) / reach_mm
        near = distance < 1
        if near.sum() < 12:
            return middle
        u, v, height = u[near], v[near], height[near]
        root = np.sqrt(areas[near]) * (1 - distance[near] ** 4)
        terms = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1)
        c = np.linalg.lstsq(terms * root[:, None], height * root, rcond=None)[0]
        bend = np.array([[2 * c[3], c[4]], [c[4], 2 * c[5]]])
        values, vectors = np.linalg.eigh(bend)
        values = np.minimum(values, -FLATTEST_PER_MM)  # a plateau or a saddle: small steps uphill
        back = hold_per_mm * np.array([(start - middle) @ first, (start - middle) @ second])
        step = -vectors @ ((vectors.T @ (c[1:3] + back)) / (values - hold_per_mm))
        step *= min(1.0, 0.4 * reach_mm / max(np.linalg.norm(step), 1e-9))
        lift = c[0] + c[1:3] @ step + 0.5 * step @ bend @ step
        lift = min(lift, height.max() + OVERSHOOT_MM)  # where elements lie on one side only the surface runs away
        middle = middle + step[0] * first + step[1] * second + lift * normal
        if np.linalg.norm(step) < 0.01:
            break
    return middle


def _notch(bone: Bone, up, medial, low) -> np.ndarray | None:
    """Highest point of the lower outline between the condyles, seen from the front."""
    lateral_x, medial_x = low[1] @ medial, low[0] @ medial
    span = medial_x - lateral_x
    xs = np.linspace(lateral_x + 0.2 * span, medial_x - 0.2 * span, 25)
    bottom = []
    for x in xs:
        loops = bone.section(medial * x, medial)
        if not loops:
            return None
        segments = np.concatenate([loop.segments_mm for loop in loops])
        points = segments.mean(axis=1)
        height = points @ up
        depth = np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1)
        weight = depth * np.exp(-(((height - height.min()) / GROOVE_MM) ** 2))
        bottom.append(np.average(points, axis=0, weights=weight))
    bottom = np.array(bottom)
    height = bottom @ up
    top = int(np.argmax(height))
    if top in (0, len(xs) - 1) or height[top] - max(height[0], height[-1]) < 0.3:
        return None
    near = np.abs(xs - xs[top]) < 0.15 * span
    curve = np.polyfit(xs[near] - xs[top], height[near], 2)
    shift = -curve[1] / (2 * curve[0]) if curve[0] < -1e-4 else 0.0
    x = xs[top] + np.clip(shift, -0.1 * span, 0.1 * span)
    close = np.exp(-0.5 * ((xs - x) / (0.05 * span)) ** 2)  # no jumps from section to section
    middle = (close[:, None] * bottom).sum(axis=0) / close.sum()
    return middle + (x - middle @ medial) * medial


def condylar_axes(bone: Bone, block, up, medial, posterior, back, width):
    """(spheres, axis by spheres, axis of the cylinder, its radius), or None."""
    normals = bone.smooth_normals
    flexion = np.degrees(np.arctan2(normals @ posterior, -(normals @ up)))
    patch = block & (flexion > FLEXION_DEG[0]) & (flexion < FLEXION_DEG[1]) & (np.abs(normals @ medial) < 0.5)
    middle = back.mean(axis=0) @ medial
    inner = bone.centers_mm @ medial > middle
    spheres = []
    for part, point in ((inner, back[0]), (~inner, back[1])):
        use = patch & part
        starts = [Sphere(point - r * width * posterior, r * width) for r in SPHERE_STARTS]
        fits = [fit_sphere(bone.centers_mm[use], normals[use], bone.areas_mm2[use], s, 5.0) for s in starts]
        fit = max(fits, key=lambda sphere: sphere.coverage * sphere.radius_mm**2)
        if fit.coverage == 0 or not 0.12 * width < fit.radius_mm < LARGEST * width:
            return None
        spheres.append(fit)
    between = Line(
        0.5 * (spheres[0].center_mm + spheres[1].center_mm), unit(spheres[0].center_mm - spheres[1].center_mm)
    )
    start_radius = 0.5 * (spheres[0].radius_mm + spheres[1].radius_mm)
    start = Line(between.point_mm, medial)
    axis, radius, residual = fit_cylinder(
        bone.centers_mm[patch], normals[patch], bone.areas_mm2[patch], start, start_radius, 4.0
    )
    if not np.isfinite(residual):
        return None
    axis = Line(axis.at(medial, middle), axis.direction * np.sign(axis.direction @ medial))
    radii = [sphere.radius_mm for sphere in spheres]
    alike = max(radii) < MOST_UNEQUAL * min(radii) and max(s.residual_mm for s in spheres) < ROUGHEST_MM
    if not alike or min(axis.direction @ medial, between.direction @ medial) < np.cos(np.radians(ASKEW_DEG)):
        return None
    return tuple(spheres), between, axis, radius


def _epicondyles(bone: Bone, block, middle_mm, medial) -> np.ndarray:
    """Most prominent points of both sides along `medial`, within `EPICONDYLE_MM` of the line through the middle of
    the condyles."""
    away = Line(middle_mm, medial).distance_mm(bone.centers_mm)
    tips = []
    for outward in (medial, -medial):
        height = np.where(block & (away < EPICONDYLE_MM), bone.centers_mm @ outward, -np.inf)
        cap = np.maximum(1 - (height.max() - height) / CAP_MM, 0.0) * bone.areas_mm2
        start = np.average(bone.centers_mm, axis=0, weights=cap)
        use = block & (away < EPICONDYLE_MM + BLUNT_MM) & (bone.smooth_normals @ outward > 0.6)
        tip = summit(bone.centers_mm[use], bone.areas_mm2[use], outward, start, BLUNT_MM, HOLD_PER_MM)
        tips.append(_not_run_away(tip, start))
    return np.array(tips)


def _not_run_away(tip: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The tip, or the point `BLUNT_MM` from the start on the way to it."""
    return start + (tip - start) * min(1.0, BLUNT_MM / max(np.linalg.norm(tip - start), 1e-9))
