"""The loop that all 3D networks share: resuming, and who prepares patches."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from tiny_network import tiny_network
from toy_person import keep

from FemurSegLib.segmentation.compartment_network import CompartmentNetwork
from FemurSegLib.training import checkpoint, segmenter
from FemurSegLib.training.compartments import CompartmentPatches, CompartmentTraining, train_compartments
from FemurSegLib.training.loop import Training, preparation
from FemurSegLib.training.patches import RealSource
from FemurSegLib.training.segmenter import SegmenterTraining, train_segmenter

SIZE = (16, 16, 16)


@pytest.mark.parametrize(
    ("device", "workers", "expected"),
    [("cuda:1", None, (0, "cuda:1")), ("cuda:1", 3, (3, "cpu")), ("cpu", None, (1, "cpu")), ("cpu", 0, (0, "cpu"))],
)
def test_patches_are_painted_on_a_gpu_unless_processes_are_asked_for(device, workers, expected, tmp_path):
    assert preparation(Training(out=tmp_path, device=device, workers=workers)) == expected


@pytest.fixture
def asked(monkeypatch):
    """The numbers of all patches that a training asks for."""
    numbers = []
    for source in (RealSource, CompartmentPatches):
        get = source.__getitem__
        monkeypatch.setattr(
            source, "__getitem__", lambda self, number, get=get: numbers.append(number) or get(self, number)
        )
    return numbers


def kept_before(network, optimizer, steps: int) -> dict:
    """The first four entries of a checkpoint, as trainings of either kind have written them from the first day on,
    after some steps on noise."""
    torch.manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        network(torch.rand(1, next(network.parameters()).shape[1], *SIZE)).square().mean().backward()
        optimizer.step()
    averaged = {k: v + 0.25 if v.is_floating_point() else v.clone() for k, v in network.state_dict().items()}
    return {
        "network": network.state_dict(),
        "averaged": averaged,
        "optimizer": optimizer.state_dict(),
        "step": steps,
    }


LATER = {"seen": 3, "validation": {"best": 0.6, "step": 2, "since": 1}}
"""What those of the segmenter hold besides."""


@pytest.mark.parametrize(("kind", "more"), [("segmenter", {}), ("segmenter", LATER), ("compartments", {})])
def test_a_checkpoint_of_an_old_training_is_gone_on_from(kind, more, case, people, asked, monkeypatch, tmp_path):
    out, shared = tmp_path / "run", {"patch": SIZE, "batch": 1, "workers": 0, "precision": "fp32"}
    if kind == "segmenter":
        monkeypatch.setattr(segmenter, "build_network", tiny_network)
        network, optimize = tiny_network(), partial(torch.optim.AdamW, lr=1e-3, weight_decay=1e-5)
        settings = partial(SegmenterTraining, out=out, cases=(case,), **shared)
    else:
        network, optimize = CompartmentNetwork(), partial(torch.optim.Adam, lr=3e-3)
        settings = partial(CompartmentTraining, out=out, **people, **shared)
    train = partial(train_segmenter if kind == "segmenter" else train_compartments, report=lambda line: None)
    old = kept_before(network, optimize(network.parameters()), 3) | more
    out.mkdir()
    torch.save(old, out / "checkpoint.pt")

    weights = load_file(train(settings(steps=3)))  # done: what it has learned is written down, and no more
    assert not asked
    assert all(torch.equal(value, old["averaged"][key].half()) for key, value in weights.items())

    train(settings(steps=5))
    new = checkpoint.read_checkpoint(out)
    assert asked == [3, 4]
    assert (new["step"], new["seen"], int(new["optimizer"]["state"][0]["step"])) == (5, 5, 5)
    assert new["validation"] == more.get("validation", {"best": -1.0, "step": 0, "since": 0})
    moved = [(new["network"][key] - old["network"][key]).abs().max() for key, _ in network.named_parameters()]
    assert 0 < max(moved) < 0.02  # two steps away from where it was, not a network of its own


def test_compartments_go_on_as_if_they_had_run_through_and_keep_the_best_on_people_held_out(people, tmp_path):
    keep(people["cache"], "held")
    settings = partial(
        CompartmentTraining, **people, patch=SIZE, batch=1, steps=4, precision="fp32", seed=3,
        held_people=("held",), validate_every=2, validation_patches=2,
    )  # fmt: skip
    report = []
    best = train_compartments(settings(out=tmp_path / "through", workers=0), report=report.append)
    assert report[0] == "Validated every 2 steps on 1 people as phantoms." and best.name == "best.safetensors"
    for _ in range(4):  # a step each
        train_compartments(settings(out=tmp_path / "parts", workers=1, minutes=0), report=lambda line: None)
    one, other = (checkpoint.read_checkpoint(tmp_path / name) for name in ("through", "parts"))
    assert (one["step"], other["step"], one["seen"]) == (4, 4, 4)
    assert one["validation"] == other["validation"] and one["validation"]["step"] in (2, 4)
    for part in ("network", "averaged"):
        assert all(torch.equal(value, other[part][key]) for key, value in one[part].items())
    curve = [json.loads(line) for line in (tmp_path / "through" / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in curve] == [2, 4]
    assert all(0 <= line["validation"]["phantoms"] == line["validation"]["mean"] <= 1 for line in curve)
    assert round(one["validation"]["best"], 5) == max(line["validation"]["mean"] for line in curve)
