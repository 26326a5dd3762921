# %% [markdown]
# # 11 · Your own thumbs
#
# Take a messy export of ratings, find out what is wrong with it, and turn it into rows that KTO can learn from.

# %% [markdown]
# **You will be able to**
# - check a file of your own thumbs with one command, and load it;
# - account for every row that you do not use;
# - turn pairs, stars and conflicting votes into thumbs, and say what each way assumes about people;
# - set weights and batch size for feedback that is 95 to 5;
# - keep some thumbs apart, so that you can tell whether training helped.
#
# **You need first** the training run of lesson [07](07_train.ipynb) and the two weights of lesson
# [06](06_kto_loss.ipynb).
#
# **Time** {{times}}. Deeper: [11b](deeper/11b_position_and_length.ipynb), what else moves the stars.

# %% [markdown] slide=["Fifty people", "Somebody makes", "How many"]
# **Before you run anything.** Fifty people gave one to five stars to replies of an app. Somebody makes thumbs of them:
# four stars and five are up, the rest is down. How many of these thumbs say what the reply deserved? The cell below
# the imports takes your guess, section 5 counts.

# %%
import json
import statistics
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import torch

from kto_course import check, predict, reveal
from kto_course.pictures import lesson_11 as pictures
from kto_lab import inspect, split
from kto_lab.loading import load_feedback
from kto_lab.messy import write_export
from kto_lab.report import FeedbackError
from kto_utils.data import format_prompt, unpair
from kto_utils.evaluate import rates
from kto_utils.losses import balanced_weights
from kto_utils.model import load_reference_model, reference_of
from kto_utils.plotting import use_course_style
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import train_kto
from kto_utils.world import find_reply, trained_questions

use_course_style()
torch.set_default_dtype(torch.float64)

# %%
choices = ["about half", "about three quarters", "about nine tenths", "nearly all"]
predict("share_of_right_thumbs", "What share of the thumbs is right?", choices, guess=None, confidence=None)

# %% [markdown]
# ## 1. One command looks at your file
#
# You need three fields: `prompt`, `completion`, `label`. (Chats as lists of messages and pairs are read too, in the
# layouts of TRL and LLaMA-Factory.) Here is a small CSV with 1 for a thumb up and 0 for a thumb down, in a folder that
# goes away with this notebook's kernel. In a terminal you would write `python course.py inspect thumbs.csv`;
# `inspect.main` is the same command.

# %%
folder = tempfile.TemporaryDirectory()
mine = Path(folder.name) / "thumbs.csv"
mine.write_text("""prompt,completion,label
What colour is the sky?,It is blue. Happy to help!,1
What colour is the sky?,Obviously blue. Stop wasting my time.,0
Is the shop open?,It is closed. Happy to help!,0
""")
status = inspect.main([str(mine)])

# %% [markdown]
# It changes nothing. It looks at every row, finds no label that it understands, and names the option that it needs.
# With it, you learn the counts and the two weights. In Python `load_feedback` does the same and gives you the rows for
# `train_kto`.

# %%
status = inspect.main([str(mine), "--labels", "1=true,0=false"])
for row in load_feedback(mine, labels={1: True, 0: False}):
    print(row)

# %% [markdown]
# ## 2. What goes wrong: guessed labels
#
# Why does it not simply take 1 for up? Because a guess can be wrong for every row at once. A CSV holds text, and in
# Python every text that is not empty is true. Somebody reads the same file with `bool`:

# %%
lines = mine.read_text().splitlines()[1:]
labels = [bool(line.rsplit(",", 1)[1]) for line in lines]
print([line[-1] for line in lines], "->", labels)

# %% [markdown] slide=["The symptom", "Your data may", "The chosen one"]
# The symptom: **all thumbs are up.** Training then raises every reply, the worst ones too. So `load_feedback` takes
# booleans (in a CSV, the words true and false) or a mapping that you wrote down, and nothing else.
#
# ## 3. A pair is two thumbs
#
# Your data may be pairs: of two replies to one prompt somebody chose one. The chosen one becomes a thumb up, the
# other a thumb down.

