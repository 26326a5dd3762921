# %% [markdown]
# # 09 · The family: human-aware losses
#
# Draw the value functions inside DPO, PPO-Clip, SLiC and KTO, and see who gets pushed, and whose taste wins.

# %% [markdown]
# **You will be able to**
# - say what a human-aware loss is, and read the value function off a loss,
# - say whom KTO, DPO, SLiC and PPO-Clip push,
# - place a dozen neighbours, from IPO to GRPO, in one table,
# - say when DPO's optimum follows the **minority** of the raters, and when KTO pushes down what the majority likes.
#
# **You need first** a value function and a reference point ([01](01_prospect_theory.ipynb)), the KTO loss
# ([06](06_kto_loss.ipynb)) and the DPO loss ([08](08_kto_vs_dpo.ipynb)).
#
# **Time** {{times}}. Deeper: [09b](deeper/09b_tastes.ipynb).

# %% [markdown] slide=["Ten people", "Six prefer", "The reference", "You train", "Which reply"]
# **Before you run anything.** Ten people compare the same two replies. Six prefer *a*, four prefer *b*. The reference
# model gives *b* more often than *a*, 7 : 3. You train DPO with $\beta = 1$ on these choices until nothing changes any
# more. Which reply does it end up preferring? Put your guess into the second cell; section 6 answers.

# %%
import math
from functools import partial

import torch
import torch.nn.functional as F

from kto_course import check, predict, reveal
from kto_course.halos import agree, train_tables
from kto_course.pictures import lesson_09 as pictures
from kto_lab import neighbours
from kto_utils.losses import dpo_loss, kto_loss

torch.set_default_dtype(torch.float64)

# %%
predict("ten_people", "Six of ten prefer a, the reference says b, 7 : 3. What does DPO's optimum say?",
        ["a, with odds 6 : 4", "a, just", "both alike", "b"], guess=None, confidence=None)  # fmt: skip

# %% [markdown] slide=["a reward", "a reference point", "a value function"]
# ## 1. A loss can feel gains and losses
#
# Lesson 01: people feel an outcome's distance from what they expected, through a curve. The KTO paper asks which
# *losses* have the same build. Three parts:
#
# - a **reward** that the policy implies: $r$, a positive multiple of $\log(\pi / \pi_{ref})$,
# - a **reference point** that is subtracted from it: the reward to be expected, $\mathbb{E}_Q[r]$,
# - a **value function** $v$ that never falls and is concave in gains: the second nat of gain counts no more than the
#   first.
#
# A loss is a **human-aware loss**, HALO for short, if it is a mean of such values, up to a sign for each row and a
# constant:
#
# $$f = \mathbb{E}\big[a\,v(r - \mathbb{E}_Q[r])\big] + C, \qquad a = +1 \text{ or } -1$$
#
# (Definition 3.4.) KTO fits, with one $v$ for both thumbs: $a = -1$ where value is wanted, since a
# loss is made small, and $+1$ where it is not.

# %%
beta, z0 = 0.1, 4.0
r = 30 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
up, v = torch.ones(1000, dtype=torch.bool), torch.sigmoid(beta * (r - z0))
agree("thumbs up:   loss = -1 * v(r - z0) + 1", kto_loss(r, 0 * r, up, z0, beta), -v + 1)
agree("thumbs down: loss = +1 * v(r - z0) + 0", kto_loss(r, 0 * r, ~up, z0, beta), +v)

# %% [markdown]
# DPO and PPO-Clip are HALOs too (Theorem 3.5). **Not counted:** SLiC and SFT on marked replies (CSFT). They know no
# reference model, so $-\log\pi_{ref}(y|x)$ would have to be the reference point, which is fixed for $x$: possible only
# where $\pi_{ref}$ is uniform (section 3.3). Nor is KTO *without* $z_0$ (4.3). Version 1 counted CSFT and the whole of
# SLiC out, but SLiC's calibration term in.
#
# The definition is wide: losses need not hurt more than gains please, and even a straight line passes for $v$. Nor is a
# member good for being one: KTO with a straight line scored 6.1 on BBH, a reasoning test, where KTO has 52.6 and the
# model before it 46.3 (Table 2; one run each).

