"""The clock of a sitting and of a blank page: a function that gives the present; tests hand over their own."""

import datetime
from collections.abc import Callable

Clock = Callable[[], datetime.datetime]


def present() -> datetime.datetime:
    """The present, with the time zone of this machine."""
    return datetime.datetime.now().astimezone()


def face(seconds: float, minutes: float) -> str:
    """Minutes and seconds used, of the minutes planned."""
    used, planned = max(0, int(seconds)), int(minutes * 60)
    return f"{used // 60}:{used % 60:02d} of {planned // 60}:{planned % 60:02d} used"
