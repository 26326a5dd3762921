# %% [markdown]
# # 10 · The bug museum
#
# Read the logs of 21 runs that went wrong, guess the fault, open it, and learn which faults no log will show you.

# %% [markdown]
# **You will be able to**
# - check five things in the log of a KTO run, three of them at the first step,
# - name the likely faults behind a strange log, and say how to tell them apart,
# - say which faults leave hardly a trace in a log, and what catches them instead,
# - explain how one changed word can make "KTO training" train something else.
#
# **You need first** the score of lesson [05](05_get_probs.ipynb), the loss of lesson [06](06_kto_loss.ipynb) and the
# log of lesson [07](07_train.ipynb).
#
# **Time** about {{minutes}} minutes to read, {{seconds}} s to run. Each room stands alone: one a day is fine.

# %% [markdown]
# **Before you run anything.** In this museum hang 21 training runs. In each, one small thing is wrong: a word, a sign,
# an index. How many of them end with a model that is clearly worse than the healthy one? And how many would you never
# suspect from their log? Write down two numbers.

# %%
import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown

from kto_utils import museum
from kto_utils.collator import mismatched
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.losses import reference_point
from kto_utils.model import reference_of, tiny_llama, to_float64
from kto_utils.mutants import MUTANTS, Edit, Mutant, applied
from kto_utils.plotting import save_figure, use_course_style
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import train_kto, train_sft
from kto_utils.world import replies, sft_rows, trained_questions

use_course_style()
torch.set_default_dtype(torch.float64)
tokenizer = load_tokenizer()

# %% [markdown]
# ## How the museum works
#
# Every exhibit is the course's own code with a few words changed; nothing is imitated. The edited function is compiled
# and lends its code to the original for as long as the run lasts, so trainer, collator and loss all see the fault.
#
# The run is always the same: the shipped model, 1,200 thumbs on its own replies, weights from the counts, 150 steps,
# batches of 15, beta 0.1. Each exhibit ran on three draws of thumbs; what hangs on the wall is the first draw.
#
# All these runs take minutes, so their logs lie in a results file. Do not take its word for it: run the first steps of
# any exhibit here, and compare.

# %%
chosen = "no_clamp"  # any name of MUTANTS
_, fresh = museum.train(MUTANTS[chosen], seed=0, steps=3)
stored = museum.load_results()[chosen, 0]
for step in range(3):
    print(f"step {step + 1}: loss here {fresh['loss'][step]:.5f}, in the file {stored['loss'][step]:.5f}")
assert fresh["loss"] == stored["loss"][:3]

# %% [markdown]
# ## Exhibit 0: the healthy run
#
# You cannot see what is ill before you know what is well. This is the code as it is.

# %%
fig = museum.figure(0)
save_figure(fig, "10_exhibit_00", alt=museum.alt_text(0))
plt.show()
print(museum.log(0))

# %% [markdown]
# Five things to read in any such log:
#
# 1. **The first loss** is half the mean weight, since policy and reference still agree.
# 2. **The first kl** is 0, for the same reason; later it is small and often exactly 0, because of the clamp.
# 3. **The reward of thumbs up** has a ceiling. No reply can become likelier than certain, so
#    $r = \log \pi - \log \pi_{ref} \le -\log \pi_{ref}$.
# 4. **The reward of thumbs down** falls and has no floor.
# 5. **The gradient norm** shrinks but stays alive.
#
# The third is hardly known and very useful. Here are the numbers for this run:

# %%
healthy = museum.of_number(0)
rewards_up = [reward for reward in healthy["reward_desirable"] if reward is not None]
print(f"half the mean weight of batch 1: {healthy['half_mean_weight']:.4f}   first loss: {healthy['loss'][0]:.4f}")
print(f"kl at step 1: {healthy['kl'][0]:.4f}   steps with kl above 0: {sum(k > 0 for k in healthy['kl'])} of 150")
print(f"highest mean reward of thumbs up: {max(rewards_up):.4f}   ceiling: {healthy['reward_ceiling']:.4f}")
print(f"lowest mean reward of thumbs down: {min(r for r in healthy['reward_undesirable'] if r is not None):.4f}")
print(f"gradient norm: {healthy['grad_norm'][0]:.4f} at step 1, smallest {min(healthy['grad_norm']):.4f}")

