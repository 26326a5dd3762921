"""Right and wrong answers to the exercises of lesson 03. The form is told in tests/test_checks.py."""

# What the answers need beyond the imports of lessons 03 and 03b.
SETUP = """
import torch

def ids_of(text, tokenizer):
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
"""


def earliest(pick, before="", after="return word"):
    """An encode_word that merges the pair with the smallest `pick` until none is known."""
    return f"""
def answer(word, merges):
    order = list(merges)
    {before}
    while known := [pair for pair in pairwise(word) if pair in merges]:
        best = min(known, key=lambda pair: {pick})
        word = merge(word, best, merges[best])
    {after}
"""


def row(result="ids, [0] * start + [1] * (len(ids) - start)", change="", encode=None, join="prompt + completion"):
    """A tokenize_with_mask: `change` runs before `result` is returned; `encode` replaces the call of the tokenizer."""
    encode = encode or "tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)"
    return f"""
def answer(prompt, completion, tokenizer):
    def ids_of(text):
        return {encode}
    alone, whole = ids_of(prompt), ids_of({join})
    start = 1
    for a, b in zip(alone, whole):
        if a != b:
            break
        start += 1
    ids = [tokenizer.bos_token_id] + whole + [tokenizer.eos_token_id]
    {change}
    return {result}
"""


