# %% [markdown]
# # 04b · Batches, more closely
#
# The collator from memory, padding on the left, the arithmetic of one-sided batches, and the last batch of one.

# %% [markdown]
# **You will be able to**
# - write the whole collator from lists alone, as an interviewer asks,
# - say when a causal model needs the attention mask,
# - say how large a batch must be for rare thumbs,
# - name three ways in which a row is paired with itself.
#
# **You need first** [lesson 04](../04_collator.ipynb). Nothing in the main line needs this notebook.
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything**
#
# Nine rows, batches of four: the last batch holds one row. Whose reply does its prompt borrow? And which thumb has to
# be rare for a batch of 64 to be one-sided once in a hundred times? Sections 5 and 4 answer.

# %%
import random
from math import comb

import torch
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, DataCollatorWithPadding

from kto_course import check
from kto_course.pictures import lesson_04b as pictures
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.model import load_reference_model
from kto_utils.plotting import use_course_style
from kto_utils.tokenizer import load_tokenizer

use_course_style()
tokenizer = load_tokenizer()
examples = [tokenize_feedback(row, tokenizer) for row in load_eight_rows()]

# %% [markdown]
# ## 1. The whole collator, from lists alone
#
# In lesson 04 you had `pad_rows` and the mismatched rows ready. An interviewer asks for everything at once, on an empty
# page.

# %% [markdown]
# ### Exercise 4.3 · Two batches from one list
# ★★★ · 12 minutes · fill in a function
#
# Lists in, tensors out, nothing but torch. One thing is new: say no to a batch of one row.

