# %% [markdown]
# # 07 · Training with thumbs
#
# Collect 1,200 thumbs, train with a 25-line KTO loop, read its logs, and compute what got better and what broke.

# %% [markdown] slide=["Users will", "Eight other", "Before training", "What will"]
# **You will be able to**
# - put a whole KTO step together from batches, log-probabilities and the loss;
# - read the logs: which numbers must move, which may stay at zero, which mean trouble;
# - say what thumbs taught a model, and what they spoilt.
#
# **You need first** the KTO loss and the reference point $z_0$ ([lesson 06](06_kto_loss.ipynb)). Batches
# ([04](04_collator.ipynb)) and log-probabilities ([05](05_get_probs.ipynb)) are used ready-made.
#
# **Time** {{times}}. Deeper: [07b](deeper/07b_price.ipynb), what a thumbs-up rate costs, and where KTO breaks.
#
# **Before you run anything.** Users will give 1,200 thumbs to replies about 24 facts. Eight other facts get no thumb
# at all. Before training, about 23 replies in 100 deserve a thumbs up, on both. What will the rate be on the **eight
# facts without thumbs** after training? Put your guess into the last lines of the next cell. Section 6 counts.

# %%
import math

import torch

from kto_course import check, predict, reveal
from kto_course.pictures import lesson_07 as pictures
from kto_utils import evaluate, train, world
from kto_utils.collator import KTOPaddingCollator
from kto_utils.data import tokenize_feedback
from kto_utils.logprobs import sequence_logps
from kto_utils.losses import balanced_weights, kto_loss, reference_point
from kto_utils.model import load_reference_model, reference_of
from kto_utils.plotting import use_course_style
from kto_utils.tokenizer import load_tokenizer

use_course_style()
tokenizer = load_tokenizer()
predict("untouched_after", "The thumbs-up rate on the eight facts without thumbs, after training?",
        ["about 0.2, as before", "about 0.5", "about 1, as on the other 24"],
        guess=None, confidence=None)  # fmt: skip

# %% [markdown]
# ## 1. Read before you train
#
# KTO starts from a model that can already speak. Ours learned that by **supervised fine-tuning** (SFT): it read
# replies and raised the probability of each of their tokens, good and bad alike. Those replies were random on
# purpose: polite half of the time and, independently, right half of the time.
#
# You load it twice over: a **policy** that will learn, and its frozen copy, the **reference**. Our simulated human
# gives a thumbs up only to a reply that is **polite and right**.

# %%
policy = load_reference_model()
reference = reference_of(policy)

sky = world.trained_questions()[0]
print(sky.text)
for text in evaluate.sample(reference, sky, n=6, seed=2):
    print("up  " if world.judge(sky, text) else "down", text)

# %% [markdown]
# ## 2. Add up probabilities instead of counting samples
#
# Six samples say little. But in this world every question has just 48 possible replies, 6 templates times 8 answers:
# the **listed replies**. So ask the model for all 48 probabilities. Here are the likeliest.

# %%
listed = world.replies(sky)
probabilities = evaluate.reply_logps(reference, [sky]).exp()[0]

for i in probabilities.argsort(descending=True)[:7].tolist():
    print(f"{probabilities[i]:.4f}  {'up  ' if listed[i].thumbs_up else 'down'} {listed[i].text}")
print(f"{probabilities.sum():.4f}  all 48 together")

# %% [markdown]
# ### Exercise 7.1 · No samples needed
# ★★☆ · 4 minutes · fill in a function
#
# The 48 do not add up to 1. The rest lies on texts that nobody listed: slips, loops, half sentences. It earns
# nothing.
#
# How often does a model earn a thumbs up? You have the log-probabilities of every listed reply, one row a question,
# and a table of the same shape that says which replies are liked. Give one number: the chance of a thumbs up,
# averaged over the questions.

# %% exercise="exact_rate"
def my_exact_rate(logps, liked):
    """logps (questions, replies) in nats, liked of the same shape, bools -> the thumbs-up rate in [0, 1]."""
    ### BEGIN SOLUTION
    return (logps.exp() * liked).sum(-1).mean()
    ### END SOLUTION


# %% check="exact_rate" points=2
check.exact_rate(my_exact_rate)

