"""The exercises of lesson 11: your own thumbs."""

import itertools
import math
import random
import statistics
from collections import defaultdict

from kto_course.checks.engine import Fault, call, exercise, number


def _ratings(**stars):
    """Rows of several users, taken in turn: _ratings(anna=[5, 3], ben=[1]) -> anna 5, ben 1, anna 3."""
    longest = max(map(len, stars.values()))
    return [
        {"user": user, "stars": str(given[i])}
        for i in range(longest)
        for user, given in stars.items()
        if i < len(given)
    ]


def _random_ratings(seed):
    rng = random.Random(seed)
    moods = {f"user{n}": rng.choice((-1, 0, 1)) for n in range(6)}
    rows = [
        {"user": user, "stars": str(min(5, max(1, 3 + mood + rng.randint(-2, 2))))}
        for user, mood in moods.items()
        for _ in range(rng.randint(5, 9))
    ]
    rng.shuffle(rows)
    return rows


def _above(rows, middle):
    """One thumb for each row: the sign of its distance from middle(row)."""
    differences = [int(row["stars"]) - middle(row) for row in rows]
    return [None if d == 0 else d > 0 for d in differences]


def own_median_right(rows, average=statistics.median):
    """The thumbs that exercise 11.1 asks for; with another average than the median, those of a fault."""
    stars = defaultdict(list)
    for row in rows:
        stars[row["user"]].append(int(row["stars"]))
    return _above(rows, lambda row: average(stars[row["user"]]))


def own_median_faults(rows):
    """What the known faults of `own_median` give on these rows."""
    right = own_median_right(rows)
    every = [int(row["stars"]) for row in rows]
    return [
        ("fixed_threshold", [stars >= 4 for stars in every]),
        ("common_median", _above(rows, lambda row: statistics.median(every))),
        ("middle_of_scale", _above(rows, lambda row: 3)),
        ("mean", own_median_right(rows, statistics.mean)),
        ("median_of_the_low", own_median_right(rows, statistics.median_low)),
        ("median_of_the_low", own_median_right(rows, statistics.median_high)),
        ("turned_round", [None if thumb is None else not thumb for thumb in right]),
        ("median_is_down", [thumb is True for thumb in right]),
        ("median_is_up", [thumb is not False for thumb in right]),
        ("left_out", [thumb for thumb in right if thumb is not None]),
    ]


def _check_thumbs(got, rows, tried=None):
    right = own_median_right(rows)
    if not isinstance(got, list | tuple):
        raise Fault("type", tried, f"a {type(got).__name__}", "a list of True, False and None")
    found = list(got)
    for thumb in found:
        if thumb is not None and type(thumb).__name__ not in ("bool", "bool_"):  # NumPy's bool too
            raise Fault("no_thumb", tried, f"{thumb!r} in the list", "True, False or None")
    found = [None if thumb is None else bool(thumb) for thumb in found]
    if found == right:
        return
    for fault, value in own_median_faults(rows):
        if found == value:
            raise Fault(fault, tried, found, right)
    if len(found) != len(right):
        raise Fault("shape", tried, f"{len(found)} thumbs", f"{len(right)} thumbs, one for each row")
    raise Fault("values", tried, found, right)