# %% [markdown]
# The ceiling printed here is beta times $-\log \pi_{ref}$ of the **least** likely of all liked replies: no mean of
# their rewards can get past it.
#
# Now walk through. For each exhibit: look, guess, then open the fault, then open the explanation.

# %% [markdown]
# ## Room 1: the score
#
# Seven faults in one number: the log-probability of a reply.

# %% [markdown]
# ### Exhibit 1
#
# The rewards look splendid: thumbs up far above thumbs down. Compare the reward of thumbs up with its ceiling. Then
# read the replies.

# %%
fig = museum.figure(1)
save_figure(fig, "10_exhibit_01", alt=museum.alt_text(1))
plt.show()
print(museum.log(1))

# %%
Markdown(museum.fault(1))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# Without the shift, the distribution at place t is compared with the token at place t, which the model has just read.
# It is rewarded for **repeating the current token**. That can be learned far beyond any ceiling of real replies, and
# it ruins everything else: the shipped model's speech is gone.
#
# Seen in the KTO notebook that is copied most (eight rows, a tiny Llama; it carries no version). A model trained with
# it lowers its loss nicely.
# </details>

# %% [markdown]
# What has it learned instead? A fresh small model, 100 steps on the eight rows of lesson 03, with the fault and
# without. At each completion token: is the model's best guess the token it has just read, or the next one?

# %%
rows = load_eight_rows()
liked = [tokenize_feedback(row, tokenizer) for row in rows if row["label"]]


def guesses(model):
    """Shares of completion tokens whose best guess is (the token itself, the token after it)."""
    own = after = places = 0
    for example in liked:
        ids = torch.tensor(example["input_ids"])
        with torch.no_grad():
            best = model(input_ids=ids[None]).logits[0].argmax(-1)
        inside = torch.tensor(example["label_mask"], dtype=torch.bool)[:-1]
        own += int((best[:-1] == ids[:-1])[inside].sum())
        after += int((best[:-1] == ids[1:])[inside].sum())
        places += int(inside.sum())
    return own / places, after / places


# %%
for name in (None, "no_shift"):
    with applied(MUTANTS.get(name)):
        model = to_float64(tiny_llama(len(tokenizer), hidden_size=64, intermediate_size=128))
        model, history = train_kto(
            model, reference_of(model), rows, tokenizer, steps=100, batch_size=8, learning_rate=1e-3,
            desirable_weight=5 / 3,
        )  # fmt: skip
    own, after = guesses(model)
    print(f"{name or 'correct':9s} loss {history[0]['loss']:.3f} -> {history[-1]['loss']:.3f}   "
          f"guesses the current token {own:4.0%}, the next {after:4.0%}")  # fmt: skip

# %% [markdown]
# Both losses fall to almost nothing. The loss cannot tell you; a glance at what the model predicts can.

# %% [markdown]
# ### Exhibit 2
#
# Everything is small here: the rewards, the gradient. And yet the model changes. Compare the three draws.

# %%
fig = museum.figure(2)
save_figure(fig, "10_exhibit_02", alt=museum.alt_text(2))
plt.show()
print(museum.log(2))

# %%
Markdown(museum.fault(2))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# Dividing by the number of completion tokens in the **batch** makes every log-ratio some hundred times smaller: like
# a beta a hundred times smaller. The sigmoid is then a straight line. Nothing saturates, so nothing ever lets go of a
# row, and the score of a row depends on who sits beside it. (Adam rescales small gradients, which is why the model
# moves all the same.)
#
# Seen in the same notebook: `mask / mask.sum()`.
# </details>

# %% [markdown]
# ### Exhibit 3
#
# A milder cousin of exhibit 2. What do you see at the first step?

# %%
fig = museum.figure(3)
save_figure(fig, "10_exhibit_03", alt=museum.alt_text(3))
plt.show()
print(museum.log(3))

# %%
Markdown(museum.fault(3))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# The mean over a reply's own tokens. Log-probabilities of a sequence **add**; a mean is no log-probability of
# anything. It acts like a beta divided by the length, a different one for each row: long replies whisper.
#
# KTO and DPO both sum. That is easy to get wrong by reading: TRL's documentation has called the logged sums averages
# (noted at 1.9 and 1.16; its code sums).
# </details>

