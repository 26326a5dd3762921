"""The protocol of the comparison: conditions, methods, search, seeds and hypotheses. Committed before the test seeds.

The results file carries a digest of this file (comments and docstrings aside): results of another protocol are refused.
"""

from collections.abc import Mapping
from dataclasses import replace

from kto_lab.comparison.settings import Setting

SEEN = """
What had been seen when this was written. Trial runs on seeds 200 to 217 (KTO, DPO, SFT on the thumbs-up, a few
settings each) were the reason for the protocol. A first computation of the whole core table, on seeds 500 to 529 with a
search on seeds 400 to 407, was seen in full before its files were lost; its means are the source of the hypotheses
below. So this is a replication: the same questions, the hypotheses written down, new test seeds that nobody has seen.
The search of that first computation ran over wider starting points; its choices are not used.
"""

# condition -> what it changes in `Setting`
CONDITIONS: dict[str, Mapping] = {
    "all thumbs": {},
    "both kinds on a quarter": {"both_kinds": 0.25},
    "10% of the ups": {"keep_up": 0.1},
    "10% of the downs": {"keep_down": 0.1},
    "10% flipped": {"flip": 0.1},
    "30% flipped": {"flip": 0.3},
    "45% flipped": {"flip": 0.45},
}
BASE = "all thumbs"

# method -> what it changes in `Setting`. All see the same rows and 16 completions with gradient a step.
METHODS: dict[str, Mapping] = {
    "sft": {"trainer": "sft", "beta": None},
    "dpo": {"trainer": "dpo"},
    "dpo + sft": {"trainer": "dpo", "own_sft": 1.0},
    "cdpo": {"trainer": "dpo"},  # told the true share of flipped thumbs; without noise it is DPO
    "kto": {},
    "kto weights 1": {"weight_ratio": None},
    "kto + sft": {"own_sft": 1.0},
}

# Learning rate and beta are searched on these two ladders, from the cells named START upwards and downwards.
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
BETAS = (0.03, 0.12, 0.5, 2.0, 8.0, 32.0, 128.0)
START = tuple((rate, beta) for rate in (3e-4, 1e-3, 3e-3) for beta in (0.12, 2.0))
# The criterion is the mean thumbs-up rate on the trained questions; a lost run counts as it is. Every cell that is
# tried gets the first three draws; cells less than DROP below the best on these get all eight. The best of these is
# chosen once all its neighbours on both ladders were tried; means closer than TIE go to the smaller spread.
VALIDATION_SEEDS = tuple(range(400, 408))
FIRST_DRAWS = 3
DROP = 0.1
TIE = 0.005

TEST_SEEDS = tuple(range(600, 630))
WAYS = {
    "tuned once": "rate and beta chosen with all thumbs, then kept: a user with one sweep",
    "tuned per condition": "rate and beta chosen for each condition: what is possible",
}
# The course's own model, tuned once, with all its thumbs.
LARGE_METHODS = ("sft", "dpo", "kto", "kto + sft")
LARGE_SEEDS = TEST_SEEDS[:10]

MEASURE = "new wording thumbs_up"
LEVEL = 0.05  # of the whole family of hypotheses, by Holm's method
MARGIN = 0.02  # an interval inside +-MARGIN is no difference worth naming

