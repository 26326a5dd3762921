# %% [markdown]
# # 01 · Prospect theory: how people feel gains and losses
#
# Compute how people feel gains, losses and chances, and see which parts of that theory KTO keeps.

# %% [markdown]
# **You will be able to**
# - compute how an outcome feels, and show diminishing sensitivity and loss aversion in numbers;
# - explain why KTO (Kahneman-Tversky Optimization) bends outcomes with another curve;
# - write KTO's value of a reply, for a thumb up and for a thumb down;
# - say what KTO took from this theory, what it left behind, and why 1.33 on thumbs up is not loss aversion.
#
# **You need first** powers such as $x^{0.88}$ and a little NumPy. No torch, no earlier lesson.
#
# **Time** {{times}}. Deeper, if you like: [01b](deeper/01b_ranks_and_lotteries.ipynb), insurance and lottery tickets.

# %% [markdown] slide=["The KTO paper", "On average", "Which would"]
# **Before you run anything**
#
# The KTO paper explains this theory with a choice: 60 dollars for sure, or a ticket that pays 100 dollars with a
# chance of 80 in 100 and nothing otherwise. On average the ticket pays 80. Which would you take?
#
# Prospect theory knows four things about people who choose. They measure from a **reference point**. Far from it
# one dollar more counts for less. Losses weigh more than gains. Chances are felt bent. KTO, which trains a language
# model from thumbs up and down, is named after the two authors of that theory. How many of the four are left
# in KTO? The cell below the imports takes your guess, section 7 counts.

# %%
import matplotlib.pyplot as plt
import numpy as np

from kto_course import check, predict, reveal
from kto_course.pictures import lesson_01 as pictures
from kto_utils.plotting import DOWN, UP, label_line, save_figure, use_course_style

use_course_style()

# %%
choices = ["all four", "three", "two", "one"]
predict("pieces_left", "How many of the four are left in KTO's default loss?", choices, guess=None, confidence=None)

# %% [markdown] slide=["The money is"]
# ## 1. You feel the distance from a reference point
#
# Two people each get 3,000 dollars this month. One expected 2,500, the other 3,500. The money is the same, the
# feeling is not: what you feel is the **distance from a reference point**.
#
# Tversky and Kahneman (1992, Eq. 5) raise that distance to a power $\alpha$ and multiply losses by a **loss
# aversion** $\lambda$. The medians that they measured are $\alpha = 0.88$ and $\lambda = 2.25$.


# %%
def value(z, alpha=0.88, loss_aversion=2.25, reference=0.0):
    distance = np.asarray(z, dtype=float) - reference
    return np.abs(distance) ** alpha * np.where(distance < 0, -loss_aversion, 1.0)


for expected in (2500, 3500):
    print(f"paid 3000, expected {expected}: feels like {value(3000, reference=expected):+.1f}")
print(f"winning 10 feels like {value(10):.3f}, losing 10 like {value(-10):.3f}")
z = np.linspace(-20, 20, 401)

# %% [markdown]
# As a formula:
#
# $$v(z) = \begin{cases} (z - z_{ref})^{\alpha} & \text{if } z \ge z_{ref} \\
# -\lambda\,(z_{ref} - z)^{\alpha} & \text{if } z < z_{ref} \end{cases}$$
#
# In felt value only comparisons mean anything: bigger, smaller, how many times.

# %% slide=["figure"]
fig, ax = plt.subplots()
ax.plot(z, value(z), "-", [10, -10], value([10, -10]), "o")
ax.annotate("losing 10 hurts 2.25 times\nas much as winning 10 pleases", (-8, -25))
ax.set(xlabel="distance from the reference point (dollars)", ylabel="felt value", title="A kink at the reference point")
save_figure(fig, "01_value_function", alt="The value of 1992: 7.6 at a gain of 10, -17.1 at a loss of 10, a kink at 0.")
plt.show()

# %% [markdown]
# ### Exercise 1.1 · What makes up for a loss
# ★★☆ · 5 minutes · predict a number
#
# A coin: heads, you win $x$ dollars; tails, you lose 10. How large must $x$ be so that the win feels exactly as
# strong as the loss? Solve it on paper, or by trying with `value`, to the nearest 10 cents.

# %% exercise="balance"
answer = ...  # a number of dollars
### BEGIN SOLUTION
answer = (2.25 * 10**0.88) ** (1 / 0.88)
### END SOLUTION

# %% check="balance" points=1
check.balance(answer)

# %% [markdown]
# ## 2. Far away, ten more dollars count for less
#
# This is **diminishing sensitivity**. Look at the same step of ten, further and further out.

