"""Right and wrong answers to the exercises of lesson 09. The form is told in tests/test_checks.py."""

SETUP = ""


def halo(falls="(slope >= -1e-9).all()", gains="(slope[x[:-1] >= 0].diff() <= 1e-9).all()", before=""):
    """A my_halo_points with other conditions."""
    return f"""
def answer(x, v):
    slope = v.diff() / x.diff()
    {before}
    return bool({falls}), bool({gains})
"""


ANSWERS = {
    "value_of_loss": {
        "right": {
            "two calls": "lambda loss, reference_point, x: loss(reference_point) - loss(reference_point + x)",
            "minus and a constant": """
def answer(loss, reference_point, x):
    def moved(distance):
        return -loss(reference_point + distance)
    return moved(x) - moved(torch.zeros_like(x))
""",
            "a loop": """
def answer(loss, reference_point, x):
    values = []
    for i in range(len(x)):
        at, away = reference_point[i : i + 1], reference_point[i : i + 1] + x[i : i + 1]
        values.append(loss(at) - loss(away))
    return torch.cat(values)
""",
            "one call": """
def answer(loss, reference_point, x):
    at, away = loss(torch.cat((reference_point, reference_point + x))).chunk(2)
    return at - away
""",
        },
        "wrong": {
            "turned round": ("turned_round", "lambda loss, z, x: loss(z + x) - loss(z)"),
            "not moved": ("not_zeroed", "lambda loss, z, x: -loss(z + x)"),
            "one minus": ("one_minus", "lambda loss, z, x: 1 - loss(z + x)"),
            "no reference point": ("reference_ignored", "lambda loss, z, x: loss(torch.zeros_like(x)) - loss(x)"),
            "minus the loss of x": ("reference_ignored", "lambda loss, z, x: -loss(x)"),
            "x as reward": ("x_as_reward", "lambda loss, z, x: loss(z) - loss(x)"),
            "distance of the distance": ("distance_twice", "lambda loss, z, x: loss(z) - loss(x - z)"),
            "only subtracted": ("distance_twice", "lambda loss, z, x: -loss(x - z)"),
            "the other side": ("other_side", "lambda loss, z, x: loss(z) - loss(z - x)"),
            "other side, turned": ("other_side", "lambda loss, z, x: loss(z - x) - loss(z)"),
            "zero at reward 0": ("zero_elsewhere", "lambda loss, z, x: loss(0 * x) - loss(z + x)"),
            "row 0 for all": ("first_reference", "lambda loss, z, x: loss(z[:1].expand_as(x)) - loss(z[0] + x)"),
            "summed": ("one_number", "lambda loss, z, x: (loss(z) - loss(z + x)).sum()"),
            "averaged": ("one_number", "lambda loss, z, x: loss(z).mean() - loss(z + x).mean()"),
            "a ratio": ("divided", "lambda loss, z, x: loss(z) / loss(z + x)"),
            "x changed": ("changed_arguments", """
def answer(loss, reference_point, x):
    x += reference_point
    return loss(reference_point) - loss(x)
"""),
            "detached": ("no_gradient", "lambda loss, z, x: loss(z) - loss(z + x.detach())"),
            "half a push": ("gradient", """
def answer(loss, z, x):
    v = loss(z) - loss(z + x)
    return (v + v.detach()) / 2
"""),
            "numbers": ("type", "lambda loss, z, x: (loss(z) - loss(z + x)).tolist()"),
            "loss not called": ("raised", "lambda loss, z, x: loss - loss(z + x)"),
        },
    },
    "trust_tenth": {
        "right": {"formula": "math.log(9) / 0.1", "rounded": "22", "a tensor": "-torch.logit(torch.tensor(0.1)) / 0.1"},
        "wrong": {
            "signed": ("negative", "-22"),
            "beta multiplied": ("beta_multiplied", "0.1 * math.log(9)"),
            "beta missing": ("beta_missing", "math.log(9)"),
            "beta twice": ("beta_twice", "math.log(9) / 0.1**2"),
            "a tenth of its own peak": ("own_peak", "36.4"),
            "a tenth of DPO's full push": ("dpo_full", "20.6"),
            "logarithm of p": ("no_odds", "-math.log(0.1) / 0.1"),
            "base ten": ("log10", "math.log10(9) / 0.1"),
            "odds": ("odds_not_log", "90"),
            "a guess": ("values", "50"),
            "text": ("type", "'22 nats'"),
            "NaN": ("nan", "math.nan"),
        },
    },
    "rising_share": {
        "right": {"fraction": "2 / 3", "two decimals": "0.67", "a tensor": "torch.tensor(2.0) / 3"},
        "wrong": {
            "dislikes": ("turned_round", "1 / 3"),
            "equal weights": ("equal_weights", "0.5"),
            "odds": ("odds", "2 / 1"),
            "percent": ("percent", "66.67"),
            "the share of the text": ("seen", "0.6"),
            "three quarters": ("up_doubled", "3 / 4"),
            "a guess": ("values", "0.9"),
            "text": ("type", "'two thirds'"),
            "two numbers": ("type", "[2, 3]"),
            "NaN": ("nan", "math.nan"),
        },
    },
    "halo_points": {
        "right": {
            "tensors": halo(),
            "a loop over triples": """
def answer(x, v):
    falls, bends = False, False
    for i in range(len(x) - 1):
        before = (v[i + 1] - v[i]) / (x[i + 1] - x[i])
        falls = falls or before < -1e-9
        if i + 2 < len(x) and x[i] >= 0:
            behind = (v[i + 2] - v[i + 1]) / (x[i + 2] - x[i + 1])
            bends = bends or behind - before > 1e-9
    return not falls, not bends
""",
            "gains cut out first": """
def answer(x, v):
    gx, gv = x[x >= 0], v[x >= 0]
    slope = (gv[1:] - gv[:-1]) / (gx[1:] - gx[:-1])
    return (v[1:] - v[:-1] > -1e-10).all().item(), (slope[1:] - slope[:-1] < 1e-9).all().item()
""",
            "lists, a list back": """
def answer(x, v):
    x, v = x.tolist(), v.tolist()
    slopes = [(b - a) / (d - c) for a, b, c, d in zip(v, v[1:], x, x[1:])]
    gains = [s for s, start in zip(slopes, x) if start >= 0]
    return [min(slopes) >= -1e-9, all(t <= s + 1e-9 for s, t in zip(gains, gains[1:]))]
""",
            "bool tensors": """
def answer(x, v):
    slope = torch.diff(v) / torch.diff(x)
    rises = slope[x[:-1] >= 0].diff()
    return (slope > -1e-9).all(), ~(rises > 1e-9).any()
""",
            "the middle and the start": """
def answer(x, v):
    slope = v.diff() / x.diff()
    return bool((slope >= -1e-9).all()), bool((slope.diff()[x[:-2] >= 0] <= 1e-9).all())
""",
        },
        "wrong": {
            "as found": ("losses_counted", """
def answer(x, v):
    slope = v.diff()
    return bool((slope > 0).all()), bool((slope.diff() < 0).all())
"""),
            "gains mended": ("flat_refused", """
def answer(x, v):
    slope = v.diff()
    return bool((slope > 0).all()), bool((slope[x[:-1] >= 0].diff() < 0).all())
"""),
            "gains and flat mended": ("line_refused", """
def answer(x, v):
    slope = v.diff()
    return bool((slope >= 0).all()), bool((slope[x[:-1] >= 0].diff() < 0).all())
"""),
            "raw differences": ("uneven", """
def answer(x, v):
    slope = v.diff()
    return bool((slope >= -1e-9).all()), bool((slope[x[:-1] >= 0].diff() <= 1e-9).all())
"""),
            "flat refused": ("flat_refused", halo(falls="(slope > 0).all()")),
            "line refused": ("line_refused", halo(gains="(slope[x[:-1] >= 0].diff() < -1e-9).all()")),
            "concave everywhere": ("losses_counted", halo(gains="(slope.diff() <= 1e-9).all()")),
            "concave in losses": ("losses_counted", halo(gains="(slope[x[1:] <= 0].diff() <= 1e-9).all()")),
            "middles at or above 0": ("across_zero", halo(gains="(slope.diff()[x[1:-1] >= 0] <= 1e-9).all()")),
            "middles above 0": ("across_zero", halo(gains="(slope.diff()[x[1:-1] > 1e-9] <= 1e-9).all()")),
            "above 0 only": ("zero_left_out", halo(gains="(slope[x[:-1] > 0].diff() <= 1e-9).all()")),
            "falling in losses allowed": ("losses_may_fall", halo(falls="(slope[x[:-1] >= 0] >= -1e-9).all()")),
            "convex": ("turned_round", halo(gains="(slope[x[:-1] >= 0].diff() >= -1e-9).all()")),
            "never rises": ("turned_round", halo(falls="(slope <= 1e-9).all()")),
            "no tolerance": ("rounding", halo("(slope >= 0).all()", "(slope[x[:-1] >= 0].diff() <= 0).all()")),
            "swapped": ("swapped", """
def answer(x, v):
    slope = v.diff() / x.diff()
    return bool((slope[x[:-1] >= 0].diff() <= 1e-9).all()), bool((slope >= -1e-9).all())
"""),
            "a wide tolerance": ("values", halo(falls="(slope >= -0.2).all()")),
            "one answer": ("type", "def answer(x, v):\n    return bool((v.diff() / x.diff() >= -1e-9).all())"),
            "a mask of another length": ("raised", halo(gains="(slope[x >= 0].diff() <= 1e-9).all()")),
            "no return": ("open", "def answer(x, v):\n    slope = v.diff() / x.diff()"),
            "divided in place": ("changed_arguments", halo(before="x /= 2")),
        },
    },
    "ipo_odds": {
        "right": {
            "formula": "0.3 / 0.7 * math.exp(0.2)",
            "rounded": "0.52",
            "in logarithms": "math.exp(math.log(0.3) - math.log(0.7) + (0.6 - 0.4) / (2 * 0.5))",
            "a grid": """
m = torch.linspace(-3, 3, 6001)
answer = 3 / 7 * m[(0.6 * (m - 1) ** 2 + 0.4 * (-m - 1) ** 2).argmin()].exp()
""",
        },
        "wrong": {
            "DPO's": ("dpo", "0.3 / 0.7 * (0.6 / 0.4) ** 2"),
            "all agree": ("all_agree", "0.3 / 0.7 * math.e"),
            "the margin": ("margin_only", "0.2"),
            "no reference": ("reference_ignored", "math.exp(0.2)"),
            "reference": ("reference_only", "0.3 / 0.7"),
            "added": ("added", "0.3 / 0.7 + 0.2"),
            "probability": ("probability", "0.3436"),
            "odds of b": ("turned_round", "0.7 / 0.3 * math.exp(-0.2)"),
            "wrong sign": ("wrong_sign", "0.3 / 0.7 * math.exp(-0.2)"),
            "beta multiplied": ("beta_multiplied", "0.3 / 0.7 * math.exp(0.05)"),
            "two missing": ("two_missing", "0.3 / 0.7 * math.exp(0.2 / 0.5)"),
            "beta twice": ("beta_twice", "0.3 / 0.7 * math.exp(0.5 * 0.2)"),
            "a logarithm": ("no_exp", "math.log(0.3 / 0.7) + 0.2"),
            "a guess": ("values", "0.9"),
            "two numbers": ("type", "[0.52, 1]"),
            "NaN": ("nan", "math.nan"),
        },
    },
}  # fmt: skip

ROUNDING = "1e-9 only forgives rounding: no value function has a slope, or a change of slope, between the two limits"
EQUIVALENT = {
    "halo_points": {
        "slope >= -1e-09 -> slope > -1e-09": ROUNDING,
        "in_gains.diff() <= 1e-09 -> in_gains.diff() < 1e-09": ROUNDING,
        "1e-09 -> 2e-09": ROUNDING,
        "1e-09 -> 2e-09 (2)": ROUNDING,
    },
}
