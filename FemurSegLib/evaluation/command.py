"""`femurseg evaluate`: the tables of Xie 2025 over labelled CTs and over phantoms of people left out."""

from __future__ import annotations

import argparse
import time
import traceback
from pathlib import Path

from FemurSegLib.evaluation.comparison.command import add_comparison_options, run_comparison
from FemurSegLib.evaluation.mask_comparison import add_parser as add_compare
from FemurSegLib.models import add_weights_option
from FemurSegLib.phantom.command import FIELDS, HELD_OUT, add_shape_options, names


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure results against references",
        description="Run the whole way from CT to mask on labelled CTs and phantoms, and print IoU, AP "
        "and mAP of the boxes, and Dice, sensitivity, specificity, pixel accuracy and distances of the "
        "masks, a line a case. CTs without labels are run too, and what came of them is told. Confidences "
        "must be calibrated on people that the weights have not seen.",
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        default=[],
        metavar="PLACE",
        help="folders with NAME_CT and NAME_femurs files, lists (CSV or JSON), single CT files",
    )
    parser.add_argument("--only", type=names, default=[], metavar="NAMES", help="of these cases; default: all")
    parser.add_argument("--phantoms", type=int, default=0, metavar="N", help="how many; needs --shapes")
    add_shape_options(parser, people=HELD_OUT)
    parser.add_argument(
        "--field-of-view",
        nargs="+",
        choices=FIELDS,
        default=list(FIELDS),
        metavar="NAME",
        help=f"of the phantoms, in turn; default: {' '.join(FIELDS)}",
    )
    parser.add_argument(
        "--spacing",
        nargs=3,
        type=float,
        default=(1.0, 1.0, 1.5),
        metavar=("X", "Y", "Z"),
        help="of the phantoms, mm; default: 1 1 1.5",
    )
    parser.add_argument(
        "--radiographs",
        type=Path,
        metavar="DIR",
        help="only look at how the detectors do on the radiographs that a detector's training was validated on",
    )
    parser.add_argument("--seed", type=int, default=1000, metavar="N", help="of the first phantom; default: 1000")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for tables, curves and pictures")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="folder for report.html: one page with all tables and pictures"
    )
    parser.add_argument(
        "--runs",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="training runs (folders of `femurseg train`) whose curves the report shows",
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="FILE",
        help="fit the confidence to the Dice of these cases and of pieces of them, and write it to FILE; "
        "a folder of weights gets confidence.json",
    )
    parser.add_argument("--no-pictures", action="store_true", help="leave the pictures away")
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto", help="default: auto")
    parser.add_argument("--network", default="segresnet", metavar="NAME", help="default: segresnet")
    add_weights_option(parser)
    add_comparison_options(parser)
    parser.set_defaults(run=run)
    add_compare(commands)


def run(args: argparse.Namespace) -> int:
    """Runs every case, prints a line for each and the tables at the end, and writes them to `args.out`."""
    from FemurSegLib.errors import InputError, OutputError
    from FemurSegLib.evaluation.figures import draw_precision_recall
    from FemurSegLib.evaluation.tables import boxes_table, masks_table, write_tables

    if args.compare is not None:
        return run_comparison(args)
    if args.radiographs:
        from FemurSegLib.evaluation.radiographs import print_figures

        print_figures(args.radiographs, "cpu" if args.device == "auto" else args.device, args.data_set)
        return 0
    if not args.cases and not args.phantoms:
        raise InputError("There is nothing to evaluate.", "Give --cases, or --phantoms with --shapes.")
    if args.phantoms and not args.shapes:
        raise InputError("Phantoms need bone shapes.", "Give their folder with --shapes.")
    if args.out:
        try:
            args.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"The folder {args.out} cannot be made.", "Choose another one.") from error
    report = None
    if args.report:
        from FemurSegLib.evaluation.report import Report

        report = Report(args.report, args.network, args.runs, args.data_set)
    scores, people = [], {}
    try:
        for name, person, load in _cases(args):
            people[name] = person
            scores.append(evaluate_case(name, load, args, report))
            print(f"{scores[-1].name}: {scores[-1].verdict}, {scores[-1].seconds:.1f} s", flush=True)
    finally:  # what was measured is kept, also when the rest is interrupted
        print()
        for table in filter(None, (boxes_table(scores), masks_table(scores))):
            print(table, end="\n\n\n")
        if args.out and scores:
            settings = {k: v for k, v in vars(args).items() if k != "run"}
            write_tables(args.out, scores, settings)
            draw_precision_recall(args.out / "precision_recall.png", scores)
            print(f"Written to {args.out}")
        if report and scores:
            print(f"Written to {report.write(scores)}")
    if args.calibrate:
        _calibrate(args, scores, people)
    return 0


