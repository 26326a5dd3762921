# %% [markdown]
# # 06 · The KTO loss
#
# Derive the KTO loss, compute it on eight rows with every number in sight, learn what it does not promise.

# %% [markdown]
# **You will be able to**
# - derive the implicit reward, and say which rewards nobody can tell apart;
# - write the KTO loss and its gradient from memory, and compute both by hand;
# - say what a KL is, what the reference point $z_0$ is, and what a batch can know of it;
# - name three promises that KTO does *not* make.
#
# **You need first** a reference point and a value function ([01](01_prospect_theory.ipynb)), mismatched
# completions ([04](04_collator.ipynb)), $\log \pi(y|x)$ as a sum over tokens ([05](05_get_probs.ipynb)).
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything.** The policy was copied from the reference a moment ago; it has learned nothing.
# Your batch has three thumbs up with weight 1.33 and five thumbs down with weight 1. What is the loss? The cell
# below the imports takes your guess. Section 8 computes it.

# %%
import json
import math
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from kto_course import check, predict, reveal
from kto_utils.collator import KTOPaddingCollator
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.evaluate import sampled_kl
from kto_utils.logprobs import sequence_logps
from kto_utils.model import load_reference_model, reference_of
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, label_line, save_figure, use_course_style
from kto_utils.prospect import value as human_value
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import train_kto, train_sft
from kto_utils.world import all_questions

use_course_style()
torch.set_default_dtype(torch.float64)  # so that your digits are the same as these


# Stops the lesson if two results differ, and says how closely they agree if they do.
def agree(what, a, b, tolerance=1e-12):
    difference = float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())
    assert difference < tolerance, f"{what}: they differ by {difference}"
    print(f"{what}: they agree to {tolerance:.0e}")


def numbers(values, form="+.3f"):
    return "  ".join(f"{x:{form}}" for x in values.tolist())


# %%
predict("step_zero", "The loss before the first step, 3 up with weight 1.33 and 5 down with weight 1?",
        ["0", "ln 2", "the mean weight", "half the mean weight"], guess=None, confidence=None)  # fmt: skip

# %% [markdown]
# ## 1. The goal: better replies, close to home
#
# Somebody asks *What colour is the sky?* To keep it small, only three replies exist. The reference model
# gives them with the probabilities below, and a taste gives each a **reward** $R$.

# %%
names = ["polite, right", "rude, right", "polite, wrong"]
pi_ref = torch.tensor([0.2, 0.5, 0.3])
R = torch.tensor([1.0, 0.0, -1.0])
beta = 0.8
for name, p, reward in zip(names, pi_ref, R, strict=True):
    print(f"{name:14} reference {p:.1f}   reward {reward:+.0f}")

# %% [markdown]
# A new policy $\pi$ should collect reward, and pay for every step away from the reference:
#
# $$J(\pi) \;=\; \underbrace{\textstyle\sum_y \pi(y)\,R(y)}_{\text{reward collected}} \;-\;
# \beta\,\underbrace{\textstyle\sum_y
# \pi(y)\log\frac{\pi(y)}{\pi_{\text{ref}}(y)}}_{\mathrm{KL}(\pi\,\|\,\pi_{\text{ref}})}$$
#
# The second sum is the **Kullback-Leibler divergence**, KL: draw replies from $\pi$ and average how many nats
# more likely each is under $\pi$ than under the reference. It is 0 where the two agree and positive otherwise
# (Gibbs' inequality). The order matters: here the replies are drawn from $\pi$.
#
# $\beta$ is the price of one nat. All this is the usual goal of RLHF.


# %%
def kl(p, q):
    return torch.xlogy(p, p / q).sum(-1)


def objective(pi, beta=beta):
    return (pi * R).sum(-1) - beta * kl(pi, pi_ref)


best_only = torch.tensor([1.0, 0.0, 0.0])
for name, pi in {"stay": pi_ref, "half way": (pi_ref + best_only) / 2, "best reply only": best_only}.items():
    print(f"{name:16} reward {(pi * R).sum():+.3f}   KL {kl(pi, pi_ref):.3f}   J {objective(pi):+.3f}")

# %% [markdown]
# Half way beats both ends: giving *only* the best reply costs more KL than it brings. Where exactly is the
# top?
#
# ## 2. The top, in three steps
#
# **Step 1: one average instead of two.** Both sums run over $\pi$, so put them together. Then write $R$ as
# $\beta\log e^{R/\beta}$: a difference of logarithms is the logarithm of a quotient.
#
# $$J(\pi) = \sum_y \pi(y)\Big[R(y) - \beta\log\frac{\pi(y)}{\pi_{\text{ref}}(y)}\Big] = -\beta\sum_y
# \pi(y)\log\frac{\pi(y)}{\pi_{\text{ref}}(y)\,e^{R(y)/\beta}}$$
#
# Do both sides agree, on a thousand random policies?

# %%
generator = torch.Generator().manual_seed(0)
some_policies = torch.rand(1000, 3, generator=generator)
some_policies = some_policies / some_policies.sum(-1, keepdim=True)

tilted = pi_ref * torch.exp(R / beta)
one_average = -beta * torch.xlogy(some_policies, some_policies / tilted).sum(-1)
agree("step 1", one_average, objective(some_policies))

# %% [markdown]
# **Step 2: make it a probability.** The numbers $\pi_{\text{ref}}\,e^{R/\beta}$ do not add up to 1. Their sum
# is called the **partition function** $Z$. Divide by it and you have a policy, call it $\pi^*$.

# %%
Z = tilted.sum()
pi_star = tilted / Z
print(f"Z = {Z:.4f}")
for name, before, after in zip(names, pi_ref, pi_star, strict=True):
    print(f"{name:14} {before:.3f} -> {after:.3f}")

# %% [markdown]
# **Step 3: read off the maximum.** With $\pi_{\text{ref}}\,e^{R/\beta} = Z\,\pi^*$, step 1 becomes
#
# $$J(\pi) \;=\; \beta\log Z \;-\; \beta\,\mathrm{KL}(\pi\,\|\,\pi^*)$$
#
# A KL is never negative, and it is 0 only where both are equal. So $\pi^*$ is the one best policy, and
# $\beta\log Z$ is the most that anybody can get. The last check knows nothing of this algebra: it starts at
# the reference and climbs.

# %%
agree("step 3", beta * Z.log() - beta * kl(some_policies, pi_star), objective(some_policies))
print(f"beta log Z      {beta * Z.log():.4f}")
print(f"J(pi*)          {objective(pi_star):.4f}")
print(f"best of 1000    {objective(some_policies).max():.4f}")

theta = pi_ref.log().requires_grad_()
for _ in range(400):
    (climb,) = torch.autograd.grad(objective(theta.softmax(-1)), theta)
    theta = (theta + climb).detach().requires_grad_()
found = theta.detach().softmax(-1)
agree("gradient ascent against the formula", found, pi_star, tolerance=1e-9)

# %% [markdown]
# Every policy over three replies is a point in a triangle: the closer to a corner, the more of that reply.
# Colour is $J$.


