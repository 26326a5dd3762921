"""Ten experiments on KTO and DPO in the small world, each a table of conditions x methods x seeds. Lessons 07 to 09.

`EXPERIMENTS` is the protocol: what is varied, which methods meet, and the hypothesis, written before the results. A run
(`run_cell`) is one trained model, scored by enumeration; it gives the same numbers on every machine.

`kto_lab.results` runs the tables and keeps them in a file, `kto_lab.findings` draws the conclusions. Whatever is
changed here, hypotheses included, asks for new results.
"""

import difflib
import functools
import math
import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from kto_lab import recipes
from kto_lab.demonstrations import Demonstrations
from kto_lab.looking import EachStep
from kto_lab.scored_reference import scored_beforehand
from kto_utils.collator import KTOPaddingCollator
from kto_utils.data import pair_up, tokenize_feedback, unpair
from kto_utils.evaluate import (
    collect_feedback,
    kl_of,
    least_kl,
    rates_of,
    reply_logps,
    sample_replies,
    sampled_kl,
)
from kto_utils.logprobs import sequence_logps
from kto_utils.losses import balanced_weights, reference_point
from kto_utils.model import load_reference_model, reference_of
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import Batches, Parts, mismatched_z0, train_dpo, train_kto
from kto_utils.world import (
    Question,
    judge,
    replies,
    reworded_questions,
    sft_rows,
    trained_questions,
    untouched_questions,
)

REPLIES_PER_QUESTION = 50
COMPLETIONS_PER_STEP = 16  # with gradient: 16 thumbs for KTO, 8 pairs for DPO
# Feedback used only to choose the settings. All of them are tried on the first draw. One draw is a gamble: a setting at
# the edge of collapse can win it. So the best few are tried on the other two, under an experiment's first and last
# condition, since the same setting must serve the whole experiment.
VALIDATION_SEEDS = (100, 101, 102)
N_CONFIRMED = 3
# All methods of an experiment search the same (learning rate, beta), no other. The short list is for dear runs,
# the long one for long runs, which may want a smaller rate.
GRID = tuple((rate, beta) for rate in (1e-4, 3e-4, 1e-3, 3e-3) for beta in (0.1, 0.5, 2.0, 8.0))
LONG_GRID = tuple((rate, beta) for rate in (3e-5, 1e-4, 3e-4, 1e-3, 3e-3) for beta in (0.1, 0.5, 2.0))
SHORT_GRID = tuple((rate, beta) for rate in (3e-4, 1e-3, 3e-3) for beta in (0.1, 0.5, 2.0))
SETS: dict[str, Callable[[], list[Question]]] = {
    "trained": trained_questions,
    "new wording": reworded_questions,
    "untouched facts": untouched_questions,
}


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
        confirmed: the best settings are tried on two more draws; left out where runs are long.
        grid: the settings searched, by every method.
        seeds: each moves the thumbs that are drawn, their order and every other draw.
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


# --- feedback ---------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=16)
def _collected(small: bool, seed: int) -> tuple[dict, ...]:
    model = load_reference_model(small)
    return tuple(collect_feedback(model, trained_questions(), REPLIES_PER_QUESTION, seed))


def _judged_again(rows: Iterable[Mapping], setting: Setting, rng: random.Random) -> list[dict]:
    """The same replies, judged by raters of two tastes and with flipped thumbs."""
    by_prompt = {question.prompt: question for question in trained_questions()}
    judged = []
    for row in rows:
        taste = "polite and right" if rng.random() < setting.majority else "rude and right"
        question = by_prompt[row["prompt"]]
        judged.append({**row, "label": judge(question, row["completion"], setting.flip, taste, rng)})
    return judged


def _thinned(rows: Sequence[Mapping], label: bool, kept: float, rng: random.Random) -> list[dict]:
    """Keeps a share of the rows with this label, at least one, and all others."""
    numbers = [i for i, row in enumerate(rows) if row["label"] is label]
    left = set(rng.sample(numbers, max(1, round(kept * len(numbers))))) if numbers else set()
    return [row for i, row in enumerate(rows) if row["label"] is not label or i in left]


