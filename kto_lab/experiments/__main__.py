"""`python course.py experiments`: computes the results again, all of them or those of the experiments named."""

import argparse
from collections.abc import Sequence

from kto_lab.experiments.protocol import EXPERIMENTS
from kto_lab.experiments.results import run_all


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="course.py experiments", description="Compute the results of the experiments again."
    )
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help=f"default: all of {', '.join(EXPERIMENTS)}")
    try:
        run_all(parser.parse_args(arguments).names)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
