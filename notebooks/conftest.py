"""Settings for nbval: `python -m pytest --nbval notebooks/*.ipynb` needs nothing else."""

import os
import tempfile
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parent
ROOT = NOTEBOOKS.parent
GUARD = ROOT / "tests" / "no_network"
CELL_TIMEOUT = 120


def pytest_configure(config):
    """Kernels inherit this environment, so it is set before the first one starts."""
    if not config.pluginmanager.hasplugin("nbval"):
        return
    config.option.nbval_sanitize_with = str(NOTEBOOKS / "sanitize.cfg")
    config.option.nbval_cell_timeout = CELL_TIMEOUT
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("PYTHONHASHSEED", "0")
    os.environ.pop("MPLBACKEND", None)  # one that is meant for scripts would hide all figures
    if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit the folder of the process that started them
        folder = tempfile.mkdtemp(prefix="kto_course_")
        # A test run must not touch the published figures or a learner's progress.
        os.environ["KTO_FIGURES"] = os.environ["KTO_PROGRESS"] = folder
        os.environ["KTO_NETWORK_LOG"] = str(Path(folder) / "network.log")
    known = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(GUARD), str(ROOT), *known]))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session, exitstatus):
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    log = Path(os.environ.get("KTO_NETWORK_LOG", ""))
    if log.is_file() and log.read_text(encoding="utf-8"):
        print(f"\nA lesson tried to open a connection:\n{log.read_text(encoding='utf-8')}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
