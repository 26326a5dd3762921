# %% [markdown]
# # 12 · Scaling up
#
# Take a real chat model from rambling to brief and right, then start the same run at 7B: its price, its pitfalls.

# %% [markdown]
# **You will be able to**
# - say what KTO, DPO and SFT did to a real chat model, and read the report that shows it
# - launch TRL's `KTOTrainer` from a settings file, on one GPU or several
# - estimate memory and time of a run before you rent a GPU
# - name three pitfalls of TRL that raise no error, and their remedies
#
# **You need first** the reference point of lesson [06](06_kto_loss.ipynb) and the loop of lesson [07](07_train.ipynb).
#
# **Time** {{times}}. Deeper: [several processes, and a run that is killed](deeper/12b_several_processes.ipynb); [the
# real model, row by row](deeper/12c_real_model.ipynb).

# %% [markdown] slide=["You train all", "How many bytes"]
# **Before you run anything.** You train all weights of a model in float32 with AdamW, and keep the frozen reference in
# memory. How many bytes does one parameter take, before a single row has been read?

# %%
import json
import statistics
import tempfile

import torch
from IPython.display import Code

from kto_course import check, predict, reveal
from kto_course.checks.lesson_12 import unknown_spread
from kto_course.pictures import lesson_12 as pictures
from kto_lab import SCRIPTS, scaling
from kto_lab.bench import measure
from kto_lab.bench.results import load_results as load_bench
from kto_lab.bench.workloads import CONTENDERS
from kto_lab.export import export_world
from kto_lab.real import protocol
from kto_lab.real import results as real
from kto_utils.plotting import use_course_style

use_course_style()
torch.set_default_dtype(torch.float64)
results = scaling.load_results()
chat_runs = real.load()

# %%
asked = "Bytes for each trained parameter, reference included, before the first row?"
predict("bytes_a_parameter", asked, ["4", "12", "16", "20"], guess=None, confidence=None)

# %% [markdown]
# ## A chat model on your own laptop
#
# SmolLM2-135M-Instruct, a real chat model of 135 million parameters, was asked for capitals: 32 countries, four replies
# each. A judge gave a thumbs-up to a reply that is *right and brief* (it ends within 30 words). Then came `train_kto`,
# the loop of lesson 07: 24 steps of 8 replies, beta 0.1. One reply to each of six countries that were **not** trained,
# before and after:

# %%
before, after = chat_runs["before", 4], chat_runs["kto", 4]
for (old, ended), (new, _) in list(zip(before["replies"], after["replies"], strict=True))[:6]:
    print("before:", " ".join(old.split())[:96] + ("" if ended and len(old) < 96 else " ..."))
    print(" after:", new, "\n")

# %% [markdown]
# Not every answer is true, but they come at once. That took some minutes of training on two cores, from thumbs alone.
# `python course.py real` does it on your machine: it fetches the model once (100 MB), takes about half an hour with
# the plain rival and the report, and can be stopped and resumed. What else changed stands at the end of this lesson.

# %% [markdown] slide=["TRL is", "```"]
# ## 1. A run is one command and one settings file
#
# For a large model you want an engine. TRL is Hugging Face's library for training from feedback; accelerate starts it
# on as many GPUs as you have.
#
# ```
# pip install trl==1.16.0 accelerate==1.15.0 peft==0.21.2
# accelerate launch --config_file kto_lab/scripts/fsdp.yaml --num_processes 8 \
#     kto_lab/scripts/train_with_trl.py kto_lab/scripts/thumbs_0.5b.json
# ```
#
# `fsdp.yaml` tells the launcher how GPUs share the work. The JSON file holds everything else:

# %%
settings = json.loads((SCRIPTS / "thumbs_0.5b.json").read_text(encoding="utf-8"))
shown = ("beta", "learning_rate", "num_train_epochs", "per_device_train_batch_size", "max_length", "bf16")
for name, value in {**settings, "kto": {name: settings["kto"][name] for name in shown}}.items():
    print(f"{name:6s}", value)

