"""The pictures of lesson 07b."""

from collections.abc import Mapping, Sequence
from statistics import mean

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
    where = ", ".join(f"{name} at rate {rate:.2f} and {kl:.2f} nats" for name, (rate, kl, _) in paid.items())
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
        f"Thumbs-up rate against KL to the reference. A curve of least KL rises from the reference at rate "
        f"{targets[0]:.2f} and KL 0 to rate 1 at {curve[-1]:.2f} nats; left of it no policy can be. The policy, with "
        f"sampled KL: {where}.",
    )


def paths(curve: Sequence[float], targets: Sequence[float], runs: Mapping[str, Sequence[Sequence[Mapping]]]) -> None:
    """A panel for each method, a line for each run: rate against KL above, listed probability over the steps below.

    Args:
        curve, targets: as in `frontier`.
        runs: method -> its runs, each a list of stops (dicts with step, kl and excess_kl in nats, thumbs_up, listed).
    """
    fig, axes = plt.subplots(2, len(runs), figsize=(10.4, 6.6), sharey=True, sharex="row", layout="constrained")
    said = []
    for (ax, ax_listed), (method, stops_of_runs) in zip(axes.T, runs.items(), strict=True):
        colour, line, marker = METHOD_STYLES[method]
        style = {"color": colour, "ls": line, "marker": marker, "lw": 1, "ms": 4, "mfc": "white"}
        _out_of_reach(ax, curve, targets)
        for stops in stops_of_runs:
            kl, up = [0.0, *(stop["kl"] for stop in stops)], [targets[0], *(stop["thumbs_up"] for stop in stops)]
            ax.plot(kl, up, **style)
            ax_listed.plot([stop["step"] for stop in stops], [stop["listed"] for stop in stops], **style)
        up, above, listed = (mean(stops[-1][key] for stops in stops_of_runs)
                             for key in ("thumbs_up", "excess_kl", "listed"))  # fmt: skip
        ax.set(title=f"{method.upper()}: {up:.2f}, {above:.2f} nats too far", xlabel="KL (nats, lower bound)")
        ax_listed.set(xlabel="step", ylim=(-0.03, 1.03))
        said.append(f"{method.upper()} rate {up:.2f}, {above:.2f} nats above the least KL, {listed:.2f} on the list")
    label_line(axes[0, 0], 0.02, 0.96, "out of reach", color=NEUTRAL, fontsize=9)
    axes[0, 0].set(ylabel="thumbs-up rate (exact)")
    axes[1, 0].set(ylabel="probability on the list")
    publish(
        fig,
        "07b_paths",
        "A column for each method, a line for each run, over 100 steps. Above: thumbs-up rate against a lower bound of "
        "the KL; a curve of least KL rises from the reference, and no path can lie left of it. Below: the probability "
        f"on listed replies. Means at the end: {'; '.join(said)}.",
    )


def _map(ax, rates: Sequence[float], columns: Sequence[float], table: Sequence[Sequence[tuple[float, int]]]) -> None:
    """A heat map of (mean rate, lost runs) with the numbers in it; rows are learning rates."""
    ax.imshow([[up for up, _ in row] for row in table], vmin=0, vmax=1, aspect="auto")
    for i, row in enumerate(table):
        for j, (up, lost) in enumerate(row):
            text = f"{up:.2f}" + (f"\n{lost} lost" if lost else "")
            ax.text(j, i, text, ha="center", va="center", fontsize=9.5, color="black" if up > 0.5 else "white")
    ax.set_xticks(range(len(columns)), [f"{column:g}" for column in columns])
    ax.set_yticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    ax.grid(visible=False)


def _said(rates: Sequence[float], columns: Sequence[float], table: Sequence[Sequence[tuple[float, int]]]) -> str:
    """The numbers of a map, row by row, for its alt text."""
    rows = []
    for rate, row in zip(rates, table, strict=True):
        fields = (f"{up:.2f} ({lost}) at {column:g}" for column, (up, lost) in zip(columns, row, strict=True))
        rows.append(f"learning rate {rate:g}: {', '.join(fields)}")
    return "; ".join(rows)