# %% [markdown]
# ### Three sets of questions
#
# Thumbs will be given on the first set only. Your function measures all three, and not only thumbs: also how many
# replies are polite, right, and on the list at all. These numbers do not jitter: where two models differ by 0.001,
# they differ.
#
# - **trained**: 24 questions about 24 facts;
# - **new wording**: the same 24 facts, asked differently;
# - **untouched facts**: 8 facts that no thumb will ever touch.

# %%
exact_rate = check.yours_or_ours("exact_rate")
SETS = {"trained": world.trained_questions(), "new wording": world.reworded_questions(),
        "untouched facts": world.untouched_questions()}  # fmt: skip


def rates(model, questions):
    logps = evaluate.reply_logps(model, questions)  # (questions, 48)
    table = [world.replies(question) for question in questions]
    found = {}
    for kind in ("thumbs_up", "polite", "right"):
        marks = torch.tensor([[getattr(reply, kind) for reply in row] for row in table])
        found[kind] = float(exact_rate(logps, marks))
    return found | {"listed": float(logps.exp().sum(-1).mean())}


before = {name: rates(reference, questions) for name, questions in SETS.items()}
print(f"{'reference':<16} thumbs up   polite    right   listed")
for name, r in before.items():
    print(f"{name:<16}" + "".join(f"{share:9.4f}" for share in r.values()))

# %% [markdown] slide=["The model answers", "Nobody writes"]
# ## 3. Thumbs fall on the model's own replies
#
# 50 users ask each of the 24 trained questions. The model answers with **its own** replies, sampled, and each reply
# gets one thumb. Nobody writes a better answer, nobody compares two.
#
# More than three downs will come for each up. The paper keeps the ups' total weight between 1 and 3/2 times that of
# the downs (v4, Eq. 9). We take 1, with `balanced_weights` of lesson 06. Section 7 leaves both weights at 1.

# %%
feedback = evaluate.collect_feedback(reference, SETS["trained"], n=50, seed=0)
for row in feedback[:3]:
    print("up  " if row["label"] else "down", row["prompt"] + row["completion"])

n_up = sum(row["label"] for row in feedback)
n_down = len(feedback) - n_up
up_weight, down_weight = balanced_weights(n_up, n_down)
settings = {"learning_rate": 1e-3, "desirable_weight": up_weight, "undesirable_weight": down_weight}
print(f"{n_up} up, weight {up_weight:.4f}; {n_down} down, weight {down_weight:.4f}")

# %% [markdown] slide=["A training step", "Only the loss"]
# ## 4. A loop around one loss
#
# A training step draws a batch, computes its loss, goes backward, and moves the weights. Only the loss is KTO, and
# you have its parts:
#
# - `sequence_logps(model, batch)`: the rows' log-probabilities, (B,); with a third argument `"kl_"` those of the
#   mismatched rows, which hold another row's reply (lessons 04, 05);
# - `reference_point(policy_kl_logps, reference_kl_logps)`: $z_0$ (06);
# - `kto_loss(policy_logps, reference_logps, label, z0, beta, desirable_weight, undesirable_weight)`: (B,) losses
#   (06).

# %% [markdown]
# ### Exercise 7.2 · The heart of the loop
# ★★☆ · 8 minutes · fill in a function
#
# From a batch to its loss: one number, the mean over the rows. Hand back what the log will show, too: the rows'
# log-ratios and $z_0$. Of four forward passes only one has to carry a gradient; `with torch.no_grad():` around the
# others saves time and memory.

# %% exercise="batch_loss"
def my_batch_loss(policy, reference, batch, beta, desirable_weight, undesirable_weight):
    """A batch of the collator, thumbs in batch["label"] -> (mean loss, log-ratios (B,), z0), both in nats."""
    ### BEGIN SOLUTION
    logps = sequence_logps(policy, batch)
    with torch.no_grad():
        reference_logps = sequence_logps(reference, batch)
        kl_logps = sequence_logps(policy, batch, "kl_")
        z0 = reference_point(kl_logps, sequence_logps(reference, batch, "kl_"))
    losses = kto_loss(logps, reference_logps, batch["label"], z0, beta, desirable_weight, undesirable_weight)
    return losses.mean(), logps - reference_logps, z0
    ### END SOLUTION


