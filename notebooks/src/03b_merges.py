# %% [markdown]
# # 03b · Encode, whose merges, and how often a boundary goes wrong
# Write the encoder, let the library learn its own merges, and count the rows that a careless template spoils.

# %% [markdown]
# **You will be able to**
# - encode a text from its merges, say what each merge is worth, and why two correct trainers may learn different ones;
# - count, for your own data, the rows in which three ways to cut prompt from completion disagree;
# - recognise a stray blank by what the model says after it.
#
# **You need first** lesson [03](../03_tokenization.ipynb).
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything.** Your template ends in a blank, and you cut at the prompt's length. In what share of the
# 3,072 rows of the small world (64 prompts times 48 replies) is a token of the reply lost to the prompt: none, some,
# or all? Section 4 counts.

# %%
import json
from collections import Counter
from itertools import pairwise

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from kto_course import check
from kto_course.pictures import lesson_03b as pictures
from kto_course.tokens import continuation, reply_logp
from kto_utils import world
from kto_utils.data import load_eight_rows
from kto_utils.plotting import use_course_style
from kto_utils.tokenizer import CHUNK_PATTERN, chunks, count_pairs, load_tokenizer, merge, train_bpe

use_course_style()
corpus = world.corpus()
bpe = train_bpe(corpus, 512)
tokenizer = load_tokenizer()

# %% [markdown]
# ## 1. The encoder is one loop
# Lesson 03 said how to encode: cut into chunks, start from bytes, apply the merge that was learned **earliest** as long
# as any applies. `bpe.merges` is a dict {(left id, right id): new id}, in the order of learning.

# %% [markdown]
# ### Exercise 3.3 · Repeat history
# ★★☆ · 6 minutes · fill in a function
#
# Encode one chunk. As long as two neighbours are a pair in `merges`: among those pairs take the one that was learned
# first, and replace it by its id. A dict keeps its order. You may use `merge(word, pair, new_id)` and `pairwise`.

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
# ### The same ids as the package, in the whole corpus
# With your function if its check has passed, else with ours. (A byte's id is the byte + 3.)

# %%
encode_word = check.yours_or_ours("encode_word")


def encode(text, merges):
    return [i for piece in chunks(text) for i in encode_word(tuple(byte + 3 for byte in piece), merges)]


same = sum(encode(text, bpe.merges) == bpe.encode(text) for text in corpus)
print(same, "of", len(corpus), "texts have the same ids")

# %% [markdown]
# ## 2. The first merges save most
# Replay all 253 merges on the corpus and count its tokens each time.

# %%
pieces = Counter(piece for text in corpus for piece in chunks(text))


def replay(merges):
    """The corpus after 0, 1, 2, ... merges, each as {tokens of a chunk: how often it occurs}."""
    words = {tuple(byte + 3 for byte in piece): times for piece, times in pieces.items()}
    yield words
    for pair, new_id in merges.items():
        words = {merge(ids, pair, new_id): times for ids, times in words.items()}
        yield words


stages = list(replay(bpe.merges))
total = [sum(len(ids) * times for ids, times in words.items()) for words in stages]
print("saved by the first 50:", total[0] - total[50], "by the other 203:", total[50] - total[253])
pictures.compression(total, [0, 50, 253])

# %% [markdown]
# What the corpus never showed stays bytes. And a model may stop in the middle of a character: half an `é` is no letter,
# so decoding shows the replacement sign. Encoding then decoding always gives the text back; the other direction does
# not hold.

# %%
half = bpe.encode("é")[:1]
print("half a character:", bpe.decode(half), "| encoded again:", bpe.encode(bpe.decode(half)), "not", half)

# %% [markdown]
# ## 3. Two correct trainers, different merges
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
trainer = trainers.BpeTrainer(
    vocab_size=512, special_tokens=names, initial_alphabet=alphabet, show_progress=False
)
other.train_from_iterator(corpus, trainer)

# %%
from kto_utils.tokenizer import to_fast_tokenizer

theirs = [tuple(pair) for pair in json.loads(other.to_str())["model"]["merges"]]
as_file = to_fast_tokenizer(bpe).backend_tokenizer.to_str()
ours = [tuple(pair) for pair in json.loads(as_file)["model"]["merges"]]
first = next(n for n in range(253) if ours[n] != theirs[n])
print(len(set(ours) & set(theirs)), "of", len(ours), "merges in common; first difference at number", first)
print("ours:", ours[first], "theirs:", theirs[first])
print("tokens needed:", total[-1], "and", sum(len(other.encode(text).ids) for text in corpus))

