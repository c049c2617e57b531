from __future__ import annotations

import math

import pytest
import torch

from FemurSegLib.errors import InputError
from FemurSegLib.training.losses import L2_WEIGHT, LOSSES, segmentation_loss, squared_weights


def cube(probability_inside: float = 1 - 1e-9, probability_outside: float = 1e-9):
    """Logits and label of a cube of femur in a box."""
    label = torch.zeros((1, 16, 16, 16), dtype=torch.uint8)
    label[:, 4:12, 4:12, 4:12] = 1
    odds = [math.log(p / (1 - p)) for p in (probability_inside, probability_outside)]
    difference = torch.where(label == 1, *(torch.tensor(o) for o in odds))
    return torch.stack([torch.zeros_like(difference), difference], 1), label


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_none_for_the_truth_and_leaves_undecided_voxels_out(name):
    weightless = torch.nn.Conv3d(1, 1, 1)
    torch.nn.init.zeros_(weightless.weight)
    right, label = cube()
    assert segmentation_loss(name, right, label, weightless) < 1e-3
    assert segmentation_loss(name, -right, label, weightless) > 0.9
    wrong = right.clone()
    wrong[:, 1, :4] = 20
    assert segmentation_loss(name, wrong, label, weightless) > 0.2
    label[:, :4] = 255
    assert segmentation_loss(name, wrong, label, weightless) < 1e-3


def test_cross_entropy_is_that_of_the_papers():
    logits, label = cube(0.8, 0.3)
    p = torch.softmax(logits, 1)
    truth = torch.nn.functional.one_hot(label.long(), 2).movedim(-1, 1)
    of_deng = -(truth * p.log()).sum(1).mean()
    assert segmentation_loss("ce", logits, label) == pytest.approx(float(of_deng), rel=1e-5)
    both = segmentation_loss("dice", logits, label) + of_deng
    assert segmentation_loss("dice_ce", logits, label) == pytest.approx(float(both), rel=1e-5)


def test_the_weights_of_a_network_make_its_loss_greater_and_pull_them_to_zero():
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.BatchNorm3d(2))
    torch.nn.init.constant_(network[0].weight, 3.0)
    assert squared_weights(network) == 18  # kernels only
    logits, label = cube()
    more = segmentation_loss("dice_l2", logits, label, network) - segmentation_loss("dice", logits, label)
    assert float(more.detach()) == pytest.approx(18 * L2_WEIGHT, rel=1e-2)
    more.backward()
    assert (network[0].weight.grad > 0).all()


def test_an_unknown_loss_says_which_there_are():
    with pytest.raises(InputError) as caught:
        segmentation_loss("hinge", *cube())
    assert all(name in caught.value.hint for name in LOSSES)


def test_a_patch_without_femur_adds_cross_entropy_alone_to_dice_ce():
    torch.manual_seed(3)
    logits = torch.randn(2, 2, 4, 4, 4)
    label = torch.zeros(2, 4, 4, 4, dtype=torch.uint8)
    entropy = segmentation_loss("ce", logits, label)
    torch.testing.assert_close(segmentation_loss("dice_ce", logits, label), entropy)
    label[1, :2] = 1
    of_second = segmentation_loss("dice", logits[1:], label[1:])
    both = segmentation_loss("dice_ce", logits, label)
    torch.testing.assert_close(both, of_second + segmentation_loss("ce", logits, label))
