"""The exercises of lesson 04: the collator."""

import random

import torch

from kto_course.checks.engine import Fault, call, choice, compare, exercise, number

ROWS, SCORED = (18, 21, 44), (4, 6, 21)


@exercise(
    "count_zeros",
    "Count the zeros",
    minutes=3,
    difficulty=1,
    kind="predict a number",
    points=1,
    hints={
        "padding_only": (
            "That is the padding. Which real tokens have a 0 in label_mask, too?",
            "Add the prompts: tokens that are read but not scored.",
        ),
        "prompts_only": (
            "Those are the tokens of the prompts. What did padding add?",
            "All rows are as long as the longest: 3 * 44 cells. Padding has a 0, too.",
        ),
        "ones": (
            "Those are the ones. Asked for are the zeros.",
            "Subtract it from the number of cells, 3 * 44.",
        ),
        "all_cells": (
            "Those are all cells. Some of them are scored.",
            "Subtract the scored ones, 4 + 6 + 21.",
        ),
        "real_tokens": (
            "Those are the tokens before padding: the ones in attention_mask. Which mask is asked about?",
            "label_mask is 1 on scored tokens only, and has 3 * 44 cells.",
        ),
        "short_rows": (
            "Is every row as long as the longest one in your count?",
            "The tensor is a rectangle of 3 rows and 44 columns; 31 of its cells are scored.",
        ),
    },
)
def count_zeros(answer):
    cells, tokens, scored = 3 * max(ROWS), sum(ROWS), sum(SCORED)
    faults = {
        "padding_only": cells - tokens, "prompts_only": tokens - scored, "ones": scored, "all_cells": cells,
        "real_tokens": tokens, "short_rows": 3 * min(ROWS) - scored,
    }  # fmt: skip
    number(answer, cells - scored, 0.1, faults, tried="rows of 18, 21 and 44 tokens, of them 4, 6 and 21 scored")
    return "the cells of a rectangle, less those that are scored"


def _padded(lists, fill, width=None, left=False):
    width = width or max(map(len, lists))
    rows = [[fill] * (width - len(x)) + x if left else x + [fill] * (width - len(x)) for x in lists]
    return torch.tensor(rows)


def _split(row):
    """(prompt ids, completion ids) of one example."""
    start = row["label_mask"].index(1)
    return row["input_ids"][:start], row["input_ids"][start:]


def lent(examples, lender, prompt_moves=False):
    """(ids, label mask) of each row with the completion (or the prompt) of row lender(i)."""
    parts = [_split(row) for row in examples]
    pairs = [(parts[lender(i)][0], p[1]) if prompt_moves else (p[0], parts[lender(i)][1]) for i, p in enumerate(parts)]
    return [(prompt + reply, [0] * len(prompt) + [1] * len(reply)) for prompt, reply in pairs]


def tables(rows, pad, width=None, left=False):
    """The three tensors of rows (ids, label mask)."""
    ids, masks = [r[0] for r in rows], [r[1] for r in rows]
    return {
        "input_ids": _padded(ids, pad, width, left),
        "attention_mask": _padded([[1] * len(x) for x in ids], 0, width, left),
        "label_mask": _padded(masks, 0, width, left),
    }


def padding_faults(rows, pad, other_width):
    """field -> [(fault, value)]: what can go wrong with padding and masks."""
    right = tables(rows, pad)
    wide = tables(rows, pad, max(other_width, right["input_ids"].shape[1]))
    left, zeros = tables(rows, pad, left=True), tables(rows, 0)
    known = {field: [("padded_left", left[field]), ("one_width", wide[field])] for field in right}
    ids, read, mask = right.values()
    guessed = (ids != pad).long()
    known["input_ids"] += [("pad_id_ignored", zeros["input_ids"])]
    known["attention_mask"] += [
        ("mask_from_ids", guessed), ("padding_read", torch.ones_like(ids)), ("masks_exchanged", mask)
    ]  # fmt: skip
    known["label_mask"] += [
        ("prompt_scored", read),
        ("prompt_scored", torch.ones_like(ids)),
        ("padding_scored", mask + 1 - read),
        ("eos_unscored", mask * guessed),
        ("eos_unscored", mask * (torch.arange(ids.shape[1]) < read.sum(1)[:, None] - 1)),
    ]
    return right, known


