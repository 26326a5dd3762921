# %% [markdown]
# # 00 · Start here
#
# See what KTO does: a small model replies, you give thumbs up or down, the thumbs make it better.

# %% [markdown]
# **You will be able to**
# - say what KTO (Kahneman-Tversky Optimization) needs and what it changes;
# - train a language model from thumbs and measure exactly how much better it got;
# - choose your way through the course.
#
# **You need first** some Python. No machine learning yet.
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything**: the model below earns a thumbs up for about one reply in four. People will
# now click on 1,200 of its replies to 24 questions, and KTO will train on the clicks. What share of its replies to
# these 24 questions earns a thumbs up afterwards? And of those to 8 questions that nobody ever clicked on? The cells
# below the imports take your two guesses.
#
# New to notebooks? Click on the grey cell below and press **Shift+Enter**: it runs, its output appears
# under it, and the next cell is selected. Go on like this to the end.

# %%
import math

import matplotlib.pyplot as plt

from kto_course import check, predict, reveal
from kto_course.pictures.lesson_00 import kto_picture
from kto_utils import evaluate, train, world
from kto_utils.losses import balanced_weights
from kto_utils.model import load_reference_model, reference_of
from kto_utils.plotting import DOWN, NEUTRAL, UP, save_figure, use_course_style
from kto_utils.tokenizer import load_tokenizer

use_course_style()

# %%
choices = ["about a quarter, as before", "about half", "more than nine in ten"]
predict("clicked_questions", "Thumbs up after training, clicked questions?", choices, guess=None, confidence=None)

# %%
choices = ["about a quarter, as before", "between half and two thirds", "as many as on the clicked ones"]
predict("new_facts", "And on the 8 questions without clicks?", choices, guess=None, confidence=None)

# %% [markdown]
# ## 1. KTO in one picture
#
# A model answers a question. Someone likes the answer, or does not: one click. KTO turns a pile of such
# clicks into a better model.

# %%
fig = kto_picture()
save_figure(fig, "00_kto_in_one_picture", alt=(
    "KTO in three steps. One: a model gives three replies to the question What colour is the sky. Two: "
    "people click thumbs up on the polite right one, thumbs down on a wrong one and on a rude one. "
    "Three: on an axis that measures the log-ratio, with the frozen reference at 0, the liked reply is "
    "moved right, past the reference point z0, and the two disliked replies are moved left."
))  # fmt: skip
plt.show()

# %% [markdown]
# - **One thumb is enough.** Nobody has to say which of two replies is better. Older methods such as DPO
#   (Direct Preference Optimization) need such pairs.
# - The model that learns is the **policy**. A frozen copy from before, the **reference**, stands at 0. The
#   axis, the **log-ratio**, compares with that copy: right means that a reply became likelier, left less
#   likely.
# - The green line is the **reference point** $z_0$, a rough estimate of how far the policy has moved on the
#   whole. Arrows start at 0, but KTO counts gains and losses from the green line.
#
# ## 2. Talk to the model
#
# A tiny language model ships with the course. It was trained from scratch on 32 facts. In its texts half of
# the answers were wrong and half of the replies rude, and so it talks. We load it and freeze a copy.

# %%
tokenizer = load_tokenizer()
policy = load_reference_model()
reference = reference_of(policy)
print(f"The model holds {sum(p.numel() for p in policy.parameters()):,} numbers.")

question = world.trained_questions()[0]
replies = evaluate.sample(policy, question, n=8, seed=1)

print(f"You ask: {question.text}")
for number, reply in enumerate(replies):
    print(f"{number}  {reply}")

# %% [markdown]
# ## 3. Give it thumbs
#
# Now you: `True` is thumbs up, `False` is thumbs down, in the order of the replies above. The list holds
# our choice. Change it as you like and run the cell again.

# %%
my_thumbs = [False, True, False, False, True, False, True, True]

judged = [world.judge(question, reply) for reply in replies]
for reply, mine, theirs in zip(replies, my_thumbs, judged, strict=True):
    remark = "" if mine == theirs else "   <- you disagree with the judge"
    print(f"{'up  ' if mine else 'down'} {reply}{remark}")
print(f"\nYou and the judge agree on {sum(m == t for m, t in zip(my_thumbs, judged, strict=True))} of 8.")

