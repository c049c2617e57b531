"""How the entrants make a mask of a CT."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from FemurSegLib.volume import Volume, restore


def two_stage(
    ct: Volume, network: str, models_folder: Path, device: str = "cpu", data_set: str | None = None
) -> np.ndarray:
    """Both femora (bool, as the CT lies) the way `femurseg segment` finds them with the weights of a set; empty
    where it finds none."""
    from FemurSegLib import pipeline
    from FemurSegLib.errors import NoFemurError

    try:
        found = pipeline.segment_femurs(
            ct, network=network, data_set=data_set, models_folder=models_folder, device=device, anatomy=False
        )
    except NoFemurError:
        return np.zeros(ct.grid.shape, bool)
    return found.labels > 0


def single_stage(ct: Volume, network, device: str = "cpu") -> np.ndarray:
    """Both femora (bool, as the CT lies) as the network sees them in the whole CT: what passes the threshold.

    The two largest pieces stay and their holes are filled, as the second of two stages does. (Xie 2025 does not say
    what the single stage does after the network; its Figure 4 shows tibia and pelvis.)
    """
    from FemurSegLib.segmentation.cleanup import one_body
    from FemurSegLib.segmentation.inference import Runner, pick_device, to_shape

    oriented = ct.oriented()
    probability = Runner(network, pick_device(device)).probability(oriented)
    mask = np.zeros(oriented.grid.shape, bool)
    for _ in range(2):
        if body := one_body(probability):
            mask |= to_shape(body.field, oriented.grid.shape) > 0.5
            probability = np.where(body.mask, 0, probability)
    return restore(mask, ct.grid)


def by_slices(ct: Volume, network, slices: int, step: int = 1, device: str = "cpu"):
    """(mask, probability, threshold) of the voxels of a CT as they are, by a window that moves along the slices.

    The threshold is Otsu's where the paper of the network takes that. Nothing is cleaned up.
    """
    import torch

    from FemurSegLib.segmentation.inference import pick_device
    from FemurSegLib.segmentation.network import normalize
    from FemurSegLib.segmentation.slices import slice_probability
    from FemurSegLib.segmentation.threshold import otsu

    image = normalize(torch.from_numpy(np.ascontiguousarray(ct.voxels)).float())
    probability = slice_probability(network, image, slices, step, pick_device(device))
    threshold = otsu(probability) if network.recipe.threshold == "otsu" else 0.5
    return probability > threshold, probability, threshold
