"""Exact rates and KL by enumeration, sampling that agrees with them, and the least KL for a rate."""

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lesson_source import definitions

from kto_lab import price
from kto_utils import evaluate, train, world
from kto_utils.data import tokenize_feedback
from kto_utils.model import load_reference_model, reference_of, tiny_llama
from kto_utils.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer()
QUESTIONS = world.trained_questions()[::8]
LESSON = definitions("07_train", "rates", "exact_rate") | definitions("07b_price", "exact_kl", "least_kl")
probabilities = st.floats(0.01, 0.99)


@pytest.fixture(scope="module")
def reference():
    return reference_of(load_reference_model())


@pytest.fixture(scope="module")
def stranger():
    """An untrained model: nearly all of its mass lies outside the list."""
    return tiny_llama(512, hidden_size=32, intermediate_size=64, num_layers=1, seed=1, dtype=torch.float64)


@pytest.fixture(scope="module")
def feedback(reference):
    return evaluate.collect_feedback(reference, world.trained_questions(), 30, seed=0)


@pytest.fixture(scope="module")
def polished():
    """A policy that stays on the list: fine-tuned on liked replies to the three questions."""
    rows = [
        {"prompt": question.prompt, "completion": reply.text}
        for question in QUESTIONS
        for reply in world.replies(question)
        if reply.thumbs_up
    ]
    return train.train_sft(load_reference_model(), rows, TOKENIZER, steps=30, batch_size=9)[0]


@pytest.fixture(scope="module")
def collapsed(reference, feedback):
    """Both weights 1 with three thumbs down for each up: lesson 07, section 7."""
    policy, _ = train.train_kto(load_reference_model(), reference, feedback, TOKENIZER, steps=20, learning_rate=1e-3)
    return policy


# Enumeration


def logp_by_hand(model, prompt, completion):
    """One text, no padding, no mask: the sum of log-probabilities token by token."""
    example = tokenize_feedback({"prompt": prompt, "completion": completion, "label": True}, TOKENIZER)
    ids, first = example["input_ids"], example["label_mask"].index(1)
    with torch.no_grad():
        logps = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)
    return sum(float(logps[t - 1, ids[t]]) for t in range(first, len(ids)))


def test_every_enumerated_log_probability_is_the_one_computed_alone(reference):
    table = evaluate.reply_logps(reference, QUESTIONS)
    assert table.shape == (3, 48)
    for row, question in zip(table, QUESTIONS, strict=True):
        for i in (0, 13, 47):
            expected = logp_by_hand(reference, question.prompt, world.replies(question)[i].text)
            assert float(row[i]) == pytest.approx(expected, abs=1e-9)


def test_the_batch_size_does_not_matter(reference):
    prompts, texts = [QUESTIONS[0].prompt] * 5, [reply.text for reply in world.replies(QUESTIONS[0])[:40:8]]
    whole = evaluate.completion_logps(reference, prompts, texts)
    parts = evaluate.completion_logps(reference, prompts, texts, batch_size=2)
    assert torch.allclose(whole, parts, rtol=0, atol=1e-10)


def test_probabilities_of_listed_replies_add_up_to_at_most_1(reference, stranger, polished):
    for model in (reference, stranger, polished):
        sums = evaluate.reply_logps(model, QUESTIONS).exp().sum(-1)
        assert bool((sums > 0).all())
        assert bool((sums <= 1 + 1e-12).all())


def test_no_listed_reply_is_longer_than_what_is_sampled():
    lengths = [
        sum(tokenize_feedback({"prompt": q.prompt, "completion": r.text, "label": True}, TOKENIZER)["label_mask"])
        for q in world.all_questions()
        for r in world.replies(q)
    ]
    assert max(lengths) < evaluate.MAX_NEW_TOKENS


def test_rates_are_sums_over_the_replies(reference):
    table = evaluate.reply_logps(reference, QUESTIONS).exp()
    sums = Counter()
    for row, question in zip(table.tolist(), QUESTIONS, strict=True):
        for probability, reply in zip(row, world.replies(question), strict=True):
            sums["listed"] += probability / 3
            sums["polite"] += probability / 3 * reply.polite
            sums["right"] += probability / 3 * reply.right
            sums["thumbs_up"] += probability / 3 * (reply.polite and reply.right)
    assert evaluate.rates(reference, QUESTIONS) == pytest.approx(dict(sums), abs=1e-12)


