"""The exercises of lesson 09: human-aware losses."""

import math

import torch
import torch.nn.functional as F

from kto_course.checks.engine import call, compare, exercise, gradient, number
from kto_utils import losses

TINY = 1e-9  # what the task allows a slope to be off


def points(x, v):
    return torch.tensor(x, dtype=torch.float64), torch.tensor(v, dtype=torch.float64)


def value_of_loss_faults(loss, reference, x):
    """What the known faults of `value_of_loss` give on this input."""
    right = loss(reference) - loss(reference + x)
    nowhere = torch.zeros_like(x)
    return [
        ("turned_round", -right),
        ("not_zeroed", -loss(reference + x)),
        ("one_minus", 1 - loss(reference + x)),
        ("reference_ignored", loss(nowhere) - loss(x)),
        ("reference_ignored", -loss(x)),
        ("x_as_reward", loss(reference) - loss(x)),
        ("distance_twice", loss(reference) - loss(x - reference)),
        ("distance_twice", loss(nowhere) - loss(x - reference)),
        ("distance_twice", -loss(x - reference)),
        ("other_side", loss(reference) - loss(reference - x)),
        ("other_side", loss(reference - x) - loss(reference)),
        ("zero_elsewhere", loss(nowhere) - loss(reference + x)),
        ("first_reference", loss(reference[:1].expand_as(x)) - loss(reference[:1] + x)),
        ("one_number", right.sum()),
        ("one_number", right.mean()),
        ("divided", loss(reference) / loss(reference + x)),
        ("divided", loss(reference + x) / loss(reference)),
    ]


def _squared(r):
    return (r - 5) ** 2


def _as_kto(r):
    return losses.kto_loss(r, torch.zeros_like(r), torch.ones_like(r, dtype=torch.bool), 4.0)


def _as_dpo(r):
    return F.softplus(-0.1 * r)


@exercise(
    "value_of_loss",
    "Read the value off a loss",
    minutes=5,
    difficulty=2,
    kind="fill in a function",
    points=2,
    ours="kto_course.halos.value_of_loss",
    hints={
        "turned_round": (
            "The sign is turned. Is a large loss good or bad?",
            "Value is minus the loss: the loss at the reference point minus the loss at distance x.",
        ),
        "not_zeroed": (
            "The curve has the right shape, but how much is it worth to stand at the reference point itself?",
            "Add the loss at the reference point, so that the value is 0 at x = 0.",
        ),
        "one_minus": (
            "1 - loss is 0 where the loss is 1. Is that at the reference point?",
            "In the place of 1 write the loss at the reference point.",
        ),
        "reference_ignored": (
            "Your values are those of a row whose reference point is 0. What is the reward of a row at distance x?",
            "Its reward is reference_point + x.",
        ),
        "x_as_reward": (
            "You give x to the loss. Is x a reward or a distance?",
            "A row at distance x from its reference point has the reward reference_point + x.",
        ),
        "distance_twice": (
            "You subtract the reference point from x. But x is a distance from it already.",
            "Go back to the reward: reference_point + x.",
        ),
        "other_side": (
            "You look on the other side of the reference point. Does a positive x mean more or less reward?",
            "reference_point + x, not reference_point - x.",
        ),
        "zero_elsewhere": (
            "Your value is 0 where the *reward* is 0. Where should it be?",
            "Subtract from loss(reference_point), not from the loss at reward 0.",
        ),
        "first_reference": (
            "All rows have got the reference point of row 0. How many are there?",
            "Each row has its own: use reference_point as it is, without an index.",
        ),
        "one_number": (
            "All rows have gone into one number. How many rows came in?",
            "Return the (N,) values, without sum or mean.",
        ),
        "divided": (
            "You have divided. The value is moved to 0 at the reference point, not scaled.",
            "Subtract: the loss at the reference point minus the loss at distance x.",
        ),
    },
)
def value_of_loss(answer):
    def right(loss, reference, x):
        return loss(reference) - loss(reference + x)

    small = points([2, 4], [0, 1])
    tried = "loss(r) = (r - 5)^2, reference_point = [2, 4], x = [0, 1]"
    got = call(answer, _squared, *small, tried=tried)
    compare(got, right(_squared, *small), value_of_loss_faults(_squared, *small))
    generator = torch.Generator().manual_seed(0)
    for name, loss, dtype in (
        ("KTO's loss of liked rows", _as_kto, torch.float64),
        ("DPO's loss", _as_dpo, torch.float64),
        ("DPO's loss", _as_dpo, torch.float32),
    ):
        case = (10 * torch.randn(2, 9, generator=generator, dtype=torch.float64)).to(dtype).unbind()
        got = call(answer, loss, *case, tried=f"{name}, 9 random reference points and distances, {dtype}")
        compare(got, right(loss, *case), value_of_loss_faults(loss, *case))
    case = (10 * torch.randn(2, 9, generator=generator, dtype=torch.float64)).unbind()
    pushes = gradient(right, _as_kto, *case, wrt=2)
    compare(gradient(answer, _as_kto, *case, wrt=2, tried="the push: the gradient in x"), pushes, default="gradient")
    return "values of three losses, and the push"


