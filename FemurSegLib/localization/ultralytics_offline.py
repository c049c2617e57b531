"""ultralytics as this project uses it: no network, no telemetry, no installing, no surprise about threads.

ultralytics is AGPL-3.0. It is imported inside functions only, through `prepare`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

YOLO = "yolov8n"
"""The network: the nano YOLOv8, built from the description inside the package, so nothing is fetched."""

_library = None


def prepare() -> None:
    """Settles ultralytics' environment; to be called before it is first imported. Repeating does no harm.

    YOLO_OFFLINE stops the look-ups at import and the events (its telemetry), YOLO_AUTOINSTALL=false keeps
    pip out, and its settings file goes to the temporary folder and not to the user's home.
    """
    import torch  # noqa: F401  before ultralytics, which would otherwise set OMP_NUM_THREADS=1

    os.environ["YOLO_OFFLINE"] = "1"
    os.environ["YOLO_AUTOINSTALL"] = "false"
    os.environ.setdefault("YOLO_VERBOSE", "false")
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    folder = Path(
        os.environ.setdefault("YOLO_CONFIG_DIR", str(Path(tempfile.gettempdir(), f"femurseg-yolo-{user}")))
    )
    folder.mkdir(parents=True, exist_ok=True)


def prepare_training(threads: int | None = None) -> None:
    """As `prepare`, and so that training works offline: settings, threads, fonts, torchvision beside CPU
    torch."""
    prepare()
    _make_torchvision_importable()
    from ultralytics.utils import SETTINGS, torch_utils

    SETTINGS.update({name: False for name in SETTINGS if name in _TALKATIVE})
    if threads:
        torch_utils.NUM_THREADS = threads  # select_device calls torch.set_num_threads with it
    from ultralytics.data import utils as data_utils

    data_utils.check_font = lambda *args, **keywords: None  # the only thing training would still fetch


_TALKATIVE = {
    *(
        "sync",
        "hub",
        "platform",
        "clearml",
        "comet",
        "dvc",
        "mlflow",
        "neptune",
        "raytune",
        "tensorboard",
        "wandb",
    )
}


@contextmanager
def threads_kept(threads: int | None = None):
    """Leaves torch's number of threads as it was (ultralytics sets it for its own use); `threads` within."""
    import torch

    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def build_network(classes: int, verbose: bool = False):
    """A YOLOv8n with random weights for so many classes."""
    prepare()
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel(level if verbose else "ERROR")
    try:
        return DetectionModel(f"{YOLO}.yaml", nc=classes, verbose=verbose)
    finally:
        LOGGER.setLevel(level)


def _make_torchvision_importable() -> None:
    """torchvision built for CUDA beside a CPU build of torch lacks its operators, and importing it fails.

    It needs to know two of them by name, and validation calls one; the rest of it is not used.
    """
    import torch

    global _library
    if torch.version.cuda or "torchvision" in sys.modules or _library:
        return
    try:
        import torchvision  # noqa: F401

        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

    torchvision.ops.nms = _nms


def _nms(boxes, scores, iou_threshold):
    from ultralytics.utils.nms import TorchNMS

    return TorchNMS.nms(boxes, scores, iou_threshold)
