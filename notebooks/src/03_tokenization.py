# %% [markdown]
# # 03 · From text to tokens and masks
# Build a byte-pair tokenizer by hand, then turn a reply and its thumb into the ids and mask that KTO reads.

# %% [markdown]
# **You will be able to**
# - learn merges from a corpus, encode any text and decode it again;
# - turn prompt, completion and thumb into `input_ids` and `label_mask`, end-of-sequence token included;
# - say what happens where prompt and completion meet, and what truncation takes away;
# - turn preference pairs into thumbs, and say why they must be shuffled.
#
# **You need first** Python. What a thumb and a reference model are: [00](00_start_here.ipynb).
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything**
#
# A user asks which sound an owl makes. The model replies ` No.` and gets a thumbs down. Those are four
# characters: a blank (the space character), two letters, a full stop.
#
# The row becomes a list of token ids, and the loss scores some of their positions. How many? The cell below the
# imports takes your guess. Section 7 prints the answer.

# %%
import json
import math
import random
import re
from collections import Counter
from itertools import pairwise

import datasets
import matplotlib.pyplot as plt
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from kto_course import check, predict, reveal
from kto_utils import data, world
from kto_utils.data import format_prompt, load_eight_rows
from kto_utils.logprobs import sequence_logps
from kto_utils.model import load_reference_model
from kto_utils.plotting import DOWN, UP, save_figure, use_course_style
from kto_utils.tokenizer import BPETokenizer, load_tokenizer, to_fast_tokenizer

use_course_style()
datasets.disable_progress_bars()

# %%
choices = ["3", "4", "5", "18"]
predict("scored_positions", "The reply ` No.`: how many positions are scored?", choices, guess=None, confidence=None)

# %% [markdown]
# ## 1. Text is bytes
# A model computes with whole numbers, not letters. Every text already is a list of numbers: its UTF-8 bytes.
# A plain English letter is one byte, others take two to four. So 256 numbers are enough for every language, and
# no character is unknown.
#
# The course keeps ids 0, 1 and 2 for three special tokens (section 5). Byte $b$ therefore gets id $b + 3$,
# and the first free id is 259.

# %%
for text in ["b", "é", "β", "€", "It is blue."]:
    print(text, list(text.encode("utf-8")))

FIRST_BYTE_ID = 3
FIRST_MERGE_ID = FIRST_BYTE_ID + 256
print("as ids:", [byte + FIRST_BYTE_ID for byte in text.encode("utf-8")])
print("first free id:", FIRST_MERGE_ID)

# %% [markdown]
# ## 2. Count pairs, merge the winner
# One id per byte works, but it makes long sequences, and a model's work grows with their length. Byte-pair
# encoding (BPE) shortens them. Take the two neighbours that occur together most often, give the pair an id of
# its own, repeat.
#
# Start with three words and how often each occurs. To count pairs, slide over every word and add its count.


# %%
def count_pairs(words):
    counts = Counter()
    for ids, times in words:
        for pair in pairwise(ids):
            counts[pair] += times
    return counts


times = {b"moo": 5, b"woof": 3, b"roar": 2}
words = {tuple(byte + FIRST_BYTE_ID for byte in word): n for word, n in times.items()}
for (left, right), n in count_pairs(words.items()).most_common(4):
    print(chr(left - FIRST_BYTE_ID) + chr(right - FIRST_BYTE_ID), n)

# %% [markdown]
# `oo` wins with 5 + 3. It becomes token 259. Merging means: walk from the left and replace the pair wherever
# it stands.


# %%
def merge(ids, pair, new_id):
    merged, i = [], 0
    while i < len(ids):
        if ids[i : i + 2] == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return tuple(merged)


oo = (ord("o") + FIRST_BYTE_ID, ord("o") + FIRST_BYTE_ID)
for ids in words:
    print(ids, "->", merge(ids, oo, FIRST_MERGE_ID))

# %% [markdown]
# `moo` is now two tokens. In the next round `m` + `oo` is a pair like any other, so merges build on merges.

# %% [markdown]
# ### Exercise 3.1 · One merge later
# ★☆☆ · 3 minutes · predict a number
#
# The merge `oo` is done. Now count pairs again and merge the winner, once. How many tokens do all ten words take
# then, if `moo` occurs five times, `woof` three times and `roar` twice?

