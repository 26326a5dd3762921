"""`python course.py split FILE`: thumbs for training and for evaluation that share no user or no question. Lesson 11.

A cut by rows would put the same question, often the same reply, on both sides: the model would be asked what it has
learned by heart.
"""

import argparse
import contextlib
import hashlib
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kto_lab.command import run_command
from kto_lab.feedback import Feedback
from kto_lab.inspect import add_reading_options, weights_text, why_unreadable
from kto_lab.layouts import texts_in
from kto_lab.loading import load_feedback
from kto_lab.plain import to_json
from kto_lab.report import FeedbackError, FeedbackReport, listed

TRAIN, EVAL = "train.jsonl", "eval.jsonl"
QUESTION = "question"
SEVERAL = 1.5  # a group that would make the evaluation so many times too large stays in the training rows


@dataclass
class Cut:
    """Which thumb goes where. `sides` names for each thumb TRAIN, EVAL or why it is left out; `rows` its row."""

    by: str
    rows: list[int] = field(default_factory=list)
    sides: list[str] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)
    groups: list[bytes | None] = field(default_factory=list)
    questions: list[bytes] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)

    def of(self, side: str) -> list[int]:
        """Places of the thumbs on this side."""
        return [place for place, found in enumerate(self.sides) if found == side]


def _same_text(text: str) -> str:
    """What makes two texts one question: letters and words, not capitals, blanks or the sign at the end."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" ?!.,;:")


def _digest(*parts: str) -> bytes:
    whole = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(whole, digest_size=16).digest()


def _asked(prompt: str | Sequence[Mapping]) -> tuple[str, str]:
    """The first question of a chat, which all its turns share, and the last; of a text both are the text."""
    if isinstance(prompt, str):
        return prompt, prompt
    users = [message["content"] for message in prompt if message["role"] in ("user", "tool")]
    return users[0], users[-1]


def _group(thumb: Mapping, by: str) -> bytes | None:
    if by == QUESTION:
        return _digest(_same_text(_asked(thumb["prompt"])[0]))
    value = thumb.get(by)
    return None if value is None or str(value).strip() == "" else _digest(str(value))


def decide(feedback: Feedback, by: str, share: float, seed: int) -> Cut:
    """Cuts the thumbs of a file.

    Args:
        feedback: from `load_feedback`.
        by: "question", or the name of a field such as user: what no two sides share.
        share: of the thumbs for evaluation, between 0 and 1; whole groups are taken until it is reached.
        seed: another one takes other groups.

    Raises:
        ValueError: no thumb has the field, there is one group only, or a side lacks one kind of thumb.
    """
    cut, names = Cut(by), set()
    for row, thumb in feedback.numbered():
        asked = _same_text(_asked(thumb["prompt"])[1])
        cut.rows.append(row)
        cut.labels.append(thumb["label"])
        cut.groups.append(_group(thumb, by))
        cut.questions.append(_digest(asked))
        cut.replies.append(_digest(asked, *map(_same_text, texts_in(thumb["completion"]))))
        names |= thumb.keys()
    sizes = Counter(group for group in cut.groups if group is not None)
    if not sizes:
        raise ValueError(f"no row has a field {by!r}; the fields are {listed(sorted(names))}")
    taken = _taken(sizes, share, seed)
    cut.sides = [f"no {by}" if group is None else EVAL if group in taken else TRAIN for group in cut.groups]
    judged = {cut.replies[place] for place in cut.of(EVAL)}
    for place in cut.of(TRAIN):
        if cut.replies[place] in judged:
            cut.sides[place] = f"in {EVAL} too"
    for side in (TRAIN, EVAL):
        labels = {cut.labels[place] for place in cut.of(side)}
        if len(labels) < 2:
            found = f"only thumbs {'up' if True in labels else 'down'}" if labels else "nothing"
            raise ValueError(f"{side} would hold {found}: take another --seed or --share, or cut by another field")
    return cut


def _taken(sizes: Counter, share: float, seed: int) -> set[bytes]:
    """The groups for evaluation: in an order that the seed decides, until the share is reached."""
    if len(sizes) == 1:
        raise ValueError("all rows are of one group; there is nothing to cut")
    wanted, taken, size = share * sizes.total(), set(), 0
    for group in sorted(sizes, key=lambda group: _digest(str(seed), group.hex())):
        if size < wanted and size + sizes[group] <= max(1, SEVERAL * wanted):
            taken.add(group)
            size += sizes[group]
    if not taken:
        largest = max(sizes.values())
        found = f"the largest has {largest:,} of {sizes.total():,} thumbs"
        raise ValueError(f"every group is too large for a share of {share:g}; {found}. Take a larger --share")
    return taken


def write_sides(feedback: Feedback, cut: Cut, folder: Path) -> None:
    """Writes both files, or none: a training file of one cut beside the evaluation of another would be a leak."""
    folder.mkdir(parents=True, exist_ok=True)
    new = {side: folder / f"{side}.part" for side in (TRAIN, EVAL)}
    try:
        with contextlib.ExitStack() as stack:
            files = {side: stack.enter_context(path.open("w", encoding="utf-8", newline="\n"))
                     for side, path in new.items()}  # fmt: skip
            for thumb, side in zip(feedback, cut.sides, strict=True):
                if side in files:
                    files[side].write(to_json(thumb) + "\n")
        for side, path in new.items():
            os.replace(path, folder / side)
    finally:
        for path in new.values():
            path.unlink(missing_ok=True)


def describe(name: str, report: FeedbackReport, cut: Cut) -> str:
    """The counts of both sides, what is left out, and the weights for training."""
    lines = [f"{name}: {len(cut.rows):,} thumbs of {report.kept:,} good rows, cut by {cut.by}", ""]
    lines.append(f"{'':<16} {'thumbs':>9} {'up':>9} {'down':>9} {cut.by + 's':>10}")
    for side in (TRAIN, EVAL):
        places = cut.of(side)
        up = sum(cut.labels[place] for place in places)
        groups = len({cut.groups[place] for place in places})
        lines.append(f"{side:<16} {len(places):>9,} {up:>9,} {len(places) - up:>9,} {groups:>10,}")
    why = {f"in {EVAL} too": f"the same question with the same reply stands in {EVAL}", f"no {cut.by}": f"no {cut.by}"}
    for side, reason in why.items():
        if places := cut.of(side):
            rows = sorted({cut.rows[place] for place in places})
            which = ", ".join(f"{row}" for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
            lines.append(f"{'left out':<16} {len(places):>9,}   {reason}: rows {which}")
    asked = [{cut.questions[place] for place in cut.of(side)} for side in (TRAIN, EVAL)]
    if both := len(asked[0] & asked[1]):
        lines.append(
            f"\n{both:,} last questions of chats stand on both sides, with other replies: a chat goes where its first "
            "question goes." if cut.by == QUESTION else
            f"\n{both:,} questions stand on both sides, with other replies; to part them, cut by {QUESTION}."
        )  # fmt: skip
    ups = [cut.labels[place] for place in cut.of(TRAIN)]
    return "\n".join([*lines, "", weights_text(sum(ups), len(ups) - sum(ups))])


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python course.py split",
        description=f"Writes {TRAIN} and {EVAL}, which share no question or no user, and prints what is in them. "
        "Exit status: 0 written, 1 some rows are not good, 2 it cannot be done.",
    )
    add_reading_options(found)
    found.add_argument("--by", default=QUESTION, metavar="FIELD", help="what the sides may not share: question "
                       "(the default; of a chat its first question) or a field of your rows, e.g. user")  # fmt: skip
    found.add_argument("--share", type=float, default=0.1, help="of the thumbs for evaluation; default 0.1")
    found.add_argument("--seed", type=int, default=0, help="another one makes another cut; default 0")
    found.add_argument("--out", type=Path, help="folder for the two files; default: beside the file")
    found.add_argument("--good-rows", action="store_true", help="cut the good rows and write the others, each with its "
                       "reason, to NAME.rejected.jsonl")  # fmt: skip
    found.add_argument("--overwrite", action="store_true", help="replace files of an earlier cut")
    return found


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    source = Path(options.file)
    folder = options.out or source.parent
    try:
        if not 0 < options.share < 1:
            raise ValueError(f"--share is {options.share}; it must lie between 0 and 1, e.g. 0.1")
        if source.name in (TRAIN, EVAL) and folder.resolve() == source.parent.resolve():
            raise ValueError(f"{source} would be replaced by its own part; name another folder with --out")
        side_file = folder / f"{source.name}.rejected.jsonl"
        written = [folder / TRAIN, folder / EVAL, *([side_file] if options.good_rows else [])]
        found = [str(path) for path in written if path.exists()]
        if found and not options.overwrite:
            raise ValueError(f"{found[0]} exists; pass --overwrite, or name another folder with --out")
        feedback = load_feedback(
            source, labels=options.labels, columns=options.columns, accept=options.accept,
            strict=not options.good_rows, side_file=side_file, overwrite=options.overwrite,
        )  # fmt: skip
        cut = decide(feedback, options.by, options.share, options.seed)
        write_sides(feedback, cut, folder)
    except FeedbackError as error:
        print(error.report.text(terminal=True))
        if error.report.rows:
            print("\nNothing was written. Mend these rows, or cut the good ones: add --good-rows.")
        return 1
    except (OSError, TypeError, ValueError) as error:
        print(why_unreadable(options.file, error, options.columns), file=sys.stderr)
        return 2
    print(describe(source.name, feedback.report, cut))
    print(f"\nwrote {TRAIN} and {EVAL} {f'into {options.out}' if options.out else f'beside {source.name}'}")
    if rejected := feedback.report.rows - feedback.report.kept:
        print(f"{rejected:,} rows are not good; {side_file.name} holds them, each with its reason.")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
