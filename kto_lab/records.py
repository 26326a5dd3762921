"""Reads JSONL, CSV and Parquet files record by record, broken records included. Used in lesson 11.

JSONL and CSV are split from bytes, so that one broken record costs no other: it comes out with a fault, and reading
goes on behind it. Nothing larger than one record (JSONL, CSV) or 1,000 rows (Parquet) is held. No torch here.
"""

import csv
import io
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from kto_lab.whole_file import BOM, hint_for_extension, problem_of

MAX_RECORD_BYTES = 2**24  # a file without line ends, or with a quote that never closes, must not fill the memory
MAX_RECORD_LINES = 1_000
MAX_DEPTH = 100  # of JSON; where recursion ends depends on the Python version, this does not
PARQUET_BATCH = 1_000  # rows
MissingColumn = Callable[[Sequence[str]], str | None]


class Fault(NamedTuple):
    """Why a record or row cannot be used: one of the kinds of `report.KINDS`, and a sentence without its full stop."""

    kind: str
    reason: str
    value: object = None  # a label without a meaning


class Record(NamedTuple):
    """One record as it stands in the file; `fields` is None where it could not be read."""

    fields: dict | None
    fault: Fault | None
    size: int  # bytes of the file; rows for Parquet
    raw: bytes | None = None  # without the line end; None for Parquet and for what is too long to hold
    line: int | None = None  # where it begins, counted from 1; None for Parquet
    at_byte: int | None = None


class Unreadable(NamedTuple):
    """Stands for a value of a Parquet file that Python cannot hold, e.g. a string that is no UTF-8."""

    raw: bytes
    reason: str


_KINDS_OF_JSON = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false",
                  type(None): "null"}  # fmt: skip


class _FieldTwice(ValueError):
    pass


def _object(pairs: list[tuple[str, object]]) -> dict:
    fields = dict(pairs)
    if len(fields) < len(pairs):  # json.loads would keep the last one and say nothing
        names = [name for name, _ in pairs]
        raise _FieldTwice(next(name for name in names if names.count(name) > 1))
    return fields


class ColumnError(ValueError):
    """A table without a column that is needed, or with one twice."""

    def __init__(self, path: Path, problem: str, names: Sequence[str]):
        self.found = f"{path.name} has {problem}; its columns are {list(names)}{_separator_hint(names)}"
        self.names = list(names)
        super().__init__(self.found)


def _separator_hint(names: Sequence[str]) -> str:
    found = next((sign for sign in ";\t|" if len(names) == 1 and sign in names[0]), None)
    return f"; they seem to be separated by {found!r}: save the file with commas" if found else ""


_decode_json = json.JSONDecoder(object_pairs_hook=_object).decode


def _lines(file: io.BufferedReader) -> Iterator[tuple[bytes, int]]:
    """(line with its end, its size in bytes); of a line above the limit only the beginning is returned."""
    while line := file.readline(MAX_RECORD_BYTES + 1):
        size, piece = len(line), line
        while len(piece) > MAX_RECORD_BYTES and not piece.endswith(b"\n"):
            piece = file.readline(MAX_RECORD_BYTES + 1)
            size += len(piece)
        yield line, size


def _is_too_long(line: bytes) -> bool:
    return len(line) > MAX_RECORD_BYTES and not line.endswith(b"\n")


def _undecodable(error: UnicodeDecodeError) -> Fault:
    return Fault("not_utf8", f"byte {error.start + 1} of the record, 0x{error.object[error.start]:02x}, is not UTF-8")


def _too_long(size: int) -> Fault:
    return Fault("too_long", f"{size:,} bytes without a line end; a record may have {MAX_RECORD_BYTES:,}")


