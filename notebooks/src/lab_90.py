# %% [markdown]
# # Lab · KTO in ninety minutes
#
# Write the three functions of KTO and the loss of DPO, train a small chat model with your KTO, and read an ill log.

# %% [markdown]
# **For** pairs who know PyTorch and saw the talk; nothing of KTO is needed beyond it. **Time** {{times}}; 80
# minutes in all. **Points** 20; they stand at the tasks. A check answers a wrong attempt with a hint, and later
# with our solution: take it and go on. (Where this lab is graded, checks are silent.)
#
# $\log\pi(y|x)$ is the log-probability of a whole reply $y$ to a prompt $x$, in **nats**. The **policy** is trained,
# the **reference** is a frozen copy of it. $r = \log\pi(y|x) - \log\pi_{ref}(y|x)$ is the **log-ratio**.

# %%
import math

import torch
import torch.nn.functional as F

from kto_course.checks import check
from kto_utils import evaluate, world
from kto_utils.collator import KTOPaddingCollator
from kto_utils.data import tokenize_feedback
from kto_utils.model import load_reference_model, reference_of
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import Batches

# %% [markdown]
# ## 1. From logits to the log-probability of a reply
#
# A tiny world with four words. The logits at a place are the model's guess *after reading* that token. So place 0
# predicts token 1, place 1 predicts token 2, and nothing predicts token 0.

# %%
words = ["<pad>", "<eos>", "blue", "red"]
input_ids = torch.tensor([[3, 2, 1]])  # "red", then the reply: "blue", end
label_mask = torch.tensor([[0, 1, 1]])  # 1: scored, i.e. the reply with its end token
logits = torch.tensor([[[1.0, 1.0, 6.0, 2.0], [1.0, 8.0, 0.5, 0.5], [5.0, 2.0, 2.0, 1.0]]]).log()
for t in range(2):
    p = logits[0, t].softmax(-1)[input_ids[0, t + 1]]
    print(f"after {words[input_ids[0, t]]:5s} comes {words[input_ids[0, t + 1]]:5s} p {p:.2f}   log p {p.log():.4f}")

# %% [markdown]
# ### Task 1 · `get_probs` (5 points)
# ★★☆ · 14 minutes · fill in a function
#
# For a whole batch, without a loop: entry $t$ of the result is `log_softmax(logits[b, t])[input_ids[b, t + 1]]` where
# `label_mask[b, t + 1]` is 1, and exactly 0 elsewhere. You need three steps: **shift** (drop the last logits, the first
# id, the first flag), **gather** along the words, **mask**.

# %% exercise="get_probs"
# the cell of exercise get_probs

# %% check="get_probs" points=5
check.get_probs(my_get_probs)

# %% [markdown]
# A reply is one event, and chances multiply: its log-probability is the **sum** over its tokens.

# %%
get_probs = check.yours_or_ours("get_probs")


def sequence_logps(model, batch, prefix=""):
    """Log-probability of each row's reply, (B,); prefix "kl_" scores the borrowed replies of section 2."""
    ids, attention, mask = (batch[prefix + name] for name in ("input_ids", "attention_mask", "label_mask"))
    return get_probs(model(input_ids=ids, attention_mask=attention).logits, ids, mask).sum(-1)


print(f"log p of the reply: {get_probs(logits, input_ids, label_mask).sum():.4f}, log(0.6 * 0.8) {math.log(0.48):.4f}")

# %% [markdown]
# ### Question A (1 point)
# ★☆☆ · 2 minutes · predict a number
#
# Another reply has two tokens, with probabilities 0.5 and 0.8. Then it ends; the end token had probability 0.25. What
# is the log-probability of the reply, in nats?

# %% exercise="reply_logp"
# the cell of exercise reply_logp

# %% check="reply_logp" points=1
check.reply_logp(answer)

# %% [markdown]
# ## 2. The reference point
#
# People judge an outcome against what they expected. KTO takes as expectation the KL between policy and reference,
# and estimates it in the batch: every prompt borrows **another row's** reply. Of these replies $y_j$ it takes the mean
# log-ratio; clamps it at 0, as a KL is never negative; and lets no gradient through, so that a row is pushed by its own
# thumb alone.
#
# $$z_0 = \max\Big(0,\ \frac1B\sum_{i=1}^{B} \big(\log\pi(y_j|x_i) - \log\pi_{\text{ref}}(y_j|x_i)\big)\Big),\quad j
# \ne i$$

