"""STL files and training cases, from segments as the user left them."""

from __future__ import annotations

import math
import re
import struct

import numpy as np
import pytest
import slicer
import vtk
from leg_ct import CENTRE_X_RAS, HALF_LENGTH_MM, RADIUS_MM, add_ct

from FemurSegLib.errors import InputError, OutputError
from FemurSegLib.scene.export import SurfaceOptions, export_surfaces, open_edges, save_training_case
from FemurSegLib.scene.show import show_result
from FemurSegLib.sides import LABELS, SIDES
from FemurSegLib.surfaces.files import FORMATS, read_surface
from FemurSegLib.training.cases import find_cases, read_case
from FemurSegLib.volume import read_labelmap


def read_stl(path):
    reader = vtk.vtkSTLReader()
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def volume_ml(surface):
    mass = vtk.vtkMassProperties()
    mass.SetInputData(surface)
    return mass.GetVolume() / 1000


def labelled_ml(run, side):
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(run.segmentation, side, run.volume)
    return (voxels > 0).sum() * math.prod(run.volume.GetSpacing()) / 1000


@pytest.fixture
def run(ct, result_of):
    return show_result(result_of(ct), ct)


def test_one_closed_file_a_bone_with_the_volume_of_its_segment(run, tmp_path):
    paths = export_surfaces(run, tmp_path / "out", "Case 7/b")
    assert [path.name for path in paths] == ["Case_7_b_right_femur.stl", "Case_7_b_left_femur.stl"]
    for side, path in zip(SIDES, paths, strict=True):
        surface = read_stl(path)
        assert open_edges(surface) == 0
        assert volume_ml(surface) == pytest.approx(labelled_ml(run, side), rel=0.02)
        assert surface.GetCenter()[0] == pytest.approx(-CENTRE_X_RAS[side], abs=1.5)  # LPS
        assert b"SPACE=LPS" in path.read_bytes()[:80]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths)


def test_triangles_face_outwards_in_both_spaces(run, tmp_path):
    for space, sign in (("LPS", -1), ("RAS", 1)):
        path = export_surfaces(run, tmp_path / space, options=SurfaceOptions(space=space))[0]
        surface = read_stl(path)
        assert surface.GetCenter()[0] == pytest.approx(sign * CENTRE_X_RAS["right_femur"], abs=1.5)
        data = path.read_bytes()
        (count,) = struct.unpack_from("<I", data, 80)
        records = np.frombuffer(data, "<f4,(3,3)<f4,u2".replace("<f4,(", "(3,)<f4,(", 1), count, 84)
        corners = records["f1"].astype(float)
        signed = np.einsum("ni,ni->n", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6000
        assert signed == pytest.approx(volume_ml(surface), rel=1e-3)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("space,sign", [("LPS", -1), ("RAS", 1)])
def test_every_format_holds_the_same_surface_and_says_its_space(run, tmp_path, format, space, sign):
    paths = export_surfaces(run, tmp_path, options=SurfaceOptions(space=space, format=format))
    assert [path.name for path in paths] == [f"CT_{side}.{format}" for side in SIDES]
    surface = read_surface(paths[0])
    assert surface.GetCenter()[0] == pytest.approx(sign * CENTRE_X_RAS["right_femur"], abs=1.5)
    assert open_edges(surface) == 0
    assert volume_ml(surface) == pytest.approx(labelled_ml(run, "right_femur"), rel=0.02)
    said = surface.GetFieldData().GetAbstractArray("SPACE")  # of a VTP
    assert said.GetValue(0) == space if said else f"SPACE={space}".encode() in paths[0].read_bytes()


def test_corrections_are_in_the_file(run, tmp_path):
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(run.segmentation, "left_femur", run.volume)
    voxels[: len(voxels) // 2] = 0
    before = labelled_ml(run, "left_femur")
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, run.segmentation, "left_femur", run.volume)
    surface = read_stl(export_surfaces(run, tmp_path)[1])
    assert volume_ml(surface) == pytest.approx(before / 2, rel=0.1)


def test_decimation_leaves_fewer_triangles_and_a_closed_surface(run, tmp_path):
    full = read_stl(export_surfaces(run, tmp_path)[0])
    few = read_stl(export_surfaces(run, tmp_path, options=SurfaceOptions(decimation=0.6))[0])
    assert few.GetNumberOfPolys() < 0.6 * full.GetNumberOfPolys()
    assert open_edges(few) == 0
    assert volume_ml(few) == pytest.approx(labelled_ml(run, "right_femur"), rel=0.03)


def test_a_bone_cut_by_the_edge_of_the_ct_is_closed_there(run, tmp_path):
    voxels = slicer.util.arrayFromVolume(run.volume) > 1e9
    voxels[-8:, 5:15, 5:15] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        voxels.astype(np.uint8), run.segmentation, "right_femur", run.volume
    )
    assert open_edges(read_stl(export_surfaces(run, tmp_path)[0])) == 0


