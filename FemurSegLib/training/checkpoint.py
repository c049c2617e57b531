"""What a training keeps on disk: a checkpoint to go on from, and weights to use; each whole or not there."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from FemurSegLib.errors import InputError

CHECKPOINT, WEIGHTS, BEST = "checkpoint.pt", "weights.safetensors", "best.safetensors"


def write_checkpoint(out: Path, kept: dict) -> None:
    """out/checkpoint.pt: tensors, numbers, and dicts and lists of them."""
    partial = out / "checkpoint.partial"
    torch.save(kept, partial)
    partial.replace(out / CHECKPOINT)


def read_checkpoint(out: Path, device="cpu") -> dict | None:
    """None where there is none. Nothing in the file is run."""
    path = out / CHECKPOINT
    return torch.load(path, map_location=device, weights_only=True) if path.exists() else None


def write_weights(path: Path, network) -> None:
    """A safetensors file in half precision."""
    from safetensors.torch import save

    tensors = {k: v.detach().to("cpu", torch.float16).contiguous() for k, v in network.state_dict().items()}
    partial = path.with_suffix(".partial")
    partial.write_bytes(save(tensors))  # save_file makes files that nobody else may read
    partial.replace(path)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file on the CPU, half precision as float32. Raises InputError for others."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} holds no weights.", "Give a safetensors file that a training wrote.") from error
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def load_weights(network, path: Path, tensors: dict[str, torch.Tensor] | None = None) -> None:
    """Fills a network from a safetensors file, or from its tensors where it was read before. Raises InputError
    where it is none, or of another network."""
    try:
        network.load_state_dict(read_weights(path) if tensors is None else tensors)
    except RuntimeError as error:
        raise InputError(f"{path} holds weights of another network.", "Give those of the same network.") from error


@contextmanager
def unbroken() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is done, so that what belongs together changes together."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds, came = (signal.SIGINT, signal.SIGTERM), []
    before = [signal.signal(kind, lambda number, frame: came.append(number)) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
        if came:
            signal.raise_signal(came[0])
