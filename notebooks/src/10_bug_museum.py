# %% [markdown]
# # 10 · The bug museum
#
# Read the logs of 21 runs that went wrong, guess the fault, open it, and learn which faults a log does not give away.

# %% [markdown]
# **You will be able to**
# - check five things in the log of a KTO run, three of them at the first step,
# - name the likely faults behind a strange log, and say how to tell them apart,
# - say which faults a log does not give away, and what catches them instead,
# - explain how a few changed words can make "KTO training" train something else.
#
# **You need first** the score of lesson [05](05_get_probs.ipynb), the loss of lesson [06](06_kto_loss.ipynb) and the
# log of lesson [07](07_train.ipynb).
#
# **Time** {{times}}.
# Each room stands alone: one a day is fine.

# %% [markdown]
# **Before you run anything.** In this museum hang 21 training runs. In each, one small thing is wrong: mostly a word, a
# sign or an index. How many of them end with a model that is clearly worse than the healthy one? And how many would
# you never suspect from their log? The cells below the imports take your guesses.

# %%
import inspect

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown

from kto_course import check, predict, reveal
from kto_lab import museum
from kto_lab.mutants import MUTANTS, Edit, Mutant, applied
from kto_utils import losses
from kto_utils.collator import mismatched
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.logprobs import get_probs
from kto_utils.losses import reference_point
from kto_utils.model import load_reference_model, reference_of, tiny_llama, to_float64
from kto_utils.plotting import save_figure, use_course_style
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import train_kto, train_sft
from kto_utils.world import replies, sft_rows, trained_questions

use_course_style()
torch.set_default_dtype(torch.float64)
tokenizer = load_tokenizer()

# %%
predict(
    "museum_clearly_worse",
    "How many of the 21 end 0.1 or more below the healthy thumbs-up rate, in each of three draws?",
    ["2 or fewer", "3 to 7", "8 to 13", "14 or more"], guess=None, confidence=None,
)  # fmt: skip

# %%
predict(
    "museum_silent", "How many of the 21 show no sign of trouble in their log, in any of three draws?",
    ["none", "1 or 2", "3 to 6", "7 or more"], guess=None, confidence=None,
)  # fmt: skip

# %% [markdown]
# ## How the museum works
#
# Every exhibit is the course's own code with a few words changed; nothing is imitated. While the run lasts, the edited
# function takes the place of the original everywhere: trainer, collator and loss all see the fault.
#
# The run is always the same: the shipped model, 1,200 thumbs on its own replies, weights from the counts (933/267 for a
# thumb up, 1 for a thumb down), 200 steps, batches of 15, beta 0.1, a learning rate that falls to 0. Each exhibit ran
# on three draws of the thumbs; what hangs on the wall is the first draw. (Exhibits 16 and 17 say what they change.)
#
# A word before you enter. Several of these faults once stood together in one widely shared notebook (eight rows, a tiny
# Llama). We do not name it: its author explained KTO in public, which is why others can learn from it. And it happens
# to everybody: the default learning rate of this course's own trainer was three times higher until this museum was
# built, and some draws of the thumbs collapsed under it. The test behind exhibit 21 refuses it now.

# %% [markdown]
# All runs together take minutes, so their logs lie in a results file. Do not take its word for it: run the first two
# steps of any exhibit here, and compare.

# %%
exhibit = 18  # any number from 0 to 21
_, fresh = museum.train(MUTANTS[museum.of_number(exhibit)["name"]], seed=0, steps=2)
stored, healthy = museum.of_number(exhibit), museum.of_number(0)
for step in range(2):
    print(f"step {step + 1}: gradient norm here {fresh['grad_norm'][step]:.5f}, "
          f"in the file {stored['grad_norm'][step]:.5f}, healthy {healthy['grad_norm'][step]:.5f}")  # fmt: skip
assert fresh["grad_norm"] == stored["grad_norm"][:2]

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
# Below the log stand sampled replies to three questions. The score itself, the exact thumbs-up rate on the trained
# questions, is not in any log:

# %%
print(museum.ending(0))
for reply in museum.before_training()["replies"]:
    print(f"before training: {reply}")

# %% [markdown]
# Five things to read in such a log (log **every** step, and switch dropout off):
#
# 1. **The first loss** is half the mean weight of the batch, since policy and reference still agree.
# 2. **The first kl** is 0, for the same reason. Later it is small here, and often exactly 0, because of the clamp.
# 3. **The reward of thumbs up** has a ceiling, the dotted line. No reply can become likelier than certain, so
#    $\beta\,r = \beta\,(\log \pi - \log \pi_{ref}) \le -\beta \log \pi_{ref}$.
# 4. **The reward of thumbs down** falls and has no floor.
# 5. **The gradient norm** jumps about but does not die.