# %% [markdown]
# The **judge** is our simulated human: thumbs up only for a reply that is polite *and* right. We let one
# rude reply pass because it is right. Real people disagree too.
#
# Eight clicks are few. So the judge now clicks on 50 of the model's replies to each of 24 questions, and your
# eight join them.

# %%
questions = world.trained_questions()
clicks = evaluate.collect_feedback(reference, questions, n=50, seed=0)
feedback = clicks + [
    {"prompt": question.prompt, "completion": reply, "label": thumb}
    for reply, thumb in zip(replies, my_thumbs, strict=True)
]
print(len(clicks), "clicks by the judge,", len(feedback), "in all. The first one:")
for key, value in feedback[0].items():
    print(f"  {key:10s} {value!r}")

# %% [markdown]
# That is all the data KTO gets: a prompt, a completion (the reply), a label (the thumb). No second reply to
# compare with, no marks, no corrected answer.
#
# ## 4. How good is it now?
#
# To each question the model nearly always gives one of 48 known replies. So nothing needs to be estimated:
# add up the probabilities of those that the judge likes. The clicks are an independent check.


# %%
def show(report):
    for row in report:
        print(
            f"{row['questions']:16s} thumbs up {row['thumbs_up']:.3f}   polite {row['polite']:.3f}   "
            f"right {row['right']:.3f}   not among the 48 {1 - row['listed']:.3f}"
        )


before = evaluate.report(reference)
show(before)

exact = before[0]["thumbs_up"]
clicked = sum(row["label"] for row in clicks) / len(clicks)
standard_error = (exact * (1 - exact) / len(clicks)) ** 0.5
print(f"\nexact {exact:.3f}, counted from {len(clicks)} clicks {clicked:.3f} +- {standard_error:.3f}")
assert abs(exact - clicked) < 3 * standard_error

# %% [markdown]
# The two agree: about one reply in four is liked. (After +- stands one standard error, the spread that
# chance alone gives.) *New wording* asks the 24 questions in other words. *Untouched facts* are 8 more that
# the model has seen like all others, but nobody clicks on.

# %% [markdown]
# ### Exercise 0.1 · Add up what is liked
# ★☆☆ · 5 minutes · fill in a function
#
# In a smaller world a question has four known replies. The model gives them with the probabilities 0.1, 0.4, 0.25
# and 0.2; the judge likes all but the second. So the thumbs-up rate is 0.1 + 0.25 + 0.2 = 0.55. (Other replies, 0.05
# in all, are not liked.) Write a function that does this for lists of any length. A few lines are enough.
#
# In every exercise you write in the place of the dots and run the cell, then the one below it, which looks at your
# answer and gives a hint. You may skip them all.

# %% exercise="thumbs_up_rate"
def my_thumbs_up_rate(probabilities, liked):
    """Probability of a reply that is liked, from 0 to 1.

    probabilities: a list of numbers, such as [0.1, 0.4, 0.25, 0.2].
    liked: for each of them True or False, such as [True, False, True, True].
    """
    ### BEGIN SOLUTION
    rate = 0.0
    for i in range(len(liked)):
        if liked[i]:
            rate = rate + probabilities[i]
    return rate
    ### END SOLUTION


# %% check="thumbs_up_rate" points=2
check.thumbs_up_rate(my_thumbs_up_rate)

# %% [markdown]
# ## 5. Train
#
# Thumbs up are rare, so each gets a larger weight. We balance the two kinds and lean a little towards the
# liked one, by 4/3, the upper end of the range in the KTO paper (v1, Eq. 8). Then 120 small steps, each on
# 16 of the clicks. It takes about half a minute.

# %%
n_up = sum(row["label"] for row in feedback)
n_down = len(feedback) - n_up
up_weight, down_weight = balanced_weights(n_up, n_down, ratio=4 / 3)
print(f"{n_down} down, each with weight {down_weight:.2f}")
print(f"{n_up} up, each with weight 4/3 * {n_down}/{n_up} = {up_weight:.2f}")
policy, history = train.train_kto(
    load_reference_model(), reference, feedback, tokenizer, steps=120, batch_size=16, learning_rate=5e-4,
    beta=0.1, desirable_weight=up_weight, undesirable_weight=down_weight, seed=0,
)  # fmt: skip
print(len(history), "steps done")

