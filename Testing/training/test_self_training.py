"""Self-training on two ellipsoids of bone, with a segmenter that calls dense voxels femur."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from examples import CENTERS_LPS, two_femora

from FemurSegLib import command
from FemurSegLib.errors import InputError
from FemurSegLib.grid import Grid
from FemurSegLib.sides import LABELS, LEFT, RIGHT
from FemurSegLib.training import self_training
from FemurSegLib.training.cases import Case, find_cases, read_case
from FemurSegLib.training.self_training import (
    PERTURBATIONS,
    AcceptanceRule,
    Perturbation,
    agree,
    make_pseudo_labels,
)
from FemurSegLib.volume import Volume, write_volume

SMALL = Grid((20, 16, 24), (2.0, 2.0, 4.0), (-24, -16, 0), np.eye(3))


def dense_is_femur(ct: Volume):
    """Bone in the right half of the body is the right femur."""
    assert ct.grid.matches(ct.grid.oriented())
    dense, half = ct.voxels > 250, ct.grid.shape[2] // 2
    sides = {RIGHT: dense.copy(), LEFT: dense.copy()}
    sides[RIGHT][:, :, half:] = False
    sides[LEFT][:, :, :half] = False
    return {side: mask.astype(np.float32) for side, mask in sides.items() if mask.any()}


def blocks(*ranges):
    """A CT of muscle with blocks of bone, and the mask of each."""
    hu = np.full(SMALL.shape, 50, np.int16)
    masks = []
    for block in ranges:
        mask = np.zeros(SMALL.shape, np.float32)
        mask[tuple(slice(*r) for r in block)] = 1
        hu[mask > 0] = 900
        masks.append(mask)
    return Volume(hu, SMALL), masks


THIGH, KNEECAP = ((2, 18), (6, 12), (3, 10)), ((2, 6), (1, 4), (4, 8))


@pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda p: p.name)
def test_what_a_perturbed_run_finds_comes_back_to_its_voxels_and_side(perturbation):
    ct, (bone,) = blocks(THIGH)
    shown = perturbation.show(ct)
    assert shown.voxels.dtype == np.int16 and shown.grid.shape == ct.grid.shape
    found = perturbation.bring_back(dense_is_femur(shown))
    assert set(found) == {RIGHT} and np.array_equal(found[RIGHT], bone)


def test_each_perturbation_changes_what_it_says():
    ct, (bone,) = blocks(THIGH)
    hu = Perturbation("", density=0.5, offset_hu=10).show(ct).voxels
    assert (hu[bone > 0] == 460).all() and (hu[bone == 0] == 35).all()
    assert Perturbation("", scale=1.5).show(ct).grid.spacing_mm == (3.0, 3.0, 6.0)
    noise = Perturbation("", noise_hu=20).show(ct).voxels - ct.voxels.astype(int)
    assert 18 < noise.std() < 22 and abs(noise.mean()) < 1
    mirrored = Perturbation("", mirrored=True).show(ct)
    assert np.array_equal(mirrored.voxels, ct.voxels[:, :, ::-1])
    assert PERTURBATIONS[0].show(ct).voxels is not None and any(p.mirrored for p in PERTURBATIONS)


def test_where_all_runs_agree_the_label_is_what_they_found():
    ct, (bone,) = blocks(THIGH)
    label = agree(ct, [{RIGHT: bone}] * 4)
    assert np.array_equal(label.labels, bone * LABELS[RIGHT])
    assert label.sides == {RIGHT: 1.0} and label.agreement == {RIGHT: 1.0} and label.undecided == {RIGHT: 0.0}
    assert label.ml[RIGHT] == pytest.approx(16 * 6 * 7 * 16 / 1000)
    assert label.pieces == {RIGHT: 1} and label.faces == {RIGHT: ()}
    assert AcceptanceRule(ml=(5, 700)).against(label) == ""


def test_a_bone_that_half_of_the_runs_take_along_is_undecided_and_lowers_the_agreement():
    ct, (bone, kneecap) = blocks(THIGH, KNEECAP)
    label = agree(ct, [{RIGHT: bone}, {RIGHT: bone + kneecap}] * 2)
    assert (label.labels[kneecap > 0] == 255).all() and (label.labels[bone > 0] == LABELS[RIGHT]).all()
    lump, whole = kneecap.sum(), bone.sum()
    assert label.undecided[RIGHT] == pytest.approx(lump / (lump + whole))
    assert label.agreement[RIGHT] == pytest.approx(2 * whole / (2 * whole + lump))
    assert label.pieces[RIGHT] == 1


def test_a_doubtful_probability_and_a_voxel_of_both_sides_are_undecided():
    ct, (bone,) = blocks(THIGH)
    doubtful = bone.copy()
    doubtful[2] *= 0.6
    labels = agree(ct, [{RIGHT: doubtful}]).labels
    assert (labels[2][bone[2] > 0] == 255).all() and (labels[3][bone[3] > 0] == 1).all()
    assert set(np.unique(agree(ct, [{RIGHT: bone, LEFT: bone}]).labels)) == {0, 255}


def accepted_label(**changed):
    ct, (bone,) = blocks(THIGH)
    label = agree(ct, [{RIGHT: bone}] * 4)
    for name, value in changed.items():
        getattr(label, name)[RIGHT] = value
    return label


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sides": 0.75}, "75% of the runs"),
        ({"agreement": 0.9}, "0.900"),
        ({"undecided": 0.2}, "20% of the right femur is undecided"),
        ({"ml": 3.0}, "3 ml"),
        ({"ml": 900.0}, "900 ml"),
        ({"bone": 0.5}, "no cortex in 50%"),
        ({"pieces": 2}, "2 pieces"),
    ],
)
def test_the_rule_tells_what_is_against_a_case(changed, words):
    rule = AcceptanceRule(ml=(5, 700))
    assert rule.against(accepted_label()) == ""
    assert words in rule.against(accepted_label(**changed))


def test_a_side_that_only_the_mirrored_runs_see_is_refused():
    ct, (bone,) = blocks(THIGH)
    reason = AcceptanceRule().against(agree(ct, [{RIGHT: bone}, {LEFT: bone}] * 2))
    assert "right femur was found in 50%" in reason


def test_no_femur_becomes_background_only_where_a_reader_saw_none():
    ct, (tibia,) = blocks(((0, 20), (6, 12), (3, 10)))
    label = agree(ct, [{}, {}])
    middle, ends = label.labels[3:-3], label.labels[[0, 1, -2, -1]]
    assert not middle.any() and (ends[:, 6:12, 3:10] == 255).all() and not ends[:, :3].any()
    assert "no reader" in AcceptanceRule().against(label)


def test_a_reader_who_saw_no_femur_is_believed_against_the_runs(folder):
    tmp_path, ct, labels = folder
    case = Case(tmp_path / "in" / "A_CT.nii.gz")
    [line] = make_pseudo_labels([case], tmp_path, dense_is_femur, no_femur=["A"], report=lambda line: None)
    assert line["accepted"] and line["runs"] == [[LEFT, RIGHT]] * 3
    _, marked = read_case(find_cases(tmp_path / "cases.csv")[0])
    assert not marked.voxels[labels > 0].any()


def test_bone_joined_to_the_femur_in_the_last_slices_is_undecided_where_the_runs_leave_it_out():
    femur, missed, other = ((0, 20), (4, 10), (2, 8)), ((18, 20), (4, 10), (8, 14)), ((16, 20), (4, 10), (18, 22))
    ct, (bone, part, pelvis) = blocks(femur, missed, other)
    labels = agree(ct, [{RIGHT: bone}] * 3).labels
    assert (labels[part > 0] == 255).all() and not labels[pelvis > 0].any() and not labels[15, :, 8:].any()
    assert (labels[:, 4:10, 2:5] == LABELS[RIGHT]).all() and (labels[:15][bone[:15] > 0] == LABELS[RIGHT]).all()


def test_no_runs_are_an_error():
    with pytest.raises(ValueError):
        agree(blocks(THIGH)[0], [])


@pytest.fixture
def folder(tmp_path):
    ct, labels = two_femora()
    (tmp_path / "in").mkdir()
    for name in "AB":
        write_volume(tmp_path / "in" / f"{name}_CT.nii.gz", ct)
    return tmp_path, ct, labels


def test_accepted_cases_are_listed_as_training_reads_them(folder):
    tmp_path, ct, labels = folder
    out, said = tmp_path / "out", []
    cases = find_cases(tmp_path / "in", unlabelled=True)
    told = make_pseudo_labels(cases, out, dense_is_femur, leave_out={"B": "streaks"}, report=said.append)
    assert said == ["A: accepted", "B: rejected: streaks"] and [line["accepted"] for line in told] == [True, False]
    [case] = find_cases(out / "cases.csv")
    assert (case.name, case.person) == ("A", "A") and case.ct.samefile(tmp_path / "in" / "A_CT.nii.gz")
    read, marked = read_case(case)
    assert np.array_equal(marked.voxels, labels) and np.array_equal(read.voxels, ct.voxels)
    assert (out / "B_femurs.nii.gz").is_file() and cv2.imread(str(out / "pictures" / "B.png")) is not None
    document = json.loads((out / "pseudo_labels.json").read_text())
    assert document["origins"] == ["unknown"] and document["rule"]["agreement"] == AcceptanceRule().agreement
    assert document["cases"][1]["reason"] == "streaks" and document["left_out_by_a_reader"] == {"B": "streaks"}
    assert not list(out.rglob("*partial*"))


def test_runs_are_kept_until_the_weights_change(folder):
    tmp_path, ct, labels = folder
    seen = []

    class Counting:
        identity = "first weights"

        def __call__(self, ct):
            seen.append(self.identity)
            return dense_is_femur(ct)

    segment, case = Counting(), Case(tmp_path / "in" / "A_CT.nii.gz")
    first = make_pseudo_labels([case], tmp_path / "out", segment, report=lambda line: None)
    again = make_pseudo_labels([case], tmp_path / "out", segment, report=lambda line: None)
    assert len(seen) == len(PERTURBATIONS) and first == again
    segment.identity = "second weights"
    make_pseudo_labels([case], tmp_path / "out", segment, report=lambda line: None)
    assert len(seen) == 2 * len(PERTURBATIONS)


def test_a_case_with_labels_is_compared_and_not_listed(folder):
    tmp_path, ct, labels = folder
    labels = labels.copy()
    labels[labels == LABELS[LEFT]] = 0
    write_volume(tmp_path / "in" / "A_femurs.nii.gz", Volume(labels, ct.grid))
    case = find_cases(tmp_path / "in")
    [line] = make_pseudo_labels(case, tmp_path / "out", dense_is_femur, report=lambda line: None)
    assert line["dice_to_reference"] == {RIGHT: 1.0, LEFT: 0.0}
    assert (tmp_path / "out" / "cases.csv").read_text().split() == ["ct,labels,name,person"]


def test_a_name_that_is_no_case_is_told(folder):
    tmp_path, *_ = folder
    for wrong in ({"leave_out": {"X": "y"}}, {"no_femur": ["X"]}):
        with pytest.raises(InputError, match="no case X"):
            make_pseudo_labels(find_cases(tmp_path / "in", unlabelled=True), tmp_path, dense_is_femur, **wrong)


def test_the_command_labels_lists_and_refuses(folder, monkeypatch, capfd):
    tmp_path, *_ = folder
    made = []
    monkeypatch.setattr(self_training, "Pipeline", lambda *options: made.append(options) or dense_is_femur)
    base = ["train", "pseudo-labels", "--cases", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert command.main([*base, "--device", "cpu", "--leave-out", "B=two bones in one"]) == 0
    assert "1 of 2 accepted" in capfd.readouterr().out and made == [("cpu", "segresnet", None)]
    assert command.main([*base, "--undecided", "-1", "--only", "A"]) == 0
    assert "0 of 1 accepted" in capfd.readouterr().out
    assert command.main([*base, "--only", "X"]) == 3
    with pytest.raises(SystemExit):
        command.main([*base, "--leave-out", "B"])


def test_the_pipeline_gives_the_probability_of_each_side_and_nothing_without_a_femur(monkeypatch):
    from types import SimpleNamespace

    from FemurSegLib import models, pipeline
    from FemurSegLib.errors import NoFemurError

    ct, (bone,) = blocks(THIGH)
    monkeypatch.setattr(models, "find", lambda kind, *a, **k: SimpleNamespace(sha256=kind, origins=()))
    box = tuple(THIGH)
    inside = bone[tuple(slice(*r) for r in box)] * 0.9
    found = SimpleNamespace(labels=bone.astype(np.uint8), probability={RIGHT: (box, inside)})
    monkeypatch.setattr(pipeline, "segment_femurs", lambda ct, **options: found)
    [(side, probability)] = self_training.Pipeline("cpu")(ct).items()
    assert side == RIGHT and np.allclose(probability, 0.9 * bone)

    def none(ct, **options):
        raise NoFemurError("none")

    monkeypatch.setattr(pipeline, "segment_femurs", none)
    assert self_training.Pipeline("cpu")(ct) == {}


def test_the_ellipsoids_lie_where_the_tests_think():
    assert CENTERS_LPS[RIGHT][0] < 0 < CENTERS_LPS[LEFT][0]


def test_the_border_to_another_bone_is_left_open_and_the_shaft_beside_it_is_not():
    ct, (bone, pelvis) = blocks(((2, 18), (4, 12), (2, 9)), ((12, 18), (4, 12), (10, 20)))
    labels = agree(ct, [{RIGHT: bone}] * 3).labels
    assert (labels[13:16, 4:12, 6:13] == 255).all()  # within 8 mm of both bones
    assert (labels[13:16, 4:12, 2:6] == LABELS[RIGHT]).all() and not labels[13:16, 4:12, 13:].any()
    assert (labels[4:8][bone[4:8] > 0] == LABELS[RIGHT]).all() and not labels[4:8, :, 9:].any()


def test_holes_crumbs_and_small_pieces_are_undecided():
    ct, (bone, crumb) = blocks(((0, 20), (4, 12), (2, 10)), ((4, 8), (4, 12), (10, 13)))
    found = bone.copy()
    found[10, 7, 5] = 0  # a hole
    found[14, 0:2, 20:22] = 1  # a piece apart
    labels = agree(ct, [{RIGHT: found}] * 3).labels
    assert labels[10, 7, 5] == 255 and (labels[14, 0:2, 20:22] == 255).all()
    assert (labels[4:8, 4:12, 10:13] == 255).all() and (labels[10:14, 4:12, 2:5] == LABELS[RIGHT]).all()
