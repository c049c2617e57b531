"""Windows that move along the slices, as Zhao and Deng count them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from FemurSegLib.segmentation.network import RECIPES  # noqa: E402
from FemurSegLib.segmentation.slices import slice_probability  # noqa: E402


class Spy(torch.nn.Module):
    """Its logit is the place of a slice in the window."""

    recipe = RECIPES["vnet"]

    def __init__(self):
        super().__init__()
        self.windows = []

    def forward(self, image):
        self.windows.append(tuple(image.shape[2:]))
        place = torch.arange(image.shape[2], dtype=torch.float32)[None, None, :, None, None]
        logit = place.expand_as(image)
        return torch.cat([torch.zeros_like(logit), logit], 1)


def test_fifty_slices_take_nineteen_windows_of_32():
    network = Spy()
    probability = slice_probability(network, torch.zeros(50, 20, 32), slices=32)
    assert network.windows == [(32, 32, 32)] * 19  # Zhao, section 2.4: 50 - 32 + 1
    assert probability.shape == (50, 20, 32) and probability.dtype == np.float32


def test_a_voxel_gets_the_mean_of_all_windows_that_see_it():
    probability = slice_probability(Spy(), torch.zeros(4, 16, 16), slices=3)
    seen = 1 / (1 + np.exp(-np.arange(3.0)))  # windows of the slices 0 to 2 and 1 to 3
    wanted = [seen[0], (seen[1] + seen[0]) / 2, (seen[2] + seen[1]) / 2, seen[2]]
    assert probability[:, 5, 5] == pytest.approx(wanted, abs=5e-3)  # bfloat16 on some machines


@pytest.mark.parametrize("step, windows", [(1, 11), (4, 4), (16, 2), (99, 2)])
def test_larger_steps_take_fewer_windows_and_miss_nothing(step, windows):
    network = Spy()
    probability = slice_probability(network, torch.zeros(26, 16, 16), slices=16, step=step)
    assert len(network.windows) == windows and (probability >= 0.5).all()


def test_fewer_slices_than_a_window_are_filled_up():
    network = Spy()
    assert slice_probability(network, torch.zeros(9, 16, 16), slices=32).shape == (9, 16, 16)
    assert network.windows == [(32, 16, 16)]
