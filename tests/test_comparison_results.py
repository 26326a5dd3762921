"""The committed runs of the comparison: all that the protocol asks for, none twice, nothing else; and genuine."""

import functools
import json
import re
from collections import Counter

import pytest

from kto_lab.comparison import exploratory, findings, results
from kto_lab.comparison.headlines import headlines
from kto_lab.comparison.protocol import BASE, EACH, HYPOTHESES, MARGIN, MEASURE, METHODS, ONCE, methods_of
from kto_lab.comparison.search import Search
from kto_lab.comparison.settings import key_of, setting_from


@pytest.fixture(scope="module")
def stored():
    return results.load_results()


def keys_in(file):
    """The names of the runs in a file, a line each, as they stand there: twice if a run does."""
    _, *lines = file.read_text(encoding="utf-8").splitlines()
    return [key_of(setting_from(run["setting"]), run["seed"]) for run in map(json.loads, lines)]


def names(jobs):
    return {key_of(*job) for job in jobs}


def asked_by(search, store):
    """What a search asks for from its first step to its last, when it sees no run but those that it asked for."""
    asked = set()

    def score(setting, seed):
        return store.score(setting, seed) if (setting, seed) in asked else None

    again = Search(search.condition, search.method, score, search.small)
    while needed := again.needed():
        asked |= set(needed)
        if missing := [key_of(*job) for job in needed if store.score(*job) is None]:
            raise AssertionError(f"the search of {search.method!r} with {search.condition!r} lacks {missing}")
    return asked


@pytest.fixture(scope="module")
def searched(stored):
    return {job for search in results.searches(stored.store) for job in asked_by(search, stored.store)}


@pytest.fixture(scope="module")
def tables(stored):
    return set(results.core_jobs(stored) + results.core_jobs(stored, small=False))


# --- whole, and nothing else ----------------------------------------------------------------------------------------


def test_no_run_stands_there_twice():
    assert [key for key, times in Counter(keys_in(results.RESULTS_FILE)).items() if times > 1] == []


def test_every_run_of_the_search_the_core_table_and_the_larger_model_is_there(stored, searched, tables):
    assert names(searched | tables) - stored.store.runs.keys() == set()


@pytest.mark.parametrize("name", exploratory.EXPERIMENTS)
def test_every_run_of_the_exploratory_experiments_is_there(stored, name):
    wanted = [job for cell in exploratory.jobs(stored, name).values() for job in cell]
    assert names(wanted) - stored.store.runs.keys() == set()


def test_no_run_is_there_that_nothing_asks_for(stored, searched, tables):
    looked_at = {
        job for name in exploratory.EXPERIMENTS for cell in exploratory.jobs(stored, name).values() for job in cell
    }  # fmt: skip
    assert stored.store.runs.keys() - names(searched | tables | looked_at) == set()


# --- the choices ----------------------------------------------------------------------------------------------------

# Told that many thumbs are flipped, cDPO wants the smallest beta of the ladder, where the last steps change little.
AT_THE_END = {("30% flipped", "cdpo"), ("45% flipped", "cdpo")}


def test_each_chosen_setting_has_neighbours_on_all_sides_but_for_two_of_cdpo(stored):
    found = {
        (search.condition, search.method) if search.small else search.method
        for search in results.searches(stored.store) if search.at_edge(search.choice())
    }  # fmt: skip
    assert found == AT_THE_END


def test_the_two_at_the_end_of_the_ladder_would_gain_nothing_worth_naming_and_carry_no_hypothesis(stored):
    for condition, method in AT_THE_END:
        search = stored.store.search(condition, method)
        rate, beta = search.choice()
        assert beta == 0.03
        assert len(search.neighbours((rate, beta))) == 3  # beta alone is at its end
        at_end, next_to_it = (sum(runs) / len(runs) for runs in map(search.scores, ((rate, 0.03), (rate, 0.12))))
        assert abs(at_end - next_to_it) < MARGIN
    assert not [
        name for name, (_, way, condition, one, other, _) in HYPOTHESES.items()
        if way != ONCE and {(condition, one), (condition, other)} & AT_THE_END
    ]  # fmt: skip


# --- genuine --------------------------------------------------------------------------------------------------------

ON = "10% flipped"  # where all the methods stand
CELLS = [(method, True) for method in METHODS] + [(method, False) for method in methods_of(BASE, small=False)]
trained_once = functools.cache(results.train_and_score)


def chosen_run(found, method, small):
    """A run that is not lost: how a lost one ends hangs on the last bits."""
    cell = found.cell(ON, method, EACH if small else ONCE, small)
    return next(run for run in cell if not findings.is_lost(run, found.reference[small]))


@pytest.fixture
def once(monkeypatch):
    """Two tests ask for the same fresh runs; they are trained once."""
    monkeypatch.setattr(results, "train_and_score", trained_once)


@pytest.mark.parametrize(("method", "small"), CELLS)
def test_one_run_of_each_method_gives_the_stored_numbers_again(stored, once, method, small):
    assert results.differences(chosen_run(stored, method, small)) == {}


@pytest.mark.parametrize(("method", "small"), CELLS)
def test_a_change_of_the_fifth_digit_in_the_file_is_found(stored, once, method, small, tmp_path):
    run = chosen_run(stored, method, small)
    line, number = json.dumps(run), f'"{MEASURE}": {run[MEASURE]}'
    text = results.RESULTS_FILE.read_text(encoding="utf-8")
    assert text.count(line) == line.count(number) == 1
    file = tmp_path / "runs.jsonl"
    spoilt = line.replace(number, f'"{MEASURE}": {run[MEASURE] + 1e-5:.6f}')
    file.write_text(text.replace(line, spoilt), encoding="utf-8")
    copied = results.Results(results.Store(file), stored.reference)
    assert results.differences(chosen_run(copied, method, small)).keys() == {MEASURE}


# --- what it says ---------------------------------------------------------------------------------------------------


def test_every_hypothesis_has_one_of_the_four_endings(stored):
    found = findings.findings(stored)
    assert [one.name for one in found] == list(HYPOTHESES)
    assert {one.ending for one in found} <= {"supported", "refuted", "open", "no difference worth naming"}


def test_the_headlines_are_at_most_six_sentences(stored):
    found = headlines(stored)
    assert found
    assert all(line.endswith(".") for line in found)
    assert sum(len(re.findall(r"[.!?](?= |$)", line)) for line in found) <= 6
