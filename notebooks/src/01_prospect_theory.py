# %% [markdown]
# # 01 · Prospect theory: how people feel gains and losses
#
# Compute how people feel gains, losses and chances, and see which parts of that theory KTO keeps.

# %% [markdown]
# **You will be able to**
# - compute how an outcome feels, and show diminishing sensitivity and loss aversion in numbers;
# - weigh chances as people do, and find where they start to weigh them too little;
# - explain why one person buys both insurance and lottery tickets;
# - say what KTO (Kahneman-Tversky Optimization) took from this theory, and what it left behind.
#
# **You need first** powers such as $x^{0.88}$ and a little NumPy. No torch, no earlier lesson; section 7 explains
# its words about language models.
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything**
#
# You may have 60 dollars for sure, or a ticket that pays 100 dollars with a chance of 80 in 100 and nothing
# otherwise. On average the ticket pays 80.
#
# Which would you take? And a person with the median parameters that Tversky and Kahneman measured in 1992:
# from which sure amount on would they give the ticket away? The cell below the imports takes your guess, section 5
# computes it.

# %%
import io
import sys

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np

from kto_course import check, predict, reveal
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, label_line, save_figure, use_course_style

use_course_style()

# %%
choices = ["about 45 dollars", "about 57 dollars", "about 68 dollars", "about 80 dollars"]
predict("ticket_price", "From which sure amount on is the ticket given away?", choices, guess=None, confidence=None)

# %% [markdown]
# ## 1. A reference point
#
# Two people each get 3,000 dollars this month. One expected 2,500, the other 3,500. The money is the same, the
# feeling is not: what you feel is the **distance from a reference point**.
#
# That distance is then bent. Tversky and Kahneman (1992, Eq. 5) raise it to a power $\alpha$ and multiply
# losses by a **loss aversion** $\lambda$:
#
# $$v(z) = \begin{cases} (z - z_{ref})^{\alpha} & \text{if } z \ge z_{ref} \\
# -\lambda\,(z_{ref} - z)^{\alpha} & \text{if } z < z_{ref} \end{cases}$$
#
# The medians they report are $\alpha = 0.88$ and $\lambda = 2.25$.


# %%
def value(z, alpha=0.88, loss_aversion=2.25, reference=0.0):
    distance = np.asarray(z, dtype=float) - reference
    return np.abs(distance) ** alpha * np.where(distance < 0, -loss_aversion, 1.0)


for expected in (2500, 3500):
    print(f"paid 3000, expected {expected}: feels like {value(3000, reference=expected):+.1f}")
print(f"winning 10 feels like {value(10):.3f}")
print(f"losing  10 feels like {value(-10):.3f}, that is {-value(-10) / value(10):.2f} times as strong")

# %% [markdown]
# The same 500 dollars, on two sides of the reference point. The unit is "felt value". It has no name of its
# own, and only comparisons mean anything: bigger, smaller, how many times.

# %%
z = np.linspace(-20, 20, 401)
fig, ax = plt.subplots()
ax.plot(z[z >= 0], value(z[z >= 0]), color=UP, ls="-")
ax.plot(z[z <= 0], value(z[z <= 0]), color=DOWN, ls="--")
for x, side in ((10, "winning 10"), (-10, "losing 10")):
    ax.plot(x, value(x), "o", color=UP if x > 0 else DOWN)
    ax.annotate(f"{side}: {value(x):.1f}", (x, value(x)), xytext=(8, -16), textcoords="offset points")
ax.axhline(0, color=NEUTRAL, lw=0.8)
ax.axvline(0, color=NEUTRAL, lw=0.8)
ax.annotate("reference point", (0, 0), xytext=(-116, 8), textcoords="offset points", color=NEUTRAL)
ax.set(xlabel="distance from the reference point (dollars)", ylabel="felt value", ylim=(-34, 17))
ax.set_title("Losing 10 hurts more than winning 10 pleases")
save_figure(
    fig,
    "01_value_function",
    alt="The value function of 1992. To the right of the reference point it rises and bends slightly "
    "downwards, reaching 7.6 at a gain of 10; to the left it falls 2.25 times as steeply, reaching "
    "-17.1 at a loss of 10.",
)
plt.show()

# %% [markdown]
# ### Exercise 1.1 · What makes up for a loss
# ★★☆ · 5 minutes · predict a number
#
# A coin: heads, you win $x$ dollars; tails, you lose 10. How large must $x$ be so that the win feels exactly as
# strong as the loss? Take $\alpha = 0.88$ and $\lambda = 2.25$. Solve it on paper, or by trying with `value`, to
# the nearest 10 cents.

# %% exercise="balance"
answer = ...  # a number of dollars
### BEGIN SOLUTION
answer = (2.25 * 10**0.88) ** (1 / 0.88)
### END SOLUTION

# %% check="balance" points=1
check.balance(answer)

# %% [markdown]
# ## 2. Diminishing sensitivity, computed
#
# The first ten dollars are felt more than the next ten. This is **diminishing sensitivity**, and it holds on
# both sides. Look at the same step of ten, further and further out.

