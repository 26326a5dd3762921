"""The pictures of lesson 08."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from kto_course.pictures import publish
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, label_line


def who_gets_pushed(nats, dpo, kto) -> None:
    """How hard each loss pushes: DPO full on the far wrong side, KTO nowhere far out.

    Args:
        nats: (N,), from -100 to 100: a pair's margin (DPO), or a row's distance from z0 (KTO).
        dpo, kto: (N,), size of the gradient over beta, without unit.
    """
    fig, ax = plt.subplots()
    ax.plot(nats, dpo, color=DOWN, linestyle="--")
    ax.plot(nats, kto, color=UP)
    label_line(ax, -14, 0.95, "DPO: hopeless pairs get the full push", color=DOWN)
    label_line(ax, -98, 0.1, "KTO gives up here", color=UP)
    label_line(ax, 12, 0.24, "KTO: largest at the reference point", color=UP)
    ax.set(xlabel="margin (DPO) or r - z0 (KTO), nats", ylabel="size of the gradient / beta")
    ax.set_title("DPO pushes hardest where it is most wrong, KTO does not")
    publish(
        fig, "08_who_gets_pushed",
        "Size of the gradient against distance in nats at beta 0.1. DPO's falls from 1 on the far wrong side to 0 on "
        "the right side; KTO's is a bell, 0.25 at the reference point and near zero beyond 50 nats on both sides.",
    )  # fmt: skip


def displacement(history: Sequence[Mapping]) -> None:
    """Both rewards and their difference over a run of DPO: the margin is positive while both rewards are below zero.

    Args:
        history: rows of `train_dpo` with step, reward_chosen, reward_rejected and margin, all in nats times beta.
    """
    fig, ax = plt.subplots()
    steps = [row["step"] for row in history]
    for name, colour, style in (("reward_chosen", UP, "-"), ("reward_rejected", DOWN, "--"), ("margin", ACCENT, "-.")):
        curve = [row[name] for row in history]
        ax.plot(steps, curve, color=colour, linestyle=style)
        label_line(ax, steps[-1], curve[-1], name.replace("_", " "), color=colour)
    ax.axhline(0, color=NEUTRAL, linewidth=1)
    ax.set(xlabel="step", ylabel="beta * log-ratio (nats times beta)", xlim=(0, 80), xticks=range(0, 61, 10))
    ax.set_title("Beta 0.1: the margin is positive while the chosen replies die")
    publish(
        fig, "08_displacement",
        "DPO over 60 steps at beta 0.1: the margin rises and stays positive, but from step 40 on the rewards of "
        "chosen and of rejected replies both lie below zero, the rejected ones further.",
    )  # fmt: skip


METHOD_COLOURS = {
    "sft": ACCENT, "dpo": DOWN, "dpo + sft": "#B8860B", "cdpo": "#CC79A7", "kto": UP, "kto weights 1": "#56B4E9",
    "kto + sft": "#332288",
}  # fmt: skip


def core_table(table: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], before: float) -> None:
    """Every run of the core table as a dot: a panel for each kind of thumbs, a row for each method.

    Args:
        table: condition -> method -> thumbs-up rates on new wordings (tuned once, tuned for the condition).
        before: the rate of the model before training, drawn as a dotted line.
    """
    fig, axes = plt.subplots(4, 2, figsize=(10.4, 13.2), sharex=True, layout="constrained")
    for ax, (condition, methods) in zip(axes.flat, table.items(), strict=False):
        for y, (method, (once, each)) in enumerate(methods.items()):
            colour = METHOD_COLOURS[method]
            for values, dy, face in ((once, -0.17, "white"), (each, 0.17, colour)):
                ax.plot(values, [y + dy] * len(values), "o", color=colour, markerfacecolor=face, markersize=4,
                        markeredgewidth=0.8, alpha=0.75)  # fmt: skip
                mean = sum(values) / len(values)
                ax.plot([mean, mean], [y + dy - 0.16, y + dy + 0.16], "-", color="black", linewidth=2)
        ax.axvline(before, color=NEUTRAL, linestyle=":")
        ax.set_yticks(range(len(methods)), list(methods))
        ax.set(title=condition, xlim=(-0.03, 1.03))
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    key = axes.flat[-1]
    key.axis("off")
    for y, (text, face) in enumerate((("upper, hollow: tuned once, with all thumbs", "white"),
                                      ("lower, filled: tuned for these thumbs", "black"))):  # fmt: skip
        key.plot(0.02, 0.75 - 0.15 * y, "o", color="black", markerfacecolor=face, transform=key.transAxes)
        key.text(0.06, 0.75 - 0.15 * y, text, transform=key.transAxes, va="center")
    key.plot([0.02, 0.02], [0.4, 0.5], "-", color="black", linewidth=2, transform=key.transAxes)
    key.text(0.06, 0.45, "mean of 30 runs", transform=key.transAxes, va="center")
    key.plot([0.02, 0.02], [0.25, 0.35], ":", color=NEUTRAL, transform=key.transAxes)
    key.text(0.06, 0.3, "before training: left of it a run is lost", transform=key.transAxes, va="center")
    for ax in axes[-1]:
        ax.set_xlabel("thumbs-up rate, new wordings (exact)")
    means = "; ".join(
        f"{condition}: " + ", ".join(f"{method} {sum(once) / len(once):.2f} and {sum(each) / len(each):.2f}"
                                     for method, (once, each) in methods.items())
        for condition, methods in table.items()
    )  # fmt: skip
    publish(
        fig, "08_core_table",
        "Seven panels, one for each kind of thumbs. In each, a row for each method with a dot for each of 30 runs: the "
        "thumbs-up rate on new wordings, tuned once above, tuned for these thumbs below; a dotted line at "
        f"{before:.2f} is the model before training. Means, tuned once and tuned for the condition: {means}.",
    )  # fmt: skip


def leads(found: Mapping[str, object]) -> None:
    """KTO minus DPO, one line for each kind of feedback, a dot a seed; filled marks do not touch zero.

    Args:
        found: label -> an object with mean, low, high and values, thumbs-up rates on new wordings.
    """
    fig, ax = plt.subplots(figsize=(7.6, 4.8))
    for y, lead in enumerate(found.values()):
        filled = lead.low > 0 or lead.high < 0
        colour, marker = (UP, "o") if lead.mean > 0 else (DOWN, "s")
        ax.plot(lead.values, [y] * len(lead.values), ".", color=colour, markersize=5, alpha=0.45)
        ax.plot([lead.low, lead.high], [y, y], color=colour, linestyle="-")
        ax.plot(lead.mean, y, marker=marker, color=colour, markerfacecolor=colour if filled else "white", markersize=8)
    ax.axvline(0, color=NEUTRAL, linewidth=1)
    ax.set_yticks(range(len(found)), list(found))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.text(0.01, -0.62, "KTO ahead", color=UP, va="center")
    ax.text(-0.01, -0.62, "DPO ahead", color=DOWN, va="center", ha="right")
    ax.set(xlabel="KTO minus DPO: thumbs-up rate on new wordings")
    ax.set_title("KTO: often far ahead, sometimes collapsed", pad=22)
    publish(
        fig, "08_leads",
        "The difference KTO minus DPO in the thumbs-up rate on new wordings for ten kinds of feedback, with 95% "
        "intervals and a dot for each seed; filled marks are intervals that do not touch zero. KTO is clearly ahead "
        "with clean pairs after 400 steps, with few thumbs-down and with 10% flipped; DPO with few thumbs-up and with "
        "45% flipped; the other intervals touch zero, most of them because of one or two seeds far on the left.",
    )  # fmt: skip


def by_seed(panels: Mapping[str, Mapping[str, Sequence[float]]], before: float) -> None:
    """One thin line for each seed, from DPO's thumbs-up rate to KTO's.

    Args:
        panels: title -> {"dpo": rates, "kto": rates}, in the order of the seeds.
        before: the rate of the model before training, drawn as a dotted line.

    One sees the seed that makes an interval wide.
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(3.8 * len(panels), 3.8), sharey=True)
    for ax, (title, rates) in zip(axes, panels.items(), strict=True):
        for ends in zip(rates["dpo"], rates["kto"], strict=True):
            ax.plot([0, 1], ends, color=NEUTRAL, linestyle="-", linewidth=1)
            ax.plot(0, ends[0], color=DOWN, marker="s", linestyle="none")
            ax.plot(1, ends[1], color=UP, marker="o", linestyle="none")
        ax.axhline(before, color=NEUTRAL, linestyle=":")
        ax.set(title=title, xlim=(-0.4, 1.4), ylim=(-0.03, 1.02))
        ax.set_xticks([0, 1], ["DPO", "KTO"])
    axes[0].set(ylabel="thumbs-up rate, new wordings (exact)")
    axes[0].text(0.5, before + 0.02, "before", color=NEUTRAL, ha="center", fontsize=9)
    publish(
        fig, "08_clean_pairs",
        "Two panels, clean pairs with 100 and with 400 steps. Each seed is a thin line from DPO's thumbs-up rate on "
        "new wordings, a square, to KTO's, a circle; a dotted line is the model before training. With 100 steps seven "
        "lines rise steeply to about 0.9 and one falls to zero; with 400 steps all five rise.",
    )  # fmt: skip
