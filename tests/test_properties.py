"""The 41 properties of the project's fact sheet, which numbers them, on random inputs and through the whole path.

Grouped by what they protect. "Through the path" means tokenize_feedback -> KTOPaddingCollator -> a small random
Llama in float64 -> sequence_logps -> reference_point and kto_loss, or train_kto itself. None of the tests here
knows in which direction completions are rotated; test_collator.py pins that.
"""

import copy
import functools
import math
import random
import re
import tempfile
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, assume, example, given, settings
from hypothesis import strategies as st

from kto_utils import train, world
from kto_utils.collator import KTOPaddingCollator
from kto_utils.data import load_eight_rows, tokenize_feedback, unpair
from kto_utils.logprobs import get_probs, sequence_logps
from kto_utils.losses import BAND_CURRENT, BAND_V1, balanced_weights, dpo_loss, kto_loss, reference_point
from kto_utils.model import load_reference_model, reference_of, tiny_llama, to_float64
from kto_utils.prospect import value, weight
from kto_utils.tokenizer import BOS_ID, EOS_ID, load_tokenizer, train_bpe

F64 = torch.float64
TOKENIZER = load_tokenizer()
QUESTIONS = world.all_questions()

# ---------------------------------------------------------------- random inputs

nats = st.floats(-60.0, 60.0, allow_subnormal=False)
weights = st.floats(0.1, 20.0)
betas = st.floats(0.01, 1.0)
small_betas = st.floats(0.01, 0.2)  # |u| below 18: further out autograd's y * (1 - y) loses digits, then all
seeds = st.integers(0, 2**31)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["<eos>", " <bos> ", "USER:", " It is", "blue. ", "ASSISTANT: ", "\n", "<", "\x00"]
)
VISIBLE = TEXT.filter(str.strip)

# A model runs for each example, and a smaller failing seed says nothing: few examples, no shrinking.
few = settings(max_examples=8, phases=(Phase.explicit, Phase.generate))


def t(*numbers):
    return torch.tensor(numbers, dtype=F64)


@st.composite
def batches(draw, smallest=1, betas=betas):
    """(r, label, z0, beta, lambda_D, lambda_U) of 1 to 9 rows."""
    n = draw(st.integers(smallest, 9))
    r = torch.tensor(draw(st.lists(nats, min_size=n, max_size=n)), dtype=F64)
    label = torch.tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    return r, label, draw(st.floats(0.0, 30.0)), draw(betas), draw(weights), draw(weights)


def random_rows(seed, n):
    """n feedback rows, thumbs of both kinds: replies of the small world, every fourth one free text."""
    rng = random.Random(seed)
    labels = [True, False, *(rng.random() < 0.5 for _ in range(n - 2))]
    rng.shuffle(labels)
    rows = []
    for label in labels:
        question = rng.choice(QUESTIONS)
        completion = rng.choice(world.replies(question)).text
        if rng.random() < 0.25:
            completion = " " + "".join(rng.choice("abz Ü9?\n€") for _ in range(rng.randint(1, 12))) + "."
        rows.append({"prompt": question.prompt, "completion": completion, "label": label})
    return rows


feedback = st.builds(random_rows, seeds, st.integers(2, 6))


def random_pairs(seed, n):
    rng = random.Random(seed)
    pairs = []
    for question in rng.choices(world.trained_questions(), k=n):
        up, down = (
            rng.choice([reply.text for reply in world.replies(question) if reply.thumbs_up is liked])
            for liked in (True, False)
        )
        pairs.append({"prompt": question.prompt, "chosen": up, "rejected": down})
    return pairs


# ---------------------------------------------------------------- the path


def noisy_llama(seed, size, dtype=F64, hidden=16):
    """A frozen random Llama whose logits are far from uniform."""
    model = tiny_llama(512, hidden_size=hidden, intermediate_size=32, num_heads=2, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=F64).to(dtype))
    return (to_float64(model) if dtype == F64 else model).requires_grad_(False)


# The reference is the sharper one: then the mismatched log-ratios have a mean above 0, and the clamp is not active.
POLICY, REFERENCE = noisy_llama(1, 0.15), noisy_llama(2, 0.25)


def trainable(model):
    return copy.deepcopy(model).requires_grad_(True)


def collated(rows, tokenizer=TOKENIZER):
    return KTOPaddingCollator(tokenizer)([tokenize_feedback(row, TOKENIZER) for row in rows])


def logratios(batch, prefix="", policy=POLICY, reference=REFERENCE):
    with torch.no_grad():
        return sequence_logps(policy, batch, prefix) - sequence_logps(reference, batch, prefix)


def point_of(batch, policy=POLICY, reference=REFERENCE):
    with torch.no_grad():
        return reference_point(sequence_logps(policy, batch, "kl_"), sequence_logps(reference, batch, "kl_"))


def losses_of(batch, z0=None, policy=POLICY, reference=REFERENCE, **settings):
    """KTO losses of a collated batch, with a graph if the policy can be trained; z0 is estimated unless given."""
    z0 = point_of(batch, policy, reference) if z0 is None else z0
    with torch.no_grad():
        reference_logps = sequence_logps(reference, batch)
    return kto_loss(sequence_logps(policy, batch), reference_logps, batch["label"], z0, **settings)


def gradients_of(policy, loss):
    policy.zero_grad(set_to_none=True)
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])


def one_step(rows, policy, reference, **settings):
    """History row of one step of train_kto on all rows as one batch."""
    return train.train_kto(policy, reference, rows, TOKENIZER, steps=1, batch_size=len(rows), **settings)[1][0]


def plain_ids(text):
    return TOKENIZER.encode(text, add_special_tokens=False, split_special_tokens=True)


def by_hand(model, row):
    """log pi(completion | prompt) of one row alone, by the library's cross-entropy: no batch, mask or padding."""
    prompt, completion = plain_ids(row["prompt"]), plain_ids(row["completion"])
    ids = torch.tensor([BOS_ID, *prompt, *completion, EOS_ID])
    with torch.no_grad():
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
    return -float(F.cross_entropy(logits[len(prompt) : -1], ids[len(prompt) + 1 :], reduction="sum"))


def logratio_by_hand(row, policy=POLICY, reference=REFERENCE):
    return by_hand(policy, row) - by_hand(reference, row)


class Nudged(torch.nn.Module):
    """A model with `delta` added to its logits: the gradient of delta shows which logits a score reads."""

    def __init__(self, model, delta):
        super().__init__()
        self.model, self.delta = model, delta

    def forward(self, **inputs):
        return SimpleNamespace(logits=self.model(**inputs).logits + self.delta)


class Knows(torch.nn.Module):
    """Is certain that token t + `ahead` follows at place t."""

    def __init__(self, ahead):
        super().__init__()
        self.ahead = ahead

    def forward(self, input_ids, **_):
        return SimpleNamespace(logits=40.0 * F.one_hot(input_ids.roll(-self.ahead, dims=1), 512).double())


def logit_gradient(batch):
    delta = torch.zeros(*batch["input_ids"].shape, 512, dtype=F64, requires_grad=True)
    sequence_logps(Nudged(POLICY, delta), batch).sum().backward()
    return delta.grad


# ---------------------------------------------------------------- formulas


