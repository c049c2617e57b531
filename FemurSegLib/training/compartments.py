"""Trains the network that parts cortex from trabecular bone and marrow, on phantoms whose surfaces are exact.

Patches are painted on the spot and scanned as by scanners of all kinds. A patch follows from its number alone, so a
training that goes on sees the same patches as one that runs through. The mask that the network is given is the
periosteal one made a little wrong, as a predicted mask is.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from FemurSegLib.grid import Grid
from FemurSegLib.phantom.anatomy import Anatomy, sample_anatomy
from FemurSegLib.phantom.paint import Painter
from FemurSegLib.phantom.scanner import sample_scanner, scan
from FemurSegLib.phantom.shapes import Person, feet_for, load_person
from FemurSegLib.phantom.tissue import Tissue, sample_tissue
from FemurSegLib.segmentation.compartment_network import PATCH, CompartmentNetwork, network_input
from FemurSegLib.sides import LABELS
from FemurSegLib.training import checkpoint
from FemurSegLib.training.optimization import average, learning_rate, mixed_precision

PER_PATIENT, POOL = 6, 12
"""Patches painted from one patient; people kept ready, for 2 * POOL patients."""
THIN_SHARE = 0.25
"""Part of the patients whose cortex is thinned further, down to half: osteoporotic shafts."""
VOXEL_MM = (0.85, 1.15)
"""Edge of the voxels of a patch: about what the network is shown, so that bones come in all sizes."""
OUTSIDE_HU = -1000.0


@dataclass(frozen=True)
class CompartmentTraining:
    """What to train on and how. Cross-entropy and Adam are Deng's; the rate is higher and falls, for the steps are
    few."""

    out: Path
    shapes: Path
    people: tuple[str, ...]
    cache: Path | None = None
    patch: tuple[int, int, int] = PATCH
    batch: int = 2
    steps: int = 1500
    learning_rate: float = 3e-3
    averaging: float = 0.995
    seed: int = 0
    device: str = "cpu"
    workers: int = 1
    minutes: float = math.inf
    save_every: int = 100
    precision: str = "auto"
    start: Path | None = None


@dataclass(frozen=True)
class CompartmentPatches(torch.utils.data.Dataset):
    """Patches by number: `patches[n]` is (image (2, k, j, i) float16, share (k, j, i) float16).

    image: as `network_input` makes it. share: the part of a voxel that lies inside the endosteal surface, by the
    distance of its centre; -1 outside the mask, where nothing is asked.
    """

    shapes: Path
    people: tuple[str, ...]
    cache: Path | None
    patch: tuple[int, int, int] = PATCH
    seed: int = 0
    first: int = 0
    count: int = 10**9

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        number += self.first
        anatomy, tissue = _patient(self, number // PER_PATIENT)
        rng = np.random.default_rng([self.seed, 3, number])
        voxel_mm = float(rng.uniform(*VOXEL_MM))
        origin = _point_in_femur(anatomy, rng) - (np.array(self.patch[::-1]) - 1) / 2 * voxel_mm
        grid = Grid(self.patch, (voxel_mm,) * 3, tuple(origin), np.eye(3))
        painted = Painter(anatomy, tissue=tissue).paint_surfaces(grid)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        scanner = sample_scanner(rng)
        hu = scan(painted.hu, scanner, grid.spacing_mm, generator)
        mask = roughened(painted.periosteal_mm, rng, scanner.spacing_mm / voxel_mm)
        if rng.random() < 0.2:
            _cut_away(hu, mask, rng)
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
    noise = torch.from_numpy(rng.standard_normal((1, 1, *coarse), dtype=np.float32))
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


def train_compartments(settings: CompartmentTraining, report=print) -> Path:
    """Trains until `steps` or `minutes`, going on from `out/checkpoint.pt` if it is there.

    Writes out/checkpoint.pt (to resume), out/curve.jsonl (a line every 20 steps: step, loss, seconds) and
    out/weights.safetensors (averaged weights in half precision). Returns the last.
    Raises ValueError where there is nothing to train on.
    """
    if not settings.people:
        raise ValueError("Nothing to train on: give people of a shapes folder.")
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    device = torch.device(settings.device)
    network, averaged = (CompartmentNetwork().to(device, memory_format=torch.channels_last_3d) for _ in range(2))
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    kept, step = checkpoint.read_checkpoint(out, device), 0
    if kept is not None:
        for name, part in (("network", network), ("averaged", averaged), ("optimizer", optimizer)):
            part.load_state_dict(kept[name])
        step = int(kept["step"])
    else:
        if settings.start is not None:
            checkpoint.load_weights(network, settings.start)
        averaged.load_state_dict(network.state_dict())
    (out / "settings.json").write_text(json.dumps(asdict(settings), default=str, indent=1))
    patches = CompartmentPatches(
        settings.shapes,
        settings.people,
        settings.cache,
        settings.patch,
        settings.seed,
        first=step * settings.batch,
        count=max(0, settings.steps - step) * settings.batch,
    )
    loader = torch.utils.data.DataLoader(
        patches,
        settings.batch,
        num_workers=settings.workers,
        prefetch_factor=4 if settings.workers else None,
        worker_init_fn=lambda _: torch.set_num_threads(1),
    )
    mixed = mixed_precision(settings.precision, device)

    def save():
        parts = {"network": network, "averaged": averaged, "optimizer": optimizer}
        kept = {name: part.state_dict() for name, part in parts.items()}
        checkpoint.write_checkpoint(out, kept | {"step": step})
        checkpoint.write_weights(out / checkpoint.WEIGHTS, averaged)

    begun, tick, recent = time.monotonic(), time.monotonic(), []
    network.train()
    try:
        for image, share in loader:
            if time.monotonic() - begun > settings.minutes * 60:
                break
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings.learning_rate, step, settings.steps, warm_up=50)
            image = image.to(device, torch.float32).contiguous(memory_format=torch.channels_last_3d)
            with mixed():
                logits = network(image)
            loss = cross_entropy(logits, share.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            step += 1
            average(averaged, network, settings.averaging, step)
            recent.append(float(loss.detach()))
            if step % 20 == 0:
                seconds = (time.monotonic() - tick) / len(recent)
                line = {
                    "step": step,
                    "loss": round(sum(recent) / len(recent), 5),
                    "seconds_per_step": round(seconds, 2),
                }
                recent, tick = [], time.monotonic()
                with open(out / "curve.jsonl", "a") as curve:
                    curve.write(json.dumps(line) + "\n")
                report(f"step {step}  loss {line['loss']:.4f}  {seconds:.2f} s a step")
            if step % settings.save_every == 0:
                save()
    finally:  # also when it is interrupted
        save()
    return out / checkpoint.WEIGHTS


@lru_cache(maxsize=4)
def _patient(patches: CompartmentPatches, number: int) -> tuple[Anatomy, Tissue]:
    group = np.random.default_rng([patches.seed, 1, number // (2 * POOL)])
    chosen = group.choice(patches.people, size=min(POOL, len(patches.people)), replace=False)
    people = [_person(patches.shapes, str(name), patches.cache) for name in chosen]
    rng = np.random.default_rng([patches.seed, 2, number])
    feet = _person(patches.shapes, feet_for(patches.people), patches.cache)
    anatomy = sample_anatomy(people, feet, int(rng.integers(2**31)))
    tissue = replace(sample_tissue(anatomy.seed), metal="")
    if rng.random() < THIN_SHARE:
        thin = rng.uniform(0.5, 1.0)
        tissue = replace(tissue, cortex_shaft_mm=thin * tissue.cortex_shaft_mm)
    return anatomy, tissue


@lru_cache(maxsize=2 * POOL + 1)
def _person(shapes: Path, name: str, cache: Path | None) -> Person:
    """20 MB each."""
    return load_person(shapes, name, cache)


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


def _cut_away(hu, mask, rng: np.random.Generator) -> None:
    """The volume ends inside the patch: beyond one face there is nothing."""
    axis = int(rng.integers(3))
    depth = int(rng.integers(4, max(5, hu.shape[axis] // 2)))
    at = slice(0, depth) if rng.random() < 0.5 else slice(hu.shape[axis] - depth, None)
    index = tuple(at if a == axis else slice(None) for a in range(3))
    hu[index], mask[index] = OUTSIDE_HU, False
