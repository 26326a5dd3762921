# %% [markdown]
# # 02 · A tiny Llama and its frozen twin
#
# Rebuild a small Llama, match the library's digits, sample a reply, make the frozen copy that KTO needs.

# %% [markdown]
# **You will be able to**
# - count every parameter of a Llama by hand
# - write its forward pass: RMSNorm, rotary positions, attention, SwiGLU
# - turn its outputs into a sampled reply
# - make a policy and its reference, and notice at once when the reference is wrong
#
# **You need first** Python, and a little torch (tensors, matrix products). Nothing about KTO: section 12
# borrows its loss and says what you need of it. A *token* is a piece of text with a number; lesson
# [03](03_tokenization.ipynb) shows where the pieces come from.
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything**
#
# The prompt in this lesson has 12 tokens, counted from 0. You replace token 6 by another one. At how many of
# the 12 positions will the model's outputs change? The cell below the imports takes your
# guess. Section 9 computes it.

# %%
import copy
import math

import matplotlib.pyplot as plt
import torch

from kto_course import check, predict, reveal
from kto_utils import evaluate, world
from kto_utils.collator import mismatched, pad_rows
from kto_utils.data import format_prompt, load_eight_rows, tokenize_feedback
from kto_utils.logprobs import sequence_logps
from kto_utils.losses import kto_loss
from kto_utils.model import load_reference_model, tiny_llama, to_float64
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, save_figure, use_course_style
from kto_utils.tokenizer import load_tokenizer

use_course_style()
torch.set_printoptions(precision=4, sci_mode=False)

# %%
choices, asked = ["1", "5", "6", "12"], "Token 6 of 12 is replaced. At how many positions do the outputs change?"
predict("positions_that_change", asked, choices, guess=None, confidence=None)

# %% [markdown]
# ## 1. What goes in, what comes out
#
# A language model reads token numbers. Here is a question inside the course's prompt template, cut into
# tokens. A token may be a word, a part of a word (`sky` is cut in two here) or a sign.

# %%
tokenizer = load_tokenizer()
prompt = format_prompt("What colour is the sky?")
ids = torch.tensor(tokenizer.encode(prompt))
pieces = [tokenizer.decode([i]) for i in ids.tolist()]
print(prompt)
print(pieces)
print(ids.tolist())

# %% [markdown]
# `tiny_llama` builds the library's own, unmodified `LlamaForCausalLM`: 2 layers, 4 attention heads, vectors
# of 256 numbers. Its weights are random, drawn in float64 from a seed, so that every machine gets the same
# ones, and then stored as float32, the library's usual type. The model knows nothing yet. It returns one
# score for every token that could come next. The scores are called *logits*.

# %%
library = tiny_llama(
    vocab_size=512, hidden_size=256, intermediate_size=512, num_layers=2, num_heads=4, seed=0
)
with torch.no_grad():
    library_logits = library(ids[None]).logits
print(type(library).__module__, type(library).__name__)
print(library_logits.shape, library_logits.dtype)

# %% [markdown]
# One sentence, 12 positions, 512 scores at each position: shape (B, T, V). The rest of the lesson opens the
# box between `ids` and these logits.
#
# ## 2. Count every parameter by hand
#
# Call the vocabulary $V$, the vector length $H$ (hidden size), the inner length of the feed-forward part
# $I$, the number of layers $L$.
#
# $$\underbrace{VH}_{\text{embedding}} +
# L\,(\underbrace{4H^2}_{\text{attention}} +
# \underbrace{3HI}_{\text{SwiGLU}} + \underbrace{2H}_{\text{norms}}) +
# \underbrace{H}_{\text{last norm}} + \underbrace{HV}_{\text{output}}$$

# %%
def count_parameters(vocab, hidden, inner, layers):
    return {
        "embedding": vocab * hidden,
        "attention": layers * 4 * hidden * hidden,
        "SwiGLU": layers * 3 * hidden * inner,
        "norms": layers * 2 * hidden + hidden,
        "output": hidden * vocab,
    }


counted = count_parameters(vocab=512, hidden=256, inner=512, layers=2)
for part, number in counted.items():
    print(f"{part:<10} {number:>9,}")
print(f"{'together':<10} {sum(counted.values()):>9,}")

# %% [markdown]
# Now ask the library. There are no bias vectors and no parameters for positions. If there were any, the two
# sums would differ.

# %%
total = sum(p.numel() for p in library.parameters())
print(f"library: {total:,}   by hand: {sum(counted.values()):,}\n")
assert total == sum(counted.values())

for name, p in list(library.named_parameters())[:10]:
    print(f"{name:<48} {tuple(p.shape)!s:<11} {p.numel():>8,}")

# %% [markdown]
# The list shows the embedding table and layer 0; layer 1 looks the same. Next, the plan of the building. Two
# helpers draw a box and a *skip*: a line that carries a vector past some boxes, so that their result is
# added to it and does not replace it.

# %%
def box(ax, y, text, count, colour):
    ax.add_patch(plt.Rectangle((-1.9, y), 3.8, 0.62, facecolor="white", edgecolor=colour, linewidth=2))
    ax.text(0, y + 0.3, text, ha="center", va="center")
    ax.text(4.6, y + 0.3, count, ha="right", va="center")


