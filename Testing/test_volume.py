from __future__ import annotations

import gzip
import itertools
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from FemurSegLib.errors import InputError, MemoryExhaustedError, OutputError
from FemurSegLib.volume import (
    FORMATS,
    Grid,
    Volume,
    from_sitk,
    read_ct,
    read_labelmap,
    restore,
    to_sitk,
    write_volume,
)

SIGNED_PERMUTATIONS = [
    np.eye(3)[:, order] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
TURNED = Rotation.from_euler("xyz", (9, -7, 11), degrees=True).as_matrix()
SHAPE = (5, 6, 7)
MARKED = (1, 4, 5)  # k, j, i
STRAIGHT = np.eye(3)


def a_volume(direction=STRAIGHT, shape=SHAPE, spacing=(0.7, 0.9, 2.5), dtype=np.int16) -> Volume:
    """Noise around soft tissue with one marked voxel (1500, in a labelmap 2)."""
    random = np.random.default_rng(1)
    if dtype == np.uint8:
        voxels = random.integers(0, 2, shape).astype(dtype)
        voxels[MARKED] = 2
    else:
        voxels = random.integers(-1000, 1000, shape).astype(dtype)
        voxels[MARKED] = 1500
    return Volume(voxels, Grid(shape, spacing, (-120.5, 33.25, 812.75), direction))


def marked_place(volume: Volume) -> np.ndarray:
    """LPS of the brightest voxel, by SimpleITK's own arithmetic."""
    at = np.unravel_index(np.argmax(volume.voxels), volume.voxels.shape)
    return np.array(to_sitk(volume).TransformIndexToPhysicalPoint([int(n) for n in at[::-1]]))


# --- Grid and Volume ---


@pytest.mark.parametrize("direction", SIGNED_PERMUTATIONS, ids=str)
@pytest.mark.parametrize("turn", [np.eye(3), TURNED], ids=["straight", "oblique"])
def test_oriented_is_a_view_with_axes_near_left_posterior_superior(direction, turn):
    volume = a_volume(turn @ direction)
    oriented = volume.oriented()

    assert np.shares_memory(oriented.voxels, volume.voxels)
    assert (np.diag(oriented.grid.direction) > 0.95).all()
    assert np.linalg.det(oriented.grid.direction) == pytest.approx(1)
    np.testing.assert_allclose(marked_place(oriented), marked_place(volume), atol=1e-9)
    assert np.array_equal(restore(oriented.voxels, volume.grid), volume.voxels)


def test_oriented_chooses_the_best_assignment_of_all_axes_together():
    # Each axis alone would like L best; only one can have it.
    direction = Rotation.from_euler("zyx", (40, 35, 0), degrees=True).as_matrix()
    oriented = a_volume(direction[:, [2, 0, 1]]).oriented()
    best = max(np.abs(direction[range(3), list(order)]).sum() for order in itertools.permutations(range(3)))
    assert np.trace(oriented.grid.direction) == pytest.approx(best)


def test_only_labels_of_the_oriented_shape_are_restored():
    grid = a_volume(SIGNED_PERMUTATIONS[29]).grid
    assert grid.oriented().shape != grid.shape
    with pytest.raises(ValueError, match="do not fit"):
        restore(np.zeros(grid.shape, np.uint8), grid)


def test_oriented_of_oriented_changes_nothing():
    once = a_volume(TURNED @ SIGNED_PERMUTATIONS[29]).oriented()
    twice = once.oriented()
    assert twice.voxels.strides == once.voxels.strides
    assert twice.grid.matches(once.grid, 1e-9)


def test_lps_and_ijk_are_inverse_and_agree_with_the_matrix():
    grid = a_volume(TURNED @ SIGNED_PERMUTATIONS[29]).grid
    points = np.random.default_rng(0).uniform(-10, 10, (4, 5, 3))
    np.testing.assert_allclose(grid.ijk(grid.lps(points)), points, atol=1e-9)
    by_matrix = points @ grid.ijk_to_lps()[:3, :3].T + grid.ijk_to_lps()[:3, 3]
    np.testing.assert_allclose(grid.lps(points), by_matrix, atol=1e-9)


def test_a_crop_is_a_view_that_stays_in_place():
    volume = a_volume(TURNED @ SIGNED_PERMUTATIONS[29])
    part = volume.crop((1, 2, 3), (4, 6, 7))
    assert part.grid.shape == part.voxels.shape == (3, 4, 4)
    assert np.shares_memory(part.voxels, volume.voxels)
    np.testing.assert_allclose(marked_place(part), marked_place(volume), atol=1e-9)


@pytest.mark.parametrize("lower, upper", [((0, 0, -1), (2, 2, 2)), ((0, 0, 0), (5, 6, 8)), ((2, 2, 2), (2, 3, 3))])
def test_a_crop_that_is_empty_or_outside_is_refused(lower, upper):
    with pytest.raises(ValueError, match="empty or leaves"):
        a_volume().crop(lower, upper)


def test_grids_match_only_when_every_voxel_is_in_place():
    grid = a_volume(TURNED).grid
    shifted = Grid(grid.shape, grid.spacing_mm, np.add(grid.origin_mm, (0, 0, 0.01)), grid.direction)
    assert grid.matches(Grid(grid.shape, grid.spacing_mm, grid.origin_mm, grid.direction))
    assert grid.matches(shifted, 0.02) and not grid.matches(shifted)
    assert not grid.matches(a_volume(SIGNED_PERMUTATIONS[1]).grid)
    assert not grid.matches(grid.crop((0, 0, 0), (5, 6, 6)))


def test_voxels_that_do_not_fit_the_grid_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        Volume(np.zeros((7, 6, 5), np.int16), a_volume().grid)


def test_an_image_shares_its_memory_and_outlives_its_name():
    image = to_sitk(a_volume())
    voxels = from_sitk(image).voxels
    assert np.shares_memory(voxels, sitk.GetArrayViewFromImage(image))
    del image
    assert np.array_equal(voxels, a_volume().voxels)


# --- round trips ---


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    "direction",
    [
        STRAIGHT,
        TURNED,
        *SIGNED_PERMUTATIONS[1::5],
        TURNED @ SIGNED_PERMUTATIONS[1],
        TURNED @ SIGNED_PERMUTATIONS[29],
    ],
    ids=str,
)
def test_a_file_gives_back_voxels_and_places_exactly(tmp_path, ending, direction):
    volume = a_volume(direction)
    write_volume(tmp_path / f"ct{ending}", volume)
    again = read_ct(tmp_path / f"ct{ending}")

    assert again.voxels.dtype == np.int16
    assert np.array_equal(again.voxels, volume.voxels)
    tolerance = 2e-4 if ".nii" in ending else 1e-9  # NIfTI holds 32-bit floats
    assert again.grid.matches(volume.grid, tolerance)
    np.testing.assert_allclose(marked_place(again), marked_place(volume), atol=tolerance)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_labelmap_made_in_oriented_axes_lands_on_the_grid_of_its_ct(tmp_path, ending):
    ct = a_volume(TURNED @ SIGNED_PERMUTATIONS[29])
    oriented = ct.oriented()
    labels = (oriented.voxels == 1500).astype(np.uint8)
    write_volume(tmp_path / f"labels{ending}", Volume(restore(labels, ct.grid), ct.grid))
    again = read_labelmap(tmp_path / f"labels{ending}")
    assert again.voxels.dtype == np.uint8 and again.voxels.sum() == 1 and again.voxels[MARKED] == 1


