# %% [markdown]
# # 05b · Numbers that break
#
# See where log-probabilities lose their digits or turn into NaN, harden `get_probs`, and watch which tokens of a
# reply move.

# %% [markdown]
# **You will be able to**
# - say what a reply's number may depend on, and test it;
# - say when float32 is enough and bfloat16 is not;
# - keep NaN out of the gradient, not only out of the result;
# - read a log-ratio token by token.
#
# **You need first** lesson [05](../05_get_probs.ipynb).
#
# **Time** {{times}}.

# %%
import math

import torch

from kto_course import check
from kto_course.checks.lesson_05 import mystery_scores
from kto_course.pictures import lesson_05b as pictures
from kto_utils import logprobs
from kto_utils.collator import KTOPaddingCollator, pad_rows
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.logprobs import sequence_logps
from kto_utils.model import load_reference_model, tiny_llama, to_float64
from kto_utils.plotting import use_course_style
from kto_utils.tokenizer import load_tokenizer
from kto_utils.world import replies, trained_questions

use_course_style()
torch.set_printoptions(precision=4, sci_mode=False)

# %% [markdown]
# **Before you run anything.** Somebody takes the softmax first and the logarithm afterwards. On which tokens does
# this go wrong: the likely ones, the unlikely ones, or none? Section 2 answers.
#
# Everything below starts from lesson 05's eight rows and its `get_probs`, written down once more.

# %%
tokenizer, reference = load_tokenizer(), load_reference_model().requires_grad_(False)
rows = [tokenize_feedback(row, tokenizer) for row in load_eight_rows()]
batch = KTOPaddingCollator(tokenizer)(rows)
ids, label_mask, attention_mask = batch["input_ids"], batch["label_mask"], batch["attention_mask"]
logits = reference(input_ids=ids, attention_mask=attention_mask, use_cache=False).logits
start = int(label_mask[0].argmax())
end = start + int(label_mask[0].sum())


def plain_get_probs(logits, labels, mask):
    log_probs = logits[:, :-1].log_softmax(-1)
    chosen = log_probs.gather(-1, labels[:, 1:, None]).squeeze(-1)
    return chosen.masked_fill(~mask[:, 1:].bool(), 0.0)


logps = plain_get_probs(logits, ids, label_mask)
print(logps.sum(-1))

# %% [markdown]
# ## 1. A reply's number knows nothing of its neighbours
#
# It belongs to this reply and its prompt alone. So four things must *not* matter: noise on the logits of the prompt
# or of the padding, the other rows of the batch, and how much padding they cause. One thing must: the *last* place of
# the prompt predicts the reply's first token.

# %%
def with_noise(places):
    noisy = logits[:1].clone()
    generator = torch.Generator().manual_seed(1)
    noisy[:, places] += torch.randn(noisy[:, places].shape, generator=generator, dtype=torch.float64)
    return float(plain_get_probs(noisy, ids[:1], label_mask[:1]).sum())


def first_of(rows):
    return float(sequence_logps(reference, pad_rows(rows, tokenizer.pad_token_id))[0])


twice_as_long = {field: value * 2 for field, value in rows[4].items() if field != "label"}
found = {
    "as it is": float(logps[0].sum()),
    "noise on logits of the prompt": with_noise(slice(0, start - 1)),
    "noise on logits of the padding": with_noise(slice(end, None)),
    "alone, without padding": first_of(rows[:1]),
    "other neighbour, twice the padding": first_of([rows[0], twice_as_long]),
    "noise on the prompt's LAST place": with_noise(start - 1),
}
for what, number in found.items():
    print(f"{what:35s} {number:.4f}")

# %% [markdown]
# One more judge: the loss built into Hugging Face's models takes labels with -100 where nothing is scored, and shifts
# by itself. It is the *mean* over all scored tokens of the batch, and casts logits to float32. So multiply by the
# number of tokens and compare six digits.

# %%
labels = ids.masked_fill(label_mask == 0, -100)
loss, n_tokens = reference(input_ids=ids, attention_mask=attention_mask, labels=labels).loss, label_mask.sum()
print(f"library: {-loss * n_tokens:.3f}   ours: {logps.sum():.3f}   ({n_tokens} tokens)")

# %% [markdown]
# ### Exercise 5.3 · The neighbours' fault
# ★★☆ · 4 minutes · read a curve
#
# `mystery_scores` has one of four faults. The curve shows what it says about the *same* reply, while more and more
# other replies join the batch. Only their number changes. Which fault is it?
#
# - a) each token is scored at its own place (no shift)
# - b) the padding behind the reply is scored
# - c) the sum is divided by the number of tokens in the batch
# - d) the sum is divided by the number of tokens in the reply

