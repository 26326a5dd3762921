"""Right and wrong answers to the exercises of lesson 04. The form is told in tests/test_checks.py."""

# What the lesson has defined by then.
SETUP = "from kto_utils.collator import mismatched, pad_rows"


def passed_on(lender="examples[i - 1]", ids="prompt + completion", read="[1] * len(ids)",
              mask="[0] * len(prompt) + [1] * len(completion)", before="", after="", cut="index(1)"):  # fmt: skip
    """A mismatched: `ids`, `read` and `mask` make the three lists of a new row, `before` and `after` edit."""
    return f"""
def answer(examples):
    {before}
    rows = []
    for i, own in enumerate(examples):
        other = {lender}
        prompt = own["input_ids"][: own["label_mask"].{cut}]
        completion = other["input_ids"][other["label_mask"].{cut} :]
        ids = {ids}
        rows.append({{"input_ids": ids, "attention_mask": {read}, "label_mask": {mask}}})
    {after}
    return rows
"""


def collator(change="", lender="i - 1", mixed="p + c, [0] * len(p) + [1] * len(c)", check="if len(examples) < 2: raise ValueError('one row')"):
    """A collate_kto: `mixed` makes a borrowed row of prompt p and completion c, `change` edits the batch at the end."""
    return f"""
def answer(examples, pad_id):
    {check}
    n = len(examples)
    parts = []
    for e in examples:
        start = len(e["label_mask"]) - sum(e["label_mask"])
        parts.append((e["input_ids"][:start], e["input_ids"][start:]))
    rows = [(e["input_ids"], e["label_mask"]) for e in examples]
    mixed = []
    for i in range(n):
        p, c = parts[i][0], parts[{lender}][1]
        mixed.append(({mixed}))
    batch = {{"label": torch.tensor([e["label"] for e in examples])}}
    for prefix, some in (("", rows), ("kl_", mixed)):
        T = max(len(ids) for ids, _ in some)
        ids = torch.full((n, T), pad_id)
        read, scored = torch.zeros(n, T, dtype=torch.int64), torch.zeros(n, T, dtype=torch.int64)
        for b, (row, mask) in enumerate(some):
            ids[b, : len(row)] = torch.tensor(row)
            read[b, : len(row)] = 1
            scored[b, : len(row)] = torch.tensor(mask)
        batch |= {{prefix + "input_ids": ids, prefix + "attention_mask": read, prefix + "label_mask": scored}}
    {change}
    return batch
"""


def each(line):
    """A change for the own and for the borrowed rows; `line` names their tensors ids, read, mask and the prefix p."""
    return f"""for p in ("", "kl_"):
        ids, read, mask = (batch[p + f] for f in ("input_ids", "attention_mask", "label_mask"))
        {line}"""


def masked(expression, before=""):
    return f"""
def answer(input_ids, starts, lengths):
    t, start, end = torch.arange(input_ids.shape[1]), starts[:, None], lengths[:, None]
    {before}
    return {expression}
"""


