"""Feedback rows: from one dict with a thumb to token ids with a mask, and from pairs to thumbs and back. Lesson 03.

A feedback row is a dict with `prompt` (str), `completion` (non-empty str) and `label` (bool, True = thumbs
up). A pair is a dict with `prompt`, `chosen` and `rejected`. Torch is not needed here.
"""

import json
import random
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path

import numpy as np

EIGHT_ROWS_FILE = Path(__file__).parent / "assets" / "eight_rows.jsonl"


def format_prompt(question: str) -> str:
    """Puts a question into the course's prompt template; a completion then starts with a blank.

    >>> format_prompt("What colour is the sky?")
    'USER: What colour is the sky? ASSISTANT:'
    """
    return f"USER: {question} ASSISTANT:"


def load_eight_rows() -> list[dict]:
    """The eight hand-readable feedback rows of lessons 03 to 06: three thumbs up, five thumbs down."""
    return [json.loads(line) for line in EIGHT_ROWS_FILE.read_text(encoding="utf-8").splitlines()]


def _text_field(row: Mapping, field: str, empty_allowed: bool = False) -> str:
    if not isinstance(row, Mapping):
        raise TypeError(f"a row is a {type(row).__name__}; it must be a dict (of a DataFrame: .to_dict('records'))")
    if field not in row:
        raise KeyError(f"the row has no field {field!r}; it has {sorted(row)}")
    text = row[field]
    if not isinstance(text, str):
        raise TypeError(f"{field} is a {type(text).__name__}; it must be a string")
    if not text.strip() and not empty_allowed:
        raise ValueError(f"{field} is empty; every row needs a {field} with at least one visible character")
    return text


def check_row(row: Mapping) -> None:
    """Refuses a row that KTO cannot use, saying why.

    Raises:
        KeyError, ValueError: `prompt`, `completion` or `label` is missing; the completion is empty.
        TypeError: prompt or completion is no string, or label is no bool, Python's or NumPy's (1 and "true" are refused
            too: guessing what they mean is how all rows become thumbs up).
    """
    _text_field(row, "prompt", empty_allowed=True)
    _text_field(row, "completion")
    if "label" not in row:
        raise KeyError(f"the row has no field 'label'; it has {sorted(row)}")
    if not isinstance(row["label"], (bool, np.bool_)):
        raise TypeError(f"label is {row['label']!r} ({type(row['label']).__name__}); it must be True or False")


def tokenize_feedback(row: Mapping, tokenizer, max_length: int | None = None) -> dict:
    """Turns one feedback row into token ids and masks.

    input_ids = BOS + prompt + completion + EOS, where prompt + completion is tokenized as one text. The
    prompt ends where the ids of prompt + completion first differ from those of the prompt alone (the rule of
    TRL 1.16), so a token that spans the boundary belongs to the completion.

    Args:
        row: with `prompt`, `completion`, `label`; the template is already applied.
        tokenizer: with eos, e.g. from `load_tokenizer()`; one without bos (Qwen's) puts none.
        max_length: keep only the first max_length tokens; None keeps all.

    Returns:
        dict of input_ids, attention_mask (all 1), label_mask (1 on completion tokens, EOS included; lists of
        T ints) and label (bool).

    Raises:
        KeyError, TypeError, ValueError: as `check_row`; max_length below 1; the tokenizer has no eos;
            no token of the completion is left after truncation (such a row would add a constant to the loss).

    Lesson 03 derives it; text such as "<eos>" inside a row stays text and never becomes a special token.
    """
    check_row(row)
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length is {max_length}; it must be at least 1, or None to keep all tokens")
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no eos token; set tokenizer.eos_token first")

    def ids_of(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    prompt_ids = ids_of(row["prompt"])
    whole_ids = ids_of(row["prompt"] + row["completion"])
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(prompt_ids, whole_ids, strict=False))
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    start = len(bos) + sum(1 for _ in alike)
    input_ids = [*bos, *whole_ids, tokenizer.eos_token_id]
    label_mask = [0] * start + [1] * (len(input_ids) - start)
    if max_length is not None:
        input_ids, label_mask = input_ids[:max_length], label_mask[:max_length]
        if not any(label_mask):
            raise ValueError(
                f"no token of the completion is left: the prompt takes {start} tokens and max_length is "
                f"{max_length}; raise max_length or shorten the prompt"
            )
    masks = {"attention_mask": [1] * len(input_ids), "label_mask": label_mask}
    return {"input_ids": input_ids, **masks, "label": bool(row["label"])}


def unpair(pairs: Iterable[Mapping], seed: int) -> list[dict]:
    """Turns preference pairs into twice as many thumbs, shuffled.

    Without the shuffle a pair's two replies stand side by side, so a mismatched completion would often answer the same
    prompt. Libraries that write all chosen, then all rejected, get batches of one kind instead.

    Args:
        pairs: dicts with `prompt`, `chosen`, `rejected`.
        seed: of the shuffle.

    Returns:
        2n feedback rows; chosen has label True, rejected False. Other fields of a pair are not carried over.

    Raises:
        KeyError, TypeError, ValueError: a pair lacks a field, or a field is no text, or is empty; both sides are equal.
    """
    rows = []
    for number, pair in enumerate(pairs):
        try:
            prompt = _text_field(pair, "prompt", empty_allowed=True)
            for field, label in (("chosen", True), ("rejected", False)):
                rows.append({"prompt": prompt, "completion": _text_field(pair, field), "label": label})
            if pair["chosen"] == pair["rejected"]:
                raise ValueError("chosen and rejected are the same text: one reply, up and down. Leave this pair out")
        except (KeyError, TypeError, ValueError) as error:
            raise type(error)(f"pair {number}: {error.args[0]}") from None
    random.Random(seed).shuffle(rows)
    return rows


def pair_up(rows: Iterable[Mapping], seed: int) -> tuple[list[dict], list[dict]]:
    """Makes preference pairs out of thumbs: a thumbs-up and a thumbs-down on the same prompt, each used once.

    Args:
        rows: feedback rows.
        seed: decides which up meets which down.

    Returns:
        (pairs, left_over): what DPO can use, and the rows that found no partner, which it cannot.

    Raises:
        KeyError, TypeError, ValueError: as `check_row`, with the row's number.

    Lesson 08 counts what is lost.
    """
    by_prompt: dict[str, tuple[list, list]] = {}
    for number, row in enumerate(rows):
        try:
            check_row(row)
        except (KeyError, TypeError, ValueError) as error:
            raise type(error)(f"row {number}: {error.args[0]}") from None
        by_prompt.setdefault(row["prompt"], ([], []))[0 if row["label"] else 1].append(row)
    rng = random.Random(seed)
    pairs, left_over = [], []
    for prompt, (ups, downs) in by_prompt.items():
        rng.shuffle(ups)
        rng.shuffle(downs)
        for up, down in zip(ups, downs, strict=False):
            pairs.append({"prompt": prompt, "chosen": up["completion"], "rejected": down["completion"]})
        n_pairs = min(len(ups), len(downs))
        left_over += ups[n_pairs:] + downs[n_pairs:]
    rng.shuffle(pairs)
    return pairs, left_over
