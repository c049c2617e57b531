from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from FemurSegLib.phantom.metal_artefact import Beam, Rays, metal_artefact
from FemurSegLib.phantom.scanner import Scanner, sample_scanner, scan

QUIET = Scanner(0.0, 0.0, 0.0, 2.0, 0.0, 0.5, 0.0, 1.0, 0.0, 0.0)


def test_a_scanner_adds_the_noise_it_says():
    quiet = torch.zeros((20, 60, 60))
    scanner = replace(QUIET, noise_hu=30.0)
    seen = scan(quiet, scanner, (1.0, 1.0, 2.0), torch.Generator().manual_seed(0))
    assert float(seen.std()) == pytest.approx(30, rel=0.05) and abs(float(seen.mean())) < 2
    still = scan(quiet, QUIET, (1.0, 1.0, 2.0), torch.Generator().manual_seed(0))
    assert float(still.abs().max()) < 1e-3


def test_scanned_values_fit_into_twelve_bits():
    wild = torch.randn((16, 32, 32)) * 4000
    for seed in range(8):
        scanner = sample_scanner(np.random.default_rng(seed))
        seen = scan(wild, scanner, (0.8, 0.8, 1.0), torch.Generator().manual_seed(seed))
        assert seen.isfinite().all() and seen.min() >= -1024 and seen.max() <= 3071


def stem_in_water(slices: int = 6) -> torch.Tensor:
    """HU of an oval rod, 26 mm from side to side and 16 deep, that the outer two slices lack; voxels of 1 mm."""
    y, x = torch.meshgrid(torch.arange(100) - 50.0, torch.arange(120) - 60.0, indexing="ij")
    body = torch.zeros((slices, 100, 120))
    body[1:-1, ((x / 13) ** 2 + (y / 8) ** 2) < 1] = 3000.0
    return body


def test_metal_throws_shadows_along_itself_that_fade_and_leave_other_slices_alone():
    body = stem_in_water()
    seen = scan(body, QUIET, (1.0, 1.0, 2.0), torch.Generator().manual_seed(0))
    assert not seen[0].any() and not seen[-1].any()
    assert torch.equal(seen[body > 0], body[body > 0])
    beside, before = seen[2, 47:54, 76:82].mean(), seen[2, 36:40, 57:64].mean()
    assert beside < -100 < 100 < before  # longer ways through the metal are read too short
    far = seen[2, 47:54, 110:118].mean()
    assert abs(far) < 0.2 * abs(beside)


def test_starved_rays_make_metal_noisier_than_a_beam_of_many_photons():
    def noise_of(level):
        scanner = replace(QUIET, beam=Beam(noise=level))
        one, other = (
            scan(stem_in_water(), scanner, (1.0, 1.0, 2.0), torch.Generator().manual_seed(s)) for s in (0, 1)
        )
        return float((one - other)[2, 20:30, 20:100].std())

    assert noise_of(0.02) > 3 * noise_of(0.004) > 0


def test_metal_in_a_round_body_keeps_its_size_on_any_grid():
    """Rays through a disc are alike from all sides: outside it nothing changes, however fine the voxels are."""
    for mm in (0.7, 1.0, 2.0):
        n = round(80 / mm)
        at = (torch.arange(n) - (n - 1) / 2) * mm
        disc = (torch.hypot(at[:, None], at[None]) < 10).float()[None]
        beam = Beam(wide_mm=200.0, deep_mm=200.0, noise=0.0)
        added = metal_artefact(disc, (mm, mm, 1.0), beam, torch.Generator().manual_seed(0))
        outside = torch.hypot(at[:, None], at[None]) > 16
        assert float(added[0][outside].abs().max()) < 60 < float(added[0][disc[0] > 0].abs().max())


def test_projections_come_back_as_what_was_projected():
    metal = torch.zeros((2, 60, 70))
    metal[0, 20:35, 30:50], metal[1, 10:16, 8:14] = 1.0, 0.5
    rays = Rays((60, 70), (1.5, 1.2), torch.device("cpu"))
    lengths = rays.project(metal)
    assert float(lengths[0, :, 0].max()) == pytest.approx(15 * 1.2, rel=0.15)  # along the rows' direction: 15 rows
    back = rays.project_back(lengths)
    assert float(back[0, 27, 40]) == pytest.approx(1, abs=0.05)
    assert float(back[1, 13, 11]) == pytest.approx(0.5, abs=0.07)
    assert float(back[0, 5:12, 5:25].abs().max()) < 0.05
