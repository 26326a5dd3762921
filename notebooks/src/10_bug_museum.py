# %% [markdown]
# # 10 · The bug museum
#
# Read the logs of runs that went wrong, guess the fault, open it, and learn which faults a log does not give away.

# %% [markdown]
# **You will be able to**
# - ask a KTO log five questions, three of them at the first step,
# - name the likely faults behind a strange log, and say how to tell them apart,
# - say which faults a log does not give away, and what catches them instead.
#
# **You need first** the score of lesson [05](05_get_probs.ipynb), the loss of lesson [06](06_kto_loss.ipynb) and the
# log of lesson [07](07_train.ipynb).
#
# **Time** {{times}}.
#
# Deeper: [10b](deeper/10b_more_exhibits.ipynb), the other fourteen exhibits, and how to make one of your own.

# %% [markdown] slide=["In this museum", "In each one", "How many of the", "And how many"]
# **Before you run anything.** In this museum hang 22 training runs, eight of them here. In each one small thing is
# wrong: mostly a word, a sign or an index. How many of the 22 end with a model that is clearly worse than the healthy
# one? And how many would you never suspect from their log?

# %%
import torch
from IPython.display import Markdown

from kto_course import check, predict, reveal
from kto_course.checks.lesson_10 import unlabelled_run
from kto_course.pictures import lesson_10 as pictures
from kto_lab import museum
from kto_lab.mutants import MUTANTS
from kto_utils.plotting import use_course_style

use_course_style()
torch.set_default_dtype(torch.float64)

# %%
predict("museum_clearly_worse", "How many of the 22 end 0.1 or more below the healthy rate, with every seed?",
        ["2 or fewer", "3 to 7", "8 to 13", "14 or more"], guess=None, confidence=None)  # fmt: skip
predict("museum_silent", "How many of the 22 show no sign of trouble in their log, with any of three seeds?",
        ["none", "1 or 2", "3 to 6", "7 or more"], guess=None, confidence=None)  # fmt: skip

# %% [markdown] slide=["Every exhibit"]
# ## 1. You cannot see what is ill before you know what is well
#
# Every exhibit is the course's own code with a few words changed. The run is always the same: the shipped model, 1,200
# thumbs on its own replies, weights from the counts (933/267 for a thumb up, 1 for a thumb down), 200 steps, batches of
# 15, beta 0.1. Each ran with three seeds; the first hangs on the wall. The logs are stored; `python course.py museum`
# computes them again.
#
# Exhibit 0 is the code as it is. (*Saturated* is the share of rows whose gradient factor is under a tenth of its
# maximum.) Below the log stand sampled replies to three questions. The score itself, the exact thumbs-up rate on the
# trained questions, is in no log.

# %% slide=["figure"]
pictures.exhibit(0)
print(museum.log(0), "\n")
print(museum.ending(0))

# %% [markdown]
# ## 2. Triage: from the log to the fault
#
# Five questions, in this order. (Log **every** step, and switch dropout off.)
#
# 1. **First loss.** Healthy: half the mean weight of the batch, since policy and reference still agree. Exactly 0.5
#    with uneven thumbs: the weights did not arrive. Off by 1.386: a log sigmoid. Rewards not 0 either: the reference is
#    another model.
# 2. **First gradient.** Needs one number from a program you trust. Exactly 0: the two halves of the log-ratio cancel.
#    Too small: the score is divided, or, with healthy rewards at step 2, beta comes in twice. Too large: more is scored
#    than the reply, or the wrong thing.
# 3. **kl.** Healthy: 0 at step 1, later small and often 0, because of the clamp. Below 0: no clamp. Hardly ever 0:
#    clamped row by row. Hardly ever above 0: look at the rewards. All 0: policy and reference are one object; else
#    perhaps matched rows.
# 4. **Reward of thumbs up.** It has a ceiling, the dotted line. No reply can become likelier than certain, so
#    $\beta\,r = \beta\,(\log \pi - \log \pi_{ref}) \le -\beta \log \pi_{ref}$. Above it: shift, prompt, padding, or a
#    strange reference.
# 5. **Both rewards far down, gradient dying.** Weights, learning rate, or, with nan in between, the order of the data.
#    (Thumbs down alone falls in a healthy run, too: it has no floor.) Both rewards near 0 for good: a divided score,
#    or, with a living gradient, nobody is pushed down.
#
# And before all of it: **decode one batch and read it.** Here are the five on the healthy run:

