"""The core sheet: the questions that hardly any interview leaves out, with their short answers, on two pages."""

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from kto_course.handouts.formula_card import A4
from kto_course.handouts.wording import one_line
from kto_course.questions import Question
from kto_utils.plotting import NEUTRAL, STYLE_FILE

TITLE = "KTO from Scratch: the core questions"
NOTE = (
    "Cover the answers, say yours aloud in half a minute, then look. In grey: what is often said, and wrong. Reasons, "
    "follow-ups and all other questions: interview_sheet.html."
)
PAGES, COLUMNS = 2, 2
MARGIN, GAP = 0.42, 0.28  # inches: to the paper's edge, between columns
SIZE, LEADING, BETWEEN = 8.8, 11.4, 6.5  # points: letters, from line to line, between two questions
TOP = 54.0  # points for title and note on the first page
COLUMN = ((A4[0] - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS) * 72  # points


@dataclass(frozen=True)
class Line:
    """A line of the sheet. `x` and `y` in points from the upper left corner of its page, `y` of the baseline."""

    page: int
    x: float
    y: float
    text: str
    style: str  # one of STYLES


STYLES = {
    "title": {"fontsize": 15, "fontweight": "bold"},
    "note": {"fontsize": SIZE, "color": NEUTRAL},
    "question": {"fontsize": SIZE, "fontweight": "bold"},
    "answer": {"fontsize": SIZE},
    "wrong": {"fontsize": SIZE, "color": NEUTRAL},
    "asked": {"fontsize": 10.5, "fontweight": "bold"},
    "choice": {"fontsize": 10},
}


def width(text: str, style: str) -> float:
    """Of a line, in points."""
    look = STYLES[style]
    font = FontProperties(size=look["fontsize"], weight=look.get("fontweight", "normal"))
    return TextToPath().get_text_width_height_descent(text, font, ismath="$" in text)[0]


def wrapped(text: str, style: str, room: float = COLUMN) -> list[str]:
    """The text in lines that fit; a formula is never broken. Marks of code and stress are left out."""
    words = re.findall(r"(?:\$[^$]+\$|[^\s$])+", re.sub(r"[`*]", "", one_line(text)))
    lines, line = [], words[0]
    for word in words[1:]:
        if width(f"{line} {word}", style) <= room:
            line += f" {word}"
        else:
            lines.append(line)
            line = word
    return [*lines, line]


def laid_out(questions: Sequence[Question]) -> list[Line]:
    """Every line of the sheet at its place, column by column.

    Raises:
        ValueError: the questions need more than two pages.
    """
    left = MARGIN * 72
    lines = [Line(0, left, left + 12, TITLE, "title")]
    for number, text in enumerate(wrapped(NOTE, "note", COLUMNS * COLUMN + GAP * 72)):
        lines.append(Line(0, left, left + 27 + number * LEADING, text, "note"))
    bottom = A4[1] * 72 - left
    place, y = 0, left + TOP
    for number, question in enumerate(questions, start=1):
        parts = [
            ("question", f"{number}  {question.question}"),
            ("answer", question.short),
            ("wrong", f"“{question.red_flags[0].said}”"),
        ]
        entry = [(style, line) for style, text in parts for line in wrapped(text, style)]
        if y + (len(entry) - 1) * LEADING > bottom:
            place += 1
            y = left + (TOP if place < COLUMNS else 0.0)
        if place == PAGES * COLUMNS:
            raise ValueError(f"the core sheet has two pages; question {number} of {len(questions)} no longer fits")
        page, column = divmod(place, COLUMNS)
        x = left + column * (COLUMN + GAP * 72)
        for style, line in entry:
            lines.append(Line(page, x, y + SIZE, line, style))
            y += LEADING
        y += BETWEEN
    return lines


def _drawn(lines: Sequence[Line]) -> Figure:
    page = Figure(figsize=A4)
    for line in lines:
        x, y = line.x / (A4[0] * 72), 1 - line.y / (A4[1] * 72)
        page.text(x, y, line.text, va="baseline", **STYLES[line.style])
    return page


def core_sheet(questions: Sequence[Question]) -> bytes:
    return printed(laid_out(questions), TITLE, PAGES)


def printed(lines: Sequence[Line], title: str, n_pages: int) -> bytes:
    """Lines as a PDF without dates; it carries a digest of its lines, by which it is known to be in step."""
    said = "\n".join(f"{line.page} {line.x:.1f} {line.y:.1f} {line.style} {line.text}" for line in lines)
    about = {"Title": title, "Keywords": hashlib.sha256(said.encode()).hexdigest(), "CreationDate": None,
             "Creator": None, "Producer": None}  # fmt: skip
    file = io.BytesIO()
    with mpl.style.context(["default", STYLE_FILE]), mpl.rc_context({"figure.constrained_layout.use": False}):
        pages = [_drawn([line for line in lines if line.page == page]) for page in range(n_pages)]
        with PdfPages(file, metadata=about) as pdf:
            for page in pages:
                pdf.savefig(page, bbox_inches=None)
    return file.getvalue()
