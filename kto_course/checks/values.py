"""Values of any kind, torch and NumPy loaded or not: how they are shown, copied and compared."""

import copy
import math
import numbers
import re
import sys
from collections.abc import Mapping
from typing import Any

SMALL = 12  # values with more numbers than this are shown by their largest difference


def torch_if_loaded():
    """torch if it is loaded already, else None: then no value is a tensor."""
    return sys.modules.get("torch")


def is_tensor(value) -> bool:
    """Whether it is a torch tensor; never loads torch."""
    return torch_if_loaded() is not None and isinstance(value, torch_if_loaded().Tensor)


def is_array(value) -> bool:
    """Whether it is a NumPy array; never loads NumPy."""
    return "numpy" in sys.modules and isinstance(value, sys.modules["numpy"].ndarray)


def is_number(value) -> bool:
    """Whether it is a real number, of Python, NumPy or torch."""
    if isinstance(value, numbers.Number):  # NumPy's are registered there
        return not isinstance(value, complex)
    return (is_tensor(value) or is_array(value)) and value.ndim == 0


def _rounded(value: float) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.3e}"
    return f"{value + 0.0:.4f}"


def kind_of(value) -> str:
    """What kind of value it is, for a report."""
    if value is None:
        return "None"
    if is_tensor(value) or is_array(value):
        return f"{'tensor' if is_tensor(value) else 'array'} of shape {tuple(value.shape)}"
    return type(value).__name__


def show(value: Any) -> str:
    """A value as short, rounded text that is the same on every run."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None or value is ...:
        return str(value)
    if is_tensor(value) or is_array(value):
        size = math.prod(value.shape)
        return show(value.tolist()) if size <= SMALL else kind_of(value)
    if is_number(value):
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


def copied(value):
    """A copy that can be changed without a trace; functions, and what cannot be copied, as they are."""
    if is_tensor(value):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if type(value) in (list, tuple):
        return type(value)(copied(v) for v in value)
    if type(value) is dict:
        return {k: copied(v) for k, v in value.items()}
    if callable(value) and not hasattr(value, "state_dict"):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:
        return value


def same(a, b) -> bool:
    """Whether two values are exactly equal; objects of one unknown kind count as equal."""
    if is_tensor(a) and is_tensor(b):
        return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())
    if is_array(a) and is_array(b):
        return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if hasattr(a, "state_dict") and hasattr(b, "state_dict"):
        return same(dict(a.state_dict()), dict(b.state_dict())) and a.training == b.training
    if isinstance(a, str | numbers.Number | set) and isinstance(b, str | numbers.Number | set):
        return a == b or (a != a and b != b)
    return type(a) is type(b)


def _tolerance(*values) -> float:
    """Relative and absolute: that of the coarsest number type among the values."""
    names = " ".join(str(getattr(value, "dtype", "")) for value in values)
    if "float16" in names:  # bfloat16 too
        return 3e-2
    return 1e-4 if "float32" in names else 1e-7


def plain_numbers(value):
    """A nested list of Python numbers, or None where the value is nothing of the kind."""
    if is_tensor(value) or is_array(value):
        return (value.detach() if is_tensor(value) else value).tolist()
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
    a, b = plain_numbers(got), plain_numbers(expected)
    if a is not None and b is not None:
        return _close(a, b, tolerance)
    if isinstance(got, Mapping) and isinstance(expected, Mapping):
        return set(got) == set(expected) and all(close(got[k], expected[k], tolerance) for k in expected)
    if isinstance(got, list | tuple) and isinstance(expected, list | tuple):
        return len(got) == len(expected) and all(map(close, got, expected, [tolerance] * len(got)))
    if a is not None or b is not None or type(got) is not type(expected):
        return False
    return isinstance(got, str | set | frozenset) and got == expected


def has_nan(value) -> bool:
    """Whether a NaN stands anywhere in it."""
    if isinstance(value, list | tuple):
        return any(map(has_nan, value))
    if isinstance(value, Mapping):
        return any(map(has_nan, value.values()))
    found = plain_numbers(value)
    return has_nan(found) if isinstance(found, list) else found is not None and found != found


def fits(got, expected) -> bool:
    """Whether the kind of value is the one asked for."""
    if is_number(expected):
        return is_number(got) or (is_tensor(got) or is_array(got))  # a wrong shape is told apart below
    if is_tensor(expected) or is_array(expected):
        return is_tensor(got) if is_tensor(expected) else (is_array(got) or is_tensor(got))
    if isinstance(expected, list | tuple):
        return isinstance(got, list | tuple)
    return isinstance(got, Mapping) if isinstance(expected, Mapping) else isinstance(got, type(expected))


def plain_text(message: object) -> str:
    """An error message's first line, without addresses and folders."""
    text = (str(message).strip().splitlines() or [""])[0]
    text = re.sub(r"0x[0-9a-fA-F]{4,}", "0x...", text)
    text = re.sub(r"(?:[A-Za-z]:)?(?:[\\/][\w.~-]+){2,}[\\/]?", "...", text)
    return text if len(text) <= 160 else text[:157] + "..."