# %% [markdown]
# ## 2. Every loss hides a value function
#
# You read it off: find the number that the loss looks at, and what it is compared with.
#
# - **KTO** looks at $r$ of a reply; its reference point is $z_0$, a level for the whole batch.
# - **DPO** looks at $r$ of the chosen reply; its reference point is $r$ of the rejected one.
# - **SLiC** (its calibration term) does the same with $\log\pi$ in place of $r$. It wants
#   the chosen reply $\delta$ nats ahead and is content then.
# - **PPO-Clip** takes the ratio $q = \pi / \pi_{ref}$ times an advantage, and stops paying once $q$ has left
#   $1 \pm \epsilon$ on the good side. Its reference point is $q = 1$.
#
# Our PPO-Clip is a simplification: one ratio for the reply, $\epsilon = 0.2$, advantage $+1$ for a thumbs up and $-1$
# for a thumbs down. The paper's (v1) makes of *rewards* of $\pm 1$ an advantage for each token, with a learned value
# head, clips at 0.25 and 4.0 and adds a KL penalty.


# %%
def slic_calibration_loss(policy_chosen, policy_rejected, delta=10.0):
    return F.relu(delta - (policy_chosen - policy_rejected))


def ppo_clip_loss(logratio, advantage, epsilon=0.2):
    q = logratio.exp()
    return -torch.minimum(q * advantage, q.clamp(1 - epsilon, 1 + epsilon) * advantage)


def family(beta, delta):
    """The loss of a liked or chosen reply that stands r nats above its reference point, here put at 0."""
    return {
        "KTO": lambda r: kto_loss(r, 0 * r, torch.ones_like(r, dtype=torch.bool), 0.0, beta),
        "DPO": lambda r: dpo_loss(r, 0 * r, 0 * r, 0 * r, beta),
        "SLiC": lambda r: slic_calibration_loss(r, 0 * r, delta),
        "PPO-Clip": lambda r: ppo_clip_loss(r, +1),
    }

# %% [markdown]
# ### Exercise 9.1 · Read the value off a loss
# ★★☆ · 5 minutes · fill in a function
#
# You get `loss`, a function that turns rewards into losses, and a reference point for each row. What is it *worth* to
# stand $x$ nats above your reference point? Value is minus the loss, moved so that it is 0 at $x = 0$ (a
# constant changes no loss).

# %% exercise="value_of_loss"
def my_value_of_loss(loss, reference_point, x):
    """loss: function, rewards (N,) -> losses (N,); reference_point: (N,); x: (N,) distances from it -> (N,) values."""
    ### BEGIN SOLUTION
    return loss(reference_point) - loss(reference_point + x)
    ### END SOLUTION


# %% check="value_of_loss" points=2
check.value_of_loss(my_value_of_loss)

# %% [markdown]
# ## 3. In gains all four flatten; in losses only two let go
#
# All four, with $\beta = 1$, $\delta = 1$, $\epsilon = 0.2$:

# %% slide=["figure"]
value_of_loss = check.yours_or_ours("value_of_loss")
places = torch.tensor([-4.0, -2.0, 0.0, 2.0, 4.0])
print("nats      " + "".join(f"{place:8.0f}" for place in places))
for name, loss in family(beta=1.0, delta=1.0).items():
    print(f"{name:10}" + "".join(f"{value + 0.0:8.3f}" for value in value_of_loss(loss, 0 * places, places)))
x = torch.linspace(-4, 4, 401)
values = {name: value_of_loss(loss, 0 * x, x) for name, loss in family(beta=1.0, delta=1.0).items()}
pictures.value_functions(x, values)

# %% [markdown]
# - **KTO** is a smooth S, as people's curve is.
# - **DPO** is $\log \sigma$, concave *everywhere*: here a loss of 20 nats hurts about twice as much as one of 10.
#   People, and KTO, feel the second ten less.
# - **SLiC** is a straight line with a lid at $\delta$. **PPO-Clip** is one too, but in the ratio $q$. In nats, which
#   v1's proof takes for the reward, it bends *upwards* below the lid; 09b checks both readings.
#
# ## 4. Who gets pushed?
#
# A loss trains through its slope. The **push** on a row is how fast its value rises with $r$: the weight with which the
# row's $\nabla \log \pi$ enters the step.

