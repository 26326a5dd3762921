"""Right and wrong answers to the exercises of lesson 10. The form is told in tests/test_checks.py."""

SETUP = "from kto_utils import losses"


def scaled(inputs="r, z0, beta = torch.tensor([-3.0, 0.5, 7.0]), 2.0, 0.3",
           result="torch.allclose(loss(r, z0, beta), loss(beta * r, beta * z0, 1.0))"):  # fmt: skip
    return f"""
def answer(loss):
    {inputs}
    return {result}
"""


def repaired(z0="r_mismatched.mean().clamp(min=0).detach()", losses="torch.sigmoid(-sign * beta * (r - z0))",
             result="torch.where(label, weight_up * losses, weight_down * losses)",
             sign="torch.where(label, 1.0, -1.0)"):  # fmt: skip
    return f"""
def answer(r, r_mismatched, label, beta, weight_up, weight_down):
    z0 = {z0}
    sign = {sign}
    losses = {losses}
    return {result}
"""


AS_FOUND = "r_mismatched.clamp(min=0).mean()"
LOG = "-torch.nn.functional.logsigmoid(sign * beta * (r - z0))"

ANSWERS = {
    "reward_ceiling": {
        "right": {
            "logarithm": "-0.1 * torch.log(torch.tensor(0.02))",
            "difference of logarithms": "0.1 * (torch.tensor(1.0).log() - torch.tensor(0.02).log())",
            "rounded": "0.39",
        },
        "wrong": {
            "nats": ("beta_missing", "3.912"),
            "beta twice": ("beta_twice", "0.0391"),
            "turned sign": ("negative", "0.1 * torch.tensor(0.02).log()"),
            "ratio": ("no_log", "0.1 * 1 / 0.02"),
            "base ten": ("log10", "0.17"),
            "probabilities subtracted": ("difference", "0.1 * (1 - 0.02)"),
            "infinite": ("no_ceiling", "float('inf')"),
            "a guess": ("values", "1"),
            "text": ("type", "'0.39'"),
            "a formula": ("type", "lambda p: -0.1 * torch.log(p)"),
            "NaN": ("nan", "float('nan')"),
        },
    },
    "unlabelled": {
        "right": {"letter": "'b'", "capital": "'B'", "with bracket": "'b)'"},
        "wrong": {
            "reply's length": ("mean_of_tokens", "'a'"),
            "batch's tokens": ("batch_mask_sum", "'c'"),
            "learning rate": ("learning_rate", "'d'"),
            "another letter": ("choice", "'e'"),
            "two letters": ("choice", "'a or b'"),
            "words": ("choice", "'beta comes in twice'"),
            "nothing in quotes": ("choice", "''"),
            "a number": ("type", "18"),
            "a list": ("type", "['b']"),
        },
    },
    "scaling_test": {
        "right": {
            "allclose": scaled(),
            "loop": """
def answer(loss):
    for z0 in (0.0, 2.0):
        for beta in (0.1, 2.0):
            for r in (-4.0, 1.0, 3.0):
                one = loss(torch.tensor([r]), z0, beta).item()
                other = loss(torch.tensor([beta * r]), beta * z0, 1).item()
                if abs(one - other) > 1e-9:
                    return False
    return True
""",
            "largest difference": scaled(
                "r, z0, beta = torch.linspace(-5, 5, 11), torch.tensor(1.5), 0.1",
                "(loss(r, z0, beta) - loss(beta * r, beta * z0, 1.0)).abs().max() < 1e-6",
            ),
            "random, float32": scaled(
                "r, z0, beta = 5 * torch.randn(50, dtype=torch.float32), 3.0, 0.25",
                "bool(torch.isclose(loss(r, z0, beta), loss(r * beta, z0 * beta, 1), atol=1e-5).all())",
            ),
        },
        "wrong": {
            "always True": ("always_green", "lambda loss: True"),
            "beta 1": ("always_green", scaled("r, z0, beta = torch.tensor([-3.0, 0.5, 7.0]), 2.0, 1.0")),
            "another property": ("always_green", scaled(result="bool((loss(r, z0, beta) > 0).all())")),
            "both calls alike": ("always_green", scaled(result="torch.allclose(loss(r, z0, beta), loss(r, z0, beta))")),
            "very tolerant": ("always_green", scaled(
                result="torch.allclose(loss(r, z0, beta), loss(beta * r, beta * z0, 1.0), atol=50)"
            )),
            "z0 is 0": ("blind_to_z0", scaled("r, z0, beta = torch.tensor([-3.0, 0.5, 7.0]), 0.0, 0.3")),
            "r is z0": ("only_at_z0", scaled("r, z0, beta = torch.tensor([2.0]), 2.0, 0.3")),
            "near z0 and tolerant": ("one_slips_through", scaled(
                "r, z0, beta = torch.tensor([1.0, 3.0]), 2.0, 0.3",
                "torch.allclose(loss(r, z0, beta), loss(beta * r, beta * z0, 1.0), atol=0.1)",
            )),
            "any entry": ("only_at_z0", scaled(
                "r, z0, beta = torch.tensor([0.0, 2.0, 5.0]), 2.0, 0.3",
                "bool(torch.isclose(loss(r, z0, beta), loss(beta * r, beta * z0, 1.0)).any())",
            )),
            "always False": ("always_red", "lambda loss: False"),
            "z0 not scaled": ("z0_not_scaled", scaled(result="torch.allclose(loss(r, z0, beta), loss(beta * r, z0, 1.0))")),
            "r not scaled": ("always_red", scaled(result="torch.allclose(loss(r, z0, beta), loss(r, beta * z0, 1.0))")),
            "nothing scaled": ("always_red", scaled(result="torch.allclose(loss(r, z0, beta), loss(r, z0, 1.0))")),
            "beta left in": ("always_red", scaled(result="torch.allclose(loss(r, z0, beta), loss(beta * r, beta * z0, beta))")),
            "exactly equal": ("too_strict", scaled(result="bool((loss(r, z0, beta) == loss(beta * r, beta * z0, 1.0)).all())")),
            "torch.equal": ("too_strict", scaled(result="torch.equal(loss(r, z0, beta), loss(beta * r, beta * z0, 1.0))")),
            "turned round": ("turned_round", scaled(
                result="not torch.allclose(loss(r, z0, beta), loss(beta * r, beta * z0, 1.0))"
            )),
            "held against KTO's formula": ("own_formula", scaled(
                result="torch.allclose(loss(r, z0, beta), 1 - torch.sigmoid(beta * (r.double() - z0)))"
            )),
            "entry by entry": ("type", scaled(result="torch.isclose(loss(r, z0, beta), loss(beta * r, beta * z0, 1.0))")),
            "a difference": ("type", scaled(result="(loss(r, z0, beta) - loss(beta * r, beta * z0, 1.0)).abs().max()")),
            "a word": ("type", scaled(result="'green'")),
            "an assertion": ("raised", scaled(
                "r, z0, beta = torch.randn(9), 2.0, 0.3\n    assert (loss(r, z0, beta) == loss(r, z0, 1.0)).all()", "True"
            )),
            "no return": ("open", scaled().replace("return", "green =")),
        },
    },
    "four_faults": {
        "right": {
            "where": repaired(),
            "loop": """
def answer(r, r_mismatched, label, beta, weight_up, weight_down):
    z0 = max(0.0, sum(r_mismatched.tolist()) / len(r_mismatched))
    rows = []
    for log_ratio, up in zip(r, label, strict=True):
        if up:
            rows.append(weight_up * (1 - torch.sigmoid(beta * (log_ratio - z0))))
        else:
            rows.append(weight_down * (1 - torch.sigmoid(beta * (z0 - log_ratio))))
    return torch.stack(rows)
""",
            "the package's": """
def answer(r, r_mismatched, label, beta, weight_up, weight_down):
    nothing = torch.zeros_like(r)
    z0 = losses.reference_point(r_mismatched, torch.zeros_like(r_mismatched))
    return losses.kto_loss(r, nothing, label, z0, beta, weight_up, weight_down)
""",
            "no_grad, float32": """
def answer(r, r_mismatched, label, beta, weight_up, weight_down):
    with torch.no_grad():
        z0 = torch.clamp(r_mismatched.float().mean(), min=0)
    up = label.float()
    u = (2 * up - 1) * beta * (r.float() - z0)
    return (weight_up * up + weight_down * (1 - up)) * torch.sigmoid(-u)
""",
        },
        "wrong": {
            "as found": ("clamp_before_mean", repaired(
                AS_FOUND, "-torch.nn.functional.logsigmoid(sign * (beta * r - z0))", sign="2.0 * label - 1.0"
            )),
            "only 13 left": ("clamp_before_mean", repaired(f"{AS_FOUND}.detach()")),
            "13 and 20 left": ("clamp_before_mean", repaired(AS_FOUND, LOG)),
            "19 left": ("beta_beside_z0", repaired(losses="torch.sigmoid(-sign * (beta * r - z0))")),
            "19 and 20 left": ("beta_beside_z0", repaired(losses="-torch.nn.functional.logsigmoid(sign * (beta * r - z0))")),
            "20 left": ("log_sigmoid", repaired(losses=LOG)),
            "11 left": ("gradient_through_z0", repaired("r_mismatched.mean().clamp(min=0)")),
            "no clamp": ("no_clamp", repaired("r_mismatched.mean().detach()")),
            "own replies": ("matched_z0", repaired("r.mean().clamp(min=0).detach()")),
            "no reference point": ("no_z0", repaired("0.0")),
            "beta twice": ("beta_twice", repaired(losses="torch.sigmoid(-sign * beta * (beta * r - beta * z0))")),
            "no beta": ("beta_missing", repaired(losses="torch.sigmoid(-sign * (r - z0))")),
            "minus forgotten": ("turned_round", repaired(losses="torch.sigmoid(sign * beta * (r - z0))")),
            "no weights": ("both_weights_1", repaired(result="losses")),
            "weights exchanged": ("weights_exchanged", repaired(
                result="torch.where(label, weight_down * losses, weight_up * losses)"
            )),
            "mean": ("averaged", repaired(result="torch.where(label, weight_up * losses, weight_down * losses).mean()")),
            "sum": ("averaged", repaired(result="torch.where(label, weight_up * losses, weight_down * losses).sum()")),
            "r detached": ("no_gradient", repaired(losses="torch.sigmoid(-sign * beta * (r.detach() - z0))")),
            "gradient doubled": ("gradient", repaired(losses="torch.sigmoid(-sign * beta * (2 * r - r.detach() - z0))")),
            "r centred in place": ("changed_arguments", repaired(losses="torch.sigmoid(-sign * beta * r.sub_(z0))")),
            "hinge": ("values", repaired(losses="(1 - sign * beta * (r - z0)).clamp(min=0)")),
            "lists": ("type", repaired(result="torch.where(label, weight_up * losses, weight_down * losses).tolist()")),
            "a slip": ("raised", repaired(losses="torch.sigmoid(-signs * beta * (r - z0))")),
        },
    },
}  # fmt: skip

OTHER_INPUT = "another input that shows the faults as well"
EQUIVALENT = {
    "scaling_test": {
        "9 -> 10": OTHER_INPUT,
        "9 -> 8": OTHER_INPUT,
        "2.0 -> 2.5": OTHER_INPUT,
        "2.0 -> 4.0": OTHER_INPUT,
        "0.3 -> 0.8": OTHER_INPUT,
        "0.3 -> 0.6": OTHER_INPUT,
        "torch.allclose(loss(r, z0, beta), loss(beta * r, beta * z0, 1.0)) -> "
        "torch.allclose(loss(beta * r, beta * z0, 1.0), loss(r, z0, beta))": "closeness goes both ways",
    },
}