def skip(ax, low, high):
    ax.plot([0, -2.3, -2.3, 0], [low, low, high, high], "-", color=NEUTRAL, linewidth=1.5, zorder=0)
    ax.text(0, high, "+", ha="center", va="center", bbox={"boxstyle": "circle", "fc": "white", "ec": NEUTRAL})

# %%
norm, attention, mlp = (f"{n:,}" for n in (256, counted["attention"] // 2, counted["SwiGLU"] // 2))
fig, ax = plt.subplots(figsize=(6.6, 7.0))
ax.annotate("", (0, 11.3), (0, 0.6), arrowprops={"arrowstyle": "->", "color": NEUTRAL, "lw": 1.5}, zorder=0)
ax.add_patch(plt.Rectangle((-2.8, 1.95), 5.1, 6.75, fill=False, edgecolor=NEUTRAL, linestyle="--"))
ax.text(-2.9, 5.3, "one layer; the model has two", rotation=90, ha="right", va="center")
box(ax, 0.0, "token numbers (T)", "", NEUTRAL)
box(ax, 1.0, "embedding table", f"{counted['embedding']:,}", UP)
box(ax, 2.6, "RMSNorm", norm, ACCENT)
box(ax, 3.6, "attention with rotation", attention, DOWN)
skip(ax, 2.25, 4.75)
box(ax, 5.9, "RMSNorm", norm, ACCENT)
box(ax, 6.9, "SwiGLU", mlp, DOWN)
skip(ax, 5.5, 8.1)
box(ax, 9.0, "RMSNorm", norm, ACCENT)
box(ax, 10.0, "output matrix", f"{counted['output']:,}", UP)
ax.text(0, 11.4, "logits (T, 512)", ha="center", va="bottom")
ax.text(4.6, 11.4, "parameters", ha="right", va="bottom")
ax.set(xlim=(-3.6, 4.7), ylim=(-0.2, 12.1), title="Every layer adds to the stream, twice")
ax.axis("off")
save_figure(
    fig, "02_architecture",
    alt="Plan of the tiny Llama, read from the bottom: token numbers, embedding table, two equal layers, "
    "RMSNorm, output matrix, logits. A layer holds RMSNorm and attention, then RMSNorm and SwiGLU; a line "
    "past each pair shows that its result is added to the stream. Parameter counts stand on the right.",
)
plt.show()

# %% [markdown]
# The vertical line is the *stream*: one vector for each token, from the bottom to the top. A layer reads the
# stream, computes something, and adds it back. SwiGLU holds more numbers than attention; almost half of all
# parameters sit there.

# %% [markdown]
# ### Exercise 2.1 · One layer more
# ★☆☆ · 3 minutes · predict a number
#
# The same model with three layers in the place of two, all else unchanged: how many parameters are added?

# %% exercise="one_layer"
answer = ...  # a number
### BEGIN SOLUTION
answer = 4 * 256 * 256 + 3 * 256 * 512 + 2 * 256
### END SOLUTION

# %% check="one_layer" points=1
check.one_layer(answer)

# %% [markdown]
# ## 3. A token becomes a vector
#
# From here on you write the model yourself. All you take from the library is its weights, as float64 numbers
# in a plain dict. The first step is a table look-up: row 440 of the embedding table stands for token 440.

# %%
weights = {name: tensor.double() for name, tensor in library.state_dict().items()}
x = weights["model.embed_tokens.weight"][ids]
print(x.shape)
for t in (3, 4):
    print(f"{pieces[t]!r:<10}", x[t, :5])

# %% [markdown]
# ## 4. RMSNorm: same direction, standard length
#
# Vectors grow as layers add to them. Before each part, the norm divides a vector by its root mean square,
# then scales each entry by a learned weight $g$:
#
# $$\text{RMSNorm}(x) = g \cdot \frac{x}{\sqrt{\frac{1}{H}\sum_i x_i^2 + \varepsilon}}$$
#
# $\varepsilon = 10^{-6}$ keeps a zero vector from dividing by zero.

# %%
def rms_norm(x, weight, eps=1e-6):
    return weight * x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps)


small = torch.tensor([3.0, 4.0], dtype=torch.float64)
print("mean square of (3, 4):", small.pow(2).mean().item())
print("normed:               ", rms_norm(small, torch.ones(2, dtype=torch.float64)))

# %% [markdown]
# 3 and 4 keep their ratio, and the mean square is now 1. The same for the twelve token vectors:

# %%
h = rms_norm(x, weights["model.layers.0.input_layernorm.weight"])
print("root mean square before:", x.pow(2).mean(-1).sqrt()[:4])
print("root mean square after: ", h.pow(2).mean(-1).sqrt()[:4])

independent = torch.nn.functional.rms_norm(x, (256,), eps=1e-6)
assert torch.allclose(h, independent, rtol=0, atol=1e-12)
print("equal to torch's own rms_norm:", torch.allclose(h, independent, rtol=0, atol=1e-12))

# %% [markdown]
# The norm of an untrained layer has weight 1 everywhere. "After" is a little under 1 because of
# $\varepsilon$: these vectors are so short that $10^{-6}$ is felt.
#
# ## 5. Queries, keys, values, heads
#
# In attention every token asks a question (*query*), offers a label (*key*) and carries content (*value*).
# Three matrices make them: `h @ W.T` multiplies each token's vector by $W$. Each vector of 256 is then cut
# into 4 *heads* of 64 that work side by side.

# %%
def split_heads(x, heads):
    T, H = x.shape
    return x.view(T, heads, H // heads).transpose(0, 1)


q, k, v = (split_heads(h @ weights[f"model.layers.0.self_attn.{p}_proj.weight"].T, 4) for p in "qkv")
print("before:", h.shape, "  after:", q.shape, "(heads, T, numbers per head)")

# %% [markdown]
# ## 6. Rotary positions
#
# So far the order of the words plays no role. Llama turns each query and key by an angle that grows with its
# position $t$. Entry $i$ and entry $i + 32$ of a head are a point $(a, b)$ in the plane: the code cuts the 64
# numbers into two halves, `a` and `b`. Pair $i$ turns by $t\,\omega_i$, with $\omega_i = 10000^{-2i/d}$ and
# $d = 64$: the first pairs fast, the last ones hardly.
#
# $$(a, b) \to (a\cos t\omega - b\sin t\omega,\; a\sin t\omega + b\cos t\omega)$$

# %% [markdown]
# ### Exercise 2.2 · Turn by position
# ★★☆ · 10 minutes · fill in a function
#
# Write the rotation before you read ours below, for the queries of one head: row $t$ of `x` stands at position
# $t = 0, 1, 2, \dots$ and has $d$ entries. For each $i = 0, \dots, \frac{d}{2} - 1$, entries $i$ and
# $i + \frac{d}{2}$ are a point $(a, b)$ that turns by $t \cdot 10000^{-2i/d}$.

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
# Here is ours. It makes a table of cosines and sines once and uses it for the queries and keys of every head.

# %%
def rotary_table(T, head_size, theta=10000.0):
    speeds = theta ** (-torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
    angles = torch.arange(T, dtype=torch.float64)[:, None] * speeds
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


cos, sin = rotary_table(len(ids), 64)
print("cos and sin:", cos.shape, "(T, pairs)")
print("radians per token, pairs 0, 8, 16, 24:", torch.atan2(sin[1], cos[1])[[0, 8, 16, 24]])

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.9))
for ax, pair in zip(axes, (0, 8), strict=True):
    for t in range(6):
        tip = (cos[t, pair], sin[t, pair])
        ax.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "->", "color": UP, "lw": 1.8})
        if pair == 0 or t in (0, 5):
            ax.text(1.15 * tip[0], 1.15 * tip[1], str(t), ha="center", va="center")
    ax.set(xlim=(-1.35, 1.35), ylim=(-1.35, 1.35), aspect="equal", xlabel="a", ylabel="b")
