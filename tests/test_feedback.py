"""Files of thumbs (lesson 11): every row is kept or reported, whatever is in the file; and `kto_lab.inspect`."""

import base64
import csv
import inspect
import io
import itertools
import json
import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import kto_lab.inspect
from kto_lab import feedback, records
from kto_lab.loading import load_feedback
from kto_lab.report import ACCEPTABLE, KINDS, REMEDIES, FeedbackError, columns_advice, labels_advice
from kto_lab.whole_file import BOM, problem_of
from kto_utils.collator import check_example
from kto_utils.data import load_eight_rows, pair_up, tokenize_feedback, unpair
from kto_utils.losses import balanced_weights
from kto_utils.model import load_reference_model, reference_of
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import train_dpo, train_kto, train_sft

ROOT = Path(__file__).resolve().parents[1]
ONLY_CSV = {"field_count"}
ONLY_CHATS = {"message_malformed", "unknown_role", "empty_turn", "last_not_assistant", "several_turns",
              "no_common_prompt", "equal_sides", "other_form", "role_order"}  # test_layouts.py
CHAT = [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "Blue."}]
ONLY_JSONL = {"field_twice", "mixed_forms", "not_an_object", "missing_prompt", "prompt_not_text", "missing_completion",
              "completion_not_text", "lone_surrogate"}  # fmt: skip
MAX_LENGTH = 64
HEADER = b"prompt,completion,label\n"


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("feedback")


def row_of(n, label=None):
    return {
        "prompt": f"USER: {n}? ASSISTANT:",
        "completion": f" It is {n}.",
        "label": n % 3 == 0 if label is None else label,
    }


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


def as_jsonl(rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_csv(rows, lineterminator="\n"):
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator=lineterminator)
    writer.writerow(["prompt", "completion", "label"])
    writer.writerows([row["prompt"], row["completion"], json.dumps(row["label"])] for row in rows)
    return file.getvalue().encode()


def load(path, **options):
    return load_feedback(path, **{"strict": False, "overwrite": True} | options)


def kind_of_row(report):
    """Row number -> kind, for all reported rows; a row under two kinds fails here."""
    pairs = [(number, kind) for kind, numbers in report.rejected.items() for number in numbers]
    assert len(dict(pairs)) == len(pairs), "a row is reported under two kinds: _codes_of gives one code a row"
    return dict(pairs)


def side_entries(report):
    return [json.loads(line) for line in report.side_file.read_text().splitlines()] if report.side_file else []


def raw_of(entry):
    return base64.b64decode(entry["raw_base64"]) if "raw_base64" in entry else entry["raw"].encode()


# ---------------------------------------------------------------- a thousand broken rows


def csv_cells(prompt, completion, label):
    return (
        as_csv([row_of(0) | {"prompt": prompt, "completion": completion}]).splitlines()[1].rsplit(b",", 1)[0]
        + b","
        + label
    )


def broken(kind, n, extension, rng):
    """The line of a row that is broken in this way alone, or the lines of two that contradict each other."""
    row = row_of(n)
    if extension == "csv":
        line = as_csv([row]).splitlines()[1]
        prompt, completion = row["prompt"], row["completion"]
        variants = {
            "not_utf8": [line.replace(b"It", b"\xff"), line.replace(b"USER", b"caf\xe9")],
            "too_long": [line + b"x" * 3000],
            "cut_off": [line.rsplit(b",", 1)[0]],
            "blank_line": [b"", b"  ", b"\r"],
            "malformed": [b'"' + line, b'"open, ' + line, b'"a"b,c,true'],
            "field_count": [line + b",1", line.rsplit(b",", 1)[0], b"word"],
            "empty_prompt": [csv_cells("", completion, b"true"), csv_cells(" \t", completion, b"false")],
            "empty_completion": [csv_cells(prompt, "", b"true"), csv_cells(prompt, "\u00a0", b"true")],
            "missing_label": [csv_cells(prompt, completion, b"")],
            "messages_as_text": [csv_cells(json.dumps(CHAT), completion, b"true")],
            "label_not_boolean": [
                csv_cells(prompt, completion, x) for x in (b"1", b"up", b"tRUE", b" true", b"0", b"nan", b'true"')
            ],
            "cut_to_nothing": [csv_cells(f"{n} " * 100, completion, b"true")],
            "replacement_character": [csv_cells("caf\ufffd " + prompt, completion, b"true")],
        }
        flipped = as_csv([row | {"label": not row["label"]}]).splitlines()[1]
    else:

        def line_of(**change):
            return json.dumps({k: v for k, v in (row | change).items() if v != "gone"}).encode()

        line = line_of()
        variants = {
            "not_utf8": [line.replace(b"It", b"\xff"), line[:-1].replace(b"USER", b"caf\xe9") + b"}", line + b"\xc3"],
            "too_long": [line_of(completion="x" * 3000)],
            "cut_off": [line[:-5]],
            "blank_line": [b"", b"  ", b"\r", b"\t"],
            "malformed": [line[:-1], line + b",", str(row).encode(), b"{" + line, b"[" * 200 + b"]" * 200,
                          b"prompt,completion,label", b"\x00"],
            "field_twice": [line[:-1] + b', "label": true}', line[:-1] + b', "x": {"y": 1, "y": 2}}'],
            "not_an_object": [b"[" + line + b"]", b"null", b"3", b'"text"', b"true", b"NaN"],
            "missing_prompt": [line_of(prompt="gone"), line_of(prompt=None), b"{}"],
            "prompt_not_text": [line_of(prompt=x) for x in (3, 0.5, True)],
            "mixed_forms": [line_of(prompt=x) for x in (["a"], {"role": "user"}, [])] + [line_of(completion=[" a"])],
            "messages_as_text": [line_of(prompt=json.dumps(CHAT)), line_of(completion=str(CHAT))],
            "empty_prompt": [line_of(prompt=x) for x in ("", " ", "\n\t", "\u00a0")],
            "missing_completion": [line_of(completion="gone"), line_of(completion=None)],
            "completion_not_text": [line_of(completion=x) for x in (0, 1.5, False)],
            "empty_completion": [line_of(completion=x) for x in ("", " ", "\u2003")],
            "missing_label": [line_of(label="gone"), line_of(label=None)],
            "label_not_boolean": [line_of(label=x) for x in (1, 0, 1.0, "true", "up", "", [True], {"up": 1})],
            "lone_surrogate": [line_of(completion=f"{n} \ud83d"), line_of(prompt=f"\udc00 {n}")],
            "cut_to_nothing": [line_of(prompt=f"{n} " * 100)],
            "replacement_character": [line_of(completion=f"{n} caf\ufffd"), line_of(prompt=f"\ufffd {n}")],
        }  # fmt: skip
        flipped = line_of(label=not row["label"])
    if kind == "opposite_labels":
        return [line, flipped]
    return [rng.choice(variants[kind])]


