from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from examples import two_femora

from FemurSegLib.errors import InputError
from FemurSegLib.evaluation.calibration import (
    Judged,
    figures,
    fit,
    judged_of,
    leave_one_person_out,
    person_of,
    read_judged,
    reliability,
    shortened,
    wilson,
    write_calibration,
)
from FemurSegLib.evaluation.score import CaseScore, FemurScore
from FemurSegLib.models import Model
from FemurSegLib.segmentation.confidence import DOUBTS, FILE, GOOD_DICE, Evidence, load_calibration
from FemurSegLib.sides import LEFT, RIGHT
from FemurSegLib.volume import Volume


def femora(count=200, people=10, seed=0):
    """Femora whose probability to be good is known: logit 2 - 1.5 blur - 1 metal; the other doubts are noise."""
    rng = np.random.default_rng(seed)
    out = []
    for n in range(count):
        x = rng.uniform(0, 3, 4) * (1, 1, 0.5, 0.2)
        p = 1 / (1 + math.exp(-(2 - 1.5 * x[0] - x[1])))
        dice = 0.97 if rng.random() < p else 0.9
        out.append(Judged(f"c{n}", f"p{n % people}", (RIGHT, LEFT)[n % 2], dice, p, Evidence(*map(float, x))))
    return out


def test_the_fit_finds_what_the_cases_were_made_from():
    cases = femora(2000)
    calibration = fit(cases)
    weights = dict(zip(DOUBTS, calibration.weights, strict=True))
    assert calibration.intercept == pytest.approx(2, abs=0.4)
    assert weights["blur"] == pytest.approx(1.5, abs=0.3) and weights["metal"] == pytest.approx(1, abs=0.3)
    said = [calibration.confidence(c.evidence) for c in cases]
    assert np.abs(np.array(said) - [c.confidence for c in cases]).mean() < 0.05


def test_a_doubt_that_seems_to_help_gets_no_weight():
    cases = [
        Judged(c.case, c.person, c.side, 1.87 - c.dice, 0.0, c.evidence) for c in femora(300)
    ]  # good and bad swapped
    calibration = fit(cases)
    assert all(weight >= 0 for weight in calibration.weights)
    assert dict(zip(DOUBTS, calibration.weights, strict=True))["blur"] == 0


def test_a_doubt_that_no_case_shows_lowers_the_confidence_all_the_same():
    cases = [replace(c, evidence=replace(c.evidence, metal=0.0)) for c in femora(100)]
    calibration = fit(cases)
    plain, metal = (calibration.confidence(Evidence(0.5, x, 0.0, 0.0)) for x in (0.0, 3.0))
    assert metal < plain - 0.1


def test_few_cases_do_not_make_it_sure():
    cases = [
        Judged(f"c{n}", f"p{n}", RIGHT, 0.9 + 0.08 * (n % 2), 0.0, Evidence(2.0 * (n % 2 == 0), 0.0, 0.0, 0.0))
        for n in range(8)
    ]
    calibration = fit(cases)
    best, worst = (calibration.confidence(Evidence(x, 0.0, 0.0, 0.0)) for x in (0.0, 2.0))
    assert 0.6 < best < 0.95 and 0.05 < worst < 0.4


def test_a_person_is_judged_by_the_others_alone():
    cases = femora(60, people=6)
    judged = leave_one_person_out(cases)
    assert {(c.case, c.person, c.dice) for c in judged} == {(c.case, c.person, c.dice) for c in cases}
    others = fit([c for c in cases if c.person != "p3"])
    for c in judged:
        if c.person == "p3":
            assert c.confidence == pytest.approx(others.confidence(c.evidence))


def test_figures_of_known_judgements():
    def judged(*pairs):
        return [Judged(f"c{n}", f"p{n}", RIGHT, 0.97 if good else 0.8, p) for n, (p, good) in enumerate(pairs)]

    f = figures(judged((0.9, True), (0.8, True), (0.2, False), (0.1, False)))
    assert f["brier"] == pytest.approx(0.025) and f["brier_of_the_share"] == 0.25 and f["roc_area"] == 1
    assert (f["femora"], f["people"], f["good"]) == (4, 4, 2)
    assert figures(judged((0.5, True), (0.5, False)))["roc_area"] == 0.5
    assert math.isnan(figures(judged((0.5, True)))["roc_area"])


def test_groups_of_the_reliability_plot_hold_all_femora():
    cases = femora(43)
    groups = reliability(cases)
    assert sum(g.count for g in groups) == 43 and max(g.count for g in groups) - min(g.count for g in groups) <= 1
    assert [g.confidence for g in groups] == sorted(g.confidence for g in groups)
    assert all(g.low <= g.share <= g.high for g in groups)
    assert reliability([]) == []


