"""Online KTO (kto_lab.online): rounds are one training, weights follow the counts, the policy writes the replies."""

import pytest
import torch

from kto_lab import online, online_results
from kto_lab.online import from_a_file, from_the_policy, train_online_kto
from kto_utils.evaluate import collect_feedback
from kto_utils.losses import balanced_weights
from kto_utils.model import load_reference_model, reference_of
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import train_kto
from kto_utils.world import judge, replies, trained_questions

TOKENIZER = load_tokenizer()
SETTINGS = {"learning_rate": 1e-3, "beta": 0.5, "batch_size": 4}


def thumbs(n=24):
    """Two thumbs-down for each thumbs-up, nothing sampled."""
    rows = []
    for number, question in enumerate(trained_questions()[:n]):
        liked = [reply.text for reply in replies(question) if reply.thumbs_up is (number % 3 == 0)]
        rows.append({"prompt": question.prompt, "completion": liked[0], "label": judge(question, liked[0])})
    return rows


def models():
    policy = load_reference_model(small=True)
    return policy, reference_of(policy)


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def train(collect, rounds, steps, **changes):
    policy, reference = models()
    settings = {**SETTINGS, "rounds": rounds, "steps_per_round": steps, "seed": 7} | changes
    return train_online_kto(policy, reference, collect, TOKENIZER, **settings)


def test_a_file_is_dealt_out_whole_and_no_row_twice():
    rows = thumbs(23)
    collect = from_a_file(rows, 4)
    dealt = [collect(number, None) for number in range(4)]
    assert sorted(row["prompt"] for part in dealt for row in part) == sorted(row["prompt"] for row in rows)
    assert sorted(map(len, dealt)) == [5, 6, 6, 6]


def test_thumbs_come_from_the_policy_as_it_is_and_differ_from_round_to_round():
    questions = trained_questions()[:3]
    policy, other = load_reference_model(small=True), load_reference_model()
    collect = from_the_policy(questions, 4, 50, TOKENIZER)
    assert collect(2, policy) == collect_feedback(policy, questions, 4, 52, TOKENIZER)
    assert collect(2, policy) != collect(2, other)
    assert collect(2, policy) != collect(3, policy)


def test_one_round_is_train_kto_with_the_weights_of_the_rule():
    rows = thumbs()
    policy, history = train(lambda number, policy: rows, 1, 3)
    plain, reference = models()
    up, down = balanced_weights(8, 16)
    _, expected = train_kto(
        plain, reference, rows, TOKENIZER, steps=3, seed=7, desirable_weight=up, undesirable_weight=down, **SETTINGS
    )
    assert torch.equal(parameters(policy), parameters(plain))
    assert [row["loss"] for row in history] == [row["loss"] for row in expected]


