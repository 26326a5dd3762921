# %% [markdown]
# # 12b · Several processes, one run
#
# Share KTO's batches among processes without changing KTO, and go on after a kill as if nothing had happened.

# %% [markdown]
# **You will be able to**
# - say what several processes must exchange for KTO to stay KTO, and show what breaks if they do not
# - show that the gradients of all shares add up to that of the whole batch
# - kill a run in the middle and continue it to the same last bit
#
# **You need first** the reference point of lesson [06](../06_kto_loss.ipynb) and the loop of lesson
# [07](../07_train.ipynb).
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything.** Two processes train one model; each gets half of every batch. An ordinary loss is an
# average over rows, so each process can take the gradient of its own rows. For KTO this is not enough: $z_0 = \max(0,
# \text{mean}_i\, k_i)$ looks at all rows. What if each process takes $z_0$ of its own rows, and the two are averaged?

# %%
import inspect
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch
from IPython.display import Code

from kto_course import check, predict, reveal
from kto_course.pictures import lesson_12b as pictures
from kto_lab import SCRIPTS, scaling
from kto_lab.checkpoints import Checkpoint
from kto_lab.distributed import Processes
from kto_utils.collator import KTOPaddingCollator, mismatched
from kto_utils.data import tokenize_feedback
from kto_utils.evaluate import collect_feedback
from kto_utils.logprobs import sequence_logps
from kto_utils.losses import balanced_weights
from kto_utils.model import load_reference_model, reference_of
from kto_utils.plotting import use_course_style
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import Parts, train_kto
from kto_utils.world import trained_questions

use_course_style()
torch.set_default_dtype(torch.float64)
tokenizer = load_tokenizer()

# %%
asked = (
    "Mismatched log-ratios k: -3 and -2 on one process, 4 and 3 on the other. The mean of the two processes' own z0, "
    "compared with z0 of all four rows, is"
)
predict("mean_of_clamps", asked, ["smaller", "equal", "larger"], guess=None, confidence=None)

# %% [markdown]
# ## 1. Three things must cross the border
#
# The first is $z_0$ itself. Write it so that it does not depend on who holds which row.

# %% [markdown]
# ### Exercise 12.3 · One z0 for all processes
# ★★☆ · 5 minutes · fill in a function
#
# Each process hands over the mismatched log-ratios of its rows; the parts may differ in length. Every row counts the
# same. $z_0$ is a constant of the step: no gradient flows through it (lesson [06](../06_kto_loss.ipynb)).

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
# ### The clamp comes after the average over everybody

# %%
global_z0 = check.yours_or_ours("global_z0")
first, second = torch.tensor([-3.0, -2.0]), torch.tensor([4.0, 3.0])
together, alone = global_z0([first, second]), (global_z0([first]) + global_z0([second])) / 2
print(f"z0 of all four rows: {together:.2f}   mean of each process's own z0: {alone:.2f}")
reveal("mean_of_clamps", "abc"[1 + int((alone - together).sign())])

# %% [markdown]
# A mean of clamped values is never smaller: negative halves are cut off before they can balance the positive ones.
#
# ### Sums are divided by global counts
#
# Seven rows on two processes are three and four. A mean of the two means gives the smaller share's rows more weight.

# %%
losses = torch.tensor([0.9, 0.8, 0.7, 0.2, 0.3, 0.1, 0.2])
shares = [Processes(rank, 2).share(len(losses)) for rank in (0, 1)]
print("shares:", [losses[share].tolist() for share in shares])
print(f"mean: {losses.mean():.4f}   mean of means: {sum(losses[s].mean() for s in shares) / 2:.4f}")

# %% [markdown]
# ### Completions are lent across the whole batch
#
# A rotation inside each share is a rotation too, so no row keeps its own completion. But the pairs are others. Eight
# rows, two processes; who borrows from whom?

# %%
print("row         ", list(range(8)))
print("whole batch ", [(i - 1) % 8 for i in range(8)])
print("inside share", [start + (i - 1) % 4 for start in (0, 4) for i in range(4)])

# %% [markdown]
# Only the first row of each share has another lender. How much does that matter for $z_0$? Train four steps, so that
# the policy has moved, and compute the mean of $k$ both ways for 40 batches of 16.