# %%
rewards_up = [reward for reward in healthy["reward_desirable"] if reward is not None]
print(f"half the mean weight of batch 1: {healthy['half_mean_weight']:.4f}   first loss: {healthy['loss'][0]:.4f}")
print(f"kl at step 1: {healthy['kl'][0]:.4f}   steps with kl above 0: {sum(k > 0 for k in healthy['kl'])} of 200")
print(f"highest mean reward of thumbs up: {max(rewards_up):.4f}   ceiling: {healthy['reward_ceiling']:.4f}")
print(f"gradient norm: smallest {min(healthy['grad_norm']):.4f}, largest {max(healthy['grad_norm']):.4f}")

# %% [markdown]
# The ceiling printed here is beta times $-\log \pi_{ref}$ of the **least** likely of all liked replies: no mean of
# their rewards can get past it. It is the same in all exhibits. (Saturated, the last column of the log, is the share of
# rows whose gradient factor is under a tenth of its maximum: lesson [07](07_train.ipynb).)
#
# Now walk through. For each exhibit: look, guess, open the fault, then open the explanation.

# %% [markdown]
# ### Exercise 10.1 · How high can a reward climb?
# ★☆☆ · 3 minutes · predict a number
#
# The reference gives a liked reply the probability 0.02. Beta is 0.1. What is the highest reward that this reply can
# reach in a log, however long you train?

# %% exercise="reward_ceiling"
answer = ...  # a number
### BEGIN SOLUTION
answer = -0.1 * torch.tensor(0.02).log()
### END SOLUTION

# %% check="reward_ceiling" points=1
check.reward_ceiling(answer)

# %% [markdown]
# ## Room 1: the score
#
# Seven faults in one number: the log-probability of a reply. (Room titles tell you where to look. Find what.)

# %% [markdown]
# ### Exhibit 1
#
# Thumbs up far above thumbs down: splendid? Compare the reward of thumbs up with the dotted line. Then read the
# replies.

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
# It is pushed towards **repeating the current token**, which can be learned far beyond the ceiling of any reply, and
# it loses its speech on the way. The back room below shows the repeating.
#
# Seen: in the notebook mentioned at the door.
# </details>

# %% [markdown]
# ### Exhibit 2
#
# By which factor is the first gradient too small? What could divide by that?

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
# Dividing by the number of completion tokens in the **batch** makes every log-ratio more than a hundred times
# smaller, like a beta a hundred times smaller. The sigmoid is then almost a straight line, so hardly any row
# saturates. And the score of a row depends on who sits beside it.
#
# Seen: in the same notebook, as `mask / mask.sum()`.
# </details>

# %% [markdown]
# ### Exhibit 3
#
# And this first gradient: which number divides here?

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
# anything. It acts like a beta divided by the length, a different one for each row, so long replies whisper. KTO and
# DPO both sum.
#
# Seen: easy to get wrong by reading, since TRL's documentation calls the logged sums averages.
# </details>

# %% [markdown]
# ### Exhibit 4
#
# Between exhibits 2 and 3. How many cells does a batch have, counting every place of every row?

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
# padding included, and then averaged. The first gradient is that of the healthy run divided by T - 1, the number of
# places in a row. (The logged rewards and kl are means over cells too, so part of their smallness is the log's.)
#
# Seen: in the same notebook, together with exhibits 1 and 2.
# </details>

# %% [markdown]
# ### Exhibit 5
#
# The first gradient is far too large. Which tokens other than the reply's could be scored?

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
# With the prompt scored too, "make this reply likelier" becomes "make this **question** likelier". Questions were
# never trained to be likely, so there is a lot to gain, and the ceiling of a reply does not hold for them.
#
# Seen: we know of no public case to cite. The check: decode the scored tokens of one row. The back room does it.
# </details>

# %% [markdown]
# ### Exhibit 6
#
# Different from the grey run, yes. But would you suspect it without the grey?

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
# Every eos token is masked, the real end of the reply too. The shipped model already knows how to stop, and no reply
# in these rows is liked or disliked for its end, so nothing goes wrong here. Where a model has yet to learn to stop
# it does: see the back room.
#
# Seen: threads about BOS, EOS and truncation are many (TRL 1591, 1418, 2093, 6321), none of them exactly this. A mask
# made from the lengths does not have the problem, whatever pad is (lesson [04](04_collator.ipynb)).
# </details>

