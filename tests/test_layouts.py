"""Chats and pairs in the layouts that are met: read into TRL's, and what can be wrong with their turns."""

import json

import pandas
import pytest
from datasets import Dataset
from trl import extract_prompt, is_conversational, unpair_preference_dataset

import kto_lab.inspect
from kto_lab.loading import load_feedback
from kto_lab.report import REMEDIES, FeedbackError
from kto_utils.tokenizer import load_tokenizer


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}
PROMPT = [SYSTEM, user("Sky?"), bot("Blue."), user("Grass?")]
THUMB = {"prompt": PROMPT, "completion": [bot("Green.")], "label": True}
SHAREGPT = [{"from": "human", "value": "Sky?"}, {"from": "gpt", "value": "Blue."}, {"from": "human", "value": "Grass?"},
            {"from": "gpt", "value": "Green."}]  # fmt: skip
PAIR = {"prompt": PROMPT, "chosen": [bot("Green.")], "rejected": [bot("Red.")]}
THUMBS_OF_PAIR = [THUMB, THUMB | {"completion": [bot("Red.")], "label": False}]


def write(folder, rows, name="a.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def report_of(folder, *rows, **options):
    return load_feedback(write(folder, rows), strict=False, overwrite=True, **options).report


@pytest.mark.parametrize(
    "row",
    [
        THUMB,
        THUMB | {"completion": bot("Green.")},
        {"messages": [*PROMPT, bot("Green.")], "label": True},
        {"messages": [*PROMPT, bot("Green.")], "kto_tag": True},
        {"conversations": SHAREGPT, "system": "Be brief.", "kto_tag": True},
        {"conversations": [{"from": "system", "value": "Be brief."}, *SHAREGPT], "label": True},
        {"conversations": [*PROMPT, bot("Green.")], "kto_tag": True},
        {"messages": [*PROMPT, {"role": "assistant", "content": [{"type": "text", "text": "Green."}]}], "label": True},
        {"messages": [dict(m, name=None, tool_calls=None) for m in [*PROMPT, bot("Green.")]], "label": True},
    ],
)
def test_a_thumb_on_a_chat_is_read_from_every_layout(row, tmp_path):
    assert list(load_feedback(write(tmp_path, [row]))) == [THUMB]
    assert is_conversational(THUMB), "TRL sees a chat"


@pytest.mark.parametrize(
    "row",
    [
        PAIR,
        {"chosen": [*PROMPT, bot("Green.")], "rejected": [*PROMPT, bot("Red.")]},
        {"prompt": PROMPT, "chosen": [*PROMPT, bot("Green.")], "rejected": [*PROMPT, bot("Red.")]},
        {"prompt": "Grass?", "chosen": [*PROMPT, bot("Green.")], "rejected": [*PROMPT, bot("Red.")]},
        {"conversations": SHAREGPT[:-1], "system": "Be brief.", "chosen": {"from": "gpt", "value": "Green."},
         "rejected": {"from": "gpt", "value": "Red."}},
        {"messages": PROMPT, "chosen": bot("Green."), "rejected": bot("Red.")},
    ],
)  # fmt: skip
def test_a_pair_is_read_from_every_layout_and_gives_two_thumbs(row, tmp_path):
    found = load_feedback(write(tmp_path, [row]))
    assert list(found) == THUMBS_OF_PAIR
    assert (found.report.rows, found.report.kept, found.report.pairs, len(found)) == (1, 1, 1, 2)
    assert (found.report.desirable, found.report.undesirable) == (1, 1)


def test_what_trl_makes_of_whole_chats_is_the_same(tmp_path):
    row = {"chosen": [*PROMPT, bot("Green.")], "rejected": [*PROMPT, bot("Red.")]}
    theirs = unpair_preference_dataset(Dataset.from_list([extract_prompt(row)]))
    assert [dict(r) for r in theirs] == list(load_feedback(write(tmp_path, [row])))


def test_pairs_of_texts_are_read_from_all_formats(tmp_path):
    rows = [{"prompt": f"p{n}", "chosen": " a", "rejected": " b"} for n in range(3)]
    pandas.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    pandas.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    for path in (write(tmp_path, rows), tmp_path / "a.csv", tmp_path / "a.parquet"):
        found = list(load_feedback(path))
        assert [(row["prompt"], row["completion"], row["label"]) for row in found[:2]] == [
            ("p0", " a", True), ("p0", " b", False)
        ]  # fmt: skip
        assert len(found) == 6


def test_chats_are_read_from_parquet(tmp_path):
    rows = [{"messages": [*PROMPT, bot(f"Green {n}.")], "label": n == 0, "user": "u"} for n in range(3)]
    pandas.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    found = list(load_feedback(tmp_path / "a.parquet"))
    assert found[0] == {"prompt": PROMPT, "completion": [bot("Green 0.")], "label": True, "user": "u"}
    pandas.DataFrame(rows).drop(columns="label").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="no column 'label'"):
        load_feedback(tmp_path / "b.parquet")


