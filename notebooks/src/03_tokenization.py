# %% [markdown]
# # 03 · From text to tokens and masks
# Build a byte-pair tokenizer by hand, then turn a reply and its thumb into the ids and mask that KTO reads.

# %% [markdown]
# **You will be able to**
# - learn merges from a corpus, and say how a text is encoded with them;
# - turn a prompt and a completion into `input_ids` and `label_mask`, end-of-sequence token included;
# - say what happens where the two meet, what truncation takes away, and what one stray blank costs.
#
# **You need first** Python. What a thumb and a reference model are: [00](00_start_here.ipynb).
#
# **Time** {{times}}. Deeper: [03b](deeper/03b_merges.ipynb).

# %% [markdown] slide=["A user asks", "The row becomes", "How many"]
# **Before you run anything**
#
# A user asks which sound an owl makes. The model replies ` No.` and gets a thumbs down. Those are four characters: a
# blank (the space character), two letters, a full stop.
#
# The row becomes a list of token ids, and the loss scores some of their positions. How many? Put your guess into the
# second cell below. Section 9 prints the answer.

# %%
import re
from collections import Counter
from itertools import pairwise

from kto_course import check, predict, reveal
from kto_course.pictures import lesson_03 as pictures
from kto_utils import world

# %% slide=["text 1:5"]
choices = ["3", "4", "5", "18"]
predict("scored_positions", "How many positions of ` No.` are scored?", choices, guess=None, confidence=None)

# %% [markdown]
# ## 1. Text is bytes
# A model computes with whole numbers. Every text already is a list of them: its UTF-8 bytes. A plain English letter is
# one byte, other characters take two to four. So 256 numbers are enough for every language.
#
# The course keeps ids 0, 1 and 2 for three special tokens (section 6). Byte $b$ therefore gets id $b + 3$, and the
# first free id is 259.

# %%
for text in ["b", "é", "€", "It is blue."]:
    print(text, list(text.encode("utf-8")))
FIRST_BYTE_ID = 3
FIRST_MERGE_ID = FIRST_BYTE_ID + 256

# %% [markdown]
# ## 2. Merge the two neighbours that meet most often
# One id per byte makes long sequences, and a model's work grows with their length. Byte-pair encoding (BPE) shortens
# them: take the pair of neighbours that occurs most often, give it an id of its own, repeat.
#
# Start with three words and how often each occurs. To count pairs, slide over every word and add its count.


# %%
def count_pairs(words):
    counts = Counter()
    for ids, times in words:
        for pair in pairwise(ids):
            counts[pair] += times
    return counts


for (left, right), times in count_pairs([(b"moo", 5), (b"woof", 3), (b"roar", 2)]).most_common(4):
    print(chr(left) + chr(right), times)

# %% [markdown]
# `oo` wins with 5 + 3. It becomes token 259. Merging means: walk from the left and replace the pair wherever it stands.


# %%
def merge(ids, pair, new_id):
    merged = []
    for i in ids:
        merged.append(i)
        if tuple(merged[-2:]) == pair:
            merged[-2:] = [new_id]
    return tuple(merged)


for word in [b"moo", b"woof", b"roar"]:
    ids = tuple(byte + FIRST_BYTE_ID for byte in word)
    print(word, ids, "->", merge(ids, (114, 114), FIRST_MERGE_ID))  # o is byte 111, so its id is 114

# %% [markdown]
# ### Exercise 3.1 · One merge later
# ★☆☆ · 3 minutes · predict a number
#
# The merge `oo` is done. In the next round `m` + `oo` is a pair like any other. Count pairs again and merge the
# winner, once. How many tokens do all ten words take then, if `moo` occurs five times, `woof` three times and `roar`
# twice?

# %% exercise="second_merge"
answer = ...  # a number
### BEGIN SOLUTION
answer = 5 * 1 + 3 * 3 + 2 * 4  # moo is one token, woof three, roar four
### END SOLUTION

# %% check="second_merge" points=1
check.second_merge(answer)

# %% [markdown]
# ## 3. Train: merge until the vocabulary is full
# One rule is missing. Without it the full stop and the next sentence's `It` could grow together into a token that
# means nothing. So text is first cut into chunks, and no merge reaches across a cut. The blank travels with the word
# **after** it; that decides what happens in section 8.

# %%
# a word with the blank before it | a number | a run of signs | white space
CHUNK_PATTERN = r" ?[A-Za-z]+| ?[0-9]+| ?[^ \t\r\nA-Za-z0-9]+|[ \t\r\n]+"


def chunks(text):
    return [piece.encode("utf-8") for piece in re.findall(CHUNK_PATTERN, text)]


print(chunks("It is blue. Happy to help!"))

# %% [markdown]
# The loop: merge until there are `vocab_size` different ids. Ties go to the pair with the smaller ids, so that
# everybody learns the same merges.
#
# The corpus is the course's small world: 64 prompts (32 facts, each asked in two wordings), and to each of them 48
# replies: 6 ways of speaking, polite or rude, times 8 answers, one of them right.