def thousand(extension):
    """1,000 broken rows among 400 good ones: (file, row number -> kind, good rows), in a random order."""
    rng = random.Random(0)
    kinds = [k for k in KINDS if k not in (ONLY_CSV if extension == "jsonl" else ONLY_JSONL) | ONLY_CHATS | {"cut_off"}]
    counts = dict.fromkeys(kinds, 999 // len(kinds) // 2 * 2)
    counts["malformed"] += 999 - sum(counts.values())
    fresh = itertools.count(1)
    good = [row_of(next(fresh)) for _ in range(400)]
    as_lines = (
        (lambda rows: as_csv(rows).splitlines()[1:])
        if extension == "csv"
        else (lambda rows: as_jsonl(rows).splitlines())
    )
    pieces = [(None, line) for line in as_lines(good)]
    for kind, count in counts.items():
        while count and kind != "duplicate":
            lines = broken(kind, next(fresh), extension, rng)
            pieces += [(kind, line) for line in lines]
            count -= len(lines)
    rng.shuffle(pieces)
    originals = [line for kind, line in pieces if kind is None]
    for line in rng.sample(originals, counts["duplicate"]):  # somewhere behind the row that it repeats
        at = rng.randint(pieces.index((None, line)) + 1, len(pieces))
        pieces.insert(at, ("duplicate", line))
    pieces.append(("cut_off", broken("cut_off", next(fresh), extension, rng)[0]))
    content = (HEADER if extension == "csv" else b"") + b"\n".join(line for _, line in pieces)
    expected = {number: kind for number, (kind, _) in enumerate(pieces, start=1) if kind}
    kept = [line for kind, line in pieces if kind is None]
    return content, expected, [good[as_lines(good).index(line)] for line in kept], pieces


@pytest.fixture
def short_records(monkeypatch):
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 2_000)


@pytest.mark.parametrize(("extension", "n_kinds"), [("jsonl", 22), ("csv", 15)])
def test_a_thousand_broken_rows_are_all_reported_with_number_and_kind(
    extension, n_kinds, tmp_path, tokenizer, short_records
):
    content, expected, good, pieces = thousand(extension)
    assert len(expected) == 1_000
    assert len(set(expected.values())) == n_kinds
    path = write(tmp_path, f"thumbs.{extension}", content)
    found = load(path, tokenizer=tokenizer, max_length=MAX_LENGTH)
    report = found.report
    wrong = {
        n: (kind, kind_of_row(report).get(n)) for n, kind in expected.items() if kind_of_row(report).get(n) != kind
    }
    assert not wrong, f"row -> (made as, reported as); see RowCheck and _parse: {dict(list(wrong.items())[:5])}"
    assert kind_of_row(report) == expected, "a good row was reported"
    assert report.rows == 1_400 == report.kept + sum(report.counts.values())
    assert list(found) == good
    assert [(entry["row"], entry["kind"]) for entry in side_entries(report)] == sorted(expected.items())
    for entry in side_entries(report):
        if entry["kind"] == "too_long":
            raw = path.read_bytes()[entry["at_byte"] :][: entry["n_bytes"]].removesuffix(b"\n")
        else:
            raw = raw_of(entry)
        assert raw == pieces[entry["row"] - 1][1], f"the side file changed row {entry['row']}"
        assert entry["line"] == entry["row"] + (extension == "csv")
        assert entry["reason"]


def test_the_same_file_is_refused_under_strict_and_nothing_is_written(tmp_path, tokenizer, short_records):
    content, expected, good, _ = thousand("jsonl")
    path = write(tmp_path, "thumbs.jsonl", content)
    with pytest.raises(FeedbackError, match=r"1,400 rows, 1,000 rejected, 400 kept(.|\n)*strict=False") as refused:
        load_feedback(path, tokenizer=tokenizer, max_length=MAX_LENGTH)
    assert kind_of_row(refused.value.report) == expected
    assert (refused.value.report.desirable, refused.value.report.kept) == (sum(r["label"] for r in good), 400)
    assert list(tmp_path.iterdir()) == [path]


def test_a_thousand_broken_rows_of_a_parquet_file(tmp_path, tokenizer):
    rng = random.Random(0)
    variants = {
        "not_utf8": lambda row: row | {"completion": b" caf\xe9"},
        "missing_prompt": lambda row: row | {"prompt": None},
        "empty_prompt": lambda row: row | {"prompt": rng.choice(["", " "])},
        "missing_completion": lambda row: row | {"completion": None},
        "empty_completion": lambda row: row | {"completion": "\n"},
        "missing_label": lambda row: row | {"label": None},
        "label_not_boolean": lambda row: row | {"label": rng.choice(["maybe", "", "true"])},
        "cut_to_nothing": lambda row: row | {"prompt": row["prompt"] * 40},
        "replacement_character": lambda row: row | {"prompt": row["prompt"] + "\ufffd"},
    }
    fresh = itertools.count(1)
    pieces = [(None, row_of(next(fresh))) for _ in range(400)]
    pieces += [(kind, change(row_of(next(fresh)))) for kind, change in variants.items() for _ in range(90)]
    for _ in range(45):
        row = row_of(next(fresh))
        pieces += [("opposite_labels", row), ("opposite_labels", row | {"label": not row["label"]})]
    rng.shuffle(pieces)
    pieces += [("duplicate", row) for row in [row for kind, row in pieces if kind is None][:100]]
    rows = [row | {"label": {True: "up", False: "down"}.get(row["label"], row["label"])} for _, row in pieces]
    columns = {}
    for name in ("prompt", "completion", "label"):
        raw = [v.encode() if isinstance(v, str) else v for v in (row[name] for row in rows)]
        columns[name] = pyarrow.array(raw, pyarrow.binary()).view(pyarrow.string())
    path = tmp_path / "thumbs.parquet"
    parquet.write_table(pyarrow.table(columns), path, row_group_size=300)
    found = load(path, labels={"up": True, "down": False}, tokenizer=tokenizer, max_length=MAX_LENGTH)
    expected = {number: kind for number, (kind, _) in enumerate(pieces, start=1) if kind}
    assert len(expected) == 1_000
    assert kind_of_row(found.report) == expected
    assert list(found) == [row for kind, row in pieces if kind is None]
    for entry in side_entries(found.report):
        row = rows[entry["row"] - 1]
        bad = isinstance(row["completion"], bytes)
        assert entry["record"] == row | (
            {"completion": {"base64": base64.b64encode(row["completion"]).decode()}} if bad else {}
        )


def test_columns_of_other_types_are_reported_and_not_converted(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"prompt": [1, 2], "completion": ["a", "b"], "label": [True, False]}), path)
    assert load(path).report.rejected == {"prompt_not_text": [1, 2]}
    chat = pyarrow.table({"prompt": ["p"], "completion": [[{"role": "a", "content": "b"}]], "label": [True]})
    parquet.write_table(chat, path)
    report = load(path).report
    assert report.rejected == {"mixed_forms": [1]}
    assert "the prompt is a text and the completion is messages" in side_entries(report)[0]["reason"]


# ---------------------------------------------------------------- any bytes at all

