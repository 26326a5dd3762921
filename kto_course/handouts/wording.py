"""A question in Markdown and HTML: formulas, choices, answers, follow-ups."""

import html
from collections.abc import Callable
from functools import lru_cache

from latex2mathml.converter import convert as to_mathml
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from kto_course.questions import Question, load_questions

LETTERS = "ABCDE"


@lru_cache
def bank() -> tuple[Question, ...]:
    return tuple(load_questions())


def of_lesson(lesson: str) -> list[Question]:
    """The questions of a lesson ("06"), the easy ones first, otherwise in the bank's order."""
    return sorted((q for q in bank() if q.lesson == lesson), key=lambda question: question.difficulty)


def dollars(tex: str, block: bool) -> str:
    """Math for a page whose MathJax looks for dollars; < and > would be taken for tags by some, for text by others."""
    mark = "$$" if block else "$"
    return mark + tex.replace("<", r"\lt ").replace(">", r"\gt ") + mark


def brackets(tex: str, block: bool) -> str:
    """Math as Anki's MathJax reads it."""
    return (r"\[{}\]" if block else r"\({}\)").format(html.escape(tex, quote=False))


def mathml(tex: str, block: bool) -> str:
    """Math that a browser draws without any script."""
    return to_mathml(tex, display="block" if block else "inline")


@lru_cache
def _renderer(math: Callable[[str, bool], str]) -> MarkdownIt:
    markdown = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, allow_labels=False)
    for name, block in (("math_inline", False), ("math_block", True)):
        markdown.add_render_rule(name, lambda _, tokens, i, *rest, block=block: math(tokens[i].content.strip(), block))
    return markdown


def to_html(text: str, math: Callable[[str, bool], str]) -> str:
    return _renderer(math).render(text).strip()


def to_inline_html(text: str, math: Callable[[str, bool], str]) -> str:
    """One paragraph, without the <p>."""
    return " ".join(_renderer(math).renderInline(text).split())


def right_answer(question: Question) -> str | None:
    """What is right, as markdown, for the kinds that have one right answer."""
    if question.kind == "choice":
        return f"**{LETTERS[question.answer]}** is right: {one_line(question.choices[question.answer])}"
    if question.kind == "number":
        return f"**{shown_answer(question)}**"
    return None


def shown_answer(question: Question) -> str:
    """A number question's answer with the digits that the bank shows."""
    shown = (number.shown for number in question.numbers)
    return next(text for text in shown if float(text.replace(",", "")) == question.answer)


def one_line(text: str) -> str:
    return " ".join(text.split())


def choice_list(question: Question) -> str:
    lines = zip(LETTERS, question.choices, strict=False)
    return "\n".join(f"- **{letter}** · {one_line(choice)}" for letter, choice in lines)


def follow_up_list(question: Question) -> str:
    return "\n\n".join(f"**Asked next:** {f.question}\n\n{f.answer}" for f in question.follow_ups)


def red_flag_list(question: Question) -> str:
    return "\n".join(f"- “{one_line(flag.said)}” {one_line(flag.why)}" for flag in question.red_flags)