# %%
predict("hopeless_row", "A row is 50 nats wrong, beta is 0.1. Who still gives over 90 % of its push?",
        ["both DPO and KTO", "DPO alone", "KTO alone", "neither"], guess=None, confidence=None)  # fmt: skip


# %% slide=["figure"]
def push(loss, r):
    free = r.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(free).sum(), free)
    return -slope


losses = family(beta=0.1, delta=10.0)
places = torch.tensor([-50.0, -20.0, -1.0, 0.0, 1.0, 20.0, 50.0])
unit = {"KTO": 0.1, "DPO": 0.1, "SLiC": 1.0, "PPO-Clip": 1.0}
pushes = {name: push(loss, places) / unit[name] for name, loss in losses.items()}
print("nats      " + "".join(f"{place:9.0f}" for place in places))
for name, weights in pushes.items():
    print(f"{name:10}" + "".join(f"{weight + 0.0:9.4f}" for weight in weights))
dpo_pushes, kto_pushes = pushes["DPO"][0] > 0.9, pushes["KTO"][0] > 0.9 / 4  # of 1 and of 1/4, their most
reveal("hopeless_row", "dcba"[2 * int(dpo_pushes) + int(kto_pushes)])
x = torch.linspace(-100, 100, 2001)
pictures.pushes(x, {name: push(loss, x) / unit[name] for name, loss in losses.items()})

# %% [markdown]
# (KTO and DPO are divided by $\beta$: DPO's most is 1.) On the good side all four let go; on the wrong side only KTO
# and PPO-Clip. Outside its clip range PPO-Clip has **no gradient where the ratio has already moved in the direction of
# the advantage, the full gradient where it moved against it.**

# %%
ratio = torch.tensor([0.5, 0.9, 1.1, 1.5, 100.0])
print("ratio               " + "".join(f"{q:8.1f}" for q in ratio))
for advantage in (+1, -1):
    weights = push(lambda r, a=advantage: ppo_clip_loss(r, a), ratio.log())
    print(f"push, advantage {advantage:+d}  " + "".join(f"{weight + 0.0:8.2f}" for weight in weights))

# %% [markdown]
# The full gradient is the advantage times the ratio itself. So a liked reply that sank far gets a push that is not
# clipped and yet tiny, and a disliked one that rose to 100 times its probability gets a hundredfold. Online PPO keeps
# the ratio near 1; offline nothing does.
#
# KTO and DPO are closer relatives than the picture suggests. Let $p = \sigma(\beta x)$ be "the chance of being right":

# %%
x = torch.linspace(-80, 80, 161)
p = torch.sigmoid(0.1 * x)
agree("DPO's loss is -log p", losses["DPO"](x), -p.log())
agree("KTO's loss is 1 - p", losses["KTO"](x), 1 - p)
agree("KTO's push is p times DPO's", push(losses["KTO"], x), p * push(losses["DPO"], x))

# %% [markdown]
# A surprise without limit, or a mistake that counts at most 1. The factor $p$ is trust: a row that the model finds
# absurd is believed little. In theory that helps with wrong thumbs and hurts with hard but right ones; 08 tried it.

# %% [markdown]
# ### Exercise 9.2 · A tenth of the trust
# ★★☆ · 4 minutes · predict a number
#
# At the reference point $p = \frac12$, so KTO pushes half as hard as DPO. Further out on the wrong side the share
# shrinks. How many nats on the wrong side is a row to which KTO gives *a tenth* of the push that DPO gives it at the
# same place? $\beta = 0.1$, so $p = \sigma(0.1\,x)$. Write the distance as a positive number, to half a nat.

# %% exercise="trust_tenth"
answer = ...  # a number of nats, positive
### BEGIN SOLUTION
answer = math.log(9) / 0.1  # p = 0.1, so 0.1 x = log(0.1 / 0.9)
### END SOLUTION

# %% check="trust_tenth" points=1
check.trust_tenth(answer)

