"""The losses of the segmentation by name: `segmentation_loss("dice", logits, label, network)`.

logits: (n, 2, k, j, i), background and femur. label: (n, k, j, i), 1 femur, 0 not; voxels of 255, which nobody
has decided about, take no part. Importing this page needs no torch, so that a command line may list the names.
"""

from __future__ import annotations

from FemurSegLib.errors import InputError
from FemurSegLib.sides import UNDECIDED_LABEL

LOSSES = ("dice", "dice_ce", "dice_l2", "ce")
L2_WEIGHT = 1e-5
"""alpha of Zhao, Eq. 3. The paper calls it empirical and gives no value; this one makes the term about a hundredth
of the Dice loss of an untrained network."""
SMOOTH = 10.0
"""Voxels added above and below in the Dice, so that a patch without femur has a loss and a slope."""


def segmentation_loss(name: str, logits, label, network=None):
    """A scalar tensor. Raises InputError for a name that is not in `LOSSES`.

    dice: Xie 2025, Table 3; Zhao, Eq. 2. dice_ce: its sum with cross-entropy, the Dice of patches with a femur only
    (elsewhere its slope says nothing but "less", where cross-entropy says which voxels). dice_l2: Zhao, Eq. 3,
    needs the `network`. ce: softmax cross-entropy of two classes (Deng 2022, Eq. 1), which is the binary
    cross-entropy of Sultana 2024, Eq. 6.
    """
    if name == "dice":
        return dice_loss(logits, label)
    if name == "dice_ce":
        return dice_loss(logits, label, empty=False) + cross_entropy(logits, label)
    if name == "dice_l2":
        return dice_loss(logits, label) + L2_WEIGHT * squared_weights(network)
    if name == "ce":
        return cross_entropy(logits, label)
    raise InputError(f"There is no loss '{name}'.", f"Choose one of: {', '.join(LOSSES)}.")


def dice_loss(logits, label, empty: bool = True):
    """1 - soft Dice of the femur: mean over the batch, or over its patches with a femur where `empty` is False."""
    import torch

    known = (label != UNDECIDED_LABEL).float()
    target = (label == 1).float() * known
    probability = _difference(logits).sigmoid() * known
    axes = (1, 2, 3)
    overlap, total = (probability * target).sum(axes), probability.sum(axes) + target.sum(axes)
    counted = torch.ones_like(total) if empty else (target.sum(axes) > 0).float()
    lack = 1 - (2 * overlap + SMOOTH) / (total + SMOOTH)
    return (lack * counted).sum() / counted.sum().clamp(min=1)


def cross_entropy(logits, label):
    """Mean over the decided voxels; 0 where there is none."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    known = (label != UNDECIDED_LABEL).float()
    entropy = binary_cross_entropy_with_logits(_difference(logits), (label == 1).float(), reduction="none")
    return (entropy * known).sum() / known.sum().clamp(min=1)


def squared_weights(network):
    """Sum of the squares of all weights (the W of Zhao, Eq. 3): kernels, without biases and scales."""
    return sum(weight.square().sum() for weight in network.parameters() if weight.ndim > 1)


def _difference(logits):
    return (logits[:, 1] - logits[:, 0]).float()
