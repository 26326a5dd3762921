"""The exercises of lesson 10: the bug museum."""

import itertools
import math

import torch
import torch.nn.functional as F

from kto_course.checks.engine import Fault, call, choice, compare, exercise, flows, gradient, number
from kto_lab import museum


@exercise(
    "reward_ceiling",
    "How high can a reward climb?",
    minutes=3,
    difficulty=1,
    kind="predict a number",
    points=1,
    hints={
        "beta_missing": (
            "That is a log-ratio in nats. What does a log print as a reward?",
            "A reward is beta times the log-ratio: multiply by 0.1.",
        ),
        "beta_twice": (
            "Beta is in your number twice.",
            "Multiply -log(0.02) by 0.1 once.",
        ),
        "negative": (
            "The sign. Can a liked reply that became certain have a reward below 0?",
            "log(1 / 0.02) is positive: -log(0.02).",
        ),
        "no_log": (
            "The reply can become fifty times likelier. What does the reward take of a ratio?",
            "beta * log(1 / 0.02), not beta * 1 / 0.02.",
        ),
        "log10": (
            "That is a logarithm to base ten. Rewards count in nats.",
            "Use math.log, the natural logarithm.",
        ),
        "difference": (
            "You subtract probabilities. A log-ratio subtracts their logarithms.",
            "beta * (log 1 - log 0.02).",
        ),
        "no_ceiling": (
            "The floor is missing, not the ceiling. How likely can a reply become at most?",
            "At most 1: the log-ratio is at most log 1 - log 0.02.",
        ),
    },
)
def reward_ceiling(answer):
    right = -0.1 * math.log(0.02)
    if isinstance(answer, float) and math.isinf(answer):
        raise Fault("no_ceiling", tried="the highest reward, at beta 0.1", got=answer)
    number(
        answer,
        right,
        0.01,
        {
            "beta_missing": 10 * right,
            "beta_twice": 0.1 * right,
            "negative": -right,
            "no_log": 0.1 / 0.02,
            "log10": -0.1 * math.log10(0.02),
            "difference": 0.1 * (1 - 0.02),
        },
        tried="a reply with pi_ref = 0.02, at beta 0.1",
    )
    return "beta times minus the logarithm of the reference's probability"


def unlabelled_run():
    """A stored run of the museum without its name; which fault it has is the question of exercise 10.2."""
    kept = {k: v for k, v in museum.of_number(18, seed=2).items() if k not in ("replies", "thumbs_up", "listed")}
    return kept | {"name": "A run without a label"}


@exercise(
    "unlabelled",
    "The frame without a label",
    minutes=5,
    difficulty=2,
    kind="read a curve",
    points=1,
    hints={
        "mean_of_tokens": (
            "It fits the first gradient. But what would a mean over tokens do to the rewards at step 2?",
            "A mean makes the logged rewards smaller too. Hold the rewards at step 2 against those of the healthy run.",
        ),
        "batch_mask_sum": (
            "Divided by more than a hundred, how small would the first gradient be? And the rewards?",
            "The first gradient is a tenth of the healthy one, and the rewards at step 2 are not smaller at all.",
        ),
        "learning_rate": (
            "A smaller learning rate makes smaller steps. Does it change the gradient of the very first step?",
            "At step 1 no step has been taken, and the gradient is already a tenth. The loss itself must differ.",
        ),
    },
)
def unlabelled(answer):
    choice(answer, "b", {"a": "mean_of_tokens", "c": "batch_mask_sum", "d": "learning_rate"})
    return "your reading of the log"


def _as_tensor(r):
    return torch.as_tensor(r, dtype=torch.float64)


