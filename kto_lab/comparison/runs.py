"""One run: a model trained with one setting and one seed, and scored exactly."""

import random
import statistics
from collections.abc import Mapping, Sequence

import torch

from kto_lab.comparison.settings import Setting
from kto_lab.experiments.reference_points import ReferencePoint, WatchedReferencePoint, probe
from kto_lab.experiments.scores import SETS, logps_on, measures, reference_logps_on, reference_model, rounded
from kto_lab.experiments.thumbs import feedback
from kto_lab.extra_terms import Demonstrations, OwnThumbsUp, Smoothing, together
from kto_lab.looking import EachStep
from kto_lab.scored_reference import scored_beforehand
from kto_utils.evaluate import kl_of
from kto_utils.losses import balanced_weights
from kto_utils.model import reference_of
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import Parts, mismatched_z0, train_dpo, train_kto, train_sft
from kto_utils.world import sft_rows

COMPLETIONS_PER_STEP = 16  # with gradient: 16 thumbs for KTO, 16 thumbs-up for SFT, 8 pairs for DPO
DEMONSTRATIONS_PER_QUESTION = 20


class Pushes:
    """Beside KTO's loss, changing nothing: how hard thumbs-up and thumbs-down push over a run, and how often z0 > 0.

    A row's push is the size of its loss's derivative with respect to its log-ratio, w beta s (1 - s).
    """

    def __init__(self):
        self.up = self.down = 0.0
        self.positive: list[bool] = []

    def __call__(self, run, batch: Mapping[str, torch.Tensor], known: Mapping[str, torch.Tensor]) -> float:
        beta, label = run.options["beta"], batch["label"]
        value = torch.sigmoid(beta * (known["policy_logps"].detach() - known["reference_logps"] - known["z0"]))
        push = beta * value * (1.0 - value)
        self.up += run.options["desirable_weight"] * float(push[label].sum())
        self.down += run.options["undesirable_weight"] * float(push[~label].sum())
        self.positive.append(float(known["z0"]) > 0.0)
        return 0.0

    def notes(self) -> dict[str, float]:
        both = self.up + self.down
        return {"push_up": self.up / both if both else 0.0, "z0_positive": statistics.mean(self.positive)}