# %%
def to_xy(pi):
    return pi[..., 1] + pi[..., 0] / 2, pi[..., 0] * 3**0.5 / 2


def draw_triangle(ax):
    grid = torch.tensor([[i, j, 80 - i - j] for i in range(81) for j in range(81 - i)]) / 80
    ax.tricontourf(*to_xy(grid), objective(grid), levels=14, cmap="cividis")
    ax.set_axis_off()
    ax.set_aspect("equal")
    places = [("left", 12, -8), ("right", 20, -16), ("left", -20, -16)]
    for pi, name, (side, dx, dy) in zip(torch.eye(3), names, places, strict=True):
        xy = [float(c) for c in to_xy(pi)]
        ax.annotate(name, xy, xytext=(dx, dy), textcoords="offset points", ha=side, fontsize=9)


def mark(ax, pi, text, marker, shift=(9, -4)):
    x, y = (float(c) for c in to_xy(pi))
    ax.plot(x, y, marker, color="white", markeredgecolor="black", markersize=9)
    ax.annotate(text, (x, y), xytext=shift, textcoords="offset points", color="black", fontsize=10,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})  # fmt: skip


fig, ax = plt.subplots(figsize=(5.6, 4.4))
draw_triangle(ax)
mark(ax, pi_ref, "reference", "o")
mark(ax, pi_star, "best policy", "*")
ax.set_title("One peak, between home and the best reply")
save_figure(fig, "06_rl_optimum", alt="Triangle of all policies over three replies, coloured by the "
            "objective J. The best policy, a star, lies inside the triangle, between the reference and "
            "the corner of the polite and right reply.")  # fmt: skip
plt.show()

# %% [markdown]
# ## 3. Turned around: the reward inside a policy
#
# Take logarithms of $\pi^* = \pi_{\text{ref}}\,e^{R/\beta}/Z$ and solve for $R$:
#
# $$R(y) \;=\; \beta\log\frac{\pi^*(y)}{\pi_{\text{ref}}(y)} \;+\; \beta\log Z$$
#
# Whoever knows the best policy knows the reward, up to one number.

# %%
logratio_star = torch.log(pi_star / pi_ref)
agree("reward read off the policy", beta * logratio_star + beta * Z.log(), R)
print(f"beta * logratio  {numbers(beta * logratio_star)}")
print(f"R                {numbers(R)}")
print(f"texts of ten tokens from a vocabulary of 512: {float(512**10):.1e}")

# %% [markdown]
# For *any* policy and any reply, $r = \log\pi(y|x) - \log\pi_{\text{ref}}(y|x)$ is called the
# **log-ratio**, and $\beta r$ the **implicit reward**. It costs two forward passes (lesson 05). No reward
# model is needed.
#
# $Z$ is out of reach for a real model: it is a sum over every text there is, and the last line above counts
# only the short ones.

# %% [markdown]
# ## 4. Rewards that nobody can tell apart
#
# $Z$ is the same for all replies to one question. Does the missing number matter? Add a constant $h$ to all
# three rewards and see who notices.

# %%
for h in (0.0, 5.0, -5.0):
    shifted = pi_ref * torch.exp((R + h) / beta)
    best = shifted / shifted.sum()
    Z_h, implicit = shifted.sum(), beta * torch.log(best / pi_ref)
    print(f"h {h:+.0f}   Z {Z_h:8.3f}   beta log Z {beta * Z_h.log():+.3f}   beta*r  {numbers(implicit)}")

r_of_many = torch.log(some_policies / pi_ref)
agree("sum of pi_ref * exp(r) is 1, for all 1000 policies", (pi_ref * r_of_many.exp()).sum(-1), 1.0)

# %% [markdown]
# Same policy, same implicit reward. $R(x,y)$ and $R(x,y) + h(x)$ are **equivalent**: only *differences
# between replies to the same question* count. The implicit reward is the member of the family with $Z = 1$
# (last line).
#
# <details><summary>A loose sentence in version 1 of the paper</summary>
#
# Section 4.1 drops $Z$ by assuming that its expected value is zero. Look at the column $Z$: it is always
# positive. What has to vanish is the mean of $\beta\log Z$, which can have either sign.
# </details>

# %% [markdown]
# ## 5. Better than what?
#
# Lesson 01: people judge an outcome against what they expected. So what implicit reward should you expect
# from a policy? Average $\beta r$ over its own replies:
#
# $$\mathbb{E}_{y\sim\pi}\big[\beta r(y)\big] = \beta\sum_y\pi(y)\log\frac{\pi(y)}{\pi_{\text{ref}}(y)} =
# \beta\,\mathrm{KL}(\pi\,\|\,\pi_{\text{ref}})$$
#
# That is KTO's **reference point**. Version 1 of the paper (section 4.1) writes $z_{\text{ref}}$, with $\beta$
# inside, and averages over all questions. The current version is reported to take $z_0 = \mathrm{KL}$ in nats,
# with $\beta$ outside; so do we. In practice either becomes one number for the batch (section 6).

# %%
# To draw a reply: the first one at which the running sum of probabilities passes a uniform number.
uniform = torch.rand(100_000, generator=generator, dtype=torch.float64)
drawn = torch.searchsorted(pi_star.cumsum(-1), uniform, right=True).clamp(max=2)
print(f"mean of beta*r over 100,000 replies  {beta * logratio_star[drawn].mean():.3f}")
print(f"beta * KL                            {beta * kl(pi_star, pi_ref):.3f}")
print(f"the same for policy = reference      {beta * kl(pi_ref, pi_ref):.3f}")

# %% [markdown]
# Two things it is not. It is not the average *quality*: a useless model that equals its reference has
# $z_0 = 0$. And it is not the mean log-ratio of the rows with thumbs. Those were written by somebody else,
# picked as good and bad, or (as in lesson 07) drawn from the *reference*; none of that is $\pi$ after the first
# steps.

# %% [markdown]
# ## 6. What a batch can know of it
#
# During training nobody draws replies from $\pi$; that would be slow. KTO borrows replies that are lying
# around: each question gets **another row's** completion (lesson 04). Row $i$ borrows from row $j$; in our
# collator $j$ is the row above. Then three small steps: mean, clamp, no gradient.
#
# $$z_0 = \max\Big(0,\ \frac1B\sum_{i=1}^{B} \log\frac{\pi(y_j|x_i)}{\pi_{\text{ref}}(y_j|x_i)}\Big),\qquad
# j \ne i,\qquad \text{no gradient}$$

# %% [markdown]
# ### Exercise 6.1 · Mean, clamp, stop
# ★★☆ · 5 minutes · fill in a function
#
# Write the three small steps before you read on. Both arguments hold the log-probabilities of the *borrowed*
# completions, one per row: the first under the policy, the second under the reference. The value is that of the loop
# below; your result is a tensor through which no gradient flows.
#
# ```python
# total = 0.0
# for ours, theirs in zip(policy_kl_logps.tolist(), reference_kl_logps.tolist()):
#     total += ours - theirs
# z0 = max(0.0, total / len(policy_kl_logps))
# ```