def collate_faults(examples, pad):
    """(right batch, field -> known faults) for `collate_kto`."""
    rows = [(row["input_ids"], row["label_mask"]) for row in examples]
    n, moved = len(rows), lent(examples, lambda i: i - 1)
    right, known = padding_faults(rows, pad, tables(moved, pad)["input_ids"].shape[1])
    kl, kl_known = padding_faults(moved, pad, right["input_ids"].shape[1])
    others = {
        "matched_z0": rows,
        "whole_rows_moved": [rows[i - 1] for i in range(n)],
        "reversed_completions": lent(examples, lambda i: n - 1 - i),
        "other_direction": lent(examples, lambda i: (i + 1) % n),
        "prompts_moved": lent(examples, lambda i: i - 1, prompt_moves=True),
        "eos_lost": [(ids[:-1], mask[:-1]) for ids, mask in moved],
    }
    wrong = [(fault, tables(value, pad)) for fault, value in others.items()]
    for field in kl_known:
        known[f"kl_{field}"] = kl_known[field] + [(fault, value[field]) for fault, value in wrong]
        right[f"kl_{field}"] = kl[field]
    known["kl_label_mask"].insert(0, ("mask_not_moved", right["label_mask"]))
    right["label"] = torch.tensor([row["label"] for row in examples])
    known["label"] = [("labels_moved", right["label"].roll(1)), ("labels_inverted", ~right["label"])]
    return right, known


def _example(prompt, reply, label):
    mask = [0] * len(prompt) + [1] * len(reply)
    return {"input_ids": prompt + reply, "attention_mask": [1] * len(mask), "label_mask": mask, "label": label}


def random_examples(seed, size):
    rng = random.Random(seed)
    rows = []
    for i in range(size):
        prompt = [1] + [rng.randrange(3, 50) for _ in range(rng.randrange(1, 7))]
        reply = [rng.randrange(3, 50) for _ in range(rng.randrange(1, 7))] + [2]
        rows.append(_example(prompt, reply, i % 3 == 0))
    return rows


THREE = [_example([1, 10], [11, 2], True), _example([1], [20, 2], False), _example([1, 30], [2], False)]


def _lists(rows):
    """Rows (ids, label mask) as the dicts that `mismatched` returns."""
    return [{"input_ids": ids, "attention_mask": [1] * len(ids), "label_mask": mask} for ids, mask in rows]


def mismatched_faults(examples):
    """(right rows, [(fault, rows)]) for `mismatched`."""
    n, moved = len(examples), lent(examples, lambda i: i - 1)
    right, own = _lists(moved), _lists([(row["input_ids"], row["label_mask"]) for row in examples])
    known = {
        "matched_z0": own,
        "whole_rows_moved": [own[i - 1] for i in range(n)],
        "reversed_completions": _lists(lent(examples, lambda i: n - 1 - i)),
        "other_direction": _lists(lent(examples, lambda i: (i + 1) % n)),
        "prompts_moved": _lists(lent(examples, lambda i: i - 1, prompt_moves=True)),
        "eos_lost": _lists([(ids[:-1], mask[:-1]) for ids, mask in moved]),
        "bos_lost": _lists([(ids[1:], mask[1:]) for ids, mask in moved]),
        "prompt_scored": _lists([(ids, [1] * len(ids)) for ids, _ in moved]),
        "mask_not_moved": [row | {"label_mask": old["label_mask"]} for row, old in zip(right, own, strict=True)],
        "masks_exchanged": [
            row | {"attention_mask": row["label_mask"], "label_mask": row["attention_mask"]} for row in right
        ],
        "completion_only_read": [row | {"attention_mask": row["label_mask"]} for row in right],
        "read_mask_not_moved": [
            row | {"attention_mask": old["attention_mask"]} for row, old in zip(right, own, strict=True)
        ],
    }
    return right, list(known.items())


