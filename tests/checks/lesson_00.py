"""Right and wrong answers to the exercise of lesson 00. The form is told in tests/test_checks.py."""


def looped(inside, start="rate = 0.0", end="return rate"):
    """A loop over the replies; p is the probability, good the thumb."""
    return f"""
def answer(probabilities, liked):
    {start}
    for p, good in zip(probabilities, liked):
        {inside}
    {end}
"""


def summed(expression):
    return f"""
def answer(probabilities, liked):
    chosen = [p for p, good in zip(probabilities, liked) if good]
    return {expression}
"""


ANSWERS = {
    "thumbs_up_rate": {
        "right": {
            "a loop": looped("if good: rate += p"),
            "a sum": summed("sum(chosen)"),
            "True is 1": looped("rate = rate + p * good"),
            "from the other end": """
def answer(probabilities, liked):
    return sum(probabilities[i] for i in reversed(range(len(probabilities))) if liked[i])
""",
            "all minus the others": looped("if not good: rate = rate - p", "rate = sum(probabilities)"),
            "a table of numbers, float32": """
def answer(probabilities, liked):
    import numpy as np
    return np.array(probabilities, dtype=np.float32)[np.array(liked)].sum()
""",
        },
        "wrong": {
            "share of the replies": ("counted", "lambda probabilities, liked: sum(liked) / len(liked)"),
            "number of replies": ("counted", looped("if good: rate = rate + 1")),
            "average of the liked": ("averaged", summed("sum(chosen) / max(len(chosen), 1)")),
            "average of all": ("averaged", summed("sum(chosen) / len(liked)")),
            "divided by the list": ("divided_by_listed", summed("sum(chosen) / sum(probabilities)")),
            "the disliked": ("turned_round", looped("if not good: rate = rate + p")),
            "1 minus it": ("turned_round", summed("1 - sum(chosen)")),
            "all replies": ("everything", "lambda probabilities, liked: sum(probabilities)"),
            "return in the loop": ("first_only", looped("if good: return p")),
            "return after the first": ("first_only", looped("return p if good else 0.0")),
            "overwritten": ("last_only", looped("if good: rate = p")),
            "multiplied from 1": ("multiplied", looped("if good: rate = rate * p", "rate = 1.0")),
            "multiplied from 0": ("multiplied", looped("if good: rate = rate * p")),
            "the largest": ("largest", summed("max(chosen, default=0.0)")),
            "per cent": ("in_per_cent", summed("100 * sum(chosen)")),
            "a list": ("kept_apart", summed("chosen")),
            "a word": ("type", summed("f'{sum(chosen)}'")),
            "squared": ("values", summed("sum(p * p for p in chosen)")),
            "into the argument": ("changed_arguments", """
def answer(probabilities, liked):
    for i in range(len(liked)):
        if not liked[i]:
            probabilities[i] = 0.0
    return sum(probabilities)
"""),
            "an error": ("raised", "lambda probabilities, liked: sum(probabilities[liked])"),
            "no return": ("open", looped("if good: rate = rate + p", end="print(rate)")),
        },
    },
}  # fmt: skip

EQUIVALENT = {}
