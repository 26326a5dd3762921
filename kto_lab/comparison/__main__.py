"""`python course.py experiments`: makes the runs of the comparison and the exploratory ones that are missing."""

import argparse
import sys
from collections.abc import Sequence

from kto_lab.command import run_command
from kto_lab.comparison.exploratory import EXPERIMENTS, experiment, jobs
from kto_lab.comparison.results import Results, Store, recheck, run_all


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="course.py experiments",
        description="Make the missing runs of lessons 07b to 09b: the comparison, then the exploratory ones.",
    )
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help="of the exploratory ones; default: the core "
                        f"table, then all of {', '.join(EXPERIMENTS)}")  # fmt: skip
    parser.add_argument("--recheck", type=int, nargs="?", const=1, metavar="N", help="after a change of code that "
                        "should change no number: make N runs of each method again and compare")  # fmt: skip
    chosen = parser.parse_args(arguments)
    try:
        if chosen.recheck:
            recheck(n=chosen.recheck)
            return
        for name in chosen.names:
            experiment(name)
        if not chosen.names:
            run_all()
        store = Store()
        for name in chosen.names or EXPERIMENTS:
            store.make([job for wanted in jobs(Results(store, {}), name).values() for job in wanted], name)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(run_command(main))
