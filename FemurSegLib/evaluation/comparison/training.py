"""Trains an entrant within the budget, going on where it was interrupted."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from FemurSegLib.evaluation.comparison.entrants import Comparison, Entrant
from FemurSegLib.evaluation.comparison.material import training_cases, write_case
from FemurSegLib.training.cases import Case, find_cases, read_case


@dataclass(frozen=True)
class Trained:
    """weights: their file. seconds: of all runs of the training, without painting phantoms; of both rounds where
    there are two, and of the labelling between them."""

    weights: Path
    steps: int
    seconds: float


def train(comparison: Comparison, entrant: Entrant, report=print) -> Iterator[Trained]:
    """Yields the weights each time they are to be looked at, and at last at the end of the budget."""
    folder, cases = comparison.out / entrant.name, training_cases(comparison, entrant)
    if entrant.annotated < 1:
        yield from _in_two_rounds(comparison, entrant, cases, report)
    else:
        yield from _round(comparison, entrant, folder / "training", cases, report)


def load(comparison: Comparison, entrant: Entrant, weights: Path):
    """The network with these weights. Where it finds regions first, they are put into a folder `models` too."""
    from FemurSegLib.segmentation.network import build_network
    from FemurSegLib.training.checkpoint import load_weights

    network = build_network(entrant.network, comparison.patch(entrant))
    load_weights(network, weights)
    if entrant.mode == "two-stage":
        _as_models(network, entrant.network, comparison.out / entrant.name / "models", comparison.data_set)
    return network


def _round(
    comparison: Comparison, entrant: Entrant, out: Path, cases, report, share=1.0, start=None
) -> Iterator[Trained]:
    """A training with a share of the budget."""
    from FemurSegLib.segmentation.network import RECIPES
    from FemurSegLib.training.checkpoint import WEIGHTS, read_checkpoint
    from FemurSegLib.training.segmenter import SegmenterTraining, train_segmenter

    clock, kept = _Clock(out / "seconds.json"), read_checkpoint(out)
    step, steps = kept["step"] if kept else 0, max(1, round(share * comparison.steps))
    settings = SegmenterTraining(
        out=out,
        cases=tuple(cases),
        network=entrant.network,
        patch=comparison.patch(entrant),
        batch=comparison.batch,
        steps=steps,
        learning_rate=RECIPES[entrant.network].learning_rate,
        loss=entrant.loss,
        seed=comparison.seed,
        device=comparison.device,
        workers=0,
        start=start,
    )
    while True:
        left = share * comparison.minutes - clock.seconds / 60
        look = comparison.look_minutes - clock.seconds / 60 % comparison.look_minutes
        if step < steps and left > 0:
            with clock:
                train_segmenter(
                    replace(settings, minutes=min(left, look)), lambda line: report(f"{entrant.name}  {line}")
                )
            step = read_checkpoint(out)["step"]
        yield Trained(out / WEIGHTS, step, clock.seconds)
        if step >= steps or clock.seconds / 60 >= share * comparison.minutes:
            return


def _in_two_rounds(comparison: Comparison, entrant: Entrant, cases, report) -> Iterator[Trained]:
    """Half of the budget on the annotated slices, then half on all, the others labelled by the first round."""
    folder = comparison.out / entrant.name
    annotated = _annotate(entrant, cases, folder / "annotated_cases")
    *_, first = _round(comparison, entrant, folder / "training_annotated", annotated, report, 0.5)
    clock = _Clock(folder / "labelling_seconds.json")
    if not (folder / "labelled_cases").exists():
        with clock:
            _label(comparison, entrant, annotated, first.weights, folder / "labelled_cases")
    labelled, before = find_cases(folder / "labelled_cases"), first.seconds + clock.seconds
    for second in _round(comparison, entrant, folder / "training", labelled, report, 0.5, first.weights):
        yield Trained(second.weights, first.steps + second.steps, before + second.seconds)


def _annotate(entrant: Entrant, cases: list[Case], folder: Path) -> list[Case]:
    from FemurSegLib.training.sparse_annotation import annotate_part

    for case in cases:
        ct, labels = read_case(case)
        write_case(folder, case.name, ct, annotate_part(labels.voxels, entrant.annotated))
    return find_cases(folder)


def _label(comparison: Comparison, entrant: Entrant, cases: list[Case], weights: Path, folder: Path) -> None:
    from FemurSegLib.evaluation.comparison.inference import by_slices
    from FemurSegLib.training.sparse_annotation import pseudo_label

    network, slices = load(comparison, entrant, weights), comparison.patch(entrant)[0]
    partial = folder.with_name(f".{folder.name}.partial")
    for case in cases:
        ct, labels = read_case(case)
        _, probability, _ = by_slices(ct, network, slices, comparison.slice_step, comparison.device)
        write_case(partial, case.name, ct, pseudo_label(labels.voxels, probability))
    partial.rename(folder)


def _as_models(network, name: str, folder: Path, data_set: str | None) -> None:
    """The network and the detectors that are installed in a set of weights, as a folder of models in that set."""
    from FemurSegLib import models

    terms = {"set": models.chosen_set(data_set)}
    there = (folder / models.MANIFEST).exists()
    for kind in () if there else models.DETECTORS:
        model = models.find(kind, data_set=data_set)
        tensors = models.load_tensors(model.name)
        models.export_weights(tensors, kind, kind=kind, network=model.network, folder=folder, terms=terms)
    models.export_weights(
        network.state_dict(), f"segmenter_{name}", kind="segmenter", network=name, folder=folder, terms=terms
    )


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