axes[0].set_title("Pair 0: one radian a token")
axes[1].set_title("Pair 8: a tenth of that")
save_figure(
    fig, "02_rotary",
    alt="Two panels show the point (1, 0) turned to positions 0 to 5. In pair 0 the six arrows spread over "
    "almost a whole circle; in pair 8 they stay within half a radian of each other.",
)
plt.show()

# %% [markdown]
# The arrows show the point $(1, 0)$ at positions 0 to 5: like the hands of a clock, a fast pair tells
# neighbours apart and a slow pair tells near from far.
#
# Why turn? The score of a query and a key is their dot product, and a dot product only feels the
# *difference* of two angles. So it only feels the distance between two tokens. Test it: the same query and
# key at positions (5, 3) and (9, 7), both two apart, and at (9, 3).

# %%
generator = torch.Generator().manual_seed(0)
query, key = torch.randn(2, 64, generator=generator, dtype=torch.float64)


def score(t, s):
    return (rotate(query, cos[t], sin[t]) @ rotate(key, cos[s], sin[s])).item()


print(f"(5, 3): {score(5, 3):.4f}   (9, 7): {score(9, 7):.4f}   (9, 3): {score(9, 3):.4f}")
assert math.isclose(score(5, 3), score(9, 7), abs_tol=1e-10)

# %% [markdown]
# ## 7. Attention
#
# Each token compares its query with all keys, and mixes the values in that proportion. The *softmax* turns a
# row of scores $z$ into positive shares that add up to 1: $e^{z_i} / \sum_j e^{z_j}$. No token may look ahead:
# scores of later tokens become $-\infty$, and their share 0. $d = 64$ is the length of a head.
#
# $$\text{attend}(Q, K, \mathcal{V}) =
# \text{softmax}\!\left(\frac{QK^\top}{\sqrt d} + \text{mask}\right)\mathcal{V}$$

# %% [markdown]
# ### Exercise 2.3 · Attention without looking ahead
# ★★☆ · 8 minutes · fill in a function
#
# One head, before you read ours below. Row $t$ of the result is $\sum_{s \le t} \text{share}_{ts}\, v_s$. The
# shares of row $t$ are the softmax, over $s = 0, \dots, t$ alone, of $q_t \cdot k_s / \sqrt d$. You may use
# torch's `softmax`. Scores of 1000 must not end in NaN.

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
# Ours does all heads at once and also returns the *pattern*, the table of shares. The mask can be left out, to
# see later what happens then.

# %%
def attend(q, k, v, causal=True):
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal=1)
        scores = scores.masked_fill(future, -torch.inf)
    pattern = scores.softmax(-1)
    return pattern @ v, pattern


