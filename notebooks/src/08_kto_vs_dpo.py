# %% [markdown]
# # 08 · KTO against DPO
#
# Derive DPO, train it on pairs, and put eight claims about KTO and DPO to the test, each with its error bars.

# %% [markdown]
# **You will be able to**
# - derive the DPO loss in three steps and write it in two lines;
# - say what DPO does not see, and what it cannot use;
# - read an interval from five seeds, and say what it is worth;
# - answer "KTO or DPO?" without overclaiming.
#
# **You need first** the implicit reward and the loss of lesson [06](06_kto_loss.ipynb), the training run of lesson
# [07](07_train.ipynb).
#
# **Time** {{times}}. Deeper: [the experiments, condition by condition](deeper/08b_condition_by_condition.ipynb).

# %%
import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F

from kto_course import check, predict, reveal
from kto_course.pictures import lesson_08 as pictures
from kto_lab.experiments.findings import difference, finding, interval, means, versus
from kto_lab.experiments.protocol import EXPERIMENTS
from kto_lab.experiments.results import best_settings, load_results, select
from kto_utils.data import pair_up
from kto_utils.evaluate import collect_feedback, rates, sample
from kto_utils.losses import kto_loss
from kto_utils.model import load_reference_model, reference_of
from kto_utils.plotting import use_course_style
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import train_dpo
from kto_utils.world import trained_questions

use_course_style()
torch.set_default_dtype(torch.float64)

# %% [markdown]
# **Before you run anything.** Users gave 267 thumbs up and 933 thumbs down to replies of our model. DPO needs pairs:
# one liked and one disliked reply to the same prompt.

# %%
predict("thumbs_dpo_can_use", "How many of the 1,200 thumbs can DPO use, if each goes into one pair only?",
        ["all 1,200", "about 930", "about 530", "about 270"], guess=None, confidence=None)  # fmt: skip
predict("dpo_loss_at_step_0", "What is DPO's loss at step 0, when policy and reference still agree?",
        ["0.69", "0.5, like KTO's", "0", "that depends on the pairs"], guess=None, confidence=None)  # fmt: skip

# %% [markdown]
# ## 1. A pair says who won, not how good
#
# DPO (Rafailov et al., 2023) learns from pairs: one prompt, a **chosen** reply and a **rejected** one. It needs a
# story of where a choice comes from. The usual one is **Bradley-Terry**: each reply has a hidden reward $R$, and the
# chance that $a$ beats $b$ depends only on the difference.
#
# $$P(a \text{ beats } b) = \sigma\big(R(a) - R(b)\big)$$


# %%
def beats(reward_a, reward_b):
    return 1 / (1 + math.exp(-(reward_a - reward_b)))


for a, b in ((1.0, 1.0), (2.0, 1.0), (102.0, 101.0)):
    print(f"rewards {a:5.1f} and {b:5.1f}: a wins with probability {beats(a, b):.4f}")

# %% [markdown]
# Add 100 to both rewards and nothing changes. A choice between two replies to one prompt says nothing about how good
# that prompt's replies are in general.
#
# ## 2. The reward inside a policy, up to one unknown
#
# Recall lesson 06. The policy that maximises reward minus $\beta$ times KL is
# $\pi^*(y) = \pi_{ref}(y)\, e^{R(y)/\beta} / Z$. Solve for the reward:
#
# $$R(y) = \beta \log \frac{\pi^*(y)}{\pi_{ref}(y)} + \beta \log Z$$
#
# The last term is the troublemaker, since $Z$ sums over all replies that there are. Three replies are enough to see
# it.

# %%
reference_probs = torch.tensor([0.5, 0.3, 0.2])
reward, beta = torch.tensor([0.0, 1.0, 0.4]), 0.5
best_policy = reference_probs * torch.exp(reward / beta)
Z = best_policy.sum()
best_policy = best_policy / Z
print("optimal policy:       ", best_policy)
print("R - beta * log-ratio: ", reward - beta * torch.log(best_policy / reference_probs))
print(f"beta * log Z:          {beta * torch.log(Z):.4f}")

