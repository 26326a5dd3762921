"""The lessons as files: in step with their sources, fully run, accessible, offline. nbval runs them elsewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from kto_course import build

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
LESSONS = [*sorted(NOTEBOOKS.glob("*.ipynb")), *sorted(NOTEBOOKS.glob("deeper/*.ipynb"))]
LABS = sorted(NOTEBOOKS.glob("lab_*.ipynb"))  # their parts are tested in test_lab.py

each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def run_nbval(path, **env):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider", "-p", "no:xdist", "-q", str(path)],
        cwd=path.parent, capture_output=True, text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"PYTHONPATH": str(ROOT)} | env,
    )  # fmt: skip


def test_all_lessons_are_there():
    lessons = [path for path in LESSONS if path.parent == NOTEBOOKS and path not in LABS]
    assert [int(path.stem[:2]) for path in lessons] == [*range(14)]


def test_notebooks_and_pages_are_in_step_with_their_sources():
    assert build.out_of_date(build.load_timings()) == []


def test_an_edited_source_is_noticed(tmp_path, monkeypatch):
    source = build.source_paths()[0]
    changed = tmp_path / source.name
    changed.write_text(source.read_text(encoding="utf-8") + "\n# %%\nprint(1)\n", encoding="utf-8")
    assert build.in_step(source, build.load_timings())
    assert not build.in_step(changed, build.load_timings())


@each_lesson
def test_every_code_cell_was_run_in_order_in_one_go(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@each_lesson
def test_cells_have_ids_and_only_announced_errors(path):
    notebook = nbformat.read(path, as_version=4)
    ids = [cell.get("id") for cell in notebook.cells]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    for cell in code_cells(path):
        failed = any(output.output_type == "error" for output in cell.outputs)
        assert not failed or "raises-exception" in cell.metadata.get("tags", []), cell.source


@each_lesson
def test_every_shown_figure_is_stored_and_has_alt_text(path):
    for cell in code_cells(path):
        if re.search(r"^plt\.show\(\)$", cell.source, flags=re.M):
            images = [output for output in cell.outputs if "image/png" in output.get("data", {})]
            assert images, cell.source
            for output in images:
                assert output.metadata.get("image/png", {}).get("alt"), f"no alt text: {cell.source}"


@each_lesson
def test_outputs_hold_nothing_of_one_machine(path):
    text = json.dumps([[o.get("text", ""), o.get("data", {}).get("text/plain", "")] for c in code_cells(path)
                       for o in c.outputs])  # fmt: skip
    assert not re.search(r"/home/|/root/|/tmp/|/Users/|site-packages|0x[0-9a-f]{8}|Warning", text)


@pytest.mark.parametrize("path", [path for path in LESSONS if path not in LABS], ids=lambda path: path.stem)
def test_a_lesson_starts_with_its_card_and_ends_with_recap_questions_and_sources(path):
    prose = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert re.match(rf"# {path.stem.split('_')[0]} · \S", prose[0])
    assert all(word in prose[1] for word in ("You will be able to", "You need first", "minutes"))
    headings = re.findall(r"^## (.+)$", "\n".join(prose), flags=re.M)
    assert {"Recap", "Sources"} <= set(headings)
    assert "Questions an interviewer asks" in headings or path.parent != NOTEBOOKS


@each_lesson
def test_links_inside_the_course_lead_somewhere(path):
    prose = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (path.parent / target).exists(), target
    assert not re.search(r"!\[[^\]]*\]\(https?:", prose), "a remote image"


def test_no_lesson_takes_longer_than_a_minute():
    timings = build.load_timings()
    assert set(timings) == {path.stem for path in build.every_source()}
    assert max(timings.values()) <= 60


def test_every_published_figure_has_its_alt_text():
    pictures = {path.stem for path in (ROOT / "figures").glob("*.png")}
    texts = {path.stem for path in (ROOT / "figures").glob("*.txt")}
    texts_of_code = [path.read_text(encoding="utf-8") for folder in ("notebooks/src", "kto_course/pictures")
                     for path in (ROOT / folder).glob("*.py")]  # fmt: skip
    named = set(re.findall(r"(?:save_figure|publish)\(\s*\w+,\s*\"(\w+)\"", "\n".join(texts_of_code)))
    named |= {f"bench_{name}" for name in ("step", "memory", "losses", "growth")}  # drawn by `course.py bench`
    named |= set(re.findall(r"\"(10b?_\w+)\"", "\n".join(texts_of_code)))  # the museum's, named in the lesson
    named |= {name for name in pictures if re.fullmatch(r"10_exhibit_\d\d", name)}
    assert pictures == texts == named | {"formula_card"}


@pytest.fixture(scope="module")
def tampered(tmp_path_factory):
    """A copy of lesson 01 (the quickest) in which one digit of a printed number is another."""
    folder = tmp_path_factory.mktemp("tampered") / "notebooks"
    folder.mkdir()
    for name in ("conftest.py", "sanitize.cfg"):
        shutil.copy(NOTEBOOKS / name, folder / name)
    notebook = nbformat.read(NOTEBOOKS / "01_prospect_theory.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "nbval-ignore-output" not in cell.metadata.get("tags", []):
            for output in cell.outputs:
                if output.output_type == "stream" and re.search(r"\d\.\d{3}", output.text):
                    found = re.search(r"\d\.\d{3}", output.text)
                    digit = str((int(output.text[found.end() - 1]) + 1) % 10)
                    output.text = output.text[: found.end() - 1] + digit + output.text[found.end() :]
                    nbformat.write(notebook, folder / "01_prospect_theory.ipynb")
                    return folder / "01_prospect_theory.ipynb"
    raise AssertionError("lesson 01 prints no number")


def test_one_changed_digit_in_a_stored_output_turns_the_run_red(tampered):
    done = run_nbval(tampered)
    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout, done.stdout[-500:]


def guarded(code, tmp_path):
    log = tmp_path / "network.log"
    env = os.environ | {"PYTHONPATH": str(ROOT / "tests" / "no_network"), "KTO_NETWORK_LOG": str(log)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    return done, log.read_text() if log.exists() else ""


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)",
        "import urllib.request; urllib.request.urlopen('http://example.invalid/', timeout=1)",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
    ],
)
def test_the_guard_refuses_and_records_a_connection_beyond_this_machine(code, tmp_path):
    # 192.0.2.1 is reserved for documentation; the guard refuses before anything is sent.
    done, log = guarded(code, tmp_path)
    assert done.returncode == 1
    assert "the course works offline" in done.stderr
    assert "192.0.2.1" in log or "example.invalid" in log


def test_the_guard_lets_this_machine_talk_to_itself(tmp_path):
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "socket.create_connection(('localhost', s.getsockname()[1])); print('fine')"
    )
    done, log = guarded(code, tmp_path)
    assert done.stdout.strip() == "fine", done.stderr
    assert log == ""


def test_a_lesson_that_swallows_the_refusal_is_red_all_the_same(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("conftest.py", "sanitize.cfg"):
        shutil.copy(NOTEBOOKS / name, folder / name)
    (tmp_path / "tests").symlink_to(ROOT / "tests") if os.name != "nt" else shutil.copytree(
        ROOT / "tests" / "no_network", tmp_path / "tests" / "no_network"
    )
    call = "socket.create_connection(('192.0.2.1', 80), timeout=1)"
    source = f"import socket\ntry:\n    {call}\nexcept OSError:\n    pass"
    cell = nbformat.v4.new_code_cell(source, execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "00_calls_home.ipynb")
    done = run_nbval(folder / "00_calls_home.ipynb")
    assert done.returncode == 1, done.stdout
    assert "tried to open a connection" in done.stdout