# Losses that obey the scaling. The last adds what another order of operations would: noise in the last digits.
SOUND = {
    "the loss of a thumb up": lambda r, z0, beta: torch.sigmoid(-beta * (_as_tensor(r) - z0)),
    "the loss of a thumb down with weight 3": lambda r, z0, beta: 3 * torch.sigmoid(beta * (_as_tensor(r) - z0)),
    "a sound loss with a logarithm": lambda r, z0, beta: F.softplus(-beta * (_as_tensor(r) - z0)),
    "a sound loss, rounded in the last digits": lambda r, z0, beta: (
        torch.sigmoid(-beta * (_as_tensor(r) - z0)) * (1 + 1e-13 * beta)
    ),
}
BROKEN = {
    "beta_beside_z0": lambda r, z0, beta: torch.sigmoid(-(beta * _as_tensor(r) - z0)),
    "beta_twice": lambda r, z0, beta: torch.sigmoid(-beta * beta * (_as_tensor(r) - z0)),
    "beta_missing": lambda r, z0, beta: torch.sigmoid(-(_as_tensor(r) - z0)),
}
DESCRIBED = {
    "beta_beside_z0": "exhibit 19, beta * r - z0",
    "beta_twice": "exhibit 18, beta * beta * (r - z0)",
    "beta_missing": "a loss that forgets beta, r - z0",
}


def _verdict(answer, loss, tried):
    found = call(answer, loss, tried=f"your test on {tried}")
    if isinstance(found, torch.Tensor) and found.numel() == 1:
        found = found.item()
    if type(found).__name__ not in ("bool", "bool_"):  # NumPy's bool too
        got = repr(found) if isinstance(found, str) else f"a {type(found).__name__}"
        raise Fault("type", got=got, expected="True or False")
    return bool(found)


@exercise(
    "scaling_test",
    "A test that goes red",
    minutes=8,
    difficulty=3,
    kind="write a test",
    points=3,
    hints={
        "always_green": (
            "Your test is green for every loss, broken ones too. At which beta would the two sides differ?",
            "Take a beta other than 1, a z0 other than 0 and log-ratios other than z0; then compare both calls.",
            "Compare loss(r, z0, beta) with loss(beta * r, beta * z0, 1.0), say at z0 = 2 and beta = 0.3.",
        ),
        "always_red": (
            "Your test is red for sound losses too. Do both calls get the same argument of the sigmoid?",
            "beta * (r - z0) must be 1 * (beta * r - beta * z0): scale r and z0 and pass beta 1 in the second call.",
        ),
        "z0_not_scaled": (
            "Your test finds exhibit 19 sound and the true loss broken. Which input did you leave as it is?",
            "z0 is in nats like r: pass beta * z0 in the second call.",
        ),
        "too_strict": (
            "A sound loss fails by its last digits. Are two computed numbers ever exactly equal?",
            "Allow for rounding: torch.allclose(one, other) in the place of == or torch.equal.",
        ),
        "turned_round": (
            "Your test says False for sound losses and True for broken ones.",
            "Return True where both sides agree.",
        ),
        "own_formula": (
            "A sound loss of another form is refused. Do you hold it against a formula, or against itself?",
            "Call `loss` twice, with (r, z0, beta) and with (beta * r, beta * z0, 1.0).",
        ),
        "blind_to_z0": (
            "Exhibit 19 slips through. With which z0 does it not matter where beta stands?",
            "At z0 = 0 nothing differs. Test at a z0 such as 2, and scale it: beta * z0.",
        ),
        "only_at_z0": (
            "Your log-ratios are all equal to z0. What is beta * (r - z0) there?",
            "Take log-ratios on both sides of z0.",
        ),
        "one_slips_through": (
            "Your test catches some of the broken losses, not the one above. How much difference does it allow?",
            "Rounding is below 1e-6 here: compare all entries with the default of torch.allclose.",
        ),
    },
)
def scaling_test(answer):
    torch.set_default_dtype(torch.float64)  # as in the lesson; the engine puts it back
    sound = {name: _verdict(answer, loss, name) for name, loss in SOUND.items()}
    broken = {name: _verdict(answer, loss, DESCRIBED[name]) for name, loss in BROKEN.items()}
    refused = [name for name, green in sound.items() if not green]
    missed = [name for name, green in broken.items() if green]
    first = "the loss of a thumb up"
    if len(refused) == len(sound) and len(missed) == len(broken):
        raise Fault("turned_round", f"your test on {first}", "False", "True")
    if len(refused) == len(sound) and missed == ["beta_beside_z0"]:
        raise Fault("z0_not_scaled", f"your test on {first}", "False", "True")
    if refused:
        coarse = [
            _verdict(answer, lambda r, z0, beta, loss=SOUND[name]: loss(r, z0, beta).round(decimals=3), name)
            for name in refused
        ]
        fault = "too_strict" if all(coarse) else "always_red" if first in refused else "own_formula"
        raise Fault(fault, f"your test on {refused[0]}", "False", "True")
    if not missed:
        return "four losses that keep the rule, and three that break it"
    fault = {
        tuple(BROKEN): "always_green",
        ("beta_beside_z0",): "blind_to_z0",
        ("beta_twice", "beta_missing"): "only_at_z0",
    }.get(tuple(missed), "one_slips_through")
    raise Fault(fault, f"your test on {DESCRIBED[missed[0]]}", "True", "False")


