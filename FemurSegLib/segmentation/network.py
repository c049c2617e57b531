"""The segmentation networks by name, and the numbers that belong to them."""

from __future__ import annotations

from FemurSegLib.errors import ModelError

SPACING_MM = (1.0, 1.0, 1.0)
"""Voxels that the network sees (Xie 2025, Table 3: resampled spacing)."""
WINDOW_HU = (-100.0, 500.0)
"""Intensities mapped to 0..1 and clipped (Xie 2025, Table 3: normalise intensity range)."""
PATCH = (160, 160, 160)
"""Patch of the paper's training (Xie 2025, Table 3)."""
SIZE_MULTIPLE = 8
"""Windows are a multiple of this many voxels: the encoder halves three times."""

NETWORKS = ("segresnet",)


def build_network(name: str = "segresnet"):
    """A network with one input channel and two output channels (background, femur), untrained.

    `segresnet`: Xie 2025, Table 3: blocks down (1, 2, 2, 4), blocks up (1, 1, 1), 16 initial filters, dropout 0.2.
    Raises ModelError for a name that is not in `NETWORKS`.
    """
    if name != "segresnet":
        raise ModelError(f"There is no network '{name}'.", f"Choose one of: {', '.join(NETWORKS)}.")
    from monai.networks.nets import SegResNet

    return SegResNet(
        spatial_dims=3,
        init_filters=16,
        in_channels=1,
        out_channels=2,
        dropout_prob=0.2,
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
    )


def normalize(hu):
    """HU (torch tensor, any shape) to the 0..1 that the network sees."""
    low, high = WINDOW_HU
    return ((hu - low) / (high - low)).clamp(0, 1)
