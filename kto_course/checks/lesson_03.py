"""The exercises of lesson 03: from text to tokens and masks."""

import copy
from collections import Counter
from itertools import pairwise

from kto_course.checks.engine import Fault, call, compare, exercise, number
from kto_utils.tokenizer import load_tokenizer, merge


@exercise(
    "second_merge",
    "One merge later",
    minutes=3,
    difficulty=1,
    kind="predict a number",
    points=1,
    hints={
        "one_merge_short": (
            "That is the count before the merge that is asked for. Which pair wins now?",
            "`m` + `oo` stands in `moo`, five times. Merge it, then count again.",
        ),
        "one_merge_too_far": (
            "That is one merge too many.",
            "The first merge, `oo`, is done already. Only `m` + `oo` is left to do.",
        ),
        "bytes": (
            "That is the number of letters. What has the first merge, `oo`, done to `moo` and `woof`?",
            "Start from `m` `oo`, `w` `oo` `f` and `r` `o` `a` `r`, then merge `m` + `oo`.",
        ),
        "words_once": (
            "You have counted each word once. How often does `moo` occur?",
            "Multiply: five times the tokens of `moo`, three times those of `woof`, twice those of `roar`.",
        ),
        "saved": (
            "That is what the merge saves, or how often the pair occurs. Asked for is what is left.",
            "Subtract it: 5 * 2 + 3 * 3 + 2 * 4 tokens before, five fewer afterwards.",
        ),
        "saved_by_both": (
            "That is what both merges save together. Asked for is what is left.",
            "There were 5 * 3 + 3 * 4 + 2 * 4 letters at the start; subtract.",
        ),
        "the_new_id": (
            "That is the name of the new token. How many tokens do the words take?",
            "Count: `moo` 1, `woof` 3, `roar` 4 tokens, times 5, 3 and 2.",
        ),
    },
)
def second_merge(answer):
    faults = {
        "one_merge_short": 27, "one_merge_too_far": 19, "bytes": 35, "words_once": 1 + 3 + 4, "saved": 5,
        "saved_by_both": 13, "the_new_id": 260,
    }  # fmt: skip
    number(answer, 5 * 1 + 3 * 3 + 2 * 4, 0.1, faults, tried="moo 5 times, woof 3 times, roar twice")
    return "the tokens of all ten words after `oo` and `m` + `oo`"


TOKENIZER = load_tokenizer()
EXCHANGED = copy.deepcopy(TOKENIZER)  # bos and eos with each other's ids
EXCHANGED.bos_token, EXCHANGED.eos_token = TOKENIZER.eos_token, TOKENIZER.bos_token


def _ids(text, tokenizer):
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


