"""The student notebooks: the lessons with holes, nothing else changed, and they run to the end with every hole open."""

import copy
import json
import os
import re
import textwrap
from pathlib import Path

import nbformat
import pytest

from kto_course import build, checks, runner

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
STUDENT = NOTEBOOKS / "student"

COPIES = sorted(STUDENT.rglob("*.ipynb"))  # those of the deeper notebooks too
each_copy = pytest.mark.parametrize("path", COPIES, ids=lambda path: path.stem)
BLOCK = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n(.*?)^[ \t]*### END SOLUTION$", flags=re.M | re.S)


def read(path):
    return nbformat.read(path, as_version=4)


def lesson_of(path):
    return read(NOTEBOOKS / path.relative_to(STUDENT))


def grading(cell):
    return cell.metadata.get("nbgrader", {})


def blocks(notebook):
    """The solutions of a lesson, as dedented text."""
    return [textwrap.dedent(block[2]).strip() for cell in notebook.cells for block in BLOCK.finditer(cell.source)]


def with_holes(source):
    """What a student sees in place of each solution: written here anew, not taken from the build."""
    return BLOCK.sub(lambda block: f"{block[1]}...  # your code here" if block[1] else "# your code here", source)


def without_switch(text):
    """A text without the link that leads from one copy of a lesson to the other."""
    return re.sub(r"\[(?:With open exercises|Solved, with all outputs)\]\([^)]+\)", "SWITCH", text)


def open_copy(lesson):
    """The open copy of a lesson that has one; any other file itself."""
    copied = STUDENT / lesson.relative_to(NOTEBOOKS) if lesson.is_relative_to(NOTEBOOKS) else lesson
    return copied if lesson.suffix == ".ipynb" and copied.exists() else lesson


def links(cell):
    """A cell's text with its paths to files cut out, and these paths."""
    pattern = r"\]\(([^)#\s]+)" if cell.cell_type == "markdown" else r"\"(\.\./[^\"\n]+)"
    source = without_switch(cell.source)
    paths = [target for target in re.findall(pattern, source) if not re.match(r"\w+:", target)]
    return re.sub(pattern, "PATH", source), paths


def differences(student, lesson, folder=Path()):
    """Everything in which a student notebook is not the lesson with holes; [] when all is well.

    Both lie in `folder`, below notebooks/student/ and below notebooks/.
    """
    found = []
    if student.metadata != lesson.metadata or student.nbformat_minor != lesson.nbformat_minor:
        found.append("the notebook's metadata")
    if len(student.cells) != len(lesson.cells):
        return [*found, f"{len(student.cells)} cells, the lesson has {len(lesson.cells)}"]
    for number, (mine, theirs) in enumerate(zip(student.cells, lesson.cells, strict=True)):
        for field in ("cell_type", "id", "metadata"):
            if mine[field] != theirs[field]:
                found.append(f"cell {number}: {field}")
        if mine.cell_type == "code" and (mine.outputs or mine.execution_count is not None):
            found.append(f"cell {number}: it was run")
        holes = copy.deepcopy(theirs)
        holes.source = with_holes(theirs.source)
        if (holes.source != theirs.source) != bool(grading(theirs).get("solution")):
            found.append(f"cell {number}: a solution without mark, or a mark without solution")
        (text, paths), (expected, their_paths) = links(mine), links(holes)
        if text != expected:
            found.append(f"cell {number}: source")
        for path, theirs in zip(paths, their_paths, strict=True):
            here, right = (STUDENT / folder / path).resolve(), open_copy((NOTEBOOKS / folder / theirs).resolve())
            if here != right or not here.exists():
                found.append(f"cell {number}: {path} should lead to {right.name}")
    return found