# %% [markdown]
# All weights of a model with half a billion parameters, on public thumbs. `bf16` is *mixed precision*: what can bear it
# is computed in 16 bits. `lora` would freeze the model and train small added matrices instead. This is how the script
# turns settings into TRL's arguments; section 4 is about the three with a comment.

# %%
source = (SCRIPTS / "train_with_trl.py").read_text(encoding="utf-8")
Code(source[source.index("def arguments_of") : source.index("def merge")], language="python")

# %% [markdown]
# It needs a model folder or name, and rows as JSON lines. The course's small world in that form, as thumbs and as the
# pairs that other methods want:

# %%
with tempfile.TemporaryDirectory() as folder:
    paths = export_world(folder, n=5)
    for name in ("thumbs", "pairs"):
        print(name, json.loads(paths[name].read_text(encoding="utf-8").splitlines()[0]))

# %% [markdown]
# TRL is not part of the course's installation. So its runs on the small world, two processes started by the same
# command, lie in a results file. *Listed replies* are the 48 that the world knows for each question; the last column is
# their share of the probability.

# %%
print(f"{'thumbs-up rate':14s}{'trained':>9s}{'new wording':>13s}{'untouched':>11s}   listed")
for name in ("start", "full", "lora"):
    table = results[name] if name == "start" else results[name]["rates"]
    scores = [row["thumbs_up"] for row in table]
    print(f"{name:14s}{scores[0]:9.3f}{scores[1]:13.3f}{scores[2]:11.3f}   {table[0]['listed']:.3f}")
pictures.trl_losses({"all weights": results["full"]["log"], "LoRA, rank 16": results["lora"]["log"]})

# %% [markdown]
# Both hand-overs work. Which is better the table cannot say: LoRA ran for 30 steps, the other for 75. Where "listed"
# falls, the model has begun to say something else, the price of pushing replies down (lesson [07](07_train.ipynb)).
#
# ## 2. Memory: twenty bytes a parameter, then the activations
#
# A trained weight takes 4 bytes for itself, 4 for its gradient and 8 for AdamW's two moments; the reference is another
# 4. With LoRA the frozen weights, here in 2 bytes, serve as the reference, and only the small added matrices have
# gradients. *Sharding* (FSDP) cuts all this into one part per GPU. What no sharding cuts are the *activations*, the
# numbers that the backward pass needs again: they grow with the rows on each GPU, here 8 of 1,024 tokens.

# %% slide=["figure"]
shape = scaling.SHAPES["Llama-3.1-8B"]
kept = [scaling.memory(shape, 8, 1024)[part] for part in ("weights", "gradients", "optimizer", "reference")]
reveal("bytes_a_parameter", {4: "a", 12: "b", 16: "c", 20: "d"}[round(sum(kept) / shape.parameters)])
print(f"{'GB per GPU':14s}{'parameters':>12s}{'all, 1 GPU':>12s}{'all, 8 GPUs':>13s}{'LoRA 16, 1 GPU':>16s}")
for name, shape in scaling.SHAPES.items():
    alone, eight = (scaling.memory(shape, 8, 1024, processes=n)["total"] / 1e9 for n in (1, 8))
    lora = scaling.memory(shape, 8, 1024, lora_rank=16, weight_bytes=2)["total"] / 1e9
    print(f"{name:14s}{shape.parameters / 1e9:10.2f} B{alone:12.0f}{eight:13.0f}{lora:16.0f}")
pictures.memory({name: scaling.memory(shape, 8, 1024, processes=8) for name, shape in scaling.SHAPES.items()})

# %% [markdown]
# ### An estimate is worth as much as its check
#
# TRL was run on a processor, in float32, with two small models. The first two points fix the one number that we did not
# know: how much of the logits is held at once. The other two are the check.

