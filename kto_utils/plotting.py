"""How figures look and how they are published. Used by every lesson; NumPy and matplotlib only."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle

STYLE_FILE = Path(__file__).with_name("course.mplstyle")
FIGURES_FOLDER = Path(__file__).resolve().parents[1] / "figures"

# Names for colours whose meaning stays the same in all lessons (Okabe-Ito, safe for colour-blind readers).
UP, DOWN, NEUTRAL, ACCENT = "#0072B2", "#D55E00", "#666666", "#009E73"


def use_course_style() -> None:
    """Sets the course's matplotlib style: call it once at the top of a lesson."""
    plt.style.use(STYLE_FILE)


def figures_folder() -> Path:
    """Where figures go: the environment variable KTO_FIGURES if set (the tests do), else figures/."""
    return Path(os.environ.get("KTO_FIGURES", FIGURES_FOLDER))


def save_figure(fig, name: str, alt: str) -> Path:
    """Publishes a figure as figures/NAME.png with its alt text beside it in NAME.txt.

    Args:
        fig: a matplotlib Figure.
        name: lower-case letters, digits and underscores, e.g. "01_value_function".
        alt: what a reader who cannot see the figure must know: what is drawn and what it shows, in a full
            sentence of at least 40 characters.

    Returns:
        Path of the PNG. The same figure gives the same bytes.

    Raises:
        ValueError: a name that is no plain file name, or an alt text that is missing or too short.
    """
    if not name or not all(c.islower() or c.isdigit() or c == "_" for c in name):
        raise ValueError(f"name is {name!r}; use lower-case letters, digits and underscores")
    if len(alt.strip()) < 40:
        raise ValueError(
            f"alt text of {name} has {len(alt.strip())} characters; say in a sentence (40 or more) what the "
            "figure shows"
        )
    folder = figures_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    fig.savefig(path, metadata={"Software": None, "Description": alt})
    path.with_suffix(".txt").write_text(" ".join(alt.split()) + "\n", encoding="utf-8")
    return path


def label_line(ax, x: float, y: float, text: str, color=None, **options) -> None:
    """Writes a direct label at data coordinates, in the line's colour: easier to read than a legend."""
    ax.annotate(text, (x, y), color=color, xytext=(4, 0), textcoords="offset points", va="center", **options)


# How a method looks in every figure: colour, line, marker; told apart without colour too.
METHOD_STYLES = {
    "kto": (UP, "-", "o"),
    "kto weights 1": ("#56B4E9", ":", "^"),
    "dpo": (DOWN, "--", "s"),
}


def draw_intervals(ax, labels: Sequence[str], series: Mapping[str, Sequence], before: float | None = None) -> None:
    """Means with their intervals over conditions, a line for each method, its name at the right end, a dot a seed.

    Args:
        ax: matplotlib axes.
        labels: names of the conditions, left to right.
        series: method (a key of `METHOD_STYLES`) -> for each condition an object with `mean`, `low`, `high` and
            `values` (a number for each seed).
        before: level of the model before training, drawn as a dotted line.
    """
    for number, (method, points) in enumerate(series.items()):
        colour, line, marker = METHOD_STYLES[method]
        x = [i + 0.06 * (number - (len(series) - 1) / 2) for i in range(len(labels))]  # intervals side by side
        mean = [point.mean for point in points]
        spread = [[p.mean - p.low for p in points], [p.high - p.mean for p in points]]
        ax.errorbar(x, mean, yerr=spread, color=colour, linestyle=line, marker=marker, markersize=6, capsize=3)
        for at, point in zip(x, points, strict=True):  # a mean hides one seed that collapsed
            ax.plot([at] * len(point.values), point.values, ".", color=colour, markersize=4, alpha=0.5)
    ax.set_xticks(range(len(labels)), labels)
    ax.set_xlim(-0.3, len(labels) - 0.7 + 0.2 * (len(labels) + 1))
    if before is not None:
        ax.axhline(before, color=NEUTRAL, linestyle=":", linewidth=1.2)
        ax.annotate("before", (ax.get_xlim()[1], before), color=NEUTRAL, ha="right", va="bottom", fontsize=9)
    ends = sorted((points[-1].mean, method) for method, points in series.items())
    low, high = ax.get_ylim()
    place = -float("inf")
    for height, method in ends:  # from below: no label on top of another
        place = max(height, place + 0.08 * (high - low))
        ax.text(len(labels) - 1 + 0.16, place, method, color=METHOD_STYLES[method][0], va="center")


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
