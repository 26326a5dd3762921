"""k1, k2, k3: what they measure on the policy's own replies and on borrowed ones, exactly and by drawing."""

import pytest
import torch

from kto_lab.kl_estimators import ESTIMATORS, k1, k2, k3, mean_and_spread
from kto_utils.losses import reference_point


def distributions(n, count, seed):
    drawn = torch.rand(n, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.01
    return drawn / drawn.sum(-1, keepdim=True)


PI, PI_REF, Q = (distributions(200, 5, seed) for seed in range(3))
R = torch.log(PI / PI_REF)
KL = (PI * R).sum(-1)


def kl(p, q):
    return (p * torch.log(p / q)).sum(-1)


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_on_the_policys_own_replies_two_of_them_have_no_bias(name):
    torch.testing.assert_close(mean_and_spread(ESTIMATORS[name](R), PI)[0], KL)


def test_k2_has_a_bias_that_vanishes_faster_than_the_kl():
    worst = []
    for step in (0.1, 0.01):
        near = PI_REF * torch.exp(step * R)
        near = near / near.sum(-1, keepdim=True)
        mean, _ = mean_and_spread(k2(torch.log(near / PI_REF)), near)
        worst.append(float(((mean - kl(near, PI_REF)) / kl(near, PI_REF)).abs().max()))
    assert worst[0] > 1e-3  # there is one
    assert worst[1] < 0.11 * worst[0]


def test_k2_and_k3_are_never_negative_and_k1_is():
    r = torch.linspace(-30, 30, 601, dtype=torch.float64)
    assert (k2(r) >= 0).all()
    assert (k3(r) >= 0).all()
    assert (k1(r) < 0).any()


def test_close_to_the_reference_k3_scatters_less_than_k1():
    near = PI_REF * torch.exp(0.1 * R)
    near = near / near.sum(-1, keepdim=True)
    r = torch.log(near / PI_REF)
    assert (mean_and_spread(k3(r), near)[1] < mean_and_spread(k1(r), near)[1]).all()


def test_on_borrowed_replies_k1_is_a_difference_of_two_kls_and_k3_adds_what_exp_has_too_much():
    torch.testing.assert_close(mean_and_spread(k1(R), Q)[0], kl(Q, PI_REF) - kl(Q, PI))
    surplus = (Q * PI_REF / PI).sum(-1) - 1
    torch.testing.assert_close(mean_and_spread(k3(R), Q)[0], kl(Q, PI_REF) - kl(Q, PI) + surplus)


def test_small_log_ratios_keep_their_digits_in_k3():
    r = torch.tensor([1e-5], dtype=torch.float32)
    assert float(k3(r)) == pytest.approx(5e-11, abs=5e-12)


def test_what_is_computed_is_what_drawing_shows():
    pi, q, estimate = PI[0], Q[0], k3(R[0])
    for source in (pi, q):
        drawn = estimate[torch.multinomial(source, 200_000, True, generator=torch.Generator().manual_seed(0))]
        mean, spread = mean_and_spread(estimate, source)
        assert float(drawn.mean()) == pytest.approx(float(mean), abs=5 * float(spread) / 200_000**0.5)
        assert float(drawn.std()) == pytest.approx(float(spread), rel=0.05)


def test_z0_is_the_clamped_mean_of_k1_over_the_borrowed_rows():
    for r in (R[0], R[1], -R[0].abs(), R[2].abs()):
        torch.testing.assert_close(reference_point(r, torch.zeros_like(r)), k1(r).mean().clamp(min=0))
