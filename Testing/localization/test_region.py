"""Boxes of femora in known places, seen well, badly, twice, on the wrong side or not at all."""

from __future__ import annotations

import subprocess
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from FemurSegLib.localization.detection import Detection
from FemurSegLib.localization.radiograph import Radiograph, make_radiographs
from FemurSegLib.localization.region import Region, fuse, slices_of_femora
from FemurSegLib.sides import LABELS, LEFT, RIGHT, SIDES
from FemurSegLib.volume import Grid, read_ct, read_labelmap

# 400 x 250 x 600 mm, two femora of 90 x 80 x 430 mm, not touching any face; edges in voxels
SPACING_MM = (1.0, 1.0, 2.0)
GRID = Grid((300, 250, 400), SPACING_MM, (0, 0, 0), np.eye(3))
FEMUR = {
    RIGHT: {"i": (39.5, 129.5), "j": (89.5, 169.5), "k": (39.5, 254.5)},
    LEFT: {"i": (259.5, 349.5), "j": (94.5, 174.5), "k": (44.5, 259.5)},
}


def pictures(grid=GRID) -> tuple[Radiograph, Radiograph]:
    i_mm, j_mm, k_mm = (n * s for n, s in zip(grid.shape[::-1], grid.spacing_mm, strict=True))

    def blank(view, height, ray):
        return Radiograph(view, np.zeros((round(height), round(i_mm), 3), np.uint8), (1.0, 1.0), grid, ray)

    return blank("coronal", k_mm, (0, grid.shape[1])), blank("axial", j_mm, (0, grid.shape[0]))


CORONAL, AXIAL = pictures()


def seen(picture, place, called=None, score=0.9, shift=0.0, **edges) -> Detection:
    """The femur `place` (RIGHT or LEFT) as a picture shows it, moved by `shift` along i."""
    box = picture.voxels_to_box({**FEMUR[place], **edges})
    return Detection(called or place, score, (box[0] + shift, box[1], box[2] + shift, box[3]))


def both(coronal, axial):
    return fuse(CORONAL, AXIAL, {"coronal": coronal, "axial": axial})


def codes(localization):
    return [(w.code, w.side) for w in localization.warnings]


def is_at(region: Region, place, **edges):
    expected = {**FEMUR[place], **edges}
    assert region.lower_ijk == pytest.approx([expected[a][0] for a in "ijk"])
    assert region.upper_ijk == pytest.approx([expected[a][1] for a in "ijk"])


def test_two_femora_seen_well_give_two_regions_and_no_finding():
    found = both([seen(CORONAL, RIGHT), seen(CORONAL, LEFT)], [seen(AXIAL, LEFT, score=0.7), seen(AXIAL, RIGHT)])
    assert list(found.regions) == [RIGHT, LEFT]
    for side, region in found.regions.items():
        is_at(region, side)
        assert region.side == side
        assert region.agreement == pytest.approx(1)
        assert region.views == ("coronal", "axial")
        assert region.cut == ()
    assert found.regions[RIGHT].score == pytest.approx(0.9)
    assert found.regions[LEFT].score == pytest.approx(0.8)
    assert codes(found) == []


def test_the_order_of_detections_does_not_matter():
    detections = [
        seen(CORONAL, RIGHT),
        seen(CORONAL, LEFT),
        seen(CORONAL, LEFT, RIGHT, 0.6),
        seen(CORONAL, LEFT, score=0.6),
    ]
    results = [both(list(order), [seen(AXIAL, RIGHT)]) for order in permutations(detections)]
    assert all(r.regions == results[0].regions and r.warnings == results[0].warnings for r in results)


def test_views_that_agree_share_the_mean_of_their_edges_and_their_overlap_is_the_agreement():
    detections = {"coronal": [seen(CORONAL, RIGHT), seen(CORONAL, LEFT)], "axial": [seen(AXIAL, RIGHT, shift=8)]}
    found = fuse(CORONAL, AXIAL, detections)
    is_at(found.regions[RIGHT], RIGHT, i=(43.5, 133.5))
    assert found.regions[RIGHT].agreement == pytest.approx(82 / 98)
    right, left = found.detections["coronal"]
    assert CORONAL.box_to_voxels(right.box)["i"] == pytest.approx((43.5, 133.5))
    assert CORONAL.box_to_voxels(right.box)["k"] == pytest.approx(FEMUR[RIGHT]["k"])
    assert AXIAL.box_to_voxels(found.detections["axial"][0].box)["i"] == pytest.approx((43.5, 133.5))
    assert left == detections["coronal"][1] and detections["coronal"][0] == seen(CORONAL, RIGHT)