def loss_of(r, label, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    return kto_loss(r, torch.zeros_like(r), label, z0, beta, desirable_weight, undesirable_weight)


def gradient_of(r, *settings):
    free = r.clone().requires_grad_()
    loss_of(free, *settings).mean().backward()
    return free.grad


def sides(label, desirable_weight, undesirable_weight):
    """(s, w) of each row, by a loop."""
    s = t(*[1.0 if up else -1.0 for up in label.tolist()])
    w = t(*[desirable_weight if up else undesirable_weight for up in label.tolist()])
    return s, w


def same(actual, expected, cause, rtol=1e-9, atol=1e-12):
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, msg=lambda found: f"{cause}\n{found}")


# ================================================================ log-probabilities


@few
@given(feedback)
def test_p21_logits_that_know_the_next_token_score_zero_and_unshifted_ones_far_below(rows):
    batch = collated(rows)
    for prefix in ("", "kl_"):
        known = sequence_logps(Knows(1), batch, prefix)
        cause = "a model certain of every next token scores below 0: get_probs must compare logits[t] with token t + 1"
        same(known, torch.zeros_like(known), cause, atol=1e-9)
        copying = sequence_logps(Knows(0), batch, prefix)
        assert (copying < -1).all(), "a model that knows only the current token scores well: the label shift is gone"


@few
@given(feedback, seeds)
def test_p22_a_constant_added_to_all_logits_of_a_place_changes_no_score(rows, seed):
    batch = collated(rows)
    generator = torch.Generator().manual_seed(seed)
    constant = 30 * torch.randn(*batch["input_ids"].shape, 1, generator=generator, dtype=F64)
    shifted = sequence_logps(Nudged(POLICY, constant), batch)
    same(shifted, sequence_logps(POLICY, batch), "scores are not normalised over the vocabulary", atol=1e-9)


@few
@given(feedback)
def test_p23_only_the_logits_from_the_prompts_last_place_to_the_one_before_eos_count(rows):
    read = logit_gradient(collated(rows)).abs().sum(-1) > 0
    for row, places in zip(rows, read, strict=True):
        first = len(plain_ids(row["prompt"]))  # BOS stands at 0, so the prompt's last token stands here
        expected = list(range(first, first + len(plain_ids(row["completion"])) + 1))
        assert places.nonzero().flatten().tolist() == expected, (
            "these are the places whose logits count, and those that should: earlier ones mean that the prompt is "
            "scored (label_mask), all one later that the label shift is missing, too few at the end that EOS is not"
        )


@few
@given(feedback)
def test_p24_the_completion_and_eos_are_scored_and_nothing_else(rows):
    gradient = logit_gradient(collated(rows))  # above 0 only at the token that is scored
    for row, words in zip(rows, gradient, strict=True):
        targets = (words > 0).nonzero()[:, 1].tolist()
        assert targets[-1:] == [EOS_ID], (
            "EOS is not what is scored last: either the mask leaves it out (it must come from the rows, not from token "
            "ids), or the label shift is missing (then property 21 fails too)"
        )
        assert BOS_ID not in targets, "BOS is scored; nothing predicts it"
        assert targets == [*plain_ids(row["completion"]), EOS_ID], "scored tokens are not the completion and EOS"


@few
@given(feedback)
def test_p25_more_padding_changes_neither_scores_nor_loss_nor_gradients(rows):
    pad_id = 3 + 255  # the byte 0xFF occurs in no text, and its embedding is not held at 0 like that of <pad>
    results = []
    for extra in (0, 9):
        policy = trainable(POLICY)
        batch = collated(rows, SimpleNamespace(pad_token_id=pad_id))
        for name in [name for name in batch if name != "label"]:
            batch[name] = F.pad(batch[name], (0, extra), value=pad_id if name.endswith("input_ids") else 0)
        loss = losses_of(batch, policy=policy).mean()
        results.append((logratios(batch), loss.detach(), gradients_of(policy, loss)))
        embedding = policy.model.embed_tokens.weight.grad[pad_id]
        assert not embedding.any(), "the padding's embedding gets a gradient: padding is read or scored somewhere"
    for name, narrow, wide in zip(("log-ratios", "loss", "gradients"), *results, strict=True):
        same(wide, narrow, f"{name} change with padding: look at both masks of the padding", atol=1e-10)


@few
@given(feedback)
def test_p25_padding_with_eos_drops_no_real_eos(rows):
    plain, padded = collated(rows), collated(rows, SimpleNamespace(pad_token_id=EOS_ID))
    for prefix in ("", "kl_"):
        cause = "scores change when pad is eos: masks must be padded with 0, and never be guessed from token ids"
        same(logratios(padded, prefix), logratios(plain, prefix), cause, atol=1e-10)
    same(losses_of(padded), losses_of(plain), "the loss changes when pad is eos", atol=1e-10)


@few
@given(feedback, feedback, feedback)
def test_p26_the_score_of_a_row_does_not_depend_on_its_batch(rows, neighbours, others):
    cause = "a row's log-ratio depends on the other rows: is it divided by the batch's mask sum, or padding scored?"
    together = logratios(collated(rows + neighbours))[: len(rows)]
    same(logratios(collated(rows)), together, cause, atol=1e-10)
    same(logratios(collated(rows + others))[: len(rows)], together, cause, atol=1e-10)


@few
@given(feedback)
def test_p26_the_score_of_a_row_is_that_of_the_row_alone(rows):
    alone = t(*[logratio_by_hand(row) for row in rows])
    cause = "not the sum of log-probabilities over completion and EOS that the library's cross-entropy gives row by row"
    same(logratios(collated(rows)), alone, cause, atol=1e-10)


@few
@given(feedback, seeds)
def test_p27_log_ratios_of_two_parts_add_up_to_that_of_the_whole(rows, seed):
    """r(y1 + y2 | x) = r(y1 | x) + r(y2 | x, y1): true of a sum over tokens only."""
    whole = tokenize_feedback(rows[0], TOKENIZER)
    start, length = whole["label_mask"].index(1), len(whole["input_ids"])
    cut = random.Random(seed).randint(start + 1, length - 1)

    def part(scored_from, stop):
        mask = [int(scored_from <= place) for place in range(stop)]
        return whole | {"input_ids": whole["input_ids"][:stop], "attention_mask": [1] * stop, "label_mask": mask}

    r = logratios(KTOPaddingCollator(TOKENIZER)([whole, part(start, cut), part(cut, length)]))
    same(r[1] + r[2], r[0], "log-ratios do not add up: they must be sums over the scored tokens, not means", atol=1e-10)


# ================================================================ the reference point


@given(st.lists(st.tuples(nats, nats), min_size=1, max_size=9))
def test_p06_the_reference_point_has_no_graph(pairs):
    policy, reference = t(*[a for a, _ in pairs]).requires_grad_(), t(*[b for _, b in pairs])
    assert not reference_point(policy, reference).requires_grad, "reference_point must end in .detach()"


@given(batches())
def test_p06_kto_loss_treats_a_z0_with_a_graph_as_a_constant(batch):
    r, label, z0, *settings = batch
    free, z0 = r.clone().requires_grad_(), t(z0).requires_grad_()
    loss_of(free, label, z0.sum(), *settings).mean().backward()
    assert z0.grad is None, "a gradient reached z0: kto_loss must detach it"
    assert free.grad is not None


