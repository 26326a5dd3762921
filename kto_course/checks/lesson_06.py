"""The exercises of lesson 06: the KTO loss, in the lesson and in its deeper notebook."""

import torch
import torch.nn.functional as F

from kto_course.checks.engine import Fault, call, choice, close, compare, exercise, flows, gradient
from kto_utils import losses

# The first batch for loss and gradient: log-ratios, and label, z0, beta and both weights.
THREE_RATIOS = torch.tensor([10.0, 5.0, -7.0], dtype=torch.float64)
THREE_ROWS = torch.tensor([True, False, False]), torch.tensor(2.0, dtype=torch.float64), 0.1, 2.0, 1.5
IN_WORDS = "log-ratios 10, 5 and -7, one thumbs up and two down, z0 2, beta 0.1, weights 2 (up) and 1.5 (down)"


def reference_point_faults(policy, reference):
    """What the known faults of `reference_point` give on this input."""
    k = policy - reference
    zero = torch.zeros_like(k[0])
    return [
        ("policy_only", policy.mean().clamp(min=0)),
        ("clamp_before_mean", k.clamp(min=0).mean()),
        ("no_clamp", k.mean()),
        ("turned_round", (-k).mean().clamp(min=0)),
        ("no_mean", k.clamp(min=0)),
        ("no_mean", k),
        ("summed", k.sum().clamp(min=0)),
        ("clamp_wrong_side", k.mean().clamp(max=0)),
        ("absolute", k.mean().abs()),
        ("absolute", k.abs().mean()),
        ("beta_inside", 0.1 * k.mean().clamp(min=0)),
        ("one_row_left_out", (k[:-1].sum() / len(k)).clamp(min=0)),
        ("one_row_left_out", (k[1:].sum() / len(k)).clamp(min=0)),
        ("ratio", k.exp().mean()),
        ("always_0", zero),
    ]


@exercise(
    "reference_point",
    "Mean, clamp, stop",
    minutes=4,
    difficulty=2,
    kind="fill in a function",
    points=2,
    ours="kto_utils.losses.reference_point",
    hints={
        "clamp_before_mean": (
            "In which order do mean and clamp come? With -3 and 5 it makes a difference.",
            "First one mean over the batch, then one clamp of that number: the rows keep their negative values.",
            "k.mean().clamp(min=0), not k.clamp(min=0).mean().",
        ),
        "no_clamp": (
            "Your number is negative. Can a KL be?",
            "Cut the mean off at 0: .clamp(min=0).",
        ),
        "turned_round": (
            "The sign is turned. Is the log-ratio above or below 0 where the policy likes the reply better?",
            "Policy minus reference.",
        ),
        "no_mean": (
            "There is one number per row. How many reference points does a batch have?",
            "Take the mean over the rows before you clamp.",
        ),
        "summed": (
            "Your number grows with the batch. Should it?",
            "The formula divides by B: .mean() in the place of .sum().",
        ),
        "clamp_wrong_side": (
            "You cut off what should stay. Which side of 0 does the clamp remove?",
            "max(0, ...) keeps the positive numbers: .clamp(min=0).",
        ),
        "absolute": (
            "You made a negative number positive. The clamp makes it something else.",
            "max(0, -1.5) is 0, not 1.5. Use .clamp(min=0) in the place of .abs().",
        ),
        "policy_only": (
            "Where is the reference?",
            "Average the log-ratios: policy_kl_logps - reference_kl_logps.",
        ),
        "beta_inside": (
            "z0 is asked for in nats. Where does beta come in?",
            "Not here: the loss multiplies r - z0 by beta, once. Return the bare mean.",
        ),
        "one_row_left_out": (
            "One of the borrowed replies is missing from your sum.",
            "Add up all B rows, and divide by B.",
        ),
        "ratio": (
            "That is a mean of ratios. Asked for is the mean of log-ratios.",
            "Leave out exp: the difference of log-probabilities is the log-ratio.",
        ),
        "always_0": (
            "Your number is 0 although the borrowed replies rose on average.",
            "Only a negative mean becomes 0; a positive one stays as it is.",
        ),
        "gradient_through_z0": (
            "The values are right. But a gradient flows through z0: the third of the three steps is missing.",
            "z0 is a constant in the loss: put .detach() behind it, or work under torch.no_grad().",
        ),
    },
)
def reference_point(answer):
    right = losses.reference_point
    small, fallen = (torch.tensor([5.0, -4.0, 5.0]), torch.zeros(3)), (torch.tensor([-4.0, 1.0]), torch.zeros(2))
    below = call(answer, *fallen)
    got = call(answer, *small)
    # Several faults give 0 on the first batch; those that explain the second one too are named before the others.
    faults = list(zip(reference_point_faults(*small), reference_point_faults(*fallen), strict=True))
    both = [first for first, (_, second) in faults if close(below, second)]
    compare(got, right(*small), both + [first for first, _ in faults])
    not_turned = [(fault, value) for fault, value in reference_point_faults(*fallen) if fault != "turned_round"]
    compare(call(answer, *fallen), right(*fallen), not_turned)
    for seed, dtype, size in ((0, torch.float64, 3), (1, torch.float64, 8), (2, torch.float32, 5)):
        generator = torch.Generator().manual_seed(seed)
        reference = -20 - 10 * torch.rand(size, generator=generator, dtype=torch.float64).to(dtype)
        policy = reference + 1.0 + 2 * torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)
        compare(call(answer, policy, reference), right(policy, reference), reference_point_faults(policy, reference))
    for wrt in (0, 1):
        if flows(answer, *small, wrt=wrt, tried="the gradient of z0 in the log-probabilities"):
            raise Fault("gradient_through_z0", got="a gradient", expected="none")
    return "values on five batches, a falling one among them, and that no gradient flows"


