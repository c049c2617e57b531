"""From the folder of a training to the weights of a set: half precision, the terms of the data, a card to write.

    for weights in export_run(Path("runs/open/segmenter")):
        print(weights)                      # Resources/Models/segmenter_segresnet_open.safetensors

The set follows from the data that the training learned from: `open` where nothing of it forbids commercial use,
else `research`. So weights never end up under terms that are not theirs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from FemurSegLib import models
from FemurSegLib.errors import InputError, ModelError
from FemurSegLib.training import sets
from FemurSegLib.whole_file import write_text


@dataclass(frozen=True)
class Trained:
    """A training that was found: its folder, the kind of its weights (models.KINDS), their network (None for a
    detector, which tells itself) and file, and notes with `people`, `cases`, `held_out` and `origins`."""

    folder: Path
    kind: str
    network: str | None
    weights: Path
    notes: dict


def export_run(run: Path | str, folder: Path | str | None = None, kind: str | None = None) -> list[Path]:
    """Enters the best weights of a training into a folder of models (`Resources/Models` without one), and writes a
    card to go on from where there is none.

    run: what `femurseg train segmenter`, `compartments` or `detector` made (of the last both views, or one), or one
    file of weights in such a folder. kind: to take only that, of models.KINDS. Returns the files.
    Raises InputError where there are no weights, none of that kind, or nothing that says what they learned from;
    ModelError where they do not fit their network. Nothing is entered then.
    """
    from FemurSegLib.training.detector import export_detector

    found = [trained for trained in trainings_in(Path(run)) if kind in (None, trained.kind)]
    if not found:
        raise InputError(f"{run} holds no {models.PARTS[kind]}.", "Name the training that made it.")
    tensors = [_fitting_tensors(trained) if trained.network else None for trained in found]
    out = []
    for trained, of_network in zip(found, tensors, strict=True):
        terms = sets.terms(trained.notes["origins"])
        if trained.network:
            name = models.name_of(trained.kind, trained.network, terms["set"])
            how = {"kind": trained.kind, "network": trained.network, "terms": terms}
            out.append(models.export_weights(of_network, name, folder=folder, **how))
        else:
            view = trained.kind.removeprefix("detector_")
            out.append(export_detector(trained.folder, view, folder, terms=terms))
        card = out[-1].with_suffix(".md")
        if not card.exists():
            write_text(card, _card(out[-1].stem, trained, terms))
    return out


def trainings_in(run: Path) -> list[Trained]:
    """What a folder, or a file of weights in it, holds of `femurseg train`. Raises InputError."""
    from FemurSegLib.training.checkpoint import BEST, WEIGHTS

    folder = run.parent if run.is_file() else run
    if (folder / "args.yaml").is_file():  # as ultralytics writes it
        return [_detector(folder)]
    views = [_detector(each) for each in sorted(folder.glob("*")) if (each / "args.yaml").is_file()]
    if views:
        return views
    weights = [path for path in ([run] if run.is_file() else [folder / BEST, folder / WEIGHTS]) if path.is_file()]
    if not weights or weights[0].suffix != ".safetensors" or not (folder / "settings.json").is_file():
        raise InputError(f"{run} holds no weights of a training.", "Name a folder that femurseg train wrote to.")
    settings = json.loads((folder / "settings.json").read_text())
    notes = _notes(folder) or _notes_of_settings(settings)
    if "network" in settings:
        return [Trained(folder, "segmenter", settings["network"], weights[0], notes)]
    from FemurSegLib.segmentation.compartment_network import NAME

    return [Trained(folder, "compartments", NAME, weights[0], notes)]


def _detector(folder: Path) -> Trained:
    import yaml

    view = Path(yaml.safe_load((folder / "data.yaml").read_text())["path"]).name
    notes = _notes(folder) or _notes(folder.parent)
    if not list((folder / "weights").glob("*.pt")):
        raise InputError(f"{folder} has no weights yet.", "Train for at least one epoch.")
    if not notes:
        raise InputError(
            f"{folder} does not say what it learned from (material.json).",
            "Train with femurseg train detector, which writes that down.",
        )
    return Trained(folder, f"detector_{view}", None, folder / "weights", notes)


def _notes(folder: Path) -> dict | None:
    """What `material.note_material` wrote, if it tells the origins."""
    path = folder / "material.json"
    notes = json.loads(path.read_text()) if path.is_file() else {}
    return notes if notes.get("origins") else None


def _notes_of_settings(settings: dict) -> dict:
    """The same from the settings of a training that was started without the command line."""
    from FemurSegLib.training.cases import Case

    cases = [Case(**case) for case in settings.get("cases", ())]
    held = [*settings.get("held_people", ()), *(case["name"] for case in settings.get("held_cases", ()))]
    origins = sets.origins_of_people(settings["people"]) | sets.origins_of_cases(cases)
    start = settings.get("start")
    return {
        "people": settings["people"],
        "cases": [case.name for case in cases],
        "held_out": held,
        "origins": sorted(origins | sets.origins_of_weights(Path(start) if start else None)),
    }


def _fitting_tensors(trained: Trained) -> dict:
    """The weights, once they were found to fit their network. Raises ModelError."""
    from FemurSegLib.segmentation import compartment_network, network
    from FemurSegLib.training.checkpoint import load_weights, read_weights

    try:
        tensors = read_weights(trained.weights)
        if trained.kind == "segmenter":
            empty = network.build_network(trained.network, network.trained_patch(trained.network, tensors))
        else:
            empty = compartment_network.CompartmentNetwork()
        load_weights(empty, trained.weights, tensors)
    except InputError as error:
        words = f"{trained.weights} holds no weights of the network '{trained.network}'."
        raise ModelError(words, "Name a training of this version of FemurSeg.") from error
    return tensors


def _card(name: str, trained: Trained, terms: dict) -> str:
    """What is known of weights when they are entered; who made them writes the rest."""
    notes, run = trained.notes, trained.folder
    free = terms["set"] == models.OPEN
    use = "No data under a non-commercial licence." if free else "Data that are not for commercial use, or unknown."
    told = {
        "Bones": ", ".join(notes.get("people", ())),
        "Labelled CTs": ", ".join(notes.get("cases", ())),
        "Held out": ", ".join(notes.get("held_out", ())),
    }
    lines = [
        f"# {name}: {models.PARTS[trained.kind]} of the {terms['set']} weights",
        "",
        f"Entered from `{run.name}` by `femurseg train export`. Intended use and figures are not written yet.",
        "",
        "## Licence",
        f"{terms['licence']}. {use}",
        "",
        "## Data",
        *(f"- {line}" for line in sets.citations(terms["origins"])),
        "",
        *(f"{what}: {names or 'none'}." for what, names in told.items()),
        "",
        "## Figures",
        f"Not measured yet: `femurseg evaluate --weights {terms['set']}` on people held out.",
        "",
        "## Never seen",
        "Not written yet.",
        "",
    ]
    return "\n".join(lines)
