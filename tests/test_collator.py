"""kto_utils.collator: padding, masks, and the mismatched completions."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lesson_source import definitions
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, DataCollatorWithPadding

from kto_utils.collator import FIELDS, KTOPaddingCollator, mismatched, pad_rows
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.logprobs import sequence_logps
from kto_utils.model import load_reference_model
from kto_utils.tokenizer import load_tokenizer

LESSON = definitions("04_collator", "FIELDS", "pad_rows", "my_mismatched", "KTOPaddingCollator")
LESSON["mismatched"] = LESSON["my_mismatched"]  # where the lesson goes on with the learner's own


class OnlyPad:
    """All that the collator wants of a tokenizer."""

    pad_token_id = 3


def example(prompt: list[int], completion: list[int], label: bool = True) -> dict:
    ids = prompt + completion
    mask = [0] * len(prompt) + [1] * len(completion)
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "label_mask": mask, "label": label}


def prompt_of(row) -> tuple[int, ...]:
    return tuple(t for t, m in zip(row["input_ids"], row["label_mask"], strict=True) if not m)


def completion_of(row) -> tuple[int, ...]:
    return tuple(t for t, m in zip(row["input_ids"], row["label_mask"], strict=True) if m)


ids = st.lists(st.integers(1, 511), min_size=1, max_size=6)
batches = st.lists(st.builds(example, ids, ids, st.booleans()), min_size=2, max_size=9)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


@pytest.fixture(scope="module")
def examples(tokenizer):
    return [tokenize_feedback(row, tokenizer) for row in load_eight_rows()]


@pytest.fixture(scope="module")
def model():
    return load_reference_model()


def logps(model, batch, prefix=""):
    with torch.no_grad():
        return sequence_logps(model, batch, prefix)


# ---------------------------------------------------------------- padding


def test_padding_two_rows_gives_the_tensors_written_out_by_hand():
    batch = pad_rows([example([1, 7], [8, 2]), example([1], [9])], pad_id=0)
    assert batch["input_ids"].tolist() == [[1, 7, 8, 2], [1, 9, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["label_mask"].tolist() == [[0, 0, 1, 1], [0, 1, 0, 0]]


def test_the_pad_id_fills_input_ids_and_zero_fills_both_masks():
    batch = pad_rows([example([1, 7], [8, 2]), example([1], [9])], pad_id=5)
    assert batch["input_ids"][1].tolist() == [1, 9, 5, 5]
    assert batch["attention_mask"][1].tolist() == [1, 1, 0, 0]
    assert batch["label_mask"][1].tolist() == [0, 1, 0, 0]


def test_other_fields_are_left_out():
    assert set(pad_rows([example([1], [2])], pad_id=0)) == set(FIELDS)


@given(rows=batches, pad_id=st.integers(0, 511))
def test_padding_keeps_every_row_and_is_zero_in_both_masks(rows, pad_id):
    batch = pad_rows(rows, pad_id)
    width = max(len(row["input_ids"]) for row in rows)
    for field in FIELDS:
        assert batch[field].shape == (len(rows), width)
        assert batch[field].dtype == torch.int64
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        for field in FIELDS:
            assert batch[field][i, :length].tolist() == row[field]
        assert (batch["input_ids"][i, length:] == pad_id).all()
        assert not batch["attention_mask"][i, length:].any()
        assert not batch["label_mask"][i, length:].any()


@given(rows=batches)
def test_max_length_keeps_the_first_tokens_of_each_row(rows):
    limit = max(len(prompt_of(row)) for row in rows) + 1  # each row keeps at least one completion token
    batch = pad_rows(rows, 0, limit)
    width = min(limit, max(len(row["input_ids"]) for row in rows))
    assert batch["input_ids"].shape[1] == width
    for i, row in enumerate(rows):
        kept = row["input_ids"][:limit]
        assert batch["input_ids"][i, : len(kept)].tolist() == kept
        assert int(batch["label_mask"][i].sum()) == sum(row["label_mask"][:limit])


def test_rows_are_not_changed_in_place():
    rows = [example([1, 7], [8, 2]), example([1], [9])]
    before = [{field: list(row[field]) for field in FIELDS} for row in rows]
    pad_rows(rows, 0, max_length=3)
    mismatched(rows)
    assert [{field: row[field] for field in FIELDS} for row in rows] == before


def test_a_mask_of_bools_still_gives_int64():
    row = example([1], [2])
    row["label_mask"] = [False, True]
    assert pad_rows([row], 0)["label_mask"].dtype == torch.int64


def test_padding_equals_the_library_on_all_three_fields(tokenizer, examples):
    batch = pad_rows(examples, tokenizer.pad_token_id)
    known = [{field: row[field] for field in ("input_ids", "attention_mask")} for row in examples]
    by_pad = tokenizer.pad(known, return_tensors="pt")
    by_collator = DataCollatorWithPadding(tokenizer)(known)
    masks = tokenizer.pad([{"input_ids": row["label_mask"]} for row in examples], return_tensors="pt")
    for field in ("input_ids", "attention_mask"):
        assert torch.equal(batch[field], by_pad[field])
        assert torch.equal(batch[field], by_collator[field])
    assert tokenizer.pad_token_id == 0  # what makes the next line a fair comparison
    assert torch.equal(batch["label_mask"], masks["input_ids"])


def test_the_library_alone_cannot_pad_a_label_mask(tokenizer, examples):
    with pytest.raises(ValueError, match="label_mask"):
        DataCollatorWithPadding(tokenizer)(examples)


# ---------------------------------------------------------------- mismatched completions


@pytest.mark.parametrize("size", range(2, 21))
def test_every_size_from_2_to_20_is_a_derangement_in_the_direction_of_trl(size):
    rows = [example([1, 100 + i], [200 + i]) for i in range(size)]
    owners = [completion_of(row)[0] - 200 for row in mismatched(rows)]
    assert owners == [size - 1, *range(size - 1)]


@given(rows=batches)
def test_mismatched_rows_are_all_attended_and_have_no_label(rows):
    for row in mismatched(rows):
        assert set(row) == set(FIELDS)
        assert row["attention_mask"] == [1] * len(row["input_ids"])
        assert len(row["label_mask"]) == len(row["input_ids"])


def test_mismatched_rows_keep_bos_in_front_and_the_real_eos_at_the_end(tokenizer, examples):
    for row in mismatched(examples):
        assert row["input_ids"][0] == tokenizer.bos_token_id
        assert row["input_ids"][-1] == tokenizer.eos_token_id
        assert row["label_mask"][-1] == 1
        assert row["input_ids"].count(tokenizer.eos_token_id) == 1


def test_mismatched_text_of_the_eight_rows(tokenizer, examples):
    rows = load_eight_rows()
    for i, row in enumerate(mismatched(examples)):
        text = tokenizer.decode(row["input_ids"], skip_special_tokens=True)
        assert text == rows[i]["prompt"] + rows[i - 1]["completion"]


def test_no_two_neighbours_of_the_eight_rows_share_a_prompt():
    rows = load_eight_rows()
    assert all(rows[i]["prompt"] != rows[i - 1]["prompt"] for i in range(len(rows)))


@pytest.mark.parametrize("size", [0, 1])
def test_fewer_than_two_rows_have_no_mismatch(size):
    with pytest.raises(ValueError, match=f"a batch of {size} has no mismatched completion"):
        mismatched([example([1], [2])] * size)


# ---------------------------------------------------------------- the collator


def test_fields_shapes_and_dtypes(tokenizer, examples):
    batch = KTOPaddingCollator(tokenizer)(examples)
    assert set(batch) == {*FIELDS, "label", *(f"kl_{field}" for field in FIELDS)}
    width = max(len(row["input_ids"]) for row in examples)
    kl_width = max(len(row["input_ids"]) for row in mismatched(examples))
    for field in FIELDS:
        assert batch[field].shape == (8, width)
        assert batch[f"kl_{field}"].shape == (8, kl_width)
        assert batch[field].dtype == batch[f"kl_{field}"].dtype == torch.int64
    assert batch["label"].dtype == torch.bool
    assert batch["label"].tolist() == [row["label"] for row in load_eight_rows()]


@given(rows=batches)
def test_the_collator_is_padding_of_the_rows_and_of_the_mismatched_rows(rows):
    collate = KTOPaddingCollator(OnlyPad())
    batch = collate(rows)
    for field, tensor in pad_rows(rows, 3).items():
        assert torch.equal(batch[field], tensor)
    for field, tensor in pad_rows(mismatched(rows), 3).items():
        assert torch.equal(batch[f"kl_{field}"], tensor)


def test_scored_tokens_of_each_row_are_its_completion_with_eos(tokenizer, examples):
    batch = KTOPaddingCollator(tokenizer)(examples)
    for i, row in enumerate(load_eight_rows()):
        scored = batch["input_ids"][i][batch["label_mask"][i].bool()]
        assert tokenizer.decode(scored) == row["completion"] + "<eos>"


@pytest.mark.parametrize("shuffle", [False, True])
def test_it_works_as_the_collate_fn_of_a_data_loader(tokenizer, examples, shuffle):
    loader = DataLoader(
        examples,
        batch_size=4,
        shuffle=shuffle,
        collate_fn=KTOPaddingCollator(tokenizer),
        generator=torch.Generator().manual_seed(3),
    )
    seen = Counter()
    for batch in loader:
        own, other = (
            [tuple(ids[mask == 1].tolist()) for ids, mask in zip(*fields, strict=True)]
            for fields in (
                (batch["input_ids"], batch["label_mask"]),
                (batch["kl_input_ids"], batch["kl_label_mask"]),
            )
        )
        assert other == own[-1:] + own[:-1]  # rotated within this very batch, after the shuffle
        seen.update(own)
    assert seen == Counter(map(completion_of, examples))


def test_a_collate_batch_method_is_never_called(tokenizer, examples):
    class NeverCalled(DataCollatorWithPadding):
        def collate_batch(self, examples):
            raise AssertionError("called after all")

    known = [{field: row[field] for field in ("input_ids", "attention_mask")} for row in examples]
    (batch,) = DataLoader(known, batch_size=8, collate_fn=NeverCalled(tokenizer))
    assert set(batch) == {"input_ids", "attention_mask"}


def test_max_length_also_caps_the_mismatched_rows():
    rows = [example([1] + [5] * 9, [6]), example([1], [7] * 8)]
    tokenizer = OnlyPad()
    free, capped = KTOPaddingCollator(tokenizer)(rows), KTOPaddingCollator(tokenizer, max_length=12)(rows)
    assert free["input_ids"].shape == (2, 11)
    assert free["kl_input_ids"].shape == (2, 18)  # longer than every row of the batch
    assert capped["kl_input_ids"].shape == (2, 12)
    assert capped["kl_label_mask"][0].sum() == 2  # prompt of 10 leaves two tokens of the other completion


@given(label=st.booleans(), size=st.integers(2, 6))
def test_one_sided_batches_are_collated_like_any_other(label, size):
    rows = [example([1], [10 + i, 2], label) for i in range(size)]
    assert KTOPaddingCollator(OnlyPad())(rows)["label"].tolist() == [label] * size


# ---------------------------------------------------------------- pad == eos


def test_padding_with_eos_keeps_the_real_eos_scored(examples):
    tokenizer = load_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    batch = KTOPaddingCollator(tokenizer)(examples)
    eos = batch["input_ids"] == tokenizer.eos_token_id
    for prefix in ("", "kl_"):
        eos = batch[f"{prefix}input_ids"] == tokenizer.eos_token_id
        scored = eos & batch[f"{prefix}label_mask"].bool()
        assert scored.sum(1).tolist() == [1] * 8
        assert torch.equal(scored.sum(1), (eos & batch[f"{prefix}attention_mask"].bool()).sum(1))


def test_masks_do_not_depend_on_the_pad_token(tokenizer, examples):
    other = load_tokenizer()
    other.pad_token = other.eos_token
    a, b = KTOPaddingCollator(tokenizer)(examples), KTOPaddingCollator(other)(examples)
    for field in ("attention_mask", "label_mask", "kl_attention_mask", "kl_label_mask"):
        assert torch.equal(a[field], b[field])


def test_a_mask_guessed_from_the_ids_loses_the_eos_also_in_the_library(examples):
    tokenizer = load_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    labels = collate([{"input_ids": row["input_ids"]} for row in examples])["labels"]
    assert not (labels == tokenizer.eos_token_id).any()


# ---------------------------------------------------------------- scores


def test_a_mismatched_reply_is_less_likely_than_the_rows_own(model, tokenizer, examples):
    world_rows = [row for i, row in enumerate(examples) if i not in (4, 7)]  # the two outside the small world
    batch = KTOPaddingCollator(tokenizer)(world_rows)
    assert (logps(model, batch, "kl_") < logps(model, batch)).all()


# ---------------------------------------------------------------- error paths


def test_a_batch_of_one_is_refused(tokenizer, examples):
    with pytest.raises(ValueError, match=r"a batch of 1 has no mismatched completion.*at least 2"):
        KTOPaddingCollator(tokenizer)(examples[:1])


def test_a_last_batch_of_one_is_refused_and_drop_last_mends_it(tokenizer, examples):
    nine = [*examples, examples[0]]
    collate = KTOPaddingCollator(tokenizer)
    with pytest.raises(ValueError, match="a batch of 1"):
        list(DataLoader(nine, batch_size=4, collate_fn=collate))
    loader = DataLoader(nine, batch_size=4, collate_fn=collate, drop_last=True)
    assert [len(batch["label"]) for batch in loader] == [4, 4]


def test_an_empty_batch_is_refused(tokenizer):
    with pytest.raises(ValueError, match="no rows to pad"):
        KTOPaddingCollator(tokenizer)([])


@pytest.mark.parametrize("field", [*FIELDS, "label"])
def test_a_missing_field_is_named_with_its_row(tokenizer, examples, field):
    broken = dict(examples[1])
    del broken[field]
    with pytest.raises(KeyError, match=f"example 1 has no {field}"):
        KTOPaddingCollator(tokenizer)([examples[0], broken])


@pytest.mark.parametrize("label", [1, 0, "true", "false", None, 1.0])
def test_a_label_that_is_no_bool_is_refused(tokenizer, examples, label):
    with pytest.raises(TypeError, match=r"example 0: label is .*; it must be True or False"):
        KTOPaddingCollator(tokenizer)([examples[0] | {"label": label}, examples[1]])


def test_a_tokenizer_without_a_pad_token_is_refused():
    class NoPad:
        pad_token_id = None

    for tokenizer in (NoPad(), object()):
        with pytest.raises(ValueError, match="no pad token"):
            KTOPaddingCollator(tokenizer)


def test_a_completion_cut_away_by_max_length_is_refused(tokenizer, examples):
    with pytest.raises(ValueError, match=r"row 1: no token of its completion is left \(max_length 14\)"):
        KTOPaddingCollator(tokenizer, max_length=14)(examples)


def test_a_row_without_any_completion_token_is_refused():
    row = example([1, 5], [2])
    row["label_mask"] = [0, 0, 0]
    with pytest.raises(ValueError, match="row 0: no token of its completion is left"):
        pad_rows([row], 0)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_max_length_below_one_is_refused(limit):
    with pytest.raises(ValueError, match=f"max_length is {limit}; it must be at least 1"):
        pad_rows([example([1], [2])], 0, limit)


@pytest.mark.parametrize("field", FIELDS)
def test_fields_of_different_length_are_refused_instead_of_padded_over(field):
    row = example([1, 5], [6, 2])
    row[field] = row[field][:-1]
    with pytest.raises(ValueError, match=r"row 1: .*must have one length"):
        pad_rows([example([1], [2]), row], 0)


# ---------------------------------------------------------------- the lesson's definitions


@settings(max_examples=50)
@given(rows=batches)
def test_the_lesson_and_the_package_make_the_same_batch(rows):
    tokenizer = OnlyPad()
    mine, theirs = LESSON["KTOPaddingCollator"](tokenizer)(rows), KTOPaddingCollator(tokenizer)(rows)
    assert set(mine) == set(theirs)
    for field in theirs:
        assert torch.equal(mine[field], theirs[field])
        assert mine[field].dtype == theirs[field].dtype
    assert LESSON["my_mismatched"](rows) == mismatched(rows)
    assert LESSON["FIELDS"] == FIELDS
    for field, tensor in pad_rows(rows, 4).items():
        assert torch.equal(LESSON["pad_rows"](rows, 4)[field], tensor)
