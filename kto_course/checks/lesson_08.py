"""The exercises of lesson 08: KTO against DPO."""

import itertools
import math
import random
from collections import Counter

import torch

from kto_course.checks.engine import Fault, call, compare, exercise, gradient, number
from kto_utils import losses
from kto_utils.data import pair_up


def reward_gaps_faults(policy, reference, beta):
    """What the known faults of `reward_gaps` give on this input."""
    scaled = beta * torch.log(policy / reference)

    def gaps(x):
        return x[:, None] - x[None, :]

    right = gaps(scaled)
    return [
        ("turned_round", -right),
        ("beta_missing", right / beta),
        ("beta_twice", right * beta),
        ("beta_divides", right / beta**2),
        ("reference_ignored", gaps(beta * policy.log())),
        ("no_log", gaps(beta * policy / reference)),
        ("no_log", gaps(beta * (policy - reference))),
        ("not_compared", scaled),
        ("not_compared", scaled[:, None].expand_as(right)),
        ("not_compared", scaled[None, :].expand_as(right)),
        ("added", scaled[:, None] + scaled[None, :]),
    ]


@exercise(
    "reward_gaps",
    "Z cancels",
    minutes=6,
    difficulty=2,
    kind="check a derivation step",
    points=2,
    hints={
        "turned_round": (
            "All signs are turned. Which reply has the larger reward, the one that pi* raised or the one it lowered?",
            "Row a, column b is a minus b, and the log-ratio is policy minus reference.",
        ),
        "beta_missing": (
            "Your gaps have the right order, not the right size. What multiplies the log-ratio in R?",
            "R(y) = beta * log-ratio + beta * log Z: multiply by beta.",
        ),
        "beta_twice": (
            "Beta is in your gaps twice. How often does it stand before the log-ratio?",
            "Multiply by beta once.",
        ),
        "beta_divides": (
            "You divide by beta. It divided the reward inside the exponential; what happens when you solve for R?",
            "log pi* - log pi_ref = R / beta - log Z. Multiply both sides by beta.",
        ),
        "reference_ignored": (
            "A reply may be likely because the reference liked it already. Where is the reference?",
            "Use log(policy_probs / reference_probs), not log(policy_probs).",
        ),
        "no_log": (
            "You compare probabilities or their ratios. Which function undoes the exponential in pi*?",
            "Take torch.log of policy_probs / reference_probs before you subtract.",
        ),
        "not_compared": (
            "That is beta times the log-ratio of single replies. It still lacks beta * log Z. Where does Z drop out?",
            "Z drops out in a difference of two replies: x[:, None] - x[None, :].",
        ),
        "added": (
            "You have added the two replies. Then beta * log Z would be missing twice; when would it be gone?",
            "Subtract: x[:, None] - x[None, :].",
        ),
    },
)
def reward_gaps(answer):
    def case(reward, reference, beta):
        weights = reference * torch.exp(reward / beta)
        return (weights / weights.sum(), reference, beta), reward[:, None] - reward[None, :]

    small, expected = case(torch.tensor([0.0, 1.0, 3.0]).double(), torch.tensor([0.5, 0.3, 0.2]).double(), 0.5)
    tried = "the optimum for rewards (0, 1, 3), reference (0.5, 0.3, 0.2), beta 0.5"
    compare(call(answer, *small, tried=tried), expected, reward_gaps_faults(*small))
    for seed, beta in ((0, 0.2), (1, 2.0)):
        generator = torch.Generator().manual_seed(seed)
        reward, logits = torch.randn(2, 5, generator=generator, dtype=torch.float64)
        given, expected = case(reward, logits.softmax(-1), beta)
        got = call(answer, *given, tried=f"the optimum for five random rewards, beta {beta}")
        compare(got, expected, reward_gaps_faults(*given))
    given = tuple(x.float() if isinstance(x, torch.Tensor) else x for x in given)
    compare(call(answer, *given, tried="the same in float32"), expected, reward_gaps_faults(*given), tolerance=1e-4)
    return "your table against the true reward differences, of three replies and of five, with three betas"