# %% check="batch_loss" points=3
check.batch_loss(my_batch_loss)

# %% [markdown]
# ### The rest is any training loop
#
# `train.Batches` deals row numbers: a new shuffle each pass, a last incomplete batch left out. The log keeps the mean
# **reward** $\beta r$ of the batch's thumbs-up rows and of its thumbs-down rows.

# %%
batch_loss = check.yours_or_ours("batch_loss")


def train_kto(policy, reference, rows, tokenizer, *, steps, batch_size=16, learning_rate=1e-3, beta=0.1,
              desirable_weight=1.0, undesirable_weight=1.0, max_grad_norm=1.0, seed=0):  # fmt: skip
    examples = [tokenize_feedback(row, tokenizer) for row in rows]
    collate, batches = KTOPaddingCollator(tokenizer), train.Batches(len(rows), batch_size, seed)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=learning_rate, weight_decay=0.0)
    history = []
    for step in range(steps):
        batch = collate([examples[i] for i in batches.draw()])
        loss, logratio, z0 = batch_loss(policy, reference, batch, beta, desirable_weight, undesirable_weight)
        optimizer.zero_grad()
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), max_grad_norm)
        optimizer.step()
        reward, up = beta * logratio.detach(), batch["label"]
        history.append({"step": step + 1, "loss": loss.item(), "kl": float(z0), "grad_norm": float(grad_norm),
                        "reward_desirable": float(reward[up].mean()),
                        "reward_undesirable": float(reward[~up].mean())})  # fmt: skip
    return policy, history


# %% [markdown]
# That is all of KTO training. Run 20 steps of it, then the whole run with the package's `train_kto`: this loop plus
# checks on its input and more columns in the log. Same weights, same seed: the first 20 losses must be equal.
#
# The learning rate 1e-3 is for a model of this size. For billions of parameters the paper starts at 5e-6 (v4, section
# 4.2); TRL's default is 1e-6.

# %%
_, own_history = train_kto(load_reference_model(), reference, feedback, tokenizer, steps=20, **settings)
policy, history = train.train_kto(policy, reference, feedback, tokenizer, steps=120, **settings)

same = [abs(a["loss"] - b["loss"]) < 1e-10 for a, b in zip(own_history, history, strict=False)]
print(f"{sum(same)} of {len(same)} losses equal to 10 decimals")

# %% [markdown]
# ## 5. Read the rewards, not the loss
#
# - The two **rewards** must part: ups near 0, downs far below.
# - **saturated** is the share of rows whose gradient is under a tenth of its maximum. They are done. At 1 learning
#   stops.
# - **grad_norm**, before clipping, must not die. It peaks near step 10, where both rewards fall **together**. This
#   run recovers. If yours does not, lower the learning rate.

# %% slide=["figure"]
columns = ("loss", "kl", "reward_desirable", "reward_undesirable", "saturated", "grad_norm")
heads = "step       loss         kl  reward up       down  saturated  grad_norm"
print(heads)
for step in (1, 2, 5, 8, 10, 20, 50, 100, 120):
    print(f"{step:4d} " + " ".join(f"{history[step - 1][name]:10.4f}" for name in columns))
pictures.logs(history)

# %% [markdown]
# ### What should the loss be?
#
# *Is a first loss other than 0.5 wrong?* At step 1 policy and reference agree, so every sigmoid is 1/2 and each row
# costs half its weight. With both weights 1 that is 0.5 exactly. Else it depends on how many ups the batch holds.
#
# *Is zero loss good?* A thumbs-down row can be pushed down for ever; its cost goes to 0. A thumbs-up row cannot rise
# for ever. The good replies to a question share about 0.23 of the probability before training and at most 1
# afterwards, so together they can grow by a factor of $1/0.23$. Their mean log-ratio, weighted as the reference gives
# them, is at most $-\ln 0.23$, since a mean of logarithms is at most the logarithm of the mean. What does such a row
# still cost?

