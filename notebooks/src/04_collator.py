# %% [markdown]
# # 04 · The collator: many rows, one batch
#
# Turn rows into one batch: padding, two masks, the thumbs, and another row's reply for every prompt.

# %% [markdown]
# **You will be able to**
# - pad a batch by hand and say what `attention_mask`, `label_mask` and `label` are for,
# - build the mismatched completions, and say why they are rotated and not reversed,
# - spot four faults that raise no error: a method that nobody calls, a lost EOS, rows sorted by prompt,
#   batches with one kind of thumb.
#
# **You need first** the idea of a tokenized feedback row with a `label_mask` ([lesson
# 03](03_tokenization.ipynb)). Sections 8 and 9 use the log-probability of a reply as a ready-made number;
# [lesson 05](05_get_probs.ipynb) derives it.
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything**
#
# One thumb in four is up. You shuffle your rows and train with batches of 8. In how many batches out of a
# hundred do all eight thumbs point the same way? The cell below the imports takes your guess; section 10 computes it.

# %%
import random
from collections import Counter
from math import comb

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import ListedColormap
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, DataCollatorWithPadding

from kto_course import check, predict, reveal
from kto_course.checks.lesson_04 import unknown_lenders
from kto_utils import collator as package
from kto_utils import world
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.logprobs import sequence_logps
from kto_utils.model import load_reference_model
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, label_line, save_figure, use_course_style
from kto_utils.tokenizer import load_tokenizer

use_course_style()
torch.set_printoptions(precision=4, sci_mode=False)

# %%
offered = [1, 10, 25, 50]
predict("one_sided_batches", "One thumb in four is up: how many batches of 8 in a hundred hold one kind of thumb?",
        [f"about {n}" for n in offered], guess=None, confidence=None)  # fmt: skip

# %% [markdown]
# ## 1. Eight rows that do not fit together
#
# A feedback row is a prompt, one reply and a thumb. Tokenized, it is three lists of equal length, and the
# thumb. Here are eight of them. A model wants one rectangular tensor for the whole batch, so we try that at
# once:

# %%
tokenizer = load_tokenizer()
rows = load_eight_rows()
examples = [tokenize_feedback(row, tokenizer) for row in rows]

for i, (row, example) in enumerate(zip(rows, examples, strict=True)):
    thumb = "up  " if example["label"] else "down"
    print(f"row {i}  {thumb}  {len(example['input_ids'])} tokens  {row['completion']}")
try:
    torch.tensor([example["input_ids"] for example in examples])
except ValueError as error:
    print("\nas one tensor:", error)

# %% [markdown]
# ## 2. Padding, two masks and a label, by hand
#
# Take two rows only, 0 and 7. The shorter one is filled up on the right with the padding token until both
# are equally long.

# %%
first, last = examples[0], examples[7]
longest = max(len(first["input_ids"]), len(last["input_ids"]))
missing = longest - len(last["input_ids"])
input_ids = torch.tensor([first["input_ids"], last["input_ids"] + missing * [tokenizer.pad_token_id]])
print(input_ids)
print(f"padding token: id {tokenizer.pad_token_id}, {missing} of them in row 7")

# %% [markdown]
# The padding is no text. Nobody may read it and nobody may score it. Two masks of the same shape say so. A
# third tensor, with one entry per row, says which thumb the row got.
#
# | tensor | shape | the question that it answers |
# |---|---|---|
# | `attention_mask` | $(B, T)$ | is there a token here at all? |
# | `label_mask` | $(B, T)$ | does this token count in the reply's score? |
# | `label` | $(B,)$ | thumbs up (True) or down (False)? |
#
# $B$ is the number of rows in the batch, $T$ the number of tokens in its longest row. Here is the end
# of row 7, token by token:

# %%
attention_mask = torch.tensor([longest * [1], len(last["input_ids"]) * [1] + missing * [0]])
label_mask = torch.tensor([first["label_mask"], last["label_mask"] + missing * [0]])
label = torch.tensor([first["label"], last["label"]])

print("position  token         attention_mask  label_mask")
for t in range(12, longest):
    token = tokenizer.decode(input_ids[1, t : t + 1])
    print(f"{t:8d}  {token!r:12s}  {attention_mask[1, t]:14d}  {label_mask[1, t]:10d}")
print("scored:", repr(tokenizer.decode(input_ids[1][label_mask[1].bool()])))
print("rows with thumbs up:", int(label.sum()), "of", len(label))

# %% [markdown]
# Prompt: read, but not scored. Reply and `<eos>`: read and scored. Padding: neither.
#
# The three are used in different places. `attention_mask` goes *into* the model: do not read padding.
# `label_mask` picks the tokens whose scores are added up *after* the model. `label` is the thumb; it picks
# whole rows (`losses[label]`). People mix up the last two.

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
# ## 3. The same as a function
#
# For any number of rows. `max_length` cuts a row that is too long, from the right, before padding is added.

