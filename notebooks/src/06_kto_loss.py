# %% [markdown]
# # 06 · The KTO loss
#
# Build the KTO loss from a thumb and two log-probabilities, and hold it against the authors' own numbers.

# %% [markdown]
# **You will be able to**
# - say what the implicit reward and the reference point $z_0$ are, and what a batch can know of $z_0$;
# - write the KTO loss and its gradient from memory, and compute a row by hand;
# - set the two weights, and say where KTO gives up.
#
# **You need first** reference point and value function ([01](01_prospect_theory.ipynb)), borrowed replies
# ([04](04_collator.ipynb)), $\log \pi(y|x)$ ([05](05_get_probs.ipynb)).
#
# **Time** {{times}}.

# %% [markdown] slide=["The policy was", "Your batch has", "What is the loss"]
# **Before you run anything.** The policy was copied from the reference a moment ago. Your batch has three thumbs up
# with weight 1.33 and five thumbs down with weight 1. What is the loss? Guess below the imports; section 7 computes it.

# %%
import torch

from kto_course import check, predict, reveal
from kto_course.pictures import lesson_06 as pictures
from kto_lab.authors import load_cases
from kto_utils.collator import KTOPaddingCollator
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.logprobs import sequence_logps
from kto_utils.model import load_reference_model, reference_of
from kto_utils.plotting import use_course_style
from kto_utils.tokenizer import load_tokenizer

use_course_style()
torch.set_default_dtype(torch.float64)  # so that your digits are the same as these

# %% slide=["text 1:5"]
predict("step_zero", "The loss before the first step, 3 up with weight 1.33 and 5 down with weight 1?",
        ["0", "ln 2", "the mean weight", "half the mean weight"], guess=None, confidence=None)  # fmt: skip

# %% [markdown]
# ## 1. A policy carries a reward inside
#
# A small world: *What colour is the sky?* has three replies. The reference gives them with probabilities
# $\pi_{\text{ref}}$, a taste gives each a **reward** $R$. A new policy $\pi$ should collect reward, and pay $\beta$ for
# every nat that it moves from the reference. That is the goal of RLHF (reinforcement learning from human feedback). One
# policy is best at it:
#
# $$\pi^*(y) = \frac{\pi_{\text{ref}}(y)\,e^{R(y)/\beta}}{Z},\qquad Z = \sum_y \pi_{\text{ref}}(y)\,e^{R(y)/\beta}$$
#
# In words: tilt the reference towards the reward; $Z$ makes the sum 1. (06b takes the three steps.)

# %%
names = ["polite, right", "rude, right", "polite, wrong"]
pi_ref, R, price = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([1.0, 0.0, -1.0]), 0.8  # price: beta here
tilted = pi_ref * torch.exp(R / price)
pi_star = tilted / tilted.sum()
r_star = torch.log(pi_star / pi_ref)
print("reply          reference    best        r    beta*r       R")
for name, *row in zip(names, pi_ref, pi_star, r_star, price * r_star, R, strict=True):
    print(f"{name:14} {row[0]:9.3f} {row[1]:7.3f} {row[2]:+8.3f} {row[3]:+9.3f} {row[4]:+7.1f}")

# %% [markdown]
# Read it backwards:
#
# $$R(y) = \beta\,r(y) + \beta\log Z,\qquad r(y) = \log\pi^*(y) - \log\pi_{\text{ref}}(y)$$
#
# The last two columns differ by the same number in each row, 0.2. And *any* policy is the best one for some reward: the
# **log-ratio** $r$, times $\beta$, its **implicit reward**. It costs two forward passes and no reward model.
#
# ## 2. The reward to expect is a KL
#
# People judge an outcome against what they expected (lesson 01). What reward should you expect from a policy?
# Average it over the policy's own replies:
#
# $$\mathbb{E}_{y\sim\pi}\big[\beta\, r(y)\big] = \beta\sum_y\pi(y)\log\frac{\pi(y)}{\pi_{\text{ref}}(y)} =
# \beta\,\mathrm{KL}(\pi\,\|\,\pi_{\text{ref}})$$
#
# The sum is the **Kullback-Leibler divergence**, KL: by how many nats the policy finds its own replies more likely
# than the reference does. It is 0 where both agree, else positive.

