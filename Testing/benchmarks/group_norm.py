"""Seconds of a training step of SegResNet on the CPU, with PyTorch's group normalisation and with ours.

python Testing/benchmarks/group_norm.py [PATCH]
"""

import sys
import time

import torch

from FemurSegLib.segmentation.inference import cpu_has_bfloat16
from FemurSegLib.segmentation.network import build_network
from FemurSegLib.training.group_norm import speed_up


def seconds_a_step(network, patch: int, steps: int = 4) -> float:
    image = torch.rand(1, 1, patch, patch, patch).contiguous(memory_format=torch.channels_last_3d)
    times = []
    for _ in range(steps + 1):
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16()):
            logits = network(image)
        (logits[:, 1] - logits[:, 0]).float().sigmoid().mean().backward()
        times.append(time.perf_counter() - begun)
    return min(times[1:])


if __name__ == "__main__":
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 96
    network = build_network("segresnet").to(memory_format=torch.channels_last_3d).train()
    plain = seconds_a_step(network, size)
    speed_up(network)
    fast = seconds_a_step(network, size)
    print(
        f"{torch.get_num_threads()} threads, patch {size}: {plain:.2f} s and {fast:.2f} s, {plain / fast:.2f} times"
    )
