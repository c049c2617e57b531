"""Coronal and axial radiographs, made from a CT by marching parallel rays through attenuation.

After Staub & Murphy, "A digitally reconstructed radiograph algorithm calculated from first principles",
Med. Phys. 40, 011902 (2013), the reference of the two-stage femur network (Xie 2025): CT values sampled
along each ray are converted to linear attenuation coefficients, scaled by the step and added up (so the
abstract of the same method, Staub et al., Med. Phys. 39, 3974 (2012)). What is taken over and what is not:

* The authors calibrate the conversion on materials measured with their scanners. Without measurements only
  the definition of the Hounsfield unit holds: mu = MU_WATER * (1 + HU / 1000), nothing below air. Bone
  departs from that line as the energy changes; for a picture that a network reads this is of no weight.
* Rays are parallel and run along the voxel axes, one ray a column of voxels, one step a voxel, so the sum
  *is* the line integral of the voxel model, at any spacing.
* Scatter, beam hardening, veiling glare and the detector are left out: they serve a match with
  measured projections, here a network reads the picture.

The volume stays int16 and is walked once, in the order it lies in memory, slice by slice, with sums that
are exact integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from FemurSegLib.volume import Grid, Volume

MU_WATER = 0.02059
"""Attenuation of water at 60 keV, about the effective energy at 120 kV, in 1/mm (Hubbell & Seltzer, NIST)."""

BONE_THRESHOLD = 0.3
"""Xie 2025: "setting the threshold to 0.3 effectively distinguished the bone tissue from the surrounding
soft tissue". The paper does not say of what. It is read here as 0.3 of the intensity window of its Table 3,
-100..500 HU, that is 80 HU, just above muscle."""

WINDOW_HU = (-100, 500)
BONE_HU = round(WINDOW_HU[0] + BONE_THRESHOLD * (WINDOW_HU[1] - WINDOW_HU[0]))
BONE_CAP_HU = 1500
"""Bone counts by its excess over BONE_HU, so that noise around the threshold hardly counts, and no further
than dense cortex, so that metal does not outshine it."""

AIR_HU, CEILING_HU = -1000, 3071
"""CT values are held to this range: padding (-1024, -2000, -3024) is air, metal is the top of a 12-bit CT."""

LONGEST_SIDE_PIXELS = 640
FINEST_PIXEL_MM = 1.0

VIEWS = ("coronal", "axial")
_RAY_AXIS = {"coronal": 1, "axial": 0}  # in (k, j, i)
_ROWS = 8  # values added in 16 bits before 32 are needed: 8 * 3071 < 2 ** 15


@dataclass(frozen=True)
class Integrals:
    """What the rays along one axis of a volume met; float32, over the two axes left, in the volume's order.

    `attenuation`: integral of mu over all tissue (no unit). `bone`: the same over what lies above the bone
    threshold only, by its excess. `peak_hu`: the highest value met. `depth_mm`: length of a ray.
    """

    attenuation: np.ndarray
    bone: np.ndarray
    peak_hu: np.ndarray
    depth_mm: float


@dataclass(frozen=True)
class Radiograph:
    """One projection of an oriented volume, read as a radiograph: the patient's right at the left edge.

    Coronal: head up, rays from front to back. Axial: anterior up, rays along the body.

    `image`: uint8 (rows, columns, 3), bright is dense: all tissue, bone (integral above the threshold),
    densest voxel of the ray. `pixel_mm`: (row, column), equal but for the rounding of the picture's size.
    `grid`: the whole oriented grid. `ray`: half-open range of voxel indices the rays ran through.

    Positions in the picture are continuous, (x, y) = (column, row) from the outer corner of its first
    pixel; positions in the volume are continuous oriented indices with voxel centres at integers.
    """

    view: str
    image: np.ndarray
    pixel_mm: tuple[float, float]
    grid: Grid
    ray: tuple[int, int]

    def box_to_voxels(self, box) -> dict[str, tuple[float, float]]:
        """Edges in voxels of a box (x0, y0, x1, y1): {"i", "k"} of a coronal view, {"i", "j"} of an axial.

        The whole picture gives -0.5 .. n - 0.5 on both axes.
        """
        x0, y0, x1, y1 = (float(v) for v in box)
        rows, columns = self.image.shape[:2]
        size_k, size_j, size_i = self.grid.shape
        i = tuple(x * size_i / columns - 0.5 for x in (x0, x1))
        if self.view == "coronal":
            return {"i": i, "k": tuple(size_k - 0.5 - y * size_k / rows for y in (y1, y0))}
        return {"i": i, "j": tuple(y * size_j / rows - 0.5 for y in (y0, y1))}

    def voxels_to_box(self, edges: dict[str, tuple[float, float]]) -> tuple[float, float, float, float]:
        """Box (x0, y0, x1, y1) of edges in voxels: the inverse of `box_to_voxels`; other axes are ignored.

        Voxels a to b, both included, have the edges (a - 0.5, b + 0.5).
        """
        rows, columns = self.image.shape[:2]
        size_k, size_j, size_i = self.grid.shape
        x0, x1 = ((i + 0.5) * columns / size_i for i in edges["i"])
        if self.view == "coronal":
            y1, y0 = ((size_k - 0.5 - k) * rows / size_k for k in edges["k"])
        else:
            y0, y1 = ((j + 0.5) * rows / size_j for j in edges["j"])
        return x0, y0, x1, y1

    def pixel_to_ijk(self, x: float, y: float) -> tuple[float, float, float]:
        """Continuous oriented index (i, j, k) of a position in the picture, halfway through the volume.

        The centre of the first pixel is at (0.5, 0.5).
        """
        at = {name: low for name, (low, _) in self.box_to_voxels((x, y, x, y)).items()}
        size_k, size_j, _ = self.grid.shape
        return at["i"], at.get("j", (size_j - 1) / 2), at.get("k", (size_k - 1) / 2)


def make_radiographs(volume: Volume) -> tuple[Radiograph, Radiograph]:
    """The coronal and the axial radiograph of a whole oriented volume."""
    return coronal_radiograph(volume), axial_radiograph(volume)


def coronal_radiograph(volume: Volume) -> Radiograph:
    """Radiograph from the front of an oriented volume."""
    return _radiograph(volume, "coronal", (0, volume.grid.shape[1]))


def axial_radiograph(volume: Volume, k_range: tuple[int, int] | None = None) -> Radiograph:
    """Radiograph along the body of an oriented volume.

    `k_range` limits the rays to the slices [first, last), clipped to the volume. In a full leg everything
    from feet to pelvis overlaps in this view; with the slices that the coronal view gives for the femora it
    becomes readable. The paper projects the whole volume, which is what happens without it.
    ValueError if no slice is left.
    """
    size = volume.grid.shape[0]
    first, last = (0, size) if k_range is None else k_range
    return _radiograph(volume, "axial", (max(0, int(first)), min(size, int(last))))


def line_integrals(voxels: np.ndarray, axis: int, spacing_mm: float) -> Integrals:
    """Integrals along `axis` of int16 HU `voxels`, any memory layout; `spacing_mm` is the step along it.

    Values are held to AIR_HU..CEILING_HU first. ValueError for other types, and when there is no voxel.
    """
    if voxels.dtype != np.int16 or voxels.ndim != 3 or not voxels.size:
        raise ValueError(f"Rays need a 3D int16 volume, not {voxels.dtype} {voxels.shape}.")
    order = sorted(range(3), key=lambda a: -abs(voxels.strides[a]))
    backwards = tuple(slice(None, None, -1 if voxels.strides[a] < 0 else 1) for a in order)
    ray = order.index(axis)
    sums = _sums(voxels.transpose(order)[backwards], ray)

    kept = [a for a in order if a != axis]
    steps = backwards[:ray] + backwards[ray + 1 :]
    tissue, bone, peak = (s[steps] if kept == sorted(kept) else s[steps].T for s in sums)

    count = voxels.shape[axis]
    scale = MU_WATER * spacing_mm / 1000
    return Integrals(
        attenuation=((tissue - AIR_HU * count) * scale).astype(np.float32),
        bone=((bone - BONE_HU * count) * scale).astype(np.float32),
        peak_hu=peak.astype(np.float32),
        depth_mm=count * spacing_mm,
    )


def _sums(voxels: np.ndarray, ray: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of all tissue and of bone (int32) and the maximum (int16) along axis `ray`, slice by slice."""
    shape = voxels.shape[:ray] + voxels.shape[ray + 1 :]
    tissue, bone = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    peak = np.full(shape, AIR_HU, np.int16)
    held = np.empty(voxels.shape[1:], np.int16)
    above = np.empty_like(held)
    if ray > 0:
        for at, section in enumerate(voxels):
            np.clip(section, AIR_HU, CEILING_HU, out=held)
            np.clip(held, BONE_HU, BONE_CAP_HU, out=above)
            tissue[at] = _section_sum(held, ray - 1)
            bone[at] = _section_sum(above, ray - 1)
            held.max(axis=ray - 1, out=peak[at])
        return tissue, bone, peak
    few_tissue, few_bone = np.empty_like(held), np.empty_like(held)
    for start in range(0, len(voxels), _ROWS):
        few_tissue[:], few_bone[:] = 0, 0
        for section in voxels[start : start + _ROWS]:
            np.clip(section, AIR_HU, CEILING_HU, out=held)
            np.clip(held, BONE_HU, BONE_CAP_HU, out=above)
            few_tissue += held
            few_bone += above
            np.maximum(peak, held, out=peak)
        tissue += few_tissue
        bone += few_bone
    return tissue, bone, peak