@pytest.mark.parametrize(
    "name, dataset",
    [
        ("ct.nii.gz", "ct/cmb_crc_hips"),
        ("ct.nii.gz", "ct/totalsegmentator_example"),
        ("STS_029_CT.nii.gz", "ct/sts_thighs/labelled"),
    ],
)
def test_real_ct_is_read_as_simpleitk_reads_it(shared_data, name, dataset):
    path = shared_data / dataset / name
    volume, image = read_ct(path), sitk.ReadImage(str(path))
    assert volume.voxels.dtype == np.int16
    assert np.array_equal(volume.voxels, sitk.GetArrayViewFromImage(image))
    corner = [n - 1 for n in image.GetSize()]
    place = image.TransformIndexToPhysicalPoint(corner)
    np.testing.assert_allclose(volume.grid.lps(corner), place, atol=1e-9)


def test_the_labels_of_real_ct_lie_on_its_grid(shared_data):
    folder = shared_data / "ct/cmb_crc_hips"
    labels = read_labelmap(folder / "femurs.nii.gz")
    assert labels.grid.matches(read_ct(folder / "ct.nii.gz").grid)
    right, left = (np.mean(np.argwhere(labels.oriented().voxels == label)[:, 2]) for label in (1, 2))
    assert right < left  # i runs to the patient's left


