"""Started twice by torchrun: a training that two processes share, stopped after two steps, and gone on.

torchrun --nproc-per-node=2 Testing/training/train_together.py OUT CT LABELS
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tiny_network import tiny_network

from FemurSegLib import command
from FemurSegLib.training import loop, segmenter
from FemurSegLib.training.distributed import launched


def main(out: str, cases: str) -> int:
    torch.set_num_threads(1)
    segmenter.build_network = lambda *which: without_dropout(tiny_network())
    last = []
    average = loop.average
    loop.average = lambda averaged, network, *more: last.append(network) or average(averaged, network, *more)
    options = "--patch 16 --batch 1 --workers 0 --device cpu --precision fp32 --hold-out B --validate-every 2"
    for steps in ("2", "4"):
        arguments = ["train", "segmenter", "--out", out, "--cases", cases, *options.split(), "--steps", steps]
        if code := command.main([*arguments, "--validation-patches", "3"]):
            return code
    torch.save(last[-1].state_dict(), Path(out) / f"process{launched().rank}.pt")
    return 0


def without_dropout(network):
    """One process and two are to be compared; each drops other channels."""
    network[3].p = 0.0
    return network


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
