# %% [markdown]
# # 05 · From logits to log-probabilities
#
# Turn a model's raw scores into the log-probability of a whole reply: the one number that KTO looks at.

# %% [markdown]
# **You will be able to**
# - say which logit predicts which token, and which tokens count;
# - write `get_probs` in four lines of torch;
# - say why the tokens of a reply are summed and not averaged;
# - test a log-ratio before the first step of training.
#
# **You need first** logits ([02](02_tiny_llama.ipynb)), the label mask ([03](03_tokenization.ipynb)), padding
# ([04](04_collator.ipynb)).
#
# **Time** {{times}}. Deeper: [where these numbers break](deeper/05b_numbers_that_break.ipynb).

# %%
import math

import torch
import torch.nn.functional as F

from kto_course import check, predict, reveal
from kto_course.pictures import lesson_05 as pictures
from kto_utils.collator import KTOPaddingCollator, pad_rows
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.model import load_reference_model, reference_of
from kto_utils.plotting import use_course_style
from kto_utils.tokenizer import load_tokenizer
from kto_utils.world import replies, trained_questions

use_course_style()
torch.set_printoptions(precision=4, sci_mode=False)

# %% [markdown] slide=["A trained model", "By mistake"]
# **Before you run anything.** A trained model scores a reply of nine tokens. By mistake, someone scores each token
# with the logits at the token's *own* place, instead of the place before it. Section 8 answers.

# %% slide=["text 0:4"]
predict("unshifted_score", "The right log-probability is about -2.4. What comes out by mistake?",
        ["about -2.6", "about -10", "about -95"], guess=None, confidence=None)  # fmt: skip

# %% [markdown]
# ## 1. A logit becomes a log-probability by one subtraction
#
# Take a language with four words: padding, `sky?`, `blue`, and the end token. Two users ask `sky?`. One gets `blue`,
# the other an empty reply: the end at once. The mask marks the tokens that the model wrote: the end token counts,
# prompt and padding do not.
#
# For every place a model returns one score per word, a **logit**: a tensor `(B, T, V)`, here 2 rows, 3 places, 4
# words. Ours are logarithms of small `counts`, so you can check everything in your head.

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

# %% [markdown] slide=["Softmax turns", "Its logarithm", "$$"]
# **Softmax** turns logits $x$ into probabilities. Its logarithm is a subtraction:
#
# $$\log p_v = x_v - \log \sum_u e^{x_u}$$
#
# At the first place the counts are 1, 1, 6, 2. They add up to 10, so `blue` must get probability 0.6. Logarithms are
# natural ones; their unit is the **nat**. Add any constant to the four logits and nothing changes: it cancels.

# %%
scores = logits[0, 0].tolist()
log_total = math.log(sum(math.exp(x) for x in scores))
for word, x in zip(words, scores, strict=True):
    print(f"{word:6s} logit {x:.4f}   log p {x - log_total:.4f}   p {math.exp(x - log_total):.2f}")

# %% [markdown] slide=["The logits at", "So place 0", "Nothing predicts"]
# ## 2. The shift: each place predicts the next token
#
# The logits at a place are the model's guess *after reading* that token. So place 0 predicts token 1, place 1
# predicts token 2, and the last place predicts a token that we do not have. Nothing predicts the first token. torch's
# `log_softmax` does the subtraction at all places, along the axis of the words.

# %%
log_probs = logits.log_softmax(-1)
for b in range(2):
    for t in range(2):
        read, comes = token_ids[b, t], token_ids[b, t + 1]
        logp = log_probs[b, t, comes]
        print(f"row {b}: after {words[read]:5s} comes {words[comes]:5s} p {logp.exp():.2f}   log p {logp:.4f}")

# %% [markdown]
# Row 0 is `blue` (0.6), then the end (0.8). Row 1 is the end at once (0.2), then a padding token, which nobody wrote.
#
# ## 3. Gather picks, the mask drops
#
# For real batches you want calls instead of loops. `gather` picks along an axis. Two guests see three prices each;
# the first orders dish 2, the second dish 0. The index needs as many axes as the table, so it gets one more, and
# `squeeze` takes it away. The second guest never came: `masked_fill` writes 0 where its mask is True.

# %%
prices = torch.tensor([[3, 5, 9], [2, 4, 8]])
orders, came = torch.tensor([2, 0]), torch.tensor([1, 0]).bool()
picked = prices.gather(-1, orders[:, None]).squeeze(-1)
print(picked, picked.masked_fill(~came, 0))

# %% [markdown]
# In a batch a flag of the mask belongs to the token that is *predicted*. So it is shifted as the token ids are.

