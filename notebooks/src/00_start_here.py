# %% [markdown]
# # 00 · Start here
#
# See what KTO does: a small model replies, you give thumbs up or down, the thumbs make it better.

# %% [markdown]
# **You will be able to**
# - say what KTO (Kahneman-Tversky Optimization) needs and what it changes;
# - train a language model from thumbs and compute how much better it got;
# - say why a falling loss proves nothing.
#
# **You need first** some Python. No machine learning.
#
# **Time** {{times}}.

# %% [markdown] slide=["About one reply", "Now 1,200", "What share", "And on 8"]
# **Before you run anything**: about one reply in four of a small model earns a thumbs up. Now 1,200 replies to 24
# questions get a thumb each, and KTO trains on these thumbs. What share of its replies earns a thumbs up afterwards?
# And on 8 questions without a single thumb?
#
# New to notebooks? Click on the next cell (folded: it looks for the course's code) and press **Shift+Enter**. It runs,
# its output appears below it, and the next cell is selected. Go on like this.

# %%
from kto_course import check, predict, reveal
from kto_course.pictures import lesson_00 as pictures
from kto_utils import evaluate, world
from kto_utils.losses import balanced_weights
from kto_utils.model import load_reference_model, reference_of
from kto_utils.plotting import use_course_style
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import train_kto

use_course_style()

# %% [markdown]
# Your two guesses:

# %% slide=["text 1:4"]
choices = ["about a quarter", "between half and two thirds", "more than nine in ten"]
predict("clicked_questions", "Thumbs up afterwards, the 24 questions?", choices, guess=None, confidence=None)

# %%
predict("new_facts", "And on the 8 questions without thumbs?", choices, guess=None, confidence=None)

# %% [markdown] slide=["Somebody likes"]
# ## 1. One thumb is enough
#
# Somebody likes a model's answer, or does not: one click. KTO turns a pile of clicks into a better model.

# %% slide=["figure"]
pictures.kto_picture()

# %% [markdown]
# - Nobody has to say which of two replies is better. DPO (Direct Preference Optimization) needs such pairs.
# - The model that learns is the **policy**. A frozen copy from before, the **reference**, stands at 0: replies right of
#   it became likelier.
# - The green line is the **reference point** $z_0$: roughly, how far the policy has moved on the whole. From there KTO
#   counts gains and losses.

# %% [markdown] slide=["It learned 32"]
# ## 2. A model that is often rude and often wrong
#
# A tiny language model ships with the course. It learned 32 facts from texts in which half of the answers were wrong
# and half of the replies rude. You load it and freeze a copy.

# %% slide=["text"]
tokenizer = load_tokenizer()
policy = load_reference_model()
reference = reference_of(policy)

question = world.trained_questions()[0]
replies = evaluate.sample(policy, question, n=8, seed=1)
print(question.text)
for number, reply in enumerate(replies):
    print(number, reply)

# %% [markdown]
# ## 3. You give the thumbs
#
# `True` is thumbs up, `False` thumbs down, in the order above. The list holds our choice. Change it as you like and run
# the cell again.

# %%
my_thumbs = [False, True, False, False, True, False, True, True]

judged = [world.judge(question, reply) for reply in replies]
for reply, mine, theirs in zip(replies, my_thumbs, judged, strict=True):
    print("up  " if mine else "down", reply + ("" if mine == theirs else "   <- the judge disagrees"))

# %% [markdown]
# The **judge** is our simulated human: thumbs up only for what is polite *and* right. We let a rude reply pass because
# it is right. Real people disagree too.
#
# Eight thumbs are few. So the judge now gives one to each of 50 replies to 24 questions, and yours join them.

# %%
clicks = evaluate.collect_feedback(reference, world.trained_questions(), n=50, seed=0)
mine = [{"prompt": question.prompt, "completion": reply, "label": thumb}
        for reply, thumb in zip(replies, my_thumbs, strict=True)]  # fmt: skip
feedback = clicks + mine
print(len(clicks), "+", len(mine), "thumbs. The first:", feedback[0])

# %% [markdown]
# That is all KTO gets: a prompt, a completion (the reply), a label (the thumb). No second reply, no corrected answer.

# %% [markdown]
# ## 4. How good is it? A sum, no estimate
#
# To each question the model nearly always gives one of 48 replies that we know, the **listed replies**. So you can add
# up the probabilities of those that the judge likes: the **thumbs-up rate**.


# %%
def show(report):
    for row in report:
        shares = "   ".join(f"{name} {row[name]:.3f}" for name in ("thumbs_up", "polite", "right", "listed"))
        print(f"{row['questions']:16s} {shares}")