def right_losses(r, r_mismatched, label, beta, weight_up, weight_down):
    """The loss of each row, from log-ratios; exercise 10.4 asks for it."""
    return _losses(r, label, beta, weight_up, weight_down, r_mismatched.mean().clamp(min=0).detach())


def _losses(r, label, beta, weight_up, weight_down, z0, argument="right", form="right"):
    sign = torch.where(label, 1.0, -1.0).to(r.dtype)
    inside = {
        "right": beta * (r - z0),
        "beta_beside_z0": beta * r - z0,
        "beta_twice": beta * beta * (r - z0),
        "beta_missing": r - z0,
    }[argument]
    loss = torch.sigmoid(-sign * inside) if form == "right" else -F.logsigmoid(sign * inside)
    return torch.where(label, weight_up * loss, weight_down * loss)


def four_faults_faults(r, r_mismatched, label, beta, weight_up, weight_down):
    """What the known faults of `four_faults` give on this input, alone and together."""
    points = {
        "right": r_mismatched.mean().clamp(min=0),
        "clamp_before_mean": r_mismatched.clamp(min=0).mean(),
        "no_clamp": r_mismatched.mean(),
        "matched_z0": r.mean().clamp(min=0),
        "no_z0": torch.zeros((), dtype=r.dtype),
    }
    known = []
    arguments, forms = ("right", "beta_beside_z0", "beta_twice", "beta_missing"), ("right", "log_sigmoid")
    for faults in itertools.product(points, arguments, forms):
        z0, argument, form = faults
        name = next((fault for fault in faults if fault != "right"), None)
        if name is not None:
            known.append((name, _losses(r, label, beta, weight_up, weight_down, points[z0], argument, form)))
    right = right_losses(r, r_mismatched, label, beta, weight_up, weight_down)
    return [
        *known,
        ("turned_round", right_losses(r, r_mismatched, ~label, beta, weight_down, weight_up)),
        ("both_weights_1", right_losses(r, r_mismatched, label, beta, 1.0, 1.0)),
        ("weights_exchanged", right_losses(r, r_mismatched, label, beta, weight_down, weight_up)),
        ("averaged", right.mean()),
        ("averaged", right.sum()),
    ]


