"""How far a mask can be trusted: the probability that it is a good one, from what the run itself has seen.

    calibration = load_calibration("segmenter_segresnet")
    evidence = gather(mask, place, body.certainty, region, cut, oriented)
    calibration.confidence(evidence)            # 0..1

A good mask is one whose Dice with the true femur, as far as it is in the scan, is at least GOOD_DICE. Each doubt of
`Evidence` can only lower the confidence. The coefficients stand in `confidence.json` beside the weights that they
were fitted for; how they are fitted and how well they keep their word is the matter of evaluation/calibration.py.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from FemurSegLib import models
from FemurSegLib.errors import ModelError

GOOD_DICE = 0.95
"""What a mask must reach to be called good."""
LOW_CONFIDENCE = 0.5
"""Below this a mask is more likely not good than good, and the surgeon is told."""
FILE = "confidence.json"

CLEAR = 0.01
"""Masks at 0.25 and at 0.75 that differ by no more than this part (1 - Dice) have a clear edge."""
METAL_HU = 2000
"""Cortical bone stays below; titanium and steel lie above, where a scanner does not clip them."""
METAL_MM = 10.0
"""Metal counts in the box around the mask and so far beyond."""
WHOLE_MM = 400.0
"""A cut femur counts as whole if this much of it is there: those of the shape model LLP26 have 403 to 480 mm."""


@dataclass(frozen=True)
class Evidence:
    """What speaks against a mask, each 0 where nothing does.

    blur: ln((1 - Body.certainty) / CLEAR), how much the mask changes with the threshold. metal: ln(1 + ml of metal
    in or near it). missing: of a femur that the scan cuts, ln(WHOLE_MM / length of what is there), 0 for a whole
    one. unlocated: doubt of the detectors, (1 - score) + (1 - agreement of the views), 0 in a box drawn by a user.
    """

    blur: float
    metal: float
    missing: float
    unlocated: float

    def doubts(self) -> tuple[float, ...]:
        """The values in the order of DOUBTS."""
        return tuple(getattr(self, name) for name in DOUBTS)


DOUBTS = tuple(field.name for field in fields(Evidence))
REASONS = {
    "blur": "its edge is not clear",
    "metal": "there is metal in it or near it",
    "missing": "only a part of it is in the scan",
    "unlocated": "the radiographs show it poorly",
}


def gather(mask: np.ndarray, place, certainty: float, region, cut, oriented) -> Evidence:
    """The evidence on one femur.

    mask: bool (k, j, i) of the box `place` (a range an axis) of `oriented`, the CT. certainty: Body.certainty.
    region: localization Region. cut: faces of the scan that cut the mask.
    """
    spacing = np.array(oriented.grid.spacing_mm[::-1])
    first, last = np.array([(at[0], at[-1] + 1) for at in map(np.unique, np.nonzero(mask))]).T
    start = np.array([a for a, _ in place])
    margin = np.ceil(METAL_MM / spacing).astype(int)
    lower, upper = np.maximum(start + first - margin, 0), start + last + margin
    near = oriented.voxels[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))]
    metal_ml = np.count_nonzero(near > METAL_HU) * float(np.prod(spacing)) / 1000
    length_mm = float((last - first)[0] * spacing[0])  # from foot to head
    return Evidence(
        blur=max(0.0, math.log(max(1 - certainty, 1e-6) / CLEAR)),
        metal=math.log1p(metal_ml),
        missing=max(0.0, math.log(WHOLE_MM / length_mm)) if cut else 0.0,
        unlocated=(1 - region.score) + (1 - region.agreement),
    )


@dataclass(frozen=True)
class Calibration:
    """confidence = 1 / (1 + exp(-(intercept - weights . doubts))), weights in the order of DOUBTS, none negative.

    models: SHA-256 by name of the weights that it was fitted for.
    """

    intercept: float
    weights: tuple[float, ...]
    models: dict[str, str]

    def confidence(self, evidence: Evidence) -> float:
        logit = self.intercept - float(np.dot(self.weights, evidence.doubts()))
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))

    def fits(self, used) -> bool:
        """Whether it was fitted for the weights that were used (Models)."""
        return all(self.models.get(model.name) == model.sha256 for model in used)

    def reasons(self, evidence: Evidence) -> list[str]:
        """What lowers the confidence most, in words, the weightiest first."""
        loss = {name: w * x for name, w, x in zip(DOUBTS, self.weights, evidence.doubts(), strict=True)}
        telling = [name for name in DOUBTS if loss[name] > 0.25 * max(sum(loss.values()), 1e-9)]
        return [REASONS[name] for name in sorted(telling, key=lambda name: -loss[name])]


def load_calibration(name: str, folder: Path | str | None = None) -> Calibration | None:
    """The calibration of the masks that some weights (Model.name) make; None where there is none.

    folder: that of the weights, the default one unless given. Raises ModelError where it is damaged.
    """
    path = Path(folder or models.default_folder()) / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8")).get(name) if path.is_file() else None
        if document is None:
            return None
        weights = tuple(float(document["weights"][name]) for name in DOUBTS)
        return Calibration(float(document["intercept"]), weights, dict(document["models"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "Install FemurSeg again, or fit it: femurseg evaluate --calibrate."
        raise ModelError(f"The calibration of the confidence, {path}, is damaged.", hint) from error
