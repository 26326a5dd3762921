"""One sitting: the questions that you need most, one after the other, each with its ladder and your rating."""

import contextlib
from collections.abc import Mapping, Sequence

from kto_course import learner
from kto_course.interview.bank import on_topics
from kto_course.interview.cards import RUNGS, Card, asked, in_days, rung_text
from kto_course.interview.clock import Clock, face, present
from kto_course.interview.schedule import History, draw, due
from kto_course.questions import Question

MINUTES_A_QUESTION = 3  # to think, to say it aloud and to read the answer
RATINGS = ("no idea", "with gaps", "could say it", "could teach it")


def histories() -> dict[str, History]:
    """Ratings from the progress file, in the order of time, without those that are none of ours."""
    found = {id: sorted(h, key=lambda entry: entry[1]) for id, h in learner.ratings().items()}
    return {id: [entry for entry in h if entry[0] in range(len(RATINGS))] for id, h in found.items()}


def _failed_lessons() -> set[str]:
    return {f"{entry['lesson']:02d}" for entry in learner.exercises().values() if entry["last_fault"]}


class Session:
    """One sitting: questions one after the other, each with its ladder of answers and your rating.

    `question()`, `answer()` once for each rung, `rate(0 to 3)`, then the next `question()`; `summary()` at any time.
    As the last line of a cell in JupyterLab a session shows itself with buttons.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        minutes: float,
        histories: Mapping[str, History],
        remember: bool,
        clock: Clock,
    ):
        self.questions, self.minutes = tuple(questions), minutes
        self.ratings: dict[str, int] = {}  # question id -> rating, of this sitting
        self._histories, self._remember, self._clock = dict(histories), remember, clock
        self.rungs = 0  # of the present question's ladder, shown so far
        self._began = clock()

    @property
    def current(self) -> Question | None:
        """The question that is being asked; None after the last one."""
        at = len(self.ratings)
        return self.questions[at] if at < len(self.questions) else None

    def question(self) -> Card:
        """The present question; after the last one, the summary."""
        question = self.current
        if question is None:
            return self.summary()
        stars = "★" * question.difficulty + "☆" * (3 - question.difficulty)
        place = f"Question {len(self.ratings) + 1} of {len(self.questions)}"
        return Card(f"**{place}** · {question.topic.replace('_', ' ')} · {stars}\n\n{asked(question)}")

    def answer(self) -> Card:
        """The next rung of the answer ladder: 30 seconds, 3 minutes, what they ask next, red flags; then all again."""
        if self.current is None:
            return self.summary()
        if self.rungs == len(RUNGS):
            return Card("\n\n".join(rung_text(self.current, rung) for rung in range(len(RUNGS))))
        self.rungs += 1
        return Card(rung_text(self.current, self.rungs - 1))

    def rate(self, rating: int) -> Card:
        """Notes how your own answer was and goes on: 0 no idea, 1 with gaps, 2 could say it, 3 could teach it.

        Raises:
            ValueError: another rating, an answer that was not looked at yet, or no question left.
        """
        if isinstance(rating, bool) or rating not in range(len(RATINGS)):
            names = ", ".join(f"{i} ({name})" for i, name in enumerate(RATINGS))
            raise ValueError(f"rating is {rating!r}; it must be one of {names}")
        if self.current is None:
            raise ValueError("all questions of this session are rated; begin another one with interview.start()")
        if self.rungs == 0:
            raise ValueError("look at the answer before you rate your own: session.answer()")
        id, when = self.current.id, self._clock()
        self._histories[id] = [*self._histories.get(id, ()), (int(rating), when)]
        if self._remember:
            learner.record_rating(id, int(rating), when)
        self.ratings[id] = int(rating)
        self.rungs = 0
        left = len(self.questions) - len(self.ratings)
        follows = f"{left} to go." if left else "That was the last one."
        return Card(f"Noted: {rating}, {RATINGS[rating]}. It comes again {self._again(id)}. {follows}")

    def _again(self, id: str) -> str:
        now = self._clock()
        return in_days(max(0, (due(self._histories[id], now.tzinfo) - now.date()).days))

    def summary(self) -> Card:
        """What was rated so far, when it comes again, and what to read before."""
        if not self.ratings:
            return Card("Nothing is rated yet: session.question(), session.answer(), session.rate(2).")
        asked = self.questions[: len(self.ratings)]
        lines = ["| question | your rating | comes again |", "|---|---|---|"]
        for question in asked:
            rating = self.ratings[question.id]
            name, again = question.id.replace("_", " "), self._again(question.id)
            lines.append(f"| {name} | {rating}, {RATINGS[rating]} | {again} |")
        reread = dict.fromkeys(f"lesson {q.lesson}, *{q.section}*" for q in asked if self.ratings[q.id] < 2)
        if reread:
            lines += ["", "Read again: " + "; ".join(reread) + "."]
        return Card("\n".join(lines))

    def time_used(self) -> str:
        """Minutes and seconds since the session began, and what was planned."""
        return face((self._clock() - self._began).total_seconds(), self.minutes)

    def __repr__(self) -> str:
        size = f"{len(self.questions)} questions in {self.minutes:g} minutes"
        return f"Interview: {size}. JupyterLab shows buttons here; .question(), .answer() and .rate(2) do the same."

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        from kto_course.interview.buttons import panel

        with contextlib.suppress(ImportError):
            return dict(panel(self)._repr_mimebundle_()) | {"text/plain": repr(self)}
        return {"text/plain": repr(self)}


def start(
    minutes: float = 20,
    topics: str | Sequence[str] | None = None,
    *,
    widgets: bool = True,
    remember: bool = True,
    clock: Clock = present,
) -> Session:
    """A session with the questions that you need most; about MINUTES_A_QUESTION minutes for each.

    Args:
        minutes: how long you want to practise; at least one question is drawn.
        topics: a topic, several, or None for all; `interview.topics()` lists them.
        widgets: True returns at once, and the session shows buttons in JupyterLab; False asks with `input` first,
            for a terminal.
        remember: False neither reads nor writes your progress file: as for a new learner.
        clock: gives the present with its time zone.

    Raises:
        ValueError: minutes that are not positive, a topic that the bank does not have.
    """
    if not minutes > 0:
        raise ValueError(f"minutes is {minutes!r}; it must be positive")
    past = histories() if remember else {}
    failed = _failed_lessons() if remember else set()
    count = max(1, int(minutes // MINUTES_A_QUESTION))
    questions = draw(on_topics(topics), count, past, failed, clock())
    session = Session(questions, minutes, past, remember, clock)
    if not widgets:
        from kto_course.interview.terminal import ask_in_text

        ask_in_text(session)
    return session
