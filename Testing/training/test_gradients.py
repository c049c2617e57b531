"""A step whose gradients overflow must not spoil the weights, as it did those of a V-Net on small patches."""

from __future__ import annotations

import pytest
import torch
from examples import two_femora
from safetensors.torch import load_file
from tiny_network import tiny_network

from FemurSegLib.training.cases import Case
from FemurSegLib.training.segmenter import SegmenterTraining, train_segmenter
from FemurSegLib.volume import Volume, write_volume


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_weights_stay_finite_and_learn_when_a_gradient_is_not(tmp_path, monkeypatch, value):
    ct, labels = two_femora()
    write_volume(tmp_path / "A_CT.nii.gz", ct)
    write_volume(tmp_path / "A_femurs.nii.gz", Volume(labels, ct.grid))
    calls = []

    def build(*settings):
        network = tiny_network()
        calls.append(network)
        if len(calls) == 1:  # the one that learns; the other is its average
            network[0].weight.register_hook(lambda grad: grad.index_fill(0, torch.tensor([0]), value))
        return network

    monkeypatch.setattr("FemurSegLib.training.segmenter.build_network", build)
    settings = SegmenterTraining(
        out=tmp_path / "run",
        cases=(Case(tmp_path / "A_CT.nii.gz", tmp_path / "A_femurs.nii.gz"),),
        patch=(16, 16, 16),
        batch=1,
        steps=3,
        workers=0,
        precision="fp32",
    )
    tensors = load_file(train_segmenter(settings, report=lambda line: None))
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    torch.manual_seed(settings.seed)
    assert not torch.equal(tensors["0.weight"].float()[1:], tiny_network()[0].weight.detach().half().float()[1:])


@pytest.mark.parametrize(
    "name, precision, bfloat16", [("vnet", "auto", False), ("segresnet", "auto", True), ("vnet", "bf16", True)]
)
def test_networks_with_the_smallest_maps_train_in_single_precision_on_a_cpu(
    tmp_path, monkeypatch, name, precision, bfloat16
):
    seen = []

    class Spy(torch.nn.Conv3d):
        def forward(self, image):
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(image)

    monkeypatch.setattr("FemurSegLib.training.segmenter.build_network", lambda *settings: Spy(1, 2, 1))
    monkeypatch.setattr("FemurSegLib.segmentation.inference.cpu_has_bfloat16", lambda: True)
    ct, labels = two_femora()
    write_volume(tmp_path / "A_CT.nii.gz", ct)
    write_volume(tmp_path / "A_femurs.nii.gz", Volume(labels, ct.grid))
    case = Case(tmp_path / "A_CT.nii.gz", tmp_path / "A_femurs.nii.gz")
    settings = SegmenterTraining(
        tmp_path / "run",
        cases=(case,),
        network=name,
        patch=(16, 16, 16),
        batch=1,
        steps=1,
        workers=0,
        precision=precision,
    )
    train_segmenter(settings, report=lambda line: None)
    assert seen == [bfloat16]