# %%
print("a step of ten dollars   more won   more lost")
for start in (0, 10, 100, 1000):
    won, lost = value(start + 10) - value(start), value(-start - 10) - value(-start)
    print(f"{start:>6} to {start + 10:>6}      {won:>+11.3f} {lost:>+11.3f}")

# %% [markdown]
# Both columns shrink towards zero. In calculus: the slope $v'(z) = \alpha z^{\alpha - 1}$ falls as $z$ grows.
# Check the formula against a small difference before you trust it.


# %%
def slope(z, alpha=0.88):
    return alpha * z ** (alpha - 1)


h = 1e-5
for z in (0.5, 10.0, 1000.0):
    measured = (value(z + h) - value(z - h)) / (2 * h)
    print(f"z = {z:>6}: slope {slope(z):.4f}, measured {measured:.4f}")
    assert abs(slope(z) - measured) < 1e-6

# %% [markdown]
# What does $\alpha$ do? Does a small $\alpha$ make a person more sensitive, or less? Compute it.

# %%
print("alpha   v(10)   v(20)   slope at 0.001   slope at 10")
for alpha in (0.05, 0.1, 0.5, 0.88, 1.0):
    print(
        f"{alpha:<5}  {value(10, alpha):6.2f}  {value(20, alpha):6.2f}"
        f"  {slope(0.001, alpha):15.2f}  {slope(10.0, alpha):12.4f}"
    )

# %% [markdown]
# Read the row $\alpha = 0.1$: very steep close to the reference point, but 10 feel like 1.26 and 20 like 1.35.
# A small $\alpha$ asks "did I win?" and not "how much?". With $\alpha = 1$ every dollar feels alike.
#
# At which $z$ does the slope for 0.88 fall below 1? **Bisection** finds it, here and later: halve an interval
# and keep the half in which the sign changes.


# %%
def bisect(f, low, high, steps=60):
    """A point between low and high where f changes sign."""
    assert f(low) * f(high) < 0, "f must have different signs at the two ends"
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if f(low) * f(middle) > 0 else (low, middle)
    return (low + high) / 2


found = bisect(lambda z: slope(z) - 1, 0.01, 10)
exact = 0.88 ** (1 / (1 - 0.88))  # solve alpha * z^(alpha - 1) = 1 on paper
print(f"bisection {found:.4f}, on paper {exact:.4f}, equal to ten digits: {abs(found - exact) < 1e-10}")

# %% [markdown]
# Below 0.345 dollars (0.3446) the person with 0.88 is more sensitive than one with $\alpha = 1$, above it less.
# So "sensitive" needs an address: *where*?
#
# Turn the knob yourself. Drag alpha to 0.1: the curve becomes a step. (Where Python cannot run, on GitHub or on
# paper, you see a line of text instead of the slider. The figure after it shows the same.)


# %%
def value_curve(ax, alpha):
    z = np.linspace(-20, 20, 801)
    ax.plot(z[z >= 0], value(z[z >= 0], alpha), color=UP, ls="-")
    ax.plot(z[z <= 0], value(z[z <= 0], alpha), color=DOWN, ls="--")
    ax.set(xlim=(-20, 20), ylim=(-48, 24), title=f"alpha = {alpha:.2f}")


def draw(alpha):
    fig, ax = plt.subplots(figsize=(5, 3))
    value_curve(ax, alpha)
    ax.set(xlabel="distance from the reference point (dollars)", ylabel="felt value")
    png = io.BytesIO()
    fig.savefig(png, format="png", dpi=100)
    plt.close(fig)
    return png.getvalue()


# %%
slider = widgets.FloatSlider(value=0.88, min=0.05, max=1.0, step=0.01, description="alpha")
picture = widgets.Image(value=draw(slider.value), format="png", width=500)  # its own size, so sharp


def redraw(change):
    picture.value = draw(change["new"])


slider.observe(redraw, names="value")
widgets.VBox([slider, picture])

# %%
fig, axes = plt.subplots(2, 2, figsize=(7.2, 5.2), sharex=True, sharey=True)
for ax, alpha in zip(axes.flat, (0.05, 0.5, 0.88, 1.0), strict=True):
    value_curve(ax, alpha)
fig.supxlabel("distance from the reference point (dollars)")
fig.supylabel("felt value")
fig.suptitle("Small alpha: a jump at the reference point, then nearly flat", fontweight="bold")
save_figure(
    fig,
    "01_alpha_panels",
    alt="Four value functions. At alpha 0.05 the curve jumps at the reference point and is nearly flat on "
    "both sides; at 0.5 it bends strongly; at 0.88 it bends slightly; at 1 it is two straight lines "
    "with a kink. Losses are 2.25 times as steep in all four.",
)
plt.show()

# %% [markdown]
# ## 3. One exponent or two
#
# With one exponent, $-v(-z)/v(z)$ is 2.25 at every size. The theory allows a separate exponent for losses.
# (The 1992 paper calls it $\beta$. It has nothing to do with KTO's $\beta$.) Then the ratio depends on the
# size. "Loss aversion is 2.25" is a clean statement only because both medians of 1992 were 0.88.

