"""What a learner has done: tries, predictions, ratings and drills, in one file on this machine. Nothing leaves it.

The file is the one named by the environment variable KTO_PROGRESS, else work/progress.json beside course.py. If
KTO_PROGRESS names a folder, every process keeps a file of its own there: the tests want each kernel to start afresh.

Where our own solutions are run, in notebooks/ and in the solved copies in work/, no try, prediction or drill is noted:
it would count as the learner's. With KTO_PROGRESS set, everything is noted.
"""

import contextlib
import datetime
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kto_course import NOTEBOOKS, WORK

SOLVED = tuple(folder / part for folder in (NOTEBOOKS, WORK / "solved") for part in ("", "deeper"))
DEFAULT_FILE = WORK / "progress.json"
VERSION = 1
PARTS = ("exercises", "predictions", "ratings", "drills")


def progress_file() -> Path:
    """Where the progress is kept."""
    path = Path(os.environ.get("KTO_PROGRESS") or DEFAULT_FILE)
    return path / f"progress_{os.getpid()}.json" if path.is_dir() else path


def counts() -> bool:
    """Whether what is tried in this folder counts as the learner's own."""
    if os.environ.get("KTO_PROGRESS"):
        return True
    try:
        return Path.cwd().resolve() not in SOLVED
    except OSError:  # the folder is gone
        return True


def _fresh() -> dict[str, Any]:
    return {"version": VERSION} | {part: {} for part in PARTS}


def _moment(text: str) -> datetime.datetime:
    """A time from the file; one without a time zone is taken as UTC."""
    when = datetime.datetime.fromisoformat(text)
    return when if when.tzinfo else when.replace(tzinfo=datetime.UTC)


def _look_through(part: str, entry: Any) -> None:
    """Raises ValueError, KeyError or TypeError if an entry is not what this module writes."""
    if part == "exercises":
        faults = dict(entry.get("faults", {})).values()
        good = all(type(n) is int for n in (entry["lesson"], entry["tries"], entry["passes"], *faults))
        if not good or not isinstance(entry["last_fault"], str | None):
            raise ValueError
    elif part == "predictions":
        if not isinstance(entry["confidence"], float | int | None) or type(entry["right"]) is not bool:
            raise ValueError
    else:
        if not isinstance(entry, list):
            raise TypeError
        for one in entry:
            _moment(one["when"])
            kinds = {"rating": int} if part == "ratings" else {"passed": bool, "seconds": float}
            if not all(type(one[name]) is kind for name, kind in kinds.items()):
                raise ValueError


