"""The pictures of lesson 06b."""

import math

import matplotlib.pyplot as plt
import torch

from kto_course.pictures import publish
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, label_line

CORNERS = (  # name, alignment, shift in points
    ("polite, right", "left", (12, -8)),
    ("rude, right", "right", (20, -16)),
    ("polite, wrong", "left", (-20, -16)),
)


def _to_xy(pi):
    """Places of policies (..., 3) in the triangle: the closer to a corner, the more of that reply."""
    return pi[..., 1] + pi[..., 0] / 2, pi[..., 0] * 3**0.5 / 2


def _draw_triangle(ax, grid, heights) -> None:
    ax.tricontourf(*_to_xy(grid), heights, levels=14, cmap="cividis")
    ax.set_axis_off()
    ax.set_aspect("equal")
    for pi, (name, side, shift) in zip(torch.eye(3), CORNERS, strict=True):
        xy = [float(c) for c in _to_xy(pi)]
        ax.annotate(name, xy, xytext=shift, textcoords="offset points", ha=side, fontsize=9)


def _mark(ax, pi, text: str, marker: str) -> None:
    x, y = (float(c) for c in _to_xy(pi))
    ax.plot(x, y, marker, color="white", markeredgecolor="black", markersize=9)
    ax.annotate(text, (x, y), xytext=(9, -4), textcoords="offset points", color="black", fontsize=10,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})  # fmt: skip


def borrowed(t, own, risen, old) -> None:
    """What the mean log-ratio reports while the policy moves, for three kinds of borrowed replies.

    Args:
        t: (N, 1), how far the policy has moved.
        own, risen, old: (N,), nats; replies of the policy (the true KL), the reply that rose, replies of the reference.
    """
    fig, ax = plt.subplots()
    curves = ((own, "q = policy: the true KL", NEUTRAL, "-"), (risen, "q = the reply that rose", UP, "--"),
              (old, "q = reference (old replies)", DOWN, "-."))  # fmt: skip
    for curve, name, colour, style in curves:
        ax.plot(t, curve, style, color=colour)
        label_line(ax, 3.0, float(curve[-1]), name, colour, fontsize=9)
    ax.axhspan(-2.2, 0, color=NEUTRAL, alpha=0.12)
    ax.text(0.08, -2.05, "the clamp turns all this into 0", fontsize=9)
    ax.set(xlabel="how far the policy has moved, t", ylabel="mean log-ratio (nats)", xlim=(0, 4.5), ylim=(-2.2, 1.9))
    ax.set_xticks([0, 1, 2, 3])
    ax.set_title("Same policy, three answers: it depends whose replies you borrow")
    publish(fig, "06b_what_a_batch_sees", "Mean log-ratio against how far the policy has moved. Replies of the policy "
            "itself give the true KL, which rises. The reply that rose gives more than the KL. Replies of the old "
            "reference give negative numbers, which the clamp turns into zero.")  # fmt: skip


def no_inner_minimum(u, kto_average, log_average) -> None:
    """Average loss of a reply that 70 % like: minus the log-likelihood has a best place, KTO a direction.

    Args:
        u: (N,), beta * (r - z0).
        kto_average, log_average: (N,), both averages.
    """
    place, lowest = math.log(0.7 / 0.3), float(log_average.min())
    fig, ax = plt.subplots(figsize=(7.2, 3.6))
    ax.plot(u, kto_average, "-", color=ACCENT)
    ax.plot(u, log_average, "--", color=NEUTRAL)
    ax.plot(place, lowest, "o", color="black")
    ax.annotate("log odds of 70 %", (place, lowest), xytext=(0.85, 1.1), ha="center", fontsize=9,
                arrowprops={"arrowstyle": "-", "color": "black"})  # fmt: skip
    ax.text(-5.8, 0.78, "KTO: further is always better", color=ACCENT, fontsize=10)
    ax.text(5.2, 1.9, "minus log-likelihood:\nhas a best place", color=NEUTRAL, fontsize=10, ha="right")
    ax.set(xlabel="$\\beta\\,(r - z_0)$", ylabel="average loss", ylim=(0, 2.2))
    ax.set_title("KTO has no best place for a 70 % reply, only a direction")
    publish(fig, "06b_no_inner_minimum", "Average loss of a reply that 70 percent like, against beta times (r - z0). "
            "Minus the log-likelihood has a minimum at the log odds 0.85. The KTO average falls all the way to the "
            "right and has no minimum.")  # fmt: skip


def past_the_optimum(grid, heights, run, heights_of_run, best, height_of_best) -> None:
    """KTO's path over the triangle, and the objective along it.

    Args:
        grid: (N, 3), policies all over the triangle; heights: (N,), their J; best: (3,), the best of all.
        run: (S, 3), the policy before each step; heights_of_run: (S,), its J.
        height_of_best: J of the best policy.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.4, 4.2), width_ratios=[1, 1.15])
    _draw_triangle(left, grid, heights)
    left.plot(*_to_xy(run), "-", color="black")
    _mark(left, run[0], "start", "o")
    _mark(left, best, "best policy", "*")
    left.set_title("KTO's path runs into the corner")
    right.plot(torch.arange(len(run)) + 1, heights_of_run, "-", color=ACCENT)
    top, start = float(height_of_best), float(heights_of_run[0])
    right.axhline(top, color="black", linestyle=":")
    right.axhline(start, color=NEUTRAL, linestyle="--")
    right.text(1.2, top + 0.012, "best possible: $\\beta$ log Z", fontsize=9)
    right.text(300, start + 0.012, "reference", color=NEUTRAL, fontsize=9)
    right.set(xscale="log", xlabel="steps of gradient descent", ylabel="objective J", ylim=(-0.35, 0.26))
    right.set_title("At $\\beta$ = 0.8, J ends below its start")
    publish(fig, "06b_past_the_optimum", "Left: KTO's path over the triangle of policies runs from the reference, past "
            "the best policy, into the corner of the thumbs-up reply. Right: the objective J rises in the first "
            "steps, then falls below its value at the reference.")  # fmt: skip


def mystery_pull(x, known, mystery) -> None:
    """Two pull curves, for the exercise: what was changed?

    Args:
        x: (N,), log-ratio in nats.
        known, mystery: (N,), size of the gradient; before and after the change.
    """
    fig, ax = plt.subplots(figsize=(6.4, 3.4))
    ax.plot(x, known, "--", color=NEUTRAL)
    ax.plot(x, mystery, "-", color=ACCENT)
    ax.set(xlabel="log-ratio $r$ (nats)", ylabel="pull", title="Same row, one thing changed", ylim=(0, None))
    publish(fig, "06b_mystery_pull", "Pull of one row against its log-ratio. Dashed: a bell around 0, 0.025 high. "
            "Solid: a bell around 0 too, twice as high and half as wide.")  # fmt: skip
