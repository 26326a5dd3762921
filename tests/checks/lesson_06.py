"""Right and wrong answers to the exercises of lesson 06. The form is told in tests/test_checks.py."""


def z0(expression, before=""):
    return f"""
def answer(policy_kl_logps, reference_kl_logps):
    k = policy_kl_logps - reference_kl_logps
    {before}
    return {expression}
"""


def loss(expression, before="", arguments="policy_logps, reference_logps, label, z0, beta=0.1, desirable_weight=1.0, "
         "undesirable_weight=1.0"):  # fmt: skip
    """A kto_loss that ends in this expression; r, s, w and u are those of the text."""
    return f"""
def answer({arguments}):
    r = policy_logps - reference_logps
    s = 2.0 * label.to(r.dtype) - 1.0
    w = desirable_weight * label.to(r.dtype) + undesirable_weight * (~label).to(r.dtype)
    u = s * beta * (r - z0)
    {before}
    return {expression}
"""


def slope(expression, before=""):
    """A kto_gradient that ends in this expression."""
    return f"""
def answer(logratio, label, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    s = 2.0 * label.to(logratio.dtype) - 1.0
    w = desirable_weight * label.to(logratio.dtype) + undesirable_weight * (~label).to(logratio.dtype)
    u = s * beta * (logratio - z0)
    n, sigma = len(logratio), torch.sigmoid
    {before}
    return {expression}
"""


def band(expression):
    return f"""
def answer(n_up, n_down, undesirable_weight=1.0, largest_ratio=4 / 3):
    low = n_down / n_up * undesirable_weight
    return {expression}
"""