FAULTS = [
    ("unknown_role", {"messages": [{"role": "customer", "content": "Sky?"}, bot("Blue.")], "label": True}, "customer"),
    ("unknown_role", {"messages": [{"role": "User", "content": "Sky?"}, bot("Blue.")], "label": True}, "'User'"),
    ("message_malformed", {"messages": ["Sky?", "Blue."], "label": True}, "turn 1"),
    ("message_malformed", {"messages": "user: Sky?", "label": True}, "no list"),
    ("message_malformed", {"messages": [{"speaker": "user", "text": "Sky?"}, bot("a")], "label": True}, "'speaker'"),
    ("message_malformed", {"messages": [{"role": "user"}, bot("Blue.")], "label": True}, "no content"),
    ("message_malformed", {"messages": [{"role": "user", "content": 3}, bot("Blue.")], "label": True}, "no text"),
    ("message_malformed", THUMB | {"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "no text"),
    ("empty_turn", {"messages": [user(" "), bot("Blue.")], "label": True}, "turn 1"),
    ("empty_turn", {"conversations": [*SHAREGPT[:-1], {"from": "gpt", "value": ""}], "kto_tag": False}, "turn 4"),
    ("empty_turn", THUMB | {"completion": [bot("\n")]}, "'completion'"),
    ("last_not_assistant", {"messages": PROMPT, "label": True}, "of the user"),
    ("last_not_assistant", {"messages": [user("Sky?"), bot("Blue."), SYSTEM], "label": True}, "of the system"),
    ("last_not_assistant", THUMB | {"completion": [user("Green.")]}, "of the user"),
    ("last_not_assistant", PAIR | {"rejected": [user("Red.")]}, "'rejected'"),
    ("several_turns", THUMB | {"completion": [bot("Green."), user("Sure?"), bot("Yes.")]}, "3 turns"),
    ("empty_completion", THUMB | {"completion": []}, "no turn"),
    ("empty_prompt", THUMB | {"prompt": []}, "no turn"),
    ("empty_prompt", {"messages": [bot("Blue.")], "label": True}, "no turn of the user"),
    ("empty_prompt", {"messages": [SYSTEM, bot("Blue.")], "label": True}, "no turn of the user"),
    ("empty_prompt", {"messages": [], "label": True}, "is empty"),
    ("mixed_forms", THUMB | {"prompt": "Grass?"}, "the prompt is a text"),
    ("mixed_forms", THUMB | {"completion": "Green."}, "the completion is a text"),
    ("mixed_forms", PAIR | {"prompt": "Grass?", "chosen": "Green."}, "some are texts"),
    ("mixed_forms", {"prompt": "Hm?", "chosen": [user("Sky?"), bot("a")], "rejected": [user("Sky?"), bot("b")]}, "ask"),
    ("no_common_prompt", {"chosen": [user("Sky?"), bot("a")], "rejected": [user("Grass?"), bot("b")]}, "differ"),
    ("no_common_prompt", {"chosen": [bot("a")], "rejected": [bot("b")]}, "one turn only"),
    ("equal_sides", PAIR | {"rejected": PAIR["chosen"]}, "equal"),
    ("equal_sides", {"prompt": "p", "chosen": "a", "rejected": "a"}, "equal"),
    ("missing_prompt", {"chosen": "Q: Sky? A: Blue.", "rejected": "Q: Sky? A: Red."}, "'chosen', 'rejected'"),
    ("missing_completion", {"prompt": "p", "chosen": "a", "rejected": None}, "'rejected' is null"),
    ("empty_completion", {"prompt": "p", "chosen": "a", "rejected": " "}, "the rejected"),
    ("completion_not_text", {"prompt": "p", "chosen": 3, "rejected": "b"}, "'chosen'"),
    ("missing_label", {"messages": [user("Sky?"), bot("Blue.")]}, "'messages'"),
    ("missing_label", {"conversations": SHAREGPT, "kto_tag": None}, "'kto_tag' is null"),
    ("label_not_boolean", {"conversations": SHAREGPT, "kto_tag": "true"}, "'true'"),
    ("messages_as_text", {"prompt": json.dumps(PROMPT), "completion": "Green.", "label": True}, "the prompt"),
    ("messages_as_text", {"prompt": "p", "completion": str([bot("Green.")]), "label": True}, "the completion"),
    ("messages_as_text", {"prompt": str(SHAREGPT), "completion": "Green.", "label": True}, "the prompt"),
    ("messages_as_text", {"messages": str([*PROMPT, bot("Green.")]), "label": True}, "'messages'"),
    ("lone_surrogate", THUMB | {"completion": [bot("\ud83d")]}, "U+D83D"),
    ("replacement_character", {"messages": [user("caf\ufffd?"), bot("Yes.")], "label": True}, "U+FFFD"),
    ("role_order", {"messages": [user("Sky?"), user("Hello?"), bot("Blue.")], "label": True}, "both of the user"),
    ("role_order", {"messages": [user("Sky?"), SYSTEM, bot("Blue.")], "label": True}, "the system"),
    ("role_order", {"messages": [bot("Hi!"), user("Sky?"), bot("Blue.")], "label": True}, "first of the chat"),
    ("role_order", {"messages": [user("Sky?"), bot("Blue."), bot("Sure.")], "label": True}, "another turn"),
]


@pytest.mark.parametrize(("kind", "row", "words"), FAULTS)
def test_what_is_wrong_with_a_chat_is_named(kind, row, words, tmp_path):
    report = report_of(tmp_path, row)
    assert report.rejected == {kind: [1]}
    assert words in report.reasons[kind]
    assert kind in REMEDIES
    assert str(report).count("\n") > 3, "reason and remedy are shown"


def test_every_kind_of_fault_of_chats_was_tried():
    tried = {kind for kind, _, _ in FAULTS} | {"other_form"}
    assert tried >= {"message_malformed", "unknown_role", "empty_turn", "last_not_assistant", "several_turns",
                     "role_order", "no_common_prompt", "equal_sides", "mixed_forms", "messages_as_text"}  # fmt: skip


def test_an_order_that_the_template_takes_can_be_accepted(tmp_path):
    path = write(tmp_path, [{"messages": [user("Sky?"), user("Hello?"), bot("Blue.")], "label": True}])
    assert load_feedback(path, accept=["role_order"]).report.accepted == {"role_order": [1]}


def test_tools_may_stand_before_the_reply(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "sky"}]}
    results = [{"role": "tool", "content": "blue"}, {"role": "tool", "content": "clear"}]
    (row,) = load_feedback(write(tmp_path, [{"messages": [user("Sky?"), call, *results, bot("Blue.")], "label": True}]))
    assert row["prompt"] == [user("Sky?"), call | {"content": ""}, *results]