# %% [markdown]
# ### Exhibit 7
#
# The reward of thumbs up passes the dotted line again. But these replies can be read.

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
# The tokens behind a short reply are all pad, and no model was ever asked to predict them. Scored, they move the
# log-ratio by many nats, the more the shorter a reply is beside its neighbours. The ceiling proves it: what a liked
# row has above 0.28 cannot come from its reply.
#
# Seen: padding enters the loss in the same notebook, as constants. Scoring it outright we have seen nowhere.
# </details>

# %% [markdown]
# ### The back room: three closer looks
#
# **Exhibit 1.** A fresh small model, 100 steps on the eight rows of lesson 03, with the fault and without. At each
# completion token: is the model's best guess the token it has just read, or the next one?

# %%
rows = load_eight_rows()
liked = [tokenize_feedback(row, tokenizer) for row in rows if row["label"]]


def guesses(model):
    """Shares of completion tokens at which the model's best guess is (the same token, the next one)."""
    same = after = places = 0
    for example in liked:
        ids = torch.tensor(example["input_ids"])
        with torch.no_grad():
            best = model(input_ids=ids[None]).logits[0].argmax(-1)
        inside = torch.tensor(example["label_mask"], dtype=torch.bool)[:-1]
        same += int((best[:-1] == ids[:-1])[inside].sum())
        after += int((best[:-1] == ids[1:])[inside].sum())
        places += int(inside.sum())
    return same / places, after / places


# %%
for exhibit in (0, 1):
    with applied(museum.mutant(exhibit)):
        model = to_float64(tiny_llama(len(tokenizer), hidden_size=64, intermediate_size=128))
        model, history = train_kto(
            model, reference_of(model), rows, tokenizer, steps=100, batch_size=8, learning_rate=1e-3,
            desirable_weight=5 / 3,
        )  # fmt: skip
    same, after = guesses(model)
    print(f"exhibit {exhibit}: loss {history[0]['loss']:.3f} -> {history[-1]['loss']:.3f}   "
          f"guesses the current token {same:4.0%}, the next {after:4.0%}")  # fmt: skip

# %% [markdown]
# Both losses fall to almost nothing. The loss cannot tell you; a glance at what the model predicts can.
#
# **Exhibit 5.** Which tokens does a row score, and how likely were they before training?

# %%
model = load_reference_model()
row = tokenize_feedback(
    {"prompt": trained_questions()[0].prompt, "completion": " It is blue. Happy to help!", "label": True}, tokenizer
)
ids, mask = torch.tensor([row["input_ids"]]), torch.tensor([row["label_mask"]])
for name, scored in (("prompt", 1 - mask), ("reply", mask)):
    with torch.no_grad():
        logps = get_probs(model(input_ids=ids).logits, ids, scored)
    text = tokenizer.decode([token for token, inside in zip(ids[0, 1:], scored[0, 1:], strict=True) if inside])
    print(f"{name:6s} {logps.sum():8.1f} nats   {text!r}")

# %% [markdown]
# **Exhibit 6.** The same words changed, where a model has yet to learn to stop: sixty steps of SFT from scratch, and
# then the exact chance that the model ends a complete reply.

# %%
finished = []
for question in trained_questions():
    reply = next(reply for reply in replies(question) if reply.thumbs_up)
    finished.append(tokenize_feedback({"prompt": question.prompt, "completion": reply.text, "label": True}, tokenizer))


def chance_to_end(model):
    """The probability of eos after each finished reply, averaged."""
    chances = []
    for row in finished:
        with torch.no_grad():
            last = model(input_ids=torch.tensor([row["input_ids"][:-1]])).logits[0, -1].softmax(-1)
        chances.append(float(last[tokenizer.eos_token_id]))
    return sum(chances) / len(chances)


# %%
print(f"the shipped model:         {chance_to_end(load_reference_model()):.4f}")
for exhibit in (0, 6):
    with applied(museum.mutant(exhibit)):
        model = to_float64(tiny_llama(len(tokenizer), hidden_size=64, intermediate_size=128))
        model, _ = train_sft(model, sft_rows(10, seed=0), tokenizer, steps=60, batch_size=32)
    print(f"from scratch, exhibit {exhibit}:   {chance_to_end(model):.4f}")

# %% [markdown]
# ## Room 2: the reference
#
# "Relative to what?" is half of KTO.

