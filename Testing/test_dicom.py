from __future__ import annotations

import io
import itertools
import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)
from scipy.spatial.transform import Rotation

from FemurSegLib.dicom import find_series
from FemurSegLib.errors import InputError
from FemurSegLib.volume import read_ct

ROWS, COLUMNS, SLICES = 10, 12, 8
SPACING = (2.0, 3.0)  # between rows, between columns
STEP = 4.0
HFS = (1, 0, 0, 0, 1, 0)
IN_PLANE = {  # row and column directions of axial slices, as scanners and workstations write them
    "HFS": HFS, "HFP": (-1, 0, 0, 0, -1, 0), "HFDR": (0, -1, 0, 1, 0, 0), "HFDL": (0, 1, 0, -1, 0, 0),
    "FFS": (-1, 0, 0, 0, 1, 0), "FFP": (1, 0, 0, 0, -1, 0),
    "FFDR": (0, -1, 0, -1, 0, 0), "FFDL": (0, 1, 0, 1, 0, 0),
}  # fmt: skip
MARK_RIGHT, MARK_FRONT = np.array((-9.0, 4.0, 712.0)), np.array((3.0, -2.0, 704.0))  # LPS mm


def patient(lps) -> np.ndarray:
    """HU at LPS points: 1200 at the right mark, 600 at the front one, else a slope to tell places apart."""
    background = np.rint(lps @ (7.0, 11.0, 0.9)) - 1000
    near_right, near_front = (np.abs(lps - mark).max(axis=-1) < 0.5 for mark in (MARK_RIGHT, MARK_FRONT))
    return np.select([near_right, near_front], [1200, 600], background)


def a_slice(
    position, orientation=HFS, series="1.2.3", *, slope=1.0, intercept=-1024.0, unsigned=True, **changes
) -> Dataset:
    """One slice of the patient, 10 x 12 pixels from `position` (LPS of the first) on."""
    row, column = np.reshape(orientation, (2, 3))
    rows, columns = np.mgrid[:ROWS, :COLUMNS][..., None]
    hounsfield = patient(position + rows * SPACING[0] * column + columns * SPACING[1] * row)
    stored = np.rint((hounsfield - intercept) / slope).astype("u2" if unsigned else "i2")
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = changes.pop("syntax", ExplicitVRLittleEndian)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.SeriesInstanceUID, dataset.SeriesDescription, dataset.SeriesNumber = series, "Legs", 4
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = [float(f"{value:.6f}") for value in position]
    dataset.ImageOrientationPatient = [float(f"{value:.8f}") for value in orientation]
    dataset.PixelSpacing = list(SPACING)
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = ROWS, COLUMNS, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0 if unsigned else 1
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    for name, value in changes.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    return dataset


