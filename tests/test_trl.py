"""Live agreement with TRL 1.16.0: its trainers and this package on the same rows, models and settings.

The letter in a test's name says what moved if it fails: (a) the collated batch, (b) sequence log-probabilities,
(c) kl, (d) the loss, (e) the rewards, (f) the gradients, (g) 20 optimiser steps. Each of (b) to (f) starts from
what TRL found one letter earlier, so only the letter that moved turns red, and (g) with it: (g) goes all the way.
"""

import pytest
import torch
import trl
from trl_setup import (
    LEARNING_RATE,
    MAX_GRAD_NORM,
    ROWS,
    STEPS,
    TOKENIZER,
    Scenario,
    float64_run_of,
    fresh_models,
    run_of,
)

from kto_utils.collator import KTOPaddingCollator, pad_rows
from kto_utils.data import tokenize_feedback
from kto_utils.logprobs import sequence_logps
from kto_utils.losses import dpo_loss, kto_loss, reference_point
from kto_utils.model import reference_of
from kto_utils.train import Batches, kto_metrics, train_dpo, train_kto

SEED = 0  # of the order in which the training loops draw their rows
MATCHED = {"input_ids": "input_ids", "attention_mask": "attention_mask", "label_mask": "completion_mask"}
MISMATCHED = {f"kl_{own}": f"KL_{theirs}" for own, theirs in MATCHED.items()}  # this package's name: TRL's name
KTO_FIELDS = MATCHED | MISMATCHED | {"label": "label"}

KTO = {
    "plain": Scenario("mixed"),
    "both_weights": Scenario("mixed", desirable_weight=1.33, undesirable_weight=0.7, beta=0.3),
    "all_desirable": Scenario("desirable", desirable_weight=0.8, undesirable_weight=1.7),
    "all_undesirable": Scenario("undesirable", desirable_weight=0.8, undesirable_weight=1.7),
    "odd_batch": Scenario("mixed", batch_size=5),
    "lengths": Scenario("lengths"),
    "truncation": Scenario("short prompts", max_length=21),
    "precomputed": Scenario("mixed", batch_size=3, desirable_weight=1.2, precompute=True),
}
APO = {
    "plain": Scenario("mixed", method="apo_zero_unpaired"),
    "both_weights": Scenario(
        "mixed", method="apo_zero_unpaired", desirable_weight=1.33, undesirable_weight=0.7, beta=0.3
    ),
    "precomputed": Scenario("mixed", method="apo_zero_unpaired", precompute=True),
}
DPO = {
    "plain": Scenario("pairs", method="dpo"),
    "beta": Scenario("pairs", method="dpo", beta=0.4),
    "odd_batch": Scenario("pairs", method="dpo", batch_size=3),
    "lengths": Scenario("long and short pairs", method="dpo"),
    "truncation": Scenario("pairs", method="dpo", max_length=21),
    "precomputed": Scenario("pairs", method="dpo", precompute=True),
}


# ---------------------------------------------------------------- this package's side


def drawn(scenario):
    """The rows of a run in the order in which this package's loops draw them; TRL reads them one after another."""
    rows = ROWS[scenario.rows]()
    batches = Batches(len(rows), scenario.batch_size, SEED)
    return [rows[i] for _ in range(STEPS) for i in batches.draw()]


def in_batches(rows, size):
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def kto_batches(scenario):
    collate = KTOPaddingCollator(TOKENIZER, scenario.max_length)
    examples = [tokenize_feedback(row, TOKENIZER) for row in drawn(scenario)]
    return [collate(batch) for batch in in_batches(examples, scenario.batch_size)]