# %%
def train_bpe(texts, vocab_size):
    counted = Counter(piece for text in texts for piece in chunks(text))
    words = {tuple(byte + FIRST_BYTE_ID for byte in piece): times for piece, times in counted.items()}
    merges = {}
    while FIRST_MERGE_ID + len(merges) < vocab_size and (pairs := count_pairs(words.items())):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges[best] = FIRST_MERGE_ID + len(merges)
        words = {merge(ids, best, merges[best]): times for ids, times in words.items()}
    return merges


corpus = world.corpus()
merges = train_bpe(corpus, vocab_size=512)
print(len(merges), "merges learned from", len(corpus), "texts such as", corpus[0], "|", corpus[1])

# %% [markdown]
# To look at them, decode them. That is the easy direction: a merged token stands for the bytes of its two parts.


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
# The first merges are scraps that occur everywhere; frequent words end up whole.
#
# ## 4. Encoding repeats history
# To encode a text, cut it into chunks, start from bytes, and apply the merge that was learned **earliest** as long as
# any applies. How often a pair occurs in *this* text no longer matters. `BPETokenizer` of `kto_utils.tokenizer` holds
# merges and does that (in [03b](deeper/03b_merges.ipynb) you write it). Watch one word as merges are added, then three
# texts, the last two with letters that the corpus never showed:

# %% slide=["text 0:5"]
from kto_utils.tokenizer import BPETokenizer, load_tokenizer, to_fast_tokenizer

for n in [0, 20, 60, 100, 253]:
    ids = BPETokenizer(dict(list(merges.items())[:n])).encode(" Obviously")
    print(f"{n:3d} merges:", [decode([i], merges) for i in ids])
bpe = BPETokenizer(merges)
for text in ["The answer is Paris.", "The answer is Grüße.", "Жар-птица"]:
    print(f"{len(text.encode())} bytes, {len(bpe.encode(text))} tokens: {decode(bpe.encode(text), merges)}")

# %% [markdown]
# Unseen letters cost more tokens, but nothing is lost: decoding undoes encoding for every text.
#
# ## 5. The library gives the same ids
# Production code uses the `tokenizers` library, written in Rust. `to_fast_tokenizer` hands our merges to it. Same ids
# on all texts?

# %%
library = to_fast_tokenizer(bpe)
same = sum(library.encode(text, add_special_tokens=False) == bpe.encode(text) for text in corpus)
print(same, "of", len(corpus), "texts have the same ids")
tokenizer = load_tokenizer()  # the file that ships with the course
assert tokenizer.get_vocab() == library.get_vocab()

# %% [markdown] slide=["| id"]
# The course's own tokenizer file holds exactly the merges that you have just learned. Use it from here on.
#
# ## 6. Special tokens come in by id, never by name
# Three ids are signals, not text.
#
# | id | token | meaning |
# |---|---|---|
# | 0 | `<pad>` | padding: fills a short row up to the length of the longest |
# | 1 | `<bos>` | begin of sequence: the first real token is predicted from it |
# | 2 | `<eos>` | end of sequence: the model says "I have finished" |
#
# The library puts `<bos>` in front unless told not to. And a user who **types** the five characters `<eos>` gets the
# real signal: anyone could end the model's turn. `split_special_tokens=True` cures that: typed text stays text.


# %%
def ids_of(text, tokenizer):
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


print(tokenizer.encode("It is blue."), tokenizer.encode("<eos>"))
print(ids_of("It is blue.", tokenizer), ids_of("<eos>", tokenizer))

# %% [markdown]
# ## 7. A template says who speaks
# The model must see where the user stops and its own reply begins. The course's template is `USER:` question
# `ASSISTANT:`. No blank after the last colon; the completion brings it.
#
# Here are the eight rows that lessons 03 to 06 compute with. The bar marks the boundary; it is not in the data.

# %%
from kto_utils.data import load_eight_rows

rows = load_eight_rows()
for number, row in enumerate(rows):
    print(number, "up  " if row["label"] else "down", row["prompt"] + "|" + row["completion"])

# %% [markdown]
# ## 8. A token may span the boundary
# Is the cut at the bar always clean? Put the blank on the other side of the bar and look.


# %%
def show_boundary(prompt, completion):
    for name, text in {"prompt": prompt, "reply": completion, "one text": prompt + completion}.items():
        print(f"{name:>9}:", [tokenizer.decode([i]) for i in ids_of(text, tokenizer)])


show_boundary("USER: Sky? ASSISTANT:", " It is blue.")
show_boundary("USER: Sky? ASSISTANT: ", "It is blue.")

# %% [markdown] slide=["Tokenize prompt", "The sequence is", "So a second list"]
# The characters of the text are the same in both calls. In the second, the parts give `' '`, `'I'`, `'t'`; the whole
# gives `' It'`, a token that spans the boundary. So two rules:
#
# 1. Tokenize prompt and completion as **one text**. Joined parts may be ids that no text ever has.
# 2. The prompt ends where its ids stop agreeing with those of the whole: after 7 tokens here, not 8. Cut after 8, and
#    ` It` would count as prompt and never be scored.
#
# ## 9. One row becomes ids and a mask
# The sequence is `<bos>` + prompt + completion + `<eos>`. KTO asks how likely the **completion** is, given the prompt.
# So a second list, `label_mask`, is 0 on `<bos>` and prompt, and 1 on the completion and on `<eos>`: stopping is part
# of the reply.

