"""The pictures of lesson 01. The value functions and the bridge are drawn in the lesson itself."""

import matplotlib.pyplot as plt

from kto_course.pictures import publish
from kto_utils.plotting import DOWN, UP


def alpha_panels(z, curves: dict) -> None:
    """Four value functions side by side: with a small alpha a jump at the reference point, then nearly flat.

    Args:
        z: amounts (n,), in dollars from the reference point, rising.
        curves: alpha -> felt values (n,); four of them.
    """
    fig, axes = plt.subplots(2, 2, figsize=(7.2, 5.2), sharex=True, sharey=True)
    for ax, (alpha, felt) in zip(axes.flat, curves.items(), strict=True):
        ax.plot(z[z >= 0], felt[z >= 0], color=UP, ls="-")
        ax.plot(z[z <= 0], felt[z <= 0], color=DOWN, ls="--")
        ax.set_title(f"alpha = {alpha:.2f}")
    fig.supxlabel("distance from the reference point (dollars)")
    fig.supylabel("felt value")
    fig.suptitle("Small alpha: a jump at the reference point, then nearly flat", fontweight="bold")
    alt = """Four value functions. At alpha 0.05 the curve jumps at the reference point and is nearly flat on
        both sides; at 0.5 it bends strongly; at 0.88 it bends slightly; at 1 it is two straight lines with a kink.
        Losses are 2.25 times as steep in all four."""
    publish(fig, "01_alpha_panels", alt)
