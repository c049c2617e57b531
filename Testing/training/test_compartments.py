from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from toy_person import keep

from FemurSegLib import command, models
from FemurSegLib.anatomy.compartments import load_network
from FemurSegLib.phantom.shapes import CACHE_VERSION, OPEN_FEET
from FemurSegLib.segmentation.compartment_network import WINDOW_HU, CompartmentNetwork, network_input
from FemurSegLib.training import sets
from FemurSegLib.training.compartments import (
    CompartmentPatches,
    CompartmentTraining,
    cross_entropy,
    inside,
    roughened,
    train_compartments,
)

SIZE = (16, 16, 16)


def test_a_patch_follows_from_its_number_alone(people):
    patches = CompartmentPatches(**people, patch=SIZE)
    image, share = patches[7]
    again = CompartmentPatches(**people, patch=SIZE)[7]
    assert torch.equal(image, again[0]) and torch.equal(share, again[1])
    assert not torch.equal(image, patches[8][0])


def test_a_patch_shows_a_femur_and_asks_inside_the_mask_alone(people):
    patches = CompartmentPatches(**people, patch=(32, 32, 32))
    masks = 0
    for number in range(6):
        image, share = patches[number]
        mask, hu = image[1] > 0, image[0]
        masks += bool(mask.any())
        assert torch.equal(share >= 0, mask) and float(share.max()) <= 1
        assert 0 <= float(hu.min()) and float(hu.max()) <= 1
    assert masks >= 5


def test_marrow_is_darker_than_cortex_where_the_patch_says_so(people):
    patches = CompartmentPatches(**people, patch=(32, 32, 32))
    inside, cortex = [], []
    for number in range(8):
        image, share = patches[number]
        inside.append(image[0][share == 1])
        cortex.append(image[0][(share == 0) & (image[1] > 0)])
    assert torch.cat(cortex).float().mean() > torch.cat(inside).float().mean() + 0.1


def test_a_rough_mask_is_near_the_exact_one_and_another_at_each_call():
    at = np.stack(np.meshgrid(*(np.arange(40) - 19.5,) * 3, indexing="ij"), -1)
    distance = torch.from_numpy(np.linalg.norm(at, axis=-1) - 14).float()
    rng = np.random.default_rng(0)
    masks = [roughened(distance, rng, 3.0) for _ in range(12)]
    for mask in masks:
        wrong = (mask != (distance < 0)) & (distance.abs() > 4)
        assert not wrong.any()
    assert len({int(mask.sum()) for mask in masks}) == 12
    volumes = np.array([float(mask.sum()) for mask in masks]) / float((distance < 0).sum())
    assert np.abs(volumes - 1).max() < 0.15 and abs(volumes.mean() - 1) < 0.05


def test_cross_entropy_is_zero_for_the_truth_and_blind_outside_the_mask():
    share = torch.tensor([[[[0.0, 1.0, 0.25, -1.0]]]])
    truth = torch.logit(share.clamp(1e-6, 1 - 1e-6))[None].reshape(1, 1, 1, 1, 4)
    assert float(cross_entropy(truth, share)) == pytest.approx(0, abs=1e-4)
    other = truth.clone()
    other[..., 3] = 50.0
    assert torch.equal(cross_entropy(other, share), cross_entropy(truth, share))
    other[..., 1] = -2.0
    assert float(cross_entropy(other, share)) == pytest.approx(float(np.log(1 + np.exp(2))) / 3, rel=1e-3)


def test_what_is_found_is_counted_inside_the_mask_alone(people):
    patches = CompartmentPatches(**people, patch=SIZE)
    image, share = patches[4]
    truth = torch.where(share >= 0.5, 3.0, -3.0)[None]
    truth[:, share < 0] = 3.0  # whatever it says outside
    found, wanted = inside(truth, share)
    assert found.any() and torch.equal(found, wanted)
    found, wanted = inside(torch.full_like(truth, 3.0), share)
    assert torch.equal(found, share >= 0) and int(wanted.sum()) < int(found.sum())


def test_the_window_reaches_from_marrow_to_dense_cortex():
    hu = torch.tensor([[[-1000.0, *WINDOW_HU, 3000.0]]])
    image = network_input(hu, torch.tensor([[[0, 1, 1, 0]]]))
    assert image.shape == (2, 1, 1, 4)
    assert image[0].flatten().tolist() == [0, 0, 1, 1] and image[1].flatten().tolist() == [0, 1, 1, 0]


