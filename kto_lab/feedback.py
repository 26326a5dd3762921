"""Checks every row of a file of thumbs: what is wrong, where, what is left. Behind `loading.load_feedback`; lesson 11.

One kind for each row, so that the sums are right: rows read = rows kept + rows reported. Torch is not needed here.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kto_lab.plain import write_jsonl
from kto_lab.records import Fault, Record, Unreadable, read_records
from kto_lab.report import ACCEPTABLE, FIELDS, KINDS, SIDES, FeedbackError, FeedbackReport
from kto_lab.rows import RowCheck, key_of

_CODES = {kind: code for code, kind in enumerate(KINDS, start=1)}  # 0 is a good row
CHAT, SYSTEM, SEVERAL, PAIR = 1, 2, 4, 8  # what a row is
OTHER_FORM = "most other rows of the file are of the other form, chat or text"
MAX_LABELS = 1_000  # different ones that are counted


class _Repeats:
    """Finds exact duplicates and opposite labels from 33 bytes a row: digests, never the texts."""

    def __init__(self):
        self.numbers, self.texts, self.others, self.labels = bytearray(), bytearray(), bytearray(), bytearray()

    def add(self, number: int, row: Mapping) -> None:
        prompt, label = key_of(row["prompt"]), row.get("label")
        if label is None:  # the opposite of a pair is the same two replies, chosen the other way round
            one, other = sorted(key_of(row[side]) for side in SIDES)
            text, label = b"%d:%b%d:%b%b" % (len(prompt), prompt, len(one), one, other), key_of(row["chosen"]) == one
        else:
            text = b"%d:%b%b" % (len(prompt), prompt, key_of(row["completion"]))
        self.numbers += number.to_bytes(8, "little")
        self.texts += hashlib.blake2b(text, digest_size=16).digest()
        self.labels.append(label)
        if len(row) == 3:
            self.others += bytes(8)
        else:
            rest = repr(sorted(item for item in row.items() if item[0] not in (*FIELDS, *SIDES)))
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


def thumbs_of(row: Mapping) -> list[dict]:
    """A thumb as it is, a pair as two."""
    if "label" in row:
        return [dict(row)]
    others = {name: value for name, value in row.items() if name not in ("prompt", *SIDES)}
    return [{"prompt": row["prompt"], "completion": row[side], "label": side == "chosen", **others} for side in SIDES]


class Feedback:
    """The thumbs of a file's good rows, one after the other, as often as you like: each pass reads the file again.

    A thumb is a dict with `prompt`, `completion`, `label` (bool) and the record's other fields under their own names, a
    label's column of another name among them. prompt and completion are texts, or lists of messages with role and
    content, whatever the file's layout (`kto_lab.layouts`). A pair gives two thumbs, first the one up. `list(feedback)`
    holds all of them in memory; `len(feedback)` counts them.
    """

    def __init__(self, path: Path, check: RowCheck, report: FeedbackReport, kept: np.ndarray, state: tuple):
        self.path, self.report = path, report
        self._check, self._kept, self._state = check, kept, state

    def __len__(self) -> int:
        return self.report.desirable + self.report.undesirable

    def __iter__(self) -> Iterator[dict]:
        return (thumb for _, thumb in self.numbered())

    def numbered(self) -> Iterator[tuple[int, dict]]:
        """The thumbs with the numbers of their rows in the file."""
        records = _read_again(self.path, self._check, self._state, "rows")
        for number, (record, kept) in enumerate(zip(records, self._kept, strict=True), start=1):
            if kept:
                yield from ((number, thumb) for thumb in thumbs_of(self._check(record)))


def _state_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _read_again(path: Path, check: RowCheck, state: tuple, description: str) -> Iterator[Record]:
    if _state_of(path) != state:
        raise ValueError(f"{path.name} has changed since it was checked; call load_feedback again")
    return read_records(path, check.missing_column, description)


def _side_entry(number: int, record: Record, fault: Fault) -> dict:
    entry = {"row": number, "kind": fault.kind, "reason": fault.reason}
    if record.line is None:
        values = {name: v.raw if isinstance(v, Unreadable) else v for name, v in record.fields.items()}
        return entry | {"record": values}
    entry |= {"line": record.line, "at_byte": record.at_byte, "n_bytes": record.size}
    if record.raw is None:  # too long to hold: where it stands in the file must do
        return entry
    try:
        return entry | {"raw": record.raw.decode("utf-8")}
    except UnicodeDecodeError:
        return entry | {"raw_base64": base64.b64encode(record.raw).decode("ascii")}


def _side_entries(records: Iterable[Record], codes: np.ndarray, check: RowCheck, partners: Mapping) -> Iterator[dict]:
    """What the side file says of each row with a code."""
    kinds = list(KINDS)
    for number, (record, code) in enumerate(zip(records, codes.tolist(), strict=True), start=1):
        if not code:
            continue
        kind = kinds[code - 1]
        if kind == "other_form":
            fault = Fault(kind, OTHER_FORM)
        elif kind in partners:
            numbers, others = partners[kind]
            fault = Fault(kind, _reason_of_repeat(kind, others[np.searchsorted(numbers, number)]))
        else:
            found = check(record)
            fault = found if isinstance(found, Fault) else check.suspicion(found)
        yield _side_entry(number, record, fault)


@dataclass
class _Found:
    """What one pass over the file found: for each row the code of its kind (0: good) and its label."""

    codes: np.ndarray | bytearray = field(default_factory=bytearray)
    labels: np.ndarray | bytearray = field(default_factory=bytearray)
    forms: np.ndarray | bytearray = field(default_factory=bytearray)  # sums of CHAT, SYSTEM, SEVERAL, PAIR
    partners: dict = field(default_factory=dict)  # of repeats: which row they repeat
    reasons: dict[str, str] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    unknown: Counter = field(default_factory=Counter)  # labels without a meaning


def _form_of(row: Mapping) -> int:
    if isinstance(row["prompt"], str):
        return 0 if "label" in row else PAIR
    roles = [message["role"] for message in row["prompt"]]
    form = CHAT + SYSTEM * (roles[0] in ("system", "developer")) + SEVERAL * (roles.count("user") > 1)
    return form if "label" in row else form + PAIR


def _reason_of_repeat(kind: str, other: int) -> str:
    return f"{'the same as' if kind == 'duplicate' else 'the opposite of'} row {other}"


def _find(path: Path, check: RowCheck, state: tuple, accept: Collection[str]) -> _Found:
    """Checks every row, and sorts out what repeats or contradicts another."""
    all_of, repeats = _Found(), _Repeats()
    for number, record in enumerate(_read_again(path, check, state, "checking"), start=1):
        found = check(record)
        suspicion = found if isinstance(found, Fault) else check.suspicion(found)
        all_of.codes.append(_CODES[suspicion.kind] if suspicion else 0)
        all_of.labels.append(not isinstance(found, Fault) and found.get("label", True))
        all_of.forms.append(0 if isinstance(found, Fault) else _form_of(found))
        all_of.fields = all_of.fields or tuple(record.fields or ())
        if suspicion is not None:
            all_of.reasons.setdefault(*suspicion[:2])
            if suspicion.kind == "label_not_boolean" and (
                suspicion.value in all_of.unknown or len(all_of.unknown) < MAX_LABELS
            ):
                all_of.unknown[suspicion.value] += 1
        if suspicion is None or suspicion.kind in accept:
            repeats.add(number, found)
    codes, all_of.partners = np.frombuffer(all_of.codes, np.uint8).copy(), repeats.find()
    forms = np.frombuffer(all_of.forms, np.uint8)
    # A row may be both: what rejects it is what it is reported as.
    for kind in sorted(("opposite_labels", "duplicate"), key=lambda kind: kind not in accept):
        codes[all_of.partners[kind][0] - 1] = _CODES[kind]
    for kind, (numbers, others) in all_of.partners.items():
        for first in np.flatnonzero(codes[numbers - 1] == _CODES[kind])[:1]:
            all_of.reasons[kind] = _reason_of_repeat(kind, others[first])
    good, is_chat = (codes == 0) | np.isin(codes, [_CODES[kind] for kind in accept]), forms & CHAT > 0
    rare = bool(2 * is_chat[good].sum() <= good.sum())  # whether the chats are fewer than the texts
    codes[good & (is_chat == rare) & (is_chat[good].any() and not is_chat[good].all())] = _CODES["other_form"]
    all_of.reasons["other_form"] = OTHER_FORM
    all_of.codes, all_of.labels, all_of.forms = codes, np.frombuffer(all_of.labels, np.uint8), forms
    return all_of


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
    found = _find(path, check, state, accept)
    codes, waved = found.codes, [_CODES[kind] for kind in accept]
    kept = (codes == 0) | np.isin(codes, waved)
    by_kind = {kind: (np.flatnonzero(codes == code) + 1).tolist() for kind, code in _CODES.items()}
    present = {kind: numbers for kind, numbers in by_kind.items() if numbers}
    forms = found.forms[kept]
    chats, systems, several, pairs = (int((forms & form > 0).sum()) for form in (CHAT, SYSTEM, SEVERAL, PAIR))
    up = int((found.labels[kept] == 1).sum())
    report = FeedbackReport(
        name=path.name,
        rows=len(codes),
        desirable=up,
        undesirable=int(kept.sum()) - up + pairs,
        rejected={kind: numbers for kind, numbers in present.items() if kind not in accept},
        accepted={kind: numbers for kind, numbers in present.items() if kind in accept},
        side_file=None if strict or kept.all() else side_file,
        reasons=found.reasons,
        fields=found.fields,
        columns=check.names,
        pairs=pairs,
        chats=chats,
        systems=systems,
        several=several,
        labels=dict(found.unknown),
    )
    if strict and not (kept.all() and len(kept)):
        raise FeedbackError(report)
    if report.side_file:
        records = _read_again(path, check, state, "side file")
        write_jsonl(side_file, _side_entries(records, np.where(kept, 0, codes), check, found.partners))
    elif not strict and overwrite:
        side_file.unlink(missing_ok=True)
    return Feedback(path, check, report, kept, state)
