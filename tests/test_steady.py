"""Cells that print other digits on another instruction set or with other threads are named."""

import os

import nbformat
from nbformat.v4 import new_code_cell, new_notebook, new_output

from kto_course import steady

ASKS = "import os\nprint('first line')\nprint(os.environ['ATEN_CPU_CAPABILITY'])"
THREADS = "print(os.environ['OMP_NUM_THREADS'])"


def write(tmp_path, *cells):
    path = tmp_path / "tiny.ipynb"
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


def test_a_cell_that_prints_the_instruction_set_is_named_with_its_line(tmp_path, capsys):
    free = new_code_cell(ASKS, metadata={"tags": ["nbval-ignore-output"]})
    path = write(tmp_path, free, new_code_cell("print(1)"), new_code_cell(ASKS), new_code_cell(THREADS))
    before = dict(os.environ)
    assert steady.main([str(path)]) == 1
    out = capsys.readouterr().out
    assert "tiny.ipynb, code cell 3, line 2, avx2, 1 thread:\n    - default\n    + avx2" in out
    assert "tiny.ipynb, code cell 4, line 1, avx2, 2 threads:\n    - 1\n    + 2" in out
    assert out.count("code cell 3") == 2
    assert out.count("code cell") == 3
    assert dict(os.environ) == before


def test_what_is_stored_is_what_a_run_is_held_against(tmp_path, capsys):
    as_it_is = new_code_cell("print(2)", execution_count=1, outputs=[new_output("stream", text="2\n")])
    assert steady.main([str(write(tmp_path, as_it_is))]) == 0
    assert capsys.readouterr().out == "tiny.ipynb: steady\n"
    other = new_code_cell("print(2)", execution_count=1, outputs=[new_output("stream", text="3\n")])
    assert steady.main([str(write(tmp_path, other))]) == 1
    assert capsys.readouterr().out.count("line 1") == len(steady.SETTINGS)


def test_a_cell_that_fails_is_named(tmp_path):
    (first, *_) = steady.differences(write(tmp_path, new_code_cell("1 / 0")))
    assert "code cell 1: ZeroDivisionError" in first
