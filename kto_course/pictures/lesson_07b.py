"""The pictures of lesson 07b."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from kto_course.pictures import publish
from kto_course.pictures.intervals import METHOD_STYLES
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, label_line

SET_STYLES = {"trained": ("o", UP, 8), "new wording": ("D", ACCENT, 6), "untouched facts": ("^", DOWN, 7)}


def _out_of_reach(ax, curve: Sequence[float], targets: Sequence[float]) -> None:
    """The curve of least KL (nats) for each thumbs-up rate, and the area left of it where no policy can be."""
    ax.plot(curve, targets, color=NEUTRAL, ls="-")
    ax.fill_betweenx(targets, 0, curve, color=NEUTRAL, alpha=0.15)


def frontier(curve: Sequence[float], targets: Sequence[float], paid: Mapping[str, tuple]) -> None:
    """A policy's rate and sampled KL on three sets of questions, beside the least KL.

    Args:
        curve, targets: the least KL (nats) for each rate, from the reference's rate to 1.
        paid: set of questions -> (thumbs-up rate, sampled KL, its standard error), nats.
    """
    fig, ax = plt.subplots(figsize=(8.2, 4.2))
    _out_of_reach(ax, curve, targets)
    ax.plot(0, targets[0], "s", color=NEUTRAL)
    label_line(ax, 0.08, targets[0] - 0.03, "reference", color=NEUTRAL)
    label_line(ax, 0.72, 0.66, "least KL (trained questions);\nleft of it: out of reach", color=NEUTRAL)
    for (name, (rate, kl, error)), dy in zip(paid.items(), (-0.045, 0.045, 0.0), strict=True):
        marker, colour, size = SET_STYLES[name]
        style = {"markersize": size, "color": colour, "markerfacecolor": "white"}
        ax.errorbar(kl, rate, xerr=2 * error, fmt=marker, **style)
        label_line(ax, kl + 2 * error + 0.05, rate + dy, name, color=colour)
    ax.set(title="Further than need be, most of all on untouched facts", ylim=(0.15, 1.09), xlim=(-0.15, 6.6))
    ax.set(xlabel="KL to the reference (nats, sampled)", ylabel="thumbs-up rate (exact)")
    publish(
        fig,
        "07b_frontier",
        "Thumbs-up rate against KL to the reference. A curve rises from the reference at rate 0.23 and KL 0 to rate 1 "
        "at 1.46 nats; left of it no policy can be. Trained and reworded questions lie right of its upper end, at "
        "rates near 0.95. The untouched facts lie far right of the curve, at rate 0.5.",
    )


def paths(curve: Sequence[float], targets: Sequence[float], runs: Mapping[str, Sequence[Sequence[Mapping]]]) -> None:
    """The way of each run: rate against KL on the left, listed probability over the steps on the right.

    Args:
        curve, targets: as in `frontier`.
        runs: method -> its runs, each a list of stops (dicts with step, kl in nats, thumbs_up, listed).
    """
    fig, (ax, ax_listed) = plt.subplots(1, 2, figsize=(10, 4.4), width_ratios=(3, 2))
    _out_of_reach(ax, curve, targets)
    for method, stops_of_runs in runs.items():
        colour, line, marker = METHOD_STYLES[method]
        style = {"color": colour, "ls": line, "marker": marker, "lw": 1, "mfc": "white"}
        for stops in stops_of_runs:
            kl, up = [0.0, *(stop["kl"] for stop in stops)], [targets[0], *(stop["thumbs_up"] for stop in stops)]
            ax.plot(kl, up, ms=5, **style)
            ax_listed.plot([stop["step"] for stop in stops], [stop["listed"] for stop in stops], ms=4, **style)
        end = max((stops[-1] for stops in stops_of_runs), key=lambda stop: stop["kl"])
        label_line(ax, end["kl"] + 0.05, end["thumbs_up"] - 0.05, method.upper(), color=colour)
    label_line(ax, 0.05, 0.96, "out of reach", color=NEUTRAL)
    ax.set(title="Both pay more than the least KL, DPO more than KTO", ylim=(-0.03, 1.03))
    ax.set(xlabel="KL to the reference (nats, lower bound)", ylabel="thumbs-up rate (exact)")
    ax_listed.set(title="Probability left on the list", xlabel="step", ylabel="share of all replies", ylim=(0, 1.03))
    publish(
        fig,
        "07b_paths",
        "Left: thumbs-up rate against a lower bound of the KL. A curve of least KL rises from the reference; five "
        "paths of KTO, solid with circles, and five of DPO, dashed with squares, start at the reference and lie "
        "right of the curve. Right: the probability on listed replies over 100 steps, for the same ten runs.",
    )


def _map(ax, rates: Sequence[float], columns: Sequence[float], table: Sequence[Sequence[tuple[float, int]]]) -> None:
    """A heat map of (mean rate, collapsed runs) with the numbers in it; rows are learning rates."""
    ax.imshow([[mean for mean, _ in row] for row in table], vmin=0, vmax=1, aspect="auto")
    for i, row in enumerate(table):
        for j, (mean, collapsed) in enumerate(row):
            text = f"{mean:.2f}" + (f"\n{collapsed} of 5" if collapsed else "")
            ax.text(j, i, text, ha="center", va="center", fontsize=9.5, color="black" if mean > 0.5 else "white")
    ax.set_xticks(range(len(columns)), [f"{column:g}" for column in columns])
    ax.set_yticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    ax.grid(visible=False)


def knobs(rates: Sequence[float], over_beta: tuple, over_ratio: tuple) -> None:
    """Two maps of learning rate against another knob: mean thumbs-up rate, and how many of five runs collapsed.

    Args:
        rates: learning rates, the rows.
        over_beta, over_ratio: (values of the knob, table of (mean rate, collapsed runs) with a row for each rate).
    """
    fig, (ax_beta, ax_ratio) = plt.subplots(1, 2, figsize=(10.2, 4.2), width_ratios=(3, 6), sharey=True)
    _map(ax_beta, rates, *over_beta)
    _map(ax_ratio, rates, *over_ratio)
    for colour, width, style in (("white", 5, "-"), ("black", 2, "--")):  # seen on light and on dark fields
        box = plt.Rectangle((1.5, -0.5), 2, len(rates), fill=False, edgecolor=colour, lw=width, ls=style)
        ax_ratio.add_patch(box)
    ax_beta.set(title="Ratio 1 (n of 5 collapsed)", xlabel="β", ylabel="learning rate")
    ax_ratio.set(title="β = 0.1; dashed: the band [1, 3/2]", xlabel="total weight of ups / total weight of downs")
    publish(
        fig,
        "07b_knobs",
        "Two heat maps of the mean thumbs-up rate on new wordings, with the rate and the number of collapsed runs of "
        "five written in each field. Rows are four learning rates from 0.0003 to 0.01. Columns are three values of "
        "beta on the left and six ratios of the total weights from 1/4 to 4 on the right, where a dashed frame marks "
        "the recommended band from 1 to 3/2.",
    )


def one_kind(runs: Mapping[tuple[str, str], Sequence[Mapping]], reference: Mapping[str, float]) -> None:
    """Runs on one kind of thumb: listed probability and thumbs-up rate over the steps.

    Args:
        runs: (experiment, method) -> runs whose `path` holds stops (step, listed, thumbs_up); two of each.
        reference: scores before training, such as "trained listed".
    """
    names = list(dict.fromkeys(name for name, _ in runs))
    fig, axes = plt.subplots(2, 2, figsize=(9.6, 6.2), sharex=True, sharey=True)
    for name, column in zip(names, axes.T, strict=True):
        for ax, key in zip(column, ("listed", "thumbs_up"), strict=True):
            for method, colour, style, marker in (("kto", DOWN, "--", "s"), ("kto + sft", UP, "-", "o")):
                for number, run in enumerate(runs[name, method]):
                    stops = [{"step": 0, key: reference[f"trained {key}"]}, *run["path"]]
                    ax.plot([stop["step"] for stop in stops], [stop[key] for stop in stops], marker, ls=style,
                            color=colour, lw=1, ms=4, mfc="white", label=None if number else method)  # fmt: skip
        column[0].set(title=name.capitalize(), ylim=(-0.03, 1.03))
        column[1].set(xlabel="step")
    axes[0, 0].set(ylabel="probability on listed replies")
    axes[1, 0].set(ylabel="thumbs-up rate, trained")
    axes[0, 0].legend()
    publish(
        fig,
        "07b_one_kind",
        "Four panels over 300 steps: probability on listed replies above, thumbs-up rate on trained questions below; "
        "only thumbs-down on the left, only thumbs-up on the right. Five runs each of KTO, dashed with squares, and of "
        "KTO with an SFT term, solid with circles.",
    )