@exercise(
    "own_median",
    "Better than usual for this person",
    minutes=8,
    difficulty=2,
    kind="fill in a function",
    points=3,
    ours="kto_course.checks.lesson_11.own_median_right",
    hints={
        "fixed_threshold": (
            "Four stars mean the same from everybody in your function. Who never gives four?",
            "Compare each rating with the median of the same user's ratings.",
        ),
        "common_median": (
            "All users share one middle in your function. Whose median was asked for?",
            "Collect the stars of each user in a dict, and take statistics.median of each list.",
        ),
        "middle_of_scale": (
            "You compare with 3. Is that the middle for somebody who gives 4 and 5 only?",
            "Compare with the median of the user's own ratings.",
        ),
        "mean": (
            "You compare with the user's average. What does one rating far from the others do to it?",
            "Use statistics.median instead of the mean.",
        ),
        "median_of_the_low": (
            "With an even number of ratings, the median lies half-way between the two in the middle.",
            "The median of 4, 4, 5, 5 is 4.5: use statistics.median, not one entry of the sorted list.",
        ),
        "turned_round": (
            "A rating above the user's median gets a thumb down in your function.",
            "True where int(stars) > median, False where it is below.",
        ),
        "median_is_down": (
            "A rating exactly at the median says neither up nor down here.",
            "Return None for it: three cases, not two.",
        ),
        "median_is_up": (
            "A rating exactly at the median says neither up nor down here.",
            "Use > instead of >=, and return None where both are equal.",
        ),
        "left_out": (
            "Some rows have no entry in your list. How would the caller know which?",
            "Keep None in the list: one entry for each row, in order.",
        ),
        "no_thumb": (
            "A thumb is True, False or None here, nothing else.",
            "Turn the difference d into a thumb: None if d == 0 else d > 0.",
        ),
    },
)
def own_median(answer):
    def told(rows):
        return "rows " + ", ".join(f"{row['user']} {row['stars']}" for row in rows)

    for rows in (_ratings(anna=[5, 4, 5, 4], ben=[1, 2, 3]), _ratings(cleo=[1, 1, 5, 1, 2], dan=[4, 5])):
        _check_thumbs(call(answer, rows, tried=told(rows)), rows)
    for seed in range(3):
        rows = _random_ratings(seed)
        _check_thumbs(call(answer, rows, tried="some forty random ratings of six users"), rows)
    return "odd and even numbers of ratings, ties with the median, and random users"


@exercise(
    "batch_for_rare",
    "How large a batch?",
    minutes=4,
    difficulty=2,
    kind="predict a number",
    points=1,
    hints={
        "linear": (
            "One in twenty does not put exactly one into each twenty. How often do twenty rows hold none?",
            "The chance of none is 0.95 to the power B. For B = 20 it is still 0.36.",
        ),
        "rounded_down": (
            "Just too small: put your number into 0.95 ** B.",
            "0.95 ** 44 is 0.105. One more.",
        ),
        "not_whole": (
            "A batch has a whole number of rows, and the limit must be kept.",
            "Round up.",
        ),
        "share_times": (
            "Chances of rows do not add up to the chance of a batch. How probable is it that all rows are down?",
            "Find the smallest B with 0.95 ** B <= 0.1.",
        ),
        "turned_round": (
            "With your number nine batches in ten hold no thumb up.",
            "The chance of none, 0.95 ** B, is to be 0.1 at most, not 0.9.",
        ),
        "all_up": (
            "That is the chance of a batch of thumbs up only. Which kind is rare?",
            "A row is down with probability 0.95: 0.95 ** B <= 0.1.",
        ),
    },
)
def batch_for_rare(answer):
    exact = math.log(0.1) / math.log(0.95)
    number(
        answer,
        math.ceil(exact),
        0.05,
        {
            "linear": 20.0,
            "rounded_down": math.floor(exact),
            "not_whole": exact,
            "share_times": 0.9 / 0.05,
            "turned_round": math.ceil(math.log(0.9) / math.log(0.95)),
            "all_up": math.ceil(math.log(0.1) / math.log(0.05)),
        },
        tried="one thumb up in 20 rows, at most one batch in ten without any",
    )
    return "the smallest batch that keeps the limit"


def _rows(*shown):
    return [{"prompt": prompt, "completion": text, "label": label} for prompt, text, label in shown]


# Split are P "yes" (up, down, up, apart), Q "no" (one of each, apart) and R "no" (up, up, down, side by side).
VOTES = _rows(
    ("P", "yes", True), ("Q", "yes", False), ("P", "no", False), ("Q", "no", True), ("P", "yes", False),
    ("R", "no", True), ("R", "no", True), ("R", "no", False), ("Q", "no", False), ("P", "no", False),
    ("P", "yes", True), ("S", "no", True),
)  # fmt: skip


def _random_votes(seed):
    rng = random.Random(seed)
    return _rows(*((rng.choice("KLM"), rng.choice(("a", "b", "c", "d")), rng.random() < 0.3) for _ in range(25)))


def split_votes_right(rows):
    """The replies with both kinds of thumbs, as a set of (prompt, completion)."""
    kinds = defaultdict(set)
    for row in rows:
        kinds[row["prompt"], row["completion"]].add(row["label"])
    return {reply for reply, found in kinds.items() if len(found) == 2}


