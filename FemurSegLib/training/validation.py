"""People held out tell when a training is at its best: Dice on a fixed set of patches, and when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from FemurSegLib.training.distributed import Group
from FemurSegLib.training.patches import IGNORE, PhantomSource, RealSource

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


class Validation:
    """A fixed set of patches of people held out: of phantoms painted over their bones, and of their CTs.

    count: patches of each kind; with several processes each holds a part of them.
    """

    def __init__(self, phantoms: PhantomSource | None, real: RealSource | None, count: int, group: Group):
        self.group = group
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
                logits = network(image[None, None].to(device, torch.float32))[0]
            label = label.to(device)
            found = (logits[1] > logits[0]) & (label != IGNORE)
            femur = label == 1
            counts += torch.stack([2 * (found & femur).sum(), found.sum() + femur.sum()])
        overlap, voxels = self.group.total(counts).tolist()
        return overlap / voxels if voxels else 1.0


def held_out(shapes, people: Sequence[str], cases: Sequence, cache, patch, count: int, group: Group, device):
    """The Validation on these people and cases; false where there are none."""
    phantoms = (
        PhantomSource(shapes, tuple(people), cache, patch, SEED, str(device), per_patient=2) if people else None
    )
    real = RealSource(list(cases), patch, SEED, device, augment=False) if cases else None
    return Validation(phantoms, real, count, group)


def _kept(patch):
    image, label = patch
    return image.half(), label