def test_chats_and_texts_in_one_file_are_told_apart(tmp_path):
    text = {"prompt": "Sky?", "completion": "Blue.", "label": False}
    report = report_of(tmp_path, THUMB, text, THUMB | {"label": True, "completion": [bot("Grey.")]})
    assert report.rejected == {"other_form": [2]}
    assert report_of(tmp_path, text, THUMB, text | {"prompt": "Snow?"}).rejected == {"other_form": [2]}
    side = json.loads((tmp_path / "a.jsonl.rejected.jsonl").read_text(encoding="utf-8"))
    assert (side["row"], side["kind"]) == (2, "other_form")


def test_repeats_are_found_across_layouts(tmp_path):
    other = {"messages": [*PROMPT, bot("Green.")], "label": True}
    assert report_of(tmp_path, THUMB, other).rejected == {"duplicate": [2]}
    assert report_of(tmp_path, THUMB, other | {"label": False}).rejected == {"opposite_labels": [1, 2]}
    assert report_of(tmp_path, THUMB, other | {"user": "b"}).rejected == {}


def test_a_pair_chosen_the_other_way_round_is_its_opposite(tmp_path):
    turned = PAIR | {"chosen": PAIR["rejected"], "rejected": PAIR["chosen"]}
    assert report_of(tmp_path, PAIR, turned).rejected == {"opposite_labels": [1, 2]}
    assert report_of(tmp_path, PAIR, PAIR).rejected == {"duplicate": [2]}
    assert report_of(tmp_path, PAIR, PAIR | {"rejected": [bot("Grey.")]}).rejected == {}