@exercise(
    "four_faults",
    "Four exhibits in one function",
    minutes=10,
    difficulty=3,
    kind="repair a function",
    points=4,
    hints={
        "clamp_before_mean": (
            "Exhibit 13 still hangs here. Work out z0 for mismatched log-ratios of -3 and 5.",
            "First the mean, then the clamp: -3 and 5 give z0 = 1, not 2.5.",
            "r_mismatched.mean().clamp(min=0)",
        ),
        "no_clamp": (
            "That is exhibit 14: your z0 is negative here. Can a KL be?",
            "Put .clamp(min=0) behind the mean.",
        ),
        "matched_z0": (
            "That is exhibit 12. From which replies do you take the reference point?",
            "z0 comes from r_mismatched, not from r.",
        ),
        "no_z0": (
            "Your reference point is always 0. What is r_mismatched for?",
            "z0 is the mean of r_mismatched, clamped at 0; subtract it from r.",
        ),
        "beta_beside_z0": (
            "Exhibit 19 still hangs here. Which unit does z0 have, and which does beta * r?",
            "Beta stands outside the bracket: beta * (r - z0).",
        ),
        "beta_twice": (
            "That is exhibit 18: beta comes in twice.",
            "beta * (r - z0), once.",
        ),
        "beta_missing": (
            "Where is beta? Your sigmoid gets raw nats.",
            "Multiply r - z0 by beta.",
        ),
        "log_sigmoid": (
            "Exhibit 20 still hangs here. What does a row cost when r = z0 and its weight is 1?",
            "It costs 0.5, not 0.693: sigmoid(-u), without the logarithm.",
            "torch.sigmoid(-sign * beta * (r - z0))",
        ),
        "gradient_through_z0": (
            "The values are right. But exhibit 11 is still there: pushing the mismatched replies changes your loss.",
            "z0 is a constant for the gradient: put .detach() behind it.",
        ),
        "turned_round": (
            "Now thumbs up cost more the likelier the reply becomes.",
            "u = sign * beta * (r - z0), and the row costs sigmoid(-u).",
        ),
        "both_weights_1": (
            "That is exhibit 17: the weights have gone.",
            "Multiply thumbs up by weight_up and thumbs down by weight_down.",
        ),
        "weights_exchanged": (
            "The weights have changed places.",
            "torch.where(label, weight_up * losses, weight_down * losses)",
        ),
        "averaged": (
            "That is one number for the batch. How many rows are there?",
            "Return one loss for each row, without .mean() or .sum().",
        ),
    },
)
def four_faults(answer):
    def case(r, mismatched, label, beta):
        return torch.tensor(r).double(), torch.tensor(mismatched).double(), torch.tensor(label), beta, 3.5, 1.25

    small = case([2.0, -1.5], [-3.0, 5.0], [True, False], 0.5)
    tried = "r = (2, -1.5), r_mismatched = (-3, 5), thumbs up, down; beta 0.5, weights 3.5 and 1.25"
    compare(call(answer, *small, tried=tried), right_losses(*small), four_faults_faults(*small))
    low = case([2.0, -1.5, 0.5], [-3.0, 1.0, -2.5], [True, False, False], 0.5)
    tried = "r = (2, -1.5, 0.5), r_mismatched = (-3, 1, -2.5), thumbs up, down, down; beta 0.5, weights 3.5 and 1.25"
    compare(call(answer, *low, tried=tried), right_losses(*low), four_faults_faults(*low))
    for seed, dtype, beta in ((0, torch.float64, 0.1), (1, torch.float32, 2.0)):
        generator = torch.Generator().manual_seed(seed)
        r, mismatched = (4 * torch.randn(2, 7, generator=generator, dtype=torch.float64)).to(dtype)
        mixed = (r, mismatched, torch.arange(7) % 3 == 0, beta, 3.5, 1.25)
        got = call(answer, *mixed, tried=f"seven random rows, beta {beta}")
        compare(got, right_losses(*mixed), four_faults_faults(*mixed))
    compare(gradient(answer, *small, tried="the gradient in r"), gradient(right_losses, *small), default="gradient")
    if flows(answer, *small, wrt=1, tried="the gradient in r_mismatched, where z0 is 1"):
        raise Fault("gradient_through_z0", got="a gradient", expected="none")
    return "values on four batches, with z0 above 0 and clamped; the gradient of r, and none through z0"
