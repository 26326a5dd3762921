"""The exercises of lesson 07: training with thumbs."""

import math
from collections.abc import Sequence

import torch

from kto_course.checks.engine import call, choice, compare, exercise, number
from kto_lab import museum


def exact_rate_faults(logps, liked):
    """What the known faults of `exact_rate` give on this input."""
    p, yes = logps.exp(), liked.to(logps.dtype)
    each = (p * yes).sum(-1)
    return [
        ("no_exp", (logps * yes).sum(-1).mean()),
        ("masked_too_early", (logps * yes).exp().sum(-1).mean()),
        ("renormalised", (p / p.sum(-1, keepdim=True) * yes).sum(-1).mean()),
        ("renormalised", each.sum() / p.sum()),
        ("counted", yes.mean()),
        ("most_likely", yes.gather(-1, p.argmax(-1, keepdim=True)).mean()),
        ("per_question", each),
        ("not_averaged", each.sum()),
        ("averaged_over_replies", (p * yes).mean()),
        ("averaged_over_replies", (p * yes).mean(-1)),
        ("averaged_over_liked", each.sum() / yes.sum()),
        ("averaged_over_liked", (each / yes.sum(-1)).mean()),
        ("inverted", (p * (1 - yes)).sum(-1).mean()),
        ("inverted", (1 - each).mean()),
        ("marks_forgotten", p.sum(-1).mean()),
        ("log_returned", each.mean().log()),
        ("mean_of_logs", each.log().mean().exp()),
        ("mean_of_logs", each.log().mean()),
    ]


@exercise(
    "exact_rate",
    "No samples needed",
    minutes=5,
    difficulty=2,
    kind="fill in a function",
    points=2,
    hints={
        "no_exp": (
            "Can a share be negative? What do you get, and what do you add up?",
            "logps are logarithms. Add up probabilities: logps.exp().",
        ),
        "masked_too_early": (
            "Your rate is above 1. What does exp make of the places that you set to 0?",
            "exp(0) is 1. First exp, then the mask.",
        ),
        "renormalised": (
            "Your rows add up to 1. Do the listed replies?",
            "What is missing to 1 stays missing: exp() without dividing, not softmax.",
        ),
        "counted": (
            "You count replies. Are all of them equally probable?",
            "Each liked reply counts with its probability: logps.exp() * liked.",
        ),
        "most_likely": (
            "You ask for the likeliest reply only. Does the model always give it?",
            "A thumb up comes with the probability of all liked replies together.",
        ),
        "per_question": (
            "There is one rate per question. How many numbers are asked for?",
            "Average them: .mean() at the end.",
        ),
        "not_averaged": (
            "With more questions your number grows beyond 1.",
            "Divide by the number of questions: .sum(-1).mean().",
        ),
        "averaged_over_replies": (
            "You divide by the number of replies. What does a model do more often if more replies are listed?",
            "Sum over the replies, .sum(-1); the mean is over the questions only.",
        ),
        "averaged_over_liked": (
            "You divide by the number of liked replies. The model gives one or another of them: how often together?",
            "Probabilities of different replies add up. Divide by the number of questions only.",
        ),
        "inverted": (
            "You have the share without a thumbs up.",
            "Keep the replies where liked is True.",
        ),
        "marks_forgotten": (
            "That is the mass of all listed replies. Who asked whether they are liked?",
            "Multiply by liked before you sum.",
        ),
        "log_returned": (
            "That is the logarithm of the rate.",
            "Leave out the last log: the sum of probabilities is the rate.",
        ),
        "mean_of_logs": (
            "You average logarithms over the questions. What is to be averaged?",
            "The rates themselves: one plain mean over the questions.",
        ),
    },
)
def exact_rate(answer):
    def right(logps, liked):
        return (logps.exp() * liked).sum(-1).mean()

    small = torch.tensor([[0.5, 0.2, 0.1, 0.1], [0.2, 0.1, 0.4, 0.2]], dtype=torch.float64).log()
    liked = torch.tensor([[True, False, True, False], [False, True, False, False]])
    words = "probabilities 0.5 0.2 0.1 0.1 (first and third liked) and 0.2 0.1 0.4 0.2 (second liked)"
    compare(call(answer, small, liked, tried=words), right(small, liked), exact_rate_faults(small, liked))
    for seed, dtype in ((0, torch.float64), (1, torch.float32)):
        generator = torch.Generator().manual_seed(seed)
        logps = (2 * torch.randn(3, 49, generator=generator, dtype=torch.float64)).log_softmax(-1)[:, :48].to(dtype)
        liked = torch.rand(3, 48, generator=generator) < 0.25
        got = call(answer, logps, liked, tried="three questions with 48 replies each, at random")
        compare(got, right(logps, liked), exact_rate_faults(logps, liked))
    return "the sum of probabilities on three inputs"


