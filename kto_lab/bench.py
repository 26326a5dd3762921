"""`python course.py bench`: what a KTO step costs here, in the plain form of lesson 07, and in TRL.

All contenders see the same rows in the same order, start from the same weights and use the same optimiser settings.
Each runs its own training loop in its own fresh process; the processes take turns step by step, so that a machine that
slows down slows all of them. A step is what passes from one optimiser step to the next. TRL comes with the
requirements of the tests.
"""

import argparse
import functools
import json
import math
import os
import platform
import random
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from kto_lab import RESULTS

RESULTS_FILE = RESULTS / "bench_results.json"
CONTENDERS = {
    "ours": "train_kto",
    "plain": "plain step of lesson 07",
    "trl": "TRL 1.16",
    "trl_beforehand": "TRL 1.16, reference beforehand",
}
WARM_UP, TIMED = 4, 20
LEARNING_RATE, BETA, MAX_GRAD_NORM = 1e-4, 0.05, 1.0  # beta: float32 holds the long sums to 2e-4 nats only
LOSS_TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2}  # bfloat16 keeps 8 bits: its rows can only agree to that
OPTIMISER_BYTES = 28  # AdamW reads 4 numbers of 4 bytes per parameter (value, gradient, two moments) and writes 3


@dataclass(frozen=True)
class Workload:
    """Rows, batch size and model. Lengths are in tokens, the prompt's with BOS, the completion's with EOS.

    `prompt` and `completion` are (least, most); None takes the small world's own questions and replies.
    """

    name: str
    batch_size: int
    prompt: tuple[int, int] | None = None
    completion: tuple[int, int] | None = None


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("small world", 16),
        Workload("classic", 8, (16, 48), (8, 24)),
        Workload("long", 4, (256, 256), (256, 256)),
    )
}
VOCABULARY = 32_000


# ---------------------------------------------------------------- rows and models


