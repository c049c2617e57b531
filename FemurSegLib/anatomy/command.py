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
        "--surfaces",
        type=Path,
        metavar="DIR",
        help="write each femur's surface, painted with the thickness of its cortex (VTP), into this folder",
    )
    add_spread_option(parser, PERTURBATIONS, "--perturbations")
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


def add_spread_option(parser, default: int, *other_names: str) -> None:
    """`--spread`, the number of perturbed copies, under other names too."""
    parser.add_argument(
        "--spread",
        *other_names,
        type=_count,
        default=default,
        metavar="N",
        help="measure N turned, mirrored or roughened copies of each femur too, a second or two each, and tell how "
        f"far each number moves; default: {default}",
    )


def compartment_options(args: argparse.Namespace):
    """(method or None, Calibration or None) of the options above. Raises InputError."""
    calibration = None
    if args.calibration:
        from .density import read_calibration

        calibration = read_calibration(args.calibration)
    return None if args.compartments == "none" else args.compartments, calibration


def run(args: argparse.Namespace) -> int:
    """Prints a table a femur, and writes `args.out` and into `args.surfaces`. Raises InputError, NoFemurError or
    OutputError."""
    from FemurSegLib import __version__, models
    from FemurSegLib.anatomy.record import models_of, read_femurs
    from FemurSegLib.errors import InputError, NoFemurError, OutputError
    from FemurSegLib.result import FILES
    from FemurSegLib.sides import DISPLAY_NAMES
    from FemurSegLib.surfaces.files import write_surface
    from FemurSegLib.volume import read_ct, read_labelmap
    from FemurSegLib.whole_file import write_text

    for folder in (args.out and args.out.absolute().parent, args.surfaces and args.surfaces.absolute()):
        if folder and not folder.is_dir():
            raise OutputError(f"{folder} is not a folder.", "Choose a folder that is there.")
    method, calibration = compartment_options(args)
    if calibration is not None and not args.ct:
        raise InputError("A density needs the CT.", "Give it with --ct.")
    if args.surfaces and not (args.ct and method):
        raise InputError("The thickness of the cortex needs the CT and --compartments.", "Give both.")
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
        perturbations=args.spread,
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
    for side, surface in anatomy.painted.items() if args.surfaces else ():
        name = f"{DISPLAY_NAMES[side]}, thickness of the cortex"
        print(f"Written: {write_surface(args.surfaces / FILES[f'{side}_thickness'], surface, name)}")
    if args.out:
        warnings = [{"code": f.code, "message": f.message, "side": f.side} for f in anatomy.findings]
        used = models_of(anatomy.femurs.values(), args.data_set)
        content = {
            "femurseg_version": __version__,
            "mask": str(Path(args.mask).absolute()),
            "ct": str(Path(args.ct).absolute()) if args.ct else None,
            "perturbations": args.spread,
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
    thickness = told.get("thickness", {})
    if thickness.get("mean_mm") is not None:
        words = (
            "mean {mean_mm:.1f} mm, median {median_mm:.1f} mm, nine tenths of it {p05_mm:.1f} to {p95_mm:.1f} mm"
        )
        rows.append(("Thickness of the cortex", words.format(**thickness)))
    return "\n".join(f"  {name:50s} {told}" for name, told in rows)


def _contents(entry: dict) -> str:
    parts = [f"{entry['volume_ml']:.1f} ml"]
    if entry.get("cortical_ml") is not None:
        parts.append(f"{entry['cortical_ml']:.1f} ml of it cortical")
    if entry.get("cortical_thickness_mm") is not None:
        parts.append(f"{entry['cortical_thickness_mm']:.1f} mm thick")
    if entry["mean_hu"] is not None:
        parts.append(f"{entry['mean_hu']:.0f} HU")
    if entry["density_mg_cm3"] is not None:
        parts.append(f"{entry['density_mg_cm3']:.0f} mg/cm³")
    return ", ".join(parts)


def _count(text: str) -> int:
    if not 0 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1000")
    return int(text)
