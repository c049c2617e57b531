"""Cortical bone, and trabecular bone with marrow, inside the mask of a femur.

    found = find_compartments(ct.voxels, labels.voxels, ct.grid)
    found.labels                                   # uint8, COMPARTMENT_LABELS
    found.femurs["left_femur"].as_dict()           # volumes, mean HU, densities

The periosteal surface is that of the mask. The endosteal surface is where the probability of lying inside it,
found by a second network (after Deng et al. 2022; see segmentation/compartment_network.py), passes one half: the
network learned the share of a voxel that lies inside. Deng takes Otsu's threshold (Otsu, IEEE Trans Syst Man
Cybern 9:62-66, 1979) on the probability, `at="otsu"`; it makes the cortex too thick, see the card of the weights.
`method="threshold"` is the classical way to compare with: Otsu's threshold on the HU inside the mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from FemurSegLib.errors import InputError, MemoryExhaustedError, NoFemurError
from FemurSegLib.findings import Finding
from FemurSegLib.grid import Grid
from FemurSegLib.sides import DISPLAY_NAMES, LABELS, LEFT, RIGHT, SIDES
from FemurSegLib.surface import bounds
from FemurSegLib.volume import Volume, restore

from .density import Calibration

CORTICAL, INSIDE = "cortical", "inside"
COMPARTMENT_LABELS = {(RIGHT, CORTICAL): 11, (RIGHT, INSIDE): 12, (LEFT, CORTICAL): 21, (LEFT, INSIDE): 22}
"""Values of the labelmap. `inside`: trabecular bone and marrow, all that the endosteal surface encloses."""
METHODS = ("network", "threshold")
LEVELS = ("half", "otsu")

MARGIN_MM = 12.0
"""Around the mask, what the network sees of the surroundings."""
WINDOW = 96
"""Voxels along the edges of the sliding window."""
SMALLEST_MM3, SMALLEST_SHARE = 20.0, 0.005
"""Pieces of the inside smaller than this, or than this part of the largest, are noise, or pores such as those under
the linea aspera: they are left to the cortex."""
CLOSED_MM = 2.0
"""Gaps in the thresholded cortex up to about twice this are closed."""
COARSE_MM = 2.5
"""Slices farther apart than this show a thin cortex only as partial volume."""
METAL_HU, METAL_SHARE = 2500, 0.002


@dataclass(frozen=True)
class Contents:
    """What a compartment holds. mean_hu: None where it is empty; density_mg_cm3: also without a calibration."""

    volume_ml: float
    mean_hu: float | None
    density_mg_cm3: float | None

    def as_dict(self) -> dict:
        return {
            "volume_ml": round(self.volume_ml, 3),
            "mean_hu": None if self.mean_hu is None else round(self.mean_hu, 1),
            "density_mg_cm3": None if self.density_mg_cm3 is None else round(self.density_mg_cm3, 1),
        }


@dataclass(frozen=True, eq=False)
class FemurCompartments:
    """One femur. contents: by `cortical`, `inside` and `whole`.

    probability: float32 (k, j, i) on `grid` (about 1 mm for the network), that a place lies inside the endosteal
    surface, 0 outside the mask; the surface is where it is `level`. scan: the grid of the CT, to know where the
    bone is cut off by its edge.
    """

    side: str
    method: str
    contents: dict[str, Contents]
    probability: np.ndarray = field(repr=False)
    grid: Grid = field(repr=False)
    level: float
    scan: Grid = field(repr=False)
    calibration: Calibration | None = None

    def as_dict(self) -> dict:
        """JSON-ready."""
        return {
            "method": self.method,
            "compartments": {name: each.as_dict() for name, each in self.contents.items()},
            "calibration": None if self.calibration is None else self.calibration.as_dict(),
        }


@dataclass(frozen=True, eq=False)
class Compartments:
    """labels: uint8 (k, j, i) on the grid of the CT, `COMPARTMENT_LABELS`, together exactly the mask; femurs: by
    side, those in the mask; findings: what the user should know."""

    labels: np.ndarray = field(repr=False)
    femurs: dict[str, FemurCompartments]
    findings: list[Finding]


def find_compartments(
    ct: np.ndarray,
    labels: np.ndarray,
    grid: Grid,
    calibration: Calibration | None = None,
    device: str = "auto",
    method: str = "network",
    on_progress: Callable[[float], None] | None = None,
    network=None,
    data_set: str | None = None,
    at: str = "half",
) -> Compartments:
    """Compartments of every femur in a labelmap.

    ct: int16 HU, labels: uint8 (`LABELS`), both (k, j, i) on `grid`, any spacing and axes. calibration: HU to
    mg/cm3, for the densities. method: one of `METHODS`. on_progress: told the part (0..1) that is done.
    network: a CompartmentNetwork, in place of the weights that are shipped; data_set: of those, see
    `models.chosen_set`. at: one of `LEVELS`, where on the network's probability the endosteal surface lies.
    Raises InputError for other sizes, NoFemurError for an empty mask, ModelError where there are no weights,
    MemoryExhaustedError.
    """
    if ct.shape != labels.shape or ct.shape != grid.shape:
        raise InputError("The CT and the mask have different sizes.", "Give the CT that the mask was made from.")
    if method not in METHODS:
        raise InputError(f"There is no method '{method}'.", f"Choose one of: {', '.join(METHODS)}.")
    if at not in LEVELS:
        raise InputError(f"There is no level '{at}'.", f"Choose one of: {', '.join(LEVELS)}.")
    hu, mask = Volume(ct, grid).oriented(), Volume(labels, grid).oriented()
    boxes = {side: box for side in SIDES if (box := bounds(mask.voxels, LABELS[side]))}
    if not boxes:
        raise NoFemurError("The mask holds no femur.", "Labels are 1 for the right femur and 2 for the left one.")
    tell = on_progress or (lambda part: None)
    find = _by_threshold if method == "threshold" else _ByNetwork(device, network, data_set, at)
    out = np.zeros(mask.voxels.shape, np.uint8)
    femurs, findings = {}, []
    for number, (side, box) in enumerate(boxes.items()):
        crop_box = _grown(box, mask.grid)
        lower, upper = [s.start for s in crop_box], [s.stop for s in crop_box]
        crop, femur = hu.crop(lower, upper), mask.voxels[crop_box] == LABELS[side]
        probability, own, level = find(crop, femur, lambda part, n=number: tell((n + part) / len(boxes)))
        probability = _without_pores(probability, level, own)
        inside = _cleaned(_resampled(probability, femur.shape) > level, femur, float(np.prod(grid.spacing_mm)))
        target = out[crop_box]
        target[femur] = COMPARTMENT_LABELS[side, CORTICAL]
        target[inside] = COMPARTMENT_LABELS[side, INSIDE]
        contents = {
            name: _contents(crop.voxels, where, grid, calibration)
            for name, where in ((CORTICAL, femur & ~inside), (INSIDE, inside), ("whole", femur))
        }
        femurs[side] = FemurCompartments(side, method, contents, probability, own, level, hu.grid, calibration)
        findings += _findings(side, crop.voxels[femur], grid)
    tell(1.0)
    return Compartments(restore(out, grid), femurs, findings)


class _ByNetwork:
    """CT and mask of one femur to the probability of lying inside its endosteal surface."""

    def __init__(self, device: str, network=None, data_set: str | None = None, at: str = "half"):
        import torch

        from FemurSegLib.segmentation.inference import cpu_has_bfloat16, pick_device

        self._at = at
        self._device = pick_device(device)
        if network is None:
            network = load_network(data_set)
        self._network = network.eval().to(self._device, memory_format=torch.channels_last_3d)
        half = self._device.type == "cuda" or (self._device.type == "cpu" and cpu_has_bfloat16())
        self._precision = torch.bfloat16 if half else None

    def __call__(self, crop: Volume, femur: np.ndarray, tell) -> tuple[np.ndarray, Grid, float]:
        """Probability, float32, its grid of about 1 mm over the extent of `crop`, and the threshold."""
        import torch

        from FemurSegLib.segmentation.compartment_network import SPACING_MM, network_input

        own = _with_spacing(crop.grid, SPACING_MM)
        hu, mask = _resampled(crop.voxels, own.shape), _resampled(femur, own.shape) > 0.5
        try:
            probability = self._slide(network_input(torch.from_numpy(hu), torch.from_numpy(mask)), tell)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise MemoryExhaustedError(
                "There is not enough memory to find the compartments.", "Close other programs and try again."
            ) from error
        probability[~mask] = 0
        return probability, own, 0.5 if self._at == "half" else otsu(probability[mask])

    def _slide(self, image, tell) -> np.ndarray:
        import torch
        from monai.inferers import sliding_window_inference

        from FemurSegLib.segmentation.compartment_network import SIZE_MULTIPLE
        from FemurSegLib.segmentation.inference import OVERLAP, count_windows

        window = [min(WINDOW, -(-n // SIZE_MULTIPLE) * SIZE_MULTIPLE) for n in image.shape[1:]]
        done, expected = 0, count_windows(image.shape[1:], window)

        def predict(patch):
            nonlocal done
            done += 1
            tell(min(1.0, done / expected))
            if not patch[:, 1].any():  # no bone: nothing is asked there
                return torch.zeros_like(patch[:, :1])
            with torch.autocast(self._device.type, self._precision, enabled=self._precision is not None):
                return self._network(patch.contiguous(memory_format=torch.channels_last_3d)).float()

        with torch.inference_mode():
            logits = sliding_window_inference(
                image[None].to(self._device), window, 1, predict, OVERLAP, mode="gaussian", padding_mode="constant"
            )
            return torch.sigmoid(logits)[0, 0].cpu().numpy()


def load_network(data_set: str | None = None):
    """The CompartmentNetwork with the weights that are shipped in a set. Raises ModelError."""
    from FemurSegLib import models
    from FemurSegLib.segmentation.compartment_network import CompartmentNetwork

    network = CompartmentNetwork()
    network.load_state_dict(models.load_tensors(models.find("compartments", data_set=data_set).name))
    return network


def _by_threshold(crop: Volume, femur: np.ndarray, tell) -> tuple[np.ndarray, Grid, float]:
    """The same by Otsu's threshold on the HU inside the mask, as 0 and 1 on the grid of the CT.

    Cortex is what is denser, in pieces that hang together (26 neighbours) with the surface of the mask, with gaps
    closed; dense trabecular bone that does not reach the surface is inside.
    """
    from scipy import ndimage

    full = ndimage.generate_binary_structure(3, 3)
    dense = femur & (crop.voxels > otsu(crop.voxels[femur].astype(np.float32)))
    shell = femur & ~ndimage.binary_erosion(femur, ndimage.generate_binary_structure(3, 1))
    pieces, _ = ndimage.label(dense, full)
    cortex = np.isin(pieces, np.setdiff1d(np.unique(pieces[shell]), 0)) | shell
    spacing_kji = crop.grid.spacing_mm[::-1]
    steps = max(1, int(np.rint(CLOSED_MM / max(spacing_kji))))
    cortex = ndimage.binary_closing(cortex, full, iterations=steps) & femur | cortex
    inside = femur & ~cortex
    # Half a voxel about the surface, so that it is found where it is between voxels too.
    depth = ndimage.distance_transform_edt(inside, spacing_kji) - ndimage.distance_transform_edt(
        ~inside, spacing_kji
    )
    tell(1.0)
    return (0.5 + depth / (2 * max(spacing_kji))).clip(0, 1).astype(np.float32), crop.grid, 0.5


def otsu(values: np.ndarray) -> float:
    """Otsu's threshold of numbers of any shape and unit, by 256 bins: the middle of the thresholds that part them
    best, and the middle of the range where all numbers are (nearly) the same.

    (That of segmentation/threshold.py is for maps of a probability alone: 0.5 where nothing passes it, and the
    lowest of the best, as ITK has it.)
    """
    counts, edges = np.histogram(values, bins=256)
    middles = (edges[1:] + edges[:-1]) / 2
    below, total = np.cumsum(counts), np.cumsum(counts * middles)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = below * above * (total / below - (total[-1] - total) / above) ** 2  # variance between the classes
    apart = np.nan_to_num(apart[:-1], nan=0.0)
    return float(edges[1:-1][apart >= apart.max() * (1 - 1e-9)].mean())


def _grown(box, grid: Grid) -> tuple[slice, ...]:
    margin = np.ceil(MARGIN_MM / np.array(grid.spacing_mm[::-1])).astype(int)
    return tuple(
        slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(box, margin, grid.shape, strict=True)
    )


def _with_spacing(grid: Grid, spacing_mm) -> Grid:
    """The grid over the same extent with voxels of about `spacing_mm`, at least 8 along an axis."""
    old = np.array(grid.shape[::-1])
    size = np.maximum(np.rint(old * grid.spacing_mm / np.array(spacing_mm)).astype(int), 8)
    ratio = old / size
    origin = grid.lps(ratio / 2 - 0.5)
    return Grid(tuple(size[::-1]), ratio * grid.spacing_mm, origin, grid.direction)


def _resampled(voxels: np.ndarray, shape) -> np.ndarray:
    """float32 on `shape` over the same extent: linear, and fine voxels averaged first."""
    from scipy.ndimage import uniform_filter

    from FemurSegLib.segmentation.inference import to_shape

    values = np.ascontiguousarray(voxels, dtype=np.float32)
    box = [max(1, (int(a / b) - 1) // 2 * 2 + 1) for a, b in zip(values.shape, shape, strict=True)]
    return to_shape(uniform_filter(values, box) if max(box) > 1 else values, shape)


def _cleaned(inside: np.ndarray, femur: np.ndarray, voxel_mm3: float) -> np.ndarray:
    """The inside without islands of cortex in it, and without pieces of itself that lie apart in the cortex."""
    from scipy.ndimage import binary_fill_holes, generate_binary_structure, label

    inside = binary_fill_holes(inside & femur) & femur
    pieces, _ = label(inside, generate_binary_structure(3, 3))
    sizes = np.bincount(pieces.ravel()) * voxel_mm3
    sizes[0] = 0
    return (sizes >= max(SMALLEST_MM3, SMALLEST_SHARE * sizes.max()))[pieces] & inside


def _without_pores(probability: np.ndarray, level: float, grid: Grid) -> np.ndarray:
    """The probability, 0 in pieces that `_cleaned` leaves to the cortex and 1 in islands that it takes inside."""
    before = probability > level
    after = _cleaned(before, np.ones_like(before), float(np.prod(grid.spacing_mm)))
    return np.where(before & ~after, 0, np.where(after & ~before, 1, probability)).astype(np.float32)


def _contents(hu: np.ndarray, where: np.ndarray, grid: Grid, calibration: Calibration | None) -> Contents:
    count = int(np.count_nonzero(where))
    mean = float(hu[where].mean()) if count else None
    density = calibration.density(mean) if calibration is not None and mean is not None else None
    return Contents(count * float(np.prod(grid.spacing_mm)) / 1000, mean, density)


def _findings(side: str, hu: np.ndarray, grid: Grid) -> list[Finding]:
    name, found = DISPLAY_NAMES[side].lower(), []
    coarse = max(grid.spacing_mm)
    if coarse > COARSE_MM:
        words = (
            f"Voxels are up to {coarse:.1f} mm apart: a thin cortex of the {name} is estimated rather than seen."
        )
        found.append(Finding("compartments_coarse", words, side))
    if (hu > METAL_HU).mean() > METAL_SHARE:
        words = f"There may be metal in the {name}; its cortex and densities are not to be relied on."
        found.append(Finding("compartments_metal", words, side))
    return found
