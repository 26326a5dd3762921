"""The export of an imaginary product: ratings of replies to the small world's questions, with all that goes wrong.

Lesson 11 cleans it. Since the world knows the truth, the lesson can say what each way of cleaning gets right.
"""

import csv
import io
import random
from pathlib import Path

from kto_utils.world import Reply, draw_reply, trained_questions

COLUMNS = ("time", "user", "question", "answer", "position", "stars", "comment")
N_USERS, RATINGS_EACH = 50, 28
MOODS = {"harsh": -1.2, "plain": 0.0, "kind": 1.2}  # stars that a user adds to everything
POSITION_BONUS = {1: 0.6, 2: 0.0, 3: -0.6}  # the first reply on the screen gets more, wherever it came from
BONUS_PER_CHARACTER, USUAL_LENGTH = 0.06, 30  # long replies look like more work
NOISE = 0.6  # standard deviation, in stars


def _stars(reply: Reply, mood: float, position: int, rng: random.Random) -> int:
    """1 to 5: what the reply deserves, plus all that has nothing to do with it."""
    deserved = 4.2 if reply.thumbs_up else 2.8 if reply.polite else 2.4 if reply.right else 1.6
    length = BONUS_PER_CHARACTER * (len(reply.text.strip()) - USUAL_LENGTH)
    stars = deserved + mood + POSITION_BONUS[position] + length + rng.gauss(0.0, NOISE)
    return min(5, max(1, round(stars)))


def _ratings(rng: random.Random) -> list[list]:
    """What users really clicked, in order of time; a user's mood stands in no column."""
    moods = {f"user{n:02d}": rng.choice(list(MOODS.values())) for n in range(N_USERS)}
    rows = []
    for user, mood in moods.items():
        for _ in range(RATINGS_EACH):
            question = rng.choice(trained_questions())
            reply, position = draw_reply(question, rng), rng.choice(list(POSITION_BONUS))
            stars = _stars(reply, mood, position, rng)
            comment = rng.choice(["", "", "", "ok", "hm, no", 'it said "help"'])
            rows.append([user, question.text, reply.text.strip(), position, stars, comment])
    rng.shuffle(rows)
    return [[f"2026-03-{1 + n // 50:02d} {n % 50:02d}s", *row] for n, row in enumerate(rows)]


def _line(cells: list) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8")


def _broken(cells: list, rng: random.Random) -> bytes:
    """One of the things that happen to rows between a phone and a file."""
    time, user, question, answer, position, stars, _ = cells
    return rng.choice(
        [
            _line([time, "zo\u00eb", question, answer, position, stars, ""]).decode().encode("latin-1"),  # an old app
            _line([time, user, question, "", position, stars, ""]),  # the model timed out
            _line([time, user, "", answer, position, stars, ""]),
            _line([time, user, question, answer, position, "", ""]),  # shown, not rated
            _line([time, user, question, answer, position, rng.choice(["n/a", "10", "0", "4.5"]), ""]),
            _line([time, user, question, answer + "\ufffd", position, stars, ""]),
            f'{time},{user},{question},{answer},{position},{stars},"so so\n'.encode(),
            f"{time},{user},{question},{answer.replace('.', ', sir.')},{position},{stars},\n".encode(),
            b"\n",
        ]
    )


def write_export(path: Path | str, seed: int, n_broken: int = 60, n_sent_twice: int = 25) -> None:
    """Writes the export as a CSV of 1,400 ratings, of which some were sent twice, and of broken lines among them.

    The last line is cut off. The same seed gives the same bytes.
    """
    rng = random.Random(seed)
    ratings = _ratings(rng)
    lines = [_line(cells) for cells in ratings]
    lines += rng.sample(lines, n_sent_twice)
    lines += [_broken(rng.choice(ratings), rng) for _ in range(n_broken)]
    rng.shuffle(lines)
    content = _line(list(COLUMNS)) + b"".join(lines) + _line(ratings[0])[:-40]
    Path(path).write_bytes(content)