# %% [markdown]
# ### Exhibit 4
#
# Between exhibits 2 and 3 in size. The kl is small, the rewards too.

# %%
fig = museum.figure(4)
save_figure(fig, "10_exhibit_04", alt=museum.alt_text(4))
plt.show()
print(museum.log(4))

# %%
Markdown(museum.fault(4))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# The sigmoid belongs around the sum of a reply. Here it is applied to every cell of the (B, T) table, prompt and
# padding included, and then averaged. Cells without a score are constants, so they only water the loss down; and a
# sigmoid of a sum is no mean of sigmoids.
#
# Seen in the same notebook, together with exhibits 1 and 2.
# </details>

# %% [markdown]
# ### Exhibit 5
#
# Compare three things with the healthy run: the first gradient, the sign of the rewards, the ceiling.

# %%
fig = museum.figure(5)
save_figure(fig, "10_exhibit_05", alt=museum.alt_text(5))
plt.show()
print(museum.log(5))

# %%
Markdown(museum.fault(5))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# With the prompt scored too, "make this reply likelier" becomes "make this **question** likelier". A question gets
# both kinds of thumb, so the two pull at the same tokens. And a prompt is long and was never likely, so its log-ratio
# can grow past every ceiling of a reply.
#
# We know of no public case to cite. The check is one line: count the scored tokens of a row and decode them.
# </details>

# %% [markdown]
# ### Exhibit 6
#
# Take your time. Is there anything?

# %%
fig = museum.figure(6)
save_figure(fig, "10_exhibit_06", alt=museum.alt_text(6))
plt.show()
print(museum.log(6))

# %%
Markdown(museum.fault(6))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# Pad is set equal to eos, a common habit, and then "every pad is masked" masks the real end of the reply as well. In
# this run nobody notices: the shipped model already knows how to stop, and no reply is liked or disliked for its end.
#
# Threads about BOS, EOS and truncation: TRL issues 1591, 1418, 2093 and 6321. A mask made from the text's own length
# does not have the problem, whatever pad is (lesson [04](04_collator.ipynb)).
# </details>

# %% [markdown]
# The same word changed does harm where a model has yet to **learn** to stop. Sixty steps of SFT from scratch, and
# then the exact chance that the model ends a complete reply:

# %%
ends = []
for question in trained_questions():
    reply = next(reply for reply in replies(question) if reply.thumbs_up)
    ends.append(tokenize_feedback({"prompt": question.prompt, "completion": reply.text, "label": True}, tokenizer))

for name in (None, "eos_unscored"):
    with applied(MUTANTS.get(name)):
        model = to_float64(tiny_llama(len(tokenizer), hidden_size=64, intermediate_size=128))
        model, _ = train_sft(model, sft_rows(10, seed=0), tokenizer, steps=60, batch_size=32)
    chances = []
    for row in ends:
        with torch.no_grad():
            last = model(input_ids=torch.tensor([row["input_ids"][:-1]])).logits[0, -1].softmax(-1)
        chances.append(float(last[tokenizer.eos_token_id]))
    print(f"{name or 'correct':12s} chance to end a finished reply: {sum(chances) / len(chances):.4f}")

# %% [markdown]
# ### Exhibit 7
#
# The reward of thumbs up climbs past its ceiling, as in exhibit 1. But these replies can be read. The first gradient
# says more.

# %%
fig = museum.figure(7)
save_figure(fig, "10_exhibit_07", alt=museum.alt_text(7))
plt.show()
print(museum.log(7))

# %%
Markdown(museum.fault(7))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# The tokens behind a short reply are all the same pad, and no model was ever asked to predict them. Scored, they can
# move the log-ratio by many nats, the more the shorter the reply beside its neighbours. The loss is then mostly about
# padding.
#
# In the most copied notebook padding enters as constants (exhibit 4). Scoring it outright we have seen nowhere by
# name.
# </details>

# %% [markdown]
# ## Room 2: the reference
#
# "Relative to what?" is half of KTO.

# %% [markdown]
# ### Exhibit 8
#
# Look at step 1, before anything was learned.

# %%
fig = museum.figure(8)
save_figure(fig, "10_exhibit_08", alt=museum.alt_text(8))
plt.show()
print(museum.log(8))

