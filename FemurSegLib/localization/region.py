"""From boxes in two radiographs to one region of the volume for each femur.

    localization = fuse(coronal, axial, {"coronal": [...], "axial": [...]})
    lower_kji, upper_kji = localization.regions[RIGHT].padded(10, volume.grid)

The coronal view gives a femur's extent along i and k, the axial view along i and j. The axis they share tells
which boxes belong together and how well the views agree; where they agree well, the mean of both counts. Two
femora lie side by side, so with two of them position decides which is the right one; with one alone the detector
must be believed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from FemurSegLib.errors import InputError
from FemurSegLib.findings import Finding
from FemurSegLib.localization.detection import Detection
from FemurSegLib.localization.radiograph import VIEWS, Radiograph
from FemurSegLib.sides import DISPLAY_NAMES, LEFT, OTHER, RIGHT, SIDES

MIN_SCORE = 0.25
"""Weaker detections are not considered."""
MIN_SCORE_ALONE = 0.4
"""What a femur must reach that is seen in one view only, or that is the only one in the scan: then in the mean of
the views, for its side."""
SAME_PLACE = 0.5
"""Boxes show the same femur if this part of the narrower one is shared, along the axis from right to left."""
MIN_AGREEMENT = 0.5
"""Below this overlap (intersection over union) of the two views' widths, the surgeon is told."""
GOOD_AGREEMENT = 0.8
"""From this overlap on, the views' edges differ by chance only, and their mean is better than either."""
OVERRULED = 0.5
"""The side in the coronal view counts, unless its score is below this part of the axial view's."""
CUT_PIXELS = 3.0
"""A box that comes this near to the border of a radiograph shows a femur that is cut by it."""
OTHER_LEG_MM = 100.0
"""A scan that reaches at least this far past one femur, towards the other, should show the other."""
SLICES_MARGIN_MM = 20.0
"""What is kept above and below the femora for the axial radiograph."""

FACES = {"i": ("right", "left"), "j": ("anterior", "posterior"), "k": ("inferior", "superior")}
"""Faces of an oriented volume at the low and the high end of each axis (the patient's right and left)."""


