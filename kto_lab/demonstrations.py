"""A rope to texts that are known to be good: an SFT term beside KTO's loss. Lesson 08."""

from collections.abc import Mapping, Sequence

import torch

from kto_utils.collator import pad_rows
from kto_utils.data import tokenize_feedback
from kto_utils.train import Batches, Run, on_device_of, sft_loss


class Demonstrations:
    """For `Parts(extra_loss=Demonstrations(rows, weight))`: adds `weight` times their mean loss a completion token.

    Each step takes as many demonstrations as the run's batch has rows, in an order of their own (the run's seed).

    Args:
        rows: dicts with `prompt` and `completion`.
        weight: positive.

    Raises:
        ValueError: no rows, or a weight that is not positive.
    """

    def __init__(self, rows: Sequence[Mapping], weight: float):
        if not rows or not weight > 0.0:
            raise ValueError(f"weight is {weight} and there are {len(rows)} rows; it must be positive, with rows")
        self.rows, self.weight, self.run = rows, weight, None

    def __call__(self, run: Run) -> torch.Tensor:
        if self.run is not run:
            self.run = run
            self.examples = [tokenize_feedback({**row, "label": True}, run.tokenizer) for row in self.rows]
            self.batches = Batches(len(self.rows), run.settings.batch_size, run.settings.seed)
        drawn = [self.examples[i] for i in self.batches.draw()]
        batch = on_device_of(run.model, pad_rows(drawn, run.tokenizer.pad_token_id))
        return self.weight * sft_loss(run, batch)