def split_votes_faults(rows):
    """What the known faults of `split_votes` give on these rows."""
    polls, by_text, by_prompt = defaultdict(list), defaultdict(set), defaultdict(set)
    for row in rows:
        polls[row["prompt"], row["completion"]].append(row["label"])
        by_text[row["completion"]].add(row["label"])
        by_prompt[row["prompt"]].add(row["label"])
    pairs = list(itertools.pairwise(rows))

    def reply(row):
        return row["prompt"], row["completion"]

    return [
        ("prompt_ignored", {key for key in polls if len(by_text[key[1]]) == 2}),
        ("completion_ignored", {key for key in polls if len(by_prompt[key[0]]) == 2}),
        ("ties_only", {key for key, poll in polls.items() if 2 * sum(poll) == len(poll)}),
        ("several_votes", {key for key, poll in polls.items() if len(poll) > 1}),
        ("agreed", {key for key, poll in polls.items() if len(poll) > 1 and len(set(poll)) == 1}),
        ("agreed", {key for key, poll in polls.items() if len(set(poll)) == 1}),
        ("neighbours_only", {reply(a) for a, b in pairs if reply(a) == reply(b) and a["label"] != b["label"]}),
        ("first_and_last", {key for key, poll in polls.items() if poll[0] != poll[-1]}),
    ]


def _check_split(got, rows, tried=None):
    right = split_votes_right(rows)
    if not isinstance(got, list | tuple | set | frozenset):
        raise Fault("type", tried, f"a {type(got).__name__}", "a list of (prompt, completion)")
    found = list(got)
    if any(isinstance(entry, str) for entry in found):
        raise Fault("no_prompt", tried, found, sorted(right))
    if not all(isinstance(entry, list | tuple) and len(entry) == 2 for entry in found):
        raise Fault("type", tried, found, "a list of (prompt, completion)")
    found = [tuple(entry) for entry in found]
    if set(found) == right:
        if len(found) > len(right):
            raise Fault("repeated", tried, found, sorted(right))
        return
    for fault, value in split_votes_faults(rows):
        if set(found) == value:
            raise Fault(fault, tried, sorted(set(found)), sorted(right))
    raise Fault("values", tried, found, sorted(right))


@exercise(
    "split_votes",
    "Who disagrees?",
    minutes=7,
    difficulty=2,
    kind="fill in a function",
    points=2,
    ours="kto_course.checks.lesson_11.split_votes_right",
    hints={
        "prompt_ignored": (
            'You mix replies with the same words to different questions. Can "yes" be right here and wrong there?',
            'Group by both: the key is (row["prompt"], row["completion"]).',
        ),
        "completion_ignored": (
            "Two different replies to one question may well get different thumbs. Is that a conflict?",
            'Group by both: the key is (row["prompt"], row["completion"]).',
        ),
        "ties_only": (
            "You find only those that are half and half. Two ups and one down: do these people agree?",
            "A reply is split as soon as both kinds occur: len(set(poll)) == 2.",
        ),
        "several_votes": (
            "Several people may vote and agree. Which of your replies have one kind of thumb only?",
            "Ask for both kinds, not for more than one vote: len(set(poll)) == 2.",
        ),
        "agreed": (
            "These are the replies on which people agree.",
            "Turn the condition round: two different labels, len(set(poll)) == 2.",
        ),
        "neighbours_only": (
            "Votes on one reply need not stand side by side. Which of them do you never compare?",
            "Collect all votes of a reply in a dict first.",
        ),
        "first_and_last": (
            "You compare the first vote with the last. What about up, down, up?",
            "Look at all votes of a reply: len(set(poll)) == 2.",
        ),
        "no_prompt": (
            "A reply's text alone does not say which reply it is. What else is needed?",
            "Put (prompt, completion) into the list.",
        ),
        "repeated": (
            "The right replies, but some stand there several times.",
            "Go through the groups, not through the rows, when you build the result.",
        ),
    },
)
def split_votes(answer):
    shown = ", ".join(f"{row['prompt']} {row['completion']} {'up' if row['label'] else 'down'}" for row in VOTES)
    _check_split(call(answer, VOTES, tried=f"votes {shown}"), VOTES)
    for seed in range(4):
        rows = _random_votes(seed)
        _check_split(call(answer, rows, tried="25 random votes on twelve replies"), rows)
    return "the same words under two questions, ties, majorities, and random votes"
