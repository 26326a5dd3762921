"""Interrupted runs that go on bit for bit: a file with all that the next step depends on. Lesson 12b."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from kto_utils.train import Callback, Run, mismatched_z0


def save_checkpoint(path: Path | str, state: Mapping) -> None:
    """Writes to a temporary name, then renames: a kill at any moment leaves the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    torch.save(dict(state), temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path | str, fingerprint: str) -> dict:
    """Reads what `save_checkpoint` wrote, if the same run wrote it.

    Raises:
        ValueError: the file is no checkpoint, or belongs to a run with other rows, settings or models.
    """
    try:
        state = torch.load(path, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a broken file fails in many ways, KeyError and EOFError among them
        raise ValueError(f"{path} is no checkpoint that can be read; delete it or rename it") from error
    if not isinstance(state, dict) or state.get("fingerprint") != fingerprint:
        raise ValueError(f"{path} was written by a run with other rows, settings or models; delete it or rename it")
    return state


def digest(text: str, parameters: Iterable[torch.Tensor]) -> str:
    """Hexadecimal SHA-256 of a text and of every bit of these tensors."""
    found = hashlib.sha256(text.encode("utf-8"))
    for parameter in parameters:
        found.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def fingerprint_of(run: Run) -> str:
    """Says which run this is: method, settings, rows, the model's shapes and types, and the reference's every bit.

    How often a line is printed does not matter; whether the reference was scored beforehand does (it rounds elsewhere).
    """
    settings = {**asdict(run.settings), **run.options, "log_every": None, "method": run.method}
    settings["reference_logps"] = run.parts.reference_logps.__name__
    shapes = [[name, list(p.shape), str(p.dtype)] for name, p in run.model.named_parameters()]
    text = json.dumps([settings, [dict(row) for row in run.rows], shapes], sort_keys=True, default=str)
    return digest(text, run.reference.parameters() if run.reference is not None else ())


class Checkpoint(Callback):
    """Writes a file every so many steps; if it exists at the start and the same run wrote it, training goes on from it.

    Args:
        path: the file; its folder is made.
        every: in steps, at least 1.

    Raises:
        ValueError: `every` below 1; when the run starts: a file that is no checkpoint or another run's, and parts whose
            own state the file would not hold (another estimate of z0, an extra loss).
    """

    def __init__(self, path: Path | str, every: int = 50):
        if every < 1:
            raise ValueError(f"every is {every}; it counts steps, so at least 1")
        self.path, self.every = Path(path), every

    def start(self, run: Run) -> None:
        if run.parts.estimate_z0 is not mismatched_z0 or run.parts.extra_loss is not None:
            raise ValueError("a checkpoint does not hold the state of estimate_z0 or extra_loss; train that in one go")
        self.path.parent.mkdir(parents=True, exist_ok=True)  # now: an error here costs no training
        self.fingerprint = fingerprint_of(run)
        if not self.path.exists():
            return
        state = load_checkpoint(self.path, self.fingerprint)
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.batches.load_state_dict(state["batches"])
        run.history[:] = state["history"]

    def step(self, run: Run) -> None:
        done = len(run.history)
        if done % self.every:
            return
        processes = run.parts.processes
        if processes is None or processes.rank == 0:
            state = {"fingerprint": self.fingerprint, "step": done, "history": run.history}
            parts = {"model": run.model, "optimizer": run.optimizer, "batches": run.batches}
            save_checkpoint(self.path, state | {name: part.state_dict() for name, part in parts.items()})
        if processes is not None:
            processes.wait_for_all()  # so that nobody who reads the file next can be too early
