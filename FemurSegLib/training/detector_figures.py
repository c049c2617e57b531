"""How good the detectors are: IoU, sides, AP and mAP over radiographs with boxes, and over labelled CTs.

    python -m FemurSegLib.training.detector_figures --radiographs runs/detector/set --case CT LABELS

Pictures are those of a RadiographSet. A CT is gone through as in the pipeline: the axial radiograph is made
of the slices that the coronal detections give.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from FemurSegLib.evaluation.metrics import precision_recall
from FemurSegLib.localization.detection import Detection, iou
from FemurSegLib.localization.detector import Detector, find_boxes, image_size, load_network
from FemurSegLib.localization.radiograph import VIEWS, axial_radiograph, coronal_radiograph
from FemurSegLib.localization.region import MIN_SCORE, slices_of_femora
from FemurSegLib.sides import SIDES
from FemurSegLib.training.cases import Case, read_case
from FemurSegLib.training.radiographs import CLASSES, boxes

FOUND_IOU = 0.3
"""A detection that overlaps a femur by this much has found it (Xie 2025, Table 4: AP at IoU >= 0.3)."""
STRICT_IOU = tuple(np.arange(0.5, 1.0, 0.05).round(2))


@dataclass(frozen=True)
class Picture:
    """One radiograph: the true box of each femur in it by side, and what was detected."""

    name: str
    view: str
    truth: dict[str, tuple[float, float, float, float]]
    detections: list[Detection]

    def best(self, side: str) -> Detection | None:
        """The strongest detection of that side among those that count."""
        return next((d for d in self.detections if d.side == side and d.score >= MIN_SCORE), None)

    def iou(self, side: str) -> float:
        best = self.best(side)
        return iou(best.box, self.truth[side]) if best else 0.0

    def swapped(self, side: str) -> bool:
        """The strongest detection on that femur says the other side."""
        on_it = [d for d in self.detections if d.score >= MIN_SCORE and iou(d.box, self.truth[side]) >= FOUND_IOU]
        return bool(on_it) and on_it[0].side != side


def average_precision(pictures: list[Picture], side: str, smallest_iou: float) -> float:
    """Area under the precision-recall curve of a side over all pictures; NaN where none shows that femur."""
    detections = [
        (n, d.score, _corners(d.box)) for n, p in enumerate(pictures) for d in p.detections if d.side == side
    ]
    references = [(n, _corners(p.truth[side])) for n, p in enumerate(pictures) if side in p.truth]
    return precision_recall(detections, references, smallest_iou).ap


def figures(pictures: list[Picture]) -> dict[str, float]:
    """Of pictures of one view: mean IoU (0 for a missed femur; and of those found), femora, missed,
    swapped, AP at IoU 0.3 and 0.5, mAP over 0.5 to 0.95, and false alarms in pictures without a femur."""
    femora = [(picture, side) for picture in pictures for side in picture.truth]
    found = [picture.iou(side) for picture, side in femora]

    def mean_ap(*thresholds):
        each = [average_precision(pictures, side, t) for side in SIDES for t in thresholds]
        return _mean([value for value in each if np.isfinite(value)])

    without = [picture for picture in pictures if not picture.truth]
    return {
        "pictures": len(pictures),
        "femora": len(femora),
        "mean_iou": _mean(found),
        "mean_iou_found": _mean([value for value in found if value >= FOUND_IOU]),
        "missed": sum(value < FOUND_IOU for value in found),
        "swapped": sum(picture.swapped(side) for picture, side in femora),
        "AP30": mean_ap(FOUND_IOU),
        "AP50": mean_ap(0.5),
        "mAP": mean_ap(*STRICT_IOU),
        "without_femur": len(without),
        "false_alarms": sum(any(d.score >= MIN_SCORE for d in picture.detections) for picture in without),
    }


def _mean(values) -> float:
    return float(np.mean(values)) if values else float("nan")


def look_at_pictures(detector: Detector, folder: Path, view: str, split: str = "val") -> list[Picture]:
    """Detects in the PNGs of a RadiographSet."""
    model = detector.models[VIEWS.index(view)]
    network = load_network(model, detector.device)
    pictures = []
    for path in sorted((Path(folder) / view / "images" / split).glob("*.png")):
        image = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
        lines = (Path(folder) / view / "labels" / split / f"{path.stem}.txt").read_text().split("\n")
        truth = dict(_read_box(line, image.shape) for line in lines if line)
        pictures.append(Picture(path.stem, view, truth, find_boxes(network, image, image_size(model.network))))
    return pictures


def look_at_case(detector: Detector, case: Case) -> list[Picture]:
    """The coronal and the axial picture of a labelled CT, as in the pipeline."""
    ct, labels = (volume.oriented() for volume in read_case(case))
    coronal = coronal_radiograph(ct)
    seen = detector.detect(coronal)
    axial = axial_radiograph(ct, slices_of_femora(coronal, seen))
    pairs = ((coronal, seen), (axial, detector.detect(axial)))
    name = Path(case.ct).parent.name if case.name in ("ct", "femurs") else case.name
    return [
        Picture(name, radiograph.view, {CLASSES[n]: box for n, box in boxes(labels, radiograph)}, detections)
        for radiograph, detections in pairs
    ]


def table(pictures: list[Picture]) -> str:
    """A line a femur: IoU, score, and the side where it is wrong."""
    lines = []
    for picture in pictures:
        for side in picture.truth:
            best = picture.best(side)
            note = "  SIDE WRONG" if picture.swapped(side) else "" if picture.iou(side) >= FOUND_IOU else "  missed"
            lines.append(f"{picture.name:34s} {picture.view:8s} {side:12s} IoU {picture.iou(side):.3f}"
                         f" score {best.score if best else 0:.2f}{note}")  # fmt: skip
        if not picture.truth:
            alarms = [f"{d.side} {d.score:.2f}" for d in picture.detections if d.score >= MIN_SCORE]
            lines.append(f"{picture.name:34s} {picture.view:8s} no femur; detected: {', '.join(alarms) or 'none'}")
    return "\n".join(lines)


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


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--radiographs", type=Path, help="folder of a RadiographSet; its part `val` is used")
    parser.add_argument("--case", nargs=2, action="append", type=Path, default=[], metavar=("CT", "LABELS"))
    parser.add_argument("--models", type=Path, help="folder of the weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--all", action="store_true", help="a line for each femur of the radiographs, too")
    options = parser.parse_args(arguments)
    detector = Detector(options.device, options.models)
    if options.radiographs:
        for view in VIEWS:
            pictures = look_at_pictures(detector, options.radiographs, view)
            if options.all:
                print(table(pictures))
            _print(view, figures(pictures))
    seen = [picture for pair in options.case for picture in look_at_case(detector, Case(*pair))]
    if seen:
        print(table(seen))
        for view in VIEWS:
            _print(f"{view}, CTs", figures([picture for picture in seen if picture.view == view]))


def _print(title: str, numbers: dict[str, float]) -> None:
    words = (
        f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in numbers.items()
    )
    print(f"{title}: {', '.join(words)}")


if __name__ == "__main__":
    main()
