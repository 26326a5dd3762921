"""The pictures of lesson 06."""

import matplotlib.pyplot as plt

from kto_course.pictures import publish
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP
from kto_utils.prospect import value as human_value


def two_branches(distance, up, down) -> None:
    """The human value function beside KTO's two: a kink on the left, two smooth branches on the right.

    Args:
        distance: (N,), beta * (r - z0), without a unit; the gain or loss on the left.
        up, down: (N,), KTO's value of a thumbs-up and a thumbs-down row with weight 1.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6))
    left.plot(distance, human_value(distance.numpy()), color=NEUTRAL)
    left.set(xlabel="gain or loss", ylabel="felt value", title="People: a kink at 0")
    right.plot(distance, up, "-", color=UP)
    right.plot(distance, down, "--", color=DOWN)
    right.plot(0, 0.5, "o", color="black")
    right.annotate("neutral: 0.5, not 0", (0, 0.5), xytext=(14, -4), textcoords="offset points", fontsize=9)
    right.text(2.0, 1.03, "thumbs up", color=UP, fontsize=9)
    right.text(-5.6, 1.03, "thumbs down", color=DOWN, fontsize=9)
    right.set(xlabel="$\\beta\\,(r - z_0)$", ylabel="value $v$ (weights 1)", ylim=(-0.05, 1.15))
    right.set_title("KTO: two smooth branches")
    publish(fig, "06_two_branches", "Left: the human value function with a kink at zero, steeper for losses. Right: "
            "KTO's value for thumbs up rises as a logistic curve with the log-ratio, for thumbs down it falls; both "
            "pass one half at the reference point.")  # fmt: skip


def saturation(x, loss, pull, rows, share) -> None:
    """Loss and pull of one row against its distance from the reference point: both are flat far out.

    Args:
        x: (N,), nats to the good side (above z0 for a thumbs up, below it for a thumbs down).
        loss: (N,), of a row with weight 1.
        pull: (N,), size of the gradient as a share of its maximum.
        rows: (B,), x of the lesson's rows, drawn as dots on the pull.
        share: (B,), their pull.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.7), sharex=True)
    left.plot(x, loss, "-", color=ACCENT)
    left.set(ylabel="loss of a row (weight 1)", ylim=(-0.05, 1.1), title="The loss is flat at both ends")
    right.plot(x, pull, "-", color=ACCENT)
    right.plot(rows, share, "o", color="black", markersize=5)
    farthest = int(rows.abs().argmax())
    right.annotate("our eight rows,\nthe homework reply", (rows[farthest], share[farthest]), xytext=(10, 2),
                   textcoords="offset points", fontsize=9)  # fmt: skip
    right.set(ylabel="pull, share of its maximum", ylim=(-0.05, 1.1), title="Far out, a row hardly pulls")
    for ax in (left, right):
        ax.axvline(0, color=NEUTRAL, linewidth=0.8)
        ax.set_xlabel("wrong side  $\\leftarrow$  nats from $z_0$  $\\rightarrow$  good side")
    publish(fig, "06_saturation", "Two panels against the distance from the reference point in nats, beta 0.1. The "
            "loss of a row falls from its weight to 0 as a logistic curve, flat at both ends. Its pull is a bell: "
            "largest at the reference point, below three percent 50 nats away on either side. Seven of the lesson's "
            "rows sit at the top, the homework reply on the slope of the good side.")  # fmt: skip
