"""The picture of lesson 03b."""

from collections.abc import Sequence

import matplotlib.pyplot as plt

from kto_course.pictures import publish
from kto_utils.plotting import UP


def compression(total: Sequence[int], marked: Sequence[int]) -> None:
    """Tokens that a corpus takes against the number of merges: the first merges save most.

    Args:
        total: tokens in the corpus after 0, 1, 2, ... merges.
        marked: numbers of merges whose point is labelled.
    """
    fig, ax = plt.subplots()
    ax.plot(range(len(total)), [n / 1000 for n in total], color=UP)
    for n in marked:
        ax.plot(n, total[n] / 1000, "o", color=UP)
        ax.annotate(f"{total[n]:,}", (n, total[n] / 1000), xytext=(6, 8), textcoords="offset points")
    ax.set(xlabel="merges learned", ylabel="tokens in the corpus (thousands)")
    ax.set(ylim=(0, 1.09 * total[0] / 1000), xlim=(-5, 1.11 * len(total)))
    ax.set_title("The first 50 merges save more than the 203 after them")
    points = ", ".join(f"{total[n]:,} after {n}" for n in marked)
    publish(
        fig,
        "03b_compression",
        "Number of tokens in the corpus against the number of merges learned. The curve falls steeply for the first "
        f"50 merges and flattens out: {points}.",
    )
