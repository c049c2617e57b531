"""Every bar of reading the bone, end to end: `python -m FemurSegLib.anatomy.end_to_end_study --shapes SHAPES`.

Whole femora of people that no weights were trained on are painted and scanned (see painted_femora) in a field of
view around one femur, so that it is quick. The real engine gets that CT and nothing else: finding the femur in both
radiographs is part of it, then comes the mask, and it is read as the pipeline reads it, compartments by the network
(in two steps here, for their labels are compared too). What is said is compared with what is exact:

- masks: the painted label of each voxel, and whether it lies within the painted endosteal surface;
- landmarks and measurements: read from the zero of the painted periosteal distance (marching cubes on the grid of
  the CT), not from the person's mesh, which painting bends, roughens and gives osteophytes;
- volumes of regions: voxels of the exact mask, parted by the landmarks of that surface; their cortical part: those
  outside the exact endosteal surface.

With `--truth` the exact mask goes in place of the engine's: what is wrong then is the reading, not the mask. With
`--both` each femur is read both ways.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from FemurSegLib.errors import NoFemurError
from FemurSegLib.sides import LABELS

from .bars import ANGLES, LENGTHS, QUANTITIES, Quantity
from .compartments import COMPARTMENT_LABELS, INSIDE, find_compartments
from .landmarks import find_landmarks, landmark_points
from .measurements import measure
from .painted_femora import PaintedFemur, add_options, announce, painted_femora
from .record import femur_record
from .regions import label_regions, region_volumes, whole_volume

PREDICTED, EXACT = "the engine's mask", "the exact mask"
BESIDE_MM = 70.0
"""What the scan shows beside a femur. With less it ends in the pelvis just above the head, as no scan does: the
mask then runs into the pelvis there (look with --beside 7)."""
POSES = 2
"""Copies that repeatability is read from: one turned by 10 to 30 degrees, one mirrored too (stability.poses)."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="end_to_end_study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--truth", action="store_true", help="the exact mask goes in, nothing is segmented")
    which.add_argument("--both", action="store_true", help="the engine's mask, and the exact one too")
    parser.add_argument("--metal", action="store_true", help="leave the implants that some patients have")
    parser.add_argument(
        "--beside",
        type=float,
        default=BESIDE_MM,
        metavar="MM",
        help=f"what the scan shows beside a femur; default: {BESIDE_MM:g}",
    )
    parser.add_argument("--device", default="auto", help="of the engine: auto, cuda, mps or cpu; default: auto")
    args = parser.parse_args(argv)
    seed = announce(args)
    masks = [EXACT] if args.truth else [PREDICTED, EXACT] if args.both else [PREDICTED]
    rows: dict[str, list[dict[str, float]]] = {mask: [] for mask in masks}
    before = time.perf_counter()
    for femur in painted_femora(args, seed, metal=args.metal, beside_mm=args.beside):
        answers = exact_answers(femur)
        painted, before = time.perf_counter() - before, time.perf_counter()
        for mask in masks:
            errors, notes = femur_errors(femur, answers, mask, args.device)
            rows[mask].append(errors)
            seconds, before = time.perf_counter() - before, time.perf_counter()
            print(
                f"{femur.name}{line(errors)}  {mask}, {seconds:.0f} s (painted in {painted:.0f} s){notes}",
                flush=True,
            )
    for mask, each in rows.items():
        print(f"\nIn {mask}, {len(each)} femora:\n{table(each)}")
    return 0


def exact_answers(femur: PaintedFemur) -> dict:
    """What is true of a painted femur: points (3,) LPS mm, numbers in the unit of their name, volumes in ml; None
    for what its shape does not give."""
    grid, bone = femur.ct.grid, femur.exact_bone()
    landmarks = find_landmarks(bone)
    regions = label_regions(femur.labels, grid, landmarks)
    window = grid.window(regions.grid)
    whole, cortex = femur.labels[window] > 0, (femur.labels > 0)[window] & ~femur.inside[window]
    answers: dict = {key: m.value for key, m in measure(landmarks).items()}
    answers["head_center"] = landmark_points(landmarks).get("head_center")
    for name, part in (("volume", whole), ("cortical", cortex)):
        volumes = region_volumes(regions, landmarks, within=part) | {"whole": whole_volume(part, grid)}
        answers |= {f"{name} {key}": volume.volume_ml for key, volume in volumes.items()}
    return answers


def answers_of(record: dict) -> dict:
    """The same as `exact_answers`, as the product says it: from a record (record.femur_record)."""
    answers = {key: each["value"] for key, each in record["measurements"].items()}
    center = record["landmarks"].get("head_center")
    answers["head_center"] = None if center is None else np.array(center["position_lps_mm"])
    for key, region in record["regions"].items():
        answers |= {f"volume {key}": region["volume_ml"], f"cortical {key}": region["cortical_ml"]}
    return answers