def pairs_of(rows: Sequence[Mapping], n: int, seed: int) -> tuple[list[dict], int]:
    """n pairs drawn from all pairs of a thumbs-up and a thumbs-down on the same prompt; a thumb may come in many.

    Returns:
        (pairs, used): drawn without replacement while there are enough, then over again; and how many thumbs have a
        partner at all.
    """
    by_prompt: dict[str, tuple[list, list]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt"], ([], []))[0 if row["label"] else 1].append(row["completion"])
    every = [(prompt, up, down) for prompt, (ups, downs) in by_prompt.items() for up in ups for down in downs]
    used = sum(len(ups) + len(downs) for ups, downs in by_prompt.values() if ups and downs)
    rng, drawn = random.Random(seed), []
    while every and len(drawn) < n:
        drawn += rng.sample(every, min(len(every), n - len(drawn)))
    return [{"prompt": prompt, "chosen": up, "rejected": down} for prompt, up, down in drawn], used


def train_and_score(setting: Setting, seed: int, brief: bool = False) -> dict:
    """Trains one model and scores it exactly; the same numbers on every machine.

    Args:
        setting: of the run.
        seed: of the thumbs, their order, and the pairs.
        brief: score the trained questions alone, as the search does.

    Returns:
        A flat dict: `rows`, `up` (thumbs given, thumbs-up among them), `used` (thumbs that the method could use), and
        for each key of `SETS`, as "new wording thumbs_up" and so on, by enumeration: `thumbs_up`, `polite`, `right`,
        `listed`, `unknown` (probabilities), `kl` (to the reference, nats, a lower bound where `unknown` is not small),
        `excess_kl` (above the least KL for this thumbs-up rate, nats; 0 at the exact optimum), `length` (mean
        characters of the listed replies). KTO also has `push_up` (share of the push that thumbs-up had) and
        `z0_positive` (share of steps). `path`: scores on the way, where the setting tracks them; `z0`: notes on the
        reference point, where it is watched. brief: `rows`, `up` and "trained thumbs_up" alone.
    """
    rows = feedback(setting, seed)
    reference = reference_model(setting.small, setting.sft_steps)
    policy = reference_of(reference).requires_grad_(True)
    run = {"rows": len(rows), "up": sum(row["label"] for row in rows)}
    path: list[dict] = []

    def before(name: str) -> torch.Tensor:
        return reference_logps_on(setting.small, setting.sft_steps, name)

    def look(step: int, model: torch.nn.Module) -> None:
        if step in setting.track:
            path.append({"step": step, **measures(logps_on(model, "trained"), before("trained"), "trained")})

    options = {"steps": setting.steps, "learning_rate": setting.learning_rate, "seed": seed, "schedule": "linear"}
    callbacks = [EachStep(look)] if setting.track else []
    train = {"sft": _with_sft, "dpo": _with_dpo, "kto": _with_kto}[setting.trainer]
    run |= train(policy, reference, rows, setting, options, callbacks)
    for name in ("trained",) if brief else SETS:
        found = measures(logps_on(policy, name), before(name), name)
        run |= {f"{name} {key}": number for key, number in found.items()}
    if brief:
        run = {key: run[key] for key in ("rows", "up", "trained thumbs_up")}
    return rounded(run | ({"path": path} if path else {}))


def _with_sft(policy, reference, rows, setting: Setting, options: Mapping, callbacks: Sequence) -> dict:
    """Trains on the thumbs-up alone; fewer than a batch come again."""
    ups = [row for row in rows if row["label"]]
    repeated = ups * -(-COMPLETIONS_PER_STEP // len(ups)) if ups else []
    if ups:
        parts = Parts(callbacks=callbacks)
        train_sft(policy, repeated, load_tokenizer(), batch_size=COMPLETIONS_PER_STEP, parts=parts, **options)
    return {"used": len(ups)}


def _with_dpo(policy, reference, rows, setting: Setting, options: Mapping, callbacks: Sequence) -> dict:
    """Trains on pairs of the thumbs; without any the policy stays as it is."""
    n_pairs = COMPLETIONS_PER_STEP // 2
    pairs, used = pairs_of(rows, n_pairs * setting.steps, options["seed"])
    term = together(
        OwnThumbsUp(setting.own_sft) if setting.own_sft else None,
        Smoothing(setting.smoothing) if setting.smoothing else None,
    )
    if pairs:
        parts = Parts(callbacks=callbacks, reference_logps=scored_beforehand, extra_loss=term)
        train_dpo(policy, reference, pairs, load_tokenizer(), batch_size=n_pairs, beta=setting.beta, parts=parts,
                  **options)  # fmt: skip
    return {"used": used}


def _with_kto(policy, reference, rows, setting: Setting, options: Mapping, callbacks: Sequence) -> dict:
    """Trains on all thumbs; where the reference point is watched, its notes come back too."""
    n_up, seed, weights = sum(row["label"] for row in rows), options["seed"], (1.0, 1.0)
    if setting.weight_ratio is not None and 0 < n_up < len(rows):
        weights = balanced_weights(n_up, len(rows) - n_up, setting.weight_ratio)
    estimate = mismatched_z0
    if setting.watch_z0 or setting.z0 != "mismatched":
        def exact() -> float:
            before = reference_logps_on(setting.small, setting.sft_steps, "trained")
            return kl_of(logps_on(policy, "trained"), before)

        estimate = ReferencePoint(setting.z0, exact)
        if setting.watch_z0:
            others = probe(policy, reference, rows, COMPLETIONS_PER_STEP, seed)
            estimate = WatchedReferencePoint(setting.z0, exact, others)
    pushes, demonstrations = Pushes(), None
    if setting.demonstrations:
        demonstrations = Demonstrations(sft_rows(DEMONSTRATIONS_PER_QUESTION, seed), setting.demonstrations)
    own = OwnThumbsUp(setting.own_sft) if setting.own_sft else None
    parts = Parts(callbacks=callbacks, reference_logps=scored_beforehand, estimate_z0=estimate,
                  extra_loss=together(pushes, own, demonstrations))  # fmt: skip
    train_kto(
        policy, reference, rows, load_tokenizer(), batch_size=COMPLETIONS_PER_STEP, beta=setting.beta,
        desirable_weight=weights[0], undesirable_weight=weights[1], parts=parts, **options,
    )  # fmt: skip
    return {"used": len(rows)} | pushes.notes() | ({"z0": estimate.notes} if setting.watch_z0 else {})