def test_p06_the_kl_forward_of_train_kto_creates_no_graph():
    rows, policy = random_rows(0, 4), trainable(POLICY)
    graphs = []
    policy.register_forward_hook(lambda model, inputs, output: graphs.append(output.logits.requires_grad))
    one_step(rows, policy, copy.deepcopy(REFERENCE))
    assert graphs.count(True) == 1, (
        f"forward passes of the policy with a graph, in order: {graphs}; only that of the rows themselves may have "
        "one: train_kto must run the mismatched rows under torch.no_grad()"
    )
    assert len(graphs) == 2


@few
@given(feedback)
def test_p06_gradients_are_those_of_a_constant_z0(rows):
    batch, policy = collated(rows), trainable(POLICY)
    with torch.no_grad():
        kl_reference_logps = sequence_logps(REFERENCE, batch, "kl_")
    z0 = reference_point(sequence_logps(policy, batch, "kl_"), kl_reference_logps)  # with a graph up to here
    assume(float(z0) > 0)
    through = gradients_of(policy, losses_of(batch, z0, policy).mean())
    constant = gradients_of(policy, losses_of(batch, float(z0), policy).mean())
    same(through, constant, "the policy's gradient contains that of z0: a detach is missing", atol=1e-14)


@given(st.lists(st.tuples(nats, nats), min_size=1, max_size=9))
@example([(-3.0, 0.0), (5.0, 0.0)])
def test_p07_the_reference_point_is_the_mean_and_then_clamped_at_0(pairs):
    z0 = float(reference_point(t(*[a for a, _ in pairs]), t(*[b for _, b in pairs])))
    mean = math.fsum(a - b for a, b in pairs) / len(pairs)
    assert z0 == pytest.approx(max(0.0, mean), rel=1e-12, abs=1e-12), (
        f"the mean is {mean}: below 0 the reference point is 0, above it is the mean; the clamp comes after the mean"
    )


@few
@given(feedback)
def test_p07_a_negative_mean_gives_the_loss_of_z0_0(rows):
    batch = collated(rows)
    swapped = {"policy": REFERENCE, "reference": POLICY}  # now most mismatched log-ratios are below 0
    assume(float(logratios(batch, "kl_", **swapped).mean()) < 0)
    assert torch.equal(losses_of(batch, **swapped), losses_of(batch, 0.0, **swapped)), (
        "the mean of the mismatched log-ratios is negative, yet the loss is not that of z0 = 0: the clamp is missing"
    )


@few
@given(st.builds(random_rows, seeds, st.sampled_from([3, 5])))
def test_p07_the_kl_of_train_kto_is_the_mean_log_ratio_of_other_rows_replies(rows):
    order = train.Batches(len(rows), len(rows), 0).draw()
    rows_in_order = [rows[i] for i in order]

    def mean(step):
        mixed = [
            row | {"completion": rows_in_order[(i + step) % len(rows)]["completion"]}
            for i, row in enumerate(rows_in_order)
        ]
        return sum(map(logratio_by_hand, mixed)) / len(rows)

    kl = one_step(rows, trainable(POLICY), copy.deepcopy(REFERENCE), seed=0)["kl"]
    other = [max(0.0, mean(step)) for step in (-1, 1)]  # this rotation or that one
    assert any(kl == pytest.approx(z0, abs=1e-9) for z0 in other), (
        f"kl is {kl}; with the replies of the rows before or after it would be {other}, with each row's own reply "
        f"{mean(0)}. If properties of the log-probabilities fail too, start with those"
    )


def owners(batch):
    """Whose completion each mismatched row got, by the number in its text."""
    texts = [ids[mask.bool()] for ids, mask in zip(batch["kl_input_ids"], batch["kl_label_mask"], strict=True)]
    return [int(re.search(r"number (\d+)", TOKENIZER.decode(ids)).group(1)) for ids in texts]


@settings(few, max_examples=3)
@given(seeds)
def test_p11_no_row_keeps_its_own_completion_and_none_is_lost_for_any_batch_size(seed):
    for size in range(2, 14):
        rows = [row | {"completion": f" number {i}"} for i, row in enumerate(random_rows(seed, size))]
        batch = collated(rows)
        owner = owners(batch)
        assert all(j != i for i, j in enumerate(owner)), (
            f"{size} rows got the completions of rows {owner}: some kept their own, so z0 is biased. A rotation "
            "never does that; a reversal does in odd batches"
        )
        assert sorted(owner) == list(range(size)), f"completions {owner} of {size} rows: one is lost, another doubled"
    with pytest.raises(ValueError, match="a batch of 1 has no mismatched completion"):
        collated(rows[:1])


@few
@given(st.lists(st.integers(0, 3), min_size=2, max_size=8))
@example([0, 1, 2, 3])
@example([0, 0, 0])
@example([0, 1, 1, 2, 0])
def test_p12_a_mismatched_row_answers_its_own_prompt_only_where_neighbours_share_it(asked):
    """The documented exception: rotation never compares prompts. Such a row is a rated row of the batch itself."""
    rows = [
        {"prompt": QUESTIONS[q].prompt, "completion": f" number {i}", "label": i % 2 == 0} for i, q in enumerate(asked)
    ]
    batch = collated(rows)
    owner, r, k = owners(batch), logratios(batch), logratios(batch, "kl_")
    shared = [i for i, j in enumerate(owner) if asked[i] == asked[j]]
    assert len(shared) == sum(asked[i] == asked[i - 1] for i in range(len(asked))), (
        f"prompts {asked} with completions of rows {owner}: only neighbours with one prompt may keep it"
    )
    for i in shared:
        same(k[i], r[owner[i]], f"row {i} repeats row {owner[i]}, so their log-ratios are equal", atol=1e-10)


# ================================================================ the loss


@given(batches())
def test_p05_each_loss_lies_between_0_and_its_weight(batch):
    _, w = sides(batch[1], *batch[4:])
    losses = loss_of(*batch)
    assert bool((losses > 0).all()), "a loss of 0: 1 - sigmoid(u) rounds to it, sigmoid(-u) does not"
    assert bool((losses <= w).all()), "a loss above its weight: 1 - sigmoid is bounded, -log sigmoid is not"


@given(batches())
def test_p05_a_row_and_its_opposite_label_cost_the_weight_together(batch):
    r, label, z0, beta, weight, _ = batch
    both = loss_of(r, label, z0, beta, weight, weight) + loss_of(r, ~label, z0, beta, weight, weight)
    same(both, torch.full_like(r, weight), "the two branches are not 1 - sigmoid(u) and 1 - sigmoid(-u)", rtol=1e-12)


@given(batches())
def test_p08_z0_is_in_nats_and_beta_is_applied_once(batch):
    r, label, z0, beta, lambda_d, lambda_u = batch
    k = t(z0 - 5.0, z0 + 5.0)
    one, scaled = (reference_point(b * k, torch.zeros_like(k)) for b in (1.0, beta))
    expected = loss_of(beta * r, label, scaled, 1.0, lambda_d, lambda_u)
    cause = "L(beta, r, k) is not L(1, beta r, beta k): beta must multiply r - z0 as a whole, and once"
    same(loss_of(r, label, one, beta, lambda_d, lambda_u), expected, cause)