# %%
for name, pi in {"best policy": pi_star, "reference": pi_ref}.items():
    kl = (pi * torch.log(pi / pi_ref)).sum()
    print(f"{name:12} KL {kl:.4f} nats, expected reward beta * KL = {price * kl:.4f}")

# %% [markdown] slide=["So KTO borrows", "Then three small", "$$z_0"]
# This KL, without $\beta$, is KTO's **reference point** $z_0$: a reply whose $r$ lies above it is a gain. It is not the
# average *quality*: a useless model that equals its reference has $z_0 = 0$. Nor is it the mean $r$ of your rows, which
# were picked as good or bad.
#
# ## 3. What a batch can know of it
#
# Drawing replies from $\pi$ at each step would be slow. The row's own reply is no substitute: it was picked as good or
# bad, and training pushes it. So KTO borrows: each question gets **another row's** reply (lesson 04). That is cheap,
# and biased. Then three small steps: mean; clamp, as a KL is never negative; no gradient, so that a row is pushed by
# its own thumb alone.
#
# $$z_0 = \max\Big(0,\ \frac1B\sum_{i=1}^{B} k_i\Big),\qquad k_i =
# \log\pi(y_j|x_i) - \log\pi_{\text{ref}}(y_j|x_i),\quad j \ne i$$

# %% [markdown]
# ### Exercise 6.1 · Mean, clamp, stop
# ★★☆ · 4 minutes · fill in a function
#
# Write the formula above. Both arguments hold log-probabilities of the *borrowed* replies, one per row: under the
# policy, then under the reference. Your result is a tensor through which no gradient flows.

# %% exercise="reference_point"
def my_reference_point(policy_kl_logps, reference_kl_logps):
    """z0 from the borrowed replies: twice (B,) in nats -> a scalar tensor in nats, at least 0."""
    ### BEGIN SOLUTION
    k = policy_kl_logps - reference_kl_logps
    return k.mean().clamp(min=0).detach()
    ### END SOLUTION


# %% check="reference_point" points=2
check.reference_point(my_reference_point)

# %% [markdown]
# ## 4. Eight rows: $z_0$ can be 0 although the policy moved
#
# Now the real model, on eight rows. We need a policy that differs from the reference. Training is lesson 07, so we make
# it by hand: *one* step uphill on the log-probabilities of liked replies, downhill on those of disliked ones. (Each is
# divided by its size, or one very unlikely reply would drown the others.)

# %%
reference_point = check.yours_or_ours("reference_point")

tokenizer, rows = load_tokenizer(), load_eight_rows()
batch = KTOPaddingCollator(tokenizer)([tokenize_feedback(row, tokenizer) for row in rows])
label = batch["label"]
reference = reference_of(load_reference_model())
home, home_k = sequence_logps(reference, batch), sequence_logps(reference, batch, "kl_")


# %%
def nudged(direction, size=0.02):
    policy = load_reference_model()
    (direction * sequence_logps(policy, batch) / home.abs()).sum().backward()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += size * parameter.grad
        return sequence_logps(policy, batch) - home, sequence_logps(policy, batch, "kl_") - home_k


r, k = nudged(torch.where(label, 1.0, -1.0))
z0 = reference_point(k, torch.zeros(8))
shown = [f"{'up  ' if row['label'] else 'down'} {row['completion']:45}" for row in rows]
print(f"{'thumb and completion':50}  at home        r        k")
for text, at_home, r_i, k_i in zip(shown, home, r, k, strict=True):
    print(f"{text} {at_home:8.2f} {r_i:+8.2f} {k_i:+8.2f}")
print(f"mean of k {k.mean():+.3f}, so z0 = {z0:.3f}")

# %% [markdown]
# $r$ belongs to the row's own reply: up for thumbs up, down for thumbs down. $k$ belongs to the borrowed one, from the
# row above (the first borrows from the last).
#
# The policy *has* moved, so its KL is above 0. Yet $z_0$ is 0: the borrowed replies fell on average, and the clamp cut
# that off. A `kl` of 0 in a log need not be a bug.
#
# ## 5. A parrot: everything rises, and $z_0$ with it
#
# The same step, uphill on all eight replies, liked or not:

