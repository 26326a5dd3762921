"""Lesson 05: the log-probability of a completion, held against loops and the library; see also test_properties.py."""

import copy
import itertools
import math
import random
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lesson_source import definitions

from kto_utils import logprobs
from kto_utils.collator import KTOPaddingCollator, mismatched, pad_rows
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.logprobs import _ChosenLogProbability, get_probs, sequence_logps, token_logps
from kto_utils.model import load_reference_model, tiny_llama, to_float64
from kto_utils.tokenizer import load_tokenizer

FIELDS = ("input_ids", "attention_mask", "label_mask")


def slow_get_probs(logits, labels, mask):
    """The specification: one token at a time, with math.log and math.exp."""
    n_rows, n_tokens, _ = logits.shape
    out = torch.zeros(n_rows, n_tokens - 1, dtype=torch.float64)
    for row in range(n_rows):
        for token in range(1, n_tokens):
            if mask[row, token]:
                scores = logits[row, token - 1].tolist()
                top = max(scores)
                log_total = top + math.log(sum(math.exp(x - top) for x in scores))
                out[row, token - 1] = scores[int(labels[row, token])] - log_total
    return out


def random_case(seed, n_rows=3, n_tokens=6, n_words=5, scale=4.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n_rows, n_tokens, n_words, generator=generator, dtype=torch.float64)
    labels = torch.randint(n_words, (n_rows, n_tokens), generator=generator)
    mask = torch.randint(2, (n_rows, n_tokens), generator=generator)
    return logits, labels, mask


cases = st.builds(
    random_case,
    seed=st.integers(0, 2**31),
    n_rows=st.integers(1, 4),
    n_tokens=st.integers(2, 7),
    n_words=st.integers(1, 9),
    scale=st.sampled_from([0.1, 4.0, 300.0]),
)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


@pytest.fixture(scope="module")
def model():
    return load_reference_model().requires_grad_(False)


@pytest.fixture(scope="module")
def examples(tokenizer):
    return [tokenize_feedback(row, tokenizer) for row in load_eight_rows()]


@pytest.fixture(scope="module")
def batch(tokenizer, examples):
    return KTOPaddingCollator(tokenizer)(examples)


def logits_of(model, batch, prefix=""):
    return model(
        input_ids=batch[prefix + "input_ids"],
        attention_mask=batch[prefix + "attention_mask"],
        use_cache=False,
    ).logits


# --- values ---


def test_two_replies_in_a_language_of_four_words_by_hand():
    weights = torch.tensor(
        [[[1, 1, 6, 2], [1, 1, 2, 16], [5, 2, 2, 1]], [[1, 1, 6, 2], [5, 2, 2, 1], [5, 2, 2, 1]]],
        dtype=torch.float64,
    )
    logps = get_probs(weights.log(), torch.tensor([[1, 2, 3], [1, 3, 0]]), torch.tensor([[0, 1, 1], [0, 1, 0]]))
    expected = torch.tensor([[math.log(0.6), math.log(0.8)], [math.log(0.2), 0.0]], dtype=torch.float64)
    assert torch.allclose(logps, expected, atol=1e-14)


@given(cases)
def test_equals_the_slow_loop(case):
    assert torch.allclose(get_probs(*case), slow_get_probs(*case), rtol=1e-12, atol=1e-12)


@given(cases)
def test_is_minus_cross_entropy_without_reduction(case):
    logits, labels, mask = case
    ce = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
    assert torch.allclose(get_probs(*case), -ce * mask[:, 1:], rtol=1e-12, atol=1e-12)


def lesson_functions():
    """The lesson's `get_probs`, which a learner fills in, and the `sequence_logps` that goes on with it."""
    found = definitions("05_get_probs", "my_get_probs", "sequence_logps")
    found["get_probs"] = found["my_get_probs"]
    return found


@given(cases)
def test_lesson_and_package_agree(case):
    assert torch.allclose(lesson_functions()["get_probs"](*case), get_probs(*case), rtol=1e-12, atol=1e-12)


@given(cases)
def test_the_hardened_version_of_lesson_05b_is_the_packages(case):
    lesson = definitions("05b_numbers_that_break", "get_probs")["get_probs"]
    assert torch.equal(lesson(*case), get_probs(*case))
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        ours, theirs = (f(case[0].to(dtype), *case[1:]) for f in (get_probs, lesson))
        assert ours.dtype == theirs.dtype == torch.float32
        assert torch.equal(ours, theirs)


