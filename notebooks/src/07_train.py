# %% [markdown]
# # 07 · Training with thumbs
#
# Collect 1,200 thumbs, train with a 25-line KTO loop, read its logs, compute what got better and its price.

# %% [markdown]
# **You will be able to**
# - write the whole KTO training loop from memory;
# - read its logs: which numbers must move, which may stay at zero, which mean trouble;
# - say how far a model must move to reach a thumbs-up rate, and how far yours did move;
# - stop a run at any moment and continue it bit for bit.
#
# **You need first** the KTO loss and the reference point $z_0$ ([lesson 06](06_kto_loss.ipynb)). Batches
# and log-probabilities are used ready-made ([04](04_collator.ipynb), [05](05_get_probs.ipynb)).
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything**
#
# A model earns a thumbs up for 23 replies in 100. You may change it in any way you like, but afterwards
# every reply must earn a thumbs up. How far from the old model must the new one be **at least**, in nats of
# KL? The cell below the imports takes your guess. Section 3 computes it.

# %%
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from kto_course import check, predict, reveal
from kto_course.pictures.intervals import METHOD_STYLES
from kto_lab import recipes
from kto_lab.experiments import EXPERIMENTS
from kto_lab.findings import finding
from kto_lab.results import best_settings, load_results, select
from kto_utils import evaluate, train, world
from kto_utils.collator import KTOPaddingCollator
from kto_utils.data import tokenize_feedback
from kto_utils.evaluate import reply_logps
from kto_utils.logprobs import sequence_logps
from kto_utils.losses import balanced_weights, kto_loss, reference_point
from kto_utils.model import load_reference_model, reference_of, tiny_llama, to_float64
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, label_line, save_figure, use_course_style
from kto_utils.tokenizer import load_tokenizer

use_course_style()
torch.set_printoptions(precision=4, sci_mode=False)
tokenizer = load_tokenizer()

# %%
predict("price_of_perfection", "From 23 thumbs up in 100 to 100 in 100: the least KL, whatever the method?",
        ["0", "about 1.5 nats", "about 15 nats", "it depends on the method"],
        guess=None, confidence=None)  # fmt: skip

# %% [markdown]
# ## 1. Where the reference came from
#
# KTO starts from a model that can already speak. Ours learned that by **supervised fine-tuning** (SFT): it
# read replies and raised their probability, good and bad alike. No thumb was involved.
#
# The replies are random on purpose: polite half of the time and, independently, right half of the time.

# %%
texts = world.sft_rows(recipes.SFT_ROWS_PER_QUESTION, seed=0)

print(f"{len(texts):,} texts on {len(world.all_questions())} questions")
for row in texts[:4]:
    print(row["prompt"] + row["completion"])

# %% [markdown]
# The SFT loss is the mean over completion tokens of $-\log \pi(\text{token} \mid \text{what came before})$,
# in nats per token. An untrained model spreads its probability over $V = 512$ tokens, so expect about
# $\ln 512$ at the first step.
#
# The recipe takes 400 steps with batches of 64. Here are 30 with batches of 32, so that you see the loss
# fall.

# %%
scratch = to_float64(tiny_llama(recipes.VOCAB_SIZE, **recipes.REFERENCE_SHAPE, seed=0, dtype=torch.float64))
print(f"ln 512 = {math.log(512):.4f}")

scratch, sft_history = train.train_sft(
    scratch, texts, tokenizer, **recipes.SFT_SETTINGS | {"steps": 30, "batch_size": 32}, log_every=10
)
print(f"step 1: {sft_history[0]['loss']:.4f}")

# %% [markdown]
# What does it say after 30 steps? A young model can emit any bytes, so from here on replies are printed
# through a helper that shows unusual characters as escapes and cuts what is too long.


# %%
def visible(text: str, width: int = 70) -> str:
    """The text with every character outside printable ASCII escaped, cut to width characters."""
    escaped = text.encode("unicode_escape").decode("ascii")
    return escaped if len(escaped) <= width else escaped[: width - 3] + "..."


sky = world.trained_questions()[0]
print(sky.text)
for text in evaluate.sample(scratch, sky, n=4, seed=0):
    print("  ", visible(text))

# %% [markdown]
# Words of the right kind, sentences of no kind. More steps, with larger batches, make the shipped model;
# `kto_lab/recipes.py` holds the whole recipe. You load the result twice over: a **policy** that will
# learn, and its frozen copy, the **reference**.

# %%
policy = load_reference_model()
reference = reference_of(policy)

print(sky.text)
for text in evaluate.sample(reference, sky, n=6, seed=2):
    print("up  " if world.judge(sky, text) else "down", visible(text))

# %% [markdown]
# ## 2. Exact marks instead of samples
#
# Our simulated human gives thumbs up only to a reply that is **polite and right**. In this world a question
# has 48 possible replies: 6 templates times 8 answers. So nothing has to be estimated. Ask the model for
# all 48 probabilities.

# %%
replies = world.replies(sky)
probabilities = reply_logps(reference, [sky]).exp()[0]

for i in probabilities.argsort(descending=True)[:8].tolist():
    mark = "up  " if replies[i].thumbs_up else "down"
    print(f"{probabilities[i]:.4f}  {mark} {replies[i].text}")
print(f"{probabilities.sum():.4f}  all 48 together")

# %% [markdown]
# The 48 do not add up to 1. The rest lies on texts that nobody listed: slips, loops, half sentences. We
# report that rest and never hide it.

# %% [markdown]
# ### Exercise 7.1 · No samples needed
# ★★☆ · 5 minutes · fill in a function
#
# How often does a model earn a thumbs up? Add up the probabilities of the liked replies, question by question, and
# average over the questions. What is missing to 1 in a row earns nothing, and stays missing. Slowly:
#
# ```python
# rate = 0.0
# for i in range(len(logps)):
#     for j in range(logps.shape[1]):
#         if liked[i, j]:
#             rate += math.exp(logps[i, j]) / len(logps)
# ```

# %% exercise="exact_rate"
def my_exact_rate(logps, liked):
    """Thumbs-up rate: logps (questions, replies) in nats, liked of the same shape, bools -> one number in [0, 1]."""
    ### BEGIN SOLUTION
    return (logps.exp() * liked).sum(-1).mean()
    ### END SOLUTION


# %% check="exact_rate" points=2
check.exact_rate(my_exact_rate)

# %% [markdown]
# Three shares of a model's replies, then, and the mass that they rest on, each averaged over questions:


# %%
def rates(model, questions):
    probabilities = reply_logps(model, questions).exp()  # (questions, 48)
    table = [world.replies(question) for question in questions]

    def share(wanted):
        chosen = torch.tensor([[wanted(reply) for reply in row] for row in table])
        return float((probabilities * chosen).sum(-1).mean())

    return {
        "thumbs_up": share(lambda reply: reply.thumbs_up),
        "polite": share(lambda reply: reply.polite),
        "right": share(lambda reply: reply.right),
        "listed": float(probabilities.sum(-1).mean()),
    }


# %% [markdown]
# We ask three sets of questions. Thumbs will be given on the first only.
#
# - **trained**: 24 questions in their first wording;
# - **new wording**: the same 24 facts, asked differently;
# - **untouched facts**: 8 facts that no thumb will ever touch.

# %%
SETS = {
    "trained": world.trained_questions(),
    "new wording": world.reworded_questions(),
    "untouched facts": world.untouched_questions(),
}
before = {name: rates(reference, questions) for name, questions in SETS.items()}

