# %% [markdown]
# # 07b · What a thumbs-up rate costs
#
# Compute the least distance for every thumbs-up rate, hold real runs against it, and find where KTO breaks.

# %% [markdown]
# **You will be able to**
# - say how far a model must move to reach a thumbs-up rate, whatever the method, and how far a run did move;
# - say which settings of three knobs collapsed here, and what one kind of thumb alone does.
#
# **You need first** [lesson 07](../07_train.ipynb): exact rates, the run with balanced weights, collapse.
#
# **Time** {{times}}.
#
# **Before you run anything.** A model earns a thumbs up for 23 replies in 100. You may change it in any way you like,
# but afterwards every reply must earn one. How far from the old model must the new one be **at least**, in nats of
# KL? Put your guess into the last lines of the next cell.

# %%
import math
from statistics import mean

import torch

from kto_course import check, predict, reveal
from kto_course.pictures import lesson_07b as pictures
from kto_lab import price
from kto_lab.comparison.exploratory import KNOB_BETAS, KNOB_RATES, RATIOS, SEEDS, experiment, outcomes
from kto_lab.comparison.findings import is_lost
from kto_lab.comparison.protocol import BASE, MEASURE
from kto_lab.comparison.results import load_results
from kto_utils import evaluate, train, world
from kto_utils.evaluate import reply_logps
from kto_utils.losses import balanced_weights
from kto_utils.model import load_reference_model, reference_of
from kto_utils.plotting import use_course_style
from kto_utils.tokenizer import load_tokenizer

use_course_style()
predict("price_of_perfection", "From 23 thumbs up in 100 to 100 in 100: the least KL, whatever the method?",
        ["0", "about 1.5 nats", "about 15 nats", "it depends on the method"],
        guess=None, confidence=None)  # fmt: skip

# %% [markdown]
# ## 1. Perfection has a price
#
# Take one question with reference rate $p$. A policy that always earns a thumbs up has no mass elsewhere. The
# cheapest such policy keeps the good replies in their old proportions and multiplies each by the same factor $1/p$;
# to favour one of them would only add distance (the log-sum inequality). Then $\log(\pi/\pi_\text{ref}) = -\ln p$ on
# every reply it gives, so
#
# $$\mathrm{KL}(\pi \,\|\, \pi_\text{ref}) = -\ln p .$$
#
# Over several questions: the mean of $-\ln p$. Less is impossible, for **any** method.

# %%
reference = reference_of(load_reference_model())
reference_rates = price.question_rates(reference)  # of the 24 trained questions
perfection = sum(-math.log(p) for p in reference_rates) / len(reference_rates)

print(f"reference rates from {min(reference_rates):.4f} to {max(reference_rates):.4f}")
print(f"KL that perfection costs: {perfection:.4f} nats")
reveal("price_of_perfection", "b")

# %% [markdown]
# ### Exercise 7.4 · Two questions, one price
# ★☆☆ · 3 minutes · predict a number
#
# The reference earns a thumbs up for half of its replies to one question, and for one reply in eight to another.
# Afterwards every reply to both must earn one. What does that cost at least, in nats, averaged over the two
# questions?

# %% exercise="least_price"
answer = ...  # a number
### BEGIN SOLUTION
answer = (-math.log(1 / 2) - math.log(1 / 8)) / 2
### END SOLUTION

# %% check="least_price" points=1
check.least_price(answer)

# %% [markdown]
# ## 2. The cheapest way tilts all questions alike
#
# And for a rate $q$ below 1? All good replies grow by the factor $q/p$, all others shrink by $\frac{1-q}{1-p}$:
#
# $$\mathrm{KL} = q\ln\frac{q}{p} + (1-q)\ln\frac{1-q}{1-p} .$$
#
# With 24 questions the rate can be spread in many ways. Write the **log odds** of a rate as $\ln\frac{p}{1-p}$.
# (torch calls this function `logit`; it is not a model's logit.) The slope of the KL in $q$ is the log odds of $q$
# minus those of $p$. At the cheapest point all questions have the same slope $t$, else moving some rate from a steep
# question to a flat one would save. So
#
# $$q = \sigma\left(\ln\frac{p}{1-p} + t\right)$$
#
# with one $t$ for all. Find the $t$ that gives the wanted average by halving an interval.


