"""People held out tell when a training is at its best: Dice on a fixed set of patches, and when to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from FemurSegLib.training.distributed import Group
from FemurSegLib.training.patches import IGNORE

SEED = 20250
"""Of the patches; the same in every training, so that trainings can be compared."""


@dataclass
class Progress:
    """The best validation so far: its Dice and step, and how many have come after it."""

    best: float = -1.0
    step: int = 0
    since: int = 0

    def is_better(self, dice: float, step: int) -> bool:
        """Notes a validation; True if it is the best so far."""
        if dice > self.best:
            self.best, self.step, self.since = dice, step, 0
        else:
            self.since += 1
        return self.since == 0


def femur(logits: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Voxels found and voxels wanted (both bool, (k, j, i)) of a segmenter's logits (2, k, j, i); those of `IGNORE`
    are in neither."""
    return (logits[1] > logits[0]) & (label != IGNORE), label == 1


class Validation:
    """A fixed set of patches of people held out: of phantoms painted over their bones, and of their CTs.

    phantoms, real: sources with `source[n]`, (image of (k, j, i) or (c, k, j, i), label), or None. count: patches
    of each kind; with several processes each holds a part of them. compared: from the logits and the label of a
    patch to the voxels found and those wanted.
    """

    def __init__(self, phantoms, real, count: int, group: Group, compared: Callable = femur):
        self.group, self._compared = group, compared
        kinds = {"phantoms": phantoms, "real": real}
        self._patches = {
            kind: [_kept(source[n]) for n in range(group.rank, count, group.size)]
            for kind, source in kinds.items()
            if source is not None
        }

    def __bool__(self) -> bool:
        return bool(self._patches)

    @torch.no_grad()
    def dice(self, network, device, precision) -> dict[str, float]:
        """Dice of a network over all voxels of each kind; `mean` is that of the kinds.

        precision: gives the context that the network runs in.
        """
        network.eval()
        out = {kind: self._dice(network, patches, device, precision) for kind, patches in self._patches.items()}
        return {**out, "mean": sum(out.values()) / len(out)}

    def _dice(self, network, patches, device, precision) -> float:
        counts = torch.zeros(2, dtype=torch.float64, device="cpu" if device.type == "cpu" else device)
        for image, label in patches:
            with precision():
                logits = network(image[None].to(device, torch.float32))[0]
            found, wanted = self._compared(logits, label.to(device))
            counts += torch.stack([2 * (found & wanted).sum(), found.sum() + wanted.sum()])
        overlap, voxels = self.group.total(counts).tolist()
        return overlap / voxels if voxels else 1.0


def _kept(patch):
    image, label = patch
    return image.reshape(-1, *image.shape[-3:]).half(), label
