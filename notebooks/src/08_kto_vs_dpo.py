# %% [markdown]
# # 08 · KTO against DPO
#
# Derive DPO, see what it does not see, then compare it with KTO and the plainest rival on seven kinds of thumbs.

# %% [markdown]
# **You will be able to**
# - derive the DPO loss in three steps and write it in two lines;
# - say what DPO does not see, and what it cannot use;
# - read a table of conditions and methods, and say what tuning did to it;
# - answer "which method for which thumbs?", and name the row that your answer rests on.
#
# **You need first** the implicit reward and the loss of lesson [06](06_kto_loss.ipynb), the training run of lesson
# [07](07_train.ipynb).
#
# **Time** {{times}}. Deeper: [behind the table](deeper/08b_behind_the_table.ipynb).

# %%
import math
from collections import Counter
from statistics import mean

import torch
import torch.nn.functional as F

from kto_course import check, predict, reveal
from kto_course.pictures import lesson_08 as pictures
from kto_lab.comparison import protocol
from kto_lab.comparison.exploratory import outcomes
from kto_lab.comparison.findings import findings, lost, mean_of, values_of
from kto_lab.comparison.protocol import CONDITIONS, EACH, MEASURE, ONCE, methods_of
from kto_lab.comparison.results import load_results
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

# %% [markdown] slide=["Our model's", "DPO needs"]
# **Before you run anything.** Our model's replies got 267 thumbs up and 933 down. DPO needs pairs: one liked and one
# disliked reply to the same prompt.

# %% slide=["text 0:5"]
predict("thumbs_dpo_can_use", "How many of the 1,200 thumbs can DPO use, if each goes into one pair only?",
        ["all 1,200", "about 930", "about 530", "about 270"], guess=None, confidence=None)  # fmt: skip
predict("dpo_loss_at_step_0", "What is DPO's loss at step 0, when policy and reference still agree?",
        ["0.69", "0.5, like KTO's", "0", "that depends on the pairs"], guess=None, confidence=None)  # fmt: skip

# %% [markdown] slide=["DPO (Rafailov", "$$P"]
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
# Add 100 to both rewards and nothing changes: a choice says nothing about how good a prompt's replies are in general.
#
# ## 2. The reward inside a policy, up to one unknown
#
# Recall lesson 06. The policy that maximises reward minus $\beta$ times KL is
# $\pi^*(y) = \pi_{ref}(y)\, e^{R(y)/\beta} / Z$. Solve for the reward:
#
# $$R(y) = \beta \log \frac{\pi^*(y)}{\pi_{ref}(y)} + \beta \log Z$$
#
# The last term is the troublemaker: $Z$ sums over all replies that there are. Three are enough to see it.

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
# those of the reference, and beta. The check draws rewards of its own and knows the true differences.

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

# %% [markdown] slide=["Put it into", "$$L"]
# ## 3. DPO: minus the log-probability of the choices
#
# The difference of two rewards is $\beta$ times a difference of log-ratios; $Z$ is gone. Put it into Bradley-Terry,
# take minus the logarithm of the probability of the choice that was made, and that is DPO:
#
# $$L = -\log \sigma\Big(\beta\,(r_{chosen} - r_{rejected})\Big), \qquad r = \log \pi(y|x) - \log \pi_{ref}(y|x)$$
#
# with $r$ summed over the reply's tokens, as in KTO. The difference in the bracket is the **margin**.

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
# At step 0 policy and reference agree, so every margin is 0 and every pair costs $-\log \sigma(0) = \ln 2$. Then raise
# the log-ratios of **both** replies to a prompt by the same amount $h$.

# %% slide=["text 3:6"]
dpo_loss = check.yours_or_ours("dpo_loss")
chosen, rejected, zero = torch.tensor([-7.0, -30.0]), torch.tensor([-12.0, -5.0]), torch.zeros(1)
print("policy = reference:", dpo_loss(chosen, rejected, chosen, rejected), f"ln 2 = {math.log(2):.4f}")
reveal("dpo_loss_at_step_0", "a")

r, label = torch.tensor([2.0, -1.0]), torch.tensor([True, False])
for h in (-20.0, 0.0, 20.0):
    dpo = dpo_loss(r[:1] + h, r[1:] + h, zero, zero).item()
    up, down = kto_loss(r + h, torch.zeros(2), label, z0=0.0).tolist()
    print(f"h {h:5.0f}: DPO {dpo:.4f}   KTO thumbs-up row {up:.4f}, thumbs-down row {down:.4f}")

# %% [markdown] slide=["DPO does not", "KTO sees"]
# At $h = -20$ both replies have become $e^{20}$ times less likely relative to the rest. DPO does not notice. KTO sees
# it row by row: the thumbs-up row protests, the thumbs-down row is pleased. With equal weights the two nearly cancel:
# the **weights** decide how hard KTO pulls back.

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
# ## 5. Pairs use up at most twice the rarer thumb
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
# KTO would use all 1,200. DPO gets further if it reuses a thumb in several pairs; in the comparison below it does.
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
# ## 6. What goes wrong: the margin grows and both replies die