@dataclass(frozen=True)
class Region:
    """Where a femur lies: edges (i, j, k) in continuous oriented voxel coordinates, inside the volume.

    `score`: mean of the detections'. `agreement`: intersection over union of the widths in both views, 0 if
    only one view shows the femur. `cut`: faces of the volume that cut the femur.
    """

    side: str
    lower_ijk: tuple[float, float, float]
    upper_ijk: tuple[float, float, float]
    score: float
    agreement: float
    views: tuple[str, ...]
    cut: tuple[str, ...] = ()

    def padded(self, margin_mm, grid) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Whole voxels [lower, upper) as (k, j, i), `margin_mm` (one, or (i, j, k)) added, inside `grid`."""
        margin = np.broadcast_to(np.asarray(margin_mm, float), 3) / grid.spacing_mm
        lower = np.floor(np.round(np.array(self.lower_ijk) + 0.5 - margin, 6)).astype(int)
        upper = np.ceil(np.round(np.array(self.upper_ijk) + 0.5 + margin, 6)).astype(int)
        size = np.array(grid.shape[::-1])
        lower = np.clip(lower, 0, size - 1)
        upper = np.clip(upper, lower + 1, size)
        return tuple(lower[::-1].tolist()), tuple(upper[::-1].tolist())


@dataclass(frozen=True)
class Localization:
    """The regions found (0 to 2), all detections they were made from, and what to tell the surgeon.

    Detections of one femur in views that agree well (`GOOD_AGREEMENT`) have its edges along the axis they share.
    """

    regions: dict[str, Region]
    detections: dict[str, list[Detection]]
    warnings: list[Finding]


@dataclass(frozen=True)
class _Seen:
    """A femur in one view: its extent along both axes of the view in voxels, the faces it touches."""

    view: str
    side: str
    score: float
    extent: dict[str, tuple[float, float]]
    cut: frozenset
    detection: Detection
    rival: float = 0.0  # score of the other side in the same place

    def says(self, side: str) -> float:
        """Its score for a side."""
        return self.score if side == self.side else self.rival


def fuse(coronal: Radiograph, axial: Radiograph, detections: dict[str, list[Detection]]) -> Localization:
    """One region a femur from the detections in each view (a view may be missing or empty).

    Findings: `views_disagree`, `view_missing`, `side_doubtful`, `femur_cut`, `one_femur` (the scan does not
    reach the other side) and `femur_missing` (it does, and none is seen). Without any femur, `regions` is
    empty and there is no finding: that is for the caller to report.
    """
    radiographs = {"coronal": coronal, "axial": axial}
    seen = [_distinct(radiographs[view], detections.get(view, [])) for view in VIEWS]
    femora = _pair(*seen)
    shown = {view: list(detections.get(view, [])) for view in VIEWS}
    for one, edges in ((one, _edges_i(femur)) for femur in femora if _agree(femur) for one in femur):
        box = radiographs[one.view].voxels_to_box({**one.extent, "i": edges})
        shown[one.view][shown[one.view].index(one.detection)] = replace(one.detection, box=box)
    warnings = []
    regions = {}
    for side, femur in _by_side(femora, warnings).items():
        regions[side] = _region(side, femur, coronal, axial)
        warnings += _findings(regions[side])
    warnings += _missing(regions, coronal.grid)
    return Localization(regions, shown, warnings)


def drawn_regions(drawn: dict[str, dict], grid) -> dict[str, Region]:
    """Regions from boxes that a user drew: by side, `center_lps_mm`, `size_mm` and `axes_lps` (rows, unit vectors).

    grid: the oriented grid of the CT. A box turned against the grid becomes the smallest region that holds it.
    Raises InputError for anything else, and for a box outside the CT.
    """
    regions = {}
    size = np.array(grid.shape[::-1])
    for side, box in drawn.items():
        try:
            center, extent, axes = (np.array(box[key], float) for key in ("center_lps_mm", "size_mm", "axes_lps"))
            if (extent <= 0).any() or not np.allclose(axes @ axes.T, np.eye(3), atol=1e-3):
                raise ValueError("sizes are positive and axes are unit vectors at right angles")
            corners = center + np.array(list(product((-0.5, 0.5), repeat=3))) * extent @ axes.reshape(3, 3)
            ijk = grid.ijk(corners.reshape(8, 3))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"The box of '{side}' is not understood.", _DRAWN) from error
        lower, upper = np.maximum(ijk.min(0), -0.5), np.minimum(ijk.max(0), size - 0.5)
        if side not in SIDES or not np.isfinite(ijk).all():
            raise InputError(f"The box of '{side}' is not understood.", _DRAWN)
        if (lower >= upper).any():
            raise InputError(f"The box of the {_name(side)} lies outside the CT.", "Move it onto the bone.")
        regions[side] = Region(side, tuple(lower.tolist()), tuple(upper.tolist()), 1.0, 1.0, ())
    if not regions:
        raise InputError("There is no box to segment in.", _DRAWN)
    return regions


_DRAWN = "A box needs center_lps_mm, size_mm and axes_lps, by side: right_femur, left_femur."


def slices_of_femora(coronal: Radiograph, detections: list[Detection]) -> tuple[int, int] | None:
    """Slices [first, last) that hold the femora seen from the front, with a margin; None if there is none."""
    edges = [k for seen in _distinct(coronal, detections) for k in seen.extent["k"]]
    if not edges:
        return None
    margin = SLICES_MARGIN_MM / coronal.grid.spacing_mm[2]
    first = max(0, int(np.floor(min(edges) + 0.5 - margin)))
    return first, min(coronal.grid.shape[0], int(np.ceil(max(edges) + 0.5 + margin)))


def _distinct(radiograph: Radiograph, detections: list[Detection]) -> list[_Seen]:
    """At most two femora in different places, best scores first; weaker ones in the same place give way."""
    kept: list[_Seen] = []
    for detection in sorted(detections, key=lambda d: (-d.score, SIDES.index(d.side), d.box)):
        seen = _see(radiograph, detection)
        if seen is None:
            continue
        winner = next((n for n, other in enumerate(kept) if _same_place(seen, other)), None)
        if winner is not None:
            if seen.side != kept[winner].side and not kept[winner].rival:
                kept[winner] = replace(kept[winner], rival=seen.score)
        elif detection.score >= MIN_SCORE:
            kept.append(seen)
    return kept[:2]


def _see(radiograph: Radiograph, detection: Detection) -> _Seen | None:
    """A detection in voxels, held to the picture; None if nothing of its box lies in the picture."""
    rows, columns = radiograph.image.shape[:2]
    x0, x1 = np.clip((detection.box[0], detection.box[2]), 0, columns)
    y0, y1 = np.clip((detection.box[1], detection.box[3]), 0, rows)
    if not (x0 < x1 and y0 < y1):
        return None
    up, down = ("superior", "inferior") if radiograph.view == "coronal" else ("anterior", "posterior")
    gaps = {"right": x0, "left": columns - x1, up: y0, down: rows - y1}
    return _Seen(
        view=radiograph.view,
        side=detection.side,
        score=float(detection.score),
        extent=radiograph.box_to_voxels((x0, y0, x1, y1)),
        cut=frozenset(face for face, gap in gaps.items() if gap <= CUT_PIXELS),
        detection=detection,
    )


def _overlap(a: _Seen, b: _Seen) -> tuple[float, float]:
    """Along i: intersection over the narrower one, and over the union."""
    (a0, a1), (b0, b1) = a.extent["i"], b.extent["i"]
    shared = max(0.0, min(a1, b1) - max(a0, b0))
    return shared / min(a1 - a0, b1 - b0), shared / (max(a1, b1) - min(a0, b0))


def _same_place(a: _Seen, b: _Seen) -> bool:
    return _overlap(a, b)[0] > SAME_PLACE


def _pair(coronal: list[_Seen], axial: list[_Seen]) -> list[list[_Seen]]:
    """At most two femora, each the one or two views that show it; from the patient's right to left."""
    femora, used = [], set()
    best_first = sorted(product(coronal, axial), key=lambda ab: -_overlap(*ab)[1])
    for a, b in best_first:
        if _same_place(a, b) and id(a) not in used and id(b) not in used:
            femora.append([a, b])
            used |= {id(a), id(b)}
    alone = [s for s in (*coronal, *axial) if id(s) not in used and s.score >= MIN_SCORE_ALONE]
    for seen in sorted(alone, key=lambda s: -s.score):
        if not any(_same_place(seen, other) for femur in femora for other in femur):
            femora.append([seen])
    femora.sort(key=lambda femur: (-len(femur), -_score(femur)))
    return sorted(femora[:2], key=lambda femur: sum(sum(s.extent["i"]) for s in femur) / len(femur))


