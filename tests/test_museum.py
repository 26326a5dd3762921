"""The museum: its stored runs are what the code does, its signs are measured, its figures have words."""

import json
import math
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from kto_course.pictures import lesson_10 as pictures
from kto_lab import museum
from kto_lab.mutants import MUTANTS, Mutant

RUNS = museum.load_results()
SOURCE = Path(__file__).resolve().parents[1] / "notebooks" / "src" / "10_bug_museum.py"
FAULTLESS = list(museum.WITHOUT_FAULT)


def test_every_fault_and_every_faultless_run_is_stored_for_every_seed():
    assert set(RUNS) == {(name, seed) for name in (*FAULTLESS, *MUTANTS) for seed in museum.SEEDS}
    assert all(len(run[column]) == museum.STEPS for run in RUNS.values() for column in museum.COLUMNS)


@pytest.mark.filterwarnings("ignore:Converting a tensor")  # a fault lets a gradient into the log
@pytest.mark.parametrize("name", [*FAULTLESS, *MUTANTS])
def test_the_stored_log_is_what_the_code_prints_today(name):
    _, fresh = museum.train((MUTANTS | museum.WITHOUT_FAULT)[name], seed=0, steps=2)
    stored = RUNS[name, 0]  # two steps only: from the third on, the falling learning rate knows the length of the run
    stale = f"{name} trains differently now; `python course.py museum` computes the file again"
    for field, value in fresh.items():
        assert value == (stored[field][:2] if field in museum.COLUMNS else stored[field]), f"{field}: {stale}"


def test_a_stored_score_is_what_the_code_measures_today():
    assert museum.run(MUTANTS["log_sigmoid"], seed=1) == RUNS["log_sigmoid", 1]


@pytest.mark.parametrize("name", FAULTLESS)
@pytest.mark.parametrize("seed", museum.SEEDS)
def test_a_run_without_a_fault_shows_no_sign(name, seed):
    run = RUNS[name, seed]
    assert [sign for sign, shown in museum.symptoms(run, museum.healthy_twin(run)).items() if shown] == []


def test_every_sign_is_shown_by_some_fault_with_at_least_two_seeds():
    table = museum.triage()
    assert [sign for sign, row in table.items() if not any(seeds >= 2 for seeds in row.values())] == []


def test_the_lesson_holds_every_sign_of_its_triage_list_against_the_table():
    text = SOURCE.read_text(encoding="utf-8")
    checked = re.findall(r'^assert seen\["(.+?)"\] == (\[.*?\])$', text, flags=re.M)
    table = museum.triage()
    assert len(checked) >= 10
    for sign, numbers in checked:
        assert [number for number, seeds in table[sign].items() if seeds >= 2] == json.loads(numbers), sign
    steps = text.split("## 8. The list, held against")[1].split("# %%")[0]
    listed = {int(n) for group in re.findall(r"\(([\d, ]+)\)", steps) for n in group.split(",")}
    assert listed == {number for sign, _ in checked for number, seeds in table[sign].items() if seeds >= 2}


def test_what_rewarded_thumbs_down_still_learn_they_owe_to_the_heavier_thumbs_up():
    both = MUTANTS["thumbs_down_rewarded"].edits + MUTANTS["both_weights_1"].edits
    even = museum.run(Mutant("rewarded_and_even", "Both faults at once.", both, ()), seed=0)
    before = museum.before_training()["thumbs_up"]
    assert abs(even["thumbs_up"] - before) < 0.02
    assert RUNS["thumbs_down_rewarded", 0]["thumbs_up"] > before + 0.15


def healthy(**changes):
    run = {
        "name": "correct_thumbs", "seed": 0, "n_up": 10, "n_down": 40, "half_mean_weight": 0.8, "reward_ceiling": 0.3,
        "loss": [0.8] + [0.4] * 19, "kl": [0.0] + [0.1, 0.0, 0.0] * 6 + [0.1], "reward_desirable": [0.0] + [0.1] * 19,
        "reward_undesirable": [0.0] + [-3.0] * 19, "saturated": [0.0] * 10 + [0.5] * 10, "grad_norm": [0.2] * 20,
        "thumbs_up": 0.9, "listed": 0.92,
    }  # fmt: skip
    return run | changes


