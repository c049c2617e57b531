"""The result folder: whole or not at all, true to the CT's grid, and as its schema says."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from examples import CENTERS_LPS, RADII_MM, segmented, two_femora
from jsonschema import ValidationError
from PIL import Image
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from FemurSegLib import pictures, result, sides, surface
from FemurSegLib.anatomy.record import read_femurs
from FemurSegLib.anatomy.thickness import THICKNESS_ARRAY
from FemurSegLib.errors import InputError, OutputError
from FemurSegLib.result import DOCUMENT, FILES, read_result, validate, write_result
from FemurSegLib.surfaces.files import read_surface
from FemurSegLib.volume import read_labelmap


@pytest.fixture(scope="module")
def example():
    return segmented(*two_femora())


@pytest.fixture(scope="module")
def written(example, tmp_path_factory):
    """The example as a folder, its surfaces painted with a thickness of 3 mm, and none at the first point."""
    painted = {side: surface.surface_of(example.labels, example.grid, sides.LABELS[side]) for side in sides.SIDES}
    for each in painted.values():
        values = np.full(each.GetNumberOfPoints(), 3.0, np.float32)
        values[0] = np.nan
        array = numpy_to_vtk(values, deep=True)
        array.SetName(THICKNESS_ARRAY)
        each.GetPointData().AddArray(array)
    folder = tmp_path_factory.mktemp("results") / "leg"
    write_result(folder, replace(example, painted=painted), source="leg.nii.gz")
    return read_result(folder)


def everything_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# What is in the folder


def test_a_result_has_exactly_the_files_it_names(written):
    assert everything_below(written.folder) == sorted([DOCUMENT, *FILES.values()])
    assert written.document["files"] == FILES


def test_result_json_is_as_the_schema_says(written):
    validate(written.document)


def test_the_schema_refuses_a_result_that_is_not_so(written):
    document = json.loads(json.dumps(written.document))
    document["femurs"]["right_femur"]["volume_ml"] = "much"
    with pytest.raises(ValidationError):
        validate(document)
    document = json.loads(json.dumps(written.document))
    del document["femurs"]["left_femur"]["anatomy"]
    with pytest.raises(ValidationError):
        validate(document)
    document = json.loads(json.dumps(written.document))
    del document["femurs"]["left_femur"]
    with pytest.raises(ValidationError):
        validate(document)


def test_the_painted_surfaces_lie_where_the_bones_do_and_hold_the_thickness(written):
    for side in sides.SIDES:
        painted = read_surface(written.file(f"{side}_thickness"))
        low, high = np.array(painted.GetBounds()).reshape(3, 2).T
        np.testing.assert_allclose((low + high) / 2, CENTERS_LPS[side], atol=1.0)
        values = vtk_to_numpy(painted.GetPointData().GetArray(THICKNESS_ARRAY))
        assert np.isnan(values[0]) and (values[1:] == 3.0).all()
        assert painted.GetFieldData().GetAbstractArray("SPACE").GetValue(0) == "LPS"


def test_both_labelmaps_lie_on_the_grid_of_the_ct_and_hold_its_labels(written, example):
    for key in ("labelmap", "segmentation"):
        image = sitk.ReadImage(str(written.file(key)))
        assert image.GetPixelID() == sitk.sitkUInt8
        np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image), example.labels)
        np.testing.assert_allclose(image.GetSpacing(), example.grid.spacing_mm, rtol=1e-6)
        np.testing.assert_allclose(image.GetOrigin(), example.grid.origin_mm, atol=1e-4)
        np.testing.assert_allclose(image.GetDirection(), example.grid.direction.ravel(), atol=1e-6)
        assert read_labelmap(written.file(key)).grid.matches(example.grid)


def test_slicer_finds_two_named_coloured_and_coded_segments(written, example):
    image = sitk.ReadImage(str(written.file("segmentation")))
    assert image.GetMetaData("Segmentation_MasterRepresentation") == "Binary labelmap"
    for number, side in enumerate(sides.SIDES):
        meta = {key: image.GetMetaData(f"Segment{number}_{key}") for key in ("ID", "Name", "LabelValue", "Layer")}
        expected = {
            "ID": side,
            "Name": sides.DISPLAY_NAMES[side],
            "LabelValue": str(sides.LABELS[side]),
            "Layer": "0",
        }
        assert meta == expected
        color = [float(channel) for channel in image.GetMetaData(f"Segment{number}_Color").split()]
        assert color == pytest.approx(sides.COLORS[side], abs=1e-6)
        terms = image.GetMetaData(f"Segment{number}_Tags").split("~")
        assert terms[1:4] == ["^".join(sides.TERMINOLOGY[key]) for key in ("category", "type", side)]
        i0, i1, j0, j1, k0, k1 = map(int, image.GetMetaData(f"Segment{number}_Extent").split())
        at = np.argwhere(example.labels == sides.LABELS[side])
        np.testing.assert_array_equal(at.min(axis=0), (k0, j0, i0))
        np.testing.assert_array_equal(at.max(axis=0), (k1, j1, i1))
    assert not image.HasMetaDataKey("Segment2_ID")


def test_measurements_are_those_of_the_bodies(written):
    for side in sides.SIDES:
        femur = written.document["femurs"][side]
        assert femur["found"] and femur["label"] == sides.LABELS[side]
        assert femur["volume_ml"] == pytest.approx(4 / 3 * np.pi * np.prod(RADII_MM) / 1000, rel=0.02)
        assert femur["length_mm"] == pytest.approx(2 * RADII_MM[2], abs=2)
        assert femur["confidence"] == 0.95


def test_the_region_in_millimetres_surrounds_the_bone(written):
    for side in sides.SIDES:
        region = written.document["femurs"][side]["region"]
        np.testing.assert_allclose(region["center_lps_mm"], CENTERS_LPS[side], atol=2.1)
        assert region["size_mm"][2] == pytest.approx(2 * RADII_MM[2], abs=4)
        axes = np.array(region["axes_lps"])
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)
        assert (np.diag(axes) > 0.9).all()


def test_a_pixel_of_each_picture_can_be_placed_in_the_patient(written):
    for view, shown in (("coronal", (0, 2)), ("axial", (0, 1))):
        radiograph = written.document["radiographs"][view]
        assert list(Image.open(written.folder / radiograph["file"]).size) == radiograph["size"]
        for side in sides.SIDES:
            x0, y0, x1, y1 = written.document["femurs"][side]["boxes"][view]["box_pixels"]
            column_mm, row_mm = radiograph["pixel_mm"]
            center = (
                np.array(radiograph["origin_lps_mm"])
                + ((x0 + x1) / 2 - 0.5) * column_mm * np.array(radiograph["column_direction_lps"])
                + ((y0 + y1) / 2 - 0.5) * row_mm * np.array(radiograph["row_direction_lps"])
            )
            region = written.document["femurs"][side]["region"]
            off = np.array(region["axes_lps"]) @ (center - region["center_lps_mm"])
            assert abs(off[list(shown)]).max() < 1.0


def test_the_box_is_drawn_in_the_colour_of_its_side(written):
    for view in ("coronal", "axial"):
        picture = np.array(Image.open(written.file(view)))
        for side in sides.SIDES:
            x0, y0, x1, y1 = written.document["femurs"][side]["boxes"][view]["box_pixels"]
            color = [round(255 * channel) for channel in sides.COLORS[side]]
            np.testing.assert_array_equal(picture[round((y0 + y1) / 2), round(x0) + 1], color)
            np.testing.assert_array_equal(picture[round(y1) - 2, round((x0 + x1) / 2)], color)


def test_the_overview_shows_the_right_femur_on_the_left_of_the_page(written):
    picture = np.array(Image.open(written.file("overview"))).astype(float)
    front = picture[:, : picture.shape[1] // 2]
    orange = (front[..., 0] - front[..., 2] > 60).any(axis=0)
    blue = (front[..., 2] - front[..., 0] > 60).any(axis=0)
    assert orange.any() and blue.any()
    assert np.flatnonzero(orange).max() < np.flatnonzero(blue).min()


def test_the_overview_has_no_holes_in_a_bone(example):
    shapes = {side: surface.surface_of(example.labels, example.grid, label) for side, label in sides.LABELS.items()}
    picture = np.array(pictures.draw_overview(shapes)).astype(int)
    bone = abs(picture - picture[0, 0]).max(axis=-1) > 40
    row = bone[bone.shape[0] // 2]
    starts = np.flatnonzero(np.diff(row.astype(int)) == 1)
    widths = np.flatnonzero(np.diff(row.astype(int)) == -1) - starts[: (np.diff(row.astype(int)) == -1).sum()]
    assert (widths > 60).sum() == 4  # two bones from the front, one in each of the other two; the rest is letters


def test_a_femur_that_is_not_there_is_said_to_be_so(tmp_path):
    folder = write_result(tmp_path / "one", segmented(*two_femora(present=(sides.LEFT,))))
    document = read_result(folder).document
    validate(document)
    right = document["femurs"]["right_femur"]
    assert not right["found"] and right["anatomy"] is None
    assert [right[key] for key in ("volume_ml", "length_mm", "confidence", "region")] == [None] * 4
    assert right["boxes"] == {"coronal": None, "axial": None}
    assert "right_femur_stl" not in document["files"] and not (folder / "right_femur.stl").exists()
    assert not any(key.endswith("thickness") for key in document["files"])  # it was not asked for
    assert document["femurs"]["left_femur"]["found"] and (folder / "left_femur.stl").exists()
    assert sitk.ReadImage(str(folder / "femurs.seg.nrrd")).GetMetaData("Segment0_ID") == "left_femur"


def test_a_box_whose_side_was_overruled_is_shown_with_the_side_that_counts(example):
    swapped = segmented(*two_femora())
    for detections in swapped.localization.detections.values():
        detections[:] = [
            type(d)(sides.LEFT if d.side == sides.RIGHT else sides.RIGHT, d.score, d.box) for d in detections
        ]
    for side in sides.SIDES:
        for view in ("coronal", "axial"):
            assert result._boxes(swapped)[side][view].box == result._boxes(example)[side][view].box


def test_reading_a_result_needs_neither_torch_nor_vtk_nor_simpleitk(written):
    code = (
        "import sys; from FemurSegLib.result import read_result; read_result(sys.argv[1]);"
        "print([m for m in ('torch', 'vtkmodules', 'SimpleITK', 'PIL', 'numpy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, written.folder], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_result_of_version_1_is_still_read_and_as_the_schema_says(written, tmp_path):
    document = json.loads(json.dumps(written.document))
    document["schema_version"] = 1
    del document["input"]["sha256"]
    for femur in document["femurs"].values():
        del femur["anatomy"]
    validate(document)
    (tmp_path / DOCUMENT).write_text(json.dumps(document))
    assert read_result(tmp_path).document == document


def test_a_result_of_version_2_has_no_thickness_and_one_of_version_3_must(tmp_path, example):
    volume, labels = two_femora()
    told = segmented(volume, labels)
    read = read_femurs(labels, volume.grid, volume.voxels, compartments="threshold")
    told.anatomy, told.painted = read.femurs, read.painted
    document = read_result(write_result(tmp_path / "out", told)).document
    validate(document)
    anatomy = document["femurs"]["right_femur"]["anatomy"]
    assert anatomy["compartments"]["thickness"]["covered"] > 0
    assert document["files"]["right_femur_thickness"] == "right_femur_thickness.vtp"
    for femur in document["femurs"].values():
        del femur["anatomy"]["compartments"]["thickness"]
    with pytest.raises(ValidationError):
        validate(document)
    document["schema_version"] = 2
    for femur in document["femurs"].values():
        del femur["anatomy"]["perturbations"]
        for region in femur["anatomy"]["regions"].values():
            del region["cortical_thickness_mm"]
    del document["files"]["right_femur_thickness"], document["files"]["left_femur_thickness"]
    validate(document)
    (tmp_path / DOCUMENT).write_text(json.dumps(document))
    assert read_result(tmp_path).document == document


def test_what_the_bone_tells_is_written_and_as_the_schema_says(tmp_path, example):
    volume, labels = two_femora()
    read = read_femurs(labels, volume.grid, volume.voxels)
    assert set(read.femurs) == set(sides.SIDES) and not read.findings
    told = segmented(volume, labels)
    told.anatomy, told.ct_sha256 = read.femurs, result.volume_sha256(volume.voxels)
    document = read_result(write_result(tmp_path / "out", told)).document
    validate(document)
    for side in sides.SIDES:
        anatomy = document["femurs"][side]["anatomy"]
        assert anatomy == json.loads(json.dumps(read.femurs[side]))
        assert anatomy["measurements"]["length_mm"]["reason"] == "no femoral head is there"
        anatomy["left_out"] = ["socket", "tibia"]
        validate(document)
        del anatomy["left_out"]  # as an earlier result of this version
    validate(document)
    document["femurs"]["right_femur"]["anatomy"]["regions"]["head"]["volume_ml"] = "much"
    with pytest.raises(ValidationError):
        validate(document)


def test_the_hash_of_a_ct_is_that_of_its_voxels_in_order():
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    told = hashlib.sha256(np.arange(24, dtype="<i2").tobytes()).hexdigest()
    assert result.volume_sha256(voxels) == told
    assert result.volume_sha256(np.asfortranarray(voxels)) == told
    assert result.volume_sha256(voxels[::-1]) != told


def test_a_folder_that_is_no_result_cannot_be_read(tmp_path):
    with pytest.raises(InputError):
        read_result(tmp_path)
    (tmp_path / DOCUMENT).write_text('{"schema_version": 99}')
    with pytest.raises(InputError):
        read_result(tmp_path)


def test_peak_memory_is_that_of_this_process_not_of_the_one_that_started_it():
    large = np.ones(300_000_000, np.uint8)
    code = "from FemurSegLib.result import peak_memory_gb; print(peak_memory_gb())"
    peak = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 0 < peak < 0.2
    assert result.peak_memory_gb() > large.nbytes / 1e9


# Whole or not at all


def test_an_earlier_result_is_replaced(tmp_path, example):
    folder = write_result(tmp_path / "out", segmented(*two_femora()), source="first.nii")
    write_result(folder, segmented(*two_femora(present=(sides.RIGHT,))), source="second.nii")
    assert read_result(folder).document["input"]["path"] == "second.nii"
    assert not (folder / "left_femur.stl").exists()
    assert os.listdir(tmp_path) == ["out"]


def test_an_empty_folder_and_missing_parents_are_used(tmp_path, example):
    (tmp_path / "empty").mkdir()
    write_result(tmp_path / "empty", example)
    write_result(tmp_path / "a" / "b" / "c", example)
    assert sorted(os.listdir(tmp_path)) == ["a", "empty"]
    assert (tmp_path / "a" / "b" / "c" / DOCUMENT).exists()


def test_a_new_folder_has_ordinary_permissions(tmp_path, example):
    folder = write_result(tmp_path / "out", example)
    (tmp_path / "plain").mkdir()
    assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode


def foreign_file(folder):
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")


def foreign_json(folder):
    folder.mkdir()
    (folder / DOCUMENT).write_text('{"schema_version": "mine"}')


def note_in_an_earlier_result(folder):
    write_result(folder, segmented(*two_femora()))
    (folder / "notes.txt").write_text("look at the neck")


def file_in_its_place(folder):
    folder.write_text("not a folder")


@pytest.mark.parametrize("prepare", [foreign_file, foreign_json, note_in_an_earlier_result, file_in_its_place])
def test_what_is_not_a_result_is_refused_and_left_alone(tmp_path, example, prepare):
    prepare(tmp_path / "out")
    before = everything_below(tmp_path)
    with pytest.raises(OutputError) as caught:
        write_result(tmp_path / "out", example)
    assert caught.value.hint
    assert everything_below(tmp_path) == before


def test_a_folder_that_a_file_manager_looked_at_is_still_a_result(tmp_path, example):
    folder = write_result(tmp_path / "out", example)
    (folder / ".DS_Store").write_bytes(b"")
    write_result(folder, example)
    assert DOCUMENT in os.listdir(folder)


STEPS = [
    (surface, "write_stl"),
    (pictures, "draw_radiograph"),
    (pictures, "draw_overview"),
    (result, "_write_labels"),
    (result, "_flush"),
    (result, "_take_place"),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[1])
@pytest.mark.parametrize("earlier", [False, True], ids=["new", "over-an-earlier-result"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()], ids=repr)
def test_nothing_changes_when_a_step_fails(tmp_path, monkeypatch, example, step, earlier, failure):
    folder = tmp_path / "deep" / "out"
    if earlier:
        write_result(folder, example, source="earlier.nii")
    before = everything_below(tmp_path)

    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setattr(*step, fail)
    with pytest.raises(OutputError if isinstance(failure, OSError) else KeyboardInterrupt):
        write_result(folder, example)
    assert everything_below(tmp_path) == before
    if earlier:
        assert read_result(folder).document["input"]["path"] == "earlier.nii"


def test_an_earlier_result_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch, example):
    folder = write_result(tmp_path / "out", example, source="earlier.nii")
    rename = os.rename

    def interrupted(old, new):
        if str(old).endswith(".partial"):
            raise KeyboardInterrupt
        rename(old, new)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_result(folder, example)
    assert read_result(folder).document["input"]["path"] == "earlier.nii"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a matter of POSIX")
@pytest.mark.parametrize("limit_kb", [8, 40, 200])
def test_a_disk_that_is_really_full_leaves_nothing(tmp_path, limit_kb):
    """The kernel refuses to let any file grow past the limit, as it does on a full disk."""
    code = """
