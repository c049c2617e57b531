from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_person import keep

from FemurSegLib.training.cases import Case
from FemurSegLib.training.compartments import CompartmentPatches
from FemurSegLib.training.patches import IGNORE, PhantomSource, RealSource, _rescan, coarse, cut_away
from FemurSegLib.volume import Grid, Volume, write_volume

PATCH = (24, 24, 24)


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_real_patches_are_what_the_network_takes(case):
    source = RealSource([case], PATCH)
    seen = set()
    for number in range(12):
        image, label = source[number]
        assert image.shape == label.shape == PATCH
        assert image.dtype == torch.float32 and label.dtype == torch.uint8
        assert 0 <= float(image.min()) and float(image.max()) <= 2
        seen |= set(label.unique().tolist())
    assert seen == {0, 1, IGNORE}


def test_a_patch_follows_from_its_number_alone(case, tmp_path):
    phantoms = PhantomSource(tmp_path, (keep(tmp_path),), tmp_path, PATCH, feet="toy", per_patient=2)
    for source in (phantoms, RealSource([case], PATCH)):
        patches = [source[number] for number in range(4)]
        assert equal(patches[2], source[2]) and equal(patches[1], source[1])
        assert not equal(patches[2], patches[3])
        assert not equal(patches[0], patches[2])


def test_a_patch_of_a_phantom_has_its_femur(tmp_path):
    """The folder of shapes is not needed once people are kept."""
    source = PhantomSource(tmp_path, (keep(tmp_path),), tmp_path, PATCH, feet="toy", per_patient=3)
    patches = [source[number] for number in range(4)]
    assert all(image.shape == PATCH and set(label.unique().tolist()) <= {0, 1} for image, label in patches)
    assert any(label.any() for _, label in patches)


@pytest.mark.parametrize("patch", [(16, 24, 32), (100, 100, 100)])
def test_a_real_patch_that_is_not_augmented_shows_what_is_there(tmp_path, patch):
    """HU that grow along each axis tell where a voxel of the patch comes from; beyond the CT there is air."""
    spacing, shape = (2.0, 1.5, 3.0), (30, 40, 20)
    k, j, i = np.indices(shape)
    hu = i * 2.0 + 0.1 * j * 1.5 + 0.01 * k * 3.0
    labels = ((i > 5) & (i < 14) & (j > 10) & (j < 30) & (k > 10)).astype(np.uint8)
    grid = Grid(shape, spacing, (0.0, 0.0, 0.0), np.eye(3))
    write_volume(tmp_path / "a_CT.nii.gz", Volume(np.round(100 * hu - 1000).astype(np.int16), grid))
    write_volume(tmp_path / "a_femurs.nii.gz", Volume(labels, grid))
    case = Case(tmp_path / "a_CT.nii.gz", tmp_path / "a_femurs.nii.gz")
    source = RealSource([case], patch, augment=False)
    center = np.array((9.0, 20.0, 18.0))
    block, matrix = source._place(shape, center, np.array(spacing), np.eye(3))
    voxels = torch.from_numpy(hu)[block].float()
    found = source._resample(voxels, matrix)
    for at in np.random.default_rng(0).integers(0, patch, (200, 3)):
        ijk = center + (at[::-1] - (np.array(patch[::-1]) - 1) / 2) / spacing
        if (ijk >= 0).all() and (ijk <= np.array(shape[::-1]) - 1).all():
            expected = ijk @ (2.0, 0.15, 0.03)
            assert float(found[tuple(at)]) == pytest.approx(expected, abs=1e-3)
        elif (ijk < -1).any() or (ijk > shape[::-1]).any():
            assert float(found[tuple(at)]) == 0
    assert source[0][1].any()


@pytest.fixture
def device_without_values(monkeypatch):
    """torch's `meta` stands for a GPU: it has shapes and no numbers, and does not mix with the CPU. What asks for a
    number is answered so that most is painted."""
    randn, default = torch.randn, torch.default_generator

    class AnyGenerator:
        def __new__(cls, device="cpu"):
            return default

    with pytest.raises((RuntimeError, TypeError)):
        torch.ones(3) + torch.ones(3, device="meta")
    monkeypatch.setattr(torch, "Generator", AnyGenerator)
    monkeypatch.setattr(torch, "randn", lambda *size, generator=None, **where: randn(*size, **where))
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: True)
    monkeypatch.setattr(torch.Tensor, "__float__", lambda tensor: -10.0)
    monkeypatch.setattr("torch.fx.experimental._config.meta_nonzero_assume_all_nonzero", True)
    return "meta"


def test_patches_are_made_wholly_on_the_device_that_is_asked_for(case, device_without_values, tmp_path):
    device = device_without_values
    phantoms = PhantomSource(tmp_path, (keep(tmp_path),), tmp_path, PATCH, device=device, feet="toy", per_patient=1)
    compartments = CompartmentPatches(tmp_path, ("toy",), tmp_path, PATCH, device=device, feet="toy", per_patient=1)
    for source in (phantoms, RealSource([case], PATCH, device=device), compartments):
        for number in range(6):
            image, label = source[number]
            assert image.device.type == label.device.type == device
            assert image.shape[-3:] == label.shape == PATCH


@pytest.mark.parametrize("faces", [1, 2])
def test_a_volume_ends_at_as_many_faces_as_are_asked_for(faces):
    for seed in range(10):
        hu, mask = torch.zeros(PATCH), torch.ones(PATCH, dtype=torch.bool)
        cut_away(hu, mask, np.random.default_rng(seed), faces)
        assert torch.equal(mask, hu == 0) and torch.equal(~mask, hu == -1000)
        left = mask.nonzero()
        assert len(left) == (left.max(0).values - left.min(0).values + 1).prod()  # still a box
        assert 1 <= sum(int(mask.any(d).any(e).sum()) < 24 for d, e in ((1, 1), (0, 1), (0, 0))) <= faces


def test_a_patch_that_is_scanned_again_stays_in_its_place():
    at = torch.stack(torch.meshgrid(*[torch.arange(24.0) - 11.5] * 3, indexing="ij"))
    ball = torch.where(at.norm(dim=0) < 7, 1000.0, -1000.0)
    for seed in range(40):
        inside = (_rescan(ball.clone(), np.random.default_rng(seed)) > 0).float()
        assert ((at * inside).sum((1, 2, 3)) / inside.sum()).abs().max() < 0.1, seed


@pytest.mark.parametrize("voxel_mm", [1.2, 1.7, 3.0])
def test_coarse_voxels_keep_place_and_mean_and_lose_detail(voxel_mm):
    at = torch.stack(torch.meshgrid(*[torch.arange(24.0) - 11.5] * 3, indexing="ij"))
    ball = torch.where(at.norm(dim=0) < 6, 1000.0, 0.0)
    seen = coarse(ball, voxel_mm)
    assert seen.shape == ball.shape
    assert ((at * seen).sum((1, 2, 3)) / seen.sum()).abs().max() < 1e-2
    assert seen.mean() == pytest.approx(ball.mean().item(), rel=0.06)
    assert ((seen > 10) & (seen < 990)).sum() > ((ball > 10) & (ball < 990)).sum()
