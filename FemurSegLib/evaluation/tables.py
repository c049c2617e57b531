"""Scores as the tables of Xie 2025 (4: boxes, 5: masks), a line a case, and as files for other programs.

AP of a case: the mean over both views and the sides that are there, of the area under its own
precision-recall curve at IoU >= 0.3, all points (see metrics.precision_recall). mAP: the mean of the
cases' AP, as in the paper, whose mAP is exactly that mean. Beside it the AP of each view and side over
all cases together, and its mean over IoU 0.50 to 0.95 (COCO).
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from FemurSegLib.evaluation.metrics import AP_IOU, COCO_IOUS, Curve, bootstrap_mean, precision_recall
from FemurSegLib.evaluation.score import CaseScore, FemurScore
from FemurSegLib.localization.radiograph import VIEWS
from FemurSegLib.sides import SIDES

BOX_COLUMNS = {"IoU 3D": "region_iou", "IoU coronal": "coronal_iou", "IoU axial": "axial_iou"}
MASK_COLUMNS = {
    "Dice": "dice", "Sensitivity": "sensitivity", "Specificity": "specificity",
    "Pixel accuracy": "pixel_accuracy", "MSD mm": "mean_surface_mm", "HD95 mm": "hd95_mm",
}  # fmt: skip
"""Columns of both tables and the fields of FemurScore that fill them."""
HIGH_IS_BAD = ("mean_surface_mm", "hd95_mm")


def boxes_table(scores: list[CaseScore]) -> str:
    """Table 4 of Xie 2025: IoU and AP a case, averaged IoU and mAP."""
    judged = [s for s in scores if s.labelled and any(f.present for f in s.femurs)]
    if not judged:
        return ""
    rows = [[s.name, *(of_case(s, c) for c in BOX_COLUMNS.values()), case_ap(s)] for s in judged]
    lines = _lines(["Case", *BOX_COLUMNS, f"AP (IoU>={AP_IOU})"], rows, 4)
    pooled = pooled_ap(judged)
    lines += ["", f"mAP (mean of the cases' AP)  {_number(np.nanmean([case_ap(s) for s in judged]), 4)}"]
    for (view, side), values in pooled.items():
        lines.append(f"AP {view}, {side.replace('_', ' ')}, all cases  {_number(values['ap'], 4)}"
                     f"   IoU 0.50-0.95  {_number(values['ap_50_95'], 4)}")  # fmt: skip
    return "\n".join(["Boxes (as Table 4 of Xie 2025)", "", *lines])


def masks_table(scores: list[CaseScore]) -> str:
    """Table 5 of Xie 2025, with the worse side's Dice, surface distances, time and outcome."""
    rows, ends = [], []
    for s in scores:
        dice = min((f.dice for f in s.femurs if (f.present or f.found) and s.labelled), default=math.nan)
        rows.append([s.name, *(of_case(s, c) for c in MASK_COLUMNS.values()), dice, s.seconds])
        ends.append(s.verdict)
    lines = _lines(["Case", *MASK_COLUMNS, "Dice, worse side", "Seconds"], rows, 4, ends)
    both = [f for s in scores if s.labelled for f in s.femurs if f.present]
    lines += ["", f"Femora {len(both)}, missed {sum(not f.found for f in both)}, "
              f"swapped {sum(f.swapped for s in scores for f in s.femurs)}, Dice a femur: "
              f"mean {_number(np.mean([f.dice for f in both]) if both else math.nan, 4)}, "
              f"worst {_number(min((f.dice for f in both), default=math.nan), 4)}"]  # fmt: skip
    extra = [f for s in scores if s.labelled for f in s.femurs if f.found and not f.present]
    if extra:
        lines.append(f"Femora found that are not there: {len(extra)}")
    told = [f"{s.name}: {s.message}" for s in scores if s.outcome not in ("ok", "no_femur")]
    note = "inf: a femur was missed or is not there; left out of the mean distances, and its Dice is 0."
    notes = [note] if any(math.isinf(f.hd95_mm) for s in scores for f in s.femurs) else []
    return "\n".join(["Masks (as Table 5 of Xie 2025)", "", *lines, *told, *notes])


def summary(scores: list[CaseScore]) -> dict:
    """Means, 95 % intervals (bootstrap over cases) and worst values by column; AP by view and side."""
    judged = [s for s in scores if s.labelled]
    out = {"cases": len(scores), "femora": sum(f.present for s in judged for f in s.femurs),
           "missed": sum(f.present and not f.found for s in judged for f in s.femurs),
           "extra": sum(f.found and not f.present for s in judged for f in s.femurs),
           "swapped": sum(f.swapped for s in judged for f in s.femurs),
           "errors": sum(s.outcome not in ("ok", "no_femur") for s in scores)}  # fmt: skip
    for column in (*BOX_COLUMNS.values(), *MASK_COLUMNS.values()):
        values = [of_case(s, column) for s in judged]
        mean, low, high = bootstrap_mean(values)
        out[column] = {"mean": mean, "ci95": [low, high], "worst": _worst(values, column)}
    aps = [case_ap(s) for s in judged]
    out["map"] = float(np.nanmean(aps)) if np.isfinite(aps).any() else math.nan
    out["ap"] = {f"{view} {side}": values for (view, side), values in pooled_ap(judged).items()}
    return out


