"""The whole story: from a CT to both femora.

    volume = read_ct("leg.nii.gz")
    segmentation = segment_femurs(volume)
    write_result("out", segmentation, source="leg.nii.gz")

The method is that of Xie et al. 2025: two radiographs, a detector in each, boxes fused to one region a femur, a
segmentation network inside the region, the mask back on the grid of the CT.
Then the bones are read: their landmarks, angles and regions.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from FemurSegLib import models
from FemurSegLib import progress as events
from FemurSegLib.errors import ModelError, NoFemurError
from FemurSegLib.findings import Finding
from FemurSegLib.localization.radiograph import axial_radiograph, coronal_radiograph
from FemurSegLib.localization.region import FACES, Localization, Region, fuse, slices_of_femora
from FemurSegLib.result import Segmentation, volume_sha256
from FemurSegLib.sides import DISPLAY_NAMES, LABELS, SIDES
from FemurSegLib.volume import Volume, restore

if TYPE_CHECKING:
    from FemurSegLib.segmentation.cleanup import Body

MARGIN_MM = 12.0
"""Added around a region before it is segmented."""
ATTEMPTS = 3
"""At most. A region whose mask runs into its edge, where the scan goes on, is widened as far as the bone goes on
(segmentation/reach.py), and tried again: the second box is nearly always wide enough."""
SMALLEST_ML = 1.5
"""Less than this is not called a femur."""
SECOND_PART = 0.1
"""A second piece of at least this part of the femur's volume is worth a word to the surgeon."""