print(f"{'reference':<16} thumbs up  polite   right  listed")
for name, r in before.items():
    print(f"{name:<16} {r['thumbs_up']:9.4f} {r['polite']:7.4f} {r['right']:7.4f} {r['listed']:7.4f}")

# %% [markdown]
# Half polite, about half right, 23 in 100 both: the mixture it was taught. (From the next lesson on `rates` is
# imported from `kto_utils.evaluate`: the same mathematics plus error checks. So are `least_kl` and `exact_kl`
# below.)

# %% [markdown]
# ## 3. What perfection costs
#
# Take one question with reference rate $p$. A policy that always earns a thumbs up has no mass elsewhere.
# The cheapest such policy keeps the good replies in their old proportions and multiplies each by the same
# factor $1/p$; to favour one of them would only add distance. Then
# $\log(\pi/\pi_\text{ref}) = -\ln p$ on every reply it gives, so
#
# $$\mathrm{KL}(\pi \,\|\, \pi_\text{ref}) = -\ln p .$$
#
# Over several questions: the mean of $-\ln p$.

# %%
reference_rates = evaluate.question_rates(reference)
perfection = sum(-math.log(p) for p in reference_rates) / len(reference_rates)

print(f"reference rates from {min(reference_rates):.4f} to {max(reference_rates):.4f}")
print(f"KL that perfection costs: {perfection:.4f} nats")
choices = {"a": 0.0, "b": 1.5, "c": 15.0}  # d is out: nothing above knows the method
reveal("price_of_perfection", min(choices, key=lambda letter: abs(choices[letter] - perfection)))

# %% [markdown]
# That is the answer to the question at the top: about 1.5 nats, for **any** method. Less is impossible.

# %% [markdown]
# ### Exercise 7.2 · Two questions, one price
# ★☆☆ · 3 minutes · predict a number
#
# The reference earns a thumbs up for half of its replies to one question, and for one reply in eight to another.
# Afterwards every reply to both must earn one. What does that cost at least, in nats, averaged over the two questions?

# %% exercise="least_price"
answer = ...  # a number
### BEGIN SOLUTION
answer = (-math.log(1 / 2) - math.log(1 / 8)) / 2
### END SOLUTION

# %% check="least_price" points=1
check.least_price(answer)

# %% [markdown]
# And for a rate $q$ below 1? All good replies grow by the factor $q/p$, all others shrink by
# $\frac{1-q}{1-p}$, so
#
# $$\mathrm{KL} = q\ln\frac{q}{p} + (1-q)\ln\frac{1-q}{1-p} .$$
#
# With 24 questions the rate can be spread in many ways. Which is cheapest?

# %% [markdown]
# Write the **log odds** of a rate as $\ln\frac{p}{1-p}$. (torch calls this function `logit`; it is not a
# model's logit.) The slope of the KL in $q$ is the log odds of $q$ minus those of $p$. At the cheapest point
# all questions have the same slope $t$, else moving some rate from a steep question to a flat one would save.
# So
#
# $$q = \sigma\left(\ln\frac{p}{1-p} + t\right)$$
#
# with one $t$ for all. Find the $t$ that gives the wanted average by halving an interval.


# %%
def least_kl(reference_rates, target):
    p = torch.tensor(reference_rates, dtype=torch.float64)
    if target == 1.0:
        return float(-p.log().mean())
    low, high = 0.0, 60.0
    for _ in range(200):
        t = (low + high) / 2
        q = torch.sigmoid(p.logit() + t)  # logit here: log odds of a rate
        low, high = (t, high) if q.mean() < target else (low, t)
    return float((q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean())


for target in (0.25, 0.5, 0.75, 0.9, 0.99, 1.0):
    print(f"rate {target:.2f} costs at least {least_kl(reference_rates, target):.4f} nats")

# %% [markdown]
# "At least" is a strong word, so attack it. Draw 20,000 ways to spread an average rate of 0.75 over the 24
# questions. Is one of them cheaper? And does the cheapest come close? (Within a question we rely on the proof:
# unequal factors cost more, by the log-sum inequality.)

# %%
generator = torch.Generator().manual_seed(0)
p = torch.tensor(reference_rates, dtype=torch.float64)
noise = 0.3 * torch.randn(20_000, 24, generator=generator, dtype=torch.float64)
low, high = -5.0, 9.0 + torch.zeros(20_000, 1, dtype=torch.float64)
for _ in range(50):  # one shift for each way, so that its mean rate is 0.75
    shift = (low + high) / 2
    q = torch.sigmoid(p.logit() + noise + shift)
    below = q.mean(-1, keepdim=True) < 0.75
    low, high = torch.where(below, shift, low), torch.where(below, high, shift)
kl = (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean(-1)

print(f"cheapest of 20,000: {kl.min():.4f} nats   least_kl: {least_kl(reference_rates, 0.75):.4f} nats")
assert 0 < kl.min() - least_kl(reference_rates, 0.75) < 0.01

# %% [markdown]
# ## 4. Collect thumbs
#
# Now 50 users ask each of the 24 trained questions. The model answers with **its own** replies, sampled,
# and each reply gets one thumb. Nobody writes a better answer, nobody compares two.

# %%
feedback = evaluate.collect_feedback(reference, world.trained_questions(), n=50, seed=0)

for row in feedback[:6]:
    print("up  " if row["label"] else "down", row["prompt"] + visible(row["completion"]))

# %%
n_up = sum(row["label"] for row in feedback)
n_down = len(feedback) - n_up
rate = before["trained"]["thumbs_up"]

print(f"{n_up} up, {n_down} down: a share of {n_up / len(feedback):.4f}; exact rate {rate:.4f}")
assert abs(n_up / len(feedback) - rate) < 3 * math.sqrt(rate * (1 - rate) / len(feedback))

# %% [markdown]
# For each thumb up there are more than three down. With both weights 1 the downs would push with more than
# three times the total weight; section 9 shows what came of it here. The paper's rule keeps
# $\lambda_D n_D / (\lambda_U n_U)$ between 1 and 4/3 (v1, Eq. 8); the current version reportedly allows up to
# 3/2 (Eq. 9). We take 1: equal total weight on both sides. (Lesson [00](00_start_here.ipynb) took 4/3.)

# %% [markdown]
# ### Exercise 7.3 · Weights that make it worse
# ★☆☆ · 4 minutes · repair a function
#
# The function below gives each side its share of the rows as its weight: with 1 up and 4 down, 0.2 and 0.8. Then the
# many count even more. Repair it: both sides get the same total weight, and the smaller of the two weights is 1. With
# 1 up and 4 down that is 4 and 1; with 4 up and 1 down, 1 and 4.
#
# ```python
# def broken_weights(rows):
#     n_up = sum(row["label"] for row in rows)
#     n_down = len(rows) - n_up
#     return n_up / len(rows), n_down / len(rows)
# ```

# %% exercise="count_weights"
def my_count_weights(rows):
    """(desirable weight, undesirable weight) for rows, dicts with "label" (True = thumbs up); both kinds occur."""
    ### BEGIN SOLUTION
    n_up = sum(row["label"] for row in rows)
    n_down = len(rows) - n_up
    fewer = min(n_up, n_down)
    return n_down / fewer, n_up / fewer
    ### END SOLUTION


# %% check="count_weights" points=1
check.count_weights(my_count_weights)

# %%
desirable_weight, undesirable_weight = balanced_weights(n_up, n_down)

print(f"desirable weight {desirable_weight:.4f}, undesirable weight {undesirable_weight:.4f}")
print(f"total weight up {desirable_weight * n_up:.1f}, down {undesirable_weight * n_down:.1f}")

# %% [markdown]
# ## 5. The loop
#
# Each step does five things: draw a batch, compute log-probabilities under policy and reference, turn them
# into the KTO loss, go backward, take a step. `train.Batches` deals the row numbers: a new shuffle each
# pass, a last incomplete batch left out.
#
# Gradients flow through one line only, the policy's log-probabilities of the rows themselves.


# %%
def train_kto(policy, reference, rows, tokenizer, *, steps, batch_size=16, learning_rate=1e-3, beta=0.1,
              desirable_weight=1.0, undesirable_weight=1.0, max_grad_norm=1.0, seed=0):  # fmt: skip
    examples = [tokenize_feedback(row, tokenizer) for row in rows]
    collate, batches = KTOPaddingCollator(tokenizer), train.Batches(len(rows), batch_size, seed)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=learning_rate, weight_decay=0.0)
    history = []
    for step in range(steps):
        batch = collate([examples[i] for i in batches.draw()])
        up = batch["label"]
        logps = sequence_logps(policy, batch)
        with torch.no_grad():
            reference_logps = sequence_logps(reference, batch)
            kl_logps = sequence_logps(policy, batch, "kl_")
            z0 = reference_point(kl_logps, sequence_logps(reference, batch, "kl_"))
        losses = kto_loss(logps, reference_logps, up, z0, beta, desirable_weight, undesirable_weight)
        loss = losses.mean()
        optimizer.zero_grad()
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), max_grad_norm)
        optimizer.step()
        reward = beta * (logps.detach() - reference_logps)
        history.append({"step": step + 1, "loss": loss.item(), "kl": float(z0), "grad_norm": float(grad_norm),
                        "reward_desirable": float(reward[up].mean()),
                        "reward_undesirable": float(reward[~up].mean())})  # fmt: skip
    return policy, history


