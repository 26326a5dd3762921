"""Checks every row of a file of thumbs: what is wrong, where, what is left. Behind `loading.load_feedback`; lesson 11.

One kind for each row, so that the sums are right: rows read = rows kept + rows reported. Torch is not needed here.
"""

import base64
import hashlib
import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kto_lab.records import Fault, Record, Unreadable, format_of, read_records

FIELDS = ("prompt", "completion", "label")
TEXTS = FIELDS[:2]

# What can be wrong with a row of a file, in the order in which it is looked for. A row is reported under one kind.
KINDS = {
    "not_utf8": "bytes that are no UTF-8",
    "too_long": "a record of more than 16 MiB, or a file without line ends",
    "cut_off": "the file ends in the middle of this line",
    "blank_line": "a line without a record",
    "malformed": "no JSON, JSON nested more than 100 deep, or no CSV",
    "field_twice": "one object with the same field twice",
    "not_an_object": "JSON, but no object",
    "field_count": "more or fewer cells than the header has",
    "missing_prompt": "no prompt, or null",
    "prompt_not_text": "a prompt that is no string",
    "empty_prompt": "a prompt without a visible character",
    "missing_completion": "no completion, or null",
    "completion_not_text": "a completion that is no string",
    "empty_completion": "a completion without a visible character",
    "missing_label": "no label, null, or an empty cell",
    "label_not_boolean": "a label that is no boolean and not in the mapping",
    "lone_surrogate": "half of a character, which no text can hold",
    "cut_to_nothing": "no token of the completion is left after truncation",
    "replacement_character": "the sign U+FFFD: somebody lost bytes before you",
    "duplicate": "all fields as in an earlier row",
    "opposite_labels": "the same prompt and completion, up here and down there",
}
ACCEPTABLE = ("replacement_character", "duplicate", "opposite_labels")  # suspicious, but a row can be made of them
_CODES = {kind: code for code, kind in enumerate(KINDS, start=1)}  # 0 is a good row


@dataclass(frozen=True)
class FeedbackReport:
    """What `load_feedback` found. Rows are counted from 1, without a CSV's header; a JSONL row is a line.

    rejected, accepted: kind -> the numbers of all such rows, ascending. Every row that was read is kept or rejected,
    under one kind: rows = kept + sum(counts.values()). Accepted rows are kept.
    """

    name: str
    rows: int
    desirable: int
    undesirable: int
    rejected: dict[str, list[int]]
    accepted: dict[str, list[int]] = field(default_factory=dict)
    side_file: Path | None = None

    @property
    def kept(self) -> int:
        return self.desirable + self.undesirable

    @property
    def counts(self) -> dict[str, int]:
        """How many rows of each kind were rejected."""
        return {kind: len(numbers) for kind, numbers in self.rejected.items()}

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {self.rows:,} rows, {self.rows - self.kept:,} rejected, {self.kept:,} kept "
            f"({self.desirable:,} up, {self.undesirable:,} down)"
        ]
        for title, kinds in (("rejected", self.rejected), ("kept, as you asked", self.accepted)):
            if kinds:
                lines += ["", f"{title:<22} {'rows':>9}   which"]
            for kind, numbers in kinds.items():
                which = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
                lines.append(f"{kind:<22} {len(numbers):>9,}   {which}")
        return "\n".join(lines)


class FeedbackError(ValueError):
    """A file with rows that cannot be used, under strict=True. `report` names all of them."""

    def __init__(self, report: FeedbackReport):
        super().__init__(
            f"{report}\n\nNothing was loaded. Mend these rows, or pass strict=False to keep the others and write these "
            "to a side file"
        )
        self.report = report


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
        for value, label in labels.items():
            if not isinstance(label, bool) or isinstance(value, bool):
                raise TypeError(f"labels maps {value!r} to {label!r}; it must map a value that is no bool to a bool")
        if not self.is_csv:
            return dict(labels)
        words = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
        return words | {str(value): label for value, label in labels.items()}  # a CSV holds nothing but text

    def __call__(self, record: Record) -> dict | Fault:
        if record.fault is not None:
            return record.fault
        fields = record.fields
        row = {}
        for field_name in TEXTS:
            text = fields.get(self.names[field_name])
            if text is None:
                return Fault(f"missing_{field_name}", f"there is no {self.names[field_name]!r}, or it is null")
            if not isinstance(text, str):
                hint = "; put chat messages into the template first" if isinstance(text, list) else ""
                return Fault(f"{field_name}_not_text", f"the {field_name} is a {type(text).__name__}, no string{hint}")
            if not text.strip():
                return Fault(f"empty_{field_name}", f"the {field_name} has no visible character")
            row[field_name] = text
        label = fields.get(self.names["label"])
        if label is None or (self.is_csv and label == ""):
            return Fault("missing_label", f"there is no {self.names['label']!r}, or it is empty")
        row["label"] = self._label(label)
        if row["label"] is None:
            known = ", ".join(["true, false", *map(repr, self.mapped)])
            hint = "" if self.mapped else "; say with labels={...} what others mean"
            return Fault("label_not_boolean", f"the label is {str(label)[:60]!r}; known are {known}{hint}")
        others = {name: value for name, value in fields.items() if name not in self.taken}
        return self._text_fault(row) or row | others

    def _label(self, label: object) -> bool | None:
        if isinstance(label, bool):
            return label
        return self.labels.get(label) if isinstance(label, (str, int, float)) else None

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


