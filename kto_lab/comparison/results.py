"""The runs of the comparison: computed once, kept a line each, checked against live runs. Lessons 07b to 09b.

`python course.py experiments` computes what is missing (a few hours on 2 cores) and can be stopped at any time: a
finished run is on disk and is never made or counted twice, whatever asks for it.
"""

import ast
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from kto_lab import RESULTS
from kto_lab.comparison import protocol
from kto_lab.comparison.protocol import (
    BASE,
    CONDITIONS,
    LARGE_METHODS,
    LARGE_SEEDS,
    TEST_SEEDS,
    VALIDATION_SEEDS,
    WAYS,
    methods_of,
)  # fmt: skip
from kto_lab.comparison.runs import train_and_score
from kto_lab.comparison.scores import reference_scores, rounded
from kto_lab.comparison.search import Cell, Search
from kto_lab.comparison.settings import Setting, changes, key_of, setting_from
from kto_lab.plain import plain, to_json

RESULTS_FILE = RESULTS / "comparison.jsonl"
COMMAND = "python course.py experiments"
ROOT = Path(__file__).parents[2]

# What a run's numbers depend on, beside its setting and its seed.
MODULES = (
    *(f"kto_utils/{name}" for name in ("world", "data", "tokenizer", "model", "collator", "logprobs", "losses",
                                       "train", "evaluate")),
    *(f"kto_lab/{name}" for name in ("recipes", "price", "scored_reference", "extra_terms", "looking")),
    *(f"kto_lab/comparison/{name}" for name in ("settings", "thumbs", "scores", "reference_points", "runs")),
)  # fmt: skip

Job = tuple[Setting, int]


def _essence(node) -> object:
    """A syntax tree without positions, docstrings and empty fields, alike in all versions of Python."""
    if isinstance(node, ast.AST):
        fields = dict(ast.iter_fields(node))
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node) is not None:
            fields["body"] = fields["body"][1:]
        kept = [[name, _essence(value)] for name, value in fields.items() if value not in (None, [])]
        return [type(node).__name__, kept]
    return [_essence(part) for part in node] if isinstance(node, list) else repr(node)


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        data = file.read_bytes()
        if file.suffix == ".py":
            data = json.dumps(_essence(ast.parse(data.decode("utf-8")))).encode()
        digest.update(data.replace(b"\r\n", b"\n") if file.suffix == ".json" else data)
    return digest.hexdigest()[:16]


def code_version() -> str:
    """A digest of the code and the models that the numbers depend on. Comments and docstrings do not count."""
    assets = ROOT / "kto_utils" / "assets"
    models = ("tokenizer.json", "reference/model.safetensors", "reference_small/model.safetensors")
    return _digest([*(ROOT / f"{module}.py" for module in MODULES), *(assets / name for name in models)])


def protocol_version() -> str:
    """A digest of the protocol. Comments and docstrings do not count, a hypothesis does."""
    return _digest([Path(protocol.__file__)])


class Store:
    """The file of runs: a head line, then a line each, written as they finish.

    Args:
        file: is made where it is missing.

    Raises:
        ValueError: a file of other code or of another protocol; the message says which.
    """

    def __init__(self, file: Path = RESULTS_FILE):
        self.file = file
        self.runs: dict[str, dict] = {}
        head = {"command": COMMAND, "protocol": protocol_version(), "code": code_version()}
        if not file.exists():
            file.write_text(json.dumps(head) + "\n", encoding="utf-8")
            return
        first, *lines = file.read_text(encoding="utf-8").splitlines()
        found = json.loads(first)
        for name in ("protocol", "code"):
            if found.get(name) != head[name]:
                raise ValueError(
                    f"{file.name} was computed by version {found.get(name)} of the {name}, this is {head[name]}: its "
                    f"numbers may no longer hold. `{COMMAND} --recheck` says whether they do; or delete the file and "
                    f"compute again with `{COMMAND}`"
                )
        whole = []
        for line in lines:
            try:
                run = json.loads(line)
            except json.JSONDecodeError:  # the line that was being written when it was stopped
                break
            whole.append(line)
            self.runs[key_of(setting_from(run["setting"]), run["seed"])] = run
        if len(whole) < len(lines):  # the next run must not be written behind half a line
            file.write_text("\n".join([first, *whole, ""]), encoding="utf-8")

    def get(self, setting: Setting, seed: int) -> dict | None:
        return self.runs.get(key_of(setting, seed))

    def score(self, setting: Setting, seed: int) -> float | None:
        """What the search looks at."""
        run = self.get(setting, seed)
        return None if run is None else run["trained thumbs_up"]

    def make(self, jobs: Iterable[Job], description: str) -> None:
        """Makes the runs that are missing: one process per core, one thread each; shows progress and the time left."""
        jobs = {key_of(*job): job for job in jobs}
        # By seed, so that a process collects each seed's thumbs once.
        missing = sorted((jobs[key] for key in jobs.keys() - self.runs.keys()), key=lambda job: (job[1], key_of(*job)))
        if not missing:
            return
        os.environ["OMP_NUM_THREADS"] = "1"  # read by the workers, which start fresh
        pool = ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), torch.set_num_threads, (1,))
        with pool, self.file.open("a", encoding="utf-8") as lines:
            futures = {pool.submit(train_and_score, *job, job[1] in VALIDATION_SEEDS): job for job in missing}
            for future in tqdm(as_completed(futures), total=len(futures), desc=description, unit="run"):
                setting, seed = futures[future]
                run = {"setting": changes(setting), "seed": seed, **future.result()}
                self.runs[key_of(setting, seed)] = run
                lines.write(to_json(run) + "\n")
                lines.flush()

    def search(self, condition: str, method: str, small: bool = True) -> Search:
        return Search(condition, method, self.score, small)


