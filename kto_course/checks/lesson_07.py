"""The exercises of lesson 07: training with thumbs."""

import functools
import math
from collections.abc import Mapping, Sequence

import torch

from kto_course.checks.engine import Fault, call, choice, compare, exercise, number
from kto_lab import museum
from kto_utils.collator import KTOPaddingCollator
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.logprobs import sequence_logps
from kto_utils.losses import kto_loss, reference_point
from kto_utils.model import reference_of, tiny_llama
from kto_utils.tokenizer import load_tokenizer


def marked_share(logps: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
    """Probability of the marked replies, averaged over questions: logps (questions, replies) in nats, marks bools."""
    return (logps.exp() * marks).sum(-1).mean()


def loss_of_batch(
    policy: torch.nn.Module,
    reference: torch.nn.Module,
    batch: Mapping[str, torch.Tensor],
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A batch of the collator -> (mean KTO loss, log-ratios (B,) in nats, z0 in nats)."""
    logps = sequence_logps(policy, batch)
    with torch.no_grad():
        reference_logps = sequence_logps(reference, batch)
        z0 = reference_point(sequence_logps(policy, batch, "kl_"), sequence_logps(reference, batch, "kl_"))
    losses = kto_loss(logps, reference_logps, batch["label"], z0, beta, desirable_weight, undesirable_weight)
    return losses.mean(), logps - reference_logps, z0


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
    minutes=4,
    difficulty=2,
    kind="fill in a function",
    points=2,
    ours="kto_course.checks.lesson_07.marked_share",
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
    small = torch.tensor([[0.5, 0.2, 0.1, 0.1], [0.2, 0.1, 0.4, 0.2]], dtype=torch.float64).log()
    liked = torch.tensor([[True, False, True, False], [False, True, False, False]])
    words = "probabilities 0.5 0.2 0.1 0.1 (first and third liked) and 0.2 0.1 0.4 0.2 (second liked)"
    compare(call(answer, small, liked, tried=words), marked_share(small, liked), exact_rate_faults(small, liked))
    for seed, dtype in ((0, torch.float64), (1, torch.float32)):
        generator = torch.Generator().manual_seed(seed)
        logps = (2 * torch.randn(3, 49, generator=generator, dtype=torch.float64)).log_softmax(-1)[:, :48].to(dtype)
        liked = torch.rand(3, 48, generator=generator) < 0.25
        got = call(answer, logps, liked, tried="three questions with 48 replies each, at random")
        compare(got, marked_share(logps, liked), exact_rate_faults(logps, liked))
    return "the sum of probabilities on three inputs"


@functools.cache
def _model(seed: int) -> torch.nn.Module:
    """An untrained model with weights three times as large, so that two of them differ by nats."""
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_layers": 1, "num_heads": 2}
    model = tiny_llama(512, **shape, seed=seed, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model


@functools.cache
def _batch() -> dict[str, torch.Tensor]:
    """Two thumbs up and four down, of the eight rows of lessons 03 to 06."""
    tokenizer, rows = load_tokenizer(), load_eight_rows()
    return KTOPaddingCollator(tokenizer)([tokenize_feedback(rows[i], tokenizer) for i in (0, 1, 2, 3, 4, 6)])


def batch_loss_faults(policy, reference, batch, beta, up, down):
    """What the known faults of `batch_loss` give on this input."""
    label = batch["label"]
    with torch.no_grad():
        mine, theirs = sequence_logps(policy, batch), sequence_logps(reference, batch)
        my_kl, their_kl = sequence_logps(policy, batch, "kl_"), sequence_logps(reference, batch, "kl_")
    r, z0, unclamped = mine - theirs, reference_point(my_kl, their_kl), (my_kl - their_kl).mean()

    def result(logratio=r, z0=z0, beta=beta, up=up, down=down, label=label):
        losses = kto_loss(logratio, torch.zeros_like(logratio), label, z0, beta, up, down)
        return losses.mean(), logratio, z0

    whole = result()
    per_row = kto_loss(mine, theirs, label, z0, beta, up, down)
    return [
        ("z0_ignored", (result(z0=0.0)[0], r, z0)),
        ("z0_ignored", result(z0=torch.zeros_like(z0))),
        ("matched_z0", result(z0=reference_point(mine, theirs))),
        ("unclamped", result(z0=unclamped)),
        ("z0_exchanged", result(z0=reference_point(their_kl, my_kl))),
        ("models_exchanged", result(logratio=-r)),
        ("models_exchanged", (whole[0], -r, z0)),
        ("models_exchanged", result(logratio=-r, z0=reference_point(their_kl, my_kl))),
        ("one_model", result(logratio=torch.zeros_like(r))),
        ("one_model", result(logratio=torch.zeros_like(r), z0=torch.zeros_like(z0))),
        ("not_averaged", (per_row, r, z0)),
        ("summed", (per_row.sum(), r, z0)),
        ("weights_exchanged", result(up=down, down=up)),
        ("weights_forgotten", result(up=1.0, down=1.0)),
        ("beta_forgotten", result(beta=0.1)),
        ("beta_forgotten", result(beta=0.1, up=1.0, down=1.0)),
        ("rewards", (whole[0], beta * r, z0)),
        ("mean_logratio", (whole[0], r.mean(), z0)),
        ("kl_rows", (whole[0], my_kl - their_kl, z0)),
    ]


@exercise(
    "batch_loss",
    "The heart of the loop",
    minutes=8,
    difficulty=2,
    kind="fill in a function",
    points=3,
    ours="kto_course.checks.lesson_07.loss_of_batch",
    hints={
        "matched_z0": (
            "Whose replies is your z0 made of? The rows' own ones are deliberately good or bad.",
            "z0 takes the mismatched rows: sequence_logps(model, batch, \"kl_\"), under both models.",
        ),
        "unclamped": (
            "Your z0 is below 0 here. What does lesson 06 do after the mean?",
            "reference_point(policy_kl_logps, reference_kl_logps) takes the mean, then clamps.",
        ),
        "z0_exchanged": (
            "z0 has the wrong sign before its clamp. Which model's log-probabilities come first?",
            "reference_point(policy_kl_logps, reference_kl_logps): the policy first.",
        ),
        "z0_ignored": (
            "Your loss is that of z0 = 0. Does it get the z0 of this batch?",
            "kto_loss(policy_logps, reference_logps, label, z0, ...): the fourth argument.",
        ),
        "models_exchanged": (
            "Your log-ratios have the opposite sign. Log-ratio = policy minus reference.",
            "In kto_loss, too, the policy's log-probabilities come first, then the reference's.",
        ),
        "one_model": (
            "All log-ratios are 0. Which model scored what?",
            "sequence_logps(policy, batch) minus sequence_logps(reference, batch).",
        ),
        "not_averaged": (
            "There is one loss per row. backward() wants one number.",
            "losses.mean()",
        ),
        "summed": (
            "Your loss grows with the batch. Which average keeps the step's size?",
            "losses.mean(), not .sum().",
        ),
        "weights_exchanged": (
            "Thumbs up got the weight of thumbs down. In which order does kto_loss take them?",
            "..., beta, desirable_weight, undesirable_weight: desirable is thumbs up.",
        ),
        "weights_forgotten": (
            "Your loss is that of weights 1 and 1. Were they handed on?",
            "kto_loss(..., beta, desirable_weight, undesirable_weight)",
        ),
        "beta_forgotten": (
            "Your loss is that of beta = 0.1, the default, and here beta is 0.5. Was it handed on?",
            "kto_loss(..., z0, beta, desirable_weight, undesirable_weight)",
        ),
        "rewards": (
            "Those are rewards, beta times r. Asked for are the log-ratios, in nats.",
            "Return logps - reference_logps without beta.",
        ),
        "mean_logratio": (
            "The log needs them apart, ups and downs: one log-ratio a row.",
            "Return logps - reference_logps, shape (B,), without a mean.",
        ),
        "kl_rows": (
            "Those are the mismatched rows' log-ratios. The log shows the rows' own.",
            "Return sequence_logps(policy, batch) - sequence_logps(reference, batch).",
        ),
        "no_gradient": (
            "The loss carries no gradient: backward() would fail. Which pass must not stand under no_grad?",
            "sequence_logps(policy, batch) comes before the `with torch.no_grad():` block, without .detach().",
        ),
    },
)
def batch_loss(answer):
    cases = (
        ((3, 2), 0.5, 1.0, 2.0, "two small models, six rows (two up), beta 0.5, weights 1 and 2"),
        ((2, 3), 0.1, 3.0, 1.0, "the models exchanged, so that z0 is above 0; beta 0.1, weights 3 and 1"),
    )
    for seeds, beta, up, down, words in cases:
        policy, reference = _model(seeds[0]), reference_of(_model(seeds[1]))
        arguments = policy, reference, _batch(), beta, up, down
        got = call(answer, *arguments, tried=words)
        compare(got, loss_of_batch(*arguments), batch_loss_faults(*arguments))
        if not got[0].requires_grad:
            raise Fault("no_gradient", got="a loss without gradient", expected="a loss with one")
    return "loss, log-ratios and z0 on two batches, and that the loss carries a gradient"


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
