"""One check from beginning to end: an answer is judged, and the learner is told what was found.

An exercise is a checker function with the decorator `exercise`. The checker gets the learner's answer. It raises a
`Fault` at the smallest input that shows something wrong, and returns one line about what was tested when all is right.

The checkers, lesson_NN.py, take everything they need from this module: `exercise`, `Fault`, and the helpers `call`,
`gradient`, `flows`, `compare`, `close`, `number` and `choice`, which raise the faults that every exercise shares. Those
names are this module's interface (`__all__`); where they are at home stands in the imports.
"""

import importlib
import os
from dataclasses import dataclass, replace
from typing import Any

from kto_course.checks import unread
from kto_course.checks.comparing import choice, compare, number
from kto_course.checks.exercises import Exercise, exercise
from kto_course.checks.faults import Fault, Open, last_call
from kto_course.checks.running import call, flows, gradient
from kto_course.checks.sandbox import Printed, TimeUp, limited, untouched
from kto_course.checks.values import close, copied, plain_text, show

__all__ = ["Fault", "call", "choice", "close", "compare", "exercise", "flows", "gradient", "number"]

SECONDS = 2.0  # of computing time for one check; waiting (another program has the processor) counts a fifth


@dataclass(frozen=True)
class Outcome:
    """What a check found: state is "passed", "wrong", "open" or "refused"; `fault` and the texts of the report.

    A refused answer was not judged: an older function than the one in its cell, or the package's own.

    `printed` holds what the answer printed in its last call, where it was wrong.
    """

    state: str
    fault: str | None = None
    tried: str = ""
    got: str = ""
    expected: str = ""
    tested: str = ""
    printed: str = ""


def _checked(exercise: Exercise, answer: Any, printed: Printed) -> Outcome:
    """Runs the checker, whatever it or the answer raises."""
    last_call.tried, last_call.printed = "", printed
    try:
        return Outcome("passed", tested=exercise.checker(copied(answer)) or "")
    except Open:
        return Outcome("open")
    except Fault as found:
        if found.fault == "open":
            return Outcome("open", "open", found.tried, show(found.got), show(found.expected))
        expected = "" if found.expected is None else show(found.expected)
        return Outcome("wrong", found.fault, found.tried, show(found.got), expected)
    except TimeUp:
        return Outcome("wrong", "timeout", last_call.tried)
    except BaseException as error:  # SystemExit of an answer, or a mistake of ours: never a traceback
        if isinstance(error, SystemExit | KeyboardInterrupt):
            return Outcome("wrong", "raised", last_call.tried, type(error).__name__, "a result without an error")
        return Outcome("wrong", "checker", last_call.tried, f"{type(error).__name__}: {plain_text(error)}")


def judge(exercise: Exercise, answer: Any, seconds: float = SECONDS) -> Outcome:
    """Checks an answer and says what was found, without printing or recording anything.

    The answer is copied where it can be; a check leaves the learner's variables, random states and torch's defaults
    as they were.
    """
    if answer is None or answer is ...:
        return Outcome("open")

    printed = Printed()
    with untouched(printed):
        outcome = limited(lambda: _checked(exercise, answer, printed), seconds)
    if outcome is None or outcome.fault == "timeout":
        tried = outcome.tried if outcome else ""
        outcome = Outcome("wrong", "timeout", tried, f"no result after {seconds:g} seconds", "a result at once")
    return replace(outcome, printed=printed.shown()) if outcome.state == "wrong" else outcome


_seen: dict[tuple[str, str], int] = {}  # how often this kernel has met a fault, for the next hint


def report(exercise: Exercise, outcome: Outcome) -> str:
    """The text for the learner. Each report of the same fault goes one hint further."""
    if outcome.state == "passed":
        for key in [key for key in _seen if key[0] == exercise.id]:
            del _seen[key]
        return f"passed: {exercise.title}" + (f"\ntested: {outcome.tested}" if outcome.tested else "")
    if outcome.state == "open" and outcome.fault is None:
        return f"not done yet: {exercise.title}"
    key = exercise.id, outcome.fault
    _seen[key] = _seen.get(key, 0) + 1
    first = f"not done yet: {exercise.title}" if outcome.state == "open" else f"not right yet: {exercise.title}"
    lines = [first]
    for name in ("tried", "printed", "got", "expected"):
        if text := getattr(outcome, name):
            lines.append(f"{name + ':':9s} {text}")
    lines.append(f"{'hint:':9s} {exercise.hint(outcome.fault, _seen[key])}")
    if _seen[key] >= 3:
        lines.append(f'check.solution("{exercise.id}") shows our solution.')
    return "\n".join(lines)


_passed: dict[str, Any] = {}  # exercise id -> the answer that passed in this kernel, until a later one fails


def _refused(answer: Any) -> Outcome | None:
    """Answers that are not judged: a function that is older than what stands in its cell, and the package's own."""
    name = getattr(answer, "__name__", "answer")
    if name in unread:
        return Outcome("refused", "unread", "", unread[name], "a cell that Python can read")
    module = getattr(answer, "__module__", None) or ""
    if callable(answer) and module.split(".")[0] in ("kto_utils", "kto_lab", "kto_course"):
        return Outcome("refused", "ours", "", f"{module}.{name}", "a function of your own")
    return None


def yours_or_ours(exercise: Exercise):
    """The answer that passed in this kernel, else the package's function; says which.

    Raises:
        ValueError: the exercise names no function of the package.
    """
    if exercise.ours is None:
        raise ValueError(f"exercise {exercise.id!r} names no function of the package to go on with")
    if exercise.id in _passed:
        answer = _passed[exercise.id]
        print(f"going on with yours: {getattr(answer, '__name__', 'your answer')}")
        return answer
    print(f"going on with ours: {exercise.ours}")
    module, _, name = exercise.ours.rpartition(".")
    return getattr(importlib.import_module(module), name)


def attempt(exercise: Exercise, answer: Any) -> Outcome:
    """Judges an answer, unless it is refused, remembers one that passed, and notes the try in the progress file."""
    from kto_course import learner

    outcome = _refused(answer) or judge(exercise, answer)
    if outcome.state == "passed":
        _passed[exercise.id] = answer
    else:
        _passed.pop(exercise.id, None)
    learner.record_try(exercise.id, exercise.lesson, outcome.state, outcome.fault)
    return outcome


def run(exercise: Exercise, answer: Any) -> None:
    """What a check cell does: one attempt, and its report.

    Raises:
        AssertionError: the answer did not pass and nbgrader is executing (environment variable
            NBGRADER_EXECUTION); the points are lost then. A learner never sees it.
    """
    outcome = attempt(exercise, answer)
    text = report(exercise, outcome)
    if os.environ.get("NBGRADER_EXECUTION") and outcome.state != "passed":
        raise AssertionError(text)
    print(text)