def knobs(n: int, rates: Sequence[float], over_beta: tuple, over_ratio: tuple) -> None:
    """Two maps of learning rate against another knob: mean thumbs-up rate, and how many of n runs were lost.

    Args:
        n: runs for each setting.
        rates: learning rates, the rows.
        over_beta, over_ratio: (values of the knob, table of (mean rate, lost runs) with a row for each rate).
    """
    widths = len(over_beta[0]), len(over_ratio[0])
    fig, (ax_beta, ax_ratio) = plt.subplots(1, 2, figsize=(10.4, 3.6), width_ratios=widths, sharey=True)
    _map(ax_beta, rates, *over_beta)
    _map(ax_ratio, rates, *over_ratio)
    band = [j for j, ratio in enumerate(over_ratio[0]) if 1.0 <= ratio <= 1.5]
    for colour, width, style in (("white", 5, "-"), ("black", 2, "--")):  # seen on light and on dark fields
        corner = band[0] - 0.5, -0.5
        ax_ratio.add_patch(plt.Rectangle(corner, len(band), len(rates), fill=False, ec=colour, lw=width, ls=style))
    ax_beta.set(title=f"Ratio 1 (lost of {n})", xlabel="β", ylabel="learning rate")
    ax_ratio.set(title="β = 2; dashed: the band [1, 3/2]", xlabel="total weight of ups / total weight of downs")
    publish(
        fig,
        "07b_knobs",
        f"Two heat maps of the mean thumbs-up rate on new wordings, with the lost runs of {n} in brackets. Over beta: "
        f"{_said(rates, *over_beta)}. Over the ratio of the total weights, where a dashed frame marks the recommended "
        f"band from 1 to 3/2: {_said(rates, *over_ratio)}.",
    )


def one_kind(runs: Mapping[tuple[str, str], Sequence[Mapping]], reference: Mapping[str, float]) -> None:
    """Runs on one kind of thumb: listed probability and thumbs-up rate over the steps, a line for each run.

    Args:
        runs: (kind, method) -> runs whose `path` holds stops (step, listed, thumbs_up); two kinds, two methods.
        reference: scores before training, such as "trained listed".
    """
    kinds, methods = (list(dict.fromkeys(names)) for names in zip(*runs, strict=True))
    looks = dict(zip(methods, ((DOWN, "--", "s"), (UP, "-", "o")), strict=True))
    fig, axes = plt.subplots(2, 2, figsize=(9.6, 6.2), sharex=True, sharey=True)
    for kind, column in zip(kinds, axes.T, strict=True):
        for ax, key in zip(column, ("listed", "thumbs_up"), strict=True):
            for method, (colour, style, marker) in looks.items():
                for number, run in enumerate(runs[kind, method]):
                    stops = [{"step": 0, key: reference[f"trained {key}"]}, *run["path"]]
                    ax.plot([stop["step"] for stop in stops], [stop[key] for stop in stops], marker, ls=style, lw=0.8,
                            color=colour, ms=4, mfc="white", label=None if number else method)  # fmt: skip
        column[0].set(title=kind.capitalize(), ylim=(-0.03, 1.03))
        column[1].set(xlabel="step")
    axes[0, 0].set(ylabel="probability on listed replies")
    axes[1, 0].set(ylabel="thumbs-up rate, trained")
    axes[0, 0].legend()
    ends = "; ".join(
        f"{kind}, {method}: " + " and ".join(f"{mean(run['path'][-1][key] for run in found):.2f}"
                                             for key in ("listed", "thumbs_up"))
        for (kind, method), found in runs.items()
    )  # fmt: skip
    publish(
        fig,
        "07b_one_kind",
        "Four panels over 100 steps, a line for each run: probability on listed replies above, thumbs-up rate on "
        "trained questions below; only downs on the left, only ups on the right; KTO dashed with squares, KTO with "
        f"demonstrations solid with circles. Means at the end, listed and thumbs up: {ends}.",
    )