def kto_loss_faults(policy, reference, label, z0, beta, desirable, undesirable):
    """What the known faults of `kto_loss` give on this input."""
    r, s = policy - reference, torch.where(label, 1.0, -1.0).to(policy)
    w, other = (torch.where(label, a, b).to(policy) for a, b in ((desirable, undesirable), (undesirable, desirable)))
    d = r - z0
    u = s * beta * d
    by_sign = torch.where(d > 0, 1.0, -1.0).to(policy)
    right = w * torch.sigmoid(-u)
    return [
        ("value_returned", w * torch.sigmoid(u)),
        ("log_sigmoid", -w * F.logsigmoid(u)),
        ("beta_twice", w * torch.sigmoid(-beta * u)),
        ("beta_beside_z0", w * torch.sigmoid(-s * (beta * r - z0))),
        ("no_beta", w * torch.sigmoid(-s * d)),
        ("no_z0", w * torch.sigmoid(-s * beta * r)),
        ("z0_added", w * torch.sigmoid(-s * beta * (r + z0))),
        ("no_branches", w * torch.sigmoid(-beta * d)),
        ("sign_from_r", w * torch.sigmoid(-by_sign * beta * d)),
        ("weights_swapped", other * torch.sigmoid(-u)),
        ("both_weights_1", torch.sigmoid(-u)),
        ("weight_inside", torch.sigmoid(-w * u)),
        ("weight_outside", 1 - w * torch.sigmoid(u)),
        ("policy_only", w * torch.sigmoid(-s * beta * (policy - z0))),
        ("turned_round", w * torch.sigmoid(-s * beta * (-r - z0))),
        ("negative", -right),
        ("negative", -w * torch.sigmoid(u)),
        ("hinge", w * (1 - u).clamp(min=0)),
        ("hinge", w * (-u).clamp(min=0)),
        ("averaged", right.mean()),
        ("averaged", right.sum()),
        ("averaged", right / w),
    ]


def kto_case(seed, dtype=torch.float64):
    """Arguments of kto_loss: six random rows around z0 = 3.5, beta 0.2, weights 0.5 and 1.5."""
    generator = torch.Generator().manual_seed(seed)
    r = 4 + 12 * torch.randn(6, generator=generator, dtype=torch.float64)
    reference = -20 - 10 * torch.rand(6, generator=generator, dtype=torch.float64)
    label = torch.tensor([True, False, False, True, True, False])
    z0 = torch.tensor(3.5, dtype=dtype)
    return (reference + r).to(dtype), reference.to(dtype), label, z0, 0.2, 0.5, 1.5


