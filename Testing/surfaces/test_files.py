"""Files of surfaces, read again by VTK and by 3D Slicer."""

from __future__ import annotations

import numpy as np
import pytest
from examples import CENTERS_LPS, RADII_MM, ellipsoid, oblique_grid
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkPolyData

from FemurSegLib.errors import InputError, OutputError
from FemurSegLib.sides import LEFT, RIGHT
from FemurSegLib.surface import points_of, surface_of, triangles_of
from FemurSegLib.surfaces.files import FORMATS, read_surface, write_surface
from FemurSegLib.surfaces.quality import quality


@pytest.fixture(scope="module")
def femora():
    grid = oblique_grid()
    return {s: surface_of(ellipsoid(grid, CENTERS_LPS[s], RADII_MM).view(np.uint8), grid, 1) for s in (RIGHT, LEFT)}


@pytest.mark.parametrize("ending", FORMATS)
def test_a_surface_read_again_is_the_same_closed_body_in_its_place(tmp_path, femora, ending):
    for side, surface in femora.items():
        again = read_surface(write_surface(tmp_path / f"{side}.{ending}", surface, side))
        np.testing.assert_allclose(again.GetBounds(), surface.GetBounds(), atol=1e-4)
        assert (again.GetCenter()[0] < 0) == (side == RIGHT), "in LPS the patient's right is negative"
        told, was = quality(again), quality(surface)
        assert told.closed and told.triangles == was.triangles
        assert told.volume_mm3 == pytest.approx(was.volume_mm3, rel=1e-5)
        np.testing.assert_allclose(
            points_of(again)[triangles_of(again)], points_of(surface)[triangles_of(surface)], atol=1e-4
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{LEFT}.{ending}", f"{RIGHT}.{ending}"]


NEEDS_SLICER = "needs slicer-core (requirements/slicer.txt)"


@pytest.mark.parametrize("ending", FORMATS)
def test_slicer_finds_the_space_in_the_file(tmp_path, femora, ending):
    slicer = pytest.importorskip("slicer", reason=NEEDS_SLICER)
    if not hasattr(slicer, "vtkMRMLScene"):  # the folder Testing/slicer was found in its place
        pytest.skip(NEEDS_SLICER)
    path = write_surface(tmp_path / f"right_femur.{ending}", femora[RIGHT], "Right femur")
    scene, storage, model = slicer.vtkMRMLScene(), slicer.vtkMRMLModelStorageNode(), slicer.vtkMRMLModelNode()
    for node in (storage, model):
        scene.AddNode(node)
    storage.SetCoordinateSystem(slicer.vtkMRMLStorageNode.CoordinateSystemRAS)  # what the file says must win
    storage.SetFileName(str(path))
    assert storage.ReadData(model)
    assert storage.GetCoordinateSystem() == slicer.vtkMRMLStorageNode.CoordinateSystemLPS
    in_ras = np.array(model.GetPolyData().GetCenter())
    np.testing.assert_allclose(in_ras, np.array(femora[RIGHT].GetCenter()) * (-1, -1, 1), atol=1e-3)


def test_text_formats_say_their_units_and_vtp_keeps_arrays(tmp_path, femora):
    for ending in ("obj", "ply"):
        head = write_surface(tmp_path / f"a.{ending}", femora[LEFT], "Left femur").read_bytes()[:200]
        assert b"SPACE=LPS" in head and b"UNITS=mm" in head and b"Left femur" in head
    surface = vtkPolyData()
    surface.DeepCopy(femora[LEFT])
    array = numpy_to_vtk(np.arange(surface.GetNumberOfPoints(), dtype=np.float32), deep=True)
    array.SetName("distance_mm")
    surface.GetPointData().AddArray(array)
    again = read_surface(write_surface(tmp_path / "a.vtp", surface))
    assert vtk_to_numpy(again.GetPointData().GetArray("distance_mm"))[-1] == surface.GetNumberOfPoints() - 1
    assert again.GetFieldData().GetAbstractArray("SPACE").GetValue(0) == "LPS"


def test_what_cannot_be_written_leaves_nothing(tmp_path, femora):
    for path in (tmp_path / "none" / "a.stl", tmp_path / "none" / "a.vtp", tmp_path / "a.xyz"):
        with pytest.raises(OutputError):
            write_surface(path, femora[LEFT])
    with pytest.raises(OutputError, match="no surface"):
        write_surface(tmp_path / "a.stl", vtkPolyData())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", FORMATS)
def test_a_full_disk_leaves_the_earlier_file(monkeypatch, tmp_path, femora, ending):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"earlier")
    from FemurSegLib.surfaces import files

    write = files.WRITERS[f".{ending}"]

    def cut_off(partial, *rest):
        write(partial, *rest)
        partial.write_bytes(partial.read_bytes()[:-20_000])

    monkeypatch.setitem(files.WRITERS, f".{ending}", cut_off)
    with pytest.raises(OutputError):
        write_surface(path, femora[LEFT])
    assert path.read_bytes() == b"earlier" and len(list(tmp_path.iterdir())) == 1


def test_what_is_no_surface_is_told(tmp_path):
    (tmp_path / "a.stl").write_bytes(b"nothing")
    for name in ("a.stl", "b.stl", "c.txt"):
        with pytest.raises(InputError):
            read_surface(tmp_path / name)