@given(batches())
def test_p09_the_loss_is_linear_in_the_two_weights(batch):
    r, label, z0, beta, lambda_d, lambda_u = batch
    of_up, of_down = (loss_of(r, label, z0, beta, *pair) for pair in ((1.0, 0.0), (0.0, 1.0)))
    assert not of_up[~label].any(), "undesirable_weight is 0, yet thumbs down cost something"
    assert not of_down[label].any(), "desirable_weight is 0, yet thumbs up cost something"
    same(loss_of(*batch), lambda_d * of_up + lambda_u * of_down, "a weight is not a plain factor", rtol=1e-12)
    doubled = gradient_of(r, label, z0, beta, 2 * lambda_d, 2 * lambda_u)
    same(doubled, 2 * gradient_of(*batch), "doubled weights must double the gradient", rtol=1e-12)


@few
@given(feedback, st.randoms(use_true_random=False))
def test_p10_the_order_of_rows_and_of_mismatched_rows_changes_nothing(rows, rng):
    order = list(range(len(rows)))
    rng.shuffle(order)
    batch, z0 = collated(rows), point_of(collated(rows))
    shuffled = losses_of(collated([rows[i] for i in order]), z0)
    same(shuffled, losses_of(batch, z0)[order], "with z0 given, shuffled rows have other losses", atol=1e-10)
    kl_fields = [name for name in batch if name.startswith("kl_")]
    reordered = batch | {name: batch[name][order] for name in kl_fields}
    same(point_of(reordered), z0, "z0 depends on the order of the mismatched rows", atol=1e-10)


@few
@given(feedback, st.integers(1, 5))
def test_p10_where_a_cycle_of_rows_begins_changes_nothing(rows, start):
    """Neighbours stay neighbours, so even the mismatched pairs are the same."""
    start %= len(rows)
    moved = losses_of(collated(rows[start:] + rows[:start])).mean()
    same(moved, losses_of(collated(rows)).mean(), "the loss depends on which row comes first", atol=1e-10)


@few
@given(st.builds(random_rows, seeds, st.just(6)), st.sampled_from([2, 3]))
def test_p13_with_z0_given_equal_microbatches_average_to_the_batch(rows, size):
    batch, policy = collated(rows), trainable(POLICY)
    z0 = point_of(batch)
    whole = losses_of(batch, z0, policy).mean()
    parts = [losses_of(collated(rows[i : i + size]), z0, policy).mean() for i in range(0, len(rows), size)]
    mean = sum(parts) / len(parts)
    same(mean, whole, "with z0 given, microbatches must average to the batch: a row depends on its batch", atol=1e-10)
    same(gradients_of(policy, mean), gradients_of(policy, whole), "and so must their gradients", atol=1e-10)


def test_p13_microbatches_with_their_own_z0_are_not_the_batch():
    gaps = []
    for seed in range(3):
        rows = random_rows(seed, 6)
        own = sum(losses_of(collated(rows[i : i + 2])).mean() for i in (0, 2, 4)) / 3
        gaps.append(abs(float(own - losses_of(collated(rows)).mean())))
    assert max(gaps) > 1e-3, "z0 is estimated per microbatch and not linear, so accumulation is not a large batch"


@few
@given(st.builds(random_rows, seeds, st.just(5)))
def test_p14_unequal_microbatches_add_up_by_size_and_not_as_a_mean_of_means(rows):
    z0 = point_of(collated(rows))
    whole = losses_of(collated(rows), z0).mean()
    small, large = (losses_of(collated(part), z0).mean() for part in (rows[:2], rows[2:]))
    same((2 * small + 3 * large) / 5, whole, "weighted by size, microbatches must add up to the batch", atol=1e-10)
    off = (small + large) / 2 - whole
    same(off, (small - large) / 10, "a mean of means is off by a tenth of the means' gap", atol=1e-10)
    assert abs(float(small - large)) > 1e-6


@given(st.floats(0.0, 60.0), st.booleans(), betas, weights)
def test_p15_a_batch_of_one_matched_with_itself_never_leaves_its_starting_point(r, up, beta, weight):
    free = t(r).requires_grad_()
    z0 = reference_point(free.detach(), t(0.0))  # the only completion there is: its own
    loss = loss_of(free, torch.tensor([up]), z0, beta, weight, weight)
    loss.sum().backward()
    assert float(loss.detach()) == pytest.approx(weight / 2, rel=1e-12)
    assert float(free.grad) == pytest.approx((-1 if up else 1) * weight * beta / 4, rel=1e-12)


@few
@given(feedback, st.booleans())
def test_p16_a_one_sided_batch_is_finite_and_the_formula_of_its_side(rows, up):
    batch, policy = collated([row | {"label": up} for row in rows]), trainable(POLICY)
    losses = losses_of(batch, policy=policy, beta=0.2, desirable_weight=1.5, undesirable_weight=0.7)
    u = (0.2 if up else -0.2) * (logratios(batch) - point_of(batch))
    formula = (1.5 if up else 0.7) * torch.sigmoid(-u)
    same(losses.detach(), formula, "a batch of one kind is not the formula of its side", atol=1e-10)
    assert bool(torch.isfinite(gradients_of(policy, losses.mean())).all()), "the empty side must not add NaN"


@given(batches())
def test_p19_beta_to_0_gives_half_the_weights_and_beta_to_infinity_counts_the_wrong_ones(batch):
    r, label, z0, _, lambda_d, lambda_u = batch
    assume(bool(((r - z0).abs() > 1e-3).all()))
    s, w = sides(label, lambda_d, lambda_u)
    same(loss_of(r, label, z0, 1e-12, lambda_d, lambda_u), w / 2, "beta -> 0")
    wrong = w * (s * (r - z0) < 0)
    same(loss_of(r, label, z0, 1e6, lambda_d, lambda_u), wrong, "beta -> infinity", atol=1e-9)
    tie = torch.full_like(r, z0)
    assert torch.equal(loss_of(tie, label, z0, 1e9, lambda_d, lambda_u), w / 2), "a tie costs half the weight"


@given(batches())
def test_p32_flipping_signs_labels_and_weights_changes_nothing_at_z0_0(batch):
    r, label, _, beta, lambda_d, lambda_u = batch
    flipped = loss_of(-r, ~label, 0.0, beta, lambda_u, lambda_d)
    plain = loss_of(r, label, 0.0, beta, lambda_d, lambda_u)
    same(flipped, plain, "the two branches are no mirror images", rtol=1e-12, atol=0.0)


@given(batches())
def test_p34_z0_0_is_the_loss_that_trl_calls_apo_zero_unpaired(batch):
    r, label, _, beta, *_ = batch
    apo_zero = torch.where(label, 1 - torch.sigmoid(beta * r), torch.sigmoid(beta * r))
    same(loss_of(r, label, 0.0, beta), apo_zero, "KTO with z0 = 0 is not apo_zero_unpaired")


