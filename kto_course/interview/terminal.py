"""Interviews in the terminal: python -m kto_course.interview --minutes 20 --topics loss, or --mock 45."""

import argparse
from collections.abc import Sequence

from kto_course.interview.bank import topics
from kto_course.interview.cards import RUNGS
from kto_course.interview.session import RATINGS, Session, start


def ask(prompt: str) -> str:
    """What was typed, in small letters.

    Raises:
        EOFError: it was q, or there is nothing left to read.
    """
    text = input(f"{prompt} ").strip().lower()
    if text == "q":
        raise EOFError
    return text


def ask_rating() -> int:
    """How the learner rates the own answer; asks until it is one of the ratings."""
    while (text := ask("Your answer was [0 to 3, q: end]")) not in map(str, range(len(RATINGS))):
        print(", ".join(f"{i}: {name}" for i, name in enumerate(RATINGS)))
    return int(text)


def ask_in_text(session: Session) -> None:
    """Asks with input and print. An empty line goes on, q ends."""
    try:
        while session.current is not None:
            print(f"\n{session.question()}\n")
            for name in RUNGS:
                ask(f"[Enter: {name.lower()}, q: end]")
                print(f"\n{session.answer()}\n")
            print(session.rate(ask_rating()), f"{session.time_used()}.")
    except (EOFError, KeyboardInterrupt):
        print("\nEnded.")
    print(f"\n{session.summary()}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python course.py interview", description="Practise in the terminal.")
    parser.add_argument("--minutes", type=float, default=20, help="how long you want to practise; 20 if not given")
    parser.add_argument("--topics", nargs="+", help=f"some of {', '.join(topics())}")
    parser.add_argument("--mock", type=float, metavar="MINUTES", help="a mock interview alone, against the clock")
    parser.add_argument("--seed", type=int, help="of the mock interview: the same seed asks the same questions")
    options = parser.parse_args(arguments)
    if options.mock is not None and options.topics:
        parser.error("a mock interview asks about everything; leave --topics out")
    if options.mock is None and options.seed is not None:
        parser.error("--seed draws a mock interview; a sitting asks what you need most")
    try:
        if options.mock is None:
            start(options.minutes, options.topics, widgets=False)
        else:
            from kto_course.interview.alone import alone

            alone(options.mock, options.seed)
    except ValueError as error:
        parser.error(str(error))
