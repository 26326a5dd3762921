# %% [markdown]
# # 11 · Your own thumbs
#
# Take a messy export of ratings, find out what is wrong with it, and turn it into rows that KTO can learn from.

# %% [markdown]
# **You will be able to**
# - check a file of feedback row by row, and account for every row that you do not use,
# - turn stars into thumbs in three ways, and say what each way assumes about people,
# - settle conflicting votes, and see position and length bias before the model does,
# - set weights and batch size for feedback that is 95 to 5.
#
# **You need first** the thumbs of lesson [07](07_train.ipynb) and the two weights of lesson
# [06](06_kto_loss.ipynb), section 9.
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything.** Fifty people gave one to five stars to replies of an app. Somebody makes thumbs of them:
# four stars and five are up, the rest is down. How many of these thumbs are right, and does it help to train on them?
# The cells below the imports take your guesses.

# %%
import json
import statistics
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from kto_course import check, predict, reveal
from kto_lab import inspect
from kto_lab.feedback import KINDS, FeedbackError
from kto_lab.loading import load_feedback
from kto_lab.messy import write_export
from kto_utils.data import format_prompt
from kto_utils.evaluate import rates
from kto_utils.losses import balanced_weights
from kto_utils.model import load_reference_model, reference_of
from kto_utils.plotting import DOWN, NEUTRAL, UP, label_line, save_figure, use_course_style
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import Batches, train_kto
from kto_utils.world import find_reply, trained_questions

use_course_style()
torch.set_default_dtype(torch.float64)

# %%
predict(
    "share_of_right_thumbs", "In what share of ratings will the thumb say what the reply deserved?",
    ["about half", "about three quarters", "about nine tenths", "nearly all"], guess=None, confidence=None,
)  # fmt: skip

# %%
predict(
    "trained_on_raw_thumbs", "A model is trained on these thumbs for 40 steps. What does its share of good replies do?",
    ["it falls", "it stays as it is", "it rises"], guess=None, confidence=None,
)  # fmt: skip

# %% [markdown]
# ## 1. The export
#
# An imaginary product answers questions of our small world. It shows up to three replies on a screen, people give them
# stars, and one day somebody sends you the log. We make such a file from a seed, in a folder that goes away at the end.

# %%
folder = tempfile.TemporaryDirectory()
export = Path(folder.name) / "export.csv"
write_export(export, seed=0)

content = export.read_bytes()
print(f"{len(content):,} bytes, {len(content.splitlines()):,} lines")
for line in content.splitlines()[:6]:
    print(line.decode())

# %% [markdown]
# It looks fine, as every export does in its first six lines. Here are six others.

# %%
for number in (126, 228, 264, 375, 446, 1486):
    print(f"{number:5d}  {content.splitlines()[number]}")

# %% [markdown]
# A comma inside an answer. A name from an old app that did not write UTF-8. A quote that never closes. A scale that is
# not yours. An empty line. And the last line looks whole, but the file stops in it, before the comment and the line
# end (`splitlines` hides that): somebody copied the file while it was being written.
#
# What do usual tools make of such lines? Some stop at the first. Some drop them, some put a sign in the place of the
# bytes. A quote that never closes can swallow the lines behind it. The rule for feedback is: **nothing is dropped,
# mended or guessed in silence.**

# %% [markdown]
# ## 2. Every row is kept or reported
#
# `load_feedback` reads the file record by record from its bytes. It wants three columns, so we say which they are. And
# it wants booleans, so we say what the stars mean. For now: four and five are up.

# %%
columns = {"prompt": "question", "completion": "answer", "label": "stars"}
four_and_up = {"1": False, "2": False, "3": False, "4": True, "5": True}

try:
    load_feedback(export, columns=columns, labels=four_and_up)
except FeedbackError as error:
    print(error)

