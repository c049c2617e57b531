"""`femurseg train segmenter|detector`: from phantoms and labelled CTs to weights, by default as Xie 2025."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

from FemurSegLib.phantom.command import HELD_OUT, add_shape_options, names
from FemurSegLib.segmentation.network import NETWORKS, recipe_of
from FemurSegLib.training.compare_sets_command import add_compare_sets
from FemurSegLib.training.compartments_command import add_compartments
from FemurSegLib.training.losses import LOSSES

VIEWS = ("coronal", "axial")


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train the networks",
        description="Train the networks on phantoms, on labelled CTs, or on both. An interrupted training "
        "goes on when the same command is given again.",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="NETWORK", required=True)
    _add_segmenter(kinds)
    _add_detector(kinds)
    _add_pseudo_labels(kinds)
    add_compartments(kinds, _add_shared)
    add_compare_sets(kinds, _add_shared, _add_learning)


def _add_segmenter(kinds) -> None:
    parser = kinds.add_parser(
        "segmenter",
        help="the network that finds the mask inside a region",
        description="Train the network that finds the mask inside a region. It is validated on those held out, and "
        "OUT/best.safetensors holds its best weights. Several GPUs or machines: torchrun --nproc-per-node=2 -m "
        "FemurSegLib train segmenter ...; --batch is that of each process.",
    )
    _add_shared(parser)
    _add_learning(parser)
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
    parser.set_defaults(run=train_segmenter, folds=None, fold=None)


def _add_learning(parser: argparse.ArgumentParser) -> None:
    """Network, patch, steps and all else that says how a segmenter learns; shared with `train compare-sets`."""
    option = parser.add_argument
    option("--network", default="segresnet", metavar="NAME", help=f"{', '.join(NETWORKS)}; default: segresnet")
    option(
        "--patch",
        type=int,
        nargs="+",
        metavar="N",
        help="voxels of 1 mm: one, or k j i; default: that of the network's paper, 160 for segresnet",
    )
    option("--batch", type=int, metavar="N", help="default: that of the network's paper, 4 for segresnet")
    option(
        "--steps",
        type=int,
        default=300 * 85 // 4,
        metavar="N",
        help="default: 6375, that is 300 epochs of 85 CTs",
    )
    option(
        "--learning-rate",
        type=float,
        metavar="X",
        help="default: that of the network's paper, 0.001 for segresnet",
    )
    option(
        "--loss",
        choices=LOSSES,
        help="dice_ce adds cross-entropy, dice_l2 the squared weights; default: that of the network's paper, "
        "dice for segresnet",
    )
    option(
        "--real-share",
        type=float,
        default=0.35,
        metavar="X",
        help="of patches from labelled CTs, where there are phantoms too; default: 0.35",
    )
    option(
        "--averaging",
        type=float,
        default=0.998,
        metavar="X",
        help="of the weights kept at a step; default: 0.998",
    )
    option("--save-every", type=int, default=100, metavar="N", help="steps between checkpoints; default: 100")
    option("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="default: auto")
    option("--start", type=Path, metavar="FILE", help="weights (safetensors) to start from")


def _add_detector(kinds) -> None:
    parser = kinds.add_parser("detector", help="the network that finds the femora in a radiograph")
    _add_shared(parser)
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
    parser.set_defaults(run=train_detector)


def _add_pseudo_labels(kinds) -> None:
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
    parser.set_defaults(run=make_pseudo_labels)


def _reasoned(text: str) -> tuple[str, str]:
    name, _, reason = text.partition("=")
    if not (name and reason.strip()):
        raise argparse.ArgumentTypeError(f"'{text}' names no reason; write NAME=REASON")
    return name, reason.strip()


def _add_shared(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option(
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of this training; goes on if it is there",
    )
    option(
        "--cases",
        nargs="+",
        default=[],
        metavar="PLACE",
        help="folders with NAME_CT and NAME_femurs files, or "
        "lists (CSV or JSON with the columns ct, labels, name, person)",
    )
    add_shape_options(parser)
    option(
        "--set",
        choices=("open", "research"),
        dest="data_set",
        help="open: learn from nothing under a non-commercial licence, the shape model by default; research: from "
        "all, real people and the shape model by default; default: what --people and --cases say",
    )
    option(
        "--hold-out",
        type=names,
        default=None,
        metavar="NAMES",
        help="people of the shapes and of the cases that "
        f"are left out of training; default: {','.join(HELD_OUT)}, for --set open samples of the shape model",
    )
    option("--minutes", type=float, default=math.inf, metavar="X", help="stop after this time; default: no limit")
    option("--device", choices=("auto", "cuda", "cpu"), default="auto", help="default: auto")
    option(
        "--workers",
        type=int,
        metavar="N",
        help="processes that prepare data on the CPU; default: 1, and 0 where a GPU paints them",
    )
    option("--seed", type=int, default=0, metavar="N", help="default: 0")
    option(
        "--export",
        nargs="?",
        const="",
        metavar="DIR",
        help="enter the weights into this folder of models when done; without a name into Resources/Models",
    )


def train_segmenter(args: argparse.Namespace) -> int:
    """Trains or goes on; prints a line every few steps."""
    from FemurSegLib.errors import CancelledError
    from FemurSegLib.training import segmenter
    from FemurSegLib.training.curves import draw_segmenter_curve
    from FemurSegLib.training.distributed import launched

    people, cases, held_out, notes = _material(args)
    settings = replace(
        learning_of(args),
        people=tuple(people),
        cases=tuple(cases),
        held_people=tuple(one for one in held_out if isinstance(one, str)),
        held_cases=tuple(one for one in held_out if not isinstance(one, str)),
        validate_every=args.validate_every,
        validation_patches=args.validation_patches,
        patience=args.patience,
    )
    notes = _note(args.out, people, cases, held_out, notes)
    is_first = launched().is_first
    try:
        weights = segmenter.train_segmenter(settings, report=lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        raise CancelledError("Stopped.", "The same command goes on from the last checkpoint.") from None
    finally:
        if is_first:
            _add_to(args.out / "settings.json", notes)
            draw_segmenter_curve(args.out)
    if not is_first:  # of several processes only one writes
        return 0
    if args.export is not None:
        from safetensors.torch import load_file

        from FemurSegLib.models import export_weights

        weights = export_weights(
            load_file(weights),
            f"segmenter_{args.network}",
            kind="segmenter",
            network=args.network,
            folder=args.export or None,
            terms=_terms(notes),
        )
    print(weights)
    return 0


def learning_of(args: argparse.Namespace):
    """The SegmenterTraining that the options of `_add_shared` and `_add_learning` ask for, of nobody yet."""
    from FemurSegLib.training.segmenter import SegmenterTraining

    recipe = recipe_of(args.network)
    patch = tuple(args.patch or recipe.patch)
    return SegmenterTraining(
        out=args.out,
        shapes=args.shapes,
        real_share=args.real_share,
        network=args.network,
        patch=patch if len(patch) == 3 else patch[:1] * 3,
        batch=args.batch or recipe.batch,
        steps=args.steps,
        learning_rate=args.learning_rate or recipe.learning_rate,
        loss=args.loss or recipe.loss,
        averaging=args.averaging,
        seed=args.seed,
        device=_device(args.device),
        workers=args.workers,
        minutes=args.minutes,
        save_every=args.save_every,
        cache=args.cache,
        precision=args.precision,
        start=args.start,
    )


def train_detector(args: argparse.Namespace) -> int:
    """Makes the radiographs that are not there yet, then trains or goes on; prints a line an epoch."""
    from FemurSegLib.errors import CancelledError, InputError
    from FemurSegLib.training import detector
    from FemurSegLib.training.curves import draw_detector_curve
    from FemurSegLib.training.distributed import launched
    from FemurSegLib.training.radiographs import RadiographSet, make_radiographs_of

    if launched().size > 1:
        raise InputError("The detector is trained by one process.", "Start it without torchrun.")
    people, cases, held_out, notes = _material(args)
    notes["origins"] = sorted({*notes["origins"], "ultralytics"})
    held_people = [name for name in held_out if isinstance(name, str)]
    held_cases = [case for case in held_out if not isinstance(case, str)]
    if not held_people and not held_cases:
        raise InputError("The detector needs somebody to be validated on.", "Name people or cases with --hold-out.")
    made = RadiographSet(
        out=args.out / "radiographs",
        shapes=args.shapes if people else None,
        people=tuple(people),
        cache=args.cache,
        patients=args.patients,
        cases=tuple(cases),
        per_case=args.per_case,
        seed=args.seed,
        workers=args.workers or 1,
    )
    validated = replace(
        made,
        split="val",
        shapes=args.shapes if held_people else None,
        people=tuple(held_people),
        patients=args.validation_patients,
        cases=tuple(held_cases),
    )
    views = VIEWS if args.view == "both" else (args.view,)
    notes = _note(args.out, people, cases, held_out, notes)
    try:
        for each in (made, validated):
            folder = make_radiographs_of(each)
        for view in views:
            run = args.out / view
            settings = detector.DetectorTraining(
                out=run,
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
                device=_device(args.device).removeprefix("cuda:"),
                threads=args.threads,
                bf16=args.bf16,
                seed=args.seed,
            )
            try:
                run = detector.train_detector(settings, report=lambda epoch, view=view: _tell(view, epoch))
            finally:
                draw_detector_curve(run)
            if args.export is not None:
                run = detector.export_detector(run, view, args.export or None, terms=_terms(notes))
            print(run)
    except KeyboardInterrupt:
        raise CancelledError("Stopped.", "The same command goes on from the last epoch.") from None
    return 0


def make_pseudo_labels(args: argparse.Namespace) -> int:
    """Labels the cases and prints a line for each; ends with how many may be trained on."""
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


def _material(args):
    """People and cases to learn from, those held out (names of people, and cases), and notes: `origins`, the set
    that was asked for and, in cross-validation, `folds`. Raises InputError.
    """
    from FemurSegLib.errors import InputError
    from FemurSegLib.phantom.shapes import people_in
    from FemurSegLib.training import sets
    from FemurSegLib.training.cases import find_cases, split

    usual = sets.OPEN_HELD_OUT if args.data_set == "open" else HELD_OUT
    hold_out = set(usual if args.hold_out is None else args.hold_out)
    real = people_in(args.shapes) if args.shapes else []
    if args.shapes and not real and not args.people and args.data_set != "open":
        raise InputError(f"There are no bone shapes in {args.shapes}.", "Give the folder that holds vsd/.")
    everyone = [*real, *(name for name in args.people if name not in real)]
    wanted = args.people or real
    if args.data_set and args.shapes:
        everyone += [name for name in (*sets.OPEN_PEOPLE, *sets.OPEN_HELD_OUT) if name not in everyone]
        kept = [] if args.data_set == "open" else real
        wanted = args.people or [*kept, *sets.OPEN_PEOPLE]
    cases = find_cases(*args.cases) if args.cases else []
    strangers = hold_out - set(everyone)
    if args.hold_out is None:
        strangers = set()
    known = {name for case in cases for name in (case.name, case.person)}
    cases, held_cases = split(cases, strangers | (hold_out & known))
    people = [name for name in wanted if name not in hold_out]
    if args.people and not args.shapes:
        raise InputError("People need bone shapes.", "Give their folder with --shapes.")
    notes = {}
    if vars(args).get("folds") or vars(args).get("fold"):
        cases, fold_cases, notes["folds"] = _fold(args, cases)
        held_cases += fold_cases
    if not people and not cases:
        raise InputError("There is nothing to train on.", "Give --shapes, --cases, or both.")
    origins = sets.origins_of_people(people) | sets.origins_of_cases(cases) | sets.origins_of_weights(args.start)
    sets.check(args.data_set, origins)
    notes |= {"asked_set": args.data_set, "origins": sorted(origins)}
    return people, cases, [*(name for name in everyone if name in hold_out), *held_cases], notes


def _fold(args, cases):
    """Cases to learn from, those of the fold, and a note; all people of all folds are told on screen.

    Cases whose labels weights made are no reference: they are learned from, unless their person is held out.
    """
    from FemurSegLib.errors import InputError
    from FemurSegLib.training.cases import folds, split
    from FemurSegLib.training.sets import is_pseudo

    if not (args.folds and args.fold and 1 <= args.fold <= args.folds):
        raise InputError("A fold has a number from 1 to --folds.", "Give both, as --folds 5 --fold 1.")
    parts = folds([case for case in cases if not is_pseudo(case)], args.folds)
    people = [sorted({case.person for case in part}) for part in parts]
    for number, names_of_part in enumerate(people, 1):
        chosen = f"  <- fold {number} of {args.folds} is held out" if number == args.fold else ""
        print(f"fold {number}: {', '.join(names_of_part)}{chosen}", flush=True)
    learned, held = split(cases, people[args.fold - 1])
    return learned, held, {"count": args.folds, "fold": args.fold, "people": people}


def _note(out: Path, people, cases, held_out, notes: dict) -> dict:
    """Writes what was learned from and what was not, and the licence that follows, for the card of the weights, and
    returns it.

    Raises InputError where an earlier run in `out` learned from somebody who is held out now, or from what the set
    does not allow: its weights know them.
    """
    from FemurSegLib.errors import InputError
    from FemurSegLib.training import sets
    from FemurSegLib.training.distributed import launched

    earlier, origins = out / "material.json", set(notes["origins"])
    if earlier.exists():
        known = json.loads(earlier.read_text())
        seen = {*known["people"], *known["cases"]} & {getattr(one, "name", one) for one in held_out}
        if seen:
            raise InputError(
                f"An earlier run in {out} was trained on {min(seen)}, who is held out now.",
                "Give another folder with --out, or hold out whom that run held out.",
            )
        origins |= set(known.get("origins", sets.origins_of_people(known["people"])))
        sets.check(notes["asked_set"], origins, f"the weights in {out}")
    out.mkdir(parents=True, exist_ok=True)
    named = {
        "people": list(people),
        "cases": [case.name for case in cases],
        "held_out": [getattr(one, "name", one) for one in held_out],
        **{key: value for key, value in notes.items() if key == "folds"},
        **sets.terms(origins),
    }
    if launched().is_first:
        partial = out / "material.partial"
        partial.write_text(json.dumps(named, indent=1))
        partial.replace(earlier)
    return named


def _terms(notes: dict) -> dict:
    return {key: notes[key] for key in ("set", "licence", "origins")}


def _add_to(path: Path, notes: dict) -> None:
    """Set, licence, origins and folds beside the settings of a training."""
    if path.exists():
        added = {key: value for key, value in notes.items() if key not in ("people", "cases", "held_out")}
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(json.loads(path.read_text()) | added, indent=1))
        partial.replace(path)


def _tell(view: str, epoch: dict) -> None:
    if epoch["epoch"] > epoch["of"]:  # ultralytics' look at the best weights, after the last epoch
        return
    numbers = {name.split("/")[-1]: value for name, value in epoch.items() if name not in ("epoch", "of")}
    words = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items() if value is not None)
    print(f"{view}  epoch {epoch['epoch']} of {epoch['of']}  {words}", flush=True)


def _device(name: str) -> str:
    """`cuda:N` for a GPU, `cpu` without."""
    import torch

    from FemurSegLib.training.distributed import own_gpu

    if name != "auto":
        return own_gpu() if name == "cuda" else name

    return own_gpu() if torch.cuda.is_available() else "cpu"