# %% [markdown]
# ### Exercise 8.1 · Z cancels
# ★★☆ · 6 minutes · check a derivation step
#
# Write down all differences $R(a) - R(b)$ without knowing $R$ or $Z$: from the probabilities of the optimal policy,
# those of the reference, and beta. The check draws rewards of its own, makes the optimal policy for them, and holds
# your table against the true differences.

# %% exercise="reward_gaps"
def my_reward_gaps(policy_probs, reference_probs, beta):
    """Reward differences of N replies: two (N,) tensors of probabilities and a number -> (N, N).

    Row a, column b holds R(a) - R(b).
    """
    ### BEGIN SOLUTION
    scaled = beta * torch.log(policy_probs / reference_probs)
    return scaled[:, None] - scaled
    ### END SOLUTION


# %% check="reward_gaps" points=2
check.reward_gaps(my_reward_gaps)

# %% [markdown]
# ## 3. DPO: minus the log-probability of the choices
#
# The difference of two rewards is $\beta$ times a difference of log-ratios; $Z$ is gone. Put it into Bradley-Terry,
# take minus the logarithm of the probability of the choice that was made, and that is DPO:
#
# $$L = -\log \sigma\Big(\beta\,(r_{chosen} - r_{rejected})\Big), \qquad r = \log \pi(y|x) - \log \pi_{ref}(y|x)$$
#
# with $r$ summed over the reply's tokens, exactly the $r$ of KTO. The difference in the bracket is the **margin**.

# %% [markdown]
# ### Exercise 8.2 · DPO in two lines
# ★★☆ · 6 minutes · fill in a function
#
# Write the formula down. You get the four log-probabilities of each pair, already summed over tokens. The loss must
# stay finite for hopeless pairs too: a margin of -1990 nats costs 199 at beta 0.1.

# %% exercise="dpo_loss"
def my_dpo_loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta=0.1):
    """-log sigmoid(beta * (r_chosen - r_rejected)) of each pair, with r = policy - reference.

    The four tensors: (B,), log-probabilities of whole replies in nats. Returns (B,).
    """
    ### BEGIN SOLUTION
    margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
    return -F.logsigmoid(beta * margin)
    ### END SOLUTION


# %% check="dpo_loss" points=3
check.dpo_loss(my_dpo_loss)

# %% [markdown]
# ## 4. DPO does not see a common fall, KTO does
#
# At step 0 policy and reference agree, so every margin is 0 and every pair costs $-\log \sigma(0) = \ln 2$.

# %%
dpo_loss = check.yours_or_ours("dpo_loss")
chosen, rejected = torch.tensor([-7.0, -30.0]), torch.tensor([-12.0, -5.0])
print("policy = reference:", dpo_loss(chosen, rejected, chosen, rejected), f"ln 2 = {math.log(2):.4f}")
reveal("dpo_loss_at_step_0", "a")

# %% [markdown]
# Now raise the log-ratios of **both** replies to a prompt by the same amount $h$.

# %%
r, zero, label = torch.tensor([2.0, -1.0]), torch.zeros(1), torch.tensor([True, False])
for h in (-20.0, 0.0, 20.0):
    dpo = dpo_loss(r[:1] + h, r[1:] + h, zero, zero).item()
    up, down = kto_loss(r + h, torch.zeros(2), label, z0=0.0).tolist()
    print(f"h {h:5.0f}: DPO {dpo:.4f}   KTO thumbs-up row {up:.4f}, thumbs-down row {down:.4f}")

# %% [markdown]
# At $h = -20$ both replies have become $e^{20}$ times less likely relative to the rest. DPO does not notice. KTO sees
# it row by row: the thumbs-up row protests, the thumbs-down row is pleased. With equal weights the two nearly cancel,
# so it is the **weights** that decide how hard KTO pulls back ($z_0$ was held at 0 here).