def test_views_that_agree_less_give_a_region_that_holds_both_and_stay_as_they_are():
    detections = {"coronal": [seen(CORONAL, RIGHT)], "axial": [seen(AXIAL, RIGHT, shift=20)]}
    found = fuse(CORONAL, AXIAL, detections)
    is_at(found.regions[RIGHT], RIGHT, i=(39.5, 149.5))
    assert found.detections == detections


def test_poor_agreement_is_told():
    found = both([seen(CORONAL, RIGHT)], [seen(AXIAL, RIGHT, shift=35)])
    assert found.regions[RIGHT].agreement == pytest.approx(55 / 125)
    assert ("views_disagree", RIGHT) in codes(found)


def test_views_without_any_overlap_are_not_one_femur():
    found = both([seen(CORONAL, RIGHT)], [seen(AXIAL, LEFT)])
    assert {side: r.views for side, r in found.regions.items()} == {RIGHT: ("coronal",), LEFT: ("axial",)}
    assert codes(found) == [("view_missing", RIGHT), ("view_missing", LEFT)]


def test_coronal_only_takes_the_whole_depth():
    found = both([seen(CORONAL, RIGHT), seen(CORONAL, LEFT)], [])
    is_at(found.regions[RIGHT], RIGHT, j=(-0.5, 249.5))
    assert found.regions[RIGHT].agreement == 0
    assert found.regions[RIGHT].cut == ()
    assert codes(found) == [("view_missing", RIGHT), ("view_missing", LEFT)]


def test_axial_only_takes_the_whole_length():
    found = fuse(CORONAL, AXIAL, {"axial": [seen(AXIAL, RIGHT), seen(AXIAL, LEFT)]})
    is_at(found.regions[LEFT], LEFT, k=(-0.5, 299.5))
    assert found.detections["coronal"] == []
    assert codes(found) == [("view_missing", RIGHT), ("view_missing", LEFT)]


def test_one_view_alone_needs_a_better_score():
    assert not both([seen(CORONAL, RIGHT, score=0.3)], []).regions
    assert both([seen(CORONAL, RIGHT, score=0.3)], [seen(AXIAL, RIGHT, score=0.6)]).regions
    assert not both([seen(CORONAL, RIGHT, score=0.2)], [seen(AXIAL, RIGHT, score=0.2)]).regions


def test_nothing_seen_gives_no_region_and_no_finding():
    for detections in ({}, {"coronal": [], "axial": []}):
        found = fuse(CORONAL, AXIAL, detections)
        assert (found.regions, found.warnings) == ({}, [])
        assert found.detections == {"coronal": [], "axial": []}


def test_a_missing_femur_is_told_where_the_scan_is_wide_enough_for_it():
    found = both([seen(CORONAL, LEFT)], [seen(AXIAL, LEFT)])
    assert list(found.regions) == [LEFT]
    assert codes(found) == [("femur_missing", RIGHT)]
    assert found.warnings[0].message.startswith("Only the left femur was found")


def test_one_femur_alone_is_ordinary_where_the_scan_ends_beside_it():
    thigh = Grid((300, 250, 200), SPACING_MM, (0, 0, 0), np.eye(3))
    coronal, axial = pictures(thigh)
    found = fuse(coronal, axial, {"coronal": [seen(coronal, RIGHT)], "axial": [seen(axial, RIGHT)]})
    is_at(found.regions[RIGHT], RIGHT)
    assert codes(found) == [("one_femur", RIGHT)]
    assert found.warnings[0].message.startswith("Only the right femur was found")


