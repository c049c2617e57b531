"""Labelled CTs: where they are, whose they are, and whether CT and labels fit together.

    cases = find_cases("folder")            # NAME_CT.nii.gz with NAME_femurs.nii.gz, at any depth
    train, held_out = split(cases, {"STS_046", "STS_017"})

A list in CSV says the same where files are called otherwise, and which cases are of one person.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from FemurSegLib.errors import InputError
from FemurSegLib.phantom.command import PHANTOM_NAME
from FemurSegLib.sides import LABELS, UNDECIDED_LABEL
from FemurSegLib.volume import FORMATS, Volume, read_ct, read_labelmap

CT_END, LABELS_END = "_CT", "_femurs"
"""What the names of both files of a case end in; a folder may also hold one pair `ct` and `femurs`."""
LIST = "cases.csv"
COLUMNS = ("ct", "labels", "name", "person")
"""Of a list of cases in CSV or JSON; only `ct` is needed, paths are relative to the list."""


@dataclass(frozen=True)
class Case:
    """A CT and, where there is one, its labelmap: 1 right femur, 2 left femur, 255 undecided.

    `name`: unique in a list. `person`: cases of one person are never split; where nothing is given, the person
    whose bones a phantom has, else the name.
    """

    ct: Path
    labels: Path | None = None
    name: str = ""
    person: str = ""

    def __post_init__(self):
        object.__setattr__(self, "ct", Path(self.ct))
        object.__setattr__(self, "labels", Path(self.labels) if self.labels else None)
        object.__setattr__(self, "name", self.name or _name_of(self.ct))
        painted = PHANTOM_NAME.fullmatch(self.name)
        person = self.person or (painted["person"] if painted else self.name)
        object.__setattr__(self, "person", person)


def find_cases(*places, unlabelled: bool = False) -> list[Case]:
    """All cases in folders, lists (.csv, .json) and single CT files.

    A folder is searched to any depth for NAME_CT with NAME_femurs in any format that is read, for `ct` with
    `femurs` (the case is then called like the folder), and for lists called `cases.csv`. unlabelled: CTs without
    labels count too, and a folder of DICOM files is one. Raises InputError where there is nothing, or for two cases
    of one name.
    """
    cases: list[Case] = []
    for place in map(Path, places):
        if place.suffix.lower() in (".csv", ".json"):
            found = _read_list(place)
        elif place.is_dir():
            found = _search(place)
        elif place.is_file():
            found = [_case_of(place)]
        else:
            hint = "Give a folder with cases, a list of them, or a CT file."
            raise InputError(f"There is no {place}.", hint)
        cases += [case for case in found if unlabelled or case.labels]
    if not cases:
        raise InputError(
            f"There are no {'' if unlabelled else 'labelled '}cases in {', '.join(map(str, places))}.",
            f"A case is NAME{CT_END}.nii.gz with NAME{LABELS_END}.nii.gz, or a line of a CSV list.",
        )
    names = [case.name for case in cases]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"There are several cases called {twice[0]}.", "Give them names in a CSV list.")
    return cases


def split(cases: Iterable[Case], hold_out: Iterable[str]) -> tuple[list[Case], list[Case]]:
    """Cases to learn from, and cases of the people in `hold_out` (names of people or of cases).

    All cases of a held-out person are held out. Raises InputError for a name that is nobody's.
    """
    cases, hold_out = list(cases), set(hold_out)
    known = {case.name for case in cases} | {case.person for case in cases}
    if unknown := sorted(hold_out - known):
        hint = f"There are: {', '.join(sorted(known))}."
        raise InputError(f"There is no case or person {unknown[0]} to hold out.", hint)
    people = {case.person for case in cases if {case.name, case.person} & hold_out}
    return [c for c in cases if c.person not in people], [c for c in cases if c.person in people]


def folds(cases: Iterable[Case], count: int) -> list[list[Case]]:
    """Cases in `count` parts for cross-validation: none of a person is in two of them, each is in one.

    The people are dealt in an order that follows from their names (by SHA-256), so the same cases give the same
    parts, whatever their order. Raises InputError for fewer people than parts, or fewer than two parts.
    """
    cases = sorted(cases, key=lambda case: case.name)
    people = sorted({case.person for case in cases}, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    if not 2 <= count <= len(people):
        raise InputError(
            f"{len(people)} people cannot be divided into {count} folds.", "Give from two to as many as there are."
        )
    part = {name: number % count for number, name in enumerate(people)}
    return [[case for case in cases if part[case.person] == number] for number in range(count)]


def read_case(case: Case) -> tuple[Volume, Volume]:
    """CT and labels of a case, as stored. Raises InputError for another grid or unknown labels."""
    ct, labels = read_ct(case.ct), read_labelmap(case.labels)
    if not ct.grid.matches(labels.grid, tolerance_mm=0.01):
        raise InputError(
            f"{case.ct.name} and {case.labels.name} are not on the same grid.",
            "Resample the labels to the grid of the CT, nearest neighbour.",
        )
    known = {0, *LABELS.values(), UNDECIDED_LABEL}
    values = {int(v) for v in np.flatnonzero(np.bincount(labels.voxels.ravel(), minlength=256))}
    if values - known:
        raise InputError(
            f"{case.labels.name} holds the label {min(values - known)}.",
            "1 is the right femur, 2 the left, 255 undecided, 0 all else.",
        )
    return ct, labels


def _search(folder: Path) -> list[Case]:
    cases = []
    inside = [folder, *sorted(p for p in folder.rglob("*") if p.is_dir())]
    for each in inside:
        files = sorted(p for p in each.iterdir() if p.is_file())
        listed = _read_list(each / LIST) if (each / LIST).is_file() else []
        cases += listed
        known = {case.ct.resolve() for case in listed}
        files = [p for p in files if p.resolve() not in known]
        cts = [p for p in files if (stem := _stem(p)) is not None and (stem.endswith(CT_END) or stem == "ct")]
        cases += [_case_of(path) for path in cts]
        if not cts and any(p.suffix.lower() in (".dcm", ".ima") for p in files) and len(files) > 3:
            cases.append(Case(each, None, name="_".join(each.relative_to(folder.parent).parts)))
    return cases


def _case_of(ct: Path) -> Case:
    stem = _stem(ct) or ct.name
    wanted = "femurs" if stem == "ct" else stem.removesuffix(CT_END) + LABELS_END
    fits = [ct.with_name(wanted + end) for end in FORMATS if ct.with_name(wanted + end).is_file()]
    labels = next((p for p in fits if p != ct), None)
    return Case(ct, labels, name=ct.resolve().parent.name if stem == "ct" else _name_of(ct))


def _read_list(path: Path) -> list[Case]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = json.loads(text) if path.suffix.lower() == ".json" else list(csv.DictReader(text.splitlines()))
        cases = []
        for row in rows:
            row = {k: row.get(k) or "" for k in COLUMNS}
            if not row["ct"]:
                raise ValueError("a line has no ct")
            for column in ("ct", "labels"):
                row[column] = path.parent / row[column] if row[column] else ""
            cases.append(Case(**row))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path.name} is not a list of cases: {error}.",
            f"Its columns (CSV) or keys (JSON) are {', '.join(COLUMNS)}.",
        ) from error
    return cases


def _stem(path: Path) -> str | None:
    """The name without its end, None if it is not in a format that is read."""
    for end in sorted(FORMATS, key=len, reverse=True):
        if path.name.lower().endswith(end):
            return path.name[: -len(end)]
    return None


def _name_of(ct: Path) -> str:
    return (_stem(ct) or ct.name).removesuffix(CT_END)