# %% [markdown]
# Strict is the default: a file with one bad row is refused, with a list of all of them. Two lines need a thought before
# the rest is a matter of mending.
#
# **duplicate**: all columns agree, the time and the user too. Somebody's phone sent the rating twice. Keep one.
#
# **opposite_labels**: two people saw the same reply, one gave five stars, one gave two. That is no fault of the file.
# They are votes, and we settle them in section 5. So we accept this kind, and let the others go to a side file.

# %%
feedback = load_feedback(export, columns=columns, labels=four_and_up, accept=["opposite_labels"], strict=False)
report = feedback.report
print(report)

# %%
n_rejected = sum(report.counts.values())
assert report.rows == report.kept + n_rejected
print(f"{report.rows} rows read = {report.kept} kept + {n_rejected} in {report.side_file.name}")

# %% [markdown]
# That sum is the whole promise. Every row which is not in your training set lies in the side file, with its number, its
# bytes and the reason:

# %%
entries = [json.loads(line) for line in report.side_file.read_text().splitlines()]
for kind in ("not_utf8", "label_not_boolean", "duplicate"):
    entry = next(entry for entry in entries if entry["kind"] == kind)
    print(f"row {entry['row']}, line {entry['line']}: {entry['kind']}\n    {entry['reason']}")

# %% [markdown]
# Some of them you can mend: ask what the 4.5 and the 0 mean, decode the old app's names. Then you write the mended rows
# into a file and load that, too. What a kind means stands in `KINDS`:

# %%
for kind in report.rejected:
    print(f"{kind:22s} {KINDS[kind]}")

# %% [markdown]
# How much memory does it take? A row costs about 35 bytes while the file is checked: digests of its texts, not the
# texts. The good rows are read again when you ask for them, so a file may be larger than the memory.

# %%
ratings = list(feedback)
print({name: ratings[0][name] for name in ("user", "prompt", "completion", "position", "stars", "label")})

# %% [markdown]
# ## 3. Stars to thumbs
#
# Our world knows what a reply deserves: a thumb up if it is polite and right. Nobody has this in practice. We use it
# here as a judge: no rule below reads it row by row. But we do choose between rules by it, which you cannot.

# %%
question_of = {question.text: question for question in trained_questions()}


def deserves(row):
    return find_reply(question_of[row["prompt"]], row["completion"]).thumbs_up


def thumbs_right(rows):
    return sum(row["label"] == deserves(row) for row in rows) / len(rows)


print(f"{len(ratings)} ratings, {sum(map(deserves, ratings)) / len(ratings):.4f} of the replies deserve a thumb up")
print(f"four stars and more: {sum(row['label'] for row in ratings) / len(ratings):.4f} get one")
print(f"right thumbs: {thumbs_right(ratings):.4f}")
print(f"right thumbs, if all were down: {1 - sum(map(deserves, ratings)) / len(ratings):.4f}")
assert 0.7 < thumbs_right(ratings) < 0.8
reveal("share_of_right_thumbs", "b")

# %% [markdown]
# That answers the first question at the top: 76 in 100 thumbs are right. And saying "down" to everything would be right
# almost as often! With few thumbs up, being right is a poor measure. Ask instead what a thumb up is worth:


# %%
def verdict(name, rows):
    up = [row for row in rows if row["label"]]
    deserved = sum(map(deserves, up))
    found = deserved / sum(map(deserves, ratings))
    print(f"{name:32s} {len(rows):5d} {len(up):5d}   {thumbs_right(rows):.4f}   {deserved / len(up):.4f}   {found:.4f}")


def header():
    print(f"{'':32s}  rows    up    right    up is deserved   deserved found")


header()
verdict("four stars and more", ratings)

# %% [markdown]
# About half of the thumbs up are undeserved. Who gives them?

# %%
by_user = defaultdict(list)
for row in ratings:
    by_user[row["user"]].append(row)