def _list_of_rows(got, size):
    """The answer as dicts of lists of ints.

    Raises:
        Fault: it is none, has another number of rows, or its rows other fields.
    """
    if not isinstance(got, list | tuple) or not all(isinstance(row, dict) for row in got):
        raise Fault("type", got=f"a {type(got).__name__}", expected="a list of dicts")
    if len(got) != size:
        raise Fault("rows", got=f"{len(got)} rows", expected=f"{size} rows")
    fields = ["attention_mask", "input_ids", "label_mask"]
    for row in got:
        if set(row) != set(fields):
            fault = "label_kept" if set(row) == {*fields, "label"} else "fields"
            raise Fault(fault, got=sorted(map(str, row)), expected=fields)
        if not all(isinstance(value, list) for value in row.values()):
            raise Fault("type", got="a row that holds no lists", expected="three lists of ints in each row")
    return [{field: [int(number) for number in row[field]] for field in fields} for row in got]


@exercise(
    "mismatched",
    "Pass the replies on",
    minutes=8,
    difficulty=2,
    kind="fill in a function",
    points=3,
    ours="kto_utils.collator.mismatched",
    hints={
        "matched_z0": (
            "Each row has kept its own completion. Whose should it have?",
            "Row i: its own prompt and the completion of examples[i - 1].",
        ),
        "whole_rows_moved": (
            "You have moved whole rows. Is a prompt with its own completion mismatched?",
            "Only the completion is borrowed. The prompt stays where it is.",
        ),
        "reversed_completions": (
            "You take the rows from the end. Which row keeps its own when their number is odd?",
            "Rotate: row i borrows from examples[i - 1]. For i = 0 that is the last row, so 0 is no special case.",
        ),
        "other_direction": (
            "A rotation, but the other way round. From which row should row i borrow?",
            "From row i - 1. (HALOs takes i + 1.)",
        ),
        "prompts_moved": (
            "The completion stayed and the prompt moved. Row i should keep its prompt.",
            "Join the prompt of row i and the completion of row i - 1.",
        ),
        "eos_lost": (
            "The borrowed completions have lost their end. What belongs to a completion?",
            "Every token with label_mask 1 moves, <eos> included.",
        ),
        "bos_lost": (
            "The rows have lost their first token. Where does <bos> belong?",
            "Every token with label_mask 0 stays, <bos> included.",
        ),
        "prompt_scored": (
            "The prompt is scored. What does label_mask say about prompts?",
            "0 for each token of the prompt, then 1 for each token of the borrowed completion.",
        ),
        "mask_not_moved": (
            "The ids are right; label_mask is still that of the row's own completion.",
            "0 for each token of the prompt, then 1 for each token of the borrowed completion.",
        ),
        "masks_exchanged": (
            "One mask has what belongs into the other.",
            "attention_mask: 1 for every token. label_mask: 1 for the completion only.",
        ),
        "completion_only_read": (
            "By your attention_mask the model may not read the prompt.",
            "attention_mask is 1 for every token of the new row: [1] * its length.",
        ),
        "read_mask_not_moved": (
            "Your attention_mask is as long as the old row. How long is the new one?",
            "[1] * (tokens of the prompt + tokens of the borrowed completion).",
        ),
        "label_kept": (
            "The new rows have a label. Who judged them?",
            "Return the three lists only.",
        ),
        "fields": (
            "Some fields are missing, or there are too many.",
            "input_ids, attention_mask and label_mask, in every row.",
        ),
        "rows": (
            "Every prompt gets one new row. How many have you made?",
            "As many as there are examples: row 0 too, which borrows from the last.",
        ),
    },
)  # fmt: skip
def mismatched(answer):
    small = "ids [1, 10 | 11, 2], [1 | 20, 2] and [1, 30 | 2], the bar before each completion"
    cases = [(THREE, small)]
    cases += [(random_examples(seed, size), f"{size} random rows") for seed, size in ((2, 2), (0, 4), (1, 5))]
    for examples, tried in cases:
        right, known = mismatched_faults(examples)
        got = _list_of_rows(call(answer, examples, tried=tried), len(examples))
        if got == right:
            continue
        fault = next((fault for fault, rows in known if got == rows), "values")
        row = next(i for i in range(len(right)) if got[i] != right[i])
        field = next(field for field in right[row] if got[row][field] != right[row][field])
        raise Fault(fault, f"{tried}; {field} of row {row}", got[row][field], right[row][field])
    return "two to five rows, ids and both masks"


