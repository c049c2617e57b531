from __future__ import annotations

import json
import math
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_network import tiny_network

from FemurSegLib.errors import CancelledError, InputError
from FemurSegLib.segmentation.network import build_network
from FemurSegLib.training import checkpoint, loop, segmenter
from FemurSegLib.training.segmenter import SegmenterTraining, train_segmenter
from FemurSegLib.training.validation import Validation

PATCH = (24, 24, 24)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(segmenter, "build_network", tiny_network)


def quick(out, case, **more):
    """A training of a few steps on one case."""
    shared = dict(patch=PATCH, batch=1, steps=6, workers=0, precision="fp32", learning_rate=2e-2)
    return SegmenterTraining(out=out, cases=(case,), **{**shared, **more})


def train(settings) -> dict:
    """The averaged weights of a training."""
    train_segmenter(settings, report=lambda line: None)
    return checkpoint.read_checkpoint(settings.out)["averaged"]


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


def test_training_learns_and_goes_on_after_an_interruption(case, tiny, tmp_path):
    settings = quick(tmp_path / "run", case, steps=80, save_every=10, averaging=0.9, loss="dice_ce")

    class Interrupted(Exception):
        pass

    def stop(line):
        raise Interrupted

    def kept():
        return checkpoint.read_checkpoint(tmp_path / "run")

    with pytest.raises(Interrupted):
        train_segmenter(settings, report=stop)
    assert kept()["step"] == 20
    lines = []
    weights = train_segmenter(settings, report=lines.append)
    assert lines[-1].startswith("step 80")
    assert kept()["step"] == 80
    assert int(kept()["optimizer"]["state"][0]["step"]) == 80  # it went on too, and nothing was repeated
    curve = [json.loads(line) for line in (tmp_path / "run" / "curve.jsonl").read_text().splitlines()]
    assert curve[-1]["loss"] < 0.7 * curve[0]["loss"]
    tensors = load_file(weights)
    assert all(t.dtype == torch.float16 for t in tensors.values())
    tiny_network().load_state_dict({k: v.float() for k, v in tensors.items()})
    lines.clear()
    train_segmenter(settings, report=lines.append)
    assert not lines  # done is done


def test_the_paper_s_network_is_trained(case, tmp_path):
    weights = train_segmenter(quick(tmp_path, case, steps=1), report=print)
    build_network().load_state_dict({key: value.float() for key, value in load_file(weights).items()})


def test_the_same_seed_gives_the_same_weights_whoever_prepares_the_patches(case, tiny, tmp_path):
    one = train(quick(tmp_path / "one", case, seed=3))
    assert same(one, train(quick(tmp_path / "two", case, seed=3)))
    assert same(one, train(quick(tmp_path / "worker", case, seed=3, workers=2)))
    assert not same(one, train(quick(tmp_path / "other", case, seed=4)))


def test_a_training_that_goes_on_ends_as_one_that_ran_through(case, tiny, tmp_path):
    through = train(quick(tmp_path / "through", case))
    for _ in range(6):  # a step each
        train(quick(tmp_path / "parts", case, minutes=0))
    assert checkpoint.read_checkpoint(tmp_path / "parts")["step"] == 6
    assert same(through, checkpoint.read_checkpoint(tmp_path / "parts")["averaged"])


def test_a_checkpoint_without_what_came_later_is_gone_on_from(case, tiny, tmp_path):
    train(quick(tmp_path, case, steps=2))
    kept = checkpoint.read_checkpoint(tmp_path)
    checkpoint.write_checkpoint(tmp_path, {k: kept[k] for k in ("network", "averaged", "optimizer", "step")})
    train(quick(tmp_path, case, steps=4))
    assert checkpoint.read_checkpoint(tmp_path)["step"] == 4


def test_a_signal_in_the_middle_of_a_step_leaves_a_whole_checkpoint(case, tiny, monkeypatch, tmp_path):
    inside, average = [], loop.average

    def interrupted(*arguments):
        if len(inside) == 2:
            signal.raise_signal(signal.SIGINT)
        inside.append(True)
        average(*arguments)

    monkeypatch.setattr(loop, "average", interrupted)
    with pytest.raises(CancelledError, match="after step 3"):
        train_segmenter(quick(tmp_path / "cut", case), report=print)
    kept = checkpoint.read_checkpoint(tmp_path / "cut")
    assert (kept["step"], int(kept["optimizer"]["state"][0]["step"])) == (3, 3)
    monkeypatch.setattr(loop, "average", average)
    assert same(train(quick(tmp_path / "cut", case)), train(quick(tmp_path / "through", case)))


def test_a_training_without_gain_on_people_held_out_stops_with_the_best_weights(case, tiny, monkeypatch, tmp_path):
    dice = iter([0.5, 0.7, 0.6, 0.7, 0.9])
    at_best = []

    def validated(self, network, device, precision):
        found = next(dice)
        if found == 0.7 and not at_best:
            at_best.append({key: value.clone().half() for key, value in network.state_dict().items()})
        return {"real": found, "mean": found}

    monkeypatch.setattr(Validation, "dice", validated)
    settings = quick(tmp_path, case, held_cases=(case,), validate_every=1, patience=2, validation_patches=1)
    lines = []
    best = train_segmenter(settings, report=lines.append)
    assert best.name == "best.safetensors" and same(at_best[0], load_file(best))
    assert lines[-1] == "No gain since step 2: stopped early."
    assert checkpoint.read_checkpoint(tmp_path)["step"] == 4
    curve = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [line["validation"]["mean"] for line in curve] == [0.5, 0.7, 0.6, 0.7]
    assert train_segmenter(settings, report=lines.append) == best and next(dice) == 0.9  # it stays stopped


def test_training_starts_from_weights_that_are_given(case, tiny, tmp_path):
    weights = train_segmenter(quick(tmp_path / "first", case), report=print)
    again = quick(tmp_path / "second", case, start=weights, steps=0)
    assert same(load_file(weights), load_file(train_segmenter(again, report=print)))
    (tmp_path / "none.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="no weights"):
        train_segmenter(quick(tmp_path / "third", case, start=tmp_path / "none.safetensors"))
    save_file({"of_another": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="another network"):
        train_segmenter(quick(tmp_path / "fourth", case, start=tmp_path / "other.safetensors"))


def test_a_time_limit_ends_the_training_with_weights(case, tiny, tmp_path):
    assert train_segmenter(quick(tmp_path, case, minutes=0, steps=50), report=print).is_file()
    assert checkpoint.read_checkpoint(tmp_path)["step"] < 50
    assert math.isinf(SegmenterTraining(out=tmp_path).minutes)


def test_nothing_to_train_on_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="[Nn]othing"):
        train_segmenter(replace(SegmenterTraining(out=tmp_path)))