# %% slide=["figure"]
for name, model in (("before", reference), ("beta 2", policies[2.0]), ("beta 0.1", policies[0.1])):
    rate = rates(model, trained_questions())
    print(f"{name:9s} thumbs-up {rate['thumbs_up']:.3f}, on listed replies {rate['listed']:.3f}  ",
          ascii(sample(model, trained_questions()[0], n=1, seed=1)[0]))  # fmt: skip
pictures.displacement(histories[0.1])

# %% [markdown]
# With beta 0.1 the model stammers. Hardly any probability is left on the **listed replies**, the 48 that our world
# knows: both kinds fell, the rejected ones further, and the loss is content. Watch for **reward chosen below zero** in
# any log.
#
# ## 7. Seven kinds of thumbs, seven methods
#
# One run proves nothing. And one rival needs neither pairs nor a reference: **SFT on the replies with a thumbs-up**. A
# method that cannot beat it is not worth its trouble.
#
# | method | learns from |
# |---|---|
# | `sft` | the thumbs-up alone, no reference |
# | `dpo` | all pairs of a thumbs-up and a thumbs-down on the same question |
# | `dpo + sft` | the same, plus an SFT term on the chosen replies |
# | `cdpo` | the same as DPO, told how many thumbs are flipped (label smoothing) |
# | `kto` | all thumbs, weights by the rule of lesson 06 |
# | `kto weights 1` | all thumbs, both weights 1 |
# | `kto + sft` | all thumbs, plus an SFT term on the liked ones |
#
# Everyone gets the same thumbs, a smaller model and 100 steps of 16 completions. Learning rate and beta are tuned in
# **two ways**: *once*, with all thumbs, and then kept, as you would with one sweep; or *for each kind of thumbs*, which
# shows what is possible. Each cell has 30 runs on fresh draws of thumbs. The
# [protocol](../kto_lab/comparison/protocol.py), with predictions and what we had seen before, was committed first.
#
# A common argument: a pair learned the wrong way round gets DPO's full push, while KTO lets go of rows far from $z_0$
# ([09](09_halos.ipynb) draws both); so KTO should cope better with wrong thumbs. Does it?
#
# ## 8. The table
#
# Each dot is a run: its thumbs-up rate on wordings that got no thumbs.

# %%
results = load_results()
before = results.reference[True][MEASURE]
pictures.core_table(
    {condition: {method: tuple(values_of(results, condition, method, way) for way in (ONCE, EACH))
                 for method in methods_of(condition)} for condition in CONDITIONS},
    before,
)  # fmt: skip

# %% [markdown] slide=["The same in numbers"]
# The same in numbers: the mean and, in brackets, how many of 30 runs were **lost**: ended below their start.

# %% slide=["table 0:8 26+14"]
def row(first, cells):
    print(f"{first:<26}" + "".join(f"{cell:>14}" for cell in cells))


def mean_and_lost(condition, method, **which):
    if method not in methods_of(condition):
        return ""
    n_lost = lost(results, condition, method, **which)[0]
    return f"{mean_of(results, condition, method, MEASURE, **which):.2f}" + f" ({n_lost})" * (n_lost > 0)


for way in (ONCE, EACH):
    row(way, protocol.METHODS)
    for condition in CONDITIONS:
        row(condition, [mean_and_lost(condition, method, way=way) for method in protocol.METHODS])

# %% [markdown]
# - **All thumbs.** The two methods with an SFT term end highest. Plain SFT ends above plain KTO and plain DPO without
#   looking at a single thumbs-down.
# - **10% of the ups.** Tuned once, KTO loses all its runs, whatever its weights, term or no term. Tuned for these
#   thumbs few are lost, and it is weak. Then SFT leads.
# - **10% and 30% flipped.** SFT copies wrong thumbs. KTO ends above it and above DPO; with an SFT term it is first.
#
# Did the tuning decide this? Three rates for four methods, on the questions that got thumbs, where the search looks,
# and on new wordings (20 runs each, exploratory):

# %%
sweep = outcomes(results, "another sweep")
row("trained / new wordings", dict.fromkeys(method for _, method in sweep))
for condition in dict.fromkeys(condition for condition, _ in sweep):
    row(condition, [
        " / ".join(f"{mean(run[name] for run in runs):.2f}" for name in ("trained thumbs_up", MEASURE))
        for (at, _), runs in sweep.items() if at == condition
    ])  # fmt: skip

# %% [markdown]
# With clean thumbs it did. SFT's search took a rate of 0.01, best where it looked; at 0.003 plain SFT is above
# everything in the table. So **who is first with clean thumbs is no result**: another sweep turns it round. What
# stands at each rate is plain KTO below plain SFT. With 10% flipped, KTO with an SFT term is above SFT's best at 0.001
# and at 0.003, not at 0.01.
#
# ## 9. What was predicted, and what came
#
# A difference is taken seed by seed, so the luck of the draw cancels. Rates are often "0.9, or 0 where a run was lost",
# so nothing leans on a bell curve: the interval is that of the **median**, by ranks, and p comes from **flipping
# signs**: were both methods alike, each difference could have either sign. Holm's method corrects for their number. A
# prediction is *supported* or *refuted* if p stays below 0.05, else *open*; an interval inside ±0.02 is *no difference
# worth naming*.

