"""The whole story on volumes with a known answer; the networks are stood in for, all else is real.

The stand-in segmenter calls everything above 200 HU bone, the stand-in detector reports boxes that the test gives.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from FemurSegLib import command, models, pipeline  # noqa: E402
from FemurSegLib.errors import InputError, ModelError, NoFemurError  # noqa: E402
from FemurSegLib.grid import Grid  # noqa: E402
from FemurSegLib.localization import detector  # noqa: E402
from FemurSegLib.localization.detection import Detection  # noqa: E402
from FemurSegLib.localization.region import Region, drawn_regions  # noqa: E402
from FemurSegLib.result import read_result, write_result  # noqa: E402
from FemurSegLib.segmentation import confidence, inference, metal  # noqa: E402
from FemurSegLib.segmentation import network as networks  # noqa: E402
from FemurSegLib.segmentation.cleanup import Body  # noqa: E402
from FemurSegLib.sides import LEFT, RIGHT  # noqa: E402
from FemurSegLib.volume import Volume, read_labelmap, write_volume  # noqa: E402

BONE = {RIGHT: ((4, 30), (12, 20), (8, 16)), LEFT: ((4, 30), (12, 20), (32, 40))}
"""Half-open voxel ranges (k, j, i) of both bones in an oriented volume of 36 x 32 x 48 voxels."""
GRID = Grid((36, 32, 48), (1.5, 1.5, 3.0), (-36.0, -20.0, 100.0), np.eye(3))


class Threshold(torch.nn.Module):
    """Bone above 200 HU, as a network would say it."""

    def forward(self, image):
        cut = (200 - networks.WINDOW_HU[0]) / (networks.WINDOW_HU[1] - networks.WINDOW_HU[0])
        return torch.cat([torch.zeros_like(image), (image - cut) * 50], 1)


@dataclass
class Seen:
    """What the stand-in detector reports: by view, a list of (side, {axis: edges in voxels}, score)."""

    boxes: dict


def bones(grid=GRID, ranges=BONE):
    hu = np.full(grid.shape, -1000, np.int16)
    labels = np.zeros(grid.shape, np.uint8)
    for value, side in ((1, RIGHT), (2, LEFT)):
        if side in ranges:
            at = tuple(slice(*r) for r in ranges[side])
            hu[at] = 1200
            labels[at] = value
    return hu, labels


def edges(side, ranges=BONE, grow=0.0):
    k, j, i = ranges[side]
    return {axis: (a - 0.5 - grow, b - 0.5 + grow) for axis, (a, b) in zip("kji", (k, j, i), strict=True)}


@pytest.fixture
def run(monkeypatch):
    model = models.Model("stand_in", "segmenter", "segresnet", Path("stand_in.safetensors"), "0" * 64)

    def with_boxes(volume, boxes, **options):
        class StandIn:
            # No device: a GPU may be full before anything is found.
            def __init__(self, models_folder=None, data_set=None):
                self.models = []

            def detect(self, radiograph):
                return [
                    Detection(side, score, radiograph.voxels_to_box(extent))
                    for side, extent, score in boxes.get(radiograph.view, [])
                ]

        monkeypatch.setattr(models, "find", lambda *a, **k: model)
        monkeypatch.setattr(models, "load_tensors", lambda *a, **k: {})
        monkeypatch.setattr(networks, "build_network", lambda *a: Threshold())
        monkeypatch.setattr(detector, "Detector", StandIn)
        return pipeline.segment_femurs(volume, device="cpu", **options)

    return with_boxes


def both(grow=0.0, score=0.9):
    found = [(side, edges(side, grow=grow), score) for side in (RIGHT, LEFT)]
    return {"coronal": found, "axial": found}


def test_both_masks_come_back_voxel_for_voxel(run):
    hu, labels = bones()
    result = run(Volume(hu, GRID), both())
    assert np.array_equal(result.labels, labels)
    assert result.grid is GRID
    assert set(result.evidence) == {RIGHT, LEFT}


def test_the_probability_comes_where_it_is_asked_for_and_agrees_with_the_mask(run):
    hu, labels = bones()
    assert run(Volume(hu, GRID), both()).probability == {}
    found = run(Volume(hu, GRID), both(), keep_probability=True).probability
    assert set(found) == {RIGHT, LEFT}
    for value, side in ((1, RIGHT), (2, LEFT)):
        place, probability = found[side]
        assert np.array_equal(probability > 0.5, labels[tuple(slice(a, b) for a, b in place)] == value)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (-1, -1, -1), (1, -1, 1)])
def test_however_the_file_lies_the_right_femur_is_the_patients(run, axes, flips):
    hu, labels = bones()
    oriented = Volume(hu, GRID)
    spacing = np.array(GRID.spacing_mm)[::-1]
    stored = hu.transpose(axes)[tuple(slice(None, None, f) for f in flips)]
    expected = labels.transpose(axes)[tuple(slice(None, None, f) for f in flips)]
    # The stored axis a runs along the patient axis axes[a] (k, j, i), forwards or backwards.
    corner = [0 if f > 0 else GRID.shape[axes[n]] - 1 for n, f in enumerate(flips)]
    first = np.empty(3)
    first[list(axes)] = corner
    direction = np.zeros((3, 3))
    for n in range(3):
        direction[2 - axes[n], 2 - n] = flips[n]
    grid = Grid(stored.shape, spacing[list(axes)][::-1], oriented.grid.lps(first[::-1]), direction)
    result = run(Volume(np.ascontiguousarray(stored), grid), both())
    assert np.array_equal(result.labels, expected)


def test_a_run_uses_one_set_of_weights_and_the_confidence_of_that_set(tmp_path, monkeypatch):
    for data_set, licence in (("open", "MPL-2.0"), ("research", "CC-BY-NC-SA-4.0")):
        name, terms = models.name_of("segmenter", "segresnet", data_set), {"set": data_set, "licence": licence}
        terms |= {"caution": "They are young."} if data_set == "open" else {}
        models.export_weights({}, name, kind="segmenter", network="segresnet", folder=tmp_path, terms=terms)
    fitted = models.find("segmenter", "segresnet", tmp_path, "research")
    weights = dict.fromkeys(confidence.DOUBTS, 1.0)
    entry = {"intercept": 5.0, "weights": weights, "models": {fitted.name: fitted.sha256}}
    (tmp_path / confidence.FILE).write_text(json.dumps({fitted.name: entry}))
    monkeypatch.setattr(networks, "build_network", lambda *a: Threshold())
    hu, _ = bones()
    k, j, i = BONE[RIGHT]
    lower, upper = zip(*((a - 2.5, b + 1.5) for a, b in (i, j, k)), strict=True)
    options = {"regions": {RIGHT: Region(RIGHT, lower, upper, 1, 1, ())}, "device": "cpu", "anatomy": False}
    made = {
        name: pipeline.segment_femurs(Volume(hu, GRID), models_folder=tmp_path, data_set=name, **options)
        for name in models.SETS
    }
    said = {name: "confidence_uncalibrated" not in {f.code for f in each.findings} for name, each in made.items()}
    assert said == {"open": False, "research": True}
    cautions = {
        name: [f.message for f in each.findings if f.code == "weights_caution"] for name, each in made.items()
    }
    assert cautions == {"open": ["They are young."], "research": []}
    assert made["research"].confidence[RIGHT] > 0.5 and made["open"].confidence == {}
    document = read_result(write_result(tmp_path / "out", made["open"])).document
    assert document["weights"] == {"set": "open", "licence": "MPL-2.0"}
    assert [m["name"] for m in document["models"]] == ["segmenter_segresnet_open"]
    assert document["femurs"][RIGHT]["confidence"] is None
    with pytest.raises(ModelError, match="open weights are not complete: there is no coronal detector"):
        pipeline.segment_femurs(Volume(hu, GRID), device="cpu", models_folder=tmp_path, data_set="open")


def test_a_region_that_is_too_small_is_widened_until_it_holds_the_bone(run):
    hu, labels = bones()
    k, j, i = BONE[RIGHT]
    short = {RIGHT: ((14, 18), j, i), LEFT: BONE[LEFT]}
    boxes = [(side, edges(side, short), 0.9) for side in (RIGHT, LEFT)]
    result = run(Volume(hu, GRID), {"coronal": boxes, "axial": boxes}, margin_mm=3.0)
    assert np.array_equal(result.labels, labels)


def test_a_box_that_is_short_front_to_back_is_widened_once_as_far_as_the_bone_goes(run, monkeypatch):
    deep = Grid((36, 100, 48), (1.5, 1.5, 3.0), (0, 0, 0), np.eye(3))
    k, _, i = BONE[RIGHT]
    ranges = {RIGHT: (k, (8, 90), i)}
    hu, labels = bones(deep, ranges)
    given, probability = [], inference.Runner.probability

    def counted(self, crop, *more):
        given.append(crop.grid.shape[1])
        return probability(self, crop, *more)

    monkeypatch.setattr(inference.Runner, "probability", counted)
    short = edges(RIGHT, {RIGHT: (k, (78, 90), i)})
    result = run(Volume(hu, deep), {view: [(RIGHT, short, 0.9)] for view in ("coronal", "axial")}, margin_mm=6.0)
    assert np.array_equal(result.labels, labels)
    first, *looks, last = given
    assert first == 12 + 2 * 4 and 90 <= last <= 92, "the whole box twice: as it was seen, and as it has to be"
    assert len(looks) == 2, "of 60 mm each"
    assert not [f for f in result.findings if f.code == "femur_incomplete"]


def test_a_region_that_reaches_over_the_other_femur_keeps_its_own(run):
    hu, labels = bones()
    wide = {**edges(RIGHT), "i": (2.0, 26.0)}
    boxes = [(RIGHT, wide, 0.9), (LEFT, edges(LEFT), 0.9)]
    result = run(Volume(hu, GRID), {"coronal": boxes, "axial": boxes}, margin_mm=25.0)
    assert np.array_equal(result.labels, labels)
    assert "femur_in_pieces" not in {f.code for f in result.findings}, "the other femur is no piece of this one"


@pytest.mark.parametrize("border", [24, 22])
def test_femora_that_touch_are_parted_where_their_boxes_meet(run, border):
    """Neither is called missing, and neither is given to the other side."""
    k, j, _ = BONE[RIGHT]
    ranges = {RIGHT: (k, j, (8, border)), LEFT: (k, j, (border, 40))}
    hu, labels = bones(ranges=ranges)
    boxes = [(side, edges(side, ranges), 0.9) for side in (RIGHT, LEFT)]
    result = run(Volume(hu, GRID), {"coronal": boxes, "axial": boxes})
    assert np.mean(result.labels[labels > 0] == labels[labels > 0]) > 0.95
    assert not (result.labels[labels == 0]).any()
    assert {f.side for f in result.findings if f.code == "femora_joined"} == {RIGHT, LEFT}


def test_a_plate_beside_a_femur_is_no_femur_and_its_slices_are_told(run):
    hu, labels = bones()
    plain = run(Volume(hu, GRID), both(grow=2.0))
    hu[10:26, 14:18, 5:8] = 3000  # it touches the right one, toward the patient's right
    result = run(Volume(hu, GRID), both(grow=2.0))
    outside = (labels == 0) & (result.labels > 0)
    assert outside.sum() < 16, "the plate has 192 voxels"
    assert (result.labels[labels == 1] == 1).mean() > 0.95
    assert np.array_equal(result.labels == 2, plain.labels == 2), "the other femur is as it was"
    told = [f for f in result.findings if f.code == "metal"]
    assert [f.side for f in told] == [RIGHT] and "from S 128 to 177 mm" in told[0].message


def test_nothing_is_done_about_metal_where_there_is_none(run, monkeypatch):
    def forbidden(*_):
        raise AssertionError("a CT without metal was changed")

    monkeypatch.setattr(metal, "without_metal_beside", forbidden)
    hu, labels = bones()
    result = run(Volume(hu, GRID), both())
    assert np.array_equal(result.labels, labels) and "metal" not in {f.code for f in result.findings}
    hu[10:26, 14:18, 9:12] = 3000
    with pytest.raises(AssertionError, match="was changed"):
        run(Volume(hu, GRID), both())


def test_a_mask_too_small_for_the_voxels_of_the_ct_is_no_femur():
    body = Body(np.ones((2, 2, 2), bool), np.ones((2, 2, 2), np.float32), 1.0, 0.0)
    mask = pipeline._Mask(np.zeros((2, 2, 2), bool), ((0, 2),) * 3, body, True)
    assert pipeline._enter(np.zeros((4, 4, 4), np.uint8), mask, RIGHT).code == "femur_missing"


def test_weights_that_do_not_fit_are_told_as_such(run, monkeypatch):
    hu, _ = bones()
    run(Volume(hu, GRID), both())  # puts the stand-ins in place
    monkeypatch.setattr(models, "load_tensors", lambda *a, **k: {"strange": torch.zeros(1)})
    with pytest.raises(ModelError, match="do not fit"):
        pipeline.segment_femurs(Volume(hu, GRID), device="cpu")


def test_a_bone_cut_by_the_scan_is_named_with_the_face(run):
    ranges = {RIGHT: ((0, 30), *BONE[RIGHT][1:])}
    hu, labels = bones(ranges=ranges)
    boxes = [(RIGHT, edges(RIGHT, ranges), 0.9)]
    result = run(Volume(hu, GRID), {"coronal": boxes, "axial": boxes})
    cut = [f for f in result.findings if f.code == "femur_cut"]
    assert [f.side for f in cut] == [RIGHT] and "inferior" in cut[0].message
    assert result.localization.regions[RIGHT].cut == ("inferior",)
    assert np.array_equal(result.labels, labels)


def test_a_whole_bone_near_the_edge_is_not_called_cut(run):
    ranges = {RIGHT: ((1, 30), *BONE[RIGHT][1:])}
    hu, _ = bones(ranges=ranges)
    boxes = [(RIGHT, edges(RIGHT, ranges), 0.9)]
    result = run(Volume(hu, GRID), {"coronal": boxes, "axial": boxes})
    assert not [f for f in result.findings if f.code == "femur_cut"]


def test_a_femur_found_with_little_confidence_is_named_with_the_reason(run, monkeypatch):
    hu, _ = bones()
    calibration = confidence.Calibration(2.0, (0.0, 3.0, 0.0, 4.0), {})
    monkeypatch.setattr(confidence, "load_calibration", lambda name, folder: calibration)
    sure = run(Volume(hu, GRID), both(score=0.95))
    assert not [f for f in sure.findings if f.code == "low_confidence"]
    doubtful = run(Volume(hu, GRID), both(score=0.4))
    assert {f.side for f in doubtful.findings if f.code == "low_confidence"} == {RIGHT, LEFT}
    assert all(doubtful.confidence[side] < 0.5 < sure.confidence[side] for side in (RIGHT, LEFT))
    hu[10:20, 14:18, 34:38] = 3000  # a nail in the left one
    [told] = [f for f in run(Volume(hu, GRID), both(score=0.95)).findings if f.code == "low_confidence"]
    assert told.side == LEFT and "metal" in told.message and "radiographs" not in told.message


def test_a_calibration_for_other_weights_or_none_at_all_is_told(run, monkeypatch):
    hu, _ = bones()
    for models_, code in (({"stand_in": "0" * 64}, set()), ({"stand_in": "1" * 64}, {"confidence_uncalibrated"})):
        calibration = confidence.Calibration(2.0, (0.0,) * 4, models_)
        monkeypatch.setattr(confidence, "load_calibration", lambda name, folder, c=calibration: c)
        result = run(Volume(hu, GRID), both())
        assert {f.code for f in result.findings} & {"confidence_uncalibrated"} == code
        assert result.confidence[RIGHT] == pytest.approx(0.881, abs=1e-3)
    monkeypatch.setattr(confidence, "load_calibration", lambda name, folder: None)
    result = run(Volume(hu, GRID), both())
    assert result.confidence == {} and "confidence_uncalibrated" in {f.code for f in result.findings}
    assert (result.labels > 0).any()


def test_holes_are_filled_and_stray_pieces_left_out(run):
    hu, labels = bones()
    hu[10:20, 14:18, 10:14] = 0  # a marrow canal
    hu[8:12, 26:29, 9:12] = 1200  # a fabella, inside the margin
    result = run(Volume(hu, GRID), both(), margin_mm=12.0)
    assert np.array_equal(result.labels == 1, labels == 1)


def test_only_the_side_asked_for_is_segmented(run):
    hu, labels = bones()
    result = run(Volume(hu, GRID), both(), sides=(LEFT,))
    assert np.array_equal(result.labels, np.where(labels == 2, 2, 0))
    assert list(result.evidence) == [LEFT]


def test_no_femur_is_an_error_that_says_so(run):
    hu, _ = bones()
    with pytest.raises(NoFemurError, match="No femur"):
        run(Volume(hu, GRID), {})
    with pytest.raises(NoFemurError, match="Only the right femur"):
        only = {view: found[:1] for view, found in both().items()}
        run(Volume(hu, GRID), only, sides=(LEFT,))


def test_a_box_with_no_bone_in_it_is_no_femur(run):
    hu = np.full(GRID.shape, 40, np.int16)
    hu[0] = -1000
    with pytest.raises(NoFemurError):
        run(Volume(hu, GRID), both())


def test_a_drawn_box_confines_the_mask(run):
    hu, labels = bones()
    low, high = GRID.lps([30.5, 10.5, 2.5]), GRID.lps([41.5, 21.5, 15.5])
    drawn = {LEFT: {"center_lps_mm": (low + high) / 2, "size_mm": high - low, "axes_lps": np.eye(3)}}
    result = run(Volume(hu, GRID), {}, regions=drawn_regions(drawn, GRID.oriented()))
    expected = np.where(labels == 2, 2, 0)
    expected[16:] = 0
    assert np.array_equal(result.labels, expected)


def test_a_bone_that_outgrows_every_attempt_still_ends_well(run):
    long = Grid((200, 32, 48), (1.5, 1.5, 3.0), (0, 0, 0), np.eye(3))
    ranges = {RIGHT: ((2, 198), *BONE[RIGHT][1:])}
    hu, labels = bones(long, ranges)
    short = edges(RIGHT, {RIGHT: ((90, 100), *BONE[RIGHT][1:])})
    told = []
    seen = {"coronal": [(RIGHT, short, 0.9)], "axial": [(RIGHT, short, 0.9)]}
    result = run(Volume(hu, long), seen, progress=told.append, keep_probability=True)
    found = result.labels == 1
    assert found.any() and not (found & (labels != 1)).any()
    assert not found[:79].any() and not found[111:].any()  # the first box: 10 slices and 12 mm on either side
    place, probability = result.probability[RIGHT]
    box = tuple(slice(*ends) for ends in place)
    assert np.array_equal(probability > 0.5, found[box])
    assert any(f.code == "femur_incomplete" for f in result.findings)
    parts = [event["fraction"] for event in told if event["event"] == "progress"]
    assert parts == sorted(parts)


def test_boxes_drawn_by_hand_take_the_place_of_the_detector(run):
    hu, labels = bones()
    low, high = GRID.lps([30.5, 10.5, 2.5]), GRID.lps([41.5, 21.5, 31.5])
    drawn = {LEFT: {"center_lps_mm": (low + high) / 2, "size_mm": high - low, "axes_lps": np.eye(3)}}
    result = run(Volume(hu, GRID), {}, regions=drawn_regions(drawn, GRID.oriented()))
    assert np.array_equal(result.labels, np.where(labels == 2, 2, 0))


@pytest.mark.parametrize(
    "drawn",
    [
        {LEFT: {"center_lps_mm": [0, 0, 130], "size_mm": [9] * 3, "axes_lps": 5 * np.eye(3)}},
        {LEFT: {"center_lps_mm": [0, 0, 130], "size_mm": [9, 0, 9], "axes_lps": np.eye(3)}},
        {},
        {"femur": {}},
        {LEFT: {"center_lps_mm": [9e3] * 3, "size_mm": [9] * 3, "axes_lps": np.eye(3)}},
        {LEFT: 3},
    ],
)
def test_boxes_that_make_no_sense_are_refused(drawn):
    with pytest.raises(InputError):
        drawn_regions(drawn, GRID.oriented())


def test_the_command_takes_drawn_boxes_from_a_file(run, tmp_path):
    hu, labels = bones()
    run(Volume(hu, GRID), both())  # puts the stand-ins in place
    write_volume(tmp_path / "ct.nii.gz", Volume(hu, GRID))
    low, high = GRID.lps([6.0, 10.5, 2.5]), GRID.lps([18.0, 21.5, 31.5])
    box = {
        "center_lps_mm": ((low + high) / 2).tolist(),
        "size_mm": (high - low).tolist(),
        "axes_lps": np.eye(3).tolist(),
    }
    (tmp_path / "region.json").write_text(json.dumps({RIGHT: box}))
    code = command.main(
        [
            "segment",
            str(tmp_path / "ct.nii.gz"),
            "--out",
            str(tmp_path / "out"),
            "--device",
            "cpu",
            "--region",
            str(tmp_path / "region.json"),
            "--progress",
            "none",
        ]
    )
    assert code == 0
    assert np.array_equal(read_labelmap(tmp_path / "out" / "femurs.nii.gz").voxels, np.where(labels == 1, 1, 0))
