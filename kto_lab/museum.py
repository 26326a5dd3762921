"""Trains the small world under every mutant, measures and prints what a log would show. Lesson 10.

`python course.py museum` writes the results file again (about ten minutes on 2 cores).
"""

import functools
import json
import math
import os
import statistics
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from kto_lab import RESULTS
from kto_lab.mutants import MUTANTS, Edit, Mutant, applied, diff
from kto_lab.plain import to_json, write_whole
from kto_utils import model
from kto_utils.data import pair_up, unpair
from kto_utils.evaluate import collect_feedback, completion_logps, exact_kl, rates, sample
from kto_utils.losses import balanced_weights
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import Batches, train_kto
from kto_utils.world import trained_questions

RESULTS_FILE = RESULTS / "museum_results.json"

SEEDS = (0, 1, 2)
STEPS = 200
BATCH_SIZE = 15  # odd, so that a reversed batch has a middle row
BETA = 0.1
REPLIES_PER_QUESTION = 50
ASKED = (0, 14, 20)  # of the trained questions: a colour, a capital, a sound
COLUMNS = ("loss", "kl", "reward_desirable", "reward_undesirable", "saturated", "grad_norm")
SHOWN_STEPS = (1, 2, 20, 60, 200)

# What an exhibit is compared with: the same rows, the same seed, the code as it is.
CORRECT = {
    rows: Mutant(f"correct_{rows}", f"No fault, trained on {rows}.", (), (), rows=rows) for rows in ("thumbs", "pairs")
}
# Changes that are no fault: how far they move a result is how far chance alone does.
CONTROLS = tuple(
    Mutant(
        f"control_{k}",
        f"No fault: every prompt gets the completion of the row {k} places before it instead of 1.",
        (Edit("collator.mismatched", "examples[i - 1]", f"examples[i - {k}]"),),
        (),
    )
    for k in (2, 3, 14)
)
WITHOUT_FAULT = {mutant.name: mutant for mutant in (*CORRECT.values(), *CONTROLS)}


def _short(number: float) -> float | None:
    """Five significant digits are enough for a curve; JSON has no NaN."""
    return None if math.isnan(number) else float(f"{number:.5g}")


@functools.cache
def _feedback(seed: int) -> tuple[dict, ...]:
    """The thumbs that users gave to the shipped model's replies; the same for every mutant."""
    return tuple(collect_feedback(model.load_reference_model(), trained_questions(), REPLIES_PER_QUESTION, seed))


def train(mutant: Mutant, seed: int = 0, steps: int = STEPS) -> tuple[torch.nn.Module, dict]:
    """Trains the shipped model with this fault in the code.

    The learning rate is the default of `train_kto`, the weights are `balanced_weights` of the counts.

    Args:
        mutant: from `mutants.MUTANTS` or `WITHOUT_FAULT`, or one of your own.
        seed: draws the feedback and its order.
        steps: of training; the learning rate falls to 0 over them.

    Returns:
        (policy, record). The record has name, seed, n_up, n_down; `half_mean_weight`, what a correct program prints
        as its first loss; `reward_ceiling`, beta * the largest -log pi_ref(y|x) of a liked row, which no honest
        reward can exceed; and the curves `COLUMNS`, one number a step, None for NaN.
    """
    rows = list(_feedback(seed))
    if mutant.rows == "pairs":
        pairs, _ = pair_up(rows, seed)
    with applied(mutant):
        if mutant.rows == "pairs":
            rows = unpair(pairs, seed)
        policy = model.load_reference_model()
        reference = model.reference_of(policy)
        n_up = sum(row["label"] for row in rows)
        up, down = balanced_weights(n_up, len(rows) - n_up)
        first = [rows[i]["label"] for i in Batches(len(rows), BATCH_SIZE, seed).draw()]
        policy, history = train_kto(
            policy, reference, rows, load_tokenizer(), steps=steps, batch_size=BATCH_SIZE, beta=BETA, schedule="linear",
            desirable_weight=up, undesirable_weight=down, seed=seed,
        )  # fmt: skip
    up, down = balanced_weights(n_up, len(rows) - n_up)  # as it is, whatever the fault made of it
    liked = [row for row in rows if row["label"]]
    logps = completion_logps(
        model.load_reference_model(), [row["prompt"] for row in liked], [row["completion"] for row in liked]
    )
    numbers = {
        "name": mutant.name, "seed": seed, "n_up": n_up, "n_down": len(rows) - n_up,
        "half_mean_weight": _short(statistics.mean(up if label else down for label in first) / 2),
        "reward_ceiling": _short(-BETA * float(logps.min())),
    }  # fmt: skip
    return policy, numbers | {column: [_short(row[column]) for row in history] for column in COLUMNS}


