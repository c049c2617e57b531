"""A femur of simple solids whose every angle is known. Right side, LPS mm.

Head: a ball. Neck: a round bar from the head to the shaft. Shaft: a round bar along z, with a trochanter above
and a knob for the lesser one. Knee: two condyles, rounded bars that reach back from the shaft, and a notch.
"""

from __future__ import annotations

import numpy as np

from FemurSegLib.grid import Grid
from FemurSegLib.sides import LABELS, RIGHT

HEAD_RADIUS = 24.0
CONDYLE_RADIUS = 20.0
KNEE = np.array([14.0, 0.0, 0.0])
"""Middle between the condyles' centres."""
HALF_GAP = 24.0
SHAFT_TOP = 400.0


def toy_femur(
    anteversion_deg=15.0, neck_shaft_deg=125.0, spacing_mm=(1.0, 1.0, 1.0), lower_mm=-40.0, upper_mm=460.0
) -> tuple[np.ndarray, Grid, dict]:
    """(labels (k, j, i), grid, truth) of a right femur. Medial is +x (the patient's left), posterior +y."""
    turn, bend = np.radians(anteversion_deg), np.radians(neck_shaft_deg)
    neck = np.array([np.sin(bend) * np.cos(turn), -np.sin(bend) * np.sin(turn), -np.cos(bend)])
    root = np.array([0.0, 0.0, SHAFT_TOP - 30.0])
    head = root + 62.0 * neck
    lower, upper = np.array([-45.0, -60.0, lower_mm]), np.array([75.0, 60.0, upper_mm])
    size = np.ceil((upper - lower) / spacing_mm).astype(int)
    grid = Grid(tuple(size[::-1]), spacing_mm, lower, np.eye(3))
    k, j, i = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in grid.shape), indexing="ij", sparse=True)
    x, y, z = (o + s * a for o, s, a in zip(lower, spacing_mm, (i, j, k), strict=True))

    def ball(center, radius):
        return (x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2 <= radius**2

    def bar(a, b, radius, end_radius=None):
        a, b = np.asarray(a, float), np.asarray(b, float)
        length = np.linalg.norm(b - a)
        d = (b - a) / length
        t = np.clip((x - a[0]) * d[0] + (y - a[1]) * d[1] + (z - a[2]) * d[2], 0, length)
        r = radius + ((end_radius or radius) - radius) * t / length
        return (x - a[0] - t * d[0]) ** 2 + (y - a[1] - t * d[1]) ** 2 + (z - a[2] - t * d[2]) ** 2 <= r**2

    bone = ball(head, HEAD_RADIUS) | bar(root, head, 16.0)
    bone |= bar([0, 0, 60], [0, 0, SHAFT_TOP - 25], 14.0) | bar([-6, 0, 360], [-10, 2, SHAFT_TOP + 5], 14.0)
    bone |= bar([8, 10, 335], [14, 17, 335], 9.0)
    for sign in (-1, 1):
        center = KNEE + [sign * HALF_GAP, 0, 0]
        bone |= bar(center, center + [0, 26, 4], CONDYLE_RADIUS)
        bone |= bar(center + [0, 8, 10], [0, 0, 80], CONDYLE_RADIUS, 14.0)
    bone |= bar(KNEE + [-HALF_GAP, 0, 10], KNEE + [HALF_GAP, 0, 10], 18.0)
    labels = bone.astype(np.uint8) * LABELS[RIGHT]
    return labels, grid, {"head": head, "neck": neck}
