"""Trains the small world under every mutant, measures and draws what a log would show. Lesson 10.

`python course.py museum` writes the results file again (about ten minutes on 2 cores).
"""

import functools
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from tqdm import tqdm

from kto_utils import model
from kto_utils.data import pair_up, unpair
from kto_utils.evaluate import collect_feedback, completion_logps, exact_kl, rates, sample
from kto_utils.losses import balanced_weights
from kto_utils.mutants import MUTANTS, Edit, Mutant, applied, diff
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import Batches, train_kto
from kto_utils.world import trained_questions

RESULTS_FILE = Path(__file__).parent / "assets" / "museum_results.json"

SEEDS = (0, 1, 2)
STEPS = 150
BATCH_SIZE = 15  # odd, so that a reversed batch has a middle row
BETA = 0.1
REPLIES_PER_QUESTION = 50
ASKED = (0, 14, 20)  # of the trained questions: a colour, a capital, a sound
COLUMNS = ("loss", "kl", "reward_desirable", "reward_undesirable", "saturated", "grad_norm")
SHOWN_STEPS = (1, 2, 20, 60, 150)

# What an exhibit is compared with: the same rows, the same seed, the code as it is.
CORRECT = {
    rows: Mutant(f"correct_{rows}", f"No fault, trained on {rows}.", (), (), rows=rows) for rows in ("thumbs", "pairs")
}
# A change that is no fault: how far it moves a result is how far chance alone does.
CONTROL = Mutant(
    "control",
    "No fault: every prompt gets the completion of the row after it instead of the row before.",
    (Edit("collator.mismatched", "examples[i - 1]", "examples[(i + 1) % len(examples)]"),),
    (),
)
WITHOUT_FAULT = {mutant.name: mutant for mutant in (*CORRECT.values(), CONTROL)}


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
        steps: of training.

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
            policy, reference, rows, load_tokenizer(), steps=steps, batch_size=BATCH_SIZE, beta=BETA,
            desirable_weight=up, undesirable_weight=down, seed=seed,
            precompute_reference=False,  # exact zeros are signs here: score both models in the same batches
        )  # fmt: skip
    liked = [row for row in rows if row["label"]]
    logps = completion_logps(
        model.load_reference_model(), [row["prompt"] for row in liked], [row["completion"] for row in liked]
    )
    record = {
        "name": mutant.name, "seed": seed, "n_up": n_up, "n_down": len(rows) - n_up,
        "half_mean_weight": _short(statistics.mean(up if label else down for label in first) / 2),
        "reward_ceiling": _short(-BETA * float(logps.min())),
    }  # fmt: skip
    return policy, record | {column: [_short(row[column]) for row in history] for column in COLUMNS}


def run(mutant: Mutant, seed: int = 0) -> dict:
    """`train`, and then the policy scored by the code as it is.

    Returns:
        The record of `train` with thumbs_up and listed (exact, trained questions), kl_bound (nats) and replies (one
        sampled reply to each of three questions).
    """
    policy, record = train(mutant, seed)
    score, questions = rates(policy), trained_questions()
    return record | {
        "thumbs_up": _short(score["thumbs_up"]),
        "listed": _short(score["listed"]),
        "kl_bound": _short(exact_kl(policy, model.load_reference_model())),
        "replies": [sample(policy, questions[i], 1, seed)[0] for i in ASKED],
    }


def _tail(result: Mapping, column: str) -> list[float]:
    """The last ten numbers of a curve, without gaps."""
    return [number for number in result[column][-10:] if number is not None]