# %%
parrot_r, parrot_k = nudged(torch.ones(8))
parrot_z0 = reference_point(parrot_k, torch.zeros(8))
print("r  ", *(f"{x:+.2f} " for x in parrot_r))
print(f"z0  {parrot_z0:.3f}, rows with r above it: {int((parrot_r > parrot_z0).sum())}")

# %% [markdown] slide=["$$v", "The label picks"]
# Nearly every $r$ rose, yet nothing was learned *about thumbs*. And $z_0$ rose too; only three rows stand above it.
# That is its job: discount what rises everywhere.
#
# ## 6. The label picks the branch
#
# People feel a kink at the reference point (left). The power function behind it is numerically unstable, so KTO takes
# the logistic $\sigma$ (right). It keeps the S: concave in gains, convex in losses.
#
# $$v = \begin{cases}\lambda_D\,\sigma\big(\beta(r - z_0)\big) & \text{thumbs up, desirable}\\
# \lambda_U\,\sigma\big(\beta(z_0 - r)\big) & \text{thumbs down, undesirable}\end{cases}
# \qquad\text{loss} = \lambda - v$$
#
# The label picks the branch, not the sign of $r - z_0$. Liked replies are worth more the further they rise above $z_0$,
# disliked ones the further they sink below. $\lambda_D$ and $\lambda_U$ are weights (section 8); $\beta$, from here on
# 0.1, turns nats into the argument of $\sigma$.

# %% slide=["figure"]
distance = torch.linspace(-6, 6, 241)
pictures.two_branches(distance, torch.sigmoid(distance), torch.sigmoid(-distance))

# %% [markdown]
# ### Exercise 6.2 · One line for both branches
# ★★☆ · 8 minutes · fill in a function
#
# With a sign $s$ and a weight $w$ both branches become one:
#
# $$\text{loss}_i = w_i\,\big(1 - \sigma(s_i\,\beta\,(r_i - z_0))\big)$$
#
# Write it for a batch: $r$ = `policy_logps - reference_logps`; where `label` is True, $s = 1$ and $w$ is
# `desirable_weight`; where it is False, $s = -1$ and $w$ is `undesirable_weight`.
#
# One trap: in float32, `1 - sigmoid(u)` is exactly 0 from about $u = 16.64$ on, where $1 + e^{-u}$ rounds to 1. Write
# $1 - \sigma(u)$ as $\sigma(-u)$: tiny, but not 0.

# %% exercise="kto_loss"
def my_kto_loss(policy_logps, reference_logps, label, z0, beta=0.1,
                desirable_weight=1.0, undesirable_weight=1.0):  # fmt: skip
    """KTO loss of each row: log-probabilities (B,) in nats, label (B,) bools, z0 a scalar -> (B,)."""
    ### BEGIN SOLUTION
    sign = torch.where(label, 1.0, -1.0)
    weight = torch.where(label, desirable_weight, undesirable_weight)
    u = sign * beta * (policy_logps - reference_logps - z0)
    return weight * torch.sigmoid(-u)
    ### END SOLUTION


# %% check="kto_loss" points=3
check.kto_loss(my_kto_loss)

# %% [markdown]
# ## 7. Before the first step, the loss is half the mean weight
#
# A step in no direction leaves the policy where it was:

# %% slide=["text 2:3"]
kto_loss = check.yours_or_ours("kto_loss")

zeros = torch.zeros(8)
r_start, k_start = nudged(zeros)
at_start = kto_loss(r_start, zeros, label, reference_point(k_start, zeros), desirable_weight=1.33)
print(f"largest log-ratio {r_start.abs().max():.1f}, losses", *(f"{x:.3f}" for x in at_start))
print(f"their mean {at_start.mean():.6f}, half the mean weight {(3 * 1.33 + 5) / 8 / 2:.6f}")
reveal("step_zero", "d")

