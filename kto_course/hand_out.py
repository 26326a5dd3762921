"""`python course.py hand-out lab_90`: an assignment in whose folder no answer stands. For teachers; see teaching.md.

The folder holds the notebook with its tasks open, and of `kto_utils` only the modules that the notebook needs. A module
in which an answer stands is held back: its functions keep their names, so that others can import them, and nothing
else. Checks are silent there, as a checker that knows the answer can be read; `python course.py grade` runs the real
ones afterwards.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat

from kto_course import NOTEBOOKS, ROOT, checks

PACKAGE = "kto_utils"
ASSIGNMENT = "assignment"  # what nbgrader calls it
GIVEN = "given"  # the tag of cells that are handed out as their output: they need what is held back
HELD_BACK = '''"""Held back in this hand-out: you write it yourself."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def held_back(*arguments, **named):
        raise NotImplementedError(f"{name} is held back in this hand-out; use the function that you wrote")

    return held_back
'''
SILENT_CHECKS = '''"""Takes the answers of a hand-out. They are checked after it was handed in."""

import __main__


class _Check:
    def yours_or_ours(self, id):
        """What the notebook goes on with: your own function."""
        name = f"my_{id}"
        if not hasattr(__main__, name):
            raise NameError(f"{name} is not there yet; run the cell in which you write it")
        return getattr(__main__, name)

    def __getattr__(self, id):
        if id.startswith("_"):
            raise AttributeError(id)
        return lambda answer: print("noted; the points come after you have handed in")


