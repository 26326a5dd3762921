# %% [markdown]
# # 01b · Ranks and lotteries
#
# Weigh many chances at once, and find out why one person buys both insurance and a lottery ticket.

# %% [markdown]
# **You will be able to**
# - say where a person is sensitive, and tell one exponent from two;
# - find the chance at which people begin to weigh too little, for each $\gamma$;
# - weigh the outcomes of a gamble by rank, as in 1992, and say what goes wrong without ranks;
# - show why one person buys insurance *and* a lottery ticket.
#
# **You need first** [01](../01_prospect_theory.ipynb). No later lesson needs what stands here: KTO drops all of it.
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything.** A lottery: 1 chance in 1,000 to win 5,000 dollars. A fire: 1 chance in 1,000 to lose
# 5,000 dollars. Both are worth 5 dollars on average, and 5 dollars is the price of the ticket and of the insurance.
# Someone who only fears risk buys the insurance and no ticket; someone who loves risk does the reverse. What does
# the person of 1992 do? The cell below the imports takes your guess.

# %%
from functools import partial

import numpy as np

from kto_course import check, predict, reveal
from kto_course.checks.lesson_01 import mystery_ratio
from kto_course.pictures import lesson_01b as pictures
from kto_utils.plotting import use_course_style
from kto_utils.prospect import value, weight

use_course_style()

# %%
choices = ["both", "only the ticket", "only the insurance", "neither"]
predict("ticket_and_insurance", "What does the person of 1992 buy?", choices, guess=None, confidence=None)

# %% [markdown]
# ## 1. "Sensitive" needs an address
#
# Drag alpha to 0.1: the curve becomes a step. (Where Python cannot run you see a line of text instead of the slider;
# lesson 01 shows four still pictures.)

# %%
pictures.alpha_slider(value)

# %% [markdown]
# Is the person with 0.1 more sensitive, or less? The slope $v'(z) = \alpha z^{\alpha - 1}$ says where.


# %%
def slope(z, alpha=0.88):
    return alpha * z ** (alpha - 1)


print("alpha   slope at 0.001   slope at 10")
for alpha in (0.1, 0.5, 0.88, 1.0):
    print(f"{alpha:<5}  {slope(0.001, alpha):15.2f}  {slope(10.0, alpha):12.4f}")

# %% [markdown]
# More sensitive at a tenth of a cent, nearly blind at 10 dollars. Where does the slope for 0.88 fall below 1, that of
# a person who feels every dollar alike? **Bisection** finds it, here and later: halve an interval and keep the half
# in which the sign changes.


# %%
def bisect(f, low, high, steps=60):
    """A point between low and high where f changes sign."""
    assert f(low) * f(high) < 0, "f must have different signs at the two ends"
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if f(low) * f(middle) > 0 else (low, middle)
    return (low + high) / 2


print(f"bisection {bisect(lambda z: slope(z) - 1, 0.01, 10):.4f}, on paper {0.88 ** (1 / (1 - 0.88)):.4f} dollars")

# %% [markdown]
# ## 2. A second exponent makes the ratio move
#
# With one exponent, $-v(-z)/v(z)$ is 2.25 at every size. The theory allows a separate exponent for losses. Say 0.80:

# %%
for amount in (1, 10, 100, 1000):
    one, two = -value(-amount) / value(amount), -value(-amount, alpha=0.80) / value(amount, alpha=0.88)
    print(f"{amount:>5} dollars: ratio {one:.2f} with one exponent, {two:.2f} with 0.80 for losses")

# %% [markdown]
# ### Exercise 1.3 · A stranger's losses
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
amount = np.geomspace(1, 1000, 61)
pictures.stranger(amount, mystery_ratio(amount), -value(-amount) / value(amount))

# %% exercise="mystery_person"
answer = ...  # a letter in quotes
### BEGIN SOLUTION
answer = "c"
### END SOLUTION

# %% check="mystery_person" points=1
check.mystery_person(answer)

# %% [markdown]
# ## 3. Where chances begin to weigh too little
#
# $w(p)$ lies above $p$ for small chances and below it for large ones. Where does it cross? Ask for the two exponents
# that were measured, 0.61 for gains and 0.69 for losses, and for 0.5.

# %%
crossing = {gamma: bisect(lambda p, g=gamma: weight(p, g) - p, 0.01, 0.99) for gamma in (0.5, 0.61, 0.69)}
for gamma, p in crossing.items():
    print(f"gamma {gamma}: weights are too large below p = {p:.4f}, too small above")

