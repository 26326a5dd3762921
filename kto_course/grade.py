"""`python course.py grade lab_90 FOLDER`: points, feedback and what looks odd. For teachers; see teaching.md.

FOLDER holds STUDENT/lab_90.ipynb, as it came back. nbgrader runs each one with the course's own checks and writes a
page of feedback; this module mends what nbgrader would stumble over, and says in a sentence what it found. The
submissions themselves are never changed. They are programs of other people: grade on a machine where that is all right.
"""

import argparse
import copy
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat

from kto_course.hand_out import ASSIGNMENT, exercises_of, grading, nbgrader, notebook_of, release

SECONDS = 300  # a cell may take; the slowest of ours takes half a minute
STOPPED = "KeyboardInterrupt"  # how a cell ends that was stopped


def mended(submitted, source) -> tuple[nbformat.NotebookNode, list[str]]:
    """A submission that nbgrader takes, and a sentence for each thing that had to be mended.

    A cell that is there twice counts once, the first time. A check that was deleted or renamed is put back behind the
    cell of its task, and a task without its cell is put back open.
    """
    told, seen, kept = [], set(), []
    known = {grading(cell)["grade_id"]: cell for cell in source.cells if grading(cell)}
    for cell in map(copy.deepcopy, submitted.cells):
        id = grading(cell).get("grade_id")
        if id is not None and id not in known:
            told.append(f"the cell {id!r} is none of this assignment; it was renamed or comes from another one")
            del cell.metadata["nbgrader"]
        elif id in seen:
            told.append(f"the cell of {id} is there more than once; the first one counts")
            del cell.metadata["nbgrader"]
        elif id is not None:
            seen.add(id)
            cell.metadata["nbgrader"] = copy.deepcopy(known[id].metadata["nbgrader"])  # points and locks are ours
            if grading(cell)["grade"] and cell.source.strip() != known[id].source.strip():
                told.append(f"{id} was edited; the original is used")
        kept.append(cell)
    before = None  # the graded cell of the assignment that comes before
    for id, cell in known.items():
        if id not in seen:
            place = next((i + 1 for i, other in enumerate(kept) if grading(other).get("grade_id") == before), len(kept))
            kept.insert(place, copy.deepcopy(cell))
            if grading(cell).get("solution"):
                kept[place].source = "# nothing was handed in here"
            told.append(f"the cell of {id} is missing (deleted or renamed); it was put back"
                        + (", open, so it earns nothing" if grading(cell).get("solution") else ""))  # fmt: skip
        before = id
    fresh = nbformat.v4.new_notebook(cells=kept, metadata=source.metadata, nbformat_minor=5)
    for place, cell in enumerate(fresh.cells):  # copied cells bring an id twice
        cell["id"] = f"cell-{place}"
    return fresh, told


def submissions(folder: Path, source: Path, notebook, course: Path) -> dict[str, list[str]]:
    """Copies what came back into nbgrader's course folder; returns student -> sentences."""
    told = {}
    for student in sorted(path for path in folder.iterdir() if path.is_dir()):
        file = student / source.name
        if not file.is_file():
            others = ", ".join(sorted(path.name for path in student.iterdir())) or "nothing"
            told[student.name] = [f"no {source.name} was handed in (found: {others}); no points"]
            continue
        try:
            came_back = nbformat.read(file, as_version=4)
        except Exception as error:  # whatever a person may have sent
            told[student.name] = [f"{file} is no notebook ({type(error).__name__}); no points"]
            continue
        fresh, told[student.name] = mended(came_back, notebook)
        target = course / "submitted" / student.name / ASSIGNMENT / source.name
        target.parent.mkdir(parents=True)
        nbformat.write(fresh, target)
    return told


def run_nbgrader(course: Path) -> None:
    """Autograde and feedback; what nbgrader said is kept. Its exit status says nothing about the points."""
    limit = ["--Execute.interrupt_on_timeout=True", f"--Execute.timeout={SECONDS}"]
    for command in (["autograde", *limit], ["generate_feedback"]):
        (course / f"{command[0]}.log").write_text(nbgrader(course, *command).stderr, encoding="utf-8")


def stopped_cells(course: Path, student: str, name: str) -> list[str]:
    """A sentence for each cell that was stopped, or one if the notebook could not be run at all."""
    file = course / "autograded" / student / ASSIGNMENT / name
    if not file.is_file():
        return [f"it could not be run; autograde.log in {course} says why. No points"]
    told = []
    for number, cell in enumerate(nbformat.read(file, as_version=4).cells, 1):
        if any(output.get("ename") == STOPPED for output in cell.get("outputs", [])):
            where = f"the cell of {grading(cell)['grade_id']}" if grading(cell) else f"cell {number}"
            told.append(f"{where} ran longer than {SECONDS} s and was stopped: a loop that does not end?")
    return told


def grade(name: str, folder: Path, course: Path) -> dict[str, tuple[dict[str, float], list[str]]]:
    """Student -> (points by task, sentences); feedback pages and points.csv lie in `course` afterwards.

    Raises:
        ValueError: no such notebook, or nobody handed anything in.
        FileExistsError: the folder `course` is there.
    """
    from nbgrader.api import Gradebook, MissingEntry

    source = notebook_of(name)
    if not folder.is_dir() or not any(path.is_dir() for path in folder.iterdir()):
        raise ValueError(f"{folder} holds no folder of a student; expected STUDENT/{source.name} in it")
    course.mkdir(parents=True)
    course = course.resolve()
    notebook = release(source, course)
    told = submissions(folder, source, notebook, course)
    run_nbgrader(course)
    tasks, found = exercises_of(notebook), {}
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        for student, sentences in told.items():
            points = dict.fromkeys(tasks, 0.0)
            if (course / "submitted" / student).is_dir():
                sentences += stopped_cells(course, student, source.name)
                try:
                    graded = gradebook.find_submission_notebook(source.stem, ASSIGNMENT, student)
                    points |= {grade.name.removeprefix("check_"): grade.score for grade in graded.grades}
                except MissingEntry:
                    pass  # stopped_cells has said that it could not be run
            found[student] = points, sentences
    with open(course / "points.csv", "w", encoding="utf-8-sig", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["student", *tasks, "points", "remarks"])
        for student, (points, sentences) in found.items():
            writer.writerow([student, *points.values(), sum(points.values()), "; ".join(sentences)])
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python course.py grade", description=__doc__.split("\n\n")[0])
    parser.add_argument("notebook", help="number or name: lab_90, or a lesson whose copies from work/ were collected")
    parser.add_argument("folder", type=Path, help="holds STUDENT/NOTEBOOK.ipynb")
    parser.add_argument("--to", type=Path, default=Path("graded"), help="the folder to write; default graded, here")
    options = parser.parse_args(arguments)
    try:
        found = grade(options.notebook, options.folder, options.to)
    except (OSError, RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    for student, (points, sentences) in found.items():
        print(f"{student:20s} {sum(points.values()):5.1f}  " + "; ".join(sentences))
    print(f"\n{options.to / 'points.csv'} has the points by task, {options.to / 'feedback'} a page for each student.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
