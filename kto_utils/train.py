"""Three training loops that differ in one function: SFT, KTO and DPO. Derived in lesson 07 (DPO: 08).

Started by `accelerate launch` or `torchrun`, the processes share each batch (lesson 12); `batch_size` counts the rows
of all of them. Process 0 alone prints and writes checkpoints.
"""

import functools
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from kto_lab.distributed import Processes
from kto_utils.collator import FIELDS, KTOPaddingCollator, pad_rows
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
    return _digest(text, reference.parameters() if reference is not None else ())


def _digest(text: str, parameters: Iterable[torch.Tensor]) -> str:
    digest = hashlib.sha256(text.encode("utf-8"))
    for parameter in parameters:
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def clip_gradients(parameters: Sequence[torch.Tensor], max_norm: float) -> torch.Tensor:
    """`torch.nn.utils.clip_grad_norm_` to the last bit, which also multiplies short gradients, by 1: a pass saved."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if not norm + 1e-6 < max_norm:  # NaN included
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


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
    on_step: Callable[[int, torch.nn.Module], None] | None = None,
) -> tuple[torch.nn.Module, History]:
    """The loop that all three share: draw, loss, backward, clip, step, record."""
    steps, learning_rate = settings["steps"], settings["learning_rate"]
    if steps < 1:
        raise ValueError(f"steps is {steps}; at least one is needed")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate is {learning_rate}; it must be a positive number")
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every is {checkpoint_every}; it counts steps, so at least 1")
    here = Processes.of_launcher()
    batches = Batches(len(rows), settings["batch_size"], settings["seed"])
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("no parameter of the model can be trained; was it frozen by reference_of?")
    # fused: one pass over the memory of parameters, gradients and moments; float64 runs keep their printed digits.
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0, fused=True)
    history: History = []
    wanted = checkpoint is not None or here.size > 1
    fingerprint = _fingerprint(settings, rows, model, reference) if wanted else ""

    if checkpoint is not None and Path(checkpoint).exists():
        state = load_checkpoint(checkpoint, fingerprint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        batches.load_state_dict(state["batches"])
        history = list(state["history"])
    if here.size > 1:
        here.check_agreement(_digest(f"{fingerprint} {len(history)}", model.parameters()), parameters[0].device)

    for network in (model, reference):  # no dropout: policy and reference must differ by their weights alone
        if network is not None:
            network.eval()
    progress = tqdm(
        range(len(history), steps),
        desc=description,
        initial=len(history),
        total=steps,
        disable=here.rank > 0 or not sys.stderr.isatty(),
    )
    for step in progress:
        loss, metrics = loss_and_metrics(batches.draw())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        here.sum_gradients(parameters)
        gradient_norm = clip_gradients(parameters, settings["max_grad_norm"])
        rate = learning_rate * (1.0 - step / steps) if settings["schedule"] == "linear" else learning_rate
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        row = {"step": step + 1, "loss": float(loss.detach())} | metrics | {"grad_norm": float(gradient_norm)}
        history.append(row | {"learning_rate": rate})
        if here.rank == 0 and log_every and (step + 1) % log_every == 0:
            shown = "  ".join(f"{name} {row[name]:.3f}" for name in row if name not in ("step", "margin"))
            print(f"step {step + 1:4d}  {shown}")
        if checkpoint is not None and (step + 1) % checkpoint_every == 0:
            if here.rank == 0:
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
            here.wait_for_all()  # so that nobody who reads the file next can be too early
        if on_step is not None:
            on_step(step + 1, model)
    return model, history


class ReferenceLogps:
    """`sequence_logps` of a frozen model for batches known in advance: each row is scored once, a number is kept.

    Called like `sequence_logps` without the model. A row is recognised by its tokens and its label mask, so one that
    comes back in a later pass costs nothing, and a mismatched one is scored once per pair of prompt and completion
    that the batches hold. Scoring happens at the first call, without gradients, in batches of up to
    `TOKENS_PER_BATCH` tokens, sorted by length so that little of it is padding.

    The training step itself is neither sorted nor cut by length: who lends whom a completion depends on who stands
    together in a batch and in which order, so sorting the rows first would give another reference point.

    Args:
        reference: frozen; put into eval mode.
        batches: from the collator; read once, a section at a time.
        prefixes: which rows of a batch are wanted, ("", "kl_") for KTO.

    Raises (when called):
        KeyError: a row that stood in none of the batches.
    """

    TOKENS_PER_BATCH = 2048
    ROWS_PER_SECTION = 4096  # rows waiting to be sorted; more would only cost memory

    def __init__(self, reference: torch.nn.Module, batches: Iterable[Mapping], prefixes: Sequence[str] = ("",)):
        self.reference, self.batches, self.prefixes = reference, iter(batches), prefixes
        self.kept: dict[bytes, float] = {}
        self.dtype = torch.float32

    def __call__(self, batch: Mapping[str, torch.Tensor], prefix: str = "") -> torch.Tensor:
        """(B,), nats, of the type that `sequence_logps` gives."""
        self._score_all()
        keys = [key for key, _ in self._rows(batch, prefix)]
        unknown = [number for number, key in enumerate(keys) if key not in self.kept]
        if unknown:
            raise KeyError(f"rows {unknown} ({prefix}input_ids) stood in none of the batches announced")
        values = [self.kept[key] for key in keys]
        return torch.tensor(values, dtype=self.dtype, device=batch[prefix + "input_ids"].device)

    @staticmethod
    def _rows(batch: Mapping[str, torch.Tensor], prefix: str) -> Iterator[tuple[bytes, dict]]:
        """Each row of a batch without its padding, and its key."""
        for row in zip(*(batch[prefix + field].cpu().numpy() for field in FIELDS), strict=True):
            row = [values[row[1] != 0] for values in row]
            key = hashlib.blake2b(b"".join(values.tobytes() for values in row), digest_size=16).digest()
            yield key, dict(zip(FIELDS, row, strict=True))

    def _score_all(self) -> None:
        waiting: dict[bytes, dict] = {}
        for batch in self.batches:
            for prefix in self.prefixes:
                waiting |= {key: row for key, row in self._rows(batch, prefix) if key not in self.kept}
            if len(waiting) >= self.ROWS_PER_SECTION:
                self._score(waiting)
                waiting = {}
        self._score(waiting)

    def _score(self, rows: Mapping[bytes, dict]) -> None:
        self.reference.eval()
        keys = sorted(rows, key=lambda key: len(rows[key]["input_ids"]), reverse=True)
        while keys:
            size = max(1, self.TOKENS_PER_BATCH // len(rows[keys[0]]["input_ids"]))
            now, keys = keys[:size], keys[size:]
            batch = pad_rows([{field: rows[key][field].tolist() for field in FIELDS} for key in now], 0)
            with torch.no_grad():
                logps = sequence_logps(self.reference, _where(self.reference, batch))
            self.dtype = logps.dtype
            self.kept |= zip(now, logps.tolist(), strict=True)


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


def _where(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch on the device of the model."""
    device = next(model.parameters()).device
    return {name: values.to(device) for name, values in batch.items()}


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