# %%
Markdown(museum.fault(8))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# The reference is not the model we started from but a second random one. "Stay close to the reference" then means
# "stay close to a stranger". At step 1 the log-ratios should be exactly 0; here the kl alone is dozens of nats.
#
# Seen in the same notebook: policy and reference are two independently drawn models.
# </details>

# %% [markdown]
# ### Exhibit 9
#
# Rewards and kl are a clean zero, all the time. Does the model stand still?

# %%
fig = museum.figure(9)
save_figure(fig, "10_exhibit_09", alt=museum.alt_text(9))
plt.show()
print(museum.log(9))

# %%
Markdown(museum.fault(9))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# Policy and reference are **one object**. The log-ratio is always 0, so the loss is always half the mean weight of
# the batch; it jumps only because batches hold different thumbs. But the gradient flows through the policy's half of
# the log-ratio, at full strength, for ever: nothing saturates, since nothing ever seems to have moved. The model
# walks away, unwatched.
#
# The reference of the most copied notebook is neither frozen nor run without gradient. TRL 1.16 refuses a reference
# that is the same object as the policy, and so does our `check_reference`.
# </details>

# %% [markdown]
# ### Exhibit 10
#
# The same clean zeros. One panel differs from exhibit 9.

# %%
fig = museum.figure(10)
save_figure(fig, "10_exhibit_10", alt=museum.alt_text(10))
plt.show()
print(museum.log(10))

# %%
Markdown(museum.fault(10))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# Again one object, but this time the reference's half carries a gradient too. The two halves cancel exactly: gradient
# norm 0 at every step, a model that has not changed by one bit, and a loss curve that still wiggles like a real one.
#
# A "fix" from an issue thread ends in the same place: `loss.requires_grad_(True)` on a loss without a graph silences
# the error and trains nothing (TRL issue 1722).
# </details>

# %% [markdown]
# ## Room 3: the reference point
#
# All about $z_0$. Most of these runs end well. Ask yourself how you would ever find out.

# %% [markdown]
# ### Exhibit 11
#
# Does it hurt?

# %%
fig = museum.figure(11)
save_figure(fig, "10_exhibit_11", alt=museum.alt_text(11))
plt.show()
print(museum.log(11))

# %%
Markdown(museum.fault(11))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# The gradient also flows through z0: each row is pushed, and all rows together are pushed the other way through the
# reference point. With the clamp at 0 most of the time there is nothing to flow through.
#
# Not an accident everywhere: the first form of KTO, of December 2023, let the gradient through on purpose (HALOs
# commit d49576f, TRL's `kto_pair` of pull request 1075). The form of January 2024 stops it (HALOs bc68c05, TRL pull
# request 1181).
# </details>

# %% [markdown]
# ### Exhibit 12
#
# And this one?

# %%
fig = museum.figure(12)
save_figure(fig, "10_exhibit_12", alt=museum.alt_text(12))
plt.show()
print(museum.log(12))

# %%
Markdown(museum.fault(12))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# z0 is estimated from the rows' own replies instead of mismatched ones. Those replies are the very ones being pushed:
# the mean of their log-ratios is no background level. With many thumbs down it sinks below 0 at once, and the clamp
# makes it 0.
#
# Seen in the most copied notebook. TRL 1.16.0 gets there in two corners: a last batch of one row is matched with
# itself, and so are rows at the seams when the data set is mapped by several processes.
# </details>

# %% [markdown]
# ### Exhibit 13
#
# Look at the kl alone.

# %%
fig = museum.figure(13)
save_figure(fig, "10_exhibit_13", alt=museum.alt_text(13))
plt.show()
print(museum.log(13))

# %%
Markdown(museum.fault(13))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# Each row's log-ratio is clamped, then averaged. The mean of positive parts is positive even when the mean is not, so
# kl is above 0 nearly always: a constant extra bar for every row. The order matters: first the mean, then the clamp.
#
# We know of no public case to cite; it is the natural slip when one rewrites the formula.
# </details>

# %% [markdown]
# Two rows are enough to see it. One mismatched log-ratio of -3 nats, one of +5:

# %%
for name in (None, "clamp_before_mean", "no_clamp"):
    with applied(MUTANTS.get(name)):
        pair = reference_point(torch.tensor([-3.0, 5.0]), torch.zeros(2))
        both_low = reference_point(torch.tensor([-3.0, -5.0]), torch.zeros(2))
    print(f"{name or 'correct':17s} k = (-3, 5): z0 = {pair:5.2f}     k = (-3, -5): z0 = {both_low:5.2f}")