# %% exercise="reference_point"
def my_reference_point(policy_kl_logps, reference_kl_logps):
    """z0 from the borrowed completions: twice (B,) in nats -> a scalar tensor in nats, at least 0, without gradient."""
    ### BEGIN SOLUTION
    mismatched_logratio = policy_kl_logps - reference_kl_logps
    return mismatched_logratio.mean().clamp(min=0).detach()
    ### END SOLUTION


# %% check="reference_point" points=2
check.reference_point(my_reference_point)


# %%
def reference_point(policy_kl_logps, reference_kl_logps):
    mismatched_logratio = policy_kl_logps - reference_kl_logps  # (B,), nats
    return mismatched_logratio.mean().clamp(min=0).detach()


borrowed = torch.tensor([-3.0, 5.0], requires_grad=True)
z0 = reference_point(borrowed, torch.zeros(2))
print(f"mean first, then clamp   {z0:.1f}")
print(f"clamp first, then mean   {borrowed.detach().clamp(min=0).mean():.1f}   (wrong)")
print(f"does a gradient flow?    {z0.requires_grad}")

# %% [markdown]
# From lesson 07 on this comes from `kto_utils.losses`: the same mathematics plus error checks.
#
# **Is it the KL?** Our toy has only one question. So "borrowed" just means here: drawn from some distribution
# $q$ over the same three replies. Add and subtract $\log q$:
#
# $$\mathbb{E}_{y\sim q}\Big[\log\frac{\pi(y)}{\pi_{\text{ref}}(y)}\Big] =
# \mathrm{KL}(q\,\|\,\pi_{\text{ref}}) - \mathrm{KL}(q\,\|\,\pi)$$
#
# In words: *how much closer are the borrowed replies to the policy than to the reference?*

# %%
q = some_policies.flip(0)  # another thousand random distributions
borrowed_mean = (q * r_of_many).sum(-1)
agree("identity", borrowed_mean, kl(q, pi_ref) - kl(q, some_policies))
print(f"the right side is negative for {(borrowed_mean < 0).double().mean():.0%} of them")

# %% [markdown]
# For $q = \pi$ it is the KL we wanted; for any other $q$ it agrees only by accident. Let the policy move from
# the reference towards the best reply ($\pi_t \propto \pi_{\text{ref}}\,e^{tR}$; $\propto$ means: equal up to
# the factor that makes the sum 1). Watch what three kinds of borrowed replies report.

# %%
t = torch.linspace(0, 3, 61)[:, None]
path = (pi_ref.log() + t * R).softmax(-1)
r_path = torch.log(path / pi_ref)
curves = {
    "q = policy: the true KL": ((path * r_path).sum(-1), NEUTRAL, "-"),
    "q = the reply that rose": (r_path[:, 0], UP, "--"),
    "q = reference (old replies)": ((pi_ref * r_path).sum(-1), DOWN, "-."),
}
for name, (curve, _, _) in curves.items():
    print(f"{name:28} at t = 1: {curve[20]:+.3f}   after the clamp {curve[20].clamp(min=0):.3f}")

fig, ax = plt.subplots()
for name, (curve, colour, style) in curves.items():
    ax.plot(t, curve, style, color=colour)
    label_line(ax, 3.0, float(curve[-1]), name, colour, fontsize=9)
ax.axhspan(-2.2, 0, color=NEUTRAL, alpha=0.12)
ax.text(0.08, -2.05, "the clamp turns all this into 0", fontsize=9)
ax.set(xlabel="how far the policy has moved, t", ylabel="mean log-ratio (nats)")
ax.set(xlim=(0, 4.5), ylim=(-2.2, 1.9))
ax.set_xticks([0, 1, 2, 3])
ax.set_title("Same policy, three answers: it depends whose replies you borrow")
save_figure(fig, "06_what_a_batch_sees", alt="Mean log-ratio against how far the policy has "
            "moved. Replies of the policy itself give the true KL, which rises. The reply that rose "
            "gives more than the KL. Replies of the old reference give negative numbers, which the "
            "clamp turns into zero.")  # fmt: skip
plt.show()

# %% [markdown]
# So $z_0$ can lie below the KL or above it. And the clamp itself adds a little. Let $m$ independent log-ratios
# scatter around 0 with standard deviation $d$: their mean is as often negative as positive, but only the
# positive half survives. For a normal scatter $\mathbb{E}[z_0] = d/\sqrt{2\pi m}$, not 0 (here $\pi$ is
# 3.14...). With $d = 5$:

# %%
for m in (2, 8, 32):
    scatter = 5.0 * torch.randn(100_000, m, generator=generator)
    simulated = scatter.mean(-1).clamp(min=0).mean()
    print(f"m = {m:2}   simulated {simulated:.2f}   formula {5.0 / math.sqrt(2 * math.pi * m):.2f} nats")

# %% [markdown]
# Why live with such an estimate? It is one level for the whole batch to compare with, and since it receives no
# gradient, it cannot turn any row's push around.
#
# Is it worth the trouble? The paper's current version reportedly trained a 7B model without $z_0$: 3.6 points
# less on BBH and 4.0 less on GSM8K, two reasoning tests, almost nothing on MMLU and HumanEval. It also allows
# $z_0 = 0$ after SFT on the same data. ("Reported" always means: we have read version 1 ourselves, and the
# current version second-hand.)

# %% [markdown]
# ## 7. Eight real rows
#
# Now the real model. Eight rows with thumbs, one batch, the frozen reference, and a policy that has had 20
# steps of KTO on them. (How to train is lesson 07, where the weight 5/3 comes from is section 9. Here we
# only need a policy that differs from the reference.)

# %%
tokenizer, rows = load_tokenizer(), load_eight_rows()
batch = KTOPaddingCollator(tokenizer)([tokenize_feedback(row, tokenizer) for row in rows])
label = batch["label"]

reference = reference_of(load_reference_model())
settings = {"steps": 20, "batch_size": 8, "learning_rate": 3e-4}
policy, _ = train_kto(load_reference_model(), reference, rows, tokenizer, desirable_weight=5 / 3, **settings)


def logratios(policy, prefix=""):
    with torch.no_grad():
        return sequence_logps(policy, batch, prefix) - sequence_logps(reference, batch, prefix)


# %%
predict("z0_after_20", "The policy has had 20 steps of KTO. What will z0 of this batch be?",
        ["0", "about the KL of the policy's own replies", "at least twice that KL"],
        guess=None, confidence=None)  # fmt: skip


# %%
def thumb(row):
    return "up   " if row["label"] else "down "


r, k = logratios(policy), logratios(policy, "kl_")
print("thumb  log ref        r        k   completion")
for row, at_home, r_i, k_i in zip(rows, sequence_logps(reference, batch).tolist(), r, k, strict=True):
    print(f"{thumb(row)} {at_home:8.2f} {r_i:+8.2f} {k_i:+8.2f}  {row['completion']}")

# %% [markdown]
# $r$ belongs to the row's own completion: positive for thumbs up, negative for thumbs down, as it should be.
# $k$ belongs to the borrowed one, the completion of the row above (the first row borrows from the last).
#
# Look at the homework row. The reference would hardly ever say that (`log ref` is its log-probability), so a
# touch moves it by dozens of nats. Now the reference point:

