from __future__ import annotations

import numpy as np
import pytest
import torch

from FemurSegLib.grid import Grid
from FemurSegLib.phantom.fields import (
    COARSE,
    Noise,
    capsule,
    coarse_points,
    distance_to_line,
    enlarge,
    voxel_points,
)

CPU = torch.device("cpu")
TURNED = np.array([[0.6, -0.8, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, -1.0]])
GRID = Grid((6, 9, 11), (0.8, 1.1, 2.5), (-30.0, 12.0, 400.0), TURNED)


def test_points_lie_where_the_grid_says():
    points = voxel_points(GRID, CPU)
    assert points.shape == (6, 9, 11, 3)
    assert np.allclose(points[5, 2, 7], GRID.lps((7, 2, 5)), atol=1e-4)


def test_coarse_points_enlarge_to_the_points_of_all_voxels():
    coarse = coarse_points(GRID, CPU)
    assert coarse.shape == (3, 3, 4, 3)
    assert np.allclose(coarse[1, 2, 1], GRID.lps((COARSE, 2 * COARSE, COARSE)), atol=1e-4)
    assert torch.allclose(enlarge(coarse, GRID.shape), voxel_points(GRID, CPU), atol=1e-3)


def test_smooth_noise_belongs_to_the_patient_and_has_unit_variance():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand((1, 1, 20000, 3), generator=generator) * 2000 - 1000
    one, again, other = (Noise(seed, CPU).smooth(points, (30, 30, 60), 2) for seed in (5, 5, 6))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert not torch.equal(one, Noise(5, CPU).smooth(points, (30, 30, 60), 3))
    assert 0.7 < float(one.std()) < 1.3 and abs(float(one.mean())) < 0.1
    assert torch.allclose(one[0, 0, 0], Noise(5, CPU).smooth(points[:, :, :1], (30, 30, 60), 2)[0, 0, 0])


@pytest.mark.parametrize("grain_mm", [1.0, 4.0])
def test_texture_is_new_at_each_call_and_the_same_from_the_same_seed(grain_mm):
    noise, again = Noise(5, CPU), Noise(5, CPU)
    first, second = (noise.texture((20, 30, 25), grain_mm, 1.0) for _ in range(2))
    assert first.shape == (20, 30, 25) and 0.7 < float(first.std()) < 1.3
    assert torch.equal(first, again.texture((20, 30, 25), grain_mm, 1.0)) and not torch.equal(first, second)


def test_distances_to_a_capsule_and_a_line_have_known_answers():
    start, end = torch.tensor([0.0, 0, 0]), torch.tensor([0.0, 0, 10])
    points = torch.tensor([[5.0, 0, 0], [0, 5, 5], [0, 0, -4], [0, 3, 14]])
    assert torch.allclose(capsule(points, start, end, 1.0, 3.0), torch.tensor([4.0, 3, 3, 2]))
    line = torch.tensor([[0.0, 0, 0], [0, 0, 10], [0, 20, 10]])
    assert torch.allclose(distance_to_line(points, line), torch.tensor([5.0, 5, 4, 4]))
