"""The one table of a comparison: what was measured, and below it what the papers report."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from FemurSegLib.evaluation.comparison.entrants import Comparison
from FemurSegLib.evaluation.papers import PAPERS
from FemurSegLib.whole_file import write_json

COLUMNS = {
    "entrant": "Entrant",
    "parameters": "Weights M",
    "file_mb": "File MB",
    "largest_patch": "Largest patch",
    "steps": "Steps",
    "train_seconds": "Train s",
    "inference_seconds": "Run s",
    "dice": "Dice",
    "msd": "MSD mm",
    "hd95": "HD95 mm",
    "volume_r2": "V R2",
    "volume_rmse": "V RMSE",
    "volume_mae": "V MAE",
    "volume_re": "V RE %",
    "area_r2": "A R2",
    "area_rmse": "A RMSE",
    "area_re": "A RE %",
}
"""Keys of a row and their titles. V: volume, cm3. A: area of the surface, cm2. RE: mean size of the error."""
DIGITS = {
    "file_mb": 0,
    "train_seconds": 0,
    "inference_seconds": 1,
    "dice": 4,
    "msd": 2,
    "hd95": 2,
    "volume_r2": 3,
    "volume_rmse": 2,
    "volume_mae": 2,
    "volume_re": 2,
    "area_r2": 3,
    "area_rmse": 2,
    "area_re": 2,
}
CSV_COLUMNS = (
    *("entrant", "network", "mode", "on", "loss", "annotated", "patch", "count", "missed", "parameters", "file_mb"),
    *("largest_patch", "steps", "train_seconds", "inference_seconds", "dice", "dice_sd", "msd", "hd95"),
    *(f"{of}_{what}" for of in ("volume", "area") for what in ("r2", "rmse", "mae", "re", "re_low", "re_high")),
)


def comparison_table(rows: list[dict], comparison: Comparison) -> str:
    """Aligned text: the rows, then those of the papers."""
    c = comparison
    cells = [list(COLUMNS.values()), *([_cell(row, key) for key in COLUMNS] for row in (*rows, *PAPERS))]
    widths = [max(len(line[n]) for line in cells) for n in range(len(COLUMNS))]
    lines = []
    for first, *others in cells:
        padded = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *padded]).rstrip())
    rule = "-" * max(map(len, lines))
    limit = "" if math.isinf(c.minutes) else f" or {c.minutes:g} minutes"
    notes = [
        f"Training: {c.steps} steps{limit}, batch {c.batch}, sides of a patch at most {c.largest_patch} voxels, on "
        f"{c.device}; phantoms: {c.train_phantoms}, and to test on {c.test_phantoms} of people left out (in turn "
        f"{', '.join(c.test_people)}). A phantom gives two crops of 3 mm and of 1 mm.",
        "Each with the loss and the learning rate of its paper, where that gives them.",
        f"Largest patch: cube that can be trained on in {c.memory_gb:g} GB, counted. File: in single precision.",
        "A small budget says how the entrants begin, not how they end. The papers' rows are of other people, "
        "scanners and computers.",
    ]
    notes += _speed(rows)
    if missed := [f"{row['entrant']} {row['missed']} of {row['count']}" for row in rows if row["missed"]]:
        notes.append(f"Nothing was found in: {', '.join(missed)}; left out of the distances, Dice 0.")
    return "\n".join([lines[0], rule, *lines[1 : len(rows) + 1], rule, *lines[len(rows) + 1 :], "", *notes])


def write_comparison(folder: Path, rows: list[dict], comparison: Comparison) -> None:
    """comparison.txt (the table), comparison.csv (a line a row, the papers' too), comparison.json (every case)."""
    (folder / "comparison.txt").write_text(comparison_table(rows, comparison) + "\n", encoding="utf-8")
    with open(folder / "comparison.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CSV_COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*rows, *PAPERS])
    write_json(folder / "comparison.json", {"measured": rows, "papers": PAPERS})


def _cell(row: dict, key: str) -> str:
    value = row.get(key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        low, high = row.get("volume_re_low"), row.get("volume_re_high")
        return f"{low:.2f}..{high:.2f}" if key == "volume_re" and low is not None else "-"
    if key == "entrant":
        return value
    if key == "parameters":
        return f"{value / 1e6:.1f}"
    if key == "largest_patch":
        return f"{value}^3"
    text = f"{value:.{DIGITS.get(key, 0)}f}"
    deviation = row.get("dice_sd") if key == "dice" else None
    return text if deviation is None or math.isnan(deviation) else f"{text}+-{deviation:.4f}"


def _speed(rows: list[dict]) -> list[str]:
    """How long those that ran on the same cases trained until each was as good as the worst of them became."""
    lines = []
    for on in dict.fromkeys(row["on"] for row in rows):
        same = [row for row in rows if row["on"] == on]
        if len(same) > 1 and any(len(row["looks"]) > 1 for row in same):
            goal = min(max(dice for _, dice in row["looks"]) for row in same)
            when = {row["entrant"]: next(s for s, dice in row["looks"] if dice >= goal) for row in same}
            told = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in when.items())
            lines.append(f"Training until Dice {goal:.4f} ({on}): {told}.")
    return lines