def searches(store: Store) -> list[Search]:
    """Every search of the protocol; the larger model is tuned on the base case alone."""
    small = [store.search(condition, method) for condition in CONDITIONS for method in methods_of(condition)]
    return small + [store.search(BASE, method, small=False) for method in LARGE_METHODS]


@dataclass(frozen=True)
class Results:
    """The runs of a finished comparison; all the lessons' numbers come from here."""

    store: Store
    reference: Mapping[bool, Mapping[str, float]]

    def choice(self, condition: str, method: str, way: str = next(iter(WAYS)), small: bool = True) -> Cell:
        """The (learning_rate, beta) of a cell of the core table, as the search chose it."""
        _check_way(way, small)
        on = condition if way != next(iter(WAYS)) else BASE
        # Without noise cDPO is DPO, so one sweep on clean thumbs tunes DPO.
        return self.store.search(on, "dpo" if method == "cdpo" and on == BASE else method, small).choice()

    def cell(self, condition: str, method: str, way: str = next(iter(WAYS)), small: bool = True) -> list[dict]:
        """The runs of a cell of the core table, in the order of the seeds.

        Raises:
            ValueError: an unknown condition, method or way, or runs that are missing.
        """
        return [self.run(*job) for job in _cell_jobs(self, condition, method, way, small)]

    def run(self, setting: Setting, seed: int) -> dict:
        found = self.store.get(setting, seed)
        if found is None:
            raise ValueError(f"there is no run {key_of(setting, seed)}; `{COMMAND}` makes what is missing")
        return found


def _check_way(way: str, small: bool) -> None:
    known = WAYS if small else list(WAYS)[:1]
    if way not in known:
        raise ValueError(f"way is {way!r}; {'the small' if small else 'the larger'} model has {', '.join(known)}")


def _cell_jobs(results: Results, condition: str, method: str, way: str, small: bool) -> list[Job]:
    setting = protocol.setting_of(condition, method, *results.choice(condition, method, way, small), small)
    return [(setting, seed) for seed in (TEST_SEEDS if small else LARGE_SEEDS)]


def core_jobs(results: Results, small: bool = True) -> list[Job]:
    """Every run of the core table, both ways; of the larger model, one."""
    return [
        job
        for condition in CONDITIONS
        for method in methods_of(condition, small)
        for way in (WAYS if small else list(WAYS)[:1])
        for job in _cell_jobs(results, condition, method, way, small)
    ]


def run_all(file: Path = RESULTS_FILE) -> None:
    """Searches, then runs the tables. What is in the file already is not made again."""
    store = Store(file)
    while jobs := [job for search in searches(store) for job in search.needed()]:
        store.make(jobs, "search")
    results = Results(store, {})
    store.make(core_jobs(results), "core table")
    store.make(core_jobs(results, small=False), "larger model")
    print(f"{file.name} is complete: {len(store.runs)} runs")


def load_results(file: Path = RESULTS_FILE) -> Results:
    """The committed results.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it comes from other code or another protocol. Both messages say how to mend it.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file.name} is missing; `{COMMAND}` computes it")
    return Results(Store(file), {small: rounded(reference_scores(small)) for small in (True, False)})


def differences(run: Mapping) -> dict[str, tuple]:
    """Makes one stored run again: name -> (stored, fresh) for each number that differs in its first five digits.

    The sixth may round otherwise on another processor, and `z0_positive` may differ by one step: at the first z0 is 0
    up to rounding, which decides there whether it counts as positive.
    """
    setting = setting_from(run["setting"])
    fresh = plain(train_and_score(setting, run["seed"], run["seed"] in VALIDATION_SEEDS))
    leeway = {"z0_positive": 1.01 / setting.steps}
    return {name: (run[name], fresh.get(name)) for name in run if name not in ("setting", "seed")
            and not _same(run[name], fresh.get(name), leeway.get(name, 1e-6))}  # fmt: skip


def _same(one, other, leeway: float = 1e-6) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=leeway)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def recheck(file: Path = RESULTS_FILE, n: int = 1) -> None:
    """After a change of code that should change no number: makes n runs of each kind again and, where `differences`
    finds none, writes the new version into the file. A changed protocol is refused.

    Raises:
        ValueError: another protocol, or a number that differs.
    """
    first, *lines = file.read_text(encoding="utf-8").splitlines()
    head = json.loads(first)
    if head["protocol"] != protocol_version():
        raise ValueError(f"{file.name} follows protocol {head['protocol']}, not {protocol_version()}: compute again")
    by_kind: dict[str, list[dict]] = {}
    for run in map(json.loads, lines):
        changed = run["setting"]
        kind = [changed.get(name) for name in ("trainer", "own_sft", "smoothing", "small", "demonstrations", "z0")]
        by_kind.setdefault(json.dumps(kind), []).append(run)
    chosen: Sequence[dict] = [run for runs in by_kind.values() for run in runs[:: max(1, len(runs) // n)][:n]]
    for run in tqdm(chosen, "made again", unit="run"):
        if differing := differences(run):
            raise ValueError(f"{run['setting']} seed {run['seed']}: stored and fresh differ in {differing}")
    head |= {"command": COMMAND, "code": code_version()}
    file.write_text("\n".join([json.dumps(head), *lines, ""]), encoding="utf-8")
    print(f"{len(chosen)} runs made again give the stored numbers; {file.name} now carries this code's version")
