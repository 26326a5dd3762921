"""What the comparison says: paired differences, their intervals, Holm over the hypotheses, lost runs. Lesson 08.

A finding is a sentence and its numbers from one object, so that prose cannot drift away from the results.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, permutation_test, quantile_test

from kto_lab.comparison.protocol import CONDITIONS, EACH, HYPOTHESES, LEVEL, MARGIN, MEASURE, ONCE, methods_of
from kto_lab.comparison.results import Results

CONFIDENCE = 0.95
RESAMPLES = 99_999
FEWEST_SEEDS = 6  # below six pairs no sign-flip test can reach 0.05: its smallest value is 2 / 2^n


@dataclass(frozen=True)
class Spread:
    """One measure of one cell over its seeds; `low` and `high` bound the median."""

    mean: float
    median: float
    low: float
    high: float
    values: tuple[float, ...]


def spread(values: Sequence[float]) -> Spread:
    """Mean, median and the 95% interval of the median by ranks (`scipy.stats.quantile_test`).

    The interval asks nothing of the shape of the data: a method that ends near 0.9 or near 0 breaks any interval that
    leans on a normal mean. It covers at least as often as it says (lesson 08b counts).

    Raises:
        ValueError: fewer than six values, for which there is no such interval, or one that is not finite.
    """
    numbers = np.asarray(values, dtype=float)
    if numbers.size < FEWEST_SEEDS:
        raise ValueError(f"{numbers.size} seed(s); an interval of the median needs at least {FEWEST_SEEDS}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"values {numbers.tolist()} are not all finite")
    found = quantile_test(numbers, q=float(np.median(numbers)), p=0.5).confidence_interval(CONFIDENCE)
    return Spread(float(numbers.mean()), float(np.median(numbers)), float(found.low), float(found.high),
                  tuple(numbers.tolist()))  # fmt: skip


def sign_flip_p(values: Sequence[float]) -> float:
    """Two-sided p-value of "the differences are as often above as below zero", by flipping signs at random.

    Exact where 2^n flips can be listed, else 99,999 of them (`scipy.stats.permutation_test`).
    """
    numbers = np.asarray(values, dtype=float)
    if not numbers.any():
        return 1.0
    found = permutation_test((numbers,), np.mean, permutation_type="samples", n_resamples=RESAMPLES,
                             rng=np.random.default_rng(0))  # fmt: skip
    return float(found.pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjustment: with all of them below LEVEL called, the chance of any false call stays below LEVEL."""
    adjusted, highest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def ending(found: Spread, p: float) -> str:
    """Of the hypothesis that the differences lie above zero.

    Returns:
        "no difference worth naming" where the interval lies within +-MARGIN; else "open" unless p is below LEVEL; else
        "supported" or "refuted", by the sign of the mean.
    """
    if found.low >= -MARGIN and found.high <= MARGIN:
        return "no difference worth naming"
    if p >= LEVEL:
        return "open"
    return "supported" if found.mean > 0.0 else "refuted"


def values_of(
    results: Results, condition: str, method: str, way: str = ONCE, small: bool = True, measure: str = MEASURE
) -> list[float]:
    """One measure of one cell, in the order of the seeds.

    Raises:
        ValueError: as `Results.cell`, or a measure that its runs do not have.
    """
    runs = results.cell(condition, method, way, small)
    if measure not in runs[0]:
        known = [key for key, value in runs[0].items() if isinstance(value, float)]
        raise ValueError(f"measure is {measure!r}; runs have {', '.join(known)}")
    return [run[measure] for run in runs]


def is_lost(run: Mapping, reference: Mapping[str, float]) -> bool:
    """A run is lost when it ends below the model it started from: not training would have been better."""
    return run[MEASURE] < reference[MEASURE]


def lost(
    results: Results, condition: str, method: str, way: str = ONCE, small: bool = True
) -> tuple[int, int, float, float]:
    """(lost runs, all runs, low, high): the last two bound the share, by Wilson's 95% interval."""
    runs = results.cell(condition, method, way, small)
    count = sum(is_lost(run, results.reference[small]) for run in runs)
    share = binomtest(count, len(runs)).proportion_ci(CONFIDENCE, method="wilson")
    return count, len(runs), float(share.low), float(share.high)


def core_table(
    results: Results, way: str = ONCE, small: bool = True, measure: str = MEASURE
) -> dict[str, dict[str, Spread]]:
    """condition -> method -> `Spread` of a measure."""
    return {
        condition: {
            method: spread(values_of(results, condition, method, way, small, measure))
            for method in methods_of(condition, small)
        }
        for condition in CONDITIONS
    }


@dataclass(frozen=True)
class Finding:
    """A hypothesis and what became of it. `p` is adjusted for all the hypotheses together."""

    name: str
    hypothesis: str
    difference: Spread
    p: float
    ending: str

    @property
    def sentence(self) -> str:
        found = self.difference
        return (
            f"{self.hypothesis} {self.ending.capitalize()}: {found.mean:+.3f}, median {found.median:+.3f} "
            f"[{found.low:+.3f}, {found.high:+.3f}], p {self.p:.2g}, {len(found.values)} seeds."
        )


def difference(
    results: Results, condition: str, one: str, other: str, way: str = ONCE, small: bool = True, measure: str = MEASURE
) -> Spread:
    """One method minus another, paired by seed; way "both" is the first method tuned for the condition minus the
    other tuned once."""
    ways = (EACH, ONCE) if way == "both" else (way, way)
    first, second = (
        values_of(results, condition, method, w, small, measure) for method, w in zip((one, other), ways, strict=True)
    )
    return spread([a - b for a, b in zip(first, second, strict=True)])


def findings(results: Results) -> list[Finding]:
    """Every hypothesis with its ending, in the order of the protocol."""
    found = {
        name: difference(results, condition, one, other, way, small)
        for name, (_, way, condition, one, other, small) in HYPOTHESES.items()
    }
    adjusted = holm({name: sign_flip_p(spread_.values) for name, spread_ in found.items()})
    return [
        Finding(name, HYPOTHESES[name][0], found[name], adjusted[name], ending(found[name], adjusted[name]))
        for name in HYPOTHESES
    ]


def best_methods(results: Results, condition: str, way: str = ONCE, small: bool = True) -> tuple[str, ...]:
    """The method with the highest mean, then all that are not shown to be below it (sign-flip test, Holm, LEVEL)."""
    table = core_table(results, way, small)[condition]
    top = max(table, key=lambda method: table[method].mean)
    p_values = {
        method: sign_flip_p([a - b for a, b in zip(table[top].values, table[method].values, strict=True)])
        for method in table if method != top
    }  # fmt: skip
    adjusted = holm(p_values)
    beside = [
        method for method in adjusted if adjusted[method] >= LEVEL or table[top].mean - table[method].mean < MARGIN
    ]
    return (top, *sorted(beside, key=lambda method: -table[method].mean))


def mean_of(results: Results, condition: str, method: str, measure: str, way: str = ONCE, small: bool = True) -> float:
    return statistics.mean(values_of(results, condition, method, way, small, measure))