def _sft_loss(model: torch.nn.Module, examples: Sequence[Mapping], pad_id: int, here: Processes) -> torch.Tensor:
    """Mean negative log-probability of the completion tokens of a batch, nats per token."""
    batch = _where(model, pad_rows(examples, pad_id))
    mine = here.rows_of(batch)
    logits = model(input_ids=mine["input_ids"], attention_mask=mine["attention_mask"], use_cache=False).logits
    logps = get_probs(logits, mine["input_ids"], mine["label_mask"])
    return -here.total(logps.sum()) / batch["label_mask"].sum()


class _Demonstrations:
    """Texts that a KTO run goes on learning by heart, in batches of their own."""

    def __init__(self, model: torch.nn.Module, rows: Sequence[Mapping], tokenizer, batch_size: int, seed: int):
        self.model, self.pad_id = model, tokenizer.pad_token_id
        self.examples = _tokenized(rows, tokenizer, label=True)
        self.batches = Batches(len(rows), batch_size, seed)

    def loss(self, here: Processes) -> torch.Tensor:
        return _sft_loss(self.model, [self.examples[i] for i in self.batches.draw()], self.pad_id, here)


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
    here = Processes.of_launcher()

    def loss_and_metrics(numbers: list[int]) -> tuple[torch.Tensor, dict[str, float]]:
        return _sft_loss(model, [examples[i] for i in numbers], tokenizer.pad_token_id, here), {}

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
    precompute_reference: bool = False,
    estimate_z0: Callable[[Mapping[str, torch.Tensor]], torch.Tensor] | None = None,
    sft_rows: Sequence[Mapping] | None = None,
    sft_weight: float = 0.0,
    on_step: Callable[[int, torch.nn.Module], None] | None = None,
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
        precompute_reference: score each row under the reference once, beforehand (`ReferenceLogps`), instead of anew
            at each step: faster, and the losses are the same up to rounding. Without it the log-ratios of step 1 are
            exactly 0.
        estimate_z0: another reference point, for lesson 09: called at each step, without gradients, with a dict of
            policy_logps, reference_logps (B,) and policy_kl_logps, reference_kl_logps (B,), nats; returns a scalar in
            nats. Default: `losses.reference_point` of the two kl entries.
        sft_rows, sft_weight: demonstrations (`prompt`, `completion`) whose mean loss per completion token is added
            with this weight, `batch_size` of them a step: a rope to the texts that are known to be good. Lesson 08.
        on_step: called with (number of steps done, policy) after each step, to look at the policy on the way.

    Returns:
        (policy, history). A history row has step, loss (the added term included), kl (z0, nats), reward_desirable and
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
    if (sft_rows is None) != (sft_weight == 0.0) or sft_weight < 0.0:
        raise ValueError(f"sft_weight is {sft_weight}; it must be positive with sft_rows, and 0 without them")
    examples = _tokenized(rows, tokenizer)
    collate = KTOPaddingCollator(tokenizer)
    here = Processes.of_launcher()
    demonstrations = _Demonstrations(policy, sft_rows, tokenizer, batch_size, seed) if sft_rows is not None else None
    reference_logps_of = functools.partial(sequence_logps, reference)
    if precompute_reference:
        plan = Batches(len(rows), batch_size, seed)  # the run's own batches, known from its seed
        planned = (here.rows_of(collate([examples[i] for i in plan.draw()])) for _ in range(steps))
        reference_logps_of = ReferenceLogps(reference, planned, ("", "kl_"))

    def loss_and_metrics(numbers: list[int]) -> tuple[torch.Tensor, dict[str, float]]:
        batch = collate([examples[i] for i in numbers])
        batch = _where(policy, batch)
        mine = here.rows_of(batch)  # only now: completions were lent across the whole batch
        gathered = functools.partial(here.gathered, n_rows=len(numbers))
        policy_logps = gathered(sequence_logps(policy, mine))
        with torch.no_grad():
            reference_logps = gathered(reference_logps_of(mine))
            kl_logps = sequence_logps(policy, mine, "kl_"), reference_logps_of(mine, "kl_")
            if estimate_z0 is None:
                z0 = reference_point(*map(gathered, kl_logps))
            else:
                policy_kl_logps, reference_kl_logps = map(gathered, kl_logps)
                z0 = estimate_z0(
                    {
                        "policy_logps": policy_logps.detach(), "reference_logps": reference_logps,
                        "policy_kl_logps": policy_kl_logps, "reference_kl_logps": reference_kl_logps,
                    }
                )  # fmt: skip
        losses = kto_loss(policy_logps, reference_logps, batch["label"], z0, beta, desirable_weight, undesirable_weight)
        loss = losses.mean()
        if demonstrations is not None:
            loss = loss + sft_weight * demonstrations.loss(here)
        return loss, kto_metrics(policy_logps.detach() - reference_logps, batch["label"], z0, beta)

    settings = {
        "method": "kto", "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate,
        "beta": beta,
        "desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight,
        "schedule": _schedule(schedule), "max_grad_norm": max_grad_norm, "seed": seed,
        "precompute_reference": precompute_reference, "sft_weight": sft_weight,
    }  # fmt: skip
    if checkpoint is not None and (estimate_z0 is not None or demonstrations is not None):
        raise ValueError("a checkpoint does not hold the state of estimate_z0 or sft_rows; train those runs in one go")
    return _train(
        policy, reference, rows, loss_and_metrics, settings, checkpoint, checkpoint_every, log_every, "KTO", on_step
    )


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
    precompute_reference: bool = False,
    on_step: Callable[[int, torch.nn.Module], None] | None = None,
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

    def collate(numbers: list[int]) -> dict[str, torch.Tensor]:
        both = [sides["chosen"][i] for i in numbers] + [sides["rejected"][i] for i in numbers]
        return _where(policy, pad_rows(both, tokenizer.pad_token_id))

    here = Processes.of_launcher()
    reference_logps_of = functools.partial(sequence_logps, reference)
    if precompute_reference:
        plan = Batches(len(pairs), batch_size, seed)
        reference_logps_of = ReferenceLogps(reference, (here.rows_of(collate(plan.draw())) for _ in range(steps)))

    def loss_and_metrics(numbers: list[int]) -> tuple[torch.Tensor, dict[str, float]]:
        mine = here.rows_of(collate(numbers))  # of chosen and rejected replies alike; they meet again below
        gathered = functools.partial(here.gathered, n_rows=2 * len(numbers))
        policy_chosen, policy_rejected = gathered(sequence_logps(policy, mine)).chunk(2)
        with torch.no_grad():
            reference_chosen, reference_rejected = gathered(reference_logps_of(mine)).chunk(2)
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
        "precompute_reference": precompute_reference,
    }  # fmt: skip
    return _train(
        policy, reference, pairs, loss_and_metrics, settings, checkpoint, checkpoint_every, log_every, "DPO", on_step
    )


def _schedule(name: str) -> str:
    if name not in ("constant", "linear"):
        raise ValueError(f"schedule is {name!r}; it must be 'constant' or 'linear'")
    return name
