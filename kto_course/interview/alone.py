"""A mock interview alone: questions against the clock, no answers until the end, then the ladders and your rating.

`python course.py interview --mock 45` runs it in the terminal.
"""

import contextlib

from kto_course.interview.cards import RUNGS, asked
from kto_course.interview.clock import Clock, face, present
from kto_course.interview.for_two import questions_for
from kto_course.interview.session import Session, histories
from kto_course.interview.terminal import ask, ask_rating
from kto_course.questions import Question

MINUTES_A_QUESTION = 5
STAGES = (  # what is wanted, in how many seconds
    ("The short answer, aloud", 30),
    ("They nod. Go on: the reason, an example, where it fails", 180),
    ("They ask", 60),
)


def difficulties(minutes: float) -> list[int]:
    """Those of the questions that fit: an easy one first, a hard one last."""
    count = max(1, int(minutes // MINUTES_A_QUESTION))
    return [1, *[2] * (count - 2), *[3] * (count > 1)]


def _face(seconds: int) -> str:
    return f"{seconds // 60}:{seconds % 60:02d}"


def _interview(questions: list[Question], minutes: float, clock: Clock) -> dict[str, list[int]]:
    """Asks until the time is over or q is typed; returns question id -> the seconds that each stage took."""
    began, taken = clock(), {}

    def used() -> float:
        return (clock() - began).total_seconds()

    with contextlib.suppress(EOFError, KeyboardInterrupt):
        for number, question in enumerate(questions, start=1):
            for name, wanted in STAGES:
                then = used()
                if then >= minutes * 60:
                    raise EOFError
                if question.id not in taken:
                    taken[question.id] = []
                    place = f"**Question {number} of {len(questions)}** · {face(then, minutes)}"
                    print(f"\n{place}\n\n{asked(question)}\n")
                if name == "They ask":
                    name = f"They ask: {' '.join(question.follow_ups[0].question.split())}"
                ask(f"{name} ({_face(wanted)}) [Enter: said it, q: end]")
                seconds = int(used() - then)
                taken[question.id].append(seconds)
                print(f"{_face(seconds)} of {_face(wanted)}{', too long' if seconds > wanted else ''}")
    print(f"\nThe interview is over: {face(used(), minutes)}.")
    return taken


def _review(session: Session) -> None:
    """The ladder of each question that was asked, and its rating."""
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while (question := session.current) is not None:
            print(f"\n{asked(question)}\n")
            for _ in RUNGS:
                print(f"{session.answer()}\n")
            print(session.rate(ask_rating()))


def _times(session: Session, taken: dict[str, list[int]]) -> str:
    wanted = " | ".join(f"{_face(seconds)} wanted" for _, seconds in STAGES)
    lines = [f"| question | {wanted} |", "|---" * (1 + len(STAGES)) + "|"]
    for question in session.questions:
        cells = [_face(seconds) for seconds in taken[question.id]] + ["-"] * (len(STAGES) - len(taken[question.id]))
        lines.append(f"| {question.id.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def alone(minutes: float, seed: int | None = None, *, remember: bool = True, clock: Clock = present) -> Session:
    """Runs a mock interview in the terminal and returns the session that holds the ratings.

    Args:
        minutes: of the interview; looking at the answers afterwards takes as long as you like.
        seed: draws the questions; None takes today's date, so every day brings another interview.
        remember: False neither reads nor writes your progress file.

    Raises:
        ValueError: minutes that are not positive.
    """
    if not minutes > 0:
        raise ValueError(f"minutes is {minutes!r}; it must be positive")
    seed = clock().date().toordinal() if seed is None else seed
    questions = questions_for(difficulties(minutes), seed)
    number = f"{len(questions)} question{'s' if len(questions) > 1 else ''}"
    print(f"Mock interview: {number} in {minutes:g} minutes, seed {seed}. Speak aloud.")
    print("No answer is shown before the end. Not knowing takes three sentences (lesson 13, section 3).")
    taken = _interview(questions, minutes, clock)
    met = [question for question in questions if question.id in taken]
    session = Session(met, minutes, histories() if remember else {}, remember, clock)
    print("\nNow the answers. Rate your own, strictly.")
    _review(session)
    print(f"\n{_times(session, taken)}\n\n{session.summary()}")
    return session
