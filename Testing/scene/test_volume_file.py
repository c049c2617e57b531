"""The CT as the engine gets it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from leg_ct import add_ct

from FemurSegLib.errors import InputError, OutputError
from FemurSegLib.scene.geometry import flip
from FemurSegLib.scene.volume_file import check_complete, check_ct, write_ct
from FemurSegLib.volume import read_ct


def under(volume, matrix):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.array(matrix, float)))
    volume.SetAndObserveTransformNodeID(node.GetID())
    return node


@pytest.mark.parametrize("stored,tilt", [("LPS", 0), ("RAS", 25), ("SAL", 10), ("LPI", -30)])
def test_every_voxel_keeps_its_value_and_its_place(scene, tmp_path, stored, tilt):
    volume = add_ct(tilt_degrees=tilt, stored=stored)
    read = read_ct(write_ct(volume, tmp_path / "ct.nrrd"))
    assert read.voxels.dtype == np.int16
    assert np.array_equal(read.voxels, slicer.util.arrayFromVolume(volume))
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    for ijk in ((0, 0, 0), (5, 7, 11), (20, 3, 2)):
        assert np.allclose(flip(read.grid.lps(ijk)), matrix.MultiplyPoint((*ijk, 1))[:3], atol=1e-3)


def test_linear_transforms_are_in_the_file_and_the_node_stays_as_it_was(ct, tmp_path):
    turned = [[0, -1, 0, 50], [1, 0, 0, -3], [0, 0, 1, 8], [0, 0, 0, 1]]
    parent = under(ct, turned)
    outer = under(parent, [[1, 0, 0, 100], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    before = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(before)
    read = read_ct(write_ct(ct, tmp_path / "ct.nrrd"))
    at = outer.GetTransformToParent().TransformPoint(
        parent.GetTransformToParent().TransformPoint(before.MultiplyPoint((3, 4, 5, 1))[:3])
    )
    assert np.allclose(flip(read.grid.lps((3, 4, 5))), at, atol=1e-3)
    assert ct.GetParentTransformNode() is parent


def test_a_transform_that_bends_is_refused(ct):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    bend = vtk.vtkThinPlateSplineTransform()
    node.SetAndObserveTransformToParent(bend)
    ct.SetAndObserveTransformNodeID(node.GetID())
    with pytest.raises(InputError, match="bends"):
        check_ct(ct)


def test_a_sheared_volume_is_refused(ct):
    under(ct, [[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    with pytest.raises(InputError, match="sheared"):
        check_ct(ct)


@pytest.mark.parametrize("values", [(0, 255), (0, 4095), (-1000, 100)])
def test_values_that_are_not_hounsfield_units_are_refused(ct, values):
    voxels = slicer.util.arrayFromVolume(ct)
    slicer.util.updateVolumeFromArray(ct, np.interp(voxels, (-1000, 1000), values).astype(np.int16))
    with pytest.raises(InputError, match=f"from {values[0]} to {values[1]}"):
        check_ct(ct)


def test_no_volume_an_empty_one_and_a_label_map_are_refused(scene, ct):
    with pytest.raises(InputError, match="No CT"):
        check_ct(None)
    with pytest.raises(InputError, match="no voxels"):
        check_ct(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    labels.SetAndObserveImageData(ct.GetImageData())
    with pytest.raises(InputError, match="label map"):
        check_ct(labels)


def test_floating_point_hounsfield_units_are_taken(ct, tmp_path):
    voxels = slicer.util.arrayFromVolume(ct).astype(np.float32) + 0.4
    slicer.util.updateVolumeFromArray(ct, voxels)
    check_ct(ct)
    assert np.array_equal(read_ct(write_ct(ct, tmp_path / "ct.nrrd")).voxels, np.rint(voxels))


def test_a_file_that_cannot_be_written_is_an_error_for_the_user(ct, tmp_path):
    with pytest.raises(OutputError):
        write_ct(ct, tmp_path / "no" / "such" / "folder" / "ct.nrrd")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is a Linux device")
def test_a_full_disk_is_noticed(ct, tmp_path):
    (tmp_path / "ct.nrrd").symlink_to("/dev/full")
    with pytest.raises(OutputError):
        write_ct(ct, tmp_path / "ct.nrrd")


def test_a_nifti_file_that_was_cut_off_is_noticed(ct, tmp_path):
    path = write_ct(ct, tmp_path / "ct.nii.gz")
    check_complete(path, ct.GetImageData())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OutputError):
        check_complete(path, ct.GetImageData())