def test_lesson_and_package_agree_on_a_batch(model, batch):
    lesson = lesson_functions()["sequence_logps"]
    for prefix in ("", "kl_"):
        # The lesson makes all logits, the package those of the completion: the last bits differ.
        assert torch.allclose(lesson(model, batch, prefix), sequence_logps(model, batch, prefix), rtol=0, atol=1e-12)


def test_sum_equals_the_library_loss_times_its_tokens(model, batch):
    labels = batch["input_ids"].masked_fill(batch["label_mask"] == 0, -100)
    loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    total = -loss * batch["label_mask"].sum()
    # the library computes its loss in float32
    assert float(sequence_logps(model, batch).sum()) == pytest.approx(float(total), rel=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_probabilities_of_all_continuations_add_up_to_one(length):
    """Holds for the sum of logs only: a mean, a missing shift or a missing token breaks it."""
    n_words = 4
    model = to_float64(tiny_llama(n_words, hidden_size=16, intermediate_size=16, num_layers=1, dtype=torch.float64))
    ends = torch.tensor(list(itertools.product(range(n_words), repeat=length)))
    ids = torch.cat((torch.tensor([[1, 3]]).expand(len(ends), 2), ends), dim=1)
    mask = (torch.arange(ids.shape[1]) >= 2).expand_as(ids)
    with torch.no_grad():
        model.lm_head.weight.mul_(50)  # far from uniform
        logps = sequence_logps(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "label_mask": mask})
    assert logps.std() > 0.1
    assert float(logps.exp().sum()) == pytest.approx(1.0, abs=1e-12)


# --- which tokens count ---


@given(cases)
def test_outside_the_completion_is_exactly_zero_and_nothing_is_changed_in_place(case):
    logits, labels, mask = case
    before = [tensor.clone() for tensor in case]
    logps = get_probs(logits, labels, mask)
    assert logps.shape == (labels.shape[0], labels.shape[1] - 1)
    outside = logps[mask[:, 1:] == 0]
    assert (outside == 0.0).all()
    assert not outside.signbit().any()  # -0.0 comes from multiplying, and would be printed
    assert (logps <= 0.0).all()
    assert all(torch.equal(old, new) for old, new in zip(before, case, strict=True))


def test_eos_changes_the_sum_by_its_own_log_probability(model, batch):
    with torch.no_grad():
        whole = get_probs(logits_of(model, batch), batch["input_ids"], batch["label_mask"])
    without = {field: tensor.clone() for field, tensor in batch.items()}
    last = batch["attention_mask"].sum(-1) - 1
    without["label_mask"][torch.arange(8), last] = 0
    lost = sequence_logps(model, batch) - sequence_logps(model, without)
    assert torch.allclose(lost, whole[torch.arange(8), last - 1], atol=1e-10)
    assert (lost < 0).all()


def test_padding_on_the_left_gives_the_same_numbers(model, tokenizer, examples):
    """Only the attention mask keeps a reply from reading padding that stands before it."""
    right = pad_rows(examples[:4], tokenizer.pad_token_id)
    left = {field: tensor.clone() for field, tensor in right.items()}
    for row, n_padding in enumerate((right["attention_mask"] == 0).sum(-1).tolist()):
        for tensor in left.values():
            tensor[row] = tensor[row].roll(n_padding)
    assert not torch.equal(left["input_ids"], right["input_ids"])
    assert torch.allclose(sequence_logps(model, left), sequence_logps(model, right), atol=1e-10)


def test_the_prefix_scores_the_mismatched_rows(model, tokenizer, examples, batch):
    direct = pad_rows(mismatched(examples), tokenizer.pad_token_id)
    assert torch.allclose(sequence_logps(model, batch, "kl_"), sequence_logps(model, direct), atol=1e-12)
    assert not torch.allclose(sequence_logps(model, batch, "kl_"), sequence_logps(model, batch))


def test_a_forbidden_word_scores_minus_infinity_where_it_is_scored_and_nothing_elsewhere():
    logits, labels, _ = random_case(4)
    logits[0, 1, labels[0, 2]] = -math.inf
    mask = torch.ones_like(labels)
    assert get_probs(logits, labels, mask)[0, 1] == -math.inf
    mask[0, 2] = 0
    assert torch.isfinite(get_probs(logits, labels, mask)).all()


