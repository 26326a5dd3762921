"""The losses: the authors' numbers, what KTO does not promise, and every refusal; see also test_properties.py."""

import contextlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lesson_source import definitions

from kto_lab import authors
from kto_utils.losses import balanced_weights, dpo_loss, kto_loss, reference_point

F64 = torch.float64
AUTHORS = authors.load_cases()

nats = st.floats(-60.0, 60.0, allow_subnormal=False)
weights = st.floats(0.1, 20.0)
betas = st.floats(0.01, 1.0)


def t(*numbers):
    return torch.tensor(numbers, dtype=F64)


@st.composite
def batches(draw):
    """(r, label, z0, beta, lambda_D, lambda_U) of 1 to 9 rows."""
    n = draw(st.integers(1, 9))
    r = torch.tensor(draw(st.lists(nats, min_size=n, max_size=n)), dtype=F64)
    label = torch.tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    return r, label, draw(st.floats(0.0, 30.0)), draw(betas), draw(weights), draw(weights)


def loss_of(r, label, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    return kto_loss(r, torch.zeros_like(r), label, z0, beta, desirable_weight, undesirable_weight)


def gradient_of(r, *settings):
    free = r.clone().requires_grad_()
    loss_of(free, *settings).mean().backward()
    return free.grad


# ---------------------------------------------------------------- the authors' code


each_case = pytest.mark.parametrize("case", AUTHORS, ids=range(len(AUTHORS)))


def test_stored_cases_are_the_authors_and_cover_what_matters():
    assert "HALOs main 4831988" in authors.about()
    assert len(AUTHORS) == 24
    shares = {float(case.label.double().mean()) for case in AUTHORS}
    assert {0.0, 1.0} < shares  # one-sided batches and mixed ones
    points = [float(case.z0) for case in AUTHORS]
    assert 0.0 in points
    assert max(points) > 1.0


@each_case
def test_agrees_with_the_authors_code(case):
    policy = case.policy_logps.clone().requires_grad_()
    z0 = reference_point(case.kl_policy_logps, case.kl_reference_logps)
    losses = kto_loss(policy, case.reference_logps, case.label, z0, *case.settings)
    losses.mean().backward()
    close = {"rtol": 1e-6, "atol": 0.0}
    torch.testing.assert_close(z0, case.z0, **close)
    torch.testing.assert_close(losses.detach(), case.losses, **close)
    torch.testing.assert_close(losses.detach().mean(), case.loss, **close)
    torch.testing.assert_close(policy.grad, case.gradient, **close)


@each_case
def test_with_the_authors_rounded_z0_only_their_cancellation_is_left(case):
    z0 = float(case.z0)  # a float32 number
    losses = kto_loss(case.policy_logps, case.reference_logps, case.label, z0, *case.settings)
    torch.testing.assert_close(losses, case.losses, rtol=1e-9, atol=0.0)


# ---------------------------------------------------------------- the reference point


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


@given(batches(), st.floats(-500.0, 0.0))
def test_only_the_difference_of_the_log_probabilities_counts(batch, shift):
    r, label, *settings = batch
    base = torch.full_like(r, shift)
    shifted = kto_loss(base + r, base, label, *settings)
    torch.testing.assert_close(shifted, loss_of(*batch), rtol=1e-9, atol=1e-12)


def test_a_weight_is_not_rounded_to_float32():
    loss = loss_of(t(0.0, 0.0), torch.tensor([True, False]), 0.0, 0.1, 13.33, 1.33)
    assert loss.tolist() == [13.33 / 2, 1.33 / 2]


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


def test_dpo_gradients_of_a_pair_are_opposite():
    chosen, rejected = t(1.0).requires_grad_(), t(-2.0).requires_grad_()
    dpo_loss(chosen, rejected, t(0.0), t(0.0), 0.2).sum().backward()
    assert float(chosen.grad) == pytest.approx(-0.2 / (1 + math.exp(0.2 * 3.0)), rel=1e-12)
    assert float(rejected.grad) == -float(chosen.grad)


def test_dpo_stays_finite_far_out():
    assert dpo_loss(t(-1e5), t(1e5), t(0.0), t(0.0), 0.1).tolist() == [2e4]
    assert dpo_loss(t(1e5), t(-1e5), t(0.0), t(0.0), 0.1).tolist() == [0.0]


# ---------------------------------------------------------------- the two weights


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


@pytest.mark.parametrize(("u", "gone"), [(16.63, False), (16.64, True), (17.0, True), (50.0, True)])
def test_one_minus_sigmoid_is_exactly_0_in_float32_where_1_plus_exp_rounds_to_1(u, gone):
    x = torch.tensor([u], dtype=torch.float32)
    assert (float(1 - torch.sigmoid(x)) == 0) is gone
    assert (1 + float(torch.exp(-x)) <= 1 + 2**-24) is gone  # halfway to the next number of float32
    assert float(torch.sigmoid(-x)) == pytest.approx(math.exp(-u), rel=1e-5)


# ---------------------------------------------------------------- the lesson's own versions

LESSON = definitions("06_kto_loss", "my_reference_point", "my_kto_loss", "my_kto_gradient")
DEEPER = definitions("06b_what_kto_promises", "kl", "my_weight_band")


@contextlib.contextmanager
def float64():
    """The lesson's default type, so that a weight such as 1.33 is not rounded to float32 on the way."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(F64)
    yield
    torch.set_default_dtype(before)


@given(batches())
def test_the_lessons_kto_loss_is_the_packages(batch):
    r, label, *settings = batch
    free = r.clone().requires_grad_()
    with float64():
        mine = LESSON["my_kto_loss"](free, torch.zeros_like(r), label, *settings)
    mine.mean().backward()
    assert torch.equal(mine.detach(), loss_of(*batch))
    assert torch.equal(free.grad, gradient_of(*batch))


@given(batches())
def test_the_lessons_gradient_is_that_of_the_packages_loss(batch):
    with float64():
        mine = LESSON["my_kto_gradient"](*batch)
    torch.testing.assert_close(mine, gradient_of(*batch), rtol=1e-9, atol=1e-14)


@given(st.lists(st.tuples(nats, nats), min_size=1, max_size=9))
def test_the_lessons_reference_point_is_the_packages(pairs):
    policy, reference = t(*[a for a, _ in pairs]).requires_grad_(), t(*[b for _, b in pairs])
    mine = LESSON["my_reference_point"](policy, reference)
    assert torch.equal(mine, reference_point(policy, reference))
    assert not mine.requires_grad


@given(st.integers(1, 1000), st.integers(1, 1000), st.floats(0.5, 2.0))
def test_the_lessons_band_of_weights_ends_at_the_packages_balanced_ones(n_up, n_down, ratio):
    ends = DEEPER["my_weight_band"](n_up, n_down, 1.0, ratio)
    for end, at in zip(ends, (1.0, ratio), strict=True):
        up, down = balanced_weights(n_up, n_down, at)
        assert end == pytest.approx(up / down)


def test_the_deeper_lessons_kl_is_the_librarys():
    p, q = t(0.2, 0.5, 0.3), t(0.6, 0.3, 0.1)
    library = torch.distributions.kl_divergence(*(torch.distributions.Categorical(probs=x) for x in (p, q)))
    torch.testing.assert_close(DEEPER["kl"](p, q), library)


@given(st.lists(st.tuples(nats, nats, nats, nats), min_size=1, max_size=9), st.floats(0.01, 2.0))
def test_lesson_08s_dpo_loss_is_the_packages(rows, beta):
    columns = [t(*column) for column in zip(*rows, strict=True)]
    lesson = definitions("08_kto_vs_dpo", "my_dpo_loss")["my_dpo_loss"]
    assert torch.equal(lesson(*columns, beta), dpo_loss(*columns, beta))
