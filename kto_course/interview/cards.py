"""How a question and the ladder of its answers look."""

import textwrap

from kto_course.questions import Question

RUNGS = ("30 seconds", "3 minutes", "What they ask next", "Red flags")


class Card(str):
    """A text in markdown: JupyterLab renders it, `print` shows it as it is."""

    def _repr_markdown_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return str(self)


def _letter(index: int) -> str:
    return chr(ord("a") + index)


def asked(question: Question) -> str:
    """The question, with its choices if it has some."""
    choices = [f"- {_letter(i)}) {text}" for i, text in enumerate(question.choices)]
    return "\n".join([question.question.strip(), *(["", *choices] if choices else [])])


def _quoted(text: str) -> str:
    return textwrap.indent(text.strip(), "> ", lambda line: True)


def rung_text(question: Question, rung: int) -> str:
    """One rung of the answer ladder, with its heading."""
    if rung == 0:
        text = question.short.strip()
        if question.kind == "choice":
            text = f"**{_letter(question.answer)}).** {text}"
        elif question.kind == "number":
            text = f"**{question.answer}.** {text}"
    elif rung == 1:
        text = question.long.strip()
    elif rung == 2:
        text = "\n\n".join(f"{_quoted(f.question)}\n\n{f.answer.strip()}" for f in question.follow_ups)
    else:
        text = "\n\n".join(f"{_quoted(flag.said)}\n\n{flag.why.strip()}" for flag in question.red_flags)
    return f"**{RUNGS[rung]}**\n\n{text}"


def in_days(number: int) -> str:
    """When, in words."""
    return "today" if number == 0 else "tomorrow" if number == 1 else f"in {number} days"
