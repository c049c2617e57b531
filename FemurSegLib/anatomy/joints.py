"""What a mask has taken in of the socket or the tibia, taken off again before the bone is measured.

The joint surfaces of a femur are smooth: the head is about a sphere, a condyle nearly a surface of revolution. A
low polynomial fitted to each, with weights that ignore what stands out (Huber & Ronchetti, Robust Statistics,
2009), tells where the surface of the mask is not the femur's. Only what stands out by more than `STANDS_OUT_MM` is
moved, onto the polynomial, and only where a piece of it is as large as `SMALLEST_MM2`.

A narrow joint space makes a mask too thick by less: a film or flecks of 1 to 3 mm under one condyle, enough to turn
the line that touches both by 3 degrees. Nothing of them is another bone, so nothing is left out or told, but lines
are laid onto the even surface (`evened_condyles`).
"""

from __future__ import annotations

import numpy as np

from .bone import Bone
from .fitting import SMALLEST_SPREAD_MM, TUKEY, perpendiculars
from .hip import Hip
from .knee import Knee

SOCKET, TIBIA = "socket", "tibia"
"""Whose pieces are taken off."""
STANDS_OUT_MM = 3.0
"""Cartilage keeps the bones of a joint farther apart; `hip.find_head` bears with a head so far from a sphere."""
SMALLEST_MM2 = 150.0
"""A connected piece with less surface than this so far out is a spur of the femur itself: of the painted spurs of
four phantoms at most 51 mm2 stood out in one place, of slivers of the socket (`mistakes`) 670 to 920."""
HEAD_ARC_DEG = 110.0
"""Of the head, from its pole opposite the neck."""
HEAD_POWERS = tuple((a, b) for a in range(5) for b in range(5) if a + b < 5)
"""Of the two coordinates on the head (`_about_head`), in its radius."""
ARC_DEG = (-45.0, 120.0)
"""Of a condyle, from the trochlea to the back, about the knee (`_around`); 0 is straight down."""
TIBIA_DEG = (-45.0, 90.0)
"""Part of it that may touch the tibia in a knee that is not bent far; behind it the fit is loose."""
BELOW_MM = 2.5
"""In front of the condyles and between them a femur lies higher than they do; what is lower by this is no femur."""
BAND = 0.2
"""Half the breadth of a condyle's bearing surface, as a part of the width of the knee. With 0.15 the fit followed a
film 16 mm wide instead of ignoring it."""
CONDYLE_POWERS = tuple((a, b) for a in range(7) for b in range(3) if a + 2 * b < 7)
"""Of the angle and of the place along the axis, in the radius of a condyle: nearly a surface of revolution. With
powers of the angle to the fourth alone it missed exact condyles by up to 0.4 mm where lines touch them."""
EVEN_MM = 1.5
"""What stands out of a joint surface by so much or more is drawn onto it, what stands out less the less: by Tukey's
biweight, without a step. mLDFA of exact painted bones changes by 0.04 degrees at most, of one with spurs by 1.1."""
QUANTILE = 0.25
"""Start of a robust fit: this much of the surface lies below, and what stands out counts a third of it."""


def without_socket(bone: Bone, hip: Hip) -> Bone:
    """The same bone; itself where nothing stands out of the head."""
    limit = head_surface(bone, hip)
    distance, far, u, v = _about_head(bone.points_mm, hip)
    near = far < HEAD_ARC_DEG
    should = np.full(len(far), np.inf)
    should[near] = limit(u[near], v[near])
    out = distance > should + STANDS_OUT_MM
    if not _holds_a_piece(bone, out):
        return bone
    points = bone.points_mm.copy()
    arm = points[out] - hip.head.center_mm
    points[out] = hip.head.center_mm + arm * (should[out] / distance[out])[:, None]
    return Bone(points, bone.triangles, bone.side)