@pytest.mark.parametrize(
    ("edges", "face"),
    [
        ({"i": (-0.5, 129.5)}, "right"),
        ({"j": (1.5, 169.5)}, "anterior"),
        ({"j": (89.5, 249.5)}, "posterior"),
        ({"k": (0.5, 254.5)}, "inferior"),
        ({"k": (39.5, 299.5)}, "superior"),
    ],
)
def test_a_femur_at_a_face_of_the_volume_is_cut(edges, face):
    detections = {
        "coronal": [seen(CORONAL, RIGHT, **edges), seen(CORONAL, LEFT)],
        "axial": [seen(AXIAL, RIGHT, **edges), seen(AXIAL, LEFT)],
    }
    found = fuse(CORONAL, AXIAL, detections)
    assert found.regions[RIGHT].cut == (face,)
    assert found.regions[LEFT].cut == ()
    assert codes(found) == [("femur_cut", RIGHT)]
    assert face in found.warnings[0].message


def test_the_left_face_cuts_the_left_femur():
    found = both([seen(CORONAL, RIGHT), seen(CORONAL, LEFT, i=(309.5, 399.5))], [seen(AXIAL, RIGHT)])
    assert found.regions[LEFT].cut == ("left",)


def test_swapped_sides_are_put_right_by_position():
    found = both(
        [seen(CORONAL, RIGHT, LEFT), seen(CORONAL, LEFT, RIGHT)],
        [seen(AXIAL, RIGHT, LEFT), seen(AXIAL, LEFT, RIGHT)],
    )
    is_at(found.regions[RIGHT], RIGHT)
    is_at(found.regions[LEFT], LEFT)
    assert codes(found) == [("side_doubtful", None)]


def test_two_right_femora_in_different_places_are_a_right_and_a_left_one():
    found = both([seen(CORONAL, RIGHT), seen(CORONAL, LEFT, RIGHT, 0.8)], [seen(AXIAL, RIGHT), seen(AXIAL, LEFT)])
    is_at(found.regions[RIGHT], RIGHT)
    is_at(found.regions[LEFT], LEFT)
    assert codes(found) == [("side_doubtful", None)]


def test_of_two_boxes_in_the_same_place_the_better_one_stays():
    found = both(
        [seen(CORONAL, RIGHT, score=0.5, shift=8), seen(CORONAL, RIGHT), seen(CORONAL, LEFT)],
        [seen(AXIAL, RIGHT), seen(AXIAL, LEFT), seen(AXIAL, LEFT, RIGHT, 0.6)],
    )
    is_at(found.regions[RIGHT], RIGHT)
    is_at(found.regions[LEFT], LEFT)
    assert codes(found) == []


def test_pieces_of_one_femur_are_not_two_femora():
    shaft, hip = seen(CORONAL, RIGHT, k=(39.5, 150.5)), seen(CORONAL, RIGHT, score=0.6, k=(180.5, 254.5))
    assert list(both([shaft, hip], [seen(AXIAL, RIGHT)]).regions) == [RIGHT]


def test_with_one_femur_both_sides_claimed_for_one_place_leave_doubt():
    found = both([seen(CORONAL, LEFT), seen(CORONAL, LEFT, RIGHT, 0.7)], [seen(AXIAL, LEFT)])
    assert list(found.regions) == [LEFT]
    assert ("side_doubtful", LEFT) in codes(found)
    clear = both([seen(CORONAL, LEFT), seen(CORONAL, LEFT, RIGHT, 0.3)], [seen(AXIAL, LEFT)])
    assert ("side_doubtful", LEFT) not in codes(clear)


@pytest.mark.parametrize(("score", "side"), [(0.9, LEFT), (0.82, LEFT), (0.3, RIGHT)])
def test_when_the_views_disagree_about_the_side_the_coronal_one_counts_unless_it_is_weak(score, side):
    found = both([seen(CORONAL, LEFT, LEFT, score)], [seen(AXIAL, LEFT, RIGHT, 0.9)])
    assert list(found.regions) == [side]
    assert ("side_doubtful", side) in codes(found)


def test_views_that_contradict_each_other_show_no_femur_but_where_they_doubt_themselves():
    """A lower leg: left in one view, right in the other; and a piece of shaft that both views waver about."""
    assert not both([seen(CORONAL, LEFT, LEFT, 0.55)], [seen(AXIAL, LEFT, RIGHT, 0.7)]).regions
    wavering = both(
        [seen(CORONAL, LEFT, LEFT, 0.6), seen(CORONAL, LEFT, RIGHT, 0.3)],
        [seen(AXIAL, LEFT, RIGHT, 0.6), seen(AXIAL, LEFT, LEFT, 0.3)],
    )
    assert list(wavering.regions) == [LEFT]
    assert ("side_doubtful", LEFT) in codes(wavering)
    assert wavering.regions[LEFT].score == pytest.approx(0.45)


