"""How well cortex and inside are told apart: `python -m FemurSegLib.anatomy.compartment_study SHAPES`.

Femora of people that no weights were trained on are painted, without metal, and scanned by scanners drawn at
random. Their endosteal surface is known exactly (see phantom/bones.py), so the answers can be compared with it:
by the network in the exact mask, by the network in a mask made wrong as a prediction is, and by the classical
threshold in the exact mask.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from FemurSegLib.grid import Grid
from FemurSegLib.phantom.command import HELD_OUT, add_shape_options
from FemurSegLib.sides import LABELS, SIDES

from .bone import Bone
from .compartments import COMPARTMENT_LABELS, CORTICAL, INSIDE, find_compartments
from .thickness import along_normals

PARTS = ("proximal", "whole")
PROXIMAL_MM = 170.0
"""From the top of the femur: head, neck, trochanters and a little of the shaft, as in Deng et al. 2022."""
MARGIN_MM = 14.0
WAYS = ("network", "network, rough mask", "threshold")
BARS = {"dice": 0.965, "mean_mm": 0.35}


@dataclass(frozen=True)
class Example:
    """A painted femur. ct: Volume; labels: uint8 with this femur alone; endosteal_mm: float32, exact."""

    name: str
    side: str
    ct: object
    labels: np.ndarray
    endosteal_mm: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        return (self.labels > 0) & (self.endosteal_mm < 0)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="compartment_study", description=__doc__)
    add_shape_options(parser, required=True, people=HELD_OUT)
    parser.add_argument("--femora", type=int, default=8, metavar="N", help="default: 8")
    parser.add_argument("--seed", type=int, default=None, help="of the first; default: drawn, and printed")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="in turn; default: both")
    parser.add_argument("--spacing", nargs=3, type=float, default=(0.8, 0.8, 1.0), help="mm; default: 0.8 0.8 1")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    parser.add_argument("--weights", type=Path, help="safetensors; default: those that are shipped")
    args = parser.parse_args(argv)
    seed = int(np.random.default_rng().integers(10**6)) if args.seed is None else args.seed
    network = _network(args.weights)
    print(f"seed {seed}, voxels {' x '.join(map(str, args.spacing))} mm")
    print(f"{'':42s}{'Dice':>7s}{'mean':>7s}{'HD95':>7s}  {'inside ml':>13s}  {'cortex ml':>13s}  thickness mm")
    numbers, began = defaultdict(list), time.perf_counter()
    for example in examples(args, seed):
        for way in args.ways:
            each = evaluate(example, way, network, seed)
            numbers[way].append(each)
            print(f"{example.name} {way:20s}{line(each)}", flush=True)
    for way, rows in numbers.items():
        print(f"\n{way}: {summary(rows)}")
    print(f"\n{time.perf_counter() - began:.0f} s")
    return 0


def examples(args, seed: int):
    """Yields `args.femora` Examples; people, sides and parts are taken in turn."""
    from FemurSegLib.phantom.anatomy import sample_anatomy
    from FemurSegLib.phantom.case import make_phantom
    from FemurSegLib.phantom.shapes import feet_for, load_person
    from FemurSegLib.phantom.tissue import sample_tissue

    feet = load_person(args.shapes, feet_for(args.people), args.cache)
    for number in range(args.femora):
        name = args.people[number % len(args.people)]
        anatomy = sample_anatomy([load_person(args.shapes, name, args.cache)], feet, seed + number)
        part = args.parts[(number + number // len(args.people)) % len(args.parts)]
        sides = [side for side in SIDES if side in anatomy.bones]
        side = sides[number // len(args.people) % len(sides)]
        grid = grid_around(anatomy.bones[side], args.spacing, part)
        tissue = replace(sample_tissue(anatomy.seed), metal="")
        phantom = make_phantom(anatomy, grid, tissue=tissue, surfaces=True)
        labels = np.where(phantom.labels.voxels == LABELS[side], LABELS[side], 0).astype(np.uint8)
        title = f"{name} {side.split('_')[0]:5s} {part:8s}"
        yield Example(title, side, phantom.ct, labels, phantom.endosteal_mm.astype(np.float32))


def grid_around(bone, spacing_mm, part: str) -> Grid:
    """The grid of a placed bone and a little around it; `proximal`: of its upper `PROXIMAL_MM`, cut there."""
    low, high = bone.bounds_mm()
    low, high = low - MARGIN_MM / 2, high + MARGIN_MM / 2  # the field itself reaches 9 mm out
    if part == "proximal":
        low[2] = max(low[2], high[2] - PROXIMAL_MM - MARGIN_MM)
    size = np.maximum(np.ceil((high - low) / np.array(spacing_mm)).astype(int), 8)
    return Grid(tuple(size[::-1]), tuple(spacing_mm), tuple(low), np.eye(3))


def evaluate(example: Example, way: str, network, seed: int = 0) -> dict[str, float]:
    """The numbers of one femur, found in one of `WAYS`."""
    from FemurSegLib.evaluation.metrics import overlap, surface_distance
    from FemurSegLib.surface import surface_of

    grid, truth = example.ct.grid, example.inside
    labels = rough_mask(example, seed) if way.endswith("rough mask") else example.labels
    method = "threshold" if way == "threshold" else "network"
    found = find_compartments(example.ct.voxels, labels, grid, device="cpu", method=method, network=network)
    inside = found.labels == COMPARTMENT_LABELS[example.side, INSIDE]
    cortex = found.labels == COMPARTMENT_LABELS[example.side, CORTICAL]
    distance = surface_distance(inside, truth, grid.spacing_mm)
    periosteal = surface_distance(labels > 0, example.labels > 0, grid.spacing_mm)
    voxel_ml = float(np.prod(grid.spacing_mm)) / 1000
    bone = Bone.of_surface(surface_of(example.labels, grid, LABELS[example.side]), example.side)
    femur = found.femurs[example.side]
    wanted = along_normals(bone, -example.endosteal_mm, grid)
    got = along_normals(bone, femur.probability - np.float32(femur.level), femur.grid)
    margin = 2 / np.array(grid.spacing_mm)
    ijk = grid.ijk(bone.points_mm)
    middle = ((ijk > margin) & (ijk < np.array(grid.shape[::-1]) - 1 - margin)).all(axis=1)
    error = (got - wanted)[middle & np.isfinite(got) & np.isfinite(wanted)]
    return {
        "dice": overlap(inside, truth).dice,
        "mean_mm": distance.mean_mm,
        "hd95_mm": distance.hd95_mm,
        "inside_ml": inside.sum() * voxel_ml,
        "true_inside_ml": truth.sum() * voxel_ml,
        "cortex_ml": cortex.sum() * voxel_ml,
        "true_cortex_ml": ((example.labels > 0) & ~truth).sum() * voxel_ml,
        "thickness_bias_mm": float(error.mean()),
        "thickness_error_mm": float(np.abs(error).mean()),
        "mask_dice": overlap(labels > 0, example.labels > 0).dice,
        "mask_mean_mm": periosteal.mean_mm,
    }


def rough_mask(example: Example, seed: int) -> np.ndarray:
    """The labels with a surface that is wrong as that of a prediction."""
    import torch
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    from FemurSegLib.training.compartments import roughened

    femur, spacing = example.labels > 0, example.ct.grid.spacing_mm[::-1]
    distance = distance_transform_edt(~femur, spacing) - distance_transform_edt(femur, spacing)
    distance = gaussian_filter(distance, 1.0)  # it jumps by two voxels at the surface
    rng = np.random.default_rng([seed, len(example.name), *example.labels.shape])
    rough = roughened(torch.from_numpy(distance.astype(np.float32)), rng, 1.0, waves=1.0)
    return np.where(rough.numpy(), LABELS[example.side], 0).astype(np.uint8)


def line(row: dict[str, float]) -> str:
    """One femur: Dice, mean distance, HD95, volumes found/true, and the bias and mean error of the thickness."""
    return (
        "{dice:7.4f}{mean_mm:7.3f}{hd95_mm:7.2f}  {inside_ml:6.1f}/{true_inside_ml:6.1f}  "
        "{cortex_ml:6.1f}/{true_cortex_ml:6.1f}  {thickness_bias_mm:+.2f} |{thickness_error_mm:.2f}|"
    ).format(**row)


def summary(rows: list[dict[str, float]]) -> str:
    """Means over femora, and how found volumes follow the true ones."""
    column = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    dice, mean_mm = column["dice"], column["mean_mm"]
    words = [
        f"endosteal Dice {dice.mean():.4f} (worst {dice.min():.4f}; bar {BARS['dice']})",
        f"mean distance {mean_mm.mean():.3f} mm (worst {mean_mm.max():.3f}; bar {BARS['mean_mm']})",
        f"HD95 {column['hd95_mm'].mean():.2f} mm",
    ]
    for part in ("inside", "cortex"):
        found, true = column[f"{part}_ml"], column[f"true_{part}_ml"]
        error = np.abs(found / true - 1) * 100
        r2 = np.corrcoef(found, true)[0, 1] ** 2 if len(rows) > 1 else float("nan")
        words.append(f"{part} volume off by {error.mean():.1f} % (largest {error.max():.1f}), R2 {r2:.4f}")
    error, bias = column["thickness_error_mm"].mean(), column["thickness_bias_mm"].mean()
    words.append(f"thickness off by {error:.2f} mm, bias {bias:+.2f}")
    mask = f"Dice {column['mask_dice'].mean():.3f}, mean distance {column['mask_mean_mm'].mean():.2f} mm"
    return "; ".join([*words, f"the mask itself: {mask}"])


def _network(weights: Path | None):
    if weights is None:
        return None
    from safetensors.torch import load_file

    from FemurSegLib.segmentation.compartment_network import CompartmentNetwork

    network = CompartmentNetwork()
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()})
    return network


if __name__ == "__main__":
    raise SystemExit(main())
