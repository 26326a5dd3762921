"""The results file: complete, genuine, of this code; and how it is computed without losing a finished run."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from kto_lab.experiments import __main__ as command
from kto_lab.experiments import protocol, results, scores
from kto_lab.experiments.protocol import EXPERIMENTS

STORED = results.load_results()

# Cheap to compute again, and together every branch of a run: the two methods and each kind of change to the thumbs.
RECOMPUTED = {
    "clean pairs": ("clean", "dpo"),
    "more steps": ("clean", "dpo"),
    "unpaired thumbs": ("quarter", "kto"),
    "fewer thumbs-up": ("2%", "kto weights 1"),
    "fewer thumbs-down": ("5%", "dpo"),
    "noise": ("30%", "kto"),
    "contradiction": ("60%", "dpo"),
    "skip SFT": ("40 steps", "kto"),
    "knobs": ("rate 0.001 ratio 4", "kto"),
    "reference point": ("all", "kto moving average"),
    "length": ("long ups", "dpo"),
    "only thumbs-down": ("down", "kto + sft"),
    "only thumbs-up": ("up", "kto"),
    "frontier": ("path", "kto"),
    "full size": ("noise", "dpo"),
}


def test_the_file_holds_every_run_of_the_protocol_once():
    assert [results.job_of(run) for run in STORED["search"]] == [
        job
        for name in EXPERIMENTS
        for job in results.search_jobs(name) + results.confirming_jobs(name, STORED["search"])
    ]
    assert [results.job_of(run) for run in STORED["runs"]] == [
        job for name in EXPERIMENTS for job in results.table_jobs(name, STORED["search"])
    ]


def test_every_experiment_has_a_run_that_is_recomputed():
    assert RECOMPUTED.keys() == EXPERIMENTS.keys()


@pytest.mark.parametrize("name", RECOMPUTED)
def test_one_run_of_each_experiment_gives_the_stored_numbers_again(name):
    condition, method = RECOMPUTED[name]
    results.rerun(results.select(STORED, name, condition=condition, method=method, seed=1)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", RECOMPUTED)
def test_a_whole_condition_gives_the_stored_numbers_again(name):
    condition, method = RECOMPUTED[name]
    for run in results.select(STORED, name, condition=condition, method=method):
        results.rerun(run)


def test_the_reference_scores_are_those_of_the_shipped_models():
    for size, small in (("small", True), ("course", False)):
        assert STORED["reference"][size] == pytest.approx(scores.reference_scores(small), rel=1e-4, abs=1e-6)


def test_a_changed_number_is_noticed(monkeypatch):
    run = dict(STORED["runs"][0])
    monkeypatch.setattr(
        results, "train_and_score", lambda *job: run | {"trained thumbs_up": run["trained thumbs_up"] + 1e-3}
    )
    with pytest.raises(AssertionError, match="trained thumbs_up"):
        results.rerun(run)
    monkeypatch.setattr(results, "train_and_score", lambda *job: dict(run))
    assert results.rerun(run) == run


# --- settings -------------------------------------------------------------------------------------------------------


def tried(method, rate, *thumbs_up, name="noise"):
    return [
        {"experiment": name, "method": method, "learning_rate": rate, "beta": 0.1, "trained thumbs_up": up,
         "new wording thumbs_up": 1 - up}
        for up in thumbs_up
    ]  # fmt: skip


def test_the_best_settings_have_the_highest_mean_over_all_seeds():
    search = tried("kto", 1e-3, 0.95, 0.0, 0.9) + tried("kto", 3e-4, 0.8, 0.8, 0.8) + tried("kto", 1e-4, 0.94)
    search += tried("dpo", 1e-4, 0.5) + tried("dpo", 3e-4, 0.6)
    search += tried("kto", 3e-3, 1.0, 1.0, 1.0, name="clean pairs")
    assert results.best_settings(search, "noise") == {"kto": (3e-4, 0.1), "dpo": (3e-4, 0.1)}
    with pytest.raises(ValueError, match="no run of method 'dpo'"):
        results.best_settings(search, "clean pairs")


def test_only_the_best_of_the_first_seed_are_tried_again_at_both_ends_of_the_experiment():
    search = [run for m in ("kto", "dpo") for up in (0.1, 0.4, 0.3, 0.2, 0.5) for run in tried(m, up / 100, up)]
    jobs = results.confirming_jobs("noise", search)
    assert {job[:4] for job in jobs} == {
        ("noise", condition, method, seed)
        for method in ("kto", "dpo")
        for condition, seed in (("0%", protocol.VALIDATION_SEEDS[1]), ("45%", protocol.VALIDATION_SEEDS[2]))
    }
    assert {job[4] for job in jobs} == {0.003, 0.004, 0.005}
    assert results.confirming_jobs("more steps", search) == []


def test_every_method_of_an_experiment_searches_the_same_settings_with_the_same_seed():
    for name, chosen in EXPERIMENTS.items():
        jobs = results.search_jobs(name)
        each = [[job[-2:] for job in jobs if job[2] == method] for method in chosen.methods]
        assert all(pairs == each[0] for pairs in each)
        assert {job[3] for job in jobs} <= {protocol.VALIDATION_SEEDS[0]}


# --- which code a file is of ----------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of what the version is made of, and the version of that copy."""
    here = results.Path(results.__file__).parents[2]
    assets = [f"kto_utils/assets/{name}" for name in
              ("tokenizer.json", "reference/model.safetensors", "reference_small/model.safetensors")]  # fmt: skip
    for name in (*(f"{module}.py" for module in results.MODULES), *assets):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((here / name).read_bytes())
    monkeypatch.setattr(results, "__file__", str(tmp_path / "kto_lab" / "experiments" / "results.py"))
    return tmp_path


