"""Make Resources/Screenshots: the panel and the views, really running, on the sample CT with the real engine.

python Testing/slicer/make_screenshots.py [CT] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

from harness.application import Application  # noqa: E402
from harness.views import picture_3d, picture_slice  # noqa: E402
from PIL import Image  # noqa: E402

from FemurSegLib.scene.nodes import latest_run  # noqa: E402

PANEL = (460, 860)
HEIGHT = PANEL[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ct", nargs="?", type=Path, default=ROOT / "Resources/SampleData/sample_ct.nii.gz")
    parser.add_argument("--out", type=Path, default=ROOT / "Resources/Screenshots")
    arguments = parser.parse_args()
    out = arguments.out
    with tempfile.TemporaryDirectory() as folder, Application(Path(folder) / "slicer") as application:
        application.load_volume(arguments.ct)
        panel = application.open("FemurSeg", ROOT / "FemurSeg/FemurSeg.py")
        application.window.resize(*PANEL)
        application.picture(out / "1-choose.png")
        application.click(panel.ui.segmentButton)
        application.until(lambda: panel.ui.progressBar.value >= 20 or not panel.running, 1800)
        application.picture(out / "2-running.png")
        application.until(lambda: not panel.running, 1800)
        run = latest_run()
        if run is None:
            raise SystemExit(panel.ui.messageLabel.text)
        application.picture(out / "3-result.png")
        views(application, folder, run)
        beside(out / "result.png", out / "3-result.png", *(f"{folder}/{name}.png" for name in ("3d", "slices")))

        application.click(panel.ui.boxesButton)
        application.picture(f"{folder}/panel.png")
        views(application, folder, run)
        beside(out / "4-boxes.png", f"{folder}/panel.png", f"{folder}/3d.png", f"{folder}/slices.png")
        application.click(panel.ui.boxesButton)

        panel.ui.saveCollapsibleButton.collapsed = True
        panel.ui.anatomyCollapsibleButton.collapsed = False
        application.click(panel.ui.landmarksButton)
        run.segmentation.GetDisplayNode().SetOpacity3D(0.35)
        for roi in (*run.rois.values(), *run.boxes.values()):
            roi.GetDisplayNode().SetVisibility(False)
        application.picture(f"{folder}/panel.png")
        views(application, folder, run)
        beside(out / "5-measurements.png", f"{folder}/panel.png", f"{folder}/3d.png", f"{folder}/slices.png")
        application.click(panel.ui.landmarksButton)
        panel.ui.anatomyCollapsibleButton.collapsed = True

        panel.ui.saveCollapsibleButton.collapsed = False
        panel.ui.folderButton.directory = f"{folder}/planning"
        application.click(panel.ui.exportButton)
        panel.ui.advancedCollapsibleButton.collapsed = False
        application.picture(out / "6-save.png")


def views(application, folder, run) -> None:
    """3d.png, and slices.png: a coronal view above an axial one; through the middle of a box."""
    center = next(iter(run.rois.values())).GetCenterWorld()
    half = HEIGHT // 2
    picture_3d(application.parts, f"{folder}/3d.png", (half, HEIGHT))
    page = Image.new("RGB", (half, HEIGHT))
    for row, view in enumerate(("Coronal", "Axial")):
        picture_slice(application.parts, f"{folder}/{view}.png", run.volume, view, center, (half, half))
        page.paste(Image.open(f"{folder}/{view}.png").convert("RGB"), (0, row * half))
    page.save(f"{folder}/slices.png")


def beside(path, *pictures) -> None:
    """Pictures from left to right in one."""
    pictures = [Image.open(picture).convert("RGB") for picture in pictures]
    page = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)), "white")
    left = 0
    for picture in pictures:
        page.paste(picture, (left, 0))
        left += picture.width
    page.save(path, optimize=True)


if __name__ == "__main__":
    main()
