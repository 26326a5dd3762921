"""The exit quiz: ten questions of the bank on one page, the answers on another, and both for a learning platform.

Which ten stands in kto_course/run_sheets.yaml. GIFT is Moodle's plain text format for questions; other platforms read
it, too.
"""

import re
from collections.abc import Callable, Sequence

from kto_course.handouts.core_sheet import A4, MARGIN, Line, printed, wrapped
from kto_course.handouts.wording import LETTERS, brackets, one_line, shown_answer, to_inline_html
from kto_course.questions import Question

TITLE = "KTO from Scratch: exit quiz"
NOTE = "Name ______________________________   Ten questions, ten minutes. One choice is right; numbers as you get them."
ANSWERS, KEEP = f"{TITLE}, answers", "For the teacher. In brackets: where it is derived."
LEFT, ROOM = MARGIN * 72 + 14, (A4[0] - 2 * MARGIN) * 72 - 28  # points
LEADING = {"asked": 14.0, "choice": 13.0, "answer": 12.0}  # points from line to line


Entry = Callable[[int, Question], list[tuple[str, str]]]


def laid_out(title: str, note: str, questions: Sequence[Question], entry: Entry) -> list[Line]:
    """The lines of one page; `entry` gives (style, text) of each question's paragraphs.

    Raises:
        ValueError: more than fits on a page.
    """
    lines = [Line(0, LEFT, 50, title, "title"), Line(0, LEFT, 74, note, "note")]
    y = 92.0
    for number, question in enumerate(questions, start=1):
        for style, text in entry(number, question):
            for line in wrapped(text, style, ROOM):
                y += LEADING[style]
                lines.append(Line(0, LEFT, y, line, style))
        y += 9.0
    if y > (A4[1] - MARGIN) * 72:
        raise ValueError(f"the exit quiz has one page of {A4[1] * 72:.0f} points; these questions take {y:.0f}")
    return lines


def asked(number: int, question: Question) -> list[tuple[str, str]]:
    choices = [("choice", f"{LETTERS[i]}) {choice}") for i, choice in enumerate(question.choices)]
    return [("asked", f"{number}. {question.question}"), *(choices or [("choice", "Answer: ____________________")])]


def answered(number: int, question: Question) -> list[tuple[str, str]]:
    right = LETTERS[question.answer] if question.kind == "choice" else shown_answer(question)
    place = f"lesson {question.lesson}, {question.section}"
    return [("asked", f"{number}. {right} ({place})"), ("answer", question.short)]


def escaped(text: str) -> str:
    """Markdown as HTML with mathematics in brackets, and GIFT's own signs taken as text."""
    page = to_inline_html(one_line(text), brackets).replace("\\", "\\\\")
    return re.sub(r"([~=#{}:])", r"\\\1", page)


def gift_entry(question: Question) -> str:
    """A question in GIFT: choices with feedback, or a number that may be off by a thousandth of itself.

    Raises:
        ValueError: a question without one right answer.
    """
    right = f"#{escaped(question.short)}"
    if question.kind == "choice":
        wrong = f"#Read lesson {question.lesson}, section {escaped(question.section)}"
        lines = [f"{'=' if i == question.answer else '~'}{escaped(choice)} {right if i == question.answer else wrong}"
                 for i, choice in enumerate(question.choices)]  # fmt: skip
        body = "\n".join(lines)
    elif question.kind == "number":
        body = f"#={question.answer}:{abs(question.answer) / 1000:g} {right}"
    else:
        raise ValueError(f"{question.id} is of kind {question.kind}; an exit quiz takes choice and number")
    return f"::{question.id}::[html]{escaped(question.question)} {{\n{body}\n}}\n"


def exit_quiz_files(questions: Sequence[Question]) -> dict[str, bytes]:
    """File name -> content: the page to hand out, the page of answers, and the GIFT file, which holds both."""
    gift = "// KTO from Scratch: exit quiz, CC BY 4.0\n\n" + "\n".join(map(gift_entry, questions))
    return {
        "exit_quiz.pdf": printed(laid_out(TITLE, NOTE, questions, asked), TITLE, 1),
        "exit_quiz_answers.pdf": printed(laid_out(ANSWERS, KEEP, questions, answered), ANSWERS, 1),
        "exit_quiz.gift.txt": gift.encode(),
    }
