"""Padding, masks and the mismatched completions for the reference point. Derived in lesson 04."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

FIELDS = ("input_ids", "attention_mask", "label_mask")


def mismatched(examples: Sequence[Mapping]) -> list[dict]:
    """Gives every prompt the completion of the row before it; row 0 gets the last row's.

    A rotation leaves no row with its own completion, for any number of rows from 2 on. (Reversing the list, which looks
    as good, keeps the middle row of an odd batch with its own.) Direction as in TRL 1.16.

    Args:
        examples: as returned by `data.tokenize_feedback`.

    Returns:
        One dict of `FIELDS` per example: prompt of row i + completion of row i - 1, EOS included.

    Raises:
        ValueError: fewer than two examples, so that no mismatch is possible.
    """
    if len(examples) < 2:
        why = "every row needs another row's. Use a batch size of at least 2 and drop a last batch of 1"
        raise ValueError(f"a batch of {len(examples)} has no mismatched completion: {why}")
    mixed = []
    for i, example in enumerate(examples):
        prompt = [t for t, m in zip(example["input_ids"], example["label_mask"], strict=True) if not m]
        other = examples[i - 1]
        completion = [t for t, m in zip(other["input_ids"], other["label_mask"], strict=True) if m]
        masks = {
            "attention_mask": [1] * (len(prompt) + len(completion)),
            "label_mask": [0] * len(prompt) + [1] * len(completion),
        }
        mixed.append({"input_ids": prompt + completion, **masks})
    return mixed


def _check_fields(row: Mapping, name: str, max_length: int | None) -> None:
    lengths = {field: len(row[field]) for field in FIELDS}
    if len(set(lengths.values())) > 1:  # padding would hide it: a short mask would lose its EOS unnoticed
        raise ValueError(f"{name}: {lengths}; the fields of a row must have one length")
    if not any(row["label_mask"][:max_length]):
        left = f"no token of its completion is left (max_length {max_length})"
        raise ValueError(f"{name}: {left}; raise max_length or drop the row")


def check_example(example: Mapping, name: str, max_length: int | None = None) -> None:
    """Refuses what is no tokenized feedback row; the errors are those of `KTOPaddingCollator` and call it `name`."""
    missing = [field for field in (*FIELDS, "label") if field not in example]
    if missing:
        raise KeyError(f"{name} has no {', '.join(missing)}; use data.tokenize_feedback first")
    if not isinstance(example["label"], (bool, np.bool_)):
        raise TypeError(f"{name}: label is {example['label']!r}; it must be True or False")
    _check_fields(example, name, max_length)


def pad_id_of(tokenizer) -> int:
    """What fills up the short rows of a batch; refuses a tokenizer that has no such token."""
    if getattr(tokenizer, "pad_token_id", None) is None:
        raise ValueError("the tokenizer has no pad token; set tokenizer.pad_token, e.g. to its eos token")
    return tokenizer.pad_token_id


def pad_rows(rows: Sequence[Mapping], pad_id: int, max_length: int | None = None) -> dict[str, torch.Tensor]:
    """Cuts rows to max_length tokens and pads them on the right to the longest; other fields are left out.

    Args:
        rows: dicts of `FIELDS`, each a list of ints.
        pad_id: the token put into input_ids; both masks get 0.
        max_length: in tokens, at least 1; None keeps all.

    Returns:
        dict of `FIELDS`, int64 tensors of shape (B, T).

    Raises:
        ValueError: no rows; max_length below 1; a row whose fields differ in length, or of which no
            completion token is left.
    """
    if not rows:
        raise ValueError("no rows to pad; a batch needs at least one")
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length is {max_length}; it must be at least 1, or None to keep all tokens")
    for number, row in enumerate(rows):
        _check_fields(row, f"row {number}", max_length)
    rows = [{field: list(row[field])[:max_length] for field in FIELDS} for row in rows]
    longest = max(len(row["input_ids"]) for row in rows)
    filler = {"input_ids": pad_id, "attention_mask": 0, "label_mask": 0}
    padded = {field: [row[field] + [filler[field]] * (longest - len(row[field])) for row in rows] for field in FIELDS}
    return {field: torch.tensor(values, dtype=torch.int64) for field, values in padded.items()}


class KTOPaddingCollator:
    """Pads tokenized feedback rows to one batch, together with the mismatched completions.

    Args:
        tokenizer: only its pad id is used.
        max_length: cuts the mismatched rows, which can be longer than any row of the batch; None keeps all.
            Pass the value given to `tokenize_feedback`.

    Calling it with a list of examples returns a dict of tensors: input_ids, attention_mask, label_mask
    (int64, shape (B, T)), label (bool, (B,)), and kl_input_ids, kl_attention_mask, kl_label_mask (B, T_kl)
    for the mismatched rows. Padding stands on the right and is 0 in both masks, so pad may equal eos.

    Raises:
        ValueError: no pad token; fewer than two examples; fields of different length; max_length below 1; no
            token of a completion left.
        KeyError: an example lacks a field.
        TypeError: a label that is no bool.
    """

    def __init__(self, tokenizer, max_length: int | None = None):
        self.pad_id = pad_id_of(tokenizer)
        self.max_length = max_length

    def __call__(self, examples: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        for number, example in enumerate(examples):
            check_example(example, f"example {number}")
        batch = pad_rows(examples, self.pad_id, self.max_length)
        batch["label"] = torch.tensor([example["label"] for example in examples], dtype=torch.bool)
        for field, tensor in pad_rows(mismatched(examples), self.pad_id, self.max_length).items():
            batch[f"kl_{field}"] = tensor
        return batch
