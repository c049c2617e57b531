"""`femurseg train export`: from a finished training to the weights that `femurseg segment --weights` uses."""

from __future__ import annotations

import argparse
from pathlib import Path

from FemurSegLib.models import KINDS


def add_export(kinds) -> None:
    """Enters the command under the kinds of `femurseg train`."""
    parser = kinds.add_parser(
        "export",
        help="enter the weights of a training into the set that their data allow",
        description="Enter the best weights of a training, as tensors in half precision with the terms of their "
        "data, into a folder of models. The set (open, research) follows from what the training learned from. A "
        "card is begun where there is none; one that is there stays.",
    )
    option = parser.add_argument
    option("run_folder", type=Path, metavar="RUN", help="folder of a training, or one file of weights in it")
    option("--role", choices=KINDS, help="enter only this; default: all in RUN, as both views of a detector")
    option("--to", type=Path, metavar="DIR", help="folder of models; default: Resources/Models")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the files, and what the set still lacks. Raises InputError, ModelError."""
    from FemurSegLib import models
    from FemurSegLib.segmentation.confidence import load_calibration
    from FemurSegLib.training.export import export_run

    for path in export_run(args.run_folder, args.to, args.role):
        model = models.table(path.parent)[path.stem]
        print(f"{path}  ({model.data_set}, {model.licence}, SHA-256 {model.sha256[:16]}…)")
    lacking = [models.PARTS[kind] for kind in models.missing(model.data_set, path.parent)]
    print(f"The {model.data_set} set is complete." if not lacking else f"Still missing: {', '.join(lacking)}.")
    own = [each for each in models.table(path.parent).values() if each.data_set == model.data_set]
    detectors = [each for each in own if each.kind in models.DETECTORS]
    for segmenter in (each for each in own if each.kind == "segmenter"):
        fitted = load_calibration(segmenter.name, path.parent)
        if not (fitted and fitted.fits([segmenter, *detectors])):
            print(
                f"No confidence is fitted for {segmenter.name} with these detectors: femurseg evaluate --calibrate."
            )
    return 0