# %%
FIELDS = ("input_ids", "attention_mask", "label_mask")


def pad_rows(rows, pad_id, max_length=None):
    rows = [{field: list(row[field])[:max_length] for field in FIELDS} for row in rows]
    longest = max(len(row["input_ids"]) for row in rows)
    filler = {"input_ids": pad_id, "attention_mask": 0, "label_mask": 0}
    return {
        field: torch.tensor([row[field] + [filler[field]] * (longest - len(row[field])) for row in rows])
        for field in FIELDS
    }


two = pad_rows([first, last], tokenizer.pad_token_id)
for field, by_hand in zip(FIELDS, (input_ids, attention_mask, label_mask), strict=True):
    assert torch.equal(two[field], by_hand)
    print(f"{field:14s} same as by hand: {torch.equal(two[field], by_hand)}")

# %% [markdown]
# Now all eight rows, and a look at the result. Each square is one cell of the tensor.

# %%
batch = pad_rows(examples, tokenizer.pad_token_id)
thumbs = torch.tensor([example["label"] for example in examples])
# 0 padding, 1 prompt, 2 reply with thumbs down, 3 reply with thumbs up
roles = batch["attention_mask"] + batch["label_mask"] * (1 + thumbs.int()[:, None])
padding, scored = int((roles == 0).sum()), int((roles > 1).sum())
print(f"{roles.numel()} cells, {padding} of them padding, {scored} scored")

# %%
fig, ax = plt.subplots(figsize=(8.4, 3.6))
colours = ListedColormap(["#F3F3F3", "#C4C4C4", DOWN, UP])
ax.pcolormesh(roles, cmap=colours, vmin=0, vmax=3, edgecolors="white", linewidth=1)
for i, example in enumerate(examples):
    ax.text(len(example["input_ids"]) - 0.5, i + 0.5, "E", ha="center", va="center", color="white")
ax.text(6, 7.5, "prompt", ha="center", va="center")
ax.text(33, 6.5, "coloured: reply, E = <eos>", ha="center", va="center")
ax.text(33, 1.5, "padding", ha="center", va="center")
names = [f"row {i}, {'up' if up else 'down'}" for i, up in enumerate(thumbs)]
ax.set_yticks([i + 0.5 for i in range(8)], names)
ax.set(xlabel="position (tokens)", ylim=(8, 0), title="One long row, and the others are half padding")
ax.grid(False)
alt = (
    "A grid of 8 rows and 44 token positions. Each row is a grey prompt, a coloured reply ending in "
    "<eos>, then pale padding. Row 4 fills all 44 positions; the others end at 18 to 23."
)
save_figure(fig, "04_batch", alt=alt)
plt.show()

# %% [markdown]
# One long row makes all others pay. It costs time, not correctness. It also shows why an average over *all*
# cells is no score of a reply: most cells are prompt or padding.
#
# ## 4. Does the library agree?
#
# `tokenizer.pad` knows `input_ids` and `attention_mask`. It does not know our `label_mask`; but its padding
# id is 0 here, like our filler, so we can hand it the mask dressed up as ids.
#
# And if you hand over the rows as they are? `DataCollatorWithPadding` is the library's ready-made collator
# around `tokenizer.pad`.

# %%
known = [{field: example[field] for field in FIELDS[:2]} for example in examples]
library = dict(tokenizer.pad(known, return_tensors="pt"))
disguised = tokenizer.pad([{"input_ids": example["label_mask"]} for example in examples], return_tensors="pt")
library["label_mask"] = disguised["input_ids"]
for field in FIELDS:
    assert torch.equal(library[field], batch[field])
    print(f"{field:14s} equal: {torch.equal(library[field], batch[field])}")
try:
    DataCollatorWithPadding(tokenizer)(examples)
except ValueError as error:
    print("rows as they are:", str(error).split(",")[0])
    print("the message names label_mask:", "label_mask" in str(error))

# %% [markdown]
# The tensors agree. But the library's collator pads only what it knows and stumbles over the field that
# stayed ragged. We need a collator of our own.
#
# ## 5. Called the way a DataLoader calls it
#
# A tempting plan, found in a public KTO notebook: subclass `DataCollatorWithPadding` and put the work into a method
# named `collate_batch`. Run it. (The rows go in without their `label_mask`, or the library's code stumbles
# as above.)

# %%
calls = []


class NeverCalled(DataCollatorWithPadding):
    def collate_batch(self, examples):
        calls.append(len(examples))
        return pad_rows(examples, self.tokenizer.pad_token_id)


without_mask = [{key: value for key, value in e.items() if key != "label_mask"} for e in examples]
for b in DataLoader(without_mask, batch_size=4, collate_fn=NeverCalled(tokenizer)):
    print(sorted(b))
print("collate_batch ran", len(calls), "times")
print("the library knows that name:", hasattr(DataCollatorWithPadding, "collate_batch"))
assert calls == []

