"""Byte-pair encoding by hand (lesson 03) against the `tokenizers` library, on any text."""

import json
import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lesson_source import definitions
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from kto_lab import recipes
from kto_utils import world
from kto_utils.tokenizer import (
    BOS_ID,
    CHUNK_PATTERN,
    EOS_ID,
    N_BYTES,
    PAD_ID,
    SPECIAL_TOKENS,
    TOKENIZER_FILE,
    BPETokenizer,
    chunks,
    count_pairs,
    load_tokenizer,
    merge,
    to_fast_tokenizer,
    train_bpe,
)

SMALLEST = len(SPECIAL_TOKENS) + N_BYTES
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # a lone surrogate is no text
# Words of the corpus, typed special tokens, and what often breaks tokenizers: controls, odd blanks, accents.
WORDS = [" blue", "It", "USER:", " ASSISTANT:", "<eos>", "<bos>", "<pad>", "<", " ", "  ", "\n", "\r\n", "\t"]
ODD = [*"\x00\x7f\x85\x0b\xa0\u2028\u200b\ufeffſ", "e\u0301", "\U0001f469\u200d"]
TRICKY = st.lists(st.sampled_from(WORDS) | st.sampled_from(ODD) | ANY_TEXT).map("".join)


@pytest.fixture(scope="module")
def by_hand():
    return train_bpe(world.corpus(), recipes.VOCAB_SIZE)


@pytest.fixture(scope="module")
def shipped():
    return load_tokenizer()


@pytest.fixture(scope="module")
def lesson():
    names = (
        "FIRST_BYTE_ID",
        "FIRST_MERGE_ID",
        "CHUNK_PATTERN",
        "count_pairs",
        "merge",
        "chunks",
        "train_bpe",
    )
    found = definitions("03b_merges", "my_encode_word", "encode") | definitions("03_tokenization", *names, "decode")
    found["encode"].__globals__["encode_word"] = found["my_encode_word"]  # an exercise: the lesson goes on with either
    return found


def library_ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


# Counting, merging, cutting


def test_pairs_are_counted_with_the_words_frequency():
    words = [((1, 2, 1, 2), 10), ((2, 1), 1), ((7,), 99), ((), 5)]
    assert count_pairs(words) == {(1, 2): 20, (2, 1): 11}


def test_merge_works_from_the_left_and_does_not_overlap():
    assert merge((5, 5, 5), (5, 5), 9) == (9, 5)
    assert merge((5, 5, 5, 5), (5, 5), 9) == (9, 9)
    assert merge((1, 2, 3), (2, 1), 9) == (1, 2, 3)
    assert merge((), (1, 2), 9) == ()