# %% [markdown]
# ## 6. Talk again
#
# The same question, the same random seed, another model.

# %%
for number, reply in enumerate(evaluate.sample(policy, question, n=8, seed=1)):
    print(f"{number}  {reply}")

# %% [markdown]
# And the eight replies that you judged? With $\pi(y|x)$ for the probability that the policy gives reply $y$
# to question $x$, and $\pi_{\mathrm{ref}}$ for that of the frozen copy, the log-ratio of the picture is
# $r = \ln \pi(y|x) - \ln \pi_{\mathrm{ref}}(y|x)$. Its unit is the nat: $r = 1$ means 2.7 times as likely
# ($e^1$).

# %%
old, new = (evaluate.completion_logps(m, [question.prompt] * 8, replies) for m in (reference, policy))
logratios = (new - old).tolist()
print(f"reply 1 had probability {old[1].exp():.3f}, now {new[1].exp():.3f}: r = {logratios[1]:+.2f}")

fig, ax = plt.subplots(figsize=(8.6, 4.2))
ax.axvline(0, color=NEUTRAL)
for row, (r, liked) in enumerate(zip(logratios, judged, strict=True)):
    end, colour, line = max(r, -7), UP if liked else DOWN, "-" if liked else "--"
    arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.5, "linestyle": line}
    ax.annotate("", (end, row), (0, row), arrowprops=arrow)
    note = f"{r:+.1f}" if r == end else f"{r:.0f}, off the chart"
    ax.text(end + 0.15 if liked else end, row - (0 if liked else 0.3), note, va="center", fontsize=10)
ax.set(xlim=(-7.4, 3), ylim=(7.6, -0.9), xlabel="log-ratio to the frozen reference (nats)")
labels = [
    reply.strip() + ("" if mine == theirs else f" (you: {'up' if mine else 'down'})")
    for reply, mine, theirs in zip(replies, my_thumbs, judged, strict=True)
]
ax.set_yticks(range(8), labels)
ax.set_title("What the judge likes moves right, the rest left")
save_figure(fig, "00_eight_replies", alt=(
    "The log-ratio to the reference of the eight replies about the sky, drawn as arrows from zero. The "
    "three that the judge likes move right by more than one nat. The five that it dislikes move left: "
    "the two polite wrong ones by three to five nats, the three rude ones by more than fifty."
))  # fmt: skip
plt.show()

# %% [markdown]
# Blue is what the judge likes. Did you like *Are you serious? It is blue.*? It fell all the same: your one
# thumb stands against the judge's hundreds of thumbs down on rude replies.

# %% [markdown]
# ### Exercise 0.2 · From probability to log-ratio
# ★☆☆ · 3 minutes · predict a number
#
# The frozen copy gives a reply with probability 0.4. After training the policy gives it with probability 0.1. What
# is its log-ratio $r$? In Python the logarithm $\ln$ is `math.log`.

# %% exercise="first_logratio"
answer = ...  # a number, or a formula for it
### BEGIN SOLUTION
answer = math.log(0.1) - math.log(0.4)
### END SOLUTION

# %% check="first_logratio" points=1
check.first_logratio(answer)

# %% [markdown]
# Now your two guesses.

# %%
after = evaluate.report(policy)
show(after)
clicked_rate, untouched_rate = after[0]["thumbs_up"], after[2]["thumbs_up"]
assert clicked_rate > 0.9 and 1 / 2 < untouched_rate < 2 / 3
reveal("clicked_questions", "c")
reveal("new_facts", "b")

# %%
fig, ax = plt.subplots()
for i, (a, b) in enumerate(zip(before, after, strict=True)):
    ax.bar([i - 0.2, i + 0.2], [a["thumbs_up"], b["thumbs_up"]], width=0.36, color=["#BBBBBB", UP])
    for x, rate in ((i - 0.2, a["thumbs_up"]), (i + 0.2, b["thumbs_up"])):
        ax.text(x, rate + 0.02, f"{rate:.3f}", ha="center")