@exercise(
    "collate_kto",
    "Two batches from one list",
    minutes=12,
    difficulty=3,
    kind="fill in a function",
    points=4,
    hints={
        "matched_z0": (
            "Each row has kept its own completion. What are the kl_ rows for?",
            "They answer another prompt: row i has its own prompt and the completion of row i - 1.",
            "Cut rows i and i - 1 where their label_mask begins; join the first half of i to the second of i - 1.",
        ),
        "whole_rows_moved": (
            "You have moved whole rows. Is a prompt with its own completion mismatched?",
            "Only the completion is borrowed. The prompt stays where it is.",
        ),
        "reversed_completions": (
            "You take the rows from the end. Which row keeps its own when their number is odd?",
            "Rotate: row i borrows from row i - 1. In Python examples[-1] is the last row: row 0 is no special case.",
        ),
        "other_direction": (
            "A rotation, but the other way round. From which row should row i borrow?",
            "From row i - 1, as in lesson 04; HALOs takes i + 1.",
        ),
        "prompts_moved": (
            "The completion stayed and the prompt moved. Row i should keep its prompt.",
            "Join the prompt of row i and the completion of row i - 1.",
        ),
        "eos_lost": (
            "The borrowed completions have lost their end. What belongs to a completion?",
            "Every token with label_mask 1 moves, <eos> included.",
        ),
        "padded_left": (
            "The padding stands on the wrong side.",
            "Row + filler, not filler + row.",
        ),
        "one_width": (
            "One of the two batches is wider than its longest row.",
            "Rows and mismatched rows are padded each to their own longest one.",
        ),
        "pad_id_ignored": (
            "The ids are filled with 0. What is pad_id?",
            "pad_id in input_ids; 0 only in the masks.",
        ),
        "mask_from_ids": (
            "Here pad_id is also the id of <eos>. What does your attention_mask say about a real <eos>?",
            "Make the masks from the lengths, before padding: [1] * len(ids), then zeros.",
        ),
        "padding_read": (
            "attention_mask is 1 on padding. Is there a token?",
            "1 for each token of the row, then 0 up to the width.",
        ),
        "masks_exchanged": (
            "One mask has what belongs into the other.",
            "attention_mask: every real token. label_mask: completion and <eos> only.",
        ),
        "prompt_scored": (
            "The prompt is scored. Where does the mask of a row come from?",
            "It comes from the row: 0 on its prompt. For borrowed rows, too.",
        ),
        "padding_scored": (
            "The padding behind a short reply is scored.",
            "Fill label_mask with 0.",
        ),
        "eos_unscored": (
            "A real <eos> has a 0 in label_mask. Was its id mistaken for padding?",
            "Keep the row's own label_mask and put zeros behind it. The id says nothing, since pad_id may be <eos>.",
        ),
        "mask_not_moved": (
            "The ids of the mismatched rows are right; their mask is still that of the own rows.",
            "0 for each token of the prompt, then 1 for each token of the borrowed completion.",
        ),
        "labels_moved": (
            "The thumbs have moved with the completions. Whose are they?",
            "label belongs to the own rows, in their order. Borrowed rows have none.",
        ),
        "labels_inverted": (
            "The thumbs are turned round.",
            "label is True for thumbs up, as in the row.",
        ),
        "label_not_bool": (
            "The loss picks rows by losses[label]. What does that do with whole numbers?",
            "With 0 and 1 it picks rows 0 and 1. Make a tensor of booleans: torch.tensor([...], dtype=torch.bool).",
        ),
        "fields": (
            "Some fields are missing, or there are too many.",
            "Three tables, the same three with kl_ in front, and label. Nobody judged the borrowed rows: no kl_label.",
        ),
        "batch_of_one": (
            "A batch of one row: from whom does it borrow?",
            "if len(examples) < 2: raise ValueError(...), before anything else.",
        ),
    },
)  # fmt: skip
def collate_kto(answer):
    small = "ids [1, 10 | 11, 2], [1 | 20, 2] and [1, 30 | 2], the bar before each completion; pad_id 9"
    cases = [
        (THREE, 9, small),
        (random_examples(2, 2), 0, "two random rows, pad_id 0"),
        (random_examples(0, 4), 0, "four random rows, pad_id 0"),
        (random_examples(1, 5), 2, "five random rows, pad_id 2, which is <eos>, too"),
    ]
    for examples, pad, tried in cases:
        right, known = collate_faults(examples, pad)
        got = call(answer, examples, pad, tried=tried)
        if not isinstance(got, dict) or not all(isinstance(v, torch.Tensor) for v in got.values()):
            raise Fault("type", got=f"a {type(got).__name__}", expected="a dict of tensors")
        if set(got) != set(right):
            raise Fault("fields", got=sorted(map(str, got)), expected=sorted(right))
        for field, expected in right.items():
            where = f"{tried}; field {field}"
            compare(got[field], expected, known[field], tried=where)
            if field == "label" and got[field].dtype != torch.bool:
                raise Fault("label_not_bool", where, str(got[field].dtype), "torch.bool")
            if field.endswith("input_ids") and got[field].dtype != torch.int64:
                raise Fault("dtype", where, str(got[field].dtype), "torch.int64")
    try:
        got = call(answer, THREE[:1], 0, tried="a batch of one row")
    except Fault as found:
        if found.fault != "raised" or not str(found.got).startswith("ValueError"):
            raise
    else:
        raise Fault("batch_of_one", got="a result", expected="a ValueError")
    return "two to five rows, a padding id equal to <eos>, a batch of one"


