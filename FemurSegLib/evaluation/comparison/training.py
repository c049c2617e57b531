"""Trains an entrant within the budget, going on where it was interrupted."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

from FemurSegLib.evaluation.comparison.entrants import Comparison, Entrant
from FemurSegLib.evaluation.comparison.material import training_cases, write_case
from FemurSegLib.training.cases import Case, find_cases, read_case


@dataclass(frozen=True)
class Trained:
    """seconds: of all runs of the training, without painting phantoms; of both rounds where there are two."""

    network: object
    patch: tuple[int, int, int]
    steps: int
    seconds: float


def train(comparison: Comparison, entrant: Entrant, report=print) -> Trained:
    """The trained network. One that finds regions first is also put into a folder of models, `models`."""
    from FemurSegLib.segmentation.network import build_network
    from FemurSegLib.training.checkpoint import load_weights

    folder = comparison.out / entrant.name
    cases = training_cases(comparison, entrant)
    if entrant.annotated < 1:
        rounds = _in_two_rounds(comparison, entrant, cases, report)
    else:
        rounds = [_round(comparison, entrant, folder / "training", cases, report)]
    network = build_network(entrant.network, comparison.patch(entrant))
    load_weights(network, rounds[-1].weights)
    if entrant.mode == "two-stage":
        _as_models(network, entrant.network, folder / "models")
    return Trained(network, comparison.patch(entrant), sum(r.steps for r in rounds), sum(r.seconds for r in rounds))


@dataclass(frozen=True)
class _Round:
    weights: Path
    steps: int
    seconds: float


def _round(comparison: Comparison, entrant: Entrant, out: Path, cases, report, share=1.0, start=None) -> _Round:
    """A training with a share of the budget."""
    from FemurSegLib.segmentation.network import RECIPES
    from FemurSegLib.training.checkpoint import WEIGHTS, read_checkpoint
    from FemurSegLib.training.segmenter import SegmenterTraining, train_segmenter

    clock = _Clock(out / "seconds.json")
    minutes = share * comparison.minutes - clock.seconds / 60
    if minutes > 0:
        settings = SegmenterTraining(
            out=out,
            cases=tuple(cases),
            network=entrant.network,
            patch=comparison.patch(entrant),
            batch=comparison.batch,
            steps=max(1, round(share * comparison.steps)),
            learning_rate=RECIPES[entrant.network].learning_rate,
            loss=entrant.loss,
            seed=comparison.seed,
            device=comparison.device,
            workers=0,
            minutes=minutes,
            start=start,
        )
        with clock:
            train_segmenter(settings, report=lambda line: report(f"{entrant.name}  {line}"))
    return _Round(out / WEIGHTS, read_checkpoint(out)["step"], clock.seconds)


def _in_two_rounds(comparison: Comparison, entrant: Entrant, cases, report) -> list[_Round]:
    """Half of the budget on the annotated slices, then half on all, the others labelled by the first round."""
    from FemurSegLib.training.sparse_annotation import annotate_part

    folder = comparison.out / entrant.name
    annotated = []
    for case in cases:
        ct, labels = read_case(case)
        write_case(folder / "annotated_cases", case.name, ct, annotate_part(labels.voxels, entrant.annotated))
    annotated = find_cases(folder / "annotated_cases")
    first = _round(comparison, entrant, folder / "training_annotated", annotated, report, 0.5)
    clock = _Clock(folder / "labelling_seconds.json")
    if not (folder / "labelled_cases").exists():
        with clock:
            _label(comparison, entrant, annotated, first.weights, folder / "labelled_cases")
    second = _round(
        comparison, entrant, folder / "training", find_cases(folder / "labelled_cases"), report, 0.5, first.weights
    )
    return [first, replace(second, seconds=second.seconds + clock.seconds)]


def _label(comparison: Comparison, entrant: Entrant, cases: list[Case], weights: Path, folder: Path) -> None:
    from FemurSegLib.evaluation.comparison.inference import by_slices
    from FemurSegLib.segmentation.network import build_network
    from FemurSegLib.training.checkpoint import load_weights
    from FemurSegLib.training.sparse_annotation import pseudo_label

    network = build_network(entrant.network, comparison.patch(entrant))
    load_weights(network, weights)
    partial = folder.with_name(f".{folder.name}.partial")
    for case in cases:
        ct, labels = read_case(case)
        slices = comparison.patch(entrant)[0]
        _, probability, _ = by_slices(ct, network, slices, comparison.slice_step, comparison.device)
        write_case(partial, case.name, ct, pseudo_label(labels.voxels, probability))
    partial.rename(folder)


def _as_models(network, name: str, folder: Path) -> None:
    """The network and the detectors that are installed, as a folder of models."""
    from FemurSegLib import models

    for model in models.table().values():
        if model.kind != "segmenter":
            tensors = models.load_tensors(model.name)
            models.export_weights(tensors, model.name, kind=model.kind, network=model.network, folder=folder)
    models.export_weights(network.state_dict(), f"segmenter_{name}", kind="segmenter", network=name, folder=folder)


class _Clock:
    """Seconds spent inside it, over all runs, kept in a file."""

    def __init__(self, path: Path):
        self.path = path
        self.seconds = json.loads(path.read_text()) if path.exists() else 0.0

    def __enter__(self):
        self.begun = time.perf_counter()

    def __exit__(self, *_):  # also when it is interrupted
        self.seconds = round(self.seconds + time.perf_counter() - self.begun, 3)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.seconds))