def random_logps(seed, dtype=torch.float64, n=6):
    """Four (n,) tensors of log-probabilities in nats: policy chosen, policy rejected, reference chosen, rejected."""
    generator = torch.Generator().manual_seed(seed)
    return tuple((-20 + 8 * torch.randn(4, n, generator=generator, dtype=torch.float64)).to(dtype))


def dpo_loss_faults(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta=0.1):
    """What the known faults of `dpo_loss` give on this input."""
    chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    margin = chosen - rejected

    def loss(x):
        return torch.nn.functional.softplus(-x)

    right = loss(beta * margin)
    return [
        ("turned_round", loss(-beta * margin)),
        ("reference_ignored", loss(beta * (policy_chosen - policy_rejected))),
        ("reference_added", loss(beta * (policy_chosen - policy_rejected + reference_chosen - reference_rejected))),
        ("policy_ignored", loss(beta * (reference_chosen - reference_rejected))),
        ("added", loss(beta * (chosen + rejected))),
        ("chosen_only", loss(beta * chosen)),
        ("rejected_only", loss(-beta * rejected)),
        ("beta_missing", loss(margin)),
        ("beta_twice", loss(beta**2 * margin)),
        ("beta_divides", loss(margin / beta)),
        ("beta_on_one_side", loss(beta * chosen - rejected)),
        ("beta_on_one_side", loss(chosen - beta * rejected)),
        ("beta_outside", beta * loss(margin)),
        ("beta_outside", beta * right),
        ("no_minus", -right),
        ("no_log", torch.sigmoid(-beta * margin)),
        ("no_log", torch.sigmoid(beta * margin)),
        ("no_log", -torch.sigmoid(beta * margin)),
        ("no_sigmoid", -beta * margin),
        ("no_sigmoid", margin),
        ("no_sigmoid", beta * margin),
        ("hinge", (1 - beta * margin).clamp(min=0)),
        ("averaged", right.mean()),
        ("averaged", right.sum()),
        ("kto_rows", 0.5 * (torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected))),
        ("kto_rows", torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected)),
    ]


