"""The pictures of lesson 07."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from kto_course.pictures import publish
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, label_line

WINDOW = 20  # steps of the running mean


def logs(history: Sequence[Mapping[str, float]]) -> None:
    """What to watch in a run, over its steps: rewards, loss, saturated share, gradient norm.

    A curve of rewards has a gap where a batch held no such row.

    Args:
        history: of `train_kto`, at least 20 rows.
    """
    steps = [row["step"] for row in history]
    up, down, loss, saturated, norm = (
        [row[name] for row in history]
        for name in ("reward_desirable", "reward_undesirable", "loss", "saturated", "grad_norm")
    )
    fig, ((ax_reward, ax_loss), (ax_share, ax_norm)) = plt.subplots(2, 2, figsize=(9.6, 6.0), sharex=True)
    ax_reward.plot(steps, up, color=UP, ls="-")
    ax_reward.plot(steps, down, color=DOWN, ls="--")
    label_line(ax_reward, 0.55 * steps[-1], 0.9, "thumbs-up rows", color=UP)
    label_line(ax_reward, 0.35 * steps[-1], -2.4, "thumbs-down rows", color=DOWN)
    ax_reward.set(title="The downs do the moving", ylabel="reward β r", ylim=(-8.5, 1.8))
    ax_loss.plot(steps, loss, color=NEUTRAL, lw=0.8, alpha=0.5)
    mean = [sum(loss[i - WINDOW : i]) / WINDOW for i in range(WINDOW, len(loss) + 1)]
    ax_loss.plot(steps[WINDOW - 1 :], mean, color=NEUTRAL, ls="-", lw=2.5)
    label_line(ax_loss, 0.4 * steps[-1], 0.95, f"thick: mean of {WINDOW} steps", color=NEUTRAL)
    ax_loss.set(title="The loss jitters and stays above zero", ylabel="loss", ylim=(0, None))
    ax_share.plot(steps, saturated, color=ACCENT, ls="-")
    ax_share.set(title="About half of the rows no longer push", ylabel="saturated share", xlabel="step", ylim=(0, 1))
    ax_norm.semilogy(steps, norm, color=NEUTRAL, ls="-")
    ax_norm.set(title="A scare near step 10", ylabel="gradient norm", xlabel="step")
    publish(
        fig,
        "07_logs",
        "Four panels over the training steps. The reward of thumbs-up rows dips near step 10 and then stays about "
        "zero, while that of thumbs-down rows falls to about minus six. The loss jitters, and its mean over 20 steps "
        "falls at first and then stays between 0.4 and 0.5. The saturated share rises to about a half. The gradient "
        "norm has a peak near step 10.",
    )


def before_after(before: Mapping[str, Mapping], after: Mapping[str, Mapping]) -> None:
    """Stacked shares of four kinds of reply, each set of questions before and after training.

    Args:
        before, after: name of the set -> shares in [0, 1]: thumbs_up, polite, listed.
    """
    parts = {
        "polite and right": (UP, "", lambda r: r["thumbs_up"]),
        "polite, wrong": ("#56B4E9", "///", lambda r: r["polite"] - r["thumbs_up"]),
        "rude": (DOWN, "...", lambda r: r["listed"] - r["polite"]),
        "anything else": ("#BBBBBB", "xx", lambda r: 1 - r["listed"]),
    }
    bars = {f"{name}, {when}": r[name] for name in before for when, r in (("before", before), ("after", after))}
    left = [0.0] * len(bars)
    fig, ax = plt.subplots(figsize=(9.0, 4.2))
    for label, (colour, hatch, part) in parts.items():
        sizes = [part(r) for r in bars.values()]
        ax.barh(list(bars), sizes, left=left, color=colour, hatch=hatch, edgecolor="white", label=label)
        left = [a + b for a, b in zip(left, sizes, strict=True)]
    ax.invert_yaxis()
    ax.set(title="New wordings: as good as trained. Untouched facts: manners only", xlim=(0, 1))
    ax.set(xlabel="share of replies (exact)")
    fig.legend(loc="outside lower center", ncols=4)
    publish(
        fig,
        "07_before_after",
        "Stacked bars of exact shares of replies, before and after training. On trained questions and on their new "
        "wordings, polite and right replies grow from a quarter to 95 percent. On untouched facts they grow to a half "
        "only; the rude ones vanish, and one reply in five is text outside the list.",
    )


def collapse(history: Sequence[Mapping[str, float]], collapsed: Sequence[Mapping[str, float]]) -> None:
    """The first 30 steps of a good and of a collapsed run: reward of the thumbs-up rows, gradient norm.

    Args:
        history, collapsed: of `train_kto`, at least 30 rows each.
    """
    fig, (ax_up, ax_norm) = plt.subplots(1, 2, figsize=(9.6, 3.8))
    for run, name, style, colour, y in (
        (history, "balanced weights", "-", UP, 0.9),
        (collapsed, "both weights 1", "--", DOWN, -8.3),
    ):
        steps = [row["step"] for row in run[:30]]
        ax_up.plot(steps, [row["reward_desirable"] for row in run[:30]], color=colour, ls=style)
        ax_norm.semilogy(steps, [row["grad_norm"] for row in run[:30]], color=colour, ls=style)
        ax_up.text(17, y, name, color=colour)
    ax_up.set(title="Thumbs-up rows sink too", xlabel="step", ylabel="reward β r of thumbs-up rows", ylim=(-11.5, 2))
    ax_norm.set(title="The gradient dies", xlabel="step", ylabel="gradient norm")
    publish(
        fig,
        "07_collapse",
        "Two panels over 30 steps, balanced weights against both weights 1. With both weights 1 the reward of "
        "thumbs-up rows falls to about minus ten within 20 steps and the gradient norm drops by more than three orders "
        "of magnitude. With balanced weights the reward dips and comes back, and the gradient norm stays near one.",
    )
