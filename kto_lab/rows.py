"""The checks that need one record alone: a record of a file becomes a row for KTO, or a fault. Lesson 11."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from kto_lab.records import Fault, Record, format_of
from kto_lab.report import FIELDS, NOT_THERE, TEXTS, listed

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

    def __call__(self, record: Record) -> dict | Fault:
        if record.fault is not None:
            return record.fault
        fields = record.fields
        row = {}
        for field_name in TEXTS:
            text = fields.get(self.names[field_name])
            if text is None:
                return self._missing(field_name, fields)
            if not isinstance(text, str):
                hint = "; put chat messages into the template first" if isinstance(text, list) else ""
                return Fault(f"{field_name}_not_text", f"the {field_name} is a {type(text).__name__}, no string{hint}")
            if not text.strip():
                return Fault(f"empty_{field_name}", f"the {field_name} has no visible character")
            row[field_name] = text
        label = fields.get(self.names["label"])
        if label is None or (self.is_csv and label == ""):
            return self._missing("label", fields)
        row["label"] = self._label(label)
        if row["label"] is None:
            known = ", ".join(["true, false", *map(repr, self.mapped)])
            value = label if isinstance(label, (str, int, float)) else str(label)
            return Fault("label_not_boolean", f"the label is {str(label)[:60]!r}; known are {known}", value)
        others = {name: value for name, value in fields.items() if name not in self.taken}
        return self._text_fault(row) or row | others

    def _missing(self, field_name: str, fields: Mapping) -> Fault:
        name = self.names[field_name]
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
            prompt_bytes = len(row["prompt"].encode("utf-8"))
            row["completion"].encode("utf-8")
        except UnicodeEncodeError as error:
            return Fault("lone_surrogate", f"U+{ord(error.object[error.start]):04X} stands without its other half")
        reason = self.cut_to_nothing and self.cut_to_nothing(row, prompt_bytes)
        return Fault("cut_to_nothing", reason) if reason else None

    def suspicion(self, row: Mapping) -> Fault | None:
        """A fault that `accept` can wave through."""
        if "\ufffd" in row["prompt"] or "\ufffd" in row["completion"]:
            return Fault("replacement_character", "U+FFFD stands where another program could not decode a byte")
        return None