# --- NIfTI as others write it ---


def nifti(path, stored, *, order="<", slope=0.0, intercept=0.0, **fields):
    """A NIfTI file written byte by byte. Its sform is left-handed and permuted: i -> A, j -> R, k -> S."""
    codes = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "u2": 512, "i8": 1024}
    sform = [(0, 2, 0, 10), (3, 0, 0, 20), (0, 0, 4, 30)]  # RAS+ of (i, j, k)
    size = stored.shape[::-1]
    values = {
        "dim": [len(size), *size] + [1] * (7 - len(size)),
        "type": [codes[stored.dtype.str[1:]]],
        "bits": [stored.dtype.itemsize * 8],
        "pixdim": [1, 3, 2, 4, 1, 0, 0, 0],
        "slope": [slope],
        "intercept": [intercept],
        "qform": [0],
        "sform": [2],
        "rows": np.ravel(sform),
    }
    values.update(fields)
    layout = {
        "dim": (40, "8h"),
        "type": (70, "h"),
        "bits": (72, "h"),
        "pixdim": (76, "8f"),
        "slope": (112, "f"),
        "intercept": (116, "f"),
        "qform": (252, "h"),
        "sform": (254, "h"),
        "rows": (280, "12f"),
    }
    header = bytearray(352)
    struct.pack_into(order + "i", header, 0, 348)
    struct.pack_into(order + "f", header, 108, 352)
    struct.pack_into("4s", header, 344, b"n+1\0")
    for name, (at, code) in layout.items():
        struct.pack_into(order + code, header, at, *values[name])
    data = bytes(header) + stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize(
    "qform, sform, taken",
    [
        (1, 1, "sform"),
        (1, 2, "qform"),
        (0, 2, "sform"),
        (2, 0, "qform"),
    ],
)
def test_of_two_disagreeing_nifti_transforms_the_one_of_slicer_is_taken(tmp_path, qform, sform, taken):
    grid = read_ct(nifti(tmp_path / "ct.nii", a_volume().voxels, qform=[qform], sform=[sform])).grid
    expected = (-10, -20, 30) if taken == "sform" else (0, 0, 0)  # the qform here is all zero
    np.testing.assert_allclose(grid.origin_mm, expected, atol=1e-6)


def test_a_size_beyond_all_memory_is_told(tmp_path):
    path = nifti(tmp_path / "ct.nii.gz", a_volume().voxels, dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])
    with pytest.raises(MemoryExhaustedError):
        read_ct(path)


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "CT.NII.GZ"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_voxels_lie_where_its_sform_says(tmp_path, name, order):
    stored = a_volume().voxels
    volume = read_ct(nifti(tmp_path / name, stored, order=order))
    assert np.array_equal(volume.voxels, stored)
    k, j, i = MARKED
    np.testing.assert_allclose(marked_place(volume), (-(10 + 2 * j), -(20 + 3 * i), 30 + 4 * k), atol=1e-5)
    assert np.linalg.det(volume.grid.direction) == pytest.approx(-1)


