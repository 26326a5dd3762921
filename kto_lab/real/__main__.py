"""`python course.py real`: a chat model, questions, a judge's thumbs, KTO beside SFT, and a report. Lesson 12."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from kto_lab.real import clicks, own, protocol, report, results
from kto_lab.real.chat_model import FOLDER, NAME, fetch, is_here
from kto_lab.real.story import Story

# How long each stage takes, as a multiple of the first; only for the remaining time.
WORK = {
    "before": 1.0,
    "elsewhere": 1.5,
    "replies": 0.6,
    "sft": 2.8,
    "kto": 4.5,
    "dpo": 3.5,
    "kto_sft": 4.5,
    "kto_brief": 4.5,
}


class Clock:
    """Says on one line what is done and about how long it takes until the end.

    Args:
        stages: names of WORK, in order; those done earlier are left out.
    """

    def __init__(self, stages: Sequence[str]):
        self.left, self.stream = list(stages), sys.stderr
        self.total = sum(WORK[stage] for stage in stages)
        self.start = time.monotonic()
        self.seen: dict[str, float] = {}

    def begin(self, stage: str) -> None:
        self.stage, self.parts = stage, {}

    def end(self) -> None:
        self.left.remove(self.stage)
        self.stream.write("\n")

    def __call__(self, what: str, done: int, total: int) -> None:
        self.parts[what] = done / total
        expected = 2 if self.stage in protocol.METHODS else 1  # a method trains, then measures
        share = min(1.0, sum(self.parts.values()) / expected)
        finished = self.total - sum(WORK[stage] for stage in self.left) + share * WORK[self.stage]
        spent = time.monotonic() - self.start
        rest = f", about {spent / finished * (self.total - finished) / 60:.0f} min left" if finished > 0.2 else ""
        self.stream.write(f"\r{what} {done}/{total}{rest}".ljust(78)[:78])
        self.stream.flush()


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python course.py real",
        description="From a rambling chat model to one that answers: asks SmolLM2-135M-Instruct for capitals, lets a "
        "judge give thumbs, trains with KTO and with SFT on the thumbs-up, and reports on countries it never saw. "
        "Fetches the model once (100 MB, 600 MB on disk); then about half an hour on two cores, 6 GB of memory. Stop "
        "it at any time: what is finished is kept.",
    )
    found.add_argument("--model", help="another chat model: a folder, or a name that transformers finds")
    found.add_argument("--folder", type=Path, help="for what is made; default a folder of its own in work/real")
    found.add_argument("--seed", type=int, default=protocol.SEEDS[0])
    found.add_argument("--method", choices=protocol.METHODS, default="kto", help="beside SFT; default kto")
    found.add_argument("--thumbs", type=Path, help="your own, from the buttons of lesson 12c, in place of the judge's")
    found.add_argument("--rows", type=Path, help="your own rows to train on (JSON lines), from `course.py split`")
    found.add_argument("--check", type=Path, help="your own rows kept apart, which the report reads")
    found.add_argument("--after", type=Path, help="with --check: only measure this model, trained by another program "
                       "from the one of --model")  # fmt: skip
    found.add_argument("--steps", type=int, help=f"of training on --rows, 8 rows each; default {own.STEPS}")
    found.add_argument("--max-length", type=int, default=own.MAX_LENGTH, help="tokens of a row of --rows and --check "
                       "that are kept; default %(default)s")  # fmt: skip
    found.add_argument("--ratings", type=Path, help="the table that a run with --check leaves, with thumbs filled in")
    found.add_argument("--save", type=Path, help="keep the trained model in this folder, to talk to")
    found.add_argument("--fetch", action="store_true", help="fetch the model and stop")
    found.add_argument("--all", action="store_true", help="all methods and seeds of the protocol, then the results "
                       "file of lessons 12 and 12c (hours)")  # fmt: skip
    return found


def tell_story(story: Story, names: Sequence[str], save_to: Path | None = None) -> dict[str, dict]:
    """All stages that are missing, with progress; returns the measures by name."""
    wanted = ("before", *(["replies"] if story.thumbs is None else []), *names)
    stages = [name for name in wanted if not (story.folder / f"{name}.json").is_file()]
    clock = Clock(stages)
    made = {}
    for name in wanted:
        story.tell = clock
        clock.begin(name)
        if name == "before":
            made[name] = story.before()
        elif name == "replies":
            story.replies()
        else:
            made[name] = story.after(name, save_to if name != "sft" else None)
        if name in stages:
            clock.end()
    return made


def report_on(story: Story, names: Sequence[str], ratings: Path | None = None) -> None:
    """Prints a report for each stage and writes it as a page beside the run; thumbs of a rater go to the last one."""
    questions, before = story.questions(), story.before()
    for name in names:
        title = f"{protocol.METHODS[name].title if name in protocol.METHODS else story.elsewhere}, seed {story.seed}"
        after, start = story.after(name), before
        if ratings is not None and name == names[-1]:
            rated = own.read_ratings(ratings, questions, before, after)
            start, after = (
                run | {"held_out": {"thumbs_up": rated[whose]} | run["held_out"]}
                for whose, run in (("before", before), ("after", after))
            )
        path = story.folder / f"report_{name}.html"
        path.write_text(report.page(title, questions, start, after), encoding="utf-8")
        print("\n" + report.text(title, questions, start, after) + f"\n\nAs a page: {path}")
    table = story.folder / f"rate_{names[-1]}.csv"
    if isinstance(story, own.OwnRows) and ratings is None:
        if not table.exists():
            own.write_to_rate(table, questions, before, after)
        print(f"For a rater who does not know which model wrote what: {table}. Write up or down into the column thumb, "
              f"then run the same command with --ratings {table}")  # fmt: skip


def refuse(options: argparse.Namespace) -> str | None:
    """What is wrong with this choice of options; None if nothing is."""
    if options.check is None:
        given = [name for name in ("rows", "after", "steps", "ratings") if getattr(options, name) is not None]
        return f"--{given[0]} needs --check, the rows kept apart; `course.py split FILE` makes both" if given else None
    if (options.rows is None) == (options.after is None):
        return "with --check give either --rows (train here) or --after (a model that was trained elsewhere)"
    if options.thumbs is not None or options.all:
        return "--thumbs and --all belong to the questions of lesson 12; leave them out beside --check"
    if options.method == "kto_brief":
        return "the method kto_brief is KTO with a judge of its own; your rows have thumbs already"
    return None


def own_rows(options: argparse.Namespace) -> own.OwnRows:
    """The run that the options ask for; without --folder in a folder of its own for these files."""
    files = [path for path in (options.rows, options.check, options.after) if path]
    if missing := [path for path in files if not path.exists()]:
        raise FileNotFoundError(f"{missing[0]} is not there")
    return own.OwnRows(
        options.folder or FOLDER / f"rows_{own.digest(*files)[:8]}", options.rows, options.check, options.seed,
        options.model, options.after, options.steps or own.STEPS, options.max_length,
    )  # fmt: skip


def judged_questions(options: argparse.Namespace) -> Story:
    """The run on the questions of lesson 12, judged by rules or by the learner's clicks."""
    thumbs = clicks.read(options.thumbs) if options.thumbs else None
    story = Story(options.folder or FOLDER / "run", options.seed, options.model, thumbs=thumbs)
    if thumbs is not None and options.folder is None:
        story.folder = FOLDER / f"thumbs_{story.key['thumbs'][:8]}"  # other clicks, another run
    return story


def main(arguments: Sequence[str] | None = None) -> int:
    found = parser()
    options = found.parse_args(arguments)
    if reason := refuse(options):
        found.error(reason)
    torch.set_num_threads(os.cpu_count() or 1)
    sys.stdout.reconfigure(errors="backslashreplace")  # a narrow terminal shall not end a run of half an hour
    try:
        if options.model is None and not is_here():
            print(f"Fetching {NAME}: about 100 MB, 600 MB on disk, once ...", flush=True)
            fetch()
        if options.fetch:
            return 0
        if options.all:
            for seed in protocol.SEEDS:
                tell_story(Story(FOLDER / "protocol" / f"seed_{seed}", seed), list(protocol.METHODS))
            results.collect(FOLDER / "protocol")
            return 0
        story = own_rows(options) if options.check else judged_questions(options)
        names = [own.ELSEWHERE] if options.after else list(dict.fromkeys(("sft", options.method)))
        tell_story(story, names, options.save)
        report_on(story, names, options.ratings)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"\n{options.model or NAME}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on with what is finished.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
