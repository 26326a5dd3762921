"""How the cost of a step grows with rows and tokens, and where its time goes."""

import functools
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence

from kto_lab.bench.turns import _quieten, _synchronise
from kto_lab.bench.workloads import (
    BETA,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    VOCABULARY,
    Workload,
    model_of,
    rows_of,
    tokenizer_of,
)


def serve_growth(connection, device: str) -> None:
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


def serve_profile(connection, workload: Workload, dtype: str, device: str) -> None:
    try:
        connection.recv()
        _quieten()
        connection.send(("step", profile(workload, dtype, device)))
        connection.recv()
        connection.send(("done", {}))
    except Exception:
        connection.send(("failed", traceback.format_exc()))


def _scorings(policy, batch: Mapping) -> dict[str, Callable]:
    """Our scoring of a batch and two alternatives; each call gives (B,) log-probabilities with their graph."""
    import torch
    import torch.nn.functional as F

    from kto_utils import logprobs

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

    return {
        "all logits instead, both ways": all_logits,
        "head in blocks of 32 places instead, both ways": in_blocks,
        "as it is, both ways": lambda: logprobs.sequence_logps(policy, batch),
    }


def profile(workload: Workload, dtype: str, device: str, repeats: int = 9) -> dict[str, float]:
    """Median seconds of each part of our step, and of two alternatives to its scoring (names with "instead").

    The alternatives: all logits by `get_probs`; and the head in blocks of 32 places, which stay in the cache.
    """
    import torch

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
    def mean_loss(logps: torch.Tensor) -> torch.Tensor:
        return kto_loss(logps, logps.detach(), batch["label"], 0.0, BETA).mean()

    alternatives = _scorings(policy, batch)
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
