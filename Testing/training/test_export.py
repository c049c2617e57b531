"""What a training made becomes weights of the set that its data allow."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_network import tiny_network

from FemurSegLib import command, models
from FemurSegLib.errors import InputError, ModelError
from FemurSegLib.segmentation import network
from FemurSegLib.training.export import export_run, trainings_in


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A training of a segmenter that is over; its best weights are 1, its last ones 2."""
    monkeypatch.setattr(network, "build_network", tiny_network)
    folder = tmp_path / "run"
    folder.mkdir()
    for value, name in ((1, "best"), (2, "weights")):
        state = {key: torch.full_like(t, value) for key, t in tiny_network().state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
    (folder / "settings.json").write_text(json.dumps({"network": "segresnet", "people": ["llp26-0"], "cases": []}))
    notes = {"people": ["llp26-0"], "cases": [], "held_out": ["llp26-1000"], "origins": ["llp26", "visible_human"]}
    (folder / "material.json").write_text(json.dumps(notes))
    return folder


def learned_from(run, *origins):
    notes = json.loads((run / "material.json").read_text())
    (run / "material.json").write_text(json.dumps({**notes, "origins": origins}))


def test_the_best_weights_come_in_half_precision_into_the_set_that_their_data_allow(run, tmp_path):
    [path] = export_run(run, tmp_path / "models")
    assert path == tmp_path / "models" / "segmenter_segresnet_open.safetensors"
    for tensor in load_file(path).values():
        assert tensor.dtype == torch.float16 and (tensor == 1).all()
    model = models.find("segmenter", "segresnet", tmp_path / "models", "open")
    assert (model.licence, model.origins) == ("MPL-2.0", ("llp26", "visible_human"))
    learned_from(run, "llp26", "vsd")
    [other] = export_run(run, tmp_path / "models")
    assert other.name == "segmenter_segresnet.safetensors" and path.exists()
    model = models.find("segmenter", "segresnet", tmp_path / "models", "research")
    assert model.licence == "CC-BY-NC-SA-4.0"


def test_one_file_of_a_training_can_be_named(run, tmp_path):
    [path] = export_run(run / "weights.safetensors", tmp_path / "models")
    assert all((tensor == 2).all() for tensor in load_file(path).values())


def test_a_card_is_begun_with_the_terms_of_the_data_and_never_overwritten(run, tmp_path):
    [path] = export_run(run, tmp_path / "models")
    card = path.with_suffix(".md")
    text = card.read_text()
    for told in ("MPL-2.0", "LLP26", "Andreassen", "llp26-1000", "not written yet", "Not measured yet"):
        assert told in text
    card.write_text("written by hand")
    export_run(run, tmp_path / "models")
    assert card.read_text() == "written by hand"


def test_a_training_without_notes_is_read_by_its_settings(run, tmp_path):
    (run / "material.json").unlink()
    [trained] = trainings_in(run)
    assert trained.notes["origins"] == ["llp26", "visible_human"]
    case = {"ct": "STS_001_CT.nii.gz", "labels": "STS_001_femurs.nii.gz", "name": "STS_001", "person": "STS_001"}
    settings = {
        "network": "segresnet",
        "people": ["z009"],
        "cases": [case],
        "start": str(tmp_path / "stray.safetensors"),
    }
    (run / "settings.json").write_text(json.dumps(settings))
    [trained] = trainings_in(run)
    assert trained.notes["origins"] == ["sts", "unknown", "vsd"]
    [path] = export_run(run, tmp_path / "models")
    assert models.table(path.parent)[path.stem].licence == "LicenseRef-unknown"


def test_what_is_no_training_or_does_not_fit_is_refused_and_nothing_is_entered(run, tmp_path):
    out = tmp_path / "models"
    with pytest.raises(InputError, match="no weights of a training"):
        export_run(tmp_path, out)
    with pytest.raises(InputError, match="holds no compartment network"):
        export_run(run, out, "compartments")
    (run / "settings.json").write_text(json.dumps({"people": ["llp26-0"]}))  # as of the compartments
    with pytest.raises(ModelError, match="no weights of the network 'vnet'"):
        export_run(run, out)
    assert not out.exists()


def test_the_command_prints_what_was_entered_and_what_the_set_still_lacks(run, tmp_path, capfd):
    out = tmp_path / "models"
    words = ["train", "export", str(run), "--to", str(out)]
    assert command.main([*words, "--role", "segmenter"]) == 0
    printed = capfd.readouterr().out
    assert "segmenter_segresnet_open.safetensors  (open, MPL-2.0, SHA-256 " in printed
    assert "Still missing: coronal detector, axial detector, compartment network." in printed
    assert "No confidence is fitted for segmenter_segresnet_open" in printed
    for kind in ("detector_coronal", "detector_axial", "compartments"):
        name = models.name_of(kind, "x", "open")
        models.export_weights({}, name, kind=kind, network="x", folder=out, terms={"set": "open"})
    assert command.main(words) == 0 and "The open set is complete." in capfd.readouterr().out
    assert command.main([*words, "--role", "detector_axial"]) == 3
