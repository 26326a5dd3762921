"""TRL's side of `test_trl.py`: its trainers on CPU, what they answer, and the rows and models both sides get.

Of the package only what makes models, tokenizer and rows is used here. What is compared is called by the tests.
"""

import contextlib
import copy
import functools
import json
import logging
import os
import random
import tempfile
import types
import warnings
from dataclasses import dataclass
from unittest import mock

import datasets
import numpy as np
import torch
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from kto_utils import world
from kto_utils.data import load_eight_rows
from kto_utils.model import tiny_llama, to_float64
from kto_utils.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer()
STEPS = 20
LEARNING_RATE = 1e-3
MAX_GRAD_NORM = 1.0
N_OBSERVED = 4  # batches whose log-probabilities, losses and gradients are kept before training starts


@dataclass(frozen=True)
class Scenario:
    """Rows and settings that both sides share. `method` is "kto", "apo_zero_unpaired" or a loss of TRL's DPO trainer.

    "dpo" is its "sigmoid"; `flipped` is its label_smoothing.
    """

    rows: str
    method: str = "kto"
    batch_size: int = 4
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    max_length: int | None = None
    precompute: bool = False
    flipped: float = 0.0


# ---------------------------------------------------------------- rows and models


def mixed_rows() -> list[dict]:
    """The eight rows of the lessons and 24 replies of the small world, with their thumbs."""
    rng, rows = random.Random(0), load_eight_rows()
    for question in world.trained_questions():
        text = world.draw_reply(question, rng, polite=0.85, right=0.85).text
        rows.append({"prompt": question.prompt, "completion": text, "label": world.judge(question, text)})
    return rows


def rows_of_very_different_lengths() -> list[dict]:
    """Completions of 1 to 5 sentences, among them an empty prompt and a token that spans the boundary."""
    rows = [
        {**row, "completion": row["completion"] * (1, 5, 2, 3)[number % 4]}
        for number, row in enumerate(mixed_rows()[8:22])
    ]
    rows.append({"prompt": "", "completion": "No", "label": False})
    rows.append({"prompt": "USER: Which colo", "completion": "ur is the sky?", "label": True})
    return rows


def pairs(chosen_times: int = 1, rejected_times: int = 1) -> list[dict]:
    """For each trained question a polite right reply and another one, each said so many times."""
    rng, made = random.Random(1), []
    for question in world.trained_questions():
        chosen = world.draw_reply(question, rng, polite=1.0, right=1.0).text
        rejected = world.draw_reply(question, rng, polite=0.3, right=0.3).text
        made.append({"prompt": question.prompt, "chosen": chosen * chosen_times, "rejected": rejected * rejected_times})
    return made


ROWS = {
    "mixed": mixed_rows,
    "desirable": lambda: [row for row in mixed_rows() if row["label"]],
    "undesirable": lambda: [row for row in mixed_rows() if not row["label"]],
    "lengths": rows_of_very_different_lengths,
    # TRL drops a row whose prompt alone fills max_length; the homework question is that long.
    "short prompts": lambda: [row for row in mixed_rows() if "homework" not in row["prompt"]],
    "pairs": pairs,
    "long and short pairs": lambda: pairs()[::3] + pairs(8, 1)[1::3] + pairs(1, 6)[2::3],
}


@functools.cache
def _models(dtype: torch.dtype) -> tuple[torch.nn.Module, torch.nn.Module]:
    generator = torch.Generator().manual_seed(6)  # kl is clamped in some batches of every scenario, not in all

    def moved(model: torch.nn.Module, by: float) -> torch.nn.Module:
        model = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * by)
        return model

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_layers": 2}
    start = moved(tiny_llama(len(TOKENIZER), **shape, dtype=dtype), 0.1)  # 0.02 leaves attention almost uniform
    policy = moved(start, 0.05)
    return (policy, start) if dtype == torch.float32 else (to_float64(policy), to_float64(start))


def fresh_models(dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, torch.nn.Module]:
    """(policy, start): new copies at each call. The policy has moved away from start, the reference's weights."""
    policy, start = _models(dtype)
    return copy.deepcopy(policy), copy.deepcopy(start)


# ---------------------------------------------------------------- TRL's trainers


@contextlib.contextmanager
def quiet():
    """No progress bars, no warnings on class balance; the global random states, which TRL sets, are put back."""
    states = random.getstate(), np.random.get_state()
    datasets.disable_progress_bars()
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            mock.patch.dict(os.environ, {"TQDM_DISABLE": "1"}),
            torch.random.fork_rng(devices=[]),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        logging.disable(logging.NOTSET)
        datasets.enable_progress_bars()