def unknown_lenders(size):
    """For each row the row that lends it a completion, by the rule that the exercise asks for."""
    half = size // 2
    groups = [range(half), range(half, size)]
    return [group[i - 1] for group in groups for i in range(len(group))]


@exercise(
    "mystery_lenders",
    "Who keeps their own?",
    minutes=4,
    difficulty=2,
    kind="read a curve",
    points=1,
    hints={
        "reversed_completions": (
            "Reversing a list of five keeps the middle row. Is there a bar at five?",
            "Look at sizes 2 and 3. In which groups must rows be alone, so that two of two, and one of three, keep?",
        ),
        "rotated_by_two": (
            "Rotating by two explains sizes 1 and 2. Who would keep their own at size 3?",
            "Nobody would. Look for a rule under which one row of three has no neighbour.",
        ),
        "shuffled": (
            "A shuffle keeps about one row on average. At size 12, too?",
            "From size 4 on nobody keeps their own: that is no chance. Which rule fails only for small batches?",
        ),
    },
)
def mystery_lenders(answer):
    choice(answer, "c", {"a": "reversed_completions", "b": "rotated_by_two", "d": "shuffled"})
    return "your reading of the bars"


def mask_faults(ids, starts, lengths):
    """What the known faults of `mask_from_lengths` give on this input."""
    t, start, end = torch.arange(ids.shape[1]), starts[:, None], lengths[:, None]
    right = ((t >= start) & (t < end)).long()
    return right, [
        ("guessed_from_ids", (ids != 2).long()),
        ("eos_unscored", ((t >= start) & (ids != 2)).long()),
        ("eos_unscored", ((t >= start) & (t < end - 1)).long()),
        ("prompt_scored", (t < end).expand_as(ids).long()),
        ("padding_scored", (t >= start).expand_as(ids).long()),
        ("one_too_many", ((t >= start) & (t <= end)).long()),
        ("first_token_lost", ((t > start) & (t < end)).long()),
        ("starts_early", ((t >= start - 1) & (t < end)).long()),
        ("mask_inverted", 1 - right),
        ("start_plus_length", ((t >= start) & (t < start + end)).long()),
        ("same_for_all", ((t >= starts[0]) & (t < lengths[0])).expand_as(ids).long()),
    ]


