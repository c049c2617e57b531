"""Runs the segmentation network over a region: resample, slide a window, bring the probability back.

runner = Runner(network, "auto")
probability = runner.probability(crop)      # float32 (k, j, i) on about 1 mm
on_crop = to_shape(probability, crop.grid.shape)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from FemurSegLib.errors import InputError, MemoryExhaustedError
from FemurSegLib.segmentation.network import RECIPES, SIZE_MULTIPLE, SPACING_MM, normalize
from FemurSegLib.segmentation.threshold import centred, otsu

if TYPE_CHECKING:
    from FemurSegLib.volume import Volume

WINDOWS = ((160, 160, 160), (128, 128, 128), (96, 96, 96), (64, 64, 64))
"""Windows (k, j, i) from large to small: the next is tried where memory does not suffice. Only their volume counts;
their shape follows the region, see `shaped`."""
NARROWEST = 96
"""Voxels along an axis, if the region has so many: what the networks saw of a bone while they learned."""
OVERLAP = 0.25


def pick_device(device: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU. Raises InputError for a device that is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, present in there.items() if present)
    if not there.get(device.split(":")[0], False):
        raise InputError(f"The device '{device}' is not available on this computer.", "Choose auto or cpu.")
    return torch.device(device)


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere it is slower than single precision."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and any(flag in flags.read_text() for flag in ("avx512_bf16", "amx_bf16"))


class Runner:
    """A network on a device. `notes` collects sentences about fallbacks that the user should read.

    The `recipe` and the `window` of a network (see network.build_network) say on what it runs, and where its
    threshold lies; one without them is run as segresnet is.
    """

    def __init__(self, network: torch.nn.Module, device: str | torch.device = "cpu"):
        self._network = network.eval()
        self._recipe = getattr(network, "recipe", RECIPES["segresnet"])
        self._only_window = getattr(network, "window", None)
        self.notes: list[str] = []
        self._windows = self._all_windows()
        try:
            self._move(torch.device(device))
        except RuntimeError as error:  # others fill the GPU, so that not even the network goes in
            if not _out_of_memory(error) or torch.device(device).type == "cpu":
                raise
            self._to_cpu()

    def probability(self, crop: Volume, on_window: Callable[[float], None] = lambda done: None) -> np.ndarray:
        """Probability of femur, float32 (k, j, i), on a grid of about 1 mm over exactly the extent of `crop`.

        crop: oriented CT, int16 HU, any spacing. on_window: told the part (0..1) that is done. Where memory does
        not suffice, smaller windows are tried, then the CPU. Raises MemoryExhaustedError where nothing helps.
        A femur is where it passes 0.5: where the recipe wants Otsu's threshold, it is bent to lie there.
        """
        while True:
            try:
                probability = self._slide(crop, self._windows[0], on_window)
                if self._recipe.threshold == "otsu":
                    probability = centred(probability, otsu(probability))
                return probability
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                self._fall_back()

    def _slide(self, crop: Volume, window, on_window) -> np.ndarray:
        from monai.inferers import sliding_window_inference

        image = to_working_grid(crop).to(self.device)
        multiple = self._recipe.size_multiple
        roi = self._only_window or shaped(window, image.shape[2:], multiple)
        done, expected = 0, count_windows(image.shape[2:], roi)

        def predict(patch):
            nonlocal done
            with torch.autocast(self.device.type, self._precision, enabled=self._precision is not None):
                logits = self._network(patch.contiguous(memory_format=self._layout))
            done += 1
            on_window(min(1.0, done / expected))
            return (logits[:, 1:] - logits[:, :1]).float()

        with torch.inference_mode():
            logit = sliding_window_inference(
                image, roi, 1, predict, overlap=OVERLAP, mode="gaussian", padding_mode="constant", cval=0.0
            )
            return torch.sigmoid(logit)[0, 0].cpu().numpy()

    def _all_windows(self):
        return [self._only_window] if self._only_window else list(WINDOWS)

    def _move(self, device: torch.device) -> None:
        self.device = device
        # Channels last is what CPU and CUDA convolve fastest; MPS does not know it.
        self._layout = torch.contiguous_format if device.type == "mps" else torch.channels_last_3d
        self._network.to(device, memory_format=self._layout)
        if device.type == "cuda":
            self._precision = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        else:
            self._precision = torch.bfloat16 if device.type == "cpu" and cpu_has_bfloat16() else None

    def _to_cpu(self) -> None:
        self.notes.append(f"Memory of the {self.device.type} did not suffice; the CPU was used.")
        self._move(torch.device("cpu"))

    def _fall_back(self) -> None:
        if len(self._windows) > 1:
            self._windows.pop(0)
            size = self._windows[0][0]
            self.notes.append(
                f"Memory of the {self.device.type} did not suffice; smaller windows ({size} mm) were used."
            )
        elif self.device.type != "cpu":
            self._windows = self._all_windows()
            self._to_cpu()
        else:
            raise MemoryExhaustedError(
                "There is not enough memory to segment this CT.", "Close other programs and try again."
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def to_working_grid(crop: Volume) -> torch.Tensor:
    """Normalised float32 (1, 1, k, j, i) on about 1 mm voxels whose outer edges are those of `crop`."""
    extent_mm = np.array(crop.grid.shape[::-1]) * crop.grid.spacing_mm
    size = np.maximum(np.round(extent_mm / SPACING_MM).astype(int), SIZE_MULTIPLE)[::-1]
    image = torch.from_numpy(np.ascontiguousarray(crop.voxels))[None, None].float()
    ratio = np.array(image.shape[2:]) / size
    box = [max(1, (int(r) - 1) // 2 * 2 + 1) for r in ratio]  # odd, so that nothing moves
    if max(box) > 1:  # fine voxels are averaged, not skipped
        image = F.avg_pool3d(image, box, 1, [n // 2 for n in box], count_include_pad=False)
    return normalize(_trilinear(image, size))


def to_shape(probability: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Probability resampled (trilinear) to `shape` (k, j, i) over the same extent; float32."""
    return _trilinear(torch.from_numpy(probability)[None, None], shape)[0, 0].numpy()


