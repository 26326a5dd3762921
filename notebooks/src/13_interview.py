# %% [markdown]
# # 13 · The interview
#
# Practise saying it and writing it: questions chosen by what you got wrong, ten blank pages, a mock interview for two.

# %% [markdown]
# **You will be able to**
# - answer a question in 30 seconds, and go on for 3 minutes when asked;
# - say "I do not know" so that it helps you;
# - write ten functions of KTO on an empty page, against a clock;
# - hold a mock interview with somebody, and score it.
#
# **You need first** the lessons, or the part of them that you want to be asked about. This one opens without them.
#
# **Time** {{times}}; then as long as you practise.

# %% [markdown]
# **Before you run anything.** One evening you go through the same question ten times, and each time you could say the
# answer. When should it come again: in 16 days, tomorrow, or never? The answer stands in section 5.

# %%
import datetime
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from kto_course import calibration, check, interview, predict, reveal
from kto_utils.plotting import DOWN, UP, save_figure, use_course_style

use_course_style()

# %%
predict("cramming", "Ten times in one evening, each time a 2. When does the question come again?",
        ["in 16 days", "tomorrow", "never"], guess=None, confidence=None)  # fmt: skip

# %% [markdown]
# ## 1. Seven days
#
# Your interview is in a week. About two hours a day are enough for this plan, by the minutes of the course map. Begin
# each day with `interview.start(minutes=20)`, section 4: it brings back what you got wrong the day before.
#
# | day | read | write on an empty page |
# |---|---|---|
# | 1 | [00](00_start_here.ipynb), [02](02_tiny_llama.ipynb) | causal attention, rotary positions |
# | 2 | [03](03_tokenization.ipynb), [04](04_collator.ipynb) | tokens with a mask, the collator |
# | 3 | [05](05_get_probs.ipynb) | `get_probs`, the log-probability of a reply |
# | 4 | [06](06_kto_loss.ipynb) | reference point, loss, gradient |
# | 5 | [08](08_kto_vs_dpo.ipynb), [01](01_prospect_theory.ipynb) | the DPO loss, and what failed before |
# | 6 | [07](07_train.ipynb), [10](10_bug_museum.ipynb) | nothing: read logs and name the fault |
# | 7 | [11](11_your_data.ipynb) or [12](12_scaling_up.ipynb), as the job asks | the mock interview; then stop |
#
# Only three days left? Take 4, 3 and 5, in this order, and the mock interview on the third evening.

# %% [markdown]
# ## 2. Answer in a ladder
#
# Most answers fail by their form. Somebody asks for a sentence and gets a lecture, or asks for depth and gets the
# sentence again. So prepare two rungs.
#
# - **30 seconds.** The answer, first word first. Then the one reason or number that carries it. Stop. Look up.
# - **3 minutes**, if they nod. A small example with numbers, the formula, where it fails, what you would check.
#
# Stopping after the first rung is the hard part. Silence is the interviewer's turn.
#
# Write formulas from the meaning, not from memory. For the KTO loss: *better than expected?* gives $r - z_0$; *how much
# does it count?* gives $\beta$ and the sigmoid; *which way was the thumb?* gives the sign; *how much does this kind of
# thumb weigh?* gives $\lambda$.

# %% [markdown]
# ## 3. When you do not know
#
# It will happen; it is meant to. Three sentences help.
#
# 1. **Say it, at once:** "I do not know that."
# 2. **Say what you do know, nearest to it:** "$z_0$ is clamped at 0, since a true KL cannot be negative."
# 3. **Say how you would find out:** "I would compute it on a model small enough to enumerate all replies, and compare."
#
# The second and third sentence are what a colleague would want to hear from you. What costs most is a guess that is
# stated as a fact, because after it nothing else you said is safe.
#
# The same goes for results. "The paper reports", "in one small world, with three seeds" and "I have not checked" are
# whole answers.

# %% [markdown]
# ## 4. The interview mode
#
# A session draws questions, about three minutes for each. You see one, you answer **aloud**, and only then you look.
# Here step by step, on one topic, and without your own history (`remember=False`).

# %%
session = interview.start(minutes=20, topics=("loss",), seed=1, remember=False)
session.question()

# %% [markdown]
# Say your answer now. Then the first rung:

# %%
session.answer()

# %% [markdown]
# And if they want more:

# %%
session.answer()

# %% [markdown]
# What they are likely to ask next, with answers:

