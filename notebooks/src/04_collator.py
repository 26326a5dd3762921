# %% [markdown]
# # 04 · The collator: many rows, one batch
#
# Turn rows into one batch: padding, two masks, the thumbs, and another row's reply for every prompt.

# %% [markdown]
# **You will be able to**
# - pad a batch by hand and say what `attention_mask`, `label_mask` and `label` are for,
# - build the mismatched completions, and say why they are rotated and not reversed,
# - name three faults that raise no error.
#
# **You need first** the idea of a tokenized feedback row with a `label_mask` ([lesson 03](03_tokenization.ipynb)).
#
# **Time** {{times}}.
#
# Deeper: [04b](deeper/04b_batches.ipynb), padding on the left, one-sided batches in theory, the last batch.

# %% [markdown] slide=["One thumb in", "You shuffle", "In how many"]
# **Before you run anything**
#
# One thumb in four is up. You shuffle your rows and train with batches of 8. In how many batches out of a hundred do
# all eight thumbs point the same way (*one-sided* batches)? Guess below the imports; section 7 answers.

# %%
import random

import torch
from torch.utils.data import DataLoader

from kto_course import check, predict, reveal
from kto_course.pictures import lesson_04 as pictures
from kto_utils import world
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.model import load_reference_model
from kto_utils.plotting import use_course_style
from kto_utils.tokenizer import load_tokenizer

use_course_style()

# %% slide=["text 1:5"]
predict("one_sided_batches", "One thumb in four is up: how many batches of 8 in a hundred are one-sided?",
        ["about 1", "about 10", "about 25", "about 50"], guess=None, confidence=None)  # fmt: skip

# %% [markdown]
# ## 1. Eight rows do not fit into one tensor
#
# A feedback row is a prompt, one reply and a thumb. Tokenized, it is three lists of equal length, and the thumb. A
# model wants one rectangular tensor for several rows, the *batch*. But look at the lengths:

# %%
tokenizer = load_tokenizer()
rows = load_eight_rows()
examples = [tokenize_feedback(row, tokenizer) for row in rows]

for i, (row, example) in enumerate(zip(rows, examples, strict=True)):
    thumb = "up  " if example["label"] else "down"
    print(f"row {i}  {thumb}  {len(example['input_ids'])} tokens  {row['completion']}")

# %% [markdown] slide=["| tensor"]
# ## 2. Fill up the short row, and say what is filler
#
# Take two rows, 0 and 7. The shorter one is filled up on the right with the padding token. Padding is no text: nobody
# may read it, nobody may score it. Two masks of the same shape say so, and a third tensor holds the thumbs.
#
# | tensor | shape | the question that it answers |
# |---|---|---|
# | `attention_mask` | $(B, T)$ | is there a token here at all? |
# | `label_mask` | $(B, T)$ | does this token count in the reply's score? |
# | `label` | $(B,)$ | thumbs up (True) or down (False)? |
#
# $B$ is the number of rows in the batch, $T$ the number of tokens in its longest row. Here is the end of row 7:

# %%
first, last = examples[0], examples[7]
missing = len(first["input_ids"]) - len(last["input_ids"])
input_ids = torch.tensor([first["input_ids"], last["input_ids"] + missing * [tokenizer.pad_token_id]])
attention_mask = torch.tensor([first["attention_mask"], last["attention_mask"] + missing * [0]])
label_mask = torch.tensor([first["label_mask"], last["label_mask"] + missing * [0]])

print("position  token         attention_mask  label_mask")
for t in range(12, input_ids.shape[1]):
    token = tokenizer.decode(input_ids[1, t : t + 1])
    print(f"{t:8d}  {token!r:12s}  {attention_mask[1, t]:14d}  {label_mask[1, t]:10d}")

# %% [markdown]
# The prompt is read, not scored; reply and `<eos>` are both; padding is neither. `attention_mask` goes *into* the
# model. `label_mask` picks tokens *after* the model. `label` picks whole rows. People mix up the last two.

# %% [markdown]
# ### Exercise 4.1 · Count the zeros
# ★☆☆ · 3 minutes · predict a number
#
# Three rows have 18, 21 and 44 tokens. Of these, 4, 6 and 21 are scored. The rows are padded to one batch. How many
# zeros does its `label_mask` hold?

# %% exercise="count_zeros"
answer = ...  # a number
### BEGIN SOLUTION
answer = 3 * 44 - (4 + 6 + 21)  # all cells of the rectangle, less those that are scored
### END SOLUTION

# %% check="count_zeros" points=1
check.count_zeros(answer)

# %% [markdown]
# ## 3. The same for any number of rows

# %%
FIELDS = ("input_ids", "attention_mask", "label_mask")


def pad_rows(rows, pad_id):
    longest = max(len(row["input_ids"]) for row in rows)
    filler = {"input_ids": pad_id, "attention_mask": 0, "label_mask": 0}
    return {
        field: torch.tensor([row[field] + [filler[field]] * (longest - len(row[field])) for row in rows])
        for field in FIELDS
    }


