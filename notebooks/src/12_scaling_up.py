# %% [markdown]
# # 12 · Scaling up
#
# Train on several processes without changing KTO by accident, hand over to TRL, and plan a run of a real model.

# %% [markdown]
# **You will be able to**
# - say what several processes must exchange for KTO to stay KTO, and show what breaks if they do not,
# - hand rows and a model over to TRL, and avoid three pitfalls that raise no error,
# - estimate memory and time of a run before you rent a GPU.
#
# **You need first** the reference point of lesson [06](06_kto_loss.ipynb) and the loop of lesson [07](07_train.ipynb).
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything.** Two processes train one model; each gets half of every batch. An ordinary loss is an
# average over rows, so each process can take the gradient of its own rows, and the gradients are averaged. For KTO
# this is not enough. What in the loss looks at rows of *other* processes? There are three answers; find one. The cell
# below the imports asks about the first.

# %%
import inspect
import json
import statistics
import tempfile
from pathlib import Path
from unittest import mock

import matplotlib.pyplot as plt
import torch
from IPython.display import Code, Markdown

from kto_course import check, predict, reveal
from kto_course.checks.lesson_12 import unknown_spread
from kto_lab import bench, scaling
from kto_lab.distributed import Processes
from kto_lab.export import export_world
from kto_utils.collator import KTOPaddingCollator, mismatched
from kto_utils.data import tokenize_feedback
from kto_utils.evaluate import collect_feedback
from kto_utils.logprobs import sequence_logps
from kto_utils.losses import balanced_weights
from kto_utils.model import load_reference_model, reference_of
from kto_utils.plotting import save_figure, use_course_style
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import train_kto
from kto_utils.world import trained_questions

use_course_style()
torch.set_default_dtype(torch.float64)
tokenizer = load_tokenizer()
results = scaling.load_results()

# %%
predict("mean_of_clamps", "Mismatched log-ratios k: -3 and -2 on one process, 4 and 3 on the other. Each takes "
        "max(0, mean k) of its own; the two are averaged. Compared with z0 of all four rows this is",
        ["smaller", "equal", "larger"], guess=None, confidence=None)  # fmt: skip

# %% [markdown]
# The first model, its thumbs, and weights from their counts, as in lesson 07:

# %%
start = load_reference_model()
rows = collect_feedback(start, trained_questions(), 50, seed=0)
up = sum(row["label"] for row in rows)
weight_up, weight_down = balanced_weights(up, len(rows) - up)
print(f"{len(rows)} rows, {up} thumbs up, weights {weight_up:.3f} and {weight_down:.3f}")

# %% [markdown]
# ## What must cross the border
#
# Three things in a KTO step are not row by row.
#
# ### 1. The clamp comes after the average over everybody
#
# $z_0 = \max(0, \text{mean}_i k_i)$. Two processes with two mismatched log-ratios each; the right value first, then the
# mean of what each would get alone.

# %%
k = torch.tensor([-3.0, -2.0, 4.0, 3.0])
together = k.mean().clamp(min=0)
alone = torch.stack([half.mean().clamp(min=0) for half in k.chunk(2)])
print(f"clamp of the mean: {together:.2f}   mean of the clamps: {alone.mean():.2f}")
reveal("mean_of_clamps", "abc"[1 + int((alone.mean() - together).sign())])

# %% [markdown]
# A mean of clamped values is never smaller: negative halves are cut off before they can balance the positive ones.
#
# ### 2. Sums are divided by global counts
#
# Seven rows on two processes are three and four. A mean of the two means gives the smaller share's rows more weight.

# %%
losses = torch.tensor([0.9, 0.8, 0.7, 0.2, 0.3, 0.1, 0.2])
shares = [Processes(rank, 2).share(len(losses)) for rank in (0, 1)]
print("shares:", [losses[share].tolist() for share in shares])
print(f"mean: {losses.mean():.4f}   mean of means: {sum(losses[s].mean() for s in shares) / 2:.4f}")

