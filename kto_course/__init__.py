"""What teaches: checks of the exercises, the learner's record, questions, pictures, the build and the commands.

`from kto_course import check, predict, reveal` is all that most lessons need. Importing the package imports no module
of it, so lesson 01 works without loading torch.
"""

import importlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the checkout: lessons, figures, the learner's folder
NOTEBOOKS = ROOT / "notebooks"
FIGURES = ROOT / "figures"
WORK = ROOT / "work"  # the learner's own copies, figures and record; git ignores it

_EXPORTED = {"check": "checks"} | dict.fromkeys(("progress", "reset", "predict", "reveal", "calibration"), "learner")


def let_figures_show() -> None:
    """In a notebook's kernel an MPLBACKEND inherited from the shell, meant for scripts, would swallow every figure."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    backend = os.environ.get("MPLBACKEND", "").lower()
    for_notebooks = ("module://", "inline", "widget", "ipympl", "nbagg", "notebook")
    if hasattr(shell, "kernel") and backend and not backend.startswith(for_notebooks):
        shell.run_line_magic("matplotlib", "inline")


let_figures_show()


def __getattr__(name: str):
    """The learner's own functions, imported when first used: `check.ID(answer)`, `progress()`."""
    if name not in _EXPORTED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTED[name]}"), name)
