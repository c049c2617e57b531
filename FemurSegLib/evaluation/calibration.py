"""Fits the confidence to the Dice that was reached, and says how well it keeps its word.

    judged = judged_of(scores, people)
    write_calibration("Resources/Models/confidence.json", judged, used)

A case is a femur whose evidence (segmentation/confidence.py) and whose Dice are known. The model is a logistic
regression for P(Dice >= GOOD_DICE) in which every doubt can only lower the confidence (coefficients bounded at 0),
with a ridge penalty and the smoothed targets of Platt 1999 ("Probabilistic outputs for support vector machines"),
both against the overconfidence of few cases. The penalty draws to a small doubt, not to none: what the cases hardly
show, as metal, lowers the confidence all the same. The error of the model is the Brier score (Brier 1950), each
person left out in turn.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from FemurSegLib import models
from FemurSegLib.errors import InputError, OutputError
from FemurSegLib.phantom.command import FIELDS
from FemurSegLib.segmentation.confidence import DOUBTS, FILE, GOOD_DICE, Calibration, Evidence
from FemurSegLib.sides import UNDECIDED_LABEL
from FemurSegLib.volume import Volume
from FemurSegLib.whole_file import write_text

RIDGE, PRIOR = 1.0, 0.5
"""Weight of the penalty, as against the error of one case, on how far a coefficient (of a standardised doubt) lies
from PRIOR."""
GROUPS = 5
"""Of the reliability plot, of about equal size."""
FEWEST, FEWEST_PEOPLE = 8, 3
"""Femora and people to calibrate with, good masks and others among them: fewer say nothing about a confidence."""
STUBS_MM = (30.0, 80.0)
"""How much of the femora a shortened case keeps."""
Z95 = 1.96


@dataclass(frozen=True)
class Judged:
    """A femur: what was said of it, and what it was. person: whose bone it is, who is never split."""

    case: str
    person: str
    side: str
    dice: float
    confidence: float
    evidence: Evidence | None = None

    @property
    def good(self) -> bool:
        return self.dice >= GOOD_DICE


@dataclass(frozen=True)
class Group:
    """Femora of like confidence: its mean, the share of good masks and its 95 % interval (Wilson 1927)."""

    confidence: float
    share: float
    low: float
    high: float
    count: int


def judged_of(scores, people: dict[str, str] | None = None) -> list[Judged]:
    """The femora that were found, of CaseScores with a reference; a femur that is not there has Dice 0. With
    weights that nothing is fitted to yet their confidence is nan.

    people: by case, whose bones they are; by default what the name of a phantom tells, else the case.
    """
    people = people or {}
    return [
        Judged(s.name, people.get(s.name) or person_of(s.name), f.side, f.dice if f.present else 0.0, f.confidence,
               Evidence(**f.evidence) if f.evidence else None)
        for s in scores if s.labelled for f in s.femurs if f.found
    ]  # fmt: skip


def person_of(case: str) -> str:
    """Whose bones a case shows: `z019` of `z019_legs_9000` (a phantom), else the case; endings after ~ left out."""
    case = case.split("~")[0]
    phantom = re.fullmatch(rf"(.+)_({'|'.join(FIELDS)})_\d+", case)
    return phantom[1] if phantom else case


def shortened(ct: Volume, reference: Volume) -> dict[str, tuple[Volume, Volume]]:
    """Pieces of a labelled CT by what they keep (`lower30`: the lowest 30 mm of the femora, `upper80`), for femora
    that a scan truncates; none where they are as short already."""
    ct, reference = ct.oriented(), reference.oriented()
    femora = (reference.voxels > 0) & (reference.voxels != UNDECIDED_LABEL)
    slices = np.flatnonzero(femora.any(axis=(1, 2)))
    out = {}
    for keep_mm in STUBS_MM:
        count = max(2, round(keep_mm / ct.grid.spacing_mm[2]))
        if not len(slices) or slices[-1] - slices[0] < 1.5 * count:
            continue
        ends = {"lower": (0, slices[0] + count), "upper": (slices[-1] + 1 - count, ct.grid.shape[0])}
        for end, (first, last) in ends.items():
            corners = (int(first), 0, 0), (int(last), *ct.grid.shape[1:])
            out[f"{end}{keep_mm:.0f}"] = ct.crop(*corners), reference.crop(*corners)
    return out


def fit(cases: Iterable[Judged]) -> Calibration:
    """The calibration that fits the cases best (no weights named)."""
    from scipy.optimize import minimize

    cases = list(cases)
    x = np.array([c.evidence.doubts() for c in cases])
    good = np.array([c.good for c in cases])
    target = np.where(good, (good.sum() + 1) / (good.sum() + 2), 1 / ((~good).sum() + 2))
    spread = x.std(axis=0)
    scale = np.where(spread > 1e-6, spread, 1.0)
    x = x / scale

    def loss(parameters):
        intercept, weights = parameters[0], parameters[1:]
        logit = intercept - x @ weights
        error = np.logaddexp(0, logit) - target * logit
        slope = 1 / (1 + np.exp(-logit)) - target
        off = weights - PRIOR
        return error.sum() + RIDGE / 2 * off @ off, np.r_[slope.sum(), -slope @ x + RIDGE * off]

    start = np.r_[0.0, np.full(len(DOUBTS), PRIOR)]
    bounds = [(None, None)] + [(0, None)] * len(DOUBTS)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return Calibration(float(found[0]), tuple((found[1:] / scale).tolist()), {})


def leave_one_person_out(cases: Iterable[Judged]) -> list[Judged]:
    """The cases, each with the confidence that a fit to all other people's gives it."""
    cases = list(cases)
    out = []
    for person in sorted({c.person for c in cases}):
        calibration = fit([c for c in cases if c.person != person])
        out += [replace(c, confidence=calibration.confidence(c.evidence)) for c in cases if c.person == person]
    return out


