"""The teacher's pages: every section that they name exists in that lesson, their links lead somewhere, times add up."""

import re

import pytest

from kto_course import NOTEBOOKS, ROOT, build, run_sheets
from kto_course.handouts import products
from kto_course.slides.plan import stored_plan

PAGE, SHEETS, REUSE = ((NOTEBOOKS / f"{name}.md").read_text(encoding="utf-8")
                       for name in ("teaching", "run_sheets", "reuse"))  # fmt: skip
ITALIC = r"(?<!\*)\*[^*\n][^*]*\*(?!\*)"
# "08b *Clean pairs*, *Noise*" and "07 to *A loop*": a lesson, at most one word, section names in a row
EXPLICIT = re.compile(rf"\b(\d\db?):? (?:\w+ )?({ITALIC}(?:(?:,| and|, and| to) {ITALIC})*)")


def sections():
    """Lesson ("08", "08b") -> the titles of its sections, without their numbers."""
    found = {}
    for source in build.source_paths():
        titles = re.findall(r"^# #{2,3} (?:\d+\. )?(.+)$", source.read_text(encoding="utf-8"), flags=re.M)
        found[source.stem.split("_")[0]] = titles
    return found


def named(page):
    """(lesson, section) for each name in italics that follows a lesson's number or stands under its heading."""
    for part in re.split(r"^(?=##)", page, flags=re.M):
        text = re.sub(r"\s+", " ", part)
        for lesson, names in EXPLICIT.findall(text):
            yield from ((lesson, name.strip("*")) for name in re.findall(ITALIC, names))
        if heading := re.match(r"### (\d\d) ", text):
            rest = EXPLICIT.sub("", text)
            yield from ((heading[1], name.strip("*")) for name in re.findall(ITALIC, rest))


def missing(page):
    known = sections()
    return [(lesson, name) for lesson, name in named(page) if sum(t.startswith(name) for t in known[lesson]) != 1]


def test_every_section_that_the_pages_name_exists_once():
    assert len(list(named(PAGE))) > 60
    assert missing(PAGE) == []
    assert len(list(named(SHEETS))) >= 6
    assert missing(SHEETS) == []


def test_a_planted_wrong_name_is_noticed():
    planted = PAGE + "\n\n### 06 · The KTO loss\n\nShow *No such section*, then 08b *Nor this one*.\n"
    assert missing(planted) == [("08b", "Nor this one"), ("06", "No such section")]


@pytest.mark.parametrize("page", [PAGE, SHEETS, REUSE], ids=["teaching", "run_sheets", "reuse"])
def test_its_links_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", page) if ":" not in link]
    assert links
    assert [link for link in links if not (NOTEBOOKS / link).exists()] == []


# --------------------------------------------------------------------------------------------------- run sheets


def test_a_whole_lesson_takes_what_the_readme_says_and_eight_minutes():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d\d) .*?\| (\d+) min \| (\d+) min \|", readme, flags=re.M)
    assert len(rows) == 14
    for lesson, read, exercises in rows:
        assert run_sheets.minutes(lesson) == int(read) + 8
        text = "\n".join(cell.source for _, cells in run_sheets.parts_of(lesson) for cell in cells)
        tasks = re.findall(r"^### Exercise (\d+\.\d)", text, flags=re.M)
        assert sum(map(run_sheets.exercise_minutes, tasks)) == int(exercises)


def test_the_parts_of_a_lesson_are_about_as_long_as_the_whole():
    parts = [run_sheets.minutes("02 to *Nobody looks ahead*"), run_sheets.minutes("02 from *From logits to a reply*")]
    assert sum(parts) - run_sheets.minutes("02") in (0, 1)  # each part is rounded up
    assert run_sheets.minutes("02 to *Nobody looks ahead*", in_class=False) == parts[0] - 3
    assert run_sheets.minutes("2.1 to 2.3") == run_sheets.minutes("2.1, 2.2, 2.3") == 14
    assert run_sheets.minutes("task B (10)") == 10


@pytest.mark.parametrize(
    ("part", "message"),
    [("06 from *No such section*", "0 sections of 06 begin with 'No such section'"),
     ("06 + 6.9", "there is no exercise 6.9"), ("a walk", "how long is 'a walk'?")],
)  # fmt: skip
def test_a_part_that_cannot_be_timed_is_named(part, message):
    with pytest.raises(ValueError, match=message):
        run_sheets.minutes(part)


def test_talk_and_lab_take_ninety_minutes_and_a_session_no_more():
    assert sum(row[0] for row in stored_plan()["lab"]) == 90
    sums = [run_sheets.timed(session["in_class"])[1] for session in stored_plan()["sessions"]]
    assert len(sums) == 7
    assert max(sums) <= 92
    assert run_sheets.day_sum() <= 370


def test_no_exercise_of_the_main_line_to_08_is_forgotten_or_set_twice():
    plan = [part for session in stored_plan()["sessions"] for parts in session.values() for part in parts]
    tasks = [task for part in plan for task in run_sheets.tasks_of(part)]
    assert len(set(tasks)) == len(tasks)
    for lesson in range(10):
        text = "\n".join(cell.source for _, cells in run_sheets.parts_of(f"{lesson:02}") for cell in cells)
        assert set(re.findall(r"^### Exercise (\d+\.\d)", text, flags=re.M)) <= set(tasks), lesson


# -------------------------------------------------------------------------------------------------------- reuse


def test_everything_that_is_made_for_a_class_has_its_licence():
    text = (ROOT / "LICENSE-TEXT").read_text(encoding="utf-8")
    for name in products.products():
        folder, path = name.split("/")[0], name.removeprefix("notebooks/")
        covered = ("slides/", "handouts/", "../figures/", "run_sheets.md")
        assert any((path if folder == "notebooks" else f"../{name}").startswith(place) for place in covered), name
        assert any(f"]({place}" in REUSE and place.strip("./") in text for place in covered)
    for listed in (NOTEBOOKS / "handouts").iterdir():
        assert f"](handouts/{listed.name})" in REUSE, listed.name
