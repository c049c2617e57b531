"""`femurseg train segmenter`: from phantoms and labelled CTs to the weights that find the mask."""

from __future__ import annotations

import argparse
from dataclasses import replace

from FemurSegLib.training.options import (
    add_learning_options,
    add_shared_options,
    add_validation_options,
    learning_of,
    validation_of,
)


def add_segmenter(kinds) -> None:
    """Enters the command under the kinds of `femurseg train`."""
    parser = kinds.add_parser(
        "segmenter",
        help="the network that finds the mask inside a region",
        description="Train the network that finds the mask inside a region. It is validated on those held out, and "
        "OUT/best.safetensors holds its best weights. Several GPUs or machines: torchrun --nproc-per-node=2 -m "
        "FemurSegLib train segmenter ...; --batch is that of each process.",
    )
    add_shared_options(parser)
    add_learning_options(parser)
    add_validation_options(parser)
    option = parser.add_argument
    option("--folds", type=int, metavar="N", help="cross-validation: divide the people of --cases into N folds")
    option("--fold", type=int, metavar="K", help="the fold held out in this training, 1 to N")
    parser.set_defaults(run=run, folds=None, fold=None)


def run(args: argparse.Namespace) -> int:
    """Trains or goes on; prints a line every few steps. Raises InputError, CancelledError."""
    from FemurSegLib.training import segmenter
    from FemurSegLib.training.material import material_of
    from FemurSegLib.training.running import carry_out

    material = material_of(args)
    settings = replace(
        learning_of(args),
        people=material.people,
        cases=material.cases,
        held_people=material.held_people,
        held_cases=material.held_cases,
        **validation_of(args),
    )
    return carry_out(args, material, segmenter.train_segmenter, settings)
