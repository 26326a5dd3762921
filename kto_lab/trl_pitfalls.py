"""Three things in TRL 1.16 that spoil KTO's pairing without an error, counted by running TRL. Taught in lesson 12."""

import copy
import tempfile


def trl_batches(rows: list[dict], batch_size: int, **arguments) -> list[list[dict]]:
    """The batches that TRL makes of these rows: texts of prompt, completion, borrowed completion, and the label."""
    from datasets import Dataset, disable_progress_bars
    from trl import KTOConfig, KTOTrainer

    from kto_utils.model import tiny_llama
    from kto_utils.tokenizer import load_tokenizer

    disable_progress_bars()
    tokenizer = load_tokenizer()
    model = tiny_llama(len(tokenizer), hidden_size=8, intermediate_size=8, num_layers=1, num_heads=2)
    with tempfile.TemporaryDirectory() as folder:
        args = KTOConfig(
            output_dir=folder, use_cpu=True, bf16=False, report_to="none", per_device_train_batch_size=batch_size,
            remove_unused_columns=False, max_length=None, **arguments,
        )  # fmt: skip
        trainer = KTOTrainer(
            model, copy.deepcopy(model), args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )
        prepared = trainer.train_dataset
        trainer.data_collator = list  # the rows themselves instead of padded tensors
        batches = list(trainer.get_train_dataloader())
    assert sum(map(len, batches)) <= len(prepared)
    names = {"prompt_ids": "prompt", "completion_ids": "completion", "KL_completion_ids": "borrowed"}
    return [
        [{new: tokenizer.decode(row[old]) for old, new in names.items()} | {"label": row["label"]} for row in batch]
        for batch in batches
    ]


def numbered_rows(n: int) -> list[dict]:
    """n rows whose prompt and completion carry the row's number, thumbs up and down in turn."""
    return [{"prompt": f"Question {i}:", "completion": f" reply {i}", "label": i % 2 == 0} for i in range(n)]


def numbered_pairs(n: int) -> list[dict]:
    """n pairs whose texts carry the pair's number."""
    return [{"prompt": f"Question {i}:", "chosen": f" good {i}", "rejected": f" bad {i}"} for i in range(n)]


def examine(batches: list[list[dict]]) -> dict[str, int]:
    """Counts what is wrong with batches of `trl_batches`.

    Returns:
        dict of `batches`; `mixed`, those with both kinds of thumb; `own`, rows whose borrowed completion is their own;
        `foreign`, batches that borrow from rows outside.
    """
    rows = [row for batch in batches for row in batch]
    return {
        "batches": len(batches),
        "mixed": sum(len({row["label"] for row in batch}) == 2 for batch in batches),
        "own": sum(row["completion"] == row["borrowed"] for row in rows),
        "foreign": sum(
            {row["completion"] for row in batch} != {row["borrowed"] for row in batch} for batch in batches
        ),
    }  # fmt: skip


def pitfalls() -> dict[str, dict[str, int]]:
    """Each of TRL's three pitfalls and its remedy, as counted on the batches that TRL makes."""
    from kto_utils.data import unpair

    pairs, eighteen, nine = numbered_pairs(2500), numbered_rows(18), numbered_rows(9)
    return {
        "pairs handed over as they are": examine(trl_batches(pairs, 8)),
        "pairs cut and shuffled first": examine(trl_batches(unpair(pairs, seed=0), 8)),
        "two workers prepare 18 rows": examine(trl_batches(eighteen, 4, dataset_num_proc=2)),
        "one worker prepares 18 rows": examine(trl_batches(eighteen, 4)),
        "9 rows, batches of 4": examine(trl_batches(nine, 4)),
        "9 rows, batches of 4, last one dropped": examine(trl_batches(nine, 4, dataloader_drop_last=True)),
    }
