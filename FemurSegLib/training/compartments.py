"""Trains the network that parts cortex from trabecular bone and marrow, on phantoms whose surfaces are exact.

Patches are painted on the spot and scanned as by scanners of all kinds. A patch follows from its number alone, so a
training that goes on sees the same patches as one that runs through. The mask that the network is given is the
periosteal one made a little wrong, as a predicted mask is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from FemurSegLib.phantom.anatomy import Anatomy
from FemurSegLib.phantom.paint import Painter
from FemurSegLib.phantom.scanner import sample_scanner, scan
from FemurSegLib.phantom.tissue import Tissue, sample_tissue
from FemurSegLib.segmentation.compartment_network import PATCH, SIZE_MULTIPLE, CompartmentNetwork, network_input
from FemurSegLib.sides import LABELS
from FemurSegLib.training.distributed import Group
from FemurSegLib.training.loop import Parts, Training, train
from FemurSegLib.training.patches import PhantomSource, cut_away, grid_around
from FemurSegLib.training.validation import SEED, Validation

THIN_SHARE = 0.25
"""Part of the patients whose cortex is thinned further, down to half: osteoporotic shafts."""
VOXEL_MM = (0.85, 1.15)
"""Edge of the voxels of a patch: about what the network is shown, so that bones come in all sizes."""


@dataclass(frozen=True)
class CompartmentTraining(Training):
    """What to train on and how. Cross-entropy and Adam are Deng's; the rate is higher and falls, for the steps are
    few. People held out are validated on as phantoms."""

    patch: tuple[int, int, int] = PATCH
    learning_rate: float = 3e-3
    averaging: float = 0.995


@dataclass(frozen=True)
class CompartmentPatches(PhantomSource):
    """Patches by number: `patches[n]` is (image (2, k, j, i) float16, share (k, j, i) float16).

    image: as `network_input` makes it. share: the part of a voxel that lies inside the endosteal surface, by the
    distance of its centre; -1 outside the mask, where nothing is asked.
    """

    patch: tuple[int, int, int] = PATCH
    per_patient: int = 6

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        anatomy, tissue = _patient(self, number // self.per_patient)
        rng = np.random.default_rng([self.seed, 3, number])
        voxel_mm = float(rng.uniform(*VOXEL_MM))
        grid = grid_around(_point_in_femur(anatomy, rng), self.patch, (voxel_mm,) * 3)
        painted = Painter(anatomy, self.device, tissue).paint_surfaces(grid)
        generator = torch.Generator(painted.hu.device).manual_seed(int(rng.integers(2**31)))
        scanner = sample_scanner(rng)
        hu = scan(painted.hu, scanner, grid.spacing_mm, generator)
        mask = roughened(painted.periosteal_mm, rng, scanner.spacing_mm / voxel_mm)
        if rng.random() < 0.2:
            cut_away(hu, mask, rng)
        inner, outer = ((0.5 - mm / voxel_mm).clamp(0, 1) for mm in (painted.endosteal_mm, painted.periosteal_mm))
        share = torch.minimum(inner, outer)
        return network_input(hu, mask).half(), share.masked_fill(~mask, -1).half()


def roughened(
    periosteal_mm: torch.Tensor, rng: np.random.Generator, slice_voxels: float, waves: float | None = None
) -> torch.Tensor:
    """Mask (bool) of a distance field (k, j, i), wrong as a prediction is.

    Its surface is moved by some tenths of a millimetre as a whole, and by waves of 6 to 20 voxels with a standard
    deviation of `waves` (drawn from 0 to 1) times about 0.6 mm; a third of the masks of thick slices are steps of a
    slice, `slice_voxels` high.
    """
    shape = periosteal_mm.shape
    coarse = [max(2, int(n / rng.uniform(3, 10))) for n in shape]
    noise = torch.from_numpy(rng.standard_normal((1, 1, *coarse), dtype=np.float32)).to(periosteal_mm.device)
    noise = F.interpolate(noise, size=tuple(shape), mode="trilinear", align_corners=True)[0, 0]
    drawn = rng.uniform(0, 1.0)
    field = periosteal_mm + (drawn if waves is None else waves) * noise + rng.normal(0, 0.2)
    if rng.random() < 0.35 and slice_voxels > 1.5:
        slices = (torch.arange(shape[0]) / slice_voxels).round()
        field = field[(slices * slice_voxels).round().long().clamp(0, shape[0] - 1)]
    return field < 0


def cross_entropy(logits: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Mean over the voxels of the mask. logits (n, 1, k, j, i); share (n, k, j, i), -1 outside the mask.

    The entropy of the shares themselves is taken away, so that a perfect answer costs 0.
    """
    asked = share >= 0
    wanted = share[asked].float()
    got = F.binary_cross_entropy_with_logits(logits[:, 0][asked].float(), wanted, reduction="sum")
    least = F.binary_cross_entropy(wanted, wanted, reduction="sum")
    return (got - least) / asked.sum().clamp(min=1)