@given(st.lists(st.integers(0, 3)), st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_merge_can_be_undone(ids, pair):
    merged = merge(tuple(ids), pair, 9)
    undone = [part for i in merged for part in (pair if i == 9 else (i,))]
    assert undone == ids
    assert pair not in pairwise(merged)


@given(TRICKY)
def test_chunks_joined_are_the_text_again(text):
    pieces = chunks(text)
    assert b"".join(pieces) == text.encode("utf-8")
    assert all(pieces)


def test_chunks_keep_the_blank_with_the_word_after_it():
    assert chunks("It is 42!?  Yes.") == [b"It", b" is", b" 42", b"!?", b"  ", b"Yes", b"."]


# Encode and decode


@settings(max_examples=400)
@given(TRICKY)
@example("")
@example("<eos>")
@example(" \n\t ")
@example("\x00\x1f\x7f")
def test_encode_equals_the_library_and_decode_undoes_it(by_hand, shipped, text):
    ids = by_hand.encode(text)
    assert ids == library_ids(shipped, text)
    assert by_hand.decode(ids) == text
    assert shipped.decode(ids) == text
    assert all(len(SPECIAL_TOKENS) <= i < by_hand.vocab_size for i in ids)


def test_encode_equals_the_library_on_the_whole_corpus(by_hand, shipped):
    texts = world.corpus()
    assert len(texts) == 64 * 49
    for text in texts:
        assert by_hand.encode(text) == library_ids(shipped, text)


@st.composite
def corpora(draw):
    alphabet = draw(st.sampled_from(["a", "ab", "aaab", "abc ", "ab.1 ", "éa ", "日本 a"]))
    texts = draw(st.lists(st.text(alphabet, max_size=40), max_size=6))
    return texts, draw(st.integers(SMALLEST, SMALLEST + 40)), draw(st.text(alphabet, max_size=40))


@settings(max_examples=150)
@given(corpora())
def test_any_trained_tokenizer_agrees_with_the_library(corpus):
    texts, vocab_size, unseen = corpus
    by_hand = train_bpe(texts, vocab_size)
    library = to_fast_tokenizer(by_hand)
    assert len(library) == by_hand.vocab_size <= vocab_size
    for text in [*texts, unseen]:
        ids = by_hand.encode(text)
        assert ids == library_ids(library, text)
        assert by_hand.decode(ids) == text == library.decode(ids)


@settings(max_examples=150)
@given(corpora())
def test_no_two_merges_spell_the_same_bytes(corpus):
    texts, vocab_size, _ = corpus
    by_hand = train_bpe(texts, vocab_size)
    assert len(set(by_hand.bytes_of.values())) == len(by_hand.bytes_of) == N_BYTES + len(by_hand.merges)


def test_two_routes_to_the_same_bytes_are_one_token_if_the_merges_say_so():
    a, b, c = (ord(sign) + len(SPECIAL_TOKENS) for sign in "abc")
    ab, bc, abc = SMALLEST, SMALLEST + 1, SMALLEST + 2
    both = BPETokenizer({(a, b): ab, (b, c): bc, (ab, c): abc, (a, bc): abc})
    assert both.vocab_size == SMALLEST + 3
    assert both.encode("abc") == [abc] == library_ids(to_fast_tokenizer(both), "abc")
    assert both.decode([abc, bc]) == "abcbc"


def test_the_earliest_merge_comes_first_and_not_the_longest_token():
    a, b, c = (ord(sign) + len(SPECIAL_TOKENS) for sign in "abc")
    late = BPETokenizer({(a, b): SMALLEST, (b, c): SMALLEST + 1, (SMALLEST + 1, c): SMALLEST + 2})
    assert late.encode("abcc") == [SMALLEST, c, c]
    assert library_ids(to_fast_tokenizer(late), "abcc") == [SMALLEST, c, c]


def test_decode_drops_special_tokens_and_marks_broken_characters(by_hand):
    half = by_hand.encode("é")[:1]
    assert by_hand.decode([BOS_ID, *by_hand.encode("blue"), EOS_ID, PAD_ID]) == "blue"
    assert by_hand.decode(half) == "\ufffd"
    assert by_hand.decode([]) == ""


@pytest.mark.parametrize("bad", [512, -1])
def test_decode_refuses_ids_outside_the_vocabulary(by_hand, bad):
    with pytest.raises(ValueError, match=f"token id {bad} is not in the vocabulary of 512 tokens"):
        by_hand.decode([5, bad])


# Training


def test_training_takes_the_most_frequent_pair_and_the_smaller_ids_on_ties():
    trained = train_bpe(["moo"] * 5 + ["woof"] * 3 + ["roar"] * 2, SMALLEST + 2)
    o, m = (ord(sign) + len(SPECIAL_TOKENS) for sign in "om")
    assert list(trained.merges.items()) == [((o, o), SMALLEST), ((m, SMALLEST), SMALLEST + 1)]
    tied = train_bpe(["ab", "cd"], SMALLEST + 1)
    assert tied.decode([SMALLEST]) == "ab"


def test_training_learns_the_library_s_merges_where_ties_fall_its_way():
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CHUNK_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.train_from_iterator(
        world.corpus(),
        trainers.BpeTrainer(
            vocab_size=recipes.VOCAB_SIZE,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    id_of = library.get_vocab()
    # The library's names of the bytes, in its own order: ties go to the smaller id there too, but ids differ.
    words = Counter()
    for text in world.corpus():
        for name, _ in library.pre_tokenizer.pre_tokenize_str(text):
            words[tuple(id_of[sign] for sign in name)] += 1
    learned = []
    while SMALLEST + len(learned) < recipes.VOCAB_SIZE:
        counts = count_pairs(words.items())
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        words = {merge(ids, best, SMALLEST + len(learned)): times for ids, times in words.items()}
        learned.append(best)
    token = {i: name for name, i in id_of.items()}
    theirs = [tuple(pair) for pair in json.loads(library.to_str())["model"]["merges"]]
    assert [(token[left], token[right]) for left, right in learned] == theirs
    assert len(theirs) == 253


def test_training_does_not_depend_on_the_order_of_the_texts(by_hand):
    texts = world.corpus()
    random.Random(3).shuffle(texts)
    assert list(train_bpe(texts, recipes.VOCAB_SIZE).merges.items()) == list(by_hand.merges.items())


def test_training_stops_where_nothing_is_left_to_merge():
    assert train_bpe(["abc"], 10_000).vocab_size == SMALLEST + 2
    assert train_bpe([], 10_000).vocab_size == SMALLEST
    assert train_bpe(["a b"], SMALLEST).encode("a b") == [100, 35, 101]


def test_no_merge_reaches_across_a_cut(by_hand):
    for raw in by_hand.bytes_of.values():
        assert b" " not in raw[1:]


def test_training_takes_any_iterable():
    assert train_bpe(iter(["moo", "moo"]), SMALLEST + 1).merges == train_bpe(["moo", "moo"], SMALLEST + 1).merges


def test_training_refuses_one_string():
    with pytest.raises(TypeError, match="one string; pass a list"):
        train_bpe("It is blue.", 300)


@pytest.mark.parametrize("entry", [3, None, b"blue"])
def test_training_refuses_what_is_no_text(entry):
    with pytest.raises(TypeError, match=f"texts holds {type(entry).__name__}"):
        train_bpe(["blue", entry], 300)


@pytest.mark.parametrize("size", [258, 0, -5])
def test_training_refuses_a_vocabulary_without_room_for_the_bytes(size):
    with pytest.raises(ValueError, match=f"vocab_size is {size}; at least 259"):
        train_bpe(["blue"], size)


# The library's tokenizer and the shipped file


def test_the_shipped_file_is_what_the_recipe_writes(tmp_path):
    recipes.make_tokenizer(tmp_path / "tokenizer.json")
    assert (tmp_path / "tokenizer.json").read_bytes() == TOKENIZER_FILE.read_bytes()


def test_special_tokens_have_their_ids_and_bos_comes_first(shipped):
    assert (shipped.pad_token_id, shipped.bos_token_id, shipped.eos_token_id) == (PAD_ID, BOS_ID, EOS_ID) == (0, 1, 2)
    assert len(shipped) == recipes.VOCAB_SIZE
    plain = library_ids(shipped, "It is blue.")
    assert shipped.encode("It is blue.") == [BOS_ID, *plain]
    assert shipped("It is blue.")["input_ids"] == [BOS_ID, *plain]
    assert shipped.decode([BOS_ID, *plain, EOS_ID], skip_special_tokens=True) == "It is blue."


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_typed_special_tokens_stay_text(by_hand, shipped, token):
    typed = library_ids(shipped, token)
    assert typed == by_hand.encode(token)
    assert not set(typed) & {PAD_ID, BOS_ID, EOS_ID}
    assert shipped.decode(typed) == token
    # The library's default does the opposite, which is why the course always sets the argument.
    assert len(shipped.encode(token, add_special_tokens=False)) == 1


def test_blanks_before_signs_survive_decoding(shipped):
    text = " It is blue , is n't it ? ' Yes ' ."
    assert shipped.decode(library_ids(shipped, text)) == text


@pytest.mark.parametrize("loader", [AutoTokenizer, PreTrainedTokenizerFast])
def test_a_saved_tokenizer_loads_again(shipped, loader, tmp_path):
    shipped.save_pretrained(tmp_path)
    loaded = loader.from_pretrained(tmp_path)
    assert loaded.get_vocab() == shipped.get_vocab()
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id) == (PAD_ID, BOS_ID, EOS_ID)
    for text in ["", "USER: <eos> Grüße \n日本 ASSISTANT:", *world.corpus()[:60]]:
        assert loaded.encode(text) == shipped.encode(text)
        assert library_ids(loaded, text) == library_ids(shipped, text)
        assert loaded.decode(library_ids(loaded, text)) == text


# The lesson's versions


@settings(max_examples=100)
@given(st.data())
def test_the_lesson_computes_the_same_as_the_package(lesson, by_hand, data):
    text = data.draw(TRICKY)
    merges = by_hand.merges
    assert lesson["chunks"](text) == chunks(text)
    ids = lesson["encode"](text, merges)
    assert ids == by_hand.encode(text)
    cut = [BOS_ID, *ids[: data.draw(st.integers(0, len(ids)))], EOS_ID]
    assert lesson["decode"](cut, merges) == by_hand.decode(cut)
    word, pair = tuple(ids), data.draw(st.tuples(st.integers(3, 12), st.integers(3, 12)))
    assert lesson["merge"](word, pair, 999) == merge(word, pair, 999)
    assert lesson["count_pairs"]([(word, 3), ((3, 4, 3), 2)]) == count_pairs([(word, 3), ((3, 4, 3), 2)])


@settings(max_examples=60)
@given(corpora())
def test_the_lesson_learns_the_same_merges(lesson, corpus):
    texts, vocab_size, _ = corpus
    assert list(lesson["train_bpe"](texts, vocab_size).items()) == list(train_bpe(texts, vocab_size).merges.items())


def test_the_lesson_learns_the_shipped_merges(lesson, by_hand):
    learned = lesson["train_bpe"](world.corpus(), recipes.VOCAB_SIZE)
    assert list(learned.items()) == list(by_hand.merges.items())