def of_case(score: CaseScore, column: str) -> float:
    """Mean over the sides that are in the reference or in the result; nan where there is none."""
    values = [getattr(f, column) for f in score.femurs if score.labelled and (f.present or f.found)]
    values = [v for v in values if not math.isnan(v)]
    return float(np.mean(values)) if values else math.nan


def case_ap(score: CaseScore, iou: float = AP_IOU) -> float:
    values = [curve(view, side, [score], iou).ap for view in VIEWS for side in SIDES]
    values = [v for v in values if not math.isnan(v)]
    return float(np.mean(values)) if values else math.nan


def curve(view: str, side: str, scores: list[CaseScore], iou: float = AP_IOU) -> Curve:
    """Precision and recall of one class of one view over some cases."""
    wanted = view, side
    detections = [
        (n, p, box) for n, s in enumerate(scores) for *kind, p, box in s.detections if tuple(kind) == wanted
    ]
    references = [(n, box) for n, s in enumerate(scores) for *kind, box in s.references if tuple(kind) == wanted]
    return precision_recall(detections, references, iou)


def pooled_ap(scores: list[CaseScore]) -> dict[tuple[str, str], dict[str, float]]:
    """AP over all cases together, by view and side."""
    return {
        (view, side): {
            "ap": curve(view, side, scores).ap,
            "ap_50_95": float(np.mean([curve(view, side, scores, iou).ap for iou in COCO_IOUS])),
        }
        for view in VIEWS
        for side in SIDES
    }


def write_tables(folder: Path, scores: list[CaseScore], settings: dict) -> None:
    """tables.txt, femora.csv (a line a femur), cases.json (all, with the summary and how it was made)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n\n\n".join(filter(None, (boxes_table(scores), masks_table(scores))))
    (folder / "tables.txt").write_text(text + "\n", encoding="utf-8")
    columns = [f.name for f in fields(FemurScore) if f.name != "evidence"]
    with open(folder / "femora.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "verdict", "seconds", *columns])
        for s in scores:
            for femur in s.femurs:
                writer.writerow([s.name, s.verdict, s.seconds, *(getattr(femur, c) for c in columns)])
    cases = [asdict(s) | {"verdict": s.verdict} for s in scores]
    document = {"settings": settings, "summary": summary(scores), "cases": cases}
    (folder / "cases.json").write_text(json.dumps(_plain(document), indent=1), encoding="utf-8")


def _lines(head: list[str], rows: list[list], digits: int, ends: list[str] | None = None) -> list[str]:
    """Aligned lines with mean, 95 % interval and worst value below; `ends` are words after each row."""
    ends = ends or [""] * len(rows)
    named = BOX_COLUMNS | MASK_COLUMNS
    below = [["Mean"], ["95 % interval"], ["Worst"]]
    for n, title in enumerate(head[1:], 1):
        values = [row[n] for row in rows]
        mean, low, high = bootstrap_mean(values)
        d = _digits(title, digits)
        below[0].append(_number(mean, d))
        below[1].append("" if math.isnan(mean) else f"{low:.{d}f}-{high:.{d}f}")
        below[2].append(_number(_worst(values, named.get(title, title)), d))
    text = [
        [row[0], *(_number(v, _digits(h, digits)) for h, v in zip(head[1:], row[1:], strict=True))] for row in rows
    ]
    widths = [max(len(line[n]) for line in [head, *text, *below]) for n in range(len(head))]

    def show(line, end=""):
        cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        return ("  ".join(cells) + ("   " + end if end else "")).rstrip()

    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    return [show(head), rule, *(show(t, e) for t, e in zip(text, ends, strict=True)), rule, *map(show, below)]


def _digits(title: str, digits: int) -> int:
    return 2 if title.endswith("mm") else 1 if title == "Seconds" else digits


def _worst(values, column: str) -> float:
    values = [v for v in values if not math.isnan(v)]
    worse = max if column in HIGH_IS_BAD or column == "Seconds" else min
    return worse(values, default=math.nan)


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else "inf" if math.isinf(value) else f"{value:.{digits}f}"


def _plain(value):
    """For JSON, which knows neither nan nor infinity: null, and the word."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "infinite"
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