# %% [markdown]
# ## 5. The neighbours, side by side
#
# $w$: chosen, $l$: rejected, $D = r_w - r_l$, $\overline{\log\pi}$: mean per token, $o$: the odds of its exponential,
# $R$: reward, $A$: advantage. Read in ¹ the paper, ² the authors' code, ³ TRL 1.16.
#
# |method|loss|needs|tokens|what it changes|
# |---|---|---|---|---|
# |KTO¹|$1 - \sigma(\pm\beta(r - z_0))$|thumbs, $\pi_{ref}$|sum||
# |APO-zero, unpaired³|$1 - \sigma(\pm\beta r)$|thumbs, $\pi_{ref}$|sum|KTO with $z_0 = 0$, by v4 no HALO|
# |BCO¹|$-\log\sigma(\pm(\beta r - \delta))$, $\delta$: mid of class means|thumbs, $\pi_{ref}$|sum|KTO's fading push|
# |DPO¹|$-\log\sigma(\beta D)$|pairs, $\pi_{ref}$|sum||
# |cDPO²|$-(1-e)\log\sigma(\beta D) - e\log\sigma(-\beta D)$|pairs, $\pi_{ref}$|sum|expects wrong choices|
# |robust DPO³|the same with $+\,e$, over $1 - 2e$|pairs, $\pi_{ref}$|sum|cancels wrong choices on average|
# |IPO¹|$(D - 1/(2\tau))^2$|pairs, $\pi_{ref}$|paper: whole $y$; TRL, HALOs: mean|DPO's endless margin|
# |SimPO²|$-\log\sigma(\beta(\overline{\log\pi}_w - \overline{\log\pi}_l) - \gamma)$|pairs|mean|no reference, per token|
# |ORPO¹|SFT on $w$, $-\lambda\log\sigma(\log o_w - \log o_l)$|pairs|mean|no reference, SFT included|
# |CPO³|SFT on $w$, DPO without $\pi_{ref}$|pairs|sum|no reference, SFT included|
# |GRPO¹|clipped ratio times $A = (R - \text{mean})/\text{std}$; KL|prompts, $R$|token ratios|PPO's value head|
# |RLOO³|the same, $A = R - \text{mean of the others}$|prompts, $R$|reply ratio|PPO's value head|
#
# Each formula is a function of `kto_lab.neighbours`, tested against TRL where TRL has it. Who pushes far on the wrong
# side ($\tau = e = 0.1$)? And what are thumbs worth as rewards of four fresh replies to one prompt?

# %%
def pairs_at(x):
    """Pairs whose chosen reply leads by x nats; ten tokens each."""
    return neighbours.Pairs(x, 0 * x, 0 * x, 0 * x, 0 * x + 10, 0 * x + 10)


of_one_number = {
    "KTO, APO-zero": losses["KTO"],
    "DPO": lambda x: neighbours.dpo(pairs_at(x)),
    "BCO, delta 0": lambda x: neighbours.bco(0.1 * x, torch.ones_like(x, dtype=torch.bool), 0.0),
    "cDPO": lambda x: neighbours.cdpo(pairs_at(x)),
    "robust DPO": lambda x: neighbours.robust(pairs_at(x)),
    "IPO": lambda x: neighbours.ipo(pairs_at(x)),
}
places = torch.tensor([-100.0, -50.0, -10.0, 0.0, 10.0, 50.0])
print("push, nats    " + "".join(f"{place:9.0f}" for place in places))
for name, loss in of_one_number.items():
    print(f"{name:14}" + "".join(f"{weight:9.4f}" for weight in push(loss, places)))
for thumbs in ([1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]):
    advantages = neighbours.rloo_advantage(torch.tensor([thumbs]))[0] + 0.0
    print(f"RLOO, rewards {thumbs}: advantages " + " ".join(f"{advantage:+.2f}" for advantage in advantages))

# %% [markdown]
# KTO alone lets go; IPO pulls ever harder. On the good side IPO and cDPO *pull back* a pair far enough apart: as
# functions of the margin they are no HALO values. Where all raters agree, DPO's margin runs to infinity, theirs do not.
# Under RLOO a group of equals teaches nothing.