# %%
healthy = museum.of_number(0)
rewards_up = [reward for reward in healthy["reward_desirable"] if reward is not None]
kl = healthy["kl"]
print(f"1. half the mean weight: {healthy['half_mean_weight']:.4f}   first loss: {healthy['loss'][0]:.4f}")
print(f"2. first gradient norm: {healthy['grad_norm'][0]:.4f}")
print(f"3. kl at step 1: {kl[0]:.4f}   above 0 at {sum(k > 0 for k in kl)} steps of {len(kl)}")
print(f"4. highest reward of thumbs up: {max(rewards_up):.4f}   ceiling: {healthy['reward_ceiling']:.4f}")
print(f"5. smallest gradient norm: {min(healthy['grad_norm']):.4f}")

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

# %% [markdown] slide=["Thumbs up far", "Compare with", "Then read"]
# ## 3. The score: what is counted, and divided by what
#
# For each exhibit: look, go through the five questions, guess, open the fault, then open the explanation.
#
# ### Exhibit 1
#
# Thumbs up far above thumbs down: splendid? Compare with the dotted line. Then read the replies.

# %% slide=["figure"]
pictures.exhibit(1)
print(museum.log(1))
Markdown(museum.fault(1))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# Without the shift, the distribution at place t is compared with the token at place t, which the model has just read.
# It is pushed towards **repeating the current token**, which can be learned far beyond the ceiling of any reply, and it
# loses its speech on the way. (10b shows the repeating.) Seen in a widely shared notebook.
# </details>
#
# ### Exhibit 3
#
# By which factor is the first gradient too small? And the rewards at step 2? What divides here?

# %%
pictures.exhibit(3)
print(museum.log(3))
Markdown(museum.fault(3))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# The mean over a reply's own tokens. Log-probabilities of a sequence **add**; a mean is no log-probability of anything.
# It acts like a beta divided by the length, a different one for each row, so long replies whisper. KTO and DPO both
# sum. Easy to get wrong by reading: TRL's documentation calls the logged sums averages.
# </details>
#
# ### Exhibit 5
#
# The first gradient is far too large. Which tokens other than the reply's could be scored?

# %%
pictures.exhibit(5)
print(museum.log(5))
Markdown(museum.fault(5))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# With the prompt scored too, "make this reply likelier" becomes "make this **question** likelier". Questions were never
# trained to be likely, so there is a lot to gain, and the ceiling of a reply does not hold for them. The check: decode
# the scored tokens of one row.
# </details>
#
# ## 4. The reference: relative to what?
#
# ### Exhibit 9
#
# Rewards and kl are a clean zero, all the time. Does the model stand still?

# %%
pictures.exhibit(9)
print(museum.log(9))
Markdown(museum.fault(9))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# Policy and reference are **one object**. The log-ratio is always 0, so the loss is always half the mean weight of the
# batch; it jumps only because batches hold different thumbs. But the gradient flows through the policy's half of the
# log-ratio at full strength and never fades, since nothing ever seems to have moved. The model walks, unwatched. TRL
# refuses a reference that is the policy, and so does our `check_reference`.
# </details>
#
# ## 5. The data: the loss is right, line by line
#
# ### Exhibit 16
#
# This one trains on thumbs made from pairs (lesson [08](08_kto_vs_dpo.ipynb)), as many up as down; so does its grey
# run. Part of the log is missing. Which part, and when?

# %%
pictures.exhibit(16)
print(museum.log(16))
Markdown(museum.fault(16))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# Pairs were cut into thumbs in two blocks, all chosen first, and nobody shuffles. So a long row of batches holds thumbs
# up only, and then a long row thumbs down only. Each block drags the model one way, with nobody to hold the other end.
# TRL cuts a paired data set in blocks of a thousand and reads it in order: shuffle before you hand the data over.
# </details>
#
# ## 6. The loss and the optimiser
#
# ### Exhibit 22
#
# Loss, kl and rewards of step 1 are right, and the gradient stays alive. What do the two rewards of a healthy run do
# that these never do?