def head_surface(bone: Bone, hip: Hip):
    """Function (place on the head, as `_about_head` gives it) -> distance from the head's centre."""
    distance, far, u, v = _about_head(bone.centers_mm, hip)
    arm = bone.centers_mm - hip.head.center_mm
    facing = np.einsum("ij,ij->i", arm, bone.smooth_normals) > 0.7 * distance
    use = facing & (far < HEAD_ARC_DEG) & (distance < 1.5 * hip.head.radius_mm)
    found = _robust(_powers(u[use], v[use], HEAD_POWERS), distance[use], bone.areas_mm2[use])
    return lambda u, v: _powers(u, v, HEAD_POWERS) @ found


def _about_head(points: np.ndarray, hip: Hip):
    """Distance from the head's centre, angle (degrees) from its pole opposite the neck, and the place on the head
    as on a map that keeps the angles from its middle, the pole (azimuthal equidistant)."""
    arm = points - hip.head.center_mm
    distance = np.maximum(np.linalg.norm(arm, axis=1), 1e-9)
    pole = hip.neck.direction
    first, second = perpendiculars(pole)
    along = arm @ pole
    x, y = arm @ first, arm @ second
    aside = np.hypot(x, y)
    far = np.degrees(np.arctan2(aside, along))
    scale = far / HEAD_ARC_DEG / np.maximum(aside, 1e-9)
    return distance, far, x * scale, y * scale


def evened_condyles(bone: Bone, knee: Knee) -> Bone:
    """The same bone, the joint surface of its condyles evened (`EVEN_MM`)."""
    limit = condyles(bone, knee)
    if limit is None:
        return bone
    x, angle, radius = _around(bone.points_mm, knee)
    near = (np.abs(x) < 0.6 * knee.width_mm) & (angle > TIBIA_DEG[0]) & (angle < TIBIA_DEG[1])
    out = radius[near] - limit(x[near], angle[near])
    arm = bone.points_mm[near] - knee.axis_by_spheres.point_mm - x[near, None] * knee.medial
    points = bone.points_mm.copy()
    points[near] -= arm * (_too_far(out) / radius[near])[:, None]
    return Bone(points, bone.triangles, bone.side)


def _too_far(out: np.ndarray) -> np.ndarray:
    """How far what stands out by `out` mm is drawn in: not what lies below, all that is out by `EVEN_MM`."""
    out = np.maximum(out, 0.0)
    return out * (1 - np.maximum(1 - (out / EVEN_MM) ** 2, 0) ** 2)


def without_tibia(bone: Bone, knee: Knee) -> Bone:
    """The same bone; itself where nothing stands out of the condyles, or in front of them or between them below."""
    limit = condyles(bone, knee)
    if limit is None:
        return bone
    x, angle, radius = _around(bone.points_mm, knee)
    axis, down = knee.medial, -knee.up
    points = bone.points_mm.copy()
    at_knee = np.abs(x) < 0.6 * knee.width_mm
    near = at_knee & (angle > TIBIA_DEG[0]) & (angle < TIBIA_DEG[1])
    should = np.full(len(x), np.inf)
    should[near] = limit(x[near], angle[near])
    out = radius > should + STANDS_OUT_MM
    arm = points[out] - knee.axis_by_spheres.point_mm - x[out, None] * axis
    points[out] -= arm * (1 - should[out] / radius[out])[:, None]

    places = np.linspace(-0.6, 0.6, 49) * knee.width_mm
    turns = np.linspace(*TIBIA_DEG, 28)
    depth = [(limit(np.full(len(turns), place), turns) * np.cos(np.radians(turns))).max() for place in places]
    edges = sorted((sphere.center_mm - knee.axis_by_spheres.point_mm) @ axis for sphere in knee.spheres)
    between = (x > edges[0] + BAND * knee.width_mm) & (x < edges[1] - BAND * knee.width_mm)
    deeper = (points - knee.axis_by_spheres.point_mm) @ down - np.interp(x, places, depth)
    below = at_knee & (between | (angle <= TIBIA_DEG[0])) & (deeper > BELOW_MM)
    points[below] -= deeper[below, None] * down
    return Bone(points, bone.triangles, bone.side) if _holds_a_piece(bone, out | below) else bone