# %%
points = results["points"]
tiles = scaling.head_copies_of(points)
print("shape   rows x length   LoRA   estimated MB   measured MB   ratio")
for point in points:
    estimate, measured = scaling.checked(point, tiles)["peak_bytes"], point["peak_bytes"]
    print(f"{point['shape']:7s} {point['rows']} x {point['length']:3d} {point['lora_rank'] or '-':>12} "
          f"{estimate / 1e6:14.0f} {measured / 1e6:13.0f} {estimate / measured:7.2f}")  # fmt: skip

# %% [markdown] slide=["KTO adds", "That makes"]
# With all weights the independent point fits. With LoRA, one run, the estimate is too low. Why was not measured;
# perhaps the copies that libraries make on the way weigh more beside small matrices. And the check covers no GPU:
# bfloat16 and sharding are assumptions. Plan with slack, and watch the first steps.
#
# ## 3. Time: KTO doubles a plain step
#
# A matrix product costs 2 operations per weight and token, its backward pass 4. KTO adds three forward passes: the
# policy on borrowed completions, the reference on both. That makes 12 operations instead of 6. *Gradient
# checkpointing* forgets what happens inside a layer and computes it again on the way back, one more pass through the
# layers. All three rows below have it; the plain step that they are divided by has not, and trains all weights.
#
# Divide by what your machine really does. Data sheets name a peak (312 Tflop/s for an A100 in bfloat16); 40% of it is a
# common first guess, not a measurement of ours.

# %%
tokens, scored = 8 * 1024, 8 * 512
shape = scaling.SHAPES["Llama-3.1-8B"]
plain = 6 * (shape.body * tokens + shape.head * scored)
for label, options in {"KTO": {}, "reference beforehand": {"reference": False}, "LoRA": {"lora": True}}.items():
    print(f"{label:22s}{scaling.step_flops(shape, tokens, scored, **options) / plain:5.2f} plain steps")
print("\nall weights, 100,000 rows of 1,024 tokens:")
for name, shape in scaling.SHAPES.items():
    flops = scaling.step_flops(shape, tokens, scored) / 8 * 100_000
    print(f"{name:14s}{flops:10.1e} operations {flops / (0.4 * 312e12) / 3600:7.1f} GPU hours")

# %% [markdown]
# ### Measure before you rent
#
# `python course.py bench` times four programs that train one small model on the same rows in the same order. The
# committed results, for a vocabulary of 32,000, batches of 8, float32, no GPU:

# %%
timings = load_bench()
classic = next(run for run in timings["runs"] if run["workload"]["name"] == "classic")
for name, title in CONTENDERS.items():
    print(f"{title:45s} {statistics.median(classic['contenders'][name]['seconds']):.3f} s a step")
print("\nscoring alone, there and back:")
for part in ("as it is, both ways", "head in blocks of 32 places instead, both ways", "all logits instead, both ways"):
    print(f"{part.removesuffix(', both ways'):45s} {timings['profiles']['classic'][part]:.3f} s")
products, traffic = measure.floor_of(classic)
print(f"\nfloor of a step: {products:.3f} s of products + {traffic:.3f} s of memory")

# %% [markdown]
# All four compute the same losses. Most of the difference lies in logits that nobody reads: a head turns **every**
# hidden state into 32,000 numbers, but only the places before a completion token are needed. `train_kto` computes no
# others.
#
# The *floor* is the step's matrix products at the rate that this machine reached on one large product, plus the bytes
# that the optimiser must move. We wanted 1.5 times the floor; `train_kto` takes more, since the products of a real step
# are smaller than the one that set the rate. (That is our guess.) TRL on the two small models of section 2 took a
# multiple of its floor, too:

# %%
for point in points:
    times = point["seconds"] / scaling.checked(point, tiles)["floor_seconds"]
    print(f"{point['shape']:7s} {point['rows']} x {point['length']:3d}   {times:4.1f} times the floor")