# %% [markdown]
# ### Exercise 12.1 · One z0 for all processes
# ★★☆ · 5 minutes · fill in a function
#
# Both points in one function. Each process hands over the mismatched log-ratios of its rows; the parts may differ in
# length. Every row counts the same, and the clamp comes last. $z_0$ is a constant of the step: no gradient flows
# through it (lesson [06](06_kto_loss.ipynb)).

# %% exercise="global_z0"
def my_global_z0(parts):
    """z0 of the whole batch, in nats: a tensor without axes that carries no gradient.

    parts: list of 1-D tensors, one per process: the mismatched log-ratios k of its rows, in nats.
    """
    ### BEGIN SOLUTION
    total = sum(part.sum() for part in parts)
    count = sum(len(part) for part in parts)
    return (total / count).clamp(min=0).detach()
    ### END SOLUTION


# %% check="global_z0" points=2
check.global_z0(my_global_z0)

# %% [markdown]
# ### 3. Completions are lent across the whole batch
#
# A rotation inside each share is a rotation too, so no row keeps its own completion. But the pairs are others. Eight
# rows, two processes; who borrows from whom?

# %%
examples = [tokenize_feedback(row, tokenizer) for row in rows]
names = [[i] for i in range(8)]
whole = [names[i - 1][0] for i in range(8)]
inside = [names[start_of + (i - 1) % 4][0] for start_of in (0, 4) for i in range(4)]
print("row         ", list(range(8)))
print("whole batch ", whole)
print("inside share", inside)

# %% [markdown]
# Only the first row of each share has another lender. How much does that matter for $z_0$? Train four steps, so that
# the policy has moved, and compute $z_0$ both ways for 40 batches of 16.

# %%
policy, _ = train_kto(
    load_reference_model(), reference_of(start), rows, tokenizer, steps=4, batch_size=15, learning_rate=5e-4,
    desirable_weight=weight_up, undesirable_weight=weight_down,
)  # fmt: skip
collate = KTOPaddingCollator(tokenizer)


def mean_k(batch_rows):
    """Mean mismatched log-ratio before the clamp."""
    batch = collate(batch_rows)
    with torch.no_grad():
        return (sequence_logps(policy, batch, "kl_") - sequence_logps(start, batch, "kl_")).mean()


# %%
batches = [examples[i : i + 16] for i in range(0, 640, 16)]
right = torch.stack([mean_k(batch) for batch in batches])
by_processes = {1: right}
for n in (2, 4, 8):
    size = 16 // n
    by_processes[n] = torch.stack(
        [torch.stack([mean_k(batch[i : i + size]) for i in range(0, 16, size)]).mean() for batch in batches]
    )

# %%
print("rotation inside shares of   mean |difference| of z0   largest   z0 on average")
for n, values in by_processes.items():
    gap = (values.clamp(min=0) - right.clamp(min=0)).abs()
    print(f"{16 // n:2d} rows ({n} processes) {gap.mean():27.3f} {gap.max():15.3f} {values.clamp(min=0).mean():13.3f}")

# %%
fig, ax = plt.subplots()
for n, marker in ((2, "o"), (4, "s"), (8, "^")):
    ax.plot(right, by_processes[n], marker, label=f"{n} processes")
limits = [float(right.min()) - 0.3, float(right.max()) + 0.3]
ax.plot(limits, limits, color="grey", linewidth=1, label="no difference")
ax.set_xlabel("mean k of the whole batch (nats)")
ax.set_ylabel("rotated inside each share (nats)")
ax.set_title("Same rows, smaller groups: another reference point")
ax.legend()
save_figure(
    fig, "12_rotation",
    alt="Scatter plot of 40 batches: mean mismatched log-ratio with rotation over the whole batch against rotation "
    "inside shares of 2, 4 and 8 processes; points scatter around the diagonal, wider for more processes.",
)  # fmt: skip
plt.show()

