"""Feedback rows, their masks, and the ways between pairs and thumbs (lesson 03)."""

import json
import random
from collections import Counter

import datasets
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lesson_source import definitions
from transformers import PreTrainedTokenizerFast

from kto_course.tokens import tokenize_with_mask
from kto_utils import world
from kto_utils.data import (
    check_row,
    format_prompt,
    load_eight_rows,
    pair_up,
    tokenize_feedback,
    unpair,
)
from kto_utils.tokenizer import BOS_ID, EOS_ID, TOKENIZER_FILE, load_tokenizer, to_fast_tokenizer, train_bpe

ROW = {"prompt": "USER: Sky? ASSISTANT:", "completion": " It is blue.", "label": True}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["<eos>", " <bos> ", "USER:", " It is", "blue. ", "ASSISTANT: ", "\n", "<", "\x00"]
)
VISIBLE = TEXT.filter(str.strip)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


@pytest.fixture(scope="module")
def lesson():
    return definitions("03_tokenization", "my_tokenize_with_mask")


def scored(example):
    return [i for i, mask in zip(example["input_ids"], example["label_mask"], strict=True) if mask]


def without(row, field):
    return {name: value for name, value in row.items() if name != field}


# The eight rows and the template


def test_the_template_ends_without_a_blank():
    assert format_prompt("Why?") == "USER: Why? ASSISTANT:"


def test_the_eight_rows_are_three_up_and_five_down_and_usable(tokenizer):
    rows = load_eight_rows()
    assert Counter(row["label"] for row in rows) == {True: 3, False: 5}
    for row in rows:
        check_row(row)
        assert row["completion"].startswith(" ")
        assert row["prompt"].startswith("USER: ")
        assert row["prompt"].endswith(" ASSISTANT:")
        tokenized = tokenize_feedback(row, tokenizer)
        assert tokenizer.decode(scored(tokenized)) == row["completion"] + "<eos>"


def test_the_eight_rows_tell_the_judge_s_truth_where_they_are_of_the_world():
    questions = {question.prompt: question for question in world.all_questions()}
    known = [row for row in load_eight_rows() if row["prompt"] in questions]
    assert len(known) == 7
    for row in known:
        assert world.judge(questions[row["prompt"]], row["completion"]) == row["label"]


# Tokenizing a row


def test_the_owl_row_token_by_token(tokenizer):
    owl = tokenize_feedback(load_eight_rows()[7], tokenizer)
    tokens = [tokenizer.decode([i]) for i in owl["input_ids"]]
    assert tokens[0] == "<bos>"
    assert tokens[14:] == [" N", "o", ".", "<eos>"]
    assert owl["label_mask"] == [0] * 14 + [1] * 4
    assert owl["attention_mask"] == [1] * 18
    assert owl["label"] is False


def test_a_token_across_the_boundary_belongs_to_the_completion(tokenizer):
    clean = tokenize_feedback(ROW, tokenizer)
    moved = tokenize_feedback(ROW | {"prompt": ROW["prompt"] + " ", "completion": "It is blue."}, tokenizer)
    assert moved == clean
    assert tokenizer.decode(scored(moved)) == " It is blue.<eos>"


def test_a_boundary_inside_a_merged_word_moves_back_to_its_start(tokenizer):
    split = tokenize_feedback({"prompt": "USER: Good ques", "completion": "tion", "label": True}, tokenizer)
    assert tokenizer.decode(scored(split)) == " question<eos>"


def test_the_common_prefix_rule_holds_for_other_tokenizers():
    merging = to_fast_tokenizer(train_bpe(["ab", "abc"] * 3, 261))  # tokens ab, abc
    result = tokenize_feedback({"prompt": "xa", "completion": "b", "label": False}, merging)
    assert [merging.decode([i]) for i in scored(result)] == ["ab", "<eos>"]


def test_extra_fields_are_ignored(tokenizer):
    assert tokenize_feedback(ROW | {"rater": 7}, tokenizer) == tokenize_feedback(ROW, tokenizer)


