"""`femurseg surface`."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
from examples import two_femora

from FemurSegLib.errors import InputError, NoFemurError
from FemurSegLib.sides import LABELS, LEFT, RIGHT
from FemurSegLib.surfaces.command import add_parser
from FemurSegLib.surfaces.files import read_surface
from FemurSegLib.surfaces.quality import quality
from FemurSegLib.volume import Volume, write_volume


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    ct, labels = two_femora()
    from scipy.ndimage import binary_erosion

    inside = np.where(binary_erosion(labels > 0, iterations=3), labels, 0).astype(np.uint8)
    parts = np.where(inside > 0, 10 * labels + 2, np.where(labels > 0, 10 * labels + 1, 0)).astype(np.uint8)
    loose = labels.copy()
    loose[2:5, 2:5, 2:5] = LABELS[RIGHT]
    for name, voxels in (
        ("mask", labels),
        ("inside", inside),
        ("parts", parts),
        ("loose", loose),
        ("none", 0 * labels),
    ):
        write_volume(folder / f"{name}.nii.gz", Volume(voxels, ct.grid))
    small = ct.grid.crop((0, 0, 0), (50, 50, 50))
    write_volume(folder / "other.nii.gz", Volume(labels[:50, :50, :50].copy(), small))
    return folder


def run(*words) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["surface", *map(str, words)])
    return args.run(args)


def test_both_sides_are_written_in_each_format_with_the_volume_of_the_mask(folder, tmp_path, capsys):
    assert run(folder / "mask.nii.gz", "--out", tmp_path, "--format", "stl", "ply", "--edge-length-mm", 2) == 0
    assert "Right femur:" in capsys.readouterr().out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"{side}.{e}" for side in (RIGHT, LEFT) for e in ("stl", "ply")} | {"surfaces.json"}
    told = json.loads((tmp_path / "surfaces.json").read_text())["surfaces"]
    for side in (RIGHT, LEFT):
        worth = quality(read_surface(tmp_path / f"{side}.ply"))
        assert worth.closed and worth.edge_mm == pytest.approx(2, rel=0.05)
        assert worth.volume_mm3 / 1000 == pytest.approx(told[side]["mask_ml"], rel=0.005)
        assert told[side]["open_edges"] == 0


@pytest.mark.parametrize("words", [("mask.nii.gz", "--inside", "inside.nii.gz"), ("parts.nii.gz",)])
def test_cortex_and_inside_come_as_two_surfaces(folder, tmp_path, words):
    words = [folder / word if word.endswith(".gz") else word for word in words]
    assert run(*words, "--out", tmp_path, "--side", "left") == 0
    assert {path.name for path in tmp_path.glob("*.stl")} == {"left_femur.stl", "left_femur_inside.stl"}
    outer, inner = (quality(read_surface(tmp_path / f"left_femur{part}.stl")) for part in ("", "_inside"))
    assert 0 < inner.volume_mm3 < outer.volume_mm3


def test_an_island_is_left_away_unless_it_is_wanted(folder, tmp_path):
    run(folder / "loose.nii.gz", "--out", tmp_path / "a", "--side", "right")
    run(folder / "loose.nii.gz", "--out", tmp_path / "b", "--side", "right", "--all-pieces")
    assert [quality(read_surface(tmp_path / n / "right_femur.stl")).pieces for n in "ab"] == [1, 2]


def test_what_cannot_be_done_is_told(folder, tmp_path):
    with pytest.raises(NoFemurError):
        run(folder / "none.nii.gz", "--out", tmp_path / "c")
    with pytest.raises(InputError, match="same grid"):
        run(folder / "mask.nii.gz", "--inside", folder / "other.nii.gz", "--out", tmp_path / "c")
    with pytest.raises(SystemExit):
        run(folder / "mask.nii.gz", "--out", tmp_path / "c", "--edge-length-mm", 0.01)
    assert not (tmp_path / "c").exists()