@exercise(
    "dpo_loss",
    "DPO in two lines",
    minutes=6,
    difficulty=2,
    kind="fill in a function",
    points=3,
    ours="kto_utils.losses.dpo_loss",
    hints={
        "turned_round": (
            "Your loss is small where the model prefers the wrong reply. Who is subtracted from whom?",
            "Chosen minus rejected, and policy minus reference.",
        ),
        "reference_ignored": (
            "A reply that was likely from the start earns a low loss in your function. Relative to what is r?",
            "Each log-ratio is policy minus reference; both references are missing.",
        ),
        "reference_added": (
            "The reference comes in with the wrong sign. What is the logarithm of pi / pi_ref?",
            "r = policy - reference, for the chosen and for the rejected reply.",
        ),
        "policy_ignored": (
            "The model that is trained does not appear in your loss. Could it learn anything?",
            "r_chosen = policy_chosen - reference_chosen, and likewise for rejected.",
        ),
        "added": (
            "You add both log-ratios. Raise the rejected reply: does your loss go up, as it should?",
            "The margin is r_chosen - r_rejected.",
        ),
        "chosen_only": (
            "The rejected reply has no part in your loss. What does a pair say?",
            "Subtract r_rejected from r_chosen before you multiply by beta.",
        ),
        "rejected_only": (
            "The chosen reply has no part in your loss. What does a pair say?",
            "The margin is r_chosen - r_rejected.",
        ),
        "beta_missing": (
            "Your loss moves ten times too fast. What stands before the bracket in the formula?",
            "The sigmoid gets beta * margin.",
        ),
        "beta_twice": (
            "Your loss moves too slowly: beta has come in twice.",
            "Multiply the margin in nats by beta once.",
        ),
        "beta_divides": (
            "You divide by beta. A small beta should make the loss flatter; what does yours do?",
            "Multiply: beta * margin.",
        ),
        "beta_on_one_side": (
            "Beta reaches one of the two log-ratios only.",
            "Put brackets round the difference: beta * (r_chosen - r_rejected).",
        ),
        "beta_outside": (
            "Beta stands outside the logarithm. With policy equal to reference the loss should be ln 2.",
            "Multiply the margin, not the loss: -logsigmoid(beta * margin).",
        ),
        "no_minus": (
            "Your losses are negative. What is the sign of the logarithm of a probability?",
            "The formula starts with a minus.",
        ),
        "no_log": (
            "Your numbers stay between -1 and 1. KTO's row loss does so; what does DPO take of the sigmoid?",
            "DPO is a log-likelihood: take minus the logarithm, -F.logsigmoid(...).",
        ),
        "no_sigmoid": (
            "That is a margin. How does Bradley-Terry turn a difference of rewards into a probability?",
            "It is -log sigmoid(beta * margin): the sigmoid and its logarithm are missing.",
        ),
        "hinge": (
            "A hinge has a corner and is exactly 0 behind it. Is -log sigma ever 0?",
            "Use the logarithm of the sigmoid: -F.logsigmoid(beta * margin).",
        ),
        "averaged": (
            "That is one number for the whole batch. How many pairs are there?",
            "Return one loss per pair, (B,), without .mean() or .sum().",
        ),
        "kto_rows": (
            "You judge each reply by itself, as KTO does. What does a pair know that a row does not?",
            "One sigmoid around the difference of both log-ratios, and minus its logarithm.",
        ),
        "log_of_sigmoid": (
            "This pair is hopeless: the sigmoid rounds to 0, or the exponential to infinity. The true loss is 199.",
            "Never make the tiny number: F.logsigmoid(x), or -F.softplus(-x), gives its logarithm directly.",
        ),
    },
)
def dpo_loss(answer):
    right = losses.dpo_loss
    small = tuple(torch.tensor(x).double() for x in ([-7.0, -9.0], [-12.0, -5.0], [-10.0, -6.0], [-11.0, -8.0]))
    tried = "policy chosen (-7, -9), rejected (-12, -5); reference chosen (-10, -6), rejected (-11, -8); default beta"
    compare(call(answer, *small, tried=tried), right(*small), dpo_loss_faults(*small))
    for seed, dtype, beta in ((0, torch.float64, 0.3), (1, torch.float64, 2.0), (2, torch.float32, 0.05)):
        case = random_logps(seed, dtype)
        got = call(answer, *case, beta, tried=f"six random pairs, beta {beta}")
        compare(got, right(*case, beta), dpo_loss_faults(*case, beta))
    far = tuple(torch.tensor(x) for x in ([-2000.0, -10.0], [-10.0, -2000.0], [-10.0, -10.0], [-10.0, -10.0]))
    got = call(answer, *far, tried="a margin of -1990 nats and one of 1990, in float32, beta 0.1")
    compare(got, right(*far), {"log_of_sigmoid": torch.tensor([math.inf, 0.0])})
    case = random_logps(3)
    for wrt, name in ((0, "policy_chosen"), (1, "policy_rejected")):
        got = gradient(answer, *case, wrt=wrt, tried=f"the gradient in {name}")
        compare(got, gradient(right, *case, wrt=wrt), default="gradient")
    return "values on four inputs, a hopeless pair and a settled one, the gradients of both replies"


