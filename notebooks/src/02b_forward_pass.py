# %% [markdown]
# # 02b · The forward pass by hand
#
# Rebuild every box of the tiny Llama in plain torch, and match the library to its last digits.

# %% [markdown]
# **You will be able to**
# - write RMSNorm, rotary positions, SwiGLU and a whole forward pass
# - explain why a rotation encodes distance
# - say where a "float64 model" still computes in float32
#
# **You need first** lesson [02](../02_tiny_llama.ipynb): the plan of the model, and attention for one head.
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything**
#
# The library's model computes in float32. `.double()` turns all its weights into float64. Your rebuilt model computes
# in float64 throughout. Will the two then agree to 1e-10, as two float64 computations of the same formula should? The
# cell below the imports takes your guess; the last section computes it.

# %%
import copy
import math

import torch

from kto_course import check, predict, reveal
from kto_course.pictures import lesson_02b as pictures
from kto_utils.model import load_reference_model, tiny_llama, to_float64
from kto_utils.plotting import use_course_style

use_course_style()
torch.set_printoptions(precision=4, sci_mode=False)

# %%
asked = "All weights in float64 by .double(): does the library agree with your float64 model to 1e-10?"
predict("double_is_enough", asked, ["yes", "no, only to about 1e-7"], guess=None, confidence=None)

# %% [markdown]
# ## 1. A token becomes a vector
#
# All you take from the library is its weights, as float64 numbers in a plain dict. They are random here, drawn from a
# seed. The first step is a table look-up: row 440 of the embedding table stands for token 440.

# %%
library = tiny_llama(vocab_size=512, hidden_size=128, intermediate_size=256, num_layers=2, num_heads=4, seed=0)
weights = {name: tensor.double() for name, tensor in library.state_dict().items()}
ids = torch.tensor([1, 431, 61, 440, 441, 261, 442, 293, 388, 66, 435, 61])  # the prompt of lesson 02
x = weights["model.embed_tokens.weight"][ids]
print(x.shape)
print("token 440:", x[3, :5])

# %% [markdown]
# ## 2. RMSNorm: same direction, standard length
#
# Vectors grow as layers add to them. Before each part, the norm divides a vector by its root mean square, then scales
# each entry by a learned weight $g$. $\varepsilon = 10^{-6}$ keeps a zero vector from dividing by zero.
#
# $$\text{RMSNorm}(x) = g \cdot \frac{x}{\sqrt{\frac{1}{H}\sum_i x_i^2 + \varepsilon}}$$

# %%
def rms_norm(x, weight, eps=1e-6):
    return weight * x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps)