# %%
pictures.mystery([float(mystery_scores(logits[:n], ids[:n], label_mask[:n])[0]) for n in range(1, 9)])

# %% exercise="mystery_curve"
answer = ...  # a letter in quotes
### BEGIN SOLUTION
answer = "c"
### END SOLUTION

# %% check="mystery_curve" points=1
check.mystery_curve(answer)

# %% [markdown]
# ## 2. Small probabilities survive only as logarithms
#
# Why not take the softmax first and the logarithm afterwards? Because small probabilities round to 0 on the way, and
# $\log 0 = -\infty$. `log_softmax` subtracts logarithms and never forms the tiny probability.

# %%
far_apart = torch.tensor([0.0, -200.0], dtype=torch.float32)
print("softmax, then log:", far_apart.softmax(-1).log())
print("log_softmax:      ", far_apart.log_softmax(-1))

# %% [markdown]
# ## 3. The longer a reply, the coarser bfloat16
#
# **bfloat16** keeps 8 significant binary digits. The larger the number, the coarser its grid, and a log-probability
# grows with the reply. KTO subtracts two such numbers.

# %%
for size in (0.5, 2.5, 44.0, 230.0, 1000.0):
    grid = 2.0 ** (math.floor(math.log2(size)) - 7)
    assert torch.tensor(size + grid * 0.49).bfloat16() == size != torch.tensor(size + grid * 0.51).bfloat16()
    print(f"near {-size:7.1f} nats, bfloat16 numbers are {grid:.4f} nats apart")

# %% [markdown]
# Take a policy that has barely moved: its logits are the reference's plus a little noise, and both models return
# bfloat16. The rounding of the logits is done and stays. Casting them to float32 *before* the softmax avoids all
# further loss.

# %%
noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
pair = [(logits + 0.3 * noise).bfloat16(), logits.bfloat16()]


def logratio_in(dtype):
    ours, theirs = (plain_get_probs(x.to(dtype), ids, label_mask).sum(-1) for x in pair)
    return " ".join(f"{float(value):6.2f}" for value in ours - theirs)


print("r of row, computed in", " ".join(f"{n:6d}" for n in range(1, 9)))
for dtype in (torch.float64, torch.float32, torch.bfloat16):
    print(f"{str(dtype)[6:]:21s}", logratio_in(dtype))

# %% [markdown]
# float32 loses nothing. In bfloat16 row 5 (homework, near -230 nats) gives -1.00 for -1.28, and row 8 (near -44 nats)
# 0.50 for 0.22: steps of the grid above, as large as what we want to measure.
#
# ## 4. Zero times minus infinity is NaN
#
# Suppose one word is forbidden (logit $-\infty$) and it stands in the prompt, where nothing is scored. Multiplying by
# the mask gives $0 \cdot (-\infty)$, which is NaN, "not a number", and the sum with it. `masked_fill` *assigns* the
# zero.

# %%
forbidden = logits[:1].clone()
forbidden[0, 3, ids[0, 4]] = -math.inf
log_probs = forbidden[:, :-1].log_softmax(-1).gather(-1, ids[:1, 1:, None]).squeeze(-1)
print("multiplied:", (log_probs * label_mask[:1, 1:]).sum())
print("assigned:  ", plain_get_probs(forbidden, ids[:1], label_mask[:1]).sum())

# %% [markdown]
# A NaN can also come back. A padding place may be forbidden to look at anything. Its attention softmax then sees
# nothing but $-\infty$ and gives NaN, and so do its logits. The mask hides that in the *result*. But on the way back,
# log-softmax multiplies the gradient 0 by its own NaN, and that is NaN again.

# %%
def nan_in_gradient(function):
    bad = logits[:1].clone()
    bad[:, end:] = math.nan  # places behind the reply
    bad.requires_grad_()
    total = function(bad, ids[:1], label_mask[:1]).sum()
    total.backward()
    return f"result {total:.4f}, NaN in the gradient: {int(bad.grad.isnan().sum())} of {bad.numel()}"


print(torch.tensor([-math.inf, -math.inf]).softmax(-1))
print(nan_in_gradient(plain_get_probs))

# %% [markdown]
# ## 5. The hardened `get_probs` replaces before it computes
#
# Half precision becomes float32, and what is not scored is replaced *before* anything is computed from it. The table
# of all log-probabilities is not needed either: the chosen logit minus the log-sum is enough.

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
# The package's `get_probs` is this plus error checks. A NaN *inside* a reply must not be hidden. Averaging the losses
# with `nanmean` would skip the row, and the gradient would still be ruined. The package names the row instead.

