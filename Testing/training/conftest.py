"""What tests of trainings share."""

from __future__ import annotations

import numpy as np
import pytest
from examples import two_femora
from toy_person import keep

from FemurSegLib.training.cases import Case
from FemurSegLib.volume import Volume, write_volume


@pytest.fixture(scope="session")
def case(tmp_path_factory) -> Case:
    """A CT of two bright ellipsoids in air, with some voxels undecided."""
    folder = tmp_path_factory.mktemp("case")
    ct, labels = two_femora()
    labels[tuple(np.argwhere(labels == 2)[::2].T)] = 255
    write_volume(folder / "a_CT.nii.gz", ct)
    write_volume(folder / "a_femurs.nii.gz", Volume(labels, ct.grid))
    return Case(folder / "a_CT.nii.gz", folder / "a_femurs.nii.gz")


@pytest.fixture
def people(tmp_path):
    """Toy people, as settings of a training; one of them lends the feet."""
    cache = tmp_path / "cache"
    cache.mkdir()
    keep(cache, "z013")
    return {"shapes": tmp_path, "people": (keep(cache),), "cache": cache}