before = evaluate.report(reference)
show(before)
print(f"thumbs up among the {len(clicks)} clicks: {sum(row['label'] for row in clicks) / len(clicks):.3f}")

# %% [markdown]
# One reply in four, and the count of clicks says nearly the same. *New wording* asks the 24 questions in other words;
# *untouched facts* are the 8 on which nobody clicks.

# %% [markdown]
# ### Exercise 0.1 · Add up what is liked
# ★☆☆ · 4 minutes · fill in a function
#
# Four replies have the probabilities 0.1, 0.4, 0.25 and 0.2. The judge likes all but the second, so the rate is
# 0.1 + 0.25 + 0.2 = 0.55. (Other replies, 0.05 together, are not liked.) Write the function for any such lists, in the
# place of the dots.
#
# Run the cell, then the one below: it checks your answer and gives a hint. You may skip any exercise.

# %% exercise="thumbs_up_rate"
def my_thumbs_up_rate(probabilities, liked):
    """Probability of a liked reply, from lists such as [0.1, 0.4] and [True, False]."""
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
# ## 5. Training is 120 small steps
#
# Three words, then you train.
#
# - The **loss** is a number to be made small. KTO's is small when liked replies became likelier and disliked ones less
#   likely.
# - A **step** looks at 16 thumbs and changes every number in the model a little, so that the loss on them falls.
# - The **learning rate** says how large a step is.
#
# Thumbs up are rare here, so each gets a larger weight: as much as balances the two kinds, times 4/3.

# %%
n_up = sum(row["label"] for row in feedback)
n_down = len(feedback) - n_up
up_weight, down_weight = balanced_weights(n_up, n_down, ratio=4 / 3)
print(f"{n_down} down, weight {down_weight:.2f} each; {n_up} up, weight {up_weight:.2f} each")

policy, history = train_kto(load_reference_model(), reference, feedback, tokenizer, steps=120, batch_size=16,
                            learning_rate=5e-4, beta=0.1, seed=0,
                            desirable_weight=up_weight, undesirable_weight=down_weight)  # fmt: skip

# %% [markdown]
# ## 6. What is liked became likelier
#
# The same question, the same random seed, another model:

# %%
print("\n".join(evaluate.sample(policy, question, n=8, seed=1)))

# %% [markdown] slide=["$r = 1$"]
# And the eight that you judged? The axis of the first picture, the **log-ratio** $r$, is the logarithm of a reply's
# probability now, minus that under the frozen copy. $r = 1$ (the unit is the nat) means 2.7 times as likely.

# %% slide=["figure"]
old, new = (evaluate.completion_logps(model, [question.prompt] * 8, replies) for model in (reference, policy))
logratios = (new - old).tolist()
print(f"reply 1: probability {old[1].exp():.3f} before, {new[1].exp():.3f} now, r = {logratios[1]:+.2f}")
pictures.eight_replies(replies, logratios, judged, my_thumbs)

# %% [markdown]
# *Are you serious? It is blue.* fell although we liked it: one thumb against hundreds on rude replies.

# %% [markdown]
# ## 7. New wording gains as much, new facts less
#
# Now your two guesses.

# %%
after = evaluate.report(policy)
show(after)
reveal("clicked_questions", "c")
reveal("new_facts", "b")

# %% slide=["figure"]
pictures.before_after(before, after)

# %% [markdown]
# On untouched facts manners carried over: *polite* rose from 0.494 to 0.850. No thumb says what is *right* there; that
# it rose at all is a side effect.
#
# The last column is the price. It fell from 0.985 to 0.943, and to 0.850 on untouched facts: garbled replies, such as
# one above. Lesson [07](07_train.ipynb) watches that.

# %% [markdown] slide=["Which model would"]
# ## 8. The lower loss belongs to the collapsed model
#
# What goes wrong: leave out the weights (both 1) and train 60 steps. Then the same at a tenth of the learning rate.
# Which model would you take, if you saw only the losses?

# %% slide=["text"]
for learning_rate in (5e-4, 5e-5):
    other, record = train_kto(load_reference_model(), reference, feedback, tokenizer, steps=60, batch_size=16,
                              learning_rate=learning_rate, beta=0.1, seed=0)  # fmt: skip
    loss = sum(step["loss"] for step in record[-10:]) / 10
    print(f"learning rate {learning_rate:.5f}: mean loss at the end {loss:.2f}, "
          f"thumbs-up rate {evaluate.thumbs_up_rate(other):.3f}, "
          f"says {evaluate.sample(other, question, n=1, seed=1)}")

