"""`femurseg train segmenter`: from phantoms and labelled CTs to the weights that find the mask."""

from __future__ import annotations

import argparse
from dataclasses import replace

from FemurSegLib.training.options import add_learning_options, add_shared_options, learning_of


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
    option("--folds", type=int, metavar="N", help="cross-validation: divide the people of --cases into N folds")
    option("--fold", type=int, metavar="K", help="the fold held out in this training, 1 to N")
    parser.set_defaults(run=run, folds=None, fold=None)


def run(args: argparse.Namespace) -> int:
    """Trains or goes on; prints a line every few steps. Raises InputError, CancelledError."""
    from FemurSegLib.errors import CancelledError
    from FemurSegLib.training import segmenter
    from FemurSegLib.training.curves import draw_segmenter_curve
    from FemurSegLib.training.distributed import launched
    from FemurSegLib.training.material import add_to_settings, material_of, note_material

    material = material_of(args)
    settings = replace(
        learning_of(args),
        people=material.people,
        cases=material.cases,
        held_people=material.held_people,
        held_cases=material.held_cases,
        validate_every=args.validate_every,
        validation_patches=args.validation_patches,
        patience=args.patience,
    )
    notes = note_material(args.out, material)
    is_first = launched().is_first
    try:
        weights = segmenter.train_segmenter(settings, report=lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        raise CancelledError("Stopped.", "The same command goes on from the last checkpoint.") from None
    finally:
        if is_first:
            add_to_settings(args.out, notes)
            draw_segmenter_curve(args.out)
    if not is_first:  # of several processes only one writes
        return 0
    if args.export is not None:
        from FemurSegLib.training.export import export_run

        [weights] = export_run(args.out, args.export or None)
    print(weights)
    return 0
