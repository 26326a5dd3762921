"""The checks of the exercises: `check.get_probs(my_get_probs)` in a lesson tries an answer and says what it found.

Everything happens in the learner's own kernel. A lesson's checks are imported when one of them is asked for.
"""

import difflib
import importlib
import re
import textwrap
from pathlib import Path

from kto_course import NOTEBOOKS

_FOLDER = Path(__file__).parent
_SOURCES = NOTEBOOKS / "src"


def ids_by_lesson() -> dict[int, list[str]]:
    """The exercises of every lesson, in order, read from the files without importing them."""
    found = {}
    for path in sorted(_FOLDER.glob("lesson_[0-9][0-9].py")):
        text = path.read_text(encoding="utf-8")
        found[int(path.stem[-2:])] = re.findall(r'^@exercise\(\s*"(\w+)"', text, flags=re.M)
    return found


def find(id: str):
    """The Exercise of this id.

    Raises:
        AttributeError: there is none; names that look alike are offered.
    """
    lessons = ids_by_lesson()
    for lesson, ids in lessons.items():
        if id in ids:
            module = importlib.import_module(f"{__name__}.lesson_{lesson:02d}")
            return next(e for e in vars(module).values() if getattr(e, "id", None) == id)
    every = [name for ids in lessons.values() for name in ids]
    near = difflib.get_close_matches(id, every, n=3, cutoff=0.5)
    offer = f"did you mean {', '.join(near)}?" if near else "dir(check) lists all of them"
    raise AttributeError(f"there is no exercise {id!r}; {offer}")


def sources(lesson: int) -> list[Path]:
    """The sources that hold a lesson's exercises: its own, then that of its deeper notebook if there is one."""
    return [path for kind in ("", "b") for path in sorted(_SOURCES.glob(f"{lesson:02d}{kind}_*.py"))]


def exercise_cell(id: str) -> str:
    """The exercise's cell with our solution between its markers, from the source of its lesson.

    Raises:
        LookupError: no lesson has such an exercise.
        FileNotFoundError: the sources of the lessons are not beside the package.
    """
    paths = [path for lesson, ids in ids_by_lesson().items() if id in ids for path in sources(lesson)]
    if not paths and not any(_SOURCES.glob("*.py")):
        raise FileNotFoundError("the solutions stand in notebooks/src, which is missing; keep the folder whole")
    cells = (cell for path in paths for cell in re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.M))
    for cell in cells:
        head, _, body = cell.partition("\n")
        if re.search(rf'\bexercise="{id}"', head):
            return body.strip("\n")
    raise LookupError(f"none of {[path.name for path in paths]} has a cell with exercise=\"{id}\"")


def home_of(lesson: int, section: str) -> str:
    """The notebook of a lesson that has this section (a `## ` heading, its number left out): "06" or "06b".

    Raises:
        LookupError: neither has it.
    """
    wanted = re.sub(r"^\d+\. ", "", section)
    for path in sources(lesson):
        headings = re.findall(r"^# ## (?:\d+\. )?(.+)$", path.read_text(encoding="utf-8"), flags=re.M)
        if wanted in headings:
            return path.stem.split("_")[0]
    raise LookupError(f"neither lesson {lesson:02d} nor its deeper notebook has a section “{section}”")


def solved_cell(id: str) -> tuple[str, range]:
    """The exercise's cell with our solution in it, without markers.

    Returns:
        The text, and the lines of it (from 1) that the markers enclose.

    Raises:
        AttributeError: no such exercise.
        FileNotFoundError: the sources of the lessons are not beside the package.
    """
    exercise = find(id)
    lines, kept, inside, block = exercise_cell(id).splitlines(), [], False, []
    for line in lines:
        if line.strip() in ("### BEGIN SOLUTION", "### END SOLUTION"):
            inside = line.strip() == "### BEGIN SOLUTION"
            continue
        kept.append(line)
        if inside:
            block.append(len(kept))
    if not block:
        raise LookupError(f"lesson {exercise.lesson:02d}: the cell of {id} has no solution between markers")
    return "\n".join(kept) + "\n", range(block[0], block[-1] + 1)


# Names that a cell would have defined if Python could have read it: what they hold is older than what stands there.
unread: dict[str, str] = {}
_DEFINED = re.compile(r"^(?:def|class) +(\w+)|^(\w+) *=(?!=)", flags=re.M)


def note_cell(result) -> None:
    """After every cell: remembers the names in it after a SyntaxError, forgets them once the cell runs."""
    names = {a or b for a, b in _DEFINED.findall(result.info.raw_cell or "")}
    for name in names:
        unread.pop(name, None)
    if isinstance(result.error_before_exec, SyntaxError):
        error = result.error_before_exec
        unread.update(dict.fromkeys(names, f"{error.msg}, line {error.lineno}"))


def watch_cells() -> None:
    """Inside a notebook, has `note_cell` called after every cell."""
    from IPython import get_ipython

    if (shell := get_ipython()) is not None:
        shell.events.register("post_run_cell", note_cell)


class _Check:
    """`check.ID(answer)` checks an answer and prints what it found; `check.solution("ID")` shows ours."""

    def solution(self, id: str) -> None:
        """Prints our solution of an exercise."""
        print(textwrap.dedent(solved_cell(id)[0]), end="")

    def yours_or_ours(self, id: str):
        """What the lesson goes on with after an exercise: your answer if its check passed, else ours.

        Raises:
            ValueError: the package has no function for this exercise.
        """
        from kto_course.checks import engine

        return engine.yours_or_ours(find(id))

    def __getattr__(self, id: str):
        if id.startswith("_"):
            raise AttributeError(id)
        exercise = find(id)

        def checker(answer) -> None:
            from kto_course.checks import engine

            engine.run(exercise, answer)

        checker.__name__ = id
        checker.__doc__ = f"Exercise of lesson {exercise.lesson:02d}: {exercise.title}."
        return checker

    def __dir__(self):
        return ["solution", "yours_or_ours", *(id for ids in ids_by_lesson().values() for id in ids)]

    def __repr__(self):
        return "check: " + ", ".join(dir(self)[2:])


check = _Check()
watch_cells()