def test_the_network_answers_every_voxel_and_has_the_size_that_is_told():
    network = CompartmentNetwork().eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 2, 16, 24, 8)).shape == (1, 1, 16, 24, 8)
    assert 1.5e6 < sum(p.numel() for p in network.parameters()) < 1.7e6


def test_a_training_that_goes_on_sees_the_patches_that_come_next(people, tmp_path):
    def train(out, steps):
        return train_compartments(
            CompartmentTraining(
                out=tmp_path / out, **people, patch=SIZE, batch=2, steps=steps, workers=0, precision="fp32"
            ),
            report=lambda line: None,
        )

    train("run", 2)
    first = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert first["step"] == 2
    weights = train("run", 3)
    again = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert again["step"] == 3 and weights.name == "weights.safetensors"
    assert not torch.equal(first["network"]["last.weight"], again["network"]["last.weight"])


@pytest.mark.parametrize(("edge", "bfloat16"), [(16, False), (32, True)])
def test_patches_with_the_smallest_maps_train_in_single_precision_on_a_cpu(
    people, tmp_path, monkeypatch, edge, bfloat16
):
    seen = []

    class Spy(torch.nn.Conv3d):
        def forward(self, image):
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(image)

    monkeypatch.setattr("FemurSegLib.training.compartments.CompartmentNetwork", lambda: Spy(2, 1, 1))
    monkeypatch.setattr("FemurSegLib.segmentation.inference.cpu_has_bfloat16", lambda: True)
    settings = CompartmentTraining(tmp_path / "run", **people, patch=(edge,) * 3, batch=1, steps=1, workers=0)
    train_compartments(settings, report=lambda line: None)
    assert seen == [bfloat16]


def test_nobody_to_learn_from_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Nothing to train on"):
        train_compartments(CompartmentTraining(tmp_path, tmp_path, ()))


def test_the_open_set_trains_on_free_bones_alone_and_says_so_beside_the_weights(people, tmp_path, capfd):
    out, folder, cache = tmp_path / "run", tmp_path / "models", people["cache"]
    (cache / f"z013.v{CACHE_VERSION}.npz").unlink()  # whose feet are not free
    for name in (OPEN_FEET, sets.OPEN_HELD_OUT[0]):
        keep(cache, name)
    arguments = ["train", "compartments", "--out", str(out), "--shapes", str(people["shapes"]), "--set", "open"]
    arguments += ["--people", keep(cache, "llp26-0"), "--cache", str(cache), "--device", "cpu"]
    arguments += ["--hold-out", sets.OPEN_HELD_OUT[0]]
    arguments += "--patch 16 --batch 1 --steps 20 --workers 0 --precision fp32 --validation-patches 2".split()
    assert command.main([*arguments, "--export", str(folder)]) == 0
    printed = capfd.readouterr().out
    assert "step 20  loss" in printed and "step 20  validation Dice: phantoms" in printed
    assert (out / "best.safetensors").is_file() and (out / "curve.png").is_file()
    assert json.loads((out / "settings.json").read_text())["licence"] == "MPL-2.0"
    assert models.find("compartments", folder=folder, data_set="open").network == "vnet"
    material = json.loads((out / "material.json").read_text())
    entry = json.loads((folder / models.MANIFEST).read_text())["compartments_vnet_open"]
    assert material["people"] == ["llp26-0"]
    for told in (material, entry):
        assert (told["set"], told["licence"]) == ("open", "MPL-2.0")
        assert told["origins"] == ["llp26", "visible_human"]
    kept = models.load_tensors("compartments_vnet_open", folder)
    assert set(kept) == set(CompartmentNetwork().state_dict())


def test_weights_of_a_models_folder_are_loaded(people, tmp_path, monkeypatch):
    from FemurSegLib.training.export import export_run

    settings = CompartmentTraining(out=tmp_path, **people, patch=SIZE, steps=0, workers=0)
    train_compartments(settings, report=lambda line: None)
    export_run(tmp_path, tmp_path / "models")
    monkeypatch.setenv(models.FOLDER_VARIABLE, str(tmp_path / "models"))
    assert sum(p.numel() for p in load_network().parameters()) > 1e6


@pytest.mark.parametrize(("options", "told"), [(["--cases", "x"], "Labelled CTs"), (["--patch", "20"], "halved")])
def test_what_cannot_be_trained_is_refused(tmp_path, capfd, options, told):
    arguments = ["train", "compartments", "--out", str(tmp_path / "run"), "--shapes", str(tmp_path), *options]
    assert command.main(arguments) != 0
    printed = capfd.readouterr()
    assert told in printed.out + printed.err
