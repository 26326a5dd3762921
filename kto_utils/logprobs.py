"""Log-probabilities of completions: which logit predicts which token, what is summed. From lesson 05."""

from collections.abc import Mapping

import torch


def get_probs(logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Log-probability of each completion token.

    The logits at position t predict the token at position t + 1, so labels and mask are shifted by one.

    Args:
        logits: (B, T, V), of any floating type; float16 and bfloat16 are computed in float32.
        labels: (B, T), token ids, i.e. the input_ids themselves.
        mask: (B, T), 1 or True on completion tokens (EOS included), 0 on prompt and padding.

    Returns:
        (B, T-1), nats; entry t belongs to token t + 1. Exactly 0.0 outside the completion (assigned, not
        multiplied: 0 * -inf would be NaN). Differentiable in logits.

    Raises:
        ValueError: shapes that do not fit, T below 2, a label on a completion token outside the vocabulary,
            NaN in a log-probability of the completion.
        TypeError: logits that are no floating type, labels that are no integers.
    """
    if logits.dim() != 3 or labels.shape != logits.shape[:2] or mask.shape != labels.shape:
        raise ValueError(
            f"shapes do not fit: logits {tuple(logits.shape)}, labels {tuple(labels.shape)}, mask "
            f"{tuple(mask.shape)}; expected (B, T, V), (B, T), (B, T)"
        )
    if labels.shape[1] < 2:
        raise ValueError(f"T is {labels.shape[1]}; a predicted token needs one before it, so T must be at least 2")
    if not logits.is_floating_point():
        raise TypeError(f"logits are {logits.dtype}; they must be a floating type")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels are {labels.dtype}; they must be integer token ids")
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    targets, scored = labels[:, 1:].long(), mask[:, 1:].bool()  # gather takes no short integers
    if scored.any():
        low, high = targets[scored].min(), targets[scored].max()
        if low < 0 or high >= logits.shape[-1]:
            raise ValueError(
                f"completion tokens have ids {int(low)} to {int(high)}; logits know 0 to {logits.shape[-1] - 1}"
            )
    # Unscored positions may hold anything (-100, -inf, NaN): they are replaced before the computation, since
    # a value masked only afterwards still sends NaN back through the gradient.
    targets = targets.masked_fill(~scored, 0)
    predictions = logits[:, :-1].masked_fill(~scored[..., None], 0.0)
    chosen = predictions.gather(-1, targets[..., None]).squeeze(-1)
    logps = (chosen - predictions.logsumexp(-1)).masked_fill(~scored, 0.0)
    if torch.isnan(logps).any():
        row, position = torch.isnan(logps).nonzero()[0].tolist()
        raise ValueError(
            f"NaN log-probability in row {row} for token {position + 1}: the logits there hold NaN, +inf, or "
            "only -inf. The model has diverged, or its weights are broken"
        )
    return logps


def sequence_logps(model: torch.nn.Module, batch: Mapping[str, torch.Tensor], prefix: str = "") -> torch.Tensor:
    """log pi(completion | prompt): the sum over completion tokens, EOS included, no length normalisation.

    Args:
        model: any LlamaForCausalLM, of any floating type.
        batch: as made by `KTOPaddingCollator`.
        prefix: "" for the rows themselves, "kl_" for the mismatched ones.

    Returns:
        (B,), nats. The caller decides about gradients (`torch.no_grad()` for a reference).

    Raises:
        KeyError: the batch lacks a field.
        ValueError, TypeError: as `get_probs`.
    """
    fields = ("input_ids", "attention_mask", "label_mask")
    missing = [prefix + field for field in fields if prefix + field not in batch]
    if missing:
        raise KeyError(f"the batch has no {', '.join(missing)}; it has {sorted(batch)}")
    input_ids, attention_mask, label_mask = (batch[prefix + field] for field in fields)
    logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    return get_probs(logits, input_ids, label_mask).sum(-1)
