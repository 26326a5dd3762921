"""How an exercise is defined: a checker function with the decorator `exercise`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kto_course.checks.faults import GENERIC_HINTS


@dataclass(frozen=True)
class Exercise:
    """One exercise; made by the decorator `exercise`.

    Fields:
        id: a Python name, unique in the course.
        title: as in the lesson's heading.
        lesson: number of the lesson.
        minutes: expected time.
        difficulty: 1 to 3, the stars of the heading.
        kind: as in the heading, e.g. "fill in a function".
        points: for graders, as in the check cell's metadata.
        hints: fault id -> 2 or 3 hints, the first a nudge, the last nearly the answer.
        checker: function of the answer.
        ours: where the package has the same, e.g. "kto_utils.losses.kto_loss"; the lesson goes on with it where the
            learner's own did not pass.
    """

    id: str
    title: str
    lesson: int
    minutes: int
    difficulty: int
    kind: str
    points: int
    hints: Mapping[str, Sequence[str]]
    checker: Callable[[Any], str | None]
    ours: str | None = None

    def __post_init__(self):
        if not self.id.isidentifier() or self.difficulty not in (1, 2, 3) or self.points < 1:
            raise ValueError(f"exercise {self.id!r}: needs a Python name, difficulty 1 to 3 and at least one point")
        for fault, texts in self.hints.items():
            if isinstance(texts, str) or len(texts) not in (2, 3):
                raise ValueError(f"exercise {self.id!r}, fault {fault!r}: expected a tuple of 2 or 3 hints")

    def hint(self, fault: str, time_seen: int) -> str:
        """The hint for the time_seen-th time (from 1) that this fault came up."""
        texts = self.hints.get(fault) or GENERIC_HINTS[fault]
        return texts[min(time_seen, len(texts)) - 1]


def exercise(
    id: str, title: str, *, minutes: int, difficulty: int, kind: str, points: int, hints: Mapping,
    ours: str | None = None,
):
    """Decorator: makes an Exercise of a checker in kto_course/checks/lesson_NN.py, whose number is the lesson's.

    The id must be a literal and the first argument: `check` finds it in the file without importing it.
    """

    def make(checker: Callable) -> Exercise:
        lesson = int(checker.__module__.rsplit("_", 1)[1])
        return Exercise(id, title, lesson, minutes, difficulty, kind, points, hints, checker, ours)

    return make