# %% [markdown]
# ### Task 2 · z0 (3 points)
# ★★☆ · 8 minutes · fill in a function
#
# Both arguments hold log-probabilities of the borrowed replies, one per row: under the policy, then under the
# reference. Your result is a tensor through which no gradient flows.

# %% exercise="reference_point"
# the cell of exercise reference_point

# %% check="reference_point" points=3
check.reference_point(my_reference_point)

# %% [markdown]
# ## 3. The KTO loss
#
# A thumbs-up row wants $r$ above $z_0$, a thumbs-down row below. With a sign $s$ ($+1$ up, $-1$ down) and a weight $w$:
#
# $$\text{loss}_i = w_i\,\big(1 - \sigma(s_i\,\beta\,(r_i - z_0))\big)$$
#
# The label picks the branch, not the side of $z_0$ on which the row lies.

# %% [markdown]
# ### Task 3 · `kto_loss` (4 points)
# ★★☆ · 14 minutes · fill in a function
#
# Write it for a batch: $r$ = `policy_logps - reference_logps`; where `label` is True, $w$ is `desirable_weight`, where
# False `undesirable_weight`. One trap: in float32 `1 - sigmoid(u)` is exactly 0 from about $u = 16.64$ on. Write
# $1 - \sigma(u)$ as $\sigma(-u)$: tiny, but not 0.

# %% exercise="kto_loss"
# the cell of exercise kto_loss

# %% check="kto_loss" points=4
check.kto_loss(my_kto_loss)

# %% [markdown]
# Before the first step policy and reference agree, so $r = 0$ and $z_0 = 0$. **What is the loss of a row with weight
# 1?** On paper, then run the cell. It is the first check of every run that you will ever start.

# %%
reference_point, kto_loss = check.yours_or_ours("reference_point"), check.yours_or_ours("kto_loss")
zeros = torch.zeros(2)
print(kto_loss(zeros, zeros, torch.tensor([True, False]), reference_point(zeros, zeros)))

# %% [markdown]
# ### Question B (1 point)
# ★☆☆ · 3 minutes · predict a number
#
# $\beta r$ is the row's **reward** in a log. The reference gives a liked reply the probability 0.02. Beta is 0.1. What
# is the highest reward that this reply can reach, however long you train?

# %% exercise="reward_ceiling"
# the cell of exercise reward_ceiling

# %% check="reward_ceiling" points=1
check.reward_ceiling(answer)

# %% [markdown]
# ## 4. DPO, for comparison
#
# DPO needs pairs: of two replies to one prompt, one was chosen. Its loss looks at the difference of their rewards only:
#
# $$L = -\log \sigma\Big(\beta\,(r_{chosen} - r_{rejected})\Big)$$

# %% [markdown]
# ### Task 4 · `dpo_loss` (3 points)
# ★★☆ · 8 minutes · fill in a function
#
# You get four log-probabilities of each pair, summed over tokens. The loss must stay finite for hopeless pairs: a
# margin of -1990 nats costs 199 at beta 0.1.

# %% exercise="dpo_loss"
# the cell of exercise dpo_loss

# %% check="dpo_loss" points=3
check.dpo_loss(my_dpo_loss)

# %% [markdown]
# ### Question C (1 point)
# ★★☆ · 4 minutes · predict a number
#
# A log says about one pair, at beta 0.5: the DPO loss is 0.3133, well below ln 2. But the log-ratio of the *chosen*
# reply is -9 nats: it has become $e^9$ times less likely. What is the log-ratio of the rejected reply, in nats? (You
# may use that $0.3133 = -\log \sigma(1)$.)

# %% exercise="rejected_fell"
# the cell of exercise rejected_fell

# %% check="rejected_fell" points=1
check.rejected_fell(answer)