# %% [markdown]
# That is all of KTO training. Twenty steps with it:

# %%
weights = {"desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
_, own_history = train_kto(load_reference_model(), reference, feedback, tokenizer, steps=20, **weights)

for row in own_history[:5]:
    print(f"step {row['step']}  loss {row['loss']:.4f}  z0 {row['kl']:.4f}  grad norm {row['grad_norm']:.4f}")

# %% [markdown]
# The package's `train_kto` is this loop plus checks on its input, a learning-rate schedule, checkpoints and
# a few more columns in the history. In a terminal it shows a progress bar; `log_every=k` prints a line
# every k steps.
#
# The learning rate 1e-3 is for a model of this size. Do not carry it to a large one: for billions of
# parameters the paper's current text is reported to recommend 5e-6, and TRL's default is 1e-6.
#
# The whole run, on the policy:

# %%
policy, history = train.train_kto(
    policy, reference, feedback, tokenizer, steps=200, batch_size=16, learning_rate=1e-3, beta=0.1,
    log_every=50, **weights,
)  # fmt: skip

# %% [markdown]
# The package must do what you read above. The two runs started from the same weights and the same seed, so
# their first 20 losses have to be equal, up to rounding in the last bits.

# %%
same = [abs(a["loss"] - b["loss"]) < 1e-10 for a, b in zip(own_history, history, strict=False)]
print(f"{sum(same)} of {len(same)} losses equal to 10 decimals")
assert all(same)

# %% [markdown]
# From the next lesson on `train_kto` is imported from `kto_utils.train`.

# %% [markdown]
# ## 6. Read the logs
#
# | column | what it is | what this run shows |
# |---|---|---|
# | `loss` | mean of $w(1-\sigma(\cdot))$ | falls somewhat, jitters a lot |
# | `kl` | $z_0$ in nats, **not** the true KL | 0 at step 1, and mostly 0 later |
# | `reward_desirable` | mean $\beta r$ of thumbs-up rows | dips, then just above 0 (see below) |
# | `reward_undesirable` | the same for thumbs-down rows | falls a lot |
# | `margin` | their difference | grows |
# | `saturated` | *share* of rows whose gradient is under a tenth of its maximum | about a half; at 1 learning stops |
# | `grad_norm` | before clipping | peaks, but never dies |

# %%
columns = ("loss", "kl", "reward_desirable", "reward_undesirable", "margin", "saturated", "grad_norm")
heads = ("loss", "kl", "reward up", "down", "margin", "saturated", "grad_norm")
print("step " + " ".join(f"{head:>10}" for head in heads))
for step in (1, 2, 5, 8, 10, 15, 20, 50, 100, 162, 200):
    print(f"{step:4d} " + " ".join(f"{history[step - 1][name]:10.4f}" for name in columns))

# %%
steps = range(1, 201)
fig, ((ax_reward, ax_loss), (ax_share, ax_norm)) = plt.subplots(2, 2, figsize=(9.6, 6.0), sharex=True)
ax_reward.plot(steps, [row["reward_desirable"] for row in history], color=UP, ls="-")
ax_reward.plot(steps, [row["reward_undesirable"] for row in history], color=DOWN, ls="--")
label_line(ax_reward, 110, 0.9, "thumbs-up rows", color=UP)
label_line(ax_reward, 70, -2.6, "thumbs-down rows", color=DOWN)
ax_reward.set(title="The downs do the moving", ylabel="reward β r", ylim=(-9.5, 1.8))
loss = torch.tensor([row["loss"] for row in history])
ax_loss.plot(steps, loss, color=NEUTRAL, lw=0.8, alpha=0.5)
ax_loss.plot(steps[19:], loss.unfold(0, 20, 1).mean(-1), color=NEUTRAL, ls="-", lw=2.5)
label_line(ax_loss, 75, 1.05, "thick: mean of 20 steps", color=NEUTRAL)
ax_loss.set(title="The loss jitters and stays above zero", ylabel="loss", ylim=(0, None))
ax_share.plot(steps, [row["saturated"] for row in history], color=ACCENT, ls="-")
ax_share.set(title="About half of the rows no longer push", ylabel="saturated share", xlabel="step", ylim=(0, 1))
ax_norm.semilogy(steps, [row["grad_norm"] for row in history], color=NEUTRAL, ls="-")
ax_norm.set(title="Two scares: near steps 10 and 160", ylabel="gradient norm", xlabel="step")
save_figure(fig, "07_logs", alt=(
    "Four panels over 200 training steps. The reward of thumbs-up rows dips near step 10 and step 160 and else stays "
    "just above zero, while that of thumbs-down rows falls to about minus six. The loss jitters, and its "
    "mean over 20 steps falls at first and then stays between 0.4 and 0.5. The saturated share rises to "
    "about a half. The gradient norm has peaks "
    "near steps 10 and 165 and is around 0.2 in between."
))  # fmt: skip
plt.show()

# %% [markdown]
# ### Why is the first loss not 0.5?
#
# At step 1 policy and reference agree, so every sigmoid is 1/2 and each row costs half its weight. The loss
# is $\mathrm{mean}(w)/2$, and it depends on how many thumbs up the batch happens to hold. Deal the same
# batch again and count.

# %%
labels = [feedback[i]["label"] for i in train.Batches(len(feedback), 16, seed=0).draw()]
expected = (sum(labels) * desirable_weight + (16 - sum(labels)) * undesirable_weight) / 16 / 2

print(f"{sum(labels)} of 16 are up: expected loss {expected:.4f}, logged {history[0]['loss']:.4f}")
assert math.isclose(expected, history[0]["loss"], rel_tol=1e-12)

# %% [markdown]
# ### Why does it not go to 0?
#
# A thumbs-down row can be pushed down for ever: its cost goes to 0. A thumbs-up row cannot rise for ever,
# because probabilities end at 1. Averaged over the good replies that the reference gives, $r$ is at most
# $-\ln p$, the number of section 3. Times $\beta$ that is the most the reward can reach, and with $z_0 = 0$ a
# thumbs-up row then still costs $1 - \sigma(\text{reward})$ of its weight: nearly half, as the cell computes.

# %% [markdown]
# <details><summary>Why at most?</summary>
# The mean of a logarithm is at most the logarithm of the mean (Jensen's inequality). Over the good replies the
# mean of $\pi/\pi_\text{ref}$, weighted as the reference gives them, is at most $1/p$.
# </details>

# %%
ceiling = 0.1 * perfection
floor = n_up / len(feedback) * desirable_weight / (1 + math.exp(ceiling))
last_50 = sum(row["loss"] for row in history[150:]) / 50
rewards = [row["reward_desirable"] for row in history[150:]]
rewards = [reward for reward in rewards if not math.isnan(reward)]  # NaN: a batch without any thumbs up

reward = sum(rewards) / len(rewards)
print(f"reward of thumbs-up rows: at most about {ceiling:.4f}, last 50 steps {reward:.4f}")
print(f"cost of a thumbs-up row at that most: {1 / (1 + math.exp(ceiling)):.4f} of its weight")
print(f"loss: at least about {floor:.4f}, last 50 steps {last_50:.4f}")
print(f"batches without a thumbs up among them: {50 - len(rewards)}")

# %% [markdown]
# So there is little left to gain, although the loss looks high (both limits hold with $z_0 = 0$). The jitter has
# the same source: each batch's level depends on its number of thumbs up. Judge a KTO run by its rewards and by
# marks on fresh replies, never by the level of its loss.

# %% [markdown]
# ### Why is `kl` zero?
#
# People report this as a bug (HALOs issue 24). Take one batch under the trained policy. Before clamping,
# the mean log-ratio of the mismatched rows is far **below** zero: another question's reply was unlikely
# here, and training made it unlikelier still. The clamp makes it 0.

# %%
examples = [tokenize_feedback(row, tokenizer) for row in feedback[:16]]
batch = KTOPaddingCollator(tokenizer)(examples)
with torch.no_grad():
    reference_kl_logps = sequence_logps(reference, batch, "kl_")
    k = sequence_logps(policy, batch, "kl_") - reference_kl_logps

print(f"mismatched replies under the reference: mean log-probability {reference_kl_logps.mean():.2f} nats")
print(f"mean of the mismatched log-ratios {k.mean():.2f} nats, so z0 = {k.mean().clamp(min=0):.1f}")
print(f"steps with z0 above 0: {[row['step'] for row in history if row['kl'] > 0]}")

# %% [markdown]
# So `kl` = 0 in the log does not say that the policy stayed where it was. Section 8 computes how far it
# went. What *would* be a bug: `kl` above 0 at step 1, where policy and reference are the same.

# %% [markdown]
# ### Exercise 7.4 · A quiet log
# ★★☆ · 5 minutes · read a log and choose a cause
#
# Another run in this world, with batches of 15 and balanced weights. Its log is below. Go through it column by column.
# Which of these happened?
#
# - a) the learning rate is so small that the policy has not moved
# - b) all rows are saturated
# - c) the reference is the policy itself, so it moves along
# - d) the reference is another model than the one the policy started from

# %%
from kto_course.checks.lesson_07 import mystery_log

print("step       loss         kl  reward up       down  saturated  grad_norm")
for row in mystery_log(steps=(1, 2, 5, 10, 20, 60, 100, 200)):
    print(f"{row['step']:4d} " + " ".join(f"{row[name]:10.4f}" for name in columns if name != "margin"))

# %% exercise="mystery_log_cause"
answer = ...  # a letter in quotes
### BEGIN SOLUTION
answer = "c"
### END SOLUTION

# %% check="mystery_log_cause" points=1
check.mystery_log_cause(answer)

# %% [markdown]
# ### And the scares?
#
# Near step 10 both rewards fell **together**, and the gradient norm jumped; near step 160 the thumbs-up reward
# dipped again. Falling together is the sign to know; the reported advice is then to lower the learning rate.
# This run recovered. The one in section 9 will not.

# %% [markdown]
# ### The knobs: where does it collapse?
#
# One run cannot say where the edge is. Many can: a smaller model (hidden size 64), 100 steps, five draws of thumbs
# for each setting, two of the three knobs turned at a time. They were run beforehand, and their hypothesis was
# written before that.

# %%
results = load_results()
knobs = EXPERIMENTS["knobs"]
n_runs = len(select(results, "knobs"))
print(f"{n_runs} runs: {len(knobs.conditions)} settings, {len(knobs.seeds)} draws of thumbs each")
print("Hypothesis:", knobs.hypothesis)

# %% [markdown]
# The ratio is $\lambda_D n_D / (\lambda_U n_U)$, total weight of the ups over that of the downs. A run is **lost** if
# less than half of its probability is left on listed replies.


# %%
RATES, BETAS, RATIOS = (3e-4, 1e-3, 3e-3, 1e-2), (0.1, 0.5, 2.0), (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)


def knob_runs(rate, beta=0.1, ratio=1.0):
    """The five runs at one learning rate, beta and ratio of total weights."""
    other = f"beta {beta:g}" if ratio == 1.0 else f"ratio {ratio:g}"
    return select(results, "knobs", condition=f"rate {rate:g} {other}")


def mean_and_lost(runs):
    """Mean thumbs-up rate on new wordings, and how many of the runs are lost."""
    mean = sum(run["new wording thumbs_up"] for run in runs) / len(runs)
    return mean, sum(run["new wording listed"] < 0.5 for run in runs)


# %%
def draw_map(ax, table, columns):
    """A heat map of (mean, lost) with the numbers in it; rows are learning rates."""
    means = torch.tensor([[mean for mean, _ in row] for row in table])
    ax.imshow(means, vmin=0, vmax=1, aspect="auto")
    for i, row in enumerate(table):
        for j, (mean, lost) in enumerate(row):
            text = f"{mean:.2f}" + (f"\n{lost} lost" if lost else "")
            ax.text(j, i, text, ha="center", va="center", fontsize=9.5, color="black" if mean > 0.5 else "white")
    ax.set_xticks(range(len(columns)), [f"{column:g}" for column in columns])
    ax.set_yticks(range(len(RATES)), [f"{rate:g}" for rate in RATES])
    ax.grid(visible=False)


over_beta = [[mean_and_lost(knob_runs(rate, beta=beta)) for beta in BETAS] for rate in RATES]
over_ratio = [[mean_and_lost(knob_runs(rate, ratio=ratio)) for ratio in RATIOS] for rate in RATES]

# %%
fig, (ax_beta, ax_ratio) = plt.subplots(1, 2, figsize=(10.2, 4.2), width_ratios=(3, 6), sharey=True)
draw_map(ax_beta, over_beta, BETAS)
draw_map(ax_ratio, over_ratio, RATIOS)
for colour, width, style in (("white", 5, "-"), ("black", 2, "--")):  # seen on light and on dark cells
    ax_ratio.add_patch(plt.Rectangle((1.5, -0.5), 2, len(RATES), fill=False, edgecolor=colour, lw=width, ls=style))
ax_beta.set(title="Ratio 1", xlabel="β", ylabel="learning rate")
ax_ratio.set(title="β = 0.1; dashed: the band [1, 3/2]", xlabel="total weight of ups / total weight of downs")
save_figure(fig, "07_knobs", alt=(
    "Two heat maps of the mean thumbs-up rate on new wordings, with the rate and the number of lost runs written in "
    "each cell. Rows are four learning rates from 0.0003 to 0.01. Columns are three values of beta on the left and six "
    "ratios of the total weights from 1/4 to 4 on the right, where a dashed frame marks the recommended band from 1 to "
    "3/2."
))  # fmt: skip
plt.show()

# %% [markdown]
# Where does collapse begin? For each column, the lowest learning rate at which a run was lost, and the ending of the
# hypothesis:

# %%
for table, knob, columns in ((over_beta, "beta", BETAS), (over_ratio, "ratio", RATIOS)):
    for j, column in enumerate(columns):
        lost_at = [f"{rate:g}" for rate, row in zip(RATES, table, strict=True) if row[j][1]]
        print(f"{knob:<5} {column:4g}: first run lost at {lost_at[0] if lost_at else 'no rate tried'}")
print("\n" + finding(results, "knobs").sentence)

# %% [markdown]
# Two edges show.
#
# - **Too fast.** At 1e-2 nearly every run is lost. At 3e-3 and ratio 1 single runs are, beside others at 0.9: a
#   mean hides that, and so does a search on one draw.
# - **Ups too light.** At ratio 1/4 every run is lost at every rate, at 1/2 nearly every one. From 3/2 on, the end
#   of the recommended band, none is up to 3e-3; nor at 2 and 4, outside the band. Here leaning to the ups is safe.
#
# At ratio 1 a small rate is no insurance: at 3e-4 and $\beta = 0.1$ two of five runs are lost, at 1e-3 none. We did not
# find out why.

# %%
lost = {ratio: [row[RATIOS.index(ratio)][1] for row in over_ratio] for ratio in RATIOS}
assert all(n == 5 for n in lost[0.25])
assert all(n >= 4 for n in lost[0.5])
assert all(n == 0 for ratio in (1.5, 2.0, 4.0) for n in lost[ratio][:3])
print("lost of five at rates", ", ".join(f"{rate:g}" for rate in RATES))
for ratio, counts in lost.items():
    print(f"   ratio {ratio:4g}: {counts}")

# %% [markdown]
# The ratio of the default weights, 1 and 1, is that of the counts: about 0.3 here, near the left end of the right map.
# The band is the paper's advice (up to 3/2 as reported, current text, Eq. 9), not a law of nature. And the map is that
# of one tiny world, a hidden size of 64 and 100 steps, five draws for each cell: it says that the three knobs belong
# together, and the right learning rate for another model it cannot say.

# %% [markdown]
# ## 7. Before and after
#
# First read: the same seeds, the reference on the left, the policy on the right. Then count, exactly.

# %%
predict("untouched_after", "Thumbs were given on other questions only. The thumbs-up rate on the untouched facts now?",
        ["about 0.2, as before", "about 0.5", "about 1, as on trained questions"],
        guess=None, confidence=None)  # fmt: skip

# %%
for name, questions in SETS.items():
    question = questions[4]
    print(f"{name}: {question.text}")
    old, new = (evaluate.sample(model, question, n=3, seed=2) for model in (reference, policy))
    for a, b in zip(old, new, strict=True):
        print(f"    {visible(a, 44):<44} -> {visible(b, 44)}")

# %%
after = {name: rates(policy, questions) for name, questions in SETS.items()}

print(f"{'':<16}        thumbs up  polite   right  listed")
for name in SETS:
    for when, r in (("before", before[name]), ("after", after[name])):
        shares = f"{r['thumbs_up']:9.4f} {r['polite']:7.4f} {r['right']:7.4f} {r['listed']:7.4f}"
        print(f"{name:<16} {when:<6} {shares}")
assert after["trained"]["thumbs_up"] >= 0.9
guesses, rate = {"a": 0.2, "b": 0.5, "c": 1.0}, after["untouched facts"]["thumbs_up"]
reveal("untouched_after", min(guesses, key=lambda letter: abs(guesses[letter] - rate)))

# %%
PARTS = {
    "polite and right": (UP, "", lambda r: r["thumbs_up"]),
    "polite, wrong": ("#56B4E9", "///", lambda r: r["polite"] - r["thumbs_up"]),
    "rude": (DOWN, "...", lambda r: r["listed"] - r["polite"]),
    "anything else": ("#BBBBBB", "xx", lambda r: 1 - r["listed"]),
}
bars = {f"{name}, {when}": r[name] for name in SETS for when, r in (("before", before), ("after", after))}
fig, ax = plt.subplots(figsize=(9.0, 4.2))
left = torch.zeros(len(bars), dtype=torch.float64)
for label, (colour, hatch, part) in PARTS.items():
    sizes = torch.tensor([part(r) for r in bars.values()], dtype=torch.float64)
    ax.barh(list(bars), sizes, left=left, color=colour, hatch=hatch, edgecolor="white", label=label)
    left += sizes
ax.invert_yaxis()
ax.set(title="New wordings: as good as trained. Untouched facts: manners only", xlim=(0, 1))
ax.set(xlabel="share of replies (exact)")
fig.legend(loc="outside lower center", ncols=4)
save_figure(fig, "07_before_after", alt=(
    "Stacked bars of exact shares of replies, before and after training. On trained questions and on their "
    "new wordings, polite and right replies grow from a quarter to 98 percent. On untouched facts they grow "
    "to a half only, and three in ten replies there are text outside the list."
))  # fmt: skip
plt.show()

# %% [markdown]
# **New wording**: as good as trained. (SFT had shown both wordings; only the thumbs had not.) So the thumbs
# were not tied to the sentence.
#
# **Untouched facts**: the rude replies are gone, but three replies in ten are now on no list. Lesson
# [00](00_start_here.ipynb) looked better here and a little worse on trained questions: it stopped after 120
# steps at half this learning rate, with weights that lean to thumbs up.

# %% [markdown]
# Which answer is right on an untouched fact cannot be learned from thumbs on other questions. The average hides
# two different halves: take each fact, and count how often its right answer was praised or blamed elsewhere.

# %%
print(f"{'fact':<11} {'answer':<8} praised blamed  right before -> after   says now, for example")
for question in SETS["untouched facts"]:
    said = [row["label"] for row in feedback if f" {question.answer}" in row["completion"]]
    old, new = (rates(model, [question])["right"] for model in (reference, policy))
    counts = f"{sum(said):7d} {len(said) - sum(said):6d}"
    says = visible(evaluate.sample(policy, question, n=1, seed=3)[0], 40)
    print(f"{question.thing:<11} {question.answer:<8} {counts} {old:12.4f} -> {new:.4f}   {says}")

# %% [markdown]
# The table suggests what happened. The reference already leaned towards the right answer. Where that word
# also earned thumbs elsewhere ("blue" for the sky), the lean was sharpened. Where it was right nowhere else,
# it was only ever blamed, and the model now seems to avoid the **word**, here too. Neither is new knowledge about coal
# or cats.

# %% [markdown]
# ## 8. The KL that was paid
#
# Now the distance. Sum $\pi \log(\pi/\pi_\text{ref})$ over the 48 listed replies, and put every other text
# into **one** further outcome, "anything else". This is exact for that coarse view of a reply. Lumping
# outcomes together can only hide differences, so it is a **lower bound** of the KL over all token sequences.


# %%
def exact_kl(policy, reference, questions):
    def with_rest(model):
        logps = reply_logps(model, questions)
        rest = torch.log(-torch.expm1(logps.logsumexp(-1, keepdim=True)))  # log(1 - listed mass)
        return torch.cat((logps, rest), dim=-1)

    log_p, log_q = with_rest(policy), with_rest(reference)
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())


