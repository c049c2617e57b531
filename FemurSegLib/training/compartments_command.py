"""`femurseg train compartments`: from phantoms to the weights that part cortex from trabecular bone and marrow."""

from __future__ import annotations

import argparse

from FemurSegLib.training.options import add_running_options, add_shared_options, device_of


def add_compartments(kinds) -> None:
    """Enters the command under the kinds of `femurseg train`."""
    parser = kinds.add_parser("compartments", help="the network that finds the endosteal surface inside a mask")
    add_shared_options(parser)
    option = parser.add_argument
    option("--patch", type=int, default=64, metavar="N", help="voxels of 1 mm, a multiple of 8; default: 64")
    option("--batch", type=int, default=2, metavar="N", help="default: 2")
    option("--steps", type=int, default=1500, metavar="N", help="default: 1500")
    option("--learning-rate", type=float, default=3e-3, metavar="X", help="default: 0.003")
    add_running_options(parser, averaging=0.995)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains or goes on; prints a line every few steps. Raises InputError, CancelledError."""
    from FemurSegLib.errors import CancelledError, InputError
    from FemurSegLib.segmentation.compartment_network import SIZE_MULTIPLE
    from FemurSegLib.training import compartments
    from FemurSegLib.training.curves import draw_segmenter_curve
    from FemurSegLib.training.material import material_of, note_material

    if args.cases:
        raise InputError("Labelled CTs do not say where the endosteal surface is.", "Give --shapes alone.")
    if args.patch % SIZE_MULTIPLE or args.patch <= 0:
        raise InputError(f"A patch of {args.patch} voxels cannot be halved three times.", "Take 64, for example.")
    material = material_of(args)
    settings = compartments.CompartmentTraining(
        out=args.out,
        shapes=args.shapes,
        people=material.people,
        cache=args.cache,
        patch=(args.patch,) * 3,
        batch=args.batch,
        steps=args.steps,
        learning_rate=args.learning_rate,
        averaging=args.averaging,
        seed=args.seed,
        device=device_of(args.device),
        workers=1 if args.workers is None else args.workers,
        minutes=args.minutes,
        save_every=args.save_every,
        precision=args.precision,
        start=args.start,
    )
    note_material(args.out, material)
    try:
        weights = compartments.train_compartments(settings, report=lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        raise CancelledError("Stopped.", "The same command goes on from the last checkpoint.") from None
    finally:
        draw_segmenter_curve(args.out)
    if args.export is not None:
        from FemurSegLib.training.export import export_run

        [weights] = export_run(args.out, args.export or None)
    print(weights)
    return 0
