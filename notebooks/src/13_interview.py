# %% [markdown]
# # 13 · The interview
#
# Practise saying it and writing it: the core questions first, blank pages, a mock interview alone or for two.

# %% [markdown]
# **You will be able to**
# - answer in 30 seconds, go on for 3 minutes, and expect what they ask next;
# - say "I do not know" so that it helps you;
# - write the functions of KTO on an empty page, against a clock;
# - hold a mock interview, alone or with somebody, and score it.
#
# **You need first** lessons [00](00_start_here.ipynb), [05](05_get_probs.ipynb), [06](06_kto_loss.ipynb) and
# [08](08_kto_vs_dpo.ipynb), or the part of them that you want to be asked about.
#
# **Time** {{times}}; then as long as you practise. More blank pages: [13b](deeper/13b_blank_pages.ipynb).

# %% [markdown] slide=["One evening", "When should"]
# **Before you run anything.** One evening you go through the same question ten times, and each time you could say the
# answer. When should it come again? Section 5 tells.

# %%
import datetime

import torch
import torch.nn.functional as F

from kto_course import check, interview, predict, reveal

# %%
predict("cramming", "Ten times in one evening, each time it went well. When does it come again?",
        ["in 16 days", "tomorrow", "never"], guess=None, confidence=None)  # fmt: skip

# %% [markdown]
# ## 1. Six hours: 00, 05, 06, 08, then this page
#
# This is what a candidate does, in one day or in three evenings, in the **open** copies of the lessons (folder `work/`;
# here the pages below are blank). It takes the place of what those lessons say under "You need first" and "Next".
#
# | clock | where | what |
# |---|---|---|
# | 0:00 | [00](00_start_here.ipynb) | all of it: you need the picture before the formulas |
# | 0:25 | [05](05_get_probs.ipynb) | all of it, both exercises, and the questions at its end |
# | 1:00 | [06](06_kto_loss.ipynb) | all of it, the three exercises, and the questions at its end |
# | 1:50 | [08](08_kto_vs_dpo.ipynb) | all of it without exercise 8.3, and the questions at its end |
# | 2:35 | [04](04_collator.ipynb) | *Every prompt borrows another row's reply*, read only |
# | 2:42 | [07](07_train.ipynb) | *Read the rewards, not the loss*, read only: a log |
# | 2:52 | [09](09_halos.ipynb) | *A loss can feel gains and losses*, read only: what a HALO is |
# | 3:00 | paper | the [core sheet](handouts/core_sheet.pdf), two pages: cover, say, look; then a walk |
# | 3:40 | here | sections 2 to 5, with the session of section 4 at 20 minutes |
# | 4:25 | here | the blank pages, and the reference point in [13b](deeper/13b_blank_pages.ipynb) |
# | 5:15 | here | section 7, with somebody or alone; then stop |
#
# The sheet holds all 25 core questions; the sessions ask them first, six in 20 minutes. On one from a lesson that you
# have not read, practise section 3. More time? The rest of 04 and 07, then [10](10_bug_museum.ipynb). Begin every day
# with `interview.start(minutes=20)`.

# %% [markdown] slide=["30 seconds.", "3 minutes", "What they ask"]
# ## 2. A ladder: 30 seconds, 3 minutes, what they ask next
#
# Most answers fail by their form. Somebody asks for a sentence and gets a lecture, or asks for depth and gets the
# sentence again. So prepare rungs.
#
# - **30 seconds.** The answer, first word first. Then the one reason or number that carries it. Stop. Look up.
# - **3 minutes**, if they nod. A small example with numbers, the formula, where it fails, what you would check.
# - **What they ask next.** Every good answer invites a question. Know which, and have its first sentence ready.
#
# Stopping after the first rung is the hard part. Silence is the interviewer's turn.
#
# Write formulas from the meaning, not from memory. For the KTO loss: *better than expected?* gives $r - z_0$; *how much
# does it count?* gives $\beta$ and the sigmoid; *which way was the thumb?* gives the sign; *how much does this kind of
# thumb weigh?* gives $\lambda$.

# %% [markdown] slide=["Say it", "Say what", "Say how"]
# ## 3. Not knowing takes three sentences
#
# It will happen; it is meant to.
#
# 1. **Say it, at once:** "I do not know that."
# 2. **Say what you do know, nearest to it:** "$z_0$ is clamped at 0, since a true KL cannot be negative."
# 3. **Say how you would find out:** "I would compute it on a model small enough to list all replies, and compare."
#
# The second and third are what a colleague would want to hear. What costs most is a guess stated as a fact: after it
# nothing else you said is safe. "The paper reports", "in one small world, with five seeds" and "I have not checked" are
# whole answers.

# %% [markdown]
# ## 4. You see a question, answer aloud, and only then look
#
# A session draws questions, about three minutes for each: first what went badly, then core questions that you never
# heard, details last. Here step by step, on one topic, and without your own history (`remember=False`).

# %%
session = interview.start(minutes=20, topics=("loss",), remember=False)
session.question()

# %% [markdown]
# Say your answer now. Then the first rung:

# %%
session.answer()

# %% [markdown]
# And if they want more, the second. (`session.answer()` goes on to what they ask next, then to red flags: wrong answers
# that are often heard.)

# %%
session.answer()

# %% [markdown]
# Rate your own answer: 0 no idea, 1 with gaps, 2 could say it, 3 could teach it. Be strict, nobody else sees it.

# %%
session.rate(1)

# %% [markdown]
# Now yours. In JupyterLab the next cell shows buttons, and remembers. `topics=("dpo", "tokens")` narrows it down,
# `interview.topics()` lists them. In a terminal: `python course.py interview`.

# %%
interview.start(minutes=20)

