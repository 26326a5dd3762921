"""Thumbs or pairs for train_with_trl.py: read, checked row by row, cut by prompt, counted; before a model is loaded."""

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from messages import MARKS, conversation, pattern_of, special_names

FORMATS = (".jsonl", ".parquet")


def _lines(path: Path) -> Iterator[tuple[str, dict]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                hint = "; the file is one JSON array, write one object a line" if line.lstrip().startswith("[") else ""
                raise ValueError(f"{path.name}, line {number}: no JSON ({error}){hint}") from None
            if isinstance(row, list):
                raise ValueError(f"{path.name}, line {number}: a JSON array; write one object a line")
            yield f"{path.name}, line {number}", row


def _raw(source: str, split: str) -> Iterator[tuple[str, dict]]:
    """(where, row) of a JSONL or Parquet file, or of a data set with this name on the hub."""
    path = Path(source)
    if path.suffix == ".jsonl" and path.is_file():
        try:
            yield from _lines(path)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path.name}: byte {error.start} is no UTF-8; save the file as UTF-8") from None
        return
    if path.is_file() and path.suffix != ".parquet":
        raise ValueError(
            f"{path.name}: rows are read from {' or '.join(FORMATS)}. Of a CSV, whose cells are all text: "
            "table = pandas.read_csv(file); table['label'] = table['label'] == 'up'  (your word for a thumbs up); "
            "table.to_json('rows.jsonl', orient='records', lines=True, force_ascii=False)"
        )
    if path.suffix and not path.is_file() and (path.suffix in (*FORMATS, ".json", ".csv") or path.is_absolute()):
        raise ValueError(f"there is no file {source}")
    from datasets import load_dataset

    found = load_dataset("parquet", data_files=source, split="train") if path.is_file() else load_dataset(
        source, split=split
    )  # fmt: skip
    for number, row in enumerate(found):
        yield f"{path.name}, row {number}", row


def _thumbs_of(row: dict) -> list[dict]:
    """A row with its thumb; of a pair two."""
    if "completion" in row:
        return [row]
    others = {name: value for name, value in row.items() if name not in ("chosen", "rejected")}
    return [others | {"completion": row[side], "label": side == "chosen"} for side in ("chosen", "rejected")]


def load_rows(source: str, split: str, seed: int) -> list[dict]:
    """Thumbs (prompt, completion, label; texts or messages) in random order; pairs are cut in two.

    TRL cuts pairs itself if it gets any, chosen rows first, and never shuffles: batches would hold one kind of thumb.

    Raises:
        ValueError: a row that cannot be used, with where it is, what was found and how to mend it; an unreadable file.
    """
    rows, kinds = [], {}
    for where, raw in _raw(source, split):
        try:
            row = conversation(raw)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error.args[0]}") from None
        kinds.setdefault("texts" if isinstance(row["prompt"], str) else "messages", where)
        if len(kinds) > 1:
            raise ValueError(f"{kinds['texts']} holds texts and {kinds['messages']} messages; TRL needs one kind")
        rows += [thumb | {"where": where} for thumb in _thumbs_of(row)]
    if not rows:
        raise ValueError(f"{source} holds no row")
    return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]  # as datasets shuffles


def prompt_key(row: Mapping) -> str:
    return json.dumps(row["prompt"], sort_keys=True, ensure_ascii=False)


def cut_by_prompt(rows: Sequence[dict], share: float, seed: int) -> tuple[list[dict], list[dict]]:
    """(training, evaluation): about this share of the prompts, with all their rows, goes to the evaluation.

    Raises:
        ValueError: a share outside ]0, 1[, or so few prompts that one side would be empty.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share for evaluation is {share}; it must be between 0 and 1")
    prompts = sorted({prompt_key(row) for row in rows})
    random.Random(seed).shuffle(prompts)
    n = round(share * len(prompts))
    if not 1 <= n < len(prompts):
        raise ValueError(f"{share:.0%} of {len(prompts)} different prompts is {n}; give evaluation rows of your own")
    chosen = set(prompts[:n])
    sides: dict[bool, list[dict]] = {False: [], True: []}
    for row in rows:
        sides[prompt_key(row) in chosen].append(row)
    return sides[False], sides[True]


def weights_from_counts(labels: Sequence[bool]) -> dict[str, float]:
    """Weights that give both kinds of thumb the same total, the smaller weight being 1."""
    up = sum(labels)
    down = len(labels) - up
    if not up or not down:
        raise ValueError(f"{up} thumbs up and {down} down: KTO needs both kinds")
    return {"desirable_weight": max(1.0, down / up), "undesirable_weight": max(1.0, up / down)}


def share_of_mixed_batches(labels: Sequence[bool], batch_size: int) -> float:
    """How many of the full batches, read in order, hold both kinds of thumb.

    Args:
        batch_size: of a whole optimiser step: rows a process x accumulation steps x processes.
    """
    batches = [labels[i : i + batch_size] for i in range(0, len(labels) - batch_size + 1, batch_size)]
    return sum(len(set(batch)) == 2 for batch in batches) / max(1, len(batches))


def batch_for_mixed(labels: Sequence[bool], wanted: float = 0.95) -> int:
    """The smallest batch of which, in random order, this share holds both kinds."""
    up = sum(labels) / len(labels)
    rare = min(up, 1 - up)
    size = max(2, math.ceil(math.log(1 - wanted) / math.log(1 - rare)))
    while 1 - up**size - (1 - up) ** size < wanted:
        size += 1
    return size


def check_enough(n_rows: int, per_process: int, accumulated: int, processes: int, what: str) -> None:
    """Refuses rows that fill no batch: incomplete ones are left out, so the run would make no step and say nothing."""
    if per_process < 2:
        raise ValueError(f"per_device_train_batch_size is {per_process}; KTO needs at least 2, to mismatch them")
    needed = per_process * accumulated * processes
    if n_rows < needed:
        most = n_rows // (accumulated * processes)
        remedy = f"at most {most}" if most >= 2 else f"2, with accumulation 1 and fewer than {processes + 1} processes"
        raise ValueError(
            f"{n_rows} {what} fill no batch of {needed} ({per_process} rows x {accumulated} accumulated x {processes} "
            f"processes): nothing would be done. Collect more, or set per_device_train_batch_size to {remedy}"
        )


def check_special_tokens(rows: Sequence[Mapping], tokenizer) -> None:
    """Refuses rows in which the name of a special token stands: TRL reads it as the token, whoever wrote it.

    Raises:
        ValueError: naming the row, the token and the choice. EOS at the end of a text is allowed, as in TRL.
    """
    special = pattern_of(special_names(tokenizer))
    for row in rows:
        if isinstance(row["prompt"], str):
            text = row["prompt"] + row["completion"].removesuffix(tokenizer.eos_token)
            found = special.search(text) or MARKS.search(text)
            remedy = (
                "if a template wrote it, give the row as messages, [{'role': 'user', 'content': ...}], and the "
                "tokenizer's template is applied, with BOS and EOS once; if somebody typed it, take it out"
            )
        else:
            contents = [message.get("content") or "" for message in [*row["prompt"], *row["completion"]]]
            found = special.search("\n".join(contents))
            remedy = "somebody typed it, and TRL would read it as the token; take it out, or leave the row out"
        if found:
            raise ValueError(f"{row['where']}: holds {found[0]!r}, the name of a special token: {remedy}")
