"""The questions at a lesson's end, and the same for jupyterquiz."""

import json
import re
from collections.abc import Sequence

from kto_course import checks
from kto_course.handouts.wording import (
    bank,
    choice_list,
    dollars,
    red_flag_list,
    right_answer,
    shown_answer,
    to_inline_html,
)
from kto_course.questions import Question

PLACEHOLDER = re.compile(r"\{\{questions((?: \w+)+)\}\}")


def _fold(summary: str, body: str) -> str:
    # The blank lines make the body markdown again: between tags alone it would be taken for raw HTML.
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def _answer(question: Question) -> str:
    parts = [
        right_answer(question),
        f"**In 30 seconds.** {question.short}",
        f"**Often heard, and wrong:**\n\n{red_flag_list(question)}",
        f"Derived in {checks.home_of(int(question.lesson), question.section)}, “{question.section}”. "
        f"Source: {question.source}.",
    ]
    return "\n\n".join(part for part in parts if part)


def _question(question: Question) -> str:
    """A question with its folded answer. Choices and code stay outside the fold: they belong to what is asked."""
    if question.choices or "\n\n" in question.question:
        asked = [question.question, choice_list(question), _fold("Answer", _answer(question))]
        return "\n\n".join(part for part in asked if part)
    return _fold(to_inline_html(question.question, dollars), _answer(question))


def quiz_text(ids: Sequence[str]) -> str:
    """Questions of the bank for a lesson's last pages: how to use them, then each with its answer in a fold.

    Raises:
        ValueError: an id that the bank does not know.
    """
    known = {question.id: question for question in bank()}
    if missing := [id for id in ids if id not in known]:
        raise ValueError(f"the question bank has no {', '.join(missing)}; its ids stand in kto_course/questions.yaml")
    asked = "\n\n".join(_question(known[id]) for id in ids)
    return f"Say your answer aloud, then unfold ours. Lesson 13 asks the rest of the bank.\n\n{asked}"


def _quiz_entry(question: Question) -> dict:
    right = "Right. " + to_inline_html(question.short, dollars)
    wrong = f"Not so. Read lesson {question.lesson}, section “{to_inline_html(question.section, dollars)}”."
    entry = {"question": to_inline_html(question.question, dollars)}
    if question.kind == "choice":
        answers = [
            {
                "answer": to_inline_html(choice, dollars),
                "correct": index == question.answer,
                "feedback": right if index == question.answer else wrong,
            }
            for index, choice in enumerate(question.choices)
        ]
        return entry | {"type": "multiple_choice", "answers": answers}
    digits = len(re.sub(r"\D", "", shown_answer(question)).lstrip("0"))
    return entry | {
        "type": "numeric",
        "precision": min(max(digits, 3), 4),  # significant digits: 0.5619 is as good as 0.561875
        "answers": [
            {"type": "value", "value": question.answer, "correct": True, "feedback": right},
            {"type": "default", "feedback": wrong},
        ],
    }


def quiz_json(questions: Sequence[Question]) -> str:
    """The questions of kind choice and number, as `jupyterquiz.display_quiz` reads them."""
    entries = [_quiz_entry(question) for question in questions if question.kind in ("choice", "number")]
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"