@exercise(
    "kto_loss",
    "One line for both branches",
    minutes=8,
    difficulty=2,
    kind="fill in a function",
    points=3,
    ours="kto_utils.losses.kto_loss",
    hints={
        "value_returned": (
            "Your number grows where a reply does well. Should a loss?",
            "You have the value v. The loss is the weight minus v.",
            "weight * sigmoid(-u), not weight * sigmoid(u).",
        ),
        "log_sigmoid": (
            "Your loss has no upper limit. How much can a row of KTO cost at most?",
            "There is no logarithm in the formula: a row costs its weight at most.",
            "Use torch.sigmoid(-u) in the place of -logsigmoid(u).",
        ),
        "beta_twice": (
            "Your curve is too flat. How often does beta stand in the formula?",
            "beta is multiplied in twice. Once is enough, around r - z0.",
        ),
        "beta_beside_z0": (
            "With z0 = 0 you would be right. What does beta multiply in the formula?",
            "The whole difference: beta * (logratio - z0). z0 is in nats, like the log-ratio.",
        ),
        "no_beta": (
            "Your sigmoid reacts to single nats. What scales them down?",
            "Multiply r - z0 by beta.",
        ),
        "no_z0": (
            "You compare with 0. With what should a log-ratio be compared?",
            "Subtract z0 from the log-ratio.",
        ),
        "z0_added": (
            "The reference point is on the wrong side.",
            "Subtract it: r - z0.",
        ),
        "no_branches": (
            "The thumbs-down rows are treated like thumbs up.",
            "u needs the sign s: +1 where label is True, -1 where it is False.",
        ),
        "sign_from_r": (
            "You choose the branch by where r stands. What picks it?",
            "The label alone: s = +1 for a thumbs up, also when r lies below z0.",
        ),
        "weights_swapped": (
            "Each thumb has got the other one's weight.",
            "Desirable is thumbs up, label True. Undesirable is thumbs down.",
        ),
        "both_weights_1": (
            "Both kinds of rows count the same, whatever the two weights are.",
            "Multiply each row by desirable_weight or undesirable_weight, as its label says.",
        ),
        "weight_inside": (
            "The weight must scale the loss. Does your loss reach beyond 1 when the weight is 2?",
            "The weight stands before the sigmoid, not in its argument.",
        ),
        "weight_outside": (
            "From what is the value subtracted? Look at a row at the reference point: it costs half its weight.",
            "The loss is w - w * sigmoid(u), so w * sigmoid(-u), not 1 - w * sigmoid(u).",
        ),
        "policy_only": (
            "Where is the reference?",
            "The log-ratio is policy_logps - reference_logps.",
        ),
        "turned_round": (
            "The log-ratio is turned round.",
            "Policy minus reference.",
        ),
        "negative": (
            "Your loss is negative. Between which two numbers does a row's loss lie?",
            "Between 0 and the weight: take the minus away from the front and look at the sign inside the sigmoid.",
        ),
        "hinge": (
            "Your loss is a straight line with a corner. What shape has the formula?",
            "Use the sigmoid: weight * torch.sigmoid(-u).",
        ),
        "averaged": (
            "How many losses are asked for? One per row, with its weight, nothing divided.",
            "Leave out the mean, the sum or the division: the batch loss comes later.",
        ),
        "one_minus_sigmoid": (
            "In float32 your loss is exactly 0 for a row 500 nats on the good side, and so is its gradient.",
            "1 - sigmoid(50) rounds to 0. Write the same as sigmoid(-50).",
        ),
    },
)
def kto_loss(answer):
    right = losses.kto_loss
    reference = torch.tensor([-20.0, -25.0, -15.0], dtype=torch.float64)
    small = reference + THREE_RATIOS, reference, *THREE_ROWS
    compare(call(answer, *small, tried=IN_WORDS), right(*small), kto_loss_faults(*small))
    for seed, dtype in ((0, torch.float64), (1, torch.float32)):
        case = kto_case(seed, dtype)
        got = call(answer, *case, tried="six random rows, z0 3.5, beta 0.2, weights 0.5 and 1.5")
        compare(got, right(*case), kto_loss_faults(*case))
    defaults = case[:4]
    got = call(answer, *defaults, tried="the same rows, beta and weights left out")
    compare(got, right(*defaults), kto_loss_faults(*defaults, 0.1, 1.0, 1.0))
    case = kto_case(3)
    compare(gradient(answer, *case, tried="the gradient in policy_logps"), gradient(right, *case), default="gradient")
    far = torch.tensor([500.0]), torch.zeros(1), torch.tensor([True]), torch.tensor(0.0)
    got = call(answer, *far, tried="a thumbs up with log-ratio 500 in float32")
    if float(got) == 0.0:
        raise Fault("one_minus_sigmoid", got=0.0, expected=right(*far))
    return "values on four batches, the gradient, and a row far on the good side"