def _one_kind_on_most(rows: Sequence[Mapping], both_kinds: float, rng: random.Random) -> list[dict]:
    """That share of the questions keeps all thumbs; of the others half keep only ups and half only downs."""
    prompts = sorted({row["prompt"] for row in rows})
    rng.shuffle(prompts)
    whole = round(both_kinds * len(prompts))
    only = {prompt: i % 2 == 0 for i, prompt in enumerate(prompts[whole:])}
    return [row for row in rows if row["prompt"] not in only or only[row["prompt"]] is row["label"]]


def _of_liked_length(rows: Sequence[Mapping], wanted: str) -> list[dict]:
    """Leaves out thumbs-up on replies that are longer ("short" wanted) or not longer than the median, in characters."""
    middle = statistics.median(len(row["completion"].strip()) for row in rows if row["label"])
    return [row for row in rows if not row["label"] or (len(row["completion"].strip()) > middle) == (wanted == "long")]


def feedback(setting: Setting, seed: int) -> list[dict]:
    """The thumbs of a run: replies drawn from the shipped reference, judged, then thinned out as the setting says.

    The same seed and setting give the same rows to every method.
    """
    rng = random.Random(seed)
    rows = [dict(row) for row in _collected(setting.small, seed)]
    if setting.majority < 1.0 or setting.flip > 0.0:
        rows = _judged_again(rows, setting, rng)
    rows = _thinned(rows, True, setting.keep_up, rng)
    rows = _thinned(rows, False, setting.keep_down, rng)
    if setting.both_kinds < 1.0:
        rows = _one_kind_on_most(rows, setting.both_kinds, rng)
    if setting.only is not None:
        rows = [row for row in rows if row["label"] is (setting.only == "up")]
    if setting.liked_length is not None:
        rows = _of_liked_length(rows, setting.liked_length)
    if setting.paired:
        rows = unpair(pair_up(rows, seed)[0], seed)
    return rows


# --- scoring ----------------------------------------------------------------------------------------------------------


def _reply_lengths(questions: Sequence[Question]) -> torch.Tensor:
    """(questions, 48): characters of every listed reply. (In tokens nearly all of them are equally long.)"""
    return torch.tensor([[len(reply.text.strip()) for reply in replies(question)] for question in questions])


def _logps(model: torch.nn.Module, name: str) -> torch.Tensor:
    return reply_logps(model, SETS[name](), load_tokenizer())


def _measures(logps: torch.Tensor, reference_logps: torch.Tensor, name: str) -> dict[str, float]:
    """What enumeration says about one set of questions; see `run_cell`."""
    questions = SETS[name]()
    found = rates_of(logps, questions)
    up = torch.tensor([[reply.thumbs_up for reply in replies(question)] for question in questions])
    kl = kl_of(logps, reference_logps)
    reference_rates = (reference_logps.exp() * up).sum(-1).tolist()
    listed = logps - logps.logsumexp((0, 1))  # in logs: a collapsed model may leave less than float64 can hold
    return {
        **found,
        "unknown": 1.0 - found["listed"],
        "kl": kl,
        "excess_kl": kl - least_kl(reference_rates, min(found["thumbs_up"], 1.0)),
        "length": float((listed.exp() * _reply_lengths(questions)).sum()),
    }


@functools.lru_cache(maxsize=8)
def _reference(small: bool, sft_steps: int | None) -> torch.nn.Module:
    """The frozen model that a run starts from."""
    if sft_steps is None:
        return reference_of(load_reference_model(small))
    shape = recipes.SMALL_SHAPE if small else recipes.REFERENCE_SHAPE
    return reference_of(recipes.make_reference(shape, sft_steps))


@functools.lru_cache(maxsize=32)
def _reference_logps(small: bool, sft_steps: int | None, name: str) -> torch.Tensor:
    return _logps(_reference(small, sft_steps), name)


def reference_scores(small: bool = True, sft_steps: int | None = None) -> dict[str, float]:
    """The scores of the model before training, under the same names as in `run_cell`."""
    scores = {}
    for name in SETS:
        logps = _reference_logps(small, sft_steps, name)
        scores |= {f"{name} {key}": number for key, number in _measures(logps, logps, name).items()}
    return scores


# --- reference points -------------------------------------------------------------------------------------------------

MOVING_AVERAGE = 0.9  # weight of the past


