"""Online KTO against a fixed file, measured: protocol, runs, results file. Lesson 09b.

`python course.py online` computes the results again (about five minutes on one core).

Protocol, committed before the runs. The small model; 6 rounds of 10 steps of 16 rows; 5 replies to each of the 24
trained questions a round, so that both methods get 720 thumbs. The file holds replies of the model before training,
online KTO draws each round's from the policy. Both search the same grid on validation seeds, and the thumbs-up rate on
the trained questions decides. Then 20 seeds; the measure is the exact rate on new wordings. On the way some runs note
what their rows say of the KL. (Before this was written, four settings of each method and 12 of the file were looked at,
all on a validation seed and with 10 rounds; at the larger rates most of the online runs collapsed.)
"""

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from tqdm import tqdm

from kto_lab import RESULTS
from kto_lab.comparison.findings import Spread, spread
from kto_lab.comparison.scores import rounded
from kto_lab.online import from_a_file, from_the_policy, train_online_kto
from kto_lab.plain import to_json, write_whole
from kto_lab.price import sampled_kl
from kto_utils.evaluate import collect_feedback, completion_logps, rates
from kto_utils.model import load_reference_model, reference_of
from kto_utils.tokenizer import load_tokenizer
from kto_utils.world import reworded_questions, trained_questions

RESULTS_FILE = RESULTS / "online_results.json"
COMMAND = "python course.py online"

ROUNDS, STEPS_PER_ROUND, REPLIES_PER_ROUND = 6, 10, 5
METHODS = ("fixed file", "online")
HYPOTHESIS = "With as many thumbs and steps, online KTO ends higher on new wordings than KTO on a fixed file."
GRID = tuple((rate, beta) for rate in (3e-4, 1e-3, 3e-3) for beta in (0.1, 0.5, 2.0))
VALIDATION_SEEDS = (100, 101, 102)
N_CONFIRMED = 3  # settings that are tried with all validation seeds; the others with the first alone
SEEDS = tuple(range(20))
WATCHED_SEEDS, WATCHED_ROUNDS = SEEDS[:5], (2, 5)  # runs, and rounds at whose start the rows are asked for the KL


def means_of_logratios(policy, reference, rows, tokenizer) -> dict[str, float]:
    """Mean log-ratio of rows with their own replies and with the reply of the row before; nats, not clamped."""
    prompts, completions = ([row[field] for row in rows] for field in ("prompt", "completion"))

    def mean(texts: list[str]) -> float:
        policy_logps, reference_logps = (completion_logps(m, prompts, texts, tokenizer) for m in (policy, reference))
        return float((policy_logps - reference_logps).mean())

    return {"own": mean(completions), "mismatched": mean(completions[-1:] + completions[:-1])}


def train_and_score(method: str, seed: int, learning_rate: float, beta: float, watched: bool = False) -> dict:
    """Trains the small model once and scores it exactly.

    Args:
        method: of `METHODS`.
        seed: of the replies that are drawn and of the order of the rows.
        learning_rate, beta: as in `train_online_kto`.
        watched: whether the rows are asked for the KL on the way; it changes nothing in the training.

    Returns:
        The arguments; `trained`, `new_wording` (exact thumbs-up rates), `listed` (trained questions), `up` (share of
        thumbs-up in each round); watched: `notes`, for the start of each of `WATCHED_ROUNDS`, with `round`, `kl` and
        `kl_error` (from other replies of the policy, nats), `own` and `mismatched` (nats, before the clamp).
    """
    tokenizer, policy = load_tokenizer(), load_reference_model(small=True)
    reference = reference_of(policy)
    if method == "fixed file":
        rows = collect_feedback(reference, trained_questions(), ROUNDS * REPLIES_PER_ROUND, seed, tokenizer)
        source = from_a_file(rows, ROUNDS)
    else:
        source = from_the_policy(trained_questions(), REPLIES_PER_ROUND, 1000 * seed, tokenizer)
    notes = []

    def collect(number: int, policy: torch.nn.Module) -> list[dict]:
        rows = source(number, policy)
        if watched and number in WATCHED_ROUNDS and rows:
            kl, error = sampled_kl(policy, reference, trained_questions(), 8, seed, tokenizer)
            point = {"round": number, "kl": kl, "kl_error": error}
            notes.append(point | means_of_logratios(policy, reference, rows, tokenizer))
        return rows

    _, history = train_online_kto(
        policy, reference, collect, tokenizer, rounds=ROUNDS, steps_per_round=STEPS_PER_ROUND, beta=beta, seed=seed,
        learning_rate=learning_rate,
    )  # fmt: skip
    trained = rates(policy, trained_questions(), tokenizer)
    found = {
        "method": method, "seed": seed, "learning_rate": learning_rate, "beta": beta, "trained": trained["thumbs_up"],
        "new_wording": rates(policy, reworded_questions(), tokenizer)["thumbs_up"], "listed": trained["listed"],
        "up": [row["up"] for row in history[::STEPS_PER_ROUND]],
    }  # fmt: skip
    return rounded(found | ({"notes": notes} if watched else {}))


