# %% [markdown]
# # 10b · The other fourteen exhibits
#
# The rest of the museum, a log and an explanation each; closer looks at four of them; and an exhibit of your own.

# %% [markdown]
# **You will be able to**
# - tell a divided score from a small beta, and a missing clamp from a clamp in the wrong place,
# - name the faults that leave no sign in a log, and show them on five rows instead,
# - put a fault of your own into the course's code and read what its log says.
#
# **You need first** lesson [10](../10_bug_museum.ipynb): its five questions, and how an exhibit hangs.
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything.** With batches of 15, an odd number, somebody *reverses* the completions instead of
# rotating them. One row in fifteen then keeps its own. Would you see it in the log? (Exhibit 15.)

# %%
import torch
from IPython.display import Markdown

from kto_course import check
from kto_course.pictures import lesson_10b as pictures
from kto_lab import museum
from kto_lab.mutants import MUTANTS, Edit, Mutant, applied
from kto_utils.collator import mismatched
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.losses import reference_point
from kto_utils.model import load_reference_model, reference_of, tiny_llama, to_float64
from kto_utils.plotting import use_course_style
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import train_kto, train_sft
from kto_utils.world import replies, sft_rows, trained_questions

use_course_style()
torch.set_default_dtype(torch.float64)
tokenizer = load_tokenizer()
print(museum.log(0))

# %% [markdown]
# ## 1. The score
#
# Above: the healthy run, to compare with. Look, guess, open the fault, then the explanation.
#
# ### Exhibits 2 and 4
#
# By which factors are the first gradients too small? What could divide by that? (How many cells does a batch have,
# counting every place of every row?)

# %%
print(museum.log(2), museum.log(4), sep="\n\n")
Markdown(museum.fault(2) + "\n\n" + museum.fault(4))

# %% [markdown]
# <details><summary>Why they do that</summary>
#
# 2: dividing by the number of completion tokens in the **batch** makes every log-ratio more than a hundred times
# smaller, like a beta a hundred times smaller. And the score of a row depends on who sits beside it.
#
# 4: the sigmoid belongs around the sum of a reply; here it is applied to every cell of the (B, T) table, prompt and
# padding included, and then averaged. The first gradient is that of the healthy run divided by T - 1, the number of
# places in a row.
# </details>
#
# ### Exhibit 6
#
# It differs from the healthy log. But would you suspect it?

# %%
print(museum.log(6))
Markdown(museum.fault(6))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# The shipped model already knows how to stop, and no reply in these rows is liked or disliked for its end, so nothing
# goes wrong here. Where a model has yet to learn to stop it does: see *Closer looks*.
# </details>
#
# ### Exhibit 7
#
# The reward of thumbs up passes its ceiling, 0.28. But these replies can be read.

# %%
print(museum.log(7))
Markdown(museum.fault(7))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# The tokens behind a short reply are all padding, and no model was ever asked to predict them. Scored, they move the
# log-ratio by many nats, the more the shorter a reply is beside its neighbours.
# </details>
#
# ## 2. The reference
#
# ### Exhibit 8
#
# Before any step has been taken, what could make a log-ratio differ from 0? And why is the first loss nearly right all
# the same?

# %%
print(museum.log(8))
Markdown(museum.fault(8))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# "Stay close to the reference" now means "stay close to a stranger that cannot speak", and at step 1 kl is dozens of
# nats instead of 0. In the loss beta times kl nearly cancels the rewards, so the first loss looks almost innocent.
# </details>
#
# ### Exhibit 10
#
# The same clean zeros as exhibit 9. One column differs.

# %%
print(museum.log(10))
Markdown(museum.fault(10))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# Again one object, but this time the reference's half carries a gradient too. The two halves cancel: gradient norm
# exactly 0, a model that has not moved, and a loss that still wiggles like a real one.
# </details>
#
# ## 3. The reference point
#
# ### Exhibit 11
#
# Nobody could guess this one: open the fault first, and predict what the log has in common with the healthy one.

