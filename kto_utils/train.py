"""Three training loops that differ in one function: SFT, KTO and DPO. Derived in lesson 07 (DPO: 08)."""

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from kto_utils.collator import KTOPaddingCollator, pad_rows
from kto_utils.data import tokenize_feedback
from kto_utils.logprobs import get_probs, sequence_logps
from kto_utils.losses import dpo_loss, kto_loss, reference_point

History = list[dict[str, float]]


class Batches:
    """Endless batches of row numbers: a new shuffle each pass, a last incomplete batch is left out.

    `state_dict` holds all that is needed to continue in the middle of a pass.
    """

    def __init__(self, n_rows: int, batch_size: int, seed: int):
        if not 1 <= batch_size <= n_rows:
            raise ValueError(f"batch_size is {batch_size} and there are {n_rows} rows; it must be between 1 and that")
        self.n_rows, self.batch_size = n_rows, batch_size
        self.generator = torch.Generator().manual_seed(seed)
        self.waiting: list[int] = []

    def draw(self) -> list[int]:
        if len(self.waiting) < self.batch_size:
            self.waiting = torch.randperm(self.n_rows, generator=self.generator).tolist()
        drawn, self.waiting = self.waiting[: self.batch_size], self.waiting[self.batch_size :]
        return drawn

    def state_dict(self) -> dict:
        return {"generator": self.generator.get_state(), "waiting": self.waiting}

    def load_state_dict(self, state: Mapping) -> None:
        self.generator.set_state(state["generator"])
        self.waiting = list(state["waiting"])


