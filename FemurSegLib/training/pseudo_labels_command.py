"""`femurseg train pseudo-labels`: labels for CTs that nobody labelled, for self-training."""

from __future__ import annotations

import argparse
from pathlib import Path

from FemurSegLib.phantom.command import names


def add_pseudo_labels(kinds) -> None:
    """Enters the command under the kinds of `femurseg train`."""
    parser = kinds.add_parser(
        "pseudo-labels",
        help="label CTs that nobody labelled, for self-training",
        description="Segment each CT under several perturbations and label the voxels on which they agree; the "
        "others stay undecided (255). Cases that a stated rule accepts are listed in cases.csv, which --cases of "
        "`train segmenter` reads; the others in pseudo_labels.json with the reason. Look at every picture: what "
        "looks wrong is taken out with --leave-out.",
    )
    option = parser.add_argument
    option("--cases", nargs="+", required=True, metavar="PLACE", help="folders, lists, or single CT files")
    option("--only", type=names, default=[], metavar="NAMES", help="of these cases; default: all")
    option("--out", required=True, type=Path, metavar="DIR", help="folder of the labels; goes on if it is there")
    option(
        "--leave-out",
        nargs="+",
        type=_reasoned,
        default=[],
        metavar="NAME=REASON",
        help="cases that a reader refuses",
    )
    option(
        "--no-femur",
        type=names,
        default=[],
        metavar="NAMES",
        help="cases in which a reader saw no femur; they become background, whatever the runs found",
    )
    option("--agreement", type=float, metavar="X", help="least Dice of any run with the mean of all")
    option("--undecided", type=float, metavar="X", help="largest part of a femur that stays undecided")
    option("--weights", type=Path, metavar="DIR", help="folder of models; default: the shipped ones")
    option("--network", default="segresnet", metavar="NAME", help="default: segresnet")
    option("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto", help="default: auto")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Labels the cases and prints a line for each; ends with how many may be trained on.

    Raises InputError.
    """
    from FemurSegLib.errors import InputError
    from FemurSegLib.training import self_training
    from FemurSegLib.training.cases import find_cases

    cases = find_cases(*args.cases, unlabelled=True)
    if unknown := sorted(set(args.only) - {case.name for case in cases}):
        raise InputError(f"There is no case {unknown[0]}.", f"There are: {', '.join(c.name for c in cases)}.")
    limits = {name: getattr(args, name) for name in ("agreement", "undecided")}
    told = self_training.make_pseudo_labels(
        [case for case in cases if not args.only or case.name in args.only],
        args.out,
        self_training.Pipeline(args.device, args.network, args.weights),
        self_training.AcceptanceRule(**{name: value for name, value in limits.items() if value is not None}),
        leave_out=dict(args.leave_out),
        no_femur=args.no_femur,
        report=lambda line: print(line, flush=True),
    )
    print(f"{sum(line['accepted'] for line in told)} of {len(told)} accepted; look at {args.out / 'pictures'}")
    return 0


def _reasoned(text: str) -> tuple[str, str]:
    name, _, reason = text.partition("=")
    if not (name and reason.strip()):
        raise argparse.ArgumentTypeError(f"'{text}' names no reason; write NAME=REASON")
    return name, reason.strip()
