"""The search for learning rate and beta: which runs it asks for, when it stops, what it chooses."""

import itertools
import math

import pytest

from kto_lab.comparison import protocol
from kto_lab.comparison.protocol import BETAS, DROP, FIRST_DRAWS, RATES, START, VALIDATION_SEEDS
from kto_lab.comparison.search import Search


class Land:
    """Made-up runs: a rate for each cell and seed, and a count of what was asked for."""

    def __init__(self, rate_of, method="kto"):
        self.rate_of, self.done = rate_of, {}
        self.search = Search("all thumbs", method, lambda setting, seed: self.done.get((setting, seed)))

    def finish(self):
        for _ in itertools.count():
            needed = self.search.needed()
            if not needed:
                return self.search.choice()
            assert len(set(needed)) == len(needed)
            for setting, seed in needed:
                assert (setting, seed) not in self.done
                self.done[setting, seed] = self.rate_of((setting.learning_rate, setting.beta), seed)

    def draws(self, cell):
        return sum(setting == self.search.setting(cell) for setting, _ in self.done)


def hill(at_rate, at_beta, slope=0.15):
    """Highest at one cell, falling with every step on either ladder."""

    def rate_of(cell, seed):
        steps = abs(RATES.index(cell[0]) - RATES.index(at_rate))
        if cell[1] is not None:
            steps += abs(BETAS.index(cell[1]) - BETAS.index(at_beta))
        return 0.9 - slope * steps

    return rate_of


@pytest.mark.parametrize("top", [(1e-3, 2.0), (1e-4, 32.0), (1e-2, 0.5), (3e-3, 128.0), (3e-5, 0.03)])
def test_it_climbs_to_the_highest_cell_wherever_that_lies(top):
    land = Land(hill(*top))
    assert land.finish() == top
    assert all(land.draws(cell) >= FIRST_DRAWS for cell in land.search.neighbours(top))
    assert land.search.at_edge(top) == (top in ((3e-3, 128.0), (3e-5, 0.03)))


def test_the_chosen_cell_has_all_draws_and_hopeless_ones_only_the_first():
    land = Land(hill(1e-3, 2.0))
    assert land.draws(land.finish()) == len(VALIDATION_SEEDS) >= 8
    assert land.draws((3e-3, 0.12)) == FIRST_DRAWS


def test_a_cell_that_is_close_on_the_first_draws_gets_them_all():
    def rate_of(cell, seed):
        if cell == (3e-4, 2.0):
            return 0.9 - 0.9 * DROP if seed in VALIDATION_SEEDS[:FIRST_DRAWS] else 1.0
        return 0.9 if cell == (1e-3, 2.0) else 0.1

    land = Land(rate_of)
    assert land.finish() == (3e-4, 2.0)


def test_a_lost_run_counts_as_it_is():
    def rate_of(cell, seed):  # three lucky first draws, then collapses
        if cell == (3e-3, 2.0):
            return 0.95 if seed in VALIDATION_SEEDS[:FIRST_DRAWS] else 0.0
        return 0.9 if cell == (1e-3, 2.0) else 0.2

    assert Land(rate_of).finish() == (1e-3, 2.0)


def test_equal_means_go_to_the_smaller_spread():
    def rate_of(cell, seed):
        if cell == (3e-4, 2.0):
            return 0.9
        return 0.9 + (0.05 if seed % 2 else -0.05) + 0.001 if cell == (1e-3, 2.0) else 0.2

    assert Land(rate_of).finish() == (3e-4, 2.0)


def test_sft_has_a_rate_and_no_beta():
    land = Land(hill(1e-4, None), method="sft")
    assert land.finish() == (1e-4, None)
    assert {setting.beta for setting, _ in land.done} == {None}


def test_there_is_no_choice_before_the_search_is_over():
    with pytest.raises(ValueError, match=f"still needs {len(START) * FIRST_DRAWS} runs"):
        Land(hill(1e-3, 2.0)).search.choice()


def test_what_was_tried_can_be_shown():
    land = Land(hill(1e-3, 2.0))
    land.finish()
    tried = land.search.tried()
    assert set(START) <= set(tried)
    assert all(len(rates) in (FIRST_DRAWS, len(VALIDATION_SEEDS)) for rates in tried.values())


def test_the_ladders_are_even_in_logarithms_and_hold_the_start():
    for ladder in (RATES, BETAS):
        steps = [math.log(b / a) for a, b in itertools.pairwise(ladder)]
        assert max(steps) / min(steps) < 1.3
    assert all(rate in RATES and beta in BETAS for rate, beta in START)
    assert not set(protocol.VALIDATION_SEEDS) & set(protocol.TEST_SEEDS)