ax.text(-0.2, 0.06, "before", ha="center", fontsize=10)
ax.text(0.2, 0.06, "after", ha="center", fontsize=10, color="white")
ax.set_xticks(range(3), ["24 clicked\nquestions", "the same,\nnew wording", "8 untouched\nfacts"])
ax.set(ylim=(0, 1.1), ylabel="thumbs-up rate (exact)")
ax.set_title("Clicks carry over to new wording, less to new facts")
save_figure(fig, "00_before_after", alt=(
    "Exact thumbs-up rates before and after 120 steps of KTO. From about a quarter they rise to more "
    "than nine tenths on the clicked questions and on the same questions in new wording, but only to "
    "about six tenths on eight facts that got no clicks."
))  # fmt: skip
plt.show()

# %% [markdown]
# From 0.234 to 0.928 on the clicked questions, and nearly the same in new wording. On untouched facts 0.241
# became 0.585. Manners carried over: polite rose from 0.494 to 0.850. No click said which answer is right
# there; that right rose at all, from 0.480 to 0.585, is a side effect of training on the others.
#
# The last column is the price. It grew from 0.015 to 0.057, and to 0.150 on untouched facts: garbled replies
# such as number 5 above. Lesson [07](07_train.ipynb) watches that closely.
#
# ## 7. What goes wrong
#
# Leave out the weights: both 1.0, the default of the authors' code and of TRL (Hugging Face's library for
# training models from feedback; version 1.16). The rest stays, and 60 steps are enough to see it. Then the
# same at a tenth of the learning rate. (TRL's default is far smaller still, 1e-6, for much larger models.)

# %%
for learning_rate in (5e-4, 5e-5):
    other, record = train.train_kto(
        load_reference_model(), reference, feedback, tokenizer, steps=60, batch_size=16,
        learning_rate=learning_rate, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0, seed=0,
    )  # fmt: skip
    losses, rate = [step["loss"] for step in record], evaluate.thumbs_up_rate(other)
    print(f"learning rate {learning_rate:.5f}: thumbs-up rate {rate:.3f}")
    print(f"  mean loss: first 10 steps {sum(losses[:10]) / 10:.2f}, last 10 {sum(losses[-10:]) / 10:.2f}")
    print("  it says", evaluate.sample(other, question, n=2, seed=1))
    assert sum(losses[-10:]) < sum(losses[:10])
    assert rate < 0.01 if learning_rate == 5e-4 else rate > exact

# %% [markdown]
# The model with the lower loss is ruined: asked for the colour of the sky, it says nothing at all. With so
# many thumbs down, at this learning rate, pushing down won, and good replies became unlikely too. At a tenth
# of it the same weights do improve the model: weights and learning rate decide together. So this course
# never trusts a loss alone. It looks at replies and at the exact rate.
#
# ## 8. Your turn
#
# KTO does not know what is good. It knows what was clicked. Let a judge click who likes answers that are
# right *and rude* (`taste="rude and right"` in `collect_feedback`), train again from a fresh model, and
# talk to it.
#
# <details><summary>One way: add a cell with this (half a minute)</summary>
#
# ```python
# clicks = evaluate.collect_feedback(reference, questions, n=50, seed=0, taste="rude and right")
# n_up = sum(row["label"] for row in clicks)
# up_weight, down_weight = balanced_weights(n_up, len(clicks) - n_up, ratio=4 / 3)
# rude, _ = train.train_kto(
#     load_reference_model(), reference, clicks, tokenizer, steps=120, learning_rate=5e-4,
#     desirable_weight=up_weight, undesirable_weight=down_weight,
# )
# show(evaluate.report(rude))
# evaluate.sample(rude, question, n=8, seed=1)
# ```
# On the clicked questions you should see *right* above 0.9 and *polite* at 0.000 (so *thumbs up*, which asks
# the polite judge, is 0.000 too): mostly replies such as *It is blue. Even a child knows that.*
# </details>

# %% [markdown]
# ### Exercise 0.3 · Somebody else's thumbs
# ★☆☆ · 3 minutes · read a figure and choose a cause
#
# Somebody else clicks on the 1,200 replies of section 3. The bars show how often each kind of reply gets a thumbs up.
# Nobody is perfect: now and then the thumb slips. What does this person like?
#
# - a) right replies, polite or rude
# - b) polite replies, right or wrong
# - c) only replies that are polite and right
# - d) nothing in particular, it is chance

# %%
from kto_course.checks.lesson_00 import mystery_shares

