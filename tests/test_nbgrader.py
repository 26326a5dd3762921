"""A teacher's round trip through nbgrader: the lesson goes in as it is, submissions are graded, points come out."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

ROOT = Path(__file__).resolve().parents[1]
LESSON = "01_prospect_theory"  # the quickest
WRONG = {
    "kto_value": "def my_kto_value(r, label, **others):\n    return sigmoid(0.1 * r)",
}


def grading(cell):
    return cell.metadata.get("nbgrader", {})


def read(folder):
    return nbformat.read(ROOT / "notebooks" / folder / f"{LESSON}.ipynb", as_version=4)


def hand_in(course, student, answers):
    """The student notebook with these cells filled in: grade id -> source."""
    notebook = read("student")
    for cell in notebook.cells:
        cell.source = answers.get(grading(cell).get("grade_id"), cell.source)
    target = course / "submitted" / student / "ps1" / f"{LESSON}.ipynb"
    target.parent.mkdir(parents=True)
    nbformat.write(notebook, target)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course folder after generate_assignment and autograde, with three submissions."""
    course = tmp_path_factory.mktemp("nbgrader")
    (course / "source" / "ps1").mkdir(parents=True)
    nbformat.write(read(""), course / "source" / "ps1" / f"{LESSON}.ipynb")
    ours = {grading(cell)["grade_id"]: cell.source for cell in read("").cells if grading(cell).get("solution")}
    hand_in(course, "right", ours)
    hand_in(course, "wrong", ours | WRONG)
    hand_in(course, "cheat", {f"check_{id}": "print('passed')" for id in ours})
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "JUPYTER_CONFIG_DIR": str(course / "config"),
           "KTO_PROGRESS": str(course / "progress.json"), "KTO_FIGURES": str(course / "figures"),
           # nbgrader starts `alembic` by name
           "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}  # fmt: skip
    for command in (["generate_assignment"], ["autograde", "--Execute.timeout=300"]):  # as teaching.md says
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *command, "ps1", f"--course-dir={course}"],
            cwd=course, env=os.environ | own, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr  # 0 says nothing about the points
    return course


@pytest.fixture(scope="module")
def scores(course):
    """Student -> grade id -> (points, of how many)."""
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        return {
            student: {
                grade.name: (grade.score, grade.max_score)
                for grade in gradebook.find_submission_notebook(LESSON, "ps1", student).grades
            }
            for student in ("right", "wrong", "cheat")
        }


def points():
    """Grade id -> points, as the lesson's cells say."""
    return {grading(cell)["grade_id"]: grading(cell)["points"] for cell in read("").cells if grading(cell).get("grade")}


def test_the_released_notebook_is_ours_with_nbgraders_own_stub(course):
    released = nbformat.read(course / "release" / "ps1" / f"{LESSON}.ipynb", as_version=4)
    assert [grading(cell).get("grade_id") for cell in released.cells] == [
        grading(cell).get("grade_id") for cell in read("").cells
    ]
    for cell in released.cells:
        if grading(cell).get("solution"):
            assert "raise NotImplementedError()" in cell.source
            assert "SOLUTION" not in cell.source


def test_the_model_solutions_get_all_points(scores):
    assert set(scores["right"]) == set(points())
    assert scores["right"] == {id: (full, full) for id, full in points().items()}


def test_wrong_answers_lose_their_points_and_only_these(scores):
    lost = {f"check_{id}" for id in WRONG}
    assert lost < set(points())
    assert scores["wrong"] == {id: (0 if id in lost else full, full) for id, full in points().items()}


def test_open_exercises_get_none_and_a_replaced_check_does_not_help(scores):
    assert scores["cheat"] == {id: (0, full) for id, full in points().items()}