# %% [markdown]
# ### Exercise 8.3 · A good loss, two dying replies
# ★★☆ · 4 minutes · predict a number
#
# A log says about one pair, at beta 0.5: the DPO loss is 0.3133, well below ln 2. But the log-ratio of the *chosen*
# reply is -9 nats: it has become $e^9$ times less likely. What is the log-ratio of the rejected reply, in nats? (You
# may use that $0.3133 = -\log \sigma(1)$.)

# %% exercise="rejected_fell"
answer = ...  # a number, in nats
### BEGIN SOLUTION
answer = -9 - 1 / 0.5
### END SOLUTION

# %% check="rejected_fell" points=1
check.rejected_fell(answer)

# %% [markdown]
# ## 5. DPO pushes hopeless pairs hardest, KTO lets them go
#
# Let autograd compute how hard each loss pushes, and divide by beta. For DPO the axis is a pair's margin, for KTO one
# thumbs-up row's distance from $z_0$.

# %%
nats, push = torch.linspace(-100, 100, 201), {}
for name in ("DPO", "KTO"):
    x, zeros = nats.clone().requires_grad_(), torch.zeros(201)
    loss = dpo_loss(x, zeros, zeros, zeros) if name == "DPO" else kto_loss(x, zeros, zeros == 0, 0.0)
    loss.sum().backward()
    push[name] = -x.grad / 0.1
    print(name, [f"{at} nats: {push[name][at + 100]:.4f}" for at in (-50, 0, 50)])
pictures.who_gets_pushed(nats, push["DPO"], push["KTO"])

# %% [markdown]
# This is the usual argument that KTO copes better with wrong thumbs: **once the model has learned the opposite**, DPO
# keeps pushing a wrong pair and KTO lets go. The price: KTO also lets go of rows that are hard but right. An argument
# is no result; section 9 has the results.
#
# ## 6. Pairs use up at most twice the rarer thumb
#
# The same thumbs for both methods: collect them, then pair each thumbs-up with one thumbs-down on the same prompt.

# %%
reference, tokenizer = reference_of(load_reference_model()), load_tokenizer()
rows = collect_feedback(reference, trained_questions(), 50, seed=0)
pairs, left_over = pair_up(rows, seed=0)
print(f"{len(rows)} thumbs, {len(pairs)} pairs = {2 * len(pairs)} thumbs used, {len(left_over)} left over")
print(pairs[0])
reveal("thumbs_dpo_can_use", "c")

# %% [markdown]
# KTO would use all 1,200, with weights that make up for the counts. (One could reuse a thumbs-up in several pairs. We
# do not, here and below.)
#
# Train DPO on these pairs twice, 60 steps at a rate of 3e-4: with a beta of 2, and with the usual 0.1. The loop is
# that of lesson 07 with your loss in place of KTO's. A **reward** is beta times a log-ratio.

# %%
policies, histories = {}, {}
for beta in (2.0, 0.1):
    policies[beta], histories[beta] = train_dpo(
        load_reference_model(), reference, pairs, tokenizer, steps=60, learning_rate=3e-4, beta=beta, seed=0
    )
    for step in (0, 29, 59):
        numbers = {key: histories[beta][step][key] for key in ("loss", "reward_chosen", "reward_rejected", "margin")}
        print(f"beta {beta}, step {step + 1:2d}:", ", ".join(f"{key} {x:.3f}" for key, x in numbers.items()))

# %% [markdown]
# Both start at ln 2, both losses fall, both margins grow. Are both good?
#
# ## 7. What goes wrong: the margin grows and both replies die

# %%
for name, model in (("before", reference), ("beta 2", policies[2.0]), ("beta 0.1", policies[0.1])):
    rate = rates(model, trained_questions())
    print(f"{name:9s} thumbs-up {rate['thumbs_up']:.3f}, on listed replies {rate['listed']:.3f}  ",
          ascii(sample(model, trained_questions()[0], n=1, seed=1)[0]))  # fmt: skip
pictures.displacement(histories[0.1])

