"""A network is trained by name, and segments by name; a name without weights says which have them."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from examples import two_femora

from FemurSegLib import command, pipeline
from FemurSegLib.errors import ModelError, NoFemurError
from FemurSegLib.localization.region import Region
from FemurSegLib.segmentation import transunet
from FemurSegLib.volume import Volume, write_volume


@pytest.fixture
def case(tmp_path):
    ct, labels = two_femora()
    write_volume(tmp_path / "A_CT.nii.gz", ct)
    write_volume(tmp_path / "A_femurs.nii.gz", Volume(labels, ct.grid))
    return tmp_path / "A_CT.nii.gz"


@pytest.fixture
def small_transunet(monkeypatch):
    for name, value in {"FEATURES": (2, 4, 4, 4, 8), "HIDDEN": 12, "LAYERS": 1, "HEADS": 2, "BETWEEN": 16}.items():
        monkeypatch.setattr(transunet, name, value)


def test_weights_of_a_network_bound_to_its_patch_are_trained_and_used(case, tmp_path, small_transunet, monkeypatch):
    out, folder = tmp_path / "run", tmp_path / "models"
    options = "--network transunet --patch 32 48 32 --batch 1 --steps 1 --workers 0 --device cpu"
    arguments = ["train", "segmenter", "--out", str(out), "--cases", str(tmp_path), *options.split()]
    assert command.main([*arguments, "--export", str(folder)]) == 0
    settings = json.loads((out / "settings.json").read_text())
    assert (settings["network"], settings["loss"], settings["learning_rate"]) == ("transunet", "dice", 1e-3)
    assert json.loads((folder / "models.json").read_text())["segmenter_transunet"]["network"] == "transunet"

    ct, _ = two_femora()
    edge = tuple(n - 0.5 for n in ct.oriented().grid.shape[::-1])
    whole = Region("right_femur", (-0.5, -0.5, -0.5), edge, 1, 1, ())
    seen, forward = set(), transunet.TransUNet.forward

    def spy(network, image):
        seen.add(tuple(image.shape[2:]))
        return forward(network, image)

    monkeypatch.setattr(transunet.TransUNet, "forward", spy)
    with suppress(NoFemurError):  # a step teaches nothing
        pipeline.segment_femurs(
            ct, network="transunet", regions={"right_femur": whole}, models_folder=folder, device="cpu"
        )
    assert seen == {(32, 48, 32)}


@pytest.mark.parametrize("name", ["vnet", "unet3d", "transunet", "nnunet"])
def test_a_name_without_weights_says_which_have_them(case, tmp_path, name, capfd):
    assert command.main(["segment", str(case), "--out", str(tmp_path / "out"), "--network", name]) != 0
    told = capfd.readouterr().err
    assert f"'{name}'" in told and "segresnet" in told
    with pytest.raises(ModelError):
        pipeline.segment_femurs(two_femora()[0], network=name)