def word_tokenizer():
    """A tokenizer that knows the words w3, w4, ... and nothing else, so that a text has as many tokens as words."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from kto_utils.tokenizer import BOS, BOS_ID, EOS, PAD, SPECIAL_TOKENS

    words = [*SPECIAL_TOKENS, *(f"w{i}" for i in range(len(SPECIAL_TOKENS), VOCABULARY))]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=PAD))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL_TOKENS])
    backend.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, BOS_ID)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, bos_token=BOS, eos_token=EOS)


def rows_of(workload: Workload, n_rows: int) -> list[dict]:
    """Feedback rows with thumbs of both kinds; the same at each call."""
    rng = random.Random(0)
    if workload.prompt is None:
        from kto_utils import world

        questions = [rng.choice(world.trained_questions()) for _ in range(n_rows)]
        texts = [world.draw_reply(question, rng).text for question in questions]
        return [
            {"prompt": question.prompt, "completion": text, "label": world.judge(question, text)}
            for question, text in zip(questions, texts, strict=True)
        ]

    def text(n_tokens: int) -> str:
        return "".join(f" w{rng.randrange(3, VOCABULARY)}" for _ in range(n_tokens - 1))  # BOS or EOS is the last one

    return [
        {
            "prompt": text(rng.randint(*workload.prompt)),
            "completion": text(rng.randint(*workload.completion)),
            "label": rng.random() < 0.5,
        }
        for _ in range(n_rows)
    ]


def tokenizer_of(workload: Workload):
    from kto_utils.tokenizer import load_tokenizer

    return load_tokenizer() if workload.prompt is None else word_tokenizer()


def model_of(workload: Workload, dtype: str, device: str):
    """The shipped model for the small world, else the "classic" tiny Llama: hidden 256, 2 layers, 4 heads."""
    import torch

    from kto_utils.model import load_reference_model, tiny_llama

    if workload.prompt is not None:
        return tiny_llama(VOCABULARY).to(device, getattr(torch, dtype))
    shipped = load_reference_model()
    sizes = shipped.config
    model = tiny_llama(
        sizes.vocab_size, sizes.hidden_size, sizes.intermediate_size, sizes.num_hidden_layers,
        sizes.num_attention_heads, sizes.max_position_embeddings,
    )  # fmt: skip
    model.load_state_dict(shipped.state_dict())
    return model.to(device, getattr(torch, dtype))


def order_of(n_rows: int, batch_size: int) -> list[int]:
    """The rows in the order in which `train_kto` deals them in its first pass."""
    from kto_utils.train import Batches

    batches = Batches(n_rows, batch_size, seed=0)
    return [i for _ in range(n_rows // batch_size) for i in batches.draw()]


# ---------------------------------------------------------------- the contenders


def run_ours(workload: Workload, rows: list[dict], steps: int, dtype: str, device: str) -> list[float]:
    """`train.train_kto` with the reference scored beforehand; its losses."""
    from kto_lab.scored_reference import scored_beforehand
    from kto_utils.model import reference_of
    from kto_utils.train import Parts, train_kto

    policy = model_of(workload, dtype, device)
    _, history = train_kto(
        policy, reference_of(policy), rows, tokenizer_of(workload), steps=steps, batch_size=workload.batch_size,
        learning_rate=LEARNING_RATE, beta=BETA, max_grad_norm=MAX_GRAD_NORM, seed=0,
        parts=Parts(reference_logps=scored_beforehand),
    )  # fmt: skip
    return [row["loss"] for row in history]


def run_plain(workload: Workload, rows: list[dict], steps: int, dtype: str, device: str) -> list[float]:
    """The loop of lesson 07 with the scoring of lesson 05: all logits, the reference at each step; its losses."""
    import torch

    from kto_utils.collator import KTOPaddingCollator
    from kto_utils.data import tokenize_feedback
    from kto_utils.logprobs import get_probs
    from kto_utils.losses import kto_loss, reference_point
    from kto_utils.model import reference_of
    from kto_utils.train import Batches

    def score(model, batch, prefix=""):
        ids, seen, scored = (batch[prefix + field] for field in ("input_ids", "attention_mask", "label_mask"))
        return get_probs(model(input_ids=ids, attention_mask=seen, use_cache=False).logits, ids, scored).sum(-1)

    policy, tokenizer = model_of(workload, dtype, device), tokenizer_of(workload)
    reference = reference_of(policy)
    examples = [tokenize_feedback(row, tokenizer) for row in rows]
    collate, batches = KTOPaddingCollator(tokenizer), Batches(len(rows), workload.batch_size, seed=0)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        batch = collate([examples[i] for i in batches.draw()])
        batch = {name: values.to(device) for name, values in batch.items()}
        logps = score(policy, batch)
        with torch.no_grad():
            reference_logps = score(reference, batch)
            z0 = reference_point(score(policy, batch, "kl_"), score(reference, batch, "kl_"))
        loss = kto_loss(logps, reference_logps, batch["label"], z0, BETA).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        losses.append(loss.item())
    return losses


def run_trl(
    workload: Workload, rows: list[dict], steps: int, dtype: str, device: str, beforehand: bool = False
) -> list[float]:
    """TRL's `KTOTrainer.train` with its own default optimiser (fused AdamW); its losses.

    Gradient checkpointing, which TRL turns on by default, is off: it would slow TRL down, and nobody else has it.
    """
    import datasets
    import trl
    from transformers import PrinterCallback

    from kto_utils.model import reference_of

    datasets.disable_progress_bars()
    policy = model_of(workload, dtype, device)
    with tempfile.TemporaryDirectory() as folder:
        args = trl.KTOConfig(
            output_dir=folder, use_cpu=device == "cpu", bf16=False, report_to="none", save_strategy="no",
            disable_tqdm=True, logging_steps=1, gradient_checkpointing=False, train_sampling_strategy="sequential",
            per_device_train_batch_size=workload.batch_size, max_steps=steps, learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant", max_grad_norm=MAX_GRAD_NORM, beta=BETA,
            precompute_ref_log_probs=beforehand,
        )  # fmt: skip
        trainer = trl.KTOTrainer(
            model=policy,
            ref_model=None if beforehand else reference_of(policy),
            args=args,
            train_dataset=datasets.Dataset.from_list([rows[i] for i in order_of(len(rows), workload.batch_size)]),
            processing_class=tokenizer_of(workload),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def run_trl_beforehand(*arguments) -> list[float]:
    return run_trl(*arguments, beforehand=True)


RUNS: dict[str, Callable] = {
    "ours": run_ours, "plain": run_plain, "trl": run_trl, "trl_beforehand": run_trl_beforehand,
}  # fmt: skip


# ---------------------------------------------------------------- processes that take turns


def memory_bytes(peak: bool) -> int:
    """Of this process: resident now, or at most so far; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():
        name = "VmHWM:" if peak else "VmRSS:"
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, and always the peak