# %% [markdown]
# Beside it stands an estimate: sample replies from the policy, average $\log\pi - \log\pi_\text{ref}$, and say
# how uncertain that is. Replies are cut after 24 tokens, so it is the KL of the first 24 tokens. Where more than
# 1% of the replies are "anything else", we do not rely on the bound alone.

# %%
paid, n_samples = {}, {"trained": 32, "new wording": 16, "untouched facts": 64}
print(f"{'':<16}  anything else   least KL   bound   sampled KL")
for name, questions in SETS.items():
    least = evaluate.least_kl(evaluate.question_rates(reference, questions), after[name]["thumbs_up"])
    bound = exact_kl(policy, reference, questions)
    full, error = evaluate.sampled_kl(policy, reference, questions, n=n_samples[name], seed=0)
    paid[name] = least, bound, full, error
    rest = 1 - after[name]["listed"]
    print(f"{name:<16} {rest:14.4f} {least:10.4f} {bound:7.4f} {full:9.4f} ± {error:.4f}")

# %%
least, bound, full, error = paid["trained"]
print(f"perfection costs at least {perfection:.4f} nats")
print(f"rate {after['trained']['thumbs_up']:.4f} costs at least {least:.4f} nats")
print(f"paid above that: bound {bound - least:.4f} nats, sampled {full - least:.4f} nats")
assert bound - least < 0.15
assert full - least < 0.5

