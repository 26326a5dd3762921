# %% [markdown]
# # 07 · Training with thumbs
#
# Collect 1,200 thumbs, train with KTO in a loop of 25 lines, read its logs, and compute exactly what got better and what it cost.

# %% [markdown]
# **You will be able to**
# - write the whole KTO training loop from memory;
# - read its logs: which numbers must move, which may stay at zero, which mean trouble;
# - say how far a model must move to reach a thumbs-up rate, and how far yours did move;
# - stop a run at any moment and continue it bit for bit.
#
# **You need first** the KTO loss and the reference point $z_0$ ([lesson 06](06_kto_loss.ipynb)). Batches and log-probabilities are used ready-made ([04](04_collator.ipynb), [05](05_get_probs.ipynb)).
#
# **Time** about {{minutes}} minutes to read, {{seconds}} s to run.

# %% [markdown]
# **Before you run anything**
#
# A model earns a thumbs up for 23 replies in 100. You may change it in any way you like, but afterwards every reply must earn a thumbs up. How far from the old model must the new one be **at least**, in nats of KL? Zero, about 1.5, about 15, or does it depend on the method? Section 3 computes it.

# %%
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from kto_utils import evaluate, recipes, train, world
from kto_utils.collator import KTOPaddingCollator
from kto_utils.data import tokenize_feedback
from kto_utils.evaluate import reply_logps
from kto_utils.logprobs import sequence_logps
from kto_utils.losses import balanced_weights, kto_loss, reference_point
from kto_utils.model import load_reference_model, reference_of, tiny_llama, to_float64
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, label_line, save_figure, use_course_style
from kto_utils.tokenizer import load_tokenizer

use_course_style()
torch.set_printoptions(precision=4, sci_mode=False)
tokenizer = load_tokenizer()

# %% [markdown]
# ## 1. Where the reference came from
#
# KTO starts from a model that can already speak. Ours learned that by **supervised fine-tuning** (SFT): it read replies and raised their probability, good and bad alike. No thumb was involved.
#
# The replies are random on purpose: polite half of the time and, independently, right half of the time.

# %%
texts = world.sft_rows(recipes.SFT_ROWS_PER_QUESTION, seed=0)

print(f"{len(texts):,} texts on {len(world.all_questions())} questions")
for row in texts[:4]:
    print(row["prompt"] + row["completion"])

# %% [markdown]
# The SFT loss is the mean over completion tokens of $-\log \pi(\text{token} \mid \text{what came before})$, in nats per token. An untrained model spreads its probability over $V = 512$ tokens, so expect about $\ln 512$ at the first step.
#
# The recipe takes 400 steps. Here are 30, so that you see the loss fall.

# %%
scratch = to_float64(tiny_llama(recipes.VOCAB_SIZE, **recipes.REFERENCE_SHAPE, seed=0, dtype=torch.float64))
print(f"ln 512 = {math.log(512):.4f}")

scratch, sft_history = train.train_sft(
    scratch, texts, tokenizer, **recipes.SFT_SETTINGS | {"steps": 30}, log_every=10
)
print(f"step 1: {sft_history[0]['loss']:.4f}")

# %% [markdown]
# What does it say after 30 steps? A young model can emit any bytes, so from here on replies are printed through a helper that shows unusual characters as escapes and cuts what is too long.


# %%
def visible(text: str, width: int = 70) -> str:
    """The text with every character outside printable ASCII escaped, cut to width characters."""
    escaped = text.encode("unicode_escape").decode("ascii")
    return escaped if len(escaped) <= width else escaped[: width - 3] + "..."


sky = world.trained_questions()[0]
print(sky.text)
for text in evaluate.sample(scratch, sky, n=4, seed=0):
    print("  ", visible(text))

# %% [markdown]
# Words of the right kind, sentences of no kind. 370 more steps make the model that ships with the course; `kto_utils/recipes.py` holds the whole recipe. You load the result twice over: a **policy** that will learn, and its frozen copy, the **reference**.

# %%
policy = load_reference_model()
reference = reference_of(policy)

print(sky.text)
for text in evaluate.sample(reference, sky, n=6, seed=0):
    print("up  " if world.judge(sky, text) else "down", visible(text))

# %% [markdown]
# ## 2. Exact marks instead of samples
#
# Our simulated human gives thumbs up only to a reply that is **polite and right**. In this world a question has 48 possible replies: 6 templates times 8 answers. So nothing has to be estimated. Ask the model for all 48 probabilities.

# %%
replies = world.replies(sky)
probabilities = reply_logps(reference, [sky]).exp()[0]

for i in probabilities.argsort(descending=True)[:8].tolist():
    mark = "up  " if replies[i].thumbs_up else "down"
    print(f"{probabilities[i]:.4f}  {mark} {replies[i].text}")
print(f"{probabilities.sum():.4f}  all 48 together")