def _import_for(contender: str) -> None:
    import torch  # noqa: F401
    from transformers import LlamaForCausalLM  # noqa: F401

    import kto_utils.train  # noqa: F401

    if contender.startswith("trl"):
        import datasets  # noqa: F401
        from trl import KTOConfig, KTOTrainer  # noqa: F401


def _synchronise(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def _contend(connection, contender: str, workload: Workload, steps: int, dtype: str, device: str) -> None:
    """A contender's process: after each optimiser step it reports the seconds since its last turn and waits."""
    try:
        connection.recv()
        _quieten()
        _import_for(contender)
        imports = memory_bytes(peak=False)
        import torch
        from torch.optim.optimizer import register_optimizer_step_post_hook

        since = time.perf_counter()

        def end_of_turn(*_):
            nonlocal since
            _synchronise(device)
            connection.send(("step", time.perf_counter() - since))
            connection.recv()
            since = time.perf_counter()

        register_optimizer_step_post_hook(end_of_turn)
        beforehand: list[float] = []
        _time_calls("kto_lab.scored_reference", "ReferenceLogps._score_all", beforehand)
        _time_calls("trl", "KTOTrainer._precompute_ref_logps", beforehand)
        rows = rows_of(workload, steps * workload.batch_size)
        losses = RUNS[contender](workload, rows, steps, dtype, device)
        report = {
            "losses": losses,
            "seconds_beforehand": sum(beforehand),
            "peak_bytes": memory_bytes(peak=True),
            "import_bytes": imports,
        }
        if device != "cpu":
            report["device_peak_bytes"] = torch.cuda.max_memory_allocated()
        connection.send(("done", report))
    except Exception:
        connection.send(("failed", traceback.format_exc()))


def _quieten() -> None:
    import logging
    import warnings

    os.environ["TQDM_DISABLE"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def _time_calls(module: str, path: str, into: list[float]) -> None:
    """From now on each call of this method adds its seconds to the list; a module not imported stays so."""
    if module not in sys.modules:
        return
    owner, name = path.split(".")
    cls = getattr(sys.modules[module], owner)
    method = getattr(cls, name)

    def timed(*args, **kwargs):
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            into.append(time.perf_counter() - start)

    setattr(cls, name, timed)


def _yardstick(connection, steps: int, dtype: str, device: str) -> None:
    """The machine itself takes turns too: operations a second of a 2048^3 product, bytes a second of a copy."""
    try:
        connection.recv()
        import torch

        factor = torch.ones(2048, 2048, dtype=getattr(torch, dtype), device=device)
        product = torch.empty_like(factor)
        source = torch.ones(2**25, device=device)  # 128 MiB: no cache holds it
        target = torch.empty_like(source)
        for _ in range(steps):
            seconds = []
            for work in (lambda: torch.mm(factor, factor, out=product), lambda: target.copy_(source)):
                _synchronise(device)
                start = time.perf_counter()
                work()
                _synchronise(device)
                seconds.append(time.perf_counter() - start)
            connection.send(("step", (2 * 2048**3 / seconds[0], 2 * source.nbytes / seconds[1])))
            connection.recv()
        connection.send(("done", {}))
    except Exception:
        connection.send(("failed", traceback.format_exc()))


def take_turns(jobs: Mapping[str, tuple], steps: int, threads: int) -> tuple[dict[str, list], dict[str, dict]]:
    """Runs each job (function, *arguments) in a fresh process, one step of one process at a time.

    Args:
        jobs: by name; a function takes a connection and its arguments.
        steps: turns of each.
        threads: that each process may use.

    Returns:
        What each job sent for its steps, and its last report.

    Raises:
        RuntimeError: a process failed; the message has its traceback.
    """
    context = get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by the processes, which start fresh
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # a thread without work must not hold a core for long
    connections, processes = {}, []
    for name, (function, *arguments) in jobs.items():
        connections[name], theirs = context.Pipe()
        processes.append(context.Process(target=function, args=(theirs, *arguments), daemon=True))
        processes[-1].start()
        theirs.close()
    sent: dict[str, list] = {name: [] for name in jobs}
    reports = {}
    try:
        for turn in range(steps + 1):
            for name in reversed(jobs) if turn % 2 else jobs:  # nobody always follows the same one
                connections[name].send("go")
                try:
                    kind, value = connections[name].recv()
                except EOFError:
                    raise RuntimeError(f"the process of {name} ended without a word; was it short of memory?") from None
                if kind == "failed":
                    raise RuntimeError(f"{name} failed:\n{value}")
                if (kind == "done") is not (turn == steps):
                    raise RuntimeError(f"{name} took {turn} steps instead of {steps}")
                if kind == "done":
                    reports[name] = value
                else:
                    sent[name].append(value)
    finally:
        for process in processes:
            process.join(10) if len(reports) == len(jobs) else process.terminate()
    return sent, reports


# ---------------------------------------------------------------- the floor


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


# ---------------------------------------------------------------- one workload


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


# ---------------------------------------------------------------- how the cost grows


def _grow(connection, device: str) -> None:
    """Seconds of our scoring pass (forward and backward, no optimiser) over rows, completion and prompt length."""
    try:
        connection.recv()
        _quieten()
        connection.send(("step", growth(device)))
        connection.recv()
        connection.send(("done", {}))
    except Exception:
        connection.send(("failed", traceback.format_exc()))


def growth(device: str, repeats: int = 7, largest: int = 64) -> dict:
    """Medians of a scoring pass with the classic model, in seconds, by what grows.

    `rows` and `completion` are whole passes (prompts of 32, completions of 32 tokens, 16 rows unless they grow);
    `head` and `plain_head` are the head and the softmax alone on given hidden states, while the prompt grows.
    """
    import torch

    from kto_utils.logprobs import _ChosenLogProbability, get_probs, sequence_logps
    from kto_utils.model import tiny_llama

    model = tiny_llama(VOCABULARY, max_length=1024).to(device)
    generator = torch.Generator().manual_seed(0)

    def batch_of(n_rows: int, prompt: int, completion: int) -> dict:
        ids = torch.randint(3, VOCABULARY, (n_rows, prompt + completion), generator=generator).to(device)
        scored = (torch.arange(prompt + completion, device=device) >= prompt).expand(n_rows, -1)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "label_mask": scored}

    def seconds(work: Callable[[], torch.Tensor]) -> float:
        times = []
        for _ in range(repeats + 2):
            model.zero_grad(set_to_none=True)
            _synchronise(device)
            start = time.perf_counter()
            work().backward()
            _synchronise(device)
            times.append(time.perf_counter() - start)
        return statistics.median(times[2:])

    def whole_pass(*shape: int) -> float:
        batch = batch_of(*shape)
        return seconds(lambda: sequence_logps(model, batch).sum())

    def heads(prompt: int) -> tuple[float, float]:
        batch = batch_of(8, prompt, 16)
        ids, scored = batch["input_ids"], batch["label_mask"]
        with torch.no_grad():
            hidden = model.model(input_ids=ids).last_hidden_state
        hidden.requires_grad_()
        places, targets = scored.roll(-1, dims=1), ids[scored]  # the roll moves no scored place round the end

        def fast() -> torch.Tensor:
            return _ChosenLogProbability.apply(model.lm_head(hidden[places]), targets).sum()

        return seconds(fast), seconds(lambda: get_probs(model.lm_head(hidden), ids, scored).sum())

    sizes = [size for size in (4, 8, 16, 32, 64, 128) if size <= largest]
    prompts = [16 * size // 4 for size in sizes]
    head_times = [heads(prompt) for prompt in prompts]
    return {
        "sizes": sizes,
        "rows": [whole_pass(size, 32, 32) for size in sizes],
        "completion": [whole_pass(16, 32, size) for size in sizes],
        "prompts": prompts,
        "head": [fast for fast, _ in head_times],
        "plain_head": [plain for _, plain in head_times],
    }


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """k of the law seconds = a + c * size^k that fits best (least squares of relative errors, a at least 0).

    The constant a holds what every pass costs, such as clearing the embedding's gradient; 1 is linear.
    """

    def error(k: float) -> float:
        # Relative errors: both sides are divided by the seconds, and (a, c) is a linear least-squares problem.
        one, power = [1 / t for t in seconds], [s**k / t for s, t in zip(sizes, seconds, strict=True)]
        products = ((one, one), (one, power), (power, power))
        aa, ab, bb = (sum(x * y for x, y in zip(u, v, strict=True)) for u, v in products)
        a1, b1 = sum(one), sum(power)
        det = aa * bb - ab * ab
        a = max(0.0, (a1 * bb - b1 * ab) / det) if det else 0.0
        c = (b1 - a * ab) / bb
        return sum((a * x + c * y - 1) ** 2 for x, y in zip(one, power, strict=True))

    candidates = [i / 100 for i in range(20, 301)]
    return min(candidates, key=error)


# ---------------------------------------------------------------- where the time goes


def _profile(connection, workload: Workload, dtype: str, device: str) -> None:
    try:
        connection.recv()
        _quieten()
        connection.send(("step", profile(workload, dtype, device)))
        connection.recv()
        connection.send(("done", {}))
    except Exception:
        connection.send(("failed", traceback.format_exc()))


def profile(workload: Workload, dtype: str, device: str, repeats: int = 9) -> dict[str, float]:
    """Median seconds of each part of our step, and of two alternatives to its scoring (names with "instead").

    The alternatives: all logits by `get_probs`; and the head in blocks of 32 places, which stay in the cache.
    """
    import torch
    import torch.nn.functional as F

    from kto_utils import logprobs
    from kto_utils.collator import KTOPaddingCollator
    from kto_utils.data import tokenize_feedback
    from kto_utils.logprobs import sequence_logps
    from kto_utils.losses import kto_loss

    policy, tokenizer = model_of(workload, dtype, device), tokenizer_of(workload)
    examples = [tokenize_feedback(row, tokenizer) for row in rows_of(workload, workload.batch_size)]
    optimizer = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    seconds: dict[str, list[float]] = {}

    def timed(name: str, work: Callable):
        _synchronise(device)
        start = time.perf_counter()
        result = work()
        _synchronise(device)
        seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    batch = KTOPaddingCollator(tokenizer)(examples)
    batch = {name: values.to(device) for name, values in batch.items()}
    ids, seen, scores = (batch[field] for field in ("input_ids", "attention_mask", "label_mask"))

    def all_logits() -> torch.Tensor:
        logits = policy(input_ids=ids, attention_mask=seen, use_cache=False).logits
        return logprobs.get_probs(logits, ids, scores).sum(-1)

    def in_blocks() -> torch.Tensor:
        hidden = policy.model(input_ids=ids, attention_mask=seen, use_cache=False).last_hidden_state
        scored = scores[:, 1:].bool()
        parts = zip(hidden[:, :-1][scored].split(32), ids[:, 1:][scored].split(32), strict=True)
        chosen = [logprobs._ChosenLogProbability.apply(F.linear(h, policy.lm_head.weight).float(), t) for h, t in parts]
        table = torch.zeros(scored.shape, device=ids.device).masked_scatter(scored, torch.cat(chosen))
        return table.sum(-1)

    def mean_loss(logps: torch.Tensor) -> torch.Tensor:
        return kto_loss(logps, logps.detach(), batch["label"], 0.0, BETA).mean()

    alternatives = {
        "all logits instead, both ways": all_logits,
        "head in blocks of 32 places instead, both ways": in_blocks,
        "as it is, both ways": lambda: sequence_logps(policy, batch),
    }
    for _ in range(repeats):
        timed("collate", lambda: KTOPaddingCollator(tokenizer)(examples))
        with torch.no_grad():
            timed("mismatched rows, forward", lambda: sequence_logps(policy, batch, "kl_"))
        for name, score in alternatives.items():
            policy.zero_grad(set_to_none=True)
            timed(name, lambda score=score: score().sum().backward())
        policy.zero_grad(set_to_none=True)
        logps = timed("rows, forward", lambda: sequence_logps(policy, batch))
        loss = timed("loss", functools.partial(mean_loss, logps))
        timed("rows, backward", loss.backward)
        timed("clipping", lambda: torch.nn.utils.clip_grad_norm_(list(policy.parameters()), MAX_GRAD_NORM))
        timed("AdamW, fused", optimizer.step)
    return {name: statistics.median(values[2:]) for name, values in seconds.items()}


# ---------------------------------------------------------------- targets, table, figures


@dataclass(frozen=True)
class Target:
    """A promise and what the run says about it; `found` must be at least (or at most) `limit`."""

    text: str
    found: float
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.found >= self.limit if self.at_least else self.found <= self.limit


def targets_of(results: Mapping) -> list[Target]:
    """The promises that these results can say something about; a void row keeps none."""
    targets = []
    for run in results["runs"]:
        name = run["workload"]["name"]
        if run["device"] != "cpu" or run["dtype"] != "float32":
            continue
        void = {contender: is_void(run, contender) for contender in run["contenders"]}

        def promise(text: str, found: float, limit: float, at_least: bool, *of: str, void=void) -> None:
            broken = -math.inf if at_least else math.inf
            targets.append(Target(text, broken if any(void[one] for one in of) else found, limit, at_least))

        if name == "classic":
            promise("classic: TRL / train_kto, seconds", ratio(run, "trl", "ours")[0], 8.0, True, "ours", "trl")
            promise(
                "classic: TRL with reference beforehand / train_kto, seconds",
                ratio(run, "trl_beforehand", "ours")[0], 5.0, True, "ours", "trl_beforehand",
            )  # fmt: skip
            promise("classic: train_kto / floor, seconds", over_floor(run), 1.5, False, "ours")
        if name in ("classic", "long"):
            limit = 0.6 if name == "classic" else 0.5
            for above, words in ((False, "peak memory"), (True, "peak memory above the imports")):
                found = memory_ratio(run, above)
                promise(f"{name}: train_kto / TRL, {words}", found, limit, False, "ours", "trl")
    return targets


def table(results: Mapping) -> str:
    """What `python course.py bench` prints."""
    machine = results["machine"]
    lines = [
        f"{machine['cores']} cores of {machine['processor']}, {results['threads']} threads, torch {machine['torch']}, "
        f"TRL {machine['trl']}",
        "seconds per step: median (least to most) of "
        f"{len(results['runs'][0]['contenders']['ours']['seconds'])} steps after {WARM_UP}; memory: peak of a fresh "
        "process (above its imports)",
    ]
    for run in results["runs"]:
        workload, facts = run["workload"], run["facts"]
        products, traffic = floor_of(run)
        lines += [
            "",
            f"{workload['name']}: batch {workload['batch_size']}, {facts['parameters'] / 1e6:.1f} M parameters, "
            f"{run['dtype']}, on {run['device']}",
            f"{'':32s}{'seconds per step':>30s}{'x ours':>8s}{'tokens/s':>10s}{'memory, MB':>16s}{'once, s':>9s}"
            f"{'loss gap':>10s}",
        ]
        for name, row in run["contenders"].items():
            seconds = statistics.median(row["seconds"])
            span = f"{seconds:.4f} ({min(row['seconds']):.4f} to {max(row['seconds']):.4f})"
            above = (row["peak_bytes"] - row["import_bytes"]) / 1e6
            if is_void(run, name):
                lines.append(f"{CONTENDERS[name]:32s}{'void: losses differ by':>30s} {loss_gap(run, name):.1e}")
                continue
            lines.append(
                f"{CONTENDERS[name]:32s}{span:>30s}{ratio(run, name, 'ours')[0]:8.2f}"
                f"{facts['completion_tokens'] / seconds:10.0f}{row['peak_bytes'] / 1e6:9.0f} ({above:4.0f})"
                f"{row['seconds_beforehand']:9.2f}{loss_gap(run, name):10.0e}"
            )
        lines.append(
            f"floor: {products + traffic:.4f} s = {facts['products'] / 1e9:.2f} G operations at "
            f"{statistics.median(run['product_rates']) / 1e9:.0f} G/s: {products:.4f} s, and {OPTIMISER_BYTES} bytes a "
            f"parameter at {statistics.median(run['copy_rates']) / 1e9:.1f} GB/s: {traffic:.4f} s; "
            f"train_kto takes {over_floor(run):.2f} times as long"
        )
    growth_of = results["growth"]
    lines += ["", "cost of our scoring pass, exponent k of a + c * n^k (1 is linear):"]
    lines += [
        f"  over {name}: {exponent(growth_of['sizes'], growth_of[key]):.2f}"
        for key, name in (("rows", "rows"), ("completion", "completion tokens"))
    ]
    first, last = growth_of["prompts"][0], growth_of["prompts"][-1]
    lines.append(
        f"  head and softmax, prompt of {last} over prompt of {first} tokens: "
        f"ours {growth_of['head'][-1] / growth_of['head'][0]:.2f}, "
        f"plain {growth_of['plain_head'][-1] / growth_of['plain_head'][0]:.2f} times"
    )
    targets = targets_of(results)
    if targets:
        lines += ["", "targets:"]
        lines += [
            f"  {'met   ' if target.met else 'MISSED'} {target.text}: {target.found:.2f} "
            f"(wanted: at {'least' if target.at_least else 'most'} {target.limit})"
            for target in targets
        ]
    for name, parts in results.get("profiles", {}).items():
        lines += ["", f"{name}: seconds of the parts of our step, and of the alternatives"]
        lines += [f"  {seconds:9.5f}  {part}" for part, seconds in parts.items()]
    return "\n".join(lines)


def draw_figures(results: Mapping) -> list[Path]:
    """Seconds per step, memory, loss curves and growth, as figures/bench_*.png with alt texts."""
    import matplotlib.pyplot as plt

    from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, save_figure, use_course_style

    use_course_style()
    colours = dict(zip(CONTENDERS, (ACCENT, NEUTRAL, DOWN, UP), strict=True))
    runs, paths = results["runs"], []
    titles = [f"{run['workload']['name']}\n{run['dtype']}, {run['device']}" for run in runs]

    def panels(width: float = 3.6):
        fig, axes = plt.subplots(1, len(runs), figsize=(max(7.2, width * len(runs)), 3.8), squeeze=False)
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title, fontsize=11)
        return fig, axes[0]

    def bars(ax, run: Mapping, values: Mapping[str, float], form: str) -> None:
        for name, value in values.items():
            ax.bar(name.replace("_", "\n"), value, color=colours[name])
            text = "void" if is_void(run, name) else form.format(value)
            ax.annotate(text, (name.replace("_", "\n"), value), ha="center", va="bottom", fontsize=9)
        ax.tick_params(axis="x", labelsize=9)
        ax.grid(axis="x", visible=False)
        ax.margins(y=0.15)

    fig, axes = panels()
    spoken = []
    for ax, run in zip(axes, runs, strict=True):
        medians = {name: statistics.median(row["seconds"]) for name, row in run["contenders"].items()}
        bars(ax, run, medians, "{:.3f}")
        ax.axhline(sum(floor_of(run)), color="black", linestyle=":", linewidth=1.5)
        listed = ", ".join(f"{CONTENDERS[name]} {value:.3f}" for name, value in medians.items())
        spoken.append(f"{run['workload']['name']}: {listed}, floor {sum(floor_of(run)):.3f}")
    axes[0].set_ylabel("seconds per step\n(dotted: floor)")
    paths.append(save_figure(fig, "bench_step", "Bars of the median seconds per step. " + "; ".join(spoken) + "."))
    plt.close(fig)

    fig, axes = panels()
    spoken = []
    for ax, run in zip(axes, runs, strict=True):
        peaks = {name: row["peak_bytes"] / 1e6 for name, row in run["contenders"].items()}
        bars(ax, run, peaks, "{:.0f}")
        for name, row in run["contenders"].items():
            ax.bar(name.replace("_", "\n"), row["import_bytes"] / 1e6, color="white", alpha=0.55)
        listed = ", ".join(f"{CONTENDERS[name]} {value:.0f}" for name, value in peaks.items())
        spoken.append(f"{run['workload']['name']}: {listed}")
    axes[0].set_ylabel("peak memory, MB\n(pale: the imports)")
    alt = "Bars of the peak memory in MB of a fresh process, the part of the imports pale. " + "; ".join(spoken) + "."
    paths.append(save_figure(fig, "bench_memory", alt))
    plt.close(fig)

    fig, axes = panels()
    for ax, run in zip(axes, runs, strict=True):
        for (name, row), style in zip(run["contenders"].items(), ("-", "--", "-.", ":"), strict=False):
            steps = range(1, len(row["losses"]) + 1)
            ax.plot(steps, row["losses"], linestyle=style, color=colours[name], label=CONTENDERS[name])
        ax.set_xlabel("step")
    axes[0].set_ylabel("loss")
    axes[0].legend(fontsize=8)
    gaps = ", ".join(
        f"{run['workload']['name']} {max(loss_gap(run, name) for name in run['contenders']):.0e}" for run in runs
    )
    alt = f"Loss curves of all contenders lie on each other in every panel; largest difference: {gaps}."
    paths.append(save_figure(fig, "bench_losses", alt))
    plt.close(fig)

    growth_of = results["growth"]
    fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.8))
    exponents = {}
    for key, name, colour, marker in (("rows", "rows", UP, "o"), ("completion", "completion tokens", ACCENT, "s")):
        exponents[name] = exponent(growth_of["sizes"], growth_of[key])
        label = f"{name}: exponent {exponents[name]:.2f}"
        axes[0].plot(growth_of["sizes"], growth_of[key], marker=marker, color=colour, label=label)
    axes[0].set(title="A scoring pass, both ways", xlabel="rows, or completion tokens a row", ylabel="seconds")
    axes[1].plot(growth_of["prompts"], growth_of["plain_head"], "o--", color=NEUTRAL, label="all logits")
    axes[1].plot(growth_of["prompts"], growth_of["head"], "o-", color=ACCENT, label="completion's logits only")
    axes[1].set(title="The head's share", xlabel="prompt tokens a row", ylabel="seconds")
    for ax in axes:
        ax.set_ylim(bottom=0)
        ax.legend(fontsize=9)
    listed = " and ".join(f"{value:.2f} for {name}" for name, value in exponents.items())
    alt = (
        f"Left: seconds of a scoring pass grow in a line, exponent {listed}. Right: the head's seconds over the "
        f"prompt's length, from {growth_of['head'][0]:.3f} to {growth_of['head'][-1]:.3f} with the completion's logits "
        f"only, from {growth_of['plain_head'][0]:.3f} to {growth_of['plain_head'][-1]:.3f} with all."
    )
    paths.append(save_figure(fig, "bench_growth", alt))
    plt.close(fig)
    return paths


