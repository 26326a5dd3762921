"""The comparison: its protocol, what a run trains on, and a file of runs that loses nothing and mixes nothing."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from kto_lab.comparison import __main__ as command
from kto_lab.comparison import exploratory, protocol, results, runs
from kto_lab.comparison.exploratory import EXPERIMENTS
from kto_lab.comparison.protocol import CONDITIONS, HYPOTHESES, METHODS, WAYS, methods_of, setting_of
from kto_lab.comparison.settings import Setting, changes, key_of, setting_from
from kto_lab.comparison.thumbs import feedback

SHORT = {"steps": 3}

# --- settings and protocol ------------------------------------------------------------------------------------------


def test_a_setting_survives_its_short_form():
    for setting in (Setting(), Setting(trainer="sft", beta=None), Setting(track=(1, 3), flip=0.1, weight_ratio=None)):
        assert setting_from(json.loads(json.dumps(changes(setting)))) == setting
    assert changes(Setting()) == {}


def test_equal_runs_have_one_name_and_other_runs_another():
    assert key_of(setting_of("all thumbs", "kto", 1e-3, 2.0), 1) == key_of(Setting(), 1)
    assert len({key_of(Setting(), 1), key_of(Setting(), 2), key_of(Setting(flip=0.1), 1)}) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Setting(trainer="ppo"), "trainer is 'ppo'"),
        (lambda: Setting(trainer="sft"), "SFT has none"),
        (lambda: setting_from({"betta": 1.0}), r"settings have no \['betta'\]"),
        (lambda: setting_of("20% flipped", "kto", 1e-3, 2.0), "condition is '20% flipped'; .* 30% flipped"),
        (lambda: setting_of("all thumbs", "ppo", 1e-3, 2.0), "method is 'ppo'; .* kto weights 1"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_seeds_are_disjoint_and_enough():
    test, validation = set(protocol.TEST_SEEDS), set(protocol.VALIDATION_SEEDS)
    assert not test & validation
    assert not (test | validation) & set(range(200, 218))  # of the trial runs
    assert not test & set(range(500, 530))  # of the computation that was seen
    assert len(test) >= 30
    assert len(validation) >= 8
    assert len(protocol.LARGE_SEEDS) >= 10


def test_every_hypothesis_speaks_of_cells_that_exist():
    for sentence, way, condition, one, other, small in HYPOTHESES.values():
        assert sentence.endswith(".")
        assert way in (*WAYS, "both")
        assert (one != other) == (way != "both")
        assert {one, other} <= set(methods_of(condition, small))
        assert small or way == protocol.ONCE


def test_cdpo_is_told_the_share_of_flipped_thumbs_and_stands_only_where_there_are_any():
    assert setting_of("30% flipped", "cdpo", 1e-3, 2.0).smoothing == 0.3
    assert [condition for condition in CONDITIONS if "cdpo" in methods_of(condition)] == [
        "10% flipped", "30% flipped", "45% flipped"
    ]  # fmt: skip


def test_all_methods_see_the_same_rows():
    for condition in ("both kinds on a quarter", "30% flipped"):
        given = [feedback(setting_of(condition, m, 1e-3, None if m == "sft" else 2.0), 3) for m in METHODS]
        assert all(rows == given[0] for rows in given)


# --- runs -----------------------------------------------------------------------------------------------------------

ROWS = [
    {"prompt": "a", "completion": " 1", "label": True}, {"prompt": "a", "completion": " 2", "label": True},
    {"prompt": "a", "completion": " 3", "label": False}, {"prompt": "b", "completion": " 4", "label": True},
    {"prompt": "c", "completion": " 5", "label": False},
]  # fmt: skip


def test_pairs_are_all_that_can_be_made_before_any_comes_again():
    pairs, used = runs.pairs_of(ROWS, 2, seed=0)
    assert sorted((pair["chosen"], pair["rejected"]) for pair in pairs) == [(" 1", " 3"), (" 2", " 3")]
    assert used == 3  # b has no thumbs-down, c no thumbs-up
    many, _ = runs.pairs_of(ROWS, 5, seed=0)
    assert len(many) == 5
    assert {tuple(pair.items()) for pair in many} == {tuple(pair.items()) for pair in pairs}
    assert runs.pairs_of(ROWS[3:], 5, seed=0) == ([], 0)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_with_16_completions_a_step(method, monkeypatch):
    seen = {}
    for name in ("train_sft", "train_kto", "train_dpo"):

        def spy(real, name=name):
            def train(policy, *others, **options):
                seen[name] = options["batch_size"]
                return real(policy, *others, **options)

            return train

        monkeypatch.setattr(runs, name, spy(getattr(runs, name)))
    setting = replace(setting_of("10% flipped", method, 1e-3, None if method == "sft" else 2.0), **SHORT)
    found = runs.train_and_score(setting, 3)
    assert seen == {{"sft": "train_sft", "dpo": "train_dpo", "kto": "train_kto"}[setting.trainer]:
                    8 if setting.trainer == "dpo" else 16}  # fmt: skip
    assert found["trained kl"] > 0.0
    assert found["used"] == (found["up"] if method == "sft" else found["rows"])


def test_without_pairs_dpo_leaves_the_model_as_it_was():
    found = runs.train_and_score(Setting(trainer="dpo", only="down", **SHORT), 3)
    assert (found["used"], found["trained kl"]) == (0, 0.0)


def test_the_search_scores_the_same_run_only_less():
    whole, brief = (runs.train_and_score(Setting(**SHORT), 3, brief) for brief in (False, True))
    assert set(brief) == {"rows", "up", "trained thumbs_up"}
    assert all(whole[name] == value for name, value in brief.items())


def test_watching_the_pushes_changes_no_digit(monkeypatch):
    watched = runs.train_and_score(Setting(**SHORT), 3)
    monkeypatch.setattr(runs.Pushes, "__call__", lambda self, run, batch, known: self.positive.append(True) or 0.0)
    blind = runs.train_and_score(Setting(**SHORT), 3)
    assert blind["trained thumbs_up"] == watched["trained thumbs_up"]


def test_at_the_start_the_weights_share_the_push_equally():
    balanced, plain = (runs.train_and_score(Setting(steps=12, learning_rate=1e-7, weight_ratio=ratio), 3) for ratio in
                       (1.0, None))  # fmt: skip
    assert balanced["push_up"] == pytest.approx(0.5, abs=0.1)  # the batches' luck
    assert plain["push_up"] == pytest.approx(balanced["up"] / balanced["rows"], abs=0.08)


def test_a_tracked_run_is_scored_on_the_way():
    found = runs.train_and_score(Setting(steps=3, track=(1, 3)), 3)
    assert [point["step"] for point in found["path"]] == [1, 3]
    assert found["path"][-1]["thumbs_up"] == found["trained thumbs_up"]


# --- the file -------------------------------------------------------------------------------------------------------


@pytest.fixture
def toy(monkeypatch):
    """A small comparison whose runs cost nothing; `toy` lists the runs that were made."""
    made = []

    def fake(setting, seed, brief=False):
        made.append((setting, seed))
        best = setting.learning_rate == 1e-3 and setting.beta in (None, 2.0)
        return {"rows": 1, "up": 1, "trained thumbs_up": 0.9 if best else 0.1}

    monkeypatch.setattr(results, "train_and_score", fake)
    monkeypatch.setattr(results, "CONDITIONS", {"all thumbs": {}, "10% flipped": {"flip": 0.1}})
    monkeypatch.setattr(results, "TEST_SEEDS", (600, 601))
    monkeypatch.setattr(results, "LARGE_SEEDS", (600,))
    monkeypatch.setattr(results, "ProcessPoolExecutor", lambda *arguments: ThreadPoolExecutor(1))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return made


def test_a_whole_computation_makes_every_run_once(toy, tmp_path):
    file = tmp_path / "runs.jsonl"
    results.run_all(file)
    assert len(toy) == len(set(toy))
    found = results.Results(results.Store(file), {})
    assert found.choice("10% flipped", "kto", protocol.EACH) == (1e-3, 2.0)
    assert len(found.cell("10% flipped", "cdpo")) == 2
    assert len(found.cell("all thumbs", "sft", small=False)) == 1
    toy.clear()
    results.run_all(file)
    assert not toy


def test_finished_runs_survive_a_stop(toy, tmp_path, monkeypatch):
    file, fake = tmp_path / "runs.jsonl", results.train_and_score

    def stopped(*job):
        if len(toy) >= 6:
            until = time.monotonic() + 30
            while len(file.read_text().splitlines()) < 2 and time.monotonic() < until:  # a busy machine writes late
                time.sleep(0.01)
            raise KeyboardInterrupt
        return fake(*job)

    monkeypatch.setattr(results, "train_and_score", stopped)
    with pytest.raises(KeyboardInterrupt):
        results.run_all(file)
    kept = set(results.Store(file).runs)
    assert kept
    with file.open("a") as lines:
        lines.write('{"setting": {"fl')  # what a kill in the middle of a line leaves
    assert set(results.Store(file).runs) == kept
    assert file.read_text().endswith("}\n")  # so that the next line stands by itself
    toy.clear()
    monkeypatch.setattr(results, "train_and_score", fake)
    results.run_all(file)
    assert not kept & {key_of(*job) for job in toy}


@pytest.mark.parametrize("name", ["protocol", "code"])
def test_a_file_of_another_version_is_refused_with_the_remedy(name, tmp_path):
    file = tmp_path / "runs.jsonl"
    results.Store(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: "0000"}) + "\n")
    with pytest.raises(ValueError, match=rf"version 0000 of the {name}, .* `python course\.py experiments"):
        results.load_results(file)
    with pytest.raises(FileNotFoundError, match=r"python course\.py experiments"):
        results.load_results(tmp_path / "none.jsonl")


def edited(monkeypatch, tmp_path, module, old, new):
    """A copy of the package's files with one change; the versions are taken of the copy from now on."""
    assets = [f"kto_utils/assets/{name}" for name in
              ("tokenizer.json", "reference/model.safetensors", "reference_small/model.safetensors")]  # fmt: skip
    for name in (*(f"{name}.py" for name in results.MODULES), "kto_lab/comparison/protocol.py", *assets):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((results.ROOT / name).read_bytes())
    file = tmp_path / f"{module}.py"
    text = file.read_text(encoding="utf-8")
    assert text.count(old) >= 1
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(protocol, "__file__", str(tmp_path / "kto_lab/comparison/protocol.py"))
    return results.code_version(), results.protocol_version()


