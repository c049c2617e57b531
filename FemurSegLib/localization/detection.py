"""A femur found in a radiograph, and how far two boxes agree."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Detection:
    """`box` is (x0, y0, x1, y1) in pixels of `Radiograph.image`, continuous edges; `score` is 0..1."""

    side: str
    score: float
    box: tuple[float, float, float, float]


def iou(a, b) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1); 0 where both are empty."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, float(width)) * max(0.0, float(height))
    union = float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])) - shared
    return shared / union if union > 0 else 0.0
