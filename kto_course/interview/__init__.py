"""Interview practice: what you need most is asked first, blank pages against the clock, mock interviews.

Lesson 13 uses it. The questions stand in `questions.yaml`, the blank pages are exercises of the lessons, and what you
rated and how long you took goes into your progress file (`kto_course.learner`), on this machine only.

    interview.start(minutes=20)       a sitting; interview.topics() lists what it can be narrowed down to
    interview.drill("kto_loss")       a blank page; interview.times() shows your best times
    interview.mock(seed=7)            45 minutes for two
    python -m kto_course.interview    a sitting in the terminal; with --mock 45 a mock interview alone
"""

from kto_course.interview.bank import topics
from kto_course.interview.drills import drill, times
from kto_course.interview.for_two import mock
from kto_course.interview.schedule import due
from kto_course.interview.session import start
from kto_course.interview.tasks import DRILLS

__all__ = ["DRILLS", "drill", "due", "mock", "start", "times", "topics"]
