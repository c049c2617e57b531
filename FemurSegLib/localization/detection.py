"""A femur found in a radiograph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Detection:
    """`box` is (x0, y0, x1, y1) in pixels of `Radiograph.image`, continuous edges; `score` is 0..1."""

    side: str
    score: float
    box: tuple[float, float, float, float]
