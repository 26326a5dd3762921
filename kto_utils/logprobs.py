"""Log-probabilities of completions: which logit predicts which token, what is summed. From lesson 05."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F


def _shifted(labels: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What is predicted, and whether it is scored: entry t of both (B, T-1) tensors belongs to token t + 1."""
    if labels.shape[1] < 2:
        raise ValueError(f"T is {labels.shape[1]}; a predicted token needs one before it, so T must be at least 2")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels are {labels.dtype}; they must be integer token ids")
    targets, scored = labels[:, 1:].long(), mask[:, 1:].bool()  # gather takes no short integers
    # Unscored positions may hold anything, such as -100.
    return targets.masked_fill(~scored, 0), scored


def _check_ids(targets: torch.Tensor, n_words: int) -> None:
    if targets.numel() and (targets.min() < 0 or targets.max() >= n_words):
        raise ValueError(
            f"completion tokens have ids {int(targets.min())} to {int(targets.max())}; logits know 0 to {n_words - 1}"
        )


def _check_nan(logps: torch.Tensor) -> None:
    if torch.isnan(logps).any():
        row, position = torch.isnan(logps).nonzero()[0].tolist()
        raise ValueError(
            f"NaN log-probability in row {row} for token {position + 1}: the logits there hold NaN, +inf, or "
            "only -inf. The model has diverged, or its weights are broken"
        )


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
    if not logits.is_floating_point():
        raise TypeError(f"logits are {logits.dtype}; they must be a floating type")
    targets, scored = _shifted(labels, mask)
    _check_ids(targets[scored], logits.shape[-1])
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    # Unscored logits (-inf, NaN) are replaced before the computation too: a value masked only afterwards still
    # sends NaN back through the gradient.
    predictions = logits[:, :-1].masked_fill(~scored[..., None], 0.0)
    chosen = predictions.gather(-1, targets[..., None]).squeeze(-1)
    logps = (chosen - predictions.logsumexp(-1)).masked_fill(~scored, 0.0)
    _check_nan(logps)
    return logps


class _ChosenLogProbability(torch.autograd.Function):
    """log softmax(logits)[target] of each row, computed in the memory of the logits.

    The logits become their exponentials where they stand, and those become the gradient: no second (N, V) tensor is
    made. Hence a second backward pass through the same graph is refused.
    """

    @staticmethod
    def forward(ctx, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        chosen = logits.gather(-1, targets[:, None])
        highest = logits.amax(-1, keepdim=True)
        total = logits.sub_(highest).exp_().sum(-1, keepdim=True)
        ctx.save_for_backward(logits, total, targets)
        ctx.spent = False
        return (chosen - highest - total.log()).squeeze(-1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        if ctx.spent:
            raise RuntimeError("a second backward pass through one graph: call sequence_logps again instead")
        ctx.spent = True
        exponentials, total, targets = ctx.saved_tensors
        gradient = gradient[:, None]
        return exponentials.mul_(-gradient / total).scatter_add_(-1, targets[:, None], gradient), None


@contextlib.contextmanager
def _head_only_at(model: torch.nn.Module, places: torch.Tensor) -> Iterator[None]:
    """Within the block the model's head sees only the hidden states at `places` (B, T), and so gives (1, N, V).

    The model itself is called as always, so wrappers around it (adapters, several processes) do their part. A model
    that names no head, through `get_output_embeddings`, is left as it is and gives (B, T, V).
    """
    inner = getattr(model, "module", model)
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][places][None],))
    try:
        yield
    finally:
        hook.remove()


def token_logps(
    model: torch.nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, label_mask: torch.Tensor
) -> torch.Tensor:
    """What `get_probs` gives for the model's logits, without making those that it would not read.

    The hidden states are computed once, the head is applied only where a completion token is predicted, and the
    softmax takes the place of the logits: memory and time of the vocabulary are paid for N scored tokens, not for
    B * T. Values and gradients differ from those of `get_probs` by rounding only. A model without
    `get_output_embeddings`, or whose head ignores hooks, goes through `get_probs` itself.

    Args:
        model: as in `sequence_logps`.
        input_ids, attention_mask, label_mask: (B, T).

    Returns:
        (B, T-1), nats; entry t belongs to token t + 1. Exactly 0.0 outside the completion.

    Raises:
        ValueError, TypeError: as `get_probs`; a logit of +inf is always refused.
    """
    targets, scored = _shifted(input_ids, label_mask)
    with _head_only_at(model, F.pad(scored, (0, 1))):
        logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    if logits.shape[:2] == input_ids.shape:  # never true of (1, N): the first token of a row is not scored
        return get_probs(logits, input_ids, label_mask)
    targets, logits = targets[scored], logits[0]
    _check_ids(targets, logits.shape[-1])
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    chosen = _ChosenLogProbability.apply(logits, targets)
    logps = chosen.new_zeros(scored.shape).masked_scatter(scored, chosen)
    _check_nan(logps)
    return logps


def sequence_logps(model: torch.nn.Module, batch: Mapping[str, torch.Tensor], prefix: str = "") -> torch.Tensor:
    """log pi(completion | prompt): the sum over completion tokens, EOS included, no length normalisation.

    Args:
        model: any causal language model of the library such as LlamaForCausalLM, of any floating type, bare or
            wrapped (PEFT, DistributedDataParallel).
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
    return token_logps(model, input_ids, attention_mask, label_mask).sum(-1)
