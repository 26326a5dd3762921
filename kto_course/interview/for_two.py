"""A mock interview for two people: the timetable, and the page that only the interviewer sees."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from kto_course.interview.bank import bank
from kto_course.interview.cards import RUNGS, Card, asked, rung_text
from kto_course.interview.tasks import DRILLS
from kto_course.questions import Question

SLOTS = (  # minutes, what, the difficulty of its question (None: none)
    (3, "Settle in. The interviewer says the rules: think aloud; I do not know is an answer.", None),
    (5, "Question 1, warm-up: the 30-second answer, then one follow-up.", 1),
    (8, "Question 2: the ladder, 30 seconds, then 3 minutes, then both follow-ups.", 2),
    (14, "Blank page: one function, with the check at the end.", None),
    (7, "Question 3: the ladder again. The interviewer states one red flag and asks: is that right?", 2),
    (5, "Question 4, hard: how far the candidate gets matters, not the end.", 3),
    (3, "The candidate asks. Then both fill in the sheet, each alone, and compare.", None),
)


@dataclass(frozen=True)
class Mock:
    """A mock interview for two: `candidate()` is the page for both, `interviewer()` the one with the answers.

    Fields:
        questions: one for each slot that has one.
        drill: id of the blank page.
    """

    questions: tuple[Question, ...]
    drill: str

    def candidate(self) -> Card:
        """The timetable; no question in it."""
        lines, clock = ["| from | to | what |", "|---|---|---|"], 0
        for minutes, what, _ in SLOTS:
            lines.append(f"| {clock} | {clock + minutes} | {what} |")
            clock += minutes
        return Card("\n".join(lines))

    def interviewer(self) -> Card:
        """Timetable, questions with their ladders, the drill and what to listen for."""
        task = DRILLS[self.drill]
        parts = [self.candidate()]
        for number, question in enumerate(self.questions, start=1):
            parts.append(f"### Question {number}\n\n{asked(question)}")
            parts += [rung_text(question, rung) for rung in range(len(RUNGS))]
        points = "\n".join(f"- {point}" for point in task.listens_for)
        parts.append(f"### Blank page\n\nThe candidate starts it with `page = interview.drill(\"{self.drill}\")`, "
                     f"{task.minutes} minutes.\n\n**Listen for**\n\n{points}")  # fmt: skip
        return Card("\n\n".join(parts))


def lot(seed: int, id: str) -> float:
    """A number drawn for this name, the same whatever else is in the bank: new questions do not reshuffle old ones."""
    return random.Random(f"{seed} {id}").random()


def questions_for(difficulties: Sequence[int], seed: int) -> list[Question]:
    """A question for each difficulty, on as many topics as possible.

    They are core questions. Only a hard one, of which the core holds none, is drawn from all but the details.
    """
    drawn = sorted(bank(), key=lambda question: lot(seed, question.id))
    chosen: list[Question] = []
    for difficulty in difficulties:
        met = [question.topic for question in chosen]
        left = [question for question in drawn if question not in chosen and not question.detail]
        allowed = [question for question in left if question.core] if difficulty < 3 else left
        chosen.append(min(allowed or left, key=lambda q: (abs(q.difficulty - difficulty), met.count(q.topic))))
    return chosen


def mock(seed: int = 0) -> Mock:
    """Draws a mock interview of 45 minutes: four questions of rising difficulty, on different topics, and a drill.

    The same seed draws the same for interviewer and candidate; the progress file plays no part.
    """
    difficulties = [difficulty for _, _, difficulty in SLOTS if difficulty is not None]
    return Mock(tuple(questions_for(difficulties, seed)), min(DRILLS, key=lambda id: lot(seed, id)))