# %% [markdown]
# Two batches, no error, and your method never ran. There is no `label_mask`, and `label` has become
# `labels`.
#
# A `DataLoader` does one thing with its `collate_fn`: it calls it with a list of rows. Calling an object
# runs its `__call__`, and that one was inherited. The name is a fossil: transformers called `collate_batch`
# until pull request #5015 (June 2020) made every collator a plain callable.
#
# So the cure is the right name:

# %%
class Called(NeverCalled):
    def __call__(self, examples):
        return self.collate_batch(examples)


for b in DataLoader(examples, batch_size=4, collate_fn=Called(tokenizer)):
    print({field: tuple(tensor.shape) for field, tensor in b.items()})
print("collate_batch ran", len(calls), "times")

# %% [markdown]
# Each batch is padded to its own longest row. And nothing of the parent class is used any more, so our own
# collator will inherit nothing.

# %% [markdown]
# ## 6. The mismatched completions
#
# KTO looks at the log-ratio $r$ of a reply: how much more likely (in nats) the model in training finds it than
# the frozen copy from before. Say a liked reply has become twice as likely. Progress? Not if the replies that
# nobody asked for have become twice as likely too. So $r$ is compared with a mark, the *reference point* $z_0$:
# how far the model has moved on the whole.
#
# The rated replies cannot tell, since they are the ones we push. So KTO takes "unrelated outputs" of the same
# batch (paper v1, section 4.1): other rows' replies.

# %% [markdown]
# Their average log-ratio, or 0 if that is negative, is $z_0$; [lesson 06](06_kto_loss.ipynb) computes it. Here
# we only build the rows: prompt $x_i$ with a completion $y_j$, $j \neq i$. The smallest rule that works: the
# completion of the row before.

# %%
for i in range(len(rows)):
    question = rows[i]["prompt"].removeprefix("USER: ").removesuffix(" ASSISTANT:")
    print(f"x{i} + y{(i - 1) % len(rows)}:  {question}  ->{rows[i - 1]['completion']}")

# %% [markdown]
# Row 0 gets the last row's reply: in Python `rows[-1]` is the last one, so the wheel closes by itself.
#
# These eight pairs are extra rows. Your own rows stay as they are, and the new ones have **no thumb**:
# nobody judged a cow's sound as an answer about homework.
#
# In tokens: cut each row where its `label_mask` begins, and join anew. `<bos>` stays with the prompt,
# `<eos>` moves with the completion.

# %%
def mismatched(examples):
    mixed = []
    for i, example in enumerate(examples):
        other = examples[i - 1]
        prompt = [t for t, m in zip(example["input_ids"], example["label_mask"], strict=True) if not m]
        completion = [t for t, m in zip(other["input_ids"], other["label_mask"], strict=True) if m]
        label_mask = [0] * len(prompt) + [1] * len(completion)
        attention_mask = [1] * len(label_mask)
        mixed.append(
            {"input_ids": prompt + completion, "attention_mask": attention_mask, "label_mask": label_mask}
        )
    return mixed


mixed = mismatched(examples)
print(tokenizer.decode(mixed[4]["input_ids"]))

# %% [markdown]
# Every reply should still be there exactly once, and none behind its own prompt. (The eight texts differ.)

# %%
def replies_of(rows):
    scored = ([t for t, m in zip(r["input_ids"], r["label_mask"], strict=True) if m] for r in rows)
    return [tokenizer.decode(ids) for ids in scored]


before, after = replies_of(examples), replies_of(mixed)
own = sum(a == b for a, b in zip(before, after, strict=True))
assert Counter(before) == Counter(after) and own == 0
print("every reply still there, once:", Counter(before) == Counter(after))
print("rows that kept their own:     ", own)

# %% [markdown]
# ### Why a rotation?
#
# Three ways to move replies around: rotate by one, reverse the list, shuffle at random. For each, count the
# rows that **keep their own** reply. It must be 0.

# %%
def rotated(size):
    return [(i - 1) % size for i in range(size)]


def kept(order):
    return sum(i == j for i, j in enumerate(order))


print("batch size", *[f"{size:5d}" for size in range(1, 10)])
print("rotated   ", *[f"{kept(rotated(size)):5d}" for size in range(1, 10)])
print("reversed  ", *[f"{kept(reversed(range(size))):5d}" for size in range(1, 10)])

generator = torch.Generator().manual_seed(0)
for size in (2, 4, 8):
    draws = [kept(torch.randperm(size, generator=generator).tolist()) for _ in range(5000)]
    print(f"shuffled, batch of {size}: {sum(draws) / 5000:.2f} on average")
    assert abs(sum(draws) / 5000 - 1) < 0.06

# %% [markdown]
# Reversing looks as good, and is right for even batches. In an odd batch the middle row is its own mirror
# image and keeps its reply. TRL, Hugging Face's training library for alignment methods, reversed until August
# 2024 (issue #1911, mended in #1970).
#
# A shuffle keeps one row on average, whatever the size: each of $B$ rows stays with chance $1/B$. And a
# batch of one has no other row: no rule can help.

