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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ct", nargs="?", type=Path, default=ROOT / "Resources/SampleData/sample_ct.nii.gz")
    parser.add_argument("--out", type=Path, default=ROOT / "Resources/Screenshots")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Application(Path(folder) / "slicer") as application:
        application.load_volume(arguments.ct)
        panel = application.open("FemurSeg", ROOT / "FemurSeg/FemurSeg.py")
        application.window.resize(*PANEL)
        application.picture(arguments.out / "1-choose.png")
        application.click(panel.ui.segmentButton)
        application.until(lambda: panel.ui.progressBar.value >= 20 or not panel.running, 1800)
        application.picture(arguments.out / "2-running.png")
        application.until(lambda: not panel.running, 1800)
        run = latest_run()
        if run is None:
            raise SystemExit(panel.ui.messageLabel.text)
        application.picture(arguments.out / "3-result.png")
        panel.ui.advancedCollapsibleButton.collapsed = False
        application.picture(arguments.out / "4-advanced.png")
        center = next(iter(run.rois.values())).GetCenterWorld()
        height = PANEL[1]
        picture_3d(application.parts, f"{folder}/3d.png", (height // 2, height))
        picture_slice(application.parts, f"{folder}/coronal.png", run.volume, "Coronal", center, (height // 2,) * 2)
        picture_slice(application.parts, f"{folder}/axial.png", run.volume, "Axial", center, (height // 2,) * 2)
        page = Image.new("RGB", (PANEL[0] + height, height))
        for path, at in (
            (arguments.out / "3-result.png", (0, 0)),
            (f"{folder}/3d.png", (PANEL[0], 0)),
            (f"{folder}/coronal.png", (PANEL[0] + height // 2, 0)),
            (f"{folder}/axial.png", (PANEL[0] + height // 2, height // 2)),
        ):
            page.paste(Image.open(path).convert("RGB"), at)
        page.save(arguments.out / "result.png", optimize=True)


if __name__ == "__main__":
    main()