# %% exercise="second_merge"
answer = ...  # a number
### BEGIN SOLUTION
answer = 5 * 1 + 3 * 3 + 2 * 4  # moo is one token, woof three, roar four
### END SOLUTION

# %% check="second_merge" points=1
check.second_merge(answer)

# %% [markdown]
# One rule is missing. Without it the full stop and the next sentence's `It` could grow together into a token
# that means nothing. So text is first cut into chunks, and no merge reaches across a cut. The blank travels
# with the word **after** it; that decides what happens in section 8.

# %%
# a word with the blank before it | a number | a run of signs | white space
CHUNK_PATTERN = r" ?[A-Za-z]+| ?[0-9]+| ?[^ \t\r\nA-Za-z0-9]+|[ \t\r\n]+"


def chunks(text):
    return [piece.encode("utf-8") for piece in re.findall(CHUNK_PATTERN, text)]


print(chunks("It is blue. Happy to help!"))

# %% [markdown]
# Now the whole training loop: merge until there are `vocab_size` different ids, the vocabulary. Ties go to
# the pair with the smaller ids, so that everybody learns the same merges.
#
# The corpus is the course's small world: 64 prompts (32 facts, each asked in two wordings) and 48 replies to each:
# 6 ways of speaking, polite or rude, times 8 answers, one of them right.


# %%
def train_bpe(texts, vocab_size):
    counted = Counter(piece for text in texts for piece in chunks(text))
    words = {tuple(byte + FIRST_BYTE_ID for byte in piece): times for piece, times in counted.items()}
    merges = {}
    while FIRST_MERGE_ID + len(merges) < vocab_size:
        pairs = count_pairs(words.items())
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges[best] = FIRST_MERGE_ID + len(merges)
        words = {merge(ids, best, merges[best]): times for ids, times in words.items()}
    return merges


corpus = world.corpus()
merges = train_bpe(corpus, vocab_size=512)
print(f"{len(corpus)} texts = 64 prompts + 64 * 48 = {64 * 48} replies; {len(merges)} merges learned")
print(corpus[0], "|", corpus[1])
assert len(corpus) == 64 + 64 * 48

# %% [markdown]
# ## 3. Decode and encode
# Decoding is the easy direction. A merged token stands for the bytes of its two parts. Special ids stand for
# nothing.


# %%
def decode(ids, merges):
    bytes_of = {byte + FIRST_BYTE_ID: bytes([byte]) for byte in range(256)}
    for (left, right), new_id in merges.items():
        bytes_of[new_id] = bytes_of[left] + bytes_of[right]
    return b"".join(bytes_of.get(i, b"") for i in ids).decode("utf-8", errors="replace")


tokens = [decode([i], merges) for i in merges.values()]
print("first:  ", tokens[:9])
print("longest:", sorted(tokens, key=len)[-7:])

# %% [markdown]
# The first merges are scraps that occur everywhere. Words that this world uses often end up whole.
#
# Encoding repeats history: cut into chunks, start from bytes, and apply the merge that was learned
# **earliest** as long as any applies.

# %% [markdown]
# ### Exercise 3.2 · Repeat history
# ★★☆ · 6 minutes · fill in a function
#
# Encode one chunk. As long as two neighbours are a pair in `merges`: among those pairs take the one that was learned
# first, and replace it by its id. A dict keeps its order, so the pairs stand in `merges` in the order of learning.
# You may use `merge` and `pairwise` from above.

# %% exercise="encode_word"
def my_encode_word(word, merges):
    """Merges the tokens of one chunk until no known pair is left.

    word: tuple of byte ids. merges: {(left id, right id): new id}, the earliest first.
    Returns a tuple of token ids.
    """
    ### BEGIN SOLUTION
    order = list(merges)
    while known := [pair for pair in pairwise(word) if pair in merges]:
        earliest = min(known, key=order.index)
        word = merge(word, earliest, merges[earliest])
    return word
    ### END SOLUTION


# %% check="encode_word" points=2
check.encode_word(my_encode_word)

# %% [markdown]
# The course's version keeps the rank of every pair, and walks over all chunks of a text:


# %%
def encode(text, merges):
    rank = {pair: n for n, pair in enumerate(merges)}
    ids = []
    for chunk in chunks(text):
        word = tuple(byte + FIRST_BYTE_ID for byte in chunk)
        while known := [pair for pair in pairwise(word) if pair in rank]:
            earliest = min(known, key=rank.get)
            word = merge(word, earliest, merges[earliest])
        ids.extend(word)
    return ids