# %% [markdown]
# On trained questions "anything else" holds about 2%, so both numbers count: this run paid between a tenth and
# four tenths of a nat more than the least for its rate. On untouched facts most of the distance bought nothing, and
# much of it lies outside the list, where the bound cannot see it.

# %%
start = before["trained"]["thumbs_up"]
targets = [start + (1 - start) * i / 100 for i in range(100)] + [1.0]
cheapest = [evaluate.least_kl(reference_rates, target) for target in targets]
marks = {"trained": ("o", UP, 8), "new wording": ("D", ACCENT, 6), "untouched facts": ("^", DOWN, 7)}
fig, (ax, zoom) = plt.subplots(1, 2, figsize=(10, 4.2), width_ratios=(3, 2))
for axes in (ax, zoom):
    axes.plot(cheapest, targets, color=NEUTRAL, ls="-")
    axes.fill_betweenx(targets, 0, cheapest, color=NEUTRAL, alpha=0.15)
    for name, (marker, colour, size) in marks.items():
        style = {"markersize": size, "color": colour, "markerfacecolor": "white"}
        axes.errorbar(paid[name][2], after[name]["thumbs_up"], xerr=2 * paid[name][3], fmt=marker, **style)
    axes.set(xlabel="KL to the reference (nats, sampled)")