# %%
panels = {"rotated, 5 rows": rotated(5), "reversed, 4 rows": [3, 2, 1, 0]}
panels["reversed, 5 rows"] = [4, 3, 2, 1, 0]
fig, axes = plt.subplots(1, 3, figsize=(8.4, 3.2))
for ax, (title, order) in zip(axes, panels.items(), strict=True):
    for i, j in enumerate(order):
        style = {"color": DOWN, "linestyle": "--"} if i == j else {"color": NEUTRAL, "linestyle": "-"}
        ax.plot([0, 1], [i, j], marker="o", **style)
        ax.text(-0.1, i, f"$x_{i}$", ha="right", va="center")
        ax.text(1.1, i, f"$y_{i}$", ha="left", va="center")
    ax.set(xlim=(-0.4, 1.8), ylim=(4.6, -0.6), title=title)
    ax.axis("off")
axes[2].text(1.34, 2, "its own!", color=DOWN, va="center")
alt = (
    "Lines from prompts to the completions they get. Rotating five rows: no prompt keeps its own. "
    "Reversing four: none does. Reversing five: x2 keeps y2, drawn dashed."
)
save_figure(fig, "04_rotation", alt=alt)
plt.show()

# %% [markdown]
# The direction is a convention. We take row $i-1$, as TRL 1.16 does; the authors' code (HALOs, main) takes
# row $i+1$.

# %% [markdown]
# ### Exercise 4.2 · Who keeps their own?
# ★★☆ · 4 minutes · read a curve
#
# Another rule for lending completions, `unknown_lenders`. For each batch size the bars count the rows that keep their
# own. Which rule is it?
#
# - `"a"`: the list is reversed;
# - `"b"`: row $i$ gets the completion of row $i-2$, around the wheel;
# - `"c"`: the batch is cut into two halves, and each half is rotated by one;
# - `"d"`: the completions are shuffled.

# %%
sizes = range(1, 13)
fig, ax = plt.subplots(figsize=(6.4, 2.6))
ax.bar(sizes, [kept(unknown_lenders(size)) for size in sizes], color=DOWN)
ax.set(xlabel="batch size (rows)", ylabel="rows that keep their own", xticks=sizes, yticks=[0, 1, 2])
ax.set_title("An unknown rule fails for small batches")
alt = "Bars for batch sizes 1 to 12: one row keeps its own at size 1, two at 2, one at 3, none from 4 on."
save_figure(fig, "04_unknown_rule", alt=alt)
plt.show()

# %% exercise="mystery_lenders"
answer = ...  # "a", "b", "c" or "d"
### BEGIN SOLUTION
answer = "c"
### END SOLUTION

# %% check="mystery_lenders" points=1
check.mystery_lenders(answer)

# %% [markdown]
# ## 7. The whole collator
#
# Pad the rows, add the thumbs, pad the mismatched rows under names that start with `kl_`.

# %% [markdown]
# ### Exercise 4.3 · Two batches from one list
# ★★★ · 12 minutes · fill in a function
#
# Put the pieces together in one function, from lists alone. You may call `pad_rows` and `mismatched`; an interviewer
# will ask you to do without. One thing is new: say no to a batch of one row.

# %% exercise="collate_kto"
def my_collate_kto(examples, pad_id):
    """One batch for KTO: padded rows, their thumbs, and the mismatched rows, as a dict of tensors.

    examples: B dicts with input_ids, attention_mask, label_mask (lists of T_i ints) and label (bool).
    Returns input_ids, attention_mask, label_mask (int64, (B, T)), label (bool, (B,)), and kl_input_ids,
    kl_attention_mask, kl_label_mask (int64, (B, T_kl)): the prompt of row i with the completion of row i - 1; row 0
    borrows from the last. Padding to the longest row, on the right: pad_id in the ids (it may be the id of EOS), 0 in
    the masks. ValueError for fewer than two examples.
    """
    ### BEGIN SOLUTION
    if len(examples) < 2:
        raise ValueError("a batch of one row has nobody to borrow a completion from")
    rows = [(example["input_ids"], example["label_mask"]) for example in examples]
    mixed = []
    for i, (ids, mask) in enumerate(rows):
        other_ids, other_mask = rows[i - 1]
        end, start = mask.index(1), other_mask.index(1)
        mixed.append((ids[:end] + other_ids[start:], mask[:end] + other_mask[start:]))
    batch = {"label": torch.tensor([example["label"] for example in examples])}
    for prefix, some in (("", rows), ("kl_", mixed)):
        longest = max(len(ids) for ids, _ in some)
        padded = [(ids, mask, longest - len(ids)) for ids, mask in some]
        batch[f"{prefix}input_ids"] = torch.tensor([ids + gap * [pad_id] for ids, _, gap in padded])
        batch[f"{prefix}attention_mask"] = torch.tensor([len(ids) * [1] + gap * [0] for ids, _, gap in padded])
        batch[f"{prefix}label_mask"] = torch.tensor([mask + gap * [0] for _, mask, gap in padded])
    return batch
    ### END SOLUTION


