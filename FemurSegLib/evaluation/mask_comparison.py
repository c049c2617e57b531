"""`femurseg compare`: two masks of one CT, by two readers, before and after correction, or from two programs.

a, b, notes = on_one_grid(read_labelmap("reader1.nii.gz"), read_labelmap("reader2.nii.gz"))
for difference in compare_masks(a, b):
    print(difference.side, difference.dice)
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

MARGIN_MM = 10.0
"""Around both masks of a side; true negatives are counted in there (as score.py does)."""
SAME_PLACE_MM = 0.01
DISTANCE_ARRAY = "distance_mm"
REPORT = "comparison.json"


@dataclass(frozen=True)
class Difference:
    """One side; A is the reference. What cannot be said is nan; one mask empty: distances infinite.

    sensitivity, specificity: of B, within 10 mm around both. Distances in mm between the surfaces, both ways: mean,
    the greater 95th percentile, the greatest. difference_ml: B - A; difference_percent: of A. undecided_ml: where
    either mask has the label 255, or B's field ends; left out of all.
    """

    side: str
    dice: float
    iou: float
    sensitivity: float
    specificity: float
    mean_surface_mm: float
    hd95_mm: float
    max_mm: float
    a_ml: float
    b_ml: float
    difference_ml: float
    difference_percent: float
    undecided_ml: float


def on_one_grid(a, b):
    """(A, B on A's grid, what the user should know). Volumes of labels (uint8).

    On another grid, B takes the nearest of its labels at each voxel of A, and 255 (undecided) where its field ends.
    Raises InputError where the two fields share nothing of a femur.
    """
    import numpy as np
    import SimpleITK as sitk

    from FemurSegLib.errors import InputError
    from FemurSegLib.sides import UNDECIDED_LABEL
    from FemurSegLib.volume import Volume, from_sitk, to_sitk

    if a.grid.matches(b.grid, SAME_PLACE_MM):
        return a, b, []
    resampled = sitk.Resample(
        to_sitk(b), to_sitk(a), sitk.Transform(), sitk.sitkNearestNeighbor, float(UNDECIDED_LABEL), sitk.sitkUInt8
    )
    moved = Volume(from_sitk(resampled).voxels, a.grid)
    femur = (a.voxels > 0) & (a.voxels != UNDECIDED_LABEL)
    found = (moved.voxels > 0) & (moved.voxels != UNDECIDED_LABEL)
    covered = np.count_nonzero(femur & (moved.voxels != UNDECIDED_LABEL)) / max(1, np.count_nonzero(femur))
    if not (covered or found.any()):
        raise InputError(
            "The two masks do not lie in the same place: their fields share nothing of a femur.",
            "Give two masks of one CT; check that neither was exported without its position.",
        )
    size, spacing = b.grid.describe_size(), " x ".join(f"{s:.3g}" for s in b.grid.spacing_mm)
    notes = [
        f"B lies on another grid ({size} voxels of {spacing} mm) and was resampled to that of A (nearest label)."
    ]
    if covered < 0.9995:
        notes.append(f"B's field holds {covered:.0%} of A's femora; the rest is left out.")
    return a, moved, notes


def compare_masks(a, b) -> list[Difference]:
    """A line for each side in either of two labelmaps (Volumes, 1 right, 2 left, 255 undecided) on one grid.

    Raises ValueError for two grids, NoFemurError where neither holds a femur.
    """
    from FemurSegLib.errors import NoFemurError
    from FemurSegLib.sides import LABELS, SIDES

    if not a.grid.matches(b.grid, SAME_PLACE_MM):
        raise ValueError("The two masks are not on one grid.")
    out = [line for side in SIDES if (line := _side(side, LABELS[side], a, b))]
    if not out:
        raise NoFemurError(
            "Neither mask holds a femur.", "Labels are 1 for the right femur and 2 for the left one."
        )
    return out


def _side(side: str, label: int, a, b) -> Difference | None:
    import numpy as np

    from FemurSegLib.evaluation.metrics import overlap, surface_distance
    from FemurSegLib.sides import UNDECIDED_LABEL
    from FemurSegLib.surface import bounds, box_around

    boxes = [box for volume in (a, b) if (box := bounds(volume.voxels, label))]
    if not boxes:
        return None
    spacing = a.grid.spacing_mm
    box = box_around(boxes, [math.ceil(MARGIN_MM / mm) for mm in spacing[::-1]])
    of_a, of_b = a.voxels[box], b.voxels[box]
    known = (of_a != UNDECIDED_LABEL) & (of_b != UNDECIDED_LABEL)
    ml = float(np.prod(spacing)) / 1000
    undecided = np.count_nonzero(~known) * ml
    known = None if known.all() else known
    counts = overlap(of_b == label, of_a == label, known)
    distance = surface_distance(of_b == label, of_a == label, spacing, known)
    hit, extra, missed = counts.true_positives, counts.false_positives, counts.false_negatives
    a_ml, b_ml = (hit + missed) * ml, (hit + extra) * ml
    return Difference(
        side=side,
        dice=counts.dice,
        iou=hit / (hit + extra + missed) if hit + extra + missed else math.nan,
        sensitivity=counts.sensitivity,
        specificity=counts.specificity,
        mean_surface_mm=distance.mean_mm,
        hd95_mm=distance.hd95_mm,
        max_mm=distance.max_mm,
        a_ml=a_ml,
        b_ml=b_ml,
        difference_ml=b_ml - a_ml,
        difference_percent=100 * (b_ml / a_ml - 1) if a_ml else math.nan,
        undecided_ml=undecided,
    )


def exchanged(a, b) -> bool:
    """Whether more of a side of A lies in the other side of B than in its own."""
    import numpy as np

    from FemurSegLib.sides import LABELS

    right, left = LABELS.values()
    return any(
        np.count_nonzero((a.voxels == mine) & (b.voxels == other))
        > np.count_nonzero((a.voxels == mine) & (b.voxels == mine))
        for mine, other in ((right, left), (left, right))
    )


# The command


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare two masks of one CT",
        description="Compare two labelmaps (1 right, 2 left; 255, undecided, is left out): overlap, distance of "
        "surfaces, volumes; A is the reference. With --out, the distance painted on B's bones too.",
    )
    parser.add_argument("a", metavar="MASK_A", help="the reference: NIfTI, NRRD or MetaImage")
    parser.add_argument("b", metavar="MASK_B", help="what is compared with it; on another grid it is resampled")
    parser.add_argument(
        "--ct", metavar="CT", help="their CT, on the grid of A: slices with both outlines (needs --out)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"folder for {REPORT}, pictures, and VTP surfaces with {DISTANCE_ARRAY}",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a table, and writes `args.out`. Raises InputError, NoFemurError or OutputError."""
    from FemurSegLib.errors import InputError
    from FemurSegLib.volume import read_ct, read_labelmap

    a, b, notes = on_one_grid(read_labelmap(args.a), read_labelmap(args.b))
    ct = read_ct(args.ct) if args.ct else None
    if ct is not None and not ct.grid.matches(a.grid, tolerance_mm=0.1):
        raise InputError("The CT and mask A do not lie on the same grid.", "Give the CT that mask A was made from.")
    differences = compare_masks(a, b)
    if exchanged(a, b):
        notes.append("Right and left look exchanged: what is one side in A is mostly the other in B.")
    print(table(differences))
    for note in notes:
        print(f"Note: {note}")
    if args.out:
        _write(args, a, b, ct, differences, notes)
        print(f"Written to {args.out}")
    return 0


def table(differences: list[Difference]) -> str:
    """The numbers in columns, a side each."""
    from FemurSegLib.sides import DISPLAY_NAMES

    rows = {
        "Dice": ("dice", ".4f"),
        "Intersection over union": ("iou", ".4f"),
        "Sensitivity (A is the reference)": ("sensitivity", ".4f"),
        "Specificity, within 10 mm around": ("specificity", ".4f"),
        "Mean surface distance, mm": ("mean_surface_mm", ".2f"),
        "95 % Hausdorff distance, mm": ("hd95_mm", ".2f"),
        "Greatest distance, mm": ("max_mm", ".2f"),
        "Volume of A, ml": ("a_ml", ".1f"),
        "Volume of B, ml": ("b_ml", ".1f"),
        "B - A, ml": ("difference_ml", "+.1f"),
        "B - A, %": ("difference_percent", "+.2f"),
    }
    if any(d.undecided_ml for d in differences):
        rows["Left out (undecided), ml"] = ("undecided_ml", ".1f")
    lines = [f"{'':34s}" + "".join(f"{DISPLAY_NAMES[d.side]:>14s}" for d in differences)]
    for words, (key, form) in rows.items():
        lines.append(f"{words:34s}" + "".join(f"{_word(getattr(d, key), form):>14s}" for d in differences))
    return "\n".join(lines)


def _word(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"


def _write(args, a, b, ct, differences, notes) -> None:
    """All in a hidden folder first; then each file takes its place."""
    import os
    import shutil
    import tempfile

    from FemurSegLib.errors import OutputError
    from FemurSegLib.whole_file import finite

    partial = None
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".compare.", dir=args.out))
        femurs = {}
        for difference in differences:
            femurs[difference.side] = asdict(difference) | {"files": _paint(partial, a, b, difference)}
        document = {"a": str(args.a), "b": str(args.b), "notes": notes, "femurs": femurs}
        if ct is not None:
            from FemurSegLib.evaluation.pictures import draw_case

            draw_case(partial / "slices.png", ct, b, a, f"{Path(args.a).name} (green) and {Path(args.b).name}")
            document["slices"] = "slices.png"
        text = json.dumps(finite(document), indent=1, allow_nan=False) + "\n"
        (partial / REPORT).write_text(text, encoding="utf-8")
        for path in sorted(partial.iterdir()):
            os.replace(path, args.out / path.name)
    except OSError as error:
        raise OutputError(f"{args.out} could not be written.", "Check the folder and the free space.") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _paint(folder: Path, a, b, difference: Difference) -> list[str]:
    """The names of the picture and of the surface of one side; none where either mask lacks it."""
    import numpy as np
    from vtkmodules.util.numpy_support import numpy_to_vtk

    from FemurSegLib.evaluation.painted_bone import painted_distance
    from FemurSegLib.evaluation.surface_error import surface_error
    from FemurSegLib.sides import DISPLAY_NAMES
    from FemurSegLib.surfaces.files import write_surface

    painted = surface_error(b, a, difference.side)
    if painted is None:
        return []
    surface, distances = painted
    name = DISPLAY_NAMES[difference.side]
    title = f"{name}: B against A, Dice {difference.dice:.3f}, mean distance {difference.mean_surface_mm:.2f} mm"
    picture = painted_distance(
        surface, distances, folder / f"{difference.side}_distance.png", title, meaning=("B inside A", "B outside A")
    )
    array = numpy_to_vtk(distances.astype(np.float32), deep=True)
    array.SetName(DISTANCE_ARRAY)
    surface.GetPointData().SetScalars(array)
    mesh = write_surface(folder / f"{difference.side}_distance.vtp", surface, name)
    return [picture.name, mesh.name]