def load() -> dict[str, Any]:
    """The whole record: {"version": 1, "exercises": {...}, "predictions": {...}, "ratings": {...}, "drills": {...}}.

    A file that cannot be understood is set aside under another name, with a message, and a fresh record begins.
    """
    path = progress_file()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _fresh()
    except (OSError, UnicodeDecodeError):
        text = ""
    try:
        record = json.loads(text)
        if record["version"] != VERSION:
            raise ValueError
        record = _fresh() | record  # a part that is younger than the file is empty
        for part in PARTS:
            for entry in record[part].values():
                _look_through(part, entry)
        return record
    except (ValueError, KeyError, TypeError, AttributeError):
        aside = next(
            p for i in range(1, 10_000) if not (p := path.with_name(f"{path.stem}.broken{i}{path.suffix}")).exists()
        )
        with contextlib.suppress(OSError):
            path.replace(aside)
            print(f"The progress file could not be read. It is kept as {aside.name}; a new one begins.")
        return _fresh()


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Keeps two kernels from writing at once: waits up to a second, and ignores a lock left by a dead process."""
    lock = path.with_name(path.name + ".lock")
    mine = False
    for _ in range(100):
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
            mine = True
            break
        except FileExistsError:
            with contextlib.suppress(OSError):
                if time.time() - lock.stat().st_mtime > 5:
                    lock.unlink()
            time.sleep(0.01)
        except PermissionError:  # Windows, while the other one deletes its lock
            time.sleep(0.01)
    try:
        yield
    finally:
        if mine:
            with contextlib.suppress(OSError):
                lock.unlink()


def update(change: Callable[[dict[str, Any]], None]) -> None:
    """Reads the record anew, lets `change` edit it, and writes it in one step: a reader sees all of it or nothing.

    A disk that cannot be written costs the record, never the lesson.
    """
    path = progress_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            record = load()
            change(record)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(record, file, indent=1, sort_keys=True)
            for attempt in range(20):
                try:
                    os.replace(name, path)
                    break
                except PermissionError:  # Windows, while another kernel reads
                    if attempt == 19:
                        os.unlink(name)
                        raise
                    time.sleep(0.01)
    except OSError:
        pass


def record_try(id: str, lesson: int, state: str, fault: str | None) -> None:
    """Notes one check of an exercise: state is that of an Outcome. One that is open or refused is no try."""
    if state not in ("passed", "wrong") or not counts():
        return

    def change(record):
        entry = record["exercises"].setdefault(id, {"lesson": lesson, "tries": 0, "passes": 0, "last_fault": None})
        entry["tries"] += 1
        entry["passes"] += state == "passed"
        entry["last_fault"] = fault
        entry.setdefault("faults", {})
        if fault:
            entry["faults"][fault] = entry["faults"].get(fault, 0) + 1

    update(change)


def exercises() -> dict[str, dict[str, Any]]:
    """Exercise id -> {"lesson", "tries", "passes", "last_fault" (None after a pass), "faults" {id: times}}."""
    return load()["exercises"]


def record_rating(question_id: str, rating: int, when: datetime.datetime | None = None) -> None:
    """Notes how well an interview question went: `rating` as the interview defines it, `when` (default now, UTC)."""
    when = when or datetime.datetime.now(datetime.UTC)

    def change(record):
        record["ratings"].setdefault(question_id, []).append({"rating": rating, "when": when.isoformat()})

    update(change)


def ratings() -> dict[str, list[tuple[int, datetime.datetime]]]:
    """Question id -> its (rating, when) in the order they were noted."""
    return {
        id: [(entry["rating"], _moment(entry["when"])) for entry in entries]
        for id, entries in load()["ratings"].items()
    }


def record_drill(id: str, passed: bool, seconds: float, when: datetime.datetime | None = None) -> None:
    """Notes one try of a blank-page drill: whether it passed, and the seconds since its clock was started."""
    if not counts():
        return
    when = when or datetime.datetime.now(datetime.UTC)

    def change(record):
        entry = {"passed": passed, "seconds": float(seconds), "when": when.isoformat()}
        record["drills"].setdefault(id, []).append(entry)

    update(change)


def drills() -> dict[str, list[tuple[bool, float, datetime.datetime]]]:
    """Drill id -> its (passed, seconds, when) in the order they were noted."""
    return {
        id: [(entry["passed"], entry["seconds"], _moment(entry["when"])) for entry in entries]
        for id, entries in load()["drills"].items()
    }


# Predict first, then look.

_asked: dict[str, dict[str, Any]] = {}  # what this kernel has asked; the file plays no part in what is printed


def predict(
    id: str, question: str, choices: Sequence[str], guess: str | None = None, confidence: float | None = None
) -> None:
    """Asks for a prediction before a result is seen: prints the question and its choices a, b, c, ...

    Args:
        id: a name for the prediction, unique in the course.
        question: one sentence.
        choices: two or more possible answers.
        guess: the learner's letter; None skips the question.
        confidence: how sure, from 0.5 or less (guessing) to 1 (certain): the probability that the guess is right.

    Raises:
        ValueError: fewer than two choices.
    """
    if isinstance(choices, str) or not 2 <= len(choices) <= 26:
        raise ValueError(f"prediction {id!r}: expected a list of 2 to 26 choices, found {choices!r}")
    letters = [chr(ord("a") + i) for i in range(len(choices))]
    print(question)
    for letter, text in zip(letters, choices, strict=True):
        print(f"  {letter}) {text}")
    _asked[id] = {"choices": dict(zip(letters, choices, strict=True)), "guess": None, "confidence": None}
    if guess is None or guess is ...:
        print('Your turn: write guess="a" and, say, confidence=0.7 into this cell and run it again. Or go on.')
        return
    letter = str(guess).strip(" .()").lower()
    if letter not in letters:
        print(f"{guess!r} is none of the choices; write one of {', '.join(letters)} in quotes.")
        return
    certain = isinstance(confidence, int | float) and not isinstance(confidence, bool) and 0 <= confidence <= 1
    if confidence is not None and not certain:
        print("The confidence is a number from 0 to 1: how probable is it that you are right? Noted without it.")
    _asked[id].update(guess=letter, confidence=float(confidence) if certain else None)
    print(f"Noted: {letter}" + (f", {confidence:.0%} sure." if certain else "."))


def reveal(id: str, truth: str) -> None:
    """Prints the right choice of a prediction, and whether the guess made in this kernel was right; notes it.

    Raises:
        ValueError: truth is no letter of the choices (the lesson is wrong, not the learner).
    """
    asked = _asked.get(id, {"choices": {truth: ""}, "guess": None, "confidence": None})
    if truth not in asked["choices"]:
        raise ValueError(f"prediction {id!r}: the truth {truth!r} is not among {', '.join(asked['choices'])}")
    text = asked["choices"][truth]
    print(f"Prediction: the answer is {truth}" + (f") {text}" if text else "."))
    guess, confidence = asked["guess"], asked["confidence"]
    if guess is None:
        return
    right = guess == truth
    print(f"You said {guess}: {'right' if right else 'not this time'}.")

    def change(record):  # the first guess counts; running the cell again does not improve it
        record["predictions"].setdefault(id, {"guess": guess, "confidence": confidence, "right": right})

    if counts():
        update(change)


def predictions() -> dict[str, dict[str, Any]]:
    """Prediction id -> {"guess": letter, "confidence": 0 to 1 or None, "right": bool}, for those that were revealed."""
    return load()["predictions"]


def brier_score(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Mean squared difference between stated probability and what happened, 0 (perfect) to 1; always saying 0.5: 0.25.

    Raises:
        ValueError: no prediction at all.
    """
    if not confidences:
        raise ValueError("no prediction with a confidence; the Brier score needs one")
    return sum((p - r) ** 2 for p, r in zip(confidences, right, strict=True)) / len(confidences)