# --- gradients and numbers ---


@pytest.mark.parametrize("seed", range(3))
def test_gradients_pass_gradcheck(seed):
    logits, labels, mask = random_case(seed, scale=1.0)
    assert torch.autograd.gradcheck(lambda x: get_probs(x, labels, mask), (logits.requires_grad_(),))


@given(cases)
def test_gradient_is_the_chosen_word_minus_the_probabilities(case):
    logits, labels, mask = case
    logits = logits.clone().requires_grad_()
    get_probs(logits, labels, mask).sum().backward()
    expected = F.one_hot(labels[:, 1:], logits.shape[-1]) - logits.detach()[:, :-1].softmax(-1)
    expected = F.pad(expected * mask[:, 1:, None], (0, 0, 0, 1))
    assert torch.allclose(logits.grad, expected, atol=1e-10)


def test_gradients_reach_every_parameter_and_no_grad_records_none(tokenizer, examples):
    policy = load_reference_model()
    batch = pad_rows(examples[:2], tokenizer.pad_token_id)
    sequence_logps(policy, batch).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in policy.parameters())
    with torch.no_grad():
        assert not sequence_logps(policy, batch).requires_grad


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_logits_of_any_size_overflow_nowhere(size):
    logits, labels, mask = random_case(6, n_words=2, scale=1.0)
    assert torch.isfinite(get_probs((logits * size).float(), labels, mask)).all()


@pytest.mark.parametrize(
    ("dtype", "result", "tolerance"),
    [
        (torch.float64, torch.float64, 1e-4),  # the library's norms and rotary table stay float32
        (torch.float32, torch.float32, 1e-3),
        (torch.float16, torch.float32, 0.5),
        (torch.bfloat16, torch.float32, 4.0),
    ],
)
def test_models_of_any_floating_type(tokenizer, examples, dtype, result, tolerance):
    batch = pad_rows(examples, tokenizer.pad_token_id)
    exact = tiny_llama(512, hidden_size=64, intermediate_size=64, dtype=torch.float64)
    with torch.no_grad():
        exact.lm_head.weight.mul_(20)
        logps = sequence_logps(copy.deepcopy(exact).to(dtype), batch)
        expected = sequence_logps(to_float64(exact), batch)
    assert logps.dtype == result
    assert logps.shape == (8,)
    assert expected.std() > 10
    assert (logps - expected).abs().max() < tolerance


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_may_be_any_integers_and_the_mask_bool_or_float(dtype):
    logits, labels, mask = random_case(7)
    expected = get_probs(logits, labels, mask)
    for kind in (torch.bool, torch.float32, torch.uint8):
        assert torch.equal(get_probs(logits, labels.to(dtype), mask.to(kind)), expected)


# --- the fast path: what `sequence_logps` does instead of `get_probs` of all logits ---

POLICY = to_float64(tiny_llama(512, hidden_size=16, intermediate_size=32, num_heads=2, dtype=torch.float64))
with torch.no_grad():
    POLICY.lm_head.weight.mul_(30)  # far from uniform


def plain(model, batch, prefix=""):
    logits = logits_of(model, batch, prefix)
    return get_probs(logits, batch[prefix + "input_ids"], batch[prefix + "label_mask"]).sum(-1)


def score_and_gradients(score, model, batch, weights):
    logps = score(model, batch)
    model.zero_grad()
    (logps * weights).sum().backward()
    return logps.detach(), {name: p.grad for name, p in model.named_parameters()}


def random_batch(seed, n_rows):
    rng, tokenizer = random.Random(seed), load_tokenizer()
    rows = [
        {
            "prompt": "ab cd " * rng.randint(0, 6),
            "completion": "".join(rng.choice("abz Ü9?\n€") for _ in range(rng.randint(1, 25))) + ".",
            "label": rng.random() < 0.5,
        }
        for _ in range(n_rows)
    ]
    return KTOPaddingCollator(tokenizer)([tokenize_feedback(row, tokenizer) for row in rows])


