"""The pictures of lesson 02, and the text behind its token numbers."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch

from kto_course.pictures import publish
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, label_line
from kto_utils.tokenizer import load_tokenizer


def spell(ids: Sequence[int]) -> list[str]:
    """The piece of text that each token number stands for. Lesson 03 builds the tokenizer that is asked here."""
    tokenizer = load_tokenizer()
    return [tokenizer.decode([int(i)]) for i in ids]


def _box(ax, y: float, text: str, count: str, colour: str) -> None:
    ax.add_patch(plt.Rectangle((-1.9, y), 3.8, 0.62, facecolor="white", edgecolor=colour, linewidth=2))
    ax.text(0, y + 0.3, text, ha="center", va="center")
    ax.text(4.2, y + 0.3, count, ha="right", va="center")


def _skip(ax, low: float, high: float) -> None:
    """A line that carries a vector past some boxes: their result is added to it and does not replace it."""
    ax.plot([0, -2.3, -2.3, 0], [low, low, high, high], "-", color=NEUTRAL, linewidth=1.5, zorder=0)
    ax.text(0, high, "+", ha="center", va="center", bbox={"boxstyle": "circle", "fc": "white", "ec": NEUTRAL})


def architecture(layers: int, vocab: int) -> None:
    """The plan of a Llama, from the bottom to the top, with each box's number of parameters as a formula.

    layers, vocab: written into the plan. One sees two additions a layer, and no box for positions.
    """
    fig, ax = plt.subplots(figsize=(6.0, 6.6))
    ax.annotate("", (0, 11.3), (0, 0.6), arrowprops={"arrowstyle": "->", "color": NEUTRAL, "lw": 1.5}, zorder=0)
    ax.add_patch(plt.Rectangle((-2.8, 1.95), 5.1, 6.75, fill=False, edgecolor=NEUTRAL, linestyle="--"))
    ax.text(-2.9, 5.3, f"one layer of {layers}", rotation=90, ha="right", va="center")
    _box(ax, 0.0, "token numbers (T)", "", NEUTRAL)
    _box(ax, 1.0, "embedding table", "$V H$", UP)
    _box(ax, 2.6, "RMSNorm", "$H$", ACCENT)
    _box(ax, 3.6, "attention", "$4 H^2$", DOWN)
    _skip(ax, 2.25, 4.75)
    _box(ax, 5.9, "RMSNorm", "$H$", ACCENT)
    _box(ax, 6.9, "SwiGLU", "$3 H I$", DOWN)
    _skip(ax, 5.5, 8.1)
    _box(ax, 9.0, "RMSNorm", "$H$", ACCENT)
    _box(ax, 10.0, "output matrix", "$V H$", UP)
    ax.text(0, 11.4, f"logits (T, {vocab})", ha="center", va="bottom")
    ax.text(4.2, 11.4, "parameters", ha="right", va="bottom")
    ax.set(xlim=(-3.6, 4.3), ylim=(-0.2, 12.1), title="Every layer adds to the stream, twice")
    ax.axis("off")
    alt = (
        "Plan of the tiny Llama, read from the bottom: token numbers, embedding table, equal layers, RMSNorm, output "
        "matrix, logits. A layer holds RMSNorm and attention, then RMSNorm and SwiGLU; a line past each pair shows "
        "that its result is added to the stream. Formulas for the parameters of each box stand on the right."
    )
    publish(fig, "02_architecture", alt)


def attention(shares: torch.Tensor, words: Sequence[str], row: int) -> None:
    """One head's attention: shares (T, T), row t holds what token t takes from each token; `row` gets a frame.

    One sees that the upper right half is empty, and where the framed token looks.
    """
    future = torch.ones(shares.shape, dtype=torch.bool).triu(diagonal=1)
    fig, ax = plt.subplots(figsize=(6.0, 5.0))
    image = ax.imshow(shares.masked_fill(future, torch.nan), vmin=0, vmax=1)
    ax.add_patch(plt.Rectangle((-0.5, row - 0.5), row + 1, 1, fill=False, edgecolor=DOWN, linewidth=2))
    pointer = {"arrowstyle": "->", "color": DOWN}
    ax.annotate("the reply's 'is'", (row - 0.4, row - 0.6), (11, 5), color=DOWN, ha="center", arrowprops=pointer)
    ax.set_xticks(range(len(words)), words, rotation=60, ha="right")
    ax.set_yticks(range(len(words)), words)
    ax.set(xlabel="token looked at", ylabel="token that looks")
    ax.set_title("Layer 0, head 3: the reply's 'is' looks at 'ky'")
    ax.grid(visible=False)
    fig.colorbar(image, label="share of attention")
    alt = (
        "Attention shares of one head of the shipped model on the prompt and the reply It is blue. The upper right "
        "half is empty: nobody looks ahead. In the framed row, that of the reply's token is, almost all attention "
        "lies on ky, the second half of sky."
    )
    publish(fig, "02_attention", alt)


def causality(with_mask: torch.Tensor, without: torch.Tensor, asked: int) -> None:
    """Two tables (T, T) of bools: replacing token t (row) changes the logits at position s (column), or not.

    `asked`: the row of the lesson's first question. One sees a triangle with the mask, and everything without.
    """
    T = len(with_mask)
    fig, axes = plt.subplots(1, 2, figsize=(7.6, 4.4), sharey=True)
    edges = torch.arange(T + 1) - 0.5
    for ax, moved in zip(axes, (with_mask, without), strict=True):
        ax.pcolormesh(edges, edges, moved.int(), cmap="Greys", vmin=0, vmax=1.6, edgecolors="white", linewidth=1.5)
        ax.set(xlabel="position whose logits change", xticks=range(0, T, 2), yticks=range(0, T, 2))
        ax.set(aspect="equal", ylim=(T - 0.5, -0.5))
        ax.grid(visible=False)
    frame = plt.Rectangle((asked - 0.5, asked - 0.5), T - asked, 1, fill=False, edgecolor=DOWN, linewidth=3)
    axes[0].add_patch(frame).set_clip_on(False)
    note, pointer = f"your question:\n{T - asked} positions", {"arrowstyle": "->", "color": DOWN}
    axes[0].annotate(note, (asked, asked + 0.6), (2.6, 9.5), color=DOWN, ha="center", arrowprops=pointer)
    axes[0].set(ylabel="token replaced", title="With the mask: nothing earlier")
    axes[1].set_title("Without it: everything moves")
    alt = (
        "Two grids of replaced token against position whose logits change; dark means changed. With the causal mask "
        "only the diagonal and the cells to its right are dark: a token changes itself and what follows; in row 6 "
        "these are six cells. Without the mask the whole grid is dark."
    )
    publish(fig, "02_causality", alt)


def references(history: Mapping[str, Sequence[float]]) -> None:
    """How likely ` blue` is for each model, step by step: name -> one probability a step, the policy under "policy".

    One sees a copy that holds still, an alias that runs along with the policy, and a second initialisation that
    starts far away from it.
    """
    styles = {"policy": (UP, "o-"), "copy": (ACCENT, "s-"), "alias": (DOWN, "x--"), "second init": (NEUTRAL, "^:")}
    notes = {"policy": "policy = alias", "copy": "frozen copy", "second init": "second initialisation"}
    fig, ax = plt.subplots(figsize=(7.0, 3.8))
    for name, values in history.items():
        colour, style = styles[name]
        ax.plot(range(len(values)), values, style, color=colour, markersize=8 if name == "alias" else 6)
        if name in notes:
            label_line(ax, len(values) - 1, values[-1], notes[name], color=colour)
    steps = len(history["policy"]) - 1
    ax.set(xlabel="training step of the policy", ylabel="probability of ' blue'", xlim=(-0.15, 1.45 * steps))
    ax.set(xticks=range(steps + 1), ylim=(-0.05, 1))
    ax.set_title("Only one of the three stays where the policy began")
    alt = (
        "The probability of the token blue at the policy's training steps 0 to 4. The policy's line rises; the alias "
        "lies exactly on it. The frozen copy stays level where the policy began. The second initialisation lies level "
        "too, but almost at zero."
    )
    publish(fig, "02_references", alt)
