"""What a checker does with what came back: compare it with the right values, or judge a number or a letter."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kto_course.checks.faults import Fault, Open
from kto_course.checks.values import SMALL, close, fits, has_nan, is_tensor, kind_of, plain_numbers, plain_text, show


def _part_shown(got, expected) -> tuple[str, str]:
    """Both values as text; of large tensors the entry where they differ most."""
    shape = getattr(expected, "shape", ())
    if math.prod(shape) <= SMALL or tuple(getattr(got, "shape", ())) != tuple(shape):
        return show(got), show(expected)
    worst, place = -1.0, ()
    stack = [((), plain_numbers(got), plain_numbers(expected))]
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
    if close(got, expected, tolerance) and not (is_tensor(expected) and not is_tensor(got) and expected.ndim):
        if dtype and getattr(got, "dtype", None) != expected.dtype:
            raise Fault("dtype", tried, str(getattr(got, "dtype", kind_of(got))), str(expected.dtype))
        return
    got_text, expected_text = _part_shown(got, expected)
    for fault, value in known.items() if isinstance(known, Mapping) else known:
        if close(got, value, tolerance) and not close(value, expected, tolerance):
            raise Fault(fault, tried, got_text, expected_text)
    if not fits(got, expected):
        raise Fault("type", tried, f"{kind_of(got)}", f"{kind_of(expected)}")
    shapes = [tuple(getattr(v, "shape", ())) for v in (got, expected)]
    if shapes[0] != shapes[1]:
        raise Fault("shape", tried, f"shape {shapes[0]}", f"shape {shapes[1]}")
    if has_nan(got) and not has_nan(expected):
        raise Fault("nan", tried, got_text, expected_text)
    raise Fault(default, tried, got_text, expected_text)


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
    value = plain_numbers(answer)
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or isinstance(value, list | bool):
        raise Fault("type", tried, kind_of(answer), "one number, without quotes or brackets")
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
        raise Fault("type", "", kind_of(answer), offered)
    letter = answer.strip(" .()").lower()
    if letter == right:
        return
    if letter not in why:
        raise Fault("choice", "", plain_text(answer), offered)
    raise Fault(why[letter], "", f'"{letter}"')