# %%
pictures.exhibit(22)
print(museum.log(22))
Markdown(museum.fault(22))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# Disliked replies are pushed **up**, like liked ones. They do not even rise: these are the model's own replies, and
# liked and disliked together held nearly all of its probability before. So both kinds pull against each other and
# neither reward gets anywhere. The rate rises because a thumb up weighs more, 933/267. Where the rows leave room,
# disliked replies climb as high as liked ones (10b). Seen in the same notebook as exhibit 1: both its branches were
# $\sigma(\beta(r - z_0))$. </details>
#
# ### Exhibit 18
#
# The first gradient is a tenth of the healthy one, much as in exhibit 3. What tells the two apart at step 2?

# %%
pictures.exhibit(18)
print(museum.log(18))
Markdown(museum.fault(18))

# %% [markdown] slide=["Read both"]
# <details><summary>Why it does that</summary>
#
# Beta comes in twice: an effective beta of 0.01. The rewards at step 2 are healthy, since the score is right; in
# exhibit 3 they were a ninth of that. Rows saturate ten times later, so thumbs down sink much further. The trap is in
# the units: TRL logs `rewards/*` with beta and `kl` without it. Never put the two on one axis.
# </details>
#
# ### Exhibit 21
#
# Read both rewards, the gradient norm and the kl. And compute the loss at step 2: the weights are 933/267 and 1.

# %% slide=["figure"]
pictures.exhibit(21)
print(museum.log(21))
Markdown(museum.fault(21))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# At the first step every weight of the model jumps, and every reply, liked or not, becomes almost impossible. All rows
# are saturated, so no gradient is left to mend it. A thumb up now costs its whole weight and a thumb down nothing,
# whatever the model does: at step 2 one thumb up in fifteen rows, 3.494 / 15 = 0.2330. The loss only counts thumbs. A
# public trainer state shows the same picture (Sources): both rewards falling to about -160, kl 0.0, gradient norm 0.0.
# </details>

# %% [markdown]
# ### Exercise 10.2 · The frame without a label
# ★★☆ · 5 minutes · read a curve
#
# This run has another seed, and its label is lost. Below it stands the log of the healthy run with the same seed. Go
# through the five questions, with the numbers of steps 1 and 2. What is wrong?
#
# - a) the log-probability of a reply is divided by the reply's length
# - b) beta comes in twice
# - c) the log-probability is divided by the number of tokens in the batch
# - d) nothing in the loss; the learning rate is ten times too low

# %%
run = unlabelled_run()
pictures.unlabelled(run)
print(museum.log(run))
print("\nhealthy\n" + museum.log(museum.healthy_twin(run)).split("\n\n")[0])

# %% exercise="unlabelled"
answer = ...  # a letter in quotes
### BEGIN SOLUTION
answer = "b"
### END SOLUTION

# %% check="unlabelled" points=1
check.unlabelled(answer)

# %% [markdown]
# ## 7. What a log does not give away
#
# Back to your two numbers. Which exhibits end clearly worse with every seed? And which show none of the signs that
# `museum.symptoms` looks for, with any seed? Beside the silent ones: the healthy run, and three **controls**, changes
# that are no fault at all (every prompt gets the completion of the row 2, 3 or 14 places before it instead of 1). Last,
# the name of a test of this course that goes red under each silent fault.

# %%
table, runs, names = museum.triage(), museum.load_results(), list(MUTANTS)
WORSE = "thumbs-up rate 0.1 or more below the healthy one"
worse = [number for number, seeds in table[WORSE].items() if seeds == 3]
in_log = [sign for sign in table if sign not in (WORSE, "replies off the list")]
suspected = {number for sign in in_log for number in table[sign]}
silent = [number for number in range(1, len(MUTANTS) + 1) if number not in suspected]
print(f"clearly worse with all three seeds: {len(worse)}: {worse}")
reveal("museum_clearly_worse", "abcd"[sum(len(worse) > limit for limit in (2, 7, 13))])
print(f"without any sign in the log: {len(silent)}: {silent}")
reveal("museum_silent", "abcd"[sum(len(silent) > limit for limit in (0, 2, 6))])

