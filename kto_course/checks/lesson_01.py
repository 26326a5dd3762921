"""The exercises of lesson 01: prospect theory. Without torch, like the lesson."""

import math

import numpy as np

from kto_course.checks.engine import call, choice, compare, exercise, number

ALPHA, LOSS_AVERSION = 0.88, 2.25


@exercise(
    "balance",
    "What makes up for a loss",
    minutes=5,
    difficulty=2,
    kind="predict a number",
    points=1,
    hints={
        "power_forgotten": (
            "A gain of that size does not yet feel 2.25 times as strong. What does diminishing sensitivity do to it?",
            "The felt values must balance: x^0.88 = 2.25 * 10^0.88. Solve for x.",
            "Take both sides to the power 1 / 0.88.",
        ),
        "power_twice": (
            "You have raised 2.25 to a power. To which one, when the power is to be undone?",
            "To the power 1 / 0.88, not 0.88: x = 10 * 2.25^(1 / 0.88).",
        ),
        "felt_value": (
            "That is how strong the loss feels. Asked for are the dollars that feel as strong.",
            "Go back from felt value to dollars: which x has x^0.88 equal to your number?",
        ),
        "gain_of_ten": (
            "That is how good a gain of 10 feels. The two sides must balance.",
            "x^0.88 = 2.25 * 10^0.88. Solve for x.",
        ),
        "turned_round": (
            "That little would make up for a loss of 10? Which of the two is felt more strongly?",
            "Losses weigh 2.25 times as much, so the gain must be larger than 10: the exponent 1 / 0.88 is positive.",
        ),
        "divided": (
            "You divide by 2.25. Which of the two is felt more strongly, the loss or an equal gain?",
            "The gain must be larger than 10: solve x^0.88 = 2.25 * 10^0.88 for x.",
        ),
        "no_loss_aversion": (
            "Equal amounts: does a person of 1992 take a coin with 10 dollars on either side?",
            "The gain must feel 2.25 times as strong as a gain of 10.",
        ),
        "negative": (
            "The amount is right, but a gain is positive.",
            "Write it without the minus.",
        ),
        "rest_only": (
            "That is what must be added to 10. How large is the whole gain?",
            "Add the 10 again.",
        ),
    },
)
def balance(answer):
    felt_loss = LOSS_AVERSION * 10**ALPHA
    right = felt_loss ** (1 / ALPHA)
    number(
        answer,
        right,
        0.06,
        {
            "power_forgotten": 10 * LOSS_AVERSION,
            "power_twice": 10 * LOSS_AVERSION**ALPHA,
            "felt_value": felt_loss,
            "gain_of_ten": 10**ALPHA,
            "turned_round": 10 * LOSS_AVERSION ** (-1 / ALPHA),
            "no_loss_aversion": 10.0,
            "negative": -right,
            "rest_only": right - 10,
            "divided": 10 / LOSS_AVERSION,
        },
        tried="alpha = 0.88, lambda = 2.25, a loss of 10 dollars",
    )
    return "the gain whose felt value is that of the loss, to a few cents"


def _sigmoid(u):
    return 1 / (1 + math.exp(-u))


