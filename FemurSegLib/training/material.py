"""Whom and what a training learns from, who is held out, and the notes about it that stay with its weights."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from FemurSegLib.errors import InputError
from FemurSegLib.phantom import shapes
from FemurSegLib.phantom.command import HELD_OUT
from FemurSegLib.training import sets
from FemurSegLib.training.cases import Case, find_cases, folds, split
from FemurSegLib.training.distributed import launched
from FemurSegLib.whole_file import write_text


@dataclass(frozen=True)
class Material:
    """People (names of bone shapes) and cases to learn from, and those held out.

    asked_set: `open`, `research`, or None for what the people and cases say. origins: keys of `sets.ORIGINS` behind
    all that is learned from. folds: in cross-validation `count`, `fold`, and the `people` of each, else empty.
    """

    people: tuple[str, ...]
    cases: tuple[Case, ...]
    held_people: tuple[str, ...]
    held_cases: tuple[Case, ...]
    asked_set: str | None
    origins: frozenset[str]
    folds: dict


def material_of(args: argparse.Namespace) -> Material:
    """What the options of `add_shared_options` ask for, and those of folds if there are any. Raises InputError."""
    usual = sets.OPEN_HELD_OUT if args.data_set == "open" else HELD_OUT
    hold_out = set(usual if args.hold_out is None else args.hold_out)
    real = shapes.people_in(args.shapes) if args.shapes else []
    if args.shapes and not real and not args.people and args.data_set != "open":
        raise InputError(f"There are no bone shapes in {args.shapes}.", "Give the folder that holds vsd/.")
    everyone = [*real, *(name for name in args.people if name not in real)]
    wanted = args.people or real
    if args.data_set and args.shapes:
        everyone += [name for name in (*sets.OPEN_PEOPLE, *sets.OPEN_HELD_OUT) if name not in everyone]
        kept = [] if args.data_set == "open" else real
        wanted = args.people or [*kept, *sets.OPEN_PEOPLE]
    cases = find_cases(*args.cases) if args.cases else []
    strangers = hold_out - set(everyone)
    if args.hold_out is None:
        strangers = set()
    known = {name for case in cases for name in (case.name, case.person)}
    cases, held_cases = split(cases, strangers | (hold_out & known))
    people = [name for name in wanted if name not in hold_out]
    if args.people and not args.shapes:
        raise InputError("People need bone shapes.", "Give their folder with --shapes.")
    divided = {}
    if vars(args).get("folds") or vars(args).get("fold"):
        cases, fold_cases, divided = _fold(args, cases)
        held_cases += fold_cases
    if not people and not cases:
        raise InputError("There is nothing to train on.", "Give --shapes, --cases, or both.")
    origins = sets.origins_of_people(people) | sets.origins_of_cases(cases) | sets.origins_of_weights(args.start)
    sets.check(args.data_set, origins)
    return Material(
        tuple(people),
        tuple(cases),
        held_people=tuple(name for name in everyone if name in hold_out),
        held_cases=tuple(held_cases),
        asked_set=args.data_set,
        origins=frozenset(origins),
        folds=divided,
    )


def note_material(out: Path, material: Material) -> dict:
    """Writes out/material.json: what was learned from and what was not, and the licence that follows, for the card
    of the weights; returns it.

    Raises InputError where an earlier run in `out` learned from somebody who is held out now, or from what the set
    does not allow: its weights know them.
    """
    earlier, origins = out / "material.json", material.origins
    held_out = [*material.held_people, *(case.name for case in material.held_cases)]
    if earlier.exists():
        known = json.loads(earlier.read_text())
        seen = {*known["people"], *known["cases"]} & set(held_out)
        if seen:
            raise InputError(
                f"An earlier run in {out} was trained on {min(seen)}, who is held out now.",
                "Give another folder with --out, or hold out whom that run held out.",
            )
        origins |= set(known.get("origins", sets.origins_of_people(known["people"])))
        sets.check(material.asked_set, origins, f"the weights in {out}")
    out.mkdir(parents=True, exist_ok=True)
    notes = {
        "people": list(material.people),
        "cases": [case.name for case in material.cases],
        "held_out": held_out,
        **({"folds": material.folds} if material.folds else {}),
        **sets.terms(origins),
    }
    if launched().is_first:
        write_text(earlier, json.dumps(notes, indent=1))
    return notes


def add_to_settings(out: Path, notes: dict) -> None:
    """Set, licence, origins and folds beside the settings of a training, in out/settings.json if it is there."""
    path = out / "settings.json"
    if path.exists():
        added = {key: value for key, value in notes.items() if key not in ("people", "cases", "held_out")}
        write_text(path, json.dumps(json.loads(path.read_text()) | added, indent=1))


def _fold(args: argparse.Namespace, cases: list[Case]) -> tuple[list[Case], list[Case], dict]:
    """Cases to learn from, those of the fold, and a note; all people of all folds are told on screen.

    Cases whose labels weights made are no reference: they are learned from, unless their person is held out.
    """
    if not (args.folds and args.fold and 1 <= args.fold <= args.folds):
        raise InputError("A fold has a number from 1 to --folds.", "Give both, as --folds 5 --fold 1.")
    parts = folds([case for case in cases if not sets.is_pseudo(case)], args.folds)
    people = [sorted({case.person for case in part}) for part in parts]
    for number, names_of_part in enumerate(people, 1):
        chosen = f"  <- fold {number} of {args.folds} is held out" if number == args.fold else ""
        print(f"fold {number}: {', '.join(names_of_part)}{chosen}", flush=True)
    learned, held = split(cases, people[args.fold - 1])
    return learned, held, {"count": args.folds, "fold": args.fold, "people": people}
