"""Right and wrong answers to the exercises of lesson 11. The form is told in tests/test_checks.py."""


def thumbs(result="[None if d == 0 else d > 0 for d in differences]", middle="statistics.median(own[row['user']])"):
    return f"""
def answer(rows):
    own = defaultdict(list)
    for row in rows:
        own[row["user"]].append(int(row["stars"]))
    differences = [int(row["stars"]) - {middle} for row in rows]
    return {result}
"""


def split(condition="True in poll and False in poll", result="[reply for reply, poll in polls.items() if CONDITION]",
          key='row["prompt"], row["completion"]'):  # fmt: skip
    return f"""
def answer(rows):
    polls = defaultdict(list)
    for row in rows:
        polls[{key}].append(row["label"])
    return {result.replace("CONDITION", condition)}
"""


ANSWERS = {
    "own_median": {
        "right": {
            "differences": thumbs(),
            "sorted by hand": """
def answer(rows):
    result = []
    for row in rows:
        own = sorted(float(other["stars"]) for other in rows if other["user"] == row["user"])
        half = len(own) // 2
        middle = own[half] if len(own) % 2 else (own[half - 1] + own[half]) / 2
        if float(row["stars"]) > middle:
            result.append(True)
        elif float(row["stars"]) < middle:
            result.append(False)
        else:
            result.append(None)
    return result
""",
            "how many are below and above": """
def answer(rows):
    own = defaultdict(list)
    for row in rows:
        own[row["user"]].append(torch.tensor(int(row["stars"]), dtype=torch.float32))
    middles = {user: torch.quantile(torch.stack(stars), 0.5).item() for user, stars in own.items()}
    table = {1: True, -1: False, 0: None}
    signs = ((int(row["stars"]) > middles[row["user"]]) - (int(row["stars"]) < middles[row["user"]]) for row in rows)
    return [table[sign] for sign in signs]
""",
        },
        "wrong": {
            "four and more": ("fixed_threshold", "lambda rows: [int(row['stars']) >= 4 for row in rows]"),
            "everybody's median": ("common_median", thumbs(middle="statistics.median(s for l in own.values() for s in l)")),
            "three": ("middle_of_scale", thumbs(middle="3")),
            "the user's mean": ("mean", thumbs(middle="statistics.mean(own[row['user']])")),
            "the lower one in the middle": ("median_of_the_low", thumbs(middle="statistics.median_low(own[row['user']])")),
            "sorted, by index": ("median_of_the_low", thumbs(middle="sorted(own[row['user']])[len(own[row['user']]) // 2]")),
            "below is up": ("turned_round", thumbs("[None if d == 0 else d < 0 for d in differences]")),
            "median is down": ("median_is_down", thumbs("[d > 0 for d in differences]")),
            "median is up": ("median_is_up", thumbs("[d >= 0 for d in differences]")),
            "ties dropped": ("left_out", thumbs("[d > 0 for d in differences if d != 0]")),
            "differences": ("no_thumb", thumbs("differences")),
            "words": ("no_thumb", thumbs("['up' if d > 0 else 'down' for d in differences]")),
            "a dict": ("type", thumbs("dict(enumerate(d > 0 for d in differences))")),
            "the first row missing": ("shape", thumbs("[None if d == 0 else d > 0 for d in differences[1:]]")),
            "all up": ("values", thumbs("[True for d in differences]")),
            "text minus number": ("raised", "lambda rows: [row['stars'] - 3 > 0 for row in rows]"),
            "stars made numbers in place": ("changed_arguments", """
def answer(rows):
    for row in rows:
        row["stars"] = int(row["stars"])
    return [row["stars"] > 3 for row in rows]
"""),
            "no return": ("open", thumbs().replace("return", "thumbs =")),
        },
    },
    "batch_for_rare": {
        "right": {
            "search": "next(n for n in range(1, 100) if 0.95**n <= 0.1)",
            "a number": "45",
            "a tensor": "torch.ceil(torch.tensor(0.1).log() / torch.tensor(0.95).log())",
        },
        "wrong": {
            "one in twenty": ("linear", "20"),
            "rounded down": ("rounded_down", "44"),
            "not whole": ("not_whole", "float(torch.tensor(0.1).log() / torch.tensor(0.95).log())"),
            "shares divided": ("share_times", "0.9 / 0.05"),
            "nine in ten without": ("turned_round", "3"),
            "batches of ups": ("all_up", "1"),
            "a guess": ("values", "64"),
            "text": ("type", "'45'"),
            "a range": ("type", "[44, 45]"),
            "NaN": ("nan", "float('nan')"),
        },
    },
    "split_votes": {
        "right": {
            "both kinds in the poll": split(),
            "two sets": """
def answer(rows):
    ups = {(row["prompt"], row["completion"]) for row in rows if row["label"]}
    downs = {(row["prompt"], row["completion"]) for row in rows if not row["label"]}
    return ups & downs
""",
            "sum between": split("0 < sum(poll) < len(poll)", "tuple(list(reply) for reply, poll in polls.items() if CONDITION)"),
            "each row against the others": """
def answer(rows):
    found = []
    for row in rows:
        reply = row["prompt"], row["completion"]
        for other in rows:
            same = (other["prompt"], other["completion"]) == reply
            if same and other["label"] != row["label"] and reply not in found:
                found.append(reply)
    return found
""",
        },
        "wrong": {
            "same words": ("prompt_ignored", """
def answer(rows):
    kinds = defaultdict(set)
    for row in rows:
        kinds[row["completion"]].add(row["label"])
    return {(row["prompt"], row["completion"]) for row in rows if len(kinds[row["completion"]]) == 2}
"""),
            "same question": ("completion_ignored", """
def answer(rows):
    kinds = defaultdict(set)
    for row in rows:
        kinds[row["prompt"]].add(row["label"])
    return {(row["prompt"], row["completion"]) for row in rows if len(kinds[row["prompt"]]) == 2}
"""),
            "half and half": ("ties_only", split("2 * sum(poll) == len(poll)")),
            "more than one vote": ("several_votes", split("len(poll) > 1")),
            "several, all alike": ("agreed", split("len(poll) > 1 and len(set(poll)) == 1")),
            "one kind": ("agreed", split("len(set(poll)) == 1")),
            "neighbours": ("neighbours_only", """
def answer(rows):
    def reply(row):
        return row["prompt"], row["completion"]
    return [reply(a) for a, b in zip(rows, rows[1:], strict=False) if reply(a) == reply(b) and a["label"] != b["label"]]
"""),
            "first and last": ("first_and_last", split("poll[0] != poll[-1]")),
            "texts": ("no_prompt", split(result="[reply[1] for reply, poll in polls.items() if CONDITION]")),
            "each vote": ("repeated", split(
                result='[(row["prompt"], row["completion"]) for row in rows if len(set(polls[row["prompt"], row["completion"]])) == 2]'
            )),
            "their number": ("type", split(result="sum(len(set(poll)) == 2 for poll in polls.values())")),
            "with their votes": ("type", split(result="[(*reply, poll) for reply, poll in polls.items() if CONDITION]")),
            "nothing": ("values", split("len(poll) > 99")),
            "another column": ("raised", split(key='row["question"], row["completion"]')),
            "sorted in place": ("changed_arguments", """
def answer(rows):
    rows.sort(key=lambda row: row["prompt"])
    return []
"""),
        },
    },
}  # fmt: skip

EQUIVALENT = {
    "own_median": {"d > 0 -> d >= 0": "d == 0 has been answered before"},
}
