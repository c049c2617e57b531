from __future__ import annotations

import json

import numpy as np
import pytest
from examples import two_femora

from FemurSegLib.errors import InputError
from FemurSegLib.training.cases import Case, find_cases, read_case, split
from FemurSegLib.volume import Volume, write_volume


def write_pair(folder, name, ct, labels, ends=("nii.gz", "nii.gz")):
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{name}_CT.{ends[0]}", folder / f"{name}_femurs.{ends[1]}"
    write_volume(paths[0], ct)
    write_volume(paths[1], labels)
    return paths


@pytest.fixture(scope="module")
def pair():
    ct, labels = two_femora()
    return ct, Volume(labels, ct.grid)


def test_pairs_are_found_at_any_depth_and_in_any_format(pair, tmp_path):
    ct, labels = pair
    write_pair(tmp_path / "one", "B", ct, labels)
    write_pair(tmp_path / "one" / "two", "A", ct, labels, ("mha", "nrrd"))
    write_volume(tmp_path / "one" / "C_CT.nii.gz", ct)
    hips = tmp_path / "hips"
    hips.mkdir()
    write_volume(hips / "ct.nii.gz", ct)
    write_volume(hips / "femurs.nii.gz", labels)
    assert sorted(c.name for c in find_cases(tmp_path)) == ["A", "B", "hips"]
    assert sorted(c.name for c in find_cases(tmp_path, unlabelled=True)) == ["A", "B", "C", "hips"]
    [alone] = find_cases(tmp_path / "one" / "B_CT.nii.gz")
    assert alone.labels == tmp_path / "one" / "B_femurs.nii.gz" and alone.person == "B"
    got, marked = read_case(alone)
    assert np.array_equal(got.voxels, ct.voxels) and np.array_equal(marked.voxels, labels.voxels)


def test_a_list_gives_names_and_people(pair, tmp_path):
    ct, labels = pair
    write_pair(tmp_path, "A", ct, labels)
    (tmp_path / "list.csv").write_text(
        "ct,labels,name,person\nA_CT.nii.gz,A_femurs.nii.gz,before,Mary\nA_CT.nii.gz,A_femurs.nii.gz,after,Mary\n"
    )
    cases = find_cases(tmp_path / "list.csv")
    assert [(c.name, c.person) for c in cases] == [("before", "Mary"), ("after", "Mary")]
    (tmp_path / "list.json").write_text(json.dumps([{"ct": "A_CT.nii.gz", "labels": "A_femurs.nii.gz"}]))
    assert find_cases(tmp_path / "list.json")[0].name == "A"
    with pytest.raises(InputError, match="several cases called A"):
        find_cases(tmp_path / "list.json", tmp_path)
    for wrong in ("name\nx\n", "[1, 2"):
        (tmp_path / "wrong.csv").write_text(wrong)
        with pytest.raises(InputError):
            find_cases(tmp_path / "wrong.csv")


def test_a_list_in_a_folder_says_more_about_what_lies_in_it(pair, tmp_path):
    for name in "AB":
        write_pair(tmp_path / "in", name, *pair)
    (tmp_path / "in" / "cases.csv").write_text("ct,labels,name,person\nA_CT.nii.gz,A_femurs.nii.gz,first,Mary\n")
    cases = find_cases(tmp_path)
    assert [(c.name, c.person) for c in cases] == [("first", "Mary"), ("B", "B")]


def test_all_cases_of_a_person_are_held_out_together():
    cases = [Case("a", "b", "one", "Mary"), Case("a", "b", "two", "Mary"), Case("a", "b", "three", "John")]
    train, held = split(cases, {"two"})
    assert [c.name for c in train] == ["three"] and [c.name for c in held] == ["one", "two"]
    assert split(cases, {"John"})[1] == cases[2:]
    with pytest.raises(InputError, match="Peter"):
        split(cases, {"Peter"})


def test_faulty_cases_are_refused(pair, tmp_path):
    ct, labels = pair
    paths = write_pair(tmp_path, "A", ct, Volume(np.where(labels.voxels == 1, 7, 0).astype(np.uint8), ct.grid))
    with pytest.raises(InputError, match="label 7"):
        read_case(Case(*paths))
    lower = (1, 0, 0)
    paths = write_pair(tmp_path, "B", ct, labels.crop(lower, labels.grid.shape))
    with pytest.raises(InputError, match="same grid"):
        read_case(Case(*paths))
    with pytest.raises(InputError):
        find_cases(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no labelled cases"):
        find_cases(tmp_path / "empty")


def test_the_labelled_cts_of_the_project_are_whole(shared_data):
    cases = find_cases(shared_data / "ct")
    assert len(cases) == 12
    for case in cases[:3]:
        _, labels = read_case(case)
        assert (labels.voxels == 255).any()
