# %% [markdown]
# # 06b · What KTO promises, and what it does not
#
# Derive the best policy behind the implicit reward, and watch KTO run past it.

# %% [markdown]
# **You will be able to**
# - derive the best policy for reward minus KL in three steps, and say which rewards nobody can tell apart;
# - say what a mean over borrowed replies measures, and which estimator of the KL it is;
# - name four promises that KTO does *not* make;
# - recognise the loss in its spellings, and mend five slips of the paper's print.
#
# **You need first** [lesson 06](../06_kto_loss.ipynb). Nothing in the other lessons needs this one.
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything.** Three replies, one liked, two disliked, everybody agrees. With the *exact* KL as $z_0$
# and thousands of steps, where does KTO end? Guess below the imports; section 7 tries it.

# %%
import math

import torch

from kto_course import check, predict, reveal
from kto_course.checks.lesson_06 import mystery_pull
from kto_course.pictures import lesson_06b as pictures
from kto_lab.kl_estimators import ESTIMATORS, mean_and_spread
from kto_lab.votes import settle
from kto_utils.losses import kto_loss
from kto_utils.plotting import use_course_style

use_course_style()
torch.set_default_dtype(torch.float64)  # so that your digits are the same as these


# Stops the lesson if two results differ, and says how closely they agree if they do.
def agree(what, a, b, tolerance=1e-12):
    difference = float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())
    assert difference < tolerance, f"{what}: they differ by {difference}"
    print(f"{what}: they agree to {tolerance:.0e}")


# %%
predict("where_kto_ends", "KTO with the exact KL as z0 and thousands of steps ends",
        ["at the best policy for reward minus beta KL", "between the reference and that policy", "past it"],
        guess=None, confidence=None)  # fmt: skip

# %% [markdown]
# ## 1. The goal: better replies, close to home
#
# Lesson 06's three replies. A policy $\pi$ collects reward and pays $\beta$ for each nat of KL:
#
# $$J(\pi) \;=\; \underbrace{\textstyle\sum_y \pi(y)\,R(y)}_{\text{reward collected}} \;-\;
# \beta\,\underbrace{\textstyle\sum_y
# \pi(y)\log\frac{\pi(y)}{\pi_{\text{ref}}(y)}}_{\mathrm{KL}(\pi\,\|\,\pi_{\text{ref}})}$$


# %%
pi_ref, R, beta = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([1.0, 0.0, -1.0]), 0.8


def kl(p, q):
    return torch.xlogy(p, p / q).sum(-1)


def objective(pi, beta=beta):
    return (pi * R).sum(-1) - beta * kl(pi, pi_ref)


best_only = torch.tensor([1.0, 0.0, 0.0])
for name, pi in {"stay": pi_ref, "half way": (pi_ref + best_only) / 2, "best reply only": best_only}.items():
    print(f"{name:16} reward {(pi * R).sum():+.3f}   KL {kl(pi, pi_ref):.3f}   J {objective(pi):+.3f}")

# %% [markdown]
# Half way beats both ends: giving *only* the best reply costs more KL than it brings. Where exactly is the top?
#
# ## 2. The top, in three steps
#
# **Step 1: one average instead of two.** Both sums run over $\pi$, so put them together. Then write $R$ as
# $\beta\log e^{R/\beta}$: a difference of logarithms is the logarithm of a quotient.
#
# $$J(\pi) = \sum_y \pi(y)\Big[R(y) - \beta\log\frac{\pi(y)}{\pi_{\text{ref}}(y)}\Big] = -\beta\sum_y
# \pi(y)\log\frac{\pi(y)}{\pi_{\text{ref}}(y)\,e^{R(y)/\beta}}$$
#
# **Step 2: make it a probability.** The numbers $\pi_{\text{ref}}\,e^{R/\beta}$ do not add up to 1. Their sum
# is called the **partition function** $Z$. Divide by it and you have a policy, call it $\pi^*$.
#
# **Step 3: read off the maximum.** With $\pi_{\text{ref}}\,e^{R/\beta} = Z\,\pi^*$, step 1 becomes
#
# $$J(\pi) \;=\; \beta\log Z \;-\; \beta\,\mathrm{KL}(\pi\,\|\,\pi^*)$$
#
# A KL is never negative, and it is 0 only where both are equal (Gibbs' inequality). So $\pi^*$ is the one best policy,
# and $\beta\log Z$ is the most that anybody can get. Do both sides agree, on a thousand random policies?

