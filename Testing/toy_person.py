"""A person of spheres and rods, whose every distance is known: phantoms for tests without bone shapes.

LPS millimetres, small (160 mm between head and knee), symmetric about x = 0, the patient's left at +x.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from FemurSegLib.phantom import shapes
from FemurSegLib.phantom.distance import STEP_MM, DistanceField
from FemurSegLib.phantom.shapes import FemurFrame, Person

HEAD_RADIUS_MM = 15.0
CONDYLE_RADIUS_MM = 14.0
HIP = np.array([55.0, 0.0, 0.0])
KNEE = np.array([50.0, 0.0, -160.0])


def sphere(center, radius):
    """A function from points (..., 3) to their distance, negative inside."""
    return lambda p: np.linalg.norm(p - np.asarray(center, float), axis=-1) - radius


def rod(a, b, radius):
    a, b = np.asarray(a, float), np.asarray(b, float)

    def distance(p):
        along = np.clip((p - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        return np.linalg.norm(p - a - along[..., None] * (b - a), axis=-1) - radius

    return distance


def union(*parts):
    return lambda p: np.min([part(p) for part in parts], axis=0)


def field(distance, low, high, spacing_mm: float = 1.5) -> DistanceField:
    """The DistanceField of an analytic distance over the box from `low` to `high`, and 10 mm more."""
    low, high = np.asarray(low, float) - 10, np.asarray(high, float) + 10
    size = np.ceil((high - low) / spacing_mm).astype(int) + 1
    z, y, x = (low[a] + spacing_mm * np.arange(size[a]) for a in (2, 1, 0))
    points = np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1], -1)
    stored = np.clip(np.rint(distance(points) / STEP_MM), -127, 127).astype(np.int8)
    return DistanceField(stored, low, spacing_mm)


def femur(side: str):
    """The distance to a femur: head, neck, shaft and two condyles that reach backwards."""
    s = 1.0 if side == "left" else -1.0
    hip, knee = HIP * (s, 1, 1), KNEE * (s, 1, 1)
    turn = hip + (s * 20, 0, -16)
    back = np.array([0, 6.0, 0])
    return union(
        sphere(hip, HEAD_RADIUS_MM),
        rod(hip, turn, 8.0),
        rod(turn, knee, 9.0),
        sphere(knee + (16, 0, 0) + back, CONDYLE_RADIUS_MM),
        sphere(knee - (16, 0, 0) + back, CONDYLE_RADIUS_MM),
    )


def toy_person(name: str = "toy") -> Person:
    """Pelvis, femora, lower legs and feet, with all that the phantoms ask of a person."""
    fields, frames, hips, plateaus = {}, {}, {}, {}
    fields["sacrum"] = field(sphere((0, 35, 45), 22), (-22, 13, 23), (22, 57, 67))
    for side, s in (("left", 1.0), ("right", -1.0)):
        hip, knee = HIP * (s, 1, 1), KNEE * (s, 1, 1)
        ankle = knee + (0, 0, -150)
        x = np.sort([s * 10, s * 105])
        fields[f"{side}_femur"] = field(femur(side), (x[0], -20, -185), (x[1], 25, 20))
        cup = union(rod(hip + (-s * 15, 0, 20), (s * 15, 30, 60), 8), sphere(hip + (0, 0, 8), 21))
        fields[f"{side}_hip"] = field(cup, (-10 if s > 0 else -90, -25, -15), (90 if s > 0 else 10, 45, 70))
        tibia = union(rod(knee + (0, 0, -32), ankle, 9), rod(knee + (-15, 3, -32), knee + (15, 3, -32), 11))
        fields[f"{side}_tibia"] = field(tibia, knee + (-30, -15, -165), knee + (30, 20, -15))
        fibula = rod(knee + (s * 22, 12, -40), ankle + (s * 18, 8, 0), 4)
        fields[f"{side}_fibula"] = field(fibula, knee + (-30, 0, -160), knee + (30, 20, -30))
        fields[f"{side}_patella"] = field(sphere(knee + (0, -22, 8), 8), knee + (-8, -30, 0), knee + (8, -14, 16))
        foot = rod(ankle + (0, 10, -18), ankle + (0, -70, -25), 9)
        fields[f"{side}_foot"] = field(foot, ankle + (-12, -80, -35), ankle + (12, 20, -5))
        up = (hip - knee) / np.linalg.norm(hip - knee)
        left = np.array([1.0, 0, 0]) - up[0] * up
        left /= np.linalg.norm(left)
        frames[side] = FemurFrame(hip, HEAD_RADIUS_MM, knee, np.stack([left, np.cross(up, left), up]))
        hips[side] = hip
        grid = np.stack(np.meshgrid(np.linspace(-15, 15, 7), np.linspace(-8, 8, 5)), -1).reshape(-1, 2)
        plateaus[side] = np.c_[knee[:2] + grid + (0, 3), np.full(len(grid), knee[2] - 21.0)]
    return Person(name, fields, frames, hips, plateaus)


def keep(cache: Path, name: str = "toy") -> str:
    """Puts the toy person where `load_person` finds it by name, without any shapes; returns the name."""
    Path(cache).mkdir(parents=True, exist_ok=True)
    (Path(cache) / f"{name}.v{shapes.CACHE_VERSION}.npz").write_bytes(_file())
    return name


@lru_cache(maxsize=1)
def _file() -> bytes:
    """The toy person as it is kept: seconds of work, done once."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "toy.npz"
        shapes._write(path, toy_person())
        return path.read_bytes()