def _agree(femur: list[_Seen]) -> bool:
    return len(femur) == 2 and _overlap(*femur)[1] >= GOOD_AGREEMENT


def _edges_i(femur: list[_Seen]) -> tuple[float, float]:
    """Along i: the mean of views that agree, else what holds all that any view shows."""
    lower, upper = np.array([seen.extent["i"] for seen in femur]).T
    return (lower.mean(), upper.mean()) if _agree(femur) else (lower.min(), upper.max())


def _said(femur: list[_Seen], side: str) -> float:
    """What the views that show a femur say for a side, in the mean."""
    return sum(seen.says(side) for seen in femur) / len(femur)


def _score(femur: list[_Seen]) -> float:
    return sum(s.score for s in femur) / len(femur)


def _by_side(femora: list[list[_Seen]], warnings: list[Finding]) -> dict[str, list[_Seen]]:
    """Which femur is which; adds a finding where that is doubtful."""
    if len(femora) == 2:
        named = dict(zip((RIGHT, LEFT), femora, strict=True))
        if any(s.side != side for side, femur in named.items() for s in femur):
            message = "The radiographs leave doubt about the sides; right and left were told apart by position."
            warnings.append(Finding("side_doubtful", message))
        return named
    named = {}
    for femur in femora:
        first, last = femur[0], femur[-1]
        side = last.side if first.score < OVERRULED * last.score else first.side
        # Views that contradict each other about the side, and hardly doubt it, show something else than a femur.
        if _said(femur, side) < MIN_SCORE_ALONE:
            continue
        named[side] = femur
        if any(s.side != side or s.rival >= OVERRULED * s.score for s in femur):
            message = f"Check the side: whether this is the {_name(side)} is doubtful."
            warnings.append(Finding("side_doubtful", message, side))
    return named


def _region(side: str, femur: list[_Seen], coronal: Radiograph, axial: Radiograph) -> Region:
    """The region of what the views show; an axis that no view shows is taken whole."""
    unseen = {"j": coronal.ray, "k": axial.ray}
    extent = {axis: (first - 0.5, last - 0.5) for axis, (first, last) in unseen.items()}
    for seen in femur:
        extent.update(seen.extent)
    extent["i"] = _edges_i(femur)
    cut = frozenset().union(*(s.cut for s in femur))
    return Region(
        side=side,
        lower_ijk=tuple(float(extent[axis][0]) for axis in "ijk"),
        upper_ijk=tuple(float(extent[axis][1]) for axis in "ijk"),
        score=_said(femur, side),
        agreement=_overlap(*femur)[1] if len(femur) == 2 else 0.0,
        views=tuple(s.view for s in femur),
        cut=tuple(face for faces in FACES.values() for face in faces if face in cut),
    )


def _findings(region: Region) -> list[Finding]:
    name, found = _name(region.side), []
    if len(region.views) == 1:
        other = next(view for view in VIEWS if view not in region.views)
        message = f"The {name} was found in the {region.views[0]} radiograph only, not in the {other} one."
        found.append(Finding("view_missing", message, region.side))
    elif region.agreement < MIN_AGREEMENT:
        message = f"The two radiographs agree poorly about where the {name} lies."
        found.append(Finding("views_disagree", message, region.side))
    if region.cut:
        message = f"The {name} is cut by the edge of the scan ({', '.join(region.cut)})."
        found.append(Finding("femur_cut", message, region.side))
    return found


def _missing(regions: dict[str, Region], grid) -> list[Finding]:
    if len(regions) != 1:
        return []
    [(side, region)] = regions.items()
    beyond = grid.shape[2] - 0.5 - region.upper_ijk[0] if side == RIGHT else region.lower_ijk[0] + 0.5
    if beyond * grid.spacing_mm[0] < OTHER_LEG_MM:
        return [Finding("one_femur", f"Only the {_name(side)} was found; the scan does not reach the other.", side)]
    other = OTHER[side]
    message = f"Only the {_name(side)} was found; the scan is wide enough for the {_name(other)}."
    return [Finding("femur_missing", message, other)]


def _name(side: str) -> str:
    return DISPLAY_NAMES[side].lower()
