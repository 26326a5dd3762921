"""Right and wrong answers to the exercises of lesson 07. The form is told in tests/test_checks.py."""


def rate(expression, before=""):
    return f"""
def answer(logps, liked):
    p = logps.exp()
    {before}
    return {expression}
"""


def step(result="losses.mean(), logps - reference_logps, z0", before="", **changed):
    """An answer to batch_loss with some lines changed."""
    lines = {
        "logps": "sequence_logps(policy, batch)",
        "reference_logps": "sequence_logps(reference, batch)",
        "kl": "sequence_logps(policy, batch, 'kl_')",
        "reference_kl": "sequence_logps(reference, batch, 'kl_')",
        "z0": "reference_point(kl, reference_kl)",
        "losses": "kto_loss(logps, reference_logps, batch['label'], z0, beta, desirable_weight, undesirable_weight)",
    } | changed
    body = "".join(f"    {name} = {value}\n" for name, value in lines.items())
    return f"""
def answer(policy, reference, batch, beta, desirable_weight, undesirable_weight):
    {before}
{body}
    return {result}
"""


LOSS = "kto_loss({}, {}, batch['label'], {}, {})"
SETTINGS = "beta, desirable_weight, undesirable_weight"

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
    "batch_loss": {
        "right": {
            "without no_grad": step(),
            "the loss by hand": """
def answer(policy, reference, batch, beta, desirable_weight, undesirable_weight):
    with torch.no_grad():
        ours, kl, reference_kl = (sequence_logps(*a) for a in (
            (reference, batch), (policy, batch, "kl_"), (reference, batch, "kl_")))
        z0 = max(0.0, float((kl - reference_kl).mean()))
    r = sequence_logps(policy, batch) - ours
    up = desirable_weight * (1 - torch.sigmoid(beta * (r - z0)))
    down = undesirable_weight * (1 - torch.sigmoid(beta * (z0 - r)))
    return torch.where(batch["label"], up, down).mean(), r, z0
""",
            "log-ratios detached": step("losses.sum() / len(losses), (logps - reference_logps).detach(), z0"),
            "a list": step("[losses.mean(), logps - reference_logps, z0]"),
        },
        "wrong": {
            "own replies": ("matched_z0", step(kl="logps", reference_kl="reference_logps")),
            "no clamp": ("unclamped", step(z0="(kl - reference_kl).mean().detach()")),
            "reference first in z0": ("z0_exchanged", step(z0="reference_point(reference_kl, kl)")),
            "z0 not handed on": ("z0_ignored", step(losses=LOSS.format("logps", "reference_logps", "0.0", SETTINGS))),
            "z0 is 0": ("z0_ignored", step(z0="torch.tensor(0.0)")),
            "reference first": ("models_exchanged", step(
                "losses.mean(), reference_logps - logps, z0",
                losses=LOSS.format("reference_logps", "logps", "z0", SETTINGS))),
            "reference first in the log": ("models_exchanged", step("losses.mean(), reference_logps - logps, z0")),
            "all exchanged": ("models_exchanged", step(before="policy, reference = reference, policy")),
            "policy twice": ("one_model", step(reference_logps="logps.detach()")),
            "policy everywhere": ("one_model", step(before="reference = policy")),
            "per row": ("not_averaged", step("losses, logps - reference_logps, z0")),
            "sum": ("summed", step("losses.sum(), logps - reference_logps, z0")),
            "weights exchanged": ("weights_exchanged", step(
                losses=LOSS.format("logps", "reference_logps", "z0", "beta, undesirable_weight, desirable_weight"))),
            "weights forgotten": ("weights_forgotten", step(
                losses=LOSS.format("logps", "reference_logps", "z0", "beta"))),
            "beta forgotten": ("beta_forgotten", step(losses=LOSS.format(
                "logps", "reference_logps", "z0", "0.1, desirable_weight, undesirable_weight"))),
            "rewards": ("rewards", step("losses.mean(), beta * (logps - reference_logps), z0")),
            "mean log-ratio": ("mean_logratio", step("losses.mean(), (logps - reference_logps).mean(), z0")),
            "mismatched log-ratios": ("kl_rows", step("losses.mean(), kl - reference_kl, z0")),
            "policy under no_grad": ("no_gradient", step(logps="sequence_logps(policy, batch).detach()")),
            "loss alone": ("type", step("losses.mean()")),
            "two of three": ("values", step("losses.mean(), logps - reference_logps")),
            "another beta": ("values", step(losses=LOSS.format(
                "logps", "reference_logps", "z0", "2 * beta, desirable_weight, undesirable_weight"))),
            "batch emptied": ("changed_arguments", step(before="label = batch.pop('label'); batch = {**batch, 'label': label}")),
            "an error": ("raised", step(logps="sequence_logps(batch, policy)")),
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
}  # fmt: skip

EQUIVALENT = {
    "exact_rate": {"-1 -> 1": "the last axis of a table with two axes is axis 1"},
    "batch_loss": {
        "with torch.no_grad(): reference_logps = sequence_logps(reference, batch) kl_logps = sequence_logps(policy, "
        "batch, 'kl_') z0 = reference_point(kl_logps, sequence_logps(reference, batch, 'kl_')) -> reference_logps = "
        "sequence_logps(reference, batch); kl_logps = sequence_logps(policy, batch, 'kl_'); z0 = "
        "reference_point(kl_logps, sequence_logps(reference, batch, 'kl_'))": "z0 is detached and the reference frozen: "
        "without no_grad only time and memory are lost",
    },
}
