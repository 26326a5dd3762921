"""How a command of the course runs: in a narrow terminal, before a reader who leaves early, and when it is stopped."""

import os
import sys
from collections.abc import Callable


def run_command(main: Callable[..., int | None], *arguments) -> int:
    """Runs a command and returns its exit status.

    What the terminal cannot show is written as an escape (a Windows code page, or ASCII, knows no thumbs). A reader who
    has seen enough, as `| head` has, is no error; the Ctrl-C of a user needs no traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = main(*arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 0
    except KeyboardInterrupt:
        return 130
    return status or 0
