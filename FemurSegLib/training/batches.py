"""Batches of training patches: phantoms and real CTs mixed, prepared while the network learns."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing import active_children
from multiprocessing.connection import wait

import numpy as np
import torch
from torch.utils.data import DataLoader, default_collate

from FemurSegLib.errors import MemoryExhaustedError

PAINTERS = 4
"""Threads that paint on a GPU: the geometry of a patient takes a core longer than the GPU needs for a step."""


class Mixture:
    """Patches of two sources in a random order that follows from the seed; `mixture[n]` is always the same.

    phantoms, real: sources with `source[n]`, or None; share: of real patches, where there are both; count: how
    many patches there are (a longer mixture begins as a shorter one).
    """

    def __init__(self, phantoms, real, share: float, count: int, seed: int):
        self.phantoms, self.real = phantoms, real
        share = share if phantoms and real else float(phantoms is None)
        self._is_real = np.random.default_rng([seed, 0]).random(count) < share
        self._place = np.where(self._is_real, np.cumsum(self._is_real), np.cumsum(~self._is_real)) - 1

    def __len__(self) -> int:
        return len(self._place)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (float16, (1, k, j, i), 0..2) and label (uint8, (k, j, i))."""
        source = self.real if self._is_real[number] else self.phantoms
        image, label = source[int(self._place[number])]
        return image[None].half(), label


def load_batches(mixture, batches: Iterable[list[int]], workers: int, device) -> Iterator[tuple]:
    """(images float32, labels) on `device` for each list of patch numbers, in that order whoever prepares them.

    workers: processes that prepare patches on the CPU. 0: none; then the mixture's patches come to lie on its own
    device, painted by threads if that is a GPU. To stop a process is to stop the training (`ended_together`).
    """
    device = torch.device(device)
    if workers:
        loader = _load_by_processes(
            DataLoader(
                mixture,
                batch_sampler=batches,
                num_workers=workers,
                prefetch_factor=4,
                pin_memory=device.type == "cuda",
                worker_init_fn=_begin_worker,
            )
        )
    elif device.type == "cuda":
        loader = load_in_threads(mixture, batches, PAINTERS, device)
    else:
        loader = (_load(mixture, numbers) for numbers in batches)
    for image, label in loader:
        image = image.to(device, torch.float32, non_blocking=True)
        yield (
            image.contiguous(memory_format=torch.channels_last_3d),
            label.to(device, non_blocking=True),
        )


@contextmanager
def ended_together() -> Iterator[Callable[[], None]]:
    """Inside it a training ends with the processes that prepare its data. Yields what is called when they run.

    torch tells of a process's end by an exception from a signal handler, in the middle of a step, or of a
    checkpoint that is being written. From that call on it is told where the next batch is asked for. Raises
    KeyboardInterrupt where a process was stopped (SIGTERM, SIGINT), as if the training itself had been;
    MemoryExhaustedError where it was killed, as Linux does without memory left; otherwise what went wrong.
    """
    others, workers = set(active_children()), set()
    on_posix = hasattr(signal, "SIGCHLD")
    handler = signal.getsignal(signal.SIGCHLD) if on_posix else None

    def they_run() -> None:
        workers.update(set(active_children()) - others)
        if on_posix and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)

    try:
        yield they_run
    except Exception:
        ended = wait([worker.sentinel for worker in workers], 1.0)  # its connections end before the process does
        for worker in workers:
            if worker.sentinel in ended:
                worker.join(1.0)
        ended_by = {-worker.exitcode for worker in workers if worker.exitcode}
        if ended_by & {signal.SIGTERM, signal.SIGINT}:
            raise KeyboardInterrupt from None
        if on_posix and signal.SIGKILL in ended_by:
            raise MemoryExhaustedError(
                "A process that prepares data was killed, probably because the main memory does not suffice.",
                "Take fewer --workers; the same command goes on from the last checkpoint.",
            ) from None
        raise


def _load_by_processes(loader: DataLoader) -> Iterator[tuple]:
    with ended_together() as they_run:
        batches = iter(loader)
        they_run()
        yield from batches


def load_in_threads(mixture, batches: Iterable[list[int]], threads: int, device) -> Iterator[tuple]:
    """As `_load` of each, in order, up to `threads` of them ahead. On a GPU each is painted in a stream of its own,
    so that a thread that waits for a number from the GPU does not wait for the network's step as well."""
    on_gpu = torch.device(device).type == "cuda"

    def load(numbers):
        stream = torch.cuda.Stream(device) if on_gpu else None
        with torch.cuda.stream(stream) if on_gpu else nullcontext():
            batch = _load(mixture, numbers)
        if on_gpu:
            stream.synchronize()
        return batch

    waiting = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for numbers in batches:
            waiting.append(pool.submit(load, numbers))
            if len(waiting) > threads:
                yield _handed_over(waiting.popleft().result(), on_gpu)
        while waiting:
            yield _handed_over(waiting.popleft().result(), on_gpu)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _handed_over(batch, on_gpu: bool):
    """Tells the allocator that another stream than the one they were made in uses these tensors."""
    if on_gpu:
        for tensor in batch:
            tensor.record_stream(torch.cuda.current_stream(tensor.device))
    return batch


def _load(mixture, numbers: list[int]):
    return default_collate([mixture[number] for number in numbers])


def _begin_worker(number: int) -> None:
    """One core, and Ctrl-C is the training's affair: it ends its workers."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