def test_truncation_keeps_the_first_tokens(tokenizer):
    full = tokenize_feedback(ROW, tokenizer)
    length, start = len(full["input_ids"]), full["label_mask"].index(1)
    for max_length in range(start + 1, length + 3):
        cut = tokenize_feedback(ROW, tokenizer, max_length)
        for field in ("input_ids", "label_mask", "attention_mask"):
            assert cut[field] == full[field][:max_length]
        assert (EOS_ID in cut["input_ids"]) == (max_length >= length)


@pytest.mark.parametrize("max_length", [1, 5, 8])
def test_a_completion_cut_away_is_refused(tokenizer, max_length):
    assert tokenize_feedback(ROW, tokenizer)["label_mask"].index(1) == 8
    with pytest.raises(ValueError, match=f"prompt takes 8 tokens and max_length is {max_length}; raise"):
        tokenize_feedback(ROW, tokenizer, max_length)


@pytest.mark.parametrize("max_length", [0, -1])
def test_a_senseless_length_is_refused(tokenizer, max_length):
    with pytest.raises(ValueError, match=f"max_length is {max_length}; it must be at least 1"):
        tokenize_feedback(ROW, tokenizer, max_length)


def test_a_tokenizer_without_eos_is_refused():
    incomplete = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER_FILE), bos_token="<bos>")
    with pytest.raises(ValueError, match=r"no eos token; set tokenizer\.eos_token"):
        tokenize_feedback(ROW, incomplete)


def test_a_tokenizer_without_bos_puts_none(tokenizer):
    without_bos = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER_FILE), eos_token="<eos>")
    row, plain = tokenize_feedback(ROW, tokenizer), tokenize_feedback(ROW, without_bos)
    assert row["input_ids"][0] == BOS_ID
    assert plain == {name: value[1:] if isinstance(value, list) else value for name, value in row.items()}
    with pytest.raises(ValueError, match="prompt takes 7 tokens and max_length is 7; raise"):
        tokenize_feedback(ROW, without_bos, max_length=7)


# Bad rows


@pytest.mark.parametrize("field", ["prompt", "completion", "label"])
def test_a_missing_field_is_named(tokenizer, field):
    row = without(ROW, field)
    with pytest.raises(KeyError, match=f"no field '{field}'"):
        check_row(row)
    with pytest.raises(KeyError, match=f"no field '{field}'"):
        tokenize_feedback(row, tokenizer)


@pytest.mark.parametrize("label", [1, 0, "True", "false", 1.0, None, [True]])
def test_a_label_that_is_no_bool_is_refused(tokenizer, label):
    with pytest.raises(TypeError, match="it must be True or False"):
        check_row(ROW | {"label": label})
    with pytest.raises(TypeError, match="it must be True or False"):
        tokenize_feedback(ROW | {"label": label}, tokenizer)


@pytest.mark.parametrize("field", ["prompt", "completion"])
@pytest.mark.parametrize("value", [None, 3, b"blue", [{"role": "user", "content": "hi"}]])
def test_a_text_that_is_no_string_is_refused(field, value):
    with pytest.raises(TypeError, match=f"{field} is a {type(value).__name__}; it must be a string"):
        check_row(ROW | {field: value})


@pytest.mark.parametrize("empty", ["", " ", "\n\t ", "\u00a0"])
def test_an_empty_completion_is_refused(tokenizer, empty):
    with pytest.raises(ValueError, match="completion is empty"):
        check_row(ROW | {"completion": empty})
    with pytest.raises(ValueError, match="completion is empty"):
        tokenize_feedback(ROW | {"completion": empty}, tokenizer)


def test_an_empty_prompt_is_allowed(tokenizer):
    result = tokenize_feedback(ROW | {"prompt": ""}, tokenizer)
    assert result["label_mask"] == [0] + [1] * (len(result["input_ids"]) - 1)


@pytest.mark.parametrize("row", [("a", "b", True), "text", None])
def test_a_row_that_is_no_dict_is_refused(row):
    with pytest.raises(TypeError, match=f"a row is a {type(row).__name__}; it must be a dict"):
        check_row(row)


