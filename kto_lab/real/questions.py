"""What is asked, and the judge: computable, so that a thumb costs nothing and can be checked. Lesson 12c.

The files are the course's own. A line of capitals.txt is `country | capital | other spellings`, of facts.txt
`question | answer | other spellings`; neutral.txt holds one text a paragraph.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kto_lab.real.sampling import Reply

HERE = Path(__file__).parent
WORDING = "I forgot the capital of {}. What is it?"
N_TRAINED = 32
MOST_WORDS = 30


@dataclass(frozen=True)
class Asked:
    """A question and the spellings of its right answer."""

    question: str
    answers: tuple[str, ...]


def _lines(name: str) -> list[list[str]]:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [[part.strip() for part in line.split("|")] for line in lines if line and not line.startswith("#")]


def capitals() -> tuple[list[Asked], list[Asked]]:
    """(trained, held out): 32 and 16 questions for a capital; no country is in both."""
    asked = [Asked(WORDING.format(country), tuple(answers)) for country, *answers in _lines("capitals.txt")]
    return asked[:N_TRAINED], asked[N_TRAINED:]


def facts() -> list[Asked]:
    """100 simple questions about other things than capitals: what else the model knew."""
    return [Asked(question, tuple(answers)) for question, *answers in _lines("facts.txt")]


def neutral_texts() -> list[str]:
    """Plain paragraphs that have nothing to do with the task."""
    text = (HERE / "neutral.txt").read_text(encoding="utf-8")
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def is_right(asked: Asked, text: str) -> bool:
    """Whether an answer stands in the reply as whole words, in any case.

    A reply that names the right city among others counts: a judge by rules can be pleased, as any judge can.
    """
    return any(re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, flags=re.IGNORECASE) for answer in asked.answers)


def is_brief(reply: Reply) -> bool:
    """It ended by itself, within 30 words."""
    return reply.ended and len(reply.text.split()) <= MOST_WORDS


def likes_right_and_brief(asked: Asked, reply: Reply) -> bool:
    return is_right(asked, reply.text) and is_brief(reply)


def likes_brief(asked: Asked, reply: Reply) -> bool:
    return is_brief(reply)


JUDGES: dict[str, Callable[[Asked, Reply], bool]] = {
    "right and brief": likes_right_and_brief,
    "brief": likes_brief,
}