# %%
print(museum.log(11))
Markdown(museum.fault(11))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# The gradient also flows through $z_0$, so the mismatched pairs are pushed too, against the rows. While the clamp holds
# $z_0$ at 0 there is nothing to flow through, and here that is most of the time. (The first form of KTO, of December
# 2023, let it through on purpose.)
# </details>
#
# ### Exhibit 12
#
# Which column has lost something that the healthy run has?

# %%
print(museum.log(12))
Markdown(museum.fault(12))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# The rows' own replies are the very ones being pushed: the mean of their log-ratios is no background level. With many
# thumbs down it soon falls below 0, and the clamp makes it 0.
# </details>
#
# ### Exhibits 13 and 14
#
# In both, one column never does what the healthy one does most of the time. Which value of the second is impossible for
# a KL? And who gains from it?

# %%
print(museum.log(13), museum.log(14), sep="\n\n")
Markdown(museum.fault(13) + "\n\n" + museum.fault(14))

# %% [markdown]
# <details><summary>Why they do that</summary>
#
# 13: the mean of positive parts is positive even where the mean is not, so kl is above 0 nearly always. The order
# matters: first the mean, then the clamp.
#
# 14: disliked replies sink, mismatched ones sink with them, and without the clamp $z_0$ sinks too. A liked row then
# stands far above $z_0$ and is pushed much less; a disliked row is never far below it, since $z_0$ runs after it, and
# is pushed on and on.
# </details>
#
# ### Exhibit 15
#
# The batch has 15 rows, an odd number. Open the fault first.

# %%
print(museum.log(15))
Markdown(museum.fault(15))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# In an odd batch the middle row keeps its own completion, and one log-ratio in fifteen is a matched one. In an even
# batch nothing at all is wrong.
# </details>
#
# ## 4. Weights and loss
#
# ### Exhibit 17
#
# 267 thumbs up, 933 down, and a first loss of 0.5. Was that to be expected?

# %%
print(museum.log(17))
Markdown(museum.fault(17))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# All weights are 1, so the push downwards wins by more than three to one: the run has collapsed (lesson
# [07](../07_train.ipynb)). With weights from the counts the first loss would have been that of exhibit 0; exactly 0.5
# says that both weights are 1. Weights that do not arrive are a family of their own. TRL's fused loss (Liger) never
# received them, for a year and a half, without a word (Sources).
# </details>
#
# ### Exhibit 19
#
# Open the fault first. When does it matter where beta stands?

# %%
print(museum.log(19))
Markdown(museum.fault(19))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# $z_0$ is subtracted in raw nats, ten times too heavy. While the clamp keeps it at 0 nothing differs; a kl of 2 nats
# would shift the argument by 2 instead of 0.2.
# </details>
#
# ### Exhibit 20
#
# Divide the first loss by that of exhibit 0. Where have you met the ratio?

# %%
print(museum.log(20))
Markdown(museum.fault(20))

# %% [markdown]
# <details><summary>Why it does that</summary>
#
# The ratio is 1.386 = 2 ln 2: $-\log \sigma(u)$ instead of $1 - \sigma(u)$, DPO's habit, which never gives up on
# hopeless rows. In this small world that does no harm; in the paper's ablation it cost 9.4 points on BBH and 11.0 on
# GSM8K (v4, Table 2).
# </details>

# %% [markdown]
# ### Exercise 10.4 · Four exhibits in one function
# ★★★ · 10 minutes · repair a function
#
# Somebody wrote the losses of a batch. Exhibits 11, 13, 19 and 20 are all in it. Repair all four.
#
# ```python
# def broken_losses(r, r_mismatched, label, beta, weight_up, weight_down):
#     z0 = r_mismatched.clamp(min=0).mean()
#     sign = 2.0 * label - 1.0
#     losses = -torch.nn.functional.logsigmoid(sign * (beta * r - z0))
#     return torch.where(label, weight_up * losses, weight_down * losses)
# ```

