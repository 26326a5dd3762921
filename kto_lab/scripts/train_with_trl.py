"""Trains a model on thumbs with TRL's KTOTrainer: one process or many, full weights or LoRA. Taught in lesson 12.

    cd kto_lab/scripts
    accelerate launch --config_file two_processes_cpu.yaml train_with_trl.py small_world.json

The JSON file names the model, the rows and every argument of KTOConfig and LoraConfig; README.md beside it lists the
files that are ready. The script needs trl, peft and accelerate, and nothing of this course: copy its folder anywhere.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset
from peft import LoraConfig, PeftConfig, PeftModel
from rows import (
    batch_for_mixed,
    check_enough,
    check_special_tokens,
    cut_by_prompt,
    load_rows,
    prompt_key,
    share_of_mixed_batches,
    weights_from_counts,
)
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trl import KTOConfig, KTOTrainer, SFTConfig, SFTTrainer
from watch import Watch, check_options

ON_A_CPU = {"use_cpu": True, "bf16": False, "fp16": False}
SETTINGS = {"model", "rows", "split", "eval_rows", "eval_share", "seed", "lora", "kto", "watch"}


def check_settings(settings: Mapping) -> None:
    """Refuses settings that are unknown or missing, and options that would do nothing."""
    if set(settings) != SETTINGS:
        odd = sorted(set(settings) ^ SETTINGS)
        raise ValueError(f"{', '.join(odd)} is missing or unknown; the settings are {', '.join(sorted(SETTINGS))}")
    if missing := {"per_device_train_batch_size", "learning_rate", "beta"} - set(settings["kto"]):
        raise ValueError(f"kto: {', '.join(sorted(missing))} is missing; say it, a run should not hang on a default")
    kto, evaluated = settings["kto"], settings["eval_rows"] is not None or settings["eval_share"] is not None
    if unknown := set(kto) - {field.name for field in dataclasses.fields(KTOConfig) if field.init}:
        raise ValueError(f"KTOConfig does not know {', '.join(sorted(unknown))}")
    if settings["eval_rows"] is not None and settings["eval_share"] is not None:
        raise ValueError("eval_rows and eval_share are both given; take rows of your own or a share, not both")
    for name, useless in {
        "watch": settings["watch"] is not None and not evaluated,
        "eval_strategy": kto.get("eval_strategy", "no") != "no" and not evaluated,
        "warmup_steps": bool(kto.get("warmup_steps")) and kto.get("lr_scheduler_type") == "constant",
        "save_steps": "save_steps" in kto and kto.get("save_strategy") == "no",
        "eval_steps": "eval_steps" in kto and kto.get("eval_strategy", "no") != "steps",
        "eval_rows or eval_share": evaluated and settings["watch"] is None and kto.get("eval_strategy", "no") == "no",
    }.items():
        if useless:
            raise ValueError(f"{name} does nothing with the other settings; take it out or set what it needs")
    if kto.get("max_steps") == 0:
        raise ValueError("max_steps is 0: a run of no step trains nothing; -1 goes by num_train_epochs")
    if settings["watch"] is not None:
        check_options(settings["watch"])
        if kto.get("precompute_ref_log_probs") and not settings["lora"]:
            raise ValueError("watch compares with the reference, and precompute_ref_log_probs gives it away; drop one")


def check_model(source: str, settings: Mapping) -> None:
    """Looks at a model's files before its weights are loaded."""
    adapter = Path(source) / "adapter_config.json"
    if adapter.is_file():
        config = PeftConfig.from_pretrained(source)
        why = (
            "its virtual tokens shift scores against masks, and the reference has none; train LoRA instead"
            if config.is_prompt_learning
            else "merge it into its model first (PeftModel.merge_and_unload), then name the merged folder"
        )
        raise ValueError(f"{source} is an adapter of the type {config.peft_type.value}: {why}")
    positions = getattr(AutoConfig.from_pretrained(source).get_text_config(), "max_position_embeddings", None)
    longest = settings["kto"].get("max_length", KTOConfig.max_length)
    if positions and (longest is None or longest > positions):
        raise ValueError(f"max_length is {longest} and the model knows {positions} positions; set it to {positions}")


