"""What a check of a file of thumbs has found, and what to do about it. Lesson 11."""

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

FIELDS = ("prompt", "completion", "label")
TEXTS = FIELDS[:2]
WHOLE = ("messages", "conversations")  # fields that hold a chat to its end
SIDES = ("chosen", "rejected")  # fields of a pair

# What can be wrong with a row of a file, in the order in which it is looked for, and how to mend it. A row is reported
# under one kind. {accept} stands for the option that accepts it.
REMEDIES = {
    "not_utf8": "Save it as UTF-8 where it comes from.",
    "too_long": "Give each record a line of its own; a record may have 16 MiB.",
    "cut_off": "Fetch the file again.",
    "blank_line": "Delete the line.",
    "malformed": "Let a library write the rows: json.dumps, csv.writer.",
    "field_twice": "Keep one of the two.",
    "not_an_object": "Write one object {{...}} a line.",
    "field_count": "Put a cell with a comma or a line break in it between quotes.",
    "missing_prompt": "",
    "prompt_not_text": "Write a text, or a list of messages.",
    "empty_prompt": "Leave the row out, or find its question.",
    "missing_completion": "",
    "completion_not_text": "Write a text, or a list of messages.",
    "empty_completion": "Leave the row out: there is no reply to learn from.",
    "messages_as_text": "Write the list of messages itself, in JSONL or Parquet; a CSV holds no lists.",
    "mixed_forms": "Write all of a row as texts, or all as messages.",
    "message_malformed": "Write each turn as {{\"role\": ..., \"content\": ...}}.",
    "unknown_role": "Name it as the others are named.",
    "empty_turn": "Leave the row out, or find what was said.",
    "last_not_assistant": "A thumb belongs to a reply: end the chat with the one that was rated.",
    "several_turns": "Move the earlier turns into the prompt.",
    "no_common_prompt": "Give the question a field of its own, prompt, and each side its reply.",
    "equal_sides": "Leave the pair out.",
    "missing_label": "Leave unrated rows out: not rated is no thumb down.",
    "label_not_boolean": "",
    "lone_surrogate": "Cut texts between characters, not inside one.",
    "cut_to_nothing": "Allow more tokens, or shorten the prompt.",
    "other_form": "Give chats and texts a file each: trainers take one form at a time.",
    "replacement_character": "Another program lost bytes: mend the text at its source, or accept it ({accept}).",
    "role_order": "Mend the order; if your model's template takes it, accept it ({accept}).",
    "duplicate": "Keep one; if several people voted, accept them ({accept}).",
    "opposite_labels": "Decide which is right; if several people voted, accept them ({accept}) and settle the votes.",
}
KINDS = tuple(REMEDIES)
NOT_THERE = "there is no "  # so begins the reason where a field is missing and another may be meant
# Suspicious, but a row can be made of them.
ACCEPTABLE = ("replacement_character", "role_order", "duplicate", "opposite_labels")

SHOWN = 6  # different labels
USUAL_LABELS = {
    **dict.fromkeys(("1", "1.0", "+1", "true", "up", "yes", "good", "like", "liked", "thumbs_up", "positive", "y", "t",
                     "thumbs up", "\U0001f44d", "desirable"), True),
    **dict.fromkeys(("0", "0.0", "-1", "-1.0", "false", "down", "no", "bad", "dislike", "disliked", "thumbs_down",
                     "negative", "n", "f", "thumbs down", "\U0001f44e", "undesirable"), False),
}  # fmt: skip
USUAL_NAMES = {
    "prompt": ("prompt", "question", "query", "instruction", "input", "request", "user_message"),
    "completion": ("completion", "answer", "response", "reply", "output", "generation", "assistant_message"),
    "label": ("label", "thumb", "thumbs", "thumbs_up", "kto_tag", "vote", "feedback", "rating", "stars", "score"),
}  # fmt: skip


