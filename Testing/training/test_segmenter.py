from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from examples import two_femora
from safetensors.torch import load_file
from toy_person import keep

from FemurSegLib.errors import InputError
from FemurSegLib.segmentation.network import build_network
from FemurSegLib.training.cases import Case
from FemurSegLib.training.patches import IGNORE, PhantomSource, RealSource, _rescan
from FemurSegLib.training.segmenter import SegmenterTraining, train_segmenter
from FemurSegLib.volume import Volume, write_volume

PATCH = (24, 24, 24)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A CT of two bright ellipsoids in air, with some voxels undecided."""
    folder = tmp_path_factory.mktemp("case")
    ct, labels = two_femora()
    labels[tuple(np.argwhere(labels == 2)[::2].T)] = 255
    write_volume(folder / "a_CT.nii.gz", ct)
    write_volume(folder / "a_femurs.nii.gz", Volume(labels, ct.grid))
    return Case(folder / "a_CT.nii.gz", folder / "a_femurs.nii.gz")


def test_real_patches_are_what_the_network_takes(case):
    stream = RealSource([case], PATCH).stream(0)
    seen = set()
    for _ in range(12):
        image, label = next(stream)
        assert (
            image.shape == label.shape == PATCH
            and image.dtype == torch.float32
            and label.dtype == torch.uint8
        )
        assert 0 <= float(image.min()) and float(image.max()) <= 1
        seen |= set(label.unique().tolist())
    assert seen == {0, 1, IGNORE}
    first = [next(RealSource([case], PATCH).stream(5)) for _ in range(2)]
    assert torch.equal(first[0][0], first[1][0])


def test_phantom_patches_need_no_shapes_folder_once_people_are_kept(tmp_path):
    source = PhantomSource(tmp_path, (keep(tmp_path),), tmp_path, PATCH, feet="toy", per_patient=3)
    stream = source.stream(1)
    patches = [next(stream) for _ in range(4)]
    assert all(image.shape == PATCH and set(label.unique().tolist()) <= {0, 1} for image, label in patches)
    assert any(label.any() for _, label in patches)
    again = source.stream(1)
    assert all(torch.equal(label, next(again)[1]) for _, label in patches)


def test_training_learns_and_goes_on_after_an_interruption(case, tmp_path):
    settings = SegmenterTraining(
        out=tmp_path / "run", cases=(case,), patch=PATCH, batch=1, steps=40, learning_rate=2e-2, workers=0,
        save_every=10, averaging=0.9, precision="fp32", loss="dice_ce",
    )  # fmt: skip

    class Interrupted(Exception):
        pass

    def stop(line):
        raise Interrupted

    def kept():
        return torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)

    with pytest.raises(Interrupted):
        train_segmenter(settings, report=stop)
    assert kept()["step"] < 40
    lines = []
    weights = train_segmenter(settings, report=lines.append)
    assert lines[-1].startswith("step 40")
    assert kept()["step"] == 40
    assert int(kept()["optimizer"]["state"][0]["step"]) == 40  # it went on too, and nothing was repeated
    curve = [json.loads(line) for line in (tmp_path / "run" / "curve.jsonl").read_text().splitlines()]
    assert curve[-1]["loss"] < 0.85 * curve[0]["loss"]
    from safetensors.torch import load_file

    tensors = load_file(weights)
    assert all(t.dtype == torch.float16 for t in tensors.values())
    build_network().load_state_dict({k: v.float() for k, v in tensors.items()})
    lines.clear()
    train_segmenter(settings, report=lines.append)
    assert not lines  # done is done


def test_training_starts_from_weights_that_are_given(case, tmp_path):
    settings = SegmenterTraining(tmp_path / "first", cases=(case,), patch=PATCH, batch=1, steps=2, workers=0)
    weights = train_segmenter(settings, report=lambda line: None)
    again = replace(settings, out=tmp_path / "second", start=weights, steps=0)
    first, second = (load_file(path) for path in (weights, train_segmenter(again, report=lambda line: None)))
    assert all(torch.equal(first[key], second[key]) for key in first)
    (tmp_path / "none.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="no weights"):
        train_segmenter(replace(again, out=tmp_path / "third", start=tmp_path / "none.safetensors"))


def test_a_time_limit_ends_the_training_with_weights(case, tmp_path):
    settings = SegmenterTraining(out=tmp_path, cases=(case,), patch=PATCH, batch=1, workers=0, minutes=0)
    assert train_segmenter(settings, report=print).is_file()
    assert math.isinf(SegmenterTraining(out=tmp_path).minutes)


def test_nothing_to_train_on_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="[Nn]othing"):
        train_segmenter(replace(SegmenterTraining(out=tmp_path)))


def test_a_patch_that_is_scanned_again_stays_in_its_place():
    at = torch.stack(torch.meshgrid(*[torch.arange(24.0) - 11.5] * 3, indexing="ij"))
    ball = torch.where(at.norm(dim=0) < 7, 1000.0, -1000.0)
    for seed in range(40):
        inside = (_rescan(ball.clone(), np.random.default_rng(seed)) > 0).float()
        assert ((at * inside).sum((1, 2, 3)) / inside.sum()).abs().max() < 0.1, seed
