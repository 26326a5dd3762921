"""What is made from the question bank, and the formula card; `python course.py build` writes what is out of date.

| product | file | for |
|---|---|---|
| a lesson's questions | `{{questions ID ID ID}}` in its source | reading: folds, nothing to run |
| the same as JSON | notebooks/handouts/quiz/NN_topic.json | jupyterquiz: questions with a choice or a number |
| Anki deck | notebooks/handouts/kto_from_scratch.apkg | spaced repetition on a phone |
| interview sheet | notebooks/handouts/interview_sheet.html | two people and a printer |
| exit quiz | notebooks/handouts/exit_quiz.pdf, exit_quiz_answers.pdf, exit_quiz.gift.txt | the end of a talk; Moodle |
| slides | notebooks/slides/: see `kto_course.slides` | the projector |
| core sheet | notebooks/handouts/core_sheet.pdf | the evening before: the 25 core questions on two pages |
| formula card | figures/formula_card.pdf, .svg, .png | the wall |
"""