def test_p35_loss_kl_and_rewards_are_those_of_trl_on_the_same_batch():
    import trl  # here, since it takes a second
    from datasets import Dataset

    policy, reference = (noisy_llama(seed, size, torch.float32) for seed, size in ((1, 0.15), (2, 0.25)))
    names = {"label_mask": "completion_mask", "kl_label_mask": "KL_completion_mask"}
    names |= {f"kl_{field}": f"KL_{field}" for field in ("input_ids", "attention_mask")}
    chosen = {"beta": 0.2, "desirable_weight": 1.33, "undesirable_weight": 0.7}
    with tempfile.TemporaryDirectory() as folder:
        theirs = trl.KTOTrainer(  # it changes the forward methods of the models it gets
            model=copy.deepcopy(policy),
            ref_model=copy.deepcopy(reference),
            args=trl.KTOConfig(output_dir=folder, use_cpu=True, bf16=False, report_to="none", **chosen),
            train_dataset=Dataset.from_list(load_eight_rows()),
            processing_class=TOKENIZER,
        )
        for seed in range(3):
            batch = collated(random_rows(seed, 5))
            renamed = {names.get(name, name): tensor for name, tensor in batch.items()}
            theirs._metrics["train"].clear()
            theirs.model.train()
            loss = theirs._compute_loss(theirs.model, renamed, return_outputs=False).detach()
            z0 = point_of(batch, policy, reference)
            ours = losses_of(batch, z0, policy, reference, **chosen).mean()
            assert float(ours) == pytest.approx(float(loss), abs=1e-6), "the loss is not TRL's"
            found = theirs._metrics["train"]
            assert found["kl"] == [pytest.approx(float(z0), abs=1e-5)], "z0 is not TRL's kl (nats, no beta)"
            rewards = chosen["beta"] * logratios(batch, "", policy, reference)
            for name, rows in (("chosen", batch["label"]), ("rejected", ~batch["label"])):
                mean = float(rewards[rows].mean())
                assert found[f"rewards/{name}"] == [pytest.approx(mean, abs=1e-5)], "rewards are beta * r"


@given(batches())
def test_p36_both_printed_forms_of_the_loss_agree(batch):
    r, label, z0, beta, lambda_d, lambda_u = batch
    s, w = sides(label, lambda_d, lambda_u)
    version_1 = w * (1 - torch.sigmoid(s * (beta * r - beta * z0)))
    current = w - w * torch.sigmoid(s * beta * (r - z0))
    same(loss_of(*batch), version_1, "kto_loss is not w * (1 - sigmoid(s * beta * (r - z0)))")
    same(version_1, current, "the two printed forms differ")


@few
@given(feedback, betas, weights, weights)
def test_p36_a_step_of_train_kto_costs_what_both_printed_forms_say_by_hand(rows, beta, lambda_d, lambda_u):
    chosen = {"beta": beta, "desirable_weight": lambda_d, "undesirable_weight": lambda_u}
    found = one_step(rows, trainable(POLICY), copy.deepcopy(REFERENCE), **chosen)
    r, label = t(*map(logratio_by_hand, rows)), torch.tensor([row["label"] for row in rows])
    s, w = sides(label, lambda_d, lambda_u)
    v = w * torch.sigmoid(s * beta * (r - found["kl"]))
    cause = "the loss of a step is not the mean over rows of w - v, one sigmoid per row of its summed log-ratio"
    assert found["loss"] == pytest.approx(float((w - v).mean()), rel=1e-9), cause
    assert found["reward_desirable"] == pytest.approx(beta * float(r[label].mean()), abs=1e-9)
    assert found["reward_undesirable"] == pytest.approx(beta * float(r[~label].mean()), abs=1e-9)


@given(st.lists(st.tuples(nats, nats, nats, nats), min_size=1, max_size=8), betas)
def test_p41_dpo_is_minus_log_sigmoid_of_the_margin_and_ln_2_at_step_0(pairs, beta):
    columns = [t(*column) for column in zip(*pairs, strict=True)]
    for loss, (pw, pl, rw, rl) in zip(dpo_loss(*columns, beta).tolist(), pairs, strict=True):
        x = beta * ((pw - pl) - (rw - rl))
        by_hand = math.log1p(math.exp(-x)) if x > 0 else -x + math.log1p(math.exp(x))
        assert loss == pytest.approx(by_hand, rel=1e-9, abs=1e-12)
    at_step_0 = dpo_loss(*columns[:2], *columns[:2], beta)
    ln_2 = torch.full_like(at_step_0, math.log(2))
    same(at_step_0, ln_2, "policy and reference agree, so DPO costs ln 2", rtol=1e-15)


@given(nats, nats, st.floats(-20.0, 20.0), betas)
def test_p41_dpo_ignores_a_shift_of_both_log_ratios_and_kto_does_not(chosen, rejected, shift, beta):
    assume(abs(shift) > 0.1)
    zero, label = t(0.0), torch.tensor([True, False])
    before, after = (dpo_loss(t(chosen + h), t(rejected + h), zero, zero, beta) for h in (0.0, shift))
    same(before, after, "DPO must depend on the difference of the two log-ratios alone")
    kto_before, kto_after = (loss_of(t(chosen + h, rejected + h), label, 0.0, beta) for h in (0.0, shift))
    assert not torch.equal(kto_before, kto_after)


# ================================================================ the gradient


@given(batches(betas=small_betas))
def test_p02_the_gradient_is_the_closed_form(batch):
    r, label, z0, beta, lambda_d, lambda_u = batch
    s, w = sides(label, lambda_d, lambda_u)
    u = s * beta * (r - z0)
    formula = -s * w * beta * torch.sigmoid(u) * torch.sigmoid(-u) / len(r)
    same(gradient_of(*batch), formula, "not -s w beta sigmoid(u) sigmoid(-u) / N", rtol=1e-7, atol=0.0)


@given(batches())
def test_p02_the_gradient_is_the_finite_difference(batch):
    r, label, *settings = batch
    step = 1e-5
    steps = step * torch.eye(len(r), dtype=F64)
    slopes = torch.stack(
        [(loss_of(r + d, label, *settings).mean() - loss_of(r - d, label, *settings).mean()) for d in steps]
    )
    same(gradient_of(*batch), slopes / (2 * step), "not the finite difference", rtol=1e-4, atol=1e-8)


@given(batches(betas=small_betas))
def test_p03_the_gradient_has_the_sign_of_the_label_alone(batch):
    gradient, label = gradient_of(*batch), batch[1]
    assert bool((gradient[label] < 0).all()), "a thumbs up must raise its row wherever r stands"
    assert bool((gradient[~label] > 0).all()), "a thumbs down must lower its row wherever r stands"


@given(batches())
def test_p04_the_gradient_is_at_most_a_quarter_of_weight_times_beta_and_that_at_z0(batch):
    r, label, z0, beta, lambda_d, lambda_u = batch
    _, w = sides(label, lambda_d, lambda_u)
    bound = w * beta / 4 / len(r)
    assert bool((gradient_of(*batch).abs() <= bound * (1 + 1e-12)).all()), "a gradient above w beta / (4 N)"
    at_z0 = gradient_of(torch.full_like(r, z0), label, z0, beta, lambda_d, lambda_u)
    same(at_z0.abs(), bound, "the gradient is not w beta / (4 N) where r = z0", rtol=1e-12, atol=0.0)
    away = (r - z0).abs() > 1e-3 / beta
    assert bool((gradient_of(*batch).abs() < bound)[away].all()), "only at r = z0 may the bound be reached"


