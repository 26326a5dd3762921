"""python -m kto_course.interview: questions in the terminal."""

import sys

from kto_course.interview.terminal import main
from kto_lab.command import run_command

sys.exit(run_command(main))
