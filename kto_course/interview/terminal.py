"""A sitting in the terminal: python -m kto_course.interview --minutes 20 --topics loss reference_point"""

import argparse
from collections.abc import Sequence

from kto_course.interview.bank import topics
from kto_course.interview.cards import RUNGS
from kto_course.interview.session import RATINGS, Session, start


def ask_in_text(session: Session) -> None:
    """Asks with input and print. An empty line goes on, q ends."""

    def ask(prompt: str) -> str:
        text = input(f"{prompt} ").strip().lower()
        if text == "q":
            raise EOFError
        return text

    try:
        while session.current is not None:
            print(f"\n{session.question()}\n")
            for name in RUNGS:
                ask(f"[Enter: {name.lower()}, q: end]")
                print(f"\n{session.answer()}\n")
            while (text := ask("Your answer was [0 to 3, q: end]")) not in map(str, range(len(RATINGS))):
                print(", ".join(f"{i}: {name}" for i, name in enumerate(RATINGS)))
            print(session.rate(int(text)), f"{session.time_used()}.")
    except (EOFError, KeyboardInterrupt):
        print("\nEnded.")
    print(f"\n{session.summary()}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m kto_course.interview", description="Practise in the terminal.")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--topics", nargs="+", help=f"some of {', '.join(topics())}")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        start(options.minutes, options.topics, options.seed, widgets=False)
    except ValueError as error:
        parser.error(str(error))