# %% [markdown]
# ### Exhibit 14
#
# This one needs no question.

# %%
fig = museum.figure(14)
save_figure(fig, "10_exhibit_14", alt=museum.alt_text(14))
plt.show()
print(museum.log(14))

# %%
Markdown(museum.fault(14))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# Without the clamp, z0 follows the mean of the mismatched log-ratios wherever it goes. Disliked replies sink,
# mismatched ones sink with them, z0 sinks below every row, and now **all** rows seem to have improved: thumbs up look
# excellent, thumbs down look terrible, and all of them are saturated.
#
# KL is never negative; an estimate of it that goes to minus sixty nats has left its meaning behind. The clamp is
# missing in the most copied notebook and in study notes that print the estimator.
# </details>

# %% [markdown]
# ### Exhibit 15
#
# The batch has 15 rows. Why would that matter?

# %%
fig = museum.figure(15)
save_figure(fig, "10_exhibit_15", alt=museum.alt_text(15))
plt.show()
print(museum.log(15))

# %%
Markdown(museum.fault(15))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# Completions are reversed instead of rotated. In an odd batch the middle row keeps its own: one log-ratio in fifteen
# is a matched one. In an even batch nothing at all is wrong.
#
# TRL issue 1911, mended by pull request 1970 (commit cf5168e, August 2024); LLaMA-Factory took the fix over in 7509.
# </details>

# %% [markdown]
# A log will not show it, a look at five rows does:

# %%
five = [tokenize_feedback(row, tokenizer) for row in load_eight_rows()[:5]]


def completion(row):
    return [token for token, scored in zip(row["input_ids"], row["label_mask"], strict=True) if scored]


for name in (None, "reversed_completions"):
    with applied(MUTANTS.get(name)):
        mixed = mismatched(five)
    kept = [i for i in range(5) if completion(mixed[i]) == completion(five[i])]
    print(f"{name or 'correct':21s} rows that keep their own completion: {kept}")

# %% [markdown]
# ## Room 4: data and weights
#
# Here the loss is right, line by line.

# %% [markdown]
# ### Exhibit 16
#
# Half of the log is missing. Which half, and when?

# %%
fig = museum.figure(16)
save_figure(fig, "10_exhibit_16", alt=museum.alt_text(16))
plt.show()
print(museum.log(16))

# %%
Markdown(museum.fault(16))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# Pairs were cut into thumbs in two blocks, all chosen first, and nobody shuffles. So a long row of batches holds
# thumbs up only, and then a long row thumbs down only. Each block drags the model one way, with nobody to hold the
# other end.
#
# With TRL 1.16.0 a paired data set takes this road: rows are unpaired in blocks of a thousand and read in order,
# since pull request 2248 (October 2024) removed the shuffle. For 2,500 pairs and batches of 8, one batch in 625 holds
# both kinds. Shuffle before you hand the data over. NaN from one-sided batches: TRL issue 1447.
# </details>

# %% [markdown]
# ### Exhibit 17
#
# The weights were left alone. What is the first loss, and what does it tell you about them?

# %%
fig = museum.figure(17)
save_figure(fig, "10_exhibit_17", alt=museum.alt_text(17))
plt.show()
print(museum.log(17))

# %%
Markdown(museum.fault(17))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# 933 thumbs down, 267 up, all of weight 1: the push downwards wins by more than three to one. Lesson
# [07](07_train.ipynb) takes this collapse apart. A first loss of exactly 0.5 gives it away: both weights are 1.
#
# Weights that do not arrive are a family of their own: with the fused kernel of TRL 1.8 to about 1.12 they were
# silently ignored (mended by pull request 7062, September 2026). Questions about them: LLaMA-Factory 6245, ms-swift
# 2167.
# </details>

# %% [markdown]
# ## Room 5: the loss and the optimiser

# %% [markdown]
# ### Exhibit 18
#
# Rewards are right at first. Where does it part from the healthy run?

# %%
fig = museum.figure(18)
save_figure(fig, "10_exhibit_18", alt=museum.alt_text(18))
plt.show()
print(museum.log(18))