@pytest.mark.parametrize(
    ("module", "old", "new", "code", "plan"),
    [
        ("kto_utils/losses", ".clamp(min=0).detach()", ".detach()", True, False),
        ("kto_lab/comparison/thumbs", "REPLIES_PER_QUESTION = 50", "REPLIES_PER_QUESTION = 51", True, False),
        ("kto_lab/comparison/runs", "COMPLETIONS_PER_STEP = 16", "COMPLETIONS_PER_STEP = 32", True, False),
        ("kto_lab/comparison/protocol", "SFT on the thumbs-up alone ends higher", "KTO ends higher", False, True),
        ("kto_lab/comparison/protocol", "MARGIN = 0.02", "MARGIN = 0.1", False, True),
        ("kto_utils/losses", "    logratio = policy_logps", "    # why\n    logratio = policy_logps", False, False),
    ],
)
def test_what_counts_as_other_code_and_as_another_protocol(monkeypatch, tmp_path, module, old, new, code, plan):
    before = results.code_version(), results.protocol_version()
    after = edited(monkeypatch, tmp_path, module, old, new)
    assert [one != other for one, other in zip(before, after, strict=True)] == [code, plan]


def test_another_model_is_other_code_and_other_line_ends_are_not(monkeypatch, tmp_path):
    before = results.code_version()
    edited(monkeypatch, tmp_path, "kto_utils/world", "\n", "\n")
    file = tmp_path / "kto_utils" / "world.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert results.code_version() == before
    (tmp_path / "kto_utils" / "assets" / "reference_small" / "model.safetensors").write_bytes(b"other")
    assert results.code_version() != before