# %% [markdown]
# ### Exhibit 8
#
# Before any step has been taken, which of policy, reference and data could make a log-ratio differ from 0? And why is
# the first loss nearly right all the same?

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
# The reference is not the model we started from but a stranger. "Stay close to the reference" then means "stay close
# to something that cannot speak". At step 1 all log-ratios should be exactly 0; here kl is dozens of nats. In the
# loss beta times kl nearly cancels the rewards, which is why the first loss looks almost innocent.
#
# Seen: in the same notebook, where policy and reference are two independently drawn models.
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
# the log-ratio at full strength and never fades, since nothing ever seems to have moved. The model walks, unwatched.
#
# Seen: we know of no public case. TRL 1.16 refuses a reference that is the policy, and so does our `check_reference`.
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
# Again one object, but this time the reference's half carries a gradient too. The two halves cancel: gradient norm
# exactly 0, a model that has not moved, and a loss curve that still wiggles like a real one.
#
# Seen: a relative of it. In TRL issue 1722 `loss.requires_grad_(True)` was the "fix", and trained nothing.
# </details>

# %% [markdown]
# ## Room 3: the reference point
#
# All about $z_0$. Two of these five hang the other way round: nobody could guess them, so you get the fault first and
# predict the log.

# %% [markdown]
# ### Exhibit 11
#
# Predict: what will the grey and the green curve have in common?

# %%
Markdown(museum.change(11))

# %%
fig = museum.figure(11)
save_figure(fig, "10_exhibit_11", alt=museum.alt_text(11))
plt.show()
print(museum.log(11))

# %%
print(museum.ending(11))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# The gradient also flows through z0, so the mismatched pairs are pushed too, against the rows. While the clamp holds
# z0 at 0 there is nothing to flow through, and here that is most of the time.
#
# Seen: not always an accident. The first form of KTO, of December 2023, let the gradient through on purpose (HALOs
# commit d49576f, TRL's `kto_pair` of pull request 1075). The form of January 2024 stops it (HALOs bc68c05, TRL 1181).
# </details>

# %% [markdown]
# ### Exhibit 12
#
# Which panel has lost something that the grey run has?

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
# z0 is estimated from the rows' own replies instead of mismatched ones. Those are the very replies being pushed: the
# mean of their log-ratios is no background level. With many thumbs down it soon falls below 0, and the clamp makes it
# 0.
#
# Seen: in the notebook at the door. TRL 1.16.0 gets there in two corners: a last batch of one row is matched with
# itself, and so are rows at the seams when several workers map the data set.
# </details>

# %% [markdown]
# ### Exhibit 13
#
# One panel never does what the grey one does most of the time.

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
# Each row's log-ratio is clamped, then averaged. The mean of positive parts is positive even where the mean is not,
# so kl is above 0 nearly always. The order matters: first the mean, then the clamp.
#
# Seen: we know of no public case; it is the natural slip when one rewrites the formula.
# </details>

# %% [markdown]
# ### Exhibit 14
#
# Which value is impossible for a KL? And who gains from it?

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
# mismatched ones sink with them, z0 sinks too. A liked row now stands far above z0: it counts as won and is pushed
# much less. A disliked row is never far below z0, since z0 runs after it: it is pushed on and on. The back room
# prints it.
#
# Seen: the clamp is missing in the notebook at the door; a study note that prints the estimator does not mention it.
# </details>

# %% [markdown]
# ### Exhibit 15
#
# The batch has 15 rows, an odd number. Predict the log.

# %%
Markdown(museum.change(15))

# %%
fig = museum.figure(15)
save_figure(fig, "10_exhibit_15", alt=museum.alt_text(15))
plt.show()
print(museum.log(15))

# %%
print(museum.ending(15))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# Reversed instead of rotated: in an odd batch the middle row keeps its own completion, and one log-ratio in fifteen
# is a matched one. In an even batch nothing at all is wrong.
#
# Seen: TRL issue 1911, mended by pull request 1970 (commit cf5168e, August 2024); LLaMA-Factory took the fix over in
# 7509.
# </details>

# %% [markdown]
# ### The back room: three closer looks
#
# **Exhibits 13 and 14.** Two pairs of mismatched log-ratios are enough:

# %%
for exhibit in (0, 13, 14):
    with applied(museum.mutant(exhibit)):
        mixed = reference_point(torch.tensor([-3.0, 5.0]), torch.zeros(2))
        both_low = reference_point(torch.tensor([-3.0, -5.0]), torch.zeros(2))
    print(f"exhibit {exhibit:2d}   k = (-3, 5): z0 = {mixed:5.2f}     k = (-3, -5): z0 = {both_low:5.2f}")

# %% [markdown]
# **Exhibit 14.** How hard is each side pushed? The gradient factor is largest, 1, at $r = z_0$; we put the mean rewards
# of the log into it.

# %%
run = museum.of_number(14)
for step in (20, 60, 100, 200):
    factors = []
    for column in ("reward_desirable", "reward_undesirable"):
        share = torch.sigmoid(torch.tensor(run[column][step - 1] - museum.BETA * run["kl"][step - 1]))
        factors.append(float(4 * share * (1 - share)))
    print(f"step {step:3d}: push on thumbs up {factors[0]:.2f}, on thumbs down {factors[1]:.2f}")