# Dataset.map


def test_map_gives_the_same_rows_and_writes_no_file(tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    datasets.disable_progress_bars()
    rows = load_eight_rows()
    mapped = datasets.Dataset.from_list(rows).map(
        tokenize_feedback, fn_kwargs={"tokenizer": tokenizer}, remove_columns=["prompt", "completion"]
    )
    assert list(mapped) == [tokenize_feedback(row, tokenizer) for row in rows]
    assert all(isinstance(row["label"], bool) for row in mapped)
    assert mapped.cache_files == []
    assert list(tmp_path.iterdir()) == []


# Pairs to thumbs


def random_pairs(n, seed=0):
    rng = random.Random(seed)
    questions = world.trained_questions()
    pairs = []
    for _ in range(n):
        question = rng.choice(questions)
        up = rng.choice([reply.text for reply in world.replies(question) if reply.thumbs_up])
        down = rng.choice([reply.text for reply in world.replies(question) if not reply.thumbs_up])
        pairs.append({"prompt": question.prompt, "chosen": up, "rejected": down})
    return pairs


PAIR = {"prompt": "p", "chosen": " good", "rejected": " bad"}


def as_counter(rows):
    return Counter(json.dumps(row, sort_keys=True) for row in rows)


@given(st.lists(st.tuples(TEXT, VISIBLE, VISIBLE), max_size=12), st.integers(0, 99))
def test_unpairing_keeps_every_reply_once_with_its_thumb(texts, seed):
    texts = [text for text in texts if text[1] != text[2]]
    pairs = [dict(zip(("prompt", "chosen", "rejected"), text, strict=True)) for text in texts]
    rows = unpair(pairs, seed)
    expected = [{"prompt": p, "completion": up, "label": True} for p, up, _ in texts]
    expected += [{"prompt": p, "completion": down, "label": False} for p, _, down in texts]
    assert as_counter(rows) == as_counter(expected)
    assert rows == unpair(pairs, seed)


def test_the_seed_decides_the_order_and_nothing_else():
    pairs = random_pairs(50)
    assert unpair(pairs, 0) != unpair(pairs, 1)
    assert as_counter(unpair(pairs, 0)) == as_counter(unpair(pairs, 1))


def test_unpairing_leaves_the_global_random_state_alone():
    random.seed(5)
    before = random.getstate()
    unpair(random_pairs(5), seed=0)
    assert random.getstate() == before


@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected"])
def test_a_pair_without_a_field_is_named_by_number(field):
    with pytest.raises(KeyError, match=f"pair 1: the row has no field '{field}'"):
        unpair([PAIR, without(PAIR, field)], seed=0)


@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected"])
def test_a_pair_with_something_else_than_text_is_refused(field):
    with pytest.raises(TypeError, match=f"pair 2: {field} is a list"):
        unpair([PAIR, PAIR, PAIR | {field: ["x"]}], seed=0)


@pytest.mark.parametrize("field", ["chosen", "rejected"])
def test_a_pair_with_an_empty_reply_is_refused(field):
    with pytest.raises(ValueError, match=f"pair 0: {field} is empty"):
        unpair([PAIR | {field: "  "}], seed=0)


def test_a_pair_with_equal_sides_is_named():
    with pytest.raises(ValueError, match="pair 1: chosen and rejected are the same text"):
        unpair([PAIR, PAIR | {"rejected": PAIR["chosen"]}], seed=0)


def test_a_pair_that_is_no_dict_is_refused():
    with pytest.raises(TypeError, match="pair 0: a row is a tuple"):
        unpair([("p", " good", " bad")], seed=0)


def test_no_pairs_give_no_rows():
    assert unpair([], seed=0) == []


# Thumbs to pairs


LABELLED = st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from([" a", " b", " c"]), st.booleans()), max_size=20)