@exercise(
    "trust_tenth",
    "A tenth of the trust",
    minutes=4,
    difficulty=2,
    kind="predict a number",
    points=1,
    hints={
        "negative": (
            "The place is right. How far is it, as a distance?",
            "Leave out the minus.",
        ),
        "beta_multiplied": (
            "That is less than a nat, and nothing changes much within one nat at this beta. Multiply or divide?",
            "0.1 * x = -log(9), so x is log(9) divided by 0.1.",
        ),
        "beta_missing": (
            "That is the argument of the sigmoid. How many nats make it up?",
            "The argument is 0.1 * x: divide by 0.1.",
        ),
        "beta_twice": (
            "That is far too far out: beta divides twice.",
            "0.1 * x = -log(9): divide log(9) by 0.1 once.",
        ),
        "own_peak": (
            "There KTO's push is a tenth of its *own* largest push. Compared with what was asked?",
            "Compare with DPO's push at the same place: KTO's is p times that, so p = 0.1.",
        ),
        "dpo_full": (
            "There KTO's push is a tenth of DPO's *full* push. Does DPO push fully at that place?",
            "At the same place KTO's push is p times DPO's, whatever DPO's is: p = 0.1.",
        ),
        "no_odds": (
            "Close, but you took the logarithm of p. What is the inverse of the sigmoid?",
            "sigmoid(u) = p at u = log(p / (1 - p)): with p = 0.1 that is -log(9).",
        ),
        "log10": (
            "That is a logarithm to base 10. Which one belongs to the sigmoid?",
            "The natural one, math.log with one argument.",
        ),
        "odds_not_log": (
            "You have the odds, 9 to 1. The sigmoid's argument is something of the odds.",
            "Take the logarithm of 9 before you divide by 0.1.",
        ),
    },
)
def trust_tenth(answer):
    right = math.log(9) / 0.1

    def where(target):  # sigmoid(u) * (1 - sigmoid(u)) = target, on the wrong side, in nats
        p = (1 - math.sqrt(1 - 4 * target)) / 2
        return math.log((1 - p) / p) / 0.1

    number(
        answer,
        right,
        0.5,
        {
            "negative": -right,
            "dpo_full": where(0.1),
            "no_odds": math.log(10) / 0.1,
            "own_peak": where(0.025),
            "beta_twice": right / 0.1,
            "odds_not_log": 9 / 0.1,
            "log10": math.log10(9) / 0.1,
            "beta_missing": math.log(9),
            "beta_multiplied": 0.1 * math.log(9),
        },
        tried="the distance at which KTO gives a tenth of DPO's push",
    )
    return "the distance, to half a nat"


@exercise(
    "rising_share",
    "How many must like it?",
    minutes=3,
    difficulty=2,
    kind="predict a number",
    points=1,
    hints={
        "turned_round": (
            "That is the share that must dislike it. How many must like it?",
            "Subtract your number from 1.",
        ),
        "equal_weights": (
            "That holds when both thumbs count the same. Which of the two counts double?",
            "Solve p * 1 = (1 - p) * 2 for p.",
        ),
        "odds": (
            "That is how many likes there must be for each dislike. What share of all raters is that?",
            "Two of three: divide by your number plus 1.",
        ),
        "percent": (
            "Right, in percent. Asked for is a share, from 0 to 1.",
            "Divide by 100.",
        ),
        "seen": (
            "That share was tried above: there the net vote was 0.6 - 0.8. Is that 0?",
            "Solve p * 1 = (1 - p) * 2 for p.",
        ),
        "up_doubled": (
            "You have doubled the wrong thumb, then squared or added. Which one has weight 2?",
            "Net vote: p * 1 - (1 - p) * 2.",
        ),
    },
)
def rising_share(answer):
    faults = {"turned_round": 1 / 3, "equal_weights": 0.5, "odds": 2.0, "percent": 200 / 3, "seen": 0.6,
              "up_doubled": 0.75}  # fmt: skip
    number(answer, 2 / 3, 0.01, faults, tried="weight 1 on thumbs up, 2 on thumbs down")
    return "the share, to two decimals"


