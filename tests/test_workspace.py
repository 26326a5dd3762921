"""The learner's own folder: copies follow the course until there is work in them, and their links lead somewhere."""

import json
import re

import nbformat
import pytest

from kto_course import NOTEBOOKS, workspace

LESSON = "05_get_probs.ipynb"


@pytest.fixture
def work(tmp_path, monkeypatch):
    """work/ in another place, freshly laid out."""
    monkeypatch.setattr(workspace, "WORK", tmp_path / "work")
    (tmp_path / "work").mkdir()
    assert workspace.lay_out() == []
    return tmp_path / "work"


@pytest.fixture
def newer(monkeypatch):
    """From now on the course has another text in lesson 05."""
    copy_of = workspace.copy_of

    def changed(source, target):
        notebook = copy_of(source, target)
        if source.name == LESSON and "student" in source.parts:
            notebook.cells[0].source += " A new sentence."
        return notebook

    return lambda: monkeypatch.setattr(workspace, "copy_of", changed)


def first_text(path):
    return nbformat.read(path, as_version=4).cells[0].source


def test_every_open_and_every_solved_lesson_has_its_copy(work):
    student = NOTEBOOKS / "student"
    for source in student.rglob("*.ipynb"):
        assert (work / source.relative_to(student)).exists()
    for source in [*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("deeper/*.ipynb")]:
        assert (work / "solved" / source.relative_to(NOTEBOOKS)).exists()
    assert (work / workspace.FIRST_LESSON).exists()


def test_every_link_of_a_copy_and_of_the_door_leads_somewhere(work):
    pages = {path: nbformat.read(path, as_version=4).cells for path in work.rglob("*.ipynb")}
    texts = {path: [cell.source for cell in cells if cell.cell_type == "markdown"] for path, cells in pages.items()}
    texts[work / workspace.DOOR] = [(work / workspace.DOOR).read_text(encoding="utf-8")]
    n_links = 0
    for path, parts in texts.items():
        for link in re.findall(r"\]\(([^)#\s]+)", "\n".join(parts)):
            if ":" not in link:
                n_links += 1
                assert (path.parent / link).exists(), f"{path.name}: {link}"
    assert n_links > 50


def test_a_link_to_a_lesson_leads_to_the_copy_of_the_same_kind(work):
    open_text, solved_text = ("\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
                              for path in (work / LESSON, work / "solved" / LESSON))  # fmt: skip
    assert f"](solved/{LESSON})" in open_text
    assert f"](../{LESSON})" in solved_text
    assert "](02_tiny_llama.ipynb)" in open_text
    assert "](02_tiny_llama.ipynb)" in solved_text
    assert "](06_kto_loss.ipynb)" in (work / workspace.DOOR).read_text(encoding="utf-8")


def test_a_copy_that_was_only_looked_at_follows_the_course(work, newer):
    notebook = nbformat.read(work / LESSON, as_version=4)
    notebook.metadata.kernelspec.display_name = "another kernel"  # what JupyterLab saves when a notebook is opened
    notebook.cells[-1].metadata.collapsed = True
    nbformat.write(notebook, work / LESSON)
    newer()
    assert workspace.lay_out() == []
    assert "A new sentence." in first_text(work / LESSON)


def test_a_copy_with_work_in_it_is_kept_and_the_new_one_laid_beside_it_once(work, newer):
    notebook = nbformat.read(work / LESSON, as_version=4)
    notebook.cells[3].source += "\n# mine"
    nbformat.write(notebook, work / LESSON)
    mine = (work / LESSON).read_bytes()
    assert workspace.lay_out() == [], "nothing is said while the course has not changed"
    newer()
    (told,) = workspace.lay_out()
    assert "Yours is kept" in told
    assert (work / LESSON).read_bytes() == mine
    assert "A new sentence." in first_text(work / "05_get_probs_new.ipynb")
    assert workspace.lay_out() == []
    assert (work / LESSON).read_bytes() == mine


def test_a_file_that_cannot_be_read_is_never_overwritten(work, newer):
    (work / LESSON).write_text("{half", encoding="utf-8")
    newer()
    assert len(workspace.lay_out()) == 1
    assert (work / LESSON).read_text(encoding="utf-8") == "{half"


def test_a_deleted_copy_comes_back(work):
    (work / LESSON).unlink()
    workspace.lay_out()
    assert (work / LESSON).exists()


def test_nothing_outside_the_folder_is_written(work, tmp_path):
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_the_server_s_defaults_are_quiet(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace.sys, "prefix", str(tmp_path))
    found = json.loads(workspace.quiet_defaults().read_text(encoding="utf-8"))
    assert found["@jupyterlab/apputils-extension:notification"] == {"fetchNews": "false", "checkForUpdates": False}
