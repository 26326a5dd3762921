"""What can stand beside the loss of a method: an SFT term, label smoothing. Lessons 08 and 08b.

Each is for `Parts(extra_loss=...)`; `together` adds several.
"""

from collections.abc import Callable, Mapping, Sequence

import torch

from kto_utils.collator import pad_rows
from kto_utils.data import tokenize_feedback
from kto_utils.train import Batches, Run, on_device_of, sft_loss


def together(*terms: Callable | None) -> Callable | None:
    """The sum of the terms that are not None; None where there is none."""
    given = [term for term in terms if term is not None]
    if not given:
        return None
    return lambda run, batch, known: sum(term(run, batch, known) for term in given)


def _positive(weight: float) -> float:
    if not weight > 0.0:
        raise ValueError(f"weight is {weight}; it must be positive (to leave the term out, give none)")
    return weight


class OwnThumbsUp:
    """SFT on what the batch itself likes: KTO's rows with a thumbs-up, DPO's chosen replies. No completion is added.

    Args:
        weight: positive; of the mean negative log-probability a completion token, nats.

    Raises:
        ValueError: a weight that is not positive.

    Source: for DPO, TRL's `rpo_alpha` (Pang et al. 2024). Lesson 08.
    """

    def __init__(self, weight: float):
        self.weight = _positive(weight)

    def __call__(self, run: Run, batch: Mapping[str, torch.Tensor], known: Mapping[str, torch.Tensor]) -> torch.Tensor:
        logps = known["policy_logps"]
        liked = batch["label"] if "label" in batch else torch.arange(len(logps), device=logps.device) < len(logps) // 2
        n_tokens = batch["label_mask"][liked].sum()
        return -self.weight * logps[liked].sum() / n_tokens.clamp(min=1)


class Smoothing:
    """Turns DPO into cDPO: each pair counts as the other way round with this chance.

    (1 - chance) L(m) + chance L(-m) = L(m) + chance * beta * m, with the margin m in nats.

    Args:
        chance: in (0, 1/2).

    Raises:
        ValueError: a chance outside this range; when called, a run of another method than DPO.

    Source: Mitchell 2023, "A note on DPO with noisy preferences". Lesson 08.
    """

    def __init__(self, chance: float):
        if not 0.0 < chance < 0.5:
            raise ValueError(f"chance is {chance}; it is the share of pairs the wrong way round, between 0 and 1/2")
        self.chance = chance

    def __call__(self, run: Run, batch: Mapping[str, torch.Tensor], known: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if run.method != "DPO":
            raise ValueError(f"the run is {run.method}; only DPO has pairs that could be the wrong way round")
        chosen, rejected = (known["policy_logps"] - known["reference_logps"]).chunk(2)
        return self.chance * run.options["beta"] * (chosen - rejected).mean()


class Demonstrations:
    """A rope to texts that are known to be good: adds `weight` times their mean loss a completion token.

    Each step takes as many demonstrations as the run's batch has rows, in an order of their own (the run's seed).

    Args:
        rows: dicts with `prompt` and `completion`.
        weight: positive.

    Raises:
        ValueError: no rows, or a weight that is not positive.
    """

    def __init__(self, rows: Sequence[Mapping], weight: float):
        if not rows:
            raise ValueError("there are no rows; demonstrations are dicts with prompt and completion")
        self.rows, self.weight, self.run = rows, _positive(weight), None

    def __call__(self, run: Run, batch: Mapping[str, torch.Tensor], known: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if self.run is not run:
            self.run = run
            self.examples = [tokenize_feedback({**row, "label": True}, run.tokenizer) for row in self.rows]
            self.batches = Batches(len(self.rows), run.settings.batch_size, run.settings.seed)
        drawn = [self.examples[i] for i in self.batches.draw()]
        shown = on_device_of(run.model, pad_rows(drawn, run.tokenizer.pad_token_id))
        return self.weight * sft_loss(run, shown)
