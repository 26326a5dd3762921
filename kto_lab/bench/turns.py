"""Processes that take turns step by step, so that a machine that slows down slows all of them."""

import os
import sys
import time
import traceback
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path

from kto_lab.bench.contenders import RUNS
from kto_lab.bench.workloads import Workload, rows_of


def memory_bytes(peak: bool) -> int:
    """Of this process: resident now, or at most so far; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():
        name = "VmHWM:" if peak else "VmRSS:"
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, and always the peak


def _import_for(contender: str) -> None:
    import torch  # noqa: F401
    from transformers import LlamaForCausalLM  # noqa: F401

    import kto_lab.scored_reference  # noqa: F401

    if contender.startswith("trl"):
        import datasets  # noqa: F401
        from trl import KTOConfig, KTOTrainer  # noqa: F401


def _synchronise(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def _contend(connection, contender: str, workload: Workload, steps: int, dtype: str, device: str) -> None:
    """A contender's process: after each optimiser step it reports the seconds since its last turn and waits."""
    try:
        connection.recv()
        _quieten()
        _import_for(contender)
        imports = memory_bytes(peak=False)
        import torch
        from torch.optim.optimizer import register_optimizer_step_post_hook

        since = time.perf_counter()

        def end_of_turn(*_):
            nonlocal since
            _synchronise(device)
            connection.send(("step", time.perf_counter() - since))
            connection.recv()
            since = time.perf_counter()

        register_optimizer_step_post_hook(end_of_turn)
        beforehand: list[float] = []
        _time_calls("kto_lab.scored_reference", "ReferenceLogps._score_all", beforehand)
        _time_calls("trl", "KTOTrainer._precompute_ref_logps", beforehand)
        rows = rows_of(workload, steps * workload.batch_size)
        losses = RUNS[contender](workload, rows, steps, dtype, device)
        report = {
            "losses": losses,
            "seconds_beforehand": sum(beforehand),
            "peak_bytes": memory_bytes(peak=True),
            "import_bytes": imports,
        }
        if device != "cpu":
            report["device_peak_bytes"] = torch.cuda.max_memory_allocated()
        connection.send(("done", report))
    except Exception:
        connection.send(("failed", traceback.format_exc()))


def _quieten() -> None:
    import logging
    import warnings

    os.environ["TQDM_DISABLE"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def _time_calls(module: str, path: str, into: list[float]) -> None:
    """From now on each call of this method adds its seconds to the list; a module not imported stays so."""
    if module not in sys.modules:
        return
    owner, name = path.split(".")
    cls = getattr(sys.modules[module], owner)
    method = getattr(cls, name)

    def timed(*args, **kwargs):
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            into.append(time.perf_counter() - start)

    setattr(cls, name, timed)


def _yardstick(connection, steps: int, dtype: str, device: str) -> None:
    """The machine itself takes turns too: operations a second of a 2048^3 product, bytes a second of a copy."""
    try:
        connection.recv()
        import torch

        factor = torch.ones(2048, 2048, dtype=getattr(torch, dtype), device=device)
        product = torch.empty_like(factor)
        source = torch.ones(2**25, device=device)  # 128 MiB: no cache holds it
        target = torch.empty_like(source)
        for _ in range(steps):
            seconds = []
            for work in (lambda: torch.mm(factor, factor, out=product), lambda: target.copy_(source)):
                _synchronise(device)
                start = time.perf_counter()
                work()
                _synchronise(device)
                seconds.append(time.perf_counter() - start)
            connection.send(("step", (2 * 2048**3 / seconds[0], 2 * source.nbytes / seconds[1])))
            connection.recv()
        connection.send(("done", {}))
    except Exception:
        connection.send(("failed", traceback.format_exc()))


def take_turns(jobs: Mapping[str, tuple], steps: int, threads: int) -> tuple[dict[str, list], dict[str, dict]]:
    """Runs each job (function, *arguments) in a fresh process, one step of one process at a time.

    Args:
        jobs: by name; a function takes a connection and its arguments.
        steps: turns of each.
        threads: that each process may use.

    Returns:
        What each job sent for its steps, and its last report.

    Raises:
        RuntimeError: a process failed; the message has its traceback.
    """
    context = get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by the processes, which start fresh
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # a thread without work must not hold a core for long
    connections, processes = {}, []
    for name, (function, *arguments) in jobs.items():
        connections[name], theirs = context.Pipe()
        processes.append(context.Process(target=function, args=(theirs, *arguments), daemon=True))
        processes[-1].start()
        theirs.close()
    sent: dict[str, list] = {name: [] for name in jobs}
    reports = {}
    try:
        for turn in range(steps + 1):
            for name in reversed(jobs) if turn % 2 else jobs:  # nobody always follows the same one
                connections[name].send("go")
                try:
                    kind, value = connections[name].recv()
                except EOFError:
                    raise RuntimeError(f"the process of {name} ended without a word; was it short of memory?") from None
                if kind == "failed":
                    raise RuntimeError(f"{name} failed:\n{value}")
                if (kind == "done") is not (turn == steps):
                    raise RuntimeError(f"{name} took {turn} steps instead of {steps}")
                if kind == "done":
                    reports[name] = value
                else:
                    sent[name].append(value)
    finally:
        for process in processes:
            process.join(10) if len(reports) == len(jobs) else process.terminate()
    return sent, reports