# %%
session.answer()

# %% [markdown]
# Wrong answers that are often heard. If yours was among them, that is the line to read twice.

# %%
session.answer()

# %% [markdown]
# Rate your own answer: 0 no idea, 1 with gaps, 2 could say it, 3 could teach it. Be strict, nobody else sees it.

# %%
session.rate(1)

# %%
session.summary()

# %% [markdown]
# Now yours. In JupyterLab the next cell shows buttons, and remembers. `topics=("dpo", "tokens")` narrows it down.
#
# In a terminal, `python -m kto_course.interview --minutes 20` does the same; without buttons here,
# `interview.start(minutes=20, widgets=False)`.

# %%
interview.start(minutes=20)

# %%
print(", ".join(interview.topics()))

# %% [markdown]
# ## 5. What comes again, and when
#
# Questions are drawn in this order:
#
# 1. those you rated 0 or 1 when last asked;
# 2. new or due ones from a lesson in which your last try at an exercise was wrong;
# 3. those that are due, the longest overdue first;
# 4. new ones;
# 5. if there is time left, those that are not due yet.
#
# A 2 moves a question one step along 1, 3, 7, 16 days; a 3 moves it two steps; a 0 or a 1 puts it back to the start.
# The steps are a simple rule of thumb in the manner of spaced repetition, not a measured optimum.

# %%
def days_asked(rating_on, until=45):
    """Days on which a question is asked if you practise every day; rating_on(day) is what you say."""
    start, history, days = datetime.datetime(2026, 1, 1, 9, tzinfo=datetime.UTC), [], []
    for day in range(until):
        today = start + datetime.timedelta(days=day)
        if not history or interview.due(history) <= today.date():
            history.append((rating_on(day), today))
            days.append(day)
    return days


runs = {
    "always 3": days_asked(lambda day: 3),
    "always 2": days_asked(lambda day: 2),
    "a 0 on day 11": days_asked(lambda day: 0 if day == 11 else 2),
}
for name, days in runs.items():
    print(f"{name:14s} {days}")

# %%
fig, ax = plt.subplots(figsize=(6.4, 2.4))
for height, (name, days) in enumerate(runs.items()):
    ax.plot(days, [height] * len(days), "o-", color=UP, markersize=7)
    ax.text(46, height, name, va="center")
ax.plot(11, 2, "X", color=DOWN, markersize=11)
ax.set(xlabel="day", yticks=[], ylim=(-0.6, 2.6), xlim=(-1, 58), title="What you know comes rarely")
save_figure(
    fig,
    "13_spacing",
    alt="Three rows of dots, the days on which a question is asked within 45 days. Always rated 3: few dots, far "
    "apart. Always rated 2: gaps that grow. Rated 0 on day 11: after a cross the gaps begin again from one day.",
)
plt.show()

# %% [markdown]
# **What goes wrong: cramming.** The same question ten times in one evening, each time a 2:

# %%
evening = datetime.datetime(2026, 1, 1, 20, tzinfo=datetime.UTC)
ten_times = [(2, evening + datetime.timedelta(minutes=5 * n)) for n in range(10)]
wait = (interview.due(ten_times) - evening.date()).days
print(f"comes again in {wait} day")
reveal("cramming", {16: "a", 1: "b"}[wait])

# %% [markdown]
# Nine of the ten prove nothing about next week, so they move nothing. A rating counts when the question was due.

# %% [markdown]
# ## 6. Ten blank pages
#
# An empty function, a clock, a check. Close the lessons. `interview.drill` prints the task and starts the clock.
# `drill.check` tries what you wrote, as often as you like, and `drill.solution` shows ours afterwards, with what an
# interviewer listens for while you write.
#
# If the time runs out, finish all the same. Speak while you write: what you say counts as much as the code.
#
# Your times are kept on this machine. `drill.time_used()` tells the time, `interview.times()` shows your best ones.

# %%
interview.times()

# %% [markdown]
# ### Blank page 1 · Tokens and a mask
#
# A row of feedback becomes ids and a mask. The interviewer watches the border between prompt and reply, and the end.

# %%
drill = interview.drill("tokenize_with_mask")

