"""Right and wrong answers to the exercises of lesson 07. The form is told in tests/test_checks.py."""


def rate(expression, before=""):
    return f"""
def answer(logps, liked):
    p = logps.exp()
    {before}
    return {expression}
"""


def weights(expression, before=""):
    return f"""
def answer(rows):
    n_up = sum(row["label"] for row in rows)
    n_down = len(rows) - n_up
    n, fewer, more = len(rows), min(n_up, n_down), max(n_up, n_down)
    {before}
    return {expression}
"""


ANSWERS = {
    "exact_rate": {
        "right": {
            "a loop": """
def answer(logps, liked):
    total = 0.0
    for row, marks in zip(logps.tolist(), liked.tolist()):
        total += sum(math.exp(logp) for logp, mark in zip(row, marks) if mark)
    return total / len(logps)
""",
            "in logarithms": """
def answer(logps, liked):
    return logps.masked_fill(~liked, -math.inf).logsumexp(-1).exp().mean()
""",
            "only the liked ones": rate("p[liked].sum() / len(p)"),
            "einsum in float64": rate("torch.einsum('qr,qr->', p.double(), liked.double()) / p.shape[0]"),
        },
        "wrong": {
            "no exp": ("no_exp", rate("(logps * liked).sum(-1).mean()")),
            "masked before exp": ("masked_too_early", rate("(logps * liked).exp().sum(-1).mean()")),
            "softmax": ("renormalised", rate("(logps.softmax(-1) * liked).sum(-1).mean()")),
            "divided by the listed mass": ("renormalised", rate("(p * liked).sum() / p.sum()")),
            "counted": ("counted", rate("liked.double().mean()")),
            "likeliest": ("most_likely", rate("liked.gather(-1, p.argmax(-1, keepdim=True)).double().mean()")),
            "per question": ("per_question", rate("(p * liked).sum(-1)")),
            "sum": ("not_averaged", rate("(p * liked).sum()")),
            "mean over all": ("averaged_over_replies", rate("(p * liked).mean()")),
            "mean over replies": ("averaged_over_replies", rate("(p * liked).mean(-1)")),
            "mean of the liked": ("averaged_over_liked", rate("p[liked].mean()")),
            "mean of the liked, row by row": ("averaged_over_liked", rate("((p * liked).sum(-1) / liked.sum(-1)).mean()")),
            "disliked": ("inverted", rate("(p * ~liked).sum(-1).mean()")),
            "1 minus the rate": ("inverted", rate("1 - (p * liked).sum(-1).mean()")),
            "all replies": ("marks_forgotten", rate("p.sum(-1).mean()")),
            "logarithm": ("log_returned", rate("(p * liked).sum(-1).mean().log()")),
            "mean of logarithms": ("mean_of_logs", rate("(p * liked).sum(-1).log().mean()")),
            "geometric mean": ("mean_of_logs", rate("(p * liked).sum(-1).log().mean().exp()")),
            "a list": ("type", rate("[float((p * liked).sum(-1).mean())]")),
            "first question": ("values", rate("(p * liked)[0].sum()")),
            "in place": ("changed_arguments", rate("(p * liked).sum(-1).mean()", "liked[0, 0] = False")),
            "an error": ("raised", rate("(p @ liked).mean()")),
        },
    },
    "least_price": {
        "right": {
            "mean of the prices": "-(math.log(1 / 2) + math.log(1 / 8)) / 2",
            "a number": "1.386",
            "as a tensor": "-torch.tensor([0.5, 0.125]).log().mean()",
        },
        "wrong": {
            "of the mean rate": ("log_of_mean", "-math.log((1 / 2 + 1 / 8) / 2)"),
            "sum": ("summed", "math.log(16)"),
            "first": ("easy_only", "math.log(2)"),
            "second": ("hard_only", "math.log(8)"),
            "base 2": ("bits", "2"),
            "minus": ("negative", "-1.386"),
            "mean factor": ("no_log", "5"),
            "logarithm of the mean factor": ("log_of_mean_factor", "math.log(5)"),
            "nothing": ("values", "0"),
            "text": ("type", "'1.386'"),
            "two numbers": ("type", "(math.log(2), math.log(8))"),
        },
    },
    "count_weights": {
        "right": {
            "the package's": """
def answer(rows):
    n_up = sum(row["label"] for row in rows)
    return balanced_weights(n_up, len(rows) - n_up)
""",
            "two cases": """
def answer(rows):
    n_up = n_down = 0
    for row in rows:
        if row["label"]:
            n_up += 1
        else:
            n_down += 1
    if n_up <= n_down:
        return n_down / n_up, 1
    return 1, n_up / n_down
""",
            "tensors": """
def answer(rows):
    label = torch.tensor([row["label"] for row in rows])
    counts = torch.stack([(~label).sum(), label.sum()]).double()
    return tuple(counts / counts.min())
""",
            "at least 1": weights("(max(n_down / n_up, 1.0), max(n_up / n_down, 1.0))"),
        },
        "wrong": {
            "as found": ("shares_as_weights", weights("(n_up / n, n_down / n)")),
            "shares exchanged": ("smaller_not_1", weights("(n_down / n, n_up / n)")),
            "inverse shares": ("smaller_not_1", weights("(n / n_up, n / n_down)")),
            "inverse shares, halved": ("smaller_not_1", weights("(n / n_up / 2, n / n_down / 2)")),
            "inverse counts": ("smaller_not_1", weights("(1 / n_up, 1 / n_down)")),
            "counts exchanged": ("smaller_not_1", weights("(n_down, n_up)", "n_up *= 1.0")),
            "the larger one is 1": ("smaller_not_1", weights("(n_down / more, n_up / more)")),
            "for the many": ("more_for_the_many", weights("(n_up / fewer, n_down / fewer)")),
            "quotient turned": ("more_for_the_many", weights("(n_up / n_down, 1.0)")),
            "downs 1": ("smaller_not_1", weights("(n_down / n_up, 1.0)")),
            "ups 1": ("smaller_not_1", weights("(1.0, n_up / n_down)")),
            "both 1": ("both_weights_1", weights("(1.0, 1.0)")),
            "upper end": ("four_thirds", weights("(4 / 3 * n_down / n_up, 1.0)")),
            "1.33": ("four_thirds", weights("(4 / 3, 1.0)")),
            "by all rows": ("share_of_all", weights("(n / n_up, 1.0)")),
            "one weight": ("type", weights("n_down / n_up")),
            "rounded": ("values", weights("(round(n_down / fewer), round(n_up / fewer))")),
            "rows used up": ("changed_arguments", weights("(n_down / fewer, n_up / fewer)", "rows.clear()")),
            "an error": ("raised", weights("(n_down / fewer, n_up / fewer)", "rows.labels")),
        },
    },
    "mystery_log_cause": {
        "right": {"letter": "'c'", "capital": "'C'", "with bracket": "'c)'"},
        "wrong": {
            "a": ("not_moved", "'a'"),
            "A": ("not_moved", "'A)'"),
            "b": ("saturated", "'b'"),
            "d": ("independent_reference", "'d'"),
            "D": ("independent_reference", "'(D)'"),
            "e": ("choice", "'e'"),
            "two": ("choice", "'a or c'"),
            "a number": ("type", "3"),
        },
    },
}  # fmt: skip

EQUIVALENT = {
    "exact_rate": {"-1 -> 1": "the last axis of a table with two axes is axis 1"},
    "count_weights": {"min(n_up, n_down) -> min(n_down, n_up)": "the smaller of two numbers in either order"},
}