def gradient_by_autograd(logratio, label, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    """dL/dr of the mean loss, without a closed form: arguments and result as in the exercise."""
    free = logratio.detach().clone().requires_grad_()
    rows = losses.kto_loss(free, torch.zeros_like(free), label, z0, beta, desirable_weight, undesirable_weight)
    return torch.autograd.grad(rows.mean(), free)[0]


def kto_gradient_faults(r, label, z0, beta, desirable, undesirable):
    """What the known faults of `kto_gradient` give on this input."""
    s = torch.where(label, 1.0, -1.0).to(r)
    w, other = (torch.where(label, a, b).to(r) for a, b in ((desirable, undesirable), (undesirable, desirable)))
    d, n = r - z0, len(r)
    u = s * beta * d
    by_sign = torch.where(d > 0, 1.0, -1.0).to(r)

    def bell(v):
        return torch.sigmoid(v) * torch.sigmoid(-v)

    right = -s * w * beta * bell(u) / n
    return [
        ("turned_round", -right),
        ("no_sign", -w * beta * bell(u) / n),
        ("no_sign", w * beta * bell(u) / n),
        ("sign_from_r", -by_sign * w * beta * bell(u) / n),
        ("no_batch", right * n),
        ("no_batch", -right * n),
        ("no_chain_rule", right / beta),
        ("no_chain_rule", right / (s * beta)),
        ("beta_twice", right * beta),
        ("beta_twice", -s * w * beta * bell(beta * u) / n),
        ("beta_twice", -s * w * beta**2 * bell(beta * u) / n),
        ("beta_beside_z0", -s * w * beta * bell(s * (beta * r - z0)) / n),
        ("no_z0", -s * w * beta * bell(beta * r) / n),
        ("log_sigmoid", -s * w * beta * torch.sigmoid(-u) / n),
        ("one_sigmoid", -s * w * beta * torch.sigmoid(u) / n),
        ("squared", -s * w * beta * torch.sigmoid(u) ** 2 / n),
        ("squared", -s * w * beta * torch.sigmoid(-u) ** 2 / n),
        ("weights_swapped", -s * other * beta * bell(u) / n),
        ("both_weights_1", -s * beta * bell(u) / n),
        ("loss_returned", w * torch.sigmoid(-u) / n),
        ("loss_returned", w * torch.sigmoid(-u)),
        ("summed", right.sum()),
        ("divided_by_weights", -s * w * beta * bell(u) / w.sum()),
    ]


@exercise(
    "kto_gradient",
    "The gradient by hand",
    minutes=10,
    difficulty=3,
    kind="a derivation step checked numerically",
    points=3,
    ours="kto_course.checks.lesson_06.gradient_by_autograd",
    hints={
        "turned_round": (
            "All signs are turned. Does the loss of a thumbs up rise or fall when its r rises?",
            "It falls, so its gradient is negative: minus in front.",
        ),
        "no_sign": (
            "Up and down pull in the same direction. What is the derivative of u by r for a thumbs down?",
            "du/dr = s * beta. The bell is even and hides the s inside it; the s of the chain rule must stay in front.",
        ),
        "sign_from_r": (
            "Your direction depends on where r stands. On what may it depend?",
            "On the label alone: s is +1 for True and -1 for False, on both sides of z0.",
        ),
        "no_batch": (
            "Too large by the same factor in every row. What is L, a sum or a mean?",
            "The mean over B rows: divide by len(logratio) (and look at the sign in front).",
        ),
        "no_chain_rule": (
            "The shape is right, the size is not. What is the derivative of u by r?",
            "du/dr = s * beta: both factors belong in front.",
        ),
        "beta_twice": (
            "There is one beta too many, inside the sigmoids or in front of them.",
            "beta stands once in u and, by the chain rule, once in front.",
        ),
        "beta_beside_z0": (
            "With z0 = 0 you would be right. What does beta multiply in u?",
            "u = s * beta * (logratio - z0).",
        ),
        "no_z0": (
            "Where is your bell's top? It should stand at the reference point.",
            "u = s * beta * (logratio - z0).",
        ),
        "log_sigmoid": (
            "Your pull does not fade on the wrong side. Is there a logarithm in the KTO loss?",
            "The derivative of sigmoid(-u) has two factors: sigmoid(u) * sigmoid(-u).",
        ),
        "one_sigmoid": (
            "Your pull grows with what is already learned. What is the derivative of a sigmoid?",
            "It has two factors: sigmoid(u) * sigmoid(-u).",
        ),
        "squared": (
            "Twice the same sigmoid. The slope of sigma is sigma(u) sigma(-u): the factors differ.",
            "sigmoid(u) * sigmoid(-u).",
        ),
        "weights_swapped": (
            "Each thumb has got the other one's weight.",
            "Desirable is thumbs up, label True.",
        ),
        "both_weights_1": (
            "The two weights make no difference in your result.",
            "w is a constant factor of the row's loss, and so of its gradient.",
        ),
        "loss_returned": (
            "That is the loss. Asked for is its slope.",
            "Differentiate w * sigmoid(-u): outer derivative times du/dr.",
        ),
        "summed": (
            "All rows have gone into one number. How many slopes are asked for?",
            "One per row, (B,): leave out the sum.",
        ),
        "divided_by_weights": (
            "You divide by the sum of the weights. By what does the mean divide?",
            "By the number of rows, len(logratio).",
        ),
    },
)
def kto_gradient(answer):
    right = gradient_by_autograd
    small = THREE_RATIOS, *THREE_ROWS
    compare(call(answer, *small, tried=IN_WORDS), right(*small), kto_gradient_faults(*small))
    for seed, dtype in ((0, torch.float64), (1, torch.float32)):
        policy, reference, *rest = kto_case(seed, dtype)
        case = policy - reference, *rest
        got = call(answer, *case, tried="six random rows, z0 3.5, beta 0.2, weights 0.5 and 1.5")
        compare(got, right(*case), kto_gradient_faults(*case))
    got = call(answer, *case[:3], tried="the same rows, beta and weights left out")
    compare(got, right(*case[:3]), kto_gradient_faults(*case[:3], 0.1, 1.0, 1.0))
    return "agreement with autograd on four batches"


def mystery_pull(logratio):
    """The pull of a lone thumbs-down row with one setting changed; which one is the question of exercise 6.4."""
    down = torch.zeros(len(logratio), dtype=torch.bool)
    return len(logratio) * gradient_by_autograd(logratio, down, z0=0.0, beta=0.2).abs()  # alone, not one of many


@exercise(
    "mystery_pull_curve",
    "Who pulls like this?",
    minutes=4,
    difficulty=2,
    kind="read a curve",
    points=1,
    hints={
        "z0_moved": (
            "Where is a row's pull largest? Look at where the top of the solid curve stands.",
            "Another z0 moves the top sideways and leaves height and width alone. Here the top stays at 0.",
        ),
        "weight_doubled": (
            "The weight doubles the height. What does it do to the width?",
            "Nothing: it is a factor in front. What stands in front *and* inside the sigmoids?",
        ),
        "label_flipped": (
            "A thumbs up pulls the other way. Does the curve show a direction?",
            "It shows the size only, and that is the same for both thumbs. Height and width have changed here.",
        ),
        "beta_twice": (
            "Then 0.01 would stand where 0.1 stood. Does a smaller beta make the bell narrower?",
            "It would be lower and wider. Here the bell is higher and narrower.",
        ),
    },
)
def mystery_pull_curve(answer):
    choice(answer, "b", {"a": "z0_moved", "c": "weight_doubled", "d": "label_flipped", "e": "beta_twice"})
    return "your reading of the curve"


def weight_band_faults(n_up, n_down, undesirable, largest):
    """What the known faults of `weight_band` give on this input."""
    low = n_down / n_up * undesirable
    turned = n_up / n_down * undesirable
    return [
        ("turned_round", (turned, largest)),
        ("turned_round", (turned, turned * largest)),
        ("upper_end_forgotten", (low, largest)),
        ("upper_end_forgotten", (low, largest * undesirable)),
        ("counts_forgotten", (undesirable, largest * undesirable)),
        ("counts_forgotten", (1.0, largest)),
        ("weight_forgotten", (n_down / n_up, n_down / n_up * largest)),
        ("weight_divided", (n_down / n_up / undesirable, n_down / n_up / undesirable * largest)),
        ("ends_swapped", (low * largest, low)),
        ("ends_swapped", (low / largest, low)),
        ("added", (low, low + largest)),
        ("added", (low, low + largest - 1)),
        ("share_of_all", tuple(n_down / (n_up + n_down) * undesirable * x for x in (1, largest))),
    ]


@exercise(
    "weight_band",
    "A band that forgot the counts",
    minutes=4,
    difficulty=1,
    kind="repair a function",
    points=1,
    hints={
        "turned_round": (
            "The rarer a thumbs up, the more it must weigh. Does your lowest weight do that?",
            "Solve desirable * n_up = undesirable * n_down for the desirable weight.",
            "lowest = n_down / n_up * undesirable_weight",
        ),
        "upper_end_forgotten": (
            "The lower end is right. The upper end must know the counts too.",
            "The ratio of the totals may reach largest_ratio, so the weight may reach largest_ratio times the lowest.",
        ),
        "counts_forgotten": (
            "Your band is the same for any number of thumbs. What does the rule compare?",
            "The *total* weights: desirable * n_up and undesirable * n_down. Solve for the desirable weight.",
        ),
        "weight_forgotten": (
            "What if a thumbs down weighs 2? Your band does not move.",
            "Multiply both ends by undesirable_weight.",
        ),
        "weight_divided": (
            "If the downs weigh more, must the ups weigh more or less?",
            "More: multiply by undesirable_weight instead of dividing.",
        ),
        "ends_swapped": (
            "The order of the two ends, or their place: the lowest has equal totals, the highest is larger.",
            "lowest is where the ratio is 1, highest is lowest * largest_ratio.",
        ),
        "added": (
            "You add at the upper end. What does the rule bound, a difference or a quotient?",
            "A quotient, so the upper end is lowest * largest_ratio.",
        ),
        "share_of_all": (
            "You divide by all rows. Which two numbers does the rule compare?",
            "The downs with the ups: n_down / n_up.",
        ),
    },
)
def weight_band(answer):
    def right(n_up, n_down, undesirable_weight=1.0, largest_ratio=4 / 3):
        lowest = losses.balanced_weights(n_up, n_down)
        return tuple(lowest[0] / lowest[1] * undesirable_weight * x for x in (1, largest_ratio))

    compare(call(answer, 3, 5), right(3, 5), weight_band_faults(3, 5, 1.0, 4 / 3))
    for case in ((2, 20, 0.5, 1.5), (10, 4, 3.0, 1.25)):
        compare(call(answer, *case), right(*case), weight_band_faults(*case))
    return "three pairs of counts, other weights of a thumbs down, another largest ratio"