def save(dataset, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def first_position(orientation=HFS, bottom=696.0):
    """Where a stack starts so that it surrounds both marks and a pixel centre meets each of them."""
    row, column = np.reshape(orientation, (2, 3)).astype(float)
    across = np.array((0.0, 0.0, bottom)) - row * SPACING[1] * 6 - column * SPACING[0] * 5
    shift = (MARK_RIGHT - across) @ row % SPACING[1], (MARK_RIGHT - across) @ column % SPACING[0]
    return across + row * shift[0] + column * shift[1]


def a_series(orientation=HFS, count=SLICES, shift=(0.0, 0.0, STEP), **options) -> list[Dataset]:
    start = first_position(orientation)
    return [a_slice(start + k * np.array(shift), orientation, **options) for k in range(count)]


def save_series(slices, folder, names=None):
    for at, dataset in enumerate(slices):
        save(dataset, folder / (names[at] if names else f"{at:03d}.dcm"))
    return folder


def assert_is_the_patient(volume):
    """Every voxel holds what the patient has at its place."""
    k, j, i = np.indices(volume.grid.shape)
    expected = patient(volume.grid.lps(np.stack([i, j, k], axis=-1)))
    assert volume.voxels.dtype == np.int16
    assert np.array_equal(volume.voxels, expected)


# --- geometry ---


@pytest.mark.parametrize("position", IN_PLANE)
def test_right_is_right_however_the_patient_lay(tmp_path, position):
    slices = a_series(IN_PLANE[position])
    for dataset in slices:
        dataset.PatientPosition = position
    volume = read_ct(save_series(slices, tmp_path))
    assert_is_the_patient(volume)

    oriented = volume.oriented()
    np.testing.assert_allclose(oriented.grid.direction, np.eye(3), atol=1e-9)
    for value, mark in ((1200, MARK_RIGHT), (600, MARK_FRONT)):
        (at,) = np.argwhere(oriented.voxels == value)
        np.testing.assert_allclose(oriented.grid.lps(at[::-1]), mark, atol=1e-6)


def test_the_order_and_names_of_files_mean_nothing(tmp_path):
    names = [f"{folder}/{name}" for folder, name in itertools.product("ba", ("IM7", "x.dcm", "03", "z.IMA"))]
    volume = read_ct(save_series(a_series(), tmp_path, names))
    assert volume.grid.shape == (SLICES, ROWS, COLUMNS)
    assert_is_the_patient(volume)


@pytest.mark.parametrize(
    "orientation",
    [
        HFS,
        (0, 1, 0, 0, 0, -1),
        (1, 0, 0, 0, 0, -1),
        tuple(Rotation.from_euler("zyx", (20, 10, -15), degrees=True).as_matrix()[:2].ravel()),
    ],
)
def test_grid_and_voxels_agree_with_simpleitk(tmp_path, orientation):
    row, column = np.reshape(orientation, (2, 3))
    folder = save_series(a_series(orientation, shift=np.cross(row, column) * STEP), tmp_path)
    volume = read_ct(folder)
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    assert np.array_equal(volume.voxels, sitk.GetArrayViewFromImage(image))
    np.testing.assert_allclose(volume.grid.spacing_mm, image.GetSpacing(), atol=1e-5)
    corner = [n - 1 for n in image.GetSize()]
    place = image.TransformIndexToPhysicalPoint(corner)
    np.testing.assert_allclose(volume.grid.lps(corner), place, atol=1e-3)


@pytest.mark.parametrize("case", ["STS_046", "STS_017"])
def test_a_real_feet_first_series_equals_its_nifti(shared_data, case):
    folder = shared_data / "ct/sts_thighs/dicom" / case
    assert list(folder.rglob("mask/*.dcm")), "the structure set that must be passed over is gone"
    series = read_ct(folder)
    file = read_ct(shared_data / f"ct/sts_thighs/labelled/{case}_CT.nii.gz")
    assert series.grid.matches(file.grid, 1e-3)
    assert np.array_equal(np.maximum(series.voxels, -1000), file.voxels)  # the NIfTI was clipped


def test_an_enhanced_ct_is_sorted_by_the_positions_of_its_frames(tmp_path):
    slices = a_series()
    frames = [slices[at] for at in (3, 0, 7, 1, 6, 2, 5, 4)]
    dataset = a_slice(
        first_position(),
        SOPClassUID=EnhancedCTImageStorage,
        NumberOfFrames=SLICES,
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
        RescaleSlope=None,
        RescaleIntercept=None,
    )
    dataset.PixelData = b"".join(frame.PixelData for frame in frames)

    def group(sequence, source, *names):
        item, outer = Dataset(), Dataset()
        for name in names:
            setattr(item, name, source[name].value)
        setattr(outer, sequence, [item])
        return outer

    shared = group("PixelMeasuresSequence", slices[0], "PixelSpacing")
    shared.update(group("PlaneOrientationSequence", slices[0], "ImageOrientationPatient"))
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    for frame in frames:
        own = group("PlanePositionSequence", frame, "ImagePositionPatient")
        own.update(group("PixelValueTransformationSequence", frame, "RescaleSlope", "RescaleIntercept"))
        dataset.PerFrameFunctionalGroupsSequence.append(own)
    save(dataset, tmp_path / "enhanced.dcm")
    for path in (tmp_path, tmp_path / "enhanced.dcm"):
        assert_is_the_patient(read_ct(path))


# --- choosing ---


def scout(series):
    kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return a_slice(first_position(), (1, 0, 0, 0, 0, -1), series, ImageType=kind)


def test_the_axial_series_with_most_slices_is_taken_from_a_whole_study(tmp_path):
    save_series(a_series(), tmp_path / "legs")
    save_series(a_series(count=5, series="1.2.4"), tmp_path / "short")
    save_series(a_series((1, 0, 0, 0, 0, -1), 12, (0, 3, 0), series="1.2.5"), tmp_path / "coronal")
    save_series(a_series(count=12, series="1.2.6", ImageType=["DERIVED", "PRIMARY", "MIP"]), tmp_path / "m")
    save_series(a_series(count=12, series="1.2.7", Modality="MR"), tmp_path / "mr")
    save_series(a_series(count=12, series="1.2.8", RescaleType="Z_EFF"), tmp_path / "effective_z")
    save(scout("1.2.3"), tmp_path / "legs" / "scout.dcm")
    save(a_slice(first_position(), series="1.2.9", ImagePositionPatient=None), tmp_path / "dose")
    (tmp_path / "legs" / "notes.txt").write_text("not DICOM")
    (tmp_path / "legs" / "._000.dcm").write_bytes(b"left by a Mac")

    assert {len(series.slices) for series in find_series(tmp_path)} == {8, 5, 12}
    volume = read_ct(tmp_path)
    assert volume.grid.shape == (SLICES, ROWS, COLUMNS)
    assert_is_the_patient(volume)


def test_one_file_stands_for_its_series(tmp_path):
    save_series(a_series(), tmp_path, [f"long{at}" for at in range(SLICES)])
    save_series(a_series(count=5, series="1.2.4"), tmp_path, [f"short{at}" for at in range(5)])
    (tmp_path / "other").mkdir()  # a copy of the series elsewhere is not asked for
    save_series(a_series(count=8, series="1.2.4"), tmp_path / "other")
    volume = read_ct(tmp_path / "short3")
    assert volume.grid.shape == (5, ROWS, COLUMNS)
    assert_is_the_patient(volume)


def test_of_equal_series_the_lower_number_is_taken(tmp_path):
    for number, uid in ((6, "1.2.3"), (3, "1.2.4"), (5, "1.2.5")):
        save_series(a_series(series=uid, SeriesNumber=number, SOPClassUID=CTImageStorage), tmp_path / uid)
    for path in (tmp_path / "1.2.4").iterdir():  # bone kernel, say: tell it by its values
        dataset = pydicom.dcmread(path)
        dataset.RescaleIntercept = -1000
        dataset.save_as(path)
    low = read_ct(tmp_path).voxels
    assert np.array_equal(low, read_ct(tmp_path / "1.2.4").voxels)
    assert not np.array_equal(low, read_ct(tmp_path / "1.2.3").voxels)


def test_a_file_that_is_there_twice_counts_once(tmp_path):
    save_series(a_series(), tmp_path)
    shutil.copy(tmp_path / "003.dcm", tmp_path / "copy of 003.dcm")
    assert_is_the_patient(read_ct(tmp_path))


# --- pixels ---


@pytest.mark.parametrize(
    "options",
    [
        {"syntax": ImplicitVRLittleEndian},
        {"syntax": DeflatedExplicitVRLittleEndian},
        {"unsigned": False, "intercept": 0.0},
        {"slope": 0.5, "intercept": -1024.5},
        {"intercept": -8192.0},
    ],
    ids=str,
)
def test_uncompressed_pixels_become_hounsfield_units(tmp_path, options):
    assert_is_the_patient(read_ct(save_series(a_series(**options), tmp_path)))


def test_big_endian_pixels_are_read(tmp_path):
    slices = a_series(syntax=ExplicitVRBigEndian)
    for dataset in slices:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    assert_is_the_patient(read_ct(save_series(slices, tmp_path)))


@pytest.mark.parametrize("unsigned, intercept", [(True, -1024.0), (False, 0.0)])
def test_bits_beyond_those_stored_are_ignored(tmp_path, unsigned, intercept):
    slices = a_series(unsigned=unsigned, intercept=intercept, BitsStored=12, HighBit=11)
    for dataset in slices:
        dirty = np.frombuffer(dataset.PixelData, "u2") & 0x0FFF | 0xA000
        dataset.PixelData = dirty.tobytes()
    assert_is_the_patient(read_ct(save_series(slices, tmp_path)))


def compressed_by_itk(name):
    def compress(dataset, folder):
        """The same pixels, encoded by SimpleITK."""
        pixels = np.frombuffer(dataset.PixelData, "i2").reshape(1, ROWS, COLUMNS)
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetUseCompression(True)
        writer.SetCompressor(name)
        writer.SetFileName(str(folder / "encoded.dcm"))
        writer.Execute(sitk.GetImageFromArray(pixels))
        encoded = pydicom.dcmread(folder / "encoded.dcm")
        (folder / "encoded.dcm").unlink()
        assert name == "JPEG" or "2000" in encoded.file_meta.TransferSyntaxUID.name
        dataset.file_meta.TransferSyntaxUID = encoded.file_meta.TransferSyntaxUID
        dataset["PixelData"] = encoded["PixelData"]

    return compress


def run_length(dataset, _folder):
    dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)