# %%
generator = torch.Generator().manual_seed(0)
some_policies = torch.rand(1000, 3, generator=generator)
some_policies = some_policies / some_policies.sum(-1, keepdim=True)

tilted = pi_ref * torch.exp(R / beta)
Z = tilted.sum()
pi_star = tilted / Z
agree("step 1", -beta * torch.xlogy(some_policies, some_policies / tilted).sum(-1), objective(some_policies))
agree("step 3", beta * Z.log() - beta * kl(some_policies, pi_star), objective(some_policies))
print(f"beta log Z      {beta * Z.log():.4f}")
print(f"J(pi*)          {objective(pi_star):.4f}")
print(f"best of 1000    {objective(some_policies).max():.4f}")

# %% [markdown]
# ## 3. Rewards that nobody can tell apart
#
# Solved for the reward: $R = \beta\log(\pi^*/\pi_{\text{ref}}) + \beta\log Z$. For a real model $Z$ is out of reach, a
# sum over every text there is. Does the missing number matter? Add a constant $h$ to all three rewards and see who
# notices.

# %%
for h in (0.0, 5.0, -5.0):
    shifted = pi_ref * torch.exp((R + h) / beta)
    implicit = beta * torch.log(shifted / shifted.sum() / pi_ref)
    print(f"h {h:+.0f}   Z {shifted.sum():8.3f}   beta log Z {beta * shifted.sum().log():+.3f}   beta*r  "
          + "  ".join(f"{x:+.3f}" for x in implicit.tolist()))  # fmt: skip

r_of_many = torch.log(some_policies / pi_ref)
agree("sum of pi_ref * exp(r) is 1, for all 1000 policies", (pi_ref * r_of_many.exp()).sum(-1), 1.0)

# %% [markdown]
# Same policy, same implicit reward. $R(x,y)$ and $R(x,y) + h(x)$ are **equivalent**: only *differences between replies
# to the same question* count. The implicit reward is the member of the family with $Z = 1$ (last line).
#
# Mind a loose step in version 1 of the paper (section 4.1). Its reference point is a mean over *all* questions, and it
# drops $Z$ by assuming an expected value of zero. $Z$ is always positive; what could vanish is the mean of
# $\beta\log Z$. But that mends the reference point only: the row's own $\beta\log Z$ is dropped too. Two questions
# whose $\beta\log Z$ do average to 0:

# %%
r_star, usual = torch.log(pi_star / pi_ref), (pi_star * R).sum()
in_the_loss = beta * (r_star[0] - kl(pi_star, pi_ref))  # the same for both questions
for name, h in {"easier": 2 - beta * Z.log(), "harder": -2 - beta * Z.log()}.items():
    over_all, over_own = R[0] + h - (usual - beta * Z.log()), R[0] + h - (usual + h)
    print(f"{name}: beta log Z {beta * Z.log() + h:+.1f}, R above the mean of all questions {over_all:+.3f}, "
          f"of its own {over_own:+.3f}; in the loss {in_the_loss:+.3f}")  # fmt: skip

# %% [markdown]
# Version 1 defines the first difference; its loss is off by 2 in both. Version 4 takes the KL of the *same* question:
# the second difference, where $\beta\log Z$ cancels without any assumption.
#
# ## 4. Whose replies do you borrow?
#
# The expected log-ratio is the KL if the replies are the policy's own. A batch borrows. So let the replies come from
# any distribution $q$. Add and subtract $\log q$:
#
# $$\mathbb{E}_{y\sim q}\Big[\log\frac{\pi(y)}{\pi_{\text{ref}}(y)}\Big] =
# \mathrm{KL}(q\,\|\,\pi_{\text{ref}}) - \mathrm{KL}(q\,\|\,\pi)$$
#
# *How much closer are the borrowed replies to the policy than to the reference?*

# %%
q = some_policies.flip(0)  # another thousand random distributions
borrowed_mean = (q * r_of_many).sum(-1)
agree("identity", borrowed_mean, kl(q, pi_ref) - kl(q, some_policies))
print(f"negative for {(borrowed_mean < 0).double().mean():.0%} of them")

