"""The picture of lesson 12b."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import torch

from kto_course.pictures import publish
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP


def rotation(whole: torch.Tensor, by_processes: Mapping[int, torch.Tensor]) -> None:
    """Mean k of each batch (nats): rotated as a whole, and inside the shares of so many processes.

    One sees scatter around the diagonal, wider for more processes, and no shift.
    """
    fig, ax = plt.subplots(figsize=(6.4, 4.6))
    styles = zip("os^", (UP, DOWN, ACCENT), strict=True)
    for (n, values), (marker, colour) in zip(by_processes.items(), styles, strict=True):
        ax.plot(whole, values, marker, color=colour, label=f"{n} processes", markerfacecolor="none")
    limits = [float(whole.min()) - 0.3, float(whole.max()) + 0.3]
    ax.plot(limits, limits, color=NEUTRAL, linewidth=1, label="no difference")
    ax.set(xlabel="mean k of the whole batch (nats)", ylabel="rotated inside each share (nats)")
    ax.set_title("Same rows, smaller groups: another reference point")
    ax.legend()
    alt = (
        "Scatter plot of 40 batches: mean mismatched log-ratio with rotation over the whole batch against rotation "
        "inside shares of 2, 4 and 8 processes; points scatter around the diagonal, wider for more processes."
    )
    publish(fig, "12b_rotation", alt)
