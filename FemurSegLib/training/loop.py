"""The one training loop of the 3D networks: by one process or several, resumable, with curves on disk.

    weights = train(settings, Parts(build=MyNetwork, patches=my_patches, loss=my_loss))

What differs from network to network comes as `Parts`; guards, checkpoints, validation and time limit are here.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from FemurSegLib.errors import CancelledError, MemoryExhaustedError
from FemurSegLib.training import checkpoint
from FemurSegLib.training.batches import load_batches
from FemurSegLib.training.checkpoint import BEST, WEIGHTS, unbroken
from FemurSegLib.training.distributed import Group, together
from FemurSegLib.training.group_norm import speed_up
from FemurSegLib.training.optimization import average, learning_rate, mixed_precision
from FemurSegLib.training.validation import Progress, Validation
from FemurSegLib.whole_file import write_text

REPORT_EVERY = 20
"""Steps a line of the curve tells about."""


@dataclass(frozen=True)
class Training:
    """What every training asks. Each kind has defaults of its own.

    people, shapes, cache: whom to paint, the folder of their bones, and one to keep them in. batch: patches that
    one process sees in a step. start: weights to begin with. averaging: how much of the averaged weights is kept at
    a step. workers: processes that prepare patches on the CPU; 0: the training itself does, on a GPU if it has one;
    None: 0 with a GPU, else 1. minutes: of this run, not of all that go on.

    held_people: who the training is validated on, every `validate_every` steps, on `validation_patches` of each
    kind; it ends after `patience` validations that were not better than the best. Without anybody it runs to its
    last step.
    """

    out: Path
    shapes: Path | None = None
    people: tuple[str, ...] = ()
    cache: Path | None = None
    patch: tuple[int, int, int] = (64, 64, 64)
    batch: int = 2
    steps: int = 1500
    learning_rate: float = 1e-3
    averaging: float = 0.998
    seed: int = 0
    device: str = "cpu"
    workers: int | None = None
    minutes: float = math.inf
    save_every: int = 100
    precision: str = "auto"
    start: Path | None = None
    held_people: tuple[str, ...] = ()
    validate_every: int = 250
    validation_patches: int = 12
    patience: int = 10


@dataclass(frozen=True)
class Parts:
    """What a training is made of.

    build: makes the network; called twice, for the one that learns and its average. patches: from a device and a
    count to at least so many patches, `patches(device, count)[n]` is (image (c, k, j, i), label), the same at every
    call, on that device. loss: of (logits, label, network), a scalar tensor. validation: of (group, device), the
    Validation on those held out, false where there is nobody; whom: them in words. optimizer: of (parameters, lr).
    warm_up: steps in which the learning rate rises. cpu_precision: what `auto` means on a CPU.
    """

    build: Callable[[], torch.nn.Module]
    patches: Callable
    loss: Callable[..., torch.Tensor]
    optimizer: Callable[..., torch.optim.Optimizer]
    validation: Callable[[Group, torch.device], Validation | None] = lambda group, device: None
    whom: str = "nobody"
    warm_up: int = 100
    cpu_precision: str = "auto"


def train(settings: Training, parts: Parts, report=print) -> Path:
    """Trains until `steps` or `minutes` or no gain, going on from `out/checkpoint.pt` if it is there.

    Writes out/checkpoint.pt (to resume), out/curve.jsonl (a line a report: step, loss, seconds; or step and
    validation Dice), out/weights.safetensors (averaged weights in half precision) and, with people held out,
    out/best.safetensors (those of the best validation). Returns the best there is.

    On a CPU the same seed gives the same weights, whatever prepares the patches, and a training that was stopped
    and goes on gives the same as one that ran through. (A GPU adds in an order of its own.)
    Raises MemoryExhaustedError where a GPU or the main memory is too small, CancelledError where Ctrl-C or SIGTERM
    stopped it, or one of the processes that prepare patches.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    group = together(settings.device)
    try:
        _Loop(settings, parts, group, report if group.is_first else lambda line: None).run()
    except torch.OutOfMemoryError as error:
        raise MemoryExhaustedError(
            "The memory of the GPU does not suffice.", "Take a smaller --batch or --patch."
        ) from error
    best = settings.out / BEST
    return best if best.exists() else settings.out / WEIGHTS


def preparation(settings: Training) -> tuple[int, str]:
    """How many processes prepare patches, and where they are painted: on a GPU, unless those are asked for."""
    on_gpu = settings.device.startswith("cuda")
    workers = (0 if on_gpu else 1) if settings.workers is None else settings.workers
    return workers, "cpu" if workers else settings.device


