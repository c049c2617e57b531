"""`femurseg train compartments`: from phantoms to the weights that part cortex from trabecular bone and marrow."""

from __future__ import annotations

import argparse

from FemurSegLib.training.options import (
    add_running_options,
    add_shared_options,
    add_validation_options,
    shared_of,
    validation_of,
)


def add_compartments(kinds) -> None:
    """Enters the command under the kinds of `femurseg train`."""
    parser = kinds.add_parser(
        "compartments",
        help="the network that finds the endosteal surface inside a mask",
        description="Train the network that finds the endosteal surface inside a mask, on phantoms. It is "
        "validated on phantoms of the people held out, and OUT/best.safetensors holds its best weights.",
    )
    add_shared_options(parser)
    option = parser.add_argument
    option("--patch", type=int, default=64, metavar="N", help="voxels of 1 mm, a multiple of 8; default: 64")
    option("--batch", type=int, default=2, metavar="N", help="default: 2")
    option("--steps", type=int, default=1500, metavar="N", help="default: 1500")
    option("--learning-rate", type=float, default=3e-3, metavar="X", help="default: 0.003")
    add_running_options(parser, averaging=0.995)
    add_validation_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains or goes on; prints a line every few steps. Raises InputError, CancelledError."""
    from FemurSegLib.errors import InputError
    from FemurSegLib.segmentation.compartment_network import SIZE_MULTIPLE
    from FemurSegLib.training import compartments
    from FemurSegLib.training.material import material_of
    from FemurSegLib.training.running import carry_out

    if args.cases:
        raise InputError("Labelled CTs do not say where the endosteal surface is.", "Give --shapes alone.")
    if args.patch % SIZE_MULTIPLE or args.patch <= 0:
        raise InputError(f"A patch of {args.patch} voxels cannot be halved three times.", "Take 64, for example.")
    material = material_of(args)
    settings = compartments.CompartmentTraining(
        **shared_of(args),
        **validation_of(args),
        people=material.people,
        held_people=material.held_people,
        patch=(args.patch,) * 3,
        batch=args.batch,
        learning_rate=args.learning_rate,
    )
    return carry_out(args, material, compartments.train_compartments, settings)