def _trilinear(image: torch.Tensor, size) -> torch.Tensor:
    return F.interpolate(image, size=tuple(int(n) for n in size), mode="trilinear", align_corners=False)


def shaped(window, shape, multiple: int) -> tuple[int, int, int]:
    """A window (k, j, i) of at most the volume of `window` that gets over an image of `shape` with least work.

    Along a femur that is 180 voxels wide and deep cubes of 160 take four rows, flatter windows one. Sizes are
    multiples of `multiple`.
    """
    choices = []
    for n in shape:
        whole = -(-n // multiple) * multiple
        sizes = range(min(whole, -(-NARROWEST // multiple) * multiple), whole + 1, multiple)
        smallest = {}
        for size in sizes:
            smallest.setdefault(_windows_along(n, size), size)
        choices.append(smallest.values())
    fitting = [roi for roi in itertools.product(*choices) if np.prod(roi) <= np.prod(window)]
    if not fitting:
        return tuple(min(w, -(-n // multiple) * multiple) for w, n in zip(window, shape, strict=True))
    return min(fitting, key=lambda roi: np.prod(roi) * count_windows(shape, roi))


def _windows_along(n: int, size: int) -> int:
    return 1 if n <= size else -(-(n - size) // max(1, int(size * (1 - OVERLAP)))) + 1


def count_windows(shape, roi) -> int:
    """How many windows of size `roi` get over an image of `shape`, with neighbours that share `OVERLAP`."""
    return int(np.prod([_windows_along(n, size) for n, size in zip(shape, roi, strict=True)]))


def _out_of_memory(error: Exception) -> bool:
    words = str(error).lower()
    told = ("out of memory", "can't allocate", "not enough memory", "alloc_failed")  # CUDA, CPU, Windows, cuBLAS
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(part in words for part in told)