@settings(max_examples=20, phases=(Phase.explicit, Phase.generate))
@given(st.integers(0, 2**31), st.integers(2, 6))
def test_the_fast_path_has_the_values_and_gradients_of_get_probs(seed, n_rows):
    batch = random_batch(seed, n_rows)
    for prefix in ("", "kl_"):
        with torch.no_grad():
            found, expected = sequence_logps(POLICY, batch, prefix), plain(POLICY, batch, prefix)
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-12)
    weights = torch.randn(n_rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found, ours = score_and_gradients(sequence_logps, POLICY, batch, weights)
    expected, theirs = score_and_gradients(plain, POLICY, batch, weights)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-12)
    for name, gradient in theirs.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(ours[name], gradient, rtol=1e-12, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def test_token_by_token_the_fast_path_equals_get_probs(batch, model):
    fields = [batch[field] for field in FIELDS]
    expected = get_probs(logits_of(model, batch), batch["input_ids"], batch["label_mask"])
    found = token_logps(model, *fields)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    outside = found[batch["label_mask"][:, 1:] == 0]
    assert (outside == 0.0).all()
    assert not outside.signbit().any()


def test_the_head_is_applied_to_scored_places_only(model, batch):
    shapes = []
    hook = model.lm_head.register_forward_hook(lambda _, inputs, output: shapes.append(output.shape[:-1].numel()))
    for prefix in ("", "kl_"):
        sequence_logps(model, batch, prefix)
    hook.remove()
    assert shapes == [int(batch["label_mask"].sum()), int(batch["kl_label_mask"].sum())]
    assert logits_of(model, batch).shape[:2] == batch["input_ids"].shape, "the head was left changed"


class Wrapper(torch.nn.Module):
    """As DistributedDataParallel keeps a model."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, **inputs):
        return self.module(**inputs)


class Delegate(torch.nn.Module):
    """As PEFT keeps a model: what it does not have itself it asks the model for."""

    def __init__(self, model):
        super().__init__()
        self.base_model = model

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_model"), name)

    def forward(self, **inputs):
        return self.base_model(**inputs)


class Headless(torch.nn.Module):
    """Names no head."""

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def forward(self, **inputs):
        return self.inner(**inputs)


class Deaf(Delegate):
    """Names a head and does not use it as a module: hooks on it are ignored, as in some compiled models."""

    def forward(self, input_ids, attention_mask, **_):
        hidden = self.base_model.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return SimpleNamespace(logits=hidden @ self.base_model.lm_head.weight.T)


@pytest.mark.parametrize(("wrapper", "is_fast"), [(Wrapper, True), (Delegate, True), (Headless, False), (Deaf, False)])
def test_wrapped_models_score_the_same_and_head_only_where_one_is_found(wrapper, is_fast, batch, monkeypatch):
    policy = load_reference_model()
    weights = torch.linspace(-1, 1, 8, dtype=torch.float64)
    expected, theirs = score_and_gradients(sequence_logps, policy, batch, weights)
    slow = []
    monkeypatch.setattr(logprobs, "get_probs", lambda *args: slow.append(args) or get_probs(*args))
    found, ours = score_and_gradients(sequence_logps, wrapper(policy), batch, weights)
    assert bool(slow) is not is_fast
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for mine, plain_gradient in zip(ours.values(), theirs.values(), strict=True):
        torch.testing.assert_close(mine, plain_gradient, rtol=0, atol=1e-11)


def test_a_model_that_fails_leaves_its_head_as_it_was(batch):
    policy = copy.deepcopy(POLICY)
    with pytest.raises(IndexError):
        token_logps(policy, batch["input_ids"] + 600, batch["attention_mask"], batch["label_mask"])
    assert not policy.lm_head._forward_pre_hooks


def test_a_batch_in_which_nothing_is_scored_has_zeros(batch):
    empty = {**batch, "label_mask": torch.zeros_like(batch["label_mask"])}
    assert torch.equal(sequence_logps(POLICY, empty).detach(), torch.zeros(8, dtype=torch.float64))


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 9), st.sampled_from([0.1, 4.0, 300.0]))
def test_the_chosen_log_probability_in_place_is_that_of_log_softmax(seed, n_tokens, n_words, scale):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n_tokens, n_words, generator=generator, dtype=torch.float64)
    targets = torch.randint(n_words, (n_tokens,), generator=generator)
    upstream = torch.randn(n_tokens, generator=generator, dtype=torch.float64)
    one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found = _ChosenLogProbability.apply(one.clone(), targets)
    expected = two.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    found.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(one.grad, two.grad, rtol=1e-12, atol=1e-12)


def test_the_chosen_log_probability_passes_gradcheck():
    logits, labels, _ = random_case(3, n_rows=1, scale=1.0)
    class Fresh(torch.autograd.Function):
        """A new graph for each backward pass, since gradcheck takes several and this function allows one."""

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return _ChosenLogProbability.apply(x.clone(), labels[0])

        @staticmethod
        def backward(ctx, gradient):
            x = ctx.saved_tensors[0].clone().requires_grad_()
            with torch.enable_grad():
                score = _ChosenLogProbability.apply(x.clone(), labels[0])
            return torch.autograd.grad(score, x, gradient)

    assert torch.autograd.gradcheck(Fresh.apply, (logits[0].requires_grad_(),))


def test_a_second_backward_pass_is_refused_and_not_wrong(batch):
    logps = sequence_logps(POLICY, batch).sum()
    logps.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="call sequence_logps again"):
        logps.backward()


def test_an_infinite_logit_is_refused(batch):
    broken = copy.deepcopy(POLICY)
    with torch.no_grad():
        broken.lm_head.weight[5] = math.inf
    with pytest.raises(ValueError, match="NaN log-probability in row 0"):
        sequence_logps(broken, batch)


# --- errors ---


@pytest.mark.parametrize(
    ("logits", "labels", "mask"),
    [
        ((2, 3), (2, 3), (2, 3)),
        ((2, 3, 4), (2, 2), (2, 2)),
        ((2, 3, 4), (2, 3), (2, 2)),
        ((2, 3, 4), (3, 2), (3, 2)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(logits, labels, mask):
    with pytest.raises(ValueError, match=r"shapes do not fit: logits \(2, 3"):
        get_probs(torch.zeros(logits), torch.zeros(labels, dtype=torch.long), torch.ones(mask))


def test_a_single_token_is_refused():
    with pytest.raises(ValueError, match=r"T is 1; .* at least 2"):
        get_probs(torch.zeros(2, 1, 4), torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1))


def test_logits_must_be_floating():
    logits, labels, mask = random_case(8)
    with pytest.raises(TypeError, match=r"logits are torch.int64; they must be a floating type"):
        get_probs(logits.long(), labels, mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_labels_must_be_integers(dtype):
    logits, labels, mask = random_case(8)
    with pytest.raises(TypeError, match=rf"labels are {dtype}; they must be integer"):
        get_probs(logits, labels.to(dtype), mask)


@pytest.mark.parametrize("bad", [-100, -1, 5])
def test_a_scored_label_outside_the_vocabulary_is_refused(bad):
    logits, labels, mask = random_case(9)
    labels[1, 3], mask[1, 3] = bad, 1
    with pytest.raises(ValueError, match=rf"completion tokens have ids .*{bad}.*; logits know 0 to 4"):
        get_probs(logits, labels, mask)
    mask[1, 3] = 0
    assert torch.isfinite(get_probs(logits, labels, mask)).all()


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_nan_in_the_completion_is_refused_by_row_and_token(poison):
    logits, labels, mask = random_case(10)
    mask[2, 4] = 1
    logits[2, 3, 0] = poison
    labels[2, 4] = 0
    with pytest.raises(ValueError, match=r"NaN log-probability in row 2 for token 4"):
        get_probs(logits, labels, mask)


def test_only_minus_infinity_in_the_completion_is_refused():
    logits, labels, mask = random_case(10)
    mask[0, 1] = 1
    logits[0, 0] = -math.inf
    with pytest.raises(ValueError, match=r"row 0 for token 1"):
        get_probs(logits, labels, mask)


def test_a_batch_without_the_fields_is_refused_by_name(model, batch):
    plain = {field: batch[field] for field in FIELDS}
    with pytest.raises(KeyError, match=r"the batch has no kl_input_ids, kl_attention_mask, kl_label_mask; it has"):
        sequence_logps(model, plain, "kl_")
    del plain["label_mask"]
    with pytest.raises(KeyError, match=r"the batch has no label_mask"):
        sequence_logps(model, plain)


def test_a_broken_model_is_refused(batch):
    broken = load_reference_model()
    with torch.no_grad():
        broken.lm_head.weight[5] = math.nan
    with pytest.raises(ValueError, match=r"NaN log-probability in row 0 for token 12: .* diverged"):
        sequence_logps(broken, batch)
