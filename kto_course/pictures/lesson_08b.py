"""The pictures of lesson 08b: thumbs-up rates on new wordings over conditions, with intervals and a dot a seed."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from kto_course.pictures import publish
from kto_course.pictures.intervals import draw_intervals

RATE = "thumbs-up rate, new wordings (exact)"


def unpaired(series: Mapping[str, Sequence], before: float) -> None:
    """KTO and DPO as pairs get rare: DPO falls steadily, KTO loses a seed or two.

    Args:
        series: method -> for each condition an object with mean, low, high and values.
        before: rate of the model before training.
    """
    fig, ax = plt.subplots()
    draw_intervals(ax, ["all", "half", "a quarter"], series, before)
    ax.set(xlabel="questions that keep both kinds of thumb", ylabel=RATE, ylim=(-0.03, 1))
    ax.set_title("DPO loses what it cannot pair; KTO loses a seed or two")
    publish(
        fig, "08b_unpaired",
        "Thumbs-up rate on new wordings against the share of questions that keep both kinds of thumb, with 95% "
        "intervals over 8 seeds, KTO as circles and DPO as squares. DPO falls from 0.54 to 0.39 as pairs get rare. "
        "KTO's mean stays above it with very wide intervals: most of its seeds lie between 0.6 and 0.9, one or two in "
        "each condition at zero.",
    )  # fmt: skip


def imbalance(both: Mapping[str, Mapping[str, Sequence]], kept: Sequence[str], before: float) -> None:
    """Two panels, fewer thumbs-up and fewer thumbs-down.

    Args:
        both: experiment ("fewer thumbs-up", "fewer thumbs-down") -> series as in `unpaired`.
        kept: the shares that are kept, left to right.
        before: rate of the model before training.
    """
    fig, axes = plt.subplots(2, 1, figsize=(7.6, 6.8), sharex=True)
    for ax, series in zip(axes, both.values(), strict=True):
        ax.set(ylabel="thumbs-up rate, new wordings", ylim=(-0.03, 1.05))
        draw_intervals(ax, kept, series, before)
    axes[0].set_title("Few thumbs-up: nobody gets far")
    axes[1].set_title("Few thumbs-down: KTO thrives, even more with weights 1")
    axes[0].set_xlabel("thumbs-up kept")
    axes[1].set_xlabel("thumbs-down kept")
    axes[0].tick_params(labelbottom=True)
    publish(
        fig, "08b_imbalance",
        "Two panels: thumbs-up rate on new wordings when 100 to 2 percent of the thumbs-up, or of the thumbs-down, are "
        "kept; KTO with weights by the rule, KTO with weights 1, and DPO, with 95% intervals over 5 seeds. With fewer "
        "thumbs-up all three fall from about 0.45 to 0.3, DPO a little ahead. With fewer thumbs-down KTO rises to 0.95 "
        "and above, DPO stays near 0.45; KTO with weights 1 is at zero with all thumbs-down and best of all when they "
        "are rare.",
    )  # fmt: skip


def noise(series: Mapping[str, Sequence], flipped: Sequence[str], before: float) -> None:
    """KTO and DPO as more thumbs are flipped: KTO starts higher and falls faster.

    Args:
        series, before: as in `unpaired`.
        flipped: the shares of flipped thumbs, left to right.
    """
    fig, ax = plt.subplots()
    draw_intervals(ax, flipped, series, before)
    ax.set(xlabel="thumbs that are flipped", ylabel=RATE, ylim=(-0.03, 1))
    ax.set_title("Noise costs KTO more, from a higher start")
    publish(
        fig, "08b_noise",
        "Thumbs-up rate on new wordings against the share of flipped thumbs, 0 to 45 percent, KTO as circles and DPO "
        "as squares, with 95% intervals over 5 seeds. KTO falls from about 0.8 to below 0.1, DPO from about 0.5 to "
        "0.25; they cross between 30 and 40 percent, where single seeds of KTO lie at zero.",
    )  # fmt: skip
