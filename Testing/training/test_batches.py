from __future__ import annotations

import itertools

import pytest
import torch

from FemurSegLib.training.batches import Mixture, load_batches, load_in_threads


class Numbered:
    """Patches that hold their number."""

    def __init__(self, sign: int = 1):
        self.sign = sign

    def __getitem__(self, number):
        return torch.full((2, 2, 2), float(self.sign * number)), torch.full((2, 2, 2), 1, dtype=torch.uint8)


def values(mixture) -> list[float]:
    return [float(mixture[n][0].mean()) for n in range(len(mixture))]


def test_a_mixture_takes_each_source_in_turn_and_a_longer_one_begins_as_a_shorter_one():
    mixture = Mixture(Numbered(), Numbered(-1), 0.4, 400, seed=1)
    got = values(mixture)
    phantoms, real = [v for v in got[1:] if v > 0], [v for v in got[1:] if v < 0]
    assert phantoms[-20:] == list(range(int(phantoms[-20]), int(phantoms[-1]) + 1))
    assert 0.33 < len(real) / len(got) < 0.47
    assert values(Mixture(Numbered(), Numbered(-1), 0.4, 150, seed=1)) == got[:150]
    assert values(Mixture(Numbered(), Numbered(-1), 0.4, 400, seed=2)) != got
    assert values(Mixture(Numbered(), None, 0.4, 5, seed=1)) == [0, 1, 2, 3, 4]
    assert values(Mixture(None, Numbered(-1), 0.4, 5, seed=1)) == [0, -1, -2, -3, -4]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_whoever_prepares_them(workers):
    mixture = Mixture(Numbered(), None, 0, 12, seed=0)
    numbers = [[4, 5], [6, 7], [0, 1], [2, 3]]
    got = list(load_batches(mixture, numbers, workers, "cpu"))
    assert [image[:, 0, 0, 0, 0].tolist() for image, _ in got] == numbers
    assert all(image.dtype == torch.float32 and label.dtype == torch.uint8 for image, label in got)


def test_threads_prepare_batches_in_order_a_few_ahead():
    asked = []

    class Watched(Numbered):
        def __getitem__(self, number):
            asked.append(number)
            return super().__getitem__(number)

    mixture = Mixture(Watched(), None, 0, 100, seed=0)
    batches = load_in_threads(mixture, ([n] for n in range(100)), 3, "cpu")
    assert [float(image.mean()) for image, _ in itertools.islice(batches, 5)] == [0, 1, 2, 3, 4]
    batches.close()
    assert 5 <= len(asked) <= 8


def test_an_error_in_a_thread_is_told():
    class Broken:
        def __getitem__(self, number):
            raise OSError("no shapes")

    with pytest.raises(OSError, match="no shapes"):
        list(load_in_threads(Mixture(Broken(), None, 0, 4, seed=0), [[0], [1]], 2, "cpu"))