mixed, pattern = attend(rotate(q, cos, sin), rotate(k, cos, sin), v)
print(pattern[0, :4, :5])
print("each row adds up to 1:", torch.allclose(pattern.sum(-1), torch.ones(4, 12, dtype=torch.float64)))

# %% [markdown]
# Row 0 can only see itself. Row 3 shares its attention among four tokens, none much above the others: random
# weights have no strong preference.

# %% [markdown]
# ## 8. SwiGLU, and the whole model
#
# The second half of a layer looks at each token alone. One matrix makes content (*up*), one makes a gate,
# and the gate decides how much of each number passes. The gate's shape is $\text{silu}(z) = z\,\sigma(z)$,
# where $\sigma(z) = 1/(1+e^{-z})$ runs from 0 to 1; $\odot$ multiplies entry by entry.
#
# $$\text{SwiGLU}(x) =
# \big(\text{silu}(x W_{\text{gate}}^\top) \odot x W_{\text{up}}^\top\big)\, W_{\text{down}}^\top$$

# %%
def swiglu(x, gate, up, down):
    z = x @ gate.T
    return (z * torch.sigmoid(z) * (x @ up.T)) @ down.T


z = torch.tensor([-5.0, -1.0, 0.0, 1.0, 5.0], dtype=torch.float64)
print("z      ", z)
print("silu(z)", z * torch.sigmoid(z))

# %% [markdown]
# A closed gate (very negative $z$) lets almost nothing through; an open one passes nearly $z$. Now one
# layer: norm, attention, add; norm, SwiGLU, add.

# %%
def layer(x, w, heads, cos, sin, causal=True):
    h = rms_norm(x, w["input_layernorm.weight"])
    q, k, v = (split_heads(h @ w[f"self_attn.{p}_proj.weight"].T, heads) for p in "qkv")
    mixed, pattern = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, causal)
    x = x + mixed.transpose(0, 1).reshape(x.shape) @ w["self_attn.o_proj.weight"].T
    h = rms_norm(x, w["post_attention_layernorm.weight"])
    return x + swiglu(h, *(w[f"mlp.{p}_proj.weight"] for p in ("gate", "up", "down"))), pattern

# %% [markdown]
# `w` holds the weights of one layer under their short names. The output matrix of attention (`o_proj`) mixes
# what the four heads found. Then the whole model, in the order of the drawing, from the bottom to the top:

# %%
def forward(ids, weights, heads=4, layers=2, causal=True):
    x = weights["model.embed_tokens.weight"][ids]
    cos, sin = rotary_table(len(ids), x.shape[-1] // heads)
    patterns = []
    for n in range(layers):
        prefix = f"model.layers.{n}."
        w = {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
        x, pattern = layer(x, w, heads, cos, sin, causal)
        patterns.append(pattern)
    return rms_norm(x, weights["model.norm.weight"]) @ weights["lm_head.weight"].T, patterns

# %% [markdown]
# That is all of it, from token numbers to logits. It also returns the attention patterns, for a look inside
# later. Does it agree with the library? Ours computes in float64, the library's model in float32;
# `to_float64` brings that model to float64 as well.

# %%
by_hand, _ = forward(ids, weights)
exact = to_float64(copy.deepcopy(library))
with torch.no_grad():
    exact_logits = exact(ids[None]).logits
print("ours:   ", by_hand[11, :5])
print("library:", library_logits[0, 11, :5])
for name, theirs, bound in (("float32", library_logits, 1e-5), ("float64", exact_logits, 1e-10)):
    difference = (by_hand - theirs[0]).abs().max().item()
    print(f"library in {name}: all 12 x 512 logits within {bound:.0e}: {difference < bound}")
    assert difference < bound

# %% [markdown]
# Why a function, and not simply `.double()`? The optional section near the end shows it.
#
# ## 9. No looking ahead
#
# Now your number from the start. Replace token 6 by another and see where the logits change.

# %%
def logit_change(run, position):
    other = ids.clone()
    other[position] = 100
    with torch.no_grad():
        return (run(ids) - run(other)).abs().amax(-1)


ours = logit_change(lambda i: forward(i, weights)[0], 6)
theirs = logit_change(lambda i: exact(i[None]).logits[0], 6)
for name, change in (("ours", ours), ("library", theirs)):
    print(f"{name:<8} changes at {(change > 1e-9).nonzero()[:, 0].tolist()}")
    assert (change[:6] < 1e-12).all()
    assert (change[6:] > 1e-9).all()
reveal("positions_that_change", {1: "a", 5: "b", 6: "c", 12: "d"}[int((theirs > 1e-9).sum())])

# %% [markdown]
# Six positions: token 6 itself and the five after it. Nothing before it moves. This is *causality*. Now do
# the same for all twelve tokens, with the mask and, as a mistake, without it.

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.6, 4.4), sharey=True)
for ax, causal in zip(axes, (True, False), strict=True):
    run = lambda i, causal=causal: forward(i, weights, causal=causal)[0]
    moved = torch.stack([logit_change(run, t) > 1e-9 for t in range(12)])
    print(f"{'with' if causal else 'without'} mask: {int(moved.tril(-1).sum())} of 66 earlier positions move")
    edges = torch.arange(13) - 0.5
    ax.pcolormesh(edges, edges, moved.int(), cmap="Greys", vmin=0, vmax=1.6, edgecolors="white", linewidth=1.5)
    ax.set(xlabel="position whose logits change", xticks=range(0, 12, 2), yticks=range(0, 12, 2))
    ax.set(aspect="equal", ylim=(11.5, -0.5))
    ax.grid(visible=False)
