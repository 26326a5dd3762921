"""How much memory and time a larger model needs, and what other engines do with the small world. Taught in lesson 12.

`python course.py scaling` computes the results that the lesson shows again (about three minutes; needs trl,
accelerate and peft, which the tests install).
"""

import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from kto_lab import RESULTS, SCRIPTS, trl_pitfalls
from kto_lab.plain import to_json, write_whole
from kto_utils import __version__

RESULTS_FILE = RESULTS / "scaling_results.json"
LAUNCH = ["accelerate.commands.launch", "--config_file", str(SCRIPTS / "two_processes_cpu.yaml")]


# ---------------------------------------------------------------- memory and time


@dataclass(frozen=True)
class Shape:
    """What of a Llama-like model decides its cost. `bias`: the query, key and value maps add one, as in Qwen2.5."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    tied: bool = False
    bias: bool = False

    @property
    def kv_size(self) -> int:
        return self.hidden // self.heads * self.kv_heads

    @property
    def body(self) -> int:
        """Parameters of all layers and norms: those that every token meets."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_size
        attention += (self.hidden + 2 * self.kv_size) * self.bias
        return self.layers * (attention + 3 * self.hidden * self.intermediate + 2 * self.hidden) + self.hidden

    @property
    def head(self) -> int:
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All of them: body, embedding table, and the head unless it is the same table."""
        return self.body + self.head * (1 if self.tied else 2)

    def lora_parameters(self, rank: int) -> int:
        """Of adapters of this rank on all seven matrices of every layer (rank x (inputs + outputs) each)."""
        attention = 2 * (2 * self.hidden) + 2 * (self.hidden + self.kv_size)
        return self.layers * rank * (attention + 3 * (self.hidden + self.intermediate))


SHAPES = {
    "Qwen2.5-0.5B": Shape(896, 4864, 24, 14, 2, 151936, tied=True, bias=True),
    "Qwen2.5-1.5B": Shape(1536, 8960, 28, 12, 2, 151936, tied=True, bias=True),
    "Llama-3.2-3B": Shape(3072, 8192, 28, 24, 8, 128256, tied=True),
    "Llama-3.1-8B": Shape(4096, 14336, 32, 32, 8, 128256),
}


def memory(
    shape: Shape,
    rows: int,
    length: int,
    *,
    lora_rank: int | None = None,
    processes: int = 1,
    weight_bytes: int = 4,
    activation_bytes: int = 2,
    reference: bool = True,
    head_copies: float = 1.0,
) -> dict[str, float]:
    """Bytes on each device for KTO with AdamW, gradient checkpointing and weights sharded over the processes (FSDP).

    Args:
        rows, length: one process's batch, and tokens of its longest row.
        lora_rank: None trains all weights; else adapters in float32, and the frozen weights are the reference too.
        weight_bytes: of one weight: 4 (float32 under bfloat16 autocast), or 2 (frozen weights under LoRA).
        activation_bytes: 2 for bfloat16, 4 for float32.
        reference: False if its log-probabilities were computed beforehand.
        head_copies: TRL 1.16 computes the logits in tiles of 4,096 tokens x 32,768 words; of how many such tiles it
            holds at once. One on a GPU, where a kernel reads it; more on a processor (measured: see `run_all`).

    Returns:
        dict of `weights`, `gradients`, `optimizer`, `reference`, `activations`, `head` and their `total`. What the
        estimate leaves out: the libraries themselves, fragments, buffers for communication.
    """
    trained = shape.parameters if lora_rank is None else shape.lora_parameters(lora_rank)
    adapters = 0 if lora_rank is None else 4 * trained
    tokens = rows * length
    kept = shape.layers * shape.hidden  # checkpointing keeps each layer's input and recomputes the rest,
    one_layer = 8 * shape.hidden + 2 * shape.kv_size + 4 * shape.intermediate  # one layer at a time
    terms = {
        "weights": (weight_bytes * shape.parameters + adapters) / processes,
        "gradients": 4 * trained / processes,
        "optimizer": 8 * trained / processes,
        "reference": weight_bytes * shape.parameters / processes if reference and lora_rank is None else 0.0,
        "activations": activation_bytes * tokens * (kept + one_layer),
        "head": activation_bytes * min(tokens, 4096) * min(shape.vocab, 32768) * head_copies,
    }
    return terms | {"total": sum(terms.values())}


def step_flops(
    shape: Shape,
    tokens: int,
    completion_tokens: int,
    *,
    lora: bool = False,
    checkpointing: bool = True,
    reference: bool = True,
    full_head: bool = False,
) -> float:
    """Floating-point operations of one KTO step in matrix products, all processes together.

    A product costs 2 operations per weight and token; the backward pass twice that, or once where the weights are
    frozen (LoRA). The mismatched completions cost one more forward pass of the policy, the reference two.

    Args:
        tokens: all tokens of the rows, prompt and padding included; completion_tokens: those that are scored.
        reference: False if its log-probabilities were computed beforehand.
        full_head: the engine applies the head at every token and not at scored ones alone.
    """
    forward = 2 * (shape.body * tokens + shape.head * (tokens if full_head else completion_tokens))
    backward = forward * (1 if lora else 2) + (2 * shape.body * tokens if checkpointing else 0)
    return float(forward + backward + forward * (3 if reference else 1))


# ---------------------------------------------------------------- one measured point

MEASURED = {"first": Shape(512, 1408, 8, 8, 8, 32000), "second": Shape(768, 2048, 6, 12, 12, 8000)}
POINTS = (  # shape, rows, length, LoRA rank: two to learn what TRL's head takes, two to check the estimate
    ("first", 4, 64, None), ("first", 4, 192, None), ("second", 4, 128, None), ("second", 4, 128, 16),
)  # fmt: skip


def product_rate(size: int = 2048, repeats: int = 3) -> float:
    """Floating-point operations a second of this machine in a float32 matrix product; the best of some tries."""
    a = torch.ones(size, size)
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _peak_bytes() -> int:
    import resource  # not on Windows; only this measurement needs it

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _train_once(shape: Shape, rows: int, length: int, lora_rank: int | None, steps: int) -> tuple[list[float], int]:
    """Trains with TRL on the processor in float32; returns seconds of each step, and completion tokens of a batch."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import KTOConfig, KTOTrainer

    from kto_utils.model import tiny_llama
    from kto_utils.tokenizer import load_tokenizer

    ticks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            ticks.append(time.perf_counter())

        def on_step_end(self, *_, **__):
            ticks.append(time.perf_counter())

    prompt = "USER:" + " tomato" * (length // 20)  # about a quarter of the tokens
    data = [{"prompt": prompt, "completion": " tomato" * length, "label": i % 2 == 0} for i in range(rows)] * steps
    model = tiny_llama(shape.vocab, shape.hidden, shape.intermediate, shape.layers, shape.heads, max_length=length)
    with tempfile.TemporaryDirectory() as folder:
        args = KTOConfig(
            output_dir=folder, use_cpu=True, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True,
            per_device_train_batch_size=rows, max_steps=steps, max_length=length, optim="adamw_torch",
        )  # fmt: skip
        lora = lora_rank and LoraConfig(r=lora_rank, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = KTOTrainer(
            model, None if lora_rank else copy.deepcopy(model), args, train_dataset=Dataset.from_list(data),
            processing_class=load_tokenizer(), peft_config=lora, callbacks=[Clock()],
        )  # fmt: skip
        scored = int(next(iter(trainer.get_train_dataloader()))["completion_mask"].sum())
        trainer.train()
    return [end - start for start, end in zip(ticks[::2], ticks[1::2], strict=True)], scored


def measure(name: str, rows: int, length: int, lora_rank: int | None, steps: int = 2) -> dict:
    """Peak memory above the libraries, and seconds a step, of TRL on this machine's processor, in float32.

    Call it in a fresh process: a peak cannot be taken back. A toy is trained first, since libraries load late.
    """
    _train_once(Shape(8, 8, 1, 2, 2, 512), 2, 32, lora_rank, 1)
    rate, before = product_rate(1024), _peak_bytes()
    seconds, scored = _train_once(MEASURED[name], rows, length, lora_rank, steps)
    return {
        "shape": name, "rows": rows, "length": length, "lora_rank": lora_rank, "completion_tokens": scored,
        "peak_bytes": _peak_bytes() - before, "seconds": statistics.median(seconds), "product_rate": rate,
    }  # fmt: skip


def head_copies_of(points: list[dict]) -> float:
    """How many tiles of logits TRL held at once, from the two points that differ in length alone."""
    short, long = points[:2]
    shape, tokens = MEASURED[short["shape"]], long["rows"] * long["length"] - short["rows"] * short["length"]
    body = memory(shape, 1, 1, activation_bytes=4, head_copies=0)["activations"]
    return ((long["peak_bytes"] - short["peak_bytes"]) / tokens - body) / (4 * shape.vocab)


def checked(point: dict, head_copies: float) -> dict[str, float]:
    """The estimates for a measured point: `peak_bytes`, and `floor_seconds`, its operations over the product rate."""
    shape, lora = MEASURED[point["shape"]], point["lora_rank"]
    estimate = memory(
        shape, point["rows"], point["length"], lora_rank=lora, activation_bytes=4, head_copies=head_copies
    )
    tokens = point["rows"] * point["length"]
    flops = step_flops(shape, tokens, point["completion_tokens"], lora=lora is not None, full_head=True)
    return {"peak_bytes": estimate["total"], "floor_seconds": flops / point["product_rate"]}


# ---------------------------------------------------------------- the results file


def _python(*arguments: str, folder: str) -> None:
    """Runs this interpreter in a folder, quietly; a failure shows what was printed."""
    env = os.environ | {
        "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1",
        "HF_HOME": os.path.join(folder, "cache"),
    }  # fmt: skip
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def _two_processes(folder: str) -> dict[str, list[float]]:
    from_two = os.path.join(folder, "history.json")
    script = str(SCRIPTS / "train_small_world.py")
    _python("-m", *LAUNCH, script, "--steps", "10", "--history", from_two, folder=folder)
    history = json.loads(Path(from_two).read_text(encoding="utf-8"))
    return {name: [row[name] for row in history] for name in ("loss", "kl", "grad_norm")}


def _hand_over(folder: str, settings: str) -> dict:
    """TRL through accelerate on two processes; the result, loaded by this package and scored exactly."""
    from kto_utils.evaluate import report
    from kto_utils.model import load_model

    output = os.path.join(folder, settings)
    file = str(SCRIPTS / f"{settings}.json")
    start = time.perf_counter()
    _python(
        "-m", *LAUNCH, str(SCRIPTS / "train_with_trl.py"), file, "--cpu", "--output", output,
        "--model", os.path.join(folder, "model"), "--rows", os.path.join(folder, "thumbs.jsonl"), folder=folder,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    merged = Path(output) / "merged"
    log = json.loads((Path(output) / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return {
        "rates": report(load_model(merged if merged.exists() else Path(output) / "trained")),
        "log": [{name: row[name] for name in ("step", "loss", "kl")} for row in log if "loss" in row],
        "seconds": round(seconds, 1),
    }


def run_all(file: Path = RESULTS_FILE) -> None:
    """Runs everything and writes the file: two processes, TRL with full weights and LoRA, pitfalls, measured points."""
    from kto_lab.export import export_world
    from kto_utils.evaluate import report
    from kto_utils.model import load_model

    with tempfile.TemporaryDirectory() as folder:
        export_world(folder)
        points = []
        for job in POINTS:
            target = os.path.join(folder, "point.json")
            _python("-m", "kto_lab.scaling", "measure", json.dumps(job), target, folder=folder)
            points.append(json.loads(Path(target).read_text(encoding="utf-8")))
            print(points[-1], flush=True)
        results = {
            "version": __version__,
            "command": "python course.py scaling",
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, one thread a process",
            "two_processes": _two_processes(folder),
            "start": report(load_model(Path(folder) / "model")),
            "full": _hand_over(folder, "small_world"),
            "lora": _hand_over(folder, "small_world_lora"),
            "pitfalls": trl_pitfalls.pitfalls(),
            "points": points,
        }
    write_whole(file, [to_json(results, indent=1), "\n"])
    print(f"wrote {file.name}")


def load_results(file: Path = RESULTS_FILE) -> dict:
    """The committed results of `run_all`.

    Raises:
        FileNotFoundError: there is no such file; the message says how to compute it.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file.name} is missing; `python course.py scaling` computes it")
    return json.loads(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        write_whole(sys.argv[3], [to_json(measure(*json.loads(sys.argv[2])))])
    else:
        run_all()
