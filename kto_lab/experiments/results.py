"""The results of the experiments: computed once, kept in a file, checked against live runs. Lessons 07 to 09.

`python course.py experiments` computes the file again (about an hour and a half on 2 cores), `python course.py
experiments noise knobs` these two. Finished runs are kept on disk when it is stopped and are not run again.
"""

import ast
import hashlib
import json
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from kto_lab import RESULTS
from kto_lab.experiments.protocol import EXPERIMENTS, N_CONFIRMED, VALIDATION_SEEDS, experiment, setting_of
from kto_lab.experiments.runs import train_and_score
from kto_lab.experiments.scores import reference_scores, rounded

RESULTS_FILE = RESULTS / "experiment_results.json"
COMMAND = "python course.py experiments"

# What a result depends on. `findings` and the lessons only read results.
MODULES = (
    *(f"kto_utils/{name}" for name in ("world", "data", "tokenizer", "model", "collator", "logprobs", "losses",
                                       "train", "evaluate")),
    *(f"kto_lab/{name}" for name in ("recipes", "price", "scored_reference", "extra_terms", "looking")),
    *(f"kto_lab/experiments/{name}" for name in ("protocol", "thumbs", "scores", "reference_points", "runs")),
)  # fmt: skip


def _essence(node) -> object:
    """A syntax tree without positions, docstrings and empty fields, alike in all versions of Python."""
    if isinstance(node, ast.AST):
        fields = dict(ast.iter_fields(node))
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node) is not None:
            fields["body"] = fields["body"][1:]
        kept = [[name, _essence(value)] for name, value in fields.items() if value not in (None, [])]
        return [type(node).__name__, kept]
    return [_essence(part) for part in node] if isinstance(node, list) else repr(node)


def code_version() -> str:
    """A digest of the code and the models that the results depend on. Comments and docstrings do not count."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for module in MODULES:
        tree = ast.parse((root / f"{module}.py").read_text(encoding="utf-8"))
        digest.update(json.dumps(_essence(tree)).encode())
    for name in ("tokenizer.json", "reference/model.safetensors", "reference_small/model.safetensors"):
        data = (root / "kto_utils" / "assets" / name).read_bytes()
        digest.update(data.replace(b"\r\n", b"\n") if name.endswith(".json") else data)
    return digest.hexdigest()[:16]


Job = tuple[str, str, str, int, float, float]
FIELDS = ("experiment", "condition", "method", "seed", "learning_rate", "beta")


def job_of(run: Mapping) -> Job:
    return tuple(run[name] for name in FIELDS)


def search_jobs(name: str) -> list[Job]:
    """The runs that try every setting of every method on the first validation seed."""
    chosen = experiment(name)
    if chosen.search is None:
        return []
    return [
        (name, chosen.search, method, VALIDATION_SEEDS[0], *pair) for method in chosen.methods for pair in chosen.grid
    ]


def _tried(search: Iterable[Mapping], name: str, method: str) -> dict[tuple[float, float], list[float]]:
    """Setting -> its thumbs-up rates on the trained questions, one for each seed it was tried with."""
    rates: dict[tuple[float, float], list[float]] = {}
    for run in search:
        if (run["experiment"], run["method"]) == (name, method):
            rates.setdefault((run["learning_rate"], run["beta"]), []).append(run["trained thumbs_up"])
    if not rates:
        raise ValueError(f"the search of experiment {name!r} holds no run of method {method!r}; `{COMMAND}` makes it")
    return rates


def confirming_jobs(name: str, search: Iterable[Mapping]) -> list[Job]:
    """The best settings of the first seed with two more, one under the first condition and one under the last.

    Raises:
        ValueError: a method of the experiment has no run in the search.
    """
    chosen, jobs = experiment(name), []
    if chosen.search is None or not chosen.confirmed:
        return []
    conditions = list(chosen.conditions)
    for method in chosen.methods:
        tried = _tried(search, name, method)
        best = sorted(tried, key=lambda setting: -tried[setting][0])[:N_CONFIRMED]
        for condition, seed in ((conditions[0], VALIDATION_SEEDS[1]), (conditions[-1], VALIDATION_SEEDS[2])):
            jobs += [(name, condition, method, seed, *setting) for setting in best]
    return jobs


def best_settings(search: Iterable[Mapping], name: str) -> dict[str, tuple[float, float]]:
    """The (learning_rate, beta) of each method with the highest mean thumbs-up rate on the trained questions.

    The mean is over the seeds; only settings that were tried with all of them count. The held-out sets take no part in
    the choice. Where two settings tie, the first is taken.

    Raises:
        ValueError: a method of the experiment has no run in the search.
    """
    chosen = {}
    for method in experiment(name).methods:
        tried = _tried(search, name, method)
        most = max(map(len, tried.values()))
        chosen[method] = max(
            (setting for setting in tried if len(tried[setting]) == most),
            key=lambda setting: statistics.mean(tried[setting]),
        )
    return chosen


def table_jobs(name: str, search: Sequence[Mapping]) -> list[Job]:
    """The runs of an experiment's table, with the settings that the search chose."""
    chosen, jobs = experiment(name), []
    for condition in chosen.conditions:
        for method in chosen.methods:
            setting = setting_of(name, condition, method)
            rate, beta = setting.learning_rate, setting.beta
            if rate is None or beta is None:
                source = chosen.settings_of[condition] if chosen.settings_of else name
                rate, beta = best_settings(search, source)[method]
            jobs += [(name, condition, method, seed, rate, beta) for seed in chosen.seeds]
    return jobs


