"""One solid body a side."""

import numpy as np

from FemurSegLib.segmentation.cleanup import SPUR_VOXELS, largest, one_body, without_other_bone


def ball(shape, centre, radius):
    return sum((np.indices(shape)[a] - centre[a]) ** 2 for a in range(3)) <= radius**2


SHAPE = (40, 40, 60)
LARGE, SMALL = ball(SHAPE, (20, 20, 18), 12), ball(SHAPE, (20, 20, 48), 7)


def probability(*masks):
    return np.any(masks, axis=0).astype(np.float32)


def test_the_largest_piece_stays_and_the_next_is_measured():
    body = one_body(probability(LARGE, SMALL))
    assert np.array_equal(body.mask, LARGE)
    assert body.second == SMALL.sum() / LARGE.sum()


def test_a_piece_that_belongs_to_the_other_side_gives_way_to_a_smaller_one():
    weight = np.where(np.indices(SHAPE)[2] < 36, -1.0, 1.0)
    assert np.array_equal(one_body(probability(LARGE, SMALL), weight).mask, SMALL)


def test_nothing_is_found_where_nothing_is():
    assert one_body(np.full(SHAPE, 0.4, np.float32)) is None
    assert one_body(probability(LARGE), np.full(SHAPE, -1.0)) is None


def test_a_closed_hole_and_one_that_opens_only_along_the_bone_are_filled():
    shell = LARGE & ~ball(SHAPE, (20, 20, 18), 5)
    assert np.array_equal(one_body(probability(shell)).mask, LARGE)
    tube = np.zeros(SHAPE, bool)
    tube[:, 10:30, 10:30] = True
    canal = tube.copy()
    canal[:, 15:25, 15:25] = False
    assert np.array_equal(one_body(probability(canal)).mask, tube)


def test_a_notch_stays_open():
    notched = np.zeros(SHAPE, bool)
    notched[5:35, 5:35, 10:50] = True
    notched[5:35, 20:35, 25:35] = False
    assert np.array_equal(one_body(probability(notched)).mask, notched)


def test_the_field_to_resample_holds_the_body_alone():
    body = one_body(probability(LARGE, SMALL))
    assert np.array_equal(body.field > 0.5, LARGE)


def test_certainty_is_one_for_a_crisp_edge_and_less_for_a_vague_one():
    distance = 12 - np.sqrt(sum((np.indices(SHAPE)[a] - (20, 20, 18)[a]) ** 2 for a in range(3)))
    crisp, vague = ((1 + np.tanh(slope * distance)) / 2 for slope in (10, 0.25))
    assert one_body(crisp.astype(np.float32)).certainty > 0.97
    assert one_body(vague.astype(np.float32)).certainty < 0.85


def test_largest_of_one_piece_is_itself_and_of_two_the_larger():
    assert np.array_equal(largest(LARGE), LARGE)
    assert np.array_equal(largest(LARGE | SMALL), LARGE)


def test_a_piece_of_the_other_femur_is_no_second_piece():
    weight = np.where(np.indices(SHAPE)[2] < 36, 1.0, -1.0)
    assert one_body(probability(LARGE, SMALL), weight).second == 0


def test_what_is_joined_to_the_other_femur_is_parted_from_it():
    bridge = np.zeros(SHAPE, bool)
    bridge[18:23, 18:23, 18:48] = True
    weight = np.where(np.indices(SHAPE)[2] < 36, 1.0, -1.0)
    body = one_body(probability(LARGE, SMALL, bridge), np.where(weight > 0, 1.0, -1.0))
    assert not body.parted and body.mask[20, 20, 47], "a little of it is left as it is"
    joined = probability(LARGE, ball(SHAPE, (20, 20, 48), 11), bridge)
    body = one_body(joined, weight)
    assert body.parted and not (body.mask & (weight < 0)).any()
    assert np.array_equal(body.mask & ~bridge, LARGE & ~bridge)


def test_a_speck_that_hangs_on_by_a_thread_falls_away_and_so_does_a_thin_spur():
    thread, speck = np.zeros(SHAPE, bool), ball(SHAPE, (20, 20, 40), 3)
    thread[20, 20, 30:38] = True
    spur = np.zeros(SHAPE, bool)
    spur[1:20, 19:22, 18] = True
    field = probability(LARGE, thread, speck, spur)
    body = one_body(field)
    assert not (body.mask & speck).any() and not body.mask[20, 20, 33:].any() and not body.mask[:7].any()
    assert (body.mask & LARGE).sum() > 0.995 * LARGE.sum()
    assert np.array_equal(body.field > 0.5, body.mask), "what fell away does not come back with the resampling"


def test_a_thin_tip_of_bone_and_a_bone_cut_by_the_scan_stay_as_they_are():
    k, j, i = np.indices(SHAPE)
    ridge = LARGE | ((abs(j - 20) <= 1) & ((k - 20) ** 2 + (i - 18) ** 2 <= 13.5**2))  # a ridge of 3 mm, 1.5 high
    assert np.array_equal(one_body(probability(ridge)).mask, ridge)
    cut = np.zeros(SHAPE, bool)
    cut[:, 8:32, 40:] = True  # to the end of the scan, along two edges
    assert cut.sum() - one_body(probability(cut)).mask.sum() < 0.01 * cut.sum()


def test_large_parts_on_a_thread_are_left_to_the_reader():
    thread = np.zeros(SHAPE, bool)
    thread[20, 20, 18:48] = True
    joined = LARGE | SMALL | thread  # the small one is a fifth of the large one
    assert SMALL.sum() > SPUR_VOXELS
    assert np.array_equal(one_body(probability(joined)).mask, joined)


def test_what_is_thin_everywhere_stays():
    plate = np.zeros(SHAPE, bool)
    plate[10:14, 5:35, 5:50] = True
    assert np.array_equal(one_body(probability(plate)).mask, plate)


def joined(bridge: int, size: int = 14):
    """Two balls of 28 voxels across, with a rod of `bridge` voxels across between them; (k, j, i)."""
    k, j, i = np.indices((80, 40, 40)) - np.array([0, 20, 20])[:, None, None, None]
    across = j**2 + i**2
    balls = [(k - middle) ** 2 + across < size**2 for middle in (20, 58)]
    return balls, balls[0] | balls[1] | ((across < (bridge / 2) ** 2) & (abs(k - 39) < 20))


def test_a_bone_that_hangs_on_by_a_narrow_bridge_is_cut_off():
    (upper, lower), both = joined(bridge=6)
    weight = np.where(np.indices(both.shape)[0] < 30, 1.0, 0.05).astype(np.float32)
    for own, other, favour in ((upper, lower, weight), (lower, upper, weight[::-1])):
        body = one_body(both.astype(np.float32), favour)
        assert body.severed and not (body.mask & other).any()
        assert (body.mask & own).sum() > 0.99 * own.sum()


def test_one_bone_stays_whole_where_it_is_narrow():
    both = joined(bridge=14)[1]
    assert without_other_bone(both) is both
    assert not one_body(both.astype(np.float32)).severed


def test_a_bridge_that_the_edge_of_the_scan_cuts_is_not_narrow():
    both = joined(bridge=12)[1][:, :, 20:]  # half of it is seen
    assert without_other_bone(both) is both
