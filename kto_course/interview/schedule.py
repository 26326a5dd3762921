"""Which question comes when: the rule of the interview, without any file or clock of its own.

How questions are drawn. First those you rated 0 or 1 when last asked; then core questions that you were never asked;
then new or due ones from lessons with an exercise that you failed at your last try; then the due ones, the longest
overdue first; then new ones; last of all those that are not due yet. Equals come in the order of the bank, which is
that of importance: a new learner hears the core questions first, details last.

While core questions are unasked, repeating takes at most a third of a sitting: whoever gets everything wrong would
otherwise hear the same six questions all week.

When a question is due. A rating of 2 moves it one step along INTERVALS, a 3 moves it two, a 0 or 1 back to the
start. A 2 or 3 for a question that was not due yet changes nothing: repeating it ten times in an evening is no proof
that you know it next week.
"""

import datetime
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


def draw(
    questions: Sequence[Question],
    count: int,
    histories: Mapping[str, History],
    failed_lessons: Collection[str],
    now: datetime.datetime,
) -> list[Question]:
    """The `count` questions that this learner needs most, by the rule at the top of the module.

    Args:
        questions: in the order of importance.
        histories: question id -> (rating, when), the oldest first.
        failed_lessons: two digits each; lessons with an exercise that was wrong at the last try.
        now: the present, with a time zone.
    """
    today = now.date()

    def need(question: Question) -> tuple[int, int]:
        history = histories.get(question.id, ())
        if history and history[-1][0] < 2:
            return 0, history[-1][0]
        if not history and question.core:
            return 1, 0
        late = (today - due(history, now.tzinfo)).days if history else 0
        if late < 0:
            return 5, -late
        if question.lesson in failed_lessons:
            return 2, -late
        return (3, -late) if history else (4, 0)

    needed = sorted(questions, key=need)
    again = [question for question in needed if need(question)[0] == 0]
    unasked = [question for question in needed if need(question)[0] == 1]
    room = max(count // 3, count - len(unasked))
    put_off = again[room:]
    return ([question for question in needed if question not in put_off] + put_off)[:count]