CHAOS = st.lists(
    st.sampled_from(
        [b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"a", b"true", b"false", b" ", b"\xff", b"\xc3\xa9", b"\x00", b"\\",
         b"a,b,true\n", b'"a\nb",c,false\n', b'{"prompt": "a", "completion": "b", "label": true}\n', b"{", b"}", b"[",
         b":", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\\ud800", b"1e999", b"null"]
    )
    | st.binary(max_size=6),
    max_size=40,
).map(b"".join)  # fmt: skip


def conserved(path, header=b""):
    """Loads a file of anything and holds the report against the file itself."""
    content = path.read_bytes()
    assume(problem_of(path) is None)
    found = load(path)
    report = found.report
    kinds = kind_of_row(report)
    assert report.rows == report.kept + len(kinds), "rows in = rows kept + rows reported"
    assert set(kinds.values()) <= set(KINDS)
    assert len(list(found)) == len(found) == report.kept
    entries = side_entries(report)
    assert {entry["row"]: entry["kind"] for entry in entries} == kinds, "the side file and the report differ"
    every = list(records.read_records(path, lambda names: None))
    assert len(every) == report.rows
    held = header + b"".join(content[r.at_byte :][: r.size] for r in every)
    assert content.startswith(held), "bytes lie in no record"
    assert not content[len(held) :].removeprefix(BOM).strip(), "only blank lines at the end are in no record"
    for entry in entries:
        place = content[entry["at_byte"] :][: entry["n_bytes"]]
        start = 3 if entry["at_byte"] == 0 and place.startswith(BOM) else 0
        assert raw_of(entry) == place[start:].removesuffix(b"\n"), f"the side file changed row {entry['row']}"
    return report


@settings(max_examples=300)
@given(CHAOS | st.binary(max_size=300))
@example(b"")
@example(b"\n")
@example(b"\xef\xbb\xbf")
@example(b'{"prompt": "a", "completion": "b", "label": true, "x": ' + b"[" * 80 + b"]" * 80 + b"}\n")
@example(b'{"a":' * 99_000)
@example(b"[" * 990 + b"]" * 990)
def test_any_bytes_as_jsonl_lose_no_row_and_raise_nothing(folder, content):
    report = conserved(write(folder, "chaos.jsonl", content))
    lines = content.removeprefix(BOM).split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    assert report.rows == len(lines), "a row is a line"


@settings(max_examples=300)
@given(CHAOS | st.binary(max_size=300))
@example(b'a,"b,true\nc,d,false\ne,f,true\n')
@example(b'"a\n' * 5)
def test_any_bytes_behind_a_csv_header_lose_no_row_and_raise_nothing(folder, content):
    conserved(write(folder, "chaos.csv", HEADER + content), HEADER)


@settings(max_examples=100)
@given(CHAOS | st.binary(max_size=300), st.sampled_from(["csv", "parquet"]))
def test_any_bytes_at_all_are_a_file_or_are_refused_with_a_reason(folder, content, extension):
    path = write(folder, f"any.{extension}", content)
    try:
        load(path)
    except ValueError as error:
        assert path.name in str(error)  # noqa: PT017  (most of these files are refused, some are fine)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["prompt", "completion", "label", "user", "\ud800"]), ANY_JSON, max_size=5)
        | ANY_JSON,
        max_size=8,
    ),
    st.dictionaries(st.integers() | st.text(max_size=3), st.booleans(), max_size=3),
)
def test_any_json_values_lose_no_row_and_kept_rows_are_good_rows(folder, values, labels):
    path = write(folder, "values.jsonl", as_jsonl(values))
    assume(problem_of(path) is None)
    found = load(path, labels=labels)
    assert found.report.rows == len(values) == found.report.kept + len(kind_of_row(found.report))
    for row in found:
        assert all(isinstance(row[name], str) and row[name].strip() for name in ("prompt", "completion"))
        assert isinstance(row["label"], bool)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), min_size=1, max_size=12) | (
    st.sampled_from(['say "no"', '"', "a,b", "two\nlines", "two\r\nlines", "\rx", "a\u2028b", "\ufeffx", "''", "a\\"])
)
GOOD_ROWS = st.lists(
    st.fixed_dictionaries({"prompt": TEXTS, "completion": TEXTS, "label": st.booleans()}).filter(
        lambda row: row["prompt"].strip() and row["completion"].strip()
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: (row["prompt"], row["completion"]),
)


@settings(max_examples=150)
@given(GOOD_ROWS, st.booleans())
@example([row_of(1) | {"completion": "0\r"}, row_of(2) | {"prompt": "\r\n0"}], False)
def test_good_rows_come_back_exactly_from_all_three_formats(folder, rows, bom):
    mark = BOM if bom and rows else b""
    for name, content in (("good.jsonl", mark + as_jsonl(rows)), ("good.csv", mark + as_csv(rows, "\r\n"))):
        found = load_feedback(write(folder, name, content))
        assert list(found) == rows, name
        assert list(found) == rows, f"{name}: the second pass differs from the first"
    schema = pyarrow.schema([("prompt", "string"), ("completion", "string"), ("label", "bool")])
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema), folder / "good.parquet")
    assert list(load_feedback(folder / "good.parquet")) == rows


# ---------------------------------------------------------------- duplicates and opposite labels


def repeats_by_hand(rows, accept):
    """The two kinds of repeats by the definition, with all texts in memory: row number -> kind, of rejected rows."""
    found = {}
    for n, row in enumerate(rows, start=1):
        before = rows[: n - 1]
        opposite = any(
            (r["prompt"], r["completion"]) == (row["prompt"], row["completion"]) and r["label"] != row["label"]
            for r in rows
        )
        if row in before and "duplicate" not in accept:
            found[n] = "duplicate"
        elif opposite and "opposite_labels" not in accept:
            found[n] = "opposite_labels"
    return found


FEW = st.fixed_dictionaries(
    {"prompt": st.sampled_from(["p", "pc"]), "completion": st.sampled_from(["c", "cc"]), "label": st.booleans()},
    optional={"user": st.sampled_from([1, 2, None, [1]])},
)


@settings(max_examples=300)
@given(st.lists(FEW, max_size=12), st.sets(st.sampled_from(["duplicate", "opposite_labels"])))
def test_repeats_are_found_as_by_hand(folder, rows, accept):
    found = load(write(folder, "few.jsonl", as_jsonl(rows)), accept=accept)
    rejected = repeats_by_hand(rows, accept)
    assert kind_of_row(found.report) == rejected
    assert list(found) == [row for n, row in enumerate(rows, start=1) if n not in rejected]
    for kind, numbers in found.report.accepted.items():
        assert kind in accept
        assert not set(numbers) & set(rejected)


@given(st.lists(FEW, min_size=2, max_size=12))
def test_a_repeat_names_the_row_that_it_repeats_or_contradicts(folder, rows):
    for entry in side_entries(load(write(folder, "few.jsonl", as_jsonl(rows))).report):
        row, other = rows[entry["row"] - 1], rows[int(entry["reason"].split()[-1]) - 1]
        if entry["kind"] == "duplicate":
            assert row == other
            assert rows.index(other) < entry["row"] - 1
        else:
            assert (row["prompt"], row["completion"], row["label"]) == (
                other["prompt"], other["completion"], not other["label"]
            )  # fmt: skip