@exercise(
    "least_price",
    "Two questions, one price",
    minutes=3,
    difficulty=1,
    kind="predict a number",
    points=1,
    hints={
        "log_of_mean": (
            "You averaged the rates first. Can one question pay for the other?",
            "Each question has its own price, -ln p. Average the two prices.",
        ),
        "summed": (
            "That is the price of both together. Asked for is the average.",
            "Divide by the number of questions, 2.",
        ),
        "easy_only": (
            "That is the price of the first question alone.",
            "The second costs -ln(1/8). Average the two.",
        ),
        "hard_only": (
            "That is the price of the second question alone.",
            "The first costs -ln(1/2). Average the two.",
        ),
        "bits": (
            "Those are bits. Asked for are nats.",
            "Use the natural logarithm, math.log with one argument.",
        ),
        "negative": (
            "A KL is never negative. Which sign has the logarithm of a number below 1?",
            "Put the minus of -ln p in.",
        ),
        "no_log": (
            "That is the mean factor 1/p by which liked replies grow. The KL is a mean *logarithm*.",
            "Take the logarithm of each factor, then the mean.",
        ),
        "log_of_mean_factor": (
            "You took the logarithm of a mean. The KL is a mean of logarithms.",
            "(ln 2 + ln 8) / 2",
        ),
    },
)
def least_price(answer):
    rates = (1 / 2, 1 / 8)
    prices = [-math.log(p) for p in rates]
    right = sum(prices) / 2
    known = {
        "log_of_mean": -math.log(sum(rates) / 2),
        "summed": sum(prices),
        "easy_only": prices[0],
        "hard_only": prices[1],
        "bits": right / math.log(2),
        "negative": -right,
        "no_log": sum(1 / p for p in rates) / 2,
        "log_of_mean_factor": math.log(sum(1 / p for p in rates) / 2),
    }
    number(answer, right, 0.01, known, tried="reference rates 1/2 and 1/8, target 1")
    return "the mean of -ln p over the questions"


def count_weights_faults(n_up, n_down):
    """What the known faults of `count_weights` give on these counts."""
    n, fewer, more = n_up + n_down, min(n_up, n_down), max(n_up, n_down)
    return [
        ("shares_as_weights", (n_up / n, n_down / n)),
        ("smaller_not_1", (n_down / n, n_up / n)),
        ("smaller_not_1", (n / n_up, n / n_down)),
        ("smaller_not_1", (n / (2 * n_up), n / (2 * n_down))),
        ("smaller_not_1", (1 / n_up, 1 / n_down)),
        ("smaller_not_1", (float(n_down), float(n_up))),
        ("smaller_not_1", (n_down / more, n_up / more)),
        ("more_for_the_many", (n_up / fewer, n_down / fewer)),
        ("more_for_the_many", (n_up / n_down, 1.0)),
        ("smaller_not_1", (n_down / n_up, 1.0)),
        ("smaller_not_1", (1.0, n_up / n_down)),
        ("both_weights_1", (1.0, 1.0)),
        ("four_thirds", (4 / 3 * n_down / n_up, 1.0)),
        ("four_thirds", (4 / 3, 1.0)),
        ("share_of_all", (n / n_up, 1.0)),
    ]


@exercise(
    "count_weights",
    "Weights that make it worse",
    minutes=4,
    difficulty=1,
    kind="repair a function",
    points=1,
    hints={
        "shares_as_weights": (
            "Multiply each weight by its count: which side has the larger total now?",
            "The rare side needs the large weight: it gets the *other* side's count.",
            "(n_down / fewer, n_up / fewer), where fewer is the smaller count.",
        ),
        "smaller_not_1": (
            "The two totals are equal. And the smaller of the two weights, is it 1 here?",
            "Which side has fewer rows may change. Scale both weights by one factor, so that the smaller becomes 1.",
            "Divide both counts by the smaller one: (n_down / fewer, n_up / fewer).",
        ),
        "more_for_the_many": (
            "The side with more rows gets the larger weight. Which side needs help?",
            "Exchange the two: the ups are weighted by the number of downs, and the other way round.",
        ),
        "both_weights_1": (
            "Both weights are 1. Are the totals equal?",
            "With 1 up and 4 down the up must weigh 4.",
        ),
        "four_thirds": (
            "4/3 is the upper end of the paper's range. What is asked for here?",
            "Equal totals: a ratio of 1, so n_down / n_up without the 4/3.",
        ),
        "share_of_all": (
            "You divide by all rows. Which two counts must balance?",
            "Ups and downs: n_down / n_up, not len(rows) / n_up.",
        ),
    },
)
def count_weights(answer):
    def rows(n_up, n_down):
        labels = [True] * n_up + [False] * n_down
        return [{"prompt": "p", "completion": f" c{i}", "label": label} for i, label in enumerate(labels)]

    for n_up, n_down in ((1, 4), (6, 4), (3, 3), (20, 70)):
        fewer = min(n_up, n_down)
        got = call(answer, rows(n_up, n_down), tried=f"{n_up} thumbs up and {n_down} thumbs down")
        compare(got, (n_down / fewer, n_up / fewer), count_weights_faults(n_up, n_down))
    return "four pairs of counts"


MYSTERY = "reference_is_policy", 0  # mutant and seed of the stored run that exercise 7.4 shows


def mystery_log(steps: Sequence[int]) -> list[dict[str, float]]:
    """Rows of a log with one fault; which one is the question of exercise 7.4. NaN: a batch without such a row."""
    run = museum.load_results()[MYSTERY]
    table = [{name: run[name][step - 1] for name in museum.COLUMNS} for step in steps]
    return [
        {"step": step} | {name: math.nan if value is None else value for name, value in row.items()}
        for step, row in zip(steps, table, strict=True)
    ]


@exercise(
    "mystery_log_cause",
    "A quiet log",
    minutes=5,
    difficulty=2,
    kind="read a log and choose a cause",
    points=1,
    hints={
        "not_moved": (
            "Look at the gradient norm. Is it the same for batches with the same loss?",
            "It changes by more than ten times, so the policy has moved. Yet r stays exactly 0. What moves along?",
        ),
        "saturated": (
            "Look at the column `saturated`, and at the gradient norm. What would they show?",
            "Saturated rows lie far from z0, with a dead gradient. Here the gradient lives and every reward is 0.",
        ),
        "independent_reference": (
            "What would the rewards and kl be at step 1 if the two models differed?",
            "Far from 0 at once. Here they are 0 for ever, though the gradient is not: the two never differ.",
        ),
    },
)
def mystery_log_cause(answer):
    choice(answer, "c", {"a": "not_moved", "b": "saturated", "d": "independent_reference"})
    return "your reading of the log"
