"""What lesson 03 goes on with where an exercise is still open, and the one number it borrows from lesson 05."""

import functools
from collections.abc import Mapping, Sequence
from itertools import pairwise

from kto_utils.data import tokenize_feedback
from kto_utils.tokenizer import merge


def encode_word(word: tuple[int, ...], merges: Mapping[tuple[int, int], int]) -> tuple[int, ...]:
    """The tokens of one chunk, after every merge that applies, the one learned first before all others.

    Args:
        word: ids of the chunk's bytes.
        merges: pair of ids -> the id it becomes, in the order of learning.

    >>> encode_word((5, 6, 7), {(6, 7): 20, (5, 6): 21})
    (5, 20)
    """
    rank = {pair: n for n, pair in enumerate(merges)}
    while known := [pair for pair in pairwise(word) if pair in rank]:
        earliest = min(known, key=rank.__getitem__)
        word = merge(word, earliest, merges[earliest])
    return word


def tokenize_with_mask(prompt: str, completion: str, tokenizer) -> tuple[list[int], list[int]]:
    """input_ids and label_mask of one row, as `kto_utils.data.tokenize_feedback` makes them; (T,) each."""
    example = tokenize_feedback({"prompt": prompt, "completion": completion, "label": True}, tokenizer)
    return example["input_ids"], example["label_mask"]


@functools.cache
def _reference_model():
    from kto_utils.model import load_reference_model

    return load_reference_model().requires_grad_(False)


def reply_logp(prompt_ids: Sequence[int], reply_ids: Sequence[int]) -> float:
    """How likely the shipped model finds a reply: the logarithm of its probability, <eos> included, in nats.

    The model reads <bos>, the prompt's tokens and the reply's, exactly as they are handed over. Lesson 05 derives it.
    """
    import torch

    from kto_utils.logprobs import sequence_logps
    from kto_utils.tokenizer import BOS_ID, EOS_ID

    ids = [BOS_ID, *prompt_ids, *reply_ids, EOS_ID]
    mask = [0] * (1 + len(prompt_ids)) + [1] * (len(reply_ids) + 1)
    fields = {"input_ids": ids, "attention_mask": [1] * len(ids), "label_mask": mask}
    batch = {name: torch.tensor([values]) for name, values in fields.items()}
    return sequence_logps(_reference_model(), batch).item()


def continuation(prompt_ids: Sequence[int], longest: int = 40) -> list[int]:
    """What the shipped model says after these tokens, always its likeliest one, until <eos> or `longest` tokens."""
    import torch

    from kto_utils.tokenizer import BOS_ID, EOS_ID

    ids = [BOS_ID, *prompt_ids]
    start = len(ids)
    while len(ids) < start + longest and (len(ids) == start or ids[-1] != EOS_ID):
        ids.append(_reference_model()(torch.tensor([ids])).logits[0, -1].argmax().item())
    return ids[start:]
