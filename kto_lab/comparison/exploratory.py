"""What else was looked at: no hypotheses, settings from the core table, 20 seeds. Lessons 07b, 08, 08b, 09b."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kto_lab.comparison.protocol import BASE, BETAS, CONDITIONS, EACH, LARGE_SEEDS, ONCE, RATES, TEST_SEEDS, setting_of
from kto_lab.comparison.results import Job, Results

SEEDS = TEST_SEEDS[:20]


@dataclass(frozen=True)
class Experiment:
    """A table of conditions x methods.

    Fields:
        title, question: for the reader.
        conditions: label -> what it changes in `Setting`.
        methods: label -> (method of the core table, what is changed in its `Setting`).
        tuned_on: condition of the core table whose search gave learning rate and beta.
        small, seeds: model, and one run each.
    """

    title: str
    question: str
    conditions: Mapping[str, Mapping]
    methods: Mapping[str, tuple[str, Mapping]]
    tuned_on: str = BASE
    small: bool = True
    seeds: tuple[int, ...] = SEEDS


def plain(*methods: str) -> dict[str, tuple[str, Mapping]]:
    return {method: (method, {}) for method in methods}


BASIC = plain("sft", "dpo", "kto")
KNOB_RATES, KNOB_BETAS, RATIOS = RATES[2:5], BETAS[1:5], (0.25, 0.5, 1.5, 2.0, 4.0)
PATH = (5, 10, 20, 30, 40, 60, 80, 100)
LONG = (25, 50, 75, 100)

EXPERIMENTS: dict[str, Experiment] = {
    "another sweep": Experiment(
        "Another sweep",
        "The search looks at the questions that got thumbs. Would another learning rate have turned the table round?",
        {
            f"{name}, rate {rate:g}": {**CONDITIONS[name], "learning_rate": rate}
            for name in (BASE, "10% flipped") for rate in RATES[3:6]
        },
        plain("sft", "dpo + sft", "kto", "kto + sft"),
    ),
    "why: thumbs-down": Experiment(
        "What thumbs-down are good for",
        "KTO once with all thumbs and once with the thumbs-up alone, beside SFT: do the thumbs-down carry it?",
        {name: CONDITIONS[name] for name in (BASE, "10% flipped", "30% flipped")},
        plain("sft", "kto") | {"kto, ups alone": ("kto", {"only": "up"})},
    ),
    "why: few ups": Experiment(
        "Why KTO is lost with few thumbs-up",
        "Is it the heavy weight of the rare thumbs-up, the reference point, or that nothing holds the model?",
        {"10% of the ups": CONDITIONS["10% of the ups"]},
        plain("kto", "kto weights 1", "kto + sft") | {
            "ratio 1/4": ("kto", {"weight_ratio": 0.25}),
            "ratio 4": ("kto", {"weight_ratio": 4.0}),
            "z0 = 0": ("kto", {"z0": "zero"}),
            "kto + demonstrations": ("kto", {"demonstrations": 1.0}),
        },
    ),
    "reference point": Experiment(
        "The reference point",
        "Does the value of z0 matter, or that there is one?",
        {"all thumbs": {}, "10% flipped": CONDITIONS["10% flipped"]},
        {name: ("kto", {"z0": name}) for name in
         ("mismatched", "matched", "unclamped", "zero", "exact", "moving average")},
    ),
    "watched": Experiment(
        "The reference point, watched",
        "What would each estimate say of the same policy?",
        {"all thumbs": {}},
        {"kto": ("kto", {"watch_z0": True})},
        seeds=TEST_SEEDS[:6],
    ),
    "more steps": Experiment(
        "More steps",
        "Was one method only too slow?",
        {"100 steps": {}, "400 steps": {"steps": 400}},
        BASIC,
    ),
    "skip SFT": Experiment(
        "Skip SFT",
        "Policy and reference have seen little SFT or none, the thumbs are the same. Can preference learning do alone?",
        {f"{steps} steps": {"sft_steps": steps} for steps in (0, 80, 160)} | {"400 steps": {}},
        BASIC,
    ),
    "contradiction": Experiment(
        "Contradiction",
        "Two groups of raters want opposite things. Whom does the model follow?",
        {f"{share:.0%}": {"majority": share} for share in (0.5, 0.6, 0.8)},
        plain("sft", "dpo", "kto", "kto weights 1"),
    ),
    "length": Experiment(
        "Length",
        "Do replies grow longer or shorter than the thumbs ask for?",
        {"all thumbs": {}, "short ups": {"liked_length": "short"}, "long ups": {"liked_length": "long"}},
        BASIC,
    ),
    "one kind": Experiment(
        "One kind of thumb",
        "Thumbs-up alone, thumbs-down alone: where does KTO go?",
        {f"only {kind}s": {"only": kind, "track": LONG} for kind in ("down", "up")},
        plain("kto") | {"kto + demonstrations": ("kto", {"demonstrations": 0.2})},
    ),
    "knobs": Experiment(
        "Knobs",
        "Where does KTO collapse, over beta, learning rate and the ratio of the two weights?",
        {
            f"rate {rate:g} beta {beta:g}": {"learning_rate": rate, "beta": beta}
            for rate in KNOB_RATES for beta in KNOB_BETAS
        } | {
            f"rate {rate:g} ratio {ratio:g}": {"learning_rate": rate, "beta": 2.0, "weight_ratio": ratio}
            for rate in KNOB_RATES for ratio in RATIOS
        },
        plain("kto"),
    ),
    "frontier": Experiment(
        "The exact frontier",
        "How close do the methods come to the cheapest possible policy?",
        {"path": {"track": PATH}},
        BASIC,
        small=False, seeds=LARGE_SEEDS,
    ),
}  # fmt: skip


def experiment(name: str) -> Experiment:
    """The experiment of this name.

    Raises:
        ValueError: there is none; the message names the closest.
    """
    if name not in EXPERIMENTS:
        close = difflib.get_close_matches(name, EXPERIMENTS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"there is no experiment {name!r}{hint} There are: {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def jobs(results: Results, name: str) -> dict[tuple[str, str], list[Job]]:
    """(condition, method) -> its runs, in the order of the seeds.

    Raises:
        ValueError: an unknown experiment, or a search that is not over.
    """
    chosen = experiment(name)
    way = ONCE if chosen.tuned_on == BASE else EACH
    found = {}
    for condition, changed in chosen.conditions.items():
        for label, (method, also) in chosen.methods.items():
            tuned = results.choice(chosen.tuned_on, method, way, chosen.small)
            setting = replace(setting_of(BASE, method, *tuned, chosen.small), **{**changed, **also})
            found[condition, label] = [(setting, seed) for seed in chosen.seeds]
    return found


def outcomes(results: Results, name: str) -> dict[tuple[str, str], list[dict]]:
    """(condition, method) -> its runs as they ended.

    Raises:
        ValueError: as `jobs`; runs that are missing.
    """
    return {cell: [results.run(*job) for job in wanted] for cell, wanted in jobs(results, name).items()}
