"""The exercises of lesson 00: start here."""

import math
import random

from kto_course.checks.engine import call, choice, compare, exercise, number
from kto_utils import world


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
    minutes=5,
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


@exercise(
    "first_logratio",
    "From probability to log-ratio",
    minutes=3,
    difficulty=1,
    kind="predict a number",
    points=1,
    hints={
        "turned_round": (
            "The size is right. Has the reply become likelier or less likely, and which sign says that?",
            "ln of the new probability minus ln of the old one: below 0, on the left side of the picture.",
        ),
        "ratio": (
            "That is the ratio of the two probabilities. What does the word before it ask for?",
            "Put math.log(...) around your number.",
        ),
        "inverse_ratio": (
            "That is a ratio, old to new. Asked for is the logarithm of new to old.",
            "math.log(0.1 / 0.4)",
        ),
        "difference": (
            "You have subtracted the probabilities. What does the formula subtract?",
            "It subtracts logarithms: math.log(0.1) - math.log(0.4).",
        ),
        "base_10": (
            "That is a logarithm to base 10. Which one has the nat as its unit?",
            "Use math.log, the natural logarithm.",
        ),
        "base_2": (
            "That is a logarithm to base 2. Which one has the nat as its unit?",
            "Use math.log with one argument, the natural logarithm.",
        ),
        "policy_only": (
            "That is the logarithm of the new probability. With what is it compared?",
            "Subtract the logarithm of the old one.",
        ),
        "reference_only": (
            "That is the logarithm of the old probability. Where is the new one?",
            "ln of the new probability minus ln of the old one.",
        ),
        "added": (
            "You have added the two logarithms.",
            "There is a minus between them.",
        ),
    },
)
def first_logratio(answer):
    new, old = 0.1, 0.4
    right = math.log(new / old)
    number(
        answer,
        right,
        0.01,
        {
            "turned_round": -right,
            "ratio": new / old,
            "inverse_ratio": old / new,
            "difference": new - old,
            "base_10": math.log10(new / old),
            "base_2": math.log2(new / old),
            "policy_only": math.log(new),
            "reference_only": math.log(old),
            "added": math.log(new * old),
        },
        tried="probability 0.4 before, 0.1 after",
    )
    return "the difference of two logarithms, in nats"


def mystery_shares(clicks):
    """Share of thumbs up for each kind of reply, if somebody else had judged the replies in these clicks.

    What this person likes is the question of exercise 0.3. Now and then a thumb slips, as with real people.
    """
    questions = {question.prompt: question for question in world.trained_questions()}
    rng = random.Random(0)
    thumbs = {(polite, right): [] for polite in (True, False) for right in (True, False)}
    for row in clicks:
        question = questions[row["prompt"]]
        if reply := world.find_reply(question, row["completion"]):
            up = world.judge(question, reply.text, noise=0.1, taste="polite", rng=rng)
            thumbs[reply.polite, reply.right].append(up)
    names = {True: ("polite", "right"), False: ("rude", "wrong")}
    return {f"{names[p][0]},\n{names[r][1]}": sum(ups) / len(ups) for (p, r), ups in thumbs.items()}


@exercise(
    "mystery_taste",
    "Somebody else's thumbs",
    minutes=3,
    difficulty=1,
    kind="read a figure and choose a cause",
    points=1,
    hints={
        "likes_right": (
            "Then the bar of the rude right replies should be high. Is it?",
            "Compare the two bars of right replies: one is high, one is low. What tells them apart?",
        ),
        "likes_both": (
            "That is what our judge likes. Then only one bar would be high. How many are?",
            "Polite wrong replies get thumbs up as well. So what does not matter to this person?",
        ),
        "chance": (
            "If chance alone decided, would two bars stand so far above the other two?",
            "The thumb slips only now and then. What have the two high bars in common?",
        ),
    },
)
def mystery_taste(answer):
    choice(answer, "b", {"a": "likes_right", "c": "likes_both", "d": "chance"})
    return "your reading of the figure"
