"""`femurseg train detector`: from radiographs of phantoms and labelled CTs to the weights that find the boxes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from FemurSegLib.training.options import add_shared_options, device_of

VIEWS = ("coronal", "axial")


def add_detector(kinds) -> None:
    """Enters the command under the kinds of `femurseg train`."""
    parser = kinds.add_parser("detector", help="the network that finds the femora in a radiograph")
    add_shared_options(parser)
    option = parser.add_argument
    option("--view", choices=(*VIEWS, "both"), default="both", help="default: both, one after the other")
    option(
        "--patients",
        type=int,
        default=90,
        metavar="N",
        help="phantoms, about ten radiographs of each; default: 90",
    )
    option("--validation-patients", type=int, default=12, metavar="N", help="from people held out; default: 12")
    option("--per-case", type=int, default=24, metavar="N", help="radiographs of each labelled CT; default: 24")
    option("--start", type=Path, metavar="FILE", help="weights to start from: yolov8n.pt or safetensors")
    option("--epochs", type=int, default=120, metavar="N", help="default: 120")
    option("--batch", type=int, default=32, metavar="N", help="default: 32")
    option("--image-size", type=int, default=640, metavar="N", help="pixels; default: 640")
    option("--learning-rate", type=float, default=1e-3, metavar="X", help="default: 0.001")
    option("--minimum-area-ratio", type=float, default=0.01, metavar="X", help="default: 0.01")
    option("--threads", type=int, metavar="N", help="of the CPU; default: all")
    option("--bf16", action="store_true", help="train in bfloat16")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Makes the radiographs that are not there yet, then trains or goes on; prints a line an epoch.

    Raises InputError, CancelledError.
    """
    from FemurSegLib.errors import CancelledError, InputError
    from FemurSegLib.training import detector
    from FemurSegLib.training.curves import draw_detector_curve
    from FemurSegLib.training.distributed import launched
    from FemurSegLib.training.export import export_run
    from FemurSegLib.training.material import material_of, note_material
    from FemurSegLib.training.radiographs import RadiographSet, make_radiographs_of

    if launched().size > 1:
        raise InputError("The detector is trained by one process.", "Start it without torchrun.")
    material = material_of(args)
    material = replace(material, origins=material.origins | {"ultralytics"})
    if not material.held_people and not material.held_cases:
        raise InputError("The detector needs somebody to be validated on.", "Name people or cases with --hold-out.")
    made = RadiographSet(
        out=args.out / "radiographs",
        shapes=args.shapes if material.people else None,
        people=material.people,
        cache=args.cache,
        patients=args.patients,
        cases=material.cases,
        per_case=args.per_case,
        seed=args.seed,
        workers=args.workers or 1,
    )
    validated = replace(
        made,
        split="val",
        shapes=args.shapes if material.held_people else None,
        people=material.held_people,
        patients=args.validation_patients,
        cases=material.held_cases,
    )
    views = VIEWS if args.view == "both" else (args.view,)
    note_material(args.out, material)
    try:
        for each in (made, validated):
            folder = make_radiographs_of(each)
        for view in views:
            trained = args.out / view
            settings = detector.DetectorTraining(
                out=trained,
                radiographs=folder,
                view=view,
                start=args.start,
                epochs=args.epochs,
                batch=args.batch,
                workers=1 if args.workers is None else args.workers,
                minimum_area_ratio=args.minimum_area_ratio,
                image_size=args.image_size,
                learning_rate=args.learning_rate,
                minutes=args.minutes / len(views),
                device=device_of(args.device).removeprefix("cuda:"),
                threads=args.threads,
                bf16=args.bf16,
                seed=args.seed,
            )
            try:
                trained = detector.train_detector(settings, report=lambda epoch, view=view: _tell(view, epoch))
            finally:
                draw_detector_curve(trained)
            if args.export is not None:
                [trained] = export_run(trained, args.export or None)
            print(trained)
    except KeyboardInterrupt:
        raise CancelledError("Stopped.", "The same command goes on from the last epoch.") from None
    return 0


def _tell(view: str, epoch: dict) -> None:
    if epoch["epoch"] > epoch["of"]:  # ultralytics' look at the best weights, after the last epoch
        return
    numbers = {name.split("/")[-1]: value for name, value in epoch.items() if name not in ("epoch", "of")}
    words = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items() if value is not None)
    print(f"{view}  epoch {epoch['epoch']} of {epoch['of']}  {words}", flush=True)
