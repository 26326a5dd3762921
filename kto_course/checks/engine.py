"""How an exercise is defined, how a learner's answer is run safely, and how the result is told.

An exercise is a checker function with the decorator `exercise`. The checker gets the learner's answer. It raises a
`Fault` at the smallest input that shows something wrong, and returns one line about what was tested when all is right.
The helpers `call`, `compare`, `gradient`, `number` and `choice` raise the faults that every exercise shares.

Limits of the safety: an answer runs in a thread of the same process. An endless Python loop is stopped; one call that
stays inside compiled code cannot be stopped, it is left behind and reported. Memory is not limited.
"""

import contextlib
import copy
import ctypes
import dis
import importlib
import io
import linecache
import math
import numbers
import os
import random
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kto_course.checks import unread

SECONDS = 2.0  # of computing time for one check; waiting (another program has the processor) counts a fifth
SMALL = 12  # values with more numbers than this are shown by their largest difference

# Hints for what can go wrong in any exercise. An exercise may define its own for the same fault.
GENERIC_HINTS = {
    "raised": (
        "Your code stopped with an error. Read its last line: which value is not what you thought?",
        "Print the shapes and types just before that line, with the input above.",
        "Run your function by hand on the input above and go through it line by line.",
    ),
    "type": (
        "The type is not the one asked for. What should come back?",
        "Look at the last line: what does it return, and what does the task ask for?",
    ),
    "shape": (
        "The shape is not the one asked for. Which axis is too much, or missing?",
        "Write the shape behind each line as a comment. At which line does it part from what you expected?",
    ),
    "nan": (
        "There is a NaN, 'not a number'. It comes from 0 * inf, inf - inf, 0 / 0 or log of a negative number.",
        "Find the first line whose result holds a NaN. What goes into it?",
    ),
    "values": (
        "The numbers are not right yet. Work out the input above by hand: at which step do you part?",
        "Compare with the formula in the task, term by term: signs, order, what is summed and over what.",
    ),
    "dtype": (
        "The number type is not the one asked for. Where is it changed?",
        "A result has the type of its input, unless the task says otherwise: look for .float(), torch.tensor(...).",
    ),
    "timeout": (
        "This takes too long. Is there a loop that never ends?",
        "What changes from one round of your loop to the next, and when does its condition become false?",
    ),
    "changed_arguments": (
        "Your function changes what it was given. The caller may need it later.",
        "Look for methods ending in _ and for assignments such as x[...] = ... or x += ...; work on a copy.",
    ),
    "no_gradient": (
        "No gradient reaches the input. Something cuts the way back.",
        "Look for .detach(), .item(), float(...), torch.tensor(...) or no_grad() between input and result.",
    ),
    "gradient": (
        "The values are right, the gradient is not. What is treated as a constant, and what must be?",
        "Look for .detach(), where it stands and where it is missing.",
    ),
    "choice": (
        "That is none of the choices.",
        "Write one of the letters in quotes, for example answer = \"a\".",
    ),
    "open": (
        "Nothing came back. If you have written it: is the `return` missing?",
        "The last line of a function hands its result back with `return`.",
    ),
    "unread": (
        "Python could not read the cell with your answer (SyntaxError), so an older one would be judged here.",
        "Mend the line that the message names, run the cell, then this one.",
    ),
    "ours": (
        "That is the package's own function. Write yours; afterwards the lesson goes on with it.",
        "The exercise asks for the function's body, not for an import.",
    ),
    "checker": (
        "The check itself could not cope with this answer. Your code may still be right.",
        "Compare with our solution, and tell us.",
    ),
}  # fmt: skip


class Fault(Exception):
    """What is wrong with an answer.

    Args:
        fault: the fault's id; a key of the exercise's hints or of GENERIC_HINTS.
        tried: what was tried, in words or code; None means the last `call`, "" shows nothing.
        got: what came out, any value; a str is shown as it is.
        expected: what should have come out, likewise; None shows nothing (where it would give the answer away).
    """

    def __init__(self, fault: str, tried: str | None = None, got: Any = None, expected: Any = None):
        super().__init__(fault)
        self.fault, self.got, self.expected = fault, got, expected
        self.tried = tried if tried is not None else getattr(_last, "tried", "")


