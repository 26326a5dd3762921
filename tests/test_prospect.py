"""Prospect theory: values from closed forms, properties on random inputs, the lesson against the package."""

import ast
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lesson_source import SOURCES, definitions

from kto_course.pictures import lesson_01b
from kto_utils.prospect import prospect_value, value, weight

ROOT = Path(__file__).resolve().parents[1]
LESSON, DEEPER = "01_prospect_theory", "01b_ranks_and_lotteries"

exponents = st.floats(0.05, 1.0)
aversions = st.floats(0.1, 5.0)
gammas = st.floats(0.3, 1.0)  # where the weighting rises everywhere
amounts = st.floats(-1000, 1000).filter(lambda x: x == 0 or abs(x) > 1e-6)
gains = st.floats(0.01, 1000)


@st.composite
def gambles(draw, outcomes=amounts, most=6):
    """Chances in 1024ths: they add up to exactly 1 in any order. Next to 1 the weighting is so steep that a sum which
    ends one rounding below it would be felt (`test_chances_that_round_lose_no_more_than_the_curve_s_steepness`)."""
    z = draw(st.lists(outcomes, min_size=1, max_size=most))
    cuts = draw(st.sets(st.integers(1, 1023), min_size=len(z) - 1, max_size=len(z) - 1))
    return np.array(z), np.diff([0, *sorted(cuts), 1024]) / 1024


# ---------------------------------------------------------------- value


@given(amounts, exponents, aversions, amounts)
def test_value_matches_a_plain_if(z, alpha, loss_aversion, reference):
    distance = z - reference
    expected = distance**alpha if distance >= 0 else -loss_aversion * (-distance) ** alpha
    assert value(z, alpha, loss_aversion, reference) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(gains, exponents, aversions)
def test_a_loss_weighs_loss_aversion_times_the_equal_gain(z, alpha, loss_aversion):
    assert -value(-z, alpha, loss_aversion) / value(z, alpha, loss_aversion) == pytest.approx(loss_aversion)


@given(exponents)
def test_value_rises_and_is_concave_in_gains_and_convex_in_losses(alpha):
    up = value(np.linspace(0, 50, 201), alpha)
    down = value(np.linspace(-50, 0, 201), alpha)
    assert np.all(np.diff(up) > 0)
    assert np.all(np.diff(down) > 0)
    assert np.all(np.diff(up, 2) <= 1e-9)
    assert np.all(np.diff(down, 2) >= -1e-9)
    if alpha < 0.95:  # strictly, away from the straight line
        assert np.diff(up, 2).max() < 0 < np.diff(down, 2).min()


def test_alpha_one_is_a_straight_line_on_each_side():
    z = np.array([-4.0, -1.0, 0.0, 2.0, 7.0])
    np.testing.assert_array_equal(value(z, alpha=1.0), [-9.0, -2.25, 0.0, 2.0, 7.0])


def test_a_small_alpha_is_nearly_blind_to_size():
    assert value(10, 0.1) == pytest.approx(1.2589, abs=1e-4)
    assert value(20, 0.1) == pytest.approx(1.3493, abs=1e-4)


def test_value_keeps_shape_and_gives_a_float_for_a_number():
    assert type(value(3)) is float
    assert value(np.ones((2, 3))).shape == (2, 3)
    assert value([]).shape == (0,)


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.01, float("nan")])
def test_value_refuses_an_exponent_outside_zero_one(alpha):
    with pytest.raises(ValueError, match=r"alpha is .*\(0, 1\]"):
        value(1.0, alpha=alpha)


@pytest.mark.parametrize("loss_aversion", [0.0, -2.25, float("inf"), float("nan")])
def test_value_refuses_a_loss_aversion_that_is_not_positive(loss_aversion):
    with pytest.raises(ValueError, match=r"loss_aversion is .* positive"):
        value(1.0, loss_aversion=loss_aversion)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_value_names_the_argument_that_is_not_finite(bad):
    with pytest.raises(ValueError, match="z holds NaN or infinity"):
        value([1.0, bad])
    with pytest.raises(ValueError, match="reference holds NaN or infinity"):
        value(1.0, reference=bad)


# ---------------------------------------------------------------- weight


def test_at_gamma_one_half_the_popular_crossing_of_023_is_wrong():
    assert weight(0.23, 0.5) == pytest.approx(0.2604, abs=5e-5)


def test_weight_at_one_half_is_a_closed_form():
    for gamma in (0.3, 0.61, 0.69, 1.0, 2.0):  # (1/2)^gamma / (2 (1/2)^gamma)^(1/gamma)
        assert weight(0.5, gamma) == pytest.approx(2 ** (1 - gamma - 1 / gamma), rel=1e-12)


