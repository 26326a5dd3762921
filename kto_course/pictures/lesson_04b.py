"""The pictures of notebook 04b."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from kto_course.pictures import publish
from kto_utils.plotting import DOWN, label_line


def one_sided(sizes: Sequence[int], chances: Mapping[float, Sequence[float]]) -> None:
    """Chance of a one-sided batch against the batch size, on a log scale, one line a share of thumbs up.

    Args:
        sizes: batch sizes in rows, ascending.
        chances: share of thumbs up -> a chance for each size.

    One sees that the rarer a thumb, the larger the batch must be to come below one in a hundred.
    """
    fig, ax = plt.subplots(figsize=(7.6, 3.8))
    for number, (share, line) in enumerate(chances.items()):
        drawn = ax.semilogy(sizes, line, linestyle=("-", "--", "-.", ":")[number % 4])[0]
        at = next((i for i, chance in enumerate(line) if chance < 0.006), len(sizes) * 2 // 3)
        above = 1.25 if line[at] > 0.006 else 1.0  # a line that leaves at the bottom has its label there
        label_line(ax, sizes[at] + 1.5, max(line[at], 0.0055) * above, f"{share:.0%} up", color=drawn.get_color())
    ax.axhline(0.01, color="black", linewidth=1, alpha=0.5)
    ax.text(sizes[-1], 0.0105, "1 in 100", ha="right", va="bottom")
    ax.set(xlabel="batch size (rows)", ylabel="chance of a one-sided batch", ylim=(0.004, 1.1))
    ax.set_title("The rarer a thumb, the larger the batch must be")
    publish(
        fig,
        "04b_one_sided",
        f"Chance of a batch with one kind of thumb against batch size, log scale, for "
        f"{', '.join(f'{share:.0%}' for share in chances)} up. All fall; the rarer the thumb, the slower.",
    )


def unknown_rule(kept: Mapping[int, int]) -> None:
    """Bars for exercise 4.4: how many rows keep their own completion, by batch size.

    Args:
        kept: batch size -> number of rows.

    One sees at which sizes the unknown rule fails.
    """
    fig, ax = plt.subplots(figsize=(6.4, 2.4))
    ax.bar(list(kept), list(kept.values()), color=DOWN)
    ax.set(xlabel="batch size (rows)", ylabel="rows that keep\ntheir own", xticks=list(kept), yticks=[0, 1, 2])
    ax.set_title("An unknown rule fails for small batches")
    publish(
        fig,
        "04b_unknown_rule",
        f"Bars for batch sizes {min(kept)} to {max(kept)}, rows that keep their own: "
        + ", ".join(f"{n} at size {size}" for size, n in kept.items() if n)
        + ", none at the other sizes.",
    )