# %% [markdown]
# ### Exercise 3.2 · One row, two lists
# ★★☆ · 8 minutes · fill in a function
#
# Write that down for one row, with both rules of section 8. (`ids_of` from above may help.)

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
# ### Row 7, token by token
# The lesson goes on with your function once its check has passed, and with ours until then.

# %%
tokenize_with_mask = check.yours_or_ours("tokenize_with_mask")
input_ids, label_mask = tokenize_with_mask(rows[7]["prompt"], rows[7]["completion"], tokenizer)
print("position  id   mask  token")
for position, (i, mask) in enumerate(zip(input_ids, label_mask, strict=True)):
    print(f"{position:8d}  {i:3d}  {mask:4d}  {tokenizer.decode([i])!r}")
reveal("scored_positions", "abcd"[choices.index(str(sum(label_mask)))])

# %% [markdown]
# ` No` is no token of this vocabulary, so it takes two; the full stop and `<eos>` make four. If you said 4, check that
# it was for this reason and not for the four characters.
#
# All eight rows at once. Row 4, about homework, is long because the corpus never used most of its words.

# %% slide=["figure"]
masks = [tokenize_with_mask(row["prompt"], row["completion"], tokenizer)[1] for row in rows]
pictures.label_mask(masks, [row["label"] for row in rows])

# %% [markdown]
# ## 10. Truncation takes the end first
# From the next lesson on, `tokenize_feedback` of `kto_utils.data` makes a row's lists. It adds the thumb and an
# `attention_mask` (lesson [04](04_collator.ipynb)), and keeps only the first `max_length` tokens if you say so. What
# is left to score of the owl row, 18 tokens of which 14 stand before the completion?

# %%
from kto_utils.data import tokenize_feedback

assert tokenize_feedback(rows[7], tokenizer)["label_mask"] == label_mask
for max_length in [18, 17, 15]:
    cut = tokenize_feedback(rows[7], tokenizer, max_length)
    print(max_length, "->", [tokenizer.decode([i]) for i in cut["input_ids"][14:]])

# %% [markdown] slide=["A mistake that"]
# At 17 the row no longer teaches when to stop. That is better than putting `<eos>` behind a reply that was cut in the
# middle: it would teach to stop there.
#
# At 14 nothing would be left. The sum over no tokens is 0 whatever the model does, so the row could teach nothing, and
# `tokenize_feedback` refuses it.
#
# ## 11. What goes wrong: one stray blank
# A mistake that people really make: the template ends in a blank, and prompt and completion are tokenized separately.
# The visible text is the same. How likely does the reference model find the reply?
#
# `reply_logp` asks it: it returns the logarithm of the reply's probability (base $e$; the unit is the *nat*). Lesson
# [05](05_get_probs.ipynb) opens that box.

# %%
from kto_course.tokens import reply_logp

prompt, reply = rows[0]["prompt"], rows[0]["completion"]
for name, before, after in [("right", prompt, reply), ("stray blank", prompt + " ", reply.lstrip())]:
    logp = reply_logp(ids_of(before, tokenizer), ids_of(after, tokenizer))
    print(f"{name:>11}: {logp:8.4f} nats   {before + after!r}")

# %% [markdown]
# The right way gives nearly one chance in ten ($e^{-2.4}$), the other practically none. Nothing crashed, and the text
# looks no different. (This model has seen one template only, so it is extreme; larger ones are not measured here.) So
# keep the blank out of the template, let every completion begin with it, and tokenize the two as one text.
#
# ## Recap
# - Text is bytes; BPE merges the most frequent neighbours; encoding applies the earliest merge first.
# - Special tokens are put in by id. What a user types stays text.
# - A row is `<bos>` + prompt + completion + `<eos>`; `label_mask` is 1 on completion and `<eos>`.
# - Tokenize prompt + completion as one text, cut at the common beginning, keep the blank in the completion.
# - Truncation drops `<eos>` first; a row with nothing left to score teaches nothing.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions byte_level_bpe boundary_tokens mask_count}}
#
# ## Sources
# - Byte-pair encoding for text: Sennrich, Haddow and Birch, ACL 2016 (P16-1162), on characters. On bytes: GPT-2
#   (Radford et al., 2019, "Language Models are Unsupervised Multitask Learners").
# - TRL, Hugging Face's training library, 1.16.0: end-of-sequence and common-prefix rule, truncation to the first
#   tokens: its code, read and run. Version 1.9.0 cuts by length, with a warning.
#
# Next: [04](04_collator.ipynb), where rows of different length become one batch. Or deeper:
# [03b](deeper/03b_merges.ipynb).
