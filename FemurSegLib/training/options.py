"""The options that the kinds of `femurseg train` share, and what they ask for. Importing this page is light."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from FemurSegLib.phantom.command import HELD_OUT, add_shape_options, names
from FemurSegLib.segmentation.network import NETWORKS, recipe_of
from FemurSegLib.training.losses import LOSSES


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """What every training asks: where to, from whom, how long, on what device."""
    option = parser.add_argument
    option(
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of this training; goes on if it is there",
    )
    option(
        "--cases",
        nargs="+",
        default=[],
        metavar="PLACE",
        help="folders with NAME_CT and NAME_femurs files, or "
        "lists (CSV or JSON with the columns ct, labels, name, person)",
    )
    add_shape_options(parser)
    option(
        "--set",
        choices=("open", "research"),
        dest="data_set",
        help="open: learn from nothing under a non-commercial licence, the shape model by default; research: from "
        "all, real people and the shape model by default; default: what --people and --cases say",
    )
    option(
        "--hold-out",
        type=names,
        default=None,
        metavar="NAMES",
        help="people of the shapes and of the cases that "
        f"are left out of training; default: {','.join(HELD_OUT)}, for --set open samples of the shape model",
    )
    option("--minutes", type=float, default=math.inf, metavar="X", help="stop after this time; default: no limit")
    option("--device", choices=("auto", "cuda", "cpu"), default="auto", help="default: auto")
    option(
        "--workers",
        type=int,
        metavar="N",
        help="processes that prepare data on the CPU; default: 1, and 0 where a GPU paints them",
    )
    option("--seed", type=int, default=0, metavar="N", help="default: 0")
    option(
        "--export",
        nargs="?",
        const="",
        metavar="DIR",
        help="enter the weights into this folder of models when done; without a name into Resources/Models",
    )


def add_learning_options(parser: argparse.ArgumentParser) -> None:
    """Network, patch, steps and all else that says how a segmenter learns; shared with `train compare-sets`."""
    option = parser.add_argument
    option("--network", default="segresnet", metavar="NAME", help=f"{', '.join(NETWORKS)}; default: segresnet")
    option(
        "--patch",
        type=int,
        nargs="+",
        metavar="N",
        help="voxels of 1 mm: one, or k j i; default: that of the network's paper, 160 for segresnet",
    )
    option("--batch", type=int, metavar="N", help="default: that of the network's paper, 4 for segresnet")
    option(
        "--steps",
        type=int,
        default=300 * 85 // 4,
        metavar="N",
        help="default: 6375, that is 300 epochs of 85 CTs",
    )
    option(
        "--learning-rate",
        type=float,
        metavar="X",
        help="default: that of the network's paper, 0.001 for segresnet",
    )
    option(
        "--loss",
        choices=LOSSES,
        help="dice_ce adds cross-entropy, dice_l2 the squared weights; default: that of the network's paper, "
        "dice for segresnet",
    )
    option(
        "--real-share",
        type=float,
        default=0.35,
        metavar="X",
        help="of patches from labelled CTs, where there are phantoms too; default: 0.35",
    )
    add_running_options(parser, averaging=0.998)


def add_running_options(parser: argparse.ArgumentParser, averaging: float) -> None:
    """Averaging, checkpoints, precision and weights to start from, of any 3D network."""
    option = parser.add_argument
    option(
        "--averaging",
        type=float,
        default=averaging,
        metavar="X",
        help=f"of the weights kept at a step; default: {averaging}",
    )
    option("--save-every", type=int, default=100, metavar="N", help="steps between checkpoints; default: 100")
    option("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="default: auto")
    option("--start", type=Path, metavar="FILE", help="weights (safetensors) to start from")


def add_validation_options(parser: argparse.ArgumentParser) -> None:
    """When a 3D network is looked at on those held out, and when that ends its training."""
    option = parser.add_argument
    option(
        "--validate-every",
        type=int,
        default=250,
        metavar="N",
        help="steps between validations on those held out, whose best weights are kept; default: 250",
    )
    option(
        "--validation-patches",
        type=int,
        default=12,
        metavar="N",
        help="of phantoms of people held out, and of CTs held out; default: 12 of each",
    )
    option(
        "--patience",
        type=int,
        default=10,
        metavar="N",
        help="stop after so many validations without gain, 0: never; default: 10",
    )


def shared_of(args: argparse.Namespace) -> dict:
    """What the options that all 3D networks share say of a `loop.Training`, of nobody yet."""
    same = "out shapes cache steps averaging seed workers minutes save_every precision start".split()
    return {name: getattr(args, name) for name in same} | {"device": device_of(args.device)}


def validation_of(args: argparse.Namespace) -> dict:
    """The same of `add_validation_options`."""
    return {name: getattr(args, name) for name in ("validate_every", "validation_patches", "patience")}


def learning_of(args: argparse.Namespace):
    """The SegmenterTraining that `add_shared_options` and `add_learning_options` ask for, of nobody yet.

    Raises ModelError for a network that is not known.
    """
    from FemurSegLib.training.segmenter import SegmenterTraining

    recipe = recipe_of(args.network)
    patch = tuple(args.patch or recipe.patch)
    return SegmenterTraining(
        **shared_of(args),
        real_share=args.real_share,
        network=args.network,
        patch=patch if len(patch) == 3 else patch[:1] * 3,
        batch=args.batch or recipe.batch,
        learning_rate=args.learning_rate or recipe.learning_rate,
        loss=args.loss or recipe.loss,
    )


def device_of(name: str) -> str:
    """The device that `--device` asks for: `cuda:N` for a GPU, `cpu` without."""
    import torch

    from FemurSegLib.training.distributed import own_gpu

    if name != "auto":
        return own_gpu() if name == "cuda" else name
    return own_gpu() if torch.cuda.is_available() else "cpu"
