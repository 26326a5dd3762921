"""Three ways to estimate a KL from log-ratios of sampled replies, and what each measures. Lesson 06b.

r = log pi(y) - log pi_ref(y). For replies y drawn from the policy pi, KL(pi || pi_ref) is the mean of r; k2 and k3
scatter less. The names are those of J. Schulman's note "Approximating KL divergence" (2020), whose ratio pi_ref / pi
is exp(-r) here. KTO's z0 is the clamped mean of k1 over mismatched replies; GRPO adds k3 of its own tokens.
"""

from collections.abc import Callable

import torch


def k1(r: torch.Tensor) -> torch.Tensor:
    """The log-ratio itself, nats: no bias on the policy's own replies, and either sign."""
    return r


def k2(r: torch.Tensor) -> torch.Tensor:
    """Half its square: never negative, right to second order where policy and reference are close."""
    return r.square() / 2


def k3(r: torch.Tensor) -> torch.Tensor:
    """exp(-r) - 1 + r: never negative, and no bias on the policy's own replies, for exp(-r) has mean 1 there."""
    return torch.expm1(-r) + r


ESTIMATORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"k1": k1, "k2": k2, "k3": k3}


def mean_and_spread(estimate: torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What an estimator gives on average for replies drawn from q, and the standard deviation of one draw; exact.

    Args:
        estimate: (..., N), its value for each of the N replies, nats.
        q: (..., N), where the replies come from: the policy itself, or whoever is borrowed from.

    Returns:
        (mean, standard deviation), each (...), nats.
    """
    mean = (q * estimate).sum(-1)
    return mean, (q * (estimate - mean[..., None]).square()).sum(-1).sqrt()
