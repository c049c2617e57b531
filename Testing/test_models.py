"""The table of weights: what is used is what was written, and nothing else is ever opened."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from FemurSegLib import models
from FemurSegLib.errors import ModelError


@pytest.fixture
def state():
    torch.manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last),
        "norm.running_var": torch.tensor([1e-3, 7e4]),
        "norm.num_batches_tracked": torch.tensor(12),
    }


@pytest.fixture
def folder(state, tmp_path):
    models.export_weights(state, "segmenter_unet", kind="segmenter", network="unet", folder=tmp_path)
    models.export_weights(state, "detector_axial", kind="detector_axial", network="yolov8n", folder=tmp_path)
    return tmp_path


def test_weights_come_back_as_float32_of_their_half_precision(folder, state):
    tensors = models.load_tensors("segmenter_unet", folder)
    assert set(tensors) == set(state)
    assert torch.equal(tensors["conv.weight"], state["conv.weight"].half().float())
    assert torch.equal(tensors["norm.running_var"], state["norm.running_var"])  # no half of 7e4
    assert tensors["norm.num_batches_tracked"].item() == 12


def test_the_table_names_every_model(folder):
    table = models.table(folder)
    assert list(table) == ["detector_axial", "segmenter_unet"]
    model = table["segmenter_unet"]
    assert (model.kind, model.network, model.file) == ("segmenter", "unet", "segmenter_unet.safetensors")
    assert model.card == folder.resolve() / "segmenter_unet.md"
    assert models.weights("segmenter_unet", folder) == model.path


@pytest.fixture
def two_sets(state, tmp_path):
    """All of `research`; of `open` a segmenter alone."""
    networks = {
        "detector_coronal": "yolov8n",
        "detector_axial": "yolov8n",
        "segmenter": "unet",
        "compartments": "vnet",
    }
    for kind, network in networks.items():
        terms = {"set": "research", "licence": "CC-BY-NC-SA-4.0" + " AND AGPL-3.0-only" * (network == "yolov8n")}
        name = models.name_of(kind, network)
        models.export_weights(state, name, kind=kind, network=network, folder=tmp_path, terms=terms)
    terms = {"set": "open", "licence": "MPL-2.0", "origins": ["llp26"]}
    name = models.name_of("segmenter", "unet", "open")
    models.export_weights(state, name, kind="segmenter", network="unet", folder=tmp_path, terms=terms)
    return tmp_path


def test_each_set_has_its_own_files_and_the_default_is_named_in_one_place(two_sets, monkeypatch):
    monkeypatch.delenv(models.SET_VARIABLE, raising=False)
    assert models.find("segmenter", "unet", two_sets, "open").file == "segmenter_unet_open.safetensors"
    assert models.find("segmenter", "unet", two_sets, "research").file == "segmenter_unet.safetensors"
    assert models.find("segmenter", "unet", two_sets).data_set == models.DEFAULT_SET
    monkeypatch.setenv(models.SET_VARIABLE, "open")
    assert models.find("segmenter", "unet", two_sets).data_set == "open"
    assert models.find("segmenter", "unet", two_sets, "research").data_set == "research", "the option comes first"
    monkeypatch.setenv(models.SET_VARIABLE, "free")
    with pytest.raises(ModelError, match="no set of weights called 'free'"):
        models.find("segmenter", "unet", two_sets)


def test_a_set_that_is_not_complete_says_what_is_missing_and_takes_nothing_from_the_other(two_sets):
    assert models.missing("open", two_sets) == ["detector_coronal", "detector_axial", "compartments"]
    assert models.complete_sets(two_sets) == ["research"]
    with pytest.raises(ModelError, match="no coronal detector, axial detector, compartment network") as caught:
        models.find("detector_axial", None, two_sets, "open")
    assert "--weights research (CC-BY-NC-SA-4.0 AND AGPL-3.0-only)" in caught.value.hint
    assert "--set open" in caught.value.hint and "femurseg train export" in caught.value.hint
    with pytest.raises(ModelError, match="'transunet' in the open set") as caught:
        models.find("segmenter", "transunet", two_sets, "open")
    assert "unet" in caught.value.hint


def test_the_terms_of_a_run_are_those_of_all_its_weights(two_sets):
    table = models.table(two_sets)
    used = [table["segmenter_unet"], table["detector_axial"]]
    assert models.terms_of(used) == {"set": "research", "licence": "CC-BY-NC-SA-4.0 AND AGPL-3.0-only"}
    assert models.terms_of([table["segmenter_unet_open"]]) == {"set": "open", "licence": "MPL-2.0"}
    assert models.terms_of([]) is None


def test_weights_that_do_not_say_their_terms_are_not_free(folder):
    model = models.find("segmenter", "unet", folder, "research")
    assert (model.data_set, model.licence) == ("research", "") and models.terms_of([model])["licence"] is None
    with pytest.raises(ModelError):
        models.find("segmenter", "unet", folder, "open")


def test_a_file_of_weights_carries_its_terms_itself(two_sets):
    from safetensors import safe_open

    with safe_open(two_sets / "segmenter_unet_open.safetensors", "pt") as file:
        told = json.loads(file.metadata()["femurseg"])
    assert told == {
        "kind": "segmenter",
        "network": "unet",
        "set": "open",
        "licence": "MPL-2.0",
        "origins": ["llp26"],
    }


def test_weights_are_found_by_kind_and_network(folder):
    assert models.find("segmenter", "unet", folder).name == "segmenter_unet"
    assert models.find("detector_axial", folder=folder).name == "detector_axial"


def test_a_network_without_weights_is_named_with_those_that_have_some(folder):
    with pytest.raises(ModelError, match="no weights for the network 'transunet'") as caught:
        models.find("segmenter", "transunet", folder)
    assert "unet" in caught.value.hint
    with pytest.raises(ModelError):
        models.find("detector_coronal", folder=folder)
    with pytest.raises(ModelError, match="called 'nobody'"):
        models.weights("nobody", folder)


@pytest.mark.parametrize("use", [models.weights, models.load_tensors])
def test_one_changed_byte_is_refused(folder, use):
    path = folder / "segmenter_unet.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="SHA-256"):
        use("segmenter_unet", folder)


def test_a_missing_file_is_refused(folder):
    (folder / "segmenter_unet.safetensors").unlink()
    with pytest.raises(ModelError, match="could not be read"):
        models.load_tensors("segmenter_unet", folder)


def test_a_pickle_with_the_right_hash_is_not_opened(folder):
    import hashlib

    torch.save({"a": torch.zeros(1)}, folder / "segmenter_unet.safetensors")
    manifest = json.loads((folder / models.MANIFEST).read_text())
    data = (folder / "segmenter_unet.safetensors").read_bytes()
    manifest["segmenter_unet"]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / models.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="not a safetensors file"):
        models.load_tensors("segmenter_unet", folder)


@pytest.mark.parametrize(
    "change", [{"file": "../evil.safetensors"}, {"card": "/etc/passwd"}, {"kind": "oracle"}, {"set": "free"}]
)
def test_a_manifest_that_leaves_its_folder_or_names_unknown_kinds_is_refused(folder, change):
    manifest = json.loads((folder / models.MANIFEST).read_text())
    manifest["segmenter_unet"].update(change)
    (folder / models.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="damaged"):
        models.table(folder)


def test_a_manifest_that_is_not_json_is_refused(tmp_path):
    (tmp_path / models.MANIFEST).write_text("[1, 2")
    with pytest.raises(ModelError, match="damaged"):
        models.table(tmp_path)
    with pytest.raises(ModelError, match="could not be read"):
        models.table(tmp_path / "nowhere")


def test_a_second_export_replaces_the_first_and_leaves_no_scraps(folder, state):
    before = models.table(folder)["segmenter_unet"].sha256
    state["conv.weight"] += 1
    models.export_weights(state, "segmenter_unet", kind="segmenter", network="unet", folder=folder)
    assert models.table(folder)["segmenter_unet"].sha256 != before
    assert models.load_tensors("segmenter_unet", folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {"segmenter_unet.safetensors", "detector_axial.safetensors", models.MANIFEST}


def test_the_environment_names_the_only_folder_that_is_looked_in(folder, monkeypatch, tmp_path_factory):
    monkeypatch.setenv(models.FOLDER_VARIABLE, str(folder))
    assert models.default_folder() == folder
    assert "segmenter_unet" in models.table()
    empty = tmp_path_factory.mktemp("empty")
    monkeypatch.setenv(models.FOLDER_VARIABLE, str(empty))
    with pytest.raises(ModelError, match="No weights were found") as caught:
        models.table()
    assert str(empty) in str(caught.value)


def test_an_installed_package_and_a_checkout_are_both_looked_in(monkeypatch):
    monkeypatch.delenv(models.FOLDER_VARIABLE, raising=False)
    inside, beside = models.places()
    assert inside.parts[-3:] == ("FemurSegLib", "Resources", "Models")
    assert beside == inside.parents[2] / "Resources" / "Models"


def test_the_weights_in_the_repository_are_what_the_table_says(monkeypatch):
    monkeypatch.delenv(models.FOLDER_VARIABLE, raising=False)
    for model in models.table().values():
        assert models.weights(model.name) == model.path
        assert model.card.is_file(), f"{model.name} has no card"


def test_the_table_needs_no_torch():
    code = "import sys; from FemurSegLib import models; models.places(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