def listed(names: Iterable[str]) -> str:
    """Names of fields as a sentence can hold them."""
    names = list(names)
    shown = ", ".join(repr(str(name)[:40]) for name in names[:12])
    return (shown or "none") + f" and {len(names) - 12} more" * (len(names) > 12)


def columns_advice(names: Iterable[str], columns: Mapping[str, str], terminal: bool, wrong: str | None = None) -> str:
    """The option that says which field is which; where a name is a usual one, it is proposed.

    Args:
        names: the fields that were found.
        columns: under which name each of FIELDS was looked for.
        terminal: write the option as a command line has it.
        wrong: the one of FIELDS that was found under its name, but cannot be what is meant.
    """
    names = [str(name) for name in names]
    by_name = {name.strip().casefold(): name for name in names}
    meant, known = {}, {*WHOLE, *SIDES} & set(names)
    for wanted, usual in USUAL_NAMES.items():
        if known and wanted != "label":  # the chat or the pair is there
            continue
        meant[wanted] = columns.get(wanted, wanted)
        if meant[wanted] not in names or wanted == wrong:
            found = (by_name[name] for name in usual if name in by_name and name != wrong)
            meant[wanted] = next(found, "NAME")
    proposed = {wanted: name for wanted, name in meant.items() if name != wanted}
    pairs = ",".join(f"{wanted}={name}" for wanted, name in proposed.items())
    if any(character in pairs for character in " \"'$"):
        pairs = f'"{pairs}"'
    return f"If another field is meant, name it: {f'--columns {pairs}' if terminal else f'columns={proposed}'}"


