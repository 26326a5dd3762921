"""The pictures of lesson 09."""

from collections.abc import Mapping

import matplotlib.pyplot as plt

from kto_course.pictures import publish
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, label_line, use_course_style

STYLES = {"KTO": (UP, "-"), "DPO": (DOWN, "--"), "SLiC": (NEUTRAL, ":"), "PPO-Clip": (ACCENT, "-.")}


def value_functions(x, values: Mapping) -> None:
    """Four value functions through one point: all flatten in gains, two go on falling in losses.

    Args:
        x: (N,) distances from the reference point in nats, from -4 to 4.
        values: method (a key of STYLES) -> (N,) values at beta = delta = 1, epsilon = 0.2, 0 at x = 0.
    """
    use_course_style()
    fig, ax = plt.subplots(figsize=(7.6, 4.4))
    places = {"KTO": (-3.95, -0.36), "PPO-Clip": (-3.95, -1.14), "DPO": (-3.75, -2.0), "SLiC": (-2.25, -2.4)}
    for name, value in values.items():
        colour, style = STYLES[name]
        ax.plot(x, value, linestyle=style, color=colour)
        label_line(ax, *places[name], f"{name}, liked" if name == "PPO-Clip" else name, color=colour)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.plot(0, 0, "o", color="black", zorder=3)
    ax.text(0.15, -0.2, "reference point", fontsize=9)
    ax.text(4.1, 1.27, "reference point of", fontsize=9, va="center", style="italic")
    for height, text in ((1.0, "SLiC: $\\log\\pi$ of the rejected reply"), (0.68, "DPO: $r$ of the rejected reply"),
                         (0.47, "KTO: $z_0$"), (0.2, "PPO-Clip: ratio 1, so $r = 0$")):  # fmt: skip
        ax.text(4.1, height, text, fontsize=9, va="center")
    ax.set(xlabel="distance from the reference point (nats; $\\beta$ = 1, $\\delta$ = 1, $\\epsilon$ = 0.2)")
    ax.set(ylabel="value, 0 at the reference point", xlim=(-4, 7.2), ylim=(-2.8, 1.35), xticks=range(-4, 5))
    ax.set_title("In gains all four flatten; in losses only two let go")
    publish(
        fig,
        "09_value_functions",
        "Four value functions against the distance from the reference point in nats. In gains all four flatten or hit "
        "a lid. In losses KTO and PPO-Clip level off, while DPO and SLiC keep falling. The reference points are z0 for "
        "KTO, the rejected reply for DPO and SLiC, and a ratio of one for PPO-Clip.",
    )


def pushes(x, weights: Mapping) -> None:
    """The push on a row against its distance: full for the hopeless (SLiC, DPO), a bell (KTO), a spike (PPO-Clip).

    Args:
        x: (N,) distances from the reference point in nats, from -100 to 100.
        weights: method (a key of STYLES) -> (N,) pushes at beta = 0.1, delta = 10; KTO's and DPO's divided by beta.
    """
    use_course_style()
    fig, ax = plt.subplots(figsize=(7.6, 4.2))
    for name, weight in weights.items():
        colour, style = STYLES[name]
        ax.plot(x, weight, linestyle=style, color=colour)
    label_line(ax, -98, 1.06, "SLiC: all or nothing", color=NEUTRAL)
    label_line(ax, -80, 0.8, "DPO: full push\nfor the hopeless", color=DOWN)
    label_line(ax, -98, 0.12, "KTO: gives them up", color=UP)
    label_line(ax, 2, 1.14, "PPO-Clip: a spike at the reference", color=ACCENT)
    ax.set(xlabel="wrong side  $\\leftarrow$  distance from the reference point (nats)  $\\rightarrow$  good side")
    ax.set(ylabel="push (KTO, DPO: divided by $\\beta$)", ylim=(-0.03, 1.27))
    ax.set_title("Who gets pushed? Four losses, four answers")
    publish(
        fig,
        "09_gradient_weights",
        "Push on a row against its distance from the reference point, from 100 nats wrong to 100 nats right. SLiC is 1 "
        "up to its margin and then 0; DPO falls smoothly from 1 to 0; KTO is a low bell around the reference point; "
        "PPO-Clip is a narrow spike just at it.",
    )


def vote(paths: Mapping) -> None:
    """Probabilities of three replies while a table learns, a panel for each loss: b, a, or the unrated c wins.

    Args:
        paths: three names of losses -> (steps + 1, 3) probabilities of a (the majority's), b, c (nobody's).
    """
    use_course_style()
    fig, axes = plt.subplots(1, 3, figsize=(10.6, 3.8), sharey=True)
    ends = ("b, the minority's, stays ahead", "a, the majority's, wins", "c wins, rated by nobody")
    for ax, (name, path), end in zip(axes, paths.items(), ends, strict=True):
        place = -1.0
        for reply in path[-1].argsort().tolist():  # from below: no label on top of another
            colour, style = ((UP, "-"), (DOWN, "--"), (NEUTRAL, ":"))[reply]
            ax.plot(range(len(path)), path[:, reply], linestyle=style, color=colour)
            place = max(path[-1, reply].item(), place + 0.07)
            label_line(ax, 1.05 * len(path), place, "abc"[reply], color=colour, fontsize=12)
        ax.set_xscale("symlog", linthresh=1)
        ax.set(xlabel="step", xlim=(0, 2 * len(path)), ylim=(-0.03, 1.05), xticks=(0, 1, 10, 100))
        ax.set_xticklabels(("0", "1", "10", "100"))
        ax.set_title(f"{name}:\n{end}", fontsize=11)
    axes[0].set_ylabel("probability of the reply")
    publish(
        fig,
        "09_vote",
        "Three panels: probabilities of replies a, b and c over training steps when six of ten raters prefer a and the "
        "reference prefers b. Under DPO all three settle at once and b stays ahead. Under KTO with equal weights a "
        "rises towards 1. Under KTO with double weight on thumbs down a rises at first, then c, which nobody rated, "
        "takes everything.",
    )
