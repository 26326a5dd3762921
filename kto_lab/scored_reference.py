"""A reference that is scored once, beforehand, instead of anew at every step. Lesson 12."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from kto_utils.collator import FIELDS, pad_rows
from kto_utils.logprobs import sequence_logps
from kto_utils.train import Batches, Run, on_device_of


def scored_beforehand(run: Run) -> "ReferenceLogps":
    """For `Parts(reference_logps=scored_beforehand)`: faster, and the losses are the same up to rounding.

    The batches are known from the seed. Without this the log-ratios of step 1 are exactly 0; scored in other batches
    they can be off by 1e-17.
    """
    plan, here = Batches(len(run.rows), run.settings.batch_size, run.settings.seed), run.parts.processes
    whole = (run.batch_of(plan.draw()) for _ in range(run.settings.steps))
    return ReferenceLogps(run.reference, whole if here is None else map(here.rows_of, whole), run.prefixes)


class ReferenceLogps:
    """`sequence_logps` of a frozen model for batches known in advance: each row is scored once, a number is kept.

    Called like `sequence_logps` without the model. A row is recognised by its tokens and its label mask, so one that
    comes back in a later pass costs nothing, and a mismatched one is scored once per pair of prompt and completion
    that the batches hold. Scoring happens at the first call, without gradients, in batches of up to
    `TOKENS_PER_BATCH` tokens, sorted by length so that little of it is padding.

    The training step itself is neither sorted nor cut by length: who lends whom a completion depends on who stands
    together in a batch and in which order, so sorting the rows first would give another reference point.

    Args:
        reference: frozen; put into eval mode.
        batches: from the collator; read once, a section at a time.
        prefixes: which rows of a batch are wanted, ("", "kl_") for KTO.

    Raises (when called):
        KeyError: a row that stood in none of the batches.
    """

    TOKENS_PER_BATCH = 2048
    ROWS_PER_SECTION = 4096  # rows waiting to be sorted; more would only cost memory

    def __init__(self, reference: torch.nn.Module, batches: Iterable[Mapping], prefixes: Sequence[str] = ("",)):
        self.reference, self.batches, self.prefixes = reference, iter(batches), prefixes
        self.kept: dict[bytes, float] = {}
        self.dtype = torch.float32

    def __call__(self, batch: Mapping[str, torch.Tensor], prefix: str = "") -> torch.Tensor:
        """(B,), nats, of the type that `sequence_logps` gives."""
        self._score_all()
        keys = [key for key, _ in self._rows(batch, prefix)]
        unknown = [number for number, key in enumerate(keys) if key not in self.kept]
        if unknown:
            raise KeyError(f"rows {unknown} ({prefix}input_ids) stood in none of the batches announced")
        values = [self.kept[key] for key in keys]
        return torch.tensor(values, dtype=self.dtype, device=batch[prefix + "input_ids"].device)

    @staticmethod
    def _rows(batch: Mapping[str, torch.Tensor], prefix: str) -> Iterator[tuple[bytes, dict]]:
        """Each row of a batch without its padding, and its key."""
        for row in zip(*(batch[prefix + field].cpu().numpy() for field in FIELDS), strict=True):
            row = [values[row[1] != 0] for values in row]
            key = hashlib.blake2b(b"".join(values.tobytes() for values in row), digest_size=16).digest()
            yield key, dict(zip(FIELDS, row, strict=True))

    def _score_all(self) -> None:
        waiting: dict[bytes, dict] = {}
        for batch in self.batches:
            for prefix in self.prefixes:
                waiting |= {key: row for key, row in self._rows(batch, prefix) if key not in self.kept}
            if len(waiting) >= self.ROWS_PER_SECTION:
                self._score(waiting)
                waiting = {}
        self._score(waiting)

    def _score(self, rows: Mapping[bytes, dict]) -> None:
        self.reference.eval()
        keys = sorted(rows, key=lambda key: len(rows[key]["input_ids"]), reverse=True)
        while keys:
            size = max(1, self.TOKENS_PER_BATCH // len(rows[keys[0]]["input_ids"]))
            now, keys = keys[:size], keys[size:]
            batch = pad_rows([{field: rows[key][field].tolist() for field in FIELDS} for key in now], 0)
            with torch.no_grad():
                logps = sequence_logps(self.reference, on_device_of(self.reference, batch))
            self.dtype = logps.dtype
            self.kept |= zip(now, logps.tolist(), strict=True)