def save_checkpoint(path: Path | str, state: Mapping) -> None:
    """Writes to a temporary name, then renames: a kill at any moment leaves the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    torch.save(dict(state), temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path | str, fingerprint: str) -> dict:
    """Reads what `save_checkpoint` wrote, if the same run wrote it.

    Raises:
        ValueError: the file is no checkpoint, or belongs to a run with other rows, settings or models.
    """
    try:
        state = torch.load(path, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a broken file fails in many ways, KeyError and EOFError among them
        raise ValueError(f"{path} is no checkpoint that can be read; delete it or rename it") from error
    if not isinstance(state, dict) or state.get("fingerprint") != fingerprint:
        raise ValueError(f"{path} was written by a run with other rows, settings or models; delete it or rename it")
    return state


def _fingerprint(
    settings: Mapping, rows: Sequence[Mapping], model: torch.nn.Module, reference: torch.nn.Module | None
) -> str:
    """Says which run this is: settings, rows, the model's shapes and types, and the reference's every bit."""
    shapes = [[name, list(p.shape), str(p.dtype)] for name, p in model.named_parameters()]
    text = json.dumps([dict(settings), [dict(row) for row in rows], shapes], sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode("utf-8"))
    for parameter in reference.parameters() if reference is not None else ():
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _train(
    model: torch.nn.Module,
    reference: torch.nn.Module | None,
    rows: Sequence[Mapping],
    loss_and_metrics: Callable[[list[int]], tuple[torch.Tensor, dict[str, float]]],
    settings: Mapping,
    checkpoint: Path | str | None,
    checkpoint_every: int,
    log_every: int,
    description: str,
) -> tuple[torch.nn.Module, History]:
    """The loop that all three share: draw, loss, backward, clip, step, record."""
    steps, learning_rate = settings["steps"], settings["learning_rate"]
    if steps < 1:
        raise ValueError(f"steps is {steps}; at least one is needed")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate is {learning_rate}; it must be a positive number")
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every is {checkpoint_every}; it counts steps, so at least 1")
    batches = Batches(len(rows), settings["batch_size"], settings["seed"])
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("no parameter of the model can be trained; was it frozen by reference_of?")
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    history: History = []
    fingerprint = "" if checkpoint is None else _fingerprint(settings, rows, model, reference)

    if checkpoint is not None and Path(checkpoint).exists():
        state = load_checkpoint(checkpoint, fingerprint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        batches.load_state_dict(state["batches"])
        history = list(state["history"])

    for network in (model, reference):  # no dropout: policy and reference must differ by their weights alone
        if network is not None:
            network.eval()
    progress = tqdm(
        range(len(history), steps),
        desc=description,
        initial=len(history),
        total=steps,
        disable=not sys.stderr.isatty(),
    )
    for step in progress:
        loss, metrics = loss_and_metrics(batches.draw())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradient_norm = torch.nn.utils.clip_grad_norm_(parameters, settings["max_grad_norm"])
        rate = learning_rate * (1.0 - step / steps) if settings["schedule"] == "linear" else learning_rate
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        row = {"step": step + 1, "loss": float(loss.detach())} | metrics | {"grad_norm": float(gradient_norm)}
        history.append(row | {"learning_rate": rate})
        if log_every and (step + 1) % log_every == 0:
            shown = "  ".join(f"{name} {row[name]:.3f}" for name in row if name not in ("step", "margin"))
            print(f"step {step + 1:4d}  {shown}")
        if checkpoint is not None and (step + 1) % checkpoint_every == 0:
            save_checkpoint(
                checkpoint,
                {
                    "fingerprint": fingerprint,
                    "step": step + 1,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "batches": batches.state_dict(),
                    "history": history,
                },
            )
    return model, history


def _tokenized(rows: Sequence[Mapping], tokenizer, label: bool | None = None) -> list[dict]:
    """Token ids and masks of all rows; a label given here replaces theirs."""
    if not rows:
        raise ValueError("rows is empty; there is nothing to train on")
    examples = []
    for number, row in enumerate(rows):
        try:
            examples.append(tokenize_feedback(row if label is None else {**row, "label": label}, tokenizer))
        except (KeyError, TypeError, ValueError) as error:
            raise type(error)(f"row {number}: {error.args[0]}") from None
    return examples


def check_reference(policy: torch.nn.Module, reference: torch.nn.Module) -> None:
    """Refuses a reference that would move with the policy.

    Raises:
        ValueError: the two share a parameter's memory, or the reference can still be trained.
    """
    owned = {p.data_ptr(): name for name, p in policy.named_parameters()}
    for name, parameter in reference.named_parameters():
        if parameter.data_ptr() in owned:
            raise ValueError(
                f"reference and policy share the memory of {name}: the reference would be trained along and "
                "every log-ratio stay 0. Use model.reference_of(policy), a deep copy"
            )
        if parameter.requires_grad:
            raise ValueError(f"the reference's {name} still requires a gradient; use model.reference_of(policy)")


def train_sft(
    model: torch.nn.Module,
    rows: Sequence[Mapping],
    tokenizer,
    *,
    steps: int,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    schedule: str = "linear",
    max_grad_norm: float = 1.0,
    seed: int = 0,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 50,
    log_every: int = 0,
) -> tuple[torch.nn.Module, History]:
    """Supervised fine-tuning: raise the log-probability of each completion token, EOS included.

    Args:
        model: trained in place.
        rows: dicts with `prompt` and `completion`; a `label` is ignored.
        tokenizer: e.g. from `load_tokenizer()`.
        steps, batch_size, learning_rate, seed: of AdamW without weight decay; the seed orders the rows.
        schedule: "linear" falls to zero over the run, "constant" stays.
        checkpoint, checkpoint_every, log_every: as in `train_kto`.

    Returns:
        (model, history). A history row has step, loss (mean nats per completion token), grad_norm,
        learning_rate.

    Raises:
        KeyError, TypeError, ValueError: bad rows (with their number) or settings.
    """
    examples = _tokenized(rows, tokenizer, label=True)

    def loss_and_metrics(numbers: list[int]) -> tuple[torch.Tensor, dict[str, float]]:
        batch = pad_rows([examples[i] for i in numbers], tokenizer.pad_token_id)
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
        logps = get_probs(logits, batch["input_ids"], batch["label_mask"])
        return -logps.sum() / batch["label_mask"].sum(), {}

    settings = {
        "method": "sft", "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate,
        "schedule": _schedule(schedule), "max_grad_norm": max_grad_norm, "seed": seed,
    }  # fmt: skip
    return _train(model, None, rows, loss_and_metrics, settings, checkpoint, checkpoint_every, log_every, "SFT")


def train_kto(
    policy: torch.nn.Module,
    reference: torch.nn.Module,
    rows: Sequence[Mapping],
    tokenizer,
    *,
    steps: int,
    batch_size: int = 16,
    learning_rate: float = 3e-4,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    schedule: str = "constant",
    max_grad_norm: float = 1.0,
    seed: int = 0,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 50,
    log_every: int = 0,
) -> tuple[torch.nn.Module, History]:
    """KTO: raise what got thumbs up, lower what got thumbs down, both measured from the reference point.

    Args:
        policy: trained in place.
        reference: frozen copy from `model.reference_of(policy)`.
        rows: feedback rows (`prompt`, `completion`, `label`).
        tokenizer: with pad, bos and eos.
        steps, batch_size, learning_rate, schedule, max_grad_norm, seed: of AdamW without weight decay.
        beta, desirable_weight, undesirable_weight: as in `losses.kto_loss`; see `losses.balanced_weights`.
        checkpoint: file to write every `checkpoint_every` steps. If it exists and was written by the same run
            (rows, settings, shapes and the reference's weights are compared), training continues from it, bit
            for bit.
        log_every: print a line every so many steps; 0 prints none. A terminal shows a progress bar.

    Returns:
        (policy, history). A history row has step, loss, kl (z0, nats), reward_desirable and
        reward_undesirable (beta * r, NaN where the batch has no such row), margin (their difference),
        saturated (share of rows whose gradient factor is under a tenth of its maximum), grad_norm (before
        clipping), learning_rate.

    Raises:
        KeyError, TypeError, ValueError: bad rows (with their number), a batch size of 1, a reference that
            shares memory with the policy or is not frozen, NaN in log-probabilities, a foreign checkpoint.
    """
    check_reference(policy, reference)
    if batch_size < 2:
        raise ValueError(f"batch_size is {batch_size}; KTO needs at least 2 rows for a mismatched completion")
    examples = _tokenized(rows, tokenizer)
    collate = KTOPaddingCollator(tokenizer)

    def loss_and_metrics(numbers: list[int]) -> tuple[torch.Tensor, dict[str, float]]:
        batch = collate([examples[i] for i in numbers])
        policy_logps = sequence_logps(policy, batch)
        with torch.no_grad():
            reference_logps = sequence_logps(reference, batch)
            z0 = reference_point(sequence_logps(policy, batch, "kl_"), sequence_logps(reference, batch, "kl_"))
        losses = kto_loss(policy_logps, reference_logps, batch["label"], z0, beta, desirable_weight, undesirable_weight)
        return losses.mean(), kto_metrics(policy_logps.detach() - reference_logps, batch["label"], z0, beta)

    settings = {
        "method": "kto", "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate,
        "beta": beta,
        "desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight,
        "schedule": _schedule(schedule), "max_grad_norm": max_grad_norm, "seed": seed,
    }  # fmt: skip
    return _train(policy, reference, rows, loss_and_metrics, settings, checkpoint, checkpoint_every, log_every, "KTO")


def kto_metrics(logratio: torch.Tensor, label: torch.Tensor, z0: torch.Tensor, beta: float) -> dict[str, float]:
    """What to watch in a KTO run: kl, the two mean rewards (beta * r), their margin, the saturated share.

    A side without rows in this batch has mean NaN. Lesson 07 reads these numbers.
    """
    reward = beta * logratio
    up, down = reward[label].mean(), reward[~label].mean()
    centred = torch.sigmoid(reward - beta * z0)
    return {
        "kl": float(z0),
        "reward_desirable": float(up),
        "reward_undesirable": float(down),
        "margin": float(up - down),
        "saturated": float((4.0 * centred * (1.0 - centred) < 0.1).double().mean()),
    }


def train_dpo(
    policy: torch.nn.Module,
    reference: torch.nn.Module,
    pairs: Sequence[Mapping],
    tokenizer,
    *,
    steps: int,
    batch_size: int = 8,
    learning_rate: float = 5e-5,
    beta: float = 0.1,
    schedule: str = "constant",
    max_grad_norm: float = 1.0,
    seed: int = 0,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 50,
    log_every: int = 0,
) -> tuple[torch.nn.Module, History]:
    """DPO: widen the gap between the log-ratios of the chosen and the rejected reply of each pair.

    Args:
        policy, reference, tokenizer: as in `train_kto`.
        pairs: dicts with `prompt`, `chosen`, `rejected`, e.g. from `data.pair_up`.
        batch_size: in pairs; each carries two completions with gradient.
        The other settings are those of `train_kto`.

    Returns:
        (policy, history). A history row has step, loss, reward_chosen, reward_rejected (beta * r), margin,
        grad_norm, learning_rate.

    Raises:
        KeyError, TypeError, ValueError: as `train_kto`; a row without a partner is named with its number.
    """
    check_reference(policy, reference)
    if not pairs:
        raise ValueError("pairs is empty; DPO needs a chosen and a rejected reply to the same prompt")
    sides = {}
    for side in ("chosen", "rejected"):
        rows = []
        for number, pair in enumerate(pairs):
            if not isinstance(pair, Mapping):
                raise TypeError(f"pair {number} is a {type(pair).__name__}; it must be a dict")
            if side not in pair:
                raise KeyError(
                    f"pair {number} has no {side!r}: DPO cannot use a row without a partner. "
                    "data.pair_up makes pairs from thumbs and says what is left over"
                )
            rows.append({"prompt": pair.get("prompt"), "completion": pair[side], "label": side == "chosen"})
        sides[side] = _tokenized(rows, tokenizer)

    def loss_and_metrics(numbers: list[int]) -> tuple[torch.Tensor, dict[str, float]]:
        both = [sides["chosen"][i] for i in numbers] + [sides["rejected"][i] for i in numbers]
        batch = pad_rows(both, tokenizer.pad_token_id)
        policy_chosen, policy_rejected = sequence_logps(policy, batch).chunk(2)
        with torch.no_grad():
            reference_chosen, reference_rejected = sequence_logps(reference, batch).chunk(2)
        losses = dpo_loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
        chosen = beta * float((policy_chosen.detach() - reference_chosen).mean())
        rejected = beta * float((policy_rejected.detach() - reference_rejected).mean())
        return losses.mean(), {
            "reward_chosen": chosen, "reward_rejected": rejected, "margin": chosen - rejected,
        }  # fmt: skip

    settings = {
        "method": "dpo", "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate,
        "beta": beta,
        "schedule": _schedule(schedule), "max_grad_norm": max_grad_norm, "seed": seed,
    }  # fmt: skip
    return _train(policy, reference, pairs, loss_and_metrics, settings, checkpoint, checkpoint_every, log_every, "DPO")


def _schedule(name: str) -> str:
    if name not in ("constant", "linear"):
        raise ValueError(f"schedule is {name!r}; it must be 'constant' or 'linear'")
    return name