# %% [markdown] slide=["Two groups", "$$\\frac"]
# ## 6. The vote: whose taste wins?
#
# Two groups with opposite taste rate the same two replies. A share $p > \frac12$ prefers *a*, the rest prefers *b*.
# DPO's mean loss looks at one number, the margin $m = r_a - r_b$:
#
# $$L(m) = -p \log \sigma(\beta m) - (1-p) \log \sigma(-\beta m)$$
#
# It is smallest where $\sigma(\beta m) = p$. Written out for the policy's odds:
#
# $$\frac{\pi_a}{\pi_b} = \underbrace{\frac{\pi_{ref}(a)}{\pi_{ref}(b)}}_{\text{reference odds}} \cdot
# \Big(\frac{p}{1-p}\Big)^{1/\beta}$$


# %%
def dpo_optimum_odds(share, reference_odds, beta):
    """The odds of a against b at the minimum of DPO's mean loss, when a share prefers a."""
    return reference_odds * (share / (1 - share)) ** (1 / beta)


odds = dpo_optimum_odds(0.6, 0.3 / 0.7, beta=1.0)
print(f"odds of a against b: reference {0.3 / 0.7:.3f}, DPO's optimum {odds:.3f}")
reveal("ten_people", "b" if odds > 1 else "d")

# %% [markdown]
# **The minority's reply.** It wins where the odds stay below 1,
# that is where $p^{1/\beta}\,\pi_{ref}(a) < (1-p)^{1/\beta}\,\pi_{ref}(b)$ (Theorem 4.3). A small $\beta$ lets raters
# overrule the reference, a large one lets it stand. At 5 : 5 nothing moves, nor under KTO with equal weights.
#
# **And KTO?** Turn each choice into two thumbs: *a* gets a share $p$ of thumbs up and $1-p$ down, *b* the reverse.
# $\sigma(u)\sigma(-u)$ is the same for both thumbs on one reply, so each reply is pushed by one positive factor times
# its **net vote**, thumbs up minus thumbs down, each with its weight:
#
# $$\text{push on } a \propto p\,\lambda_D - (1-p)\,\lambda_U, \qquad
# \text{push on } b \propto (1-p)\,\lambda_D - p\,\lambda_U$$


# %%
def mean_dpo_loss(logps, reference_logps, share, beta):
    """Loss of each table (a, b, c), (N,): a share of the raters prefers a, the others b. logps (N, 3)."""
    a, b = (logps[:, 0], reference_logps[:, 0]), (logps[:, 1], reference_logps[:, 1])
    majority = dpo_loss(a[0], b[0], a[1], b[1], beta)
    minority = dpo_loss(b[0], a[0], b[1], a[1], beta)
    return share * majority + (1 - share) * minority


def mean_kto_loss(logps, reference_logps, share, beta, desirable_weight=1.0, undesirable_weight=1.0, z0=0.0):
    """The same raters, each choice as two thumbs; the loss of each table, (N,)."""
    up, total = torch.ones(len(logps), dtype=torch.bool), torch.zeros(len(logps))
    for reply, likes in ((0, share), (1, 1 - share)):
        pair = logps[:, reply], reference_logps[:, reply]
        total = total + likes * kto_loss(*pair, up, z0, beta, desirable_weight, undesirable_weight)
        total = total + (1 - likes) * kto_loss(*pair, ~up, z0, beta, desirable_weight, undesirable_weight)
    return total


# %% [markdown]
# Train all three, on a softmax over *a*, *b* and *c*. It starts at the reference's 7 : 3, and nobody ever rates *c*.

# %% slide=["figure"]
table, share = torch.tensor([[0.27, 0.63, 0.10]]), torch.tensor([0.6])
methods = {
    "DPO": mean_dpo_loss,
    "KTO, weights 1 and 1": mean_kto_loss,
    "KTO, thumbs down count double": partial(mean_kto_loss, undesirable_weight=2.0),
}
paths = {name: train_tables(loss, table, share, 1.0, 400)[:, 0].exp() for name, loss in methods.items()}
print("probability of                      a      b      c")
for name, path in paths.items():
    for step in (0, 10, 400):
        print(f"{name:30}" + "".join(f"{chance:7.3f}" for chance in path[step].tolist()), f"  step {step}")
agree("DPO ends at the formula", paths["DPO"][-1, 0] / paths["DPO"][-1, 1], odds)
pictures.vote(paths)