# %%
Markdown(museum.fault(18))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# The caller already multiplied by beta, and the loss does it again: an effective beta of 0.01. The first gradient is
# a tenth of the healthy one, and rows saturate ten times later, so thumbs down sink much further.
#
# The trap is in the units. TRL logs `rewards/*` with beta and `kl` without it (1.9 and 1.16); the authors' HALOs logs
# rewards without it. Never put the two on one axis.
# </details>

# %% [markdown]
# ### Exhibit 19
#
# Spot the difference, if you can.

# %%
fig = museum.figure(19)
save_figure(fig, "10_exhibit_19", alt=museum.alt_text(19))
plt.show()
print(museum.log(19))

# %%
Markdown(museum.fault(19))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# Beta must stand outside the bracket: $\beta (r - z_0)$. Here $z_0$ is subtracted in raw nats, ten times too heavy.
# While the clamp keeps z0 at 0 nothing differs; a kl of 2 nats would shift the argument by 2 instead of 0.2.
#
# We know of no public case to cite. The unit test: $L(\beta, r, k) = L(1, \beta r, \beta k)$.
# </details>

# %% [markdown]
# ### Exhibit 20
#
# The first loss is off. Compute it: how does it relate to the healthy one?

# %%
fig = museum.figure(20)
save_figure(fig, "10_exhibit_20", alt=museum.alt_text(20))
plt.show()
print(museum.log(20))

# %%
Markdown(museum.fault(20))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# $-\log \sigma(u)$ instead of $1 - \sigma(u)$: DPO's habit. At step 0 it is $w \ln 2$ instead of $w / 2$. It never
# gives up on hopeless rows, as DPO does not (lesson [08](08_kto_vs_dpo.ipynb)). In the small world with honest thumbs
# that does little harm.
#
# It is an ablation of the paper, reported to cost about 9 points on BBH and 11 on GSM8K for a large model. Reported,
# not measured by us.
# </details>

# %% [markdown]
# ### Exhibit 21
#
# Read the gradient norm. And the kl. And both rewards.

# %%
fig = museum.figure(21)
save_figure(fig, "10_exhibit_21", alt=museum.alt_text(21))
plt.show()
print(museum.log(21))

# %%
Markdown(museum.fault(21))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# At the first step all weights jump, and every reply, liked or not, becomes almost impossible. All rows are
# saturated, so no gradient is left to mend it. The loss is now the weighted share of thumbs down or up in the batch,
# whatever the model does; that it wiggles below its start is no progress.
#
# A public run looks exactly like this: the trainer state of Weni/WeniGPT-Agents-Zephyr-1.0.9-KTO, with learning rate
# 1.8e-4 for a large model, logs both rewards falling to about -160, kl 0.0 and a gradient norm of 0.0.
# </details>

# %% [markdown]
# Our log is in float64 and shows how small "no gradient" is. A log in float32 would say:

# %%
norms = museum.of_number(21)["grad_norm"]
for step in (1, 2, 5, 20, 150):
    in_float32 = torch.tensor(norms[step - 1], dtype=torch.float32).item()
    print(f"step {step:3d}: gradient norm {norms[step - 1]:8.1e}   in float32 {in_float32:.1e}")

# %% [markdown]
# ## The last room: what no log says
#
# Back to your two numbers. First: how many of the 21 end with a clearly worse model? We count a thumbs-up rate at least
# 0.1 below the healthy one, and look at all three draws.

# %%
table = museum.triage()
WORSE = "thumbs-up rate 0.1 or more below the healthy one"
always = [number for number, draws in table[WORSE].items() if draws == 3]
sometimes = [number for number, draws in table[WORSE].items() if draws < 3]
print(f"worse in all three draws: {len(always)} of {len(MUTANTS)}: {always}")
print(f"worse in one or two:      {len(sometimes)}: {sometimes}")

# %% [markdown]
# Second: which would you never suspect? We take all signs that can be read from a log, and list the exhibits that show
# none of them in any draw.

# %%
outcome = {WORSE, "replies broken"}
signs_of = {number: {sign for sign in table if number in table[sign]} - outcome for number in range(1, 22)}
silent = [number for number in signs_of if not signs_of[number]]
names = list(MUTANTS)
for number in silent:
    print(f"exhibit {number:2d}  {names[number - 1]}")

# %% [markdown]
# Did they do harm? Look at all three draws, and at a control: a change that is no fault (the completion of the row
# after, instead of the row before).