def run(mutant: Mutant, seed: int = 0) -> dict:
    """`train`, and then the policy scored by the code as it is.

    Returns:
        The record of `train` with thumbs_up and listed (exact, trained questions), kl_bound (nats) and replies (one
        sampled reply to each of three questions).
    """
    policy, numbers = train(mutant, seed)
    return numbers | _score(policy, seed) | {"kl_bound": _short(exact_kl(policy, model.load_reference_model()))}


def _score(policy: torch.nn.Module, seed: int) -> dict:
    score, questions = rates(policy), trained_questions()
    return {
        "thumbs_up": _short(score["thumbs_up"]),
        "listed": _short(score["listed"]),
        "replies": [sample(policy, questions[i], 1, seed)[0] for i in ASKED],
    }


def _tail(result: Mapping, column: str) -> list[float]:
    """The last ten numbers of a curve; a step without a number does not count."""
    return [number for number in result[column] if number is not None][-10:]


def symptoms(result: Mapping, healthy: Mapping) -> dict[str, bool]:
    """Which signs of trouble a run shows.

    Most can be read from its log alone; two need the gradient of the correct code on the same batch, one a score that
    no log holds. The limits were chosen by looking at runs of this world.

    Args:
        result: from `run`.
        healthy: the run of the correct code on the same rows.

    Returns:
        One bool for each sign.
    """
    ups, downs, kl = result["reward_desirable"], result["reward_undesirable"], result["kl"]
    seen = [abs(number) for curve in (ups, downs) for number in curve if number is not None]
    tail_up, tail_down = _tail(result, "reward_desirable"), _tail(result, "reward_undesirable")
    return {
        "first loss is not half the mean weight": abs(result["loss"][0] - result["half_mean_weight"]) > 1e-4,
        "first loss 0.5 although counts are uneven": result["loss"][0] == 0.5
        and max(result["n_up"], result["n_down"]) > 4 / 3 * min(result["n_up"], result["n_down"]),
        "kl above 0 at step 1": kl[0] > 0,
        "kl below 0": min(kl) < 0,
        "kl above 0 at nine steps in ten": sum(k > 0 for k in kl[1:]) >= 0.9 * len(kl[1:]),
        "kl 0 at all but three steps or fewer": sum(k != 0 for k in kl) <= 3,
        "all rewards exactly 0": max(seen) == 0,
        "neither reward ever goes beyond 0.2": 0 < max(seen) <= 0.2,
        "reward of thumbs up above its ceiling": max(y for y in ups if y is not None) > result["reward_ceiling"],
        "both rewards end below -0.2": max(statistics.mean(tail_up), statistics.mean(tail_down)) < -0.2,
        "most batches hold one kind of thumb": ups.count(None) + downs.count(None) > len(ups) / 2,
        "all rows saturated at the end": min(_tail(result, "saturated")) == 1.0,
        "gradient norm below 0.01 at the end": statistics.median(_tail(result, "grad_norm")) < 0.01,
        "gradient norm exactly 0 at step 1": result["grad_norm"][0] == 0,
        "first gradient under a third of the healthy one": result["grad_norm"][0] < healthy["grad_norm"][0] / 3,
        "first gradient 1.9 times the healthy one or more": result["grad_norm"][0] > healthy["grad_norm"][0] * 1.9,
        "replies off the list": result["listed"] < 0.2,
        "thumbs-up rate 0.1 or more below the healthy one": result["thumbs_up"] < healthy["thumbs_up"] - 0.1,
    }  # fmt: skip


def of_number(number: int, seed: int = 0) -> dict:
    """The stored run of an exhibit: 1 is the first of `MUTANTS`, 0 the healthy run.

    Raises:
        ValueError: there is no such exhibit.
    """
    names = [CORRECT["thumbs"].name, *MUTANTS]
    if not 0 <= number < len(names):
        raise ValueError(f"there is no exhibit {number}; they are numbered 0 (healthy) to {len(names) - 1}")
    return load_results()[names[number], seed]


def mutant(number: int) -> Mutant | None:
    """The fault of an exhibit, for `mutants.applied`; None for 0, the healthy run."""
    return MUTANTS.get(of_number(number)["name"])


def healthy_twin(run: Mapping) -> dict:
    """The run of the correct code on the same rows and seed."""
    rows = MUTANTS[run["name"]].rows if run["name"] in MUTANTS else "thumbs"
    return load_results()[CORRECT[rows].name, run["seed"]]


def record(exhibit: int | Mapping) -> Mapping:
    """The run that is meant: of this number, or the record itself."""
    return of_number(exhibit) if isinstance(exhibit, int) else exhibit


