"""python -m kto_course.interview: questions in the terminal."""

from kto_course.interview.terminal import main

main()