# %%
for amount in (1, 10, 1000):
    one = -value(-amount) / value(amount)
    two = -value(-amount, alpha=0.80) / value(amount, alpha=0.88)
    print(f"{amount:>5} dollars: ratio {one:.2f} with one exponent, {two:.2f} with 0.80 for losses")

# %% [markdown]
# ### Exercise 1.2 · A stranger's losses
# ★★☆ · 4 minutes · read a curve
#
# The same ratio for a stranger, drawn against the amount. The grey line is the person of 1992. In what does the
# stranger differ, all else being equal?
#
# - a) a larger loss aversion $\lambda$
# - b) a smaller exponent for losses than for gains
# - c) a larger exponent for losses than for gains
# - d) two equal exponents, both larger than 0.88
# - e) another reference point, from which $z$ is measured

# %%
from kto_course.checks.lesson_01 import mystery_ratio

amount = np.geomspace(1, 1000, 61)
fig, ax = plt.subplots(figsize=(6.4, 3.4))
ax.plot(amount, mystery_ratio(amount), color=DOWN)
ax.plot(amount, -value(-amount) / value(amount), color=NEUTRAL, ls="-", lw=1.2)
label_line(ax, 12, 3.0, "a stranger", color=DOWN)
label_line(ax, 100, 2.32, "the person of 1992", color=NEUTRAL)
ax.set(xscale="log", xlabel="amount (dollars, log scale)", ylabel="loss / gain", ylim=(1.9, 3.9))
ax.set_title("How many times as strong is an equal loss?")
save_figure(
    fig,
    "01_stranger",
    alt="How many times as strong as a gain an equal loss is felt, against the amount from 1 to 1000 dollars, "
    "on a log scale. For the person of 1992 it is 2.25 at every amount. The stranger begins at the same "
    "2.25 at 1 dollar and rises steadily to about 3.65 at 1000 dollars.",
)
plt.show()

# %% exercise="mystery_person"
answer = ...  # a letter in quotes
### BEGIN SOLUTION
answer = "c"
### END SOLUTION

# %% check="mystery_person" points=1
check.mystery_person(answer)

# %% [markdown]
# ## 4. Chances are bent as well
#
# A chance of 1 in 1,000 is felt as more than that, a chance of 99 in 100 as less. The 1992 paper (Eq. 6) puts
# a **decision weight** in the place of the probability $p$:
#
# $$w(p) = \frac{p^{\gamma}}{\left(p^{\gamma} + (1-p)^{\gamma}\right)^{1/\gamma}}$$
#
# Gains and losses have separate exponents, $\gamma$ and $\delta$. The medians reported are 0.61 and 0.69.


# %%
def weight(p, gamma=0.61):
    p = np.asarray(p, dtype=float)
    up, down = p**gamma, (1 - p) ** gamma
    return up / (up + down) ** (1 / gamma)


print("chance   gains (0.61)   losses (0.69)")
for p in (0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0):
    print(f"{p:<6}   {weight(p):12.4f}   {weight(p, 0.69):13.4f}")

# %% [markdown]
# Small chances grow and large ones shrink. Never (0) and always (1) stay put. Somewhere the curve crosses the
# diagonal $w(p) = p$. Bisection finds where, for the two measured exponents and for 0.5.

# %%
crossing = {gamma: bisect(lambda p, g=gamma: weight(p, g) - p, 0.01, 0.99) for gamma in (0.5, 0.61, 0.69)}
for gamma, p in crossing.items():
    print(f"gamma {gamma}: weights are too large below p = {p:.4f}, too small above")
    assert abs(weight(p, gamma) - p) < 1e-12

# %% [markdown]
# If you have read elsewhere that 0.5 crosses near 0.23, or have seen $\gamma = 2$ drawn as an example, test it.

# %%
p = np.linspace(0, 1, 10_001)
print(f"gamma 0.5: a chance of 0.23 weighs {weight(0.23, 0.5):.4f}")
print("gamma 2: some chance weighs too much:", bool(np.any(weight(p[1:-1], 2.0) > p[1:-1])))

# %% [markdown]
# At 0.23 the weight is still above the diagonal, and for $\gamma = 2$ every chance weighs too little: no
# person of 1992. So keep $\gamma$ below 1.
#
# But not too far below. A larger chance should never weigh less. Does the curve always rise? And if not, from
# which $\gamma$ on? Bisection again, over $\gamma$, on the smallest step of the curve.

# %%
for gamma in (0.61, 0.28, 0.25):
    falling = p[1:][np.diff(weight(p, gamma)) < 0]
    where = f"falls from {falling.min():.3f} to {falling.max():.3f}" if falling.size else "always rises"
    print(f"gamma {gamma}: {where}")
