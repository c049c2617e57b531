"""Trains the segmenter: mixed phantom and real patches, resumable at any moment, curves on disk."""

from __future__ import annotations

import json
import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from FemurSegLib.errors import InputError
from FemurSegLib.segmentation.network import PATCH, build_network
from FemurSegLib.training.losses import segmentation_loss
from FemurSegLib.training.patches import Case, PhantomSource, RealSource


@dataclass(frozen=True)
class SegmenterTraining:
    """What to train on and how. The defaults are those of Xie 2025, Table 3, where it gives them (patch 160,
    batch 4, Dice loss); its 300 epochs over 85 volumes are 300 * 85 / 4 steps."""

    out: Path
    shapes: Path | None = None
    people: tuple[str, ...] = ()
    cases: tuple[Case, ...] = ()
    real_share: float = 0.35
    network: str = "segresnet"
    patch: tuple[int, int, int] = PATCH
    batch: int = 4
    steps: int = 300 * 85 // 4
    learning_rate: float = 1e-3
    loss: str = "dice"
    averaging: float = 0.998
    seed: int = 0
    device: str = "cpu"
    workers: int = 1
    minutes: float = math.inf
    save_every: int = 100
    cache: Path | None = None
    precision: str = "auto"
    start: Path | None = None


class _Mixture(torch.utils.data.IterableDataset):
    def __init__(self, settings: SegmenterTraining, start: int):
        self.settings, self.start = settings, start

    def __iter__(self):
        import numpy as np

        s = self.settings
        info = torch.utils.data.get_worker_info()
        if info:
            torch.set_num_threads(1)
        seed = [s.seed, self.start, info.id if info else 0]
        rng = np.random.default_rng(seed)
        sources = []
        if s.people:
            sources.append(
                PhantomSource(s.shapes, s.people, s.cache, s.patch).stream(int(rng.integers(2**31)))
            )
        if s.cases:
            sources.append(RealSource(list(s.cases), s.patch).stream(int(rng.integers(2**31))))
        share = s.real_share if len(sources) == 2 else 0.0
        while True:
            image, label = next(sources[int(rng.random() < share)])
            yield image[None].half(), label


def train_segmenter(settings: SegmenterTraining, report=print) -> Path:
    """Trains until `steps` or `minutes`, going on from `out/checkpoint.pt` if it is there.

    Writes out/checkpoint.pt (to resume), out/curve.jsonl (a line a report: step, loss, seconds) and
    out/weights.safetensors (averaged weights in half precision). Returns the last.
    Raises ValueError where there is nothing to train on.
    """
    if not settings.people and not settings.cases:
        raise ValueError("Nothing to train on: give people of a shapes folder, labelled cases, or both.")
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    device = torch.device(settings.device)
    network = build_network(settings.network).to(device, memory_format=torch.channels_last_3d)
    averaged = build_network(settings.network).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=1e-5)
    step = _resume(out / "checkpoint.pt", network, averaged, optimizer, device)
    if step == 0:
        if settings.start is not None:
            _load_weights(network, settings.start)
        averaged.load_state_dict(network.state_dict())
    loader = torch.utils.data.DataLoader(
        _Mixture(settings, step),
        batch_size=settings.batch,
        num_workers=settings.workers,
        prefetch_factor=4 if settings.workers else None,
        pin_memory=device.type == "cuda",
    )
    (out / "settings.json").write_text(json.dumps(asdict(settings), default=str, indent=1))
    mixed = _mixed_precision(settings.precision, device)
    begun, recent, tick = time.monotonic(), [], time.monotonic()
    network.train()
    try:
        for image, label in loader:
            if step >= settings.steps or time.monotonic() - begun > settings.minutes * 60:
                break
            image = image.to(device, torch.float32, non_blocking=True).contiguous(
                memory_format=torch.channels_last_3d
            )
            label = label.to(device, non_blocking=True)
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(settings, step)
            with mixed():
                logits = network(image)
            loss = segmentation_loss(settings.loss, logits, label, network)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            step += 1
            _average(averaged, network, min(settings.averaging, (step + 1) / (step + 10)))
            recent.append(float(loss.detach()))
            if step % 20 == 0:
                line = {
                    "step": step,
                    "loss": round(sum(recent) / len(recent), 4),
                    "seconds_per_step": round((time.monotonic() - tick) / len(recent), 3),
                }
                recent, tick = [], time.monotonic()
                with open(out / "curve.jsonl", "a") as curve:
                    curve.write(json.dumps(line) + "\n")
                report(f"step {step}  loss {line['loss']:.4f}  {line['seconds_per_step']:.2f} s a step")
            if step % settings.save_every == 0:
                _save(out, network, averaged, optimizer, step)
    finally:  # also when it is interrupted
        _save(out, network, averaged, optimizer, step)
    return out / "weights.safetensors"


def _learning_rate(settings: SegmenterTraining, step: int) -> float:
    """Linear warm-up over 100 steps, then a cosine to a fiftieth."""
    warm = min(1.0, (step + 1) / 100)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / settings.steps)))
    return settings.learning_rate * warm * (0.02 + 0.98 * fall)


def _mixed_precision(precision: str, device):
    """bfloat16 where the machine computes in it, else single precision."""
    if precision == "auto":
        if device.type == "cuda":
            wanted = True
        else:
            from FemurSegLib.segmentation.inference import cpu_has_bfloat16

            wanted = cpu_has_bfloat16()
    else:
        wanted = precision == "bf16"
    return (lambda: torch.autocast(device.type, torch.bfloat16)) if wanted else nullcontext


@torch.no_grad()
def _average(averaged, network, keep: float) -> None:
    for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - keep)
    for mean, value in zip(averaged.buffers(), network.buffers(), strict=True):
        mean.copy_(value)


def _load_weights(network, path: Path) -> None:
    """Fills a network from a safetensors file. Raises InputError where the file is none, or of another network."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        network.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"{path} holds no weights to start from.", "Give weights of the same network.") from error


def _resume(path: Path, network, averaged, optimizer, device) -> int:
    if not path.exists():
        return 0
    kept = torch.load(path, map_location=device, weights_only=True)
    network.load_state_dict(kept["network"])
    averaged.load_state_dict(kept["averaged"])
    if "optimizer" in kept:
        optimizer.load_state_dict(kept["optimizer"])
    return int(kept["step"])


def _save(out: Path, network, averaged, optimizer, step: int) -> None:
    from safetensors.torch import save_file

    kept = {
        "network": network.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
    }
    partial = out / "checkpoint.partial"
    torch.save(kept, partial)
    partial.replace(out / "checkpoint.pt")
    tensors = {k: v.detach().to("cpu", torch.float16).contiguous() for k, v in averaged.state_dict().items()}
    save_file(tensors, out / "weights.partial")
    (out / "weights.partial").replace(out / "weights.safetensors")
