"""Right and wrong answers to the exercises of lesson 01. The form is told in tests/test_checks.py."""

SETUP = """
def sigmoid(x):
    return 1 / (1 + np.exp(-x))
"""


def ranked(result, before="", sums="np.clip(np.cumsum(probabilities), 0, 1)"):
    """Decision weights; their names are those of the model solution."""
    return f"""
def answer(probabilities, w):
    reached = {sums}
    {before}
    return {result}
"""


DIFFERENCES = "np.diff(w(reached), prepend=0.0)"


def valued(liked="beta * (r - z0)", disliked="beta * (z0 - r)", test="label", up="desirable_weight * sigmoid({})",
           down="undesirable_weight * sigmoid({})"):  # fmt: skip
    """KTO's value with these arguments of the sigma."""
    return f"""
def answer(r, label, z0=0.0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    if {test}:
        return {up.format(liked)}
    return {down.format(disliked)}
"""


ANSWERS = {
    "balance": {
        "right": {
            "solved": "10 * 2.25 ** (1 / 0.88)",
            "rounded": "25.1",
            "by trying": "min(x for x in np.arange(10, 60, 0.01) if x**0.88 >= 2.25 * 10**0.88)",
            "an array": "np.array([25.13])",
        },
        "wrong": {
            "times 2.25": ("power_forgotten", "22.5"),
            "wrong power": ("power_twice", "10 * 2.25**0.88"),
            "felt loss": ("felt_value", "17.07"),
            "felt gain": ("gain_of_ten", "10**0.88"),
            "negative exponent": ("turned_round", "10 * 2.25 ** (-1 / 0.88)"),
            "divided": ("divided", "10 / 2.25"),
            "the same amount": ("no_loss_aversion", "10"),
            "with a minus": ("negative", "-25.1"),
            "only the rest": ("rest_only", "15.13"),
            "a guess": ("values", "30"),
            "a word": ("type", "'25 dollars'"),
            "NaN": ("nan", "np.nan"),
        },
    },
    "kto_value": {
        "right": {
            "two branches": valued(),
            "one line": """
def answer(r, label, z0=0.0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    sign, weight = (1, desirable_weight) if label else (-1, undesirable_weight)
    return weight / (1 + np.exp(-sign * beta * (r - z0)))
""",
            "hyperbolic tangent": """
def answer(r, label, z0=0.0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    half = 0.5 + 0.5 * np.tanh(beta * (r - z0) / 2)
    return desirable_weight * half if label else undesirable_weight * (1 - half)
""",
            "np.where, float32": """
def answer(r, label, z0=0.0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    distance = np.float32(beta) * np.where(label, np.float32(r - z0), np.float32(z0 - r))
    return np.float32(np.where(label, desirable_weight, undesirable_weight) * sigmoid(distance))
""",
            "the weight minus the loss": """
def answer(r, label, z0=0.0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    weight = desirable_weight if label else undesirable_weight
    loss = weight * (1 - sigmoid(beta * (r - z0) if label else beta * (z0 - r)))
    return weight - loss
""",
        },
        "wrong": {
            "as found": ("beta_beside_z0", valued("beta * r - z0", "z0 - beta * r", "r > z0")),
            "sign of r - z0": ("sign_picks_branch", valued(test="r > z0")),
            "sign of r - z0, equality up": ("sign_picks_branch", valued(test="r >= z0")),
            "sign of r": ("sign_picks_branch", valued(test="r > 0")),
            "distance without sign": ("sign_picks_branch", valued("beta * abs(r - z0)", "beta * abs(z0 - r)")),
            "branches exchanged": ("labels_exchanged", valued(test="not label")),
            "weights exchanged": ("weights_exchanged", valued(
                up="undesirable_weight * sigmoid({})", down="desirable_weight * sigmoid({})")),
            "same direction": ("same_direction", valued(disliked="beta * (r - z0)")),
            "both turned": ("loss", valued("beta * (z0 - r)", "beta * (r - z0)")),
            "loss": ("loss", valued(up="desirable_weight - desirable_weight * sigmoid({})",
                                    down="undesirable_weight - undesirable_weight * sigmoid({})")),
            "no weights": ("both_weights_1", valued(up="sigmoid({})", down="sigmoid({})")),
            "one weight for both": ("both_weights_1", valued(down="desirable_weight * sigmoid({})")),
            "weights inside": ("weight_inside", valued(
                up="sigmoid(desirable_weight * {})", down="sigmoid(undesirable_weight * {})")),
            "no beta": ("beta_missing", valued("(r - z0)", "(z0 - r)")),
            "beta twice": ("beta_twice", valued("beta * beta * (r - z0)", "beta * beta * (z0 - r)")),
            "beta beside z0": ("beta_beside_z0", valued("beta * r - z0", "z0 - beta * r")),
            "no z0": ("z0_missing", valued("beta * r", "-beta * r")),
            "z0 added": ("z0_added", valued("beta * (r + z0)", "-beta * (r + z0)")),
            "logarithm": ("log_sigmoid", valued(up="desirable_weight * np.log(sigmoid({}))",
                                                down="undesirable_weight * np.log(sigmoid({}))")),
            "loss of DPO": ("log_sigmoid", valued(up="-desirable_weight * np.log(sigmoid({}))",
                                                  down="-undesirable_weight * np.log(sigmoid({}))")),
            "power": ("power", """
def answer(r, label, z0=0.0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    z = r - z0 if label else z0 - r
    felt = abs(z) ** 0.88 * (1 if z >= 0 else -2.25)
    return (desirable_weight if label else undesirable_weight) * felt
"""),
            "turned sign": ("negative", valued(up="-desirable_weight * sigmoid({})", down="-undesirable_weight * sigmoid({})")),
            "two numbers": ("type", valued(up="(desirable_weight, sigmoid({}))")),
            "default of beta": ("values", valued().replace("beta=0.1", "beta=0.2")),
            "an error": ("raised", valued(test="label.all()")),
            "no return": ("open", "def answer(r, label, z0=0.0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):\n    v = sigmoid(beta * (r - z0))"),
        },
    },
    "mystery_person": {
        "right": {"letter": "'c'", "capital": "'C'", "with a bracket": "'c)'"},
        "wrong": {
            "lambda": ("larger_lambda", "'a'"),
            "smaller exponent": ("smaller_exponent", "'b'"),
            "equal exponents": ("equal_exponents", "'d'"),
            "reference point": ("reference_point", "'e'"),
            "another letter": ("choice", "'f'"),
            "two letters": ("choice", "'a, c'"),
            "words": ("choice", "'a larger exponent for losses'"),
            "a number": ("type", "0.95"),
            "a list": ("type", "['c']"),
        },
    },
    "rank_weights": {
        "right": {
            "a loop": """
def answer(probabilities, w):
    weights, reached = [], 0.0
    for p in probabilities:
        before = reached
        reached = min(reached + p, 1.0)
        weights.append(w(reached) - w(before))
    return np.array(weights)
""",
            "vectorised": ranked(DIFFERENCES),
            "two sums subtracted": ranked("w(reached) - w(np.append(0.0, reached[:-1]))"),
            "a list, from the last one": """
def answer(probabilities, w):
    sums = [min(sum(probabilities[: i + 1]), 1) for i in range(len(probabilities))]
    backwards = [w(sums[i]) - (w(sums[i - 1]) if i else 0) for i in reversed(range(len(sums)))]
    return backwards[::-1]
""",
            "float32": """
def answer(probabilities, w):
    bent = [w(min(float(s), 1.0)) for s in np.cumsum(probabilities)]
    return (np.array(bent) - np.array([0.0, *bent[:-1]])).astype(np.float32)
""",
        },
        "wrong": {
            "each on its own": ("separable", "lambda probabilities, w: w(probabilities)"),
            "divided by the total": ("rescaled", "lambda probabilities, w: w(probabilities) / w(probabilities).sum()"),
            "from the worst": ("from_worst", ranked(
                "np.diff(w(reached), prepend=0.0)[::-1]", sums="np.clip(np.cumsum(probabilities[::-1]), 0, 1)")),
            "turned at the end": ("turned_order", ranked("np.diff(w(reached), prepend=0.0)[::-1]")),
            "no difference": ("not_differenced", ranked("w(reached)")),
            "one too few": ("first_missing", ranked("np.diff(w(reached))")),
            "0 for the first": ("first_missing", ranked("np.append(0.0, np.diff(w(reached)))")),
            "0 for the last": ("first_missing", ranked("np.append(np.diff(w(reached)), 0.0)")),
            "bent, then summed": ("summed_after", "lambda probabilities, w: np.cumsum(w(probabilities))"),
            "chances": ("unbent", "lambda probabilities, w: probabilities"),
            "sums of chances": ("unbent", "lambda probabilities, w: np.cumsum(probabilities)"),
            "turned sign": ("negative", ranked("-np.diff(w(reached), prepend=0.0)")),
            "the total": ("total_only", ranked("np.diff(w(reached), prepend=0.0).sum()")),
            "times the chance": ("times_chance", ranked("probabilities * w(reached)")),
            "past 1": ("past_one", ranked(DIFFERENCES, sums="np.cumsum(probabilities)")),
            "past 1, in a loop": ("past_one", """
def answer(probabilities, w):
    weights, reached = [], 0.0
    for p in probabilities:
        weights.append(w(reached + p) - w(reached))
        reached = reached + p
    return np.array(weights)
"""),
            "into the argument": ("changed_arguments", ranked(DIFFERENCES, before="probabilities[:] = reached")),
            "a number too much": ("shape", ranked("np.diff(w(np.append([0.0, 0.0], reached)))")),
            "a bit off": ("values", ranked("1.01 * np.diff(w(reached), prepend=0.0)")),
            "a word": ("type", "lambda probabilities, w: 'weights'"),
            "an error": ("raised", ranked("np.diff(w, prepend=0.0)")),
            "no return": ("open", "def answer(probabilities, w):\n    reached = np.cumsum(probabilities)"),
        },
    },
}  # fmt: skip

EQUIVALENT = {
    "rank_weights": {
        "np.minimum(np.cumsum(probabilities), 1) -> np.minimum(1, np.cumsum(probabilities))": "a minimum knows no order",
    },
}
