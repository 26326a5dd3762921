"""What is wrong with a file as a whole, so that reading it row by row would blame every row. Used in lesson 11."""

import json
from pathlib import Path

HEAD = 2**16  # bytes that are looked at
BOM = b"\xef\xbb\xbf"
MAGIC = {
    b"PAR1": "is a Parquet file; give it the extension .parquet",
    b"PK\x03\x04": "is a ZIP archive or a spreadsheet; unpack it, or save the sheet as CSV in UTF-8",
    b"\x1f\x8b": "is packed with gzip; unpack it first",
}
TO_LINES = (
    "import json; rows = json.load(open({name!r}, encoding='utf-8')); "
    "open('lines.jsonl', 'w', encoding='utf-8').writelines(json.dumps(row) + '\\n' for row in rows)"
)
ARRAY = "a .jsonl file holds one object a line, without brackets around them and commas between. In Python: "
OTHER_EXTENSIONS = {
    ".json": "a .json file often holds one array; " + ARRAY + TO_LINES,
    ".gz": "unpack it first",
    ".zip": "unpack it first",
    ".xlsx": "save the sheet as CSV in UTF-8",
    ".tsv": "save it with commas as .csv",
}


def hint_for_extension(path: Path) -> str:
    """What to do with a file of a well-known other format, beginning with '; ', or nothing."""
    hint = OTHER_EXTENSIONS.get(path.suffix.lower())
    return f"; {hint.replace('{name!r}', repr(path.name))}" if hint else ""


def _is_wide(head: bytes) -> bool:
    """Whether every character takes two bytes or four: a mark says so, or every second byte is zero."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")):
        return True
    even, odd = head[:64:2], head[1:64:2]
    return len(odd) >= 4 and ((all(even) and not any(odd)) or (all(odd) and not any(even)))


def _is_array(text: bytes) -> bool:
    """Whether JSON begins with a list of objects that is no single row: it fills the file, or goes on over lines."""
    if text[:1] != b"[" or text[1:].lstrip()[:1] != b"{":
        return False
    line, _, behind = text.partition(b"\n")
    if not behind.strip():
        return True
    try:
        json.loads(line)
    except ValueError:
        return line.rstrip()[-1:] in (b"[", b"{", b",")
    return False


def problem_of(path: Path) -> str | None:
    """Why no row of a text file can be read as it is, with the remedy, or None."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    for magic, problem in MAGIC.items():
        if head.startswith(magic):
            return problem
    if _is_wide(head):
        return (
            "is UTF-16 (or UTF-32): every character takes two bytes or more. Save it as UTF-8; in Python: "
            f"text = open({path.name!r}, encoding='utf-16').read()"
        )
    text = head.removeprefix(BOM).strip()
    if b"\r" in text and b"\n" not in head:
        return "has line ends of CR alone, as very old programs write them; save it with LF or CRLF"
    if path.suffix.lower() == ".csv":
        return None
    if _is_array(text):
        return "holds one JSON array; " + ARRAY + TO_LINES.format(name=path.name)
    if text.partition(b"\n")[0].strip() == b"{":
        return "holds objects that go on over several lines; write each into one line, with json.dumps(row)"
    return None
