from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from FemurSegLib.training.distributed import Group
from FemurSegLib.training.patches import IGNORE
from FemurSegLib.training.validation import Progress, Validation


class Halves(torch.nn.Module):
    """Finds what is bright."""

    def forward(self, image):
        return torch.cat([torch.zeros_like(image), image - 0.5], 1)


class Source:
    """Patches of 8 voxels whose first four are bright; the femur is the first `femur` voxels."""

    def __init__(self, *femur: int, ignored: int = 0):
        self.femur, self.ignored, self.asked = femur, ignored, []

    def __getitem__(self, number):
        self.asked.append(number)
        label = torch.zeros(8, dtype=torch.uint8)
        label[: self.femur[number]] = 1
        label[8 - self.ignored :] = IGNORE
        return (torch.arange(8) < 4).float().reshape(2, 2, 2), label.reshape(2, 2, 2)


def dice(validation):
    return validation.dice(Halves(), torch.device("cpu"), nullcontext)


def test_dice_is_that_of_all_voxels_of_a_kind_and_its_mean_that_of_the_kinds():
    validation = Validation(Source(4, 2), Source(4, 4), 2, Group())
    assert dice(validation) == {
        "phantoms": pytest.approx(2 * 6 / (8 + 6)),
        "real": 1.0,
        "mean": pytest.approx((12 / 14 + 1) / 2),
    }
    assert dice(Validation(Source(6, ignored=4), None, 1, Group())) == {"phantoms": 1.0, "mean": 1.0}
    assert not Validation(None, None, 2, Group())


def test_each_process_holds_a_part_of_the_patches():
    sources = [Source(4, 4, 4, 4, 4) for _ in range(2)]
    for rank, source in enumerate(sources):
        Validation(source, None, 5, Group(rank, 2))
    assert [source.asked for source in sources] == [[0, 2, 4], [1, 3]]


def test_progress_counts_validations_since_the_best():
    progress = Progress()
    assert [progress.is_better(dice, step) for step, dice in enumerate((0.5, 0.6, 0.6, 0.1, 0.7))] == [
        True, True, False, False, True,
    ]  # fmt: skip
    assert (progress.best, progress.step, progress.since) == (0.7, 4, 0)
    progress.is_better(0.7, 5)
    assert progress.since == 1
