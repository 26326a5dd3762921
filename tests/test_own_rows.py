"""`course.py real --rows --check`: from a user's rows to a report; a tiny model stands in for the chat model."""

import csv
import json

import pytest

from kto_lab.real import __main__ as command
from kto_lab.real import own, protocol, questions
from tests.test_real import byte_tokenizer, chat_folder  # noqa: F401  (a fixture)


@pytest.fixture
def quick(monkeypatch, chat_folder):  # noqa: F811
    monkeypatch.setattr(own, "facts", lambda: questions.facts()[:3])
    monkeypatch.setattr(own, "neutral_texts", lambda: questions.neutral_texts()[:2])
    monkeypatch.setattr(protocol, "FACT_TOKENS", 4)
    monkeypatch.setattr(protocol, "LEARNING_RATE", 3e-3)  # a model that knows nothing needs a larger one
    for name, value in {"PROMPTS": 3, "NEW_TOKENS": 5, "SCORED": 16}.items():
        monkeypatch.setattr(own, name, value)
    return str(chat_folder)


def rows(n, start=0):
    """Thumbs up for a reply in small letters."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"Word {start + place // 2}?"},
                {"role": "assistant", "content": "yes" if place % 2 else "NO!"},
            ],
            "label": bool(place % 2),
        }
        for place in range(n)
    ]


def written(path, made):
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return str(path)


@pytest.fixture
def arguments(tmp_path, quick):
    files = [written(tmp_path / "train.jsonl", rows(24)), written(tmp_path / "eval.jsonl", rows(12, 50))]
    return ["--rows", files[0], "--check", files[1], "--model", quick, "--folder", str(tmp_path / "run")]


def filled(table, up, dropped=0):
    """The table as a rater leaves it who likes what `up` says and loses so many lines."""
    with open(table, encoding="utf-8-sig", newline="") as handle:
        lines = list(csv.DictReader(handle))
    with open(table, "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, own.COLUMNS)
        writer.writeheader()
        writer.writerows(line | {"thumb": up(line)} for line in reversed(lines[dropped:]))
    return lines


def test_rows_become_a_report_that_says_where_the_thumbs_moved_it(arguments, tmp_path, capsys):
    assert command.main([*arguments, "--steps", "12"]) == 0
    shown = capsys.readouterr().out
    kto = json.loads((tmp_path / "run" / "kto.json").read_text(encoding="utf-8"))
    assert (kto["n_up"], kto["n_down"], len(kto["history"])) == (12, 12, 12)
    assert kto["reward_margin"] > 2 * kto["margin_error"] > 0
    assert kto["in_order"] == 1
    assert "It moved as the thumbs point" in shown
    assert "nobody has judged yet" in shown
    assert "SFT on the thumbs-up" in shown
    assert (tmp_path / "run" / "report_kto.html").is_file()


def test_a_rater_s_table_is_blind_and_gives_the_verdict(arguments, tmp_path, capsys):
    assert command.main([*arguments, "--steps", "1"]) == 0
    table = tmp_path / "run" / "rate_kto.csv"
    assert command.main([*arguments, "--steps", "1", "--ratings", str(table)]) == 2
    assert "number 1: thumb is ''" in capsys.readouterr().err
    after = json.loads((tmp_path / "run" / "kto.json").read_text(encoding="utf-8"))["replies"]
    liked = {" ".join(reply["text"].split()) for reply in after}
    lines = filled(table, lambda line: "up" if " ".join(line["reply"].split()) in liked else "down")
    assert set(lines[0]) == set(own.COLUMNS)
    assert len(lines) == 2 * len(after)
    before = json.loads((tmp_path / "run" / "before.json").read_text(encoding="utf-8"))["replies"]
    order = [line["reply"].split() for line in lines[: len(before)]]
    assert order != [reply["text"].split() for reply in before]  # else the place would say whose it is
    assert command.main([*arguments, "--steps", "1", "--ratings", str(table)]) == 0
    shown = capsys.readouterr().out
    assert "thumbs-up on held-out questions" in shown
    assert " 1.00 after" in shown
    filled(table, lambda line: "maybe")
    assert command.main([*arguments, "--steps", "1", "--ratings", str(table)]) == 2
    assert "'maybe'; it must be up or down" in capsys.readouterr().err


def test_a_table_of_another_run_is_refused(arguments, tmp_path, capsys):
    assert command.main([*arguments, "--steps", "1"]) == 0
    table = tmp_path / "run" / "rate_kto.csv"
    filled(table, lambda line: "up", dropped=1)
    assert command.main([*arguments, "--steps", "1", "--ratings", str(table)]) == 2
    assert "is no table of this run" in capsys.readouterr().err


def test_a_model_trained_elsewhere_is_measured_and_nothing_is_trained(arguments, quick, tmp_path, capsys):
    assert command.main([*arguments, "--steps", "12", "--save", str(tmp_path / "theirs")]) == 0
    kto = json.loads((tmp_path / "run" / "kto.json").read_text(encoding="utf-8"))
    capsys.readouterr()
    other = ["--after", str(tmp_path / "theirs"), *arguments[2:-1], str(tmp_path / "other")]
    assert command.main(other) == 0
    assert "training" not in capsys.readouterr().err
    measured = json.loads((tmp_path / "other" / "elsewhere.json").read_text(encoding="utf-8"))
    assert measured["reward_margin"] == pytest.approx(kto["reward_margin"], abs=1e-5)
    assert [r["text"] for r in measured["replies"]] == [r["text"] for r in kto["replies"]]


def test_other_rows_are_another_run(arguments, tmp_path, capsys):
    assert command.main([*arguments, "--steps", "1"]) == 0
    written(tmp_path / "train.jsonl", rows(26))
    assert command.main([*arguments, "--steps", "1"]) == 2
    assert "name another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([*rows(2), {"messages": rows(1)[0]["messages"], "label": 5}], "line 3: label is 5"),
        ([{"chosen": rows(1)[0]["messages"], "rejected": rows(2)[1]["messages"]}], "line 1: a pair has no thumb"),
        (rows(2)[:1], "0 thumbs up and 1 down"),
        ([], "0 thumbs up and 0 down"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused_with_their_line(made, said, arguments, tmp_path, capsys):
    written(tmp_path / "train.jsonl", made)
    assert command.main(arguments) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rows", "a"], "--rows needs --check"),
        (["--check", "a"], "either --rows"),
        (["--check", "a", "--rows", "b", "--after", "c"], "either --rows"),
        (["--check", "a", "--rows", "b", "--method", "kto_brief"], "a judge of its own"),
    ],
)
def test_options_that_do_nothing_together_are_refused(options, said, capsys):
    with pytest.raises(SystemExit):
        command.main(options)
    assert said in capsys.readouterr().err


def test_a_rare_kind_of_thumb_is_measured_all_the_same(quick, tmp_path):
    made = [row | {"label": place == 77} for place, row in enumerate(rows(80))]
    run = own.OwnRows(tmp_path, None, written(tmp_path / "eval.jsonl", made), source=quick, elsewhere=tmp_path)
    assert sum(one.label for one in run.checked) == 1
    assert len(run.prompts) == own.PROMPTS


def test_a_line_separator_in_a_reply_and_blank_lines_at_the_end_are_no_fault(tmp_path):
    made = [json.dumps(row, ensure_ascii=False).replace("yes", "yes\u2028") for row in rows(4)]
    (tmp_path / "a.jsonl").write_text("\n".join(made) + "\n\n", encoding="utf-8")
    assert len(own.read_rows(tmp_path / "a.jsonl", byte_tokenizer(), 512)) == 4


def test_ids_and_prompts_are_those_of_the_chat_template(tmp_path):
    tokenizer = byte_tokenizer()
    read = own.read_rows(written(tmp_path / "a.jsonl", rows(4)), tokenizer, 512)
    assert sorted(one.number for one in read) == [0, 0, 1, 1]
    for one in read:
        prompt = tokenizer.decode(own.prompt_of(one.row))
        assert prompt.startswith("<|im_start|>user\nWord ")
        assert prompt.endswith("<|im_start|>assistant\n")
