"""The exercise of lesson 00: start here."""

import math

from kto_course.checks.engine import call, compare, exercise


def rate_faults(probabilities, liked):
    """What the known faults of `thumbs_up_rate` give for these replies."""
    chosen = [p for p, good in zip(probabilities, liked, strict=True) if good]
    right, total = sum(chosen), sum(probabilities)
    return [
        ("counted", len(chosen) / len(liked)),
        ("counted", len(chosen)),
        ("averaged", right / max(len(chosen), 1)),
        ("averaged", right / len(liked)),
        ("divided_by_listed", right / total),
        ("turned_round", total - right),
        ("turned_round", 1 - right),
        ("everything", total),
        ("everything", 1.0),
        ("first_only", chosen[0] if chosen else 0.0),
        ("first_only", probabilities[0] if liked[0] else 0.0),
        ("last_only", chosen[-1] if chosen else 0.0),
        ("multiplied", math.prod(chosen)),
        ("multiplied", 0.0),
        ("largest", max(chosen, default=0.0)),
        ("in_per_cent", 100 * right),
        ("kept_apart", chosen),
    ]


@exercise(
    "thumbs_up_rate",
    "Add up what is liked",
    minutes=4,
    difficulty=1,
    kind="fill in a function",
    points=2,
    hints={
        "counted": (
            "You count replies. Does the model give all of them equally often?",
            "Add up the probabilities of the liked replies, not their number.",
        ),
        "averaged": (
            "You divide by a number of replies. What is the chance of one or the other?",
            "Chances of things that exclude each other are added, and that is all: nothing is divided.",
        ),
        "divided_by_listed": (
            "You divide by the sum of the list. But the model also says other things, and those are not liked.",
            "Nothing is divided: the rate is the plain sum over the liked replies.",
        ),
        "turned_round": (
            "That is the chance of a reply that is not liked.",
            "Add the probability where liked is True.",
        ),
        "everything": (
            "All replies are in it. Where does `liked` come in?",
            "Add a probability only if its entry in `liked` is True.",
        ),
        "first_only": (
            "Only the first reply is in it. When does your function return?",
            "`return` ends the function at once: put it behind the loop, not inside.",
        ),
        "last_only": (
            "Only the last liked reply is in it. What happens to the ones before?",
            "rate = p throws the old value away; rate = rate + p keeps it.",
        ),
        "multiplied": (
            "You multiply. That would be the chance that all of them come at once.",
            "Start at 0.0 and add.",
        ),
        "largest": (
            "That is the likeliest of the liked replies. What about the others?",
            "Add them all up.",
        ),
        "in_per_cent": (
            "The right number, in per cent. Asked for is a probability, from 0 to 1.",
            "Do not multiply by 100.",
        ),
        "kept_apart": (
            "These are the right probabilities. One number is asked for.",
            "Add them up: sum(...).",
        ),
    },
)
def thumbs_up_rate(answer):
    for probabilities, liked in (
        ([0.1, 0.4, 0.25, 0.2], [True, False, True, True]),
        ([0.5, 0.3], [False, True]),
        ([0.6, 0.3], [False, False]),
        ([0.05, 0.2, 0.1, 0.3, 0.15, 0.1], [False, True, True, False, False, True]),
        ([1.0], [True]),
    ):
        expected = sum(p for p, good in zip(probabilities, liked, strict=True) if good)
        compare(call(answer, probabilities, liked), float(expected), rate_faults(probabilities, liked), tolerance=1e-6)
    return "five lists, one of them with no liked reply"
