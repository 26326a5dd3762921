"""What the experiments say: paired differences with intervals against hypotheses written before. Lessons 07 to 09.

A finding is a sentence and its numbers from one object, so that prose cannot drift away from the results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

from kto_lab.experiments.protocol import EXPERIMENTS, experiment
from kto_lab.experiments.results import select

CONFIDENCE = 0.95
RESAMPLES = 9_999

UP = "new wording thumbs_up"
# A term of a contrast: factor, condition, method, measure. The method "reference" is the model before training.
Term = tuple[float, str, str, str]


def versus(condition: str, one: str, other: str, measure: str = UP) -> list[Term]:
    """The contrast "one minus other" on one condition."""
    return [(1.0, condition, one, measure), (-1.0, condition, other, measure)]


# Each hypothesis says that a sum of measures is above zero.
CONTRASTS: dict[str, list[Term]] = {
    "clean pairs": versus("clean", "dpo", "kto"),
    "more steps": versus("clean", "dpo", "kto"),
    "unpaired thumbs": versus("quarter", "kto", "dpo") + versus("all", "dpo", "kto"),
    "fewer thumbs-up": versus("10%", "kto", "dpo"),
    "fewer thumbs-down": versus("10%", "kto", "dpo"),
    "noise": versus("30%", "kto", "dpo") + versus("0%", "dpo", "kto"),
    # "polite and right" minus "rude and right", which is "right" less "polite and right"
    "contradiction": [(2.0, "60%", "dpo", UP), (-1.0, "60%", "dpo", "new wording right")],
    "skip SFT": versus("40 steps", "kto", "dpo"),
    "knobs": [(1.0, "rate 0.001 ratio 1.5", "kto", UP), (-1.0, "rate 0.001 ratio 0.25", "kto", UP)],
    "reference point": versus("all", "kto exact", "kto zero"),
    "length": versus("all thumbs", "dpo", "kto", "length_sampled"),
    "only thumbs-down": versus("down", "kto + sft", "kto", "trained listed"),
    "only thumbs-up": versus("up", "kto", "reference"),
    "frontier": versus("path", "dpo", "kto", "trained excess_kl"),
}


@dataclass(frozen=True)
class Difference:
    """A mean over seeds with its interval; `values` has one entry for each seed."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """Of the hypothesis that the difference is above zero."""
        if self.low > 0.0:
            return "supported"
        return "refuted here" if self.high < 0.0 else "inconclusive"

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def interval(values: Sequence[float]) -> Difference:
    """Mean and 95% bootstrap interval (percentiles, `scipy.stats.bootstrap`, fixed random state).

    With 5 to 8 values such an interval is too narrow: lesson 08 computes how often it covers.

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    numbers = np.asarray(values, dtype=float)
    if numbers.size < 2:
        raise ValueError(f"{numbers.size} seed(s); an interval needs at least 2, so run more seeds")
    if not np.isfinite(numbers).all():
        raise ValueError(f"values {numbers.tolist()} are not all finite")
    found = bootstrap(
        (numbers,), np.mean, confidence_level=CONFIDENCE, n_resamples=RESAMPLES, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return Difference(float(numbers.mean()), float(found.low), float(found.high), tuple(numbers.tolist()))


def by_seed(results: Mapping, name: str, condition: str, method: str, measure: str) -> dict[int, float]:
    """One measure of one condition and method, seed -> value.

    Raises:
        ValueError: an unknown experiment, no such run, or a measure that runs do not have.
    """
    runs = select(results, name, condition=condition, method=method)
    if measure not in runs[0]:
        known = [key for key, value in runs[0].items() if isinstance(value, float)]
        raise ValueError(f"measure is {measure!r}; runs have {', '.join(known)}")
    return {run["seed"]: run[measure] for run in runs}


def difference(results: Mapping, name: str, terms: Sequence[Term]) -> Difference:
    """The sum of factor x measure over the terms, paired by seed.

    Raises:
        ValueError: see `by_seed` and `interval`; terms whose runs have different seeds.
    """
    size = "course" if EXPERIMENTS[name].conditions[terms[0][1]].get("small") is False else "small"
    sums = dict.fromkeys(EXPERIMENTS[name].seeds, 0.0)
    for factor, condition, method, measure in terms:
        if method == "reference":
            values = dict.fromkeys(sums, results["reference"][size][measure])
        else:
            values = by_seed(results, name, condition, method, measure)
        if values.keys() != sums.keys():
            raise ValueError(
                f"{name}, {condition}, {method} has seeds {sorted(values)}, expected {sorted(sums)}; a comparison is "
                "paired by seed"
            )
        for seed, value in values.items():
            sums[seed] += factor * value
    return interval(list(sums.values()))


def means(results: Mapping, name: str, method: str, measure: str = UP) -> list[Difference]:
    """Mean and interval of a measure on each condition of an experiment, in order: what a figure draws."""
    return [
        interval(list(by_seed(results, name, condition, method, measure).values()))
        for condition in experiment(name).conditions
    ]


@dataclass(frozen=True)
class Finding:
    """A hypothesis and what became of it."""

    name: str
    title: str
    hypothesis: str
    difference: Difference
    verdict: str

    @property
    def sentence(self) -> str:
        return f"{self.hypothesis} {self.verdict.capitalize()}: {self.difference}, {len(self.difference.values)} seeds."


def finding(results: Mapping, name: str) -> Finding:
    """The verdict of one experiment: supported, refuted here, or inconclusive.

    Raises:
        ValueError: an unknown experiment, or one without a contrast of its own ("full size": `spot_checks`).
    """
    chosen = experiment(name)
    if name not in CONTRASTS:
        raise ValueError(f"experiment {name!r} has no single contrast; see spot_checks")
    found = difference(results, name, CONTRASTS[name])
    return Finding(name, chosen.title, chosen.hypothesis, found, found.verdict)


def findings(results: Mapping) -> list[Finding]:
    """Every experiment's verdict, in the order of the protocol."""
    return [finding(results, name) for name in EXPERIMENTS if name in CONTRASTS]


def spot_checks(results: Mapping) -> list[tuple[str, Difference, Difference]]:
    """KTO minus DPO on new wordings: (experiment, small model, the course's model) for each case run at full size."""
    rows = []
    for name, conditions in EXPERIMENTS["full size"].conditions.items():
        varied = {key: value for key, value in conditions.items() if key != "small"}
        small = next(label for label, change in EXPERIMENTS[name].conditions.items() if dict(change) == varied)
        rows.append(
            (
                name,
                difference(results, name, versus(small, "kto", "dpo")),
                difference(results, "full size", versus(name, "kto", "dpo")),
            )
        )
    return rows
