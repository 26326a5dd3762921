"""What other programs can read: plain JSON values, and files that are written whole or not at all."""

import base64
import contextlib
import datetime
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

_TO_ESCAPE = re.compile("[\ud800-\udfff\x85\u2028\u2029]")


def plain(value: object) -> object:
    """A value as JSON can hold it, without loss where there is a usual way.

    NaN and infinity become None (null): JSON has no word for them, and hardly a program but Python reads the one that
    Python writes. Numbers, booleans and arrays of NumPy and torch become Python's, times ISO 8601, bytes
    {"base64": ...}, what is missing to pandas None, all else its text.
    """
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (str, int)):  # a kind of its own, e.g. of an enumeration or of NumPy
        return str(value) if isinstance(value, str) else int(value)
    if isinstance(value, Mapping):
        return {key if type(key) is str else str(plain(key)): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim):
        return [plain(entry) for entry in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(entry) for entry in value), key=str)
    if isinstance(value, (bytes, bytearray)):
        return {"base64": base64.b64encode(value).decode("ascii")}
    if str(value) in ("NaT", "<NA>"):
        return None
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, np.datetime64) or not hasattr(value, "tolist"):
        return str(value)
    return plain(value.tolist())


def to_json(value: object, **options) -> str:
    """`json.dumps` of plain values, letters as they are; options as there."""
    value = plain(value)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    # Half characters are no UTF-8, and the other two end a line for some readers: escaped, they harm nobody.
    return json.dumps(value, allow_nan=False, **options) if _TO_ESCAPE.search(text) else text


def write_whole(path: Path | str, pieces: Iterable[str]) -> None:
    """Writes a text file under a temporary name and renames it: whoever looks finds the old file or all of the new.

    The folder is made if it is missing. A failure on the way leaves the old file and no temporary one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(pieces)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_jsonl(path: Path | str, rows: Iterable[Mapping]) -> None:
    """One JSON object a line, UTF-8, letters as they are; `plain` values, all rows or nothing.

    Raises:
        TypeError: a row is no mapping, as the column names are that a DataFrame gives when it is iterated.
    """

    def lines():
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, Mapping):
                kind = type(row).__name__
                raise TypeError(f"row {number} is a {kind}; it must be a dict (of a DataFrame: .to_dict('records'))")
            yield to_json(row) + "\n"

    write_whole(path, lines())