def right_kto_value(r, label, z0=0.0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    """Value v of one reply: r and z0 in nats, label True for a thumb up; lesson 01 goes on with it."""
    if label:
        return desirable_weight * _sigmoid(beta * (r - z0))
    return undesirable_weight * _sigmoid(beta * (z0 - r))


def value_faults(r, label, z0, beta, up, down):
    """What the known faults of `kto_value` give for one reply."""
    sign, weight = (1, up) if label else (-1, down)
    u = sign * beta * (r - z0)
    right = weight * _sigmoid(u)
    by_sign = right_kto_value(r, r > z0, z0, beta, up, down)
    return [
        ("sign_picks_branch", by_sign),
        ("sign_picks_branch", right_kto_value(r, r >= z0, z0, beta, up, down)),
        ("sign_picks_branch", right_kto_value(r, r > 0, z0, beta, up, down)),
        ("sign_picks_branch", weight * _sigmoid(abs(u))),
        ("labels_exchanged", right_kto_value(r, not label, z0, beta, up, down)),
        ("same_direction", weight * _sigmoid(beta * (r - z0))),
        ("both_weights_1", _sigmoid(u)),
        ("both_weights_1", up * _sigmoid(u)),
        ("weights_exchanged", right_kto_value(r, label, z0, beta, down, up)),
        ("weight_inside", _sigmoid(weight * u)),
        ("beta_missing", weight * _sigmoid(sign * (r - z0))),
        ("beta_twice", weight * _sigmoid(beta * u)),
        ("beta_beside_z0", weight * _sigmoid(sign * (beta * r - z0))),
        ("z0_missing", weight * _sigmoid(sign * beta * r)),
        ("z0_added", weight * _sigmoid(sign * beta * (r + z0))),
        ("loss", weight - right),  # the same as a turned sign inside: 1 - sigma(u) = sigma(-u)
        ("log_sigmoid", weight * math.log(_sigmoid(u))),
        ("log_sigmoid", -weight * math.log(_sigmoid(u))),
        ("power", weight * math.copysign(abs(r - z0) ** ALPHA, u) * (LOSS_AVERSION if u < 0 else 1)),
        ("negative", -right),
    ]


CASES = [  # r, label, z0, beta, desirable_weight, undesirable_weight
    (12.0, True, 2.0, 0.1, 2.0, 3.0),  # a liked reply has become likelier, a disliked one less likely: as wanted
    (-8.0, False, 2.0, 0.1, 2.0, 3.0),
    (-10.0, True, 0.0, 0.1, 1.0, 1.0),  # and the other way round
    (30.0, False, 10.0, 0.1, 1.0, 1.0),
    (5.0, True, 2.0, 0.5, 3.0, 0.7),
    (6.0, True, 6.0, 0.2, 2.0, 1.5),
    (1.0, True, 3.0, 0.25, 4 / 3, 1.0),
    (1.0, False, 3.0, 0.25, 4 / 3, 1.0),
]


@exercise(
    "kto_value",
    "The label picks the branch",
    minutes=6,
    difficulty=2,
    kind="repair a function",
    points=2,
    ours="kto_course.checks.lesson_01.right_kto_value",
    hints={
        "sign_picks_branch": (
            "A thumb up for a reply that became less likely: which of your branches takes it?",
            "Whether r lies above or below z0 does not say whether people liked the reply. The label does.",
            "Write `if label:` in the place of the comparison.",
        ),
        "labels_exchanged": (
            "The two branches have changed places. What is label for a thumb up?",
            "label is True for a thumb up: that branch has desirable_weight and r - z0.",
        ),
        "weights_exchanged": (
            "The branch is right, its weight is the other one's.",
            "A thumb up goes with desirable_weight, a thumb down with undesirable_weight.",
        ),
        "same_direction": (
            "A disliked reply gains in value when it becomes likelier. Should it?",
            "For a thumb down the difference is turned round: z0 - r.",
        ),
        "both_weights_1": (
            "With both weights 1 it fits. Look at the weights above: where do they enter?",
            "Multiply the sigma by desirable_weight or undesirable_weight, as the label says.",
        ),
        "weight_inside": (
            "The weight should stretch the curve in height. Where have you put it?",
            "It stands before the sigma, not inside.",
        ),
        "beta_missing": (
            "The value saturates far too fast. What sets the pace?",
            "Multiply the difference by beta, inside the sigma.",
        ),
        "beta_twice": (
            "The value saturates too slowly. How often have you multiplied by beta?",
            "Once is enough: beta * (r - z0).",
        ),
        "beta_beside_z0": (
            "Where z0 is 0 it fits. Is z0 a number of the same kind as r?",
            "Both are in nats, so first the difference, then beta: beta * (r - z0).",
        ),
        "z0_missing": (
            "Where z0 is 0 it fits. From where are gains counted?",
            "Subtract the reference point: r - z0.",
        ),
        "z0_added": (
            "Where z0 is 0 it fits. A gain is the distance from z0: how do you compute a distance?",
            "r - z0 for a thumb up, z0 - r for a thumb down.",
        ),
        "loss": (
            "The value falls where it should rise: that is the loss, what is missing to the weight.",
            "Subtract nothing from the weight, and mind the sign inside: sigma(beta * (r - z0)) for a thumb up.",
        ),
        "log_sigmoid": (
            "A logarithm has no floor. Between which two numbers should a value lie?",
            "KTO takes the sigma itself; the logarithm is that of DPO.",
        ),
        "power": (
            "That is the curve of 1992. Which one does KTO take instead?",
            "The logistic: sigma(u) = 1 / (1 + exp(-u)).",
        ),
        "negative": (
            "The sign is turned: the worst value is 0.",
            "Leave out the minus before the weight.",
        ),
    },
)
def kto_value(answer):
    names = ("r", "label", "z0", "beta", "desirable_weight", "undesirable_weight")
    for case in CASES:
        given = dict(zip(names, case, strict=True))
        tried = ", ".join(f"{name} = {value:.3g}" if name != "label" else f"label = {value}"
                          for name, value in given.items())  # fmt: skip
        compare(call(answer, **given, tried=tried), right_kto_value(*case), value_faults(*case))
    defaults = (3.0, False)
    found = call(answer, *defaults, tried="r = 3, label = False, the rest left at its default")
    compare(found, right_kto_value(*defaults, 0.0, 0.1, 1.0, 1.0), value_faults(*defaults, 0.0, 0.1, 1.0, 1.0))
    return "likes and dislikes on both sides of z0, with several weights and betas"


def mystery_ratio(amount):
    """-v(-z)/v(z) of a person whose value function differs from that of 1992; how is the question of exercise 1.3."""
    return LOSS_AVERSION * np.asarray(amount, dtype=float) ** (0.95 - ALPHA)


@exercise(
    "mystery_person",
    "A stranger's losses",
    minutes=4,
    difficulty=2,
    kind="read a curve",
    points=1,
    hints={
        "larger_lambda": (
            "A larger loss aversion would lift the whole line. Where does the stranger's begin?",
            "At 1 dollar it is still 2.25, and 1 to any power is 1: so lambda is as before.",
            "The line rises, so losses grow faster than gains. Which exponent says that?",
        ),
        "smaller_exponent": (
            "You have seen losses with a smaller exponent, 0.80. Did that ratio rise or fall with the amount?",
            "It fell. Here it rises: compare z^0.80 / z^0.88 with the opposite case.",
        ),
        "equal_exponents": (
            "With equal exponents z^alpha cancels in the ratio. What is left of it?",
            "A flat line at lambda. The stranger's rises.",
        ),
        "reference_point": (
            "A moved reference point changes what counts as a loss. Does it change v(-z) and v(z), seen from it?",
            "z is measured from the reference point, wherever it lies. Which of the four makes the ratio depend on z?",
        ),
    },
)
def mystery_person(answer):
    choice(
        answer,
        "c",
        {"a": "larger_lambda", "b": "smaller_exponent", "d": "equal_exponents", "e": "reference_point"},
    )
    return "your reading of the curve"


def bent(p, gamma=0.61):
    """The decision weight as lesson 01 writes it: NaN for a chance above 1."""
    p = np.asarray(p, dtype=float)
    up, down = p**gamma, (1 - p) ** gamma
    return up / (up + down) ** (1 / gamma)


def square(p):
    """A weighting function that is easy to follow by hand."""
    return np.asarray(p, dtype=float) ** 2


def right_rank_weights(probabilities, w):
    """Decision weights of outcomes, the most extreme first; lesson 01b goes on with it."""
    return np.diff(w(np.clip(np.cumsum(probabilities), 0, 1)), prepend=0.0)


def rank_faults(probabilities, w):
    """What the known faults of `rank_weights` give for these chances."""
    p = np.asarray(probabilities, dtype=float)
    each, reached = w(p), w(np.clip(np.cumsum(p), 0, 1))
    right = np.diff(reached, prepend=0.0)
    from_worst = right_rank_weights(p[::-1], w)[::-1]
    return [
        ("separable", each),
        ("rescaled", each / each.sum()),
        ("from_worst", from_worst),
        ("turned_order", right[::-1]),
        ("not_differenced", reached),
        ("first_missing", right[1:]),
        ("first_missing", np.append(right[1:], 0.0)),
        ("first_missing", np.concatenate([[0.0], right[1:]])),
        ("summed_after", np.cumsum(each)),
        ("unbent", p),
        ("unbent", np.cumsum(p)),
        ("negative", -right),
        ("total_only", float(right.sum())),
        ("times_chance", p * reached),
    ]


@exercise(
    "rank_weights",
    "The weight of at least this much",
    minutes=8,
    difficulty=2,
    kind="fill in a function",
    points=3,
    ours="kto_course.checks.lesson_01.right_rank_weights",
    hints={
        "separable": (
            "Each chance is bent on its own: that is the form of 1979. What is bent in 1992?",
            "Bend the chance of at least this prize, w(p_1 + ... + p_i), and take differences.",
            "np.diff(w(np.cumsum(p)), prepend=0.0)",
        ),
        "rescaled": (
            "They add up to 1 now, but because you have divided. Where does the 1 come from in the formula?",
            "Bend the sums p_1 + ... + p_i and take differences: they add up to w(1) = 1 by themselves.",
        ),
        "from_worst": (
            "You add up from the other end. Which outcome comes first in the list?",
            "The list is sorted already, the most extreme first: no turning round.",
        ),
        "turned_order": (
            "The weights are right, in the wrong order.",
            "Entry i of the result belongs to entry i of the chances: no turning round at the end.",
        ),
        "not_differenced": (
            "That is the weight of at least this prize. What does one prize add to it?",
            "Subtract the entry before: np.diff(..., prepend=0.0).",
        ),
        "first_missing": (
            "The first outcome has lost its weight. What stands before it?",
            "Nothing is reached before the first: its weight is w(p_1) - 0. np.diff takes prepend=0.0.",
        ),
        "summed_after": (
            "First bent, then summed. In which order does the formula do it?",
            "The sum stands inside w: w(p_1 + ... + p_i).",
        ),
        "unbent": (
            "These are chances. Where does w come in?",
            "Call w on the sums p_1 + ... + p_i.",
        ),
        "negative": (
            "The sign is turned. Which of the two terms is larger?",
            "w of the longer sum minus w of the shorter one.",
        ),
        "total_only": (
            "There is one number. How many outcomes are there?",
            "Return one weight for each outcome; they add up to 1 by themselves.",
        ),
        "times_chance": (
            "You multiply by the chance. Is it not in the weight already?",
            "The weight is a difference of two values of w, nothing else.",
        ),
        "past_one": (
            "A NaN. Add up the chances above in Python: how large is the last sum?",
            "Rounding has pushed it past 1, and (1 - p)^gamma has no value there: np.clip(sums, 0, 1).",
        ),
    },
)
def rank_weights(answer):
    tried = "chances {}, w(p) = p * p"
    for chances in ([0.5, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4], [1.0]):
        got = call(answer, np.array(chances), square, tried=tried.format(chances))
        compare(_as_array(got), right_rank_weights(chances, square), rank_faults(chances, square))
    rng = np.random.default_rng(0)
    for n in (4, 7):
        chances = rng.dirichlet(np.ones(n)).round(3)
        chances[-1] = 1 - chances[:-1].sum()
        got = call(answer, chances, bent, tried=f"{n} random chances, w of the lesson")
        compare(_as_array(got), right_rank_weights(chances, bent), rank_faults(chances, bent))
    chances = [0.2, 0.4, 0.3, 0.1]  # adds up to a little more than 1 in this order
    got = call(answer, np.array(chances), bent, tried=f"chances {chances}, w of the lesson")
    with np.errstate(invalid="ignore"):
        past = np.diff(bent(np.cumsum(chances)), prepend=0.0)
    compare(_as_array(got), right_rank_weights(chances, bent), {"past_one": past})
    return "two weighting functions, six lists of chances, one of them with a sum a little above 1"


def _as_array(value):
    """A list of numbers is as good as an array; what is no table of numbers stays as it is."""
    if isinstance(value, list | tuple):
        try:
            return np.array(value, dtype=float)
        except (TypeError, ValueError):
            return value
    return value