def edited(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert text.count(old) >= 1
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_stored_version_is_that_of_this_code(package):
    assert results.code_version() == STORED["code_version"]


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("kto_utils/losses", ".clamp(min=0).detach()", ".detach()"),
        ("kto_utils/train", "weight_decay=0.0", "weight_decay=0.1"),
        ("kto_lab/experiments/thumbs", "REPLIES_PER_QUESTION = 50", "REPLIES_PER_QUESTION = 51"),
        ("kto_lab/experiments/protocol", "With clean pairs DPO ends", "With clean pairs KTO ends"),
    ],
)
def test_other_code_has_another_version(package, module, old, new):
    edited(package / f"{module}.py", old, new)
    assert results.code_version() != STORED["code_version"]


def test_another_model_has_another_version(package):
    (package / "kto_utils" / "assets" / "reference_small" / "model.safetensors").write_bytes(b"other")
    assert results.code_version() != STORED["code_version"]


def test_comments_docstrings_and_line_ends_are_no_other_code(package):
    edited(package / "kto_utils" / "losses.py", '"""KTO and DPO', '"""Here: KTO and DPO')
    edited(package / "kto_utils" / "losses.py", "    logratio = policy_logps", "    # why\n    logratio = policy_logps")
    file = package / "kto_utils" / "world.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert results.code_version() == STORED["code_version"]


def test_a_file_by_other_code_is_refused_with_the_remedy(tmp_path):
    file = tmp_path / "results.json"
    file.write_text(json.dumps(STORED | {"code_version": "0000"}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"version 0000 .* `python course\.py experiments` computes them again"):
        results.load_results(file)
    with pytest.raises(FileNotFoundError, match=r"python course\.py experiments"):
        results.load_results(tmp_path / "none.json")


def test_what_is_not_in_the_file_is_refused():
    with pytest.raises(ValueError, match="did you mean 'noise'"):
        results.select(STORED, "noises")
    with pytest.raises(ValueError, match="hold no run with"):
        results.select(STORED, "noise", method="ppo")


# --- computing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def toy(monkeypatch):
    """Two small experiments whose runs cost nothing; `toy` lists the runs that were asked for."""
    asked = []

    def fake_run(*job):
        asked.append(job)
        run = dict(zip(results.FIELDS, job, strict=True))
        return run | {"rows": 1, "up": 1, "used": 1, "trained thumbs_up": job[-1], "trained listed": 1.0}

    pair = {
        name: protocol.Experiment("", "", "", {"a": {}}, search="a", grid=((1e-3, 0.1), (1e-3, 0.5)), seeds=(0, 1))
        for name in ("one", "two")
    }
    monkeypatch.setattr(protocol, "EXPERIMENTS", pair)
    monkeypatch.setattr(results, "EXPERIMENTS", pair)
    monkeypatch.setattr(results, "train_and_score", fake_run)
    monkeypatch.setattr(results, "reference_scores", lambda small=True: {})
    monkeypatch.setattr(results, "ProcessPoolExecutor", lambda *arguments: ThreadPoolExecutor(1))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return asked


def test_a_whole_computation_searches_freezes_and_writes(toy, tmp_path):
    file = tmp_path / "results.json"
    results.run_all(file=file)
    stored = results.load_results(file)
    assert [run["beta"] for run in stored["runs"]] == [0.5] * 8  # the better of the two settings
    assert len(stored["search"]) == 24  # 2 experiments x 2 methods x 2 settings x 3 seeds
    assert len(toy) == 32
    assert list(tmp_path.iterdir()) == [file]


def test_finished_runs_survive_a_stop_and_are_not_run_again(toy, tmp_path, monkeypatch):
    file, run, count = tmp_path / "results.json", results.train_and_score, 0

    def stopped(*job):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt
        return run(*job)

    monkeypatch.setattr(results, "train_and_score", stopped)
    with pytest.raises(KeyboardInterrupt):
        results.run_all(file=file)
    assert not file.exists()
    unfinished = tmp_path / "results.json.unfinished"
    kept = {results.job_of(json.loads(line)) for line in unfinished.read_text().splitlines()[1:]}
    assert kept
    with unfinished.open("a") as lines:
        lines.write('{"experiment": "two", "cond')  # what a kill in the middle of a line leaves
    assert len(results._finished(unfinished, results.code_version())) == len(kept)
    assert unfinished.read_text().endswith("}\n")  # so that the next line stands by itself
    toy.clear()
    monkeypatch.setattr(results, "train_and_score", run)
    results.run_all(file=file)
    assert not kept & set(toy)
    assert len(toy) == len(set(toy)) == 32 - len(kept)


def test_unfinished_runs_of_other_code_are_not_used(toy, tmp_path):
    file = tmp_path / "results.json"
    unfinished = tmp_path / "results.json.unfinished"
    run = {"experiment": "one", "condition": "a", "method": "kto", "seed": 100, "learning_rate": 1e-3, "beta": 0.1}
    unfinished.write_text('{"code_version": "0000"}\n' + json.dumps(run) + "\n")
    results.run_all(file=file)
    assert len(toy) == 32


def test_one_experiment_alone_leaves_the_others_as_they_are(toy, tmp_path):
    file = tmp_path / "results.json"
    results.run_all(file=file)
    before = file.read_bytes()
    toy.clear()
    results.run_all(["two"], file=file)
    assert {job[0] for job in toy} == {"two"}
    assert file.read_bytes() == before


def test_a_name_that_does_not_exist_is_refused_before_anything_runs(capsys):
    with pytest.raises(SystemExit):
        command.main(["nois"])
    assert "did you mean 'noise'" in capsys.readouterr().err
