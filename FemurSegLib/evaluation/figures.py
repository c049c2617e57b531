"""The figures of an evaluation: precision and recall, how the metrics spread, how the confidence keeps its word."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from FemurSegLib.evaluation.calibration import Judged, reliability
from FemurSegLib.evaluation.metrics import AP_IOU
from FemurSegLib.evaluation.score import CaseScore
from FemurSegLib.evaluation.tables import BOX_COLUMNS, MASK_COLUMNS, curve
from FemurSegLib.localization.radiograph import VIEWS
from FemurSegLib.segmentation.confidence import GOOD_DICE
from FemurSegLib.sides import COLORS, DISPLAY_NAMES, SIDES

DPI = 130
VIOLIN_FEMORA = 5
"""With fewer femora a violin would show a shape that is not there: then the points stand alone."""
GREY, INK = "#b9bec6", "#1c2128"


def draw_precision_recall(path: Path, scores: list[CaseScore]) -> Path:
    """A PNG with a panel a view: the precision-recall curve of each side over all cases (see metrics)."""
    figure, panels = _figure(9, 4.2, 1, len(VIEWS), sharey=True)
    for axes, view in zip(panels.flat, VIEWS, strict=True):
        for side, style in zip(SIDES, ("-", "--"), strict=True):
            c = curve(view, side, scores)
            if len(c.recall) and not math.isnan(c.ap):
                words = f"{DISPLAY_NAMES[side]}: AP {c.ap:.3f}"
                recall, precision = np.r_[0, c.recall], np.r_[c.precision[0], c.precision]
                axes.step(recall, precision, style, where="pre", color=COLORS[side], linewidth=2, label=words)
        axes.set(title=f"{view.capitalize()} radiograph", xlabel="Recall", xlim=(0, 1.03), ylim=(0, 1.05))
        axes.grid(alpha=0.3)
        _legend(axes, loc="lower left")
    panels.flat[0].set_ylabel("Precision")
    figure.suptitle(f"Boxes, found at IoU ≥ {AP_IOU}", fontsize=11)
    return _save(figure, path)


def draw_violins(path: Path, scores: list[CaseScore]) -> Path:
    """A PNG with a panel a metric: a point a femur (right and left apart), the spread of all, their median.

    A missed femur has no distance and is counted in the panel's title; its overlap is 0.
    """
    columns = {**BOX_COLUMNS, **MASK_COLUMNS}
    femora = [f for s in scores if s.labelled for f in s.femurs if f.present]
    figure, panels = _figure(11, 6.2, 2, -(-len(columns) // 2))
    rng = np.random.default_rng(0)
    for axes in panels.flat[len(columns) :]:
        axes.set_axis_off()
    for axes, (title, column) in zip(panels.flat, columns.items(), strict=False):
        values = np.array([getattr(f, column) for f in femora], float)
        known = np.isfinite(values)
        if known.sum() >= VIOLIN_FEMORA and np.ptp(values[known]) > 0:
            for body in axes.violinplot(values[known], [0], widths=0.9, showextrema=False)["bodies"]:
                body.set(facecolor=GREY, edgecolor="none", alpha=0.6)
        for side, at in zip(SIDES, (-0.16, 0.16), strict=True):
            mine = known & np.array([f.side == side for f in femora], bool)
            across = at + rng.uniform(-0.08, 0.08, mine.sum())
            axes.scatter(across, values[mine], s=16, color=COLORS[side], edgecolor="white", linewidth=0.4, zorder=3)
        if known.any():
            middle = float(np.median(values[known]))
            axes.plot([-0.4, 0.4], [middle, middle], color=INK, linewidth=1.4, zorder=2)
            words = f"median {middle:.2f} mm" if title.endswith("mm") else f"median {middle:.3f}"
            axes.set_xlabel(words, fontsize=9)
        lost = int((~known).sum())
        name = title.removesuffix(" mm").replace("MSD", "Mean surface distance")
        axes.set_title(name + (f"\n({lost} without a value)" if lost else ""), fontsize=9.5)
        axes.set_ylabel("mm" if title.endswith("mm") else "", fontsize=9)
        axes.set(xlim=(-0.55, 0.55), xticks=[])
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", alpha=0.3)
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], marker="o", linestyle="", color=COLORS[s], label=DISPLAY_NAMES[s]) for s in SIDES]
    handles.append(Line2D([], [], color=INK, label="Median"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(f"{len(femora)} femora, a point each", fontsize=11)
    return _save(figure, path)


def draw_reliability(path: Path, judged: list[Judged], title: str) -> Path:
    """A PNG: the reliability plot (share of good masks by confidence, 95 % intervals), and Dice by confidence."""
    figure, (left, right) = _figure(10, 4.6, 1, 2)
    left.plot([0, 1], [0, 1], color=GREY, linewidth=1.2, label="A confidence that keeps its word")
    for b in reliability(judged):
        error = [[b.share - b.low], [b.high - b.share]]
        left.errorbar(b.confidence, b.share, error, fmt="o", color=INK, capsize=3, markersize=7)
        left.annotate(str(b.count), (b.confidence, b.low), (0, -11), textcoords="offset points", fontsize=8,
                      ha="center")  # fmt: skip
    left.set(xlabel="Confidence, mean of the group (below it, how many femora)",
             ylabel=f"Part of the masks with Dice ≥ {GOOD_DICE}",
             xlim=(-0.02, 1.05), ylim=(-0.1, 1.05), title="Reliability")  # fmt: skip
    _legend(left, loc="upper left")
    for side in (s for s in SIDES if any(j.side == s for j in judged)):
        mine = [j for j in judged if j.side == side]
        right.scatter([j.confidence for j in mine], [j.dice for j in mine], s=22, color=COLORS[side],
                      edgecolor="white", linewidth=0.4, label=DISPLAY_NAMES[side], zorder=3)  # fmt: skip
    right.axhline(GOOD_DICE, color=GREY, linewidth=1.2)
    right.set(xlabel="Confidence", ylabel="Dice", xlim=(-0.02, 1.05), title="Each femur")
    _legend(right, loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=11)
    return _save(figure, path)


def _figure(width: float, height: float, rows: int, columns: int, **shared):
    """A figure without pyplot, which keeps no state behind, and its axes (rows, columns)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, **shared)
    return figure, panels if rows > 1 else panels[0]


def _legend(axes, **where) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8.5, framealpha=0.85, **where)


def _save(figure, path: Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