# %% [markdown]
# You may read elsewhere that 0.5 crosses near 0.23, or see $\gamma = 2$ drawn as an example. Test it.

# %%
p = np.linspace(0, 1, 10_001)
print(f"gamma 0.5: a chance of 0.23 weighs {weight(0.23, 0.5):.4f}")
print("gamma 2: some chance weighs too much:", bool(np.any(weight(p[1:-1], 2.0) > p[1:-1])))

# %% [markdown]
# At 0.23 the weight is still above the diagonal, and for $\gamma = 2$ every chance weighs too little: no person of
# 1992. So keep $\gamma$ below 1, but not too far. A larger chance should never weigh less; from which $\gamma$ on does
# the curve always rise? Bisection again, over $\gamma$, on the smallest step of the curve.

# %%
print(f"gamma 0.25: a chance of 0.01 weighs {weight(0.01, 0.25):.4f}, one of 0.07 {weight(0.07, 0.25):.4f}")
limit = bisect(lambda gamma: np.diff(weight(p, gamma)).min(), 0.2, 0.4)
print(f"the curve rises everywhere only for gamma above {limit:.3f}")

# %%
pictures.weighting(p, {gamma: weight(p, gamma) for gamma in crossing}, crossing, weight(p, 0.25))

# %% [markdown]
# At 0.25 a chance seven times as large weighs *less*. Ingersoll (2007) warned about this.

# %% [markdown]
# ## 4. What goes wrong: bending each chance on its own
#
# For a gamble put both curves together. The simplest way is **separable**: each outcome's value times the weight of its
# own chance, $V = \sum_i w(p_i)\,v(z_i)$. Take the weights of 1992 for it, and ten prizes, from 91 to 100 dollars, each
# with a chance of 1 in 10. Surely not worth more than a sure 100.

# %%
prizes, chances = np.arange(91, 101), np.full(10, 0.1)
print(f"the ten weights add up to {weight(chances).sum():.3f}")
print(f"the gamble feels like {np.sum(weight(chances) * value(prizes)):.1f}, a sure 100 like {value(100):.1f}")
both = value(50) + weight(0.5) * (value(100) - value(50))
print(f"100 or 50 dollars, even chances: separable {weight(0.5) * (value(100) + value(50)):.2f}, 1979 {both:.2f}, "
      f"a sure 50 {value(50):.2f}")  # fmt: skip

# %% [markdown]
# Absurd: never more than 100, and felt as better than 100. Each small chance is blown up, and nothing makes the
# weights add up to 1.
#
# Do not blame the authors: in 1979 the sum was meant for at most two outcomes other than 0, and not for two that are
# both gains. There the smaller one, $y$, is certain, and only the rest is a gamble: $V = v(y) + w(p)\,[v(x) - v(y)]$.
# The last line shows the difference. For two outcomes that is already the remedy which now comes for any number.

# %% [markdown]
# ## 5. Bend the chance of at least this much
#
# The remedy of 1992 is **cumulative**: do not bend the chance of each prize, bend the chance of *at least* this prize.
# The weight of one prize is what it adds. With the best prize first,
#
# $$\pi_i = w(p_1 + \dots + p_i) - w(p_1 + \dots + p_{i-1})$$

# %% [markdown]
# ### Exercise 1.4 · The weight of at least this much
# ★★☆ · 8 minutes · fill in a function
#
# Compute all $\pi_i$. Nothing is reached before the first prize, so its second term is 0. Rounding can push the last
# sum a little past 1, where $w$ has no value; cut it off there.


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
# ### The ten prizes, ranked

# %%
rank_weights = check.yours_or_ours("rank_weights")
ranked = np.asarray(rank_weights(chances, weight))
print("best to worst prize:", " ".join(f"{w:.3f}" for w in ranked))
print(f"they add up to {ranked.sum():.3f}")
pictures.rank_weights(prizes, ranked[::-1], weight(0.1))

# %% [markdown]
# Only the ends are blown up, most of all the worst prize and the best. The middle pays for it. (And you see why $w$
# must not fall: a falling piece would give a prize a weight *below zero*.)
#
# The whole thing, for gains and losses together: losses are ranked from the worst inwards, with $\delta = 0.69$ in the
# place of $\gamma$ and, if you like, their own exponent. The package keeps the same in `kto_utils.prospect`.