two, by_hand = pad_rows([first, last], tokenizer.pad_token_id), (input_ids, attention_mask, label_mask)
print("as by hand:", [torch.equal(two[field], t) for field, t in zip(FIELDS, by_hand, strict=True)])

# %% slide=["figure"]
batch = pad_rows(examples, tokenizer.pad_token_id)
pictures.batch(batch, [example["label"] for example in examples])

# %% [markdown]
# One long row costs all others time. Does it also change what the model says about them? Give it each row alone,
# unpadded, and then all eight in one batch. Where a row has tokens, the *logits* (the raw scores for the next token,
# lesson [02](02_tiny_llama.ipynb)) should be the same.

# %%
model = load_reference_model()
with torch.no_grad():
    together = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    alone = [model(input_ids=torch.tensor([example["input_ids"]])).logits[0] for example in examples]
gaps = [float((together[i, : len(alone[i])] - alone[i]).abs().max()) for i in range(len(examples))]
print("largest difference at a real position below 1e-12:", max(gaps) < 1e-12)

# %% [markdown]
# **Padding changes nothing.** What the model says *at* the padding, `label_mask` never picks.

# %% [markdown] slide=["So KTO compares", "So KTO also"]
# ## 4. Every prompt borrows another row's reply
#
# Say training has made a liked reply twice as likely. Progress? Not if replies that nobody asked for have become twice
# as likely too. So KTO compares with a mark, the *reference point*: how far the model has moved on the whole.
#
# The rated replies cannot tell, since they are the ones we push. So KTO also scores "unrelated outputs": each prompt
# with the reply of *another* row. [Lesson 06](06_kto_loss.ipynb) makes the mark from them; here we build the rows. The
# smallest rule that works takes the reply of the row before:

# %%
for i in range(len(rows)):
    print(f"x{i} + y{(i - 1) % len(rows)}:  {rows[i]['prompt']}{rows[i - 1]['completion']}")

# %% [markdown]
# Prompt $x_i$ meets completion $y_{i-1}$, and row 0 gets the last one. These are eight *extra* rows, and they have **no
# thumb**: nobody judged a cow's sound as an answer about homework.
#
# **Why rotate?** Move the replies in three ways, and count the rows that *keep their own*. It must be 0.

# %% slide=["figure"]
def kept(order):
    return sum(i == j for i, j in enumerate(order))


rng = random.Random(0)
print("batch size     rotated   reversed   shuffled, on average")
for size in range(1, 8):
    rotated = [(i - 1) % size for i in range(size)]
    shuffled = sum(kept(rng.sample(range(size), size)) for _ in range(5000)) / 5000
    print(f"{size:10d}  {kept(rotated):10d} {kept(reversed(range(size))):10d}   {shuffled:8.2f}")
pictures.rotation({"rotated, 5": [4, 0, 1, 2, 3], "reversed, 4": range(4)[::-1], "reversed, 5": range(5)[::-1]})

# %% [markdown]
# In an odd batch, reversing leaves the middle row its reply. (TRL, Hugging Face's training library, reversed until
# August 2024.) A shuffle keeps one row on average. And in a batch of one no rule can help.

# %% [markdown]
# ### Exercise 4.2 · Pass the replies on
# ★★☆ · 8 minutes · fill in a function
#
# The same with token ids. Cut each row where the ones of its `label_mask` begin: the prompt, with `<bos>`, stays; the
# completion, with `<eos>`, comes from the row before. Every new row has three lists, and no label.

# %% exercise="mismatched"
def my_mismatched(examples):
    """Prompt of row i, completion of row i - 1 (for row 0: the last), as dicts of three lists of ints.

    examples: dicts with input_ids, attention_mask, label_mask (lists of ints) and label (bool)."""
    ### BEGIN SOLUTION
    mixed = []
    for i, own in enumerate(examples):
        other = examples[i - 1]  # for i = 0 that is the last one
        prompt = own["input_ids"][: own["label_mask"].index(1)]
        completion = other["input_ids"][other["label_mask"].index(1) :]
        ids, mask = prompt + completion, [0] * len(prompt) + [1] * len(completion)
        mixed.append({"input_ids": ids, "attention_mask": [1] * len(ids), "label_mask": mask})
    return mixed
    ### END SOLUTION


# %% check="mismatched" points=3
check.mismatched(my_mismatched)

# %% [markdown]
# ## 5. A collator is what a DataLoader calls
#
# A `DataLoader` draws rows and calls its `collate_fn` with the list of them. So a *collator* is anything that can be
# called with a list of rows: an object needs a method named `__call__`. (One with another name never runs, and nothing
# tells you.)

# %%
mismatched = check.yours_or_ours("mismatched")


class KTOPaddingCollator:
    def __init__(self, tokenizer):
        self.pad_id = tokenizer.pad_token_id

    def __call__(self, examples):
        batch = pad_rows(examples, self.pad_id)
        batch["label"] = torch.tensor([example["label"] for example in examples], dtype=torch.bool)
        for field, tensor in pad_rows(mismatched(examples), self.pad_id).items():
            batch[f"kl_{field}"] = tensor
        return batch