# %% [markdown]
# The points scatter around the diagonal; no bias can be seen: rotating inside a share is another draw of partners.
# But two runs that should be one run no longer are, and nobody can tell a bug from a different draw. And a share of
# one row has no partner at all. So: **pad and rotate the global batch first, split it afterwards.**
#
# ## The few lines that do it
#
# Every process draws the same global batch from the same seed, pads and rotates it, and keeps its share of the rows.
# Beside the gradients, which any data-parallel training exchanges, only a handful of numbers travels:
# log-probabilities, one per row. From there on the formulas are those of one process.

# %%
Code(inspect.getsource(Processes.gathered), language="python")

# %% [markdown]
# Each process puts its own numbers into a vector of zeros, the vectors are added, and everybody holds all of them. The
# gradient flows through the own part alone. The loss is the mean over *all* rows, so gradients must be **added**, not
# averaged:

# %%
Code(inspect.getsource(Processes.sum_gradients), language="python")

# %% [markdown]
# You can check that without any second process: play both, one after the other.

# %%
w = torch.tensor([0.3, -0.2, 0.5], requires_grad=True)
x = torch.arange(21.0).reshape(7, 3) / 10
whole_gradient = torch.autograd.grad(torch.sigmoid(x @ w).mean(), w)[0]
parts = []
for rank in (0, 1):
    scores = x @ w
    other = scores.detach().clone()  # what the exchange delivers
    share = Processes(rank, 2).share(7)
    mixed = torch.cat((other[: share.start], scores[share], other[share.stop :]))
    parts.append(torch.autograd.grad(torch.sigmoid(mixed).mean(), w)[0])
print("largest difference:", f"{float((parts[0] + parts[1] - whole_gradient).abs().max()):.0e}")

# %% [markdown]
# ## The same script, on one process and on two
#
# `scaling/train_small_world.py` calls `train_kto` and knows nothing of processes. Its three ways to start:

# %%
root = Path(scaling.ROOT)
print((root / "scaling" / "train_small_world.py").read_text(encoding="utf-8").split('"""')[1])

# %% [markdown]
# In the terminal, not in a notebook: a launcher starts the processes and ends them all if one fails. Two parts of such
# a launch are traps. With `--cpu --num_processes 2` accelerate 1.15 quietly starts **one** process, unless MPI is
# there; so print how many there are. And without a port of 0 two runs on one machine meet.

# %%
print((root / "scaling" / "two_processes_cpu.yaml").read_text(encoding="utf-8"))

# %% [markdown]
# Ten steps on two processes lie in the results file. Here are the same ten steps on one:

# %%
policy, history = train_kto(
    load_reference_model(), reference_of(start), rows, tokenizer, steps=10, batch_size=15, learning_rate=5e-4,
    desirable_weight=weight_up, undesirable_weight=weight_down,
)  # fmt: skip
two = results["two_processes"]
for step in (0, 4, 9):
    here = history[step]
    print(f"step {step + 1:2d}  one process {here['loss']:.10f}   two {two['loss'][step]:.10f}   kl {here['kl']:.4f}")
apart = max(abs(here["loss"] - there) for here, there in zip(history, two["loss"], strict=True))
print("all ten losses agree to 1e-10:", apart < 1e-10)

# %% [markdown]
# Batches of 15, so shares of seven and eight. Now the same run with one change: the batch is rotated inside each share,
# as it would be if every process padded its own rows.


# %%
class RotatedInsideShares(KTOPaddingCollator):
    """What two processes make that split the batch first."""

    def __call__(self, examples):
        half = Processes(0, 2).share(len(examples)).stop
        mixed = mismatched(examples[:half]) + mismatched(examples[half:])
        with mock.patch("kto_utils.collator.mismatched", return_value=mixed):
            return super().__call__(examples)


with mock.patch("kto_utils.train.KTOPaddingCollator", RotatedInsideShares):
    _, other = train_kto(
        load_reference_model(), reference_of(start), rows, tokenizer, steps=10, batch_size=15, learning_rate=5e-4,
        desirable_weight=weight_up, undesirable_weight=weight_down,
    )  # fmt: skip
