"""Several processes that train one network together: `torchrun --nproc-per-node=2 -m FemurSegLib train ...`.

Each process looks at patches of its own; their gradients are averaged before every step, so the weights stay the
same in all of them. Only the first writes.
"""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Group:
    """The processes of a training: which one this is, and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def average_gradients(self, network) -> None:
        """Every process's gradients become their mean. All must have used the same parameters."""
        if self.size == 1:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        parts = (self.total(flat) / self.size).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def from_first(self, thing, device="cpu"):
        """What the first process has, in all of them: anything that can be pickled."""
        if self.size == 1:
            return thing
        box = [thing]
        dist.broadcast_object_list(box, src=0, device=torch.device(device))
        return box[0]


def launched() -> Group:
    """As torchrun tells by the environment; one process where it did not start this one."""
    return Group(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


def own_gpu() -> str:
    """The GPU of this process among those of its machine."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"


def together(device) -> Group:
    """Connects the processes that torchrun started: GPUs through NCCL, else through gloo. They stay connected
    until they end: torch cannot connect the same processes twice."""
    group = launched()
    if group.size > 1 and not dist.is_initialized():
        on_gpu = torch.device(device).type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if on_gpu else "gloo")
        atexit.register(dist.destroy_process_group)
    return group