def femur_errors(femur: PaintedFemur, answers: dict, mask: str, device: str = "auto") -> tuple[dict, str]:
    """Errors by the keys of `bars.QUANTITIES`, and what was said about the femur, in words.

    Of a femur that was not found, or found as one of the other side, Dice is 0 and all else nan.
    """
    grid, side = femur.ct.grid, femur.side
    try:
        labels, surface, findings = _engine(femur, device) if mask == PREDICTED else (femur.labels, None, [])
        found = find_compartments(femur.ct.voxels, labels, grid, device=device)
    except NoFemurError as error:
        return {q.key: 0.0 if q.share else np.nan for q in QUANTITIES}, f": {error}"
    record = femur_record(labels, grid, side, femur.ct.voxels, POSES, found, surface=surface)
    inside = found.labels == COMPARTMENT_LABELS[side, INSIDE]
    errors = _of_masks("periosteal", labels > 0, femur.labels > 0, grid.spacing_mm)
    errors |= _of_masks("endosteal", inside, femur.inside, grid.spacing_mm)
    errors |= compare(answers_of(record), answers)
    for key in ANGLES:
        errors[f"repeated {key}"] = record["measurements"][key].get("largest_change", np.nan)
    codes = sorted({finding.code for finding in [*findings, *found.findings]})
    return errors, f"; warned of: {', '.join(codes)}" if codes else ""


def _engine(femur: PaintedFemur, device: str):
    """The femur's labels (uint8, nothing else in them), surface and findings by the engine. Raises NoFemurError."""
    from FemurSegLib.pipeline import segment_femurs

    found = segment_femurs(femur.ct, device=device, sides=(femur.side,), anatomy=False)
    labels = np.where(found.labels == LABELS[femur.side], LABELS[femur.side], 0).astype(np.uint8)
    return labels, found.surfaces.get(femur.side), found.findings


def compare(found: dict, exact: dict) -> dict[str, float]:
    """Signed errors of answers: percent of volumes and of the diameter, mm and degrees of others; of the head's
    centre the distance in mm. nan where either says nothing, or there is nothing to take a share of."""
    out = {}
    for quantity in QUANTITIES:
        key = quantity.key
        if key == "head_center_mm":
            a, b = found["head_center"], exact["head_center"]
            out[key] = np.nan if a is None or b is None else float(np.linalg.norm(np.subtract(a, b)))
        elif key in exact:
            a, b = (np.nan if each.get(key) is None else float(each[key]) for each in (found, exact))
            out[key] = a - b if quantity.unit != "%" else (a / b - 1) * 100 if b else np.nan
    return out


def line(errors: dict[str, float]) -> str:
    """One femur: its masks, the whole's volumes, the head, and the angle and length that are worst."""
    angle = max(ANGLES, key=lambda key: np.nan_to_num(abs(errors[key]), nan=-1))
    return (
        "periosteal {periosteal_dice:.4f} {periosteal_mm:.2f} mm HD95 {periosteal_hd95_mm:.2f}  "
        "endosteal {endosteal_dice:.4f} {endosteal_mm:.2f} mm  volume {volume whole:+.1f} %  "
        "cortex {cortical whole:+.1f} %  head {head_center_mm:.2f} mm {head_diameter_mm:+.1f} %  "
        "length {length_mm:+.2f} mm  "
    ).format(**errors) + f"{angle} {errors[angle]:+.2f}"


def table(rows: list[dict[str, float]]) -> str:
    """Means, worst values and biases over femora, and whether each bar is reached.

    mean: of the errors without their sign (of Dice: of the values); bias: with it.
    """
    heads = f"{'quantity':66s}{'mean':>9s}{'worst':>9s}{'bias':>9s}  {'bar':16s}reached"
    return "\n".join([heads, *(_table_line(quantity, rows) for quantity in QUANTITIES)])


def _table_line(quantity: Quantity, rows) -> str:
    values = np.array([row[quantity.key] for row in rows])
    known = values[np.isfinite(values)]
    name = f"{quantity.name}, {quantity.unit}" if quantity.unit else quantity.name
    if not len(known):
        return f"{name:66s}{'-':>9s}{'-':>9s}{'-':>9s}  {quantity.limit:16s}{quantity.verdict(values)}"
    size = known if quantity.share else np.abs(known)
    worst = size.min() if quantity.share else known[size.argmax()]
    digits = 4 if quantity.share else 2
    signed = quantity.unit in ("%", "deg") or quantity.key in LENGTHS
    bias = f"{known.mean():+9.{digits}f}" if signed and not quantity.key.startswith("repeated") else f"{'':9s}"
    numbers = f"{size.mean():9.{digits}f}{worst:9.{digits}f}{bias}"
    return f"{name:66s}{numbers}  {quantity.limit:16s}{quantity.verdict(values)}"


def _of_masks(name: str, found: np.ndarray, true: np.ndarray, spacing_mm) -> dict[str, float]:
    from FemurSegLib.evaluation.metrics import overlap, surface_distance

    distance = surface_distance(found, true, spacing_mm)
    return {
        f"{name}_dice": overlap(found, true).dice,
        f"{name}_mm": distance.mean_mm,
        f"{name}_hd95_mm": distance.hd95_mm,
    }


if __name__ == "__main__":
    raise SystemExit(main())