def test_the_lesson_computes_the_same_rates_and_kl(reference, polished):
    assert LESSON["rates"](polished, QUESTIONS) == pytest.approx(evaluate.rates(polished, QUESTIONS), abs=1e-12)
    expected = evaluate.exact_kl(polished, reference, QUESTIONS)
    assert LESSON["exact_kl"](polished, reference, QUESTIONS) == pytest.approx(expected, abs=1e-12)


def test_rates_are_ordered_as_their_meaning_demands(reference, stranger, polished, collapsed):
    for model in (reference, stranger, polished, collapsed):
        found = evaluate.rates(model, QUESTIONS)
        assert 0 <= found["thumbs_up"] <= min(found["polite"], found["right"])
        assert found["polite"] + found["right"] - found["thumbs_up"] <= found["listed"] + 1e-12
        assert found["listed"] <= 1 + 1e-12


def test_the_shipped_model_is_liked_for_about_a_fifth_to_a_quarter_of_its_replies(reference):
    table = {row["questions"]: row for row in evaluate.report(reference)}
    assert set(table) == {"trained", "new wording", "untouched facts"}
    for row in table.values():
        assert 0.2 < row["thumbs_up"] < 0.27
        assert row["listed"] > 0.98
    assert table["trained"]["thumbs_up"] == evaluate.thumbs_up_rate(reference)


def test_the_rates_of_single_questions_average_to_the_rate_of_the_set(reference):
    singles = price.question_rates(reference, QUESTIONS)
    assert len(singles) == 3
    assert sum(singles) / 3 == pytest.approx(evaluate.thumbs_up_rate(reference, QUESTIONS), abs=1e-12)
    assert singles[1] == pytest.approx(evaluate.thumbs_up_rate(reference, [QUESTIONS[1]]), abs=1e-9)


# KL


def test_a_model_has_no_distance_from_itself(reference):
    assert evaluate.exact_kl(reference, reference, QUESTIONS) == 0.0
    assert price.sampled_kl(reference, reference, QUESTIONS, n=4) == (0.0, 0.0)


def table_instead_of_models(monkeypatch, **tables):
    """Lets exact_kl see hand-made probabilities; models are named by their table."""
    monkeypatch.setattr(
        evaluate, "reply_logps", lambda model, *_: torch.tensor(tables[model], dtype=torch.float64).log()
    )


def test_exact_kl_counts_the_rest_as_one_outcome(monkeypatch):
    table_instead_of_models(monkeypatch, policy=[[0.5, 0.2], [0.1, 0.8]], reference=[[0.25, 0.25], [0.3, 0.3]])
    first = 0.5 * math.log(2) + 0.2 * math.log(0.8) + 0.3 * math.log(0.6)
    second = 0.1 * math.log(1 / 3) + 0.8 * math.log(8 / 3) + 0.1 * math.log(0.25)
    assert evaluate.exact_kl("policy", "reference", QUESTIONS) == pytest.approx((first + second) / 2, abs=1e-12)


def test_exact_kl_accepts_a_policy_that_gives_some_replies_and_the_rest_no_mass(monkeypatch):
    table_instead_of_models(monkeypatch, policy=[[1.0, 0.0]], reference=[[0.2, 0.3]])
    assert evaluate.exact_kl("policy", "reference", QUESTIONS) == pytest.approx(math.log(5), abs=1e-12)


def test_exact_kl_is_infinite_where_the_reference_excludes_what_the_policy_says(monkeypatch):
    table_instead_of_models(monkeypatch, policy=[[0.5, 0.5]], reference=[[1.0, 0.0]])
    assert evaluate.exact_kl("policy", "reference", QUESTIONS) == math.inf


def test_a_listed_mass_rounded_past_1_leaves_nothing():
    assert evaluate._log_rest(torch.tensor([[math.log(0.5), math.log(0.5) + 1e-12]])).item() == -math.inf


def test_exact_kl_is_positive_and_at_least_the_least_for_its_rates(reference, stranger, polished, collapsed):
    for model in (stranger, polished, collapsed):
        kl = evaluate.exact_kl(model, reference, QUESTIONS)
        assert kl > 0
        rate, before = evaluate.thumbs_up_rate(model, QUESTIONS), price.question_rates(reference, QUESTIONS)
        assert kl >= price.least_kl(before, rate)


def test_where_nearly_all_mass_is_listed_sampled_and_exact_kl_agree(reference, polished):
    assert evaluate.rates(polished, QUESTIONS)["listed"] > 0.99
    exact = evaluate.exact_kl(polished, reference, QUESTIONS)
    mean, error = price.sampled_kl(polished, reference, QUESTIONS, n=150, seed=0)
    assert 0 < error < 0.1
    assert abs(mean - exact) < 4 * error
    assert exact > 1