# %%
pairs = [{"prompt": f"Question {n}?", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(3)]
for row in unpair(pairs, seed=0):
    print(row)

# %% [markdown]
# `unpair` also shuffles. Left in their order, the two replies of a pair would stand side by side, and the mismatched
# completion of the collator (lesson [04](04_collator.ipynb)) would often belong to the same prompt. Written as
# all chosen and then all rejected, nearly every batch would hold one kind of thumb only.
#
# Something is lost: which two stood side by side. And a label is absolute now, though somebody only compared: if both
# replies were bad, the chosen one goes up all the same.
#
# ## 4. Every row is kept or reported
#
# Real files are worse. An imaginary product answers questions of our small world, people give the replies stars, and
# one day somebody sends you the log. Its first lines look fine; here are five others.

# %%
export = Path(folder.name) / "export.csv"
write_export(export, seed=0)
content = export.read_bytes().splitlines()
for number in (0, 126, 228, 264, 375, 446):
    print(f"{number:4d}  {content[number]}")

# %% [markdown] slide=["The rule for feedback", "Strict is"]
# A comma inside an answer. A name that is not UTF-8. A quote that never closes. A scale that is not yours. An empty
# line. The rule for feedback: **nothing is dropped, mended or guessed in silence.** Strict is the default: a file with
# one bad row is refused, with a list of all of them. For now, four and five stars are up.

# %%
columns = {"prompt": "question", "completion": "answer", "label": "stars"}
four_and_up = {"1": False, "2": False, "3": False, "4": True, "5": True}
try:
    load_feedback(export, columns=columns, labels=four_and_up)
except FeedbackError as error:
    print(error)

# %% [markdown]
# Two kinds need a thought. **duplicate**: all columns agree, the time and the user too. A phone sent the rating twice;
# keep one. **opposite_labels**: two people disagree about a reply. That is no fault of the file but a vote, so we
# accept this kind. `strict=False` lets all other bad rows go to a side file.

# %%
feedback = load_feedback(export, columns=columns, labels=four_and_up, accept=["opposite_labels"], strict=False)
report, ratings = feedback.report, list(feedback)
print(f"{report.rows} rows read = {report.kept} kept + {sum(report.counts.values())} in {report.side_file.name}")
entry = json.loads(report.side_file.read_text().splitlines()[0])
print({name: entry[name] for name in ("row", "line", "kind", "reason")})

# %% [markdown]
# That sum is the whole promise. Every row which is not in your training set lies in the side file, with its number, its
# bytes and the reason. Mend what you can there, and load that, too.
#
# ## 5. Stars measure moods
#
# Our world knows what a reply deserves: a thumb up if it is polite and right. Nobody has such a judge in practice. No
# rule below reads it; it only tells us how good the rules are.

# %%
question_of = {question.text: question for question in trained_questions()}


def deserves(row):
    return find_reply(question_of[row["prompt"]], row["completion"]).thumbs_up


def judged(name, rows):
    right = sum(row["label"] == deserves(row) for row in rows) / len(rows)
    up = [deserves(row) for row in rows if row["label"]]
    print(f"{name:28s} {len(rows)} rows, {len(up)} up; right {right:.4f}; of the ups deserved {sum(up) / len(up):.4f}")


judged("four stars and more", ratings)
print(f"right, if all were down: {1 - sum(map(deserves, ratings)) / len(ratings):.4f}")
reveal("share_of_right_thumbs", "b")

# %% [markdown]
# Three quarters. And saying "down" to everything would be right almost as often! Where thumbs up are few, ask what a
# thumb up is worth: here about half of them are undeserved. Who gives them?

# %% slide=["figure"]
pictures.users(ratings, [deserves(row) for row in ratings])

# %% [markdown] slide=["A fixed threshold"]
# Everybody saw about the same replies, but some people never give four stars and some hardly ever give less. A fixed
# threshold assumes that four stars mean the same from everybody. Here it measures the mood of the user.
#
# The KTO paper would split at a value over all inputs, or over those of one prompt. Neither knows who clicked. A remedy
# of this course: compare each rating with **the user's own median** (the middle one of their sorted ratings). Above it
# is up, below it is down, at it is neither.

# %% [markdown]
# ### Exercise 11.1 · Better than usual for this person
# ★★☆ · 8 minutes · fill in a function
#
# Write this rule for a list of rows: one thumb for each row, in the order of the rows. With an even number of ratings,
# the median lies half-way between the two in the middle, as with `statistics.median`. Mind that `stars` is text.

# %% exercise="own_median"
def my_thumbs(rows):
    """A list of dicts with user and stars ("1" to "5") -> a list of True (up), False (down) or None (neither).

    A rating is compared with the median of all ratings of the same user in `rows`.
    """
    ### BEGIN SOLUTION
    stars_of = defaultdict(list)
    for row in rows:
        stars_of[row["user"]].append(int(row["stars"]))
    differences = [int(row["stars"]) - statistics.median(stars_of[row["user"]]) for row in rows]
    return [None if d == 0 else d > 0 for d in differences]
    ### END SOLUTION


# %% check="own_median" points=3
check.own_median(my_thumbs)

# %% [markdown]
# ## 6. A personal threshold is better, if people saw similar replies

# %%
thumbs = check.yours_or_ours("own_median")(ratings)
judged("four stars and more", ratings)
labelled = [row | {"label": thumb} for row, thumb in zip(ratings, thumbs, strict=True)]
judged("median, at it is neither", [row for row in labelled if row["label"] is not None])
personal = [row | {"label": row["label"] is True} for row in labelled]
judged("median, at it is down", personal)

# %% [markdown]
# Fewer thumbs up are undeserved. What the rule assumes: every user saw a similar mix of replies (whoever got only good
# ones will punish half of them), and about half of the replies are better than usual. Here only a quarter deserve
# a thumb up; that is why counting the median itself as down loses no row and is no worse.
#
# ## 7. Opposite votes do not cancel
#
# Several people rated the same reply to the same question, and often they disagree. What does KTO make of
# a reply with one thumb up and one down? With equal weights the two losses add up to a constant, so their pulls cancel.
# With weights from the counts they do **not**: the rarer kind wins every tie, and even some majorities.
#
# So settle votes before training: each reply gets the thumb of its majority, a tie gets none. Every vote stays a row,
# so a reply that many people saw counts for more.

# %%
lead = Counter()
for row in personal:
    lead[row["prompt"], row["completion"]] += 1 if row["label"] else -1
leads = [lead[row["prompt"], row["completion"]] for row in personal]
clean = [row | {"label": n > 0} for row, n in zip(personal, leads, strict=True) if n != 0]
judged("one vote, one thumb", personal)
judged("majority", clean)

# %% [markdown]
# A majority assumes that people want the same thing. If half of your users like short replies and half like long ones,
# the votes are no noise, and one model cannot please both. (Who disagrees? [11b](deeper/11b_position_and_length.ipynb)
# asks you to find out.)
#
# ## 8. Does cleaning pay?
#
# Two things are still missing. The model knows questions inside its template, and a completion starts with a blank
# (lesson [03](03_tokenization.ipynb)). User and time stay in: without them two people's equal votes would look like
# duplicates. Then the file is loaded once more, strictly; with a tokenizer it also looks for replies of which nothing
# would be left after 64 tokens.
#
# Two short runs from the shipped model: the same export, the same 40 steps, weights from the counts of the rows that
# are trained on. Once with four stars and more, vote by vote; once with the clean rows.

# %%
tokenizer = load_tokenizer()


def ready(rows):
    file = Path(folder.name) / "ready.jsonl"
    lines = [row | {"prompt": format_prompt(row["prompt"]), "completion": " " + row["completion"]} for row in rows]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    accept = ["opposite_labels"]  # the raw rows still hold both kinds of vote
    return list(load_feedback(file, tokenizer=tokenizer, max_length=64, accept=accept))


clean_rows = ready(clean)
print(len(clean_rows), {name: clean_rows[0][name] for name in ("prompt", "completion", "label")})


# %%
def trained_on(rows):
    n_up = sum(row["label"] for row in rows)
    up, down = balanced_weights(n_up, len(rows) - n_up, ratio=4 / 3)
    policy = load_reference_model()
    policy, _ = train_kto(
        policy, reference_of(policy), rows, tokenizer, steps=40, batch_size=16, learning_rate=5e-4,
        desirable_weight=up, undesirable_weight=down,
    )  # fmt: skip
    return rates(policy)["thumbs_up"]


print(f"before training {rates(load_reference_model())['thumbs_up']:.4f} of the replies deserve a thumb up")
print(f"raw thumbs      {trained_on(ready(ratings)):.4f}")
print(f"clean thumbs    {trained_on(clean_rows):.4f}")

# %% [markdown]
# Even thumbs of which half the ups are undeserved made this model much better: a reply at large deserves its thumb up
# in a quarter of the cases, a raw thumb up is right in half. That is a signal. The clean rows did better still, in one
# run each: one observation, no proof. Change `seed` in `write_export` before you believe even the direction.
#
# ## 9. Weights put no rare thumb into a batch
#
# Happy people do not click, and real logs can be worse than ours. Say one thumb in twenty is up. Weights make the two
# sides equal **in total**. But a batch of $B$ rows, drawn independently, holds no thumb up with probability $0.95^B$.

# %% slide=["text"]
print(f"weights for 5 up and 95 down: {balanced_weights(5, 95)}")
for size in (4, 8, 16, 64):
    print(f"batch {size:2d}: {0.95**size:.4f} of the batches hold no thumb up")

# %% [markdown]
# At a batch of 16 nearly half of the steps see no thumb up at all. The loss is still right **on average**, but such a
# step only pushes down, and the next one holds a row of weight 19. Remedies, in this order: a larger batch; summing
# gradients over several small ones (each still makes its own $z_0$ from few rows); drawing from both kinds on purpose
# (then the weights must fit the new shares).

# %% [markdown]
# ### Exercise 11.2 · How large a batch?
# ★★☆ · 4 minutes · predict a number
#
# One thumb in 20 is up, and rows are drawn independently. What is the smallest batch size at which no more than one
# batch in ten is without any thumb up?

# %% exercise="batch_for_rare"
answer = ...  # a whole number
### BEGIN SOLUTION
answer = next(size for size in range(1, 1000) if 0.95**size <= 0.1)
### END SOLUTION

# %% check="batch_for_rare" points=1
check.batch_for_rare(answer)

# %% [markdown]
# ## 10. Last step before training: thumbs that the model never sees
#
# Our world can judge every reply. Your model needs thumbs on which it was not trained. Drawn row by row, they would ask
# for what it has learned by heart: the same question, often the same reply, lies among the training rows too. So cut by
# question (`python course.py split FILE`), or by any field of yours, e.g. the user.

# %%
ready(clean)
status = split.main([str(Path(folder.name) / "ready.jsonl"), "--by", "user"])

# %% [markdown]
# Nobody gave thumbs on both sides: this cut asks whether **new people** will be pleased. The same replies to the same
# questions went to both sides, since all people saw them; those are left out of training, and it says how many. Cut by
# question, and you ask whether the model has learned something for **new questions**. Count the weights on what is
# left for training: these are the ones above.

# %% [markdown]
# ## Recap
#
# - `python course.py inspect FILE`, then `split FILE`. A label is a boolean or stands in a mapping that you wrote.
# - Rows read = rows kept + rows rejected, each with number, kind and reason.
# - A fixed threshold measures moods; the user's median measures replies, if users saw similar ones.
# - Settle votes before training, and count the weights after it.
# - Weights balance the totals; the batch size decides whether a step sees both kinds.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions star_ratings ninety_five_down several_votes}}

# %% [markdown]
# ## Sources
#
# - KTO, arXiv 2402.01306: weights from counts, v1 section 4.1 and Eq. 8, v4 Eq. 9.
# - TRL 1.16.0 unpairs in blocks of 1,000 rows, all chosen first, and reads them in order: in our run on 2,500 pairs
#   with batches of 8, 1 of 625 batches held both kinds. Unpair and shuffle before.
# - RFC 4180 (CSV: quotes and line breaks inside a cell). All else: computed above, from `kto_lab/messy.py`.
#
# Next: lesson [12](12_scaling_up.ipynb), when one machine is not enough. Deeper:
# [11b](deeper/11b_position_and_length.ipynb).
