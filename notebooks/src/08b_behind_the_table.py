# %% [markdown]
# # 08b · Behind the table
#
# See how lesson 08's settings were found, what its interval is worth, what the runs paid, and what else was tried.

# %% [markdown]
# **You will be able to**
# - show that DPO finds the optimum when choices are endless;
# - make pairs out of single thumbs;
# - say why a search can decide a comparison, and what an interval must stand up to;
# - say what the KTO paper reports, losses included.
#
# **You need first** lesson [08](../08_kto_vs_dpo.ipynb).
#
# **Time** {{times}}.

# %%
import numpy as np
import torch

from kto_course import check
from kto_lab.comparison import protocol
from kto_lab.comparison.exploratory import experiment, outcomes
from kto_lab.comparison.findings import lost, mean_of, spread, values_of
from kto_lab.comparison.protocol import BASE, CONDITIONS, EACH, MEASURE, WAYS, methods_of
from kto_lab.comparison.results import differences, load_results
from kto_utils.losses import dpo_loss
from kto_utils.plotting import use_course_style

use_course_style()
torch.set_default_dtype(torch.float64)

# %% [markdown]
# **Before you run anything.** Of eight runs one is lost and ends at 0, the others near 0.9. You draw eight at a time
# and make the usual bootstrap interval for the mean. How often does "95%" hold the true mean? Section 4 counts.
#
# ## 1. With endless choices DPO finds the optimum
#
# If choices really follow Bradley-Terry, the mean DPO loss over all pairs must be smallest at the optimal policy
# $\pi^*$. Do not trust the derivation; minimise. These are the three replies of lesson 08.

# %%
reference_probs = torch.tensor([0.5, 0.3, 0.2])
reward, beta = torch.tensor([0.0, 1.0, 0.4]), 0.5
best_policy = reference_probs * torch.exp(reward / beta)
best_policy = best_policy / best_policy.sum()

winner, loser = torch.tensor([(a, b) for a in range(3) for b in range(3) if a != b]).T
share = torch.sigmoid(reward[winner] - reward[loser])  # how often this choice is made
logits = torch.zeros(3, requires_grad=True)
optimizer = torch.optim.LBFGS([logits], max_iter=100, tolerance_grad=1e-12, line_search_fn="strong_wolfe")


def expected_loss():
    optimizer.zero_grad()
    logps, start = logits.log_softmax(-1), reference_probs.log()
    loss = (share * dpo_loss(logps[winner], logps[loser], start[winner], start[loser], beta)).sum()
    loss.backward()
    return loss


optimizer.step(expected_loss)
print("minimum of the DPO loss:", logits.detach().softmax(-1))
print("optimal policy:         ", best_policy)

# %% [markdown]
# They agree. But real pairs are few, and cover few replies. KTO has no such theorem.
#
# ## 2. Pairs leave thumbs unused

# %% [markdown]
# ### Exercise 8.4 · Pairs out of single thumbs
# ★★☆ · 8 minutes · fill in a function
#
# Make as many pairs as you can out of a list of rows. Both replies of a pair answer the same prompt, the chosen one
# has the thumb up, and each row goes into one pair at most. Which thumb up meets which thumb down is up to you, and
# so is the order of the pairs. Two rows with the same text are two thumbs.

# %% exercise="pairs_from_thumbs"
def my_pairs(rows):
    """A list of dicts with prompt, completion and label (True = thumb up) -> a list of pairs.

    A pair is a dict with prompt, chosen and rejected: three texts.
    """
    ### BEGIN SOLUTION
    ups, downs = {}, {}
    for row in rows:
        side = ups if row["label"] else downs
        side.setdefault(row["prompt"], []).append(row["completion"])
    return [
        {"prompt": prompt, "chosen": up, "rejected": down}
        for prompt in ups
        for up, down in zip(ups[prompt], downs.get(prompt, []), strict=False)
    ]
    ### END SOLUTION


# %% check="pairs_from_thumbs" points=3
check.pairs_from_thumbs(my_pairs)

