"""The figures bench_*.png, drawn from the results."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from kto_lab.bench.growth import exponent
from kto_lab.bench.measure import floor_of, is_void, loss_gap
from kto_lab.bench.workloads import CONTENDERS
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, save_figure, use_course_style

COLOURS = dict(zip(CONTENDERS, (ACCENT, NEUTRAL, DOWN, UP), strict=True))


def draw_figures(results: Mapping) -> list[Path]:
    """Seconds per step, memory, loss curves and growth, as bench_*.png with alt texts."""
    use_course_style()
    drawn = [_step(results["runs"]), _memory(results["runs"]), _losses(results["runs"]), _growth(results["growth"])]
    paths = []
    for (fig, alt), name in zip(drawn, ("step", "memory", "losses", "growth"), strict=True):
        paths.append(save_figure(fig, f"bench_{name}", alt))
        plt.close(fig)
    return paths


def _panels(runs: Sequence[Mapping]):
    fig, axes = plt.subplots(1, len(runs), figsize=(max(7.2, 3.6 * len(runs)), 3.8), squeeze=False)
    for ax, run in zip(axes[0], runs, strict=True):
        ax.set_title(f"{run['workload']['name']}\n{run['dtype']}, {run['device']}", fontsize=11)
    return fig, axes[0]


def _bars(ax, run: Mapping, values: Mapping[str, float], form: str) -> None:
    for name, value in values.items():
        ax.bar(name.replace("_", "\n"), value, color=COLOURS[name])
        text = "void" if is_void(run, name) else form.format(value)
        ax.annotate(text, (name.replace("_", "\n"), value), ha="center", va="bottom", fontsize=9)
    ax.tick_params(axis="x", labelsize=9)
    ax.grid(axis="x", visible=False)
    ax.margins(y=0.15)


def _step(runs: Sequence[Mapping]):
    fig, axes = _panels(runs)
    spoken = []
    for ax, run in zip(axes, runs, strict=True):
        medians = {name: statistics.median(row["seconds"]) for name, row in run["contenders"].items()}
        _bars(ax, run, medians, "{:.3f}")
        ax.axhline(sum(floor_of(run)), color="black", linestyle=":", linewidth=1.5)
        listed = ", ".join(f"{CONTENDERS[name]} {value:.3f}" for name, value in medians.items())
        spoken.append(f"{run['workload']['name']}: {listed}, floor {sum(floor_of(run)):.3f}")
    axes[0].set_ylabel("seconds per step\n(dotted: floor)")
    return fig, "Bars of the median seconds per step. " + "; ".join(spoken) + "."


def _memory(runs: Sequence[Mapping]):
    fig, axes = _panels(runs)
    spoken = []
    for ax, run in zip(axes, runs, strict=True):
        peaks = {name: row["peak_bytes"] / 1e6 for name, row in run["contenders"].items()}
        _bars(ax, run, peaks, "{:.0f}")
        for name, row in run["contenders"].items():
            ax.bar(name.replace("_", "\n"), row["import_bytes"] / 1e6, color="white", alpha=0.55)
        listed = ", ".join(f"{CONTENDERS[name]} {value:.0f}" for name, value in peaks.items())
        spoken.append(f"{run['workload']['name']}: {listed}")
    axes[0].set_ylabel("peak memory, MB\n(pale: the imports)")
    alt = "Bars of the peak memory in MB of a fresh process, the part of the imports pale. " + "; ".join(spoken) + "."
    return fig, alt


def _losses(runs: Sequence[Mapping]):
    fig, axes = _panels(runs)
    for ax, run in zip(axes, runs, strict=True):
        for (name, row), style in zip(run["contenders"].items(), ("-", "--", "-.", ":"), strict=False):
            steps = range(1, len(row["losses"]) + 1)
            ax.plot(steps, row["losses"], linestyle=style, color=COLOURS[name], label=CONTENDERS[name])
        ax.set_xlabel("step")
    axes[0].set_ylabel("loss")
    axes[0].legend(fontsize=8)
    gaps = ", ".join(
        f"{run['workload']['name']} {max(loss_gap(run, name) for name in run['contenders']):.0e}" for run in runs
    )
    return fig, f"Loss curves of all contenders lie on each other in every panel; largest difference: {gaps}."


def _growth(growth_of: Mapping):
    fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.8))
    exponents = {}
    for key, name, colour, marker in (("rows", "rows", UP, "o"), ("completion", "completion tokens", ACCENT, "s")):
        exponents[name] = exponent(growth_of["sizes"], growth_of[key])
        label = f"{name}: exponent {exponents[name]:.2f}"
        axes[0].plot(growth_of["sizes"], growth_of[key], marker=marker, color=colour, label=label)
    axes[0].set(title="A scoring pass, both ways", xlabel="rows, or completion tokens a row", ylabel="seconds")
    axes[1].plot(growth_of["prompts"], growth_of["plain_head"], "o--", color=NEUTRAL, label="all logits")
    axes[1].plot(growth_of["prompts"], growth_of["head"], "o-", color=ACCENT, label="completion's logits only")
    axes[1].set(title="The head's share", xlabel="prompt tokens a row", ylabel="seconds")
    for ax in axes:
        ax.set_ylim(bottom=0)
        ax.legend(fontsize=9)
    listed = " and ".join(f"{value:.2f} for {name}" for name, value in exponents.items())
    return fig, (
        f"Left: seconds of a scoring pass grow in a line, exponent {listed}. Right: the head's seconds over the "
        f"prompt's length, from {growth_of['head'][0]:.3f} to {growth_of['head'][-1]:.3f} with the completion's logits "
        f"only, from {growth_of['plain_head'][0]:.3f} to {growth_of['plain_head'][-1]:.3f} with all."
    )
