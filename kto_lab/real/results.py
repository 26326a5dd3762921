"""The committed runs of three seeds: collected from their folders, read by lessons 12 and 12c. See `protocol`."""

import json
import math
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

from kto_lab.plain import write_jsonl
from kto_lab.real import protocol

RESULTS_FILE = Path(__file__).parents[1] / "results" / "real.jsonl"
COMMAND = "python course.py real --all"
SHOWN = 1  # replies to each held-out question that are kept as text

Runs = dict[tuple[str, int], dict]  # (method or "before", seed) -> measures


def collect(folder: Path, file: Path = RESULTS_FILE) -> None:
    """Gathers the measures of all seeds and methods into one file, without token ids and with a part of the replies.

    Raises:
        FileNotFoundError: a run is missing; the message names it.
    """
    lines = [{"command": COMMAND, "seeds": protocol.SEEDS, "methods": list(protocol.METHODS)}]
    for seed in protocol.SEEDS:
        for name in ("before", *protocol.METHODS):
            path = folder / f"seed_{seed}" / f"{name}.json"
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing; `{COMMAND}` goes on where it was stopped")
            run = json.loads(path.read_text(encoding="utf-8"))
            texts = [[reply["text"], reply["ended"]] for reply in run["replies"][:: protocol.CHECKED]]
            lines.append({"method": name, "seed": seed} | run | {"replies": texts})
            del lines[-1]["source"]
    write_jsonl(file, map(_rounded, lines))


def _rounded(value: object) -> object:
    """Six significant digits: more would only be the machine's."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list | tuple) else value


def load(file: Path = RESULTS_FILE) -> Runs:
    """All committed runs."""
    _, *lines = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    return {(line["method"], line["seed"]): line for line in lines}


def reading(run: Mapping, measure: str) -> float:
    """One number of a run: a share of the held-out replies by name, "words", "kl", "k3", "facts" or "neutral".

    The chat model itself is at distance 0.
    """
    if measure in ("kl", "k3"):
        return run["kl"]["k1" if measure == "kl" else "k3"][0] if "kl" in run else 0.0
    return (run["held_out"].get(measure) or run[measure])[0]


def over_seeds(runs: Runs, method: str, measure: str) -> list[float]:
    """The number of each seed, in the order of the seeds."""
    return [reading(runs[method, seed], measure) for seed in sorted({seed for _, seed in runs})]


def told(values: list[float], digits: int = 2) -> str:
    """Mean and the range over the seeds: three numbers bear no finer interval."""
    return f"{statistics.mean(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def _all(runs: Runs, measure: str, a: str, b: str, sign: float) -> str:
    gaps = [sign * (x - y) for x, y in zip(over_seeds(runs, a, measure), over_seeds(runs, b, measure), strict=True)]
    if all(gap > 0 for gap in gaps):
        return "so in every seed"
    return "the other way in every seed" if all(gap < 0 for gap in gaps) else "seeds disagree"


TESTS: dict[str, Callable[[Runs], str]] = {
    "thumbs": lambda runs: _all(runs, "thumbs_up", "kto", "before", +1),
    "baseline": lambda runs: _all(runs, "thumbs_up", "kto", "sft", +1),
    "hacked": lambda runs: _all(runs, "right", "kto_brief", "kto", -1),
    "moved": lambda runs: _all(runs, "kl", "kto", "sft", +1),
    "cost": lambda runs: _all(runs, "facts", "kto", "before", -1),
    "rope": lambda runs: _all(runs, "kl", "kto_sft", "kto", -1),
}


def verdicts(runs: Runs) -> dict[str, str]:
    """What became of each expectation, from the signs of the three paired differences."""
    return {name: test(runs) for name, test in TESTS.items()}


def table(runs: Runs, measures: tuple[str, ...] = ("thumbs_up", "right", "brief", "kl", "facts")) -> str:
    """A line for the chat model and each method: mean and range over the seeds."""
    titles = {"before": "the chat model itself"} | {name: method.title for name, method in protocol.METHODS.items()}
    digits = {"kl": 1, "k3": 1}
    lines = [f"{'':29}" + "".join(f"{measure:>18}" for measure in measures)]
    for name, title in titles.items():
        cells = (told(over_seeds(runs, name, measure), digits.get(measure, 2)) for measure in measures)
        lines.append(f"{title:29}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def is_finite(runs: Runs) -> bool:
    """Whether every logged loss is a number: no run was lost."""
    return all(math.isfinite(row["loss"]) for run in runs.values() for row in run.get("history", []))