# %% [markdown]
# For $q = \pi$ it is the KL we wanted; for any other $q$ it agrees only by accident. Let the policy move from the
# reference towards the best reply ($\pi_t \propto \pi_{\text{ref}}\,e^{tR}$; $\propto$ means: equal up to the factor
# that makes the sum 1). Watch what three kinds of borrowed replies report.

# %%
t = torch.linspace(0, 3, 61)[:, None]
path = (pi_ref.log() + t * R).softmax(-1)
r_path = torch.log(path / pi_ref)
own, risen, old = (path * r_path).sum(-1), r_path[:, 0], (pi_ref * r_path).sum(-1)
for name, curve in {"policy: the true KL": own, "the reply that rose": risen, "reference": old}.items():
    print(f"q = {name:20} at t = 1: {curve[20]:+.3f}   after the clamp {curve[20].clamp(min=0):.3f}")
pictures.borrowed(t, own, risen, old)

# %% [markdown]
# So $z_0$ can lie below the KL or above it. That is the first thing KTO does not promise: **a true KL**. It is one
# level for the whole batch, and without a gradient it cannot turn any row's push around. The paper's ablation without
# $z_0$ loses 3.6 points on BBH and 4.0 on GSM8K, two reasoning tests, and next to nothing on MMLU and HumanEval (v4,
# Table 2). After SFT on the same data, with that model as the reference, v4 allows $z_0 = 0$ (section 4.1), though such
# a loss is no HALO any more (section 4.3).
#
# ## 5. Of three estimators $z_0$ takes the plainest
#
# Drawn replies tell a KL in more than one way: $k_1 = r$, $k_2 = r^2/2$, $k_3 = e^{-r} - 1 + r$. KTO's $z_0$ is the
# mean of $k_1$, clamped; GRPO adds $k_3$ of its own tokens to its loss. What one draw gives on average, and how far it
# scatters, exactly, at $t = 1$ and $t = 3$ of that path:

# %%
for i in (20, 60):
    print(f"t = {i // 20}, true KL {own[i]:.3f}     own replies     replies of the reference")
    for name, estimator in ESTIMATORS.items():
        told = [mean_and_spread(estimator(r_path[i]), source) for source in (path[i], pi_ref)]
        print(f"   {name}          " + "      ".join(f"{mean:8.3f} +- {spread:6.3f}" for mean, spread in told))

# %% [markdown]
# On the policy's own replies $k_1$ and $k_3$ are right on average ($e^{-r}$ has mean 1 there), and near home $k_3$
# scatters less. That suits GRPO, which draws from the policy. On borrowed replies all are wrong.
# $k_3$ needs no clamp, but a borrowed reply that sank counts $e^{-r}$: 26.8 nats for a KL of 1.1. $k_1$ is too low, and
# the clamp makes it 0.
#
# The clamp adds a bias. Let $m$ independent log-ratios scatter around 0 with standard deviation $d$: only
# means above 0 survive it. For a normal scatter $\mathbb{E}[z_0] = d/\sqrt{2\pi m}$, not 0 (here $\pi$ is 3.14...).
# With $d = 5$:

# %%
for m in (2, 8, 32):
    scatter = 5.0 * torch.randn(100_000, m, generator=generator)
    simulated = scatter.mean(-1).clamp(min=0).mean()
    print(f"m = {m:2}   simulated {simulated:.2f}   formula {5.0 / math.sqrt(2 * math.pi * m):.2f} nats")

# %% [markdown]
# Larger batches make it small, but do nothing about whose replies you borrow.
#
# ## 6. A direction, but no best place
#
# A reply gets thumbs up from 70 % of the people. A loss that is *minus a log-likelihood* asks for the most probable
# $\sigma(u)$, and is smallest where $\sigma(u) = 0.7$, at the log odds $\log\frac{0.7}{0.3}$. KTO's loss is no
# likelihood. Where is its average smallest?

# %%
u = torch.linspace(-6, 6, 1201)
kto_average = 0.7 * torch.sigmoid(-u) + 0.3 * torch.sigmoid(u)
log_average = -0.7 * torch.log(torch.sigmoid(u)) - 0.3 * torch.log(torch.sigmoid(-u))
best_place = u[log_average.argmin()]
print(f"minus log-likelihood: smallest at {best_place:.2f}, log odds of 70 %: {math.log(0.7 / 0.3):.2f}")
print(f"KTO:                  smallest at {u[kto_average.argmin()]:.2f}, the end of the grid")
pictures.no_inner_minimum(u, kto_average, log_average)