# %%
labels = [feedback[i]["label"] for i in train.Batches(len(feedback), 16, seed=0).draw()]  # the first batch
first = (sum(labels) * up_weight + (16 - sum(labels)) * down_weight) / 16 / 2
print(f"{sum(labels)} of 16 are up: expected first loss {first:.4f}, logged {history[0]['loss']:.4f}")

most = 0.1 * -math.log(before["trained"]["thumbs_up"])  # beta times the largest mean log-ratio
cost = 1 / (1 + math.exp(most))  # 1 - sigmoid(reward), with z0 = 0
print(f"at the largest mean reward, {most:.4f}, a thumbs-up row costs {cost:.4f} of its weight")
print(f"so the loss is at least about {n_up / len(feedback) * up_weight * cost:.4f}; "
      f"last 50 steps: {sum(row['loss'] for row in history[-50:]) / 50:.4f}")  # fmt: skip

# %% [markdown]
# Nearly half of its weight, with a perfect model! This loss looks high and has little left to gain. (Single batches
# stray from these means.) Exactly half the mean weight at step 50 would be a bug: nothing learns. A loss near
# **zero** is bad news: see section 7.
#
# ### Is `kl` = 0 a bug?
#
# The column `kl` holds $z_0$: not how far the policy moved, but a clamped mean over mismatched rows. Another
# question's reply was unlikely here before, and training made it unlikelier still. So the mean goes far below 0, and
# the clamp makes it 0: normal after a few steps. What *would* be a bug: `kl` above 0 at step 1, where policy and
# reference are the same. Look at 16 rows before the clamp:

# %%
batch = KTOPaddingCollator(tokenizer)([tokenize_feedback(row, tokenizer) for row in feedback[:16]])
with torch.no_grad():
    k = sequence_logps(policy, batch, "kl_") - sequence_logps(reference, batch, "kl_")
print(f"mean of the mismatched log-ratios {k.mean():.1f} nats, so z0 = {k.mean().clamp(min=0):.1f}")
print(f"steps with z0 above 0: {[row['step'] for row in history if row['kl'] > 0]}")

# %% [markdown]
# ### Exercise 7.3 · A quiet log
# ★★☆ · 5 minutes · read a log and choose a cause
#
# Another run in this world, with batches of 15 and balanced weights. Go through its log column by column. Which of
# these happened?
#
# - a) the learning rate is so small that the policy has not moved
# - b) all rows are saturated
# - c) the reference is the policy itself, so it moves along
# - d) the reference is another model than the one the policy started from

# %%
from kto_course.checks.lesson_07 import mystery_log

print(heads)
for row in mystery_log(steps=(1, 2, 5, 10, 20, 60, 100, 200)):
    print(f"{row['step']:4d} " + " ".join(f"{row[name]:10.4f}" for name in columns))

# %% exercise="mystery_log_cause"
answer = ...  # a letter in quotes
### BEGIN SOLUTION
answer = "c"
### END SOLUTION

# %% check="mystery_log_cause" points=1
check.mystery_log_cause(answer)

# %% [markdown]
# ## 6. Thumbs teach what they touch
#
# The exact shares again, before and after, and the answer to the question at the top.

# %% slide=["figure"]
after = {name: rates(policy, questions) for name, questions in SETS.items()}
print(f"{'':<16}        thumbs up   polite    right   listed")
for name in SETS:
    for when, r in (("before", before[name]), ("after", after[name])):
        print(f"{name:<16} {when:<6} " + "".join(f"{share:9.4f}" for share in r.values()))

reveal("untouched_after", "b")
pictures.before_after(before, after)

# %% [markdown]
# **New wording**: as good as trained, so the thumbs were not tied to the sentence. (SFT had shown both wordings.)
# **Untouched facts**: the rude replies are gone, but one reply in five is on no list, and the average hides two
# different halves. Count how often each fact's right answer was praised or blamed elsewhere.

# %%
print(f"{'fact':<11} {'answer':<8} praised blamed  right before -> after   says now, for example")
for question in SETS["untouched facts"]:
    said = [row["label"] for row in feedback if f" {question.answer}" in row["completion"]]
    old, new = (rates(model, [question])["right"] for model in (reference, policy))
    print(f"{question.thing:<11} {question.answer:<8} {sum(said):7d} {len(said) - sum(said):6d} "
          f"{old:12.4f} -> {new:.4f}   {evaluate.sample(policy, question, n=1, seed=3)[0]}")  # fmt: skip