collate = KTOPaddingCollator(tokenizer)
for field, tensor in collate(examples).items():
    print(f"{field:18s} {tuple(tensor.shape)!s:9s} {tensor.dtype}")

# %% [markdown]
# The mismatched rows' names begin with `kl_`; they have a width of their own. Now shuffled, by the loader:

# %%
generator = torch.Generator().manual_seed(1)
for b in DataLoader(examples, batch_size=4, shuffle=True, collate_fn=collate, generator=generator):
    print("row 0:   ", tokenizer.decode(b["input_ids"][0][b["attention_mask"][0] == 1]))
    print("borrows: ", tokenizer.decode(b["kl_input_ids"][0][b["kl_attention_mask"][0] == 1]))

# %% [markdown]
# The rotation happens *after* the loader has drawn its rows, so shuffle as you like. From now on this class comes from
# `kto_utils.collator`, with error checks.
#
# ## 6. What goes wrong: a file sorted by prompt
#
# Rotation looks at positions, not at prompts. And feedback files are often sorted: twenty replies to the first
# question, then twenty to the second.

# %%
rng = random.Random(0)
questions = [question for question in world.trained_questions() for _ in range(20)]
by_question = [(question.prompt, world.draw_reply(question, rng).text) for question in questions]
shuffled = rng.sample(by_question, len(by_question))


def same_prompt(rows, batch_size=8):
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return sum(b[i][0] == b[i - 1][0] for b in batches for i in range(len(b)))


for name, pairs in (("sorted", by_question), ("shuffled", shuffled)):
    print(f"{name}: {same_prompt(pairs)} of {len(pairs)} rows get a reply to their own prompt; row 1:")
    print(f"    {pairs[1][0]}{pairs[0][1]}")

# %% [markdown] slide=["In the sorted", "No error"]
# In the sorted file the "unrelated" replies are the batch's own rated ones, in another order. The mark rises with them
# and hides the progress. No error tells you, so **shuffle before you batch**.
#
# ## 7. Even shuffled batches can be one-sided
#
# Back to the question at the top. With a share $p$ of thumbs up, all $B$ thumbs of a batch are up with chance $p^B$ and
# all down with $(1-p)^B$. The sum:

# %% slide=["table 0:6"]
print("batch size   p = 0.5   p = 0.25   p = 0.1")
for size in (2, 4, 8, 16, 32):
    print(f"{size:10d}   " + "   ".join(f"{p**size + (1 - p) ** size:7.4f}" for p in (0.5, 0.25, 0.1)))
reveal("one_sided_batches", "b")

# %% [markdown] slide=["A one-sided batch", "Rare thumbs"]
# A one-sided batch is no error, but all its rows push in one direction. Rare thumbs need larger batches.
#
# ## 8. Masks come from lengths, not from token ids
#
# Many tokenizers have no padding token. A common cure is `tokenizer.pad_token = tokenizer.eos_token`. From the ids
# alone nobody can then tell a real `<eos>` from padding. Count the scored ones, with our mask and with one made from
# the ids:

# %%
tokenizer_eos = load_tokenizer()
tokenizer_eos.pad_token = tokenizer_eos.eos_token
ours = KTOPaddingCollator(tokenizer_eos)(examples)
is_eos = ours["input_ids"] == tokenizer_eos.eos_token_id
guessed = ours["label_mask"] * ~is_eos
print("real <eos> scored with our label_mask:             ", int(ours["label_mask"][is_eos].sum()))
print("real <eos> scored with a mask guessed from the ids:", int(guessed[is_eos].sum()))

# %% [markdown]
# Eight rows, eight real `<eos>`. Our mask was made before any padding existed and keeps them all. The guess keeps none:
# a model trained so never learns when to stop.

# %% [markdown]
# ## Recap
# - Padding changes nothing: `attention_mask` says what is text, `label_mask` what is scored, `label` which thumb.
# - A collator is any callable that takes a list of rows.
# - Row $i$ borrows the completion of row $i-1$: right from two rows on. Reversal fails for odd batches.
# - Shuffle before batching, or the "unrelated" replies answer the same prompt.
# - A batch of $B$ is one-sided with chance $p^B + (1-p)^B$. Masks come from lengths: padding may equal `<eos>`.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions decoupled_samples one_sided_share pad_equals_eos}}

# %% [markdown]
# ## Sources
# - KTO, arXiv 2402.01306, section 4.1: "unrelated outputs" of the batch (v1), outputs shifted within it (v4).
# - We borrow from row $i-1$ like TRL 1.16.0; the paper (v4) and the authors' code (HALOs, main, 4831988) from $i+1$.
# - Reversal: TRL issue #1911, mended by #1970.
#
# **Next:** [05 · From logits to log-probabilities](05_get_probs.ipynb).