# %%
print("a step of ten dollars   more won   more lost")
for start in (0, 10, 100, 1000):
    won, lost = value(start + 10) - value(start), value(-start - 10) - value(-start)
    print(f"{start:>6} to {start + 10:>6}      {won:>+11.3f} {lost:>+11.3f}")

# %% [markdown]
# Both columns shrink. And $\alpha$? Does a small $\alpha$ make a person more sensitive, or less?

# %%
curves = {alpha: value(z, alpha) for alpha in (0.05, 0.5, 0.88, 1.0)}
for alpha in curves:
    felt = [value(amount, alpha) for amount in (1, 10, 20)]
    print(f"alpha {alpha:<4}: winning 1, 10, 20 feels like", " ".join(f"{v:5.2f}" for v in felt))
pictures.alpha_panels(z, curves)

# %% [markdown]
# With $\alpha = 0.05$ winning 20 feels hardly better than winning 1. A small $\alpha$ asks "did I win?" and not
# "how much?": steep next to the reference point, nearly blind everywhere else. With $\alpha = 1$ every dollar
# feels alike.
#
# ## 3. Small chances feel larger than they are, and KTO drops this
#
# A chance of 1 in 1,000 is felt as more than that, one of 99 in 100 as less. The 1992 paper (Eq. 6) puts a
# **decision weight** in the place of the probability $p$; for gains its median is $\gamma = 0.61$:
#
# $$w(p) = \frac{p^{\gamma}}{\left(p^{\gamma} + (1-p)^{\gamma}\right)^{1/\gamma}}$$


# %%
def weight(p, gamma=0.61):
    up, down = p**gamma, (1 - p) ** gamma
    return up / (up + down) ** (1 / gamma)


print("chance", *(f"{p:>7}" for p in (0.001, 0.01, 0.1, 0.5, 0.8, 0.99)))
print("weight", *(f"{weight(p):7.3f}" for p in (0.001, 0.01, 0.1, 0.5, 0.8, 0.99)))

# %% [markdown] slide=["Now the ticket"]
# Now the ticket: 60 dollars for sure, or 100 with a chance of 80 in 100?

# %% slide=["text"]
print(f"sixty for sure feels like        {value(60):.2f}")
print(f"the ticket, chance taken as it is {0.8 * value(100):.2f}")
print(f"the ticket, chance weighted       {weight(0.8) * value(100):.2f}")

# %% [markdown]
# The person of 1992 takes the 60. But see the middle line: with the bent money alone, the ticket wins. It is the
# *weighting* that turns the choice.
#
# And just this piece is not in KTO: people do not see the chances of all the replies that a model might give, so the
# paper sets weighting aside (v4, section 3.1). Yet its own example rests on it.

# %% [markdown]
# ## 4. In KTO the outcome is a log-ratio
#
# A language model replies; someone gives a thumb. Two models take part: the **policy**, which learns, and the
# **reference model**, a frozen copy from before training. If the reference model gives
# a reply the probability 0.10, and after some training the policy gives it 0.20, then its **log-ratio** is
# $r = \ln(0.20 / 0.10) = 0.69$. That is the "outcome" of a reply: above 0, it has become likelier. The unit, the
# *nat*, is that of the natural logarithm.
#
# Careful: the reference *model* is a network. The reference *point* $z_0$ is a number on the axis of $r$, from which
# gains and losses are counted. So $r - z_0$ stands where $z - z_{ref}$ stood. [Lesson 06](06_kto_loss.ipynb)
# computes both.

# %% [markdown]
# ## 5. The power of 1992 cannot be trained on
#
# Why not use $v(r - z_0)$ as it is? Training climbs along slopes, and the slope of a power is
# $v'(z) = \alpha z^{\alpha - 1}$. At the first step the policy *is* the reference model: $r = 0$ for every reply, and
# $z_0 = 0$ too. Look at the slope there, and far out. Then let one reply get a thumb up and a thumb down at the start.


# %%
def slope(z, alpha=0.88):
    with np.errstate(divide="ignore"):  # 0 to a negative power
        return alpha * np.float64(z) ** (alpha - 1)


h, distances = 1e-5, (0.0, 1.0, 10.0, 100.0)
assert abs(slope(10) - (value(10 + h) - value(10 - h)) / (2 * h)) < 1e-6
print("distance (nats) ", *(f"{z:7}" for z in distances))
print("slope           ", *(f"{slope(z):7.4f}" for z in distances))
print(f"of the slope at 1 nat, {slope(100.0) / slope(1.0):.2f} are left at 100")
with np.errstate(invalid="ignore"):
    print(f"two opposite pulls at 0: {slope(0)} and {-2.25 * slope(0)} add up to {slope(0) - 2.25 * slope(0)}")