def inside(logits: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Voxels found and voxels wanted (both bool, (k, j, i)) of logits (1, k, j, i): those of the mask that lie
    inside the endosteal surface with half of their volume or more."""
    return (logits[0] > 0) & (share >= 0), share >= 0.5


def train_compartments(settings: CompartmentTraining, report=print) -> Path:
    """As `loop.train`, which says what is written. Raises ValueError where there is nothing to train on."""
    s = settings
    if not s.people:
        raise ValueError("Nothing to train on: give people of a shapes folder.")
    parts = Parts(
        build=CompartmentNetwork,
        patches=lambda device, count: CompartmentPatches(s.shapes, s.people, s.cache, s.patch, s.seed, device),
        loss=lambda logits, share, network: cross_entropy(logits, share),
        optimizer=torch.optim.Adam,
        validation=partial(_validation, s),
        whom=f"{len(s.held_people)} people as phantoms",
        warm_up=50,
        # As in segmentation/network.py: on a CPU, bfloat16 gradients of maps 2 voxels wide may be nonsense.
        cpu_precision="auto" if min(s.patch) > 2 * SIZE_MULTIPLE else "fp32",
    )
    return train(s, parts, report)


def _validation(s: CompartmentTraining, group: Group, device: torch.device) -> Validation:
    patches = None
    if s.held_people:
        patches = CompartmentPatches(s.shapes, s.held_people, s.cache, s.patch, SEED, str(device), per_patient=2)
    return Validation(patches, None, s.validation_patches, group, inside)


@lru_cache(maxsize=16)
def _patient(source: CompartmentPatches, number: int) -> tuple[Anatomy, Tissue]:
    """Without metal; kept as in training/patches.py."""
    anatomy, rng = source.draw_anatomy(number)
    tissue = replace(sample_tissue(anatomy.seed), metal="")
    if rng.random() < THIN_SHARE:
        thin = rng.uniform(0.5, 1.0)
        tissue = replace(tissue, cortex_shaft_mm=thin * tissue.cortex_shaft_mm)
    return anatomy, tissue


def _point_in_femur(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Half of them anywhere in a femur, which is mostly near the joints, half at any height; then up to 1 or 2 cm
    off."""
    bone = anatomy.bones[str(rng.choice([name for name in LABELS if name in anatomy.bones]))]
    inside = np.argwhere(bone.field.distance[::2, ::2, ::2] < 0)  # in the order of heights
    if rng.random() < 0.5:
        chosen = inside[rng.integers(len(inside))]
    else:
        height = rng.integers(inside[0, 0], inside[-1, 0] + 1)
        first, last = np.searchsorted(inside[:, 0], [height, height + 1])
        chosen = inside[rng.integers(first, max(first + 1, last)) % len(inside)]
    at = bone.field.origin_mm + 2 * chosen[::-1] * bone.field.spacing_mm
    return np.linalg.solve(bone.to_field, np.r_[at, 1.0])[:3] + rng.normal(0, 8, 3)