# %%
def prospect_value(z, p, alpha=0.88, loss_aversion=2.25, gamma=0.61, delta=0.69, alpha_loss=None):
    z, p, total = np.asarray(z, dtype=float), np.asarray(p, dtype=float), 0.0
    for side, power, bend in ((z >= 0, alpha, gamma), (z < 0, alpha_loss or alpha, delta)):
        order = np.argsort(-np.abs(z[side]), kind="stable")  # most extreme first
        weights = rank_weights(p[side][order], partial(weight, gamma=bend))
        total += np.sum(weights * value(z[side][order], power, loss_aversion))
    return float(total)


print(f"ten prizes {prospect_value(prizes, chances):.1f}, a sure 91 {value(91):.1f}, a sure 100 {value(100):.1f}")
print(f"the ticket of lesson 01 {prospect_value([100, 0], [0.8, 0.2]):.2f}, a sure sixty {value(60):.2f}")
print(f"100 or 50 dollars {prospect_value([100, 50], [0.5, 0.5]):.2f}")

# %% [markdown]
# The ten prizes lie between the worst and the best of them again. For the ticket nothing has changed: with one gain
# there is nothing to rank. With two it is what 1979 had.

# %% [markdown]
# ## 6. Weighting sells both insurance and lottery tickets
#
# Now the lottery and the fire. A gain above zero means: buys.


# %%
def gain_from_ticket(price, **bend):
    return prospect_value([5000 - price, -price], [0.001, 0.999], **bend)  # not playing is worth 0


def gain_from_insurance(price, **bend):
    return value(-price) - prospect_value([-5000, 0], [0.001, 0.999], **bend)


for name, gain in (("ticket", gain_from_ticket), ("insurance", gain_from_insurance)):
    print(f"{name:<9} for 5 dollars: {gain(5):+6.2f}   without weighting: {gain(5, gamma=1.0, delta=1.0):+6.2f}")
    print(f"{name:<9} is bought up to a price of {bisect(gain, 1, 100):.2f} dollars")
reveal("ticket_and_insurance", "a")

# %% [markdown]
# One person with one set of parameters buys both, far above the fair price. Without weighting ($\gamma = \delta = 1$)
# they buy *neither*: the blown-up chance of 1 in 1,000 turns both decisions.
#
# For likely events it all turns round. Compare, for winning or losing 100 dollars, the sure amount that feels the same
# with the average. If it lies above, they like the gamble; if below, they would rather be rid of it.


# %%
def sure_amount(p, gamma):
    return 100 * weight(p, gamma) ** (1 / 0.88)  # v(sure) = w(p) v(100), solved for sure


for side, gamma in (("winning", 0.61), ("losing", 0.69)):
    turn = bisect(lambda p, g=gamma: sure_amount(p, g) - 100 * p, 0.01, 0.9)
    print(f"{side:<7} 100: the attitude turns at p = {turn:.3f}, where w(p) = {weight(turn, gamma):.3f}")

# %%
pictures.fourfold(p, sure_amount(p, 0.61), -sure_amount(p, 0.69))

# %% [markdown]
# Both turn near 0.24, not where $w$ crosses the diagonal. There the chance is still felt as too large, but the bent
# money works against it.

# %% [markdown]
# ## Recap
#
# - A small $\alpha$ is sensitive only next to the reference point. With two exponents the loss ratio moves with size.
# - With the measured $\gamma = 0.61$ chances below $p = 0.3388$ weigh too much. Under 0.279 the curve is no weight.
# - Bending each chance on its own makes ten prizes better than the best of them; ranks mend it.
# - Weighting, not the value function, makes one person buy insurance and a lottery ticket.
# - KTO uses none of this: it has no chances to weigh.

# %% [markdown]
# ## Sources
#
# - Kahneman and Tversky (1979), "Prospect Theory: An Analysis of Decision under Risk": the separable sum, the form
#   for two gains, and blown-up small chances behind insurance and gambling.
# - Tversky and Kahneman (1992), "Advances in Prospect Theory": Eq. 5 and 6, the cumulative form, and the medians.
# - Ingersoll (2007), "Non-Monotonicity of the Tversky-Kahneman Probability-Weighting Function".
# - Computed here: all crossings, the limit 0.279, all prices.
#
# Back to [01](../01_prospect_theory.ipynb), or on to [02](../02_tiny_llama.ipynb).