# %%
asked = [q for q in all_questions() if q.prompt in {row["prompt"] for row in rows}]
z0 = reference_point(k, torch.zeros(8))
print(f"mean of k   {k.mean():+.3f} nats")
print(f"z0          {z0:.3f}")
own_kl, error = sampled_kl(policy, reference, asked, n=64)
print(f"sampled KL  {own_kl:.2f} +- {error:.2f} nats, from its own replies to {len(asked)} of the questions")
distances = {"a": z0, "b": abs(z0 - own_kl), "c": max(0.0, 2 * own_kl - z0)}
reveal("z0_after_20", min(distances, key=distances.get))

# %% [markdown]
# The policy *has* moved, yet $z_0$ is 0: on average the borrowed replies fell, and the clamp cut that off.
# A `kl` of 0 in the log of a KTO run need not be a bug. (At step 0 it must be 0; anything else there *is* a
# bug.)
#
# The opposite case, a parrot: five small SFT steps towards all eight completions, good or bad alike.

# %%
parrot, _ = train_sft(
    load_reference_model(), rows, tokenizer, steps=5, batch_size=8, learning_rate=1e-4, schedule="constant"
)
parrot_r, parrot_k = logratios(parrot), logratios(parrot, "kl_")
parrot_z0 = reference_point(parrot_k, torch.zeros(8))
print(f"r  {numbers(parrot_r, '+.2f')}")
print(f"k  {numbers(parrot_k, '+.2f')}")
own_kl, error = sampled_kl(parrot, reference, asked, n=64)
print(f"z0 {parrot_z0:.3f}   sampled KL {own_kl:.3f} +- {error:.3f}")
print(f"mean of k without its largest entry {parrot_k.sort().values[:-1].mean():.2f}")
print(f"rows with r below z0: {int((parrot_r < parrot_z0).sum())}")

# %% [markdown]
# Every $r$ is positive: nothing was learned *about thumbs*. And $z_0$ is far above the KL, because one borrowed
# reply (the homework one) jumped.
#
# Six rows now stand *below* the reference point. For a thumbs up that counts as a loss, although $r > 0$: it
# rose, but less than the level. For a thumbs down it counts as a gain. To discount what rises everywhere is the
# job of $z_0$; that one odd reply sets the level for all is its weakness.

# %% [markdown]
# ## 8. Value, weight, loss
#
# People feel a kink at the reference point (left). The power function behind it is infinitely steep there,
# and hard to optimise (v1, section 4.1). KTO takes the logistic $\sigma$ instead (right). It keeps the S:
# concave in gains, convex in losses.

# %%
z = torch.linspace(-6, 6, 241)
fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6))
left.plot(z, human_value(z.numpy()), color=NEUTRAL)
left.set(xlabel="gain or loss", ylabel="felt value", title="People: a kink at 0")
right.plot(z, torch.sigmoid(z), "-", color=UP)
right.plot(z, torch.sigmoid(-z), "--", color=DOWN)
right.plot(0, 0.5, "o", color="black")
right.annotate("neutral: 0.5, not 0", (0, 0.5), xytext=(14, -4), textcoords="offset points", fontsize=9)
right.text(2.0, 1.03, "thumbs up", color=UP, fontsize=9)
right.text(-5.6, 1.03, "thumbs down", color=DOWN, fontsize=9)
right.set(xlabel="$\\beta\\,(r - z_0)$", ylabel="value $v$ (weights 1)", ylim=(-0.05, 1.15))
right.set_title("KTO: two smooth branches")
save_figure(fig, "06_two_branches", alt="Left: the human value function with a kink at zero, steeper "
            "for losses. Right: KTO's value for thumbs up rises as a logistic curve with the log-ratio, "
            "for thumbs down it falls; both pass one half at the reference point.")  # fmt: skip
plt.show()

# %% [markdown]
# The **label** picks the branch, not the sign of $r - z_0$. Careful with the paper's letters: **D** is
# *desirable*, thumbs **up**; **U** is *undesirable*, thumbs **down**.
#
# $$v = \begin{cases}\lambda_D\,\sigma\big(\beta(r - z_0)\big) & \text{thumbs up}\\
# \lambda_U\,\sigma\big(\beta(z_0 - r)\big) & \text{thumbs down}\end{cases} \qquad\text{loss} = \lambda - v$$
#
# Liked replies are worth more the further they rise above $z_0$, disliked ones the further they sink below.
# With $s = \pm 1$ for up and down and $w$ for the row's weight, both lines become one:
#
# $$\text{loss}_i = w_i\,\big(1 - \sigma(s_i\,\beta\,(r_i - z_0))\big)$$

# %% [markdown]
# ### Exercise 6.2 · One line for both branches
# ★★☆ · 8 minutes · fill in a function
#
# Write it for a whole batch: row $i$ has $r_i$ = `policy_logps[i] - reference_logps[i]`; where `label[i]` is True,
# $s_i = 1$ and $w_i$ = `desirable_weight`; where it is False, $s_i = -1$ and $w_i$ = `undesirable_weight`.
#
# One trap: in float32, `1 - sigmoid(50.0)` is exactly 0. Write $1 - \sigma(u)$ as $\sigma(-u)$, which is tiny but
# not 0.

# %% exercise="kto_loss"
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


# %% check="kto_loss" points=3
check.kto_loss(my_kto_loss)


# %%
def kto_loss(
    policy_logps, reference_logps, label, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
):
    logratio = policy_logps - reference_logps  # (B,), nats
    up = label.to(logratio.dtype)
    sign = 2.0 * up - 1.0
    weight = desirable_weight * up + undesirable_weight * (1.0 - up)
    return weight * torch.sigmoid(-sign * beta * (logratio - z0))  # 1 - sigmoid(u) = sigmoid(-u)


# %% [markdown]
# Back to the question at the top. At step 0 the policy is the reference: every log-ratio is 0, and so is $z_0$.

# %%
fresh = load_reference_model()
r_start, k_start = logratios(fresh), logratios(fresh, "kl_")
z0_start = reference_point(k_start, torch.zeros(8))
at_start = kto_loss(r_start, torch.zeros(8), label, z0_start, desirable_weight=1.33)
print(f"z0 {z0_start:.1f}, largest log-ratio {r_start.abs().max():.1f}")
print(f"losses           {numbers(at_start, '.3f')}")
print(f"batch loss       {at_start.mean():.6f}")
mean_weight = (3 * 1.33 + 5 * 1.0) / 8
print(f"mean weight / 2  {mean_weight / 2:.6f}")
choices = {"a": 0.0, "b": math.log(2), "c": mean_weight, "d": mean_weight / 2}
reveal("step_zero", min(choices, key=lambda letter: abs(choices[letter] - at_start.mean())))

# %% [markdown]
# $\sigma(0) = 0.5$: a reply exactly at the reference point has *half* its weight as value and
# half as loss, never 0. **Loss at step 0 = mean(w)/2** is the cheapest first check. If yours prints something
# else, look first whether policy and reference are the same and dropout is off.
#
# It is necessary, not sufficient: while every $r$ is 0, a flipped sign or unshifted logits pass as well. Sections
# 10 and 13 hold the checks for those.

