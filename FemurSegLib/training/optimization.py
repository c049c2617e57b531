"""What trainings share: the fall of the learning rate, the precision, and the averaged weights."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch


def learning_rate(highest: float, step: int, steps: int, warm_up: int = 100) -> float:
    """Of a step: a linear rise over `warm_up` steps, and a cosine to a fiftieth over all `steps`."""
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    return highest * min(1.0, (step + 1) / warm_up) * (0.02 + 0.98 * fall)


def mixed_precision(precision: str, device):
    """Gives the context that a network runs in. precision: `bf16`, `fp32`, or `auto`: bfloat16 where the machine
    computes in it."""
    if precision != "auto":
        wanted = precision == "bf16"
    elif device.type == "cuda":
        wanted = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        from FemurSegLib.segmentation.inference import cpu_has_bfloat16

        wanted = cpu_has_bfloat16()
    return (lambda: torch.autocast(device.type, torch.bfloat16)) if wanted else nullcontext


@torch.no_grad()
def average(averaged, network, keep: float, step: int) -> None:
    """Moves the averaged weights towards those of the network after `step` steps; early ones count for less.

    keep: how much of the averaged weights stays.
    """
    keep = min(keep, (step + 1) / (step + 10))
    for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - keep)
    for mean, value in zip(averaged.buffers(), network.buffers(), strict=True):
        mean.copy_(value)
