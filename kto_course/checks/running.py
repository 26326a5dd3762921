"""Calling a learner's function: on copies, its errors told by its own lines; and the gradient of what it returns."""

import dis
import linecache
from collections.abc import Callable
from typing import Any

from kto_course.checks.faults import Fault, Open, last_call
from kto_course.checks.values import copied, is_tensor, kind_of, plain_text, same, show, torch_if_loaded


def _is_stub(function) -> bool:
    """Whether a function's body is nothing but a docstring, `...`, `pass` or `return`."""
    idle = {"RESUME", "NOP", "CACHE", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE", "POP_TOP", "COPY_FREE_VARS"}
    code = getattr(function, "__code__", None)
    return code is not None and {i.opname for i in dis.get_instructions(code)} <= idle


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
        raise Fault("type", "your answer", kind_of(function), "a function")
    name = getattr(function, "__name__", "your function")
    name = "your function" if name == "<lambda>" else name
    given = [show(a) for a in args] + [f"{k}={show(v)}" for k, v in kwargs.items()]
    last_call.tried = tried or f"{name}({', '.join(given)})"
    if len(last_call.tried) > 300:
        last_call.tried = f"{name}({', '.join(kind_of(a) for a in [*args, *kwargs.values()])})"
    last_call.printed.clear()
    handed = copied(list(args)), copied(dict(kwargs))
    try:
        result = function(*handed[0], **handed[1])
    except NotImplementedError:
        raise Open from None
    except Exception as error:
        if "ellipsis" in str(error).lower():  # a given line met a hole that is still open
            raise Open from None
        text = f"{type(error).__name__}: {plain_text(error)}{_own_line(error, function)}"
        raise Fault("raised", got=text, expected="a result without an error") from None
    if result is ... or (result is None and _is_stub(function)):
        raise Open
    if result is None:
        raise Fault("open", got="None", expected="a result")
    if not (same(handed[0], list(args)) and same(handed[1], dict(kwargs))):
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
    torch = torch_if_loaded()
    args = list(args)
    args[wrt] = args[wrt].detach().clone().requires_grad_()
    shown = tried or f"gradient of {getattr(function, '__name__', 'your function')} in its argument {wrt + 1}"
    result, handed = _run(function, args, kwargs, shown)
    if not is_tensor(result):
        raise Fault("type", got=kind_of(result), expected="a tensor")
    if not result.requires_grad:
        return None
    weights = torch.linspace(0.5, 1.5, max(result.numel(), 1), dtype=torch.float64)[: result.numel()]
    total = (result * weights.reshape(result.shape).to(result.dtype)).sum()
    return torch.autograd.grad(total, handed[wrt], allow_unused=True)[0]