def _section_sum(section: np.ndarray, axis: int) -> np.ndarray:
    """int32 sum of a contiguous 2D section along `axis`; rows are added in 16 bits while that is exact."""
    if axis == 1:
        return section.sum(axis=1, dtype=np.int32)
    step = len(section) // _ROWS
    whole = step * _ROWS
    total = section[whole:].sum(axis=0, dtype=np.int32)
    if step:
        few = section[:step].copy()
        for at in range(step, whole, step):
            few += section[at : at + step]
        total += few.sum(axis=0, dtype=np.int32)
    return total


def _radiograph(volume: Volume, view: str, ray: tuple[int, int]) -> Radiograph:
    grid = volume.grid
    if ray[1] <= ray[0]:
        raise ValueError(f"The {view} radiograph was asked for no slice of the volume.")
    i_mm, j_mm, k_mm = grid.spacing_mm
    if view == "coronal":
        integrals = line_integrals(volume.voxels, _RAY_AXIS[view], j_mm)
        picture = _display(integrals, view)[::-1]
        row_mm = k_mm
    else:
        integrals = line_integrals(volume.voxels[ray[0] : ray[1]], _RAY_AXIS[view], k_mm)
        picture = _display(integrals, view)
        row_mm = j_mm
    height_mm, width_mm = picture.shape[0] * row_mm, picture.shape[1] * i_mm
    pixel_mm = max(FINEST_PIXEL_MM, max(height_mm, width_mm) / LONGEST_SIDE_PIXELS)
    rows, columns = (max(1, round(side / pixel_mm)) for side in (height_mm, width_mm))
    image = np.round(255 * _resize(picture, rows, columns)).astype(np.uint8)
    return Radiograph(view, image, (height_mm / rows, width_mm / columns), grid, ray)


def _display(integrals: Integrals, view: str) -> np.ndarray:
    """Float32 picture in 0..1. The scales are fixed, so the same body looks the same in every volume.

    From the front the depth of the body is what it is, so the integrals count. Along the body they grow with
    the number of slices, so there their mean over the ray counts.
    """
    tissue, bone = integrals.attenuation / MU_WATER, integrals.bone / MU_WATER  # mm of water
    if view == "coronal":
        tissue, bone = tissue / 400, bone / 10
    else:
        tissue, bone = tissue / (1.6 * integrals.depth_mm), bone / (0.08 * integrals.depth_mm)
    peak = (integrals.peak_hu - BONE_HU) / (BONE_CAP_HU - BONE_HU)
    channels = [np.minimum(tissue, 1), 1 - np.exp(-bone), np.clip(peak, 0, 1)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _resize(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Area mean along an axis that shrinks, linear along one that grows; the outer edges stay in place."""
    for size in ((picture.shape[1], rows), (columns, rows)):
        shrinks = size[0] < picture.shape[1] or size[1] < picture.shape[0]
        picture = cv2.resize(
            np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
    return picture