def test_a_blank_moved_across_the_boundary_is_another_text(tmp_path):
    rows = [{"prompt": "a b", "completion": "c", "label": True}, {"prompt": "a", "completion": " bc", "label": False}]
    assert load(write(tmp_path, "a.jsonl", as_jsonl(rows))).report.rejected == {}


def test_votes_of_several_users_are_no_duplicates(tmp_path):
    votes = [row_of(1) | {"user": user} for user in "abc"]
    assert list(load_feedback(write(tmp_path, "a.jsonl", as_jsonl(votes)))) == votes
    nameless = write(tmp_path, "b.jsonl", as_jsonl([row_of(1)] * 3))
    assert load(nameless).report.rejected == {"duplicate": [2, 3]}
    kept = load_feedback(nameless, accept=["duplicate"])
    assert (len(kept), kept.report.accepted) == (3, {"duplicate": [2, 3]})
    assert "kept, as you asked" in str(kept.report)


@pytest.mark.parametrize("kind", [kind for kind in ACCEPTABLE if kind not in ONLY_CHATS])
def test_what_is_only_suspicious_can_be_accepted(kind, tmp_path, tokenizer, short_records):
    content, expected, _, _ = thousand("jsonl")
    path = write(tmp_path, "thumbs.jsonl", content)
    report = load(path, tokenizer=tokenizer, max_length=MAX_LENGTH, accept=[kind]).report
    assert report.accepted == {kind: sorted(n for n, k in expected.items() if k == kind)}
    assert kind_of_row(report) == {n: k for n, k in expected.items() if k != kind}


def test_what_cannot_be_used_cannot_be_accepted(tmp_path):
    with pytest.raises(ValueError, match="accept names 'empty_prompt'; it may name replacement_character"):
        load_feedback(write(tmp_path, "a.jsonl", b""), accept=["empty_prompt", "duplicate"])


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("value", [1, 0, "up", "true", "True", 1.0, "1", "yes", 5])
def test_a_label_is_never_guessed(value, tmp_path):
    path = write(tmp_path, "a.jsonl", as_jsonl([row_of(1) | {"label": value}]))
    assert load(path).report.rejected == {"label_not_boolean": [1]}
    for label in (True, False):
        assert [row["label"] for row in load_feedback(path, labels={value: label})] == [label]
    assert load(path, labels={"else": True}).report.rejected == {"label_not_boolean": [1]}


def test_json_booleans_stay_what_they_are_under_a_mapping_of_1_and_0(tmp_path):
    rows = [row_of(n) | {"label": label} for n, label in enumerate([True, False, 1, 0])]
    path = write(tmp_path, "a.jsonl", as_jsonl(rows))
    assert [row["label"] for row in load_feedback(path, labels={1: False, 0: True})] == [True, False, False, True]


def test_a_csv_knows_the_words_true_and_false_and_numbers_of_a_mapping_as_text(tmp_path):
    lines = [f"p{n},c,{word}".encode() for n, word in enumerate(["true", "FALSE", "True", "1", "0"])]
    path = write(tmp_path, "a.csv", HEADER + b"\n".join(lines) + b"\n")
    assert load(path).report.rejected == {"label_not_boolean": [4, 5]}
    assert [row["label"] for row in load_feedback(path, labels={1: True, 0: False})] == [True, False, True, True, False]


@pytest.mark.parametrize("labels", [{"up": 1}, {"up": "true"}, {True: False}, {"up": None}])
def test_a_mapping_that_maps_to_no_boolean_is_refused(labels, tmp_path):
    with pytest.raises(TypeError, match="must map a value that is no bool to a bool"):
        load_feedback(write(tmp_path, "a.jsonl", b""), labels=labels)


# ---------------------------------------------------------------- columns and truncation


def test_other_column_names_and_other_fields(tmp_path):
    row = {"question": "p", "answer": "c", "thumb": True, "user": 7, "prompt": "not this one"}
    names = {"prompt": "question", "completion": "answer", "label": "thumb"}
    loaded = list(load_feedback(write(tmp_path, "a.jsonl", as_jsonl([row])), columns=names))
    assert loaded == [{"prompt": "p", "completion": "c", "label": True, "thumb": True, "user": 7}]


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"question": "prompt"}, "columns names 'question'"), ({"prompt": "completion"}, "two fields from one column")],
)
def test_senseless_columns_are_refused(columns, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_feedback(write(tmp_path, "a.jsonl", b""), columns=columns)


@settings(max_examples=100)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip), st.integers(1, 40))
def test_a_row_is_cut_to_nothing_exactly_where_tokenizing_it_says_so(folder, tokenizer, prompt, max_length):
    row = {"prompt": prompt, "completion": " It is blue.", "label": True}
    path = write(folder, "long.jsonl", as_jsonl([row]))
    report = load(path, tokenizer=tokenizer, max_length=max_length, accept=["replacement_character"]).report
    try:
        tokenize_feedback(row, tokenizer, max_length)
        assert report.kept == 1
    except ValueError:
        assert report.rejected == {"cut_to_nothing": [1]}


def test_only_rows_that_can_be_cut_are_tokenized(tmp_path, tokenizer):
    class Counting:
        bos_token_id, eos_token_id, texts = 1, 2, []

        def encode(self, text, **options):
            self.texts.append(text)
            return tokenizer.encode(text, **options)

    rows = [row_of(n) for n in range(50)] + [row_of(51) | {"prompt": "long " * 20}]
    load(write(tmp_path, "a.jsonl", as_jsonl(rows)), tokenizer=Counting(), max_length=40)
    assert {text[:5] for text in Counting.texts} == {"long "}


@pytest.mark.parametrize(
    "options", [{"max_length": 5}, {"tokenizer": object()}, {"max_length": 0, "tokenizer": object()}]
)
def test_half_a_truncation_is_refused(options, tmp_path):
    with pytest.raises(ValueError, match=r"pass both, or none|at least 1"):
        load_feedback(write(tmp_path, "a.jsonl", b""), **options)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["thumbs.txt", "thumbs", "thumbs.jsonl.gz", "thumbs.json"])
def test_an_unknown_extension_is_refused_and_nothing_guessed(name, tmp_path):
    with pytest.raises(ValueError, match=r"the extension must be one of \.jsonl"):
        load_feedback(write(tmp_path, name, as_jsonl([row_of(1)])))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        load_feedback(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"prompt;completion;label\n", "no column 'prompt'; its columns are .'prompt;completion;label'."),
        (b"prompt;completion;label\n", "separated by ';': save the file with commas"),
        (b"prompt,completion\na,b\n", "no column 'label'"),
        (b"prompt,prompt,completion,label\n", "the column 'prompt' twice"),
        (b"", "the header cannot be read .the file is empty."),
        (b"\xff\xfa\n", "the header cannot be read"),
        (b"prompt\tcompletion\tlabel\n", "separated by '.t': save the file with commas"),
    ],
)
def test_a_csv_without_its_columns_is_refused(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path, "a.csv", content))


