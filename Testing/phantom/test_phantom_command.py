from __future__ import annotations

import argparse

import numpy as np
import pytest
from toy_person import toy_person

from FemurSegLib import command
from FemurSegLib.phantom.case import FIELDS_OF_VIEW
from FemurSegLib.phantom.command import FIELDS, names
from FemurSegLib.training.cases import find_cases, read_case


@pytest.fixture(scope="module")
def person():
    return toy_person()


@pytest.fixture
def toys(monkeypatch, person):
    """Every name stands for the toy person."""
    monkeypatch.setattr("FemurSegLib.phantom.shapes.load_person", lambda shapes, name, cache=None: person)


def test_the_fields_of_view_offered_are_those_there_are():
    assert FIELDS == FIELDS_OF_VIEW


def test_names_may_be_a_range():
    assert names("z013, llp26-3:6") == ["z013", "llp26-3", "llp26-4", "llp26-5"]
    with pytest.raises(argparse.ArgumentTypeError):
        names("a:b")


def test_phantoms_are_written_as_cases_and_again_the_same(toys, tmp_path, capfd):
    arguments = "--shapes none --people a,b --count 2 --field-of-view hips knees --spacing 6 6 6 --matrix 48"
    arguments = [*arguments.split(), "--slices", "30", "--device", "cpu"]
    for run in ("one", "two"):
        assert command.main(["phantom", "--out", str(tmp_path / run), *arguments]) == 0
    cases = [find_cases(tmp_path / run) for run in ("one", "two")]
    assert [c.name for c in cases[0]] == ["a_hips_0000", "b_knees_0001"]
    assert "48 x 48 x 30" in capfd.readouterr().out
    for one, two in zip(*cases, strict=True):
        (ct, labels), (again, _) = read_case(one), read_case(two)
        assert ct.grid.shape == (30, 48, 48) and labels.voxels.any()
        assert np.array_equal(ct.voxels, again.voxels)
    assert not [p for p in (tmp_path / "one").iterdir() if "partial" in p.name]


def test_a_folder_without_shapes_is_an_input_error(tmp_path):
    assert command.main(["phantom", "--shapes", str(tmp_path), "--out", str(tmp_path / "out")]) == 3


def test_a_spacing_that_no_ct_has_is_a_usage_error(tmp_path):
    with pytest.raises(SystemExit) as error:
        command.main(["phantom", "--shapes", "x", "--out", str(tmp_path), "--spacing", "0", "1", "1"])
    assert error.value.code == 2