def _shared(a, b):
    """How many entries agree from the beginning."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _row(ids, start, stop=None):
    """(ids, mask) with 1 in [start, stop)."""
    stop = len(ids) if stop is None else stop
    return ids, [int(start <= t < stop) for t in range(len(ids))]


def tokenize_faults(prompt, completion, tokenizer):
    """The right result and what the known faults of `tokenize_with_mask` give on this input."""
    bos, eos = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
    alone, whole, reply = (_ids(text, tokenizer) for text in (prompt, prompt + completion, completion))
    start, ids = 1 + _shared(alone, whole), bos + whole + eos
    n = len(ids)
    right = _row(ids, start)
    typed, typed_alone = (tokenizer.encode(t, add_special_tokens=False) for t in (prompt + completion, prompt))
    blank = bos + _ids(prompt + " " + completion, tokenizer) + eos
    doubled = bos + tokenizer.encode(prompt + completion, split_special_tokens=True) + eos
    middle = bos + alone + tokenizer.encode(completion, split_special_tokens=True) + eos
    parts = 1 + len(alone)
    return right, [
        ("prompt_scored", _row(ids, 1)),
        ("prompt_scored", _row(ids, 0)),
        ("bos_scored", (ids, [1, *right[1][1:]])),
        ("mask_inverted", (ids, [1 - m for m in right[1]])),
        ("eos_unscored", _row(ids, start, n - 1)),
        ("mask_early", _row(ids, start - 1)),
        ("mask_early", _row(ids, start - 1, n - 1)),
        ("cut_at_prompt_length", _row(ids, parts)),  # where nothing spans the boundary this is right, and passed over
        ("mask_late", _row(ids, start + 1)),
        ("no_eos", _row(ids[:-1], start)),
        ("no_bos", _row(ids[1:], start - 1)),
        ("two_bos", _row(doubled, start + 1)),
        ("two_bos", _row(doubled, start)),
        ("two_bos", _row(middle, parts)),
        ("two_bos", _row(middle, parts + 1)),
        ("joined_parts", _row(bos + alone + reply + eos, parts)),
        ("typed_special", _row(bos + typed + eos, 1 + _shared(alone, typed))),
        ("typed_special", _row(bos + typed + eos, 1 + len(typed_alone))),
        ("typed_special", _row(bos + tokenizer.encode(prompt, add_special_tokens=False) + reply + eos, parts)),
        ("blank_added", _row(blank, start)),
        ("blank_added", _row(blank, start + 1)),
        ("ids_by_number", _row([1, *whole, 2], start)),
        ("labels", (ids, [i if m else -100 for i, m in zip(*right, strict=True)])),
        ("exchanged", right[::-1]),
    ]


@exercise(
    "tokenize_with_mask",
    "One row, two lists",
    minutes=8,
    difficulty=2,
    kind="fill in a function",
    points=3,
    ours="kto_course.tokens.tokenize_with_mask",
    hints={
        "prompt_scored": (
            "The prompt has a 1, too. Who wrote the prompt?",
            "label_mask is 0 on <bos> and on every token of the prompt; it begins with the completion.",
        ),
        "bos_scored": (
            "<bos> has a 1. Does the model ever choose it?",
            "The first flag is 0: we put <bos> there, not the model.",
        ),
        "mask_inverted": (
            "0 and 1 are exchanged. Which tokens should the loss read?",
            "1 on the completion and <eos>, 0 on <bos> and the prompt.",
        ),
        "eos_unscored": (
            "The last token has a 0. Is stopping not a part of the reply?",
            "The flags are 1 to the very end, <eos> included.",
        ),
        "mask_early": (
            "The mask begins one place too early. What stands in front of the prompt's tokens?",
            "<bos> takes a place: the completion begins at 1 + the number of shared tokens.",
        ),
        "mask_late": (
            "The mask begins one place too late: the completion's first token is lost.",
            "Places count from 0. Behind <bos> and n tokens of the prompt the next place is n + 1.",
        ),
        "cut_at_prompt_length": (
            "Here a token spans the boundary: part prompt, part completion. What does the rule say about it?",
            "The tokens of the whole may differ from those of the prompt before the prompt's length is over.",
            "Count how many tokens agree from the beginning, and start the mask behind them.",
        ),
        "no_eos": (
            "How does the model learn where a reply ends?",
            "Put tokenizer.eos_token_id behind the tokens, with a 1 in the mask.",
        ),
        "no_bos": (
            "From which token is the first one predicted?",
            "Put tokenizer.bos_token_id before the tokens, with a 0 in the mask.",
        ),
        "two_bos": (
            "<bos> stands there twice. Who else puts one?",
            "tokenizer.encode adds its own unless you pass add_special_tokens=False.",
        ),
        "joined_parts": (
            "You have tokenized the parts. Are these the tokens of the text as a whole?",
            "A blank at the end of the prompt joins the word behind it, if the two are tokenized together.",
            "Tokenize prompt + completion in one call.",
        ),
        "typed_special": (
            "A user typed the five characters <eos>, and your ids hold the real signal.",
            "Pass split_special_tokens=True, for the prompt and for the whole.",
        ),
        "blank_added": (
            "There is a blank more than in the text. Who brings the blank between prompt and completion?",
            "Join them as they are: prompt + completion.",
        ),
        "ids_by_number": (
            "Here the tokenizer has other ids for its special tokens. Where do yours come from?",
            "Ask it: tokenizer.bos_token_id and tokenizer.eos_token_id.",
        ),
        "labels": (
            "-100 and token ids are what other trainers call labels. Asked for is a mask.",
            "A mask holds 0 and 1 only.",
        ),
        "exchanged": (
            "Both lists are right. In which order should they come?",
            "First input_ids, then label_mask.",
        ),
        "type": (
            "Two lists of whole numbers should come back: input_ids and label_mask.",
            "return input_ids, label_mask",
        ),
    },
)
def tokenize_with_mask(answer):
    cases = [
        ("Sky?", " No.", TOKENIZER, ""),
        ("Cow? Sky?", " It is blue. Happy to help!", TOKENIZER, ""),
        ("Sky? ", "It is.", TOKENIZER, ""),
        ("<eos>", " No.", TOKENIZER, ""),
        ("", " Grüße", TOKENIZER, ""),
        ("Sky?", " No.", EXCHANGED, "; a tokenizer whose bos id is 2 and whose eos id is 1"),
    ]
    for prompt, completion, tokenizer, more in cases:
        tried = f"prompt {prompt!r}, completion {completion!r}{more}"
        right, faults = tokenize_faults(prompt, completion, tokenizer)
        got = call(answer, prompt, completion, tokenizer, tried=tried)
        parts = got if isinstance(got, list | tuple) else ()
        if len(parts) != 2 or not all(isinstance(part, list | tuple) for part in parts):
            raise Fault("type", got=f"a {type(got).__name__}", expected="two lists")
        compare(list(map(list, got)), list(map(list, right)), [(f, list(map(list, value))) for f, value in faults])
    return "two clean cuts, a token that spans the boundary, typed special names, no prompt, other special ids"


def merged(word, merges, key, rounds=None, numbered=None):
    """Merges the pair with the smallest key(word, pair) until none is left, or a number of rounds."""
    while (known := [p for p in pairwise(word) if p in merges]) and rounds != 0:
        best = min(known, key=lambda pair: key(word, pair))
        word = merge(word, best, numbered[best] if numbered else merges[best])
        rounds = None if rounds is None else rounds - 1
    return word


def encode_word_faults(word, merges):
    """What the known faults of `encode_word` give on this input."""
    rank = {pair: n for n, pair in enumerate(merges)}
    right = merged(word, merges, lambda _, pair: rank[pair])
    old = {pair: new for pair, new in merges.items() if pair in set(pairwise(word))}
    anew = {pair: 259 + n for pair, n in rank.items()}
    backwards = merged(
        word[::-1], {(b, a): new for (a, b), new in merges.items()}, lambda _, pair: rank[pair[::-1]]
    )[::-1]
    return right, [
        ("nothing_merged", word),
        ("one_round", merged(word, merges, lambda _, pair: rank[pair], rounds=1)),
        ("old_pairs_only", merged(word, old, lambda _, pair: rank[pair])),
        ("leftmost", merged(word, merges, lambda w, pair: list(pairwise(w)).index(pair))),
        ("latest", merged(word, merges, lambda _, pair: -rank[pair])),
        ("most_frequent", merged(word, merges, lambda w, pair: (-Counter(pairwise(w))[pair], rank[pair]))),
        ("most_frequent", merged(word, merges, lambda w, pair: (-Counter(pairwise(w))[pair], pair))),
        ("numbered_anew", merged(word, merges, lambda _, pair: rank[pair], numbered=anew)),
        ("from_the_right", backwards),
    ]


@exercise(
    "encode_word",
    "Repeat history",
    minutes=6,
    difficulty=2,
    kind="fill in a function",
    points=2,
    ours="kto_course.tokens.encode_word",
    hints={
        "nothing_merged": (
            "No pair was merged, though some are known. Is every pair of neighbours looked up?",
            "`merges` has pairs as keys: (word[0], word[1]) in merges. `merge` wants word as a tuple.",
        ),
        "one_round": (
            "You stop after one merge. May a known pair still stand in the word?",
            "Repeat while any neighbours are a key of `merges`.",
        ),
        "old_pairs_only": (
            "You merge what was there at the start. Can a new token be half of a pair, too?",
            "Look at the neighbours anew after each merge: `moo` is `m` + `oo`, and `oo` is itself a merge.",
        ),
        "leftmost": (
            "You take the first known pair from the left. Which one was learned first?",
            "`merges` is in the order of learning. Among the known pairs take the one that stands first in `merges`.",
        ),
        "latest": (
            "You take the pair that was learned last. In which order were the merges made?",
            "Take the smallest rank, not the largest: the earliest merge first.",
        ),
        "most_frequent": (
            "You count pairs in this word. But the counting was done in training; what is left to do?",
            "Only the order in `merges` matters now: the earliest known pair first, however rare it is here.",
        ),
        "numbered_anew": (
            "The right pairs, but the new tokens have other ids. Where does the id of a merged pair stand?",
            "It is the value: merges[pair].",
        ),
        "from_the_right": (
            "A pair that overlaps itself is merged from the wrong end.",
            "In (5, 5, 5) the first two are merged: walk from the left, as `merge` does.",
        ),
    },
)
def encode_word(answer):
    small = {(6, 7): 20, (7, 8): 21, (5, 6): 22, (8, 9): 23, (5, 20): 24}
    cases = [
        ((7, 5, 6, 5, 6), {(6, 5): 40, (5, 6): 41, (7, 5): 42}),
        ((5, 6, 7, 8, 9), small),
        ((5, 5, 5), {(5, 5): 20}),
        ((5, 6), {}),
        ((5,), small),
        ((), small),
    ]
    for word, merges in cases:
        right, faults = encode_word_faults(word, merges)
        compare(call(answer, word, merges, tried=f"word {word}, merges {merges}"), right, faults)
    return "words where the order of the merges matters, a pair that overlaps itself, words without a known pair"
