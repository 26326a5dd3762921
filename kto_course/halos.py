"""What lessons 09 and 09b use ready-made: a comparison that speaks, a value read off a loss, tables that learn."""

from collections.abc import Callable

import torch


def agree(what: str, a, b, tolerance: float = 1e-12) -> None:
    """Stops the lesson if two results differ, and says how closely they agree if they do."""
    difference = float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())
    assert difference < tolerance, f"{what}: they differ by {difference}"
    print(f"{what}: they agree to {tolerance:.0e}")


def value_of_loss(loss: Callable, reference_point: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The value that a loss gives to standing x nats above one's reference point, 0 at x = 0; all tensors (N,).

    loss: rewards (N,) -> losses (N,).
    """
    return loss(reference_point) - loss(reference_point + x)


def train_tables(
    mean_loss: Callable, tables: torch.Tensor, share: torch.Tensor, beta: float, steps: int
) -> torch.Tensor:
    """Gradient descent on policies that are tables: the softmax of one number for each reply, no text, no batches.

    Args:
        mean_loss: function of (log pi, log pi_ref, share, beta), the first two (N, V), that returns (N,) losses.
        tables: (N, V), pi_ref of each table; training starts there.
        share: (N,), the share of raters who prefer reply a.
        beta: as in the loss; the step, 2 / beta**2, suits a curvature of beta**2 / 4.
        steps: how many.

    Returns:
        (steps + 1, N, V), log pi before the first step and after each.
    """
    reference_logps = tables.log()
    logits, history = reference_logps.clone(), [reference_logps]
    for _ in range(steps):
        logits.requires_grad_()
        loss = mean_loss(logits.log_softmax(-1), reference_logps, share, beta).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - 2 / beta**2 * gradient).detach()
        history.append(logits.log_softmax(-1))
    return torch.stack(history)
