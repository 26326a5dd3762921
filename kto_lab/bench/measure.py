"""One workload: seconds, losses and memory of each contender, beside the floor that no step can be faster than."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from kto_lab.bench.turns import _contend, _yardstick, take_turns
from kto_lab.bench.workloads import CONTENDERS, TIMED, WARM_UP, Workload, model_of, order_of, rows_of, tokenizer_of

LOSS_TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2}  # bfloat16 keeps 8 bits: its rows can only agree to that
OPTIMISER_BYTES = 28  # AdamW reads 4 numbers of 4 bytes per parameter (value, gradient, two moments) and writes 3


def step_products(sizes, batches: Sequence[Mapping]) -> float:
    """Operations (2 per multiplication) of the matrix products that a step cannot do without, mean over batches.

    Rows: one forward pass and two products backward for each; mismatched rows: forward only. Padding inside a batch
    counts, the head only at scored places, attention over the whole square (the processor's kernel computes it so).

    Args:
        sizes: of the model (a LlamaConfig).
        batches: as made by `KTOPaddingCollator`.
    """
    width, inner = sizes.hidden_size, sizes.intermediate_size
    total = 0.0
    for batch in batches:
        for prefix, passes in (("", 3), ("kl_", 1)):
            n_rows, length = batch[prefix + "input_ids"].shape
            layer = n_rows * length * (4 * width * width + 3 * width * inner + 2 * length * width)
            head = int(batch[prefix + "label_mask"].sum()) * width * sizes.vocab_size
            total += 2 * passes * (sizes.num_hidden_layers * layer + head)
    return total / len(batches)


def floor_seconds(products: float, product_rate: float, n_parameters: int, copy_rate: float) -> tuple[float, float]:
    """(seconds of the products, seconds of the optimiser's memory traffic): no step can be faster than their sum."""
    return products / product_rate, OPTIMISER_BYTES * n_parameters / copy_rate


def facts_of(workload: Workload, steps: int) -> dict:
    """What the floor needs: products of a step, parameters, completion tokens of a step (timed steps only)."""
    from kto_utils.collator import KTOPaddingCollator
    from kto_utils.data import tokenize_feedback

    rows, tokenizer, size = rows_of(workload, steps * workload.batch_size), tokenizer_of(workload), workload.batch_size
    examples = [tokenize_feedback(rows[i], tokenizer) for i in order_of(len(rows), size)]
    collate = KTOPaddingCollator(tokenizer)
    batches = [collate(examples[i : i + size]) for i in range(0, len(examples), size)][WARM_UP:]
    model = model_of(workload, "float32", "cpu")
    return {
        "products": step_products(model.config, batches),
        "parameters": sum(p.numel() for p in model.parameters()),
        "completion_tokens": statistics.mean(int(batch["label_mask"].sum()) for batch in batches),
    }


def measure(
    workload: Workload,
    device: str,
    dtype: str,
    threads: int,
    timed: int = TIMED,
    contenders: Sequence[str] = tuple(CONTENDERS),
) -> dict:
    """All contenders on one workload: seconds, losses, memory, and the machine's own rates between their steps."""
    steps = WARM_UP + timed
    jobs = {name: (_contend, name, workload, steps, dtype, device) for name in contenders}
    jobs["machine"] = (_yardstick, steps, dtype, device)
    sent, reports = take_turns(jobs, steps, threads)
    rates = sent.pop("machine")[WARM_UP:]
    return {
        "workload": asdict(workload),
        "device": device,
        "dtype": dtype,
        "facts": facts_of(workload, steps),
        "product_rates": [rate for rate, _ in rates],
        "copy_rates": [rate for _, rate in rates],
        "contenders": {name: {"seconds": sent[name][WARM_UP:], **reports[name]} for name in contenders},
    }


def ratio(run: Mapping, slower: str, faster: str) -> tuple[float, float, float]:
    """How many times as long a step takes: (median, least, most) over the turns, each compared within itself."""
    pairs = zip(run["contenders"][slower]["seconds"], run["contenders"][faster]["seconds"], strict=True)
    ratios = [a / b for a, b in pairs]
    return statistics.median(ratios), min(ratios), max(ratios)


def floor_of(run: Mapping) -> tuple[float, float]:
    """Both terms of the floor, from the median rates of the run."""
    facts = run["facts"]
    rates = (statistics.median(run[name]) for name in ("product_rates", "copy_rates"))
    product_rate, copy_rate = rates
    return floor_seconds(facts["products"], product_rate, facts["parameters"], copy_rate)


def over_floor(run: Mapping, contender: str = "ours") -> float:
    """How many times the floor a step takes: the median over the turns, each with the rates of that turn."""
    facts = run["facts"]
    turns = zip(run["contenders"][contender]["seconds"], run["product_rates"], run["copy_rates"], strict=True)
    return statistics.median(
        seconds / sum(floor_seconds(facts["products"], product, facts["parameters"], copy))
        for seconds, product, copy in turns
    )


def loss_gap(run: Mapping, contender: str) -> float:
    """The largest difference between a contender's losses and those of the plain step; NaN if one of them is NaN."""
    mine, plain = (run["contenders"][name]["losses"] for name in (contender, "plain"))
    gaps = [abs(a - b) for a, b in zip(mine, plain, strict=True)]
    return math.nan if any(map(math.isnan, gaps)) else max(gaps)


def is_void(run: Mapping, contender: str) -> bool:
    """A row counts only if it computed the same: NaN and losses further apart than the tolerance are void."""
    return not loss_gap(run, contender) <= LOSS_TOLERANCE[run["dtype"]]


def memory_ratio(run: Mapping, above_imports: bool, other: str = "trl") -> float:
    """Our peak memory over another one's, whole or without what the imports alone take."""

    def peak(name: str) -> int:
        row = run["contenders"][name]
        if run["device"] != "cpu":
            return row["device_peak_bytes"]
        return row["peak_bytes"] - (row["import_bytes"] if above_imports else 0)

    return peak("ours") / peak(other)
