"""Figures and the page, from a perfect, a too thick, a missed and an unlabelled case; pictures are opened again."""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
import subprocess
from io import BytesIO

import numpy as np
import pytest
from examples import CENTERS_LPS, ellipsoid, segmented, two_femora
from PIL import Image

from FemurSegLib.errors import InputError, NoFemurError, OutputError
from FemurSegLib.evaluation.calibration import Judged
from FemurSegLib.evaluation.figures import draw_precision_recall, draw_reliability, draw_violins
from FemurSegLib.evaluation.report import Report
from FemurSegLib.evaluation.score import failed, score
from FemurSegLib.evaluation.surface_error import surface_error
from FemurSegLib.sides import COLORS, LABELS, LEFT, RIGHT
from FemurSegLib.surface import points_of
from FemurSegLib.volume import Volume


@pytest.fixture(scope="module")
def legs():
    """CT, true labels, and labels with a right femur that is 3 mm thicker."""
    ct, labels = two_femora()
    thick = labels.copy()
    thick[ellipsoid(ct.grid, CENTERS_LPS[RIGHT], (17.0, 19.0, 48.0)) & (labels == 0)] = LABELS[RIGHT]
    return ct, Volume(labels, ct.grid), Volume(thick, ct.grid)


@pytest.fixture(scope="module")
def scores(legs):
    ct, labels, thick = legs
    return [
        score("perfect", segmented(ct, labels.voxels), labels),
        score("thick", segmented(ct, thick.voxels), labels),
        failed("missed", NoFemurError("No femur was found."), labels),
        score("no <labels>", segmented(ct, labels.voxels), None),
    ]


def colors(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(int)


def shows(path, rgb) -> bool:
    return bool((np.abs(colors(path) - np.multiply(rgb, 255)).sum(axis=1) < 12).sum() > 20)


def test_the_distance_is_signed_and_that_of_the_surface(legs):
    _, labels, thick = legs
    mesh, distances = surface_error(thick, labels, RIGHT)
    assert len(distances) == mesh.GetNumberOfPoints() > 500
    assert np.median(distances) == pytest.approx(3, abs=0.4)
    assert np.median(surface_error(labels, thick, RIGHT)[1]) == pytest.approx(-3, abs=0.4)
    assert np.abs(surface_error(thick, labels, LEFT)[1]).max() < 0.5


def test_where_the_reference_is_undecided_nothing_is_measured(legs):
    _, labels, thick = legs
    open_ = labels.voxels.copy()
    high = labels.grid.lps(np.argwhere(np.ones_like(open_))[:, ::-1])[:, 2].reshape(open_.shape) > 330
    open_[high & (thick.voxels == LABELS[RIGHT])] = 255
    mesh, distances = surface_error(thick, Volume(open_, labels.grid), RIGHT)
    height = points_of(mesh)[:, 2]
    assert np.isnan(distances[height > 335]).all() and np.isfinite(distances[height < 320]).all()


def test_a_femur_that_one_of_both_lacks_has_no_distance(legs):
    _, labels, _ = legs
    only_left = Volume(np.where(labels.voxels == 2, 2, 0).astype(np.uint8), labels.grid)
    assert surface_error(only_left, labels, RIGHT) is None and surface_error(labels, only_left, RIGHT) is None


def test_both_sides_are_drawn_in_their_colours(scores, tmp_path):
    judged = [Judged(f"c{n}", "p", (RIGHT, LEFT)[n % 2], 0.8 + n / 50, n / 9) for n in range(9)]
    pictures = [
        draw_precision_recall(tmp_path / "curves.png", scores),
        draw_violins(tmp_path / "violins.png", scores),
        draw_reliability(tmp_path / "reliability.png", judged, "A title"),
    ]
    for path in pictures:
        assert shows(path, COLORS[RIGHT]) and shows(path, COLORS[LEFT])


def test_nothing_to_draw_is_an_empty_picture(tmp_path):
    unlabelled = [failed("x", RuntimeError("It broke."), None)]
    for path in (
        draw_precision_recall(tmp_path / "a.png", unlabelled),
        draw_reliability(tmp_path / "c.png", [], "None"),
    ):
        assert not shows(path, COLORS[RIGHT]) and path.stat().st_size > 1000


@pytest.fixture(scope="module")
def written(legs, scores, tmp_path_factory):
    ct, labels, thick = legs
    folder = tmp_path_factory.mktemp("report")
    run = folder / "run"
    run.mkdir()
    (run / "curve.jsonl").write_text("".join(json.dumps({"step": n, "loss": 1 / n}) + "\n" for n in range(1, 9)))
    report = Report(folder / "out", runs=[folder])
    for case, result in zip(scores, (labels, thick, None, labels), strict=True):
        report.add(case, ct, result, labels if case.labelled else None)
    return report.write(scores).read_text(encoding="utf-8")


def test_the_page_needs_nothing_but_itself(written):
    assert "default-src 'none'" in written
    sources = re.findall(r'(?:src|href)="([^"]*)"', written)
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http://" not in written and "https://" not in written


def test_every_picture_of_the_page_opens(written):
    pictures = [Image.open(BytesIO(base64.b64decode(text))) for text in re.findall(r"base64,([^\"]*)", written)]
    for picture in pictures:
        picture.load()
        assert min(picture.size) > 100
    # 4 cases; both bones of the two with result and reference; precision and recall, violins, training
    assert len(pictures) >= 4 + 4 + 3


def test_the_page_tells_every_case_the_worst_first(written):
    order = re.findall(r'<h3 id="case-([^"]*)">', written)
    assert order == ["missed", "thick", "perfect", "no &lt;labels&gt;"]
    assert "<labels>" not in written
    for word in ("mAP", "0.9671", "HD95", "Confidence", "SHA-256", "femurseg", "Training run", "missed 2"):
        assert word in written, word


def test_a_run_without_a_curve_and_a_folder_that_cannot_be_are_told(tmp_path):
    with pytest.raises(InputError, match="no training curve"):
        Report(tmp_path / "out", runs=[tmp_path])
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        Report(tmp_path / "file")


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_scripts_run_in_a_browser(written, tmp_path):
    """A click sorts the table, and names lead to their cases."""
    probe = """<script>
const head = [...document.querySelectorAll('th')].find(th => th.textContent === 'Dice');
head.click();
const body = head.closest('table').tBodies[0];
document.title = [...body.rows].map(r => r.cells[head.cellIndex].textContent).join(' ')
  + '|' + document.querySelectorAll("td a[href^='#case-']").length
  + '|' + [...document.images].every(i => i.naturalWidth > 100);
</script></body>"""
    (tmp_path / "page.html").write_text(written.replace("</body>", probe), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=4000"]
    page = (tmp_path / "page.html").as_uri()
    done = subprocess.run(
        [CHROMIUM, *options, f"--user-data-dir={tmp_path / 'profile'}", page],
        capture_output=True,
        text=True,
        timeout=120,
    )
    values, links, loaded = re.search(r"<title>(.*?)</title>", done.stdout)[1].split("|")
    numbers = [float(v) for v in values.split() if v != "–"]
    assert len(numbers) >= 6 and numbers == sorted(numbers) and loaded == "true"
    assert int(links) >= 6
    assert not math.isnan(sum(numbers))