# %%
runs = museum.load_results()
print("exhibit                       draw 0   draw 1   draw 2")
shown = sorted({*silent, 13, 19})
for name in ("correct_thumbs", "control", *(names[number - 1] for number in shown)):
    number = f"{names.index(name) + 1:2d}" if name in names else "  "
    rates = "    ".join(f"{runs[name, seed]['thumbs_up']:.3f}" for seed in museum.SEEDS)
    print(f"{number} {name:25s} {rates}")

# %% [markdown]
# On draws 1 and 2 they cannot be told from the healthy run. Draw 0 is restless: there even the control, which is no
# fault, ends somewhere else than the healthy run. **The score of one run is no test.** Had you tried exhibit 19 on
# draw 0 alone, you would have "shown" that it does great harm; on draw 1 alone, that it does none.

# %% [markdown]
# That is the sober end of the tour: for these, staring at curves is no use, and in another world they may do harm. What
# catches them is a **test** that knows the answer beforehand. Every exhibit of this
# museum turns at least one test of this course red; here is one for each silent one:

# %%
for number in silent:
    print(f"exhibit {number:2d}  {MUTANTS[names[number - 1]].caught_by[0].split('.test_')[1].replace('_', ' ')}")

# %% [markdown]
# The sentences are names of tests in `tests/test_properties.py` (p stands for property). `tests/test_mutants.py` puts
# every fault into the code, runs the tests it names, and fails if one of them stays green.

# %% [markdown]
# ## Triage: from the log to the fault
#
# Which exhibits show which sign? The column "exhibits" is computed from all stored runs: a number stands there if the
# sign was seen in at least two draws of three. The column "how to tell them apart" is ours.

# %%
TELL_APART = {
    "first loss is not half the mean weight": "rewards 0 at step 1: the loss formula; not 0: the reference",
    "first loss 0.5 although counts are uneven": "the weights did not arrive, or were never set",
    "kl above 0 at step 1": "the reference is not the model you started from",
    "first gradient under a third of the healthy one": "exactly 0: two halves cancel; a tenth: beta twice, or a "
    "mean over a reply's tokens; a hundredth: divided by the batch",
    "first gradient over twice the healthy one": "more is scored than the reply; decode the scored tokens",
    "kl below 0": "the clamp is missing",
    "kl above 0 at nine steps in ten": "each row clamped before the mean",
    "kl 0 at all but three steps or fewer": "no proof alone, healthy runs have many such steps. All rewards 0: one "
    "object. All saturated: dead. Else suspect z0 from matched rows",
    "all rewards exactly 0": "policy and reference are one object; gradient norm 0: nothing trains; above 0: the model "
    "moves unseen",
    "rewards move, but never beyond 0.2": "the score is divided by something",
    "a reward above its ceiling": "the score counts what is no reply (shift, prompt, padding), or the reference is a "
    "stranger",
    "both rewards end below -0.2": "collapse: weights, order of the data, or learning rate",
    "most batches hold one kind of thumb": "nobody shuffles",
    "all rows saturated at the end": "collapse, or a reference point far from all rows",
    "gradient norm below 0.01 at the end": "all saturated: the run is dead; not saturated: the score is divided",
    "replies broken": "read them: repeated words, or bytes that are no text",
    "thumbs-up rate 0.1 or more below the healthy one": "the only sign that counts, and a log does not hold it",
}

lines = ["| sign | exhibits | how to tell them apart |", "|---|---|---|"]
for sign, advice in TELL_APART.items():
    shown = [str(number) for number, draws in table[sign].items() if draws >= 2]
    lines.append(f"| {sign} | {', '.join(shown)} | {advice} |")
Markdown("\n".join(lines))

# %% [markdown]
# Signs at step 1 cost no training at all. How much of the collection do they find?

# %%
at_step_1 = [sign for sign in TELL_APART if sign.startswith("first") or sign.endswith("at step 1")]
found = sorted({number for sign in at_step_1 for number, draws in table[sign].items() if draws >= 2})
print(f"{len(found)} of {len(MUTANTS)}: {found}")

# %% [markdown]
# The order of a real triage: **first loss, first kl, first gradient; then the ceiling; then the pair of rewards; then
# the replies.** And before all of it: decode one batch and read it.

