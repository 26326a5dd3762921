"""Hand out, collect, grade: what a teacher types, with the submissions that a class sends."""

import copy
import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from kto_course import checks, grade, hand_out

ROOT = Path(__file__).resolve().parents[1]
LESSON = "01_prospect_theory"  # the quickest
WRONG = "def my_kto_value(r, label, **others):\n    return sigmoid(0.1 * r)"


def grading(cell):
    return cell.metadata.get("nbgrader", {})


def read(path):
    return nbformat.read(ROOT / "notebooks" / path, as_version=4)


def with_answers(notebook, answers):
    """A notebook with these cells filled in: grade id -> source."""
    filled = copy.deepcopy(notebook)
    for cell in filled.cells:
        cell.source = answers.get(grading(cell).get("grade_id"), cell.source)
    return filled


def cell_of(notebook, id):
    return next(cell for cell in notebook.cells if grading(cell).get("grade_id") == id)


def ours(notebook):
    return {grading(cell)["grade_id"]: cell.source for cell in notebook.cells if grading(cell).get("solution")}


def points(notebook):
    """Task -> points, as the cells say."""
    return {grading(cell)["grade_id"].removeprefix("check_"): grading(cell)["points"]
            for cell in notebook.cells if grading(cell).get("grade")}  # fmt: skip


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Student -> (points by task, sentences), of one lesson with every kind of submission; and the folder."""
    folder, solved, given = tmp_path_factory.mktemp("class"), read(f"{LESSON}.ipynb"), read(f"student/{LESSON}.ipynb")
    answers = ours(solved)
    first, *_ = answers
    sent = {
        "right": with_answers(given, answers),
        "wrong": with_answers(given, answers | {"kto_value": WRONG}),
        "empty": given,
        "edited": with_answers(given, {f"check_{id}": "print('passed')" for id in answers}),
        "loop": with_answers(given, answers | {"kto_value": "while True:\n    pass"}),
    }
    for name in ("copied", "renamed", "deleted"):
        sent[name] = with_answers(given, answers)
    copied = sent["copied"].cells
    copied.append(copy.deepcopy(cell_of(sent["copied"], first)))  # with its id, as JupyterLab's paste does
    cell_of(sent["renamed"], "check_kto_value").metadata["nbgrader"]["grade_id"] = "check_mine"
    sent["deleted"].cells = [c for c in sent["deleted"].cells if grading(c).get("grade_id") != "kto_value"]
    for student, notebook in sent.items():
        (folder / "submitted" / student).mkdir(parents=True)
        nbformat.write(notebook, folder / "submitted" / student / f"{LESSON}.ipynb")
    (folder / "submitted" / "nothing").mkdir()
    (folder / "submitted" / "torn").mkdir()
    (folder / "submitted" / "torn" / f"{LESSON}.ipynb").write_text('{"cells": [', encoding="utf-8")
    before = {path: path.read_bytes() for path in (folder / "submitted").rglob("*.ipynb")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grade, "SECONDS", 20)
        found = grade.grade("01", folder / "submitted", folder / "graded")
    assert {path: path.read_bytes() for path in before} == before  # submissions are evidence
    return found, folder


FULL = points(read(f"{LESSON}.ipynb"))
WITHOUT = FULL | {"kto_value": 0}


@pytest.mark.parametrize(
    ("student", "expected", "said"),
    [
        ("right", FULL, r"^$"),
        ("wrong", WITHOUT, r"^$"),
        ("empty", dict.fromkeys(FULL, 0), r"^$"),
        ("edited", dict.fromkeys(FULL, 0), r"check_kto_value was edited; the original is used"),
        ("copied", FULL, r"is there more than once; the first one counts"),
        ("renamed", FULL, r"'check_mine' is none of this assignment.*check_kto_value is missing.*it was put back$"),
        ("deleted", WITHOUT, r"the cell of kto_value is missing .*open, so it earns nothing"),
        ("loop", WITHOUT, r"the cell of kto_value ran longer than 20 s and was stopped"),
        ("nothing", dict.fromkeys(FULL, 0), r"no 01_prospect_theory\.ipynb was handed in \(found: nothing\)"),
        ("torn", dict.fromkeys(FULL, 0), r"is no notebook"),
    ],
)
def test_each_submission_gets_its_points_and_a_sentence(student, expected, said, graded):
    found, sentences = graded[0][student]
    assert found == expected
    assert re.search(said, "; ".join(sentences)), sentences


def test_points_and_remarks_stand_in_a_table_and_feedback_in_pages(graded):
    found, folder = graded
    with open(folder / "graded" / "points.csv", encoding="utf-8-sig", newline="") as handle:
        table = {line["student"]: line for line in csv.DictReader(handle)}
    assert set(table) == set(found)
    assert float(table["right"]["points"]) == sum(FULL.values())
    assert "stopped" in table["loop"]["remarks"]
    page = (folder / "graded" / "feedback" / "wrong" / "assignment" / f"{LESSON}.html").read_text(encoding="utf-8")
    assert "not right yet" in page


# The hand-out


@pytest.fixture(scope="module")
def handed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hand_out") / "lab"
    assert hand_out.main(["lab_90", "--to", str(folder)]) == 0
    return folder


def solution_lines(name):
    """The lines of our solutions that say something, without blanks."""
    lines = []
    for id in ours(read(name)):
        text, block = checks.solved_cell(id)
        lines += [line.strip() for number, line in enumerate(text.splitlines(), 1) if number in block]
    return [line for line in lines if len(line) > 12]


def test_no_answer_stands_anywhere_in_the_handed_folder(handed):
    lines = solution_lines("lab_90.ipynb")
    assert len(lines) > 8
    texts = [path.read_text(encoding="utf-8") for path in handed.rglob("*") if path.suffix in (".py", ".ipynb", ".md")]
    assert len(texts) > 8
    wanted = [
        *lines,
        ".gather(-1, targets",
        "log_softmax(-1)",
        "logsigmoid",
        "clamp(min=0)",
        "sigmoid(-",
        "BEGIN SOLUTION",
    ]
    for text in texts:
        assert [line for line in wanted if line in text] == []
    assert not list(handed.rglob("*.pyc"))
    assert {path.name for path in handed.iterdir()} == {
        "lab_90.ipynb", "kto_utils", "kto_course", "requirements-light.txt", "README.md"
    }  # fmt: skip


def test_the_lines_that_are_looked_for_do_stand_in_the_course():
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "notebooks" / "src").glob("*.py"))
    assert all(line in text for line in solution_lines("lab_90.ipynb"))
    assert ".gather(-1, targets" in (ROOT / "kto_utils" / "logprobs.py").read_text(encoding="utf-8")


def run_in(folder, notebook):
    """Runs a notebook with nothing but the handed folder's packages; returns what the cells printed."""
    path = folder / "filled.ipynb"
    nbformat.write(notebook, path)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", str(path)]
    done = subprocess.run(call, cwd=folder, env=env, capture_output=True, text=True)
    cells = nbformat.read(path, as_version=4).cells
    path.unlink()
    return done, ["".join(o.get("text", "") for o in cell.get("outputs", [])) for cell in cells]