controls = [control.name for control in museum.CONTROLS]
print("\nthumbs-up rate               seed 0   seed 1   seed 2")
for name in ("correct_thumbs", *controls, *(names[number - 1] for number in silent)):
    print(f"{name:26s}", "  ".join(f"{runs[name, seed]['thumbs_up']:7.3f}" for seed in museum.SEEDS))
print()
for number in silent:
    print(f"exhibit {number}: {MUTANTS[names[number - 1]].caught_by[0].split('.test_')[1].replace('_', ' ')}")

# %% [markdown] slide=["And with seed 0", "What catches"]
# No harm to be seen here, which is no promise for another world. And with seed 0 the three controls alone, which are no
# faults at all, spread over 0.05: **the score of one run is no test.** What catches a silent fault is a **test** that
# knows the answer beforehand. `tests/test_mutants.py` puts each of the 22 faults into the code and fails if the tests
# it names stay green.

# %% [markdown]
# ### Exercise 10.3 · A test that goes red
# ★★★ · 8 minutes · write a test
#
# One of the silent ones, exhibit 19, has $\beta r - z_0$ in the loss instead of $\beta (r - z_0)$. A test can find it.
# Beta only turns nats into the argument of the loss. So a loss at beta must equal the *same* loss at beta 1 with
# everything in nats multiplied by beta beforehand: $L(r, z_0, \beta) = L(\beta r, \beta z_0, 1)$.
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
# ## 8. The list, held against what was measured
#
# The triage list was not written from memory. These exhibits show its signs with at least two seeds of three:
#
# - First loss: not half the mean weight (8, 17, 20); exactly 0.5 (17).
# - First gradient: exactly 0 (10); too small (2, 3, 4, 10, 18); too large (1, 5, 7, 20).
# - kl: below 0 (14); hardly ever 0 (13); hardly ever above 0 (9, 10, 12, 21).
# - Reward of thumbs up above its ceiling (1, 5, 7, 8).
# - Both rewards far down (16, 17, 21); neither ever beyond 0.2 (2, 22).
#
# The limits behind the signs, such as 0.2, were chosen by looking at runs of this world. Signs at step 1 cost no
# training: keep one trusted gradient norm for each model.

# %%
seen = {sign: [number for number, seeds in shown.items() if seeds >= 2] for sign, shown in table.items()}
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
assert seen["neither reward ever goes beyond 0.2"] == [2, 22]
early = [sign for sign in seen if "first" in sign or "step 1" in sign]
found = {number for sign in early for number in seen[sign]}
print(f"the list says what was measured; signs at step 1 find {len(found)} of 22: {sorted(found)}")

# %% [markdown]
# ## Recap
#
# 1. At step 1 the loss is half the mean weight you meant, and kl is 0. Else: weights, loss formula or reference.
# 2. A reward of thumbs up above $-\beta \log \pi_{ref}$ is impossible: the score counts what it should not, or the
#    reference is another one.
# 3. Rewards of exactly 0 mean most likely one object for policy and reference.
# 4. Both rewards far below 0 with a dying gradient is collapse: learning rate or weights; nan rewards point at the
#    order of the data.
# 5. Some faults give no sign in a log. Tests with known answers find them; curves do not.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions stuck_at_half reward_of_five tests_without_training}}

# %% [markdown]
# ## Sources
#
# - Several of these faults once stood together in one widely shared notebook. We do not name it: its author explained
#   KTO in public, which is why others can learn from it. And it happens to everybody: the learning rate of this
#   course's own trainer was three times higher until this museum was built.
# - TRL: 1.16.0 as run (blocks of a thousand, refused reference); its documentation of the logged log-probabilities.
# - Trainer state of Weni/WeniGPT-Agents-Zephyr-1.0.9-KTO on the Hugging Face hub.
# - All curves, numbers and signs: `kto_lab/results/museum_results.json`, computed by `python course.py museum`.
#
# **Next:** [11 · Your own thumbs](11_your_data.ipynb). Deeper: [10b](deeper/10b_more_exhibits.ipynb).