# %%
broken = logits.clone()
broken[3, start + 2, 7] = math.nan
broken.requires_grad_()
loss = torch.sigmoid(-0.1 * get_probs(broken, ids, label_mask).sum(-1)).nanmean()  # a sigmoid stands in for the loss
loss.backward()
print(f"nanmean: loss {loss:.4f}, NaN in the gradient: {bool(broken.grad.isnan().any())}")
try:
    logprobs.get_probs(broken, ids, label_mask)
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# ## 6. Few tokens of a reply move
#
# A log-ratio is a sum over tokens, so you can ask *where* a policy has changed. Praise one reply, `It is blue. Happy
# to help!`: ten plain gradient steps that raise its log-probability, nothing else.

# %%
question = trained_questions()[0]
texts = [" It is blue. Happy to help!", " It is blue. Even a child knows that.",
         " Good question! The answer is blue.", " Good question! The answer is green.",
         " That would be blue, my friend.", " Obviously blue. Stop wasting my time."]  # fmt: skip
known = {reply.text: reply for reply in replies(question)}
tokenized = [
    tokenize_feedback({"prompt": question.prompt, "completion": text, "label": True}, tokenizer) for text in texts
]
praised, six = (pad_rows(some, tokenizer.pad_token_id) for some in (tokenized[:1], tokenized))

policy = load_reference_model()
optimizer = torch.optim.SGD(policy.parameters(), lr=1e-3)
for _ in range(10):
    optimizer.zero_grad()
    (-sequence_logps(policy, praised).sum()).backward()
    optimizer.step()

# %%
with torch.no_grad():
    inputs = {"input_ids": six["input_ids"], "attention_mask": six["attention_mask"], "use_cache": False}
    ours, theirs = (
        get_probs(model(**inputs).logits, six["input_ids"], six["label_mask"]) for model in (policy, reference)
    )
moved = (ours - theirs)[:, start - 1 :]
kinds = [f"{'polite' if known[t].polite else 'rude'}, {'right' if known[t].right else 'wrong'}" for t in texts]
lines = [[tokenizer.decode([i]) for i in row[start:][flags[start:].bool()]]
         for row, flags in zip(six["input_ids"], six["label_mask"], strict=True)]  # fmt: skip
for kind, text, r in zip(kinds, texts, moved.sum(-1), strict=True):
    print(f"r {r:+.2f}   {kind:13s} {text}")

# %%
pictures.tokens_moved(moved, lines, kinds)

# %% [markdown]
# Nobody said a word about the other five, and all of them moved. Replies that open otherwise lose, the polite ones as
# well. A rude one rises: it shares the opening and the colour with the praised one. Only contrast can separate the
# two, and that is what thumbs on *other* replies are for.

# %% [markdown]
# ### Exercise 5.4 · A log-ratio that adds up
# ★★☆ · 6 minutes · repair a function
#
# Somebody wrote the function below. The log-ratios of the two halves of a reply do not add up to the whole's, and a
# gradient reaches the reference, which should stay frozen. Repair both.
#
# ```python
# def broken_logratio(policy_logits, reference_logits, input_ids, label_mask):
#     ours = logprobs.get_probs(policy_logits, input_ids, label_mask)
#     theirs = logprobs.get_probs(reference_logits, input_ids, label_mask)
#     return (ours - theirs).sum(-1) / label_mask.sum(-1)
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
# ## 7. What goes wrong: training without the shift
#
# Two small models, one with the shift and one without, 40 steps each on the eight replies. After each token of a
# reply, how often is the likeliest word the token just read, and how often the next one?

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
# Without the shift the loss is even lower, and the model has learned to repeat what it just read. The loss alone
# would not have told you.
#
# ## Recap
#
# 1. A reply's number depends on the reply and its prompt. Neighbours, padding and noise elsewhere change nothing.
# 2. `log_softmax`, never the logarithm of a softmax.
# 3. Log-ratios in float32 or better: in bfloat16 the grid at -230 nats is a whole nat.
# 4. Replace what is not scored before you compute; masking afterwards leaves NaN in the gradient.
# 5. Few tokens of a reply move, and tokens that replies share move together.

# %% [markdown]
# ## Sources
#
# - `selective_log_softmax` (gather minus log-sum in float32 and float64): TRL 1.9.
# - All numbers on this page are computed on this page.
#
# Back to [05](../05_get_probs.ipynb), or on to [06 · The KTO loss](../06_kto_loss.ipynb).
