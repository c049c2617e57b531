"""The options of `femurseg evaluate --compare`, and what it does. Importing this page needs no torch."""

from __future__ import annotations

import argparse
import math

from FemurSegLib.evaluation.comparison.entrants import ENTRANTS, Comparison
from FemurSegLib.phantom.command import FIELDS, HELD_OUT, names


def add_comparison_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "comparison of the papers",
        "Train networks on the same phantoms with the same budget and print one table beside the figures of the "
        "papers. --phantoms, --people, --field-of-view (legs if not given), --spacing, --seed say whom they are "
        "tested on; --out is needed. An interrupted comparison goes on when the same command is given again.",
    )
    option = group.add_argument
    option("--compare", nargs="*", metavar="NAME", help=f"all, or some of: {', '.join(ENTRANTS)}")
    option("--train-people", type=names, metavar="NAMES", help="default: all real ones, but those held out")
    option("--train-phantoms", type=_count, default=12, metavar="N", help="to train on; default: 12")
    option("--steps", type=_count, default=2000, metavar="N", help="of each training; default: 2000")
    option("--minutes", type=_minutes, default=math.inf, metavar="X", help="of each training; default: no limit")
    option(
        "--look-minutes",
        type=_minutes,
        default=math.inf,
        metavar="X",
        help="of training between looks at the Dice; default: at the end only",
    )
    option("--batch", type=_count, default=2, metavar="N", help="patches a step; default: 2")
    option(
        "--largest-patch", type=_count, default=512, metavar="N", help="voxels a side; default: the papers' patches"
    )
    option("--slice-step", type=_count, default=1, metavar="N", help="slices a window moves on by; default: 1")
    option("--memory-gb", type=float, default=16, metavar="X", help="that the largest patch must fit; default: 16")


def run_comparison(args: argparse.Namespace) -> int:
    """Prints a line for each case and the table at the end; writes it to `args.out`, whatever interrupts it."""
    from FemurSegLib.errors import InputError
    from FemurSegLib.evaluation.comparison.run import compare
    from FemurSegLib.evaluation.comparison.table import comparison_table, write_comparison
    from FemurSegLib.phantom.shapes import people_in

    if not (args.out and args.shapes):
        raise InputError("A comparison needs a folder and bone shapes.", "Give --out and --shapes.")
    apart = {*HELD_OUT, *args.people}
    people = args.train_people or [name for name in people_in(args.shapes) if name not in apart]
    comparison = Comparison(
        out=args.out,
        shapes=args.shapes,
        cache=args.cache,
        train_people=tuple(people),
        test_people=tuple(args.people),
        train_phantoms=args.train_phantoms,
        test_phantoms=args.phantoms or 6,
        fields=("legs",) if list(args.field_of_view) == list(FIELDS) else tuple(args.field_of_view),
        spacing_mm=tuple(args.spacing),
        seed=args.seed,
        steps=args.steps,
        minutes=args.minutes,
        look_minutes=args.look_minutes,
        batch=args.batch,
        largest_patch=args.largest_patch,
        slice_step=args.slice_step,
        memory_gb=args.memory_gb,
        device=_device(args.device),
        data_set=args.data_set,
    )
    rows = []
    try:
        for row in compare(comparison, args.compare or tuple(ENTRANTS), lambda line: print(line, flush=True)):
            rows.append(row)
    finally:
        if rows:
            print("", comparison_table(rows, comparison), sep="\n")
            write_comparison(args.out, rows, comparison)
            print(f"\nWritten to {args.out}")
    return 0


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than one")
    return int(text)


def _minutes(text: str) -> float:
    if not float(text) > 0:
        raise argparse.ArgumentTypeError(f"{text} is no time")
    return float(text)


def _device(name: str) -> str:
    from FemurSegLib.segmentation.inference import pick_device

    return str(pick_device(name))
