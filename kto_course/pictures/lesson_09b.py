"""The pictures of lesson 09b."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch

from kto_course.pictures import publish
from kto_course.pictures.intervals import draw_intervals
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, use_course_style


def minority_wins(share, log10_odds, minority: Mapping) -> None:
    """Where DPO's optimum prefers the minority's reply: below a line that bends down the faster the smaller beta is.

    Args:
        share: (N,) share of raters who prefer a, 0.5 to 0.94.
        log10_odds: (N,) decimal logarithm of the reference's odds of a against b.
        minority: three betas -> (N,) bools, whether the trained table prefers b.
    """
    use_course_style()
    fig, axes = plt.subplots(1, 3, figsize=(10.6, 4.1), sharex=True, sharey=True)
    p_axis = torch.linspace(0.5, 0.94, 200)
    for ax, (beta, wins) in zip(axes, minority.items(), strict=True):
        border = -torch.log10(p_axis / (1 - p_axis)) / beta  # reference odds at which DPO's odds are 1
        ax.fill_between(p_axis, border.clamp(min=-3.3), -3.3, color=DOWN, alpha=0.18, linewidth=0)
        ax.plot(p_axis, border, color="black", linewidth=1.5)
        ax.plot(share[wins], log10_odds[wins], "v", color=DOWN, markersize=6)
        ax.plot(share[~wins], log10_odds[~wins], "o", color=UP, markersize=6, fillstyle="none")
        ax.set_title(f"$\\beta$ = {beta}")
        ax.set(xlabel="share of raters who prefer a", xlim=(0.5, 0.94), ylim=(-3.3, 0.8))
    axes[0].set_yticks(range(-3, 1), ["1 : 1000", "1 : 100", "1 : 10", "1 : 1"])
    axes[0].set_ylabel("reference odds of a against b")
    fig.legend(ax.lines[2:0:-1], ["trained table says a, the majority's", "b, the minority's"],
               loc="upper right", ncols=2, fontsize=10, handletextpad=0.1)  # fmt: skip
    fig.suptitle("DPO's optimum follows the minority below the line", x=0.01, ha="left", fontweight="bold", fontsize=12)
    publish(
        fig,
        "09b_minority_wins",
        "Three panels for beta 0.1, 0.5 and 1: share of raters who prefer a against the reference odds of a. Below a "
        "curve that starts at even odds and falls with the share, DPO's optimum prefers the minority's reply. The "
        "region is thin at beta 0.1 and large at beta 1. Every trained point lies on its predicted side.",
    )


def raters(conditions: Sequence[str], leads: Mapping, on_list: Mapping, before: Mapping) -> None:
    """Two groups of raters in a real model: whose replies lead, and how much stays on listed replies.

    Args:
        conditions: shares of the majority, left to right.
        leads: method -> for each condition the majority's minus the minority's probability (a `Spread`).
        on_list: method -> for each condition the probability on listed replies (a `Spread`).
        before: measures of the reference model, keys as in the results.
    """
    use_course_style()
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.6, 4.6))
    lead_before = 2 * before["new wording thumbs_up"] - before["new wording right"]
    draw_intervals(left, conditions, leads, before=lead_before)
    draw_intervals(right, conditions, on_list, before=before["new wording listed"])
    left.set(xlabel="share of raters in the majority", ylabel="its replies minus the minority's")
    left.set_title("KTO turns furthest to the majority")
    right.set(xlabel="share of raters in the majority", ylabel="probability on listed replies", ylim=(-0.03, 1.05))
    right.set_title("and keeps least of what it could say")
    lists = "; ".join(
        f"{method} {', '.join(f'{point.median:.2f}' for point in points)}" for method, points in on_list.items()
    )
    publish(
        fig,
        "09b_raters",
        "Two panels over the majority's share, 50, 60 and 80 percent: medians and a dot for each of 20 runs. Left: "
        "majority's minus minority's replies start at zero and grow with the share; at 60 and 80 percent most for KTO "
        "with weights by the rule, then SFT, then DPO. Right, probability on listed replies, medians at the three "
        f"shares: {lists}.",
    )


def reference_points(steps: Sequence[int], estimates: Mapping, points: Mapping, before: float) -> None:
    """What batches say of the KL while it grows, and the thumbs-up rates of runs with six reference points.

    Args:
        steps: at which the estimates were noted.
        estimates: "exact", "matched", "mismatched", "unclamped" -> nats at each step, mean over seeds.
        points: reference point -> thumbs-up rate on new wordings (a `Spread`, a value for each seed).
        before: the same rate before training.
    """
    use_course_style()
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.6, 4.2))
    styles = {"exact": ("black", "-"), "unclamped": (DOWN, "--"), "mismatched": (UP, "-."), "matched": (ACCENT, ":")}
    for name, (colour, style) in styles.items():
        label, marker = ("exact KL", "o") if name == "exact" else (name, "")
        left.plot(steps, estimates[name], linestyle=style, marker=marker, color=colour, label=label)
    left.set_yscale("symlog", linthresh=1.0)
    left.set(xlabel="step", ylabel="nats (straight to 1, then log)", title="Batches say 0 or less; the KL is near 2")
    left.legend(fontsize=9)
    for y, point in enumerate(points.values()):
        right.plot(point.values, [y] * len(point.values), ".", color=NEUTRAL)
        ends = [[point.median - point.low], [point.high - point.median]]
        right.errorbar(point.median, y, xerr=ends, fmt="s", color=UP, capsize=3)
    right.axvline(before, color=NEUTRAL, linestyle=":")
    right.set_yticks(range(len(points)), list(points))
    right.set(xlabel="thumbs-up rate on new wordings (dotted: before)", xlim=(-0.03, 1))
    right.set_title("Five alike; without the clamp, ruin")
    right.invert_yaxis()
    medians = ", ".join(f"{name} {point.median:.2f}" for name, point in points.items())
    publish(
        fig,
        "09b_reference_points",
        "Left: over 100 steps of training, the exact KL rises to about 2 nats, while matched and mismatched rows say 0 "
        "from step 20 on and unclamped mismatched rows fall to minus 30. Right: thumbs-up rates on new wordings of 20 "
        f"runs with each of six reference points, a dot each; medians: {medians}. A dotted line is the rate before.",
    )
