"""The teacher's page: every section that it names exists in that lesson, and its links lead somewhere."""

import re

from kto_course import NOTEBOOKS, build

PAGE = (NOTEBOOKS / "teaching.md").read_text(encoding="utf-8")
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


def test_every_section_that_the_page_names_exists_once():
    assert len(list(named(PAGE))) > 80
    assert missing(PAGE) == []


def test_a_planted_wrong_name_is_noticed():
    planted = PAGE + "\n\n### 06 · The KTO loss\n\nShow *No such section*, then 08b *Nor this one*.\n"
    assert missing(planted) == [("08b", "Nor this one"), ("06", "No such section")]


def test_its_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", PAGE) if ":" not in link]
    assert links
    assert [link for link in links if not (NOTEBOOKS / link).exists()] == []
