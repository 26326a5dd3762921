"""Formulas of KTO's neighbours: lesson 09's table as functions, held against TRL by tests. Lessons 09, 09b.

Log-probabilities are natural logs, summed over the completion's tokens, as everywhere in the course. DPO and KTO
themselves are in `kto_utils.losses`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from kto_utils.losses import dpo_loss


class Pairs(NamedTuple):
    """A batch of pairs: log-probabilities, (B,) in nats, and how many tokens the two completions have, (B,)."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    reference_chosen: torch.Tensor
    reference_rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor

    @property
    def logratios(self) -> tuple[torch.Tensor, torch.Tensor]:
        """r of the chosen and of the rejected replies, nats."""
        return self.chosen - self.reference_chosen, self.rejected - self.reference_rejected

    @property
    def means(self) -> tuple[torch.Tensor, torch.Tensor]:
        """log pi of both, mean over tokens, nats a token."""
        return self.chosen / self.chosen_tokens, self.rejected / self.rejected_tokens


# ---------------------------------------------------------------- pairs: Pairs -> (B,) losses


def dpo(pairs: Pairs, beta: float = 0.1) -> torch.Tensor:
    """DPO, as the package has it."""
    return dpo_loss(*pairs[:4], beta)


def cdpo(pairs: Pairs, beta: float = 0.1, flipped: float = 0.1) -> torch.Tensor:
    """Conservative DPO: the mean loss of a pair whose choice is the wrong way round with this chance. Pulls back.

    Source: the DPO authors' code, `label_smoothing`. TRL's DPO trainer has no such loss: its "sigmoid" ignores that
    setting.
    """
    right, wrong = F.logsigmoid(beta * _margin(pairs)), F.logsigmoid(-beta * _margin(pairs))
    return -(1 - flipped) * right - flipped * wrong


def robust(pairs: Pairs, beta: float = 0.1, flipped: float = 0.1) -> torch.Tensor:
    """Robust DPO: its mean over flipped choices is DPO's loss of the true ones. TRL: "robust"."""
    right, wrong = F.logsigmoid(beta * _margin(pairs)), F.logsigmoid(-beta * _margin(pairs))
    return (-(1 - flipped) * right + flipped * wrong) / (1 - 2 * flipped)


def ipo(pairs: Pairs, tau: float = 0.1, per_token: bool = False) -> torch.Tensor:
    """IPO: the margin is to be 1 / (2 tau), and not more.

    Args:
        per_token: False is Eq. 17 of Azar et al., which writes the whole reply and is tested on bandits; True takes the
            mean over tokens in each log-ratio, as TRL ("ipo") and the KTO authors' code do.
    """
    chosen, rejected = pairs.logratios
    if per_token:
        chosen, rejected = chosen / pairs.chosen_tokens, rejected / pairs.rejected_tokens
    return (chosen - rejected - 1 / (2 * tau)) ** 2


def simpo(pairs: Pairs, beta: float = 2.0, gamma: float = 1.0) -> torch.Tensor:
    """SimPO: means over tokens, a margin gamma to be reached, no reference. Source: the authors' code."""
    chosen, rejected = pairs.means
    return -F.logsigmoid(beta * (chosen - rejected) - gamma)


def log_odds(mean_logp: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) of p = exp(mean_logp)."""
    return mean_logp - torch.log(-torch.expm1(mean_logp))


def orpo(pairs: Pairs, weight: float = 0.1) -> torch.Tensor:
    """ORPO (Eq. 3 to 7): SFT on the chosen reply and an odds ratio, no reference.

    TRL 1.16 takes the SFT term over the prompt's tokens too, and as one mean over the batch.
    """
    chosen, rejected = pairs.means
    return -chosen - weight * F.logsigmoid(log_odds(chosen) - log_odds(rejected))


def cpo(pairs: Pairs, beta: float = 0.1, weight: float = 1.0) -> torch.Tensor:
    """CPO: DPO with a uniform reference, and SFT on the chosen reply. Source: TRL, which takes the SFT term's mean over
    all tokens of the batch; here it is the pair's own."""
    return -F.logsigmoid(beta * (pairs.chosen - pairs.rejected)) - weight * pairs.means[0]


def apo_zero(pairs: Pairs, beta: float = 0.1) -> torch.Tensor:
    """APO-zero, as TRL has it: each reply against its own reference. KTO with z0 = 0; by v4 that is no HALO."""
    chosen, rejected = pairs.logratios
    return torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected)


def _margin(pairs: Pairs) -> torch.Tensor:
    chosen, rejected = pairs.logratios
    return chosen - rejected


# ---------------------------------------------------------------- thumbs


def bco_shift(reward: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """BCO's delta of one batch: midway between the mean rewards of the two kinds of thumb. A scalar, no gradient.

    The paper smooths it over batches with a moving average.

    Args:
        reward: (B,), beta * r. label: (B,), bool, True = thumbs up; both kinds must occur.
    """
    if label.all() or not label.any():
        raise ValueError("BCO's delta needs thumbs of both kinds in the batch")
    return ((reward[label].mean() + reward[~label].mean()) / 2).detach()


def bco(reward: torch.Tensor, label: torch.Tensor, shift: torch.Tensor | float) -> torch.Tensor:
    """BCO: -log sigmoid of the reward's distance from delta, on the good side. (B,) rewards beta * r -> (B,) losses."""
    return -F.logsigmoid(torch.where(label, reward - shift, shift - reward))


# ---------------------------------------------------------------- rewards of fresh replies


def rloo_advantage(rewards: torch.Tensor) -> torch.Tensor:
    """RLOO: each reward minus the mean of its siblings'. rewards (N, G), G replies to each of N prompts -> (N, G)."""
    others = (rewards.sum(-1, keepdim=True) - rewards) / (rewards.shape[-1] - 1)
    return rewards - others


def grpo_advantage(rewards: torch.Tensor) -> torch.Tensor:
    """GRPO: distance from the group's mean in standard deviations. (N, G) -> (N, G); 0 where all rewards are equal.

    TRL adds 1e-4 to the standard deviation.
    """
    spread = rewards.std(-1, keepdim=True)
    return torch.where(spread > 0, (rewards - rewards.mean(-1, keepdim=True)) / spread.clamp(min=1e-30), 0.0)


# ---------------------------------------------------------------- asking a loss


def describe(loss: Callable[[Pairs], torch.Tensor]) -> dict[str, bool]:
    """Four questions to a loss of pairs, answered by trying: nothing is believed.

    Returns:
        `reference`: does it change with the reference? `pairs`: does the push on one reply depend on the other?
        `length-normalised`: is a pair twice as long, with the same means per token, the same to it? `sees both fall`:
        does it notice when both replies lose 5 nats?
    """
    pair = torch.tensor([-12.0, -15.0, -14.0, -13.0, 10.0, 10.0], dtype=torch.float64)
    start = loss(Pairs(*pair.split(1)))

    def changes(other: torch.Tensor) -> bool:
        return bool((loss(Pairs(*other.split(1))) - start).abs() > 1e-9)

    moved = pair.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(Pairs(*moved.split(1))), moved, create_graph=True)
    (mixed,) = torch.autograd.grad(slope[0], moved, materialize_grads=True)
    return {
        "reference": changes(pair + torch.tensor([0, 0, 1, 0, 0, 0])),
        "pairs": bool(mixed[1].abs() > 1e-9),
        "length-normalised": not changes(2 * pair),
        "sees both fall": changes(pair - torch.tensor([5, 5, 0, 0, 0, 0])),
    }
