"""The pictures of lesson 08."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from kto_course.pictures import publish
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, label_line


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
    for ax in axes.flat[len(table) - 2 : len(table)]:  # the lowest of each column
        ax.set_xlabel("thumbs-up rate, new wordings (exact)")
        ax.tick_params(labelbottom=True)
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