@given(LABELLED, st.integers(0, 9))
def test_pairing_up_uses_every_row_once(texts, seed):
    rows = [{"prompt": p, "completion": c, "label": label} for p, c, label in texts]
    pairs, left_over = pair_up(rows, seed)
    used = [{"prompt": pair["prompt"], "completion": pair["chosen"], "label": True} for pair in pairs]
    used += [{"prompt": pair["prompt"], "completion": pair["rejected"], "label": False} for pair in pairs]
    assert as_counter(used + left_over) == as_counter(rows)
    ups = Counter(row["prompt"] for row in rows if row["label"])
    downs = Counter(row["prompt"] for row in rows if not row["label"])
    assert Counter(pair["prompt"] for pair in pairs) == ups & downs
    # What is left over on one prompt has one label only, or it would be a pair.
    assert len({(row["prompt"], row["label"]) for row in left_over}) == len({row["prompt"] for row in left_over})
    assert (pairs, left_over) == pair_up(rows, seed)


def test_pairing_up_the_eight_rows():
    pairs, left_over = pair_up(load_eight_rows(), seed=0)
    assert Counter(pair["prompt"] for pair in pairs) == {
        "USER: What colour is the sky? ASSISTANT:": 1,
        "USER: What is the capital of France? ASSISTANT:": 1,
    }
    assert len(left_over) == 4


def test_pairs_survive_the_way_there_and_back_when_prompts_differ():
    pairs = [PAIR | {"prompt": str(n), "chosen": f" up {n}"} for n in range(20)]
    back, left_over = pair_up(unpair(pairs, seed=3), seed=4)
    assert left_over == []
    assert as_counter(back) == as_counter(pairs)
    assert back != pairs  # shuffled


def test_the_seed_decides_which_up_meets_which_down():
    rows = [{"prompt": "p", "completion": f" {n}", "label": n % 2 == 0} for n in range(20)]
    meetings = {as_text for seed in range(5) for as_text in [json.dumps(pair_up(rows, seed)[0])]}
    assert len(meetings) == 5


def test_the_pairs_are_shuffled_and_not_grouped_by_prompt():
    rows = [{"prompt": str(n // 8), "completion": f" {n}", "label": n % 2 == 0} for n in range(80)]
    prompts = [pair["prompt"] for pair in pair_up(rows, seed=0)[0]]
    assert len(prompts) == 40
    assert prompts != sorted(prompts)


@pytest.mark.parametrize("plenty", [True, False])
def test_the_seed_decides_which_rows_find_a_partner(plenty):
    rows = [{"prompt": "p", "completion": f" {n}", "label": plenty} for n in range(30)]
    rows.append({"prompt": "p", "completion": " alone", "label": not plenty})
    used = {pair_up(rows, seed)[0][0]["chosen" if plenty else "rejected"] for seed in range(5)}
    assert len(used) > 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"label": "true"}, TypeError, "row 1: label is 'true'"),
        ({"completion": ""}, ValueError, "row 1: completion is empty"),
        ({"prompt": None}, TypeError, "row 1: prompt is a NoneType"),
    ],
)
def test_pairing_up_names_a_bad_row_by_number(change, error, message):
    with pytest.raises(error, match=message):
        pair_up([ROW, ROW | change], seed=0)


@pytest.mark.parametrize("field", ["prompt", "completion", "label"])
def test_pairing_up_names_a_missing_field(field):
    with pytest.raises(KeyError, match=f"row 1: the row has no field '{field}'"):
        pair_up([ROW, without(ROW, field)], seed=0)


# The lesson's version


@settings(max_examples=150)
@given(TEXT, VISIBLE)
@example("USER: Sky? ASSISTANT: ", "It is blue.")
def test_the_lesson_and_what_it_goes_on_with_tokenize_as_the_package_does(lesson, tokenizer, prompt, completion):
    package = tokenize_feedback({"prompt": prompt, "completion": completion, "label": True}, tokenizer)
    for function in (lesson["my_tokenize_with_mask"], tokenize_with_mask):
        assert function(prompt, completion, tokenizer) == (package["input_ids"], package["label_mask"])