# %% [markdown]
# ### Exercise 5.1 · Shift before you gather
# ★★☆ · 8 minutes · fill in a function
#
# Put the pieces together, for a whole batch and without a loop. Entry $t$ of
# the result is `log_softmax(logits[b, t])[input_ids[b, t + 1]]` where `label_mask[b, t + 1]` is 1, and exactly 0
# elsewhere.

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
# ## 4. `get_probs` on a real reply: three tokens decide
#
# From here on the lesson uses your function, or ours if yours is not ready. First on the four words: a sum of
# logarithms is the logarithm of a product, and $0.6 \times 0.8 = 0.48$.

# %%
get_probs = check.yours_or_ours("get_probs")
toy = get_probs(logits, token_ids, mask)
print(toy, "\nprobability of each reply:", toy.sum(-1).exp())

# %% [markdown]
# Now the course's model and the eight replies of lesson 04. How does it score the first, token by token?

# %%
tokenizer, reference = load_tokenizer(), load_reference_model().requires_grad_(False)
batch = KTOPaddingCollator(tokenizer)([tokenize_feedback(row, tokenizer) for row in load_eight_rows()])
ids, label_mask = batch["input_ids"], batch["label_mask"]
logits = reference(input_ids=ids, attention_mask=batch["attention_mask"], use_cache=False).logits
logps = get_probs(logits, ids, label_mask)
print("logits", tuple(logits.shape), "-> logps", tuple(logps.shape))

start = int(label_mask[0].argmax())
end = start + int(label_mask[0].sum())
texts = [tokenizer.decode([i]) for i in ids[0, start - 1 : end]]
for text, logp in zip(texts[1:], logps[0, start - 1 : end - 1], strict=True):
    print(f"{text!r:10s} log p {logp:7.4f}   p {logp.exp():.4f}")

# %% [markdown] slide=["Three tokens"]
# Three tokens carry a decision: how to open, which colour, which ending. The others cost almost nothing.
#
# The shift as a picture: each line is a place, named by the token just read (`:` ends the prompt), each column a
# token of the reply.

# %% slide=["figure"]
pictures.shift(logits[0, start - 1 : end - 1].log_softmax(-1)[:, ids[0, start:end]], texts)

# %% [markdown] slide=["By the chain", "$$", "Nothing is divided"]
# ## 5. Sum, not mean: a reply is one event
#
# This token, then that one, then the end. By the chain rule of probability
#
# $$\log \pi(y \mid x) = \sum_t \log \pi(y_t \mid x, y_{<t}).$$
#
# So a model and a batch give one number per reply. Nothing is divided by the length. (With `"kl_"` as prefix the
# function scores the mismatched rows of lesson 04.)

# %%
def sequence_logps(model, batch, prefix=""):
    ids, attention, mask = (batch[prefix + field] for field in ("input_ids", "attention_mask", "label_mask"))
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits
    return get_probs(logits, ids, mask).sum(-1)


for row, logp, n in zip(load_eight_rows(), sequence_logps(reference, batch), label_mask.sum(-1), strict=True):
    print(f"{logp:9.4f} nats   {n:2d} tokens  {row['completion']}")

# %% [markdown]
# The homework reply and `No.` are unlike anything the model was trained on; hence the very low numbers, even for the
# short one.
#
# Is the sum really the logarithm of a probability? In this small world you can test that. It knows 48 replies to a
# question, the **listed replies**. Together their probabilities cannot exceed 1.

# %% slide=["text"]
question = trained_questions()[0]
listed = [{"prompt": question.prompt, "completion": r.text, "label": r.thumbs_up} for r in replies(question)]
listed_batch = pad_rows([tokenize_feedback(row, tokenizer) for row in listed], tokenizer.pad_token_id)
sums = sequence_logps(reference, listed_batch)
means = sums / listed_batch["label_mask"].sum(-1)
print(f"sum : the 48 probabilities add up to {sums.exp().sum():.4f}")
print(f"mean: the 48 'probabilities' add up to {means.exp().sum():.4f}")

# %% [markdown]
# The little that is missing to 1 lies on other texts. The mean is no log-probability of anything.

# %% [markdown]
# ### Exercise 5.2 · Three tokens, one number
# ★☆☆ · 3 minutes · predict a number
#
# A reply has two tokens, with probabilities 0.5 and 0.8. Then it ends; the end token had probability 0.25. What is
# the log-probability of the reply, in nats?

# %% exercise="reply_logp"
answer = ...  # a number
### BEGIN SOLUTION
answer = math.log(0.5) + math.log(0.8) + math.log(0.25)
### END SOLUTION

