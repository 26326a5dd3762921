"""Where KTO ends if people disagree: the gradient, the resting place, and the counter-examples of lesson 06b."""

import math

import pytest
import torch

from kto_lab.votes import pulls, settle
from kto_utils.losses import kto_loss

APPROVALS = ((0.9, 0.6, 0.1), (0.7, 0.6, 0.1))


def t(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def expected_loss(logps, pi_ref, approval, z0, beta):
    """By hand: each reply is an up row with its approval and a down row with the rest."""
    up, down = (torch.full(logps.shape, thumb) for thumb in (True, False))
    return sum((share * kto_loss(logps, pi_ref.log(), thumb, z0, beta)).sum()
               for share, thumb in ((approval, up), (1 - approval, down)))  # fmt: skip


@pytest.mark.parametrize("beta", [0.1, 0.8, 3.0])
def test_a_pull_is_minus_the_gradient_of_the_expected_loss_at_the_exact_kl(beta):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        pi, pi_ref, approval = (torch.rand(4, generator=generator, dtype=torch.float64) + 0.01 for _ in range(3))
        pi, pi_ref = pi / pi.sum(), pi_ref / pi_ref.sum()
        logps = pi.log().requires_grad_()
        kl = (pi * (pi / pi_ref).log()).sum()
        expected_loss(logps, pi_ref, approval, kl, beta).backward()
        torch.testing.assert_close(pulls(pi, pi_ref, approval, beta), -logps.grad, rtol=1e-10, atol=1e-14)


def test_settling_is_gradient_descent_on_the_logits():
    pi_ref, approval, beta, steps = t(0.2, 0.5, 0.3), t(0.9, 0.3, 0.6), 0.5, 30
    logits = pi_ref.log()
    for _ in range(steps):
        logits = logits.detach().requires_grad_()
        logps = logits.log_softmax(-1)
        kl = (logps.exp() * (logps - pi_ref.log())).sum().detach()
        (slope,) = torch.autograd.grad(expected_loss(logps, pi_ref, approval, kl, beta), logits)
        logits = logits - 5 / beta * slope
    torch.testing.assert_close(settle(pi_ref, approval, beta, steps), logits.detach().softmax(-1))


def test_a_softmax_over_several_replies_does_not_follow_the_majority_of_each():
    ends = settle(t(0.3, 0.3, 0.4).expand(2, 3), t(*APPROVALS[0], *APPROVALS[1]).reshape(2, 3), 0.8)
    torch.testing.assert_close(ends, t(0.843, 0.157, 0.0, 0.673, 0.327, 0.0).reshape(2, 3), rtol=0, atol=6e-4)
    assert ends[0, 2] < 1e-5
    assert math.log(ends[0, 1] / 0.3) == pytest.approx(-0.65, abs=0.01)  # most people like it, and it sank


@pytest.mark.parametrize("approval", APPROVALS)
def test_at_rest_the_pulls_of_liked_replies_are_as_their_probabilities(approval):
    pi_ref, approval = t(0.3, 0.3, 0.4), t(*approval)
    end = settle(pi_ref, approval, 0.8)
    ratio = pulls(end, pi_ref, approval, 0.8) / end
    assert float(ratio[0]) == pytest.approx(float(ratio[1]), rel=1e-3)


@pytest.mark.parametrize("beta", [0.1, 0.8])
def test_two_replies_that_everybody_likes_end_level_wherever_they_began(beta):
    torch.testing.assert_close(settle(t(0.2, 0.5, 0.3), t(1, 1, 0), beta), t(0.5, 0.5, 0.0), rtol=0, atol=1e-4)


def test_the_end_is_not_the_optimum_of_reward_minus_kl():
    pi_ref, beta = t(0.2, 0.5, 0.3), 0.8
    end = settle(pi_ref, t(1, 1, 0), beta)
    equal_reward = pi_ref * torch.tensor([math.e, math.e, 1.0]) ** (1 / beta)  # the optimum keeps 0.2 : 0.5
    assert float(equal_reward[0] / equal_reward[1]) == pytest.approx(0.4)
    assert float(end[0] / end[1]) == pytest.approx(1.0, abs=1e-3)


def test_a_lone_reply_has_no_resting_place():
    far = t(0.9, 0.1), t(0.5, 0.5), t(0.7, 0.3)  # one reply and its complement, liked by 70 %
    assert float(pulls(*far, 0.8)[0]) > 0
    assert float(settle(far[1], far[2], 0.8)[0]) > 0.999
