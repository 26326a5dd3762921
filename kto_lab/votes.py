"""Where KTO ends if every reply can be listed and people disagree about it. Lesson 06b.

No batch and no estimate: the loss is its expectation over the votes, and the reference point is the exact KL.
"""

import torch


def pulls(pi: torch.Tensor, pi_ref: torch.Tensor, approval: torch.Tensor, beta: float) -> torch.Tensor:
    """Minus the gradient of the expected KTO loss with respect to each reply's log-probability.

    A reply with approval p is p times a thumbs-up row and 1 - p times a thumbs-down row, both of weight 1, so its pull
    is (2p - 1) * beta * sigma(u) * sigma(-u) with u = beta * (r - z0), r = log(pi / pi_ref) and z0 = KL(pi || pi_ref),
    which gets no gradient.

    Args:
        pi, pi_ref: (..., N), the probabilities of all N replies; pi_ref has no zeros.
        approval: (..., N), the share of thumbs up.
        beta: positive.

    Returns:
        (..., N), per nat: above 0 where the reply is pushed up.
    """
    r = torch.log(pi / pi_ref)
    u = beta * (r - torch.xlogy(pi, pi / pi_ref).sum(-1, keepdim=True))
    return (2 * approval - 1) * beta * torch.sigmoid(u) * torch.sigmoid(-u)


def settle(pi_ref: torch.Tensor, approval: torch.Tensor, beta: float, steps: int = 5000) -> torch.Tensor:
    """Gradient descent from the reference on the logits of one question, every reply rated equally often.

    Replies that most people like end where pull / pi is the same for all of them; there the softmax, which makes
    probabilities add up to 1, cancels the pulls. The others sink for ever, so their probability only nears 0.

    Args:
        pi_ref, approval, beta: as in `pulls`; several questions at once along the first dimensions.
        steps: of descent, each 5 / beta times the gradient of the sum over the replies.

    Returns:
        (..., N), the policy after the last step.
    """
    logits = pi_ref.log()
    for _ in range(steps):
        pi = logits.softmax(-1)
        pull = pulls(pi, pi_ref, approval, beta)
        logits = logits + 5 / beta * (pull - pi * pull.sum(-1, keepdim=True))
    return logits.softmax(-1)
