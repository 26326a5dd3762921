"""Builds what is made from the question bank: quizzes, an Anki deck, a printable sheet; and the formula card.

    python -m kto_course.handouts           writes what is out of date (kto_course/build.py does so too)
    python -m kto_course.handouts --check   writes nothing, names what is out of date, exit status 1 if any

| product | file | for |
|---|---|---|
| a lesson's questions | `{{questions ID ID ID}}` in its source, through build.py | reading: folds, nothing to run |
| the same as JSON | notebooks/handouts/quiz/NN_topic.json | jupyterquiz: questions with a choice or a number |
| Anki deck | notebooks/handouts/kto_from_scratch.apkg | spaced repetition on a phone |
| interview sheet | notebooks/handouts/interview_sheet.html | two people and a printer |
| formula card | figures/formula_card.pdf, .svg, .png | the wall |
"""

import argparse
import hashlib
import html
import io
import json
import re
import sqlite3
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import genanki
import matplotlib as mpl
from latex2mathml.converter import convert as to_mathml
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from kto_course import NOTEBOOKS, ROOT, formula_card
from kto_course.questions import Question, load_questions

PLACEHOLDER = re.compile(r"\{\{questions((?: \w+)+)\}\}")
LETTERS = "ABCDE"
TOPICS = {
    "prospect_theory": "Prospect theory", "model": "The model", "tokens": "Tokens", "batches": "Batches",
    "logprobs": "Log-probabilities", "loss": "The loss", "reference_point": "The reference point",
    "training": "Training", "dpo": "DPO", "halos": "HALOs", "data": "Data", "engineering": "Engineering",
    "evidence": "Evidence",
}  # fmt: skip
# Chosen once, never changed: Anki knows deck, cards and notes by them, and keeps a learner's progress.
DECK_ID, MODEL_ID, MADE_AT = 1706918400, 1706918401, 1706918400
FIELDS = ("Question", "Choices", "Short", "Long", "FollowUps", "RedFlags", "Source", "Lesson", "Id")


@lru_cache
def bank() -> tuple[Question, ...]:
    return tuple(load_questions())


def of_lesson(lesson: str) -> list[Question]:
    """The questions of a lesson ("06"), the easy ones first, otherwise in the bank's order."""
    return sorted((q for q in bank() if q.lesson == lesson), key=lambda question: question.difficulty)


# ------------------------------------------------------------------------------------------------ markdown to HTML


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
    markdown = MarkdownIt("commonmark").use(dollarmath_plugin, allow_labels=False)
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
        return f"**{LETTERS[question.answer]}** is right: {_one_line(question.choices[question.answer])}"
    if question.kind == "number":
        return f"**{shown_answer(question)}**"
    return None


def shown_answer(question: Question) -> str:
    """A number question's answer with the digits that the bank shows."""
    shown = (number.shown for number in question.numbers)
    return next(text for text in shown if float(text.replace(",", "")) == question.answer)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def choice_list(question: Question) -> str:
    lines = zip(LETTERS, question.choices, strict=False)
    return "\n".join(f"- **{letter}** · {_one_line(choice)}" for letter, choice in lines)


def follow_up_list(question: Question) -> str:
    return "\n\n".join(f"**Asked next:** {f.question}\n\n{f.answer}" for f in question.follow_ups)


def red_flag_list(question: Question) -> str:
    return "\n".join(f"- “{_one_line(flag.said)}” {_one_line(flag.why)}" for flag in question.red_flags)


# -------------------------------------------------------------------------------------------- the quiz of a lesson


