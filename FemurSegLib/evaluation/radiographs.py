"""How good the detectors are on the radiographs they were validated on: IoU, sides, AP and mAP of each view.

    femurseg evaluate --radiographs runs/detector/radiographs

These radiographs have no CT behind them; the boxes of whole cases are in the tables of `femurseg evaluate --cases`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from FemurSegLib.errors import InputError
from FemurSegLib.evaluation.metrics import AP_IOU, COCO_IOUS, precision_recall
from FemurSegLib.localization.detection import Detection, iou
from FemurSegLib.localization.detector import Detector, find_boxes, image_size, load_network
from FemurSegLib.localization.radiograph import VIEWS
from FemurSegLib.localization.region import MIN_SCORE
from FemurSegLib.sides import SIDES
from FemurSegLib.training.radiographs import CLASSES


@dataclass(frozen=True)
class Picture:
    """One radiograph: the true box of each femur in it by side, and what was detected, the strongest first."""

    name: str
    truth: dict[str, tuple[float, float, float, float]]
    detections: list[Detection]

    @property
    def sure(self) -> list[Detection]:
        """Those that count."""
        return [found for found in self.detections if found.score >= MIN_SCORE]

    def iou(self, side: str) -> float:
        """Of the strongest detection of that side; 0 without one."""
        best = next((found for found in self.sure if found.side == side), None)
        return iou(best.box, self.truth[side]) if best else 0.0

    def swapped(self, side: str) -> bool:
        """The strongest detection on that femur says the other side."""
        on_it = [found for found in self.sure if iou(found.box, self.truth[side]) >= AP_IOU]
        return bool(on_it) and on_it[0].side != side

    def faults(self) -> list[str]:
        """What is wrong with it, in words."""
        out = [f"{side} taken for the other" for side in self.truth if self.swapped(side)]
        out += [f"{side} missed" for side in self.truth if self.iou(side) < AP_IOU and not self.swapped(side)]
        if not self.truth:
            out += [f"{found.side} where there is none ({found.score:.2f})" for found in self.sure]
        return out


def figures(pictures: list[Picture]) -> dict[str, float]:
    """Of pictures of one view: mean IoU (0 for a missed femur; and of those found), femora, missed, swapped, AP at
    IoU 0.3 and 0.5, mAP over 0.50 to 0.95, and false alarms in pictures without a femur."""
    femora = [(picture, side) for picture in pictures for side in picture.truth]
    found = [picture.iou(side) for picture, side in femora]
    without = [picture for picture in pictures if not picture.truth]
    return {
        "pictures": len(pictures),
        "femora": len(femora),
        "mean_iou": _mean(found),
        "mean_iou_found": _mean([value for value in found if value >= AP_IOU]),
        "missed": sum(value < AP_IOU for value in found),
        "swapped": sum(picture.swapped(side) for picture, side in femora),
        "AP30": _mean([average_precision(pictures, side, AP_IOU) for side in SIDES]),
        "AP50": _mean([average_precision(pictures, side, 0.5) for side in SIDES]),
        "mAP": _mean([average_precision(pictures, side, each) for side in SIDES for each in COCO_IOUS]),
        "without_femur": len(without),
        "false_alarms": sum(bool(picture.sure) for picture in without),
    }


def average_precision(pictures: list[Picture], side: str, smallest_iou: float) -> float:
    """Area under the precision-recall curve of a side over all pictures; NaN where none shows that femur."""
    detections = [
        (n, d.score, _corners(d.box)) for n, p in enumerate(pictures) for d in p.detections if d.side == side
    ]
    references = [(n, _corners(p.truth[side])) for n, p in enumerate(pictures) if side in p.truth]
    return precision_recall(detections, references, smallest_iou).ap


def look_at_pictures(detector: Detector, folder: Path, view: str, split: str = "val") -> list[Picture]:
    """Detects in the PNGs of a RadiographSet. Raises InputError where there are none."""
    model = detector.models[VIEWS.index(view)]
    network = load_network(model, detector.device)
    pictures = []
    for path in sorted((Path(folder) / view / "images" / split).glob("*.png")):
        image = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
        lines = (Path(folder) / view / "labels" / split / f"{path.stem}.txt").read_text().split("\n")
        truth = dict(_read_box(line, image.shape) for line in lines if line)
        pictures.append(Picture(path.stem, truth, find_boxes(network, image, image_size(model.network))))
    if not pictures:
        raise InputError(
            f"There are no {view} radiographs in {folder}.",
            "Give the folder `radiographs` of a detector's training.",
        )
    return pictures


def print_figures(folder: Path, device: str = "cpu", data_set: str | None = None) -> None:
    """A line for each picture in which something is wrong, and the figures of each view. data_set: of weights."""
    detector = Detector(device, data_set=data_set)
    for view in VIEWS:
        pictures = look_at_pictures(detector, folder, view)
        for picture in pictures:
            if faults := picture.faults():
                print(f"{view} {picture.name}: {', '.join(faults)}")
        words = (f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in figures(pictures).items())
        print(f"{view}: {', '.join(words)}", flush=True)


def _mean(values) -> float:
    """Of those that are numbers."""
    values = [value for value in values if np.isfinite(value)]
    return float(np.mean(values)) if values else float("nan")


def _corners(box):
    return np.array(box[:2]), np.array(box[2:])


def _read_box(line: str, shape):
    number, x, y, width, height = (float(word) for word in line.split())
    rows, columns = shape[:2]
    box = (
        (x - width / 2) * columns,
        (y - height / 2) * rows,
        (x + width / 2) * columns,
        (y + height / 2) * rows,
    )
    return CLASSES[int(number)], box