def _is_deeper(value: object, limit: int) -> bool:
    """Whether lists and objects are nested deeper than limit; with a list of its own, since recursion has an end."""
    waiting = [(value, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, (dict, list)):
            if depth > limit:
                return True
            waiting += [(inner, depth + 1) for inner in (value.values() if isinstance(value, dict) else value)]
    return False


# What is left of a JSON text that ends inside a word or a number.
_BEGUN = re.compile(
    r"t(r(ue?)?)?|f(a(l(se?)?)?)?|n(u(ll?)?)?|N(aN?)?|-?(I(n(f(i(n(i(ty?)?)?)?)?)?)?)?|\.|[eE][-+]?"
)


def _ends_early(error: json.JSONDecodeError) -> bool:
    """Whether the text is the beginning of JSON, so that only its end is missing."""
    rest = error.doc[error.pos :]
    if error.msg.startswith("Unterminated string") or not rest.strip():
        return True
    if error.msg.startswith("Invalid \\uXXXX"):
        return len(rest) < 5 or bool(re.fullmatch(r"\\?u?[0-9a-fA-F]{0,4}", rest))
    return bool(_BEGUN.fullmatch(rest.rstrip()))


def _no_json(error: ValueError, raw: bytes) -> str:
    begins = raw.lstrip()[:1]
    hint = "; the line ends in the middle" if isinstance(error, json.JSONDecodeError) and _ends_early(error) else ""
    if begins == b"{" and b"'" in raw[:3]:
        hint = "; it looks like a printed Python dict"
    elif begins not in (b"{", b"["):
        hint = "; an object begins with {"
    return f"no JSON: {error}{hint}"


def _parse_json(raw: bytes, complete: bool) -> tuple[dict | None, Fault | None]:
    """The object of one line, or what is wrong with the line; complete says whether it had a line end."""
    cut_off = Fault("cut_off", "the file ends in the middle of this line")
    too_deep = Fault("malformed", f"the JSON is nested more than {MAX_DEPTH} deep")
    if not raw.strip():
        return None, Fault("blank_line", "the line is blank")
    try:
        fields = _decode_json(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        at_the_end = not complete and error.reason == "unexpected end of data"
        return None, cut_off if at_the_end else _undecodable(error)
    except _FieldTwice as error:
        return None, Fault("field_twice", f"the field {error.args[0]!r} occurs twice in one object")
    except RecursionError:
        return None, too_deep
    except ValueError as error:
        begun = not complete and isinstance(error, json.JSONDecodeError) and _ends_early(error)
        return None, cut_off if begun else Fault("malformed", _no_json(error, raw))
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _is_deeper(fields, MAX_DEPTH):
        return None, too_deep
    if not isinstance(fields, dict):
        return None, Fault("not_an_object", f"the line holds {_KINDS_OF_JSON[type(fields)]}, no object")
    return fields, None


def _read_jsonl(path: Path, missing_column: MissingColumn) -> Iterator[Record]:
    at_byte = 0
    with path.open("rb") as file:
        for number, (line, size) in enumerate(_lines(file), start=1):
            raw = line.removesuffix(b"\n")
            if number == 1:
                raw = raw.removeprefix(BOM)
            if _is_too_long(line):
                yield Record(None, _too_long(size), size, None, number, at_byte)
            else:
                yield Record(*_parse_json(raw, line.endswith(b"\n")), size, raw, number, at_byte)
            at_byte += size


def _parse_csv(raw: bytes) -> tuple[list[str] | None, Fault | None]:
    """The cells of one record; where bytes do not decode, the cells as far as they can be told, and the fault."""
    fault = None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        text, fault = raw.decode("utf-8", errors="surrogateescape"), _undecodable(error)
    limit = csv.field_size_limit()
    if len(text) > limit:
        csv.field_size_limit(MAX_RECORD_BYTES)
    try:
        return next(csv.reader([text.removesuffix("\r")], strict=True), []), fault
    except csv.Error as error:
        return None, Fault("malformed", f"no CSV: {error}")
    finally:
        csv.field_size_limit(limit)


def _csv_fields(raw: bytes, header: Sequence[str], complete: bool) -> tuple[dict | None, Fault | None]:
    if not raw.strip():
        return None, Fault("blank_line", "the line is blank")
    cells, fault = _parse_csv(raw)
    n_cells = 0 if cells is None else len(cells)
    # The last line needs no line end (RFC 4180, 2.2): cells that are missing or open show where it was cut.
    if not complete and n_cells < len(header):
        fault = Fault("cut_off", f"the file ends in the middle of this line, of which {n_cells} cells can be read")
    if cells is not None and len(cells) != len(header):
        return None, fault or Fault("field_count", f"{len(cells)} cells; the header has {len(header)}")
    return cells and dict(zip(header, cells, strict=True)), fault


def _is_open(line: bytes, inside: bool) -> bool:
    """Whether a quoted cell goes on in the next line; inside: whether one was open before this line.

    A quote opens a cell only as its first character; elsewhere in an unquoted cell it is a character like any other.
    """
    at = 0
    while True:
        if not inside and line[at : at + 1] == b'"':
            inside, at = True, at + 1
        if inside:
            while (at := line.find(b'"', at) + 1) and line[at : at + 1] == b'"':
                at += 1  # two quotes stand for one
            if not at:
                return True
            inside = False
        at = line.find(b",", at) + 1
        if not at:
            return False


class _CSVLines:
    """Groups lines into records: a record goes on while a quoted cell is open. Lines can be given back."""

    def __init__(self, file: io.BufferedReader):
        self.lines, self.returned = _lines(file), deque()

    def _next(self) -> tuple[bytes, int] | None:
        return self.returned.popleft() if self.returned else next(self.lines, None)

    def take(self) -> list[tuple[bytes, int]]:
        """The lines of the next record; none at the end of the file."""
        taken, is_open, size = [], False, 0
        while found := self._next():
            taken.append(found)
            line, size = found[0], size + found[1]
            is_open = _is_open(line, is_open) if b'"' in line else is_open
            if not is_open or len(taken) == MAX_RECORD_LINES or size > MAX_RECORD_BYTES:
                break
        return taken

    def give_back(self, lines: list[tuple[bytes, int]]) -> None:
        self.returned.extendleft(reversed(lines))


def _read_csv(path: Path, missing_column: MissingColumn) -> Iterator[Record]:
    with path.open("rb") as file:
        lines = _CSVLines(file)
        taken = lines.take()
        header, fault = _parse_csv(b"".join(line for line, _ in taken).removeprefix(BOM).removesuffix(b"\n"))
        if fault or not header:
            why = fault.reason if fault else "the file is empty"
            raise ValueError(f"{path.name}: the header cannot be read ({why})")
        _check_columns(path, header, missing_column)
        number, at_byte = 1 + len(taken), sum(size for _, size in taken)
        while taken := lines.take():
            whole = b"".join(line for line, _ in taken)
            fields, fault = _csv_fields(whole.removesuffix(b"\n"), header, whole.endswith(b"\n"))
            if fields is None and len(taken) > 1:  # a quote too many: it costs its own line and no other
                lines.give_back(taken[1:])
                taken, whole = taken[:1], taken[0][0]
                fault = Fault("malformed", "a quote opens in this line and does not close where a cell ends")
            size = sum(size for _, size in taken)
            if _is_too_long(taken[0][0]):
                yield Record(None, _too_long(size), size, None, number, at_byte)
            else:
                yield Record(fields, fault, size, whole.removesuffix(b"\n"), number, at_byte)
            number, at_byte = number + len(taken), at_byte + size


def _value(scalar) -> object:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:  # UnicodeDecodeError and ArrowInvalid are ValueErrors
        raw = scalar.as_buffer().to_pybytes() if hasattr(scalar, "as_buffer") else str(scalar).encode()
        return Unreadable(raw, str(error))


def _values(column) -> list:
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        return [_value(scalar) for scalar in column]


def _parquet_fault(fields: dict) -> Fault | None:
    for name, value in fields.items():
        if isinstance(value, Unreadable):
            return Fault("not_utf8", f"the field {name!r} does not decode: {value.reason}")
    return None


def _read_parquet(path: Path, missing_column: MissingColumn) -> Iterator[Record]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(path, names, missing_column)
            for batch in file.iter_batches(batch_size=PARQUET_BATCH):
                columns = [_values(column) for column in batch.columns]
                for row in zip(*columns, strict=True):
                    fields = dict(zip(names, row, strict=True))
                    yield Record(fields, _parquet_fault(fields), 1)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path.name}: Parquet that cannot be read, perhaps cut off ({error})") from error


def _check_columns(path: Path, names: Sequence[str], missing_column: MissingColumn) -> None:
    missing = missing_column(names)
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if missing or twice:
        problem = f"no column {missing!r}" if missing else f"the column {twice[0]!r} twice"
        raise ColumnError(path, problem, names)


READERS = {".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}


def format_of(path: Path | str) -> str:
    """The file's extension in small letters, if it is one that can be read.

    Raises:
        ValueError: any other extension. Nothing is guessed from the content.
    """
    extension = Path(path).suffix.lower()
    if extension not in READERS:
        known = ", ".join(READERS)
        raise ValueError(f"{Path(path).name}: the extension must be one of {known}{hint_for_extension(Path(path))}")
    return extension


def _without_last_blanks(records: Iterator[Record]) -> Iterator[Record]:
    """Blank lines at the end of a file are no rows; between rows they are."""
    blank = []
    for record in records:
        if record.fault is not None and record.fault.kind == "blank_line":
            blank.append(record)
            continue
        yield from blank
        blank.clear()
        yield record


def _size_of(path: Path) -> tuple[int, str]:
    """What a progress bar counts: bytes, or the rows of a Parquet file."""
    if format_of(path) != ".parquet":
        return path.stat().st_size, "B"
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.read_metadata(path).num_rows, "rows"
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path.name}: Parquet that cannot be read, perhaps cut off ({error})") from error


def read_records(path: Path | str, missing_column: MissingColumn, description: str = "") -> Iterator[Record]:
    """Every record of a file in order, a progress bar in a terminal. A CSV's header is no record.

    Args:
        path: .jsonl, .ndjson (one object a line), .csv (comma, UTF-8, with a header) or .parquet.
        missing_column: names the first column that the columns of a CSV or Parquet file lack, or gives None.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is wrong as a whole, or whose columns are. A broken record raises nothing.
    """
    path = Path(path)
    read = READERS[format_of(path)]
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if format_of(path) != ".parquet" and (problem := problem_of(path)):
        raise ValueError(f"{path.name} {problem}")
    total, unit = _size_of(path)
    with tqdm(total=total, unit=unit, unit_scale=True, desc=description, disable=not sys.stderr.isatty()) as bar:
        done = 0
        for number, record in enumerate(_without_last_blanks(read(path, missing_column)), start=1):
            done += record.size
            if number % 1_000 == 0:
                bar.update(done - bar.n)
            yield record
        bar.update(done - bar.n)
