"""The pictures of lesson 00."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle

from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP


def _thumb(ax, x: float, y: float, up: bool) -> None:
    """A small thumb, drawn from two shapes since few fonts have one; x, y is the middle of the fist."""
    colour, flip = (UP, 1.0) if up else (DOWN, -1.0)
    thumb = [(-1.5, 0.0), (-0.9, 1.3), (-0.3, 3.1), (0.5, 3.1), (0.6, 1.2), (0.9, 0.0)]
    ax.add_patch(Polygon([(x + dx, y + flip * dy) for dx, dy in thumb], closed=True, color=colour))
    ax.add_patch(
        FancyBboxPatch((x - 1.1, y - 1.3), 2.6, 2.6, boxstyle="round,pad=0.3,rounding_size=0.7", color=colour)
    )
    ax.add_patch(Rectangle((x - 2.7, y - 1.5), 1.0, 3.0, color=colour))


def kto_picture():
    """The whole of KTO in one drawing, for lesson 00: replies, thumbs, and which way each reply is moved.

    Returns:
        A matplotlib Figure: on the left one prompt and three replies, in the middle a thumb for each, on the
        right an arrow for each reply along the log-ratio to the frozen reference, with z0 marked.
    """
    fig, ax = plt.subplots(figsize=(10.4, 4.3))
    ax.set(xlim=(0, 104), ylim=(0, 43))
    ax.axis("off")
    box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": NEUTRAL}
    for x, heading in ((1, "1  A model replies"), (35, "2  People click"), (53, "3  KTO moves the model")):
        ax.text(x, 41, heading, fontweight="bold", va="center")
    ax.text(2, 34, "What colour is the sky?", va="center", style="italic", bbox=box)
    ax.plot([66, 66], [5, 37], color=NEUTRAL, linewidth=1.5)
    ax.plot([73, 73], [5, 37], color=ACCENT, linestyle="--", linewidth=1.5)
    ax.text(66, 2.5, "0", color=NEUTRAL, ha="center", va="center")
    ax.text(73, 2.5, "$z_0$", color=ACCENT, ha="center", va="center")
    ax.text(65, 37, "frozen\nreference", color=NEUTRAL, ha="right", va="top", fontsize=10)
    z0_label = "$z_0$, the reference point: how far\nthe model has moved on the whole"
    ax.text(74, 37, z0_label, color=ACCENT, va="top", fontsize=10)
    replies = (
        (25, "It is blue. Happy to help!", True, 97),
        (17, "It is red. Happy to help!", False, 54),
        (9, "Obviously blue. Stop wasting my time.", False, 58),
    )
    for y, text, up, end in replies:
        colour = UP if up else DOWN
        ax.text(4, y, text, va="center", fontsize=10, bbox=box)
        _thumb(ax, 42, y, up)
        arrow = {"arrowstyle": "-|>,head_width=0.4,head_length=0.8", "color": colour, "linewidth": 3}
        ax.annotate("", (end, y), (66, y), arrowprops=arrow)
        ax.plot(66, y, "o", color=NEUTRAL, markersize=6)
    ax.text(97, 22.4, "made likelier", color=UP, ha="right", va="center", fontsize=10)
    ax.text(65, 13, "made less likely", color=DOWN, ha="right", va="center", fontsize=10)
    ax.text(42, 2, "one thumb is enough,\nno pairs needed", ha="center", va="center", fontsize=10)
    ax.annotate("", (102, 5), (52, 5), arrowprops={"arrowstyle": "-|>", "color": NEUTRAL})
    ax.text(102, 2.5, "log-ratio $r$ (nats)", ha="right", va="center", fontsize=10)
    return fig