def figures(cases: list[Judged]) -> dict:
    """How well confidences keep their word: number of femora, people and good masks; Brier score, that of always
    saying the share of good ones, and the area under the ROC curve (nan where all are good, or none)."""
    said, good = np.array([c.confidence for c in cases]), np.array([c.good for c in cases])
    pairs = said[good][:, None] - said[~good][None]
    return {
        "femora": len(cases),
        "people": len({c.person for c in cases}),
        "good": int(good.sum()),
        "brier": round(float(np.mean((said - good) ** 2)), 4),
        "brier_of_the_share": round(float(good.mean() * (1 - good.mean())), 4),
        "roc_area": round(float(np.mean((pairs > 0) + 0.5 * (pairs == 0))), 4) if pairs.size else math.nan,
    }


def reliability(cases: Iterable[Judged]) -> list[Group]:
    """Groups of about equal size by rising confidence."""
    ordered = sorted(cases, key=lambda c: c.confidence)
    parts = np.array_split(np.arange(len(ordered)), max(1, min(GROUPS, len(ordered) // 3)))
    out = []
    for part in parts:
        group = [ordered[n] for n in part]
        if group:
            low, high = wilson(sum(c.good for c in group), len(group))
            share = float(np.mean([c.good for c in group]))
            out.append(Group(float(np.mean([c.confidence for c in group])), share, low, high, len(group)))
    return out


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927, without correction for continuity)."""
    share, z2 = hits / count, Z95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))  # rounding leaves it in


def write_calibration(path: Path | str, cases: list[Judged], used) -> dict:
    """Fits and writes; what stands for other weights in the file stays. Returns what was written for these.

    path: file, or folder of the weights. used: Models that made the masks, the segmenter first. Raises InputError
    for too few cases.
    """
    cases = [c for c in cases if c.evidence]
    good, people = sum(c.good for c in cases), len({c.person for c in cases})
    if len(cases) < FEWEST or good in (0, len(cases)) or people < FEWEST_PEOPLE:
        raise InputError(
            f"{len(cases)} femora of {people} people, {good} of them with Dice {GOOD_DICE} or more, are too few to "
            "calibrate the confidence with.",
            f"Give at least {FEWEST} labelled femora of {FEWEST_PEOPLE} people, good ones and others.",
        )
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    calibration, left_out = fit(cases), leave_one_person_out(cases)
    entry = {
        "good_dice": GOOD_DICE,
        "intercept": calibration.intercept,
        "weights": dict(zip(DOUBTS, calibration.weights, strict=True)),
        "models": {model.name: model.sha256 for model in used},
        "made": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "leave_one_person_out": figures(left_out),
        "cases": [_rounded(asdict(c)) for c in left_out],
    }
    try:
        document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} could not be read, and was left as it is.", "Choose another file.") from error
    write_text(path, json.dumps({**document, used[0].name: entry}, indent=1) + "\n")
    return entry


def read_judged(name: str, folder: Path | str | None = None) -> list[Judged]:
    """The femora that the calibration of some weights (Model.name) was fitted to, each judged by other people's."""
    path = Path(folder or models.default_folder()) / FILE
    document = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return [
        Judged(**{**case, "evidence": Evidence(**case["evidence"])})
        for case in document.get(name, {}).get("cases", [])
    ]


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value
