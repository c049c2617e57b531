from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_person import keep

from FemurSegLib.anatomy import compartment_study
from FemurSegLib.anatomy.compartment_study import WAYS, evaluate, line, rough_mask, summary
from FemurSegLib.evaluation.metrics import overlap
from FemurSegLib.sides import LABELS


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    keep(cache, "z013")
    return ["--shapes", str(cache), "--people", keep(cache), "--cache", str(cache), "--spacing", "2", "2", "2"]


@pytest.fixture(scope="module")
def example(arguments):
    """A toy femur of the study, its CT replaced by one that shows the truth: bright cortex, dark inside."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            compartment_study, "evaluate", lambda example, *_: seen.append(example) or dict.fromkeys(ROW, 1.0)
        )
        compartment_study.main([*arguments, "--femora", "1", "--seed", "4", "--ways", "threshold"])
    (found,) = seen
    found.ct.voxels[:] = np.where(found.inside, -50, np.where(found.labels > 0, 1200, 40))
    return found


ROW = (
    "dice mean_mm hd95_mm inside_ml true_inside_ml cortex_ml true_cortex_ml thickness_bias_mm thickness_error_mm "
    "mask_dice mask_mean_mm"
).split()


class Truth(torch.nn.Module):
    def forward(self, x):
        return torch.where(x[:, :1] > 0.4, -9.0, 9.0)  # 520 HU


def test_the_truth_is_scored_as_the_truth_and_the_wrong_as_wrong(example):
    right = evaluate(example, "network", Truth())
    assert right["dice"] > 0.93 and right["mean_mm"] < 0.5  # voxels of 2 mm, resampled to 1 mm and back
    assert right["mask_dice"] == 1.0 and right["mask_mean_mm"] == 0.0
    assert right["inside_ml"] == pytest.approx(right["true_inside_ml"], rel=0.1)
    assert right["inside_ml"] + right["cortex_ml"] == pytest.approx((example.labels > 0).sum() * 8 / 1000)
    assert abs(right["thickness_bias_mm"]) < 0.7
    example.endosteal_mm[:] += 4.0  # the same answer against a canal that is 4 mm narrower all around
    wrong = evaluate(example, "network", Truth())
    example.endosteal_mm[:] -= 4.0
    assert wrong["dice"] < right["dice"] - 0.1 and wrong["mean_mm"] > right["mean_mm"] + 1
    assert wrong["thickness_bias_mm"] < right["thickness_bias_mm"] - 2


def test_the_rough_mask_is_wrong_by_tenths_of_millimetres_and_the_same_again(example):
    rough = rough_mask(example, 3)
    assert np.array_equal(rough, rough_mask(example, 3)) and not np.array_equal(rough, rough_mask(example, 4))
    assert set(np.unique(rough)) == {0, LABELS[example.side]}
    assert 0.8 < overlap(rough > 0, example.labels > 0).dice < 0.99


def test_the_study_prints_a_line_a_femur_and_the_seed(arguments, capsys):
    compartment_study.main([*arguments, "--femora", "2", "--ways", "threshold"])
    printed = capsys.readouterr().out
    assert printed.startswith("seed ") and printed.count("toy") == 2
    assert "threshold: endosteal Dice" in printed and "R2" in printed


def test_the_summary_takes_means_and_the_worst():
    changed = ({"dice": 0.9, "inside_ml": 1.1}, {"inside_ml": 1.8, "true_inside_ml": 2.0, "cortex_ml": 1.1})
    rows = [dict.fromkeys(ROW, 1.0) | each | {"true_cortex_ml": 1.0 + n} for n, each in enumerate(changed)]
    told = summary(rows)
    assert "Dice 0.9500 (worst 0.9000" in told and "inside volume off by 10.0 %" in told
    assert "0.9000" in line(rows[0]) and set(WAYS) >= {"network", "threshold"}
