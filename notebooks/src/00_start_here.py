# %% [markdown]
# # 00 · Start here
#
# See in two minutes what KTO does: a small model replies, you click thumbs up or down, and the clicks make it better.

# %% [markdown]
# **You will be able to**
# - say what KTO (Kahneman-Tversky Optimization) needs and what it changes;
# - train a language model from thumbs and measure exactly how much better it got;
# - choose your way through the course.
#
# **You need first** some Python. No machine learning yet.
#
# **Time** about {{minutes}} minutes to read, {{seconds}} s to run.

# %% [markdown]
# **Before you run anything**: the model below earns a thumbs up for about one reply in four. People will now click on
# 1,200 of its replies to 24 questions, and KTO will train on the clicks. Write down two guesses.
#
# 1. What share of its replies to these 24 questions earns a thumbs up afterwards?
# 2. And its replies to 8 questions that nobody ever clicked on?

# %% [markdown]
# New to notebooks? Click on the grey cell below and press **Shift+Enter**: it runs, its output appears under it, and the
# next cell is selected. Go on like this to the end.

# %%
import matplotlib.pyplot as plt

from kto_utils import evaluate, train, world
from kto_utils.losses import balanced_weights
from kto_utils.model import load_reference_model, reference_of
from kto_utils.plotting import DOWN, NEUTRAL, UP, kto_picture, label_line, save_figure, use_course_style
from kto_utils.tokenizer import load_tokenizer

use_course_style()

# %% [markdown]
# ## 1. KTO in one picture
#
# A model answers a question. Someone likes the answer, or does not: one click. KTO turns a pile of such clicks into a
# better model.

# %%
fig = kto_picture()
save_figure(fig, "00_kto_in_one_picture", alt=(
    "KTO in three steps. One: a model gives three replies to the question What colour is the sky. Two: people "
    "click thumbs up on the polite right one, thumbs down on a wrong one and on a rude one. Three: on an axis that "
    "measures the log-ratio to a frozen reference, the liked reply is moved right, past the reference point z0, "
    "and the two disliked replies are moved left."
))  # fmt: skip
plt.show()

# %% [markdown]
# Three things to notice.
#
# - **One thumb is enough.** Nobody has to say which of two replies is better. Older methods such as DPO learn from pairs.
# - The model that learns is called the **policy**. A **frozen copy**, the **reference**, remembers where it started.
# - Every move is judged against a zero mark: the **reference point** $z_0$, an estimate of how far the policy has
#   moved on the whole.

# %% [markdown]
# ## 2. Talk to the model
#
# A tiny language model ships with the course. It knows 32 facts, but only half learned them, and half of the time it is
# rude. We load it and freeze a copy.

# %%
tokenizer = load_tokenizer()
policy = load_reference_model()
reference = reference_of(policy)
print(f"{sum(p.numel() for p in policy.parameters()):,} numbers to train")

# %%
question = world.trained_questions()[0]
replies = evaluate.sample(policy, question, n=8, seed=1)

print(question.text)
for number, reply in enumerate(replies):
    print(f"{number}  {reply}")

# %% [markdown]
# ## 3. Give it thumbs
#
# Now you: `True` is thumbs up, `False` is thumbs down, in the order of the replies above. The list holds our choice.
# Change it as you like and run the cell again.

# %%
my_thumbs = [False, False, True, False, True, False, False, True]

judged = [world.judge(question, reply) for reply in replies]
for reply, mine, theirs in zip(replies, my_thumbs, judged, strict=True):
    remark = "" if mine == theirs else "   <- you disagree with the judge"
    print(f"{'up  ' if mine else 'down'} {reply}{remark}")
print(f"\nYou and the judge agree on {sum(m == t for m, t in zip(my_thumbs, judged, strict=True))} of 8.")

# %% [markdown]
# The **judge** is our simulated human: thumbs up only for a reply that is polite *and* right. We let one rude reply pass
# because it is right. Real people disagree too.
#
# Eight clicks are few. So the judge now clicks on 50 replies to each of 24 questions, and your eight join them.

# %%
questions = world.trained_questions()
clicks = evaluate.collect_feedback(policy, questions, n=50, seed=0)
feedback = clicks + [
    {"prompt": question.prompt, "completion": reply, "label": thumb}
    for reply, thumb in zip(replies, my_thumbs, strict=True)
]
print(len(clicks), "clicks by the judge,", len(feedback), "in all. The first one:")
for key, value in feedback[0].items():
    print(f"  {key:10s} {value!r}")

# %% [markdown]
# That is all the data KTO gets: a prompt, a completion (the reply), a label (the thumb). No second reply to compare
# with, no score, no corrected answer.

# %% [markdown]
# ## 4. How good is it now?
#
# To each question the model gives one of 48 known replies, nearly always. So nothing needs to be estimated: we ask for the probability of
# each and add up those that the judge likes. The clicks are an independent check.

