"""The shared code of the course: one module per lesson, in lesson order (see the table in the README).

Importing the package imports no module of it, so `kto_utils.prospect` works without loading torch.
"""

import importlib
import os

# Nothing in the course needs a model hub. Offline, the hub libraries fail at once instead of retrying for a
# minute; whoever wants the hub sets these variables to 0 before the import.
for _variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

__version__ = "1.0.0"

_EXPORTED = {"check": "checks"} | dict.fromkeys(("progress", "reset", "predict", "reveal", "calibration"), "learner")


def __getattr__(name: str):
    """The learner's own functions, imported when first used: `kto_utils.progress()`, `kto_utils.check.ID(answer)`."""
    if name not in _EXPORTED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTED[name]}"), name)