# %% [markdown]
# With beta 0.1 the model stammers. Hardly any probability is left on the **listed replies**, the 48 of a question
# that our world knows: both kinds fell, the rejected ones further, and the loss is content. The symptom to watch in
# any log is **reward chosen below zero**. With beta 2 it stays above.
#
# ## 8. What an interval of five seeds is worth
#
# One run of each proves nothing. So we ran eight experiments, hundreds of runs of a smaller model, stored in
# `kto_lab/results`. Each states a **hypothesis**, committed before its runs. Both methods get the same thumbs, the
# same number of steps (100, once 400) of 16 completions, and a search of the same size for learning rate and beta.
# They share 5 or 8 **seeds**, which move the thumbs that are drawn. Scores are exact, on new wordings, which got no
# thumbs.
#
# Methods are compared seed by seed, so the luck of the draw cancels. Of these differences we take the mean and a 95%
# bootstrap interval: draw as many seeds with replacement, average, repeat 9,999 times, keep the middle 95%. The
# **verdict** is *supported* if the whole interval lies on the hypothesis' side, *refuted here* if on the other, else
# *inconclusive*.
#
# What is this ruler worth? Take numbers whose true mean is 0 and count how often the interval holds it. Ask a
# **sign-flip test** how clear a result can get at all. And look at how the settings were chosen, by one to three
# seeds.


# %%
def sign_flip(values):
    """If the sign of each difference were a coin's, how often would the sum be as far from 0 as it is?"""
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(values))]  # fmt: skip
    return sum(x >= abs(sum(values)) - 1e-9 for x in sums) / len(sums)


generator = np.random.default_rng(0)
for n in (5, 8):
    found = [interval(generator.normal(size=n)) for _ in range(300)]
    covered = sum(one.low <= 0 <= one.high for one in found) / 300
    print(f"{n} seeds: the '95%' interval holds the truth in {covered:.0%} of 300 tries; smallest possible sign-flip "
          f"p {sign_flip([1.0] * n):.4f}")  # fmt: skip

# %%
results = load_results()
chosen = [(EXPERIMENTS[name].grid, setting) for name, one in EXPERIMENTS.items() if one.search
          for setting in best_settings(results["search"], name).values()]  # fmt: skip
at_edge = [any(x in (min(axis), max(axis)) for x, axis in zip(setting, zip(*grid, strict=True), strict=True))
           for grid, setting in chosen]  # fmt: skip
print(f"{sum(at_edge)} of {len(chosen)} settings stand on an edge of their grid")

# %% [markdown]
# So the intervals are too narrow, and five seeds cannot reach the usual 0.05 however clear they are. A better setting
# may lie beyond an edge. **All verdicts below are provisional**: another search may change them, and a fairer
# comparison is planned as the course's next edition.
#
# ## 9. Eight claims, eight verdicts

# %%
CLAIMS = ("clean pairs", "more steps", "unpaired thumbs", "fewer thumbs-up", "fewer thumbs-down", "noise", "skip SFT",
          "length")  # fmt: skip
for name in CLAIMS:
    found = finding(results, name)
    print(f"{found.title}: {found.hypothesis}")
    values = found.difference.values
    print(f"   {found.verdict}: {found.difference}, {len(values)} seeds, sign-flip p {sign_flip(values):.4f}\n")

# %% [markdown]
# A verdict is about one sentence. You want to know who was ahead, by how much, and in which seeds. The second picture
# shows why some intervals are so wide: each line is a seed.

# %%
cases = [
    ("clean pairs", "clean pairs", "clean"), ("clean pairs, 400 steps", "more steps", "clean"),
    ("all thumbs", "unpaired thumbs", "all"), ("pairs on a quarter", "unpaired thumbs", "quarter"),
    ("10% of the thumbs-up", "fewer thumbs-up", "10%"), ("10% of the thumbs-down", "fewer thumbs-down", "10%"),
    ("10% flipped", "noise", "10%"), ("30% flipped", "noise", "30%"), ("45% flipped", "noise", "45%"),
    ("80 SFT steps", "skip SFT", "80 steps"),
]  # fmt: skip
leads = {label: difference(results, name, versus(condition, "kto", "dpo")) for label, name, condition in cases}
pictures.leads(leads)

