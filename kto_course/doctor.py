"""`python course.py doctor`: is this machine ready? One line for each check, and a remedy for each problem."""

import importlib.metadata
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from kto_course import ROOT
from kto_lab.command import run_command

NEEDED_MB = 1500


def check_python() -> tuple[bool, str]:
    version = platform.python_version()
    if sys.version_info < (3, 11):  # noqa: UP036  (course.py refuses it too, but this module can be run alone)
        return False, f"Python {version}: install 3.11 or newer from python.org, delete .venv, start course.py with it"
    return True, f"Python {version}, {platform.system()} {platform.machine()}"


def requirements() -> Path:
    """What was set up here: the light choice, or all."""
    light = Path(sys.prefix, "installed-requirements-light.txt").exists()
    full = Path(sys.prefix, "installed-requirements.txt").exists()
    return ROOT / ("requirements-light.txt" if light and not full else "requirements.txt")


def check_packages(requirements: Path) -> tuple[bool, str]:
    """Compares installed versions with the pins of such a file."""
    wrong, shown = [], []
    for name, wanted in re.findall(r"^([\w-]+)==([\w.]+)", requirements.read_text(encoding="utf-8"), flags=re.M):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        if found.split("+")[0] != wanted:  # torch's CPU build calls itself 2.13.0+cpu
            wrong.append(f"{name} is {found}, pinned is {wanted}")
        shown.append(f"{name} {found}")
    if wrong:
        return False, f"{'; '.join(wrong)}. Delete the folder .venv and run python course.py again"
    return True, ", ".join(shown)


def check_memory(available_mb: float | None = None) -> tuple[bool, str]:
    free = psutil.virtual_memory().available / 2**20 if available_mb is None else available_mb
    if free < NEEDED_MB:
        return False, f"{free:.0f} MB of memory free, a lesson wants {NEEDED_MB}: close other programs and lessons"
    return True, f"{free:.0f} MB of memory free"


def check_write_access(folder: Path = ROOT) -> tuple[bool, str]:
    for name in ("notebooks", "figures"):
        try:
            with tempfile.NamedTemporaryFile(dir=folder / name):
                pass
        except OSError as error:
            return False, (
                f"cannot write to {name} ({error.strerror}): copy the course into a folder of your own, e.g. your "
                "home or documents folder, and start it there"
            )
    return True, "notebooks and figures can be written"


def check_training() -> tuple[bool, str]:
    """KTO steps on the shipped model for about two seconds."""
    from kto_utils.data import load_eight_rows
    from kto_utils.model import load_reference_model, reference_of
    from kto_utils.tokenizer import load_tokenizer
    from kto_utils.train import train_kto

    try:
        policy = load_reference_model()
        start = time.perf_counter()
        _, history = train_kto(
            policy, reference_of(policy), load_eight_rows(), load_tokenizer(), steps=10, batch_size=8
        )
    except (OSError, RuntimeError, ValueError) as error:
        return False, f"training failed ({error}). Fetch the course again; its assets may be damaged"
    first, last = history[0]["loss"], history[-1]["loss"]
    if abs(first - 0.5) > 1e-9 or not last < first:
        return False, f"the loss went {first:.4f} -> {last:.4f} instead of down from 0.5: fetch the course again"
    return True, f"10 KTO steps in {time.perf_counter() - start:.1f} s, loss {first:.4f} -> {last:.4f}"


CHECKS: dict[str, Callable[[], tuple[bool, str]]] = {
    "python": check_python,
    "packages": lambda: check_packages(requirements()),
    "memory": check_memory,
    "write access": check_write_access,
    "training": check_training,
}


def main() -> int:
    problems = 0
    for name, check in CHECKS.items():
        good, text = check()
        problems += not good
        print(f"{'ok     ' if good else 'PROBLEM'}  {name:<13} {text}", flush=True)
    print("This machine is ready." if not problems else f"{problems} to mend: each line above says how.")
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(run_command(main))