# %% exercise="drill_tokenize_with_mask"
def my_tokenize_with_mask(prompt, completion, tokenizer):
    """Token ids and mask of one row: (input_ids, label_mask), two lists of T ints.

    prompt, completion: str, tokenized as one text; a special name that a user typed stays text.
    tokenizer: with encode(text, add_special_tokens=..., split_special_tokens=...), bos_token_id, eos_token_id.
    input_ids: BOS, the tokens of prompt + completion, EOS.
    label_mask: 0 on BOS and on the tokens that agree, from the beginning, with those of the prompt alone; 1 on all
    others, EOS included.
    """
    ### BEGIN SOLUTION
    texts = (prompt, prompt + completion)
    alone, whole = (tokenizer.encode(t, add_special_tokens=False, split_special_tokens=True) for t in texts)
    shared = 0
    while shared < len(alone) and alone[shared] == whole[shared]:
        shared += 1
    input_ids = [tokenizer.bos_token_id, *whole, tokenizer.eos_token_id]
    n_prompt = 1 + shared
    return input_ids, [0] * n_prompt + [1] * (len(input_ids) - n_prompt)
    ### END SOLUTION


# %%
drill.check(my_tokenize_with_mask)

# %%
drill.solution()

# %% [markdown]
# ### Blank page 2 · The collator
#
# Rows of different lengths become a batch, and every prompt borrows a reply.

# %%
drill = interview.drill("collate_kto")

# %% exercise="drill_collate_kto"
def my_collate_kto(examples, pad_id):
    """One batch for KTO: padded rows, their thumbs, and the mismatched rows, as a dict of tensors.

    examples: B dicts with input_ids, attention_mask, label_mask (lists of T_i ints) and label (bool).
    Returns input_ids, attention_mask, label_mask (int64, (B, T)), label (bool, (B,)), and kl_input_ids,
    kl_attention_mask, kl_label_mask (int64, (B, T_kl)): the prompt of row i with the completion of row i - 1; row 0
    borrows from the last. Padding to the longest row, on the right: pad_id in the ids (it may be the id of EOS), 0 in
    the masks. ValueError for fewer than two examples.
    """
    ### BEGIN SOLUTION
    if len(examples) < 2:
        raise ValueError("a batch of one row has nobody to borrow a completion from")
    rows = [(example["input_ids"], example["label_mask"]) for example in examples]
    mixed = []
    for i, (ids, mask) in enumerate(rows):
        other_ids, other_mask = rows[i - 1]
        end, start = mask.index(1), other_mask.index(1)
        mixed.append((ids[:end] + other_ids[start:], mask[:end] + other_mask[start:]))
    batch = {"label": torch.tensor([example["label"] for example in examples])}
    for prefix, some in (("", rows), ("kl_", mixed)):
        longest = max(len(ids) for ids, _ in some)
        padded = [(ids, mask, longest - len(ids)) for ids, mask in some]
        batch[f"{prefix}input_ids"] = torch.tensor([ids + gap * [pad_id] for ids, _, gap in padded])
        batch[f"{prefix}attention_mask"] = torch.tensor([len(ids) * [1] + gap * [0] for ids, _, gap in padded])
        batch[f"{prefix}label_mask"] = torch.tensor([mask + gap * [0] for _, mask, gap in padded])
    return batch
    ### END SOLUTION


# %%
drill.check(my_collate_kto)

# %%
drill.solution()

# %% [markdown]
# ### Blank page 3 · `get_probs`
#
# Logits become one log-probability per token. Where do you begin?

# %%
drill = interview.drill("get_probs")

# %% exercise="drill_get_probs"
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


# %%
drill.check(my_get_probs)

# %%
drill.solution()

# %% [markdown]
# ### Exercise 13.1 · From a model to one number
# ★★☆ · 6 minutes · fill in a function
#
# Blank page 4, and a new one: no earlier lesson has it as an exercise. From the model to one number for each reply. Say
# what you do about its length.

# %%
drill = interview.drill("sequence_logps")

# %% exercise="sequence_logps"
def my_sequence_logps(model, input_ids, attention_mask, label_mask):
    """log pi(completion | prompt) of each row, in nats: ids and masks (B, T) -> (B,).

    model(input_ids=..., attention_mask=...).logits are (B, T, V). label_mask is 1 on completion tokens. A gradient
    reaches the model.
    """
    ### BEGIN SOLUTION
    logits = model(input_ids=input_ids, attention_mask=attention_mask).logits[:, :-1]
    targets, scored = input_ids[:, 1:], label_mask[:, 1:].bool()
    logps = logits.log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1)
    return logps.masked_fill(~scored, 0.0).sum(-1)
    ### END SOLUTION