def symptoms(result: Mapping, healthy: Mapping) -> dict[str, bool]:
    """Which signs of trouble a run shows; every one can be read from a log, or from the model's replies.

    Args:
        result: from `run`.
        healthy: the run of the correct code on the same rows, for the signs that need a comparison.

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
        "kl 0 at all but three steps or fewer": sum(k > 0 for k in kl) <= 3,
        "all rewards exactly 0": max(seen) == 0,
        "rewards move, but never beyond 0.2": 0 < max(seen) <= 0.2,
        "a reward above its ceiling": max(number for number in ups if number is not None) > result["reward_ceiling"],
        "both rewards end below -0.2": bool(tail_up and tail_down) and max(
            statistics.mean(tail_up), statistics.mean(tail_down)) < -0.2,
        "most batches hold one kind of thumb": ups.count(None) + downs.count(None) > len(ups) / 2,
        "all rows saturated at the end": min(_tail(result, "saturated")) == 1.0,
        "gradient norm below 0.01 at the end": statistics.median(_tail(result, "grad_norm")) < 0.01,
        "first gradient under a third of the healthy one": result["grad_norm"][0] < healthy["grad_norm"][0] / 3,
        "first gradient over twice the healthy one": result["grad_norm"][0] > healthy["grad_norm"][0] * 2,
        "replies broken": result["listed"] < 0.2,
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


def healthy_twin(run: Mapping) -> dict:
    """The run of the correct code on the same rows and seed."""
    rows = MUTANTS[run["name"]].rows if run["name"] in MUTANTS else "thumbs"
    return load_results()[CORRECT[rows].name, run["seed"]]


def figure(number: int):
    """Loss, kl, both rewards and gradient norm of an exhibit; the healthy run behind them in grey."""
    run = of_number(number)
    healthy = healthy_twin(run)
    fig, axes = plt.subplots(1, 4, figsize=(12.5, 2.9), layout="constrained")
    panels = {
        "loss": [("loss", ACCENT, "-")],
        "kl (nats)": [("kl", ACCENT, "-")],
        "reward: up solid, down dashed": [("reward_desirable", UP, "-"), ("reward_undesirable", DOWN, "--")],
        "gradient norm": [("grad_norm", ACCENT, "-")],
    }
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for column, colour, line in curves:
            for record, style in (
                (healthy, {"color": NEUTRAL, "alpha": 0.45, "linewidth": 1.2}),
                (run, {"color": colour, "linestyle": line, "linewidth": 1.6}),
            ):
                points = [(step, y) for step, y in enumerate(record[column], start=1) if y is not None]
                ax.plot([x for x, _ in points], [y for _, y in points], **style)
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("step")
    axes[3].set_yscale("symlog", linthresh=1e-2)
    what = "The healthy run" if number == 0 else f"Exhibit {number} (grey: the healthy run)"
    fig.suptitle(what, fontsize=12)
    return fig


def alt_text(number: int) -> str:
    """What `figure` shows, in words and numbers."""
    run = of_number(number)

    def from_to(column: str) -> str:
        known = [y for y in run[column] if y is not None]
        return f"from {known[0]:.3g} to {known[-1]:.3g}, between {min(known):.3g} and {max(known):.3g}"

    return (
        f"Four panels over {len(run['loss'])} steps of exhibit {number}. Loss {from_to('loss')}; "
        f"kl {from_to('kl')} nats; "
        f"reward of thumbs up {from_to('reward_desirable')}; reward of thumbs down {from_to('reward_undesirable')}; "
        f"gradient norm {from_to('grad_norm')}."
    )


def log(number: int) -> str:
    """Five lines of an exhibit's log, its exact score, and three sampled replies."""
    run = of_number(number)

    def cell(value: float | None) -> str:
        if value is None:
            return f"{'nan':>11}"
        return f"{value:11.4f}" if value == 0 or abs(value) >= 1e-4 else f"{value:11.0e}"

    heads = ("loss", "kl", "reward up", "reward down", "grad norm")
    columns = ("loss", "kl", "reward_desirable", "reward_undesirable", "grad_norm")
    lines = ["step" + "".join(f"{head:>13}" for head in heads)]
    lines += [f"{step:4d}" + "".join(f"  {cell(run[c][step - 1])}" for c in columns) for step in SHOWN_STEPS]
    draws = [of_number(number, seed) for seed in SEEDS]
    scores = " ".join(f"{draw['thumbs_up']:.3f}" for draw in draws)
    healthy = " ".join(f"{healthy_twin(draw)['thumbs_up']:.3f}" for draw in draws)
    lines.append(f"\nthumbs-up rate on three draws: {scores}   (healthy: {healthy})")
    lines.append(f"here, the first draw: probability on listed replies {run['listed']:.3f}")
    lines.append(f"trained on {run['n_up']} thumbs up, {run['n_down']} down; replies afterwards:")
    questions = trained_questions()
    lines += [f"  {questions[i].text} ->{reply[:70]!r}" for i, reply in zip(ASKED, run["replies"], strict=True)]
    return "\n".join(lines)


def fault(number: int) -> str:
    """The fault behind an exhibit as Markdown that a reader opens by a click."""
    run = of_number(number)
    if number == 0:
        raise ValueError("exhibit 0 is the healthy run; there is no fault to open")
    mutant = MUTANTS[run["name"]]
    return (
        f"<details><summary>Open the fault of exhibit {number}</summary>\n\n{mutant.fault}\n\n"
        f"```diff\n{diff(mutant)}\n```\n</details>"
    )


def triage() -> dict[str, dict[int, int]]:
    """Which exhibits show which sign: sign -> {exhibit number: in how many of the stored draws}.

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
    text = {"command": "python course.py museum", "steps": STEPS, "batch_size": BATCH_SIZE, "runs": results}
    temporary = file.with_name(file.name + ".part")
    temporary.write_text(json.dumps(text, separators=(",", ":")) + "\n", encoding="utf-8")
    os.replace(temporary, file)
    print(f"wrote {file.name}: {len(results)} runs")


@functools.cache
def load_results(file: Path = RESULTS_FILE) -> dict[tuple[str, int], dict]:
    """The committed runs, by (name, seed).

    Raises:
        FileNotFoundError: there is no such file; the message says how to compute it.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file.name} is missing; `python course.py museum` computes it")
    runs: Sequence[dict] = json.loads(file.read_text(encoding="utf-8"))["runs"]
    return {(run["name"], run["seed"]): run for run in runs}


if __name__ == "__main__":
    run_all()