@pytest.mark.parametrize(
    "compress",
    [run_length, compressed_by_itk("JPEG"), compressed_by_itk("JPEG2000")],
    ids=["RLE", "JPEG lossless", "JPEG 2000 lossless"],
)
def test_losslessly_compressed_pixels_are_read_exactly(tmp_path, compress):
    slices = a_series(unsigned=False, intercept=-24.0)
    for dataset in slices:
        compress(dataset, tmp_path)
        assert dataset.file_meta.TransferSyntaxUID.is_encapsulated
    assert_is_the_patient(read_ct(save_series(slices, tmp_path)))


def test_lossily_compressed_pixels_are_read_nearly(tmp_path):
    slices = a_series()
    for dataset in slices:
        buffer = io.BytesIO()
        pixels = np.frombuffer(dataset.PixelData, "u2").reshape(ROWS, COLUMNS)
        Image.fromarray(pixels).save(
            buffer, "JPEG2000", no_jp2=True, irreversible=True, quality_mode="dB", quality_layers=[90]
        )
        dataset.file_meta.TransferSyntaxUID = JPEG2000
        dataset.PixelData = encapsulate([buffer.getvalue()])
    volume = read_ct(save_series(slices, tmp_path / "lossy"))
    exact = read_ct(save_series(a_series(), tmp_path / "exact"))
    difference = np.abs(volume.voxels.astype(int) - exact.voxels)
    assert 0 < difference.max() < 60