shares = mystery_shares(clicks)
fig, ax = plt.subplots(figsize=(6.0, 3.4))
ax.bar(list(shares), list(shares.values()), width=0.6, color=UP)
for place, share in enumerate(shares.values()):
    ax.text(place, share + 0.02, f"{share:.2f}", ha="center")
ax.set(ylim=(0, 1.1), ylabel="share of thumbs up", title="Thumbs by somebody else")
save_figure(fig, "00_somebody_else", alt=(
    "Share of thumbs up that somebody else gives to four kinds of reply. Polite and right: about nine in ten. "
    "Polite and wrong: about nine in ten. Rude and right: about one in ten. Rude and wrong: about one in ten."
))  # fmt: skip
plt.show()

# %% exercise="mystery_taste"
answer = ...  # a letter in quotes, such as "a"
### BEGIN SOLUTION
answer = "b"
### END SOLUTION

# %% check="mystery_taste" points=1
check.mystery_taste(answer)

# %% [markdown]
# ## The course
#
# | lesson | what you build there |
# |---|---|
# | 00 Start here | this page |
# | [01 Prospect theory](01_prospect_theory.ipynb) | how people feel gains and losses, the K and T in KTO |
# | [02 A tiny Llama](02_tiny_llama.ipynb) | the model itself, and its frozen reference |
# | [03 Tokenization](03_tokenization.ipynb) | from a clicked reply to token ids and masks |
# | [04 The collator](04_collator.ipynb) | a batch, padded, with mismatched replies for $z_0$ |
# | [05 Log-probabilities](05_get_probs.ipynb) | how likely a reply is, token by token |
# | [06 The KTO loss](06_kto_loss.ipynb) | the formula, its gradient, the two weights |
# | [07 Training](07_train.ipynb) | the loop, what to watch, how good it can get |
# | [08 KTO and DPO](08_kto_vs_dpo.ipynb) | both on the same clicks, and when to use which |
#
# **Three routes**
#
# - **Learn**: 00 to 08 in order. Each lesson adds one piece of the program that you have just run.
# - **Teach**: [teaching.md](teaching.md) gives minutes, typical mistakes and what to set for each lesson.
# - **Interview next week**: 00, 05, 06, 08 first, then the rest. Every lesson ends with questions and
#   answers.
#
# Any lesson can be opened first: it needs no other lesson's run.

# %% [markdown]
# **How to use a lesson**
#
# - Write down your answer to *Before you run anything*. A wrong guess teaches more than a right one read.
# - Run the cells in order, with Shift+Enter. Change them and run again. If things get odd: *Kernel >
#   Restart Kernel and Run All Cells*.
# - Nothing leaves your machine, and after the set-up no lesson needs the network.
# - Something is off? In a terminal, `python course.py doctor` looks at this machine and names a remedy.
#   `python course.py test` runs all lessons and compares every printed number with ours.
# - **Your digits should be ours.** Models are usually trained in numbers of 32 or 16 bits; rounding then
#   depends on the processor, and training magnifies it. The lessons compute in 64 bits (`float64`), with
#   every seed in sight. They printed the same under every processor setting that we tried on Linux; macOS
#   and Windows are not compared yet. If a digit differs and you changed nothing, tell us.

# %% [markdown]
# ## Recap
#
# 1. KTO learns from single clicks: prompt, reply, thumb up or down. No pairs.
# 2. The policy learns; a frozen copy, the reference, stays where it was.
# 3. Liked replies are raised, disliked ones lowered, measured by the log-ratio to the reference, from the
#    point $z_0$.
# 4. Here 1,208 clicks and 120 steps took the exact thumbs-up rate from 0.234 to 0.928.
# 5. A falling loss proves nothing: with both weights 1, at this learning rate, it fell while the rate went
#    to zero.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions kto_data kto_in_a_minute}}

# %% [markdown]
# ## Sources
#
# - Ethayarajh et al., *KTO: Model Alignment as Prospect Theoretic Optimization*, [arXiv
#   2402.01306](https://arxiv.org/abs/2402.01306). Loss: v1, Eq. 7. Reference point: v1, section 4.1. Range
#   of the weights: v1, Eq. 8.
# - The small world, the model and all numbers above: computed here.
#
# Next: [01 · Prospect theory](01_prospect_theory.ipynb), where the idea comes from.