@pytest.mark.parametrize(
    ("stored", "fresh", "found"),
    [
        ({"new wording kl": 0.654216}, {"new wording kl": 0.654206}, True),
        ({"new wording kl": 0.654207}, {"new wording kl": 0.654206}, False),
        ({"z0_positive": 0.10}, {"z0_positive": 0.09}, False),  # one step of 100
        ({"z0_positive": 0.11}, {"z0_positive": 0.09}, True),
        ({"used": 3}, {"used": 4}, True),
        ({"path": [{"step": 1, "kl": 0.5}]}, {"path": [{"step": 1, "kl": 0.6}]}, True),
        ({"path": [{"step": 1, "kl": 0.5}]}, {}, True),
    ],
)
def test_which_numbers_count_as_others(monkeypatch, stored, fresh, found):
    monkeypatch.setattr(results, "train_and_score", lambda *job: fresh)
    assert bool(results.differences({"setting": {}, "seed": 600, **stored})) == found


def test_code_that_changes_no_number_is_taken_after_a_recheck(toy, tmp_path):
    file = tmp_path / "runs.jsonl"
    results.run_all(file)
    head, *lines = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps(json.loads(head) | {"command": "old", "code": "0000"}), *lines, ""]))
    toy.clear()
    results.recheck(file)
    assert file.read_text().splitlines() == [head, *lines]
    assert {setting.trainer for setting, _ in toy} == {"sft", "dpo", "kto"}
    results.Store(file)
    spoilt = [line.replace('"trained thumbs_up": 0.', '"trained thumbs_up": 0.0') for line in lines]
    file.write_text("\n".join([head, *spoilt, ""]))
    with pytest.raises(ValueError, match="stored and fresh differ"):
        results.recheck(file)
    file.write_text("\n".join([json.dumps(json.loads(head) | {"protocol": "0000"}), *lines, ""]))
    with pytest.raises(ValueError, match="compute again"):
        results.recheck(file)


