"""What is accepted: the largest errors of reading the bone, in one table for all studies of this room.

BARS["endosteal_dice"].limit                  # "at least 0.965"
BARS["length_mm"].verdict([0.3, -1.2])        # "yes on average, not by every femur"
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .measurements import NAMES
from .regions import REGION_NAMES

ANGLES = tuple(key for key in NAMES if key.endswith("_deg") and key != "condylar_axes_deg")
"""All but the agreement of two methods, which is no angle of the bone."""
LENGTHS = ("length_mm", "mechanical_length_mm")


@dataclass(frozen=True)
class Quantity:
    """What is compared with the truth. `unit`: of its signed error ("" of Dice, which is compared itself). `bar`:
    the largest size of the error, or for `share` the smallest value; None where there is none."""

    key: str
    name: str
    unit: str
    bar: float | None = None
    share: bool = False
    """1 is perfect, as Dice; else 0 is."""

    @property
    def limit(self) -> str:
        """The bar in words."""
        return "none" if self.bar is None else f"at {'least' if self.share else 'most'} {self.bar:g}"

    def reached(self, size: float) -> bool:
        """Whether the size of an error, or a Dice, reaches the bar: nan does not, and without a bar all does."""
        return self.bar is None or bool(size >= self.bar if self.share else size <= self.bar)

    def verdict(self, values: Iterable[float]) -> str:
        """Whether femora with these values (signed errors, or Dice) reach the bar, in words; "" without a bar.

        A femur without a value (nan) reaches nothing: then no mean does either.
        """
        if self.bar is None:
            return ""
        sizes = np.abs(np.array(list(values), float))
        if all(map(self.reached, sizes)):
            words = "yes, by every femur"
        else:
            words = "yes on average, not by every femur" if self.reached(sizes.mean()) else "NO"
        missing = int(np.isnan(sizes).sum())
        return words + (f" (missing in {missing} of {len(sizes)})" if missing else "")


QUANTITIES = (
    Quantity("periosteal_dice", "Periosteal Dice", "", 0.98, True),
    Quantity("periosteal_mm", "Periosteal mean distance", "mm", 0.35),
    Quantity("periosteal_hd95_mm", "Periosteal HD95", "mm"),
    Quantity("endosteal_dice", "Endosteal Dice", "", 0.965, True),
    Quantity("endosteal_mm", "Endosteal mean distance", "mm", 0.35),
    Quantity("endosteal_hd95_mm", "Endosteal HD95", "mm"),
    *(Quantity(f"volume {key}", f"Volume: {name.lower()}", "%", 3.0) for key, name in REGION_NAMES.items()),
    *(Quantity(f"cortical {key}", f"Cortex: {name.lower()}", "%", 5.0) for key, name in REGION_NAMES.items()),
    Quantity("head_center_mm", "Head centre, distance", "mm", 1.0),
    Quantity("head_diameter_mm", "Head diameter", "%", 2.0),
    *(Quantity(key, NAMES[key], "deg", 1.0) for key in ANGLES),
    *(Quantity(key, NAMES[key], "mm", 1.0) for key in LENGTHS),
    *(Quantity(f"repeated {key}", f"Repeated: {NAMES[key]}", "deg", 0.5) for key in ANGLES),
)
"""All that has a bar in the project's task, and some that help to understand it. `Repeated`: how far an angle is
off at most when the same mask is read turned and mirrored."""
BARS = {quantity.key: quantity for quantity in QUANTITIES}