# %% check="collate_kto" points=4
check.collate_kto(my_collate_kto)

# %% [markdown]
# As a class, the way a `DataLoader` wants it:

# %%
class KTOPaddingCollator:
    def __init__(self, tokenizer, max_length=None):
        self.pad_id = tokenizer.pad_token_id
        self.max_length = max_length

    def __call__(self, examples):
        batch = pad_rows(examples, self.pad_id, self.max_length)
        batch["label"] = torch.tensor([example["label"] for example in examples], dtype=torch.bool)
        for field, tensor in pad_rows(mismatched(examples), self.pad_id, self.max_length).items():
            batch[f"kl_{field}"] = tensor
        return batch


collate = KTOPaddingCollator(tokenizer)
for field, tensor in collate(examples).items():
    print(f"{field:18s} {tuple(tensor.shape)!s:9s} {tensor.dtype}")

# %% [markdown]
# The mismatched batch has its own width: there the longest prompt no longer meets the longest reply.
#
# From the next lesson on, `pad_rows`, `mismatched` and `KTOPaddingCollator` come from `kto_utils.collator`:
# the same mathematics plus error checks. The rotation happens *after* the loader has drawn its rows, so you
# may shuffle as you like. Check it on shuffled batches:

# %%
loader = DataLoader(examples, batch_size=4, shuffle=True, collate_fn=collate, generator=generator)
for b in loader:
    own_rows = zip(b["input_ids"], b["label_mask"], strict=True)
    own = [tokenizer.decode(ids[mask == 1]) for ids, mask in own_rows]
    kl_rows = zip(b["kl_input_ids"], b["kl_label_mask"], strict=True)
    moved = [tokenizer.decode(ids[mask == 1]) for ids, mask in kl_rows]
    assert moved == own[-1:] + own[:-1]
    print("row 0 has:", own[0])
    print("and gets: ", moved[0], " all rotated:", moved == own[-1:] + own[:-1])

# %% [markdown]
# TRL 1.16 builds its pairs once, before training, for batches cut in file order. A later shuffle would tear
# those batches apart, so it reads rows in order and refuses any other sampler.
#
# One more thing about widths: a mismatched row can be longer than every row of its batch, when a long prompt
# meets a long reply. `max_length` caps it.

# %% [markdown]
# ## 8. Padding must change nothing
#
# An independent check. Score each reply alone, unpadded. Then score all eight in one padded batch. A score
# is $\log \pi(y \mid x)$ in nats, the sum over all tokens with `label_mask` 1.

# %%
model = load_reference_model()


def score(batch, prefix=""):
    with torch.no_grad():
        return sequence_logps(model, batch, prefix)


alone = torch.cat([score(pad_rows([example], tokenizer.pad_token_id)) for example in examples])
together = score(collate(examples))
print(together)
print("tokens scored:", batch["label_mask"].sum(1).tolist())
print("largest relative difference < 1e-12:", bool(((together - alone) / alone).abs().max() < 1e-12))
assert ((together - alone) / alone).abs().max() < 1e-12

# %% [markdown]
# Row 4 stands out: the small model has never seen such a reply, and its 21 tokens add up. Scores are sums.
#
# Which mask did the work? Pad on either side, once with the true attention mask and once with all ones.

# %%
def on_the_left(padded):
    lengths = padded["attention_mask"].sum(1).tolist()
    return {f: torch.stack([row.roll(-n) for row, n in zip(padded[f], lengths, strict=True)]) for f in FIELDS}


for side, padded in [("right", batch), ("left ", on_the_left(batch))]:
    true = padded["attention_mask"]
    for name, mask in [("true", true), ("ones", torch.ones_like(true))]:
        gap = (score(padded | {"attention_mask": mask}) - alone).abs().max()
        result = "no difference" if gap < 1e-12 else f"off by up to {gap:.4f} nats"
        print(f"padding {side}, attention mask {name}: {result}")

# %% [markdown]
# A causal model reads from left to right, so no token ever sees padding that comes after it. With padding on
# the right, `label_mask` alone keeps the scores clean. On the left the attention mask saves you. We send it
# always.

# %% [markdown]
# ## 9. What goes wrong: rows sorted by prompt
#
# Rotation looks at positions, not at prompts. If neighbours share a prompt, the "unrelated" reply answers
# the same question. Count them.

# %%
def same_prompt(rows, batch_size=8):
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return sum(b[i]["prompt"] == b[i - 1]["prompt"] for b in batches for i in range(len(b)))


print("eight rows as stored:", same_prompt(rows), "of 8 get a reply to their own prompt")
print("eight rows, sorted:  ", same_prompt(sorted(rows, key=str)), "of 8")