def _calibrate(args, scores, people) -> None:
    from FemurSegLib import models
    from FemurSegLib.evaluation.calibration import judged_of, write_calibration

    used = [models.find("segmenter", args.network, data_set=args.data_set)]
    used += [models.find(kind, data_set=args.data_set) for kind in models.DETECTORS]
    entry = write_calibration(args.calibrate, judged_of(scores, people), used)
    weights = ", ".join(f"{name} {value:.3g}" for name, value in entry["weights"].items())
    print(f"Confidence: intercept {entry['intercept']:.3g}, weights {weights}")
    print("Each person left out in turn:", ", ".join(f"{k} {v}" for k, v in entry["leave_one_person_out"].items()))


def evaluate_case(name: str, load, args, report=None):
    """CaseScore of one case; `load` returns the CT and its reference (or None); pictures are added to `report`.
    An error is a line, not the end."""
    from FemurSegLib.errors import FemurSegError
    from FemurSegLib.evaluation.pictures import draw_case
    from FemurSegLib.evaluation.score import failed, score
    from FemurSegLib.pipeline import segment_femurs
    from FemurSegLib.volume import Volume

    ct = reference = segmentation = None
    begun = time.perf_counter()
    try:
        ct, reference = load()
        begun = time.perf_counter()
        segmentation = segment_femurs(
            ct, device=args.device, network=args.network, data_set=args.data_set, anatomy=False
        )
        out = score(name, segmentation, reference)
    except Exception as error:
        if not isinstance(error, FemurSegError):  # a fault of ours; the other cases still count
            traceback.print_exc()
        out = failed(name, error, reference, time.perf_counter() - begun)
    result = Volume(segmentation.labels, segmentation.grid) if segmentation else None
    if report and ct is not None:
        report.add(out, ct, result, reference)
    if args.out and not args.no_pictures and ct is not None:
        dice = [f"{f.side.split('_')[0]} {f.dice:.3f}" for f in out.femurs if f.present]
        title = f"{name}: {out.verdict}" + (f"  Dice {', '.join(dice)}" if dice else "")
        draw_case(args.out / "pictures" / f"{name}.png", ct, result, reference, title)
    return out


def _cases(args):
    """Yields (name, person, function that loads CT and reference); with pieces of each case to calibrate with."""
    for name, person, load in _whole_cases(args):
        yield name, person, load
        if args.calibrate:
            yield from _pieces(name, person, load)


def _pieces(name, person, load):
    from FemurSegLib.errors import FemurSegError
    from FemurSegLib.evaluation.calibration import shortened

    try:
        ct, reference = load()
    except FemurSegError:  # told with the whole case
        return
    for what, piece in (shortened(ct, reference) if reference else {}).items():
        yield f"{name}~{what}", person, lambda piece=piece: piece


def _whole_cases(args):
    if args.cases:
        from FemurSegLib.errors import InputError
        from FemurSegLib.training.cases import find_cases

        cases = find_cases(*args.cases, unlabelled=True)
        if unknown := sorted(set(args.only) - {c.name for c in cases}):
            raise InputError(f"There is no case {unknown[0]}.", f"There are: {', '.join(c.name for c in cases)}.")
        for case in cases:
            if not args.only or case.name in args.only:
                yield case.name, _person(case), lambda case=case: _read(case)
    if args.phantoms:
        from FemurSegLib.evaluation.calibration import person_of
        from FemurSegLib.phantom.command import phantoms

        device = "cpu" if args.device == "mps" else args.device
        made = phantoms(
            args.shapes,
            args.people,
            args.phantoms,
            args.seed,
            args.field_of_view,
            args.spacing,
            device=device,
            cache=args.cache,
        )
        for name, phantom in made:
            yield name, person_of(name), lambda phantom=phantom: (phantom.ct, phantom.labels)


def _person(case) -> str:
    """As the list of cases says, else as the name does."""
    from FemurSegLib.evaluation.calibration import person_of

    return case.person if case.person != case.name else person_of(case.name)


def _read(case):
    from FemurSegLib.training.cases import read_case
    from FemurSegLib.volume import read_ct

    return read_case(case) if case.labels else (read_ct(case.ct), None)
