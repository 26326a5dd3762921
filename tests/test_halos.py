"""Lessons 09 and 09b: what they derive, taken from their sources, against closed forms, facts and counter-examples."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lesson_source import definitions

from kto_course import halos
from kto_lab import neighbours

LESSON = (
    definitions(
        "09b_tastes",
        "check_halo", "VALUES", "felt", "mean_over", "targeted", "blunt", "over", "borrowed_law", "margin_value",
        "mean_slope",
    )
    | definitions(
        "09_halos",
        "slic_calibration_loss", "ppo_clip_loss", "family", "push", "dpo_optimum_odds", "mean_dpo_loss",
        "mean_kto_loss",
    )
    | {"train_tables": halos.train_tables}
    | {name: getattr(neighbours, name) for name in ("dpo", "ipo", "simpo")}
)  # fmt: skip
TOY = LESSON["targeted"].__globals__  # of lesson 09b
dpo_loss, kto_loss = LESSON["dpo_loss"], LESSON["kto_loss"]

nats = st.floats(-60.0, 60.0, allow_subnormal=False)
betas = st.floats(0.05, 2.0)
majorities = st.floats(0.51, 0.95)
seeds = st.integers(0, 10_000)
YES, NO = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def t(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def random_table(seed, n=1, replies=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, replies, generator=generator, dtype=torch.float64).log_softmax(-1)


# ---------------------------------------------------------------- the check of the definition

ANSWERS = {  # never falls, concave in gains, convex in losses
    "line": (lambda x: x, (True, True, True)),
    "cube": (lambda x: x**3, (True, False, False)),
    "parabola": (lambda x: -(x**2), (False, True, False)),
    "falls only in far losses": (lambda x: (x + 7).abs(), (False, True, True)),
    "falls only in far gains": (lambda x: -(x - 7).abs(), (False, True, True)),
    "bends upwards only in far gains": (lambda x: x + (x - 7).clamp(min=0), (True, False, True)),
    "bends upwards just after 0": (lambda x: x + (x - 0.05).clamp(min=0), (True, False, True)),
    "steeper in gains, kink at 0": (lambda x: x + x.clamp(min=0), (True, True, True)),
    "concave only in losses": (lambda x: x - (x + 3).clamp(max=0) ** 2, (True, True, False)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_check_says_yes_and_no_where_we_know_the_answer(name):
    function, expected = ANSWERS[name]
    assert tuple(LESSON["check_halo"](function).values()) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("KTO", (True, True, True)),
        ("DPO", (True, True, False)),
        ("SLiC, calibration term", (True, True, True)),
        ("PPO-Clip, ratio as reward", (True, True, True)),
        ("PPO-Clip, nats, thumbs up", (True, False, True)),  # e^x is convex below the lid
        ("PPO-Clip, nats, thumbs down", (True, True, False)),
        ("PPO-Clip, v1's, thumbs down", (False, True, False)),
    ],
)
@pytest.mark.parametrize("knob", [0.1, 0.3, 1.0])
def test_the_family_gets_the_answers_that_the_lesson_states(value, expected, knob):
    assert tuple(LESSON["check_halo"](lambda x: LESSON["VALUES"][value](x, knob)).values()) == expected


# ---------------------------------------------------------------- value functions are the losses


@given(nats, st.floats(0.0, 30.0), betas)
def test_kto_is_a_times_v_plus_c_for_both_thumbs(r, z0, beta):
    v = LESSON["VALUES"]["KTO"](t(r - z0), beta)
    torch.testing.assert_close(kto_loss(t(r), t(0.0), YES, z0, beta), -1 * v + 1)
    torch.testing.assert_close(kto_loss(t(r), t(0.0), NO, z0, beta), +1 * v + 0)


@given(nats, nats, nats, betas)
def test_dpo_is_minus_its_value_at_the_distance_from_the_rejected_reply(r_chosen, r_rejected, both, beta):
    loss = dpo_loss(t(r_chosen + both), t(r_rejected + both), t(0.0), t(0.0), beta)
    torch.testing.assert_close(loss, -LESSON["VALUES"]["DPO"](t(r_chosen) - t(r_rejected), beta))


@given(nats, nats, st.floats(0.1, 30.0))
def test_slic_is_a_hinge_on_the_same_distance(chosen, rejected, delta):
    loss = LESSON["slic_calibration_loss"](t(chosen), t(rejected), delta)
    assert float(loss) == pytest.approx(max(0.0, delta - (chosen - rejected)))
    torch.testing.assert_close(loss, -LESSON["VALUES"]["SLiC, calibration term"](t(chosen) - t(rejected), delta))


@given(st.floats(-3.0, 3.0), st.floats(0.05, 0.5))
def test_ppo_clip_is_a_line_with_a_lid_in_the_ratio(r, epsilon):
    q = math.exp(r)
    up, down = (float(LESSON["ppo_clip_loss"](t(r), advantage, epsilon)) for advantage in (1, -1))
    assert up == pytest.approx(-min(q, 1 + epsilon))
    assert down == pytest.approx(max(q, 1 - epsilon))
    assert up == pytest.approx(-1 - float(LESSON["VALUES"]["PPO-Clip, nats, thumbs up"](t(r), epsilon)))
    assert down == pytest.approx(1 - float(LESSON["VALUES"]["PPO-Clip, nats, thumbs down"](t(-r), epsilon)))
    assert down == pytest.approx(-float(LESSON["VALUES"]["PPO-Clip, v1's, thumbs down"](t(r), epsilon)))


@pytest.mark.parametrize("name", ["KTO", "DPO", "SLiC", "PPO-Clip"])
def test_the_value_read_off_a_loss_is_the_formula(name):
    formula = {"SLiC": "SLiC, calibration term", "PPO-Clip": "PPO-Clip, nats, thumbs up"}.get(name, name)
    x = torch.linspace(-6, 6, 49)
    knob = 0.2 if name == "PPO-Clip" else 1.0
    v = LESSON["VALUES"][formula]
    read_off = halos.value_of_loss(LESSON["family"](1.0, 1.0)[name], torch.zeros(49), x)
    torch.testing.assert_close(read_off, v(x, knob) - v(torch.zeros(49), knob))


# ---------------------------------------------------------------- who gets pushed


def test_the_push_at_50_nats_wrong_is_that_of_the_facts():
    far, losses = t(-50.0), LESSON["family"](0.1, 10.0)
    assert float(LESSON["push"](losses["DPO"], far)) / 0.1 == pytest.approx(0.9933, abs=5e-5)
    assert float(LESSON["push"](losses["KTO"], far)) / 0.1 == pytest.approx(0.0066, abs=5e-5)
    assert float(LESSON["push"](losses["SLiC"], far)) == 1.0
    assert float(LESSON["push"](losses["PPO-Clip"], far)) < 1e-20


@given(st.floats(-5.0, 5.0), st.sampled_from([1, -1]), st.floats(0.05, 0.5))
def test_ppo_clip_pushes_fully_unless_the_ratio_has_moved_with_the_advantage(r, advantage, epsilon):
    q = math.exp(r)
    if min(abs(q - 1 - epsilon), abs(q - 1 + epsilon)) < 1e-9:
        return  # on the corner
    moved_along = q > 1 + epsilon if advantage > 0 else q < 1 - epsilon
    found = float(LESSON["push"](lambda r: LESSON["ppo_clip_loss"](r, advantage, epsilon), t(r)))
    assert found == pytest.approx(0.0 if moved_along else advantage * q)


@given(st.floats(-80.0, 80.0), betas)
def test_the_push_of_kto_is_that_of_dpo_times_p(x, beta):
    losses = LESSON["family"](beta, 1.0)
    kto, dpo = (LESSON["push"](losses[name], t(x)) for name in ("KTO", "DPO"))
    torch.testing.assert_close(kto, torch.sigmoid(beta * t(x)) * dpo)


# ---------------------------------------------------------------- same policy, different values


@given(seeds, st.floats(1.0, 5.0))
def test_values_feel_a_shift_unless_the_reference_point_follows_it(seed, h):
    reward, policy = 2 * random_table(seed, n=2), random_table(seed + 1, n=2).exp()
    shift = t(h, -h)[:, None]

    def total(reward, point):
        return LESSON["mean_over"](policy, LESSON["felt"](reward, point)).sum()

    def own_mean(reward):
        return LESSON["mean_over"](policy, reward)[:, None]

    fixed = total(reward + shift, 0.0) - total(reward, 0.0)
    follows = total(reward + shift, own_mean(reward + shift)) - total(reward, own_mean(reward))
    assert abs(float(fixed)) > 1e-3
    assert abs(float(follows)) < 1e-9


# ---------------------------------------------------------------- raters who disagree


@pytest.mark.parametrize(("share", "beta", "of_a", "odds"), [(0.6, 1, 0.3, 0.643), (0.51, 0.1, 0.3, 0.639),
                                                             (0.7, 0.5, 0.1, 0.605)])  # fmt: skip
def test_the_three_checked_examples_of_a_winning_minority(share, beta, of_a, odds):
    assert LESSON["dpo_optimum_odds"](share, of_a / (1 - of_a), beta) == pytest.approx(odds, abs=5e-4)


@given(majorities, st.floats(-6.0, 3.0), betas, seeds)
def test_the_mean_dpo_loss_is_flat_at_the_optimum_and_only_there(share, log_odds, beta, seed):
    reference = random_table(seed)
    reference = torch.stack((reference[:, 1] + log_odds, reference[:, 1], reference[:, 2]), -1)
    optimum = math.log(LESSON["dpo_optimum_odds"](share, math.exp(log_odds), beta))

    def slope(log_odds_of_policy):
        logps = torch.stack((reference[:, 1] + log_odds_of_policy, reference[:, 1], reference[:, 2]), -1)
        logps.requires_grad_()
        LESSON["mean_dpo_loss"](logps, reference, t(share), beta).sum().backward()
        return float(logps.grad[0, 0])

    assert slope(optimum) == pytest.approx(0.0, abs=1e-9)
    assert slope(optimum - 0.1) < -1e-9
    assert slope(optimum + 0.1) > 1e-9


@given(majorities, st.floats(-6.0, 3.0), betas)
def test_the_minority_wins_exactly_under_the_condition_of_theorem_4_3(share, log_odds, beta):
    of_a, of_b = math.exp(log_odds), 1.0
    left, right = math.log(share) / beta + log_odds, math.log(1 - share) / beta
    if abs(left - right) > 1e-9:
        assert (LESSON["dpo_optimum_odds"](share, of_a / of_b, beta) < 1) == (left < right)


def test_training_by_plain_descent_lands_on_the_formula_and_leaves_c_out_of_it():
    tables = torch.cat((random_table(1, n=20), random_table(2, n=20)))
    share = torch.linspace(0.55, 0.9, 40)
    for beta in (0.1, 1.0):
        run = LESSON["train_tables"](LESSON["mean_dpo_loss"], tables.exp(), share, beta, steps=300)
        torch.testing.assert_close(run[0], tables)
        found = (run[-1, :, 0] - run[-1, :, 1]).exp()
        reference_odds = (tables[:, 0] - tables[:, 1]).exp()
        torch.testing.assert_close(found, LESSON["dpo_optimum_odds"](share, reference_odds, beta), rtol=1e-6, atol=0)


def pushes_on_replies(share, weights, beta, z0, seed=0):
    reference = random_table(seed)
    logps = reference.clone().requires_grad_()
    LESSON["mean_kto_loss"](logps, reference, t(share), beta, *weights, z0).sum().backward()
    return (-logps.grad[0]).tolist()


@given(majorities, st.floats(0.2, 5.0), st.floats(0.2, 5.0), betas, seeds)
def test_the_push_on_a_reply_is_its_net_vote(share, weight_up, weight_down, beta, seed):
    a, b, c = pushes_on_replies(share, (weight_up, weight_down), beta, 0.0, seed)
    assert a == pytest.approx(beta / 4 * (share * weight_up - (1 - share) * weight_down), abs=1e-12)
    assert b == pytest.approx(beta / 4 * ((1 - share) * weight_up - share * weight_down), abs=1e-12)
    assert c == 0.0


def test_a_heavy_thumbs_down_pushes_both_down_at_60_percent_but_not_at_70():
    a, b, _ = pushes_on_replies(0.6, (1.0, 2.0), 0.1, 0.0)
    assert a == pytest.approx(-0.2 * 0.1 / 4)
    assert b < 0
    assert pushes_on_replies(0.7, (1.0, 2.0), 0.1, 0.0)[0] > 0
    assert pushes_on_replies(2 / 3, (1.0, 2.0), 0.1, 0.0)[0] == pytest.approx(0.0, abs=1e-12)


@given(majorities, st.floats(0.0, 10.0), betas, seeds)
def test_with_equal_weights_the_odds_of_the_majority_rise_in_a_softmax_table_for_any_z0(share, z0, beta, seed):
    logits = random_table(seed, n=5).requires_grad_()
    loss = LESSON["mean_kto_loss"](logits.log_softmax(-1), random_table(seed + 1, n=5), t(share), beta, 1.0, 1.0, z0)
    loss.sum().backward()
    assert (logits.grad[:, 0] < logits.grad[:, 1]).all()


@given(seeds, betas)
def test_at_5_to_5_neither_dpo_nor_kto_with_equal_weights_leaves_the_reference(seed, beta):
    for loss in ("mean_dpo_loss", "mean_kto_loss"):
        logps = random_table(seed).requires_grad_()
        LESSON[loss](logps, logps.detach(), t(0.5), beta).sum().backward()
        torch.testing.assert_close(logps.grad, torch.zeros_like(logps), rtol=0, atol=1e-12)


@given(seeds, betas)
def test_equal_groups_and_weights_leave_kto_at_one_half(seed, beta):
    loss = LESSON["mean_kto_loss"](random_table(seed, n=4), random_table(seed + 1, n=4), t(0.5), beta)
    torch.testing.assert_close(loss / 2, torch.full((4,), 0.5))


# ---------------------------------------------------------------- the reference point


@pytest.fixture
def toy():
    """The lesson's functions on another table of its kind: 6 prompts, 9 replies."""
    space = dict(TOY)
    TOY.update(N=6, V=9, reference=random_table(3, 6, 9), own=torch.eye(6, 9))
    TOY["in_data"] = torch.ones(6, 1) * (torch.arange(9) < 6)
    yield TOY
    TOY.clear()
    TOY.update(space)


