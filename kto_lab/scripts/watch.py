"""Looks at a run of TRL every n steps: samples replies, measures KL by sampling, and stops a run that goes wrong."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from transformers import GenerationConfig, TrainerCallback
from trl import KTOTrainer

OPTIONS = {
    "every": "steps between two looks",
    "prompts": "different evaluation prompts that are answered at each look",
    "max_new_tokens": "a reply that has not ended by then counts as one that does not end",
    "kl_budget": "nats a reply, by sampling; a run beyond it stops",
    "ended_drop": "a run stops where the share of replies that end has fallen by more than this since the start",
    "patience": "evaluations in a row without a new lowest loss on the evaluation thumbs, before a run stops",
}


def check_options(options: Mapping) -> None:
    """Refuses options that are unknown, missing or senseless."""
    if set(options) != set(OPTIONS):
        odd = sorted(set(options) ^ set(OPTIONS))
        raise ValueError(f"watch: {', '.join(odd)} is missing or unknown; needed are {', '.join(OPTIONS)}")
    for name, value in options.items():
        if not value > 0:
            raise ValueError(f"watch: {name} is {value}; it must be positive ({OPTIONS[name]})")


def different_prompts(rows: Sequence[Mapping], n: int) -> list:
    """The first n different prompts."""
    found = {json.dumps(row["prompt"]): row["prompt"] for row in rows}
    return list(found.values())[:n]


def prompt_ids(tokenizer, prompt: str | list) -> list[int]:
    """As TRL makes them."""
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]


def _padded(rows: Sequence[Sequence[int]], pad: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), pad), torch.zeros(len(rows), width, dtype=torch.int64)
    for place, row in enumerate(rows):
        part = slice(width - len(row), None) if left else slice(0, len(row))
        ids[place, part], mask[place, part] = torch.tensor(row), 1
    return ids, mask


@torch.no_grad()
def reply_logps(model, prompts: Sequence[list[int]], replies: Sequence[list[int]], pad: int) -> torch.Tensor:
    """(N,), nats: the log-probability of each reply, summed over its tokens."""
    whole = [prompt + reply for prompt, reply in zip(prompts, replies, strict=True)]
    ids, mask = (part.to(model.device) for part in _padded(whole, pad, left=False))
    logps = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float().log_softmax(-1)
    logps = logps.gather(-1, ids[:, 1:, None])[..., 0].cpu()
    spans = [(len(prompt) - 1, len(row) - 1) for prompt, row in zip(prompts, whole, strict=True)]
    return torch.stack([row[start:end].double().sum() for row, (start, end) in zip(logps, spans, strict=True)])


@torch.no_grad()
def sample(model, tokenizer, prompts: Sequence[list[int]], max_new_tokens: int, seed: int) -> tuple[list, list[bool]]:
    """(replies as ids, whether each ended), from the whole distribution at temperature 1."""
    ends = model.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
    ids, mask = (part.to(model.device) for part in _padded(prompts, tokenizer.pad_token_id, left=True))
    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=max_new_tokens, eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drawn = model.generate(ids, attention_mask=mask, generation_config=config)[:, ids.shape[1] :].tolist()
    replies, ended = [], []
    for row in drawn:
        stop = next((place for place, token in enumerate(row) if token in ends), None)
        replies.append(row if stop is None else row[: stop + 1])
        ended.append(stop is not None)
    return replies, ended


def _plain(row: Mapping) -> dict:
    """NaN and infinity are no JSON: null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