@given(st.floats(0.0, 30.0), st.booleans(), st.sampled_from([1, -1]))
def test_p17_the_gradient_fades_with_the_distance_from_z0(z0, up, side):
    for distance, share in ((0, 1.0), (10, 0.7864), (20, 0.41997), (50, 0.02659), (100, 1.8e-4)):
        gradient = float(gradient_of(t(z0 + side * distance), torch.tensor([up]), z0, 0.1)[0])
        assert abs(gradient) / (0.1 / 4) == pytest.approx(share, rel=1e-2 if distance == 100 else 1e-4)


def test_p17_the_default_learning_rate_of_train_kto_leaves_gradient_alive():
    rng = random.Random(0)
    drawn = [(question, world.draw_reply(question, rng)) for question in rng.choices(world.trained_questions(), k=64)]
    rows = [{"prompt": q.prompt, "completion": reply.text, "label": reply.thumbs_up} for q, reply in drawn]
    policy = load_reference_model()
    _, history = train.train_kto(policy, reference_of(policy), rows, TOKENIZER, steps=16)
    for row in history:
        assert row["saturated"] < 1.0, f"every row is saturated at step {row['step']}: the learning rate is too high"
        assert row["grad_norm"] > 1e-3, f"no gradient is left at step {row['step']}: the loss cannot move"


@given(st.floats(50.0, 60.0), small_betas, st.booleans())
def test_p18_both_tails_of_kto_vanish_where_dpo_keeps_pushing(distance, beta, up):
    label, zero = torch.tensor([up]), t(0.0)
    for r in (-distance, distance):
        share = abs(float(gradient_of(t(r), label, 0.0, beta)[0])) / beta
        assert share == pytest.approx(math.exp(-beta * distance) / (1 + math.exp(-beta * distance)) ** 2, rel=1e-6)
    chosen = t(-distance).requires_grad_()
    dpo_loss(chosen, zero, zero, zero, beta).sum().backward()
    assert -float(chosen.grad) / beta == pytest.approx(1 / (1 + math.exp(-beta * distance)), rel=1e-9)
    assert 1 / (1 + math.exp(-0.1 * 50)) == pytest.approx(0.9933, abs=1e-4)


@given(st.lists(st.tuples(st.floats(-3.0, 3.0), st.booleans()), min_size=2, max_size=8), betas, weights, weights)
def test_p31_a_small_step_raises_what_was_liked_and_lowers_what_was_not(replies, beta, lambda_d, lambda_u):
    """A toy with separable rows: the reply to each prompt has its own log-odds."""
    theta = t(*[x for x, _ in replies]).requires_grad_()
    label, reference = torch.tensor([up for _, up in replies]), F.logsigmoid(theta).detach()
    kto_loss(F.logsigmoid(theta), reference, label, 0.0, beta, lambda_d, lambda_u).mean().backward()
    r = F.logsigmoid(theta - 0.1 * theta.grad).detach() - reference
    assert bool((r[label] > 0).all()), "a step lowered a reply with thumbs up"
    assert bool((r[~label] < 0).all()), "a step raised a reply with thumbs down"


@few
@given(feedback, weights, weights)
def test_p31_a_small_step_of_train_kto_raises_liked_rows_against_the_others(rows, lambda_d, lambda_u):
    """To first order, rows that share all parameters move as a whole: sum of s w r rises."""
    policy = trainable(POLICY)
    reference = reference_of(policy)
    one_step(rows, policy, reference, learning_rate=1e-7, desirable_weight=lambda_d, undesirable_weight=lambda_u)
    batch = collated(rows)
    s, w = sides(batch["label"], lambda_d, lambda_u)
    moved = float((s * w * logratios(batch, "", policy, reference)).sum())
    assert moved > 0, "the step went uphill: check each label's sign and weight, and that the reference is a copy"


@few
@given(feedback, betas, weights)
def test_p33_contradicting_thumbs_of_equal_weight_cancel_and_a_heavier_side_wins(rows, beta, weight):
    twice = collated([row | {"label": up} for row in rows for up in (True, False)])
    policy, chosen = trainable(POLICY), {"beta": beta, "desirable_weight": weight}
    loss = losses_of(twice, policy=policy, undesirable_weight=weight, **chosen).mean()
    assert float(loss.detach()) == pytest.approx(weight / 2, rel=1e-12), "a row and its opposite must cost w together"
    assert float(gradients_of(policy, loss).abs().max()) < 1e-12, "equal votes for and against must leave no gradient"
    r, z0 = logratios(twice), point_of(twice)
    pull = gradient_of(r, twice["label"], z0, beta, weight, 2 * weight)
    assert bool((pull[::2] + pull[1::2] > 0).all()), "with undesirable_weight doubled, every row must be pushed down"


# ================================================================ data


@functools.cache
def bytes_of_ids():
    return train_bpe(world.corpus(), 512).bytes_of


@settings(max_examples=300)
@given(TEXT, VISIBLE, st.booleans())
@example("", " It is blue.", True)
@example("USER: Sky? ASSISTANT: ", "It is blue.", True)
@example("<eos>", "<eos>", False)
@example("é", "\u0301", True)
@example("a ", " b", True)
def test_p29_the_ids_are_bos_the_whole_text_and_eos_cut_by_the_prefix_rule(prompt, completion, label):
    result = tokenize_feedback({"prompt": prompt, "completion": completion, "label": label}, TOKENIZER)
    ids, mask = result["input_ids"], result["label_mask"]
    whole = plain_ids(prompt + completion)
    assert ids == [BOS_ID, *whole, EOS_ID], "the ids are not BOS, prompt and completion as one text, and EOS"
    assert not set(whole) & {0, BOS_ID, EOS_ID}
    assert TOKENIZER.decode(whole) == prompt + completion
    assert result["attention_mask"] == [1] * len(ids)
    assert len(mask) == len(ids)
    assert result["label"] is label
    # The mask is zeros, then ones: BOS never scored, EOS always, and a token of the completion before it.
    n_scored = sum(mask)
    assert mask == [0] * (len(ids) - n_scored) + [1] * n_scored, "EOS and all from the completion's start are scored"
    assert mask[0] == 0, "BOS is scored; nothing predicts it"
    assert n_scored >= 2, "no token of the completion is scored, or EOS is not"
    # What is not scored belongs to the prompt wholly; what is scored holds the completion wholly.
    bytes_of, first = bytes_of_ids(), len(ids) - n_scored
    unscored, scored = (b"".join(bytes_of[i] for i in part) for part in (ids[1:first], ids[first:-1]))
    assert prompt.encode().startswith(unscored), f"{unscored} is not scored and is more than the prompt"
    assert scored.endswith(completion.encode()), f"{scored} is scored and is less than the completion"
    # The rule itself: the unscored tokens are the longest common beginning of prompt and whole.
    alone, start = plain_ids(prompt), first - 1
    assert alone[:start] == whole[:start], "a token that reaches into the completion is not scored"
    assert start == len(alone) or alone[start] != whole[start], "a token of the prompt is scored"


