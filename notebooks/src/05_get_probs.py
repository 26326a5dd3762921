# %% [markdown]
# # 05 · From logits to log-probabilities
#
# Turn a model's raw scores into the log-probability of a whole reply, and recognise eleven common mistakes.

# %% [markdown]
# **You will be able to**
# - compute the log-probability of a reply by hand, with a loop, and with five lines of torch;
# - say which logit predicts which token, and which tokens count;
# - say why the tokens are summed and not averaged;
# - recognise eleven common mistakes by their numbers.
#
# **You need first** what a logit is ([02](02_tiny_llama.ipynb)), tokens and the label mask
# ([03](03_tokenization.ipynb)), padding ([04](04_collator.ipynb)).
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything**
#
# A trained model scores a reply of nine tokens. The right log-probability is about -2.4. By mistake, someone
# scores each token with the logits at the token's *own* place, instead of the place before it. What comes
# out: about -2.6, about -10, about -95? Write it down. Section 10 answers.

# %%
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.colors import LinearSegmentedColormap

from kto_course import check
from kto_utils import logprobs
from kto_utils.collator import KTOPaddingCollator, pad_rows
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.evaluate import collect_feedback, rates
from kto_utils.losses import balanced_weights
from kto_utils.model import load_reference_model, reference_of, tiny_llama, to_float64
from kto_utils.plotting import DOWN, UP, save_figure, use_course_style
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import train_kto
from kto_utils.world import find_reply, replies, trained_questions

use_course_style()
torch.set_printoptions(precision=4, sci_mode=False)

# %% [markdown]
# ## 1. Four words, two replies
#
# A language with four words: padding, `sky?`, `blue`, and the end token. Two users ask `sky?`. One gets
# `blue`, the other an empty reply: the end at once. The second row ends in padding. The mask marks the tokens
# that the model wrote: the end token counts, prompt and padding do not.
#
# For every place a model returns one score per word, a **logit**: a tensor `(B, T, V)`, here `(2, 3, 4)`. Ours
# are logarithms of small whole numbers, the `counts`, so you can check everything in your head.

# %%
words = ["<pad>", "sky?", "blue", "<eos>"]
token_ids = torch.tensor([[1, 2, 3], [1, 3, 0]])
mask = torch.tensor([[0, 1, 1], [0, 1, 0]])
counts = torch.tensor(
    [[[1, 1, 6, 2], [1, 1, 2, 16], [5, 2, 2, 1]],
     [[1, 1, 6, 2], [5, 2, 2, 1], [5, 2, 2, 1]]], dtype=torch.float64
)  # fmt: skip
logits = counts.log()
for row, flags in zip(token_ids.tolist(), mask.tolist(), strict=True):
    print([words[i] for i in row], flags)
print("logits", tuple(logits.shape), "first place", logits[0, 0])

# %% [markdown]
# **Softmax** turns logits $x$ into probabilities. Its logarithm is a subtraction:
#
# $$\log p_v = x_v - \log \sum_u e^{x_u}$$
#
# At the first place the counts are 1, 1, 6, 2. They add up to 10, so `blue` must get probability 0.6.
# Logarithms are natural ones; their unit is the **nat**.

# %%
scores = logits[0, 0].tolist()
log_total = math.log(sum(math.exp(x) for x in scores))
for word, x in zip(words, scores, strict=True):
    print(f"{word:6s} logit {x:.4f}   log p {x - log_total:.4f}   p {math.exp(x - log_total):.2f}")

# %% [markdown]
# The same for all places at once is **log-softmax**. Check it against torch's own, and check that only
# *differences* of logits count: adding any constant to the four logits of a place changes nothing.

