"""The front door to a file of thumbs: `load_feedback` checks every row and gives the good ones. Lesson 11.

`kto_lab.records` finds the rows in the file, `kto_lab.rows` says what is wrong with one, `kto_lab.feedback` with all of
them, `kto_lab.report` what to do about it.
"""

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from kto_lab.feedback import Feedback, checked, thumbs_of
from kto_lab.records import ColumnError
from kto_lab.report import columns_advice
from kto_lab.rows import RowCheck
from kto_utils.data import tokenize_feedback


def load_feedback(
    path: Path | str,
    *,
    labels: Mapping | None = None,
    columns: Mapping[str, str] | None = None,
    tokenizer=None,
    max_length: int | None = None,
    accept: Collection[str] = (),
    strict: bool = True,
    side_file: Path | str | None = None,
    overwrite: bool = False,
) -> Feedback:
    """Checks every row of a file of thumbs and gives the good ones. Nothing is dropped, mended or guessed in silence.

    The file is read record by record and may be larger than memory. A row costs about 35 bytes while it is checked and
    about 100 when repeats are sorted out. A progress bar shows in a terminal.

    Args:
        path: .jsonl, .ndjson, .csv (UTF-8, comma, header) or .parquet.
        labels: what labels other than booleans mean, e.g. {"up": True, "down": False} or {1: True, 0: False}. Without
            it only booleans count, and in a CSV the words true and false.
        columns: other names of the three fields, e.g. {"prompt": "question", "label": "thumb"}.
        tokenizer, max_length: find rows of which truncation leaves no completion token. The tokenizer must be
            byte-level (no more tokens than bytes): then most rows need not be tokenized.
        accept: kinds of `ACCEPTABLE` to keep all the same. Where several people vote on one reply and the file does
            not say who, accept "duplicate" and "opposite_labels": they are votes.
        strict: True refuses a file with any rejected row. False keeps the good rows and writes the others to
            side_file.
        side_file: default NAME.rejected.jsonl beside the file. A line for each rejected row: row, kind, reason, and
            where it stands and what it holds (line, at_byte, n_bytes and raw or raw_base64; for Parquet record).
            Written only if a row is rejected.
        overwrite: replace (or remove) an older side file; without it one that exists is an error.

    Returns:
        Feedback: iterate over it, or list(...) it; `.report` counts each kind of fault and numbers its rows. Of exact
        duplicates the first is good; of opposite labels none is, since which one is right is not ours to guess.

    Raises:
        FeedbackError: strict, and a row was rejected, or there is none. Its `report` is complete.
        FileNotFoundError, FileExistsError: no such file; a side file is in the way.
        TypeError, ValueError: unusable arguments, an unknown extension, a missing column, no Parquet file.

    Lesson 11 uses it on a messy export.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"path is a {type(path).__name__}; load_feedback reads a file. A DataFrame can be written as one: "
            "frame.to_json('thumbs.jsonl', orient='records', lines=True)"
        )
    check = RowCheck(path, labels, columns, _cut_to_nothing(tokenizer, max_length))
    try:
        return checked(path, check, accept, strict, side_file, overwrite)
    except ColumnError as error:
        error.args = (f"{error.found}. {columns_advice(error.names, check.names, terminal=False)}",)
        raise


def _cut_to_nothing(tokenizer, max_length: int | None) -> Callable[[Mapping, int], str | None] | None:
    """Says why truncation leaves no completion token of a row, None where it leaves one."""
    if (tokenizer is None) != (max_length is None):
        raise ValueError("tokenizer and max_length belong together: pass both, or none")
    if max_length is None:
        return None
    if max_length < 1:
        raise ValueError(f"max_length is {max_length}; it must be at least 1")

    def reason(row: Mapping, prompt_bytes: int) -> str | None:
        if not isinstance(row["prompt"], str):
            return _chat_cut_to_nothing(row["prompt"], tokenizer, max_length)
        # A text has no more tokens than bytes: behind BOS and a shorter prompt there is room for a completion token.
        if 1 + prompt_bytes < max_length:
            return None
        try:
            for thumb in thumbs_of(row):
                tokenize_feedback(thumb, tokenizer, max_length)
        except ValueError as error:
            return str(error)
        return None

    return reason


def _chat_cut_to_nothing(prompt: list[dict], tokenizer, max_length: int) -> str | None:
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError("the rows are chats and the tokenizer has no chat template; name the one of your model")
    n = len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False))
    if n < max_length:
        return None
    return f"no token of the reply is left: the prompt takes {n} tokens and max_length is {max_length}"
