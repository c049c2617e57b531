"""Trains the detector of one view with ultralytics: resumable, on CPU or GPU, curves in results.csv of the
run.

    train_detector(DetectorTraining(out=Path("runs/detector/coronal"), radiographs=folder, view="coronal"))
    export_detector(Path("runs/detector/coronal"), "coronal")

Checkpoints of a run are ultralytics' own, that is, pickles: continue only runs that you started. What is
shipped is exported as tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from FemurSegLib import models
from FemurSegLib.errors import ModelError
from FemurSegLib.localization import ultralytics_offline
from FemurSegLib.localization.detector import network_name
from FemurSegLib.training.radiographs import CLASSES

COCO_SHA256 = "f59b3d833e2ff32e194b5bb8e08d211dc7c5bdf144b90d2c8412c47ccfc83b36"
"""Of ultralytics' yolov8n.pt (AGPL-3.0), trained on COCO; found in the sdist
aissemble-inference-yolo==1.5.0."""


@dataclass(frozen=True)
class DetectorTraining:
    """What to train on and how; the defaults are those of Xie 2025, Table 2, where it gives them.

    out: folder of the run; radiographs: folder of a RadiographSet; start: weights to start from,
    tensor-only or ultralytics' yolov8n.pt, none for random ones. minimum_area_ratio: the table does not say
    of what; it is read as MMYOLO's parameter of that name: after a random shift and scaling, a box that
    kept less than this part of its area is dropped. minutes: of this start; no epoch begins that would go beyond
    it, but the first. bf16: train in bfloat16.
    """

    out: Path
    radiographs: Path
    view: str
    start: Path | None = None
    epochs: int = 120
    batch: int = 32
    workers: int = 4
    minimum_area_ratio: float = 0.01
    image_size: int = 640
    learning_rate: float = 1e-3
    minutes: float = math.inf
    device: str = "cpu"
    threads: int | None = None
    bf16: bool = False
    seed: int = 0


MIRRORED = 0.5
"""Of the pictures: seen in a mirror, with the sides exchanged. A mirrored patient is another patient."""
STRETCH = 0.06
"""Standard deviation of the logarithm of width against height: patients of other proportions."""

AUGMENTATION = {
    # Left and right are what is to be learned, and a radiograph shows them by where things are: nothing is
    # turned or combined with other pictures, nor mirrored but by `_AnotherPatient`, which exchanges the sides.
    # The channels have meaning: their balance hardly changes.
    **dict.fromkeys(("fliplr", "flipud", "mosaic", "mixup", "copy_paste", "degrees", "shear", "hsv_h"), 0.0),
    "hsv_s": 0.15,
    "hsv_v": 0.25,
    # A box cut by the edge would not be tight any more, so pictures are shrunk, and hardly ever cut.
    "scale": (0.75, 1.0),
    "translate": 0.06,
}


def train_detector(training: DetectorTraining, report: Callable[[dict], None] = lambda epoch: None) -> Path:
    """Trains, or goes on where an interrupted run stopped; returns the run's folder, `weights/best.pt` in it.

    report: is given the figures of each epoch. A finished run is left as it is; one whose time is up
    is not finished. Raises KeyboardInterrupt, MemoryExhaustedError as `batches.ended_together`.
    """
    out = Path(training.out).resolve()
    finished = out / "finished.json"
    if finished.is_file():
        return out
    ultralytics_offline.prepare_training(training.threads)
    import torch

    from FemurSegLib.training.batches import ended_together

    with ultralytics_offline.threads_kept(), _precision(), ended_together() as they_run:
        trainer = _trainer(training, out, report)
        trainer.add_callback("on_train_batch_start", lambda trainer: they_run())
        try:
            trainer.train()
        except _TimeIsUp:
            return out
        finally:
            torch.use_deterministic_algorithms(False)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(training).items()}
    finished.write_text(json.dumps({"training": settings, "epochs": trainer.epoch + 1}, indent=2, default=str))
    return out


def export_detector(
    run: Path,
    view: str,
    folder: Path | None = None,
    image_size: int | None = None,
    terms: dict | None = None,
) -> Path:
    """Enters the best weights so far of a run as `models.name_of` says into the models folder, as tensors.

    terms: what `sets.terms` says of the data behind them.
    """
    import yaml

    ultralytics_offline.prepare_training()
    from ultralytics.nn.tasks import load_checkpoint

    run = Path(run)
    best = next(
        (run / "weights" / name for name in ("best.pt", "last.pt") if (run / "weights" / name).is_file()),
        None,
    )
    if best is None:
        raise ModelError(f"The run {run} has no weights yet.", "Train for at least one epoch.")
    size = image_size or yaml.safe_load((run / "args.yaml").read_text())["imgsz"]
    network, _ = load_checkpoint(best)
    kind, known = f"detector_{view}", network_name(size)
    name = models.name_of(kind, known, (terms or {}).get("set", models.RESEARCH))
    return models.export_weights(
        network.float().state_dict(), name, kind=kind, network=known, folder=folder, terms=terms
    )


def starting_tensors(path: Path) -> dict:
    """Tensors of a safetensors file, or of ultralytics' yolov8n.pt, which is opened without running its
    pickle. Raises InputError, ModelError."""
    import torch

    path = Path(path)
    if path.suffix == ".safetensors":
        from FemurSegLib.training.checkpoint import read_weights

        return read_weights(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != COCO_SHA256:
        raise ModelError(
            f"{path} is neither tensor-only nor the yolov8n.pt that is known.", f"SHA-256 {COCO_SHA256}"
        )
    ultralytics_offline.prepare()
    from ultralytics.nn import tasks
    from ultralytics.nn.modules import block, conv, head

    own = [
        tasks.DetectionModel,
        conv.Concat,
        conv.Conv,
        block.C2f,
        block.SPPF,
        block.Bottleneck,
        block.DFL,
        head.Detect,
    ]
    names = ("ModuleList", "Upsample", "BatchNorm2d", "Conv2d", "Sequential", "SiLU", "MaxPool2d")
    plain = [getattr(torch.nn, name) for name in names]
    with torch.serialization.safe_globals(own + plain):
        network = torch.load(path, map_location="cpu", weights_only=True)["model"]
    return network.float().state_dict()


def _trainer(training: DetectorTraining, out: Path, report):
    import torch
    import yaml
    from ultralytics.data.augment import RandomPerspective
    from ultralytics.models.yolo.detect import DetectionTrainer

    class Trainer(DetectionTrainer):
        def get_model(self, cfg=None, weights=None, verbose=True):
            network = ultralytics_offline.build_network(len(CLASSES))
            if weights is not None:
                network.load_state_dict(weights.float().state_dict())
            elif training.start:
                own = network.state_dict()
                start = starting_tensors(training.start)
                fitting = {k: v for k, v in start.items() if k in own and own[k].shape == v.shape}
                network.load_state_dict(fitting, strict=False)
            return network.to(memory_format=torch.channels_last)

        def preprocess_batch(self, batch):
            batch = super().preprocess_batch(batch)
            batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
            return batch

        def build_dataset(self, img_path, mode="train", batch=None):
            dataset = super().build_dataset(img_path, mode, batch)
            if mode == "train":
                dataset.transforms.insert(0, _AnotherPatient(training.seed, training.image_size))
            for transform in _all_transforms(dataset.transforms):
                if isinstance(transform, RandomPerspective):
                    transform.box_candidates = _KeepBoxes(training.minimum_area_ratio)
            return dataset

        def save_model(self):
            """As ultralytics, but a checkpoint is replaced whole or not at all."""
            whole = self.last, self.best
            self.last, self.best = (path.with_suffix(".part") for path in whole)
            try:
                saved = super().save_model()
                for part, path in zip((self.last, self.best), whole, strict=True):
                    if part.is_file():
                        os.replace(part, path)
            finally:
                self.last, self.best = whole
            return saved

    out.mkdir(parents=True, exist_ok=True)
    data = out / "data.yaml"
    description = {
        "path": str(Path(training.radiographs).resolve() / training.view),
        "train": "images/train",
        "val": "images/val",
        "names": dict(enumerate(CLASSES)),
    }
    data.write_text(yaml.safe_dump(description))
    last = out / "weights" / "last.pt"
    overrides = dict(
        model=f"{ultralytics_offline.YOLO}.yaml",
        pretrained=False,
        data=str(data),
        cache="ram",
        project=str(out.parent),
        name=out.name,
        exist_ok=True,
        plots=False,
        verbose=False,
        epochs=training.epochs,
        patience=0,
        batch=training.batch,
        nbs=training.batch,
        workers=training.workers,
        imgsz=training.image_size,
        device=training.device,
        seed=training.seed,
        amp="bf16" if training.bf16 else not training.device.startswith("cpu"),
        optimizer="AdamW",
        lr0=training.learning_rate,
        cos_lr=True,
        warmup_epochs=1.0,
        warmup_bias_lr=0.01,
        **AUGMENTATION,
    )
    if last.is_file():
        overrides["resume"] = str(last)
    trainer = Trainer(overrides=overrides)

    begun = time.monotonic()

    def tell(state):
        numbers = {
            "epoch": state.epoch + 1,
            "of": state.epochs,
            **{k: float(v) for k, v in state.metrics.items()},
        }
        report({**numbers, "fitness": float(state.fitness) if state.fitness is not None else None})
        done = state.epoch + 1 - state.start_epoch
        next_ends = (time.monotonic() - begun) * (done + 1) / max(done, 1)
        if state.epoch + 1 < state.epochs and next_ends > training.minutes * 60:
            raise _TimeIsUp  # the epoch is on disk by now

    trainer.add_callback("on_fit_epoch_end", tell)
    return trainer


class _TimeIsUp(Exception):
    """Ends a run that is not finished, as an interruption would."""


@contextmanager
def _precision():
    """bfloat16 on a CPU too, where it halves the time of a step; and no test of half precision on a GPU, for
    which ultralytics would fetch other weights and a picture."""
    import torch
    from ultralytics.engine import trainer

    original, check = trainer.autocast, trainer.check_amp

    def autocast(enabled, device="cuda"):
        if enabled is torch.bfloat16 and device == "cpu":
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return original(enabled, device)

    trainer.autocast, trainer.check_amp = autocast, lambda network: True
    try:
        yield
    finally:
        trainer.autocast, trainer.check_amp = original, check


class _AnotherPatient:
    """Mirrors a picture or not, and stretches it; `labels` as ultralytics hands them on, boxes normalised."""

    def __init__(self, seed: int, image_size: int):
        self.rng, self.image_size = np.random.default_rng([seed, 5]), image_size

    def __call__(self, labels: dict) -> dict:
        picture = labels["img"]
        if self.rng.random() < MIRRORED:
            picture = picture[:, ::-1]
            labels["instances"].fliplr(1)
            labels["cls"] = len(CLASSES) - 1 - labels["cls"]
        size = np.array(picture.shape[1::-1]) * [np.exp(self.rng.normal(0, STRETCH)), 1]
        size = np.maximum(1, np.round(size * self.image_size / size.max())).astype(int)
        labels["img"] = cv2.resize(np.ascontiguousarray(picture), size.tolist(), interpolation=cv2.INTER_LINEAR)
        labels["resized_shape"] = labels["img"].shape[:2]
        return labels


class _KeepBoxes:
    """ultralytics' choice of boxes to keep after a random shift, with another smallest area ratio."""

    def __init__(self, minimum_area_ratio: float):
        self.minimum_area_ratio = minimum_area_ratio

    def __call__(self, box1, box2, **_):
        from ultralytics.data.augment import RandomPerspective

        return RandomPerspective.box_candidates(box1, box2, area_thr=self.minimum_area_ratio)


def _all_transforms(transform):
    for part in getattr(transform, "transforms", [transform]):
        if part is transform:
            yield part
        else:
            yield from _all_transforms(part)