def dpo_batches(scenario):
    """Chosen rows, then rejected rows, as `train_dpo` lays them out."""
    made = []
    for pairs in in_batches(drawn(scenario), scenario.batch_size):
        rows = [
            {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"}
            for side in ("chosen", "rejected")
            for pair in pairs
        ]
        examples = [tokenize_feedback(row, TOKENIZER) for row in rows]
        made.append(pad_rows(examples, TOKENIZER.pad_token_id, scenario.max_length))
    return made


def renamed(batch, fields):
    """TRL's batch under this package's names."""
    return {own: batch[theirs] for own, theirs in fields.items() if theirs in batch}


def kto_loss_and_kl(policy, reference, batch, scenario, kl=None):
    """The whole way from a batch to (loss, z0), with gradients wherever the package lets them through."""
    if kl is None:
        kl = reference_point(sequence_logps(policy, batch, "kl_"), sequence_logps(reference, batch, "kl_"))
    weights = scenario.desirable_weight, scenario.undesirable_weight
    logps = sequence_logps(policy, batch), sequence_logps(reference, batch)
    return kto_loss(*logps, batch["label"], kl, scenario.beta, *weights).mean(), kl


def apo_loss(policy, reference, batch, scenario):
    """apo_zero_unpaired is KTO with the reference point at 0."""
    return kto_loss_and_kl(policy, reference, batch, scenario, kl=0.0)


def pair_loss(policy, reference, batch, scenario):
    logps = *sequence_logps(policy, batch).chunk(2), *sequence_logps(reference, batch).chunk(2)
    return dpo_loss(*logps, scenario.beta).mean(), 0.0


def step_by_step(loss_of, batches, scenario, dtype=torch.float32):
    """(policy, history) of one AdamW step per batch."""
    policy, start = fresh_models(dtype)
    reference = reference_of(start)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    history = []
    for batch in batches:
        loss, kl = loss_of(policy, reference, batch, scenario)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        history.append({"loss": float(loss.detach()), "kl": float(kl)})
    return policy, history


def trained(train, scenario, **settings):
    """(policy, history) of the package's own training loop, which draws the rows of `drawn` in that order."""
    policy, start = fresh_models()
    settings |= {"beta": scenario.beta, "max_grad_norm": MAX_GRAD_NORM, "schedule": "constant", "seed": SEED}
    settings |= {"steps": STEPS, "batch_size": scenario.batch_size, "learning_rate": LEARNING_RATE}
    return train(policy, reference_of(start), ROWS[scenario.rows](), TOKENIZER, **settings)


# ---------------------------------------------------------------- what agrees


def assert_same_batches(own, theirs, fields, extra):
    assert len(own) == len(theirs) == STEPS, "TRL made another number of batches: were rows dropped?"
    for number, (mine, its) in enumerate(zip(own, theirs, strict=True)):
        assert set(its) == set(fields.values()) | extra, f"TRL's batch has other fields: {sorted(its)}"
        for field, name in fields.items():
            assert mine[field].dtype == its[name].dtype, f"{field} is {mine[field].dtype}, TRL's {its[name].dtype}"
            assert mine[field].tolist() == its[name].tolist(), (
                f"(a) moved: batch {number}, {field} (TRL: {name}) differ. kl_ fields alone: the rotation; a mask "
                "alone: where the completion starts; a shorter row: EOS or truncation; all fields: the rows' order"
            )


def assert_same_logps(own, theirs, where):
    """To 1e-6 of the sum; both sides score in float32, and a long completion reaches -440 nats."""
    worst = float(((own - theirs).abs() / theirs.abs()).max())
    assert worst < 1e-6, (
        f"(b) moved: {where} differ by {worst:.1e} of their size; look at the shift, the mask, sum or mean"
    )


def assert_same_gradients(own, theirs):
    """To 1e-4 of each parameter's largest entry."""
    assert set(own) == set(theirs)
    for name, gradient in theirs.items():
        largest = float(gradient.abs().max())
        assert largest > 0.0, f"TRL's gradient of {name} is 0; the comparison says nothing"
        worst = float((own[name] - gradient).abs().max())
        assert worst < 1e-4 * largest, (
            f"(f) moved: the gradients of {name} differ by {worst / largest:.1e} of the largest"
        )


def gradients_of(loss, policy):
    names, parameters = zip(*policy.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def assert_same_course(policy, history, run, tolerances):
    """History and final parameters against TRL's; `tolerances` by name, "parameters" among them."""
    assert len(history) == len(run.history) == STEPS
    for name in [name for name in tolerances if name != "parameters"]:
        for step, (own, theirs) in enumerate(zip(history, run.history, strict=True), start=1):
            apart = abs(own[name] - theirs[name])
            assert apart < tolerances[name], (
                f"(g) moved: {name} at step {step} is {own[name]!r}, TRL's {theirs[name]!r}. If (a) to (f) agree, "
                "look at the optimiser, clipping and the learning rate; otherwise at the first red letter"
            )
    for name, parameter in policy.named_parameters():
        apart = float((parameter.detach() - run.parameters[name]).abs().max())
        assert apart < tolerances["parameters"], f"(g) moved: {name} differs by {apart:.1e} after {STEPS} steps"


# ---------------------------------------------------------------- before comparing


def test_trl_is_the_pinned_version():
    assert trl.__version__ == "1.16.0", (
        f"trl {trl.__version__} is installed; these tests were written for 1.16.0. Install tests/requirements.txt, or "
        "move the pin there: run this file, see which letters turn red, and read what changed in TRL's "
        "kto_trainer.py and dpo_trainer.py before changing the package"
    )


def test_trl_scenarios_are_what_they_are_called_and_none_is_empty():
    runs = {name: run_of(scenario, drawn(scenario)) for name, scenario in KTO.items()}
    for name, run in runs.items():
        labels = {bool(label) for batch in run.batches for label in batch["label"]}
        assert labels == {"all_desirable": {True}, "all_undesirable": {False}}.get(name, {True, False})
        for seen in run.observed:
            assert (seen.policy[0] - seen.reference[0]).abs().max() > 0.1, f"{name}: policy and reference agree"
            assert (seen.policy[0] - seen.policy[1]).abs().max() > 0.1, f"{name}: matched and mismatched agree"
        raw = [float((seen.policy[1] - seen.reference[1]).mean()) for seen in run.observed]
        assert min(raw) < -0.1, f"{name}: no observed batch is clamped, so (c) does not see the clamp"
        assert max(raw) > 0.1, f"{name}: every observed batch is clamped, so (c) sees zeros only"
        moved = [float((p - run.parameters[n]).detach().abs().max()) for n, p in fresh_models()[0].named_parameters()]
        assert min(moved) > 1e-3, f"{name}: a parameter stayed where it was, so (g) says little"
    kls = [row["kl"] for run in runs.values() for row in run.history]
    assert min(kls) == 0.0 < max(kls), "(g) needs steps with kl clamped and with kl above 0"
    lengths = {int(n) for batch in runs["lengths"].batches for n in batch["attention_mask"].sum(-1)}
    assert min(lengths) * 10 < max(lengths)
    whole, cut = KTO["truncation"], runs["truncation"].batches
    full = {len(tokenize_feedback(row, TOKENIZER)["input_ids"]) for row in ROWS[whole.rows]()}
    assert min(full) < whole.max_length < max(full)
    assert {int(n) for batch in cut for n in batch["attention_mask"].sum(-1)} >= {min(full), whole.max_length}


# ---------------------------------------------------------------- KTO


def kto_case(name):
    return KTO[name], run_of(KTO[name], drawn(KTO[name]))


@pytest.mark.parametrize("name", KTO)
def test_trl_a_collated_batches_agree_field_by_field(name):
    scenario, run = kto_case(name)
    extra = {"ref_logps", "ref_KL_logps"} if scenario.precompute else set()
    assert_same_batches(kto_batches(scenario), run.batches, KTO_FIELDS, extra)


@pytest.mark.parametrize("name", KTO)
def test_trl_b_sequence_log_probabilities_agree(name):
    _, run = kto_case(name)
    policy, start = fresh_models()
    reference = reference_of(start)
    with torch.no_grad():  # around ours alone: TRL's own run, made on first use, needs gradients
        for batch, seen in zip(run.batches, run.observed, strict=False):
            own = renamed(batch, KTO_FIELDS)
            for prefix, policy_logps, reference_logps in zip(("", "kl_"), seen.policy, seen.reference, strict=True):
                assert_same_logps(sequence_logps(policy, own, prefix), policy_logps, f"{prefix or 'the '}rows' logps")
                assert_same_logps(sequence_logps(reference, own, prefix), reference_logps, "the reference's logps")
            for side, members in (("chosen", own["label"]), ("rejected", ~own["label"])):
                if members.any():  # what its loss itself has used
                    logged = torch.tensor(seen.metrics[f"logps/{side}"])
                    assert_same_logps(sequence_logps(policy, own)[members].mean(), logged, f"logps/{side}")


@pytest.mark.parametrize("name", KTO)
def test_trl_c_kl_of_the_same_log_probabilities_agrees(name):
    _, run = kto_case(name)
    for seen in run.observed:
        kl = float(reference_point(seen.policy[1], seen.reference[1]))
        assert kl == pytest.approx(seen.metrics["kl"], abs=1e-6), (
            "(c) moved: look at the clamp, and whether it comes after the mean"
        )


@pytest.mark.parametrize("name", KTO)
def test_trl_d_loss_of_the_same_log_probabilities_and_kl_agrees(name):
    scenario, run = kto_case(name)
    weights = scenario.desirable_weight, scenario.undesirable_weight
    for batch, seen in zip(run.batches, run.observed, strict=False):
        loss = kto_loss(
            seen.policy[0], seen.reference[0], batch["label"], seen.metrics["kl"], scenario.beta, *weights
        ).mean()
        assert float(loss) == pytest.approx(seen.loss, abs=1e-6), (
            "(d) moved: look at beta, the sign of each side, the weight of each side, the mean over rows"
        )


@pytest.mark.parametrize("name", KTO)
def test_trl_e_rewards_of_the_same_log_probabilities_agree(name):
    scenario, run = kto_case(name)
    for batch, seen in zip(run.batches, run.observed, strict=False):
        logratio, kl = seen.policy[0] - seen.reference[0], torch.tensor(seen.metrics["kl"])
        own = kto_metrics(logratio, batch["label"], kl, scenario.beta)
        for mine, its in (("reward_desirable", "rewards/chosen"), ("reward_undesirable", "rewards/rejected")):
            expected = seen.metrics.get(its, float("nan"))  # TRL leaves out what a one-sided batch does not have
            assert own[mine] == pytest.approx(expected, abs=1e-6, nan_ok=True), f"(e) moved: {mine}, TRL's {its}"


@pytest.mark.parametrize("name", KTO)
def test_trl_f_gradients_of_the_same_batch_and_kl_agree(name):
    scenario, run = kto_case(name)
    policy, start = fresh_models()
    reference = reference_of(start)
    for batch, seen in zip(run.batches, run.observed, strict=False):
        own = renamed(batch, KTO_FIELDS)
        loss, _ = kto_loss_and_kl(policy, reference, own, scenario, kl=seen.metrics["kl"])
        assert_same_gradients(gradients_of(loss, policy), seen.gradients)


def test_trl_f_no_gradient_flows_through_the_reference_point():
    scenario, run = kto_case("plain")
    policy, start = fresh_models()
    reference = reference_of(start)
    positive = [i for i, seen in enumerate(run.observed) if seen.metrics["kl"] > 0.0]
    assert positive, "kl is clamped in every observed batch, and a clamped kl has no gradient anyway"
    for i in positive:
        batch = renamed(run.batches[i], KTO_FIELDS)
        loss, kl = kto_loss_and_kl(policy, reference, batch, scenario)
        assert not kl.requires_grad, "(f) moved: reference_point hands out a z0 that carries a gradient"
        assert_same_gradients(gradients_of(loss, policy), run.observed[i].gradients)
        attached = (sequence_logps(policy, batch, "kl_") - sequence_logps(reference, batch, "kl_")).mean()
        loss, _ = kto_loss_and_kl(policy, reference, batch, scenario, kl=attached)  # kto_loss has to cut it too
        assert_same_gradients(gradients_of(loss, policy), run.observed[i].gradients)


@pytest.mark.parametrize("name", KTO)
def test_trl_g_twenty_steps_agree(name):
    scenario, run = kto_case(name)
    if scenario.max_length is None:
        weights = {"desirable_weight": scenario.desirable_weight, "undesirable_weight": scenario.undesirable_weight}
        policy, history = trained(train_kto, scenario, **weights)
    else:  # the package's loop does not truncate
        policy, history = step_by_step(kto_loss_and_kl, kto_batches(scenario), scenario)
    assert_same_course(policy, history, run, {"loss": 1e-5, "kl": 1e-4, "parameters": 1e-4})


# TRL rounds precomputed log-probabilities to float32 when it collates them, so that scenario is left out.
@pytest.mark.parametrize("name", [name for name in KTO if not KTO[name].precompute])
def test_trl_g_twenty_steps_in_float64_agree_to_ten_digits(name):
    scenario = KTO[name]
    run = float64_run_of(scenario, drawn(scenario))
    policy, history = step_by_step(kto_loss_and_kl, kto_batches(scenario), scenario, torch.float64)
    assert_same_course(policy, history, run, {"loss": 1e-10, "kl": 1e-10, "parameters": 1e-10})


# ---------------------------------------------------------------- apo_zero_unpaired: KTO with z0 = 0


def apo_case(name):
    return APO[name], run_of(APO[name], drawn(APO[name]))


@pytest.mark.parametrize("name", APO)
def test_trl_apo_a_collated_batches_have_no_mismatched_rows_and_agree_otherwise(name):
    scenario, run = apo_case(name)
    extra = {"ref_logps"} if scenario.precompute else set()
    assert_same_batches(kto_batches(scenario), run.batches, MATCHED | {"label": "label"}, extra)


@pytest.mark.parametrize("name", APO)
def test_trl_apo_d_loss_is_the_kto_loss_with_reference_point_zero(name):
    scenario, run = apo_case(name)
    weights = scenario.desirable_weight, scenario.undesirable_weight
    for batch, seen in zip(run.batches, run.observed, strict=False):
        loss = kto_loss(seen.policy[0], seen.reference[0], batch["label"], 0.0, scenario.beta, *weights).mean()
        assert float(loss) == pytest.approx(seen.loss, abs=1e-6), "(d) moved: look at beta, signs and weights"


@pytest.mark.parametrize("name", APO)
def test_trl_apo_f_gradients_of_the_same_batch_agree(name):
    scenario, run = apo_case(name)
    policy, start = fresh_models()
    reference = reference_of(start)
    for batch, seen in zip(run.batches, run.observed, strict=False):
        loss, _ = apo_loss(policy, reference, renamed(batch, KTO_FIELDS), scenario)
        assert_same_gradients(gradients_of(loss, policy), seen.gradients)


@pytest.mark.parametrize("name", APO)
def test_trl_apo_g_twenty_steps_agree(name):
    scenario, run = apo_case(name)
    policy, history = step_by_step(apo_loss, kto_batches(scenario), scenario)
    assert_same_course(policy, history, run, {"loss": 1e-5, "parameters": 1e-4})


@pytest.mark.parametrize("name", [name for name in APO if not APO[name].precompute])
def test_trl_apo_g_twenty_steps_in_float64_agree_to_ten_digits(name):
    scenario = APO[name]
    run = float64_run_of(scenario, drawn(scenario))
    policy, history = step_by_step(apo_loss, kto_batches(scenario), scenario, torch.float64)
    assert_same_course(policy, history, run, {"loss": 1e-10, "parameters": 1e-10})


# ---------------------------------------------------------------- DPO


def dpo_case(name):
    return DPO[name], run_of(DPO[name], drawn(DPO[name]))


@pytest.mark.parametrize("name", DPO)
def test_trl_dpo_a_collated_batches_agree_field_by_field(name):
    scenario, run = dpo_case(name)
    extra = {"ref_chosen_logps", "ref_rejected_logps"} if scenario.precompute else set()
    assert_same_batches(dpo_batches(scenario), run.batches, MATCHED, extra)


@pytest.mark.parametrize("name", DPO)
def test_trl_dpo_b_sequence_log_probabilities_agree(name):
    _, run = dpo_case(name)
    policy, start = fresh_models()
    reference = reference_of(start)
    with torch.no_grad():  # around ours alone: TRL's own run, made on first use, needs gradients
        for batch, seen in zip(run.batches, run.observed, strict=False):
            own = renamed(batch, MATCHED)
            assert_same_logps(sequence_logps(policy, own), torch.cat(seen.policy), "the policy's logps")
            assert_same_logps(sequence_logps(reference, own), torch.cat(seen.reference), "the reference's logps")
            for side, logps in zip(("chosen", "rejected"), sequence_logps(policy, own).chunk(2), strict=True):
                assert_same_logps(logps.mean(), torch.tensor(seen.metrics[f"logps/{side}"]), f"logps/{side}")


@pytest.mark.parametrize("name", DPO)
def test_trl_dpo_d_loss_of_the_same_log_probabilities_agrees(name):
    scenario, run = dpo_case(name)
    for seen in run.observed:
        loss = dpo_loss(*seen.policy, *seen.reference, scenario.beta).mean()
        assert float(loss) == pytest.approx(seen.loss, abs=1e-6), "(d) moved: look at beta and the order of the pair"


@pytest.mark.parametrize("name", DPO)
def test_trl_dpo_f_gradients_of_the_same_batch_agree(name):
    scenario, run = dpo_case(name)
    policy, start = fresh_models()
    reference = reference_of(start)
    for batch, seen in zip(run.batches, run.observed, strict=False):
        loss, _ = pair_loss(policy, reference, renamed(batch, MATCHED), scenario)
        assert_same_gradients(gradients_of(loss, policy), seen.gradients)


@pytest.mark.parametrize("name", DPO)
def test_trl_dpo_g_twenty_steps_agree(name):
    scenario, run = dpo_case(name)
    if scenario.max_length is None:
        policy, history = trained(train_dpo, scenario)
    else:  # the package's loop does not truncate
        policy, history = step_by_step(pair_loss, dpo_batches(scenario), scenario)
    assert_same_course(policy, history, run, {"loss": 1e-5, "parameters": 1e-4})


@pytest.mark.parametrize("name", [name for name in DPO if DPO[name].max_length is None])
def test_trl_dpo_e_rewards_in_the_training_history_agree(name):
    scenario, run = dpo_case(name)
    _, history = trained(train_dpo, scenario)
    for step, (own, theirs) in enumerate(zip(history, run.history, strict=True), start=1):
        for mine, its in (("reward_chosen", "rewards/chosen"), ("reward_rejected", "rewards/rejected")):
            assert own[mine] == pytest.approx(theirs[its], abs=1e-4), f"(e) moved: {mine} at step {step}, TRL's {its}"


@pytest.mark.parametrize("name", [name for name in DPO if not DPO[name].precompute])
def test_trl_dpo_g_twenty_steps_in_float64_agree_to_ten_digits(name):
    scenario = DPO[name]
    run = float64_run_of(scenario, drawn(scenario))
    policy, history = step_by_step(pair_loss, dpo_batches(scenario), scenario, torch.float64)
    assert_same_course(policy, history, run, {"loss": 1e-10, "parameters": 1e-10})
