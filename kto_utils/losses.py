"""KTO and DPO as pure functions of log-probabilities. Derived in lessons 06 and 08.

No model, no tokenizer, no configuration in here. Log-probabilities are natural logs, summed over the completion's
tokens. KTO: arXiv 2402.01306; the form w * (1 - v) of v1, Eq. 7, equals lambda_y - v of v4, Eq. 8.
"""

import math
from numbers import Integral

import torch
import torch.nn.functional as F

BAND_V1 = (1.0, 4 / 3)  # recommended range of lambda_D n_D / (lambda_U n_U): paper v1, Eq. 8
BAND_CURRENT = (1.0, 3 / 2)  # the same in v4, Eq. 9


def _check_logps(**named: torch.Tensor) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 1:
        raise ValueError(f"log-probabilities must all have one shape (B,); found {shapes}")
    for name, tensor in named.items():
        if tensor.numel() == 0:
            raise ValueError(f"{name} is empty; a batch needs at least one row")
        if not tensor.is_floating_point():
            raise TypeError(f"{name} is {tensor.dtype}; log-probabilities are floating point")
        if not torch.isfinite(tensor).all():
            row = int((~torch.isfinite(tensor)).nonzero()[0])
            found = "NaN" if torch.isnan(tensor[row]) else "infinite"
            raise ValueError(f"{name} is {found} in row {row}; look at the model's logits for that row")


def _check_positive(name: str, number: float, zero_allowed: bool = False) -> None:
    good = math.isfinite(number) and (number > 0 or (zero_allowed and number == 0))
    if not good:
        raise ValueError(f"{name} is {number}; it must be a {'non-negative' if zero_allowed else 'positive'} number")


def reference_point(policy_kl_logps: torch.Tensor, reference_kl_logps: torch.Tensor) -> torch.Tensor:
    """z0: what a batch knows of KL(policy || reference), from mismatched completions.

    z0 = max(0, mean_i(log pi(y_j|x_i) - log pi_ref(y_j|x_i))) with y_j another row's completion. The clamp
    comes after the mean; no gradient flows.

    Args:
        policy_kl_logps, reference_kl_logps: (B,), nats, of the mismatched rows.

    Returns:
        A scalar tensor, nats (beta is not in it), >= 0.

    Raises:
        ValueError: shapes that differ, an empty batch, NaN or infinity.

    Lesson 06; paper v1, section 4.1. Its mean is not the true KL: see lesson 06.
    """
    _check_logps(policy_kl_logps=policy_kl_logps, reference_kl_logps=reference_kl_logps)
    return (policy_kl_logps - reference_kl_logps).mean().clamp(min=0).detach()


def kto_loss(
    policy_logps: torch.Tensor,
    reference_logps: torch.Tensor,
    label: torch.Tensor,
    z0: torch.Tensor | float,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> torch.Tensor:
    """The KTO loss of each row: w * (1 - sigmoid(s * beta * (r - z0))).

    r = policy_logps - reference_logps; s = +1 and w = desirable_weight where label is True, s = -1 and
    w = undesirable_weight where it is False.

    Args:
        policy_logps, reference_logps: (B,), nats, summed over completion tokens.
        label: (B,), bool, True = thumbs up.
        z0: scalar, nats, from `reference_point`; treated as a constant.
        beta: positive; turns nats into the argument of the sigmoid.
        desirable_weight, undesirable_weight: lambda_D and lambda_U, >= 0.

    Returns:
        (B,) losses, each between 0 and its weight; average them for the batch loss.

    Raises:
        TypeError: label is no bool tensor, log-probabilities that are no floats.
        ValueError: shapes that differ, NaN or infinity, z0 that is no finite scalar, beta not positive, a
            negative weight.

    Lesson 06; paper v1, Eq. 7.
    """
    _check_logps(policy_logps=policy_logps, reference_logps=reference_logps)
    if not isinstance(label, torch.Tensor) or label.dtype != torch.bool:
        kind = label.dtype if isinstance(label, torch.Tensor) else type(label).__name__
        raise TypeError(f"label is {kind}; it must be a bool tensor, True = thumbs up")
    if label.shape != policy_logps.shape:
        raise ValueError(f"label has shape {tuple(label.shape)}, log-probabilities {tuple(policy_logps.shape)}")
    z0 = torch.as_tensor(z0, dtype=policy_logps.dtype, device=policy_logps.device).detach()
    if z0.numel() != 1 or not torch.isfinite(z0).all():
        raise ValueError(f"z0 is {z0.tolist()}; it must be one finite number in nats")
    _check_positive("beta", beta)
    _check_positive("desirable_weight", desirable_weight, zero_allowed=True)
    _check_positive("undesirable_weight", undesirable_weight, zero_allowed=True)

    logratio = policy_logps - reference_logps
    up = label.to(logratio.dtype)  # so that a weight such as 1.33 is not rounded to float32 on the way
    sign = 2.0 * up - 1.0
    weight = desirable_weight * up + undesirable_weight * (1.0 - up)
    # 1 - sigmoid(u) = sigmoid(-u), but the left side rounds to exactly 0 from u = 16.64 on in float32.
    return weight * torch.sigmoid(-sign * beta * (logratio - z0.reshape(())))


def dpo_loss(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    reference_chosen: torch.Tensor, reference_rejected: torch.Tensor,
    beta: float = 0.1,
) -> torch.Tensor:  # fmt: skip
    """The DPO loss of each pair: -log sigmoid(beta * (r_chosen - r_rejected)).

    Args:
        policy_chosen, policy_rejected, reference_chosen, reference_rejected: (B,), nats, summed over
            completion tokens; entry i of all four belongs to pair i.
        beta: positive.

    Returns:
        (B,) losses; ln 2 where policy and reference agree.

    Raises:
        ValueError: shapes that differ (a row without a partner), NaN or infinity, beta not positive.

    Lesson 08; Rafailov et al. 2023, Eq. 7.
    """
    _check_logps(
        policy_chosen=policy_chosen, policy_rejected=policy_rejected,
        reference_chosen=reference_chosen, reference_rejected=reference_rejected,
    )  # fmt: skip
    _check_positive("beta", beta)
    margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
    return -F.logsigmoid(beta * margin)


def balanced_weights(n_desirable: int, n_undesirable: int, ratio: float = 1.0) -> tuple[float, float]:
    """Weights with lambda_D * n_D / (lambda_U * n_U) = ratio, the smaller one being 1.

    Args:
        n_desirable, n_undesirable: how many thumbs up and down, each at least 1.
        ratio: 1 gives both sides equal total weight; the paper recommends 1 to 4/3 (v1) or 1 to 3/2 (v4).

    Returns:
        (desirable_weight, undesirable_weight).

    Raises:
        ValueError: a count below 1, ratio not positive.
        TypeError: a count that is no whole number.

    Lesson 06; paper v1, Eq. 8.
    """
    for name, count in (("n_desirable", n_desirable), ("n_undesirable", n_undesirable)):
        if isinstance(count, bool) or not isinstance(count, Integral):
            raise TypeError(f"{name} is {count!r}; it must be a whole number")
        if count < 1:
            raise ValueError(f"{name} is {count}; weights can balance two kinds only where each occurs")
    _check_positive("ratio", ratio)
    desirable_over_undesirable = ratio * n_undesirable / n_desirable
    return max(1.0, desirable_over_undesirable), max(1.0, 1.0 / desirable_over_undesirable)