print(f"gamma 0.25: a chance of 0.01 weighs {weight(0.01, 0.25):.4f}, one of 0.07 {weight(0.07, 0.25):.4f}")
limit = bisect(lambda gamma: np.diff(weight(p, gamma)).min(), 0.2, 0.4)
print(f"the curve rises everywhere only for gamma above {limit:.3f}")

# %% [markdown]
# At 0.25 a chance seven times as large weighs *less*. Ingersoll (2007) warned about this. Below 0.279 the
# form stops making sense as a weight. The right panel enlarges the piece that falls.

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 4.2), sharex=True, sharey=True)
line = {"arrowprops": {"arrowstyle": "-", "color": NEUTRAL}}
places = {0.5: (0.38, 0.03, UP, "-"), 0.61: (0.5, 0.18, DOWN, "--"), 0.69: (0.03, 0.6, ACCENT, "-.")}
for gamma, (x, y, colour, style) in places.items():
    left.plot(p, weight(p, gamma), color=colour, ls=style)
    text, point = f"{gamma} crosses at {crossing[gamma]:.4f}", (crossing[gamma], crossing[gamma])
    left.annotate(text, point, xytext=(x, y), color=colour, **line)
right.plot(p, weight(p, 0.25), color=DOWN)
inset = right.inset_axes([0.2, 0.5, 0.5, 0.36], xlim=(0, 0.4), ylim=(0.095, 0.11), yticks=[0.1, 0.11])
inset.plot(p, weight(p, 0.25), color=DOWN)
inset.set_title("enlarged: it dips", fontsize=9, color=DOWN)
inset.tick_params(labelsize=8)
right.indicate_inset_zoom(inset, edgecolor=NEUTRAL)
left.plot([0, 1], [0, 1], color=NEUTRAL, lw=0.8, ls="-")
for ax, title in ((left, "Small chances weigh too much"), (right, "Gamma 0.25: no longer a weight")):
    ax.set(xlabel="chance p", title=title, aspect="equal")
left.set_ylabel("decision weight w(p)")
save_figure(
    fig,
    "01_weighting",
    alt="Decision weight against chance. Left, with the diagonal: for gamma 0.5, 0.61 and 0.69 the "
    "curve lies above it for small chances and crosses it at 0.2781, 0.3388 and 0.3776. Right: "
    "for gamma 0.25 it shoots up to about 0.107, then, as an enlarged window shows, dips to about 0.098 "
    "before it rises again.",
)
plt.show()

# %% [markdown]
# ## 5. The value of a gamble
#
# Now put the two curves together. The simplest way, from 1979, is **separable**: each outcome's value times the
# weight of its own chance, added up, $V = \sum_i w(p_i)\,v(z_i)$. Put the weights of 1992 into it for now; for
# the ticket of the opening question it does no harm.

# %%
ticket = weight(0.8) * value(100) + weight(0.2) * value(0)
sure = value(60)
swap = bisect(lambda amount: value(amount) - ticket, 1, 100)
print(f"the ticket feels like {ticket:.2f}, sixty dollars feel like {sure:.2f}")
print(f"the ticket is given away for any sure amount above {swap:.2f} dollars")
reveal("ticket_price", {45: "a", 57: "b", 68: "c", 80: "d"}[round(float(swap))])

# %% [markdown]
# They take the 60, and would take anything above 56.75 for a ticket that pays 80 on average. How close was
# your guess?
#
# The separable sum has a flaw that shows when there are many outcomes. Ten prizes, from 91 to 100 dollars,
# each with a chance of 1 in 10. Surely not worth more than a sure 100.

# %%
prizes, chances = np.arange(91, 101), np.full(10, 0.1)
separable = np.sum(weight(chances) * value(prizes))
print(f"the ten weights add up to {weight(chances).sum():.3f}")
print(f"the gamble feels like {separable:.1f}, a sure 100 feels like {value(100):.1f}")

# %% [markdown]
# Absurd: never more than 100, and felt as better than 100. Each small chance is blown up, and nothing makes
# the weights add up to 1.
#
# In 1979 the sum was meant for at most two outcomes other than 0. The remedy of 1992 is **cumulative**: do not
# bend the chance of each prize, bend the chance of *at least* this prize. The weight of one prize is what it
# adds. With the best prize first,
#
# $$\pi_i = w(p_1 + \dots + p_i) - w(p_1 + \dots + p_{i-1})$$

# %% [markdown]
# ### Exercise 1.3 · The weight of at least this much
# ★★☆ · 8 minutes · fill in a function
#
# Compute all $\pi_i$ before you read ours below. Nothing is reached before the first prize, so its second term
# is 0. Rounding can push the last sum a little past 1, where $w$ has no value; cut it off there.


# %% exercise="rank_weights"
def my_rank_weights(probabilities, w):
    """Decision weights pi (n,) of n outcomes.

    probabilities: NumPy array (n,), the best prize first; w: a function for numbers or arrays between 0 and 1.
    """
    ### BEGIN SOLUTION
    reached = np.minimum(np.cumsum(probabilities), 1)
    return np.diff(w(reached), prepend=0.0)
    ### END SOLUTION