def calibration() -> None:
    """Prints the learner's Brier score and draws how often they were right against how sure they were."""
    known = [(p["confidence"], p["right"]) for p in predictions().values() if p["confidence"] is not None]
    if not known:
        print("No predictions with a confidence yet. The lessons ask for them before their main results.")
        return
    sure, right = zip(*known, strict=True)
    print(f"{len(known)} predictions, {sum(right)} right, {sum(sure) / len(sure):.0%} sure on average")
    print(f"Brier score {brier_score(sure, right):.4f} (0 is perfect, 0.25 is always saying 50%)")
    import matplotlib.pyplot as plt

    from kto_utils.plotting import NEUTRAL, UP

    _, ax = plt.subplots(figsize=(4.2, 4.2))
    ax.plot([0, 1], [0, 1], color=NEUTRAL, linestyle="--", label="as sure as right")
    bins: dict[float, list[tuple[float, bool]]] = {}
    for p, r in known:
        bins.setdefault(min(int(p * 5), 4), []).append((p, r))
    for entries in bins.values():
        x, y = (sum(column) / len(entries) for column in zip(*entries, strict=True))
        ax.scatter([x], [y], s=150 + 20 * len(entries), color=UP)
        ax.annotate(str(len(entries)), (x, y), ha="center", va="center", color="white", fontsize=9)
    ax.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), xlabel="how sure you were", ylabel="share that was right",
           title="Your predictions (number in each dot)")  # fmt: skip
    ax.legend(loc="lower right")
    plt.show()


def progress() -> None:
    """Prints a table of the exercises per lesson, those tried but not passed below it, and a small plot."""
    from kto_course.checks import ids_by_lesson

    if not counts():
        print("This is a solved copy, where nothing counts. What you did in the open ones:")
    done = exercises()
    rows = []
    for lesson, ids in ids_by_lesson().items():
        tried = [done[id] for id in ids if id in done]
        rows.append((lesson, sum(e["passes"] > 0 for e in tried), len(ids), sum(e["tries"] for e in tried)))
    print(f"{'lesson':>6} {'passed':>8} {'tries':>6}")
    for lesson, passed, total, tries in rows:
        print(f"{lesson:>6} {f'{passed}/{total}':>8} {tries:>6}")
    print(f"{'all':>6} {f'{sum(r[1] for r in rows)}/{sum(r[2] for r in rows)}':>8} {sum(r[3] for r in rows):>6}")
    for id, entry in sorted(done.items()):
        if not entry["passes"]:
            where = f"{id} (lesson {entry['lesson']})"
            print(f"still open: {where}, tries: {entry['tries']}, last fault: {entry['last_fault']}")
    guesses = list(predictions().values())
    if guesses:
        print(f"predictions: {sum(g['right'] for g in guesses)} of {len(guesses)} right; calibration() shows more")
    if not rows:
        return
    import matplotlib.pyplot as plt

    from kto_utils.plotting import ACCENT, NEUTRAL

    _, ax = plt.subplots(figsize=(5.2, 1.0 + 0.28 * len(rows)))
    names = [f"{row[0]:02d}" for row in rows]
    ax.barh(names, [row[2] for row in rows], color="none", edgecolor=NEUTRAL, label="all")
    ax.barh(names, [row[1] for row in rows], color=ACCENT, label="passed")
    ax.invert_yaxis()
    ax.set(xlabel="exercises", ylabel="lesson", title="Passed", xticks=range(1 + max(row[2] for row in rows)))
    ax.grid(False)
    plt.show()


def reset() -> None:
    """Clears the record: exercises, predictions, ratings and drills."""
    path = progress_file()
    existed = path.exists()
    path.unlink(missing_ok=True)
    _asked.clear()
    print("Your progress is cleared." if existed else "There was no progress to clear.")