# %%
start = load_reference_model()
rows = collect_feedback(start, trained_questions(), 50, seed=0)
up = sum(row["label"] for row in rows)
weights = dict(zip(("desirable_weight", "undesirable_weight"), balanced_weights(up, len(rows) - up), strict=True))
settings = {"batch_size": 15, "learning_rate": 5e-4, **weights}
policy, _ = train_kto(load_reference_model(), reference_of(start), rows, tokenizer, steps=4, **settings)

examples, collate = [tokenize_feedback(row, tokenizer) for row in rows], KTOPaddingCollator(tokenizer)


def mean_k(batch_rows):
    """Mean mismatched log-ratio before the clamp, nats."""
    batch = collate(batch_rows)
    with torch.no_grad():
        return (sequence_logps(policy, batch, "kl_") - sequence_logps(start, batch, "kl_")).mean()


# %%
by_processes = {}
for n in (1, 2, 4, 8):
    size = 16 // n
    means = [mean_k(examples[i : i + size]) for i in range(0, 640, size)]
    by_processes[n] = torch.stack(means).reshape(40, n).mean(1)
right = by_processes[1]
print("rotation inside shares of   mean |difference| of z0   largest   z0 on average")
for n, values in by_processes.items():
    gap = (values.clamp(min=0) - right.clamp(min=0)).abs()
    print(f"{16 // n:2d} rows ({n} processes) {gap.mean():27.3f} {gap.max():15.3f} {values.clamp(min=0).mean():13.3f}")
pictures.rotation(right, {n: values for n, values in by_processes.items() if n > 1})

# %% [markdown]
# The points scatter around the diagonal; no bias can be seen: rotating inside a share is another draw of partners. But
# two runs that should be one run no longer are, and nobody can tell a bug from a different draw. And a share of one row
# has no partner at all. So: **pad and rotate the global batch first, split it afterwards.**
#
# ## 2. A few numbers travel, and gradients are added
#
# Every process draws the same global batch from the same seed, pads and rotates it, and keeps its share of the rows.
# Beside the gradients, which any data-parallel training exchanges, only log-probabilities travel, one per row.

# %%
Code(inspect.getsource(Processes.gathered), language="python")

# %% [markdown]
# Each process puts its own numbers into a vector of zeros, the vectors are added, and everybody holds all of them. The
# gradient flows through the own part alone. The loss is the mean over *all* rows, so gradients must be **added**, not
# averaged. You can check that without a second process: play both, one after the other.

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
print("equal to 1e-12:", bool((parts[0] + parts[1] - whole_gradient).abs().max() < 1e-12))

# %% [markdown]
# ## 3. The same script on one process and on two
#
# `kto_lab/scripts/train_small_world.py` hands `Processes.of_launcher()` to `train_kto` as one of its `Parts`; nothing
# else in it knows of processes. Its three ways to start:

# %%
print((SCRIPTS / "train_small_world.py").read_text(encoding="utf-8").split('"""')[1])

# %% [markdown]
# In the terminal, not in a notebook: a launcher starts the processes and ends them all if one fails. Two parts of such
# a launch are traps. With `--cpu --num_processes 2` accelerate 1.15 quietly starts **one** process, unless MPI is
# there; so print how many there are. And without a port of 0 two runs on one machine meet. The file
# `two_processes_cpu.yaml` avoids both.
#
# Ten steps on two processes lie in the results file. Here are the same ten steps on one. Then the same with one change:
# the batch is rotated inside each share, as if every process padded its own rows.

# %%
class RotatedInsideShares(KTOPaddingCollator):
    """What two processes make that split the batch first."""

    def __call__(self, examples):
        half = Processes(0, 2).share(len(examples)).stop
        mixed = mismatched(examples[:half]) + mismatched(examples[half:])
        with mock.patch("kto_utils.collator.mismatched", return_value=mixed):
            return super().__call__(examples)


def ten_steps():
    return train_kto(load_reference_model(), reference_of(start), rows, tokenizer, steps=10, **settings)[1]


one, two = ten_steps(), scaling.load_results()["two_processes"]
with mock.patch("kto_utils.train.KTOPaddingCollator", RotatedInsideShares):
    inside = ten_steps()
print("step   loss: one process        two     inside   kl: one process     inside")
for a, shared, b in zip(one, two["loss"], inside, strict=True):
    print(f"{a['step']:4d} {a['loss']:19.6f} {shared:10.6f} {b['loss']:10.6f} {a['kl']:17.4f} {b['kl']:10.4f}")