ANSWERS = {
    "reference_point": {
        "right": {
            "difference of means": """
def answer(policy_kl_logps, reference_kl_logps):
    return (policy_kl_logps.mean() - reference_kl_logps.mean()).clamp(min=0).detach()
""",
            "a loop": """
def answer(policy_kl_logps, reference_kl_logps):
    total = 0.0
    for ours, theirs in zip(policy_kl_logps.tolist(), reference_kl_logps.tolist()):
        total += ours - theirs
    return torch.tensor(max(0.0, total / len(policy_kl_logps)))
""",
            "no_grad and relu": """
def answer(policy_kl_logps, reference_kl_logps):
    with torch.no_grad():
        return torch.relu((policy_kl_logps - reference_kl_logps).sum() / len(policy_kl_logps))
""",
            "float64 inside": """
def answer(policy_kl_logps, reference_kl_logps):
    k = policy_kl_logps.detach().double() - reference_kl_logps.detach().double()
    return torch.maximum(k.mean(), torch.zeros((), dtype=k.dtype))
""",
        },
        "wrong": {
            "clamped, then averaged": ("clamp_before_mean", z0("k.clamp(min=0).mean().detach()")),
            "clamped twice": ("clamp_before_mean", z0("k.relu().mean().relu().detach()")),
            "not clamped": ("no_clamp", z0("k.mean().detach()")),
            "reference minus policy": ("turned_round", z0("(-k).mean().clamp(min=0).detach()")),
            "each row": ("no_mean", z0("k.clamp(min=0).detach()")),
            "each row, not clamped": ("no_mean", z0("k.detach()")),
            "sum": ("summed", z0("k.sum().clamp(min=0).detach()")),
            "min instead of max": ("clamp_wrong_side", z0("k.mean().clamp(max=0).detach()")),
            "absolute value": ("absolute", z0("k.mean().abs().detach()")),
            "mean of absolute values": ("absolute", z0("k.abs().mean().detach()")),
            "policy alone": ("policy_only", z0("policy_kl_logps.mean().clamp(min=0).detach()")),
            "times beta": ("beta_inside", z0("0.1 * k.mean().clamp(min=0).detach()")),
            "first row left out": ("one_row_left_out", z0("(k[1:].sum() / len(k)).clamp(min=0).detach()")),
            "last row left out": ("one_row_left_out", z0("(k[:-1].sum() / len(k)).clamp(min=0).detach()")),
            "ratios": ("ratio", z0("k.exp().mean().detach()")),
            "0": ("always_0", z0("torch.zeros(())")),
            "not detached": ("gradient_through_z0", z0("k.mean().clamp(min=0)")),
            "policy detached only": ("gradient_through_z0", """
def answer(policy_kl_logps, reference_kl_logps):
    return (policy_kl_logps.detach() - reference_kl_logps).mean().clamp(min=0)
"""),
            "a Python number": ("type", z0("max(0.0, k.mean().item())")),
            "median": ("values", z0("k.median().clamp(min=0).detach()")),
            "in place": ("changed_arguments", z0("k.mean().clamp(min=0).detach()", "policy_kl_logps -= 1")),
            "one axis kept": ("shape", z0("k.mean(0, keepdim=True).clamp(min=0).detach()")),
            "an error": ("raised", z0("k.mean(-2).detach()")),
        },
    },
    "kto_loss": {
        "right": {
            "weight minus value in float64, a loop": """
def answer(policy_logps, reference_logps, label, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    rows = []
    for ours, theirs, up in zip(policy_logps.double(), reference_logps.double(), label.tolist()):
        s, w = (1, desirable_weight) if up else (-1, undesirable_weight)
        rows.append(w / (1 + torch.exp(s * beta * (ours - theirs - z0))))
    return torch.stack(rows)
""",
            "two branches": """
def answer(policy_logps, reference_logps, label, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    r = policy_logps - reference_logps
    up = desirable_weight * torch.sigmoid(beta * (z0 - r))
    down = undesirable_weight * torch.sigmoid(beta * (r - z0))
    return torch.where(label, up, down)
""",
            "exponential of logsigmoid": loss("w * torch.nn.functional.logsigmoid(-u).exp()"),
            "rewards first": """
def answer(policy_logps, reference_logps, label, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    reward, level = beta * (policy_logps - reference_logps), beta * z0
    u = torch.where(label, reward - level, level - reward)
    return torch.where(label, desirable_weight, undesirable_weight).to(u.dtype) * torch.sigmoid(-u)
""",
        },
        "wrong": {
            "value": ("value_returned", loss("w * torch.sigmoid(u)")),
            "minus log sigmoid": ("log_sigmoid", loss("-w * torch.nn.functional.logsigmoid(u)")),
            "beta twice": ("beta_twice", loss("w * torch.sigmoid(-beta * u)")),
            "beta beside z0": ("beta_beside_z0", loss("w * torch.sigmoid(-s * (beta * r - z0))")),
            "beta left out": ("no_beta", loss("w * torch.sigmoid(-s * (r - z0))")),
            "z0 left out": ("no_z0", loss("w * torch.sigmoid(-s * beta * r)")),
            "z0 added": ("z0_added", loss("w * torch.sigmoid(-s * beta * (r + z0))")),
            "no branches": ("no_branches", loss("w * torch.sigmoid(-beta * (r - z0))")),
            "branch by r": ("sign_from_r", loss("w * torch.sigmoid(-beta * (r - z0).abs())")),
            "weights swapped": ("weights_swapped", loss("(desirable_weight + undesirable_weight - w) * torch.sigmoid(-u)")),
            "weights left out": ("both_weights_1", loss("torch.sigmoid(-u)")),
            "weight inside": ("weight_inside", loss("torch.sigmoid(-w * u)")),
            "1 minus the value": ("weight_outside", loss("1 - w * torch.sigmoid(u)")),
            "policy alone": ("policy_only", loss("w * torch.sigmoid(-s * beta * (policy_logps - z0))")),
            "reference minus policy": ("turned_round", loss("w * torch.sigmoid(s * beta * (r + z0))")),
            "minus the value": ("negative", loss("-w * torch.sigmoid(u)")),
            "minus the loss": ("negative", loss("-w * torch.sigmoid(-u)")),
            "hinge": ("hinge", loss("w * torch.relu(1 - u)")),
            "hinge without margin": ("hinge", loss("w * torch.relu(-u)")),
            "mean": ("averaged", loss("(w * torch.sigmoid(-u)).mean()")),
            "sum": ("averaged", loss("(w * torch.sigmoid(-u)).sum()")),
            "1 minus sigmoid": ("one_minus_sigmoid", loss("w * (1 - torch.sigmoid(u))")),
            "weight minus value": ("one_minus_sigmoid", loss("w - w * torch.sigmoid(u)")),
            "gradient cut": ("no_gradient", loss("(w * torch.sigmoid(-u)).detach()")),
            "gradient halved": ("gradient", loss("0.5 * w * (torch.sigmoid(-u) + torch.sigmoid(-u).detach())")),
            "default beta": ("values", loss("w * torch.sigmoid(-u)", arguments="policy_logps, reference_logps, label, z0, "
                             "beta=0.5, desirable_weight=1.0, undesirable_weight=1.0")),
            "a list": ("type", loss("(w * torch.sigmoid(-u)).tolist()")),
            "an error": ("raised", loss("w * torch.sigmoid(-u)", "s = -label")),
            "NaN": ("nan", loss("w * torch.log(-torch.sigmoid(-u))")),
        },
    },
    "kto_gradient": {
        "right": {
            "sigma times one minus sigma": slope("-s * w * beta * sigma(u) * (1 - sigma(u)) / n"),
            "hyperbolic cosine": slope("-s * w * beta / (4 * torch.cosh(u / 2) ** 2) / n"),
            "a loop": """
def answer(logratio, label, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    rows = []
    for r, up in zip(logratio.tolist(), label.tolist()):
        s, w = (1, desirable_weight) if up else (-1, undesirable_weight)
        sigma = 1 / (1 + math.exp(-s * beta * (r - float(z0))))
        rows.append(-s * w * beta * sigma * (1 - sigma) / len(logratio))
    return torch.tensor(rows, dtype=logratio.dtype)
""",
            "even bell, float64": """
def answer(logratio, label, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    bell = torch.sigmoid(beta * (logratio.double() - z0)) * torch.sigmoid(beta * (z0 - logratio.double()))
    return torch.where(label, -desirable_weight * beta * bell, undesirable_weight * beta * bell) / label.numel()
""",
        },
        "wrong": {
            "signs turned": ("turned_round", slope("s * w * beta * sigma(u) * sigma(-u) / n")),
            "no sign": ("no_sign", slope("-w * beta * sigma(u) * sigma(-u) / n")),
            "no sign at all": ("no_sign", slope("w * beta * sigma(u) * sigma(-u) / n")),
            "sign of r": ("sign_from_r", slope("-(logratio - z0).sign() * w * beta * sigma(u) * sigma(-u) / n")),
            "not averaged": ("no_batch", slope("-s * w * beta * sigma(u) * sigma(-u)")),
            "not averaged, turned": ("no_batch", slope("s * w * beta * sigma(u) * sigma(-u)")),
            "beta of the chain rule": ("no_chain_rule", slope("-s * w * sigma(u) * sigma(-u) / n")),
            "no inner derivative": ("no_chain_rule", slope("-w * sigma(u) * sigma(-u) / n")),
            "beta squared": ("beta_twice", slope("-s * w * beta**2 * sigma(u) * sigma(-u) / n")),
            "beta squared inside": ("beta_twice", slope("-s * w * beta * sigma(beta * u) * sigma(-beta * u) / n")),
            "beta squared everywhere": ("beta_twice", slope("-s * w * beta**2 * sigma(beta * u) * sigma(-beta * u) / n")),
            "beta beside z0": ("beta_beside_z0", slope("-s * w * beta * sigma(u) * sigma(-u) / n", "u = s * (beta * logratio - z0)")),
            "z0 left out": ("no_z0", slope("-s * w * beta * sigma(u) * sigma(-u) / n", "u = s * beta * logratio")),
            "of minus log sigmoid": ("log_sigmoid", slope("-s * w * beta * sigma(-u) / n")),
            "one factor": ("one_sigmoid", slope("-s * w * beta * sigma(u) / n")),
            "squared": ("squared", slope("-s * w * beta * sigma(u) ** 2 / n")),
            "squared, other side": ("squared", slope("-s * w * beta * sigma(-u) ** 2 / n")),
            "weights swapped": ("weights_swapped", slope("-s * (desirable_weight + undesirable_weight - w) * beta * sigma(u) * sigma(-u) / n")),
            "weights left out": ("both_weights_1", slope("-s * beta * sigma(u) * sigma(-u) / n")),
            "losses": ("loss_returned", slope("w * sigma(-u)")),
            "losses by B": ("loss_returned", slope("w * sigma(-u) / n")),
            "sum": ("summed", slope("(-s * w * beta * sigma(u) * sigma(-u) / n).sum()")),
            "by the weights": ("divided_by_weights", slope("-s * w * beta * sigma(u) * sigma(-u) / w.sum()")),
            "a bit more": ("values", slope("-1.01 * s * w * beta * sigma(u) * sigma(-u) / n")),
            "a list": ("type", slope("(-s * w * beta * sigma(u) * sigma(-u) / n).tolist()")),
            "in place": ("changed_arguments", slope("-s * w * beta * sigma(u) * sigma(-u) / n", "logratio -= z0")),
            "an error": ("raised", slope("-s * w * beta * sigma(u) * sigma(-u) / n", "s[99] = 1")),
        },
    },
    "mystery_pull_curve": {
        "right": {"letter": "'b'", "capital": "'B'", "with bracket": "'b)'"},
        "wrong": {
            "a": ("z0_moved", "'a'"),
            "A": ("z0_moved", "'A)'"),
            "c": ("weight_doubled", "'c'"),
            "d": ("label_flipped", "'d'"),
            "e": ("beta_twice", "'e'"),
            "f": ("choice", "'f'"),
            "two": ("choice", "'b or c'"),
            "a number": ("type", "0.2"),
            "a list": ("type", "['b']"),
        },
    },
    "weight_band": {
        "right": {
            "solved for the weight": band("(low, low * largest_ratio)"),
            "a list": """
def answer(n_up, n_down, undesirable_weight=1.0, largest_ratio=4 / 3):
    total = undesirable_weight * n_down
    return [ratio * total / n_up for ratio in (1, largest_ratio)]
""",
            "tensors": """
def answer(n_up, n_down, undesirable_weight=1.0, largest_ratio=4 / 3):
    ends = torch.tensor([1.0, largest_ratio], dtype=torch.float64) * undesirable_weight * n_down / n_up
    return ends[0], ends[1]
""",
            "each end for itself": band("(n_down * undesirable_weight / n_up, largest_ratio * n_down * undesirable_weight / n_up)"),
        },
        "wrong": {
            "as found": ("turned_round", band("(n_up / n_down * undesirable_weight, largest_ratio)")),
            "both ends turned": ("turned_round", band("(n_up / n_down * undesirable_weight, n_up / n_down * undesirable_weight * largest_ratio)")),
            "upper end as found": ("upper_end_forgotten", band("(low, largest_ratio)")),
            "upper end without counts": ("upper_end_forgotten", band("(low, largest_ratio * undesirable_weight)")),
            "no counts": ("counts_forgotten", band("(undesirable_weight, largest_ratio * undesirable_weight)")),
            "nothing but the ratio": ("counts_forgotten", band("(1.0, largest_ratio)")),
            "weight forgotten": ("weight_forgotten", band("(n_down / n_up, n_down / n_up * largest_ratio)")),
            "weight divided": ("weight_divided", band("(low / undesirable_weight**2, low / undesirable_weight**2 * largest_ratio)")),
            "swapped": ("ends_swapped", band("(low * largest_ratio, low)")),
            "below": ("ends_swapped", band("(low / largest_ratio, low)")),
            "added": ("added", band("(low, low + largest_ratio)")),
            "share of all": ("share_of_all", band("tuple(n_down / (n_up + n_down) * undesirable_weight * x for x in (1, largest_ratio))")),
            "lower end alone": ("type", band("low")),
            "rounded": ("values", band("(round(low), round(low * largest_ratio))")),
        },
    },
}  # fmt: skip

EQUIVALENT = {}