# %% [markdown]
# ### What each method could use
#
# Thumbs do not arrive evenly. How many could DPO use, and how many could SFT? (One draw of each condition.)

# %%
results = load_results()
for condition in CONDITIONS:
    dpo, sft = (results.cell(condition, method)[0] for method in ("dpo", "sft"))
    print(f"{condition:<24} {dpo['rows']:5d} thumbs, {dpo['up']:4d} up   DPO can use {dpo['used'] / dpo['rows']:4.0%}, "
          f"SFT {sft['used'] / sft['rows']:4.0%}")  # fmt: skip

# %% [markdown]
# ## 3. Where the settings come from
#
# The search starts from six cells of a ladder of learning rates and one of betas, with three draws of thumbs. What is
# hopeless on these is dropped; the rest gets eight draws, and the best cell is taken once all its neighbours up and
# down both ladders were tried. Here is the search of KTO with all thumbs, mean thumbs-up rate on the trained
# questions:

# %%
tried = results.store.search(BASE, "kto").tried()
betas = sorted({beta for _, beta in tried})
print("rate      " + "".join(f"beta {beta:<8g}" for beta in betas))
for rate in sorted({rate for rate, _ in tried}):
    cells = [tried.get((rate, beta)) for beta in betas]
    print(f"{rate:<9g} " + "".join(f"{np.mean(c):.2f} ({len(c)})     "[:13] if c else " " * 13 for c in cells))
print("chosen:", results.choice(BASE, "kto"))

# %% [markdown]
# What all the searches chose, learning rate and beta; the first column is what "tuned once" uses:

# %%
print(" " * 15 + "".join(f"{name[:13]:>14}" for name in CONDITIONS))
for method in protocol.METHODS:
    cells = []
    for condition in CONDITIONS:
        rate, beta = results.choice(condition, method, EACH) if method in methods_of(condition) else ("-", None)
        cells.append(f"{rate}" + ("" if beta is None else f", {beta:g}"))
    print(f"{method:<15}" + "".join(f"{cell:>14}" for cell in cells))

# %% [markdown]
# A choice at the end of a ladder would say "nobody looked further". These stand there:

# %%
for condition in CONDITIONS:
    for method in methods_of(condition):
        search = results.store.search(condition, method)
        if search.at_edge(search.choice()):
            chosen, _ = search.choice()
            scores = {beta: np.mean(found) for (rate, beta), found in search.tried().items() if rate == chosen}
            print(f"{condition} {method}, rate {chosen:g}:", *(f"beta {b:g}: {x:.3f} " for b, x in scores.items()))

# %% [markdown]
# Only cDPO, and only where a third or more of the thumbs are flipped. A smaller beta still would ask for larger
# margins; the step from 0.12 to 0.03 gains little, and no prediction speaks of these two cells.
#
# Is the file genuine? Two of its runs again, here and now, every number compared.

# %%
for method in ("kto", "dpo"):
    stored = results.cell("both kinds on a quarter", method)[0]
    print(f"{method}: thumbs-up {stored[MEASURE]:.4f} stored; differing numbers in a fresh run: {differences(stored)}")

# %% [markdown]
# ## 4. What an interval must stand up to
#
# Runs end near 0.9, or at 0. Draw such numbers, make the interval, and count how often it holds the truth: the usual
# percentile bootstrap for the mean, and the interval by ranks for the median, which lesson 08 uses.

# %%
generator = np.random.default_rng(0)


def like_runs(n, lost=0.125):
    return np.where(generator.random(n) < lost, 0.0, generator.normal(0.9, 0.03, n))


true_mean, true_median = 0.875 * 0.9, float(np.median(like_runs(1_000_000)))
for n in (8, 20, 30):
    by_bootstrap, by_ranks = 0, 0
    for _ in range(400):
        values = like_runs(n)
        means = generator.choice(values, (999, n)).mean(1)
        low, high = np.quantile(means, (0.025, 0.975))
        by_bootstrap += low <= true_mean <= high
        found = spread(values)
        by_ranks += found.low <= true_median <= found.high
    print(f"{n:2d} runs: bootstrap of the mean {by_bootstrap / 400:.0%}, median by ranks {by_ranks / 400:.0%}")

