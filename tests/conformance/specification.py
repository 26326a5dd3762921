"""KTO in plain loops over numbers: the specification that every other implementation is held against.

Standard library only, one row at a time, one line per term of the formula. Log-probabilities are natural logs.
Only whole constants appear, so the same lines also run on `decimal.Decimal`, with as many digits as one likes.
The formula: arXiv 2402.01306v1, Eq. 7, with z_ref = beta * z0.
"""

import math


def log_probability(logits, token):
    """log softmax(logits)[token] = logits[token] - log(sum_v exp(logits[v])), nats."""
    largest = max(logits)  # taken out of the sum, so that no exponential overflows
    total = 0
    for logit in logits:
        total += math.exp(logit - largest)
    return (logits[token] - largest) - math.log(total)


def token_logps(logits, input_ids, label_mask):
    """One row: log pi(token t + 1 | tokens up to t) for t = 0 .. T-2; 0 where token t + 1 is not completion."""
    logps = []
    for t in range(len(input_ids) - 1):
        if label_mask[t + 1]:
            logps.append(log_probability(logits[t], input_ids[t + 1]))
        else:
            logps.append(0)  # the logits there are not even read: they may hold -inf or NaN
    return logps


def sequence_logp(token_logps):
    """log pi(completion | prompt): the sum over its tokens, not their mean."""
    total = 0
    for logp in token_logps:
        total += logp
    return total


def reference_point(kl_policy_logps, kl_reference_logps):
    """z0 = max(0, mean_j k_j), nats; k_j is the log-ratio of the j-th mismatched row."""
    total = 0
    for policy, reference in zip(kl_policy_logps, kl_reference_logps, strict=True):
        total += policy - reference
    return max(0, total / len(kl_policy_logps))


def sigmoid(x):
    """1 / (1 + exp(-x))"""
    if x < 0:  # the same number, from an exponential that cannot overflow
        return math.exp(x) / (1 + math.exp(x))
    return 1 / (1 + math.exp(-x))


def mean(numbers):
    total = 0
    for number in numbers:
        total += number
    return total / len(numbers)


def loss(
    policy_logps,
    reference_logps,
    kl_policy_logps,
    kl_reference_logps,
    label,
    beta,
    desirable_weight,
    undesirable_weight,
):
    """Part "loss": L_i = w_i (1 - sigmoid(s_i beta (r_i - z0))), their mean L, and dL / d policy_logps.

    z0 is a constant: nothing is differentiated through it.
    """
    z0 = reference_point(kl_policy_logps, kl_reference_logps)
    losses, gradient = [], []
    for policy, reference, up in zip(policy_logps, reference_logps, label, strict=True):
        r = policy - reference
        s = 1 if up else -1
        w = desirable_weight if up else undesirable_weight
        u = s * beta * (r - z0)
        losses.append(w * sigmoid(-u))  # sigmoid(-u) = 1 - sigmoid(u), without the subtraction's rounding
        gradient.append(-s * w * beta * sigmoid(u) * sigmoid(-u) / len(label))
    return {"z0": z0, "losses": losses, "loss": mean(losses), "grad_policy_logps": gradient}


def logps(logits, input_ids, attention_mask, label_mask):
    """Part "logps": log-probability of each completion token, and of each completion.

    attention_mask has done its work inside the model that made the logits; here it decides nothing.
    """
    by_token = []
    for row in range(len(input_ids)):
        by_token.append(token_logps(logits[row], input_ids[row], label_mask[row]))
    return {"token_logps": by_token, "logps": [sequence_logp(row) for row in by_token]}