ids = encode(" It is blue. Happy to help!", merges)
print(ids)
print([decode([i], merges) for i in ids])

# %% [markdown]
# Watch one word shrink. With the first 0, 20, 60, 100 and 253 merges:

# %%
for n in [0, 20, 60, 100, 253]:
    first = dict(list(merges.items())[:n])
    print(f"{n:3d} merges:", [decode([i], first) for i in encode(" Obviously", first)])

# %% [markdown]
# Decoding undoes encoding for every text, seen or unseen. What the corpus never showed simply costs more
# tokens. The other direction does not hold: a model may stop in the middle of a character, and half an `é` is
# no letter. It shows as the replacement sign.

# %%
for text in [*corpus, "Grüße aus Köln", "Жар-птица\n\t", ""]:
    assert decode(encode(text, merges), merges) == text
for text in ["The answer is Paris.", "The answer is Grüße."]:
    print(f"{len(text.encode())} bytes, {len(encode(text, merges))} tokens: {text}")
print("half a character:", decode(encode("é", merges)[:1], merges))

# %% [markdown]
# How much does each merge save? Replay all of them on the corpus and count its tokens each time.

# %%
pieces = Counter(piece for text in corpus for piece in chunks(text))
words = {tuple(byte + FIRST_BYTE_ID for byte in piece): times for piece, times in pieces.items()}
total = [sum(len(ids) * times for ids, times in words.items())]
for pair, new_id in merges.items():
    words = {merge(ids, pair, new_id): times for ids, times in words.items()}
    total.append(sum(len(ids) * times for ids, times in words.items()))
print("tokens after 0, 50, 253 merges:", total[0], total[50], total[253])
print("saved by the first 50:", total[0] - total[50], "by the other 203:", total[50] - total[253])

# %%
fig, ax = plt.subplots()
ax.plot(range(len(total)), [n / 1000 for n in total], color=UP)
for n in [0, 50, 253]:
    ax.plot(n, total[n] / 1000, "o", color=UP)
    ax.annotate(f"{total[n]:,}", (n, total[n] / 1000), xytext=(6, 8), textcoords="offset points")
ax.set(xlabel="merges learned", ylabel="tokens in the corpus (thousands)", ylim=(0, 115), xlim=(-5, 280))
ax.set_title("The first 50 merges save more than the 203 after them")
save_figure(
    fig,
    "03_compression",
    alt="Number of tokens in the corpus against the number of merges. The curve falls steeply for the first "
    "50 merges and flattens out: 105,710 tokens as bytes, 60,252 after 50 merges, 26,396 after all 253.",
)
plt.show()

# %% [markdown]
# ## 4. Does the library agree?
# Production code uses the `tokenizers` library, written in Rust. `kto_utils.tokenizer` holds the functions
# from above with error checks (a class `BPETokenizer` keeps the merges), and hands the same merges to the
# library. Same ids on all texts?

# %%
by_hand = BPETokenizer(merges)
library = to_fast_tokenizer(by_hand)
same = sum(library.encode(text, add_special_tokens=False) == encode(text, merges) for text in corpus)
print(same, "of", len(corpus), "texts have the same ids")
assert same == len(corpus)

# %% [markdown]
# ### For the curious: does the library learn the same merges?
# Skip this on a first read. Result: 220 of 253 merges agree, the token count is the same, and the first
# difference is a tie.
#
# Give the library's trainer the same chunks and the same size. (`Ġ` is how a tokenizer file writes the blank.)

