"""Commands in narrow terminals, before readers who leave early, from other folders, under other people's settings."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from kto_course import runner

ROOT = Path(__file__).resolve().parents[1]
ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
CODE_PAGE = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}


def env(**more):
    return os.environ | {"PYTHONPATH": str(ROOT)} | more


def thumbs(folder):
    path = folder / "Zo\u00eb.jsonl"
    rows = [f'{{"prompt": "p{n}", "completion": "c", "label": "\U0001f44d"}}' for n in range(3)]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("terminal", [ASCII, CODE_PAGE])
def test_a_report_does_not_crash_in_a_terminal_that_knows_few_characters(terminal, tmp_path):
    command = [sys.executable, "-m", "kto_lab.inspect", thumbs(tmp_path)]
    done = subprocess.run(command, capture_output=True, env=env(**terminal), cwd=tmp_path, encoding="latin-1")
    assert (done.returncode, done.stderr) == (1, "")
    assert "\\U0001f44d=true" in done.stdout


@pytest.mark.parametrize(
    "module",
    [("kto_course.interview", "--mock", "1"), ("kto_lab.bench", "--show"), ("kto_course.doctor",),
     ("kto_lab.comparison", "--help")],
)  # fmt: skip
def test_no_command_crashes_in_a_terminal_that_knows_ascii(module, tmp_path):
    done = subprocess.run([sys.executable, "-m", *module], capture_output=True, input=b"\n" * 40,
                          env=env(**ASCII, KTO_PROGRESS=str(tmp_path)), cwd=tmp_path)  # fmt: skip
    assert b"Traceback" not in done.stderr
    assert done.stdout


@pytest.mark.parametrize("module", [("kto_lab.inspect", "FILE"), ("kto_course.doctor",), ("kto_lab.bench", "--show")])
def test_a_reader_who_has_seen_enough_is_no_error(module, tmp_path):
    arguments = [str(thumbs(tmp_path)) if part == "FILE" else part for part in module]
    command = [sys.executable, "-u", "-m", *arguments]  # unbuffered: the first print meets the closed pipe
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env(), cwd=tmp_path)
    run.stdout.close()
    assert run.stderr.read() == b""
    run.stderr.close()
    assert run.wait() == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_a_command_that_is_stopped_shows_no_traceback(tmp_path):
    code = "import time\nfrom kto_lab.command import run_command\nprint('on', flush=True)\n"
    code += "raise SystemExit(run_command(time.sleep, 60))"
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env())
    assert run.stdout.readline() == b"on\n"
    time.sleep(0.2)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate()
    assert (run.returncode, out, err) == (130, b"", b"")


def test_every_text_file_is_opened_with_its_encoding():
    """Without it Windows reads in its code page."""
    missing = []
    for folder in ("kto_utils", "kto_lab", "kto_course"):
        for path in (ROOT / folder).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(call, ast.Call):
                    continue
                name = getattr(call.func, "attr", getattr(call.func, "id", ""))
                given = {keyword.arg for keyword in call.keywords}
                binary = any(isinstance(a, ast.Constant) and "b" in str(a.value) for a in call.args)
                if name in ("read_text", "write_text") or (name == "open" and not binary and call.args):
                    owner = ast.unparse(call.func)
                    positional = any(isinstance(a, ast.Constant) and a.value == "utf-8" for a in call.args)
                    if not (positional or "encoding" in given) and not owner.startswith(("os.", "Image.", "self.")):
                        missing.append(f"{path.name}:{call.lineno}")
    assert missing == []


def pictures(notebook):
    return sum("image/png" in out.get("data", {}) for cell in notebook.cells for out in cell.outputs)


@pytest.mark.parametrize("backend", ["agg", "Agg", "pdf", "template"])
def test_an_inherited_backend_hides_no_figure_of_a_lesson(backend, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", backend)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    plain, lesson = (new_notebook(cells=[new_code_cell(first), new_code_cell(draw)])
                     for first in ("x = 1", "from kto_course import check"))  # fmt: skip
    for notebook in (plain, lesson):
        NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    assert (pictures(plain), pictures(lesson)) == (0, 1)
    assert lesson.cells[0].outputs == []
    path = tmp_path / "01_plain.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(draw)]), path)
    run = runner.execute(nbformat.read(path, as_version=4), tmp_path, "01_plain")
    assert (run.figures, run.failure) == (1, None)
    assert os.environ["MPLBACKEND"] == backend, "the runner gives it back"
