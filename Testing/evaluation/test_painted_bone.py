"""Colours of a painted bone."""

from __future__ import annotations

import numpy as np
import pytest
from examples import CENTERS_LPS, RADII_MM, ellipsoid, oblique_grid
from PIL import Image

from FemurSegLib.evaluation.painted_bone import nice_limit_mm, painted_distance
from FemurSegLib.sides import RIGHT
from FemurSegLib.surface import points_of, surface_of


@pytest.fixture(scope="module")
def bone():
    grid = oblique_grid()
    return surface_of(ellipsoid(grid, CENTERS_LPS[RIGHT], RADII_MM).view(np.uint8), grid, 1, edge_length_mm=3.0)


def columns(path, red) -> np.ndarray:
    """The columns of the picture, without its legend, that show much red (or blue)."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)[:, : int(0.75 * Image.open(path).width)]
    first, other = (0, 2) if red else (2, 0)
    return np.flatnonzero(((pixels[..., first] - pixels[..., other]) > 60).sum(axis=0) > 20)


def test_red_lies_outside_blue_inside_and_each_on_the_side_where_it_belongs(tmp_path, bone):
    left_of_bone = points_of(bone)[:, 0] - CENTERS_LPS[RIGHT][0]  # positive towards the patient's left
    path = painted_distance(bone, np.sign(left_of_bone), tmp_path / "painted.png", "A bone")
    red, blue = columns(path, True), columns(path, False)
    assert len(red) and len(blue)
    # Four views in a row. From the front red (the patient's left) is right of blue, from the back left of it; then
    # from the right blue, and from the left red.
    order = "".join("r" if at in set(red) else "b" for at in sorted({*red, *blue}))
    assert "".join(a for a, b in zip(order, order[1:] + "x", strict=True) if a != b) == "brbr"


def test_nothing_known_is_grey_and_the_number_of_values_must_fit(tmp_path, bone):
    unknown = np.full(bone.GetNumberOfPoints(), np.nan)
    path = painted_distance(bone, unknown, tmp_path / "grey.png", "")
    assert not len(columns(path, True)) and not len(columns(path, False))
    with pytest.raises(ValueError, match="values for"):
        painted_distance(bone, np.zeros(3), tmp_path / "none.png", "")
    assert not (tmp_path / "none.png").exists()


def test_the_scale_ends_at_a_round_number_that_holds_nearly_all():
    assert nice_limit_mm(np.r_[np.full(97, 0.8), np.full(3, 30.0)]) == 1.0
    assert nice_limit_mm(np.array([np.nan, -1.7])) == 2.0
    assert nice_limit_mm(np.array([np.nan])) == 0.25
