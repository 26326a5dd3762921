"""KTO and DPO on the same feedback: conditions x methods x seeds, kept in one results file. Lesson 08.

`python course.py experiments` computes the file again (about 15 minutes on 2 cores); finished cells of the table
are kept when it is stopped. A cell is one trained model, scored exactly.
"""

import json
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from kto_utils import __version__
from kto_utils.data import pair_up
from kto_utils.evaluate import collect_feedback, exact_kl, report, sampled_kl
from kto_utils.losses import balanced_weights
from kto_utils.model import load_reference_model, reference_of
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import train_dpo, train_kto
from kto_utils.world import judge, trained_questions

RESULTS_FILE = Path(__file__).parent / "assets" / "experiment_results.json"

SEEDS = (0, 1, 2)
VALIDATION_SEED = 100  # feedback used only to choose the settings below
REPLIES_PER_QUESTION = 50
STEPS = 200
COMPLETIONS_PER_STEP = 16  # with gradient: 16 thumbs for KTO, 8 pairs for DPO

# Both methods search the same number of settings.
GRID = {
    "kto": [(rate, beta) for rate in (1e-4, 3e-4, 1e-3, 3e-3) for beta in (0.1, 0.5, 2.0)],
    "dpo": [(rate, beta) for rate in (3e-5, 5e-5, 1e-4, 3e-4) for beta in (0.1, 0.5, 2.0)],
}


def as_collected(rows: Sequence[dict], rng: random.Random) -> list[dict]:
    """All thumbs, as the users gave them."""
    return list(rows)


def unpaired(rows: Sequence[dict], rng: random.Random) -> list[dict]:
    """A quarter of the questions keep all thumbs; of the others, half keep only ups and half only downs.

    DPO finds a pair on that quarter alone.
    """
    prompts = sorted({row["prompt"] for row in rows})
    rng.shuffle(prompts)
    quarter = len(prompts) // 4
    only = {p: (i - quarter) % 2 == 0 for i, p in enumerate(prompts) if i >= quarter}
    return [row for row in rows if row["prompt"] not in only or only[row["prompt"]] == row["label"]]


def imbalanced(rows: Sequence[dict], rng: random.Random) -> list[dict]:
    """One thumbs-up in ten is kept, and all thumbs-down."""
    ups = [i for i, row in enumerate(rows) if row["label"]]
    kept = set(rng.sample(ups, max(1, round(len(ups) / 10))))
    return [row for i, row in enumerate(rows) if not row["label"] or i in kept]


def noisy(rows: Sequence[dict], rng: random.Random) -> list[dict]:
    """Every thumb is flipped with a chance of 20%."""
    by_prompt = {question.prompt: question for question in trained_questions()}
    return [
        row | {"label": judge(by_prompt[row["prompt"]], row["completion"], noise=0.2, rng=rng)} for row in rows
    ]


CONDITIONS: dict[str, Callable] = {
    "as collected": as_collected,
    "unpaired": unpaired,
    "imbalanced": imbalanced,
    "noisy": noisy,
}