def test_wilson_interval_holds_the_share_itself():
    for count in range(1, 40):
        for hits in range(count + 1):
            low, high = wilson(hits, count)
            assert 0 <= low <= hits / count <= high <= 1


def test_wilson_interval_of_a_published_example():
    """Newcombe 1998, Stat Med 17:857, Table I, method 3: 81 of 263 and 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-4)


def test_people_are_told_from_names():
    assert person_of("z019_legs_9000") == person_of("z019_lower_leg_0001~lower30") == "z019"
    assert person_of("llp26-3_thigh_0012") == "llp26-3"
    assert person_of("STS_046~upper80") == "STS_046"


def test_femora_of_scores_are_judged():
    evidence = {"blur": 1.0, "metal": 0.0, "missing": 0.0, "unlocated": 0.1}
    here = FemurScore(RIGHT, True, True, dice=0.96, confidence=0.8, evidence=evidence)
    extra = FemurScore(LEFT, False, True, dice=math.nan, confidence=0.4)
    missed = FemurScore(LEFT, True, False, dice=0.0)
    scores = [
        CaseScore("a", "ok", femurs=(here, extra)),
        CaseScore("b", "ok", femurs=(here, missed)),
        CaseScore("c", "ok", labelled=False, femurs=(here,)),
    ]
    judged = judged_of(scores, {"a": "somebody"})
    assert [(j.case, j.person, j.side, j.dice) for j in judged] == [
        ("a", "somebody", RIGHT, 0.96), ("a", "somebody", LEFT, 0.0), ("b", "b", RIGHT, 0.96),
    ]  # fmt: skip
    assert judged[0].evidence == Evidence(**evidence) and judged[0].good and not judged[1].good


def test_femora_of_weights_without_any_fitted_confidence_are_judged_so_that_one_can_be_fitted():
    evidence = {"blur": 1.0, "metal": 0.0, "missing": 0.0, "unlocated": 0.1}
    new = FemurScore(RIGHT, True, True, dice=0.96, confidence=math.nan, evidence=evidence)
    (judged,) = judged_of([CaseScore("a", "ok", femurs=(new,))])
    assert judged.evidence == Evidence(**evidence) and judged.good and math.isnan(judged.confidence)


def test_a_case_is_shortened_from_both_ends():
    ct, labels = two_femora()
    pieces = shortened(ct, Volume(labels, ct.grid))
    assert set(pieces) == {"lower30", "upper30"}, "of 94 mm, 80 mm would be no piece"
    for piece, reference in pieces.values():
        assert piece.grid.matches(reference.grid)
        slices = np.flatnonzero((reference.voxels > 0).any(axis=(1, 2)))
        assert (slices[-1] - slices[0] + 1) * piece.grid.spacing_mm[2] == pytest.approx(30, abs=2)
    low, high = (piece.grid.lps((0, 0, 0))[2] for piece, _ in pieces.values())
    assert low < high, "the first piece is the lower one"
    assert shortened(ct, Volume(np.zeros_like(labels), ct.grid)) == {}


USED = [Model("segmenter_segresnet", "segmenter", "segresnet", None, "f" * 64)]


def test_what_is_written_can_be_used_and_shown(tmp_path):
    cases = femora(40, people=5)
    (tmp_path / FILE).write_text(json.dumps({"vnet": {"kept": 1}}))
    entry = write_calibration(tmp_path, cases, USED)
    assert entry["leave_one_person_out"]["femora"] == 40 and entry["good_dice"] == GOOD_DICE
    calibration = load_calibration("segmenter_segresnet", tmp_path)
    assert calibration.fits(USED) and calibration.weights == fit(cases).weights
    shown = read_judged("segmenter_segresnet", tmp_path)
    expected = leave_one_person_out(cases)
    assert [(j.case, j.side) for j in shown] == [(j.case, j.side) for j in expected]
    assert np.allclose([j.confidence for j in shown], [j.confidence for j in expected], atol=1e-4)
    assert json.loads((tmp_path / FILE).read_text())["vnet"] == {"kept": 1}
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


def test_too_little_to_learn_from_is_told(tmp_path):
    cases = femora(40, people=5)
    for few in (cases[:5], [c for c in cases if c.good], [c for c in cases if c.person in ("p0", "p1")], []):
        with pytest.raises(InputError, match="too few"):
            write_calibration(tmp_path / FILE, few, USED)
    assert not (tmp_path / FILE).exists()
