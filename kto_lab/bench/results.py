"""The whole measurement, and the file that keeps it."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from kto_lab import RESULTS
from kto_lab.bench.growth import serve_growth, serve_profile
from kto_lab.bench.measure import measure
from kto_lab.bench.report import targets_of
from kto_lab.bench.turns import take_turns
from kto_lab.bench.workloads import WORKLOADS
from kto_lab.plain import to_json, write_whole

RESULTS_FILE = RESULTS / "bench_results.json"


def machine_class() -> dict:
    """What kind of machine this is, without its name."""
    import torch
    import trl

    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "processor": f"{model} ({torch.backends.cpu.get_cpu_capability()})",
        "cores": available_cores(),
        "torch": torch.__version__,
        "trl": trl.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices() -> list[tuple[str, str]]:
    """Where to run: (device, dtype) pairs."""
    import torch

    return [("cpu", "float32")] + [("cuda", dtype) for dtype in ("float32", "bfloat16") if torch.cuda.is_available()]


def run_all(names: Sequence[str], timed: int, threads: int) -> dict:
    """Measures the workloads named on every device, how the cost grows, and a profile where a target is missed."""
    results = {
        "command": "python course.py bench", "machine": machine_class(), "threads": threads, "runs": [],
    }  # fmt: skip
    for device, dtype in devices():
        for name in names:
            print(f"{name}, {dtype}, on {device} ...", flush=True)
            results["runs"].append(measure(WORKLOADS[name], device, dtype, threads, timed))
    print("how the cost grows ...", flush=True)
    results["growth"] = take_turns({"growth": (serve_growth, "cpu")}, 1, threads)[0]["growth"][0]
    if not all(target.met for target in targets_of(results)):
        results["profiles"] = {}
        for name in names:
            job = serve_profile, WORKLOADS[name], "float32", "cpu"
            results["profiles"][name] = take_turns({"profile": job}, 1, threads)[0]["profile"][0]
    return results


def load_results(file: Path = RESULTS_FILE) -> dict:
    """The committed results of the last run.

    Raises:
        FileNotFoundError: there is no such file; the message says how to compute it.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file.name} is missing; `python course.py bench` computes it")
    return json.loads(file.read_text(encoding="utf-8"))


def write_results(results: Mapping, file: Path = RESULTS_FILE) -> None:
    def short(value):
        if isinstance(value, float):
            return float(f"{value:.9g}")  # all of a float32
        if isinstance(value, dict):
            return {name: short(entry) for name, entry in value.items()}
        return [short(entry) for entry in value] if isinstance(value, list | tuple) else value

    write_whole(file, [to_json(short(dict(results)), indent=1), "\n"])