ax.plot(0, start, "s", color=NEUTRAL)
label_line(ax, 0.08, start - 0.03, "reference", color=NEUTRAL)
label_line(ax, 0.72, 0.66, "least KL (trained questions);\nleft of it: out of reach", color=NEUTRAL)
label_line(ax, 3.9, 0.55, "untouched facts", color=DOWN)
label_line(zoom, 1.68, 0.9755, "trained", color=UP)
label_line(zoom, 1.56, 0.9855, "new wording", color=ACCENT)
ax.set(title="Near the least KL, but for untouched facts", xlim=(-0.15, 7.6), ylim=(0.15, 1.09))
ax.set(ylabel="thumbs-up rate (exact)")
zoom.set(title="The end of the curve, enlarged", xlim=(1.28, 1.92), ylim=(0.965, 1.003))
save_figure(fig, "07_frontier", alt=(
    "Thumbs-up rate against KL to the reference, and the end of the curve enlarged beside it. A curve rises "
    "from the reference at rate 0.23 and KL 0 to rate 1 at 1.46 nats; left of it no policy can be. Trained and "
    "reworded questions lie right of its end, at rate 0.98 and between 1.5 and 1.7 nats. The untouched facts lie "
    "far right of the curve, at rate 0.5 and about 6 nats."
))  # fmt: skip
plt.show()

# %% [markdown]
# ### The whole way, for KTO and DPO
#
# That was one run, at its end. Was the way there cheap as well? And DPO, the method of the next lesson, which learns
# from pairs? Five draws of thumbs each, 100 steps, this model, learning rate and $\beta$ searched for each method.

# %%
ways = EXPERIMENTS["frontier"]
print("Hypothesis:", ways.hypothesis)
for method, (rate, beta) in best_settings(results["search"], "frontier").items():
    print(f"{method:<4} learning rate {rate:g}, beta {beta:g}")

# %%
paths = {method: [run["path"] for run in select(results, "frontier", method=method)] for method in ways.methods}
print("method  step   thumbs up  above least KL (nats)  listed, lowest")
for method, runs in paths.items():
    for stops in zip(*runs, strict=True):
        up, above = (sum(stop[key] for stop in stops) / len(stops) for key in ("thumbs_up", "excess_kl"))
        listed = min(stop["listed"] for stop in stops)
        print(f"{method:<6} {stops[0]['step']:5d} {up:11.4f} {above:22.4f} {listed:15.4f}")

# %%
fig, (ax, ax_listed) = plt.subplots(1, 2, figsize=(10, 4.4), width_ratios=(3, 2))
ax.plot(cheapest, targets, color=NEUTRAL, ls="-")
ax.fill_betweenx(targets, 0, cheapest, color=NEUTRAL, alpha=0.15)
for method, runs in paths.items():
    colour, line, marker = METHOD_STYLES[method]
    for run in runs:
        x, y, listed = ([0.0 if key == "kl" else before["trained"][key], *(stop[key] for stop in run)]
                        for key in ("kl", "thumbs_up", "listed"))  # fmt: skip
        ax.plot(x, y, color=colour, ls=line, marker=marker, ms=5, lw=1, mfc="white")
        ax_listed.plot([0, *(stop["step"] for stop in run)], listed, color=colour, ls=line, marker=marker, ms=4, lw=1)
label_line(ax, 0.05, 0.96, "out of reach", color=NEUTRAL)
for method, runs in paths.items():
    end = max((run[-1] for run in runs), key=lambda stop: stop["kl"])
    label_line(ax, end["kl"] + 0.05, end["thumbs_up"], method.upper(), color=METHOD_STYLES[method][0])
ax.set(title="Both pay more than the least KL, DPO more than KTO", ylim=(-0.03, 1.03))
ax.set(xlabel="KL to the reference (nats, lower bound)", ylabel="thumbs-up rate (exact)")
ax_listed.set(title="Probability left on the list", xlabel="step", ylabel="share of all replies", ylim=(0, 1.03))
save_figure(fig, "07_paths", alt=(
    "Left: thumbs-up rate against a lower bound of the KL. A curve of least KL rises from the reference; five paths of "
    "KTO, solid with circles, and five of DPO, dashed with squares, start at the reference and lie right of the curve. "
    "Right: the probability on listed replies over 100 steps, for the same ten runs."
))  # fmt: skip
plt.show()

