"""Stands in for `femurseg` where a test needs an engine that stops, dies or fails at a chosen moment.

Takes the same arguments, prints the same events, and writes its result with the engine's own radiographs and
`write_result`. Only the femora are made up: what is above 200 HU, right and left of the middle,
and the landmarks on them.

What shall go wrong is named in the environment variable FAKE_ENGINE: "slow-STAGE" stays in a stage until it
is stopped, "deaf" does so and does not listen, "crash" and "traceback" die, and ERRORS are reported as such.
FAKE_ENGINE_CACHE: a folder for results, so that what was made once is only copied.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from FemurSegLib.progress import STAGES

ERRORS = {
    "out_of_memory": (7, "Neither the GPU nor the main memory suffices."),
    "no_femur": (4, "No femur was found in this CT."),
    "output": (5, "The result could not be written: no space is left on the disk."),
}


def say(event: str, **values) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["segment"])
    parser.add_argument("ct")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--progress")
    parser.add_argument("--region", type=Path)
    parser.add_argument("--compartments", default="none")
    arguments, others = parser.parse_known_args()
    trouble = os.environ.get("FAKE_ENGINE", "")
    work = arguments.out.with_name(arguments.out.name + ".part")
    tempfile.mkdtemp(prefix="left-behind-")  # as libraries do

    def cancel(*_):
        shutil.rmtree(work, ignore_errors=True)
        say("error", code="cancelled", message="The run was stopped.", hint="", exit_code=130)
        sys.exit(130)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if trouble == "deaf" else cancel)
    print("a line that is no event:", *others, flush=True)
    work.mkdir(parents=True)
    for stage, (fraction, message) in STAGES.items():
        say("progress", stage=stage, fraction=fraction, message=message)
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
    write_once(arguments, work)
    work.rename(arguments.out)
    say("result", folder=str(arguments.out))
    return 0


def write_once(arguments, folder: Path) -> None:
    """The result, from FAKE_ENGINE_CACHE if the same was asked for before."""
    if "FAKE_ENGINE_CACHE" not in os.environ:
        return write(arguments, folder)
    given = [Path(arguments.ct).read_bytes(), arguments.region.read_bytes() if arguments.region else b""]
    given.append(arguments.compartments.encode())
    known = Path(os.environ["FAKE_ENGINE_CACHE"]) / hashlib.sha256(b"|".join(given)).hexdigest()
    if not known.exists():
        write(arguments, known)
    shutil.copytree(known, folder, dirs_exist_ok=True)


def write(arguments, folder: Path) -> None:
    import numpy as np
    from toy_anatomy import anatomy, with_cortex

    from FemurSegLib.findings import Finding
    from FemurSegLib.localization.detection import Detection
    from FemurSegLib.localization.radiograph import VIEWS, make_radiographs
    from FemurSegLib.localization.region import Localization, Region
    from FemurSegLib.result import Segmentation, write_result
    from FemurSegLib.sides import LABELS, LEFT, RIGHT, SIDES
    from FemurSegLib.volume import read_ct, restore

    given = read_ct(arguments.ct)
    ct = given.oriented()
    labels = np.zeros(ct.grid.shape, np.uint8)
    middle = ct.grid.shape[2] // 2
    bone = ct.voxels > 200
    labels[..., :middle][bone[..., :middle]] = LABELS[RIGHT]
    labels[..., middle:][bone[..., middle:]] = LABELS[LEFT]
    if arguments.region:
        keep_inside(json.loads(arguments.region.read_text()), ct.grid, labels)
    radiographs = make_radiographs(ct)
    regions, detections = {}, {radiograph.view: [] for radiograph in radiographs}
    for side in SIDES:
        at = np.argwhere(labels == LABELS[side])[:, ::-1]
        if not len(at):
            continue
        low, high = at.min(0) - 0.5, at.max(0) + 0.5
        cut = ("superior",) if side == LEFT else ()
        regions[side] = Region(side, tuple(low), tuple(high), 0.9, 0.95, VIEWS, cut)
        for radiograph in radiographs:
            box = radiograph.voxels_to_box(dict(zip("ijk", zip(low, high, strict=True), strict=True)))
            detections[radiograph.view].append(Detection(side, 0.9, box))
    segmentation = Segmentation(
        labels=np.ascontiguousarray(restore(labels, given.grid)),
        grid=given.grid,
        radiographs=radiographs,
        localization=Localization(regions, detections, []),
        confidence=dict.fromkeys(regions, 0.93),
        findings=[Finding("femur_cut", "The left femur is cut by the edge of the CT.", LEFT)],
        seconds={"read": 0.1},
        device="cpu",
        models=[],
        anatomy={side: anatomy(side, middle_of(labels, ct.grid, side)) for side in regions},
    )
    if arguments.compartments != "none":
        for side in regions:
            segmentation.anatomy[side] = with_cortex(segmentation.anatomy[side])
            segmentation.painted[side] = painted(labels, ct.grid, LABELS[side])
    write_result(folder, segmentation, source=arguments.ct)


def painted(labels, grid, label: int):
    """The surface of a bone, its cortex 1 mm thick below and 5 mm above, with no thickness at the first point."""
    import numpy as np
    from vtkmodules.util.numpy_support import numpy_to_vtk

    from FemurSegLib.anatomy.thickness import THICKNESS_ARRAY
    from FemurSegLib.surface import points_of, surface_of

    surface = surface_of(labels, grid, label)
    height = points_of(surface)[:, 2].astype(np.float32)
    values = 1 + 4 * (height - height.min()) / np.ptp(height)
    values[0] = np.nan
    array = numpy_to_vtk(values, deep=True)
    array.SetName(THICKNESS_ARRAY)
    surface.GetPointData().AddArray(array)
    return surface


def middle_of(labels, grid, side) -> list[float]:
    import numpy as np

    from FemurSegLib.sides import LABELS

    return grid.lps(np.argwhere(labels == LABELS[side])[:, ::-1]).mean(0).tolist()


def keep_inside(regions: dict, grid, labels) -> None:
    """Clear what is outside the boxes given with --region."""
    import numpy as np

    from FemurSegLib.sides import LABELS, SIDES

    k, j, i = np.indices(labels.shape)
    lps = grid.lps(np.stack([i, j, k], -1))
    for side in SIDES:
        inside = np.zeros(labels.shape, bool)
        if side in regions:
            box = regions[side]
            along = np.abs((lps - box["center_lps_mm"]) @ np.array(box["axes_lps"]).T)
            inside = (along <= np.array(box["size_mm"]) / 2).all(-1)
        labels[(labels == LABELS[side]) & ~inside] = 0


if __name__ == "__main__":
    sys.exit(main())