def test_a_collapsed_policy_shows_in_the_bound_and_more_so_in_the_sampled_kl(reference, collapsed):
    assert evaluate.rates(collapsed, QUESTIONS)["listed"] < 0.01
    bound = evaluate.exact_kl(collapsed, reference, QUESTIONS)
    mean, error = price.sampled_kl(collapsed, reference, QUESTIONS, n=8)
    assert bound > 3
    assert mean - 4 * error > bound


def test_the_standard_error_falls_with_the_root_of_the_number_of_samples(reference, stranger):
    errors = [price.sampled_kl(reference, stranger, QUESTIONS[:1], n=n, seed=1)[1] for n in (20, 320)]
    assert 2.5 < errors[0] / errors[1] < 6


def test_one_sample_gives_no_standard_error(reference):
    with pytest.raises(ValueError, match="at least 2"):
        price.sampled_kl(reference, reference, QUESTIONS, n=1)


# Sampling


def test_sampled_replies_come_as_often_as_their_exact_probabilities_say(reference):
    question, n = QUESTIONS[1], 1000
    exact = evaluate.reply_logps(reference, [question]).exp()[0].tolist()
    counts = Counter(evaluate.sample(reference, question, n, seed=3))
    for reply, p in zip(world.replies(question), exact, strict=True):
        assert abs(counts[reply.text] / n - p) < 4.5 * math.sqrt(p * (1 - p) / n) + 1e-3
    listed = sum(counts[reply.text] for reply in world.replies(question)) / n
    assert abs(listed - sum(exact)) < 4.5 * math.sqrt(sum(exact) * (1 - sum(exact)) / n)


def test_the_same_seed_gives_the_same_replies_and_another_seed_others(reference):
    first = evaluate.sample_replies(reference, QUESTIONS, 5, seed=0)
    assert [len(texts) for texts in first] == [5, 5, 5]
    assert first == evaluate.sample_replies(reference, QUESTIONS, 5, seed=0)
    assert first != evaluate.sample_replies(reference, QUESTIONS, 5, seed=1)


def test_sampling_an_untrained_model_ends_after_the_limit(stranger):
    for ids in evaluate.sample_ids(stranger, [QUESTIONS[0].prompt] * 20, TOKENIZER, 0):
        assert 1 <= len(ids) <= evaluate.MAX_NEW_TOKENS
        assert TOKENIZER.eos_token_id not in ids[:-1]


def test_feedback_holds_n_judged_replies_to_each_question_shuffled(reference, feedback):
    assert len(feedback) == 24 * 30
    assert set(Counter(row["prompt"] for row in feedback).values()) == {30}
    by_prompt = {question.prompt: question for question in world.trained_questions()}
    for row in feedback:
        assert row["label"] is world.judge(by_prompt[row["prompt"]], row["completion"])
    share, rate = sum(row["label"] for row in feedback) / 720, evaluate.thumbs_up_rate(reference)
    assert abs(share - rate) < 4 * math.sqrt(rate * (1 - rate) / 720)
    assert [row["prompt"] for row in feedback[:30]] != [feedback[0]["prompt"]] * 30


def test_feedback_is_repeatable_and_passes_noise_and_taste_to_the_judge(reference):
    clean = evaluate.collect_feedback(reference, QUESTIONS, 10, seed=4)
    assert clean == evaluate.collect_feedback(reference, QUESTIONS, 10, seed=4)
    flipped = evaluate.collect_feedback(reference, QUESTIONS, 10, seed=4, noise=1.0)
    assert Counter(row["label"] for row in flipped) == Counter(not row["label"] for row in clean)
    polite = evaluate.collect_feedback(reference, QUESTIONS, 10, seed=4, taste="polite")
    assert sum(row["label"] for row in polite) > sum(row["label"] for row in clean)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: evaluate.sample_replies(m, QUESTIONS, 0, seed=0), "n is 0"),
        (lambda m: evaluate.sample_replies(m, [], 3, seed=0), "0 questions"),
        (lambda m: evaluate.reply_logps(m, []), "questions is empty"),
        (lambda m: evaluate.completion_logps(m, [], []), "no text to score"),
        (lambda m: evaluate.completion_logps(m, ["a"], [" b", " c"]), "zip"),
    ],
)
def test_empty_or_unequal_lists_are_refused(reference, call, message):
    with pytest.raises(ValueError, match=message):
        call(reference)