class _Loop:
    """One process's part of a training."""

    def __init__(self, settings: Training, parts: Parts, group: Group, report):
        self.settings, self.parts, self.group, self.report = settings, parts, group, report
        self.device = torch.device(settings.device)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # the patch has one size
        torch.manual_seed(settings.seed)
        self.network = parts.build().to(self.device, memory_format=torch.channels_last_3d)
        if self.device.type == "cpu":
            speed_up(self.network)
        self.averaged = parts.build().to(self.device)
        self.optimizer = parts.optimizer(self.network.parameters(), lr=settings.learning_rate)
        self.step = self.seen = 0
        self.progress = Progress()
        precision = settings.precision
        if precision == "auto" and self.device.type == "cpu":
            precision = parts.cpu_precision
        self.precision = mixed_precision(precision, self.device)
        self._begin_or_go_on()

    @property
    def patches_a_step(self) -> int:
        """The effective batch: of all processes."""
        return self.settings.batch * self.group.size

    def run(self) -> None:
        s = self.settings
        if self.step >= s.steps or self._is_over():
            self._save()
            return
        validation = self.parts.validation(self.group, self.device)
        if validation:
            self.report(f"Validated every {s.validate_every} steps on {self.parts.whom}.")
        losses, begun, tick = [], time.monotonic(), time.monotonic()
        try:
            for image, label in self._batches():
                losses.append(self._learn(image, label))
                if self.step % REPORT_EVERY == 0:
                    self._tell(losses, time.monotonic() - tick)
                    losses, tick = [], time.monotonic()
                is_validated = validation and (self.step % s.validate_every == 0 or self.step == s.steps)
                if is_validated:
                    self._validate(validation)
                    tick = time.monotonic()
                if is_validated or self.step % s.save_every == 0:
                    self._save()
                if self._is_over() or self._time_is_up(begun):
                    break
        except KeyboardInterrupt:
            words = f"Stopped after step {self.step}."
            raise CancelledError(words, "The same command goes on from there.") from None
        finally:  # also when it is interrupted
            self._save()

    def _learn(self, image, label) -> torch.Tensor:
        """One step. The loss stays on the device: a GPU is not waited for."""
        s = self.settings
        # All that is random in a step follows from its number, so that it is the same when a training goes on.
        torch.manual_seed(_number(s.seed, self.step, self.group.rank))
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = learning_rate(s.learning_rate, self.step, s.steps, self.parts.warm_up)
        self.network.train()
        with self.precision():
            logits = self.network(image)
        loss = self.parts.loss(logits, label, self.network)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.group.average_gradients(self.network)
        for parameter in self.network.parameters():
            if parameter.grad is not None:  # one value that is not finite would spoil all weights for good
                parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        with unbroken():
            self.optimizer.step()
            self.step += 1
            self.seen += self.patches_a_step
            average(self.averaged, self.network, s.averaging, self.step)
        return loss.detach()

    def _validate(self, validation: Validation) -> None:
        dice = validation.dice(self.averaged, self.device, self.precision)
        better = self.progress.is_better(dice["mean"], self.step)
        words = "  ".join(f"{kind} {value:.4f}" for kind, value in dice.items())
        self.report(f"step {self.step}  validation Dice: {words}{'  (best)' if better else ''}")
        self._note({"step": self.step, "validation": {k: round(v, 5) for k, v in dice.items()}})
        if better and self.group.is_first:
            checkpoint.write_weights(self.settings.out / BEST, self.averaged)
        if self._is_over():
            self.report(f"No gain since step {self.progress.step}: stopped early.")

    def _is_over(self) -> bool:
        return self.progress.since >= self.settings.patience > 0

    def _time_is_up(self, begun: float) -> bool:
        """The clock of the first process counts for all."""
        if math.isinf(self.settings.minutes):
            return False
        return self.group.from_first(time.monotonic() - begun > self.settings.minutes * 60, self.device)

    def _tell(self, losses, seconds: float) -> None:
        loss = self.group.total(torch.stack(losses).mean()) / self.group.size
        line = {
            "step": self.step,
            "loss": round(float(loss), 5),
            "seconds_per_step": round(seconds / len(losses), 3),
        }
        self._note(line)
        self.report(f"step {self.step}  loss {line['loss']:.4f}  {line['seconds_per_step']:.2f} s a step")

    def _note(self, line: dict) -> None:
        if self.group.is_first:
            with open(self.settings.out / "curve.jsonl", "a") as curve:
                curve.write(json.dumps(line) + "\n")

    def _batches(self):
        s = self.settings
        workers, device = preparation(s)
        count = self.seen + (s.steps - self.step) * self.patches_a_step
        first = range(self.seen + self.group.rank * s.batch, count, self.patches_a_step)
        numbers = [list(range(n, n + s.batch)) for n in first]
        return load_batches(self.parts.patches(device, count), numbers, workers, self.device)

    def _begin_or_go_on(self) -> None:
        kept = self.group.from_first(
            checkpoint.read_checkpoint(self.settings.out) if self.group.is_first else None, self.device
        )
        if kept is None:
            if self.settings.start is not None:
                checkpoint.load_weights(self.network, self.settings.start)
            self.averaged.load_state_dict(self.network.state_dict())
        else:
            self.network.load_state_dict(kept["network"])
            self.averaged.load_state_dict(kept["averaged"])
            if "optimizer" in kept:
                self.optimizer.load_state_dict(kept["optimizer"])
            self.step = int(kept["step"])
            self.seen = int(kept.get("seen", self.step * self.patches_a_step))
            self.progress = Progress(**kept.get("validation", {}))
        if self.group.is_first:
            settings = asdict(self.settings) | {"processes": self.group.size, "patches_a_step": self.patches_a_step}
            write_text(self.settings.out / "settings.json", json.dumps(settings, default=str, indent=1))
            if self.group.size > 1:
                self.report(
                    f"{self.group.size} processes with {self.settings.batch} patches each: "
                    f"{self.patches_a_step} patches a step."
                )

    def _save(self) -> None:
        if not self.group.is_first:
            return
        kept = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seen": self.seen,
            "validation": asdict(self.progress),
        }
        with unbroken():
            checkpoint.write_checkpoint(self.settings.out, kept)
            checkpoint.write_weights(self.settings.out / WEIGHTS, self.averaged)


def _number(*parts: int) -> int:
    """One number that follows from several, and hardly ever from others."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