# %% [markdown]
# The bootstrap of a mean knows only the runs that it has: where none was lost, it has never heard of zero. Ranks ask
# nothing of the shape. But they ask about the **median** run; that is why lesson 08 prints lost runs beside it.
#
# ## 5. What the runs paid
#
# First the median and the share of lost runs with its 95% interval (Wilson's), tuned once:

# %%
for condition in CONDITIONS:
    for method in methods_of(condition):
        median = spread(values_of(results, condition, method)).median
        n_lost, n, low, high = lost(results, condition, method)
        print(f"{condition:<24} {method:<14} median {median:.2f}   lost {n_lost:2d} of {n} [{low:.2f}, {high:.2f}]")

# %% [markdown]
# And what was paid? How far did the model move (KL, nats, a lower bound), how much probability left the listed
# replies, and what became of facts that got no thumbs? Tuned for each condition:

# %%
for title, measure in (("KL to the reference", "trained kl"), ("on unlisted replies", "new wording unknown"),
                       ("untouched facts: right", "untouched facts right")):  # fmt: skip
    print(f"{title:<24}" + "".join(f"{method:>14}" for method in protocol.METHODS))
    for condition in CONDITIONS:
        cells = [f"{mean_of(results, condition, method, measure, EACH):.2f}" if method in methods_of(condition) else ""
                 for method in protocol.METHODS]  # fmt: skip
        print(f"{condition:<24}" + "".join(f"{cell:>14}" for cell in cells))
print(f"untouched facts right before training: {results.reference[True]['untouched facts right']:.2f}")

# %% [markdown]
# The KL says little about quality: with all thumbs KTO with weights 1 paid most and reached least. An SFT term
# usually keeps probability on the listed replies at rates of 0.003 or less, but not with both kinds on a quarter of the
# questions, nor for KTO with a tenth of the thumbs-up. And facts without thumbs fall in most rows, furthest with plain
# SFT.
#
# ## 6. What drives KTO
#
# Two numbers from inside KTO's runs: which share of the push came from thumbs-up, and in which share of steps $z_0$ was
# above 0. Where it was not, KTO is KTO with a reference point of 0. Then runs in which it **is** 0 throughout.

# %%
for way in WAYS:
    print(way)
    for condition in CONDITIONS:
        up, positive = (mean_of(results, condition, "kto", name, way) for name in ("push_up", "z0_positive"))
        print(f"  {condition:<24} push from thumbs-up {up:.2f}   z0 above 0 in {positive:.0%} of steps")
for name in ("mismatched", "zero"):
    runs = outcomes(results, "reference point")[BASE, name]
    print(f"all thumbs, z0 {name}: thumbs-up rate {np.mean([run[MEASURE] for run in runs]):.3f}")

# %% [markdown]
# Where the rate is high, $z_0$ is clamped to 0 in most steps and could be left out. It wakes up where the search took a
# small rate, near the reference: with much noise and with few thumbs-up. ([09b](09b_tastes.ipynb) asks what each
# estimate of $z_0$ would say.)
#
# ## 7. What else was looked at
#
# Three explorations, 20 runs a cell, settings as chosen for all thumbs. Nothing was predicted, so nothing is
# confirmed.


# %%
def table(name, measure=MEASURE):
    for (condition, method), runs in outcomes(results, name).items():
        found, trained = (spread([run[name] for run in runs]) for name in (measure, "trained thumbs_up"))
        print(f"{condition:<12} {method:<6} mean {found.mean:6.3f}   median {found.median:6.3f} "
              f"[{found.low:.3f}, {found.high:.3f}]   trained questions {trained.mean:.3f}")  # fmt: skip


for name in ("more steps", "skip SFT"):
    print(experiment(name).question)
    table(name)

# %% [markdown]
# **More steps.** With 400 steps KTO rises and passes plain SFT, whose rate of 0.01 now fits the trained questions even
# better and the new wordings worse; DPO stays where it was, so it was not merely slow. One more reason not to call a
# winner with clean thumbs.
#
# **Skip SFT.** The thumbs are the same, and the less SFT came before, the less DPO and KTO reach; from nothing both end
# at nothing. SFT on the thumbs-up suffers least. Here preference learning cannot do alone.
#
# And the replies' length, in characters?

