"""Wrong on purpose (guard "shift"): scores a token with the logits at its own place, which predict the one after it."""

from specification import log_probability, loss, sequence_logp

__all__ = ["logps", "loss"]


def logps(logits, input_ids, attention_mask, label_mask):
    by_token = []
    for row_logits, ids, scored in zip(logits, input_ids, label_mask, strict=True):
        row = []
        for t in range(1, len(ids)):
            row.append(log_probability(row_logits[t], ids[t]) if scored[t] else 0.0)  # right: row_logits[t - 1]
        by_token.append(row)
    return {"token_logps": by_token, "logps": [sequence_logp(row) for row in by_token]}