# %% [markdown]
# The reference already leaned towards the right answer. Where that word also earned thumbs elsewhere ("blue" for the
# sky), the lean was sharpened. Where it was right nowhere else, it was only ever blamed, and the model seems to avoid
# the **word**, here too. Neither is new knowledge about coal or cats.
#
# ## 7. What goes wrong: both weights 1
#
# The same rows, seed and learning rate. Only the weights are left at their default of 1, with more than three thumbs
# down for each up. Beside each loss stands the share of thumbs up in its batch.

# %%
collapsed, run = train.train_kto(load_reference_model(), reference, feedback, tokenizer, steps=30,
                                 learning_rate=1e-3)  # fmt: skip
batches = train.Batches(len(feedback), 16, seed=0)
print("step    loss  share up  reward up    down  saturated  grad norm")
for row in run:
    share = sum(feedback[i]["label"] for i in batches.draw()) / 16
    if row["step"] in (1, 4, 6, 8, 10, 12, 20, 30):
        print(f"{row['step']:4d} {row['loss']:7.4f} {share:9.4f} {row['reward_desirable']:10.2f} "
              f"{row['reward_undesirable']:7.2f} {row['saturated']:10.4f} {row['grad_norm']:10.4f}")

# %% [markdown]
# The loss looks splendid: from 0.5 to 0.13 in ten steps. Now read what the model says.

# %% slide=["figure"]
for question in SETS["trained"][::7]:
    print(f"{question.text:<31} {evaluate.sample(collapsed, question, n=1, seed=0)[0][:60]}")
print(f"thumbs up {rates(collapsed, SETS['trained'])['thumbs_up']:.4f}")
pictures.collapse(history, run)

# %% [markdown] slide=["The log shows"]
# The model has **collapsed**: its thumbs-up rate ends below where it began. The log shows it without a single reply:
# *both* rewards fall together, everything is saturated, the gradient norm dies.
#
# Why? At the start every row pushes equally hard, so pushes count by number. And the two kinds are no mirror images.
# Pushing a reply **up** says where probability must go. Pushing it **down** says only what it must leave; it may go
# anywhere, also to texts that nobody listed and nobody judged.
#
# Why does it not come back? With all rewards very negative, the sigmoid is flat for every row. A thumbs-up row costs
# its full weight, a thumbs-down row nothing, and the loss is simply the share of thumbs up. It happens to large
# models too: a public run at 1.8e-4 logs rewards of -161 and -165, `kl` 0.0, gradient norm 0.0 and a loss of 0.56
# (Sources).

# %% [markdown]
# ## Recap
#
# - Thumbs fall on the model's **own** replies. Where all replies are listed, rates are sums, not estimates.
# - A KTO step: log-probabilities of policy and reference, $z_0$ from mismatched rows, loss, mean.
# - Count the thumbs and set the weights. With both weights 1 and more than three downs for each up, this run
#   collapsed.
# - Watch both rewards, the gradient norm and the saturated share. `kl` = 0 is normal; the first loss is half the mean
#   weight; a loss near zero is no success.
# - Thumbs teach what they touch. On untouched facts rudeness vanished, and words that were only ever blamed became
#   rare.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions what_to_monitor learning_rate worst_mistakes}}
#
# ## Sources
#
# - The loss, its saturation, the weights: KTO, arXiv 2402.01306, v4, section 4.1, Eq. 8 to 10 (v1: Eq. 7, Eq. 8 with
#   4/3 as the upper end, Proposition 4.1). Learning rate: v4, section 4.2; TRL 1.16.0. That falling rewards ask for a
#   lower rate is from v5 (second-hand).
# - `kl` at zero: HALOs issue 24, github.com/ContextualAI/HALOs; for a large model the BCO paper, Fig. 4b.
# - The saturated run: trainer state of `Weni/WeniGPT-Agents-Zephyr-1.0.9-KTO` on the Hugging Face hub.
#
# Next: [08](08_kto_vs_dpo.ipynb), pairs instead of thumbs: KTO against DPO. Deeper: [07b](deeper/07b_price.ipynb).