# %% [markdown]
# ### Exercise 6.3 · Before the first step
# ★☆☆ · 3 minutes · predict a number
#
# Another batch: 4 thumbs up with weight 3, and 12 thumbs down with weight 1; $\beta$ is 0.1. The policy was copied
# from the reference a moment ago. Which loss does the log show first?

# %% exercise="first_loss"
answer = ...  # a number
### BEGIN SOLUTION
answer = (4 * 3 + 12 * 1) / 16 / 2
### END SOLUTION

# %% check="first_loss" points=1
check.first_loss(answer)

# %% [markdown]
# Now the trained policy, every intermediate number in its column.


# %%
def show_rows(r, z0, beta, desirable_weight, undesirable_weight):
    print("thumb        r    r-z0       u  sigma(u)      w       v    loss   completion")
    for row, r_i in zip(rows, r.tolist(), strict=True):
        s, w = (1, desirable_weight) if row["label"] else (-1, undesirable_weight)
        distance = r_i - float(z0)
        u = s * beta * distance
        sigma = 1 / (1 + math.exp(-u))
        v = w * sigma
        print(f"{thumb(row)} {r_i:+8.2f}{distance:+8.2f}{u:+8.3f}{sigma:10.4f}", end="")
        print(f"{w:7.2f}{v:8.4f}{w - v:8.4f}   {row['completion'][1:24]}")


show_rows(r, z0, beta=0.1, desirable_weight=5 / 3, undesirable_weight=1.0)
losses = kto_loss(r, torch.zeros(8), label, z0, 0.1, desirable_weight=5 / 3)
print(f"batch loss {losses.mean():.4f}, at step 0 it was {(3 * 5 / 3 + 5) / 8 / 2:.4f}")

# %% [markdown]
# Follow one row from left to right with a pocket calculator. Then the parrot, where $z_0$ is not 0: its
# thumbs-up rows were raised ($r > 0$) and still cost more than half their weight.

# %%
show_rows(parrot_r, parrot_z0, beta=0.1, desirable_weight=5 / 3, undesirable_weight=1.0)
parrot_losses = kto_loss(parrot_r, torch.zeros(8), label, parrot_z0, 0.1, desirable_weight=5 / 3)
print(f"batch loss {parrot_losses.mean():.4f}: no better than doing nothing ({(3 * 5 / 3 + 5) / 8 / 2:.4f})")

# %% [markdown]
# You will meet the loss in two spellings: $w(1 - \sigma)$ in version 1 of the paper (Eq. 7), and
# $\lambda_y - v$ in the current version (reported, Eq. 8). Version 1 also puts $\beta$ into both $r$ and $z_0$. The
# parrot's rows, where $z_0$ is not 0, in all three ways:

# %%
sign, w = torch.where(label, 1.0, -1.0), torch.where(label, 5 / 3, 1.0)
version_1 = w * (1 - torch.sigmoid(sign * (0.1 * parrot_r - 0.1 * parrot_z0)))
current = w - w * torch.sigmoid(sign * 0.1 * (parrot_r - parrot_z0))
agree("version 1 and current version", version_1, current)
agree("current version and our function", current, parrot_losses)

# %% [markdown]
# ## 9. The two weights
#
# Default in the authors' code and in TRL (Hugging Face's training library for alignment methods): both 1. Then
# five thumbs down outvote three thumbs up. The paper's rule is about the *total* weight of each side, with $n_D$
# thumbs up and $n_U$ thumbs down:
#
# $$1 \;\le\; \frac{\lambda_D\,n_D}{\lambda_U\,n_U} \;\le\; \tfrac43 \text{ (v1, Eq. 8)}\quad\text{or}\quad
# \tfrac32 \text{ (current version, reported, Eq. 9)}$$


# %%
def balanced_weights(n_desirable, n_undesirable, ratio=1.0):
    desirable_over_undesirable = ratio * n_undesirable / n_desirable
    if desirable_over_undesirable >= 1.0:
        return desirable_over_undesirable, 1.0
    return 1.0, 1.0 / desirable_over_undesirable


for n_up, n_down in ((3, 5), (1, 10), (10, 1)):
    for ratio in (1, 4 / 3, 3 / 2):
        up, down = balanced_weights(n_up, n_down, ratio)
        print(f"{n_up:2} up {n_down:2} down   ratio {ratio:.2f}   weight up {up:6.3f}   weight down {down:6.3f}")
print(f"our rows with weights 1.33 and 1: 1.33 * 3 / (1 * 5) = {1.33 * 3 / 5:.3f}")

# %% [markdown]
# So our eight rows need a thumbs-up weight of 1.667 to 2.222 (v1) or 2.500 (reported), with 1 for thumbs down.
# The often copied 1.33 is too small here: 4/3 is the upper end of v1's range, for as many up as down.
#
# Nor does it come from loss aversion. People weigh *losses* 2.25 times; this rule leans to the *gain* side, the
# opposite of people, as v1 (section 4.1) says itself.

# %% [markdown]
# ### Exercise 6.4 · A band that forgot the counts
# ★☆☆ · 4 minutes · repair a function
#
# Which weights of a thumbs up does the rule allow, when the weight of a thumbs down is given? For our three up and
# five down (weight 1) the function below says 0.600 to 1.333. Right is 1.667 to 2.222. Both ends are wrong.
#
# ```python
# def broken_band(n_up, n_down, undesirable_weight=1.0, largest_ratio=4 / 3):
#     lowest = n_up / n_down * undesirable_weight
#     return lowest, largest_ratio
# ```

# %% exercise="weight_band"
def my_weight_band(n_up, n_down, undesirable_weight=1.0, largest_ratio=4 / 3):
    """(lowest, highest) desirable weight with 1 <= desirable * n_up / (undesirable * n_down) <= largest_ratio."""
    ### BEGIN SOLUTION
    lowest = n_down / n_up * undesirable_weight
    return lowest, lowest * largest_ratio
    ### END SOLUTION


# %% check="weight_band" points=1
check.weight_band(my_weight_band)

# %% [markdown]
# Does the rule matter? The same 20 steps as in section 7, with both weights 1:

# %%
unweighted, _ = train_kto(load_reference_model(), reference, rows, tokenizer, **settings)
r_unweighted = logratios(unweighted)
for row, before, after in zip(rows, r, r_unweighted, strict=True):
    if row["label"]:
        print(f"thumbs up, r with 5/3 and 1: {before:+.2f}, with 1 and 1: {after:+.2f}  {row['completion']}")

# %% [markdown]
# In this run each of the three liked replies rises less, and one even falls below the reference: the disliked
# rows now have more weight in total, 5 against 3. (From lesson 07 on, `kto_loss` and `balanced_weights` come from
# `kto_utils.losses` too.)

# %% [markdown]
# ## 10. The gradient, in closed form
#
# How hard does each row pull? Two facts are enough: $\sigma' = \sigma(1-\sigma)$, and $1 - \sigma(u) = \sigma(-u)$.
# With $u_i = s_i\beta(r_i - z_0)$, a row costs $w_i\,\sigma(-u_i)$, and $L$ is the mean over $B$ rows.