apart = max(abs(a["loss"] - b) for a, b in zip(one, two["loss"], strict=True))
print("one and two processes, all ten losses within 1e-10:", apart < 1e-10)

# %% [markdown]
# Batches of 15, so shares of seven and eight, and still one and two agree to rounding. Rotated inside shares, kl moves
# in the second decimal, the loss in the fourth at most. Ten steps of this small world would hardly suffer. What is lost
# is the comparison: with the exact rule any difference is a bug.
#
# ## 4. Kill a run, and go on
#
# A run of days will be interrupted. A process that is killed closes its connections; the others notice at their next
# exchange and say so, and the launcher ends the rest. What then? Start the same command again, if a checkpoint holds
# everything that the next step depends on: model, optimiser, the generator with the rows still waiting in this pass,
# and the history. `Checkpoint` writes to a temporary name and then renames, so a kill during the write leaves the old
# file whole.
#
# Let a child process train, and kill it as soon as a checkpoint lies on the disk.

# %%
CHILD = """
import json, sys
from kto_lab.checkpoints import Checkpoint
from kto_utils import model, tokenizer, train
rows, settings, file = json.load(open(sys.argv[1], encoding="utf-8"))
policy = model.load_reference_model()
parts = train.Parts(callbacks=[Checkpoint(file, every=5)])
train.train_kto(policy, model.reference_of(policy), rows, tokenizer.load_tokenizer(), **settings, parts=parts)
"""
folder = tempfile.TemporaryDirectory()
job, file = Path(folder.name) / "job.json", Path(folder.name) / "run.pt"
settings = {"steps": 30, "batch_size": 8, "learning_rate": 1e-3, "seed": 3, **weights}
job.write_text(json.dumps([rows, settings, str(file)]), encoding="utf-8")

child = subprocess.Popen([sys.executable, "-c", CHILD, str(job)])
while child.poll() is None and not file.exists():
    time.sleep(0.02)
child.kill()
print("killed before it was done:", child.wait() != 0)
on_disk = torch.load(file, weights_only=True)
print("in the file:", ", ".join(on_disk))
print("stopped part of the way:", 0 < on_disk["step"] < 30)

# %% [markdown]
# Now start the same run again, in this process, with a fresh model and the same file. It continues where the file ends.
# Beside it, a run that was never disturbed.

# %%
def run(settings, *callbacks):
    parts = Parts(callbacks=callbacks)
    return train_kto(load_reference_model(), reference_of(start), rows, tokenizer, **settings, parts=parts)


(resumed, resumed_history), (whole, whole_history) = run(settings, Checkpoint(file, every=5)), run(settings)
pairs = zip(resumed.parameters(), whole.parameters(), strict=True)
print("all parameters equal to the last bit:", all(torch.equal(a, b) for a, b in pairs))
print("all 30 rows of history equal:", json.dumps(resumed_history) == json.dumps(whole_history))

# %% [markdown]
# And if you change a setting but forget to change the file's name? The file knows which run it belongs to.

# %%
try:
    run(settings | {"seed": 4}, Checkpoint(file))
except ValueError as error:
    print("refused:", str(error).removeprefix(str(file)))
folder.cleanup()

# %% [markdown]
# On several processes, process 0 alone writes checkpoints; all read them. `tests/test_scaling.py` kills either process
# in the middle of a step, starts the command again, and finds the same curve to the last bit.

# %% [markdown]
# ## Recap
#
# 1. Average the mismatched log-ratios over all processes, then clamp; divide sums by global counts.
# 2. Pad and rotate the global batch, then split it; a rotation inside shares is another set of partners.
# 3. Exchange log-probabilities, and add gradients.
# 4. A checkpoint holds model, optimiser, the waiting rows with their generator, and the history; then a killed run goes
#    on to the same last bit.
# 5. Where one and two processes must agree to rounding, every difference is a bug.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions accumulation_z0 sequential_sampler resume_exactly}}

# %% [markdown]
# ## Sources
#
# - accelerate 1.15.0, TRL 1.16.0: behaviour as run by `tests/test_scaling.py`, which also starts two real processes and
#   compares them with one.
# - KTO, arXiv 2402.01306; batch and reference point as in lesson [06](../06_kto_loss.ipynb).
# - Results: `python course.py scaling` computes them.
#
# Back to [12 · Scaling up](../12_scaling_up.ipynb).