# %% [markdown]
# Feedback files often look like the sorted one: twenty replies to the first question, then twenty to the
# second. We make such a file in the course's small world.

# %%
rng, by_question = random.Random(0), []
for question in world.trained_questions():
    for reply in [world.draw_reply(question, rng) for _ in range(20)]:
        by_question.append({"prompt": question.prompt, "completion": reply.text, "label": reply.thumbs_up})
shuffled = rng.sample(by_question, len(by_question))

n = len(by_question)
print(f"file sorted by question: {same_prompt(by_question)} of {n} get a reply to their own prompt")
print(f"the same file, shuffled: {same_prompt(shuffled)} of {n}, expected {n * 19 / (n - 1):.1f}")

# %% [markdown]
# After a shuffle, 19 of the other 479 rows share a row's prompt; that gives the expected count.
#
# Where prompts are equal, $x_i$ with $y_{i-1}$ is simply row $i-1$: not an unrelated output, but a rated reply
# of the batch. How likely does the model find each reply behind the prompt it was given?

# %%
def scores_of(rows, prefix):
    tokenized = [tokenize_feedback(row, tokenizer) for row in rows]
    return torch.cat([score(b, prefix) for b in DataLoader(tokenized, batch_size=8, collate_fn=collate)])


groups = {
    "own reply": (NEUTRAL, scores_of(by_question, "")),
    "mismatched,\nsorted file": (DOWN, scores_of(by_question, "kl_")),
    "mismatched,\nshuffled file": (ACCENT, scores_of(shuffled, "kl_")),
}
for name, (_, logps) in groups.items():
    print(f"{' '.join(name.split()):26s} mean log-probability {logps.mean():.2f} nats")

# %%
fig, ax = plt.subplots(figsize=(7.6, 3.8))
for level, (colour, logps) in enumerate(groups.values()):
    lift = 0.5 * torch.rand(n, generator=generator) - 0.25
    ax.plot(logps, level + lift, ".", color=colour, markersize=4, alpha=0.5)
    ax.plot(2 * [logps.mean()], [level - 0.3, level + 0.3], color="black", linestyle="-")
    ax.text(logps.mean(), level - 0.33, f"mean {logps.mean():.2f}", ha="center", va="bottom")
ax.set_yticks(range(3), list(groups))
for x, cloud in [(-2.6, "right"), (-4.4, "wrong"), (-10.9, "another kind of question")]:
    ax.text(x, 2.36, cloud, ha="center", va="top", color=NEUTRAL)
ax.set(xlabel="log-probability of the reply (nats)", ylim=(2.75, -0.8))
ax.set_title("In a sorted file the mismatched replies are not mismatched")
alt = (
    "Log-probabilities of replies in three groups. Own replies and the mismatched ones of a sorted "
    "file lie in the same two clouds, right answers and wrong ones; most of those of a shuffled file "
    "answer another kind of question and lie far lower."
)
save_figure(fig, "04_sorted_file", alt=alt)
plt.show()

# %%
kinds = {question.prompt: question.kind for question in world.trained_questions()}
here = [kinds[row["prompt"]] for row in shuffled]
there = [here[start + (i - 1) % 8] for start in range(0, n, 8) for i in range(8)]
same_kind = torch.tensor([one == other for one, other in zip(here, there, strict=True)])
logps = groups["mismatched,\nshuffled file"][1]
print(f"same kind of question:    {int(same_kind.sum())} rows, from {logps[same_kind].min():.2f} nats up")
print(f"another kind of question: {int((~same_kind).sum())} rows, up to {logps[~same_kind].max():.2f} nats")

# %% [markdown]
# The left cloud, say an animal's sound for a capital, is what "unrelated" should look like. The other two answer a
# question of the same kind.
#
# The sorted file has no such cloud. In a batch about one question the mismatched rows *are* the batch's own
# rows in another order. So $z_0$ becomes the average log-ratio of the very replies that are trained (or 0 if that is
# negative): it rises with them, and $r - z_0$ hides the progress. No error tells you.

# %% [markdown]
# The cure is a shuffle before the rows are cut into batches. The few pairs that still share a prompt are
# tolerated, here and in TRL 1.16: rotation never compares prompts.

# %% [markdown]
# ## 10. One-sided batches
#
# With a share $p$ of thumbs up, a batch of $B$ rows is all up with chance $p^B$, all down with $(1-p)^B$:
#
# $$P(\text{one-sided}) = p^B + (1-p)^B$$
#
# One pass through a file draws without replacement. For 300 up and 900 down the exact chance is
# $\left[\binom{300}{B} + \binom{900}{B}\right] / \binom{1200}{B}$. We put both against a simulation.

# %%
def one_sided_chance(p, batch_size):
    return p**batch_size + (1 - p) ** batch_size