def halo_points_right(x, v):
    slope = v.diff() / x.diff()
    in_gains = slope[x[:-1] >= 0]
    return bool((slope >= -TINY).all()), bool((in_gains.diff() <= TINY).all())


def halo_points_faults(x, v):
    """What the known faults of `halo_points` give on these points."""

    def never_rises(slopes):
        return bool((slopes.diff() <= TINY).all())

    rise, slope, gains = v.diff(), v.diff() / x.diff(), x[:-1] >= 0
    never_falls, concave = halo_points_right(x, v)
    return [
        ("uneven", (never_falls, never_rises(rise[gains]))),
        ("flat_refused", (bool((slope > TINY).all()), concave)),
        ("rounding", (never_falls, bool((slope[gains].diff() <= 0).all()))),
        ("line_refused", (never_falls, bool((slope[gains].diff() < -TINY).all()))),
        ("across_zero", (never_falls, bool((slope.diff()[x[1:-1] >= 0] <= TINY).all()))),
        ("zero_left_out", (never_falls, never_rises(slope[x[:-1] > 0]))),
        ("losses_counted", (never_falls, never_rises(slope))),
        ("losses_counted", (never_falls, never_rises(slope[x[1:] <= 0]))),
        ("losses_may_fall", (bool((slope[gains] >= -TINY).all()), concave)),
        ("turned_round", (never_falls, bool((slope[gains].diff() >= -TINY).all()))),
        ("turned_round", (bool((slope <= TINY).all()), concave)),
        ("swapped", (concave, never_falls)),
    ]


# Each case isolates a fault that those before it leave open; the whole-numbered ones come first.
EVEN = [-2, -1, 0, 1, 2]
HALO_POINTS = (
    points(EVEN, [-5, -2, 0, 1, 1.5]),  # concave everywhere
    points([*EVEN, 3], [-4, -1, 0, 1, 4, 8]),  # bends upwards in gains, downwards in losses
    points(EVEN, [-2, -1.5, 0, 1.5, 2]),  # an S
    points(EVEN, [-2, -1, 0, 2, 3.5]),  # steeper in gains, with a kink at the reference point
    points([-1, 1, 2, 3], [0, 0.5, 1.5, 2.4]),  # likewise, and the reference point lies between two points
    points([-1, 0, 1, 2, 3], [-1, 0, 1, 3, 3]),  # bends upwards at 1, where the first gain ends
    points(EVEN, [-3, -2, 0, 1, 1]),  # a lid
    points(EVEN, EVEN),  # a straight line
    points([0, 1, 3, 9], [0, 1, 2, 4]),  # concave, though the rises grow
    points([0, 4, 5], [0, 2, 3]),  # not concave, though the rises shrink
    points(EVEN, [2, 1, 0, 1, 2]),  # falls in losses
    points(EVEN, [-2, -1, 0, 1, 0.9]),  # falls a little in gains
    points(EVEN, [-2, -1, 0, 1, 2.1]),  # bends upwards a little
    (torch.arange(11, dtype=torch.float64) / 10, 0.3 * (torch.arange(11, dtype=torch.float64) / 10)),  # rounding
)


@exercise(
    "halo_points",
    "A value function in points",
    minutes=7,
    difficulty=2,
    kind="repair a function",
    points=2,
    hints={
        "uneven": (
            "You compare rises. But the points are not evenly spaced: what is a slope?",
            "A slope is the rise per nat: v.diff() / x.diff().",
        ),
        "flat_refused": (
            "This value function has a flat piece. Does it fall there?",
            "Never falling means a slope of 0 or more, not above 0.",
        ),
        "line_refused": (
            "This is a straight piece. Does its slope rise?",
            "Concave here means that the slope never rises: the change of the slope is 0 or less, not below 0.",
        ),
        "losses_counted": (
            "You say something about the curve in losses. On which side does the definition ask for concave?",
            "Compare only the slopes of pieces that lie in gains, those with x[:-1] >= 0.",
        ),
        "across_zero": (
            "The curve has a kink at the reference point, or across it. Are both of those pieces in gains?",
            "A piece lies in gains if it *starts* at x >= 0: pick slopes with x[:-1] >= 0 before you compare them.",
        ),
        "zero_left_out": (
            "The first gain bends upwards, and you say concave. Where does the first gain start?",
            "The piece that starts at the reference point belongs to the gains: x[:-1] >= 0, with the equals sign.",
        ),
        "losses_may_fall": (
            "This curve falls in losses. Does the first question stop at the reference point?",
            "Never falling is asked of all pieces; only concave is asked of gains alone.",
        ),
        "turned_round": (
            "One of your comparisons looks the wrong way. Which way does a concave curve's slope go?",
            "Never falls: slope >= 0. Concave: the change of the slope <= 0.",
        ),
        "rounding": (
            "This is a straight line, computed in binary fractions. How straight is it in the last digit?",
            "Allow for rounding: <= 1e-9 in the place of <= 0, and >= -1e-9 in the place of >= 0.",
        ),
        "swapped": (
            "Both answers are there. In which order are they asked for?",
            "First never falls, then concave in gains.",
        ),
    },
)
def halo_points(answer):
    for x, v in HALO_POINTS:
        compare(call(answer, x, v, tried=_shown(x, v)), halo_points_right(x, v), halo_points_faults(x, v))
    generator = torch.Generator().manual_seed(0)
    x = (16 * torch.rand(60, generator=generator, dtype=torch.float64) - 8).sort().values
    for name, v in (("KTO's value", x.sigmoid()), ("x cubed", x**3), ("minus x squared", -(x**2))):
        got = call(answer, x, v, tried=f"{name} at 60 uneven distances from -8 to 8")
        compare(got, halo_points_right(x, v), halo_points_faults(x, v))
    return "14 sets of points and three curves at uneven distances"