print("step   kl whole   kl inside   loss whole   loss inside")
for a, b in zip(history, other, strict=True):
    print(f"{a['step']:4d} {a['kl']:10.4f} {b['kl']:11.4f} {a['loss']:12.6f} {b['loss']:13.6f}")

# %% [markdown]
# Look at both columns: kl moves in the second decimal, the loss in the fourth at most. Ten steps of this small world
# would hardly suffer. What is lost is the comparison: with the exact rule the numbers must agree to rounding, and any
# difference is a bug.
#
# ## When a process dies
#
# A process that is killed closes its connections; the others notice at their next exchange and say so, and the launcher
# ends the rest. A process that hangs is given up after five minutes. The message, played here without a second process:

# %%
try:
    with Processes(rank=0, size=2)._together():
        raise RuntimeError("Connection closed by peer")
except RuntimeError as error:
    print(error)

# %% [markdown]
# Process 0 alone writes checkpoints; all read them. `tests/test_scaling.py` kills either process in the middle of a
# step, starts the command again, and compares with a run that was never interrupted: the same curve to the last bit.
#
# ## Handing over to TRL
#
# For a large model you want an engine. It cuts the model into parts, one per GPU (*sharding*; FSDP is PyTorch's), it
# computes in 16 bits what can bear it (*mixed precision*, *autocast*), and it can freeze the model and train small
# added matrices instead (*LoRA adapters*). What it needs is plain: a folder with model and tokenizer, and rows as
# JSONL.

# %%
with tempfile.TemporaryDirectory() as folder:
    paths = export_world(folder, n=5)
    print("\n".join(sorted(path.name for path in paths["model"].iterdir())))
    for name in ("thumbs", "pairs"):
        print(name, json.loads(paths[name].read_text(encoding="utf-8").splitlines()[0]))

# %% [markdown]
# The script that trains is `scaling/train_with_trl.py`. Its settings are a JSON file:

# %%
print((root / "scaling" / "small_world_lora.json").read_text(encoding="utf-8"))

# %% [markdown]
# And this is how it calls TRL. The three arguments with a comment are the subject of the next section.

# %%
source = (root / "scaling" / "train_with_trl.py").read_text(encoding="utf-8")
Code(source[source.index("def arguments_of") : source.index("def merge")], language="python")

# %% [markdown]
# TRL is not part of the course's installation, so its runs lie in the results file: two processes through
# `accelerate launch`, once with full weights, once with LoRA; the result was loaded back and scored exactly.

# %%
print(f"{'':14s}{'trained':>9s}{'new wording':>13s}{'untouched':>11s}   listed")
for name in ("start", "full", "lora"):
    table = results[name] if name == "start" else results[name]["rates"]
    scores = [row["thumbs_up"] for row in table]
    print(f"{name:14s}{scores[0]:9.3f}{scores[1]:13.3f}{scores[2]:11.3f}   {table[0]['listed']:.3f}")

# %%
fig, ax = plt.subplots()
for name, label in (("full", "all weights"), ("lora", "LoRA, rank 16")):
    log = results[name]["log"]
    ax.plot([row["step"] for row in log], [float(row["loss"]) for row in log], marker="o", label=label)
ax.set_xlabel("step")
ax.set_ylabel("loss (mean of five steps)")
ax.set_title("TRL on two processes, the small world")
ax.legend()
save_figure(
    fig, "12_trl",
    alt="Loss curves of TRL's KTOTrainer on two processes once with all weights over 75 steps, "
    "once with LoRA over 30; both fall from about 0.89.",
)  # fmt: skip
plt.show()

# %% [markdown]
# The column "listed" is the share of probability on replies that are words of the small world. Where it falls, the
# model has begun to say something else: the price of pushing replies down (lesson [07](07_train.ipynb)). LoRA gains
# less here, but it ran for 30 steps and the other for 75: the table shows that both hand-overs work, not which method
# is better. (Longer LoRA runs were tried while this lesson was written and are not shown: their replies broke.)
#
# ## Three pitfalls that raise no error
#
# TRL 1.16 builds the borrowed completions **once**, before training, in groups of the batch size, and then reads the
# rows in order. Whatever disturbs rows or groups in between breaks the pairing. All counts were made by running TRL.