# %% [markdown]
# The KL of the figure is the lower bound of this section. Where probability has left the list it is too low, so beside
# it stands the sampled KL of each final policy (8 replies to each question).

# %%
print("method  seed   thumbs up   listed   above least KL: bound   sampled")
for run in select(results, "frontier"):
    up, listed, above = (run[f"trained {key}"] for key in ("thumbs_up", "listed", "excess_kl"))
    sampled = run["kl_sampled"] - evaluate.least_kl(reference_rates, up)
    print(f"{run['method']:<6} {run['seed']:5d} {up:11.4f} {listed:8.4f} {above:22.4f} {sampled:9.4f}"
          f" ± {run['kl_error']:.4f}")  # fmt: skip

# %%
print(finding(results, "frontier").sentence)

# %% [markdown]
# Nobody walks along the curve. At the end KTO is further, at a smaller price above the least; DPO's paths bend away to
# the right when probability starts to leave the list. In between one run of KTO left the list and came back, and KTO's
# mean price was the higher one.
#
# Read the ending with the last two columns. Two methods stop at different rates, so each is measured against the least
# KL for *its own* rate. And the comparison uses the bound: it forgives a method all that happens outside the list. The
# sampled column does not. One tiny world and five draws; the intervals are too narrow.

# %% [markdown]
# ## 9. What goes wrong: both weights 1
#
# The same rows, the same seed, the same learning rate. Only the weights are left at their default of 1,
# with more than three thumbs down for each thumb up.

# %%
collapsed, collapse_history = train.train_kto(load_reference_model(), reference, feedback, tokenizer, steps=30,
                                              learning_rate=1e-3)  # fmt: skip
print("step    loss  reward up  reward down  saturated  grad norm")
for step in (1, 4, 6, 8, 10, 12, 20, 30):
    r = collapse_history[step - 1]
    print(f"{step:4d} {r['loss']:7.4f} {r['reward_desirable']:10.2f} {r['reward_undesirable']:12.2f} "
          f"{r['saturated']:10.4f} {r['grad_norm']:10.4f}")  # fmt: skip

# %% [markdown]
# The loss looks splendid: it went from 0.5 to 0.13 in ten steps. (Do not compare it with the good run's: other
# weights, another scale.) Now read.

# %%
for question in world.trained_questions()[::7]:
    for text in evaluate.sample(collapsed, question, n=1, seed=0):
        print(f"{question.text:<34} {visible(text, 60)}")
r = rates(collapsed, SETS["trained"])
print(f"thumbs up {r['thumbs_up']:.4f}   polite {r['polite']:.4f}   listed {r['listed']:.4f}")

# %% [markdown]
# No thumbs up, and nothing that anybody listed is left. How far is that from the reference? Six questions will
# do.

# %%
six = SETS["trained"][::4]
bound = exact_kl(collapsed, reference, six)
full, error = evaluate.sampled_kl(collapsed, reference, six, n=8, seed=0)
rest = -torch.expm1(reply_logps(reference, six).logsumexp(-1))

print(f"bound {bound:.2f} nats   sampled {full:.0f} nats")
print(f"the most the bound can show with all mass outside the list: {-rest.log().mean():.2f} nats")
assert bound > 3
assert full > bound

# %% [markdown]
# With all mass on "anything else" the bound is stuck at $-\ln$ of the reference's own rest. It cannot see
# *which* other text it is. That is why the sampled KL stands beside it, and even that counts only the 24 tokens
# that we let the model say.

# %% [markdown]
# ### Why it collapses at this learning rate
#
# At the start every row has the same gradient factor, so pushes count by number: more than three pushes
# down for one up. And the two are no mirror images:
#
# - pushing a reply **up** says where probability must go;
# - pushing it **down** says only what it must leave. It may go anywhere, also to texts that nobody listed
#   and nobody judged.

# %% [markdown]
# All replies are made by the same parameters and many share words, so pushing three of them down probably drags
# the fourth along. How fast that goes depends on the learning rate: at a tenth
# of it this run is fine after 60 steps, and collapsed all the same after 200. Lesson [00](00_start_here.ipynb)
# stops such a slow run after 60. (Check it: the next cell, with 1e-4 and other step numbers.)

# %%
print("steps   thumbs up   listed   anything else")
for n_steps in (4, 6, 8):
    model, _ = train.train_kto(
        load_reference_model(), reference, feedback, tokenizer, steps=n_steps, learning_rate=1e-3
    )
    r = rates(model, six)
    print(f"{n_steps:5d} {r['thumbs_up']:11.4f} {r['listed']:8.4f} {1 - r['listed']:15.4f}")

# %% [markdown]
# For four steps it even got better, so the ups do not lose from the start; two steps later the list was all but
# empty.
#
# Why does it not come back? With all rewards very negative, the sigmoid is flat for every row. A thumbs-up
# row costs its full weight, a thumbs-down row nothing, and the gradient is gone. The loss is then simply
# the batch's share of thumbs up.

# %% [markdown]
# A public run shows the same symptoms. The trainer state of `Weni/WeniGPT-Agents-Zephyr-1.0.9-KTO` (learning
# rate 1.8e-4) logs rewards of -59 for ups and -61 for downs, later -161 and -165, with `kl` 0.0, gradient norm
# 0.0 and a loss of 0.56.

# %%
batches = train.Batches(len(feedback), 16, seed=0)
shares = [sum(feedback[i]["label"] for i in batches.draw()) / 16 for _ in range(30)]

for step in (1, 20, 25, 30):
    loss = collapse_history[step - 1]["loss"]
    print(f"step {step:2d}  loss {loss:.4f}   share of thumbs up {shares[step - 1]:.4f}")
print(f"gradient factor sigmoid(u) sigmoid(-u): at most 0.25, at u = -161 {math.exp(-161):.0e}")
assert all(abs(collapse_history[i]["loss"] - shares[i]) < 0.01 for i in range(19, 30))

# %%
fig, (ax_up, ax_norm) = plt.subplots(1, 2, figsize=(9.6, 3.8))
for run, name, style, colour, y in (
    (history, "balanced weights", "-", UP, 0.9),
    (collapse_history, "both weights 1", "--", DOWN, -8.3),
):
    ax_up.plot(range(1, 31), [row["reward_desirable"] for row in run[:30]], color=colour, ls=style)
    ax_norm.semilogy(range(1, 31), [row["grad_norm"] for row in run[:30]], color=colour, ls=style)
    ax_up.text(17, y, name, color=colour)
ax_up.set(title="Thumbs-up rows sink too", xlabel="step", ylabel="reward β r of thumbs-up rows", ylim=(-11.5, 2))
ax_norm.set(title="The gradient dies", xlabel="step", ylabel="gradient norm")
save_figure(fig, "07_collapse", alt=(
    "Two panels over 30 steps, balanced weights against both weights 1. With both weights 1 the "
    "reward of thumbs-up rows falls to about minus ten within 20 steps and the gradient norm drops by "
    "more than three orders of magnitude. With balanced weights the reward dips and comes back, and the gradient "
    "norm stays near one."
))  # fmt: skip
plt.show()

# %% [markdown]
# ### Thumbs of one kind only
#
# If downs without enough ups are dangerous, what do downs alone do? And ups alone? The loss is defined for both.
# Five draws of thumbs, the smaller model, 300 steps. A second version mixes an SFT term into the loss: weight 0.2,
# texts of the kind that the reference was made from, good and bad alike.