def kl(p, log_q):
    return torch.special.xlogy(p, p).sum(-1) - (p * log_q).sum(-1)


def test_the_mean_over_borrowed_replies_is_a_difference_of_two_kl(toy):
    law = toy["borrowed_law"]()
    torch.testing.assert_close(law.sum(-1), torch.ones(6))
    assert (law.diagonal() == 0).all()
    assert (law[:, 6:] == 0).all()
    for policy in (toy["targeted"](1.7), toy["blunt"](1.7), random_table(5, 6, 9)):
        torch.testing.assert_close(toy["over"](law, policy), kl(law, toy["reference"]) - kl(law, policy))


@pytest.mark.parametrize("move", [0.5, 2.0, 4.0])
def test_targeted_learning_is_seen_as_negative_and_a_blunt_rise_is_cancelled(toy, move):
    law = toy["borrowed_law"]()
    policy = toy["targeted"](move)
    assert float(kl(policy.exp(), toy["reference"]).mean()) > 0
    assert (toy["over"](law, policy) < 0).all()
    policy = toy["blunt"](move)
    torch.testing.assert_close(toy["over"](toy["own"], policy), toy["over"](law, policy))
    assert (toy["over"](law, policy) > kl(policy.exp(), toy["reference"])).all()


# ---------------------------------------------------------------- IPO pulls back


@given(st.floats(0.5, 1.0))
def test_ipo_and_dpo_have_their_optima_where_the_lesson_says(share):
    dpo_best = math.log(share / (1 - share)) / 0.1 if share < 1 else 90.0
    for name, best in (("ipo", (2 * share - 1) / 0.2), ("dpo", dpo_best)):
        slope = [LESSON["mean_slope"](LESSON[name], share, best + step) for step in (-0.5, 0.0, 0.5)]
        assert slope[0] < 0
        assert slope[1] == pytest.approx(0.0, abs=1e-9) or share == 1
        assert slope[2] > 0 or (name, share) == ("dpo", 1)


def test_ipo_fails_the_check_and_simpo_and_dpo_pass_it():
    passes = {
        name: all(list(LESSON["check_halo"](LESSON["margin_value"](LESSON[name])).values())[:2])
        for name in ("dpo", "simpo", "ipo")
    }
    assert passes == {"dpo": True, "simpo": True, "ipo": False}
