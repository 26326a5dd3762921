"""Decks as HTML files, and the long one as a PDF."""

import hashlib
import html
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kto_course import NOTEBOOKS, ROOT
from kto_course.handouts.wording import mathml, to_html
from kto_course.slides.pieces import LINK, VOTE, Slide, inline, marked, title_of
from kto_course.slides.plan import Show, lecture

FOLDER = "notebooks/slides"
LONG = "kto_in_90_minutes"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SHORT = 420  # letters on a slide without a figure that may be written larger
HERE = Path(__file__).parent


def lesson_sources() -> list[Path]:
    return sorted((NOTEBOOKS / "src").glob("[0-9][0-9]_*.py"))


def teaching_notes() -> dict[str, list[str]]:
    """Lesson -> the points of its entry in teaching.md, as markdown."""
    page = (NOTEBOOKS / "teaching.md").read_text(encoding="utf-8").split("\n## ")
    (entries,) = (part for part in page if part.startswith("Lesson by lesson"))
    found = {}
    for entry in entries.split("\n### ")[1:]:
        points = re.split(r"^- ", entry, flags=re.M)[1:]
        found[entry[:2]] = [" ".join(LINK.sub(r"\1", point).split()) for point in points]
    return found


def belongs(point: str, section: str) -> bool:
    """Whether a point of the teacher's page speaks of this section: the vote, or one that it names in italics."""
    if section == VOTE:
        return point.startswith("**Predict**")
    names = re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", point)
    return not point.startswith("**Predict**") and any(section.startswith(name) for name in names)


def notes_of(points: Sequence[str], heading: str = "") -> str:
    """Speaker's notes from points of the teacher's page, below what the plan says."""
    return to_html("\n".join([heading, "", *(f"- {point}" for point in points)]), mathml)


def slide_html(number: int, slide: Slide, notes: str) -> str:
    """A slide as HTML, with its notes, which only the speaker's window shows. The first one is the title's."""
    body, title = "\n".join(slide.parts), inline(slide.section)
    short = "<img" not in body and len(re.sub(r"<[^>]*>", "", body)) < SHORT
    shown = f"<h1>{title}</h1>\n{body}" if number == 1 else f'<h2>{title}</h2>\n<div class="body">\n{body}\n</div>'
    return f"""<section class="slide{" plain" if short else ""}" id="slide{number}">
{shown}
<footer><span>KTO from Scratch{f" · lesson {slide.lesson}" if slide.lesson else ""}</span><span>{number}</span></footer>
<aside class="notes">{notes}</aside>
</section>"""


def deck_html(title: str, slides: Sequence[tuple[Slide, str]]) -> str:
    """A whole deck from (slide, its notes); the first one is the title's."""
    pages = [slide_html(n, slide, notes) for n, (slide, notes) in enumerate(slides, start=1)]
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("deck.css", "deck.js"))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>
{style}</style>
</head>
<body>
{chr(10).join(pages)}
<script>
{script}</script>
</body>
</html>
"""


def lesson_deck(source: Path, points: Sequence[str]) -> str:
    """A lesson's own deck: title, vote, what is marked, recap; the teacher's points where they belong."""
    title, promise = title_of(source)
    slides = marked(source)
    placed = {slide.section: [point for point in points if belongs(point, slide.section)] for slide in slides}
    rest = [point for point in points if not any(point in some for some in placed.values())]
    opening = Slide(source.stem[:2], title, (f"<p>{inline(promise)}</p>",))
    return deck_html(title, [(opening, notes_of(rest)),
                             *((slide, notes_of(placed[slide.section])) for slide in slides)])  # fmt: skip


def found(shown: Show, slides: Sequence[Slide]) -> Slide:
    """The slide that a line of the plan names.

    Raises:
        ValueError: no slide of that lesson begins so, or several do.
    """
    fitting = [slide for slide in slides if slide.lesson == shown.lesson and slide.section.startswith(shown.section)]
    if len(fitting) != 1:
        raise ValueError(f"run_sheets.yaml: {len(fitting)} slides of lesson {shown.lesson} begin with "
                         f"{shown.section!r}; expected one")  # fmt: skip
    return fitting[0]


def long_deck(slides: Sequence[Slide], points: dict[str, list[str]]) -> str:
    """KTO in 90 minutes: the slides that the run sheet names, with its words and minutes as notes."""
    plan = lecture()
    pages, clock = [], 0
    for shown in plan.shows:
        heading = f"**Minute {clock} to {clock + shown.minutes}.** {shown.words()}"
        clock += shown.minutes
        if shown.section:
            slide = found(shown, slides)
            pages.append((slide, notes_of([p for p in points[slide.lesson] if belongs(p, slide.section)], heading)))
        else:
            pages.append((Slide("", plan.title, (f"<p>{inline(plan.promise)}</p>",)), notes_of([], heading)))
    return deck_html(plan.title, pages)


def deck_files() -> dict[str, bytes]:
    """Every deck: path below the course's folder -> content."""
    points, sources = teaching_notes(), lesson_sources()
    made = {f"{FOLDER}/{source.stem}.html": lesson_deck(source, points[source.stem[:2]]) for source in sources}
    made[f"{FOLDER}/{LONG}.html"] = long_deck([slide for source in sources for slide in marked(source)], points)
    return {path: text.encode() for path, text in made.items()}


def digest_of(deck: bytes) -> bytes:
    return hashlib.sha256(deck).hexdigest().encode()


def stale_pdf(root: Path = ROOT) -> list[str]:
    """The PDF's path below `root`, if it was not printed from the long deck that lies there."""
    deck = root / FOLDER / f"{LONG}.html"
    pdf = deck.with_suffix(".pdf")
    printed = pdf.exists() and deck.exists() and pdf.read_bytes().endswith(b"% deck " + digest_of(deck.read_bytes()))
    return [] if printed else [f"{FOLDER}/{pdf.name}"]


def print_pdf(root: Path = ROOT) -> list[str]:
    """Prints the long deck beside itself if that is due, and returns its path; needs Chromium or Chrome.

    The file ends in a comment with the digest of the deck that it was printed from.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    stale = stale_pdf(root)
    if not stale or browser is None:
        return []
    deck = root / FOLDER / f"{LONG}.html"
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder) / "deck.pdf"
        subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile",
                        "--no-pdf-header-footer", f"--print-to-pdf={printed}", deck.resolve().as_uri()],
                       check=True, capture_output=True)  # fmt: skip
        (root / stale[0]).write_bytes(printed.read_bytes() + b"% deck " + digest_of(deck.read_bytes()))
    return stale
