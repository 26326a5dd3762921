"""Statistics and endings of the comparison: intervals that cover on data like these, Holm, lost runs, sentences."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from kto_lab.comparison import findings, headlines
from kto_lab.comparison.findings import ending, holm, sign_flip_p, spread
from kto_lab.comparison.protocol import HYPOTHESES, LEVEL, MARGIN, MEASURE


def lost_or_not(rng, n, share=0.125):
    """What the runs look like: about 0.9, or 0 where the run was lost."""
    return np.where(rng.random(n) < share, 0.0, rng.normal(0.9, 0.03, n))


@pytest.mark.parametrize("n", [10, 20, 30])
def test_the_interval_covers_the_median_of_data_like_these(n):
    rng, median = np.random.default_rng(0), 0.9 + 0.03 * -0.1800  # the 0.5 quantile of the mixture
    covered = [
        found.low <= median <= found.high for found in (spread(lost_or_not(rng, n)) for _ in range(1_500))
    ]  # fmt: skip
    assert np.mean(covered) > 0.94


def test_the_interval_is_made_of_the_order_statistics_of_the_binomial():
    found = spread(range(1, 31))  # n = 30: the 10th and the 21st cover 95.7%
    assert (found.low, found.high, found.median) == (10.0, 21.0, 15.5)


@pytest.mark.parametrize(("values", "message"), [([0.1] * 5, "needs at least 6"),
                                                 ([0.1] * 9 + [math.nan], "not all finite")])  # fmt: skip
def test_no_interval_from_too_few_seeds(values, message):
    with pytest.raises(ValueError, match=message):
        spread(values)


def test_the_sign_flip_test_lists_all_flips_where_they_are_few():
    assert sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == pytest.approx(2 / 64)
    assert sign_flip_p([0.0] * 6) == 1.0


def test_five_pairs_can_never_reach_the_level():
    assert sign_flip_p([1.0, 1.1, 1.2, 1.3, 1.4]) > LEVEL


def test_false_calls_are_as_rare_as_they_should_be():
    rng = np.random.default_rng(1)
    differences = (lost_or_not(rng, 12) - lost_or_not(rng, 12) for _ in range(400))
    assert np.mean([sign_flip_p(values) < 0.05 for values in differences]) < 0.075


def test_holm_is_holm():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.5, "b": 0.9}) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize(
    ("values", "p", "expected"),
    [
        ([0.3] * 8, 0.01, "supported"),
        ([-0.3] * 8, 0.01, "refuted"),
        ([0.3] * 8, 0.2, "open"),
        ([MARGIN / 2] * 8, 0.001, "no difference worth naming"),
        ([-MARGIN / 2, MARGIN / 2] * 4, 0.9, "no difference worth naming"),
        ([-0.3, 0.3] * 4, 0.9, "open"),
    ],
)
def test_each_ending_has_its_case(values, p, expected):
    assert ending(spread(values), p) == expected


# --- on made-up results ---------------------------------------------------------------------------------------------


class MadeUp:
    """Results whose cells are given by a function (condition, method, way, small) -> mean rate."""

    def __init__(self, rate_of, n=30):
        self.rate_of, self.n = rate_of, n
        self.reference = {small: {MEASURE: 0.25} for small in (True, False)}

    def cell(self, condition, method, way=findings.ONCE, small=True):
        rate = self.rate_of(condition, method, way, small)
        return [{MEASURE: rate + 0.001 * (seed % 3), "seed": seed} for seed in range(self.n)]


def test_every_hypothesis_ends_as_the_numbers_say():
    def right(condition, method, way, small):  # whoever a hypothesis puts first leads there
        for _, where, on, one, _, size in HYPOTHESES.values():
            if (on, one, size) == (condition, method, small) and where in (way, "both" if way == findings.EACH else ""):
                return 0.9 if one in ("sft", "dpo + sft") else 0.6
        return 0.2

    found = {one.name: one for one in findings.findings(MadeUp(right))}
    assert found.keys() == HYPOTHESES.keys()
    assert found["few downs: KTO over DPO"].ending == "supported"
    assert found["tuning"].difference.mean == pytest.approx(0.4)
    level = findings.findings(MadeUp(lambda *cell: 0.5))
    assert {one.ending for one in level} == {"no difference worth naming"}
    down = {one.name: one.ending for one in findings.findings(MadeUp(lambda c, method, w, s: 0.1 * len(method)))}
    assert down["clean: the term helps KTO"] == "supported"
    assert down["clean: the weights"] == "refuted"


def test_a_sentence_carries_its_numbers():
    one = findings.findings(MadeUp(lambda c, method, w, s: 0.1 * len(method)))[3]
    assert one.sentence.startswith("With all thumbs an SFT term lifts KTO. Supported: +0.600, median +0.600 [")
    assert one.sentence.endswith("30 seeds.")


def test_lost_runs_are_those_that_end_below_the_start():
    results = MadeUp(lambda *cell: 0.2495)  # 0.2495, 0.2505, 0.2515 over and over: a third lies below 0.25
    count, n, low, high = findings.lost(results, "all thumbs", "kto")
    assert (count, n) == (10, 30)
    assert low < 1 / 3 < high
    assert (low, high) == pytest.approx((0.1923, 0.5122), abs=1e-4)  # Wilson, by his formula


def test_the_best_method_stands_with_those_that_are_not_shown_to_be_worse():
    def rate(condition, method, way, small):
        return {"sft": 0.9, "kto + sft": 0.895}.get(method, 0.5)

    assert findings.best_methods(MadeUp(rate), "all thumbs") == ("sft", "kto + sft")


def test_a_measure_that_runs_do_not_have_is_refused():
    results = SimpleNamespace(cell=lambda *cell: [{MEASURE: 0.5}])
    with pytest.raises(ValueError, match="measure is 'mood'; runs have new wording thumbs_up"):
        findings.values_of(results, "all thumbs", "kto", measure="mood")


def test_the_headlines_say_who_leads_and_who_is_not_shown_to_be_worse():
    def rate(condition, method, way, small):
        if "flipped" in condition:
            return {"kto": 0.8 if way == findings.EACH or condition == "10% flipped" else 0.1}.get(method, 0.5)
        return {"sft": 0.9, "kto + sft": 0.895, "kto": 0.7}.get(method, 0.6)

    lines = headlines.headlines(MadeUp(rate))
    assert len(lines) == 6
    assert lines[0] == (
        "**Clean thumbs:** plain SFT on the thumbs-up ends highest (0.90), not shown to be better than KTO with an SFT "
        "term (0.90); KTO at 0.70 and DPO at 0.60."
    )
    tuned = "KTO ends highest (0.80); DPO at 0.50 and plain SFT on the thumbs-up at 0.50"
    assert f"tuned for the noise, {tuned}" in lines[2]
    assert "of 210 runs of each method over seven kinds of thumbs 60 of KTO, 0 of " in lines[4]


@pytest.mark.parametrize(("names", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_lists_read_as_one_says_them(names, text):
    assert headlines.listed(names) == text
