# %% [markdown]
# # 02 · A tiny Llama and its frozen twin
#
# Open a small Llama, let it write a reply, and make the frozen copy that KTO compares it with.

# %% [markdown]
# **You will be able to**
# - read a `LlamaConfig` and count the parameters that it asks for
# - say what logits of shape (B, T, V) are, and sample a reply from them
# - show why one forward pass scores every token of a reply honestly
# - make a policy and its reference, and notice when the reference is wrong
#
# **You need first** Python, and a little torch (tensors, matrix products). Nothing about KTO.
#
# **Time** {{times}}. Deeper: the same model [by hand](deeper/02b_forward_pass.ipynb).

# %% [markdown] slide=["The prompt in", "You replace", "At how many"]
# **Before you run anything**
#
# The prompt in this lesson has 12 tokens (pieces of text), counted from 0. You replace token 6 by another one. At how
# many of the 12 positions will the model's outputs change?

# %%
import copy
import math

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kto_course import check, predict, reveal
from kto_course.pictures import lesson_02 as pictures
from kto_utils.model import load_reference_model, tiny_llama, to_float64
from kto_utils.plotting import use_course_style

use_course_style()

# %% slide=["text 1:5"]
asked = "Token 6 of 12 is replaced. At how many positions do the outputs change?"
predict("positions_that_change", asked, ["1", "5", "6", "12"], guess=None, confidence=None)

# %% [markdown]
# ## 1. A config is the plan, the model is the building
#
# Hugging Face's library needs five numbers to build a Llama. Its weights are random: it knows nothing.

# %%
config = LlamaConfig(
    vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4
)
untrained = LlamaForCausalLM(config)
print(type(untrained).__name__, f"{sum(p.numel() for p in untrained.parameters()):,} parameters")

# %% [markdown]
# The course ships trained weights for exactly this plan. That model answers questions, politely or rudely, right or
# wrong. It reads token numbers; lesson [03](03_tokenization.ipynb) shows where they come from.

# %%
model = load_reference_model()
ids = torch.tensor([1, 431, 61, 440, 441, 261, 442, 293, 388, 66, 435, 61])
print(pictures.spell(ids))

with torch.no_grad():
    logits = model(ids[None]).logits
print(logits.shape)

# %% [markdown]
# In go 12 token numbers. Out come *logits*: one sentence, 12 positions, 512 scores at each, shape (B, T, V). The scores
# at position $t$ say which token may follow token $t$.
#
# ## 2. Nearly all numbers sit in a few matrices

# %%
parts = {"embedding": "embed_tokens", "attention": "self_attn", "SwiGLU": "mlp", "norms": "norm", "output": "lm_head"}
for part, name in parts.items():
    sizes = [p.numel() for full_name, p in model.named_parameters() if name in full_name]
    print(f"{part:<10} {len(sizes):>2} tensors {sum(sizes):>9,} numbers")

# %% [markdown]
# Now the same from the plan: $V = 512$ tokens in the vocabulary, a vector of length $H = 128$ for each token
# (`hidden_size`), $I = 256$ (`intermediate_size`), $L = 2$ layers.
#
# $$\underbrace{VH}_{\text{embedding}} +
# L\,(\underbrace{4H^2}_{\text{attention}} +
# \underbrace{3HI}_{\text{SwiGLU}} + \underbrace{2H}_{\text{norms}}) +
# \underbrace{H}_{\text{last norm}} + \underbrace{HV}_{\text{output}}$$

# %% slide=["figure"]
pictures.architecture(layers=config.num_hidden_layers, vocab=config.vocab_size)

# %% [markdown]
# Read it from the bottom. The *embedding table* has a row of $H$ numbers for each token. The vertical line is the
# *stream*: one vector for each token. A layer reads it, computes something and adds that to it, twice. *RMSNorm* brings
# vectors to a standard length, *attention* lets tokens look at each other, *SwiGLU* works on each token alone.

# %% [markdown]
# ### Exercise 2.1 · One layer more
# ★☆☆ · 2 minutes · predict a number
#
# The same model with three layers in the place of two, all else unchanged: how many parameters are added?

# %% exercise="one_layer"
answer = ...  # a number
### BEGIN SOLUTION
answer = 4 * 128 * 128 + 3 * 128 * 256 + 2 * 128
### END SOLUTION

# %% check="one_layer" points=1
check.one_layer(answer)

# %% [markdown]
# ## 3. Attention: each token mixes what stands before it
#
# To go on with ` blue` after ` It is`, the model must know what the question was about. Where does it look? Attention
# works in four *heads* side by side; here is one of layer 0.

# %% slide=["figure"]
text = torch.cat((ids, torch.tensor([264, 261, 372])))
words = pictures.spell(text)
model.set_attn_implementation("eager")  # this way of computing keeps the shares
with torch.no_grad():
    head = model(text[None], output_attentions=True).attentions[0][0, 3]
