"""The losses: the authors' numbers, the properties that define them, and every refusal."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from lesson_source import definitions

from kto_utils.collator import mismatched
from kto_utils.losses import BAND_CURRENT, BAND_V1, balanced_weights, dpo_loss, kto_loss, reference_point

F64 = torch.float64
STORED = json.loads((Path(__file__).parent / "data" / "halos_kto_cases.json").read_text(encoding="utf-8"))

nats = st.floats(-60.0, 60.0, allow_subnormal=False)
weights = st.floats(0.1, 20.0)
betas = st.floats(0.01, 1.0)
small_betas = st.floats(0.01, 0.2)  # |u| below 18: further out autograd's y * (1 - y) loses digits, then all


def t(*numbers):
    return torch.tensor(numbers, dtype=F64)


@st.composite
def batches(draw, smallest=1, betas=betas):
    """(r, label, z0, beta, lambda_D, lambda_U) of 1 to 9 rows."""
    n = draw(st.integers(smallest, 9))
    r = torch.tensor(draw(st.lists(nats, min_size=n, max_size=n)), dtype=F64)
    label = torch.tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    return r, label, draw(st.floats(0.0, 30.0)), draw(betas), draw(weights), draw(weights)


def loss_of(r, label, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    return kto_loss(r, torch.zeros_like(r), label, z0, beta, desirable_weight, undesirable_weight)


def gradient_of(r, *settings):
    free = r.clone().requires_grad_()
    loss_of(free, *settings).mean().backward()
    return free.grad


def sides(label, desirable_weight, undesirable_weight):
    """(s, w) of each row, by a loop."""
    s = t(*[1.0 if up else -1.0 for up in label.tolist()])
    w = t(*[desirable_weight if up else undesirable_weight for up in label.tolist()])
    return s, w


# ---------------------------------------------------------------- the authors' code


@pytest.fixture(params=range(len(STORED["cases"])))
def case(request):
    case = dict(STORED["cases"][request.param])
    for name in ("policy_logps", "reference_logps", "kl_policy_logps", "kl_reference_logps"):
        case[name] = t(*case[name])
    case["settings"] = [case[name] for name in ("beta", "desirable_weight", "undesirable_weight")]
    case["label"] = torch.tensor(case["label"])
    case["expected"] = {
        k: t(*v) if isinstance(v, list) else torch.tensor(v, dtype=F64) for k, v in case["expected"].items()
    }
    return case


def test_stored_cases_are_the_authors_and_cover_what_matters():
    assert "HALOs main 4831988" in STORED["about"]
    assert len(STORED["cases"]) == 24
    shares = {sum(c["label"]) / len(c["label"]) for c in STORED["cases"]}
    assert {0.0, 1.0} < shares  # one-sided batches and mixed ones
    points = [c["expected"]["z0"] for c in STORED["cases"]]
    assert 0.0 in points
    assert max(points) > 1.0


def test_agrees_with_the_authors_code(case):
    policy, expected = case["policy_logps"].requires_grad_(), case["expected"]
    z0 = reference_point(case["kl_policy_logps"], case["kl_reference_logps"])
    losses = kto_loss(policy, case["reference_logps"], case["label"], z0, *case["settings"])
    losses.mean().backward()
    close = {"rtol": 1e-6, "atol": 0.0}
    torch.testing.assert_close(z0, expected["z0"], **close)
    torch.testing.assert_close(losses.detach(), expected["losses"], **close)
    torch.testing.assert_close(losses.detach().mean(), expected["loss"], **close)
    torch.testing.assert_close(policy.grad, expected["grad_policy_logps"], **close)


def test_with_the_authors_rounded_z0_only_their_cancellation_is_left(case):
    z0 = float(case["expected"]["z0"])  # a float32 number
    losses = kto_loss(case["policy_logps"], case["reference_logps"], case["label"], z0, *case["settings"])
    torch.testing.assert_close(losses, case["expected"]["losses"], rtol=1e-9, atol=0.0)


# ---------------------------------------------------------------- the reference point


@given(st.lists(st.tuples(nats, nats), min_size=1, max_size=9))
def test_reference_point_is_the_clamped_mean(pairs):
    policy, reference = t(*[a for a, _ in pairs]), t(*[b for _, b in pairs])
    by_hand = max(0.0, math.fsum(a - b for a, b in pairs) / len(pairs))
    assert float(reference_point(policy, reference)) == pytest.approx(by_hand, rel=1e-12, abs=1e-12)


def test_reference_point_clamps_after_the_mean():
    assert float(reference_point(t(-3.0, 5.0), t(0.0, 0.0))) == 1.0


def test_a_negative_mean_gives_the_loss_of_no_difference():
    r, label = t(1.0, -2.0), torch.tensor([True, False])
    below, none = (reference_point(t(*k), t(0.0, 0.0)) for k in ((-3.0, 1.0), (0.0, 0.0)))
    assert torch.equal(loss_of(r, label, below), loss_of(r, label, none))


def test_no_gradient_flows_through_the_reference_point():
    k = t(1.0, 2.0).requires_grad_()
    r = t(0.5, -0.5).requires_grad_()
    z0 = reference_point(k, t(0.0, 0.0))
    assert not z0.requires_grad
    loss_of(r, torch.tensor([True, False]), z0).mean().backward()
    assert k.grad is None
    assert r.grad is not None


def test_kto_loss_detaches_a_z0_that_still_has_a_graph():
    z0 = t(1.5).requires_grad_()
    r = t(0.5).requires_grad_()
    loss_of(r, torch.tensor([True]), z0.sum()).mean().backward()
    assert z0.grad is None


@given(st.lists(nats, min_size=2, max_size=9), st.randoms(use_true_random=False))
def test_reference_point_does_not_depend_on_the_order(k, rng):
    shuffled = list(k)
    rng.shuffle(shuffled)
    zeros = torch.zeros(len(k), dtype=F64)
    assert float(reference_point(t(*k), zeros)) == pytest.approx(
        float(reference_point(t(*shuffled), zeros)), abs=1e-12
    )


@given(st.lists(st.tuples(*[st.floats(0.05, 1.0)] * 3), min_size=2, max_size=8))
def test_expected_log_ratio_is_a_difference_of_two_kls(triples):
    q, policy, reference = (t(*column) for column in zip(*triples, strict=True))
    q, policy, reference = q / q.sum(), policy / policy.sum(), reference / reference.sum()

    def kl(a, b):
        return float((a * (a / b).log()).sum())

    expected = float((q * (policy / reference).log()).sum())
    assert expected == pytest.approx(kl(q, reference) - kl(q, policy), abs=1e-12)
    own = float((policy * (policy / reference).log()).sum())
    assert own == pytest.approx(kl(policy, reference), abs=1e-12)


def test_the_clamp_biases_a_mean_of_zero_upwards():
    m, spread = 8, 5.0
    k = spread * torch.randn(4_000, m, generator=torch.Generator().manual_seed(0), dtype=F64)
    zeros = torch.zeros(m, dtype=F64)
    mean = torch.stack([reference_point(row, zeros) for row in k]).mean()
    assert float(mean) == pytest.approx(spread / math.sqrt(2 * math.pi * m), abs=0.06)


# ---------------------------------------------------------------- values of the KTO loss


@given(batches())
def test_loss_is_the_formula_row_by_row(batch):
    r, label, z0, beta, lambda_d, lambda_u = batch
    for loss, r_i, up in zip(loss_of(*batch).tolist(), r.tolist(), label.tolist(), strict=True):
        u = (1 if up else -1) * beta * (r_i - z0)
        w = lambda_d if up else lambda_u
        assert loss == pytest.approx(w / (1 + math.exp(u)), rel=1e-9)


@given(batches())
def test_both_printed_forms_agree(batch):
    r, label, z0, beta, lambda_d, lambda_u = batch
    s, w = sides(label, lambda_d, lambda_u)
    version_1 = w * (1 - torch.sigmoid(s * (beta * r - beta * z0)))
    current = w - w * torch.sigmoid(s * beta * (r - z0))
    torch.testing.assert_close(loss_of(*batch), version_1, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(version_1, current, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_step_0_the_loss_is_half_the_mean_weight(dtype):
    logps = -torch.arange(1.0, 9.0, dtype=dtype)
    label = torch.tensor([True, False, False, True, False, True, False, False])
    z0 = reference_point(logps, logps)
    assert float(z0) == 0.0
    assert float(kto_loss(logps, logps, label, z0).mean()) == 0.5
    weighted = kto_loss(logps, logps, label, z0, desirable_weight=1.33).mean()
    assert float(weighted) == pytest.approx(0.561875, rel=1e-7 if dtype == torch.float32 else 1e-15)


@given(batches())
def test_each_loss_lies_between_0_and_its_weight(batch):
    _, w = sides(batch[1], *batch[4:])
    losses = loss_of(*batch)
    assert bool((losses > 0).all())
    assert bool((losses <= w).all())


@given(batches())
def test_a_row_and_its_opposite_label_cost_the_weight_together(batch):
    r, label, z0, beta, weight, _ = batch
    both = loss_of(r, label, z0, beta, weight, weight) + loss_of(r, ~label, z0, beta, weight, weight)
    torch.testing.assert_close(both, torch.full_like(r, weight), rtol=1e-12, atol=0.0)


@given(batches())
def test_flipping_signs_labels_and_weights_changes_nothing_at_z0_0(batch):
    r, label, _, beta, lambda_d, lambda_u = batch
    flipped = loss_of(-r, ~label, 0.0, beta, lambda_u, lambda_d)
    torch.testing.assert_close(
        flipped, loss_of(r, label, 0.0, beta, lambda_d, lambda_u), rtol=1e-12, atol=0.0
    )


@given(batches())
def test_z0_is_in_nats_and_beta_is_applied_once(batch):
    r, label, z0, beta, lambda_d, lambda_u = batch
    torch.testing.assert_close(
        loss_of(*batch), loss_of(beta * r, label, beta * z0, 1.0, lambda_d, lambda_u), rtol=1e-9, atol=0.0
    )


@given(batches(), st.floats(-500.0, 0.0))
def test_only_the_difference_of_the_log_probabilities_counts(batch, shift):
    r, label, *settings = batch
    base = torch.full_like(r, shift)
    shifted = kto_loss(base + r, base, label, *settings)
    torch.testing.assert_close(shifted, loss_of(*batch), rtol=1e-9, atol=1e-12)


@given(batches())
def test_the_loss_is_linear_in_the_two_weights(batch):
    r, label, z0, beta, lambda_d, lambda_u = batch
    of_up, of_down = (loss_of(r, label, z0, beta, *pair) for pair in ((1.0, 0.0), (0.0, 1.0)))
    torch.testing.assert_close(loss_of(*batch), lambda_d * of_up + lambda_u * of_down, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(
        gradient_of(r, label, z0, beta, 2 * lambda_d, 2 * lambda_u),
        2 * gradient_of(*batch),
        rtol=1e-12,
        atol=0.0,
    )


def test_a_weight_is_not_rounded_to_float32():
    loss = loss_of(t(0.0, 0.0), torch.tensor([True, False]), 0.0, 0.1, 13.33, 1.33)
    assert loss.tolist() == [13.33 / 2, 1.33 / 2]


@given(batches(smallest=2), st.randoms(use_true_random=False))
def test_reordering_rows_reorders_their_losses(batch, rng):
    r, label, *settings = batch
    order = list(range(len(r)))
    rng.shuffle(order)
    assert torch.equal(loss_of(r[order], label[order], *settings), loss_of(*batch)[order])


@given(batches())
def test_z0_0_is_the_loss_that_trl_calls_apo_zero_unpaired(batch):
    r, label, _, beta, *_ = batch
    apo_zero = torch.where(label, 1 - torch.sigmoid(beta * r), torch.sigmoid(beta * r))
    torch.testing.assert_close(loss_of(r, label, 0.0, beta), apo_zero, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [True, False])
def test_a_one_sided_batch_is_finite_and_equals_the_formula(kind):
    r, label = t(-2.0, 0.0, 7.0), torch.full((3,), kind)
    s = 1.0 if kind else -1.0
    torch.testing.assert_close(
        loss_of(r, label, 1.0, 0.1, 1.5, 0.7), (1.5 if kind else 0.7) * torch.sigmoid(-s * 0.1 * (r - 1.0))
    )
    assert bool(torch.isfinite(gradient_of(r, label, 1.0)).all())


@given(batches())
def test_limits_of_beta(batch):
    r, label, z0, _, lambda_d, lambda_u = batch
    assume(bool(((r - z0).abs() > 1e-3).all()))
    s, w = sides(label, lambda_d, lambda_u)
    torch.testing.assert_close(loss_of(r, label, z0, 1e-12, lambda_d, lambda_u), w / 2, rtol=1e-9, atol=0.0)
    wrong = w * (s * (r - z0) < 0)
    torch.testing.assert_close(loss_of(r, label, z0, 1e6, lambda_d, lambda_u), wrong, rtol=1e-9, atol=1e-9)


def test_beta_to_infinity_leaves_half_the_weight_on_a_tie():
    assert float(loss_of(t(2.0), torch.tensor([True]), 2.0, 1e9, 3.0)[0]) == 1.5


def test_the_tail_is_not_rounded_to_zero_in_float32():
    r = torch.tensor([500.0])
    up = torch.tensor([True])
    assert float(1 - torch.sigmoid(0.1 * r)) == 0.0
    assert float(loss_of(r, up, 0.0)) == pytest.approx(math.exp(-50.0), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("u", [-1e4, -50.0, 50.0, 1e4])
def test_far_tails_stay_finite(dtype, u):
    r = torch.tensor([u, u], dtype=dtype).requires_grad_()
    losses = loss_of(r, torch.tensor([True, False]), 0.0, 1.0)
    losses.mean().backward()
    assert bool(torch.isfinite(losses).all())
    assert bool(torch.isfinite(r.grad).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_losses_keep_the_dtype(dtype):
    r = torch.tensor([0.3, -0.2], dtype=dtype)
    label = torch.tensor([True, False])
    assert loss_of(r, label, 0.7, 0.1, 1.33, 2.0).dtype == dtype
    assert loss_of(r, label, torch.tensor(0.7, dtype=torch.float32), 0.1).dtype == dtype
    assert reference_point(r, r).dtype == dtype


def test_z0_may_have_one_entry_instead_of_none():
    r, label = t(0.3, -0.2), torch.tensor([True, False])
    assert torch.equal(loss_of(r, label, t(0.7)), loss_of(r, label, 0.7))


# ---------------------------------------------------------------- the gradient


@given(batches(betas=small_betas))
def test_gradient_is_the_closed_form(batch):
    r, label, z0, beta, lambda_d, lambda_u = batch
    s, w = sides(label, lambda_d, lambda_u)
    u = s * beta * (r - z0)
    formula = -s * w * beta * torch.sigmoid(u) * torch.sigmoid(-u) / len(r)
    torch.testing.assert_close(gradient_of(*batch), formula, rtol=1e-7, atol=0.0)


@given(batches())
def test_gradient_is_the_finite_difference(batch):
    r, label, *settings = batch
    step = 1e-5
    steps = step * torch.eye(len(r), dtype=F64)
    slopes = torch.stack(
        [(loss_of(r + d, label, *settings).mean() - loss_of(r - d, label, *settings).mean()) for d in steps]
    )
    torch.testing.assert_close(gradient_of(*batch), slopes / (2 * step), rtol=1e-4, atol=1e-8)


@given(batches(betas=small_betas))
def test_the_gradient_has_the_sign_of_the_label_alone(batch):
    gradient, label = gradient_of(*batch), batch[1]
    assert bool((gradient[label] < 0).all())
    assert bool((gradient[~label] > 0).all())


@given(batches())
def test_the_gradient_is_at_most_a_quarter_of_weight_times_beta(batch):
    r, label, z0, beta, lambda_d, lambda_u = batch
    _, w = sides(label, lambda_d, lambda_u)
    bound = w * beta / 4 / len(r)
    assert bool((gradient_of(*batch).abs() <= bound * (1 + 1e-12)).all())
    at_z0 = gradient_of(torch.full_like(r, z0), label, z0, beta, lambda_d, lambda_u)
    torch.testing.assert_close(at_z0.abs(), bound, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize(
    ("distance", "share"), [(0, 1.0), (10, 0.7864), (20, 0.41997), (50, 0.02659), (100, 1.8e-4)]
)
@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("side", [1, -1])
def test_the_gradient_vanishes_on_both_sides(distance, share, up, side):
    r = t(3.0 + side * distance)
    gradient = float(gradient_of(r, torch.tensor([up]), 3.0, 0.1)[0])
    assert abs(gradient) / (0.1 / 4) == pytest.approx(share, rel=1e-2 if distance == 100 else 1e-4)


def test_dpo_keeps_pushing_where_kto_gives_up():
    chosen = t(-50.0).requires_grad_()
    dpo_loss(chosen, t(0.0), t(0.0), t(0.0), 0.1).sum().backward()
    assert abs(float(chosen.grad)) / 0.1 == pytest.approx(0.9933, abs=1e-4)
    kto = float(gradient_of(t(-50.0), torch.tensor([True]), 0.0, 0.1)[0])
    assert abs(kto) / 0.1 == pytest.approx(0.0066, abs=1e-4)


@given(st.floats(0.0, 60.0), st.booleans(), betas, weights)
def test_a_batch_of_one_never_leaves_its_starting_point(r, up, beta, weight):
    free = t(r).requires_grad_()
    z0 = reference_point(free.detach(), t(0.0))  # the only completion there is: its own
    loss = loss_of(free, torch.tensor([up]), z0, beta, weight, weight)
    loss.sum().backward()
    assert float(loss.detach()) == pytest.approx(weight / 2, rel=1e-12)
    assert float(free.grad) == pytest.approx((-1 if up else 1) * weight * beta / 4, rel=1e-12)


@given(nats, st.floats(0.0, 30.0), betas, weights)
def test_contradicting_thumbs_of_equal_weight_cancel(r, z0, beta, weight):
    twice, label = t(r, r), torch.tensor([True, False])
    assert float(loss_of(twice, label, z0, beta, weight, weight).mean()) == pytest.approx(
        weight / 2, rel=1e-12
    )
    assert float(gradient_of(twice, label, z0, beta, weight, weight).sum()) == pytest.approx(0.0, abs=1e-15)
    assert float(gradient_of(twice, label, z0, beta, weight, 2 * weight).sum()) > 0.0  # down


def test_one_small_step_raises_what_was_liked_and_lowers_what_was_not():
    theta = torch.zeros(4, dtype=F64, requires_grad=True)  # a policy over four replies
    label = torch.tensor([True, False, True, False])
    reference = theta.detach().log_softmax(-1)
    kto_loss(theta.log_softmax(-1), reference, label, 0.0).mean().backward()
    r = (theta - theta.grad).log_softmax(-1).detach() - reference
    assert bool((r[label] > 0).all())
    assert bool((r[~label] < 0).all())


# ---------------------------------------------------------------- batches


@given(batches(smallest=2), st.data())
def test_with_z0_given_microbatches_add_up_by_their_size(batch, data):
    r, label, *settings = batch
    cut = data.draw(st.integers(1, len(r) - 1))
    parts = [loss_of(r[part], label[part], *settings) for part in (slice(cut), slice(cut, None))]
    by_size = sum(len(part) * part.mean() for part in parts) / len(r)
    torch.testing.assert_close(by_size, loss_of(*batch).mean(), rtol=1e-12, atol=0.0)


def test_unequal_microbatches_have_another_mean_of_means():
    r, label = t(5.0, 0.0, -5.0), torch.tensor([True, True, True])
    means = [loss_of(r[part], label[part], 0.0).mean() for part in (slice(1), slice(1, None))]
    assert abs(float(sum(means) / 2 - loss_of(r, label, 0.0).mean())) > 0.01


def test_microbatches_with_their_own_z0_are_not_the_whole_batch():
    r, label = t(4.0, 1.0, -2.0, -6.0), torch.tensor([True, True, False, False])
    k, zeros = t(3.0, 1.0, -1.0, 6.0), torch.zeros(4, dtype=F64)
    whole = loss_of(r, label, reference_point(k, zeros)).mean()
    parts = [slice(0, 2), slice(2, 4)]
    own = sum(loss_of(r[p], label[p], reference_point(k[p], zeros[p])).mean() for p in parts) / 2
    assert abs(float(own - whole)) > 1e-3


@pytest.mark.parametrize("m", [2, 3, 5, 8])
def test_mismatched_rows_leave_none_its_own_completion(m):
    rows = [
        {"input_ids": [1, 10 + i, 30 + i], "attention_mask": [1] * 3, "label_mask": [0, 0, 1]}
        for i in range(m)
    ]
    completions = [row["input_ids"][-1] for row in mismatched(rows)]
    assert all(completion != 30 + i for i, completion in enumerate(completions))
    assert sorted(completions) == [30 + i for i in range(m)]


# ---------------------------------------------------------------- what KTO does not promise


@given(st.floats(0.55, 0.95))
def test_a_mixed_vote_has_no_inner_minimum_but_its_log_likelihood_has(p):
    u = torch.linspace(-8, 8, 3201, dtype=F64)
    up, down = (loss_of(u, torch.full((len(u),), kind), 0.0, 1.0) for kind in (True, False))
    assert bool((torch.diff(p * up + (1 - p) * down) < 0).all())
    zeros = torch.zeros_like(u)
    log_loss = p * dpo_loss(u, zeros, zeros, zeros, 1.0) + (1 - p) * dpo_loss(-u, zeros, zeros, zeros, 1.0)
    assert float(u[log_loss.argmin()]) == pytest.approx(math.log(p / (1 - p)), abs=0.006)


@pytest.mark.parametrize("beta", [0.4, 1.6])
def test_separable_thumbs_drive_kto_past_the_rl_optimum(beta):
    reference, reward = t(0.2, 0.5, 0.3).log(), t(1.0, 0.0, -1.0)
    optimum = (reference + reward / beta).softmax(-1)
    theta = reference.clone()
    for _ in range(1500):
        theta = theta.detach().requires_grad_()
        logps = theta.log_softmax(-1)
        z0 = (logps.exp() * (logps - reference)).sum()
        kto_loss(logps, reference, torch.tensor([True, False, False]), z0, beta).mean().backward()
        theta = theta - 2.0 * theta.grad
    r = theta.detach().log_softmax(-1) - reference
    assert float(optimum[0]) < 0.9
    assert float((r + reference).exp()[0]) > 0.99
    assert bool((r[1:] < -4.0).all())


# ---------------------------------------------------------------- DPO


@given(st.lists(st.tuples(nats, nats, nats, nats), min_size=1, max_size=8), betas)
def test_dpo_loss_is_minus_log_sigmoid_of_the_margin(pairs, beta):
    columns = [t(*column) for column in zip(*pairs, strict=True)]
    for loss, (pw, pl, rw, rl) in zip(dpo_loss(*columns, beta).tolist(), pairs, strict=True):
        x = beta * ((pw - pl) - (rw - rl))
        by_hand = math.log1p(math.exp(-x)) if x > 0 else -x + math.log1p(math.exp(x))
        assert loss == pytest.approx(by_hand, rel=1e-9, abs=1e-12)


def test_dpo_at_step_0_is_ln_2():
    logps = t(-3.0, -7.0), t(-4.0, -1.0)
    assert dpo_loss(*logps, *logps).tolist() == pytest.approx([math.log(2)] * 2, rel=1e-15)


@given(nats, nats, st.floats(-20.0, 20.0), betas)
def test_dpo_ignores_a_shift_of_both_log_ratios_and_kto_does_not(chosen, rejected, shift, beta):
    assume(abs(shift) > 0.1)
    zero, label = t(0.0), torch.tensor([True, False])
    before, after = (dpo_loss(t(chosen + h), t(rejected + h), zero, zero, beta) for h in (0.0, shift))
    torch.testing.assert_close(before, after, rtol=1e-9, atol=1e-12)
    kto_before, kto_after = (loss_of(t(chosen + h, rejected + h), label, 0.0, beta) for h in (0.0, shift))
    assert not torch.equal(kto_before, kto_after)


def test_dpo_gradients_of_a_pair_are_opposite():
    chosen, rejected = t(1.0).requires_grad_(), t(-2.0).requires_grad_()
    dpo_loss(chosen, rejected, t(0.0), t(0.0), 0.2).sum().backward()
    assert float(chosen.grad) == pytest.approx(-0.2 / (1 + math.exp(0.2 * 3.0)), rel=1e-12)
    assert float(rejected.grad) == -float(chosen.grad)


def test_dpo_stays_finite_far_out():
    assert dpo_loss(t(-1e5), t(1e5), t(0.0), t(0.0), 0.1).tolist() == [2e4]
    assert dpo_loss(t(1e5), t(-1e5), t(0.0), t(0.0), 0.1).tolist() == [0.0]


# ---------------------------------------------------------------- the two weights


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.floats(0.5, 2.0))
def test_balanced_weights_meet_the_ratio_and_the_smaller_is_1(n_up, n_down, ratio):
    lambda_d, lambda_u = balanced_weights(n_up, n_down, ratio)
    assert lambda_d * n_up / (lambda_u * n_down) == pytest.approx(ratio, rel=1e-12)
    assert min(lambda_d, lambda_u) == 1.0


@pytest.mark.parametrize(
    ("n_up", "n_down", "band", "low", "high"),
    [
        (1, 10, BAND_V1, 10.0, 13.3333),
        (1, 10, BAND_CURRENT, 10.0, 15.0),
        (3, 5, BAND_V1, 1.6667, 2.2222),
        (3, 5, BAND_CURRENT, 1.6667, 2.5),
    ],
)
def test_balanced_weights_of_the_papers_bands(n_up, n_down, band, low, high):
    assert [balanced_weights(n_up, n_down, ratio)[0] for ratio in band] == pytest.approx(
        [low, high], abs=1e-4
    )


def test_balanced_weights_favour_the_rarer_side():
    assert balanced_weights(10, 1) == (1.0, 10.0)
    assert balanced_weights(7, 7) == (1.0, 1.0)


# ---------------------------------------------------------------- refusals

GOOD = t(-1.0, -2.0)
LABEL = torch.tensor([True, False])
NAN, INFINITE = t(-1.0, math.nan), t(-1.0, -math.inf)


@pytest.mark.parametrize(
    ("policy", "reference", "error", "message"),
    [
        (GOOD, t(-1.0), ValueError, r"one shape \(B,\); found .*\(2,\).*\(1,\)"),
        (GOOD[None], GOOD[None], ValueError, r"one shape \(B,\)"),
        (GOOD.sum(), GOOD.sum(), ValueError, r"one shape \(B,\)"),
        (GOOD[:0], GOOD[:0], ValueError, "is empty; a batch needs at least one row"),
        (GOOD, NAN, ValueError, "reference_(kl_)?logps is NaN in row 1"),
        (NAN, GOOD, ValueError, "policy_(kl_)?logps is NaN in row 1"),
        (INFINITE, GOOD, ValueError, "policy_(kl_)?logps is infinite in row 1"),
        (GOOD.long(), GOOD.long(), TypeError, "torch.int64; log-probabilities are floating point"),
    ],
)
def test_log_probabilities_that_cannot_be_used_are_refused(policy, reference, error, message):
    with pytest.raises(error, match=message):
        reference_point(policy, reference)
    label = torch.ones(policy.shape, dtype=torch.bool)
    with pytest.raises(error, match=message):
        kto_loss(policy, reference, label, 0.0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"label": torch.tensor([1, 0])}, TypeError, "label is torch.int64; it must be a bool tensor"),
        ({"label": torch.tensor([1.0, 0.0])}, TypeError, "label is torch.float32; it must be a bool tensor"),
        ({"label": [True, False]}, TypeError, "label is list; it must be a bool tensor"),
        ({"label": torch.tensor([True])}, ValueError, r"label has shape \(1,\), log-probabilities \(2,\)"),
        ({"z0": t(0.0, 0.0)}, ValueError, r"z0 is \[0.0, 0.0\]; it must be one finite number"),
        ({"z0": math.nan}, ValueError, "z0 is nan; it must be one finite number"),
        ({"z0": math.inf}, ValueError, "z0 is inf; it must be one finite number"),
        ({"beta": 0.0}, ValueError, "beta is 0.0; it must be a positive number"),
        ({"beta": -0.1}, ValueError, "beta is -0.1; it must be a positive number"),
        ({"beta": math.nan}, ValueError, "beta is nan; it must be a positive number"),
        ({"desirable_weight": -1.0}, ValueError, "desirable_weight is -1.0; it must be a non-negative"),
        ({"undesirable_weight": -1.0}, ValueError, "undesirable_weight is -1.0; it must be a non-negative"),
        ({"undesirable_weight": math.inf}, ValueError, "undesirable_weight is inf"),
    ],
)
def test_kto_loss_refuses_what_it_cannot_use(change, error, message):
    arguments = {"policy_logps": GOOD, "reference_logps": GOOD, "label": LABEL, "z0": 0.0} | change
    with pytest.raises(error, match=message):
        kto_loss(**arguments)


def test_a_weight_of_zero_switches_a_side_off():
    assert kto_loss(GOOD, GOOD, LABEL, 0.0, undesirable_weight=0.0).tolist() == [0.5, 0.0]


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (t(-1.0), ValueError, r"one shape \(B,\)"),
        (NAN, ValueError, "is NaN in row 1"),
        (INFINITE, ValueError, "is infinite in row 1"),
        (GOOD.long(), TypeError, "floating point"),
    ],
)
def test_dpo_loss_refuses_a_bad_argument_at_any_place(place, bad, error, message):
    arguments = [GOOD] * 4
    arguments[place] = bad
    with pytest.raises(error, match=message):
        dpo_loss(*arguments)


def test_dpo_loss_refuses_an_empty_batch_and_a_bad_beta():
    with pytest.raises(ValueError, match="policy_chosen is empty"):
        dpo_loss(*[GOOD[:0]] * 4)
    with pytest.raises(ValueError, match="beta is 0; it must be a positive number"):
        dpo_loss(*[GOOD] * 4, beta=0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 5), ValueError, "n_desirable is 0; weights can balance two kinds only where each occurs"),
        ((5, 0), ValueError, "n_undesirable is 0"),
        ((-1, 5), ValueError, "n_desirable is -1"),
        ((3.0, 5), TypeError, "n_desirable is 3.0; it must be a whole number"),
        ((3, True), TypeError, "n_undesirable is True; it must be a whole number"),
        ((3, 5, 0.0), ValueError, "ratio is 0.0; it must be a positive number"),
        ((3, 5, math.inf), ValueError, "ratio is inf"),
    ],
)
def test_balanced_weights_refuses_what_it_cannot_balance(arguments, error, message):
    with pytest.raises(error, match=message):
        balanced_weights(*arguments)


# ---------------------------------------------------------------- the lesson's own versions

LESSON = definitions("06_kto_loss", "reference_point", "kto_loss", "balanced_weights", "kl")


@given(batches())
def test_the_lessons_kto_loss_is_the_packages(batch):
    r, label, *settings = batch
    free = r.clone().requires_grad_()
    mine = LESSON["kto_loss"](free, torch.zeros_like(r), label, *settings)
    mine.mean().backward()
    assert torch.equal(mine.detach(), loss_of(*batch))
    assert torch.equal(free.grad, gradient_of(*batch))


@given(st.lists(st.tuples(nats, nats), min_size=1, max_size=9))
def test_the_lessons_reference_point_is_the_packages(pairs):
    policy, reference = t(*[a for a, _ in pairs]).requires_grad_(), t(*[b for _, b in pairs])
    mine = LESSON["reference_point"](policy, reference)
    assert torch.equal(mine, reference_point(policy, reference))
    assert not mine.requires_grad


@given(st.integers(1, 1000), st.integers(1, 1000), st.floats(0.5, 2.0))
def test_the_lessons_balanced_weights_are_the_packages(n_up, n_down, ratio):
    assert LESSON["balanced_weights"](n_up, n_down, ratio) == balanced_weights(n_up, n_down, ratio)


def test_the_lessons_kl_is_the_librarys():
    p, q = t(0.2, 0.5, 0.3), t(0.6, 0.3, 0.1)
    library = torch.distributions.kl_divergence(*(torch.distributions.Categorical(probs=x) for x in (p, q)))
    torch.testing.assert_close(LESSON["kl"](p, q), library)


@given(st.lists(st.tuples(nats, nats, nats, nats), min_size=1, max_size=9), st.floats(0.01, 2.0))
def test_lesson_08s_dpo_loss_is_the_packages(rows, beta):
    columns = [t(*column) for column in zip(*rows, strict=True)]
    lesson = definitions("08_kto_vs_dpo", "dpo_loss")["dpo_loss"]
    assert torch.equal(lesson(*columns, beta), dpo_loss(*columns, beta))
