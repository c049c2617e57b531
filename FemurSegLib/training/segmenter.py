"""Trains the segmenter: mixed phantom and real patches, in the loop that all 3D networks share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from FemurSegLib.segmentation.network import PATCH, build_network, recipe_of
from FemurSegLib.training.batches import Mixture
from FemurSegLib.training.cases import Case
from FemurSegLib.training.distributed import Group
from FemurSegLib.training.loop import Parts, Training, train
from FemurSegLib.training.losses import segmentation_loss
from FemurSegLib.training.patches import PhantomSource, RealSource
from FemurSegLib.training.validation import SEED, Validation


@dataclass(frozen=True)
class SegmenterTraining(Training):
    """What to train on and how. The defaults are those of Xie 2025, Table 3, where it gives them (patch 160,
    batch 4, Dice loss); its 300 epochs over 85 volumes are 300 * 85 / 4 steps.

    cases, held_cases: labelled CTs, beside the people. real_share: of patches from those, where there are both.
    """

    patch: tuple[int, int, int] = PATCH
    batch: int = 4
    steps: int = 300 * 85 // 4
    cases: tuple[Case, ...] = ()
    held_cases: tuple[Case, ...] = ()
    real_share: float = 0.35
    network: str = "segresnet"
    loss: str = "dice"


def train_segmenter(settings: SegmenterTraining, report=print) -> Path:
    """As `loop.train`, which says what is written. Raises ValueError where there is nothing to train on."""
    s = settings
    if not s.people and not s.cases:
        raise ValueError("Nothing to train on: give people of a shapes folder, labelled cases, or both.")
    parts = Parts(
        build=lambda: build_network(s.network, s.patch),
        patches=partial(_patches, s),
        loss=partial(segmentation_loss, s.loss),
        optimizer=partial(torch.optim.AdamW, weight_decay=1e-5),
        validation=partial(_validation, s),
        whom=f"{len(s.held_people)} people as phantoms and {len(s.held_cases)} CTs",
        cpu_precision=recipe_of(s.network).cpu_precision,
    )
    return train(s, parts, report)


def _patches(s: SegmenterTraining, device: str, count: int) -> Mixture:
    phantoms = PhantomSource(s.shapes, s.people, s.cache, s.patch, s.seed, device) if s.people else None
    real = RealSource(list(s.cases), s.patch, s.seed, device) if s.cases else None
    return Mixture(phantoms, real, s.real_share, count, s.seed)


def _validation(s: SegmenterTraining, group: Group, device: torch.device) -> Validation:
    """Of phantoms painted over bones of people held out, and of their CTs."""
    phantoms = real = None
    if s.held_people:
        phantoms = PhantomSource(s.shapes, s.held_people, s.cache, s.patch, SEED, str(device), per_patient=2)
    if s.held_cases:
        real = RealSource(list(s.held_cases), s.patch, SEED, device, augment=False)
    return Validation(phantoms, real, s.validation_patches, group)
