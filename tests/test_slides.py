"""Slides: in step with the lessons and the plan, quiet on the network, and in a browser whole and readable."""

import re
import shutil

import pytest
from playwright.sync_api import sync_playwright

from kto_course import NOTEBOOKS, ROOT
from kto_course.slides import deck, pieces, plan

BROWSER = next(filter(None, map(shutil.which, deck.BROWSERS)), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(deck.BROWSERS)} is there")
FOLDER = ROOT / deck.FOLDER
LONG = FOLDER / f"{deck.LONG}.html"
DECKS = sorted(FOLDER.glob("*.html"))
each_deck = pytest.mark.parametrize("path", DECKS, ids=lambda path: path.stem)
SMALLEST = {True: 20, False: 15}  # pixels of 720 that letters have at least: in the talk, in a lesson's own deck

# What the viewer of the slide that is shown would miss; empty if all is well.
FAULTS = """smallest => {
    const slide = document.querySelector(".slide.now"), faults = [];
    const body = slide.querySelector(".body") ?? slide, foot = slide.querySelector("footer");
    for (const part of slide.querySelectorAll("h1, h2, p, ul, ol, li, table, pre, img, math, td")) {
        if (part.closest(".notes")) continue;
        const box = part.getBoundingClientRect(), name = part.tagName + " " + part.textContent.slice(0, 30);
        if (box.width === 0 || box.height === 0) faults.push("is not shown: " + name);
        if (box.left < 20 || box.right > 1260 || box.top < 10 || box.bottom > foot.getBoundingClientRect().top)
            faults.push("is cut off or covers the foot: " + name);
        if (part.scrollWidth > part.clientWidth + 1 && part.tagName === "PRE") faults.push("is too wide: " + name);
        if (part.tagName === "IMG" && !(part.naturalWidth > 0 && box.height > 250)) faults.push("small picture");
        if (part.tagName === "math" && !part.querySelector("mi, mn, mtext")) faults.push("empty formula");
        if (parseFloat(getComputedStyle(part).fontSize) < smallest) faults.push("small letters: " + name);
    }
    if (body.scrollHeight > body.clientHeight + 1) faults.push("more than fits");
    const seen = slide.innerText.replace(slide.querySelector(".notes").innerText, "");
    if (/\\$|\\\\[a-z]+|\\{\\{|\\]\\(/.test(seen)) faults.push("raw text: " + seen);
    return faults;
}"""


# ---------------------------------------------------------------------------------------------------- in step


def test_the_stored_decks_are_those_of_the_lessons():
    made = deck.deck_files()
    assert {path.name for path in DECKS} == {name.split("/")[-1] for name in made}
    assert [name for name, data in made.items() if (ROOT / name).read_bytes() != data] == []


def test_the_pdf_was_printed_from_the_stored_deck_and_has_a_page_for_each_slide():
    pdf, page = LONG.with_suffix(".pdf").read_bytes(), LONG.read_bytes()
    assert deck.stale_pdf() == []
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == page.count(b"<section")
    assert len(pdf) < 2_000_000


def test_a_changed_deck_makes_the_pdf_stale(tmp_path):
    folder = tmp_path / deck.FOLDER
    shutil.copytree(FOLDER, folder)
    assert deck.stale_pdf(tmp_path) == []
    (folder / LONG.name).write_text("another", encoding="utf-8")
    assert deck.stale_pdf(tmp_path) == ["notebooks/slides/kto_in_90_minutes.pdf"]


def test_a_changed_lesson_changes_its_deck(tmp_path):
    source = NOTEBOOKS / "src" / "06_kto_loss.py"
    changed = tmp_path / source.name
    text = source.read_text(encoding="utf-8")
    assert "The label picks the branch, not the sign" in text
    changed.write_text(text.replace("The label picks the branch, not", "One label picks the branch, not"),
                       encoding="utf-8")  # fmt: skip
    with pytest.raises(ValueError, match=r"06_kto_loss.py: 0 sentences begin with slide='The label picks'"):
        pieces.marked(changed)
    changed.write_text(text.replace("the branch, not the sign of", "the curve, not the sign of"), encoding="utf-8")
    assert pieces.marked(changed) != pieces.marked(source)


