"""Time of both radiographs, as a multiple of one pass over the same memory, beside other ways to project.

    python Testing/benchmarks/radiograph.py [SLICES ROWS COLUMNS] [--repeat N] [--json]

One pass is one sum of the int16 voxels by slices, the least that any projection must read. The others
make one channel of it, all tissue, unless they say three; ours makes three (all tissue, bone, maximum) and
the pictures. The times are minima over the repeats. Peak is what was allocated beside the volume; for
SimpleITK and VTK it is not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from FemurSegLib.localization.radiograph import AIR_HU, BONE_HU, MU_WATER, line_integrals, make_radiographs
from FemurSegLib.volume import Grid, Volume

SPACING_MM = (0.85, 0.85, 1.0)


def legs(shape, seed=0) -> Volume:
    """Two legs of muscle with noise, each around a tube of bone, in air."""
    slices, rows, columns = shape
    rng = np.random.default_rng(seed)
    j, i = np.mgrid[:rows, :columns] / np.array((rows, columns)).reshape(2, 1, 1)
    section = np.full((rows, columns), -1000, np.int16)
    for centre in (0.27, 0.73):
        distance = np.hypot(j - 0.5, i - centre)
        section[distance < 0.2] = 50
        section[distance < 0.035] = 1200
        section[distance < 0.02] = -50
    noise = rng.normal(0, 20, (rows, columns)).astype(np.int16)
    voxels = np.empty(shape, np.int16)
    for k in range(slices):
        np.add(section, np.roll(noise, 37 * k), out=voxels[k])
    return Volume(voxels, Grid(shape, SPACING_MM, (0, 0, 0), np.eye(3)))


def one_pass(volume):
    for section in volume.voxels:
        section.sum(axis=0, dtype=np.int32)


def copied(volume):
    volume.voxels.copy()


def naive(volume):
    """The direct way: the whole volume as float attenuation, then means along the axes, in one channel."""
    mu = np.maximum(volume.voxels.astype(np.float32) - AIR_HU, 0) * (MU_WATER / 1000)
    return mu.sum(axis=1) * SPACING_MM[1], mu.sum(axis=0) * SPACING_MM[2]


def naive_channels(volume):
    """The same with the three channels that ours has."""
    hu = volume.voxels.astype(np.float32)
    bone = np.maximum(hu - BONE_HU, 0)
    return naive(volume), bone.sum(axis=1), bone.sum(axis=0), hu.max(axis=1), hu.max(axis=0)


def ours(volume):
    return make_radiographs(volume)


def rays_only(volume):
    return [line_integrals(volume.voxels, axis, 1.0) for axis in (1, 0)]


def simpleitk(volume):
    image = sitk.GetImageFromArray(volume.voxels)  # copies; prepared once, not timed
    return lambda: [sitk.MeanProjection(image, projectionDimension=axis) for axis in (1, 2)]


def vtk_slab(volume):
    try:
        from vtkmodules.util.numpy_support import numpy_to_vtk
        from vtkmodules.vtkCommonDataModel import vtkImageData
        from vtkmodules.vtkImagingGeneral import vtkImageSlab
    except ImportError:
        return None
    image = vtkImageData()
    image.SetDimensions(*volume.voxels.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(volume.voxels.reshape(-1)))

    def project():
        for axis in (1, 2):
            slab = vtkImageSlab()
            slab.SetInputData(image)
            slab.SetOrientation(axis)
            slab.SetOperationToMean()
            slab.Update()

    return project


def best_of(repeat, work) -> float:
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def allocated_gb(work) -> float:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e9


def measure(shape, repeat) -> list[dict]:
    volume = legs(shape)
    rows = []
    for name, work in (
        ("one pass (sum)", one_pass),
        ("copy", copied),
        ("ours: pictures, 3 channels", ours),
        ("ours: rays only", rays_only),
        ("naive float copy, 1 channel", naive),
        ("naive float copy, 3 channels", naive_channels),
    ):
        seconds = best_of(repeat, lambda work=work: work(volume))
        rows.append({"way": name, "seconds": seconds, "peak_gb": allocated_gb(lambda work=work: work(volume))})
    for name, prepare in (
        ("SimpleITK mean, 1 channel", simpleitk),
        ("vtkImageSlab mean, 1 channel", vtk_slab),
    ):
        work = prepare(volume)
        if work is not None:
            rows.append({"way": name, "seconds": best_of(repeat, work), "peak_gb": None})
    floor = rows[0]["seconds"]
    return [{**row, "passes": row["seconds"] / floor} for row in rows]


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", nargs="*", type=int, default=[400, 512, 512], metavar="N")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    if len(options.shape) != 3 or min(options.shape) < 1:
        parser.error("give three sizes: SLICES ROWS COLUMNS")
    rows = measure(tuple(options.shape), options.repeat)
    if options.json:
        print(json.dumps({"shape": options.shape, "cpus": os.cpu_count(), "rows": rows}))
        return 0
    print(
        "x".join(map(str, options.shape)),
        "int16,",
        f"{2 * np.prod(options.shape) / 1e9:.2f} GB,",
        os.cpu_count(),
        "CPUs",
    )
    print(f"{'both radiographs':30} {'seconds':>8} {'passes':>7} {'peak GB':>8}")
    for row in rows:
        peak = "" if row["peak_gb"] is None else f"{row['peak_gb']:8.3f}"
        print(f"{row['way']:30} {row['seconds']:8.3f} {row['passes']:7.1f} {peak:>8}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