def test_gamma_two_stays_below_the_diagonal():
    p = np.linspace(0, 1, 1001)[1:-1]
    assert np.all(weight(p, 2.0) < p)


def test_between_one_and_two_small_chances_weigh_too_little_and_large_ones_too_much():
    assert weight(0.1, 1.5) < 0.1
    assert weight(0.9, 1.5) > 0.9


@given(st.floats(0, 1))
def test_gamma_one_leaves_chances_alone(p):
    assert weight(p, 1.0) == pytest.approx(p, abs=1e-15)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("gamma", "expected"), [(1e-4, 0.0), (5000.0, 0.0)])
def test_an_extreme_gamma_gives_a_number_and_no_warning(gamma, expected):
    assert weight(0.5, gamma) == expected


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("inf"), float("nan")])
def test_weight_refuses_a_gamma_that_is_not_positive(gamma):
    with pytest.raises(ValueError, match=r"gamma is .* positive"):
        weight(0.5, gamma)


@pytest.mark.parametrize("p", [-0.01, 1.01, [0.5, 2.0]])
def test_weight_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match="between 0 and 1"):
        weight(p)


def test_weight_refuses_nan_and_gives_a_float_for_a_number():
    with pytest.raises(ValueError, match="p holds NaN or infinity"):
        weight(float("nan"))
    assert type(weight(0.5)) is float


# ---------------------------------------------------------------- prospect value


def test_the_paper_s_ticket_loses_against_a_sure_sixty():
    ticket = prospect_value([100, 0], [0.8, 0.2])
    assert ticket == pytest.approx(weight(0.8) * 100**0.88, rel=1e-12)
    assert ticket < value(60)
    assert ticket ** (1 / 0.88) == pytest.approx(56.7519, abs=1e-4)


@given(amounts, exponents)
def test_a_sure_thing_is_worth_its_value_in_both_forms(z, alpha):
    for cumulative in (True, False):
        assert prospect_value([z], [1.0], alpha, cumulative=cumulative) == pytest.approx(value(z, alpha))


@given(gains, gains, st.floats(0, 1))
def test_with_one_gain_and_one_loss_both_forms_are_the_sum_of_two_products(gain, loss, p):
    expected = weight(p, 0.61) * value(gain) + weight(1 - p, 0.69) * value(-loss)
    for cumulative in (True, False):
        result = prospect_value([gain, -loss], [p, 1 - p], cumulative=cumulative)
        assert result == pytest.approx(expected, rel=1e-9, abs=1e-9)


def by_climbing(z, p, gamma, delta, alpha, alpha_loss, loss_aversion):
    """The cumulative form without ranks: each step away from 0 times the weight of getting that far."""
    total = 0.0
    for side, bend, power, factor in ((1, gamma, alpha, 1.0), (-1, delta, alpha_loss, -loss_aversion)):
        levels = [0.0, *sorted({side * x for x in z if side * x > 0})]
        for low, high in pairwise(levels):
            reach = min(1.0, sum(q for x, q in zip(z, p, strict=True) if side * x >= high))
            total += factor * weight(reach, bend) * (high**power - low**power)
    return total


@given(gambles(), gammas, gammas, exponents, exponents, aversions)
def test_cumulative_form_equals_climbing_step_by_step(gamble, gamma, delta, alpha, alpha_loss, loss_aversion):
    z, p = gamble
    result = prospect_value(z, p, alpha, loss_aversion, 0.0, gamma, delta, alpha_loss)
    assert result == pytest.approx(
        by_climbing(z, p, gamma, delta, alpha, alpha_loss, loss_aversion), abs=1e-8
    )


@given(gambles(), gammas, gammas)
def test_separable_form_is_the_plain_sum(gamble, gamma, delta):
    z, p = gamble
    expected = sum(
        weight(q, gamma if x >= 0 else delta) * value(x, 0.88 if x >= 0 else 0.8)
        for x, q in zip(z, p, strict=True)
    )
    result = prospect_value(z, p, gamma=gamma, delta=delta, alpha_loss=0.8, cumulative=False)
    assert result == pytest.approx(expected, abs=1e-8)


@given(gambles())
def test_without_bending_it_is_the_expected_value(gamble):
    z, p = gamble
    plain = {"alpha": 1.0, "loss_aversion": 1.0, "gamma": 1.0, "delta": 1.0}
    for cumulative in (True, False):
        assert prospect_value(z, p, **plain, cumulative=cumulative) == pytest.approx(float(z @ p), abs=1e-8)


