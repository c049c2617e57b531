"""Radiographs with boxes, and a detector trained on a few of them for an epoch or two."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from multiprocessing import active_children

import numpy as np
import pytest
from toy_person import keep

from FemurSegLib import models
from FemurSegLib.errors import InputError, ModelError
from FemurSegLib.localization.detector import Detector
from FemurSegLib.localization.radiograph import axial_radiograph, coronal_radiograph
from FemurSegLib.sides import LABELS, LEFT, RIGHT
from FemurSegLib.training import detector
from FemurSegLib.training.cases import Case
from FemurSegLib.training.detector import (
    DetectorTraining,
    _AnotherPatient,
    export_detector,
    starting_tensors,
    train_detector,
)
from FemurSegLib.training.export import export_run
from FemurSegLib.training.radiographs import (
    CLASSES,
    RadiographSet,
    boxes,
    make_radiographs_of,
    mirrored,
    reframed,
)
from FemurSegLib.volume import Grid, Volume, write_volume


def _legs(seed: int = 0) -> tuple[Volume, Volume]:
    """Two rods of bone in two cylinders of muscle, the right one at low i; small and quick."""
    rng = np.random.default_rng(seed)
    shape = (60, 40, 80)
    k, j, i = np.indices(shape)
    ct, labels = np.full(shape, -1000, np.int16), np.zeros(shape, np.uint8)
    for side, center in ((RIGHT, 20), (LEFT, 60)):
        center = center + rng.uniform(-4, 4)
        radius = np.hypot(j - 20, i - center)
        ct[radius < 15] = 40
        inside = (radius < 4) & (k > 8) & (k < 50)
        ct[inside], labels[inside] = 900, LABELS[side]
    grid = Grid(shape, (4.0, 4.0, 5.0), (0.0, 0.0, 0.0), np.eye(3))
    return Volume(ct, grid), Volume(labels, grid)


def test_boxes_fit_the_labels_and_the_right_femur_is_on_the_left_of_the_picture():
    ct, labels = _legs()
    found = {CLASSES[number]: box for number, box in boxes(labels, coronal_radiograph(ct))}
    assert found[RIGHT][2] < found[LEFT][0]
    edges = coronal_radiograph(ct).box_to_voxels(found[RIGHT])
    at = np.argwhere(labels.voxels == LABELS[RIGHT])
    assert edges["k"] == pytest.approx((at[:, 0].min() - 0.5, at[:, 0].max() + 0.5), abs=1e-6)
    assert edges["i"] == pytest.approx((at[:, 2].min() - 0.5, at[:, 2].max() + 0.5), abs=1e-6)


def test_an_axial_box_counts_only_the_slices_that_were_projected():
    ct, labels = _legs()
    assert len(boxes(labels, axial_radiograph(ct))) == 2
    assert boxes(labels, axial_radiograph(ct, (0, 8))) == []


def test_a_sliver_has_no_box():
    ct, labels = _legs()
    part = (ct.crop((0, 0, 0), (10, 40, 80)), labels.crop((0, 0, 0), (10, 40, 80)))
    assert boxes(part[1], coronal_radiograph(part[0])), "one slice of 5 mm"
    thin = Volume(part[1].voxels, Grid(part[1].grid.shape, (4.0, 4.0, 4.0), (0.0, 0.0, 0.0), np.eye(3)))
    assert not boxes(thin, coronal_radiograph(Volume(part[0].voxels, thin.grid))), "one slice of 4 mm"


def test_undecided_voxels_go_with_the_nearer_femur():
    ct, labels = _legs()
    labels.voxels[4:9, 20, 60] = 255
    found = {
        CLASSES[n]: coronal_radiograph(ct).box_to_voxels(box) for n, box in boxes(labels, coronal_radiograph(ct))
    }
    assert found[LEFT]["k"][0] == pytest.approx(3.5)
    assert found[RIGHT]["k"][0] == pytest.approx(8.5)


def test_a_mirrored_patient_has_the_sides_exchanged():
    ct, labels = _legs()
    other_ct, other = mirrored(ct), mirrored(labels)
    assert (other.voxels[:, :, :40] == LABELS[RIGHT]).any() and not (other.voxels[:, :, :40] == LABELS[LEFT]).any()
    assert ((other.voxels > 0) == (other_ct.voxels == 900)).all()


def test_another_field_of_view_keeps_ct_and_labels_together():
    ct, labels = _legs()
    for seed in range(30):
        part, part_labels = reframed(ct, labels, np.random.default_rng(seed))
        assert part.grid.shape == part_labels.grid.shape == part.voxels.shape
        assert ((part.voxels == 900) == (part_labels.voxels > 0)).all()
        k, j, i = np.argwhere(part_labels.voxels > 0)[0] if (part_labels.voxels > 0).any() else (0, 0, 0)
        at = np.round(ct.grid.ijk(part.grid.lps((i, j, k)))).astype(int)
        if part_labels.voxels[k, j, i]:
            assert labels.voxels[tuple(at[::-1])] == part_labels.voxels[k, j, i], "it stays in its place"


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    for split, number in (("train", 4), ("val", 1)):
        cases = []
        for seed in range(number):
            ct, labels = _legs(seed)
            paths = folder / f"{split}{seed}_ct.mha", folder / f"{split}{seed}_labels.mha"
            write_volume(paths[0], ct), write_volume(paths[1], labels)
            cases.append(Case(*paths))
        make_radiographs_of(RadiographSet(folder / "set", split, cases=tuple(cases), per_case=2))
    return folder / "set"


def test_a_set_has_a_label_file_for_each_picture_and_is_not_made_twice(small_set):
    for view in ("coronal", "axial"):
        pictures = sorted(path.stem for path in (small_set / view / "images" / "train").glob("*.png"))
        assert len(pictures) == 8
        assert pictures == sorted(path.stem for path in (small_set / view / "labels" / "train").glob("*.txt"))
    assert json.loads(next((small_set / "done").iterdir()).read_text())["scans"] == 2


def test_pictures_of_somebody_held_out_later_do_not_stay(tmp_path):
    (tmp_path / "cache").mkdir()
    for name in ("toy", "other"):
        keep(tmp_path / "cache", name)
    for name in "AB":
        for volume, end in zip(_legs(), ("CT", "femurs"), strict=True):
            write_volume(tmp_path / f"{name}_{end}.mha", volume)
    cases = tuple(Case(tmp_path / f"{name}_CT.mha", tmp_path / f"{name}_femurs.mha") for name in "AB")
    what = RadiographSet(
        tmp_path / "set", "train", tmp_path, ("toy",), tmp_path / "cache", "toy", 1, False, cases, per_case=1
    )
    make_radiographs_of(what)
    folder = tmp_path / "set" / "coronal" / "images" / "train"
    assert sorted(path.stem[:8] for path in folder.iterdir()) == 7 * ["phantom0"] + ["real-A-0", "real-B-0"]
    kept = folder / "real-B-00.png"
    before = kept.stat().st_mtime_ns
    (folder / "real-A-07.png").write_bytes(b"of a run that was interrupted, so it has no mark")
    make_radiographs_of(replace(what, people=("other",), cases=cases[1:]))
    assert [path.stem for path in folder.glob("real*")] == ["real-B-00"] and kept.stat().st_mtime_ns == before
    [mark] = (tmp_path / "set" / "done").glob("train-phantom*")
    assert json.loads(mark.read_text())["people"][0] == "other"
    labels = tmp_path / "set" / "axial" / "labels" / "train"
    assert len(list(labels.iterdir())) == len(list(folder.iterdir())) == 8


def test_a_case_whose_labels_lie_elsewhere_is_refused(tmp_path):
    ct, labels = _legs()
    write_volume(tmp_path / "ct.mha", ct)
    away = Grid(labels.grid.shape, labels.grid.spacing_mm, (8.0, 0.0, 0.0), np.eye(3))
    write_volume(tmp_path / "labels.mha", Volume(labels.voxels, away))
    case = Case(tmp_path / "ct.mha", tmp_path / "labels.mha")
    with pytest.raises(InputError, match="same grid"):
        make_radiographs_of(RadiographSet(tmp_path / "set", cases=(case,)))


def test_phantoms_give_radiographs_with_boxes_where_their_femora_are(tmp_path):
    (tmp_path / "cache").mkdir()
    keep(tmp_path / "cache")
    what = RadiographSet(tmp_path / "set", "val", tmp_path, ("toy",), tmp_path / "cache", "toy", patients=1)
    folder = make_radiographs_of(replace(what, whole_bodies=False))
    for view in ("coronal", "axial"):
        labels = [path.read_text() for path in (folder / view / "labels" / "val").glob("*.txt")]
        assert len(labels) == 7 and any(labels)
        numbers = [[float(word) for word in line.split()] for text in labels for line in text.splitlines()]
        assert all(side in (0, 1) and 0 < width <= 1 and 0 < height <= 1 for side, _, _, width, height in numbers)


def test_pictures_are_mirrored_with_their_sides_and_stretched_with_their_boxes():
    """The box of each side stays on its own patch, wherever the patch goes."""
    from ultralytics.utils.instance import Instances

    picture = np.zeros((40, 80, 3), np.uint8)
    picture[10:30, 8:24], picture[5:25, 60:70] = 100, 200
    boxes = np.array([[16 / 80, 20 / 40, 16 / 80, 20 / 40], [65 / 80, 15 / 40, 10 / 80, 20 / 40]], np.float32)
    another, seen = _AnotherPatient(0, 160), set()
    for _ in range(20):
        instances = Instances(boxes.copy(), np.zeros((0, 1000, 2)), bbox_format="xywh", normalized=True)
        out = another({"img": picture, "cls": np.array([[0.0], [1.0]]), "instances": instances})
        rows, columns = out["img"].shape[:2]
        assert max(rows, columns) == 160 and out["resized_shape"] == (rows, columns)
        middles = [out["img"][int(y * rows), int(x * columns), 0] for x, y, _, _ in out["instances"].bboxes]
        assert middles == [100, 200]
        left_to_right = [CLASSES[int(n)] for n in out["cls"][np.argsort(out["instances"].bboxes[:, 0]), 0]]
        assert left_to_right == [RIGHT, LEFT], "the right femur stays at the left edge"
        seen.add((out["cls"][0, 0], rows))
    assert {number for number, _ in seen} == {0, 1} and len(seen) > 10
    assert picture.max() == 200 and picture[10, 8, 0] == 100, "what is kept in memory is not changed"


def test_training_can_be_interrupted_goes_on_and_exports(small_set, tmp_path):
    class Interrupted(Exception):
        pass

    def stop(epoch):
        if epoch["epoch"] == 2:
            raise Interrupted

    training = DetectorTraining(tmp_path / "run", small_set, "coronal", epochs=3, batch=4, image_size=64, threads=1)
    with pytest.raises(Interrupted):
        train_detector(training, stop)
    seen = []
    run = train_detector(training, lambda epoch: seen.append(epoch["epoch"]))
    assert seen[0] == 3, "the first two epochs are not done again"
    assert train_detector(training, seen.clear) == run and seen, "a finished run is left as it is"
    curve = (run / "results.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in curve] == ["epoch", "1", "2", "3"]

    with pytest.raises(InputError, match="does not say what it learned from"):
        export_run(run, tmp_path / "open")
    (run / "material.json").write_text(json.dumps({"origins": ["llp26", "ultralytics", "visible_human"]}))
    [path] = export_run(run, tmp_path / "open")
    assert path.name == "detector_coronal_open.safetensors"
    model = models.find("detector_coronal", None, tmp_path / "open", "open")
    assert (model.network, model.licence) == ("yolov8n-64", "MPL-2.0 AND AGPL-3.0-only")
    assert "LLP26" in model.card.read_text() and "ultralytics" in model.card.read_text()

    for view in ("coronal", "axial"):
        export_detector(run, view, tmp_path / "models")
    detector = Detector(models_folder=tmp_path / "models")
    assert [model.network for model in detector.models] == ["yolov8n-64"] * 2
    assert isinstance(detector.detect(coronal_radiograph(_legs()[0])), list)


def test_a_run_whose_time_is_up_is_not_finished(small_set, tmp_path):
    training = DetectorTraining(tmp_path / "run", small_set, "axial", epochs=2, batch=4, image_size=64, threads=1)
    seen = []
    for _ in range(2):  # an epoch each
        train_detector(replace(training, minutes=0), lambda epoch: seen.append(epoch["epoch"]))
        assert (tmp_path / "run" / "finished.json").is_file() == (seen[-1] > 1)
    assert seen[:2] == [1, 2]


def test_stopping_a_process_that_loads_pictures_stops_the_training(small_set, tmp_path, monkeypatch):
    made = detector._trainer

    def with_workers(*args):  # ultralytics has none on a CPU
        trainer = made(*args)
        trainer.args.workers = 1
        return trainer

    def stop_them(epoch):
        for process in active_children():  # by somebody else: torch takes it well from the training itself
            subprocess.run(["kill", str(process.pid)], check=True)

    monkeypatch.setattr(detector, "_trainer", with_workers)
    training = DetectorTraining(tmp_path / "run", small_set, "axial", epochs=50, batch=4, image_size=64, threads=1)
    with pytest.raises(KeyboardInterrupt):
        train_detector(training, stop_them)
    assert (tmp_path / "run" / "weights" / "last.pt").is_file()
    assert not (tmp_path / "run" / "finished.json").exists()


def test_a_pickle_that_is_not_known_is_not_opened(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"anything")
    with pytest.raises(ModelError):
        starting_tensors(path)
