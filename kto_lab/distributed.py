"""Several processes that train one model on one batch: shares, sums, clear errors. Derived in lesson 12b.

All processes draw and pad the same global batch, so a mismatched completion may come from any of its rows. Each
scores its share of the rows, the few numbers are exchanged, and from there on the formulas are those of one process.
"""

import atexit
import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from kto_lab.checkpoints import digest, fingerprint_of
from kto_utils.train import Run

PATIENCE = timedelta(minutes=5)  # a dead process is noticed at once; one that is stuck, after this


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is, for `Parts(processes=Processes.of_launcher())`.

    Alone, it is number 0 of 1 and every method is free of charge.
    """

    rank: int = 0
    size: int = 1

    def start(self, run: Run) -> None:
        """Before the first step: refuses to train where the processes were not given the same."""
        if self.size > 1:
            text = f"{fingerprint_of(run)} {len(run.history)}"
            self.check_agreement(digest(text, run.model.parameters()), next(run.model.parameters()).device)

    @classmethod
    def of_launcher(cls) -> "Processes":
        """Joins the group that `accelerate launch` or `torchrun` announced, or one that exists; else alone."""
        if not dist.is_available():
            return cls()
        if not dist.is_initialized():
            if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2:
                return cls()
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, timeout=PATIENCE)
            atexit.register(_leave)
        return cls(dist.get_rank(), dist.get_world_size())

    def share(self, n_rows: int) -> slice:
        """This process's rows of a batch of n_rows; shares differ by one row at most, none is empty.

        Raises:
            ValueError: fewer rows than processes.
        """
        if n_rows < self.size:
            raise ValueError(
                f"a batch of {n_rows} cannot be shared by {self.size} processes; raise batch_size, which counts the "
                "rows of all processes together"
            )
        return slice(n_rows * self.rank // self.size, n_rows * (self.rank + 1) // self.size)

    def rows_of(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """This process's share of a padded batch."""
        if self.size == 1:
            return dict(batch)
        share = self.share(len(batch["input_ids"]))
        return {field: tensor[share] for field, tensor in batch.items()}

    def gathered(self, mine: torch.Tensor, n_rows: int) -> torch.Tensor:
        """The numbers of all processes, (n_rows,), from each one's share of them.

        A gradient flows into this process's share only, so that gradients add up to that of the whole batch.
        """
        if self.size == 1:
            return mine
        share = self.share(n_rows)
        whole = torch.zeros(n_rows, dtype=mine.dtype, device=mine.device)
        whole[share] = mine.detach()
        with self._together():
            dist.all_reduce(whole)
        return torch.cat((whole[: share.start], mine, whole[share.stop :]))

    def total(self, mine: torch.Tensor) -> torch.Tensor:
        """The sum over all processes; a gradient flows into this process's part only."""
        if self.size == 1:
            return mine
        whole = mine.detach().clone()
        with self._together():
            dist.all_reduce(whole)
        return mine + (whole - mine.detach())

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Adds up the gradients of all processes, in place. Losses are divided by global counts already."""
        if self.size == 1:
            return
        with self._together():
            waiting = [dist.all_reduce(p.grad, async_op=True) for p in parameters if p.grad is not None]
            for handle in waiting:
                handle.wait()

    def check_agreement(self, digest: str, device: torch.device) -> None:
        """Refuses to train where the processes were not given the same.

        Raises:
            ValueError: a digest (hexadecimal, of rows, settings, weights and position) that is not everybody's.
        """
        if self.size == 1:
            return
        number = int(digest[:15], 16)
        both_ends = torch.tensor([number, -number], dtype=torch.int64, device=device)
        with self._together():
            dist.all_reduce(both_ends, op=dist.ReduceOp.MAX)
        if int(both_ends[0]) != -int(both_ends[1]):
            raise ValueError(
                f"process {self.rank} of {self.size}: the processes start with different rows, settings, weights or "
                "checkpoints. Seed whatever makes them, and let all processes see the same checkpoint file"
            )

    def wait_for_all(self) -> None:
        """Nobody goes on before everybody is here."""
        if self.size > 1:
            with self._together():
                dist.barrier()

    @contextlib.contextmanager
    def _together(self):
        try:
            yield
        except RuntimeError as error:  # the kind that torch raises for lost connections and for time-outs
            raise RuntimeError(
                f"process {self.rank} of {self.size} lost another one, which has ended or is stuck (look for its own "
                "message above). Start the same command again: a run with a checkpoint continues from it"
            ) from error


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
