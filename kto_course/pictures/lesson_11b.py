"""The pictures of lesson 11b."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from kto_course.pictures import publish
from kto_utils.plotting import DOWN, NEUTRAL, UP, label_line


def position_and_length(by_position: Mapping, by_length: Mapping) -> None:
    """Thumbs up fall from the top of the screen to its bottom, and long replies get more of them than they deserve.

    Args:
        by_position, by_length: position (1 to 3), or length in characters rounded down to 5 -> (share of thumbs up,
            share deserved, number of ratings).
    """
    fig, axes = plt.subplots(1, 2, figsize=(9.0, 3.8), sharey=True)
    for ax, found in zip(axes, (by_position, by_length), strict=True):
        keys = list(found)
        ax.plot(keys, [found[key][0] for key in keys], "o-", color=DOWN)
        ax.plot(keys, [found[key][1] for key in keys], "s--", color=NEUTRAL)
        ax.set_xticks(keys)
    axes[0].text(1.12, 0.52, "thumbs up", color=DOWN)
    axes[0].text(1.1, 0.18, "deserved", color=NEUTRAL)
    axes[0].set(xlabel="position on the screen", ylabel="share of ratings", ylim=(0, 0.7))
    axes[0].set_title("Position: the top gets more")
    axes[1].set(xlabel="length of the reply (characters, rounded down to 5)")
    axes[1].set_title("Length: thumbs and what is deserved")
    alt = """Two panels with the share of thumbs up and the deserved share. Over the positions 1 to 3 thumbs up fall
        steeply while the deserved share stays level. Short replies get what they deserve, long ones twice that and
        more."""
    publish(fig, "11b_position_and_length", alt)


def one_sided(sizes: Sequence[int], counted: Mapping, expected: Mapping) -> None:
    """How the share of batches with one kind of thumb falls with the batch size; markers on their formula's line.

    Args:
        sizes: batch sizes, rising.
        counted, expected: name of a file of thumbs -> share of one-sided batches at each size, drawn and by formula.
            Two files, the one with rare thumbs up first.
    """
    fig, ax = plt.subplots()
    places = ((17, 0.5, DOWN, "-", "o"), (4.6, 0.25, UP, "--", "s"))
    for name, (x, y, color, style, marker) in zip(counted, places, strict=True):
        ax.plot(sizes, expected[name], color=color, ls=style)
        ax.plot(sizes, counted[name], marker, color=color)
        label_line(ax, x, y, name, color=color)
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, sizes)
    ax.set(xlabel="batch size (rows)", ylabel="share of one-sided batches", ylim=(-0.02, 1))
    ax.set_title("Weights do not put rare thumbs into a batch, its size does")
    alt = """Share of batches with one kind of thumb against batch size, drawn (markers) and by formula (lines). With
        one thumb up in 20 it is near a half at batch size 16 and small at 64; with one in three it is near zero at
        16."""
    publish(fig, "11b_one_sided", alt)
