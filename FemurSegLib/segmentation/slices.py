"""The way of Zhao and Deng 2022: a window of some slices that moves along them, over the voxels as they are."""

from __future__ import annotations

import numpy as np
import torch


def slice_probability(network, image: torch.Tensor, slices: int, step: int = 1, device="cpu") -> np.ndarray:
    """Probability of femur, float32 (k, j, i): the mean of all windows that see a voxel.

    image: (k, j, i), normalised, any spacing: the network is not told. A window holds `slices` whole slices and
    moves on by `step` (1 in both papers: S - slices + 1 windows for S slices); an image with fewer slices is filled
    up with 0, as is a plane whose sides are no multiple of what the network halves.
    """
    from monai.inferers import sliding_window_inference

    multiple = network.recipe.size_multiple
    window = (slices, *(-(-n // multiple) * multiple for n in image.shape[1:]))
    # MONAI moves on by the whole part of window * (1 - overlap).
    overlap = (max(0.0, 1 - (step + 0.5) / slices), 0.0, 0.0)
    network = network.to(device).eval()
    with torch.inference_mode():
        logits = sliding_window_inference(
            image[None, None].to(device),
            window,
            1,
            lambda patch: _probability(network, patch),
            overlap=overlap,
            mode="constant",
        )
    return logits[0, 0].cpu().numpy()


def _probability(network, patch) -> torch.Tensor:
    from FemurSegLib.segmentation.inference import cpu_has_bfloat16

    fast = patch.device.type == "cuda" or (patch.device.type == "cpu" and cpu_has_bfloat16())
    with torch.autocast(patch.device.type, torch.bfloat16, enabled=fast):
        logits = network(patch)
    return (logits[:, 1:] - logits[:, :1]).float().sigmoid()
