"""The report of a result: one file, everything in it, and nothing from elsewhere."""

from __future__ import annotations

import argparse
import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from anatomy.toy_femur import toy_femur
from examples import segmented, two_femora
from PIL import Image

from FemurSegLib.anatomy.record import read_femurs
from FemurSegLib.errors import InputError, OutputError
from FemurSegLib.findings import Finding
from FemurSegLib.grid import Grid
from FemurSegLib.report.command import add_parser
from FemurSegLib.report.model import thinned
from FemurSegLib.report.slices import Plane, contour, sample
from FemurSegLib.result import DOCUMENT, check_folder, read_result, volume_sha256, write_result
from FemurSegLib.sides import LEFT, RIGHT
from FemurSegLib.volume import Volume, write_volume

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def report(*words) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["report", *map(str, words)])
    return args.run(args)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of a result, its CT): a right toy femur and its mirror image, cut above the knee, as the left one."""
    folder = tmp_path_factory.mktemp("report")
    labels, grid, _ = toy_femur(spacing_mm=(2.0, 2.0, 2.0))
    left = 2 * labels[:, :, ::-1]
    left[: left.shape[0] // 2] = 0
    both = np.concatenate([labels, left], axis=2)
    ct = Volume(
        np.where(both > 0, 500, -50).astype(np.int16), Grid(both.shape, grid.spacing_mm, grid.origin_mm, np.eye(3))
    )
    write_volume(folder / "leg.nii.gz", ct)
    result = segmented(ct, both)
    read = read_femurs(both, ct.grid, ct.voxels, compartments="threshold")
    result.anatomy, result.painted, result.ct_sha256 = read.femurs, read.painted, volume_sha256(ct.voxels)
    result.findings = [Finding("example", "The <left> femur is cut & short.", LEFT)]
    return write_result(folder / "result", result, source=folder / "leg.nii.gz"), folder / "leg.nii.gz"


@pytest.fixture(scope="module")
def text(made) -> str:
    assert report(made[0]) == 0
    return (made[0] / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_page_names_nothing_outside_itself(text):
    for tag, attributes in Tags(text).found:
        for key in ("src", "href"):
            if key in attributes:
                assert attributes[key].startswith("data:image/png;base64,"), (tag, attributes[key][:80])
    assert not re.search(r"@import|https?://|url\(", text)


def test_warnings_come_first_and_are_escaped(text):
    assert text.index("The &lt;left&gt; femur is cut &amp; short.") < text.index("<svg")
    assert "<left>" not in text and "Not a medical device" in text


def test_every_number_of_the_result_is_on_the_page_and_what_is_missing_has_its_reason(made, text):
    document = read_result(made[0]).document
    right, left = (document["femurs"][side]["anatomy"] for side in (RIGHT, LEFT))
    rows = {row.split("<")[0]: row for row in re.findall(r"<tr><td>(.*?)</tr>", text)}
    assert f"{right['measurements']['neck_shaft_angle_deg']['value']:.1f}°" in rows["Neck-shaft angle "]
    difference = right["measurements"]["offset_mm"]["value"] - left["measurements"]["offset_mm"]["value"]
    assert f"{difference:+.1f} mm".replace("-", "−") in rows["Femoral offset "]
    length = rows["Greatest length "]
    assert f"{right['measurements']['length_mm']['value']:.1f} mm" in length and "<sup>" in length
    assert left["measurements"]["length_mm"]["reason"] in text
    assert f"{right['regions']['head']['volume_ml']:.1f} ml" in rows["Head"]
    assert f"{left['compartments']['compartments']['cortical']['volume_ml']:.1f} ml" in rows["Cortical bone"]
    for fact in (document["input"]["sha256"], document["models"][0]["sha256"], document["femurseg_version"]):
        assert fact in text
    assert "Set of weights" in rows


def test_the_thickness_of_the_cortex_is_told_and_painted_with_a_scale(made, text):
    right, left = (read_result(made[0]).document["femurs"][side]["anatomy"] for side in (RIGHT, LEFT))
    part = text[text.index("<h3>Thickness of the cortex") : text.index("<h2>Measurements")]
    for record in (right, left):
        assert f"mean {record['compartments']['thickness']['mean_mm']:.1f} mm" in part
    row = next(row for row in re.findall(r"<tr>(.*?)</tr>", text) if row.startswith("<td>Neck<"))
    assert f"{right['regions']['neck']['cortical_thickness_mm']:.1f} mm" in row and "8 mm" in part
    pictures = [
        np.array(Image.open(BytesIO(base64.b64decode(data)))) for data in re.findall(r"base64,(.*?)\"", part)
    ]
    *bones, scale = pictures
    assert len(bones) == 2 and scale.shape == (1, 256, 3)
    yellow = (scale[0, -1].astype(int) - scale[0, 0]) > 0  # more red and green, less blue than the thin end
    assert yellow.tolist() == [True, True, False]
    for picture in bones:
        assert 0.05 < (picture < 250).any(axis=-1).mean() < 0.9 and picture.std(axis=-1).max() > 40


def test_a_painted_surface_that_is_damaged_is_told(made, tmp_path):
    copy = tmp_path / "result"
    shutil.copytree(made[0], copy, ignore=shutil.ignore_patterns("report.html"))
    (copy / "left_femur_thickness.vtp").write_text("no surface")
    with pytest.raises(InputError, match="left_femur_thickness.vtp"):
        report(copy)
    assert not (copy / "report.html").exists()


def test_the_spread_is_shown_where_there_is_one(made, text, tmp_path):
    assert "±" not in text
    copy = tmp_path / "result"
    shutil.copytree(made[0], copy, ignore=shutil.ignore_patterns("report.html"))
    document = json.loads((copy / DOCUMENT).read_text())
    right = document["femurs"][RIGHT]["anatomy"]
    right["perturbations"] = 4
    angle = right["measurements"]["neck_shaft_angle_deg"]
    angle["sd"] = 0.36
    (copy / DOCUMENT).write_text(json.dumps(document))
    assert report(copy) == 0
    page = (copy / "report.html").read_text()
    assert f"{angle['value']:.1f} <span class=spread>± 0.4°</span>" in page
    assert "over 4 turned, mirrored or roughened copies" in page


def test_slices_show_both_hips_and_the_knee_that_is_there(text):
    slices = text[text.index("Slices through hip and knee") : text.index("Regions and compartments")]
    assert slices.count("<svg") == 6 and slices.count('class="missing"') == 2
    assert slices.count('fill="none" stroke="#e69e59"') >= 4  # the contour of the right femur in its colour
    assert "Left knee" in slices and slices.count("stroke-dasharray") == 4  # the sphere of the head


def test_the_model_holds_the_bones_where_they_are(made, text):
    scene = json.loads(re.search(r'<script type="application/json" id="scene">(.*?)</script>', text, re.S)[1])
    points = np.frombuffer(base64.b64decode(scene["bones"][0]["points"]), "<u2").reshape(-1, 3)
    points = np.array(scene["lower_mm"]) + points / 65535 * scene["size_mm"]
    whole, _ = thinned(made[0] / "right_femur.stl", 10**9)
    np.testing.assert_allclose(points.min(axis=0), whole.min(axis=0), atol=1.0)
    np.testing.assert_allclose(points.max(axis=0), whole.max(axis=0), atol=1.0)
    triangles = np.frombuffer(base64.b64decode(scene["bones"][0]["triangles"]), "<u2").reshape(-1, 3)
    assert 1000 < len(triangles) <= 14_100 and triangles.max() < len(points)
    assert len(scene["lines"]) > 6


def test_without_the_ct_the_page_says_so_and_a_wrong_ct_is_refused(made, tmp_path):
    folder, ct = made
    copy = tmp_path / "result"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("report.html"))
    document = json.loads((copy / DOCUMENT).read_text())
    document["input"]["path"] = str(tmp_path / "gone.nii.gz")
    (copy / DOCUMENT).write_text(json.dumps(document))
    assert report(copy, "--out", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert "the CT is no longer where it was" in page and "Right hip, axial" not in page
    from FemurSegLib.volume import read_ct

    volume = read_ct(ct)
    write_volume(tmp_path / "other.nii.gz", Volume((volume.voxels + 1).astype(np.int16), volume.grid))
    with pytest.raises(InputError, match="is not the CT"):
        report(copy, "--ct", tmp_path / "other.nii.gz")
    write_volume(tmp_path / "small.nii.gz", volume.crop((0, 0, 0), (40, 40, 40)))
    with pytest.raises(InputError, match="grid of the result"):
        report(copy, "--ct", tmp_path / "small.nii.gz")
    assert not (copy / "report.html").exists()


def test_a_result_without_anatomy_and_with_one_femur_still_gives_a_page(tmp_path):
    folder = write_result(tmp_path / "one", segmented(*two_femora(present=(LEFT,))))
    assert report(folder) == 0
    page = (folder / "report.html").read_text()
    assert "Only the left femur was found" in page and "no measurements are in the result" in page
    assert check_folder(folder) == folder  # a report in it does not keep a new run from taking its place


def test_a_folder_that_is_none_or_not_whole_is_told_and_nothing_is_left(made, tmp_path):
    with pytest.raises(InputError):
        report(tmp_path)
    copy = tmp_path / "result"
    shutil.copytree(made[0], copy, ignore=shutil.ignore_patterns("report.html"))
    with pytest.raises(OutputError):
        report(copy, "--out", tmp_path / "no" / "such" / "page.html")
    (copy / "coronal.png").unlink()
    with pytest.raises(InputError, match="coronal.png"):
        report(copy)
    assert not (copy / "report.html").exists()


def test_a_contour_runs_where_the_mask_ends():
    plane = Plane(np.array([0.0, 0.0, 0.0]), "coronal", 60.0)
    grid = Grid((41, 41, 41), (1.5, 1.5, 1.5), (-30, -30, -30), np.eye(3))
    k, j, i = np.indices(grid.shape)
    ball = (np.linalg.norm(grid.lps(np.stack([i, j, k], -1)) - [5, 0, 8], axis=-1) < 15).astype(np.uint8) * 2
    path = contour(sample(ball, grid, plane.points(0.5), of=2), 0.5)
    assert path.count("M") == 1
    numbers = np.array([float(n) for n in re.findall(r"-?\d+\.\d+", path)]).reshape(-1, 2)
    off = np.linalg.norm(numbers - plane.place([5, 0, 8]), axis=1) - 15
    assert abs(off).max() < 1.3 and abs(off.mean()) < 0.4
    assert plane.place([5, 0, 8]) == pytest.approx([35, 22])  # left of the patient is right, up is up


def test_outside_the_volume_a_slice_is_air():
    grid = Grid((10, 10, 10), (1, 1, 1), (0, 0, 0), np.eye(3))
    values = sample(np.full(grid.shape, 7, np.int16), grid, Plane(np.zeros(3), "axial", 8.0).points(1.0), -1024)
    assert values[0, 0] == -1024 and values[-1, -1] == 7


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_in_a_browser_it_prints_on_two_pages_and_the_model_comes_alive(made, text, tmp_path):
    page = made[0] / "report.html"
    common = [CHROMIUM, "--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
              f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000"]  # fmt: skip
    pdf = tmp_path / "page.pdf"
    subprocess.run([*common, f"--print-to-pdf={pdf}", page.as_uri()], check=True, capture_output=True, timeout=240)
    assert len(re.findall(rb"/Type\s*/Page[^s]", pdf.read_bytes())) == 2
    run = subprocess.run([*common, "--dump-dom", page.as_uri()], check=True, capture_output=True, timeout=240)
    assert b'class="viewer live"' in run.stdout