# %% [markdown]
# The machine did other work at the time, so these ratios may be wrong in both directions, and they say nothing about a
# GPU. Measure on yours.
#
# ## 4. What goes wrong: three pitfalls that raise no error
#
# TRL 1.16 builds the borrowed completions **once**, before training, by rotating in groups of the batch size. Then it
# reads the rows in order. Whatever disturbs rows or groups in between breaks the pairing. These counts come from
# running TRL. *Mixed*: batches with both kinds of thumb. *Own*: rows whose "mismatched" completion is their own.
# *Foreign*: batches that borrow from rows outside.

# %%
print(f"{'':42s}batches   mixed   own completion   foreign")
for name, found in results["pitfalls"].items():
    print(f"{name:42s}{found['batches']:7d}{found['mixed']:8d}{found['own']:17d}{found['foreign']:10d}")

# %% [markdown] slide=["Of 625", "The remedy"]
# **Pairs** (rows with `chosen` and `rejected`) are cut in blocks of a thousand, all chosen rows first, and nobody
# shuffles. Of 625 batches, one holds both kinds of thumb. The remedy: cut the pairs yourself, then shuffle, then hand
# over; the script's `load_rows` does.

# %% [markdown]
# ### Exercise 12.1 · Where two blocks meet
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
# ### The other two: workers and a last batch of one
#
# With `dataset_num_proc=2` the rows are cut into two parts first, and each part is rotated in groups of its own.
# Eighteen rows, batches of four; then nine rows, one worker:

# %%
def rotated(numbers, size):
    """Rotation in groups, as TRL does it: row by row, whose completion it borrows."""
    groups = [numbers[i : i + size] for i in range(0, len(numbers), size)]
    return [lender for group in groups for lender in group[-1:] + group[:-1]]


two_workers = rotated(list(range(9)), 4) + rotated(list(range(9, 18)), 4)
for name, lenders in {"two workers": two_workers, "nine rows": rotated(list(range(9)), 4)}.items():
    print(f"{name:11s}", lenders, " own:", [row for row, lender in enumerate(lenders) if row == lender])

# %% [markdown] slide=["Learning rate", "Rows per GPU", "Weights"]
# Groups of 4, 4 and 1: the lone row borrows from itself. TRL checks only the configured batch size. Remedies: leave
# `dataset_num_proc` alone, or tokenize with many workers *before* and let TRL prepare with one. Set
# `dataloader_drop_last=True`. The same holds for evaluation, where the groups keep the *training* batch size.
#
# ## 5. A plan for a real model
#
# `kto_lab/scripts` holds four plans: all weights of a 0.5B and of a 7B model on public thumbs, LoRA for the 7B model,
# and LoRA for an 8B model on public pairs. Its README names the source of every value. Three are starting points, not
# results.
#
# - **Learning rate**: TRL's default is 1e-6, its documentation's limit at beta 0.1, and a smaller beta asks for a
#   smaller rate; the paper starts at 5e-6. Try both.
# - **Rows per GPU**: 8 (4 on each of eight), as $z_0$ comes from rows that are scored together; TRL's documentation
#   wants at least 4. In a step the paper's experiments used 32; it recommends 8 to 128, TRL 16 to 128.
# - **Weights**: from the counts of thumbs, so that both kinds have equal total weight.
#
# What has been tried? All plans run from end to end in the tests, on the small model, on two processes without a GPU.
# Not run here: sharding itself, bfloat16, and the real models and data.

# %% [markdown]
# ### Exercise 12.2 · More rows, no steadier
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
pictures.spread(sizes, [spread(n) for n in sizes], [unknown_spread(n) for n in sizes])

# %% exercise="accumulation"
answer = ...  # "a", "b", "c" or "d"
### BEGIN SOLUTION
answer = "b"
### END SOLUTION

# %% check="accumulation" points=1
check.accumulation(answer)