# %% [markdown] slide=["Far out the slope", "And at the start", "In place of the power", "$$v"]
# Two troubles. Far out the slope hardly falls, so one reply can be pushed for ever. And at the start it is infinite:
# two opposite pulls give a `nan` (not a number), which spoils every parameter that it updates. The paper, too, gives
# numerical instability as its reason for another curve (v4, at Eq. 8).
#
# ## 6. KTO takes the logistic, and the label picks the branch
#
# In place of the power stands the **logistic** $\sigma(u) = 1/(1 + e^{-u})$, an S from 0 to 1. $\beta$, here 0.1, says
# how fast it saturates. For a thumb up, the value of a reply is
#
# $$v = \lambda_D\,\sigma(\beta(r - z_0))$$
#
# For a thumb down the wish is the opposite, so $z_0 - r$ stands in the place of $r - z_0$, and $\lambda_U$ in
# the place of $\lambda_D$. (D for *desirable*, U for *undesirable*; both weights are 1 unless you set them.)


# %%
def sigmoid(u):
    return 1 / (1 + np.exp(-u))


print("u        ", *(f"{u:7}" for u in (-5.0, -1.0, 0.0, 1.0, 5.0)))
print("sigmoid  ", *(f"{sigmoid(u):7.4f}" for u in (-5.0, -1.0, 0.0, 1.0, 5.0)))

# %% [markdown]
# ### Exercise 1.2 · The label picks the branch
# ★★☆ · 6 minutes · repair a function
#
# Somebody wrote $v$ like this. It is right for a liked reply that has become likelier, as long as $z_0 = 0$.
# Repair its two faults.
#
# ```python
# def broken_kto_value(r, label, z0=0.0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
#     if r > z0:
#         return desirable_weight * sigmoid(beta * r - z0)
#     return undesirable_weight * sigmoid(z0 - beta * r)
# ```


