"""The pictures of lesson 04."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import ListedColormap

from kto_course.pictures import publish
from kto_utils.plotting import DOWN, NEUTRAL, UP


def batch(padded: Mapping[str, torch.Tensor], labels: Sequence[bool]) -> None:
    """Every cell of a padded batch as a square: prompt grey, reply in the colour of its thumb, padding pale.

    Args:
        padded: attention_mask and label_mask, (B, T) of 0 and 1.
        labels: B thumbs, True for up.

    One sees the ragged right edge: the one long row leaves all others half padding.
    """
    thumbs = torch.tensor(labels)
    # 0 padding, 1 prompt, 2 reply with thumbs down, 3 reply with thumbs up
    roles = padded["attention_mask"] + padded["label_mask"] * (1 + thumbs.int()[:, None])
    lengths = padded["attention_mask"].sum(1).tolist()
    fig, ax = plt.subplots(figsize=(8.0, 3.2))
    colours = ListedColormap(["#F3F3F3", "#C4C4C4", DOWN, UP])
    ax.pcolormesh(roles, cmap=colours, vmin=0, vmax=3, edgecolors="white", linewidth=1)
    for i, length in enumerate(lengths):
        ax.text(length - 0.5, i + 0.5, "E", ha="center", va="center", color="white")
    middle = len(lengths) - 0.5
    ax.text(6, middle, "prompt", ha="center", va="center")
    ax.text(33, middle - 1, "coloured: reply, E = <eos>", ha="center", va="center")
    ax.text(33, 1.5, "padding", ha="center", va="center")
    names = [f"row {i}, {'up' if up else 'down'}" for i, up in enumerate(labels)]
    ax.set_yticks([i + 0.5 for i in range(len(names))], names)
    ax.set(xlabel="position (tokens)", ylim=(len(names), 0), title="One long row, and the others are half padding")
    ax.grid(False)
    publish(
        fig,
        "04_batch",
        f"A grid of {len(names)} rows and {max(lengths)} token positions. Each row is a grey prompt, a coloured reply "
        f"ending in <eos>, then pale padding. Row {lengths.index(max(lengths))} fills all positions; the others end "
        f"at {min(lengths)} to {sorted(lengths)[-2]}.",
    )


def rotation(orders: Mapping[str, Sequence[int]]) -> None:
    """Who lends to whom, one panel a rule: a line from each prompt to the completion that it gets.

    Args:
        orders: title -> for each row the number of the row whose completion it gets.

    One sees that only the reversed odd batch has a row which keeps its own (dashed).
    """
    fig, axes = plt.subplots(1, len(orders), figsize=(8.0, 2.9))
    for ax, (title, order) in zip(axes, orders.items(), strict=True):
        for i, j in enumerate(order):
            style = {"color": DOWN, "linestyle": "--"} if i == j else {"color": NEUTRAL, "linestyle": "-"}
            ax.plot([0, 1], [i, j], marker="o", **style)
            ax.text(-0.1, i, f"$x_{i}$", ha="right", va="center")
            ax.text(1.1, i, f"$y_{i}$", ha="left", va="center")
            if i == j:
                ax.text(1.34, i, "its own!", color=DOWN, va="center")
        ax.set(xlim=(-0.4, 1.8), ylim=(4.6, -0.6), title=title)
        ax.axis("off")
    publish(
        fig,
        "04_rotation",
        "Lines from prompts to the completions they get. Rotating five rows: no prompt keeps its own. Reversing four: "
        "none does. Reversing five: x2 keeps y2, drawn dashed.",
    )