class ReferencePoint:
    """One way to choose z0, called by `train_kto` at each step.

    Args:
        name: a key of `REFERENCE_POINTS`.
        exact: gives the KL of the policy, as it is now, by enumeration; nats.
    """

    def __init__(self, name: str, exact: Callable[[], float]):
        self.name, self.exact, self.average = name, exact, 0.0

    def __call__(self, logps: Mapping[str, torch.Tensor]) -> torch.Tensor:
        estimate = REFERENCE_POINTS[self.name](self, logps)
        return torch.as_tensor(estimate, dtype=torch.float64)

    def mismatched(self, logps: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return reference_point(logps["policy_kl_logps"], logps["reference_kl_logps"])

    def matched(self, logps: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return reference_point(logps["policy_logps"], logps["reference_logps"])

    def unclamped(self, logps: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return (logps["policy_kl_logps"] - logps["reference_kl_logps"]).mean()

    def moving_average(self, logps: Mapping[str, torch.Tensor]) -> float:
        """Of the unclamped estimates; clamped when used."""
        self.average = MOVING_AVERAGE * self.average + (1.0 - MOVING_AVERAGE) * float(self.unclamped(logps))
        return max(0.0, self.average)


REFERENCE_POINTS: dict[str, Callable] = {
    "mismatched": ReferencePoint.mismatched,
    "matched": ReferencePoint.matched,
    "unclamped": ReferencePoint.unclamped,
    "zero": lambda self, logps: 0.0,
    "exact": lambda self, logps: self.exact(),
    "moving average": ReferencePoint.moving_average,
}


class WatchedReferencePoint(ReferencePoint):
    """Uses one reference point and notes, every tenth step, what the others say of the same policy.

    Args:
        name, exact: as in `ReferencePoint`.
        probe: gives the estimates of several fresh batches, name -> list in nats.
    """

    EVERY = 10

    def __init__(self, name: str, exact: Callable[[], float], probe: Callable[[], dict[str, list[float]]]):
        super().__init__(name, exact)
        self.probe, self.step, self.notes = probe, 0, []
        self.trailing = ReferencePoint("moving average", exact)

    def __call__(self, logps: Mapping[str, torch.Tensor]) -> torch.Tensor:
        average = float(self.trailing(logps))  # every step: it remembers
        if self.step % self.EVERY == 0:
            spread = {
                name: [statistics.mean(values), statistics.stdev(values)] for name, values in self.probe().items()
            }
            self.notes.append({"step": self.step, "exact": self.exact(), "moving average": average, **spread})
        self.step += 1
        return super().__call__(logps)


N_PROBES = 16


def _probe(policy, reference, rows: Sequence[Mapping], seed: int) -> Callable[[], dict[str, list[float]]]:
    """Estimates of the reference point from 16 batches that the run itself does not see in this order."""
    tokenizer = load_tokenizer()
    examples = [tokenize_feedback(row, tokenizer) for row in rows]
    collate, plan = KTOPaddingCollator(tokenizer), Batches(len(rows), COMPLETIONS_PER_STEP, 1000 + seed)
    batches = [collate([examples[i] for i in plan.draw()]) for _ in range(N_PROBES)]

    def both(model) -> list[tuple[torch.Tensor, torch.Tensor]]:
        with torch.no_grad():
            return [(sequence_logps(model, batch), sequence_logps(model, batch, "kl_")) for batch in batches]

    before = both(reference)

    def estimates() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {"matched": [], "mismatched": [], "unclamped": []}
        for (own, other), (own_before, other_before) in zip(both(policy), before, strict=True):
            found["matched"].append(float(reference_point(own, own_before)))
            found["mismatched"].append(float(reference_point(other, other_before)))
            found["unclamped"].append(float((other - other_before).mean()))
        return found

    return estimates


# --- one run ----------------------------------------------------------------------------------------------------------


def run_cell(name: str, condition: str, method: str, seed: int, learning_rate: float, beta: float) -> dict:
    """Trains one model and scores it exactly.

    Args:
        name, condition, method: of `EXPERIMENTS`.
        seed: draws the thumbs, their order, and the pairs.
        learning_rate, beta: of the method.

    Returns:
        A flat dict: the arguments; `rows`, `up` (thumbs given, thumbs-up among them), `used` (thumbs that the method
        could use), and for each key of `SETS`, as "new wording thumbs_up" and so on, by enumeration: `thumbs_up`,
        `polite`, `right`, `listed`, `unknown` (probabilities), `kl` (to the reference, nats, a lower bound where
        `unknown` is not small), `excess_kl` (above the least KL for this thumbs-up rate, nats; 0 at the exact
        optimum), `length` (mean characters of the listed replies). From 8 sampled replies to each trained question:
        `kl_sampled`, `kl_error` (nats), and from 4 `length_sampled` (tokens, cut at 24). `path`: scores on the way,
        where the setting tracks them; `z0`: notes on the reference point, in its experiment.

    Raises:
        ValueError: an unknown experiment, condition or method.
    """
    setting = setting_of(name, condition, method)
    tokenizer, rows = load_tokenizer(), feedback(setting, seed)
    n_up = sum(row["label"] for row in rows)
    reference = _reference(setting.small, setting.sft_steps)
    policy = _trainable_copy(reference)
    cell = {
        "experiment": name, "condition": condition, "method": method, "seed": seed,
        "learning_rate": learning_rate, "beta": beta, "rows": len(rows), "up": n_up,
    }  # fmt: skip
    path: list[dict] = []

    def on_step(step: int, model: torch.nn.Module) -> None:
        if step in setting.track:
            model.eval()
            before = _reference_logps(setting.small, setting.sft_steps, "trained")
            path.append({"step": step, **_measures(_logps(model, "trained"), before, "trained")})

    settings = {
        "steps": setting.steps, "learning_rate": learning_rate, "beta": beta, "seed": seed, "schedule": "linear",
    }  # fmt: skip
    parts = Parts(callbacks=[EachStep(on_step)], reference_logps=scored_beforehand)
    if method.startswith("dpo"):
        pairs, _ = pair_up(rows, seed)
        cell["used"] = 2 * len(pairs)
        n_pairs = COMPLETIONS_PER_STEP // 2
        if pairs:
            pairs = pairs * math.ceil(n_pairs / len(pairs))  # fewer pairs than a batch: they come again
            train_dpo(policy, reference, pairs, tokenizer, batch_size=n_pairs, parts=parts, **settings)
    else:
        cell["used"] = len(rows)
        up, down = 1.0, 1.0
        if setting.weight_ratio is not None and 0 < n_up < len(rows):
            up, down = balanced_weights(n_up, len(rows) - n_up, setting.weight_ratio)
        watched = mismatched_z0
        if name == "reference point":
            before = _reference_logps(setting.small, setting.sft_steps, "trained")
            watched = WatchedReferencePoint(
                setting.z0, lambda: kl_of(_logps(policy, "trained"), before), _probe(policy, reference, rows, seed)
            )
        demonstrations = Demonstrations(sft_rows(20, seed), setting.sft_weight) if setting.sft_weight else None
        train_kto(
            policy, reference, rows, tokenizer, batch_size=COMPLETIONS_PER_STEP, desirable_weight=up,
            undesirable_weight=down, parts=replace(parts, estimate_z0=watched, extra_loss=demonstrations), **settings,
        )  # fmt: skip
        if watched is not mismatched_z0:
            cell["z0"] = watched.notes
    return rounded(cell | _scores(policy, reference, setting, seed) | ({"path": path} if path else {}))


def _trainable_copy(reference: torch.nn.Module) -> torch.nn.Module:
    return reference_of(reference).requires_grad_(True)


def _scores(policy: torch.nn.Module, reference: torch.nn.Module, setting: Setting, seed: int) -> dict[str, float]:
    scores, tokenizer = {}, load_tokenizer()
    for name in SETS:
        before = _reference_logps(setting.small, setting.sft_steps, name)
        found = _measures(_logps(policy, name), before, name)
        scores |= {f"{name} {key}": number for key, number in found.items()}
    scores["kl_sampled"], scores["kl_error"] = sampled_kl(policy, reference, n=8, seed=seed)
    sampled = sample_replies(policy, trained_questions(), 4, seed)
    n_tokens = [len(tokenizer.encode(text, add_special_tokens=False)) for texts in sampled for text in texts]
    scores["length_sampled"] = statistics.mean(n_tokens)
    return scores


def rounded(found):
    """Every float to six significant digits: what a reader could print, and far above the noise of float64."""
    if isinstance(found, float):
        return float(f"{found:.6g}")
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    return [rounded(value) for value in found] if isinstance(found, list) else found