@given(gambles(gains), gammas)
def test_cumulative_form_lies_between_worst_and_best_prize(gamble, gamma):
    z, p = gamble
    result = prospect_value(z, p, gamma=gamma)
    assert value(z.min()) - 1e-9 <= result <= value(z.max()) + 1e-9


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), gammas)
def test_chances_that_round_lose_no_more_than_the_curve_s_steepness(raw, gamma):
    chances = np.array(raw) / np.sum(raw)
    rounding = len(raw) * np.finfo(float).eps  # of the chances' sum
    most = 1.0 - weight(1.0 - rounding, gamma)
    lost = 1.0 - prospect_value(np.ones(len(raw)), chances, gamma=gamma)
    assert -1e-12 <= lost <= most + 1e-12


def test_two_gains_are_weighed_as_in_1979_the_smaller_is_certain():
    cumulative, separable = (prospect_value([100, 50], [0.5, 0.5], cumulative=way) for way in (True, False))
    assert cumulative == pytest.approx(value(50) + weight(0.5) * (value(100) - value(50)))
    assert (cumulative, separable) == pytest.approx((42.32, 37.36), abs=0.005)


@given(gambles(), st.integers(0, 5), st.floats(0.1, 50))
def test_a_better_prize_never_makes_the_cumulative_gamble_worse(gamble, which, more):
    z, p = gamble
    better = z.copy()
    better[which % len(z)] += more
    assert prospect_value(better, p) >= prospect_value(z, p) - 1e-9


def test_separable_form_can_beat_its_best_prize():
    prizes, chances = np.arange(91, 101), np.full(10, 0.1)
    assert prospect_value(prizes, chances, cumulative=False) == pytest.approx(102.9440, abs=1e-4)
    assert prospect_value(prizes, chances) == pytest.approx(54.9406, abs=1e-4)
    assert prospect_value(prizes, chances) < value(100) < prospect_value(prizes, chances, cumulative=False)


@given(gambles(), st.randoms(use_true_random=False))
def test_the_order_of_outcomes_does_not_matter(gamble, random):
    z, p = gamble
    order = list(range(len(z)))
    random.shuffle(order)
    for cumulative in (True, False):
        shuffled = prospect_value(z[order], p[order], cumulative=cumulative)
        assert shuffled == pytest.approx(prospect_value(z, p, cumulative=cumulative), abs=1e-8)


def test_splitting_a_prize_changes_the_separable_form_only():
    whole, parts = ([100, 0], [0.4, 0.6]), ([100, 100, 0], [0.2, 0.2, 0.6])
    assert prospect_value(*parts) == pytest.approx(prospect_value(*whole), rel=1e-12)
    assert prospect_value(*parts, cumulative=False) > 1.3 * prospect_value(*whole, cumulative=False)


@given(gambles(st.integers(-500, 500).map(float)), st.integers(-300, 300))
def test_moving_outcomes_and_reference_together_changes_nothing(gamble, shift):
    z, p = gamble
    assert prospect_value(z + shift, p, reference=shift) == pytest.approx(prospect_value(z, p), abs=1e-9)


def test_losses_have_their_own_exponent_and_curvature():
    gamble = ([50, -50], [0.5, 0.5])
    expected = weight(0.5, 0.5) * 50**0.9 - 2.0 * weight(0.5, 0.8) * 50**0.7
    got = prospect_value(*gamble, alpha=0.9, alpha_loss=0.7, loss_aversion=2.0, gamma=0.5, delta=0.8)
    assert got == pytest.approx(expected, rel=1e-12)


def test_one_person_buys_insurance_and_a_lottery_ticket_and_neither_without_weighting():
    def both(**bend):
        ticket = prospect_value([4995, -5], [0.001, 0.999], **bend)
        insurance = value(-5) - prospect_value([-5000, 0], [0.001, 0.999], **bend)
        return ticket, insurance

    assert both() == pytest.approx((16.8191, 24.7958), abs=1e-4)
    assert max(both(gamma=1.0, delta=1.0)) < 0


def test_weighting_the_gain_side_by_133_is_not_loss_averse():
    coin = ([10, -10], [0.5, 0.5])
    plain = {"gamma": 1.0, "delta": 1.0}
    assert prospect_value(*coin, **plain) < 0 < prospect_value(*coin, loss_aversion=1 / 1.33, **plain)