# %% [markdown]
# **Exhibit 15.** A log will not show it; a look at five rows does.

# %%
five = [tokenize_feedback(row, tokenizer) for row in load_eight_rows()[:5]]


def completion(row):
    return [token for token, scored in zip(row["input_ids"], row["label_mask"], strict=True) if scored]


for exhibit in (0, 15):
    with applied(museum.mutant(exhibit)):
        mixed = mismatched(five)
    kept = [i for i in range(5) if completion(mixed[i]) == completion(five[i])]
    print(f"exhibit {exhibit:2d}   rows that keep their own completion: {kept}")

# %% [markdown]
# ## Room 4: data and weights
#
# Here the loss is right, line by line. Exhibit 16 trains on thumbs made from pairs (lesson
# [08](08_kto_vs_dpo.ipynb)), as many up as down, and so does its grey run.

# %% [markdown]
# ### Exhibit 16
#
# Part of the log is missing. Which part, and when?

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
# Seen: with TRL 1.16.0 a paired data set takes this road, in blocks of a thousand, read in order, since pull request
# 2248 (October 2024) took the shuffle out. For 2,500 pairs and batches of 8, one batch in 625 held both kinds when
# that was run. Shuffle before you hand the data over.
# </details>

# %% [markdown]
# ### Exhibit 17
#
# 267 thumbs up, 933 down, and a first loss of 0.5. Was that to be expected?

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
# All weights are 1, so the push downwards wins by more than three to one. Lesson [07](07_train.ipynb) takes this
# collapse apart. With weights from the counts the first loss would have been that of exhibit 0; a first loss of
# exactly 0.5 says that both weights are 1.
#
# Seen: weights that do not arrive are a family of their own. With the Liger kernel of TRL 1.8 to about 1.12 they were
# silently ignored (pull request 7062, September 2026, ended it). Questions about them: LLaMA-Factory 6245, ms-swift
# 2167.
# </details>

# %% [markdown]
# ## Room 5: the loss and the optimiser
#
# Exhibit 19 hangs the other way round.

# %% [markdown]
# ### Exhibit 18
#
# The first gradient is a tenth of the healthy one, as in exhibit 3. What tells the two apart at step 2?

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
# Beta comes in twice: an effective beta of 0.01. The rewards at step 2 are healthy, since the score is right; in
# exhibit 3 they were a ninth of that. Rows saturate ten times later, so thumbs down sink much further.
#
# Seen: the trap is in the units. TRL logs `rewards/*` with beta and `kl` without it; the authors' HALOs (main) logs
# rewards without it. Never put the two on one axis.
# </details>

# %% [markdown]
# ### Exhibit 19
#
# Beta multiplies the log-ratio alone. When does that matter? Predict the log.

# %%
Markdown(museum.change(19))

# %%
fig = museum.figure(19)
save_figure(fig, "10_exhibit_19", alt=museum.alt_text(19))
plt.show()
print(museum.log(19))

# %%
print(museum.ending(19))

# %% [markdown]
# <details><summary>Why it does that, and where it was seen</summary>
#
# Beta must stand outside the bracket: $\beta (r - z_0)$. Here $z_0$ is subtracted in raw nats, ten times too heavy.
# While the clamp keeps z0 at 0 nothing differs, and that is most of the time here. A kl of 2 nats would shift the
# argument by 2 instead of 0.2.
#
# Seen: we know of no public case. The test that catches it: $L(\beta, r, k) = L(1, \beta r, \beta k)$.
# </details>

# %% [markdown]
# ### Exercise 10.2 · A test that goes red
# ★★★ · 8 minutes · write a test
#
# No log gives exhibit 19 away, but a test can. Beta only turns nats into the argument of the loss. So a loss at beta
# must equal the *same* loss at beta 1 with everything in nats multiplied by beta beforehand:
# $L(r, z_0, \beta) = L(\beta r, \beta z_0, 1)$.
#
# Write that test. You get any `loss(r, z0, beta)`: a tensor of log-ratios and two numbers go in, a tensor of losses of
# the same shape comes out. You choose the numbers to try it on. The check hands you sound losses and broken ones.

# %% exercise="scaling_test"
def my_scaling_test(loss):
    """True if loss(r, z0, beta) equals loss(beta * r, beta * z0, 1) up to rounding, False if not."""
    ### BEGIN SOLUTION
    r, z0, beta = torch.randn(9), 2.0, 0.3
    return torch.allclose(loss(r, z0, beta), loss(beta * r, beta * z0, 1.0))
    ### END SOLUTION