# %% [markdown] slide=["So never trust", "Look at replies"]
# The first one **collapsed**: its thumbs-up rate ended below the 0.234 where it began. Asked for the colour of the sky,
# it says nothing at all. With so many thumbs down, steps of this size pushed good replies down too. Small steps with
# the same weights do improve the model: weights and learning rate decide together. So never trust a loss alone. Look
# at replies and at the exact rate.

# %% [markdown]
# ## 9. KTO learns what was clicked, good or not
#
# Let a judge click who likes replies that are right *and rude*, train again, and talk to that model.
#
# <details><summary>Add a cell with this (ten seconds)</summary>
#
# ```python
# clicks = evaluate.collect_feedback(reference, world.trained_questions(), n=50, seed=0, taste="rude and right")
# n_up = sum(row["label"] for row in clicks)
# up_weight, down_weight = balanced_weights(n_up, len(clicks) - n_up, ratio=4 / 3)
# rude, _ = train_kto(
#     load_reference_model(), reference, clicks, tokenizer, steps=120, learning_rate=5e-4,
#     desirable_weight=up_weight, undesirable_weight=down_weight,
# )
# show(evaluate.report(rude))
# evaluate.sample(rude, question, n=8, seed=1)
# ```
# On the 24 questions you should see *right* above 0.9 and *polite* at 0.000, so *thumbs up*, which asks the polite
# judge, is 0.000 too.
# </details>

# %% [markdown]
# ## 10. The same on a real chat model
#
# The model above is tiny. The same function, `train_kto`, took 24 steps on SmolLM2-135M-Instruct, a chat model of 135
# million parameters, with thumbs for replies that are right *and* brief. One held-out question, before and after:

# %%
from kto_lab.real import questions, results

runs = results.load()
print(questions.capitals()[1][4].question, "\n")
for name in ("before", "kto"):
    print(f"{name}: {' '.join(runs[name, 4]['replies'][4][0].split())}\n")

# %% [markdown]
# That is some minutes on a laptop, offline. Lesson [12](12_scaling_up.ipynb) tells the whole story, what it cost
# included; `python course.py real` repeats it on your machine.

# %% [markdown]
# ## 11. Fourteen lessons, three ways through
#
# - 00: this page
# - [01](01_prospect_theory.ipynb): compute how gains and losses feel, the K and T in KTO
# - [02](02_tiny_llama.ipynb): rebuild the model, freeze its copy
# - [03](03_tokenization.ipynb): turn a reply and its thumb into token ids and masks
# - [04](04_collator.ipynb): make a batch of many rows
# - [05](05_get_probs.ipynb): compute how likely a reply is
# - [06](06_kto_loss.ipynb): derive the KTO loss and its gradient
# - [07](07_train.ipynb): write the loop, read its log, find the price
# - [08](08_kto_vs_dpo.ipynb): put KTO against DPO
# - [09](09_halos.ipynb): meet the family of such losses
# - [10](10_bug_museum.ipynb): recognise famous faults by their logs
# - [11](11_your_data.ipynb): bring your own thumbs
# - [12](12_scaling_up.ipynb): use more processes, larger models
# - [13](13_interview.ipynb): practise saying it and writing it
#
# Each can be opened first. Many link a deeper notebook, for whoever wants more; no lesson needs one.
#
# **Learn**: 00 to 08 in order, then what you like. **Teach**: begin with [teaching.md](teaching.md). **Interview next
# week**: six hours, from here to 05, 06, 08, parts of others, then 13, whose section 1 has the timetable
# ([13](13_interview.ipynb)).
#
# **Your digits should be ours, on every machine**: all lessons compute in 64-bit numbers (`float64`) from fixed seeds.
# (Tried on Linux only, with several processor settings.) Something is odd? *Kernel > Restart Kernel and Run All Cells*;
# then, in a terminal, `python course.py doctor`.

# %% [markdown]
# ## Recap
#
# 1. KTO learns from prompt, reply and thumb. No pairs.
# 2. The policy learns; its frozen copy, the reference, stays.
# 3. Liked replies go up and disliked ones down, measured by the log-ratio to the reference.
# 4. Here 1,208 thumbs and 120 steps took the exact thumbs-up rate from 0.234 to 0.928.
# 5. The lower loss belonged to the collapsed model.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions kto_in_a_minute kto_data what_to_monitor}}

# %% [markdown]
# ## Sources
#
# Ethayarajh et al., *KTO: Model Alignment as Prospect Theoretic Optimization*, [arXiv
# 2402.01306](https://arxiv.org/abs/2402.01306): loss v4, Eq. 8; reference point v4, section 4.1; ratio of the weights 1
# to 3/2 in v4, Eq. 9, and 1 to 4/3 in v1, Eq. 8. World, model and all numbers are computed here.
#
# Next: [01 · Prospect theory](01_prospect_theory.ipynb), where the idea comes from.