# %% [markdown] slide=["$\\sigma(0)", "If your first", "By default both", "$$1"]
# $\sigma(0) = 0.5$: at the reference point a reply has *half* its weight as value and half as loss. If your first
# loss is something else, are policy and reference the same, and is dropout off? A right one proves little: while
# every $r$ is 0, a flipped sign passes as well.
#
# ## 8. Two weights make up for the counts
#
# By default both are 1, and five thumbs down outvote three up. The paper's rule is about the *total* weight of $n_D$
# thumbs up and $n_U$ thumbs down (version 4, Eq. 9):
#
# $$1 \;\le\; \frac{\lambda_D\,n_D}{\lambda_U\,n_U} \;\le\; \tfrac32$$


# %%
for n_up, n_down in ((3, 5), (1, 10)):
    low, high = (ratio * n_down / n_up for ratio in (1, 3 / 2))
    print(f"{n_up} up, {n_down} down of weight 1: thumbs-up weight {low:.3f} to {high:.3f}")
print(f"the ratio with weights 1.33 and 1: 1.33 * 3 / (1 * 5) = {1.33 * 3 / 5:.3f}")

# %% [markdown]
# So the often copied 1.33 is too small here. The band was found by trying: on one mixture of data a ratio of 4/3 did
# best, on UltraFeedback 1 (appendix C), where 1.33 even cost 7.2 points of a reasoning test (BBH, Table 2, one run
# each). Is it loss aversion? The paper says that the two weights control it and that 1 and 1 are neutral. Yet people
# weigh *losses* more, and this rule leans to the *gain* side. (In code: `losses.balanced_weights`.)
#
# ## 9. Row by row
#
# The hand-made policy of section 4, with weights 5/3 and 1:

# %% slide=["table 0:9"]
weight = torch.where(label, 5 / 3, 1.0)
losses = kto_loss(r, torch.zeros(8), label, z0, beta=0.1, desirable_weight=5 / 3)
print(f"{'thumb and completion':50}     r-z0   weight    value     loss")
for text, away, *numbers in zip(shown, r - z0, weight, weight - losses, losses, strict=True):
    print(text, f"{away:+8.2f}" + "".join(f"{x:9.4f}" for x in numbers))
print(f"batch loss {losses.mean():.4f}, at step 0 it was {weight.mean() / 2:.4f}")

# %% [markdown]
# Take a pocket calculator. *Rome*, thumbs down: $u = -1 \cdot 0.1 \cdot (-1.495 - 0) = 0.1495$,
# $\sigma(u) = 1/(1 + e^{-0.1495}) = 0.5373$, loss $1 \cdot (1 - 0.5373) = 0.4627$.
#
# ## 10. How hard does a row pull?
#
# Training follows the gradient. Two facts give it to you: $\sigma' = \sigma(1-\sigma)$, and $1 - \sigma(u) =
# \sigma(-u)$.

# %% [markdown]
# ### Exercise 6.3 · The gradient by hand
# ★★★ · 10 minutes · a derivation step checked numerically
#
# $L$ is the mean of the $B$ losses of exercise 6.2. Differentiate it on paper with respect to one $r_i$ ($z_0$ is a
# constant), then write your formula as code. The check compares it with autograd.