# %% [markdown]
# The 48 do not add up to 1. The rest lies on texts that nobody listed: slips, loops, half sentences. We report that rest and never hide it.
#
# Three shares of a model's replies, then, and the mass that they rest on, each averaged over questions:


# %%
def rates(model, questions):
    probabilities = reply_logps(model, questions).exp()  # (questions, 48)
    table = [world.replies(question) for question in questions]

    def share(wanted):
        chosen = torch.tensor([[wanted(reply) for reply in row] for row in table])
        return float((probabilities * chosen).sum(-1).mean())

    return {
        "thumbs_up": share(lambda reply: reply.thumbs_up),
        "polite": share(lambda reply: reply.polite),
        "right": share(lambda reply: reply.right),
        "listed": float(probabilities.sum(-1).mean()),
    }


# %% [markdown]
# We ask three sets of questions. Thumbs will be given on the first only.
#
# - **trained**: 24 questions in their first wording;
# - **new wording**: the same 24 facts, asked differently;
# - **untouched facts**: 8 facts that no thumb will ever touch.

# %%
SETS = {
    "trained": world.trained_questions(),
    "new wording": world.reworded_questions(),
    "untouched facts": world.untouched_questions(),
}
before = {name: rates(reference, questions) for name, questions in SETS.items()}

print(f"{'reference':<16} thumbs up  polite   right  listed")
for name, r in before.items():
    print(f"{name:<16} {r['thumbs_up']:9.4f} {r['polite']:7.4f} {r['right']:7.4f} {r['listed']:7.4f}")

# %% [markdown]
# Half polite, about half right, 23 in 100 both: the mixture it was taught. From the next lesson on `rates` is imported from `kto_utils.evaluate`: the same mathematics plus error checks.
#
# Does sampling agree? 400 sampled replies to one question against the exact number:

# %%
exact = float(probabilities[[reply.thumbs_up for reply in replies]].sum())
heard = evaluate.sample(reference, sky, n=400, seed=1)
share = sum(world.judge(sky, text) for text in heard) / 400
error = math.sqrt(exact * (1 - exact) / 400)

print(f"exact {exact:.4f}   sampled {share:.4f} ± {error:.4f}")
assert abs(share - exact) < 3 * error

# %% [markdown]
# ## 3. What perfection costs
#
# Take one question with reference rate $p$. A policy that always earns a thumbs up has no mass elsewhere. The cheapest way there is to multiply every good reply by the same factor $1/p$. Then $\log(\pi/\pi_\text{ref}) = -\ln p$ on every reply it gives, so
#
# $$\mathrm{KL}(\pi \,\|\, \pi_\text{ref}) = -\ln p .$$
#
# Over several questions: the mean of $-\ln p$.

# %%
reference_rates = evaluate.question_rates(reference)
perfection = sum(-math.log(p) for p in reference_rates) / len(reference_rates)

print(f"reference rates from {min(reference_rates):.4f} to {max(reference_rates):.4f}")
print(f"KL that perfection costs: {perfection:.4f} nats")

# %% [markdown]
# That is the answer to the question at the top: about 1.5 nats, for **any** method. Less is impossible.
#
# And for a rate below 1? The cheapest policy multiplies the odds of thumbs up by one factor $e^t$, the same on all questions:
#
# $$q = \sigma(\mathrm{logit}\,p + t), \qquad \mathrm{KL} = t\,q - \ln(1 - p + p\,e^t).$$
#
# Find the $t$ that gives the wanted average by halving an interval.


# %%
def least_kl(reference_rates, target):
    p = torch.tensor(reference_rates, dtype=torch.float64)
    if target == 1.0:
        return float(-p.log().mean())
    low, high = 0.0, 60.0
    for _ in range(200):
        t = (low + high) / 2
        q = torch.sigmoid(p.logit() + t)
        low, high = (t, high) if q.mean() < target else (low, t)
    return float((t * q - torch.log1p(p * (math.exp(t) - 1))).mean())


for target in (0.25, 0.5, 0.75, 0.9, 0.99, 1.0):
    print(f"rate {target:.2f} costs at least {least_kl(reference_rates, target):.4f} nats")

# %% [markdown]
# "At least" is a strong word, so attack it. Draw 20,000 random ways to spread rates over the 24 questions, compute the KL of each, and see whether one is cheaper than `least_kl` says.

# %%
generator = torch.Generator().manual_seed(0)
p = torch.tensor(reference_rates, dtype=torch.float64)
centre = torch.rand(20_000, 1, generator=generator, dtype=torch.float64) * 6 - 1
q = torch.sigmoid(centre + torch.randn(20_000, 24, generator=generator, dtype=torch.float64) / 4)
kl = (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean(-1)
gaps = [float(k) - least_kl(reference_rates, float(rate)) for k, rate in zip(kl[:2000], q.mean(-1)[:2000])]

print(f"cheaper than least_kl: {sum(gap < 0 for gap in gaps)} of {len(gaps)}; closest {min(gaps):.4f} nats above")
assert min(gaps) > 0