def segment_femurs(
    volume: Volume,
    *,
    device: str = "auto",
    sides: Iterable[str] = SIDES,
    network: str = "segresnet",
    data_set: str | None = None,
    regions: dict[str, Region] | None = None,
    models_folder: Path | str | None = None,
    margin_mm: float = MARGIN_MM,
    keep_probability: bool = False,
    anatomy: bool = True,
    compartments: str | None = None,
    density=None,
    perturbations: int = 0,
    progress: events.Listener = events.ignore,
) -> Segmentation:
    """Both femora of a CT.

    volume: as read, int16 HU, any orientation. sides: which femora to segment. data_set: of weights, `open` or
    `research` (models.chosen_set); one that lacks what is needed is an error, never filled from the other.
    regions: by side, in oriented voxel coordinates, as drawn by a user; given, nothing is looked for, and nothing
    outside them is segmented. margin_mm: context added around a region. keep_probability: the result tells how sure
    the network is of each voxel.
    anatomy: read landmarks, angles and regions; compartments: how to tell cortex from inside too
    (anatomy.compartments.METHODS), None not to; density: an anatomy.density.Calibration, for mineral densities;
    perturbations: copies of each mask, turned, mirrored or roughened, that everything is read from again, for its
    spread (anatomy.stability; a second or two each).
    progress: listener for events.
    Raises NoFemurError where none is found, ModelError where weights are missing, damaged or do not fit,
    MemoryExhaustedError.
    """
    sides = tuple(sides)
    clock = _Clock(progress)
    oriented = volume.oriented()
    with clock("load"):
        from FemurSegLib.segmentation.confidence import gather, load_calibration
        from FemurSegLib.segmentation.inference import Runner, pick_device
        from FemurSegLib.segmentation.network import build_network, trained_patch

        data_set = models.chosen_set(data_set)
        # what is missing is told before any work
        needed = models.of_run(network, models_folder, data_set, detectors=regions is None)
        if anatomy and compartments == "network":
            models.find("compartments", data_set=data_set)
        used = [needed["segmenter"]]
        tensors = models.load_tensors(used[0].name, models_folder)
        segmenter = build_network(network, trained_patch(network, tensors))
        try:
            segmenter.load_state_dict(tensors)
        except RuntimeError as error:
            raise ModelError(
                f"The weights {used[0].file} do not fit the network '{network}'.",
                "Use the weights that belong to this version of FemurSeg.",
            ) from error
        runner = Runner(segmenter, pick_device(device))
        calibration = load_calibration(used[0].name, models_folder)

    radiographs, localization = _localize(oriented, regions, clock, models_folder, used, data_set)
    found = {side: region for side, region in localization.regions.items() if side in sides}
    if not found:
        raise _no_femur(localization, sides)

    labels = np.zeros(oriented.grid.shape, np.uint8)
    evidence, confidence, probability = {}, {}, {}
    findings = [f for f in localization.warnings if f.side is None or f.side in sides]
    bar = _Bar(progress, found)
    for side, region in found.items():
        others = [other for name, other in localization.regions.items() if name != side]
        with clock("segment"):
            mask = _segment(oriented, region, others, margin_mm, regions is not None, runner, bar.of(side))
        with clock("clean"):
            problem = _enter(labels, mask, side)
        if problem:
            findings = [f for f in findings if f.side != side] + [problem]
            continue
        if keep_probability:
            probability[side] = mask.place, mask.probability()
        cut = _faces_touched(labels, LABELS[side])
        found[side] = replace(region, cut=cut)
        findings = [f for f in findings if (f.code, f.side) != ("femur_cut", side)]  # the mask knows better
        evidence[side] = gather(mask.voxels, mask.place, mask.body.certainty, region, cut, oriented)
        if calibration:
            confidence[side] = round(calibration.confidence(evidence[side]), 3)
            findings += _about_confidence(side, confidence[side], calibration.reasons(evidence[side]))
        findings += _about_mask(side, mask, cut)
    if not evidence:
        raise _no_femur(localization, sides)

    if not (calibration and calibration.fits(used)):
        words = "The confidence was not calibrated for the weights that were used; do not rely on it."
        findings.append(Finding("confidence_uncalibrated", words))
    findings += [Finding("weights_caution", model.caution) for model in used if model.caution]
    findings += [Finding("memory", note) for note in dict.fromkeys(runner.notes)]
    with clock("surfaces"):
        from FemurSegLib.surface import surface_of

        with ThreadPoolExecutor(len(evidence)) as both:  # numpy, OpenCV and VTK let go of Python's lock
            made = both.map(lambda side: surface_of(labels, oriented.grid, LABELS[side]), evidence)
            surfaces = dict(zip(evidence, made, strict=True))
    read, painted = {}, {}
    if anatomy:
        with clock("anatomy"):
            from FemurSegLib.anatomy.record import models_of, read_femurs

            bones = read_femurs(
                labels,
                oriented.grid,
                oriented.voxels,
                surfaces=surfaces,
                perturbations=perturbations,
                compartments=compartments,
                calibration=density,
                device=device,
                data_set=data_set,
            )
        read, painted, findings = bones.femurs, bones.painted, findings + bones.findings
        used += models_of(read.values(), data_set)
    for finding in findings:
        progress(events.warning(finding))
    return Segmentation(
        labels=restore(labels, volume.grid),
        grid=volume.grid,
        radiographs=radiographs,
        localization=replace(localization, regions=found, warnings=findings),
        confidence=confidence,
        findings=findings,
        seconds=clock.seconds,
        device=str(runner.device),
        models=used,
        anatomy=read,
        surfaces=surfaces,
        painted=painted,
        ct_sha256=volume_sha256(volume.voxels),
        probability=probability,
        evidence=evidence,
    )


def _localize(oriented: Volume, regions, clock: _Clock, models_folder, used: list, data_set: str):
    """Both radiographs and where the femora are; the detector's weights are added to `used`."""
    with clock("radiographs"):
        coronal = coronal_radiograph(oriented)
    if regions is not None:
        with clock("radiographs"):
            axial = axial_radiograph(oriented)
        return (coronal, axial), Localization(dict(regions), {"coronal": [], "axial": []}, [])
    with clock("detect"):
        from FemurSegLib.localization.detector import Detector

        # On the CPU: milliseconds, and a full GPU is no matter.
        detector = Detector(models_folder=models_folder, data_set=data_set)
        used += detector.models
        seen = {"coronal": detector.detect(coronal)}
    with clock("radiographs"):
        axial = axial_radiograph(oriented, slices_of_femora(coronal, seen["coronal"]))
    with clock("detect"):
        seen["axial"] = detector.detect(axial)
    return (coronal, axial), fuse(coronal, axial, seen)


