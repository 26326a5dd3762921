"""Experiments on KTO and DPO in the small world, each a table of conditions x methods x seeds. Lessons 07 to 09.

`protocol` says what is varied and what was expected, `thumbs` what a run is given, `runs` trains and scores one model
(`scores`, `reference_points`), `results` runs the tables and keeps them in a file, `findings` draws the conclusions.
Whatever is changed in how a run is made, hypotheses included, asks for new results.
"""
