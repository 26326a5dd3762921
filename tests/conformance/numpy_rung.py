"""KTO in NumPy: the same two parts as `specification.py`, a whole batch at a time, float64."""

import numpy as np


def sigmoid(x):
    small = np.exp(-np.abs(x))  # at most 1, so nothing overflows
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def loss(
    policy_logps,
    reference_logps,
    kl_policy_logps,
    kl_reference_logps,
    label,
    beta,
    desirable_weight,
    undesirable_weight,
):
    """Everything but the four scalars is (B,); the two kl_ arrays may have another length than the batch."""
    r = np.subtract(policy_logps, reference_logps, dtype=np.float64)
    z0 = max(0.0, np.subtract(kl_policy_logps, kl_reference_logps, dtype=np.float64).mean())
    s = np.where(label, 1.0, -1.0)
    w = np.where(label, desirable_weight, undesirable_weight)
    u = s * beta * (r - z0)
    losses = w * sigmoid(-u)
    gradient = -s * w * beta * sigmoid(u) * sigmoid(-u) / len(r)
    return {"z0": z0, "losses": losses, "loss": losses.mean(), "grad_policy_logps": gradient}


def logps(logits, input_ids, attention_mask, label_mask):
    """logits (B, T, V), the rest (B, T) -> token_logps (B, T-1), logps (B,)."""
    scored = np.array(label_mask, dtype=bool)[:, 1:]
    targets = np.where(scored, np.array(input_ids)[:, 1:], 0)  # an id outside the completion may be anything
    predictions = np.where(scored[..., None], np.array(logits, dtype=np.float64)[:, :-1], 0.0)
    predictions -= predictions.max(-1, keepdims=True)
    chosen = np.take_along_axis(predictions, targets[..., None], -1)[..., 0]
    by_token = np.where(scored, chosen - np.log(np.exp(predictions).sum(-1)), 0.0)
    return {"token_logps": by_token, "logps": by_token.sum(-1)}