# %% [markdown]
# With equal weights, as here, a reply on its own is pushed by its *majority*, for ever. (Otherwise the sign of
# $p\,\lambda_D - (1-p)\,\lambda_U$ decides, $p$ its share of thumbs up.) But replies to one question share a
# probability of 1. At $\beta = 0.8$, with exact votes, the exact KL as $z_0$, and enough steps for liked replies to
# come to rest (`kto_lab.votes`):

# %%
home = torch.tensor([[0.3, 0.3, 0.4], [0.3, 0.3, 0.4], [0.2, 0.5, 0.3]])
approval = torch.tensor([[0.9, 0.6, 0.1], [0.7, 0.6, 0.1], [1.0, 1.0, 0.0]])
ends = settle(home, approval, beta)
for liked_by, start, end in zip(approval, home, ends, strict=True):
    rows = zip(liked_by, start, end, strict=True)
    print("   ".join(f"{a:.0%}: {p:.1f} -> {q:.3f} (r {torch.log(q / p):+6.2f})" for a, p, q in rows))

# %% [markdown]
# First line: most people like the second reply, and it *sinks*, to $r = -0.65$. It is pushed up, but the first is
# pushed harder, and the sum must stay 1. At rest, pull divided by $\pi$ is the same for both. Last line: two replies
# that everybody likes end level, though the optimum of section 2 would keep their 2 : 5. So the second thing KTO does
# not promise is **the majority of each reply**. (Theorem 4.3 has two replies and a reference point that stands still.)
#
# ## 7. Past the optimum
#
# Now thumbs up for one reply, down for two, the *exact* KL as $z_0$, and plenty of steps.


# %%
def train_three(beta, steps=5000):
    theta, history = pi_ref.log(), []
    for _ in range(steps):
        theta = theta.detach().requires_grad_()
        logps = theta.log_softmax(-1)
        history.append(logps.detach().exp())
        exact_kl = kl(history[-1], pi_ref)
        kto_loss(logps, pi_ref.log(), torch.tensor([True, False, False]), exact_kl, beta).mean().backward()
        theta = theta - theta.grad
    return torch.stack(history)


run = train_three(beta)
print(" step   policy                   J")
for step in (0, 10, 20, 40, 100, 1000, 4999):
    print(f"{step:5}   {'  '.join(f'{p:.4f}' for p in run[step].tolist())}   {objective(run[step]):+.3f}")
print(f"best    {'  '.join(f'{p:.4f}' for p in pi_star.tolist())}   {objective(pi_star):+.3f}")
reveal("where_kto_ends", "c")
grid = torch.tensor([[i, j, 80 - i - j] for i in range(81) for j in range(81 - i)]) / 80  # all over the triangle
pictures.past_the_optimum(grid, objective(grid), run, objective(run), pi_star, objective(pi_star))

# %% [markdown]
# Every policy over three replies is a point of a triangle, coloured by $J$. For a while it looks good. Then it passes
# the peak, $r$ of the disliked replies sinks without end, and at this $\beta$
# of 0.8 $J$ finishes lower than where it started. The third thing KTO does not promise: **the optimum of section 2**.
#
# A larger $\beta$ asks for *less* movement. Does KTO end elsewhere?

# %%
for beta_now in (0.1, 0.4, 0.8, 1.6):
    optimum, end = (pi_ref.log() + R / beta_now).softmax(-1), train_three(beta_now, steps=2000)[-1]
    told = [f"liked {pi[0]:.3f}, J {objective(pi, beta_now):+.3f}" for pi in (optimum, end)]
    print(f"beta {beta_now}   optimum: {told[0]}   KTO: {told[1]}")