share_up = {user: sum(row["label"] for row in rows) / len(rows) for user, rows in by_user.items()}
share_deserved = {user: sum(map(deserves, rows)) / len(rows) for user, rows in by_user.items()}
users = sorted(share_up, key=share_up.get)
print("stars     1   2   3   4   5")
for user in (users[0], users[25], users[-1]):
    stars = Counter(row["stars"] for row in by_user[user])
    print(user, "".join(f"{stars[str(n)]:4d}" for n in range(1, 6)))

# %%
fig, ax = plt.subplots()
ax.plot(range(len(users)), [share_up[u] for u in users], "o-", color=DOWN, markersize=4)
ax.plot(range(len(users)), [share_deserved[u] for u in users], "s", color=NEUTRAL, markersize=4)
label_line(ax, 9, 0.55, "ratings with four stars and more", color=DOWN)
label_line(ax, 30, 0.06, "replies that deserve a thumb up", color=NEUTRAL)
ax.set(xlabel="50 users, in the order of their share", ylabel="share of the user's ratings", ylim=(0, 1))
ax.set_title("One person's three is another person's five")
save_figure(
    fig, "11_users",
    alt="For each of 50 users, the share of ratings with four stars and more, and the share of replies shown to them "
    "that deserved a thumb up. The first climbs from 0 to about 0.7, the second scatters around a quarter.",
)
plt.show()

# %% [markdown]
# Everybody saw about the same replies, but some people never give four stars and some hardly ever give less. A fixed
# threshold assumes that four stars mean the same from everybody. Here it measures the mood of the user.
#
# The usual remedy: compare each rating with **the user's own median**. Above it is up, below it is down, at it is no
# thumb at all.

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
# On the whole export:

# %%
median_of = {user: statistics.median(int(row["stars"]) for row in rows) for user, rows in by_user.items()}


def by_median(row):
    """True, False, or None for a rating that says neither."""
    difference = int(row["stars"]) - median_of[row["user"]]
    return None if difference == 0 else difference > 0


def relabelled(rule):
    return [row | {"label": rule(row)} for row in ratings if rule(row) is not None]


header()
verdict("four stars and more", ratings)
verdict("above the user's median", relabelled(by_median))
verdict("the same, at the median is down", relabelled(lambda row: by_median(row) is True))

# %% [markdown]
# Better: more of the deserved thumbs are found, and fewer are undeserved. What it assumes:
#
# - every user saw a similar mix of replies (whoever got only good ones will punish half of them),
# - about half of the replies are better than usual for this user. Here only a quarter deserve a thumb up, which is why
#   counting the median itself as down loses no row and is no worse,
# - a user has given enough ratings to have a median. Count them:

# %%
counts = [len(rows) for rows in by_user.values()]
print(f"ratings of a user: {min(counts)} to {max(counts)}")

# %% [markdown]
# ## 4. What else moves the stars
#
# Two suspects in every product: **where** a reply stood on the screen, and how **long** it is. Compare the share of
# thumbs up with the share that is deserved.

# %%
def shares(rows, group):
    """group -> (share of thumbs up, share deserved, rows)."""
    groups = defaultdict(list)
    for row in rows:
        groups[group(row)].append(row)
    return {
        key: (sum(row["label"] for row in part) / len(part), sum(map(deserves, part)) / len(part), len(part))
        for key, part in sorted(groups.items())
    }