axes[0].add_patch(plt.Rectangle((5.5, 5.5), 6, 1, fill=False, edgecolor=DOWN, linewidth=3, clip_on=False))
pointer = {"arrowstyle": "->", "color": DOWN}
axes[0].annotate("your question:\n6 positions", (6, 6.6), (2.6, 9.5), color=DOWN, ha="center", arrowprops=pointer)
axes[0].set(ylabel="token replaced", title="With the mask: nothing earlier")
axes[1].set_title("Without it: everything moves")
save_figure(
    fig, "02_causality",
    alt="Two grids of replaced token against position whose logits change; dark means changed. With the "
    "causal mask only the diagonal and the cells to its right are dark: a token changes itself and what "
    "follows; in row 6 these are six cells. Without the mask the whole grid is dark.",
)
plt.show()

# %% [markdown]
# Without the mask no error is raised. The model simply sees the answer that it should predict.
#
# With it, one forward pass over prompt and reply scores *every* token of the reply honestly: each one is
# judged from what came before. KTO lives on that.

# %% [markdown]
# ## 10. From logits to a reply
#
# A random model only babbles. So load the model that ships with the course: same kind, hidden size 128,
# trained from scratch on replies that are polite or rude, right or wrong. (A model for real use would first
# read a great deal of other text.) Your `forward` runs it unchanged.

# %%
shipped = load_reference_model()
shipped_weights = shipped.state_dict()
print(f"{sum(count_parameters(vocab=512, hidden=128, inner=256, layers=2).values()):,} parameters")

with torch.no_grad():
    logits, _ = forward(ids, shipped_weights)
    assert torch.allclose(logits, shipped(ids[None]).logits[0], rtol=0, atol=1e-10)
probabilities = logits[-1].softmax(-1)
for p, i in zip(*probabilities.topk(6), strict=True):
    print(f"{tokenizer.decode([i]):<12} {p:.4f}")

# %% [markdown]
# The softmax, now over the last position's logits, gives each token's probability to come next. Five openings
# share almost everything.
#
# To sample, lay the probabilities end to end on a ruler of length 1 and throw a dart. Wide pieces are hit
# more often. Throw 5,000 darts and compare.

# %%
def draw(probabilities, generator):
    ruler = probabilities.cumsum(0)
    dart = torch.rand(1, generator=generator, dtype=torch.float64) * ruler[-1]
    return int(torch.searchsorted(ruler, dart, right=True))


generator = torch.Generator().manual_seed(0)
tokens = torch.tensor([draw(probabilities, generator) for _ in range(5000)])
hits = torch.bincount(tokens, minlength=512) / 5000
for p, i in zip(*probabilities.topk(5), strict=True):
    print(f"{tokenizer.decode([i]):<12} probability {p:.3f}   hit by {hits[i]:.3f} of the darts")
assert (hits - probabilities).abs().max() < 4 * math.sqrt(0.25 / 5000)

# %% [markdown]
# Append the drawn token, run again, draw again, until the end token comes. That loop is all that
# "generating" means.

# %%
def sample_reply(ids, weights, generator, longest=24):
    reply = []
    while len(reply) < longest:
        logits, _ = forward(torch.cat((ids, torch.tensor(reply, dtype=torch.long))), weights)
        reply.append(draw(logits[-1].softmax(-1), generator))
        if reply[-1] == tokenizer.eos_token_id:
            break
    return reply


generator = torch.Generator().manual_seed(3)
for _ in range(6):
    reply = sample_reply(ids, shipped_weights, generator)
    print(f"{len(reply):>2} tokens: {tokenizer.decode(reply)}")

# %% [markdown]
# Six replies, each ended by the model itself with `<eos>`. Readable, sometimes rude, sometimes wrong.
# Teaching it to be polite and right from thumbs alone is what the course is about.
#
# Later lessons sample with `evaluate.sample`, which draws with the same ruler and dart. From the same seed it
# must find the first of the six:

# %%
generator = torch.Generator().manual_seed(3)
ours = tokenizer.decode(sample_reply(ids, shipped_weights, generator))
theirs = evaluate.sample(shipped, world.trained_questions()[0], n=1, seed=3)[0]
print("by hand:        ", ours)
print("evaluate.sample:", theirs)
assert ours == theirs + tokenizer.eos_token

# %% [markdown]
# ### One look inside
#
# Where does the token ` is` of the reply look when the model must predict the colour? One head answers
# clearly:

# %%
text = tokenizer.encode(prompt + " It is blue")
words = [tokenizer.decode([i]) for i in text]
_, patterns = forward(torch.tensor(text), shipped_weights)
head = patterns[0][3]
share, target = head[13].max(0)
print(f"position 13, {words[13]!r}, gives {share:.2f} of its attention to {words[target]!r}")

