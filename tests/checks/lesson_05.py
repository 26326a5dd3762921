"""Right and wrong answers to the exercises of lesson 05. The form is told in tests/test_checks.py."""


def shifted(expression, before="", arguments="logits, input_ids, label_mask"):
    """A get_probs that ends in this expression; its names are those of the model solution."""
    return f"""
def answer({arguments}):
    targets, scored = input_ids[:, 1:], label_mask[:, 1:].bool()
    log_probs = logits[:, :-1].log_softmax(-1)
    {before}
    chosen = log_probs.gather(-1, targets[..., None]).squeeze(-1)
    return {expression}
"""


MASKED = "chosen.masked_fill(~scored, 0.0)"


def ratio(expression, before=""):
    return f"""
def answer(policy_logits, reference_logits, input_ids, label_mask):
    {before}
    ours = logprobs.get_probs(policy_logits, input_ids, label_mask)
    theirs = logprobs.get_probs(reference_logits, input_ids, label_mask).detach()
    return {expression}
"""


ANSWERS = {
    "get_probs": {
        "right": {
            "loop": """
def answer(logits, input_ids, label_mask):
    rows = []
    for b in range(len(logits)):
        row = []
        for t in range(logits.shape[1] - 1):
            if label_mask[b, t + 1]:
                row.append(logits[b, t].log_softmax(0)[input_ids[b, t + 1]])
            else:
                row.append(torch.tensor(0.0, dtype=logits.dtype))
        rows.append(torch.stack(row))
    return torch.stack(rows)
""",
            "cross entropy": """
def answer(logits, input_ids, label_mask):
    loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), input_ids[:, 1:], reduction="none")
    return torch.where(label_mask[:, 1:] == 1, -loss, 0.0)
""",
            "logit minus log-sum, hardened": """
def answer(logits, input_ids, label_mask):
    scored = label_mask[:, 1:].bool()
    targets = input_ids[:, 1:].masked_fill(~scored, 0)
    predictions = logits[:, :-1].masked_fill(~scored[..., None], 0.0)
    chosen = predictions.gather(-1, targets[..., None]).squeeze(-1)
    return (chosen - predictions.logsumexp(-1)).masked_fill(~scored, 0.0)
""",
            "the package's": "logprobs.get_probs",
            "only the scored places": """
def answer(logits, input_ids, label_mask):
    scored = label_mask[:, 1:].bool()
    result = logits.new_zeros(scored.shape)
    picked = logits[:, :-1][scored].log_softmax(-1)
    result[scored] = picked[torch.arange(len(picked)), input_ids[:, 1:][scored]]
    return result
""",
        },
        "wrong": {
            "no shift, all places": ("no_shift", """
def answer(logits, input_ids, label_mask):
    return logits.log_softmax(-1).gather(-1, input_ids[..., None]).squeeze(-1).masked_fill(label_mask == 0, 0.0)
"""),
            "no shift, first place cut": ("no_shift", """
def answer(logits, input_ids, label_mask):
    own = logits.log_softmax(-1).gather(-1, input_ids[..., None]).squeeze(-1)
    return own[:, 1:].masked_fill(label_mask[:, 1:] == 0, 0.0)
"""),
            "no shift, as in the museum": ("no_shift", """
def answer(logits, input_ids, label_mask):
    targets, scored = input_ids[:, :-1], label_mask[:, :-1].bool()
    chosen = logits[:, :-1].log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1)
    return chosen.masked_fill(~scored, 0.0)
"""),
            "shift to the wrong side": ("shifted_backwards", """
def answer(logits, input_ids, label_mask):
    chosen = logits[:, 1:].log_softmax(-1).gather(-1, input_ids[:, :-1, None]).squeeze(-1)
    return chosen.masked_fill(label_mask[:, 1:] == 0, 0.0)
"""),
            "mask not shifted": ("mask_not_shifted", shifted("chosen.masked_fill(label_mask[:, :-1] == 0, 0.0)")),
            "mask forgotten": ("no_mask", shifted("chosen")),
            "prompt scored": ("prompt_scored", shifted("chosen.masked_fill(targets == 0, 0.0)")),
            "padding scored": ("padding_scored", shifted("chosen.masked_fill(label_mask.cummax(1).values[:, 1:] == 0, 0.0)")),
            "mask inverted": ("mask_inverted", shifted("chosen.masked_fill(scored, 0.0)")),
            "end token masked": ("eos_unscored", shifted("chosen.masked_fill(~scored | (targets == 3), 0.0)")),
            "divided by the batch's tokens": ("batch_mask_sum", shifted(f"{MASKED} / label_mask.sum()")),
            "divided by the reply's tokens": ("mean_of_tokens", shifted(f"{MASKED} / label_mask.sum(-1, keepdim=True)")),
            "averaged": ("mean_of_tokens", shifted(f"{MASKED}.sum(-1) / label_mask.sum(-1)")),
            "summed": ("summed", shifted(f"{MASKED}.sum(-1)")),
            "cross entropy without minus": ("negative", shifted(f"-{MASKED}")),
            "probabilities": ("no_log", shifted("chosen.exp().masked_fill(~scored, 0.0)")),
            "logits": ("no_softmax", shifted(MASKED, "log_probs = logits[:, :-1]")),
            "softmax over places": ("wrong_axis", shifted(MASKED, "log_probs = logits[:, :-1].log_softmax(1)")),
            "every word": ("not_gathered", shifted("log_probs")),
            "multiplied by the mask": ("zero_times_inf", shifted("chosen * scored")),
            "logarithm of the softmax": ("log_of_softmax", shifted(MASKED, "log_probs = logits[:, :-1].softmax(-1).log()")),
            "gradient cut": ("no_gradient", shifted(MASKED, "log_probs = log_probs.detach()")),
            "gradient halved": ("gradient", shifted(f"0.5 * {MASKED} + 0.5 * {MASKED}.detach()")),
            "mask edited in place": ("changed_arguments", shifted(MASKED, "label_mask[:, 0] = 1")),
            "a list": ("type", shifted(f"{MASKED}.tolist()")),
            "last axis kept": ("shape", shifted(f"{MASKED}[..., None]")),
            "NaN": ("nan", shifted(f"{MASKED} * float('nan')")),
            "off by a bit": ("values", shifted(f"{MASKED} * 1.01")),
            "an error": ("raised", shifted(MASKED, "log_probs = log_probs[:, 99]")),
            "an endless loop": ("timeout", shifted(MASKED, "while True: pass")),
            "no return": ("open", "def answer(logits, input_ids, label_mask):\n    result = logits.log_softmax(-1)"),
        },
    },
    "reply_logp": {
        "right": {
            "logarithm of the product": "math.log(0.5 * 0.8 * 0.25)",
            "rounded": "-2.3",
            "a tensor": "torch.tensor([0.5, 0.8, 0.25]).log().sum()",
        },
        "wrong": {
            "mean of the logarithms": ("mean_of_tokens", "math.log(0.1) / 3"),
            "logarithm of the mean": ("log_of_mean", "math.log((0.5 + 0.8 + 0.25) / 3)"),
            "without the end": ("eos_unscored", "math.log(0.5 * 0.8)"),
            "probability": ("no_log", "0.1"),
            "sum of probabilities": ("summed_probabilities", "0.5 + 0.8 + 0.25"),
            "turned sign": ("negative", "2.3026"),
            "base ten": ("log10", "-1"),
            "a guess": ("values", "-5"),
            "text": ("type", "'-2.3'"),
            "three numbers": ("type", "[math.log(0.5), math.log(0.8), math.log(0.25)]"),
            "NaN": ("nan", "math.nan"),
        },
    },
    "mystery_curve": {
        "right": {"letter": "'c'", "capital": "'C'", "with bracket": "' c)'"},
        "wrong": {
            "no shift": ("no_shift", "'a'"),
            "padding": ("padding_scored", "'b'"),
            "own tokens": ("mean_of_tokens", "'d'"),
            "another letter": ("choice", "'e'"),
            "two letters": ("choice", "'b or c'"),
            "words": ("choice", "'divided by the batch'"),
            "nothing in quotes": ("choice", "''"),
            "a number": ("type", "3"),
            "a list": ("type", "['c']"),
        },
    },
    "logratio": {
        "right": {
            "sums subtracted": ratio("ours.sum(-1) - theirs.sum(-1)"),
            "no_grad": """
def answer(policy_logits, reference_logits, input_ids, label_mask):
    ours = logprobs.get_probs(policy_logits, input_ids, label_mask).sum(-1)
    with torch.no_grad():
        theirs = logprobs.get_probs(reference_logits, input_ids, label_mask).sum(-1)
    return ours - theirs
""",
            "own log-probabilities, a loop": """
def answer(policy_logits, reference_logits, input_ids, label_mask):
    ours, theirs = policy_logits.log_softmax(-1), reference_logits.detach().log_softmax(-1)
    rows = []
    for b in range(len(input_ids)):
        places = [t for t in range(1, input_ids.shape[1]) if label_mask[b, t]]
        rows.append(sum(ours[b, t - 1, input_ids[b, t]] - theirs[b, t - 1, input_ids[b, t]] for t in places))
    return torch.stack(rows)
""",
        },
        "wrong": {
            "divided by the batch's tokens": ("batch_mask_sum", ratio("(ours - theirs).sum(-1) / label_mask.sum()")),
            "as found": ("mean_of_tokens", ratio("(ours - theirs).sum(-1) / label_mask.sum(-1)")),
            "mean over places": ("mean_of_tokens", ratio("(ours - theirs).mean(-1)")),
            "turned round": ("turned_round", ratio("(theirs - ours).sum(-1)")),
            "per token": ("per_token", ratio("ours - theirs")),
            "sum of all": ("summed_over_batch", ratio("(ours - theirs).sum()")),
            "ratio": ("ratio", ratio("(ours - theirs).sum(-1).exp()")),
            "end masked": ("eos_unscored", ratio("(ours - theirs).sum(-1)", "label_mask = label_mask * (input_ids != 3)")),
            "prompt scored": ("prompt_scored", ratio("(ours - theirs).sum(-1)", "label_mask = input_ids != 0")),
            "padding scored": ("padding_scored", ratio("(ours - theirs).sum(-1)", "label_mask = label_mask.cummax(1).values")),
            "policy alone": ("policy_only", ratio("ours.sum(-1)")),
            "no shift": ("no_shift", """
def answer(policy_logits, reference_logits, input_ids, label_mask):
    parts = []
    for logits in (policy_logits, reference_logits.detach()):
        own = logits.log_softmax(-1).gather(-1, input_ids[..., None]).squeeze(-1)
        parts.append((own * label_mask).sum(-1))
    return parts[0] - parts[1]
"""),
            "reference not detached": ("reference_not_detached", """
def answer(policy_logits, reference_logits, input_ids, label_mask):
    ours, theirs = (logprobs.get_probs(x, input_ids, label_mask) for x in (policy_logits, reference_logits))
    return (ours - theirs).sum(-1)
"""),
            "policy detached": ("no_gradient", ratio("(ours - theirs).detach().sum(-1)")),
            "an error": ("raised", ratio("(ours - their).sum(-1)")),
            "floats": ("type", ratio("(ours - theirs).sum(-1).tolist()")),
        },
    },
}  # fmt: skip

EQUIVALENT = {
    "get_probs": {
        "logits[:, :-1] -> logits": "gather takes as many places as the index has; the last one is never read",
        ":-1 -> :": "the same",
    },
    "logratio": {"-1 -> 1": "the last axis of a table with two axes is axis 1"},
}