# %% check="sequence_logps" points=2
check.sequence_logps(my_sequence_logps)

# %%
drill.check(my_sequence_logps)

# %%
drill.solution()

# %% [markdown]
# ### Blank page 5 · The reference point
#
# Two lines of code, four ways to get them wrong.

# %%
drill = interview.drill("reference_point")

# %% exercise="drill_reference_point"
def my_reference_point(policy_kl_logps, reference_kl_logps):
    """z0 from the borrowed completions: twice (B,) in nats -> a scalar tensor in nats, at least 0, without gradient."""
    ### BEGIN SOLUTION
    mismatched_logratio = policy_kl_logps - reference_kl_logps
    return mismatched_logratio.mean().clamp(min=0).detach()
    ### END SOLUTION


# %%
drill.check(my_reference_point)

# %%
drill.solution()

# %% [markdown]
# ### Blank page 6 · The KTO loss
#
# The most likely question of all.

# %%
drill = interview.drill("kto_loss")

# %% exercise="drill_kto_loss"
def my_kto_loss(
    policy_logps, reference_logps, label, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
):
    """KTO loss of each row: log-probabilities (B,) in nats, label (B,) of bools, z0 a scalar tensor in nats -> (B,)."""
    ### BEGIN SOLUTION
    sign = torch.where(label, 1.0, -1.0)
    weight = torch.where(label, desirable_weight, undesirable_weight)
    u = sign * beta * (policy_logps - reference_logps - z0)
    return weight * torch.sigmoid(-u)
    ### END SOLUTION


# %%
drill.check(my_kto_loss)

# %%
drill.solution()

# %% [markdown]
# ### Blank page 7 · The gradient of KTO
#
# With pencil and chain rule, then in code.

# %%
drill = interview.drill("kto_gradient")

# %% exercise="drill_kto_gradient"
def my_kto_gradient(logratio, label, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    """dL/dr_i of the mean KTO loss: logratio (B,) in nats, label (B,) of bools, z0 a scalar tensor in nats -> (B,)."""
    ### BEGIN SOLUTION
    sign = torch.where(label, 1.0, -1.0)
    weight = torch.where(label, desirable_weight, undesirable_weight)
    u = sign * beta * (logratio - z0)
    return -sign * weight * beta * torch.sigmoid(u) * torch.sigmoid(-u) / len(logratio)
    ### END SOLUTION


# %%
drill.check(my_kto_gradient)

# %%
drill.solution()

# %% [markdown]
# ### Blank page 8 · The DPO loss
#
# They will ask for it beside KTO's.

# %%
drill = interview.drill("dpo_loss")

# %% exercise="drill_dpo_loss"
def my_dpo_loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta=0.1):
    """-log sigmoid(beta * (r_chosen - r_rejected)) of each pair, with r = policy - reference.

    The four tensors: (B,), log-probabilities of whole replies in nats. Returns (B,).
    """
    ### BEGIN SOLUTION
    margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
    return -F.logsigmoid(beta * margin)
    ### END SOLUTION


# %%
drill.check(my_dpo_loss)

# %%
drill.solution()

# %% [markdown]
# ### Blank page 9 · Causal attention
#
# Nothing of KTO in it, and still asked: nobody may look ahead.

# %%
drill = interview.drill("causal_attention")

# %% exercise="drill_causal_attention"
def my_causal_attention(q, k, v):
    """Causal attention of one head: q and k (T, d), v (T, e) -> (T, e). A gradient passes through all three."""
    ### BEGIN SOLUTION
    scores = q @ k.T / math.sqrt(q.shape[-1])
    future = torch.ones_like(scores, dtype=torch.bool).triu(diagonal=1)
    return scores.masked_fill(future, -torch.inf).softmax(-1) @ v
    ### END SOLUTION


# %%
drill.check(my_causal_attention)

# %%
drill.solution()

# %% [markdown]
# ### Blank page 10 · Rotary positions
#
# The position goes into the angle.

# %%
drill = interview.drill("rotary")

# %% exercise="drill_rotary"
def my_rotary(x):
    """Rotary positions: x (T, d) with d even -> (T, d), row t turned by position t.

    Entry i is paired with entry i + d/2. A gradient passes through.
    """
    ### BEGIN SOLUTION
    T, d = x.shape
    speeds = 10000.0 ** (-torch.arange(0, d, 2, dtype=x.dtype) / d)
    angles = torch.arange(T, dtype=x.dtype)[:, None] * speeds
    cos, sin = angles.cos(), angles.sin()
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    ### END SOLUTION