def _shown(x, v):
    return f"x = {[round(a, 1) for a in x.tolist()]}, v = {[round(a, 2) for a in v.tolist()]}"


@exercise(
    "ipo_odds",
    "The ten people again",
    minutes=5,
    difficulty=2,
    kind="predict a number",
    points=1,
    hints={
        "dpo": (
            "Those are the odds that DPO ends at. Where is IPO's mean loss smallest?",
            "IPO's best margin is m = (2p - 1) / (2 * beta), with p = 0.6.",
        ),
        "all_agree": (
            "That is the end if all ten preferred a. How many do?",
            "1 / (2 * beta) is the target of one choice; with a share p the best margin is (2p - 1) / (2 * beta).",
        ),
        "margin_only": (
            "That is the margin m, in nats. How does a margin become odds?",
            "m = log(pi_a / pi_b) - log(ref_a / ref_b). Solve for pi_a / pi_b.",
        ),
        "reference_ignored": (
            "Those would be the odds if the reference liked both replies the same. Does it?",
            "Multiply by the reference's odds, 0.3 / 0.7.",
        ),
        "reference_only": (
            "Those are the reference's odds, before training. Six against four did move something.",
            "Multiply by exp(m), with m = (2p - 1) / (2 * beta).",
        ),
        "added": (
            "You add the margin to the odds. The margin is a difference of logarithms.",
            "Multiply the reference's odds by exp(m).",
        ),
        "probability": (
            "That is the probability of a among a and b. Asked for are the odds.",
            "Divide the probability of a by that of b.",
        ),
        "turned_round": (
            "Those are the odds of b against a.",
            "Divide a by b: turn your number over.",
        ),
        "wrong_sign": (
            "You have moved the odds away from what the majority prefers.",
            "m is positive for p = 0.6: multiply by exp(+m).",
        ),
        "beta_multiplied": (
            "Your margin is too small: beta multiplies where it should divide.",
            "m = (2p - 1) / (2 * beta) = 0.2 / 1.",
        ),
        "two_missing": (
            "Your margin is twice too large. What stands beside beta?",
            "m = (2p - 1) / (2 * beta): mind the 2 in the denominator.",
        ),
        "beta_twice": (
            "You have put beta into the margin once more. Is m measured in nats, or in beta * nats?",
            "m is the difference of two log-ratios, in nats, without beta: pi_a / pi_b = 0.3 / 0.7 * exp(m).",
        ),
        "no_exp": (
            "That is the logarithm of the odds.",
            "Take math.exp of your number.",
        ),
    },
)
def ipo_odds(answer):
    p, beta, reference = 0.6, 0.5, 0.3 / 0.7
    m = (2 * p - 1) / (2 * beta)
    right = reference * math.exp(m)
    number(
        answer,
        right,
        0.006,
        {
            "dpo": reference * (p / (1 - p)) ** (1 / beta),
            "all_agree": reference * math.exp(1 / (2 * beta)),
            "margin_only": m,
            "reference_ignored": math.exp(m),
            "reference_only": reference,
            "added": reference + m,
            "probability": right / (1 + right),
            "turned_round": 1 / right,
            "wrong_sign": reference * math.exp(-m),
            "beta_multiplied": reference * math.exp((2 * p - 1) * beta / 2),
            "two_missing": reference * math.exp(2 * m),
            "beta_twice": reference * math.exp(beta * m),
            "no_exp": math.log(right),
        },
        tried="six of ten for a, reference 0.3 : 0.7, beta 0.5",
    )
    return "the odds, to two decimals"
