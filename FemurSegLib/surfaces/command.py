"""`femurseg surface`: surfaces for planning and finite elements of masks from here or elsewhere."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

FORMATS = ("stl", "obj", "ply", "vtp")
EDGES_MM = (0.3, 10.0)
REPORT = "surfaces.json"


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "surface",
        help="closed surfaces of the femora in a mask",
        description="Make closed, smooth surfaces of the femora in a labelmap (1 right, 2 left; or compartments: "
        "11 and 21 cortex, 12 and 22 inside), each with the volume of its mask, in LPS millimetres. What each "
        f"surface is worth is printed, and written to {REPORT} beside them.",
    )
    parser.add_argument("mask", metavar="MASK", help="labelmap: NIfTI, NRRD or MetaImage")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the files")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=FORMATS,
        default=["stl"],
        help="one or more of: stl obj ply vtp; default: stl",
    )
    parser.add_argument("--side", choices=("both", "right", "left"), default="both", help="default: both")
    parser.add_argument(
        "--edge-length-mm",
        type=_number(*EDGES_MM),
        metavar="MM",
        help=f"mean edge of the triangles, {EDGES_MM[0]:g} to {EDGES_MM[1]:g}; default: 1.2",
    )
    parser.add_argument(
        "--smoothing",
        type=_number(0, 3),
        default=1.0,
        metavar="X",
        help="0 none, 1 against the steps of the voxels, up to 3; the volume stays; default: 1",
    )
    parser.add_argument(
        "--reconstruct",
        choices=("spline", "linear", "none"),
        default="spline",
        help="how the bone goes on between two slices; none: as the nearest one, with steps; default: spline",
    )
    parser.add_argument(
        "--inside",
        metavar="MASK",
        help="labelmap of what lies within the cortex (1 and 2, or 12 and 22): its surface too, nowhere nearer "
        "than --gap-mm to the outer one; not needed where MASK holds compartments",
    )
    parser.add_argument(
        "--gap-mm", type=_number(0, 5), default=0.5, metavar="MM", help="default: 0.5, the thinnest cortex allowed"
    )
    parser.add_argument(
        "--all-pieces", action="store_true", help="keep islands; by default only the largest piece of a side stays"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Makes all surfaces, writes them, and prints a line for each. Raises InputError, NoFemurError, OutputError."""
    from FemurSegLib.errors import NoFemurError
    from FemurSegLib.sides import DISPLAY_NAMES, SIDES
    from FemurSegLib.surface import EDGE_LENGTH_MM
    from FemurSegLib.surfaces.quality import quality
    from FemurSegLib.volume import read_labelmap

    mask = read_labelmap(args.mask)
    given = _on_same_grid(args.inside, mask) if args.inside else mask
    options = {
        "edge_length_mm": args.edge_length_mm or EDGE_LENGTH_MM,
        "smoothing": args.smoothing,
        "between_slices": args.reconstruct,
    }
    made = {}
    for side in SIDES:
        if args.side == "both" or side.startswith(args.side):
            made.update(_surfaces(side, mask, given, bool(args.inside), args, options))
    if not made:
        raise NoFemurError(
            f"{Path(args.mask).name} holds no femur.", "Labels are 1 for the right femur and 2 for the left one."
        )
    report = {"mask": str(args.mask), "options": options, "surfaces": {}}
    for name, (surface, voxels_ml, pieces) in made.items():
        worth = quality(surface)
        files = [f"{name}.{ending}" for ending in args.format]
        report["surfaces"][name] = {"files": files, "mask_ml": round(voxels_ml, 3), **worth.as_dict()}
        side = next(side for side in SIDES if name.startswith(side))
        title = DISPLAY_NAMES[side] + (", inside the cortex" if name != side else "")
        print(f"{title}: {_told(worth, voxels_ml, pieces)}", flush=True)
    _write(args.out, made, args.format, report)
    print(f"Written to {args.out}")
    return 0


def _surfaces(side: str, mask, given, has_inside: bool, args, options) -> dict:
    """By file name: (surface, ml of its voxels, pieces of its mask) of one side; nothing where it is absent."""
    import numpy as np
    from scipy import ndimage

    from FemurSegLib.anatomy.compartments import COMPARTMENT_LABELS
    from FemurSegLib.segmentation.cleanup import largest
    from FemurSegLib.sides import LABELS
    from FemurSegLib.surface import bounds, box_around, surface_of
    from FemurSegLib.surfaces.nested import nested_surfaces

    cortex, within = (COMPARTMENT_LABELS[side, part] for part in ("cortical", "inside"))
    labels = (LABELS[side], cortex, within)
    boxes = [box for label in labels if (box := bounds(mask.voxels, label))]
    if not boxes:
        return {}
    box = box_around(boxes, (1, 1, 1))
    lower, upper = [s.start for s in box], np.minimum([s.stop for s in box], mask.grid.shape)
    mask, given = mask.crop(lower, upper), given.crop(lower, upper)
    whole = np.isin(mask.voxels, labels)
    pieces = ndimage.label(whole)[1]
    if not args.all_pieces:
        whole = largest(whole)
    inside = np.isin(given.voxels, (LABELS[side], within)) if has_inside else given.voxels == within
    inside &= whole
    voxel_ml = float(np.prod(mask.grid.spacing_mm)) / 1000
    if not inside.any():
        outer = surface_of(whole.view(np.uint8), mask.grid, 1, **options)
        return {side: (outer, np.count_nonzero(whole) * voxel_ml, pieces)}
    outer, inner = nested_surfaces(whole, inside, mask.grid, gap_mm=args.gap_mm, **options)
    return {
        side: (outer, np.count_nonzero(whole) * voxel_ml, pieces),
        f"{side}_inside": (inner, np.count_nonzero(largest(inside)) * voxel_ml, 1),
    }


def _told(worth, voxels_ml: float, pieces: int) -> str:
    ml = worth.volume_mm3 / 1000
    words = [f"{ml:.1f} ml ({100 * (ml / voxels_ml - 1):+.2f} % of the mask)"]
    words.append(f"{worth.triangles} triangles with edges of {worth.edge_mm:.2f} mm")
    words.append("closed" if worth.closed else f"NOT closed ({worth.open_edges} open edges)")
    if worth.handles:
        words.append(f"{worth.handles:g} handles")
    if pieces > 1:
        words.append(f"the mask has {pieces} pieces, the surface {worth.pieces}")
    return ", ".join(words)


def _on_same_grid(path, mask):
    from FemurSegLib.errors import InputError
    from FemurSegLib.volume import read_labelmap

    other = read_labelmap(path)
    if not other.grid.matches(mask.grid, tolerance_mm=0.1):
        raise InputError("The two masks do not lie on the same grid.", "Export both on the grid of their CT.")
    return other


def _write(folder: Path, made: dict, formats, report: dict) -> None:
    from FemurSegLib.errors import OutputError
    from FemurSegLib.surfaces.files import write_surface

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (surface, *_) in made.items():
            for ending in formats:
                write_surface(folder / f"{name}.{ending}", surface, name.replace("_", " "))
        (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder} could not be written.", "Check the folder and the free space.") from error


def _number(low: float, high: float):
    def number(text: str) -> float:
        if not low <= float(text) <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return float(text)

    return number
