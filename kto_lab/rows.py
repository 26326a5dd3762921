"""The checks that need one record alone: a record of a file becomes a row for KTO, or a fault. Lesson 11."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from kto_lab.layouts import (
    OTHER_LABEL,
    is_printed_chat,
    label_field,
    layout_of,
    missing_field,
    order_fault,
    pair,
    texts_in,
    thumb,
    whole_chat,
)
from kto_lab.records import Fault, Record, format_of
from kto_lab.report import FIELDS, NOT_THERE, SIDES, TEXTS, WHOLE, listed

KEYS = ("prompt", "completion", *SIDES)  # what is said
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


class RowCheck:
    """The checks that need one record alone: a record becomes a row, or a fault."""

    def __init__(
        self,
        path: Path | str,
        labels: Mapping | None = None,
        columns: Mapping[str, str] | None = None,
        cut_to_nothing: Callable[[Mapping, int], str | None] | None = None,
    ):
        """cut_to_nothing(row, bytes of its prompt) says why truncation leaves nothing of a row, or None."""
        columns = columns or {}
        unknown = sorted(set(columns) - set(FIELDS))
        if unknown:
            raise ValueError(f"columns names {unknown[0]!r}; its keys may be {', '.join(FIELDS)}")
        self.names = {name: columns.get(name, name) for name in FIELDS}
        if len(set(self.names.values())) < len(FIELDS):
            raise ValueError(f"columns takes two fields from one column: {self.names}")
        self.taken = {*FIELDS, self.names["prompt"], self.names["completion"]}
        self.is_csv, self.cut_to_nothing = format_of(path) == ".csv", cut_to_nothing
        self.mapped = list(labels or {})
        self.labels = self._mapping(labels or {})

    def _mapping(self, labels: Mapping) -> dict:
        plain = {}
        for value, label in labels.items():
            if not isinstance(label, (bool, np.bool_)) or isinstance(value, (bool, np.bool_)):
                raise TypeError(f"labels maps {value!r} to {label!r}; it must map a value that is no bool to a bool")
            plain[value.item() if isinstance(value, np.generic) else value] = bool(label)
        if not self.is_csv:
            return plain
        words = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
        return words | plain | {str(value): label for value, label in plain.items()}  # a CSV holds nothing but text

    def missing_column(self, names: Sequence[str]) -> str | None:
        """For a table: the first column that is needed and not there."""
        return missing_field(names, self.names)

    def __call__(self, record: Record) -> dict | Fault:
        """A row with prompt, completion and label, or prompt, chosen and rejected, and the record's other fields."""
        if record.fault is not None:
            return record.fault
        fields = record.fields
        layout = layout_of(fields, self.names)
        row = {"thumbs": self._thumb, "pairs": self._pair, "whole": whole_chat}[layout](fields)
        if isinstance(row, Fault) or (fault := self._content_fault(row)):
            return row if isinstance(row, Fault) else fault
        label_name = label_field(fields, self.names)
        if layout != "pairs":
            label = fields.get(label_name)
            if label is None or (self.is_csv and label == ""):
                return self._missing("label", fields)
            row["label"] = self._label(label)
            if row["label"] is None:
                known = ", ".join(["true, false", *map(repr, self.mapped)])
                value = label if isinstance(label, (str, int, float)) else str(label)
                return Fault("label_not_boolean", f"the label is {str(label)[:60]!r}; known are {known}", value)
        # A label's column of another name stays: it says more than the thumb that was made of it.
        taken = self.taken | {"thumbs": set(), "pairs": {*SIDES, *WHOLE, "system"}, "whole": {*WHOLE, "system"}}[layout]
        others = {name: value for name, value in fields.items() if name not in taken and name != OTHER_LABEL}
        return self._text_fault(row) or row | others

    def _thumb(self, fields: Mapping) -> dict | Fault:
        values = {}
        for field_name in TEXTS:
            value = values[field_name] = fields.get(self.names[field_name])
            if value is None:
                return self._missing(field_name, fields)
            if not isinstance(value, (str, list, dict)):
                shown = type(value).__name__
                return Fault(f"{field_name}_not_text", f"the {field_name} is a value of the type {shown}")
        if all(isinstance(value, str) for value in values.values()):
            return values
        return thumb(**values)

    def _pair(self, fields: Mapping) -> dict | Fault:
        row = pair(fields, self.names)
        if not isinstance(row, Fault) and row["chosen"] == row["rejected"]:
            return Fault("equal_sides", "chosen and rejected are equal: one reply, up and down")
        return row

    def _content_fault(self, row: Mapping) -> Fault | None:
        for name, value in row.items():
            field_name = name if name == "prompt" else "completion"
            if isinstance(value, str):
                if not value.strip():
                    return Fault(f"empty_{field_name}", f"the {name} has no visible character")
                if is_printed_chat(value):
                    return Fault("messages_as_text", f"the {name} is the text of a list of messages")
        if not isinstance(row["prompt"], str) and not any(m["role"] in ("user", "tool") for m in row["prompt"]):
            return Fault("empty_prompt", "no turn of the user stands before the reply")
        return None

    def _missing(self, field_name: str, fields: Mapping) -> Fault:
        name = label_field(fields, self.names) if field_name == "label" else self.names[field_name]
        if name in fields:
            return Fault(f"missing_{field_name}", f"{name!r} is {'null' if fields[name] is None else 'empty'}")
        return Fault(f"missing_{field_name}", f"{NOT_THERE}{name!r}; the fields are {listed(fields)}")

    def _label(self, label: object) -> bool | None:
        if isinstance(label, bool):
            return label
        if not isinstance(label, (str, int, float)):
            return None
        found = self.labels.get(label)
        if found is None and self.is_csv and _NUMBER.fullmatch(label):
            return self.labels.get(float(label))  # 1.0 is the number 1: pandas writes it so beside empty cells
        return found

    def _text_fault(self, row: Mapping) -> Fault | None:
        try:
            encoded = {name: key_of(row[name]) for name in KEYS if name in row}
        except UnicodeEncodeError as error:
            return Fault("lone_surrogate", f"U+{ord(error.object[error.start]):04X} stands without its other half")
        reason = self.cut_to_nothing and self.cut_to_nothing(row, len(encoded["prompt"]))
        return Fault("cut_to_nothing", reason) if reason else None

    def suspicion(self, row: Mapping) -> Fault | None:
        """A fault that `accept` can wave through."""
        if any("\ufffd" in text for name in KEYS if name in row for text in texts_in(row[name])):
            return Fault("replacement_character", "U+FFFD stands where another program could not decode a byte")
        return None if isinstance(row["prompt"], str) else order_fault(row["prompt"])


def key_of(value: str | Sequence[Mapping]) -> bytes:
    """A text's bytes, or those of a chat: equal for equal ones, and no text has those of a chat.

    Raises:
        UnicodeEncodeError: half of a character.
    """
    if isinstance(value, str):
        return value.encode("utf-8")
    return b"\0" + json.dumps(value, ensure_ascii=False, sort_keys=True, default=str).encode("utf-8")
