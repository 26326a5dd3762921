"""`python course.py inspect FILE`: what is in a file of thumbs, what is wrong with it, the two weights. Lesson 11.

Run it with -m: started by its path, Python would take this file for its own module `inspect`.
"""

import argparse
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from kto_lab.feedback import ACCEPTABLE, FIELDS, KINDS, FeedbackError, FeedbackReport
from kto_lab.loading import load_feedback
from kto_lab.records import read_records

SHOWN = 6  # different labels
USUAL = {"1": "true", "0": "false", "true": "true", "false": "false", "up": "true", "down": "false"}


def _pairs(text: str) -> dict[str, str]:
    """ "a=b,c=d" as a dict."""
    pairs = dict(part.partition("=")[::2] for part in text.split(","))
    if not all(pairs) or not all(pairs.values()):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value,name=value")
    return pairs


def _labels(text: str) -> dict[str | float, bool]:
    """ "up=true,0=false" as a mapping; a number stands for itself and for its text."""
    labels = {}
    for value, word in _pairs(text).items():
        if word not in ("true", "false"):
            raise argparse.ArgumentTypeError(f"{value!r} is set to {word!r}; it must be true or false")
        labels[value] = word == "true"
        with contextlib.suppress(ValueError, TypeError):
            labels[json.loads(value)] = word == "true"
    return labels


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python course.py inspect",
        description="Checks every row of a file of thumbs (.jsonl, .csv, .parquet) and changes nothing. "
        "Exit status: 0 all rows are good, 1 some are not, 2 the file cannot be read.",
    )
    found.add_argument("file")
    found.add_argument("--labels", type=_labels, help="what labels mean, e.g. up=true,down=false or 1=true,0=false")
    found.add_argument("--columns", type=_pairs, help=f"other names of {', '.join(FIELDS)}, e.g. label=thumb")
    found.add_argument("--accept", nargs="+", default=(), choices=ACCEPTABLE, help="kinds that are no fault here")
    found.add_argument("--max-length", type=int, help="find replies cut to nothing at so many tokens")
    found.add_argument("--tokenizer", help="folder of a byte-level tokenizer; default: the course's")
    return found


def _tokenizer(folder: str | None):
    if folder is None:
        from kto_utils.tokenizer import load_tokenizer

        return load_tokenizer()
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def weights_text(report: FeedbackReport) -> str:
    """The recommended weights for the rows that were kept, or why there are none."""
    if not report.kept:
        return "No weights: no row is good."
    if not (report.desirable and report.undesirable):
        return "No weights: only one kind of thumb is left, and KTO needs both."
    from kto_utils.losses import BAND_V1, balanced_weights  # loads torch, so not before it is needed

    lines = [f"{'weights for train_kto':<32} desirable_weight  undesirable_weight"]
    for ratio, meaning in zip(BAND_V1, ("both sides weigh the same", "thumbs up weigh 4/3"), strict=True):
        up, down = balanced_weights(report.desirable, report.undesirable, ratio)
        lines.append(f"{meaning:<32} {up:>16.4f} {down:>19.4f}")
    return "\n".join(lines)


def labels_text(path: str, columns: Mapping[str, str] | None, rejected: Sequence[int]) -> str:
    """Which labels have no meaning yet, and the option that gives them one. What they mean is not guessed.

    Args:
        path, columns: as in `load_feedback`.
        rejected: numbers of the rows whose label is no boolean.
    """
    name, rows = (columns or {}).get("label", "label"), set(rejected)
    records = enumerate(read_records(path, [name], "labels"), start=1)
    found = Counter(str(record.fields[name]) for number, record in records if number in rows)
    shown = ", ".join(f"{value[:20]!r} ({count:,})" for value, count in found.most_common(SHOWN))
    more = f" and {len(found) - SHOWN:,} others" * (len(found) > SHOWN)
    meanings = [f"{value}={USUAL.get(value.lower())}" for value in found]
    known = all(value.lower() in USUAL for value in found)
    option = ",".join(meanings) if known else "VALUE=true,VALUE=false"
    return f"Labels without a meaning: {shown}{more}. Say what they mean, as in --labels {option}"


def why_unreadable(path: str, error: Exception) -> str:
    """One line."""
    if Path(path).is_dir():
        return f"{path} is a folder; name a file in it"
    hint = "; the file's own names go into --columns, e.g. label=thumb" if "no column" in str(error) else ""
    return f"{error}{hint}"


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    try:
        tokenizer = None if options.max_length is None else _tokenizer(options.tokenizer)
        report = load_feedback(
            options.file,
            labels=options.labels,
            columns=options.columns,
            accept=options.accept,
            tokenizer=tokenizer,
            max_length=options.max_length,
        ).report
    except FeedbackError as error:
        report = error.report
    except (OSError, TypeError, ValueError) as error:
        print(why_unreadable(options.file, error), file=sys.stderr)
        return 2
    print(report)
    found = [kind for kind in KINDS if kind in report.rejected or kind in report.accepted]
    if found:
        print("\n" + "\n".join(f"{kind}: {KINDS[kind]}" for kind in found))
    if unknown := report.rejected.get("label_not_boolean"):
        print("\n" + labels_text(options.file, options.columns, unknown))
    print("\n" + weights_text(report))
    return int(bool(report.rejected))


def quietly(arguments: Sequence[str]) -> int:
    """`main`, and no complaint where the reader of our output has seen enough, as `| head` has."""
    try:
        status = main(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 0
    return status


if __name__ == "__main__":
    sys.exit(quietly(sys.argv[1:]))