model.set_attn_implementation("sdpa")
print(head.shape, f"row 13, {words[13]!r}: share {head[13].max():.2f} to {words[8]!r}")
pictures.attention(head, words, row=13)

# %% [markdown]
# Each row adds up to 1 and shows where one token looks. ` is` looks at `ky`, the end of `sky`; nobody told it to. (We
# picked a clear head; on all 24 questions of the training its largest share falls on the thing asked about.) The upper
# right is empty: no token looks ahead.
#
# How are the shares made? Each token asks a question (*query* $q$), offers a label (*key* $k$) and carries content
# (*value* $v$), each made from its vector by a matrix. The score of query $t$ and key $s$ is their dot product. The
# *softmax* turns a row of scores $z$ into positive shares that add up to 1: $e^{z_i} / \sum_j e^{z_j}$. A score of
# $-\infty$ gets share 0; the *mask* puts it wherever $s > t$. With $d$ for the length of a query:
#
# $$\text{attend}(Q, K, \mathcal{V}) =
# \text{softmax}\!\left(\frac{QK^\top}{\sqrt d} + \text{mask}\right)\mathcal{V}$$

# %% [markdown]
# ### Exercise 2.2 · Attention without looking ahead
# ★★☆ · 8 minutes · fill in a function
#
# Write it for one head. Row $t$ of the result is $\sum_{s \le t} \text{share}_{ts}\, v_s$. The shares of row $t$ are
# the softmax, over $s = 0, \dots, t$ alone, of $q_t \cdot k_s / \sqrt d$. You may use torch's `softmax`. Scores of
# 1000 must not end in NaN.

# %% exercise="causal_attention"
def my_causal_attention(q, k, v):
    """Causal attention of one head: q and k (T, d), v (T, e) -> (T, e). A gradient passes through all three."""
    ### BEGIN SOLUTION
    scores = q @ k.T / math.sqrt(q.shape[-1])
    future = torch.ones_like(scores, dtype=torch.bool).triu(diagonal=1)
    return scores.masked_fill(future, -torch.inf).softmax(-1) @ v
    ### END SOLUTION


# %% check="causal_attention" points=3
check.causal_attention(my_causal_attention)

# %% [markdown]
# ## 4. Nobody looks ahead
#
# Now your number from the start: replace token 6 and see where the logits change.

# %%
def positions_changed(position, mask=None):
    other = ids.clone()
    other[position] = 100
    with torch.no_grad():
        before, after = (model(i[None], attention_mask=mask).logits[0] for i in (ids, other))
    return (before - after).abs().amax(-1) > 1e-9


changed = positions_changed(6)
print(changed.nonzero()[:, 0].tolist())
reveal("positions_that_change", {1: "a", 5: "b", 6: "c", 12: "d"}[int(changed.sum())])

# %% [markdown]
# Token 6 itself and the five after it. Nothing before it moves: this is *causality*. Now the same for all twelve
# tokens, and once more with a mask that hides nothing.

# %% slide=["figure"]
open_mask = torch.ones(1, 1, 12, 12, dtype=torch.bool)
with_mask = torch.stack([positions_changed(t) for t in range(12)])
without = torch.stack([positions_changed(t, open_mask) for t in range(12)])
print("earlier positions that move:", *(int(moved.tril(-1).sum()) for moved in (with_mask, without)), "of 66")
pictures.causality(with_mask, without, asked=6)

# %% [markdown]
# Without the mask no error is raised. The model simply sees the answer that it should predict.
#
# With it, one forward pass over prompt and reply scores *every* token of the reply honestly: each is judged from what
# came before it. KTO lives on that.
#
# ## 5. From logits to a reply
#
# The softmax again, now over the 512 logits at the last position. It gives the probability of each token to come next.

# %% slide=["text"]
probabilities = logits[0, -1].softmax(-1)
likely = probabilities.topk(6)
for p, piece in zip(likely.values, pictures.spell(likely.indices), strict=True):
    print(f"{piece:<12} {p:.4f}")

# %% [markdown] slide=["To sample"]
# Five openings share almost everything. To *sample* a token, lay the probabilities end to end on a ruler and throw a
# dart: a wide piece is hit more often. Append the token, run again, draw again, until the end token (number 2) comes:
# that is generating.

# %%
def draw(probabilities, generator):
    ruler = probabilities.cumsum(0)
    dart = torch.rand(1, generator=generator, dtype=torch.float64) * ruler[-1]
    return int(torch.searchsorted(ruler, dart, right=True))


def sample_reply(model, ids, generator, longest=24):
    reply = []
    while len(reply) < longest:
        with torch.no_grad():
            logits = model(torch.tensor([*ids.tolist(), *reply])[None]).logits
        reply.append(draw(logits[0, -1].softmax(-1), generator))
        if reply[-1] == 2:
            break
    return reply


generator = torch.Generator().manual_seed(3)
for _ in range(6):
    print("".join(pictures.spell(sample_reply(model, ids, generator))))

