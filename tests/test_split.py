"""Cutting thumbs into training and evaluation: no user or question on both sides, nothing lost, nothing by chance."""

import json
import random

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_lab import split
from kto_lab.loading import load_feedback


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


def thumbs(n=200, users=20, seed=0):
    rng = random.Random(seed)
    return [{"prompt": f"Question {rng.randrange(n // 4)}?", "completion": f" reply {i}", "label": rng.random() < 0.4,
             "user": f"u{rng.randrange(users)}"} for i in range(n)]  # fmt: skip


def write(folder, rows, name="thumbs.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sides(folder):
    read = [(folder / name).read_text(encoding="utf-8").splitlines() for name in (split.TRAIN, split.EVAL)]
    return [[json.loads(line) for line in lines] for lines in read]


def run(path, *options):
    return split.main([str(path), *map(str, options)])


@pytest.mark.parametrize(("by", "field"), [("question", "prompt"), ("user", "user")])
def test_no_group_is_on_both_sides_and_no_row_is_lost(by, field, tmp_path, capsys):
    rows = thumbs()
    assert run(write(tmp_path, rows), "--by", by, "--share", 0.2) == 0
    train, judged = sides(tmp_path)
    assert not {row[field] for row in train} & {row[field] for row in judged}
    assert sorted(map(json.dumps, [*train, *judged])) == sorted(map(json.dumps, rows))
    assert 0.1 <= len(judged) / len(rows) <= 0.3
    out = capsys.readouterr().out
    up = sum(row["label"] for row in judged)
    assert f"{split.EVAL:<16} {len(judged):>9} {up:>9} {len(judged) - up:>9}" in out
    assert "desirable_weight" in out
    for side in (split.TRAIN, split.EVAL):
        assert load_feedback(tmp_path / side).report.rejected == {}


def test_the_same_seed_makes_the_same_cut_and_another_one_another(tmp_path):
    path, found = write(tmp_path, thumbs()), []
    for n, seed in enumerate((0, 0, 1)):
        assert run(path, "--seed", seed, "--out", tmp_path / str(n)) == 0
        found.append(sides(tmp_path / str(n)))
    assert found[0] == found[1] != found[2]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(8, 60), st.floats(0.1, 0.6))
def test_rows_of_any_order_and_groups_of_any_size_are_cut_cleanly(tmp_path_factory, seed, n, share):
    folder, rng = tmp_path_factory.mktemp("cut"), random.Random(seed)
    rows = [{"prompt": f"q{min(int(rng.expovariate(0.3)), 9)}", "completion": f"c{i}", "label": i % 2 == 0}
            for i in range(n)]  # fmt: skip
    status = run(write(folder, rows), "--share", share)
    if status == 0:
        train, judged = sides(folder)
        assert not {row["prompt"] for row in train} & {row["prompt"] for row in judged}
        assert len(train) + len(judged) == n
        assert len(judged) <= max(1, split.SEVERAL * share * n)
    else:
        assert sorted(path.name for path in folder.iterdir()) == ["thumbs.jsonl"], "refused, so nothing is written"


@pytest.mark.parametrize("wording", ["question 0", "  Question  0 ?", "QUESTION 0!", "Question\u00a00?"])
def test_a_question_in_other_letters_is_the_same_question(wording, tmp_path):
    rows = [row | {"prompt": wording if n % 2 else "Question 0?"} for n, row in enumerate(thumbs(40))]
    assert run(write(tmp_path, [*rows, *thumbs(40, seed=1)])) == 0
    asked = [{split._same_text(row["prompt"]) for row in side} for side in sides(tmp_path)]
    assert not asked[0] & asked[1]


def chats(n=120):
    rng, rows = random.Random(0), []
    for i in range(n):
        first = [{"role": "system", "content": f"System {i % 3}"}] * (i % 2) + [user(f"Question {rng.randrange(30)}?")]
        more = [bot("So."), user(f"And {i}?")] if i % 3 == 0 else []
        rows.append({"prompt": first + more, "completion": [bot(f"Reply {i}")], "label": rng.random() < 0.4})
    return rows


def test_all_turns_of_a_chat_stay_together_whatever_its_system_prompt(tmp_path):
    rows = chats()
    assert run(write(tmp_path, rows), "--share", 0.3) == 0
    firsts = [{next(m["content"] for m in row["prompt"] if m["role"] == "user") for row in side}
              for side in sides(tmp_path)]  # fmt: skip
    assert not firsts[0] & firsts[1]
    assert sum(map(len, sides(tmp_path))) == len(rows)


def test_other_layouts_come_out_as_trl_reads_them(tmp_path):
    rows = [{"messages": row["prompt"] + row["completion"], "kto_tag": row["label"]} for row in chats()]
    assert run(write(tmp_path, rows)) == 0
    for row in [row for side in sides(tmp_path) for row in side]:
        assert set(row) == {"prompt", "completion", "label"}
        assert row["completion"][0]["role"] == "assistant"