# %% [markdown]
# ### Exercise 6.5 · The gradient by hand
# ★★★ · 10 minutes · a derivation step checked numerically
#
# Differentiate $L$ with respect to one $r_i$ on paper ($z_0$ is a constant), then write your formula as code, without
# autograd. It is compared with what the slow loop below gives for a tiny `h`:
#
# ```python
# for i in range(len(r)):
#     more, less = r.clone(), r.clone()
#     more[i] += h
#     less[i] -= h
#     gradient[i] = (loss(more).mean() - loss(less).mean()) / (2 * h)  # loss: (B,) losses, as in 6.2
# ```

# %% exercise="kto_gradient"
def my_kto_gradient(logratio, label, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    """dL/dr_i of the mean KTO loss: logratio (B,) in nats, label (B,) of bools, z0 a scalar tensor in nats -> (B,)."""
    ### BEGIN SOLUTION
    sign = torch.where(label, 1.0, -1.0)
    weight = torch.where(label, desirable_weight, undesirable_weight)
    u = sign * beta * (logratio - z0)
    return -sign * weight * beta * torch.sigmoid(u) * torch.sigmoid(-u) / len(logratio)
    ### END SOLUTION


# %% check="kto_gradient" points=3
check.kto_gradient(my_kto_gradient)

# %% [markdown]
# The result:
#
# $$\frac{\partial L}{\partial r_i} = -\frac{1}{B}\; s_i\, w_i\, \beta\; \sigma(u_i)\,\sigma(-u_i)$$
#
# Since $\partial r_i/\partial\log\pi(y_i|x_i) = 1$, it says how hard each row pulls at its own
# log-probability.

# %%
u = sign * 0.1 * (r - z0)
free_r = r.clone().requires_grad_()
kto_loss(free_r, torch.zeros(8), label, z0, 0.1, desirable_weight=5 / 3).mean().backward()
formula = -sign * w * 0.1 * torch.sigmoid(u) * torch.sigmoid(-u) / 8
agree("autograd against the formula", free_r.grad, formula)
share = formula.abs() / (w * 0.1 / 4 / 8)
for row, gradient, part in zip(rows, formula, share, strict=True):
    print(f"{thumb(row)} {gradient:+.6f}, {part:4.0%} of its maximum  {row['completion']}")

# %% [markdown]
# Read it off: minus for every thumbs up (more of this lowers the loss), plus for every thumbs down,
# whatever the other rows do. The pull is largest at $r = z_0$, where $\sigma(u)\sigma(-u) = \frac14$, so
# never more than $w\beta/4$ per row.
#
# And the homework row, which moved furthest, hardly pulls any more. $r$ is a *sum* over tokens: a reply far from
# home, odd or long, reaches the flat part first.

# %% [markdown]
# **A good place to stop.** You now have the whole loss and its gradient, all that lesson 07 needs. Sections 11 to
# 13 are about what KTO does not promise, section 14 about mistakes; they can be read afterwards.

# %% [markdown]
# ## 11. KTO gives up on both sides
#
# Move away from the reference point, to either side, and the pull fades. (The good side is above $z_0$ for a
# thumbs up and below it for a thumbs down.) DPO (lesson 08) uses $-\log\sigma$ of a difference of two
# log-ratios; its pull is $\beta\,\sigma(-\beta\cdot\text{difference})$. Both as a share of their maximum, at
# $\beta = 0.1$ (only $\beta$ times nats counts: twice the $\beta$, half the distance):

# %%
print("nats away   KTO, either side   DPO, wrong side")
for nats in (0, 10, 20, 50, 100):
    u_far = torch.tensor(0.1 * nats)
    kto_pull = 4 * torch.sigmoid(u_far) * torch.sigmoid(-u_far)
    print(f"{nats:9} {kto_pull:18.2%} {torch.sigmoid(u_far):17.2%}")

# %%
x = torch.linspace(-100, 100, 401)
fig, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.9), sharex=True)
left.plot(x, torch.sigmoid(-0.1 * x), "-", color=ACCENT)
left.plot(x, -torch.nn.functional.logsigmoid(0.1 * x), "--", color=NEUTRAL)
left.set(ylabel="loss of one row (weight 1)", ylim=(0, 4))
left.set_title("The KTO loss is flat at both ends")
right.plot(x, 4 * torch.sigmoid(0.1 * x) * torch.sigmoid(-0.1 * x), "-", color=ACCENT)
right.plot(x, torch.sigmoid(-0.1 * x), "--", color=NEUTRAL)
right.set(ylabel="pull, share of its maximum")
right.set_title("Hopeless rows get almost no push")
for ax, kto_place, dpo_place in ((left, (-95, 1.12), (-20, 2.6)), (right, (14, 0.75), (-98, 0.9))):
    ax.text(*kto_place, "KTO", color=ACCENT)
    ax.text(*dpo_place, "DPO", color=NEUTRAL)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlabel("wrong side  $\\leftarrow$  nats  $\\rightarrow$  good side")
save_figure(fig, "06_saturation", alt="Two panels against the distance from the reference point in "
            "nats, beta 0.1. The KTO loss is flat at both ends and its gradient vanishes on both sides, "
            "while the DPO loss keeps rising on the wrong side and its gradient stays at its maximum "
            "there.")  # fmt: skip
plt.show()

# %% [markdown]
# On the good side both stop: learned is learned. On the wrong side only DPO keeps pushing. KTO treats a
# row that is hopelessly wrong like a misprint and leaves it. That is protection against wrong thumbs, and
# the reason why KTO can underfit hard but true examples (v1, Prop. 4.1).

# %% [markdown]
# ### Exercise 6.6 · Who pulls like this?
# ★★☆ · 4 minutes · read a curve
#
# The dashed curve is the pull $|\partial L/\partial r|$ of a lone thumbs-down row, with $\beta = 0.1$, weight 1 and
# $z_0 = 0$. For the solid one, exactly one thing was changed. Which?
#
# - a) $z_0$ is 20 nats instead of 0
# - b) $\beta$ is 0.2 instead of 0.1
# - c) the weight is 2 instead of 1
# - d) the row carries a thumbs up
# - e) $\beta$ is multiplied in twice, by mistake

# %%
from kto_course.checks.lesson_06 import mystery_pull

fig, ax = plt.subplots(figsize=(6.4, 3.4))
ax.plot(x, 0.1 * torch.sigmoid(0.1 * x) * torch.sigmoid(-0.1 * x), "--", color=NEUTRAL)
ax.plot(x, mystery_pull(x), "-", color=ACCENT)
ax.set(xlabel="log-ratio $r$ (nats)", ylabel="pull", title="Same row, one thing changed", ylim=(0, None))
save_figure(fig, "06_mystery_pull", alt="Pull of one row against its log-ratio. Dashed: a bell around 0, 0.025 high. "
            "Solid: a bell around 0 too, twice as high and half as wide.")  # fmt: skip
plt.show()

# %% exercise="mystery_pull_curve"
answer = ...  # a letter in quotes
### BEGIN SOLUTION
answer = "b"
### END SOLUTION