def labels_advice(labels: Mapping[object, int], terminal: bool) -> str:
    """Which labels have no meaning yet, and the option that gives them one. What they mean is not guessed."""
    most = sorted(labels.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{str(value)[:20]!r} ({count:,})" for value, count in most[:SHOWN])
    more = f" and {len(most) - SHOWN:,} others" * (len(most) > SHOWN)
    meanings = {value: USUAL_LABELS.get(str(value).strip().lower()) for value in labels}
    words = {str(value).strip() for value in labels}
    doubtful = {"0", "0.0"} & words and {"-1", "-1.0"} & words
    usual = {value: up for value, up in meanings.items() if up is not None}
    scale = any(re.fullmatch(r"[-+]?\d+(\.\d+)?", word) for word in words)  # on a scale to 5, 1 is no thumb up
    known = not doubtful and (len(usual) == len(labels) or (len({*usual.values()}) == 2 and not scale))
    if known and len(usual) < len(labels):
        rest = listed(value for value in labels if value not in usual)
        more += f"; no usual meaning has {rest}: leave those rows out"
    meanings = usual
    if terminal:
        pairs = ",".join(f"{value}={str(up).lower()}" for value, up in meanings.items()) if known else ""
        pairs = f'"{pairs}"' if " " in pairs else pairs
        option = f"--labels {pairs or 'VALUE=true,VALUE=false'}"
    else:
        option = f"labels={meanings if known else '{VALUE: True, VALUE: False}'}"
    return f"Labels without a meaning: {shown}{more}. Say what they mean, as in {option}"


def _wrapped(text: str) -> list[str]:
    """Lines for a terminal; an option that is to be copied stays in one piece."""
    whole = re.sub(r"(--\w+ |\w+=[{\[]).*?(?=[).]?$)", lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(whole, 110, initial_indent="    ", subsequent_indent="    ", break_long_words=False,
                          break_on_hyphens=False)  # fmt: skip
    return [line.replace("\0", " ") for line in lines]


@dataclass(frozen=True)
class FeedbackReport:
    """What `load_feedback` found. Rows are counted from 1, without a CSV's header; a JSONL row is a line.

    rejected, accepted: kind -> the numbers of all such rows, ascending. Every row that was read is kept or rejected,
    under one kind: rows = kept + sum(counts.values()). Accepted rows are kept.
    reasons: kind -> what is wrong with the first row of that kind. fields: of the first object. columns: under which
    name each of FIELDS was looked for. labels: those that are no booleans, with their counts (the first 1,000 different
    ones). pairs: kept rows that are pairs, each of which gives two thumbs. chats: kept rows that are chats; systems,
    several: those with a system prompt, with more than one question.
    """

    name: str
    rows: int
    desirable: int
    undesirable: int
    rejected: dict[str, list[int]]
    accepted: dict[str, list[int]] = field(default_factory=dict)
    side_file: Path | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    pairs: int = 0
    chats: int = 0
    systems: int = 0
    several: int = 0
    labels: dict[object, int] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        return self.desirable + self.undesirable - self.pairs

    @property
    def counts(self) -> dict[str, int]:
        """How many rows of each kind were rejected."""
        return {kind: len(numbers) for kind, numbers in self.rejected.items()}

    def __str__(self) -> str:
        return self.text(terminal=False)

    def text(self, terminal: bool) -> str:
        """The table, with a reason and a remedy for each kind; terminal: name options as a command line has them."""
        if not self.rows:
            return f"{self.name}: the file holds no row"
        lines = [
            f"{self.name}: {self.rows:,} rows, {self.rows - self.kept:,} rejected, {self.kept:,} kept "
            f"({self.desirable:,} up, {self.undesirable:,} down)"
        ]
        if self.pairs:
            lines.append(f"{self.pairs:,} of these rows are pairs: the chosen reply is a thumb up, the other one down")
        if self.chats:
            lines.append(
                f"{self.chats:,} of these rows are chats, {self.systems:,} with a system prompt, {self.several:,} with "
                "more than one question"
            )
        for title, kinds in (("rejected", self.rejected), ("kept, as you asked", self.accepted)):
            if kinds:
                lines += ["", f"{title:<22} {'rows':>9}   which"]
            for kind, numbers in kinds.items():
                which = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
                lines.append(f"{kind:<22} {len(numbers):>9,}   {which}")
                if kinds is self.rejected:
                    lines += self._explained(kind, terminal)
        return "\n".join(lines)

    def _is_chat_or_pair(self) -> bool:
        return not {*WHOLE, *SIDES}.isdisjoint(self.fields)

    def _explained(self, kind: str, terminal: bool) -> list[str]:
        numbers = self.rejected[kind]
        accept = f"--accept {kind}" if terminal else f"accept=[{kind!r}]"
        remedy = REMEDIES[kind].format(accept=accept)
        wrong = next((name for name in TEXTS if name in kind), None)
        alike = len(numbers) == self.rows > 1
        which = f"every row fails alike; row {numbers[0]}" if alike else f"row {numbers[0]}"
        reason = f"{which}: {self.reasons[kind]}."
        if alike and self.fields and not kind.startswith("missing_"):
            reason += f" The fields found are {listed(self.fields)}."
        option = ""
        if kind == "label_not_boolean":
            option = labels_advice(self.labels, terminal)
        elif self.reasons[kind].startswith(NOT_THERE) and (kind == "missing_label" or not self._is_chat_or_pair()):
            option = columns_advice(self.fields, self.columns, terminal)
        elif self.reasons[kind].startswith(NOT_THERE):
            option = f"Other rows have {listed(name for name in self.fields if name in (*WHOLE, *SIDES))}."
        elif alike and wrong:
            option = columns_advice(self.fields, self.columns, terminal, wrong)
        return [*_wrapped(f"{reason} {remedy}".rstrip()), *_wrapped(option)]


class FeedbackError(ValueError):
    """A file with rows that cannot be used, or without any, under strict=True. `report` names all of them."""

    def __init__(self, report: FeedbackReport):
        advice = "Mend these rows, or pass strict=False to keep the others and write these to a side file"
        super().__init__(f"{report}\n\nNothing was loaded. {advice}" if report.rows else str(report))
        self.report = report