# %% check="rank_weights" points=3
check.rank_weights(my_rank_weights)

# %% [markdown]
# Ours takes the exponent $\gamma$ in the place of the function.


# %%
def rank_weights(probabilities, gamma):
    """Decision weights, the most extreme outcome first."""
    reached = np.clip(np.cumsum(probabilities), 0, 1)  # rounding may push the last sum past 1
    return np.diff(weight(reached, gamma), prepend=0.0)


ranked = rank_weights(chances, 0.61)
print("best to worst prize:", " ".join(f"{w:.3f}" for w in ranked))
print(f"they add up to {ranked.sum():.3f}")

# %%
fig, ax = plt.subplots(figsize=(7.2, 3.6))
ax.bar(prizes, ranked[::-1], color=UP, width=0.7)
ax.axhline(0.1, color=NEUTRAL, lw=1.2, ls="-")
ax.axhline(weight(0.1), color=DOWN, lw=1.6, ls="--")
label_line(ax, 93.0, weight(0.1) + 0.014, f"separable: all alike, total {10 * weight(0.1):.3f}", color=DOWN)
label_line(ax, 93.0, 0.114, "the chance itself", color=NEUTRAL)
label_line(ax, 93.0, 0.235, "bars, cumulative: total 1", color=UP)
ax.set(xlabel="prize (dollars)", ylabel="decision weight", xticks=prizes)
ax.set_title("The cumulative form overweights the ends")
save_figure(
    fig,
    "01_rank_weights",
    alt="Decision weights of ten equally likely prizes from 91 to 100 dollars. In the cumulative form of "
    "1992 the worst prize gets about 0.29 and the best about 0.19, the middle ones well below 0.1; in "
    "the separable form each gets 0.186.",
)
plt.show()

# %% [markdown]
# Only the ends are blown up, most of all the worst prize and the best. The middle pays for it. (Now you see
# why $w$ must not fall: a falling piece would give a prize a weight *below zero*.)
#
# The whole thing, for gains and losses together: losses are ranked from the worst inwards, with $\delta$ and,
# if you like, their own exponent.


# %%
def prospect_value(
    outcomes,
    probabilities,
    alpha=0.88,
    loss_aversion=2.25,
    reference=0.0,
    gamma=0.61,
    delta=0.69,
    alpha_loss=None,
    cumulative=True,
):
    z, p = np.asarray(outcomes, dtype=float), np.asarray(probabilities, dtype=float)
    alpha_loss = alpha if alpha_loss is None else alpha_loss
    total = 0.0
    for side, power, bend in ((z >= reference, alpha, gamma), (z < reference, alpha_loss, delta)):
        order = np.argsort(-np.abs(z[side] - reference))  # most extreme first
        side_z, side_p = z[side][order], p[side][order]
        weights = rank_weights(side_p, bend) if cumulative else weight(side_p, bend)
        total += np.sum(weights * value(side_z, power, loss_aversion, reference))
    return float(total)


print(f"ten prizes, separable:  {prospect_value(prizes, chances, cumulative=False):.1f}")
print(f"ten prizes, cumulative: {prospect_value(prizes, chances):.1f}")
print(f"a sure 91: {value(91):.1f}, a sure 100: {value(100):.1f}")
both = [prospect_value([100, 0], [0.8, 0.2], cumulative=c) for c in (False, True)]
print(f"the ticket, both ways: {both[0]:.2f} {both[1]:.2f}")

# %% [markdown]
# The ten prizes are worth something between the worst and the best of them again. For the ticket the two
# forms agree, as they must with at most one gain and one loss: then there is nothing to rank. With more
# outcomes they differ, and the separable sum with the weights of 1992 is neither theory.

# %% [markdown]
# An independent check. Build the gamble from the bottom instead: climbing from one prize to the next adds
# $v(z_i) - v(z_{i-1})$, and you get that step with the bent chance of reaching it. Nothing is ranked from the
# top, yet the sum must be the same.
#
# And a second one: the course keeps these functions in `kto_utils.prospect`, the same mathematics plus error
# checks. From now on they are imported from there.

# %%
from kto_utils import prospect

rng = np.random.default_rng(1)
climbing, package = 0.0, 0.0
for _ in range(200):
    z, chance = np.sort(rng.uniform(0, 100, 5)), rng.dirichlet(np.ones(5))
    at_least = np.clip(chance[::-1].cumsum()[::-1], 0, 1)
    steps = np.diff(value(z), prepend=0.0)
    climbing = max(climbing, abs(np.sum(weight(at_least) * steps) - prospect_value(z, chance)))
    package = max(package, abs(prospect.prospect_value(z - 50, chance) - prospect_value(z - 50, chance)))
print(f"200 random gambles agree to 1e-9: climbing {climbing < 1e-9}, package {package < 1e-9}")
assert max(climbing, package) < 1e-9