class _Repeats:
    """Finds exact duplicates and opposite labels from 33 bytes a row: digests, never the texts."""

    def __init__(self):
        self.numbers, self.texts, self.others, self.labels = bytearray(), bytearray(), bytearray(), bytearray()

    def add(self, number: int, row: Mapping) -> None:
        prompt = row["prompt"].encode("utf-8")
        text = b"%d:%b%b" % (len(prompt), prompt, row["completion"].encode("utf-8"))
        self.numbers += number.to_bytes(8, "little")
        self.texts += hashlib.blake2b(text, digest_size=16).digest()
        self.labels.append(row["label"])
        if len(row) == 3:
            self.others += bytes(8)
        else:
            rest = repr(sorted(item for item in row.items() if item[0] not in FIELDS))
            self.others += hashlib.blake2b(rest.encode("utf-8", "surrogatepass"), digest_size=8).digest()

    def find(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Kind -> (numbers of its rows, ascending; for each the number of a row that it repeats or contradicts)."""
        numbers = np.frombuffer(self.numbers, "<u8").astype(np.int64)
        text_a, text_b = np.frombuffer(self.texts, "<u8").reshape(-1, 2).T
        others, labels = np.frombuffer(self.others, "<u8"), np.frombuffer(self.labels, np.uint8)
        order = np.lexsort((others, labels, text_b, text_a))  # stable: the first of equals is the first of the file
        numbers, labels = numbers[order], labels[order]
        new_text = _changes(text_a[order]) | _changes(text_b[order])
        new_row = new_text | _changes(labels) | _changes(others[order])
        first_alike = np.maximum.accumulate(np.where(new_row, np.arange(len(numbers)), 0))

        starts = np.flatnonzero(new_text)
        ends = np.append(starts, len(numbers))[1:] - 1
        group = np.cumsum(new_text) - 1
        both = (labels[starts] != labels[ends])[group]  # labels are sorted inside a text: first down, then up
        opposite = np.where(labels == 1, starts[group], ends[group])
        found = {"duplicate": (~new_row, first_alike), "opposite_labels": (both, opposite)}
        return {kind: _by_number(numbers[rows], numbers[partner[rows]]) for kind, (rows, partner) in found.items()}


def _by_number(numbers: np.ndarray, partners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(numbers)
    return numbers[order], partners[order]


def _changes(column: np.ndarray) -> np.ndarray:
    """True where an entry differs from the one before it, and at the first."""
    return np.append(np.ones(min(1, len(column)), dtype=bool), column[1:] != column[:-1])


class Feedback:
    """The good rows of a file, one after the other, as often as you like: each pass reads the file again.

    A row is a dict with `prompt`, `completion`, `label` (bool) and the record's other fields under their own names, a
    label's column of another name among them. `list(feedback)` holds all of them in memory; `len(feedback)` is
    report.kept.
    """

    def __init__(self, path: Path, check: RowCheck, report: FeedbackReport, kept: np.ndarray, state: tuple):
        self.path, self.report = path, report
        self._check, self._kept, self._state = check, kept, state

    def __len__(self) -> int:
        return self.report.kept

    def __iter__(self) -> Iterator[dict]:
        for record, kept in zip(_read_again(self.path, self._check, self._state, "rows"), self._kept, strict=True):
            if kept:
                yield self._check(record)


def _state_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _read_again(path: Path, check: RowCheck, state: tuple, description: str) -> Iterator[Record]:
    if _state_of(path) != state:
        raise ValueError(f"{path.name} has changed since it was checked; call load_feedback again")
    return read_records(path, list(check.names.values()), description)


def _plain(value: object) -> object:
    """A value of a Parquet file as JSON can hold it."""
    if isinstance(value, Unreadable):
        return _plain(value.raw)
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    plain = isinstance(value, (str, int)) or value is None or (isinstance(value, float) and math.isfinite(value))
    return value if plain else str(value)


def _side_entry(number: int, record: Record, fault: Fault) -> dict:
    entry = {"row": number, "kind": fault.kind, "reason": fault.reason}
    if record.line is None:
        return entry | {"record": _plain(record.fields)}
    entry |= {"line": record.line, "at_byte": record.at_byte, "n_bytes": record.size}
    if record.raw is None:  # too long to hold: where it stands in the file must do
        return entry
    try:
        return entry | {"raw": record.raw.decode("utf-8")}
    except UnicodeDecodeError:
        return entry | {"raw_base64": base64.b64encode(record.raw).decode("ascii")}


def _write_side_file(side_file: Path, records: Iterable[Record], codes: np.ndarray, check: RowCheck, partners) -> None:
    """All or nothing: a temporary name first, so that a kill leaves no half of a side file."""
    kinds = list(KINDS)
    temporary = side_file.with_name(side_file.name + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        for number, (record, code) in enumerate(zip(records, codes.tolist(), strict=True), start=1):
            if not code:
                continue
            kind = kinds[code - 1]
            if kind in partners:
                numbers, others = partners[kind]
                other = others[np.searchsorted(numbers, number)]
                fault = Fault(kind, f"{'as' if kind == 'duplicate' else 'the opposite of'} row {other}")
            else:
                found = check(record)
                fault = found if isinstance(found, Fault) else check.suspicion(found)
            file.write(json.dumps(_side_entry(number, record, fault)) + "\n")
    os.replace(temporary, side_file)


def _codes_of(path: Path, check: RowCheck, state: tuple, accept: Collection[str]) -> tuple:
    """For each row the code of its kind (0: good) and its label, and for the repeats which row they repeat."""
    codes, labels, repeats = bytearray(), bytearray(), _Repeats()
    for number, record in enumerate(_read_again(path, check, state, "checking"), start=1):
        found = check(record)
        suspicion = found if isinstance(found, Fault) else check.suspicion(found)
        codes.append(_CODES[suspicion.kind] if suspicion else 0)
        labels.append(not isinstance(found, Fault) and found["label"])
        if suspicion is None or suspicion.kind in accept:
            repeats.add(number, found)
    codes, partners = np.frombuffer(codes, np.uint8).copy(), repeats.find()
    # A row may be both: what rejects it is what it is reported as.
    for kind in sorted(("opposite_labels", "duplicate"), key=lambda kind: kind not in accept):
        codes[partners[kind][0] - 1] = _CODES[kind]
    return codes, np.frombuffer(labels, np.uint8), partners


def checked(
    path: Path | str,
    check: RowCheck,
    accept: Collection[str],
    strict: bool,
    side_file: Path | str | None,
    overwrite: bool,
) -> Feedback:
    """Two or three passes over the file: find all faults; write the side file; the rows come when they are asked for.

    Arguments and errors as in `loading.load_feedback`.
    """
    path = Path(path)
    wrong = sorted(set(accept) - set(ACCEPTABLE))
    if wrong:
        raise ValueError(f"accept names {wrong[0]!r}; it may name {', '.join(ACCEPTABLE)}")
    side_file = Path(side_file) if side_file else path.with_name(path.name + ".rejected.jsonl")
    if not strict and side_file.exists():
        if side_file.resolve() == path.resolve():
            raise ValueError("side_file is the file that is read")
        if not overwrite:
            raise FileExistsError(f"{side_file} exists; move it away, name another side_file, or pass overwrite=True")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")

    state = _state_of(path)
    codes, labels_of_rows, partners = _codes_of(path, check, state, accept)
    waved = [_CODES[kind] for kind in accept]
    kept = (codes == 0) | np.isin(codes, waved)
    by_kind = {kind: (np.flatnonzero(codes == code) + 1).tolist() for kind, code in _CODES.items()}
    found = {kind: numbers for kind, numbers in by_kind.items() if numbers}
    up = int((labels_of_rows[kept] == 1).sum())
    report = FeedbackReport(
        name=path.name,
        rows=len(codes),
        desirable=up,
        undesirable=int(kept.sum()) - up,
        rejected={kind: numbers for kind, numbers in found.items() if kind not in accept},
        accepted={kind: numbers for kind, numbers in found.items() if kind in accept},
        side_file=None if strict or kept.all() else side_file,
    )
    if strict and not kept.all():
        raise FeedbackError(report)
    if report.side_file:
        records = _read_again(path, check, state, "side file")
        _write_side_file(side_file, records, np.where(kept, 0, codes), check, partners)
    elif not strict and overwrite:
        side_file.unlink(missing_ok=True)
    return Feedback(path, check, report, kept, state)