# %%
drill.check(my_rotary)

# %%
drill.solution()

# %% [markdown]
# ## 7. A mock interview for two
#
# 45 minutes, two people, one clock. Draw it with a number that you both choose; the same number draws the same
# questions on both machines. The candidate sees the timetable.

# %%
mock = interview.mock(seed=7)
mock.candidate()

# %% [markdown]
# The interviewer calls `mock.interviewer()` **on their own machine**: four questions of rising difficulty with answers,
# follow-ups and red flags, then the blank page with its five points. Here only the stars, to give nothing away:

# %%
print("  ".join("★" * question.difficulty for question in mock.questions))

# %% [markdown]
# Three rules for the interviewer. Ask, then be silent for ten seconds. Give a hint only when asked, and note it. Once,
# state a red flag as if it were true: whoever agrees out of politeness has something to learn.
#
# Then both fill in the sheet, each alone. To print it, take the file
# [handouts/scoring_sheet.md](handouts/scoring_sheet.md), or *File > Print* from here.

# %%
interview.scoring_sheet()

# %% [markdown]
# ## 8. How well do you know what you know?
#
# In the lessons you predicted results and said how sure you were. Somebody well calibrated is right in 7 of 10 cases
# where they say 70%. In an interview that is the difference between "I am sure" and "I believe".

# %%
calibration()

# %% [markdown]
# ## Recap
#
# 1. Two rungs: 30 seconds that stand alone, 3 minutes on request.
# 2. Not knowing takes three sentences: that you do not, what is nearest, how you would find out.
# 3. What went badly comes first, the rest after 1, 3, 7 and 16 days; repeating in one evening moves nothing.
# 4. A blank page is practised on a blank page, with a clock and with your own check values.
# 5. A mock interview is worth its comparison afterwards: two sheets, filled in apart.

# %% [markdown]
# ## Questions an interviewer asks
#
# <details><summary>Explain KTO in 30 seconds.</summary>
#
# It trains a model on single replies with a thumb up or down. Each reply's log-probability is compared with that of a
# frozen copy of the model, then with a reference point shared by the batch. A sigmoid turns the difference into a
# bounded loss: liked replies are pushed above the reference point, disliked ones below. No pairs, no reward model.
# </details>
#
# <details><summary>Write the loss on the board. Where do you begin?</summary>
#
# With r, the log-ratio summed over the reply's tokens, and z0, one constant for the batch. Then u = s beta (r - z0),
# s = +1 for a thumb up and -1 for a thumb down, and w sigmoid(-u), averaged. Check: with r = z0 = 0 it is half the
# mean weight.
# </details>
#
# <details><summary>What is the weakest point of KTO, in your view?</summary>
#
# A fair answer names one and its evidence. For example: it lets go of hard rows, since the gradient vanishes on both
# sides; or: its reference point is often 0 although the policy has moved; or: no theorem gives it DPO's optimum.
# </details>
#
# <details><summary>You said 0.5 a minute ago. Are you sure?</summary>
#
# Do the sum again, aloud, instead of defending or giving in. At step 0 r = z0 = 0, sigmoid(0) = 1/2, so the loss is
# half the mean weight, which is 0.5 with both weights 1.
# </details>
#
# <details><summary>Tell me about a time when your result was wrong.</summary>
#
# The museum has material: which number looked right, which one gave it away, and which check would have caught it on
# the first day. A loss that fell nicely while the model learned to copy is a good story, because it is a common one.
# </details>

# %% [markdown]
# ## Sources
#
# - The questions, each with its own source: `kto_course/questions.yaml`.
# - The drills are exercises of lessons [02](02_tiny_llama.ipynb), [03](03_tokenization.ipynb),
#   [04](04_collator.ipynb), [05](05_get_probs.ipynb), [06](06_kto_loss.ipynb) and [08](08_kto_vs_dpo.ipynb).
# - KTO: Ethayarajh et al., arXiv 2402.01306 v1; DPO: Rafailov et al. 2023.
# - The intervals, the minutes and the borders of the scoring sheet are our own choice.
#
# **Where next?** To sleep, the evening before. Good luck.