# %% exercise="four_faults"
def my_losses(r, r_mismatched, label, beta, weight_up, weight_down):
    """KTO's loss of each row: (B,) in nats, (B,) in nats, (B,) bool with True = up, three numbers -> (B,).

    r are the log-ratios of the rows, r_mismatched those of mismatched replies, from which z0 is made.
    """
    ### BEGIN SOLUTION
    z0 = r_mismatched.mean().clamp(min=0).detach()
    sign = 2.0 * label - 1.0
    losses = torch.sigmoid(-sign * beta * (r - z0))
    return torch.where(label, weight_up * losses, weight_down * losses)
    ### END SOLUTION


# %% check="four_faults" points=4
check.four_faults(my_losses)

# %% [markdown]
# ## 5. Closer looks
#
# **Exhibit 1**, no shift. A fresh small model, 100 steps on the eight rows of lesson 03. At each completion token: is
# the model's best guess the token it has just read, or the next one?

# %%
rows = load_eight_rows()
liked = [tokenize_feedback(row, tokenizer) for row in rows if row["label"]]


def guesses(model):
    """Shares of completion tokens at which the model's best guess is (the same token, the next one)."""
    same = after = places = 0
    for example in liked:
        ids = torch.tensor(example["input_ids"])
        with torch.no_grad():
            best = model(input_ids=ids[None]).logits[0].argmax(-1)
        inside = torch.tensor(example["label_mask"], dtype=torch.bool)[:-1]
        same += int((best[:-1] == ids[:-1])[inside].sum())
        after += int((best[:-1] == ids[1:])[inside].sum())
        places += int(inside.sum())
    return same / places, after / places


for exhibit in (0, 1, 22):
    with applied(museum.mutant(exhibit)):
        model = to_float64(tiny_llama(len(tokenizer), hidden_size=64, intermediate_size=128))
        model, history = train_kto(model, reference_of(model), rows, tokenizer, steps=100, batch_size=8,
                                   learning_rate=1e-3, desirable_weight=5 / 3)  # fmt: skip
    same, after = guesses(model)
    first, last = history[0], history[-1]
    rewards = f"reward up {last['reward_desirable']:.2f}, down {last['reward_undesirable']:5.2f}"
    print(f"exhibit {exhibit:2d}: loss {first['loss']:.3f} -> {last['loss']:.3f}, {rewards}; "
          f"guesses the current token {same:4.0%}, the next {after:4.0%}")  # fmt: skip

# %% [markdown]
# The first two losses fall to almost nothing. The loss cannot tell you; a glance at what the model predicts can.
#
# **Exhibit 22** on the same rows, last line: eight replies leave room, so disliked ones climb as high as liked ones.
#
# **Exhibit 6**, the end unscored, where a model has yet to learn to stop: sixty steps of supervised training from
# scratch, and then the exact chance that the model ends a complete reply.

# %%
finished = []
for question in trained_questions():
    liked_text = next(reply for reply in replies(question) if reply.thumbs_up).text
    row = {"prompt": question.prompt, "completion": liked_text, "label": True}
    finished.append(tokenize_feedback(row, tokenizer))


def chance_to_end(model):
    """The probability of eos after each finished reply, averaged."""
    chances = []
    for row in finished:
        with torch.no_grad():
            last = model(input_ids=torch.tensor([row["input_ids"][:-1]])).logits[0, -1].softmax(-1)
        chances.append(float(last[tokenizer.eos_token_id]))
    return sum(chances) / len(chances)


print(f"the shipped model:         {chance_to_end(load_reference_model()):.4f}")
for exhibit in (0, 6):
    with applied(museum.mutant(exhibit)):
        model = to_float64(tiny_llama(len(tokenizer), hidden_size=64, intermediate_size=128))
        model, _ = train_sft(model, sft_rows(10, seed=0), tokenizer, steps=60, batch_size=32)
    print(f"from scratch, exhibit {exhibit}:   {chance_to_end(model):.4f}")

# %% [markdown]
# **Exhibits 13, 14 and 15** need no training at all: two log-ratios show the clamp, five rows the reversal.

# %%
five = [tokenize_feedback(row, tokenizer) for row in rows[:5]]


def completion(row):
    return [token for token, scored in zip(row["input_ids"], row["label_mask"], strict=True) if scored]