def feedback(condition: str, seed: int) -> list[dict]:
    """The rows of a condition: replies drawn from the reference, judged, then thinned out or flipped.

    Raises:
        ValueError: a condition that does not exist.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"condition is {condition!r}; it must be one of {sorted(CONDITIONS)}")
    rows = collect_feedback(load_reference_model(), trained_questions(), REPLIES_PER_QUESTION, seed)
    return CONDITIONS[condition](rows, random.Random(seed))


def run_cell(condition: str, method: str, seed: int, learning_rate: float, beta: float) -> dict:
    """Trains one model and scores it exactly.

    Args:
        condition: a key of `CONDITIONS`.
        method: "kto" or "dpo".
        seed: draws the feedback, its order, and the pairs.
        learning_rate, beta: of the method.

    Returns:
        A flat dict: the arguments, `rows` (feedback given), `used` (completions the method could use), the rates
        of `evaluate.report` under names such as "trained thumbs_up", `kl_bound`, `kl_sampled`, `kl_error` (nats).

    Raises:
        ValueError: an unknown condition or method.
    """
    if method not in GRID:
        raise ValueError(f"method is {method!r}; it must be one of {sorted(GRID)}")
    rows, tokenizer = feedback(condition, seed), load_tokenizer()
    policy = load_reference_model()
    reference = reference_of(policy)
    budget = {"steps": STEPS, "learning_rate": learning_rate, "beta": beta, "seed": seed}
    if method == "kto":
        used, n_up = len(rows), sum(row["label"] for row in rows)
        up, down = balanced_weights(n_up, len(rows) - n_up)
        train_kto(
            policy, reference, rows, tokenizer, batch_size=COMPLETIONS_PER_STEP,
            desirable_weight=up, undesirable_weight=down, **budget,
        )  # fmt: skip
    else:
        pairs, _ = pair_up(rows, seed)
        used = 2 * len(pairs)
        train_dpo(policy, reference, pairs, tokenizer, batch_size=COMPLETIONS_PER_STEP // 2, **budget)
    cell = {
        "condition": condition, "method": method, "seed": seed, "learning_rate": learning_rate, "beta": beta,
        "rows": len(rows), "used": used,
    }  # fmt: skip
    for line in report(policy):
        cell |= {f"{line['questions']} {name}": number for name, number in line.items() if name != "questions"}
    cell["kl_bound"] = exact_kl(policy, reference)
    cell["kl_sampled"], cell["kl_error"] = sampled_kl(policy, reference)
    return cell


def _write(file: Path, results: dict) -> None:
    temporary = file.with_name(file.name + ".part")
    temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, file)


def _run_missing(jobs: list[tuple], results: dict, part: str, file: Path) -> list[dict]:
    """Runs the jobs that the results file does not hold yet, one process per core, one thread each."""
    fields = ("condition", "method", "seed", "learning_rate", "beta")
    done = {tuple(cell[field] for field in fields) for cell in results[part]}
    missing = [job for job in jobs if job not in done]
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the workers, which start fresh
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        futures = [pool.submit(run_cell, *job) for job in missing]
        for future in tqdm(as_completed(futures), total=len(futures), desc=part, unit="run"):
            results[part].append(future.result())
            _write(file, results)
    order = {job: number for number, job in enumerate(jobs)}
    results[part].sort(key=lambda cell: order[tuple(cell[field] for field in fields)])
    _write(file, results)
    return results[part]


def best_settings(search: Sequence[dict]) -> dict[str, tuple[float, float]]:
    """The (learning_rate, beta) of each method with the highest thumbs-up rate on the trained questions.

    The held-out sets take no part in the choice, so they can be reported afterwards.
    """
    chosen = {}
    for method in GRID:
        cells = [cell for cell in search if cell["method"] == method]
        best = max(cells, key=lambda cell: cell["trained thumbs_up"])
        chosen[method] = (best["learning_rate"], best["beta"])
    return chosen


def run_all(file: Path = RESULTS_FILE) -> None:
    """Searches the settings on validation feedback, freezes them, runs the whole table, writes the file.

    An unfinished file of the same code version is continued; any other is started anew beside it.
    """
    partial = file.with_name(file.stem + "_unfinished.json")
    results = {"version": __version__, "command": "python course.py experiments", "search": [], "cells": []}
    if partial.exists():
        stored = json.loads(partial.read_text(encoding="utf-8"))
        results = stored if stored["version"] == __version__ else results
    jobs = [
        ("as collected", method, VALIDATION_SEED, rate, beta) for method, grid in GRID.items() for rate, beta in grid
    ]
    chosen = best_settings(_run_missing(jobs, results, "search", partial))
    jobs = [(c, method, seed, *chosen[method]) for c in CONDITIONS for method in GRID for seed in SEEDS]
    _run_missing(jobs, results, "cells", partial)
    os.replace(partial, file)
    print(f"wrote {file.name}: {len(results['search'])} runs of the search, {len(results['cells'])} of the table")


def load_results(file: Path = RESULTS_FILE) -> dict:
    """The committed results: `version`, `command`, `search` and `cells` (one dict for each trained model).

    Raises:
        FileNotFoundError: there is no such file; the message says how to compute it.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file.name} is missing; `python course.py experiments` computes it")
    return json.loads(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_all()
