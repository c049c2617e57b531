"""All landmarks of one femur: from the surface alone, whatever the patient's pose.

    landmarks = find_landmarks(Bone.of_mask(labels, grid, LEFT))
    landmarks.hip.head.center_mm            # LPS mm
    landmarks.reasons                       # {"knee": "the condyles are cut by the edge of the scan"}

The longest principal axis of the solid gives the first direction, the head (or without one the condyles) tells
proximal from distal, the condyles' overhang tells posterior, and the side tells medial (the scheme of Kai et al.
2014, J Biomech 47:1229, with the articular-surface fits of Renault et al. 2018, J Biomech 80:171). A left femur
is mirrored first and its landmarks back, so both sides are read alike.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace

import numpy as np

from FemurSegLib.sides import RIGHT

from .bone import MIRROR, Bone
from .fitting import Line, fit_line, unit
from .hip import SHAFT_WINDOW, Hip, find_head, find_hip, fit_head
from .joints import SOCKET, TIBIA, evened_condyles, without_socket, without_tibia
from .knee import CUT, Knee, find_knee, summit

DIAPHYSIS = (0.25, 0.75)
"""Part of the mechanical axis, from knee to head, along which the sections of the diaphysis are taken."""
DIAPHYSIS_SECTIONS = 41
END_REACH_MM, ENDS_MM = 10.0, 3.0
"""An end of the bone is the summit of a quadratic surface fitted within the first of it; pairs of points that are
farther apart than all others but for the second are looked at."""
KNEE_AXIS_MM = 100.0
"""Where there is no hip, the point `knee_axis_top` lies this far above the notch."""

LANDMARK_NAMES = {
    "head_center": "Centre of the femoral head",
    "neck_center": "Centre of the neck",
    "shaft_top": "Proximal shaft axis, upper end",
    "shaft_bottom": "Proximal shaft axis, lower end",
    "greater_trochanter": "Greater trochanter",
    "lesser_trochanter": "Lesser trochanter",
    "trochanter_base": "Base of the greater trochanter",
    "notch": "Intercondylar notch",
    "knee_axis_top": "Axis of the distal shaft",
    "posterior_medial": "Medial condyle, posterior",
    "posterior_lateral": "Lateral condyle, posterior",
    "distal_medial": "Medial condyle, distal",
    "distal_lateral": "Lateral condyle, distal",
    "epicondyle_medial": "Medial epicondyle",
    "epicondyle_lateral": "Lateral epicondyle",
    "condyle_center_medial": "Medial condyle, centre of its sphere",
    "condyle_center_lateral": "Lateral condyle, centre of its sphere",
    "condylar_axis_medial": "Condylar axis, medial end",
    "condylar_axis_lateral": "Condylar axis, lateral end",
    "anatomical_top": "Anatomical axis, upper end",
    "anatomical_bottom": "Anatomical axis, lower end",
    "top": "Highest point",
    "bottom": "Lowest point",
}
"""Every landmark that is a point (`landmark_points`) and its name for people."""


@dataclass(frozen=True)
class Landmarks:
    """What is known of one femur, LPS mm. What could not be found is None, with a sentence in `reasons`.

    hip, knee: see there; head_is_cut, trochanter_is_cut:
    the edge of the scan runs through them.
    mechanical: from the notch's centre (knee.center_mm) to the head's centre (Moreland et al. 1987, JBJS 69-A:745).
    anatomical: line fitted to the centroids of the sections of the middle half (`DIAPHYSIS`), pointing up.
    diaphysis_mm: (n, 3) those centroids, from below. ends_mm: (2, 3) the two points farthest apart: top,
      bottom (Martin 1928, no. 1).
    left_out: the bones (joints.SOCKET, joints.TIBIA) of which a piece that the mask had taken in was taken off.
    """

    side: str
    hip: Hip | None
    knee: Knee | None
    head_is_cut: bool
    trochanter_is_cut: bool
    mechanical: Line | None
    anatomical: Line | None
    diaphysis_mm: np.ndarray | None
    ends_mm: np.ndarray | None
    reasons: dict[str, str]
    left_out: tuple[str, ...] = ()


def find_landmarks(bone: Bone) -> Landmarks:
    """Landmarks of a whole or truncated femur. Never raises for a poor shape: what is missing has a reason."""
    right = bone.as_right()
    found = _find(right)
    return replace(found if bone.side == RIGHT else _mirrored(found), side=bone.side)


def landmark_points(landmarks: Landmarks) -> dict[str, np.ndarray]:
    """Every landmark that is a point, by its key in `LANDMARK_NAMES`, LPS mm; those not found are left out.

    Axes are two points on them: that of the proximal shaft at the ends of its window below the head
    (`hip.SHAFT_WINDOW`), the anatomical one at the ends of the diaphysis (`DIAPHYSIS`), the condylar one where
    it leaves the bone, about.
    """
    hip, knee, out = landmarks.hip, landmarks.knee, {}
    if hip is not None:
        out = {"head_center": hip.head.center_mm, "neck_center": hip.neck.point_mm}
        if hip.shaft is not None:
            for end, diameters in zip(("top", "bottom"), SHAFT_WINDOW, strict=True):
                height = hip.head.center_mm @ hip.shaft.direction - diameters * 2 * hip.head.radius_mm
                out[f"shaft_{end}"] = hip.shaft.at(hip.shaft.direction, height)
        out |= {
            "greater_trochanter": hip.greater_trochanter_mm,
            "lesser_trochanter": hip.lesser_trochanter_mm,
            "trochanter_base": hip.trochanter_base_mm,
        }
    if knee is not None:
        out["notch"] = knee.center_mm
        if hip is None:
            out["knee_axis_top"] = knee.center_mm + KNEE_AXIS_MM * knee.up
        for end, at, sign in (("medial", 0, 0.5), ("lateral", 1, -0.5)):
            out[f"posterior_{end}"] = knee.posterior_mm[at]
            out[f"distal_{end}"] = knee.distal_mm[at]
            out[f"epicondyle_{end}"] = knee.epicondyles_mm[at]
            out[f"condyle_center_{end}"] = knee.spheres[at].center_mm
            out[f"condylar_axis_{end}"] = knee.axis.point_mm + sign * knee.width_mm * knee.axis.direction
    if landmarks.anatomical is not None:
        line, ends = landmarks.anatomical, landmarks.diaphysis_mm[[-1, 0]]
        for end, point in zip(("top", "bottom"), ends, strict=True):
            out[f"anatomical_{end}"] = line.at(line.direction, point @ line.direction)
    if landmarks.ends_mm is not None:
        out["top"], out["bottom"] = landmarks.ends_mm
    return {name: np.asarray(out[name]) for name in LANDMARK_NAMES if out.get(name) is not None}


def _find(bone: Bone) -> Landmarks:
    reasons: dict[str, str] = {}
    left_out: tuple[str, ...] = ()
    whole, hip, knee = bone, None, None
    head = find_head(bone)
    if head is None:
        reasons["hip"] = "no femoral head is there"
    else:
        hip, why = find_hip(bone, *head)
        if hip is not None and (cleared := without_socket(bone, hip)) is not bone:
            bone, left_out = cleared, (SOCKET,)
            again, why_not = find_hip(bone, fit_head(bone, hip.head), head[1])
            hip, why = (hip, why) if again is None else (again, why_not)
        if why:
            reasons["hip" if hip is None else "shaft"] = why
    if hip is None:  # the condyles may be at either end
        tries = [_knee(bone, end, None) for end in (bone.principal_axes[0], -bone.principal_axes[0])]
    elif hip.shaft is None:
        tries = [(bone, None, reasons["shaft"], False)]
    else:
        tries = [_knee(bone, hip.shaft.direction, hip.head.center_mm)]
    best = max(tries, key=lambda found: 0.0 if found[1] is None else found[1].width_mm)
    bone, knee, _, cleared = best
    if cleared:
        left_out = (*left_out, TIBIA)
    if knee is None:
        reasons["knee"] = max((why for *_, why, _ in tries), key=lambda why: "cut" in why)
    if hip is not None and knee is not None and hip.medial @ knee.medial < 0:
        reasons["side"] = "the head lies on the outer side of the knee: the mask is labelled with the wrong side"
    head_is_cut, trochanter_is_cut = _cuts(whole, hip)
    mechanical = anatomical = diaphysis = ends = None
    if hip is not None and knee is not None:
        mechanical = Line(knee.center_mm, unit(hip.head.center_mm - knee.center_mm))
        diaphysis = _diaphysis(bone, hip.head.center_mm, knee.center_mm)
        anatomical = fit_line(diaphysis, mechanical.direction)
        if not head_is_cut:
            ends = _ends(bone, mechanical.direction)
    return Landmarks(
        bone.side,
        hip,
        knee,
        head_is_cut,
        trochanter_is_cut,
        mechanical,
        anatomical,
        diaphysis,
        ends,
        reasons,
        left_out,
    )


def _knee(bone: Bone, up: np.ndarray, head_mm: np.ndarray | None) -> tuple[Bone, Knee | None, str, bool]:
    """(bone, knee, "", whether some tibia was left out); without a knee None and why.

    The bone is that with even condyles, and without what the mask has taken in of the tibia: a knee that cannot be
    read without the piece is not read with it.
    """
    knee, why = find_knee(bone, up, head_mm)
    first = find_knee(bone, up, head_mm, even_cut=True)[0] if why == CUT else knee
    cleared = False
    if first is not None and (without := without_tibia(bone, first)) is not bone:
        again, why_not = find_knee(without, first.up, head_mm)
        if again is not None or knee is not None:
            bone, knee, why, cleared = without, again, why_not, True
    if knee is not None:
        even = evened_condyles(bone, knee)
        again, _ = find_knee(even, knee.up, head_mm)
        if again is not None:
            bone, knee = even, again
    return bone, knee, why, cleared


def _cuts(bone: Bone, hip: Hip | None) -> tuple[bool, bool]:
    """Whether a flat end cuts the sphere of the head, and the greater trochanter."""
    if hip is None:
        return False, False
    head, tip = hip.head, hip.greater_trochanter_mm
    of_head = any((c.center_mm - head.center_mm) @ c.normal < head.radius_mm - 0.5 for c in bone.caps)
    of_tip = tip is not None and any(abs((c.center_mm - tip) @ c.normal) < 2.0 for c in bone.caps)
    return of_head, of_tip


def _diaphysis(bone: Bone, head: np.ndarray, knee: np.ndarray) -> np.ndarray:
    axis = unit(head - knee)
    places = [knee + t * (head - knee) for t in np.linspace(*DIAPHYSIS, DIAPHYSIS_SECTIONS)]
    return np.array([loops[0].centroid_mm for p in places if (loops := bone.section(p, axis))])


def _ends(bone: Bone, up: np.ndarray) -> np.ndarray:
    """The two points farthest apart. From every pair of corners of the hull that may be them (`ENDS_MM`) both are
    moved to the summits along the line that joins them: so neither noise nor steps of the mask lengthen it."""
    from scipy.spatial.distance import cdist

    height = bone.hull_mm @ up
    middle = 0.5 * (height.min() + height.max())
    above, below = bone.hull_mm[height > middle], bone.hull_mm[height <= middle]
    apart = cdist(above, below)
    tops = _apart(above, apart.max(axis=1))
    bottoms = _apart(below, apart.max(axis=0))
    pairs = [_outermost(bone, top, bottom) for top in tops for bottom in bottoms]
    return max(pairs, key=lambda pair: np.linalg.norm(pair[0] - pair[1]))


def _apart(points: np.ndarray, values: np.ndarray) -> list[np.ndarray]:
    """Points whose value is within `ENDS_MM` of the highest, the highest first, none near another."""
    chosen: list[np.ndarray] = []
    for index in np.argsort(-values):
        near = any(np.linalg.norm(points[index] - other) < END_REACH_MM for other in chosen)
        if values[index] > values.max() - ENDS_MM and not near:
            chosen.append(points[index])
    return chosen[:3]


def _outermost(bone: Bone, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """(2, 3): both ends moved to the summits of the surface along the line from one to the other."""
    near = [np.linalg.norm(bone.centers_mm - end, axis=1) < 3 * END_REACH_MM for end in (top, bottom)]
    ends = np.array([top, bottom])
    for _ in range(4):
        axis = unit(ends[0] - ends[1])
        for n, outward in enumerate((axis, -axis)):
            use = near[n] & (bone.smooth_normals @ outward > 0.7)
            ends[n] = summit(bone.centers_mm[use], bone.areas_mm2[use], outward, ends[n], END_REACH_MM)
    return ends


def _mirrored(thing):
    """The mirror image (left for right) of all points and vectors in a dataclass."""
    if isinstance(thing, np.ndarray):
        return thing * MIRROR
    if isinstance(thing, tuple):
        return tuple(_mirrored(each) for each in thing)
    if is_dataclass(thing):
        return replace(thing, **{f.name: _mirrored(getattr(thing, f.name)) for f in fields(thing)})
    return thing