# %% exercise="collate_kto"
def my_collate_kto(examples, pad_id):
    """One batch for KTO: padded rows, their thumbs, and the mismatched rows, as a dict of tensors.

    examples: B dicts with input_ids, attention_mask, label_mask (lists of T_i ints) and label (bool).
    Returns input_ids, attention_mask, label_mask (int64, (B, T)), label (bool, (B,)), and kl_input_ids,
    kl_attention_mask, kl_label_mask (int64, (B, T_kl)): the prompt of row i with the completion of row i - 1;
    row 0 borrows from the last. Padding to the longest row, on the right: pad_id in the ids (it may be the id
    of EOS), 0 in the masks. ValueError for fewer than two examples.
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
        batch[f"{prefix}input_ids"] = torch.tensor([x + gap * [pad_id] for x, _, gap in padded])
        batch[f"{prefix}attention_mask"] = torch.tensor([len(x) * [1] + gap * [0] for x, _, gap in padded])
        batch[f"{prefix}label_mask"] = torch.tensor([mask + gap * [0] for _, mask, gap in padded])
    return batch
    ### END SOLUTION


# %% check="collate_kto" points=4
check.collate_kto(my_collate_kto)

# %% [markdown]
# ## 2. A method that nobody calls
#
# A tempting plan, found in a public KTO notebook: subclass the library's ready-made collator and put the work into a
# method named `collate_batch`. First the library's collator as it is, then the plan. (The plan gets rows without
# `label_mask`, since the library stumbles over it.)

# %%
try:
    DataCollatorWithPadding(tokenizer)(examples)
except ValueError as error:
    print("the library's collator:", str(error).split(",")[0])

calls = []


class NeverCalled(DataCollatorWithPadding):
    def collate_batch(self, examples):
        calls.append(len(examples))


without_mask = [{key: value for key, value in e.items() if key != "label_mask"} for e in examples]
for b in DataLoader(without_mask, batch_size=4, collate_fn=NeverCalled(tokenizer)):
    print(sorted(b))
print("collate_batch ran", len(calls), "times")
assert calls == []

# %% [markdown]
# Two batches, no error, and the method never ran. There is no `label_mask`, and `label` has become `labels`. A
# `DataLoader` calls the object, so its `__call__` runs, and that one was inherited. The name is a fossil: transformers
# called `collate_batch` until pull request #5015 (June 2020) made every collator a plain callable.
#
# ## 3. With padding on the left the attention mask matters
#
# Generation in batches pads on the left, so that all rows end at the same place. Pad on either side, once with the true
# attention mask and once with all ones, and compare the logits at the real positions with those of each row alone.

# %%
from kto_utils.collator import FIELDS, KTOPaddingCollator, pad_rows

model = load_reference_model()
right = pad_rows(examples, tokenizer.pad_token_id)
lengths = right["attention_mask"].sum(1).tolist()
left = {f: torch.stack([row.roll(-n) for row, n in zip(right[f], lengths, strict=True)]) for f in FIELDS}


def logits(ids, mask):
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits


alone = [logits(torch.tensor([e["input_ids"]]), torch.tensor([e["attention_mask"]]))[0] for e in examples]
print("row 7, padded on the left:", left["input_ids"][7].tolist()[:28], "...")
for side, padded in (("right", right), ("left ", left)):
    ids, true = padded["input_ids"], padded["attention_mask"]
    for name, mask in (("true", true), ("ones", torch.ones_like(true))):
        found = logits(ids, mask)
        gaps = [(found[i][true[i] == 1] - alone[i]).abs().max() for i in range(len(examples))]
        off = "no difference" if max(gaps) < 1e-12 else f"off by up to {max(gaps):.2f}"
        print(f"padding {side}, attention mask {name}: {off}")

# %% [markdown]
# A causal model reads from left to right, so no token ever sees padding that comes after it: on the right `label_mask`
# alone keeps the scores clean. On the left the attention mask saves you. The places of the text have moved, too; that
# does no harm here, since rotary positions (lesson 02) depend on distances only. We send the mask always.
#
# ## 4. How often is a batch one-sided?
#
# $p^B + (1-p)^B$ pretends that every row is drawn anew. A shuffled file is drawn *without* putting rows back. With $U$
# thumbs up among $N$ rows the exact chance is $\left[\binom{U}{B} + \binom{N-U}{B}\right] / \binom{N}{B}$. For 1,200
# rows, 300 of them up:

# %%
def one_sided_chance(p, batch_size):
    return p**batch_size + (1 - p) ** batch_size


def exact_chance(n_up, n, batch_size):
    return (comb(n_up, batch_size) + comb(n - n_up, batch_size)) / comb(n, batch_size)


print(" B   p = 1/4   exact")
for size in (2, 4, 8, 16, 32):
    print(f"{size:2d}   {one_sided_chance(0.25, size):.5f}   {exact_chance(300, 1200, size):.5f}")

# %% [markdown]
# Close enough for planning. How large must $B$ be for at most one one-sided batch in a hundred? That depends on the
# rarer thumb:

# %%
shares = (0.5, 0.25, 0.1, 0.03)
for share in shares:
    needed = next(size for size in range(2, 1000) if one_sided_chance(share, size) <= 0.01)
    print(f"{share:4.0%} thumbs up: at most 1 in 100 from batches of {needed} on")
sizes = list(range(2, 65))
pictures.one_sided(sizes, {share: [one_sided_chance(share, size) for size in sizes] for share in shares})

# %% [markdown]
# (One thumb in four at $B = 16$ gives 0.01002: just too much.) Chance is one cause, order the other. Take 2,500
# preference pairs, each a chosen and a rejected reply, turned into rows in blocks: 1,000 chosen replies (up), then as
# many rejected ones (down), and so on. Only the thumbs matter here:

# %%
labels = [True] * 1000 + [False] * 1000 + [True] * 1000 + [False] * 1000 + [True] * 500 + [False] * 500


def with_both_kinds(labels, batch_size=8):
    batches = [labels[start : start + batch_size] for start in range(0, len(labels), batch_size)]
    return f"{sum(any(b) and not all(b) for b in batches)} of {len(batches)} batches hold both kinds"


print("in blocks:", with_both_kinds(labels))
print("shuffled: ", with_both_kinds(random.Random(0).sample(labels, len(labels))))
print(f"expected after a shuffle: {625 * (1 - exact_chance(2500, 5000, 8)):.1f}")

# %% [markdown]
# We did not invent the blocks: TRL 1.16 made them from 2,500 pairs when we ran it. It unpairs in chunks of 1,000 and
# does not shuffle. Unpair and shuffle yourself, as `kto_utils.data.unpair` does.
#
# ## 5. The last batch, and other rows paired with themselves
#
# Nine rows in batches of four leave one over. The short rotation of lesson 04 would pair it with itself, without a
# word; TRL 1.16 does so (it checks the batch size that you set, not what is left over). The package refuses. It also
# refuses a label that is no bool, and a reply that `max_length` has cut away: such a row has no gradient of its own and
# only dilutes the others. (`max_length` also caps the mismatched rows: a long prompt with a long reply can be longer
# than every row of the batch.)

# %%
nine = examples + [examples[1]]
refused = [(nine[8:], None), (examples, 14), ([example | {"label": "false"} for example in examples], None)]
for some_rows, limit in refused:
    try:
        KTOPaddingCollator(tokenizer, limit)(some_rows)
    except (ValueError, TypeError) as error:
        print(f"{type(error).__name__}: {error}\n")
loader = DataLoader(nine, batch_size=4, drop_last=True, collate_fn=KTOPaddingCollator(tokenizer))
print("with drop_last=True, batches of:", [len(b["label"]) for b in loader])

# %% [markdown]
# If memory is short, people run several small batches and add up their gradients before one step (*gradient
# accumulation*). Each small batch still rotates within itself. So a batch size of 1, accumulated 16 times, has no
# mismatched reply at all.

# %% [markdown]
# ### Exercise 4.4 · Who keeps their own?
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
from kto_course.checks.lesson_04 import unknown_lenders

kept = {size: sum(i == j for i, j in enumerate(unknown_lenders(size))) for size in range(1, 13)}
pictures.unknown_rule(kept)

# %% exercise="mystery_lenders"
answer = ...  # "a", "b", "c" or "d"
### BEGIN SOLUTION
answer = "c"
### END SOLUTION

# %% check="mystery_lenders" points=1
check.mystery_lenders(answer)

# %% [markdown]
# ## 6. A mask for a batch that is already padded
#
# Sometimes you are handed the tensor, and the lists are gone. If padding is `<eos>`, the ids cannot tell where the text
# ends. The library's collator for language models guesses all the same: it ignores every padding id.

# %%
tokenizer_eos = load_tokenizer()
tokenizer_eos.pad_token = tokenizer_eos.eos_token
collate_lm = DataCollatorForLanguageModeling(tokenizer_eos, mlm=False)
targets = collate_lm([{"input_ids": example["input_ids"]} for example in examples])["labels"]
print("real <eos> that it scores, of 8:", int((targets == tokenizer_eos.eos_token_id).sum()))

# %% [markdown]
# ### Exercise 4.5 · Count, do not guess
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
# ## Recap
# - A `DataLoader` calls the object; a method with another name never runs.
# - Padding on the right never reaches a real token. On the left it does, and only the attention mask keeps it out.
# - $p^B + (1-p)^B$ is close to the exact chance of a one-sided batch; the rarer thumb decides how large $B$ must be.
# - Order can do worse than chance: pairs in blocks leave one mixed batch in 625.
# - A last batch of one, batches of one that are accumulated, and a reversed odd batch pair a row with itself.

# %% [markdown]
# ## Sources
# - TRL 1.16.0, read and run: sequential reading, one of 625 batches mixed for 2,500 pairs, a last batch of one paired
#   with itself.
# - transformers: pull request #5015 (collators became callables); its collator runs here as installed.
# - The chances are derived here.
#
# Back to [lesson 04](../04_collator.ipynb). On to [lesson 05](../05_get_probs.ipynb).