@pytest.mark.parametrize(
    ("sign", "changes"),
    [
        ("first loss is not half the mean weight", {"loss": [0.75] + [0.4] * 19}),
        ("kl above 0 at step 1", {"kl": [0.1] * 10 + [0.0] * 10}),
        ("kl below 0", {"kl": [0.0, 0.1, -0.1, 0.1, 0.1, 0.1] + [0.0] * 14}),
        ("kl above 0 at nine steps in ten", {"kl": [0.0] + [0.1] * 18 + [0.0]}),
        ("kl 0 at all but three steps or fewer", {"kl": [0.0] * 17 + [0.1] * 3}),
        ("first loss 0.5 although counts are uneven", {"loss": [0.5] * 20, "half_mean_weight": 0.5}),
        ("neither reward ever goes beyond 0.2", {"reward_undesirable": [0.0] + [-0.2] * 19}),
        ("reward of thumbs up above its ceiling", {"reward_desirable": [0.0, 0.31] + [0.1] * 18}),
        ("both rewards end below -0.2", {"reward_desirable": [0.0] * 10 + [-0.3] * 10}),
        ("most batches hold one kind of thumb", {"reward_desirable": [0.0] * 9 + [None] * 11}),
        ("all rows saturated at the end", {"saturated": [0.0] * 10 + [1.0] * 10}),
        ("gradient norm below 0.01 at the end", {"grad_norm": [0.2] * 14 + [0.009] * 6}),
        ("first gradient under a third of the healthy one", {"grad_norm": [0.06] + [0.2] * 19}),
        ("first gradient 1.9 times the healthy one or more", {"grad_norm": [0.4] + [0.2] * 19}),
        ("replies off the list", {"listed": 0.19}),
        ("thumbs-up rate 0.1 or more below the healthy one", {"thumbs_up": 0.79}),
    ],
)
def test_a_sign_is_shown_by_its_own_cause_and_nothing_else_with_it(sign, changes):
    shown = {name for name, there in museum.symptoms(healthy(**changes), healthy()).items() if there}
    assert shown == {sign}


def test_rewards_of_exactly_zero_are_no_small_rewards():
    still = {"reward_desirable": [0.0] * 20, "reward_undesirable": [0.0] * 20}
    shown = {name for name, there in museum.symptoms(healthy(**still), healthy()).items() if there}
    assert shown == {"all rewards exactly 0"}


def test_a_gradient_of_exactly_zero_is_a_sign_of_its_own_and_small_beside_the_healthy_one():
    shown = {name for name, there in museum.symptoms(healthy(grad_norm=[0.0] + [0.2] * 19), healthy()).items() if there}
    assert shown == {"gradient norm exactly 0 at step 1", "first gradient under a third of the healthy one"}


def test_the_tail_of_a_one_sided_run_is_its_last_ten_numbers():
    gaps = [0.0] + [-0.5] * 9 + [None] * 10
    shown = {name for name, there in museum.symptoms(healthy(reward_desirable=gaps), healthy()).items() if there}
    assert shown == {"both rewards end below -0.2"}


def test_exhibits_are_numbered_from_the_first_fault_and_0_is_healthy():
    assert museum.of_number(0)["name"] == "correct_thumbs"
    assert [museum.of_number(number)["name"] for number in range(1, len(MUTANTS) + 1)] == list(MUTANTS)
    for number in (-1, len(MUTANTS) + 1):
        with pytest.raises(ValueError, match="there is no exhibit"):
            museum.of_number(number)


def test_the_healthy_run_has_no_fault_to_open():
    with pytest.raises(ValueError, match="healthy run"):
        museum.fault(0)


@pytest.mark.parametrize("number", range(1, len(MUTANTS) + 1))
def test_a_fault_stays_closed_until_it_is_opened_and_then_shows_the_changed_words(number):
    mutant, text = list(MUTANTS.values())[number - 1], museum.fault(number)
    closed = text.split("</summary>")[0]
    assert mutant.fault not in closed
    assert mutant.name not in closed + museum.log(number) + pictures.alt_text(number)
    assert mutant.fault in text
    assert mutant.edits[0].function in text


def test_the_figure_seeds_the_curves_over_the_healthy_ones_with_gaps_where_the_log_has_none():
    fig = pictures.draw(16)
    try:
        assert [len(ax.lines) for ax in fig.axes] == [2, 2, 5, 2]  # two rewards and their ceiling in the third
        drawn = fig.axes[2].lines[1].get_ydata()
        wanted = RUNS["one_sided_batches", 0]["reward_desirable"]
        assert [None if math.isnan(y) else y for y in drawn] == wanted
        assert fig.axes[2].lines[4].get_ydata()[0] == RUNS["one_sided_batches", 0]["reward_ceiling"]
    finally:
        plt.close(fig)


def test_a_figure_says_where_the_gradient_is_exactly_zero():
    fig = pictures.draw(list(MUTANTS).index("reference_not_detached") + 1)
    try:
        assert [text.get_text() for text in fig.axes[3].texts] == ["exactly 0 at every step"]
    finally:
        plt.close(fig)


def test_a_run_of_your_own_is_drawn_and_printed_too():
    _, record = museum.train(MUTANTS["beta_twice"], seed=0, steps=2)
    assert museum.log(record).splitlines()[2].split()[0] == "2"
    assert "Egypt" not in museum.log(record)
    fig = pictures.draw(record)
    assert fig.get_suptitle().startswith("beta_twice")
    plt.close(fig)


def test_the_ending_tells_all_seeds_and_where_the_model_came_from():
    text = museum.ending(1)
    assert f"before training: {museum.before_training()['thumbs_up']:.3f}" in text
    assert all(f"{RUNS['no_shift', seed]['thumbs_up']:.3f}" in text for seed in museum.SEEDS)


def test_the_results_file_is_strict_json_without_nan():
    text = museum.RESULTS_FILE.read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_missing_results_file_says_how_to_compute_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python course\.py museum"):
        museum.load_results(tmp_path / "museum_results.json")
