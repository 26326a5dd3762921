"""The picture of lesson 11."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from kto_course.pictures import publish
from kto_utils.plotting import DOWN, NEUTRAL, label_line


def users(rows: Sequence[Mapping], deserved: Sequence[bool]) -> None:
    """Each user's share of thumbs up, rising from one user to the next, beside the share that they should have given.

    Args:
        rows: ratings with user and label (True = up).
        deserved: for each row, whether its reply deserves a thumb up.
    """
    given, due = defaultdict(list), defaultdict(list)
    for row, right in zip(rows, deserved, strict=True):
        given[row["user"]].append(row["label"])
        due[row["user"]].append(right)
    order = sorted(given, key=lambda user: (sum(given[user]) / len(given[user]), user))
    fig, ax = plt.subplots()
    ax.plot(range(len(order)), [sum(given[u]) / len(given[u]) for u in order], "o-", color=DOWN, markersize=4)
    ax.plot(range(len(order)), [sum(due[u]) / len(due[u]) for u in order], "s", color=NEUTRAL, markersize=4)
    label_line(ax, 9, 0.55, "ratings with four stars and more", color=DOWN)
    label_line(ax, 30, 0.06, "replies that deserve a thumb up", color=NEUTRAL)
    ax.set(xlabel=f"{len(order)} users, in the order of their share", ylabel="share of the user's ratings", ylim=(0, 1))
    ax.set_title("One person's three is another person's five")
    alt = """For each of 50 users, the share of ratings with four stars and more, and the share of replies shown to them
        that deserved a thumb up. The first climbs from 0 to about 0.7, the second scatters around a quarter."""
    publish(fig, "11_users", alt)