class Open(Exception):
    """The exercise was not begun: the answer is None or `...`, or the function returns that."""


class _TimeUp(BaseException):
    """Raised inside a learner's code when its time is over; no `except Exception` catches it."""


_last = threading.local()  # what the last `call` of this thread tried, and where its prints go


@dataclass(frozen=True)
class Exercise:
    """One exercise; made by the decorator `exercise`.

    Fields:
        id: a Python name, unique in the course.
        title: as in the lesson's heading.
        lesson: number of the lesson.
        minutes: expected time.
        difficulty: 1 to 3, the stars of the heading.
        kind: as in the heading, e.g. "fill in a function".
        points: for graders, as in the check cell's metadata.
        hints: fault id -> 2 or 3 hints, the first a nudge, the last nearly the answer.
        checker: function of the answer.
        ours: where the package has the same, e.g. "kto_utils.losses.kto_loss"; the lesson goes on with it where the
            learner's own did not pass.
    """

    id: str
    title: str
    lesson: int
    minutes: int
    difficulty: int
    kind: str
    points: int
    hints: Mapping[str, Sequence[str]]
    checker: Callable[[Any], str | None]
    ours: str | None = None

    def __post_init__(self):
        if not self.id.isidentifier() or self.difficulty not in (1, 2, 3) or self.points < 1:
            raise ValueError(f"exercise {self.id!r}: needs a Python name, difficulty 1 to 3 and at least one point")
        for fault, texts in self.hints.items():
            if isinstance(texts, str) or len(texts) not in (2, 3):
                raise ValueError(f"exercise {self.id!r}, fault {fault!r}: expected a tuple of 2 or 3 hints")

    def hint(self, fault: str, time_seen: int) -> str:
        """The hint for the time_seen-th time (from 1) that this fault came up."""
        texts = self.hints.get(fault) or GENERIC_HINTS[fault]
        return texts[min(time_seen, len(texts)) - 1]


def exercise(
    id: str, title: str, *, minutes: int, difficulty: int, kind: str, points: int, hints: Mapping,
    ours: str | None = None,
):
    """Decorator: makes an Exercise of a checker in kto_course/checks/lesson_NN.py, whose number is the lesson's.

    The id must be a literal and the first argument: `check` finds it in the file without importing it.
    """

    def make(checker: Callable) -> Exercise:
        lesson = int(checker.__module__.rsplit("_", 1)[1])
        return Exercise(id, title, lesson, minutes, difficulty, kind, points, hints, checker, ours)

    return make


# Values: how they are shown, copied and compared.


def _torch():
    """torch if it is loaded already, else None: then no value is a tensor."""
    return sys.modules.get("torch")


def _is_tensor(value) -> bool:
    return _torch() is not None and isinstance(value, _torch().Tensor)


def _is_array(value) -> bool:
    return "numpy" in sys.modules and isinstance(value, sys.modules["numpy"].ndarray)


def _is_number(value) -> bool:
    if isinstance(value, numbers.Number):  # NumPy's are registered there
        return not isinstance(value, complex)
    return (_is_tensor(value) or _is_array(value)) and value.ndim == 0


def _rounded(value: float) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.3e}"
    return f"{value + 0.0:.4f}"


def _kind_of(value) -> str:
    if value is None:
        return "None"
    if _is_tensor(value) or _is_array(value):
        return f"{'tensor' if _is_tensor(value) else 'array'} of shape {tuple(value.shape)}"
    return type(value).__name__