def test_a_run_that_is_missing_is_named(toy, tmp_path):
    file = tmp_path / "runs.jsonl"
    results.run_all(file)
    found = results.Results(results.Store(file), {})
    with pytest.raises(ValueError, match=r'"flip": 0.4.* seed 600'):
        found.run(Setting(flip=0.4), 600)
    with pytest.raises(ValueError, match="way is 'twice'"):
        found.cell("all thumbs", "kto", "twice")
    with pytest.raises(ValueError, match="the larger model has tuned once"):
        found.cell("all thumbs", "kto", protocol.EACH, small=False)


def test_an_unknown_experiment_is_refused_before_anything_runs(toy, capsys):
    with pytest.raises(SystemExit):
        command.main(["lenght"])
    assert "did you mean 'length'?" in capsys.readouterr().err
    assert not toy


# --- exploratory ----------------------------------------------------------------------------------------------------


def test_exploratory_experiments_take_their_settings_from_the_search(toy, tmp_path):
    results.run_all(tmp_path / "runs.jsonl")
    found = results.Results(results.Store(tmp_path / "runs.jsonl"), {})
    cells = exploratory.jobs(found, "why: few ups")
    assert cells["10% of the ups", "kto"][0] == (setting_of("10% of the ups", "kto", 1e-3, 2.0), 600)
    assert cells["10% of the ups", "ratio 4"][0][0].weight_ratio == 4.0
    with pytest.raises(ValueError, match="there is no run"):
        exploratory.outcomes(found, "length")


def test_what_the_core_table_has_is_not_asked_for_under_another_name():
    for name, chosen in EXPERIMENTS.items():
        for condition, changed in chosen.conditions.items():
            if condition in CONDITIONS:
                assert changed == CONDITIONS[condition], name
        assert set(chosen.seeds) <= set(protocol.TEST_SEEDS)
        assert len(chosen.seeds) >= (6 if name == "watched" else 20 if chosen.small else 10)
        assert chosen.question.endswith("?")