# %% [markdown]
# ## 6. One person, insurance and a lottery ticket
#
# A lottery: 1 chance in 1,000 to win 5,000 dollars. A fire: 1 chance in 1,000 to lose 5,000 dollars. Both are
# worth 5 dollars on average, and 5 dollars is the price of the ticket and of the insurance.
#
# Someone who only fears risk buys insurance and no ticket. Someone who loves risk does the reverse. Many
# people buy both. Ask the person of 1992.


# %%
def gain_from_ticket(price, **bend):
    return prospect_value([5000 - price, -price], [0.001, 0.999], **bend)  # not playing is worth 0


def gain_from_insurance(price, **bend):
    uninsured = prospect_value([-5000, 0], [0.001, 0.999], **bend)
    return prospect_value([-price], [1.0], **bend) - uninsured


plain = {"gamma": 1.0, "delta": 1.0}
for name, gain in (("ticket", gain_from_ticket), ("insurance", gain_from_insurance)):
    print(f"{name:<9} for 5 dollars: {gain(5):+6.2f}   without weighting: {gain(5, **plain):+6.2f}")
    print(f"{name:<9} is bought up to a price of {bisect(gain, 1, 100):.2f} dollars")

# %% [markdown]
# Above zero means: buys. One person with one set of parameters buys both, far above the fair price. Without
# weighting ($\gamma = \delta = 1$) they buy *neither*: the blown-up chance of 1 in 1,000 turns both decisions.
#
# For likely events it all turns round. Compare, for winning or losing 100 dollars, the sure amount that feels
# the same with the average. If it lies above, they like the gamble; if below, they would rather be rid of it.


# %%
def sure_amount(p, gamma):
    return 100 * weight(p, gamma) ** (1 / 0.88)  # v(sure) = w(p) v(100), solved for sure


for side, gamma in (("winning", 0.61), ("losing", 0.69)):
    turn = bisect(lambda p, g=gamma: sure_amount(p, g) - 100 * p, 0.01, 0.9)
    print(f"{side:<7} 100: the attitude turns at p = {turn:.3f}, where w(p) = {weight(turn, gamma):.3f}")

# %% [markdown]
# Both turn near 0.24, not where $w$ crosses the diagonal (0.3388 and 0.3776). There the chance is still felt as
# too large, but the bent money ($\alpha = 0.88$) works against it.

# %%
p = np.linspace(0, 1, 1001)
sure_gain, sure_loss = sure_amount(p, 0.61), -sure_amount(p, 0.69)
fig, ax = plt.subplots(figsize=(7.6, 4.2))
ax.plot(p, sure_gain - 100 * p, color=UP, ls="-")
ax.plot(p, sure_loss + 100 * p, color=DOWN, ls="--")
ax.axhline(0, color=NEUTRAL, lw=0.8)
label_line(ax, 0.06, 9, "lottery: rare gain, overpaid", color=UP)
label_line(ax, 0.02, -8, "insurance: rare loss,\noverpaid to avoid", color=DOWN)
label_line(ax, 0.54, 20, "gambles on to dodge a likely loss", color=DOWN)
label_line(ax, 0.4, -20, "takes less for\na likely gain", color=UP)
ax.set(xlabel="chance p of winning or losing 100 dollars", ylabel="sure amount minus average (dollars)")
ax.set_ylim(-28, 28)
ax.set_title("Four attitudes to risk from one set of parameters")
save_figure(
    fig,
    "01_fourfold",
    alt="Sure amount that feels like a gamble, minus the gamble's average, against the chance of winning or "
    "losing 100 dollars. Gains: positive for rare wins, strongly negative for likely ones. Losses: the "
    "mirror pattern, negative for rare losses and positive for likely ones.",
)
plt.show()

# %% [markdown]
# ## 7. The bridge to KTO
#
# A language model answers a question; someone gives the reply a thumb, up or down. Two models take part: the
# **policy**, which learns, and the **reference model**, a frozen copy from before training. Suppose the reference
# model gives a reply the probability 0.10, and after some training the policy gives it 0.20.

# %%
print(f"log-ratio r = ln(0.20 / 0.10) = {np.log(0.20 / 0.10):.2f} nats")

# %% [markdown]
# This **log-ratio** $r$ is the "outcome" of a reply: above 0, the reply has become likelier. Its unit, the *nat*,
# is that of the natural logarithm.
#
# Careful: the reference *model* is a network. The reference *point* $z_0$ is a number on the axis of $r$, the mark
# from which gains and losses are counted. So $r - z_0$ stands where $z - z_{ref}$ stood.
# [Lesson 06](06_kto_loss.ipynb) computes both.

# %% [markdown]
# Why not simply use $v(r - z_0)$ with the power of 1992? Training climbs along slopes. At the first step the
# policy *is* the reference model, so $r = 0$ for every reply, and $z_0 = 0$ too. Look at the slope there, and far
# out.
#
# Beside it stands the curve that KTO takes instead, the **logistic** $\sigma(u) = 1/(1 + e^{-u})$, an S from 0
# to 1, taken at $u = \beta z$. $\beta$ says how fast it saturates; here 0.1.


# %%
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