# %% [markdown]
# ### When it looks wrong
#
# | what you see | what to look at |
# |---|---|
# | not faster on two processes | print their number; the launcher may have started one |
# | kl differs from the run on one process | rotation inside shares; clamp before the average |
# | loss depends on the number of processes | mean of means with unequal shares; gradients averaged twice |
# | reward of one kind is missing for many steps | pairs that were not shuffled |
# | kl near the mean reward divided by beta | rows matched with themselves: count them |
# | the run hangs at the first step | processes with unequal numbers of steps, or one waits for a download |
# | out of memory in the backward pass of the head | the vocabulary: fewer rows, or an engine with tiles |
#
# ### Your model
#
# Put in the shape of the model that you would like to train. How many GPUs of 24 GB does it take?

# %%
mine = scaling.Shape(hidden=2048, intermediate=8192, layers=16, heads=32, kv_heads=8, vocab=128256, tied=True)
for n in (1, 2, 4, 8):
    print(f"{n} GPUs: {scaling.memory(mine, 4, 1024, processes=n)['total'] / 1e9:6.1f} GB each")

# %% [markdown]
# ## 6. Did it help? The report
#
# A loss curve does not answer this. The chat model from the start of this lesson was measured on 16 countries that it
# was not trained on, six sampled replies each, before and after; three seeds, five methods, the same 128 replies. Mean
# and range over the seeds; `kl` in nats a reply, `facts` is the share known of 100 questions about other things:

# %%
print(real.table(chat_runs))

# %% [markdown]
# Three things to see. **SFT on the thumbs-up**, the plain rival, goes most of the way: it learns the style from what
# was liked. **KTO and DPO end alike** here: four replies to each question give DPO its pairs. And **the judge gets
# what it asked for**: thumbs for brevity alone make all replies brief, and more than a third of them wrong. No loss
# curve says so; the column `right` does.
#
# What was expected, before the seeds were run, and what came out:

# %%
for name, said in real.verdicts(chat_runs).items():
    print(f"{protocol.EXPECTED[name]}\n    {said}\n")

# %% [markdown]
# One expectation was wrong: the model does not know fewer other facts afterwards. Its replies are cut after 32 tokens
# there, so a short answer may just come in time. One small model, one task and one judge by rules stand behind all
# this. Your own run deserves the same table: held-out thumbs, distance, length, what else it knew, and twenty replies
# side by side. `course.py real` writes it as a page; with your own rows, cut by `course.py split`:
#
# ```
# python course.py real --rows train.jsonl --check eval.jsonl              trains SFT and KTO here, then reports
# python course.py real --check eval.jsonl --model BEFORE --after AFTER    a model that the script trained
# ```
#
# Both leave a table for a rater who does not know which model wrote what; `--ratings` puts the thumbs in the report.

# %% [markdown]
# ## Recap
#
# 0. Measure what the judge does not see, and read replies: a model learns what was clicked, not what was meant.
# 1. A run is one command: a launcher, TRL's `KTOTrainer`, a settings file, rows as JSON lines.
# 2. All weights take about 20 bytes a parameter, LoRA about 2 (frozen, bfloat16). Activations come on top; they grow
#    with the rows on each GPU, and sharding does not divide them.
# 3. KTO's three extra forward passes double a plain step; a reference scored beforehand saves two of the three.
# 4. TRL 1.16 reads KTO's rows in order: cut pairs and shuffle them yourself.
# 5. Prepare with one worker, and drop a last incomplete batch.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions memory_8b cost_per_step silent_weights}}

# %% [markdown]
# ## Sources
#
# - TRL 1.16.0, accelerate 1.15.0, peft 0.21.2: behaviour as run by `tests/test_scaling.py`. Rates and batches that TRL
#   advises: its page on KTOTrainer (commit f2cd577).
# - KTO, arXiv 2402.01306 v4, section 4.2: learning rate and batch size.
# - Counting operations as 6 per weight and token: Kaplan et al. 2020, arXiv 2001.08361, section 2.1.
# - Results: `python course.py scaling` and `python course.py bench` compute them.
#
# Next: [13 · The interview](13_interview.ipynb). Deeper:
# [12b · Several processes, one run](deeper/12b_several_processes.ipynb). Then `kto_lab/scripts`, with your own rows.
