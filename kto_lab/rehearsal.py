"""The rehearsal of a run: SFT on the thumbs-up, 2,000 rows, all rows; how long each takes. Lesson 12.

    python -m kto_lab.rehearsal

prints the table of `scripts/README.md`. The times are operations over a rate, a guess that the first steps correct.
"""

import json

from kto_lab import SCRIPTS
from kto_lab.scaling import SHAPES, Shape, memory, step_flops

RATE = 0.4 * 312e12  # 40% of an A100's peak in bfloat16: lesson 12's first guess, not a measurement
ROWS, FEW, LENGTH, SCORED = 200_000, 2_000, 1024, 512
UP = 0.5  # share of thumbs-up, which SFT trains on
QWEN_7B = Shape(3584, 18944, 28, 28, 4, 152064, bias=True)
RUNS = {  # settings file -> shape of its model
    "thumbs_0.5b": SHAPES["Qwen2.5-0.5B"],
    "thumbs_7b_lora": QWEN_7B,
    "thumbs_7b_full": QWEN_7B,
    "pairs_8b_lora": SHAPES["Llama-3.1-8B"],
}


def settings_of(name: str) -> dict:
    return json.loads((SCRIPTS / f"{name}.json").read_text(encoding="utf-8"))


def gigabytes(name: str, gpus: int) -> float:
    """Memory of each GPU, weights cut into shards, by `scaling.memory` and the file's rows and rank."""
    settings = settings_of(name)
    lora, kto = settings["lora"], settings["kto"]
    return memory(
        RUNS[name], kto["per_device_train_batch_size"], kto["max_length"], lora_rank=lora and lora["r"],
        weight_bytes=2 if lora else 4, processes=gpus,
    )["total"] / 1e9  # fmt: skip


def sft_flops(shape: Shape, tokens: int, completion_tokens: int, lora: bool) -> float:
    """Operations of SFT with gradient checkpointing: those of a KTO step without its three extra forward passes."""
    forward = 2 * (shape.body * tokens + shape.head * completion_tokens)
    return step_flops(shape, tokens, completion_tokens, lora=lora) - 3 * forward


def stages(shape: Shape, lora: bool, gpus: int) -> dict[str, float]:
    """Hours of each stage on so many GPUs: `sft`, `few`, `all`. Evaluation, sampling and loading come on top."""
    kto = step_flops(shape, LENGTH, SCORED, lora=lora) / RATE / 3600 / gpus
    sft = sft_flops(shape, LENGTH, SCORED, lora) / RATE / 3600 / gpus
    return {"sft": UP * ROWS * sft, "few": FEW * kto, "all": ROWS * kto}


def told(hours: float) -> str:
    if hours < 1 / 60:
        return "< 1 min"
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"


def table() -> str:
    """The table of the README, in Markdown."""
    lines = ["| settings | GPUs | GB each | SFT on the thumbs-up | 2,000 rows | 200,000 rows |", "|---" * 6 + "|"]
    for name, shape in RUNS.items():
        for gpus in (1, 8):
            hours = stages(shape, settings_of(name)["lora"] is not None, gpus)
            times = " | ".join(told(hours[stage]) for stage in hours)
            lines.append(f"| `{name}` | {gpus} | {gigabytes(name, gpus):.0f} | {times} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