check = _Check()
'''
REQUIREMENTS = "requirements-light.txt"
PAGE = """# {name}

With 64-bit Python 3.11 to 3.13, in this folder:

    python -m venv .venv
    .venv/bin/python -m pip install -r {requirements}        (Windows: .venv\\Scripts\\python)
    .venv/bin/python -m jupyter lab {name}.ipynb

A machine on which the course or another class has set up these packages needs only the last line, with its Python.
Write into the cells that say "your code here". Leave the names of files, cells and checks. Hand in
{name}.ipynb.
"""


def notebook_of(name: str) -> Path:
    """The solved notebook of a lesson or the lab, by number or name.

    Raises:
        ValueError: there is none.
    """
    paths = [*sorted(NOTEBOOKS.glob("*.ipynb")), *sorted(NOTEBOOKS.glob("deeper/*.ipynb"))]
    found = [path for path in paths if name in (path.stem, path.stem.split("_")[0])]
    if not found:
        raise ValueError(f"there is no notebook {name!r}; there are {', '.join(path.stem for path in paths)}")
    return found[0]


def grading(cell) -> dict:
    return cell.metadata.get("nbgrader", {})


def exercises_of(notebook) -> list[str]:
    """The ids of the exercises, in order."""
    return [grading(cell)["grade_id"] for cell in notebook.cells if grading(cell).get("solution")]


def imports_of(code: str) -> set[str]:
    """The modules of kto_utils that a program names in its imports: {"kto_utils.losses", ...}."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if re.match(rf"{PACKAGE}\.\w+$", name) and module_file(name).is_file()}


def module_file(name: str) -> Path:
    return ROOT.joinpath(*name.split(".")).with_suffix(".py")


def held_back(ids: Sequence[str]) -> set[str]:
    """The modules in which the course's answers to these exercises stand."""
    return {checks.find(id).ours.rpartition(".")[0] for id in ids if checks.find(id).ours}


def needed(code: str, without: set[str]) -> set[str]:
    """The modules that a program imports, and those that these import; those held back need no others."""
    open_ones, found = imports_of(code), set()
    while open_ones - found:
        name = (open_ones - found).pop()
        found.add(name)
        if name not in without:
            open_ones |= imports_of(module_file(name).read_text(encoding="utf-8"))
    return found


def as_given(cell):
    """A cell as its output, for those who lack what it needs."""
    text = "".join(output.get("text", "") for output in cell.outputs)
    return nbformat.v4.new_markdown_cell(f"```\n{text.rstrip()}\n```", id=cell.id)


def nbgrader(course: Path, *command: str) -> subprocess.CompletedProcess:
    """Runs an nbgrader command on the assignment of a course folder, with the course's own packages."""
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1",
        "KTO_PROGRESS": str(course / "progress.json"), "KTO_FIGURES": str(course / "figures"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),  # it starts alembic by name
    }  # fmt: skip
    call = [sys.executable, "-m", "nbgrader", *command, ASSIGNMENT, f"--course-dir={course}"]
    return subprocess.run(call, cwd=course, env=env, capture_output=True, text=True, errors="replace")


def release(source: Path, course: Path) -> nbformat.NotebookNode:
    """Makes nbgrader's assignment in a course folder; returns the notebook with its tasks open and its checks locked.

    Raises:
        RuntimeError: nbgrader made none; holds what it said.
    """
    notebook = nbformat.read(source, as_version=4)
    notebook.cells = [as_given(c) if GIVEN in c.metadata.get("tags", []) else c for c in notebook.cells]
    (course / "source" / ASSIGNMENT).mkdir(parents=True)
    nbformat.write(notebook, course / "source" / ASSIGNMENT / source.name)
    done = nbgrader(course, "generate_assignment")
    made = course / "release" / ASSIGNMENT / source.name
    if done.returncode or not made.is_file():
        raise RuntimeError(f"nbgrader: {done.stderr.strip()[-600:]}")
    return nbformat.read(made, as_version=4)


def hand_out(name: str, target: Path) -> list[str]:
    """Writes the folder that students get; returns the modules that it holds back.

    Raises:
        ValueError: no such notebook or no exercises in it; a cell of the notebook itself needs what must be held back.
        FileExistsError: the folder is there.
    """
    source = notebook_of(name)
    solved = nbformat.read(source, as_version=4)
    ids = exercises_of(solved)
    if not ids:
        raise ValueError(f"{source.stem} has no exercises to hand out")
    code = "\n".join(
        c.source for c in solved.cells if c.cell_type == "code" and GIVEN not in c.metadata.get("tags", [])
    )
    kept_back = held_back(ids)
    own = imports_of(code) & kept_back
    others = sorted(set(re.findall(r"^from (kto_(?:lab|course)\S*) import (?!check$)", code, flags=re.M)))
    if own or others:
        raise ValueError(
            f"{source.stem} itself imports {', '.join([*sorted(own), *others])}, where answers stand. Hand out lab_90; "
            f"of this notebook collect the copies from work/ as they are, and `python course.py grade {name} FOLDER`"
        )
    with tempfile.TemporaryDirectory() as course:
        notebook = release(source, Path(course).resolve())
    target.mkdir(parents=True)
    for module in {PACKAGE + ".__init__"} | needed(code, kept_back):
        text = HELD_BACK if module in kept_back else module_file(module).read_text(encoding="utf-8")
        place = target.joinpath(*module.split(".")).with_suffix(".py")
        place.parent.mkdir(exist_ok=True)
        place.write_text(text, encoding="utf-8")
    shutil.copytree(
        ROOT / PACKAGE / "assets", target / PACKAGE / "assets", ignore=shutil.ignore_patterns("__pycache__")
    )
    (target / "kto_course").mkdir()
    (target / "kto_course" / "__init__.py").write_text('"""What the notebook asks for."""\n', encoding="utf-8")
    (target / "kto_course" / "checks.py").write_text(SILENT_CHECKS, encoding="utf-8")
    shutil.copy(ROOT / REQUIREMENTS, target)
    page = PAGE.format(name=source.stem, requirements=REQUIREMENTS)
    (target / "README.md").write_text(page, encoding="utf-8")
    nbformat.write(notebook, target / source.name)
    return sorted(kept_back)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python course.py hand-out", description=__doc__.split("\n\n")[0])
    parser.add_argument("notebook", help="number or name: lab_90")
    parser.add_argument("--to", type=Path, help="the folder to write; default the notebook's name, here")
    options = parser.parse_args(arguments)
    target = options.to or Path(options.notebook)
    try:
        kept_back = hand_out(options.notebook, target)
    except (OSError, RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    name = notebook_of(options.notebook).stem
    print(f"{target} is ready to be zipped; held back: {', '.join(kept_back) or 'nothing'}. Collect the notebooks into")
    print(f"one folder as STUDENT/{name}.ipynb, then: python course.py grade {name} FOLDER")
    return 0


if __name__ == "__main__":
    sys.exit(main())