# %%
def show(report):
    for row in report:
        print(
            f"{row['questions']:16s} thumbs up {row['thumbs_up']:.3f}   polite {row['polite']:.3f}   "
            f"right {row['right']:.3f}   not among the 48 {1 - row['listed']:.3f}"
        )


before = evaluate.report(policy)
show(before)

# %%
exact = before[0]["thumbs_up"]
clicked = sum(row["label"] for row in clicks) / len(clicks)
standard_error = (exact * (1 - exact) / len(clicks)) ** 0.5
print(f"exact {exact:.3f}, counted from {len(clicks)} clicks {clicked:.3f} +- {standard_error:.3f}")
assert abs(exact - clicked) < 3 * standard_error

# %% [markdown]
# The two agree: about one reply in four is liked. *New wording* asks the 24 questions in other words. *Untouched facts*
# are 8 questions that get no clicks.

# %% [markdown]
# ## 5. Train
#
# Thumbs up are rare here. Two weights make both kinds of thumb count equally in total. Then 100 small steps, each
# on 16 random clicks.

# %%
n_up = sum(row["label"] for row in feedback)
up_weight, down_weight = balanced_weights(n_up, len(feedback) - n_up)
print(f"{n_up} up with weight {up_weight:.2f}, {len(feedback) - n_up} down with weight {down_weight:.2f}")

# %%
policy, history = train.train_kto(
    policy, reference, feedback, tokenizer, steps=100, batch_size=16, learning_rate=1e-3, beta=0.1,
    desirable_weight=up_weight, undesirable_weight=down_weight, seed=0,
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
# And the eight replies that you judged? For each we compare its probability under the reference with that under the
# policy. The log-ratio $r = \ln \pi(y|x) - \ln \pi_{\mathrm{ref}}(y|x)$ is the arrow of the picture, now measured; its
# unit is called a nat.

# %%
prompts = [question.prompt] * 8
old = evaluate.completion_logps(reference, prompts, replies)
new = evaluate.completion_logps(policy, prompts, replies)
for reply, a, b in zip(replies, old, new, strict=True):
    print(f"{reply:40s} {a.exp():.4f} -> {b.exp():.4f}   r = {b - a:+6.2f}")

# %%
fig, ax = plt.subplots(figsize=(8.6, 4.2))
for row, (a, b, thumb) in enumerate(zip(old.exp(), new.exp(), judged, strict=True)):
    colour = UP if thumb else DOWN
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 2, "linestyle": "-" if thumb else "--"}
    ax.annotate("", (b, row), (a, row), arrowprops=style)
    ax.plot(a, row, "o", color=NEUTRAL)
ax.set(xscale="log", ylim=(7.6, -0.6), xlabel="probability of the reply (dot: reference, arrow head: policy)")
ax.set_xlim(float(new.exp().min()) / 5, 2)
ax.set_yticks(range(8), [reply.strip() for reply in replies])
ax.set_title("Liked replies get likelier, disliked ones all but vanish")
save_figure(fig, "00_eight_replies", alt=(
    "The eight replies about the sky on a logarithmic probability axis. From the reference's probability, a dot, "
    "an arrow leads to the policy's. The three replies that the judge likes move right, to larger "
    "probabilities; the five that he dislikes move left by several powers of ten."
))  # fmt: skip
plt.show()

# %% [markdown]
# Now your two guesses.

# %%
after = evaluate.report(policy)
show(after)
assert after[0]["thumbs_up"] > 0.9

# %%
fig, ax = plt.subplots()
for i, (a, b) in enumerate(zip(before, after, strict=True)):
    ax.bar([i - 0.2, i + 0.2], [a["thumbs_up"], b["thumbs_up"]], width=0.36, color=["#BBBBBB", UP])
    for x, rate in ((i - 0.2, a["thumbs_up"]), (i + 0.2, b["thumbs_up"])):
        ax.text(x, rate + 0.02, f"{rate:.2f}", ha="center")
ax.text(-0.2, 0.06, "before", ha="center", fontsize=10)
ax.text(0.2, 0.06, "after", ha="center", fontsize=10, color="white")
ax.set_xticks(range(3), ["24 clicked\nquestions", "the same,\nnew wording", "8 untouched\nfacts"])
ax.set(ylim=(0, 1.1), ylabel="thumbs-up rate (exact)", title="Clicks teach manners everywhere, facts only where they fall")
save_figure(fig, "00_before_after", alt=(
    "Exact thumbs-up rates before and after 100 steps of KTO. From about a quarter they rise to more than nine "
    "tenths on the clicked questions and on the same questions in new wording, but only to about a half on "
    "eight facts that got no clicks."
))  # fmt: skip
plt.show()