class Watch(TrainerCallback):
    """Writes `samples.jsonl` (replies) and `watch.jsonl` (numbers); `stopped` says why the run was stopped, or None.

    The rule: stop where the KL by sampling exceeds `kl_budget`, where `ended_drop` fewer replies end than at the start,
    or where `patience` evaluations brought no new lowest loss on the evaluation thumbs.
    """

    def __init__(self, trainer: KTOTrainer, rows: Sequence[Mapping], options: Mapping, output: Path):
        self.trainer, self.options, self.output = trainer, options, output
        self.tokenizer = trainer.processing_class
        self.prompts = different_prompts(rows, options["prompts"])
        self.ids = [prompt_ids(self.tokenizer, prompt) for prompt in self.prompts]
        self.stopped, self.ended_at_start, self.losses, self.last = None, None, [], None
        if trainer.accelerator.is_main_process:
            for name in ("samples.jsonl", "watch.jsonl"):
                (output / name).write_text("", encoding="utf-8")

    def _write(self, name: str, rows: Sequence[Mapping]) -> None:
        if self.trainer.accelerator.is_main_process:
            with (self.output / name).open("a", encoding="utf-8", newline="\n") as file:
                file.writelines(json.dumps(_plain(row), ensure_ascii=False) + "\n" for row in rows)

    @contextlib.contextmanager
    def _reference(self) -> Iterator:
        """The model that KTO compares with: a copy, or the model without its adapter."""
        if self.trainer.ref_model is not None:
            yield self.trainer.ref_model
        else:
            with self.trainer.model.disable_adapter():
                yield self.trainer.model

    def look(self, step: int) -> dict:
        """Samples and measures; every process does the same, and the first one writes."""
        model, pad = self.trainer.model, self.tokenizer.pad_token_id
        training = model.training
        model.eval()
        with self.trainer.accelerator.autocast():
            replies, ended = sample(model, self.tokenizer, self.ids, self.options["max_new_tokens"], seed=step)
            policy = reply_logps(model, self.ids, replies, pad)
            with self._reference() as reference:
                logratio = policy - reply_logps(reference, self.ids, replies, pad)
        model.train(training)
        texts = [self.tokenizer.decode(reply, skip_special_tokens=True) for reply in replies]
        self._write("samples.jsonl", [
            {"step": step, "prompt": prompt, "reply": text, "ended": end, "tokens": len(reply), "logratio": float(r)}
            for prompt, text, end, reply, r in zip(self.prompts, texts, ended, replies, logratio, strict=True)
        ])  # fmt: skip
        n = len(replies)
        error = float(logratio.std() / math.sqrt(n)) if n > 1 else None
        row = {
            "step": step, "kl": float(logratio.mean()), "kl_standard_error": error, "ended": sum(ended) / n,
            "tokens": sum(map(len, replies)) / n,
        }  # fmt: skip
        self._write("watch.jsonl", [row])
        self.last = step
        return row

    def _stop(self, step: int, reason: str | None, control) -> None:
        reason = broadcast_object_list([reason])[0]  # all processes stop, or none
        if reason and not self.stopped:
            self.stopped = reason
            control.should_training_stop = True
            self._write("watch.jsonl", [{"step": step, "stopped": reason}])

    def on_train_begin(self, args, state, control, **_):
        self.ended_at_start = self.look(state.global_step)["ended"]

    def on_step_end(self, args, state, control, **_):
        if state.global_step % self.options["every"]:
            return
        row, reason = self.look(state.global_step), None
        if not math.isfinite(row["kl"]):
            reason = "the KL by sampling is not a number"
        elif row["kl"] > self.options["kl_budget"]:
            reason = f"KL {row['kl']:.1f} nats by sampling, the budget is {self.options['kl_budget']}"
        elif self.ended_at_start - row["ended"] > self.options["ended_drop"]:
            reason = f"{row['ended']:.0%} of the replies end, at the start {self.ended_at_start:.0%}"
        self._stop(state.global_step, reason, control)

    def on_evaluate(self, args, state, control, metrics, **_):
        self.losses.append(metrics["eval_loss"] if math.isfinite(metrics["eval_loss"]) else math.inf)
        margin = metrics.get("eval_rewards/margins")
        self._write("watch.jsonl", [{"step": state.global_step, "eval_loss": self.losses[-1], "eval_margin": margin}])
        since = len(self.losses) - 1 - self.losses.index(min(self.losses))
        reason = f"{since} evaluations without a lower loss than {min(self.losses):.4f}"
        self._stop(state.global_step, reason if since >= self.options["patience"] else None, control)

    def on_train_end(self, args, state, control, **_):
        if self.last != state.global_step:
            self.look(state.global_step)
