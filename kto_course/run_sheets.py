"""The run sheets: notebooks/run_sheets.md from run_sheets.md (the words) and run_sheets.yaml (plan) beside this file.

A plan names parts of lessons as a teacher would: "06 + 6.1, 6.2", "02 to *Nobody looks ahead*", "07 from *Read the
rewards*", "task B (10)". Their minutes are counted as the README's are.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import nbformat

from kto_course.slides.plan import lecture, stored_plan
from kto_course.times import times_of

PAGE = Path(__file__).with_suffix(".md")
VOTE, TALK = 3, 5  # minutes at a lesson's beginning and at its end
PART = re.compile(r"(\d\d)(?: from \*(?P<first>[^*]+)\*)?(?: to \*(?P<last>[^*]+)\*)?(?: \+ (?P<tasks>.+))?")
TASK = re.compile(r"\d{1,2}\.\d")


@lru_cache
def parts_of(lesson: str) -> list[tuple[str, list]]:
    """(title of a section without its number, its cells) of a lesson in order; what stands before has the title ""."""
    from kto_course import build  # the build makes this page: an import at the top would go round

    (source,) = build.SOURCES.glob(f"{lesson}_*.py")
    parts: list[tuple[str, list]] = [("", [])]
    for cell in build.read_source(source, None).cells:
        prose = cell.cell_type == "markdown"
        for text in re.split(r"^(?=## )", cell.source, flags=re.M) if prose else [cell.source]:
            if prose and (heading := re.match(r"## (?:\d+\. )?(.+)", text)):
                parts.append((heading[1], []))
            parts[-1][1].append(nbformat.from_dict({"cell_type": cell.cell_type, "source": text}))
    return parts


def place(lesson: str, title: str) -> int:
    found = [i for i, (name, _) in enumerate(parts_of(lesson)) if title and name.startswith(title)]
    if len(found) != 1:
        raise ValueError(f"run_sheets.yaml: {len(found)} sections of {lesson} begin with {title!r}; expected one")
    return found[0]


def exercise_minutes(task: str) -> int:
    """What exercise 6.1 states."""
    text = "\n".join(cell.source for _, cells in parts_of(f"{int(task.split('.')[0]):02}") for cell in cells)
    stated = re.search(rf"^### Exercise {re.escape(task)} · .+\n[★☆]{{3}} · (\d+) minutes", text, flags=re.M)
    if stated is None:
        raise ValueError(f"run_sheets.yaml: there is no exercise {task}")
    return int(stated[1])


def minutes(part: str, in_class: bool = True) -> int:
    """Of a part of a lesson with exercises, of exercises alone, or as it says itself: "task B (10)".

    In class a lesson has a vote at its beginning and a talk at its end.

    Raises:
        ValueError: a section or exercise that does not exist, or a part without minutes.
    """
    if stated := re.search(r"\((\d+)\)$", part):
        return int(stated[1])
    if found := PART.fullmatch(part):
        lesson, sections = found[1], parts_of(found[1])
        first = place(lesson, found["first"]) if found["first"] else 0
        last = place(lesson, found["last"]) if found["last"] else len(sections) - 1
        cells = [cell for _, some in sections[first : last + 1] for cell in some]
        spoken = VOTE * (first == 0) + TALK * (last == len(sections) - 1)
        tasks = sum(map(exercise_minutes, tasks_of(found["tasks"] or "")))
        return times_of(cells, None).read + in_class * spoken + tasks
    if tasks := tasks_of(part):
        return sum(map(exercise_minutes, tasks))
    raise ValueError(f"run_sheets.yaml: how long is {part!r}? Expected a lesson, exercises, or minutes in brackets")


def tasks_of(text: str) -> list[str]:
    """The exercises that "2.1 to 2.3" or "3.2, 4.1" name."""

    def each(span: re.Match) -> str:
        return ", ".join(f"{span[1]}.{n}" for n in range(int(span[2]), int(span[3]) + 1))

    return TASK.findall(re.sub(r"(\d+)\.(\d) to \1\.(\d)", each, text))


def timed(parts: list[str], in_class: bool = True) -> tuple[str, int]:
    """Parts with their minutes, and the sum."""
    lengths = [minutes(part, in_class) for part in parts]
    shown = (part if part.endswith(")") else f"{part} ({n})" for part, n in zip(parts, lengths, strict=True))
    return "; ".join(shown), sum(lengths)


def clock(total: int) -> str:
    return f"{total // 60}:{total % 60:02}"


def table(*rows: tuple) -> str:
    head, *rest = ("| " + " | ".join(map(str, row)) + " |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *rest])


def talk() -> str:
    rows, now = [("clock", "min", "slide", "say", "ask, and expect", "type")], 0
    for number, show in enumerate(lecture().shows, start=1):
        title = f"{number}{'*' * show.spare} · {show.slide or lecture().title}".replace("*", r"\*")
        asked = " ".join(text for text in (show.ask, show.expect and f"**Expect** {show.expect}") if text)
        rows.append((clock(now), show.minutes, title, show.say, asked, show.type))
        now += show.minutes
    return table(*rows)


def lab() -> str:
    rows, now = [("clock", "min", "they do", "you say")], 0
    for length, what, say in stored_plan()["lab"]:
        rows.append((clock(now), length, what, say))
        now += length
    return table(*rows)


def sessions() -> str:
    rows = [("session", "in class", "sum", "at home, before the next one", "sum")]
    for number, session in enumerate(stored_plan()["sessions"], start=1):
        rows.append((number, *timed(session["in_class"]), *timed(session["at_home"], in_class=False)))
    return table(*rows)


def day() -> str:
    return table(("from", "in class", "sum"), *((begins, *timed(parts)) for begins, parts in stored_plan()["day"]))


def day_sum() -> int:
    return sum(timed(parts)[1] for _, parts in stored_plan()["day"])


def short_talk() -> str:
    """The slides of a talk of 45 minutes, by number, with their minutes."""
    numbers, shows = stored_plan()["short_talk"], lecture().shows
    named = ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
    return f"{named} of the talk ({sum(shows[number - 1].minutes for number in numbers)} minutes)"


def run_sheets() -> str:
    """The page."""
    made: dict[str, Callable[[], object]] = {
        "talk": talk, "lab": lab, "sessions": sessions, "day": day, "day sum": day_sum,
        "starred": lambda: sum(show.minutes for show in lecture().shows if show.spare), "short talk": short_talk,
    }  # fmt: skip

    def filled(found: re.Match) -> str:
        name = found[1]
        return str(minutes(name.removeprefix("minutes ")) if name.startswith("minutes ") else made[name]())

    return re.sub(r"\{\{([^}]+)\}\}", filled, PAGE.read_text(encoding="utf-8"))
