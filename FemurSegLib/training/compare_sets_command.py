"""`femurseg train compare-sets`: which bones and which CTs make the better segmenter."""

from __future__ import annotations

import argparse
from pathlib import Path

from FemurSegLib.training.options import add_learning_options, add_shared_options, learning_of

FIELDS = ("hips", "knees", "thigh", "lower_leg")
"""Of the phantoms that are judged: small ones, of all parts."""
SPACING_MM = (1.5, 1.5, 1.5)
FIRST_SEED = 9000


def add_compare_sets(kinds) -> None:
    """Enters the command under the kinds of `femurseg train`."""
    parser = kinds.add_parser(
        "compare-sets",
        help="train on six sets of bones and CTs with one budget, and judge them on the same cases",
        description="Train the same segmenter on the shape model alone, on real people's bones alone, and on both, "
        "each without and with the labelled CTs, and print a table of how good each is on the CTs and the people "
        "that --hold-out names. Interrupted, it goes on when the same command is given again.",
    )
    add_shared_options(parser)
    add_learning_options(parser)
    option = parser.add_argument
    option("--samples", type=int, default=60, metavar="N", help="of the shape model, to learn from; default: 60")
    option(
        "--phantoms",
        type=int,
        default=8,
        metavar="N",
        help="of people held out, painted once and judged beside the CTs held out; default: 8",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains, judges, prints a table. Raises InputError, CancelledError."""
    from FemurSegLib.errors import CancelledError, InputError
    from FemurSegLib.phantom.command import HELD_OUT
    from FemurSegLib.phantom.shapes import people_in
    from FemurSegLib.training.cases import find_cases, split
    from FemurSegLib.training.compare_sets import compare, contestants, table

    if not args.shapes or not args.cases:
        raise InputError("Bones and labelled CTs are compared.", "Give both --shapes and --cases.")
    if args.data_set or args.export is not None or args.people:
        raise InputError("All sets are compared, and none is shipped.", "Leave --set, --people and --export away.")
    hold_out = set(HELD_OUT if args.hold_out is None else args.hold_out)
    people = people_in(args.shapes)
    held_people = [name for name in people if name in hold_out]
    cases, judged = split(find_cases(*args.cases), hold_out - set(people) - set(HELD_OUT))
    real = [name for name in people if name not in hold_out]
    sampled = [f"llp26-{n}" for n in range(args.samples) if f"llp26-{n}" not in hold_out]
    if not (real and sampled and cases):
        raise InputError("One of the sets is empty.", "Hold out fewer people and cases.")
    if args.phantoms and held_people:
        judged = [*judged, *_painted(args, held_people)]
    if not judged:
        raise InputError("There is nothing to judge by.", "Name people and cases with --hold-out.")
    try:
        lines = compare(
            contestants(real, sampled, cases),
            learning_of(args),
            judged,
            minutes=args.minutes,
            report=lambda line: print(line, flush=True),
        )
    except KeyboardInterrupt:
        raise CancelledError("Stopped.", "The same command goes on from the last checkpoint.") from None
    print()
    print(table(lines))
    if any(len(line["scores"]) < len(judged) for line in lines):
        print("Not all is done; the same command goes on.")
    return 0


def _painted(args, people: list[str]) -> list:
    """Cases of phantoms of these people, painted into out/held_out where they are not there yet."""
    from FemurSegLib.phantom import command
    from FemurSegLib.training.cases import find_cases

    folder: Path = args.out / "held_out"
    if not folder.is_dir() or len(list(folder.glob("*_femurs.nii.gz"))) < args.phantoms:
        command.run(
            argparse.Namespace(
                out=folder,
                shapes=args.shapes,
                people=people,
                count=args.phantoms,
                seed=FIRST_SEED,
                field_of_view=FIELDS,
                spacing=SPACING_MM,
                matrix=None,
                slices=None,
                device=args.device,
                cache=args.cache,
                data_set=None,
            )
        )
    return find_cases(folder)