def test_a_femur_that_the_user_has_made_anew_is_found_by_its_name(run, tmp_path):
    segmentation = run.segmentation.GetSegmentation()
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(run.segmentation, "left_femur", run.volume)
    segmentation.RemoveSegment("left_femur")
    segmentation.AddEmptySegment("Segment_9", "Left femur")
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, run.segmentation, "Segment_9", run.volume)
    assert [path.name for path in export_surfaces(run, tmp_path)] == ["CT_right_femur.stl", "CT_left_femur.stl"]
    _, labels = save_training_case(run, tmp_path)
    assert set(np.unique(read_labelmap(labels).voxels)) == {0, 1, 2}


def test_without_a_femur_nothing_is_written(run, tmp_path):
    for side in SIDES:
        run.segmentation.GetSegmentation().RemoveSegment(side)
    with pytest.raises(InputError, match="no segmented femur"):
        export_surfaces(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_empty_segment_writes_nothing(run, tmp_path):
    empty = np.zeros(slicer.util.arrayFromVolume(run.volume).shape, np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(empty, run.segmentation, "left_femur", run.volume)
    with pytest.raises(InputError, match="Left femur is empty"):
        export_surfaces(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_an_error_for_the_user(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        export_surfaces(run, tmp_path / "file")
    with pytest.raises(OutputError):
        save_training_case(run, tmp_path / "file")


@pytest.mark.parametrize("stored,tilt", [("LPS", 0), ("SAL", 15), ("LPI", -30)])
@pytest.mark.parametrize("moved", [False, True])
def test_a_training_case_is_taken_by_femurseg_train(scene, result_of, tmp_path, stored, tilt, moved):
    volume = add_ct(tilt_degrees=tilt, stored=stored)
    if moved:
        transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = vtk.vtkTransform()
        matrix.Translate(10, 20, 30)
        matrix.RotateZ(10)
        transform.SetMatrixTransformToParent(matrix.GetMatrix())
        volume.SetAndObserveTransformNodeID(transform.GetID())
    run = show_result(result_of(volume), volume)
    ct, labels = save_training_case(run, tmp_path / "cases", "P 01")
    assert (ct.name, labels.name) == ("P_01_CT.nii.gz", "P_01_femurs.nii.gz")
    (case,) = find_cases(tmp_path / "cases")  # as `femurseg train` finds them
    assert (case.name, case.ct, case.labels) == ("P_01", ct, labels)
    ct, labels = read_case(case)
    assert np.array_equal(ct.voxels, slicer.util.arrayFromVolume(volume))
    assert ct.grid.matches(labels.grid, 1e-2)
    assert np.array_equal(labels.voxels > 0, ct.voxels > 200)
    left = labels.grid.lps(np.argwhere(labels.voxels == LABELS["left_femur"])[:, ::-1]).mean(0)
    right = labels.grid.lps(np.argwhere(labels.voxels == LABELS["right_femur"])[:, ::-1]).mean(0)
    assert left[0] > right[0] + 40  # LPS: the left is plus
    assert not [n for n in slicer.util.getNodesByClass("vtkMRMLLabelMapVolumeNode")]


def test_lengths_of_the_rods_come_out(run, tmp_path):
    surface = read_stl(export_surfaces(run, tmp_path)[0])
    x0, x1, _, _, z0, z1 = surface.GetBounds()
    assert x1 - x0 == pytest.approx(2 * RADIUS_MM["right_femur"], abs=3)
    assert z1 - z0 == pytest.approx(2 * HALF_LENGTH_MM, abs=3)


def test_names_of_files_are_plain():
    from FemurSegLib.scene.export import case_name

    assert case_name("5: Thigh / 1.25 B") == "5_Thigh_1.25_B"
    assert case_name("///") == "case"
    assert re.fullmatch(r"[\w.-]+", case_name("Müller, Ö"))