# %%
log_probs = logits - logits.logsumexp(-1, keepdim=True)
constant = 10 * torch.randn(2, 3, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
assert torch.allclose(log_probs, F.log_softmax(logits, dim=-1), atol=1e-12)
assert torch.allclose(log_probs, F.log_softmax(logits + constant, dim=-1), atol=1e-12)
print(log_probs.exp().sum(-1))

# %% [markdown]
# ## 2. The shift
#
# The logits at a place are the model's guess *after reading* that token. They are about the **next** one.
# So place 0 predicts token 1, place 1 predicts token 2, and the last place predicts a token we do not have.
#
# In code: drop the last place of the logits, drop the first token id.

# %%
predictions, targets = log_probs[:, :-1], token_ids[:, 1:]
print(tuple(predictions.shape), tuple(targets.shape))
for t in range(2):
    word = words[targets[0, t]]
    print(f"after reading {words[token_ids[0, t]]:5s} p({word}) = {predictions[0, t, targets[0, t]].exp():.2f}")

# %% [markdown]
# ## 3. Gather: one number per token
#
# Of the four numbers at each place we want one: the one of the word that really came. `gather` picks along
# the last axis. It wants an index with as many axes as the tensor, hence `[..., None]` before and `squeeze`
# after.
#
# The loop below says the same slowly. It is the specification.

# %%
chosen = predictions.gather(-1, targets[..., None]).squeeze(-1)
slow = [[float(predictions[b, t, targets[b, t]]) for t in range(2)] for b in range(2)]
print(chosen)
assert torch.allclose(chosen, torch.tensor(slow, dtype=torch.float64))

# %% [markdown]
# ## 4. The mask
#
# The last number of the second row is the score of a padding token. Nobody wrote it, so it must not count.
# The mask is shifted like the token ids: it belongs to the token that is *predicted*.

# %%
scored = mask[:, 1:].bool()
chosen = chosen.masked_fill(~scored, 0.0)
print(chosen)
print("sum per row:", chosen.sum(-1))
print("probability:", chosen.sum(-1).exp())

# %% [markdown]
# 0.48 is $0.6 \times 0.8$: first `blue`, then the end. And 0.2 is the chance to end at once. A sum of
# logarithms is the logarithm of a product.

# %% [markdown]
# ### Exercise 5.1 · Shift before you gather
# ★★☆ · 8 minutes · fill in a function
#
# Put the three steps together, before you read section 5. Entry $t$ of the result is
# `log_softmax(logits[b, t])[input_ids[b, t + 1]]` where `label_mask[b, t + 1]` is 1, and exactly 0 elsewhere.

# %% exercise="get_probs"
def my_get_probs(logits, input_ids, label_mask):
    """Log-probability of each completion token.

    logits (B, T, V), input_ids (B, T), label_mask (B, T) with 1 on completion tokens.
    Returns (B, T-1) in nats; entry t belongs to token t + 1, and is 0.0 where nothing is scored.
    """
    ### BEGIN SOLUTION
    targets, scored = input_ids[:, 1:], label_mask[:, 1:].bool()
    log_probs = logits[:, :-1].log_softmax(-1)
    chosen = log_probs.gather(-1, targets[..., None]).squeeze(-1)
    return chosen.masked_fill(~scored, 0.0)
    ### END SOLUTION


# %% check="get_probs" points=3
check.get_probs(my_get_probs)

# %% [markdown]
# ## 5. `get_probs`
#
# Shift, softmax, gather, mask: that is the whole function. Entry $t$ of the result belongs to token $t+1$.
# Section 9 will harden it.
#
# Its second argument, `labels`, takes the token ids: the right answers to the predictions. That name is the
# custom for language models and has nothing to do with thumbs.

# %%
def get_probs(logits, labels, mask):
    predictions, targets, scored = logits[:, :-1], labels[:, 1:], mask[:, 1:].bool()
    log_probs = predictions.log_softmax(-1)
    chosen = log_probs.gather(-1, targets[..., None]).squeeze(-1)
    return chosen.masked_fill(~scored, 0.0)


by_hand = torch.tensor([0.6 * 0.8, 0.2], dtype=torch.float64).log()
assert torch.allclose(get_probs(logits, token_ids, mask).sum(-1), by_hand)
print(get_probs(logits, token_ids, mask))

# %% [markdown]
# Now a real model. The course ships a small one, and eight replies with thumbs. What does it think of the
# first reply, token by token?

# %%
tokenizer, reference = load_tokenizer(), load_reference_model().requires_grad_(False)
rows = [tokenize_feedback(row, tokenizer) for row in load_eight_rows()]
batch = KTOPaddingCollator(tokenizer)(rows)
ids, label_mask, attention_mask = batch["input_ids"], batch["label_mask"], batch["attention_mask"]
logits = reference(input_ids=ids, attention_mask=attention_mask, use_cache=False).logits
logps = get_probs(logits, ids, label_mask)
print("logits", tuple(logits.shape), "-> logps", tuple(logps.shape))


def tokens_of(row_ids):
    return [tokenizer.decode([i]) for i in row_ids]


wrote = label_mask[0, 1:].bool()
for token, logp in zip(tokens_of(ids[0, 1:][wrote]), logps[0][wrote], strict=True):
    print(f"{token!r:10s} log p {logp:7.4f}   p {logp.exp():.4f}")

# %% [markdown]
# Three tokens carry a decision: how to open, which colour, which ending. The others follow from them, and
# cost almost nothing.
#
# Here is the shift as a picture. Each line is a place, named by the token just read (the first, `:`, is the
# last token of the prompt). Each column is a token of the reply; the cell holds the log-probability. One
# cell *below* each bright one stands the same token scored at its own place.

# %%
start = int(label_mask[0].argmax())
end = start + int(label_mask[0].sum())
table = logits[0, start - 1 : end - 1].log_softmax(-1)[:, ids[0, start:end]]
fig, ax = plt.subplots(figsize=(7.2, 5.4))
image = ax.imshow(table, vmin=-15, vmax=0)
for i in range(len(table)):
    for j in range(len(table)):
        ax.text(j, i, f"{table[i, j]:.0f}".replace("-0", "0"), ha="center", va="center",
                color="black" if table[i, j] > -7 else "white")  # fmt: skip
ax.set_xticks(range(len(table)), tokens_of(ids[0, start:end]), rotation=40)
ax.set_yticks(range(len(table)), tokens_of(ids[0, start - 1 : end - 1]))
ax.set(xlabel="token that is scored", ylabel="token just read",
       title="Only the next token is likely: the bright diagonal")  # fmt: skip
ax.grid(False)
fig.colorbar(image, label="log-probability (nats)", extend="min")
save_figure(fig, "05_shift", alt="Table of log-probabilities for the reply It is blue. Happy to help! Lines "
            "are the token just read, columns the token scored. Only the diagonal, where the column is the "
            "next token, is near 0 nats; everywhere else it is between -8 and -14.")  # fmt: skip
plt.show()

# %% [markdown]
# ## 6. Sum, not mean
#
# A reply is one event: this token, then that one, then the end. By the chain rule of probability
#
# $$\log \pi(y \mid x) = \sum_t \log \pi(y_t \mid x, y_{<t}).$$
#
# So a model and a batch give one number per reply. Nothing is divided by the length.

# %%
def sequence_logps(model, batch, prefix=""):
    input_ids, attention_mask, label_mask = (
        batch[prefix + field] for field in ("input_ids", "attention_mask", "label_mask")
    )
    logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    return get_probs(logits, input_ids, label_mask).sum(-1)


for row, logp, n in zip(load_eight_rows(), sequence_logps(reference, batch), label_mask.sum(-1), strict=True):
    print(f"{logp:9.4f} nats   {n:2d} tokens  {row['completion']}")

# %% [markdown]
# The model was trained on polite and rude replies, right and wrong. Those are a few nats away. The homework
# reply (21 tokens) and `No.` (4 tokens) are texts it has never seen; hence the very low numbers, even for the
# short one. `"kl_"` as prefix would score the mismatched rows of lesson 04.
#
# Is the sum really the logarithm of a probability? In this small world you can test that: one question has
# 48 possible replies, and their probabilities cannot exceed 1.

# %%
question = trained_questions()[0]
listed = [
    tokenize_feedback({"prompt": question.prompt, "completion": r.text, "label": r.thumbs_up}, tokenizer)
    for r in replies(question)
]
world_batch = pad_rows(listed, tokenizer.pad_token_id)
sums = sequence_logps(reference, world_batch)
means = sums / world_batch["label_mask"].sum(-1)
print(question.text)
print(f"sum : the 48 probabilities add up to {sums.exp().sum():.4f}")
print(f"mean: the 48 'probabilities' add up to {means.exp().sum():.4f}")
assert sums.exp().sum() < 1.0 < means.exp().sum()

# %% [markdown]
# The little that is missing to 1 lies on other texts. The mean is no log-probability of anything.
#
# A second test: score the reply in two pieces, first `It is blue.`, then the rest. Sums add up. Means do
# not.

# %%
first, rest = label_mask[:1].clone(), label_mask[:1].clone()
first[:, start + 4 :], rest[:, : start + 4] = 0, 0
for name, part in (("It is blue.", first), ("the rest", rest), ("the whole", label_mask[:1])):
    piece = get_probs(logits[:1], ids[:1], part).sum()
    print(f"{name:12s} sum {piece:.4f}   mean {piece / part.sum():.4f}")

# %% [markdown]
# ### Exercise 5.2 · Three tokens, one number
# ★☆☆ · 3 minutes · predict a number
#
# A reply has two tokens, with probabilities 0.5 and 0.8. Then it ends; the end token had probability 0.25.
# What is the log-probability of the reply, in nats?

# %% exercise="reply_logp"
answer = ...  # a number
### BEGIN SOLUTION
answer = math.log(0.5) + math.log(0.8) + math.log(0.25)
### END SOLUTION

# %% check="reply_logp" points=1
check.reply_logp(answer)

# %% [markdown]
# ## 7. Check it against three others
#
# `cross_entropy` is minus the log-probability of the target. With `reduction="none"` it returns one number
# per token, which must be ours with the other sign.

# %%
ce = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
gap = (-ce * label_mask[:, 1:] - logps).abs().max()
print(f"largest difference below 1e-12: {bool(gap < 1e-12)}")
assert gap < 1e-12

# %% [markdown]
# The loss built into Hugging Face's models takes labels with -100 where nothing is scored, and shifts by
# itself. It is the
# *mean* over all scored tokens of the batch, and casts logits to float32. So multiply by the number of
# tokens and compare six digits.

# %%
hf_labels = ids.masked_fill(label_mask == 0, -100)
loss = reference(input_ids=ids, attention_mask=attention_mask, labels=hf_labels).loss
n_tokens = label_mask.sum()
print(f"library: {-loss * n_tokens:.3f}   ours: {logps.sum():.3f}   ({n_tokens} tokens)")
assert abs(loss * n_tokens + logps.sum()) < 1e-3

# %% [markdown]
# Third, four things that must *not* matter, and one that must. The number of a reply belongs to this reply
# and its prompt alone: not to its neighbours, not to the padding. But the *last* place of the prompt
# counts, since it predicts the reply's first token.

# %%
def with_noise(place):
    noisy = logits[:1].clone()
    generator = torch.Generator().manual_seed(1)
    noisy[:, place] += torch.randn(noisy[:, place].shape, generator=generator, dtype=torch.float64)
    return float(get_probs(noisy, ids[:1], label_mask[:1]).sum())


padded = pad_rows([rows[0], {f: v * 2 for f, v in rows[4].items() if f != "label"}], pad_id=0)
as_it_is = float(logps[0].sum())
must_agree = {
    "noise on logits of the prompt": with_noise(slice(0, start - 1)),
    "noise on logits of the padding": with_noise(slice(end, None)),
    "alone, without padding": float(sequence_logps(reference, pad_rows(rows[:1], 0))[0]),
    "other neighbour, twice the padding": float(sequence_logps(reference, padded)[0]),
}
must_differ = {"noise on the prompt's LAST place": with_noise(start - 1)}
for what, number in ({"as it is": as_it_is} | must_agree | must_differ).items():
    print(f"{what:35s} {number:.4f}")
assert all(math.isclose(number, as_it_is, abs_tol=1e-9) for number in must_agree.values())
assert all(abs(number - as_it_is) > 0.1 for number in must_differ.values())

# %% [markdown]
# ## 8. The log-ratio: which tokens moved?
#
# KTO compares the trained model, the **policy** $\pi$, with its frozen copy, the **reference**. Their
# **log-ratio** $r = \log\pi(y|x) - \log\pi_\mathrm{ref}(y|x)$ is a sum over tokens too. Neither KTO nor DPO
# (lesson 08) divides it by the number of tokens, although one popular notebook says so.
#
# *Where* in a reply does a policy change? Collect thumbs, train for 40 KTO steps ([lesson
# 07](07_train.ipynb); the two weights make up for the rarer thumbs up), and subtract token by token.

# %%
feedback = collect_feedback(reference, trained_questions(), n=50, seed=0)
n_up = sum(row["label"] for row in feedback)
desirable, undesirable = balanced_weights(n_up, len(feedback) - n_up)
policy, _ = train_kto(load_reference_model(), reference_of(reference), feedback, tokenizer, steps=40,
                      learning_rate=1e-3, desirable_weight=desirable, undesirable_weight=undesirable)  # fmt: skip
policy.requires_grad_(False)
print(f"{n_up} thumbs up, {len(feedback) - n_up} down")
for what in ("thumbs_up", "listed"):
    print(f"{what:9s} {rates(reference)[what]:.3f} before, {rates(policy)[what]:.3f} after")

# %% [markdown]
# Take six replies to *What colour is the sky?* and score them with both models. Policy minus reference
# gives the log-ratio of every token, in nats. Below is the first reply's (the two zeros at its end are
# padding), then the sum of each reply.

# %%
texts = [" Good question! The answer is blue.", " Good question! The answer is green.",
         " It is blue. Happy to help!", " It is blue. Even a child knows that.",
         " That would be blue, my friend.", " Obviously blue. Stop wasting my time."]  # fmt: skip
chosen_rows = [listed[[r.text for r in replies(question)].index(text)] for text in texts]
six = pad_rows(chosen_rows, tokenizer.pad_token_id)
arguments = {"input_ids": six["input_ids"], "attention_mask": six["attention_mask"], "use_cache": False}
ours, theirs = (get_probs(m(**arguments).logits, six["input_ids"], six["label_mask"])
                for m in (policy, reference))  # fmt: skip
moved = (ours - theirs)[:, start - 1 :]
print(moved[0])
print(moved.sum(-1))

# %% [markdown]
# All six as a picture, one reply per line, each token in its cell with its log-ratio. Colours stop at 3
# nats; the numbers do not. At the left stands $r$, the sum of the line: the only thing that KTO will look
# at.

# %%
fig, ax = plt.subplots(figsize=(10.5, 4.6))
diverging = LinearSegmentedColormap.from_list("moved", [DOWN, "white", UP])
image = ax.imshow(moved, cmap=diverging, vmin=-3, vmax=3, aspect="auto")
for i, row_ids in enumerate(six["input_ids"][:, start:]):
    for j in range(int(six["label_mask"][i].sum())):
        number = f"{moved[i, j]:+.1f}" if abs(moved[i, j]) >= 0.05 else "0"
        colour = "white" if abs(moved[i, j]) > 2.2 else "black"
        ax.text(j, i, f"{tokenizer.decode(row_ids[j : j + 1]).strip()}\n{number}", color=colour, ha="center",
                va="center", fontsize=10)  # fmt: skip
found = [find_reply(question, text) for text in texts]
names = [f"{n}. {'polite' if r.polite else 'rude'}, {'right' if r.right else 'wrong'}\nr = {row.sum():+.1f}"
         for n, (r, row) in enumerate(zip(found, moved, strict=True), start=1)]  # fmt: skip
ax.set_yticks(range(len(texts)), names)
ax.set_xticks(range(moved.shape[1]), range(1, moved.shape[1] + 1))
ax.set(xlabel="token of the reply", title="Few tokens move: the opening, the answer, the rude words")
ax.hlines([i + 0.5 for i in range(5)], -0.5, moved.shape[1] - 0.5, color="white", linewidth=4)
ax.grid(False)
fig.colorbar(image, label="log-ratio of the token (nats)", extend="both")
save_figure(fig, "05_tokens_moved", alt="Heat map of six replies, one cell per token, with the log-ratio of "
            "policy against reference after 40 KTO steps. The opening Good rises by 0.9 nats, the right colour by "
            "0.5 to 0.6, the wrong one falls by 2.0. Most words of the rude replies fall by 3 to 16 nats, and "
            "one full stop by 4.5; most other tokens, the end token included, stay near 0.")  # fmt: skip
plt.show()

# %% [markdown]
# Lines 1 and 2 differ in one word, and only that word separates them: right rose, wrong fell. Lines 3 and 4
# part at the fifth token. The rude words fell most, although one low token would be enough.
#
# Line 5 is polite and right, and yet its $r$ is below 0. Nearly all of that is the full stop. What does the
# policy write there instead?

# %%
inputs = {field: six[field][4:5] for field in ("input_ids", "attention_mask")}
for name, model in (("reference", reference), ("policy", policy)):
    p = model(**inputs, use_cache=False).logits[0, start - 1 + 7].softmax(-1)
    print(f"{name:9s} after 'friend': most likely {tokenizer.decode([p.argmax()])!r} with p = {p.max():.2f}")

# %% [markdown]
# It stops without the full stop: a text that is not among the 48. The share of listed replies fell from 0.985 to
# 0.584; here you see one place where it leaked. This is a snapshot after 40 steps, not a finished policy:
# [lesson 07](07_train.ipynb) goes on.

# %% [markdown]
# ### Exercise 5.3 · A log-ratio that minds its own business
# ★★☆ · 6 minutes · repair a function
#
# Somebody wrote the function below. The number of a reply changes when other replies join the batch, and
# a gradient reaches the reference, which should stay frozen. Repair both.
#
# ```python
# def broken_logratio(policy_logits, reference_logits, input_ids, label_mask):
#     ours = logprobs.get_probs(policy_logits, input_ids, label_mask)
#     theirs = logprobs.get_probs(reference_logits, input_ids, label_mask)
#     return (ours - theirs).sum(-1) / label_mask.sum()
# ```

# %% exercise="logratio"
def my_logratio(policy_logits, reference_logits, input_ids, label_mask):
    """log pi(y|x) - log pi_ref(y|x) of each reply: logits (B, T, V), ids and mask (B, T) -> (B,) in nats.

    The gradient reaches policy_logits only.
    """
    ### BEGIN SOLUTION
    ours = logprobs.get_probs(policy_logits, input_ids, label_mask)
    with torch.no_grad():
        theirs = logprobs.get_probs(reference_logits, input_ids, label_mask)
    return (ours - theirs).sum(-1)
    ### END SOLUTION


# %% check="logratio" points=2
check.logratio(my_logratio)

# %% [markdown]
# ## 9. Numbers that break
#
# Why not take the softmax first and the logarithm afterwards? Because small probabilities round to 0 on the
# way, and $\log 0 = -\infty$. `log_softmax` subtracts logarithms and never forms the tiny probability, so
# nothing rounds to 0.

# %%
far_apart = torch.tensor([0.0, -200.0], dtype=torch.float32)
print("softmax, then log:", far_apart.softmax(-1).log())
print("log_softmax:      ", far_apart.log_softmax(-1))

# %% [markdown]
# **bfloat16** keeps 8 significant binary digits. The larger the number, the coarser its grid, and a
# log-probability grows with the reply. KTO subtracts two such numbers.

# %%
for size in (0.5, 2.5, 44.0, 230.0, 1000.0):
    grid = 2.0 ** (math.floor(math.log2(size)) - 7)
    assert torch.tensor(size + grid * 0.49).bfloat16() == size != torch.tensor(size + grid * 0.51).bfloat16()
    print(f"near {-size:7.1f} nats, bfloat16 numbers are {grid:.4f} nats apart")

# %% [markdown]
# Take a policy that has barely moved: its logits are the reference's plus a little noise, and both models
# return bfloat16. The rounding of the logits is done and stays. Casting them to float32 *before* the
# softmax avoids all further loss, so `get_probs` casts.

# %%
noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
pair = [(logits + 0.3 * noise).bfloat16(), logits.bfloat16()]


def logratio_in(dtype):
    ours, theirs = (get_probs(x.to(dtype), ids, label_mask).sum(-1) for x in pair)
    return " ".join(f"{float(value):6.2f}" for value in ours - theirs)


print("r of row, computed in", " ".join(f"{n:6d}" for n in range(1, 9)))
for dtype in (torch.float64, torch.float32, torch.bfloat16):
    print(f"{str(dtype)[6:]:21s}", logratio_in(dtype))

# %% [markdown]
# float32 loses nothing. In bfloat16 row 5 (homework, near -230 nats) gives -1.00 for -1.28, and row 8 (near
# -44 nats) 0.50 for 0.22: steps of the grid above, as large as what we want to measure.
#
# **Zero times minus infinity.** Suppose one word is forbidden (logit $-\infty$) and it stands in the
# prompt, where nothing is scored. Multiplying by the mask gives $0 \cdot (-\infty)$, which is NaN, "not a
# number", and the sum with it. `masked_fill` *assigns* the zero.

# %%
forbidden = logits[:1].clone()
forbidden[0, 3, ids[0, 4]] = -math.inf
log_probs = forbidden[:, :-1].log_softmax(-1).gather(-1, ids[:1, 1:, None]).squeeze(-1)
print("multiplied:", (log_probs * label_mask[:1, 1:]).sum())
print("assigned:  ", get_probs(forbidden, ids[:1], label_mask[:1]).sum())

# %% [markdown]
# **A NaN that comes back.** A padding place may be forbidden to look at anything. Its attention softmax then
# sees nothing but $-\infty$ and gives NaN, and so do its logits. Our mask hides that in the *result*. But on
# the way back, log-softmax multiplies the gradient 0 by its own NaN, and that is NaN again.

# %%
def nan_in_gradient(function):
    bad = logits[:1].clone()
    bad[:, end:] = math.nan  # places behind the reply
    bad.requires_grad_()
    total = function(bad, ids[:1], label_mask[:1]).sum()
    total.backward()
    return f"result {total:.4f}, NaN in the gradient: {int(bad.grad.isnan().sum())} of {bad.numel()}"


print(torch.tensor([-math.inf, -math.inf]).softmax(-1))
print(nan_in_gradient(get_probs))

# %% [markdown]
# So replace what is not scored *before* computing. That is the final version. It also leaves out the table
# of all log-probabilities: the chosen logit minus the log-sum is enough. TRL, Hugging Face's training library
# for alignment methods, does it that way too in float32 and float64 (version 1.9).

# %%
def get_probs(logits, labels, mask):
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    scored = mask[:, 1:].bool()
    targets = labels[:, 1:].masked_fill(~scored, 0)
    predictions = logits[:, :-1].masked_fill(~scored[..., None], 0.0)
    chosen = predictions.gather(-1, targets[..., None]).squeeze(-1)
    return (chosen - predictions.logsumexp(-1)).masked_fill(~scored, 0.0)


print(nan_in_gradient(get_probs))
assert torch.allclose(get_probs(logits, ids, label_mask), logps, atol=1e-12)
assert torch.equal(get_probs(logits, ids, label_mask), logprobs.get_probs(logits, ids, label_mask))

# %% [markdown]
# From the next lesson on `get_probs` and `sequence_logps` are imported from `kto_utils.logprobs`: the same
# mathematics plus error checks. The package's `sequence_logps` also leaves out the logits that nobody reads
# (lesson 12); its numbers differ from yours in the last bits only.
#
# ## 10. What goes wrong
#
# Eleven mistakes. Numbers 1, 2, 4, 6, 8, 10 and 11 stand in one popular notebook.
#
# **1. No shift.** Each token is scored at its own place. Compare with your guess.

# %%
unshifted = (logits.log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1) * label_mask).sum(-1)
too_low = logps[0].sum() - unshifted[0]
print(f"shifted {logps[0].sum():.2f}, unshifted {unshifted[0]:.2f} nats")
print(f"{too_low:.0f} nats too low: a factor of {too_low.exp():.0e} in probability")