# %%
future = torch.ones(head.shape, dtype=torch.bool).triu(diagonal=1)
fig, ax = plt.subplots(figsize=(6.2, 5.2))
image = ax.imshow(head.masked_fill(future, torch.nan), vmin=0, vmax=1)
ax.add_patch(plt.Rectangle((-0.5, 12.5), 14, 1, fill=False, edgecolor=DOWN, linewidth=2))
pointer = {"arrowstyle": "->", "color": DOWN}
ax.annotate("the reply's 'is'", (12.6, 12.4), (11, 5), color=DOWN, ha="center", arrowprops=pointer)
ax.set_xticks(range(len(words)), words, rotation=60, ha="right")
ax.set_yticks(range(len(words)), words)
ax.set(xlabel="token looked at", ylabel="token that looks")
ax.set_title("Layer 0, head 3: the reply's 'is' looks at 'ky'")
ax.grid(visible=False)
fig.colorbar(image, label="share of attention")
save_figure(
    fig, "02_attention",
    alt="Attention pattern of one head of the shipped model on the prompt and the reply It is blue. The "
    "upper right half is empty: nobody looks ahead. In the framed row, that of the reply's token is, almost "
    "all attention lies on ky, the second half of sky.",
)
plt.show()

# %% [markdown]
# Each row adds up to 1 and shows where one token looks. The empty upper right is the mask.
#
# We picked a clear head and a clear question. Here is the same head on all 24 trained questions: does its
# largest share fall on a piece of the thing asked about, and how large is it?

# %%
shares, inside = [], 0
for question in world.trained_questions():
    tokens = tokenizer.encode(question.prompt + " It is")
    _, patterns = forward(torch.tensor(tokens), shipped_weights)
    share, target = patterns[0][3][-1].max(0)
    start = question.prompt.index(question.thing)
    place = len(tokenizer.decode(tokens[1 : target + 1])) - 1  # last letter of the token looked at
    inside += start <= place < start + len(question.thing)
    shares.append(share.item())
print(f"on the thing asked about: {inside} of {len(shares)}; shares from {min(shares):.2f} to {max(shares):.2f}")
assert inside == len(shares)

# %% [markdown]
# Always on the thing asked about, but not always with such force. Nobody told the head to look there. That
# fits "it helps to predict the next token"; an attention pattern alone does not prove it.

# %% [markdown]
# ## 11. Policy and reference
#
# KTO learns from single replies with a thumb, up or down. It uses two models. The *policy* is trained. The
# *reference* is the policy as it was before training, and never moves. Let $\pi(y \mid x)$ be the probability
# that the policy gives reply $y$ to prompt $x$, and $\pi_{\text{ref}}$ the reference's. KTO looks at the
# log-ratio, in nats, the unit of natural logarithms:
#
# $$r = \log\pi(y \mid x) - \log\pi_{\text{ref}}(y \mid x)$$
#
# So $r > 0$ means: more likely than before training. A deep copy makes the reference; freezing keeps it.

# %%
def reference_of(policy):
    return copy.deepcopy(policy).requires_grad_(False).eval()


policy = load_reference_model()
reference = reference_of(policy)
pairs = list(zip(policy.parameters(), reference.parameters(), strict=True))
print("same numbers:     ", all(torch.equal(p, q) for p, q in pairs))
print("shared memory:    ", any(p.data_ptr() == q.data_ptr() for p, q in pairs))
print("reference trains: ", any(q.requires_grad for _, q in pairs))

# %% [markdown]
# `deepcopy` duplicates every number. `requires_grad_(False)` freezes. `eval()` switches dropout off, for
# models that have it. From the next lesson on it is imported from `kto_utils.model`.
#
# Eight small feedback rows come with the course: a prompt, a reply, a thumb. `sequence_logps` adds up the
# log-probabilities of a reply's tokens (lesson [05](05_get_probs.ipynb)).

# %%
rows = load_eight_rows()
label = torch.tensor([row["label"] for row in rows])
examples = [tokenize_feedback(row, tokenizer) for row in rows]
batch = pad_rows(examples, tokenizer.pad_token_id)


@torch.no_grad()
def logratio(policy, reference, batch=batch):
    return sequence_logps(policy, batch) - sequence_logps(reference, batch)


print(rows[0]["completion"], "up" if label[0] else "down")
print("r of the eight rows:", logratio(policy, reference))

# %% [markdown]
# Before training every log-ratio is exactly 0, not just nearly: the same code has run on the same batch twice,
# without dropout. (With reference scores stored at another precision or other padding it is nearly 0.) This is
# the cheapest check in KTO.
#
# Now move the policy. A few plain steps that make row 0 more likely will do (this is not KTO yet). Only the
# policy's parameters go to the optimizer.

# %%
first = {field: tensor[:1] for field, tensor in batch.items()}


def train_a_little(policy, reference):
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.003)
    for step in range(4):
        print(f"step {step}: r = {logratio(policy, reference, first).item():.4f} nats")
        optimizer.zero_grad()
        (-sequence_logps(policy, first)).mean().backward()
        optimizer.step()


before = copy.deepcopy(reference.state_dict())
train_a_little(policy, reference)
unchanged = all(torch.equal(before[name], tensor) for name, tensor in reference.state_dict().items())
assert unchanged
print("reference unchanged, bit for bit:", unchanged)

# %% [markdown]
# ## 12. What goes wrong
#
# ### `reference = policy`
#
# An assignment in Python copies nothing: both names mean one model. The "reference" runs along, and $r$
# stays 0 for ever.

# %%
policy = load_reference_model()
alias = policy
train_a_little(policy, alias)

# %% [markdown]
# ### Two independent initialisations
#
# One public KTO notebook creates policy and reference by two separate constructor calls. Same shape, same
# class, other random weights.