def show(value: Any) -> str:
    """A value as short, rounded text that is the same on every run."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None or value is ...:
        return str(value)
    if _is_tensor(value) or _is_array(value):
        size = math.prod(value.shape)
        return show(value.tolist()) if size <= SMALL else _kind_of(value)
    if _is_number(value):
        return _rounded(value.item() if hasattr(value, "item") else value)
    if isinstance(value, list | tuple):
        if len(value) > SMALL:
            return f"{type(value).__name__} of length {len(value)}"
        inner = ", ".join(repr(v) if isinstance(v, str) else show(v) for v in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    if isinstance(value, Mapping):
        if len(value) > SMALL:
            return f"dict with {len(value)} keys"
        inner = ", ".join(f"{k!r}: {v!r}" if isinstance(v, str) else f"{k!r}: {show(v)}" for k, v in value.items())
        return f"{{{inner}}}"
    return f"a {type(value).__name__}" if not callable(value) else getattr(value, "__name__", "a function")


def _copied(value):
    if _is_tensor(value):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if type(value) in (list, tuple):
        return type(value)(_copied(v) for v in value)
    if type(value) is dict:
        return {k: _copied(v) for k, v in value.items()}
    if callable(value) and not hasattr(value, "state_dict"):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # some objects cannot be copied; they are handed over as they are
        return value


def _same(a, b) -> bool:
    """Whether two values are exactly equal; objects of one unknown kind count as equal."""
    if _is_tensor(a) and _is_tensor(b):
        return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())
    if _is_array(a) and _is_array(b):
        return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return list(a) == list(b) and all(_same(a[k], b[k]) for k in a)
    if hasattr(a, "state_dict") and hasattr(b, "state_dict"):
        return _same(dict(a.state_dict()), dict(b.state_dict())) and a.training == b.training
    if isinstance(a, str | numbers.Number | set) and isinstance(b, str | numbers.Number | set):
        return a == b or (a != a and b != b)
    return type(a) is type(b)


def _tolerance(*values) -> float:
    """Relative and absolute: that of the coarsest number type among the values."""
    names = " ".join(str(getattr(value, "dtype", "")) for value in values)
    if "float16" in names:  # bfloat16 too
        return 3e-2
    return 1e-4 if "float32" in names else 1e-7


def _numbers(value):
    """A nested list of Python numbers, or None where the value is nothing of the kind."""
    if _is_tensor(value) or _is_array(value):
        return (value.detach() if _is_tensor(value) else value).tolist()
    if isinstance(value, numbers.Number) and not isinstance(value, complex):
        return value.item() if hasattr(value, "item") else value
    return None


def _close(a, b, tolerance: float) -> bool:
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(_close, a, b, [tolerance] * len(a)))
    if isinstance(b, list):
        return False
    return a == b or (a != a and b != b) or math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)


def close(got: Any, expected: Any, tolerance: float | None = None) -> bool:
    """Whether two values agree: same structure and shape, numbers within the tolerance of their type, NaN = NaN.

    Lists and tuples are not told apart; neither are numbers and tensors without axes. `tolerance` is relative and
    absolute; None takes 1e-7 for Python numbers and float64, 1e-4 for float32, 3e-2 for 16 bits.
    """
    tolerance = _tolerance(got, expected) if tolerance is None else tolerance
    a, b = _numbers(got), _numbers(expected)
    if a is not None and b is not None:
        return _close(a, b, tolerance)
    if isinstance(got, Mapping) and isinstance(expected, Mapping):
        return set(got) == set(expected) and all(close(got[k], expected[k], tolerance) for k in expected)
    if isinstance(got, list | tuple) and isinstance(expected, list | tuple):
        return len(got) == len(expected) and all(map(close, got, expected, [tolerance] * len(got)))
    if a is not None or b is not None or type(got) is not type(expected):
        return False
    return isinstance(got, str | set | frozenset) and got == expected


def _has_nan(value) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_nan, value))
    if isinstance(value, Mapping):
        return any(map(_has_nan, value.values()))
    found = _numbers(value)
    return _has_nan(found) if isinstance(found, list) else found is not None and found != found


def _fits(got, expected) -> bool:
    """Whether the kind of value is the one asked for."""
    if _is_number(expected):
        return _is_number(got) or (_is_tensor(got) or _is_array(got))  # a wrong shape is told apart below
    if _is_tensor(expected) or _is_array(expected):
        return _is_tensor(got) if _is_tensor(expected) else (_is_array(got) or _is_tensor(got))
    if isinstance(expected, list | tuple):
        return isinstance(got, list | tuple)
    return isinstance(got, Mapping) if isinstance(expected, Mapping) else isinstance(got, type(expected))


def _part_shown(got, expected) -> tuple[str, str]:
    """Both values as text; of large tensors the entry where they differ most."""
    shape = getattr(expected, "shape", ())
    if math.prod(shape) <= SMALL or tuple(getattr(got, "shape", ())) != tuple(shape):
        return show(got), show(expected)
    worst, place = -1.0, ()
    stack = [((), _numbers(got), _numbers(expected))]
    while stack:
        where, a, b = stack.pop()
        if isinstance(a, list):
            stack += [((*where, i), x, y) for i, (x, y) in reversed(list(enumerate(zip(a, b, strict=True))))]
            continue
        distance = math.inf if a != a else abs(float(a) - float(b)) if a != b else 0.0
        if distance > worst:
            worst, place, pair = distance, where, (a, b)
    at = f"entry {list(place)} is"
    return f"{at} {show(pair[0])}", f"{at} {show(pair[1])}"


def compare(
    got: Any,
    expected: Any,
    known: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
    *,
    default: str = "values",
    tolerance: float | None = None,
    tried: str | None = None,
    dtype: bool = False,
) -> None:
    """Returns if got agrees with expected (see `close`), else raises the Fault that explains the difference best.

    Args:
        known: fault id -> the value that this fault would give on this input, or a list of such pairs where a fault
            has several forms. The first that agrees with got is it. A value that equals `expected` here shows nothing
            and is passed over.
        default: the fault if nothing explains the numbers.
        dtype: whether the number type must be that of expected too (fault "dtype").

    Raises:
        Fault: one of known, or "type", "shape", "nan", "dtype", `default`.
    """
    if close(got, expected, tolerance) and not (_is_tensor(expected) and not _is_tensor(got) and expected.ndim):
        if dtype and getattr(got, "dtype", None) != expected.dtype:
            raise Fault("dtype", tried, str(getattr(got, "dtype", _kind_of(got))), str(expected.dtype))
        return
    got_text, expected_text = _part_shown(got, expected)
    for fault, value in known.items() if isinstance(known, Mapping) else known:
        if close(got, value, tolerance) and not close(value, expected, tolerance):
            raise Fault(fault, tried, got_text, expected_text)
    if not _fits(got, expected):
        raise Fault("type", tried, f"{_kind_of(got)}", f"{_kind_of(expected)}")
    shapes = [tuple(getattr(v, "shape", ())) for v in (got, expected)]
    if shapes[0] != shapes[1]:
        raise Fault("shape", tried, f"shape {shapes[0]}", f"shape {shapes[1]}")
    if _has_nan(got) and not _has_nan(expected):
        raise Fault("nan", tried, got_text, expected_text)
    raise Fault(default, tried, got_text, expected_text)


# Running a learner's code.


def _is_stub(function) -> bool:
    """Whether a function's body is nothing but a docstring, `...`, `pass` or `return`."""
    idle = {"RESUME", "NOP", "CACHE", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE", "POP_TOP", "COPY_FREE_VARS"}
    code = getattr(function, "__code__", None)
    return code is not None and {i.opname for i in dis.get_instructions(code)} <= idle


def _plain(message: object) -> str:
    """An error message's first line, without addresses and folders."""
    text = (str(message).strip().splitlines() or [""])[0]
    text = re.sub(r"0x[0-9a-fA-F]{4,}", "0x...", text)
    text = re.sub(r"(?:[A-Za-z]:)?(?:[\\/][\w.~-]+){2,}[\\/]?", "...", text)
    return text if len(text) <= 160 else text[:157] + "..."


def _own_line(error: BaseException, function) -> str:
    """The last line of the learner's own code in a traceback, as ' in your line 3: x = y[0]'."""
    names = getattr(function, "__globals__", None)
    place = ""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if names is not None and frame.f_globals is names:
            text = linecache.getline(frame.f_code.co_filename, trace.tb_lineno).strip()
            place = f" in your line {trace.tb_lineno}" + (f": {text}" if text else "")
        trace = trace.tb_next
    return place


def _run(function, args, kwargs, tried):
    if function is None or function is ...:
        raise Open
    if not callable(function):
        raise Fault("type", "your answer", _kind_of(function), "a function")
    name = getattr(function, "__name__", "your function")
    name = "your function" if name == "<lambda>" else name
    given = [show(a) for a in args] + [f"{k}={show(v)}" for k, v in kwargs.items()]
    _last.tried = tried or f"{name}({', '.join(given)})"
    if len(_last.tried) > 300:
        _last.tried = f"{name}({', '.join(_kind_of(a) for a in [*args, *kwargs.values()])})"
    _last.printed.clear()
    handed = _copied(list(args)), _copied(dict(kwargs))
    try:
        result = function(*handed[0], **handed[1])
    except NotImplementedError:
        raise Open from None
    except Exception as error:
        if "ellipsis" in str(error).lower():  # a given line met a hole that is still open
            raise Open from None
        text = f"{type(error).__name__}: {_plain(error)}{_own_line(error, function)}"
        raise Fault("raised", got=text, expected="a result without an error") from None
    if result is ... or (result is None and _is_stub(function)):
        raise Open
    if result is None:
        raise Fault("open", got="None", expected="a result")
    if not (_same(handed[0], list(args)) and _same(handed[1], dict(kwargs))):
        raise Fault("changed_arguments", got="an argument was changed in place", expected="arguments as they were")
    return result, handed[0]


def call(function: Callable, *args, tried: str | None = None, **kwargs) -> Any:
    """Calls a learner's function on copies of the arguments and returns what it returns.

    `tried` describes the call for the report; None shows function and arguments. Faults raised later without `tried`
    take this description.

    Raises:
        Fault: "raised", "type" (not callable), "changed_arguments", "open" (it returned None).
        Open: nothing was written yet.
    """
    return _run(function, args, kwargs, tried)[0]


def gradient(function: Callable, *args, wrt: int = 0, tried: str | None = None, **kwargs):
    """Gradient of a weighted sum of the function's result with respect to args[wrt], a floating tensor.

    The weights are fixed and all different, so that exchanged entries show. Use it for the learner's function and for
    the right one alike, and `compare(..., default="gradient")`.

    Raises:
        Fault: as `call`; "type" if the result is no tensor; "no_gradient" if none reaches the argument.
    """
    found = _gradient(function, args, kwargs, wrt, tried)
    if found is None:
        raise Fault("no_gradient", got="no gradient", expected="a gradient")
    return found


def flows(function: Callable, *args, wrt: int = 0, tried: str | None = None, **kwargs) -> bool:
    """Whether a gradient other than 0 reaches args[wrt]: for what must be treated as a constant.

    Raises:
        Fault: as `call`; "type" if the result is no tensor.
    """
    found = _gradient(function, args, kwargs, wrt, tried)
    return found is not None and bool(found.any())


def _gradient(function, args, kwargs, wrt, tried):
    torch = _torch()
    args = list(args)
    args[wrt] = args[wrt].detach().clone().requires_grad_()
    shown = tried or f"gradient of {getattr(function, '__name__', 'your function')} in its argument {wrt + 1}"
    result, handed = _run(function, args, kwargs, shown)
    if not _is_tensor(result):
        raise Fault("type", got=_kind_of(result), expected="a tensor")
    if not result.requires_grad:
        return None
    weights = torch.linspace(0.5, 1.5, max(result.numel(), 1), dtype=torch.float64)[: result.numel()]
    total = (result * weights.reshape(result.shape).to(result.dtype)).sum()
    return torch.autograd.grad(total, handed[wrt], allow_unused=True)[0]


def number(
    answer: Any, expected: float, tolerance: float, known: Mapping[str, float] | None = None, *, tried: str = "answer"
) -> None:
    """For exercises that ask for a number. The report does not show the expected one.

    Args:
        tolerance: absolute, for the right number and for the known faults.
        known: fault id -> the number it leads to.

    Raises:
        Open; Fault: "type", "nan", one of known, or "values".
    """
    if answer is None or answer is ...:
        raise Open
    value = _numbers(answer)
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or isinstance(value, list | bool):
        raise Fault("type", tried, _kind_of(answer), "one number, without quotes or brackets")
    if value != value:
        raise Fault("nan", tried, "nan", "a number")
    if abs(value - expected) <= tolerance:
        return
    for fault, wrong in (known or {}).items():
        if abs(value - wrong) <= tolerance:
            raise Fault(fault, tried, value)
    raise Fault("values", tried, value)


def choice(answer: Any, right: str, why: Mapping[str, str]) -> None:
    """For exercises that ask for a letter. Capitals, spaces and a closing bracket do not matter.

    Args:
        right: the right letter.
        why: each wrong letter -> fault id.

    Raises:
        Open; Fault: "type", "choice" (none of the letters) or the one of `why`.
    """
    if answer is None or answer is ...:
        raise Open
    letters = sorted([right, *why])
    offered = "one of " + ", ".join(f'"{letter}"' for letter in letters)
    if not isinstance(answer, str):
        raise Fault("type", "", _kind_of(answer), offered)
    letter = answer.strip(" .()").lower()
    if letter == right:
        return
    if letter not in why:
        raise Fault("choice", "", _plain(answer), offered)
    raise Fault(why[letter], "", f'"{letter}"')


# One check from beginning to end.


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


def _stop(thread: threading.Thread) -> None:
    for _ in range(50):  # again, should the code catch it
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_TimeUp))
        thread.join(0.02)
        if not thread.is_alive():
            return