def test_a_parquet_file_without_its_columns_or_cut_off_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"prompt": ["a"], "completion": ["b"]}), path)
    with pytest.raises(ValueError, match="no column 'label'"):
        load_feedback(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="perhaps cut off"):
        load_feedback(path)


def test_a_quote_too_many_costs_one_line_and_a_quoted_line_break_none(tmp_path):
    content = HEADER + b'a,"two\nlines",true\nb,"open,true\nc,d,false\ne,"three\n\nlines",true\nf,g,false\n'
    found = load(write(tmp_path, "a.csv", content))
    assert [row["prompt"] for row in found] == ["a", "c", "e", "f"]
    assert [(e["row"], e["line"], e["raw"]) for e in side_entries(found.report)] == [(2, 4, 'b,"open,true')]


def test_a_complete_last_line_needs_no_line_end(tmp_path):
    assert len(load_feedback(write(tmp_path, "a.jsonl", as_jsonl([row_of(1)]).rstrip()))) == 1
    assert len(load_feedback(write(tmp_path, "a.csv", as_csv([row_of(1)]).rstrip()))) == 1
    assert len(load_feedback(write(tmp_path, "b.csv", HEADER + b'a,"b",true\r\nc,d,"false"'))) == 2


@pytest.mark.parametrize("end", [b"c", b"c,d", b'c,"d', b'c,"d,true', b"\xc3"])
def test_a_csv_that_ends_inside_its_last_line_says_so(end, tmp_path):
    report = load(write(tmp_path, "a.csv", HEADER + b"a,b,true\n" + end)).report
    assert report.rejected == {"cut_off": [2]}
    assert "ends in the middle" in report.reasons["cut_off"]


def test_a_last_line_that_is_no_beginning_of_json_is_not_called_cut_off(tmp_path):
    lines = [str(row_of(n)).encode() for n in range(3)]
    report = load(write(tmp_path, "a.jsonl", b"\n".join(lines))).report
    assert report.rejected == {"malformed": [1, 2, 3]}
    assert "printed Python dict" in report.reasons["malformed"]


def test_a_jsonl_file_cut_anywhere_in_its_last_line_says_so_also_inside_a_character(tmp_path):
    first, last = as_jsonl([row_of(1)]), '{"prompt": "caf\u00e9", "completion": "b", "label": true}'.encode()
    for length in range(1, len(last)):
        report = load(write(tmp_path, "a.jsonl", first + last[:length])).report
        assert report.rejected == {"cut_off": [2]}, last[:length]


def test_a_cell_longer_than_pythons_limit_is_read_and_the_limit_stays(tmp_path):
    limit = csv.field_size_limit()
    row = row_of(1) | {"completion": "x" * 200_000}
    assert list(load_feedback(write(tmp_path, "a.csv", as_csv([row])))) == [row]
    assert csv.field_size_limit() == limit


# ---------------------------------------------------------------- the side file

ONE_BAD = as_jsonl([row_of(1), row_of(2) | {"label": "up"}])


def test_a_side_file_is_never_overwritten_unless_asked(tmp_path):
    path, other = write(tmp_path, "a.jsonl", ONE_BAD), tmp_path / "other.jsonl"
    side = load_feedback(path, strict=False).report.side_file
    assert side == tmp_path / "a.jsonl.rejected.jsonl"
    side.write_text("by hand")
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        load_feedback(path, strict=False)
    assert side.read_text() == "by hand"
    assert load_feedback(path, strict=False, side_file=other).report.side_file == other
    load_feedback(path, strict=False, overwrite=True)
    assert json.loads(side.read_text())["row"] == 2


def test_an_older_side_file_does_not_outlive_the_faults_it_names(tmp_path):
    side = load(write(tmp_path, "a.jsonl", ONE_BAD)).report.side_file
    report = load(write(tmp_path, "a.jsonl", as_jsonl([row_of(1)]))).report
    assert report.side_file is None
    assert not side.exists()


def test_the_file_itself_is_no_side_file(tmp_path):
    path = write(tmp_path, "a.jsonl", ONE_BAD)
    with pytest.raises(ValueError, match="side_file is the file that is read"):
        load(path, side_file=path)
    assert path.read_bytes() == ONE_BAD


def test_an_interrupted_run_leaves_no_half_of_a_side_file_and_can_be_run_again(tmp_path, monkeypatch):
    path = write(tmp_path, "a.jsonl", ONE_BAD * 2)
    with monkeypatch.context() as patched:
        patched.setattr(feedback, "_side_entry", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            load_feedback(path, strict=False)
    assert not (tmp_path / "a.jsonl.rejected.jsonl").exists()
    assert len(side_entries(load_feedback(path, strict=False).report)) == 3


def test_mended_rows_of_a_side_file_and_the_kept_ones_are_the_whole_file(tmp_path):
    rows = [row_of(n) | {"label": "up" if n % 4 else True} for n in range(20)]
    found = load(write(tmp_path, "a.jsonl", as_jsonl(rows)))
    mended = [json.loads(entry["raw"]) | {"label": True} for entry in side_entries(found.report)]
    again = load_feedback(write(tmp_path, "b.jsonl", as_jsonl([*found, *mended])))
    assert sorted(row["prompt"] for row in again) == sorted(row["prompt"] for row in rows)


def test_a_file_that_changed_after_the_check_is_refused(tmp_path):
    path = write(tmp_path, "a.jsonl", as_jsonl([row_of(1), row_of(2)]))
    found = load_feedback(path)
    assert len(list(found)) == 2
    path.write_bytes(as_jsonl([row_of(3)]))
    with pytest.raises(ValueError, match="has changed since it was checked"):
        list(found)


# ---------------------------------------------------------------- size


def test_twenty_thousand_long_rows_are_checked_and_streamed_in_little_memory(tmp_path):
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        for n in range(20_000):
            file.write(as_jsonl([row_of(n) | {"completion": f" {n} " + "x" * 2_000}]))
    assert path.stat().st_size > 40e6
    tracemalloc.start()
    try:
        found = load_feedback(path)
        assert sum(1 for _ in found) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8e6, f"peak {peak / 1e6:.1f} MB for a file of 42 MB: something holds texts; see _Repeats and Feedback"


def test_loading_needs_no_torch(tmp_path):
    path = write(tmp_path, "a.jsonl", as_jsonl([row_of(1)]))
    code = (
        "import sys, kto_lab.loading as d; print(len(list(d.load_feedback(sys.argv[1])))); "
        "assert not {'torch', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, env=env())
    assert run.stdout.strip() == "1", run.stderr


# ---------------------------------------------------------------- python -m kto_lab.inspect


def env():
    return os.environ | {"PYTHONPATH": str(ROOT)}


def test_inspect_prints_the_report_and_the_weights(tmp_path, capsys):
    rows = [row_of(n, label=n < 3) for n in range(20)]
    path = write(tmp_path, "a.jsonl", as_jsonl([*rows, rows[0], row_of(50) | {"label": "up"}]))
    assert kto_lab.inspect.main([str(path)]) == 1
    out = capsys.readouterr().out
    assert load(path).report.text(terminal=True) in out
    assert "duplicate                      1   21" in out
    for ratio in (1.0, 4 / 3):
        up, down = balanced_weights(3, 17, ratio)
        assert f"{up:16.4f} {down:19.4f}" in out
    assert "row 22: the label is 'up'" in out
    assert "--accept duplicate" in out
    assert kto_lab.inspect.main([str(path), "--labels", "up=true", "--accept", "duplicate"]) == 0
    assert "5 up, 17 down" in capsys.readouterr().out


def test_inspect_reads_the_options(tmp_path, capsys):
    content = b"q,completion,label\np,c,1\nlong and longer,c,0\n" + b"word " * 60 + b",c,0\n"
    path = write(tmp_path, "a.csv", content)
    options = ["--columns", "prompt=q", "--labels", "1=true,0=false"]
    assert kto_lab.inspect.main([str(path), *options]) == 0
    assert kto_lab.inspect.main([str(path), *options, "--max-length", "30"]) == 1
    assert "cut_to_nothing                 1   3" in capsys.readouterr().out
    numbers = write(tmp_path, "a.jsonl", as_jsonl([row_of(1) | {"label": 1}, row_of(2) | {"label": "1"}]))
    assert kto_lab.inspect.main([str(numbers), "--labels", "1=true"]) == 0
    assert "No weights" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["none.jsonl"], ["a.txt"], ["none"]])