# %% [markdown]
# What does the loss say? Lesson 06 derives it; you need this much. A thumb up costs $1 - \sigma(u)$, a thumb
# down $\sigma(u)$, with $u = 0.1\,(r - z_0)$. Near 0 means "done", near 1 "hopeless", 0.5 "nothing has happened
# yet". $z_0$ is the mark from which KTO measures: the mean log-ratio of replies put behind other rows'
# prompts, or 0 if that is negative.

# %%
choices = ["near 0", "near 0.5", "near 1", "none, an error is raised"]
asked = "Two independent random models: what is the mean loss before training?"
predict("loss_of_a_stranger", asked, choices, guess=None, confidence=None)

# %%
mixed_batch = pad_rows(mismatched(examples), tokenizer.pad_token_id)


def step_zero(policy, reference):
    r = logratio(policy, reference)
    z0 = logratio(policy, reference, mixed_batch).mean().clamp(min=0)
    return r, z0, kto_loss(r, torch.zeros_like(r), label, z0)  # takes two scores per row; r is their difference


untrained, stranger = (to_float64(tiny_llama(512, 128, 256, seed=seed)) for seed in (0, 1))
for name, model in (("copy", reference_of(untrained)), ("second init", stranger)):
    r, z0, losses = step_zero(untrained, model)
    print(f"{name:<12} loss {losses.mean():.4f}  r", [round(value, 2) + 0.0 for value in r.tolist()])
reveal("loss_of_a_stranger", {0.0: "a", 0.5: "b", 1.0: "c"}[round(losses.mean().item(), 1)])

# %% [markdown]
# A loss of 0.4994 looks harmless, and nothing crashes. But every $r$ already says that the policy has
# drifted, when it has not moved at all.
#
# Now a case closer to practice: the policy has been trained before, the "reference" is fresh from its
# constructor. *Pull* is how steep a row's loss is, as a share of the steepest possible (at $u = 0$).

# %%
r, z0, losses = step_zero(shipped, stranger)
u = 0.1 * (r - z0)
pull = 4 * torch.sigmoid(u) * torch.sigmoid(-u)
print(f"z0 = {z0:.2f}")
for i, row in enumerate(rows):
    thumb = "up" if row["label"] else "down"
    print(f"row {i}  {thumb:<4} r {r[i]:>6.2f}  loss {losses[i]:.3f}  pull {pull[i]:.3f} {row['completion']}")

# %% [markdown]
# Read rows 0 to 3. Before a single step, thumbs up counts as done (loss 0.032), thumbs down as hopeless
# (0.961 and more), and each pull has shrunk to 0.149 or less. With the copy every $u$ is 0, so each loss is
# 0.5 and each pull 1.

# %%
fig, ax = plt.subplots(figsize=(8.2, 3.9))
for i, row in enumerate(rows):
    colour, marker = (UP, "o") if row["label"] else (DOWN, "s")
    ax.plot([0, r[i]], [i, i], color=NEUTRAL, linestyle="-", linewidth=1)
    ax.plot(r[i], i, marker=marker, color=colour, markersize=8)
ax.axvline(0, color=ACCENT, linewidth=3)
ax.text(-4, 7.75, "a copy: all eight rows at 0", color=ACCENT, ha="right")
names = [f"{'up' if row['label'] else 'down'}:{row['completion']}  row {i}" for i, row in enumerate(rows)]
ax.set_yticks(range(8), names, fontsize=9)
ax.set(xlabel="log-ratio r at step 0 (nats)", xlim=(-110, 65), ylim=(8.3, -0.6))
fig.suptitle("A copy starts at 0, a stranger anywhere", x=0.02, ha="left", fontweight="bold")
ax.grid(axis="y", visible=False)
save_figure(
    fig, "02_stranger",
    alt="Log-ratios of the eight feedback rows before training when the reference is an independent random "
    "model: six lie between plus 51 and plus 54 nats, row 7 at minus 19, row 4 at minus 98, whatever their "
    "thumb. With a copy as reference all eight are 0.",
)
plt.show()

# %% [markdown]
# The six replies of the kind that the policy was trained on sit between +51 and +54, thumbs up or down. $r$
# now measures "trained text against random text".
#
# And "stay close to the reference" has become "stay close to noise". Compare what the two references say
# after the prompt:

# %%
for name, model in (("copy", reference_of(shipped)), ("stranger", stranger)):
    with torch.no_grad():
        p = model(ids[None]).logits[0, -1].softmax(-1)
    entropy = -(p * p.log()).sum().item()
    print(f"{name:<9} p(' It') = {p[tokenizer.encode(' It')[-1]]:.4f}   entropy {entropy:.3f} nats")
print(f"uniform over 512 tokens:             {math.log(512):.3f} nats")

# %% [markdown]
# The stranger is almost uniform over all 512 tokens. (*Entropy* says how spread out a distribution is.)
#
# TRL, Hugging Face's training library for alignment methods, guards against part of this: in version 1.16,
# passing the policy itself as `ref_model` is an error. With no `ref_model` it loads the reference again from
# the model's name or folder, so a model that exists only in memory needs your deep copy.

# %% [markdown]
# Two checks catch both mistakes. **Before the first step $r$ is exactly 0 for every row**: the stranger
# fails here. **After the first step it is not**: the alias fails here.