def best_few(search: Iterable[Mapping], method: str) -> list[tuple[float, float]]:
    """The settings of a method that did best with the first validation seed, best first."""
    tried = [run for run in search if (run["method"], run["seed"]) == (method, VALIDATION_SEEDS[0])]
    tried = sorted(tried, key=lambda run: -run["trained"])[:N_CONFIRMED]
    return [(run["learning_rate"], run["beta"]) for run in tried]


def best_setting(search: Iterable[Mapping], method: str) -> tuple[float, float]:
    """The (learning_rate, beta) with the highest mean rate on the trained questions over all validation seeds."""
    rates_of: dict[tuple[float, float], list[float]] = {}
    for run in search:
        if run["method"] == method:
            rates_of.setdefault((run["learning_rate"], run["beta"]), []).append(run["trained"])
    confirmed = [setting for setting, values in rates_of.items() if len(values) == len(VALIDATION_SEEDS)]
    return max(confirmed, key=lambda setting: statistics.mean(rates_of[setting]))


def run_all(file: Path = RESULTS_FILE) -> dict:
    """Searches the settings, runs the seeds, writes the results file: one run a line, renamed into place."""
    torch.set_num_threads(1)
    start, search = load_reference_model(small=True), []
    for method in METHODS:
        first = [train_and_score(method, VALIDATION_SEEDS[0], *setting) for setting in tqdm(GRID, method)]
        again = [(seed, setting) for seed in VALIDATION_SEEDS[1:] for setting in best_few(first, method)]
        search += first + [train_and_score(method, seed, *setting) for seed, setting in tqdm(again, method)]
    table = [(method, seed, *best_setting(search, method)) for method in METHODS for seed in SEEDS]
    results = {
        "command": COMMAND,
        "before": rounded({
            "trained": rates(start, trained_questions())["thumbs_up"],
            "new_wording": rates(start, reworded_questions())["thumbs_up"],
        }),
        "search": search,
        "runs": [train_and_score(*job, watched=job[1] in WATCHED_SEEDS) for job in tqdm(table, "seeds")],
    }  # fmt: skip
    lists = {key: "[\n" + ",\n".join(map(to_json, results[key])) + "\n]" for key in ("search", "runs")}
    parts = [f"{to_json(key)}: {lists.get(key) or to_json(value)}" for key, value in results.items()]
    write_whole(file, ["{\n", ",\n".join(parts), "\n}\n"])
    return results


def load_results(file: Path = RESULTS_FILE) -> dict:
    """The committed results: `command`, `before` (rates), `search` and `runs` (see `train_and_score`).

    Raises:
        FileNotFoundError: there is no such file; the message says how to compute it.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file.name} is missing; `{COMMAND}` computes it")
    return json.loads(file.read_text(encoding="utf-8"))


def by_seed(results: Mapping, method: str, measure: str = "new_wording") -> list[float]:
    """One measure of a method's runs, in the order of the seeds."""
    return [run[measure] for run in results["runs"] if run["method"] == method]


def lead_of_online(results: Mapping) -> Spread:
    """The rate on new wordings, online minus fixed file, paired by seed: above zero by the hypothesis."""
    pairs = zip(by_seed(results, "online"), by_seed(results, "fixed file"), strict=True)
    return spread([online - fixed for online, fixed in pairs])


if __name__ == "__main__":
    run_all()
