"""Which question comes when: the rule of the interview, without any file or clock of its own.

How questions are drawn. First those you rated 0 or 1 when last asked; then new or due ones from lessons with an
exercise that you failed at your last try; then the due ones, the longest overdue first; then new ones; last of all
those that are not due yet. Equals come in an order that depends on the seed and their names alone.

When a question is due. A rating of 2 moves it one step along INTERVALS, a 3 moves it two, a 0 or 1 back to the
start. A 2 or 3 for a question that was not due yet changes nothing: repeating it ten times in an evening is no proof
that you know it next week.
"""

import datetime
import random
from collections.abc import Collection, Mapping, Sequence

from kto_course.questions import Question

INTERVALS = (1, 3, 7, 16)  # days until a question comes again, after 1, 2, 3, 4 or more steps

History = Sequence[tuple[int, datetime.datetime]]  # (rating, when) of one question


def due(history: History, timezone: datetime.tzinfo | None = None) -> datetime.date | None:
    """The day on which a question comes again.

    Args:
        history: its (rating, when), the oldest first; `when` with a time zone.
        timezone: in which a day begins at midnight; None is that of the entries.

    Returns:
        The date, that of the last rating itself if it went badly; None if the question was never asked.
    """
    step, again = 0, None
    for rating, when in history:
        today = (when.astimezone(timezone) if timezone else when).date()
        if rating < 2:
            step = 0
        elif step == 0 or today >= again:
            step = min(step + rating - 1, len(INTERVALS))
        else:
            continue
        again = today + datetime.timedelta(days=INTERVALS[step - 1] if step else 0)
    return again


def lot(seed: int, id: str) -> float:
    """A number drawn for this name, the same whatever else is in the bank: new questions do not reshuffle old ones."""
    return random.Random(f"{seed} {id}").random()


def draw(
    questions: Sequence[Question],
    count: int,
    histories: Mapping[str, History],
    failed_lessons: Collection[str],
    now: datetime.datetime,
    seed: int,
) -> list[Question]:
    """The `count` questions that this learner needs most, by the rule at the top of the module.

    Args:
        histories: question id -> (rating, when), the oldest first.
        failed_lessons: two digits each; lessons with an exercise that was wrong at the last try.
        now: the present, with a time zone.
        seed: decides the order among equals.
    """
    today = now.date()

    def need(question: Question) -> tuple[int, int]:
        history = histories.get(question.id, ())
        if history and history[-1][0] < 2:
            return 0, history[-1][0]
        late = (today - due(history, now.tzinfo)).days if history else 0
        if late < 0:
            return 4, -late
        if question.lesson in failed_lessons:
            return 1, -late
        return (2, -late) if history else (3, 0)

    return sorted(questions, key=lambda question: (need(question), lot(seed, question.id)))[:count]
