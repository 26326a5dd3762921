"""The one exercise of lesson 13: the log-probability of a reply, from the model to one number."""

import torch

from kto_course.checks.engine import call, compare, exercise, gradient
from kto_course.checks.lesson_05 import IDS, MASK, get_probs_faults, random_case
from kto_utils import logprobs

# What comes after <pad>, sky?, blue, <eos>: a model that looks at the last word only.
COUNTS = torch.tensor([[1, 1, 1, 1], [1, 1, 6, 2], [1, 3, 4, 8], [5, 2, 2, 1]])
SMALL = f"a model that looks at the last word only, input_ids {IDS.tolist()}, label_mask {MASK.tolist()}"


class _Output(dict):
    """Answers to .logits, ["logits"] and [0], as the library's outputs do."""

    def __getattr__(self, name: str):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, key):
        return super().__getitem__("logits" if key == 0 else key)


class LastWord:
    """A language model whose logits are a row of `table` (V, V): that of the word just read."""

    def __init__(self, table: torch.Tensor):
        self.table = table

    def __call__(self, input_ids, attention_mask=None, **_):
        return _Output(logits=self.table[input_ids])


def _faults(table, ids, mask):
    """What the known faults give on this input: those of `get_probs`, added up, and those of the sum."""
    logits = table[ids]
    per_token = logprobs.get_probs(logits, ids, mask)
    right = per_token.sum(-1)
    known = [
        ("mean_of_tokens", right / mask.sum(-1)),
        ("mean_of_tokens", per_token.mean(-1)),
        ("batch_mask_sum", right / mask.sum()),
        ("per_token", per_token),
        ("summed_over_batch", right.sum()),
        ("summed_over_batch", per_token.sum(0)),
        ("no_log", right.exp()),
    ]
    taken = ("no_shift", "mask_not_shifted", "no_mask", "prompt_scored", "padding_scored", "eos_unscored",
             "negative", "no_softmax")  # fmt: skip
    found = [(fault, value) for fault, value in get_probs_faults(logits, ids, mask) if fault in taken]
    return known + [(fault, value.sum(-1)) for fault, value in found]


@exercise(
    "sequence_logps",
    "From a model to one number",
    minutes=6,
    difficulty=2,
    kind="fill in a function",
    points=2,
    hints={
        "no_shift": (
            "Each token is scored with the logits at its own place. Which place predicts it?",
            "Pair logits[:, :-1] with input_ids[:, 1:] and label_mask[:, 1:].",
        ),
        "mask_not_shifted": (
            "The mask is one place off. To which token does a flag belong?",
            "Cut it like the token ids: label_mask[:, 1:].",
        ),
        "no_mask": (
            "Tokens count that the model did not write. What is label_mask for?",
            "Before the sum, put 0.0 where label_mask[:, 1:] is 0.",
        ),
        "prompt_scored": (
            "The padding is left out, but the prompt still counts. Who wrote the prompt?",
            "attention_mask says what is no padding; label_mask says what the model wrote. Take the latter.",
        ),
        "padding_scored": (
            "The padding behind a short reply still counts.",
            "Use label_mask as it is: behind <eos> it is 0.",
        ),
        "eos_unscored": (
            "The end token is missing. Did the model not decide to stop?",
            "Keep every place where label_mask[:, 1:] is 1, the last one too.",
        ),
        "mean_of_tokens": (
            "You divide by a number of tokens. How probable are all of them together?",
            "Probabilities multiply, so their logarithms add up: .sum(-1), no division.",
        ),
        "batch_mask_sum": (
            "Your number of a reply changes with its neighbours. Which quantity looks at other rows?",
            "label_mask.sum() counts the whole batch. Nothing is divided here.",
        ),
        "per_token": (
            "There is one number per token. How many numbers does a reply have?",
            "Add up each row: .sum(-1).",
        ),
        "summed_over_batch": (
            "The rows have been added to one another. How many replies are there?",
            "Sum over the last axis only: .sum(-1), which gives (B,).",
        ),
        "negative": (
            "The sign is turned. Is the logarithm of a probability positive or negative?",
            "cross_entropy is minus the log-probability: put a minus before it.",
        ),
        "no_log": (
            "These are probabilities. Asked for are their logarithms.",
            "Leave out exp.",
        ),
        "no_softmax": (
            "These are sums of logits. Do they add up to 1, once exponentiated?",
            "Take log_softmax(-1) before you pick the tokens.",
        ),
        "no_gradient": (
            "No gradient reaches the model. A policy could not learn from this number.",
            "No torch.no_grad() and no .detach() in here: the caller decides about gradients.",
        ),
    },
)
def sequence_logps(answer):
    def right(table, ids, mask):
        return logprobs.get_probs(table[ids], ids, mask).sum(-1)

    def given(table, ids, mask):
        return LastWord(table), ids, (ids != 0).long(), mask

    def ours(table, ids, mask):  # of the model's table, for the gradient
        return answer(*given(table, ids, mask))

    small = (COUNTS.double().log(), IDS, MASK)
    compare(call(answer, *given(*small), tried=SMALL), right(*small), _faults(*small))
    for seed, dtype in ((0, torch.float64), (1, torch.float64), (2, torch.float32)):
        logits, ids, mask = random_case(seed, dtype)
        case = (logits[0, :5], ids, mask)
        got = call(answer, *given(*case), tried="a random model of five words, replies of several lengths")
        compare(got, right(*case), _faults(*case))
    compare(gradient(ours, *case, tried="the gradient in the model"), gradient(right, *case), default="gradient")
    return "values on four inputs, and the gradient in the model"
