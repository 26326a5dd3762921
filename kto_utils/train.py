"""Three training loops that differ in one function: SFT, KTO and DPO. Derived in lesson 07 (DPO: 08).

What a long run needs beyond the loop plugs in through `Parts`; kto_lab has checkpoints, several processes, a reference
that is scored beforehand, a look at every step.
"""

import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm import tqdm

from kto_utils.collator import KTOPaddingCollator, check_example, pad_id_of, pad_rows
from kto_utils.data import tokenize_feedback
from kto_utils.logprobs import get_probs, sequence_logps
from kto_utils.losses import dpo_loss, kto_loss, reference_point

History = list[dict[str, float]]
LOGPS = ("policy_logps", "reference_logps", "policy_kl_logps", "reference_kl_logps")


@dataclass(frozen=True)
class Settings:
    """What the three loops share; every field is a keyword of `train_sft`, `train_kto` and `train_dpo`.

    Fields:
        steps, batch_size: how often, and how many rows (DPO: pairs) each time, of all processes together.
        learning_rate, schedule: of AdamW without weight decay; "constant" stays, "linear" falls to zero.
        max_grad_norm, seed: longer gradients are shortened to this; the seed orders the rows.
        max_length: of a row, in tokens, prompt included; a longer one is cut at its end. None cuts nothing.
        log_every: print a line every so many steps; 0 prints none. A terminal shows a progress bar.

    Raises:
        ValueError: fewer than one step, a learning rate that is not positive, an unknown schedule.
    """

    steps: int
    batch_size: int
    learning_rate: float
    schedule: str = "constant"
    max_grad_norm: float = 1.0
    seed: int = 0
    max_length: int | None = None
    log_every: int = 0

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; at least one is needed")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be a positive number")
        if self.schedule not in ("constant", "linear"):
            raise ValueError(f"schedule is {self.schedule!r}; it must be 'constant' or 'linear'")


class Callback:
    """Does nothing; a part that wants to see the run overrides `start` (may put back an earlier state) or `step`."""

    def start(self, run: "Run") -> None: ...

    def step(self, run: "Run") -> None: ...


