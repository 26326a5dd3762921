"""The shared code of the course: one module per lesson, in lesson order (see the table in the README); nothing else.

Importing the package imports no module of it, so `kto_utils.prospect` works without loading torch.
"""

import os

# Nothing in the course needs a model hub. Offline, the hub libraries fail at once instead of retrying for a
# minute; whoever wants the hub sets these variables to 0 before the import.
for _variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

__version__ = "1.0.0"
