"""The Anki deck: the bank's questions as cards for spaced repetition."""

import io
import sqlite3
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import genanki

from kto_course.handouts.wording import (
    brackets,
    choice_list,
    follow_up_list,
    red_flag_list,
    right_answer,
    to_html,
    to_inline_html,
)
from kto_course.questions import Question

# Chosen once, never changed: Anki knows deck, cards and notes by them, and keeps a learner's progress.
DECK_ID, MODEL_ID, MADE_AT = 1706918400, 1706918401, 1706918400
FIELDS = ("Question", "Choices", "Short", "Long", "FollowUps", "RedFlags", "Source", "Lesson", "Id")
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
        tags += ["core"] * question.core
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
