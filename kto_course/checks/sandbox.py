"""Around one check: a limit of time, and a world that is afterwards as it was.

Limits of the safety: an answer runs in a thread of the same process. An endless Python loop is stopped; one call that
stays inside compiled code cannot be stopped, it is left behind and reported. Memory is not limited.
"""

import contextlib
import ctypes
import io
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from kto_course.checks.values import plain_text, torch_if_loaded


class TimeUp(BaseException):
    """Raised inside a learner's code when its time is over; no `except Exception` catches it."""


def _stop(thread: threading.Thread) -> None:
    for _ in range(50):  # again, should the code catch it
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(TimeUp))
        thread.join(0.02)
        if not thread.is_alive():
            return


def limited(function: Callable[[], Any], seconds: float) -> Any:
    """Runs a function in a thread, at most `seconds` of this process's computing time or five times that by the clock.

    A thread works in every system and inside a kernel, where signals and new processes do not. When the time is over,
    `TimeUp` is raised inside the function.

    Returns:
        What the function returns, in time or on its way out; None where it could not be stopped.
    """
    box: list[Any] = []
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
    return box[0] if box else None


class Printed(io.TextIOBase):
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
        return "\n          ".join([plain_text(line) for line in lines[:5]] + ["..."] * (len(lines) > 5))


@contextlib.contextmanager
def untouched(printed: Printed):
    """Within the block prints are kept; behind it random states, torch's defaults and open figures are as before."""
    torch, numpy, pyplot = torch_if_loaded(), sys.modules.get("numpy"), sys.modules.get("matplotlib.pyplot")
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
            contextlib.redirect_stderr(Printed()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for put_back, state in states:
            put_back(state)
        for number_ in set(pyplot.get_fignums()) - figures if pyplot else ():
            pyplot.close(number_)