ANSWERS = {
    "count_zeros": {
        "right": {"cells less ones": "3 * 44 - 31", "padding and prompts": "(26 + 23 + 0) + (14 + 15 + 23.0)", "a tensor": "torch.tensor(101)"},
        "wrong": {
            "padding": ("padding_only", "26 + 23"),
            "prompts": ("prompts_only", "14 + 15 + 23"),
            "ones": ("ones", "31"),
            "all cells": ("all_cells", "132"),
            "real tokens": ("real_tokens", "18 + 21 + 44"),
            "shortest row": ("short_rows", "3 * 18 - 31"),
            "a guess": ("values", "100"),
            "text": ("type", "'101'"),
            "one for each row": ("type", "[40, 38, 23]"),
        },
    },
    "mismatched": {
        "right": {
            "slices": passed_on(),
            "the first row apart": passed_on("examples[i - 1] if i > 0 else examples[-1]"),
            "rotated lists": """
def answer(examples):
    prompts = [[t for t, m in zip(e["input_ids"], e["label_mask"]) if m == 0] for e in examples]
    replies = [[t for t, m in zip(e["input_ids"], e["label_mask"]) if m == 1] for e in examples]
    replies = replies[-1:] + replies[:-1]
    return [
        {"input_ids": p + r, "attention_mask": [1] * len(p + r), "label_mask": [0 for _ in p] + [1 for _ in r]}
        for p, r in zip(prompts, replies)
    ]
""",
            "the old masks cut too": """
def answer(examples):
    rows = []
    for own, other in zip(examples, [examples[-1]] + examples[:-1]):
        n, k = sum(1 - m for m in own["label_mask"]), sum(1 - m for m in other["label_mask"])
        rows.append({f: own[f][:n] + other[f][k:] for f in ("input_ids", "attention_mask", "label_mask")})
    return rows
""",
        },
        "wrong": {
            "own completion": ("matched_z0", passed_on("own")),
            "whole rows": ("whole_rows_moved", passed_on(
                "own", after="rows = rows[-1:] + rows[:-1]"
            )),
            "reversed": ("reversed_completions", passed_on("examples[len(examples) - 1 - i]")),
            "the next row": ("other_direction", passed_on("examples[(i + 1) % len(examples)]")),
            "prompts moved": ("prompts_moved", passed_on(
                before="examples = examples[-1:] + examples[:-1]", lender="examples[(i + 1) % len(examples)]"
            )),
            "end left behind": ("eos_lost", passed_on(
                ids="prompt + completion[:-1]", mask="[0] * len(prompt) + [1] * (len(completion) - 1)"
            )),
            "start left behind": ("bos_lost", passed_on(
                ids="prompt[1:] + completion", mask="[0] * (len(prompt) - 1) + [1] * len(completion)"
            )),
            "prompt scored": ("prompt_scored", passed_on(mask="[1] * len(ids)")),
            "mask of the own row": ("mask_not_moved", passed_on(mask="list(own['label_mask'])")),
            "masks exchanged": ("masks_exchanged", passed_on(
                read="[0] * len(prompt) + [1] * len(completion)", mask="[1] * len(ids)"
            )),
            "prompt not read": ("completion_only_read", passed_on(read="[0] * len(prompt) + [1] * len(completion)")),
            "old attention mask": ("read_mask_not_moved", passed_on(read="list(own['attention_mask'])")),
            "the row's label kept": ("label_kept", passed_on(after="rows = [r | {'label': e['label']} for r, e in zip(rows, examples)]")),
            "no masks": ("fields", passed_on(after="rows = [{'input_ids': r['input_ids']} for r in rows]")),
            "row 0 left out": ("rows", passed_on(after="rows = rows[1:]")),
            "tensors": ("type", passed_on(ids="torch.tensor(prompt + completion)")),
            "ids only": ("type", passed_on(after="rows = [r['input_ids'] for r in rows]")),
            "a dict": ("type", passed_on(after="rows = {f: [r[f] for r in rows] for f in rows[0]}")),
            "cut one too late": ("values", passed_on(cut="index(1) + 1")),
            "rows edited": ("changed_arguments", passed_on(after="for e, r in zip(examples, rows): e.update(r)")),
            "a name forgotten": ("raised", passed_on("others[i - 1]")),
            "no return": ("open", "def answer(examples):\n    mixed = examples[-1:] + examples[:-1]"),
        },
    },
    "collate_kto": {
        "right": {
            "filled tensors": collator(),
            "negative lender": collator(lender="(i - 1) % n"),
            "pieces of the lesson": """
def answer(examples, pad_id):
    batch = pad_rows(examples, pad_id) | {"label": torch.tensor([e["label"] for e in examples], dtype=torch.bool)}
    return batch | {f"kl_{field}": tensor for field, tensor in pad_rows(mismatched(examples), pad_id).items()}
""",
            "the library pads": """
def answer(examples, pad_id):
    if len(examples) == 1:
        raise ValueError
    def pad(lists, value):
        return torch.nn.utils.rnn.pad_sequence([torch.tensor(x) for x in lists], batch_first=True, padding_value=value)
    def three(rows, prefix):
        ids, masks = zip(*rows)
        return {
            prefix + "input_ids": pad(ids, pad_id),
            prefix + "attention_mask": pad([[1] * len(x) for x in ids], 0),
            prefix + "label_mask": pad(masks, 0),
        }
    prompts = [[i for i, m in zip(e["input_ids"], e["label_mask"]) if m == 0] for e in examples]
    replies = [[i for i, m in zip(e["input_ids"], e["label_mask"]) if m == 1] for e in examples]
    replies = replies[-1:] + replies[:-1]
    mixed = [(p + r, [0] * len(p) + [1] * len(r)) for p, r in zip(prompts, replies)]
    own = [(e["input_ids"], e["label_mask"]) for e in examples]
    return {"label": torch.tensor([bool(e["label"]) for e in examples])} | three(own, "") | three(mixed, "kl_")
""",
        },
        "wrong": {
            "own completion": ("matched_z0", collator(lender="i")),
            "whole rows": ("whole_rows_moved", collator(mixed="rows[i - 1]")),
            "reversed": ("reversed_completions", collator(lender="n - 1 - i")),
            "the next row": ("other_direction", collator(lender="(i + 1) % n")),
            "prompts moved": ("prompts_moved", collator(mixed="parts[i - 1][0] + parts[i][1], [0] * len(parts[i - 1][0]) + [1] * len(parts[i][1])")),
            "end left behind": ("eos_lost", collator(mixed="p + c[:-1], [0] * len(p) + [1] * (len(c) - 1)")),
            "padding on the left": ("padded_left", collator(each("for b, n_real in enumerate(read.sum(1).tolist()):\n            for x in (ids, read, mask):\n                x[b] = x[b].roll(-n_real)"))),
            "one width for both": ("one_width", collator("""T = max(batch["input_ids"].shape[1], batch["kl_input_ids"].shape[1])
    for key in batch:
        if key != "label":
            fill = pad_id if key.endswith("input_ids") else 0
            batch[key] = torch.nn.functional.pad(batch[key], (0, T - batch[key].shape[1]), value=fill)""")),
            "filled with 0": ("pad_id_ignored", collator(each("batch[p + 'input_ids'] = ids * read"))),
            "attention mask guessed": ("mask_from_ids", collator(each("batch[p + 'attention_mask'] = (ids != pad_id).long()"))),
            "padding read": ("padding_read", collator(each("read.fill_(1)"))),
            "masks exchanged": ("masks_exchanged", collator(each("batch[p + 'attention_mask'], batch[p + 'label_mask'] = mask, read"))),
            "prompt scored": ("prompt_scored", collator(each("batch[p + 'label_mask'] = read"))),
            "all scored": ("prompt_scored", collator(each("batch[p + 'label_mask'] = torch.ones_like(read)"))),
            "borrowed prompt scored": ("prompt_scored", collator(mixed="p + c, [1] * len(p + c)")),
            "padding scored": ("padding_scored", collator(each("batch[p + 'label_mask'] = mask + 1 - read"))),
            "end taken for padding": ("eos_unscored", collator(each("batch[p + 'label_mask'] = mask * (ids != pad_id)"))),
            "end never scored": ("eos_unscored", collator(each("batch[p + 'label_mask'] = mask * (ids != 2)"))),
            "borrowed end not scored": ("eos_unscored", collator(mixed="p + c, [0] * len(p) + [1] * (len(c) - 1) + [0]")),
            "mask of the own rows": ("mask_not_moved", collator('batch["kl_label_mask"] = batch["label_mask"]')),
            "thumbs rotated": ("labels_moved", collator('batch["label"] = batch["label"].roll(1)')),
            "thumbs inverted": ("labels_inverted", collator('batch["label"] = ~batch["label"]')),
            "thumbs as numbers": ("label_not_bool", collator('batch["label"] = batch["label"].long()')),
            "a kl_label": ("fields", collator('batch["kl_label"] = batch["label"].roll(1)')),
            "no mismatched rows": ("fields", collator('batch = {k: v for k, v in batch.items() if k[:2] != "kl"}')),
            "a batch of one": ("batch_of_one", collator(check="")),
            "ids as floats": ("dtype", collator(each("batch[p + 'input_ids'] = ids.double()"))),
            "lists": ("type", collator("batch = {k: v.tolist() for k, v in batch.items()}")),
            "tensors in a tuple": ("type", collator("batch = tuple(batch.values())")),
            "rows edited": ("changed_arguments", collator("examples[0]['input_ids'].append(0)")),
            "an assert for one row": ("raised", collator(check="assert len(examples) > 1")),
            "off by one token": ("values", collator('batch["kl_input_ids"] = batch["kl_input_ids"] + 1')),
            "an error": ("raised", collator("batch['labels'].bool()")),
            "no return": ("open", "def answer(examples, pad_id):\n    batch = len(examples)"),
        },
    },
    "mystery_lenders": {
        "right": {"letter": "'c'", "capital": "'C'", "with bracket": "' c)'"},
        "wrong": {
            "reversed": ("reversed_completions", "'a'"),
            "by two": ("rotated_by_two", "'b'"),
            "shuffled": ("shuffled", "'d'"),
            "another letter": ("choice", "'e'"),
            "two letters": ("choice", "'a or c'"),
            "words": ("choice", "'halves'"),
            "nothing in quotes": ("choice", "''"),
            "a number": ("type", "3"),
            "a list": ("type", "['c']"),
        },
    },
    "mask_from_lengths": {
        "right": {
            "two comparisons": masked("((t >= start) & (t < end)).long()"),
            "booleans": masked("(start <= t) & (t < end)"),
            "loop": """
def answer(input_ids, starts, lengths):
    mask = torch.zeros_like(input_ids)
    for b in range(len(input_ids)):
        mask[b, starts[b] : lengths[b]] = 1
    return mask
""",
            "difference of two staircases, floats": masked("(t < end).float() - (t < start).float()"),
        },
        "wrong": {
            "as found": ("guessed_from_ids", masked("(input_ids != 2).long()")),
            "guessed behind the start": ("eos_unscored", masked("((t >= start) & (input_ids != 2)).long()")),
            "end cut": ("eos_unscored", masked("((t >= start) & (t < end - 1)).long()")),
            "prompt scored": ("prompt_scored", masked("(t < end).long()")),
            "padding scored": ("padding_scored", masked("(t >= start).long()")),
            "length included": ("one_too_many", masked("((t >= start) & (t <= end)).long()")),
            "first token lost": ("first_token_lost", masked("((t > start) & (t < end)).long()")),
            "one too early": ("starts_early", masked("((t >= start - 1) & (t < end)).long()")),
            "inverted": ("mask_inverted", masked("((t < start) | (t >= end)).long()")),
            "length of the reply": ("start_plus_length", masked("((t >= start) & (t < start + end)).long()")),
            "first row's numbers": ("same_for_all", masked("((t >= starts[0]) & (t < lengths[0])).expand_as(input_ids)")),
            "one row": ("shape", masked("((t >= starts[0]) & (t < lengths[0])).long()")),
            "lists": ("type", masked("((t >= start) & (t < end)).tolist()")),
            "not broadcast": ("raised", masked("(t[:-1] >= starts[:, None]) & (t < end)")),
            "ids kept": ("values", masked("((t >= start) & (t < end)) * input_ids")),
            "start shifted in place": ("changed_arguments", masked("((t >= start) & (t < end)).long()", "lengths += 0 * starts + 1; end = end - 1")),
            "no return": ("open", "def answer(input_ids, starts, lengths):\n    mask = input_ids != 2"),
        },
    },
}  # fmt: skip

EQUIVALENT = {
    "mask_from_lengths": {
        "((t >= starts[:, None]) & (t < lengths[:, None])).long() -> (t >= starts[:, None]) & (t < lengths[:, None])":
            "a mask of booleans is as good: True counts as 1",
    },
}
