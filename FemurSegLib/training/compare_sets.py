"""Which bones and CTs to learn from: the same training on six sets, each judged on the same held-out cases.

    lines = compare(contestants(real, sampled, cases), base, judged, out)
    print(table(lines))

Every training has the same seed, network and number of steps, from the same first weights. Where it is interrupted,
the same call goes on: trainings from their checkpoints, judged cases from out/<set>/scores.jsonl.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from FemurSegLib import models
from FemurSegLib.errors import FemurSegError
from FemurSegLib.phantom.command import PHANTOM_NAME
from FemurSegLib.training import checkpoint
from FemurSegLib.training.cases import Case, read_case
from FemurSegLib.training.segmenter import SegmenterTraining, train_segmenter
from FemurSegLib.whole_file import write_text


@dataclass(frozen=True)
class Contestant:
    """A set to train on: people whose bones are painted, and labelled CTs."""

    name: str
    people: tuple[str, ...]
    cases: tuple[Case, ...]

    @property
    def folder(self) -> str:
        return re.sub("[^a-z0-9]+", "_", self.name.lower())


def contestants(real: Iterable[str], sampled: Iterable[str], cases: Iterable[Case]) -> list[Contestant]:
    """Six sets: samples of the shape model alone, bones of real people alone, both; each without and with CTs.

    Raises ValueError where one of the three is empty: two contestants would then be the same.
    """
    real, sampled, cases = tuple(real), tuple(sampled), tuple(cases)
    if not (real and sampled and cases):
        raise ValueError("People, samples of the shape model and labelled CTs are all needed.")
    bones = {"LLP26": sampled, f"{len(real)} people": real, f"LLP26 and {len(real)} people": real + sampled}
    return [
        Contestant(f"{name}{words}", people, cts)
        for name, people in bones.items()
        for words, cts in ((", no CT", ()), (", with CT", cases))
    ]


def compare(
    sets: Iterable[Contestant],
    base: SegmenterTraining,
    judged: Iterable[Case],
    segment: Callable | None = None,
    minutes: float = math.inf,
    report: Callable[[str], None] = print,
) -> list[dict]:
    """Trains on each set as `base` says, into folders of `base.out`, and judges it; a line (dict) a set.

    judged: labelled cases, the same for all, whole way from CT to mask with the detectors of the shipped models.
    segment: what to judge with, `pipeline.segment_femurs` by default. minutes: for all together; what is not done
    then is left for the next call. Raises ValueError where a set holds a case of a judged person.
    """
    sets, judged = list(sets), list(judged)
    strangers = {case.person for case in judged}
    for one in sets:
        if seen := strangers & ({case.person for case in one.cases} | set(one.people)):
            raise ValueError(f"{min(seen)} would be learned from and judged.")
    begun, lines = time.monotonic(), []
    for one in sets:
        settings = replace(
            base,
            out=base.out / one.folder,
            people=one.people,
            cases=one.cases,
            held_people=(),
            held_cases=(),
            minutes=max(0.0, minutes - (time.monotonic() - begun) / 60),
        )
        step = _step_of(settings.out)
        if step < settings.steps and settings.minutes > 0:
            report(f"{one.name}: training from step {step} to {settings.steps}")
            train_segmenter(settings, report=lambda line, name=one.name: report(f"{name}: {line}"))
            step = _step_of(settings.out)
        line = {"set": one.name, "people": len(one.people), "cts": len(one.cases), "steps": step, "scores": []}
        if step >= settings.steps:
            over = lambda: (time.monotonic() - begun) / 60 > minutes  # noqa: E731
            line["scores"] = _judge(settings, judged, segment, over, report)
        lines.append(line)
        content = {"settings": asdict(base), "sets": lines}
        write_text(base.out / "comparison.json", json.dumps(content, default=str, indent=1))
    return lines


def table(lines: list[dict]) -> str:
    """A row a set: Dice (mean and worst femur) and surface distance, on real CTs and on phantoms."""
    head = ["Set", "Steps", "Real CT: Dice", "worst", "MSD mm", "Phantoms: Dice", "worst", "MSD mm", "Missed"]
    rows = []
    for line in lines:
        row = [line["set"], str(line["steps"])]
        for kind in ("real", "phantom"):
            femurs = [f for s in line["scores"] if s["kind"] == kind for f in s["femurs"] if f["present"]]
            dice = [f["dice"] for f in femurs]
            surface = [f["mean_surface_mm"] for f in femurs if f["found"]]
            row += [_mean(dice), f"{min(dice):.3f}" if dice else "-", _mean(surface, 2)]
        femurs = [f for s in line["scores"] for f in s["femurs"]]
        missed = sum(f["present"] and not f["found"] for f in femurs)
        rows.append([*row, f"{missed} of {sum(f['present'] for f in femurs)}" if femurs else "not judged yet"])
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    return "\n".join(
        "  ".join(
            text.ljust(w) if n == 0 else text.rjust(w) for n, (text, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    )


def _judge(settings: SegmenterTraining, judged, segment, is_over, report) -> list[dict]:
    from FemurSegLib.evaluation.score import failed, score
    from FemurSegLib.pipeline import segment_femurs

    segment = segment or segment_femurs
    folder, digest = _models_of(settings)
    kept = settings.out / "scores.jsonl"
    known = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    known = {line["name"]: line for line in known if line["weights"] == digest}
    for case in judged:
        if case.name in known or is_over():
            continue
        ct, reference = read_case(case)
        begun = time.perf_counter()
        try:
            found = segment(ct, device=settings.device, network=settings.network, models_folder=folder)
            result = score(case.name, found, reference)
        except FemurSegError as error:
            result = failed(case.name, error, reference, time.perf_counter() - begun)
        wanted = ("side", "present", "found", "dice", "mean_surface_mm", "hd95_mm", "swapped")
        femurs = [{key: getattr(f, key) for key in wanted} for f in result.femurs if f.present or f.found]
        kind = "phantom" if PHANTOM_NAME.fullmatch(case.name) else "real"
        known[case.name] = {"name": case.name, "kind": kind, "weights": digest, "femurs": femurs}
        with open(kept, "a") as file:
            file.write(json.dumps(known[case.name]) + "\n")
        told = ", ".join(f"{f['side'].split('_')[0]} {f['dice']:.3f}" for f in femurs)
        report(f"{settings.out.name}: {case.name} {told or result.verdict}")
    return [known[case.name] for case in judged if case.name in known]


def _models_of(settings: SegmenterTraining) -> tuple[Path, str]:
    """A folder of models with the detectors that are shipped and the segmenter of a training; its SHA-256."""
    folder = settings.out / "models"
    if not (folder / models.MANIFEST).exists():
        folder.mkdir(parents=True, exist_ok=True)
        entries = {}
        for kind in ("detector_coronal", "detector_axial"):
            model = models.find(kind)
            shutil.copyfile(model.path, folder / model.file)
            entries[model.name] = {
                "file": model.file,
                "sha256": model.sha256,
                "kind": model.kind,
                "network": model.network,
                "set": model.data_set,
            }
        write_text(folder / models.MANIFEST, json.dumps(entries, indent=1))
    path = models.export_weights(
        checkpoint.read_weights(settings.out / checkpoint.WEIGHTS),
        f"segmenter_{settings.network}",
        kind="segmenter",
        network=settings.network,
        folder=folder,
        terms={"set": models.chosen_set()},
    )
    return folder, hashlib.sha256(path.read_bytes()).hexdigest()


def _step_of(out: Path) -> int:
    kept = checkpoint.read_checkpoint(out)
    return int(kept["step"]) if kept else 0


def _mean(values, digits: int = 3) -> str:
    return f"{np.mean(values):.{digits}f}" if values else "-"