def strings(value):
    """Every text inside a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and all(isinstance(line, str) for line in value):  # how a notebook keeps a text
        yield "".join(value)
    elif isinstance(value, list | dict):
        yield from value if isinstance(value, dict) else ()
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


def leaks(text, lesson):
    """Solutions that stand in the file more often than in the lesson's own explanations."""
    everything = "\n".join(strings(json.loads(text)))
    explained = "\n".join(with_holes(cell.source) for cell in lesson.cells)

    def times(block, where):  # at any depth of indentation
        lines = (re.escape(line.strip()) for line in block.splitlines())
        return len(re.findall(r"^[ \t]*" + r"\n[ \t]*".join(lines) + r"[ \t]*$", where, flags=re.M))

    found = [block for block in blocks(lesson) if times(block, everything) > times(block, explained)]
    return found + re.findall(r"(?:BEGIN|END) SOLUTION", text)


def test_every_lesson_with_exercises_has_its_copy():
    with_checks = {number for number, ids in checks.ids_by_lesson().items() if ids}
    assert with_checks <= {int(path.stem[:2]) for path in COPIES if path.stem[:2].isdigit()}
    lessons = [*sorted(NOTEBOOKS.glob("*.ipynb")), *sorted(NOTEBOOKS.glob("deeper/*.ipynb"))]
    marked = {path.relative_to(NOTEBOOKS) for path in lessons if any(map(grading, read(path).cells))}
    assert marked == {path.relative_to(STUDENT) for path in COPIES}


@each_copy
def test_a_student_cell_is_the_lessons_cell_with_holes_and_nothing_else_changed(path):
    assert differences(read(path), lesson_of(path), path.relative_to(STUDENT).parent) == []


@each_copy
def test_the_two_copies_of_a_lesson_lead_to_each_other(path):
    for notebook, folder, other in ((read(path), path.parent, NOTEBOOKS / path.relative_to(STUDENT)),
                                    (lesson_of(path), NOTEBOOKS / path.relative_to(STUDENT).parent, path)):  # fmt: skip
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        (target,) = re.findall(r"\[(?:With open exercises|Solved, with all outputs)\]\(([^)]+)\)", text)
        assert (folder / target).resolve() == other


@each_copy
def test_no_solution_is_left_anywhere_in_the_file(path):
    lesson = lesson_of(path)
    assert blocks(lesson)
    assert leaks(path.read_text(encoding="utf-8"), lesson) == []


@pytest.mark.parametrize("path", [path for path in COPIES if path.stem[:2].isdigit()], ids=lambda path: path.stem)
def test_every_exercise_has_one_cell_to_fill_in_and_one_locked_cell_that_counts(path):
    cells = [grading(cell) for cell in read(path).cells if grading(cell)]
    ids = [cell["grade_id"] for cell in cells]
    assert len(set(ids)) == len(ids)
    lesson = checks.ids_by_lesson().get(int(path.stem[:2]), [])
    exercises = [id for id in lesson if id in ids]  # the others stand in the deeper notebook, or in the lesson
    assert [cell["grade_id"] for cell in cells if cell["grade"]] == [f"check_{id}" for id in exercises]
    both = [other for other in COPIES if other.stem[:2] == path.stem[:2]]
    found = [grading(cell)["grade_id"] for other in both for cell in read(other).cells if grading(cell).get("solution")]
    assert set(lesson) <= set(found)
    assert len(set(found)) == len(found)
    for cell in cells:
        if cell["grade"]:
            assert cell["locked"]
            assert cell["points"] == checks.find(cell["grade_id"].removeprefix("check_")).points


@pytest.fixture
def pair():
    """A student notebook and its lesson, to be tampered with."""
    return read(STUDENT / "05_get_probs.ipynb"), read(NOTEBOOKS / "05_get_probs.ipynb")


def solution_cell(notebook):
    return next(cell for cell in notebook.cells if grading(cell).get("solution"))


