"""The comparison of lesson 08: what each condition does to the feedback, and what the results file holds."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from kto_utils import experiments
from kto_utils.data import pair_up


@pytest.fixture(scope="module")
def rows():
    return experiments.feedback("as collected", seed=0)


def labels(rows):
    return [row["label"] for row in rows]


def test_the_same_seed_gives_the_same_feedback_and_another_seed_another(rows):
    assert experiments.feedback("as collected", seed=0) == rows
    assert experiments.feedback("as collected", seed=1) != rows


def test_unpaired_keeps_both_kinds_on_a_quarter_of_the_questions_only(rows):
    kept = experiments.unpaired(rows, random.Random(3))
    kinds = {}
    for row in kept:
        kinds.setdefault(row["prompt"], set()).add(row["label"])
    assert len(kinds) == 24
    assert sum(len(found) == 2 for found in kinds.values()) == 6
    assert sum(found == {True} for found in kinds.values()) == 9
    assert sum(found == {False} for found in kinds.values()) == 9
    pairs, _ = pair_up(kept, seed=0)
    assert {pair["prompt"] for pair in pairs} == {prompt for prompt, found in kinds.items() if len(found) == 2}


def test_imbalanced_keeps_one_thumbs_up_in_ten_and_every_thumbs_down(rows):
    kept = experiments.imbalanced(rows, random.Random(3))
    assert sum(labels(kept)) == round(sum(labels(rows)) / 10)
    assert labels(kept).count(False) == labels(rows).count(False)


def test_noisy_flips_about_a_fifth_and_changes_nothing_else(rows):
    flipped = experiments.noisy(rows, random.Random(3))
    assert [row["completion"] for row in flipped] == [row["completion"] for row in rows]
    share = sum(a != b for a, b in zip(labels(rows), labels(flipped), strict=True)) / len(rows)
    assert share == pytest.approx(0.2, abs=0.05)  # four standard errors of 1,200 coins


@pytest.mark.parametrize(
    ("condition", "method", "message"), [("clean", "kto", "condition is 'clean'"), ("noisy", "ppo", "method is 'ppo'")]
)
def test_unknown_names_are_refused(condition, method, message):
    with pytest.raises(ValueError, match=message):
        experiments.run_cell(condition, method, 0, 1e-4, 0.1)


def test_both_methods_search_the_same_number_of_settings():
    assert len(experiments.GRID["kto"]) == len(experiments.GRID["dpo"])


def test_the_best_settings_are_those_with_the_highest_trained_rate():
    search = [
        {"method": m, "learning_rate": rate, "beta": 0.1, "trained thumbs_up": up, "new wording thumbs_up": 1 - up}
        for m in ("kto", "dpo")
        for rate, up in ((1e-3, 0.2), (1e-4, 0.9), (1e-5, 0.5))
    ]
    assert experiments.best_settings(search) == {"kto": (1e-4, 0.1), "dpo": (1e-4, 0.1)}


def test_the_results_file_holds_the_whole_search_and_the_whole_table():
    results = experiments.load_results()
    found = {(c["condition"], c["method"], c["seed"], c["learning_rate"], c["beta"]) for c in results["search"]}
    assert found == {
        ("as collected", m, experiments.VALIDATION_SEED, rate, beta)
        for m, grid in experiments.GRID.items()
        for rate, beta in grid
    }
    chosen = experiments.best_settings(results["search"])
    found = [(c["condition"], c["method"], c["seed"], c["learning_rate"], c["beta"]) for c in results["cells"]]
    assert found == [(c, m, s, *chosen[m]) for c in experiments.CONDITIONS for m in chosen for s in experiments.SEEDS]


def test_finished_runs_are_not_run_again_and_the_table_keeps_its_order(tmp_path, monkeypatch):
    fields = ("condition", "method", "seed", "learning_rate", "beta")
    jobs = [("noisy", "kto", seed, 1e-4, 0.1) for seed in range(3)]
    results = {"version": "1", "search": [], "cells": [dict(zip(fields, jobs[1], strict=True))]}
    asked = []

    def fake_cell(*job):
        asked.append(job)
        return dict(zip(fields, job, strict=True))

    monkeypatch.setattr(experiments, "run_cell", fake_cell)
    monkeypatch.setattr(experiments, "ProcessPoolExecutor", lambda *arguments: ThreadPoolExecutor(1))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cells = experiments._run_missing(jobs, results, "cells", tmp_path / "results.json")
    assert asked == [jobs[0], jobs[2]]
    assert [cell["seed"] for cell in cells] == [0, 1, 2]
    assert json.loads((tmp_path / "results.json").read_text())["cells"] == cells


def test_a_missing_results_file_says_how_to_compute_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python course\.py experiments"):
        experiments.load_results(tmp_path / "none.json")


def test_the_results_are_plain_json_with_the_command_that_makes_them():
    results = json.loads(experiments.RESULTS_FILE.read_text(encoding="utf-8"))
    assert results["command"] == "python course.py experiments"