# %% [markdown]
# And if you *train* on it? Two small models, one with the shift and one without, 40 steps each on the eight
# replies. After each token of a reply, how often is the likeliest word the token just read, and how often
# the next one?

# %%
def habits(shift):
    model = tiny_llama(512, hidden_size=32, intermediate_size=64, num_layers=1, dtype=torch.float64)
    model = to_float64(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        out = model(input_ids=ids, attention_mask=attention_mask).logits
        log_probs = out[:, : out.shape[1] - shift].log_softmax(-1)
        picked = log_probs.gather(-1, ids[:, shift:, None]).squeeze(-1)
        loss = -picked[label_mask[:, shift:].bool()].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    guess, inside = out.argmax(-1)[:, :-1], (label_mask[:, :-1] * label_mask[:, 1:]).bool()
    same = [(guess == ids[:, k : k + guess.shape[1]])[inside].double().mean() for k in (0, 1)]
    return loss, *same


for name, shift in (("with shift", 1), ("without", 0)):
    loss, current, following = habits(shift)
    print(f"{name:10s}: loss {loss:.2f}, token just read {current:.2f}, next token {following:.2f}")

# %% [markdown]
# Without the shift the loss is even lower, and the model has learned to repeat what it just read. The loss
# alone would not have told you.
#
# **2. `mask / mask.sum()`.** That divides by the completion tokens of the *whole batch*. A reply's number
# then depends on its neighbours. KTO multiplies the log-ratio by a fixed $\beta$, here 0.1 ([lesson
# 06](06_kto_loss.ipynb)). Dividing the log-ratio by the batch's token count has the same effect as dividing
# $\beta$ by it.

# %%
for members in ([0, 7], [0, 1, 2, 3], list(range(8))):
    n_tokens = int(label_mask[members].sum())
    number, beta = logps[0].sum() / n_tokens, 0.1 / n_tokens
    print(f"batch {members!s:25s} reply 0: {number:.4f}   0.1 as beta acts like {beta:.4f}")

# %% [markdown]
# **3. Prompt and padding scored.** Without a mask every place counts. The prompt's tokens swamp the reply
# (nobody trained the model to write prompts), and the result depends on how much padding the neighbours
# caused.

# %%
everything = torch.ones_like(label_mask)
print(f"reply only              {logps[0].sum():9.4f}")
print(f"with prompt             {get_probs(logits, ids, attention_mask)[0].sum():9.4f}")
print(f"with prompt and padding {get_probs(logits, ids, everything)[0].sum():9.4f}")
print(f"places that are no completion token: {1 - label_mask.double().mean():.1%}")

# %% [markdown]
# **4. Token by token instead of the sequence.** KTO passes $\beta r$ through a sigmoid: once, on the sum. The
# popular version squashes each *place* by itself, after mistake 2. Prompt and padding places have ratio 0
# there, so each contributes a constant one half.
#
# The numbers below are losses (both weights 1, reference point 0): one half means nothing learned, 0 means
# perfect. Every completion token gets 5 nats in the right direction, so a sound loss must fall close to 0.

# %%
beta, sign = 0.1, torch.where(batch["label"], 1.0, -1.0).double()[:, None]
for gift in (0.0, 5.0):
    ratio = gift * sign * label_mask[:, 1:]
    right = torch.sigmoid(-beta * sign[:, 0] * ratio.sum(-1)).mean()
    per_token = torch.sigmoid(-beta * sign * ratio)[label_mask[:, 1:].bool()].mean()
    popular = torch.sigmoid(-beta * sign * ratio / label_mask.sum()).mean()
    print(f"{gift:.0f} nats per token: {right:.4f} on the sum, {per_token:.4f} per completion token, "
          f"{popular:.4f} popular version")  # fmt: skip

# %% [markdown]
# The first is KTO's. Remember the symptom of the last: a loss that sits at one half whatever the model does.
#
# **5. Mean instead of sum.** Section 6 ran it: 48 "probabilities" that add up to over 30.
#
# **6. The reference records gradients.** Without `torch.no_grad()` its whole forward pass is kept in
# memory. And if it is not frozen, gradients pile up in it, at step 0 as large as the policy's. An optimizer
# that gets both models then moves the reference too: nothing stays fixed to compare with.

# %%
two = [load_reference_model(), load_reference_model()]
small = {field: tensor[:2] for field, tensor in batch.items()}
r = sequence_logps(two[0], small) - sequence_logps(two[1], small)
r.sum().backward()
norms = [torch.cat([p.grad.flatten() for p in model.parameters()]).norm() for model in two]
print("gradient norm: policy {:.3f}, reference {:.3f}".format(*norms))
torch.optim.SGD([p for model in two for p in model.parameters()], lr=1e-3).step()
for when, model in (("before", reference), ("after", two[1])):
    print(f"log pi_ref {when:6s} the step", sequence_logps(model, small).detach())

# %% [markdown]
# **7. The end token is not scored.** Then nothing asks *did the model stop here?* `It is blue.` is a fine
# beginning, but this model practically never ends there.

# %%
stops = tokenize_feedback({"prompt": question.prompt, "completion": " It is blue.", "label": True}, tokenizer)
for name, row in (("It is blue.", stops), ("It is blue. Happy to help!", rows[0])):
    one = pad_rows([row], tokenizer.pad_token_id)
    with_end = sequence_logps(reference, one).exp()[0]
    one["label_mask"][:, -1] = 0
    without = sequence_logps(reference, one).exp()[0]
    print(f"{name:27s} p without end {without:.4f}, with end {with_end:.4f}")

# %% [markdown]
# Without the end, the broken-off reply looks twice as likely as the whole one. (An extreme case: in the texts
# our model learned from, `It is blue.` always goes on.) And a policy never scored on its end never learns to stop.
#
# **8. `0 * -inf`** and **9. bfloat16**: section 9 ran them.
#
# **10. `nanmean` over the losses** skips rows that are NaN. Put one NaN logit into one row (a sigmoid stands
# in for the loss): the loss looks healthy, the gradient is ruined. The package's version names the row.

# %%
broken = logits.clone()
broken[3, start + 2, 7] = math.nan
broken.requires_grad_()
loss = torch.sigmoid(-0.1 * get_probs(broken, ids, label_mask).sum(-1)).nanmean()
loss.backward()
print(f"loss {loss:.4f}, NaN in the gradient: {bool(broken.grad.isnan().any())}")
try:
    logprobs.get_probs(broken, ids, label_mask)
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# **11. `1 - sigmoid(u)`** is `sigmoid(-u)` on paper, but in float32 it rounds to exactly 0 long before the
# right value does. [Lesson 06](06_kto_loss.ipynb) runs it where the loss is at hand.

# %% [markdown]
# ### Exercise 5.4 · The neighbours' fault
# ★★☆ · 4 minutes · read a curve
#
# `mystery_scores` has one of four faults. The curve shows what it says about the *same* reply, while more and
# more other replies join the batch. Only their number changes. Which fault is it?
#
# - a) each token is scored at its own place (no shift)
# - b) the padding behind the reply is scored
# - c) the sum is divided by the number of tokens in the batch
# - d) the sum is divided by the number of tokens in the reply

# %%
from kto_course.checks.lesson_05 import mystery_scores

sizes = range(1, 9)
curve = [mystery_scores(logits[:n], ids[:n], label_mask[:n])[0] for n in sizes]
fig, ax = plt.subplots()
ax.plot(sizes, curve, "o-", color=UP)
ax.set(xlabel="replies in the batch", ylabel="score of reply 0", title="One reply, more and more neighbours")
save_figure(fig, "05_mystery", alt="Score of one reply against the number of replies in its batch, from 1 to 8. "
            "Alone it is lowest; with every reply that joins it rises, in ever smaller steps, towards 0.")  # fmt: skip
plt.show()

# %% exercise="mystery_curve"
answer = ...  # a letter in quotes
### BEGIN SOLUTION
answer = "c"
### END SOLUTION

# %% check="mystery_curve" points=1
check.mystery_curve(answer)

# %% [markdown]
# ## Recap
#
# 1. The logits at place $t$ predict token $t+1$: drop the last logits and the first token id.
# 2. Log-softmax is a subtraction; gather picks the token that came.
# 3. Completion tokens count, the end token with them; prompt and padding get an *assigned* 0.
# 4. A reply's number is the sum over its tokens, in nats. It depends on nothing else in the batch.
# 5. The log-ratio per token shows where a policy moved.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions length_normalised missing_shift sequence_logratio}}

# %% [markdown]
# ## Sources
#
# - Log-ratio as a sequence quantity: KTO, arXiv 2402.01306 v1, Eq. 7 (there with $\beta$ inside); sum instead
#   of mean: ContextualAI/HALOs (`average_log_prob=False`), TRL 1.16 (`.sum(-1)`).
# - `selective_log_softmax` (gather minus log-sum in float32 and float64): TRL 1.9.
# - All numbers on this page are computed on this page.
#
# Next: [06 · The KTO loss](06_kto_loss.ipynb) turns these log-ratios into a loss.