def test_a_third_femur_gives_way_to_the_two_best():
    middle = seen(CORONAL, RIGHT, score=0.5, i=(150.5, 240.5))
    found = both([middle, seen(CORONAL, RIGHT), seen(CORONAL, LEFT)], [seen(AXIAL, RIGHT), seen(AXIAL, LEFT)])
    is_at(found.regions[RIGHT], RIGHT)
    is_at(found.regions[LEFT], LEFT)


def test_boxes_that_leave_the_picture_are_held_to_it():
    outside = Detection(RIGHT, 0.9, (-50.0, 10.0, -5.0, 90.0))
    beyond = seen(CORONAL, RIGHT, i=(-20.0, 129.5), k=(39.5, 400.0))
    found = both([outside, beyond, seen(CORONAL, LEFT)], [seen(AXIAL, RIGHT), seen(AXIAL, LEFT)])
    is_at(found.regions[RIGHT], RIGHT, i=(-0.5, 129.5), k=(39.5, 299.5))


def test_padding_counts_millimetres_takes_whole_voxels_and_stays_in_the_grid():
    region = Region(RIGHT, (39.5, 3.2, 250.1), (129.5, 169.5, 295.5), 1, 1, ("coronal", "axial"))
    assert region.padded(0, GRID) == ((250, 3, 40), (296, 170, 130))
    assert region.padded(10, GRID) == ((245, 0, 30), (300, 180, 140))
    assert region.padded((0, 0, 4), GRID) == ((248, 3, 40), (298, 170, 130))
    nothing = Region(RIGHT, (5.0, 5.0, 5.0), (5.0, 5.0, 5.0), 1, 1, ("axial",))
    lower, upper = nothing.padded(0, GRID)
    assert all(b == a + 1 for a, b in zip(lower, upper, strict=True))


def test_the_slices_of_the_femora_come_with_a_margin_from_the_coronal_view():
    assert slices_of_femora(CORONAL, [seen(CORONAL, RIGHT), seen(CORONAL, LEFT)]) == (30, 270)
    assert slices_of_femora(CORONAL, [seen(CORONAL, RIGHT, k=(-0.5, 299.5))]) == (0, 300)
    assert slices_of_femora(CORONAL, [seen(CORONAL, RIGHT, score=0.1)]) is None


def test_regions_are_made_without_torch():
    code = "import sys, FemurSegLib.localization.region; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


REAL = Path(__file__).resolve().parents[3] / "shared/data/ct"


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real CTs are not at {REAL}")
@pytest.mark.parametrize(
    ("ct", "labels", "cut"),
    [
        ("cmb_crc_hips/ct.nii.gz", "cmb_crc_hips/femurs.nii.gz", {RIGHT: ("inferior",), LEFT: ("inferior",)}),
        (
            "sts_thighs/labelled/STS_046_CT.nii.gz",
            "sts_thighs/labelled/STS_046_femurs.nii.gz",
            {RIGHT: ("inferior", "superior")},
        ),
    ],
)
def test_the_boxes_of_real_femora_give_regions_that_hold_them(ct, labels, cut):
    volume, labels = read_ct(REAL / ct).oriented(), read_labelmap(REAL / labels).oriented()
    coronal, axial = make_radiographs(volume)
    where = {side: np.argwhere(labels.voxels == LABELS[side]) for side in SIDES}
    where = {side: (at.min(0), at.max(0) + 1) for side, at in where.items() if len(at)}
    detections = {"coronal": [], "axial": []}
    for side, (lower, upper) in where.items():
        edges = {axis: (lower[n] - 0.5, upper[n] - 0.5) for n, axis in enumerate("kji")}
        for picture in (coronal, axial):
            detections[picture.view].append(Detection(side, 0.9, picture.voxels_to_box(edges)))
    found = fuse(coronal, axial, detections)
    assert {side: region.cut for side, region in found.regions.items()} == cut
    for side, (lower, upper) in where.items():
        assert found.regions[side].padded(0, volume.grid) == (tuple(lower), tuple(upper))
