"""`femurseg compare`: two masks whose difference is known."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
from vtkmodules.util.numpy_support import vtk_to_numpy

from FemurSegLib.errors import InputError, NoFemurError
from FemurSegLib.evaluation.mask_comparison import add_parser, compare_masks, exchanged, on_one_grid
from FemurSegLib.grid import Grid
from FemurSegLib.sides import LEFT, RIGHT
from FemurSegLib.surfaces.files import read_surface
from FemurSegLib.volume import Volume, write_volume

GRID = Grid((30, 40, 60), (1.0, 1.5, 2.0), (-40, -30, 500), np.diag((1.0, -1.0, 1.0)))


def bricks(right=(slice(8, 22), slice(10, 30), slice(6, 20)), left=(slice(8, 22), slice(10, 30), slice(40, 54))):
    voxels = np.zeros(GRID.shape, np.uint8)
    voxels[right], voxels[left] = 1, 2
    return Volume(voxels, GRID)


def shifted():
    """The right brick moved by one voxel (1 mm) along i, the left one a slice (2 mm) longer at one end."""
    return bricks(
        right=(slice(8, 22), slice(10, 30), slice(7, 21)), left=(slice(8, 23), slice(10, 30), slice(40, 54))
    )


def test_numbers_of_bricks_are_those_of_arithmetic():
    right, left = compare_masks(bricks(), shifted())
    assert (right.side, left.side) == (RIGHT, LEFT)
    assert right.dice == pytest.approx(13 / 14) and right.iou == pytest.approx(13 / 15)
    assert right.sensitivity == pytest.approx(13 / 14)
    assert right.difference_ml == 0 and right.max_mm == pytest.approx(1)
    assert left.dice == pytest.approx(2 * 14 / 29) and left.sensitivity == 1
    assert left.a_ml == pytest.approx(14 * 20 * 14 * 3 / 1000)
    assert left.difference_percent == pytest.approx(100 / 14) and left.difference_ml == pytest.approx(
        left.a_ml / 14
    )
    assert left.max_mm == pytest.approx(2)
    extra = 20 * 14
    around = (14 + 1 + 10) * (20 + 14) * (14 + 16)  # voxels within 10 mm; the volume ends before that in two places
    negatives = around - 14 * 20 * 14
    assert left.specificity == pytest.approx(1 - extra / negatives, abs=2e-3)


def test_a_mask_against_itself_is_perfect_and_undecided_voxels_do_not_count():
    for line in compare_masks(bricks(), bricks()):
        assert (line.dice, line.iou, line.mean_surface_mm, line.max_mm, line.difference_ml) == (1, 1, 0, 0, 0)
    a, b = bricks(), shifted()
    a.voxels[(a.voxels != b.voxels)] = 255
    for line in compare_masks(a, b):
        assert line.dice == 1 and line.difference_ml == 0 and line.undecided_ml > 0


def test_a_side_in_one_mask_alone_scores_zero_and_two_empty_masks_are_told():
    b = bricks()
    b.voxels[b.voxels == 2] = 0
    _, left = compare_masks(bricks(), b)
    assert left.dice == 0 and left.b_ml == 0 and np.isinf(left.mean_surface_mm)
    with pytest.raises(NoFemurError):
        compare_masks(Volume(0 * b.voxels, GRID), Volume(0 * b.voxels, GRID))


def test_exchanged_sides_are_noticed():
    b = bricks()
    b.voxels[:] = np.choose(b.voxels, (0, 2, 1))
    assert exchanged(bricks(), b) and not exchanged(bricks(), shifted())


def test_another_grid_is_resampled_and_said_so():
    a = bricks()
    turned = Volume(
        a.voxels[::-1, :, ::-1].copy(),
        Grid(GRID.shape, GRID.spacing_mm, GRID.lps((59, 0, 29)), GRID.direction @ np.diag((-1.0, 1, -1))),
    )
    _, moved, notes = on_one_grid(a, turned)
    assert np.array_equal(moved.voxels, a.voxels) and "resampled" in notes[0]
    half = a.crop((0, 0, 0), (15, 40, 60))
    _, moved, notes = on_one_grid(a, half)
    assert (moved.voxels[15:] == 255).all() and "50%" in notes[1]
    assert all(line.dice == 1 for line in compare_masks(a, moved))
    far = Volume(a.voxels, Grid(GRID.shape, GRID.spacing_mm, (5000, 0, 0), GRID.direction))
    with pytest.raises(InputError, match="same place"):
        on_one_grid(a, far)


def run(*words) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["compare", *map(str, words)])
    return args.run(args)


def test_the_command_prints_writes_and_paints(tmp_path, capsys):
    write_volume(tmp_path / "a.nii.gz", bricks())
    write_volume(tmp_path / "b.nii.gz", shifted())
    write_volume(tmp_path / "ct.nii.gz", Volume(np.full(GRID.shape, -50, np.int16), GRID))
    out = tmp_path / "out"
    assert run(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", "--ct", tmp_path / "ct.nii.gz", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "Right femur" in printed and "0.9286" in printed
    told = json.loads((out / "comparison.json").read_text())
    assert told["femurs"][LEFT]["difference_percent"] == pytest.approx(100 / 14)
    files = {name for femur in told["femurs"].values() for name in femur["files"]} | {told["slices"]}
    assert {path.name for path in out.iterdir()} == files | {"comparison.json"}
    painted = read_surface(out / "left_femur_distance.vtp")
    distances = vtk_to_numpy(painted.GetPointData().GetArray("distance_mm"))
    assert distances.max() == pytest.approx(2, abs=0.4), "positive where B is larger"
    assert painted.GetCenter()[0] > 0 > read_surface(out / "right_femur_distance.vtp").GetCenter()[0]


def test_a_ct_on_another_grid_is_refused(tmp_path):
    write_volume(tmp_path / "a.nii.gz", bricks())
    small = GRID.crop((0, 0, 0), (9, 9, 9))
    write_volume(tmp_path / "ct.nii.gz", Volume(np.full(small.shape, -50, np.int16), small))
    with pytest.raises(InputError, match="same grid"):
        run(tmp_path / "a.nii.gz", tmp_path / "a.nii.gz", "--ct", tmp_path / "ct.nii.gz")