# %% exercise="kto_value"
def my_kto_value(r, label, z0=0.0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    """Value v of one reply: r and z0 in nats, label True for a thumb up."""
    ### BEGIN SOLUTION
    if label:
        return desirable_weight * sigmoid(beta * (r - z0))
    return undesirable_weight * sigmoid(beta * (z0 - r))
    ### END SOLUTION


# %% check="kto_value" points=2
check.kto_value(my_kto_value)

# %% [markdown]
# ### What the value says

# %%
kto_value = check.yours_or_ours("kto_value")
print("r - z0 (nats)", *(f"{r:7}" for r in (-50.0, -10.0, 0.0, 10.0, 50.0)))
print("thumb up     ", *(f"{kto_value(r, True):7.3f}" for r in (-50.0, -10.0, 0.0, 10.0, 50.0)))
print("thumb down   ", *(f"{kto_value(r, False):7.3f}" for r in (-50.0, -10.0, 0.0, 10.0, 50.0)))

# %% [markdown]
# Mind the middle column: "nothing has changed" is worth one half, not 0. The worst case is 0. The **loss** of a
# reply is its weight minus $v$, so with both weights 1 it is 0.5 before the first step.
#
# And the slopes? Measure them by small differences.

# %%
print("r - z0 (nats)", *(f"{r:9}" for r in distances))
for label in (True, False):
    pulls = [(kto_value(r + h, label) - kto_value(r - h, label)) / (2 * h) for r in distances]
    print("thumb up     " if label else "thumb down   ", *(f"{pull:9.6f}" for pull in pulls))

# %% [markdown]
# At 0 both pull with $\beta/4 = 0.025$, in opposite directions: they cancel. Far away a reply is let go.
#
# ## 7. Two of the four pieces survive
#
# The S-shape does: both curves are **concave** (bend down) in gains and **convex** (bend up) in losses. Second
# differences show it. The last number compares losing 10 with winning 10.

# %%
gains, losses = np.linspace(0, 60, 121), np.linspace(-60, 0, 121)
for name, curve in {"1992": value, "KTO ": lambda z: kto_value(z, True)}.items():
    bends = [np.diff([curve(x) for x in side], 2) for side in (gains, losses)]
    ratio = (curve(0.0) - curve(-10.0)) / (curve(10.0) - curve(0.0))
    print(f"{name} concave: {np.all(bends[0] < 0)}, convex: {np.all(bends[1] > 0)}, loss/gain {ratio:.2f}")

# %% [markdown] slide=["With the default weights"]
# With the default weights loss aversion is gone: 1.00 in the place of 2.25.
#
# | piece | 1992 | KTO |
# |---|---|---|
# | reference point | what you expected | **kept**: $z_0$ |
# | far away counts for less | power $\alpha = 0.88$ | **kept**, by a logistic with $\beta$, and bounded |
# | loss aversion | $\lambda = 2.25$ | two weights on *labels*, by default 1 and 1, which the paper calls neutral |
# | chances | weighted | dropped |

# %%
reveal("pieces_left", "c")
r = np.linspace(-60, 60, 241)
liked, disliked = ([kto_value(point, label) for point in r] for label in (True, False))

# %% slide=["figure"]
fig, (human, kto) = plt.subplots(1, 2, figsize=(8.8, 3.9))
human.plot(r, value(r))
kto.plot(r, liked, "-", r, disliked, "--")
kto.set(xlabel="r - z0 (nats)", ylabel="value", title="KTO: smooth, bounded", xticks=[-50, 0, 50])
label_line(kto, 25, 0.85, "thumb up", color=UP)
label_line(kto, 25, 0.15, "thumb down", color=DOWN)
human.set(xlabel="distance (dollars)", ylabel="felt value", title="1992: kinked, no limit")
save_figure(fig, "01_bridge", alt="Left, the kinked power of 1992. Right, KTO's two logistic curves from 0 to 1.")
plt.show()

# %% [markdown]
# On the right the **label** picks the curve, not the sign of $r - z_0$: a liked reply stays on the solid line.
#
# ## 8. What goes wrong: "$\lambda_D = 1.33$ is loss aversion"
#
# Tutorials set $\lambda_D = 1.33$ on thumbs *up*, $\lambda_U = 1$ on thumbs down, and call this loss aversion.
# Offer three persons a fair coin, win 10 or lose 10.

# %%
for name, aversion in {"1992": 2.25, "both alike": 1.0, "gains 1.33": 1 / 1.33}.items():
    coin = 0.5 * value(10) + 0.5 * value(-10, loss_aversion=aversion)
    choice = "refuses" if coin < -1e-9 else "accepts" if coin > 1e-9 else "does not care"
    print(f"{name:<10}   loss/gain = {aversion:.2f}   coin {coin:+.2f}   {choice}")
print(f"weight 1.33 on 3 thumbs up, 1 on 5 down: {1.33 * 3 / 5:.3f} in total, up to down")

moved = {(r, label): kto_value(r, label, undesirable_weight=2.25) for label in (True, False) for r in (-10, 0, 10)}
rises, falls = moved[10, True] - moved[0, True], moved[0, True] - moved[-10, True]
print(f"weight 2.25 on thumbs down: a liked reply falls by 10 / rises by 10: {falls / rises:.2f}")
print(f"a disliked one falls by 10 / a liked one rises by 10: {(moved[-10, False] - moved[0, False]) / rises:.2f}")

# %% [markdown]
# The symptom: loss aversion refuses the coin, 1.33 on gains accepts it. Where the number comes from, and what the paper
# says:
#
# 1. It is 4/3, the upper end of a range for $\lambda_D n_D / (\lambda_U n_U)$ with $n_D$ thumbs up and $n_U$ down.
#    With 3 up and 5 down the ratio is 0.798: in total the *down* side is heavier.
# 2. The range was found by trying, and its authors say that it leans to gains, unlike Kahneman and Tversky.
# 3. One data mix liked 4:3 best, another 1:1 (v4, appendix C).
# 4. In the authors' table, 1.33 scored 45.4 on BBH (a reasoning test) where 1 scored 52.6 (v4, one run each).
# 5. It does say that its two weights *control* loss aversion. Both are true, see the last two lines: a weight belongs
#    to a *label*, so a liked reply that falls hurts no more than one that rises pleases. Only at the end of training,
#    when liked replies lie above $z_0$ and disliked ones below, do the weights multiply gains and losses as in 1992.
#
# So set the weights from your counts ([lesson 06](06_kto_loss.ipynb)). Asked about it, say both halves.

# %% [markdown]
# ## Recap
#
# - Outcomes are felt as distances from a reference point, losses 2.25 times as strongly.
# - Far away, more counts for less. A small $\alpha$ is steep only next to the reference point.
# - Small chances weigh too much. KTO has no use for this.
# - The power has an infinite slope where training starts; the logistic has $\beta/4$.
# - KTO keeps the reference point and the S-shape. The label picks the branch. Its weights *can* express loss aversion;
#   by default they do not, and the recommended band leans to gains.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions sigma_of_zero label_selects_branch origin_of_133}}

# %% [markdown]
# ## Sources
#
# - Tversky and Kahneman (1992), "Advances in Prospect Theory": value (Eq. 5), weighting (Eq. 6), the medians.
# - KTO, arXiv 2402.01306. v1: the ticket (v4's print of it has a slip), the loss (Eq. 7, whose $r$ contains
#   $\beta$), the range [1, 4/3] (section 4.1, Eq. 8). v4: the loss (Eq. 8), the range [1, 3/2] (Eq. 9),
#   appendix C, and the ablations on UltraFeedback (the row $\lambda_D = 1.33$).
#
# Next: [02](02_tiny_llama.ipynb), a language model small enough to see through.
