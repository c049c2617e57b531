"""`femurseg measure`: landmarks, angles and regions of the femora in a mask, made here or elsewhere."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "measure",
        help="measure the femora of a mask",
        description="Find landmarks and axes of the femora in a labelmap (1 right, 2 left), and print angles, "
        "lengths and the volumes of regions. What a truncated femur cannot give is told, not guessed.",
    )
    parser.add_argument("mask", metavar="MASK", help="labelmap: NIfTI, NRRD or MetaImage")
    parser.add_argument("--ct", metavar="CT", help="the CT of the mask, on the same grid: mean HU of each region")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write everything, landmarks too")
    parser.add_argument(
        "--perturbations",
        type=int,
        default=0,
        metavar="N",
        help="read N turned, mirrored or roughened copies too and give the spread (seconds each); default: 0",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a table a femur, and writes `args.out`. Raises InputError, NoFemurError or OutputError."""
    from FemurSegLib import __version__
    from FemurSegLib.anatomy.record import femur_record
    from FemurSegLib.errors import InputError, NoFemurError
    from FemurSegLib.sides import DISPLAY_NAMES, LABELS, SIDES
    from FemurSegLib.surface import bounds
    from FemurSegLib.volume import read_ct, read_labelmap

    mask = read_labelmap(args.mask)
    ct = read_ct(args.ct) if args.ct else None
    if ct is not None and not ct.grid.matches(mask.grid, tolerance_mm=0.1):
        raise InputError("The CT and the mask do not lie on the same grid.", "Give the CT the mask was made from.")
    present = [side for side in SIDES if bounds(mask.voxels, LABELS[side])]
    if not present:
        raise NoFemurError(
            f"{Path(args.mask).name} holds no femur.", "Labels are 1 for the right femur and 2 for the left one."
        )
    femurs = {}
    for side in present:
        femurs[side] = femur_record(
            mask.voxels, mask.grid, side, None if ct is None else ct.voxels, args.perturbations
        )
        print(f"\n{DISPLAY_NAMES[side]}\n{table(femurs[side])}", flush=True)
    if args.out:
        _write(args.out, {"femurseg_version": __version__, "mask": str(args.mask), "ct": args.ct, "femurs": femurs})
    return 0


def table(record: dict) -> str:
    """Measurements and regions of one femur (`femur_record`), a line each."""
    rows = []
    for m in record["measurements"].values():
        unit = {"deg": "°", "mm2": " mm²"}.get(m["unit"], f" {m['unit']}")
        spread = f"  ± {m['sd']:.2f}" if "sd" in m else ""
        rows.append((m["name"], m["reason"] if m["value"] is None else f"{m['value']:.1f}{unit}{spread}"))
    for name, region in record["regions"].items():
        hu = "" if region["mean_hu"] is None else f", {region['mean_hu']:.0f} HU"
        told = region["reason"] if region["volume_ml"] is None else f"{region['volume_ml']:.1f} ml{hu}"
        rows.append((f"Region: {name}", told))
    return "\n".join(f"  {name:50s} {told}" for name, told in rows)


def _write(path: Path, content: dict) -> None:
    from FemurSegLib.errors import OutputError

    try:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} could not be written.", "Check the folder and the free space.") from error
