"""Statistics and verdicts: what an interval is, what a contrast adds up, when a hypothesis counts as supported."""

import math

import numpy as np
import pytest

from kto_lab.experiments import findings
from kto_lab.experiments.protocol import EXPERIMENTS
from kto_lab.experiments.results import load_results

STORED = load_results()


def made_up(values, name="clean pairs"):
    """Results with one measure: {(condition, method): [a value for each seed]}."""
    runs = [
        {"experiment": name, "condition": condition, "method": method, "seed": seed, "m": value}
        for (condition, method), numbers in values.items()
        for seed, value in zip(EXPERIMENTS[name].seeds, numbers, strict=False)
    ]
    return {"runs": runs, "reference": {"small": {"m": 0.25}}}


def test_the_interval_holds_the_mean_and_grows_with_the_spread():
    narrow, wide = findings.interval([1.0, 1.1, 0.9, 1.0, 1.05]), findings.interval([0.0, 2.0, -1.0, 3.0, 1.25])
    for found in (narrow, wide):
        assert found.low < found.mean < found.high
        assert found.mean == pytest.approx(np.mean(found.values))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_the_interval_is_that_of_scipy_s_bootstrap_over_all_resamples_of_two_values():
    found = findings.interval([0.0, 1.0])  # resampled means are 0, 1/2, 1 with chances 1/4, 1/2, 1/4
    assert (found.low, found.mean, found.high) == (0.0, 0.5, 1.0)


def test_the_same_values_give_the_same_interval():
    assert findings.interval([0.1, 0.3, 0.2]) == findings.interval([0.1, 0.3, 0.2])


def test_equal_values_have_an_interval_without_width():
    found = findings.interval([0.5] * 5)
    assert (found.low, found.high) == (0.5, 0.5)


@pytest.mark.parametrize(("values", "message"), [([], "needs at least 2"), ([0.1], "needs at least 2"),
                                                 ([0.1, math.nan], "not all finite")])  # fmt: skip
def test_no_interval_from_fewer_than_two_seeds(values, message):
    with pytest.raises(ValueError, match=message):
        findings.interval(values)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.3, "supported"), (-0.3, -0.1, "refuted here"), (-0.1, 0.2, "inconclusive"), (0.0, 0.2, "inconclusive")],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(low, high, verdict):
    assert findings.Difference((low + high) / 2, low, high, ()).verdict == verdict


def test_a_contrast_is_paired_by_seed_whatever_the_order_of_the_runs():
    kto, dpo = [0.1 * i for i in range(8)], [0.1 * i - 0.05 for i in range(8)]
    results = made_up({("clean", "kto"): kto, ("clean", "dpo"): dpo})
    results["runs"] = results["runs"][::-1]
    found = findings.difference(results, "clean pairs", findings.versus("clean", "kto", "dpo", "m"))
    assert found.values == pytest.approx([0.05] * 8)
    assert found.high - found.low < 1e-9


def test_the_model_before_training_can_stand_in_a_contrast():
    results = made_up({("clean", "kto"): [0.5] * 8})
    found = findings.difference(results, "clean pairs", findings.versus("clean", "kto", "reference", "m"))
    assert found.mean == pytest.approx(0.25)


def test_missing_seeds_and_unknown_measures_are_refused():
    results = made_up({("clean", "kto"): [0.5] * 8, ("clean", "dpo"): [0.5] * 7})
    with pytest.raises(ValueError, match="paired by seed"):
        findings.difference(results, "clean pairs", findings.versus("clean", "kto", "dpo", "m"))
    with pytest.raises(ValueError, match="measure is 'n'; runs have m"):
        findings.by_seed(results, "clean pairs", "clean", "kto", "n")


def test_every_experiment_but_the_spot_checks_has_a_contrast_that_its_runs_can_answer():
    assert set(findings.CONTRASTS) == set(EXPERIMENTS) - {"full size"}
    for found in findings.findings(STORED):
        assert found.difference.low <= found.difference.mean <= found.difference.high
        assert found.verdict == found.difference.verdict
        assert len(found.difference.values) == len(EXPERIMENTS[found.name].seeds)


def test_a_finding_follows_its_numbers():
    better = made_up({("clean", "dpo"): [0.6 + 0.01 * i for i in range(8)], ("clean", "kto"): [0.5] * 8})
    for run in better["runs"]:
        run[findings.UP] = run["m"]
    assert findings.finding(better, "clean pairs").verdict == "supported"
    for run in better["runs"]:
        run[findings.UP] = -run["m"]
    assert findings.finding(better, "clean pairs").verdict == "refuted here"
    with pytest.raises(ValueError, match="spot_checks"):
        findings.finding(STORED, "full size")


def test_spot_checks_compare_the_same_case_at_both_sizes():
    rows = findings.spot_checks(STORED)
    assert [name for name, _, _ in rows] == list(EXPERIMENTS["full size"].conditions)
    small = findings.difference(STORED, "noise", findings.versus("30%", "kto", "dpo"))
    assert {name: s for name, s, _ in rows}["noise"] == small