def test_the_handed_lab_runs_on_the_student_s_own_functions_alone(handed):
    given = nbformat.read(handed / "lab_90.ipynb", as_version=4)
    probe = nbformat.v4.new_code_cell("import kto_utils\nprint(kto_utils.__file__)")
    filled = with_answers(given, ours(read("lab_90.ipynb")))
    filled.cells.insert(0, probe)
    done, printed = run_in(handed, filled)
    assert done.returncode == 0, done.stderr[-2000:]
    assert str(handed) in printed[0]
    whole = "".join(printed)
    assert "noted; the points come after" in whole
    assert "passed" not in whole
    stored = ["".join(o.get("text", "") for o in cell.get("outputs", [])) for cell in read("lab_90.ipynb").cells]
    (table,) = [text for text in stored if text.startswith("step    loss")]
    assert table in whole  # the same digits as in the course
    assert "grad_norm" in "".join(cell.source for cell in given.cells if cell.cell_type == "markdown")


def test_a_lesson_whose_cells_need_its_answers_is_refused(tmp_path, capsys):
    assert hand_out.main(["06", "--to", str(tmp_path / "x")]) == 2
    assert "Hand out lab_90" in capsys.readouterr().err
    assert hand_out.main(["99", "--to", str(tmp_path / "x")]) == 2
    assert "there is no notebook '99'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_an_empty_folder_is_refused_by_grade(tmp_path, capsys):
    assert grade.main(["01", str(tmp_path), "--to", str(tmp_path / "graded")]) == 2
    assert "holds no folder of a student" in capsys.readouterr().err