# %% check="mystery_pull_curve" points=1
check.mystery_pull_curve(answer)

# %% [markdown]
# ## 12. Not the optimum of section 2
#
# DPO asks: which policy makes the observed choices of people most probable? So its loss is *minus a
# log-likelihood*, and such a loss has a best place. KTO borrows the implicit reward and stops there; its loss is
# no likelihood. Does the same optimum come out anyway?
#
# Take a reply that gets thumbs up from 70 % of the people (log odds: $\log\frac{0.7}{0.3}$). Where is its average
# loss smallest?

# %%
u_grid = torch.linspace(-6, 6, 1201)
p_up = 0.7
kto_average = p_up * torch.sigmoid(-u_grid) + (1 - p_up) * torch.sigmoid(u_grid)
log_average = -p_up * torch.log(torch.sigmoid(u_grid)) - (1 - p_up) * torch.log(torch.sigmoid(-u_grid))
best_place = u_grid[log_average.argmin()]
agree("minus log-likelihood is smallest at the log odds of 70 %", best_place, math.log(0.7 / 0.3), tolerance=0.005)
print(f"minus log-likelihood: smallest at {best_place:.2f}")
print(f"KTO:                  smallest at {u_grid[kto_average.argmin()]:.2f}, the end of the grid")

fig, ax = plt.subplots(figsize=(7.2, 3.6))
ax.plot(u_grid, kto_average, "-", color=ACCENT)
ax.plot(u_grid, log_average, "--", color=NEUTRAL)
ax.plot(best_place, log_average.min(), "o", color="black")
ax.annotate("log odds of 70 %", (best_place, log_average.min()), xytext=(0.85, 1.1), ha="center", fontsize=9,
            arrowprops={"arrowstyle": "-", "color": "black"})  # fmt: skip
ax.text(-5.8, 0.78, "KTO: further is always better", color=ACCENT, fontsize=10)
ax.text(5.2, 1.9, "minus log-likelihood:\nhas a best place", color=NEUTRAL, fontsize=10, ha="right")
ax.set(xlabel="$\\beta\\,(r - z_0)$", ylabel="average loss", ylim=(0, 2.2))
ax.set_title("KTO has no best place for a 70 % reply, only a direction")
save_figure(fig, "06_no_inner_minimum", alt="Average loss of a reply that 70 percent like, against beta times "
            "(r - z0). Minus the log-likelihood has a minimum at the log odds 0.85. The KTO average falls all "
            "the way to the right and has no minimum.")  # fmt: skip
plt.show()

# %% [markdown]
# KTO asks only *which side has the majority*, and pushes that way for ever. At 50 : 50 with equal weights
# the pushes cancel exactly and the loss stays $\frac12$; unequal weights decide the vote themselves:

# %%
thumbs = torch.tensor([True, False])  # the same reply, once up and once down
for down_weight in (1.0, 2.0):
    twice = torch.full((2,), 3.0, requires_grad=True)
    loss = kto_loss(twice, torch.zeros(2), thumbs, 0.0, 0.1, undesirable_weight=down_weight).mean()
    loss.backward()
    net = round(float(twice.grad.sum()), 9) + 0.0  # + 0.0 turns -0 into 0
    print(f"weight of the thumbs down {down_weight:.0f}: loss {float(loss.detach()):.4f}, net gradient {net:+.4f}")

# %% [markdown]
# Weight 2: the net gradient is positive, so descent lowers $r$. An even vote pushes the reply down.
#
# Now let KTO loose on the three replies. Thumbs up for the first, down for the others, the *exact* KL as
# $z_0$ (the best that any batch could hope for), and plenty of steps.


# %%
def kto_on_three(logps, beta):
    exact_kl = kl(logps.detach().exp(), pi_ref)
    return kto_loss(logps, pi_ref.log(), torch.tensor([True, False, False]), exact_kl, beta).mean()


def train_three(beta, loss_of=kto_on_three, steps=5000):
    theta, history = pi_ref.log(), []
    for _ in range(steps):
        theta = theta.detach().requires_grad_()
        logps = theta.log_softmax(-1)
        history.append(logps.detach().exp())
        loss_of(logps, beta).backward()
        theta = theta - theta.grad
    return torch.stack(history)


run = train_three(beta)
print(" step   policy                   r                     J")
for step in (0, 10, 20, 40, 100, 1000, 4999):
    pi = run[step]
    r_now = torch.log(pi / pi_ref)
    print(f"{step:5}   {numbers(pi, '.4f')}   {numbers(r_now, '+.2f')}   {objective(pi):+.3f}")
print(f"best    {numbers(pi_star, '.4f')}   {numbers(logratio_star, '+.2f')}   {objective(pi_star):+.3f}")

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.4, 4.2), width_ratios=[1, 1.15])
draw_triangle(left)
left.plot(*to_xy(run), "-", color="black")
mark(left, pi_ref, "start", "o")
mark(left, pi_star, "best policy", "*")
left.set_title("KTO's path runs into the corner")
steps = torch.arange(len(run)) + 1
right.plot(steps, objective(run), "-", color=ACCENT)
right.axhline(float(objective(pi_star)), color="black", linestyle=":")
right.axhline(float(objective(pi_ref)), color=NEUTRAL, linestyle="--")
right.text(1.2, float(objective(pi_star)) + 0.012, "best possible: $\\beta$ log Z", fontsize=9)
right.text(300, float(objective(pi_ref)) + 0.012, "reference", color=NEUTRAL, fontsize=9)
right.set(xscale="log", xlabel="steps of gradient descent", ylabel="objective J", ylim=(-0.35, 0.26))
right.set_title("At $\\beta$ = 0.8, J ends below its start")
save_figure(fig, "06_past_the_optimum", alt="Left: KTO's path over the triangle of policies runs from the "
            "reference, past the best policy, into the corner of the thumbs-up reply. Right: the "
            "objective J rises in the first steps, then falls below its value at the reference.")  # fmt: skip
plt.show()

# %% [markdown]
# For a while it looks good. Then it passes the peak, $r$ of the disliked replies sinks without end, and at this
# $\beta$ of 0.8 $J$ finishes lower than where it started.
#
# A larger $\beta$ asks for *less* movement. Does KTO end elsewhere? And where does DPO end, on the two pairs that
# say the same (the first reply better than each of the others)?


# %%
def dpo_on_three(logps, beta):
    r = logps - pi_ref.log()
    return -torch.nn.functional.logsigmoid(beta * (r[0] - r[1:])).mean()


print("        probability of the liked reply      objective J")
print("beta    optimum     KTO     DPO             optimum     KTO     DPO")
for beta_now in (0.1, 0.4, 0.8, 1.6):
    ends = [(pi_ref.log() + R / beta_now).softmax(-1)]
    ends += [train_three(beta_now, loss_of, steps=2000)[-1] for loss_of in (kto_on_three, dpo_on_three)]
    liked = "  ".join(f"{pi[0]:6.3f}" for pi in ends)
    print(f"{beta_now}      {liked}             {'  '.join(f'{objective(pi, beta_now):+.3f}' for pi in ends)}")

