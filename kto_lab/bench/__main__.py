"""`python course.py bench`: measures, prints, draws and stores."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kto_lab.bench.figures import draw_figures
from kto_lab.bench.report import table
from kto_lab.bench.results import RESULTS_FILE, available_cores, load_results, run_all, write_results
from kto_lab.bench.workloads import TIMED, WORKLOADS
from kto_lab.command import run_command

PUBLISHED_FIGURES = Path(__file__).parents[2] / "figures"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="course.py bench", description="What a KTO step costs on this machine.")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)}; default: all")
    parser.add_argument("--steps", type=int, default=TIMED, help=f"timed steps (default {TIMED})")
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: all cores")
    parser.add_argument("--show", action="store_true", help="print the stored results instead of measuring")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.workloads) - set(WORKLOADS):
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    if chosen.steps < 1 or chosen.threads < 1:
        parser.error("--steps and --threads must be at least 1")
    if chosen.show:
        print(table(load_results()))
        return
    results = run_all(chosen.workloads or list(WORKLOADS), chosen.steps, chosen.threads)
    print("\n" + table(results))
    if chosen.workloads or chosen.steps != TIMED:
        print("\nnot stored: only a run of all workloads with the default number of steps is")
        return
    write_results(results)
    os.environ["KTO_FIGURES"] = str(PUBLISHED_FIGURES)
    for path in draw_figures(results):
        print(f"wrote {path.name}")
    print(f"wrote {RESULTS_FILE.name}")


if __name__ == "__main__":
    sys.exit(run_command(main))