# %%
before = results["reference"]["small"]["new wording thumbs_up"]
pictures.by_seed(
    {title: {method: means(results, name, method)[0].values for method in ("dpo", "kto")}
     for title, name in (("Clean pairs, 100 steps", "clean pairs"), ("400 steps", "more steps"))},
    before,
)  # fmt: skip
for method in ("kto", "dpo"):
    runs = [run for name in CLAIMS[:6] for run in select(results, name, method=method)]
    collapsed = sum(run["new wording thumbs_up"] < before for run in runs)
    print(f"{method}: {collapsed} of {len(runs)} runs collapsed")

# %% [markdown]
# A run is **collapsed** if its thumbs-up rate ends below where it began (counted over the first six experiments). KTO
# was often far ahead and sometimes collapsed; DPO, with its settings, did neither. What the table says in words:
#
# - **Clean pairs.** Theory speaks for DPO, but for endless choices over all replies. Here KTO was ahead in 7 of 8
#   seeds and collapsed in one: *inconclusive*. With 400 steps DPO's lead is *refuted here*, with settings in the
#   corners of the grid: KTO's at the largest rate and smallest beta, DPO's at the smallest rate and largest beta.
# - **Few thumbs-down** do not stop KTO (*supported*, and clearly). **Few thumbs-up** hold both back; DPO stays a
#   little ahead.
# - **Noise.** With 10% or 20% of the thumbs flipped KTO was ahead in every seed. At 30% it is open, at 45% DPO was
#   ahead in four of five. KTO *loses more* on the way, from a higher start; so the argument of section 5 did not
#   decide.
# - **Skip SFT** is *supported* to the letter and worthless: two replies in a thousand against none.
# - **Length.** *Inconclusive*, and nobody rambled.
#
# ## 10. KTO or DPO? What to say
#
# *"They eat different data. If feedback is thumbs, KTO uses all of it, and DPO only what can be paired. If it is
# clean pairs, theory is on DPO's side, but that is a statement about unlimited data. The KTO paper reports KTO above
# DPO on GSM8K (53.5 against 40.0) and below it on TydiQA (31.2 against 36.5), without intervals. I would run both on
# my data, with several seeds, and log both rewards."*
#
# | your situation | start with | rests on |
# |---|---|---|
# | thumbs, hardly any pairs | KTO, several seeds | *Unpaired thumbs*: ahead in most seeds, verdict open |
# | few thumbs-down | KTO | *Fewer thumbs-down* |
# | few thumbs-up | collect thumbs-up | *Fewer thumbs-up*: nobody gets far |
# | clean pairs | try both | theory and *Clean pairs* disagree |
# | up to a fifth of the thumbs wrong | KTO | *Noise* |
# | many more of them wrong | better thumbs | *Noise*: neither gets far |
# | a model that cannot speak yet | SFT | *Skip SFT* |
#
# What you must not say: that this small world, with replies of eight tokens, settles it for a large model.

# %% [markdown]
# ## Recap
#
# 1. DPO is Bradley-Terry with the implicit reward put in; $Z$ cancels inside a pair. At step 0 it costs ln 2.
# 2. It sees only differences: a common fall is invisible to it. Log both rewards.
# 3. It pushes hopeless pairs hardest; KTO pushes rows near the reference point.
# 4. With each thumb in one pair, DPO uses at most twice the rarer kind. KTO uses all.
# 5. Here KTO was often far ahead and sometimes collapsed. Few seeds, a coarse search: provisional.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions when_dpo kto_better_than_dpo displacement}}

# %% [markdown]
# ## Sources
#
# - Rafailov et al., "Direct Preference Optimization", 2023: section 4 and Eq. 7 (derivation and loss).
# - KTO, arXiv 2402.01306 v4, Table 2 (GSM8K, TydiQA; Zephyr-beta-SFT on UltraFeedback).
# - Everything else: computed above, or in `kto_lab/results/experiment_results.json`.
#
# Next: [09 · The family](09_halos.ipynb) puts DPO and KTO among their relatives. Deeper:
# [08b · Condition by condition](deeper/08b_condition_by_condition.ipynb).
