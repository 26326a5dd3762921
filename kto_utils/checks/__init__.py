"""The checks of the exercises: `check.get_probs(my_get_probs)` in a lesson tries an answer and says what it found.

Everything happens in the learner's own kernel. A lesson's checks are imported when one of them is asked for.
"""

import difflib
import importlib
import re
import textwrap
from pathlib import Path

_FOLDER = Path(__file__).parent
_SOURCES = _FOLDER.parents[1] / "notebooks" / "src"


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


def solved_cell(id: str) -> tuple[str, range]:
    """The exercise's cell with our solution in it, without markers, from the lesson's source.

    Returns:
        The text, and the lines of it (from 1) that the markers enclose.

    Raises:
        AttributeError: no such exercise.
        FileNotFoundError: the sources of the lessons are not beside the package.
    """
    exercise = find(id)
    paths = sorted(_SOURCES.glob(f"{exercise.lesson:02d}_*.py"))
    if not paths:
        raise FileNotFoundError("the solutions stand in notebooks/src, which is missing; keep the folder whole")
    for cell in re.split(r"^# %%", paths[0].read_text(encoding="utf-8"), flags=re.M):
        head, _, body = cell.partition("\n")
        if re.search(rf'\bexercise="{id}"', head):
            break
    else:
        raise LookupError(f"{paths[0].name} has no cell with exercise=\"{id}\"")
    lines, kept, inside, block = body.strip("\n").splitlines(), [], False, []
    for line in lines:
        if line.strip() in ("### BEGIN SOLUTION", "### END SOLUTION"):
            inside = line.strip() == "### BEGIN SOLUTION"
            continue
        kept.append(line)
        if inside:
            block.append(len(kept))
    if not block:
        raise LookupError(f"{paths[0].name}: the cell of {id} has no solution between markers")
    return "\n".join(kept) + "\n", range(block[0], block[-1] + 1)


class _Check:
    """`check.ID(answer)` checks an answer and prints what it found; `check.solution("ID")` shows ours."""

    def solution(self, id: str) -> None:
        """Prints our solution of an exercise."""
        print(textwrap.dedent(solved_cell(id)[0]), end="")

    def __getattr__(self, id: str):
        if id.startswith("_"):
            raise AttributeError(id)
        exercise = find(id)

        def checker(answer) -> None:
            from kto_utils.checks import engine

            engine.run(exercise, answer)

        checker.__name__ = id
        checker.__doc__ = f"Exercise of lesson {exercise.lesson:02d}: {exercise.title}."
        return checker

    def __dir__(self):
        return ["solution", *(id for ids in ids_by_lesson().values() for id in ids)]

    def __repr__(self):
        return "check: " + ", ".join(dir(self)[1:])


check = _Check()