# %%
table("length", "new wording length")
print(f"before training: {results.reference[True]['new wording length']:.3f} characters")

# %% [markdown]
# All three follow the length of the liked replies, in both directions. None grows longer by itself.
#
# "KTO can skip SFT" is often repeated. The paper shows it for Llama-13B and 30B; its Table 1 (v4) has a
# counter-example, Qwen2.5-3B Instruct: with SFT (beta 0.1) BBH 32.39 and AlpacaEval 13.01, without (beta 0.5) 20.41
# and 16.63.
#
# ## 8. What the paper reports, losses included
#
# Zephyr-beta-SFT trained on UltraFeedback for one epoch, arXiv 2402.01306 v4, Table 2. We typed these in; nothing
# here recomputes them. The table gives no number of runs and no intervals.
#
# | | MMLU | GSM8K | HumanEval | BBH | TydiQA | AlpacaEval 2 |
# |---|---|---|---|---|---|---|
# | SFT | 57.2 | 39.0 | 30.1 | 46.3 | 36.3 | 6.4 |
# | DPO | 58.2 | 40.0 | 30.1 | 44.1 | **36.5** | 7.8 |
# | KTO | 58.6 | **53.5** | 30.9 | **52.6** | 31.2 | **12.5** |
#
# KTO wins clearly on GSM8K and BBH, and **loses on TydiQA**, to DPO and to doing nothing after SFT. (With one reply
# for each prompt, KTO's TydiQA was 37.7 in the same table.) Two more reports, to keep the head cool:
#
# - A rerun by the same author inside TRL, Hugging Face's training library (pull request 1402, March 2024), gave
#   TydiQA 40.7 for KTO and 22.6 for DPO: the other way round. DPO's GSM8K was 18.5 there, so that DPO run may have
#   gone wrong.
# - With Mistral-7B on OpenAssistant, human raters preferred KTO's replies to the target in 72.9 ± 5.3% of cases and
#   DPO's in 62.1 ± 5.7% (v4, appendix D, 90% intervals); with GPT-4 as the judge, 65.2 against 60.0 was not
#   significant.
#
# The paper's own advice (v4, section 4.5): binary feedback, above all unbalanced, KTO; preferences with little noise
# and little intransitivity, DPO.
#
# ## 9. Where feedback comes from, and what it costs
#
# | feedback | where it arises | cost | trap |
# |---|---|---|---|
# | thumbs on live replies | every product with two buttons | almost none | few and unbalanced |
# | accepted or deleted suggestions | code and text assistants | none, it is a log | silence is not a thumb |
# | pairs, side by side | paid annotation, arenas | two replies and a careful reader | position and length bias |
# | star ratings | reviews, surveys | small | users' scales differ |
# | reward-model scores | PPO and its relatives | a model to train | the policy pleases the model |
#
# KTO and DPO learn from stored replies. Methods that let the policy write while it learns, PPO and GRPO, come in
# lesson [09](../09_halos.ipynb).
#
# ## Recap
#
# 1. DPO finds the optimum of endless Bradley-Terry choices. Few pairs over few replies are something else.
# 2. A search can decide a comparison: widen it until the choice has neighbours, and score it on enough draws.
# 3. Rates of "0.9 or 0" break the bootstrap of a mean. Ranks and sign flips stand.
# 4. A rate is half of a result: beside it stand the lost runs, and what was paid.

# %% [markdown]
# ## Sources
#
# - KTO, arXiv 2402.01306 v4: Tables 1 and 2, section 4, appendix D. (v1 has the numbers of Table 2 in its Table 3.)
# - TRL pull request 1402.
# - Everything else: computed above, or in `kto_lab/results/comparison.jsonl`; `python course.py experiments` makes what
#   is missing.
#
# Back to [08](../08_kto_vs_dpo.ipynb), or on to [09 · The family](../09_halos.ipynb).