@exercise(
    "rejected_fell",
    "A good loss, two dying replies",
    minutes=4,
    difficulty=2,
    kind="predict a number",
    points=1,
    hints={
        "turned_round": (
            "Then the rejected reply would have fallen less than the chosen one. Would the loss be below ln 2?",
            "margin = r_chosen - r_rejected is positive here, so r_rejected is below r_chosen.",
        ),
        "beta_missing": (
            "You took the 1 inside the sigmoid as the margin. What is multiplied by beta to give it?",
            "beta * margin = 1 with beta = 0.5: how large is the margin in nats?",
        ),
        "beta_multiplied": (
            "You multiplied by beta where you should undo it.",
            "beta * margin = 1, so margin = 1 / beta.",
        ),
        "beta_twice": (
            "Beta is in your margin twice.",
            "beta * margin = 1, so margin = 1 / 0.5 = 2 nats.",
        ),
        "margin": (
            "That is the margin. Asked for is the log-ratio of the rejected reply.",
            "margin = r_chosen - r_rejected, and r_chosen is -9.",
        ),
        "sign_lost": (
            "The chosen reply's log-ratio is negative. What does your number do with its sign?",
            "-9 - r_rejected = margin: solve for r_rejected.",
        ),
        "reward": (
            "That is the reward, with beta in it. Asked for are nats.",
            "Divide your number by beta.",
        ),
    },
)
def rejected_fell(answer):
    beta, chosen = 0.5, -9.0
    margin = 1 / beta
    right = chosen - margin
    number(
        answer,
        right,
        0.1,
        {
            "turned_round": chosen + margin,
            "beta_missing": chosen - 1,
            "beta_multiplied": chosen - beta,
            "beta_twice": chosen - margin / beta,
            "margin": margin,
            "sign_lost": -right,
            "reward": beta * right,
        },
        tried="loss 0.3133 at beta 0.5, log-ratio of the chosen reply -9 nats",
    )
    return "the margin out of the loss, and the rejected reply out of the margin"


def _rows(*shown):
    return [{"prompt": prompt, "completion": text, "label": label} for prompt, text, label in shown]


# Prompt P has two of each, Q one of each, R only a thumb up.
VOTES = _rows(
    ("P", "p1", True), ("Q", "q1", False), ("Q", "q2", True), ("P", "p2", False), ("P", "p3", False),
    ("R", "r1", True), ("P", "p4", True),
)  # fmt: skip
# Two people liked the same reply; T has thumbs down only.
REPEATED = _rows(("S", "s1", True), ("S", "s2", False), ("T", "t1", False), ("S", "s1", True), ("S", "s3", False))
PAIR = "prompt", "chosen", "rejected"


def _random_votes(seed):
    rng = random.Random(seed)
    return [
        {"prompt": rng.choice("KLMNO"), "completion": ("good" if up else "bad") + str(rng.randrange(6)), "label": up}
        for up in (rng.random() < 0.4 for _ in range(40))
    ]


def _check_pairs(pairs, rows, tried):
    if isinstance(pairs, tuple) and len(pairs) == 2 and isinstance(pairs[0], list):
        raise Fault("left_over_too", tried, "a tuple of two", "a list of pairs")
    if not isinstance(pairs, list | tuple):
        raise Fault("type", tried, f"a {type(pairs).__name__}", "a list of pairs")
    left = Counter((row["prompt"], row["completion"], row["label"]) for row in rows)
    most = len(pair_up(rows, 0)[0])
    for pair in pairs:
        if not isinstance(pair, dict) or not all(isinstance(pair.get(field), str) for field in PAIR):
            raise Fault("fields", tried, pair, "dicts of three texts: prompt, chosen, rejected")
        prompt, chosen, rejected = pair["prompt"], pair["chosen"], pair["rejected"]
        if (prompt, chosen, False) in left and (prompt, rejected, True) in left:
            raise Fault("turned_round", tried, pair, "chosen: a thumb up; rejected: a thumb down")
        if not {(p, c) for p, c, _ in left} >= {(prompt, chosen), (prompt, rejected)}:
            raise Fault("across_prompts", tried, pair, "two replies to this prompt")
        if (prompt, chosen, True) not in left or (prompt, rejected, False) not in left:
            raise Fault("same_label", tried, pair, "chosen: a thumb up; rejected: a thumb down")
        left[prompt, chosen, True] -= 1
        left[prompt, rejected, False] -= 1
    shown = f"{len(pairs)} pairs"
    if min(left.values(), default=0) < 0:
        raise Fault("reused", tried, shown, f"{most} pairs, each thumb in one of them")
    if len(pairs) < most:
        labels = {}
        for row in rows:
            labels.setdefault(row["prompt"], set()).add(row["label"])
        neighbours = itertools.groupby(rows, key=lambda row: row["prompt"])
        runs = [[row["label"] for row in run] for _, run in neighbours]
        texts = {(row["prompt"], row["completion"], row["label"]) for row in rows}
        single = [{"prompt": p, "completion": c, "label": up} for p, c, up in sorted(texts)]
        known = {
            "not_grouped": sum(min(sum(run), len(run) - sum(run)) for run in runs),
            "votes_merged": len(pair_up(single, 0)[0]),
            "one_per_prompt": sum(len(kinds) == 2 for kinds in labels.values()),
        }
        fault = next((name for name, n in known.items() if n == len(pairs)), "too_few")
        raise Fault(fault, tried, shown, f"{most} pairs")


