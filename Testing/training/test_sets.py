"""Which data belong to which set, and the licence that follows."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from examples import two_femora

from FemurSegLib import command, models
from FemurSegLib.errors import InputError
from FemurSegLib.phantom.command import HELD_OUT, PHANTOM_NAME
from FemurSegLib.training import sets
from FemurSegLib.training.cases import Case, find_cases, folds
from FemurSegLib.training.sets import check, origins_of_case, origins_of_people, origins_of_weights, terms
from FemurSegLib.volume import Volume, write_volume


def test_every_person_and_case_of_the_project_has_an_origin(shared_data):
    from FemurSegLib.phantom.shapes import people_in

    people = people_in(shared_data / "shapes")
    assert len(people) == 16 and origins_of_people(people) == {"vsd"}
    for case in find_cases(shared_data / "ct", unlabelled=True):
        if case.ct.is_file():
            assert origins_of_case(case) < {"sts", "cmb_crc", "totalsegmentator"}, case


def test_the_shape_model_alone_is_open_and_one_real_bone_beside_it_is_not():
    assert origins_of_people(["llp26-0", "llp26-7"]) == {"llp26", "visible_human"}
    assert origins_of_people(["llp26-0", "z009"]) == {"llp26", "vsd"}
    assert origins_of_people([]) == frozenset()
    assert origins_of_people(["Mary"]) == {"unknown", "vsd"}  # whose feet are z013's


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("STS_001", {"sts"}),
        ("cmb_crc_hips", {"cmb_crc"}),
        ("z019_lower_leg_0007", {"vsd"}),
        ("llp26-3_legs_0007", {"llp26", "vsd"}),
        ("llp26-3_legs_0007_open", {"llp26", "visible_human"}),
        ("Mary", {"unknown"}),
    ],
)
def test_a_case_is_known_by_its_name(name, expected):
    assert origins_of_case(Case(f"{name}_CT.nii.gz", f"{name}_femurs.nii.gz")) == expected


def test_a_renamed_case_is_known_by_its_folder(tmp_path):
    assert origins_of_case(Case(tmp_path / "sts_thighs" / "labelled" / "x.nii.gz", name="011")) == {"sts"}


def test_labels_that_weights_made_are_only_as_free_as_those_weights(tmp_path):
    case = Case("STS_001_CT.nii.gz", tmp_path / "STS_001_femurs.nii.gz")
    assert origins_of_case(case) == {"sts"} and not sets.is_pseudo(case)
    (tmp_path / "pseudo_labels.json").write_text(json.dumps({"origins": ["llp26", "vsd"]}))
    assert sets.is_pseudo(case) and origins_of_case(case) == {"sts", "llp26", "vsd"}
    (tmp_path / "pseudo_labels.json").write_text("{}")
    assert origins_of_case(case) == {"sts", "unknown"}


def test_the_open_set_refuses_what_is_not_free_and_research_takes_all():
    check("open", {"llp26", "sts", "visible_human", "pelvic_ref"})
    check("research", sets.ORIGINS)
    check(None, sets.ORIGINS)
    for key in ("vsd", "unknown"):
        with pytest.raises(InputError, match="open set allows no"):
            check("open", {"llp26", key})
    with pytest.raises(InputError, match="no set 'closed'"):
        check("closed", set())


@pytest.mark.parametrize(
    ("origins", "name", "licence"),
    [
        ({"llp26", "sts", "visible_human"}, "open", "MPL-2.0"),
        ({"sts"}, "open", "Apache-2.0"),
        ({"llp26", "vsd", "sts"}, "research", "CC-BY-NC-SA-4.0"),
        ({"llp26", "ultralytics"}, "open", "MPL-2.0 AND AGPL-3.0-only"),
        ({"vsd", "unknown"}, "research", "LicenseRef-unknown"),
    ],
)
def test_the_licence_follows_from_the_data(origins, name, licence):
    told = terms(origins)
    assert (told["set"], told["licence"], told["origins"]) == (name, licence, sorted(origins))
    assert len(sets.citations(origins)) == len(origins)


def test_weights_remember_what_they_learned_from(tmp_path):
    import torch

    run = tmp_path / "run"
    run.mkdir()
    (run / "material.json").write_text(json.dumps({"origins": ["llp26"]}))
    assert origins_of_weights(run / "weights.safetensors") == {"llp26"}
    path = models.export_weights(
        {"a": torch.zeros(1)}, "x", kind="segmenter", network="segresnet", folder=tmp_path, terms=terms({"vsd"})
    )
    assert origins_of_weights(path) == {"vsd"}
    entry = models.find("segmenter", folder=tmp_path)
    assert (entry.licence, entry.origins) == ("CC-BY-NC-SA-4.0", ("vsd",))
    assert origins_of_weights(None) == frozenset() and origins_of_weights("yolov8n.pt") == {"ultralytics"}
    assert origins_of_weights(tmp_path / "stray.safetensors") == {"unknown"}


def cases_of(**people):
    return [Case("a", "b", name, person) for name, person in people.items()]


def test_nobody_is_in_two_folds_and_everybody_is_held_out_once():
    cases = cases_of(a="Mary", b="John", c="Mary", d="Ann", e="Eve", f="Bob", g="John", h="Ben")
    parts = folds(cases, 3)
    people = [{case.person for case in part} for part in parts]
    assert sum(len(one) for one in people) == len(set.union(*people)) == 6 and all(len(one) == 2 for one in people)
    assert sorted(case.name for part in parts for case in part) == list("abcdefgh")
    assert folds(reversed(cases), 3) == parts and folds(cases, 6) != parts
    for wrong in (1, 7):
        with pytest.raises(InputError, match="6 people cannot be divided"):
            folds(cases, wrong)


def test_a_phantom_belongs_to_the_person_whose_bones_it_has():
    one, two = Case("z019_thigh_0007_CT.nii.gz"), Case("z019_legs_9000_CT.nii.gz")
    assert one.person == two.person == "z019" and Case("z019x_CT.nii.gz").person == "z019x"


@pytest.fixture
def trained(monkeypatch):
    """The settings of each segmenter training that a command asks for."""
    from FemurSegLib.training import segmenter

    given = []

    def train(settings, report):
        given.append(settings)
        settings.out.mkdir(parents=True, exist_ok=True)
        (settings.out / "settings.json").write_text("{}")
        return settings.out / "weights.safetensors"

    monkeypatch.setattr(segmenter, "train_segmenter", train)
    monkeypatch.setattr("FemurSegLib.phantom.shapes.people_in", lambda shapes: ["z009", "z019", "z023"])
    return given


BASE = ["train", "segmenter", "--shapes", "none", "--device", "cpu", "--out"]


def test_the_open_set_takes_the_shape_model_and_research_all(trained, tmp_path):
    assert command.main([*BASE, str(tmp_path / "open"), "--set", "open"]) == 0
    assert trained[-1].people == sets.OPEN_PEOPLE and trained[-1].held_people == sets.OPEN_HELD_OUT
    assert command.main([*BASE, str(tmp_path / "all"), "--set", "research"]) == 0
    assert trained[-1].people == ("z009", "z023", *sets.OPEN_PEOPLE)
    assert trained[-1].held_people == ("z019",) and set(HELD_OUT).isdisjoint(trained[-1].people)
    for name, licence in (("open", "MPL-2.0"), ("all", "CC-BY-NC-SA-4.0")):
        for file in ("material.json", "settings.json"):
            assert json.loads((tmp_path / name / file).read_text())["licence"] == licence


def test_a_mix_that_contradicts_the_set_is_refused(trained, tmp_path):
    out = str(tmp_path / "run")
    assert command.main([*BASE, out, "--set", "open", "--people", "llp26-0,z009"]) == 3
    (tmp_path / "stray.safetensors").write_bytes(b"")
    assert command.main([*BASE, out, "--set", "open", "--start", str(tmp_path / "stray.safetensors")]) == 3
    assert not trained and not (tmp_path / "run").exists()
    assert command.main([*BASE, out, "--people", "z009"]) == 0
    assert command.main([*BASE, out, "--set", "open"]) == 3  # the weights in that folder know z009
    assert len(trained) == 1


@pytest.fixture
def five(tmp_path):
    """A folder of five cases."""
    ct, labels = two_femora()
    (tmp_path / "cases").mkdir()
    for name in "ABCDE":
        write_volume(tmp_path / "cases" / f"{name}_CT.nii.gz", ct)
        write_volume(tmp_path / "cases" / f"{name}_femurs.nii.gz", Volume(labels, ct.grid))
    return tmp_path / "cases"


def test_each_fold_holds_other_people_out(trained, five, tmp_path, capfd):
    base = ["train", "segmenter", "--device", "cpu", "--cases", str(five), "--folds", "2"]
    held = []
    for fold in "12":
        out = tmp_path / fold
        assert command.main([*base, "--fold", fold, "--out", str(out)]) == 0
        held.append({case.name for case in trained[-1].held_cases})
        assert {case.name for case in trained[-1].cases} | held[-1] == set("ABCDE")
        assert f"fold {fold} of 2" in capfd.readouterr().out
        told = json.loads((out / "settings.json").read_text())["folds"]
        assert sorted(told["people"][int(fold) - 1]) == sorted(held[-1]) and told["fold"] == int(fold)
    assert held[0] | held[1] == set("ABCDE") and not held[0] & held[1]
    assert command.main([*base, "--fold", "3", "--out", str(tmp_path / "3")]) == 3
    assert command.main([*base, "--out", str(tmp_path / "3")]) == 3
    assert command.main([*base[:-2], "--fold", "1", "--out", str(tmp_path / "3")]) == 3


def test_made_labels_are_learned_from_in_every_fold_and_never_held_out(trained, five, tmp_path):
    (tmp_path / "made").mkdir()
    for path in five.glob("E_*"):
        path.rename(tmp_path / "made" / path.name)
    (tmp_path / "made" / "pseudo_labels.json").write_text("{}")
    base = ["train", "segmenter", "--device", "cpu", "--cases", str(five), str(tmp_path / "made"), "--folds", "2"]
    for fold in "12":
        assert command.main([*base, "--fold", fold, "--out", str(tmp_path / fold)]) == 0
        assert "E" in {case.name for case in trained[-1].cases}


def test_open_phantoms_say_so_in_their_name_and_keep_z013_away(monkeypatch, tmp_path):
    asked, (ct, labels) = [], two_femora()
    painted = SimpleNamespace(ct=ct, labels=Volume(labels, ct.grid))
    monkeypatch.setattr("FemurSegLib.phantom.case.sample_phantom", lambda *how: painted)
    monkeypatch.setattr("FemurSegLib.phantom.shapes.load_person", lambda shapes, name, cache: asked.append(name))
    options = "--shapes none --set open --field-of-view knees --device cpu --out".split()
    assert command.main(["phantom", *options, str(tmp_path), "--people", "llp26-5"]) == 0
    assert set(asked) == {"llp26-5", "vhf"}
    [case] = find_cases(tmp_path)
    assert PHANTOM_NAME.fullmatch(case.name)["open"] and origins_of_case(case) == {"llp26", "visible_human"}
    assert command.main(["phantom", *options, str(tmp_path), "--people", "z009"]) == 3
    assert command.main(["phantom", "--shapes", "none", "--out", str(tmp_path), "--people", "llp26-5,z009"]) == 0
    assert {case.name for case in find_cases(tmp_path)} == {case.name, "llp26-5_legs_0000"}


def test_the_shipped_weights_say_the_licence_that_follows_from_their_data():
    told = [model for model in models.table().values() if model.origins]
    assert {model.kind for model in told} >= {"detector_coronal", "detector_axial", "segmenter"}
    for model in told:
        follows = terms(model.origins)
        assert (model.licence, model.data_set) == (follows["licence"], follows["set"]), model.name