@exercise(
    "mask_from_lengths",
    "Count, do not guess",
    minutes=6,
    difficulty=2,
    kind="repair a function",
    points=2,
    hints={
        "guessed_from_ids": (
            "The first row is a prompt of two tokens, <eos>, and padding. Can the id tell the last two apart?",
            "Do not look at the ids: place t counts from starts[b] on, and before lengths[b].",
            "t = torch.arange(T); compare it with starts[:, None] and lengths[:, None].",
        ),
        "eos_unscored": (
            "One token of each reply is missing: its last. Which one is it?",
            "<eos> is part of the row and of its length: the last scored place is lengths[b] - 1.",
        ),
        "prompt_scored": (
            "The padding is out, but the prompt counts.",
            "Scored places begin at starts[b].",
        ),
        "padding_scored": (
            "The prompt is out, but the padding counts.",
            "Scored places end before lengths[b].",
        ),
        "one_too_many": (
            "One place too many at the end. If a row has 5 tokens, what is the number of the last place?",
            "Places count from 0: t < lengths[b], not <=.",
        ),
        "first_token_lost": (
            "The first token of each completion is missing.",
            "starts[b] is itself a scored place: t >= starts[b].",
        ),
        "starts_early": (
            "The mask begins one place too early. No shift is wanted here.",
            "t >= starts[b].",
        ),
        "mask_inverted": (
            "0 and 1 are exchanged.",
            "1 is for what counts.",
        ),
        "start_plus_length": (
            "Does lengths count the tokens of the reply, or of the whole row?",
            "Of the whole row: the end is lengths[b], without adding the start.",
        ),
        "same_for_all": (
            "Every row has the mask of the first. Whose start and length do you use?",
            "starts[:, None] and lengths[:, None] give each row its own.",
        ),
    },
)
def mask_from_lengths(answer):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 10, (6,), generator=generator)
    starts = (lengths * torch.rand(6, generator=generator, dtype=torch.float64)).long().clamp(min=1)
    ids = torch.randint(3, 50, (6, 9), generator=generator)
    ids[torch.arange(9) >= lengths[:, None] - 1] = 2
    cases = [
        (torch.tensor([[1, 7, 2, 2, 2, 2], [1, 7, 7, 8, 5, 2]]), torch.tensor([2, 3]), torch.tensor([3, 6])),
        (ids, starts, lengths),
    ]
    for case in cases:
        right, faults = mask_faults(*case)
        small = case[0].numel() <= 12
        tried = ", ".join(f"{name} {v.tolist()}" for name, v in zip(("ids", "starts", "lengths"), case, strict=True))
        got = call(answer, *case, tried=tried if small else "six random rows of 3 to 9 tokens")
        compare(got, right, faults)
    return "eight rows of several lengths, padded with the id of <eos>"
