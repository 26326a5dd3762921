"""Online KTO: every round the policy as it is now writes the replies that are judged, not the one it started from.

The same loop also trains on a fixed file, dealt out round by round, so that a comparison varies one thing: who wrote
the replies. `online_results` measures it. Lesson 09b.
"""

from collections.abc import Callable, Sequence

import torch

from kto_utils.evaluate import collect_feedback
from kto_utils.losses import balanced_weights
from kto_utils.train import Callback, History, Parts, Run, train_kto
from kto_utils.world import Question

# Given the number of the round and the policy as it is: the feedback rows of that round.
Collect = Callable[[int, torch.nn.Module], list[dict]]


def from_the_policy(questions: Sequence[Question], n: int, seed: int, tokenizer) -> Collect:
    """Online: each round n fresh replies of the policy to each question, judged by the simulated human."""
    return lambda number, policy: collect_feedback(policy, questions, n, seed + number, tokenizer)


def from_a_file(rows: Sequence[dict], rounds: int) -> Collect:
    """Offline: the same file whatever the policy has become, its rows dealt out to the rounds in turn."""
    return lambda number, policy: list(rows[number::rounds])


class KeepOptimizer(Callback):
    """Carries the moments of AdamW from one round to the next: the rounds are one training, not many."""

    def __init__(self):
        self.state: dict | None = None

    def start(self, run: Run) -> None:
        if self.state is not None:
            run.optimizer.load_state_dict(self.state)

    def step(self, run: Run) -> None:
        self.state = run.optimizer.state_dict()


def train_online_kto(
    policy: torch.nn.Module,
    reference: torch.nn.Module,
    collect: Collect,
    tokenizer,
    *,
    rounds: int,
    steps_per_round: int,
    learning_rate: float,
    beta: float = 0.1,
    batch_size: int = 16,
    seed: int = 0,
) -> tuple[torch.nn.Module, History]:
    """KTO in rounds: collect thumbs, set the weights from their counts, train some steps, collect again.

    The reference stays what it was at the start. The learning rate falls from round to round, linearly to 0.

    Args:
        policy, reference, tokenizer: as in `train_kto`.
        collect: `from_the_policy` (online) or `from_a_file` (offline).
        rounds, steps_per_round: how often thumbs are collected, and the steps that are taken on them.
        learning_rate: of the first round.
        beta, batch_size: as in `train_kto`.
        seed: orders the rows.

    Returns:
        (policy, history). A history row is that of `train_kto` with `round` and `up`, the round's share of thumbs-up;
        its `step` counts through all rounds. Training ends early where a later round brings fewer rows than a batch: a
        policy that has fallen silent gets no thumbs.

    Raises:
        ValueError: no rounds, and what `train_kto` refuses.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; at least one is needed")
    history, parts = [], Parts(callbacks=[KeepOptimizer()])
    for number in range(rounds):
        rows = collect(number, policy)
        if number > 0 and len(rows) < batch_size:
            break
        n_up = sum(row["label"] for row in rows)
        one_kind = n_up in (0, len(rows))
        up_weight, down_weight = (1.0, 1.0) if one_kind else balanced_weights(n_up, len(rows) - n_up)
        _, steps = train_kto(
            policy, reference, rows, tokenizer, steps=steps_per_round, batch_size=batch_size,
            learning_rate=learning_rate * (1 - number / rounds), beta=beta, seed=seed + number, parts=parts,
            desirable_weight=up_weight, undesirable_weight=down_weight,
        )  # fmt: skip
        done = len(history)
        history += [row | {"step": done + row["step"], "round": number, "up": n_up / len(rows)} for row in steps]
    return policy, history
