from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
from anatomy.toy_femur import toy_femur
from vtkmodules.util.numpy_support import vtk_to_numpy

from FemurSegLib.anatomy.command import add_parser
from FemurSegLib.anatomy.thickness import THICKNESS_ARRAY
from FemurSegLib.errors import InputError, NoFemurError, OutputError
from FemurSegLib.sides import LEFT, RIGHT
from FemurSegLib.surfaces.files import read_surface
from FemurSegLib.volume import Volume, write_volume


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A mask with a right femur and, beside it, its mirror image as a left one; and a CT."""
    folder = tmp_path_factory.mktemp("masks")
    labels, grid, _ = toy_femur(spacing_mm=(1.5, 1.5, 1.5))
    both = np.concatenate([labels, 2 * labels[:, :, ::-1]], axis=2)
    wide = type(grid)(both.shape, grid.spacing_mm, grid.origin_mm, grid.direction)
    write_volume(folder / "mask.nii.gz", Volume(both, wide))
    write_volume(folder / "empty.nii.gz", Volume(np.zeros_like(both), wide))
    write_volume(folder / "ct.nii.gz", Volume(np.where(both > 0, 400, -100).astype(np.int16), wide))
    write_volume(folder / "other.nii.gz", Volume(np.full(grid.shape, -100, np.int16), grid))
    return folder


def measure(*words) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["measure", *map(str, words)])
    return args.run(args)


def test_both_femora_are_measured_printed_and_written(folder, capsys):
    out = folder / "measured.json"
    words = ("--compartments", "threshold", "--calibration", "0.8,-5", "--perturbations", 1)
    assert measure(folder / "mask.nii.gz", "--ct", folder / "ct.nii.gz", "--out", out, *words) == 0
    printed = capsys.readouterr().out
    assert "Right femur" in printed and "Left femur" in printed and "Neck-shaft angle" in printed
    assert "Cortical bone" in printed and "of it cortical" in printed and "mg/cm³" in printed and "±" in printed
    content = json.loads(out.read_text())
    femurs = content["femurs"]
    assert content["mask"] == str(folder / "mask.nii.gz") and content["perturbations"] == 1
    assert set(femurs) == {RIGHT, LEFT}
    right, left = femurs[RIGHT], femurs[LEFT]
    for key, m in right["measurements"].items():
        value = left["measurements"][key]["value"]
        assert (
            value == m["value"] if m["value"] is None else value == pytest.approx(m["value"], abs=0.2, rel=1e-3)
        ), key
    assert right["regions"]["head"]["mean_hu"] == 400
    assert right["regions"]["head"]["density_mg_cm3"] == pytest.approx(315)
    assert right["measurements"]["anteversion_deg"]["sd"] >= 0 and right["landmarks"]["notch"]["sd"] >= 0
    assert len(right["landmarks"]["head_center"]["position_lps_mm"]) == 3
    assert {"mechanical_axis", "neck_axis", "transepicondylar_line"} <= set(right["lines"])


def test_the_thickness_of_the_cortex_is_printed_and_painted(folder, capsys, tmp_path):
    words = (
        "--ct",
        folder / "ct.nii.gz",
        "--compartments",
        "threshold",
        "--spread",
        0,
        "--out",
        tmp_path / "m.json",
    )
    assert measure(folder / "mask.nii.gz", *words, "--surfaces", tmp_path, "--out", tmp_path / "m.json") == 0
    told = json.loads((tmp_path / "m.json").read_text())["femurs"][RIGHT]["compartments"]["thickness"]
    assert f"mean {told['mean_mm']:.1f} mm" in capsys.readouterr().out
    values = read_surface(tmp_path / "right_femur_thickness.vtp").GetPointData().GetArray(THICKNESS_ARRAY)
    assert told["mean_mm"] == pytest.approx(np.nanmean(vtk_to_numpy(values)), abs=0.001)
    assert (tmp_path / "left_femur_thickness.vtp").exists()


def test_painted_surfaces_without_a_ct_or_a_folder_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="needs the CT"):
        measure(folder / "mask.nii.gz", "--surfaces", tmp_path)
    with pytest.raises(OutputError):
        measure(folder / "mask.nii.gz", "--ct", folder / "ct.nii.gz", "--surfaces", tmp_path / "no")


def test_a_mask_without_a_femur_is_told(folder):
    with pytest.raises(NoFemurError, match="holds no femur"):
        measure(folder / "empty.nii.gz")


def test_a_ct_of_another_grid_is_refused(folder):
    with pytest.raises(InputError, match="same grid"):
        measure(folder / "mask.nii.gz", "--ct", folder / "other.nii.gz")


def test_without_a_ct_volumes_and_angles_are_printed_and_the_rest_is_said_to_be_missing(folder, capsys):
    assert measure(folder / "mask.nii.gz", "--perturbations", 0) == 0
    printed = capsys.readouterr().out
    assert "not known: no CT was given" in printed and " HU" not in printed and "±" not in printed


def test_a_calibration_without_a_ct_or_that_is_none_is_refused(folder):
    with pytest.raises(InputError, match="needs the CT"):
        measure(folder / "mask.nii.gz", "--calibration", "1,0")
    with pytest.raises(InputError):
        measure(folder / "mask.nii.gz", "--ct", folder / "ct.nii.gz", "--calibration", "no such file.csv")


def test_an_unwritable_file_is_an_output_error(folder):
    with pytest.raises(OutputError):
        measure(folder / "mask.nii.gz", "--out", folder / "no" / "such" / "folder.json")
