"""Stands in for `femurseg` where a test needs an engine that stops, dies or fails at a chosen moment.

Takes the same arguments, prints the same events and writes the same result folder (contract of result.json, schema 1).
Its "femora" are what is above 200 HU, right and left of the middle. What it should do wrong is named in the
environment: FAKE_ENGINE = one of the keys of `TROUBLES`, or "slow-STAGE" to stay in a stage until it is stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).parents[2]))
from FemurSegLib.sides import LABELS, SIDES
from FemurSegLib.volume import Volume, read_ct, restore, write_volume

STAGES = {"read": "Reading the CT", "radiographs": "Making the radiographs", "detect": "Finding the femora",
          "segment": "Segmenting", "clean": "Cleaning up", "surfaces": "Making the surfaces", "write": "Writing"}
ERRORS = {"out_of_memory": (7, "Neither the GPU nor the main memory suffices."),
          "no_femur": (4, "No femur was found in this CT."),
          "output": (5, "The result could not be written: no space is left on the disk.")}


def say(event: str, **values) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["segment"])
    parser.add_argument("ct")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--progress")
    parser.add_argument("--region", type=Path)
    arguments, others = parser.parse_known_args()
    trouble = os.environ.get("FAKE_ENGINE", "")
    work = arguments.out.with_name(arguments.out.name + ".part")

    def cancel(*_):
        shutil.rmtree(work, ignore_errors=True)
        say("error", code="cancelled", message="The run was stopped.", hint="", exit_code=130)
        sys.exit(130)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if trouble == "deaf" else cancel)
    print("a line that is no event:", *others, flush=True)
    work.mkdir(parents=True)
    for number, (stage, message) in enumerate(STAGES.items()):
        say("progress", stage=stage, fraction=number / len(STAGES), message=message)
        if trouble == f"slow-{stage}" or trouble == "deaf":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            say("child", pid=child.pid)
            time.sleep(600)
        if stage == "segment" and trouble == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if stage == "segment" and trouble == "traceback":
            raise RuntimeError("something nobody thought of")
        if stage == "segment" and trouble in ERRORS:
            code, words = ERRORS[trouble]
            shutil.rmtree(work)
            say("error", code=trouble, message=words, hint="Close other programs.", exit_code=code)
            return code
    say("warning", code="short", message="The left femur is cut by the edge of the CT.", side="left_femur")
    write(arguments, work)
    work.rename(arguments.out)
    say("result", folder=str(arguments.out))
    return 0


def write(arguments, work: Path) -> None:
    given = read_ct(arguments.ct)
    ct = given.oriented()
    region = json.loads(arguments.region.read_text()) if arguments.region else {}
    middle = ct.grid.shape[2] // 2
    labels = np.zeros(ct.grid.shape, np.uint8)
    bone = ct.voxels > 200
    labels[..., :middle][bone[..., :middle]] = LABELS["right_femur"]
    labels[..., middle:][bone[..., middle:]] = LABELS["left_femur"]
    if region:
        k, j, i = np.indices(labels.shape)
        lps = ct.grid.lps(np.stack([i, j, k], -1))
        for side in SIDES:
            inside = np.zeros(labels.shape, bool)
            if side in region:
                box = region[side]
                along = np.abs((lps - box["center_lps_mm"]) @ np.array(box["axes_lps"]).T)
                inside = (along <= np.array(box["size_mm"]) / 2).all(-1)
            labels[(labels == LABELS[side]) & ~inside] = 0
    sizes = np.array(ct.grid.shape[::-1])
    spacing = np.array(ct.grid.spacing_mm)
    centre = (sizes - 1) / 2
    axes = ct.grid.direction.T
    femurs, pictures = {}, {}
    for view, (row, column, flat) in {"coronal": (2, 0, 1), "axial": (1, 0, 2)}.items():
        picture = np.ascontiguousarray((ct.voxels.max(axis=2 - flat).clip(-200, 1000) + 200) // 5).astype(np.uint8)
        start = centre.copy()
        start[column] = 0
        start[row] = sizes[2] - 1 if view == "coronal" else 0
        pictures[view] = {
            "file": f"{view}.png", "size": [int(sizes[column]), int(sizes[row])],
            "origin_lps_mm": ct.grid.lps(start).tolist(), "column_direction_lps": axes[column].tolist(),
            "row_direction_lps": (-axes[2] if view == "coronal" else axes[1]).tolist(),
            "pixel_mm": [spacing[column], spacing[row]]}
        picture = picture[::-1] if view == "coronal" else picture
        cv2.imwrite(str(work / f"{view}.png"), cv2.merge([picture] * 3))
    for side in SIDES:
        at = np.argwhere(labels == LABELS[side])[:, ::-1]
        if not len(at):
            femurs[side] = {"label": LABELS[side], "found": False, "volume_ml": None, "length_mm": None,
                            "confidence": None, "cut": [], "boxes": {"coronal": None, "axial": None}, "region": None}
            continue
        low, high = at.min(0) - 0.5, at.max(0) + 0.5
        top = sizes[2] - 0.5
        boxes = {"coronal": [low[0] + 0.5, top - high[2], high[0] + 0.5, top - low[2]],
                 "axial": [low[0] + 0.5, low[1] + 0.5, high[0] + 0.5, high[1] + 0.5]}
        femurs[side] = {
            "label": LABELS[side], "found": True, "volume_ml": len(at) * float(spacing.prod()) / 1000,
            "length_mm": float((high - low)[2] * spacing[2]), "confidence": 0.93,
            "cut": ["superior"] if side == "left_femur" else [],
            "boxes": {view: {"score": 0.9, "box_pixels": box} for view, box in boxes.items()},
            "region": {"lower_ijk": low.tolist(), "upper_ijk": high.tolist(),
                       "center_lps_mm": ct.grid.lps((low + high) / 2).tolist(),
                       "size_mm": ((high - low) * spacing).tolist(), "axes_lps": axes.tolist(),
                       "score": 0.9, "agreement": 0.95}}
    write_volume(work / "femurs.nii.gz", Volume(np.ascontiguousarray(restore(labels, given.grid)), given.grid))
    report = {
        "schema_version": 1, "femurseg_version": "0", "created": "2026-01-01T00:00:00Z",
        "input": {"path": arguments.ct, "size_ijk": sizes.tolist(), "spacing_mm": spacing.tolist(),
                  "origin_lps_mm": list(given.grid.origin_mm), "direction_lps": given.grid.direction.tolist()},
        "femurs": femurs, "radiographs": pictures,
        "warnings": [{"code": "cut", "message": "The left femur is cut by the edge of the CT.", "side": "left_femur"}],
        "seconds": {"total": 1.0}, "peak_memory_gb": 0.1, "device": "cpu", "models": [],
        "versions": {"SimpleITK": sitk.Version.VersionString()}, "files": {"labelmap": "femurs.nii.gz"}}
    (work / "result.json").write_text(json.dumps(report))


if __name__ == "__main__":
    sys.exit(main())
