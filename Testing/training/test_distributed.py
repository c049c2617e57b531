"""Two processes on the CPU, started by torchrun as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from examples import two_femora
from tiny_network import tiny_network
from train_together import without_dropout

from FemurSegLib.training import segmenter
from FemurSegLib.training.cases import find_cases
from FemurSegLib.training.checkpoint import read_checkpoint
from FemurSegLib.training.distributed import Group, launched, own_gpu
from FemurSegLib.training.segmenter import SegmenterTraining, train_segmenter
from FemurSegLib.volume import Volume, write_volume

TESTING = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    ct, labels = two_femora()
    for name in "AB":
        write_volume(folder / f"{name}_CT.nii.gz", ct)
        write_volume(folder / f"{name}_femurs.nii.gz", Volume(labels, ct.grid))
    return folder


def test_two_processes_train_as_one_with_twice_the_batch(cases, monkeypatch, tmp_path):
    out = tmp_path / "two"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(TESTING / "train_together.py"), str(out), str(cases)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TESTING}{os.pathsep}{TESTING.parent}"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(out / f"process{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    kept = read_checkpoint(out)
    assert (kept["step"], kept["seen"], int(kept["optimizer"]["state"][0]["step"])) == (4, 8, 4)
    assert all(torch.equal(first[key], kept["network"][key]) for key in first)
    assert done.stdout.count("2 processes with 1 patches each: 2 patches a step.") == 2  # once for each start
    assert done.stdout.count("step 4  validation Dice") == 1  # the first process speaks for both
    settings = json.loads((out / "settings.json").read_text())
    assert (settings["processes"], settings["patches_a_step"]) == (2, 2)

    monkeypatch.setattr(segmenter, "build_network", lambda *which: without_dropout(tiny_network()))
    a, b = sorted(find_cases(cases), key=lambda case: case.name)
    alone = SegmenterTraining(
        out=tmp_path / "one", cases=(a,), held_cases=(b,), patch=(16,) * 3, batch=2, steps=4, workers=0,
        precision="fp32", validate_every=2, validation_patches=3,
    )  # fmt: skip
    for steps in (2, 4):  # the learning rate depends on the last step
        train_segmenter(SegmenterTraining(**{**vars(alone), "steps": steps}), report=lambda line: None)
    one = read_checkpoint(tmp_path / "one")
    assert all(torch.allclose(one["network"][key], first[key], atol=1e-6) for key in first)
    assert one["validation"]["best"] == pytest.approx(kept["validation"]["best"], abs=1e-3)


def test_who_a_process_is_comes_from_torchrun(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert launched() == Group(0, 1) and launched().is_first and own_gpu() == "cuda:0"
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert launched() == Group(5, 8) and not launched().is_first and own_gpu() == "cuda:1"


def test_one_process_needs_no_other():
    network = torch.nn.Linear(2, 1)
    network(torch.ones(2)).backward()
    before = network.weight.grad.clone()
    Group().average_gradients(network)
    assert torch.equal(network.weight.grad, before)
    assert Group().total(torch.ones(1)) == 1 and Group().from_first("x") == "x"