import resource, signal, sys
sys.path.insert(0, "Testing")
from examples import segmented, two_femora
from FemurSegLib.result import write_result
from FemurSegLib.errors import OutputError
import numpy as np
volume, labels = two_femora()
segmentation = segmented(volume, labels)
noise = np.random.default_rng(0).integers(0, 2, labels.shape) * 9
segmentation.labels = np.where(labels, labels, noise).astype(np.uint8)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]) * 1024,) * 2)
try:
    write_result(sys.argv[1], segmentation)
except OutputError as error:
    print("refused:", error)
"""
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "out", str(limit_kb)],
        capture_output=True,
        text=True,
        cwd=os.getcwd(),
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("refused:")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("end, kept", [(".nii.gz", 0.5), (".seg.nrrd", 0.999)])
def test_a_labelmap_cut_short_in_silence_is_noticed(tmp_path, monkeypatch, example, end, kept):
    write = sitk.WriteImage

    def cut_short(image, name, **options):
        write(image, name, **options)
        if name.endswith(end):
            os.truncate(name, int(os.path.getsize(name) * kept))

    monkeypatch.setattr(sitk, "WriteImage", cut_short)
    with pytest.raises(OutputError, match="space"):
        write_result(tmp_path / "out", example)
    assert os.listdir(tmp_path) == []
