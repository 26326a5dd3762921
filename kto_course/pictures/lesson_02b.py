"""The pictures of lesson 02b."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch

from kto_course.pictures import publish
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP


def rotary(turned: torch.Tensor, pairs: Sequence[int]) -> None:
    """The point (1, 0) of two pairs at several positions: turned (T, d), row t at position t.

    One sees a fast pair sweep round the circle and a slow one hardly move.
    """
    T, d = turned.shape
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.9))
    for ax, pair in zip(axes, pairs, strict=True):
        for t in range(T):
            tip = (turned[t, pair], turned[t, pair + d // 2])
            ax.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "->", "color": UP, "lw": 1.8})
            if pair == 0 or t in (0, T - 1):
                ax.text(1.15 * tip[0], 1.15 * tip[1], str(t), ha="center", va="center")
        ax.set(xlim=(-1.35, 1.35), ylim=(-1.35, 1.35), aspect="equal", xlabel="a", ylabel="b")
    axes[0].set_title(f"Pair {pairs[0]}: one radian a token")
    axes[1].set_title(f"Pair {pairs[1]}: a tenth of that")
    alt = (
        "Two panels show the point (1, 0) turned to positions 0 to 5. In pair 0 the six arrows spread over almost a "
        "whole circle; in pair 4 they stay within half a radian of each other."
    )
    publish(fig, "02b_rotary", alt)


def precision(gaps: Mapping[str, float]) -> None:
    """Largest differences of logits by variant of the library's model: name -> gap, the exact one last.

    One sees that only the variant with both parts in float64 falls below 1e-10.
    """
    fig, ax = plt.subplots(figsize=(7.2, 3.2))
    names = list(gaps)[::-1]
    ax.barh(names, [gaps[name] for name in names], color=[ACCENT] + [NEUTRAL] * (len(names) - 1))
    ax.axvline(1e-10, color=DOWN, linestyle="--")
    ax.text(1.4e-10, -0.05, "1e-10", color=DOWN, va="center")
    for row, name in enumerate(names):
        ax.text(1.3 * gaps[name], row, f"{gaps[name]:.0e}", va="center")
    ax.set_xscale("log")
    ax.set(xlim=(1e-17, 1e-4), xlabel="largest difference from our logits (log scale)")
    ax.set_title("Equal to 1e-10 only when norms and table are float64")
    ax.grid(axis="y", visible=False)
    alt = (
        "Bars on a log scale: the largest difference between our logits and the library's. The library in float32, in "
        "float64 with float32 parts, and in float64 with only one of the two parts replaced lie between 1e-9 and "
        "1e-6. With both parts replaced the difference falls to about 1e-15."
    )
    publish(fig, "02b_precision", alt)