# %%
found = findings(results)
for finding in found:
    print(f"[{protocol.HYPOTHESES[finding.name][1]}]", finding.sentence)
print(Counter(finding.ending for finding in found))

# %% [markdown]
# Two were refuted: with 30% flipped and one sweep SFT ended below KTO, and KTO's lead over SFT with 10% flipped does
# not carry over to the larger model. Two are open: SFT over KTO with clean thumbs, by a hair, and what tuning gives KTO
# at 30%. And "DPO with the term above SFT" hangs on SFT's rate, as you saw.
#
# ## 10. The larger model
#
# The course's own model, about three times as large, tuned once with all thumbs, 10 runs each.

# %%
row("", protocol.LARGE_METHODS)
for condition in CONDITIONS:
    row(condition, [mean_and_lost(condition, method, small=False) for method in protocol.LARGE_METHODS])

# %% [markdown]
# An SFT term steadies KTO with clean thumbs and with noise; few thumbs-up lose it all the same. Plain SFT ends above
# plain KTO, this time clearly. And KTO alone is lost with noise, below DPO: its lead above needs the term.
#
# ## 11. Why: what the thumbs-down are good for
#
# KTO with the thumbs-up alone, beside SFT and KTO with all thumbs. And KTO with few thumbs-up, tuned once, one change
# at a time (20 runs each, exploratory: nothing was predicted).

# %%
for (condition, method), runs in outcomes(results, "why: thumbs-down").items():
    up, listed = (mean(run[name] for run in runs) for name in (MEASURE, "new wording listed"))
    print(f"{condition:<16} {method:<21} thumbs-up {up:.2f}   on listed replies {listed:.2f}")
for (condition, method), runs in outcomes(results, "why: few ups").items():
    up, n_lost = mean(run[MEASURE] for run in runs), sum(run[MEASURE] < before for run in runs)
    print(f"{condition:<16} {method:<21} thumbs-up {up:.2f}   {n_lost} of {len(runs)} lost")

# %% [markdown] slide=["| your thumbs"]
# With clean thumbs, KTO does better **without** its thumbs-down: they say what to leave, not where to go, and
# probability leaves the listed replies. With wrong thumbs they earn their keep: at three downs to one up, a wrong up
# is contradicted by right downs.
#
# With few thumbs-up, neither weights nor reference point are to blame. Demonstrations, texts of the kind that the
# reference was made from, hold the model and save it; so does the smaller rate of its own search (section 8). And
# $z_0$? Tuned once, it is 0 in most steps: the table compares KTO with a reference point of about 0
# ([08b](deeper/08b_behind_the_table.ipynb) counts).
#
# ## 12. Which one, when
#
# | your thumbs | use | its row |
# |---|---|---|
# | mostly right | SFT on the thumbs-up; then see if a DPO or KTO term adds anything | all thumbs; larger model |
# | few thumbs-up | SFT, tuned on them; not KTO | 10% of the ups |
# | few thumbs-down | SFT, and a KTO or DPO term beside it | 10% of the downs |
# | seldom both kinds on a question | SFT, tuned on them | both kinds on a quarter |
# | one in ten wrong | KTO with an SFT term | 10% flipped |
# | three in ten wrong | the same; in the larger model nobody leads | 30% flipped |
# | nearly half wrong | nothing helps: ask who clicks | 45% flipped |
#
# In every row: tune on thumbs like yours, run several seeds, count lost runs. A world of 48 replies a question does not
# settle it for a large model.

# %% [markdown]
# ## Recap
#
# 1. DPO is Bradley-Terry with the implicit reward put in; $Z$ cancels inside a pair. At step 0 it costs ln 2.
# 2. It sees only differences: a common fall is invisible to it. Log both rewards.
# 3. The baseline is SFT on the thumbs-up; with clean thumbs plain KTO and plain DPO do not beat it.
# 4. With one wrong thumb in ten KTO with an SFT term leads. With few thumbs-up and one sweep, KTO is lost.
# 5. One sweep is part of the result: tune for your thumbs, or say that you did not.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions when_dpo kto_better_than_dpo displacement}}

# %% [markdown]
# ## Sources
#
# - Rafailov et al., 2023: section 4 and Eq. 7 (derivation and loss).
# - SFT term beside DPO: Pang et al., 2024. cDPO: Mitchell, 2023.
# - The rest: computed above, or in `kto_lab/results/comparison.jsonl` (`python course.py experiments`).
#
# Next: [09 · The family](09_halos.ipynb). Deeper: [08b · Behind the table](deeper/08b_behind_the_table.ipynb).
