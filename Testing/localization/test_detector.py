"""The border between a network's output and the radiograph, and the shipped detector on what it should
know."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from FemurSegLib import models
from FemurSegLib.errors import ModelError
from FemurSegLib.localization import detector as module
from FemurSegLib.localization.detector import Detector, find_boxes, image_size, letterbox, look
from FemurSegLib.localization.radiograph import axial_radiograph, coronal_radiograph
from FemurSegLib.localization.region import slices_of_femora
from FemurSegLib.sides import LEFT, RIGHT, SIDES
from FemurSegLib.volume import Grid, Volume


class FakeNetwork(torch.nn.Module):
    """Sees, in the canvas it is given, one box around what is brighter than the grey border, and other
    boxes as told."""

    def __init__(self, side: str, score: float = 0.9, more=()):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.side, self.score, self.more = side, score, more

    def forward(self, batch):
        rows, columns = torch.where(batch[0, 1] > 0.6)
        x0, x1, y0, y1 = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
        box = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
        lines = [[*box, *(self.score if side == self.side else 0.0 for side in SIDES)]]
        lines += [
            [a * b for a, b in zip(box, factors, strict=True)] + list(scores) for factors, scores in self.more
        ]
        return torch.tensor(lines, dtype=torch.float32).T[None], None


def _volume_with_a_block(low_kji, high_kji, shape=(120, 60, 90), spacing_mm=(1.5, 2.0, 3.0)) -> Volume:
    voxels = np.full(shape, -1000, np.int16)
    voxels[tuple(slice(a, b) for a, b in zip(low_kji, high_kji, strict=True))] = 1400
    return Volume(voxels, Grid(shape, spacing_mm, (0.0, 0.0, 0.0), np.eye(3)))


@pytest.mark.parametrize("make, axes", [(coronal_radiograph, "ik"), (axial_radiograph, "ij")])
@pytest.mark.parametrize("size", [128, 320, 640])
def test_a_box_of_the_network_lands_on_the_voxels_it_was_seen_on(make, axes, size):
    low, high = (20, 10, 30), (90, 40, 60)
    radiograph = make(_volume_with_a_block(low, high))
    (found,) = look(FakeNetwork(RIGHT), radiograph.image, size)
    edges = radiograph.box_to_voxels(found.box)
    pixels = 640 / size * max(radiograph.pixel_mm) / np.array(radiograph.grid.spacing_mm)
    pixel = dict(zip("ijk", pixels, strict=True))
    for axis in axes:
        at = "kji".index(axis)
        assert edges[axis] == pytest.approx((low[at] - 0.5, high[at] - 0.5), abs=1.2 * max(1.0, pixel[axis]))
    assert found.side == RIGHT and found.score == pytest.approx(0.9)


def test_a_box_beyond_the_picture_is_held_to_it():
    radiograph = coronal_radiograph(_volume_with_a_block((0, 10, 0), (120, 40, 90)))
    network = FakeNetwork(LEFT, more=[((1, 1, 3, 3), (0.0, 0.8))])
    boxes = [d.box for d in look(network, radiograph.image, 320)]
    rows, columns = radiograph.image.shape[:2]
    assert boxes[0] == pytest.approx((0, 0, columns, rows), abs=1)
    assert boxes == boxes[:1], "the second is the same box once it is held to the picture"


def test_weak_and_double_boxes_are_left_out_and_the_other_side_is_kept():
    radiograph = coronal_radiograph(_volume_with_a_block((20, 10, 30), (90, 40, 60)))
    same, away = (1, 1, 1, 1), (1, 0.3, 1, 0.2)
    network = FakeNetwork(RIGHT, 0.7, more=[(same, (0.6, 0.5)), (away, (0.3, 0.0)), (away, (0.0, 0.01))])
    found = [(d.side, round(d.score, 2)) for d in look(network, radiograph.image, 320)]
    assert found == [(RIGHT, 0.7), (LEFT, 0.5), (RIGHT, 0.3)]


class Leaning(FakeNetwork):
    """Knows the side by where the bone lies, and sees it `lean` pixels too far to the right; blind where `sees`
    (of the canvas) says so."""

    def __init__(self, lean=0.0, sees=lambda canvas: True):
        super().__init__(RIGHT)
        self.lean, self.sees = lean, sees

    def forward(self, batch):
        columns = torch.where(batch[0, 1] > 0.6)[1].float()
        self.side = RIGHT if columns.mean() < batch.shape[3] / 2 else LEFT
        self.score = 0.9 if self.sees(batch[0]) else 0.0
        out, rest = super().forward(batch)
        out[:, 0] += self.lean
        return out, rest


@pytest.mark.parametrize("low, high, side", [(10, 35, RIGHT), (55, 80, LEFT)])
def test_what_leans_to_one_side_is_put_right_by_the_mirror(low, high, side):
    radiograph = coronal_radiograph(_volume_with_a_block((20, 10, low), (90, 40, high)))
    (found,) = find_boxes(Leaning(lean=3.0), radiograph.image, 320)
    assert (found.side, found.score) == (side, pytest.approx(0.9))
    assert radiograph.box_to_voxels(found.box)["i"] == pytest.approx((low - 0.5, high - 0.5), abs=1.2)
    (one,) = look(Leaning(lean=3.0), radiograph.image, 320)
    assert radiograph.box_to_voxels(one.box)["i"][0] > low + 1.2, "one look alone is wrong"


def test_one_look_that_errs_far_does_not_move_the_box():
    class OneErrs(FakeNetwork):
        looks = 0

        def forward(self, batch):
            columns = torch.where(batch[0, 1] > 0.6)[1].float()
            self.side = RIGHT if columns.mean() < batch.shape[3] / 2 else LEFT
            out, rest = super().forward(batch)
            self.looks += 1
            out[:, 3] *= 1.8 if self.looks == 3 else 1.0  # the bone and half a pelvis
            return out, rest

    radiograph = coronal_radiograph(_volume_with_a_block((40, 10, 10), (90, 40, 35)))
    (found,) = find_boxes(OneErrs(RIGHT), radiograph.image, 320)
    assert radiograph.box_to_voxels(found.box)["k"] == pytest.approx((39.5, 89.5), abs=1.2)
    assert found.score == pytest.approx(0.9), "it shows the femur all the same"


def test_a_femur_that_some_looks_show_is_reported_with_their_part_of_the_score():
    radiograph = coronal_radiograph(_volume_with_a_block((20, 10, 10), (90, 40, 35)))

    def in_the_mirror(canvas):
        return torch.where(canvas[1] > 0.6)[1].float().mean() > canvas.shape[2] / 2

    (found,) = find_boxes(Leaning(sees=in_the_mirror), radiograph.image, 320)
    assert (found.side, found.score) == (RIGHT, pytest.approx(0.45))
    assert find_boxes(Leaning(sees=lambda canvas: False), radiograph.image, 320) == []


def test_the_picture_fills_the_canvas_on_its_longer_side_and_grey_is_around_it():
    canvas, scale, offset = letterbox(np.zeros((640, 409, 3), np.uint8), 320)
    assert canvas.shape == (320, 224, 3)
    assert scale == pytest.approx((0.5, 0.5), rel=0.01) and offset == (9, 0)
    assert canvas[0, 0, 0] == 114 and canvas[0, 112, 0] == 0


def test_weights_of_an_unknown_network_are_an_error():
    assert image_size("yolov8n-320") == 320 and image_size("yolov8n") == module.IMAGE_SIZE
    with pytest.raises(ModelError):
        image_size("yolov5-320")


def test_no_weights_are_an_error_that_says_so(tmp_path):
    (tmp_path / models.MANIFEST).write_text("{}")
    with pytest.raises(ModelError):
        Detector(models_folder=tmp_path)


def _shipped() -> Detector:
    try:
        return Detector()
    except ModelError as error:
        pytest.skip(f"no detector weights are shipped: {error}")


def test_the_shipped_detector_leaves_threads_alone_and_answers_the_same_twice():
    detector = _shipped()
    radiograph = coronal_radiograph(_volume_with_a_block((0, 25, 30), (120, 35, 45)))
    before = torch.get_num_threads()
    assert detector.detect(radiograph) == detector.detect(radiograph)
    assert torch.get_num_threads() == before


def test_the_shipped_detector_finds_both_femora_of_a_phantom(shared_data):
    from FemurSegLib.localization.detection import iou
    from FemurSegLib.phantom.anatomy import sample_anatomy
    from FemurSegLib.phantom.case import grid_for, make_phantom
    from FemurSegLib.phantom.shapes import load_person
    from FemurSegLib.training.radiographs import CLASSES, boxes

    detector = _shipped()
    cache = shared_data.parents[1] / "main" / "runs" / "shapes"
    people = [load_person(shared_data / "shapes", name, cache) for name in ("z062", "z013")]
    anatomy = sample_anatomy(people[:1], people[1], 3)
    phantom = make_phantom(anatomy, grid_for(anatomy, "femora", (4.0, 4.0, 4.0), 3), thick_slices=False)
    coronal = coronal_radiograph(phantom.ct)
    seen = detector.detect(coronal)
    axial = axial_radiograph(phantom.ct, slices_of_femora(coronal, seen))
    for radiograph, detections in ((coronal, seen), (axial, detector.detect(axial))):
        truth = {CLASSES[number]: box for number, box in boxes(phantom.labels, radiograph)}
        assert set(truth) == set(SIDES)
        for side, box in truth.items():
            best = next(d for d in detections if d.side == side)
            assert best.score > 0.5 and iou(best.box, box) > 0.75, (radiograph.view, side)
