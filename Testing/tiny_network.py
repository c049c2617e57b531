"""A network that learns a little at once, for tests in which the network does not matter."""

from __future__ import annotations

import torch


def tiny_network(name: str = "segresnet", patch=None) -> torch.nn.Module:
    """As build_network; with dropout and a norm, as those that do."""
    return torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 3, padding=1),
        torch.nn.GroupNorm(2, 4),
        torch.nn.ReLU(),
        torch.nn.Dropout3d(0.2),
        torch.nn.Conv3d(4, 2, 1),
    )