@settings(few, max_examples=50)
@given(feedback, st.integers(1, 40))
def test_p29_a_row_without_a_completion_token_is_refused_and_never_batched(rows, max_length):
    """Its log-ratio would be 0, so it would add a constant w / 2 (or so) to the loss."""
    kept = []
    for row in rows:
        if max_length > len(plain_ids(row["prompt"])) + 1:
            kept.append(tokenize_feedback(row, TOKENIZER, max_length))
        else:
            with pytest.raises(ValueError, match="no token of the completion is left"):
                tokenize_feedback(row, TOKENIZER, max_length)
    if len(kept) > 1:
        batch = KTOPaddingCollator(TOKENIZER, max_length)(kept)
        assert batch["label_mask"].any(-1).all()
        assert batch["kl_label_mask"].any(-1).all()


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.floats(0.5, 2.0))
def test_p37_balanced_weights_meet_the_ratio_and_the_smaller_is_1(n_up, n_down, ratio):
    lambda_d, lambda_u = balanced_weights(n_up, n_down, ratio)
    assert lambda_d * n_up / (lambda_u * n_down) == pytest.approx(ratio, rel=1e-12), "the sides have another ratio"
    assert min(lambda_d, lambda_u) == 1.0


def test_p37_balanced_weights_of_the_papers_bands():
    for n_up, n_down, band, expected in (
        (1, 10, BAND_V1, (10.0, 13.3333)),
        (1, 10, BAND_CURRENT, (10.0, 15.0)),
        (3, 5, BAND_V1, (1.6667, 2.2222)),
        (3, 5, BAND_CURRENT, (1.6667, 2.5)),
    ):
        found = [balanced_weights(n_up, n_down, ratio) for ratio in band]
        assert [lambda_d for lambda_d, _ in found] == pytest.approx(expected, abs=1e-4), f"{n_up} up, {n_down} down"
        assert [lambda_u for _, lambda_u in found] == [1.0, 1.0]


def check_mixture(batches, source):
    mixed = sum(len({row["label"] for row in batch}) == 2 for batch in batches) / len(batches)
    assert mixed >= 0.95, f"{source}: only {mixed:.1%} of the batches hold both labels; a shuffle is missing"
    shared = [row["prompt"] == batch[i - 1]["prompt"] for batch in batches for i, row in enumerate(batch)]
    share = sum(shared) / len(shared)
    assert share < 0.1, f"{source}: {share:.0%} of neighbours share a prompt; pairs lie together, so z0 is biased"


@settings(few, max_examples=3)
@given(seeds)
def test_p39_unpaired_rows_cut_in_file_order_give_mixed_batches(seed):
    rows = unpair(random_pairs(seed, 1000), seed)
    check_mixture([rows[i : i + 8] for i in range(0, len(rows), 8)], "unpair, cut in file order")