# %%
ONE_KIND = ("only thumbs-down", "only thumbs-up")
for name in ONE_KIND:
    print("Hypothesis:", EXPERIMENTS[name].hypothesis)
    for method, (rate, beta) in best_settings(results["search"], name).items():
        print(f"    {method:<9} learning rate {rate:g}, beta {beta:g}")

# %%
fig, axes = plt.subplots(2, 2, figsize=(9.6, 6.2), sharex=True, sharey=True)
for name, column in zip(ONE_KIND, axes.T, strict=True):
    for ax, key in zip(column, ("listed", "thumbs_up"), strict=True):
        at_first = {"step": 0, key: results["reference"]["small"][f"trained {key}"]}
        for method, colour, style, marker in (("kto", DOWN, "--", "s"), ("kto + sft", UP, "-", "o")):
            for run in select(results, name, method=method):
                stops = [at_first, *run["path"]]
                ax.plot([stop["step"] for stop in stops], [stop[key] for stop in stops], marker, ls=style,
                        color=colour, lw=1, ms=4, mfc="white")  # fmt: skip
    column[0].set(title=name.capitalize(), ylim=(-0.03, 1.03))
    column[1].set(xlabel="step")
axes[0, 0].set(ylabel="probability on listed replies")
axes[1, 0].set(ylabel="thumbs-up rate, trained")
save_figure(fig, "07_one_kind", alt=(
    "Four panels over 300 steps: probability on listed replies above, thumbs-up rate on trained questions below; only "
    "thumbs-down on the left, only thumbs-up on the right. Five runs each of KTO, dashed with squares, and of KTO with "
    "an SFT term, solid with circles."
))  # fmt: skip
plt.show()

# %%
for name in ONE_KIND:
    print(finding(results, name).sentence)

# %% [markdown]
# Is that a matter of the learning rate or of $\beta$? Each search tried nine settings, 300 steps as well:

# %%
tried = {}
for name in ONE_KIND:
    for method in EXPERIMENTS[name].methods:
        runs = [run for run in results["search"] if (run["experiment"], run["method"]) == (name, method)]
        ups, listed = ([run[f"trained {key}"] for run in runs] for key in ("thumbs_up", "listed"))
        tried[name, method] = ups
        print(f"{name:<17} {method:<9} thumbs up {min(ups):.3f} to {max(ups):.3f}, listed {min(listed):.3f} to "
              f"{max(listed):.3f}")  # fmt: skip
assert max(tried["only thumbs-down", "kto"]) < 0.001
assert max(tried["only thumbs-down", "kto + sft"]) < 0.1
plain, with_sft = (tried["only thumbs-up", method] for method in ("kto", "kto + sft"))
assert min(plain) > 0.85
assert all(a > b for a, b in zip(plain, with_sft, strict=True))

# %% [markdown]
# **Only downs** destroyed the model at each of the nine settings. They say what to leave, never where to go, and
# nothing ends their push before the sigmoid is flat. An SFT term of this weight saved little: about a tenth of the
# probability stayed on the list at best. **Only ups** did well at all nine. Their push ends by itself, since a
# probability cannot pass 1, and the good replies were the model's own. The SFT term cost them something at each
# setting: its texts are good and bad alike, so it pulls back to the reference.
#
# Whether ups alone would do where a question has endless good replies, this small world cannot say.

# %% [markdown]
# ## 10. Stop, kill, resume
#
# A run of days will be interrupted. `train_kto(..., checkpoint=file)` saves what the next step depends on:
# model, optimiser, the generator with the rows still waiting in this pass, and the history. It writes to a
# temporary name and then renames, so a kill during the write leaves the old file whole.
#
# Let a child process train, and kill it as soon as a checkpoint lies on the disk.

# %%
CHILD = """
import json, sys
from kto_utils import model, tokenizer, train
rows, settings = json.load(open(sys.argv[1], encoding="utf-8"))
policy = model.load_reference_model()
train.train_kto(policy, model.reference_of(policy), rows, tokenizer.load_tokenizer(), **settings)
"""
folder = tempfile.TemporaryDirectory()
job, checkpoint = Path(folder.name) / "job.json", Path(folder.name) / "run.pt"
settings = {"steps": 30, "batch_size": 8, "learning_rate": 1e-3, "seed": 3, **weights}
for_child = settings | {"checkpoint": str(checkpoint), "checkpoint_every": 5}
job.write_text(json.dumps([feedback, for_child]), encoding="utf-8")

child = subprocess.Popen([sys.executable, "-c", CHILD, str(job)])
while child.poll() is None and not checkpoint.exists():
    time.sleep(0.02)
child.kill()
print("killed before it was done:", child.wait() != 0)
on_disk = torch.load(checkpoint, weights_only=True)
print("in the file:", ", ".join(on_disk))
print("stopped part of the way:", 0 < on_disk["step"] < 30)

# %% [markdown]
# Now start the same run again, in this process, with a fresh model and the same file. It continues where
# the file ends. Beside it, a run that was never disturbed.

# %%
resumed, resumed_history = train.train_kto(
    load_reference_model(), reference, feedback, tokenizer, **settings, checkpoint=checkpoint
)
whole, whole_history = train.train_kto(load_reference_model(), reference, feedback, tokenizer, **settings)

same_parameters = all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))
print("all parameters equal to the last bit:", same_parameters)
print("all 30 rows of history equal:", json.dumps(resumed_history) == json.dumps(whole_history))
assert same_parameters

# %% [markdown]
# And if you change a setting but forget to change the file name? The file knows which run it belongs to.

# %%
other = settings | {"seed": 4}
try:
    train.train_kto(load_reference_model(), reference, feedback, tokenizer, **other, checkpoint=checkpoint)
except ValueError as error:
    print("refused:", str(error).removeprefix(str(checkpoint)))
folder.cleanup()

# %% [markdown]
# ## Recap
#
# - SFT makes a model that can speak; its frozen copy is the reference. Thumbs on its **own** replies then
#   say which of them to keep.
# - Count the thumbs and set the weights, so that both sides have equal total weight. With both weights 1
#   and more than three downs for each up, this run collapsed within 12 steps at this learning rate.
# - A rate has a price: at least the mean of $-\ln p$ for perfection, whatever the method. Here, in one run, KTO
#   paid a tenth to four tenths of a nat more than the least for its rate.
# - Thumbs-down alone destroyed the model at all nine settings tried; thumbs-up alone did not.
# - Watch both rewards, the gradient norm and the saturated share. `kl` = 0 is normal after a few steps; the
#   level of the loss says little.
# - Thumbs teach what they touch. On untouched facts the rude replies vanished, nothing new was learned about the
#   facts, and three in ten replies left the list.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions what_to_monitor resume_exactly kl_zero_in_logs}}

# %% [markdown]
# ## Sources
#
# - The loss, its saturation and the weight rule: arXiv 2402.01306 v1, section 4.1, Eq. 7 and Eq. 8,
#   Proposition 4.1. The range up to 3/2 (current text, Eq. 9) and the advice on falling rewards are
#   reported, not read here.
# - `kl` at zero: HALOs issue 24, github.com/ContextualAI/HALOs. The saturated run: trainer state of the
#   model named in section 9, on the Hugging Face hub.
# - The least KL, the ceiling of the reward and the bound of section 8 are derived here; "lumping can only
#   lower a KL" is the data-processing inequality.
#
# Next: [08](08_kto_vs_dpo.ipynb): the same world with pairs instead of thumbs, KTO against DPO.