# %% check="reply_logp" points=1
check.reply_logp(answer)

# %% [markdown]
# ## 6. `cross_entropy` agrees
#
# You may know this number under another name: `cross_entropy` is minus the log-probability of the targets. With
# `reduction="sum"` it must be ours with the other sign. (Its default is the mean, where many averages come from.)

# %%
cross_entropy = F.cross_entropy(logits[0, start - 1 : end - 1], ids[0, start:end], reduction="sum")
print(f"cross entropy {cross_entropy:.4f}   log-probability {logps[0].sum():.4f}")

# %% [markdown]
# ## 7. The log-ratio starts at exactly 0
#
# KTO compares the model in training, the **policy** $\pi$, with its frozen copy, the **reference**. Their
# **log-ratio** is
#
# $$r = \log\pi(y \mid x) - \log\pi_\mathrm{ref}(y \mid x).$$
#
# Above 0, the policy likes the reply better than the reference does. Before the first step both are the same, number
# for number. So you know $r$ in advance, and can test your code with it.

# %%
policy = load_reference_model()
copied = reference_of(policy)  # a deep copy, frozen
with torch.no_grad():
    r = sequence_logps(policy, batch) - sequence_logps(copied, batch)
print("r", r, "\nall exactly 0:", bool((r == 0).all()))

# %% [markdown]
# Two things break this check, each in its own way. **Dropout** switches off random parts of a model in training: the
# policy that you score is not the one that you copied. **An alias**, `reference = policy`, is a second name and no
# second model. It passes the check, and goes on passing it after the policy has changed. Below, a change of one
# matrix stands in for training.

# %%
with_dropout = load_reference_model().train()
for layer in with_dropout.model.layers:
    layer.self_attn.attention_dropout = 0.1
alias = policy
with torch.no_grad():
    noisy = sequence_logps(with_dropout, batch) - sequence_logps(copied, batch)
    print("dropout, nothing trained: all exactly 0:", bool((noisy == 0).all()))
    policy.lm_head.weight.mul_(1.1)
    for name, other in (("copy", copied), ("alias", alias)):
        print(f"changed, against the {name}:", sequence_logps(policy, batch) - sequence_logps(other, batch))

# %% [markdown]
# So look twice: before the first step $r$ must be 0 everywhere, after it must not.
#
# ## 8. What goes wrong: no shift
#
# Each token is scored with the logits at its own place. Take the listed replies; the first is the one that you have
# seen token by token.

# %% slide=["text 0:2"]
ids, mask, attention = (listed_batch[field] for field in ("input_ids", "label_mask", "attention_mask"))
log_probs = reference(input_ids=ids, attention_mask=attention).logits.log_softmax(-1)
unshifted = (log_probs.gather(-1, ids[..., None]).squeeze(-1) * mask).sum(-1)
print(f"first reply:        shifted {sums[0]:.2f}, unshifted {unshifted[0]:.2f} nats")
print(f"all 48 add up to:   shifted {sums.exp().sum():.2f}, unshifted {unshifted.exp().sum():.0e}")
reveal("unshifted_score", "c")

# %% [markdown]
# 92 nats too low: a factor of $10^{40}$. In the picture of section 4 these are the cells *below* the bright diagonal:
# a model hardly ever repeats the token it has just read.
#
# The check of section 7 does not see it: policy and copy still agree. The check of section 5 does: 48 replies that
# are nearly all the model ever says cannot add up to nothing.
#
# From the next lesson on both functions come from `kto_utils.logprobs`: the same mathematics plus error checks.
#
# ## Recap
#
# 1. The logits at place $t$ predict token $t+1$: drop the last logits and the first token id.
# 2. Log-softmax is a subtraction; gather picks the token that came.
# 3. Completion tokens count, the end token with them; prompt and padding get an *assigned* 0.
# 4. A reply's number is the sum over its tokens, in nats. The listed replies add up to at most 1.
# 5. The log-ratio is exactly 0 before the first step, and must not stay so.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions length_normalised first_token_logits sequence_logratio}}

# %% [markdown]
# ## Sources
#
# - Log-ratio of whole replies: KTO, arXiv 2402.01306 v1, Eq. 7 (there with $\beta$ inside), and v4, Eq. 8.
# - Sum instead of mean: ContextualAI/HALOs (`average_log_prob=False`), TRL 1.16 (`.sum(-1)`).
#
# Next: [06 · The KTO loss](06_kto_loss.ipynb) turns log-ratios into a loss. Deeper:
# [05b · Numbers that break](deeper/05b_numbers_that_break.ipynb).