@pytest.mark.parametrize(
    ("wish", "message"),
    [("figure", "shows no such thing"), ("text 7:9", "shows no such thing"), ("picture", "expected figure, text")],
)
def test_a_wish_that_a_cell_cannot_fulfil_is_named(wish, message):
    cell = next(cell for cell in pieces.nbformat.read(NOTEBOOKS / "05_get_probs.ipynb", 4).cells if cell.get("outputs"))
    with pytest.raises(ValueError, match=message):
        pieces.output_parts(cell, wish)


def test_a_printed_table_keeps_its_empty_cells():
    lines = ["first          one       two", "a b           0.50          ", "c                      0.25"]
    assert pieces.columns(lines, "") == [["first", "one", "two"], ["a b", "0.50", ""], ["c", "", "0.25"]]
    assert pieces.columns(lines, "8+10") == pieces.columns(lines, "")


# ------------------------------------------------------------------------------------------------- the long deck


def test_the_talk_takes_ninety_minutes_on_18_to_24_slides():
    shows = plan.lecture().shows
    assert sum(show.minutes for show in shows) == 90
    assert 18 <= len(shows) <= 24
    assert all(show.say for show in shows)


def test_the_talk_has_both_sigmoids_the_row_table_and_the_core_table():
    page = LONG.read_text(encoding="utf-8")
    for title, part in (("The label picks the branch", "<img"), ("Row by row", "<table"), ("The table", "<table")):
        (slide,) = (s for s in page.split("<section")[1:] if f"<h2>{title}</h2>" in s)
        assert part in slide


def test_a_line_of_the_plan_without_slide_is_named():
    with pytest.raises(ValueError, match="0 slides of lesson 06 begin with 'No such slide'"):
        deck.found(plan.Show(minutes=1, slide="06 No such slide"), pieces.marked(NOTEBOOKS / "src" / "06_kto_loss.py"))


def test_speaker_notes_carry_minutes_questions_and_the_teachers_page():
    page = LONG.read_text(encoding="utf-8")
    notes = re.findall(r'<aside class="notes">(.*?)</aside>', page, flags=re.S)
    shows = plan.lecture().shows
    clock = 0
    for note, show in zip(notes, shows, strict=True):
        assert f"Minute {clock} to {clock + show.minutes}." in note
        assert ("Ask:" in note) == bool(show.ask)
        assert ("Expect:" in note) == bool(show.expect)
        clock += show.minutes
    (rows,) = (note for note in notes if "the line with Rome" in note)
    assert "pocket calculator" in rows
    assert sum("A class gets wrong" in note for note in notes) >= 5


@each_deck
def test_every_point_of_the_teachers_page_is_in_its_lessons_deck(path):
    if path == LONG:
        return
    page = path.read_text(encoding="utf-8")
    points = deck.teaching_notes()[path.stem[:2]]
    assert points
    assert all(pieces.to_html(f"- {point}", pieces.mathml).splitlines()[1] in page for point in points)
    assert 5 <= page.count("<section") <= 10


# ------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A projector of 1280 x 720, and what was asked for and went wrong on it."""
    page = chromium.new_page(viewport={"width": 1280, "height": 720})
    page.asked, page.errors = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    page.close()


@each_deck
def test_no_deck_names_another_host(path):
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"""(?:src|href|action)\s*=\s*["'](?!data:)[^"']*|url\([^)]*|@import[^;]*""", text) == []
    assert "fetch(" not in text
    assert text.count('alt=""') == 0