def _finished(file: Path, version: str) -> list[dict]:
    """Runs that an earlier, stopped computation left behind: a line each, after a line with the code's version."""
    if not file.exists():
        return []
    head, *lines = file.read_text(encoding="utf-8").splitlines()
    if json.loads(head) != {"code_version": version}:
        file.unlink()  # other code: nothing of it may be mixed in
        return []
    runs = []
    for line in lines:
        try:
            runs.append(json.loads(line))
        except json.JSONDecodeError:  # the line that was being written when it was stopped
            break
    if len(runs) < len(lines):  # the next run must not be written behind half a line
        file.write_text("\n".join([head, *lines[: len(runs)], ""]), encoding="utf-8")
    return runs


def _run(jobs: Sequence[Job], done: list[dict], file: Path, description: str) -> list[dict]:
    """Runs the jobs that are not done yet, one process per core, one thread each; returns all runs in order."""
    known = {job_of(run) for run in done}
    missing = [job for job in dict.fromkeys(jobs) if job not in known]
    if missing:
        os.environ["OMP_NUM_THREADS"] = "1"  # read by the workers, which start fresh
        pool = ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), torch.set_num_threads, (1,))
        with pool, file.open("a", encoding="utf-8") as lines:
            futures = [pool.submit(train_and_score, *job) for job in missing]
            for future in tqdm(as_completed(futures), total=len(futures), desc=description, unit="run"):
                done.append(future.result())
                lines.write(json.dumps(done[-1]) + "\n")
                lines.flush()
    by_job = {job_of(run): run for run in done}
    return [by_job[job] for job in jobs]


def run_all(names: Sequence[str] = (), file: Path = RESULTS_FILE) -> dict:
    """Searches the settings, freezes them, runs the tables and writes the results file.

    Args:
        names: experiments to compute again; none means all. The others are taken from the file, which must then come
            from the same code.
        file: where to write. Beside it, FILE.unfinished keeps finished runs until the whole is written.

    Raises:
        ValueError: an unknown experiment, or a file by other code when only some are computed.
    """
    for name in names:
        experiment(name)
    wanted = list(names) or list(EXPERIMENTS)
    version, kept = code_version(), {"search": [], "runs": []}
    if names:
        kept = load_results(file)
    unfinished = file.with_name(file.name + ".unfinished")
    done = _finished(unfinished, version)
    if not unfinished.exists():
        unfinished.write_text(json.dumps({"code_version": version}) + "\n", encoding="utf-8")
    search = [run for run in kept["search"] if run["experiment"] not in wanted]
    search += _run([job for name in wanted for job in search_jobs(name)], done, unfinished, "search")
    search += _run([job for name in wanted for job in confirming_jobs(name, search)], done, unfinished, "confirm")
    runs = [run for run in kept["runs"] if run["experiment"] not in wanted]
    runs += _run([job for name in wanted for job in table_jobs(name, search)], done, unfinished, "table")
    place = {name: number for number, name in enumerate(EXPERIMENTS)}
    brief = [*FIELDS, "rows", "up", "used", "trained thumbs_up", "trained listed"]
    results = {
        "command": COMMAND,
        "code_version": version,
        "reference": {
            "small": rounded(reference_scores()),
            "course": rounded(reference_scores(small=False)),
        },
        "search": [{key: run[key] for key in brief} for run in sorted(search, key=lambda c: place[c["experiment"]])],
        "runs": sorted(runs, key=lambda run: place[run["experiment"]]),
    }
    _write(results, file)
    unfinished.unlink()
    print(f"wrote {file.name}: {len(results['search'])} runs of the search, {len(results['runs'])} of the tables")
    return results


def _write(results: Mapping, file: Path) -> None:
    """One run a line, so that a difference between two files can be read; renamed into place."""
    parts = []
    for key, value in results.items():
        if isinstance(value, list):
            lines = ",\n".join(json.dumps(run) for run in value)
            parts.append(f"{json.dumps(key)}: [\n{lines}\n]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
    temporary = file.with_name(file.name + ".part")
    temporary.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    os.replace(temporary, file)


def load_results(file: Path = RESULTS_FILE) -> dict:
    """The committed results: `command`, `code_version`, `reference`, `search` and `runs` (a dict for each run).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it was computed by other code. Both messages say how to compute it again.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file.name} is missing; `{COMMAND}` computes it")
    results = json.loads(file.read_text(encoding="utf-8"))
    if results.get("code_version") != code_version():
        raise ValueError(
            f"{file.name} was computed by version {results.get('code_version')} of the code, this is "
            f"{code_version()}: its numbers may no longer hold. `{COMMAND}` computes them again"
        )
    return results


def select(results: Mapping, name: str, **wanted) -> list[dict]:
    """The runs of one experiment, in the order of the table: `select(results, "noise", method="kto", seed=0)`.

    Raises:
        ValueError: an unknown experiment, or no run with these values.
    """
    experiment(name)
    found = [
        run for run in results["runs"]
        if run["experiment"] == name and all(run[key] == value for key, value in wanted.items())
    ]  # fmt: skip
    if not found:
        raise ValueError(f"the results of experiment {name!r} hold no run with {wanted}")
    return found


def rerun(run: Mapping) -> dict:
    """Runs one stored run again and compares: is the file genuine?

    Returns:
        The fresh run.

    Raises:
        AssertionError: a number differs by more than the last printed digits; the message names it.
    """
    fresh = train_and_score(*job_of(run))
    differing = [name for name in run if not _same(run[name], fresh[name])]
    if differing:
        found = {name: (run[name], fresh[name]) for name in differing[:3]}
        raise AssertionError(f"{job_of(run)}: stored and fresh differ in {found}; `{COMMAND}` computes them again")
    return fresh


def _same(one, other) -> bool:
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other
