"""`python course.py real`: a chat model, questions, a judge's thumbs, KTO beside SFT, and a report. Lesson 12."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from kto_lab.real import clicks, protocol, report, results
from kto_lab.real.chat_model import FOLDER, NAME, fetch, is_here
from kto_lab.real.questions import capitals
from kto_lab.real.story import Story

# How long each stage takes, as a multiple of the first; only for the remaining time.
WORK = {"before": 1.0, "replies": 0.6, "sft": 2.8, "kto": 4.5, "dpo": 3.5, "kto_sft": 4.5, "kto_brief": 4.5}


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


def report_on(story: Story, method: str) -> None:
    """Prints the report and writes it as pages beside the run."""
    _, held_out = capitals()
    questions = [asked.question for asked in held_out]
    before = story.before()
    for name in ("sft", method):
        title = f"{protocol.METHODS[name].title}, seed {story.seed}"
        after = story.after(name)
        path = story.folder / f"report_{name}.html"
        path.write_text(report.page(title, questions, before, after), encoding="utf-8")
        print("\n" + report.text(title, questions, before, after) + f"\n\nAs a page: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    torch.set_num_threads(os.cpu_count() or 1)
    sys.stdout.reconfigure(errors="backslashreplace")  # a narrow terminal shall not end a run of half an hour
    try:
        own = clicks.read(options.thumbs) if options.thumbs else None
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
        story = Story(options.folder or FOLDER / "run", options.seed, options.model, thumbs=own)
        if own is not None and options.folder is None:
            story.folder = FOLDER / f"thumbs_{story.key['thumbs'][:8]}"  # other clicks, another run
        tell_story(story, dict.fromkeys(("sft", options.method)), options.save)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"\n{options.model or NAME}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on with what is finished.", file=sys.stderr)
        return 130
    report_on(story, options.method)
    return 0


if __name__ == "__main__":
    sys.exit(main())