# ---------------------------------------------------------------- the command


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
    results["growth"] = take_turns({"growth": (_grow, "cpu")}, 1, threads)[0]["growth"][0]
    if not all(target.met for target in targets_of(results)):
        results["profiles"] = {
            name: take_turns({"profile": (_profile, WORKLOADS[name], "float32", "cpu")}, 1, threads)[0]["profile"][0]
            for name in names
        }
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

    temporary = file.with_name(file.name + ".part")
    temporary.write_text(json.dumps(short(dict(results)), indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, file)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="course.py bench", description="What a KTO step costs on this machine.")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)}; default: all")
    parser.add_argument("--steps", type=int, default=TIMED, help=f"timed steps (default {TIMED})")
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: all cores")
    parser.add_argument("--show", action="store_true", help="print the stored results instead of measuring")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.workloads) - set(WORKLOADS):
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    if chosen.steps < 1 or chosen.threads < 1:
        parser.error("--steps and --threads must be at least 1")
    if chosen.show:
        print(table(load_results()))
        return
    results = run_all(chosen.workloads or list(WORKLOADS), chosen.steps, chosen.threads)
    print("\n" + table(results))
    if chosen.workloads or chosen.steps != TIMED:
        print("\nnot stored: only a run of all workloads with the default number of steps is")
        return
    write_results(results)
    for path in draw_figures(results):
        print(f"wrote {path.name}")
    print(f"wrote {RESULTS_FILE.name}")


if __name__ == "__main__":
    main()
