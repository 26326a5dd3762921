"""KTO's neighbours (kto_lab.neighbours): TRL 1.16's losses and advantages, closed forms, and what they are asked."""

import functools
import math
import os
import tempfile
from functools import partial
from unittest import mock

import datasets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl_setup import ROWS, TOKENIZER, Scenario, fresh_models, observed_of, quiet

from kto_lab import neighbours
from kto_lab.neighbours import Pairs
from kto_utils.losses import kto_loss

with mock.patch.dict(os.environ, {"TRL_EXPERIMENTAL_SILENCE": "1"}):
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

nats = st.floats(-60.0, -0.5, allow_subnormal=False)
betas = st.floats(0.05, 2.0)
chances = st.floats(0.0, 0.45)


def t(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def pair(*numbers):
    """One pair: log-probabilities of chosen and rejected, of both under the reference, and two numbers of tokens."""
    return Pairs(*(t(number) for number in numbers))


pair_of_replies = st.builds(pair, nats, nats, nats, nats, st.integers(1, 30), st.integers(1, 30))


# ---------------------------------------------------------------- TRL's DPO trainer

LONG_AND_SHORT = partial(Scenario, "long and short pairs", batch_size=3)  # so that sum and mean are told apart
IN_TRL = {
    "sigmoid": (LONG_AND_SHORT("dpo", beta=0.3), partial(neighbours.dpo, beta=0.3)),
    "ipo": (LONG_AND_SHORT("ipo", beta=0.4), partial(neighbours.ipo, tau=0.4, per_token=True)),
    "robust": (LONG_AND_SHORT("robust", beta=0.3, flipped=0.2), partial(neighbours.robust, beta=0.3, flipped=0.2)),
    "apo_zero": (LONG_AND_SHORT("apo_zero", beta=0.3), partial(neighbours.apo_zero, beta=0.3)),
}


def pairs_of(batch, observed):
    """What TRL found of a batch, as `Pairs`. TRL's batch has the chosen replies first."""
    tokens = batch["completion_mask"].sum(1).chunk(2)
    return Pairs(*(values.double() for values in (*observed.policy, *observed.reference, *tokens)))


@pytest.mark.parametrize("name", IN_TRL)
def test_a_loss_is_the_one_of_trls_dpo_trainer(name):
    scenario, ours = IN_TRL[name]
    for batch, observed in observed_of(scenario):
        assert float(ours(pairs_of(batch, observed)).mean()) == pytest.approx(observed.loss, rel=2e-6)


def test_the_comparison_with_trl_tells_ipos_sum_from_its_mean_and_a_wrong_beta():
    scenario, _ = IN_TRL["ipo"]
    batch, observed = observed_of(scenario)[0]
    for wrong in (partial(neighbours.ipo, tau=0.4), partial(neighbours.ipo, tau=0.41, per_token=True)):
        assert float(wrong(pairs_of(batch, observed)).mean()) != pytest.approx(observed.loss, rel=1e-3)


def test_trls_sigmoid_ignores_label_smoothing_so_it_has_no_cdpo():
    scenario = LONG_AND_SHORT("dpo", beta=0.3, flipped=0.2)
    for batch, observed in observed_of(scenario):
        found = pairs_of(batch, observed)
        assert float(neighbours.dpo(found, 0.3).mean()) == pytest.approx(observed.loss, rel=2e-6)
        assert float(neighbours.cdpo(found, 0.3, 0.2).mean()) != pytest.approx(observed.loss, rel=1e-3)


# ---------------------------------------------------------------- TRL's CPO and ORPO trainers


@functools.cache
def without_reference(trainer_class, config_class, **settings):
    """(pair, loss, nll) of TRL's batches of one pair: what its forward pass found, its loss, its SFT term."""
    policy, _ = fresh_models()
    with tempfile.TemporaryDirectory() as folder, quiet():
        args = config_class(
            output_dir=folder, use_cpu=True, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True,
            gradient_checkpointing=False, per_device_train_batch_size=1, max_steps=1, **settings,
        )  # fmt: skip
        rows = datasets.Dataset.from_list(ROWS["long and short pairs"]()[6:12])
        trainer = trainer_class(model=policy, args=args, train_dataset=rows, processing_class=TOKENIZER)
        found = []
        for batch in trainer.get_train_dataloader():
            with torch.no_grad():
                logps = trainer.concatenated_forward(trainer.model, batch)[:2]
                loss, metrics = trainer.get_batch_loss_metrics(trainer.model, batch)
            tokens = [(batch[f"{side}_labels"] != -100).sum(1) for side in ("chosen", "rejected")]
            found.append((logps, tokens, float(loss), metrics["nll_loss"]))
        return found


def as_pairs(logps, tokens, are_means):
    chosen, rejected = (x.double() * (n if are_means else 1) for x, n in zip(logps, tokens, strict=True))
    return Pairs(chosen, rejected, t(0.0), t(0.0), *tokens)  # no reference


def test_simpo_is_trls():
    settings = {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": 0.5, "beta": 2.5}
    for logps, tokens, loss, _ in without_reference(CPOTrainer, CPOConfig, **settings):
        ours = neighbours.simpo(as_pairs(logps, tokens, are_means=True), beta=2.5, gamma=0.5)
        assert float(ours) == pytest.approx(loss, rel=1e-5)


def test_cpo_is_trls_of_a_single_pair():
    for logps, tokens, loss, _ in without_reference(CPOTrainer, CPOConfig, beta=0.2, cpo_alpha=0.7):
        ours = neighbours.cpo(as_pairs(logps, tokens, are_means=False), beta=0.2, weight=0.7)
        assert float(ours) == pytest.approx(loss, rel=1e-5)


def test_orpo_is_trls_but_for_the_prompts_tokens_in_its_sft_term():
    for logps, tokens, loss, nll in without_reference(ORPOTrainer, ORPOConfig, beta=0.3):
        pairs = as_pairs(logps, tokens, are_means=True)
        ours, sft = float(neighbours.orpo(pairs, weight=0.3)), -float(pairs.means[0])
        assert ours - sft == pytest.approx(loss - nll, rel=1e-4)
        assert abs(sft - nll) > 1e-3


# ---------------------------------------------------------------- TRL's GRPO and RLOO trainers


@pytest.mark.parametrize(
    ("trainer_class", "config_class", "ours", "tolerance"),
    [(RLOOTrainer, RLOOConfig, neighbours.rloo_advantage, 1e-5),
     (GRPOTrainer, GRPOConfig, neighbours.grpo_advantage, 2e-3)],  # TRL adds 1e-4 to the standard deviation
)  # fmt: skip
def test_an_advantage_is_trls(trainer_class, config_class, ours, tolerance):
    def reward(completions, **_):
        return [0.0 if number < 4 else float(len(text) % 7) for number, text in enumerate(completions)]

    policy, _ = fresh_models()
    rows = datasets.Dataset.from_list([{"prompt": row["prompt"]} for row in ROWS["pairs"]()[:3]])
    with tempfile.TemporaryDirectory() as folder, quiet():
        args = config_class(
            output_dir=folder, use_cpu=True, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True,
            gradient_checkpointing=False, per_device_train_batch_size=12, num_generations=4, max_completion_length=8,
            max_steps=1, beta=0.0,
        )  # fmt: skip
        trainer = trainer_class(
            model=policy, args=args, train_dataset=rows, processing_class=TOKENIZER, reward_funcs=reward
        )
        trainer.train()
    rewards, found = t(*trainer._logs["rewards"]["reward"]), t(*trainer._logs["advantages"])
    assert (rewards.view(3, 4).std(-1) > 0).tolist() == [False, True, True]  # one group of equal rewards is among them
    torch.testing.assert_close(ours(rewards.view(3, 4)).flatten(), found, rtol=tolerance, atol=1e-6)


# ---------------------------------------------------------------- closed forms


@given(pair_of_replies, betas, chances)
def test_robusts_mean_over_flips_is_dpos_loss_and_cdpo_is_dpos_mean_over_flips(pairs, beta, chance):
    turned = Pairs(*(pairs[i] for i in (1, 0, 3, 2, 5, 4)))
    mean = (1 - chance) * neighbours.robust(pairs, beta, chance) + chance * neighbours.robust(turned, beta, chance)
    torch.testing.assert_close(mean, neighbours.dpo(pairs, beta))
    both = (1 - chance) * neighbours.dpo(pairs, beta) + chance * neighbours.dpo(turned, beta)
    torch.testing.assert_close(neighbours.cdpo(pairs, beta, chance), both)


def test_simpo_and_orpo_by_hand():
    args = pair(-12.0, -15.0, 0.0, 0.0, 10, 5)
    simpo = math.log(1 + math.exp(-(2.0 * (-1.2 + 3.0) - 1.0)))
    assert float(neighbours.simpo(args)) == pytest.approx(simpo)
    odds = [math.exp(m) / (1 - math.exp(m)) for m in (-1.2, -3.0)]
    assert float(neighbours.orpo(args)) == pytest.approx(1.2 + 0.1 * math.log(1 + odds[1] / odds[0]))


@given(nats, nats, nats, nats, betas)
def test_apo_zero_is_two_rows_of_kto_with_z0_0_in_loss_and_gradient(chosen, rejected, ref_chosen, ref_rejected, beta):
    inputs = [t(x).requires_grad_() for x in (chosen, rejected)]
    fixed = t(ref_chosen), t(ref_rejected)
    up = torch.ones(1, dtype=torch.bool)
    theirs = neighbours.apo_zero(Pairs(*inputs, *fixed, t(1), t(1)), beta)
    ours = kto_loss(inputs[0], fixed[0], up, 0.0, beta) + kto_loss(inputs[1], fixed[1], ~up, 0.0, beta)
    torch.testing.assert_close(theirs, ours)
    torch.testing.assert_close(torch.autograd.grad(theirs, inputs), torch.autograd.grad(ours, inputs))


def test_bcos_delta_lies_midway_between_the_kinds_and_leaves_both_with_the_same_loss_there():
    reward, label = t(3.0, 5.0, -2.0, -1.0, -6.0), torch.tensor([True, True, False, False, False])
    shift = neighbours.bco_shift(reward.requires_grad_(), label)
    assert float(shift) == pytest.approx((4.0 - 3.0) / 2)
    assert not shift.requires_grad
    two = neighbours.bco(t(4.0, -3.0), torch.tensor([True, False]), shift)
    assert two.tolist() == pytest.approx([math.log(1 + math.exp(-3.5))] * 2)
    for one_kind in (label | True, label & False):
        with pytest.raises(ValueError, match="both kinds"):
            neighbours.bco_shift(reward, one_kind)


@given(st.floats(-50.0, 50.0), st.floats(-5.0, 5.0))
def test_bco_keeps_its_push_where_kto_lets_go(reward, shift):
    for up in (True, False):
        x = t(reward).requires_grad_()
        neighbours.bco(x, torch.tensor([up]), shift).sum().backward()
        distance = (reward - shift) * (1 if up else -1)  # on the good side
        assert abs(float(x.grad)) == pytest.approx(1 / (1 + math.exp(distance)), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("name", "pulls_back"), [("dpo", False), ("cdpo", True), ("robust", False), ("ipo", True)])
def test_who_pulls_a_pair_back_that_is_far_enough_apart(name, pulls_back):
    lead = t(100.0).requires_grad_()
    getattr(neighbours, name)(Pairs(lead, t(0.0), t(0.0), t(0.0), t(10), t(10))).sum().backward()
    assert (float(lead.grad) > 0) is pulls_back


def test_advantages_by_hand():
    rewards = t([1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0])
    third = 1 / 3
    assert neighbours.rloo_advantage(rewards)[0].tolist() == pytest.approx(
        [2 * third, -2 * third, -2 * third, 2 * third]
    )
    assert neighbours.grpo_advantage(rewards)[0].tolist() == pytest.approx(
        [math.sqrt(3) / 2 * s for s in (1, -1, -1, 1)]
    )
    for advantage in (neighbours.rloo_advantage, neighbours.grpo_advantage):
        assert advantage(rewards)[1].tolist() == [0.0] * 4


# ---------------------------------------------------------------- asking a loss


@pytest.mark.parametrize(
    ("loss", "reference", "pairs", "normalised", "sees_both_fall"),
    [
        (neighbours.dpo, True, True, False, False),
        (neighbours.cdpo, True, True, False, False),
        (neighbours.robust, True, True, False, False),
        (neighbours.ipo, True, True, False, False),
        (partial(neighbours.ipo, per_token=True), True, True, True, False),
        (neighbours.simpo, False, True, True, False),
        (neighbours.orpo, False, True, True, True),
        (neighbours.cpo, False, True, False, True),
        (neighbours.apo_zero, True, False, False, True),
    ],
)
def test_the_neighbours_sit_where_the_table_says(loss, reference, pairs, normalised, sees_both_fall):
    assert list(neighbours.describe(loss).values()) == [reference, pairs, normalised, sees_both_fall]
