"""The lab of ninety minutes: its exercises are the lessons' own, its points and minutes add up."""

import re
from pathlib import Path

import nbformat
import pytest

from kto_course import build, checks
from kto_course.times import times_of

ROOT = Path(__file__).resolve().parents[1]
(SOURCE,) = [path for path in build.every_source() if path.stem == "lab_90"]


@pytest.fixture(scope="module")
def cells():
    return nbformat.read(build.notebook_path(SOURCE), as_version=4).cells


def grading(cell):
    return cell.metadata.get("nbgrader", {})


def test_the_points_are_twenty_and_stand_at_the_tasks(cells):
    points = [grading(cell)["points"] for cell in cells if grading(cell).get("grade")]
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    stated = [int(n) for n in re.findall(r"^### (?:Task \d|Question [A-C]).* \((\d+) points?\)$", prose, flags=re.M)]
    assert points == stated
    assert sum(points) == 20
    assert len([line for line in prose.splitlines() if line.startswith("### Question")]) == 3


def test_every_task_is_an_exercise_of_a_lesson_with_a_check_of_its_own(cells):
    solved = [grading(cell)["grade_id"] for cell in cells if grading(cell).get("solution")]
    assert [grading(cell)["grade_id"] for cell in cells if grading(cell).get("grade")] == [
        f"check_{id}" for id in solved
    ]
    for cell in cells:
        if grading(cell).get("solution"):
            assert cell.source == checks.exercise_cell(grading(cell)["grade_id"])
    needed = ["get_probs", "reference_point", "kto_loss", "dpo_loss", "mystery_log_cause"]
    assert [id for id in solved if id in needed] == needed


def test_reading_tasks_and_run_fit_eighty_minutes(cells):
    times = times_of(cells, build.load_timings()["lab_90"])
    assert times.n_exercises == 8
    assert 60 <= times.read + times.exercises <= 80
    assert times.run <= 60


def test_the_run_goes_through_the_student_s_four_functions(cells):
    (loop,) = [cell.source for cell in cells if "optimizer.step()" in cell.source]
    assert "kto_loss(" in loop
    assert "reference_point(" in loop
    for cell in cells:  # the package's own are never imported: they are held back where the lab is graded
        assert not re.search(r"kto_utils(\.| import )(losses|logprobs)", cell.source)
