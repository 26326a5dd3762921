# %% [markdown]
# # 11b · Position and length
#
# See which part of a thumb belongs to the place of a reply on the screen, and what a shuffled screen can prove.

# %% [markdown]
# **You will be able to**
# - find position bias from ratings alone, and say when that works;
# - say why a slope over length proves nothing, and what you can do all the same;
# - find the replies on which people disagree, and show a weight that overturns their majority;
# - count before training how many batches of a run hold one kind of thumb only.
#
# **You need first** [11](../11_your_data.ipynb): the export, the user's median, the majority.
#
# **Time** {{times}}.

# %% [markdown]
# **Before you run anything.** The app shows up to three replies, in an order drawn by chance. A reply at the top is
# therefore no better than one at the bottom. How do their shares of thumbs up compare? Guess; section 1 counts.

# %%
import statistics
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from kto_course import check, predict, reveal
from kto_course.pictures import lesson_11b as pictures
from kto_lab.loading import load_feedback
from kto_lab.messy import write_export
from kto_utils.losses import balanced_weights
from kto_utils.plotting import use_course_style
from kto_utils.train import Batches
from kto_utils.world import find_reply, trained_questions

use_course_style()

# %%
choices = ["about as many", "one and a half times as many", "more than twice as many"]
predict("top_of_the_screen", "Thumbs up at the top, against the bottom?", choices, guess=None, confidence=None)

# %% [markdown]
# ## 1. Position is a bias that you can prove
#
# The export of lesson 11 again, with the personal threshold: above the user's median is up, all else is down. Beside
# the share of thumbs up stands the share that our world's judge finds deserved.

# %%
columns = {"prompt": "question", "completion": "answer", "label": "stars"}
four_and_up = {"1": False, "2": False, "3": False, "4": True, "5": True}
with tempfile.TemporaryDirectory() as folder:
    export = Path(folder) / "export.csv"
    write_export(export, seed=0)
    accepted = ["opposite_labels"]
    ratings = list(load_feedback(export, columns=columns, labels=four_and_up, accept=accepted, strict=False))

thumbs = check.yours_or_ours("own_median")(ratings)
personal = [row | {"label": thumb is True} for row, thumb in zip(ratings, thumbs, strict=True)]
print(len(personal), "ratings")

# %%
question_of = {question.text: question for question in trained_questions()}


def deserves(row):
    return find_reply(question_of[row["prompt"]], row["completion"]).thumbs_up


def shares(rows, group):
    """group -> (share of thumbs up, share deserved, rows)."""
    groups = defaultdict(list)
    for row in rows:
        groups[group(row)].append(row)
    return {
        key: (sum(row["label"] for row in part) / len(part), sum(map(deserves, part)) / len(part), len(part))
        for key, part in sorted(groups.items())
    }


by_position = shares(personal, lambda row: int(row["position"]))
for place, (up, deserved, n) in by_position.items():
    print(f"position {place}: {n} ratings, thumbs up {up:.4f}, deserved {deserved:.4f}")
assert by_position[1][0] > 2 * by_position[3][0]
reveal("top_of_the_screen", "c")

# %% [markdown]
# You need no judge for this one. The order is drawn by chance, so position cannot make a reply better: a slope beyond
# chance is bias. (Chance alone moves the deserved share a little.) If your app sorts by quality, you cannot tell the
# two apart. Then ask for a small share of shuffled screens.

# %% [markdown]
# ## 2. Length is one that you cannot
#
# A long reply may be liked for its length, or for what it says. Nobody can shuffle that.