# %% check="scaling_test" points=3
check.scaling_test(my_scaling_test)

# %% [markdown]
# ### Exhibit 20
#
# Divide the first loss by that of exhibit 0. Where have you met the ratio?

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
# The ratio is 1.386 = 2 ln 2: $-\log \sigma(u)$ instead of $1 - \sigma(u)$, DPO's habit. At step 0 it is $w \ln 2$
# instead of $w / 2$. Like DPO, it never gives up on hopeless rows (lesson [08](08_kto_vs_dpo.ipynb)). In this small
# world that does no harm.
#
# Seen: it is an ablation in the paper, reported to cost about 9 points on BBH and 11 on GSM8K there. Reported, not
# measured by us.
# </details>

# %% [markdown]
# ### Exhibit 21
#
# Read both rewards, the gradient norm and the kl. And compute the loss at step 2: the weights are 933/267 and 1.

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
# At the first step every weight of the model jumps, and every reply, liked or not, becomes almost impossible. All
# rows are saturated, so no gradient is left to mend it. A thumb up now costs its whole weight and a thumb down
# nothing, whatever the model does: at step 2 one thumb up in fifteen rows, 3.494 / 15 = 0.2330. The loss only counts
# thumbs.
#
# Seen: a public trainer state shows the same picture, with a learning rate of 1.8e-4 for a large model: both rewards
# falling to about -160, kl 0.0, gradient norm 0.0. (Sources. We learn from it because somebody published the log of a
# run that failed.)
# </details>

# %% [markdown]
# ### The back room: how small is no gradient?
#
# Our log is in float64. Rounded to float32 it would read as below; a run in float32 loses the gradient sooner still.

# %%
norms = museum.of_number(21)["grad_norm"]
for step in (1, 2, 5, 20, 200):
    in_float32 = torch.tensor(norms[step - 1], dtype=torch.float32).item()
    print(f"step {step:3d}: gradient norm {norms[step - 1]:8.1e}   rounded to float32 {in_float32:.1e}")

# %% [markdown]
# ### Exercise 10.3 · Four exhibits in one function
# ★★★ · 10 minutes · repair a function
#
# Somebody wrote the losses of a batch. Exhibits 11, 13, 19 and 20 are all in it. Repair all four.
#
# ```python
# def broken_losses(r, r_mismatched, label, beta, weight_up, weight_down):
#     z0 = r_mismatched.clamp(min=0).mean()
#     sign = 2.0 * label - 1.0
#     losses = -torch.nn.functional.logsigmoid(sign * (beta * r - z0))
#     return torch.where(label, weight_up * losses, weight_down * losses)
# ```

# %% exercise="four_faults"
def my_losses(r, r_mismatched, label, beta, weight_up, weight_down):
    """KTO's loss of each row: (B,) in nats, (B,) in nats, (B,) bool with True = thumb up, three numbers -> (B,).

    r are the log-ratios of the rows, r_mismatched those of mismatched replies, from which z0 is made.
    """
    ### BEGIN SOLUTION
    z0 = r_mismatched.mean().clamp(min=0).detach()
    sign = 2.0 * label - 1.0
    losses = torch.sigmoid(-sign * beta * (r - z0))
    return torch.where(label, weight_up * losses, weight_down * losses)
    ### END SOLUTION


# %% check="four_faults" points=4
check.four_faults(my_losses)

# %% [markdown]
# ## The last room: what a log does not give away
#
# Back to your two numbers. First: how many of the 21 end clearly worse, with a thumbs-up rate at least 0.1 below the
# healthy one? We look at all three draws.

# %%
table = museum.triage()
WORSE = "thumbs-up rate 0.1 or more below the healthy one"
always = [number for number, draws in table[WORSE].items() if draws == 3]
sometimes = [number for number, draws in table[WORSE].items() if draws < 3]
print(f"worse in all three draws: {len(always)} of {len(MUTANTS)}: {always}")
print(f"worse in one or two:      {len(sometimes)}: {sometimes}")
reveal("museum_clearly_worse", "abcd"[sum(len(always) > limit for limit in (2, 7, 13))])

# %% [markdown]
# Second: which would you never suspect? `museum.symptoms` defines signs that a log can show; here are the exhibits that
# show none of them in any draw. (You may still see *that* such a run differs from the grey one. But without a healthy
# twin of the same seed there is nothing to hold it against.)