def test_a_changed_word_a_lost_cell_and_a_stored_output_are_noticed(pair):
    student, lesson = pair
    changed = copy.deepcopy(student)
    changed.cells[0].source += " "
    solution_cell(changed).outputs = [nbformat.v4.new_output("stream", text="1\n")]
    assert [text.split(": ")[1] for text in differences(changed, lesson)] == ["source", "it was run"]
    shorter = copy.deepcopy(student)
    del shorter.cells[3]
    assert differences(shorter, lesson) == [f"{len(shorter.cells)} cells, the lesson has {len(lesson.cells)}"]
    unlocked = copy.deepcopy(student)
    next(cell for cell in unlocked.cells if grading(cell).get("locked")).metadata.nbgrader.locked = False
    assert [text.split(": ")[1] for text in differences(unlocked, lesson)] == ["metadata"]


def test_a_link_that_leads_elsewhere_is_noticed(pair):
    student, lesson = pair
    cell = next(cell for cell in student.cells if "](../02_tiny_llama.ipynb)" in cell.source or
                "](02_tiny_llama.ipynb)" in cell.source)  # fmt: skip
    cell.source = re.sub(r"\]\((\.\./)?02_tiny_llama", "](../../02_tiny_llama", cell.source)
    assert "../../02_tiny_llama.ipynb should lead to 02_tiny_llama.ipynb" in differences(student, lesson)[0]


@pytest.mark.parametrize("place", ["cell", "output", "metadata"])
def test_a_solution_that_is_left_is_noticed(pair, place):
    student, lesson = pair
    block = blocks(lesson)[0]
    if place == "cell":
        solution_cell(student).source += "\n" + textwrap.indent(block, "    ")
    elif place == "output":
        student.cells[-1] = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("stream", text=block)])
    else:
        student.metadata["solutions"] = {"get_probs": block}
    assert leaks(nbformat.writes(student), lesson) == [block]


def test_an_outdated_and_an_orphaned_copy_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "STUDENT", tmp_path)
    (tmp_path / "99_old.ipynb").write_text("{}", encoding="utf-8")
    stale = build.stale_copies()
    below = [path.relative_to(STUDENT) for path in COPIES]
    assert {f"student/{path.as_posix()}" for path in below} <= set(stale)
    assert "student/99_old.ipynb (has no lesson with exercises)" in stale
    build.write_copies(build.student_copies())
    assert all((tmp_path / path).exists() for path in below)


def printed(cell):
    """What a cell printed, without the line in which `check.yours_or_ours` says whose function the lesson takes."""
    text = "".join(output.get("text", "") for output in cell.outputs)
    return re.sub(r"^going on with (?:yours|ours): .+\n", "", text, flags=re.M)


def announced(cell):
    return "raises-exception" in cell.metadata.get("tags", [])


@each_copy
def test_it_runs_to_the_end_with_every_exercise_open(path, tmp_path, monkeypatch):
    """Under the lessons' own settings. What the other cells print is what the lesson stores: none needs an answer."""
    monkeypatch.setenv("KTO_FIGURES", str(tmp_path))
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "no_network"), str(ROOT)]))
    student, lesson = read(path), lesson_of(path)
    run = runner.execute(student, path.parent, path.stem)
    assert run.failure is None
    answers = {name for cell in lesson.cells if grading(cell).get("solution")
               for name in re.findall(r"^(?:def |class )?(\w+)", cell.source, flags=re.M)}  # fmt: skip
    for cell, stored in zip(student.cells, lesson.cells, strict=True):
        if cell.cell_type != "code":
            continue
        errors = [output for output in cell.outputs if output.output_type == "error"]
        assert not errors or announced(cell), cell.source
        if grading(cell).get("grade"):
            assert printed(cell).startswith("not done yet: "), printed(cell)
            assert "Traceback" not in printed(cell)
        elif grading(cell).get("solution"):
            assert cell.outputs == []
        elif "nbval-ignore-output" not in cell.metadata.get("tags", []) and not cites(cell, answers):
            assert printed(cell) == printed(stored), cell.source


def cites(cell, names):
    """Whether a cell speaks of an answer or of a drill's outcome, and so may print something else while it is open."""
    return bool(set(re.findall(r"\w+", cell.source)) & (names | {"drill"}))