def _limited(function: Callable[[], Outcome], seconds: float) -> Outcome:
    """Runs a function in a thread, at most `seconds` of this process's computing time or five times that by the clock.

    A thread works in every system and inside a kernel, where signals and new processes do not.
    """
    box: list[Outcome] = []
    thread = threading.Thread(target=lambda: box.append(function()), daemon=True)
    computed, began = time.process_time(), time.monotonic()
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.02)
            if time.process_time() - computed > seconds or time.monotonic() - began > 5 * seconds:
                break
        else:
            return box[0]
    finally:  # an interrupted cell stops the thread too
        if thread.is_alive():
            _stop(thread)
    if box and box[0].fault != "timeout":
        return box[0]
    tried = box[0].tried if box else ""
    return Outcome("wrong", "timeout", tried, f"no result after {seconds:g} seconds", "a result at once")


class _Printed(io.TextIOBase):
    """Keeps the beginning of what is printed, however much it is."""

    def __init__(self):
        self.text = ""

    def clear(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text[: 1000 - len(self.text)]
        return len(text)

    def shown(self) -> str:
        """At most five lines, without addresses and folders."""
        lines = self.text.splitlines()
        return "\n          ".join([_plain(line) for line in lines[:5]] + ["..."] * (len(lines) > 5))


@contextlib.contextmanager
def _untouched(printed: _Printed):
    """Within the block prints are kept; behind it random states, torch's defaults and open figures are as before."""
    torch, numpy, pyplot = _torch(), sys.modules.get("numpy"), sys.modules.get("matplotlib.pyplot")
    states = [(random.setstate, random.getstate())]
    random.seed(0)
    if numpy is not None:
        states.append((numpy.random.set_state, numpy.random.get_state()))
        numpy.random.seed(0)
    if torch is not None:
        states += [(torch.set_rng_state, torch.get_rng_state()), (torch.set_default_dtype, torch.get_default_dtype())]
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float32)
    figures = set(pyplot.get_fignums()) if pyplot else set()
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(_Printed()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for put_back, state in states:
            put_back(state)
        for number_ in set(pyplot.get_fignums()) - figures if pyplot else ():
            pyplot.close(number_)


def judge(exercise: Exercise, answer: Any, seconds: float = SECONDS) -> Outcome:
    """Checks an answer and says what was found, without printing or recording anything.

    The answer is copied where it can be; a check leaves the learner's variables, random states and torch's defaults
    as they were.
    """
    if answer is None or answer is ...:
        return Outcome("open")

    printed = _Printed()

    def work() -> Outcome:
        _last.tried, _last.printed = "", printed
        try:
            return Outcome("passed", tested=exercise.checker(_copied(answer)) or "")
        except Open:
            return Outcome("open")
        except Fault as found:
            if found.fault == "open":
                return Outcome("open", "open", found.tried, show(found.got), show(found.expected))
            expected = "" if found.expected is None else show(found.expected)
            return Outcome("wrong", found.fault, found.tried, show(found.got), expected)
        except _TimeUp:
            return Outcome("wrong", "timeout", _last.tried)
        except BaseException as error:  # SystemExit of an answer, or a mistake of ours: never a traceback
            if isinstance(error, SystemExit | KeyboardInterrupt):
                return Outcome("wrong", "raised", _last.tried, type(error).__name__, "a result without an error")
            return Outcome("wrong", "checker", _last.tried, f"{type(error).__name__}: {_plain(error)}")

    with _untouched(printed):
        outcome = _limited(work, seconds)
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
