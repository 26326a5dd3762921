"""Which questions of the bank a sitting may draw: all, or those on some topics."""

import functools
from collections.abc import Sequence

from kto_course.questions import Question, load_questions


@functools.cache
def bank() -> tuple[Question, ...]:
    """The question bank, read once."""
    return tuple(load_questions())


def topics() -> list[str]:
    """The topics of the question bank."""
    return sorted({question.topic for question in bank()})


def on_topics(wanted: str | Sequence[str] | None) -> Sequence[Question]:
    """The questions on a topic, on several, or (None) all.

    Raises:
        ValueError: a topic that the bank does not have, or none at all.
    """
    questions = bank()
    if wanted is None:
        return questions
    wanted = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    unknown = [topic for topic in wanted if topic not in topics()]
    if unknown or not wanted:
        found = ", ".join(map(repr, unknown)) or "no topic at all"
        raise ValueError(f"topics: found {found}; there are {', '.join(topics())}. None takes all of them")
    return [question for question in questions if question.topic in wanted]
