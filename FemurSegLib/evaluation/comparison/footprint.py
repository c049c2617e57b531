"""How large a network is: its weights, their file, and the largest patch it can be trained on."""

from __future__ import annotations

STEP = 32
LARGEST = 512
BYTES_A_WEIGHT = 20
"""In single precision: the weight, its gradient, both moments of Adam, and the average over the steps."""


def parameters(network) -> int:
    return sum(p.numel() for p in network.parameters())


def largest_patch(name: str, memory_gb: float, step: int = STEP, most: int = LARGEST) -> int:
    """Side of the largest cube (a multiple of `step`) that a network can be trained on, a patch a step; 0 for none.

    Counted, not tried: the weights and all that is kept for the backward pass in single precision. What a library
    needs beside that while it computes is not in it, so a real device holds somewhat less.
    """
    side = 0
    while side < most and training_bytes(name, (side + step,) * 3) <= memory_gb * 1e9:
        side += step
    return side


def training_bytes(name: str, patch) -> int:
    """Bytes of the weights and of what a forward pass over one `patch` keeps. Nothing is computed."""
    import torch

    from FemurSegLib.segmentation.network import build_network

    with torch.device("meta"):
        network = build_network(name, tuple(patch)).train()
        image = torch.empty(1, 1, *patch)
    # Kept alive until counted, so that no two share an address.
    own = {p.untyped_storage()._cdata for p in (*network.parameters(), *network.buffers())}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = network(image)
    count = BYTES_A_WEIGHT * parameters(network) + sum(storage.nbytes() for storage in kept.values())
    del out
    return count