# --- what is refused ---


def without(slices, *missing):
    return [dataset for at, dataset in enumerate(slices) if at not in missing]


def changed(at, slices=None, **changes):
    slices = slices or a_series()
    for name, value in changes.items():
        setattr(slices[at], name, value)
    return slices


def smaller(slices):
    slices[3].Rows -= 1
    return slices


def phases():
    return a_series() + a_series()


def moved_table():
    return a_series(count=4) + [a_slice(first_position() + np.array((25.0, 0, STEP * k))) for k in range(4, SLICES)]


def tilted():
    angle = np.radians(15)
    return a_series((1, 0, 0, 0, np.cos(angle), -np.sin(angle)))


def uneven():
    start = first_position()
    return [a_slice(start + (0, 0, z)) for z in (0, 4, 8, 12, 16.9, 21.9, 26.9, 31.9, 36.9, 41.9)]


def undecodable(slices):
    """A compression that nothing installed can read."""
    for dataset in slices:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.4.201")
        dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
    return slices


FAULTY = {
    "one slice missing": (lambda: without(a_series(), 3), "lacks slices.* 8.0 mm between 704.0 and 712"),
    "slices missing in two places": (lambda: without(a_series(count=14), 3, 8, 9), "8.0 mm .* 12.0 mm"),
    "two phases in one series": (phases, "8 slices at the same place"),
    "a gantry tilt": (tilted, r"gantry tilted by 15\.0 degrees"),
    "a table that moved": (moved_table, "shifted sideways by up to 25.0 mm"),
    "uneven slices": (uneven, "unevenly spaced"),
    "mixed sizes": (lambda: smaller(a_series()), "different sizes"),
    "mixed pixel spacings": (lambda: changed(2, PixelSpacing=[2, 3.1]), "pixel spacings"),
    "mixed orientations": (lambda: changed(2, ImageOrientationPatient=[0, 1, 0, 0, 0, 1]), "orientations"),
    "an orientation that is none": (lambda: a_series(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "no sense"),
    "no pixel spacing": (lambda: a_series(PixelSpacing=[0, 0]), "makes no sense"),
    "an MR": (lambda: a_series(Modality="MR"), "no CT series .* only MR"),
    "scouts alone": (lambda: [scout("1.2.3") for _ in range(6)], "only scouts"),
    "colour pictures": (lambda: a_series(SamplesPerPixel=3), "only colour"),
    "images without a position": (lambda: a_series(ImagePositionPatient=None), "without a position"),
    "a map of effective atomic numbers": (lambda: a_series(RescaleType="Z_EFF"), "Z_EFF"),
    "three slices": (lambda: a_series(count=3), "only 3 slices"),
    "no rescale": (lambda: a_series(RescaleSlope=None, RescaleIntercept=None), "Hounsfield"),
    "an unknown compression": (lambda: undecodable(a_series()), "High-Throughput JPEG 2000.*no installed"),
    "12 bits allocated": (lambda: a_series(BitsAllocated=12), "12 bits"),
    "no pixels": (lambda: changed(2, a_series(count=5), PixelData=b""), "no pixels"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_a_faulty_series_is_refused_in_words(tmp_path, case):
    build, words = FAULTY[case]
    folder = save_series(build(), tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        read_ct(folder)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 60, 200, 500, -1, -100])
def test_a_truncated_slice_is_never_passed_over(tmp_path, keep):
    folder = save_series(a_series(), tmp_path)
    data = (folder / "007.dcm").read_bytes()  # at the end, where no gap would show
    (folder / "007.dcm").write_bytes(data[:keep])
    with pytest.raises(InputError, match="007.dcm is (empty|truncated|damaged)"):
        read_ct(folder)


@pytest.mark.parametrize("jitter_mm", [0.02, 0.2])
def test_rounded_positions_are_no_fault(tmp_path, jitter_mm):
    random = np.random.default_rng(0)
    slices = a_series()
    for dataset in slices:
        jitter = random.uniform(-jitter_mm, jitter_mm, 3)
        dataset.ImagePositionPatient = list(np.add(dataset.ImagePositionPatient, jitter))
    assert read_ct(save_series(slices, tmp_path)).grid.spacing_mm[2] == pytest.approx(STEP, abs=0.1)


def test_a_series_number_that_is_no_number_is_no_matter(tmp_path):
    number = b"\x20\x00\x11\x00IS\x02\x00"
    for path in sorted(save_series(a_series(), tmp_path).iterdir()):
        path.write_bytes(path.read_bytes().replace(number + b"4 ", number + b"A "))
    assert find_series(tmp_path)[0].number == 0
    assert_is_the_patient(read_ct(tmp_path))
