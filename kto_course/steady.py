"""Names the cells of notebooks that print other digits on another instruction set or with another number of threads.

    python -m kto_course.steady notebooks/03_tokenization.ipynb notebooks/deeper/*.ipynb

Each notebook runs once under every setting. What a cell prints is compared, line by line, with what the notebook
stores, or, where it stores nothing, with the first run. Cells tagged nbval-ignore-output may print what they like. The
exit status is 1 if any line differs or a cell fails. A setting that the processor does not have is run by torch as the
best one below it.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import nbformat

from kto_course.runner import execute
from kto_lab.command import run_command

SETTINGS = {
    "no vector instructions, 1 thread": {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"},
    "avx2, 1 thread": {"ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"},
    "avx2, 2 threads": {"ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "2"},
}


@contextlib.contextmanager
def environment(changes: dict[str, str]) -> Iterator[None]:
    """Within the block these environment variables are set; kernels that start there inherit them."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def printed(cell) -> list[str]:
    """The lines that a code cell's outputs show as text; none of a cell that may print what it likes."""
    if "nbval-ignore-output" in cell.metadata.get("tags", []):
        return []
    texts = [o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
    return [line for text in texts for line in "".join(text).splitlines()]


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def differences(path: Path) -> list[str]:
    """Runs one notebook under every setting and names each line that is not as before: cell and line from 1."""
    stored = nbformat.read(path, as_version=4)
    was_run = all(cell.get("execution_count") for cell in code_cells(stored))
    before = [printed(cell) for cell in code_cells(stored)] if was_run else None
    found = []
    for setting, changes in SETTINGS.items():
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as figures, environment({**changes, "KTO_FIGURES": figures}):
            run = execute(notebook, path.resolve().parent, path.stem)
        if run.failure:
            found.append(f"{path.name}, {setting}: {run.failure}")
            continue
        now = [printed(cell) for cell in code_cells(notebook)]
        before = before or now
        for number, (old, new) in enumerate(zip(before, now, strict=True), start=1):
            for line, (a, b) in enumerate(zip_longest(old, new, fillvalue="(nothing)"), start=1):
                if a != b:
                    found.append(f"{path.name}, code cell {number}, line {line}, {setting}:\n    - {a}\n    + {b}")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    status = 0
    for path in parser.parse_args(arguments).notebooks:
        found = differences(path)
        print("\n".join(found) or f"{path.name}: steady", flush=True)
        status |= bool(found)
    return int(status)


if __name__ == "__main__":
    sys.exit(run_command(main))