beta = 0.1
print("distance   power, gain side   logistic")
for z in (0.0, 0.001, 1.0, 10.0, 50.0, 100.0):
    with np.errstate(divide="ignore"):  # 0 to a negative power
        power = slope(np.float64(z))
    print(f"{z:>8}   {power:16.4f}   {beta * sigmoid(beta * z) * sigmoid(-beta * z):8.6f}")

# %% [markdown]
# Two troubles with the power. At the start of training its slope is infinite. And far out it hardly falls: at
# 100 nats more than half of the slope at 1 is left, so one reply can be pushed for ever. The logistic is
# steepest at the reference point, with a finite $\beta/4 = 0.025$, and lets go far away.

# %% [markdown]
# Write $\lambda_D$ for the weight of a thumb up (D for *desirable*) and $\lambda_U$ for that of a thumb down (U
# for *undesirable*). Both are 1 unless you set them. **They are not the loss aversion $\lambda$ of section 1.**
#
# A thumb up is worth $v = \lambda_D\,\sigma(\beta(r - z_0))$ and its loss is $\lambda_D - v$. A thumb down is
# worth $v = \lambda_U\,\sigma(\beta(z_0 - r))$ and its loss is $\lambda_U - v$. The **label** picks the branch,
# not the sign of $r - z_0$.

# %% [markdown]
# ### Exercise 1.4 · The label picks the branch
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


# %%
def kto_value(r, label, z0=0.0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    if label:
        return desirable_weight * sigmoid(beta * (r - z0))
    return undesirable_weight * sigmoid(beta * (z0 - r))


print("r - z0    thumb up   thumb down")
for r in (-50.0, -10.0, 0.0, 10.0, 50.0):
    print(f"{r:>6}    {kto_value(r, True):8.3f}   {kto_value(r, False):10.3f}")

# %% [markdown]
# Mind the middle row: "nothing happened" is worth one half, not 0. The worst case is 0. (With both weights 1,
# the loss before the first step is therefore 0.5.)
#
# Now let two people judge the same reply before the first step, one thumb up, one thumb down. The two pulls
# should cancel.

# %%
with np.errstate(divide="ignore", invalid="ignore"):
    infinite = slope(np.float64(0.0))
    print(f"power:    {infinite} and {-2.25 * infinite} add up to {infinite - 2.25 * infinite}")
pulls = [(kto_value(h, label) - kto_value(-h, label)) / (2 * h) for label in (True, False)]
print(f"logistic: {pulls[0]:.3f} and {pulls[1]:.3f} add up to {sum(pulls):.3f}")
assert abs(pulls[0] - beta / 4) < 1e-6 and abs(sum(pulls)) < 1e-6

# %% [markdown]
# A `nan` (not a number) in the gradient spoils every weight that it updates. That is one way to see why KTO swaps
# the curve; the paper (v1) says only that the power function is hard to optimise.
#
# What survives? The S-shape: **concave in gains, convex in losses** (for a thumb down, read $z_0 - r$ as the
# outcome). Second differences show it: negative where a curve is concave, positive where it is convex.

# %%
gains, losses = np.linspace(0, 60, 121), np.linspace(-60, 0, 121)
curves = {"power of 1992": value, "logistic of KTO": lambda z: kto_value(z, True)}
for name, curve in curves.items():
    concave, convex = np.all(np.diff(curve(gains), 2) < 0), np.all(np.diff(curve(losses), 2) > 0)
    ratio = (curve(0.0) - curve(-10.0)) / (curve(10.0) - curve(0.0))
    print(f"{name}: concave in gains {concave}, convex in losses {convex}, loss/gain {ratio:.2f}")

# %% [markdown]
# The last number, losing 10 against winning 10, shows what is gone: 1.00 in the place of 2.25.

# %% [markdown]
# | piece | 1992 | KTO |
# |---|---|---|
# | reference point | yes | kept, $z_0$ |
# | concave in gains, convex in losses | yes | kept, and bounded |
# | power | $\alpha = 0.88$ | replaced by the logistic with $\beta$ |
# | loss aversion $\lambda$ | 2.25 | replaced by two label weights, 1 and 1 by default |
# | probability weighting $w(p)$ | yes | dropped |
#
# (The label weights are not the decision weights of section 4 either.)

# %%
r = np.linspace(-60, 60, 601)
fig, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.9))
left.plot(r[r >= 0], value(r[r >= 0]), color=UP, ls="-")
left.plot(r[r <= 0], value(r[r <= 0]), color=DOWN, ls="--")
left.axhline(0, color=NEUTRAL, lw=0.8)
left.set(xlabel="distance (dollars)", ylabel="felt value", title="1992: kinked, no ceiling")
label_line(left, 30, 10, "gains", color=UP)
label_line(left, -32, -72, "losses", color=DOWN)
right.plot(r, kto_value(r, True), color=UP, ls="-")
right.plot(r, kto_value(r, False), color=DOWN, ls="--")
right.plot(0, 0.5, "o", color=NEUTRAL)
right.set(xlabel="r - z0 (nats)", ylabel="value", ylim=(-0.05, 1.12), title="KTO: smooth, bounded")
label_line(right, 24, 1.03, "thumb up", color=UP)
label_line(right, -58, 1.06, "thumb down", color=DOWN)
for ax in (left, right):
    ax.axvline(0, color=NEUTRAL, lw=0.8)