# %% [markdown]
# ### Exercise 2.4 · A copy that holds still
# ★★☆ · 6 minutes · repair a function
#
# A colleague makes the reference like this. The first `loss.backward()` stops with an error: nothing requires
# a gradient. That is only the first of its faults. Repair it: the policy is in training mode, about to learn,
# and must stay as it is.
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
# ## Optional: where the last digits differ
#
# In section 8 the library in float32 agreed with us to $10^{-5}$. Switch it to float64 with `.double()`: are
# they equal now? Two parts stay behind: the library's norm and its rotary table still compute in float32.
# You can see it: a float64 result that has passed through float32 fits into float32 without loss.

# %%
double = copy.deepcopy(library).double()


def fits_float32(x):
    return torch.equal(x, x.float().double())


with torch.no_grad():
    for name, model in (("library.double()", double), ("to_float64(library)", exact)):
        cosines, _ = model.model.rotary_emb(x, torch.arange(12)[None])
        print(name, "returns", cosines.dtype)
        normed = model.model.norm(x)
        print("   fits into float32: norm", fits_float32(normed), "  table", fits_float32(cosines))

# %% [markdown]
# `to_float64` replaces exactly these two parts and keeps all weights. Replace them one at a time, and each
# one's share shows. Rounding noise depends on the processor, so this cell prints bounds; the picture below
# shows the differences as they were here.

# %%
norms_only, table_only = copy.deepcopy(exact), copy.deepcopy(double)
norms_only.model.rotary_emb = double.model.rotary_emb
table_only.model.rotary_emb = exact.model.rotary_emb
variants = {
    "library in float32": (library, 1e-5),
    "library.double()": (double, 1e-6),
    "... and float64 table": (table_only, 1e-6),
    "... and float64 norms": (norms_only, 1e-6),
    "both: to_float64": (exact, 1e-10),
}
gaps = {}
for name, (model, bound) in variants.items():
    with torch.no_grad():
        gaps[name] = (model(ids[None]).logits[0] - by_hand).abs().max().item()
    assert gaps[name] < bound
    print(f"{name:<22} below {bound:.0e}: {gaps[name] < bound}   below 1e-10: {gaps[name] < 1e-10}")

# %%
fig, ax = plt.subplots(figsize=(7.2, 3.2))
names = list(gaps)[::-1]
ax.barh(names, [gaps[name] for name in names], color=[ACCENT] + [NEUTRAL] * 4)
ax.axvline(1e-10, color=DOWN, linestyle="--")
ax.text(1.4e-10, -0.05, "1e-10", color=DOWN, va="center")
for row, name in enumerate(names):
    ax.text(1.3 * gaps[name], row, f"{gaps[name]:.0e}", va="center")
ax.set_xscale("log")
ax.set(xlim=(1e-17, 1e-4), xlabel="largest difference from our logits (log scale)")
ax.set_title("Equal to 1e-10 only when norms and table are float64")
ax.grid(axis="y", visible=False)
save_figure(
    fig, "02_precision",
    alt="Bars on a log scale: the largest difference between our logits and the library's. The "
    "library in float32, in float64 with float32 parts, and in float64 with only one of the two parts "
    "replaced lie between 1e-9 and 1e-6. With both parts replaced the difference falls to about 1e-15.",
)
plt.show()

# %% [markdown]
# With a float64 table alone almost nothing is gained; with float64 norms most of the gap goes, and what
# remains is the table's. Both are needed.
#
# Does such a gap matter? For one forward pass, no. But training repeats it and can amplify it, and the noise
# differs between processors. With float64 throughout it stays too small to show in the digits that we print.
# The model that ships with the course uses `to_float64`.

# %% [markdown]
# ## Recap
#
# 1. A Llama is a table look-up, layers that each add twice to a stream of vectors, one last norm and one
#    matrix.
# 2. RMSNorm sets the length, rotation encodes distance, attention mixes the past, SwiGLU works on each token
#    alone.
# 3. Rebuilt in float64 it equals the library to $10^{-5}$, and to $10^{-10}$ once the library is float64 too,
#    norms and rotary table included.
# 4. Causality lets one forward pass score every token of a reply.
# 5. The reference is one deep copy of the policy, frozen: all log-ratios are exactly 0 before the first
#    step.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions kto_reference_model alias_reference causal_attention}}

# %% [markdown]
# ## Sources
#
# - Model: Touvron et al. 2023, *LLaMA*, arXiv 2302.13971, section 2.2. RMSNorm: Zhang and Sennrich 2019,
#   arXiv 1910.07467. Rotary positions: Su et al. 2021, *RoFormer*, arXiv 2104.09864; it pairs neighbouring
#   entries, the library pairs entry $i$ with $i + d/2$, which is the same up to the order of the columns.
#   SwiGLU: Shazeer 2020, arXiv 2002.05202. Attention: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.
# - Library: transformers 5.23.0, `models/llama/modeling_llama.py`.
# - Policy, reference and log-ratio: *KTO*, arXiv 2402.01306 v1, Eq. 7 (there with $\beta$ inside $r$).
# - TRL 1.16.0: its treatment of `ref_model`, read in its code.
# - Counts, digits and log-ratios are computed in this lesson.
#
# Next: [03 · From text to tokens and masks](03_tokenization.ipynb), where text becomes tokens and a thumb
# becomes a training row.