def test_inspect_says_in_one_line_why_a_file_cannot_be_read(arguments, capsys):
    assert kto_lab.inspect.main(arguments) == 2
    out, err = capsys.readouterr()
    assert arguments[0] in err
    assert (out, err.count("\n")) == ("", 1)


def test_inspect_says_in_one_line_that_a_folder_is_no_file(tmp_path, capsys):
    for path in (tmp_path, tmp_path / "thumbs.csv"):
        path.mkdir(exist_ok=True)
        assert kto_lab.inspect.main([str(path)]) == 2
        assert capsys.readouterr() == ("", f"{path} is a folder; name a file in it\n")


def test_inspect_names_the_option_for_a_column_of_another_name(tmp_path, capsys):
    path = write(tmp_path, "a.csv", b"prompt,completion,thumb\np,c,true\n")
    assert kto_lab.inspect.main([str(path)]) == 2
    assert "--columns label=thumb\n" in capsys.readouterr().err
    assert kto_lab.inspect.main([str(path), "--columns", "label=thumb"]) == 0


@pytest.mark.parametrize(
    ("labels", "option", "up"),
    [
        (["1", "0", "0"], "1=true,0=false", 1),
        ([0, 1, 1, 1], "0=false,1=true", 3),
        (["True", "False"], "True=true,False=false", 1),
        (["up", "down", "up"], "up=true,down=false", 2),
    ],
)
def test_inspect_names_the_option_that_reads_the_labels_it_found(labels, option, up, tmp_path, capsys):
    rows = [row_of(n) | {"label": label} for n, label in enumerate(labels)]
    path = write(tmp_path, "a.jsonl", as_jsonl(rows))
    assert kto_lab.inspect.main([str(path)]) == 1
    out = capsys.readouterr().out
    assert f"--labels {option}\n" in out
    assert f"{str(labels[0])!r} ({labels.count(labels[0])})" in out
    assert "No weights: no row is good." in out
    assert kto_lab.inspect.main([str(path), "--labels", option]) == 0
    assert f"({up} up, {len(rows) - up} down)" in capsys.readouterr().out


def test_inspect_proposes_no_meaning_for_labels_that_have_none_by_themselves(tmp_path, capsys):
    rows = [row_of(n) | {"label": n} for n in range(9)]
    assert kto_lab.inspect.main([str(write(tmp_path, "a.jsonl", as_jsonl(rows)))]) == 1
    out = capsys.readouterr().out
    assert "'0' (1), '1' (1), '2' (1), '3' (1), '4' (1), '5' (1) and 3 others" in out
    assert "--labels VALUE=true,VALUE=false\n" in out


@pytest.mark.parametrize("labels", ["up", "up=yes", "=true"])
def test_inspect_refuses_a_mapping_that_is_none(labels, capsys):
    with pytest.raises(SystemExit):
        kto_lab.inspect.main(["a.jsonl", "--labels", labels])
    assert "--labels" in capsys.readouterr().err


def test_inspect_says_nothing_when_its_reader_has_seen_enough(tmp_path):
    path = write(tmp_path, "a.jsonl", as_jsonl([row_of(n) | {"label": "up"} for n in range(3)]))
    program = [sys.executable, "-u", "-m", "kto_lab.inspect", path]  # unbuffered: the first print meets the closed pipe
    run = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env(), cwd=tmp_path)
    run.stdout.close()
    assert run.stderr.read() == b""
    run.stderr.close()
    assert run.wait() == 0


def test_inspect_runs_as_a_module_changes_nothing_and_hides_no_module_of_python(tmp_path):
    path = write(tmp_path, "a.jsonl", ONE_BAD)
    run = subprocess.run(
        [sys.executable, "-m", "kto_lab.inspect", path], capture_output=True, text=True, env=env(), cwd=tmp_path
    )
    assert run.returncode == 1, run.stderr
    assert "label_not_boolean              1   2" in run.stdout
    assert run.stderr == ""
    assert list(tmp_path.iterdir()) == [path]
    assert Path(inspect.__file__).parent != Path(kto_lab.inspect.__file__).parent


# ---------------------------------------------------------------- what helps reaches the one who needs it

ANSWERS = [{"question": f"q{n}", "answer": f"a{n}", "thumb": n % 2 == 0} for n in range(6)]
OPTION = "--columns prompt=question,completion=answer,label=thumb"


def test_the_error_shows_one_reason_and_one_remedy_for_each_kind(tmp_path, tokenizer, short_records):
    content, expected, _, _ = thousand("jsonl")
    path = write(tmp_path, "thumbs.jsonl", content)
    with pytest.raises(FeedbackError) as refused:
        load_feedback(path, tokenizer=tokenizer, max_length=MAX_LENGTH)
    blocks = str(refused.value).split("which\n")[1].split("\n\n")[0].split("\n")
    shown = {}
    for line in blocks:
        if not line.startswith("    "):
            kind = line.split()[0]
            shown[kind] = []
        else:
            shown[kind].append(line.strip())
    assert set(shown) == set(expected.values())
    for kind, lines in shown.items():
        first = min(number for number, found in expected.items() if found == kind)
        assert lines[0].startswith(f"row {first}: "), kind
        said = " ".join(lines)
        remedies = (REMEDIES[kind].split("{")[0], "name it: columns=", "as in labels=", "null")
        assert any(words and words in said for words in remedies), f"{kind} has no remedy"