# %% [markdown]
# ## 5. What went badly comes first, the rest ever later
#
# A question that went badly comes back at once, one that went well after 1, 3, 7 and then 16 days, because recalling
# what you have nearly forgotten is what makes it stay. (The steps are a rule of thumb in the manner of spaced
# repetition, not a measured optimum.)
#
# **What goes wrong: cramming.** The same question ten times in one evening, each time "could say it":

# %%
evening = datetime.datetime(2026, 1, 1, 20, tzinfo=datetime.UTC)
ten_times = [(2, evening + datetime.timedelta(minutes=5 * n)) for n in range(10)]
print("comes again on", interview.due(ten_times), "after the evening of", evening.date())
reveal("cramming", "b")

# %% [markdown]
# Nine of the ten prove nothing about next week, so they move nothing. A good rating counts when the question was due.
# One exception to "badly first": until you have heard all 25 core questions, repeating takes a third of a session.

# %% [markdown]
# ## 6. An empty page, and you speak while you write
#
# Close the lessons. What you say counts as much as the code, so say it aloud. In the solved copy our functions stand in
# the cells: work in the open one.

# %% [markdown]
# ### Exercise 13.1 · From a model to one number
# ★★☆ · 6 minutes · fill in a function
#
# One without a clock first, and a new one: from the model to one number for each reply. Say what you do about its
# length.

# %% exercise="sequence_logps"
def my_sequence_logps(model, input_ids, attention_mask, label_mask):
    """log pi(completion | prompt) of each row, in nats: ids and masks (B, T) -> (B,).

    model(input_ids=..., attention_mask=...).logits are (B, T, V). label_mask is 1 on completion tokens.
    A gradient reaches the model.
    """
    ### BEGIN SOLUTION
    logits = model(input_ids=input_ids, attention_mask=attention_mask).logits[:, :-1]
    targets, scored = input_ids[:, 1:], label_mask[:, 1:].bool()
    logps = logits.log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1)
    return logps.masked_fill(~scored, 0.0).sum(-1)
    ### END SOLUTION


# %% check="sequence_logps" points=2
check.sequence_logps(my_sequence_logps)

# %% [markdown]
# ### Now against the clock
#
# `interview.drill` prints a task and starts its clock; each page has a variable of its own. Its `check` tries what you
# wrote, as often as you like, and after a pass tells what an interviewer listens for. `get_probs_page.time_used()` is
# the clock, `get_probs_page.solution()` shows ours. If the time runs out, finish all the same.

# %% [markdown]
# ### Page 1 · `get_probs`
#
# Logits become one log-probability per token. Where do you begin?

# %%
get_probs_page = interview.drill("get_probs")

# %% exercise="drill_get_probs"
# the cell of exercise get_probs

# %%
get_probs_page.check(my_get_probs)

# %% [markdown]
# ### Page 2 · The KTO loss
#
# The most likely question of all.

# %%
kto_loss_page = interview.drill("kto_loss")

# %% exercise="drill_kto_loss"
# the cell of exercise kto_loss

# %%
kto_loss_page.check(my_kto_loss)

# %% [markdown]
# ### Page 3 · The DPO loss
#
# They will ask for it beside KTO's.

# %%
dpo_loss_page = interview.drill("dpo_loss")

# %% exercise="drill_dpo_loss"
# the cell of exercise dpo_loss

# %%
dpo_loss_page.check(my_dpo_loss)

# %% [markdown]
# Six more pages, the reference point and the collator among them: [13b](deeper/13b_blank_pages.ipynb). Your best times
# are kept on this machine; `interview.times()` shows them.
#
# ## 7. A mock interview: alone against the clock, or two people and two sheets
#
# **Alone**, in a terminal:
#
# ```
# python course.py interview --mock 30
# ```
#
# Six questions, an easy one first and a hard one last; 30 seconds for the short answer, 3 minutes to go on, one for
# what they ask next. The clock runs, no answer is shown until the end; then you see all of them and rate yourself.
# Every day brings other questions.
#
# **With somebody**, 45 minutes. Draw the interview with a number that you both choose: it draws the same on both
# machines. The candidate sees the timetable.

# %%
mock = interview.mock(seed=7)
mock.candidate()

# %% [markdown] slide=["Ask, then", "Give a hint", "Once, state"]
# The interviewer calls `mock.interviewer()` **on their own machine**: four questions of rising difficulty with answers,
# follow-ups and red flags, then the blank page with its points. Three rules:
#
# - Ask, then be silent for ten seconds.
# - Give a hint only when asked, and note it.
# - Once, state a red flag as if it were true: whoever agrees out of politeness has something to learn.
#
# Then both fill in the [scoring sheet](handouts/scoring_sheet.md), each alone. Compare where you differ.

# %% [markdown]
# ## Recap
#
# 1. Six hours: the picture (00), the log-probability (05), the loss (06), DPO (08), then practice.
# 2. Rungs: 30 seconds that stand alone, 3 minutes on request, what they ask next.
# 3. Not knowing takes three sentences: that you do not, what is nearest, how you would find out.
# 4. Core first, and what went badly; repeating in one evening what went well moves nothing.
# 5. A blank page is practised on a blank page, aloud, with a clock.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions write_kto_loss saturation_consequence kto_better_than_dpo}}

# %% [markdown]
# ## Sources
#
# - The questions, each with its own source: `kto_course/questions.yaml`.
# - The pages are exercises of lessons [05](05_get_probs.ipynb), [06](06_kto_loss.ipynb) and
#   [08](08_kto_vs_dpo.ipynb). KTO: Ethayarajh et al., arXiv 2402.01306 v4; DPO: Rafailov et al. 2023.
# - The intervals, the minutes and the borders of the scoring sheet are our own choice.
#
# **Where next?** To sleep, the evening before. Good luck.
