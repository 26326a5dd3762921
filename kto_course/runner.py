"""Runs lessons from fresh kernels without a display: used by `course.py run` and by the build."""

import contextlib
import os
import re
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm import tqdm

from kto_lab.command import run_command

CELL_TIMEOUT = 120  # seconds; nbclient can wait for ever without one

# Kernels inherit it. Two lessons at once with two threads each would spin against each other, many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass
class LessonRun:
    """What one lesson did. `failure` is None, or names the failing cell and its error."""

    name: str
    seconds: float
    peak_mb: float
    figures: int
    failure: str | None


class _PeakMemory(threading.Thread):
    """Largest resident memory of this process's descendants, looked at five times a second."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.stopped = 0, threading.Event()

    def run(self):
        me = psutil.Process()
        while not self.stopped.wait(0.2):
            total = 0
            for child in me.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    total += child.memory_info().rss
            self.peak = max(self.peak, total)


def execute(notebook, folder: Path, name: str) -> LessonRun:
    """Executes a notebook in place, its kernel started in folder, with a progress file of its own.

    Returns:
        A LessonRun; an error in a cell is reported there, not raised.
    """
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    memory, failure, start = _PeakMemory(), None, time.perf_counter()
    memory.start()
    progress = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    learners_own = {name: os.environ.pop(name, None) for name in ("KTO_PROGRESS", "MPLBACKEND")}
    os.environ["KTO_PROGRESS"] = progress.name  # and no MPLBACKEND: one that is meant for scripts hides all figures
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        done = sum(1 for c in notebook.cells if c.cell_type == "code" and c.get("execution_count"))
        if isinstance(error, CellTimeoutError):
            last_line = f"took longer than {CELL_TIMEOUT} s"
        else:
            last_line = re.sub(r"\x1b\[[\d;]*m", "", str(error).strip().splitlines()[-1])  # without colour codes
        failure = f"code cell {done}: {last_line}"
    finally:
        memory.stopped.set()
        memory.join()
        progress.cleanup()
        del os.environ["KTO_PROGRESS"]
        os.environ.update({name: value for name, value in learners_own.items() if value is not None})
    pictures = sum(
        "image/png" in output.get("data", {})
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    return LessonRun(name, time.perf_counter() - start, memory.peak / 2**20, pictures, failure)


def run_lessons(paths: list[Path]) -> int:
    """Runs lessons one after the other, prints a table, and returns an exit status: 0 if all went well.

    Figures go to a temporary folder, the notebooks on disk are left as they are.
    """
    if missing := [str(path) for path in paths if not path.is_file()]:
        print(f"There is no notebook {', '.join(missing)}.", file=sys.stderr)
        return 2
    runs = []
    with tempfile.TemporaryDirectory() as figures:
        os.environ["KTO_FIGURES"] = figures
        for path in tqdm(paths, desc="lessons", unit="lesson"):
            runs.append(execute(nbformat.read(path, as_version=4), path.parent, path.stem))
    print(f"{'lesson':<24} {'seconds':>8} {'peak MB':>8} {'figures':>8}  result")
    for run in runs:
        print(
            f"{run.name:<24} {run.seconds:>8.1f} {run.peak_mb:>8.0f} {run.figures:>8}  "
            f"{'ok' if run.failure is None else run.failure}"
        )
    return int(any(run.failure for run in runs))


if __name__ == "__main__":
    sys.exit(run_command(run_lessons, [Path(argument) for argument in sys.argv[1:]]))