def mismatched_z0(logps: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """`losses.reference_point` of the mismatched rows: how KTO estimates z0 unless `Parts` says otherwise."""
    return reference_point(logps["policy_kl_logps"], logps["reference_kl_logps"])


@dataclass(frozen=True)
class Parts:
    """The one place where something plugs into the loop; the defaults are the loop of lesson 07.

    Fields:
        callbacks: told before the first and after every step, in this order (`kto_lab.checkpoints`).
        processes: who shares the batches (`kto_lab.distributed`); None: nobody.
        reference_logps: given the Run, returns a function (batch, prefix) -> (B,) log-probabilities under the
            reference, nats (`kto_lab.scored_reference`). Default: the reference scores each batch in its turn.
        estimate_z0: from policy_logps, reference_logps, policy_kl_logps and reference_kl_logps, each (B,) in nats
            without gradient, to KTO's reference point, a scalar in nats.
        extra_loss: a scalar added to each step's loss, from the Run, its batch and what the method knows of it: (B,)
            policy_logps (with gradient) and reference_logps, KTO also z0; SFT nothing (`kto_lab.extra_terms`).
    """

    callbacks: Sequence[Callback] = ()
    processes: Any = None
    reference_logps: Callable[["Run"], Callable] = lambda run: functools.partial(sequence_logps, run.reference)
    estimate_z0: Callable[[Mapping[str, torch.Tensor]], torch.Tensor] = mismatched_z0
    extra_loss: Callable[["Run", Mapping, Mapping], torch.Tensor] | None = None


@dataclass
class Run:
    """One run, as its parts see it. `options` are those of the method (beta, weights), `batch_of` pads given rows."""

    method: str
    model: torch.nn.Module
    reference: torch.nn.Module | None
    rows: Sequence[Mapping]
    tokenizer: object
    settings: Settings
    options: Mapping[str, float]
    parts: Parts
    batch_of: Callable[[list[int]], Mapping[str, torch.Tensor]]
    prefixes: Sequence[str] = ("",)
    history: History = field(default_factory=list)
    batches: "Batches" = None
    optimizer: torch.optim.Optimizer = None

    def __post_init__(self):
        for name in {"SFT": ("reference_logps", "estimate_z0"), "DPO": ("estimate_z0",)}.get(self.method, ()):
            if getattr(self.parts, name) is not getattr(Parts, name):
                raise ValueError(f"{self.method} has no use for Parts({name}=...): it would do nothing; leave it out")

    def logps(self, score: Callable, batch: Mapping[str, torch.Tensor], prefix: str = "") -> torch.Tensor:
        """(B,), nats, of the whole batch: every process scores its rows."""
        if (here := self.parts.processes) is None:
            return score(batch, prefix)
        return here.gathered(score(here.rows_of(batch), prefix), len(batch["input_ids"]))


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


def _train(run: Run, loss_of: Callable[[Mapping], tuple[torch.Tensor, dict, dict]]) -> tuple[torch.nn.Module, History]:
    """The loop that all three share: draw, loss, backward, clip, step, record."""
    settings, parts, here = run.settings, run.parts, run.parts.processes
    parameters = [p for p in run.model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("no parameter of the model can be trained; was it frozen by reference_of?")
    run.batches = Batches(len(run.rows), settings.batch_size, settings.seed)
    # fused: one pass over the memory of parameters, gradients and moments; float64 runs keep their printed digits.
    run.optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0, fused=True)
    for part in filter(None, (*parts.callbacks, here)):
        part.start(run)
    for network in filter(None, (run.model, run.reference)):
        network.eval()  # no dropout: policy and reference must differ by their weights alone
    done, first = len(run.history), here is None or here.rank == 0
    hidden = not (first and sys.stderr.isatty())
    for step in tqdm(range(done, settings.steps), run.method, settings.steps, initial=done, disable=hidden):
        batch = run.batch_of(run.batches.draw())
        loss, metrics, known = loss_of(batch)
        if parts.extra_loss is not None:
            loss = loss + parts.extra_loss(run, batch, known)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if here is not None:
            here.sum_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        rate = settings.learning_rate * (1.0 - step / settings.steps if settings.schedule == "linear" else 1.0)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        run.optimizer.step()
        row = {"step": step + 1, "loss": float(loss.detach()), **metrics, "grad_norm": float(norm)}
        run.history.append(row | {"learning_rate": rate})
        if first and settings.log_every and (step + 1) % settings.log_every == 0:
            shown = "  ".join(f"{k} {v:.3f}" for k, v in row.items() if k not in ("step", "margin"))
            print(f"step {step + 1:4d}  {shown}")
        for part in parts.callbacks:
            part.step(run)
    return run.model, run.history


def _tokenized(rows: Sequence, tokenizer, max_length: int | None, label: bool | None = None) -> list[dict]:
    """Token ids and masks of all rows; a label given here replaces theirs. A row with `input_ids` is one already."""
    if not len(rows):  # a DataFrame has no truth value; its first "row" is named below
        raise ValueError("rows is empty; there is nothing to train on")
    examples = []
    for number, row in enumerate(rows):
        try:
            row = {**row, "label": label} if label is not None and isinstance(row, Mapping) else row
            if not (isinstance(row, Mapping) and "input_ids" in row):
                row = tokenize_feedback(row, tokenizer, max_length)
            check_example(row, "the tokenized row", max_length)
            examples.append(row)
        except (KeyError, TypeError, ValueError) as error:
            raise type(error)(f"row {number}: {error.args[0]}") from None
    return examples


def on_device_of(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch where the model is."""
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
            why = "it would be trained along and every log-ratio stay 0. Use model.reference_of(policy), a deep copy"
            raise ValueError(f"reference and policy share the memory of {name}: {why}")
        if parameter.requires_grad:
            raise ValueError(f"the reference's {name} still requires a gradient; use model.reference_of(policy)")


def sft_loss(run: Run, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Mean negative log-probability of the completion tokens of a batch under the run's model, nats per token."""
    here = run.parts.processes
    mine = batch if here is None else here.rows_of(batch)
    logits = run.model(input_ids=mine["input_ids"], attention_mask=mine["attention_mask"], use_cache=False).logits
    total = get_probs(logits, mine["input_ids"], mine["label_mask"]).sum()
    return -(total if here is None else here.total(total)) / batch["label_mask"].sum()


def train_sft(
    model: torch.nn.Module, rows: Sequence[Mapping], tokenizer, *, parts: Parts | None = None, **settings
) -> tuple[torch.nn.Module, History]:
    """Supervised fine-tuning: raise the log-probability of each completion token, EOS included.

    Args:
        model, tokenizer: the model is trained in place; the tokenizer e.g. from `load_tokenizer()`.
        rows: dicts with `prompt` and `completion`, or tokenized as in `train_kto`; a `label` is ignored.
        settings: of `Settings`; default batch_size 32, learning_rate 3e-3, schedule "linear".

    Returns:
        (model, history). A history row has step, loss (mean nats per completion token), grad_norm, learning_rate.

    Raises:
        KeyError, TypeError, ValueError: bad rows (with their number) or settings.
    """
    settings = Settings(**{"batch_size": 32, "learning_rate": 3e-3, "schedule": "linear"} | settings)
    examples, pad_id = _tokenized(rows, tokenizer, settings.max_length, label=True), pad_id_of(tokenizer)

    def batch_of(numbers: list[int]) -> dict[str, torch.Tensor]:
        return on_device_of(model, pad_rows([examples[i] for i in numbers], pad_id, settings.max_length))

    run = Run("SFT", model, None, rows, tokenizer, settings, {}, parts or Parts(), batch_of)
    return _train(run, lambda batch: (sft_loss(run, batch), {}, {}))


def train_kto(
    policy: torch.nn.Module,
    reference: torch.nn.Module,
    rows: Sequence[Mapping],
    tokenizer,
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    parts: Parts | None = None,
    **settings,
) -> tuple[torch.nn.Module, History]:
    """KTO: raise what got thumbs up, lower what got thumbs down, both measured from the reference point.

    Args:
        policy, reference: trained in place; its frozen copy from `model.reference_of(policy)`.
        rows: feedback rows (`prompt`, `completion`, `label`), or what `data.tokenize_feedback` made of them.
        tokenizer: with pad, and for text rows eos.
        beta, desirable_weight, undesirable_weight: as in `losses.kto_loss`; see `losses.balanced_weights`.
        parts, settings: see `Parts` and `Settings`; default batch_size 16, learning_rate 3e-4.

    Returns:
        (policy, history). A history row has step, loss (an extra loss included), what `kto_metrics` says, grad_norm
        (before clipping), learning_rate.

    Raises:
        KeyError, TypeError, ValueError: bad rows (with their number), a batch size of 1, a reference that shares memory
            with the policy or is not frozen, NaN in log-probabilities.
    """
    check_reference(policy, reference)
    settings = Settings(**{"batch_size": 16, "learning_rate": 3e-4} | settings)
    if settings.batch_size < 2:
        raise ValueError(f"batch_size is {settings.batch_size}; KTO needs at least 2 rows for a mismatched completion")
    examples, parts = _tokenized(rows, tokenizer, settings.max_length), parts or Parts()
    collate = KTOPaddingCollator(tokenizer, settings.max_length)

    def batch_of(numbers: list[int]) -> dict[str, torch.Tensor]:
        return on_device_of(policy, collate([examples[i] for i in numbers]))

    def loss_of(batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float], dict]:
        policy_logps = run.logps(score_policy, batch)
        with torch.no_grad():
            reference_logps = run.logps(score_reference, batch)
            kl_logps = [run.logps(score, batch, "kl_") for score in (score_policy, score_reference)]
            known = dict(zip(LOGPS, (policy_logps.detach(), reference_logps, *kl_logps), strict=True))
            z0 = parts.estimate_z0(known)
        losses = kto_loss(policy_logps, reference_logps, batch["label"], z0, beta, desirable_weight, undesirable_weight)
        metrics = kto_metrics(policy_logps.detach() - reference_logps, batch["label"], z0, beta)
        return losses.mean(), metrics, known | {"policy_logps": policy_logps, "z0": z0}

    options = {"beta": beta, "desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
    run = Run("KTO", policy, reference, rows, tokenizer, settings, options, parts, batch_of, ("", "kl_"))
    score_policy, score_reference = functools.partial(sequence_logps, policy), parts.reference_logps(run)
    return _train(run, loss_of)


def kto_metrics(logratio: torch.Tensor, label: torch.Tensor, z0: torch.Tensor, beta: float) -> dict[str, float]:
    """What to watch in a KTO run; lesson 07 reads these numbers.

    Returns:
        kl (z0, nats), reward_desirable and reward_undesirable (mean beta * r; NaN where the batch has no such row),
        margin (their difference), saturated (share of rows whose gradient factor is under a tenth of its maximum).
    """
    reward = beta * logratio
    up, down = reward[label].mean(), reward[~label].mean()
    centred = torch.sigmoid(reward - beta * z0)
    return {
        "kl": float(z0), "reward_desirable": float(up), "reward_undesirable": float(down), "margin": float(up - down),
        "saturated": float((4.0 * centred * (1.0 - centred) < 0.1).double().mean()),
    }  # fmt: skip


def _sides(pairs: Sequence[Mapping], tokenizer, max_length: int | None) -> tuple[list[dict], list[dict]]:
    """Token ids and masks of the chosen and of the rejected replies."""
    if not len(pairs):
        raise ValueError("pairs is empty; DPO needs a chosen and a rejected reply to the same prompt")
    rows: dict[str, list[dict]] = {"chosen": [], "rejected": []}
    for number, pair in enumerate(pairs):
        if not isinstance(pair, Mapping):
            hint = "it must be a dict (of a DataFrame: .to_dict('records'))"
            raise TypeError(f"pair {number} is a {type(pair).__name__}; {hint}")
        for side, kept in rows.items():
            if side not in pair:
                why = "DPO cannot use a row without a partner. data.pair_up makes pairs and says what is left over"
                raise KeyError(f"pair {number} has no {side!r}: {why}")
            reply = pair[side]
            kept.append(reply if isinstance(reply, Mapping) else {"prompt": pair.get("prompt"), "completion": reply})
    return tuple(_tokenized(kept, tokenizer, max_length, label=side == "chosen") for side, kept in rows.items())


def train_dpo(
    policy: torch.nn.Module,
    reference: torch.nn.Module,
    pairs: Sequence[Mapping],
    tokenizer,
    *,
    beta: float = 0.1,
    parts: Parts | None = None,
    **settings,
) -> tuple[torch.nn.Module, History]:
    """DPO: widen the gap between the log-ratios of the chosen and the rejected reply of each pair.

    Args:
        policy, reference, tokenizer, parts: as in `train_kto`.
        pairs: dicts with `prompt`, `chosen`, `rejected`, e.g. from `data.pair_up`; or the two sides tokenized each.
        settings: of `Settings`; default batch_size 8 pairs, each of two completions with gradient, learning_rate 5e-5.

    Returns:
        (policy, history). A history row has step, loss, reward_chosen, reward_rejected (mean beta * r), margin,
        grad_norm, learning_rate.

    Raises:
        KeyError, TypeError, ValueError: as `train_kto`; a row without a partner is named with its number.
    """
    check_reference(policy, reference)
    settings = Settings(**{"batch_size": 8, "learning_rate": 5e-5} | settings)
    (chosen, rejected), parts = _sides(pairs, tokenizer, settings.max_length), parts or Parts()
    pad_id = pad_id_of(tokenizer)

    def batch_of(numbers: list[int]) -> dict[str, torch.Tensor]:
        both = [chosen[i] for i in numbers] + [rejected[i] for i in numbers]
        return on_device_of(policy, pad_rows(both, pad_id, settings.max_length))

    def loss_of(batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float], dict]:
        policy_logps = run.logps(score_policy, batch)  # first all chosen, then all rejected
        with torch.no_grad():
            reference_logps = run.logps(score_reference, batch)
        losses = dpo_loss(*policy_logps.chunk(2), *reference_logps.chunk(2), beta)
        up, down = (beta * float(half.mean()) for half in (policy_logps.detach() - reference_logps).chunk(2))
        metrics = {"reward_chosen": up, "reward_rejected": down, "margin": up - down}
        return losses.mean(), metrics, {"policy_logps": policy_logps, "reference_logps": reference_logps}

    run = Run("DPO", policy, reference, pairs, tokenizer, settings, {"beta": beta}, parts, batch_of)
    score_policy, score_reference = functools.partial(sequence_logps, policy), parts.reference_logps(run)
    return _train(run, loss_of)
