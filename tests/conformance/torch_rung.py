"""KTO in torch: `kto_utils` itself, dressed for the runner; the gradient is autograd's. Run from the top folder."""

import torch

from kto_utils.logprobs import get_probs
from kto_utils.losses import kto_loss, reference_point

DTYPE = torch.float64


def loss(label, beta, desirable_weight, undesirable_weight, **numbers):
    """numbers: policy_logps, reference_logps (B,), kl_policy_logps, kl_reference_logps (K,)."""
    columns = {name: torch.tensor(column, dtype=DTYPE) for name, column in numbers.items()}
    policy = columns["policy_logps"].requires_grad_()
    z0 = reference_point(columns["kl_policy_logps"], columns["kl_reference_logps"])
    settings = (beta, desirable_weight, undesirable_weight)
    losses = kto_loss(policy, columns["reference_logps"], torch.tensor(label), z0, *settings)
    losses.mean().backward()
    losses = losses.detach()
    return {"z0": z0, "losses": losses, "loss": losses.mean(), "grad_policy_logps": policy.grad}


def logps(logits, input_ids, attention_mask, label_mask):
    """logits (B, T, V), the rest (B, T) -> token_logps (B, T-1), logps (B,)."""
    by_token = get_probs(torch.tensor(logits, dtype=DTYPE), torch.tensor(input_ids), torch.tensor(label_mask))
    return {"token_logps": by_token, "logps": by_token.sum(-1)}
