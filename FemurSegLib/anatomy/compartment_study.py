"""How well cortex and inside are told apart: `python -m FemurSegLib.anatomy.compartment_study SHAPES`.

Femora of people that no weights were trained on are painted, without metal, and scanned by scanners drawn at
random. Their endosteal surface is known exactly (see phantom/bones.py), so the answers can be compared with it:
by the network in the exact mask (at one half of its probability, and at Otsu's threshold of it), by the network
in a mask made wrong as a prediction is, and by the classical threshold in the exact mask.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from FemurSegLib.sides import LABELS

from .bars import BARS
from .bone import Bone
from .compartments import COMPARTMENT_LABELS, CORTICAL, INSIDE, find_compartments
from .painted_femora import PARTS, PaintedFemur, add_options, announce, painted_femora
from .thickness import along_normals

WAYS = ("network", "network, Otsu", "network, rough mask", "threshold")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="compartment_study", description=__doc__)
    add_options(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="in turn; default: both")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    parser.add_argument("--weights", type=Path, help="safetensors; default: those that are shipped")
    args = parser.parse_args(argv)
    seed, network = announce(args), _network(args.weights)
    print(f"{'':42s}{'Dice':>7s}{'mean':>7s}{'HD95':>7s}  {'inside ml':>13s}  {'cortex ml':>13s}  thickness mm")
    numbers, began = defaultdict(list), time.perf_counter()
    for example in painted_femora(args, seed, args.parts):
        for way in args.ways:
            each = evaluate(example, way, network, seed)
            numbers[way].append(each)
            print(f"{example.name} {way:20s}{line(each)}", flush=True)
    for way, rows in numbers.items():
        print(f"\n{way}: {summary(rows)}")
    print(f"\n{time.perf_counter() - began:.0f} s")
    return 0


def evaluate(example: PaintedFemur, way: str, network, seed: int = 0) -> dict[str, float]:
    """The numbers of one femur, found in one of `WAYS`."""
    from FemurSegLib.evaluation.metrics import overlap, surface_distance
    from FemurSegLib.surface import surface_of

    grid, truth = example.ct.grid, example.inside
    labels = rough_mask(example, seed) if way.endswith("rough mask") else example.labels
    method = "threshold" if way == "threshold" else "network"
    at = "otsu" if way.endswith("Otsu") else "half"
    found = find_compartments(example.ct.voxels, labels, grid, device="cpu", method=method, network=network, at=at)
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


def rough_mask(example: PaintedFemur, seed: int) -> np.ndarray:
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
        f"endosteal Dice {dice.mean():.4f} (worst {dice.min():.4f}; bar: {BARS['endosteal_dice'].limit})",
        f"mean distance {mean_mm.mean():.3f} mm (worst {mean_mm.max():.3f}; bar: {BARS['endosteal_mm'].limit})",
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
    from FemurSegLib.segmentation.compartment_network import CompartmentNetwork
    from FemurSegLib.training.checkpoint import load_weights

    network = CompartmentNetwork()
    load_weights(network, weights)
    return network


if __name__ == "__main__":
    raise SystemExit(main())
