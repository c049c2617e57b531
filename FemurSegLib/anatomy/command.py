"""`femurseg measure`: everything the femora in a mask tell, whether the mask was made here or elsewhere."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from FemurSegLib.models import add_weights_option

PERTURBATIONS = 4
"""Copies of a mask read for the spread, unless asked otherwise: all turned, two mirrored, one rough."""


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "measure",
        help="measure the femora of a mask",
        description="Find landmarks and axes of the femora in a labelmap (1 right, 2 left), and print angles, "
        "lengths and the volumes of regions; with the CT also Hounsfield units, and cortex and marrow apart. What "
        "a truncated femur cannot give is told, not guessed.",
    )
    parser.add_argument("mask", metavar="MASK", help="labelmap: NIfTI, NRRD or MetaImage")
    parser.add_argument("--ct", metavar="CT", help="the CT of the mask, on the same grid")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write everything, landmarks too")
    parser.add_argument(
        "--perturbations",
        type=_count,
        default=PERTURBATIONS,
        metavar="N",
        help="read N turned, mirrored or roughened copies too and give the spread (seconds each); "
        f"default: {PERTURBATIONS}",
    )
    add_compartment_options(parser, default="network")
    add_weights_option(parser)
    parser.set_defaults(run=run)


def add_compartment_options(parser, default: str) -> None:
    """`--compartments` and `--calibration`, for every command that reads a bone with its CT."""
    parser.add_argument(
        "--compartments",
        choices=("network", "threshold", "none"),
        default=default,
        help="how to tell cortical bone from trabecular bone and marrow: by a network, or by Otsu's threshold on "
        f"the CT; default: {default}",
    )
    parser.add_argument(
        "--calibration",
        metavar="LINE|FILE",
        help="for mineral density: slope,intercept (mg/cm3 per HU, mg/cm3), or a CSV or JSON file of phantom rods "
        "(density_mg_cm3, hu)",
    )


def compartment_options(args: argparse.Namespace):
    """(method or None, Calibration or None) of the options above. Raises InputError."""
    calibration = None
    if args.calibration:
        from .density import read_calibration

        calibration = read_calibration(args.calibration)
    return None if args.compartments == "none" else args.compartments, calibration


def run(args: argparse.Namespace) -> int:
    """Prints a table a femur, and writes `args.out`. Raises InputError, NoFemurError or OutputError."""
    from FemurSegLib import __version__, models
    from FemurSegLib.anatomy.record import models_of, read_femurs
    from FemurSegLib.errors import InputError, NoFemurError, OutputError
    from FemurSegLib.sides import DISPLAY_NAMES
    from FemurSegLib.volume import read_ct, read_labelmap
    from FemurSegLib.whole_file import write_text

    if args.out and not args.out.absolute().parent.is_dir():
        raise OutputError(f"{args.out.absolute().parent} is not a folder.", "Choose a folder that is there.")
    method, calibration = compartment_options(args)
    if calibration is not None and not args.ct:
        raise InputError("A density needs the CT.", "Give it with --ct.")
    if method == "network" and args.ct:
        models.find("compartments", data_set=args.data_set)  # what is not there is told before any work
    mask = read_labelmap(args.mask)
    ct = read_ct(args.ct) if args.ct else None
    if ct is not None and not ct.grid.matches(mask.grid, tolerance_mm=0.1):
        raise InputError("The CT and the mask do not lie on the same grid.", "Give the CT the mask was made from.")
    anatomy = read_femurs(
        mask.voxels,
        mask.grid,
        None if ct is None else ct.voxels,
        perturbations=args.perturbations,
        compartments=method,
        calibration=calibration,
        data_set=args.data_set,
    )
    for finding in anatomy.findings:
        print(f"Note: {finding.message}", file=sys.stderr)
    if not anatomy.femurs and not anatomy.findings:
        raise NoFemurError(
            f"{Path(args.mask).name} holds no femur.", "Labels are 1 for the right femur and 2 for the left one."
        )
    for side, record in anatomy.femurs.items():
        print(f"\n{DISPLAY_NAMES[side]}\n{table(record)}", flush=True)
    if args.out:
        warnings = [{"code": f.code, "message": f.message, "side": f.side} for f in anatomy.findings]
        used = models_of(anatomy.femurs.values(), args.data_set)
        content = {
            "femurseg_version": __version__,
            "mask": str(Path(args.mask).absolute()),
            "ct": str(Path(args.ct).absolute()) if args.ct else None,
            "perturbations": args.perturbations,
            "warnings": warnings,
            "weights": models.terms_of(used),
            "models": [{"name": m.name, "file": m.file, "sha256": m.sha256} for m in used],
            "femurs": anatomy.femurs,
        }
        write_text(args.out, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return 0


def table(record: dict) -> str:
    """Measurements, regions and compartments of one femur (`femur_record`), a line each."""
    rows = []
    for m in record["measurements"].values():
        unit = {"deg": "°", "mm2": " mm²"}.get(m["unit"], f" {m['unit']}")
        spread = f"  ± {m['sd']:.2f}" if "sd" in m else ""
        rows.append((m["name"], m["reason"] if m["value"] is None else f"{m['value']:.1f}{unit}{spread}"))
    for region in record["regions"].values():
        told = region["reason"] if region["volume_ml"] is None else _contents(region)
        rows.append((f"Region: {region['name']}", told))
    told = record["compartments"]
    for key, name in (("cortical", "Cortical bone"), ("inside", "Trabecular bone and marrow")):
        rows.append(
            (name, f"not known: {told['reason']}" if "reason" in told else _contents(told["compartments"][key]))
        )
    return "\n".join(f"  {name:50s} {told}" for name, told in rows)


def _contents(entry: dict) -> str:
    parts = [f"{entry['volume_ml']:.1f} ml"]
    if entry.get("cortical_ml") is not None:
        parts.append(f"{entry['cortical_ml']:.1f} ml of it cortical")
    if entry["mean_hu"] is not None:
        parts.append(f"{entry['mean_hu']:.0f} HU")
    if entry["density_mg_cm3"] is not None:
        parts.append(f"{entry['density_mg_cm3']:.0f} mg/cm³")
    return ", ".join(parts)


def _count(text: str) -> int:
    if not 0 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1000")
    return int(text)