# %% [markdown]
# - **DPO** stops after a few steps, *b* ahead.
# - **KTO with equal weights** goes for the majority's *a*, whatever the reference says (Theorem 4.3, with $z_0$ held
#   fixed). The push fades, but no KL holds it.
# - **KTO with double weight on thumbs down** has net votes $0.6 - 0.8$ and $0.4 - 1.2$: **both go down**, the
#   majority's too. At first *a* gains because *b* sinks faster. In the end unrated *c* has everything.

# %% [markdown]
# ### Exercise 9.3 · How many must like it?
# ★★☆ · 3 minutes · predict a number
#
# Thumbs up have weight 1, thumbs down weight 2. Which share of its raters must like a reply so that its net vote is
# just 0?  Two decimals, or a fraction.

# %% exercise="rising_share"
answer = ...  # a share, from 0 to 1
### BEGIN SOLUTION
answer = 2 / 3  # p * 1 = (1 - p) * 2
### END SOLUTION

# %% check="rising_share" points=1
check.rising_share(answer)

# %% [markdown]
# ## 7. What goes wrong: the reference got lost
#
# In TRL, KTO with a fused loss and a LoRA adapter once dropped the reference: $\log\pi$ stood where the log-ratio
# belongs.
#
# The shipped model, eight rows, before the first step; `lost` has 0 in place of the reference's log-probabilities.

# %%
from kto_utils.data import load_eight_rows
from kto_utils.evaluate import completion_logps
from kto_utils.model import load_reference_model

rows = load_eight_rows()
prompts, completions = ([row[field] for row in rows] for field in ("prompt", "completion"))
logp = completion_logps(load_reference_model(), prompts, completions)
label = torch.tensor([row["label"] for row in rows])
for name, of_reference in {"kept": logp, "lost": torch.zeros(8)}.items():
    r = (logp - of_reference).detach()
    loss = lambda r: kto_loss(r, torch.zeros(8), label, z0=0.0)
    print(f"{name}: loss at step 0 {loss(r).mean():.4f}   mean reward {0.1 * r.mean():+.3f}")
    print("      share of the full push: " + "  ".join(f"{s:.2f}" for s in 4 / 0.1 * push(loss, r).abs()))

# %% [markdown] slide=["Nothing crashes", "Two symptoms"]
# Nothing crashes. Two symptoms: the first loss is not half the mean weight, and the mean reward is not 0. Rows now
# count by how *unlikely* they are: the homework row (the fifth) has lost its push before anything was learned.
#
# ## Recap
#
# 1. A HALO has a reward, a reference point, and a value function that never falls and is concave in gains.
# 2. DPO's value is $\log\sigma$, concave everywhere; KTO's is an S around $z_0$; SLiC and PPO-Clip have a lid.
# 3. At 50 nats wrong DPO gives 0.993 of its push, KTO 0.0066. PPO-Clip gives none where the ratio already moved with
#    the advantage.
# 4. APO-zero is KTO with $z_0 = 0$; BCO keeps pushing; IPO and cDPO pull back; SimPO, ORPO and CPO need no reference.
# 5. DPO's optimum follows the minority where the reference odds are below $((1-p)/p)^{1/\beta}$. KTO with equal weights
#    goes for the majority; with a heavy thumbs down both may sink.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions define_halo dpo_value_shape contradictory_labels}}
#
# ## Sources
#
# - Ethayarajh et al., *KTO: Model Alignment as Prospect Theoretic Optimization*, arXiv 2402.01306 **v4**, read: all
#   numbers of sections and theorems. (Do not copy: below Theorem 4.3 it prints $r(y_b) > r(y_a)$; its derivation says
#   the reverse.) **v1**, read: Proposition 3.5, PPO; its Theorem 4.3 has groups of equal size. **v5**, second-hand: KTO
#   only raises the majority's *relative* likelihood.
# - Read: DPO v2, IPO Eq. 17, ORPO v2 Eq. 3 to 7, BCO, GRPO v3. The lost reference: TRL pull request 7062.
#
# Next: [10](10_bug_museum.ipynb), 22 ways to build all this wrong. Or deeper: [09b](deeper/09b_tastes.ipynb).
