"""Training curves as pictures."""

from __future__ import annotations

import csv
import json
from contextlib import suppress
from pathlib import Path

SMOOTHING = 0.9


def draw_segmenter_curve(run: Path) -> Path | None:
    """run/curve.png from run/curve.jsonl: the loss as it was, and smoothed. None if there is no curve."""
    path = Path(run) / "curve.jsonl"
    by_step = {}
    for text in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError):  # a line cut off when the training was killed
            line = json.loads(text)
            by_step[line["step"]] = line  # steps after the last checkpoint are done twice
    lines = [by_step[step] for step in sorted(by_step)]
    if not lines:
        return None
    steps, loss = [line["step"] for line in lines], [line["loss"] for line in lines]
    return _draw(
        path.with_suffix(".png"), "Step", {"loss": (steps, loss), "smoothed": (steps, _smooth(loss))}
    )


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
