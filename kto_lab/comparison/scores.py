"""What enumeration says of a policy."""

import functools
from collections.abc import Callable, Sequence

import torch

from kto_lab import recipes
from kto_lab.price import least_kl
from kto_utils.evaluate import kl_of, rates_of, reply_logps
from kto_utils.model import load_reference_model, reference_of
from kto_utils.tokenizer import load_tokenizer
from kto_utils.world import Question, replies, reworded_questions, trained_questions, untouched_questions

SETS: dict[str, Callable[[], list[Question]]] = {
    "trained": trained_questions,
    "new wording": reworded_questions,
    "untouched facts": untouched_questions,
}


def _reply_lengths(questions: Sequence[Question]) -> torch.Tensor:
    """(questions, 48): characters of every listed reply. (In tokens nearly all of them are equally long.)"""
    return torch.tensor([[len(reply.text.strip()) for reply in replies(question)] for question in questions])


def logps_on(model: torch.nn.Module, name: str) -> torch.Tensor:
    """`reply_logps` on one of `SETS`: (questions, 48), nats."""
    return reply_logps(model, SETS[name](), load_tokenizer())


def measures(logps: torch.Tensor, reference_logps: torch.Tensor, name: str) -> dict[str, float]:
    """What enumeration says about one set of questions; see `runs.train_and_score`."""
    questions = SETS[name]()
    found = rates_of(logps, questions)
    up = torch.tensor([[reply.thumbs_up for reply in replies(question)] for question in questions])
    kl = kl_of(logps, reference_logps)
    reference_rates = (reference_logps.exp() * up).sum(-1).tolist()
    listed = logps - logps.logsumexp((0, 1))  # in logs: a collapsed model may leave less than float64 can hold
    return {
        **found,
        "unknown": 1.0 - found["listed"],
        "kl": kl,
        "excess_kl": kl - least_kl(reference_rates, min(found["thumbs_up"], 1.0)),
        "length": float((listed.exp() * _reply_lengths(questions)).sum()),
    }


@functools.lru_cache(maxsize=8)
def reference_model(small: bool, sft_steps: int | None) -> torch.nn.Module:
    """The frozen model that a run starts from; see `settings.Setting`."""
    if sft_steps is None:
        return reference_of(load_reference_model(small))
    shape = recipes.SMALL_SHAPE if small else recipes.REFERENCE_SHAPE
    return reference_of(recipes.make_reference(shape, sft_steps))


@functools.lru_cache(maxsize=32)
def reference_logps_on(small: bool, sft_steps: int | None, name: str) -> torch.Tensor:
    """`logps_on` of the model that a run starts from."""
    return logps_on(reference_model(small, sft_steps), name)


def reference_scores(small: bool = True, sft_steps: int | None = None) -> dict[str, float]:
    """The scores of the model before training, under the same names as in `runs.train_and_score`."""
    scores = {}
    for name in SETS:
        logps = reference_logps_on(small, sft_steps, name)
        scores |= {f"{name} {key}": number for key, number in measures(logps, logps, name).items()}
    return scores


def rounded(found):
    """Every float to six significant digits: what a reader could print, and far above the noise of float64."""
    if isinstance(found, float):
        return float(f"{found:.6g}")
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    return [rounded(value) for value in found] if isinstance(found, list) else found
