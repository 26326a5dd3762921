"""Wrong on purpose (guard "sum"): divides a completion's log-probability by its number of tokens."""

import specification
from specification import loss

__all__ = ["logps", "loss"]


def logps(logits, input_ids, attention_mask, label_mask):
    right = specification.logps(logits, input_ids, attention_mask, label_mask)
    averages = []
    for total, scored in zip(right["logps"], label_mask, strict=True):
        averages.append(total / max(1, sum(scored[1:])))  # right: total
    return {"token_logps": right["token_logps"], "logps": averages}