thumbs = relabelled(lambda row: by_median(row) is True)
by_position = shares(thumbs, lambda row: int(row["position"]))
by_length = shares(thumbs, lambda row: len(row["completion"]) // 5 * 5)
for name, found in (("position", by_position), ("characters from", by_length)):
    for key, (up, deserved, n) in found.items():
        print(f"{name:15s} {key:3d}:  {n:4d} ratings, thumbs up {up:.4f}, deserved {deserved:.4f}")

# %%
fig, axes = plt.subplots(1, 2, figsize=(9.0, 3.8), sharey=True)
for ax, found in zip(axes, (by_position, {k: v for k, v in by_length.items() if v[2] >= 30}), strict=True):
    keys = list(found)
    ax.plot(keys, [found[k][0] for k in keys], "o-", color=DOWN)
    ax.plot(keys, [found[k][1] for k in keys], "s--", color=NEUTRAL)
    ax.set_xticks(keys)
axes[0].text(1.12, 0.52, "thumbs up", color=DOWN)
axes[0].text(1.1, 0.18, "deserved", color=NEUTRAL)
axes[0].set(xlabel="position on the screen", ylabel="share of ratings", ylim=(0, 0.7))
axes[0].set_title("Position: the top gets more")
axes[1].set(xlabel="length of the reply (characters, rounded down to 5)")
axes[1].set_title("Length: thumbs and what is deserved")
save_figure(
    fig, "11_position_and_length",
    alt="Two panels with the share of thumbs up and the deserved share. Over the positions 1 to 3 thumbs up fall "
    "steeply while the deserved share stays level. Short replies get what they deserve, long ones twice that and more.",
)
plt.show()

# %% [markdown]
# **Position** you can prove without knowing the truth. The app puts replies in a random order, so position cannot
# make a reply better: a slope beyond chance is bias. (Chance alone moves the grey line a little. And if the app sorts
# by quality, you cannot tell the two apart. Then ask for a small share of shuffled screens.)
#
# **Length** you cannot prove like that. Short replies get what they deserve here, long ones more than twice as much.
# But careful: even the grey line is no proof. Where few replies deserve a thumb up, any noisy rule gives too many. Set
# `BONUS_PER_CHARACTER` in `kto_lab/messy.py` to 0, and long replies still get about twice their share; it is the
# short ones that then get more. In your data the grey line is missing as well. What you can do is read some long
# replies with thumbs up, and compare after training how long the model's replies have become.
#
# The slope of position can be levelled out: subtract from each rating what its position adds on average, and compare
# with the user's median after that. Ratings are no whole numbers then, so we ask for half a star above it.

# %%
overall = statistics.mean(int(row["stars"]) for row in ratings)
bonus = {
    place: statistics.mean(int(row["stars"]) for row in ratings if row["position"] == place) - overall
    for place in ("1", "2", "3")
}
print({place: f"{value:+.4f}" for place, value in bonus.items()})


def level(row):
    return int(row["stars"]) - bonus[row["position"]]


level_median = {user: statistics.median(level(row) for row in rows) for user, rows in by_user.items()}
levelled = relabelled(lambda row: level(row) > level_median[row["user"]] + 0.5)

# %%
for place, (up, deserved, _) in shares(levelled, lambda row: int(row["position"])).items():
    print(f"position {place}: thumbs up {up:.4f}, deserved {deserved:.4f}")
header()
verdict("at the median is down", thumbs)
verdict("positions levelled", levelled)

# %% [markdown]
# The steep slope is gone, but the places are not equal: 1 and 3 still get more than they deserve. Stars are whole
# numbers, so shifting them by a fraction moves whole groups over the threshold or none. The share of right thumbs has
# hardly changed: the places were drawn by chance, so good and bad replies met this bias alike. In a product where one
# model's replies always come first, it could be the whole result.

# %% [markdown]
# ## 5. Conflicting votes
#
# Several people rated the same reply to the same question. How often do they disagree?

# %% [markdown]
# ### Exercise 11.2 · Who disagrees?
# ★★☆ · 7 minutes · fill in a function
#
# Find the replies on which people disagree: the same completion to the same prompt, with a thumb up from somebody and
# a thumb down from somebody else. Each such reply once, in any order.

# %% exercise="split_votes"
def my_split_replies(rows):
    """A list of dicts with prompt, completion and label (True = up) -> a list of (prompt, completion)."""
    ### BEGIN SOLUTION
    kinds = defaultdict(set)
    for row in rows:
        kinds[row["prompt"], row["completion"]].add(row["label"])
    return [reply for reply, found in kinds.items() if len(found) == 2]
    ### END SOLUTION


# %% check="split_votes" points=2
check.split_votes(my_split_replies)

# %% [markdown]
# And in our file?

# %%
def votes(rows):
    """(prompt, completion) -> its thumbs."""
    found = defaultdict(list)
    for row in rows:
        found[row["prompt"], row["completion"]].append(row["label"])
    return found


polls = votes(levelled)
several = [poll for poll in polls.values() if len(poll) > 1]
split = [poll for poll in several if len(set(poll)) == 2]
print(f"{len(polls)} different replies, {len(several)} with several votes, {len(split)} of these with both kinds")
print(f"exactly half and half: {sum(2 * sum(poll) == len(poll) for poll in polls.values())}")

# %% [markdown]
# What does KTO make of a reply with one thumb up and one down? Lesson 06 has the answer: with equal weights the two
# losses add up to a constant, so their pulls cancel. With weights from the counts they do **not** cancel: the rarer
# kind wins every tie.
#
# So settle votes before training: each reply gets the thumb of the majority, a tie gets none. Every vote stays a row,
# so a reply that many people saw counts for more.


# %%
def settled(rows):
    polls = votes(rows)
    kept = []
    for row in rows:
        poll = polls[row["prompt"], row["completion"]]
        if 2 * sum(poll) != len(poll):
            kept.append(row | {"label": 2 * sum(poll) > len(poll)})
    return kept


clean = settled(levelled)
header()
verdict("four stars and more", ratings)
verdict("positions levelled", levelled)
verdict("four stars and more, majority", settled(ratings))
verdict("positions levelled, majority", clean)

# %%
ways = {
    "four stars\nand more": ratings,
    "above the\nuser's median": thumbs,
    "positions\nlevelled": levelled,
    "levelled and\nmajority": clean,
}
fig, ax = plt.subplots()
for x, rows in enumerate(ways.values()):
    up = [row for row in rows if row["label"]]
    precision = sum(map(deserves, up)) / len(up)
    ax.bar(x - 0.19, thumbs_right(rows), 0.36, color=NEUTRAL)
    ax.bar(x + 0.19, precision, 0.36, color=UP, hatch="//", edgecolor="white")
    ax.text(x - 0.19, thumbs_right(rows) + 0.01, f"{thumbs_right(rows):.2f}", ha="center")
    ax.text(x + 0.19, precision + 0.01, f"{precision:.2f}", ha="center")
ax.set_xticks(range(len(ways)), list(ways))
ax.grid(axis="x", visible=False)
ax.set(ylim=(0, 1.12), ylabel="share")
ax.text(-0.4, 1.03, "grey: right thumbs", color=NEUTRAL)
ax.text(0.75, 1.03, "hatched: thumbs up that are deserved", color=UP)
ax.set_title("Each step makes thumbs more truthful, or at least not less")
save_figure(
    fig, "11_ways",
    alt="Bars for four ways to make thumbs: the share of right thumbs and the share of thumbs up that are deserved. "
    "Both are lowest for a fixed threshold, higher for the per-user median and highest after the majority vote.",
)
plt.show()

# %% [markdown]
# A majority assumes that people want the same thing. If half of your users like short replies and half like long ones,
# the majority is nobody. Then the votes are no noise, and one model cannot please both.

# %% [markdown]
# ## 6. A file that is ready for training
#
# Two things are still missing. The model knows questions inside its template (lesson [03](03_tokenization.ipynb)), and
# a completion starts with a blank. User and time stay in: without them two people's equal votes would look like
# duplicates.

# %%
ready = Path(folder.name) / "thumbs.jsonl"
with ready.open("w", encoding="utf-8") as file:
    for row in clean:
        prompt, completion = format_prompt(row["prompt"]), " " + row["completion"]
        names = {"prompt": prompt, "completion": completion, "label": row["label"]}
        file.write(json.dumps(names | {"user": row["user"], "time": row["time"]}) + "\n")

tokenizer = load_tokenizer()
clean_rows = list(load_feedback(ready, tokenizer=tokenizer, max_length=64))  # strict
print(len(clean_rows), clean_rows[0])

# %% [markdown]
# Strict, and no complaint. With `tokenizer` and `max_length` it has also looked for replies of which nothing would be
# left after cutting at 64 tokens. A text has no more tokens than bytes, so only long prompts had to be tokenized.
#
# The same check in a terminal is `python -m kto_lab.inspect thumbs.jsonl`. It changes nothing, and it recommends the
# weights.

# %%
status = inspect.main([str(ready)])

# %% [markdown]
# ## 7. When it is 95 to 5
#
# Our file has about one thumb up for two down. Real logs can be worse: happy people do not click. We lose thumbs up
# until they are one in twenty.

# %% [markdown]
# ### Exercise 11.3 · Both sides equal in total
# ★☆☆ · 5 minutes · repair a function
#
# Somebody's script sets the weights from the rows. It shall make the total weight of all thumbs up equal to that of all
# thumbs down, with 1 as the smaller of the two weights. It does neither. Repair it; there may be more thumbs down or
# more thumbs up.
#
# ```python
# def broken_weights(rows):
#     n_up = sum(row["label"] for row in rows)
#     n_down = len(rows) - n_up
#     return n_up / n_down, 1.0
# ```

# %% exercise="counted_weights"
def my_weights(rows):
    """A list of dicts with label (True = up), both kinds present -> (weight of a thumb up, weight of a thumb down)."""
    ### BEGIN SOLUTION
    n_up = sum(row["label"] for row in rows)
    n_down = len(rows) - n_up
    return max(1.0, n_down / n_up), max(1.0, n_up / n_down)
    ### END SOLUTION


# %% check="counted_weights" points=2
check.counted_weights(my_weights)

# %% [markdown]
# `balanced_weights` of lesson 06 does this from the counts, for other ratios too:

# %%
downs = [row for row in clean_rows if not row["label"]]
ups = [row for row in clean_rows if row["label"]]
rare = downs + ups[: round(len(downs) * 5 / 95)]
n_up = sum(row["label"] for row in rare)
print(f"{n_up} up, {len(rare) - n_up} down: {n_up / len(rare):.4f} up")
for ratio in (1.0, 4 / 3):
    up, down = balanced_weights(n_up, len(rare) - n_up, ratio)
    print(f"ratio {ratio:.4f}: desirable_weight {up:.4f}, undesirable_weight {down:.4f}")

# %% [markdown]
# Weights make the two sides equal **in total**. They do not put thumbs up into a batch. How many batches have only one
# kind? Before training, draw them and count: `Batches` with the same seed gives exactly the batches of the run.


# %%
def one_sided(rows, batch_size, n_batches, seed=0):
    """Share of batches in which all thumbs are alike."""
    batches = Batches(len(rows), batch_size, seed)
    drawn = [{rows[i]["label"] for i in batches.draw()} for _ in range(n_batches)]
    return sum(len(kinds) == 1 for kinds in drawn) / n_batches


for name, rows in (("clean", clean_rows), ("95 to 5", rare)):
    share = sum(row["label"] for row in rows) / len(rows)
    for size in (4, 8, 16, 64):
        formula = share**size + (1 - share) ** size
        print(f"{name:8s} batch {size:2d}: one-sided {one_sided(rows, size, 2000):.4f}   formula {formula:.4f}")

# %% [markdown]
# The formula is $p^B + (1-p)^B$, for rows drawn independently. At 5% and a batch of 16 nearly half of the steps see no
# thumb up at all. The loss is still right **on average**, but a step without thumbs up only pushes down, and the next
# one holds a row of weight 19. (We only count here; no run was made on these rows.)

# %% [markdown]
# ### Exercise 11.4 · How large a batch?
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

# %%
sizes = [2, 4, 8, 16, 32, 64, 128]
fig, ax = plt.subplots()
for rows, color, marker in ((rare, DOWN, "o"), (clean_rows, UP, "s")):
    share = sum(row["label"] for row in rows) / len(rows)
    ax.plot(sizes, [share**b + (1 - share) ** b for b in sizes], color=color)
    ax.plot(sizes, [one_sided(rows, b, 500) for b in sizes], marker, color=color)
label_line(ax, 17, 0.5, "one thumb up in 20", color=DOWN)
label_line(ax, 8.6, 0.08, "the clean file", color=UP)
ax.set_xscale("log", base=2)
ax.set_xticks(sizes, sizes)
ax.set(xlabel="batch size", ylabel="share of one-sided batches", ylim=(-0.02, 1))
ax.set_title("Weights do not put rare thumbs into a batch, its size does")
save_figure(
    fig, "11_one_sided",
    alt="Share of batches with one kind of thumb against batch size, drawn (markers) and by formula (lines). With "
    "one thumb up in 20 it is near a half at batch size 16 and small at 64; for the clean file it is near zero at 16.",
)
plt.show()

# %% [markdown]
# Remedies, in this order: a larger batch; summing gradients over several small ones (each still makes its own $z_0$
# from few rows); drawing from both kinds on purpose (then the weights must fit the new shares). For the run below the
# check is short:

# %%
STEPS, BATCH = 40, 16
print(f"one-sided batches in the run on the clean file: {one_sided(clean_rows, BATCH, STEPS):.4f}")

# %% [markdown]
# ## 8. Does cleaning pay?
#
# Two short runs from the shipped model. The same export, the same 40 steps, weights from the counts each time. Once
# with four stars and more, vote by vote; once with the clean file.


# %%
def trained_on(rows):
    n_up = sum(row["label"] for row in rows)
    up, down = balanced_weights(n_up, len(rows) - n_up, ratio=4 / 3)
    policy = load_reference_model()
    policy, _ = train_kto(
        policy, reference_of(policy), rows, tokenizer, steps=STEPS, batch_size=BATCH, learning_rate=5e-4,
        desirable_weight=up, undesirable_weight=down,
    )  # fmt: skip
    return rates(policy)


raw_rows = [
    {"prompt": format_prompt(row["prompt"]), "completion": " " + row["completion"], "label": row["label"]}
    for row in ratings
]
scores = {"before": rates(load_reference_model()), "raw thumbs": trained_on(raw_rows), "clean": trained_on(clean_rows)}

# %%
print(f"{'':12s} thumbs_up  polite   right  listed")
for name, found in scores.items():
    print(f"{name:12s} {found['thumbs_up']:9.4f} {found['polite']:7.4f} {found['right']:7.4f} {found['listed']:7.4f}")
assert scores["raw thumbs"]["thumbs_up"] > scores["before"]["thumbs_up"] + 0.1
reveal("trained_on_raw_thumbs", "c")

# %%
fig, ax = plt.subplots(figsize=(7.2, 3.2))
for y, (name, color) in enumerate((("before", NEUTRAL), ("raw thumbs", DOWN), ("clean", UP))):
    ax.barh(y, scores[name]["thumbs_up"], color=color, hatch="//" if name == "raw thumbs" else None, edgecolor="white")
    ax.text(scores[name]["thumbs_up"] + 0.01, y, f"{scores[name]['thumbs_up']:.2f}", va="center")
ax.set_yticks(range(3), ["before", "four stars and more,\nvote by vote", "the clean file"])
ax.invert_yaxis()
ax.grid(axis="y", visible=False)
ax.set(xlim=(0, 1), xlabel="exact share of replies that deserve a thumb up (trained questions)")
ax.set_title("In this run the cleaned ratings taught more")
save_figure(
    fig, "11_raw_and_clean",
    alt="Bars of the exact thumbs-up rate: lowest before training, clearly higher after 40 KTO steps on raw thumbs, "
    "and higher again after 40 steps on the cleaned thumbs from the same export.",
)
plt.show()

# %% [markdown]
# That answers the second question: even thumbs of which half the ups are undeserved made this model much better. A
# raw thumb up is deserved in about half of the cases, a reply at large in a quarter (section 3): that is a signal.
# The cleaned rows did better still. (`listed` falls in both runs: what is missing to 1 lies on texts outside the
# world's list. Lesson [07](07_train.ipynb) looks at that price.)
#
# One run each, 40 steps, with other rows, weights and batches: one observation, no proof. Change `seed` in
# `write_export`, and pass a `seed` to `train_kto`, before you believe even the direction.

# %% [markdown]
# ## 9. What goes wrong
#
# **Guessing labels.** A CSV holds text, and in Python every text that is not empty is true.

# %%
words = ["true", "false", "up", "down", "1", "0"]
print({word: bool(word) for word in words})

# %% [markdown]
# `bool("false")` is `True`: all rows become thumbs up, and training raises every reply, the worst ones too. That is why
# `load_feedback` takes booleans, or a mapping that you wrote down, and nothing else.

# %%
as_text = Path(folder.name) / "as_text.jsonl"
as_text.write_text("".join(json.dumps(row | {"label": str(row["label"])}) + "\n" for row in clean_rows[:4]))
try:
    load_feedback(as_text)
except FeedbackError as error:
    print(str(error).splitlines()[3])
print([row["label"] for row in load_feedback(as_text, labels={"True": True, "False": False})])

# %% [markdown]
# **Dropping what does not decode.** `errors="ignore"` makes any file readable. It also glues words together, and
# nobody will ever know which rows.

# %%
print("The café is open.".encode("latin-1").decode("utf-8", errors="ignore"))

# %% [markdown]
# **Weights from the wrong counts.** Take them from the rows that you train on, after cleaning. From the stars alone
# they would have been:

# %%
for name, rows in (("four stars and more", ratings), ("clean file", clean_rows)):
    n_up = sum(row["label"] for row in rows)
    up, down = balanced_weights(n_up, len(rows) - n_up)
    print(f"{name:20s} {n_up:4d} up, {len(rows) - n_up:4d} down: weights {up:.4f} and {down:.4f}")

# %% [markdown]
# **Testing on what you cleaned.** If the same person's votes, or the same reply, lie in the training and in the test
# set, the test is no test. Split by user or by question, before anything is averaged.
#
# The folder goes away, and all files with it:

# %%
folder.cleanup()
print(export.exists(), ready.exists())

# %% [markdown]
# What did the export contain? Open `kto_lab/messy.py`: the moods, the bonus of each position, the bonus of a
# character. The first two showed in the plots; the third you could not have told from them alone.

# %% [markdown]
# ## Recap
#
# 1. Every row is kept or reported: rows read = rows kept + rows rejected, each with number, kind and reason.
# 2. A label is a boolean or stands in a mapping that you wrote. Everything else is a guess.
# 3. A fixed threshold measures moods; the user's median measures replies, if users saw similar ones.
# 4. Settle votes before training, look at position and length, and know which bias you can prove.
# 5. Weights balance the totals; the batch size decides whether a step sees both kinds.

# %% [markdown]
# ## Questions an interviewer asks
#
# {{questions star_ratings ninety_five_down several_votes}}

# %% [markdown]
# ## Sources
#
# - Ethayarajh et al., "KTO: Model Alignment as Prospect Theoretic Optimization", arXiv 2402.01306 v1: section 4.1 and
#   Eq. 8 (the weights).
# - RFC 4180 (CSV: quotes and line breaks inside a cell), RFC 8259 (JSON).
# - Everything else: computed above, from `kto_lab/messy.py` and its seed.
#
# **Where next?** Lesson [10](10_bug_museum.ipynb), if you have not seen it: what a training run leaves in its log when
# the fault is in the code and not in the data.
