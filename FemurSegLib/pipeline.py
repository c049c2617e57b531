"""The whole story: from a CT to both femora.

    volume = read_ct("leg.nii.gz")
    segmentation = segment_femurs(volume)
    write_result("out", segmentation, source="leg.nii.gz")

The method is that of Xie et al. 2025: two radiographs, a detector in each, boxes fused to one region a femur, a
segmentation network inside the region, the mask back on the grid of the CT.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from FemurSegLib import models
from FemurSegLib import progress as events
from FemurSegLib.errors import NoFemurError
from FemurSegLib.findings import Finding
from FemurSegLib.localization.radiograph import axial_radiograph, coronal_radiograph
from FemurSegLib.localization.region import FACES, Localization, Region, fuse, slices_of_femora
from FemurSegLib.result import Segmentation
from FemurSegLib.sides import DISPLAY_NAMES, LABELS, SIDES
from FemurSegLib.volume import Volume, restore

MARGIN_MM = 12.0
"""Added around a region before it is segmented."""
WIDEN_MM = 30.0
"""A region whose mask runs into its edge, where the scan goes on, is widened there by this, and tried again."""
ATTEMPTS = 3
SMALLEST_ML = 1.5
"""Less than this is not called a femur."""


def segment_femurs(
    volume: Volume,
    *,
    device: str = "auto",
    sides: Iterable[str] = SIDES,
    network: str = "segresnet",
    regions: dict[str, Region] | None = None,
    models_folder: Path | str | None = None,
    margin_mm: float = MARGIN_MM,
    progress: events.Listener = events.ignore,
) -> Segmentation:
    """Both femora of a CT.

    volume: as read, int16 HU, any orientation. sides: which femora to segment. regions: by side, in oriented voxel
    coordinates; given, the radiographs are made but nothing is looked for. progress: listener for events.
    Raises NoFemurError where none is found, ModelError where weights are missing, MemoryExhaustedError.
    """
    sides = tuple(sides)
    clock = _Clock(progress)
    oriented = volume.oriented()
    used = [models.find("segmenter", network, models_folder)]
    with clock("load"):
        from FemurSegLib.segmentation.inference import Runner, pick_device
        from FemurSegLib.segmentation.network import build_network

        chosen = pick_device(device)
        segmenter = build_network(network)
        segmenter.load_state_dict(models.load_tensors(used[0].name, models_folder))
        runner = Runner(segmenter, chosen)

    with clock("radiographs"):
        coronal = coronal_radiograph(oriented)
    if regions is None:
        with clock("detect"):
            from FemurSegLib.localization.detector import Detector

            detector = Detector(device=str(chosen), models_folder=models_folder)
            used += detector.models
            found = {"coronal": detector.detect(coronal)}
        with clock("radiographs"):
            axial = axial_radiograph(oriented, slices_of_femora(coronal, found["coronal"]))
        with clock("detect"):
            found["axial"] = detector.detect(axial)
        localization = fuse(coronal, axial, found)
    else:
        with clock("radiographs"):
            axial = axial_radiograph(oriented)
        localization = Localization(dict(regions), {"coronal": [], "axial": []}, [])
    wanted = {side: region for side, region in localization.regions.items() if side in sides}
    if not wanted:
        raise _no_femur(localization, sides)

    labels = np.zeros(oriented.grid.shape, np.uint8)
    confidence, findings = {}, [f for f in localization.warnings if f.side is None or f.side in sides]
    for number, (side, region) in enumerate(wanted.items()):
        others = [other for name, other in localization.regions.items() if name != side]

        def report(part, number=number, side=side):
            words = f"Segmenting the {DISPLAY_NAMES[side].lower()}"
            progress(events.progress("segment", (number + part) / len(wanted), words))

        with clock("segment"):
            mask, body, place = _segment(oriented, region, others, margin_mm, runner, report)
        if mask is None:
            findings.append(
                Finding("femur_missing", f"The {DISPLAY_NAMES[side].lower()} could not be segmented.", side)
            )
            continue
        with clock("clean"):
            taken = _write(labels, mask, place, side)
        if taken:
            findings.append(
                Finding(
                    "side_doubtful",
                    f"The {DISPLAY_NAMES[side].lower()} was found where the other femur is; check the sides.",
                    side,
                )
            )
            continue
        cut = _faces_touched(labels, LABELS[side])
        localization.regions[side] = replace(region, cut=cut)
        findings = [f for f in findings if not (f.code == "femur_cut" and f.side == side)] + _about_body(
            side, body, cut
        )
        confidence[side] = round(region.score * body.certainty, 3)
    findings += [Finding("memory", note) for note in dict.fromkeys(runner.notes)]
    if not confidence:
        raise _no_femur(localization, sides)
    asked = {side: region for side, region in localization.regions.items() if side in sides}
    localization = replace(localization, regions=asked, warnings=findings)
    for finding in findings:
        progress(events.warning(finding))
    return Segmentation(
        labels=restore(labels, volume.grid),
        grid=volume.grid,
        radiographs=(coronal, axial),
        localization=localization,
        confidence=confidence,
        findings=findings,
        seconds=clock.seconds,
        device=str(runner.device),
        models=used,
    )


def _segment(oriented: Volume, region: Region, others, margin_mm, runner, report):
    """The mask of one femur on the voxels of `oriented` in a box, what the clean-up saw, and that box.

    The first two are None where there is no femur. Pieces are told apart on the network's grid of 1 mm, then the
    probability goes back to the voxels of the CT.
    """
    from FemurSegLib.segmentation.cleanup import largest, one_body
    from FemurSegLib.segmentation.inference import to_shape

    lower, upper = (np.array(edge) for edge in region.padded(margin_mm, oriented.grid))
    spacing_kji = np.array(oriented.grid.spacing_mm[::-1])
    for _ in range(ATTEMPTS):
        crop = oriented.crop(tuple(lower), tuple(upper))
        probability = runner.probability(crop, report)
        voxel_ml = np.prod(crop.grid.shape * spacing_kji) / probability.size / 1000
        body = one_body(probability, _belonging(probability.shape, lower, upper, region, others))
        if body is None or body.mask.sum() * voxel_ml < SMALLEST_ML:
            return None, None, ()
        grown_lower, grown_upper = _widened(body.mask, lower, upper, oriented.grid.shape, spacing_kji)
        if (grown_lower == lower).all() and (grown_upper == upper).all():
            break
        lower, upper = grown_lower, grown_upper
    return largest(to_shape(body.field, crop.grid.shape) > 0.5), body, tuple(zip(lower, upper, strict=True))


def _belonging(shape, lower, upper, region: Region, others) -> np.ndarray:
    """1 inside the region, a little around it, -1 where only another femur's region is; float32 (k, j, i) over the
    box from `lower` to `upper`."""
    weight = np.full(shape, 0.05, np.float32)
    for some, value in (*((other, -1.0) for other in others), (region, 1.0)):
        edges = (np.array([some.lower_ijk, some.upper_ijk])[:, ::-1] + 0.5 - lower) / (upper - lower) * shape
        first, last = np.clip(np.round(edges).astype(int), 0, shape)
        weight[tuple(slice(a, b) for a, b in zip(first, last, strict=True))] = value
    return weight


def _widened(mask, lower, upper, shape, spacing_kji):
    lower, upper = lower.copy(), upper.copy()
    for axis in range(3):
        step = int(np.ceil(WIDEN_MM / spacing_kji[axis]))
        if lower[axis] > 0 and mask.take(0, axis).any():
            lower[axis] = max(0, lower[axis] - step)
        if upper[axis] < shape[axis] and mask.take(-1, axis).any():
            upper[axis] = min(shape[axis], upper[axis] + step)
    return lower, upper


def _write(labels, mask, place, side) -> bool:
    """Enters a mask into the labels; voxels of the other femur stay. True where most of it is the other femur's."""
    target = labels[tuple(slice(a, b) for a, b in place)]
    taken = (target > 0) & mask
    if taken.sum() > 0.5 * mask.sum():
        return True
    target[mask & (target == 0)] = LABELS[side]
    return False