def test_inspect_counts_chats_and_pairs(tmp_path, capsys):
    rows = [THUMB, {"messages": [user("Sky?"), bot("Blue.")], "label": False}]
    assert kto_lab.inspect.main([str(write(tmp_path, rows))]) == 0
    out = capsys.readouterr().out
    assert "2 kept (1 up, 1 down)" in out
    assert "2 of these rows are chats, 1 with a system prompt, 1 with more than one question" in out
    assert kto_lab.inspect.main([str(write(tmp_path, [PAIR, PAIR | {"rejected": [bot("Grey.")]}]))]) == 0
    out = capsys.readouterr().out
    assert "2 kept (2 up, 2 down)" in out
    assert "2 of these rows are pairs" in out
    for name, kind in (("a.jsonl", "rows are chats"), ("b.jsonl", "pairs")):
        text = {"prompt": "p", "completion": "c", "label": True}
        assert kto_lab.inspect.main([str(write(tmp_path, [text], name))]) == 0
        assert kind not in capsys.readouterr().out


def test_other_names_of_the_label_are_read_and_proposed(tmp_path, capsys):
    rows = [{"messages": [*PROMPT, bot("Green.")], "thumb": "up"}, {"messages": [user("a"), bot("b")], "thumb": "down"}]
    path = write(tmp_path, rows)
    assert kto_lab.inspect.main([str(path)]) == 1
    assert "--columns label=thumb" in capsys.readouterr().out
    (first, _) = load_feedback(path, columns={"label": "thumb"}, labels={"up": True, "down": False})
    assert first == THUMB | {"thumb": "up"}


def test_a_chat_cut_to_nothing_is_found_with_the_models_own_template(tmp_path):
    tokenizer = load_tokenizer()
    path = write(tmp_path, [THUMB])
    with pytest.raises(ValueError, match="no chat template"):
        load_feedback(path, tokenizer=tokenizer, max_length=50)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    n = len(tokenizer.encode("".join(f"{m['role']}: {m['content']}\n" for m in PROMPT), add_special_tokens=False))
    assert len(load_feedback(path, tokenizer=tokenizer, max_length=n + 1)) == 1
    with pytest.raises(FeedbackError, match="the prompt takes"):
        load_feedback(path, tokenizer=tokenizer, max_length=n)


def test_a_row_without_its_chat_is_told_what_other_rows_have(tmp_path, capsys):
    rows = [{"messages": [*PROMPT, bot("Green.")], "label": True}, {"id": 3, "label": True}]
    kto_lab.inspect.main([str(write(tmp_path, rows))])
    out = capsys.readouterr().out
    assert "the fields are 'id', 'label'. Other rows have 'messages'." in " ".join(out.split())
    assert "--columns" not in out
