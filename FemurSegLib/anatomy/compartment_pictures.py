"""Pictures of the compartments of a CT: `python -m FemurSegLib.anatomy.compartment_pictures CT MASK --out DIR`.

For every femur DIR/SIDE_slices.png, slices with the periosteal surface in orange and the endosteal one in blue (in
white dashes where the classical threshold puts it), and DIR/SIDE_thickness.png, the thickness of the cortex painted
on the bone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from FemurSegLib.sides import DISPLAY_NAMES, LABELS, UNDECIDED_LABEL
from FemurSegLib.volume import Volume, read_ct, read_labelmap

from .compartments import COMPARTMENT_LABELS, INSIDE, METHODS, find_compartments
from .thickness import COLORS, THICKEST_MM, paint_thickness

WINDOW_HU = (-200, 1500)
PARTS = (0.93, 0.8, 0.62, 0.4, 0.12)
"""Heights along a femur of the axial slices, 0 its lower end."""
MARGIN_MM = 12.0
PERIOSTEAL, ENDOSTEAL, CLASSICAL = "#ff9f1c", "#4cc9f0", "#ffffff"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="compartment_pictures", description=__doc__)
    parser.add_argument("ct", metavar="CT")
    parser.add_argument("mask", metavar="MASK", help="labelmap on the same grid: 1 right femur, 2 left")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(argv)
    ct, mask = read_ct(args.ct).oriented(), read_labelmap(args.mask).oriented()
    labels = np.where(mask.voxels == UNDECIDED_LABEL, 0, mask.voxels).astype(np.uint8)
    args.out.mkdir(parents=True, exist_ok=True)
    for path in draw_compartments(ct, Volume(labels, mask.grid), args.out):
        print(path)
    return 0


def draw_compartments(ct: Volume, labels: Volume, out: Path):
    """Writes the pictures of every femur and yields their paths. ct, labels: oriented, on one grid."""
    from FemurSegLib.evaluation.painted_bone import painted_values
    from FemurSegLib.surface import bounds, surface_of

    found = {m: find_compartments(ct.voxels, labels.voxels, ct.grid, method=m) for m in METHODS}
    for side, femur in found["network"].femurs.items():
        inside = [found[m].labels == COMPARTMENT_LABELS[side, INSIDE] for m in METHODS]
        box = bounds(labels.voxels, LABELS[side])
        path = out / f"{side}_slices.png"
        draw_slices(path, ct, labels.voxels == LABELS[side], inside, box, DISPLAY_NAMES[side])
        yield path
        surface = surface_of(labels.voxels, labels.grid, LABELS[side])
        thickness = paint_thickness(surface, femur)
        title = f"{DISPLAY_NAMES[side]}: cortex, mean {thickness.mean_mm:.1f} mm"
        path = out / f"{side}_thickness.png"
        painted_values(surface, thickness.values_mm, path, title, (0, THICKEST_MM), "mm", COLORS)
        yield path


def draw_slices(path: Path, ct: Volume, femur: np.ndarray, insides, box, title: str) -> None:
    """A coronal slice and axial ones of one femur; `insides`: its inside by the network, and by the threshold."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    k, j, _ = box
    margin = np.ceil(MARGIN_MM / np.array(ct.grid.spacing_mm[::-1])).astype(int)
    window = tuple(
        slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(box, margin, femur.shape, strict=True)
    )
    middle = int(np.argmax(femur.sum(axis=(0, 2)))) if femur.any() else j.start
    shown = [(1, middle)] + [(0, round(k.start + part * (k.stop - 1 - k.start))) for part in PARTS]
    figure = Figure((16, 8), dpi=90, facecolor="black")
    FigureCanvasAgg(figure)
    spaces = figure.add_gridspec(2, 4, left=0.01, right=0.99, bottom=0.01, top=0.94, wspace=0.03, hspace=0.03)
    figure.suptitle(f"{title}: periosteal orange, endosteal blue (by threshold: white)", color="white", fontsize=13)
    places = [spaces[:, 0], *(spaces[row, column] for row in (0, 1) for column in (1, 2, 3))]
    for (axis, index), place in zip(shown, places, strict=False):
        axes = figure.add_subplot(place)
        axes.axis("off")
        at = tuple(index if a == axis else window[a] for a in range(3))
        x = (np.arange(window[2].start, window[2].stop)) * ct.grid.spacing_mm[0]
        vertical = 1 if axis == 0 else 0
        y = np.arange(window[vertical].start, window[vertical].stop) * ct.grid.spacing_mm[2 - vertical]
        low, high = WINDOW_HU
        axes.pcolormesh(x, y, ct.voxels[at], vmin=low, vmax=high, cmap="gray", shading="nearest", rasterized=True)
        lines = [(insides[1], CLASSICAL, "dashed", 0.8), (femur, PERIOSTEAL, "solid", 1.1)]
        for mask, color, style, width in [*lines, (insides[0], ENDOSTEAL, "solid", 1.1)]:
            if mask[at].any():
                axes.contour(x, y, mask[at], [0.5], colors=color, linestyles=style, linewidths=width)
        axes.set_aspect("equal")
        if axis == 0:
            axes.invert_yaxis()
    figure.savefig(path, facecolor="black")


if __name__ == "__main__":
    raise SystemExit(main())