@needs_browser
@each_deck
def test_every_slide_is_whole_and_readable_and_nothing_is_asked_for(path, page):
    page.goto(path.as_uri())
    count = page.locator(".slide").count()
    faults = {}
    for number in range(1, count + 1):
        assert page.locator(".slide.now footer span").last.inner_text() == str(number)
        if found := page.evaluate(FAULTS, SMALLEST[path == LONG]):
            faults[number] = found
        page.keyboard.press("ArrowRight")
    assert faults == {}
    assert [url for url in page.asked if not url.startswith(("data:", path.as_uri()))] == []
    assert page.errors == []


@needs_browser
def test_in_print_every_slide_fills_a_page(page):
    page.set_viewport_size({"width": 700, "height": 500})  # on such a screen a slide is scaled down
    page.goto(LONG.as_uri())
    boxes = "[...document.querySelectorAll('.slide')].map(slide => slide.getBoundingClientRect().toJSON())"
    assert [box["width"] for box in page.evaluate(boxes) if box["width"]] == [700]
    page.emulate_media(media="print")
    assert [(box["x"], box["width"], box["height"]) for box in page.evaluate(boxes)] == [(0, 1280, 720)] * 24


@needs_browser
def test_formulas_are_whole_on_a_machine_without_a_font_for_mathematics(page, tmp_path):
    text = LONG.read_text(encoding="utf-8")
    other = tmp_path / "deck.html"
    other.write_text(re.sub(r"math \{ font-family: [^;]*;", 'math { font-family: "Liberation Serif", serif;', text),
                     encoding="utf-8")  # fmt: skip
    page.goto(other.as_uri() + "#14")
    assert "unstretched" in page.evaluate("document.documentElement.className")
    brace = "[...document.querySelectorAll('.now mo')].find(sign => sign.textContent === '{').getBoundingClientRect()"
    rows = "document.querySelector('.now mtable').getBoundingClientRect()"
    assert page.evaluate(f"{brace}.height") > 0.8 * page.evaluate(f"{rows}.height")
    for number in (13, 14, 21):
        page.goto(other.as_uri() + f"#{number}")
        assert page.evaluate(FAULTS, 20) == []


@needs_browser
def test_the_check_sees_what_is_cut_off_raw_or_small(page):
    page.goto(LONG.as_uri() + "#3")
    assert page.evaluate(FAULTS, 20) == []
    for planted, fault in (
        ("<p style='position: absolute; top: 690px'>low</p>", "cut off"), ("<p>$r$</p>", "raw text"),
        ("<p style='font-size: 9px'>tiny</p>", "small letters"), ("<img src='data:,'>", "small picture"),
        ("<math></math>", "empty formula"), ("<div style='flex: none; height: 800px'></div>", "more than fits"),
    ):  # fmt: skip
        page.evaluate("html => document.querySelector('.now .body').insertAdjacentHTML('beforeend', html)", planted)
        assert any(fault in line for line in page.evaluate(FAULTS, 20)), fault
        page.evaluate("() => document.querySelector('.now .body').lastElementChild.remove()")


@needs_browser
def test_keys_overview_and_the_speakers_window(page):
    page.goto(LONG.as_uri())
    for key, number in (("End", "24"), ("Home", "1"), (" ", "2"), ("ArrowLeft", "1"), ("PageDown", "2")):
        page.keyboard.press(key)
        assert page.locator(".slide.now footer span").last.inner_text() == number
    with page.expect_popup() as opened:
        page.keyboard.press("s")
    speaker = opened.value
    assert "Everybody writes two numbers" in speaker.locator("#notes").inner_text()
    assert "One thumb is enough" in speaker.locator("#next").inner_text()
    speaker.keyboard.press("ArrowRight")
    assert page.locator(".slide.now h2").inner_text() == "One thumb is enough"
    assert "2 of" not in speaker.locator("#place").inner_text()
    page.keyboard.press("o")
    page.locator("#slide6").click()
    assert page.locator(".slide.now h2").inner_text().startswith("You feel the distance")