# %%
other = Tokenizer(models.BPE())
other.pre_tokenizer = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Split(Regex(CHUNK_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
)
alphabet = pre_tokenizers.ByteLevel.alphabet()
names = ["<pad>", "<bos>", "<eos>"]
trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
other.train_from_iterator(corpus, trainer)
theirs = [tuple(pair) for pair in json.loads(other.to_str())["model"]["merges"]]
ours = [tuple(pair) for pair in json.loads(library.backend_tokenizer.to_str())["model"]["merges"]]
first = next(n for n in range(253) if ours[n] != theirs[n])
print(len(set(ours) & set(theirs)), "of", len(ours), "merges in common; first difference at number", first)
print("ours:", ours[first], "theirs:", theirs[first])
print("tokens needed:", total[-1], "and", sum(len(other.encode(text).ids) for text in corpus))

# %% [markdown]
# Replay our first four merges, up to the first difference, and count the two candidates.

# %%
words = {tuple(byte + FIRST_BYTE_ID for byte in piece): times for piece, times in pieces.items()}
for pair, new_id in list(merges.items())[:first]:
    words = {merge(ids, pair, new_id): times for ids, times in words.items()}
counts = count_pairs(words.items())
for pair in [" I", "It"]:
    print(repr(pair), counts[tuple(byte + FIRST_BYTE_ID for byte in pair.encode())])

# %% [markdown]
# A tie, and the two order their candidates differently. (Break ties the library's way and all 253 agree; a test of
# this course does.) Neither is wrong, but a model and its tokenizer belong together: with the other file, token
# 263 would mean something else. The course ships ours.

# %% [markdown]
# ## 5. Special tokens
# Three ids are signals, not text.
#
# | id | token | meaning |
# |---|---|---|
# | 0 | `<pad>` | padding: fills a short row up to the length of the longest |
# | 1 | `<bos>` | begin of sequence: the first real token is predicted from it |
# | 2 | `<eos>` | end of sequence: the model says "I have finished" |
#
# From here on we use the tokenizer file that ships with the course.

# %%
tokenizer = load_tokenizer()
assert tokenizer.get_vocab() == library.get_vocab()
print(tokenizer.encode("It is blue."))
print(tokenizer.encode("It is blue.", add_special_tokens=False))
print(tokenizer.encode("<eos>"))

# %% [markdown]
# Look at the first and the last line. The library puts `<bos>` in front unless told not to. And a user who
# **types** the five characters `<eos>` gets the real signal, id 2. Anyone could then end the model's turn.
#
# The cure is one argument: `split_special_tokens=True` treats typed text as text. Special tokens are put in
# by our own code, by id, and never by writing their names into text.


# %%
def ids_of(text, tokenizer):
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


print([tokenizer.decode([i]) for i in ids_of("<eos>", tokenizer)])

# %% [markdown]
# ## 6. The prompt template
# The model must see where the user stops and its own reply begins. The course's template is `USER:` question
# `ASSISTANT:`. No blank after the last colon; the completion brings it. (A user can type `ASSISTANT:` too; many
# production templates use special tokens here.)
#
# Below it stand the eight rows, 0 to 7, that lessons 03 to 06 compute with. The bar marks the boundary; it is not
# in the data. Thumbs can be about anything: row 4 copies homework, row 7 refuses.

# %%
print(repr(format_prompt("What colour is the sky?")))
rows = load_eight_rows()
for number, row in enumerate(rows):
    print(number, "up  " if row["label"] else "down", row["prompt"] + "|" + row["completion"])

# %% [markdown]
# ## 7. One row becomes ids and a mask
# The sequence is `<bos>` + prompt + completion + `<eos>`.
#
# KTO asks how likely the **completion** is, given the prompt. So a second list, `label_mask`, is 0 on `<bos>` and
# prompt, and 1 on the completion and on `<eos>`: stopping is part of the reply.
#
# Where does the prompt end? Tokenize the prompt alone, tokenize prompt + completion as **one** text, and take
# the longest common beginning; section 8 shows why. (TRL 1.16 does the same. TRL is Hugging Face's training
# library for alignment methods.)

# %% [markdown]
# ### Exercise 3.3 · One row, two lists
# ★★☆ · 8 minutes · fill in a function
#
# Write that down for one row, before you read on. `ids_of` from section 5 tokenizes a text the way it is needed here.

# %% exercise="tokenize_with_mask"
def my_tokenize_with_mask(prompt, completion, tokenizer):
    """Token ids and mask of one row: (input_ids, label_mask), two lists of T ints.

    prompt, completion: str, tokenized as one text; a special name that a user typed stays text.
    tokenizer: with encode(text, add_special_tokens=..., split_special_tokens=...), bos_token_id, eos_token_id.
    input_ids: BOS, the tokens of prompt + completion, EOS.
    label_mask: 0 on BOS and on the tokens that agree, from the beginning, with those of the prompt alone; 1 on all
    others, EOS included.
    """
    ### BEGIN SOLUTION
    texts = (prompt, prompt + completion)
    alone, whole = (tokenizer.encode(t, add_special_tokens=False, split_special_tokens=True) for t in texts)
    shared = 0
    while shared < len(alone) and alone[shared] == whole[shared]:
        shared += 1
    input_ids = [tokenizer.bos_token_id, *whole, tokenizer.eos_token_id]
    n_prompt = 1 + shared
    return input_ids, [0] * n_prompt + [1] * (len(input_ids) - n_prompt)
    ### END SOLUTION


# %% check="tokenize_with_mask" points=3
check.tokenize_with_mask(my_tokenize_with_mask)

# %% [markdown]
# The course's version also carries the thumb, and can cut a long row (section 9):


# %%
def common_prefix(a, b):
    length = 0
    while length < min(len(a), len(b)) and a[length] == b[length]:
        length += 1
    return length


def tokenize_feedback(row, tokenizer, max_length=None):
    prompt_ids = ids_of(row["prompt"], tokenizer)
    whole_ids = ids_of(row["prompt"] + row["completion"], tokenizer)
    start = 1 + common_prefix(prompt_ids, whole_ids)  # 1 for <bos>
    input_ids = [tokenizer.bos_token_id, *whole_ids, tokenizer.eos_token_id][:max_length]
    return {
        "input_ids": input_ids,
        "attention_mask": [1] * len(input_ids),
        "label_mask": [int(position >= start) for position in range(len(input_ids))],
        "label": row["label"],
    }


# %% [markdown]
# `attention_mask` is 1 on every token. It is dull now; in lesson [04](04_collator.ipynb) padding gets a 0.
#
# Look at row 7, about the owl, token by token.

# %%
owl = tokenize_feedback(rows[7], tokenizer)
print("position  id   mask  token")
for position, (i, mask) in enumerate(zip(owl["input_ids"], owl["label_mask"], strict=True)):
    print(f"{position:8d}  {i:3d}  {mask:4d}  {tokenizer.decode([i])!r}")
print("scored positions:", sum(owl["label_mask"]))
reveal("scored_positions", "abcd"[choices.index(str(sum(owl["label_mask"])))])

# %% [markdown]
# Four. ` No` is no token of this vocabulary, so it takes two; the full stop and `<eos>` make four. If you
# said 4, check that it was for this reason and not for the four characters.
#
# Two checks that hold for every row: what is scored spells the completion, and it ends in `<eos>`.


# %%
def scored_ids(example):
    return [i for i, mask in zip(example["input_ids"], example["label_mask"], strict=True) if mask]


for number, row in enumerate(rows):
    example = tokenize_feedback(row, tokenizer)
    scored = scored_ids(example)
    assert tokenizer.decode(scored) == row["completion"] + "<eos>"
    assert example["input_ids"][0] == tokenizer.bos_token_id and example["label_mask"][0] == 0
    print(f"row {number}: {len(example['input_ids'])} tokens, {len(scored)} scored")

# %% [markdown]
# All eight at once. Row 4, about homework, is long because the corpus never used most of its words.

# %%
fig, ax = plt.subplots(figsize=(7.2, 3.6))
for y, row in enumerate(rows):
    mask = tokenize_feedback(row, tokenizer)["label_mask"]
    start, end = mask.index(1), len(mask) - 1
    colour, hatch, thumb = (UP, None, "thumbs up") if row["label"] else (DOWN, "///", "thumbs down")
    ax.barh(y, start, color="#DDDDDD", edgecolor="white")
    ax.barh(y, end - start, left=start, color=colour, hatch=hatch, edgecolor="white")
    ax.barh(y, 1, left=end, color="black")
    ax.text(end + 1.5, y, thumb, color=colour, va="center", fontsize=9)
ax.text(1, 4, "<bos> and prompt: not scored", va="center", fontsize=9)
ax.annotate("<eos>, scored", (43.5, 4.4), xytext=(34, 6.3), arrowprops={"arrowstyle": "->"}, fontsize=9)
ax.set(yticks=range(8), ylabel="row", xlabel="position (tokens)", xlim=(0, 53))
ax.invert_yaxis()
ax.grid(axis="y", visible=False)
ax.set_title("The loss reads the coloured tokens and <eos>, nothing else")
save_figure(
    fig,
    "03_label_mask",
    alt="Eight horizontal bars, one per feedback row, over token positions. Each bar starts with a grey part "
    "for the prompt, which is not scored, then a coloured part for the completion, then one black cell for "
    "the end-of-sequence token. Row 4, about homework, is about twice as long as the others with 44 tokens.",
)
plt.show()

# %% [markdown]
# ## 8. Where prompt and completion meet
# So far the cut was clean: the ids of the prompt are the beginning of the ids of the whole. Put the blank on
# the other side of the bar and it is not.


# %%
def show_boundary(prompt, completion):
    alone, together = ids_of(prompt, tokenizer), ids_of(prompt + completion, tokenizer)
    for name, ids in [("separately", alone + ids_of(completion, tokenizer)), ("as one text", together)]:
        print(f"{name:>12}:", [tokenizer.decode([i]) for i in ids][-6:])
    print(f"prompt alone: {len(alone)} tokens, shared with the whole: {common_prefix(alone, together)}\n")


show_boundary("USER: Sky? ASSISTANT:", " It is blue.")
show_boundary("USER: Sky? ASSISTANT: ", "It is blue.")

# %% [markdown]
# The characters are the same in both calls. In the second, the parts give `' '`, `'I'`, `'t'`, the whole
# gives `' It'`: a token that spans the boundary.
#
# Alone, the second prompt has 8 tokens, but it shares only 7 with the whole. Cut by length, and ` It` would
# count as prompt and never be scored.

# %% [markdown]
# Three rules are in use. On a clean cut they agree; when a token spans the boundary they do not.
#
# | rule | when a token spans the boundary |
# |---|---|
# | tokenize the parts, join the ids | ids that the whole text never has |
# | one text, cut at the prompt's length (TRL 1.9, with a warning) | the spanning token is not scored |
# | one text, cut at the common beginning (TRL 1.16, this course) | the spanning token is scored |

# %% [markdown]
# ## 9. Truncation
# `max_length` keeps the first tokens of a row and drops the rest. Take the owl row, row 7: 18 tokens, 14 of them
# before the completion.

# %%
for max_length in [18, 17, 15, 14]:
    cut = tokenize_feedback(rows[7], tokenizer, max_length)
    print(max_length, "->", [tokenizer.decode([i]) for i in scored_ids(cut)])

# %% [markdown]
# `<eos>` goes first. At 17 the row no longer teaches when to stop. That is better than putting `<eos>` behind
# a reply that was cut in the middle: it would teach to stop there.
#
# At 14 nothing is left to score: the sum over no tokens is 0 whatever the model does, so the row can teach
# nothing. The package's version refuses it and says how to mend it.

# %%
try:
    data.tokenize_feedback(rows[7], tokenizer, max_length=14)
except ValueError as error:
    print(error)

# %% [markdown]
# ## 10. The same over a data set
# `datasets` keeps rows in columns and applies a function to each of them with `map`. Eight rows or eight
# million, the code is the same.
#
# Four columns come out, all that later lessons need. From the next lesson on, `tokenize_feedback` is imported
# from `kto_utils.data`: the same mathematics plus error checks.

# %%
feedback = datasets.Dataset.from_list(rows)
tokenized = feedback.map(tokenize_feedback, fn_kwargs={"tokenizer": tokenizer}, remove_columns=["prompt", "completion"])
print(tokenized.num_rows, "rows with", sorted(tokenized.column_names))
by_package = [data.tokenize_feedback(row, tokenizer) for row in rows]
print("same as the package:", list(tokenized) == by_package)
assert list(tokenized) == by_package

# %% [markdown]
# ## 11. Pairs become thumbs
# Much public data comes as pairs: one prompt, a `chosen` and a `rejected` reply. Each pair gives two thumbs.
# Here are 2,500 pairs from the small world.

# %%
rng = random.Random(0)
pairs = []
for _ in range(2500):
    question = rng.choice(world.trained_questions())
    good = [reply.text for reply in world.replies(question) if reply.thumbs_up]
    bad = [reply.text for reply in world.replies(question) if not reply.thumbs_up]
    pairs.append({"prompt": question.prompt, "chosen": rng.choice(good), "rejected": rng.choice(bad)})
print(pairs[0])

# %% [markdown]
# The obvious way with `map`: take a block of pairs, return all chosen replies, then all rejected ones. `map`
# hands over blocks of 1,000. Then read the rows in order, eight to a batch. That makes 625 batches.

# %%
choices = ["none", "one", "about 125", "about 620"]
predict("batches_in_blocks", "In how many batches do both thumbs occur?", choices, guess=None, confidence=None)


# %%
def in_blocks(block):
    n = len(block["prompt"])
    completions = block["chosen"] + block["rejected"]
    return {"prompt": block["prompt"] * 2, "completion": completions, "label": [True] * n + [False] * n}


paired = datasets.Dataset.from_list(pairs)
thumbs = paired.map(in_blocks, batched=True, remove_columns=["chosen", "rejected"])


def share_up(labels):
    return [sum(labels[i : i + 8]) / 8 for i in range(0, len(labels), 8)]


def mixed(shares):
    return sum(0 < share < 1 for share in shares)


in_order = share_up(list(thumbs["label"]))
print(mixed(in_order), "of", len(in_order), "batches are mixed")
assert mixed(in_order) == 1
reveal("batches_in_blocks", "b")

# %% [markdown]
# One, where the last, shorter block happens to split a batch. Before it, 125 batches in a row are all liked,
# the next 125 all disliked: no contrast within a step.
#
# TRL 1.16 unpairs in such blocks, reads in order, and shuffles nothing; a run there gave the same 1 of 625. So
# unpair yourself, and shuffle **before** you hand the rows to any trainer.

# %% [markdown]
# ### Exercise 3.4 · Shuffled, but how
# ★★☆ · 6 minutes · repair a function
#
# Somebody knew that one must shuffle, and wrote this. Still nearly every batch holds one kind of thumb. Repair it.
# In the end, the two replies of a pair should not stand side by side either, other than by chance.
#
# ```python
# def broken_unpair(pairs, seed):
#     rng = random.Random(seed)
#     up = [{"prompt": p["prompt"], "completion": p["chosen"], "label": True} for p in pairs]
#     down = [{"prompt": p["prompt"], "completion": p["rejected"], "label": False} for p in pairs]
#     rng.shuffle(up)
#     rng.shuffle(down)
#     return up + down
# ```

# %% exercise="unpair"
def my_unpair(pairs, seed):
    """Twice as many rows as pairs, in an order that the seed decides.

    pairs: dicts with prompt, chosen, rejected. Returns a list of dicts with prompt, completion, label (True or False).
    """
    ### BEGIN SOLUTION
    up = [{"prompt": p["prompt"], "completion": p["chosen"], "label": True} for p in pairs]
    down = [{"prompt": p["prompt"], "completion": p["rejected"], "label": False} for p in pairs]
    rows = up + down
    random.Random(seed).shuffle(rows)
    return rows
    ### END SOLUTION


# %% check="unpair" points=2
check.unpair(my_unpair)

# %% [markdown]
# What to expect after a shuffle? Eight fair coins show one side only with probability $2 \cdot (1/2)^8$.


# %%
def unpair(pairs, seed):
    rows = []
    for pair in pairs:
        for field, label in (("chosen", True), ("rejected", False)):
            rows.append({"prompt": pair["prompt"], "completion": pair[field], "label": label})
    random.Random(seed).shuffle(rows)
    return rows


shuffled = share_up([row["label"] for row in unpair(pairs, seed=0)])
print(mixed(shuffled), "of", len(shuffled), "batches are mixed")
print(f"expected share of mixed batches: {1 - 2 * 0.5**8:.4f}")
print(f"found: {mixed(shuffled) / len(shuffled):.4f}")
assert mixed(shuffled) / len(shuffled) > 0.95

# %%
fig, axes = plt.subplots(2, 1, figsize=(7.2, 4.2), sharex=True, sharey=True)
for ax, shares, colour, title in [
    (axes[0], in_order, DOWN, "In blocks: a batch sees one kind of thumb"),
    (axes[1], shuffled, UP, "Shuffled: nearly every batch sees both"),
]:
    ax.plot(shares, ".", color=colour, markersize=3)
    ax.set(title=title, ylabel="share of thumbs up", ylim=(-0.08, 1.08), yticks=[0, 0.5, 1])
only = next(i for i, share in enumerate(in_order) if 0 < share < 1)
axes[0].plot(only, in_order[only], "o", color="black", markersize=8)
axes[0].text(only - 12, 0.5, f"the only mixed batch ({8 * in_order[only]:.0f} of 8 up)", ha="right", va="center")
axes[1].set_xlabel("batch of eight rows (number)")
save_figure(
    fig,
    "03_batches",
    alt="Share of thumbs up in each of 625 batches. Upper panel, rows in blocks: the share jumps between 1 "
    "and 0 in long runs, and one black dot marks the only mixed batch. Lower panel, shuffled rows: the "
    "shares scatter around one half.",
)
plt.show()

# %% [markdown]
# What unpairing throws away: which two replies stood side by side. KTO does not need to know. The way back,
# from thumbs to pairs, loses rows; lesson 08 counts them.

# %% [markdown]
# ## 12. What goes wrong
# **Joining parts.** Two mistakes that people really make, next to the right way. In the first, the template
# ends in a blank, and prompt and completion are tokenized separately. In the second, `tokenizer.encode` puts
# its `<bos>` in front of the completion as well.
#
# The visible text is the same in all three. How likely does the reference model find the reply?


# %%
def batch_of(prompt_ids, completion_ids):
    ids = [tokenizer.bos_token_id, *prompt_ids, *completion_ids, tokenizer.eos_token_id]
    mask = [0] * (1 + len(prompt_ids)) + [1] * (len(completion_ids) + 1)
    fields = {"input_ids": ids, "attention_mask": [1] * len(ids), "label_mask": mask}
    return {name: torch.tensor([values]) for name, values in fields.items()}


model = load_reference_model().requires_grad_(False)
prompt, reply = rows[0]["prompt"], rows[0]["completion"]
cases = {
    "right": (ids_of(prompt, tokenizer), ids_of(reply, tokenizer)),
    "blank in the prompt": (ids_of(prompt + " ", tokenizer), ids_of(reply.lstrip(), tokenizer)),
    "<bos> in the middle": (ids_of(prompt, tokenizer), tokenizer.encode(reply)),
}
for name, (prompt_ids, reply_ids) in cases.items():
    logp = sequence_logps(model, batch_of(prompt_ids, reply_ids)).item()
    print(f"{name:>20}: {logp:8.4f} nats, probability {math.exp(logp):.1e}")

# %% [markdown]
# (Nats are logarithms to base $e$; see lesson [05](05_get_probs.ipynb).) The right way gives nearly one chance in
# ten, the other two practically none. Nothing crashed.
#
# This model has seen one template only, so it is extreme. We expect that a large model suffers less (not measured
# here), which makes the mistake harder to notice.
#
# Let the model talk after the stray blank, always taking the likeliest token:

# %%
for text in [prompt, prompt + " "]:
    ids = [tokenizer.bos_token_id, *ids_of(text, tokenizer)]
    while ids[-1] != tokenizer.eos_token_id and len(ids) < 40:
        ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
    print(repr(tokenizer.decode(ids[1:])))

# %% [markdown]
# Section 7's rule would have saved the *training* row: it tokenizes prompt and completion as one text, so the stray
# blank joins ` It`. But when the model *generates*, there is no completion yet, and the stray blank stays a token
# of its own. So keep it out of the template, and let every completion begin with it.

# %% [markdown]
# **Labels that are words.** A CSV file gives you `"False"`, a string, and Python's `bool` calls every
# non-empty string true. Every row becomes thumbs up, without a word of warning. (LLaMA-Factory, another training
# library, once read every row as thumbs up; the user who reported it suspected a check that is true for any text.)
# The package refuses to guess.

# %%
from_csv = [dict(row, label=str(row["label"])) for row in rows]
print("thumbs up, as read:", sum(bool(row["label"]) for row in from_csv), "of 8")
print("thumbs up, in fact:", sum(row["label"] for row in rows), "of 8")
try:
    data.check_row(from_csv[1])
except TypeError as error:
    print(error)

# %% [markdown]
# ## Recap
# - Text is bytes; BPE merges the most frequent neighbours; encoding applies the earliest merge first.
# - Special tokens are put in by id. What a user types stays text.
# - A row is `<bos>` + prompt + completion + `<eos>`; `label_mask` is 1 on completion and `<eos>`.
# - Tokenize prompt + completion as one text, cut at the common beginning, keep the blank in the completion.
# - Pairs become twice as many thumbs. Shuffle them.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions pairs_to_thumbs byte_level_bpe mask_count}}

# %% [markdown]
# ## Sources
# - Byte-pair encoding for text: Sennrich, Haddow and Birch, ACL 2016 (P16-1162), on characters. On bytes: GPT-2
#   (Radford et al., 2019, "Language Models are Unsupervised Multitask Learners").
# - TRL 1.16.0: end-of-sequence and common-prefix rule, truncation to the first tokens, unpairing in blocks,
#   sequential sampler: its code, read and run. TRL 1.9.0: cut by length, with a warning.
# - Every row read as desirable: reported and fixed in LLaMA-Factory, issue 3803 (May 2024).
# - The `tokenizers` library: compared live in section 4.
#
# Next: [04](04_collator.ipynb), where rows of different length become one batch.