def test_both_thumbs_of_a_pair_are_on_one_side(tmp_path, capsys):
    rows = [{"prompt": f"q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(40)]
    assert run(write(tmp_path, rows), "--share", 0.25) == 0
    train, judged = sides(tmp_path)
    assert (len(train), len(judged)) == (60, 20)
    assert sum(row["label"] for row in judged) == 10
    assert "80 thumbs of 40 good rows" in capsys.readouterr().out


def test_a_reply_that_both_sides_hold_is_left_out_of_training_and_named(tmp_path, capsys):
    rows = [{"prompt": f"Question {n}?", "completion": f"reply {n}", "label": n % 2 == 0, "user": f"u{n % 10}"}
            for n in range(100)]  # fmt: skip
    copies = [row | {"user": f"u{(n + 1) % 10}", "completion": row["completion"].upper()} for n, row in enumerate(rows)]
    assert run(write(tmp_path, rows + copies), "--by", "user", "--share", 0.1) == 0
    train, judged = sides(tmp_path)
    held = {(row["prompt"], row["completion"].lower()) for row in judged}
    assert not held & {(row["prompt"], row["completion"].lower()) for row in train}
    lost = [n for n, row in enumerate(rows + copies, start=1) if row not in train and row not in judged]
    out = capsys.readouterr().out
    assert len(lost) == 200 - len(train) - len(judged) > 0
    assert f"{'left out':<16} {len(lost):>9}   the same question with the same reply stands in eval.jsonl" in out
    assert "rows " + ", ".join(map(str, lost[:5])) in out


def test_questions_on_both_sides_are_counted_where_the_cut_is_by_user(tmp_path, capsys):
    assert run(write(tmp_path, thumbs()), "--by", "user") == 0
    train, judged = ({row["prompt"] for row in side} for side in sides(tmp_path))
    assert f"\n{len(train & judged)} questions stand on both sides" in capsys.readouterr().out


@pytest.mark.parametrize("nobody", [None, "", "gone"])
def test_rows_of_nobody_are_left_out_and_named(nobody, tmp_path, capsys):
    rows = thumbs()
    rows[6] = {name: value for name, value in (rows[6] | {"user": nobody}).items() if value != "gone"}
    assert run(write(tmp_path, rows), "--by", "user") == 0
    assert sum(map(len, sides(tmp_path))) == 199
    assert f"{'left out':<16} {1:>9}   no user: rows 7\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({}, ["--by", "session"], "no row has a field 'session'; the fields are 'completion', 'label', 'prompt',"),
        ({"user": "me"}, ["--by", "user"], "one group"),
        ({"label": True}, ["--share", "0.3"], "only thumbs up: take another --seed"),
        ({}, ["--share", "0"], "between 0 and 1"),
        ({}, ["--share", "1"], "between 0 and 1"),
        ({}, ["--share", "0.01"], "too large for a share"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_one_line(change, options, words, tmp_path, capsys):
    rows = [row | change | {"prompt": f"q{n % 4}"} for n, row in enumerate(thumbs(40))]
    assert run(write(tmp_path, rows), *options) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err
    assert len(list(tmp_path.iterdir())) == 1


def test_bad_rows_are_refused_or_put_aside_with_their_reason(tmp_path, capsys):
    path = write(tmp_path, [*thumbs(), {"prompt": "", "completion": "a", "label": True}, {"prompt": "b"}])
    assert run(path) == 1
    out = capsys.readouterr().out
    assert "the prompt has no visible character" in out
    assert "--good-rows" in out
    assert list(tmp_path.iterdir()) == [path]
    assert run(path, "--good-rows") == 0
    assert "2 rows are not good; thumbs.jsonl.rejected.jsonl holds them" in capsys.readouterr().out
    assert sum(map(len, sides(tmp_path))) == 200
    assert len((tmp_path / "thumbs.jsonl.rejected.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_an_earlier_cut_is_replaced_only_if_asked_and_the_source_never(tmp_path, capsys):
    path = write(tmp_path, thumbs())
    assert run(path) == 0
    assert run(path, "--seed", 1) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(path, "--seed", 1, "--overwrite") == 0
    assert run(tmp_path / split.TRAIN, "--overwrite") == 2
    assert "replaced by its own part" in capsys.readouterr().err
    assert run(tmp_path / split.TRAIN, "--out", tmp_path / "again") == 0


def test_a_failure_on_the_way_leaves_the_old_cut(tmp_path, monkeypatch):
    path = write(tmp_path, thumbs())
    assert run(path) == 0
    before = sides(tmp_path)
    monkeypatch.setattr(split, "to_json", lambda thumb: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(path, "--seed", 1, "--overwrite")
    assert sides(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 3


def test_csv_and_parquet_with_options_and_columns_of_other_names(tmp_path):
    frame = pandas.DataFrame([row | {"label": int(row["label"])} for row in thumbs()])
    frame = frame.rename(columns={"prompt": "ask", "user": "user id"})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        options = ["--columns", "prompt=ask", "--labels", "1=true,0=false", "--by", "user id", "--overwrite"]
        assert run(tmp_path / name, *options) == 0
        assert sum(map(len, sides(tmp_path))) == 200
        assert {type(row["label"]) for row in sides(tmp_path)[0]} == {bool}


def test_a_user_s_number_is_a_user(tmp_path):
    rows = [row | {"user": int(row["user"][1:])} for row in thumbs()]
    assert run(write(tmp_path, rows), "--by", "user") == 0
    users = [{row["user"] for row in side} for side in sides(tmp_path)]
    assert not users[0] & users[1]


def test_a_question_of_a_later_turn_on_both_sides_is_counted_as_such(tmp_path, capsys):
    rows = [{"messages": [user(f"First {n}?"), bot("So."), user("And then?"), bot(f"Reply {n}")], "label": n % 2 == 0}
            for n in range(40)]  # fmt: skip
    assert run(write(tmp_path, rows), "--share", 0.25) == 0
    out = capsys.readouterr().out
    assert "1 last questions of chats stand on both sides" in out
    assert "cut by question" not in out.split("good rows, cut by question")[1]
