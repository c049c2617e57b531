"""Learning from a part of the slices, as Sultana 2024: the others are undecided, then labelled by the network.

Sultana annotates the slices of the hip joint, where femur and pelvis meet, and no others: 2316 of 5474, 42 %
(section 5.1). How the others were used is not said; here it is in a second round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from FemurSegLib.sides import UNDECIDED_LABEL

if TYPE_CHECKING:
    import numpy as np

ANNOTATED = 0.42
SURE = 0.9
"""A voxel of a slice without annotation becomes femur from this probability, background up to 1 minus this, and
stays undecided in between."""


def annotate_part(labels: np.ndarray, share: float = ANNOTATED) -> np.ndarray:
    """Labels (k, j, i; k upwards) of which only the upper `share` of the slices is kept; the others are 255."""
    kept = round(share * len(labels))
    out = labels.copy()
    out[: len(labels) - kept] = UNDECIDED_LABEL
    return out


def pseudo_label(labels: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Labels whose undecided voxels are decided where the network is sure; 1 is femur."""
    out = labels.copy()
    undecided = labels == UNDECIDED_LABEL
    out[undecided & (probability >= SURE)] = 1
    out[undecided & (probability <= 1 - SURE)] = 0
    return out