# %%
by_length = shares(personal, lambda row: len(row["completion"]) // 5 * 5)
for length, (up, deserved, n) in by_length.items():
    print(f"from {length:2d} characters: {n:3d} ratings, thumbs up {up:.4f}, deserved {deserved:.4f}")

# %%
pictures.position_and_length(by_position, {key: found for key, found in by_length.items() if found[2] >= 30})

# %% [markdown]
# Short replies get what they deserve here, long ones more than twice as much. But even the grey line is no proof.
# Where few replies deserve a thumb up, any noisy rule gives too many. Set `BONUS_PER_CHARACTER` in `kto_lab/messy.py`
# to 0, and long replies still get about twice their share; it is the short ones that then get more. In your data the
# grey line is missing as well. What you can do: read some long replies with thumbs up, and compare after training how
# long the model's replies have become.

# %% [markdown]
# ## 3. A level slope is not a level field
#
# Subtract from each rating what its position adds on average, and compare with the user's median after that. Ratings
# are no whole numbers then, so ask for half a star above it.

# %%
overall = statistics.mean(int(row["stars"]) for row in ratings)
at_place = {p: [int(row["stars"]) for row in ratings if row["position"] == p] for p in ("1", "2", "3")}
bonus = {place: statistics.mean(stars) - overall for place, stars in at_place.items()}
level = [int(row["stars"]) - bonus[row["position"]] for row in ratings]
own = defaultdict(list)
for row, stars in zip(ratings, level, strict=True):
    own[row["user"]].append(stars)
ups = [stars > statistics.median(own[row["user"]]) + 0.5 for row, stars in zip(ratings, level, strict=True)]
levelled = [row | {"label": up} for row, up in zip(ratings, ups, strict=True)]

for place, (up, deserved, _) in shares(levelled, lambda row: int(row["position"])).items():
    print(f"position {place}: thumbs up {up:.4f}, deserved {deserved:.4f}")
for name, rows in (("personal", personal), ("levelled", levelled)):
    print(f"{name}: right thumbs {sum(row['label'] == deserves(row) for row in rows) / len(rows):.4f}")

# %% [markdown]
# The steep slope is gone, but the places are not equal: 1 and 3 still get more than they deserve. Stars are whole
# numbers, so shifting them by a fraction moves whole groups over the threshold or none. The share of right thumbs has
# hardly changed: the places were drawn by chance, so good and bad replies met this bias alike. In a product where one
# model's replies always come first, it could be the whole result.

# %% [markdown]
# ## 4. Who disagrees
#
# Lesson 11 gave each reply the thumb of its majority. Look at what was settled there.

# %% [markdown]
# ### Exercise 11.3 · Who disagrees?
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
# ## 5. What goes wrong: weights that overturn a majority
#
# Suppose every vote stays a row with its own thumb, and the weights come from the counts of the whole file.

# %%
split = check.yours_or_ours("split_votes")(personal)
n_up = sum(row["label"] for row in personal)
weight_up, weight_down = balanced_weights(n_up, len(personal) - n_up)
lead, pull = Counter(), Counter()
for row in personal:
    lead[row["prompt"], row["completion"]] += 1 if row["label"] else -1
    pull[row["prompt"], row["completion"]] += weight_up if row["label"] else -weight_down
overturned = [reply for reply in split if lead[reply] <= 0 < pull[reply]]
print(f"weights {weight_up:.4f} and {weight_down:.4f}; people disagree on {len(split)} replies")
print(f"pushed up although no majority is for it: {len(overturned)} of them")

# %% [markdown]
# The symptom: replies that most people disliked become likelier. The weights were meant to balance the file, and they
# decide single polls. Settle first, count afterwards.

# %% [markdown]
# ## 6. Batches with one kind of thumb can be counted before training
#
# `Batches` with the same seed gives exactly the batches of a run. The formula $p^B + (1-p)^B$ says how many have only
# one kind, for rows drawn independently. Take the thumbs as they are, and a file with one thumb up in twenty.

# %%
rows_down = [row for row in personal if not row["label"]]
rare = rows_down + [row for row in personal if row["label"]][: round(len(rows_down) * 5 / 95)]


def one_sided(rows, batch_size, n_batches=1000):
    """Share of batches in which all thumbs are alike."""
    batches = Batches(len(rows), batch_size, seed=0)
    drawn = [{rows[i]["label"] for i in batches.draw()} for _ in range(n_batches)]
    return sum(len(kinds) == 1 for kinds in drawn) / n_batches


sizes, counted, expected = [2, 4, 8, 16, 32, 64], {}, {}
for name, rows in (("one thumb up in 20", rare), ("one in three", personal)):
    share = sum(row["label"] for row in rows) / len(rows)
    counted[name] = [one_sided(rows, size) for size in sizes]
    expected[name] = [share**size + (1 - share) ** size for size in sizes]
    print(f"{name:18s} counted", *(f"{value:.3f}" for value in counted[name]))
    print(f"{'':18s} formula", *(f"{value:.3f}" for value in expected[name]))
pictures.one_sided(sizes, counted, expected)

# %% [markdown]
# Weights do not put rare thumbs into a batch, its size does. (One last care: if the same person's votes, or the same
# reply, lie in the training and in the test set, the test is no test. Split by user or by question, before anything is
# averaged.)

# %% [markdown]
# ## Recap
#
# - On shuffled screens a slope over positions is bias. On sorted screens it proves nothing.
# - Length cannot be shuffled; read long replies, and watch the length of what the model writes.
# - Levelling the slope does not make the places equal, and here it makes no thumb truer.
# - Weights from counts overturn majorities if votes are not settled before.
# - One-sided batches can be counted before a run.

# %% [markdown]
# ## Sources
#
# - Everything is computed above, from `kto_lab/messy.py` and its seed. It holds the answers too: the moods, the bonus
#   of each position, the bonus of a character. The first two show in the numbers; the third you could not have told.
#
# Back to [11](../11_your_data.ipynb), or on to [12](../12_scaling_up.ipynb).
