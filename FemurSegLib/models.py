"""The weights there are: name, file, SHA-256, network and card. Importing this page needs no torch.

    models.find("segmenter", "segresnet").name          # which weights for a task
    tensors = models.load_tensors("segmenter_segresnet")  # checked, float32
    models.missing("open")                                # what that set lacks

The table is `models.json` in the models folder. Files are safetensors, that is, tensors only; no pickle is
ever opened. Nothing is fetched. There are two sets of weights, by the terms of their data; a run uses one of them
and never fills its gaps from the other.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ModelError

if TYPE_CHECKING:
    import torch

PARTS = {
    "detector_coronal": "coronal detector",
    "detector_axial": "axial detector",
    "segmenter": "segmenter",
    "compartments": "compartment network",
}
"""What a set of weights consists of: kinds, and their names in sentences."""
KINDS = tuple(PARTS)
DETECTORS = ("detector_coronal", "detector_axial")
SETS = OPEN, RESEARCH = "open", "research"
"""`open`: learned from nothing under a non-commercial licence; `research`: from all there is."""
DEFAULT_SET = RESEARCH
"""The set of a run that names none. To be `open` once that comes within 0.005 Dice of `research`."""
MANIFEST = "models.json"
FOLDER_VARIABLE = "FEMURSEG_MODELS"
SET_VARIABLE = "FEMURSEG_WEIGHTS"

_PACKAGE = Path(__file__).resolve().parent
_REINSTALL = "Install FemurSeg again, or name a folder with weights in FEMURSEG_MODELS."


@dataclass(frozen=True)
class Model:
    """One set of weights. `path` and `card` are absolute; the card says what the weights were made from.

    `licence`: SPDX expression that follows from the data, "" where the table does not say. `origins`: keys of
    `training.sets.ORIGINS`, the data that the weights learned from. `data_set`: one of SETS, `research` where the
    table does not say. `caution`: a sentence for everyone who uses them, "" where there is none.
    """

    name: str
    kind: str
    network: str
    path: Path
    sha256: str
    card: Path | None = None
    licence: str = ""
    origins: tuple[str, ...] = ()
    data_set: str = RESEARCH
    caution: str = ""

    @property
    def file(self) -> str:
        """Name of the file, as it stands in the manifest and in result.json."""
        return self.path.name


def places() -> list[Path]:
    """Where a models folder is looked for, first match wins.

    $FEMURSEG_MODELS and nothing else if it is set; `FemurSegLib/Resources/Models` (pip install);
    `Resources/Models` beside FemurSegLib (a checkout, the Slicer extension).
    """
    if os.environ.get(FOLDER_VARIABLE):
        return [Path(os.environ[FOLDER_VARIABLE])]
    return [_PACKAGE / "Resources" / "Models", _PACKAGE.parent / "Resources" / "Models"]


def default_folder() -> Path:
    """The models folder in use. Raises ModelError if there is none."""
    for place in places():
        if (place / MANIFEST).is_file():
            return place
    looked = ", ".join(str(place) for place in places())
    raise ModelError(f"No weights were found (looked in {looked}).", _REINSTALL)


def table(folder: Path | str | None = None) -> dict[str, Model]:
    """All models of a folder by name. Raises ModelError if its manifest is missing or damaged."""
    folder = Path(folder) if folder else default_folder()
    manifest = folder / MANIFEST
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))
        return {name: _model(folder, name, entry) for name, entry in entries.items()}
    except OSError as error:
        raise ModelError(f"The table of weights {manifest} could not be read.", _REINSTALL) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"The table of weights {manifest} is damaged.", _REINSTALL) from error


def chosen_set(name: str | None = None) -> str:
    """The set of that name; without one that of $FEMURSEG_WEIGHTS, else DEFAULT_SET. Raises ModelError."""
    name = name or os.environ.get(SET_VARIABLE) or DEFAULT_SET
    if name not in SETS:
        raise ModelError(f"There is no set of weights called '{name}'.", f"There are: {', '.join(SETS)}.")
    return name


def find(
    kind: str, network: str | None = None, folder: Path | str | None = None, data_set: str | None = None
) -> Model:
    """The model of a kind (see KINDS) in a set (see `chosen_set`), of a network if one is named.

    Raises ModelError if there is none, whatever another set has.
    """
    data_set = chosen_set(data_set)
    models = [model for model in table(folder).values() if (model.kind, model.data_set) == (kind, data_set)]
    for model in models:
        if network in (None, model.network):
            return model
    if not models:
        raise _incomplete(data_set, kind, network, folder)
    known = ", ".join(sorted(model.network for model in models))
    words = f"There are no weights for the network '{network}' in the {data_set} set."
    raise ModelError(words, f"Networks with weights: {known}.")


def of_run(
    network: str,
    folder: Path | str | None = None,
    data_set: str | None = None,
    detectors: bool = True,
    compartments: bool = False,
) -> dict[str, Model]:
    """What a run needs, by kind: the segmenter of a network, and both detectors and the compartment network where
    they are asked for. Raises ModelError for the first that the set does not have. No file is opened but the table.
    """
    wanted = {"segmenter": network}
    wanted |= dict.fromkeys(DETECTORS) if detectors else {}
    wanted |= {"compartments": None} if compartments else {}
    return {kind: find(kind, name, folder, data_set) for kind, name in wanted.items()}


def missing(data_set: str, folder: Path | str | None = None) -> list[str]:
    """The kinds of which a set has no weights. Raises ModelError where there is no table."""
    there = {model.kind for model in table(folder).values() if model.data_set == data_set}
    return [kind for kind in KINDS if kind not in there]


def complete_sets(folder: Path | str | None = None) -> list[str]:
    """The sets with weights of every kind. Raises ModelError where there is no table."""
    return [name for name in SETS if not missing(name, folder)]


def terms_of(used: Iterable[Model]) -> dict | None:
    """What follows from the weights of a run: `set`, and `licence` (SPDX, of all of them together; None where one
    does not say). None without weights."""
    used = list(used)
    if not used:
        return None
    parts = [part for model in used for part in model.licence.split(" AND ")]
    data_set = OPEN if all(model.data_set == OPEN for model in used) else RESEARCH
    return {"set": data_set, "licence": " AND ".join(dict.fromkeys(parts)) if all(parts) else None}


def name_of(kind: str, network: str, data_set: str = RESEARCH) -> str:
    """What weights are called: the kind, the network where there is a choice, and the set unless it is `research`:
    `segmenter_segresnet`, `detector_axial_open`."""
    name = kind if kind in DETECTORS else f"{kind}_{network}"
    return name if data_set == RESEARCH else f"{name}_{data_set}"


def add_weights_option(parser) -> None:
    """`--weights`, as `data_set`, for every command that runs networks."""
    parser.add_argument(
        "--weights",
        choices=SETS,
        dest="data_set",
        help="open: weights that learned from nothing under a non-commercial licence; research: from all data, for "
        f"research alone; default: ${SET_VARIABLE}, else {DEFAULT_SET}",
    )


def weights(name: str, folder: Path | str | None = None) -> Path:
    """The file of a model, once its SHA-256 was found right. Raises ModelError."""
    model = _named(name, folder)
    _checked_bytes(model)
    return model.path


def load_tensors(name: str, folder: Path | str | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a model on the CPU; half precision comes back as float32. Raises ModelError.

    The bytes that are hashed are the bytes that are used.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    model = _named(name, folder)
    data = _checked_bytes(model)
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ModelError(f"The weights {model.file} are not a safetensors file.", _REINSTALL) from error
    return {key: value.float() if value.dtype == torch.float16 else value for key, value in tensors.items()}


def export_weights(
    state_dict: dict[str, torch.Tensor],
    name: str,
    *,
    kind: str,
    network: str,
    folder: Path | str | None = None,
    card: str | None = None,
    terms: dict | None = None,
) -> Path:
    """Write `name`.safetensors in half precision and enter it in the manifest, each whole or not at all.

    A tensor that half precision cannot hold stays float32; integers stay as they are. `card` is the name of a
    file in `folder`, `name`.md unless given. terms: what `training.sets.terms` says of the data; it stands in the
    manifest and, as JSON under "femurseg", in the metadata of the file. Without `folder`, `Resources/Models` beside
    the package.
    """
    from safetensors.torch import save

    if kind not in KINDS:
        raise ValueError(f"{kind!r} is none of {KINDS}")
    folder = Path(folder) if folder else places()[-1]
    folder.mkdir(parents=True, exist_ok=True)
    about = json.dumps({"kind": kind, "network": network, **(terms or {})})
    data = save({key: _halved(tensor) for key, tensor in state_dict.items()}, {"femurseg": about})
    path = folder / f"{name}.safetensors"
    _replace(path, data)
    manifest = folder / MANIFEST
    entries = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}
    entries[name] = {
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "kind": kind,
        "network": network,
        "card": card or f"{name}.md",
        **(terms or {}),
    }
    _replace(manifest, (json.dumps(dict(sorted(entries.items())), indent=2) + "\n").encode())
    return path


def _model(folder: Path, name: str, entry: dict) -> Model:
    for file in (entry["file"], entry.get("card") or ""):
        if Path(file).name != file:
            raise ValueError(f"{file!r} leaves the models folder")
    if entry["kind"] not in KINDS:
        raise ValueError(f"unknown kind {entry['kind']!r}")
    if entry.get("set", RESEARCH) not in SETS:
        raise ValueError(f"unknown set {entry['set']!r}")
    folder = folder.resolve()
    card = folder / entry["card"] if entry.get("card") else None
    return Model(
        name,
        entry["kind"],
        entry["network"],
        folder / entry["file"],
        entry["sha256"],
        card,
        entry.get("licence", ""),
        tuple(entry.get("origins", ())),
        entry.get("set", RESEARCH),
        entry.get("caution", ""),
    )


def _incomplete(data_set: str, kind: str, network: str | None, folder) -> ModelError:
    """What a set lacks, and the way out."""
    lacking = ", ".join(PARTS[each] for each in missing(data_set, folder))
    words = f"The {data_set} weights are not complete: there is no {lacking}."
    of_kind = [model for model in table(folder).values() if model.kind == kind and network in (None, model.network)]
    if other := next((model for model in of_kind if model.data_set != data_set), None):
        there = terms_of(model for model in table(folder).values() if model.data_set == other.data_set)["licence"]
        hint = f"Choose --weights {other.data_set} ({there or 'licence unknown'}), or train what is missing"
        return ModelError(words, f"{hint} with --set {data_set} and enter it with femurseg train export.")
    return ModelError(words, _REINSTALL)


def _named(name: str, folder) -> Model:
    models = table(folder)
    if name not in models:
        raise ModelError(f"There are no weights called '{name}'.", f"There are: {', '.join(models) or 'none'}.")
    return models[name]


def _checked_bytes(model: Model) -> bytes:
    try:
        data = model.path.read_bytes()
    except OSError as error:
        raise ModelError(f"The weights {model.path} could not be read.", _REINSTALL) from error
    if hashlib.sha256(data).hexdigest() != model.sha256:
        raise ModelError(f"The weights {model.path} are damaged or not the ones expected (SHA-256).", _REINSTALL)
    return data


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    return half if bool(half.isfinite().all()) else tensor.float()


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