# %% [markdown]
# No: KTO runs towards the same corner at each $\beta$. At 0.1 the optimum lies almost there anyway; the larger
# $\beta$, the worse the corner.
#
# Why: the log-ratio of a liked reply has a ceiling ($\pi \le 1$, so $r \le -\log\pi_{\text{ref}}$), that of a
# disliked one has no floor, and no KL penalty stands in the loss. Only the fading pull slows it down. So the
# number of steps decides: stop early, and watch the KL (lesson 07).

# %% [markdown]
# DPO heads for that corner too: the log odds of a unanimous vote are infinite. The difference shows where people
# *disagree*. There a likelihood has a best place (the figure with 70 %), and KTO has only a direction.
#
# Nor is it a matter of choosing another $R$: for every finite reward $\pi^*$ keeps every reply possible. The
# corner is the optimum of none of them.

# %% [markdown]
# ## 13. The authors' own numbers
#
# Everything so far was checked against our own algebra. Here is the real test: a file computed by the authors'
# code (ContextualAI/HALOs), 24 batches with $z_0$, the loss of each row, and the gradient. (Their $z_0$ is a
# float32 number, hence the tolerance.)

# %%
stored = json.loads(Path("../tests/data/halos_kto_cases.json").read_text(encoding="utf-8"))
print(textwrap.fill(stored["about"], 100))


def ours(case):
    logps = {name: torch.tensor(column) for name, column in case.items() if name.endswith("logps")}
    free = logps["policy_logps"].requires_grad_()
    z0 = reference_point(logps["kl_policy_logps"], logps["kl_reference_logps"])
    settings = [case[name] for name in ("beta", "desirable_weight", "undesirable_weight")]
    losses = kto_loss(free, logps["reference_logps"], torch.tensor(case["label"]), z0, *settings)
    losses.mean().backward()
    return {"z0": z0, "losses": losses.detach(), "grad_policy_logps": free.grad}


for name in ("z0", "losses", "grad_policy_logps"):
    for case in stored["cases"]:
        theirs = torch.tensor(case["expected"][name])
        torch.testing.assert_close(ours(case)[name], theirs, rtol=1e-6, atol=0.0)
    print(f"{name:18} all {len(stored['cases'])} cases agree to 1e-06 relative")

# %% [markdown]
# ## 14. What goes wrong
#
# **A batch of one.** There is no other row to borrow from, so the row borrows from itself: $k = r$. Then, as long
# as $r \ge 0$, $z_0 = r$ and $r - z_0 = 0$, however much was learned. A thumbs up:

# %%
for r_alone in (-50.0, -5.0, 0.5, 5.0, 50.0):
    alone = torch.tensor([r_alone], requires_grad=True)
    loss = kto_loss(alone, torch.zeros(1), torch.tensor([True]), reference_point(alone, torch.zeros(1)))
    loss.sum().backward()
    print(f"r = {r_alone:5.1f}: loss {float(loss.detach()):.3f}, gradient {float(alone.grad):+.4f}")

# %% [markdown]
# Above the reference the loss is frozen at $w/2$ and the gradient at its maximum $w\beta/4$: it looks as if
# nothing happens, and a liked reply is raised for ever. Below it the clamp makes $z_0 = 0$, as if there were no
# reference point. This is why the collator refuses a batch of one.
#
# **Gradient accumulation does not help $z_0$.** Two half batches, each with its own $z_0$, are not one batch:

# %%
halves = [slice(0, 4), slice(4, 8)]
own = [reference_point(parrot_k[half], torch.zeros(4)) for half in halves]
print(f"z0 of the batch {parrot_z0:.3f}, of its halves {own[0]:.3f} and {own[1]:.3f}")
zeros = torch.zeros(4)
pieces = {"each its own": own, "that of the batch": [parrot_z0, parrot_z0]}
print(f"one batch                      loss {parrot_losses.mean():.5f}")
for name, z0s in pieces.items():
    total = 0.0
    for half, z in zip(halves, z0s, strict=True):
        total += kto_loss(parrot_r[half], zeros, label[half], z, 0.1, 5 / 3).mean()
    print(f"halves, z0 {name:18}  loss {total / 2:.5f}")

# %% [markdown]
# **A sign slip on the thumbs-down side.** One study note prints the value of a thumbs-down reply as
# $-\lambda_U\,\sigma(z_0 - r)$. Value is to be *raised*. So which way does it push?

# %%
for name, sign_of_value in {"printed": -1, "correct": +1}.items():
    bad_reply = torch.tensor(0.3, requires_grad=True)
    (sign_of_value * torch.sigmoid(0.0 - bad_reply)).backward()
    print(f"{name}: slope of the value at r = 0.3 is {bad_reply.grad:+.3f}")

# %% [markdown]
# The printed one rewards *more* of what people disliked.
#
# **`1 - sigmoid(u)` in float32.** The same on paper, but in the machine the loss is exactly 0 from 17 on.
# Write `sigmoid(-u)`.

# %%
for u_big in (10.0, 17.0, 50.0):
    u32 = torch.tensor(u_big, dtype=torch.float32)
    minus, direct = 1 - torch.sigmoid(u32), torch.sigmoid(-u32)
    print(f"u = {u_big:4.0f}   1 - sigmoid(u) = {minus:.1e}   sigmoid(-u) = {direct:.1e}")

# %% [markdown]
# ## Recap
#
# - Reward minus $\beta\,$KL has one best policy, $\pi_{\text{ref}}\,e^{R/\beta}/Z$; turned around, a policy
#   contains a reward $\beta r$, up to $\beta\log Z(x)$.
# - $z_0$ means the expected log-ratio, the KL; a batch gives $\mathrm{KL}(q\|\pi_{\text{ref}}) -
#   \mathrm{KL}(q\|\pi)$, clamped at 0, without gradient.
# - Loss of a row: $w\,(1 - \sigma(s\beta(r - z_0)))$; at step 0 the batch loss is mean(w)/2.
# - Gradient $-s\,w\,\beta\,\sigma(u)\sigma(-u)/B$: the sign comes from the label alone, the size fades on
#   both sides.
# - Not promised: the optimum of section 2, a true KL, a push for hopeless rows.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions loss_at_step_0 gradient_maximum one_minus_sigmoid}}

# %% [markdown]
# ## Sources
#
# - Ethayarajh et al., *KTO: Model Alignment as Prospect Theoretic Optimization*, arXiv 2402.01306. v1: loss
#   Eq. 7, weights Eq. 8, gradient Eq. 9, reference point and its assumption section 4.1, saturation Prop.
#   4.1. Current version (read second-hand): loss Eq. 8, weights Eq. 9, training without $z_0$.
# - Sections 1 to 4, the optimum and the implicit reward: Rafailov et al., *Direct Preference Optimization*,
#   arXiv 2305.18290.
# - Section 13: ContextualAI/HALOs, branch main, commit 4831988.
# - The identity of section 6, the clamp's bias and section 12 are derived here and checked by the cells
#   above.
#
# Next: [07](07_train.ipynb) trains the model with this loss.