# %% [markdown] slide=["The policy is", "The reference is", "$$r"]
# Readable, sometimes rude, sometimes wrong, each ended by the model itself with `<eos>`. Teaching it to be polite and
# right from thumbs alone is what the course is about.
#
# ## 6. KTO needs the model twice
#
# KTO learns from single replies with a thumb, up or down. The *policy* is the model that is trained. The *reference* is
# the policy as it was before training, and never moves. Let $\pi(y \mid x)$ be the probability that the policy gives
# reply $y$ to prompt $x$, and $\pi_{\text{ref}}$ the reference's. KTO looks at their log-ratio:
#
# $$r = \log\pi(y \mid x) - \log\pi_{\text{ref}}(y \mid x)$$
#
# So $r > 0$ means: likelier than before training. For this the reference must start with the policy's numbers, in
# memory of its own. It asks for no gradients, and is in *eval mode*, where dropout (random zeros in training) is off.

# %% [markdown]
# ### Exercise 2.3 · A copy that holds still
# ★★☆ · 4 minutes · repair a function
#
# A colleague makes the reference like this, and the policy's first `loss.backward()` stops with an error: nothing
# requires a gradient. That is only the first fault. Repair it. The policy, in training mode, must stay as it is.
#
# ```python
# def broken_reference(policy):
#     reference = copy.copy(policy)
#     for p in reference.parameters():
#         p.requires_grad = False
#     return reference.eval()
# ```

# %% exercise="frozen_reference"
def my_reference(policy):
    """A frozen twin of a model: the same numbers in memory of its own, no gradients, in eval mode."""
    ### BEGIN SOLUTION
    reference = copy.deepcopy(policy)
    for p in reference.parameters():
        p.requires_grad = False
    return reference.eval()
    ### END SOLUTION


# %% check="frozen_reference" points=2
check.frozen_reference(my_reference)

# %% [markdown]
# ## 7. What goes wrong: a reference that is no copy
#
# Two mistakes raise no error. `reference = policy` copies nothing: both names mean one model, an *alias*. And one
# public KTO notebook builds policy and reference by two constructor calls: same plan, other random weights. Move the
# policy by four plain steps that make ` blue` likelier after ` It is` (not KTO yet), and watch each reference.

# %% slide=["figure"]
reference_of = check.yours_or_ours("frozen_reference")
policy = load_reference_model()
stranger = to_float64(tiny_llama(512, 128, 256, seed=1))  # the plan of section 1, weights drawn from a seed
models = {"policy": policy, "copy": reference_of(policy), "alias": policy, "second init": stranger}
optimizer = torch.optim.SGD(policy.parameters(), lr=0.003)


def blue_logp(model):
    return model(text[None, :14]).logits[0, -1].log_softmax(-1)[372]


history = {name: [] for name in models}
print("step ", *(f"{name:>11}" for name in models))
for step in range(5):
    for name, one in models.items():
        history[name].append(blue_logp(one).exp().item())
    print(f"{step:>4} ", *(f"{values[-1]:11.4f}" for values in history.values()))
    optimizer.zero_grad()
    (-blue_logp(policy)).backward()
    optimizer.step()
pictures.references(history)

# %% [markdown] slide=["The alias runs"]
# The copy holds still: the gap is what training did. The alias runs along, so every log-ratio stays 0 for ever. The
# second initialisation gives ` blue` one chance in 512, a pure guess: the log-ratio says that the policy has drifted
# before it has moved at all, and "stay close to the reference" has become "stay close to noise". Lesson
# [05](05_get_probs.ipynb) makes a check of this that takes one line.

# %% [markdown]
# ## Recap
#
# 1. A config is the plan: with the defaults for the rest, five numbers fix the size of every matrix.
# 2. Logits, (B, T, V): at each position a score for every token that may follow.
# 3. Attention mixes the past. The mask hides the future, so one forward pass scores every token of a reply.
# 4. Softmax, draw, append, repeat: that is generating.
# 5. The reference is one frozen copy of the policy, made before the first step, in memory of its own.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions seven_billion one_forward_pass kto_reference_model}}

# %% [markdown]
# ## Sources
#
# - Model: Touvron et al. 2023, *LLaMA*, arXiv 2302.13971, section 2.2. Attention: Vaswani et al. 2017, arXiv
#   1706.03762, section 3.2. Library: transformers 5.23.0, `models/llama/modeling_llama.py`.
# - Policy, reference and log-ratio: *KTO*, arXiv 2402.01306 v4, Eq. 8.
# - TRL 1.16.0 (Hugging Face's library for training from feedback), read in its code: the policy itself as `ref_model`
#   is an error there. Without `ref_model` it loads the reference again from the model's name or folder.
#
# Next: [03 · From text to tokens and masks](03_tokenization.ipynb). Deeper:
# [02b · The forward pass by hand](deeper/02b_forward_pass.ipynb).
