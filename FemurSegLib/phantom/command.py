"""`femurseg phantom`: CTs painted over bone shapes, with exact labels of both femora."""

from __future__ import annotations

import argparse
import math
import os
import re
from pathlib import Path

FIELDS = ("legs", "femora", "hips", "knees", "thigh", "lower_leg")
"""As in phantom/case.py, which is not imported for --help; a test compares them."""
PHANTOM_NAME = re.compile(r"(?P<person>z\d{3}|llp26-\d+)_[a-z]+(_[a-z]+)?_\d{4,}(?P<open>_open)?")
"""What `phantoms` calls them; `open` where nothing is under a non-commercial licence, not even a foot."""
HELD_OUT = ("z019", "z035", "z062", "z064")
"""People that no weights are trained on unless somebody asks for it: those that `evaluate` paints."""


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "phantom",
        help="paint CTs with known femora",
        description="Paint CTs over bone shapes: NAME_CT.nii.gz with NAME_femurs.nii.gz (1 right, 2 left). "
        "The same options give the same voxels.",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the files")
    add_shape_options(parser, required=True)
    parser.add_argument(
        "--set", choices=("open", "research"), dest="data_set",
        help="open: no bones under a non-commercial licence; research: all; default: what --people says",
    )  # fmt: skip
    parser.add_argument("--count", type=int, default=1, metavar="N", help="how many; default: 1")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the first; default: 0")
    parser.add_argument(
        "--field-of-view", nargs="+", choices=FIELDS, default=["legs"], metavar="NAME",
        help=f"{', '.join(FIELDS)}; several are taken in turn; default: legs",
    )  # fmt: skip
    parser.add_argument(
        "--spacing", nargs=3, type=_positive, default=(0.8, 0.8, 0.8), metavar=("X", "Y", "Z"),
        help="of the voxels, mm; default: 0.8 0.8 0.8",
    )  # fmt: skip
    parser.add_argument("--matrix", type=_count, metavar="N", help="N x N columns and rows, as 512")
    parser.add_argument("--slices", type=_count, metavar="N", help="number of slices, as 1400")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="default: auto")
    parser.set_defaults(run=run)


def add_shape_options(parser: argparse.ArgumentParser, required: bool = False, people=()) -> None:
    """--shapes, --people and --cache: which bones. Shared with the commands that paint phantoms."""
    parser.add_argument(
        "--shapes", type=Path, required=required, metavar="DIR",
        help="folder with bone shapes: vsd/ and llp26_left_limb.npz",
    )  # fmt: skip
    parser.add_argument(
        "--people", "--person", type=names, default=list(people), metavar="NAMES",
        help="z013,z019 (real), llp26-0:60 (samples of the shape model), in turn; "
        f"default: {','.join(people) or 'all real ones'}",
    )  # fmt: skip
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="where shapes are kept ready for the next time (5 MB each)"
    )


def names(text: str) -> list[str]:
    """Names separated by commas; `llp26-3:6` stands for llp26-3, llp26-4 and llp26-5."""
    out = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        stem, _, span = name.rpartition("-")
        first, colon, last = span.partition(":")
        if colon and not (stem and first.isdigit() and last.isdigit()):
            raise argparse.ArgumentTypeError(f"'{name}' is not a name or a range of names like llp26-0:60")
        out += [f"{stem}-{n}" for n in range(int(first), int(last))] if colon else [name]
    return out


def run(args: argparse.Namespace) -> int:
    """Paints, writes, and prints a line a phantom."""
    from FemurSegLib.errors import OutputError
    from FemurSegLib.training import sets
    from FemurSegLib.volume import write_volume

    if args.data_set == "open":
        args.people = args.people or list(sets.OPEN_PEOPLE)
        sets.check("open", sets.origins_of_people(args.people), "painting these people")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {args.out} cannot be made.", "Choose another one.") from error
    made = phantoms(args.shapes, args.people, args.count, args.seed, args.field_of_view, args.spacing,
                    args.matrix, args.slices, args.device, args.cache)  # fmt: skip
    for name, phantom in made:
        for volume, end in ((phantom.ct, "CT"), (phantom.labels, "femurs")):
            # Written under another name first, so that a pair of files is whole or not there.
            partial = args.out / f".{name}_{end}.partial.nii.gz"
            write_volume(partial, volume)
            os.replace(partial, args.out / f"{name}_{end}.nii.gz")
        print(f"{name}  {phantom.ct.grid.describe_size()} voxels", flush=True)
    return 0


def phantoms(shapes, people, count, seed, fields_of_view, spacing_mm, matrix=None, slices=None,
             device="auto", cache=None):  # fmt: skip
    """Yields (name, Phantom) `count` times; people and fields of view are taken in turn, seeds count up.

    A name tells what it was made from, as `z019_legs_0007`, and ends in `_open` where nothing in it is under a
    non-commercial licence. Raises InputError for shapes that are not there.
    """
    from FemurSegLib.errors import InputError
    from FemurSegLib.phantom.case import sample_phantom
    from FemurSegLib.phantom.shapes import OPEN_FEET, feet_for, load_person, people_in

    people = people or people_in(shapes)
    if not people:
        raise InputError(f"There are no bone shapes in {shapes}.", "Give the folder that holds vsd/.")
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    feet = load_person(shapes, feet_for(people), cache)
    end = "_open" if feet_for(people) == OPEN_FEET else ""
    for number in range(count):
        field = fields_of_view[number % len(fields_of_view)]
        name = people[(number + number // math.lcm(len(people), len(fields_of_view))) % len(people)]
        person = load_person(shapes, name, cache)
        phantom = sample_phantom([person], feet, seed + number, field, spacing_mm, matrix, slices, device)
        yield f"{name}_{field}_{seed + number:04d}{end}", phantom


def _positive(text: str) -> float:
    if not 0.1 <= float(text) <= 20:
        raise argparse.ArgumentTypeError(f"{text} mm is not a spacing of a CT")
    return float(text)


def _count(text: str) -> int:
    if not 8 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text} is not a number of voxels of a CT")
    return int(text)
