"""Runs a comparison: a row for each entrant, each measured in the same way.

    for row in compare(Comparison(out, shapes, train_people, test_people), ("two-stage", "single-stage")):
        print(row["entrant"], row["dice"])

All is kept: the phantoms in cases/, and a folder an entrant with its training and its result.json. What is there is
not made again, so that an interrupted comparison goes on.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from FemurSegLib.errors import InputError
from FemurSegLib.evaluation.comparison.entrants import ENTRANTS, Comparison, Entrant
from FemurSegLib.evaluation.metrics import overlap, surface_distance
from FemurSegLib.whole_file import finite, write_json


def compare(comparison: Comparison, names=tuple(ENTRANTS), report=print) -> Iterator[dict]:
    """Yields a row (see table.COLUMNS; and `cases`, a dict a case) for each entrant.

    Raises InputError for a name that is none, for people who would train and be tested, and for a folder that was
    begun with other settings: its rows could not be compared.
    """
    if unknown := [name for name in names if name not in ENTRANTS]:
        raise InputError(f"There is no entrant '{unknown[0]}'.", f"Choose among: {', '.join(ENTRANTS)}.")
    if both := sorted(set(comparison.train_people) & set(comparison.test_people)):
        raise InputError(f"{both[0]} would train and be tested.", "Leave those who are tested out of training.")
    if not (comparison.train_people and comparison.test_people):
        raise InputError("There is nobody to train on, or nobody to test on.", "Name both, or more shapes.")
    _check_settings(comparison)
    return (_row(comparison, ENTRANTS[name], report) for name in names)


def _check_settings(comparison: Comparison) -> None:
    path = comparison.out / "settings.json"
    shared = {k: v for k, v in asdict(comparison).items() if k not in ("out", "shapes", "cache")}
    settings = json.loads(json.dumps(finite(shared)))
    if path.exists():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        for name, value in settings.items():
            if earlier.get(name) != value:
                raise InputError(
                    f"The comparison in {comparison.out} was begun with {name.replace('_', ' ')} "
                    f"{earlier.get(name)}, not {value}.",
                    "Give the same options, or another folder with --out.",
                )
    comparison.out.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def _row(comparison: Comparison, entrant: Entrant, report) -> dict:
    from FemurSegLib.evaluation.comparison.footprint import largest_patch, parameters
    from FemurSegLib.evaluation.comparison.training import load, train

    kept = comparison.out / entrant.name / "result.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    seen = kept.with_name("looks.json")
    looks = json.loads(seen.read_text(encoding="utf-8")) if seen.exists() else []
    for trained in train(comparison, entrant, report):
        network = load(comparison, entrant, trained.weights)
        cases = _run(comparison, entrant, network, report)
        looks = [look for look in looks if look[0] < trained.seconds]
        looks.append([trained.seconds, float(np.mean([case["dice"] for case in cases]))])
        write_json(seen, looks)
    row = {
        "entrant": entrant.name,
        "network": entrant.network,
        "mode": entrant.mode,
        "on": entrant.cases,
        "loss": entrant.loss,
        "annotated": entrant.annotated,
        "patch": list(comparison.patch(entrant)),
        "parameters": parameters(network),
        "file_mb": parameters(network) * 4 / 1e6,
        "largest_patch": largest_patch(entrant.network, comparison.memory_gb),
        "steps": trained.steps,
        "train_seconds": trained.seconds,
        **summarize(cases),
        "looks": looks,
        "cases": cases,
    }
    write_json(kept, row)
    return row


def _run(comparison: Comparison, entrant: Entrant, network, report) -> list[dict]:
    """A dict for each test case."""
    from FemurSegLib.evaluation.comparison.material import held_out_cases

    cases = []
    for name, ct, labels in held_out_cases(comparison, entrant.cases):
        begun = time.perf_counter()
        mask, field, threshold = _predict(comparison, entrant, network, ct)
        seconds = time.perf_counter() - begun
        scores = score(mask, labels)
        if entrant.mode == "slices":
            scores |= _surfaces(entrant, mask, field, threshold, labels)
        cases.append({"case": name, "seconds": round(seconds, 3)} | scores)
        report(f"{entrant.name}  {name}  Dice {scores['dice']:.4f}  {seconds:.1f} s")
    return cases


def _predict(comparison: Comparison, entrant: Entrant, network, ct):
    """(mask, what it was made from, its threshold) on the voxels of a CT."""
    from FemurSegLib.evaluation.comparison import inference

    if entrant.mode == "slices":
        slices = comparison.patch(entrant)[0]
        return inference.by_slices(ct, network, slices, comparison.slice_step, comparison.device)
    if entrant.mode == "two-stage":
        models = comparison.out / entrant.name / "models"
        mask = inference.two_stage(ct, entrant.network, models, comparison.device, comparison.data_set)
    else:
        mask = inference.single_stage(ct, network, comparison.device)
    return mask, None, 0.5


def score(mask: np.ndarray, labels) -> dict[str, float]:
    """Dice, mean distance and 95th percentile (mm), and both volumes (cm3) of all femur in a CT."""
    reference = labels.voxels > 0
    distance = surface_distance(mask, reference, labels.grid.spacing_mm)
    voxel_cm3 = float(np.prod(labels.grid.spacing_mm)) / 1000
    return {
        "dice": overlap(mask, reference).dice,
        "msd": distance.mean_mm,
        "hd95": distance.hd95_mm,
        "volume": float(np.count_nonzero(mask)) * voxel_cm3,
        "reference_volume": float(np.count_nonzero(reference)) * voxel_cm3,
    }


def _surfaces(entrant: Entrant, mask, field, threshold, labels) -> dict[str, float]:
    """Areas (cm2) of the surfaces; the volume too where the bone is reconstructed, against that of the reference's
    surface."""
    from FemurSegLib.segmentation.reconstruction import area_and_volume, reconstruct

    spacing = labels.grid.spacing_mm
    reference_area, reference_volume = area_and_volume(labels.voxels > 0, spacing)
    if not entrant.reconstructed:
        return {"area": area_and_volume(mask, spacing)[0], "reference_area": reference_area}
    area, volume = area_and_volume(*reconstruct(field, spacing, threshold))
    return {
        "area": area,
        "reference_area": reference_area,
        "volume": volume,
        "reference_volume": reference_volume,
    }


def summarize(cases: list[dict]) -> dict[str, float]:
    """Means over the cases, and the errors of volume (cm3) and area (cm2).

    Distances: of those cases in which something was found; `missed` counts the others.
    """
    dice = np.array([case["dice"] for case in cases])
    out = {
        "count": len(cases),
        "missed": sum(not math.isfinite(case["msd"]) for case in cases),
        "inference_seconds": float(np.mean([case["seconds"] for case in cases])),
        "dice": float(dice.mean()),
        "dice_sd": float(dice.std(ddof=1)) if len(dice) > 1 else math.nan,
    }
    for key in ("msd", "hd95"):
        found = [case[key] for case in cases if math.isfinite(case[key])]
        out[key] = float(np.mean(found)) if found else math.nan
    for key in ("volume", "area"):
        if key in cases[0]:
            off = errors([case[key] for case in cases], [case[f"reference_{key}"] for case in cases])
            out |= {f"{key}_{name}": value for name, value in off.items()}
    return out


def errors(measured, reference) -> dict[str, float]:
    """How far measurements are from references, as Zhao, section 2.5, and Deng 2022, Eq. 6 to 8, report it.

    r2: of determination, nan where the references do not differ. rmse, mae: in their unit. re, re_low, re_high:
    relative error in percent of the references that are not 0: the mean of its size, the lowest and the highest.
    """
    measured, reference = np.asarray(measured, float), np.asarray(reference, float)
    off = measured - reference
    spread = float(((reference - reference.mean()) ** 2).sum())
    relative = 100 * off[reference > 0] / reference[reference > 0]
    return {
        "r2": 1 - float((off**2).sum()) / spread if spread > 0 else math.nan,
        "rmse": float(np.sqrt((off**2).mean())),
        "mae": float(np.abs(off).mean()),
        "re": float(np.abs(relative).mean()) if len(relative) else math.nan,
        "re_low": float(relative.min()) if len(relative) else math.nan,
        "re_high": float(relative.max()) if len(relative) else math.nan,
    }
