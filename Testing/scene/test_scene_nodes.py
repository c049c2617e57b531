"""The nodes of a run on real slicer-core MRML."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import slicer
import vtk
from leg_ct import CENTRE_X_RAS, HALF_LENGTH_MM, RADIUS_MM, add_ct

from FemurSegLib.errors import InputError
from FemurSegLib.scene.nodes import latest_run, runs
from FemurSegLib.scene.show import show_result
from FemurSegLib.sides import SIDES

ORIENTATIONS = [("LPS", 0), ("LPS", 25), ("RAS", 25), ("SAL", 10), ("LPI", -30)]


def contents(scene) -> dict:
    nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    return {
        **{node.GetID(): node.GetName() for node in nodes},
        "items": hierarchy.GetNumberOfItems(),
        "visible": [n.GetID() for n in nodes if n.IsA("vtkMRMLDisplayNode") and n.GetVisibility()],
    }


def centre_ras(segmentation, side) -> np.ndarray:
    surface = vtk.vtkPolyData()
    assert segmentation.GetClosedSurfaceRepresentation(side, surface)
    bounds = np.zeros(6)
    surface.GetBounds(bounds)
    return bounds.reshape(3, 2).mean(1)


def surface_volume_ml(segmentation, side) -> float:
    surface = vtk.vtkPolyData()
    segmentation.GetClosedSurfaceRepresentation(side, surface)
    mass = vtk.vtkMassProperties()
    mass.SetInputData(surface)
    return mass.GetVolume() / 1000


def test_a_run_shows_segments_boxes_radiographs_and_a_table(ct, result_of):
    run = show_result(result_of(ct), ct)
    assert [run.segmentation.GetSegmentation().GetSegment(side).GetName() for side in SIDES] == [
        "Right femur",
        "Left femur",
    ]
    assert set(run.rois) == set(SIDES)
    assert set(run.radiographs) == {"coronal", "axial"}
    assert set(run.boxes) == {(view, side) for view in ("coronal", "axial") for side in SIDES}
    assert run.table.GetNumberOfRows() == 2
    assert run.table.GetCellText(0, 0) == "Right femur"
    assert run.table.GetCellText(1, 4) == "cut (superior)"
    assert [warning["side"] for warning in run.warnings] == ["left_femur"]
    assert run.volume is ct


def test_segments_carry_snomed_terms_and_colours(ct, result_of):
    run = show_result(result_of(ct), ct)
    segment = run.segmentation.GetSegmentation().GetSegment("left_femur")
    tag = vtk.mutable("")
    segment.GetTag(segment.GetTerminologyEntryTagName(), tag)
    assert "SCT^123037004^Anatomical Structure~SCT^71341001^Femur~SCT^7771000^Left" in str(tag)
    assert segment.GetColor() == pytest.approx((0.40, 0.68, 0.85))
    entry = slicer.vtkSlicerTerminologyEntry()
    assert slicer.vtkSlicerTerminologiesModuleLogic().DeserializeTerminologyEntry(str(tag), entry)
    assert entry.GetTypeModifierObject().GetCodeMeaning() == "Left"


@pytest.mark.parametrize("stored,tilt", ORIENTATIONS)
def test_right_and_left_and_every_position_hold_in_any_orientation(scene, result_of, stored, tilt):
    volume = add_ct(tilt_degrees=tilt, stored=stored)
    run = show_result(result_of(volume), volume)
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    for side in SIDES:
        expected = CENTRE_X_RAS[side] * np.array([cos, 0, -sin])
        assert np.allclose(centre_ras(run.segmentation, side), expected, atol=2.5)
        center, size = np.zeros(3), np.zeros(3)
        run.rois[side].GetCenterWorld(center)
        run.rois[side].GetSizeWorld(size)
        assert np.allclose(center, expected, atol=2.5)
        assert np.allclose(size, [2 * RADIUS_MM[side]] * 2 + [2 * HALF_LENGTH_MM], atol=5)
        for view in ("coronal", "axial"):
            curve = run.boxes[view, side]
            corners = np.array([curve.GetNthControlPointPositionWorld(n) for n in range(4)])
            assert np.allclose(corners.mean(0), expected, atol=2.5)
        assert surface_volume_ml(run.segmentation, side) == pytest.approx(
            math.pi * RADIUS_MM[side] ** 2 * 2 * HALF_LENGTH_MM / 1000, rel=0.15
        )


@pytest.mark.parametrize("stored,tilt", ORIENTATIONS)
def test_the_radiographs_lie_where_the_bones_are(scene, result_of, stored, tilt):
    volume = add_ct(tilt_degrees=tilt, stored=stored)
    run = show_result(result_of(volume), volume)
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    for node in run.radiographs.values():
        inverse = vtk.vtkMatrix4x4()
        node.GetRASToIJKMatrix(inverse)

        def brightness(x, node=node, inverse=inverse):
            i, j, k = (round(value) for value in inverse.MultiplyPoint((x * cos, 0, -x * sin, 1))[:3])
            assert k == 0
            return node.GetImageData().GetScalarComponentAsDouble(i, j, 0, 0)

        for side in SIDES:
            assert brightness(CENTRE_X_RAS[side]) > brightness(0) + 50


def test_a_moved_volume_gets_its_result_where_it_is_shown(scene, ct, result_of):
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkTransform()
    matrix.Translate(100, -20, 7)
    matrix.RotateX(30)
    transform.SetMatrixTransformToParent(matrix.GetMatrix())
    ct.SetAndObserveTransformNodeID(transform.GetID())
    run = show_result(result_of(ct), ct)
    for side in SIDES:
        expected = matrix.TransformPoint(CENTRE_X_RAS[side], 0, 0)
        assert np.allclose(centre_ras(run.segmentation, side), expected, atol=2.5)
    geometry = slicer.vtkOrientedImageData()
    slicer.vtkSegmentationConverter.DeserializeImageGeometry(
        run.segmentation.GetSegmentation().GetConversionParameter("Reference image geometry"), geometry
    )
    to_world = vtk.vtkMatrix4x4()
    geometry.GetImageToWorldMatrix(to_world)
    from FemurSegLib.scene.volume_file import ijk_to_world_ras

    expected = ijk_to_world_ras(ct)
    assert np.allclose(slicer.util.arrayFromVTKMatrix(to_world), expected, atol=1e-3)


def test_labels_lie_on_the_voxels_of_the_ct(ct, result_of):
    run = show_result(result_of(ct), ct)
    voxels = slicer.util.arrayFromVolume(ct)
    both = sum(slicer.util.arrayFromSegmentBinaryLabelmap(run.segmentation, side, ct) for side in SIDES)
    assert np.array_equal(both > 0, voxels > 200)


def test_undo_leaves_the_scene_as_before(scene, ct, result_of):
    before = contents(scene)
    run = show_result(result_of(ct), ct)
    assert contents(scene) != before
    run.undo()
    assert contents(scene) == before


def test_undo_keeps_what_the_user_made_meanwhile(scene, ct, result_of):
    run = show_result(result_of(ct), ct)
    scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "mine")
    run.undo()
    assert slicer.util.getNode("mine")
    assert not runs(scene)


def test_a_second_run_hides_the_first_and_undo_shows_it_again(scene, ct, result_of):
    folder = result_of(ct)
    first = show_result(folder, ct)
    shown = contents(scene)
    second = show_result(folder, ct)
    assert not first.segmentation.GetDisplayNode().GetVisibility()
    assert second.segmentation.GetDisplayNode().GetVisibility()
    assert latest_run(scene) == second
    second.undo()
    assert contents(scene) == shown


def test_a_damaged_result_adds_nothing(scene, ct, result_of):
    folder = result_of(ct)
    (folder / "axial.png").unlink()
    before = contents(scene)
    with pytest.raises(InputError):
        show_result(folder, ct)
    assert contents(scene) == before
    shutil.rmtree(folder)
    with pytest.raises(InputError):
        show_result(folder, ct)
    assert contents(scene) == before


def test_a_femur_that_is_not_there_is_said_to_be_so(scene, ct, result_of):
    regions = show_result(result_of(ct), ct).regions()
    run = show_result(result_of(ct, {"right_femur": regions["right_femur"]}), ct)
    assert run.segmentation.GetSegmentation().GetSegmentIDs() == ("right_femur",)
    assert list(run.rois) == ["right_femur"]
    assert run.table.GetCellText(1, 4) == "not found"


@pytest.mark.parametrize("stored,tilt", ORIENTATIONS)
def test_a_dragged_box_goes_back_to_the_engine_in_lps(scene, result_of, stored, tilt):
    volume = add_ct(tilt_degrees=tilt, stored=stored)
    folder = result_of(volume)
    run = show_result(folder, volume)
    femurs = json.loads((folder / "result.json").read_text())["femurs"]
    for side, region in run.regions().items():
        for name in ("center_lps_mm", "size_mm", "axes_lps"):
            assert np.allclose(np.abs(region[name]), np.abs(femurs[side]["region"][name]))
        assert np.allclose(region["center_lps_mm"], femurs[side]["region"]["center_lps_mm"])
    run.rois["left_femur"].SetSize(*(np.array(run.rois["left_femur"].GetSize()) / 2))
    again = show_result(result_of(volume, run.regions()), volume)
    assert surface_volume_ml(again.segmentation, "left_femur") < 0.5 * surface_volume_ml(
        run.segmentation, "left_femur"
    )
    assert np.allclose(
        centre_ras(again.segmentation, "left_femur"), centre_ras(run.segmentation, "left_femur"), atol=3
    )


def test_a_saved_scene_still_knows_its_run(scene, ct, result_of, tmp_path):
    run = show_result(result_of(ct), ct)
    volumes = {side: surface_volume_ml(run.segmentation, side) for side in SIDES}
    regions = run.regions()
    assert scene.WriteToMRB(str(tmp_path / "case.mrb"))
    scene.Clear(False)
    assert not runs(scene)
    assert scene.ReadFromMRB(str(tmp_path / "case.mrb"), True)
    run = latest_run(scene)
    assert set(run.rois) == set(SIDES) and set(run.radiographs) == {"coronal", "axial"} and len(run.boxes) == 4
    assert run.volume.GetName() == "CT"
    run.segmentation.CreateClosedSurfaceRepresentation()
    for side in SIDES:
        assert surface_volume_ml(run.segmentation, side) == pytest.approx(volumes[side], rel=1e-3)
        assert np.allclose(run.regions()[side]["center_lps_mm"], regions[side]["center_lps_mm"], atol=1e-3)
    assert run.warnings[0]["code"] == "femur_cut"
    assert run.table.GetCellText(0, 0) == "Right femur"
    run.undo()
    assert not runs(scene)
    assert slicer.util.getNode("CT")
    left = [scene.GetNthNode(n).GetClassName() for n in range(scene.GetNumberOfNodes())]
    ours = ("vtkMRMLSegmentation", "vtkMRMLMarkups", "vtkMRMLTable", "vtkMRMLText", "vtkMRMLVectorVolume")
    assert not [name for name in left if name.startswith(ours)]
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    assert not hierarchy.GetItemByName("FemurSeg 1: CT")


def test_nodes_lie_together_beside_the_ct(scene, ct, result_of):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient")
    study = hierarchy.CreateStudyItem(patient, "Study")
    hierarchy.CreateItem(study, ct)
    run = show_result(result_of(ct), ct)
    shelf = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(run.segmentation))
    assert hierarchy.GetItemName(shelf) == "FemurSeg 1: CT"
    assert hierarchy.GetItemParent(shelf) == study
    assert hierarchy.GetNumberOfItemChildren(shelf) == 1 + 2 + 2 + 4 + 2 + 1 + 1  # and a folder of landmarks