# The least KL for a rate


def bernoulli_kl(q, p):
    q = torch.as_tensor(q, dtype=torch.float64)
    return torch.xlogy(q, q / p) + torch.xlogy(1 - q, (1 - q) / (1 - p))


@settings(max_examples=30)
@given(probabilities, probabilities, st.floats(0.01, 0.99))
def test_least_kl_is_what_brute_force_finds_for_two_questions(p1, p2, part):
    mean = (p1 + p2) / 2
    target = mean + part * (1 - mean)
    low, high = max(0.0, 2 * target - 1), min(1.0, 2 * target)
    q1 = torch.linspace(low, high, 200_001, dtype=torch.float64)
    brute = ((bernoulli_kl(q1, p1) + bernoulli_kl(2 * target - q1.clamp(max=2 * target), p2)) / 2).nan_to_num(1e9)
    found = price.least_kl([p1, p2], target)
    assert found <= float(brute.min()) + 1e-9
    assert found == pytest.approx(float(brute.min()), abs=1e-4)


@given(probabilities, st.floats(0, 1))
def test_for_one_question_least_kl_is_the_kl_of_two_coins(p, part):
    target = p + part * (1 - p)
    assert price.least_kl([p], target) == pytest.approx(float(bernoulli_kl(min(target, 1.0), p)), abs=1e-9)


@given(st.lists(probabilities, min_size=1, max_size=6), st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_least_kl_grows_with_the_rate_from_0_to_the_price_of_perfection(rates, parts):
    mean = sum(rates) / len(rates)
    targets = sorted({min(1.0, mean + part * (1 - mean)) for part in parts} | {1.0})
    costs = [price.least_kl(rates, target) for target in targets]
    assert price.least_kl(rates, mean) == pytest.approx(0.0, abs=1e-9)
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(costs))
    assert costs[-1] == pytest.approx(sum(-math.log(p) for p in rates) / len(rates), abs=1e-12)


@given(st.lists(probabilities, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_no_other_split_of_the_same_average_is_cheaper(rates, rng):
    others = [min(1.0, p + rng.random() * (1 - p)) for p in rates]
    cost = float(sum(bernoulli_kl(q, p) for q, p in zip(others, rates, strict=True))) / len(rates)
    assert price.least_kl(rates, sum(others) / len(rates)) <= cost + 1e-9


@given(p=st.floats(0.01, 0.99), part=st.floats(0.0, 1.0))
def test_below_the_reference_the_least_kl_of_one_question_is_that_of_two_coins_too(p, part):
    target = part * p
    assert price.least_kl([p], target) == pytest.approx(float(bernoulli_kl(target, p)), abs=1e-9)


def test_least_kl_of_no_thumbs_up_at_all_is_the_price_of_excluding_them():
    cost = -(math.log(0.7) + math.log(0.4)) / 2
    assert price.least_kl([0.3, 0.6], 0.0) == pytest.approx(cost, abs=1e-12)


def test_least_kl_holds_for_tiny_rates_and_close_to_perfection():
    assert price.least_kl([1e-40], 0.5) == pytest.approx(40 * math.log(10) * 0.5 - math.log(2), abs=1e-9)
    assert price.least_kl([0.3, 0.2], 1 - 1e-9) == pytest.approx(price.least_kl([0.3, 0.2], 1.0), abs=1e-6)


@given(st.lists(probabilities, min_size=1, max_size=6), st.floats(0, 1))
def test_the_lesson_computes_the_same_least_kl(rates, part):
    mean = sum(rates) / len(rates)
    target = min(1.0, mean + part * (1 - mean))
    assert LESSON["least_kl"](rates, target) == pytest.approx(price.least_kl(rates, target), abs=1e-9)


@pytest.mark.parametrize(
    ("rates", "target", "message"),
    [
        ([], 0.5, "at least one"),
        ([0.0, 0.5], 0.7, "strictly between"),
        ([0.5, 1.0], 0.9, "strictly between"),
        ([0.5, float("nan")], 0.9, "strictly between"),
        ([0.5], -0.1, "between 0 and 1"),
        ([0.5], 1.1, "between 0 and 1"),
        ([0.5], float("nan"), "between 0 and 1"),
    ],
)
def test_impossible_rates_and_targets_are_refused(rates, target, message):
    with pytest.raises(ValueError, match=message):
        price.least_kl(rates, target)