# %%
needs_twin = [sign for sign in table if sign.startswith("first gradient")]
in_log = [sign for sign in table if sign not in (WORSE, "replies off the list", *needs_twin)]
suspected = {number for sign in in_log + needs_twin for number in table[sign]}
silent = [number for number in range(1, len(MUTANTS) + 1) if number not in suspected]
print(f"{len(in_log)} signs in a log alone, {len(needs_twin)} more beside a healthy gradient")
print(f"exhibits without any of them: {len(silent)}: {silent}")
reveal("museum_silent", "abcd"[sum(len(silent) > limit for limit in (0, 2, 6))])

# %% [markdown]
# Did these do harm? Here are their scores on all draws, beside the healthy run and three **controls**: changes that are
# no fault at all (every prompt gets the completion of the row 2, 3 or 14 places before it, instead of 1).

# %%
runs, names = museum.load_results(), list(MUTANTS)
print("                              draw 0   draw 1   draw 2")
for name in ("correct_thumbs", *(mutant.name for mutant in museum.CONTROLS), *(names[n - 1] for n in silent)):
    number = f"{names.index(name) + 1:2d}" if name in names else "  "
    print(f"{number} {name:25s}", "    ".join(f"{runs[name, seed]['thumbs_up']:.4f}" for seed in museum.SEEDS))

# %% [markdown]
# No harm to be seen here, which is no promise for another world. And look at draw 0: the three controls alone, which
# are no faults at all, spread over 0.05. **The score of one run is no test**, in either direction.
#
# What catches such faults is a **test** that knows the answer beforehand. Every exhibit of this museum turns at least
# one test of this course red; here is one for each of these four:

# %%
for number in silent:
    print(f"exhibit {number:2d}  {MUTANTS[names[number - 1]].caught_by[0].split('.test_')[1].replace('_', ' ')}")

# %% [markdown]
# The sentences are names of tests in `tests/test_properties.py` (p stands for property). `tests/test_mutants.py` puts
# every fault into the code, runs the tests it names, and fails if one of them stays green.

# %% [markdown]
# ## Triage: from the log to the fault
#
# The order of a real triage, with the exhibits each question finds:
#
# 1. **First loss.** Not half the mean weight you meant? Exactly 0.5: the weights did not arrive (17). Off by 1.386: log
#    sigmoid (20). Rewards not 0 either: the reference is another model (8).
# 2. **First gradient.** Exactly 0: the two halves cancel (10). Too small: the score is divided (2, 3, 4), or, with
#    healthy rewards at step 2, beta comes in twice (18). Too large: more is scored than the reply (5, 7), or the wrong
#    thing (1).
# 3. **kl.** Below 0: no clamp (14). Hardly ever 0: clamped row by row (13). Hardly ever above 0: look at the rewards;
#    all 0: one object (9, 10); else perhaps matched rows (12).
# 4. **Reward of thumbs up above the ceiling:** shift, prompt, padding, or a strange reference (1, 5, 7, 8).
# 5. **Both rewards far down, gradient dying:** weights (17), learning rate (21), or, with nan in between, the order of
#    the data (16).
#
# And before all of it: **decode one batch and read it.**

# %% [markdown]
# The evidence is measured. A number stands in a row if the sign was seen in at least two draws of three; signs with a
# star need the gradient of a correct program on the same batch. (The limits, such as 0.2 and 0.01, were chosen by
# looking at runs of this world.)

# %%
lines = ["| sign | exhibits |", "|---|---|"]
for sign, shown in table.items():
    numbers = ", ".join(str(number) for number, draws in shown.items() if draws >= 2)
    lines.append(f"| {sign}{' *' if sign in needs_twin else ''} | {numbers} |")
Markdown("\n".join(lines))

# %% [markdown]
# And the list above, held against the table:

# %%
seen = {sign: [number for number, draws in shown.items() if draws >= 2] for sign, shown in table.items()}
assert seen["first loss is not half the mean weight"] == [8, 17, 20]
assert seen["first loss 0.5 although counts are uneven"] == [17]
assert seen["gradient norm exactly 0 at step 1"] == [10]
assert seen["first gradient under a third of the healthy one"] == [2, 3, 4, 10, 18]
assert seen["first gradient 1.9 times the healthy one or more"] == [1, 5, 7, 20]
assert seen["kl below 0"] == [14]
assert seen["kl above 0 at nine steps in ten"] == [13]
assert seen["kl 0 at all but three steps or fewer"] == [9, 10, 12, 21]
assert seen["reward of thumbs up above its ceiling"] == [1, 5, 7, 8]
assert seen["both rewards end below -0.2"] == [16, 17, 21]
print("the list says what was measured")

# %% [markdown]
# Signs at step 1 cost no training. How much of the collection do they find, with the log alone, and with a correct
# program beside it?