# %% [markdown]
# ## 5. One run
#
# A small chat model answers 24 questions, 25 times each, and a judge gives each reply a thumb: up if it is polite
# *and* right. Few are, so thumbs up get a larger weight: both kinds weigh the same in total.

# %%
questions, tokenizer = world.trained_questions(), load_tokenizer()
reference = reference_of(load_reference_model())
rows = evaluate.collect_feedback(reference, questions, n=25, seed=0)
for row in rows[:3]:
    print("up  " if row["label"] else "down", row["prompt"] + row["completion"])
n_up = sum(row["label"] for row in rows)
weight_up = (len(rows) - n_up) / n_up
print(f"{n_up} up, {len(rows) - n_up} down; desirable_weight {weight_up:.3f}, undesirable_weight 1")

# %% [markdown]
# Two numbers on paper before you run the next cell (half a minute): **the thumbs-up rate after 60 steps**, and **the
# sign of the thumbs-down reward**. `get_probs`, `reference_point` and `kto_loss` in it are yours.

# %%
policy, examples = load_reference_model(), [tokenize_feedback(row, tokenizer) for row in rows]
optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3, weight_decay=0.0)
collate, batches = KTOPaddingCollator(tokenizer), Batches(len(rows), 16, 0)

print("step    loss      kl  reward up  reward down")
for step in range(1, 61):
    batch = collate([examples[i] for i in batches.draw()])
    logps = sequence_logps(policy, batch)
    with torch.no_grad():
        reference_logps = sequence_logps(reference, batch)
        z0 = reference_point(sequence_logps(policy, batch, "kl_"), sequence_logps(reference, batch, "kl_"))
    label = batch["label"]
    loss = kto_loss(logps, reference_logps, label, z0, beta=0.1, desirable_weight=weight_up).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step()
    if step in (1, 2, 5, 10, 20, 40, 60):
        reward = 0.1 * (logps - reference_logps).detach()
        up, down = reward[label].mean(), reward[~label].mean()
        print(f"{step:4d} {loss.item():7.4f} {float(z0):7.4f} {up:10.4f} {down:12.4f}")

# %%
for name, model in (("before", reference), ("after", policy)):
    judged = evaluate.collect_feedback(model, questions, n=10, seed=1)
    share = sum(row["label"] for row in judged) / len(judged)
    error = (share * (1 - share) / len(judged)) ** 0.5
    print(f"{name:7s} thumbs up {share:.2f} +-{error:.2f}    {judged[0]['prompt'] + judged[0]['completion']}")

# %% [markdown]
# Thumbs-up rows hardly rise, since no reply can become likelier than certain. Thumbs-down rows fall and fall. And `kl`
# is 0 after a few steps: the borrowed replies became less likely, their mean is below 0, and the clamp cuts it off.

# %% [markdown]
# ## 6. A log from the museum
#
# ### Task 5 · A quiet log (2 points)
# ★★☆ · 6 minutes · read a log and choose a cause
#
# Another run, with a fault in it. Go through its log column by column. Which of these happened?
#
# - a) the learning rate is so small that the policy has not moved
# - b) all rows are saturated: their gradient is under a tenth of its maximum
# - c) the reference is the policy itself, so it moves along
# - d) the reference is another model than the one the policy started from

# %% tags=["given"]
from kto_course.checks.lesson_07 import mystery_log

print("step       loss         kl  reward up       down  saturated  grad_norm")
for row in mystery_log(steps=(1, 2, 5, 10, 20, 60, 100, 200)):
    names = ("loss", "kl", "reward_desirable", "reward_undesirable", "saturated", "grad_norm")
    print(f"{row['step']:4d} " + " ".join(f"{row[name]:10.4f}" for name in names))

# %% exercise="mystery_log_cause"
# the cell of exercise mystery_log_cause

# %% check="mystery_log_cause" points=2
check.mystery_log_cause(answer)

# %% [markdown]
# ## Ahead of time?
#
# Train with both weights 1: write `desirable_weight=1.0` above and run section 5 again. The loss falls lower. Is the
# model better? Lesson [07](07_train.ipynb) has the answer; lesson [08](08_kto_vs_dpo.ipynb) compares KTO with DPO.