@pytest.mark.parametrize(
    ("outcomes", "probabilities"),
    [([1.0, 2.0], [1.0]), ([], []), ([[1.0]], [[1.0]]), (1.0, 1.0)],
    ids=["lengths", "empty", "matrix", "numbers"],
)
def test_a_gamble_must_be_two_lists_of_one_length(outcomes, probabilities):
    with pytest.raises(ValueError, match="lists of one length"):
        prospect_value(outcomes, probabilities)


@pytest.mark.parametrize(("p", "total"), [([0.5, 0.4], "0.9"), ([0.8, 0.8], "1.6"), ([1.5, -0.5], "1")])
def test_probabilities_must_be_positive_and_add_up_to_one(p, total):
    with pytest.raises(ValueError, match=f"add up to 1; they add up to {total}$"):
        prospect_value([1.0, 2.0], p)


def test_prospect_value_passes_on_what_value_and_weight_refuse():
    with pytest.raises(ValueError, match="outcomes holds NaN"):
        prospect_value([float("nan")], [1.0])
    with pytest.raises(ValueError, match="probabilities holds NaN"):
        prospect_value([1.0], [float("nan")])
    with pytest.raises(ValueError, match="alpha is 2"):
        prospect_value([1.0, -1.0], [0.5, 0.5], alpha_loss=2)
    with pytest.raises(ValueError, match="gamma is 0"):
        prospect_value([1.0], [1.0], gamma=0)


# ---------------------------------------------------------------- the lesson


@given(gambles(), exponents, aversions, gammas, gammas, st.floats(-20, 20))
def test_the_lesson_s_definitions_equal_the_package_s(gamble, alpha, aversion, gamma, delta, ref):
    z, p = gamble
    lesson = LESSON_NAMES
    np.testing.assert_allclose(
        lesson["value"](z, alpha, aversion, ref), value(z, alpha, aversion, ref), atol=1e-12
    )
    np.testing.assert_allclose(lesson["weight"](p, gamma), weight(p, gamma), rtol=1e-12, atol=1e-15)
    for alpha_loss in (None, 0.6):
        got = DEEPER_NAMES["prospect_value"](z, p, alpha, aversion, gamma, delta, alpha_loss)
        wanted = prospect_value(z, p, alpha, aversion, 0.0, gamma, delta, alpha_loss)
        assert got == pytest.approx(wanted, rel=1e-9, abs=1e-9)


LESSON_NAMES = definitions(LESSON, "value", "weight")
DEEPER_NAMES = definitions(DEEPER, "rank_weights", "prospect_value")


def test_the_slider_redraws_its_picture():
    slider, picture = lesson_01b.alpha_slider(value).children
    before = picture.value
    slider.value = 0.10
    after = picture.value
    assert before[:4] == after[:4] == b"\x89PNG"
    assert after == lesson_01b.value_png(value, 0.10) != before


def test_without_ipywidgets_there_are_still_pictures(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # import ipywidgets raises ImportError
    monkeypatch.setenv("KTO_FIGURES", str(tmp_path))
    assert lesson_01b.alpha_slider(value) is None
    assert (tmp_path / "01_alpha_panels.png").exists()


def test_the_lesson_itself_needs_no_widgets():
    assert "widget" not in (SOURCES / f"{LESSON}.py").read_text(encoding="utf-8")


def test_importing_prospect_and_plotting_does_not_import_torch():
    code = "import sys, kto_utils.prospect, kto_utils.plotting; print({'torch', 'scipy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def imported_names(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_lesson_imports_neither_torch_nor_a_module_that_does():
    light = ("kto_utils.plotting.", "kto_utils.prospect", "kto_course.check", "kto_course.predict", "kto_course.reveal",
             "kto_course.pictures.lesson_01")  # fmt: skip
    names = [name for stem in (LESSON, DEEPER) for name in imported_names(SOURCES / f"{stem}.py")]
    assert "numpy" in names  # the search itself works
    for name in names:
        assert name.split(".")[0] not in {"torch", "transformers", "datasets", "scipy"}, name
        assert not name.startswith(("kto_utils", "kto_course", "kto_lab")) or name.startswith(light), name
    code = (
        "import sys; from kto_course import check, predict; from kto_course.pictures import lesson_01, lesson_01b; "
        "check.balance(0.5); check.yours_or_ours('kto_value'); print('torch' in sys.modules)"
    )
    with tempfile.TemporaryDirectory() as folder:
        own = os.environ | {"PYTHONPATH": str(ROOT), "KTO_PROGRESS": folder}
        run = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, check=True)
    assert run.stdout.endswith("False\n")
