"""YOLOv8 finds the femora in a radiograph; one network for each view.

    detector = Detector(device="cpu")
    detector.detect(coronal)  # [Detection(side="right_femur", score=0.98, box=(x0, y0, x1, y1)), ...]

The networks are built from the description inside ultralytics and filled from tensor-only files;
ultralytics' predictor, which opens pickles and looks for updates, is not used. What the network is given:
the radiograph's channels in their order, divided by 255, its longer side resized to about the size of training,
centred on the smallest canvas of whole strides, grey (114) around it, as in training.

Each radiograph is looked at several times, a little smaller and larger and in a mirror too, where right is left;
the median of what they show counts (test-time augmentation).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from FemurSegLib import models
from FemurSegLib.errors import ModelError
from FemurSegLib.localization import ultralytics_offline
from FemurSegLib.localization.detection import Detection, iou
from FemurSegLib.localization.radiograph import VIEWS, Radiograph
from FemurSegLib.sides import OTHER, SIDES

__all__ = ["IMAGE_SIZE", "Detection", "Detector", "load_network", "network_name"]

IMAGE_SIZE = 640
"""Of a network whose entry in the table of weights does not name another ("yolov8n-320")."""
STRIDE = 32
THREADS = 1
"""Of the CPU. A look takes 15 ms with one; several that wait for each other take seconds on a busy machine."""
GREY = 114

MIN_SCORE = 0.05
"""Weaker boxes are not reported; what counts as a femur is decided where the views are fused."""
MAX_IOU = 0.6
"""Of two boxes of a side in one look that overlap more than this, the better one counts."""
SAME_FEMUR = 0.4
"""Boxes of a side in different looks that overlap more than this show the same femur."""
LOOKS = (0.9, 1.0, 1.1)
"""Sizes of the looks, in parts of the size of training; each as it is and mirrored."""
PER_SIDE = 3


class Detector:
    """Detects in both views. `device`: of torch; `models_folder`: by default the one that is shipped; `data_set`:
    of weights, see `models.chosen_set`.

    `models` are the weights used. Networks are loaded when first used. Raises ModelError if weights are
    missing, damaged or do not fit.
    """

    def __init__(self, device: str = "cpu", models_folder: Path | str | None = None, data_set: str | None = None):
        self.device = device
        self.models = [models.find(f"detector_{view}", None, models_folder, data_set) for view in VIEWS]
        self._networks = {}

    def detect(self, radiograph: Radiograph) -> list[Detection]:
        """Detections in pixels of `radiograph.image`, best first; at most `PER_SIDE` of a side."""
        view = radiograph.view
        model = self.models[VIEWS.index(view)]
        if view not in self._networks:
            self._networks[view] = load_network(model, self.device)
        return find_boxes(self._networks[view], radiograph.image, image_size(model.network))


def network_name(size: int) -> str:
    """Name in the table of weights of a network trained at this image size."""
    return f"{ultralytics_offline.YOLO}-{size}"


def image_size(network: str) -> int:
    """The image size that such a name tells. ModelError for another network."""
    name, _, size = network.partition("-")
    if name != ultralytics_offline.YOLO or not (size or "0").isdigit():
        raise ModelError(f"Detector weights are for the network '{network}', which is not known here.", _UPDATE)
    return int(size) if size else IMAGE_SIZE


_UPDATE = "Use the weights that belong to this version of FemurSeg."


def load_network(model: models.Model, device: str = "cpu"):
    """The network with the weights of an entry of the table, fused and ready to run."""
    tensors = models.load_tensors(model.name, model.path.parent)
    with ultralytics_offline.threads_kept(THREADS):
        network = ultralytics_offline.build_network(len(SIDES))
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise ModelError(f"The weights {model.file} do not fit {model.network}.", _UPDATE) from error
        return network.eval().fuse(verbose=False).requires_grad_(False).to(device)


def find_boxes(network, image: np.ndarray, size: int) -> list[Detection]:
    """What all looks of `network` at `image` show, best first; at most `PER_SIDE` of a side.

    An edge is the median of those of the looks that show the femur, so that one that errs far does not count; the
    score is the mean of all looks, 0 from one that does not show it.
    """
    looks = [(round(part * size), mirrored) for part in LOOKS for mirrored in (False, True)]
    seen = [(n, found) for n, way in enumerate(looks) for found in look(network, image, *way)]
    femora: list[dict[int, Detection]] = []
    for n, found in sorted(seen, key=lambda one: -one[1].score):
        for femur in femora:
            best = next(iter(femur.values()))
            if best.side == found.side and iou(best.box, found.box) > SAME_FEMUR:
                femur.setdefault(n, found)
                break
        else:
            femora.append({n: found})
    merged = [_median(list(femur.values()), len(looks)) for femur in femora]
    merged = sorted((one for one in merged if one.score >= MIN_SCORE), key=lambda one: -one.score)
    return [one for n, one in enumerate(merged) if sum(m.side == one.side for m in merged[:n]) < PER_SIDE]


def _median(seen: list[Detection], looks: int) -> Detection:
    box = np.median([found.box for found in seen], axis=0)
    return Detection(seen[0].side, sum(found.score for found in seen) / looks, tuple(box.tolist()))


def look(network, image: np.ndarray, size: int, mirrored: bool = False) -> list[Detection]:
    """What `network` (images -> (n, 4 + sides, anchors): centre x, y, width, height, probabilities) sees in
    `image` at one size, or in its mirror image."""
    import torch

    canvas, scale, offset = letterbox(np.ascontiguousarray(image[:, ::-1]) if mirrored else image, size)
    batch = torch.from_numpy(canvas.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    with ultralytics_offline.threads_kept(THREADS), torch.inference_mode():
        output = network(batch.to(next(network.parameters()).device))
    output = output[0] if isinstance(output, (tuple, list)) else output
    found = _detections(output[0].float().cpu().numpy().T, image.shape[:2], scale, offset)
    return [_unmirrored(one, image.shape[1]) for one in found] if mirrored else found


def _unmirrored(found: Detection, columns: int) -> Detection:
    x0, y0, x1, y1 = found.box
    return Detection(OTHER[found.side], found.score, (columns - x1, y0, columns - x0, y1))


def letterbox(image: np.ndarray, size: int) -> tuple[np.ndarray, tuple[float, float], tuple[int, int]]:
    """The canvas that the network is given; scale (x, y) and offset (x, y) turn pixels of `image` into its
    own."""
    rows, columns = image.shape[:2]
    ratio = size / max(rows, columns)
    wanted = tuple(
        max(1, min(size, int(np.ceil(n * ratio)))) for n in (columns, rows)
    )  # as the training set is read
    inner = cv2.resize(image, wanted, interpolation=cv2.INTER_LINEAR)
    width, height = (-(-n // STRIDE) * STRIDE for n in wanted)
    x, y = (width - wanted[0]) // 2, (height - wanted[1]) // 2
    canvas = np.full((height, width, 3), GREY, np.uint8)
    canvas[y : y + wanted[1], x : x + wanted[0]] = inner
    return canvas, (wanted[0] / columns, wanted[1] / rows), (x, y)


def _detections(rows: np.ndarray, shape: tuple[int, int], scale, offset) -> list[Detection]:
    """Detections in the picture from the network's output (anchors, 4 + sides), weak and double ones left
    out."""
    half = rows[:, 2:4] / 2
    corners = np.c_[rows[:, :2] - half, rows[:, :2] + half]
    corners = (corners - np.tile(offset, 2)) / np.tile(scale, 2)
    corners = np.clip(corners, 0, np.array([shape[1], shape[0]] * 2))
    found = []
    for number, side in enumerate(SIDES):
        scores = rows[:, 4 + number]
        kept: list[np.ndarray] = []
        for at in np.argsort(-scores, kind="stable"):
            if scores[at] < MIN_SCORE or len(kept) == PER_SIDE:
                break
            box = corners[at]
            if (box[2:] - box[:2] > 0).all() and all(iou(box, other) <= MAX_IOU for other in kept):
                kept.append(box)
                found.append(Detection(side, float(scores[at]), tuple(float(edge) for edge in box)))
    return sorted(found, key=lambda detection: -detection.score)