def condyles(bone: Bone, knee: Knee):
    """Function (place along the axis, angle) -> distance of the joint surface from the axis of `_around`."""
    x, angle, radius = _around(bone.centers_mm, knee)
    arm = bone.centers_mm - knee.axis_by_spheres.point_mm
    arm = arm - np.outer(arm @ knee.medial, knee.medial)
    facing = np.einsum("ij,ij->i", arm, bone.smooth_normals) > 0.7 * np.linalg.norm(arm, axis=1)
    band = BAND * knee.width_mm
    on_arc = facing & (angle > ARC_DEG[0]) & (angle < ARC_DEG[1]) & (radius < 0.75 * knee.width_mm)
    fits = []
    for sphere in knee.spheres:
        middle = (sphere.center_mm - knee.axis_by_spheres.point_mm) @ knee.medial
        use = on_arc & (np.abs(x - middle) < band)
        if use.sum() < 100:
            return None
        terms = _terms((x[use] - middle) / band, angle[use])
        fits.append((middle, _robust(terms, radius[use], bone.areas_mm2[use])))
    (inner, first), (outer, second) = fits

    def limit(x, angle):
        one = _terms(np.clip((x - inner) / band, -1, 1), angle) @ first
        other = _terms(np.clip((x - outer) / band, -1, 1), angle) @ second
        share = np.clip((x - outer - band) / max(inner - outer - 2 * band, 1e-6), 0, 1)
        return share * one + (1 - share) * other

    return limit


def _holds_a_piece(bone: Bone, out: np.ndarray) -> bool:
    """Whether what stands out (n,) of the surface's points has a connected part as large as `SMALLEST_MM2`."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    whole = out[bone.triangles].all(axis=1)
    first, second, third = bone.triangles[whole].T
    ends = np.r_[first, second], np.r_[second, third]
    graph = coo_matrix((np.ones(2 * len(first)), ends), shape=(len(out), len(out)))
    _, part = connected_components(graph, directed=False)
    return bool(np.bincount(part[first], bone.areas_mm2[whole], minlength=1).max() >= SMALLEST_MM2)


def _around(points: np.ndarray, knee: Knee):
    """Place along the knee's axis (medially), angle from straight down to the back (degrees) and distance.

    The axis is the line through the middle of the condyles' spheres along the posterior condylar line: that of the
    cylinder may lie 12 mm higher in one of two poses of a bone with spurs.
    """
    offset = points - knee.axis_by_spheres.point_mm
    along = offset @ knee.medial
    deep, behind = -(offset @ knee.up), offset @ knee.posterior
    return along, np.degrees(np.arctan2(behind, deep)), np.hypot(deep, behind)


def _terms(place: np.ndarray, angle: np.ndarray) -> np.ndarray:
    middle, half = np.mean(ARC_DEG), np.ptp(ARC_DEG) / 2
    return _powers((angle - middle) / half, place, CONDYLE_POWERS)


def _powers(u: np.ndarray, v: np.ndarray, powers) -> np.ndarray:
    return np.stack([u**a * v**b for a, b in powers], axis=1)


def _robust(terms, values, areas) -> np.ndarray:
    """Coefficients of a surface from which pieces stand out, never in: first the quantile `QUANTILE`, then Tukey's
    biweight about it, whose scale is that of what lies below."""
    weight = np.ones(len(values))
    for step in range(40):
        root = np.sqrt(weight * areas)
        found = np.linalg.lstsq(terms * root[:, None], values * root, rcond=None)[0]
        off = values - terms @ found
        if step < 20:
            weight = np.where(off > 0, QUANTILE, 1 - QUANTILE) / np.maximum(np.abs(off), 0.05)
        else:
            spread = TUKEY * max(1.4826 * np.median(-off[off < 0]), SMALLEST_SPREAD_MM)
            weight = np.maximum(1 - (off / spread) ** 2, 0) ** 2
    return found