@exercise(
    "pairs_from_thumbs",
    "Pairs out of single thumbs",
    minutes=8,
    difficulty=2,
    kind="fill in a function",
    points=3,
    hints={
        "across_prompts": (
            "This pair mixes two questions. Can one compare replies to different prompts?",
            "Sort the rows by prompt first, and pair within each prompt.",
        ),
        "turned_round": (
            "The chosen reply has the thumb down.",
            "label True goes to chosen, label False to rejected.",
        ),
        "same_label": (
            "Both replies of this pair got the same thumb. Which of them won?",
            "Keep two lists for each prompt, one for each label, and take one from each.",
        ),
        "reused": (
            "A thumb appears in several pairs. How often may it be used here?",
            "Do not combine each with each; zip pairs the first with the first, the second with the second.",
        ),
        "not_grouped": (
            "Rows of one prompt need not stand side by side. Which rows does your code never bring together?",
            "Collect the rows of each prompt in a dict before you pair; itertools.groupby needs sorted rows.",
        ),
        "one_per_prompt": (
            "You make one pair for each prompt at most. Prompt P has two thumbs up and two thumbs down.",
            "Keep lists, not single replies: min(thumbs up, thumbs down) pairs for each prompt.",
        ),
        "votes_merged": (
            "Two people gave a thumb up to the same reply. How many thumbs is that?",
            "Collect in lists, not in sets or dicts of texts: each row is a thumb of its own.",
        ),
        "too_few": (
            "More pairs can be made. Which thumbs are left over, and is there a partner for them?",
            "Each prompt gives min(number of thumbs up, number of thumbs down) pairs.",
        ),
        "left_over_too": (
            "Two things came back. Only the pairs are asked for.",
            "Return the list of pairs and leave out what is left over.",
        ),
        "fields": (
            "A pair is a dict of three texts here, like the one printed above.",
            '{"prompt": ..., "chosen": ..., "rejected": ...}',
        ),
    },
)
def pairs_from_thumbs(answer):
    votes = ", ".join(f"{row['completion']} {'up' if row['label'] else 'down'}" for row in VOTES)
    _check_pairs(call(answer, VOTES, tried=f"prompts P, Q, R with the thumbs {votes}"), VOTES, None)
    repeated = ", ".join(f"{row['completion']} {'up' if row['label'] else 'down'}" for row in REPEATED)
    _check_pairs(call(answer, REPEATED, tried=f"prompts S, T with the thumbs {repeated}"), REPEATED, None)
    for seed in range(3):
        rows = _random_votes(seed)
        _check_pairs(call(answer, rows, tried="forty random thumbs on five prompts"), rows, None)
    _check_pairs(call(answer, [], tried="no rows at all"), [], None)
    return "who meets whom, that each thumb is used once, and that no possible pair is missing"
