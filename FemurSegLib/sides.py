"""The two femora: names, label values, colours and terminology. The only place where these are written."""

from __future__ import annotations

RIGHT, LEFT = "right_femur", "left_femur"
SIDES = (RIGHT, LEFT)

OTHER = {RIGHT: LEFT, LEFT: RIGHT}

LABELS = {RIGHT: 1, LEFT: 2}
"""Value of each femur in a labelmap. The sides are the patient's."""

UNDECIDED_LABEL = 255
"""Value of voxels that a reference labelmap leaves open; they take no part in training or scoring."""

DISPLAY_NAMES = {RIGHT: "Right femur", LEFT: "Left femur"}

COLORS = {RIGHT: (0.90, 0.62, 0.35), LEFT: (0.40, 0.68, 0.85)}
"""RGB in 0..1; orange and blue stay apart for readers who do not tell red from green."""

TERMINOLOGY = {
    "category": ("SCT", "123037004", "Anatomical Structure"),
    "type": ("SCT", "71341001", "Femur"),
    RIGHT: ("SCT", "24028007", "Right"),
    LEFT: ("SCT", "7771000", "Left"),
}
"""SNOMED CT codes: (coding scheme, value, meaning)."""
