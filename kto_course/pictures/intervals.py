"""Medians with their intervals over conditions: a picture of experiments, and how their methods look."""

from collections.abc import Mapping, Sequence

from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP

# How a method looks in every figure: colour, line, marker; told apart without colour too.
METHOD_STYLES = {
    "sft": (ACCENT, "-.", "D"),
    "kto": (UP, "-", "o"),
    "kto weights 1": ("#56B4E9", ":", "^"),
    "dpo": (DOWN, "--", "s"),
}


def draw_intervals(ax, labels: Sequence[str], series: Mapping[str, Sequence], before: float | None = None) -> None:
    """Medians with their intervals over conditions, a line for each method, its name at the right end, a dot a seed.

    Args:
        ax: matplotlib axes.
        labels: names of the conditions, left to right.
        series: method (a key of `METHOD_STYLES`) -> for each condition an object with `median`, `low`, `high` and
            `values` (a number for each seed).
        before: level of the model before training, drawn as a dotted line.
    """
    for number, (method, points) in enumerate(series.items()):
        colour, line, marker = METHOD_STYLES[method]
        x = [i + 0.09 * (number - (len(series) - 1) / 2) for i in range(len(labels))]  # intervals side by side
        median = [point.median for point in points]
        spread = [[p.median - p.low for p in points], [p.high - p.median for p in points]]
        ax.errorbar(x, median, yerr=spread, color=colour, linestyle=line, marker=marker, markersize=6, capsize=3)
        for at, point in zip(x, points, strict=True):  # a median hides the runs that collapsed
            ax.plot([at] * len(point.values), point.values, ".", color=colour, markersize=4, alpha=0.5)
    ax.set_xticks(range(len(labels)), labels)
    ax.set_xlim(-0.3, len(labels) - 0.7 + 0.2 * (len(labels) + 1))
    if before is not None:
        ax.axhline(before, color=NEUTRAL, linestyle=":", linewidth=1.2)
        ax.annotate("before", (ax.get_xlim()[1], before), color=NEUTRAL, ha="right", va="bottom", fontsize=9)
    ends = sorted((points[-1].median, method) for method, points in series.items())
    low, high = ax.get_ylim()
    place = -float("inf")
    for height, method in ends:  # from below: no label on top of another
        place = max(height, place + 0.08 * (high - low))
        ax.text(len(labels) - 1 + 0.22, place, method, color=METHOD_STYLES[method][0], va="center")