@dataclass(frozen=True)
class _Mask:
    """A femur: bool `voxels` (k, j, i) of the box `place` (a range an axis) of the oriented volume; `body`: what
    the clean-up saw; `complete`: whether it ends before the box does, or where the scan ends; `metal_mm`: the LPS z
    between which metal lies in or near it, None where none does."""

    voxels: np.ndarray
    place: tuple[tuple[int, int], ...]
    body: Body
    complete: bool
    metal_mm: tuple[float, float] | None = None

    def probability(self) -> np.ndarray:
        """Of this one body, holes filled, on the voxels of the box: float32 (k, j, i)."""
        from FemurSegLib.segmentation.inference import to_shape

        return to_shape(self.body.field, self.voxels.shape)


def _segment(oriented: Volume, region: Region, others, margin_mm, confined: bool, runner, report):
    """The _Mask of one femur, or None where there is none.

    confined: nothing outside the region is femur, whatever the network says. Pieces are told apart on the network's
    grid of 1 mm, then the probability goes back to the voxels of the CT. A mask that does not end within reach
    beyond a face of its box has most likely gone over into another bone: then it ends where the box does.
    """
    from FemurSegLib.segmentation.cleanup import largest, one_body
    from FemurSegLib.segmentation.inference import to_shape
    from FemurSegLib.segmentation.metal import metal_in, slices_with_metal, without_metal_beside
    from FemurSegLib.segmentation.reach import beyond

    spacing_kji = np.array(oriented.grid.spacing_mm[::-1])
    grown = tuple(np.array(edge) for edge in region.padded(margin_mm, oriented.grid))
    for attempt in range(ATTEMPTS):
        lower, upper = grown
        crop = oriented.crop(tuple(lower), tuple(upper))
        probability = runner.probability(crop, lambda part, done=attempt: report((done + part) / (done + 1)))
        if confined:
            probability = _only(probability, _inside(region, probability.shape, lower, upper))
        metal = metal_in(crop)
        if metal is not None:
            probability = without_metal_beside(probability, metal)
        body = one_body(probability, _belonging(probability.shape, lower, upper, region, others))
        voxel_ml = np.prod(crop.grid.shape * spacing_kji) / probability.size / 1000
        if body is None or body.mask.sum() * voxel_ml < SMALLEST_ML:
            return None
        if confined:
            complete = True
            break
        *grown, endless = beyond(oriented, body.mask, lower, upper, runner.probability, margin_mm)
        ends_here = np.array_equal(grown, (lower, upper))
        complete = ends_here and not endless
        if ends_here:
            break
    voxels = largest(to_shape(body.field, crop.grid.shape) > 0.5)
    metal_mm = None if metal is None else slices_with_metal(body.mask, metal, crop.grid)
    return _Mask(voxels, tuple(zip(lower, upper, strict=True)), body, complete, metal_mm)


def _only(values: np.ndarray, part) -> np.ndarray:
    """The values in a part of an array (slices for k, j, i), and 0 elsewhere."""
    out = np.zeros_like(values)
    out[tuple(part)] = values[tuple(part)]
    return out


def _inside(region: Region, shape, lower, upper) -> tuple[slice, ...]:
    """The part of an array of `shape` over the box from `lower` to `upper` (k, j, i) that a region covers."""
    edges = (np.array([region.lower_ijk, region.upper_ijk])[:, ::-1] + 0.5 - lower) / (upper - lower) * shape
    first, last = np.clip(np.round(edges).astype(int), 0, shape)
    return tuple(slice(a, b) for a, b in zip(first, last, strict=True))


def _belonging(shape, lower, upper, region: Region, others) -> np.ndarray:
    """1 inside the region, a little around it, -1 where only another femur's region is; float32 (k, j, i) over the
    box from `lower` to `upper`."""
    weight = np.full(shape, 0.05, np.float32)
    for other in others:
        weight[_inside(other, shape, lower, upper)] = -1.0
    weight[_inside(region, shape, lower, upper)] = 1.0
    return weight


