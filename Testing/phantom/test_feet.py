"""Feet for phantoms in which no bone may be of people under a non-commercial licence."""

from __future__ import annotations

import numpy as np
import pytest
from toy_person import toy_person

from FemurSegLib.errors import InputError
from FemurSegLib.phantom.anatomy import sample_anatomy
from FemurSegLib.phantom.shapes import FEET, OPEN_FEET, feet_for, load_person


def test_only_the_shape_model_alone_gets_the_free_feet():
    assert feet_for(["llp26-0", "llp26-3"]) == OPEN_FEET
    assert feet_for(["llp26-0", "z009"]) == feet_for([]) == feet_for(["toy"]) == FEET


def test_the_free_feet_point_forwards_and_lie_below_the_ankles(shared_data):
    feet = load_person(shared_data / "shapes", OPEN_FEET)
    for frame in feet.frames.values():
        assert np.allclose(frame.axes @ frame.axes.T, np.eye(3)) and np.linalg.det(frame.axes) > 0
        assert 350 < frame.length_mm < 450
    anatomy = sample_anatomy([toy_person()], feet, seed=3)
    for side, leg in anatomy.legs.items():
        low, high = anatomy.bones[f"{side}_foot"].bounds_mm()
        assert (low < leg.ankle_mm).all() and (leg.ankle_mm < high).all()
        along = leg.toe_mm - leg.ankle_mm
        assert 80 < np.linalg.norm(along) < 260 and along[1] < 0  # towards the front


def test_shapes_without_the_free_feet_are_told(tmp_path):
    with pytest.raises(InputError, match="lends feet"):
        load_person(tmp_path, OPEN_FEET)