def log(exhibit: int | Mapping) -> str:
    """Some lines of an exhibit's log, and the replies to three questions if the run was scored.

    Args:
        exhibit: a number, or a record from `train` or `run`.
    """
    run = record(exhibit)

    def cell(value: float | None) -> str:
        if value is None:
            return f"{'nan':>13}"
        return f"{value:13.4f}" if value == 0 or abs(value) >= 1e-4 else f"{value:13.0e}"

    heads = ("loss", "kl", "reward up", "reward down", "grad norm", "saturated")
    columns = ("loss", "kl", "reward_desirable", "reward_undesirable", "grad_norm", "saturated")
    lines = ["step" + "".join(f"{head:>13}" for head in heads)]
    shown = [step for step in SHOWN_STEPS if step <= len(run["loss"])]
    lines += [f"{step:4d}" + "".join(cell(run[column][step - 1]) for column in columns) for step in shown]
    if "replies" in run:
        questions = trained_questions()
        lines.append("")
        lines += [f"{questions[i].text} ->{reply[:75]!r}" for i, reply in zip(ASKED, run["replies"], strict=True)]
    return "\n".join(lines)


def change(number: int) -> str:
    """The changed words of an exhibit as Markdown, in the open.

    Raises:
        ValueError: exhibit 0, the healthy run, has none.
    """
    found = mutant(number)
    if found is None:
        raise ValueError("exhibit 0 is the healthy run; there is no fault to open")
    return f"{found.fault}\n\n```diff\n{diff(found)}\n```"


def ending(number: int) -> str:
    """How an exhibit ended: the exact thumbs-up rates of all seeds, beside those of the healthy run."""
    runs = [of_number(number, seed) for seed in SEEDS]
    scores = ", ".join(f"{run['thumbs_up']:.3f}" for run in runs)
    healthy = ", ".join(f"{healthy_twin(run)['thumbs_up']:.3f}" for run in runs)
    return (
        f"thumbs-up rate of three seeds: {scores} (healthy: {healthy}; before training: "
        f"{before_training()['thumbs_up']:.3f})"
    )


def fault(number: int) -> str:
    """The fault behind an exhibit, and how it ended, as Markdown that a reader opens by a click."""
    return (
        f"<details><summary>Open the fault of exhibit {number}</summary>\n\n{change(number)}\n\n"
        f"How it ended: {ending(number)}.\n</details>"
    )


def triage() -> dict[str, dict[int, int]]:
    """Which exhibits show which sign: sign -> {exhibit number: with how many of the stored seeds}.

    Measured by `symptoms` on the stored runs; exhibits that never show a sign are left out of its row.
    """
    table: dict[str, dict[int, int]] = {}
    for number in range(1, len(MUTANTS) + 1):
        for seed in SEEDS:
            run = of_number(number, seed)
            for sign, shown in symptoms(run, healthy_twin(run)).items():
                row = table.setdefault(sign, {})
                if shown:
                    row[number] = row.get(number, 0) + 1
    return table


def _job(job: tuple[str, int]) -> dict:
    name, seed = job
    return run((MUTANTS | WITHOUT_FAULT)[name], seed)


def run_all(file: Path = RESULTS_FILE) -> None:
    """Runs every mutant and the correct code over `SEEDS`, one process a core, and writes the results file."""
    jobs = [(name, seed) for name in WITHOUT_FAULT | MUTANTS for seed in SEEDS]
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the workers, which start fresh
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        results = list(tqdm(pool.map(_job, jobs), total=len(jobs), unit="run"))
    text = {
        "command": "python course.py museum", "steps": STEPS, "batch_size": BATCH_SIZE,
        "before": _score(model.load_reference_model(), seed=0), "runs": results,
    }  # fmt: skip
    write_whole(file, [to_json(text, separators=(",", ":")), "\n"])
    print(f"wrote {file.name}: {len(results)} runs")


@functools.cache
def _stored(file: Path) -> dict:
    if not file.exists():
        raise FileNotFoundError(f"{file.name} is missing; `python course.py museum` computes it")
    return json.loads(file.read_text(encoding="utf-8"))


def load_results(file: Path = RESULTS_FILE) -> dict[tuple[str, int], dict]:
    """The committed runs, by (name, seed).

    Raises:
        FileNotFoundError: there is no such file; the message says how to compute it.
    """
    return {(run["name"], run["seed"]): run for run in _stored(file)["runs"]}


def before_training() -> dict:
    """What the shipped model says before any thumb: `thumbs_up`, `listed` and `replies`, as in a run."""
    return _stored(RESULTS_FILE)["before"]


if __name__ == "__main__":
    run_all()