for exhibit in (0, 13, 14, 15):
    with applied(museum.mutant(exhibit)):
        mixed = reference_point(torch.tensor([-3.0, 5.0]), torch.zeros(2))
        both_low = reference_point(torch.tensor([-3.0, -5.0]), torch.zeros(2))
        borrowed = mismatched(five)
    kept = [i for i in range(5) if completion(borrowed[i]) == completion(five[i])]
    print(f"exhibit {exhibit:2d}   z0 of (-3, 5): {mixed:.2f}   of (-3, -5): {both_low:5.2f}   own kept: {kept}")

# %% [markdown]
# ## 6. Make an exhibit of your own
#
# A mutant is an `Edit`: a function, the right words (they must stand exactly once in it), the wrong words. While it is
# applied, the edited function takes the place of the original everywhere. First the proof that the stored runs are what
# this code does: run the first two steps of any exhibit.

# %%
exhibit = 18  # any number from 0 to 22
_, fresh = museum.train(MUTANTS[museum.of_number(exhibit)["name"]], seed=0, steps=2)
print("gradient norms here:    ", [f"{norm:.5f}" for norm in fresh["grad_norm"]])
print("gradient norms in file: ", [f"{norm:.5f}" for norm in museum.of_number(exhibit)["grad_norm"][:2]])

# %% [markdown]
# Now let thumbs up and down change places in `losses.kto_loss`. What will the rewards do, and what the loss? Guess,
# look, then change it to something of your own and let somebody else guess.

# %%
mine = Mutant(
    "mine", "Thumbs up and down change places.",
    (Edit("losses.kto_loss", "sign = 2.0 * up - 1.0", "sign = 1.0 - 2.0 * up"),), caught_by=(),
)  # fmt: skip
_, record = museum.train(mine, steps=100)  # its learning rate falls twice as fast as the grey one
print(museum.log(record))
pictures.own_exhibit(record)

# %% [markdown]
# The rewards are upside down; the loss looks like any other. It measures how well the model does what the code says,
# not what you meant.

# %% [markdown]
# ## Recap
#
# 1. Divided scores (2, 3, 4) and a doubled beta (18) all make the first gradient small; the rewards at step 2 tell them
#    apart.
# 2. kl says where the clamp stands: below 0 there is none, above 0 nearly always it stands inside the mean.
# 3. A gradient of exactly 0 from the first step on: the two halves of the log-ratio cancel, as in exhibit 10, or no
#    graph reaches the weights. Later it can be saturation.
# 4. Exhibits 6, 11, 15 and 19 leave no sign in a log; a test on a few rows finds each.
# 5. The loss measures what the code says, not what you meant.

# %% [markdown]
# ## Sources
#
# - Exhibit 6: TRL 1591, 1418, 2093, 6321 are threads about BOS, EOS and truncation, none of them exactly this.
# - Exhibit 10: a relative in TRL 1722, where `loss.requires_grad_(True)` was the "fix", and trained nothing.
# - Exhibit 11: HALOs d49576f and TRL's `kto_pair` (1075) let the gradient through; HALOs bc68c05 and TRL 1181 stop it.
# - Exhibit 12: TRL 1.16.0 gets there in two corners, a last batch of one row and the seams between several workers.
# - Exhibit 15: TRL 1911, mended by 1970 (commit cf5168e, August 2024); LLaMA-Factory took the fix over in 7509.
# - Exhibit 16: TRL's pull request 2248 (October 2024) took the shuffle out.
# - Exhibit 17: TRL's Liger loss had no such argument from v0.17.0 (pull request 2812, March 2025) on; since 7062
#   (September 2026) weights other than 1 raise an error there. With PEFT it was refused until v1.8.0 (6277, July 2026),
#   and from then to 7062 it lost the reference. Other trainers: LLaMA-Factory 6245, ms-swift 2167.
# - Exhibit 20: Ethayarajh et al., arXiv 2402.01306 v4, Table 2 (Zephyr-beta-SFT, concave value function).
# - For the rest we know of no public case, or of the notebook that lesson 10 mentions.
#
# Back to [lesson 10](../10_bug_museum.ipynb). On to [lesson 11](../11_your_data.ipynb).
