"""One run: a model trained under one condition with one method and one seed, and scored exactly."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from kto_lab.experiments.protocol import Setting, setting_of
from kto_lab.experiments.reference_points import WatchedReferencePoint, probe
from kto_lab.experiments.scores import (
    logps_on,
    measures,
    policy_scores,
    reference_logps_on,
    reference_model,
    rounded,
)
from kto_lab.experiments.thumbs import feedback
from kto_lab.extra_terms import Demonstrations
from kto_lab.looking import EachStep
from kto_lab.scored_reference import scored_beforehand
from kto_utils.data import pair_up
from kto_utils.evaluate import kl_of
from kto_utils.losses import balanced_weights
from kto_utils.model import reference_of
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import Parts, mismatched_z0, train_dpo, train_kto
from kto_utils.world import sft_rows

COMPLETIONS_PER_STEP = 16  # with gradient: 16 thumbs for KTO, 8 pairs for DPO
DEMONSTRATIONS_PER_QUESTION = 20


def train_and_score(name: str, condition: str, method: str, seed: int, learning_rate: float, beta: float) -> dict:
    """Trains one model and scores it exactly; the same numbers on every machine.

    Args:
        name, condition, method: of `EXPERIMENTS`.
        seed: of the thumbs, their order, and the pairs.
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
    rows = feedback(setting, seed)
    reference = reference_model(setting.small, setting.sft_steps)
    policy = reference_of(reference).requires_grad_(True)
    run = {
        "experiment": name, "condition": condition, "method": method, "seed": seed, "learning_rate": learning_rate,
        "beta": beta, "rows": len(rows), "up": sum(row["label"] for row in rows),
    }  # fmt: skip
    path: list[dict] = []

    def look(step: int, model: torch.nn.Module) -> None:
        if step in setting.track:
            before = reference_logps_on(setting.small, setting.sft_steps, "trained")
            path.append({"step": step, **measures(logps_on(model, "trained"), before, "trained")})

    options = {
        "steps": setting.steps, "learning_rate": learning_rate, "beta": beta, "seed": seed, "schedule": "linear",
        "parts": Parts(callbacks=[EachStep(look)], reference_logps=scored_beforehand),
    }  # fmt: skip
    if method.startswith("dpo"):
        run |= _with_dpo(policy, reference, rows, options)
    else:
        run |= _with_kto(policy, reference, rows, setting, options, watched=name == "reference point")
    scores = policy_scores(policy, reference, setting.small, setting.sft_steps, seed)
    return rounded(run | scores | ({"path": path} if path else {}))


def _with_dpo(policy: torch.nn.Module, reference: torch.nn.Module, rows: Sequence[Mapping], options: Mapping) -> dict:
    """Trains on the pairs that the thumbs give; without any the policy stays as it is."""
    pairs, _ = pair_up(rows, options["seed"])
    n_pairs = COMPLETIONS_PER_STEP // 2
    if pairs:
        repeated = pairs * math.ceil(n_pairs / len(pairs))  # fewer pairs than a batch: they come again
        train_dpo(policy, reference, repeated, load_tokenizer(), batch_size=n_pairs, **options)
    return {"used": 2 * len(pairs)}


def _with_kto(
    policy: torch.nn.Module,
    reference: torch.nn.Module,
    rows: Sequence[Mapping],
    setting: Setting,
    options: Mapping,
    watched: bool,
) -> dict:
    """Trains on all thumbs; where the reference point is watched, its notes come back too."""
    n_up, seed, weights = sum(row["label"] for row in rows), options["seed"], (1.0, 1.0)
    if setting.weight_ratio is not None and 0 < n_up < len(rows):
        weights = balanced_weights(n_up, len(rows) - n_up, setting.weight_ratio)
    estimate, demonstrations = mismatched_z0, None
    if watched:
        before = reference_logps_on(setting.small, setting.sft_steps, "trained")
        others = probe(policy, reference, rows, COMPLETIONS_PER_STEP, seed)
        estimate = WatchedReferencePoint(setting.z0, lambda: kl_of(logps_on(policy, "trained"), before), others)
    if setting.sft_weight:
        demonstrations = Demonstrations(sft_rows(DEMONSTRATIONS_PER_QUESTION, seed), setting.sft_weight)
    parts = replace(options["parts"], estimate_z0=estimate, extra_loss=demonstrations)
    train_kto(
        policy, reference, rows, load_tokenizer(), batch_size=COMPLETIONS_PER_STEP, desirable_weight=weights[0],
        undesirable_weight=weights[1], **{**options, "parts": parts},
    )  # fmt: skip
    return {"used": len(rows)} | ({"z0": estimate.notes} if watched else {})