def _faces_touched(labels: np.ndarray, label: int) -> tuple[str, ...]:
    """Faces of the scan that cut a femur."""
    return tuple(
        face
        for axis, faces in zip((2, 1, 0), FACES.values(), strict=True)
        for end, face in zip((0, -1), faces, strict=True)
        if (labels.take(end, axis) == label).any()
    )


def _about_body(side: str, body, cut) -> list[Finding]:
    from FemurSegLib.segmentation.cleanup import SECOND_PART

    name, found = DISPLAY_NAMES[side].lower(), []
    if cut:
        found.append(
            Finding("femur_cut", f"The {name} is cut by the edge of the scan ({', '.join(cut)}).", side)
        )
    if body.second > SECOND_PART:
        found.append(
            Finding(
                "femur_in_pieces",
                f"The {name} came out in pieces and only the largest was kept; look for a fracture or metal.",
                side,
            )
        )
    return found


def _no_femur(localization: Localization, sides) -> NoFemurError:
    seen = [DISPLAY_NAMES[side].lower() for side in localization.regions if side not in sides]
    if seen:
        return NoFemurError(
            f"Only the {' and the '.join(seen)} was found in this CT.",
            "Choose both sides, or the other side.",
        )
    return NoFemurError(
        "No femur was found in this CT.", "Check that the scan shows a thigh, a hip or a knee."
    )


class _Clock:
    """Seconds by stage; entering a stage tells the listener."""

    def __init__(self, listener: events.Listener):
        self.seconds: dict[str, float] = {}
        self._listener = listener

    @contextmanager
    def __call__(self, stage: str):
        if stage in events.STAGES and stage != "segment":
            self._listener(events.progress(stage))
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - begun, 3)
