"""`python course.py inspect FILE`: what is in a file of thumbs, what is wrong with it, the two weights. Lesson 11.

Run it with -m: started by its path, Python would take this file for its own module `inspect`.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kto_lab.command import run_command
from kto_lab.loading import load_feedback
from kto_lab.records import ColumnError
from kto_lab.report import ACCEPTABLE, FIELDS, FeedbackError, columns_advice


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


def add_reading_options(found: argparse.ArgumentParser) -> None:
    """The file, and what its fields and labels mean."""
    found.add_argument("file")
    found.add_argument("--labels", type=_labels, help="what labels mean, e.g. up=true,down=false or 1=true,0=false")
    found.add_argument("--columns", type=_pairs, help=f"other names of {', '.join(FIELDS)}, e.g. label=thumb")
    found.add_argument("--accept", nargs="+", default=(), choices=ACCEPTABLE, help="kinds that are no fault here")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python course.py inspect",
        description="Checks every row of a file of thumbs (.jsonl, .csv, .parquet; texts, chats or pairs) and changes "
        "nothing. Exit status: 0 all rows are good, 1 some are not or there is none, 2 the file cannot be read.",
    )
    add_reading_options(found)
    found.add_argument("--max-length", type=int, help="find replies cut to nothing at so many tokens")
    found.add_argument("--tokenizer", help="folder of your model's tokenizer; default: the course's")
    return found


def _tokenizer(folder: str | None):
    if folder is None:
        from kto_utils.tokenizer import load_tokenizer

        return load_tokenizer()
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def weights_text(up: int, down: int) -> str:
    """The recommended weights for so many good thumbs, or why there are none."""
    if not up + down:
        return "No weights: no row is good."
    if not (up and down):
        return f"No weights: all {up + down:,} good thumbs are {'up' if up else 'down'}, and KTO needs both kinds."
    from kto_utils.losses import BAND_V1, balanced_weights  # loads torch, so not before it is needed

    lines = [f"{'weights for train_kto':<32} desirable_weight  undesirable_weight"]
    for ratio, meaning in zip(BAND_V1, ("both sides weigh the same", "thumbs up weigh 4/3"), strict=True):
        for_up, for_down = balanced_weights(up, down, ratio)
        lines.append(f"{meaning:<32} {for_up:>16.4f} {for_down:>19.4f}")
    return "\n".join(lines)


def why_unreadable(path: str, error: Exception, columns: Mapping[str, str] | None) -> str:
    """One line."""
    if Path(path).is_dir():
        return f"{path} is a folder; name a file in it"
    if isinstance(error, ColumnError):
        return f"{error.found}. {columns_advice(error.names, columns or {}, terminal=True)}"
    return str(error)


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
        print(why_unreadable(options.file, error, options.columns), file=sys.stderr)
        return 2
    print(report.text(terminal=True))
    if report.rows:
        print("\n" + weights_text(report.desirable, report.undesirable))
    return int(bool(report.rejected) or not report.rows)


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