def test_rounds_are_one_training_with_a_rate_that_falls():
    states = []

    class Spy(online.KeepOptimizer):
        def step(self, run):
            super().step(run)
            states.append(max(int(state["step"]) for state in self.state["state"].values()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online, "KeepOptimizer", Spy)
        _, history = train(lambda number, policy: thumbs(), 2, 3)
    assert states == [1, 2, 3, 4, 5, 6]  # AdamW's own count: its moments were carried over
    assert [row["step"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert [row["round"] for row in history] == [0, 0, 0, 1, 1, 1]
    assert [row["learning_rate"] for row in history] == pytest.approx([1e-3] * 3 + [5e-4] * 3)


def test_weights_follow_each_rounds_counts_and_a_round_of_one_kind_has_weights_1(monkeypatch):
    seen, rows = [], thumbs()
    ups = [row for row in rows if row["label"]]
    rounds = [rows, ups, ups + [row for row in rows if not row["label"]][:2], [row | {"label": False} for row in rows]]

    def spy(*args, desirable_weight, undesirable_weight, **kwargs):
        seen.append((desirable_weight, undesirable_weight))
        return train_kto(*args, desirable_weight=desirable_weight, undesirable_weight=undesirable_weight, **kwargs)

    monkeypatch.setattr(online, "train_kto", spy)
    _, history = train(lambda number, policy: rounds[number], 4, 1)
    assert seen == [(2.0, 1.0), (1.0, 1.0), (1.0, 4.0), (1.0, 1.0)]
    assert [row["up"] for row in history] == pytest.approx([1 / 3, 1.0, 0.8, 0.0])


def test_a_policy_that_has_fallen_silent_ends_the_training_and_an_empty_start_is_refused():
    _, history = train(lambda number, policy: thumbs() if number == 0 else thumbs(3), 5, 2)
    assert len(history) == 2
    with pytest.raises(ValueError, match="rows is empty"):
        train(lambda number, policy: [], 2, 2)
    with pytest.raises(ValueError, match="rounds is 0"):
        train(lambda number, policy: thumbs(), 0, 2)


def test_the_reference_stays_and_a_later_round_sees_the_policy_that_the_first_one_made():
    policy, reference = models()
    before, seen = parameters(reference), []

    def collect(number, model):
        seen.append(parameters(model))
        return thumbs()

    train_online_kto(policy, reference, collect, TOKENIZER, rounds=2, steps_per_round=2, **SETTINGS)
    assert torch.equal(parameters(reference), before)
    assert torch.equal(seen[0], before)
    assert not torch.equal(seen[1], before)


# ---------------------------------------------------------------- the measurement


def tried(method, seed, rate, beta, trained):
    return {"method": method, "seed": seed, "learning_rate": rate, "beta": beta, "trained": trained}


SEARCH = [
    tried("online", 100, 1e-3, 0.1, 0.9), tried("online", 100, 1e-3, 0.5, 0.8), tried("online", 100, 3e-3, 0.1, 0.1),
    tried("online", 100, 3e-4, 0.5, 0.7), tried("fixed file", 100, 3e-3, 0.5, 0.99),
    tried("online", 101, 1e-3, 0.1, 0.0), tried("online", 101, 1e-3, 0.5, 0.7), tried("online", 101, 3e-4, 0.5, 0.7),
    tried("online", 102, 1e-3, 0.1, 0.9), tried("online", 102, 1e-3, 0.5, 0.8), tried("online", 102, 3e-4, 0.5, 0.7),
]  # fmt: skip


def test_a_setting_that_collapses_on_another_validation_seed_is_not_chosen():
    assert online_results.best_few(SEARCH, "online") == [(1e-3, 0.1), (1e-3, 0.5), (3e-4, 0.5)]
    assert online_results.best_setting(SEARCH, "online") == (1e-3, 0.5)


def test_validation_seeds_take_no_part_in_the_table():
    assert not set(online_results.VALIDATION_SEEDS) & set(online_results.SEEDS)
    assert len(online_results.SEEDS) == 20


def test_rows_asked_for_the_kl_say_0_before_training_and_each_row_borrows_the_one_before(monkeypatch):
    policy, reference = models()
    rows = thumbs(6)
    assert online_results.means_of_logratios(policy, reference, rows, TOKENIZER) == {"own": 0.0, "mismatched": 0.0}
    asked = []
    monkeypatch.setattr(
        online_results, "completion_logps", lambda model, prompts, texts, _: asked.append(texts) or torch.zeros(6)
    )
    online_results.means_of_logratios(policy, reference, rows, TOKENIZER)
    own = [row["completion"] for row in rows]
    assert asked == [own, own, own[-1:] + own[:-1], own[-1:] + own[:-1]]


def test_a_missing_results_file_is_named_with_its_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.json is missing; `python course\.py online`"):
        online_results.load_results(tmp_path / "nothing.json")


def test_the_stored_search_is_whole_and_every_run_has_the_setting_that_it_chose():
    results = online_results.load_results()
    for method in online_results.METHODS:
        search = [run for run in results["search"] if run["method"] == method]
        tried = {seed: {(run["learning_rate"], run["beta"]) for run in search if run["seed"] == seed}
                 for seed in online_results.VALIDATION_SEEDS}  # fmt: skip
        first, *others = tried.values()
        assert first == set(online_results.GRID)
        assert all(other == set(online_results.best_few(search, method)) for other in others)
        runs = [run for run in results["runs"] if run["method"] == method]
        assert [run["seed"] for run in runs] == list(online_results.SEEDS)
        assert {(run["learning_rate"], run["beta"]) for run in runs} == {online_results.best_setting(search, method)}


@pytest.mark.parametrize("method", online_results.METHODS)
def test_a_stored_run_is_what_the_code_does(method):
    stored = next(run for run in online_results.load_results()["runs"] if (run["method"], run["seed"]) == (method, 7))
    fresh = online_results.train_and_score(method, 7, stored["learning_rate"], stored["beta"])
    for name, value in stored.items():
        assert fresh[name] == (pytest.approx(value, rel=1e-4) if isinstance(value, (float, list)) else value), name