ANSWERS = {
    "second_merge": {
        "right": {"whole number": "22", "sum": "5 + 9 + 8.0", "a tensor": "torch.tensor(22)"},
        "wrong": {
            "before the merge": ("one_merge_short", "5 * 2 + 3 * 3 + 2 * 4"),
            "another merge": ("one_merge_too_far", "5 + 3 * 2 + 8"),
            "letters": ("bytes", "35"),
            "each word once": ("words_once", "1 + 3 + 4"),
            "the pair's count": ("saved", "5"),
            "saved by both": ("saved_by_both", "35 - 22"),
            "the id": ("the_new_id", "260"),
            "a guess": ("values", "10"),
            "text": ("type", "'22'"),
            "three numbers": ("type", "[5, 9, 8]"),
        },
    },
    "tokenize_with_mask": {
        "right": {
            "longest common beginning": row(),
            "comprehension over places": row("ids, [int(t >= start) for t in range(len(ids))]"),
            "ids_of of the lesson, marked from the end": """
def answer(prompt, completion, tokenizer):
    alone, whole = ids_of(prompt, tokenizer), ids_of(prompt + completion, tokenizer)
    scored = len(whole)
    for a, b in zip(alone, whole):
        if a != b:
            break
        scored -= 1
    input_ids = [tokenizer.bos_token_id] + whole + [tokenizer.eos_token_id]
    return input_ids, [0] * (1 + len(whole) - scored) + [1] * (scored + 1)
""",
            "booleans, in a tuple": row("tuple(ids), tuple(t >= start for t in range(len(ids)))"),
            "library's pieces and a while loop": """
def answer(prompt, completion, tokenizer):
    options = {"add_special_tokens": False, "split_special_tokens": True}
    alone = [tokenizer.bos_token_id] + tokenizer(prompt, **options)["input_ids"]
    input_ids = [tokenizer.bos_token_id] + tokenizer(prompt + completion, **options)["input_ids"] + [tokenizer.eos_token_id]
    label_mask = []
    while len(label_mask) < len(alone) and alone[len(label_mask)] == input_ids[len(label_mask)]:
        label_mask.append(0)
    while len(label_mask) < len(input_ids):
        label_mask.append(1)
    return [input_ids, label_mask]
""",
        },
        "wrong": {
            "all but <bos> scored": ("prompt_scored", row("ids, [0] + [1] * (len(ids) - 1)")),
            "everything scored": ("prompt_scored", row("ids, [1] * len(ids)")),
            "<bos> scored": ("bos_scored", row("ids, [1] + [0] * (start - 1) + [1] * (len(ids) - start)")),
            "inverted": ("mask_inverted", row("ids, [1] * start + [0] * (len(ids) - start)")),
            "end not scored": ("eos_unscored", row("ids, [0] * start + [1] * (len(ids) - start - 1) + [0]")),
            "<bos> not counted": ("mask_early", row(change="start -= 1")),
            "mask made before <bos>": ("mask_early", row("ids, [0] * (start - 1) + [1] * (len(ids) - start) + [0]")),
            "first token lost": ("mask_late", row(change="start += 1")),
            "cut at the prompt's length": ("cut_at_prompt_length", row(change="start = 1 + len(alone)")),
            "no end": ("no_eos", row(change="ids = ids[:-1]")),
            "no beginning": ("no_bos", row(change="ids, start = ids[1:], start - 1")),
            "the library's <bos> too": ("two_bos", row(encode="tokenizer.encode(text, split_special_tokens=True)")),
            "the library's <bos> too, mask as without it": ("two_bos", row(change="ids = [tokenizer.bos_token_id] + ids")),
            "<bos> in the middle": ("two_bos", row(change="ids = ids[:start] + tokenizer.encode(completion, split_special_tokens=True) + ids[-1:]")),
            "<bos> in the middle, not scored": ("two_bos", row(change="ids = ids[:start] + tokenizer.encode(completion, split_special_tokens=True) + ids[-1:]; start += 1")),
            "parts joined": ("joined_parts", row(change="start = 1 + len(alone); ids = ids[:1] + alone + ids_of(completion) + ids[-1:]")),
            "typed signals": ("typed_special", row(encode="tokenizer.encode(text, add_special_tokens=False)")),
            "typed signals in the whole": ("typed_special", """
def answer(prompt, completion, tokenizer):
    alone = tokenizer.encode(prompt, add_special_tokens=False, split_special_tokens=True)
    whole = tokenizer.encode(prompt + completion, add_special_tokens=False)
    start = 1
    while start <= len(alone) and alone[:start] == whole[:start]:
        start += 1
    ids = [tokenizer.bos_token_id] + whole + [tokenizer.eos_token_id]
    return ids, [0] * start + [1] * (len(ids) - start)
"""),
            "typed signals, cut at the length": ("typed_special", row(encode="tokenizer.encode(text, add_special_tokens=False)", change="start = start + 0 if prompt.endswith(' ') else 1 + len(alone)")),
            "a blank between": ("blank_added", row(join="prompt + ' ' + completion")),
            "a blank in the prompt": ("blank_added", row(join="prompt + ' ' + completion", change="start += 1")),
            "ids 1 and 2": ("ids_by_number", row(change="ids = [1, *whole, 2]")),
            "labels with -100": ("labels", row("ids, [-100] * start + ids[start:]")),
            "mask first": ("exchanged", row("[0] * start + [1] * (len(ids) - start), ids")),
            "a dict": ("type", row("{'input_ids': ids, 'label_mask': [0] * start + [1] * (len(ids) - start)}")),
            "ids alone": ("type", row("ids")),
            "tensors": ("type", row("torch.tensor([ids, [0] * start + [1] * (len(ids) - start)])")),
            "mask too short": ("values", row("ids, [0] * start + [1]")),
            "an error": ("raised", row("ids, label_mask")),
            "no return": ("open", "def answer(prompt, completion, tokenizer):\n    ids = tokenizer.encode(prompt + completion)"),
        },
    },
    "encode_word": {
        "right": {
            "smallest rank": """
def answer(word, merges):
    rank = {pair: n for n, pair in enumerate(merges)}
    while True:
        known = [pair for pair in pairwise(word) if pair in rank]
        if not known:
            return word
        pair = min(known, key=rank.get)
        word = merge(word, pair, merges[pair])
""",
            "replay every merge once": """
def answer(word, merges):
    for pair, new_id in merges.items():
        word = merge(word, pair, new_id)
    return word
""",
            "recursion, one place at a time, a list": """
def answer(word, merges):
    word = list(word)
    for pair in merges:
        for i in range(len(word) - 1):
            if (word[i], word[i + 1]) == pair:
                return answer(word[:i] + [merges[pair]] + word[i + 2 :], merges)
    return word
""",
        },
        "wrong": {
            "untouched": ("nothing_merged", "lambda word, merges: word"),
            "one merge": ("one_round", """
def answer(word, merges):
    known = [pair for pair in merges if pair in set(pairwise(word))]
    return merge(word, known[0], merges[known[0]]) if known else word
"""),
            "pairs of the start": ("old_pairs_only", earliest("order.index(pair)", "merges = {p: merges[p] for p in merges if p in set(pairwise(word))}")),
            "from left to right": ("leftmost", """
def answer(word, merges):
    while known := [pair for pair in pairwise(word) if pair in merges]:
        word = merge(word, known[0], merges[known[0]])
    return word
"""),
            "largest rank": ("latest", earliest("-order.index(pair)")),
            "most frequent, ties by rank": ("most_frequent", earliest("(-Counter(pairwise(word))[pair], order.index(pair))")),
            "most frequent, ties by id": ("most_frequent", earliest("(-Counter(pairwise(word))[pair], pair)")),
            "ids counted from 259": ("numbered_anew", """
def answer(word, merges):
    for n, pair in enumerate(merges):
        word = merge(word, pair, 259 + n)
    return word
"""),
            "overlap from the right": ("from_the_right", """
def answer(word, merges):
    word = word[::-1]
    for (left, right), new_id in merges.items():
        word = merge(word, (right, left), new_id)
    return word[::-1]
"""),
            "an endless loop": ("timeout", "def answer(word, merges):\n    while len(word) > 1:\n        word = word[:]\n    return word"),
            "first pair taken for granted": ("raised", earliest("order.index(pair)", "word[0]")),
            "text": ("type", earliest("order.index(pair)", after="return ' '.join(map(str, word))")),
            "last token dropped": ("values", earliest("order.index(pair)", after="return word[:-1]")),
            "no return": ("open", earliest("order.index(pair)", after="word = word")),
        },
    },
}  # fmt: skip

EQUIVALENT = {}