save_figure(
    fig,
    "01_bridge",
    alt="Left: the power value function of 1992, with a kink at the reference point and no upper or lower "
    "limit. Right: KTO's two logistic curves, rising for a thumb up and falling for a thumb down, both "
    "between 0 and 1 and both one half at the reference point.",
)
plt.show()

# %% [markdown]
# ## 8. What goes wrong: "$\lambda_D = 1.33$ is loss aversion"
#
# You will meet code that sets $\lambda_D = 1.33$ on thumbs *up*, $\lambda_U = 1$ on thumbs down, and calls this
# loss aversion. It is backwards: loss aversion makes the **loss** side heavy, 1.33 on thumbs up makes the
# **gain** side heavy. Offer three persons a fair coin, win 10 or lose 10, without probability weighting.

# %%
persons = {"1992": 2.25, "both sides alike": 1.0, "gains 1.33, losses 1": 1 / 1.33}
for name, aversion in persons.items():
    coin = prospect_value([10, -10], [0.5, 0.5], loss_aversion=aversion, gamma=1.0, delta=1.0) + 0.0
    verdict = "refuses" if coin < -1e-9 else "accepts" if coin > 1e-9 else "does not care"
    print(f"{name:<21} loss/gain = {aversion:.2f}   coin {coin:+.2f}   {verdict}")

# %% [markdown]
# The symptom: loss aversion refuses the coin, and 1.33 on gains accepts it. (Multiplying both sides by 1.33
# changes no choice, so only the ratio counts.)
#
# Where does 1.33 come from? It is 4/3, the upper end of the range that version 1 of the KTO paper (Section
# 4.1, Eq. 8) recommends for $\lambda_D n_D / (\lambda_U n_U)$, with $n_D$ thumbs up and $n_U$ thumbs down. The
# authors say there themselves that this leans to gains, unlike Kahneman and Tversky. Mind the counts:

# %%
for weight_up, n_up, n_down in ((1.33, 4, 4), (1.33, 3, 5), (4.0, 1, 3)):
    ratio = weight_up * n_up / (1.0 * n_down)
    print(f"weight {weight_up:.2f} on {n_up} up, weight 1 on {n_down} down: ratio {ratio:.3f}")

# %% [markdown]
# $\lambda_D = 1.33$ reaches 1.33 only with as many thumbs up as down. With 3 up and 5 down the ratio is 0.798: in
# total the *down* side is heavier. So the setting is not forbidden; its *name* is wrong, and without the counts
# it says nothing. [Lesson 00](00_start_here.ipynb) uses the ratio 4/3 on purpose, counts included: with three
# thumbs down for each thumb up that takes $\lambda_D = 4$. The paper's main experiments use 1 and 1.
#
# One promise is left: this lesson runs without torch.

# %%
print("torch was imported:", "torch" in sys.modules)
assert "torch" not in sys.modules

# %% [markdown]
# ## Recap
#
# - Outcomes are felt as distances from a reference point; $v(10) = 7.586$, $v(-10) = -17.068$.
# - Sensitivity diminishes on both sides. Small $\alpha$ is steep only next to the reference point.
# - Small chances weigh too much: with the measured $\gamma = 0.61$, all below $p = 0.3388$. (For $\gamma$ under
#   0.279 the curve has a falling piece and makes no sense.)
# - Weighting, not the value function, makes one person buy insurance and a lottery ticket.
# - KTO keeps the reference point and the S-shape. It drops the power, the kink and the weighting of chances. Its
#   two label weights are no loss aversion.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions sigma_of_zero felt_loss origin_of_133}}

# %% [markdown]
# ## Sources
#
# - Kahneman and Tversky (1979), "Prospect Theory: An Analysis of Decision under Risk": the separable sum for
#   few outcomes, and the idea that blown-up small chances explain both insurance and gambling.
# - Tversky and Kahneman (1992), "Advances in Prospect Theory": value function (Eq. 5), weighting function
#   (Eq. 6), the cumulative form, and the medians.
# - Ingersoll (2007), "Non-Monotonicity of the Tversky-Kahneman Probability-Weighting Function": a curve that
#   falls, and weights below zero.
# - KTO, arXiv 2402.01306: the example of 100 dollars at 80 in 100 against a sure 60. Version 1: 0.88 and
#   2.25, the loss (Eq. 7, whose $r$ contains $\beta$), the range of the weights (Section 4.1, Eq. 8). The current
#   version reportedly widens it to [1, 3/2].
# - Computed here: all crossings, the limit 0.279, all prices, the table of slopes.
#
# Next: [02](02_tiny_llama.ipynb), where a language model small enough to see through takes the stage.
