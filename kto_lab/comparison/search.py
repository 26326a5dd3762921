"""The search for learning rate and beta: which runs it still asks for, and what it chooses."""

import statistics
from collections.abc import Callable, Iterable

from kto_lab.comparison.protocol import BETAS, DROP, FIRST_DRAWS, RATES, START, TIE, VALIDATION_SEEDS, setting_of
from kto_lab.comparison.settings import Setting

Cell = tuple[float, float | None]
Score = Callable[[Setting, int], float | None]  # (setting, seed) -> thumbs-up rate on the trained questions


class Search:
    """The search of one method under one condition. It keeps nothing: all it knows are the runs that exist.

    Args:
        condition, method: of the protocol.
        score: gives the rate of a run, or None where it was not made yet.
        small: model.
    """

    def __init__(self, condition: str, method: str, score: Score, small: bool = True):
        self.condition, self.method, self.small, self._score = condition, method, small, score

    def setting(self, cell: Cell) -> Setting:
        return setting_of(self.condition, self.method, *cell, self.small)

    def scores(self, cell: Cell, seeds: Iterable[int] = VALIDATION_SEEDS) -> list[float]:
        """The rates that exist, in the order of the seeds."""
        found = [self._score(self.setting(cell), seed) for seed in seeds]
        return [rate for rate in found if rate is not None]

    def _first(self, cell: Cell) -> float:
        return statistics.mean(self.scores(cell, VALIDATION_SEEDS[:FIRST_DRAWS]))

    def start(self) -> list[Cell]:
        if self.method == "sft":
            return list(dict.fromkeys((rate, None) for rate, _ in START))
        return list(START)

    def neighbours(self, cell: Cell) -> list[Cell]:
        """One step up or down either ladder; fewer at an edge."""
        rate, beta = cell
        at = RATES.index(rate)
        found = [(RATES[i], beta) for i in (at - 1, at + 1) if 0 <= i < len(RATES)]
        if beta is not None:
            at = BETAS.index(beta)
            found += [(rate, BETAS[i]) for i in (at - 1, at + 1) if 0 <= i < len(BETAS)]
        return found

    def at_edge(self, cell: Cell) -> bool:
        return len(self.neighbours(cell)) < (2 if cell[1] is None else 4)

    def _state(self) -> tuple[Cell | None, list[tuple[Setting, int]]]:
        """Follows the rule as far as the runs go: the choice, or the runs that it needs next."""
        tried = self.start()
        while True:
            missing = self._missing(tried, VALIDATION_SEEDS[:FIRST_DRAWS])
            if missing:
                return None, missing
            first = {cell: self._first(cell) for cell in tried}
            close = [cell for cell in tried if first[cell] > max(first.values()) - DROP]
            missing = self._missing(close, VALIDATION_SEEDS)
            if missing:
                return None, missing
            best = max(statistics.mean(self.scores(cell)) for cell in close)
            equal = [cell for cell in close if statistics.mean(self.scores(cell)) >= best - TIE]
            choice = min(equal, key=lambda cell: statistics.pstdev(self.scores(cell)))
            new = [cell for cell in self.neighbours(choice) if cell not in tried]
            if not new:
                return choice, []
            tried = tried + new

    def _missing(self, cells: Iterable[Cell], seeds: Iterable[int]) -> list[tuple[Setting, int]]:
        wanted = ((self.setting(cell), seed) for cell in cells for seed in seeds)
        return [(setting, seed) for setting, seed in wanted if self._score(setting, seed) is None]

    def needed(self) -> list[tuple[Setting, int]]:
        """The runs that are needed next; empty when the search is over."""
        return self._state()[1]

    def choice(self) -> Cell:
        """The chosen (learning_rate, beta).

        Raises:
            ValueError: the search is not over.
        """
        choice, missing = self._state()
        if choice is None:
            raise ValueError(f"the search of {self.method!r} with {self.condition!r} still needs {len(missing)} runs")
        return choice

    def tried(self) -> dict[Cell, list[float]]:
        """Every cell of the ladders that has runs, with their rates."""
        cells = [(rate, beta) for rate in RATES for beta in ((None,) if self.method == "sft" else BETAS)]
        return {cell: found for cell in cells if (found := self.scores(cell))}