@pytest.mark.parametrize("extension", ["jsonl", "ndjson", "csv", "parquet"])
def test_fields_of_other_names_are_listed_with_the_option_in_every_format(extension, tmp_path, capsys):
    path = tmp_path / f"a.{extension}"
    frame = pandas.DataFrame(ANSWERS)
    write_frame = {"csv": lambda: frame.to_csv(path, index=False), "parquet": lambda: frame.to_parquet(path)}
    write_frame.get(extension, lambda: frame.to_json(path, orient="records", lines=True))()
    with pytest.raises(ValueError, match=r"no (column )?'prompt'") as refused:
        load_feedback(path)
    for name in ("question", "answer", "thumb"):
        assert f"'{name}'" in str(refused.value)
    assert "columns={'prompt': 'question', 'completion': 'answer', 'label': 'thumb'}" in str(refused.value)
    assert kto_lab.inspect.main([str(path)]) > 0
    printed = capsys.readouterr()
    assert OPTION in printed.out + printed.err
    assert kto_lab.inspect.main([str(path), *OPTION.split()]) == 0
    assert "(3 up, 3 down)" in capsys.readouterr().out


def test_where_every_row_fails_alike_the_fields_found_and_the_option_are_named(tmp_path, capsys):
    rows = [row_of(n) | {"prompt": n, "question": "q"} for n in range(5)]
    path = write(tmp_path, "a.jsonl", as_jsonl(rows))
    assert kto_lab.inspect.main([str(path)]) == 1
    out = capsys.readouterr().out
    assert "every row fails alike; row 1: " in out
    assert "'prompt', 'completion', 'label', 'question'" in " ".join(out.split())
    assert "--columns prompt=question\n" in out
    assert kto_lab.inspect.main([str(path), "--columns", "prompt=question"]) == 0
    capsys.readouterr()
    path = write(tmp_path, "b.jsonl", as_jsonl([*rows, row_of(9)]))
    assert kto_lab.inspect.main([str(path)]) == 1
    assert "alike" not in capsys.readouterr().out, "one row is good"


def test_null_and_missing_are_told_apart(tmp_path):
    report = load(write(tmp_path, "a.jsonl", as_jsonl([row_of(1) | {"label": None}]))).report
    assert report.reasons["missing_label"] == "'label' is null"
    report = load(write(tmp_path, "a.csv", HEADER + b"a,b,\n")).report
    assert report.reasons["missing_label"] == "'label' is empty"
    report = load(write(tmp_path, "a.jsonl", as_jsonl([{"prompt": "a", "completion": "b"}]))).report
    assert report.reasons["missing_label"] == "there is no 'label'; the fields are 'prompt', 'completion'"


def test_an_option_names_what_a_shell_would_cut():
    assert columns_advice(["My question", "completion", "label"], {}, True).endswith("--columns prompt=NAME")
    assert '"prompt=Question ,' in columns_advice(["Question ", "answer"], {}, True)
    assert columns_advice(["Question", "completion", "label"], {}, False).endswith("columns={'prompt': 'Question'}")
    found, given = ["ask", "label", "reply"], {"prompt": "ask", "completion": "answr"}
    assert columns_advice(found, given, True).endswith("--columns prompt=ask,completion=reply")
    assert labels_advice({"thumbs up": 2, "thumbs down": 1}, True).endswith('"thumbs up=true,thumbs down=false"')
    assert labels_advice({1: 2, 0: 1}, False).endswith("labels={1: True, 0: False}")


@pytest.mark.parametrize(
    ("labels", "option"),
    [(["1.0", "0.0"], "1.0=true,0.0=false"), ([1, -1], "1=true,-1=false"), (["Yes", "No"], "Yes=true,No=false"),
     ([1, 0, -1], "VALUE=true,VALUE=false"), (["thumbs_up", "meh"], "VALUE=true,VALUE=false"),
     ([1, 0, 2, 3], "VALUE=true,VALUE=false"), (["0", "1", "n/a", "5"], "VALUE=true,VALUE=false")],
)  # fmt: skip
def test_usual_labels_are_proposed_and_doubtful_ones_are_not(labels, option, tmp_path, capsys):
    rows = [row_of(n) | {"label": label} for n, label in enumerate(labels)]
    path = write(tmp_path, "a.jsonl", as_jsonl(rows))
    assert kto_lab.inspect.main([str(path)]) == 1
    assert f"--labels {option}\n" in capsys.readouterr().out
    if "VALUE" not in option:
        assert kto_lab.inspect.main([str(path), "--labels", option]) == 0
    with pytest.raises(FeedbackError, match=r"labels=\{"):
        load_feedback(path)


def test_a_label_without_a_usual_meaning_hides_no_others(tmp_path, capsys):
    rows = [row_of(n) | {"label": label} for n, label in enumerate(["up", "down", "skipped", "down"])]
    path = write(tmp_path, "a.jsonl", as_jsonl(rows))
    kto_lab.inspect.main([str(path)])
    out = capsys.readouterr().out
    assert "--labels up=true,down=false\n" in out
    assert "no usual meaning has 'skipped': leave those rows out" in " ".join(out.split())


def test_a_line_that_was_cut_in_the_middle_of_the_file_says_so(tmp_path):
    first, second = as_jsonl([row_of(1), row_of(2)]).splitlines()
    report = load(write(tmp_path, "a.jsonl", first[:30] + b"\n" + second + b"\n")).report
    assert report.reasons["malformed"].endswith("the line ends in the middle")


# ---------------------------------------------------------------- sentences that are true


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", b""), ("a.jsonl", b"\n\n \n"), ("a.csv", HEADER), ("a.csv", HEADER + b"\r\n"), ("a.jsonl", BOM)],
)
def test_a_file_without_a_row_is_not_all_good(name, content, tmp_path, capsys):
    path = write(tmp_path, name, content)
    assert kto_lab.inspect.main([str(path)]) == 1
    assert capsys.readouterr().out == f"{name}: the file holds no row\n"
    with pytest.raises(FeedbackError, match=r"holds no row$"):
        load_feedback(path)


@pytest.mark.parametrize(("label", "side"), [(True, "up"), (False, "down")])
def test_no_weights_says_which_thumbs_there_are(label, side, tmp_path, capsys):
    kto_lab.inspect.main([str(write(tmp_path, "a.jsonl", as_jsonl([row_of(n, label) for n in range(3)])))])
    assert f"all 3 good thumbs are {side}" in capsys.readouterr().out
    kto_lab.inspect.main([str(write(tmp_path, "b.jsonl", as_jsonl([{"prompt": ""}])))])
    assert "No weights: no row is good." in capsys.readouterr().out


@pytest.mark.parametrize("tail", [b"\n", b"\n\n\n", b"\r\n\r\n", b"  \n\t", b" "])
def test_blank_lines_at_the_end_are_no_rows_and_between_rows_they_are(tail, tmp_path):
    rows = [row_of(1), row_of(2)]
    for name, whole in (("a.jsonl", as_jsonl(rows)), ("a.csv", as_csv(rows))):
        assert list(load_feedback(write(tmp_path, name, whole + tail))) == rows
    report = load(write(tmp_path, "a.jsonl", as_jsonl(rows[:1]) + b"\n" + as_jsonl(rows[1:]) + tail)).report
    assert report.rejected == {"blank_line": [2]}


