"""The question bank: reads `questions.yaml` and refuses entries that break its schema.

Every quiz, card and sheet of the course is made from this one file; lesson 13 draws its questions from it. The order
of the file is the order of importance: the core questions first, details last.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

QUESTIONS_FILE = Path(__file__).parent / "questions.yaml"
SCHEMA_FILE = QUESTIONS_FILE.with_name("questions.schema.json")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where PyYAML was built with libyaml


class QuestionError(ValueError):
    """Entries that break the schema; the message has one line per problem, each with the question's id."""


@dataclass(frozen=True)
class FollowUp:
    """What an interviewer asks next."""

    question: str
    answer: str


@dataclass(frozen=True)
class RedFlag:
    """A wrong answer that is often heard.

    Fields:
        said: the wrong answer.
        why: why it is wrong.
    """

    said: str
    why: str


@dataclass(frozen=True)
class Number:
    """Where a number in an answer comes from: exactly one of `expr` and `cite` is set.

    Fields:
        shown: the number as it stands in the text, such as "0.561875".
        expr: a Python expression that rounds to it.
        cite: where it was read; "example" for a setting that was chosen for the example.
    """

    shown: str
    expr: str | None = None
    cite: str | None = None


@dataclass(frozen=True)
class Question:
    """One entry of the bank. Texts are markdown with $math$; a single line break in them is only a wrapped line.

    Fields:
        id: unique, snake_case.
        topic: one of the schema's fourteen.
        lesson, section: where the answer is derived; two digits, and the text of a `## ` heading.
        difficulty: 1 to 3.
        core: hardly any interview leaves it out; asked first, and printed on the core sheet.
        detail: nice to know; asked last.
        kind: "open", "choice", "number", "code" (write some) or "spot" (find the fault in some).
        question: what is asked.
        choices: for "choice", else empty.
        answer: for "choice" the index of the right choice, for "number" the number, else None.
        short, long: the answer in 30 seconds and in 3 minutes.
        follow_ups: two.
        red_flags: at least one.
        source: paper version and section, library version, or the lesson that computes it.
        faults: which of the 51 faults of popular material it corrects (tests/data/faults.yaml).
        listed: its number among the 42 questions the bank began with; None for the others.
        numbers: where the numbers of the answers come from; for "number" the first one is the answer.
    """

    id: str
    topic: str
    lesson: str
    section: str
    difficulty: int
    kind: str
    question: str
    short: str
    long: str
    follow_ups: tuple[FollowUp, ...]
    red_flags: tuple[RedFlag, ...]
    source: str
    faults: tuple[int, ...]
    numbers: tuple[Number, ...]
    choices: tuple[str, ...] = ()
    answer: int | float | None = None
    listed: int | None = None
    core: bool = False
    detail: bool = False


def schema() -> dict:
    """The JSON schema of one entry."""
    return json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))


def _name(entry: object, number: int) -> str:
    identity = entry.get("id") if isinstance(entry, dict) else None
    return f"question {identity!r}" if identity else f"entry {number} (no id)"


def _problems(entries: Sequence[object]) -> list[str]:
    validator = Draft202012Validator(schema())
    found, first_with = [], {}
    for number, entry in enumerate(entries, start=1):
        name = _name(entry, number)
        errors = sorted(validator.iter_errors(entry), key=lambda error: list(map(str, error.absolute_path)))
        for error in errors:
            place = ".".join(map(str, error.absolute_path)) or "entry"
            if error.validator is None:  # the schema's `false`, whose own message names neither field nor reason
                place = "choices" if error.instance == entry.get("choices") else "answer"
                found.append(f"{name}: {place}: a question of kind {entry['kind']} has none")
            else:
                found.append(f"{name}: {place}: {error.message}")
        if errors:
            continue
        if entry["kind"] == "choice" and entry["answer"] >= len(entry["choices"]):
            found.append(f"{name}: answer is {entry['answer']}; choices are numbered 0 to {len(entry['choices']) - 1}")
        if entry["kind"] == "number":
            first = entry["numbers"][0]["shown"] if entry["numbers"] else None
            if first is None or float(first.replace(",", "")) != entry["answer"]:
                found.append(f"{name}: answer is {entry['answer']}, but the first of numbers is {first}; put it first")
        for field in ("id", "listed"):
            if field in entry:
                other = first_with.setdefault((field, entry[field]), number)
                if other != number:
                    found.append(f"{name}: {field} {entry[field]!r} is taken by entry {other}; it must be unique")
    return found


def checked(entries: Sequence[dict]) -> list[Question]:
    """Entries as they stand in the file, validated and typed.

    Raises:
        QuestionError: an entry breaks the schema, an index points past the choices, an id or `listed` occurs twice.
    """
    problems = _problems(entries)
    if problems:
        raise QuestionError("\n".join(problems))
    questions = []
    for entry in entries:
        typed = dict(entry)
        typed["follow_ups"] = tuple(FollowUp(**follow_up) for follow_up in entry["follow_ups"])
        typed["red_flags"] = tuple(RedFlag(**red_flag) for red_flag in entry["red_flags"])
        typed["numbers"] = tuple(Number(**number) for number in entry["numbers"])
        typed["faults"], typed["choices"] = tuple(entry["faults"]), tuple(entry.get("choices", ()))
        questions.append(Question(**typed))
    return questions


def load_questions(file: Path | str = QUESTIONS_FILE) -> list[Question]:
    """All questions of the bank, in the file's order.

    Raises:
        QuestionError: the file is no YAML list, or as `checked`.
    """
    try:
        entries = yaml.load(Path(file).read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise QuestionError(f"{Path(file).name} is no YAML: {error}") from error
    if not isinstance(entries, list):
        raise QuestionError(f"{Path(file).name} holds a {type(entries).__name__}; it must be a list of questions")
    return checked(entries)
