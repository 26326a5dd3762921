"""The targets, and the table that the command prints."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from kto_lab.bench.growth import exponent
from kto_lab.bench.measure import OPTIMISER_BYTES, floor_of, is_void, loss_gap, memory_ratio, over_floor, ratio
from kto_lab.bench.workloads import CONTENDERS, WARM_UP


@dataclass(frozen=True)
class Target:
    """A promise and what the run says about it; `found` must be at least (or at most) `limit`."""

    text: str
    found: float
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.found >= self.limit if self.at_least else self.found <= self.limit


def targets_of(results: Mapping) -> list[Target]:
    """The promises that these results can say something about; a void row keeps none."""
    targets = []
    for run in results["runs"]:
        name = run["workload"]["name"]
        if run["device"] != "cpu" or run["dtype"] != "float32":
            continue
        void = {contender: is_void(run, contender) for contender in run["contenders"]}

        def promise(text: str, found: float, limit: float, at_least: bool, *of: str, void=void) -> None:
            broken = -math.inf if at_least else math.inf
            targets.append(Target(text, broken if any(void[one] for one in of) else found, limit, at_least))

        if name == "classic":
            promise("classic: TRL / train_kto, seconds", ratio(run, "trl", "ours")[0], 8.0, True, "ours", "trl")
            promise(
                "classic: TRL with reference beforehand / train_kto, seconds",
                ratio(run, "trl_beforehand", "ours")[0], 5.0, True, "ours", "trl_beforehand",
            )  # fmt: skip
            promise("classic: train_kto / floor, seconds", over_floor(run), 1.5, False, "ours")
        if name in ("classic", "long"):
            limit = 0.6 if name == "classic" else 0.5
            for above, words in ((False, "peak memory"), (True, "peak memory above the imports")):
                found = memory_ratio(run, above)
                promise(f"{name}: train_kto / TRL, {words}", found, limit, False, "ours", "trl")
    return targets


def _run_lines(run: Mapping) -> list[str]:
    """One workload: its head line, a line for each contender, the floor."""
    workload, facts = run["workload"], run["facts"]
    products, traffic = floor_of(run)
    lines = [
        "",
        f"{workload['name']}: batch {workload['batch_size']}, {facts['parameters'] / 1e6:.1f} M parameters, "
        f"{run['dtype']}, on {run['device']}",
        f"{'':32s}{'seconds per step':>30s}{'x ours':>8s}{'tokens/s':>10s}{'memory, MB':>16s}{'once, s':>9s}"
        f"{'loss gap':>10s}",
    ]
    for name, row in run["contenders"].items():
        seconds = statistics.median(row["seconds"])
        span = f"{seconds:.4f} ({min(row['seconds']):.4f} to {max(row['seconds']):.4f})"
        above = (row["peak_bytes"] - row["import_bytes"]) / 1e6
        if is_void(run, name):
            lines.append(f"{CONTENDERS[name]:32s}{'void: losses differ by':>30s} {loss_gap(run, name):.1e}")
            continue
        lines.append(
            f"{CONTENDERS[name]:32s}{span:>30s}{ratio(run, name, 'ours')[0]:8.2f}"
            f"{facts['completion_tokens'] / seconds:10.0f}{row['peak_bytes'] / 1e6:9.0f} ({above:4.0f})"
            f"{row['seconds_beforehand']:9.2f}{loss_gap(run, name):10.0e}"
        )
    lines.append(
        f"floor: {products + traffic:.4f} s = {facts['products'] / 1e9:.2f} G operations at "
        f"{statistics.median(run['product_rates']) / 1e9:.0f} G/s: {products:.4f} s, and {OPTIMISER_BYTES} bytes a "
        f"parameter at {statistics.median(run['copy_rates']) / 1e9:.1f} GB/s: {traffic:.4f} s; "
        f"train_kto takes {over_floor(run):.2f} times as long"
    )
    return lines


def _growth_lines(growth_of: Mapping) -> list[str]:
    lines = ["", "cost of our scoring pass, exponent k of a + c * n^k (1 is linear):"]
    lines += [
        f"  over {name}: {exponent(growth_of['sizes'], growth_of[key]):.2f}"
        for key, name in (("rows", "rows"), ("completion", "completion tokens"))
    ]
    first, last = growth_of["prompts"][0], growth_of["prompts"][-1]
    lines.append(
        f"  head and softmax, prompt of {last} over prompt of {first} tokens: "
        f"ours {growth_of['head'][-1] / growth_of['head'][0]:.2f}, "
        f"plain {growth_of['plain_head'][-1] / growth_of['plain_head'][0]:.2f} times"
    )
    return lines


def table(results: Mapping) -> str:
    """What `python course.py bench` prints."""
    machine = results["machine"]
    lines = [
        f"{machine['cores']} cores of {machine['processor']}, {results['threads']} threads, torch {machine['torch']}, "
        f"TRL {machine['trl']}",
        "seconds per step: median (least to most) of "
        f"{len(results['runs'][0]['contenders']['ours']['seconds'])} steps after {WARM_UP}; memory: peak of a fresh "
        "process (above its imports)",
    ]
    for run in results["runs"]:
        lines += _run_lines(run)
    lines += _growth_lines(results["growth"])
    targets = targets_of(results)
    if targets:
        lines += ["", "targets:"]
        lines += [
            f"  {'met   ' if target.met else 'MISSED'} {target.text}: {target.found:.2f} "
            f"(wanted: at {'least' if target.at_least else 'most'} {target.limit})"
            for target in targets
        ]
    for name, parts in results.get("profiles", {}).items():
        lines += ["", f"{name}: seconds of the parts of our step, and of the alternatives"]
        lines += [f"  {seconds:9.5f}  {part}" for part, seconds in parts.items()]
    return "\n".join(lines)