print(rms_norm(torch.tensor([3.0, 4.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)))

# %% [markdown]
# 3 and 4 keep their ratio, and the mean square is now 1. The same for the twelve token vectors:

# %%
h = rms_norm(x, weights["model.layers.0.input_layernorm.weight"])
print("root mean square before:", x.pow(2).mean(-1).sqrt()[1:5])
print("root mean square after: ", h.pow(2).mean(-1).sqrt()[1:5])

# %% [markdown]
# An untrained norm has weight 1 everywhere. "After" is a little under 1 because of $\varepsilon$: these vectors are so
# short that $10^{-6}$ is felt.
#
# ## 3. Heads are slices
#
# Three matrices make queries, keys and values: `h @ W.T` multiplies each token's vector by $W$. Each vector of 128 is
# then cut into 4 *heads* of 32 that work side by side.

# %%
def split_heads(x, heads):
    T, H = x.shape
    return x.view(T, heads, H // heads).transpose(0, 1)


q, k, v = (split_heads(h @ weights[f"model.layers.0.self_attn.{p}_proj.weight"].T, 4) for p in "qkv")
print("before:", h.shape, "  after:", q.shape, "(heads, T, numbers per head)")

# %% [markdown]
# ## 4. A position is an angle
#
# So far the order of the words plays no role. Llama turns each query and key by an angle that grows with its position
# $t$. Entry $i$ and entry $i + \frac{d}{2}$ of a head are a point $(a, b)$ in the plane. Pair $i$ turns by
# $t\,\omega_i$ with $\omega_i = 10000^{-2i/d}$: the first pairs fast, the last ones hardly.
#
# $$(a, b) \to (a\cos t\omega - b\sin t\omega,\; a\sin t\omega + b\cos t\omega)$$

# %% [markdown]
# ### Exercise 2.4 · Turn by position
# ★★☆ · 10 minutes · fill in a function
#
# Write the rotation for the queries of one head: row $t$ of `x` stands at position $t = 0, 1, 2, \dots$ and has $d$
# entries. For each $i = 0, \dots, \frac{d}{2} - 1$, entries $i$ and $i + \frac{d}{2}$ are a point $(a, b)$ that turns
# by $t \cdot 10000^{-2i/d}$.

# %% exercise="rotary"
def my_rotary(x):
    """Rotary positions: x (T, d) with d even -> (T, d), row t turned by position t.

    Entry i is paired with entry i + d/2. A gradient passes through.
    """
    ### BEGIN SOLUTION
    T, d = x.shape
    speeds = 10000.0 ** (-torch.arange(0, d, 2, dtype=x.dtype) / d)
    angles = torch.arange(T, dtype=x.dtype)[:, None] * speeds
    cos, sin = angles.cos(), angles.sin()
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    ### END SOLUTION


# %% check="rotary" points=3
check.rotary(my_rotary)

# %% [markdown]
# ### Why turn?
#
# Look at it first: the point $(1, 0)$ of two pairs, at positions 0 to 5.

# %%
rotary = check.yours_or_ours("rotary")
points = torch.zeros(6, 32, dtype=torch.float64)
points[:, :16] = 1.0
pictures.rotary(rotary(points), pairs=(0, 4))

# %% [markdown]
# Like the hands of a clock: a fast pair tells neighbours apart, a slow pair tells near from far.
#
# The score of a query and a key is their dot product, and a dot product only feels the *difference* of two angles. So
# it only feels the distance between two tokens. Test it with one query and one key: at positions (5, 3) and (9, 7),
# both two apart, and at (9, 3).

# %%
query, key = torch.randn(2, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
scores = rotary(query.repeat(12, 1)) @ rotary(key.repeat(12, 1)).T
print(f"(5, 3): {scores[5, 3]:.4f}   (9, 7): {scores[9, 7]:.4f}   (9, 3): {scores[9, 3]:.4f}")
assert math.isclose(scores[5, 3], scores[9, 7], abs_tol=1e-10)

# %% [markdown]
# ## 5. Attention for all heads at once
#
# As in lesson 02, with one axis more in front. Turned are queries and keys, not values: a position decides who looks at
# whom, not what is passed on.

# %%
def attend(q, k, v):
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal=1)
    shares = scores.masked_fill(future, -torch.inf).softmax(-1)
    return shares @ v


def turn_heads(x):
    return torch.stack([rotary(head) for head in x])


mixed = attend(turn_heads(q), turn_heads(k), v)
print(mixed.shape)
print("token 0 sees only itself, so it gets its own value:", torch.allclose(mixed[:, 0], v[:, 0]))

# %% [markdown]
# ## 6. SwiGLU: a gate decides what passes
#
# The second half of a layer looks at each token alone. One matrix makes content (*up*), one makes a gate, and the gate
# decides how much of each number passes. Its shape is $\text{silu}(z) = z\,\sigma(z)$, where $\sigma(z) =
# 1/(1+e^{-z})$ runs from 0 to 1; $\odot$ multiplies entry by entry.
#
# $$\text{SwiGLU}(x) =
# \big(\text{silu}(x W_{\text{gate}}^\top) \odot x W_{\text{up}}^\top\big)\, W_{\text{down}}^\top$$

# %%
def swiglu(x, gate, up, down):
    z = x @ gate.T
    return (z * torch.sigmoid(z) * (x @ up.T)) @ down.T


z = torch.tensor([-5.0, -1.0, 0.0, 1.0, 5.0], dtype=torch.float64)
print("silu(z)", z * torch.sigmoid(z))

# %% [markdown]
# A closed gate (very negative $z$) lets almost nothing through; an open one passes nearly $z$.
#
# ## 7. The whole model is a dozen lines
#
# One layer: norm, attention, add; norm, SwiGLU, add. `w` holds its weights under their short names. The output matrix
# of attention (`o_proj`) mixes what the four heads found.

# %%
def layer(x, w, heads):
    h = rms_norm(x, w["input_layernorm.weight"])
    q, k, v = (split_heads(h @ w[f"self_attn.{p}_proj.weight"].T, heads) for p in "qkv")
    mixed = attend(turn_heads(q), turn_heads(k), v).transpose(0, 1).reshape(x.shape)
    x = x + mixed @ w["self_attn.o_proj.weight"].T
    h = rms_norm(x, w["post_attention_layernorm.weight"])
    return x + swiglu(h, *(w[f"mlp.{p}_proj.weight"] for p in ("gate", "up", "down")))


def forward(ids, weights, heads=4, layers=2):
    x = weights["model.embed_tokens.weight"][ids]
    for n in range(layers):
        prefix = f"model.layers.{n}."
        w = {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
        x = layer(x, w, heads)
    return rms_norm(x, weights["model.norm.weight"]) @ weights["lm_head.weight"].T

# %% [markdown]
# That is all of it, from token numbers to logits. Does it agree with the library? Ours computes in float64, the
# library's model in float32; `to_float64` brings a copy of that model to float64 as well.

# %%
by_hand = forward(ids, weights)
exact = to_float64(copy.deepcopy(library))


def gap(model, ours=by_hand):
    with torch.no_grad():
        return (model(ids[None]).logits[0] - ours).abs().max().item()


print("library in float32, all 12 x 512 logits within 1e-5: ", gap(library) < 1e-5)
print("library in float64, all 12 x 512 logits within 1e-10:", gap(exact) < 1e-10)
shipped = load_reference_model()
print("the course's trained model, within 1e-10:            ", gap(shipped, forward(ids, shipped.state_dict())) < 1e-10)

# %% [markdown]
# ## 8. What goes wrong: float64 that is not
#
# Why a function `to_float64`, and not simply `.double()`? Two parts stay behind: the library's norm and its rotary
# table still compute in float32. You can see it: a float64 result that has passed through float32 fits into float32
# without loss.

# %%
double = copy.deepcopy(library).double()


def fits_float32(x):
    return torch.equal(x, x.float().double())


with torch.no_grad():
    for name, model in (("library.double()", double), ("to_float64(library)", exact)):
        cosines, _ = model.model.rotary_emb(x, torch.arange(12)[None])
        print(f"{name:<20} norm fits: {fits_float32(model.model.norm(x))}   table fits: {fits_float32(cosines)}")

# %% [markdown]
# `to_float64` replaces exactly these two parts and keeps all weights. Replace them one at a time, and each one's share
# shows. Rounding noise depends on the processor, so the cell prints bounds; the picture shows the differences as they
# were here.

# %%
norms_only, table_only = copy.deepcopy(exact), copy.deepcopy(double)
norms_only.model.rotary_emb = double.model.rotary_emb
table_only.model.rotary_emb = exact.model.rotary_emb
variants = {
    "library in float32": library, "library.double()": double, "... and float64 table": table_only,
    "... and float64 norms": norms_only, "both: to_float64": exact,
}  # fmt: skip
gaps = {name: gap(model) for name, model in variants.items()}
for name, found in gaps.items():
    print(f"{name:<22} below 1e-5: {found < 1e-5}   below 1e-10: {found < 1e-10}")
reveal("double_is_enough", "a" if gaps["library.double()"] < 1e-10 else "b")
pictures.precision(gaps)

# %% [markdown]
# Both are needed. Does such a gap matter? For one forward pass, no. But training repeats it and can amplify it, and the
# noise differs between processors. With float64 throughout it stays too small to show in the digits that we print. The
# model that ships with the course uses `to_float64`.

# %% [markdown]
# ## Recap
#
# 1. A Llama is a table look-up, layers that each add twice to a stream of vectors, one last norm and one matrix.
# 2. RMSNorm sets the length; a rotation turns positions into angles, and a score feels only their difference.
# 3. Attention mixes the past; SwiGLU works on each token alone, through a gate.
# 4. Rebuilt in float64 it equals the library to 1e-5, and to 1e-10 once the library is float64 too.
# 5. `.double()` is not enough: norms and rotary table fall back to float32.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions dropout_and_reference}}

# %% [markdown]
# ## Sources
#
# - RMSNorm: Zhang and Sennrich 2019, arXiv 1910.07467. SwiGLU: Shazeer 2020, arXiv 2002.05202.
# - Rotary positions: Su et al. 2021, *RoFormer*, arXiv 2104.09864; it pairs neighbouring entries, the library pairs
#   entry $i$ with $i + d/2$, which is the same up to the order of the columns.
# - Library: transformers 5.23.0, `models/llama/modeling_llama.py`.
# - Digits and bounds are computed in this lesson.
#
# Back to [02 · A tiny Llama and its frozen twin](../02_tiny_llama.ipynb).
