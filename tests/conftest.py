"""Settings that every test needs, before torch is imported."""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers with two threads each would spin against each other
os.environ["KTO_PROGRESS"] = tempfile.mkdtemp(prefix="kto_progress_")  # never a learner's own file
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import hypothesis  # noqa: E402
import matplotlib  # noqa: E402
import pytest  # noqa: E402

matplotlib.use("Agg")  # not by the environment: the lessons' kernels would inherit it and show no figure

hypothesis.settings.register_profile("course", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("course")


@pytest.fixture(autouse=True)
def own_style():
    """A test that sets the course's style leaves none of it to the next one, whose figures may depend on it."""
    with matplotlib.rc_context():
        yield


@pytest.fixture(autouse=True)
def own_threads():
    """`course.py real` takes all cores; with them a later test in this process would get other last digits."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