# %%
def least_kl(reference_rates, target):
    p = torch.tensor(reference_rates, dtype=torch.float64)
    if target == 1.0:
        return float(-p.log().mean())
    low, high = 0.0, 60.0
    for _ in range(200):
        t = (low + high) / 2
        q = torch.sigmoid(p.logit() + t)  # logit here: log odds of a rate
        low, high = (t, high) if q.mean() < target else (low, t)
    return float((q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean())


for target in (0.25, 0.5, 0.75, 0.9, 0.99, 1.0):
    print(f"rate {target:.2f} costs at least {least_kl(reference_rates, target):.4f} nats")

# %% [markdown]
# "At least" is a strong word, so attack it. Draw 20,000 ways to spread an average rate of 0.75 over the 24 questions,
# each shifted so that its mean fits. Is one of them cheaper? And does the cheapest come close?

# %%
generator = torch.Generator().manual_seed(0)
p = torch.tensor(reference_rates, dtype=torch.float64)
noise = 0.3 * torch.randn(20_000, 24, generator=generator, dtype=torch.float64)
low, high = -5.0, 9.0 + torch.zeros(20_000, 1, dtype=torch.float64)
for _ in range(50):
    shift = (low + high) / 2
    q = torch.sigmoid(p.logit() + noise + shift)
    below = q.mean(-1, keepdim=True) < 0.75
    low, high = torch.where(below, shift, low), torch.where(below, high, shift)
kl = (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean(-1)

print(f"cheapest of 20,000: {kl.min():.4f} nats   least_kl: {least_kl(reference_rates, 0.75):.4f} nats")

# %% [markdown]
# ## 3. What the run of lesson 07 paid
#
# The distance of a policy: sum $\pi \log(\pi/\pi_\text{ref})$ over the 48 listed replies, and put every other text
# into **one** further outcome, "anything else". Lumping outcomes together can only hide differences, so this is a
# **lower bound** of the KL over all token sequences. Beside it stands an estimate from samples of the policy, cut
# after 24 tokens: the mean of $\log\pi - \log\pi_\text{ref}$, with its standard error.


# %%
def exact_kl(policy, reference, questions):
    def with_rest(model):
        logps = reply_logps(model, questions)
        rest = torch.log(-torch.expm1(logps.logsumexp(-1, keepdim=True)))  # log(1 - listed mass)
        return torch.cat((logps, rest), dim=-1)

    log_p, log_q = with_rest(policy), with_rest(reference)
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())


feedback = evaluate.collect_feedback(reference, world.trained_questions(), n=50, seed=0)
n_up = sum(row["label"] for row in feedback)
up_weight, down_weight = balanced_weights(n_up, len(feedback) - n_up)
policy, _ = train.train_kto(
    load_reference_model(), reference, feedback, load_tokenizer(), steps=120, learning_rate=1e-3,
    desirable_weight=up_weight, undesirable_weight=down_weight,
)  # fmt: skip

# %%
SETS = {"trained": world.trained_questions(), "new wording": world.reworded_questions(),
        "untouched facts": world.untouched_questions()}  # fmt: skip
paid = {}
print("                  thumbs up  anything else  least KL   bound   sampled KL")
for name, questions in SETS.items():
    rates = evaluate.rates(policy, questions)
    least = least_kl(price.question_rates(reference, questions), rates["thumbs_up"])
    bound = exact_kl(policy, reference, questions)
    sampled, error = price.sampled_kl(policy, reference, questions, n=32, seed=0)
    paid[name] = rates["thumbs_up"], sampled, error
    print(f"{name:<16} {rates['thumbs_up']:10.4f} {1 - rates['listed']:14.4f} {least:9.4f} {bound:7.4f} "
          f"{sampled:8.4f} ± {error:.4f}")  # fmt: skip

start = evaluate.rates(reference)["thumbs_up"]
targets = [start + (1 - start) * i / 100 for i in range(101)]
curve = [price.least_kl(reference_rates, target) for target in targets]
pictures.frontier(curve, targets, paid)

# %% [markdown]
# Perfect replies to the trained questions would have cost at least 1.46 nats, so this run's 95 in 100 were not cheap:
# above the least KL for its rate it paid a quarter of a nat by the bound, and about one nat by samples. The gap
# between the two is the price of what lies outside the list. On untouched facts nearly all of the distance bought
# nothing.

# %% [markdown]
# ## 4. SFT on the thumbs-up pays hardly more than the least
#
# That was one run, at its end. Was the way there cheap as well? And what do DPO, the method of the next lesson, which
# learns from pairs, and SFT on the thumbs-up alone pay? Ten runs each of this model, 100 steps. Learning rate and
# $\beta$ are those that lesson 08's search found best with all thumbs, by the mean rate of eight runs on other draws.
# This look at the ways was exploratory: no prediction was written down.

# %%
results = load_results()
for method in experiment("frontier").methods:
    rate, beta = results.choice(BASE, method, small=False)
    found = mean(results.store.search(BASE, method, small=False).scores((rate, beta)))
    print(f"{method:<4} learning rate {rate:g}, beta {beta or '-'}; thumbs-up rate in the search {found:.3f}")
frontier = {method: runs for (_, method), runs in outcomes(results, "frontier").items()}
pictures.paths(curve, targets, {method: [run["path"] for run in runs] for method, runs in frontier.items()})

# %%
print("        thumbs up                listed   nats above the least KL (bound)")
print("method  mean  lowest  highest    mean     mean  lowest  highest")
for method, runs in frontier.items():
    ups, listed, above = ([run[f"trained {key}"] for run in runs] for key in ("thumbs_up", "listed", "excess_kl"))
    print(f"{method:<6} {mean(ups):6.3f} {min(ups):6.3f} {max(ups):7.3f} {mean(listed):9.3f} {mean(above):9.2f} "
          f"{min(above):6.2f} {max(above):7.2f}")  # fmt: skip

# %% [markdown]
# **SFT** pays 0.03 nats more than the least, for a rate of 0.99. That is no luck. The liked replies were drawn from
# the reference, so what SFT copies is the reference *given* a thumbs up: all good replies in their old proportions.
# Section 1 found that to be the cheapest perfect policy. It holds while the thumbs are right and the replies are the
# model's own; lesson 08 flips some thumbs.
#
# **DPO** pays 0.93 nats above the least for a rate of 0.62, and a quarter of its probability has left the list.
#
# **KTO** ends anywhere from 0 to 0.91, three of its ten runs below the reference's 0.23. In the search the same setting
# had a mean of 0.83 and no such run: whoever picks the best mean of many shaky ones picks some luck too. The run of
# section 3, at a third of this learning rate, did better than all ten, and is one run. In most runs nearly all
# probability leaves the list within a few steps, and in some it comes back.
#
# ## 5. Three knobs and two edges
#
# Where does KTO collapse? The smaller model (hidden size 64), 100 steps, 20 runs for each setting, two of three knobs
# turned at a time: learning rate, $\beta$, and the ratio $\lambda_D n_D / (\lambda_U n_U)$, total weight of the ups
# over that of the downs. A run is **lost** (it has collapsed) if its thumbs-up rate, here on new wordings, ends below
# the reference's.

# %%
knobs, before = outcomes(results, "knobs"), results.reference[True]


def mean_and_lost(rate, beta=2.0, ratio=1.0):
    other = f"beta {beta:g}" if ratio == 1.0 else f"ratio {ratio:g}"
    runs = knobs[f"rate {rate:g} {other}", "kto"]
    return mean(run[MEASURE] for run in runs), sum(is_lost(run, before) for run in runs)


ratios = sorted((*RATIOS, 1.0))
over_beta = [[mean_and_lost(rate, beta=beta) for beta in KNOB_BETAS] for rate in KNOB_RATES]
over_ratio = [[mean_and_lost(rate, ratio=ratio) for ratio in ratios] for rate in KNOB_RATES]
pictures.knobs(len(SEEDS), KNOB_RATES, (KNOB_BETAS, over_beta), (ratios, over_ratio))

# %%
print(f"lost of 20; before: {before[MEASURE]:.4f}   rates: " + "  ".join(f"{rate:g}" for rate in KNOB_RATES))
for name, values, table in (("beta", KNOB_BETAS, over_beta), ("ratio", ratios, over_ratio)):
    for value, column in zip(values, zip(*table, strict=True), strict=True):
        print(f"   {name:<5} {value:4g}: {[n for _, n in column]}")

# %% [markdown]
# Runs are lost at the high rate, at the largest $\beta$, and where the downs outweigh the ups. More weight on the ups
# helps at every rate here, beyond the recommended band too: at ratio 4 no run was lost, and each row has its highest
# mean. These thumbs are all right; lesson 08 found KTO better without the downs, which says the same. Where thumbs are
# wrong, nobody tried it.
#
# ## 6. Ups alone teach, downs alone destroy
#
# If downs without enough ups are dangerous, what do downs alone do? And ups alone? The loss is defined for both. 20
# runs each, the smaller model, 100 steps, with the rate and $\beta$ of lesson 08's search; exploratory too. A second
# version mixes **demonstrations** into the loss: an SFT term of weight 0.2 on texts of the kind that the reference
# was made from, good and bad alike.

# %%
one_kind = outcomes(results, "one kind")
print("learning rate {:g}, beta {:g}".format(*results.choice(BASE, "kto")))
pictures.one_kind(one_kind, before)
for (kind, method), runs in one_kind.items():
    ups, listed = (mean(run[f"trained {key}"] for run in runs) for key in ("thumbs_up", "listed"))
    print(f"{kind:<11} {method:<21} thumbs up {ups:.3f}   listed {listed:.3f}")

# %% [markdown]
# Downs alone destroy: they say what to leave, nothing says where to go, and no probability is left on the list. At this
# weight demonstrations do not save these questions. Ups alone teach. There the demonstrations only hold back, since
# they show bad replies too.
#
# ## Recap
#
# - A rate has a price: at least the mean of $-\ln p$ for perfection, whatever the method.
# - The cheapest way to a lower rate raises the log odds of every question by the same amount.
# - One run of KTO paid a quarter of a nat more than the least by the bound, about one nat more by samples.
# - Too high a learning rate and too light thumbs-up collapse a run; single seeds collapse beside good ones.
# - Thumbs-down alone destroyed the model in every run; thumbs-up alone did not.

# %% [markdown]
# ## Sources
#
# - The least KL and the bound are derived here; "lumping can only lower a KL" is the data-processing inequality.
# - The weight band [1, 3/2]: KTO, arXiv 2402.01306, v4, Eq. 9 (v1, Eq. 8: up to 4/3).
# - The runs of sections 4 to 6: `kto_lab/comparison`, exploratory; `python course.py experiments` makes them.
#
# Back to [lesson 07](../07_train.ipynb). Next: [08](../08_kto_vs_dpo.ipynb), pairs instead of thumbs.