# %% exercise="kto_gradient"
def my_kto_gradient(logratio, label, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    """dL/dr_i of the mean KTO loss: logratio (B,) in nats, label (B,) bools, z0 a scalar -> (B,)."""
    ### BEGIN SOLUTION
    sign = torch.where(label, 1.0, -1.0)
    weight = torch.where(label, desirable_weight, undesirable_weight)
    u = sign * beta * (logratio - z0)
    return -sign * weight * beta * torch.sigmoid(u) * torch.sigmoid(-u) / len(logratio)  # du/dr = sign * beta
    ### END SOLUTION


# %% check="kto_gradient" points=3
check.kto_gradient(my_kto_gradient)

# %% [markdown]
# ## 11. Hopeless rows get almost no push
#
# Every row's gradient, and its size as a share of the largest possible, $w\beta/4B$ at $r = z_0$:

# %%
kto_gradient = check.yours_or_ours("kto_gradient")

slope = kto_gradient(r, label, z0, beta=0.1, desirable_weight=5 / 3)
share = slope.abs() / (weight * 0.1 / 4 / 8)
for text, gradient, part in zip(shown, slope, share, strict=True):
    print(text, f"{gradient:+.6f}, {part:4.0%} of its maximum")

# %% [markdown]
# Minus for every thumbs up (descent raises it), plus for every thumbs down, whatever the other rows do. The homework
# reply moved furthest, and pulls least. Now move one row away from $z_0$, to either side:

# %% slide=["figure"]
x = torch.linspace(-100, 100, 401)  # nats to the good side: above z0 for thumbs up, below for thumbs down
liked = torch.ones(401, dtype=torch.bool)
loss = kto_loss(x, torch.zeros(401), liked, torch.tensor(0.0))
pull = kto_gradient(x, liked, torch.tensor(0.0)).abs() * 401 / (0.1 / 4)
print("   ".join(f"{nats} nats: {pull[200 - 2 * nats]:.2%}" for nats in (0, 10, 20, 50, 100)))
pictures.saturation(x, loss, pull, torch.where(label, 1.0, -1.0) * (r - z0), share)

# %% [markdown] slide=["On the good side"]
# On the good side, learned is learned. Far out on the wrong side KTO treats a row like a misprint and leaves it
# (Proposition 4.1). In theory that protects against wrong thumbs, and leaves hard but true examples unlearned; lesson
# 08 measures what it is worth. $r$ is a *sum* over tokens, so long or odd replies get there first.
#
# ## 12. The authors' code gives the same numbers
#
# So far you only agree with yourself. Here are 24 batches from the authors' code:

# %%
cases = load_cases()
for case in cases:
    z = reference_point(case.kl_policy_logps, case.kl_reference_logps)
    ours = kto_loss(case.policy_logps, case.reference_logps, case.label, z, *case.settings)
    gradient = kto_gradient(case.policy_logps - case.reference_logps, case.label, z, *case.settings)
    for mine, theirs in ((z, case.z0), (ours, case.losses), (gradient, case.gradient)):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=0.0)  # their z0 is a float32 number
print(f"z0, losses and gradients of {len(cases)} batches agree, to 1e-06 relative")

# %% [markdown]
# ## 13. What goes wrong: a batch of one
#
# With no other row to borrow from, a row borrows from itself: $k = r$. For $r \ge 0$ that makes $r - z_0 = 0$,
# however much was learned. A thumbs up:

# %%
for r_alone in (-50.0, -5.0, 0.5, 5.0, 50.0):
    alone, up = torch.tensor([r_alone]), torch.tensor([True])
    z = reference_point(alone, torch.zeros(1))
    loss, gradient = kto_loss(alone, torch.zeros(1), up, z), kto_gradient(alone, up, z)
    print(f"r = {r_alone:5.1f}: loss {loss.item():.3f}, gradient {gradient.item():+.4f}")

# %% [markdown]
# From $r = 0$ on the loss is frozen at $w/2$ and the gradient at its maximum: nothing seems to happen, while the
# reply is raised for ever. So the collator refuses a batch of one. Gradient accumulation does not help: each piece
# has its own $z_0$.
#
# ## Recap
#
# - A policy contains a reward, $\beta r$, up to a constant per question.
# - $z_0$ stands for the expected $r$, a KL. A batch has borrowed replies: mean, clamp, no gradient.
# - Loss of a row: $w\,(1 - \sigma(s\beta(r - z_0)))$; at step 0 the batch loss is mean(w)/2.
# - Weights: total up over total down between 1 and 3/2.
# - The label gives the gradient's sign; its size fades on both sides of $z_0$.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions loss_at_step_0 saturation_consequence thumbs_one_to_ten}}

# %% [markdown]
# ## Sources
#
# - Ethayarajh et al., *KTO: Model Alignment as Prospect Theoretic Optimization*, arXiv 2402.01306, v4: $z_0$ and loss
#   section 4.1 and Eq. 8, weights Eq. 9, appendix C and Table 2, saturation Proposition 4.1.
# - Section 1: Rafailov et al., arXiv 2305.18290. Section 12: ContextualAI/HALOs, main, commit 4831988.
#
# Next: [07](07_train.ipynb) trains the model.
# Deeper: [06b](deeper/06b_what_kto_promises.ipynb), derivation and limits.