def _enter(labels, mask: _Mask | None, side) -> Finding | None:
    """Enters a mask into the labels; voxels of the other femur stay. What was wrong, if it was not entered."""
    from FemurSegLib.segmentation.cleanup import largest

    name = DISPLAY_NAMES[side].lower()
    if mask is None or not mask.voxels.any():  # it may be too small for the voxels of the CT
        return Finding("femur_missing", f"The {name} could not be segmented.", side)
    target = labels[tuple(slice(a, b) for a, b in mask.place)]
    taken = (target > 0) & mask.voxels
    if taken.sum() > 0.5 * mask.voxels.sum():
        return Finding("side_doubtful", f"The {name} was found where the other femur is; check the sides.", side)
    target[largest(mask.voxels & ~taken) if taken.any() else mask.voxels] = LABELS[side]
    return None


def _faces_touched(labels: np.ndarray, label: int) -> tuple[str, ...]:
    """Faces of the scan that cut a femur."""
    return tuple(
        face
        for axis, faces in zip((2, 1, 0), FACES.values(), strict=True)
        for end, face in zip((0, -1), faces, strict=True)
        if (labels.take(end, axis) == label).any()
    )


def _about_confidence(side: str, confidence: float, reasons: list[str]) -> list[Finding]:
    from FemurSegLib.segmentation.confidence import LOW_CONFIDENCE

    if confidence >= LOW_CONFIDENCE:
        return []
    words = (
        f"The {DISPLAY_NAMES[side].lower()} is more likely wrong in places than not (confidence {confidence:.0%}"
    )
    words += f": {', and '.join(reasons)}); check it slice by slice."
    return [Finding("low_confidence", words, side)]


def _about_mask(side: str, mask: _Mask, cut) -> list[Finding]:
    name, found = DISPLAY_NAMES[side].lower(), []
    if cut:
        found.append(Finding("femur_cut", f"The {name} is cut by the edge of the scan ({', '.join(cut)}).", side))
    if mask.metal_mm:
        low, high = mask.metal_mm
        words = f"There is metal in or beside the {name} from S {low:.0f} to {high:.0f} mm: "
        words += "its streaks may hide the edge of the bone; check these slices."
        found.append(Finding("metal", words, side))
    if not mask.complete:
        words = f"The {name} ran into the edge of every box it was looked for in, and was cut off; draw its box."
        found.append(Finding("femur_incomplete", words, side))
    if mask.body.parted:
        words = f"The {name} was joined to the other femur, and cut off where their boxes meet; look at it there."
        found.append(Finding("femora_joined", words, side))
    if mask.body.severed:
        words = (
            f"Another bone hung on the mask of the {name} by a narrow bridge, and was cut off; look at the joints."
        )
        found.append(Finding("other_bone", words, side))
    if mask.body.second > SECOND_PART:
        words = f"The {name} came out in pieces and only the largest was kept; look for a fracture or metal."
        found.append(Finding("femur_in_pieces", words, side))
    return found


def _no_femur(localization: Localization, sides) -> NoFemurError:
    seen = [DISPLAY_NAMES[side].lower() for side in localization.regions if side not in sides]
    if seen:
        return NoFemurError(
            f"Only the {' and the '.join(seen)} was found in this CT.",
            "Choose both sides, or the other side.",
        )
    return NoFemurError("No femur was found in this CT.", "Check that the scan shows a thigh, a hip or a knee.")


class _Bar:
    """Progress of the segmentation over all femora; never goes back."""

    def __init__(self, listener: events.Listener, sides):
        self._listener, self._sides, self._told = listener, list(sides), 0.0

    def of(self, side: str):
        """Takes the part (0..1) that is done of one femur."""

        def tell(part: float) -> None:
            self._told = max(self._told, (self._sides.index(side) + part) / len(self._sides))
            words = f"Segmenting the {DISPLAY_NAMES[side].lower()}"
            self._listener(events.progress("segment", self._told, words))

        return tell


class _Clock:
    """Seconds by stage; entering a stage for the first time tells the listener."""

    def __init__(self, listener: events.Listener):
        self.seconds: dict[str, float] = {}
        self._listener = listener

    @contextmanager
    def __call__(self, stage: str):
        first = stage in events.STAGES and stage not in self.seconds
        if first and stage not in ("segment", "clean"):  # these take turns, and the bar tells of them
            self._listener(events.progress(stage))
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - begun, 3)