# %% [markdown]
# ## Make an exhibit of your own
#
# A mutant is an `Edit`: a function, the right words, the wrong words. Here thumbs up and down change places. What will
# the rewards do, and what will the loss do? Guess, look, and then change it to something of your own.

# %%
mine = Mutant(
    "upside_down", "Thumbs up and down change places.",
    (Edit("losses.kto_loss", "sign = 2.0 * up - 1.0", "sign = 1.0 - 2.0 * up"),), caught_by=(),
)  # fmt: skip
_, record = museum.train(mine, seed=0, steps=20)
print("step    loss   healthy   reward up   healthy   reward down   healthy")
for step in (1, 10, 20):
    cells = (f"{run[column][step - 1]:9.4f}" for column in ("loss", "reward_desirable", "reward_undesirable")
             for run in (record, healthy))  # fmt: skip
    print(f"{step:4d}", *cells)

# %% [markdown]
# The rewards are upside down; the loss looks like any other. It measures how well the model does what the code says,
# not what you meant.

# %% [markdown]
# ## Recap
#
# 1. At step 1 the loss is half the mean weight and kl is 0. Anything else is a fault of reference, score or loss.
# 2. A reward of thumbs up above beta times $-\log \pi_{ref}$ is impossible: the score counts what it should not.
# 3. Rewards that are exactly 0 mean one object for policy and reference; the gradient norm says which kind.
# 4. Both rewards far below 0 with a vanishing gradient is collapse: weights, order of the data, or learning rate.
# 5. Several faults leave no trace in a log. Tests with known answers find them; curves do not.

# %% [markdown]
# ## Questions an interviewer asks
#
# <details><summary>kl is 0 in your KTO log for a hundred steps. Is something broken?</summary>
#
# Not necessarily. The mismatched log-ratios have a negative mean after targeted learning, and the clamp makes it 0.
# Broken is a kl above 0 at step 1, a negative one, or one that is never 0.
# </details>
#
# <details><summary>The loss is exactly 0.5 at every step. What do you check first?</summary>
#
# Whether policy and reference are the same object. Then the gradient norm: 0 means that both halves carry gradient, or
# nothing does; above 0 means that the model moves unseen. With both weights 1 only the first loss should be 0.5.
# </details>
#
# <details><summary>Reward of thumbs up climbs to 5 at beta 0.1. Good news?</summary>
#
# That is 50 nats: the reply would have become e^50 times likelier than under the reference, so the reference gave it
# less than e^-50. Possible for a long reply, impossible for a short one that the reference wrote itself. Check shift,
# mask, padding and reference.
# </details>
#
# <details><summary>Both rewards fall together and the gradient norm goes to 0. Causes?</summary>
#
# Learning rate too high; weights that leave one side far heavier; batches that hold one kind at a time. First loss and
# NaN rewards tell the last two apart from the first.
# </details>
#
# <details><summary>How would you test an implementation of KTO without training?</summary>
#
# Step 0: loss half the mean weight, kl 0. A perfect next-token model scores 0. Add padding, change neighbours, permute:
# nothing moves. Gradient against the closed form. A case file with known answers, and one batch against TRL.
# </details>
#
# <details><summary>Which faults would such unit tests of the loss not find?</summary>
#
# Those outside it: a wrong mask, a missing end token, an unshuffled data set, a reference that is the policy. They need
# tests from text to loss.
# </details>

# %% [markdown]
# ## Sources
#
# - TRL: issues 1911, 1447, 1722, 1591, 1418, 2093, 6321; pull requests 1075, 1181, 1970, 2248, 7062; behaviour of
#   1.16.0 as run, documentation as read at 1.9 and 1.16.
# - HALOs (the authors' code): commits d49576f and bc68c05. LLaMA-Factory 7509, 6245. ms-swift 2167.
# - Trainer state of Weni/WeniGPT-Agents-Zephyr-1.0.9-KTO on the Hugging Face hub.
# - Ethayarajh et al., arXiv 2402.01306, current version (ablation with a concave value function, as reported).
# - All curves, numbers and signs: `kto_utils/assets/museum_results.json`, computed by `python course.py museum`.
#
# **Where next?** Lesson [06](06_kto_loss.ipynb) derives what the tests check. `tests/conformance` holds a case file
# with which you can test an implementation of your own, in any language.