@settings(few, max_examples=3)
@given(seeds)
def test_p39_batches_of_unpaired_and_of_sorted_rows_are_mixed(seed):
    rows = unpair(random_pairs(seed, 500), seed)
    for source, file in (("unpair", rows), ("a file sorted by label", sorted(rows, key=lambda row: row["label"]))):
        drawn = train.Batches(len(file), 8, seed)
        check_mixture([[file[i] for i in drawn.draw()] for _ in range(len(file) // 8)], f"{source}, train.Batches")


def test_p39_blocks_of_one_label_leave_one_mixed_batch_of_625():
    """What TRL 1.16 makes of 2500 pairs: it converts a thousand at a time and shuffles nothing."""
    labels = [up for n in (1000, 1000, 500) for up in (True, False) for _ in range(n)]
    assert sum(len(set(labels[i : i + 8])) == 2 for i in range(0, len(labels), 8)) == 1


# ================================================================ the reference model


@few
@given(feedback, weights, weights)
def test_p01_at_step_0_every_row_costs_half_its_weight_exactly(rows, lambda_d, lambda_u):
    batch = collated(rows)
    chosen = {"desirable_weight": lambda_d, "undesirable_weight": lambda_u}
    cause = "policy and reference must be equal at step 0: the reference is a copy of the policy, not another model"
    for dtype in (F64, torch.float32):
        policy = POLICY if dtype == F64 else noisy_llama(1, 0.15, dtype)
        reference = reference_of(policy)
        assert float(point_of(batch, policy, reference)) == 0.0, cause
        _, w = sides(batch["label"], lambda_d, lambda_u)
        losses = losses_of(batch, policy=policy, reference=reference, **chosen)
        assert torch.equal(losses, w.to(dtype) / 2), cause
    assert bool(((losses_of(batch) - 0.5).abs() > 1e-6).all())  # another model as reference would be seen


@few
@given(feedback, weights, weights)
def test_p01_the_first_step_of_train_kto_costs_half_the_mean_weight(rows, lambda_d, lambda_u):
    policy = trainable(POLICY)
    found = one_step(rows, policy, reference_of(policy), desirable_weight=lambda_d, undesirable_weight=lambda_u)
    mean = sum(lambda_d if row["label"] else lambda_u for row in rows) / len(rows)
    assert found["loss"] == pytest.approx(mean / 2, rel=1e-12), "policy = reference costs mean(w) / 2"
    for name in ("kl", "reward_desirable", "reward_undesirable", "margin", "saturated"):
        # Up to rounding: train_kto scores the reference beforehand, in other batches than the policy.
        assert found[name] == pytest.approx(0.0, abs=1e-11), f"{name} must be 0 while policy and reference agree"


def test_p30_the_reference_is_a_frozen_copy_that_shares_no_memory():
    policy = trainable(POLICY).train()
    reference = reference_of(policy)
    ours = dict(policy.named_parameters())
    for name, parameter in reference.named_parameters():
        assert torch.equal(ours[name], parameter), f"{name} differs: the reference must be a copy of the policy"
        assert ours[name].data_ptr() != parameter.data_ptr(), f"{name} is shared: the reference would train along"
        assert not parameter.requires_grad, f"{name} of the reference requires a gradient"
        assert ours[name].requires_grad, f"{name} of the policy was frozen along with the reference"
    assert not any(module.training for module in reference.modules())
    assert policy.training


@few
@given(st.builds(random_rows, seeds, st.just(6)))
def test_p30_training_moves_the_policy_and_not_one_bit_of_the_reference(rows):
    policy = trainable(POLICY)
    reference = reference_of(policy)
    before = copy.deepcopy(reference.state_dict())
    optimized = set()

    def step(self, *_, original=torch.optim.AdamW.step):
        optimized.update(id(parameter) for group in self.param_groups for parameter in group["params"])
        return original(self)

    with mock.patch.object(torch.optim.AdamW, "step", step):
        train.train_kto(policy, reference, rows, TOKENIZER, steps=3, batch_size=3)
    for name, tensor in reference.state_dict().items():
        assert torch.equal(before[name], tensor), f"{name} of the reference changed during training"
    assert optimized == {id(parameter) for parameter in policy.parameters()}, "the optimizer holds other parameters"
    assert all(parameter.grad is None for parameter in reference.parameters())
    moved = logratios(collated(rows), "", policy, reference).abs()
    assert float(moved.min()) > 1e-3, "log-ratios stay 0: is the reference the policy itself?"


def test_p30_the_reference_runs_without_a_graph_and_both_without_dropout():
    rows, policy = random_rows(1, 6), trainable(POLICY)
    for layer in policy.model.layers:
        layer.self_attn.attention_dropout = 0.5
    reference = reference_of(policy)
    policy.train()
    reference.train()
    graphs = []
    reference.register_forward_hook(lambda *_: graphs.append(torch.is_grad_enabled()))
    found = one_step(rows, policy, reference)
    assert graphs, "the reference never ran"
    assert not any(graphs), "the reference must run under torch.no_grad()"
    cause = "policy and reference agree, yet the loss is not 1/2: dropout was on"
    assert found["loss"] == pytest.approx(0.5, abs=1e-12), cause
    assert not policy.training
    assert not reference.training


# ================================================================ numerics


@given(st.floats(170.0, 800.0), st.booleans())
def test_p20_the_tail_is_not_rounded_to_zero_in_float32(distance, up):
    r = torch.tensor([distance if up else -distance])
    assert float(1 - torch.sigmoid(0.1 * r.abs())) < 1e-6
    loss = float(loss_of(r, torch.tensor([up]), 0.0))
    assert loss == pytest.approx(math.exp(-0.1 * distance), rel=1e-4), "1 - sigmoid(u) rounds to 0: use sigmoid(-u)"


@given(st.floats(-1e4, 1e4), st.sampled_from([torch.float32, torch.float64]))
def test_p20_losses_and_gradients_are_finite_out_to_ten_thousand(u, dtype):
    r = torch.tensor([u, u], dtype=dtype).requires_grad_()
    losses = loss_of(r, torch.tensor([True, False]), 0.0, 1.0)
    losses.mean().backward()
    assert bool(torch.isfinite(losses).all())
    assert bool(torch.isfinite(r.grad).all())


@settings(few, max_examples=20)
@given(seeds, st.sampled_from([torch.bfloat16, torch.float16]))
def test_p20_half_precision_logits_are_computed_in_float32(seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    half = (4 * torch.randn(4, 40, 50, generator=generator)).to(dtype)
    labels, mask = (torch.randint(high, (4, 40), generator=generator) for high in (50, 2))
    logps = get_probs(half, labels, mask)
    assert logps.dtype == torch.float32, f"log-probabilities are {logps.dtype}: half precision is too coarse for a sum"
    exact = get_probs(half.double(), labels, mask)  # the rounding of the logits is no fault of get_probs
    assert float((logps - exact).abs().max()) < 1e-5, "log-probabilities of half-precision logits lost digits"
    rounded = half.log_softmax(-1)[:, :-1].gather(-1, labels[:, 1:, None]).squeeze(-1) * mask[:, 1:]
    assert float((rounded - exact).abs().max()) > 1e-3  # the mistake would be seen


@few
@given(feedback, st.sampled_from([-math.inf, math.inf, math.nan]))
def test_p28_anything_may_stand_where_nothing_is_scored(rows, poison):
    """Neither the scores nor the gradients may notice it; 0 * -inf is NaN, so a mask must not be multiplied."""
    batch = collated(rows)
    free = torch.ones(batch["input_ids"].shape, dtype=torch.bool)
    free[:, :-1] = batch["label_mask"][:, 1:] == 0
    results = []
    for place in (0.0, poison):
        policy = trainable(POLICY)
        delta = torch.zeros(*free.shape, 1, dtype=F64).masked_fill(free[..., None], place)
        logps = sequence_logps(Nudged(policy, delta), batch)
        results.append((logps.detach(), gradients_of(policy, logps.sum())))
    assert torch.equal(results[1][0], results[0][0]), "a score depends on a logit that nobody scores"
    assert torch.equal(results[1][1], results[0][1]), "a gradient depends on a logit that nobody scores"


def crossing(gamma, low=0.01, high=0.99):
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if weight(middle, gamma) > middle else (low, middle)
    return low


def test_p38_value_and_weight_meet_the_numbers_of_1992():
    assert value(10) == pytest.approx(7.585776, abs=1e-6)
    assert value(-10) == pytest.approx(-17.067996, abs=1e-6)
    assert value(0) == 0.0
    for gamma, expected in ((0.5, 0.2781), (0.61, 0.3388), (0.69, 0.3776)):
        assert crossing(gamma) == pytest.approx(expected, abs=5e-5)


@given(st.floats(0.05, 20))
def test_p38_never_and_always_stay_put_and_weights_lie_between(gamma):
    w = weight(np.linspace(0, 1, 101), gamma)
    assert w[0] == 0.0
    assert w[-1] == 1.0
    assert np.all((w >= 0) & (w <= 1))


@given(st.floats(0.28, 1.0))
def test_p38_the_weight_rises_from_gamma_028_on_and_falls_somewhere_below(gamma):
    assert np.all(np.diff(weight(np.linspace(0, 1, 2001), gamma)) > 0)
    p = np.linspace(0, 1, 10_001)
    assert np.diff(weight(p, 0.25)).min() < 0
    assert np.diff(weight(p, 0.2785)).min() < 0 < np.diff(weight(p, 0.2795)).min()
    assert weight(0.07, 0.25) < weight(0.01, 0.25)


@settings(few, max_examples=3)
@given(feedback, seeds)
def test_p40_the_same_seed_gives_the_same_run_to_the_last_bit(rows, seed):
    runs = []
    for run_seed in (seed, seed, seed + 1):
        policy = trainable(POLICY)
        _, history = train.train_kto(
            policy, reference_of(policy), rows, TOKENIZER, steps=6, batch_size=2, seed=run_seed
        )
        runs.append((repr(history), torch.cat([p.detach().flatten() for p in policy.parameters()])))
    assert runs[0][0] == runs[1][0], "two runs with one seed have different histories"
    assert torch.equal(runs[0][1], runs[1][1]), "two runs with one seed end in different weights"
    assert len(rows) == 2 or not torch.equal(runs[0][1], runs[2][1]), "the seed changes nothing"


def test_p40_a_hundred_steps_overfit_the_eight_rows():
    rows, policy = load_eight_rows(), trainable(noisy_llama(0, 0.0, hidden=32))
    reference = reference_of(policy)
    _, history = train.train_kto(
        policy, reference, rows, TOKENIZER, steps=100, batch_size=8, learning_rate=1e-3, desirable_weight=1.33
    )
    assert history[0]["loss"] == pytest.approx(0.561875, abs=1e-12), "not (3 * 1.33 + 5) / 16, the loss of step 0"
    assert history[-1]["loss"] < 0.15, f"the loss of eight rows ends at {history[-1]['loss']}; training does not learn"
    batch = collated(rows)
    r = logratios(batch, "", policy, reference)
    assert float(r[batch["label"]].min()) > 10, f"log-ratios {r.tolist()}: thumbs up were not raised"
    assert float(r[~batch["label"]].max()) < -10, f"log-ratios {r.tolist()}: thumbs down were not lowered"


# ================================================================ all of them


def test_every_property_from_1_to_41_has_a_test():
    numbers = {int(name[6:8]) for name in globals() if re.match(r"test_p\d\d_", name)}
    assert numbers == set(range(1, 42)), f"missing: {sorted(set(range(1, 42)) - numbers)}"