def test_a_quote_inside_an_unquoted_cell_is_a_character(tmp_path):
    content = HEADER + b'a 5" pipe,ok,true\nsay "no" twice,"he said ""yes"", then\nleft",false\n,"",true\nb,6",true\n'
    found = load(write(tmp_path, "a.csv", content))
    assert [(row["prompt"], row["completion"]) for row in found] == [
        ('a 5" pipe', "ok"), ('say "no" twice', 'he said "yes", then\nleft'), ("b", '6"')
    ]  # fmt: skip
    assert found.report.rejected == {"empty_prompt": [3]}


QUOTED = st.lists(st.sampled_from([b'"', b'""', b",", b"a", b" "]), max_size=9).map(b"".join)


@settings(max_examples=300)
@given(QUOTED)
def test_a_quote_is_open_where_pythons_reader_waits_for_more(line):
    rows = list(csv.reader([line.decode() + "\n", "z\n"]))
    assert records._is_open(line + b"\n", False) == (len(rows) == 1)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("extension", ["jsonl", "csv"])
def test_utf_16_is_named(encoding, extension, tmp_path, capsys):
    text = (as_jsonl if extension == "jsonl" else as_csv)([row_of(n) for n in range(3)]).decode()
    path = write(tmp_path, f"a.{extension}", text.encode(encoding))
    assert kto_lab.inspect.main([str(path)]) == 2
    err = capsys.readouterr().err
    assert f"a.{extension} is UTF-16" in err
    assert "Save it as UTF-8" in err


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_one_json_array_in_a_jsonl_file_is_named_and_the_remedy_works(indent, tmp_path, monkeypatch, capsys):
    rows = [row_of(n) for n in range(4)]
    path = write(tmp_path, "it's.jsonl", json.dumps(rows, indent=indent).encode())
    assert kto_lab.inspect.main([str(path)]) == 2
    err = capsys.readouterr().err
    assert "holds one JSON array" in err
    monkeypatch.chdir(tmp_path)
    exec(err.split("In Python: ")[1].strip())
    assert list(load_feedback("lines.jsonl")) == rows


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b"[" + b",\n".join(as_jsonl([row_of(1), row_of(2)]).splitlines()) + b"]", "one JSON array"),
        ("a.jsonl", json.dumps(row_of(1), indent=2).encode(), "over several lines"),
        ("a.jsonl", json.dumps([row_of(1)] * 3000).encode(), "one JSON array"),
        ("a.csv", as_csv([row_of(1), row_of(2)], "\r"), "line ends of CR alone"),
        ("a.csv", b"PK\x03\x04" + b"x" * 99, "spreadsheet"),
        ("a.jsonl", b"\x1f\x8b\x08" + b"x" * 99, "gzip"),
        ("a.jsonl", b"PAR1" + b"x" * 99, "Parquet file"),
        ("a.json", b"[]", "json.load(open('a.json'"),
        ("a.xlsx", b"PK", "save the sheet as CSV"),
        ("a.jsonl.gz", b"", "unpack it first"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_named(name, content, words, tmp_path):
    with pytest.raises(ValueError, match=name) as refused:
        load(write(tmp_path, name, content))
    assert words in str(refused.value)


def test_one_list_among_objects_costs_one_row(tmp_path):
    lines = [b"[" + json.dumps(row_of(1)).encode() + b"]", *as_jsonl([row_of(2), row_of(3)]).splitlines()]
    report = load(write(tmp_path, "a.jsonl", b"\n".join(lines))).report
    assert report.rejected == {"not_an_object": [1]}


@pytest.mark.parametrize(
    "labels",
    [{np.int64(1): np.True_, np.int64(0): np.False_}, {np.float64(1.0): True, 0.0: np.False_},
     {key: bool(key) for key in pandas.Series([1, 0]).unique()}],
)  # fmt: skip
def test_numbers_and_booleans_of_numpy_and_pandas_count_as_such(labels, tmp_path):
    rows = [row_of(n) | {"label": n} for n in (0, 1)]
    assert [row["label"] for row in load_feedback(write(tmp_path, "a.jsonl", as_jsonl(rows)), labels=labels)] == [
        False, True
    ]  # fmt: skip
    for cells in (b"a,b,1\nc,d,0\n", b"a,b,1.0\nc,d,0.0\n"):
        path = write(tmp_path, "a.csv", HEADER + cells)
        assert [row["label"] for row in load_feedback(path, labels=labels)] == [True, False]


def test_a_data_frame_instead_of_a_path_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"path is a DataFrame; .* frame\.to_json"):
        load_feedback(pandas.DataFrame([row_of(1)]))
    frame = pandas.DataFrame([row_of(1), row_of(2)])
    frame.to_json(tmp_path / "thumbs.jsonl", orient="records", lines=True)
    assert list(load_feedback(tmp_path / "thumbs.jsonl")) == [row_of(1), row_of(2)]


@pytest.mark.parametrize("label", [np.True_, np.False_, np.bool_(1), pandas.Series([True])[0]])
def test_a_boolean_of_numpy_in_a_row_is_a_boolean(label, tokenizer):
    row = row_of(1) | {"label": label}
    made = tokenize_feedback(row, tokenizer)
    assert made["label"] is bool(label)
    check_example(made | {"label": label}, "row 0")
    pairs, left_over = pair_up([row, row | {"label": not label}], seed=0)
    assert (len(pairs), left_over) == (1, [])
    with pytest.raises(TypeError, match=r"label is np\.int64"):
        tokenize_feedback(row | {"label": np.int64(1)}, tokenizer)


def test_a_count_of_numpy_is_a_whole_number():
    labels = pandas.Series([True] * 3 + [False] * 12)
    assert balanced_weights(labels.sum(), (~labels).sum()) == (4.0, 1.0)
    with pytest.raises(TypeError, match="whole number"):
        balanced_weights(np.float64(3.0), 12)


def test_a_data_frame_as_rows_is_named_with_what_to_pass():
    frame = pandas.DataFrame([{"prompt": "p", "chosen": "c", "rejected": "d"}])
    with pytest.raises(TypeError, match=r"of a DataFrame: \.to_dict\('records'\)"):
        unpair(frame, seed=0)
    assert len(unpair(frame.to_dict("records"), seed=0)) == 2


@pytest.mark.parametrize("method", ["sft", "kto", "dpo"])
def test_a_data_frame_as_rows_of_a_training_is_named_with_what_to_pass(method, tokenizer):
    rows = load_eight_rows() if method != "dpo" else [{"prompt": "p", "chosen": " c", "rejected": " d"}] * 2
    policy = load_reference_model()
    models = (policy,) if method == "sft" else (policy, reference_of(policy))
    train = {"sft": train_sft, "kto": train_kto, "dpo": train_dpo}[method]
    with pytest.raises(TypeError, match=r"(row|pair) 0.* is a str; .*of a DataFrame: \.to_dict\('records'\)"):
        train(*models, pandas.DataFrame(rows), tokenizer, steps=1, batch_size=2)
    train(*models, pandas.DataFrame(rows).to_dict("records"), tokenizer, steps=1, batch_size=2)
