from __future__ import annotations

import json

import numpy as np
import pytest

from FemurSegLib.anatomy.density import Calibration, calibrate, read_calibration, rods_in
from FemurSegLib.errors import InputError


def test_rods_on_a_line_give_that_line():
    rods = [(density, (density - 4.0) / 0.8) for density in (0.0, 75.0, 150.0)]
    found = calibrate(rods)
    assert found.slope == pytest.approx(0.8) and found.intercept == pytest.approx(4.0)
    assert found.r2 == pytest.approx(1.0)
    assert found.density(120.0) == pytest.approx(100.0)
    assert found.rods == tuple(rods)


def test_noisy_rods_give_the_least_squares_and_say_how_well_they_fit():
    """Against the normal equations, and R2 as the squared correlation."""
    density, hu = np.array([0.0, 50, 100, 200]), np.array([3.0, 70, 118, 251])
    found = calibrate(zip(density, hu, strict=True))
    a = np.c_[hu, np.ones(4)]
    assert np.allclose([found.slope, found.intercept], np.linalg.solve(a.T @ a, a.T @ density))
    assert found.r2 == pytest.approx(np.corrcoef(hu, density)[0, 1] ** 2) and found.r2 < 1


@pytest.mark.parametrize(
    "rods", [[], [(0, 1)], [(0, 1), (0, 2)], [(0, 1), (5, 1)], [(0, 1), (5, float("nan"))], [(0, 9), (5, 1)]]
)
def test_rods_that_give_no_line_are_refused(rods):
    with pytest.raises(InputError):
        calibrate(rods)


def test_a_relation_or_rods_are_read_as_the_user_gives_them(tmp_path):
    assert read_calibration("0.9,-12") == Calibration(0.9, -12.0)
    rods = [(0.0, 5.0), (100.0, 130.0), (200.0, 255.0)]
    table, listed, stored = tmp_path / "rods.csv", tmp_path / "rods.json", tmp_path / "line.json"
    table.write_text("density_mg_cm3,hu\n" + "\n".join(f"{d},{h}" for d, h in rods))
    listed.write_text(json.dumps([{"density_mg_cm3": d, "hu": h} for d, h in rods]))
    stored.write_text(json.dumps(calibrate(rods).as_dict()))
    assert read_calibration(table) == read_calibration(str(listed)) == calibrate(rods)
    assert read_calibration(stored).slope == pytest.approx(0.8)


@pytest.mark.parametrize("text", ["", "1", "a,b", "1,2,3", "-1,0", "nan,0", "1,inf", "none.csv"])
def test_other_texts_are_refused_with_a_hint(text):
    with pytest.raises(InputError) as told:
        read_calibration(text)
    assert told.value.hint


def test_a_damaged_file_is_refused(tmp_path):
    for name, content in (("a.json", "{"), ("b.json", "[1]"), ("c.csv", "x,y\n1,2"), ("d.json", "{}")):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError):
            read_calibration(tmp_path / name)


def test_rods_outlined_in_a_scan_give_their_means():
    ct, rods = np.full((4, 6, 6), -1000, np.int16), np.zeros((4, 6, 6), np.uint8)
    for value, hu in ((3, 10), (5, 120)):
        rods[:, value, 1:4] = value
        ct[:, value, 1:4] = hu + np.arange(-1, 2)
    pairs = rods_in(ct, rods, {3: 0.0, 5: 100.0})
    assert pairs == [(0.0, 10.0), (100.0, 120.0)]
    assert calibrate(pairs).slope == pytest.approx(100 / 110)
    with pytest.raises(InputError):
        rods_in(ct, rods, {4: 50.0})
    with pytest.raises(InputError):
        rods_in(ct[1:], rods, {3: 0.0})