# %%
alone = ["first loss is not half the mean weight", "kl above 0 at step 1", "gradient norm exactly 0 at step 1"]
for title, signs in (("the log alone", alone), ("with a correct gradient", alone + needs_twin)):
    found = sorted({number for sign in signs for number, draws in table[sign].items() if draws >= 2})
    print(f"{title}: {len(found)} of {len(MUTANTS)}: {found}")

# %% [markdown]
# So keep one trusted number for each model: the gradient norm of one batch, from a program you believe.

# %% [markdown]
# ### Exercise 10.4 · The frame without a label
# ★★☆ · 5 minutes · read a curve
#
# This run comes from another draw, and its label is lost. Below it stands the log of the healthy run on the same draw.
# Go through the five questions, with the numbers of steps 1 and 2. What is wrong?
#
# - a) the log-probability of a reply is divided by the reply's length
# - b) beta comes in twice
# - c) the log-probability is divided by the number of tokens in the batch
# - d) nothing in the loss; the learning rate is ten times too low

# %%
from kto_course.checks.lesson_10 import unlabelled_run

run = unlabelled_run()
healthy_log = museum.log(museum.healthy_twin(run)).split("\n\n")[0]
fig = museum.figure(run)
save_figure(
    fig, "10_unlabelled",
    alt="Loss, kl, both rewards and gradient norm of a run without a label, over the healthy run in grey. The rewards "
    "begin as in the healthy run; the gradient norm begins at a tenth of the healthy one and stays below it for long.",
)
plt.show()
print(f"{museum.log(run)}\n\nhealthy\n{healthy_log}")

# %% exercise="unlabelled"
answer = ...  # a letter in quotes
### BEGIN SOLUTION
answer = "b"
### END SOLUTION

# %% check="unlabelled" points=1
check.unlabelled(answer)

# %% [markdown]
# ## Make an exhibit of your own
#
# A mutant is an `Edit`: a function, the right words (they must stand exactly once in it), the wrong words. This is the
# code you can edit in `losses.kto_loss`, for instance:

# %%
print(inspect.getsource(losses.kto_loss).split("\n\n")[-1])

# %% [markdown]
# Let thumbs up and down change places. What will the rewards do, and what the loss? Guess, look, then change it to
# something of your own and let somebody else guess.

# %%
mine = Mutant(
    "mine", "Thumbs up and down change places.",
    (Edit("losses.kto_loss", "sign = 2.0 * up - 1.0", "sign = 1.0 - 2.0 * up"),), caught_by=(),
)  # fmt: skip
_, record = museum.train(mine, steps=100)  # its learning rate falls twice as fast as the grey one
print(museum.log(record))

# %%
fig = museum.figure(record)
save_figure(
    fig, "10_own_exhibit",
    alt="Loss, kl, both rewards and gradient norm over 100 steps with thumbs up and down exchanged, over the healthy "
    "run in grey. The loss falls like the healthy one, while the reward of thumbs up sinks.",
)
plt.show()

# %% [markdown]
# The rewards are upside down; the loss looks like any other. It measures how well the model does what the code says,
# not what you meant.

# %% [markdown]
# ## Recap
#
# 1. At step 1 the loss is half the mean weight you meant, and kl is 0. Else: weights, loss formula or reference.
# 2. A reward of thumbs up above $-\beta \log \pi_{ref}$ is impossible: the score counts what it should not, or the
#    reference is another one.
# 3. Rewards of exactly 0 mean most likely one object for policy and reference; the gradient norm says which kind.
# 4. Both rewards far below 0 with a dying gradient is collapse: learning rate or weights, and nan rewards point at the
#    order of the data.
# 5. Some faults give no sign in a log. Tests with known answers find them; curves do not.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions stuck_at_half reward_of_five tests_without_training}}

# %% [markdown]
# ## Sources
#
# - TRL: issues 1911, 1722, 1591, 1418, 2093, 6321; pull requests 1075, 1181, 1970, 2248, 7062; behaviour of 1.16.0 as
#   run; its documentation of the logged log-probabilities.
# - HALOs (the authors' code): commits d49576f and bc68c05; main for its logged rewards. LLaMA-Factory 7509, 6245.
#   ms-swift 2167.
# - Trainer state of Weni/WeniGPT-Agents-Zephyr-1.0.9-KTO on the Hugging Face hub.
# - Ethayarajh et al., arXiv 2402.01306, current version (ablation with a concave value function on Zephyr-beta-SFT, as
#   reported).
# - All curves, numbers and signs: `kto_lab/results/museum_results.json`, computed by `python course.py museum`.
#
# **Where next?** Lesson [06](06_kto_loss.ipynb) derives what the tests check. `tests/conformance` holds a case file
# with which you can test an implementation of your own, in any language.
