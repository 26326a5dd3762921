"""The four loops that are compared: ours, the plain one of lesson 07, TRL's, TRL's with the reference beforehand."""

import tempfile
from collections.abc import Callable

from kto_lab.bench.workloads import BETA, LEARNING_RATE, MAX_GRAD_NORM, Workload, model_of, order_of, tokenizer_of


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