def simulated(n_up, n_rows, batch_size, passes=200):
    generator = torch.Generator().manual_seed(batch_size)
    used, one_sided = n_rows // batch_size * batch_size, 0
    for _ in range(passes):
        up = torch.randperm(n_rows, generator=generator)[:used].reshape(-1, batch_size) < n_up
        one_sided += int((up.all(1) | (~up).all(1)).sum())
    return one_sided / (passes * (used // batch_size))


# %%
print(" B   formula   exact     simulated")
for size in (2, 4, 8, 16, 32):
    exact = (comb(300, size) + comb(900, size)) / comb(1200, size)
    counted = simulated(300, 1200, size)
    print(f"{size:2d}   {one_sided_chance(0.25, size):.5f}   {exact:.5f}   {counted:.5f}")
    assert abs(counted - exact) < 0.005 and abs(one_sided_chance(0.25, size) - exact) < 0.001
percent = 100 * one_sided_chance(0.25, 8)
reveal("one_sided_batches", "abcd"[min(range(4), key=lambda i: abs(offered[i] - percent))])

# %% [markdown]
# There is the answer to the question at the top: with $p = 1/4$ and $B = 8$, ten batches in a hundred. How
# large must $B$ be for at most one in a hundred? That depends on the rarer thumb:

# %%
fig, ax = plt.subplots()
sizes, dots = list(range(2, 65)), [2, 4, 8, 16, 32, 64]
for share, x, y in [(0.5, 8.4, 0.006), (0.25, 17.9, 0.006), (0.1, 42.5, 0.013), (0.03, 40, 0.33)]:
    line = ax.semilogy(sizes, [one_sided_chance(share, size) for size in sizes])[0]
    ax.plot(dots, [simulated(round(1200 * share), 1200, size) for size in dots], "o", color=line.get_color())
    label_line(ax, x, y, f"{share:.0%} up", color=line.get_color())
    needed = next(size for size in range(2, 1000) if one_sided_chance(share, size) <= 0.01)
    print(f"{share:4.0%} thumbs up: at most 1 in 100 from batches of {needed} on")
ax.axhline(0.01, color="black", linestyle=":", linewidth=1)
ax.text(64, 0.0105, "1 in 100", ha="right", va="bottom")
ax.set(xlabel="batch size (rows)", ylabel="chance of a one-sided batch", ylim=(0.004, 1.1))
ax.set_title("The rarer a thumb, the larger the batch must be")
alt = (
    "Chance of a batch with one kind of thumb against batch size, log scale, for 50, 25, 10 and 3 "
    "percent up. All fall; the rarer the thumb, the slower. Simulated dots lie near the curves, a "
    "little below for 3 percent, since they are drawn without replacement."
)
save_figure(fig, "04_one_sided", alt=alt)
plt.show()

# %% [markdown]
# (One thumb in four at $B = 16$ gives 0.01002: just too much.) A one-sided batch is no error: the loss is
# finite. But all its rows push in one direction, and "mean reward of the thumbs-up rows" has nothing to
# average there.
#
# Chance is one cause, order the other. [Lesson 03](03_tokenization.ipynb) turns 2,500 preference pairs into
# rows in blocks: 1,000 chosen replies (up), then as many rejected ones (down), and so on. Only the thumbs
# matter here:

# %%
labels = [True] * 1000 + [False] * 1000 + [True] * 1000 + [False] * 1000 + [True] * 500 + [False] * 500


def with_both_kinds(labels, batch_size=8):
    batches = [labels[start : start + batch_size] for start in range(0, len(labels), batch_size)]
    return f"{sum(any(b) and not all(b) for b in batches)} of {len(batches)} batches hold both kinds"


print("in blocks:", with_both_kinds(labels))
print("shuffled: ", with_both_kinds(random.Random(0).sample(labels, len(labels))))
print(f"expected after a shuffle: {625 * (1 - 2 * comb(2500, 8) / comb(5000, 8)):.1f}")

# %% [markdown]
# We did not invent the blocks: TRL 1.16 made them from 2,500 pairs when we ran it. It unpairs in chunks of
# 1,000 and does not shuffle. Unpair and shuffle yourself, as `kto_utils.data.unpair` does.
#
# ## 11. What goes wrong: padding equal to EOS
#
# Many tokenizers have no padding token. A common cure is `tokenizer.pad_token = tokenizer.eos_token`. From
# the ids alone nobody can then tell a real EOS from padding. Four ways to count the real ones that are
# scored:

# %%
tokenizer_eos = load_tokenizer()
tokenizer_eos.pad_token = tokenizer_eos.eos_token
ours = KTOPaddingCollator(tokenizer_eos)(examples)
is_eos = ours["input_ids"] == tokenizer_eos.eos_token_id
guessed = ours["label_mask"] * (ours["input_ids"] != tokenizer_eos.pad_token_id)
only_ids = [{"input_ids": example["input_ids"]} for example in examples]
lm_labels = DataCollatorForLanguageModeling(tokenizer_eos, mlm=False)(only_ids)["labels"]

print("EOS ids in the batch, real and padding:     ", int(is_eos.sum()))
print("scored with the explicit label_mask:        ", int(ours["label_mask"][is_eos].sum()))
print("scored with a mask guessed from the ids:    ", int(guessed[is_eos].sum()))
print("scored by DataCollatorForLanguageModeling:  ", int((lm_labels == tokenizer_eos.eos_token_id).sum()))
gap = ((score(ours) - alone) / alone).abs().max()
print("our scores are unchanged (relative difference < 1e-12):", bool(gap < 1e-12))
assert gap < 1e-12 and torch.equal(ours["label_mask"], batch["label_mask"])

# %% [markdown]
# Eight rows, eight real EOS. The explicit mask keeps them all, because it is made from lengths, before any
# padding exists. A guess from the ids keeps none. Nor does the library's language-model collator, which sets
# the label of every padding id to $-100$ ("ignore"). A model trained so gets no lesson in when to stop.

# %% [markdown]
# ### Exercise 4.4 · Count, do not guess
# ★★☆ · 6 minutes · repair a function
#
# A colleague holds a padded batch, and for each row two numbers: `starts`, the place of its completion's first token,
# and `lengths`, its number of tokens, from `<bos>` to `<eos>`. Padding and `<eos>` are both id 2. The mask below
# is wrong in two ways. Repair it: entry $[b, t]$ is 1 where `starts[b] <= t < lengths[b]`, else 0.
#
# ```python
# def broken_label_mask(input_ids, starts, lengths):
#     return (input_ids != 2).long()
# ```

# %% exercise="mask_from_lengths"
def my_label_mask(input_ids, starts, lengths):
    """label_mask of a padded batch: ids (B, T), starts (B,), lengths (B,) in tokens -> (B, T) of 0 and 1."""
    ### BEGIN SOLUTION
    t = torch.arange(input_ids.shape[1])
    return ((t >= starts[:, None]) & (t < lengths[:, None])).long()
    ### END SOLUTION


# %% check="mask_from_lengths" points=2
check.mask_from_lengths(my_label_mask)

# %% [markdown]
# ## 12. What goes wrong: the last batch of one, and other rows without use
#
# Nine rows in batches of four leave one over. Our short collator pairs it with itself, without a word:

# %%
nine = examples + [examples[1]]
for b in DataLoader(nine, batch_size=4, collate_fn=collate):
    itself = torch.equal(b["input_ids"], b["kl_input_ids"])
    print(f"batch of {len(b['label'])}: the mismatched rows are the rows themselves: {itself}")

# %% [markdown]
# TRL 1.16 lets the same happen: it checks the batch size that you set, not what is left over (our own run).
# The package refuses. It also refuses a label that is no bool, and a reply that `max_length` has cut away:
# such a row has no gradient of its own and only dilutes the others.

# %%
refused = [(nine[8:], None), (examples, 14), ([example | {"label": "false"} for example in examples], None)]
for some_rows, limit in refused:
    try:
        package.KTOPaddingCollator(tokenizer, limit)(some_rows)
    except (ValueError, TypeError) as error:
        print(f"{type(error).__name__}: {error}\n")
loader = DataLoader(nine, batch_size=4, drop_last=True, collate_fn=package.KTOPaddingCollator(tokenizer))
print("with drop_last=True, batches of:", [len(b["label"]) for b in loader])

# %% [markdown]
# One warning. If memory is short, people run several small batches and add up their gradients before one step
# (*gradient accumulation*). Each small batch still rotates within itself. So a batch size of 1, accumulated 16
# times, has no mismatched reply at all.

# %% [markdown]
# ## Recap
# - Padding makes a rectangle; `attention_mask` says what is text, `label_mask` what is scored, `label` which
#   thumb.
# - A collator is any callable that takes a list of rows. A method with another name is never called.
# - Mismatched completions: row $i$ gets that of row $i-1$. Rotation works from two rows on; reversal fails
#   for odd batches.
# - Shuffle before batching, or "mismatched" replies answer the same prompt and batches hold one kind of
#   thumb.
# - Masks come from lengths, not from token ids: padding may equal EOS, and padding changes no score.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions reversed_batch one_sided_share decoupled_samples}}

# %% [markdown]
# ## Sources
# - KTO, arXiv 2402.01306 v1, section 4.1: the reference point from "unrelated outputs" of the batch.
# - TRL 1.16.0, read and run: pairs rotated once per fixed batch, sequential reading, one of 625 batches
#   mixed for 2,500 pairs, a last batch of one paired with itself. Reversal: TRL issue #1911, pull request
#   #1970.
# - HALOs, branch main, commit 4831988: rotation in the other direction.
# - transformers: pull request #5015 (collators became callables); its two collators run here as installed.
# - The chance of a one-sided batch is derived here and checked by simulation.
#
# **Next:** [05 · From logits to log-probabilities](05_get_probs.ipynb)
