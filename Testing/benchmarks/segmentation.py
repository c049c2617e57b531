"""How long a CT takes from the command to the finished folder, by stage, and the naive way beside it.

    python Testing/benchmarks/segmentation.py                      # 512 x 512 x 400, quick
    python Testing/benchmarks/segmentation.py 1400                 # a long leg
    python Testing/benchmarks/segmentation.py 1400 --no-naive

The CT is the sample CT of the repository, resampled; its femora lie in the middle of it. The naive way: the whole
volume as floating point, exponentials in the radiographs, single precision, windows of 96 mm that overlap by half,
two channels of probability on the grid of the CT. Its network runs in a few windows and the time is multiplied.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
SAMPLE = ROOT / "Resources" / "SampleData" / "sample_ct.nii.gz"


def large_ct(slices: int, matrix: int, path: Path) -> None:
    """Writes the sample CT with `matrix` x `matrix` x `slices` voxels, square pixels, air beside it."""
    import SimpleITK as sitk

    image = sitk.ReadImage(str(SAMPLE))
    size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    pixel_mm = float((size * spacing)[:2].max() / matrix)
    target = np.array([pixel_mm, pixel_mm, float(size[2] * spacing[2] / slices)])
    origin = np.array(image.GetOrigin()) - spacing / 2 + target / 2
    origin[:2] -= (matrix * pixel_mm - (size * spacing)[:2]) / 2
    large = sitk.Resample(
        image,
        [matrix, matrix, slices],
        sitk.Transform(),
        sitk.sitkLinear,
        origin.tolist(),
        target.tolist(),
        image.GetDirection(),
        -1000.0,
        sitk.sitkInt16,
    )
    rng = np.random.default_rng(0)
    voxels = sitk.GetArrayViewFromImage(large)
    noisy = np.empty_like(voxels)
    for k in range(slices):  # noise makes the file as large as a scan's
        noisy[k] = voxels[k] + rng.integers(-12, 13, voxels.shape[1:], dtype=np.int16)
    out = sitk.GetImageFromArray(noisy)
    out.CopyInformation(large)
    sitk.WriteImage(out, str(path), True, 1)


def whole_run(ct: Path, out: Path) -> dict:
    """Seconds by stage, wall seconds and peak memory of the command."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "FemurSegLib", "segment", str(ct), "--out", str(out), "--device", "cpu"]
    subprocess.run([*command, "--progress", "none"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - begun
    result = json.loads((out / "result.json").read_text())
    return {"stages": result["seconds"], "wall": wall, "peak_gb": result["peak_memory_gb"]}


def naive(ct: Path, regions: dict) -> dict:
    """Seconds by stage of doing the same with no thought for time or memory."""
    import torch
    from scipy import ndimage

    from FemurSegLib.segmentation.network import build_network, normalize

    seconds, begun = {}, time.perf_counter()

    def lap(stage):
        nonlocal begun
        seconds[stage] = time.perf_counter() - begun
        begun = time.perf_counter()

    with gzip.open(ct) as file:
        header, body = file.read(352), file.read()
    shape = np.frombuffer(header, "<i2", 3, 42)[::-1]
    spacing = np.frombuffer(header, "<f4", 3, 80)[::-1]
    volume = np.frombuffer(body, "<i2").reshape(shape).astype(np.float32)
    lap("read")
    for axis in (1, 0):
        np.exp(-np.clip(0.02 * (1 + volume / 1000), 0, None).sum(axis) * spacing[axis])
    lap("radiographs")
    network = build_network().eval()
    patch, windows = 96, 0
    for region in regions.values():
        size_mm = np.array(region["size_mm"][::-1]) + 24
        windows += int(np.prod(np.maximum(np.ceil((size_mm - patch) / (patch / 2)), 0) + 1))
    with torch.inference_mode():
        begun_one = time.perf_counter()
        for _ in range(2):
            network(normalize(torch.zeros(1, 1, patch, patch, patch)))
        one = (time.perf_counter() - begun_one) / 2
    seconds["segment"] = one * windows
    begun = time.perf_counter()
    for region in regions.values():
        low = np.maximum(np.floor(region["lower_ijk"]).astype(int), 0)[::-1]
        high = np.ceil(region["upper_ijk"]).astype(int)[::-1]
        crop = volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        small = ndimage.zoom(crop, spacing, order=1)
        back = [ndimage.zoom(p, np.array(crop.shape) / small.shape, order=1) for p in (small, -small)]
        np.argmax(np.stack(back), 0)
    lap("resample")
    return {
        "stages": seconds,
        "wall": sum(seconds.values()),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slices", nargs="?", type=int, default=400)
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument("--no-naive", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ct, out = Path(folder) / "ct.nii.gz", Path(folder) / "out"
        large_ct(args.slices, args.matrix, ct)
        print(f"{args.matrix} x {args.matrix} x {args.slices} int16, {ct.stat().st_size / 1e6:.0f} MB compressed")
        ours = whole_run(ct, out)
        _table("femurseg segment", ours)
        if not args.no_naive:
            femurs = json.loads((out / "result.json").read_text())["femurs"]
            regions = {side: femur["region"] for side, femur in femurs.items() if femur["region"]}
            _table("the naive way", naive(ct, regions))


def _table(title: str, run: dict) -> None:
    print(f"\n{title}")
    for stage, seconds in run["stages"].items():
        if stage != "total":
            print(f"  {stage:<12}{seconds:8.2f} s")
    print(f"  {'whole run':<12}{run['wall']:8.2f} s   peak {run['peak_gb']:.2f} GB")


if __name__ == "__main__":
    main()
