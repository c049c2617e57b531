"""From Hounsfield units to mineral density: a straight line, given by the user or fitted to rods in the scan.

    calibration = calibrate([(0, 2.1), (100, 121.8), (200, 240.5)])   # mg/cm3 and mean HU of each rod
    calibration.density(180.0)

Quantitative CT relates both linearly, with rods of known hydroxyapatite or K2HPO4 density scanned with the patient
(Engelke et al., J Clin Densitom 18:338-358, 2015; reviewed in Knowles et al., J Exp Orthop 3:36, 2016). The line
holds for that scanner, voltage and kernel alone; without one no density is given. Rods reach a few hundred mg/cm3:
above that, as in dense cortex, the line is an extrapolation.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from FemurSegLib.errors import InputError

COLUMNS = ("density_mg_cm3", "hu")
"""Of a table of rods: what is known, and what the scan shows as the mean inside the rod."""
HINT = "Give slope,intercept (mg/cm3 per HU, mg/cm3), or a CSV or JSON file of rods (density_mg_cm3, hu)."


@dataclass(frozen=True)
class Calibration:
    """density in mg/cm3 = slope * HU + intercept. `r2`: of the fit to `rods`, (density, HU) pairs; None where the
    relation was given. Raises InputError for a slope that is not above zero."""

    slope: float
    intercept: float
    r2: float | None = None
    rods: tuple[tuple[float, float], ...] = ()

    def __post_init__(self):
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept) and self.slope > 0):
            raise InputError(
                f"A density of {self.slope:g} * HU + {self.intercept:g} makes no sense: it must rise with HU.",
                HINT,
            )

    def density(self, hu: float | np.ndarray) -> float | np.ndarray:
        """mg/cm3 of HU."""
        return self.slope * hu + self.intercept

    def as_dict(self) -> dict:
        return {
            "slope_mg_cm3_per_hu": self.slope,
            "intercept_mg_cm3": self.intercept,
            "r2": self.r2,
            "rods": [list(rod) for rod in self.rods],
        }


def calibrate(rods: Iterable[tuple[float, float]]) -> Calibration:
    """The line of least squares through (known density in mg/cm3, mean HU) of at least two different rods.

    `r2` is the part of the variance of the densities that the line explains. Raises InputError.
    """
    pairs = [(float(density), float(hu)) for density, hu in rods]
    density, hu = np.array(pairs, float).reshape(-1, 2).T
    if not np.isfinite([density, hu]).all():
        raise InputError("A rod has a density or HU that is not a number.", HINT)
    if len(set(hu)) < 2 or len(set(density)) < 2:
        raise InputError("A calibration needs at least two rods of different density.", HINT)
    slope, intercept = np.polyfit(hu, density, 1)
    left = density - (slope * hu + intercept)
    r2 = 1 - float(left @ left) / float(((density - density.mean()) ** 2).sum())
    return Calibration(float(slope), float(intercept), r2, tuple(pairs))


def rods_in(ct: np.ndarray, rods: np.ndarray, densities: Mapping[int, float]) -> list[tuple[float, float]]:
    """(known density, mean HU) of rods outlined in the scan, for `calibrate`.

    ct: HU; rods: labelmap of the same shape, a value a rod, drawn well inside it; densities: mg/cm3 by value.
    Raises InputError for another shape or a rod that is not there.
    """
    if ct.shape != rods.shape:
        raise InputError("The CT and the outlines of the rods have different sizes.", "Draw them on that CT.")
    pairs = []
    for value, density in densities.items():
        inside = rods == value
        if not inside.any():
            raise InputError(
                f"No rod has the value {value}.", "Give the values of the outlines and their densities."
            )
        pairs.append((float(density), float(ct[inside].mean())))
    return pairs


def read_calibration(text: str | Path) -> Calibration:
    """What the user enters: "1.05,-12", or a file: CSV with `COLUMNS`, or JSON, a list of such rods or the object
    that `Calibration.as_dict` gives. Raises InputError."""
    path = Path(text)
    if path.suffix.lower() not in (".csv", ".json"):
        try:
            slope, intercept = (float(part) for part in str(text).split(","))
        except ValueError:
            raise InputError(f"'{text}' is not a calibration.", HINT) from None
        return Calibration(slope, intercept)
    try:
        content = path.read_text(encoding="utf-8-sig")
        rows = json.loads(content) if path.suffix.lower() == ".json" else list(csv.DictReader(content.splitlines()))
        if isinstance(rows, dict):
            return Calibration(float(rows["slope_mg_cm3_per_hu"]), float(rows["intercept_mg_cm3"]))
        return calibrate([tuple(float(row[column]) for column in COLUMNS) for row in rows])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"The calibration {path.name} could not be read: {error}.", HINT) from error