# %%
print(f"{'':42s}batches   mixed   own completion   foreign")
for name, found in results["pitfalls"].items():
    print(f"{name:42s}{found['batches']:7d}{found['mixed']:8d}{found['own']:17d}{found['foreign']:10d}")

# %% [markdown]
# *Mixed*: batches with both kinds of thumb. *Own*: rows whose "mismatched" completion is their own. *Foreign*: batches
# that borrow from rows outside.
#
# **Pairs.** Rows with `chosen` and `rejected` are cut in blocks of a thousand, all chosen first, and nobody shuffles.
# You can count the mixed batches yourself:

# %%
labels = []
for block in range(0, 2500, 1000):
    n = min(1000, 2500 - block)
    labels += [True] * n + [False] * n
print("mixed:", sum(len(set(labels[i : i + 8])) == 2 for i in range(0, 5000, 8)), "of", 5000 // 8)

# %% [markdown]
# The remedy: cut the pairs yourself, then shuffle, then hand over (`load_rows` in the script).

# %% [markdown]
# ### Exercise 12.2 · Where two blocks meet
# ★★☆ · 4 minutes · predict a number
#
# Take 1,600 pairs instead, and batches of 16. They are cut in blocks of a thousand pairs in the same way, and nobody
# shuffles. In how many of the 200 batches do both kinds of thumb occur?

# %% exercise="mixed_batches"
answer = ...  # a number
### BEGIN SOLUTION
answer = 2  # the thumb turns behind 1000, 2000 and 2600 rows; 2000 is a multiple of 16, so no batch straddles it
### END SOLUTION

# %% check="mixed_batches" points=1
check.mixed_batches(answer)

# %% [markdown]
# **Workers.** With `dataset_num_proc=2` the rows are cut into two parts first, and each part is rotated in groups of
# its own. Eighteen rows, batches of four:


# %%
def rotated(numbers, size):
    """Rotation in groups, as TRL does it."""
    groups = [numbers[i : i + size] for i in range(0, len(numbers), size)]
    return [lender for group in groups for lender in group[-1:] + group[:-1]]


lenders = rotated(list(range(9)), 4) + rotated(list(range(9, 18)), 4)
print("lenders:", lenders)
print("own completion:", [row for row, lender in enumerate(lenders) if row == lender])

# %% [markdown]
# The remedy: leave `dataset_num_proc` alone, or tokenize with many workers *before* and let TRL prepare with one.
#
# **A last batch of one** is rotated onto itself, and TRL checks only the configured size. The remedy:
# `dataloader_drop_last=True`. The same holds for evaluation, where the groups keep the *training* batch size.

# %%
print("lenders of nine rows:", rotated(list(range(9)), 4))

# %% [markdown]
# And on several processes? Each takes whole batches in turn, so the groups stay intact; but rotation is inside a
# process's batch, and the average is one of means. With full batches that is a KTO step with smaller groups, not wrong,
# and not the same numbers as one process with a large batch. The clamp comes after the average, as it should.

# %% [markdown]
# ## Why is a step slow?
#
# Before you rent anything, look where the time goes. `python course.py bench` times four programs that train one model
# on the same rows in the same order: the package's `train_kto`, the plain loop of lesson [07](07_train.ipynb), and TRL
# 1.16 with and without reference log-probabilities computed beforehand. A program counts only if its losses agree with
# the plain loop's to 1e-5.
#
# The committed results, on a Llama of 2 layers with a vocabulary of 32,000, batches of 8, float32:

# %%
timings = bench.load_results()
classic = next(run for run in timings["runs"] if run["workload"]["name"] == "classic")
machine = timings["machine"]
print(f"{machine['cores']} cores of {machine['processor']}, {timings['threads']} threads, no GPU")
for name, title in bench.CONTENDERS.items():
    seconds = statistics.median(classic["contenders"][name]["seconds"])
    print(f"{title:30s} {seconds:.3f} s a step   loss gap {bench.loss_gap(classic, name):.0e}")

# %% [markdown]
# ![Bars of seconds per step of four programs on three workloads; train_kto is the lowest in each, with the floor
# dotted below it.](../figures/bench_step.png)
#
# All four compute the same numbers. The difference lies in logits that nobody reads: the head turns **every** hidden
# state into 32,000 numbers, but only the places before a completion token are needed. Three savings:
#
# - the head is applied only where a completion token is predicted,
# - the softmax takes the place of the logits, so no second table of that size is made,
# - the reference is scored once, beforehand, in large batches (`precompute_reference=True`).

# %%
parts = timings["profiles"]["classic"]
for part in ("as it is, both ways", "head in blocks of 32 places instead, both ways", "all logits instead, both ways"):
    print(f"{part:48s} {parts[part]:.3f} s")

# %% [markdown]
# How much faster could it be? A floor: the step's matrix products at the rate that this machine reached on one large
# product, plus the bytes that the optimiser must move.

# %%
products, traffic = bench.floor_of(classic)
print(f"floor: {products:.3f} s of products + {traffic:.3f} s of memory; "
      f"train_kto takes {bench.over_floor(classic):.2f} times as long")  # fmt: skip

# %% [markdown]
# We wanted 1.5 times the floor and missed it: the products of a real step are smaller than the one that set the rate.
# (That is our guess from the parts above; the two alternatives we tried are slower.)

# %% [markdown]
# ## Before you rent a GPU: memory
#
# With AdamW and float32 weights under bfloat16 autocast, each trained weight takes 4 bytes for itself, 4 for its
# gradient and 8 for two moments; the reference is another 4. That is 20 bytes a parameter, before a single
# activation. With LoRA the frozen weights, here in 2 bytes, serve as the reference, and only the adapters have
# gradients. *Sharding* (FSDP) cuts weights, gradients and moments into one part per GPU. The 8 rows are those of each
# GPU.

# %%
print("GB per GPU, batch of 8 rows with 1,024 tokens each")
print(f"{'model':14s}{'parameters':>12s}{'all, 1 GPU':>12s}{'all, 8 GPUs':>13s}{'LoRA 16, 1 GPU':>16s}")
for name, shape in scaling.SHAPES.items():
    alone, eight = (scaling.memory(shape, 8, 1024, processes=n)["total"] / 1e9 for n in (1, 8))
    lora = scaling.memory(shape, 8, 1024, lora_rank=16, weight_bytes=2)["total"] / 1e9
    print(f"{name:14s}{shape.parameters / 1e9:10.2f} B{alone:12.0f}{eight:13.0f}{lora:16.0f}")

# %%
parts = ("weights", "gradients", "optimizer", "reference", "activations", "head")
fig, ax = plt.subplots()
bottom = torch.zeros(len(scaling.SHAPES))
for part in parts:
    height = torch.tensor([scaling.memory(s, 8, 1024, processes=8)[part] / 1e9 for s in scaling.SHAPES.values()])
    ax.bar(list(scaling.SHAPES), height, bottom=bottom, label=part)
    bottom += height
ax.set_ylabel("GB on each of 8 GPUs")
ax.set_title("All weights on 8 GPUs: activations do not shard")
ax.legend()
save_figure(
    fig, "12_memory",
    alt="Stacked bars of estimated memory on each of eight GPUs for four models from 0.5 to 8 billion parameters: "
    "weights, gradients, optimiser state, reference, activations and head.",
)  # fmt: skip
plt.show()

# %% [markdown]
# An estimate is worth as much as its check. TRL was run on a processor, in float32, with two small models. There its
# head holds several tiles of logits at once; how many comes from the first two points. The other two check the rest.

# %%
points = results["points"]
tiles = scaling.head_copies_of(points)
print(f"machine: {results['machine']}; tiles of logits at once: {tiles:.1f}")
print("shape   rows x length   LoRA   estimated MB   measured MB   ratio")
for point in points:
    estimate = scaling.checked(point, tiles)["peak_bytes"]
    print(
        f"{point['shape']:7s} {point['rows']} x {point['length']:3d} {point['lora_rank'] or '-':>12} "
        f"{estimate / 1e6:14.0f} {point['peak_bytes'] / 1e6:13.0f} {estimate / point['peak_bytes']:7.2f}"
    )

# %% [markdown]
# With all weights the one independent point fits. With LoRA the estimate is too low: the adapters are small, and what
# it leaves out (copies that libraries make on the way, fragments) weighs more beside them. And the check covers no GPU:
# bfloat16, sharding, and a head that holds one tile there instead of several are assumptions of the table above. Plan
# with slack, and watch the first steps.
#
# ## Before you rent a GPU: time
#
# A product costs 2 operations per weight and token, its backward pass 4. KTO adds three forward passes (the policy on
# borrowed completions, the reference on both): 12 operations instead of 6, twice a plain step. Gradient checkpointing
# (forget what happens inside a layer, compute it again on the way back) adds one more pass through the layers. All
# three rows below have it; the plain step that they are divided by has not, and trains all weights:

# %%
shape = scaling.SHAPES["Llama-3.1-8B"]
tokens, scored = 8 * 1024, 8 * 512
plain = 6 * (shape.body * tokens + shape.head * scored)
for label, options in (
    ("as it is", {}), ("reference beforehand", {"reference": False}), ("LoRA", {"lora": True}),
):  # fmt: skip
    print(f"{label:22s}{scaling.step_flops(shape, tokens, scored, **options) / plain:5.2f} plain steps")

# %% [markdown]
# Divide by what your machine really does. Peak numbers in data sheets are never reached; 40% of the peak is a common
# first guess, not a measurement of ours. For 100,000 rows, at 312 Tflop/s (the data sheet's figure for an A100 in
# bfloat16):

# %%
for name, shape in scaling.SHAPES.items():
    flops = scaling.step_flops(shape, tokens, scored) / 8 * 100_000
    print(f"{name:14s}{flops:10.1e} operations {flops / (0.4 * 312e12) / 3600:7.1f} GPU hours")

# %% [markdown]
# The check, again on the processor: measured seconds of a step over the least that its operations could take at the
# product rate measured in the same process, just before. The machine did other work at the time, and that may have
# slowed the steps or the rate: the ratios may be wrong in both directions. They say that steps take a multiple of the
# floor, and nothing about a GPU. Measure on yours (`python course.py scaling`).

# %%
for point in points:
    times = point["seconds"] / scaling.checked(point, tiles)["floor_seconds"]
    print(f"{point['shape']:7s} {point['rows']} x {point['length']:3d}   {times:4.1f} times the floor")

# %% [markdown]
# ## A real run
#
# `scaling/` holds two configurations: all weights of a 0.5B model on public thumbs, and LoRA for an 8B model on
# public pairs, with `fsdp.yaml` for one to eight GPUs. Two of its numbers are starting points, not results. The
# learning rate: TRL's default is 1e-6, the paper's current text is reported to recommend 5e-6; try both. The batch: 8
# rows on each GPU, the paper used 32 in all. Gradient accumulation adds rows to a step, but each part has its own
# $z_0$: for a steadier one, raise the rows that are scored together.

# %% [markdown]
# ### Exercise 12.3 · More rows, no steadier
# ★★☆ · 4 minutes · read a curve
#
# Two people have eight rows on one GPU and want more rows in a step. The first rents GPUs with more memory and scores
# all rows of a step together. The second does something else. The figure shows how much the $z_0$ that a row meets
# scatters from step to step (each mismatched log-ratio is drawn at random, mean 0.5, standard deviation 3). What did
# the second person do?
#
# - `"a"`: the same: all rows of a step are scored together;
# - `"b"`: several parts of eight rows, one after the other, and their gradients are added up before the step;
# - `"c"`: several GPUs with eight rows each, and the mean goes over all of them before the clamp;
# - `"d"`: all rows together, but each row's log-ratio is clamped before the mean.


# %%
def spread(rows):
    k = 0.5 + 3 * torch.randn(2000, rows, generator=torch.Generator().manual_seed(0))
    return float(k.mean(1).clamp(min=0).std())


sizes = (8, 16, 32, 64, 128)
fig, ax = plt.subplots(figsize=(6.4, 3.2))
ax.plot(sizes, [spread(n) for n in sizes], marker="o", label="first person")
ax.plot(sizes, [unknown_spread(n) for n in sizes], marker="s", linestyle="--", label="second person")
ax.set(xlabel="rows in a step", ylabel="spread of z0 (nats)", ylim=(0, 0.8), xticks=sizes)
ax.set_title("One of them gains nothing for z0")
ax.legend(loc="lower left")
save_figure(
    fig, "12_spread",
    alt="Standard deviation of z0 against the rows in a step, 8 to 128. The first person's curve falls from about 0.7 "
    "to about 0.2; the second person's stays flat at about 0.7.",
)  # fmt: skip
plt.show()

# %% exercise="accumulation"
answer = ...  # "a", "b", "c" or "d"
### BEGIN SOLUTION
answer = "b"
### END SOLUTION

# %% check="accumulation" points=1
check.accumulation(answer)

# %% [markdown]
# The configuration that trains all weights:

# %%
print((root / "scaling" / "thumbs_full.json").read_text(encoding="utf-8"))

# %%
readme = (root / "scaling" / "README.md").read_text(encoding="utf-8")
Markdown(readme[readme.index("**What is proven") :])

# %% [markdown]
# ## What goes wrong
#
# | what you see | what to look at |
# |---|---|
# | it is not faster on two processes | print the number of processes; the launcher may have started one |
# | kl differs from the run on one process | rotation inside shares; clamp before the average |
# | loss depends on the number of processes | mean of means with unequal shares; gradients averaged twice |
# | reward of one kind is missing for many steps | pairs that were not shuffled |
# | kl near the mean reward divided by beta, or nothing if few rows are hit | rows matched with themselves: count them |
# | the run hangs at the first step | the processes do not take the same number of steps, or one waits for a download |
# | out of memory in the backward pass of the head | the vocabulary: fewer rows, or an engine with tiles |
#
# **Your turn.** Change the shares: let `Processes(rank, 4)` split the batch of seven, and predict the mean of means
# (shares of one, two, two and two; divide by 4 in the print, too).
# Then put the shape of the model you would like to train into `scaling.Shape`: how many 24 GB GPUs does it take?

# %%
mine = scaling.Shape(hidden=2048, intermediate=8192, layers=16, heads=32, kv_heads=8, vocab=128256, tied=True)
for n in (1, 2, 4, 8):
    print(f"{n} GPUs: {scaling.memory(mine, 4, 1024, processes=n)['total'] / 1e9:6.1f} GB each")

# %% [markdown]
# ## Recap
#
# 1. Pad and rotate the global batch, then split it; a rotation inside shares is another set of partners.
# 2. Average the mismatched log-ratios over all processes, then clamp; divide sums by global counts; add gradients.
# 3. TRL 1.16 reads KTO's rows in order: cut pairs and shuffle them yourself, prepare with one worker, drop a last
#    incomplete batch.
# 4. All weights take about 20 bytes a parameter, LoRA about 2 (frozen, bfloat16). To both add activations: they grow
#    with the rows on each GPU, and sharding does not divide them.
# 5. KTO's three extra forward passes double a plain step; a reference scored beforehand saves two of the three.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions accumulation_z0 cost_per_step silent_weights}}

# %% [markdown]
# ## Sources
#
# - TRL 1.16.0, accelerate 1.15.0, peft 0.21.2: behaviour as run by `tests/test_scaling.py`.
# - KTO: arXiv 2402.01306; batch and reference point as in lesson [06](06_kto_loss.ipynb).
# - Counting operations as 6 per weight and token: Kaplan et al. 2020, arXiv 2001.08361, section 2.1.
# - Results: `kto_lab/results/scaling_results.json`, computed by `python course.py scaling`.
#
# **Where next?** The folder `scaling/`, with your own rows.
