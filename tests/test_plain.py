"""What is written can be read by other programs, and a file is whole or as it was (`kto_lab.plain`)."""

import ast
import datetime
import json
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kto_lab.checkpoints import Checkpoint
from kto_lab.looking import EachStep
from kto_lab.plain import plain, to_json, write_jsonl, write_whole
from kto_utils.data import load_eight_rows
from kto_utils.model import load_reference_model, reference_of
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import Parts, train_kto

ROOT = Path(__file__).resolve().parents[1]


def strict(text):
    """As programs other than Python read it."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None), (float("inf"), None), (-math.inf, None), (np.float64("nan"), None), (0.1, 0.1),
        (np.int64(3), 3), (np.float32(0.5), 0.5), (np.bool_(True), True), (np.str_("a"), "a"), (np.arange(2), [0, 1]),
        (np.array(2.0), 2.0), (torch.tensor(2), 2), (torch.tensor([1.0, float("nan")]), [1.0, None]),
        (datetime.datetime(2026, 3, 1, 12, 30), "2026-03-01T12:30:00"), (datetime.date(2026, 3, 1), "2026-03-01"),
        (pandas.Timestamp("2026-03-01 12:30"), "2026-03-01T12:30:00"), (pandas.NaT, None), (pandas.NA, None),
        (np.datetime64("2026-03-01T12:30", "ns"), "2026-03-01T12:30:00.000000000"), (np.datetime64("NaT"), None),
        (pandas.Series([1, 2]), [1, 2]), (pandas.Series(pandas.to_datetime(["2026-03-01"])), ["2026-03-01T00:00:00"]),
        (b"a", {"base64": "YQ=="}), (Path("a"), "a"), (Decimal("1.5"), "1.5"), ((1, (2,)), [1, [2]]), ({2, 1}, [1, 2]),
        ({1: np.int8(1), "b": [float("nan")]}, {"1": 1, "b": [None]}), (True, True), ("\u00e9", "\u00e9"), (None, None),
    ],
)  # fmt: skip
def test_a_value_becomes_plain(value, expected):
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)
    assert strict(to_json(value)) == expected


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(ANY)
def test_any_value_is_one_line_of_utf_8_that_every_reader_reads(value):
    text = to_json(value)
    assert len(text.splitlines()) == 1
    assert text.encode("utf-8").decode("utf-8") == text
    assert strict(text) == plain(value)


def test_a_failure_on_the_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, rows())
    assert path.read_text() == '{"a": 1}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_rows_with_a_time_are_written_and_the_folder_is_made(tmp_path):
    path = tmp_path / "new" / "folder" / "rows.jsonl"
    frame = pandas.DataFrame({"time": pandas.to_datetime(["2026-03-01"]), "label": [True], "n": [1], "x": [None]})
    write_jsonl(path, frame.to_dict("records"))
    assert strict(path.read_text()) == {"time": "2026-03-01T00:00:00", "label": True, "n": 1, "x": None}
    with pytest.raises(TypeError, match=r"of a DataFrame: \.to_dict"):
        write_jsonl(path, frame)
    assert len(path.read_text().splitlines()) == 1, "the old file is still there"


def test_a_file_may_be_written_from_its_own_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"n": n} for n in range(3)])
    with path.open() as file:
        write_jsonl(path, (json.loads(line) | {"more": 1} for line in file))
    assert len(path.read_text().splitlines()) == 3


def test_write_whole_writes_line_ends_as_given(tmp_path):
    write_whole(tmp_path / "a", ["a\n", "b\r\n"])
    assert (tmp_path / "a").read_bytes() == b"a\nb\r\n"


def test_the_log_of_a_batch_of_one_kind_holds_null_and_no_nan():
    rows = [row | {"label": True} for row in load_eight_rows()]
    policy = load_reference_model()
    _, history = train_kto(policy, reference_of(policy), rows, load_tokenizer(), steps=1, batch_size=8)
    assert math.isnan(history[0]["reward_undesirable"])
    assert strict(to_json(history))[0]["reward_undesirable"] is None


def test_the_folder_of_a_checkpoint_is_made_before_the_first_step(tmp_path):
    policy, rows, tokenizer, steps = load_reference_model(), load_eight_rows(), load_tokenizer(), []

    def train(path):
        parts = Parts(callbacks=[Checkpoint(path, every=5), EachStep(lambda step, model: steps.append(step))])
        train_kto(policy, reference_of(policy), rows, tokenizer, steps=1, batch_size=8, parts=parts)

    train(tmp_path / "new" / "run.pt")
    assert (tmp_path / "new").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        train(tmp_path / "file" / "run.pt")
    assert steps == [1], "the second run has made no step"


DUMPS = {  # texts for a digest, for a message, for a notebook: nothing in them is a number that was computed
    "kto_lab/checkpoints.py", "kto_lab/comparison/settings.py", "kto_lab/comparison/results.py", "kto_lab/recipes.py",
    "kto_lab/rows.py", "kto_lab/scaling.py", "kto_lab/plain.py",
    "kto_lab/real/story.py",  # which refuses NaN
}  # fmt: skip


ALONE = ("train_with_trl.py", "rows.py", "watch.py")  # scripts that need nothing of the course


@pytest.mark.parametrize("path", sorted((ROOT / "kto_lab").rglob("*.py")), ids=lambda path: path.stem)
def test_results_are_written_through_plain_values(path):
    """json.dump(s) writes NaN; where it stays it is named above."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    calls = [n for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n) in ("json.dump", "json.dumps")]
    assert not calls or path.relative_to(ROOT).as_posix() in DUMPS or path.name in ALONE