def trainer_for(scenario: Scenario, rows: list[dict], folder: str) -> KTOTrainer | DPOTrainer:
    """A real trainer on CPU that takes the rows in the order given. `folder` is its output_dir; call it in `quiet`."""
    config, trainer_class = DPOConfig, DPOTrainer
    of_method = {
        "loss_type": ["sigmoid" if scenario.method == "dpo" else scenario.method],
        "label_smoothing": scenario.flipped,
    }
    if scenario.method in ("kto", "apo_zero_unpaired"):
        config, trainer_class = KTOConfig, KTOTrainer
        of_method = {
            "loss_type": scenario.method,
            "desirable_weight": scenario.desirable_weight,
            "undesirable_weight": scenario.undesirable_weight,
        }
    args = config(
        output_dir=str(folder),
        use_cpu=True,  # a bare config asks for bfloat16 and raises where there is no GPU
        bf16=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1,
        gradient_checkpointing=False,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=scenario.batch_size,
        max_steps=STEPS,
        optim="adamw_torch",
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_grad_norm=MAX_GRAD_NORM,
        beta=scenario.beta,
        max_length=scenario.max_length,
        precompute_ref_log_probs=scenario.precompute,
        **of_method,
    )
    policy, start = fresh_models()
    trainer = trainer_class(
        model=policy,
        ref_model=start,  # None would look for the model on disk or on the hub
        args=args,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=TOKENIZER,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


@dataclass(frozen=True)
class Observed:
    """What TRL makes of one batch before any step. Log-probabilities are (B,), gradients by parameter name.

    `policy` and `reference` are pairs: (rows, mismatched rows) for KTO, (chosen, rejected) for DPO.
    """

    policy: tuple
    reference: tuple
    loss: float
    metrics: dict[str, float]
    gradients: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Run:
    """One trainer's answers: all its batches, the first `N_OBSERVED` looked at, and 20 steps of `train`."""

    batches: list[dict[str, torch.Tensor]]
    observed: list[Observed]
    history: list[dict[str, float]]
    parameters: dict[str, torch.Tensor]


def _observe(trainer: KTOTrainer | DPOTrainer, batch: dict[str, torch.Tensor]) -> Observed:
    with torch.no_grad():
        policy = trainer.compute_ref_log_probs(trainer.model, batch)
        reference = trainer.compute_ref_log_probs(trainer.ref_model, batch)
    if trainer.precompute_ref_logps:
        kto, dpo = ("ref_logps", "ref_KL_logps"), ("ref_chosen_logps", "ref_rejected_logps")
        reference = tuple(batch.get(name) for name in (dpo if isinstance(trainer, DPOTrainer) else kto))
    loss, metrics = loss_and_metrics(trainer, trainer.model, batch)
    names, parameters = zip(*trainer.model.named_parameters(), strict=True)
    gradients = dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))
    return Observed(policy, reference, float(loss.detach()), metrics, gradients)


def loss_and_metrics(trainer: KTOTrainer | DPOTrainer, model: torch.nn.Module, batch: dict) -> tuple:
    """(loss, metrics) of one batch by TRL's `_compute_loss`, with the model given."""
    mode = "train" if trainer.model.training else "eval"
    trainer._metrics[mode].clear()
    loss = trainer._compute_loss(model, batch, return_outputs=False)
    metrics = {name: values[-1] for name, values in trainer._metrics[mode].items()}
    trainer._metrics[mode].clear()
    return loss, metrics


@functools.cache
def _run(scenario: Scenario, rows: str) -> Run:
    with tempfile.TemporaryDirectory() as folder, quiet():
        trainer = trainer_for(scenario, json.loads(rows), folder)
        batches = list(trainer.get_train_dataloader())
        observed = [_observe(trainer, batch) for batch in batches[:N_OBSERVED]]
        trainer.train()
    history = [row for row in trainer.state.log_history if "loss" in row]
    parameters = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    return Run(batches, observed, history, parameters)


@functools.cache
def observed_of(scenario: Scenario) -> list[tuple[dict[str, torch.Tensor], Observed]]:
    """The first batches and what TRL makes of each, without a step; made once and kept, to be read only."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        trainer = trainer_for(scenario, ROWS[scenario.rows](), folder)
        return [(batch, _observe(trainer, batch)) for batch in list(trainer.get_train_dataloader())[:N_OBSERVED]]


def run_of(scenario: Scenario, rows: list[dict]) -> Run:
    """TRL's answers for these rows in this order; made once and kept, to be read only."""
    return _run(scenario, json.dumps(rows))


# ---------------------------------------------------------------- float64


class Float64Scores(torch.nn.Module):
    """A model whose `log_probs` are float64, in the form that TRL's `_compute_loss` asks for.

    TRL 1.16's own head gives float32 even for a float64 model. Whole softmax, then the labels' entries: another
    expression than the package's.
    """

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, labels, fused_lm_head, use_cache=False):
        assert fused_lm_head, "TRL asks for logits here; it did not in 1.16.0"
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache).logits
        labels = labels[:, 1:]
        every = logits[:, :-1].softmax(-1).log()
        picked = torch.take_along_dim(every, labels.clamp(min=0)[..., None], dim=-1)[..., 0]
        log_probs = torch.where(labels == -100, 0.0, picked)
        blank = torch.zeros_like(log_probs)  # entropy and the like feed TRL's log, not its loss
        return types.SimpleNamespace(log_probs=log_probs, entropy=blank, mean_logits=blank, is_top1=blank.bool())


@functools.cache
def _float64_run(scenario: Scenario, rows: str) -> Run:
    with tempfile.TemporaryDirectory() as folder, quiet():
        trainer = trainer_for(scenario, json.loads(rows), folder)
        policy, start = fresh_models(torch.float64)
        trainer.ref_model, scored = Float64Scores(start), Float64Scores(policy)
        optimizer = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
        batches, history = list(trainer.get_train_dataloader()), []
        for batch in batches:
            loss, metrics = loss_and_metrics(trainer, scored, batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            history.append({"loss": float(loss.detach()), **metrics})
    return Run(batches, [], history, {name: p.detach() for name, p in policy.named_parameters()})


def float64_run_of(scenario: Scenario, rows: list[dict]) -> Run:
    """20 steps on TRL's `_compute_loss`, all in float64; made once and kept, to be read only."""
    return _float64_run(scenario, json.dumps(rows))