def _fold(summary: str, body: str) -> str:
    # The blank lines make the body markdown again: between tags alone it would be taken for raw HTML.
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def _answer(question: Question) -> str:
    parts = [
        right_answer(question),
        f"**In 30 seconds.** {question.short}",
        f"**Often heard, and wrong:**\n\n{red_flag_list(question)}",
        f"Derived in “{question.section}”. Source: {question.source}.",
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


# ---------------------------------------------------------------------------------------------- jupyterquiz's JSON


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


# ----------------------------------------------------------------------------------------------------- Anki's deck

CARD_CSS = """
.card { font-family: sans-serif; font-size: 18px; line-height: 1.45; text-align: left; max-width: 42em; margin: auto; }
pre { font-size: 14px; overflow-x: auto; padding: 0.5em; border: 1px solid #999; }
h4 { margin: 1.2em 0 0.2em; font-size: 15px; }
.source { font-size: 14px; opacity: 0.75; margin-top: 1.5em; }
"""
FRONT = "{{Question}}{{Choices}}"
BACK = """{{FrontSide}}
<hr id="answer">
{{Short}}
<h4>In 3 minutes</h4>
{{Long}}
<h4>Asked next</h4>
{{FollowUps}}
<h4>Often heard, and wrong</h4>
{{RedFlags}}
<p class="source">Lesson {{Lesson}} · {{Source}}</p>"""


def note_fields(question: Question) -> list[str]:
    """The note of a question, in the order of FIELDS, as HTML with math in \\( \\)."""
    short = "\n\n".join(part for part in (right_answer(question), question.short) if part)
    markdown = (question.question, choice_list(question), short, question.long, follow_up_list(question))
    return [
        *(to_html(text, brackets) for text in markdown),
        to_html(red_flag_list(question), brackets),
        to_inline_html(question.source, brackets),
        to_inline_html(f"{question.lesson}, {question.section}", brackets),
        question.id,
    ]


def anki_deck(questions: Sequence[Question]) -> bytes:
    """The deck as the bytes of an .apkg file; the same questions give the same bytes."""
    model = genanki.Model(
        MODEL_ID,
        "KTO from Scratch",
        fields=[{"name": name} for name in FIELDS],
        templates=[{"name": "Answer ladder", "qfmt": FRONT, "afmt": BACK}],
        css=CARD_CSS,
    )
    deck = genanki.Deck(DECK_ID, "KTO from Scratch")
    for question in questions:
        tags = [f"lesson_{question.lesson}", question.topic, question.kind, f"difficulty_{question.difficulty}"]
        guid = genanki.guid_for("KTO from Scratch", question.id)
        deck.add_note(genanki.Note(model=model, fields=note_fields(question), guid=guid, tags=tags))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "deck.apkg"
        genanki.Package(deck).write_to_file(file, timestamp=MADE_AT)
        with zipfile.ZipFile(file) as package:
            parts = {name: package.read(name) for name in package.namelist()}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as package:
        for name, data in parts.items():  # without the time of day that genanki's file carries
            package.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def anki_content(package: bytes) -> list[list]:
    """What an .apkg says, without what depends on the version of SQLite that wrote it."""
    database = sqlite3.connect(":memory:")
    with zipfile.ZipFile(io.BytesIO(package)) as parts:
        database.deserialize(parts.read("collection.anki2"))
    wanted = ("SELECT id, guid, mid, mod, tags, flds FROM notes", "SELECT id, nid, did, ord FROM cards",
              "SELECT models, decks FROM col")  # fmt: skip
    return [sorted(database.execute(query).fetchall()) for query in wanted]


# -------------------------------------------------------------------------------------------------- the sheet

SHEET_CSS = """
@page { size: A4; margin: 15mm 14mm; }
body { font: 10pt/1.4 "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; color: #000; max-width: 190mm; margin: 0 auto;
  padding: 0 4mm; }
h1 { font-size: 18pt; margin: 0.5em 0; } h2 { font-size: 14pt; border-bottom: 1.5pt solid #000; margin: 1.2em 0 0.6em; }
h3 { font-size: 11pt; margin: 1.2em 0 0.4em; border-bottom: 0.5pt solid #666; break-after: avoid; }
h4 { font-size: 1em; margin: 0 0 0.3em; break-after: avoid; }
p, ul { margin: 0.3em 0; } ul { padding-left: 1.3em; } a { color: inherit; }
pre { font-size: 8pt; line-height: 1.3; white-space: pre-wrap; border: 0.5pt solid #999; padding: 2mm; margin: 0.4em 0;
  break-inside: avoid; }
code { font-family: "DejaVu Sans Mono", Consolas, Menlo, monospace; font-size: 90%; }
math { font-size: 105%; } math[display="block"] { margin: 0.4em 0; }
.asked { display: grid; grid-template-columns: 2.2em 1fr 12em; gap: 0 0.6em; padding: 0.35em 0; break-inside: avoid;
  border-bottom: 0.3pt solid #bbb; }
.mark { text-align: right; white-space: nowrap; } .small { font-size: 8.5pt; color: #444; }
.asked p:first-child { margin-top: 0; }
#answers { break-before: page; }
article { margin-bottom: 1.1em; } article > .small { margin-top: 0.4em; }
@media print { body { max-width: none; padding: 0; font-size: 9pt; } #answers .columns { columns: 2; column-gap: 7mm; }
  pre { font-size: 6.8pt; } a { text-decoration: none; } }
"""


def _asked(number: int, question: Question) -> str:
    text = to_html(f"{question.question}\n\n{choice_list(question)}", mathml)
    place = f"lesson {question.lesson} · difficulty {question.difficulty}"
    boxes = '<span aria-label="mark: 0, 1 or 2 points">☐ 0 &nbsp; ☐ 1 &nbsp; ☐ 2</span>'
    return (
        f'<div class="asked" id="q{number}"><a href="#a{number}">{number}</a><div>{text}</div>'
        f'<div class="mark">{boxes}<br><span class="small">{place}</span></div></div>'
    )


def _answered(number: int, question: Question) -> str:
    title = to_inline_html(question.question.split("\n\n")[0], mathml)
    parts = [
        right_answer(question),
        f"**30 seconds.** {question.short}",
        f"**3 minutes.** {question.long}",
        follow_up_list(question),
        f"**Often heard, and wrong:**\n\n{red_flag_list(question)}",
    ]
    body = to_html("\n\n".join(part for part in parts if part), mathml)
    source = to_inline_html(question.source, mathml)
    place = f"Lesson {question.lesson}, {to_inline_html(question.section, mathml)}. Source: {source}."
    return (
        f'<article id="a{number}"><h4><a href="#q{number}">{number}</a> &nbsp;{title}</h4>\n{body}\n'
        f'<p class="small">{place}</p></article>'
    )


def interview_sheet(questions: Sequence[Question]) -> str:
    """The sheet as one HTML page: no script, nothing from elsewhere; first all questions, then all answers."""
    groups: dict[str, list[tuple[int, Question]]] = {}
    order = list(TOPICS)
    for number, question in enumerate(sorted(questions, key=lambda q: (order.index(q.topic), q.difficulty)), 1):
        groups.setdefault(question.topic, []).append((number, question))

    def section(entry: Callable[[int, Question], str]) -> str:
        return "\n".join(
            f"<h3>{TOPICS[topic]}</h3>\n" + "\n".join(entry(number, question) for number, question in group)
            for topic, group in groups.items()
        )

    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>KTO from Scratch: interview sheet</title>
<style>{SHEET_CSS}</style>
</head>
<body>
<h1>KTO from Scratch: interview sheet</h1>
<p>Candidate ______________________ &nbsp; Interviewer ______________________ &nbsp; Date ______________</p>
<p>{len(questions)} questions; the numbers lead to the answers in the second part. Ask, wait, then ask on. Marks: 0 for
a red flag or no answer, 1 for the short answer, 2 for the short answer with its reason or its limit.</p>
<section id="questions">
<h2>Questions</h2>
{section(_asked)}
</section>
<section id="answers">
<h2>Answers</h2>
<div class="columns">
{section(_answered)}
</div>
</section>
</body>
</html>
"""


# ------------------------------------------------------------------------------------------------ the formula card


def _rounded(svg: bytes) -> bytes:
    """The drawing without the last digits of its coordinates, in which processors may differ."""
    return re.sub(rb"(\.\d)\d+", rb"\1", svg)


def formula_card_files() -> dict[str, bytes]:
    """figures/formula_card in three formats with its alt text; no dates in them, so the same card has the same bytes.

    PDF and PNG carry a digest of the drawing: they are in step with it if it is the drawing's own.
    """
    fig = formula_card.draw()

    def saved(kind: str, **options) -> bytes:
        file = io.BytesIO()
        fig.savefig(file, format=kind, **options)
        return file.getvalue()

    with mpl.rc_context({"svg.hashsalt": "formula card"}):
        svg = saved("svg", metadata={"Date": None, "Creator": None, "Title": "KTO from Scratch: the formulas"})
    digest = hashlib.sha256(_rounded(svg)).hexdigest()
    pdf = saved("pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None, "Keywords": digest,
                                 "Title": "KTO from Scratch: the formulas"})  # fmt: skip
    png = saved("png", dpi=130, metadata={"Software": None, "Description": formula_card.ALT, "Comment": digest})
    alt = (formula_card.ALT + "\n").encode()
    return {f"figures/formula_card.{kind}": data for kind, data in
            (("svg", svg), ("pdf", pdf), ("png", png), ("txt", alt))}  # fmt: skip


# ----------------------------------------------------------------------------------------------------- all of them


def products() -> dict[str, bytes]:
    """Every product: path below the course's folder -> content."""
    sources = sorted((NOTEBOOKS / "src").glob("[0-9][0-9]_*.py"))
    quizzes = {source.stem: quiz_json(of_lesson(source.stem[:2])) for source in sources}
    folder = "notebooks/handouts"
    made = {f"{folder}/quiz/{stem}.json": text.encode() for stem, text in quizzes.items() if json.loads(text)}
    made[f"{folder}/kto_from_scratch.apkg"] = anki_deck(bank())
    made[f"{folder}/interview_sheet.html"] = interview_sheet(bank()).encode()
    return made | formula_card_files()


def same(name: str, stored: bytes, made: bytes) -> bool:
    """Whether a stored product says what the freshly made one says."""
    kind = Path(name).suffix
    if kind == ".apkg":
        return anki_content(stored) == anki_content(made)
    if kind == ".svg":
        return _rounded(stored) == _rounded(made)
    if kind in (".pdf", ".png"):
        return re.findall(rb"[0-9a-f]{64}", stored) == re.findall(rb"[0-9a-f]{64}", made)
    return stored == made


def out_of_date(root: Path = ROOT) -> list[str]:
    """Paths of the products below `root` that do not match the bank, and of quizzes that belong to no lesson."""
    made = products()
    stale = [name for name, data in made.items()
             if not (root / name).exists() or not same(name, (root / name).read_bytes(), data)]  # fmt: skip
    built = (path.relative_to(root).as_posix() for path in root.glob("notebooks/handouts/quiz/*.json"))
    return stale + [f"{name} (has no questions)" for name in sorted(built) if name not in made]


def write(root: Path = ROOT) -> list[str]:
    """Writes the products that are out of date below `root`, and returns their paths."""
    made, written = products(), []
    for path in root.glob("notebooks/handouts/quiz/*.json"):
        if path.relative_to(root).as_posix() not in made:
            path.unlink()
    for name, data in made.items():
        path = root / name
        if not path.exists() or not same(name, path.read_bytes(), data):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            written.append(name)
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description="Build quizzes, deck, sheet and formula card.")
    parser.add_argument("--check", action="store_true", help="name what is out of date, write nothing")
    if parser.parse_args().check:
        stale = out_of_date()
        print("\n".join(f"out of date: {name}" for name in stale) or "everything is in step")
        return int(bool(stale))
    print("\n".join(f"{name}: written" for name in write()) or "everything is in step")
    return 0


if __name__ == "__main__":
    sys.exit(main())