ONCE, EACH = WAYS
# name -> (sentence, way, condition, method that ends higher, the other, small model?)
HYPOTHESES: dict[str, tuple[str, str, str, str, str, bool]] = {
    "clean: plain wins": (
        "With all thumbs, SFT on the thumbs-up alone ends higher than KTO.", ONCE, BASE, "sft", "kto", True),
    "clean: KTO over DPO": ("With all thumbs KTO ends higher than DPO.", ONCE, BASE, "kto", "dpo", True),
    "clean: the term helps DPO": (
        "With all thumbs an SFT term lifts DPO above SFT alone.", ONCE, BASE, "dpo + sft", "sft", True),
    "clean: the term helps KTO": (
        "With all thumbs an SFT term lifts KTO.", ONCE, BASE, "kto + sft", "kto", True),
    "clean: the weights": (
        "With all thumbs, about one up to three downs, weights by the rule beat weights 1.", ONCE, BASE, "kto",
        "kto weights 1", True),
    "quarter: plain wins": (
        "With both kinds on a quarter of the questions SFT ends higher than KTO.", EACH, "both kinds on a quarter",
        "sft", "kto", True),
    "quarter: KTO over DPO": (
        "With both kinds on a quarter of the questions KTO ends higher than DPO.", EACH, "both kinds on a quarter",
        "kto", "dpo", True),
    "few ups: plain wins": (
        "With a tenth of the thumbs-up SFT ends higher than KTO.", EACH, "10% of the ups", "sft", "kto", True),
    "few ups: DPO over KTO": (
        "With a tenth of the thumbs-up and one sweep, DPO ends higher than KTO.", ONCE, "10% of the ups", "dpo", "kto",
        True),
    "few downs: KTO over DPO": (
        "With a tenth of the thumbs-down KTO ends higher than DPO.", EACH, "10% of the downs", "kto", "dpo", True),
    "10% noise: KTO over plain": (
        "With 10% of the thumbs flipped KTO ends higher than SFT.", ONCE, "10% flipped", "kto", "sft", True),
    "10% noise: KTO over DPO": (
        "With 10% of the thumbs flipped KTO ends higher than DPO.", ONCE, "10% flipped", "kto", "dpo", True),
    "10% noise: cDPO over DPO": (
        "With 10% of the thumbs flipped cDPO, told so, ends higher than DPO.", EACH, "10% flipped", "cdpo", "dpo",
        True),
    "30% noise: KTO over plain": (
        "With 30% flipped KTO, tuned for it, ends higher than SFT.", EACH, "30% flipped", "kto", "sft", True),
    "30% noise: KTO over DPO": (
        "With 30% flipped KTO, tuned for it, ends higher than DPO.", EACH, "30% flipped", "kto", "dpo", True),
    "30% noise: one sweep": (
        "With 30% flipped and one sweep on clean thumbs, SFT ends higher than KTO.", ONCE, "30% flipped", "sft", "kto",
        True),
    "tuning": (  # the method's own two ways; see `findings.values_of`
        "With 30% flipped KTO ends higher tuned for it than tuned once.", "both", "30% flipped", "kto", "kto", True),
    "larger, clean: plain wins": (
        "The larger model too: with all thumbs SFT ends higher than KTO.", ONCE, BASE, "sft", "kto", False),
    "larger, 10% noise: KTO over plain": (
        "The larger model too: with 10% flipped KTO ends higher than SFT.", ONCE, "10% flipped", "kto", "sft", False),
}  # fmt: skip


def methods_of(condition: str, small: bool = True) -> tuple[str, ...]:
    """The methods that a condition compares: cDPO only where thumbs are flipped, fewer for the larger model."""
    if not small:
        return LARGE_METHODS
    noisy = CONDITIONS[condition].get("flip", 0.0) > 0.0
    return tuple(method for method in METHODS if noisy or method != "cdpo")


def setting_of(condition: str, method: str, rate: float, beta: float | None, small: bool = True) -> Setting:
    """The `Setting` of one cell of the core table.

    Raises:
        ValueError: an unknown condition or method.
    """
    for kind, wanted, known in (("condition", condition, CONDITIONS), ("method", method, METHODS)):
        if wanted not in known:
            raise ValueError(f"{kind} is {wanted!r}; the comparison has {', '.join(known)}")
    changed = dict(CONDITIONS[condition]) | dict(METHODS[method])
    if method == "cdpo":
        changed["smoothing"] = changed.get("flip", 0.0)
    return replace(Setting(small=small), **changed, learning_rate=rate, **{} if method == "sft" else {"beta": beta})