# %% [markdown]
# No: KTO runs towards the same corner at each $\beta$. At 0.1 the optimum lies almost there anyway. No other $R$ helps:
# for every finite reward $\pi^*$ keeps every reply possible.
#
# Why: the log-ratio of a liked reply has a ceiling ($\pi \le 1$, so $r \le -\log\pi_{\text{ref}}$), that of a disliked
# one has no floor, and no KL penalty stands in the loss. Only the fading pull slows it down. So the number of steps
# decides: stop early, and watch the KL (lesson 07).
#
# The fourth you know from lesson 06: **no push for hopeless rows**. How far out is hopeless?
#
# ## 8. Reading a pull curve
#
# A lone row pulls with $w\,\beta\,\sigma(u)\,\sigma(-u)$, $u = \beta(r - z_0)$. The top lies at $r = z_0$ and is
# $w\beta/4$ high. Half of it is left where $\sigma(u)\sigma(-u) = \frac18$, at $u = \pm 1.76$.

# %% [markdown]
# ### Exercise 6.4 · Who pulls like this?
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
half = math.log(3 + math.sqrt(8))
agree("half the top", torch.sigmoid(torch.tensor(half)) * torch.sigmoid(torch.tensor(-half)), 1 / 8)
print(f"at beta 0.1: top {0.1 / 4:.4f}, half of it {half / 0.1:.1f} nats away")
x = torch.linspace(-100, 100, 401)
pictures.mystery_pull(x, 0.1 * torch.sigmoid(0.1 * x) * torch.sigmoid(-0.1 * x), mystery_pull(x))

# %% exercise="mystery_pull_curve"
answer = ...  # a letter in quotes
### BEGIN SOLUTION
answer = "b"
### END SOLUTION

# %% check="mystery_pull_curve" points=1
check.mystery_pull_curve(answer)

# %% [markdown]
# ## 9. One loss, three spellings, and a mixture
#
# Version 1 of the paper (Eq. 7) prints $w\,(1 - \sigma(\ldots))$ with $\beta$ *inside* its $r_{\text{KTO}} = \beta r$
# and its $z_{\text{ref}} = \beta z_0$. Version 4 (Eq. 8) prints $\lambda_y - v$ with nats inside and $\beta$ outside.
# We write $w\,\sigma(-u)$. All three are one function; what goes wrong is to mix them:

# %%
r, z0 = torch.tensor([3.0, -2.0, 12.0, 0.5]), torch.tensor(1.5)
label = torch.tensor([True, True, False, False])
sign, weight = torch.where(label, 1.0, -1.0), torch.where(label, 5 / 3, 1.0)

version_1 = weight * (1 - torch.sigmoid(sign * (0.1 * r - 0.1 * z0)))
version_4 = weight - weight * torch.sigmoid(sign * 0.1 * (r - z0))
ours = kto_loss(r, torch.zeros(4), label, z0, 0.1, desirable_weight=5 / 3)
agree("version 1 and version 4", version_1, version_4)
agree("version 4 and our function", version_4, ours)
mixture = weight * torch.sigmoid(-sign * 0.1 * (0.1 * r - z0))
print("ours     " + "  ".join(f"{x:.4f}" for x in ours.tolist()))
print("mixture  " + "  ".join(f"{x:.4f}" for x in mixture.tolist()))

# %% [markdown]
# The mixture takes $\beta r$ from version 1 and the outer $\beta$ from version 4, so $z_0$ counts ten times too much.
# At step 0 it looks right.
#
# ## 10. Where 1.33 comes from
#
# Version 1 allows a ratio of total weights $\lambda_D n_D / (\lambda_U n_U)$ from 1 to 4/3 (Eq. 8), version 4 to 3/2
# (Eq. 9). 4/3 is 1.33, the weight of a thumbs up *if there are as many up as down*; tutorials copied it without the
# counts. TRL warns outside 1 to 1.33. Even inside the band it is no recipe: in v4's Table 2, one run each, 1.33 in the
# place of 1 takes BBH from 52.6 to 45.4 and GSM8K from 53.5 to 52.0.

# %% [markdown]
# ### Exercise 6.5 · A band that forgot the counts
# ★☆☆ · 4 minutes · repair a function
#
# Which weights of a thumbs up does version 1 allow, when the weight of a thumbs down is given? For three up and five
# down (weight 1) the function below says 0.600 to 1.333. Right is 1.667 to 2.222. Both ends are wrong.
#
# ```python
# def broken_band(n_up, n_down, undesirable_weight=1.0, largest_ratio=4 / 3):
#     lowest = n_up / n_down * undesirable_weight
#     return lowest, largest_ratio
# ```

