import numpy as np
import pytest

from FemurSegLib.segmentation.threshold import centred, otsu


def two_humps(low, high, share=0.3, shape=(20, 20, 20)):
    rng = np.random.default_rng(0)
    inside = rng.random(shape) < share
    return inside, np.clip(np.where(inside, high, low) + rng.normal(0, 0.02, shape), 0, 1).astype(np.float32)


@pytest.mark.parametrize("low, high", [(0.05, 0.95), (0.05, 0.55), (0.6, 0.9)])
def test_the_threshold_lies_between_the_humps(low, high):
    inside, probability = two_humps(low, high)
    threshold = otsu(probability)
    assert low + 0.04 < threshold < high - 0.04
    assert np.array_equal(centred(probability, threshold) > 0.5, inside)


def test_the_threshold_parts_best():
    _, probability = two_humps(0.2, 0.7)

    def between(t):
        a = probability > t
        return a.mean() * (1 - a.mean()) * (probability[a].mean() - probability[~a].mean()) ** 2

    every = np.linspace(0.01, 0.99, 99)
    best = max(between(t) for t in every if 0 < (probability > t).mean() < 1)
    assert between(otsu(probability)) == pytest.approx(best, rel=1e-3)


def test_a_map_without_femur_is_not_parted():
    _, noise = two_humps(0.02, 0.3)
    assert otsu(noise) == 0.5


def test_bending_keeps_both_ends_and_the_order():
    values = np.linspace(0, 1, 11, dtype=np.float32)
    bent = centred(values, 0.2)
    assert bent.dtype == np.float32 and bent[[0, 2, -1]] == pytest.approx([0, 0.5, 1])
    assert (np.diff(bent) > 0).all()
    assert centred(values, 0.5) == pytest.approx(values)