def arguments_of(settings: Mapping, labels: Sequence[bool], output: str, cpu: bool) -> KTOConfig:
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


def rows_of(settings: Mapping, most: int | None) -> tuple[list[dict], list[dict]]:
    """(training, evaluation) rows, checked."""
    rows, held_out = load_rows(settings["rows"], settings["split"], settings["seed"]), []
    if settings["eval_rows"] is not None:
        held_out = load_rows(settings["eval_rows"], settings["split"], settings["seed"])
        seen = {prompt_key(row) for row in rows}
        if both := [row["where"] for row in held_out if prompt_key(row) in seen]:
            raise ValueError(
                f"{len(both)} of {len(held_out)} evaluation rows ask what a training row asks, the first is {both[0]}: "
                "they would be remembered, not judged. Cut by prompt (eval_share, or course.py split)"
            )
    elif settings["eval_share"] is not None:
        rows, held_out = cut_by_prompt(rows, settings["eval_share"], settings["seed"])
    return rows[:most], held_out


def describe(labels: Sequence[bool], args: KTOConfig, processes: int) -> str:
    """One line on the rows, and the remedy where too few steps see both kinds of thumb."""
    step = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes
    mixed, up = share_of_mixed_batches(labels, step), sum(labels)
    text = (
        f"{processes} processes, {len(labels)} rows, {up} thumbs up, steps of {step} rows, of which with both kinds "
        f"{mixed:.0%}, weights {args.desirable_weight:.3f} and {args.undesirable_weight:.3f}"
    )
    if mixed < 0.9:
        wanted = batch_for_mixed(labels)
        factor = -(-wanted // (args.per_device_train_batch_size * processes))
        text += f"\nin the others one kind pulls alone; of {wanted} rows nearly all are mixed: set "
        text += f"gradient_accumulation_steps to {factor}"
    return text


def trainer_of(settings: Mapping, args: KTOConfig, train: list[dict], held_out: list[dict], tokenizer, sft: bool):
    """TRL's trainer: KTO, or as baseline SFT on the thumbs-up alone."""
    lora = LoraConfig(**settings["lora"]) if settings["lora"] else None
    common = {"model": settings["model"], "processing_class": tokenizer, "peft_config": lora}
    sets = [[{k: v for k, v in row.items() if k != "where"} for row in rows] for rows in (train, held_out)]
    if not sft:
        evaluation = Dataset.from_list(sets[1]) if held_out and args.eval_strategy != "no" else None
        return KTOTrainer(args=args, train_dataset=Dataset.from_list(sets[0]), eval_dataset=evaluation, **common)
    liked = [{"prompt": row["prompt"], "completion": row["completion"]} for row in sets[0] if row["label"]]
    known = {field.name for field in dataclasses.fields(SFTConfig) if field.init}
    given = {name: value for name, value in settings["kto"].items() if name in known and not name.startswith("eval")}
    given |= {"learning_rate": SFTConfig.learning_rate, "output_dir": args.output_dir, "seed": args.seed}
    given |= ON_A_CPU | {"model_init_kwargs": args.model_init_kwargs} if args.use_cpu else {}
    return SFTTrainer(args=SFTConfig(**given), train_dataset=Dataset.from_list(liked), **common)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a model on thumbs with TRL's KTOTrainer.")
    parser.add_argument("settings", help="a JSON file such as kto_lab/scripts/small_world.json")
    parser.add_argument("--model", help="a folder or a hub name instead of the file's")
    parser.add_argument("--rows", help="a JSONL or Parquet file or a hub name instead of the file's")
    parser.add_argument("--eval-rows", help="rows for evaluation instead of the file's share")
    parser.add_argument("--output", default="runs/trl", help="folder for checkpoints and the result")
    parser.add_argument("--steps", type=int, help="stop after so many optimiser steps")
    parser.add_argument("--max-rows", type=int, help="train on so many of the rows: the rehearsal")
    parser.add_argument("--sft", action="store_true", help="the baseline: SFT on the thumbs-up, at TRL's learning rate")
    parser.add_argument("--cpu", action="store_true", help="train in float32 without a GPU")
    return parser.parse_args()


def settings_of(options: argparse.Namespace) -> dict:
    """The file with what the command line replaces."""
    try:
        settings = json.loads(Path(options.settings).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{options.settings} is no JSON: {error}") from None
    for name in ("steps", "max_rows"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be at least 1")
    settings |= {name: getattr(options, name) for name in ("model", "rows") if getattr(options, name) is not None}
    if options.eval_rows is not None:
        settings |= {"eval_rows": options.eval_rows, "eval_share": None}
    if options.steps is not None:
        settings["kto"]["max_steps"] = options.steps
    check_settings(settings)
    return settings


def prepared(options: argparse.Namespace, here: PartialState) -> tuple:
    """All that can be refused before a model is loaded: (settings, arguments, training, evaluation, tokenizer)."""
    settings, output = settings_of(options), Path(options.output)
    with here.main_process_first():  # the others read what the first one has put into the cache
        rows, held_out = rows_of(settings, options.max_rows)
    labels = [row["label"] for row in rows]
    args = arguments_of(settings, labels, options.output, options.cpu)
    size, accumulated = args.per_device_train_batch_size, args.gradient_accumulation_steps
    check_enough(len(rows), size, accumulated, here.num_processes, "rows")
    if held_out and args.eval_strategy != "no":
        check_enough(len(held_out), size, 1, here.num_processes, "evaluation rows")
    check_model(settings["model"], settings)
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    check_special_tokens([*rows, *held_out], tokenizer)
    output.mkdir(parents=True, exist_ok=True)  # not after hours of training
    (output / "settings.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    here.print(describe(labels, args, here.num_processes))
    return settings, args, rows, held_out, tokenizer


def train(settings: Mapping, args: KTOConfig, rows: list[dict], held_out: list[dict], tokenizer, sft: bool) -> str:
    """Trains and saves; returns the sentence that says so."""
    here, output = PartialState(), Path(args.output_dir)
    trainer = trainer_of(settings, args, rows, held_out, tokenizer, sft)
    here.print(f"weights {'cut into shards by FSDP' if trainer.is_fsdp_enabled else 'whole in every process'}")
    if lost := (0 if sft else len(rows) - len(trainer.train_dataset)):
        here.print(f"{lost} rows are left out: their prompt alone fills max_length {args.max_length}")
        step = (args.per_device_train_batch_size, args.gradient_accumulation_steps, here.num_processes)
        check_enough(len(rows) - lost, *step, "rows")
    watch = Watch(trainer, held_out, settings["watch"], output) if settings["watch"] and not sft else None
    if watch:
        trainer.add_callback(watch)
    trainer.train()
    if not trainer.state.global_step:
        raise RuntimeError("the run made no step: nothing was trained, nothing is written")
    trained, merged = output / "trained", output / "merged"
    trainer.save_model(str(trained))  # full weights, or the adapter alone
    trainer.save_state()
    here.wait_for_everyone()
    if here.is_main_process and settings["lora"]:
        merge(settings["model"], trained, merged)
    stopped = f"stopped: {watch.stopped}" if watch and watch.stopped else "done"
    name = (merged if settings["lora"] else trained).name
    return f"{stopped} after {trainer.state.global_step} steps; wrote {name}"


def main() -> None:
    options = parsed()
    here = PartialState(cpu=options.cpu)
    try:
        ready = prepared(options, here)
    except (ValueError, OSError) as error:
        sys.exit(f"train_with_trl: {error}")
    here.print(train(*ready, options.sft))
    here.destroy_process_group()


if __name__ == "__main__":
    main()
