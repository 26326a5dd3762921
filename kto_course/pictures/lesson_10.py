"""The pictures of lesson 10: the log of a run as four small panels."""

import math
from collections.abc import Mapping

import matplotlib.pyplot as plt

from kto_course.pictures import publish
from kto_lab import museum
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP

PANELS = {
    "loss": [("loss", ACCENT, "-")],
    "kl (nats)": [("kl", ACCENT, "-")],
    "reward: up solid, down dashed": [("reward_desirable", UP, "-"), ("reward_undesirable", DOWN, "--")],
    "gradient norm (log scale)": [("grad_norm", ACCENT, "-")],
}


def draw(exhibit: int | Mapping):
    """Loss, kl, both rewards and gradient norm; the healthy run behind them in grey.

    Args:
        exhibit: a number, or a record of `museum.train`.

    Returns:
        A matplotlib Figure, small, since a lesson shows many of them. The dotted line is `reward_ceiling`; a step
        without a number is a gap.
    """
    run = museum.record(exhibit)
    with plt.rc_context({"font.size": 8, "axes.titlesize": 8.5, "axes.titlepad": 4}):
        fig, axes = plt.subplots(1, 4, figsize=(9.6, 2.3), layout="constrained")
        for ax, (title, curves) in zip(axes, PANELS.items(), strict=True):
            for column, colour, line in curves:
                for record, look in (
                    (museum.healthy_twin(run), {"color": NEUTRAL, "alpha": 0.45, "linewidth": 1.0, "linestyle": "-"}),
                    (run, {"color": colour, "linestyle": line, "linewidth": 1.4}),
                ):
                    numbers = [math.nan if y is None else y for y in record[column]]
                    ax.plot(range(1, len(numbers) + 1), numbers, **look)
            ax.set_title(title)
            ax.set_xlabel("step")
        axes[2].axhline(run["reward_ceiling"], color=NEUTRAL, linestyle=":", linewidth=1.2)
        axes[3].set_yscale("log")  # leaves out what is exactly 0
        if max(run["grad_norm"]) == 0:
            box = {"facecolor": "white", "edgecolor": "none"}
            where = {"ha": "center", "transform": axes[3].transAxes, "bbox": box}
            axes[3].text(0.5, 0.1, "exactly 0 at every step", color=ACCENT, **where)
        name = f"Exhibit {exhibit}" if isinstance(exhibit, int) else run["name"]
        fig.suptitle("The healthy run" if exhibit == 0 else f"{name} (grey: the healthy run)", fontsize=9.5)
    return fig


def alt_text(exhibit: int | Mapping) -> str:
    """What `draw` shows, in words and numbers."""
    run = museum.record(exhibit)

    def from_to(column: str) -> str:
        known = [y for y in run[column] if y is not None]
        gaps = " with gaps" if len(known) < len(run[column]) else ""
        return f"from {known[0]:.3g} to {known[-1]:.3g}, between {min(known):.3g} and {max(known):.3g}{gaps}"

    above = [step for step, y in enumerate(run["reward_desirable"], 1) if y is not None and y > run["reward_ceiling"]]
    ceiling = f"above its ceiling {run['reward_ceiling']:.2f} at {len(above)} steps" if above else "below its ceiling"
    name = f"exhibit {exhibit}" if isinstance(exhibit, int) else "a run without a number"
    return (
        f"Four panels over {len(run['loss'])} steps of {name}. Loss {from_to('loss')}; kl {from_to('kl')} nats; "
        f"reward of thumbs up {from_to('reward_desirable')}, {ceiling}; "
        f"reward of thumbs down {from_to('reward_undesirable')}; gradient norm {from_to('grad_norm')}."
    )


def hang(exhibit: int | Mapping, name: str) -> None:
    """Publishes `draw` of an exhibit under a name, at a resolution that keeps a notebook of many figures small."""
    with plt.rc_context({"savefig.dpi": 90, "figure.dpi": 90}):
        publish(draw(exhibit), name, alt_text(exhibit))


def exhibit(number: int) -> None:
    """The log of an exhibit as curves, from the stored runs: 0 is the healthy run.

    One sees four panels over 200 steps: loss, kl in nats, both rewards with the ceiling of thumbs up, gradient norm.
    """
    hang(number, f"10_exhibit_{number:02d}")


def unlabelled(run: Mapping) -> None:
    """The same panels for a record without a name (exercise 10.2).

    Args:
        run: a record of `museum.train`.
    """
    hang(run, "10_unlabelled")