@pytest.mark.parametrize(
    "stored, slope, intercept",
    [
        ("u2", 1, -1024),
        ("i2", 1, -1024),
        ("f4", 0, 0),
        ("f8", 1, 0),
        ("i4", 0.5, -0.25),
        ("u2", 2, -1000),
        ("i8", 1, 0),
    ],
)
def test_nifti_numbers_of_any_type_become_rounded_hounsfield_units(tmp_path, stored, slope, intercept):
    hounsfield = a_volume().voxels
    raw = (hounsfield - intercept) / (slope or 1)
    raw = np.rint(raw).astype(stored) if stored[0] in "iu" else raw.astype(stored) + 0.3
    path = nifti(tmp_path / "ct.nii.gz", raw, slope=slope, intercept=intercept)
    voxels = read_ct(path).voxels
    assert voxels.dtype == np.int16
    assert np.abs(voxels.astype(int) - hounsfield).max() <= (1 if slope == 2 else 0)


def test_values_beyond_int16_are_clipped(tmp_path):
    stored = a_volume().voxels.astype("f4")
    stored[0, 0, :4] = 1e9, -1e9, np.inf, -np.inf
    voxels = read_ct(nifti(tmp_path / "ct.nii", stored)).voxels
    assert voxels[0, 0, :4].tolist() == [32767, -32768, 32767, -32768]


def test_a_gzip_of_several_members_is_read_to_its_end(tmp_path):
    path = nifti(tmp_path / "ct.nii", a_volume().voxels)
    data = path.read_bytes()
    path.unlink()
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(gzip.compress(data[:500]) + gzip.compress(data[500:]) + b"\0" * 64)
    assert np.array_equal(read_ct(path).voxels, a_volume().voxels)


