"""Wrong on purpose (guard "clamp"): clamps each mismatched log-ratio at zero, and averages afterwards."""

import specification
from specification import logps

__all__ = ["logps", "loss"]


def loss(kl_policy_logps, kl_reference_logps, **others):
    clamped = []
    for policy, reference in zip(kl_policy_logps, kl_reference_logps, strict=True):
        clamped.append(max(0.0, policy - reference))  # right: the mean first, then max(0, mean)
    return specification.loss(kl_policy_logps=clamped, kl_reference_logps=[0.0] * len(clamped), **others)