# %% exercise="weight_band"
def my_weight_band(n_up, n_down, undesirable_weight=1.0, largest_ratio=4 / 3):
    """(lowest, highest) weight w of a thumbs up: w * n_up / (undesirable * n_down) in [1, largest_ratio]."""
    ### BEGIN SOLUTION
    lowest = n_down / n_up * undesirable_weight
    return lowest, lowest * largest_ratio
    ### END SOLUTION


# %% check="weight_band" points=1
check.weight_band(my_weight_band)

# %% [markdown]
# ## 11. Five slips in version 4's print
#
# Do not copy these:
#
# 1. Section 4.1 adds the log-ratios of $1 \le i < m$ and divides by $m$: one term is missing, and its list of pairs
#    ends at a $y_0$ that does not exist.
# 2. Without a reference model, a uniform $\pi_{\text{ref}}$ gives $r - z_0 = \log\pi(y) + H(\pi)$, $H$ the entropy.
#    Printed is *minus* $H$.
# 3. Below Theorem 4.3 stands $r(y_b) > r(y_a)$ for the minority's $y_b$. Its own derivation has
#    $u = \log\frac{p}{1-p} > 0$: the reverse. (DPO's optimum can still *say* $y_b$ more often; lesson 09.)
# 4. The ticket pays 100 dollars at 80 %, else, as printed, 60. The stated mean of 80 needs 0.
# 5. DPO's default learning rate is given as 5e-7. DPO's code sets that; its paper says 1e-6 (appendix B).

# %%
one_nat_each = torch.ones(4)  # a batch of m = 4 in which every borrowed log-ratio is 1
print(f"1. mean {one_nat_each.mean():.2f}, as printed {one_nat_each[:-1].sum() / 4:.2f}")
pi, uniform = torch.tensor([0.5, 0.3, 0.2]), torch.full((3,), 1 / 3)
entropy = -torch.xlogy(pi, pi).sum()
print(f"2. r - z0 of the first reply {torch.log(pi / uniform)[0] - kl(pi, uniform):.4f}, log pi + H "
      f"{pi[0].log() + entropy:.4f}, as printed {pi[0].log() - entropy:.4f}")  # fmt: skip
print(f"3. with p = 0.7, the best difference r(y_a) - r(y_b) of section 6's likelihood, times beta: {best_place:+.2f}")
print(f"4. mean with 0 dollars {0.8 * 100:.0f}, with 60 {0.8 * 100 + 0.2 * 60:.0f}")

# %% [markdown]
# ## Recap
#
# - Reward minus $\beta\,$KL has one best policy, $\pi_{\text{ref}}\,e^{R/\beta}/Z$, and is worth $\beta\log Z$.
# - Rewards that differ by a constant per question have the same best policy.
# - A mean over borrowed replies is $\mathrm{KL}(q\|\pi_{\text{ref}}) - \mathrm{KL}(q\|\pi)$; the clamp adds
#   $d/\sqrt{2\pi m}$ to pure noise.
# - $z_0$ is $k_1$ on borrowed replies.
# - Not promised: a true KL, the majority of each reply, the optimum of section 2, a push for hopeless rows.
# - $\beta$ once, around $r - z_0$; weights only together with the counts.

# %% [markdown]
# ## Sources
#
# - Ethayarajh et al., *KTO: Model Alignment as Prospect Theoretic Optimization*, arXiv 2402.01306. v1: section 4.1,
#   Eq. 7 and 8. v4: sections 3.1, 4.1 and 4.3, Eq. 8 and 9, Theorem 4.3, Table 2.
# - Section 5: J. Schulman, *Approximating KL divergence* (2020), where $k_1$ to $k_3$ have their names; GRPO: Shao et
#   al., arXiv 2402.03300, v3.
# - Sections 1 to 3: Rafailov et al., *Direct Preference Optimization*, arXiv 2305.18290.
# - Section 10: TRL 1.16.0, whose warning names v1's Eq. (8).
# - Section 11: v4; DPO's config and paper.
# - The identity of section 4, the clamp's bias and sections 6 and 7 are derived and checked here.
#
# Back to [06](../06_kto_loss.ipynb), or on to [07](../07_train.ipynb), which trains the model.
