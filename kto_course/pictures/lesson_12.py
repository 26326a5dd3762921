"""The pictures of lesson 12."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from kto_course.pictures import publish
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, label_line

STYLES = ((UP, "o-"), (DOWN, "s--"))


def trl_losses(logs: Mapping[str, Sequence[Mapping]]) -> None:
    """TRL's own log of two runs: name -> rows with step and loss (mean of five steps). One sees both fall."""
    fig, ax = plt.subplots(figsize=(7.0, 3.4))
    for (name, log), (colour, style) in zip(logs.items(), STYLES, strict=True):
        steps, losses = [row["step"] for row in log], [float(row["loss"]) for row in log]
        ax.plot(steps, losses, style, color=colour)
        label_line(ax, steps[-1], losses[-1], name, color=colour)
    ax.set(xlabel="step", ylabel="loss (mean of five steps)", xlim=(0, 92))
    ax.set_title("TRL on two processes trains the small world")
    alt = (
        "Loss curves of TRL's KTOTrainer on two processes, once with all weights over 75 steps, once with LoRA over "
        "30; both fall from about 0.89."
    )
    publish(fig, "12_trl", alt)


def memory(tables: Mapping[str, Mapping[str, float]]) -> None:
    """Stacked bars: model -> bytes by part, as `kto_lab.scaling.memory` gives them. One sees what does not shard."""
    parts = ("weights", "gradients", "optimizer", "reference", "activations", "head")
    colours = ("#56B4E9", UP, NEUTRAL, ACCENT, DOWN, "#E69F00")
    hatches = ("", "//", "", "..", "", "xx")
    fig, ax = plt.subplots(figsize=(7.4, 4.0))
    bottom = [0.0] * len(tables)
    for part, colour, hatch in zip(parts, colours, hatches, strict=True):
        height = [table[part] / 1e9 for table in tables.values()]
        ax.bar(list(tables), height, bottom=bottom, label=part, color=colour, hatch=hatch, edgecolor="white")
        bottom = [low + more for low, more in zip(bottom, height, strict=True)]
    ax.set_ylabel("GB on each of 8 GPUs")
    ax.set_title("All weights on 8 GPUs: activations do not shard")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1])
    alt = (
        "Stacked bars of estimated memory on each of eight GPUs for four models from 0.5 to 8 billion parameters: "
        "weights, gradients, optimiser state, reference, activations and head."
    )
    publish(fig, "12_memory", alt)


def spread(sizes: Sequence[int], first: Sequence[float], second: Sequence[float]) -> None:
    """Standard deviation of z0 (nats) by rows in a step, for the two people of exercise 12.2."""
    fig, ax = plt.subplots(figsize=(6.8, 3.2))
    for name, values, (colour, style) in zip(("first person", "second person"), (first, second), STYLES, strict=True):
        ax.plot(sizes, values, style, color=colour)
        label_line(ax, sizes[-1], values[-1], name, color=colour)
    ax.set(xlabel="rows in a step", ylabel="spread of z0 (nats)", ylim=(0, 0.9), xlim=(0, 168), xticks=sizes)
    ax.set_title("One of them gains nothing for z0")
    alt = (
        "Standard deviation of z0 against the rows in a step, 8 to 128. The first person's curve falls from about 0.7 "
        "to about 0.2; the second person's stays flat at about 0.7."
    )
    publish(fig, "12_spread", alt)
