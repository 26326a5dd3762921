"""Slides for a class, built from the lessons: nothing on them is typed a second time.

A cell of `notebooks/src` says with the mark `slide=[...]` what of it a class shall see: in a text cell how sentences,
formulas, tables or list items begin, in a code cell `figure`, `text` or `table` for its output. What is marked under
one heading becomes one slide; its title is the heading. What to say comes from `notebooks/teaching.md`.

| product | made of |
|---|---|
| notebooks/slides/NN_topic.html | all marked sections of a lesson |
| notebooks/slides/kto_in_90_minutes.html | the sections that `kto_course/run_sheets.yaml` names, in its order |
| notebooks/slides/kto_in_90_minutes.pdf | the same, printed by Chromium (`python -m kto_course.slides` prints it) |

A deck is one file with formulas in MathML and figures inside: it asks no other host, and needs no install to be shown.
"""
