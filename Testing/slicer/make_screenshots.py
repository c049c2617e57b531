"""Make Resources/Screenshots: the panel and the views, really running, on the sample CT with the real engine.

python Testing/slicer/make_screenshots.py [CT] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import numpy as np  # noqa: E402
from harness.application import Application  # noqa: E402
from harness.views import picture_3d, picture_slice  # noqa: E402
from PIL import Image  # noqa: E402

from FemurSegLib.scene.nodes import latest_run  # noqa: E402

PANEL = (460, 860)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ct", nargs="?", type=Path, default=ROOT / "Resources/SampleData/sample_ct.nii.gz")
    parser.add_argument("--out", type=Path, default=ROOT / "Resources/Screenshots")
    arguments = parser.parse_args()
    out = arguments.out
    planning = tempfile.mkdtemp(prefix="planning-")
    with tempfile.TemporaryDirectory() as folder, Application(Path(folder) / "slicer") as application:
        application.load_volume(arguments.ct)
        panel = application.open("FemurSeg", ROOT / "FemurSeg/FemurSeg.py")
        application.window.resize(*PANEL)
        crop(application.picture(out / "1-choose.png"))
        application.click(panel.ui.segmentButton)
        application.until(lambda: panel.ui.progressBar.value >= 20 or not panel.running, 1800)
        crop(application.picture(out / "2-running.png"))
        application.until(lambda: not panel.running, 1800)
        run = latest_run()
        if run is None:
            raise SystemExit(panel.ui.messageLabel.text)
        panel.showMessage("")  # how long it took tells of this machine and what else it was doing
        crop(application.picture(out / "3-result.png"))
        everything(application, out / "result.png", run)

        application.click(panel.ui.boxesButton)
        everything(application, out / "4-boxes.png", run, slices=False)  # drawn far too large in slices here
        application.click(panel.ui.boxesButton)

        panel.ui.saveCollapsibleButton.collapsed = True
        panel.ui.anatomyCollapsibleButton.collapsed = False
        application.click(panel.ui.landmarksButton)
        run.segmentation.GetDisplayNode().SetOpacity3D(0.35)
        for roi in (*run.rois.values(), *run.boxes.values()):
            roi.GetDisplayNode().SetVisibility(False)
        everything(application, out / "5-measurements.png", run)
        application.click(panel.ui.landmarksButton)
        panel.ui.anatomyCollapsibleButton.collapsed = True

        panel.ui.saveCollapsibleButton.collapsed = False
        panel.ui.folderButton.directory = planning
        application.click(panel.ui.exportButton)
        panel.ui.advancedCollapsibleButton.collapsed = False
        crop(application.picture(out / "6-save.png"))
    shutil.rmtree(planning)


def everything(application, path, run, slices=True) -> None:
    """The panel and the 3D view, with a coronal above an axial slice through the middle of a box, side by side."""
    application.picture(path)
    panel = Image.open(path).convert("RGB")
    half, height = panel.height // 2, panel.height
    page = Image.new("RGB", (panel.width + 2 * half, height))
    page.paste(panel, (0, 0))
    center = next(iter(run.rois.values())).GetCenterWorld()
    picture_3d(application.parts, path, (half if slices else 2 * half, height), zoom=1.4 if slices else 0.95)
    page.paste(Image.open(path).convert("RGB"), (panel.width, 0))
    for row, view in enumerate(("Coronal", "Axial") if slices else ()):
        picture_slice(application.parts, path, run.volume, view, center, (half, half))
        page.paste(Image.open(path).convert("RGB"), (panel.width + half, row * half))
    page.save(path, optimize=True)


def crop(path, margin=12) -> None:
    """Cut off what is empty below the last widget."""
    picture = Image.open(path).convert("RGB")
    rows = np.asarray(picture).std(axis=(1, 2))
    last = int(np.flatnonzero(rows > 1)[-1])
    picture.crop((0, 0, picture.width, min(last + margin, picture.height))).save(path, optimize=True)


if __name__ == "__main__":
    main()
