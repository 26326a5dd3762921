"""The protocol: what is varied, which methods meet, and each hypothesis, written before its results."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

# Feedback used only to choose the settings. All of them are tried with the first seed. One seed is a gamble: a setting
# at the edge of collapse can win it. So the best few are tried with the other two, under an experiment's first and last
# condition, since the same setting must serve the whole experiment.
VALIDATION_SEEDS = (100, 101, 102)
N_CONFIRMED = 3
# All methods of an experiment search the same (learning rate, beta), no other. The short list is for dear runs,
# the long one for long runs, which may want a smaller rate.
GRID = tuple((rate, beta) for rate in (1e-4, 3e-4, 1e-3, 3e-3) for beta in (0.1, 0.5, 2.0, 8.0))
LONG_GRID = tuple((rate, beta) for rate in (3e-5, 1e-4, 3e-4, 1e-3, 3e-3) for beta in (0.1, 0.5, 2.0))
SHORT_GRID = tuple((rate, beta) for rate in (3e-4, 1e-3, 3e-3) for beta in (0.1, 0.5, 2.0))


@dataclass(frozen=True)
class Setting:
    """What a run may vary. The defaults are the base case: all thumbs as collected, weights by the rule.

    Fields:
        small: the model with hidden size 64, else the course's own with 128.
        sft_steps: SFT that the reference has seen; None is the shipped reference (400 steps). The thumbs always come
            from the shipped one.
        paired: keep only thumbs that form pairs, each used once.
        both_kinds: share of the questions that keep both kinds of thumb; of the others half keep ups, half downs.
        keep_up, keep_down: share of the thumbs-up and of the thumbs-down that is kept.
        flip: chance that a thumb is flipped.
        majority: share of raters who like polite and right replies; the others like rude and right ones.
        only: "up" or "down": the other kind is left out.
        liked_length: "short" or "long": thumbs-up on replies above or not above the median length, in characters, are
            left out.
        steps, beta, learning_rate: of the run; None: from the search.
        weight_ratio: lambda_D n_D / (lambda_U n_U); None leaves both weights at 1.
        z0: a key of `REFERENCE_POINTS`.
        sft_weight: of the SFT term on demonstrations, 0 for none.
        track: steps after which the policy is scored on the trained questions.
    """

    small: bool = True
    sft_steps: int | None = None
    paired: bool = False
    both_kinds: float = 1.0
    keep_up: float = 1.0
    keep_down: float = 1.0
    flip: float = 0.0
    majority: float = 1.0
    only: str | None = None
    liked_length: str | None = None
    steps: int = 100
    beta: float | None = None
    learning_rate: float | None = None
    weight_ratio: float | None = 1.0
    z0: str = "mismatched"
    sft_weight: float = 0.0
    track: tuple[int, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """One question put to the small world.

    Fields:
        title, question, hypothesis: for the reader; the hypothesis was written before the runs.
        conditions: name -> what it changes in `Setting`.
        methods: name -> what it changes in `Setting`; a name that starts with "dpo" trains DPO, any other KTO.
        search: condition on which each method's learning rate and beta are searched; None where conditions set both.
        confirmed: the best settings are tried with two more seeds; left out where runs are long.
        grid: the settings searched, by every method.
        seeds: each moves the thumbs, their order and everything else that is drawn at random.
        settings_of: name of the experiment whose search is used, for spot checks at full size.
    """

    title: str
    question: str
    hypothesis: str
    conditions: Mapping[str, Mapping]
    methods: Mapping[str, Mapping] = field(default_factory=lambda: {"kto": {}, "dpo": {}})
    search: str | None = None
    confirmed: bool = True
    grid: tuple[tuple[float, float], ...] = GRID
    seeds: tuple[int, ...] = tuple(range(5))
    settings_of: Mapping[str, str] | None = None


EIGHT = tuple(range(8))
KEPT = (1.0, 0.5, 0.25, 0.1, 0.05, 0.02)
NOISE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.45)
WEIGHTS = {"kto": {}, "kto weights 1": {"weight_ratio": None}, "dpo": {}}
PATH = (5, 10, 20, 30, 40, 60, 80, 100)
LONG = (25, 50, 100, 150, 200, 300)

EXPERIMENTS: dict[str, Experiment] = {
    "clean pairs": Experiment(
        "Clean pairs",
        "Every question has paired replies and no thumb is wrong. Does DPO win, as theory allows?",
        "With clean pairs DPO ends with a higher thumbs-up rate on new wordings than KTO.",
        {"clean": {"paired": True}},
        search="clean", seeds=EIGHT,
    ),
    "more steps": Experiment(
        "More steps",
        "Clean pairs once more, with four times the steps. Was one method only too slow?",
        "With clean pairs and 400 steps DPO ends with a higher thumbs-up rate on new wordings than KTO.",
        {"clean": {"paired": True, "steps": 400}},
        search="clean", confirmed=False, grid=LONG_GRID,
    ),
    "unpaired thumbs": Experiment(
        "Unpaired thumbs",
        "Thumbs come as users give them. What does DPO lose by needing pairs?",
        "KTO's lead over DPO on new wordings is larger when a quarter of the questions have both kinds of thumb than "
        "when all have.",
        {"all": {}, "half": {"both_kinds": 0.5}, "quarter": {"both_kinds": 0.25}},
        search="half", seeds=EIGHT,
    ),
    "fewer thumbs-up": Experiment(
        "Fewer thumbs-up",
        "Up to 98% of the thumbs-up are lost. How far do the weights carry KTO?",
        "With a tenth of the thumbs-up KTO, weights by the rule, ends higher on new wordings than DPO.",
        {f"{kept:.0%}": {"keep_up": kept} for kept in KEPT},
        methods=WEIGHTS, search="10%",
    ),
    "fewer thumbs-down": Experiment(
        "Fewer thumbs-down",
        "Up to 98% of the thumbs-down are lost.",
        "With a tenth of the thumbs-down KTO, weights by the rule, ends higher on new wordings than DPO.",
        {f"{kept:.0%}": {"keep_down": kept} for kept in KEPT},
        methods=WEIGHTS, search="10%",
    ),
    "noise": Experiment(
        "Noise",
        "A share of the thumbs is flipped. Who suffers more?",
        "From no noise to 30% flipped thumbs KTO loses less of its thumbs-up rate on new wordings than DPO.",
        {f"{flip:.0%}": {"flip": flip} for flip in NOISE},
        search="20%",
    ),
    "contradiction": Experiment(
        "Contradiction",
        "Two groups of raters want opposite things. Whom does the model follow?",
        "With a majority of 60%, DPO ends with more replies that the majority likes than replies that the minority "
        "likes: here the reference makes both about equally often, so the condition of Theorem 4.3 does not hold.",
        {f"{share:.0%}": {"majority": share} for share in (0.5, 0.6, 0.7, 0.8, 0.9)},
        methods=WEIGHTS, search="70%",
    ),
    "skip SFT": Experiment(
        "Skip SFT",
        "Policy and reference have seen little SFT or none, the thumbs are the same. Can preference learning do alone?",
        "From a reference with a tenth of the SFT steps KTO ends higher on new wordings than DPO.",
        {f"{steps} steps": {"sft_steps": steps} for steps in (0, 40, 80, 160)} | {"400 steps": {}},
        search="80 steps",
    ),
    "knobs": Experiment(
        "Knobs",
        "Where does KTO collapse, over beta, learning rate and the ratio of the two weights?",
        "At learning rate 1e-3 and beta 0.1 a weight ratio inside the recommended band [1, 3/2] ends higher than a "
        "ratio of 1/4.",
        {
            f"rate {rate:g} beta {beta:g}": {"learning_rate": rate, "beta": beta}
            for rate in (3e-4, 1e-3, 3e-3, 1e-2)
            for beta in (0.1, 0.5, 2.0)
        }
        | {
            f"rate {rate:g} ratio {ratio:g}": {"learning_rate": rate, "beta": 0.1, "weight_ratio": ratio}
            for rate in (3e-4, 1e-3, 3e-3, 1e-2)
            for ratio in (0.25, 0.5, 1.5, 2.0, 4.0)
        },
        methods={"kto": {}},
    ),
    "reference point": Experiment(
        "The reference point",
        "Does the value of z0 matter, or that there is one?",
        "With the exact KL as reference point KTO ends higher on new wordings than with z0 = 0.",
        {"all": {}},
        methods={f"kto {name}": {"z0": name} for name in
                 ("mismatched", "matched", "unclamped", "zero", "exact", "moving average")},
        search="all", grid=SHORT_GRID,
    ),
    "length": Experiment(
        "Length",
        "Do replies grow longer or shorter than the thumbs ask for?",
        "With all thumbs, DPO's replies end longer than KTO's.",
        {"all thumbs": {}, "short ups": {"liked_length": "short"}, "long ups": {"liked_length": "long"}},
        search="all thumbs",
    ),
    "only thumbs-down": Experiment(
        "Only thumbs-down",
        "No thumbs-up at all, and long training. Where does the model go?",
        "After 300 steps an SFT term leaves more probability on listed replies than thumbs-down alone.",
        {"down": {"only": "down", "steps": 300, "track": LONG}},
        methods={"kto": {}, "kto + sft": {"sft_weight": 0.2}}, search="down", confirmed=False, grid=SHORT_GRID,
    ),
    "only thumbs-up": Experiment(
        "Only thumbs-up",
        "No thumbs-down at all, and long training.",
        "Thumbs-up alone raise the thumbs-up rate on new wordings above the reference's.",
        {"up": {"only": "up", "steps": 300, "track": LONG}},
        methods={"kto": {}, "kto + sft": {"sft_weight": 0.2}}, search="up", confirmed=False, grid=SHORT_GRID,
    ),
    "frontier": Experiment(
        "The exact frontier",
        "How close do both methods come to the cheapest possible policy?",
        "At the end of its path KTO lies closer to the least KL for its rate than DPO.",
        {"path": {"small": False, "track": PATH}},
        search="path", confirmed=False,
    ),
    "full size": Experiment(
        "Spot checks at full size",
        "Do the conclusions hold for the course's own model, about three times as large?",
        "The sign of KTO minus DPO on new wordings is the same as for the small model, in each case.",
        {
            "clean pairs": {"small": False, "paired": True},
            "noise": {"small": False, "flip": 0.3},
        },
        settings_of={name: name for name in ("clean pairs", "noise")},
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


def setting_of(name: str, condition: str, method: str) -> Setting:
    """The `Setting` of one condition and method of an experiment.

    Raises:
        ValueError: an unknown experiment, condition or method.
    """
    chosen = experiment(name)
    for kind, wanted, known in (("condition", condition, chosen.conditions), ("method", method, chosen.methods)):
        if wanted not in known:
            raise ValueError(f"{kind} is {wanted!r}; experiment {name!r} has {', '.join(known)}")
    return replace(Setting(), **chosen.conditions[condition], **chosen.methods[method])
