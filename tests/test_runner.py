"""Running lessons from fresh kernels: what the table says."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from kto_course import runner


def write(path, *sources):
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    return path


def test_a_good_lesson_is_ok_and_its_figures_are_counted(tmp_path, capsys):
    path = write(
        tmp_path / "01_good.ipynb",
        "x = 1",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
    )
    before = path.read_bytes()
    assert runner.run_lessons([path]) == 0
    line = capsys.readouterr().out.splitlines()[1].split()
    assert line[0] == "01_good"
    assert float(line[1]) > 0
    assert float(line[2]) > 10
    assert line[3:] == ["1", "ok"]
    assert path.read_bytes() == before


def test_a_failing_cell_is_named_and_the_status_is_1(tmp_path, capsys):
    good = write(tmp_path / "01_good.ipynb", "x = 1")
    bad = write(tmp_path / "02_bad.ipynb", "x = 1", "raise ValueError('beta is negative')", "x = 2")
    assert runner.run_lessons([bad, good]) == 1
    out = capsys.readouterr().out
    assert "code cell 2: ValueError: beta is negative" in out
    assert out.splitlines()[2].endswith("ok")


@pytest.mark.parametrize("source", ["import time; time.sleep(30)", "import os; os._exit(1)"])
def test_a_hanging_or_dying_lesson_ends_the_wait(tmp_path, monkeypatch, source):
    monkeypatch.setattr(runner, "CELL_TIMEOUT", 3)
    notebook = nbformat.read(write(tmp_path / "01_stuck.ipynb", source), as_version=4)
    assert runner.execute(notebook, tmp_path, "01_stuck").failure is not None


def test_a_missing_notebook_gets_one_line(tmp_path, capsys):
    assert runner.run_lessons([tmp_path / "99.ipynb"]) == 2
    assert capsys.readouterr().err == f"There is no notebook {tmp_path / '99.ipynb'}.\n"
