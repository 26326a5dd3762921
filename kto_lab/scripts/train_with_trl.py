"""Trains a model on thumbs with TRL's KTOTrainer: one process or many, full weights or LoRA. Taught in lesson 12.

    cd kto_lab/scripts
    accelerate launch --config_file two_processes_cpu.yaml train_with_trl.py small_world.json

The JSON file names the model, the rows and every argument of KTOConfig and LoraConfig; README.md beside it lists the
files that are ready. The script needs trl, peft and accelerate, and nothing of this course: copy it anywhere.
"""

import argparse
import json
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset, load_dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import KTOConfig, KTOTrainer, extract_prompt, unpair_preference_dataset

ON_A_CPU = {"use_cpu": True, "bf16": False, "fp16": False}


def load_rows(source: str, split: str, seed: int) -> Dataset:
    """Thumbs (prompt, completion, label) in random order, from a JSONL file or a data set's name; pairs are cut in two.

    TRL cuts pairs itself if it gets any, chosen rows first, and never shuffles: batches would hold one kind of thumb.
    """
    if Path(source).is_file():
        rows = load_dataset("json", data_files=source, split="train")
    else:
        rows = load_dataset(source, split=split)
    if "chosen" in rows.column_names:
        if "prompt" not in rows.column_names:
            rows = rows.map(extract_prompt)
        rows = unpair_preference_dataset(rows.select_columns(["prompt", "chosen", "rejected"]))
    return rows.select_columns(["prompt", "completion", "label"]).shuffle(seed=seed)


def share_of_mixed_batches(labels: list[bool], batch_size: int) -> float:
    """How many of the full batches, read in order, hold both kinds of thumb."""
    batches = [labels[i : i + batch_size] for i in range(0, len(labels) - batch_size + 1, batch_size)]
    return sum(len(set(batch)) == 2 for batch in batches) / max(1, len(batches))


def weights_from_counts(labels: list[bool]) -> dict[str, float]:
    """Weights that give both kinds of thumb the same total, the smaller weight being 1."""
    up = sum(labels)
    down = len(labels) - up
    if not up or not down:
        raise ValueError(f"{up} thumbs up and {down} down: KTO needs both kinds")
    return {"desirable_weight": max(1.0, down / up), "undesirable_weight": max(1.0, up / down)}


def arguments_of(settings: dict, labels: list[bool], output: str, cpu: bool) -> KTOConfig:
    """TRL's arguments; the ones that guard against its pitfalls are set here, whatever the file says."""
    arguments = weights_from_counts(labels) | settings["kto"] | (ON_A_CPU if cpu else {})
    if cpu:
        arguments["model_init_kwargs"] = {"dtype": "float32"}
    return KTOConfig(
        output_dir=output,
        seed=settings["seed"],
        dataset_num_proc=None,  # several workers would rotate completions across other groups than the batches
        dataloader_drop_last=True,  # a last batch of one would be "mismatched" with itself
        per_device_eval_batch_size=settings["kto"]["per_device_train_batch_size"],  # rotation uses this size for both
        **arguments,
    )


def merge(model: str, adapter: Path, merged: Path) -> None:
    """Adds a LoRA adapter to the weights it was trained on, so that the result is an ordinary model again."""
    base = AutoModelForCausalLM.from_pretrained(model)
    PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().save_pretrained(merged)
    AutoTokenizer.from_pretrained(model).save_pretrained(merged)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a model on thumbs with TRL's KTOTrainer.")
    parser.add_argument("settings", help="a JSON file such as kto_lab/scripts/small_world.json")
    parser.add_argument("--model", help="a folder or a hub name instead of the file's")
    parser.add_argument("--rows", help="a JSONL file or a hub name instead of the file's")
    parser.add_argument("--output", default="runs/trl", help="folder for checkpoints and the result")
    parser.add_argument("--steps", type=int, help="stop after so many optimiser steps")
    parser.add_argument("--cpu", action="store_true", help="train in float32 without a GPU")
    options = parser.parse_args()

    settings = json.loads(Path(options.settings).read_text(encoding="utf-8"))
    settings["model"] = options.model or settings["model"]
    settings["rows"] = options.rows or settings["rows"]
    if options.steps:
        settings["kto"]["max_steps"] = options.steps

    here = PartialState(cpu=options.cpu)
    with here.main_process_first():  # the others read what the first one has put into the cache
        rows = load_rows(settings["rows"], settings["split"], settings["seed"])
    labels = list(rows["label"])
    args = arguments_of(settings, labels, options.output, options.cpu)
    mixed = share_of_mixed_batches(labels, args.per_device_train_batch_size)
    here.print(
        f"{here.num_processes} processes, {len(labels)} rows, {sum(labels)} thumbs up, "
        f"batches with both kinds {mixed:.0%}, weights {args.desirable_weight:.3f} and {args.undesirable_weight:.3f}"
    )

    trainer = KTOTrainer(
        model=settings["model"],
        args=args,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(settings["model"]),
        peft_config=LoraConfig(**settings["lora"]) if settings["lora"] else None,
    )
    here.print(f"weights {'cut into shards by FSDP' if trainer.is_fsdp_enabled else 'whole in every process'}")
    trainer.train()
    trained, merged = Path(options.output) / "trained", Path(options.output) / "merged"
    trainer.save_model(str(trained))  # full weights, or the adapter alone
    trainer.save_state()
    here.wait_for_everyone()
    if here.is_main_process and settings["lora"]:
        merge(settings["model"], trained, merged)
    here.print(f"wrote {(merged if settings['lora'] else trained).name}")
    here.destroy_process_group()


if __name__ == "__main__":
    main()