@pytest.mark.parametrize("stored, intercept", [("i2", 0), ("i2", -1024), ("f4", 0)])
def test_reading_makes_no_second_full_size_array(tmp_path, stored, intercept):
    shape = (400, 200, 200)
    path = nifti(tmp_path / "ct.nii.gz", np.full(shape, -5, stored), slope=1, intercept=intercept)
    tracemalloc.start()
    volume = read_ct(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert volume.voxels.nbytes == 32e6
    assert peak < 1.5 * volume.voxels.nbytes


# --- what is refused ---


def truncated(path, keep=0.7):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def a_file(name, volume=None, **options):
    def build(folder):
        write_volume(folder / name, volume or a_volume(**options))
        return folder / name

    return build


def an_image(name, image):
    def build(folder):
        sitk.WriteImage(image, str(folder / name))
        return folder / name

    return build


def metaimage(header):
    def build(folder):
        text = "ObjectType = Image\nNDims = 3\nDimSize = 7 6 5\n" + header
        text += "\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        (folder / "ct.mha").write_bytes(text.encode() + a_volume().voxels.tobytes())
        return folder / "ct.mha"

    return build


def nrrd(header):
    def build(folder):
        text = "NRRD0004\ntype: short\ndimension: 3\nsizes: 7 6 5\nencoding: raw\nendian: little\n" + header
        (folder / "ct.nrrd").write_bytes(text.encode() + b"\n\n" + a_volume().voxels.tobytes())
        return folder / "ct.nrrd"

    return build


def noise_of_nifti(name="ct.nii.gz", stored=None, keep=1.0, **fields):
    def build(folder):
        voxels = a_volume().voxels if stored is None else stored
        return truncated(nifti(folder / name, voxels, **fields), keep)

    return build


def beside_another(folder):
    shutil.copy(nifti(folder / "v.nii", a_volume().voxels), folder / "other.nii")
    return nifti(folder / "v.nii.gz", a_volume().voxels)


def flipped_bit(folder):
    path = nifti(folder / "ct.nii.gz", a_volume(shape=(20, 20, 20)).voxels)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    return path


def text(folder):
    (folder / "ct.nii").write_text("hello " * 99)
    return folder / "ct.nii"


def nifti_2(folder):
    path = nifti(folder / "ct.nii", a_volume().voxels)
    path.write_bytes(struct.pack("<i", 540) + path.read_bytes()[4:])
    return path


def empty(name):
    def build(folder):
        (folder / name).write_bytes(b"")
        return folder / name

    return build


with_nan = a_volume().voxels.astype("f4")
with_nan[2, 2, 2] = np.nan
SCALAR = to_sitk(a_volume())
UPRIGHT = "space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)"
FAULTY = {
    "a file that is not there": (lambda folder: folder / "none.nii.gz", "no file"),
    "an unknown format": (empty("ct.png"), "not in a format"),
    **{f"an empty {ending}": (empty(f"ct{ending}"), "empty|could not be read") for ending in FORMATS},
    "a truncated .nii": (noise_of_nifti("ct.nii", keep=0.7), "truncated"),
    "a .nii truncated in its header": (noise_of_nifti("ct.nii", keep=0.3), "truncated|not a NIfTI"),
    "a truncated .nii.gz": (noise_of_nifti(keep=0.7), "damaged"),
    "a .nii.gz with a flipped bit": (flipped_bit, "damaged"),
    "a truncated .nrrd": (lambda folder: truncated(a_file("ct.nrrd")(folder)), "could not be read"),
    "a truncated .mha": (lambda folder: truncated(a_file("ct.mha")(folder)), "could not be read"),
    "text": (text, "not a NIfTI"),
    "a NIfTI-2 file": (nifti_2, "not a NIfTI-1"),
    "v.nii.gz beside v.nii": (beside_another, "beside v.nii"),
    "a NIfTI series in time": (noise_of_nifti(stored=np.zeros((2, *SHAPE), "i2")), "not one 3D"),
    "a NRRD series in time": (an_image("ct.nrrd", sitk.JoinSeries([SCALAR, SCALAR])), "not one 3D"),
    "a NIfTI of colours": (noise_of_nifti(type=[128]), "colours"),
    "a NRRD of vectors": (an_image("ct.nrrd", sitk.Compose(SCALAR, SCALAR)), "colours or vectors"),
    "a NIfTI of vectors": (an_image("ct.nii.gz", sitk.Compose(SCALAR, SCALAR)), "not one 3D"),
    "a picture": (an_image("ct.mha", SCALAR[:, :, 2]), "not one 3D"),
    "a NIfTI picture": (an_image("ct.nii.gz", SCALAR[:, :, 2]), "not one 3D"),
    "three slices": (a_file("ct.nrrd", a_volume(shape=(3, 6, 7))), "too few"),
    "one column": (a_file("ct.nii.gz", a_volume().crop((0, 0, 5), (5, 6, 6))), "too few"),
    "a NIfTI without any orientation": (noise_of_nifti(sform=[0]), "how the patient lies"),
    "a NRRD without a space": (nrrd("spacings: 1 1 2"), "how the patient lies"),
    "a NRRD in scanner axes": (nrrd(UPRIGHT.replace("LPS", "scanner-xyz")), "how the patient lies"),
    "a NIfTI with zero spacing": (noise_of_nifti(pixdim=[1, 1, 1, 0, 0, 0, 0, 0]), "spacing of 1 x 1 x 0 mm"),
    "a NIfTI with spacing NaN": (noise_of_nifti(pixdim=[1, 1, np.nan, 1, 0, 0, 0, 0]), "spacing"),
    "a spacing in micrometres": (metaimage("ElementSpacing = 700 700 2000"), "not in millimetres"),
    "a spacing in metres": (metaimage("ElementSpacing = 0.0007 0.0007 0.002"), "not in millimetres"),
    "a MetaImage with zero spacing": (metaimage("ElementSpacing = 1 1 0"), "spacing"),
    "a NIfTI with sheared axes": (noise_of_nifti(rows=[3, 1, 0, 0, 0, 2, 0, 0, 0, 0, 4, 0]), "right angles"),
    "a NRRD with sheared axes": (nrrd(UPRIGHT.replace("(0,1,0)", "(0.3,1,0)")), "right angles"),
    "a MetaImage with sheared axes": (metaimage("TransformMatrix = 1 0 0 0.3 1 0 0 0 1"), "right angles"),
    "voxels that are no numbers": (noise_of_nifti(stored=with_nan), "NaN"),
    "numbers of which none is negative": (noise_of_nifti(stored=a_volume().voxels + 1024), "Hounsfield"),
    "a labelmap as CT": (a_file("labels.nrrd", dtype=np.uint8), "Hounsfield"),
    "an empty folder": (lambda folder: folder, "no DICOM files"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_a_faulty_input_is_refused_in_words(tmp_path, case):
    build, words = FAULTY[case]
    path = build(tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        read_ct(path)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [256, -1, 0.5, np.nan])
def test_a_labelmap_holds_whole_numbers_up_to_255(tmp_path, value):
    stored = np.zeros(SHAPE, "f4")
    stored[2, 2, 2] = 255
    path = nifti(tmp_path / "labels.nii.gz", stored)
    assert read_labelmap(path).voxels[2, 2, 2] == 255
    stored[2, 2, 2] = value
    with pytest.raises(InputError, match="not a labelmap"):
        read_labelmap(nifti(path, stored))


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_one_point_in_time_is_a_volume(tmp_path, ending):
    sitk.WriteImage(sitk.JoinSeries([to_sitk(a_volume(TURNED))]), str(tmp_path / f"ct{ending}"))
    again = read_ct(tmp_path / f"ct{ending}")
    assert np.array_equal(again.voxels, a_volume().voxels)
    assert again.grid.matches(a_volume(TURNED).grid)


# --- writing ---


@pytest.mark.parametrize("name", ["nowhere/ct.nii.gz", "nowhere/ct.nrrd", "ct.stl"])
def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path, name):
    with pytest.raises(OutputError):
        write_volume(tmp_path / name, a_volume())
    assert not list(tmp_path.iterdir())


def test_a_file_is_not_written_where_another_would_be_read_in_its_place(tmp_path):
    write_volume(tmp_path / "v.nii", a_volume())
    with pytest.raises(OutputError, match="beside v.nii"):
        write_volume(tmp_path / "v.nii.gz", a_volume())


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_full_disk_is_an_output_error_and_leaves_no_file(tmp_path, ending):
    path = tmp_path / f"ct{ending}"
    code = (
        "import sys, numpy\n"
        "from FemurSegLib.volume import Grid, Volume, write_volume\n"
        "voxels = numpy.random.default_rng(0).integers(-1000, 1000, (40, 64, 64)).astype('i2')\n"
        "grid = Grid(voxels.shape, (1, 1, 1), (0, 0, 0), numpy.eye(3))\n"
        "try:\n    write_volume(sys.argv[1], Volume(voxels, grid))\n"
        "except Exception as error:\n    sys.exit(type(error).__name__)\n"
    )

    def fill_the_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    run = subprocess.run(
        [sys.executable, "-c", code, path],
        preexec_fn=fill_the_disk,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert run.stderr.strip().splitlines()[-1] == "OutputError"
    assert not path.exists()


def test_a_nrrd_without_its_last_bytes_is_an_output_error(tmp_path, monkeypatch):
    """NRRD's own writer does not look whether its last kilobytes went to the disk."""
    write = sitk.WriteImage

    def cut_short(image, name, **options):
        write(image, name, **options)
        os.truncate(name, os.path.getsize(name) - 5)

    monkeypatch.setattr(sitk, "WriteImage", cut_short)
    with pytest.raises(OutputError):
        write_volume(tmp_path / "v.nrrd", a_volume())
    assert not list(tmp_path.iterdir())