# %% [markdown]
# Who is wrong? Replay our merges up to the first difference, and count the two candidates.

# %%
counts = count_pairs(stages[first].items())
for pair in [" I", "It"]:
    print(repr(pair), counts[tuple(byte + 3 for byte in pair.encode())])

# %% [markdown]
# Nobody: it is a tie, and the two order their candidates differently. (Break ties the library's way and all 253 agree;
# a test of this course does.) But a model and its tokenizer belong together: with the other file, token 263 would mean
# something else. The course ships ours.

# %% [markdown]
# ## 4. Three ways to cut, counted
# Where a token spans the boundary, three rules that are in use part ways:
#
# | rule | when a token spans the boundary |
# |---|---|
# | tokenize the parts, join the ids | ids that the whole text never has |
# | one text, cut at the prompt's length (TRL 1.9, with a warning) | the spanning token is not scored |
# | one text, cut at the common beginning (TRL 1.16, this course) | the spanning token is scored |
#
# Does it matter for your data? Count. Here are all rows of the small world, with the blank on either side, and with the
# template ending in a line break.


# %%
def ids_of(text):
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


replies = [(q.prompt, reply.text) for q in world.all_questions() for reply in world.replies(q)]
templates = {
    "blank in the completion": lambda prompt, reply: (prompt, reply),
    "blank in the template": lambda prompt, reply: (prompt + " ", reply.lstrip()),
    "line break, then the blank": lambda prompt, reply: (prompt + "\n", reply),
    "line break, no blank": lambda prompt, reply: (prompt + "\n", reply.lstrip()),
}
print(f"{len(replies)} rows            parts differ   cut by length loses a token")
for name, split in templates.items():
    differ = lost = 0
    for before, after in (split(*pair) for pair in replies):
        alone, whole = ids_of(before), ids_of(before + after)
        differ += alone + ids_of(after) != whole
        lost += alone != whole[: len(alone)]
    print(f"{name:27}{differ:8}{lost:18}")

# %% [markdown]
# All or nothing, because every reply of this world begins with a word. A blank at the end of the template spoils every
# row; the course's own template spoils none. A line break is safe as long as no blank follows it. With a blank, the two
# are one run of white space, and ` It` falls apart into ` `, `I` and `t`. Run this loop over your own rows before you
# train: zero is possible, and then keep it as a test.

# %% [markdown]
# ## 5. What goes wrong: the blank stays when the model speaks
# The common-beginning rule would have saved the *training* row of lesson 03: it tokenizes prompt and completion as one
# text, so the stray blank joins ` It`. But when the model *generates*, there is no completion yet, and the stray blank
# stays a token of its own. Let it talk, always taking the likeliest token.

# %%
row = load_eight_rows()[0]
for text in [row["prompt"], row["prompt"] + " "]:
    print(repr(text + tokenizer.decode(continuation(ids_of(text)))))

# %% [markdown]
# A second way to join parts wrongly leaves no trace in the text either: `tokenizer.encode` puts its own `<bos>` in
# front of the completion.

# %%
prompt, reply = row["prompt"], row["completion"]
for name, reply_ids in {"right": ids_of(reply), "<bos> in the middle": tokenizer.encode(reply)}.items():
    print(f"{name:>20}: {reply_logp(ids_of(prompt), reply_ids):8.4f} nats")

# %% [markdown]
# ## Recap
# - Each merge saves less than the one before it, on the whole; unseen text stays bytes.
# - Equal counts are broken by a rule of the trainer. A model belongs to one tokenizer file.
# - Three rules for the boundary agree on a clean cut. Count the rows where they do not.
# - A template that ends in a blank spoils every row here, and generation even where training was saved.
# - A second `<bos>` is invisible in the text and ruins the reply's probability.

# %% [markdown]
# ## Sources
# - The `tokenizers` library: run live in section 3. Its order of ties: `tests/test_tokenizer.py`.
# - TRL 1.16.0 (common beginning) and 1.9.0 (prompt's length, with a warning): code, read and run.
#
# Back to [03](../03_tokenization.ipynb), on to [04](../04_collator.ipynb).
