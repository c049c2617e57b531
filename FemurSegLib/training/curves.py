"""Training curves as pictures."""

from __future__ import annotations

import csv
import json
from contextlib import suppress
from pathlib import Path

SMOOTHING = 0.9


def draw_segmenter_curve(run: Path) -> Path | None:
    """run/curve.png from run/curve.jsonl: the loss as it was and smoothed, and the Dice of those held out. None if
    there is no curve."""
    path = Path(run) / "curve.jsonl"
    lines = read_segmenter_curve(path)
    return _draw(path.with_suffix(".png"), "Step", lines) if lines else None


def read_segmenter_curve(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """(steps, values) by name: `loss`, `smoothed loss`, and `validation Dice, KIND`; empty without a file."""
    by_step: dict[str, dict[int, float]] = {}
    for text in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError, KeyError):  # a line cut off when the training was killed
            line = json.loads(text)
            values = {f"validation Dice, {kind}": dice for kind, dice in line.get("validation", {}).items()}
            if "loss" in line:
                values["loss"] = line["loss"]
            for name, value in values.items():
                by_step.setdefault(name, {})[line["step"]] = value  # steps after the last checkpoint are done twice
    lines = {}
    for name, values in by_step.items():
        steps = sorted(values)
        lines[name] = (steps, [values[step] for step in steps])
        if name == "loss":
            lines["smoothed loss"] = (steps, _smooth(lines[name][1]))
    return lines


def draw_detector_curve(run: Path) -> Path | None:
    """run/curve.png from run/results.csv: losses of training and validation, and the validation's mAP."""
    path = Path(run) / "results.csv"
    rows = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
    if not rows:
        return None
    rows = [{key.strip(): float(value) for key, value in row.items()} for row in rows]
    epochs = [row["epoch"] for row in rows]
    names = [f"{part}/{loss}_loss" for loss in ("box", "cls") for part in ("train", "val")]
    names += ["metrics/mAP50(B)", "metrics/mAP50-95(B)"]
    lines = {name: (epochs, [row[name] for row in rows]) for name in names if name in rows[0]}
    return _draw(path.with_name("curve.png"), "Epoch", lines)


def _smooth(values: list[float]) -> list[float]:
    out, mean = [], values[0]
    for value in values:
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        out.append(mean)
    return out


def _draw(path: Path, along: str, lines: dict) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=110)
    axes = figure.add_subplot(xlabel=along)
    for name, (x, y) in lines.items():
        axes.plot(x, y, label=name, linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
    return path
