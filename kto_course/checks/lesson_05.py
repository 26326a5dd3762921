"""The exercises of lesson 05: from logits to log-probabilities."""

import math

import torch

from kto_course.checks.engine import Fault, call, choice, compare, exercise, flows, gradient, number
from kto_utils import logprobs

# The four words of section 1, <pad>, sky?, blue, <eos>, and prompts of two tokens. Row 2 stops at once.
IDS = torch.tensor([[1, 1, 2, 3, 0], [1, 1, 3, 0, 0]])
MASK = torch.tensor([[0, 0, 1, 1, 0], [0, 0, 1, 0, 0]])
COUNTS = torch.tensor(
    [
        [[1, 7, 1, 1], [1, 1, 6, 2], [1, 1, 2, 16], [5, 2, 2, 1], [5, 2, 2, 1]],
        [[1, 7, 1, 1], [1, 1, 6, 2], [5, 2, 2, 1], [5, 2, 2, 1], [5, 2, 2, 1]],
    ]
)
SMALL = f"two replies, input_ids {IDS.tolist()}, label_mask {MASK.tolist()}, logits the logarithms of whole numbers"
EOS = 3


def random_case(seed: int, dtype=torch.float64):
    """logits (3, 6, 5), ids (3, 6), mask (3, 6) with prompts and paddings of different lengths; eos ends each reply."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, 6, 5, generator=generator, dtype=torch.float64)
    ids = torch.tensor([[1, 4, 2, 4, 2, 3], [1, 2, 4, 3, 0, 0], [1, 1, 4, 4, 3, 0]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0]])
    return logits.to(dtype), ids, mask


def _picked(table, ids):
    return table.gather(-1, ids[..., None]).squeeze(-1)


def get_probs_faults(logits, ids, mask):
    """What the known faults of `get_probs` give on this input."""
    right = logprobs.get_probs(logits, ids, mask)
    log_probs, keep = logits.log_softmax(-1), mask[:, 1:].bool()
    chosen = _picked(log_probs[:, :-1], ids[:, 1:])
    own = _picked(log_probs, ids)
    real = ids != 0
    until_end = real[:, 1:]
    from_start = mask.cummax(1).values[:, 1:].bool()
    raw = _picked(logits[:, :-1], ids[:, 1:])
    across = _picked(logits.log_softmax(1)[:, :-1], ids[:, 1:])
    batch = _picked(logits[:, :-1].log_softmax(1), ids[:, 1:])
    return [
        ("no_shift", own.masked_fill(~mask.bool(), 0.0)),
        ("no_shift", own[:, 1:].masked_fill(~keep, 0.0)),
        ("no_shift", own[:, :-1].masked_fill(~mask[:, :-1].bool(), 0.0)),
        ("no_shift", own[:, :-1].masked_fill(~keep, 0.0)),
        ("shifted_backwards", _picked(log_probs[:, 1:], ids[:, :-1]).masked_fill(~keep, 0.0)),
        ("shifted_backwards", _picked(log_probs[:, 1:], ids[:, :-1]).masked_fill(~mask[:, :-1].bool(), 0.0)),
        ("mask_not_shifted", chosen.masked_fill(~mask[:, :-1].bool(), 0.0)),
        ("no_mask", chosen),
        ("prompt_scored", chosen.masked_fill(~until_end, 0.0)),
        ("padding_scored", chosen.masked_fill(~from_start, 0.0)),
        ("mask_inverted", chosen.masked_fill(keep, 0.0)),
        ("eos_unscored", right.masked_fill(ids[:, 1:] == EOS, 0.0)),
        ("batch_mask_sum", right / mask.sum()),
        ("mean_of_tokens", right / mask.sum(-1, keepdim=True)),
        ("mean_of_tokens", right.sum(-1) / mask.sum(-1)),
        ("summed", right.sum(-1)),
        ("summed", right.sum()),
        ("negative", -right),
        ("no_log", chosen.exp().masked_fill(~keep, 0.0)),
        ("no_log", chosen.masked_fill(~keep, 0.0).exp()),
        ("no_softmax", raw.masked_fill(~keep, 0.0)),
        ("wrong_axis", across.masked_fill(~keep, 0.0)),
        ("wrong_axis", batch.masked_fill(~keep, 0.0)),
        ("not_gathered", log_probs[:, :-1].masked_fill(~keep[..., None], 0.0)),
        ("not_gathered", log_probs[:, :-1]),
    ]


@exercise(
    "get_probs",
    "Shift before you gather",
    minutes=8,
    difficulty=2,
    kind="fill in a function",
    points=3,
    ours="kto_utils.logprobs.get_probs",
    hints={
        "no_shift": (
            "Your numbers are the log-probability of the token just read. Which logits predict position t?",
            "The logits at place t are about token t + 1. So the first token id has no prediction before it.",
            "Pair logits[:, :-1] with input_ids[:, 1:] and label_mask[:, 1:].",
        ),
        "shifted_backwards": (
            "There is a shift, but to the wrong side: does a place predict the token before it or behind it?",
            "The logits at place t are about token t + 1: drop the last logits, not the first.",
            "Pair logits[:, :-1] with input_ids[:, 1:].",
        ),
        "mask_not_shifted": (
            "The tokens are right, but the mask is one place off. To which token does a flag belong?",
            "The mask belongs to the token that is predicted, so it is cut like the token ids: label_mask[:, 1:].",
        ),
        "no_mask": (
            "Tokens count that the model did not write. What is label_mask for?",
            "Where label_mask of the predicted token is 0, the result must be 0.0.",
            "result.masked_fill(~label_mask[:, 1:].bool(), 0.0)",
        ),
        "prompt_scored": (
            "The padding is left out, but the prompt still counts. Who wrote the prompt?",
            "Only label_mask says which tokens the model wrote; an id other than 0 does not.",
        ),
        "padding_scored": (
            "The prompt is left out, but the padding behind a short reply still counts.",
            "Look at row 2: the place behind the end token must be 0.0. Use label_mask as it is.",
        ),
        "mask_inverted": (
            "You keep what should go and drop what should stay.",
            "masked_fill fills where its mask is True: it wants ~label_mask[:, 1:].bool().",
        ),
        "eos_unscored": (
            "The last token of each reply is missing. Is stopping not a decision of the model too?",
            "<eos> has a 1 in label_mask and is scored like every other token.",
        ),
        "batch_mask_sum": (
            "You divide by a number that depends on the other rows of the batch. Is a token less likely beside others?",
            "Nothing is divided here: no label_mask.sum().",
        ),
        "mean_of_tokens": (
            "You divide by the length of the reply. What would the product of the probabilities be?",
            "The result is one log-probability per token; nothing is divided.",
        ),
        "summed": (
            "You have added up already. How many numbers per row are asked for?",
            "Return the (B, T-1) table; leave out .sum(-1). The sum comes in section 6.",
        ),
        "negative": (
            "All signs are turned. Is the logarithm of a probability positive or negative?",
            "cross_entropy is minus the log-probability: put a minus before it.",
        ),
        "no_log": (
            "These are probabilities. Asked for are log-probabilities, 0.0 where nothing is scored.",
            "Use log_softmax(-1) in the place of softmax(-1), and no exp.",
        ),
        "no_softmax": (
            "These are logits. Do they add up to 1, once exponentiated?",
            "Subtract logsumexp(-1), or take log_softmax(-1), before you pick the tokens.",
        ),
        "wrong_axis": (
            "The probabilities add up to 1 along the wrong axis. Among which things does the model choose?",
            "It chooses among words: the last axis of (B, T, V), log_softmax(-1).",
        ),
        "not_gathered": (
            "There is a number for every word. Which of them is the one that came?",
            "Pick it with gather: log_probs.gather(-1, targets[..., None]).squeeze(-1).",
        ),
        "zero_times_inf": (
            "A word of the prompt is forbidden here (logit -inf), though nobody scores it. What is 0 * -inf?",
            "Do not multiply by the mask, assign: masked_fill(~scored, 0.0).",
        ),
        "log_of_softmax": (
            "The token is very unlikely here, not impossible. Where does its probability round to 0?",
            "softmax(-1).log() makes the tiny probability and loses it; log_softmax(-1) never makes it.",
        ),
    },
)
def get_probs(answer):
    right = logprobs.get_probs
    small = (COUNTS.double().log(), IDS, MASK)
    compare(call(answer, *small, tried=SMALL), right(*small), get_probs_faults(*small))
    for seed, dtype in ((0, torch.float64), (1, torch.float64), (2, torch.float32)):
        case = random_case(seed, dtype)
        got = call(answer, *case, tried="random logits (3, 6, 5), prompts and replies of several lengths")
        compare(got, right(*case), get_probs_faults(*case))
    forbidden = small[0].clone()
    forbidden[1, 2, 0] = -math.inf  # the word after <eos> in row 2
    got = call(answer, forbidden, IDS, MASK, tried=f"{SMALL}; one unscored word with logit -inf")
    multiplied = right(*small)
    multiplied[1, 2] = math.nan
    compare(got, right(forbidden, IDS, MASK), {"zero_times_inf": multiplied})
    far = torch.zeros(1, 2, 4, dtype=torch.float32)
    far[0, 0, 2] = -200.0
    row = (far, torch.tensor([[1, 2]]), torch.tensor([[0, 1]]))
    got = call(answer, *row, tried="logits [0, 0, -200, 0] in float32, the token is number 2")
    compare(got, right(*row), {"log_of_softmax": torch.tensor([[-math.inf]])})
    case = random_case(3)
    compare(gradient(answer, *case, tried="the gradient in the logits"), gradient(right, *case), default="gradient")
    return "values on four inputs, a forbidden word, a very unlikely one, and the gradient"


@exercise(
    "reply_logp",
    "Three tokens, one number",
    minutes=3,
    difficulty=1,
    kind="predict a number",
    points=1,
    hints={
        "mean_of_tokens": (
            "That is the average over the tokens. How probable are all three together?",
            "All three must come: multiply the probabilities, or add their logarithms. Nothing is divided.",
        ),
        "log_of_mean": (
            "That is the logarithm of the average probability. How probable are all three together?",
            "Multiply the three probabilities, then take the logarithm.",
        ),
        "eos_unscored": (
            "Two of the three tokens count in your number. Is the end not a token?",
            "The probability of the end belongs to the product too: 0.5 * 0.8 * 0.25.",
        ),
        "no_log": (
            "That is the probability. Asked for is its logarithm.",
            "Take math.log of your number.",
        ),
        "summed_probabilities": (
            "You have added probabilities. Can the sum be a probability when it is above 1?",
            "Add the logarithms of the probabilities, not the probabilities.",
        ),
        "negative": (
            "The sign: is the logarithm of a number below 1 positive or negative?",
            "It is negative: put a minus before your number.",
        ),
        "log10": (
            "That is a logarithm to another base. Which one has the nat as its unit?",
            "Use the natural logarithm, math.log with one argument.",
        ),
    },
)
def reply_logp(answer):
    p = (0.5, 0.8, 0.25)
    right = math.log(math.prod(p))
    number(
        answer,
        right,
        0.02,
        {
            "mean_of_tokens": right / 3,
            "log_of_mean": math.log(sum(p) / 3),
            "eos_unscored": math.log(0.4),
            "no_log": 0.1,
            "summed_probabilities": sum(p),
            "negative": -right,
            "log10": -1.0,
        },
        tried="tokens with p = 0.5, 0.8 and, for the end, 0.25",
    )
    return "the sum of three logarithms, in nats"


def mystery_scores(logits, input_ids, label_mask):
    """Scores of replies (B,) by a function with one fault; which one is the question of exercise 5.3."""
    return logprobs.get_probs(logits, input_ids, label_mask).sum(-1) / label_mask.sum()


@exercise(
    "mystery_curve",
    "The neighbours' fault",
    minutes=4,
    difficulty=2,
    kind="read a curve",
    points=1,
    hints={
        "no_shift": (
            "Without the shift every reply scores lower. Would that change with the number of neighbours?",
            "The fault must know how many rows there are. Which of the four looks at other rows?",
        ),
        "padding_scored": (
            "Scored padding adds negative numbers, and it grows with the longest reply. Does the curve fall?",
            "The curve rises towards 0, smoothly, with every reply that joins. What grows with every reply?",
        ),
        "mean_of_tokens": (
            "An average over a reply's own tokens is nearer to 0. But does it know its neighbours?",
            "The fault must know how many rows there are. Which of the four looks at other rows?",
        ),
    },
)
def mystery_curve(answer):
    choice(answer, "c", {"a": "no_shift", "b": "padding_scored", "d": "mean_of_tokens"})
    return "your reading of the curve"


def logratio_faults(policy, reference, ids, mask):
    """What the known faults of `logratio` give on this input."""
    ours, theirs = (logprobs.get_probs(x, ids, mask) for x in (policy, reference))
    table = ours - theirs
    right = table.sum(-1)
    plain = [_picked(x[:, :-1].log_softmax(-1), ids[:, 1:]) for x in (policy, reference)]
    everywhere = plain[0] - plain[1]
    own = _picked(policy.log_softmax(-1), ids) - _picked(reference.log_softmax(-1), ids)
    return [
        ("batch_mask_sum", right / mask.sum()),
        ("mean_of_tokens", right / mask.sum(-1)),
        ("mean_of_tokens", table.mean(-1)),
        ("turned_round", -right),
        ("per_token", table),
        ("summed_over_batch", right.sum()),
        ("summed_over_batch", right.mean()),
        ("ratio", right.exp()),
        ("eos_unscored", table.masked_fill(ids[:, 1:] == EOS, 0.0).sum(-1)),
        ("prompt_scored", everywhere.sum(-1)),
        ("prompt_scored", everywhere.masked_fill(ids[:, 1:] == 0, 0.0).sum(-1)),
        ("padding_scored", everywhere.masked_fill(~mask.cummax(1).values[:, 1:].bool(), 0.0).sum(-1)),
        ("policy_only", ours.sum(-1)),
        ("no_shift", (own * mask).sum(-1)),
    ]


@exercise(
    "logratio",
    "A log-ratio that adds up",
    minutes=6,
    difficulty=2,
    kind="repair a function",
    points=2,
    hints={
        "batch_mask_sum": (
            "A reply's number changes with its neighbours. Which quantity in your code looks at other rows?",
            "label_mask.sum() counts the tokens of the whole batch. Nothing is divided in a log-ratio.",
        ),
        "mean_of_tokens": (
            "You divide by the number of tokens or places. What is the ratio of two products?",
            "The logarithm of pi / pi_ref is a sum over the reply's tokens: .sum(-1), no division.",
        ),
        "turned_round": (
            "The sign is turned. Is r above or below 0 where the policy likes the reply better?",
            "Policy minus reference.",
        ),
        "per_token": (
            "There is one number per token. How many numbers does a reply have?",
            "Add up the tokens of each row: .sum(-1).",
        ),
        "summed_over_batch": (
            "All rows have gone into one number. How many replies are there?",
            "Sum over the last axis only: .sum(-1).",
        ),
        "ratio": (
            "That is the ratio. Asked for is its logarithm.",
            "Leave out exp: the difference of log-probabilities is the logarithm of the ratio.",
        ),
        "eos_unscored": (
            "The end token is missing. Did the policy not decide to stop?",
            "Keep every place where label_mask[:, 1:] is 1.",
        ),
        "prompt_scored": (
            "Tokens count that neither model wrote.",
            "Give label_mask to get_probs as it is: it marks the tokens of the reply.",
        ),
        "padding_scored": (
            "The padding behind a short reply counts.",
            "Give label_mask to get_probs as it is: behind <eos> it is 0.",
        ),
        "policy_only": (
            "Where is the reference?",
            "Subtract the reference's log-probability of the same reply.",
        ),
        "no_shift": (
            "Each token is scored with the logits at its own place. Which logits predict it?",
            "logprobs.get_probs shifts for you.",
        ),
        "reference_not_detached": (
            "The values are right. But a gradient flows into the reference, which should stay as it is.",
            "Compute the reference's part under torch.no_grad(), or put .detach() behind it.",
        ),
    },
)
def logratio(answer):
    def right(policy, reference, ids, mask):
        return (logprobs.get_probs(policy, ids, mask) - logprobs.get_probs(reference, ids, mask).detach()).sum(-1)

    stranger = torch.zeros_like(COUNTS, dtype=torch.float64)
    small = (COUNTS.double().log(), stranger, IDS, MASK)
    compare(call(answer, *small, tried=f"{SMALL}; the reference's all 0"), right(*small), logratio_faults(*small))
    for seed, dtype in ((0, torch.float64), (1, torch.float32)):
        policy, ids, mask = random_case(seed, dtype)
        case = (policy, random_case(seed + 10, dtype)[0], ids, mask)
        got = call(answer, *case, tried="random logits (3, 6, 5) for both models")
        compare(got, right(*case), logratio_faults(*case))
    compare(gradient(answer, *case, tried="the gradient in the policy's logits"), gradient(right, *case),
            default="gradient")  # fmt: skip
    if flows(answer, *case, wrt=1, tried="the gradient in the reference's logits"):
        raise Fault("reference_not_detached", got="a gradient", expected="none")
    return "values on three inputs, the policy's gradient, no gradient in the reference"
