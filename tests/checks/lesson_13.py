"""Right and wrong answers to the exercise of lesson 13."""

SETUP = ""


def _answer(*lines, get="model(input_ids, attention_mask).logits"):
    """An answer that keeps the course's form but for the lines given."""
    head = "def answer(model, input_ids, attention_mask, label_mask):"
    return "\n".join([head, f"    logits = {get}", *(f"    {line}" for line in lines)])


PICK = "logps = logits[:, :-1].log_softmax(-1).gather(-1, input_ids[:, 1:, None]).squeeze(-1)"
OWN = "own = logits.log_softmax(-1).gather(-1, input_ids[..., None]).squeeze(-1)"
KEEP = "kept = logps.masked_fill(label_mask[:, 1:] == 0, 0.0)"

ANSWERS = {
    "sequence_logps": {
        "right": {
            "gather": _answer(PICK, KEEP, "return kept.sum(-1)"),
            "cross entropy": _answer(
                "ce = F.cross_entropy(logits[:, :-1].transpose(1, 2), input_ids[:, 1:], reduction='none')",
                "return -(ce * label_mask[:, 1:]).sum(-1)",
            ),
            "loop": _answer(
                "rows = []",
                "for b, row in enumerate(logits):",
                "    total = row.sum() * 0",
                "    for t in range(1, len(row)):",
                "        if label_mask[b, t]:",
                "            total = total + row[t - 1, input_ids[b, t]] - row[t - 1].logsumexp(-1)",
                "    rows.append(total)",
                "return torch.stack(rows)",
            ),
            "labels of -100": _answer(
                "labels = input_ids.masked_fill(label_mask == 0, -100)[:, 1:]",
                "ce = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels, reduction='none', ignore_index=-100)",
                "return -ce.sum(dim=1)",
                get="model(input_ids=input_ids, attention_mask=attention_mask)['logits']",
            ),
            "first output, where": _answer(
                PICK,
                "return torch.where(label_mask[:, 1:] == 1, logps, 0.0).sum(1)",
                get="model(input_ids)[0]",
            ),
        },
        "wrong": {
            "own place": ("no_shift", _answer(OWN, "return (own * label_mask).sum(-1)")),
            "own place, cut alike": ("no_shift", _answer(OWN, "return (own * label_mask)[:, 1:].sum(-1)")),
            "mask of the place before": (
                "mask_not_shifted",
                _answer(PICK, "return (logps * label_mask[:, :-1]).sum(-1)"),
            ),
            "everything": ("no_mask", _answer(PICK, "return logps.sum(-1)")),
            "attention mask": ("prompt_scored", _answer(PICK, "return (logps * attention_mask[:, 1:]).sum(-1)")),
            "from the reply's start on": (
                "padding_scored",
                _answer(PICK, "return (logps * label_mask.cummax(1).values[:, 1:]).sum(-1)"),
            ),
            "without the end": (
                "eos_unscored",
                _answer(
                    PICK,
                    "more = F.pad(label_mask[:, 2:], (0, 1))",
                    "return (logps * label_mask[:, 1:] * more).sum(-1)",
                ),
            ),
            "divided by its length": (
                "mean_of_tokens",
                _answer(PICK, KEEP, "return kept.sum(-1) / label_mask.sum(-1)"),
            ),
            "mean over the places": ("mean_of_tokens", _answer(PICK, KEEP, "return kept.mean(-1)")),
            "divided by the batch": (
                "batch_mask_sum",
                _answer(PICK, KEEP, "return kept.sum(-1) / label_mask.sum()"),
            ),
            "not added up": ("per_token", _answer(PICK, KEEP, "return kept")),
            "all rows in one": ("summed_over_batch", _answer(PICK, KEEP, "return kept.sum()")),
            "other axis": ("summed_over_batch", _answer(PICK, KEEP, "return kept.sum(0)")),
            "cross entropy without a minus": (
                "negative",
                _answer(
                    "ce = F.cross_entropy(logits[:, :-1].transpose(1, 2), input_ids[:, 1:], reduction='none')",
                    "return (ce * label_mask[:, 1:]).sum(-1)",
                ),
            ),
            "probability": ("no_log", _answer(PICK, KEEP, "return kept.sum(-1).exp()")),
            "raw logits": (
                "no_softmax",
                _answer(
                    "raw = logits[:, :-1].gather(-1, input_ids[:, 1:, None]).squeeze(-1)",
                    "return (raw * label_mask[:, 1:]).sum(-1)",
                ),
            ),
            "detached": ("no_gradient", _answer(PICK, KEEP, "return kept.sum(-1).detach()")),
            "list": ("type", _answer(PICK, KEEP, "return kept.sum(-1).tolist()")),
            "ids as logits": ("raised", _answer("return logits.log_softmax(-1)[input_ids].sum(5)")),
        },
    },
}
CALL = "model(input_ids=input_ids, attention_mask=attention_mask)"
EQUIVALENT = {
    "sequence_logps": {
        f"{CALL}.logits[:, :-1] -> {CALL}.logits": "gather takes as many places as the index has; the last is never read",
        ":-1 -> :": "the same",
        "-1 -> 1 (2)": "the last axis of a table with two axes is axis 1",
        f"{CALL} -> model(input_ids=input_ids)": "padding on the right is seen by no scored place of a model that looks back",
    },
}
