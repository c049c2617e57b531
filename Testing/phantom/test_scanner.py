from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from FemurSegLib.phantom.scanner import STREAK_LENGTH_MM, Scanner, sample_scanner, scan

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


@pytest.mark.parametrize("slice_mm", [1.0, 2.0, 5.0])
def test_streaks_of_metal_change_slowly_along_the_slices(slice_mm):
    body = torch.zeros((240, 40, 40))
    body[20:220, 18:22, 18:22] = 3000.0
    scanner = replace(QUIET, spacing_mm=slice_mm)
    seen = scan(body, scanner, (2.0, 2.0, slice_mm), torch.Generator().manual_seed(0))
    assert not seen[:20].any() and not seen[220:].any()
    assert torch.equal(seen[body > 0], body[body > 0])
    streaks = seen[20:220, 10, 5:35].double()
    steps = max(1, round(STREAK_LENGTH_MM / slice_mm))
    expected = np.exp(-((steps * slice_mm / STREAK_LENGTH_MM) ** 2))
    alike = (streaks[steps:] * streaks[:-steps]).mean() / (streaks**2).mean()
    assert float(alike) == pytest.approx(expected, abs=0.15)
    assert 60 < float(streaks.std()) < 400
