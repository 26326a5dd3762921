"""Blank pages against the clock: an exercise of a lesson, written from nothing."""

import ast

from kto_course import checks, learner
from kto_course.checks import engine
from kto_course.interview.clock import Clock, face, present
from kto_course.interview.tasks import DRILLS


class Drill:
    """One blank page: the task is printed and the clock runs from the moment the drill is made."""

    def __init__(self, id: str, minutes: float, clock: Clock):
        self.exercise, self.task, self.minutes = checks.find(id), DRILLS[id], minutes
        self.passed = False
        self._clock = clock
        source, solved = checks.solved_cell(id)
        lines = source.splitlines()
        hole = lines[solved[0] - 1]
        indent = hole[: len(hole) - len(hole.lstrip())]
        self.stub = "\n".join([*lines[: solved[0] - 1], f"{indent}...  # your code here", *lines[solved[-1] :]])
        self.name = next(node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
        print(f"Blank page: {self.exercise.title} (lesson {self.exercise.lesson:02d}), {minutes:g} minutes.")
        print(f"You may use {self.task.allowed}. No lesson, no search.\n\n{self.stub}\n\nThe clock runs.")
        self._began = clock()

    def __repr__(self) -> str:
        return f"Blank page {self.exercise.id}: .check({self.name}) tries it, .time_used(), .solution() shows ours"

    def _seconds(self) -> float:
        return max(0.0, (self._clock() - self._began).total_seconds())

    def time_used(self) -> str:
        """Minutes and seconds since the task was shown, and how many there are."""
        return face(self._seconds(), self.minutes)

    def check(self, answer) -> None:
        """Tries an answer with the exercise's own check, notes outcome and time, and prints the report.

        After a pass it tells what an interviewer listens for. A late answer is checked all the same. An open one ("not
        done yet") is not noted, nor one that is not judged: a cell that Python could not read left an older function.
        """
        seconds = self._seconds()
        outcome = engine.attempt(self.exercise, answer)
        if outcome.state in ("passed", "wrong"):
            learner.record_drill(self.exercise.id, outcome.state == "passed", seconds, self._clock())
        print(engine.report(self.exercise, outcome))
        if seconds > self.minutes * 60:
            print(f"The {self.minutes:g} minutes are over. Finish it all the same; the next time it goes faster.")
        if outcome.state == "passed":
            self.passed = True
            self._print_points()

    def solution(self, now: bool = False) -> None:
        """Prints our solution and what an interviewer listens for.

        While the time runs and nothing has passed it waits, so that running all cells gives nothing away;
        `now=True` shows it at once.
        """
        if not (now or self.passed or self._seconds() > self.minutes * 60):
            print("The clock still runs. solution(now=True) shows it all the same.")
            return
        checks.check.solution(self.exercise.id)
        self._print_points()

    def _print_points(self) -> None:
        print("\nAn interviewer listens for:")
        for point in self.task.listens_for:
            print(f"- {point}")


def drill(id: str, minutes: float | None = None, *, clock: Clock = present) -> Drill:
    """Prints a task and starts the clock. Give every page a variable of its own: `kto_loss_page = ...`.

    Args:
        id: a key of DRILLS.
        minutes: None takes the drill's own.

    Raises:
        ValueError: no such drill, minutes that are not positive.
    """
    if id not in DRILLS:
        raise ValueError(f"there is no drill {id!r}; there are {', '.join(DRILLS)}")
    minutes = DRILLS[id].minutes if minutes is None else minutes
    if not minutes > 0:
        raise ValueError(f"minutes is {minutes!r}; it must be positive")
    return Drill(id, minutes, clock)


def times() -> None:
    """Prints how often each drill was tried and passed, and the best time."""
    done = learner.drills()
    if not any(id in DRILLS for id in done):
        print("No drill yet.")
        return
    print(f"{'drill':<20} {'tries':>5} {'passed':>6} {'best':>7} {'given':>6}")
    for id, task in DRILLS.items():
        tries = done.get(id, [])
        best = min((seconds for passed, seconds, _ in tries if passed), default=None)
        shown = "-" if best is None else f"{int(best) // 60}:{int(best) % 60:02d}"
        print(f"{id:<20} {len(tries):>5} {sum(t[0] for t in tries):>6} {shown:>7} {f'{task.minutes}:00':>6}")
