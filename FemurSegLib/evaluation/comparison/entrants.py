"""Who is compared, and what all have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from FemurSegLib.training.sparse_annotation import ANNOTATED

FULL, THICK, THIN = "full", "proximal-3mm", "proximal-1mm"
"""Whole CTs; crops around one proximal femur with slices of 3 mm (Zhao) or 1 mm (Deng, Sultana)."""
SLICE_MM = {THICK: 3.0, THIN: 1.0}
WINDOW = {THICK: (32, 192, 192), THIN: (64, 192, 192)}
"""Voxels (k, j, i) of a window: Zhao, section 2.3; Deng 2022, section 2.3."""


@dataclass(frozen=True)
class Entrant:
    """A line of the table.

    cases: `FULL`, `THICK` or `THIN`. mode: `two-stage`, `single-stage` (the network sees the whole CT), or `slices`
    (see segmentation/slices.py). annotated: part of the slices of each training case that has labels.
    reconstructed: area and volume are those after segmentation/reconstruction.py.
    """

    name: str
    network: str
    cases: str
    mode: str
    loss: str = "dice"
    annotated: float = 1.0
    reconstructed: bool = False


ENTRANTS = {
    entrant.name: entrant
    for entrant in (
        Entrant("two-stage", "segresnet", FULL, "two-stage"),
        Entrant("single-stage", "segresnet", FULL, "single-stage"),
        Entrant("transunet", "transunet", FULL, "two-stage"),
        Entrant("vnet-dice-l2-3mm", "vnet", THICK, "slices", "dice_l2"),
        Entrant("vnet-ce-3mm", "vnet", THICK, "slices", "ce"),
        Entrant("segresnet-3mm", "segresnet", THICK, "slices"),
        Entrant("vnet-dice-l2-1mm", "vnet", THIN, "slices", "dice_l2"),
        Entrant("vnet-ce-1mm", "vnet", THIN, "slices", "ce"),
        Entrant("segresnet-1mm", "segresnet", THIN, "slices"),
        Entrant("unet3d-1mm", "unet3d", THIN, "slices", "ce", reconstructed=True),
        Entrant("unet3d-42-1mm", "unet3d", THIN, "slices", "ce", ANNOTATED, reconstructed=True),
    )
}


@dataclass(frozen=True)
class Comparison:
    """What all entrants share.

    out: folder of all that is made. shapes, cache: of the bones. spacing_mm: (i, j, k) of the whole CTs; the crops
    have its i and j. seed: of the first test phantom. steps, minutes: of the training of each entrant, whichever
    ends first. look_minutes: the test cases are also run each time so much training is done, to see how fast an
    entrant learns; nothing is chosen by it. batch: patches a step. largest_patch: no side of a patch is longer; the
    papers' patches otherwise. slice_step: by how many slices a window moves on (1 in the papers). memory_gb: see
    footprint.py; 16 is that of the GPU of Xie 2025. data_set: of the detectors' weights (models.chosen_set).
    """

    out: Path
    shapes: Path
    train_people: tuple[str, ...]
    test_people: tuple[str, ...]
    cache: Path | None = None
    train_phantoms: int = 12
    test_phantoms: int = 6
    fields: tuple[str, ...] = ("legs",)
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.5)
    seed: int = 1000
    steps: int = 2000
    minutes: float = math.inf
    look_minutes: float = math.inf
    batch: int = 2
    largest_patch: int = 512
    slice_step: int = 1
    memory_gb: float = 16.0
    device: str = "cpu"
    data_set: str | None = None

    def patch(self, entrant: Entrant) -> tuple[int, int, int]:
        """The paper's patch, or what `largest_patch` leaves of it, in multiples of what the network halves."""
        from FemurSegLib.segmentation.network import RECIPES

        recipe = RECIPES[entrant.network]
        patch = WINDOW.get(entrant.cases, recipe.patch)
        multiple = recipe.size_multiple
        return tuple(max(multiple, min(n, self.largest_patch) // multiple * multiple) for n in patch)
